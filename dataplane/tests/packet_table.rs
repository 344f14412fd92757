//! The parser against a table of packets, whole and cut off at every byte.

mod packet_frames;

use dataplane::fragment::FragmentKey;
use dataplane::packet::{Family, Fragment, Parsed, parse};
use packet_frames::{ethernet, extension, fragment, ipv4, ipv6, samples, tcp};
use std::fmt::Write;

/// The form of the table in `packet_frames`: what is absent is left out.
fn render(parsed: &Parsed) -> String {
    let mut text = String::new();
    let written = match parsed {
        Parsed::Other { l3_offset, pcp } => write!(text, "other at {l3_offset}")
            .and_then(|()| pcp.map_or(Ok(()), |pcp| write!(text, " pcp {}", pcp.get()))),
        Parsed::Ip(h) => render_ip(&mut text, h),
    };
    assert!(written.is_ok());
    text
}

fn render_ip(text: &mut String, h: &dataplane::packet::Headers) -> std::fmt::Result {
    write!(
        text,
        "{} tags {}",
        if h.family == Family::Ipv4 { "v4" } else { "v6" },
        h.vlan_tags
    )?;
    if let Some(pcp) = h.pcp {
        write!(text, " pcp {}", pcp.get())?;
    }
    write!(
        text,
        " l3 {}+{} dscp {}.{} proto {}",
        h.l3_offset,
        h.l3_len,
        h.dscp.get(),
        h.ecn,
        h.protocol
    )?;
    if let Some(offset) = h.l4_offset {
        write!(text, " at {offset}")?;
    }
    if let Some(ports) = h.ports {
        write!(text, " ports {}>{}", ports.src, ports.dst)?;
    }
    match h.fragment {
        Fragment::Whole => Ok(()),
        Fragment::First { id } => write!(text, " first {id:x}"),
        Fragment::Later { id } => write!(text, " later {id:x}"),
    }
}

#[test]
fn every_sample_is_read_as_the_table_says() {
    for (description, bytes, expected) in samples() {
        let parsed = parse(&bytes, bytes.len());
        assert_eq!(render(&parsed), expected, "{description}");
        if let Parsed::Ip(headers) = parsed {
            let (src, dst) = match headers.family {
                Family::Ipv4 => (0x0a01_0203, 0xc633_6407),
                Family::Ipv6 => (0x2001_0db8_0001 << 80 | 5, 0x2001_0db8_0002 << 80 | 6),
            };
            assert_eq!((headers.src, headers.dst), (src, dst), "{description}");
        }
    }
}

/// On a live port a packet that ends early is shorter than its IP length, so it is `Other`.
#[test]
fn a_short_packet_is_other() {
    for (description, bytes, _) in samples() {
        let Parsed::Ip(whole) = parse(&bytes, bytes.len()) else {
            continue;
        };
        let end = usize::from(whole.l3_offset) + whole.l3_len as usize;
        for len in 0..bytes.len() {
            match parse(&bytes[..len], len) {
                Parsed::Ip(short) => {
                    assert!(len >= end, "{description}, {len} bytes");
                    assert_eq!(short, whole, "{description}, {len} bytes");
                }
                Parsed::Other { l3_offset, .. } => {
                    assert!(len < end, "{description}, {len} bytes");
                    assert_eq!(l3_offset, whole.l3_offset.min(len as u16), "{description}, {len} bytes");
                }
            }
        }
    }
}

/// In a capture the packet was whole and only the record is cut: the IP header decides, and what is said is true.
#[test]
fn a_cut_record_tells_the_truth_as_far_as_it_goes() {
    for (description, bytes, _) in samples() {
        let whole = parse(&bytes, bytes.len());
        for len in 0..bytes.len() {
            let cut = parse(&bytes[..len], bytes.len());
            match (whole, cut) {
                (Parsed::Ip(whole), Parsed::Ip(cut)) => {
                    assert_eq!(
                        (cut.src, cut.dst, cut.l3_len, cut.dscp, cut.ecn, cut.pcp, cut.vlan_tags),
                        (
                            whole.src,
                            whole.dst,
                            whole.l3_len,
                            whole.dscp,
                            whole.ecn,
                            whole.pcp,
                            whole.vlan_tags
                        ),
                        "{description}, {len} bytes"
                    );
                    assert!(
                        cut.ports.is_none() || cut.ports == whole.ports,
                        "{description}, {len} bytes"
                    );
                    assert!(
                        cut.l4_offset.is_none() || cut.l4_offset == whole.l4_offset,
                        "{description}, {len} bytes"
                    );
                    assert!(
                        cut.l4_offset.is_none_or(|offset| usize::from(offset) <= len),
                        "{description}, {len} bytes"
                    );
                }
                (_, Parsed::Other { l3_offset, .. }) => {
                    assert!(usize::from(l3_offset) <= len, "{description}, {len} bytes");
                }
                (Parsed::Other { .. }, Parsed::Ip(_)) => panic!("{description}: IP only when cut to {len} bytes"),
            }
        }
    }
}

/// A wire length below the bytes at hand is a broken capture record; the bytes are believed.
#[test]
fn a_wire_length_below_the_record_is_ignored() {
    for (description, bytes, _) in samples() {
        assert_eq!(parse(&bytes, 0), parse(&bytes, bytes.len()), "{description}");
    }
}

/// In IPv6 the first fragment's chain leads to TCP, the later one's ends at destination options.
#[test]
fn fragments_of_one_datagram_have_one_key() {
    let v4 = |flags| ethernet(&[], 0x0800, &ipv4(0, flags, 6, &[], &tcp(1, 2, b"1234")));
    let options = extension(6, 0, &tcp(1, 2, b"1234"));
    let v6 = |offset, more| ethernet(&[], 0x86dd, &ipv6(0, 44, &fragment(60, offset, more, &options)));
    let key = |bytes: Vec<u8>| match parse(&bytes, bytes.len()) {
        Parsed::Ip(headers) => FragmentKey::of(&headers),
        Parsed::Other { .. } => panic!("not IP"),
    };
    for (first, later, whole) in [
        (v4(0x2000), v4(0x0003), v4(0)),
        (v6(0, true), v6(4, false), v6(0, false)),
    ] {
        assert!(key(first.clone()).is_some());
        assert_eq!(key(first), key(later));
        assert_eq!(key(whole), None);
    }
}

//! Checksums against a word-by-word computation and smoltcp's, and the finishing of those a sender only began.

mod packet_frames;

use dataplane::checksum::{PartialChecksum, complete, find_partial, ipv4_header_checksum, transport_checksum};
use dataplane::packet::{Family, Headers, Parsed, parse};
use packet_frames::{ethernet, extension, fragment, ipv4, ipv6, samples, slow_checksum, tcp, udp};
use smoltcp::wire::{IpAddress, Ipv4Packet, Ipv6Packet, TcpPacket, UdpPacket};

fn headers(bytes: &[u8]) -> Headers {
    match parse(bytes, bytes.len()) {
        Parsed::Ip(headers) => headers,
        Parsed::Other { .. } => panic!("not IP: {bytes:02x?}"),
    }
}

/// The pseudo-header written out (RFC 9293 section 3.1, RFC 8200 section 8.1).
fn pseudo_header(at: &Headers, len: usize) -> Vec<u8> {
    let len = len as u32;
    match at.family {
        Family::Ipv4 => [
            &(at.src as u32).to_be_bytes()[..],
            &(at.dst as u32).to_be_bytes(),
            &[0, at.protocol],
            &(len as u16).to_be_bytes(),
        ]
        .concat(),
        Family::Ipv6 => [
            &at.src.to_be_bytes()[..],
            &at.dst.to_be_bytes(),
            &len.to_be_bytes(),
            &[0, 0, 0, at.protocol],
        ]
        .concat(),
    }
}

/// A packet of each family and protocol with `payload`, checksum 0.
fn packets(payload: &[u8]) -> [Vec<u8>; 4] {
    [
        ethernet(&[], 0x0800, &ipv4(0, 0, 17, &[], &udp(4000, 53, payload))),
        ethernet(
            &[(0x8100, 5)],
            0x0800,
            &ipv4(0, 0, 6, &[1; 8], &tcp(4000, 443, payload)),
        ),
        ethernet(&[], 0x86dd, &ipv6(0, 17, &udp(4000, 53, payload))),
        ethernet(
            &[(0x88a8, 5), (0x8100, 6)],
            0x86dd,
            &ipv6(0, 6, &tcp(4000, 443, payload)),
        ),
    ]
}

fn field(at: &Headers) -> usize {
    usize::from(at.l4_offset.expect("a transport")) + if at.protocol == 6 { 16 } else { 6 }
}

/// Leaves the packet as a sender behind a veth pair would: the field holds the folded sum of the pseudo-header.
fn begin(bytes: &mut [u8]) -> Headers {
    let at = headers(bytes);
    let len = bytes.len() - usize::from(at.l4_offset.expect("a transport"));
    let begun = !slow_checksum(&pseudo_header(&at, len));
    bytes[field(&at)..][..2].copy_from_slice(&begun.to_be_bytes());
    at
}

fn smoltcp_fills(bytes: &[u8], at: &Headers) -> Vec<u8> {
    let mut bytes = bytes.to_vec();
    let l3 = usize::from(at.l3_offset);
    let (src, dst): (IpAddress, IpAddress) = match at.family {
        Family::Ipv4 => {
            let view = Ipv4Packet::new_checked(&bytes[l3..]).expect("IPv4");
            (view.src_addr().into(), view.dst_addr().into())
        }
        Family::Ipv6 => {
            let view = Ipv6Packet::new_checked(&bytes[l3..]).expect("IPv6");
            (view.src_addr().into(), view.dst_addr().into())
        }
    };
    let segment = &mut bytes[usize::from(at.l4_offset.expect("a transport"))..];
    match at.protocol {
        6 => TcpPacket::new_checked(segment).expect("TCP").fill_checksum(&src, &dst),
        _ => UdpPacket::new_checked(segment).expect("UDP").fill_checksum(&src, &dst),
    }
    bytes
}

#[test]
fn a_begun_checksum_is_found_and_finished() {
    for len in (0..80).chain([511, 1400, 1447]) {
        let payload: Vec<u8> = (0..len).map(|index| (index * 7 + len) as u8).collect();
        for mut bytes in packets(&payload) {
            let at = begin(&mut bytes);
            let expected = smoltcp_fills(&bytes, &at);
            let partial = find_partial(&bytes, &at).expect("begun");
            let offset = if at.protocol == 6 { 16 } else { 6 };
            assert_eq!(
                partial,
                PartialChecksum {
                    start: at.l4_offset.expect("a transport"),
                    offset
                }
            );
            complete(&mut bytes, &at, partial);
            assert_eq!(bytes, expected, "{at:?}");
            assert_eq!(find_partial(&bytes, &at), None, "finished: {at:?}");
        }
    }
}

/// A payload chosen so that the finished checksum happens to equal the sum of the pseudo-header.
#[test]
fn finishing_a_finished_checksum_changes_nothing() {
    for mut bytes in packets(&[0; 4]) {
        let at = begin(&mut bytes);
        let l4 = usize::from(at.l4_offset.expect("a transport"));
        let end = bytes.len();
        // Payload word p such that ~(pseudo + rest + p) = pseudo: p = ~(pseudo + pseudo + rest).
        let pseudo = pseudo_header(&at, end - l4);
        let word = slow_checksum(&[&pseudo[..], &bytes[l4..]].concat());
        bytes[end - 2..].copy_from_slice(&word.to_be_bytes());
        assert_eq!(slow_checksum(&[&pseudo[..], &bytes[l4..]].concat()), 0, "intact");
        let before = bytes.clone();
        let partial = find_partial(&bytes, &at).expect("looks begun");
        complete(&mut bytes, &at, partial);
        assert_eq!(bytes, before);
    }
}

#[test]
fn a_udp_checksum_of_zero_is_sent_as_ffff() {
    for index in [0, 2] {
        let mut bytes = packets(&[0; 2])[index].clone();
        let at = headers(&bytes);
        let l4 = usize::from(at.l4_offset.expect("a transport"));
        let word = slow_checksum(&[&pseudo_header(&at, bytes.len() - l4)[..], &bytes[l4..]].concat());
        let end = bytes.len();
        bytes[end - 2..].copy_from_slice(&word.to_be_bytes());
        begin(&mut bytes);
        let partial = find_partial(&bytes, &at).expect("begun");
        complete(&mut bytes, &at, partial);
        assert_eq!(bytes[field(&at)..][..2], [0xff, 0xff]);
    }
}

#[test]
fn what_is_not_begun_is_left_alone() {
    let v6 = |next, payload: &[u8]| ethernet(&[], 0x86dd, &ipv6(0, next, payload));
    let u = udp(7, 8, b"data");
    // Each has the pseudo-header's sum in its field, so only the reason named keeps it from being found.
    let mut table = vec![
        ("IPv4 fragment", ethernet(&[], 0x0800, &ipv4(0, 0x2000, 17, &[], &u))),
        ("IPv6 fragment", v6(44, &fragment(17, 0, true, &u))),
        ("IPv6 atomic fragment", v6(44, &fragment(17, 0, false, &u))),
        ("IPv6 routing header", v6(43, &extension(17, 0, &u))),
        (
            "UDP length below the payload",
            ethernet(&[], 0x0800, &ipv4(0, 0, 17, &[], &[&u[..], b"more"].concat())),
        ),
        (
            "TCP header cut off",
            ethernet(&[], 0x0800, &ipv4(0, 0, 6, &[], &tcp(1, 2, b"")[..19])),
        ),
        (
            "UDP header cut off",
            ethernet(&[], 0x0800, &ipv4(0, 0, 17, &[], &u[..7])),
        ),
    ];
    for (description, bytes) in &mut table {
        if bytes.len() >= field(&headers(bytes)) + 2 {
            begin(bytes);
        }
        let at = headers(bytes);
        assert_eq!(find_partial(bytes, &at), None, "{description}");
    }
    for (description, bytes, _) in samples() {
        // All samples have checksum 0, in IPv4 UDP "none".
        let Parsed::Ip(at) = parse(&bytes, bytes.len()) else {
            continue;
        };
        assert_eq!(find_partial(&bytes, &at), None, "{description}");
    }
}

#[test]
fn a_packet_cut_off_is_neither_found_nor_written() {
    for mut bytes in packets(b"payload") {
        let at = begin(&mut bytes);
        let partial = find_partial(&bytes, &at).expect("begun");
        for len in 0..bytes.len() {
            let mut cut = bytes[..len].to_vec();
            assert_eq!(find_partial(&cut, &at), None);
            complete(&mut cut, &at, partial);
            assert_eq!(cut, bytes[..len]);
        }
        let mut untouched = bytes.clone();
        complete(&mut untouched, &at, PartialChecksum { start: 0, offset: 0 });
        assert_eq!(untouched, bytes);
    }
}

#[test]
fn sums_equal_the_slow_ones() {
    let bytes: Vec<u8> = (0..2000_u32)
        .map(|index| (index.wrapping_mul(2_654_435_761) >> 13) as u8)
        .collect();
    for len in (0..100).chain([1499, 1500, 2000]) {
        for data in [&bytes[..len], &vec![0xff; len]] {
            // Addresses of zero, protocol 0: the pseudo-header adds only the length.
            let expected = slow_checksum(&[&(len as u16).to_be_bytes()[..], data].concat());
            assert_eq!(transport_checksum(0, 0, 0, data), expected, "{len} bytes");
        }
    }
    for (description, bytes, _) in samples() {
        let Parsed::Ip(at) = parse(&bytes, bytes.len()) else {
            continue;
        };
        if at.family == Family::Ipv4 && at.vlan_tags == 0 {
            let header = &bytes[14..14 + usize::from(bytes[14] & 15) * 4];
            assert_eq!(
                ipv4_header_checksum(header).to_be_bytes(),
                header[10..12],
                "{description}"
            );
        }
    }
    assert_eq!(ipv4_header_checksum(&[]), 0xffff);
}

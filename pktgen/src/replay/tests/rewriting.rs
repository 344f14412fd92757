//! Rewritten packets: the right bytes, and checksums that a computation from nothing agrees with.

use dataplane::checksum::{ipv4_header_checksum, transport_checksum};
use dataplane::packet::{self as headers, Family, Parsed};

use super::captures::{ICMP, ICMPV6, TCP, UDP, packet};
use super::*;
use crate::stream::Vlan;

/// Whether all checksums of the packet are what its bytes give.
fn good(bytes: &[u8]) -> bool {
    let Parsed::Ip(at) = headers::parse(bytes, bytes.len()) else {
        panic!("no IP packet: {bytes:02x?}");
    };
    let (l3, l4) = (usize::from(at.l3_offset), usize::from(at.l4_offset.unwrap()));
    if at.family == Family::Ipv4 && ipv4_header_checksum(&bytes[l3..l4]).to_be_bytes() != bytes[l3 + 10..l3 + 12] {
        return false;
    }
    let mut segment = bytes[l4..l3 + at.l3_len as usize].to_vec();
    let field = match at.protocol {
        TCP => 16,
        UDP => 6,
        ICMP => return captures::checksum(&segment) == 0,
        _ => 2,
    };
    let found = u16::from_be_bytes([segment[field], segment[field + 1]]);
    segment[field..field + 2].fill(0);
    transport_checksum(at.src, at.dst, at.protocol, &segment) == found
}

fn rules() -> Rewrite {
    Rewrite {
        source_mac: Some([2, 0, 0, 0, 0, 0xaa]),
        destination_mac: Some([2, 0, 0, 0, 0, 0xbb]),
        vlan: VlanChange::Keep,
        addresses: vec![
            "10.0.0.0/8=172.0.0.0/8".parse().unwrap(),
            "198.51.100.0/24=10.0.0.0/8".parse().unwrap(),
            "2001:db8:1::/48=fd00:1::/32".parse().unwrap(),
            "2001:db8:2::/48=fd00:2:3::/48".parse().unwrap(),
        ],
        ports: vec!["80=8080".parse().unwrap()],
    }
}

#[test]
fn addresses_and_ports_change_and_checksums_stay_right() {
    for (ipv4, protocol) in [
        (true, TCP),
        (true, UDP),
        (true, ICMP),
        (false, TCP),
        (false, UDP),
        (false, ICMPV6),
    ] {
        for payload in [0, 1, 18, 1000] {
            for vlan in [None, Some(0x2007)] {
                let before = packet(ipv4, protocol, vlan, payload);
                assert!(good(&before));
                let mut after = before.clone();
                assert!(!rules().apply(&mut after));
                assert!(good(&after), "{protocol} {payload}\n{before:02x?}\n{after:02x?}");
                let Parsed::Ip(at) = headers::parse(&after, after.len()) else {
                    panic!("no IP packet any more");
                };
                let (source, destination) = if ipv4 {
                    (0xac01_0203, 0x0a00_0007)
                } else {
                    let v6 = |text: &str| text.parse::<std::net::Ipv6Addr>().unwrap().to_bits();
                    (v6("fd00:1::3"), v6("fd00:2:3::7"))
                };
                assert_eq!((at.src, at.dst), (source, destination));
                if let Some(ports) = at.ports {
                    assert_eq!((ports.src, ports.dst), (1234, 8080));
                }
                assert_eq!(after[..12], [2, 0, 0, 0, 0, 0xbb, 2, 0, 0, 0, 0, 0xaa]);
                assert_eq!(after.len(), before.len());
            }
        }
    }
}

/// Whatever the addresses, the updated checksum is the computed one; of the two zeros of UDP too.
#[test]
fn the_update_equals_the_computation_for_any_words() {
    let mut state = 3_u64;
    let mut next = || {
        state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        crate::flow::mix(state)
    };
    for round in 0..20_000_u64 {
        let word = |value: u64| [0, 0xffff, value as u16][value as usize % 3].to_be_bytes();
        let mut bytes = packet(round % 2 == 0, UDP, None, 2);
        let rule = |from: u128, to: [u8; 16]| {
            let (from, to): (std::net::IpAddr, std::net::IpAddr) = if round % 2 == 0 {
                let v4 = |bytes: &[u8]| std::net::IpAddr::from(<[u8; 4]>::try_from(bytes).unwrap());
                (v4(&(from as u32).to_be_bytes()), v4(&to[..4]))
            } else {
                (std::net::IpAddr::from(from.to_be_bytes()), to.into())
            };
            AddressRule::new(Side::Both, from.into(), to.into()).unwrap()
        };
        // A payload that makes the checksum take every value, 0xffff among them.
        let len = bytes.len();
        bytes[len - 2..].copy_from_slice(&word(next()));
        rewrite::recompute(&mut bytes);
        assert!(good(&bytes));
        let Parsed::Ip(at) = headers::parse(&bytes, len) else {
            panic!()
        };
        let to: Vec<u8> = (0..8).flat_map(|_| word(next())).collect();
        let rewrite = Rewrite {
            addresses: vec![rule(at.src, to.try_into().unwrap())],
            ..Rewrite::default()
        };
        rewrite.apply(&mut bytes);
        assert!(good(&bytes), "round {round}: {bytes:02x?}");
    }
}

#[test]
fn damage_stays_damage_and_no_checksum_stays_none() {
    let mut damaged = packet(true, TCP, None, 100);
    damaged[80] ^= 4;
    rules().apply(&mut damaged);
    assert!(!good(&damaged));
    damaged[80] ^= 4;
    assert!(good(&damaged));
    let mut without = packet(true, UDP, None, 100);
    without[40..42].fill(0);
    rules().apply(&mut without);
    assert_eq!(without[40..42], [0, 0]);
}

#[test]
fn checksums_that_were_only_begun_are_finished() {
    for (ipv4, protocol) in [(true, TCP), (true, UDP), (false, TCP), (false, UDP)] {
        let whole = packet(ipv4, protocol, None, 50);
        let mut begun = whole.clone();
        let l4 = if ipv4 { 34 } else { 54 };
        let field = l4 + if protocol == TCP { 16 } else { 6 };
        let addresses = if ipv4 { 26..34 } else { 22..54 };
        let len = ((whole.len() - l4) as u16).to_be_bytes();
        let pseudo = [&whole[addresses], &[0, protocol], &len].concat();
        begun[field..field + 2].copy_from_slice(&(!captures::checksum(&pseudo)).to_be_bytes());
        assert!(!good(&begun));
        let mut rewritten = begun.clone();
        assert!(rules().apply(&mut rewritten) && good(&rewritten));
        // Without a rule they go as they came, unless finishing was asked for.
        let capture = pcap(Order::Little, NANOS, 1, &[Record::whole(SECOND, &begun)]);
        let (packets, result) = run_with(&capture, |_| {}, |_| {});
        assert_eq!((&packets[0].1, result.checksums_finished), (&begun, 0));
        let (packets, result) = run_with(&capture, |options| options.finish_checksums = true, |_| {});
        assert_eq!((&packets[0].1, result.checksums_finished), (&whole, 1));
    }
}

#[test]
fn padded_packets_get_checksums_for_what_they_are() {
    for (ipv4, protocol) in [(true, TCP), (true, UDP), (false, TCP), (false, UDP)] {
        let whole = packet(ipv4, protocol, None, 500);
        let kept = if ipv4 { 60 } else { 80 };
        let record = Record {
            at: SECOND,
            wire_len: whole.len() as u32,
            data: whole[..kept].to_vec(),
        };
        let capture = pcap(Order::Little, NANOS, 1, &[record]);
        let pad = |options: &mut ReplayOptions| {
            options.cut = CutPackets::Pad;
            options.rewrite = rules();
        };
        let (packets, result) = run_with(&capture, pad, |_| {});
        assert_eq!((packets[0].1.len(), result.padded), (whole.len(), 1));
        assert!(good(&packets[0].1));
    }
}

#[test]
fn tags_are_stripped_set_and_added() {
    let plain = packet(true, UDP, None, 30);
    let tagged = packet(true, UDP, Some(0x2007), 30);
    let mut double = tagged.clone();
    double.splice(12..12, [0x88, 0xa8, 0x00, 0x05]);
    let with = |vlan, bytes: &[u8]| {
        let mut bytes = bytes.to_vec();
        let rewrite = Rewrite {
            vlan,
            ..Rewrite::default()
        };
        rewrite.apply(&mut bytes);
        bytes
    };
    for bytes in [&plain, &tagged, &double] {
        assert_eq!(with(VlanChange::Strip, bytes), plain);
    }
    let set = VlanChange::Set(Vlan { id: 7, pcp: 1 });
    assert_eq!(with(set, &plain), tagged);
    assert_eq!(
        with(VlanChange::Set(Vlan { id: 4095, pcp: 7 }), &tagged)[12..16],
        [0x81, 0, 0xef, 0xff]
    );
    assert_eq!(with(set, &double)[12..20], [0x88, 0xa8, 0x20, 7, 0x81, 0, 0x20, 7]);
    // A tag may make a packet too long for a frame, and its removal may make it fit.
    let capture = |bytes: Vec<u8>| pcap(Order::Little, NANOS, 1, &[Record::whole(SECOND, &bytes)]);
    let (packets, _) = run_with(&capture(vec![0x55; 1514]), |options| options.rewrite.vlan = set, |_| {});
    assert_eq!(packets[0].1.len(), 1518);
    let mut long = tagged.clone();
    long.resize(1518, 0);
    let (packets, _) = run_with(
        &capture(long),
        |options| options.rewrite.vlan = VlanChange::Strip,
        |_| {},
    );
    assert_eq!(packets[0].1.len(), 1514);
}

#[test]
fn arp_follows_the_addresses() {
    let mut arp = vec![0xff; 6];
    arp.extend([
        2, 0, 0, 0, 0, 1, 8, 6, 0, 1, 8, 0, 6, 4, 0, 1, 2, 0, 0, 0, 0, 1, 10, 1, 2, 3,
    ]);
    arp.extend([0, 0, 0, 0, 0, 0, 198, 51, 100, 7]);
    let mut after = arp.clone();
    rules().apply(&mut after);
    assert_eq!(after[22..32], [2, 0, 0, 0, 0, 0xaa, 172, 1, 2, 3]);
    assert_eq!(after[32..42], [0, 0, 0, 0, 0, 0, 10, 0, 0, 7]);
    for end in 0..arp.len() {
        let mut cut = arp[..end].to_vec();
        rules().apply(&mut cut);
        assert_eq!(cut.len(), end);
    }
}

#[test]
fn sides_and_order_of_rules_hold() {
    let map = |text: &str, side| text.parse::<AddressRule>().unwrap().only(side);
    let rewrite = Rewrite {
        addresses: vec![
            map("0.0.0.0/0=0.0.0.0/0", Side::Destination),
            map("10.1.2.3=192.0.2.1", Side::Source),
            map("10.1.0.0/16=192.1.0.0/16", Side::Both),
        ],
        ..Rewrite::default()
    };
    let mut bytes = packet(true, TCP, None, 9);
    rewrite.apply(&mut bytes);
    assert_eq!(bytes[26..34], [192, 0, 2, 1, 198, 51, 100, 7]);
    assert!(good(&bytes));
    for (text, says) in [
        ("10.0.0.0/8", "FROM=TO"),
        ("10.0.0.0/8=x", "not a prefix"),
        ("10.0.0.0/8=2001:db8::/32", "families"),
        ("10.0.0.0/8=10.0.0.0/9", "/8 or shorter"),
    ] {
        let error = text.parse::<AddressRule>().unwrap_err();
        assert!(error.contains(says), "{error}");
    }
    assert!("80".parse::<PortRule>().is_err() && "80=65536".parse::<PortRule>().is_err());
}

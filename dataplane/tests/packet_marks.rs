//! Marking in place, held against a full computation of the IPv4 header checksum.

mod packet_frames;

use dataplane::mark::{set_ce, set_dscp, set_pcp};
use dataplane::packet::{Dscp, Family, Headers, Parsed, Pcp, parse};
use packet_frames::{ethernet, ipv4, ipv6, samples, slow_checksum, udp};

fn headers(bytes: &[u8]) -> Headers {
    match parse(bytes, bytes.len()) {
        Parsed::Ip(headers) => headers,
        Parsed::Other { .. } => panic!("not IP: {bytes:02x?}"),
    }
}

fn dscp(value: u8) -> Dscp {
    Dscp::new(value).expect("below 64")
}

fn pcp(value: u8) -> Pcp {
    Pcp::new(value).expect("below 8")
}

/// A sequence of numbers, always the same.
fn numbers(seed: u64) -> impl FnMut() -> u64 {
    println!("seed {seed}");
    let mut state = seed;
    move || {
        state = state
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        state >> 24
    }
}

/// An IPv4 packet with random identification, lifetime and addresses, and a right checksum.
fn random_ipv4(tos: u8, mut random: impl FnMut() -> u64) -> Vec<u8> {
    let mut packet = ipv4(tos, 0, 17, &[], &udp(1, 2, b""));
    for index in [4, 5, 8, 12, 13, 14, 15, 16, 17, 18, 19] {
        packet[index] = random() as u8;
    }
    write_checksum(&mut packet);
    ethernet(&[], 0x0800, &packet)
}

fn write_checksum(packet: &mut [u8]) {
    packet[10..12].fill(0);
    let checksum = slow_checksum(&packet[..20]);
    packet[10..12].copy_from_slice(&checksum.to_be_bytes());
}

#[test]
fn every_dscp_pair_in_ipv4_equals_a_full_computation() {
    let mut random = numbers(0x6473_6370);
    for (old, new) in (0..64).flat_map(|old| (0..64).map(move |new| (old, new))) {
        for ecn in 0..4 {
            let mut bytes = random_ipv4(old << 2 | ecn, &mut random);
            let mut expected = bytes.clone();
            expected[15] = new << 2 | ecn;
            write_checksum(&mut expected[14..]);
            let at = headers(&bytes);
            assert_eq!(set_dscp(&mut bytes, at.l3_offset, at.family, dscp(new)), old != new);
            assert_eq!(bytes, expected, "{old} to {new}, ECN {ecn}");
        }
    }
}

#[test]
fn every_dscp_pair_in_ipv6_leaves_all_else() {
    for (old, new) in (0..64).flat_map(|old| (0..64).map(move |new| (old, new))) {
        for ecn in 0..4 {
            let packet = |dscp: u8| ethernet(&[(0x8100, 7)], 0x86dd, &ipv6(dscp << 2 | ecn, 17, &udp(1, 2, b"")));
            let mut bytes = packet(old);
            let at = headers(&bytes);
            assert_eq!(set_dscp(&mut bytes, at.l3_offset, at.family, dscp(new)), old != new);
            assert_eq!(bytes, packet(new), "{old} to {new}, ECN {ecn}");
        }
    }
}

/// RFC 1624 section 4 works an example: 0xcd7a and 0x5555 -> 0x3285 with checksum 0xdd2f must give 0x0000, where the
/// older equation gave 0xffff. Here the identification is chosen so that the checksum after, or before, is zero.
#[test]
fn both_zeros_of_ones_complement() {
    for (old, new) in [(0, 46), (46, 0), (10, 12), (63, 1)] {
        let zero_at = |value: u8| {
            let mut packet = ipv4(value << 2, 0, 17, &[], &udp(1, 2, b""));
            packet[4..6].fill(0);
            packet[10..12].fill(0);
            let id = slow_checksum(&packet[..20]);
            packet[4..6].copy_from_slice(&id.to_be_bytes());
            assert_eq!(slow_checksum(&packet[..20]), 0);
            packet
        };
        let mut becomes_zero = zero_at(new);
        becomes_zero[1] = old << 2;
        write_checksum(&mut becomes_zero);
        let mut bytes = ethernet(&[], 0x0800, &becomes_zero);
        let at = headers(&bytes);
        assert!(set_dscp(&mut bytes, at.l3_offset, at.family, dscp(new)));
        assert_eq!(bytes[24..26], [0, 0], "{old} to {new}");

        for zero in [0x00, 0xff] {
            let mut was_zero = ethernet(&[], 0x0800, &zero_at(old));
            was_zero[24..26].fill(zero);
            let mut expected = was_zero.clone();
            expected[15] = new << 2;
            write_checksum(&mut expected[14..]);
            assert!(set_dscp(&mut was_zero, at.l3_offset, at.family, dscp(new)));
            assert_eq!(was_zero, expected, "{old} to {new} from {zero:02x}");
        }
    }
}

/// The sum over a header with its checksum is 0xffff when it is right, and else tells by how much it is wrong.
#[test]
fn a_wrong_checksum_stays_wrong_by_as_much() {
    let mut random = numbers(0x7772_6f6e);
    // All of them, because the second end-around carry happens for one checksum in 2^16.
    for checksum in 0..=u16::MAX {
        let mut bytes = random_ipv4(1 << 2, &mut random);
        bytes[24..26].copy_from_slice(&checksum.to_be_bytes());
        let before = slow_checksum(&bytes[14..34]);
        let at = headers(&bytes);
        for new in [0, 4, 46, 63] {
            set_dscp(&mut bytes, at.l3_offset, at.family, dscp(new));
            assert_eq!(slow_checksum(&bytes[14..34]), before, "{checksum:04x}, {new}");
        }
    }
}

#[test]
fn marking_changes_only_what_the_parser_calls_dscp() {
    for (description, bytes, _) in samples() {
        let Parsed::Ip(before) = parse(&bytes, bytes.len()) else {
            continue;
        };
        let mut marked = bytes.clone();
        let changed = set_dscp(&mut marked, before.l3_offset, before.family, dscp(33));
        assert_eq!(changed, before.dscp != dscp(33), "{description}");
        assert_eq!(
            headers(&marked),
            Headers {
                dscp: dscp(33),
                ..before
            },
            "{description}"
        );
        assert!(
            !set_dscp(&mut marked, before.l3_offset, before.family, dscp(33)),
            "{description}: second time"
        );
        set_dscp(&mut marked, before.l3_offset, before.family, before.dscp);
        assert_eq!(marked, bytes, "{description}: and back");
    }
}

#[test]
fn congestion_is_told_only_to_who_can_hear_it() {
    // (ECN before, told, ECN after): not-ECT, ECT(1), ECT(0), CE.
    for (before, told, after) in [(0, false, 0), (1, true, 3), (2, true, 3), (3, true, 3)] {
        let v4 = |ecn: u8| ethernet(&[], 0x0800, &ipv4(0xb8 | ecn, 0, 17, &[], &udp(1, 2, b"")));
        let v6 = |ecn: u8| ethernet(&[], 0x86dd, &ipv6(0xb8 | ecn, 17, &udp(1, 2, b"")));
        let mut bytes = v4(before);
        assert_eq!(set_ce(&mut bytes, 14, Family::Ipv4), told);
        assert_eq!(bytes, v4(after));
        let mut bytes = v6(before);
        assert_eq!(set_ce(&mut bytes, 14, Family::Ipv6), told);
        assert_eq!(bytes, v6(after));
    }
}

/// (TPID, tag control information) of each tag.
type Tags = &'static [(u16, u16)];

#[test]
fn priority_goes_to_the_outer_tag() {
    let frame = |tags: &[(u16, u16)]| ethernet(tags, 0x0806, &[0; 46]);
    // (description, tags before, value changed, tags after) for priority 5.
    let table: [(_, Tags, _, Tags); 5] = [
        ("no tag", &[], false, &[]),
        ("VID stays", &[(0x8100, 0x0fff)], true, &[(0x8100, 0xafff)]),
        ("DEI stays", &[(0x88a8, 0xf001)], true, &[(0x88a8, 0xb001)]),
        (
            "inner tag stays",
            &[(0x88a8, 0x2001), (0x8100, 0xe002)],
            true,
            &[(0x88a8, 0xa001), (0x8100, 0xe002)],
        ),
        ("5 already", &[(0x9100, 0xa123)], false, &[(0x9100, 0xa123)]),
    ];
    for (description, before, changed, after) in table {
        let mut bytes = frame(before);
        assert_eq!(set_pcp(&mut bytes, pcp(5)), changed, "{description}");
        assert_eq!(bytes, frame(after), "{description}");
    }
}

#[test]
fn nothing_is_written_beyond_a_short_packet() {
    let whole = ethernet(&[(0x8100, 0)], 0x0800, &ipv4(1, 0, 17, &[], &udp(1, 2, b"")));
    let at = headers(&whole);
    for len in 0..at.l3_offset + 12 {
        let mut bytes = whole[..usize::from(len)].to_vec();
        assert!(!set_dscp(&mut bytes, at.l3_offset, at.family, dscp(7)));
        assert!(!set_ce(&mut bytes, at.l3_offset, at.family));
        assert_eq!(bytes, whole[..usize::from(len)]);
        assert_eq!(set_pcp(&mut bytes, pcp(1)), len >= 16);
    }
    assert!(!set_ce(&mut [0xff; 64], u16::MAX, Family::Ipv6));
}

//! Packets that no honest sender makes, through the whole path: each leaves at once and as it came but for its marks, or
//! is dropped for a reason. `WEIR_PACKETS` makes the random part longer.

mod common;
#[path = "../../dataplane/tests/packet_frames/mod.rs"]
#[allow(dead_code, reason = "made for the tests of the parser")]
mod packet_frames;

use common::{Bench, BenchSize, Chance, checked, number_from, two_ports};
use dataplane::clock::Nanos;
use dataplane::packet::{self, Family, Parsed};
use packet_frames::{ethernet, extension, fragment, ipv4, ipv6, samples, tcp, udp};

/// The hand-made packets come from 10.1.2.3 and 2001:db8:1::5: their contract has no rate to speak of, so that all but
/// the first few are excess.
fn config(layer: &str, action: &str) -> config::Config {
    let base = two_ports(None);
    checked(&format!(
        r#"{base}
[defaults]
layer = "{layer}"
[[class]]
name = "only"
priority = 1
nonconforming_dscp = 21
nonconforming_pcp = 2
[[service]]
name = "us"
endpoints = ["10.1.0.0/16", "2001:db8:1::/48"]
[[contract]]
service = "us"
class = "only"
region = "here"
direction = "egress"
rate = "8 kbit/s"
burst = "16 kB"
[contract.excess]
action = "{action}"
"#
    ))
}

struct Range {
    bench: Bench,
    now: Nanos,
    partial_checksums: bool,
    forwarded: u64,
    dropped: u64,
    changed: u64,
}

impl Range {
    fn new(layer: &str, action: &str, partial_checksums: bool) -> Self {
        let size = BenchSize {
            frames: 64,
            room: 16,
            batch: 8,
            partial_checksums,
        };
        Self {
            bench: Bench::new(&config(layer, action), &size),
            now: Nanos(1),
            partial_checksums,
            forwarded: 0,
            dropped: 0,
            changed: 0,
        }
    }

    /// Fires one packet, at either end, and looks at what became of it.
    fn fire(&mut self, end: usize, bytes: &[u8], wire_len: u32) {
        self.now = self.now.plus(Nanos(1_000));
        assert!(self.bench.arrive(end, bytes, wire_len));
        self.bench.worker.turn(self.now);
        let out = self.bench.departed(1 - end, 2);
        match out.as_slice() {
            [] => self.dropped += 1,
            [after] => {
                self.forwarded += 1;
                self.changed += u64::from(bytes != after);
                let allowed = may_change(bytes, wire_len, self.partial_checksums);
                assert_eq!(bytes.len(), after.len());
                for (at, (before, after)) in bytes.iter().zip(after).enumerate() {
                    let mask = allowed
                        .iter()
                        .find(|(place, _)| *place == at)
                        .map_or(0, |(_, mask)| *mask);
                    assert_eq!(before & !mask, after & !mask, "byte {at} of {bytes:02x?}");
                }
            }
            _ => panic!("one packet became two"),
        }
        let ledgers = self.bench.closed_ledgers();
        let held: u64 = ledgers.iter().map(|ledger| ledger.held.packets).sum();
        assert_eq!(held, 0, "nothing keeps it here");
        let dropped: u64 = ledgers
            .iter()
            .flat_map(|ledger| ledger.dropped)
            .map(|amount| amount.packets)
            .sum();
        assert_eq!(dropped, self.dropped);
    }

    fn both_ways(&mut self, bytes: &[u8], wire_len: u32) {
        self.fire(0, bytes, wire_len);
        self.fire(1, bytes, wire_len);
    }
}

/// Bytes and bits that a mark, or the checksum over it, may change.
fn may_change(bytes: &[u8], wire_len: u32, partial_checksums: bool) -> Vec<(usize, u8)> {
    let Parsed::Ip(headers) = packet::parse(bytes, wire_len as usize) else {
        return Vec::new();
    };
    let at = usize::from(headers.l3_offset);
    let mut places = match headers.family {
        Family::Ipv4 => vec![(at + 1, 0xfc), (at + 10, 0xff), (at + 11, 0xff)],
        Family::Ipv6 => vec![(at, 0x0f), (at + 1, 0xc0)],
    };
    if headers.vlan_tags > 0 {
        places.push((14, 0xe0));
    }
    if let (true, Some(transport)) = (partial_checksums, headers.l4_offset) {
        let field = usize::from(transport) + if headers.protocol == 6 { 16 } else { 6 };
        places.extend([(field, 0xff), (field + 1, 0xff)]);
    }
    places
}

#[test]
fn every_sample_cut_at_every_byte() {
    for (layer, action, partial) in [("l3", "remark", false), ("l2", "queue", true), ("l1", "drop", true)] {
        let mut range = Range::new(layer, action, partial);
        for (_, bytes, _) in samples() {
            for end in 0..=bytes.len() {
                let cut = &bytes[..end];
                // On the wire as long as it is; as a capture that was cut short; and longer than anything.
                for wire_len in [end as u32, bytes.len() as u32, u32::MAX] {
                    range.both_ways(cut, wire_len);
                }
            }
        }
        assert!(range.forwarded > 1_000);
        assert_eq!(range.dropped > 0, action == "drop");
        assert_eq!(range.changed > 0, action == "remark" || partial, "{action}");
    }
}

#[test]
fn chance_changes_nothing_but_marks() {
    let mut chance = Chance::seeded("packets", 0x7061_636b);
    let mut ranges = [
        Range::new("l3", "remark", false),
        Range::new("l1", "remark", true),
        Range::new("l2", "drop", true),
    ];
    let samples = samples();
    let packets = number_from("WEIR_PACKETS", 100_000);
    for _ in 0..packets {
        let mut bytes = samples[chance.below(samples.len())].1.clone();
        for _ in 0..1 + chance.below(6) {
            if bytes.is_empty() {
                break;
            }
            // Most of what steers a parser lies in front.
            let at = if chance.percent(70) {
                chance.below(bytes.len().min(64))
            } else {
                chance.below(bytes.len())
            };
            match chance.below(6) {
                0 => bytes[at] ^= 1 << chance.below(8),
                1 => bytes[at] = chance.of(&[0, 1, 4, 6, 17, 0x45, 0x7f, 0x80, 0xff]),
                2 => bytes.truncate(at),
                3 => bytes.insert(at, chance.next() as u8),
                4 => bytes.splice(12.min(at)..12.min(at), [0x81, 0, 0xe0, 1]).for_each(drop),
                _ => bytes[at] = chance.next() as u8,
            }
        }
        bytes.truncate(1_700);
        let wire_len = chance.of(&[bytes.len() as u32, 0, 65_600, u32::MAX]);
        let range = &mut ranges[chance.below(3)];
        let end = chance.below(2);
        range.fire(end, &bytes, wire_len);
    }
    for range in &ranges {
        assert!(range.forwarded > packets / 20 && range.changed > 0);
    }
}

#[test]
fn lying_lengths_and_deep_nesting() {
    let mut range = Range::new("l3", "remark", true);
    let payload = udp(7, 8, &[1; 64]);
    for length in (0..=u16::MAX).step_by(13).chain([u16::MAX]) {
        let mut v4 = ethernet(&[], 0x0800, &ipv4(0, 0, 17, &[], &payload));
        v4[16..18].copy_from_slice(&length.to_be_bytes());
        let mut v6 = ethernet(&[], 0x86dd, &ipv6(0, 17, &payload));
        v6[18..20].copy_from_slice(&length.to_be_bytes());
        let mut short = ethernet(&[], 0x0800, &ipv4(0, 0, 17, &[], &payload));
        short[38..40].copy_from_slice(&length.to_be_bytes());
        for bytes in [v4, v6, short] {
            range.both_ways(&bytes, bytes.len() as u32);
            range.both_ways(&bytes, u32::MAX);
        }
    }
    for header in 0..=u8::MAX {
        let mut bytes = ethernet(&[], 0x0800, &ipv4(0, 0, 6, &[], &tcp(1, 2, &[])));
        bytes[14] = header;
        range.both_ways(&bytes, bytes.len() as u32);
    }
    for depth in 0..60 {
        let tags = vec![(if depth % 2 == 0 { 0x88a8 } else { 0x8100 }, 0xffff); depth];
        let nested = ethernet(&tags, 0x0800, &ipv4(0, 0, 17, &[], &payload));
        range.both_ways(&nested, nested.len() as u32);
        let mut chain = payload.clone();
        for n in 0..depth {
            let next = if n == 0 {
                17
            } else {
                [0, 43, 60, 135, 139, 140, 44][n % 7]
            };
            chain = if n % 7 == 6 {
                fragment(next, 0, false, &chain)
            } else {
                extension(next, (n % 2) as u8, &chain)
            };
        }
        let chained = ethernet(&[], 0x86dd, &ipv6(0, 0, &chain));
        range.both_ways(&chained, chained.len() as u32);
        // Authentication and fragment headers whose own lengths reach past the end.
        for kind in [0, 43, 51, 60, 135] {
            let lying = ethernet(
                &[],
                0x86dd,
                &ipv6(0, kind, &[17, (depth * 5 % 256) as u8, 0, 0, 0, 0, 0, 0]),
            );
            range.both_ways(&lying, lying.len() as u32);
        }
    }
}

#[test]
fn a_flood_of_fragments_costs_nobody_his_contract() {
    let mut range = Range::new("l3", "drop", false);
    let of_id = |id: u32, flags: u16| {
        let mut bytes = ethernet(&[], 0x0800, &ipv4(0, flags, 17, &[], &udp(7, 8, &[0; 8])));
        // Both the identification and the source differ: 20,000 datagrams, five times what is remembered.
        bytes[18..20].copy_from_slice(&(id as u16).to_be_bytes());
        bytes[29] = (id >> 8) as u8;
        bytes
    };
    for id in 0..20_000 {
        let (first, later) = (of_id(id, 0x2000), of_id(id, 0x2010));
        range.fire(0, &first, first.len() as u32);
        range.fire(0, &later, later.len() as u32);
        // Rest of a datagram whose beginning has long been pushed out: it still belongs to the service of its address.
        let old = of_id(id / 2, 0x0020);
        range.fire(0, &old, old.len() as u32);
    }
    // 8 kbit/s and 16 kB let a few hundred of them through, first or later, remembered or not.
    assert!(
        range.forwarded < 500,
        "{} of a contract of next to nothing",
        range.forwarded
    );
}

//! Packets that go through the tables together get what each gets by itself, whatever they are and wherever the tables lie.

use arrayvec::ArrayVec;
use dataplane::cells::Cells;
use dataplane::classify::{ClassifierBuilder, ContractKey, PathClassifier, PortRange, SegmentId, ServiceId};
use dataplane::clock::Nanos;
use dataplane::contract::{ClassId, ClassMap, ContractIndex, ContractTable, Direction, Layer};
use dataplane::packet::{Dscp, Family, Fragment, Headers, Parsed, Ports};
use dataplane::priority::{Order, RingId};

/// Marsaglia's xorshift.
struct Random(u64);

impl Random {
    fn below(&mut self, bound: u32) -> u32 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (((self.0 >> 32) * u64::from(bound)) >> 32) as u32
    }
}

/// `services` with a /28 or /64 each; every third only with TCP port 443, every fourth with a contract for a segment.
fn table(services: u32, generation: u64) -> ContractTable {
    let class = ClassId(RingId::new(0).unwrap());
    let mut builder = ClassifierBuilder::new(vec![[ContractIndex(1), ContractIndex(2)]]);
    builder.insert_segment(Family::Ipv4, 0xc000_0000, 2, SegmentId(0));
    builder.insert_segment(Family::Ipv6, 1 << 125, 3, SegmentId(0));
    for number in 0..services {
        let https = PortRange {
            protocol: 6,
            first: 443,
            last: 443,
        };
        let ports = number.is_multiple_of(3).then_some(https);
        let id = ServiceId(number);
        builder.insert_endpoint(Family::Ipv4, site(Family::Ipv4, number), 28, ports, id);
        builder.insert_endpoint(Family::Ipv6, site(Family::Ipv6, number), 64, ports, id);
        for (direction, segment) in [(Direction::Egress, None), (Direction::Ingress, Some(SegmentId(0)))] {
            let key = ContractKey {
                service: id,
                class,
                direction,
                segment: segment.filter(|_| number.is_multiple_of(4)),
            };
            // Different in each table, so that an answer of the one before would show.
            let index = ContractIndex(10 + 2 * number + direction.index() as u32 + generation as u32 % 2 * 1_000_000);
            builder.insert_contract(key, index);
        }
    }
    ContractTable {
        generation,
        layer: Layer::L3,
        classes: ClassMap {
            by_dscp: [None; 64],
            by_pcp: [None; 8],
            default: class,
        },
        order: Order::new(&[]),
        classifier: builder.compile().unwrap(),
        contracts: Box::default(),
        other: [ContractIndex(3), ContractIndex(4)],
        port_rates: Box::default(),
        cells: Cells::new(1),
    }
}

fn site(family: Family, service: u32) -> u128 {
    match family {
        Family::Ipv4 => u128::from(10 << 24 | service << 4),
        Family::Ipv6 => 0x2001_0db8 << 96 | u128::from(service) << 64,
    }
}

fn packet(random: &mut Random, services: u32) -> Parsed {
    if random.below(20) == 0 {
        return Parsed::Other {
            l3_offset: 14,
            pcp: None,
        };
    }
    let family = [Family::Ipv4, Family::Ipv6][random.below(2) as usize];
    // A few of no service.
    let site = site(family, random.below(services + services / 10 + 1)) | u128::from(random.below(16));
    let far = match family {
        Family::Ipv4 => u128::from(random.below(4) << 30 | 1),
        Family::Ipv6 => u128::from(random.below(4)) << 125 | 1,
    };
    let (src, dst) = if random.below(2) == 0 { (site, far) } else { (far, site) };
    let port = [443, 80][random.below(2) as usize];
    let fragment = match random.below(10) {
        0 => Fragment::First { id: random.below(3) },
        1 => Fragment::Later { id: random.below(3) },
        _ => Fragment::Whole,
    };
    Parsed::Ip(Headers {
        family,
        pcp: None,
        vlan_tags: 0,
        l3_offset: 14,
        l3_len: 46,
        dscp: Dscp::new(0).unwrap(),
        ecn: 0,
        src,
        dst,
        protocol: 6,
        l4_offset: None,
        ports: (!matches!(fragment, Fragment::Later { .. })).then_some(Ports { src: port, dst: port }),
        fragment,
    })
}

#[test]
fn together_is_as_one_by_one() {
    for (seed, services) in [(1, 3), (2, 300), (3, 20_000)] {
        println!("seed {seed}");
        let mut random = Random(seed);
        let tables = [1, 2].map(|generation| table(services, generation));
        for direction in Direction::BOTH {
            let mut together = PathClassifier::new(direction, 5);
            let mut alone = PathClassifier::new(direction, 6);
            let mut known: Vec<Parsed> = Vec::new();
            for round in 0..2_000 {
                // From table to table and back with a new generation would be another test: a worker never goes back.
                let table = &tables[usize::from(round >= 1_000)];
                let count = random.below(17) as usize;
                let mut packets: Vec<Parsed> = Vec::new();
                for _ in 0..count {
                    let again = (!known.is_empty() && random.below(3) == 0)
                        .then(|| known[random.below(known.len() as u32) as usize]);
                    packets.push(again.unwrap_or_else(|| packet(&mut random, services)));
                }
                known.extend(&packets);
                let now = Nanos(round * 1_000);
                let headers: Vec<&Headers> = packets
                    .iter()
                    .filter_map(|parsed| match parsed {
                        Parsed::Ip(headers) if headers.fragment == Fragment::Whole => Some(headers),
                        _ => None,
                    })
                    .collect();
                let flows: Vec<_> = headers.iter().filter_map(|headers| together.flow(headers)).collect();
                let asked = headers.iter().copied().zip(&flows);
                let judged: ArrayVec<_, 16> = together.classify_few(table, asked);
                assert_eq!(judged.len(), headers.len());
                for ((headers, flow), judged) in headers.iter().zip(&flows).zip(judged) {
                    let expected = alone.classify(table, headers, alone.flow(headers).as_ref(), now);
                    assert_eq!(judged, expected, "round {round}: {headers:?}");
                    // Found again, unless others of the same group have pushed it out.
                    assert!(together.known(table, flow).is_none_or(|known| known == judged));
                }
            }
        }
    }
}

//! The compiled tables against a reference that scans everything, written from the semantics alone: the longest prefix that
//! matches wins, at equal length one with ports beats one without, a prefix whose ports do not match gives way to shorter
//! ones; the longest segment with a contract, else the contract without segment.

use dataplane::classify::{Classifier, ClassifierBuilder, ContractKey, PortRange, SegmentId, ServiceId};
use dataplane::contract::{ClassId, ContractIndex, Direction};
use dataplane::packet::{Dscp, Family, Fragment, Headers, Ports};
use dataplane::priority::RingId;

/// Marsaglia's xorshift.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d)
    }

    fn below(&mut self, bound: usize) -> usize {
        (((self.next() >> 32) * bound as u64) >> 32) as usize
    }

    fn wide(&mut self) -> u128 {
        u128::from(self.next()) << 64 | u128::from(self.next())
    }

    fn of<T: Copy>(&mut self, choices: &[T]) -> T {
        choices[self.below(choices.len())]
    }
}

#[derive(Clone, Copy, Debug)]
struct Prefix {
    family: Family,
    address: u128,
    length: u8,
}

impl Prefix {
    fn bits(self) -> u32 {
        match self.family {
            Family::Ipv4 => 32,
            Family::Ipv6 => 128,
        }
    }

    fn host_bits(self) -> u128 {
        let width = self.bits() - u32::from(self.length);
        if width == 128 { u128::MAX } else { (1 << width) - 1 }
    }

    fn first(self) -> u128 {
        self.address & !self.host_bits()
    }

    fn last(self) -> u128 {
        self.address | self.host_bits()
    }

    fn holds(self, family: Family, address: u128) -> bool {
        self.family == family && (self.first()..=self.last()).contains(&address)
    }

    fn is(self, other: Prefix) -> bool {
        self.family == other.family && self.length == other.length && self.first() == other.first()
    }
}

/// What one configuration says.
#[derive(Default)]
struct Rules {
    endpoints: Vec<(Prefix, Option<PortRange>, ServiceId)>,
    segments: Vec<(Prefix, SegmentId)>,
    contracts: Vec<(ContractKey, ContractIndex)>,
}

const CLASSES: usize = 32;

fn class(number: usize) -> ClassId {
    ClassId(RingId::new(number as u8).unwrap())
}

fn uncontracted() -> Vec<[ContractIndex; 2]> {
    (0..CLASSES as u32)
        .map(|class| {
            [
                ContractIndex(1_000_000 + 2 * class),
                ContractIndex(1_000_001 + 2 * class),
            ]
        })
        .collect()
}

impl Rules {
    fn compile(&self) -> Classifier {
        let mut builder = ClassifierBuilder::new(uncontracted());
        for &(prefix, ports, service) in &self.endpoints {
            builder.insert_endpoint(prefix.family, prefix.address, prefix.length, ports, service);
        }
        for &(prefix, segment) in &self.segments {
            builder.insert_segment(prefix.family, prefix.address, prefix.length, segment);
        }
        for &(key, index) in &self.contracts {
            builder.insert_contract(key, index);
        }
        builder.compile().unwrap()
    }

    fn service(&self, family: Family, address: u128, transport: Option<(u8, u16)>) -> Option<ServiceId> {
        let mut best: Option<(u8, bool, ServiceId)> = None;
        for &(prefix, ports, service) in &self.endpoints {
            let ports_match = match (ports, transport) {
                (None, _) => true,
                (Some(range), Some((protocol, port))) => {
                    range.protocol == protocol && range.first <= port && port <= range.last
                }
                (Some(_), None) => false,
            };
            let rank = (prefix.length, ports.is_some());
            if prefix.holds(family, address) && ports_match && best.is_none_or(|best| rank > (best.0, best.1)) {
                best = Some((rank.0, rank.1, service));
            }
        }
        best.map(|best| best.2)
    }

    fn contract(
        &self,
        service: Option<ServiceId>,
        class: ClassId,
        direction: Direction,
        family: Family,
        far: u128,
    ) -> ContractIndex {
        let none = uncontracted()[class.index()][direction.index()];
        let Some(service) = service else { return none };
        let mut holding: Vec<(Prefix, SegmentId)> = Vec::new();
        for &(prefix, segment) in &self.segments {
            if prefix.holds(family, far) && !holding.iter().any(|(known, _)| known.is(prefix)) {
                holding.push((prefix, segment));
            }
        }
        holding.sort_by_key(|(prefix, _)| std::cmp::Reverse(prefix.length));
        let of = |segment| {
            let key = ContractKey {
                service,
                class,
                direction,
                segment,
            };
            self.contracts
                .iter()
                .rev()
                .find(|(known, _)| *known == key)
                .map(|found| found.1)
        };
        let segmented = holding.iter().find_map(|(_, segment)| of(Some(*segment)));
        segmented.or_else(|| of(None)).unwrap_or(none)
    }
}

fn headers(family: Family, src: u128, dst: u128, transport: Option<(u8, [u16; 2])>) -> Headers {
    Headers {
        family,
        pcp: None,
        vlan_tags: 0,
        l3_offset: 14,
        l3_len: 46,
        dscp: Dscp::new(0).unwrap(),
        ecn: 0,
        src,
        dst,
        protocol: transport.map_or(47, |transport| transport.0),
        l4_offset: None,
        ports: transport.map(|(_, [src, dst])| Ports { src, dst }),
        fragment: Fragment::Whole,
    }
}

/// Prefixes that lie in each other, beside each other and at the ends of the address space.
fn prefix(random: &mut Random, known: &[Prefix], depth: &[u8]) -> Prefix {
    let family = random.of(&[Family::Ipv4, Family::Ipv6]);
    let bits = if family == Family::Ipv4 { 32 } else { 128 };
    let mask = if bits == 32 { u128::from(u32::MAX) } else { u128::MAX };
    let length = match random.below(4) {
        0 => random.below(bits as usize + 1) as u8,
        1 => bits,
        _ => random.of(depth).min(bits),
    };
    let relative = (!known.is_empty())
        .then(|| random.of(known))
        .filter(|known| known.family == family);
    let address = match (random.below(8), relative) {
        (0, _) => 0,
        (1, _) => mask,
        (2, _) | (_, None) => random.wide() & mask,
        // The neighbours of a prefix, or something inside of it.
        (3, Some(known)) => known.last().wrapping_add(1) & mask,
        (4, Some(known)) => known.first().wrapping_sub(1) & mask,
        (_, Some(known)) => known.first() | random.wide() & known.host_bits(),
    };
    Prefix {
        family,
        address,
        length,
    }
}

fn ports(random: &mut Random) -> PortRange {
    let first = random.of(&[0, 1, 53, 80, 443, 8000, 65_535, random.0 as u16]);
    let last = first.saturating_add(random.of(&[0, 0, 1, 100, 65_535]));
    PortRange {
        protocol: random.of(&[6, 6, 17, 0, 255]),
        first,
        last,
    }
}

fn rules(random: &mut Random, endpoints: usize) -> Rules {
    let services = 1 + endpoints / random.of(&[1, 2, 7]);
    let depth: [u8; 4] = random.of(&[[8, 16, 24, 32], [48, 56, 64, 128], [15, 17, 31, 33], [20, 22, 24, 25]]);
    let port_share = random.of(&[0, 2, 10]);
    let mut rules = Rules::default();
    let mut known = Vec::new();
    for _ in 0..endpoints {
        let prefix = match known.len() {
            // The same prefix again, with other ports or another service.
            1.. if random.below(5) == 0 => random.of(&known),
            _ => prefix(random, &known, &depth),
        };
        known.push(prefix);
        let ports = (random.below(10) < port_share).then(|| ports(random));
        rules
            .endpoints
            .push((prefix, ports, ServiceId(random.below(services) as u32)));
    }
    for _ in 0..random.below(40) {
        let prefix = prefix(random, &known, &depth);
        known.push(prefix);
        rules.segments.push((prefix, SegmentId(random.below(6) as u32)));
    }
    for number in 0..random.below(2 * services + 1) {
        let key = ContractKey {
            service: ServiceId(random.below(services) as u32),
            class: class(random.of(&[0, 1, 31])),
            direction: random.of(&Direction::BOTH),
            segment: (random.below(2) == 0).then(|| SegmentId(random.below(6) as u32)),
        };
        rules.contracts.push((key, ContractIndex(number as u32)));
    }
    rules
}

/// An address at the border of one of the prefixes, or within, or anywhere.
fn address(random: &mut Random, family: Family, rules: &Rules) -> u128 {
    let mask = if family == Family::Ipv4 {
        u128::from(u32::MAX)
    } else {
        u128::MAX
    };
    let endpoint = random.of(&rules.endpoints).0;
    let prefix = match random.below(3) {
        0 if !rules.segments.is_empty() => random.of(&rules.segments).0,
        _ => endpoint,
    };
    let address = match random.below(6) {
        0 => prefix.first().wrapping_sub(1),
        1 => prefix.first(),
        2 => prefix.last(),
        3 => prefix.last().wrapping_add(1),
        4 => prefix.first() | random.wide() & prefix.host_bits(),
        _ => random.wide(),
    };
    address & mask
}

fn port(random: &mut Random, rules: &Rules) -> u16 {
    let range = random.of(&rules.endpoints).1;
    match (range, random.below(5)) {
        (None, _) | (_, 0) => random.0 as u16,
        (Some(range), 1) => range.first.wrapping_sub(1),
        (Some(range), 2) => range.first,
        (Some(range), 3) => range.last,
        (Some(range), _) => range.last.wrapping_add(1),
    }
}

fn check(random: &mut Random, rules: &Rules, packets: usize) {
    let classifier = rules.compile();
    for _ in 0..packets {
        let family = random.of(&[Family::Ipv4, Family::Ipv6]);
        let [src, dst] = [0; 2].map(|_| address(random, family, rules));
        let protocol = random.of(&[6, 6, 17, 0, 255]);
        let transport = (random.below(5) > 0).then(|| (protocol, [0; 2].map(|_: u16| port(random, rules))));
        let headers = headers(family, src, dst, transport);
        let direction = random.of(&Direction::BOTH);
        let (site, far) = match direction {
            Direction::Egress => (src, dst),
            Direction::Ingress => (dst, src),
        };
        let site_transport = transport.map(|(protocol, ports)| (protocol, ports[direction.index()]));
        let service = classifier.service(&headers, direction);
        assert_eq!(
            service,
            rules.service(family, site, site_transport),
            "{headers:?} {direction:?}"
        );
        let class = class(random.of(&[0, 1, 2, 31]));
        let contract = classifier.contract(service, class, direction, &headers);
        let expected = rules.contract(service, class, direction, family, far);
        assert_eq!(contract, expected, "{headers:?} {direction:?} {class:?}");
    }
}

#[test]
fn random_tables_say_what_a_scan_says() {
    for seed in 1..=400_u64 {
        println!("seed {seed}");
        let mut random = Random(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15));
        let endpoints = 1 + random.below(random.0 as usize % 60 + 1);
        let rules = rules(&mut random, endpoints);
        check(&mut random, &rules, 200);
    }
}

#[test]
fn large_tables_say_what_a_scan_says() {
    for (seed, endpoints) in [(1_u64, 500), (2, 2_000), (3, 5_000)] {
        println!("seed {seed}");
        let mut random = Random(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15));
        let rules = rules(&mut random, endpoints);
        check(&mut random, &rules, 1_000);
    }
}

/// So many boundaries in one word that the table must go over to fans, fans of fans, and direct tables.
#[test]
fn dense_tables_say_what_a_scan_says() {
    for (family, shift, prefixes) in [
        (Family::Ipv4, 0, 200),
        (Family::Ipv4, 0, 4_000),
        (Family::Ipv4, 0, 14_000),
        (Family::Ipv4, 16, 200),
        (Family::Ipv4, 16, 6_000),
        (Family::Ipv6, 64, 12_000),
        (Family::Ipv6, 112, 6_000),
    ] {
        let mut random = Random(prefixes as u64);
        let mut rules = Rules::default();
        let bits = if family == Family::Ipv4 { 32 } else { 128 };
        let base = if family == Family::Ipv4 {
            10 << 24
        } else {
            0x2001_0db8 << 96
        };
        for number in 0..prefixes {
            let prefix = Prefix {
                family,
                // Every third address of a word, so that all of them are intervals of their own.
                address: if shift == 112 { 0 } else { base } | (number * 3 % 65_536) << shift,
                length: bits - shift as u8,
            };
            rules.endpoints.push((prefix, None, ServiceId(number as u32)));
        }
        check(&mut random, &rules, 300);
    }
}

#[test]
fn default_routes_hosts_and_nothing_at_all() {
    let mut rules = Rules::default();
    let all = |family| Prefix {
        family,
        // Bits behind the length do not count.
        address: u128::from(u32::MAX),
        length: 0,
    };
    assert_eq!(
        rules
            .compile()
            .service(&headers(Family::Ipv4, 1, 2, None), Direction::Egress),
        None
    );
    rules.endpoints.push((all(Family::Ipv6), None, ServiceId(3)));
    check(&mut Random(1), &rules, 50);
    rules.endpoints.push((all(Family::Ipv4), None, ServiceId(4)));
    for address in [0, 1, u128::from(u32::MAX), u128::from(u32::MAX) - 1] {
        let host = Prefix {
            family: Family::Ipv4,
            address,
            length: 32,
        };
        rules.endpoints.push((host, None, ServiceId(5)));
        // Again: the first stays.
        rules.endpoints.push((host, None, ServiceId(6)));
    }
    check(&mut Random(2), &rules, 200);
}

/// Random prefixes of mixed lengths of both families: what the README of a large box would promise.
#[test]
fn memory_is_proportional_to_the_prefixes() {
    let mut random = Random(7);
    let lengths = [[16_u8, 20, 24, 28, 32], [32, 48, 56, 64, 128]];
    for (count, most) in [(10_usize, 144 << 10), (1_000, 256 << 10), (100_000, 9 << 20)] {
        let mut builder = ClassifierBuilder::new(uncontracted());
        for number in 0..count {
            let family = [Family::Ipv4, Family::Ipv6][number % 2];
            let address = match family {
                Family::Ipv4 => random.wide() & u128::from(u32::MAX),
                Family::Ipv6 => 1 << 125 | random.wide() >> 3,
            };
            let length = random.of(&lengths[number % 2]);
            builder.insert_endpoint(family, address, length, None, ServiceId(number as u32));
        }
        let bytes = builder.compile().unwrap().bytes();
        println!("{count} prefixes: {bytes} bytes, {} each", bytes / count);
        assert!(bytes <= most, "{count} prefixes take {bytes} bytes");
    }
}

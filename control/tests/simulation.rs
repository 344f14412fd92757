//! Random traffic through a worker on memory ports while tables are swapped; after every turn all that must always hold
//! is looked at. No privilege, no time but the invented one. Repeat a run with `WEIR_SEED`, lengthen it with `WEIR_TURNS`.

mod common;

use std::collections::HashMap;
use std::fmt::Write as _;

use common::{Bench, BenchSize, Chance, checked, number_from};
use dataplane::checksum;
use dataplane::classify::PathClassifier;
use dataplane::clock::Nanos;
use dataplane::contract::{Action, Contract, Direction, Judge};
use dataplane::packet::{self, Family, Headers, Parsed};
use dataplane::port::Port as _;
use dataplane::priority::Half;
use dataplane::stats::{Amount, DropReason, PathCounters};

/// Code points that arrive; marks of excess are 48 and above, so that a mark tells the half of a packet that has left.
const ARRIVING: [u8; 8] = [0, 8, 10, 12, 14, 34, 36, 46];
const MARKS_FROM: u8 = 48;
const CLASSES: usize = 5;
const SERVICES: usize = 6;

/// What stays the same over the tables of one scenario.
#[derive(Clone, Copy)]
struct Fixed {
    layer: &'static str,
    rates: [Option<u64>; 2],
}

/// A random configuration: which classes, services, segments and contracts there are changes from one to the next.
fn configuration(chance: &mut Chance, fixed: &Fixed) -> String {
    let uncontracted = chance.of(&["conforming", "nonconforming"]);
    let other = chance.of(&["default", "default nonconforming"]);
    let mut text = format!(
        "region = \"here\"\n[defaults]\nlayer = \"{}\"\nuncontracted = \"{uncontracted}\"\nother = \"{other}\"\n",
        fixed.layer
    );
    for (name, side, rate) in [("lan", "site", fixed.rates[0]), ("uplink", "wan", fixed.rates[1])] {
        write!(
            text,
            "[[port]]\nname = \"{name}\"\ninterface = \"{name}\"\nside = \"{side}\"\n"
        )
        .unwrap();
        // A rate comes, goes and changes with the tables, by up to a half.
        if let Some(rate) = rate.filter(|_| chance.percent(90)) {
            writeln!(text, "rate = {}", rate / 2 + chance.next() % rate).unwrap();
        }
    }
    text += "[[wire]]\nports = [\"lan\", \"uplink\"]\n";
    text += "[[class]]\nname = \"default\"\npriority = 9\ndefault = true\nnonconforming_dscp = 63\n";
    let present: Vec<usize> = (0..CLASSES).filter(|_| chance.percent(75)).collect();
    for &class in &present {
        let (priority, weight) = (chance.below(3), 1 + chance.below(9));
        let mark = MARKS_FROM as usize + class;
        write!(
            text,
            "[[class]]\nname = \"c{class}\"\npriority = {priority}\nweight = {weight}\ndscp = [{}]\nnonconforming_dscp = {mark}\n",
            ARRIVING[class]
        )
        .unwrap();
        if class == 1 {
            text += "yellow_dscp = [36]\nred_dscp = [46]\n";
        }
        if chance.percent(50) {
            writeln!(text, "nonconforming_pcp = 1").unwrap();
        }
        if chance.percent(40) {
            text += "min_share = \"7 %\"\n";
        }
    }
    let segments = chance.percent(60);
    if segments {
        text += "[[segment]]\nname = \"far\"\nprefixes = [\"198.51.100.0/25\", \"2001:db8:ff::/64\"]\n";
    }
    for service in (0..SERVICES)
        .filter(|service| service % 2 == 0 || chance.percent(70))
        .collect::<Vec<_>>()
    {
        write!(
            text,
            "[[service]]\nname = \"s{service}\"\nendpoints = [\"10.{service}.0.0/16\", \"2001:db8:{service}::/48 udp/1-4000\"]\n"
        )
        .unwrap();
        for &class in &present {
            for direction in ["egress", "ingress"] {
                for segment in [false, true] {
                    if chance.percent(40) && (segments || !segment) {
                        text += &contract(chance, service, class, direction, segment);
                    }
                }
            }
        }
    }
    text
}

fn contract(chance: &mut Chance, service: usize, class: usize, direction: &str, segment: bool) -> String {
    let action = chance.of(&["remark", "queue", "drop"]);
    let rate = 100_000 << chance.below(9);
    let meter = match chance.below(4) {
        0 => "meter = \"token-bucket\"\n".to_owned(),
        1 => "meter = \"srtcm\"\nexcess_burst = \"40 kB\"\n".to_owned(),
        2 => format!("meter = \"trtcm\"\npeak_rate = {}\npeak_burst = \"40 kB\"\n", rate * 2),
        _ => format!("meter = \"trtcm-4115\"\nexcess_rate = {rate}\nexcess_burst = \"40 kB\"\n"),
    };
    let aware = if !meter.contains("token") && chance.percent(50) {
        "color_aware = true\n"
    } else {
        ""
    };
    let segment = if segment { "segment = \"far\"\n" } else { "" };
    format!(
        "[[contract]]\nservice = \"s{service}\"\nclass = \"c{class}\"\nregion = \"here\"\ndirection = \"{direction}\"\n{segment}{meter}{aware}rate = {rate}\nburst = \"20 kB\"\n[contract.excess]\naction = \"{action}\"\n"
    )
}

/// A frame whose last eight bytes are its number. The flow is what decides its place in line.
fn frame(chance: &mut Chance, direction: Direction, number: u64) -> (Vec<u8>, u64) {
    let flow = chance.next() % 96;
    let of_flow = &mut Chance::new(flow);
    let (service, tags, dscp) = (of_flow.below(SERVICES + 1), of_flow.below(3), of_flow.of(&ARRIVING));
    let (v6, not_ip, fragment) = (of_flow.percent(30), of_flow.percent(6), of_flow.percent(10));
    let (near_port, far_host) = (1 + of_flow.below(5000) as u16, of_flow.below(256) as u8);
    let payload = 8 + if chance.percent(30) {
        chance.below(1400)
    } else {
        chance.below(60)
    };
    let mut bytes = vec![2, 0, 0, 0, 0, 1, 2, 0, 0, 0, 0, flow as u8];
    for _ in 0..tags {
        bytes.extend([0x81, 0, 0xa0, 7]);
    }
    if not_ip {
        bytes.extend([0x88, 0xcc]);
        bytes.resize(bytes.len() + payload, 0x55);
    } else {
        let class = dscp << 2 | chance.below(4) as u8;
        let mut near = [10, service as u8, 1, 2].to_vec();
        let mut far = vec![198, 51, 100, far_host];
        if v6 {
            near = [0x20, 1, 0x0d, 0xb8, 0, service as u8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 5].to_vec();
            far = [0x20, 1, 0x0d, 0xb8, 0, 0xff, 0, 0, 0, 0, 0, 0, 0, 0, 0, far_host].to_vec();
        }
        let mut ports = [near_port, 99];
        if direction == Direction::Ingress {
            (near, far) = (far, near);
            ports.reverse();
        }
        bytes.extend(if v6 { [0x86, 0xdd] } else { [8, 0] });
        let length = (8 + payload) as u16;
        if v6 {
            bytes.extend([0x60 | class >> 4, class << 4, 0, 1]);
            bytes.extend(length.to_be_bytes());
            bytes.extend([17, 64]);
            bytes.extend(near.iter().chain(&far));
        } else {
            let mut header = vec![0x45, class];
            header.extend((20 + length).to_be_bytes());
            let place: u16 = chance.of(&[0x2000, 0x0010, 0x2020]);
            header.extend([0, chance.below(9) as u8]);
            header.extend(if fragment { place } else { 0 }.to_be_bytes());
            header.extend([64, 17, 0, 0]);
            header.extend(near.iter().chain(&far));
            let sum = checksum::ipv4_header_checksum(&header);
            header[10..12].copy_from_slice(&sum.to_be_bytes());
            bytes.extend(header);
        }
        bytes.extend(ports.iter().flat_map(|port| port.to_be_bytes()));
        bytes.extend(length.to_be_bytes());
        bytes.extend([0, 0]);
        bytes.resize(bytes.len() + payload, 0x66);
    }
    let at = bytes.len() - 8;
    bytes[at..].copy_from_slice(&number.to_be_bytes());
    (bytes, flow)
}

/// What is known of a packet that went in.
struct Sent {
    bytes: Vec<u8>,
    flow: u64,
    generation: u64,
    contract: Contract,
}

/// What went over all scenarios, to see that none of it was left out.
#[derive(Debug, Default)]
struct Coverage {
    dropped: [u64; DropReason::ALL.len()],
    ce_marked: u64,
    remarked: u64,
    forwarded: u64,
    swaps: u64,
    starved: u64,
}

impl Coverage {
    fn add(&mut self, more: &Coverage) {
        for (sum, count) in self.dropped.iter_mut().zip(more.dropped) {
            *sum += count;
        }
        self.ce_marked += more.ce_marked;
        self.remarked += more.remarked;
        self.forwarded += more.forwarded;
        self.swaps += more.swaps;
        self.starved += more.starved;
    }
}

struct Simulation {
    bench: Bench,
    chance: Chance,
    batch: usize,
    now: Nanos,
    sent: HashMap<u64, Sent>,
    next: u64,
    shadows: [PathClassifier; 2],
    /// What each contract was offered, by slot.
    offered: HashMap<u32, Amount>,
    ledgers: [PathCounters; 2],
    contracts: HashMap<u32, Vec<Amount>>,
    /// Newest packet that has left, by flow, contract, table and half.
    newest: HashMap<(usize, u64, u32, u64, Option<Half>), u64>,
    /// Packets left lying in each port over the turn.
    lying: [usize; 2],
    coverage: Coverage,
}

impl Simulation {
    fn new(mut chance: Chance, fixed: &Fixed) -> Self {
        let config = checked(&configuration(&mut chance, fixed));
        let batch = chance.of(&[1, 7, 64]);
        let size = BenchSize {
            frames: chance.of(&[512, 4096, 8192]),
            room: chance.of(&[5, 64, 4096]),
            batch,
            partial_checksums: false,
        };
        Self {
            bench: Bench::new(&config, &size),
            chance,
            batch,
            now: Nanos(1),
            sent: HashMap::new(),
            next: 0,
            shadows: Direction::BOTH.map(|direction| PathClassifier::new(direction, 7)),
            offered: HashMap::new(),
            ledgers: [PathCounters::default(); 2],
            contracts: HashMap::new(),
            newest: HashMap::new(),
            lying: [0; 2],
            coverage: Coverage::default(),
        }
    }

    fn run(mut self, turns: u64, fixed: &Fixed) -> Coverage {
        let mut load = 0;
        for turn in 0..turns {
            if turn.is_multiple_of(97) {
                // From silence to as much as a worker takes, so that rings fill and empty.
                load = self.chance.of(&[0, 1, self.batch / 4 + 1, self.batch, self.batch]);
            }
            let step = self.chance.of(&[0, 1_000, 50_000, 300_000, 1_500_000]);
            let pause = if self.chance.percent(1) { 400_000_000 } else { 0 };
            self.now = self.now.plus(Nanos(step + pause));
            if self.chance.percent(2) {
                let config = checked(&configuration(&mut self.chance, fixed));
                self.bench.swap(&config);
                self.coverage.swaps += 1;
            }
            self.arrivals(load);
            self.bench.worker.turn(self.now);
            assert_eq!(self.bench.shared.generation(), self.bench.compiled.table.generation);
            self.look_at_ledgers();
            self.look_at_contracts();
            for direction in Direction::BOTH {
                self.look_at_departures(direction);
            }
            // Taking packets out of the ports changes no book.
            self.bench.closed_ledgers();
        }
        for (coverage, n) in self.coverage.dropped.iter_mut().zip(0..) {
            *coverage = self.ledgers.iter().map(|ledger| ledger.dropped[n].packets).sum();
        }
        self.coverage.ce_marked = self.ledgers.iter().map(|ledger| ledger.ce_marked.packets).sum();
        self.coverage.forwarded = self.ledgers.iter().map(|ledger| ledger.forwarded.packets).sum();
        self.coverage
    }

    /// Random arrivals at both ends, no more than one turn takes. Shadows of the classifiers say who should be charged.
    fn arrivals(&mut self, most: usize) {
        let table = self.bench.compiled.table.clone();
        for direction in Direction::BOTH {
            for _ in 0..self.chance.below(most + 1) {
                let (bytes, flow) = frame(&mut self.chance, direction, self.next);
                let wire_len = bytes.len() as u32;
                if !self.bench.arrive(direction.index(), &bytes, wire_len) {
                    self.coverage.starved += 1;
                    continue;
                }
                let (index, l3_len) = match packet::parse(&bytes, bytes.len()) {
                    Parsed::Ip(headers) => {
                        let shadow = &mut self.shadows[direction.index()];
                        let flow = shadow.flow(&headers);
                        (
                            shadow.classify(&table, &headers, flow.as_ref(), self.now).0,
                            headers.l3_len,
                        )
                    }
                    Parsed::Other { l3_offset, .. } => {
                        (table.other[direction.index()], wire_len - u32::from(l3_offset))
                    }
                };
                let contract = *table.contract(index);
                let counted = table.layer.count(wire_len, l3_len);
                *self.offered.entry(contract.slot.0).or_default() += Amount::one(counted);
                let generation = table.generation;
                let sent = Sent {
                    bytes,
                    flow,
                    generation,
                    contract,
                };
                self.sent.insert(self.next, sent);
                self.next += 1;
            }
        }
    }

    /// They close, in packets and bytes, and nothing in them ever goes back but what waits.
    fn look_at_ledgers(&mut self) {
        let ledgers = self.bench.closed_ledgers();
        for (before, after) in self.ledgers.iter().zip(&ledgers) {
            let grown = |before: Amount, after: Amount| {
                assert!(
                    before.packets <= after.packets && before.bytes <= after.bytes,
                    "{before:?} {after:?}"
                );
            };
            grown(before.received, after.received);
            grown(before.forwarded, after.forwarded);
            grown(before.ce_marked, after.ce_marked);
            grown(before.other, after.other);
            for (before, after) in before.dropped.iter().zip(&after.dropped) {
                grown(*before, *after);
            }
        }
        self.ledgers = ledgers;
    }

    /// Each contract was charged exactly what was offered to it, and together they are the ledgers.
    fn look_at_contracts(&mut self) {
        let cells = &self.bench.compiled.table.cells;
        let mut dropped = [0; DropReason::ALL.len()];
        self.coverage.remarked = 0;
        for (&slot, &offered) in &self.offered {
            let slot_id = dataplane::cells::SlotId(slot);
            let (cell, excess) = (cells.of(0).cell(slot_id), cells.of(0).excess(slot_id));
            let mut now = vec![cell.conforming.get(), cell.nonconforming.get(), excess.remarked.get()];
            assert_eq!(now[0] + now[1], offered, "slot {slot}");
            assert!(now[2].packets <= now[1].packets);
            // Conforming packets among the dropped: none where nothing conformed, all where nothing else came.
            let conforming_dropped = excess.conforming_dropped.get();
            self.coverage.remarked += now[2].packets;
            now.extend(DropReason::ALL.map(|reason| excess.dropped(reason).get()));
            for (sum, amount) in dropped.iter_mut().zip(&now[3..]) {
                *sum += amount.packets;
            }
            let gone: Amount = now[3..].iter().copied().sum();
            assert!(gone.packets <= offered.packets && gone.bytes <= offered.bytes);
            assert!(conforming_dropped.packets <= now[0].packets.min(gone.packets));
            assert!(gone.packets - conforming_dropped.packets <= now[1].packets);
            let before = self.contracts.insert(slot, now.clone()).unwrap_or_default();
            let back = before
                .iter()
                .zip(&now)
                .any(|(old, new)| old.packets > new.packets || old.bytes > new.bytes);
            assert!(!back, "slot {slot} has counted back: {before:?} {now:?}");
        }
        let received: u64 = self.ledgers.iter().map(|ledger| ledger.received.packets).sum();
        let offered: u64 = self.offered.values().map(|amount| amount.packets).sum();
        assert_eq!(received, offered);
        for (n, sum) in dropped.into_iter().enumerate() {
            let ledger: u64 = self.ledgers.iter().map(|ledger| ledger.dropped[n].packets).sum();
            assert_eq!(ledger, sum, "{:?}", DropReason::ALL[n]);
        }
    }

    fn look_at_departures(&mut self, direction: Direction) {
        let out = 1 - direction.index();
        let most = self.chance.of(&[0, 3, usize::MAX, usize::MAX]);
        // What left before this turn may still have lain in the port.
        let fresh = self.bench.worker.lanes()[0].ports()[out].frames_inside();
        let old = std::mem::replace(&mut self.lying[out], fresh - fresh.min(most));
        let mut excess_left = false;
        for (place, bytes) in self.bench.departed(out, most).into_iter().enumerate() {
            let number = u64::from_be_bytes(*bytes.last_chunk().unwrap());
            let sent = self
                .sent
                .remove(&number)
                .expect("a packet that never came in, or left twice");
            assert_only_marks_differ(&sent.bytes, &bytes);
            let half = half_of(&sent, &bytes);
            let key = (
                direction.index(),
                sent.flow,
                sent.contract.slot.0,
                sent.generation,
                half,
            );
            let newest = self.newest.insert(key, number);
            // Of excess that is queued as it came the half cannot be told from outside.
            if half.is_some() {
                assert!(
                    newest.is_none_or(|newest| newest < number),
                    "{newest:?} left before {number}"
                );
            }
            // Whatever left in this turn waited together with the rest of it.
            if place >= old {
                assert!(
                    !(excess_left && half == Some(Half::Conforming)),
                    "{number} had to wait for excess"
                );
                excess_left |= half == Some(Half::Nonconforming);
            }
        }
    }
}

/// Where a packet that has left must have waited; `None` when that cannot be told.
fn half_of(sent: &Sent, bytes: &[u8]) -> Option<Half> {
    if let Judge::Always(half) = sent.contract.judge {
        return Some(half);
    }
    match (sent.contract.action, packet::parse(bytes, bytes.len())) {
        (Action::Drop, _) => Some(Half::Conforming),
        (Action::Remark, Parsed::Ip(headers)) if headers.dscp.get() >= MARKS_FROM => Some(Half::Nonconforming),
        (Action::Remark, Parsed::Ip(_)) => Some(Half::Conforming),
        _ => None,
    }
}

/// Byte by byte but for DSCP, CE, the IPv4 checksum over them, and the outer tag's priority, which must be right.
fn assert_only_marks_differ(before: &[u8], after: &[u8]) {
    let parsed = [before, after].map(|bytes| packet::parse(bytes, bytes.len()));
    let [Parsed::Ip(old), Parsed::Ip(new)] = parsed else {
        assert_eq!(before, after, "what is not IP is not touched");
        return;
    };
    assert!(
        old.ecn == new.ecn || (old.ecn != 0 && new.ecn == 3),
        "{} to {}",
        old.ecn,
        new.ecn
    );
    assert_eq!(plain(before, &old), plain(after, &new));
    if new.family == Family::Ipv4 {
        let at = usize::from(new.l3_offset);
        let sum = checksum::ipv4_header_checksum(&after[at..at + 20]);
        assert_eq!(after[at + 10..at + 12], sum.to_be_bytes());
    }
}

/// The packet with its marks wiped out.
fn plain(bytes: &[u8], headers: &Headers) -> Vec<u8> {
    let mut bytes = bytes.to_vec();
    let at = usize::from(headers.l3_offset);
    if headers.vlan_tags > 0 {
        bytes[14] &= 0x1f;
    }
    match headers.family {
        Family::Ipv4 => bytes[at + 1] = 0,
        Family::Ipv6 => (bytes[at], bytes[at + 1]) = (0x60, bytes[at + 1] & 0x0f),
    }
    if headers.family == Family::Ipv4 {
        bytes[at + 10..at + 12].fill(0);
    }
    bytes
}

#[test]
fn whatever_comes_the_books_close_and_only_marks_change() {
    let mut chance = Chance::seeded("simulation", 0x7765_6972);
    let turns = number_from("WEIR_TURNS", 1_500);
    let mut all = Coverage::default();
    for scenario in 0..12 {
        let seed = chance.next();
        let mut of_scenario = Chance::new(seed);
        let rate = |chance: &mut Chance| chance.percent(70).then(|| 4_000_000 << chance.below(8));
        let fixed = Fixed {
            layer: of_scenario.of(&["l1", "l2", "l3"]),
            rates: [rate(&mut of_scenario), rate(&mut of_scenario)],
        };
        println!("scenario {scenario}: seed {seed}, {} {:?}", fixed.layer, fixed.rates);
        all.add(&Simulation::new(of_scenario, &fixed).run(turns, &fixed));
    }
    println!("{all:?}");
    for reason in DropReason::ALL {
        let wanted = reason != DropReason::Device;
        assert_eq!(
            all.dropped[reason as usize] > 0,
            wanted,
            "{reason:?} was {}tested",
            if wanted { "not " } else { "" }
        );
    }
    let others = [all.ce_marked, all.remarked, all.forwarded, all.swaps, all.starved];
    assert!(others.iter().all(|&count| count > 0), "a part was not tested: {all:?}");
}

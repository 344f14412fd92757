//! Held packets, high watermarks and sojourns of the priority rings, against what follows from when each packet came and left.
//! A worker on memory ports, random traffic, no time but the invented one.

mod common;

use std::collections::{HashMap, VecDeque};

use common::{Bench, BenchSize, Chance, checked, two_ports};
use dataplane::clock::Nanos;
use dataplane::priority::{Half, RingId};
use dataplane::sojourn::Waits;

/// Three classes that drain in order, each with a contract of its own, over a port that cannot carry it all. What is above a
/// contract is marked with 48 and above: the mark tells which ring a packet was in.
const CLASSES_AND_CONTRACTS: &str = r#"
[[class]]
name = "gold"
priority = 1
dscp = [46]
nonconforming_dscp = 48
[[class]]
name = "silver"
priority = 2
dscp = [10]
nonconforming_dscp = 49
[[class]]
name = "bronze"
priority = 3
default = true
dscp = [0]
nonconforming_dscp = 50
[[service]]
name = "web"
endpoints = ["10.0.0.0/8"]
[[contract]]
service = "web"
class = "gold"
region = "here"
direction = "egress"
rate = "60 Mbit/s"
burst = "20 kB"
[[contract]]
service = "web"
class = "silver"
region = "here"
direction = "egress"
rate = "80 Mbit/s"
burst = "20 kB"
[[contract]]
service = "web"
class = "bronze"
region = "here"
direction = "egress"
rate = "100 Mbit/s"
burst = "20 kB"
"#;

const CLASSES: [u8; 3] = [46, 10, 0];

/// A UDP packet whose last eight bytes are its number.
fn frame(class: u8, number: u64, payload: usize) -> Vec<u8> {
    let mut bytes = vec![2, 0, 0, 0, 0, 1, 2, 0, 0, 0, 0, 2, 8, 0];
    let length = 28 + payload as u16;
    bytes.extend([0x45, class << 2]);
    bytes.extend(length.to_be_bytes());
    bytes.extend([0, 1, 0, 0, 64, 17, 0, 0, 10, 0, 0, 1, 198, 51, 100, 1]);
    bytes.extend([0x10, 0, 0x20, 0]);
    bytes.extend((8 + payload as u16).to_be_bytes());
    bytes.extend([0, 0]);
    bytes.resize(bytes.len() + payload - 8, 0);
    bytes.extend(number.to_be_bytes());
    bytes
}

/// The ring that a packet which has left was in: half, and class as a number.
fn ring_of(bytes: &[u8]) -> (usize, usize) {
    match bytes[15] >> 2 {
        marked @ 48.. => (1, usize::from(marked) - 48),
        dscp => (0, CLASSES.iter().position(|class| *class == dscp).unwrap()),
    }
}

#[test]
fn rings_tell_what_follows_from_arrivals_and_departures() {
    let mut chance = Chance::seeded("rings", 20_261_121);
    let size = BenchSize {
        frames: 8192,
        room: 4096,
        batch: 64,
        partial_checksums: false,
    };
    let config = checked(&(two_ports(Some("300 Mbit/s")) + CLASSES_AND_CONTRACTS));
    let mut bench = Bench::new(&config, &size);
    let gauges = bench.worker.lanes()[0].gauges();
    let classes: HashMap<String, RingId> = bench
        .compiled
        .classes()
        .map(|(name, ring)| (name.to_owned(), ring))
        .collect();
    let rings = ["gold", "silver", "bronze"].map(|name| classes[name]);
    // Turn of arrival by number; turn of departure and ring once it has left.
    let mut arrived: Vec<Nanos> = Vec::new();
    let mut left: HashMap<u64, (Nanos, (usize, usize))> = HashMap::new();
    let mut turns: VecDeque<Nanos> = VecDeque::new();
    let mut now = Nanos(1_000_000_000);
    let mut turn = |bench: &mut Bench, now: Nanos, left: &mut HashMap<_, _>| {
        bench.worker.turn(now);
        for bytes in bench.departed(1, usize::MAX) {
            let number = u64::from_be_bytes(*bytes.last_chunk().unwrap());
            left.insert(number, (now, ring_of(&bytes)));
        }
        turns.push_back(now);
    };
    for _ in 0..2_000 {
        now = now.plus(Nanos(500 + chance.next() % 30_000));
        // Bursts above the port's rate, over in less time than CoDel takes to begin: nothing is dropped.
        let burst = if chance.percent(7) { chance.below(60) } else { 0 };
        for _ in 0..burst {
            let class = chance.of(&CLASSES);
            let payload = 20 + chance.below(400);
            assert!(bench.arrive(0, &frame(class, arrived.len() as u64, payload), 42 + payload as u32));
            arrived.push(now);
        }
        turn(&mut bench, now, &mut left);
    }
    let ledger = bench.closed_ledgers()[0];
    let held = ledger.held.packets;
    // Before the last packets leave: what is held is what has come and not left.
    let held_in = |half: Half, ring: RingId| gauges[0].of(half, ring).read().held;
    let sum: u64 = rings
        .iter()
        .flat_map(|ring| [Half::Conforming, Half::Nonconforming].map(|half| held_in(half, *ring)))
        .sum();
    assert_eq!((sum, held), (arrived.len() as u64 - left.len() as u64, sum));
    while bench.worker.lanes()[0].held() > 0 {
        now = now.plus(Nanos(20_000));
        turn(&mut bench, now, &mut left);
    }
    assert_eq!(
        left.len(),
        arrived.len(),
        "nothing is dropped here: {:?}",
        bench.closed_ledgers()[0]
    );

    let mut waited_in_all = 0;
    for (class, ring) in rings.into_iter().enumerate() {
        for (half, which) in [Half::Conforming, Half::Nonconforming].into_iter().enumerate() {
            let mut waits = Waits::default();
            let (mut longest, mut steps) = (0, Vec::new());
            for (number, (departed, _)) in left.iter().filter(|(_, (_, of))| *of == (half, class)) {
                let came = arrived[*number as usize];
                let wait = departed.since(came);
                waits.add(wait);
                longest = longest.max(wait.0);
                waited_in_all += u64::from(wait.0 > 0);
                // A ring is fullest after what came in a turn was admitted and before any of it leaves.
                steps.push((came, 0, 1_i64));
                steps.push((*departed, 1, -1));
            }
            steps.sort_unstable();
            let mut depth = 0;
            let most = steps
                .iter()
                .map(|(.., step)| {
                    depth += step;
                    depth
                })
                .max()
                .unwrap_or(0);
            let reading = gauges[0].of(which, ring).read();
            assert_eq!(reading.waits, waits, "class {class}, {which:?}");
            assert_eq!(
                (reading.max_ns, reading.high_watermark as i64),
                (longest, most),
                "class {class}, {which:?}"
            );
            assert_eq!(reading.held, 0);
        }
        assert!(
            !gauges[1].of(Half::Conforming, ring).is_used(),
            "nothing came the other way"
        );
    }
    assert!(
        waited_in_all > 1_000,
        "too few waited to prove anything: {waited_in_all}"
    );
}

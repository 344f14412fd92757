//! Malformed packets through everything that a worker runs: no panic, no packet unaccounted for, no frame lost, nothing changed
//! but marks, and no packet that holds the others up.
//!
//! `WEIR_FULL=1` sends 10^9, on every core; `WEIR_PACKETS=N` any other number, `WEIR_SEED=N` others. A debug build checks every
//! arithmetic operation for overflow; so does `--profile checked`, which is ten times as fast:
//!
//!     WEIR_FULL=1 cargo test --profile checked -p weir-fuzz --test malformed -- --nocapture

use std::collections::BTreeMap;
use std::time::Duration;

use dataplane::clock::Nanos;
use nix::time::{ClockId, clock_gettime};
use weir_tests::malformed::{Malformer, Random, seeds, variants};
use weir_tests::memory::{CONFIG, MemoryGateway, PACKET_MAX, Size, checked, unmarked};

/// Most packets of a turn, half of them from either side. Most turns have [`FEW`], so that a slow packet stands out.
const TURN: usize = 64;
const FEW: usize = 8;
/// Longest that one packet may take from port to port.
const BOUND: Duration = Duration::from_micros(100);
/// Packets between two tables.
const SWAP: u64 = 100_000;
/// How often each packet of a slow turn is sent again, alone, through a gateway where nothing waits. A packet that is slow is slow
/// every time; an interrupt is not.
const TRIES: usize = 5;

fn number_from(variable: &str) -> Option<u64> {
    std::env::var(variable).ok()?.parse().ok()
}

fn size(frames: u32, partial_checksums: bool) -> Size {
    Size {
        frames,
        room: frames as usize,
        batch: TURN,
        partial_checksums,
    }
}

/// Every seed cut at every byte, with every lie of two bytes, from either side: one packet at a time, so that what leaves is
/// known to be what came.
#[test]
fn every_cut_and_every_lie_leaves_as_it_came() {
    let config = checked(CONFIG);
    let gateway = |partial_checksums| MemoryGateway::new(&config, size(64, partial_checksums)).expect("memory");
    let mut gateways = [gateway(false), gateway(true)];
    let (mut sent, mut left) = (0_u64, 0_u64);
    for seed in seeds() {
        // Beyond a few hundred bytes one cut is like another.
        let end = seed.bytes.len().min(300);
        variants(&seed.bytes[..end], |bytes| {
            let (end, completes) = ((sent & 1) as usize, sent & 2 != 0);
            let gateway = &mut gateways[usize::from(completes)];
            let length = bytes.len();
            assert!(gateway.arrive(end, bytes, length as u32), "{}: no frame", seed.name);
            gateway.turn(Nanos(20_000));
            sent += 1;
            gateway.departed(1 - end, |after, _| {
                let [before, after] = [bytes, after].map(|bytes| unmarked(bytes, length, completes));
                assert_eq!(before, after, "{}", seed.name);
                left += 1;
            });
        });
        for gateway in &gateways {
            gateway.books().unwrap_or_else(|wrong| panic!("{}: {wrong}", seed.name));
        }
    }
    let mut dropped = 0;
    for gateway in &mut gateways {
        gateway.drain(|_, _| left += 1);
        let ledgers = gateway.books().expect("they add up");
        assert_eq!(ledgers.map(|ledger| ledger.held.packets), [0, 0]);
        dropped += ledgers
            .iter()
            .flat_map(|ledger| ledger.dropped)
            .map(|amount| amount.packets)
            .sum::<u64>();
    }
    println!("MEASURED {sent} packets, {left} left, {dropped} were policed");
    assert!(
        sent > 150_000 && left + dropped == sent && dropped > sent / 100,
        "{left} of {sent} left"
    );
}

#[test]
fn a_stream_of_malformed_packets_is_judged_in_time_and_accounted_for() {
    let is_full = number_from("WEIR_FULL").is_some_and(|full| full > 0);
    let packets = number_from("WEIR_PACKETS").unwrap_or(if is_full { 1_000_000_000 } else { 500_000 });
    let seed = number_from("WEIR_SEED").unwrap_or(0x776_5697);
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    let threads = if is_full { cores } else { 1 } as u64;
    let of_each = packets.div_ceil(threads);
    let runs: Vec<_> = (0..threads)
        .map(|thread| std::thread::spawn(move || Run::new(seed + thread, thread % 2 == 1).run(of_each)))
        .collect();
    let mut all = Findings::default();
    for run in runs {
        all.merge(&run.join().expect("no panic"));
    }
    println!(
        "MEASURED seeds {:#x} to {:#x}: {} packets in {} turns: {} forwarded, {} dropped, {} not IP; turns: median \
         {} µs, p99.9 {} µs, longest {} µs; {} slow turns, and the slowest packet of those, alone: {:.1} µs",
        seed,
        seed + threads - 1,
        all.received,
        all.turns.values().sum::<u64>(),
        all.forwarded,
        all.dropped,
        all.other,
        all.quantile(0.5),
        all.quantile(0.999),
        all.quantile(1.0),
        all.slow_turns,
        all.slowest.as_secs_f64() * 1e6,
    );
    assert!(all.received >= packets && all.forwarded > packets / 4, "{all:?}");
    assert!(all.dropped > packets / 100 && all.other > packets / 10, "{all:?}");
}

/// What came of a run.
#[derive(Debug, Default)]
struct Findings {
    received: u64,
    forwarded: u64,
    dropped: u64,
    other: u64,
    /// How many turns took so many microseconds of the thread's processor time.
    turns: BTreeMap<u64, u64>,
    /// Those in which a packet may have taken longer than [`BOUND`].
    slow_turns: u64,
    /// The slowest packet of those, taken alone.
    slowest: Duration,
}

impl Findings {
    fn merge(&mut self, other: &Self) {
        self.received += other.received;
        self.forwarded += other.forwarded;
        self.dropped += other.dropped;
        self.other += other.other;
        self.slow_turns += other.slow_turns;
        self.slowest = self.slowest.max(other.slowest);
        for (&micros, &turns) in &other.turns {
            *self.turns.entry(micros).or_default() += turns;
        }
    }

    fn quantile(&self, share: f64) -> u64 {
        let rank = (self.turns.values().sum::<u64>() as f64 * share).ceil() as u64;
        let mut seen = 0;
        let found = self.turns.iter().find(|(_, turns)| {
            seen += *turns;
            seen >= rank
        });
        found.map_or(0, |(&micros, _)| micros)
    }
}

/// A gateway under a stream.
struct Run {
    gateway: MemoryGateway,
    /// For the packets of slow turns.
    quiet: MemoryGateway,
    malformer: Malformer,
    random: Random,
    packets: Vec<Vec<u8>>,
    findings: Findings,
}

impl Run {
    fn new(seed: u64, partial_checksums: bool) -> Self {
        Self {
            gateway: MemoryGateway::new(&checked(CONFIG), size(8_192, partial_checksums)).expect("memory"),
            quiet: MemoryGateway::new(&checked(CONFIG), size(8, partial_checksums)).expect("memory"),
            // Most of what is on a wire is not a giant, and copying them would take most of the time.
            malformer: Malformer::new(seed, 600),
            random: Random::new(!seed),
            packets: (0..TURN).map(|_| Vec::with_capacity(PACKET_MAX)).collect(),
            findings: Findings::default(),
        }
    }

    fn run(mut self, packets: u64) -> Findings {
        // Another table every now and then: other numbers, the other default for what has no contract.
        let defaults = "[defaults]\nuncontracted = \"conforming\"\nlayer = \"l1\"\n[[port]]";
        let configs = [
            CONFIG.to_owned(),
            CONFIG.replace("rate = \"20 Mbit/s\"", "rate = \"200 Mbit/s\""),
            CONFIG.replacen("[[port]]", defaults, 1),
        ];
        let configs = configs.map(|text| checked(&text));
        let (mut sent, mut until_swap) = (0, SWAP);
        while sent < packets {
            sent += self.turn() as u64;
            if sent > until_swap {
                until_swap += SWAP;
                let config = &configs[self.random.below(configs.len())];
                self.gateway.swap(config).expect("it compiles");
                self.gateway.books().expect("they add up");
            }
        }
        self.gateway.drain(|_, _| ());
        let ledgers = self.gateway.books().expect("they add up");
        for ledger in ledgers {
            self.findings.received += ledger.received.packets;
            self.findings.forwarded += ledger.forwarded.packets;
            self.findings.dropped += ledger.dropped.iter().map(|amount| amount.packets).sum::<u64>();
            self.findings.other += ledger.other.packets;
        }
        self.findings
    }

    /// One turn; returns how many packets it took.
    fn turn(&mut self) -> usize {
        let count = [FEW, TURN][usize::from(self.random.below(8) == 0)];
        for (position, bytes) in self.packets[..count].iter_mut().enumerate() {
            self.malformer.next(bytes);
            // Nobody takes a frame away here: where rings are full it is given back.
            assert!(
                self.gateway.arrive(position % 2, bytes, bytes.len() as u32),
                "no frame is free"
            );
        }
        // From a flood to about what the ports carry, and now and then silence, in which all rings run empty.
        let after = match self.random.below(1_024) {
            0 => 1_000_000_000,
            drawn => [2_000, 20_000, 50_000, 100_000][drawn % 4],
        };
        let took = timed_turn(&mut self.gateway, Nanos(after));
        *self.findings.turns.entry(took.as_micros() as u64).or_default() += 1;
        if took > BOUND * (count / FEW) as u32 / 2 {
            self.findings.slow_turns += 1;
            (0..count).for_each(|position| self.alone(position));
        }
        count
    }

    fn alone(&mut self, position: usize) {
        let mut fastest = Duration::MAX;
        for _ in 0..TRIES {
            let bytes = &self.packets[position];
            assert!(
                self.quiet.arrive(position % 2, bytes, bytes.len() as u32),
                "no frame is free"
            );
            fastest = fastest.min(timed_turn(&mut self.quiet, Nanos(1_000_000)));
        }
        self.findings.slowest = self.findings.slowest.max(fastest);
        assert!(fastest <= BOUND, "{fastest:?} for {:02x?}", self.packets[position]);
    }
}

/// One turn by the thread's processor time: what others do with the core in between does not count, but for interrupts.
fn timed_turn(gateway: &mut MemoryGateway, after: Nanos) -> Duration {
    let begin = processor_time();
    gateway.turn(after);
    let took = processor_time() - begin;
    gateway.departed(0, |_, _| ());
    gateway.departed(1, |_, _| ());
    took
}

fn processor_time() -> Duration {
    let time = clock_gettime(ClockId::CLOCK_THREAD_CPUTIME_ID).expect("Linux has this clock");
    Duration::new(time.tv_sec() as u64, time.tv_nsec() as u32)
}

//! What a meter check costs: one thread with one meter and with up to a million, and two threads on one meter.
//!
//!     cargo bench -p weir-benches --bench meters [-- --quick] [--json]
//!     cargo bench -p weir-benches --bench meters -- --count ROW ROUNDS
//!
//! `--count` runs one row for `benches/peers/instructions.sh`: its work, and nothing else, within the function `counted`.
//!
//! One thread: the opposite number of `benches/peers/dpdk/meters.c`, with its rows. No clock is read; time goes on by a
//! constant, a packet every 100 ns, at once for each batch. All packets are green, which costs most.
//!
//! Two threads, on a core each: wall time of a fixed number of checks, the clock read once for each batch as a worker
//! does, beside `governor` and a plain compare-exchange.
#![deny(unsafe_code)]

// The pipeline's own: the instruction has no safe form.
#[path = "../../dataplane/src/prefetch.rs"]
mod prefetch;

use std::hint::{black_box, spin_loop};
use std::num::NonZeroU32;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::Instant;

use dataplane::cells::{Cells, SlotId, WorkerCells};
use dataplane::clock::{Clock, MonotonicClock, Nanos};
use dataplane::contract::{Action, ClassId, Contract, Judge, Marking};
use dataplane::frame::BATCH;
use dataplane::meter::{Color, Meter, Profile, ProfileError, Purse};
use dataplane::priority::RingId;
use governor::clock::Clock as GovernorClock;
use governor::middleware::NoOpMiddleware;
use governor::nanos::Nanos as GovernorNanos;
use governor::state::{InMemoryState, NotKeyed};
use governor::{Quota, RateLimiter};
use prefetch::prefetch;
use weir_benches::summary::Summary;
use weir_benches::workload::Random;
use weir_benches::{Error, machine};

const SEED: u64 = 20_261_121;

/// Counted bytes of a 64-byte frame.
const PACKET_BYTES: u32 = 46;

/// Time between two packets where no clock is read.
const PACKET_NS: u64 = 100;

/// Checks of a round by one thread, each of a meter drawn at random.
const CHECKS: usize = 1 << 20;

/// What one of several workers does to judge a packet.
#[inline(always)]
fn color(contract: &Contract, cells: WorkerCells<'_>, now: Nanos) -> Color {
    let Judge::Meter(meter) = &contract.judge else {
        return Color::Green;
    };
    let purse = &cells.cell(contract.slot).purse;
    match cells.sharing(contract.slot) {
        None => meter.color(purse, PACKET_BYTES, now, Color::Green),
        Some(sharing) => meter.color_shared(sharing, purse, PACKET_BYTES, now, Color::Green),
    }
}

fn main() -> Result<(), Error> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let has = |name: &str| arguments.iter().any(|argument| argument == name);
    let rounds = if has("--quick") { 5 } else { 31 };
    if let Some(at) = arguments.iter().position(|argument| argument == "--count") {
        let [row, rounds, ..] = &arguments[at + 1..] else {
            return Err("--count ROW ROUNDS".into());
        };
        return count(row, rounds.parse()?);
    }
    // Before pinning, which hides the other cores.
    let machine = machine::name();
    machine::pin(MEASURED_CPU)?;
    let before = machine::empty_syscall_ns();
    let mut rows = Vec::new();
    for kind in KINDS {
        one_thread(&kind, rounds, &mut rows)?;
    }
    let contests = two_threads(rounds)?;
    let after = machine::empty_syscall_ns();
    if has("--json") {
        print_json(&machine, &rows, &contests, [before, after]);
    } else {
        print_table(&machine, &rows, &contests, [before, after]);
    }
    Ok(())
}

/// The last of the two cores: the first has the interrupts.
const MEASURED_CPU: usize = 1;

/// A kind of meter, made from a rate in bit/s and a burst in bytes.
struct Kind {
    name: &'static str,
    profile: fn(u64, u64) -> Result<Profile, ProfileError>,
}

/// With the rates and bursts of `meters.c`.
const KINDS: [Kind; 4] = [
    Kind {
        name: "token bucket",
        profile: Profile::token_bucket,
    },
    Kind {
        name: "RFC 2698",
        profile: |rate, burst| Profile::tr_tcm(rate, burst, 2 * rate, 2 * burst),
    },
    Kind {
        name: "RFC 2697",
        profile: |rate, burst| Profile::sr_tcm(rate, burst, burst),
    },
    Kind {
        name: "RFC 4115",
        profile: |rate, burst| Profile::tr_tcm_4115(rate, burst, rate, burst),
    },
];

/// Meters, and beside them their state, as DPDK's are: what it takes to find them by a contract is not a meter's cost. Each
/// begins a cache line, as in a contract table and in cells.
struct Meters {
    meters: Vec<Line<Meter>>,
    purses: Vec<Line<Purse>>,
}

#[repr(align(64))]
struct Line<T>(T);

impl Meters {
    /// `meters` meters of one kind, 8 Gbit/s and some more: one may take all packets and stay green.
    fn new(kind: &Kind, meters: usize) -> Result<Self, Error> {
        let meter = |number: usize| {
            let odd = number as u64 & 1023;
            let profile = (kind.profile)(8_000_000_000 + 8_000 * odd, 150_000 + odd)?;
            Ok(Line(Meter::new(profile, false)))
        };
        Ok(Self {
            meters: (0..meters).map(meter).collect::<Result<_, Error>>()?,
            purses: (0..meters).map(|_| Line(Purse::new())).collect(),
        })
    }

    /// One round: batches of meters in `order`. Returns the time to go on from.
    fn round(&self, order: &[u32], mut now: Nanos, way: Way) -> Nanos {
        for batch in order.chunks(BATCH) {
            if !way.each {
                now = now.plus(Nanos(PACKET_NS * BATCH as u64));
            }
            if way.prefetch {
                for &at in batch {
                    prefetch(&self.meters[at as usize]);
                    prefetch(&self.purses[at as usize]);
                }
            }
            for &at in batch {
                if way.each {
                    now = now.plus(Nanos(PACKET_NS));
                }
                let (meter, purse) = (&self.meters[at as usize].0, &self.purses[at as usize].0);
                black_box(meter.color(purse, PACKET_BYTES, now, Color::Green));
            }
        }
        now
    }
}

fn contract(profile: Profile, number: usize) -> Result<Contract, Error> {
    Ok(Contract {
        judge: Judge::Meter(Meter::new(profile, false)),
        action: Action::Remark,
        marking: Marking::default(),
        class: ClassId(RingId::new(0).ok_or("there is no ring 0")?),
        slot: SlotId(number as u32),
    })
}

/// How the meters are asked.
#[derive(Clone, Copy)]
struct Way {
    prefetch: bool,
    /// A new time for each check, not for each batch.
    each: bool,
}

impl Way {
    const PLAIN: Way = Way {
        prefetch: false,
        each: false,
    };
    const PREFETCH: Way = Way {
        prefetch: true,
        each: false,
    };
    const EACH: Way = Way {
        prefetch: false,
        each: true,
    };
}

/// A line of the first table.
struct Row {
    name: String,
    ns: Summary,
}

/// Who is asked, how many there are of them, and how.
const CASES: [(&str, usize, Way); 6] = [
    ("1 hot", 1, Way::PLAIN),
    ("1 hot, a new time for each", 1, Way::EACH),
    ("10000", 10_000, Way::PLAIN),
    ("10000, prefetch", 10_000, Way::PREFETCH),
    ("1000000", 1_000_000, Way::PLAIN),
    ("1000000, prefetch", 1_000_000, Way::PREFETCH),
];

/// Contracts drawn at random, one for each check of a round.
fn order(meters: usize) -> Vec<u32> {
    let mut random = Random::new(SEED);
    (0..CHECKS).map(|_| random.below(meters as u32)).collect()
}

fn one_thread(kind: &Kind, rounds: usize, rows: &mut Vec<Row>) -> Result<(), Error> {
    for (name, meters, way) in CASES {
        // What prefetching is good for shows in one kind.
        if meters > 1 && !way.prefetch && kind.name != "RFC 2698" {
            continue;
        }
        let state = Meters::new(kind, meters)?;
        let order = order(meters);
        let mut now = Nanos::SECOND;
        let mut ns = Vec::with_capacity(rounds);
        for round in 0..=rounds {
            let start = machine::thread_ns();
            now = state.round(&order, now, way);
            // The first warms the caches.
            if round > 0 {
                ns.push((machine::thread_ns() - start) as f64 / CHECKS as f64);
            }
        }
        rows.push(Row {
            name: format!("{}, {name}", kind.name),
            ns: Summary::of(&ns),
        });
    }
    Ok(())
}

/// One row, once warm, without a clock.
fn count(row: &str, rounds: usize) -> Result<(), Error> {
    for kind in KINDS {
        for (name, meters, way) in CASES {
            if row == format!("{}, {name}", kind.name) {
                let state = Meters::new(&kind, meters)?;
                let order = order(meters);
                let mut now = state.round(&order, Nanos::SECOND, way);
                for _ in 0..rounds {
                    now = counted(|| state.round(&order, now, way));
                }
                println!("{} packets", rounds * CHECKS);
                return Ok(());
            }
        }
    }
    Err(format!("there is no row {row}").into())
}

/// Found by its name.
#[inline(never)]
fn counted(work: impl FnOnce() -> Nanos) -> Nanos {
    work()
}

/// A line of the second table: millions of checks a second, round by round.
struct Contest {
    name: String,
    one: Vec<f64>,
    two: Vec<f64>,
    /// The least share of packets that conformed in a round of two threads.
    conforming: f64,
}

/// What the threads share, or each has to itself.
trait Limiter: Sync {
    /// How many packets of a batch of the thread `worker` conform.
    fn batch(&self, worker: usize, now: Nanos) -> usize;
}

#[inline(always)]
fn batch_of(conforms: impl Fn() -> bool) -> usize {
    (0..BATCH).map(|_| usize::from(black_box(conforms()))).sum()
}

/// One contract for all, or one for each thread.
struct Weir {
    contracts: [Contract; 2],
    cells: Cells,
}

impl Limiter for Weir {
    #[inline(always)]
    fn batch(&self, worker: usize, now: Nanos) -> usize {
        let cells = self.cells.of(worker);
        batch_of(|| color(&self.contracts[worker], cells, now) == Color::Green)
    }
}

impl Weir {
    fn new(load: &Load, shared: bool) -> Result<Self, Error> {
        let profile = Profile::token_bucket(load.rate_bps, load.rate_bps / 8 * BURST_NS / 1_000_000_000)?;
        Ok(Self {
            contracts: [contract(profile, 0)?, contract(profile, usize::from(!shared))?],
            cells: Cells::new(2).grown(2),
        })
    }
}

/// A plain bucket: GCRA in one word, the instant at which it would be full again, by compare-and-exchange.
#[repr(align(64))]
struct Word {
    full_at: AtomicU64,
    packet_ns: u64,
    burst_ns: u64,
}

impl Word {
    fn new(load: &Load) -> Self {
        Self {
            full_at: AtomicU64::new(0),
            packet_ns: load.packet_ns,
            burst_ns: BURST_NS,
        }
    }

    #[inline(always)]
    fn take(&self, now: Nanos) -> bool {
        let mut full_at = self.full_at.load(Ordering::Relaxed);
        loop {
            let next = full_at.max(now.0) + self.packet_ns;
            if next > now.0 + self.burst_ns {
                return false;
            }
            match self
                .full_at
                .compare_exchange_weak(full_at, next, Ordering::Relaxed, Ordering::Relaxed)
            {
                Ok(_) => return true,
                Err(newer) => full_at = newer,
            }
        }
    }
}

/// For both threads the first, or one each.
struct Words([Word; 2], bool);

impl Limiter for Words {
    #[inline(always)]
    fn batch(&self, worker: usize, now: Nanos) -> usize {
        let word = &self.0[if self.1 { 0 } else { worker }];
        batch_of(|| word.take(now))
    }
}

/// Governor asks its clock at each check; the others get the time of their batch, and so must it.
#[derive(Clone, Debug)]
struct BatchClock;

thread_local! {
    static BATCH_NOW: std::cell::Cell<u64> = const { std::cell::Cell::new(0) };
}

impl GovernorClock for BatchClock {
    type Instant = GovernorNanos;

    #[inline(always)]
    fn now(&self) -> GovernorNanos {
        BATCH_NOW.get().into()
    }
}

#[repr(align(64))]
struct OneGovernor(RateLimiter<NotKeyed, InMemoryState, BatchClock, NoOpMiddleware<GovernorNanos>>);

/// For both threads the first, or one each.
struct Governors([OneGovernor; 2], bool);

impl Governors {
    fn new(load: &Load, shared: bool) -> Result<Self, Error> {
        let packets = |ns: u64| NonZeroU32::new((ns / load.packet_ns) as u32).ok_or("governor takes no such rate");
        let quota = Quota::per_second(packets(1_000_000_000)?).allow_burst(packets(BURST_NS)?);
        let one = || OneGovernor(RateLimiter::direct_with_clock(quota, BatchClock));
        Ok(Self([one(), one()], shared))
    }
}

impl Limiter for Governors {
    #[inline(always)]
    fn batch(&self, worker: usize, now: Nanos) -> usize {
        BATCH_NOW.set(now.0);
        let OneGovernor(limiter) = &self.0[if self.1 { 0 } else { worker }];
        batch_of(|| limiter.check().is_ok())
    }
}

/// What a burst is worth at the rate: what the appliance gives a contract that names none.
const BURST_NS: u64 = 10_000_000;

/// What the limiters grant, beside what two threads ask for: some 100 to 400 million packets a second.
struct Load {
    name: &'static str,
    rate_bps: u64,
    /// The others count packets, each worth this time.
    packet_ns: u64,
}

const LOADS: [Load; 2] = [
    Load {
        name: "all conform",
        rate_bps: 400_000_000_000,
        packet_ns: 1,
    },
    Load {
        name: "far above the rate",
        rate_bps: 3_680_000_000,
        packet_ns: 100,
    },
];

fn two_threads(rounds: usize) -> Result<Vec<Contest>, Error> {
    let mut contests = Vec::new();
    for load in &LOADS {
        for (sharing, shared) in [("one for both", true), ("one each", false)] {
            let name = |who: &str| format!("{who}, {sharing}, {}", load.name);
            contests.push(contest(name("weir"), &Weir::new(load, shared)?, rounds)?);
            contests.push(contest(name("governor"), &Governors::new(load, shared)?, rounds)?);
            let words = Words([Word::new(load), Word::new(load)], shared);
            contests.push(contest(name("compare-exchange"), &words, rounds)?);
        }
    }
    Ok(contests)
}

fn contest<L: Limiter>(name: String, limiter: &L, rounds: usize) -> Result<Contest, Error> {
    let mut contest = Contest {
        name,
        one: Vec::new(),
        two: Vec::new(),
        conforming: 1.0,
    };
    for round in 0..=rounds {
        let (one, _) = race(limiter, 1)?;
        let (two, conforming) = race(limiter, 2)?;
        // The first warms the caches, and empties buckets.
        if round > 0 {
            contest.one.push(one);
            contest.two.push(two);
            contest.conforming = contest.conforming.min(conforming);
        }
    }
    Ok(contest)
}

/// Threads that begin together and do [`CHECKS`] checks each. Returns millions of checks a second, from the first start to
/// the last end, and the share of packets that conformed.
fn race<L: Limiter>(limiter: &L, threads: usize) -> Result<(f64, f64), Error> {
    let waiting = AtomicUsize::new(threads);
    let lap = |worker: usize| -> Result<(Instant, Instant, usize), Error> {
        // One thread alone has the second core, which is the quieter.
        machine::pin(if threads == 1 { MEASURED_CPU } else { worker })?;
        waiting.fetch_sub(1, Ordering::AcqRel);
        while waiting.load(Ordering::Acquire) > 0 {
            spin_loop();
        }
        let start = Instant::now();
        let mut conforming = 0;
        for _ in 0..CHECKS / BATCH {
            conforming += limiter.batch(worker, MonotonicClock.now());
        }
        Ok((start, Instant::now(), conforming))
    };
    let laps: Vec<_> = std::thread::scope(|scope| {
        let running: Vec<_> = (0..threads).map(|worker| scope.spawn(move || lap(worker))).collect();
        running.into_iter().map(|thread| thread.join()).collect()
    });
    let mut done = Vec::new();
    for lap in laps {
        done.push(lap.map_err(|_| "a thread has panicked")??);
    }
    let start = done.iter().map(|lap| lap.0).min().ok_or("no thread")?;
    let end = done.iter().map(|lap| lap.1).max().ok_or("no thread")?;
    let checks = (threads * CHECKS) as f64;
    let conforming: usize = done.iter().map(|lap| lap.2).sum();
    Ok((checks / (end - start).as_secs_f64() / 1e6, conforming as f64 / checks))
}

impl Contest {
    /// Of the rounds.
    fn ratios(&self) -> Vec<f64> {
        self.one.iter().zip(&self.two).map(|(one, two)| two / one).collect()
    }
}

fn print_table(machine: &str, rows: &[Row], contests: &[Contest], syscall_ns: [f64; 2]) {
    println!("Meters in memory: {machine}");
    println!(
        "An empty system call took {:.0} ns before, {:.0} ns after.\n",
        syscall_ns[0], syscall_ns[1]
    );
    println!("| ns for each check, one thread | median | min | p90 |\n|---|---|---|---|");
    for row in rows {
        let Summary { median, min, p90, .. } = row.ns;
        println!("| {} | {median:.1} | {min:.1} | {p90:.1} |", row.name);
    }
    println!(
        "\n| millions of checks a second, median | one thread | two threads | ratio | ratio min | max | conforming |"
    );
    println!("|---|---|---|---|---|---|---|");
    for contest in contests {
        let ratio = Summary::of(&contest.ratios());
        println!(
            "| {} | {:.1} | {:.1} | {:.2} | {:.2} | {:.2} | {:.1} % |",
            contest.name,
            Summary::of(&contest.one).median,
            Summary::of(&contest.two).median,
            ratio.median,
            ratio.min,
            ratio.max,
            contest.conforming * 100.0
        );
    }
}

fn print_json(machine: &str, rows: &[Row], contests: &[Contest], syscall_ns: [f64; 2]) {
    let rows: Vec<_> = rows
        .iter()
        .map(|row| serde_json::json!({ "name": row.name, "ns": row.ns.json() }))
        .collect();
    let contests: Vec<_> = contests
        .iter()
        .map(|contest| {
            serde_json::json!({
                "name": contest.name,
                "one_thread_mops": Summary::of(&contest.one).json(),
                "two_threads_mops": Summary::of(&contest.two).json(),
                "ratio": Summary::of(&contest.ratios()).json(),
                "conforming_share": contest.conforming,
            })
        })
        .collect();
    let report = serde_json::json!({
        "machine": machine,
        "empty_syscall_ns": syscall_ns,
        "seed": SEED,
        "rows": rows,
        "two_threads": contests,
    });
    println!("{report:#}");
}

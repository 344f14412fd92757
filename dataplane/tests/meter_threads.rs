//! 64 threads on one contract. `WEIR_METER_OPS` says how many packets they judge together (for a long run: 1000000000, with
//! `--release`); without it, as many as a debug build judges in a second or two.

mod sharers;

use dataplane::cells::{Cells, SlotId};
use dataplane::clock::Nanos;
use dataplane::meter::{Color, Levels, Meter};
use sharers::{Numbers, RFCS, Random, Rfc, Shared, token_bucket};
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::thread;

const THREADS: usize = 64;
/// Packets that a worker judges at one reading of the clock.
const BATCH: u64 = 16;
const START: u64 = 1_000_000_000;
/// A worker's clock is late by up to this.
const LATE_NS_MAX: u64 = 50_000;
const BYTES_MAX: u64 = 9_000;

/// How many packets all threads judge together.
fn operations() -> u64 {
    match std::env::var("WEIR_METER_OPS") {
        Ok(text) => text.parse().expect("WEIR_METER_OPS is a number of packets"),
        Err(_) => 1_000_000,
    }
}

/// Bytes by colour.
#[derive(Clone, Copy, Debug, Default)]
struct Granted {
    green: u64,
    yellow: u64,
}

impl Granted {
    fn add(&mut self, color: Color, bytes: u64) {
        match color {
            Color::Green => self.green += bytes,
            Color::Yellow => self.yellow += bytes,
            Color::Red => {}
        }
    }

    fn plus(self, other: Self) -> Self {
        Self {
            green: self.green + other.green,
            yellow: self.yellow + other.yellow,
        }
    }
}

/// A clock that every batch pushes on by its share: the load per time does not depend on how fast this machine is.
struct Time {
    clock: AtomicU64,
    newest: AtomicU64,
    batch_ns_max: u64,
}

impl Time {
    fn new(batch_ns_max: u64) -> Self {
        Self {
            clock: AtomicU64::new(START),
            newest: AtomicU64::new(START),
            batch_ns_max,
        }
    }

    /// A worker's late reading.
    fn read(&self, random: &mut Random) -> u64 {
        let now = self
            .clock
            .fetch_add(random.between(0, self.batch_ns_max), Ordering::Relaxed);
        let now = now.saturating_sub(random.between(0, LATE_NS_MAX)).max(START);
        self.newest.fetch_max(now, Ordering::Relaxed);
        now
    }
}

/// Runs 64 workers to their end, and beside them `others` until then.
fn with_workers(
    operations: u64,
    work: impl Fn(usize, &mut Random) -> Granted + Sync,
    others: &[&(dyn Fn() + Sync)],
    seed: u64,
) -> Granted {
    println!("seed {seed}");
    let ended = AtomicBool::new(false);
    thread::scope(|scope| {
        for other in others {
            scope.spawn(|| {
                while !ended.load(Ordering::Relaxed) {
                    other();
                    thread::yield_now();
                }
            });
        }
        let (work, batches) = (&work, operations.div_ceil(THREADS as u64 * BATCH));
        let workers: Vec<_> = (0..THREADS)
            .map(|index| {
                scope.spawn(move || {
                    let mut random = Random(seed << 8 | index as u64);
                    (0..batches).fold(Granted::default(), |sum, _| sum.plus(work(index, &mut random)))
                })
            })
            .collect();
        let granted = workers.into_iter().map(|worker| worker.join()).collect::<Vec<_>>();
        ended.store(true, Ordering::Relaxed);
        granted
            .into_iter()
            .map(|granted| granted.expect("no worker panics"))
            .fold(Granted::default(), Granted::plus)
    })
}

/// Takes what there is at the start, from every credit and from the bucket, down to the last byte.
fn drain(shared: &Shared, meter: &Meter) -> Granted {
    let mut granted = Granted::default();
    for worker in 0..THREADS {
        for bytes in (0..31).rev().map(|log2| 1 << log2) {
            loop {
                let color = shared.color(meter, worker, bytes, START, Color::Green);
                if color == Color::Red {
                    break;
                }
                granted.add(color, u64::from(bytes));
            }
        }
    }
    granted
}

fn accrued(rate_bps: u64, ns: u64) -> u64 {
    (u128::from(rate_bps) * u128::from(ns) / 8_000_000_000) as u64
}

/// Some 40 Gbit/s offered to each kind of meter from an empty bucket on, and somebody who reads the levels all the time.
fn run(numbers: Numbers, operations: u64, seed: u64) -> (Granted, Levels, u64) {
    let (meter, shared) = (numbers.meter(), Shared::among(THREADS));
    let begun = drain(&shared, &meter);
    let time = Time::new(2 * BATCH * BYTES_MAX / 2 * 8 / 40);
    let work = |index: usize, random: &mut Random| {
        let now = time.read(random);
        let mut granted = Granted::default();
        for _ in 0..BATCH {
            let bytes = random.between(0, BYTES_MAX);
            granted.add(shared.color(&meter, index, bytes as u32, now, Color::Green), bytes);
        }
        granted
    };
    let read = || {
        let levels = shared.levels(&meter, time.clock.load(Ordering::Relaxed));
        assert!(levels.committed_bytes <= numbers.burst);
        assert!(levels.second_bytes.unwrap_or(0) <= numbers.second_burst);
    };
    let granted = with_workers(operations, work, &[&read], seed);
    let end = time.newest.load(Ordering::Relaxed);
    (granted.plus(begun), shared.levels(&meter, end), end - START)
}

/// What is granted and what is left are what was there and what has accrued, to the byte: a lost update would show as a
/// surplus, a lost refill as a deficit.
#[test]
fn sixty_four_threads_get_the_entitlement_to_the_byte() {
    for rfc in RFCS {
        let numbers = Numbers {
            rfc,
            aware: false,
            rate: 10_000_000_000,
            // RFC 2697: too small for most packets, so that nearly all goes over to E.
            burst: if rfc == Rfc::R2697 { 1_500 } else { 50_000_000 },
            second_rate: 15_000_000_000,
            second_burst: 80_000_000,
        };
        let operations = if rfc == Rfc::None {
            operations()
        } else {
            operations() / 8
        };
        let begun = std::time::SystemTime::now();
        let (granted, left, ns) = run(numbers, operations, 64);
        let seconds = begun.elapsed().unwrap_or_default().as_secs_f64();
        println!("{rfc:?}: {operations} packets in {seconds:.1} s, {granted:?}, {left:?}");
        let committed = numbers.burst + accrued(numbers.rate, ns);
        let second = numbers.second_burst + accrued(numbers.second_rate, ns);
        let (green, yellow) = (granted.green, granted.yellow);
        let second_left = left.second_bytes.unwrap_or(0);
        match rfc {
            Rfc::None => assert_eq!(green + left.committed_bytes, committed),
            Rfc::R2697 => {
                let total = committed + numbers.second_burst;
                let found = green + yellow + left.committed_bytes + second_left;
                assert!(total.abs_diff(found) <= 1, "two levels, each rounded down");
                assert!(green + left.committed_bytes <= committed);
                assert!(yellow > numbers.second_burst, "E lives on C's overflow");
            }
            Rfc::R2698 => {
                // C is asked by what P lets through: 15 of the 40 Gbit/s, and so it never runs over.
                assert_eq!(green + left.committed_bytes, committed);
                assert_eq!(green + yellow + second_left, second);
            }
            Rfc::R4115 => {
                assert_eq!(green + left.committed_bytes, committed);
                assert_eq!(yellow + second_left, second);
            }
        }
    }
}

const RELOADS: [(u64, u64); 10] = [
    (8_000, 1),
    (400_000_000_000, 2_000_000_000),
    (10_000_000_000, 9_217),
    (400_000_000_000, 1),
    (8_000, 2_000_000_000),
    (1_234_567_891, 1_000_000),
    (399_999_999_989, 9_216),
    (64_000, 20_000),
    (25_000_000_000, 123_456_789),
    (1_000_000, 10_000_000),
];

/// Workers that look for their meter once per batch, a control thread that changes it and brings the contract back, and
/// somebody who reads levels. Gives what was granted, how often the contract was filled, and the last instant.
fn storm(meters: &[Meter], bursts: &[u64], refills_max: u64, batch_ns_max: u64, seed: u64) -> (Granted, u64, u64) {
    let (cells, slot) = (Cells::new(THREADS).grown(1), SlotId(0));
    cells.refill(&meters[0], slot);
    let (current, refills, time) = (AtomicUsize::new(0), AtomicU64::new(1), Time::new(batch_ns_max));
    let work = |index: usize, random: &mut Random| {
        let (now, mut granted) = (time.read(random), Granted::default());
        let meter = &meters[current.load(Ordering::Acquire)];
        let (cell, sharing) = (cells.of(index).cell(slot), cells.of(index).sharing(slot).unwrap());
        for _ in 0..BATCH {
            let bytes = match random.between(0, 99) {
                0 => 0,
                1 => 100_000_000,
                _ => random.between(1, BYTES_MAX),
            };
            let color = meter.color_shared(sharing, &cell.purse, bytes as u32, Nanos(now), Color::Green);
            granted.add(color, bytes);
        }
        granted
    };
    let reload = || {
        let next = (current.load(Ordering::Relaxed) + 1) % meters.len();
        // Every third reload is a contract that ends and begins again.
        if next.is_multiple_of(3) && refills.load(Ordering::Relaxed) < refills_max {
            refills.fetch_add(1, Ordering::Relaxed);
            cells.refill(&meters[next], slot);
        }
        current.store(next, Ordering::Release);
    };
    let read = || {
        for (meter, burst) in meters.iter().zip(bursts) {
            let levels = cells.levels(meter, slot, Nanos(time.clock.load(Ordering::Relaxed)));
            assert!(levels.committed_bytes <= *burst, "{levels:?} of {burst}");
            assert!(levels.second_bytes.unwrap_or(0) <= *burst, "{levels:?} of {burst}");
        }
    };
    let granted = with_workers(operations() / 4, work, &[&reload, &read], seed);
    let ns = time.newest.load(Ordering::Relaxed) - START;
    (granted, refills.load(Ordering::Relaxed), ns)
}

/// Any rates and bursts, up and down, all kinds after each other on the same words: no panic, no level above its burst.
#[test]
fn a_reload_storm_over_all_rates_and_bursts() {
    let (mut meters, mut bursts) = (Vec::new(), Vec::new());
    for (index, (rate, burst)) in RELOADS.into_iter().enumerate() {
        let rfc = RFCS[index % RFCS.len()];
        let numbers = Numbers {
            rfc,
            aware: index.is_multiple_of(3),
            rate,
            burst,
            second_rate: rate,
            second_burst: burst,
        };
        meters.push(numbers.meter());
        bursts.push(burst);
    }
    let (granted, refills, ns) = storm(&meters, &bursts, u64::MAX, BATCH, 7);
    println!("{granted:?}, filled {refills} times, {ns} ns");
    let allowed = u128::from(refills) * 2_000_000_000 + u128::from(accrued(400_000_000_000, ns));
    assert!(u128::from(granted.green) <= allowed, "{granted:?} of {allowed}");
}

/// Small entitlements far below the load, so that the bound is near: a burst for each time that the contract begins, and
/// the highest rate of all generations.
#[test]
fn a_reload_storm_grants_no_more_than_its_generations_allow() {
    let (rates, bursts) = (
        [8_000, 50_000_000, 2_000_000, 100_000_000],
        [2_000_000, 300_000, 1, 1_000_000],
    );
    let meters = [0, 1, 2, 3].map(|index| token_bucket(rates[index], bursts[index]));
    for (refills_max, seed) in [(1, 8), (3, 9)] {
        let (granted, refills, ns) = storm(&meters, &bursts, refills_max, 2_000, seed);
        println!("{granted:?}, filled {refills} times, {ns} ns");
        let allowed = refills * 2_000_000 + accrued(100_000_000, ns);
        assert!(granted.green <= allowed, "{} of {allowed}", granted.green);
    }
}

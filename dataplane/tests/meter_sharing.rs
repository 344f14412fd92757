//! Meters over long runs, and shared by threads whose clocks disagree.

use dataplane::clock::Nanos;
use dataplane::meter::{Buckets, Color, Levels, Meter, Profile, Purse};
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;

const RATES_BPS: [u64; 9] = [
    8_000,
    9_999,
    64_000,
    10_000_000,
    999_999_937,
    1_234_567_891,
    10_000_000_000,
    399_999_999_989,
    400_000_000_000,
];

const THREADS: usize = 8;
const PACKETS_PER_THREAD: u64 = 20_000;
/// A batch's time may be this much older than another's.
const CLOCK_LAG_NS_MAX: u64 = 50_000;

/// Offered twice the rate in any packet size, exactly the rate is green, to within a packet and an arrival's gap.
#[test]
fn long_runs_give_the_rate() {
    const PACKETS: u64 = 20_000;
    for rate in RATES_BPS {
        for bytes in [64_u64, 357, 1_500, 9_000] {
            let burst = 2 * bytes;
            let meter = Meter::new(Profile::token_bucket(rate, burst).unwrap(), false);
            let purse = Purse::new();
            let bits = u128::from(bytes) * 8_000_000_000;
            let mut green_bytes = 0_u64;
            let mut now = 0;
            for packet in 0..PACKETS {
                now = (bits * u128::from(packet) / (2 * u128::from(rate))) as u64;
                if meter.color(&purse, bytes as u32, Nanos(now), Color::Green) == Color::Green {
                    green_bytes += bytes;
                }
            }
            let entitled = (u128::from(rate) * u128::from(now) / 8_000_000_000) as u64;
            let what = format!("{green_bytes} of {entitled} bytes at {rate} bit/s with {bytes} bytes");
            assert!(green_bytes <= entitled + burst, "{what}");
            assert!((green_bytes - burst).abs_diff(entitled) * 1_000 <= entitled, "{what}");
        }
    }
}

/// SplitMix64: any distinct seeds give unrelated sequences.
struct Random(u64);

impl Random {
    fn between(&mut self, low: u64, high: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        low + (mixed ^ (mixed >> 31)) % (high - low + 1)
    }
}

/// Bytes by colour.
#[derive(Clone, Copy, Debug, Default)]
struct Granted {
    green: u64,
    yellow: u64,
}

/// A meter and its state for eight workers.
struct Contract {
    meter: Meter,
    buckets: Buckets,
    purses: [Purse; THREADS],
}

impl Contract {
    fn new(profile: Profile) -> Self {
        Self {
            meter: Meter::new(profile, false),
            buckets: Buckets::new(),
            purses: std::array::from_fn(|_| Purse::new()),
        }
    }

    fn color(&self, worker: usize, bytes: u64, now: u64) -> Color {
        let sharing = self.buckets.among(THREADS);
        self.meter
            .color_shared(sharing, &self.purses[worker], bytes as u32, Nanos(now), Color::Green)
    }

    fn levels(&self, now: u64) -> Levels {
        self.meter
            .levels_shared(self.buckets.among(THREADS), self.purses.iter(), Nanos(now))
    }
}

/// Eight workers that spend as fast as they can, each with its own late view of one clock that all push on. Gives what
/// was granted and the last instant that anyone used.
fn stress(contract: &Contract, start: u64, step_ns: u64, seed: u64) -> (Granted, u64) {
    println!("seed {seed}");
    let clock = AtomicU64::new(start);
    let newest = AtomicU64::new(start);
    let worker = |index: usize| {
        let (clock, newest) = (&clock, &newest);
        move || {
            let mut random = Random(seed << 8 | index as u64);
            let mut granted = Granted::default();
            for _ in 0..PACKETS_PER_THREAD {
                let true_now = clock.fetch_add(random.between(0, step_ns), Ordering::Relaxed);
                let now = true_now.saturating_sub(random.between(0, CLOCK_LAG_NS_MAX)).max(start);
                newest.fetch_max(now, Ordering::Relaxed);
                let bytes = random.between(64, 9_000);
                match contract.color(index, bytes, now) {
                    Color::Green => granted.green += bytes,
                    Color::Yellow => granted.yellow += bytes,
                    Color::Red => {}
                }
            }
            granted
        }
    };
    let granted = thread::scope(|scope| {
        let threads: Vec<_> = (0..THREADS).map(|index| scope.spawn(worker(index))).collect();
        threads
            .into_iter()
            .map(|thread| thread.join().unwrap())
            .fold(Granted::default(), |sum, granted| Granted {
                green: sum.green + granted.green,
                yellow: sum.yellow + granted.yellow,
            })
    });
    (granted, newest.load(Ordering::Relaxed))
}

fn accrued(rate_bps: u64, ns: u64) -> u64 {
    (u128::from(rate_bps) * u128::from(ns) / 8_000_000_000) as u64
}

/// More than a worker may have borrowed: it makes the shared bucket begin to fill.
const FIRST: u64 = 20_000;

/// What eight threads are granted and what is left, in the bucket and in their credits, are what was there and what has
/// accrued, to the byte: a lost update would show as a surplus, a lost refill as a deficit.
#[test]
fn eight_threads_get_the_entitlement_to_the_byte() {
    let (rate, burst, start) = (10_000_000_000, 1_000_000, 1_000_000_000);
    for seed in 0..4 {
        let contract = Contract::new(Profile::token_bucket(rate, burst).unwrap());
        assert_eq!(contract.levels(start).committed_bytes, burst);
        assert_eq!(contract.color(0, FIRST, start), Color::Green);
        // 160,000 packets of 4.5 kB in 160 ms: some 36 Gbit/s.
        let (granted, end) = stress(&contract, start, 2_000, seed);
        let left = contract.levels(end).committed_bytes;
        assert_eq!(FIRST + granted.green + left, burst + accrued(rate, end - start));
    }
}

/// The same with all tokens reaching E by way of C's overflow, which moves in two steps.
#[test]
fn eight_threads_neither_lose_nor_double_overflow() {
    const CREDIT: u64 = 65_536;
    let (rate, ebs, start) = (10_000_000_000, 2_000_000_000, 1_000_000_000);
    for cbs in [0, 1_500] {
        let contract = Contract::new(Profile::sr_tcm(rate, cbs, ebs).unwrap());
        if cbs > 0 {
            assert_eq!(contract.color(0, cbs, start), Color::Green);
        }
        // Nobody can spend what others have borrowed.
        for worker in 0..THREADS {
            assert_eq!(contract.color(worker, CREDIT, start), Color::Yellow);
        }
        let unlent = ebs - THREADS as u64 * CREDIT;
        assert_eq!(contract.color(0, unlent + 1, start), Color::Red);
        assert_eq!(contract.color(0, unlent, start), Color::Yellow);
        let (granted, end) = stress(&contract, start, 2_000, 11);
        // The last overflow still lies in C.
        let levels = contract.levels(end);
        let left = levels.committed_bytes + levels.second_bytes.unwrap();
        let total = granted.green + granted.yellow + left;
        assert!(
            total.abs_diff(accrued(rate, end - start)) <= 1,
            "two levels are each rounded down to a byte"
        );
        assert!(granted.green <= cbs + accrued(rate, end - start));
        assert!(granted.yellow > 0);
    }
}

/// Two rates, contended: never above either entitlement, and P pays for all that is not red.
#[test]
fn eight_threads_under_two_rates() {
    let (cir, pir, start) = (5_000_000_000, 10_000_000_000, 1_000_000_000);
    let (cbs, pbs) = (500_000, 800_000);
    let contract = Contract::new(Profile::tr_tcm(cir, cbs, pir, pbs).unwrap());
    assert_eq!(contract.color(0, FIRST, start), Color::Green);
    let (mut granted, end) = stress(&contract, start, 2_000, 21);
    granted.green += FIRST;
    let levels = contract.levels(end);
    assert_eq!(granted.green + levels.committed_bytes, cbs + accrued(cir, end - start));
    assert_eq!(
        granted.green + granted.yellow + levels.second_bytes.unwrap(),
        pbs + accrued(pir, end - start)
    );

    let contract = Contract::new(Profile::tr_tcm_4115(cir, cbs, pir, pbs).unwrap());
    let (granted, end) = stress(&contract, start, 2_000, 22);
    assert!(granted.green <= cbs + accrued(cir, end - start));
    assert!(granted.yellow <= pbs + accrued(pir, end - start));
}

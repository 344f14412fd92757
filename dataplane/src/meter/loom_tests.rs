//! A few workers on one contract, at instants that need not be in order, in every interleaving up to a bound: spending,
//! refilling, borrowing, a contract that comes back, and a reload.
//!
//! `RUSTFLAGS="--cfg loom" cargo test -p weir-dataplane --release --lib loom`

use super::*;
use loom::sync::Arc;
use loom::thread;

/// A rate of one byte per nanosecond, so that bytes and nanoseconds can be compared by eye.
const BYTE_PER_NS: u64 = 8_000_000_000;

/// All interleavings with at most three preemptions: every pair of racing operations is met in every order, and runs end.
fn model(test: impl Fn() + Sync + Send + 'static) {
    let mut builder = loom::model::Builder::new();
    builder.preemption_bound = Some(3);
    builder.check(test);
}

/// Green and yellow bytes.
#[derive(Clone, Copy, Debug, Default)]
struct Granted {
    green: u64,
    yellow: u64,
}

/// The most workers here. Buckets below 9,216 bytes lend nothing; those of `LENDING` bytes lend each worker 2 bytes.
const WORKERS: usize = 4;
const LENDING: u64 = 9_216 + 2 * 8 * WORKERS as u64;
/// What of them is not lent.
const UNLENT: u32 = (LENDING - 2 * WORKERS as u64) as u32;

/// The state of a contract.
struct State {
    buckets: Buckets,
    purses: [Purse; WORKERS],
}

impl State {
    fn new() -> Arc<Self> {
        Arc::new(Self {
            buckets: Buckets::new(),
            purses: std::array::from_fn(|_| Purse::new()),
        })
    }

    fn color(&self, meter: Meter, worker: usize, bytes: u32, now: u64) -> Color {
        let sharing = self.buckets.among(WORKERS);
        meter.color_shared(sharing, &self.purses[worker], bytes, Nanos(now), Color::Green)
    }

    fn levels(&self, meter: Meter, now: u64) -> Levels {
        meter.levels_shared(self.buckets.among(WORKERS), self.purses.iter(), Nanos(now))
    }
}

/// Runs one thread per list of `(now, bytes)` on `state`.
fn run<const N: usize>(meter: Meter, state: &Arc<State>, threads: [&'static [(u64, u32)]; N]) -> Granted {
    let mut worker = 0;
    let threads = threads.map(|packets| {
        let state = Arc::clone(state);
        let me = worker;
        worker += 1;
        thread::spawn(move || {
            let mut granted = Granted::default();
            for &(now, bytes) in packets {
                match state.color(meter, me, bytes, now) {
                    Color::Green => granted.green += u64::from(bytes),
                    Color::Yellow => granted.yellow += u64::from(bytes),
                    Color::Red => {}
                }
            }
            granted
        })
    });
    threads
        .into_iter()
        .map(|thread| thread.join().unwrap())
        .fold(Granted::default(), |sum, granted| Granted {
            green: sum.green + granted.green,
            yellow: sum.yellow + granted.yellow,
        })
}

/// What is granted and what is left is what has accrued, to the byte: nothing doubled, nothing lost.
fn assert_conserved(meter: Meter, state: &State, accrued: u64, granted: u64, end: u64) {
    let levels = state.levels(meter, end);
    assert_eq!(
        granted + levels.committed_bytes + levels.second_bytes.unwrap_or(0),
        accrued
    );
}

#[test]
fn fresh_bucket_never_gives_more_than_burst_and_rate() {
    model(|| {
        let meter = Meter::new(Profile::token_bucket(BYTE_PER_NS, 4).unwrap(), false);
        let state = State::new();
        let granted = run(meter, &state, [&[(0, 3)], &[(2, 3)], &[(5, 3)]]);
        assert!(granted.green <= 4 + 5, "{}", granted.green);
        assert!(granted.green >= 3);
    });
}

#[test]
fn refill_is_granted_once() {
    model(|| {
        let meter = Meter::new(Profile::token_bucket(BYTE_PER_NS, 100).unwrap(), false);
        let state = State::new();
        assert_eq!(state.color(meter, 0, 100, 10), Color::Green);
        let granted = run(meter, &state, [&[(13, 2), (15, 2)], &[(12, 2), (16, 3)]]);
        assert_conserved(meter, &state, 6, granted.green, 16);
    });
}

#[test]
fn single_rate_overflow_is_neither_lost_nor_doubled() {
    model(|| {
        let meter = Meter::new(Profile::sr_tcm(BYTE_PER_NS, 1, 100).unwrap(), false);
        let state = State::new();
        assert_eq!(state.color(meter, 0, 1, 10), Color::Green);
        assert_eq!(state.color(meter, 0, 100, 10), Color::Yellow);
        let granted = run(meter, &state, [&[(13, 2), (16, 1)], &[(14, 1), (18, 3)]]);
        assert_conserved(meter, &state, 8, granted.green + granted.yellow, 18);
        assert!(granted.green <= 2);
    });
}

#[test]
fn single_rate_oversize_packets_anchor_a_fresh_bucket() {
    model(|| {
        let meter = Meter::new(Profile::sr_tcm(BYTE_PER_NS, 1, 8).unwrap(), false);
        let state = State::new();
        let granted = run(meter, &state, [&[(10, 6), (15, 5)], &[(12, 4)]]);
        let levels = state.levels(meter, 15);
        assert_eq!((granted.green, levels.committed_bytes), (0, 1));
        assert!(granted.yellow + levels.second_bytes.unwrap() <= 8 + 5);
        assert!(granted.yellow >= 6);
    });
}

#[test]
fn two_rates_pay_the_peak_for_green_and_yellow() {
    model(|| {
        let meter = Meter::new(Profile::tr_tcm(BYTE_PER_NS, 50, BYTE_PER_NS, 100).unwrap(), false);
        let state = State::new();
        assert_eq!(state.color(meter, 0, 50, 10), Color::Green);
        assert_eq!(state.color(meter, 0, 50, 10), Color::Yellow);
        let granted = run(meter, &state, [&[(13, 2), (16, 2)], &[(15, 3)]]);
        let levels = state.levels(meter, 16);
        assert_eq!(levels.committed_bytes + granted.green, 6);
        assert_eq!(levels.second_bytes.unwrap() + granted.green + granted.yellow, 6);
    });
}

#[test]
fn two_independent_rates_pay_once() {
    model(|| {
        let meter = Meter::new(Profile::tr_tcm_4115(BYTE_PER_NS, 50, BYTE_PER_NS, 50).unwrap(), false);
        let state = State::new();
        assert_eq!(state.color(meter, 0, 50, 10), Color::Green);
        assert_eq!(state.color(meter, 0, 50, 10), Color::Yellow);
        let granted = run(meter, &state, [&[(13, 2), (16, 3)], &[(15, 3)]]);
        assert_conserved(meter, &state, 12, granted.green + granted.yellow, 16);
        assert!(granted.green <= 6 && granted.yellow <= 6);
    });
}

/// Three workers pay from credits of 2 bytes each, and borrow again: nothing is granted twice, nothing is lost.
#[test]
fn credits_are_lent_and_spent_once() {
    model(|| {
        let meter = Meter::new(Profile::token_bucket(BYTE_PER_NS, LENDING).unwrap(), false);
        let state = State::new();
        assert_eq!(state.color(meter, 0, 2, 10), Color::Green);
        assert_eq!(state.color(meter, 0, UNLENT, 10), Color::Green);
        // Left: the credits of 1, 2 and 3, of 2 bytes each.
        let granted = run(meter, &state, [&[(12, 1), (14, 2)], &[(11, 2), (15, 3)], &[(13, 3)]]);
        assert_conserved(meter, &state, 6 + 5, granted.green, 15);
    });
}

/// The control thread fills the buckets of a contract that comes back while workers still spend: at most a second burst.
#[test]
fn refilling_beside_spenders_is_one_burst_more() {
    model(|| {
        let meter = Meter::new(Profile::token_bucket(BYTE_PER_NS, 100).unwrap(), false);
        let state = State::new();
        assert_eq!(state.color(meter, 0, 100, 10), Color::Green);
        let refill = {
            let state = Arc::clone(&state);
            thread::spawn(move || {
                meter.refill_shared(state.buckets.among(WORKERS), state.purses.iter());
            })
        };
        let granted = run(meter, &state, [&[(12, 50), (14, 50)], &[(13, 60)]]);
        refill.join().unwrap();
        let left = state.levels(meter, 14).committed_bytes;
        assert!(granted.green + left <= 100 + 4, "{} and {left}", granted.green);
    });
}

/// A reload to a smaller burst: who still runs the old meter and who runs the new one together keep within the old
/// entitlement, and what is left fits the new one.
#[test]
fn two_generations_of_a_meter_share_their_tokens() {
    model(|| {
        let old = Meter::new(Profile::token_bucket(BYTE_PER_NS, LENDING).unwrap(), false);
        let new = Meter::new(Profile::token_bucket(BYTE_PER_NS, 100).unwrap(), false);
        let state = State::new();
        assert_eq!(state.color(old, 0, UNLENT, 10), Color::Green);
        let late = {
            let state = Arc::clone(&state);
            thread::spawn(move || {
                let first = state.color(old, 1, 2, 12) == Color::Green;
                let second = state.color(old, 1, 3, 14) == Color::Green;
                u64::from(first) * 2 + u64::from(second) * 3
            })
        };
        let granted = run(new, &state, [&[(13, 2), (15, 2)]]);
        let late = late.join().unwrap();
        // The credits lent before, and what accrued since.
        assert!(granted.green + late <= 2 * WORKERS as u64 + 5);
        assert!(state.levels(new, 15).committed_bytes <= 100);
    });
}

/// The same for the purse of an only worker: a store that is half done fills it once, not twice.
#[test]
fn refilling_an_only_workers_purse_is_one_burst_more() {
    model(|| {
        let meter = Meter::new(Profile::token_bucket(BYTE_PER_NS, 100).unwrap(), false);
        let purse = Arc::new(Purse::new());
        assert_eq!(meter.color(&purse, 100, Nanos(10), Color::Green), Color::Green);
        let refill = {
            let purse = Arc::clone(&purse);
            thread::spawn(move || meter.refill(&purse))
        };
        let green = [11, 12, 13, 14]
            .iter()
            .filter(|&&now| meter.color(&purse, 60, Nanos(now), Color::Green) == Color::Green)
            .count() as u64;
        refill.join().unwrap();
        let left = meter.levels(&purse, Nanos(14)).committed_bytes;
        assert!(60 * green + left <= 100 + 4, "{green} and {left}");
    });
}

/// A bucket that lends, filled by the control thread while one worker spends credit and another borrows: what was left, a
/// burst, and the rate.
#[test]
fn refilling_beside_borrowers_is_one_burst_more() {
    model(|| {
        let meter = Meter::new(Profile::token_bucket(BYTE_PER_NS, LENDING).unwrap(), false);
        let state = State::new();
        assert_eq!(state.color(meter, 0, UNLENT, 10), Color::Green);
        let refill = {
            let state = Arc::clone(&state);
            thread::spawn(move || meter.refill_shared(state.buckets.among(WORKERS), state.purses.iter()))
        };
        let granted = run(meter, &state, [&[(11, 2), (12, UNLENT)], &[(13, 3)]]);
        refill.join().unwrap();
        let left = state.levels(meter, 13).committed_bytes;
        let before = 2 * WORKERS as u64;
        assert!(granted.green + left <= before + LENDING + 3, "{granted:?} and {left}");
    });
}

/// Two readers see at most the burst and at least nothing, while a worker moves tokens from the bucket to its credit and
/// another fills the bucket.
#[test]
fn readers_of_levels_never_see_more_than_the_burst() {
    model(|| {
        let meter = Meter::new(Profile::sr_tcm(BYTE_PER_NS, LENDING, LENDING).unwrap(), false);
        let state = State::new();
        assert_eq!(state.color(meter, 0, 3, 10), Color::Green);
        let readers = [14, 11].map(|now| {
            let state = Arc::clone(&state);
            thread::spawn(move || {
                let levels = state.levels(meter, now);
                assert!(levels.committed_bytes <= LENDING && levels.second_bytes.unwrap() <= LENDING);
            })
        });
        for (now, bytes) in [(12, 3), (20, 5)] {
            assert_eq!(state.color(meter, 1, bytes, now), Color::Green);
        }
        readers.into_iter().for_each(|reader| reader.join().unwrap());
    });
}

/// A reload to a larger burst, which lends more: a late worker borrows by the old meter, another by the new one.
#[test]
fn two_generations_lend_no_more_than_there_is() {
    model(|| {
        let old = Meter::new(Profile::token_bucket(BYTE_PER_NS, LENDING).unwrap(), false);
        let new = Meter::new(Profile::token_bucket(BYTE_PER_NS, 2 * LENDING).unwrap(), false);
        let state = State::new();
        old.refill_shared(state.buckets.among(WORKERS), state.purses.iter());
        assert_eq!(state.color(old, 0, UNLENT, 10), Color::Green);
        let late = {
            let state = Arc::clone(&state);
            thread::spawn(move || {
                let packets = [(12, 3), (14, 2)];
                let green = packets.map(|(now, bytes)| match state.color(old, 1, bytes, now) {
                    Color::Green => u64::from(bytes),
                    Color::Yellow | Color::Red => 0,
                });
                green.iter().sum::<u64>()
            })
        };
        let granted = run(new, &state, [&[(13, 2), (15, 4)]]);
        let late = late.join().unwrap();
        let left = state.levels(new, 15).committed_bytes;
        assert_eq!(granted.green + late + left, 2 * WORKERS as u64 + 5);
    });
}

/// RFC 2697 with credits in both buckets, and an overflow that either worker may have to hand over: to the byte.
#[test]
fn single_rate_credits_and_overflow_stay_within_both_bursts() {
    model(|| {
        let meter = Meter::new(Profile::sr_tcm(BYTE_PER_NS, LENDING, LENDING).unwrap(), false);
        let state = State::new();
        // From 10 on C has to fill all that is not lent; so has E, from what then runs over.
        assert_eq!(state.color(meter, 0, 3, 10), Color::Green);
        assert_eq!(state.color(meter, 3, UNLENT - 1, 10), Color::Green);
        assert_eq!(state.color(meter, 3, UNLENT, 10), Color::Yellow);
        let begun = u64::from(3 + UNLENT - 1 + UNLENT);
        let granted = run(meter, &state, [&[(12, 4), (9_300, 3)], &[(9_300, 2), (9_301, 4)]]);
        let levels = state.levels(meter, 9_301);
        let total = begun + granted.green + granted.yellow + levels.committed_bytes + levels.second_bytes.unwrap();
        assert_eq!(total, 2 * LENDING + 9_291, "{granted:?} and {levels:?}");
    });
}

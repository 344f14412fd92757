//! Every interleaving of a few workers on one meter's buckets, at instants that need not be in order.
//!
//! `RUSTFLAGS="--cfg loom" cargo test -p weir-dataplane --release --lib loom`

use super::*;
use loom::sync::Arc;
use loom::thread;

/// A rate of one byte per nanosecond, so that bytes and nanoseconds can be compared by eye.
const BYTE_PER_NS: u64 = 8_000_000_000;

/// Green and yellow bytes.
#[derive(Clone, Copy, Default)]
struct Granted {
    green: u64,
    yellow: u64,
}

/// Runs one thread per list of `(now, bytes)` on `buckets`.
fn run<const N: usize>(meter: Meter, buckets: &Arc<Buckets>, threads: [&'static [(u64, u32)]; N]) -> Granted {
    let threads = threads.map(|packets| {
        let buckets = Arc::clone(buckets);
        thread::spawn(move || {
            let mut granted = Granted::default();
            for &(now, bytes) in packets {
                match meter.color(&buckets, bytes, Nanos(now), Color::Green) {
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
fn assert_conserved(meter: Meter, buckets: &Buckets, accrued: u64, granted: u64, end: u64) {
    let levels = meter.levels(buckets, Nanos(end));
    assert_eq!(
        granted + levels.committed_bytes + levels.second_bytes.unwrap_or(0),
        accrued
    );
}

#[test]
fn fresh_bucket_never_gives_more_than_burst_and_rate() {
    loom::model(|| {
        let meter = Meter::new(Profile::token_bucket(BYTE_PER_NS, 4).unwrap(), false);
        let buckets = Arc::new(Buckets::new());
        let granted = run(meter, &buckets, [&[(0, 3)], &[(2, 3)], &[(5, 3)]]);
        assert!(granted.green <= 4 + 5, "{}", granted.green);
        assert!(granted.green >= 3);
    });
}

#[test]
fn refill_is_granted_once() {
    loom::model(|| {
        let meter = Meter::new(Profile::token_bucket(BYTE_PER_NS, 100).unwrap(), false);
        let buckets = Arc::new(Buckets::new());
        assert_eq!(meter.color(&buckets, 100, Nanos(10), Color::Green), Color::Green);
        let granted = run(meter, &buckets, [&[(13, 2), (15, 2)], &[(12, 2), (16, 3)]]);
        assert_conserved(meter, &buckets, 6, granted.green, 16);
    });
}

#[test]
fn single_rate_overflow_is_neither_lost_nor_doubled() {
    loom::model(|| {
        let meter = Meter::new(Profile::sr_tcm(BYTE_PER_NS, 1, 100).unwrap(), false);
        let buckets = Arc::new(Buckets::new());
        assert_eq!(meter.color(&buckets, 1, Nanos(10), Color::Green), Color::Green);
        assert_eq!(meter.color(&buckets, 100, Nanos(10), Color::Green), Color::Yellow);
        let granted = run(meter, &buckets, [&[(13, 2), (16, 1)], &[(14, 1), (18, 3)]]);
        assert_conserved(meter, &buckets, 8, granted.green + granted.yellow, 18);
        assert!(granted.green <= 2);
    });
}

#[test]
fn single_rate_oversize_packets_anchor_a_fresh_bucket() {
    loom::model(|| {
        let meter = Meter::new(Profile::sr_tcm(BYTE_PER_NS, 1, 8).unwrap(), false);
        let buckets = Arc::new(Buckets::new());
        let granted = run(meter, &buckets, [&[(10, 6), (15, 5)], &[(12, 4)]]);
        let levels = meter.levels(&buckets, Nanos(15));
        assert_eq!((granted.green, levels.committed_bytes), (0, 1));
        assert!(granted.yellow + levels.second_bytes.unwrap() <= 8 + 5);
        assert!(granted.yellow >= 6);
    });
}

#[test]
fn two_rates_pay_the_peak_for_green_and_yellow() {
    loom::model(|| {
        let meter = Meter::new(Profile::tr_tcm(BYTE_PER_NS, 50, BYTE_PER_NS, 100).unwrap(), false);
        let buckets = Arc::new(Buckets::new());
        assert_eq!(meter.color(&buckets, 50, Nanos(10), Color::Green), Color::Green);
        assert_eq!(meter.color(&buckets, 50, Nanos(10), Color::Green), Color::Yellow);
        let granted = run(meter, &buckets, [&[(13, 2), (16, 2)], &[(15, 3)]]);
        let levels = meter.levels(&buckets, Nanos(16));
        assert_eq!(levels.committed_bytes + granted.green, 6);
        assert_eq!(levels.second_bytes.unwrap() + granted.green + granted.yellow, 6);
    });
}

#[test]
fn two_independent_rates_pay_once() {
    loom::model(|| {
        let meter = Meter::new(Profile::tr_tcm_4115(BYTE_PER_NS, 50, BYTE_PER_NS, 50).unwrap(), false);
        let buckets = Arc::new(Buckets::new());
        assert_eq!(meter.color(&buckets, 50, Nanos(10), Color::Green), Color::Green);
        assert_eq!(meter.color(&buckets, 50, Nanos(10), Color::Green), Color::Yellow);
        let granted = run(meter, &buckets, [&[(13, 2), (16, 3)], &[(15, 3)]]);
        assert_conserved(meter, &buckets, 12, granted.green + granted.yellow, 16);
        assert!(granted.green <= 6 && granted.yellow <= 6);
    });
}

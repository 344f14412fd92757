//! The histogram of sojourns against an exact sort of the same waits, and gauges read while their worker writes.

use dataplane::clock::Nanos;
use dataplane::priority::{Half, RingId};
use dataplane::sojourn::{BUCKETS, PathGauges, Waits, bucket, lower_edge_ns, upper_edge_ns};
use proptest::prelude::*;

/// Waits of every size: as many below a microsecond as around a second.
fn wait() -> impl Strategy<Value = u64> {
    (0_u32..36, any::<u64>()).prop_map(|(log2, random)| random & ((1 << log2) - 1) | (1 << log2) >> 1)
}

proptest! {
    /// The bucket of a percentile is the bucket of the wait that an exact sort has at that rank, and its upper edge is at most
    /// an eighth above it.
    #[test]
    fn percentiles_are_those_of_an_exact_sort(waits in prop::collection::vec(wait(), 1..400), permille in 0_u64..=1000) {
        let mut histogram = Waits::default();
        waits.iter().for_each(|wait| histogram.add(Nanos(*wait)));
        let mut sorted = waits.clone();
        sorted.sort_unstable();
        let rank = (sorted.len() as u64 * permille).div_ceil(1000).max(1) as usize;
        let exact = sorted[rank - 1];
        let found = histogram.percentile(permille).unwrap();
        prop_assert_eq!(found, bucket(Nanos(exact)));
        if let Some(upper) = upper_edge_ns(found) {
            prop_assert!(lower_edge_ns(found) <= exact && exact < upper);
            prop_assert!(upper - exact <= (exact / 8).max(1_024), "{} is said to be {}", exact, upper);
        }
    }

    /// What was counted since an earlier reading is what came since then, and merging is counting in one.
    #[test]
    fn differences_and_sums(first in prop::collection::vec(wait(), 0..100), second in prop::collection::vec(wait(), 0..100)) {
        let of = |waits: &[u64]| {
            let mut histogram = Waits::default();
            waits.iter().for_each(|wait| histogram.add(Nanos(*wait)));
            histogram
        };
        let mut both = of(&first);
        both.merge(&of(&second));
        prop_assert_eq!(&of(&[first.clone(), second.clone()].concat()), &both);
        prop_assert_eq!(both.since(&of(&first)), of(&second));
        prop_assert_eq!(both.count(), (first.len() + second.len()) as u64);
    }
}

/// A reader of a running worker sees counts that never go back and never more than there are.
#[test]
fn a_reader_sees_nothing_go_back() {
    const TURNS: u64 = 20_000;
    let gauges = PathGauges::default();
    let ring = RingId::new(3).unwrap();
    std::thread::scope(|scope| {
        let writer = scope.spawn(|| {
            let gauge = gauges.of(Half::Nonconforming, ring);
            for turn in 1..=TURNS {
                // Of three packets one waits.
                gauge.waited(Nanos(turn * 1_000));
                gauge.publish(turn % 7, 7, 3 * turn);
            }
        });
        let mut before = [0; BUCKETS];
        loop {
            let is_last = writer.is_finished();
            let now = gauges.of(Half::Nonconforming, ring).read();
            assert!(
                before
                    .iter()
                    .zip(now.waits.buckets())
                    .all(|(before, now)| before <= now)
            );
            assert!(now.waits.count() <= 3 * TURNS && now.held < 7);
            before = *now.waits.buckets();
            if is_last {
                assert_eq!((now.waits.count(), now.max_ns), (3 * TURNS, TURNS * 1_000));
                break;
            }
        }
    });
    let other = gauges.of(Half::Conforming, ring);
    assert!(!other.is_used() && other.read().waits.count() == 0);
}

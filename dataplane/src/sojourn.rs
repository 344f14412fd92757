//! How long packets waited in their priority rings, and how full the rings were: what others may read of them.
//!
//! Owns one [`RingGauge`] for each ring of a path. The worker of the path is the only writer, with plain relaxed stores into
//! lines of its own; anybody may read at any time and disturbs the worker by no more than the cache lines it then has to
//! fetch back. Nothing is allocated or locked after the start.
//!
//! What it costs: a packet that leaves in the turn it came in touches nothing here, because the ring's own count of
//! departures, which moves once for all packets taken together, less those that waited, says how many did not wait.
//! A packet that waited takes three loads and two stores more.
//!
//! # Exactness
//! The sojourn is the time from the turn that admitted the packet to the turn that handed it to the sending port: the clock
//! is read once a turn, so it is right to the length of a turn, and 0 for whoever did not wait for a later turn. Buckets
//! are log-linear: eight for each power of two from 1,024 ns to 17 s. A bucket is at most an eighth of its lower edge wide, so a
//! percentile read as the bucket's upper edge is at most 12.5 % too large and never too small. Below 1,024 ns all waits share
//! the first bucket, from 17.2 s on the last. The greatest wait since the start is kept exactly.

use std::sync::atomic::{AtomicU64, Ordering};

use crate::clock::Nanos;
use crate::priority::{Half, MAX_CLASSES, RingId};

/// Smallest wait that has a bucket of its own kind: a turn takes about as long, so less would tell apart what is the same.
const FIRST_NS: u64 = 1 << FIRST_LOG2;
const FIRST_LOG2: u32 = 10;
/// Waits from here on share a bucket: a ring of 1,024 packets of 1,500 bytes empties within it from 0.7 Mbit/s on.
const LAST_LOG2: u32 = 34;
/// Buckets for each power of two, as a power of two: 12.5 % of error. Four would double it, sixteen would double the memory.
const STEPS_LOG2: u32 = 3;
const STEPS: usize = 1 << STEPS_LOG2;

/// Buckets of a histogram.
pub const BUCKETS: usize = 2 + STEPS * (LAST_LOG2 - FIRST_LOG2) as usize;

/// The bucket of a wait.
#[inline]
#[must_use]
pub fn bucket(wait: Nanos) -> usize {
    let ns = wait.0;
    if ns < FIRST_NS {
        return 0;
    }
    let log2 = ns.ilog2();
    if log2 >= LAST_LOG2 {
        return BUCKETS - 1;
    }
    let step = (ns >> (log2 - STEPS_LOG2)) as usize & (STEPS - 1);
    1 + (log2 - FIRST_LOG2) as usize * STEPS + step
}

/// The least wait that a bucket holds, in nanoseconds.
#[must_use]
pub fn lower_edge_ns(bucket: usize) -> u64 {
    let Some(above) = bucket.checked_sub(1) else { return 0 };
    let log2 = FIRST_LOG2 + (above / STEPS).min((LAST_LOG2 - FIRST_LOG2) as usize) as u32;
    (1 << log2) + (((above % STEPS) as u64) << (log2 - STEPS_LOG2))
}

/// The first wait above a bucket; `None`: the last bucket has no upper edge.
#[must_use]
pub fn upper_edge_ns(bucket: usize) -> Option<u64> {
    (bucket + 1 < BUCKETS).then(|| lower_edge_ns(bucket + 1))
}

/// What is known of one ring, for others to read. 194 buckets and five words, 1.6 KB, in lines of its own.
#[derive(Debug)]
#[repr(align(128))]
pub struct RingGauge {
    held: AtomicU64,
    high_watermark: AtomicU64,
    /// Sent in the turn they came in.
    at_once: AtomicU64,
    /// Left after waiting, sent or dropped by CoDel.
    waited: AtomicU64,
    max_ns: AtomicU64,
    waits: [AtomicU64; BUCKETS],
}

impl Default for RingGauge {
    fn default() -> Self {
        Self {
            held: AtomicU64::new(0),
            high_watermark: AtomicU64::new(0),
            at_once: AtomicU64::new(0),
            waited: AtomicU64::new(0),
            max_ns: AtomicU64::new(0),
            waits: std::array::from_fn(|_| AtomicU64::new(0)),
        }
    }
}

impl RingGauge {
    /// Counts a packet that leaves after it has waited. Only the owning worker may call this.
    #[inline]
    pub fn waited(&self, wait: Nanos) {
        add(&self.waits[bucket(wait)]);
        add(&self.waited);
        if wait.0 > self.max_ns.load(Ordering::Relaxed) {
            self.max_ns.store(wait.0, Ordering::Relaxed);
        }
    }

    /// Counts a packet that CoDel dropped, which only ever meets one that has waited. It is in no bucket. Only the owning
    /// worker may call this.
    pub fn dropped(&self) {
        add(&self.waited);
    }

    /// Publishes what the ring itself counts; `departed` packets were ever taken out of it. Only the owning worker may call
    /// this.
    #[inline]
    pub fn publish(&self, held: u64, high_watermark: u64, departed: u64) {
        self.held.store(held, Ordering::Relaxed);
        self.high_watermark.store(high_watermark, Ordering::Relaxed);
        let at_once = departed.saturating_sub(self.waited.load(Ordering::Relaxed));
        self.at_once.store(at_once, Ordering::Relaxed);
    }

    /// Whether the ring has ever held anything.
    #[must_use]
    pub fn is_used(&self) -> bool {
        self.high_watermark.load(Ordering::Relaxed) > 0
    }

    /// Reads. While the worker runs, the figures may be a turn apart; none of them ever goes back, but for `held`.
    #[must_use]
    pub fn read(&self) -> RingReading {
        let mut waits = Waits::default();
        for (count, shared) in waits.0.iter_mut().zip(&self.waits) {
            *count = shared.load(Ordering::Relaxed);
        }
        waits.0[0] += self.at_once.load(Ordering::Relaxed);
        RingReading {
            held: self.held.load(Ordering::Relaxed),
            high_watermark: self.high_watermark.load(Ordering::Relaxed),
            max_ns: self.max_ns.load(Ordering::Relaxed),
            waits,
        }
    }
}

/// What was read of one ring, or of several together.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RingReading {
    /// Packets that wait.
    pub held: u64,
    /// The most that ever waited; of several rings the most in any one of them.
    pub high_watermark: u64,
    /// The longest wait since the start, exactly.
    pub max_ns: u64,
    /// All waits since the start.
    pub waits: Waits,
}

impl RingReading {
    /// Adds another ring.
    pub fn merge(&mut self, other: &RingReading) {
        self.held += other.held;
        self.high_watermark = self.high_watermark.max(other.high_watermark);
        self.max_ns = self.max_ns.max(other.max_ns);
        self.waits.merge(&other.waits);
    }
}

/// Packets by how long they waited.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Waits([u64; BUCKETS]);

impl Default for Waits {
    fn default() -> Self {
        Self([0; BUCKETS])
    }
}

impl Waits {
    /// Counts one.
    pub fn add(&mut self, wait: Nanos) {
        self.0[bucket(wait)] += 1;
    }

    /// Packets in all.
    #[must_use]
    pub fn count(&self) -> u64 {
        self.0.iter().sum()
    }

    /// Packets in each bucket.
    #[must_use]
    pub fn buckets(&self) -> &[u64; BUCKETS] {
        &self.0
    }

    /// Adds those of another.
    pub fn merge(&mut self, other: &Waits) {
        for (count, more) in self.0.iter_mut().zip(&other.0) {
            *count += more;
        }
    }

    /// Those that came since `before` was read.
    #[must_use]
    pub fn since(&self, before: &Waits) -> Waits {
        Waits(std::array::from_fn(|n| self.0[n].saturating_sub(before.0[n])))
    }

    /// The bucket of the packet below which (itself included) `permille` of 1000 parts lie; `None`: there is none.
    /// The rank is rounded up, so of ten packets the 99th percentile is the last.
    #[must_use]
    pub fn percentile(&self, permille: u64) -> Option<usize> {
        let count = self.count();
        let rank = u128::from(count) * u128::from(permille.min(1000));
        let rank = u64::try_from(rank.div_ceil(1000)).unwrap_or(count).max(1);
        let mut below = 0;
        self.0.iter().position(|in_bucket| {
            below += in_bucket;
            below >= rank
        })
    }
}

/// The gauges of all rings of a path.
#[derive(Debug)]
pub struct PathGauges(Box<[[RingGauge; MAX_CLASSES]; 2]>);

impl Default for PathGauges {
    fn default() -> Self {
        Self(Box::new(std::array::from_fn(|_| {
            std::array::from_fn(|_| RingGauge::default())
        })))
    }
}

impl PathGauges {
    /// That of one ring.
    #[inline]
    #[must_use]
    pub fn of(&self, half: Half, ring: RingId) -> &RingGauge {
        &self.0[half as usize][ring.index()]
    }
}

/// One writer: a load and a store.
#[inline]
fn add(counter: &AtomicU64) {
    counter.store(counter.load(Ordering::Relaxed) + 1, Ordering::Relaxed);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn edges_meet_and_hold_their_own() {
        assert_eq!((lower_edge_ns(0), upper_edge_ns(0)), (0, Some(1_024)));
        for at in 0..BUCKETS {
            let lower = lower_edge_ns(at);
            assert_eq!(bucket(Nanos(lower)), at, "the lower edge of {at}");
            let Some(upper) = upper_edge_ns(at) else { continue };
            assert_eq!(bucket(Nanos(upper - 1)), at, "below the upper edge of {at}");
            assert_eq!(bucket(Nanos(upper)), at + 1, "the upper edge of {at}");
            assert!(at == 0 || (upper - lower) * 8 <= lower, "bucket {at}: {lower}..{upper}");
        }
        assert_eq!(bucket(Nanos(u64::MAX)), BUCKETS - 1);
        assert_eq!(lower_edge_ns(BUCKETS - 1), 1 << LAST_LOG2);
    }

    #[test]
    fn who_left_without_waiting_is_counted_too() {
        let gauge = RingGauge::default();
        gauge.waited(Nanos(5_000));
        gauge.waited(Nanos(7_000_000));
        gauge.dropped();
        gauge.publish(3, 9, 64);
        let reading = gauge.read();
        assert_eq!(
            (reading.held, reading.high_watermark, reading.max_ns),
            (3, 9, 7_000_000)
        );
        assert_eq!((reading.waits.count(), reading.waits.buckets()[0]), (63, 61));
        assert_eq!(reading.waits.percentile(500), Some(0));
        assert_eq!(reading.waits.percentile(1000), Some(bucket(Nanos(7_000_000))));
        assert_eq!(Waits::default().percentile(990), None);
    }
}

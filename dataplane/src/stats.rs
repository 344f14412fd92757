//! What a worker counts, and how others read it.
//!
//! Two kinds, both written by one worker only, so that counting is a plain load and store and never a locked instruction:
//! - a contract's [`Counter`]s, one set for each worker, read one by one (`cells.rs` keeps them);
//! - [`PathCounters`], the ledger of one queue in one direction, kept in the worker and published between batches through a
//!   [`Published`] block, so that a reader always sees one moment: received = forwarded + dropped + held.

use crate::priority::Half;
use crate::sync::{AtomicU64, Ordering, fence};

/// Why a packet left untransmitted. Each has one counter and one name, the same in JSON, metrics and logs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DropReason {
    /// The contract says `action = "drop"`.
    Policed,
    /// The priority ring was full.
    RingFull,
    /// Red, and the nonconforming ring was more than half full: red goes before yellow.
    RedFirst,
    /// CoDel kept the ring's standing queue short.
    Codel,
    /// Few frames were left, and what is left is for conforming packets.
    FramesLow,
    /// The device or its driver took the packet and dropped it (`EBUSY` from the wake-up).
    Device,
}

impl DropReason {
    /// All reasons, in the order of their counters.
    pub const ALL: [DropReason; 6] = [
        DropReason::Policed,
        DropReason::RingFull,
        DropReason::RedFirst,
        DropReason::Codel,
        DropReason::FramesLow,
        DropReason::Device,
    ];

    /// The name in JSON, metrics and logs.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            DropReason::Policed => "policed",
            DropReason::RingFull => "ring_full",
            DropReason::RedFirst => "red_first",
            DropReason::Codel => "codel",
            DropReason::FramesLow => "frames_low",
            DropReason::Device => "device",
        }
    }
}

/// Packets and their bytes. Bytes of contracts are those of the counted layer, bytes of the ledger are frame bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Amount {
    /// Packets.
    pub packets: u64,
    /// Bytes.
    pub bytes: u64,
}

impl Amount {
    /// One packet of `bytes` bytes.
    #[inline]
    #[must_use]
    pub fn one(bytes: u32) -> Self {
        Self {
            packets: 1,
            bytes: u64::from(bytes),
        }
    }
}

impl std::ops::AddAssign for Amount {
    #[inline]
    fn add_assign(&mut self, more: Amount) {
        self.packets += more.packets;
        self.bytes += more.bytes;
    }
}

impl std::ops::Add for Amount {
    type Output = Amount;
    fn add(mut self, more: Amount) -> Amount {
        self += more;
        self
    }
}

impl std::iter::Sum for Amount {
    fn sum<I: Iterator<Item = Amount>>(amounts: I) -> Amount {
        amounts.fold(Amount::default(), |sum, amount| sum + amount)
    }
}

/// An [`Amount`] with one writer and any number of readers.
#[derive(Debug, Default)]
pub struct Counter {
    packets: AtomicU64,
    bytes: AtomicU64,
}

impl Counter {
    /// Adds. Only the owning worker may call this: two writers would lose counts (not memory safety).
    #[inline]
    pub fn add(&self, amount: Amount) {
        self.packets
            .store(self.packets.load(Ordering::Relaxed) + amount.packets, Ordering::Relaxed);
        self.bytes
            .store(self.bytes.load(Ordering::Relaxed) + amount.bytes, Ordering::Relaxed);
    }

    /// Reads; packets and bytes may be one packet apart while the worker runs.
    #[must_use]
    pub fn get(&self) -> Amount {
        Amount {
            packets: self.packets.load(Ordering::Relaxed),
            bytes: self.bytes.load(Ordering::Relaxed),
        }
    }
}

/// What one worker did with the packets of one contract that did not just pass: two cache lines.
#[derive(Debug, Default)]
#[repr(C, align(64))]
pub struct ExcessCounters {
    /// Those whose DSCP or PCP was changed.
    pub remarked: Counter,
    /// Conforming packets among the dropped.
    pub conforming_dropped: Counter,
    dropped: [Counter; DropReason::ALL.len()],
}

#[cfg(not(loom))]
const _: () = assert!(size_of::<ExcessCounters>() == 128);

impl ExcessCounters {
    /// Counts a drop of a packet that was judged into `half`. Only the owning worker may call this.
    pub fn drop(&self, reason: DropReason, half: Half, amount: Amount) {
        self.dropped[reason as usize].add(amount);
        if half == Half::Conforming {
            self.conforming_dropped.add(amount);
        }
    }

    /// The counter of packets of this contract dropped for `reason`.
    #[inline]
    #[must_use]
    pub fn dropped(&self, reason: DropReason) -> &Counter {
        &self.dropped[reason as usize]
    }
}

/// The ledger of one path (one queue, one direction), counted in frame bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PathCounters {
    /// Taken from the receiving port.
    pub received: Amount,
    /// Given to the sending port and not dropped by it.
    pub forwarded: Amount,
    /// Dropped, by reason.
    pub dropped: [Amount; DropReason::ALL.len()],
    /// Waiting in priority rings, as the rings themselves count.
    pub held: Amount,
    /// CE marks set instead of drops. Those packets are forwarded, so this is not a term of the sum.
    pub ce_marked: Amount,
    /// Received, but not IP.
    pub other: Amount,
    /// Answers to wake-ups of the sending port, in the order of [`KICKS`].
    pub kicks: [u64; KICKS.len()],
}

/// What a wake-up for sending can come to, by the names used in `weir status`.
pub const KICKS: [&str; 7] = [
    "sent",
    "not_needed",
    "again",
    "dropped",
    "no_buffers",
    "network_down",
    "other",
];

impl PathCounters {
    /// Counts a drop.
    #[inline]
    pub fn drop(&mut self, reason: DropReason, bytes: u32) {
        self.dropped[reason as usize] += Amount::one(bytes);
    }

    /// Received minus where everything went; zero unless weir has lost count.
    #[must_use]
    pub fn unaccounted(&self) -> i64 {
        let gone: Amount = self.dropped.iter().copied().sum();
        let known = self.forwarded.packets + gone.packets + self.held.packets;
        self.received.packets.wrapping_sub(known) as i64
    }
}

const AMOUNTS: usize = 5 + DropReason::ALL.len();
const WORDS: usize = 2 * AMOUNTS + KICKS.len();

impl PathCounters {
    fn words(&self) -> [u64; WORDS] {
        let mut words = [0; WORDS];
        for (pair, amount) in words.chunks_exact_mut(2).zip(self.amounts()) {
            pair.copy_from_slice(&[amount.packets, amount.bytes]);
        }
        words[2 * AMOUNTS..].copy_from_slice(&self.kicks);
        words
    }

    fn from_words(words: &[u64; WORDS]) -> Self {
        let amount = |n: usize| Amount {
            packets: words[2 * n],
            bytes: words[2 * n + 1],
        };
        Self {
            received: amount(0),
            forwarded: amount(1),
            held: amount(2),
            ce_marked: amount(3),
            other: amount(4),
            dropped: std::array::from_fn(|reason| amount(5 + reason)),
            kicks: std::array::from_fn(|kick| words[2 * AMOUNTS + kick]),
        }
    }

    fn amounts(&self) -> [Amount; AMOUNTS] {
        let [policed, full, red, codel, low, device] = self.dropped;
        [
            self.received,
            self.forwarded,
            self.held,
            self.ce_marked,
            self.other,
            policed,
            full,
            red,
            codel,
            low,
            device,
        ]
    }
}

/// A block of counters that one worker publishes and others read as of one moment: a sequence lock.
///
/// The worker never waits: it makes the sequence odd, stores the words, and makes it even again. A reader takes the words
/// between two equal even readings, and tries again otherwise; it can be kept trying only by a worker that publishes
/// without pause, which takes a batch each time.
#[derive(Debug, Default)]
#[repr(align(128))]
pub struct Published(Sequenced<WORDS>);

impl Published {
    /// Publishes. Only the owning worker may call this.
    pub fn publish(&self, counters: &PathCounters) {
        self.0.store(&counters.words());
    }

    /// One attempt to read; `None` when the worker was publishing meanwhile.
    #[must_use]
    pub fn try_read(&self) -> Option<PathCounters> {
        self.0.load().map(|words| PathCounters::from_words(&words))
    }

    /// Reads, trying until an attempt succeeds.
    #[must_use]
    pub fn read(&self) -> PathCounters {
        loop {
            if let Some(counters) = self.try_read() {
                return counters;
            }
            std::hint::spin_loop();
        }
    }
}

/// The sequence lock itself, over any number of words.
#[derive(Debug)]
struct Sequenced<const N: usize> {
    sequence: AtomicU64,
    words: [AtomicU64; N],
}

impl<const N: usize> Default for Sequenced<N> {
    fn default() -> Self {
        Self {
            sequence: AtomicU64::new(0),
            words: std::array::from_fn(|_| AtomicU64::new(0)),
        }
    }
}

impl<const N: usize> Sequenced<N> {
    fn store(&self, values: &[u64; N]) {
        let sequence = self.sequence.load(Ordering::Relaxed);
        self.sequence.store(sequence.wrapping_add(1), Ordering::Relaxed);
        // The words must not be seen before the odd sequence: a release fence orders the store above before the stores
        // below for a reader that sees any of them and then passes its acquire fence.
        fence(Ordering::Release);
        for (word, &value) in self.words.iter().zip(values) {
            word.store(value, Ordering::Relaxed);
        }
        self.sequence.store(sequence.wrapping_add(2), Ordering::Release);
    }

    fn load(&self) -> Option<[u64; N]> {
        let before = self.sequence.load(Ordering::Acquire);
        if before % 2 == 1 {
            return None;
        }
        let values = std::array::from_fn(|n| self.words[n].load(Ordering::Relaxed));
        fence(Ordering::Acquire);
        let after = self.sequence.load(Ordering::Relaxed);
        (before == after).then_some(values)
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    fn sample(n: u64) -> PathCounters {
        let amount = |k: u64| Amount {
            packets: k * n,
            bytes: 64 * k * n,
        };
        PathCounters {
            received: amount(10),
            forwarded: amount(3),
            dropped: [amount(1); 6],
            held: amount(1),
            ce_marked: amount(2),
            other: amount(5),
            kicks: [n; KICKS.len()],
        }
    }

    #[test]
    fn what_is_published_is_read_back() {
        let published = Published::default();
        assert_eq!(published.read(), PathCounters::default());
        published.publish(&sample(7));
        assert_eq!(published.read(), sample(7));
    }

    #[test]
    fn the_ledger_sees_a_lost_packet() {
        let mut counters = sample(4);
        assert_eq!(counters.unaccounted(), 0);
        counters.received.packets += 1;
        assert_eq!(counters.unaccounted(), 1);
        counters.forwarded.packets += 2;
        assert_eq!(counters.unaccounted(), -1);
    }

    #[test]
    fn readers_never_see_a_mixture() {
        let published = std::sync::Arc::new(Published::default());
        std::thread::scope(|scope| {
            scope.spawn(|| {
                for n in 1..=20_000 {
                    published.publish(&sample(n));
                }
            });
            for _ in 0..20_000 {
                let seen = published.read();
                assert_eq!(seen, sample(seen.ce_marked.packets / 2));
            }
        });
    }
}

#[cfg(all(test, loom))]
mod loom_tests {
    use super::*;

    /// Two words stand for all of them: what is checked is their order against the sequence.
    #[test]
    fn loom_a_reader_sees_one_publication_whole() {
        loom::model(|| {
            let shared = loom::sync::Arc::new(Sequenced::<2>::default());
            let writer = {
                let shared = shared.clone();
                loom::thread::spawn(move || shared.store(&[1, 1]))
            };
            if let Some([first, second]) = shared.load() {
                assert_eq!(first, second);
            }
            writer.join().unwrap();
            assert_eq!(shared.load(), Some([1, 1]));
        });
    }
}

//! The priority rings of one egress port of one worker, and the order in which they drain.
//!
//! ```text
//! enqueue -> conforming    ring 0..32 -> by priority, then deficit round robin --> gate -> CoDel -> sink
//!            nonconforming ring 0..32 -> the same, when nothing conforming waits --^
//! ```
//! Runs on the worker that owns the port's TX queue. Generic over what waits, so it knows no frame and no port. All
//! memory is taken in [`Rings::new`]. Nothing conforming is ever sent after, or waits for, what is nonconforming.
//!
//! # Deficit round robin among equals
//!
//! A round takes the rings of one priority that wait when it begins, in the order of their slots. It grants each its weight
//! times a *unit* of bytes, the same for all: the power of two with which the heaviest of them gets [`QUANTUM_BYTES`] or
//! more, and less than twice that. A ring is visited until its head has more bytes than its deficit, and keeps the rest.
//! A ring that begins to wait joins the next round; one that no longer waits, or alone does, loses deficit and round.
//!
//! So over any window in which rings i and j both wait, with frames of at most `m` bytes, and without a minimum share:
//!
//! ```text
//! | sent(i) / weight(i) - sent(j) / weight(j) |  <=  unit + (m(i) - 1) / weight(i) + (m(j) - 1) / weight(j)
//! ```
//!
//! Why: a ring has sent what it was granted less its deficit, so the difference between the two over a window is that of
//! how far both were ahead. At the end of a round no deficit pays for a head, so i was then ahead of j by at most
//! `(m(j) - 1) / weight(j)` and at least `-(m(i) - 1) / weight(i)`; between the visits of a round, the one visited first is
//! ahead by at most its grant more, which is a unit. If i or j began to wait in the middle of a round, the other may have
//! the rest of that round first, which is another unit. Shreedhar and Varghese (1995) show the same of rounds that grant
//! the *lightest* ring a frame; then a unit is larger by the ratio of the weights (docs/decisions/0019).
//!
//! # Minimum shares
//!
//! A minimum share earns a waiting ring credit from every byte its half sends, and it pays for what it sends itself,
//! however its turn came. With credit for its head it goes first within its half; the one with the most credit if several
//! have. Credit stays within 0..=[`CREDIT_BYTES_MAX`] and ends with the backlog, so neither an idle nor an overserved
//! ring carries anything over. Over any window in which its half sends `B` bytes and a ring with share `s` waits:
//!
//! ```text
//! sent  >=  s * B - m * (1 + 1/1 + 1/2 + ... + 1/n)        n rings with a share, whose sum is at most 1; m: largest frame
//! ```
//!
//! Why: credit is what the share earned less what was sent, or more, so it is enough that credit stays below that product.
//! While no ring is owed a frame, each has less than `m`, all together gain at most `m` by a frame, and their mean stays
//! below `m + m/n`. While one is owed, the sum does not grow, and the greatest `k` can gain on the others only when one of
//! the others goes, which then had as much as they had on average: their mean is above that of the greatest `k + 1` by at
//! most `m/k`. Up to 12 KB frames the product is below [`CREDIT_BYTES_MAX`] for 32 rings, so the limit takes nothing.
//! When the shares of the rings that wait add to more than 1, a byte costs as much credit as they earn together: each
//! then gets its share divided by that sum, and rings without a share get nothing.
use crate::clock::Nanos;
mod half;
mod order;
mod ring;
use half::{HalfRings, Way};
pub use order::{ClassOrder, Order, QUANTUM_BYTES};

/// Rings in each half.
pub const MAX_CLASSES: usize = 32;
/// Most bytes that a minimum share saves up: one largest IP packet, which must be able to go, and the longest burst that
/// overrides the priorities. Larger frames (there are none) count as this many.
pub const CREDIT_BYTES_MAX: u64 = 65_536;

/// Which rings: all of the conforming drain before any of the nonconforming.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Half {
    /// Within the contract.
    Conforming,
    /// Above the contract, or without one.
    Nonconforming,
}

/// A class's slot, 0 to 31; stable over reloads.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct RingId(u8);

impl RingId {
    /// `None` from [`MAX_CLASSES`] on.
    #[must_use]
    pub fn new(slot: u8) -> Option<Self> {
        (usize::from(slot) < MAX_CLASSES).then_some(Self(slot))
    }

    /// The slot as an index, 0 to 31.
    #[inline]
    #[must_use]
    pub fn index(self) -> usize {
        usize::from(self.0) & (MAX_CLASSES - 1)
    }
}

/// A packet in a ring.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry<T> {
    /// What waits.
    pub item: T,
    /// Counted bytes, in the layer of the port's rate; some 65,600 at most.
    pub bytes: u32,
    /// When it came, for CoDel.
    pub enqueued: Nanos,
    /// Red: refused before yellow.
    pub drop_first: bool,
    /// CoDel marks it instead of dropping it.
    pub ecn_capable: bool,
}

/// Why an entry was not taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refused {
    /// No slot is free.
    RingFull,
    /// Red, and the nonconforming ring is more than half full.
    RedFirst,
}

/// The port's readiness: its shaper and its backlog.
pub trait Gate {
    /// Whether `bytes` may go now. Charges nothing; "no" ends the scheduling.
    fn admits(&mut self, half: Half, bytes: u32) -> bool;
    /// `bytes` just admitted have gone.
    fn sent(&mut self, half: Half, bytes: u32);
}

/// Where entries leave to.
pub trait Sink<T> {
    /// How many entries can be sent now.
    fn room(&self) -> usize;
    /// Takes an entry for transmission.
    fn send(&mut self, half: Half, ring: RingId, entry: Entry<T>);
    /// Sets congestion experienced; `false` if the packet cannot carry it, and it is then dropped.
    fn mark_ce(&mut self, item: &mut T) -> bool;
    /// Takes an entry that CoDel drops.
    fn drop(&mut self, half: Half, ring: RingId, entry: Entry<T>);
}

/// What ended a call of [`Rings::schedule`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stop {
    /// Nothing waits.
    Empty,
    /// The sink has no room.
    NoRoom,
    /// The gate refused the next packet.
    Gate,
}

/// What one call of [`Rings::schedule`] did, in packets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Schedule {
    /// Handed to the sink for transmission, marked ones included.
    pub sent: usize,
    /// Sent with congestion experienced.
    pub marked: usize,
    /// Dropped by CoDel.
    pub dropped: usize,
    /// Why it ended.
    pub stop: Stop,
}

/// All rings of one port and worker.
pub struct Rings<T> {
    halves: [HalfRings<T>; 2],
    capacity: usize,
}

impl<T> Rings<T> {
    /// Rings of `capacity` entries each, rounded up to a power of two within 2..=65536. The only allocation.
    #[must_use]
    pub fn new(capacity: usize) -> Self {
        let capacity = capacity.clamp(2, 65_536).next_power_of_two();
        Self {
            halves: std::array::from_fn(|_| HalfRings::new(capacity)),
            capacity,
        }
    }

    /// Appends to a ring, or gives the entry back with the reason.
    #[inline]
    pub fn enqueue(&mut self, half: Half, ring: RingId, entry: Entry<T>) -> Result<(), (Entry<T>, Refused)> {
        let len = self.halves[half as usize].len(ring.index());
        if entry.drop_first && half == Half::Nonconforming && len > self.capacity / 2 && len < self.capacity {
            return Err((entry, Refused::RedFirst));
        }
        let pushed = self.halves[half as usize].push(ring.index(), entry);
        pushed.map_err(|entry| (entry, Refused::RingFull))
    }

    /// Sends in `order` until nothing waits, the sink is full or the gate refuses. Every step takes one entry out, so it
    /// ends after at most [`Rings::held`] steps.
    #[inline]
    pub fn schedule(&mut self, order: &Order, now: Nanos, gate: &mut impl Gate, sink: &mut impl Sink<T>) -> Schedule {
        let mut way = Way {
            half: Half::Conforming,
            now,
            room: sink.room(),
            gate,
            sink,
            sent: 0,
            marked: 0,
            dropped: 0,
            stop: None,
        };
        for half in [Half::Conforming, Half::Nonconforming] {
            way = self.halves[half as usize].drain(order, Way { half, ..way });
        }
        Schedule {
            sent: way.sent,
            marked: way.marked,
            dropped: way.dropped,
            stop: way.stop.unwrap_or(Stop::Empty),
        }
    }

    /// Takes any entry, most urgent half first, past gate and CoDel: for emptying the rings at the end.
    pub fn take_any(&mut self) -> Option<(Half, RingId, Entry<T>)> {
        let take = |half| {
            let (index, entry) = self.halves[half as usize].take_any()?;
            Some((half, RingId(index as u8), entry))
        };
        [Half::Conforming, Half::Nonconforming].into_iter().find_map(take)
    }

    /// Entries in all rings.
    #[inline]
    #[must_use]
    pub fn held(&self) -> usize {
        self.halves[0].held() + self.halves[1].held()
    }

    /// Entries in one half.
    #[must_use]
    pub fn held_in(&self, half: Half) -> usize {
        self.halves[half as usize].held()
    }

    /// Counted bytes in one half.
    #[must_use]
    pub fn held_bytes(&self, half: Half) -> u64 {
        self.halves[half as usize].bytes()
    }

    /// Entries in one ring.
    #[must_use]
    pub fn len(&self, half: Half, ring: RingId) -> usize {
        self.halves[half as usize].len(ring.index())
    }

    /// Whether nothing waits.
    #[inline]
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.halves.iter().all(HalfRings::is_empty)
    }

    /// The most entries one ring ever held.
    #[must_use]
    pub fn high_watermark(&self, half: Half, ring: RingId) -> usize {
        self.halves[half as usize].high_watermark(ring.index())
    }

    /// Entries ever taken out of one ring, sent or dropped.
    #[must_use]
    pub fn departed(&self, half: Half, ring: RingId) -> u64 {
        self.halves[half as usize].departed(ring.index())
    }

    /// The rings of one half that hold something or that something was taken from since the last call.
    #[inline]
    pub fn take_changed(&mut self, half: Half) -> impl Iterator<Item = RingId> + use<T> {
        half::bits(self.halves[half as usize].take_changed()).map(|index| RingId(index as u8))
    }

    /// Entries that fit into each ring.
    #[must_use]
    pub fn capacity(&self) -> usize {
        self.capacity
    }
}

//! The priority rings of one egress port of one worker, and the order in which they drain.
//!
//! ```text
//! enqueue -> conforming    ring 0..32 -> by priority, then deficit round robin --> gate -> CoDel -> sink
//!            nonconforming ring 0..32 -> the same, when nothing conforming waits --^
//! ```
//! Runs on the worker that owns the port's TX queue. Generic over what waits, so it knows no frame and no port. All
//! memory is taken in [`Rings::new`]. Among backlogged equals, bytes per weight differ over any window by at most one
//! visit ([`QUANTUM_BYTES`] for the lightest) and one frame each (Shreedhar and Varghese, 1995).
//!
//! A minimum share earns a waiting ring credit from every byte its half sends, and it pays for what it sends itself,
//! however its turn came. With credit for its head it goes first within its half. Credit stays within
//! 0..=[`CREDIT_BYTES_MAX`] and ends with the backlog, so neither an idle nor an overserved ring carries anything over.
use crate::clock::Nanos;
use crate::codel::Judgement;
mod order;
mod ring;
pub use order::{ClassOrder, Order, QUANTUM_BYTES};
use ring::Ring;

/// Rings in each half.
pub const MAX_CLASSES: usize = 32;
/// Most bytes that a minimum share saves up: one largest IP packet, the longest burst that overrides the priorities.
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
    /// Counted bytes, in the layer of the port's rate.
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

struct HalfRings<T> {
    rings: [Ring<T>; MAX_CLASSES],
    occupied: u32,
    /// Rings whose visit has been granted its quantum.
    visited: u32,
    /// The ring whose turn it is, per level of the order. A stale one after a new order only moves the round's start.
    turn: [u8; MAX_CLASSES + 1],
    held: usize,
    bytes: u64,
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
        let capacity = self.capacity;
        let rings = &mut self.halves[half as usize];
        let into = &mut rings.rings[ring.index()];
        let crowded = into.len() > capacity / 2 && into.len() < capacity;
        if entry.drop_first && crowded && half == Half::Nonconforming {
            return Err((entry, Refused::RedFirst));
        }
        let bytes = u64::from(entry.bytes);
        into.push(entry).map_err(|entry| (entry, Refused::RingFull))?;
        rings.occupied |= 1 << ring.index();
        rings.held += 1;
        rings.bytes += bytes;
        Ok(())
    }

    /// Sends in `order` until nothing waits, the sink is full or the gate refuses. Every turn of the loop takes one
    /// entry out, so it ends after at most [`Rings::held`] turns.
    #[inline]
    pub fn schedule(&mut self, order: &Order, now: Nanos, gate: &mut impl Gate, sink: &mut impl Sink<T>) -> Schedule {
        let mut done = Schedule {
            sent: 0,
            marked: 0,
            dropped: 0,
            stop: Stop::Empty,
        };
        let mut room = sink.room();
        loop {
            let half = if self.halves[0].occupied != 0 {
                Half::Conforming
            } else {
                Half::Nonconforming
            };
            let rings = &mut self.halves[half as usize];
            if rings.occupied == 0 {
                return done;
            }
            if room == 0 {
                return Schedule {
                    stop: Stop::NoRoom,
                    ..done
                };
            }
            let Some((index, by_share)) = rings.pick(order) else {
                return done;
            };
            let Some(head) = rings.rings[index].head() else {
                return done;
            };
            let (bytes, enqueued, ecn_capable) = (head.bytes, head.enqueued, head.ecn_capable);
            if !gate.admits(half, bytes) {
                return Schedule {
                    stop: Stop::Gate,
                    ..done
                };
            }
            let ring = &mut rings.rings[index];
            let behind = ring.bytes - u64::from(bytes);
            let judgement = ring.codel.judge(enqueued, behind, ecn_capable, now);
            let Some(mut entry) = rings.pop(index) else { return done };
            let id = RingId(index as u8);
            let marked = judgement == Judgement::Mark && sink.mark_ce(&mut entry.item);
            if judgement != Judgement::Pass && !marked {
                sink.drop(half, id, entry);
                done.dropped += 1;
                continue;
            }
            rings.charge(order, index, by_share, bytes);
            gate.sent(half, bytes);
            sink.send(half, id, entry);
            done.sent += 1;
            done.marked += usize::from(marked);
            room -= 1;
        }
    }

    /// Takes any entry, most urgent half first, past gate and CoDel: for emptying the rings at the end.
    pub fn take_any(&mut self) -> Option<(Half, RingId, Entry<T>)> {
        let half = if self.halves[0].occupied != 0 {
            Half::Conforming
        } else {
            Half::Nonconforming
        };
        let rings = &mut self.halves[half as usize];
        let index = rings.occupied.trailing_zeros() as usize;
        let entry = if index < MAX_CLASSES { rings.pop(index) } else { None };
        entry.map(|entry| (half, RingId(index as u8), entry))
    }

    /// Entries in all rings.
    #[inline]
    #[must_use]
    pub fn held(&self) -> usize {
        self.halves[0].held + self.halves[1].held
    }

    /// Entries in one half.
    #[must_use]
    pub fn held_in(&self, half: Half) -> usize {
        self.halves[half as usize].held
    }

    /// Counted bytes in one half.
    #[must_use]
    pub fn held_bytes(&self, half: Half) -> u64 {
        self.halves[half as usize].bytes
    }

    /// Entries in one ring.
    #[must_use]
    pub fn len(&self, half: Half, ring: RingId) -> usize {
        self.halves[half as usize].rings[ring.index()].len()
    }

    /// Whether nothing waits.
    #[inline]
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.held() == 0
    }

    /// The most entries one ring ever held.
    #[must_use]
    pub fn high_watermark(&self, half: Half, ring: RingId) -> usize {
        self.halves[half as usize].rings[ring.index()].high_watermark
    }

    /// Entries that fit into each ring.
    #[must_use]
    pub fn capacity(&self) -> usize {
        self.capacity
    }
}

impl<T> HalfRings<T> {
    fn new(capacity: usize) -> Self {
        let rings = std::array::from_fn(|_| Ring::new(capacity));
        Self {
            rings,
            occupied: 0,
            visited: 0,
            turn: [0; MAX_CLASSES + 1],
            held: 0,
            bytes: 0,
        }
    }

    /// The ring to send from, and whether its minimum share brought it the turn.
    #[inline]
    fn pick(&mut self, order: &Order) -> Option<(usize, bool)> {
        let shared = order.shared() & self.occupied;
        if shared != 0
            && let Some(index) = self.owed(shared)
        {
            return Some((index, true));
        }
        let (level, rings) = order.level(self.occupied)?;
        // A visit grants at least QUANTUM_BYTES and cost() is bounded: 33 rounds let any head go.
        for _ in 0..MAX_CLASSES * 34 {
            let at = usize::from(self.turn[level]) & (MAX_CLASSES - 1);
            let bit = 1u32 << at;
            if rings & bit != 0 {
                let ring = &mut self.rings[at];
                if self.visited & bit == 0 {
                    self.visited |= bit;
                    ring.deficit += order.quantum(at);
                }
                if ring.deficit >= cost(ring.head()) {
                    return Some((at, false));
                }
            }
            self.visited &= !bit;
            let later = rings & u32::MAX.checked_shl(at as u32 + 1).unwrap_or(0);
            self.turn[level] = if later != 0 { later } else { rings }.trailing_zeros() as u8;
        }
        Some((rings.trailing_zeros() as usize, false))
    }

    /// Of the rings with a minimum share and credit for their head, the one with the most.
    fn owed(&self, shared: u32) -> Option<usize> {
        let mut best = None;
        let mut most = 0;
        for at in bits(shared) {
            let ring = &self.rings[at];
            if ring.credit >= cost(ring.head()) * 1000 && ring.credit > most {
                (best, most) = (Some(at), ring.credit);
            }
        }
        best
    }

    /// Accounts for `bytes` sent from ring `index`.
    #[inline]
    fn charge(&mut self, order: &Order, index: usize, by_share: bool, bytes: u32) {
        let cost = u64::from(bytes).min(CREDIT_BYTES_MAX);
        let sender = &mut self.rings[index];
        if !by_share {
            sender.deficit = sender.deficit.saturating_sub(cost);
        }
        let shared = order.shared() & self.occupied;
        if shared == 0 {
            return;
        }
        for at in bits(shared) {
            let ring = &mut self.rings[at];
            ring.credit = (ring.credit + cost * order.share(at)).min(CREDIT_BYTES_MAX * 1000);
        }
        let sender = &mut self.rings[index];
        sender.credit = sender.credit.saturating_sub(cost * 1000);
    }

    #[inline]
    fn pop(&mut self, index: usize) -> Option<Entry<T>> {
        let ring = &mut self.rings[index];
        let entry = ring.pop()?;
        self.held -= 1;
        self.bytes -= u64::from(entry.bytes);
        if ring.len() == 0 {
            self.occupied &= !(1 << index);
            self.visited &= !(1 << index);
        }
        Some(entry)
    }
}

/// What sending the head takes from deficit or credit: its bytes, at most [`CREDIT_BYTES_MAX`].
#[inline]
fn cost<T>(head: Option<&Entry<T>>) -> u64 {
    head.map_or(0, |entry| u64::from(entry.bytes).min(CREDIT_BYTES_MAX))
}

/// The positions of the ones in `mask`, lowest first.
fn bits(mut mask: u32) -> impl Iterator<Item = usize> {
    std::iter::from_fn(move || {
        let at = mask.trailing_zeros();
        mask &= mask.wrapping_sub(1);
        (at < 32).then_some(at as usize)
    })
}

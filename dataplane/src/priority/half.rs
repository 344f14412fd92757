//! The rings of one half, and whose turn it is among them.
use super::order::{Order, QUANTUM_BYTES};
use super::ring::Ring;
use super::{CREDIT_BYTES_MAX, Entry, Gate, Half, MAX_CLASSES, RingId, Sink, Stop};
use crate::clock::Nanos;
use crate::codel::Judgement;

pub(super) struct HalfRings<T> {
    rings: [Ring<T>; MAX_CLASSES],
    /// Rings with an entry.
    occupied: u32,
    /// Rings that have still to be visited in the round of their level, the one that is being visited included.
    unvisited: u32,
    /// Rings that entries were taken from since somebody asked.
    rested: u32,
}

/// Whose turn it is.
struct Turn {
    index: usize,
    /// Whether the turn came by round robin, which takes what it sends from its deficit.
    pays: bool,
}

/// What one call of [`super::Rings::schedule`] works with and what it has done. Goes from hand to hand by value, so that
/// the compiler keeps the counts in registers.
pub(super) struct Way<'a, G, S> {
    pub(super) half: Half,
    pub(super) now: Nanos,
    /// How many the sink takes.
    pub(super) room: usize,
    pub(super) gate: &'a mut G,
    pub(super) sink: &'a mut S,
    pub(super) sent: usize,
    pub(super) marked: usize,
    pub(super) dropped: usize,
    pub(super) stop: Option<Stop>,
}

impl<T> HalfRings<T> {
    pub(super) fn new(capacity: usize) -> Self {
        Self {
            rings: std::array::from_fn(|_| Ring::new(capacity)),
            occupied: 0,
            unvisited: 0,
            rested: 0,
        }
    }

    #[inline]
    pub(super) fn is_empty(&self) -> bool {
        self.occupied == 0
    }

    /// Counted when asked, once a turn of a worker: a count kept by every packet costs each of them half a nanosecond.
    #[inline]
    pub(super) fn held(&self) -> usize {
        bits(self.occupied).map(|index| self.rings[index].len()).sum()
    }

    pub(super) fn bytes(&self) -> u64 {
        self.rings.iter().map(|ring| ring.bytes()).sum()
    }

    #[inline]
    pub(super) fn len(&self, index: usize) -> usize {
        self.rings[index].len()
    }

    pub(super) fn high_watermark(&self, index: usize) -> usize {
        self.rings[index].high_watermark()
    }

    pub(super) fn departed(&self, index: usize) -> u64 {
        self.rings[index].departed()
    }

    /// The rings of which something may have changed since the last time, as bits: those that hold something or were visited.
    #[inline]
    pub(super) fn take_changed(&mut self) -> u32 {
        self.occupied | std::mem::take(&mut self.rested)
    }

    /// Gives the entry back if the ring is full.
    #[inline]
    pub(super) fn push(&mut self, index: usize, entry: Entry<T>) -> Result<(), Entry<T>> {
        self.rings[index].push(entry)?;
        self.occupied |= 1 << index;
        Ok(())
    }

    pub(super) fn take_any(&mut self) -> Option<(usize, Entry<T>)> {
        let index = bits(self.occupied).next()?;
        let len = self.rings[index].len();
        let entry = self.rings[index].take_if(|_, _, _| true)?;
        self.rest(index, len);
        Some((index, entry))
    }

    /// Sends until nothing waits in this half or something stops it.
    #[inline]
    pub(super) fn drain<'a, G: Gate, S: Sink<T>>(&mut self, order: &Order, mut way: Way<'a, G, S>) -> Way<'a, G, S> {
        while self.occupied != 0 && way.stop.is_none() {
            if way.sent >= way.room {
                way.stop = Some(Stop::NoRoom);
                return way;
            }
            way = if order.shared() & self.occupied == 0 {
                self.visit(order, way)
            } else {
                self.drain_by_share(order, way)
            };
        }
        way
    }

    /// Sends from the ring whose turn it is until its visit ends. Nothing is enqueued meanwhile, so nothing but the
    /// ring's own deficit can end it.
    #[inline]
    fn visit<'a, G: Gate, S: Sink<T>>(&mut self, order: &Order, mut way: Way<'a, G, S>) -> Way<'a, G, S> {
        let Turn { index, pays } = self.turn(order);
        let ring = &mut self.rings[index];
        let len = ring.len();
        let mut deficit = if pays { ring.deficit } else { u64::MAX };
        while way.sent < way.room {
            match way.step(index, ring, deficit) {
                Step::Sent(bytes) => deficit -= bytes,
                Step::Dropped => {}
                Step::Over => break,
            }
        }
        if pays {
            ring.deficit = deficit;
        }
        self.rest(index, len);
        way
    }

    /// Sends while a ring with a minimum share waits: each entry sent changes who is owed.
    #[inline(never)]
    fn drain_by_share<'a, G: Gate, S: Sink<T>>(&mut self, order: &Order, mut way: Way<'a, G, S>) -> Way<'a, G, S> {
        while order.shared() & self.occupied != 0 && way.sent < way.room && way.stop.is_none() {
            let price = self.price(order);
            let turn = self.owed(order, price).unwrap_or_else(|| self.turn(order));
            let ring = &mut self.rings[turn.index];
            let len = ring.len();
            if let Step::Sent(bytes) = way.step(turn.index, ring, u64::MAX) {
                if turn.pays {
                    ring.deficit -= bytes;
                }
                self.charge(order, turn.index, bytes, price);
            }
            self.rest(turn.index, len);
        }
        way
    }

    /// The turn by priority, and by deficit round robin among equals. Some ring waits.
    #[inline]
    fn turn(&mut self, order: &Order) -> Turn {
        let rings = order.most_urgent(self.occupied);
        if rings.is_power_of_two() {
            // Without an equal nothing is owed: its round ends, so that the next begins with all who wait then.
            let index = rings.trailing_zeros() as usize;
            self.rings[index].deficit = 0;
            self.unvisited &= !rings;
            return Turn { index, pays: false };
        }
        let index = self.round_robin(order, rings);
        Turn { index, pays: true }
    }

    /// The next of `rings`, which are those of one level that wait, whose deficit is enough for its head.
    fn round_robin(&mut self, order: &Order, rings: u32) -> usize {
        // A round grants QUANTUM_BYTES or more to one of them, so even a head of 64 KiB goes after 32 rounds.
        loop {
            for index in bits(self.unvisited & rings) {
                if self.rings[index].head_is_paid() {
                    return index;
                }
                self.unvisited &= !(1 << index);
            }
            let all = bits(rings).fold(0, |all, index| all | order.weight(index));
            // All weights together have the highest bit of the greatest, and a weight is below QUANTUM_BYTES.
            let shift = QUANTUM_BYTES.ilog2() - (all | 1).ilog2();
            for index in bits(rings) {
                self.rings[index].deficit += order.weight(index) << shift;
            }
            self.unvisited |= rings;
        }
    }

    /// Credit that a byte costs, in thousandths of bytes: as much as the waiting rings earn together when that is more
    /// than a byte, so that shares that add to more than the whole are kept in proportion.
    fn price(&self, order: &Order) -> u64 {
        if !order.is_oversubscribed() {
            return 1000;
        }
        let earned: u64 = bits(order.shared() & self.occupied).map(|at| order.share(at)).sum();
        earned.max(1000)
    }

    /// Of the rings with a minimum share and credit for their head, the one with the most.
    fn owed(&self, order: &Order, price: u64) -> Option<Turn> {
        let mut best = None;
        let mut most = 0;
        for index in bits(order.shared() & self.occupied) {
            let ring = &self.rings[index];
            let enough = ring.credit >= ring.head_bytes().min(CREDIT_BYTES_MAX) * price;
            if enough && ring.credit > most {
                (best, most) = (Some(Turn { index, pays: false }), ring.credit);
            }
        }
        best
    }

    /// Every waiting ring with a minimum share earns its part of the `bytes` sent from ring `index`, which pays for them.
    fn charge(&mut self, order: &Order, index: usize, bytes: u64, price: u64) {
        let bytes = bytes.min(CREDIT_BYTES_MAX);
        for at in bits(order.shared() & self.occupied) {
            let earned = self.rings[at].credit + bytes * order.share(at);
            self.rings[at].credit = earned.min(CREDIT_BYTES_MAX * price);
        }
        let sender = &mut self.rings[index];
        sender.credit = sender.credit.saturating_sub(bytes * price);
    }

    /// The books after entries were taken from ring `index`, which had `len_before`.
    #[inline]
    fn rest(&mut self, index: usize, len_before: usize) {
        let ring = &mut self.rings[index];
        self.rested |= 1 << index;
        if !ring.rest(len_before) {
            self.occupied &= !(1 << index);
            self.unvisited &= !(1 << index);
        }
    }
}

/// What became of the oldest entry of a ring.
enum Step {
    /// Sent, this many bytes.
    Sent(u64),
    Dropped,
    /// It stays, because it is too large for the deficit or the gate refuses, or there is none.
    Over,
}

impl<G: Gate, S> Way<'_, G, S> {
    /// Takes the oldest entry out of `ring` if it has at most `deficit` bytes and the gate permits.
    #[inline]
    fn step<T>(&mut self, index: usize, ring: &mut Ring<T>, deficit: u64) -> Step
    where
        S: Sink<T>,
    {
        let mut judgement = Judgement::Pass;
        let taken = ring.take_if(|head, behind_bytes, codel| {
            if u64::from(head.bytes) > deficit {
                return false;
            }
            if !self.gate.admits(self.half, head.bytes) {
                self.stop = Some(Stop::Gate);
                return false;
            }
            judgement = codel.judge(head.enqueued, behind_bytes, head.ecn_capable, self.now);
            true
        });
        let Some(mut entry) = taken else {
            return Step::Over;
        };
        let bytes = entry.bytes;
        let id = RingId(index as u8);
        if judgement != Judgement::Pass {
            if judgement == Judgement::Drop || !self.sink.mark_ce(&mut entry.item) {
                self.sink.drop(self.half, id, entry);
                self.dropped += 1;
                return Step::Dropped;
            }
            self.marked += 1;
        }
        self.gate.sent(self.half, bytes);
        self.sink.send(self.half, id, entry);
        self.sent += 1;
        Step::Sent(u64::from(bytes))
    }
}

/// The positions of the ones in `mask`, lowest first.
pub(super) fn bits(mut mask: u32) -> impl Iterator<Item = usize> {
    std::iter::from_fn(move || {
        let at = mask.trailing_zeros();
        mask &= mask.wrapping_sub(1);
        (at < 32).then_some(at as usize)
    })
}

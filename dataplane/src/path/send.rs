//! From the rings to the port: the rate it may be sent at, and the books that are kept.

use super::{Held, PortShare};
use crate::cells::WorkerCells;
use crate::clock::Nanos;
use crate::frame::{FramePool, Umem};
use crate::mark;
use crate::port::Port;
use crate::priority::{Entry, Gate, Half, RingId, Sink};
use crate::shaper::ShaperRate;
use crate::sojourn::PathGauges;
use crate::stats::{Amount, DropReason, PathCounters};

/// The port's rate, and the rule that excess waits while any worker still holds conforming packets for the port.
pub(super) struct PortGate<'a> {
    pub(super) rate: Option<&'a ShaperRate>,
    pub(super) share: &'a PortShare,
    pub(super) worker: usize,
    pub(super) now: Nanos,
    /// Taken from the rate for a packet that has been admitted but not sent.
    pub(super) taken: u32,
}

impl PortGate<'_> {
    /// Gives back what a packet took that CoDel then dropped.
    #[inline]
    pub(super) fn settle(&mut self) {
        if self.taken > 0
            && let Some(rate) = self.rate
        {
            self.share.shaper.refund(rate, self.taken);
            self.taken = 0;
        }
    }
}

impl Gate for PortGate<'_> {
    #[inline]
    fn admits(&mut self, half: Half, bytes: u32) -> bool {
        let Some(rate) = self.rate else { return true };
        self.settle();
        let must_wait = half == Half::Nonconforming && self.share.backlog.others_waiting(self.worker);
        let admitted = !must_wait && self.share.shaper.try_send(rate, bytes, self.now);
        self.taken = if admitted { bytes } else { 0 };
        admitted
    }

    #[inline]
    fn sent(&mut self, _half: Half, _bytes: u32) {
        self.taken = 0;
    }
}

/// The sending port, and the books that are kept of what goes there.
pub(super) struct PortSink<'a, P> {
    pub(super) port: &'a mut P,
    pub(super) umem: &'a Umem,
    pub(super) pool: &'a mut FramePool,
    pub(super) room: usize,
    /// Taken by the port.
    pub(super) sent: Amount,
    pub(super) counters: &'a mut PathCounters,
    pub(super) cells: WorkerCells<'a>,
    pub(super) gauges: &'a PathGauges,
    pub(super) now: Nanos,
}

impl<P: Port> Sink<Held> for PortSink<'_, P> {
    #[inline]
    fn room(&self) -> usize {
        self.room
    }

    #[inline]
    fn send(&mut self, half: Half, ring: RingId, entry: Entry<Held>) {
        if entry.enqueued != self.now {
            self.gauges.of(half, ring).waited(self.now.since(entry.enqueued));
        }
        let held = entry.item;
        let wire_len = held.packet.wire_len;
        match self.port.tx(held.packet) {
            Ok(()) => {
                self.room -= 1;
                self.sent += Amount::one(wire_len);
            }
            // The port said it had room, so this cannot be; but no packet may vanish without a name even then.
            Err(packet) => {
                self.room = 0;
                self.counters.held.bytes -= u64::from(wire_len);
                self.counters.drop(DropReason::Device, wire_len);
                self.pool.put(packet.frame);
            }
        }
    }

    #[inline]
    fn mark_ce(&mut self, held: &mut Held) -> bool {
        let wire_len = held.packet.wire_len;
        let marked = mark::set_ce(self.umem.bytes_mut(&mut held.packet.frame), held.l3_offset, held.family);
        if marked {
            self.counters.ce_marked += Amount::one(wire_len);
        }
        marked
    }

    #[inline]
    fn drop(&mut self, half: Half, ring: RingId, entry: Entry<Held>) {
        let held = entry.item;
        self.gauges.of(half, ring).dropped();
        self.counters.held.bytes -= u64::from(held.packet.wire_len);
        self.counters.drop(DropReason::Codel, held.packet.wire_len);
        let excess = self.cells.excess(held.slot);
        excess.drop(DropReason::Codel, half, Amount::one(entry.bytes));
        self.pool.put(held.packet.frame);
    }
}

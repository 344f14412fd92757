//! A path: the one way from the receiving to the sending port of a wire, on one queue. Here a packet gets its verdict.
//!
//! ```text
//! batch ─► parse ─► classify ─► meter ─► mark ─► priority rings ─► schedule ─► sending port
//! ```
//!
//! [`Path::admit`] is everything up to the rings, [`Path::drain`] the rest. Neither knows a socket: they work on a batch of
//! packets, a contract table and `now`, so tests, fuzzing and replay run exactly what a worker runs. The stages know
//! nothing of each other: they meet in this module only, in `stages.rs` up to the rings and in `send.rs` from the rings on.

mod send;
mod stages;

use std::hint::black_box;
use std::sync::Arc;

use send::{PortGate, PortSink};
use stages::{Judged, Turn, meter};

use crate::cells::SlotId;
use crate::classify::PathClassifier;
use crate::clock::Nanos;
use crate::contract::{ContractTable, Direction};
use crate::frame::{BATCH, Batch, FramePool, Packet, Umem};
use crate::packet::Family;
use crate::port::Port;
use crate::priority::{Half, Rings};
use crate::shaper::{ConformingBacklog, ShaperState};
use crate::sojourn::PathGauges;
use crate::stats::{Amount, DropReason, PathCounters};
use crate::tap::PathTap;

/// Packets that one priority ring holds. At 1500 bytes and 10 Gbit/s a full ring is 1.2 ms of line rate, at 200 Mbit/s
/// 61 ms, where CoDel has long begun to work; fewer would lose bursts of slow links, more would only hold frames.
pub const RING_CAPACITY: usize = 1024;

/// Packets that are parsed and looked up together. Fewer would not hide a cache miss; what is known of more would be pushed out
/// of the nearest cache by the kernel's copying.
const FEW: usize = 16;

/// What all workers share about a port they send to: the pace of its rate, and who still holds conforming packets for it.
#[derive(Debug)]
pub struct PortShare {
    /// Pacing state; the rate itself is in the contract table.
    pub shaper: ShaperState,
    /// Workers with conforming packets waiting for this port.
    pub backlog: ConformingBacklog,
}

impl PortShare {
    /// Nobody waits, and the next packet may go at once.
    #[must_use]
    pub fn new() -> Self {
        Self {
            shaper: ShaperState::new(),
            backlog: ConformingBacklog::new(),
        }
    }
}

impl Default for PortShare {
    fn default() -> Self {
        Self::new()
    }
}

/// A packet in a priority ring.
pub struct Held {
    packet: Packet,
    slot: SlotId,
    l3_offset: u16,
    family: Family,
}

/// One direction of one queue of a wire.
pub struct Path {
    direction: Direction,
    worker: usize,
    /// The sending port's number, for its rate.
    to: usize,
    share: Arc<PortShare>,
    classifier: PathClassifier,
    rings: Rings<Held>,
    counters: PathCounters,
    gauges: Arc<PathGauges>,
    /// While somebody captures.
    tap: Option<PathTap>,
}

impl Path {
    /// Takes all the memory the path will ever use. `to` is the sending port's number in the contract tables; for `seed` see
    /// [`PathClassifier::new`].
    #[must_use]
    pub fn new(direction: Direction, worker: usize, to: usize, share: Arc<PortShare>, seed: u64) -> Self {
        Self {
            direction,
            worker,
            to,
            share,
            classifier: PathClassifier::new(direction, seed),
            rings: Rings::new(RING_CAPACITY),
            counters: PathCounters::default(),
            gauges: Arc::default(),
            tap: None,
        }
    }

    /// Hangs a tap on the path, or takes it off.
    pub(crate) fn set_tap(&mut self, tap: Option<PathTap>) {
        self.tap = tap;
    }

    /// Gives every packet of `batch` its verdict and puts it into its ring, or drops it with a reason.
    ///
    /// `complete_checksums`: the receiving port may hand over packets whose transport checksum is still to be filled in.
    pub fn admit(
        &mut self,
        batch: &mut Batch,
        complete_checksums: bool,
        umem: &Umem,
        pool: &mut FramePool,
        table: &ContractTable,
        now: Nanos,
    ) {
        let turn = Turn {
            umem,
            table,
            cells: table.cells.of(self.worker),
            complete_checksums,
            now,
        };
        // Loads, because a prefetch may be given up where a page must be looked up first. They wait together.
        let touched = batch.iter().filter_map(|packet| umem.bytes(&packet.frame).first());
        black_box(touched.fold(0, |all, byte| all ^ byte));
        self.counters.received += amount(batch);
        // Each stage begins to load what the next one needs: packets wait for their cache misses together, not in turn.
        let mut judged = [Judged::other(self.direction, turn); BATCH];
        let judged = &mut judged[..batch.len()];
        for (packets, judged) in batch.chunks_mut(FEW).zip(judged.chunks_mut(FEW)) {
            self.parse_and_classify(packets, judged, turn);
        }
        for one in judged.iter_mut() {
            one.find_cell(turn.cells);
        }
        for one in judged.iter_mut() {
            meter(one, turn);
        }
        // Twice, so that a packet pays nothing for a tap that is not there.
        let packets = batch.drain(..).zip(judged);
        if self.tap.is_none() {
            packets.for_each(|(packet, one)| self.mark_and_hold::<false>(packet, one, pool, turn));
        } else {
            packets.for_each(|(packet, one)| self.mark_and_hold::<true>(packet, one, pool, turn));
        }
    }

    /// Sends what the order, the port's rate and its room allow. At most `budget` packets, so that a worker gets round.
    pub fn drain<P: Port>(
        &mut self,
        port: &mut P,
        umem: &Umem,
        pool: &mut FramePool,
        table: &ContractTable,
        now: Nanos,
        budget: usize,
    ) {
        let rate = table.port_rates.get(self.to).and_then(Option::as_ref);
        let room = port.tx_room().min(budget);
        if !self.rings.is_empty() {
            let mut gate = PortGate {
                rate,
                share: &self.share,
                worker: self.worker,
                now,
                taken: 0,
            };
            let mut sink = PortSink {
                port,
                umem,
                pool,
                room,
                sent: Amount::default(),
                counters: &mut self.counters,
                cells: table.cells.of(self.worker),
                gauges: &self.gauges,
                tap: self.tap.as_ref(),
                generation: table.generation,
                now,
            };
            self.rings.schedule(&table.order, now, &mut gate, &mut sink);
            let sent = sink.sent;
            self.counters.forwarded += sent;
            self.counters.held.bytes -= sent.bytes;
            gate.settle();
            self.publish_rings();
        }
        if rate.is_some() {
            self.share
                .backlog
                .set(self.worker, self.rings.held_in(Half::Conforming) > 0);
        }
        let lost = port.flush(pool);
        let kicks = port.kicks();
        self.counters.kicks = [
            kicks.sent,
            kicks.not_needed,
            kicks.again,
            kicks.dropped,
            kicks.no_buffers,
            kicks.network_down,
            kicks.other,
        ];
        if lost.packets > 0 {
            self.counters.forwarded.packets -= lost.packets;
            self.counters.forwarded.bytes -= lost.bytes;
            self.counters.dropped[DropReason::Device as usize] += lost;
        }
    }

    /// Says that this path waits for nothing any more, because its worker ends: while its bit is up, the other workers of
    /// the port keep their nonconforming packets back.
    pub fn retire(&self) {
        self.share.backlog.set(self.worker, false);
    }

    /// The earliest instant at which [`Path::drain`] would send again; `None` when nothing is held.
    #[must_use]
    pub fn next_departure(&self, table: &ContractTable, now: Nanos) -> Option<Nanos> {
        if self.rings.is_empty() {
            return None;
        }
        let rate = table.port_rates.get(self.to).and_then(Option::as_ref);
        Some(rate.map_or(now, |rate| self.share.shaper.next_send(rate, now)))
    }

    /// The ledger as it stands, with what the rings hold as they themselves count it.
    #[must_use]
    pub fn counters(&self) -> PathCounters {
        let held = Amount {
            packets: self.rings.held() as u64,
            bytes: self.counters.held.bytes,
        };
        PathCounters { held, ..self.counters }
    }

    /// What others may read of the rings while the worker runs.
    #[must_use]
    pub fn gauges(&self) -> &Arc<PathGauges> {
        &self.gauges
    }

    /// Tells of the rings in which something changed in this turn.
    #[inline]
    fn publish_rings(&mut self) {
        for half in [Half::Conforming, Half::Nonconforming] {
            for ring in self.rings.take_changed(half) {
                let (held, most) = (self.rings.len(half, ring), self.rings.high_watermark(half, ring));
                let departed = self.rings.departed(half, ring);
                self.gauges.of(half, ring).publish(held as u64, most as u64, departed);
            }
        }
    }

    /// Packets waiting in the rings.
    #[must_use]
    pub fn held(&self) -> usize {
        self.rings.held()
    }
}

/// Packets and bytes of a batch.
#[inline]
fn amount(batch: &Batch) -> Amount {
    let bytes = batch.iter().map(|packet| u64::from(packet.wire_len)).sum();
    Amount {
        packets: batch.len() as u64,
        bytes,
    }
}

//! A path: the one way from the receiving to the sending port of a wire, on one queue. Here a packet gets its verdict.
//!
//! ```text
//! batch ─► parse ─► classify ─► meter ─► mark ─► priority rings ─► schedule ─► sending port
//! ```
//!
//! [`Path::admit`] is everything up to the rings, [`Path::drain`] the rest. Neither knows a socket: they work on a batch of
//! packets, a contract table and `now`, so tests, fuzzing and replay run exactly what a worker runs. The stages know
//! nothing of each other; this file is the only place where they meet.

use std::hint::black_box;
use std::sync::Arc;

use arrayvec::ArrayVec;

use crate::cells::{Cells, SlotId};
use crate::checksum;
use crate::classify::{PathClassifier, Place};
use crate::clock::Nanos;
use crate::contract::{Action, Contract, ContractTable, Direction, Judge, Marking};
use crate::frame::{Batch, FramePool, Packet, Umem};
use crate::mark;
use crate::meter::Color;
use crate::packet::{self, Family, Headers, Parsed};
use crate::port::Port;
use crate::prefetch::prefetch;
use crate::priority::{Entry, Gate, Half, Refused, RingId, Rings, Sink};
use crate::shaper::{ConformingBacklog, ShaperRate, ShaperState};
use crate::stats::{Amount, DropReason, PathCounters};

/// Packets that one priority ring holds. At 1500 bytes and 10 Gbit/s a full ring is 1.2 ms of line rate, at 200 Mbit/s
/// 61 ms, where CoDel has long begun to work; fewer would lose bursts of slow links, more would only hold frames.
pub const RING_CAPACITY: usize = 1024;

/// Packets that go through the stages together. What is known of them meanwhile (160 bytes each) then stays in the nearest
/// cache, which the kernel's copying of a whole batch would push it out of; fewer would not hide a cache miss.
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
}

/// A packet of a batch after parsing and classifying.
struct Judged<'a> {
    contract: &'a Contract,
    /// `None`: not IP.
    headers: Option<&'a Headers>,
    arrived: Color,
    l3_offset: u16,
    /// Bytes that count.
    counted: u32,
}

/// What became of a packet that was judged.
struct Outcome {
    half: Half,
    color: Color,
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
        }
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
        // Loads, because a prefetch may be given up where a page must be looked up first. They wait together.
        let touched = batch.iter().filter_map(|packet| umem.bytes(&packet.frame).first());
        black_box(touched.fold(0, |all, byte| all ^ byte));
        let mut packets = batch.drain(..);
        loop {
            let mut few: ArrayVec<Packet, FEW> = packets.by_ref().take(FEW).collect();
            if few.is_empty() {
                return;
            }
            self.admit_few(&mut few, complete_checksums, umem, pool, table, now);
        }
    }

    /// Each loop begins to load what the next one needs: packets wait for their cache misses together, not in turn.
    fn admit_few(
        &mut self,
        packets: &mut ArrayVec<Packet, FEW>,
        complete_checksums: bool,
        umem: &Umem,
        pool: &mut FramePool,
        table: &ContractTable,
        now: Nanos,
    ) {
        let mut parsed: ArrayVec<(Parsed, Option<Place>), FEW> = ArrayVec::new();
        for packet in packets.iter() {
            let headers = packet::parse(umem.bytes(&packet.frame), packet.wire_len as usize);
            let place = match &headers {
                Parsed::Ip(headers) => self.classifier.place(headers),
                Parsed::Other { .. } => None,
            };
            parsed.push((headers, place));
            self.counters.received += Amount::one(packet.wire_len);
        }
        // In a loop of their own: where a page must be looked up first, the processor then looks up several at once.
        for place in parsed.iter().filter_map(|(_, place)| *place) {
            self.classifier.prefetch(place);
        }
        let mut judged: ArrayVec<Judged<'_>, FEW> = ArrayVec::new();
        for (packet, (headers, place)) in packets.iter().zip(&parsed) {
            let one = self.classify(table, headers, *place, packet.wire_len, now);
            prefetch(one.contract);
            judged.push(one);
        }
        for judged in &judged {
            prefetch(table.cells.buckets(judged.contract.slot));
            prefetch(table.cells.counters(self.worker, judged.contract.slot));
        }
        for (mut packet, judged) in packets.drain(..).zip(&judged) {
            if complete_checksums && let Some(headers) = judged.headers {
                complete_checksum(umem, &mut packet, headers);
            }
            self.judge_and_hold(packet, judged, umem, pool, table, now);
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
                counters: &mut self.counters,
                cells: &table.cells,
                worker: self.worker,
            };
            self.rings.schedule(&table.order, now, &mut gate, &mut sink);
            gate.settle();
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

    /// Packets waiting in the rings.
    #[must_use]
    pub fn held(&self) -> usize {
        self.rings.held()
    }

    #[inline]
    fn classify<'a>(
        &mut self,
        table: &'a ContractTable,
        parsed: &'a Parsed,
        place: Option<Place>,
        wire_len: u32,
        now: Nanos,
    ) -> Judged<'a> {
        match parsed {
            Parsed::Ip(headers) => {
                let (index, arrived) = self.classifier.classify(table, headers, place, now);
                let counted = table.layer.count(wire_len, headers.l3_len);
                let contract = table.contract(index);
                Judged {
                    contract,
                    headers: Some(headers),
                    arrived,
                    l3_offset: headers.l3_offset,
                    counted,
                }
            }
            Parsed::Other { l3_offset, .. } => {
                self.counters.other += Amount::one(wire_len);
                let counted = table
                    .layer
                    .count(wire_len, wire_len.saturating_sub(u32::from(*l3_offset)));
                let contract = table.contract(table.other[self.direction.index()]);
                Judged {
                    contract,
                    headers: None,
                    arrived: Color::Green,
                    l3_offset: *l3_offset,
                    counted,
                }
            }
        }
    }

    #[inline]
    fn judge_and_hold(
        &mut self,
        mut packet: Packet,
        judged: &Judged<'_>,
        umem: &Umem,
        pool: &mut FramePool,
        table: &ContractTable,
        now: Nanos,
    ) {
        let contract = judged.contract;
        let counters = table.cells.counters(self.worker, contract.slot);
        let counted = Amount::one(judged.counted);
        let outcome = outcome(judged, &table.cells, now);
        if outcome.half == Half::Conforming {
            counters.conforming.add(counted);
        } else {
            counters.nonconforming.add(counted);
            match (contract.action, judged.headers) {
                (Action::Drop, _) => {
                    return self.drop(packet, DropReason::Policed, contract.slot, judged.counted, pool, table);
                }
                (Action::Remark, Some(headers)) => {
                    if remark(umem.bytes_mut(&mut packet.frame), headers, contract.marking) {
                        counters.remarked.add(counted);
                    }
                }
                (Action::Remark | Action::Queue, _) => {}
            }
            if pool.is_low() {
                return self.drop(
                    packet,
                    DropReason::FramesLow,
                    contract.slot,
                    judged.counted,
                    pool,
                    table,
                );
            }
        }
        let entry = Entry {
            bytes: judged.counted,
            enqueued: now,
            drop_first: outcome.color == Color::Red,
            ecn_capable: judged.headers.is_some_and(|headers| headers.ecn != 0),
            item: Held {
                packet,
                slot: contract.slot,
                l3_offset: judged.l3_offset,
                family: judged.headers.map_or(Family::Ipv4, |headers| headers.family),
            },
        };
        let wire_len = entry.item.packet.wire_len;
        match self.rings.enqueue(outcome.half, contract.class.0, entry) {
            Ok(()) => self.counters.held.bytes += u64::from(wire_len),
            Err((entry, refused)) => {
                let reason = match refused {
                    Refused::RingFull => DropReason::RingFull,
                    Refused::RedFirst => DropReason::RedFirst,
                };
                self.drop(entry.item.packet, reason, contract.slot, judged.counted, pool, table);
            }
        }
    }

    #[cold]
    fn drop(
        &mut self,
        packet: Packet,
        reason: DropReason,
        slot: SlotId,
        counted: u32,
        pool: &mut FramePool,
        table: &ContractTable,
    ) {
        self.counters.drop(reason, packet.wire_len);
        table
            .cells
            .counters(self.worker, slot)
            .dropped(reason)
            .add(Amount::one(counted));
        pool.put(packet.frame);
    }
}

#[inline]
fn outcome(judged: &Judged<'_>, cells: &Cells, now: Nanos) -> Outcome {
    match &judged.contract.judge {
        Judge::Always(half) => Outcome {
            half: *half,
            color: judged.arrived,
        },
        Judge::Meter(meter) => {
            let color = meter.color(cells.buckets(judged.contract.slot), judged.counted, now, judged.arrived);
            let half = if color == Color::Green {
                Half::Conforming
            } else {
                Half::Nonconforming
            };
            Outcome { half, color }
        }
    }
}

/// Writes the marks of excess; says whether anything changed.
#[inline]
fn remark(bytes: &mut [u8], headers: &Headers, marking: Marking) -> bool {
    let dscp = marking.dscp.is_some_and(|dscp| mark::set_dscp(bytes, headers, dscp));
    let pcp = marking.pcp.is_some_and(|pcp| mark::set_pcp(bytes, pcp));
    dscp || pcp
}

/// Fills in the transport checksum that a local sender has left to a device that has none. A device with checksum offload
/// could be asked instead (`Umem::request_checksum`), but that takes Linux 6.11 and a driver that knows the request; this
/// is right everywhere, and what leaves is valid for whoever reads it.
#[inline]
fn complete_checksum(umem: &Umem, packet: &mut Packet, headers: &Headers) {
    if let Some(partial) = checksum::find_partial(umem.bytes(&packet.frame), headers) {
        checksum::complete(umem.bytes_mut(&mut packet.frame), headers, partial);
    }
}

/// The port's rate, and the rule that excess waits while any worker still holds conforming packets for the port.
struct PortGate<'a> {
    rate: Option<&'a ShaperRate>,
    share: &'a PortShare,
    worker: usize,
    now: Nanos,
    /// Taken from the rate for a packet that has been admitted but not sent.
    taken: u32,
}

impl PortGate<'_> {
    /// Gives back what a packet took that CoDel then dropped.
    #[inline]
    fn settle(&mut self) {
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
struct PortSink<'a, P> {
    port: &'a mut P,
    umem: &'a Umem,
    pool: &'a mut FramePool,
    room: usize,
    counters: &'a mut PathCounters,
    cells: &'a Cells,
    worker: usize,
}

impl<P: Port> Sink<Held> for PortSink<'_, P> {
    #[inline]
    fn room(&self) -> usize {
        self.room
    }

    #[inline]
    fn send(&mut self, _half: Half, _ring: RingId, entry: Entry<Held>) {
        let held = entry.item;
        let amount = Amount::one(held.packet.wire_len);
        self.counters.held.bytes -= amount.bytes;
        match self.port.tx(held.packet) {
            Ok(()) => {
                self.room -= 1;
                self.counters.forwarded += amount;
            }
            // The port said it had room, so this cannot be; but no packet may vanish without a name even then.
            Err(packet) => {
                self.room = 0;
                self.counters.drop(DropReason::Device, packet.wire_len);
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
    fn drop(&mut self, _half: Half, _ring: RingId, entry: Entry<Held>) {
        let held = entry.item;
        self.counters.held.bytes -= u64::from(held.packet.wire_len);
        self.counters.drop(DropReason::Codel, held.packet.wire_len);
        let counters = self.cells.counters(self.worker, held.slot);
        counters.dropped(DropReason::Codel).add(Amount::one(entry.bytes));
        self.pool.put(held.packet.frame);
    }
}

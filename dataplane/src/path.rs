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

use crate::cells::{SlotId, WorkerCells};
use crate::checksum;
use crate::classify::{Flow, PathClassifier};
use crate::clock::Nanos;
use crate::contract::{Action, Contract, ContractIndex, ContractTable, Direction, Judge, Marking};
use crate::frame::{BATCH, Batch, FramePool, Packet, Umem};
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
}

/// What is known of a packet of a batch, stage by stage.
#[derive(Clone, Copy)]
struct Judged {
    contract: ContractIndex,
    /// Bytes that count.
    counted: u32,
    l3_offset: u16,
    /// `None`: not IP.
    family: Option<Family>,
    ecn_capable: bool,
    /// On arrival; the meter's verdict later.
    color: Color,
    half: Half,
}

impl Judged {
    /// An IP packet whose contract is still to be found.
    #[inline]
    fn ip(table: &ContractTable, headers: &Headers, wire_len: u32) -> Self {
        Self {
            counted: table.layer.count(wire_len, headers.l3_len),
            l3_offset: headers.l3_offset,
            family: Some(headers.family),
            ecn_capable: headers.ecn != 0,
            ..Self::default()
        }
    }

    /// Begins to load the contract, which the next stage needs.
    #[inline]
    fn found(&mut self, table: &ContractTable, (contract, arrived): (ContractIndex, Color)) {
        (self.contract, self.color) = (contract, arrived);
        prefetch(table.contract(contract));
    }
}

impl Default for Judged {
    #[inline]
    fn default() -> Self {
        Self {
            contract: ContractIndex(0),
            counted: 0,
            l3_offset: 0,
            family: None,
            ecn_capable: false,
            color: Color::Green,
            half: Half::Conforming,
        }
    }
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
        self.counters.received += amount(batch);
        // Each stage begins to load what the next one needs: packets wait for their cache misses together, not in turn.
        let mut judged = [Judged::default(); BATCH];
        let judged = &mut judged[..batch.len()];
        for (packets, judged) in batch.chunks_mut(FEW).zip(judged.chunks_mut(FEW)) {
            self.parse_and_classify(packets, judged, complete_checksums, umem, table, now);
        }
        let cells = table.cells.of(self.worker);
        for one in judged.iter() {
            prefetch(cells.cell(table.contract(one.contract).slot));
        }
        for (packet, one) in batch.drain(..).zip(judged) {
            let contract = table.contract(one.contract);
            meter(one, contract, cells, now);
            self.mark_and_hold(packet, one, contract, umem, pool, cells, now);
        }
    }

    /// Finds the contracts of `packets`, and writes what is then known of them to `judged`.
    fn parse_and_classify(
        &mut self,
        packets: &mut [Packet],
        judged: &mut [Judged],
        complete_checksums: bool,
        umem: &Umem,
        table: &ContractTable,
        now: Nanos,
    ) {
        let mut flows = [None; FEW];
        for ((packet, one), flow) in packets.iter_mut().zip(judged.iter_mut()).zip(&mut flows) {
            match packet::parse_plain(umem.bytes(&packet.frame), packet.wire_len as usize) {
                Some(headers) => {
                    if complete_checksums {
                        complete_checksum(umem, packet, headers);
                    }
                    *one = Judged::ip(table, &headers, packet.wire_len);
                    *flow = self.classifier.flow(&headers);
                }
                None => self.parse_any(packet, one, flow, complete_checksums, umem, table),
            }
        }
        // In a loop of their own: where a page must be looked up first, the processor then looks up several at once.
        for flow in flows.iter().flatten() {
            self.classifier.prefetch(flow);
        }
        let mut unknown: ArrayVec<usize, FEW> = ArrayVec::new();
        for (position, (one, flow)) in judged.iter_mut().zip(&flows).enumerate() {
            match flow.as_ref().and_then(|flow| self.classifier.known(table, flow)) {
                Some(known) => one.found(table, known),
                None if one.family.is_some() => unknown.push(position),
                None => prefetch(table.contract(one.contract)),
            }
        }
        if !unknown.is_empty() {
            self.classify_unknown(&unknown, packets, judged, &flows, umem, table, now);
        }
    }

    /// First packets of flows, and fragments. They are parsed again, which costs less than keeping the headers of all packets.
    #[inline(never)]
    #[allow(clippy::too_many_arguments)]
    fn classify_unknown(
        &mut self,
        positions: &[usize],
        packets: &[Packet],
        judged: &mut [Judged],
        flows: &[Option<Flow>; FEW],
        umem: &Umem,
        table: &ContractTable,
        now: Nanos,
    ) {
        let mut new: ArrayVec<(usize, Headers, &Flow), FEW> = ArrayVec::new();
        for &position in positions {
            let packet = &packets[position];
            let Parsed::Ip(headers) = packet::parse(umem.bytes(&packet.frame), packet.wire_len as usize) else {
                continue;
            };
            match &flows[position] {
                Some(flow) => new.push((position, headers, flow)),
                None => judged[position].found(table, self.classifier.classify(table, &headers, None, now)),
            }
        }
        let flows = new.iter().map(|(_, headers, flow)| (headers, *flow));
        let found: ArrayVec<_, FEW> = self.classifier.classify_few(table, flows);
        for ((position, ..), found) in new.iter().zip(found) {
            judged[*position].found(table, found);
        }
    }

    /// What is not a plain packet: tags, options, fragments, IPv6, all that is not IP.
    #[inline(never)]
    fn parse_any(
        &mut self,
        packet: &mut Packet,
        one: &mut Judged,
        flow: &mut Option<Flow>,
        complete_checksums: bool,
        umem: &Umem,
        table: &ContractTable,
    ) {
        match packet::parse(umem.bytes(&packet.frame), packet.wire_len as usize) {
            Parsed::Ip(headers) => {
                if complete_checksums {
                    complete_checksum(umem, packet, headers);
                }
                *one = Judged::ip(table, &headers, packet.wire_len);
                *flow = self.classifier.flow(&headers);
            }
            Parsed::Other { l3_offset, .. } => {
                self.counters.other += Amount::one(packet.wire_len);
                let l3_len = packet.wire_len.saturating_sub(u32::from(l3_offset));
                *one = Judged {
                    contract: table.other[self.direction.index()],
                    counted: table.layer.count(packet.wire_len, l3_len),
                    l3_offset,
                    ..Judged::default()
                };
            }
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
            };
            self.rings.schedule(&table.order, now, &mut gate, &mut sink);
            let sent = sink.sent;
            self.counters.forwarded += sent;
            self.counters.held.bytes -= sent.bytes;
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

    /// Does with a packet what its verdict says: marks it, and puts it into its ring or drops it.
    #[inline]
    #[allow(clippy::too_many_arguments)]
    fn mark_and_hold(
        &mut self,
        mut packet: Packet,
        judged: &Judged,
        contract: &Contract,
        umem: &Umem,
        pool: &mut FramePool,
        cells: WorkerCells<'_>,
        now: Nanos,
    ) {
        let (slot, counted) = (contract.slot, judged.counted);
        if judged.half == Half::Nonconforming {
            match (contract.action, judged.family) {
                (Action::Drop, _) => return self.drop(packet, DropReason::Policed, slot, counted, pool, cells),
                (Action::Remark, Some(family)) => {
                    let bytes = umem.bytes_mut(&mut packet.frame);
                    if remark(bytes, judged.l3_offset, family, contract.marking) {
                        cells.excess(slot).remarked.add(Amount::one(counted));
                    }
                }
                (Action::Remark | Action::Queue, _) => {}
            }
            if pool.is_low() {
                return self.drop(packet, DropReason::FramesLow, slot, counted, pool, cells);
            }
        }
        let wire_len = packet.wire_len;
        let entry = Entry {
            bytes: counted,
            enqueued: now,
            drop_first: judged.half == Half::Nonconforming && judged.color == Color::Red,
            ecn_capable: judged.ecn_capable,
            item: Held {
                packet,
                slot,
                l3_offset: judged.l3_offset,
                family: judged.family.unwrap_or(Family::Ipv4),
            },
        };
        match self.rings.enqueue(judged.half, contract.class.0, entry) {
            Ok(()) => self.counters.held.bytes += u64::from(wire_len),
            Err((entry, refused)) => {
                let reason = match refused {
                    Refused::RingFull => DropReason::RingFull,
                    Refused::RedFirst => DropReason::RedFirst,
                };
                self.drop(entry.item.packet, reason, slot, counted, pool, cells);
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
        cells: WorkerCells<'_>,
    ) {
        self.counters.drop(reason, packet.wire_len);
        cells.excess(slot).dropped(reason).add(Amount::one(counted));
        pool.put(packet.frame);
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

/// Gives a packet its colour and half, and counts it.
#[inline]
fn meter(judged: &mut Judged, contract: &Contract, cells: WorkerCells<'_>, now: Nanos) {
    let cell = cells.cell(contract.slot);
    judged.half = match &contract.judge {
        Judge::Always(half) => *half,
        Judge::Meter(meter) => {
            let (bytes, arrived) = (judged.counted, judged.color);
            judged.color = match cells.sharing(contract.slot) {
                None => meter.color(&cell.purse, bytes, now, arrived),
                Some(sharing) => meter.color_shared(sharing, &cell.purse, bytes, now, arrived),
            };
            if judged.color == Color::Green {
                Half::Conforming
            } else {
                Half::Nonconforming
            }
        }
    };
    let counter = match judged.half {
        Half::Conforming => &cell.conforming,
        Half::Nonconforming => &cell.nonconforming,
    };
    counter.add(Amount::one(judged.counted));
}

/// Writes the marks of excess; says whether anything changed.
#[inline]
fn remark(bytes: &mut [u8], l3_offset: u16, family: Family, marking: Marking) -> bool {
    let dscp = marking
        .dscp
        .is_some_and(|dscp| mark::set_dscp(bytes, l3_offset, family, dscp));
    let pcp = marking.pcp.is_some_and(|pcp| mark::set_pcp(bytes, pcp));
    dscp || pcp
}

/// Fills in the transport checksum that a local sender has left to a device that has none. A device with checksum offload
/// could be asked instead (`Umem::request_checksum`), but that takes Linux 6.11 and a driver that knows the request; this
/// is right everywhere, and what leaves is valid for whoever reads it.
///
/// The headers come by value, so that those of the caller can stay in registers.
#[inline(never)]
fn complete_checksum(umem: &Umem, packet: &mut Packet, headers: Headers) {
    if let Some(partial) = checksum::find_partial(umem.bytes(&packet.frame), &headers) {
        checksum::complete(umem.bytes_mut(&mut packet.frame), &headers, partial);
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
    /// Taken by the port.
    sent: Amount,
    counters: &'a mut PathCounters,
    cells: WorkerCells<'a>,
}

impl<P: Port> Sink<Held> for PortSink<'_, P> {
    #[inline]
    fn room(&self) -> usize {
        self.room
    }

    #[inline]
    fn send(&mut self, _half: Half, _ring: RingId, entry: Entry<Held>) {
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
    fn drop(&mut self, _half: Half, _ring: RingId, entry: Entry<Held>) {
        let held = entry.item;
        self.counters.held.bytes -= u64::from(held.packet.wire_len);
        self.counters.drop(DropReason::Codel, held.packet.wire_len);
        let counter = self.cells.excess(held.slot).dropped(DropReason::Codel);
        counter.add(Amount::one(entry.bytes));
        self.pool.put(held.packet.frame);
    }
}

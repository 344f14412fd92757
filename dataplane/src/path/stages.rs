//! The stages that a packet goes through up to its ring, and what is known of it between them.

use arrayvec::ArrayVec;

use super::{FEW, Held, Path};
use crate::cells::{Cell, WorkerCells};
use crate::checksum;
use crate::classify::Flow;
use crate::clock::Nanos;
use crate::contract::{Action, Contract, ContractIndex, ContractTable, Direction, Judge, Marking};
use crate::frame::{FramePool, Packet, Umem};
use crate::mark;
use crate::meter::Color;
use crate::packet::{self, Family, Headers, Parsed};
use crate::prefetch::prefetch;
use crate::priority::{Entry, Half, Refused};
use crate::stats::{Amount, DropReason};
use crate::tap::{self, Copied, Event, Head};

/// What is the same for all packets of a batch.
#[derive(Clone, Copy)]
pub(super) struct Turn<'a> {
    pub(super) umem: &'a Umem,
    pub(super) table: &'a ContractTable,
    pub(super) cells: WorkerCells<'a>,
    pub(super) complete_checksums: bool,
    pub(super) now: Nanos,
}

/// What is known of a packet of a batch, stage by stage.
#[derive(Clone, Copy)]
pub(super) struct Judged<'a> {
    pub(super) contract: &'a Contract,
    /// The contract's, of this worker.
    cell: &'a Cell,
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

impl<'a> Judged<'a> {
    /// Not looked at yet: what cannot be an IP packet belongs to the contract of all others.
    #[inline]
    pub(super) fn other(direction: Direction, turn: Turn<'a>) -> Self {
        let contract = turn.table.contract(turn.table.other[direction.index()]);
        Self {
            contract,
            cell: turn.cells.cell(contract.slot),
            counted: 0,
            l3_offset: 0,
            family: None,
            ecn_capable: false,
            color: Color::Green,
            half: Half::Conforming,
        }
    }

    /// An IP packet whose contract is still to be found.
    #[inline]
    fn ip(&mut self, table: &ContractTable, headers: &Headers, wire_len: u32) {
        self.counted = table.layer.count(wire_len, headers.l3_len);
        self.l3_offset = headers.l3_offset;
        self.family = Some(headers.family);
        self.ecn_capable = headers.ecn != 0;
    }

    /// Begins to load the contract, which the next stage needs.
    #[inline]
    fn found(&mut self, table: &'a ContractTable, (contract, arrived): (ContractIndex, Color)) {
        (self.contract, self.color) = (table.contract(contract), arrived);
        prefetch(self.contract);
    }

    /// Begins to load the contract's cell.
    #[inline]
    pub(super) fn find_cell(&mut self, cells: WorkerCells<'a>) {
        self.cell = cells.cell(self.contract.slot);
        prefetch(self.cell);
    }
}

impl Path {
    /// Finds the contracts of `packets`, and writes what is then known of them to `judged`.
    pub(super) fn parse_and_classify<'a>(&mut self, packets: &mut [Packet], judged: &mut [Judged<'a>], turn: Turn<'a>) {
        let Turn { umem, table, .. } = turn;
        let mut flows = [None; FEW];
        for ((packet, one), flow) in packets.iter_mut().zip(judged.iter_mut()).zip(&mut flows) {
            match packet::parse_plain(umem.bytes(&packet.frame), packet.wire_len as usize) {
                Some(headers) => {
                    if turn.complete_checksums {
                        complete_checksum(umem, packet, headers);
                    }
                    one.ip(table, &headers, packet.wire_len);
                    *flow = self.classifier.flow(&headers);
                }
                None => self.parse_any(packet, one, flow, turn),
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
                None => {}
            }
        }
        if !unknown.is_empty() {
            self.classify_unknown(&unknown, packets, judged, &flows, turn);
        }
    }

    /// First packets of flows, and fragments. They are parsed again, which costs less than keeping the headers of all packets.
    #[inline(never)]
    fn classify_unknown<'a>(
        &mut self,
        positions: &[usize],
        packets: &[Packet],
        judged: &mut [Judged<'a>],
        flows: &[Option<Flow>; FEW],
        turn: Turn<'a>,
    ) {
        let Turn { umem, table, now, .. } = turn;
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
    fn parse_any(&mut self, packet: &mut Packet, one: &mut Judged<'_>, flow: &mut Option<Flow>, turn: Turn<'_>) {
        let Turn { umem, table, .. } = turn;
        match packet::parse_any(umem.bytes(&packet.frame), packet.wire_len as usize) {
            Parsed::Ip(headers) => {
                if turn.complete_checksums {
                    complete_checksum(umem, packet, headers);
                }
                one.ip(table, &headers, packet.wire_len);
                *flow = self.classifier.flow(&headers);
            }
            Parsed::Other { l3_offset, .. } => {
                self.counters.other += Amount::one(packet.wire_len);
                let l3_len = packet.wire_len.saturating_sub(u32::from(l3_offset));
                one.counted = table.layer.count(packet.wire_len, l3_len);
                one.l3_offset = l3_offset;
            }
        }
    }

    /// Does with a packet what its verdict says: marks it, and puts it into its ring or drops it.
    #[inline]
    pub(super) fn mark_and_hold<const TAPPED: bool>(
        &mut self,
        mut packet: Packet,
        judged: &Judged<'_>,
        pool: &mut FramePool,
        turn: Turn<'_>,
    ) {
        let Turn { umem, cells, now, .. } = turn;
        let contract = judged.contract;
        let (slot, counted) = (contract.slot, judged.counted);
        let mut seen = Seen::default();
        if TAPPED {
            seen.sampled = self.tap.as_ref().is_some_and(|tap| tap.sample(slot));
        }
        if judged.half == Half::Nonconforming {
            match (contract.action, judged.family) {
                (Action::Drop, _) => return self.drop(packet, DropReason::Policed, judged, seen, pool, turn),
                (Action::Remark, Some(family)) => {
                    let bytes = umem.bytes_mut(&mut packet.frame);
                    let head = TAPPED.then(|| tap::head(bytes));
                    if remark(bytes, judged.l3_offset, family, contract.marking) {
                        cells.excess(slot).remarked.add(Amount::one(counted));
                        seen.head = head;
                    }
                }
                (Action::Remark | Action::Queue, _) => {}
            }
            if pool.is_low() {
                return self.drop(packet, DropReason::FramesLow, judged, seen, pool, turn);
            }
        }
        let wire_len = packet.wire_len;
        // Now, because the ring keeps the packet.
        let mut copied = match &self.tap {
            Some(tap) if TAPPED => tap.copy(&event(&packet, None, judged, seen, turn)),
            _ => None,
        };
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
                seen.copied = copied.take().map(|copied| self.keep(copied, Some(reason))).is_some();
                self.drop(entry.item.packet, reason, judged, seen, pool, turn);
            }
        }
        if TAPPED && let Some(copied) = copied {
            self.keep(copied, None);
        }
    }

    fn keep(&self, copied: Copied, dropped: Option<DropReason>) {
        if let Some(tap) = &self.tap {
            tap.keep(copied, dropped);
        }
    }

    #[cold]
    fn drop(
        &mut self,
        packet: Packet,
        reason: DropReason,
        judged: &Judged<'_>,
        seen: Seen,
        pool: &mut FramePool,
        turn: Turn<'_>,
    ) {
        if let Some(tap) = &self.tap
            && !seen.copied
        {
            tap.see(&event(&packet, Some(reason), judged, seen, turn));
        }
        self.counters.drop(reason, packet.wire_len);
        let excess = turn.cells.excess(judged.contract.slot);
        excess.drop(reason, judged.half, Amount::one(judged.counted));
        pool.put(packet.frame);
    }
}

/// What the tap is to know of a packet.
#[derive(Clone, Copy, Default)]
struct Seen {
    sampled: bool,
    /// Its beginning before it was re-marked.
    head: Option<Head>,
    /// There is a copy already.
    copied: bool,
}

#[cold]
fn event<'a>(
    packet: &'a Packet,
    dropped: Option<DropReason>,
    judged: &Judged<'_>,
    seen: Seen,
    turn: Turn<'a>,
) -> Event<'a> {
    Event {
        at: turn.now,
        generation: turn.table.generation,
        slot: judged.contract.slot,
        half: judged.half,
        color: matches!(judged.contract.judge, Judge::Meter(_)).then_some(judged.color),
        dropped,
        head: seen.head,
        sampled: seen.sampled,
        waited: None,
        bytes: turn.umem.bytes(&packet.frame),
        wire_len: packet.wire_len,
    }
}

/// Gives a packet its colour and half, and counts it.
#[inline]
pub(super) fn meter(judged: &mut Judged<'_>, turn: Turn<'_>) {
    let Turn { cells, now, .. } = turn;
    let (contract, cell) = (judged.contract, judged.cell);
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

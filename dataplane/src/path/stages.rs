//! The stages that a packet goes through up to its ring, and what is known of it between them.

use arrayvec::ArrayVec;

use super::{FEW, Held, Path};
use crate::cells::{SlotId, WorkerCells};
use crate::checksum;
use crate::classify::Flow;
use crate::clock::Nanos;
use crate::contract::{Action, Contract, ContractIndex, ContractTable, Judge, Marking};
use crate::frame::{FramePool, Packet, Umem};
use crate::mark;
use crate::meter::Color;
use crate::packet::{self, Family, Headers, Parsed};
use crate::prefetch::prefetch;
use crate::priority::{Entry, Half, Refused};
use crate::stats::{Amount, DropReason};

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
pub(super) struct Judged {
    pub(super) contract: ContractIndex,
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
    /// Finds the contracts of `packets`, and writes what is then known of them to `judged`.
    pub(super) fn parse_and_classify(&mut self, packets: &mut [Packet], judged: &mut [Judged], turn: Turn<'_>) {
        let Turn { umem, table, .. } = turn;
        let mut flows = [None; FEW];
        for ((packet, one), flow) in packets.iter_mut().zip(judged.iter_mut()).zip(&mut flows) {
            match packet::parse_plain(umem.bytes(&packet.frame), packet.wire_len as usize) {
                Some(headers) => {
                    if turn.complete_checksums {
                        complete_checksum(umem, packet, headers);
                    }
                    *one = Judged::ip(table, &headers, packet.wire_len);
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
                None => prefetch(table.contract(one.contract)),
            }
        }
        if !unknown.is_empty() {
            self.classify_unknown(&unknown, packets, judged, &flows, turn);
        }
    }

    /// First packets of flows, and fragments. They are parsed again, which costs less than keeping the headers of all packets.
    #[inline(never)]
    fn classify_unknown(
        &mut self,
        positions: &[usize],
        packets: &[Packet],
        judged: &mut [Judged],
        flows: &[Option<Flow>; FEW],
        turn: Turn<'_>,
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
    fn parse_any(&mut self, packet: &mut Packet, one: &mut Judged, flow: &mut Option<Flow>, turn: Turn<'_>) {
        let Turn { umem, table, .. } = turn;
        match packet::parse_any(umem.bytes(&packet.frame), packet.wire_len as usize) {
            Parsed::Ip(headers) => {
                if turn.complete_checksums {
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

    /// Does with a packet what its verdict says: marks it, and puts it into its ring or drops it.
    #[inline]
    pub(super) fn mark_and_hold(
        &mut self,
        mut packet: Packet,
        judged: &Judged,
        contract: &Contract,
        pool: &mut FramePool,
        turn: Turn<'_>,
    ) {
        let Turn { umem, cells, now, .. } = turn;
        let (slot, counted) = (contract.slot, judged.counted);
        if judged.half == Half::Nonconforming {
            match (contract.action, judged.family) {
                (Action::Drop, _) => {
                    return self.drop(packet, DropReason::Policed, judged, slot, pool, cells);
                }
                (Action::Remark, Some(family)) => {
                    let bytes = umem.bytes_mut(&mut packet.frame);
                    if remark(bytes, judged.l3_offset, family, contract.marking) {
                        cells.excess(slot).remarked.add(Amount::one(counted));
                    }
                }
                (Action::Remark | Action::Queue, _) => {}
            }
            if pool.is_low() {
                return self.drop(packet, DropReason::FramesLow, judged, slot, pool, cells);
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
                self.drop(entry.item.packet, reason, judged, slot, pool, cells);
            }
        }
    }

    #[cold]
    fn drop(
        &mut self,
        packet: Packet,
        reason: DropReason,
        judged: &Judged,
        slot: SlotId,
        pool: &mut FramePool,
        cells: WorkerCells<'_>,
    ) {
        self.counters.drop(reason, packet.wire_len);
        cells
            .excess(slot)
            .drop(reason, judged.half, Amount::one(judged.counted));
        pool.put(packet.frame);
    }
}

/// Gives a packet its colour and half, and counts it.
#[inline]
pub(super) fn meter(judged: &mut Judged, contract: &Contract, turn: Turn<'_>) {
    let Turn { cells, now, .. } = turn;
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

//! A worker in memory at full load, every packet of which is checked when it leaves.
//!
//! ```text
//!      ┌──────────────────── checked, made a new packet ◄───────────────────┐
//!      ▼                                                                    │
//!   always waiting ─► MemoryPort ─► Worker::turn, BACKLOG in its rings ─► MemoryPort
//! ```
//!
//! The sending port takes one batch a turn, as many as come in, so what waits in the rings at first waits there for ever:
//! packets are in every place where they can be when a table is swapped.
//!
//! Each packet carries its flow, its number within the flow, and a ticket that it holds for as long as it is under way. A
//! ticket never given back is a packet lost; a packet whose ticket is not its own has left before. Order is promised within a
//! flow and ring, and the DSCP of a packet that leaves tells its ring.

use std::sync::Arc;

use af_xdp::{Umem, UmemConfig};
use dataplane::clock::Nanos;
use dataplane::frame::{BATCH, FramePool, Packet};
use dataplane::lane::{Lane, WireEnds};
use dataplane::path::PortShare;
use dataplane::port::MemoryPort;
use dataplane::stats::DropReason;
use dataplane::worker::{CurrentTable, Worker, WorkerShared};

use crate::Error;
use crate::workload::{self, CLASSES, Flow, NONCONFORMING_DSCP, Random, SHORT};

/// Packets under way: as many frames as an RX ring holds.
pub const UNDER_WAY: usize = 2_048;

/// Packets in the rings between two turns: in a ring or two that hold 1,024 each, and too few for CoDel, whose 5 ms they
/// would have to wait longer than.
pub const BACKLOG: usize = 4 * BATCH;

/// Frames of the worker, as many as `control::plan` gives a lane.
const FRAMES: u32 = 16_384;

/// A worker with one lane on memory ports, and the books about its packets.
pub struct CheckedLane {
    worker: Worker<MemoryPort>,
    umem: Umem,
    /// One packet of each flow.
    packets: Vec<Vec<u8>>,
    books: Books,
    random: Random,
}

/// What the checks found.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Findings {
    /// Packets that were sent into the worker.
    pub sent: u64,
    /// Packets that left it as they should: not before, with a DSCP of their class.
    pub left: u64,
    /// Sent, and never left.
    pub lost: u64,
    /// Those of the lost that weir says it dropped, by reason.
    pub dropped: Vec<(&'static str, u64)>,
    /// Left a second time, or with a content that nobody sent.
    pub doubled: u64,
    /// Left after a later packet of the same flow and ring.
    pub reordered: u64,
    /// Frames that are nowhere any more.
    pub frames_missing: u64,
}

impl Findings {
    /// Whether every packet left once and in order.
    #[must_use]
    pub fn is_clean(&self) -> bool {
        let wrong = self.lost + self.doubled + self.reordered + self.frames_missing;
        wrong == 0 && self.sent == self.left
    }
}

impl CheckedLane {
    /// A lane at work since `now`, with all packets under way and a backlog in the rings. What `shared` says of it is for the
    /// control thread.
    ///
    /// # Errors
    /// No memory for the frames, or the worker does not take packets as it should.
    pub fn new(
        current: &CurrentTable,
        shared: Arc<WorkerShared>,
        flows: &[Flow],
        seed: u64,
        now: Nanos,
    ) -> Result<Self, Error> {
        let (umem, frames) = Umem::new(&UmemConfig {
            frame_count: FRAMES,
            tx_metadata: true,
            ..UmemConfig::default()
        })?;
        let ends = WireEnds {
            ports: [0, 1],
            shares: [Arc::new(PortShare::new()), Arc::new(PortShare::new())],
            seed,
        };
        let lane = Lane::new(0, &ends, MemoryPort::new(UNDER_WAY), MemoryPort::new(BATCH));
        let pool = FramePool::new(frames);
        let mut lane = Self {
            worker: Worker::new(vec![lane], umem.clone(), pool, current, shared, BATCH),
            umem,
            packets: flows.iter().map(|flow| workload::packet(flow, SHORT)).collect(),
            books: Books::new(flows),
            random: Random::new(seed),
        };
        for _ in 0..UNDER_WAY {
            let (umem, pool) = lane.worker.pool();
            let mut frame = pool.take().ok_or("the pool has no frame left")?;
            umem.reset(&mut frame);
            if !umem.set_len(&mut frame, lane.packets[0].len()) {
                return Err("the packet does not fit its frame".into());
            }
            lane.arrive(Packet::whole(frame));
        }
        // The first turn fills the sending port; of the others everything stays in the rings.
        for _ in 0..=BACKLOG / BATCH {
            lane.turn(now);
        }
        lane.renew();
        Ok(lane)
    }

    /// One turn of the worker at `now`.
    #[inline]
    pub fn turn(&mut self, now: Nanos) {
        self.worker.turn(now);
    }

    /// Checks what has left, and sends it in again as new packets, of flows drawn at random. Returns how many.
    #[inline]
    pub fn renew(&mut self) -> usize {
        let mut renewed = 0;
        while let Some(packet) = self.departed() {
            self.arrive(packet);
            renewed += 1;
        }
        renewed
    }

    /// Turns at `now` until nothing is held any more, and says what the checks have found.
    #[must_use]
    pub fn finish(mut self, now: Nanos) -> Findings {
        // Each turn takes in and sends a batch.
        for _ in 0..2 * (UNDER_WAY + BACKLOG) / BATCH {
            self.turn(now);
            while let Some(packet) = self.departed() {
                self.worker.pool().1.put(packet.frame);
            }
        }
        let mut found = self.books.findings();
        let [egress, _] = self.worker.lanes()[0].counters();
        found.dropped = DropReason::ALL
            .into_iter()
            .map(|reason| (reason.name(), egress.dropped[reason as usize].packets))
            .filter(|&(_, packets)| packets > 0)
            .collect();
        found.frames_missing = u64::from(FRAMES).saturating_sub(self.worker.frames() as u64);
        found
    }

    fn departed(&mut self) -> Option<Packet> {
        let packet = self.worker.lanes_mut()[0].ports_mut()[1].departed()?;
        self.books.departed(self.umem.bytes(&packet.frame));
        Some(packet)
    }

    /// Sends a new packet in, in the frame of `packet`.
    fn arrive(&mut self, mut packet: Packet) {
        let flow = self.random.below(self.packets.len() as u32);
        // More packets than tickets would mean that one has left twice: the books know, and this frame rests.
        let Some(stamp) = self.books.stamp(flow) else {
            return self.worker.pool().1.put(packet.frame);
        };
        let bytes = self.umem.bytes_mut(&mut packet.frame);
        bytes.copy_from_slice(&self.packets[flow as usize]);
        stamp.write(bytes);
        self.worker.lanes_mut()[0].ports_mut()[0].arrive(packet);
    }
}

/// What tells one packet from every other.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Stamp {
    flow: u32,
    ticket: u32,
    /// From 1 on in each flow.
    number: u64,
}

impl Stamp {
    /// Into the payload. It has no checksum: RFC 768, "an all zero transmitted checksum value means that the transmitter
    /// generated no checksum".
    #[inline]
    fn write(&self, packet: &mut [u8]) {
        packet[UDP_CHECKSUM..UDP_CHECKSUM + 2].fill(0);
        let payload = &mut packet[PAYLOAD..PAYLOAD + 16];
        payload[0..4].copy_from_slice(&self.flow.to_ne_bytes());
        payload[4..8].copy_from_slice(&self.ticket.to_ne_bytes());
        payload[8..16].copy_from_slice(&self.number.to_ne_bytes());
    }

    #[inline]
    fn read(packet: &[u8]) -> Option<Self> {
        let payload = packet.get(PAYLOAD..PAYLOAD + 16)?;
        Some(Self {
            flow: u32::from_ne_bytes(payload[0..4].try_into().ok()?),
            ticket: u32::from_ne_bytes(payload[4..8].try_into().ok()?),
            number: u64::from_ne_bytes(payload[8..16].try_into().ok()?),
        })
    }
}

/// Who is under way, and how far each flow has got.
struct Books {
    /// By ticket.
    under_way: Vec<Option<Stamp>>,
    tickets: Vec<u32>,
    flows: Vec<FlowBook>,
    found: Findings,
}

struct FlowBook {
    sent: u64,
    /// DSCP of its packets in the conforming and in the nonconforming ring.
    dscp: [u8; 2],
    /// Highest number that has left each of them.
    left: [u64; 2],
}

impl Books {
    fn new(flows: &[Flow]) -> Self {
        let book = |flow: &Flow| {
            let class = CLASSES.iter().position(|&(_, _, dscp)| dscp == flow.dscp);
            FlowBook {
                sent: 0,
                dscp: [flow.dscp, class.map_or(flow.dscp, |class| NONCONFORMING_DSCP[class])],
                left: [0; 2],
            }
        };
        Self {
            under_way: vec![None; UNDER_WAY],
            tickets: (0..UNDER_WAY as u32).collect(),
            flows: flows.iter().map(book).collect(),
            found: Findings::default(),
        }
    }

    /// For the next packet of `flow`; `None` while all tickets are under way.
    #[inline]
    fn stamp(&mut self, flow: u32) -> Option<Stamp> {
        let ticket = self.tickets.pop()?;
        let book = &mut self.flows[flow as usize];
        book.sent += 1;
        let stamp = Stamp {
            flow,
            ticket,
            number: book.sent,
        };
        self.under_way[ticket as usize] = Some(stamp);
        self.found.sent += 1;
        Some(stamp)
    }

    #[inline]
    fn departed(&mut self, packet: &[u8]) {
        let stamp = Stamp::read(packet);
        let own = |stamp: &Stamp| self.under_way.get(stamp.ticket as usize) == Some(&Some(*stamp));
        let Some(stamp) = stamp.filter(own) else {
            self.found.doubled += 1;
            return;
        };
        self.under_way[stamp.ticket as usize] = None;
        self.tickets.push(stamp.ticket);
        let book = &mut self.flows[stamp.flow as usize];
        let dscp = packet[DSCP] >> 2;
        // One of another DSCP counts as sent and not as left.
        let Some(ring) = book.dscp.iter().position(|&own| own == dscp) else {
            return;
        };
        self.found.left += 1;
        if stamp.number <= book.left[ring] {
            self.found.reordered += 1;
        } else {
            book.left[ring] = stamp.number;
        }
    }

    fn findings(&self) -> Findings {
        Findings {
            lost: self.under_way.iter().flatten().count() as u64,
            ..self.found.clone()
        }
    }
}

const DSCP: usize = 14 + 1;
const UDP_CHECKSUM: usize = 14 + 20 + 6;
const PAYLOAD: usize = 14 + 20 + 8;

const _: () = assert!(
    PAYLOAD + 16 <= SHORT - workload::FCS,
    "the stamp fits the shortest packet"
);

#[cfg(test)]
mod tests {
    use super::*;
    use arc_swap::ArcSwap;
    use control::compile::Compiler;
    use jiff::Timestamp;

    fn flow() -> Flow {
        Flow {
            source: [10, 0, 0, 1],
            source_port: 1024,
            dscp: CLASSES[0].2,
        }
    }

    /// Packets of one flow, as they were sent.
    fn sent(books: &mut Books, count: usize) -> Vec<Vec<u8>> {
        let packet = |_| {
            let mut packet = workload::packet(&flow(), SHORT);
            books.stamp(0).unwrap().write(&mut packet);
            packet
        };
        (0..count).map(packet).collect()
    }

    #[test]
    fn losses_doubles_and_disorder_are_found() {
        let mut books = Books::new(&[flow()]);
        let mut packets = sent(&mut books, 6);
        // The fourth overtakes the others in its own ring, which is no disorder; in the other ring the third comes late.
        packets[3][DSCP] = NONCONFORMING_DSCP[0] << 2;
        for number in [3, 0, 1, 1, 4, 2] {
            books.departed(&packets[number]);
        }
        let found = books.findings();
        let expected = Findings {
            sent: 6,
            left: 5,
            lost: 1,
            doubled: 1,
            reordered: 1,
            ..Findings::default()
        };
        assert_eq!(found, expected);
        assert!(!found.is_clean());
    }

    #[test]
    fn a_packet_of_another_dscp_has_not_left_as_it_should() {
        let mut books = Books::new(&[flow()]);
        let mut packets = sent(&mut books, 1);
        packets[0][DSCP] = 7 << 2;
        books.departed(&packets[0]);
        let found = books.findings();
        assert_eq!((found.sent, found.left, found.lost), (1, 0, 0));
        assert!(!found.is_clean());
    }

    #[test]
    fn a_worker_under_swaps_is_clean() {
        let loaded = workload::configuration("site", "wan", 0).unwrap();
        let mut compiler = Compiler::new(1, Nanos(200_000));
        let mut table = || compiler.compile(&loaded.config, Timestamp::now()).unwrap().table;
        let current: CurrentTable = Arc::new(ArcSwap::new(table()));
        let flows = workload::flows(&mut Random::new(1));
        let shared = Arc::new(WorkerShared::new(1));
        let mut now = Nanos::SECOND;
        let mut lane = CheckedLane::new(&current, shared.clone(), &flows, 1, now).unwrap();
        for turn in 0..2_000 {
            if turn % 100 == 0 {
                current.store(table());
            }
            now = now.plus(Nanos(6_400));
            lane.turn(now);
            assert_eq!(lane.renew(), BATCH);
        }
        assert_eq!(lane.worker.lanes()[0].held(), BACKLOG);
        assert_eq!(shared.generation(), 21);
        let found = lane.finish(now);
        assert!(found.is_clean(), "{found:?}");
        assert_eq!(found.sent, (UNDER_WAY + 2_001 * BATCH) as u64);
    }
}

//! A whole worker in memory: one lane between two memory ports, with packets waiting to come in.
//!
//! A pass is [`PASS`] packets, each in a frame of its own, as many as an RX ring holds: more than the first-level cache, as
//! frames that a device has written are. [`MemoryLane::reload`] brings the frames that went out back in, as packets of flows
//! drawn at random, and undoes with that what marking did to them; it is meant to stand outside of what is measured.

use std::sync::Arc;

use af_xdp::{Frame, Umem, UmemConfig};
use arc_swap::ArcSwap;
use config::Loaded;
use control::compile::Compiler;
use dataplane::clock::Nanos;
use dataplane::contract::ContractTable;
use dataplane::frame::{BATCH, FramePool, Packet};
use dataplane::lane::{Lane, WireEnds};
use dataplane::path::PortShare;
use dataplane::port::{MemoryPort, Port};
use dataplane::worker::{CurrentTable, Worker, WorkerShared};
use jiff::Timestamp;

use crate::Error;
use crate::workload::{self, Flow, FlowBytes, Random, SHORT};

/// Packets between two reloads: a full RX ring.
pub const PASS: usize = 2_048;

/// Frames of the worker, as many as `control::plan` gives a lane.
const FRAMES: u32 = 16_384;

/// As of an appliance with `poll = "busy"`.
const SLACK: Nanos = Nanos(200_000);

/// Time that goes by in a turn: 64 packets at 10 million a second.
const TURN: Nanos = Nanos(6_400);

/// A worker with one lane on memory ports, the table it runs, and the packets it is fed.
pub struct MemoryLane {
    worker: Worker<MemoryPort>,
    umem: Umem,
    current: CurrentTable,
    /// A packet of the first flow.
    packet: Vec<u8>,
    flows: Vec<FlowBytes>,
    random: Random,
    now: Nanos,
}

/// Two tables of the same contracts with different generations, so that going from one to the other makes every flow a new
/// one to the flow cache.
///
/// # Errors
/// The configuration is not valid, which would be an error of this package.
pub fn tables() -> Result<[Arc<ContractTable>; 2], Error> {
    let loaded = workload::configuration("site", "wan", 0)?;
    let mut compiler = Compiler::new(1, SLACK);
    let first = compiler.compile(&loaded.config, Timestamp::now())?;
    let second = compiler.compile(&loaded.config, Timestamp::now())?;
    Ok([first.table, second.table])
}

/// A table of `loaded` that `workers` workers share.
///
/// # Errors
/// The configuration is not valid.
pub fn shared_table(loaded: &Loaded, workers: usize) -> Result<Arc<ContractTable>, Error> {
    Ok(Compiler::new(workers, SLACK)
        .compile(&loaded.config, Timestamp::now())?
        .table)
}

impl MemoryLane {
    /// A lane that runs `table`, with one pass of packets waiting. `partial`: the ports are like veth ends, whose senders
    /// may leave checksums undone.
    ///
    /// # Errors
    /// No memory for the frames.
    pub fn new(table: Arc<ContractTable>, partial: bool, seed: u64) -> Result<Self, Error> {
        Self::of_worker(0, table, partial, seed)
    }

    /// The same for worker number `worker` of those that share `table`.
    ///
    /// # Errors
    /// No memory for the frames.
    pub fn of_worker(worker: usize, table: Arc<ContractTable>, partial: bool, seed: u64) -> Result<Self, Error> {
        let mut random = Random::new(seed);
        let flows = workload::flows(&mut random);
        Self::of_flows(worker, table, partial, &flows, random)
    }

    /// The same with packets of `flows`, one at least, drawn by `random`.
    ///
    /// # Errors
    /// No memory for the frames.
    pub fn of_flows(
        worker: usize,
        table: Arc<ContractTable>,
        partial: bool,
        flows: &[Flow],
        mut random: Random,
    ) -> Result<Self, Error> {
        let (umem, frames) = Umem::new(&UmemConfig {
            frame_count: FRAMES,
            tx_metadata: true,
            ..UmemConfig::default()
        })?;
        let port = || {
            let port = MemoryPort::new(PASS);
            if partial { port.with_partial_checksums() } else { port }
        };
        let ends = WireEnds {
            ports: [0, 1],
            shares: [Arc::new(PortShare::new()), Arc::new(PortShare::new())],
            seed: u64::from(random.below(u32::MAX)),
        };
        let lane = Lane::new(worker, &ends, port(), port());
        let current: CurrentTable = Arc::new(ArcSwap::new(table));
        let shared = Arc::new(WorkerShared::new(1));
        let pool = FramePool::new(frames);
        let worker = Worker::new(vec![lane], umem.clone(), pool, &current, shared, BATCH);
        let mut lane = Self {
            worker,
            umem,
            current,
            packet: workload::packet(&flows[0], SHORT),
            flows: flows.iter().map(|flow| workload::flow_bytes(flow, SHORT)).collect(),
            random,
            now: Nanos::SECOND,
        };
        lane.fill()?;
        Ok(lane)
    }

    /// Turns until the pass is through.
    #[inline]
    pub fn run(&mut self) {
        for _ in 0..PASS / BATCH {
            self.now = self.now.plus(TURN);
            self.worker.turn(self.now);
        }
    }

    /// What the memory ports cost by themselves: the same pass from port to port, with nothing in between.
    #[inline]
    pub fn run_ports_only(&mut self) {
        let [site, wan] = self.worker.lanes_mut()[0].ports_mut();
        let mut batch = dataplane::frame::Batch::new();
        for _ in 0..PASS / BATCH {
            site.rx_batch(BATCH, &mut batch);
            for packet in batch.drain(..) {
                // The port has room for a pass; a packet given back would be missed by the reload.
                let _sent = wan.tx(packet);
            }
        }
    }

    /// Lets the worker run `table` from the next turn on.
    pub fn publish(&self, table: Arc<ContractTable>) {
        self.current.store(table);
    }

    /// Brings everything that went out back in, as new packets.
    ///
    /// # Errors
    /// Packets are missing: then the figures would be of something else.
    pub fn reload(&mut self) -> Result<(), Error> {
        for number in 0..PASS {
            let Some(mut packet) = self.worker.lanes_mut()[0].ports_mut()[1].departed() else {
                return Err(format!("{} of {PASS} packets did not come out", PASS - number).into());
            };
            self.write(&mut packet.frame);
            self.arrive(packet);
        }
        Ok(())
    }

    /// Share of the packets so far that did not conform.
    #[must_use]
    pub fn nonconforming_share(&self) -> f64 {
        let table = self.current.load();
        let (mut conforming, mut nonconforming) = (0, 0);
        for contract in &table.contracts {
            let counters = table.cells.of(0).cell(contract.slot);
            conforming += counters.conforming.get().packets;
            nonconforming += counters.nonconforming.get().packets;
        }
        nonconforming as f64 / (conforming + nonconforming).max(1) as f64
    }

    fn fill(&mut self) -> Result<(), Error> {
        for _ in 0..PASS {
            let (umem, pool) = self.worker.pool();
            let mut frame = pool.take().ok_or("the pool has no frame left")?;
            umem.reset(&mut frame);
            if !umem.set_len(&mut frame, self.packet.len()) {
                return Err("the packet does not fit its frame".into());
            }
            self.write(&mut frame);
            self.arrive(Packet::whole(frame));
        }
        Ok(())
    }

    /// A packet of a flow drawn at random.
    fn write(&mut self, frame: &mut Frame) {
        let flow = self.random.below(self.flows.len() as u32) as usize;
        let bytes = self.umem.bytes_mut(frame);
        bytes.copy_from_slice(&self.packet);
        workload::become_flow(bytes, &self.flows[flow]);
    }

    fn arrive(&mut self, packet: Packet) {
        self.worker.lanes_mut()[0].ports_mut()[0].arrive(packet);
    }
}

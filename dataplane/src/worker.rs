//! A worker: a thread pinned to a core, owner of its lanes, frames and counters. One loop, run to completion.
//!
//! ```text
//!        ┌────────────────────────────────────────────────────────────────┐
//!        ▼                                                                │
//!   clock once ─► newest table (one load) ─► a turn of every lane ─► publish counters, heartbeat
//!                                                  │ idle and poll = "adaptive"
//!                                                  └────► sleep in poll(2)
//! ```
//!
//! States: boot (made, not yet turning), run, halt (asked to stop: finishes what it holds, then ends). Others talk to a
//! worker only through [`WorkerShared`], which it reads and writes once per turn.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU64, Ordering};
use std::time::Duration;

use af_xdp::SharedArray;
use arc_swap::ArcSwap;
use arc_swap::cache::Cache;
use arrayvec::ArrayVec;

use crate::clock::{Clock, Nanos};
use crate::contract::ContractTable;
use crate::frame::{FramePool, Umem};
use crate::lane::Lane;
use crate::port::{Port, XdpPort};
use crate::stats::Published;
use crate::tap::{PathTap, TapPoint};

/// What a worker is doing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum WorkerState {
    /// Made, not yet turning.
    Boot = 0,
    /// Turning.
    Run = 1,
    /// Ended.
    Halt = 2,
}

impl WorkerState {
    /// `boot`, `run` or `halt`.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            WorkerState::Boot => "boot",
            WorkerState::Run => "run",
            WorkerState::Halt => "halt",
        }
    }
}

/// What others may read of a worker, and the one thing they may tell it. Padded, so that readers do not disturb others.
#[derive(Debug)]
#[repr(align(128))]
pub struct WorkerShared {
    stop: AtomicBool,
    state: AtomicU8,
    generation: AtomicU64,
    turns: AtomicU64,
    free_frames: AtomicU64,
    frames_counted: AtomicU64,
    /// The ledgers: for each lane in turn, egress then ingress.
    pub ledgers: Box<[[Published; 2]]>,
    /// Where whoever captures hangs a tap.
    pub tap: TapPoint,
}

impl WorkerShared {
    /// For a worker with `lanes` lanes.
    #[must_use]
    pub fn new(lanes: usize) -> Self {
        Self {
            stop: AtomicBool::new(false),
            state: AtomicU8::new(WorkerState::Boot as u8),
            generation: AtomicU64::new(0),
            turns: AtomicU64::new(0),
            free_frames: AtomicU64::new(0),
            frames_counted: AtomicU64::new(0),
            ledgers: (0..lanes).map(|_| Default::default()).collect(),
            tap: TapPoint::default(),
        }
    }

    /// Asks the worker to finish what it holds and end.
    pub fn stop(&self) {
        self.stop.store(true, Ordering::Relaxed);
    }

    /// What the worker is doing.
    #[must_use]
    pub fn state(&self) -> WorkerState {
        match self.state.load(Ordering::Acquire) {
            0 => WorkerState::Boot,
            1 => WorkerState::Run,
            _ => WorkerState::Halt,
        }
    }

    /// Generation of the table that the worker runs. Once it is here, the worker will not look at an older one again.
    #[must_use]
    pub fn generation(&self) -> u64 {
        self.generation.load(Ordering::Acquire)
    }

    /// Turns made so far.
    #[must_use]
    pub fn turns(&self) -> u64 {
        self.turns.load(Ordering::Relaxed)
    }

    /// Frames free in the worker's pool.
    #[must_use]
    pub fn free_frames(&self) -> u64 {
        self.free_frames.load(Ordering::Relaxed)
    }

    /// Frames counted by owner at the last turn: pool, priority rings, kernel. All the worker has, unless one was lost.
    #[must_use]
    pub fn frames_counted(&self) -> u64 {
        self.frames_counted.load(Ordering::Relaxed)
    }
}

/// Whether an idle worker spins or sleeps.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Poll {
    /// Spin: the core is the worker's own.
    Busy,
    /// After [`IDLE`] without a packet, sleep in poll(2) until one comes: the core is shared.
    Adaptive,
}

/// Idle time before an adaptive worker sleeps. Waking costs some 10 µs; sleeping earlier would pay that between the packets
/// of a single busy flow, later would burn a shared core for nothing.
pub const IDLE: Nanos = Nanos(100 * 1_000);

/// Longest sleep. Bounds how late a worker sees a new table or a request to stop, and keeps its heartbeat fresh.
const SLEEP: Nanos = Nanos(10 * 1_000_000);

/// Sockets that one sleep watches: both ports of 16 lanes.
const POLLED: usize = 32;

/// Longest time a halting worker goes on for packets it still holds.
const HALT: Nanos = Nanos(200 * 1_000_000);

/// The table that workers should run. The control thread stores, workers load.
pub type CurrentTable = Arc<ArcSwap<ContractTable>>;

/// Everything a worker owns.
pub struct Worker<P> {
    lanes: Vec<Lane<P>>,
    umem: Umem,
    pool: FramePool,
    tables: Cache<CurrentTable, Arc<ContractTable>>,
    shared: Arc<WorkerShared>,
    heartbeats: Vec<(Arc<SharedArray>, usize)>,
    batch: usize,
    /// Version of the tap that hangs on the paths.
    tap: u64,
}

impl<P: Port> Worker<P> {
    /// A worker of these lanes; `batch` is 1 to [`crate::frame::BATCH`].
    #[must_use]
    pub fn new(
        lanes: Vec<Lane<P>>,
        umem: Umem,
        pool: FramePool,
        tables: &CurrentTable,
        shared: Arc<WorkerShared>,
        batch: usize,
    ) -> Self {
        let tables = Cache::new(tables.clone());
        Self {
            lanes,
            umem,
            pool,
            tables,
            shared,
            heartbeats: Vec::new(),
            batch,
            tap: 0,
        }
    }

    /// Lets the worker write the time of each turn to slot `index` of `array`, for the XDP program of a port.
    pub fn beat_into(&mut self, array: Arc<SharedArray>, index: usize) {
        self.heartbeats.push((array, index));
    }

    /// One turn of every lane at `now`, judged by one table. Returns how many packets came in.
    #[inline]
    pub fn turn(&mut self, now: Nanos) -> usize {
        if self.shared.tap.version() != self.tap {
            self.hang_tap();
        }
        let table = self.tables.load();
        let mut received = 0;
        for lane in &mut self.lanes {
            received += lane.turn(&self.umem, &mut self.pool, table, now, self.batch);
        }
        let generation = table.generation;
        self.publish(now, generation);
        received
    }

    #[cold]
    fn hang_tap(&mut self) {
        // The version first: a tap that comes between the two is hung twice, never missed.
        self.tap = self.shared.tap.version();
        let tap = self.shared.tap.tap();
        let on_path = |path| tap.as_ref().and_then(|tap| PathTap::new(tap, path));
        for (lane, first) in self.lanes.iter_mut().zip((0..).step_by(2)) {
            lane.set_taps([on_path(first), on_path(first + 1)]);
        }
    }

    /// The lanes.
    #[must_use]
    pub fn lanes(&self) -> &[Lane<P>] {
        &self.lanes
    }

    /// The same, to put packets in and take them out (memory ports).
    pub fn lanes_mut(&mut self) -> &mut [Lane<P>] {
        &mut self.lanes
    }

    /// The frames and the UMEM they are in.
    pub fn pool(&mut self) -> (&Umem, &mut FramePool) {
        (&self.umem, &mut self.pool)
    }

    /// The earliest instant at which a held packet may leave; `None` when nothing is held.
    #[must_use]
    pub fn next_departure(&mut self, now: Nanos) -> Option<Nanos> {
        let table = self.tables.load();
        self.lanes
            .iter()
            .filter_map(|lane| lane.next_departure(table, now))
            .min()
    }

    /// Frames in the pool, the rings and the ports: all there are, unless one was lost.
    #[must_use]
    pub fn frames(&self) -> usize {
        self.pool.len() + self.lanes.iter().map(Lane::frames_inside).sum::<usize>()
    }

    fn held(&self) -> usize {
        self.lanes.iter().map(Lane::held).sum()
    }

    #[inline]
    fn publish(&self, now: Nanos, generation: u64) {
        for (lane, published) in self.lanes.iter().zip(&self.shared.ledgers) {
            for (counters, published) in lane.counters().iter().zip(published) {
                published.publish(counters);
            }
        }
        for (array, index) in &self.heartbeats {
            array.set(*index, now.0);
        }
        self.shared
            .turns
            .store(self.shared.turns.load(Ordering::Relaxed) + 1, Ordering::Relaxed);
        self.shared.free_frames.store(self.pool.len() as u64, Ordering::Relaxed);
        self.shared
            .frames_counted
            .store(self.frames() as u64, Ordering::Relaxed);
        // Release: whoever reads this generation knows that every batch judged by an older table is done.
        self.shared.generation.store(generation, Ordering::Release);
    }
}

impl Worker<XdpPort> {
    /// Turns until told to stop, then until nothing is held any more or 200 ms are over. Runs on the calling thread,
    /// which should be pinned. Gives itself back, so that its ports are closed where the caller wants.
    pub fn run(mut self, clock: &impl Clock, poll: Poll) -> Self {
        self.shared.state.store(WorkerState::Run as u8, Ordering::Release);
        let mut last_packet = clock.now();
        while !self.shared.stop.load(Ordering::Relaxed) {
            let now = clock.now();
            if self.turn(now) > 0 {
                last_packet = now;
            } else if poll == Poll::Adaptive && now.since(last_packet) > IDLE {
                self.sleep(now);
            }
        }
        let asked = clock.now();
        let mut idle_since = asked;
        loop {
            let now = clock.now();
            if self.turn(now) > 0 || self.held() > 0 {
                idle_since = now;
            }
            if now.since(asked) > HALT || now.since(idle_since) > Nanos::MILLISECOND {
                break;
            }
        }
        self.lanes.iter().for_each(Lane::retire);
        self.shared.state.store(WorkerState::Halt as u8, Ordering::Release);
        self
    }

    #[cold]
    fn sleep(&mut self, now: Nanos) {
        let departure = self.next_departure(now).map(|at| at.since(now));
        let sleep = departure.map_or(SLEEP, |wait| wait.min(SLEEP));
        let sockets = self
            .lanes
            .iter()
            .flat_map(|lane| lane.ports().iter().map(|port| port.socket().fd()));
        // A worker with more sockets than fit sleeps on the first of them: SLEEP bounds how late it sees the others.
        let sockets: ArrayVec<_, POLLED> = sockets.take(POLLED).collect();
        // An error here (a signal) only means that the next turn comes early.
        let _woken = af_xdp::poll(&sockets, Some(Duration::from_nanos(sleep.0)));
    }
}

//! The appliance: ports, workers and the current table, from start to stop.
//!
//! Order of starting: look at the interfaces, bind all sockets, start the workers, attach the XDP programs last, so that no
//! packet is taken before somebody serves it. Stopping goes the other way round: detach, let the workers finish what they
//! hold, close the sockets. An error on the way undoes what was done, by dropping it.

use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use arc_swap::ArcSwap;
use config::{Config, Loaded, Report};
use dataplane::cells::SlotId;
use dataplane::clock::{Clock, MonotonicClock, Nanos};
use dataplane::lane::Lane;
use dataplane::path::PortShare;
use dataplane::port::{Attached, KernelCounters, OnStall, Program, QUEUES_MAX, XdpPort};
use dataplane::priority::Half;
use dataplane::sojourn::{PathGauges, RingReading};
use dataplane::stats::{Amount, KICKS, PathCounters};
use dataplane::worker::{Poll, Worker, WorkerShared, WorkerState};
use jiff::Timestamp;
use nix::sys::socket::{getsockopt, sockopt};
use parking_lot::Mutex;

use crate::capture::{CaptureError, Captures, LanePorts, Options, Session};
use crate::compile::{CompileError, Compiled, Compiler};
use crate::interface::{Interface, InterfaceError};
use crate::observe::{Observer, Reading, Ring, Totals, WorkerTotals, per_second};
use crate::plan::{self, Plan, PlanError};
use crate::port_fault::{self, PortFault, Watched};
use crate::publish::{Publisher, wait_for};
use crate::report::{LedgerReport, TrafficReport};
use crate::status::{ChangeStatus, Delivered, PortStatus, QueueStatus, RingStatus, Sojourn, Status, WorkerStatus};
use crate::system::privileges;

/// How much of a port's rate may be made up after a late turn, with `poll = "busy"`: longer than a turn of a busy worker
/// takes (tens of microseconds), short enough that the burst fits any switch buffer (250 kB at 10 Gbit/s).
pub const SLACK: Nanos = Nanos(200 * 1_000);

/// The same with `poll = "adaptive"`: there a worker shares its core, and the scheduler takes it away for some
/// milliseconds (a slice is about 3 ms). With less slack the port would lose what it was to send meanwhile. The price is a
/// burst of up to 5 ms of the rate.
pub const SLACK_SHARED: Nanos = Nanos(5 * 1_000_000);

/// Why the appliance could not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The configuration is not valid.
    #[error("the configuration is not valid")]
    Config(Report),
    /// It is valid but cannot become a table.
    #[error(transparent)]
    Compile(#[from] CompileError),
    /// An interface cannot be used.
    #[error(transparent)]
    Interface(#[from] InterfaceError),
    /// Interfaces, queues and workers do not fit together.
    #[error(transparent)]
    Plan(#[from] PlanError),
    /// A socket cannot be made.
    #[error("port `{port}` ({interface}), queue {queue}: {cause}")]
    Socket {
        /// Port in the configuration.
        port: String,
        /// Its interface.
        interface: String,
        /// Queue.
        queue: u32,
        /// What the kernel said.
        cause: af_xdp::Error,
    },
    /// The frames cannot be had.
    #[error("frames of worker {worker}: {cause}")]
    Umem {
        /// Worker.
        worker: usize,
        /// What the kernel said.
        cause: af_xdp::Error,
    },
    /// The XDP program cannot be loaded or attached.
    #[error("port `{port}`: {cause}")]
    Program {
        /// Port in the configuration.
        port: String,
        /// What the kernel said.
        cause: dataplane::port::ProgramError,
    },
    /// The fail-open bridge cannot be set up.
    #[error("bridge `{bridge}`: {cause}")]
    Bridge {
        /// The bridge.
        bridge: String,
        /// What went wrong.
        cause: String,
    },
    /// A thread could not be started.
    #[error("cannot start a worker thread: {0}")]
    Thread(std::io::Error),
}

impl StartError {
    /// What the operator can do, if the message does not already say it.
    #[must_use]
    pub fn remedy(&self) -> Option<String> {
        match self {
            StartError::Socket { cause, .. } | StartError::Umem { cause, .. } => cause.remedy().map(str::to_owned),
            StartError::Program { cause, .. } => Some(cause.remedy().to_owned()),
            StartError::Interface(error) => error.remedy(),
            StartError::Plan(error) => Some(error.remedy()),
            StartError::Bridge { .. } => {
                Some("the name must be free or belong to a bridge; weir needs CAP_NET_ADMIN to set it up".into())
            }
            _ => None,
        }
    }

    /// Whether the operator's input is at fault, rather than the machine: exit status 2 instead of 1.
    #[must_use]
    pub fn is_configuration(&self) -> bool {
        matches!(self, StartError::Config(_) | StartError::Compile(_))
    }
}

/// Why a reload was refused. The table before it goes on.
#[derive(Debug, thiserror::Error)]
pub enum ReloadError {
    /// The files are not valid.
    #[error("{}", .0.render(false).trim_end())]
    Config(Report),
    /// They are valid but cannot become a table.
    #[error(transparent)]
    Compile(#[from] CompileError),
    /// They change what only a restart can change.
    #[error("{what} changed: that takes a restart (`systemctl restart weir`); the running table goes on")]
    NeedsRestart {
        /// What changed.
        what: String,
    },
}

/// What a swap came to.
#[derive(Debug)]
pub struct Swapped {
    /// Generation of the new table.
    pub generation: u64,
    /// Whether every worker took it within a second; if not, one hangs, and takes it when it goes on.
    pub taken: bool,
    /// What `check` would warn of.
    pub warnings: Report,
    /// What ran before.
    pub old: Arc<Config>,
}

/// A running gateway.
pub struct Appliance {
    view: View,
    compiler: Compiler,
    publisher: Publisher,
    captures: Captures,
}

/// What runs, to be read by any thread without asking the control thread: one configuration, its table, and the counters.
///
/// A view does not change when the table is swapped: take a newer one ([`Appliance::view`]). Reading is relaxed loads and,
/// for what the kernel counts, system calls; nothing that a worker uses is written. All views have to be dropped before
/// the appliance is stopped, because they keep interfaces and sockets.
#[derive(Clone)]
pub struct View {
    config: Arc<Config>,
    compiled: Arc<Compiled>,
    workers: Vec<Arc<RunningWorker>>,
    shared: Vec<Arc<WorkerShared>>,
    ports: Vec<Arc<RunningPort>>,
    started: Instant,
    /// When the current table was published.
    published: Instant,
    observer: Arc<ArcSwap<Observer>>,
}

struct RunningWorker {
    cpu: Option<usize>,
    frames: u64,
    thread: Mutex<Option<JoinHandle<Worker<XdpPort>>>>,
    /// For each lane: queue, and by end of the wire (site, wan) the port and its socket's statistics.
    lanes: Vec<LaneEnds>,
}

impl RunningWorker {
    fn has_ended(&self) -> bool {
        self.thread.lock().as_ref().is_some_and(JoinHandle::is_finished)
    }
}

struct LaneEnds {
    queue: u32,
    ports: [usize; 2],
    sockets: [OwnedFd; 2],
    /// The kernel has taken the interface away from the socket, for good. It says so once.
    unbound: [AtomicBool; 2],
    zero_copy: [bool; 2],
    /// The rings of the path from each end to the other.
    gauges: [Arc<PathGauges>; 2],
}

impl LaneEnds {
    fn new(planned: &plan::PlannedLane, lane: &Lane<XdpPort>) -> std::io::Result<Self> {
        let [site, wan] = lane.ports();
        let socket = |port: &XdpPort| port.socket().fd().try_clone_to_owned();
        Ok(Self {
            queue: planned.queue,
            ports: planned.ports,
            sockets: [socket(site)?, socket(wan)?],
            unbound: Default::default(),
            zero_copy: [site.socket().is_zero_copy(), wan.socket().is_zero_copy()],
            gauges: lane.gauges(),
        })
    }

    fn is_unbound(&self, end: usize) -> bool {
        let error = getsockopt(&self.sockets[end], sockopt::SocketError);
        if error.is_ok_and(|error| error == libc::ENETDOWN) {
            self.unbound[end].store(true, Ordering::Relaxed);
        }
        self.unbound[end].load(Ordering::Relaxed)
    }

    fn for_capture(&self) -> LanePorts {
        LanePorts {
            queue: self.queue,
            ports: self.ports,
        }
    }
}

struct RunningPort {
    interface: Interface,
    /// Largest MTU whose packets fit a frame.
    mtu_max: u32,
    attached: Mutex<Attached>,
}

impl Drop for Appliance {
    fn drop(&mut self) {
        self.halt();
    }
}

impl Appliance {
    /// Starts the gateway that `loaded` describes. Needs CAP_NET_ADMIN, CAP_NET_RAW, CAP_BPF (and CAP_IPC_LOCK where the
    /// locked-memory limit is small); see `af_xdp` and `dataplane::port` for the system calls.
    ///
    /// # Errors
    /// See [`StartError`]; the machine is left as it was, but that interfaces stay up. A fail-open bridge that this start
    /// has made is removed again; one that was there before keeps the ports. After a start that succeeds the bridge stays
    /// for good, because it is what carries on without weir.
    pub fn start(loaded: Loaded) -> Result<Self, StartError> {
        let config = loaded.config;
        let interfaces: Vec<Interface> = config
            .ports
            .iter()
            .map(|port| Interface::prepare(&port.interface))
            .collect::<Result<_, _>>()?;
        let plan = Plan::new(&config, &interfaces)?;
        let slack = match config.workers.poll {
            config::Poll::Busy => SLACK,
            config::Poll::Adaptive => SLACK_SHARED,
        };
        let mut compiler = Compiler::new(plan.workers.len(), slack);
        let compiled = compiler.compile(&config, Timestamp::now())?;
        let publisher = Publisher::new(compiled.table.clone());
        let bridges = make_bridges(&config)?;

        let on_stall = match config.fail {
            config::Fail::Open => OnStall::Open,
            config::Fail::Closed => OnStall::Closed,
        };
        let mut programs = plan::load_programs(&config, on_stall, Nanos(config.workers.stale_after_ns))?;
        let shares: Vec<Arc<PortShare>> = config.ports.iter().map(|_| Arc::new(PortShare::new())).collect();
        let mut appliance = Self {
            view: View {
                config: Arc::new(config),
                compiled: Arc::new(compiled),
                workers: Vec::new(),
                shared: Vec::new(),
                ports: Vec::new(),
                started: Instant::now(),
                published: Instant::now(),
                observer: Arc::default(),
            },
            compiler,
            publisher,
            captures: Captures::new(Vec::new(), Vec::new()),
        };
        // If anything fails from here on, dropping the appliance ends the workers there are.
        appliance.start_workers(&plan, &interfaces, &shares, &mut programs)?;
        appliance.attach(interfaces, programs, plan.mtu_max())?;
        bridges.keep();
        Ok(appliance)
    }

    /// Builds all workers, and then starts them, so that nothing runs if one cannot be built.
    fn start_workers(
        &mut self,
        plan: &Plan,
        interfaces: &[Interface],
        shares: &[Arc<PortShare>],
        programs: &mut [Program],
    ) -> Result<(), StartError> {
        let mut unstarted = Vec::new();
        for (number, planned) in plan.workers.iter().enumerate() {
            let share = Arc::new(WorkerShared::new(planned.lanes.len()));
            let built = plan::build_worker(
                number,
                planned,
                plan,
                &self.view.config,
                interfaces,
                shares,
                programs,
                &self.publisher.current(),
                share.clone(),
            )?;
            let lanes = planned
                .lanes
                .iter()
                .zip(built.worker.lanes())
                .map(|(lane, ends)| LaneEnds::new(lane, ends));
            let lanes = lanes.collect::<Result<_, _>>().map_err(StartError::Thread)?;
            self.view.workers.push(Arc::new(RunningWorker {
                cpu: planned.cpu,
                frames: built.frames,
                thread: Mutex::new(None),
                lanes,
            }));
            self.view.shared.push(share);
            unstarted.push(built.worker);
        }
        let poll = match self.view.config.workers.poll {
            config::Poll::Busy => Poll::Busy,
            config::Poll::Adaptive => Poll::Adaptive,
        };
        for (running, worker) in self.view.workers.iter().zip(unstarted) {
            *running.thread.lock() = Some(spawn(worker, running.cpu, poll).map_err(StartError::Thread)?);
        }
        let lanes = |worker: &Arc<RunningWorker>| worker.lanes.iter().map(LaneEnds::for_capture).collect();
        let workers = self.view.workers.iter().map(lanes).collect();
        self.captures = Captures::new(self.view.shared.clone(), workers);
        wait_for(&self.view.shared, 1, Duration::from_secs(1));
        Ok(())
    }

    /// Attaches the programs: from here on packets go to the workers.
    fn attach(&mut self, interfaces: Vec<Interface>, programs: Vec<Program>, mtu_max: u32) -> Result<(), StartError> {
        for ((interface, program), port) in interfaces.into_iter().zip(programs).zip(&self.view.config.ports) {
            let attached = program.attach(&port.interface, interface.index, plan::xdp_mode(port.xdp));
            let attached = attached.map_err(|cause| StartError::Program {
                port: port.name.clone(),
                cause,
            })?;
            self.view.ports.push(Arc::new(RunningPort {
                interface,
                mtu_max,
                attached: Mutex::new(attached),
            }));
        }
        Ok(())
    }

    /// Swaps the table for that of another configuration, whole. Ports, wires, workers, `fail` and the directory of the
    /// history must be the same.
    ///
    /// # Errors
    /// See [`ReloadError`]; the table before goes on.
    pub fn swap(&mut self, loaded: Loaded) -> Result<Swapped, ReloadError> {
        if let Some(what) = plan::needs_restart(&self.view.config, &loaded.config) {
            return Err(ReloadError::NeedsRestart { what });
        }
        let compiled = self.compiler.compile(&loaded.config, Timestamp::now())?;
        let old = std::mem::replace(&mut self.view.config, Arc::new(loaded.config));
        let generation = self.publish(compiled);
        let taken = wait_for(&self.view.shared, generation, Duration::from_secs(1));
        self.retire();
        Ok(Swapped {
            generation,
            taken,
            warnings: loaded.warnings,
            old,
        })
    }

    /// What runs.
    #[must_use]
    pub fn config(&self) -> &Config {
        &self.view.config
    }

    /// The table of it.
    #[must_use]
    pub fn compiled(&self) -> &Compiled {
        &self.view.compiled
    }

    /// All of it as of now, for others to read.
    #[must_use]
    pub fn view(&self) -> &View {
        &self.view
    }

    /// To be called a few times a second: lets old tables go, and swaps the table when a contract begins or ends.
    /// Returns the generation of a table that came about so.
    ///
    /// # Errors
    /// The contracts of the new period do not compile; the table before goes on.
    pub fn keep_house(&mut self) -> Result<Option<u64>, CompileError> {
        self.retire();
        let now = Timestamp::now();
        if self.view.compiled.next_change.is_none_or(|change| change > now) {
            return Ok(None);
        }
        let compiled = self.compiler.compile(&self.view.config, now)?;
        Ok(Some(self.publish(compiled)))
    }

    /// What has gone wrong that takes a new start: see [`takes_restart`](port_fault::PortFaultKind::takes_restart), and a worker that ended.
    #[must_use]
    pub fn fault(&self) -> Option<String> {
        let mut faults = self.view.port_faults().into_iter().flatten();
        if let Some(fault) = faults.find(|fault| fault.kind.takes_restart()) {
            return Some(format!("{}: {}", fault.message, fault.remedy));
        }
        let ended = self.view.workers.iter().position(|worker| worker.has_ended());
        ended.map(|worker| format!("worker {worker} has ended by itself: this is an error in weir, please report it"))
    }

    /// What `weir status` shows, but for what [`Changes`](crate::change::changes::Changes) knows.
    #[must_use]
    pub fn status(&self) -> Status {
        self.view.status()
    }

    /// The same with only those contracts whose slots are `wanted`.
    #[must_use]
    pub fn status_of(&self, wanted: impl Fn(SlotId) -> bool) -> Status {
        self.view.status_of(wanted)
    }

    /// Begins a capture of packets; see [`crate::capture`].
    ///
    /// # Errors
    /// See [`CaptureError`].
    pub fn capture(&mut self, options: &Options, author: &str) -> Result<Session, CaptureError> {
        let View { config, compiled, .. } = &self.view;
        self.captures.begin(options, author, config, compiled)
    }

    /// Detaches the programs, lets the workers finish what they hold, closes the sockets. Returns the last status.
    pub fn stop(mut self) -> Status {
        self.halt();
        self.view.status()
    }

    fn halt(&mut self) {
        privileges::raise_for_stop();
        self.captures.stop();
        for port in &self.view.ports {
            port.attached.lock().detach();
        }
        for shared in &self.view.shared {
            shared.stop();
        }
        // Workers give themselves back, and with them their sockets: all are closed here, after the last has ended.
        let threads = self
            .view
            .workers
            .iter()
            .filter_map(|worker| worker.thread.lock().take());
        let _closed: Vec<_> = threads.map(JoinHandle::join).collect();
    }

    fn publish(&mut self, compiled: Compiled) -> u64 {
        let generation = compiled.table.generation;
        self.publisher.publish(compiled.table.clone());
        self.view.compiled = Arc::new(compiled);
        self.view.published = Instant::now();
        self.captures.table_changed(&self.view.config, &self.view.compiled);
        generation
    }

    fn retire(&mut self) {
        self.publisher.retire(self.view.shared.iter().map(|shared| &**shared));
    }
}

impl View {
    /// The configuration.
    #[must_use]
    pub fn config(&self) -> &Config {
        &self.config
    }

    /// Its table.
    #[must_use]
    pub fn compiled(&self) -> &Compiled {
        &self.compiled
    }

    /// What each worker shares, in their order.
    #[must_use]
    pub fn shared(&self) -> &[Arc<WorkerShared>] {
        &self.shared
    }

    /// What is the matter with each port, by its number. A few system calls for each.
    #[must_use]
    pub fn port_faults(&self) -> Vec<Vec<PortFault>> {
        let look = |(number, port): (usize, &Arc<RunningPort>)| {
            let mut ends = self.workers.iter().flat_map(|worker| &worker.lanes).flat_map(|lane| {
                let ends = (0..2).filter(|&end| lane.ports[end] == number);
                ends.map(move |end| (lane, end))
            });
            port_fault::look(&Watched {
                interface: &port.interface,
                mtu_max: port.mtu_max,
                is_bound: !ends.any(|(lane, end)| lane.is_unbound(end)),
                is_attached: port.attached.lock().is_attached(),
            })
        };
        self.ports.iter().enumerate().map(look).collect()
    }

    /// The priority rings that have carried anything, each port's added up over the workers.
    #[must_use]
    pub fn rings(&self) -> Vec<Ring> {
        let mut rings = Vec::new();
        for (half, ring) in Ring::all() {
            for port in 0..self.config.ports.len() {
                let mut reading = RingReading::default();
                for lane in self.workers.iter().flat_map(|worker| &worker.lanes) {
                    // The path from one end sends at the other.
                    for gauges in (0..2)
                        .filter(|end| lane.ports[1 - end] == port)
                        .map(|end| &lane.gauges[end])
                    {
                        if gauges.of(half, ring).is_used() {
                            reading.merge(&gauges.of(half, ring).read());
                        }
                    }
                }
                if reading.high_watermark > 0 {
                    rings.push(Ring {
                        port,
                        half,
                        ring,
                        reading,
                    });
                }
            }
        }
        rings
    }

    /// What was observed over the last minute.
    #[must_use]
    pub fn observer(&self) -> Arc<Observer> {
        self.observer.load_full()
    }

    /// To be called with every tick: reads everything once a second.
    pub fn observe(&self, now: Instant) {
        let mut observer = Observer::clone(&self.observer());
        if !observer.is_due(now) {
            return;
        }
        let mut contracts = Vec::new();
        for contract in &self.compiled.table.contracts {
            let index = contract.slot.0 as usize;
            if index >= contracts.len() {
                contracts.resize(index + 1, Totals::default());
            }
            contracts[index] = Totals::read(&self.compiled.table.cells, contract.slot);
        }
        let mut ports = vec![Amount::default(); self.config.ports.len()];
        let mut workers = Vec::new();
        for (worker, shared) in self.workers.iter().zip(&self.shared) {
            let mut totals = WorkerTotals {
                turns: shared.turns(),
                packets: 0,
            };
            for (lane, published) in worker.lanes.iter().zip(&shared.ledgers) {
                for (end, published) in published.iter().enumerate() {
                    let counters = published.read();
                    ports[lane.ports[1 - end]] += counters.forwarded;
                    totals.packets += counters.received.packets;
                }
            }
            workers.push(totals);
        }
        let rings = self.rings();
        observer.take(Reading {
            at: now,
            contracts,
            ports,
            workers,
            rings,
        });
        self.observer.store(Arc::new(observer));
    }

    /// Packets that the ledgers cannot explain; the XDP programs' own counters close by construction.
    #[must_use]
    pub fn unaccounted(&self) -> i64 {
        self.path_counters().map(|path| path.unaccounted()).sum()
    }

    /// Turns that each worker has made.
    pub(crate) fn turns(&self) -> Vec<u64> {
        self.shared.iter().map(|shared| shared.turns()).collect()
    }

    pub(crate) fn path_counters(&self) -> impl Iterator<Item = PathCounters> + '_ {
        self.shared
            .iter()
            .flat_map(|shared| shared.ledgers.iter().flatten().map(|published| published.read()))
    }

    /// What `weir status` shows, but for what [`Changes`](crate::change::changes::Changes) knows.
    #[must_use]
    pub fn status(&self) -> Status {
        self.status_of(|_| true)
    }

    /// The same with only those contracts whose slots are `wanted`.
    #[must_use]
    pub fn status_of(&self, wanted: impl Fn(SlotId) -> bool) -> Status {
        let now = Some(MonotonicClock.now());
        let mut traffic = self.compiled.traffic_of(now, Some(&self.observer()), wanted);
        traffic.ledger = self.ledger();
        self.status_with(traffic)
    }

    /// The same without contracts, of which there may be many; without what is said of all of them: `under_grant_bytes` and
    /// the alarms of contracts.
    #[must_use]
    pub fn status_without_contracts(&self) -> Status {
        let mut traffic = self.compiled.traffic_without_contracts(Some(&self.observer()));
        traffic.ledger = self.ledger();
        self.status_with(traffic)
    }

    /// The same, still without contracts but with the alarms of all of them.
    #[must_use]
    pub fn status_with_alarms(&self) -> Status {
        let observer = self.observer();
        let mut status = self.status_of(|slot| {
            // Without excess or loss there is no alarm.
            let minute = observer.rates(slot).last_minute;
            minute.conforming_dropped_packets > 0 || minute.nonconforming_bps > 0
        });
        status.traffic.contracts.clear();
        status
    }

    /// Time since the appliance started.
    #[must_use]
    pub fn uptime(&self) -> Duration {
        self.started.elapsed()
    }

    fn status_with(&self, traffic: TrafficReport) -> Status {
        let mut status = Status {
            version: env!("CARGO_PKG_VERSION").to_owned(),
            region: self.config.region.clone(),
            generation: self.compiled.table.generation,
            uptime_seconds: self.started.elapsed().as_secs_f64(),
            table_seconds: self.published.elapsed().as_secs_f64(),
            alarms: Vec::new(),
            windows: self.observer().windows(),
            last_reload_error: None,
            change: ChangeStatus::default(),
            over_grant_bytes: 0,
            contracts_left_out: 0,
            under_grant_bytes: traffic.contracts.iter().map(|c| c.under_grant_bytes).max().unwrap_or(0),
            workers: self.worker_status(),
            ports: self.port_status(),
            traffic,
        };
        status.alarms = crate::alarms::alarms(&status);
        status
    }

    fn ledger(&self) -> Vec<LedgerReport> {
        let mut ledger = Vec::new();
        for (worker, shared) in self.workers.iter().zip(&self.shared) {
            for (lane, published) in worker.lanes.iter().zip(&shared.ledgers) {
                for (end, published) in published.iter().enumerate() {
                    let port = lane.ports[end];
                    let report = LedgerReport::new(&self.config.ports[port].name, lane.queue, &published.read());
                    let kernel = self.ports[port].attached.lock().counters(lane.queue).ok();
                    ledger.push(report.with_kernel(&kernel.unwrap_or_default()));
                }
            }
        }
        for (port, queue, kernel) in self.unserved() {
            let report = LedgerReport::new(&self.config.ports[port].name, queue, &PathCounters::default());
            ledger.push(report.with_kernel(&kernel));
        }
        ledger.sort_by(|a, b| (&a.port, a.queue).cmp(&(&b.port, b.queue)));
        ledger
    }

    /// Port and queue of packets that came where no worker is: queues added after start. The XDP program drops them.
    #[must_use]
    pub fn unserved_queues(&self) -> Vec<(&str, u32)> {
        let name = |(port, queue, _): (usize, u32, _)| (self.config.ports[port].name.as_str(), queue);
        self.unserved().into_iter().map(name).collect()
    }

    /// Rings and delivered rates.
    fn add_rings(&self, ports: &mut [PortStatus]) {
        let rings = self.rings();
        let observer = self.observer();
        let since = observer.minute_ago();
        for (number, port) in ports.iter_mut().enumerate() {
            let rate = |since: Option<&Reading>| {
                let (sent, seconds) = observer.sent(number, since);
                per_second(counted_bytes(self.config.defaults.layer, sent) * 8, seconds)
            };
            port.delivered = Delivered {
                last_second_bps: rate(observer.second_ago()),
                last_minute_bps: rate(since),
            };
            for (class, slot) in self.compiled.classes() {
                for (half, name) in [(Half::Conforming, "conforming"), (Half::Nonconforming, "nonconforming")] {
                    let is = |ring: &&Ring| (ring.port, ring.half, ring.ring) == (number, half, slot);
                    let mut status = RingStatus {
                        class: class.to_owned(),
                        half: name.to_owned(),
                        ..RingStatus::default()
                    };
                    if let Some(ring) = rings.iter().find(is) {
                        let of = &ring.reading;
                        let minute = since.map_or_else(|| of.waits.clone(), |since| ring.waits_since(&since.rings));
                        status.held = of.held;
                        status.high_watermark = of.high_watermark;
                        status.sojourn_us = Sojourn::new(&minute, of.max_ns);
                        status.sojourn_since_start_us = Sojourn::new(&of.waits, of.max_ns);
                    }
                    port.rings.push(status);
                }
            }
        }
    }

    /// Queues that no worker owns and whose counters are not zero, with the port's number.
    fn unserved(&self) -> Vec<(usize, u32, KernelCounters)> {
        let lanes = || self.workers.iter().flat_map(|worker| &worker.lanes);
        let mut unserved = Vec::new();
        for (number, port) in self.ports.iter().enumerate() {
            let attached = port.attached.lock();
            for queue in 0..QUEUES_MAX {
                if lanes().any(|lane| lane.queue == queue && lane.ports.contains(&number)) {
                    continue;
                }
                let kernel = attached.counters(queue).unwrap_or_default();
                if kernel != KernelCounters::default() {
                    unserved.push((number, queue, kernel));
                }
            }
        }
        unserved
    }

    fn worker_status(&self) -> Vec<WorkerStatus> {
        let observer = self.observer();
        let status = |(number, (worker, shared)): (usize, (&Arc<RunningWorker>, &Arc<WorkerShared>))| {
            let failed = worker.has_ended() && shared.state() != WorkerState::Halt;
            let done = observer.worker(number);
            let last = observer
                .latest()
                .and_then(|latest| Some(latest.workers.get(number)?.turns));
            WorkerStatus {
                worker: number,
                cpu: worker.cpu,
                state: if failed { "fail" } else { shared.state().name() }.to_owned(),
                generation: shared.generation(),
                turns: shared.turns(),
                turns_per_second: done.map_or(0, |(done, seconds)| per_second(done.turns, seconds)),
                packets_per_turn: done.map_or(0.0, |(done, _)| done.packets as f64 / done.turns.max(1) as f64),
                stalled: done.is_some_and(|(done, _)| done.turns == 0) && Some(shared.turns()) == last,
                free_frames: shared.free_frames(),
                frames_counted: shared.frames_counted(),
                frames: worker.frames,
            }
        };
        self.workers.iter().zip(&self.shared).enumerate().map(status).collect()
    }

    fn port_status(&self) -> Vec<PortStatus> {
        let mut ports: Vec<PortStatus> = self
            .config
            .ports
            .iter()
            .zip(&self.ports)
            .zip(self.port_faults())
            .map(|((port, running), faults)| PortStatus {
                faults,
                port: port.name.clone(),
                interface: port.interface.clone(),
                side: match port.side {
                    config::Side::Site => "site",
                    config::Side::Wan => "wan",
                }
                .to_owned(),
                xdp: running.attached.lock().mode().name().to_owned(),
                mode: "copy".to_owned(),
                driver: running.interface.driver.clone(),
                rate_bps: port.rate_bps,
                queues: Vec::new(),
                ..PortStatus::default()
            })
            .collect();
        self.add_rings(&mut ports);
        for (number, (worker, shared)) in self.workers.iter().zip(&self.shared).enumerate() {
            for (lane, published) in worker.lanes.iter().zip(&shared.ledgers) {
                for end in 0..2 {
                    let port = &mut ports[lane.ports[end]];
                    if lane.zero_copy[end] {
                        "zero-copy".clone_into(&mut port.mode);
                    }
                    // A port is sent to by the path that comes from the other end.
                    let kicks = published[1 - end].read().kicks;
                    port.queues.push(QueueStatus {
                        queue: lane.queue,
                        worker: number,
                        xdp_statistics: crate::interface::statistics_by_name(lane.sockets[end].as_fd()),
                        kicks: KICKS
                            .iter()
                            .zip(kicks)
                            .map(|(name, n)| ((*name).to_owned(), n))
                            .collect(),
                    });
                }
            }
        }
        for port in &mut ports {
            port.queues.sort_by_key(|queue| queue.queue);
        }
        ports
    }
}

fn spawn(worker: Worker<XdpPort>, cpu: Option<usize>, poll: Poll) -> std::io::Result<JoinHandle<Worker<XdpPort>>> {
    let name = cpu.map_or("weir-worker".to_owned(), |cpu| format!("weir-cpu{cpu}"));
    std::thread::Builder::new().name(name).spawn(move || {
        if let Some(id) = cpu {
            // A core that is not ours to use is reported when the workers are planned; pinning itself is a wish.
            let _pinned = core_affinity::set_for_current(core_affinity::CoreId { id });
        }
        if let Err(error) = privileges::confine_worker() {
            tracing::warn!(event = "privileges", "a worker keeps its privileges: {error}");
        }
        worker.run(&MonotonicClock, poll)
    })
}

/// Frame bytes of packets in the layer that counts; tags are taken for a part of the packet.
fn counted_bytes(layer: config::Layer, frames: Amount) -> u64 {
    match layer {
        config::Layer::L3 => frames.bytes.saturating_sub(14 * frames.packets),
        config::Layer::L2 => frames.bytes,
        // FCS, preamble and gap.
        config::Layer::L1 => frames.bytes + 24 * frames.packets,
    }
}

/// Bridges that this start has made. Dropped before [`keep`](Self::keep) they are removed again.
struct NewBridges(Vec<String>);

impl NewBridges {
    fn keep(mut self) {
        self.0.clear();
    }
}

impl Drop for NewBridges {
    fn drop(&mut self) {
        for bridge in &self.0 {
            // The error that ended the start is the one to tell.
            let _deleted = pktgen::lab::links::delete(bridge);
        }
    }
}

fn make_bridges(config: &Config) -> Result<NewBridges, StartError> {
    let mut new = NewBridges(Vec::new());
    for wire in &config.wires {
        let Some(bridge) = &wire.bridge else { continue };
        let ports = [wire.site, wire.wan].map(|port| config.ports[port].interface.as_str());
        let is_new = pktgen::lab::ensure_bridge(bridge, &ports).map_err(|cause| StartError::Bridge {
            bridge: bridge.clone(),
            cause: cause.to_string(),
        })?;
        if is_new {
            new.0.push(bridge.clone());
        }
    }
    Ok(new)
}

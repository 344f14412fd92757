//! The appliance: ports, workers and the current table, from start to stop.
//!
//! Order of starting: look at the interfaces, bind all sockets, start the workers, attach the XDP programs last, so that no
//! packet is taken before somebody serves it. Stopping goes the other way round: detach, let the workers finish what they
//! hold, close the sockets. An error on the way undoes what was done, by dropping it.

mod error;
mod view;

use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use config::{Config, Loaded, Report};
use dataplane::cells::SlotId;
use dataplane::clock::{MonotonicClock, Nanos};
use dataplane::lane::Lane;
use dataplane::path::PortShare;
use dataplane::port::{Attached, OnStall, Program, XdpPort};
use dataplane::sojourn::PathGauges;
use dataplane::worker::{Poll, Worker, WorkerShared};
use jiff::Timestamp;
use nix::sys::socket::{getsockopt, sockopt};
use parking_lot::Mutex;

use crate::capture::{CaptureError, Captures, LanePorts, Options, Session};
use crate::compile::{CompileError, Compiled, Compiler};
use crate::interface::Interface;
use crate::levels::Levels;
use crate::plan::{self, Plan};
use crate::publish::{Publisher, wait_for};
use crate::status::Status;
use crate::system::privileges;

pub use error::{MESSAGES_SHOWN, ReloadError, StartError};
pub use view::View;

/// How much of a port's rate may be made up after a late turn, with `poll = "busy"`: longer than a turn of a busy worker
/// takes (tens of microseconds), short enough that the burst fits any switch buffer (250 kB at 10 Gbit/s).
pub const SLACK: Nanos = Nanos(200 * 1_000);

/// The same with `poll = "adaptive"`: there a worker shares its core, and the scheduler takes it away for some
/// milliseconds (a slice is about 3 ms). With less slack the port would lose what it was to send meanwhile. The price is a
/// burst of up to 5 ms of the rate.
pub const SLACK_SHARED: Nanos = Nanos(5 * 1_000_000);

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
        Self::start_from(loaded, &Levels::default())
    }

    /// The same with buckets as the process before has left them.
    ///
    /// # Errors
    /// The same.
    pub fn start_from(loaded: Loaded, levels: &Levels) -> Result<Self, StartError> {
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
        levels.resume(&compiled);
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

    /// What has gone wrong that takes a new start: see [`takes_restart`](crate::port_fault::PortFaultKind::takes_restart), and a worker that ended.
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

    /// [Halts](Self::halt), and returns the last status.
    pub fn stop(mut self) -> Status {
        self.halt();
        self.view.status()
    }

    /// Detaches the programs and lets the workers finish what they hold: from here on nothing is judged. Once is enough.
    pub fn halt(&mut self) {
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

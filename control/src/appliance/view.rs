//! What runs, for any thread to read: faults, rings, rates, and all that `weir status` says.

use std::os::fd::AsFd;
use std::sync::Arc;
use std::time::{Duration, Instant};

use arc_swap::ArcSwap;
use config::Config;
use dataplane::cells::SlotId;
use dataplane::clock::{Clock, MonotonicClock};
use dataplane::port::{KernelCounters, QUEUES_MAX};
use dataplane::priority::Half;
use dataplane::sojourn::RingReading;
use dataplane::stats::{Amount, KICKS, PathCounters};
use dataplane::worker::{WorkerShared, WorkerState};

use crate::compile::Compiled;
use crate::observe::{Observer, Reading, Ring, Totals, WorkerTotals, per_second};
use crate::port_fault::{self, PortFault, Watched};
use crate::report::{LedgerReport, TrafficReport, half_name};
use crate::status::{ChangeStatus, Delivered, PortStatus, QueueStatus, RingStatus, Sojourn, Status, WorkerStatus};

use super::{RunningPort, RunningWorker};

/// What runs, to be read by any thread without asking the control thread: one configuration, its table, and the counters.
///
/// A view does not change when the table is swapped: take a newer one ([`Appliance::view`](super::Appliance::view)). Reading is relaxed loads and,
/// for what the kernel counts, system calls; nothing that a worker uses is written. All views have to be dropped before
/// the appliance is stopped, because they keep interfaces and sockets.
#[derive(Clone)]
pub struct View {
    pub(super) config: Arc<Config>,
    pub(super) compiled: Arc<Compiled>,
    pub(super) workers: Vec<Arc<RunningWorker>>,
    pub(super) shared: Vec<Arc<WorkerShared>>,
    pub(super) ports: Vec<Arc<RunningPort>>,
    pub(super) started: Instant,
    /// When the current table was published.
    pub(super) published: Instant,
    pub(super) observer: Arc<ArcSwap<Observer>>,
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
            region: self.config.region.to_string(),
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
                for half in [Half::Conforming, Half::Nonconforming] {
                    let is = |ring: &&Ring| (ring.port, ring.half, ring.ring) == (number, half, slot);
                    let mut status = RingStatus {
                        class: class.to_owned(),
                        half: half_name(half).to_owned(),
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

/// Frame bytes of packets in the layer that counts; tags are taken for a part of the packet.
fn counted_bytes(layer: config::Layer, frames: Amount) -> u64 {
    match layer {
        config::Layer::L3 => frames.bytes.saturating_sub(14 * frames.packets),
        config::Layer::L2 => frames.bytes,
        // FCS, preamble and gap.
        config::Layer::L1 => frames.bytes + 24 * frames.packets,
    }
}

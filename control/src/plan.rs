//! Which worker owns which queues, how large its frames are, and building it so.

use std::hash::{BuildHasher, Hasher, RandomState};
use std::sync::Arc;

use af_xdp::{BindMode, SocketConfig, Umem, UmemConfig};
use config::Config;
use dataplane::clock::Nanos;
use dataplane::frame::FramePool;
use dataplane::lane::{Lane, WireEnds};
use dataplane::path::PortShare;
use dataplane::port::{OnStall, Program, QUEUES_MAX, XdpMode, XdpPort, XdpPortConfig};
use dataplane::worker::{CurrentTable, Worker, WorkerShared};

use crate::appliance::StartError;
use crate::interface::Interface;

/// Why interfaces, queues and workers do not fit together.
#[derive(Debug, thiserror::Error)]
pub enum PlanError {
    /// The ports of a wire differ in queues.
    #[error(
        "wire {site}-{wan}: `{site}` has {site_queues} queues and `{wan}` has {wan_queues}, but a worker owns the same queue of both"
    )]
    Queues {
        /// Interface of the site port.
        site: String,
        /// Its queues.
        site_queues: u32,
        /// Interface of the wan port.
        wan: String,
        /// Its queues.
        wan_queues: u32,
    },
    /// More queues than an XDP program's maps hold.
    #[error("interface `{interface}` has {queues} queues; weir serves at most {QUEUES_MAX}")]
    TooManyQueues {
        /// The interface.
        interface: String,
        /// Its queues.
        queues: u32,
    },
    /// More workers than queues.
    #[error("{workers} workers, but the widest wire has {queues} queues: the others would have nothing to do")]
    IdleWorkers {
        /// CPUs named.
        workers: usize,
        /// Queues of the widest wire.
        queues: u32,
    },
    /// A CPU that this process may not use.
    #[error("CPU {cpu} of `[workers] cpus` is not one this process may use (it may use {allowed:?})")]
    Cpu {
        /// The CPU named.
        cpu: usize,
        /// Those it may use.
        allowed: Vec<usize>,
    },
    /// Packets that do not fit a frame.
    #[error(
        "interface `{interface}` has MTU {mtu}, and a frame holds {} bytes of IP packet",
        MTU_MAX
    )]
    Mtu {
        /// The interface.
        interface: String,
        /// Its MTU.
        mtu: u32,
    },
}

impl PlanError {
    /// What the operator can do.
    #[must_use]
    pub fn remedy(&self) -> String {
        match self {
            PlanError::Queues {
                site,
                wan,
                site_queues,
                wan_queues,
            } => {
                let (more, fewer) = if site_queues > wan_queues {
                    (site, wan_queues)
                } else {
                    (wan, site_queues)
                };
                format!("`ethtool -L {more} combined {fewer}` (veth: `ethtool -L {more} rx {fewer} tx {fewer}`)")
            }
            PlanError::TooManyQueues { interface, .. } => {
                format!("`ethtool -L {interface} combined {QUEUES_MAX}` or fewer")
            }
            PlanError::IdleWorkers { workers, queues } => {
                format!(
                    "name at most {queues} in `[workers] cpus`, or give the interfaces {workers} queues with `ethtool -L`"
                )
            }
            PlanError::Cpu { .. } => "name CPUs from that list, or change the affinity of the service".to_owned(),
            PlanError::Mtu { interface, .. } => format!("`ip link set dev {interface} mtu {MTU_MAX}` or smaller"),
        }
    }
}

/// Chunk sizes the kernel takes.
const FRAME_SIZES: [u32; 2] = [2048, 4096];
/// What the kernel keeps free at the start of a chunk for XDP (XDP_PACKET_HEADROOM).
const HEADROOM: u32 = 256;
/// Ethernet header and two VLAN tags.
const L2_MAX: u32 = 14 + 2 * 4;
/// Largest MTU whose packets fit the largest frame.
pub(crate) const MTU_MAX: u32 = FRAME_SIZES[1] - HEADROOM - L2_MAX;

/// Descriptors in each of the four rings of a socket. A virtual machine's core can be away for milliseconds: 2,048 packets
/// are 2 ms at 1 Mpps; more would only be latency and cache footprint.
const RING: u32 = 2048;

/// Frames for each lane of a worker: both fill rings (2 × 2,048) and TX rings (2 × 2,048), and 8,192 for priority rings.
pub(crate) const FRAMES: u32 = 16_384;

/// Who owns what.
pub struct Plan {
    /// The workers in turn.
    pub workers: Vec<PlannedWorker>,
    frame_size: u32,
    seed: u64,
}

/// One worker.
pub struct PlannedWorker {
    /// The core it is pinned to.
    pub cpu: Option<usize>,
    /// What it owns.
    pub lanes: Vec<PlannedLane>,
}

/// One queue of a wire.
#[derive(Clone, Debug)]
pub struct PlannedLane {
    /// The queue.
    pub queue: u32,
    /// Numbers of the site port and the wan port in the configuration.
    pub ports: [usize; 2],
}

/// A worker with its sockets.
pub struct BuiltWorker {
    /// The worker.
    pub worker: Worker<XdpPort>,
    /// All frames it has.
    pub frames: u64,
}

impl Plan {
    /// Spreads the queues of all wires over the workers: queue q goes to worker q modulo their number, so that every queue
    /// has a socket.
    ///
    /// # Errors
    /// See [`PlanError`].
    pub fn new(config: &Config, interfaces: &[Interface]) -> Result<Self, PlanError> {
        let mut widest = 0;
        for wire in &config.wires {
            let (site, wan) = (&interfaces[wire.site], &interfaces[wire.wan]);
            if site.queues != wan.queues {
                return Err(PlanError::Queues {
                    site: site.name.clone(),
                    site_queues: site.queues,
                    wan: wan.name.clone(),
                    wan_queues: wan.queues,
                });
            }
            if site.queues > QUEUES_MAX {
                return Err(PlanError::TooManyQueues {
                    interface: site.name.clone(),
                    queues: site.queues,
                });
            }
            widest = widest.max(site.queues);
        }
        let cpus = choose_cpus(&config.workers.cpus, widest)?;
        let mut workers: Vec<PlannedWorker> = cpus
            .into_iter()
            .map(|cpu| PlannedWorker { cpu, lanes: Vec::new() })
            .collect();
        let count = workers.len();
        for wire in &config.wires {
            for queue in 0..interfaces[wire.site].queues {
                let lane = PlannedLane {
                    queue,
                    ports: [wire.site, wire.wan],
                };
                workers[queue as usize % count].lanes.push(lane);
            }
        }
        Ok(Self {
            workers,
            frame_size: frame_size(interfaces)?,
            seed: random_seed(),
        })
    }

    /// Largest MTU whose packets fit a frame.
    #[must_use]
    pub fn mtu_max(&self) -> u32 {
        self.frame_size - HEADROOM - L2_MAX
    }
}

/// The CPUs named, or as many as there are queues while one core is left for everything else.
fn choose_cpus(named: &[usize], queues: u32) -> Result<Vec<Option<usize>>, PlanError> {
    let allowed: Vec<usize> = core_affinity::get_core_ids()
        .unwrap_or_default()
        .into_iter()
        .map(|core| core.id)
        .collect();
    if named.is_empty() {
        let chosen = pick_cpus(&allowed, queues).into_iter().map(Some).collect::<Vec<_>>();
        // Where they are not told, one worker that is not pinned.
        return Ok(if chosen.is_empty() { vec![None] } else { chosen });
    }
    if named.len() > queues as usize {
        return Err(PlanError::IdleWorkers {
            workers: named.len(),
            queues,
        });
    }
    if let Some(&cpu) = named.iter().find(|cpu| !allowed.contains(cpu)) {
        return Err(PlanError::Cpu { cpu, allowed });
    }
    Ok(named.iter().map(|&cpu| Some(cpu)).collect())
}

/// As many of these as there are queues, while one is left for everything else. From the last core down: core 0 serves most
/// interrupts.
pub(crate) fn pick_cpus(allowed: &[usize], queues: u32) -> Vec<usize> {
    let spare_one = allowed.len().saturating_sub(1).max(1);
    let count = (queues.max(1) as usize).min(spare_one).min(allowed.len());
    allowed[allowed.len() - count..].to_vec()
}

/// From the operating system's randomness, which the standard library's hashers are seeded with.
fn random_seed() -> u64 {
    RandomState::new().build_hasher().finish()
}

/// One size for all interfaces, because packets go from one to another without being copied.
fn frame_size(interfaces: &[Interface]) -> Result<u32, PlanError> {
    let largest = interfaces.iter().max_by_key(|interface| interface.mtu);
    let (interface, mtu) = largest.map_or((String::new(), 0), |i| (i.name.clone(), i.mtu));
    frame_bytes(mtu).ok_or(PlanError::Mtu { interface, mtu })
}

/// The smallest frame that holds packets of this MTU.
pub(crate) fn frame_bytes(mtu: u32) -> Option<u32> {
    let fits = |size: &u32| mtu.saturating_add(L2_MAX + HEADROOM) <= *size;
    FRAME_SIZES.into_iter().find(fits)
}

/// Loads one program for each port.
///
/// # Errors
/// [`StartError::Program`].
pub fn load_programs(config: &Config, on_stall: OnStall, stale_after: Nanos) -> Result<Vec<Program>, StartError> {
    let load = |port: &config::Port| {
        let program = Program::load(on_stall, stale_after);
        program.map_err(|cause| StartError::Program {
            port: port.name.clone(),
            cause,
        })
    };
    config.ports.iter().map(load).collect()
}

/// Takes a worker's frames, binds its sockets and tells the programs about them.
///
/// # Errors
/// [`StartError::Umem`], [`StartError::Socket`], [`StartError::Program`].
#[expect(
    clippy::too_many_arguments,
    reason = "called once, and each argument is a different thing"
)]
pub fn build_worker(
    number: usize,
    planned: &PlannedWorker,
    plan: &Plan,
    config: &Config,
    interfaces: &[Interface],
    shares: &[Arc<PortShare>],
    programs: &mut [Program],
    tables: &CurrentTable,
    shared: Arc<WorkerShared>,
) -> Result<BuiltWorker, StartError> {
    let frame_count = FRAMES * planned.lanes.len().max(1) as u32;
    let umem_config = UmemConfig {
        frame_count,
        frame_size: plan.frame_size,
        ..UmemConfig::default()
    };
    let umem = Umem::new(&umem_config);
    let (umem, frames) = umem.map_err(|cause| StartError::Umem { worker: number, cause })?;
    let mut pool = FramePool::new(frames);
    let mut lanes = Vec::new();
    for lane in &planned.lanes {
        let mut bind = |end: usize| -> Result<XdpPort, StartError> {
            let port = lane.ports[end];
            let interface = &interfaces[port];
            let port_config = XdpPortConfig {
                interface_index: interface.index,
                queue: lane.queue,
                socket: socket_config(config),
                partial_checksums: interface.has_partial_checksums(),
            };
            let socket = XdpPort::bind(&umem, &port_config, &mut pool).map_err(|cause| StartError::Socket {
                port: config.ports[port].name.clone(),
                interface: interface.name.clone(),
                queue: lane.queue,
                cause,
            })?;
            let served = programs[port].serve(lane.queue, socket.socket());
            served.map_err(|cause| StartError::Program {
                port: config.ports[port].name.clone(),
                cause,
            })?;
            Ok(socket)
        };
        let ends = WireEnds {
            ports: lane.ports,
            shares: lane.ports.map(|port| shares[port].clone()),
            seed: plan.seed,
        };
        lanes.push(Lane::new(number, &ends, bind(0)?, bind(1)?));
    }
    let mut worker = Worker::new(lanes, umem, pool, tables, shared, config.workers.batch);
    for lane in &planned.lanes {
        for port in lane.ports {
            worker.beat_into(programs[port].heartbeats(), lane.queue as usize);
        }
    }
    Ok(BuiltWorker {
        worker,
        frames: u64::from(frame_count),
    })
}

fn socket_config(config: &Config) -> SocketConfig {
    // The ports of a wire share their frames, and the first socket decides how all of them are bound: one port that must
    // copy makes all copy.
    let may_zero_copy = config.ports.iter().all(|port| port.zero_copy);
    SocketConfig {
        rx_size: RING,
        tx_size: RING,
        fill_size: RING,
        completion_size: RING,
        bind: if may_zero_copy { BindMode::Auto } else { BindMode::Copy },
        need_wakeup: true,
        // One wake-up for a whole turn's packets instead of one for each 32.
        tx_budget: Some(128),
        ..SocketConfig::default()
    }
}

/// The mode an operator asked for; `None`: native, and generic where that fails.
#[must_use]
pub fn xdp_mode(mode: config::XdpMode) -> Option<XdpMode> {
    match mode {
        config::XdpMode::Auto => None,
        config::XdpMode::Native => Some(XdpMode::Native),
        config::XdpMode::Generic => Some(XdpMode::Generic),
    }
}

/// What differs between two configurations that a running appliance cannot change.
#[must_use]
pub fn needs_restart(old: &Config, new: &Config) -> Option<String> {
    let ports = |config: &Config| -> Vec<_> {
        config
            .ports
            .iter()
            .map(|p| (p.name.clone(), p.interface.clone(), p.side, p.xdp, p.zero_copy))
            .collect()
    };
    let wires = |config: &Config| -> Vec<_> {
        config
            .wires
            .iter()
            .map(|wire| (wire.site, wire.wan, wire.bridge.clone()))
            .collect()
    };
    let workers = |config: &Config| config.workers.clone();
    let changes = [
        (old.region != new.region, "`region`"),
        (ports(old) != ports(new), "a `[[port]]` (other than its rate)"),
        (wires(old) != wires(new), "a `[[wire]]`"),
        (workers(old) != workers(new), "`[workers]`"),
        (old.fail != new.fail, "`fail`"),
        (old.control.state != new.control.state, "`[control] state`"),
        (old.api != new.api, "`[api]`"),
    ];
    changes
        .into_iter()
        .find(|(changed, _)| *changed)
        .map(|(_, what)| what.to_owned())
}

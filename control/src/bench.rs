//! `weir bench`: what this machine's gateway does with a contract set, measured in a virtual lab.
//!
//! ```text
//!   site: pktgen sends ── veth ── [ gateway: the appliance ] ── veth ── wan: pktgen receives and scores
//! ```
//!
//! The gateway's interfaces have the names that the configuration gives its ports, so any configuration runs as it is. Nothing
//! of the lab outlives the process: the namespaces have no names, and the built-in configuration lies on a private tmpfs.

use std::fmt::Write;
use std::path::{Path, PathBuf};
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use config::{Config, Direction, Side};
use jiff::Timestamp;
use pktgen::contracts::{self, Choice, ContractsError, Multiples};
use pktgen::imix::FrameMix;
use pktgen::lab::{LabError, Namespace, VethEnd, create_veth, links};
use pktgen::report::Report;
use pktgen::search::Progress;
use pktgen::stream::FlowOrder;
use pktgen::suite::{self, Method, Plan, SuiteError, Surroundings};
use pktgen::trial::{End, GeneratorConfig, ServiceTraffic};

use crate::appliance::{Appliance, StartError};
use crate::demo::world::{self, WorldError};

/// What is measured.
#[derive(Clone, Debug)]
pub struct BenchOptions {
    /// The configuration to run; `None`: a built-in one of twelve contracts in three classes.
    pub config: Option<PathBuf>,
    /// How much of its entitlement each service sends.
    pub multiple: Multiples,
    /// Frame sizes and mixes.
    pub frames: Vec<FrameMix>,
    /// How the throughput is searched for.
    pub method: Method,
    /// How long latency is measured at each load, and the services at their own rates.
    pub seconds: Duration,
    /// Flows of each contract.
    pub flows: u32,
}

/// Why there is no report.
#[derive(Debug, thiserror::Error)]
pub enum BenchError {
    /// Namespaces or links.
    #[error(transparent)]
    Lab(#[from] LabError),
    /// The private directory.
    #[error(transparent)]
    World(#[from] WorldError),
    /// The configuration's own errors, with place and remedy.
    #[error("the configuration is not valid")]
    Config(Box<config::Report>),
    /// The appliance.
    #[error(transparent)]
    Start(#[from] StartError),
    /// No traffic can be made of the contracts.
    #[error(transparent)]
    Contracts(#[from] ContractsError),
    /// The measurement.
    #[error(transparent)]
    Suite(#[from] SuiteError),
    /// Nothing to measure with.
    #[error("at least one frame size or mix is needed")]
    NoFrames,
    /// The built-in configuration cannot be written.
    #[error("cannot write the built-in configuration: {0}")]
    Write(std::io::Error),
}

/// Runs the bench. Must be called from the main thread, before others start.
///
/// # Errors
/// See [`BenchError`]. Whatever happens, nothing is left behind.
pub fn run(
    options: &BenchOptions,
    stop: &AtomicBool,
    progress: &mut dyn FnMut(&Progress),
) -> Result<Report, BenchError> {
    pktgen::lab::privileged()?;
    let cores = core_affinity::get_core_ids().unwrap_or_default();
    // As in the demo: traffic has the first core, the gateway's worker the last.
    let first = cores.first().map_or(0, |core| core.id);
    let last = cores.last().map_or(0, |core| core.id);
    let Some(mix) = options.frames.first() else {
        return Err(BenchError::NoFrames);
    };
    let path = match &options.config {
        Some(path) => path.clone(),
        None => built_in(last)?,
    };
    let loaded = config::load(&path).map_err(|report| BenchError::Config(Box::new(report)))?;
    let lab = Lab::build(&loaded.config)?;
    let mut services = contracts::traffic(
        &loaded.config,
        &choice(options, mix),
        &options.multiple,
        Timestamp::now(),
    )?;
    services.retain(|service| service.stream.rate_bps > 0);
    let plan = plan(options, &loaded.config, &lab, services, first);
    let mut appliance = lab.gateway.run(|| Appliance::start(loaded))??;
    let mut reload = |_| {
        let loaded = config::load(&path).map_err(|report| report.render(false))?;
        appliance.swap(loaded).map(drop).map_err(|error| error.to_string())
    };
    let report = suite::run(
        &plan,
        &mut Surroundings {
            stop,
            progress,
            change: Some(&mut reload),
        },
    );
    let status = appliance.stop();
    let mut report = report?;
    for worker in &status.workers {
        report.notes.push(format!(
            "the gateway's worker ran on core {} and made {} turns",
            worker.cpu.map_or_else(|| "any".to_owned(), |cpu| cpu.to_string()),
            worker.turns
        ));
    }
    report
        .notes
        .push("sender, receiver and gateway shared this machine: on a box of its own the gateway does more".into());
    Ok(report)
}

fn plan(options: &BenchOptions, config: &Config, lab: &Lab, services: Vec<ServiceTraffic>, traffic_cpu: usize) -> Plan {
    let wire = &config.wires[0];
    Plan {
        title: format!("weir with {}", describe(options, config)),
        between: format!(
            "weir {}, from {} to {}",
            env!("CARGO_PKG_VERSION"),
            config.ports[wire.site].name,
            config.ports[wire.wan].name
        ),
        generator: GeneratorConfig {
            transmit: End {
                namespace: lab.site.clone(),
                interface: peer(wire.site),
            },
            receive: End {
                namespace: lab.wan.clone(),
                interface: peer(wire.wan),
            },
            services,
            transmit_cpus: vec![traffic_cpu],
            receive_cpu: Some(traffic_cpu),
            seed: SEED,
        },
        frames: options.frames.clone(),
        method: options.method.clone(),
        search_budget: None,
        latency: options.seconds,
        services: options.seconds,
        reconfigurations: RECONFIGURATIONS,
        bursts: 0,
        soak: Duration::ZERO,
        line_rate_bps: None,
    }
}

/// The three places, and a link for each port.
struct Lab {
    site: Namespace,
    gateway: Namespace,
    wan: Namespace,
}

impl Lab {
    fn build(config: &Config) -> Result<Self, LabError> {
        let lab = Self {
            site: Namespace::new()?,
            gateway: Namespace::new()?,
            wan: Namespace::new()?,
        };
        for (number, port) in config.ports.iter().enumerate() {
            let far = match port.side {
                Side::Site => &lab.site,
                Side::Wan => &lab.wan,
            };
            let name = peer(number);
            create_veth(&VethEnd::new(far, &name), &VethEnd::new(&lab.gateway, &port.interface))?;
            far.try_run(|| links::set_up(&name))?;
            lab.gateway.try_run(|| links::set_up(&port.interface))?;
        }
        Ok(lab)
    }
}

fn choice(options: &BenchOptions, mix: &FrameMix) -> Choice {
    Choice {
        direction: Direction::Egress,
        frames: mix.clone(),
        flows: options.flows,
        flow_order: FlowOrder::Random,
        // A wire does not look at them.
        source_mac: [2, 0, 0, 0, 0, 1],
        destination_mac: [2, 0, 0, 0, 0, 2],
    }
}

/// The generator's end of the link to port `number`.
fn peer(number: usize) -> String {
    format!("bench{number}")
}

fn describe(options: &BenchOptions, config: &Config) -> String {
    let contracts = config.contracts.len();
    match &options.config {
        Some(path) => format!("{} ({contracts} contracts)", path.display()),
        None => format!("{contracts} built-in contracts"),
    }
}

/// Writes the built-in configuration where only this process sees it.
fn built_in(worker_cpu: usize) -> Result<PathBuf, BenchError> {
    world::private_directory()?;
    let path = world::path("weir.toml");
    write(&path, worker_cpu).map_err(BenchError::Write)?;
    Ok(path)
}

fn write(path: &Path, worker_cpu: usize) -> std::io::Result<()> {
    let mut text = format!(
        "region = \"bench\"\n[workers]\ncpus = [{worker_cpu}]\npoll = \"busy\"\n\
         [[port]]\nname = \"lan\"\ninterface = \"lan\"\nside = \"site\"\n\
         [[port]]\nname = \"uplink\"\ninterface = \"uplink\"\nside = \"wan\"\n\
         [[wire]]\nports = [\"lan\", \"uplink\"]\n"
    );
    for (name, priority, dscp, excess) in [("gold", 0, 46, 3), ("silver", 1, 26, 2), ("bronze", 2, 10, 1)] {
        // Writing to a string cannot fail.
        let _written = write!(
            text,
            "[[class]]\nname = \"{name}\"\npriority = {priority}\ndscp = [{dscp}]\nnonconforming_dscp = {excess}\n"
        );
    }
    for service in 0..SERVICES {
        let class = ["gold", "silver", "bronze"][service % 3];
        let _written = write!(
            text,
            "[[service]]\nname = \"service-{service}\"\nendpoints = [\"10.1.{service}.0/24\"]\n\
             [[contract]]\nservice = \"service-{service}\"\nclass = \"{class}\"\nregion = \"bench\"\n\
             direction = \"egress\"\nrate = \"4 Mbit/s\"\n"
        );
    }
    std::fs::write(path, text)
}

/// Contracts of the built-in configuration: at 4 Mbit/s each a load that a virtual machine carries.
const SERVICES: usize = 12;
/// How often the table is swapped under load.
const RECONFIGURATIONS: u32 = 3;
/// The same traffic each time.
const SEED: u64 = 1;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_built_in_configuration_is_valid() {
        let directory = std::env::temp_dir().join(format!("weir-bench-test-{}", std::process::id()));
        std::fs::create_dir_all(&directory).unwrap();
        let path = directory.join("weir.toml");
        write(&path, 0).unwrap();
        let loaded = config::load(&path);
        std::fs::remove_dir_all(&directory).unwrap();
        assert_eq!(loaded.unwrap().config.contracts.len(), SERVICES);
    }
}

//! `weir show`: a page about one contract, service, class, port or worker. Made from a [`Status`] and the configuration that
//! runs, and nothing else, so that a page and `weir status --json` of the same instant never disagree.

mod text;

use std::collections::{BTreeMap, HashMap};

use config::{Config, Contract, Word};
use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::alarms::Alarm;
use crate::change::diff::ContractName;
use crate::change::fields::{burst_bytes, class_fields, contract_fields, describe, strings};
use crate::report::{ContractReport, LedgerReport, UncontractedReport};
use crate::status::{PortStatus, RingStatus, Status, WorkerStatus};

/// What there are pages of.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Kind {
    /// An entitlement: `service/class/direction`, and `/segment` if it has one.
    Contract,
    /// Whose traffic it is.
    Service,
    /// A class of service.
    Class,
    /// A port.
    Port,
    /// A worker, by its number.
    Worker,
}

impl Kind {
    /// All of them.
    pub const ALL: [Kind; 5] = [Kind::Contract, Kind::Service, Kind::Class, Kind::Port, Kind::Worker];

    /// As it is written.
    #[must_use]
    pub fn word(self) -> &'static str {
        match self {
            Kind::Contract => "contract",
            Kind::Service => "service",
            Kind::Class => "class",
            Kind::Port => "port",
            Kind::Worker => "worker",
        }
    }
}

/// The pages that were asked for.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", content = "pages", rename_all = "snake_case")]
pub enum Shown {
    /// In the order of the configuration.
    Contract(Vec<ContractPage>),
    /// In the order of the configuration.
    Service(Vec<ServicePage>),
    /// In the order of the configuration.
    Class(Vec<ClassPage>),
    /// In the order of the configuration.
    Port(Vec<PortPage>),
    /// By number.
    Worker(Vec<WorkerPage>),
}

/// One contract: what was agreed, where that is written, and what became of the traffic.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ContractPage {
    /// `service/class/direction`, and `/segment` if it has one.
    pub name: String,
    /// Exactly as in `weir status --json`.
    #[serde(flatten)]
    pub report: ContractReport,
    /// What was agreed; `None` only if the configuration no longer has it.
    pub agreed: Option<Agreed>,
    /// Alarms of this contract.
    pub alarms: Vec<Alarm>,
}

/// What the configuration says of a contract.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Agreed {
    /// All of it in words.
    pub terms: String,
    /// Bytes of the committed bucket.
    pub burst_bytes: u64,
    /// Kind of meter.
    pub meter: String,
    /// What happens to the excess.
    pub action: String,
    /// Availability objective in percent.
    pub slo_percent: Option<f64>,
    /// When it begins, inclusive.
    pub from: Option<Timestamp>,
    /// When it ends, exclusive.
    pub until: Option<Timestamp>,
    /// Whom to call: the contract's owner, or else the service's.
    pub owner: Option<String>,
    /// The file it is written in.
    pub file: String,
    /// The line, from 1.
    pub line: usize,
}

/// One service with all of its contracts.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ServicePage {
    /// Its name.
    pub name: String,
    /// Whom to call.
    pub owner: Option<String>,
    /// What its addresses are.
    pub endpoints: Vec<String>,
    /// Its contracts in this region.
    pub contracts: Vec<ContractPage>,
}

/// One class with its rings.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ClassPage {
    /// Its name.
    pub name: String,
    /// All that the configuration says of it, in words.
    pub terms: String,
    /// How many contracts in this region are within their period.
    pub contracts: usize,
    /// What they promise together, in bit/s, by direction.
    pub entitled_bps: BTreeMap<String, u64>,
    /// Its traffic without a contract, by direction.
    pub uncontracted: Vec<UncontractedReport>,
    /// Its two rings at each port, by the port's name.
    pub rings: BTreeMap<String, Vec<RingStatus>>,
}

/// One port.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct PortPage {
    /// Its name.
    pub name: String,
    /// Exactly as in `weir status --json`.
    #[serde(flatten)]
    pub status: PortStatus,
    /// The ledger of what it received, by queue.
    pub ledger: Vec<LedgerReport>,
    /// Alarms of this port.
    pub alarms: Vec<Alarm>,
}

/// One worker.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct WorkerPage {
    /// Its number, as it is written.
    pub name: String,
    /// Exactly as in `weir status --json`.
    #[serde(flatten)]
    pub status: WorkerStatus,
    /// Generation of the current table, which it should run.
    pub current_generation: u64,
    /// Queues it owns, by the port's name.
    pub queues: BTreeMap<String, Vec<u32>>,
    /// Alarms of this worker.
    pub alarms: Vec<Alarm>,
}

/// There is nothing of that name.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("there is no {} `{}`{}", kind.word(), name.escape_debug(), hint(nearest.as_deref(), known))]
pub struct Unknown {
    /// What was looked for.
    pub kind: Kind,
    /// By this name.
    pub name: String,
    /// The name that may have been meant.
    pub nearest: Option<String>,
    /// Some of the names there are.
    pub known: Vec<String>,
}

fn hint(nearest: Option<&str>, known: &[String]) -> String {
    match nearest {
        Some(name) => format!("; did you mean `{name}`?"),
        None if known.is_empty() => "; there is none at all".to_owned(),
        None => format!("; there are {}", known.join(", ")),
    }
}

/// Names that are listed where none is near.
const KNOWN_MAX: usize = 8;

/// The page of `name`, or of everything of this kind. A contract may be named by its beginning, up to a `/`: `ads` is all
/// contracts of the service `ads`.
///
/// # Errors
/// There is none of that name.
pub fn show(kind: Kind, name: Option<&str>, status: &Status, config: &Config) -> Result<Shown, Unknown> {
    let shown = match kind {
        Kind::Contract => {
            let wanted = |report: &&ContractReport| name.is_none_or(|name| begins(&report.name(), name));
            let reports = status.traffic.contracts.iter().filter(wanted);
            Shown::Contract(contract_pages(reports, status, config))
        }
        Kind::Service => {
            let reports = status.traffic.contracts.iter();
            let wanted = reports.filter(|report| is(name, &report.service));
            // All at once: one service after the other would go through all contracts for each.
            let mut contracts: HashMap<String, Vec<ContractPage>> = HashMap::new();
            for page in contract_pages(wanted, status, config) {
                contracts.entry(page.report.service.clone()).or_default().push(page);
            }
            let wanted = config.services.iter().filter(|service| is(name, &service.name));
            Shown::Service(
                wanted
                    .map(|service| service_page(service, contracts.remove(&service.name).unwrap_or_default()))
                    .collect(),
            )
        }
        Kind::Class => {
            let wanted = config.classes.iter().filter(|class| is(name, &class.name));
            Shown::Class(wanted.map(|class| class_page(class, status)).collect())
        }
        Kind::Port => {
            let wanted = status.ports.iter().filter(|port| is(name, &port.port));
            Shown::Port(wanted.map(|port| port_page(port, status)).collect())
        }
        Kind::Worker => {
            let wanted = status
                .workers
                .iter()
                .filter(|worker| is(name, &worker.worker.to_string()));
            Shown::Worker(wanted.map(|worker| worker_page(worker, status)).collect())
        }
    };
    match name {
        Some(name) if shown.is_empty() => Err(unknown(kind, name, status, config)),
        _ => Ok(shown),
    }
}

impl Shown {
    /// Whether there is no page.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        match self {
            Shown::Contract(pages) => pages.is_empty(),
            Shown::Service(pages) => pages.is_empty(),
            Shown::Class(pages) => pages.is_empty(),
            Shown::Port(pages) => pages.is_empty(),
            Shown::Worker(pages) => pages.is_empty(),
        }
    }

    /// For people: a page each, or, where no name was asked for, a table with a line each. At most 100 columns.
    #[must_use]
    pub fn to_text(&self, is_named: bool) -> String {
        let mut out = String::new();
        // Writing to a String cannot fail.
        let _ok = if is_named {
            text::write_pages(&mut out, self)
        } else {
            text::write_table(&mut out, self)
        };
        out
    }
}

fn is(wanted: Option<&str>, name: &str) -> bool {
    wanted.is_none_or(|wanted| wanted == name)
}

/// Whether `name` is `full` or a beginning of it that ends before a `/`.
fn begins(full: &str, name: &str) -> bool {
    full.strip_prefix(name)
        .is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
}

fn contract_pages<'s>(
    reports: impl Iterator<Item = &'s ContractReport>,
    status: &Status,
    config: &Config,
) -> Vec<ContractPage> {
    let mut alarms: HashMap<&str, Vec<&Alarm>> = HashMap::new();
    for alarm in &status.alarms {
        alarms.entry(&alarm.place).or_default().push(alarm);
    }
    let mut pages: Vec<ContractPage> = reports
        .map(|report| {
            let name = report.name();
            let of = alarms.get(name.as_str()).into_iter().flatten();
            ContractPage {
                alarms: of.map(|alarm| (*alarm).clone()).collect(),
                report: report.clone(),
                agreed: None,
                name,
            }
        })
        .collect();
    let places: HashMap<String, usize> = pages
        .iter()
        .enumerate()
        .map(|(at, page)| (page.name.clone(), at))
        .collect();
    let now = Timestamp::now();
    let mut chosen: Vec<Option<&Contract>> = vec![None; pages.len()];
    for contract in config
        .contracts
        .iter()
        .filter(|contract| contract.region == config.region)
    {
        let Some(&at) = places.get(&ContractName::of(config, contract).path()) else {
            continue;
        };
        // Of several with the same name for different periods, the one that holds now; else the last in the files.
        if chosen[at].is_none_or(|other| !other.valid_at(now)) {
            chosen[at] = Some(contract);
        }
    }
    for (page, contract) in pages.iter_mut().zip(chosen) {
        page.agreed = contract.map(|contract| agreed(config, contract));
    }
    pages
}

fn agreed(config: &Config, contract: &Contract) -> Agreed {
    let owner = contract
        .owner
        .as_ref()
        .or(config.services[contract.service].owner.as_ref());
    Agreed {
        terms: describe(contract_fields(contract)).join(", "),
        burst_bytes: burst_bytes(&contract.meter),
        meter: contract.meter.kind().word().to_owned(),
        action: contract.action.word().to_owned(),
        slo_percent: contract.slo_ppm.map(|ppm| f64::from(ppm) / 10_000.0),
        from: contract.from,
        until: contract.until,
        owner: owner.cloned(),
        file: contract.place.file.display().to_string(),
        line: contract.place.line,
    }
}

fn service_page(service: &config::Service, contracts: Vec<ContractPage>) -> ServicePage {
    ServicePage {
        name: service.name.clone(),
        owner: service.owner.clone(),
        endpoints: strings(&service.endpoints),
        contracts,
    }
}

fn class_page(class: &config::Class, status: &Status) -> ClassPage {
    let contracts = status.traffic.contracts.iter();
    let own: Vec<_> = contracts
        .filter(|contract| contract.active && contract.class == class.name)
        .collect();
    let mut entitled_bps = BTreeMap::new();
    for contract in &own {
        *entitled_bps.entry(contract.direction.clone()).or_default() += contract.rate_bps;
    }
    let rings = status.ports.iter().map(|port| {
        let own = port.rings.iter().filter(|ring| ring.class == class.name);
        (port.port.clone(), own.cloned().collect())
    });
    let uncontracted = status.traffic.uncontracted.iter();
    ClassPage {
        name: class.name.clone(),
        terms: describe(class_fields(class)).join(", "),
        contracts: own.len(),
        entitled_bps,
        uncontracted: uncontracted.filter(|row| row.class == class.name).cloned().collect(),
        rings: rings.collect(),
    }
}

fn port_page(port: &PortStatus, status: &Status) -> PortPage {
    let place = format!("port {}", port.port);
    let with_queue = format!("{place} queue ");
    let ledger = status.traffic.ledger.iter();
    PortPage {
        name: port.port.clone(),
        status: port.clone(),
        ledger: ledger.filter(|ledger| ledger.port == port.port).cloned().collect(),
        alarms: alarms_at(status, |at| at == place || at.starts_with(&with_queue)),
    }
}

fn worker_page(worker: &WorkerStatus, status: &Status) -> WorkerPage {
    let queues = status.ports.iter().map(|port| {
        let own = port.queues.iter().filter(|queue| queue.worker == worker.worker);
        (port.port.clone(), own.map(|queue| queue.queue).collect())
    });
    WorkerPage {
        name: worker.worker.to_string(),
        status: worker.clone(),
        current_generation: status.generation,
        queues: queues.collect(),
        alarms: alarms_at(status, |at| at == format!("worker {}", worker.worker)),
    }
}

fn alarms_at(status: &Status, is_here: impl Fn(&str) -> bool) -> Vec<Alarm> {
    let alarms = status.alarms.iter().filter(|alarm| is_here(&alarm.place));
    alarms.cloned().collect()
}

fn unknown(kind: Kind, name: &str, status: &Status, config: &Config) -> Unknown {
    let known: Vec<String> = match kind {
        Kind::Contract => {
            // A name with a `/` is meant whole; one without is a service.
            let contracts = status.traffic.contracts.iter();
            if name.contains('/') {
                contracts.map(ContractReport::name).collect()
            } else {
                config.services.iter().map(|service| service.name.clone()).collect()
            }
        }
        Kind::Service => config.services.iter().map(|service| service.name.clone()).collect(),
        Kind::Class => config.classes.iter().map(|class| class.name.clone()).collect(),
        Kind::Port => status.ports.iter().map(|port| port.port.clone()).collect(),
        Kind::Worker => status.workers.iter().map(|worker| worker.worker.to_string()).collect(),
    };
    let nearest = config::nearest(name, known.iter().map(String::as_str)).map(str::to_owned);
    let mut some = known;
    if some.len() > KNOWN_MAX {
        some.truncate(KNOWN_MAX);
        some.push("…".to_owned());
    }
    Unknown {
        kind,
        name: name.to_owned(),
        nearest,
        known: some,
    }
}

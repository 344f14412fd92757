//! From contracts to a table: the one place where what an operator wrote becomes what a worker runs.
//!
//! Services, classes and contracts keep their numbers from one table to the next, because buckets, counters, packets in
//! rings and remembered fragments refer to them across a reload. The [`Compiler`] remembers those numbers.

mod compiled;
mod convert;

use std::collections::HashMap;
use std::hash::Hash;
use std::sync::Arc;

use config::Config;
use dataplane::cells::{Cells, SlotId};
use dataplane::classify::{ClassifierBuilder, ContractKey, PortRange, SegmentId, ServiceId, TooLarge};
use dataplane::clock::Nanos;
use dataplane::contract::{Action, ClassId, Contract, ContractIndex, ContractTable, Direction, Judge, Marking};
use dataplane::meter::{Meter, ProfileError};
use dataplane::priority::{MAX_CLASSES, RingId};
use dataplane::shaper::{ShaperRate, ShaperRateError};
use foldhash::fast::RandomState;
use jiff::Timestamp;

pub use compiled::Compiled;
use convert::{action, class_map, half, layer, marking, order, prefix, profile};

/// Why a checked configuration still cannot become a table.
#[derive(Debug, thiserror::Error)]
pub enum CompileError {
    /// More classes than a process has rings for.
    #[error(
        "class `{name}` would be class number {number} since weir started, and there are rings for {MAX_CLASSES}: restart weir to forget classes that were removed"
    )]
    Classes {
        /// The class that has no ring.
        name: String,
        /// How many different classes there have been, this one included.
        number: usize,
    },
    /// Numbers that the checks of the configuration should have refused.
    #[error("contract of `{service}` in `{class}`: {cause}")]
    Profile {
        /// Service of the contract.
        service: String,
        /// Class of the contract.
        class: String,
        /// What is wrong.
        cause: ProfileError,
    },
    /// A port rate out of range.
    #[error("rate of port `{port}`: {cause}")]
    PortRate {
        /// The port.
        port: String,
        /// What is wrong.
        cause: ShaperRateError,
    },
    /// More services, prefixes or ports than a table can number.
    #[error(transparent)]
    TooLarge(#[from] TooLarge),
}

/// What a contract's state is known by, over all tables of a process. Services, classes and segments by their numbers: with
/// 100,000 contracts their names would be most of the memory of a compilation, and hashing them most of its time.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum SlotKey {
    Contract {
        service: u32,
        class: u32,
        direction: Direction,
        segment: Option<u32>,
    },
    Uncontracted {
        class: u32,
        direction: Direction,
    },
    Other {
        direction: Direction,
    },
}

/// Compiles the configurations of one process, one after the other.
pub struct Compiler {
    services: Numbers<Arc<str>>,
    classes: Numbers<Arc<str>>,
    segments: Numbers<Arc<str>>,
    slots: Numbers<SlotKey>,
    /// What judged packets under the last table, and since when its contract holds.
    live: HashMap<SlotId, Option<Timestamp>, RandomState>,
    cells: Cells,
    generation: u64,
    slack: Nanos,
}

impl Compiler {
    /// For a process with `workers` workers whose ports may catch up `slack` of their rate after a late turn.
    #[must_use]
    pub fn new(workers: usize, slack: Nanos) -> Self {
        Self {
            services: Numbers::default(),
            classes: Numbers::default(),
            segments: Numbers::default(),
            slots: Numbers::default(),
            live: HashMap::default(),
            cells: Cells::new(workers),
            generation: 0,
            slack,
        }
    }

    /// The table of `config` at wall-clock time `at`: contracts outside their period, or of another region, are left out.
    ///
    /// # Errors
    /// See [`CompileError`]; the numbers given out so far stay valid, and no table is made.
    pub fn compile(&mut self, config: &Config, at: Timestamp) -> Result<Compiled, CompileError> {
        let numbers = self.numbers(config);
        // Whatever can fail comes before the buckets are touched: a refused configuration must leave no trace in them.
        let port_rates = self.port_rates(config)?;
        let class_ids = class_ids(config, &numbers)?;
        let mut entries = Entries::with_capacity(config.contracts.len() + 2 * config.classes.len() + 2);
        let other = Direction::BOTH.map(|direction| {
            let class = class_ids[config.defaults.other.class];
            let judge = Judge::Always(half(config.defaults.other.conformance));
            entries.add(
                self,
                SlotKey::Other { direction },
                judge,
                Action::Queue,
                Marking::default(),
                class,
            )
        });
        let uncontracted = self.uncontracted(config, &numbers, &class_ids, &mut entries);
        let mut classifier = ClassifierBuilder::new(uncontracted);
        insert_endpoints(config, &numbers, &mut classifier);
        insert_segments(config, &mut classifier);
        let next_change = self.insert_contracts(config, &numbers, &class_ids, at, &mut classifier, &mut entries)?;
        let classifier = classifier.compile()?;

        self.cells = self.cells.grown(self.slots.len());
        for contract in &entries.contracts {
            // A contract that begins starts full, also where another one for the same traffic has just ended; one that
            // lives on, whatever else of it has changed, keeps its level.
            let since = entries.live.get(&contract.slot);
            if since.is_some()
                && since != self.live.get(&contract.slot)
                && let Judge::Meter(meter) = &contract.judge
            {
                self.cells.refill(meter, contract.slot);
            }
        }
        self.live = std::mem::take(&mut entries.live);
        self.generation += 1;
        let table = ContractTable {
            generation: self.generation,
            layer: layer(config.defaults.layer),
            classes: class_map(config, &class_ids),
            order: order(config, &class_ids),
            classifier,
            contracts: entries.contracts.into_boxed_slice(),
            other,
            port_rates,
            cells: self.cells.clone(),
        };
        Ok(Compiled {
            table: Arc::new(table),
            next_change,
            region: config.region.to_string(),
            names: Names {
                services: self.services.names(),
                classes: self.classes.names(),
                segments: self.segments.names(),
            },
            entries: entries.keys,
            idle: entries.idle,
        })
    }

    /// The numbers of everything in `config` that has a name.
    fn numbers(&mut self, config: &Config) -> ConfigNumbers {
        ConfigNumbers {
            services: config
                .services
                .iter()
                .map(|service| self.services.of_name(&service.name))
                .collect(),
            classes: config
                .classes
                .iter()
                .map(|class| self.classes.of_name(&class.name))
                .collect(),
            segments: config
                .segments
                .iter()
                .map(|segment| self.segments.of_name(&segment.name))
                .collect(),
        }
    }

    /// The entries of uncontracted traffic, by [`ClassId`] and direction. Classes of earlier tables have a place but are
    /// never asked for.
    fn uncontracted(
        &mut self,
        config: &Config,
        numbers: &ConfigNumbers,
        class_ids: &[ClassId],
        entries: &mut Entries,
    ) -> Vec<[ContractIndex; 2]> {
        let judge = Judge::Always(half(config.defaults.uncontracted));
        let mut by_class = vec![[ContractIndex(0); 2]; self.classes.len()];
        for ((class, &id), &number) in config.classes.iter().zip(class_ids).zip(&numbers.classes) {
            by_class[id.index()] = Direction::BOTH.map(|direction| {
                let key = SlotKey::Uncontracted {
                    class: number,
                    direction,
                };
                entries.add(self, key, judge, Action::Remark, marking(class), id)
            });
        }
        by_class
    }

    fn insert_contracts(
        &mut self,
        config: &Config,
        numbers: &ConfigNumbers,
        class_ids: &[ClassId],
        at: Timestamp,
        classifier: &mut ClassifierBuilder,
        entries: &mut Entries,
    ) -> Result<Option<Timestamp>, CompileError> {
        let of_region = || {
            config
                .contracts
                .iter()
                .filter(|contract| contract.region == config.region)
        };
        for contract in of_region().filter(|contract| contract.valid_at(at)) {
            let (slot_key, key) = contract_keys(numbers, class_ids, contract);
            let index = self.add_contract(config, class_ids, contract, slot_key, entries)?;
            entries
                .live
                .insert(entries.contracts[index.0 as usize].slot, contract.from);
            classifier.insert_contract(key, index);
        }
        // Contracts outside their period judge nothing, but what they did is still reported.
        for contract in of_region().filter(|contract| !contract.valid_at(at)) {
            let (slot_key, _) = contract_keys(numbers, class_ids, contract);
            if !entries.has(SlotId(self.slots.number(slot_key))) {
                self.add_contract(config, class_ids, contract, slot_key, entries)?;
                entries.idle += 1;
            }
        }
        let changes = of_region()
            .flat_map(|contract| [contract.from, contract.until])
            .flatten();
        Ok(changes.filter(|&change| change > at).min())
    }

    fn add_contract(
        &mut self,
        config: &Config,
        class_ids: &[ClassId],
        contract: &config::Contract,
        slot_key: SlotKey,
        entries: &mut Entries,
    ) -> Result<ContractIndex, CompileError> {
        let class = &config.classes[contract.class];
        let profile = profile(&contract.meter).map_err(|cause| CompileError::Profile {
            service: config.services[contract.service].name.clone(),
            class: class.name.clone(),
            cause,
        })?;
        let judge = Judge::Meter(Meter::new(profile, contract.color_aware));
        let class_id = class_ids[contract.class];
        Ok(entries.add(self, slot_key, judge, action(contract.action), marking(class), class_id))
    }

    fn port_rates(&self, config: &Config) -> Result<Box<[Option<ShaperRate>]>, CompileError> {
        let rate = |port: &config::Port| {
            let rate = port.rate_bps.map(|rate| ShaperRate::new(rate, self.slack)).transpose();
            rate.map_err(|cause| CompileError::PortRate {
                port: port.name.clone(),
                cause,
            })
        };
        config.ports.iter().map(rate).collect()
    }
}

/// What a slot counts.
#[derive(Clone, Debug)]
pub(crate) struct SlotName {
    /// `None`: uncontracted, or not IP.
    pub(crate) service: Option<Arc<str>>,
    pub(crate) class: Arc<str>,
    pub(crate) direction: &'static str,
    pub(crate) segment: Option<Arc<str>>,
    /// What is not IP.
    pub(crate) is_other: bool,
}

/// The entries of a table in the making.
struct Entries {
    contracts: Vec<Contract>,
    keys: Vec<(SlotKey, ContractIndex)>,
    /// By slot, whether one of them counts there.
    slots: Vec<bool>,
    live: HashMap<SlotId, Option<Timestamp>, RandomState>,
    /// How many at the end are contracts outside their period.
    idle: usize,
}

impl Entries {
    fn with_capacity(count: usize) -> Self {
        Self {
            contracts: Vec::with_capacity(count),
            keys: Vec::with_capacity(count),
            slots: Vec::new(),
            live: HashMap::with_capacity_and_hasher(count, RandomState::default()),
            idle: 0,
        }
    }

    fn has(&self, slot: SlotId) -> bool {
        self.slots.get(slot.0 as usize).is_some_and(|has| *has)
    }

    fn add(
        &mut self,
        compiler: &mut Compiler,
        key: SlotKey,
        judge: Judge,
        action: Action,
        marking: Marking,
        class: ClassId,
    ) -> ContractIndex {
        let index = ContractIndex(self.contracts.len() as u32);
        let slot = SlotId(compiler.slots.number(key));
        self.contracts.push(Contract {
            judge,
            action,
            marking,
            class,
            slot,
        });
        self.keys.push((key, index));
        let place = slot.0 as usize;
        self.slots.resize(self.slots.len().max(place + 1), false);
        self.slots[place] = true;
        index
    }
}

/// Gives things numbers from 0 and remembers them.
struct Numbers<K>(HashMap<K, u32, RandomState>);

impl<K> Default for Numbers<K> {
    fn default() -> Self {
        Self(HashMap::default())
    }
}

impl<K: Eq + Hash> Numbers<K> {
    fn number(&mut self, key: K) -> u32 {
        let next = self.0.len() as u32;
        *self.0.entry(key).or_insert(next)
    }

    fn len(&self) -> usize {
        self.0.len()
    }
}

impl Numbers<Arc<str>> {
    fn of_name(&mut self, name: &str) -> u32 {
        match self.0.get(name) {
            Some(number) => *number,
            None => self.number(Arc::from(name)),
        }
    }

    /// The names, by their numbers.
    fn names(&self) -> Box<[Arc<str>]> {
        let mut names: Vec<_> = self.0.iter().map(|(name, number)| (*number, name)).collect();
        names.sort_unstable();
        names.into_iter().map(|(_, name)| name.clone()).collect()
    }
}

/// The numbers of what a configuration names, in its order.
struct ConfigNumbers {
    services: Vec<u32>,
    classes: Vec<u32>,
    segments: Vec<u32>,
}

/// All names up to a table, by their numbers.
struct Names {
    services: Box<[Arc<str>]>,
    classes: Box<[Arc<str>]>,
    segments: Box<[Arc<str>]>,
}

fn insert_endpoints(config: &Config, numbers: &ConfigNumbers, classifier: &mut ClassifierBuilder) {
    for (service, &number) in config.services.iter().zip(&numbers.services) {
        let id = ServiceId(number);
        for endpoint in &service.endpoints {
            let (family, address, length) = prefix(&endpoint.prefix);
            match &endpoint.ports {
                None => classifier.insert_endpoint(family, address, length, None, id),
                Some(ports) => {
                    let protocol = match ports.protocol {
                        config::Protocol::Tcp => 6,
                        config::Protocol::Udp => 17,
                    };
                    for range in &ports.ranges {
                        let range = PortRange {
                            protocol,
                            first: *range.start(),
                            last: *range.end(),
                        };
                        classifier.insert_endpoint(family, address, length, Some(range), id);
                    }
                }
            }
        }
    }
}

/// What a contract's state is known by, and what packets look it up by.
fn contract_keys(
    numbers: &ConfigNumbers,
    class_ids: &[ClassId],
    contract: &config::Contract,
) -> (SlotKey, ContractKey) {
    let direction = match contract.direction {
        config::Direction::Egress => Direction::Egress,
        config::Direction::Ingress => Direction::Ingress,
    };
    let service = numbers.services[contract.service];
    let slot_key = SlotKey::Contract {
        service,
        class: numbers.classes[contract.class],
        direction,
        segment: contract.segment.map(|segment| numbers.segments[segment]),
    };
    let key = ContractKey {
        service: ServiceId(service),
        class: class_ids[contract.class],
        direction,
        segment: contract.segment.map(|segment| SegmentId(segment as u32)),
    };
    (slot_key, key)
}

fn class_ids(config: &Config, numbers: &ConfigNumbers) -> Result<Vec<ClassId>, CompileError> {
    let id = |(class, &number): (&config::Class, &u32)| {
        let ring = u8::try_from(number).ok().and_then(RingId::new);
        let too_many = || CompileError::Classes {
            name: class.name.clone(),
            number: number as usize + 1,
        };
        ring.map(ClassId).ok_or_else(too_many)
    };
    config.classes.iter().zip(&numbers.classes).map(id).collect()
}

fn insert_segments(config: &Config, classifier: &mut ClassifierBuilder) {
    for (number, segment) in config.segments.iter().enumerate() {
        for net in &segment.prefixes {
            let (family, address, length) = prefix(net);
            classifier.insert_segment(family, address, length, SegmentId(number as u32));
        }
    }
}

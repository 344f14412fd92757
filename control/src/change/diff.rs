//! What is different between two configurations, in words and numbers. Runs in the process of `weir plan`, and on the control
//! thread for the one line that the history keeps.
//!
//! Things are known by their names; a contract by service, class, direction, region and segment. Where a file has several
//! contracts of one name for different periods, equal ones are paired first and the others in the order of the files.
//! Places in files, comments and order are no difference.

use std::borrow::Cow;
use std::collections::{HashMap, HashSet};
use std::hash::Hash;

use config::{Config, Contract, Ports, Service, Word};
use foldhash::fast::RandomState;
use ipnet::IpNet;
use serde::{Deserialize, Serialize};

use crate::change::fields::{
    Field, Fields, box_fields, burst_bytes, changed, class_fields, contract_fields, describe, port_fields, same,
    strings, wire_fields, wire_name,
};

/// All differences from one configuration to another.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Difference {
    /// In the order box, ports, classes, segments, services, contracts.
    pub changes: Vec<Change>,
    /// What of it a running appliance cannot take: `apply` refuses until it is restarted.
    pub needs_restart: Option<String>,
}

/// One thing that appears, goes or changes.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Change {
    /// Which of the three.
    pub kind: Kind,
    /// What it is.
    pub what: What,
    /// Its name; a contract's is `service class direction`, then `to segment` and `(region NAME)` where they matter.
    pub name: String,
    /// What is different, one thing each; of what appears or goes, what it is.
    pub details: Vec<String>,
    /// Of a contract: what was granted.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub before: Option<Granted>,
    /// Of a contract: what will be.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub after: Option<Granted>,
}

/// The conforming part of a contract's meter.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Granted {
    /// Bit/s of the counted layer.
    pub rate_bps: u64,
    /// Bytes of the counted layer.
    pub burst_bytes: u64,
}

/// What became of a thing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Kind {
    /// It is new.
    Appears,
    /// It is no longer there.
    Goes,
    /// It is another than before.
    Changes,
}

/// What a difference is in.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum What {
    /// The top level, `[defaults]`, `[workers]`, `[control]`.
    Box,
    /// A `[[port]]`.
    Port,
    /// A `[[wire]]`.
    Wire,
    /// A `[[class]]`.
    Class,
    /// A `[[segment]]`.
    Segment,
    /// A `[[service]]`.
    Service,
    /// A `[[contract]]`.
    Contract,
}

impl What {
    /// The word for it, as in the configuration.
    #[must_use]
    pub fn word(self) -> &'static str {
        match self {
            What::Box => "box",
            What::Port => "port",
            What::Wire => "wire",
            What::Class => "class",
            What::Segment => "segment",
            What::Service => "service",
            What::Contract => "contract",
        }
    }
}

impl Difference {
    /// From `old` (`None`: from nothing) to `new`.
    #[must_use]
    pub fn new(old: Option<&Config>, new: &Config) -> Self {
        let mut found = Self::default();
        if let Some(old) = old {
            found.needs_restart = crate::plan::needs_restart(old, new);
            let named = |config| vec![(Cow::Borrowed(""), config)];
            found.compare(What::Box, &named(old), named(new), by_fields(box_fields), box_fields);
        }
        found.things(
            What::Port,
            old,
            new,
            |c| c.ports.iter().map(|p| (Cow::Borrowed(&*p.name), p)).collect(),
            by_fields(port_fields),
            port_fields,
        );
        found.things(
            What::Wire,
            old,
            new,
            |c| c.wires.iter().map(|w| (Cow::Owned(wire_name(c, w)), w)).collect(),
            by_fields(wire_fields),
            wire_fields,
        );
        found.things(
            What::Class,
            old,
            new,
            |c| c.classes.iter().map(|x| (Cow::Borrowed(&*x.name), x)).collect(),
            by_fields(class_fields),
            class_fields,
        );
        found.things(
            What::Segment,
            old,
            new,
            |c| c.segments.iter().map(|s| (Cow::Borrowed(&*s.name), s)).collect(),
            |a, b| a.prefixes == b.prefixes,
            |segment| vec![("prefixes", Field::Set(strings(&segment.prefixes)))],
        );
        found.things(
            What::Service,
            old,
            new,
            |c| c.services.iter().map(|s| (Cow::Borrowed(&*s.name), s)).collect(),
            same_service,
            |service| {
                let owner = Field::Text(service.owner.clone());
                vec![("endpoints", Field::Set(strings(&service.endpoints))), ("owner", owner)]
            },
        );
        found.contracts(old, new);
        found
    }

    /// Whether there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.changes.is_empty()
    }

    /// One line: `contracts +1 -2 ~3, services +1`; `no change` if there is none.
    #[must_use]
    pub fn summary(&self) -> String {
        let kinds = [
            What::Contract,
            What::Service,
            What::Segment,
            What::Class,
            What::Port,
            What::Wire,
            What::Box,
        ];
        let mut parts = Vec::new();
        for what in kinds {
            let count = |kind| self.changes.iter().filter(|c| c.what == what && c.kind == kind).count();
            let signs = [('+', Kind::Appears), ('-', Kind::Goes), ('~', Kind::Changes)];
            let counted: String = signs
                .into_iter()
                .filter(|(_, kind)| count(*kind) > 0)
                .map(|(sign, kind)| format!(" {sign}{}", count(kind)))
                .collect();
            if !counted.is_empty() {
                let plural = match what {
                    What::Box => "box",
                    What::Class => "classes",
                    What::Port => "ports",
                    What::Wire => "wires",
                    What::Segment => "segments",
                    What::Service => "services",
                    What::Contract => "contracts",
                };
                parts.push(format!("{plural}{counted}"));
            }
        }
        if parts.is_empty() {
            "no change".to_owned()
        } else {
            parts.join(", ")
        }
    }

    fn things<'c, T: 'c>(
        &mut self,
        what: What,
        old: Option<&'c Config>,
        new: &'c Config,
        list: impl Fn(&'c Config) -> Vec<Named<'c, T>>,
        same: impl Fn(&T, &T) -> bool,
        fields: impl Fn(&T) -> Fields,
    ) {
        let before = old.map(&list).unwrap_or_default();
        self.compare(what, &before, list(new), same, fields);
    }

    /// Things of one kind, by name: what is new or changed in the order of `new`, then what goes in the order of `old`. Only
    /// what is not the `same` is put in words.
    fn compare<T>(
        &mut self,
        what: What,
        old: &[Named<'_, T>],
        new: Vec<Named<'_, T>>,
        same: impl Fn(&T, &T) -> bool,
        fields: impl Fn(&T) -> Fields,
    ) {
        let mut left: HashMap<&str, &T, RandomState> = old.iter().map(|(name, thing)| (&**name, *thing)).collect();
        for (name, thing) in new {
            match left.remove(&*name) {
                None => self.add(Kind::Appears, what, &name, describe(fields(thing))),
                Some(before) if same(before, thing) => {}
                Some(before) => self.add(Kind::Changes, what, &name, changed(fields(before), fields(thing))),
            }
        }
        for (name, thing) in old.iter().filter(|(name, _)| left.contains_key(&**name)) {
            self.add(Kind::Goes, what, name, describe(fields(thing)));
        }
    }

    fn add(&mut self, kind: Kind, what: What, name: &str, details: Vec<String>) {
        self.changes.push(Change {
            kind,
            what,
            name: name.to_owned(),
            details,
            before: None,
            after: None,
        });
    }

    fn contracts(&mut self, old: Option<&Config>, new: &Config) {
        let mut left: HashMap<ContractName<'_>, Vec<&Contract>, RandomState> = HashMap::default();
        left.reserve(old.map_or(0, |old| old.contracts.len()));
        for contract in old.iter().flat_map(|old| &old.contracts) {
            if let Some(old) = old {
                left.entry(ContractName::of(old, contract)).or_default().push(contract);
            }
        }
        // Equal ones first, so that one period more or less does not look like a change of all of them.
        let mut unpaired = Vec::new();
        for contract in &new.contracts {
            let name = ContractName::of(new, contract);
            let of_name = left.get_mut(&name);
            let equal = of_name.and_then(|list| {
                list.iter()
                    .position(|old| same(old, contract))
                    .map(|at| list.remove(at))
            });
            if equal.is_none() {
                unpaired.push((name, contract));
            }
        }
        for (name, contract) in unpaired {
            let of_name = left.get_mut(&name).filter(|list| !list.is_empty());
            let before = of_name.map(|list| list.remove(0));
            let fields = contract_fields(contract);
            let (kind, details) = match before {
                None => (Kind::Appears, describe(fields)),
                Some(before) => (Kind::Changes, changed(contract_fields(before), fields)),
            };
            self.add_contract(kind, name.text(&new.region), details, before, Some(contract));
        }
        let Some(old) = old else { return };
        let gone: HashSet<*const Contract> = left
            .values()
            .flatten()
            .map(|contract| std::ptr::from_ref(*contract))
            .collect();
        for contract in old.contracts.iter().filter(|c| gone.contains(&std::ptr::from_ref(*c))) {
            let name = ContractName::of(old, contract).text(&old.region);
            self.add_contract(
                Kind::Goes,
                name,
                describe(contract_fields(contract)),
                Some(contract),
                None,
            );
        }
    }

    fn add_contract(
        &mut self,
        kind: Kind,
        name: String,
        details: Vec<String>,
        before: Option<&Contract>,
        after: Option<&Contract>,
    ) {
        self.changes.push(Change {
            kind,
            what: What::Contract,
            name,
            details,
            before: before.map(Granted::of),
            after: after.map(Granted::of),
        });
    }
}

/// A thing with its name.
type Named<'c, T> = (Cow<'c, str>, &'c T);

/// Whether two things are the same in all that is shown of them: for kinds of which there are few.
fn by_fields<T>(fields: impl Fn(&T) -> Fields) -> impl Fn(&T, &T) -> bool {
    move |a, b| fields(a) == fields(b)
}

/// Whether two services of one name are the same but for their places.
fn same_service(a: &Service, b: &Service) -> bool {
    fn claims(service: &Service) -> impl Iterator<Item = (&IpNet, &Option<Ports>)> {
        service
            .endpoints
            .iter()
            .map(|endpoint| (&endpoint.prefix, &endpoint.ports))
    }
    a.owner == b.owner && claims(a).eq(claims(b))
}

impl Granted {
    /// Of a contract.
    #[must_use]
    pub fn of(contract: &Contract) -> Self {
        Self {
            rate_bps: contract.meter.rate_bps(),
            burst_bytes: burst_bytes(&contract.meter),
        }
    }
}

/// What a contract is known by.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ContractName<'c> {
    /// Service.
    pub service: &'c str,
    /// Class of service.
    pub class: &'c str,
    /// `egress` or `ingress`.
    pub direction: &'c str,
    /// Far segment.
    pub segment: Option<&'c str>,
    /// Region.
    pub region: &'c str,
}

impl<'c> ContractName<'c> {
    /// Of a contract of `config`.
    #[must_use]
    pub fn of(config: &'c Config, contract: &'c Contract) -> Self {
        Self {
            service: &config.services[contract.service].name,
            class: &config.classes[contract.class].name,
            direction: contract.direction.word(),
            segment: contract.segment.map(|segment| config.segments[segment].name.as_str()),
            region: &contract.region,
        }
    }

    /// `service/class/direction`, and `/segment` if it has one: what `weir show contract` takes.
    #[must_use]
    pub fn path(&self) -> String {
        let segment = self.segment.map(|segment| format!("/{segment}")).unwrap_or_default();
        format!("{}/{}/{}{segment}", self.service, self.class, self.direction)
    }

    /// In words; the region only where it is not `here`.
    #[must_use]
    pub fn text(&self, here: &str) -> String {
        let segment = self.segment.map(|segment| format!(" to {segment}")).unwrap_or_default();
        let region = if self.region == here {
            String::new()
        } else {
            format!(" (region {})", self.region)
        };
        format!("{} {} {}{segment}{region}", self.service, self.class, self.direction)
    }
}

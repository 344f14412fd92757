//! A compiled table with the names of what is in it, and what its counters say.

use std::sync::Arc;

use dataplane::cells::SlotId;
use dataplane::classify::ServiceId;
use dataplane::clock::Nanos;
use dataplane::contract::{ClassId, Contract, ContractIndex, ContractTable, Judge};
use dataplane::priority::RingId;
use jiff::Timestamp;

use crate::change::diff::ContractName;
use crate::observe::Observer;
use crate::report::{ContractReport, Counters, OtherReport, Tokens, TrafficReport, UncontractedReport, direction_name};

use super::{Names, SlotKey, SlotName};

/// A published table with the names of what is in it.
pub struct Compiled {
    /// What the workers run.
    pub table: Arc<ContractTable>,
    /// When a contract of this configuration begins or ends next; compile again then.
    pub next_change: Option<Timestamp>,
    pub(super) region: String,
    pub(super) names: Names,
    pub(super) entries: Vec<(SlotKey, ContractIndex)>,
    /// How many of the last entries are contracts outside their period.
    pub(super) idle: usize,
}

impl Compiled {
    /// Every contract of the table by its name, with the slot of its counters.
    pub fn contracts(&self) -> impl Iterator<Item = (ContractName<'_>, SlotId)> {
        self.numbered().map(|(number, name)| (name, self.contract(number).slot))
    }

    /// The name of a service that this table's classifier knows.
    #[must_use]
    pub fn service_name(&self, service: ServiceId) -> &str {
        self.names.services.get(service.0 as usize).map_or("", |name| name)
    }

    /// The name of a class that this table's classifier knows.
    #[must_use]
    pub fn class_name(&self, class: ClassId) -> &str {
        self.names.classes.get(class.index()).map_or("", |name| name)
    }

    /// The name of an entry of this table; `None`: not a contract, but what stands in for one.
    #[must_use]
    pub fn contract_name(&self, index: ContractIndex) -> Option<ContractName<'_>> {
        // Entries were numbered in this order.
        self.name_of(index.0 as usize)
    }

    /// The classes, those of earlier tables included, by their rings.
    pub fn classes(&self) -> impl Iterator<Item = (&str, RingId)> {
        let slots = (0..).map_while(RingId::new);
        self.names.classes.iter().map(|name| &**name).zip(slots)
    }

    /// Everything in the table that counts packets, with the slot of its counters.
    pub(crate) fn slots(&self) -> impl Iterator<Item = (SlotId, SlotName)> {
        self.entries.iter().map(|(key, index)| {
            let contract = self.table.contract(*index);
            let (service, segment) = match key {
                SlotKey::Contract { service, segment, .. } => (Some(*service), *segment),
                _ => (None, None),
            };
            let (SlotKey::Contract { direction, .. }
            | SlotKey::Uncontracted { direction, .. }
            | SlotKey::Other { direction }) = key;
            let name = SlotName {
                service: service.map(|service| self.names.services[service as usize].clone()),
                class: self.names.classes[contract.class.index()].clone(),
                direction: direction_name(*direction),
                segment: segment.map(|segment| self.names.segments[segment as usize].clone()),
                is_other: matches!(key, SlotKey::Other { .. }),
            };
            (contract.slot, name)
        })
    }

    /// What became of the traffic, summed over workers, with bucket levels as of `now` and rates where they are observed. The
    /// ledger is left empty.
    #[must_use]
    pub fn traffic(&self, now: Option<Nanos>, observed: Option<&Observer>) -> TrafficReport {
        self.traffic_of(now, observed, |_| true)
    }

    /// The same with only those contracts whose slots are `wanted`; the counters of the others are not read.
    #[must_use]
    pub fn traffic_of(
        &self,
        now: Option<Nanos>,
        observed: Option<&Observer>,
        wanted: impl Fn(SlotId) -> bool,
    ) -> TrafficReport {
        let mut report = self.traffic_without_contracts(observed);
        report.contracts = (0..self.entries.len())
            .filter(|number| wanted(self.contract(*number).slot))
            .filter_map(|number| self.contract_report(number, now, observed))
            .collect();
        report
    }

    /// The same without contracts and ledger.
    #[must_use]
    pub fn traffic_without_contracts(&self, observed: Option<&Observer>) -> TrafficReport {
        let mut report = TrafficReport::default();
        for (key, index) in &self.entries {
            let slot = self.table.contract(*index).slot;
            let counters = || Counters::read(&self.table.cells, slot);
            let rates = || observed.map(|observed| observed.rates(slot));
            match key {
                SlotKey::Contract { .. } => {}
                SlotKey::Uncontracted { class, direction } => report.uncontracted.push(UncontractedReport {
                    class: self.names.classes[*class as usize].to_string(),
                    direction: direction_name(*direction).to_owned(),
                    rates: rates(),
                    counters: counters(),
                }),
                SlotKey::Other { direction } => report.other.push(OtherReport {
                    direction: direction_name(*direction).to_owned(),
                    rates: rates(),
                    counters: counters(),
                }),
            }
        }
        report
    }

    /// Numbers and names of the contracts, in the order of the configuration. A number is good for
    /// [`contract_report`](Self::contract_report) and the other readers of this table.
    pub fn numbered(&self) -> impl Iterator<Item = (usize, ContractName<'_>)> {
        let entries = self.entries.iter().enumerate();
        entries.filter_map(|(number, (key, _))| Some((number, self.name(key)?)))
    }

    /// What became of the traffic of one contract. `None`: that number is not a contract's.
    #[must_use]
    pub fn contract_report(
        &self,
        number: usize,
        now: Option<Nanos>,
        observed: Option<&Observer>,
    ) -> Option<ContractReport> {
        let (key, index) = self.entries.get(number)?;
        let name = self.name(key)?;
        let contract = self.table.contract(*index);
        let Judge::Meter(meter) = &contract.judge else {
            return None;
        };
        let tokens = now.map(|now| {
            let levels = self.table.cells.levels(meter, contract.slot, now);
            Tokens {
                committed: levels.committed_bytes,
                second: levels.second_bytes,
            }
        });
        Some(ContractReport {
            service: name.service.to_owned(),
            class: name.class.to_owned(),
            region: self.region.clone(),
            direction: name.direction.to_owned(),
            segment: name.segment.map(str::to_owned),
            active: self.is_active(number),
            rate_bps: meter.committed_rate_bps(),
            under_grant_bytes: meter.under_grant_bytes(self.table.cells.workers()),
            tokens,
            rates: observed.map(|observed| observed.rates(contract.slot)),
            counters: Counters::read(&self.table.cells, contract.slot),
        })
    }

    /// Whether the contract of this number is within its period.
    #[must_use]
    pub fn is_active(&self, number: usize) -> bool {
        number < self.entries.len() - self.idle
    }

    /// The contract of this number, as workers have it.
    #[must_use]
    pub fn contract(&self, number: usize) -> &Contract {
        self.table.contract(self.entries[number].1)
    }

    /// The names of the contract of this number. `None`: that number is not a contract's.
    #[must_use]
    pub fn name_of(&self, number: usize) -> Option<ContractName<'_>> {
        self.name(&self.entries.get(number)?.0)
    }

    fn name(&self, key: &SlotKey) -> Option<ContractName<'_>> {
        let SlotKey::Contract {
            service,
            class,
            direction,
            segment,
        } = key
        else {
            return None;
        };
        Some(ContractName {
            service: &self.names.services[*service as usize],
            class: &self.names.classes[*class as usize],
            direction: direction_name(*direction),
            segment: segment.map(|segment| &*self.names.segments[segment as usize]),
            region: &self.region,
        })
    }
}

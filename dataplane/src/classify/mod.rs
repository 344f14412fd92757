//! From packet to contract: (service, class, direction, segment), the flow cache in front.
//!
//! ```text
//! headers ─► flow cache ── hit ─────────────────────────────► contract, colour on arrival
//!               └─ miss ─► service (site-side address, port) ┐
//!                          class   (DSCP, else PCP)          ├─► contract ─► flow cache
//!                          segment (far address)             ┘
//! ```
//!
//! Knows nothing of meters, rings or ports. A later fragment has no ports: it takes its first fragment's service from the
//! worker's fragment table. Its class comes from its own DSCP, like everybody's.

mod cache;
mod prefix;
mod service;

use std::collections::HashMap;

use foldhash::fast::FixedState;

pub use cache::{FLOWS, Flow, FlowCache};
pub use prefix::PrefixTable;
pub use service::{PortRange, ServiceId, ServiceTable};

use crate::clock::Nanos;
use crate::contract::{ClassId, ClassMap, ContractIndex, ContractTable, Direction};
use crate::fragment::{FragmentKey, FragmentTable};
use crate::meter::Color;
use crate::packet::{Family, Fragment, Headers};

/// A set of far-side prefixes, by its place in the configuration the table was compiled from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct SegmentId(pub u32);

/// The compiled tables.
#[derive(Clone, Debug)]
pub struct Classifier {
    /// Endpoints to services.
    pub services: ServiceTable,
    segments: [PrefixTable<SegmentId>; 2],
    contracts: HashMap<ContractKey, ContractIndex, FixedState>,
    /// Where packets without a contract go, by direction and class.
    uncontracted: Vec<[ContractIndex; 2]>,
}

/// What a contract is looked up by.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct ContractKey {
    /// Whose traffic.
    pub service: ServiceId,
    /// In which class.
    pub class: ClassId,
    /// Which way.
    pub direction: Direction,
    /// To or from which far prefixes; `None`: all.
    pub segment: Option<SegmentId>,
}

impl Classifier {
    /// A classifier without contracts. `uncontracted` gives, for each [`ClassId`] in turn, the entries by direction.
    #[must_use]
    pub fn new(services: ServiceTable, uncontracted: Vec<[ContractIndex; 2]>) -> Self {
        let segments = [PrefixTable::new(32), PrefixTable::new(128)];
        Self {
            services,
            segments,
            contracts: HashMap::default(),
            uncontracted,
        }
    }

    /// Adds a prefix to a segment.
    pub fn insert_segment(&mut self, family: Family, address: u128, length: u8, segment: SegmentId) {
        self.segments[family as usize].entry(address, length, || segment);
    }

    /// Adds a contract.
    pub fn insert_contract(&mut self, key: ContractKey, contract: ContractIndex) {
        self.contracts.insert(key, contract);
    }

    /// The service of a packet by its own headers.
    #[inline]
    #[must_use]
    pub fn service(&self, headers: &Headers, direction: Direction) -> Option<ServiceId> {
        let (address, port) = match direction {
            Direction::Egress => (headers.src, headers.ports.map(|ports| ports.src)),
            Direction::Ingress => (headers.dst, headers.ports.map(|ports| ports.dst)),
        };
        self.services
            .find(headers.family, address, port.map(|port| (headers.protocol, port)))
    }

    /// The contract of a packet of `service`: one whose segment holds the far address, the longest prefix first; else the
    /// one without segment; else the entry for uncontracted packets of the class.
    #[must_use]
    pub fn contract(
        &self,
        service: Option<ServiceId>,
        class: ClassId,
        direction: Direction,
        headers: &Headers,
    ) -> ContractIndex {
        let contracted = service.and_then(|service| {
            let far = match direction {
                Direction::Egress => headers.dst,
                Direction::Ingress => headers.src,
            };
            let at = |segment| {
                self.contracts
                    .get(&ContractKey {
                        service,
                        class,
                        direction,
                        segment,
                    })
                    .copied()
            };
            let segments = self.segments[headers.family as usize].covering(far);
            segments.map(|segment| Some(*segment)).chain([None]).find_map(at)
        });
        contracted.unwrap_or_else(|| self.uncontracted[class.index()][direction.index()])
    }
}

/// One path's view of the classifier: the flow cache and the fragments seen.
pub struct PathClassifier {
    direction: Direction,
    cache: FlowCache,
    fragments: FragmentTable,
}

/// Fragmented packets under way that one path remembers. 4,096 at 30 s are 136 new fragmented packets a second for ever,
/// or a burst of 4,096; beyond that the oldest are forgotten and match endpoints without ports.
const FRAGMENTS: usize = 4_096;

impl PathClassifier {
    /// Takes all its memory now. `seed` decides where flows and fragments are kept: strangers should not be able to
    /// foresee it.
    #[must_use]
    pub fn new(direction: Direction, seed: u64) -> Self {
        Self {
            direction,
            cache: FlowCache::new(FLOWS, seed),
            fragments: FragmentTable::with_seed(FRAGMENTS, seed),
        }
    }

    /// First step of classifying: the packet's flow. `None`: a fragment.
    #[inline]
    #[must_use]
    pub fn flow(&self, headers: &Headers) -> Option<Flow> {
        self.cache.flow(headers)
    }

    /// Second step: begins to load what is known of `flow`, so that the third need not wait.
    #[inline]
    pub fn prefetch(&self, flow: &Flow) {
        self.cache.prefetch(flow);
    }

    /// Third step: what `table` has said of an earlier packet of `flow`: its contract, and the colour it arrived with.
    #[inline]
    #[must_use]
    pub fn known(&self, table: &ContractTable, flow: &Flow) -> Option<(ContractIndex, Color)> {
        self.cache.get(flow, table.generation)
    }

    /// Fourth step, for what is not known: asks the tables, and remembers their answer.
    #[inline]
    pub fn classify(
        &mut self,
        table: &ContractTable,
        headers: &Headers,
        flow: Option<&Flow>,
        now: Nanos,
    ) -> (ContractIndex, Color) {
        let Some(flow) = flow else {
            return self.classify_fragment(table, headers, now);
        };
        let service = table.classifier.service(headers, self.direction);
        let judged = self.judge(&table.classes, &table.classifier, service, headers);
        self.cache.put(flow, table.generation, judged);
        judged
    }

    fn classify_fragment(&mut self, table: &ContractTable, headers: &Headers, now: Nanos) -> (ContractIndex, Color) {
        let own = table.classifier.service(headers, self.direction);
        let service = match (headers.fragment, FragmentKey::of(headers)) {
            (Fragment::First { .. }, Some(key)) => {
                self.fragments.remember(key, own.map(|service| service.0), now);
                own
            }
            (Fragment::Later { .. }, Some(key)) => match self.fragments.recall(&key, now) {
                Some(first) => first.map(ServiceId),
                None => own,
            },
            _ => own,
        };
        self.judge(&table.classes, &table.classifier, service, headers)
    }

    #[inline]
    fn judge(
        &self,
        classes: &ClassMap,
        classifier: &Classifier,
        service: Option<ServiceId>,
        headers: &Headers,
    ) -> (ContractIndex, Color) {
        let (class, arrived) = classes.class(headers.dscp, headers.pcp);
        (classifier.contract(service, class, self.direction, headers), arrived)
    }
}

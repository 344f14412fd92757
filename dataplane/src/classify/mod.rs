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
mod contracts;
mod prefix;
mod service;
mod tables;
mod tree;

pub use cache::{FLOWS, Flow, FlowCache};
pub use service::{PortRange, ServiceId};
pub use tables::{Classifier, ClassifierBuilder, ContractKey, SegmentId};
pub use tree::TooLarge;

use arrayvec::ArrayVec;

use service::Search;

use crate::clock::Nanos;
use crate::contract::{ClassId, ClassMap, ContractIndex, ContractTable, Direction};
use crate::fragment::{FragmentKey, FragmentTable};
use crate::meter::Color;
use crate::packet::{Fragment, Headers};

/// One path's view of the classifier: the flow cache and the fragments seen.
pub struct PathClassifier {
    direction: Direction,
    cache: FlowCache,
    fragments: FragmentTable,
}

/// Fragmented packets under way that one path remembers. 4,096 at 30 s are 136 new fragmented packets a second for ever,
/// or a burst of 4,096; beyond that the oldest are forgotten and match endpoints without ports.
const FRAGMENTS: usize = 4_096;

/// A packet that goes through the tables together with others, because its flow is not known.
#[derive(Clone, Copy, Debug)]
struct Miss<'a> {
    headers: &'a Headers,
    flow: &'a Flow,
    class: ClassId,
    arrived: Color,
    search: Search,
    /// Of the contract, once the service is known.
    entry: Option<&'a u32>,
}

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

    /// The fourth step for up to `N` packets whose flows are not known (fragments have none and go by themselves): they wait
    /// for large tables together, not in turn. The answers are in the order of the packets.
    #[inline(never)]
    pub fn classify_few<'a, const N: usize>(
        &mut self,
        table: &'a ContractTable,
        packets: impl Iterator<Item = (&'a Headers, &'a Flow)>,
    ) -> ArrayVec<(ContractIndex, Color), N> {
        let classifier = &table.classifier;
        let packets = packets.take(N);
        if !classifier.is_far() {
            let judged = packets.map(|(headers, flow)| self.classify(table, headers, Some(flow), Nanos::default()));
            return judged.collect();
        }
        let mut misses: ArrayVec<Miss<'a>, N> =
            packets.map(|(headers, flow)| self.miss(table, headers, flow)).collect();
        // Each round of the loops reads what the one before has begun to load.
        let mut searching = true;
        while searching {
            searching = false;
            for miss in &mut misses {
                searching |= !classifier.step(&mut miss.search);
            }
        }
        for miss in &mut misses {
            miss.entry = classifier.entry(&miss.search, miss.class, self.direction);
        }
        let judged = misses.iter().map(|miss| {
            let contract = classifier.judge(miss.entry, miss.class, self.direction, miss.headers);
            let found = (contract, miss.arrived);
            self.cache.put(miss.flow, table.generation, found);
            found
        });
        judged.collect()
    }

    /// Begins to look up a packet whose flow is not known.
    #[inline]
    fn miss<'a>(&self, table: &'a ContractTable, headers: &'a Headers, flow: &'a Flow) -> Miss<'a> {
        let (class, arrived) = table.classes.class(headers.dscp, headers.pcp);
        Miss {
            headers,
            flow,
            class,
            arrived,
            search: table.classifier.begin(headers, self.direction),
            entry: None,
        }
    }

    fn classify_fragment(&mut self, table: &ContractTable, headers: &Headers, now: Nanos) -> (ContractIndex, Color) {
        let service = self.service(table, headers, now);
        self.judge(&table.classes, &table.classifier, service, headers)
    }

    /// Whose packet it is: by its own headers or, of a later fragment, by its first one's, if that was seen.
    pub fn service(&mut self, table: &ContractTable, headers: &Headers, now: Nanos) -> Option<ServiceId> {
        let own = table.classifier.service(headers, self.direction);
        match (headers.fragment, FragmentKey::of(headers)) {
            (Fragment::First { .. }, Some(key)) => {
                self.fragments.remember(key, own.map(|service| service.0), now);
                own
            }
            (Fragment::Later { .. }, Some(key)) => match self.fragments.recall(&key, now) {
                Some(first) => first.map(ServiceId),
                None => own,
            },
            _ => own,
        }
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

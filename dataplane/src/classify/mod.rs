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

pub use cache::{FLOWS, FlowCache, Place};
pub use service::{PortRange, ServiceId};
pub use tables::{Classifier, ClassifierBuilder, ContractKey, SegmentId};
pub use tree::TooLarge;

use tables::Lookup;

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
pub struct Miss<'a> {
    headers: &'a Headers,
    place: Place,
    class: ClassId,
    arrived: Color,
    lookup: Lookup,
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

    /// First step of classifying: where the packet's flow may be known. `None`: a fragment.
    #[inline]
    #[must_use]
    pub fn place(&self, headers: &Headers) -> Option<Place> {
        self.cache.place(headers)
    }

    /// Second step: begins to load what is known at `place`, so that the third need not wait.
    #[inline]
    pub fn prefetch(&self, place: Place) {
        self.cache.prefetch(place);
    }

    /// Third step: the contract of a packet, and the colour it arrives with.
    #[inline]
    pub fn classify(
        &mut self,
        table: &ContractTable,
        headers: &Headers,
        place: Option<Place>,
        now: Nanos,
    ) -> (ContractIndex, Color) {
        let Some(place) = place else {
            return self.classify_fragment(table, headers, now);
        };
        if let Some(known) = self.cache.get(place, headers, table.generation) {
            return known;
        }
        let service = table.classifier.service(headers, self.direction);
        let judged = self.judge(&table.classes, &table.classifier, service, headers);
        self.cache.put(place, headers, table.generation, judged);
        judged
    }

    /// Instead of the third step, for packets that go together: what is known of the flow.
    #[inline]
    #[must_use]
    pub fn known(&self, table: &ContractTable, headers: &Headers, place: Place) -> Option<(ContractIndex, Color)> {
        self.cache.get(place, headers, table.generation)
    }

    /// Begins to look a packet up whose flow is not known, and to load the first line of the tables.
    #[inline]
    #[must_use]
    pub fn miss<'a>(&self, table: &'a ContractTable, headers: &'a Headers, place: Place) -> Miss<'a> {
        let (class, arrived) = table.classes.class(headers.dscp, headers.pcp);
        Miss {
            headers,
            place,
            class,
            arrived,
            lookup: table.classifier.begin(headers, self.direction),
            entry: None,
        }
    }

    /// Looks up all of `misses`, a line of each in turn, and keeps what it finds. `found` gets the position of each with its
    /// contract and the colour it arrives with.
    #[inline]
    pub fn resolve<'a>(
        &mut self,
        table: &'a ContractTable,
        misses: &mut [Miss<'a>],
        mut found: impl FnMut(usize, ContractIndex, Color),
    ) {
        let classifier = &table.classifier;
        loop {
            let mut over = true;
            for miss in misses.iter_mut() {
                over &= classifier.step(&mut miss.lookup);
            }
            if over {
                break;
            }
        }
        for miss in misses.iter_mut() {
            miss.entry = classifier.entry(&miss.lookup, miss.class, self.direction);
        }
        for (position, miss) in misses.iter().enumerate() {
            let contract = classifier.finish(miss.entry, miss.class, self.direction, miss.headers);
            self.cache
                .put(miss.place, miss.headers, table.generation, (contract, miss.arrived));
            found(position, contract, miss.arrived);
        }
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

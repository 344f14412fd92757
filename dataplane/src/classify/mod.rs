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

use arrayvec::ArrayVec;

use service::Search;

use crate::clock::Nanos;
use crate::contract::{ClassId, ClassMap, ContractIndex, ContractTable, Direction};
use crate::fragment::{FragmentKey, FragmentTable};
use crate::meter::Color;
use crate::packet::{Fragment, Headers, Parsed};

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
    /// Among the packets it came with.
    position: usize,
    headers: &'a Headers,
    place: Place,
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

    /// The third step for up to `N` packets that go together: those whose flow is not known wait for large tables together,
    /// not in turn. Packets that are not IP get the entry for these. The answers are in the order of the packets.
    #[inline]
    pub fn classify_few<'a, const N: usize>(
        &mut self,
        table: &'a ContractTable,
        packets: impl Iterator<Item = (&'a Parsed, Option<Place>)>,
        now: Nanos,
    ) -> ArrayVec<(ContractIndex, Color), N> {
        let mut judged: ArrayVec<(ContractIndex, Color), N> = ArrayVec::new();
        let mut misses: ArrayVec<Miss<'a>, N> = ArrayVec::new();
        let other = (table.other[self.direction.index()], Color::Green);
        for (parsed, place) in packets.take(N) {
            let known = match (parsed, place) {
                (Parsed::Other { .. }, _) => Some(other),
                (Parsed::Ip(headers), None) => Some(self.classify_fragment(table, headers, now)),
                (Parsed::Ip(headers), Some(_)) if !table.classifier.is_far() => {
                    Some(self.classify(table, headers, place, now))
                }
                (Parsed::Ip(headers), Some(place)) => {
                    let known = self.cache.get(place, headers, table.generation);
                    if known.is_none() {
                        misses.push(self.miss(table, headers, place, judged.len()));
                    }
                    known
                }
            };
            judged.push(known.unwrap_or(other));
        }
        if !misses.is_empty() {
            self.resolve(table, &mut misses, &mut judged);
        }
        judged
    }

    /// Begins to look up a packet whose flow is not known.
    #[inline]
    fn miss<'a>(&self, table: &'a ContractTable, headers: &'a Headers, place: Place, position: usize) -> Miss<'a> {
        let (class, arrived) = table.classes.class(headers.dscp, headers.pcp);
        Miss {
            position,
            headers,
            place,
            class,
            arrived,
            search: table.classifier.begin(headers, self.direction),
            entry: None,
        }
    }

    /// Each round of the loops reads what the one before has begun to load. Out of line, so that the loop over known flows
    /// stays small.
    #[inline(never)]
    fn resolve<'a>(
        &mut self,
        table: &'a ContractTable,
        misses: &mut [Miss<'a>],
        judged: &mut [(ContractIndex, Color)],
    ) {
        let classifier = &table.classifier;
        let mut searching = true;
        while searching {
            searching = false;
            for miss in misses.iter_mut() {
                searching |= !classifier.step(&mut miss.search);
            }
        }
        for miss in misses.iter_mut() {
            miss.entry = classifier.entry(&miss.search, miss.class, self.direction);
        }
        for miss in misses {
            let contract = classifier.judge(miss.entry, miss.class, self.direction, miss.headers);
            let found = (contract, miss.arrived);
            self.cache.put(miss.place, miss.headers, table.generation, found);
            judged[miss.position] = found;
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

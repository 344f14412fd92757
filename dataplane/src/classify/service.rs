//! Whose traffic it is: endpoints (a prefix, maybe with protocol and ports) to services.
//!
//! A lookup finds the interval of the address, and with it the answer of its longest prefix. Where that prefix has rules
//! with ports, the answer is a tree of its own over (protocol, port), whose gaps lead to what the prefix says without
//! ports, or else to the answer of the next shorter prefix.

use std::collections::BTreeSet;

use super::prefix::{self, Prefix};
use super::tree::{Boundary, Forest, Ref, TooLarge, Tree, VALUE_MAX};
use crate::packet::Family;

/// A service, by a number that stays the same for the life of the process: fragments remember it over a reload. Below 2^30.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ServiceId(pub u32);

/// Transport ports that narrow an endpoint.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PortRange {
    /// IP protocol number: 6 (TCP) or 17 (UDP).
    pub protocol: u8,
    /// First port.
    pub first: u16,
    /// Last port, inclusive.
    pub last: u16,
}

/// The endpoints of all services, compiled.
#[derive(Clone, Debug)]
pub(super) struct ServiceTable {
    forest: Forest,
    /// By [`Family`].
    trees: [Tree; 2],
    /// The trees of prefixes with ports.
    ports: Vec<Tree>,
}

/// What an interval says: 0 nothing, below this a service plus 1, else this plus a place in [`ServiceTable::ports`].
const PORTS: u32 = 1 << 30;

/// A search for the service of one packet.
#[derive(Clone, Copy, Debug)]
pub(super) struct Search {
    at: Ref,
    key: u128,
    transport: u128,
}

/// One endpoint of the configuration.
#[derive(Clone, Copy, Debug)]
struct Endpoint {
    prefix: Prefix,
    /// Position among all endpoints.
    order: u32,
    ports: Option<PortRange>,
    service: ServiceId,
}

/// The endpoints of all services, as they are told.
#[derive(Clone, Debug, Default)]
pub(super) struct Endpoints {
    /// By [`Family`].
    by_family: [Vec<Endpoint>; 2],
}

impl Endpoints {
    /// Adds an endpoint. Two services with the same endpoint are refused by the configuration; here the first one stays.
    pub(super) fn insert(&mut self, family: Family, prefix: Prefix, ports: Option<PortRange>, service: ServiceId) {
        let endpoints = &mut self.by_family[family as usize];
        endpoints.push(Endpoint {
            prefix,
            order: endpoints.len() as u32,
            ports,
            service,
        });
    }

    pub(super) fn compile(mut self) -> Result<ServiceTable, TooLarge> {
        let mut forest = Forest::default();
        let nothing = forest.plant(0, &[], true)?;
        let mut table = ServiceTable {
            forest,
            trees: [nothing; 2],
            ports: Vec::new(),
        };
        for (family, endpoints) in self.by_family.iter_mut().enumerate() {
            endpoints.sort_unstable_by_key(|endpoint| (endpoint.prefix, endpoint.order));
            if endpoints.iter().any(|endpoint| endpoint.service.0 >= PORTS - 1) {
                return Err(TooLarge);
            }
            let mut too_large = false;
            let same_prefix = endpoints.chunk_by(|a, b| a.prefix == b.prefix);
            let boundaries = prefix::boundaries(same_prefix.map(|group| (group[0].prefix, group)), |group, around| {
                table.answer(group, around).unwrap_or_else(|TooLarge| {
                    too_large = true;
                    0
                })
            });
            if too_large {
                return Err(TooLarge);
            }
            // Nothing of it is needed any more, and the lines of the tree need the room.
            *endpoints = Vec::new();
            table.trees[family] = table.forest.plant(0, &boundaries, false)?;
        }
        table.forest.shrink();
        Ok(table)
    }
}

impl ServiceTable {
    /// The service of a site-side address, with the site-side port when the packet has one. The longest prefix that
    /// matches with its ports wins; at the same prefix one with ports beats one without.
    #[inline]
    pub(super) fn find(&self, family: Family, address: u128, transport: Option<(u8, u16)>) -> Option<ServiceId> {
        let key = prefix::key(family, address);
        let mut answer = self.forest.find(self.trees[family as usize], key);
        while answer >= PORTS {
            let key = transport.map_or(NO_PORT, |(protocol, port)| transport_key(protocol, port));
            answer = self.forest.find(self.ports[(answer - PORTS) as usize], key);
        }
        answer.checked_sub(1).map(ServiceId)
    }

    /// Begins a search.
    #[inline]
    pub(super) fn begin(&self, family: Family, address: u128, transport: Option<(u8, u16)>) -> Search {
        let key = prefix::key(family, address);
        Search {
            at: Forest::begin(self.trees[family as usize], key),
            key,
            transport: transport.map_or(NO_PORT, |(protocol, port)| transport_key(protocol, port)),
        }
    }

    /// Begins to load what the next step will read.
    #[inline]
    pub(super) fn prefetch(&self, search: &Search) {
        if search.at.value().is_none() {
            self.forest.prefetch(search.at);
        }
    }

    /// One read further. The search is not over.
    #[inline]
    pub(super) fn step(&self, search: &mut Search) {
        match search.at.value() {
            None => search.at = self.forest.step(search.at, search.key),
            Some(answer) => {
                search.key = search.transport;
                search.at = Forest::begin(self.ports[(answer - PORTS) as usize], search.key);
            }
        }
    }

    /// Memory that the table takes.
    pub(super) fn bytes(&self) -> usize {
        self.forest.bytes() + size_of_val(&self.ports[..])
    }

    /// What the endpoints of one prefix say, where `around` is said by the prefixes around it.
    fn answer(&mut self, endpoints: &[Endpoint], around: u32) -> Result<u32, TooLarge> {
        let bare = endpoints.iter().find(|endpoint| endpoint.ports.is_none());
        let bare = bare.map_or(around, |endpoint| endpoint.service.0 + 1);
        if endpoints.iter().all(|endpoint| endpoint.ports.is_none()) {
            return Ok(bare);
        }
        let place = u32::try_from(self.ports.len()).map_err(|_| TooLarge)?;
        let tree = self.forest.plant(bare, &port_boundaries(endpoints, bare), true)?;
        self.ports.push(tree);
        (place <= VALUE_MAX - PORTS).then_some(PORTS + place).ok_or(TooLarge)
    }
}

impl Search {
    #[inline]
    pub(super) fn is_over(&self) -> bool {
        self.at.value().is_some_and(|answer| answer < PORTS)
    }

    /// What was found, once the search is over.
    #[inline]
    pub(super) fn service(&self) -> Option<ServiceId> {
        let answer = self.at.value()?;
        answer.checked_sub(1).map(ServiceId)
    }
}

/// Protocol and port as a key: 25 bits, left-aligned.
#[inline]
fn transport_key(protocol: u8, port: u16) -> u128 {
    ((u128::from(protocol) + 1) << 16 | u128::from(port)) * NEXT_PORT
}

/// Before all protocols, where there are no rules.
const NO_PORT: u128 = 0;

/// From the key of one port to that of the next.
const NEXT_PORT: u128 = 1 << (128 - 25);

/// The ranges of ports as intervals over (protocol, port). Where ranges overlap, which the configuration refuses, the
/// first one stays.
fn port_boundaries(endpoints: &[Endpoint], bare: u32) -> Vec<Boundary> {
    let mut edges = Vec::new();
    for (order, endpoint) in endpoints.iter().enumerate() {
        let Some(range) = endpoint.ports.filter(|range| range.first <= range.last) else {
            continue;
        };
        edges.push((transport_key(range.protocol, range.first), true, order));
        edges.push((transport_key(range.protocol, range.last) + NEXT_PORT, false, order));
    }
    edges.sort_unstable();
    let mut boundaries = Vec::with_capacity(edges.len());
    let mut begun = BTreeSet::new();
    for (at, begins, order) in edges {
        if begins {
            begun.insert(order);
        } else {
            begun.remove(&order);
        }
        let answer = begun.first().map_or(bare, |&first| endpoints[first].service.0 + 1);
        boundaries.pop_if(|last: &mut Boundary| last.at == at);
        if boundaries.last().map_or(bare, |last| last.value) != answer {
            boundaries.push(Boundary { at, value: answer });
        }
    }
    boundaries
}

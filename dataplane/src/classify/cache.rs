//! The flow cache: what the tables said about a flow, kept so that its next packet asks one line instead of several tables.
//!
//! An entry holds the whole key, so a hit is always right; a collision only costs a miss. It also holds the generation of
//! the table it came from, so a new table empties the cache without touching it. Two entries share a place; the older one
//! goes. IPv4 and IPv6 are kept apart: a place for IPv4 is then one cache line instead of two. Memory is taken once.

use std::hash::{BuildHasher, Hash, Hasher};

use foldhash::fast::FixedState;

use crate::contract::ContractIndex;
use crate::meter::Color;
use crate::packet::{Family, Fragment, Headers};
use crate::prefetch::prefetch;

/// One direction of one queue's cache.
pub struct FlowCache {
    ipv4: Box<[Pair<Ipv4Key>]>,
    ipv6: Box<[Pair<Ipv6Key>]>,
    hash: FixedState,
}

/// A flow as its cache knows it: everything that classification looks at, and where it belongs.
#[derive(Clone, Copy, Debug)]
pub struct Flow {
    pair: usize,
    key: Key,
}

#[derive(Clone, Copy, Debug)]
enum Key {
    Ipv4(Ipv4Key),
    Ipv6(Ipv6Key),
}

/// Everything that classification looks at in an IPv4 packet: addresses; ports and the rest. In words, because words
/// are what hashing and comparing cost.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Ipv4Key([u64; 2]);

/// The same of an IPv6 packet.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Ipv6Key([u64; 5]);

impl Hash for Ipv4Key {
    #[inline]
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.0.iter().for_each(|word| state.write_u64(*word));
    }
}

impl Hash for Ipv6Key {
    #[inline]
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.0.iter().for_each(|word| state.write_u64(*word));
    }
}

#[derive(Clone, Copy)]
struct Entry<K> {
    key: K,
    generation: u64,
    contract: ContractIndex,
    arrived: Color,
}

/// The two entries of a place, the newer first.
#[derive(Clone, Copy)]
#[repr(align(64))]
struct Pair<K>([Entry<K>; 2]);

const _: () = assert!(size_of::<Pair<Ipv4Key>>() == 64, "a place for IPv4, one cache line");
const _: () = assert!(size_of::<Pair<Ipv6Key>>() == 128, "a place for IPv6, two cache lines");

/// Flows of each family that a cache holds: four times the 4,096 flows that a busy queue is tested with, in 512 KiB for
/// IPv4 and 1 MiB for IPv6. More would miss in cache; fewer would push each other out.
pub const FLOWS: usize = 16_384;

impl FlowCache {
    /// An empty cache for `flows` flows of each family, a power of two, at least 2. Strangers who do not know `seed`
    /// cannot foresee which flows share a place.
    #[must_use]
    pub fn new(flows: usize, seed: u64) -> Self {
        assert!(
            flows.is_power_of_two() && flows >= 2,
            "a flow cache holds a power of two of flows"
        );
        Self {
            ipv4: empty(flows / 2),
            ipv6: empty(flows / 2),
            hash: FixedState::with_seed(seed),
        }
    }

    /// The flow of a packet; `None` for fragments, whose service is not in their own headers alone.
    #[inline]
    #[must_use]
    pub fn flow(&self, headers: &Headers) -> Option<Flow> {
        if headers.fragment != Fragment::Whole {
            return None;
        }
        let (hash, key) = match headers.family {
            Family::Ipv4 => {
                let key = Ipv4Key::of(headers);
                (self.hash.hash_one(key), Key::Ipv4(key))
            }
            Family::Ipv6 => {
                let key = Ipv6Key::of(headers);
                (self.hash.hash_one(key), Key::Ipv6(key))
            }
        };
        let pair = hash as usize & (self.ipv4.len() - 1);
        Some(Flow { pair, key })
    }

    /// Begins to load what is known of `flow`.
    #[inline]
    pub fn prefetch(&self, flow: &Flow) {
        match flow.key {
            Key::Ipv4(_) => prefetch(&self.ipv4[flow.pair]),
            Key::Ipv6(_) => {
                let Pair([newer, older]) = &self.ipv6[flow.pair];
                prefetch(newer);
                prefetch(older);
            }
        }
    }

    /// What table `generation` said about `flow`, if it is still there.
    #[inline]
    #[must_use]
    pub fn get(&self, flow: &Flow, generation: u64) -> Option<(ContractIndex, Color)> {
        match flow.key {
            Key::Ipv4(key) => self.ipv4[flow.pair].get(key, generation),
            Key::Ipv6(key) => self.ipv6[flow.pair].get(key, generation),
        }
    }

    /// Keeps what table `generation` (from 1) said about `flow`.
    #[inline]
    pub fn put(&mut self, flow: &Flow, generation: u64, (contract, arrived): (ContractIndex, Color)) {
        match flow.key {
            Key::Ipv4(key) => self.ipv4[flow.pair].put(Entry {
                key,
                generation,
                contract,
                arrived,
            }),
            Key::Ipv6(key) => self.ipv6[flow.pair].put(Entry {
                key,
                generation,
                contract,
                arrived,
            }),
        }
    }
}

impl<K: Copy + PartialEq> Pair<K> {
    #[inline]
    fn get(&self, key: K, generation: u64) -> Option<(ContractIndex, Color)> {
        let mut entries = self.0.iter();
        let entry = entries.find(|entry| entry.generation == generation && entry.key == key)?;
        Some((entry.contract, entry.arrived))
    }

    #[inline]
    fn put(&mut self, entry: Entry<K>) {
        // Two packets of a new flow that came together are one entry.
        if self.0[0].key != entry.key {
            self.0[1] = self.0[0];
        }
        self.0[0] = entry;
    }
}

fn empty<K: Copy + Default>(pairs: usize) -> Box<[Pair<K>]> {
    let entry = Entry {
        key: K::default(),
        generation: 0,
        contract: ContractIndex(0),
        arrived: Color::Green,
    };
    vec![Pair([entry; 2]); pairs].into_boxed_slice()
}

impl Ipv4Key {
    #[inline]
    fn of(headers: &Headers) -> Self {
        // `Headers` keeps IPv4 addresses in the low 32 bits.
        Self([
            u64::from(headers.src as u32) << 32 | u64::from(headers.dst as u32),
            ports_and_rest(headers),
        ])
    }
}

impl Ipv6Key {
    #[inline]
    fn of(headers: &Headers) -> Self {
        let [src, dst] = [headers.src, headers.dst];
        Self([
            (src >> 64) as u64,
            src as u64,
            (dst >> 64) as u64,
            dst as u64,
            ports_and_rest(headers),
        ])
    }
}

/// Ports, protocol, DSCP, PCP and whether there are ports, packed.
#[inline]
fn ports_and_rest(headers: &Headers) -> u64 {
    let (ports, has_ports) = match headers.ports {
        Some(ports) => (u64::from(ports.src) << 16 | u64::from(ports.dst), 1),
        None => (0, 0),
    };
    let pcp = headers.pcp.map_or(8, |pcp| u64::from(pcp.get()));
    ports << 32 | u64::from(headers.protocol) | u64::from(headers.dscp.get()) << 8 | pcp << 16 | has_ports << 24
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::packet::{Dscp, Ports};

    fn flow(family: Family, n: u32) -> Headers {
        Headers {
            family,
            pcp: None,
            vlan_tags: 0,
            l3_offset: 14,
            l3_len: 46,
            dscp: Dscp::new(0).unwrap(),
            ecn: 0,
            src: u128::from(n),
            dst: 1,
            protocol: 17,
            l4_offset: Some(34),
            ports: Some(Ports { src: n as u16, dst: 1 }),
            fragment: Fragment::Whole,
        }
    }

    fn get(cache: &FlowCache, headers: &Headers, generation: u64) -> Option<(ContractIndex, Color)> {
        cache.get(&cache.flow(headers).unwrap(), generation)
    }

    fn put(cache: &mut FlowCache, headers: &Headers, generation: u64, contract: u32, arrived: Color) {
        let flow = cache.flow(headers).unwrap();
        cache.put(&flow, generation, (ContractIndex(contract), arrived));
    }

    #[test]
    fn a_hit_is_of_the_same_flow_and_table() {
        for family in [Family::Ipv4, Family::Ipv6] {
            let mut cache = FlowCache::new(64, 1);
            assert_eq!(get(&cache, &flow(family, 0), 1), None);
            put(&mut cache, &flow(family, 7), 3, 5, Color::Yellow);
            assert_eq!(
                get(&cache, &flow(family, 7), 3),
                Some((ContractIndex(5), Color::Yellow))
            );
            assert_eq!(get(&cache, &flow(family, 7), 4), None);
            assert_eq!(get(&cache, &flow(family, 8), 3), None);
        }
    }

    #[test]
    fn everything_that_classification_looks_at_is_in_the_key() {
        for family in [Family::Ipv4, Family::Ipv6] {
            let base = flow(family, 7);
            let others = [
                Headers { src: 8, ..base },
                Headers { dst: 2, ..base },
                Headers { protocol: 6, ..base },
                Headers { ports: None, ..base },
                Headers {
                    ports: Some(Ports { src: 0, dst: 0 }),
                    ..base
                },
                Headers {
                    dscp: Dscp::new(46).unwrap(),
                    ..base
                },
                Headers {
                    pcp: crate::packet::Pcp::new(0),
                    ..base
                },
            ];
            // Two places: whatever the hash, all of these share them with the base.
            let mut cache = FlowCache::new(4, 1);
            put(&mut cache, &base, 1, 5, Color::Green);
            for other in &others {
                assert_eq!(get(&cache, other, 1), None, "{other:?}");
            }
        }
    }

    #[test]
    fn crowding_loses_entries_but_never_confuses_them() {
        for family in [Family::Ipv4, Family::Ipv6] {
            let mut cache = FlowCache::new(16, 1);
            for n in 0..1_000 {
                put(&mut cache, &flow(family, n), 1, n, Color::Green);
                assert_eq!(get(&cache, &flow(family, n), 1), Some((ContractIndex(n), Color::Green)));
            }
            let kept = (0..1_000).filter_map(|n| get(&cache, &flow(family, n), 1).map(|(found, _)| (n, found.0)));
            let kept: Vec<_> = kept.collect();
            assert!(kept.len() <= 16 && kept.iter().all(|(n, found)| n == found));
        }
    }
}

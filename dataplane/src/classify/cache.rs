//! The flow cache: what the tables said about a flow, kept so that its next packet asks one line instead of several tables.
//!
//! An entry holds the whole key, so a hit is always right; a collision only costs a miss. It also holds the generation of
//! the table it came from, so a new table empties the cache without touching it. Two entries share a place; the older one
//! goes. Memory is taken once.

use std::hash::{BuildHasher, Hasher};

use foldhash::fast::FixedState;

use crate::contract::ContractIndex;
use crate::meter::Color;
use crate::packet::{Family, Fragment, Headers};
use crate::prefetch::prefetch;

/// One direction of one queue's cache.
pub struct FlowCache {
    entries: Box<[Entry]>,
    hash: FixedState,
}

/// Where a key belongs in its cache.
#[derive(Clone, Copy, Debug)]
pub struct Place(usize);

/// Everything that classification looks at, as it stands in the packet.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct FlowKey {
    src: u128,
    dst: u128,
    ports: u32,
    /// Family, protocol, DSCP, PCP and whether there are ports, packed.
    rest: u32,
}

#[derive(Clone, Copy)]
#[repr(align(64))]
struct Entry {
    key: FlowKey,
    generation: u64,
    contract: ContractIndex,
    arrived: Color,
}

const _: () = assert!(size_of::<Entry>() == 64, "one entry, one cache line");

/// Entries in a cache: four times the 4,096 flows that a busy queue is tested with, and 1 MiB, so that it shares an L2 of
/// 2 MiB. More would miss in cache; fewer would push each other out.
pub const FLOWS: usize = 16_384;

impl FlowCache {
    /// An empty cache for `flows` flows, a power of two, at least 2.
    #[must_use]
    pub fn new(flows: usize) -> Self {
        assert!(
            flows.is_power_of_two() && flows >= 2,
            "a flow cache holds a power of two of flows"
        );
        let empty = Entry {
            key: FlowKey {
                src: 0,
                dst: 0,
                ports: 0,
                rest: 0,
            },
            generation: 0,
            contract: ContractIndex(0),
            arrived: Color::Green,
        };
        Self {
            entries: vec![empty; flows].into_boxed_slice(),
            hash: FixedState::default(),
        }
    }

    /// Where `key` belongs; begins to load it.
    #[inline]
    #[must_use]
    pub fn place(&self, key: &FlowKey) -> Place {
        let mut hasher = self.hash.build_hasher();
        hasher.write_u128(key.src);
        hasher.write_u128(key.dst);
        hasher.write_u64(u64::from(key.ports) << 32 | u64::from(key.rest));
        let place = hasher.finish() as usize & (self.entries.len() - 1) & !1;
        prefetch(&self.entries[place]);
        Place(place)
    }

    /// What table `generation` said about `key`, if it is still here.
    #[inline]
    #[must_use]
    pub fn get(&self, Place(place): Place, key: &FlowKey, generation: u64) -> Option<(ContractIndex, Color)> {
        let pair = &self.entries[place..place + 2];
        let entry = pair
            .iter()
            .find(|entry| entry.generation == generation && entry.key == *key)?;
        Some((entry.contract, entry.arrived))
    }

    /// Keeps what table `generation` (from 1) said about `key`.
    #[inline]
    pub fn put(&mut self, Place(place): Place, key: FlowKey, generation: u64, contract: ContractIndex, arrived: Color) {
        self.entries[place + 1] = self.entries[place];
        self.entries[place] = Entry {
            key,
            generation,
            contract,
            arrived,
        };
    }
}

impl FlowKey {
    /// The key of a packet; `None` for fragments, whose service is not in their own headers alone.
    #[inline]
    #[must_use]
    pub fn of(headers: &Headers) -> Option<Self> {
        if headers.fragment != Fragment::Whole {
            return None;
        }
        let (ports, has_ports) = match headers.ports {
            Some(ports) => (u32::from(ports.src) << 16 | u32::from(ports.dst), 1),
            None => (0, 0),
        };
        let family = match headers.family {
            Family::Ipv4 => 0,
            Family::Ipv6 => 1,
        };
        let pcp = headers.pcp.map_or(8, |pcp| u32::from(pcp.get()));
        let rest = u32::from(headers.protocol)
            | u32::from(headers.dscp.get()) << 8
            | pcp << 16
            | family << 24
            | has_ports << 25;
        Some(Self {
            src: headers.src,
            dst: headers.dst,
            ports,
            rest,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(n: u32) -> FlowKey {
        FlowKey {
            src: u128::from(n),
            dst: 1,
            ports: n,
            rest: 0,
        }
    }

    fn get(cache: &FlowCache, key: &FlowKey, generation: u64) -> Option<(ContractIndex, Color)> {
        cache.get(cache.place(key), key, generation)
    }

    fn put(cache: &mut FlowCache, key: FlowKey, generation: u64, contract: u32, arrived: Color) {
        cache.put(cache.place(&key), key, generation, ContractIndex(contract), arrived);
    }

    #[test]
    fn a_hit_is_of_the_same_flow_and_table() {
        let mut cache = FlowCache::new(64);
        assert_eq!(get(&cache, &key(0), 1), None);
        put(&mut cache, key(7), 3, 5, Color::Yellow);
        assert_eq!(get(&cache, &key(7), 3), Some((ContractIndex(5), Color::Yellow)));
        assert_eq!(get(&cache, &key(7), 4), None);
        assert_eq!(get(&cache, &key(8), 3), None);
    }

    #[test]
    fn crowding_loses_entries_but_never_confuses_them() {
        let mut cache = FlowCache::new(16);
        for n in 0..1_000 {
            put(&mut cache, key(n), 1, n, Color::Green);
            assert_eq!(get(&cache, &key(n), 1), Some((ContractIndex(n), Color::Green)));
        }
        let kept = (0..1_000).filter_map(|n| get(&cache, &key(n), 1).map(|(found, _)| (n, found.0)));
        let kept: Vec<_> = kept.collect();
        assert!(kept.len() <= 16 && kept.iter().all(|(n, found)| n == found));
    }
}

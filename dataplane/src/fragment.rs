//! Remembers which service the first fragment of a datagram belonged to, so that the later ones, which carry no ports,
//! can follow it.
//!
//! A [`FragmentTable`] belongs to one worker: all fragments of a datagram have the same addresses and arrive on the
//! same queue, so nothing is shared. All its memory is taken by `new`; `remember` and `recall` look at the four entries
//! of one set and at nothing else. Fragments are neither held back nor reassembled: a later fragment that overtakes
//! its first one is not known, and is classified without ports.
//!
//! What goes when a set is full: an entry past its life first, else the one remembered longest ago. Whoever floods a
//! gateway with first fragments can so push out those of others; the loss is that later fragments are classified
//! without ports. No one can aim at a certain set, because the hash is seeded at random (unless a seed is given, for
//! replay, where nobody attacks).

use foldhash::SharedSeed;
use foldhash::quality::SeedableRandomState;
use std::hash::BuildHasher;

use crate::clock::Nanos;
use crate::packet::{Family, Fragment, Headers};

/// What tells the fragments of one datagram from those of others.
///
/// IPv4: source, destination, protocol and identification (RFC 791 section 3.2). IPv6: source, destination and
/// identification only (RFC 8200 section 4.5): the next-header value "may differ" between its fragments, and here the
/// first one's chain is followed to the transport while a later one's cannot be. So an IPv6 key has protocol 0.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct FragmentKey {
    src: u128,
    dst: u128,
    id: u32,
    family: Family,
    protocol: u8,
}

impl FragmentKey {
    /// The key of fragments from `src` to `dst` (IPv4 addresses in the low 32 bits); `protocol` is left out for IPv6.
    #[inline]
    #[must_use]
    pub fn new(family: Family, src: u128, dst: u128, protocol: u8, id: u32) -> Self {
        let protocol = if family == Family::Ipv4 { protocol } else { 0 };
        Self {
            src,
            dst,
            id,
            family,
            protocol,
        }
    }

    /// The key of the fragment with these headers; `None` for a whole packet.
    #[inline]
    #[must_use]
    pub fn of(headers: &Headers) -> Option<Self> {
        match headers.fragment {
            Fragment::Whole => None,
            Fragment::First { id } | Fragment::Later { id } => Some(Self::new(
                headers.family,
                headers.src,
                headers.dst,
                headers.protocol,
                id,
            )),
        }
    }
}

/// A bounded memory of first fragments, 4-way set-associative.
#[derive(Debug)]
pub struct FragmentTable {
    /// A power of two of them.
    sets: Box<[Set]>,
    hash: SeedableRandomState,
}

impl FragmentTable {
    /// A table of `capacity` entries of 64 bytes, rounded up to a power of two, at least 4; hashed with a random seed.
    #[must_use]
    pub fn new(capacity: usize) -> Self {
        Self::with_hash(capacity, SeedableRandomState::random())
    }

    /// As [`FragmentTable::new`], but the same `seed` always gives the same behaviour: for replay and tests. A sender
    /// who knows the seed can aim at one set; do not use it on live ports.
    #[must_use]
    pub fn with_seed(capacity: usize, seed: u64) -> Self {
        Self::with_hash(
            capacity,
            SeedableRandomState::with_seed(seed, SharedSeed::global_fixed()),
        )
    }

    fn with_hash(capacity: usize, hash: SeedableRandomState) -> Self {
        let sets = capacity.div_ceil(WAYS).next_power_of_two();
        Self {
            sets: vec![[None; WAYS]; sets].into_boxed_slice(),
            hash,
        }
    }

    /// Entries the table has room for.
    #[must_use]
    pub fn capacity(&self) -> usize {
        self.sets.len() * WAYS
    }

    /// Notes that the first fragment of `key`, seen at `now`, belongs to `service`, or to none (`None`). An older note
    /// of the same key is replaced (identifications are used again, RFC 6864 section 3), and lives anew.
    pub fn remember(&mut self, key: FragmentKey, service: Option<u32>, now: Nanos) {
        let index = self.set_of(&key);
        let set = &mut self.sets[index];
        // `min_by_key` takes the first of equals. Order: the same key, a free or dead entry, the oldest.
        let victim = set.iter_mut().min_by_key(|entry| match entry {
            Some(entry) if entry.key == key => (0, Nanos(0)),
            Some(entry) if entry.lives(now) => (2, entry.since),
            _ => (1, Nanos(0)),
        });
        if let Some(victim) = victim {
            *victim = Some(Entry {
                key,
                service,
                since: now,
            });
        }
    }

    /// The service of the datagram a later fragment with `key`, seen at `now`, belongs to: `Some(None)` when its first
    /// fragment belonged to none, `None` when that has not been seen, has been forgotten, or is more than 30 s ago.
    #[must_use]
    pub fn recall(&self, key: &FragmentKey, now: Nanos) -> Option<Option<u32>> {
        let set = &self.sets[self.set_of(key)];
        let entry = set.iter().flatten().find(|entry| entry.key == *key)?;
        entry.lives(now).then_some(entry.service)
    }

    #[inline]
    fn set_of(&self, key: &FragmentKey) -> usize {
        self.hash.hash_one(key) as usize & (self.sets.len() - 1)
    }
}

/// How long a first fragment is remembered: as long as Linux waits for the rest of a datagram by default
/// (net.ipv4.ipfrag_time and net.ipv6.ip6frag_time). Shorter would forget datagrams that can still be completed;
/// longer would let old notes answer for a reused identification.
const LIFETIME: Nanos = Nanos(30 * Nanos::SECOND.0);

/// A set is 256 bytes, four adjacent cache lines, about what the hardware fetches together. With fewer entries a few
/// busy datagrams in one set would push each other out; more would make every first fragment dearer.
const WAYS: usize = 4;

type Set = [Option<Entry>; WAYS];

#[derive(Clone, Copy, Debug)]
struct Entry {
    key: FragmentKey,
    service: Option<u32>,
    since: Nanos,
}

const _: () = assert!(size_of::<Option<Entry>>() == 64);

impl Entry {
    /// A clock that seems to go back makes no entry older than it is.
    #[inline]
    fn lives(&self, now: Nanos) -> bool {
        now.since(self.since) <= LIFETIME
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashMap;

    fn key(id: u32) -> FragmentKey {
        FragmentKey::new(Family::Ipv4, 0x0a00_0001, 0x0a00_0002, 17, id)
    }

    #[test]
    fn the_service_is_recalled_for_thirty_seconds() {
        let mut table = FragmentTable::with_seed(64, 1);
        let start = Nanos(5);
        table.remember(key(1), Some(7), start);
        table.remember(key(2), None, start);
        assert_eq!(table.recall(&key(1), start), Some(Some(7)));
        assert_eq!(table.recall(&key(2), start), Some(None));
        assert_eq!(table.recall(&key(3), start), None);
        assert_eq!(table.recall(&key(1), Nanos(0)), Some(Some(7)), "a clock that went back");
        assert_eq!(table.recall(&key(1), start.plus(LIFETIME)), Some(Some(7)));
        assert_eq!(table.recall(&key(1), start.plus(LIFETIME).plus(Nanos(1))), None);
    }

    #[test]
    fn a_newer_first_fragment_replaces_the_older() {
        let mut table = FragmentTable::with_seed(4, 1);
        for id in 0..4 {
            table.remember(key(id), Some(id), Nanos(u64::from(id)));
        }
        table.remember(key(0), Some(99), Nanos(10));
        assert_eq!(table.recall(&key(0), Nanos(10)), Some(Some(99)));
        assert!(
            (1..4).all(|id| table.recall(&key(id), Nanos(10)) == Some(Some(id))),
            "no other was pushed out"
        );
    }

    #[test]
    fn the_dead_go_first_then_the_oldest() {
        let mut table = FragmentTable::with_seed(4, 1);
        for (id, at) in [(0, 30), (1, 10), (2, 20), (3, 40)] {
            table.remember(key(id), Some(id), Nanos(at));
        }
        table.remember(key(4), Some(4), Nanos(50));
        assert_eq!(table.recall(&key(1), Nanos(50)), None, "the oldest of four");
        let late = Nanos(25).plus(LIFETIME);
        table.remember(key(5), Some(5), late);
        assert_eq!(
            table.recall(&key(0), late),
            Some(Some(0)),
            "the dead entry 2 made room, not the living 0"
        );
    }

    #[test]
    fn every_field_tells_datagrams_apart_but_the_protocol_in_ipv6() {
        let keys = [
            FragmentKey::new(Family::Ipv4, 1, 2, 17, 3),
            FragmentKey::new(Family::Ipv4, 2, 1, 17, 3),
            FragmentKey::new(Family::Ipv4, 1, 2, 6, 3),
            FragmentKey::new(Family::Ipv4, 1, 2, 17, 4),
            FragmentKey::new(Family::Ipv6, 1, 2, 17, 3),
        ];
        for (index, key) in keys.iter().enumerate() {
            assert!(keys[..index].iter().all(|other| other != key), "{key:?}");
        }
        assert_eq!(FragmentKey::new(Family::Ipv6, 1, 2, 60, 3), keys[4]);
    }

    #[test]
    fn capacity_is_rounded_up_and_bounded() {
        for (asked, given) in [(0, 4), (1, 4), (4, 4), (5, 8), (4096, 4096)] {
            assert_eq!(FragmentTable::new(asked).capacity(), given);
        }
    }

    /// Random operations: what the table recalls is always what an unbounded map says; it may only forget.
    #[test]
    fn it_never_recalls_what_was_not_remembered() {
        let seed = 0x6672_6167_u64;
        println!("seed {seed}");
        let (mut table, mut model, mut state) = (FragmentTable::with_seed(64, seed), HashMap::new(), seed);
        let mut recalled = 0;
        for step in 0..100_000_u64 {
            state = state
                .wrapping_mul(6_364_136_223_846_793_005)
                .wrapping_add(1_442_695_040_888_963_407);
            let (key, now) = (key((state >> 33) as u32 % 150), Nanos(step * Nanos::SECOND.0 / 4));
            if state >> 62 == 0 {
                table.remember(key, Some(step as u32), now);
                model.insert(key, (step as u32, now));
            } else if let Some(service) = table.recall(&key, now) {
                recalled += 1;
                let (expected, since) = model[&key];
                assert_eq!(service, Some(expected), "step {step}");
                assert!(now.since(since) <= LIFETIME, "step {step}");
            }
        }
        assert!(recalled > 5_000, "{recalled}: the table forgets too much");
    }

    #[test]
    fn one_seed_gives_one_behaviour() {
        let run = |seed| {
            let mut table = FragmentTable::with_seed(16, seed);
            (0..64).for_each(|id| table.remember(key(id), Some(id), Nanos(1)));
            (0..64)
                .filter(|id| table.recall(&key(*id), Nanos(1)).is_some())
                .collect::<Vec<_>>()
        };
        assert_eq!(run(3), run(3));
        assert_ne!(run(3), run(4));
    }
}

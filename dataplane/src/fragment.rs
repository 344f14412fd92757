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

/// Four entries are searched in the time of one cache miss or two; with fewer, two busy datagrams in one set would
/// push each other out too often.
const WAYS: usize = 4;

type Set = [Option<Entry>; WAYS];

#[derive(Clone, Copy, Debug)]
struct Entry {
    key: FragmentKey,
    service: Option<u32>,
    since: Nanos,
}

impl Entry {
    /// A clock that seems to go back makes no entry older than it is.
    #[inline]
    fn lives(&self, now: Nanos) -> bool {
        now.since(self.since) <= LIFETIME
    }
}

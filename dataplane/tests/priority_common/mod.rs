//! What the tests of the rings share: a sink that keeps the books, gates, and a generator with a seed.
#![allow(dead_code, reason = "every test file uses a part of it")]
use dataplane::clock::Nanos;
use dataplane::priority::*;

/// What left the rings.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Gone {
    pub(crate) half: Half,
    pub(crate) ring: usize,
    pub(crate) item: u32,
    pub(crate) bytes: u32,
    pub(crate) enqueued: Nanos,
}

#[derive(Default)]
pub(crate) struct Out {
    pub(crate) room: usize,
    pub(crate) sent: Vec<Gone>,
    pub(crate) marked: Vec<u32>,
    pub(crate) dropped: Vec<Gone>,
}

impl Out {
    pub(crate) fn new(room: usize) -> Self {
        Self {
            room,
            ..Self::default()
        }
    }
}

impl Sink<u32> for Out {
    fn room(&self) -> usize {
        self.room
    }
    fn send(&mut self, half: Half, ring: RingId, entry: Entry<u32>) {
        self.sent.push(gone(half, ring, &entry));
    }
    fn mark_ce(&mut self, item: &mut u32) -> bool {
        self.marked.push(*item);
        true
    }
    fn drop(&mut self, half: Half, ring: RingId, entry: Entry<u32>) {
        self.dropped.push(gone(half, ring, &entry));
    }
}

fn gone(half: Half, ring: RingId, entry: &Entry<u32>) -> Gone {
    Gone {
        half,
        ring: ring.index(),
        item: entry.item,
        bytes: entry.bytes,
        enqueued: entry.enqueued,
    }
}

/// Lets everything go.
pub(crate) struct Open;

impl Gate for Open {
    fn admits(&mut self, _: Half, _: u32) -> bool {
        true
    }
    fn sent(&mut self, _: Half, _: u32) {}
}

/// A port that sends one packet at a time, at a rate.
pub(crate) struct Port {
    pub(crate) now: u64,
    /// When the packet in transmission will have left.
    pub(crate) free_at: u64,
    pub(crate) ns_per_byte: u64,
}

impl Gate for Port {
    fn admits(&mut self, _: Half, _: u32) -> bool {
        self.now >= self.free_at
    }
    fn sent(&mut self, _: Half, bytes: u32) {
        self.free_at = self.now + u64::from(bytes) * self.ns_per_byte;
    }
}

pub(crate) fn id(slot: usize) -> RingId {
    RingId::new(slot as u8).expect("a slot below 32")
}

pub(crate) fn class(slot: usize, priority: u16, weight: u16, min_share_permille: u16) -> ClassOrder {
    ClassOrder {
        ring: id(slot),
        priority,
        weight,
        min_share_permille,
    }
}

pub(crate) fn entry(item: u32, bytes: u32, enqueued: u64) -> Entry<u32> {
    Entry {
        item,
        bytes,
        enqueued: Nanos(enqueued),
        drop_first: false,
        ecn_capable: false,
    }
}

/// SplitMix64: the same numbers for the same seed everywhere.
pub(crate) struct Random(pub(crate) u64);

impl Random {
    pub(crate) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    /// 0 to `end - 1`.
    pub(crate) fn below(&mut self, end: u64) -> u64 {
        self.next() % end
    }

    pub(crate) fn within(&mut self, first: u64, last: u64) -> u64 {
        first + self.below(last - first + 1)
    }
}

/// Frame sizes of one ring: always the same, anything, or mostly small with some large.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Sizes {
    Same(u32),
    Any(u32, u32),
    Mix(u32, u32),
}

impl Sizes {
    pub(crate) fn random(random: &mut Random) -> Self {
        let (one, other) = (random.within(60, 9000) as u32, random.within(60, 9000) as u32);
        match random.below(3) {
            0 => Sizes::Same(one),
            1 => Sizes::Any(one.min(other), one.max(other)),
            _ => Sizes::Mix(64, one),
        }
    }

    pub(crate) fn next(self, random: &mut Random) -> u32 {
        match self {
            Sizes::Same(bytes) => bytes,
            Sizes::Any(least, most) => random.within(u64::from(least), u64::from(most)) as u32,
            Sizes::Mix(often, rarely) => [often, rarely][usize::from(random.below(4) == 0)],
        }
    }

    pub(crate) fn most(self) -> u64 {
        match self {
            Sizes::Same(bytes) => u64::from(bytes),
            Sizes::Any(_, most) => u64::from(most),
            Sizes::Mix(often, rarely) => u64::from(often.max(rarely)),
        }
    }
}

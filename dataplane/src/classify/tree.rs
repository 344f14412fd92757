//! In which interval a key lies: the compiled form of every table of prefixes or ports.
//!
//! A set of prefixes cuts the addresses into intervals, and all addresses of an interval have the same longest prefix. Keys
//! have 128 bits, left-aligned: an IPv6 address as it is, an IPv4 address in the first 32 bits. A search goes through
//!
//! ```text
//! direct table    one entry for each value of the first bits, as many (14 to 20) as fit the number of boundaries
//! [`Node`]        the next 6 bits: two bitmaps say which of the 64 slots lead to another node, and which begin an interval
//! [`Wide`]        ends of whole keys: where at most 3 boundaries are left, and to skip bits that all boundaries share
//! entry           what a slot of a direct table or node leads to: a value, a node, or a wide
//! ```
//!
//! and reads one cache line in each. IPv4: at most 5 (an entry, three nodes, an entry), with 1,000,000 random prefixes 2 or
//! 3. IPv6: at most 22; with 1,000,000 random prefixes of 32 to 128 bits 4 or 5. Each boundary costs at most 64 bytes, and
//! those of random prefixes about 30. Why so: docs/decisions/0020-prefixes-as-intervals.md.
//!
//! Built by the control thread, then immutable. Knows nothing of what the values mean.

use arrayvec::ArrayVec;

use crate::prefetch::prefetch;

/// A table would need more entries or lines than 29 bits can number: beyond some hundred million prefixes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("too many prefixes, ports or services for one table")]
pub struct TooLarge;

/// From `at` on, up to the next boundary, keys have `value`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Boundary {
    pub(super) at: u128,
    /// At most [`VALUE_MAX`].
    pub(super) value: u32,
}

/// The largest value that an interval can have.
pub(super) const VALUE_MAX: u32 = (1 << 31) - 1;

/// Where a search has come to: a value (top bit 0), or what is to be read next (2 bits) and which one of them (29 bits).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Ref(u32);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Entry,
    Node,
    Wide,
}

/// Where a tree begins.
#[derive(Clone, Copy, Debug)]
pub(super) struct Tree {
    /// Its direct table, 2^`width` entries.
    first: u32,
    width: u32,
}

/// What the six bits from `offset` on lead to.
#[derive(Clone, Copy, Debug, Default)]
#[repr(C, align(32))]
struct Node {
    /// Slots that are nodes themselves. They lie one behind the other from `first_child` on.
    children: u64,
    /// Of the other slots those that lead elsewhere than the one before. Their entries lie from `first_entry` on.
    begins: u64,
    first_child: u32,
    first_entry: u32,
    offset: u32,
}

/// Up to 4 intervals of whole keys. `ends` are the last keys of all but the last; behind them `u128::MAX`, which lies before
/// no key.
#[derive(Clone, Copy, Debug)]
#[repr(C, align(64))]
struct Wide {
    ends: [u128; WIDE - 1],
    refs: [Ref; WIDE],
}

const WIDE: usize = 4;

const _: () = assert!(size_of::<Node>() == 32, "no node lies in two cache lines");
const _: () = assert!(size_of::<Wide>() == 64, "one cache line");

/// Bits of a node.
const STRIDE: u32 = 6;

/// Bits of a direct table: 64 KiB is little beside what a path takes anyway, and with less than 14 bits IPv4 would need a
/// fourth node. As many entries as boundaries leave few boundaries to each, up to the 4 MiB that still fit a third-level
/// cache.
const WIDTH: std::ops::RangeInclusive<u32> = 14..=20;

/// Shared bits from which one comparison is better than nodes that have one child each.
const SKIP: u32 = 3 * STRIDE;

/// Several trees in the same memory.
#[derive(Clone, Debug, Default)]
pub(super) struct Forest {
    entries: Vec<Ref>,
    nodes: Vec<Node>,
    wides: Vec<Wide>,
}

/// What a slot leads to, while the tree is built.
enum Slot<'a> {
    Ref(Ref),
    Node(Unbuilt<'a>),
}

/// A node to be made: what goes before its boundaries, these, and the first of its bits.
struct Unbuilt<'a> {
    before: u32,
    boundaries: &'a [Boundary],
    offset: u32,
}

impl Ref {
    /// The value, if the search is over.
    #[inline]
    pub(super) fn value(self) -> Option<u32> {
        (self.0 <= VALUE_MAX).then_some(self.0)
    }

    #[inline]
    fn to_value(value: u32) -> Self {
        debug_assert!(value <= VALUE_MAX);
        Self(value)
    }

    #[inline]
    fn to(kind: Kind, index: u32) -> Self {
        Self(1 << 31 | (kind as u32) << 29 | index)
    }

    #[inline]
    fn kind(self) -> Kind {
        match (self.0 >> 29) & 3 {
            0 => Kind::Entry,
            1 => Kind::Node,
            _ => Kind::Wide,
        }
    }

    #[inline]
    fn index(self) -> usize {
        (self.0 & ((1 << 29) - 1)) as usize
    }
}

/// The position as a [`Ref`] can hold it.
fn index(position: usize) -> Result<u32, TooLarge> {
    u32::try_from(position)
        .ok()
        .filter(|index| *index < 1 << 29)
        .ok_or(TooLarge)
}

/// The bits of `key` from `offset` on, six of them.
#[inline]
fn slot(key: u128, offset: u32) -> u32 {
    // IPv4 and most of IPv6 need only one half, and shifts of 128 bits are several instructions.
    let bits = if offset <= 64 - STRIDE {
        (key >> 64) as u64 >> (64 - STRIDE - offset)
    } else {
        (key >> (128 - STRIDE - offset)) as u64
    };
    bits as u32 & 63
}

/// How many of `bits` are set from bit 0 to `slot`, minus 1: the place of the last of them.
#[inline]
fn place(bits: u64, slot: u32) -> u32 {
    (bits & (u64::MAX >> (63 - slot))).count_ones().wrapping_sub(1)
}

impl Forest {
    /// Begins a search: where the first line is.
    #[inline]
    pub(super) fn begin(tree: Tree, key: u128) -> Ref {
        let first_bits = ((key >> 64) as u64 >> 1) >> (63 - tree.width);
        Ref::to(Kind::Entry, tree.first + first_bits as u32)
    }

    /// The value of `key`.
    #[inline]
    pub(super) fn find(&self, tree: Tree, key: u128) -> u32 {
        let mut at = self.entries[Self::begin(tree, key).index()];
        loop {
            if let Some(value) = at.value() {
                return value;
            }
            // As `step`, but an entry is read at once.
            at = match at.kind() {
                Kind::Wide => self.wides[at.index()].find(key),
                _ => self.nodes[at.index()].find(key),
            };
            if at.kind() == Kind::Entry && at.value().is_none() {
                at = self.entries[at.index()];
            }
        }
    }

    /// One read further. `at` is not a value.
    #[inline]
    pub(super) fn step(&self, at: Ref, key: u128) -> Ref {
        match at.kind() {
            Kind::Entry => self.entries[at.index()],
            Kind::Node => self.nodes[at.index()].find(key),
            Kind::Wide => self.wides[at.index()].find(key),
        }
    }

    /// Begins to load what [`Forest::step`] will read.
    #[inline]
    pub(super) fn prefetch(&self, at: Ref) {
        match at.kind() {
            Kind::Entry => prefetch(&self.entries[at.index()]),
            Kind::Node => prefetch(&self.nodes[at.index()]),
            Kind::Wide => prefetch(&self.wides[at.index()]),
        }
    }

    /// Adds a tree: keys before the first boundary have the value `before`. Boundaries are sorted, without two at one key.
    /// A `small` tree has no direct table.
    pub(super) fn plant(&mut self, before: u32, boundaries: &[Boundary], small: bool) -> Result<Tree, TooLarge> {
        let width = boundaries.len().max(1).ilog2().clamp(*WIDTH.start(), *WIDTH.end());
        let narrow = small || boundaries.len() < WIDE || shared_bits(boundaries) >= SKIP;
        let width = if narrow { 0 } else { width };
        let first = self.entries.len();
        let end = first + (1 << width);
        self.entries.resize(end, Ref::to_value(before));
        index(end)?;
        let tree = Tree {
            first: index(first)?,
            width,
        };
        if width == 0 {
            let root = self.subtree(before, boundaries, 0)?;
            self.entries[first] = self.finish(root)?;
            return Ok(tree);
        }
        let (mut value, mut filled) = (before, 0);
        let number = |boundary: &Boundary| (boundary.at >> (128 - width)) as usize;
        for group in boundaries.chunk_by(|a, b| number(a) == number(b)) {
            let here = number(&group[0]);
            self.entries[first + filled..first + here].fill(Ref::to_value(value));
            let inner = behind_aligned(group, width, &mut value);
            let to = self.subtree(value, inner, width)?;
            self.entries[first + here] = self.finish(to)?;
            value = group[group.len() - 1].value;
            filled = here + 1;
        }
        self.entries[first + filled..end].fill(Ref::to_value(value));
        Ok(tree)
    }

    /// Gives back what building took too much of.
    pub(super) fn shrink(&mut self) {
        self.entries.shrink_to_fit();
        self.nodes.shrink_to_fit();
        self.wides.shrink_to_fit();
    }

    /// Memory of all trees.
    pub(super) fn bytes(&self) -> usize {
        size_of_val(&self.entries[..]) + size_of_val(&self.nodes[..]) + size_of_val(&self.wides[..])
    }

    /// What leads to `boundaries`, which have all bits before `offset` in common.
    fn subtree<'a>(&mut self, before: u32, boundaries: &'a [Boundary], offset: u32) -> Result<Slot<'a>, TooLarge> {
        if boundaries.is_empty() {
            return Ok(Slot::Ref(Ref::to_value(before)));
        }
        if boundaries.len() < WIDE {
            let intervals = boundaries
                .iter()
                .map(|boundary| (boundary.at, Ref::to_value(boundary.value)));
            return self.wide(before, intervals).map(Slot::Ref);
        }
        let shared = shared_bits(boundaries);
        if shared < offset + SKIP {
            let offset = offset.min(128 - STRIDE);
            return Ok(Slot::Node(Unbuilt {
                before,
                boundaries,
                offset,
            }));
        }
        let offset = shared.min(128 - STRIDE);
        let inner = self.finish(Slot::Node(Unbuilt {
            before,
            boundaries,
            offset,
        }))?;
        let rest = u128::MAX >> shared;
        let begin = boundaries[0].at & !rest;
        let behind = (begin | rest).checked_add(1);
        let after = Ref::to_value(boundaries[boundaries.len() - 1].value);
        let intervals = [(begin, inner)].into_iter().chain(behind.map(|behind| (behind, after)));
        self.wide(before, intervals).map(Slot::Ref)
    }

    fn wide(&mut self, before: u32, intervals: impl Iterator<Item = (u128, Ref)>) -> Result<Ref, TooLarge> {
        let mut wide = Wide {
            ends: [u128::MAX; WIDE - 1],
            refs: [Ref::to_value(before); WIDE],
        };
        let mut filled = 0;
        for (begin, to) in intervals {
            // Keys from 0 on have no interval before them.
            if let Some(end) = begin.checked_sub(1) {
                wide.ends[filled] = end;
                filled += 1;
            }
            wide.refs[filled..].fill(to);
        }
        self.wides.push(wide);
        Ok(Ref::to(Kind::Wide, index(self.wides.len() - 1)?))
    }

    /// Makes a node that stands for itself.
    fn finish(&mut self, slot: Slot<'_>) -> Result<Ref, TooLarge> {
        match slot {
            Slot::Ref(to) => Ok(to),
            Slot::Node(unbuilt) => {
                self.nodes.push(Node::default());
                let at = self.nodes.len() - 1;
                self.build(at, &unbuilt)?;
                Ok(Ref::to(Kind::Node, index(at)?))
            }
        }
    }

    /// Makes the node at `at`, and all below it.
    fn build(&mut self, at: usize, unbuilt: &Unbuilt<'_>) -> Result<(), TooLarge> {
        let Unbuilt {
            before,
            boundaries,
            offset,
        } = *unbuilt;
        let mut node = Node {
            offset,
            ..Node::default()
        };
        let mut entries: ArrayVec<Ref, 64> = ArrayVec::new();
        let mut children: ArrayVec<Unbuilt<'_>, 64> = ArrayVec::new();
        let mut lead = |node: &mut Node, slot: u32, to: Ref| {
            if entries.last() != Some(&to) {
                node.begins |= 1 << slot;
                entries.push(to);
            }
        };
        let (mut value, mut free) = (before, 0);
        let number = |boundary: &Boundary| slot(boundary.at, offset);
        for group in boundaries.chunk_by(|a, b| number(a) == number(b)) {
            let here = number(&group[0]);
            if free < here {
                lead(&mut node, free, Ref::to_value(value));
            }
            let inner = behind_aligned(group, offset + STRIDE, &mut value);
            match self.subtree(value, inner, offset + STRIDE)? {
                Slot::Ref(to) => lead(&mut node, here, to),
                Slot::Node(child) => {
                    node.children |= 1 << here;
                    children.push(child);
                }
            }
            value = group[group.len() - 1].value;
            free = here + 1;
        }
        if free < 64 {
            lead(&mut node, free, Ref::to_value(value));
        }
        node.first_entry = index(self.entries.len())?;
        self.entries.extend(entries);
        index(self.entries.len())?;
        let first_child = self.nodes.len();
        node.first_child = index(first_child)?;
        self.nodes[at] = node;
        self.nodes.resize(first_child + children.len(), Node::default());
        index(self.nodes.len())?;
        for (place, child) in children.iter().enumerate() {
            self.build(first_child + place, child)?;
        }
        Ok(())
    }
}

impl Node {
    #[inline]
    fn find(&self, key: u128) -> Ref {
        let slot = slot(key, self.offset);
        if self.children >> slot & 1 == 1 {
            Ref::to(Kind::Node, self.first_child + place(self.children, slot))
        } else {
            Ref::to(Kind::Entry, self.first_entry + place(self.begins, slot))
        }
    }
}

impl Wide {
    #[inline]
    fn find(&self, key: u128) -> Ref {
        let before: usize = self.ends.iter().map(|&end| usize::from(end < key)).sum();
        self.refs[before]
    }
}

/// The bits that all boundaries begin with.
fn shared_bits(boundaries: &[Boundary]) -> u32 {
    match (boundaries.first(), boundaries.last()) {
        (Some(first), Some(last)) => (first.at ^ last.at).leading_zeros(),
        _ => 0,
    }
}

/// The boundaries of `group`, which have their first `bits` bits in common, without one that lies where these keys begin:
/// that one only sets the `value`.
fn behind_aligned<'a>(group: &'a [Boundary], bits: u32, value: &mut u32) -> &'a [Boundary] {
    // A shift by the whole width leaves nothing: the boundary is of one key.
    if group[0].at.checked_shl(bits).unwrap_or(0) == 0 {
        *value = group[0].value;
        &group[1..]
    } else {
        group
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Marsaglia's xorshift.
    fn next(state: &mut u64) -> u64 {
        *state ^= *state << 13;
        *state ^= *state >> 7;
        *state ^= *state << 17;
        state.wrapping_mul(0x2545_f491_4f6c_dd1d)
    }

    /// Boundaries that share bits with each other, at all depths.
    fn boundaries(state: &mut u64, count: usize, bits: u32) -> Vec<Boundary> {
        let mut at: Vec<u128> = vec![0; usize::from(next(state).is_multiple_of(2))];
        while at.len() < count {
            let random = u128::from(next(state)) << 64 | u128::from(next(state));
            let shared = next(state) as u32 % (bits + 1);
            let near = at
                .get(next(state) as usize % at.len().max(1))
                .copied()
                .unwrap_or(random);
            let rest = u128::MAX.checked_shr(shared).unwrap_or(0);
            at.push((near & !rest | random & rest) >> (128 - bits) << (128 - bits));
        }
        at.sort_unstable();
        at.dedup();
        let numbered = at.into_iter().zip(1..);
        numbered.map(|(at, value)| Boundary { at, value }).collect()
    }

    #[test]
    fn every_key_finds_the_last_boundary_before_it() {
        let mut state = 0x5eed;
        for round in 0..600 {
            let bits = [25, 32, 128][round % 3];
            let count = 1 + next(&mut state) as usize % [3, 30, 300][round / 3 % 3];
            let boundaries = boundaries(&mut state, count, bits);
            let mut forest = Forest::default();
            let other = forest.plant(7, &boundaries[..boundaries.len() / 2], true).unwrap();
            for small in [true, false] {
                let tree = forest.plant(0, &boundaries, small).unwrap();
                for (number, boundary) in boundaries.iter().enumerate() {
                    let before = if number == 0 { 0 } else { boundaries[number - 1].value };
                    assert_eq!(forest.find(tree, boundary.at), boundary.value, "round {round}");
                    if let Some(key) = boundary.at.checked_sub(1) {
                        assert_eq!(forest.find(tree, key), before, "round {round}");
                    }
                }
                let last = boundaries[boundaries.len() - 1].value;
                assert_eq!(forest.find(tree, u128::MAX), last, "round {round}");
            }
            let _untouched = forest.find(other, 0);
        }
    }

    #[test]
    fn an_ipv4_search_reads_five_lines_at_most() {
        let mut state = 3;
        for count in [5, 50, 500, 5_000, 50_000] {
            let boundaries = boundaries(&mut state, count, 32);
            let mut forest = Forest::default();
            let tree = forest.plant(0, &boundaries, false).unwrap();
            for boundary in &boundaries {
                let mut at = Forest::begin(tree, boundary.at);
                let mut reads = 0;
                while at.value().is_none() {
                    at = forest.step(at, boundary.at);
                    reads += 1;
                }
                assert!(reads <= 5, "{count} boundaries: {reads} reads for {:x}", boundary.at);
            }
        }
    }
}

//! In which interval a key lies: the compiled form of every table of prefixes or ports.
//!
//! A set of prefixes cuts the addresses into intervals, and all addresses of an interval have the same longest prefix. So
//! a lookup is a search among sorted boundaries. Keys have 128 bits, left-aligned: an IPv6 address as it is, an IPv4
//! address in the first 32 bits. The search goes word by word (16 bits each) and costs one cache line a step:
//!
//! ```text
//! [`Leaf`]    10 ends of intervals in one word, and what each of the 11 intervals leads to
//! [`Fan`]     30 ends, over up to 31 leaves that lie one behind the other; a fan over fans is the same one step higher
//! [`Direct`]  one entry for each value of a word, where there would be too many fans
//! [`Wide`]    3 ends of whole keys: where no more boundaries are left below, and where many keys share their next words
//! ```
//!
//! What a step leads to is a [`Ref`]: another line, or the value. An IPv4 lookup reads 5 lines at most (two words: a fan,
//! a leaf; a fan of fans, a fan, a leaf; with many prefixes one entry and three lines). IPv6 has up to 8 words, of which
//! the shared ones are skipped; 1,000,000 random prefixes take 4 or 5 lines. Why so: docs/decisions/0020.
//!
//! Built by the control thread, then immutable. Knows nothing of what the values mean.

use crate::prefetch::prefetch;

/// A table would need more lines than a [`Ref`] can number: beyond some ten million prefixes.
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

/// Where a search has come to: a value (top bit 0), or a kind of line (3 bits), the word it looks at (3 bits), and which
/// one it is (25 bits).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Ref(u32);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Leaf = 0,
    Fan = 1,
    FanOfFans = 2,
    Direct = 3,
    Wide = 4,
}

/// Up to 11 intervals of one word. `ends` are the last words of all intervals but the last; behind them `u16::MAX`, which
/// is below no word.
#[derive(Clone, Copy, Debug)]
#[repr(C, align(64))]
struct Leaf {
    refs: [Ref; LEAF],
    ends: [u16; LEAF - 1],
}

/// Up to 31 lines from `first` on, by the last word each is for.
#[derive(Clone, Copy, Debug)]
#[repr(C, align(64))]
struct Fan {
    ends: [u16; FAN - 1],
    first: u32,
}

/// Up to 4 intervals of whole keys.
#[derive(Clone, Copy, Debug)]
#[repr(C, align(64))]
struct Wide {
    ends: [u128; WIDE - 1],
    refs: [Ref; WIDE],
}

const LEAF: usize = 11;
const FAN: usize = 31;
const WIDE: usize = 4;

const _: () = assert!(size_of::<Leaf>() == 64 && size_of::<Fan>() == 64 && size_of::<Wide>() == 64);

/// Entries of a direct table.
const WORDS: usize = 1 << 16;

/// Several trees on the same lines.
#[derive(Clone, Debug, Default)]
pub(super) struct Forest {
    leaves: Vec<Leaf>,
    fans: Vec<Fan>,
    wides: Vec<Wide>,
    /// Tables of [`WORDS`] entries, one behind the other.
    direct: Vec<Ref>,
}

impl Ref {
    /// The end of a search.
    #[inline]
    pub(super) const fn to_value(value: u32) -> Self {
        debug_assert!(value <= VALUE_MAX);
        Self(value)
    }

    /// The value, if the search is over.
    #[inline]
    pub(super) fn value(self) -> Option<u32> {
        (self.0 <= VALUE_MAX).then_some(self.0)
    }

    fn to_line(kind: Kind, word: u32, index: usize) -> Result<Self, TooLarge> {
        if index >= 1 << 25 {
            return Err(TooLarge);
        }
        Ok(Self(1 << 31 | (kind as u32) << 28 | word << 25 | index as u32))
    }

    /// The line beside this one, of the kind below a fan.
    #[inline]
    fn below(self, kind: Kind, index: u32) -> Self {
        Self(self.0 & (1 << 31 | 7 << 25) | (kind as u32) << 28 | index)
    }

    #[inline]
    fn kind(self) -> Kind {
        match (self.0 >> 28) & 7 {
            0 => Kind::Leaf,
            1 => Kind::Fan,
            2 => Kind::FanOfFans,
            3 => Kind::Direct,
            _ => Kind::Wide,
        }
    }

    #[inline]
    fn index(self) -> usize {
        (self.0 & ((1 << 25) - 1)) as usize
    }

    /// The word of `key` that the line looks at.
    #[inline]
    fn word_of(self, key: u128) -> u16 {
        word(key, (self.0 >> 25) & 7)
    }
}

/// Word `number` (0 to 7) of a key, the first being the most significant.
#[inline]
fn word(key: u128, number: u32) -> u16 {
    let half = if number < 4 { (key >> 64) as u64 } else { key as u64 };
    (half >> (48 - 16 * (number & 3))) as u16
}

impl Forest {
    /// The value of `key` in the tree that begins at `root`.
    #[inline]
    pub(super) fn find(&self, root: Ref, key: u128) -> u32 {
        let mut at = root;
        loop {
            match at.value() {
                Some(value) => return value,
                None => at = self.step(at, key),
            }
        }
    }

    /// One line further. `at` is not a value.
    #[inline]
    pub(super) fn step(&self, at: Ref, key: u128) -> Ref {
        let word = at.word_of(key);
        match at.kind() {
            Kind::Leaf => {
                let leaf = &self.leaves[at.index()];
                leaf.refs[usize::from(rank(&leaf.ends, word))]
            }
            Kind::Fan => {
                let fan = &self.fans[at.index()];
                at.below(Kind::Leaf, fan.first + u32::from(rank(&fan.ends, word)))
            }
            Kind::FanOfFans => {
                let fan = &self.fans[at.index()];
                at.below(Kind::Fan, fan.first + u32::from(rank(&fan.ends, word)))
            }
            Kind::Direct => self.direct[at.index() * WORDS + usize::from(word)],
            Kind::Wide => {
                let wide = &self.wides[at.index()];
                let rank: usize = wide.ends.iter().map(|&end| usize::from(end < key)).sum();
                wide.refs[rank]
            }
        }
    }

    /// Begins to load the line that [`Forest::step`] will read.
    #[inline]
    pub(super) fn prefetch(&self, at: Ref, key: u128) {
        match at.kind() {
            Kind::Leaf => prefetch(&self.leaves[at.index()]),
            Kind::Fan | Kind::FanOfFans => prefetch(&self.fans[at.index()]),
            Kind::Direct => prefetch(&self.direct[at.index() * WORDS + usize::from(at.word_of(key))]),
            Kind::Wide => prefetch(&self.wides[at.index()]),
        }
    }

    /// Adds a tree: keys before the first boundary have the value `before`. Boundaries are sorted, without two at one key.
    /// `first_direct`: the first word may have a direct table (256 KiB) as soon as fans of fans would be needed.
    pub(super) fn plant(&mut self, before: u32, boundaries: &[Boundary], first_direct: bool) -> Result<Ref, TooLarge> {
        let fans_max = if first_direct { FAN * LEAF } else { FAN * FAN * LEAF };
        self.node(before, boundaries, 0, fans_max)
    }

    /// Frees what building took too much of.
    pub(super) fn shrink(&mut self) {
        self.leaves.shrink_to_fit();
        self.fans.shrink_to_fit();
        self.wides.shrink_to_fit();
        self.direct.shrink_to_fit();
    }

    /// Memory of all trees.
    pub(super) fn bytes(&self) -> usize {
        size_of_val(&self.leaves[..])
            + size_of_val(&self.fans[..])
            + size_of_val(&self.wides[..])
            + size_of_val(&self.direct[..])
    }

    /// The tree of boundaries that have the words before `word` in common. A node of more than `fans_max` intervals is a
    /// direct table.
    fn node(&mut self, before: u32, boundaries: &[Boundary], word: u32, fans_max: usize) -> Result<Ref, TooLarge> {
        let (Some(first), Some(last)) = (boundaries.first(), boundaries.last()) else {
            return Ok(Ref::to_value(before));
        };
        if boundaries.len() < WIDE {
            let refs = boundaries.iter().map(|boundary| (boundary.at, Ref::to_value(boundary.value)));
            return self.wide(Ref::to_value(before), refs);
        }
        let shared = (first.at ^ last.at).leading_zeros() / 16;
        if shared > word + 1 {
            // All boundaries lie among the keys that begin with the same words: one comparison instead of a line a word.
            let inner = self.node(before, boundaries, shared, FAN * FAN * LEAF)?;
            let rest = u128::MAX >> (16 * shared);
            let begin = first.at & !rest;
            let behind = begin.checked_add(rest).and_then(|end| end.checked_add(1));
            let behind = behind.map(|behind| (behind, Ref::to_value(last.value)));
            return self.wide(Ref::to_value(before), [(begin, inner)].into_iter().chain(behind));
        }
        let intervals = self.intervals(before, boundaries, word)?;
        if intervals.len() > fans_max {
            self.direct_table(&intervals, word)
        } else {
            self.fans(&intervals, word)
        }
    }

    /// What each interval of one word leads to: sorted by where it begins, the first at 0.
    fn intervals(&mut self, before: u32, boundaries: &[Boundary], at: u32) -> Result<Vec<(u16, Ref)>, TooLarge> {
        let mut value = before;
        let mut intervals = vec![(0, Ref::to_value(value))];
        for group in boundaries.chunk_by(|a, b| word(a.at, at) == word(b.at, at)) {
            let begin = word(group[0].at, at);
            // Whether the first boundary is where the word itself begins: all that follows is 0.
            let aligned = group[0].at << (16 * at) << 16 == 0;
            let inner = if aligned {
                value = group[0].value;
                &group[1..]
            } else {
                group
            };
            let child = self.node(value, inner, at + 1, FAN * FAN * LEAF)?;
            put(&mut intervals, begin, child);
            if let Some(last) = inner.last() {
                value = last.value;
                if let Some(next) = begin.checked_add(1) {
                    put(&mut intervals, next, Ref::to_value(value));
                }
            }
        }
        Ok(intervals)
    }

    fn fans(&mut self, intervals: &[(u16, Ref)], word: u32) -> Result<Ref, TooLarge> {
        let first_leaf = self.leaves.len();
        for chunk in intervals.chunks(LEAF) {
            let mut refs = [chunk[chunk.len() - 1].1; LEAF];
            for (place, &(_, to)) in refs.iter_mut().zip(chunk) {
                *place = to;
            }
            let ends = ends(chunk.iter().map(|interval| interval.0));
            self.leaves.push(Leaf { refs, ends });
        }
        let mut line = Ref::to_line(Kind::Leaf, word, first_leaf)?;
        let mut first = first_leaf;
        let mut begins: Vec<u16> = intervals.chunks(LEAF).map(|chunk| chunk[0].0).collect();
        for kind in [Kind::Fan, Kind::FanOfFans] {
            if begins.len() == 1 {
                break;
            }
            let first_fan = self.fans.len();
            for (number, chunk) in begins.chunks(FAN).enumerate() {
                let first = u32::try_from(first + number * FAN).map_err(|_| TooLarge)?;
                let ends = ends(chunk.iter().copied());
                self.fans.push(Fan { ends, first });
            }
            // Of what a fan adds to this reference none may be out of range, so the last line is asked for as well.
            Ref::to_line(Kind::Leaf, word, first + begins.len())?;
            line = Ref::to_line(kind, word, first_fan)?;
            first = first_fan;
            begins = begins.chunks(FAN).map(|chunk| chunk[0]).collect();
        }
        Ok(line)
    }

    fn direct_table(&mut self, intervals: &[(u16, Ref)], word: u32) -> Result<Ref, TooLarge> {
        let line = Ref::to_line(Kind::Direct, word, self.direct.len() / WORDS)?;
        let ends = intervals[1..].iter().map(|&(begin, _)| usize::from(begin)).chain([WORDS]);
        for (&(begin, to), end) in intervals.iter().zip(ends) {
            self.direct.extend(std::iter::repeat_n(to, end - usize::from(begin)));
        }
        Ok(line)
    }

    fn wide(&mut self, before: Ref, intervals: impl Iterator<Item = (u128, Ref)>) -> Result<Ref, TooLarge> {
        let mut ends = [u128::MAX; WIDE - 1];
        let mut refs = [before; WIDE];
        let mut filled = 0;
        for (begin, to) in intervals {
            // Keys from 0 on have no interval before them.
            if let Some(end) = begin.checked_sub(1) {
                ends[filled] = end;
                filled += 1;
            }
            refs[filled..].fill(to);
        }
        self.wides.push(Wide { ends, refs });
        Ref::to_line(Kind::Wide, 0, self.wides.len() - 1)
    }
}

/// How many of the ends lie before `word`. All of them are compared: no branch to mispredict, and the compiler does eight
/// at a time.
#[inline]
fn rank<const N: usize>(ends: &[u16; N], word: u16) -> u16 {
    ends.iter().map(|&end| u16::from(end < word)).sum()
}

/// The ends of all intervals but the last, which begin at `begins`.
fn ends<const N: usize>(begins: impl Iterator<Item = u16>) -> [u16; N] {
    let mut ends = [u16::MAX; N];
    for (end, begin) in ends.iter_mut().zip(begins.skip(1)) {
        *end = begin - 1;
    }
    ends
}

/// Adds an interval; one that begins at the same word as the last replaces it, one that leads where the last one leads is
/// the same interval.
fn put(intervals: &mut Vec<(u16, Ref)>, begin: u16, to: Ref) {
    intervals.pop_if(|last| last.0 == begin);
    if intervals.last().is_none_or(|last| last.1 != to) {
        intervals.push((begin, to));
    }
}

//! From (service, class, direction, segment) to the contract, without hashing: each service has the set of (class, direction)
//! that it has contracts for, and where the first of them lies; which one it is, is how many of the set come before it.

use super::{ContractKey, SegmentId, ServiceId};
use crate::contract::{ClassId, ContractIndex, Direction};
use crate::priority::MAX_CLASSES;

/// The contracts of all services, compiled.
#[derive(Clone, Debug, Default)]
pub(super) struct Contracts {
    /// By [`ServiceId`].
    services: Vec<OfService>,
    /// A contract, or [`SEGMENTED`] plus a place in `segmented`.
    entries: Vec<u32>,
    segmented: Vec<Segmented>,
    by_segment: Vec<(SegmentId, ContractIndex)>,
}

/// The contracts of one service.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct OfService {
    /// Bit 2 × class + direction.
    set: u64,
    /// Where the entry of the lowest bit lies; the others follow.
    first: u32,
}

const _: () = assert!(2 * MAX_CLASSES == 64, "a bit for each class and direction");

/// Contracts of one (service, class, direction), some of which are for segments.
#[derive(Clone, Copy, Debug)]
pub(super) struct Segmented {
    /// Sorted by segment, in `by_segment`.
    first: u32,
    len: u32,
    /// The one without segment.
    without: Option<ContractIndex>,
}

const SEGMENTED: u32 = 1 << 31;

/// What is known of (service, class, direction).
#[derive(Clone, Copy, Debug)]
pub(super) enum Found<'a> {
    /// One contract, whatever the segment.
    Whole(ContractIndex),
    /// The segment decides.
    BySegment(&'a Segmented),
}

impl Contracts {
    /// Of several contracts of one key, which the configuration refuses, the last stays.
    pub(super) fn compile(mut contracts: Vec<(ContractKey, ContractIndex)>) -> Self {
        // Stable, so that the last of several stays the last.
        contracts.sort_by_key(|(key, _)| (key.service, bit(key.class, key.direction), key.segment));
        let mut table = Self::default();
        for group in contracts.chunk_by(|(a, _), (b, _)| a.service == b.service) {
            let service = group[0].0.service.0 as usize;
            table.services.resize(service + 1, OfService::default());
            let first = table.entries.len() as u32;
            let mut set = 0;
            let bit_of = |key: &ContractKey| bit(key.class, key.direction);
            for same in group.chunk_by(|(a, _), (b, _)| bit_of(a) == bit_of(b)) {
                set |= 1 << bit_of(&same[0].0);
                let entry = table.entry(same);
                table.entries.push(entry);
            }
            table.services[service] = OfService { set, first };
        }
        table.entries.shrink_to_fit();
        table.services.shrink_to_fit();
        table
    }

    fn entry(&mut self, same: &[(ContractKey, ContractIndex)]) -> u32 {
        let (mut without, first) = (None, self.by_segment.len());
        for (key, index) in same {
            debug_assert!(index.0 < SEGMENTED);
            match key.segment {
                None => without = Some(*index),
                Some(segment) => match self.by_segment[first..].last_mut() {
                    Some((known, last)) if *known == segment => *last = *index,
                    _ => self.by_segment.push((segment, *index)),
                },
            }
        }
        let len = (self.by_segment.len() - first) as u32;
        match without {
            Some(whole) if len == 0 => whole.0,
            _ => {
                self.segmented.push(Segmented {
                    first: first as u32,
                    len,
                    without,
                });
                SEGMENTED | (self.segmented.len() - 1) as u32
            }
        }
    }

    /// First step: what the service has.
    #[inline]
    pub(super) fn of_service(&self, service: ServiceId) -> Option<&OfService> {
        self.services.get(service.0 as usize)
    }

    /// Second step: where the entry of a class and direction lies.
    #[inline]
    pub(super) fn entry_of(&self, of: &OfService, class: ClassId, direction: Direction) -> Option<&u32> {
        let bit = bit(class, direction);
        if of.set >> bit & 1 == 0 {
            return None;
        }
        let before = (of.set & ((1 << bit) - 1)).count_ones();
        self.entries.get((of.first + before) as usize)
    }

    /// Third step: what the entry says.
    #[inline]
    pub(super) fn found(&self, entry: u32) -> Found<'_> {
        if entry < SEGMENTED {
            Found::Whole(ContractIndex(entry))
        } else {
            Found::BySegment(&self.segmented[(entry - SEGMENTED) as usize])
        }
    }

    /// The contract of the first of `segments` that has one, else the one without segment.
    pub(super) fn by_segment(
        &self,
        of: &Segmented,
        mut segments: impl Iterator<Item = SegmentId>,
    ) -> Option<ContractIndex> {
        let list = &self.by_segment[of.first as usize..][..of.len as usize];
        let at = |segment: SegmentId| {
            let place = list.binary_search_by_key(&segment, |(known, _)| *known).ok()?;
            Some(list[place].1)
        };
        segments.find_map(at).or(of.without)
    }

    /// Memory that the table takes.
    pub(super) fn bytes(&self) -> usize {
        size_of_val(&self.services[..])
            + size_of_val(&self.entries[..])
            + size_of_val(&self.segmented[..])
            + size_of_val(&self.by_segment[..])
    }
}

#[inline]
fn bit(class: ClassId, direction: Direction) -> usize {
    2 * class.index() + direction.index()
}

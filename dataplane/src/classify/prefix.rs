//! From prefixes to the intervals that they cut the addresses into.

use super::tree::Boundary;
use crate::packet::Family;

/// A prefix, left-aligned in 128 bits, so that those of both families look alike.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Prefix {
    /// Its first address; all bits behind the length are 0.
    pub(super) start: u128,
    /// 0 to 32 or 128.
    pub(super) length: u8,
}

/// The address as a key: left-aligned in 128 bits.
#[inline]
pub(super) fn key(family: Family, address: u128) -> u128 {
    match family {
        Family::Ipv4 => address << 96,
        Family::Ipv6 => address,
    }
}

impl Prefix {
    /// Bits beyond the length are ignored; a length beyond the address is taken as a host's.
    pub(super) fn new(family: Family, address: u128, length: u8) -> Self {
        let length = match family {
            Family::Ipv4 => length.min(32),
            Family::Ipv6 => length.min(128),
        };
        let start = key(family, address) & !rest(length);
        Self { start, length }
    }

    fn last(self) -> u128 {
        self.start | rest(self.length)
    }
}

/// The bits behind a prefix.
fn rest(length: u8) -> u128 {
    u128::MAX.checked_shr(u32::from(length)).unwrap_or(0)
}

/// The boundaries of `prefixes`, which are sorted, each once. `value` gives the value of a prefix from what goes with it and
/// the value of the next shorter prefix around it; addresses in no prefix have the value 0.
pub(super) fn boundaries<T>(
    prefixes: impl Iterator<Item = (Prefix, T)>,
    mut value: impl FnMut(T, u32) -> u32,
) -> Vec<Boundary> {
    let mut boundaries = Vec::new();
    // The prefixes around the current address, by their last address.
    let mut open: Vec<(u128, u32)> = Vec::new();
    for (prefix, with) in prefixes {
        close(&mut open, &mut boundaries, |last| last < prefix.start);
        let own = value(with, open.last().map_or(0, |around| around.1));
        put(&mut boundaries, prefix.start, own);
        open.push((prefix.last(), own));
    }
    close(&mut open, &mut boundaries, |_| true);
    boundaries
}

fn close(open: &mut Vec<(u128, u32)>, boundaries: &mut Vec<Boundary>, mut over: impl FnMut(u128) -> bool) {
    while let Some((last, _)) = open.pop_if(|(last, _)| over(*last)) {
        let around = open.last().map_or(0, |around| around.1);
        if let Some(next) = last.checked_add(1) {
            put(boundaries, next, around);
        }
    }
}

/// Adds a boundary; one at the same address replaces the last, and one without a change of value is none.
pub(super) fn put(boundaries: &mut Vec<Boundary>, at: u128, value: u32) {
    boundaries.pop_if(|last| last.at == at);
    if boundaries.last().map_or(0, |last| last.value) != value {
        boundaries.push(Boundary { at, value });
    }
}

//! Longest-prefix tables for one address family: a hash table keyed by (length, masked address), asked once for each
//! length in use, longest first. Few lengths are in use in practice (a /16, some /24, host routes), and a flow asks only
//! once, because the flow cache stands in front.

use std::collections::HashMap;

use foldhash::fast::FixedState;

/// Values by prefix. Addresses are right-aligned integers of `bits` bits (32 or 128).
#[derive(Clone, Debug)]
pub struct PrefixTable<V> {
    bits: u8,
    lengths: Vec<u8>,
    values: HashMap<(u8, u128), V, FixedState>,
}

impl<V> PrefixTable<V> {
    /// An empty table for addresses of `bits` bits.
    #[must_use]
    pub fn new(bits: u8) -> Self {
        Self {
            bits,
            lengths: Vec::new(),
            values: HashMap::default(),
        }
    }

    /// The value of exactly `address/length`, made by `new` if there is none. Bits beyond the length are ignored, a length
    /// beyond the address is taken as a host's.
    pub fn entry(&mut self, address: u128, length: u8, new: impl FnOnce() -> V) -> &mut V {
        let length = length.min(self.bits);
        if let Err(place) = self.lengths.binary_search_by(|known| length.cmp(known)) {
            self.lengths.insert(place, length);
        }
        self.values
            .entry((length, self.masked(address, length)))
            .or_insert_with(new)
    }

    /// The values of all prefixes that contain `address`, longest first.
    #[inline]
    pub fn covering(&self, address: u128) -> impl Iterator<Item = &V> {
        self.lengths
            .iter()
            .filter_map(move |&length| self.values.get(&(length, self.masked(address, length))))
    }

    /// Whether nothing was entered.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.values.is_empty()
    }

    #[inline]
    fn masked(&self, address: u128, length: u8) -> u128 {
        let host_bits = u32::from(self.bits - length);
        // A shift by the full width would overflow: the prefix of length 0 of 128 bits masks everything away.
        address.checked_shr(host_bits).map_or(0, |network| network << host_bits)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn longest_comes_first_and_length_zero_covers_all() {
        let mut table = PrefixTable::new(32);
        for (address, length) in [(0x0a00_0000, 8), (0, 0), (0x0a01_0200, 24), (0x0a01_0203, 32)] {
            *table.entry(address, length, || 0) = length;
        }
        let covering = |address: u128| table.covering(address).copied().collect::<Vec<_>>();
        assert_eq!(covering(0x0a01_0203), [32, 24, 8, 0]);
        assert_eq!(covering(0x0a01_02ff), [24, 8, 0]);
        assert_eq!(covering(0x0b00_0000), [0]);
    }

    #[test]
    fn all_of_128_bits() {
        let mut table = PrefixTable::new(128);
        table.entry(u128::MAX, 0, || "default");
        table.entry(u128::MAX, 128, || "host");
        assert_eq!(
            table.covering(u128::MAX).copied().collect::<Vec<_>>(),
            ["host", "default"]
        );
        assert_eq!(table.covering(1).copied().collect::<Vec<_>>(), ["default"]);
    }
}

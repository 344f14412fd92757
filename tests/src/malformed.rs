//! Packets that no honest sender makes: seeds by kind, every way to cut and to lie about each, and an endless seeded stream.
//!
//! ```text
//!  kinds: fragments, header chains, VLAN towers, tunnels ... ─► Seed ─┬► variants: cut at every byte, every length a lie
//!                                                                     └► Malformer: drawn and damaged at random, for ever
//! ```
//!
//! The seeds are packets that weir may meet at a port (up to 3,818 bytes), some of them sound: what is damaged from there gets
//! further than noise does. They come from the services and go to the addresses of [`crate::memory::CONFIG`].

mod build;
mod kinds;

pub use kinds::{Seed, seeds};

/// SplitMix64: the same numbers from the same seed, everywhere, in two nanoseconds.
#[derive(Clone, Debug)]
pub struct Random(u64);

impl Random {
    /// The sequence of `seed`.
    #[must_use]
    pub fn new(seed: u64) -> Self {
        Self(seed)
    }

    /// The next number.
    #[inline]
    pub fn number(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    /// 0 to `end - 1`; 0 when `end` is 0.
    #[inline]
    pub fn below(&mut self, end: usize) -> usize {
        // A product instead of a division; the bias is below 1 in 2^32 for what is drawn here.
        ((u128::from(self.number()) * end as u128) >> 64) as usize
    }
}

/// Calls `each` with `seed` cut at every byte, and with every byte of its first 120 in turn replaced by values that lengths,
/// counts and types lie with.
pub fn variants(seed: &[u8], mut each: impl FnMut(&[u8])) {
    for end in 0..=seed.len() {
        each(&seed[..end]);
    }
    let mut bytes = seed.to_vec();
    for at in 0..seed.len().min(HEADERS) {
        let before = bytes[at];
        for value in [0, 1, before ^ 1, before.wrapping_add(1), before ^ 0x80, 0x7f, 0xff] {
            bytes[at] = value;
            each(&bytes);
        }
        bytes[at] = before;
        // Two bytes at once: what 16-bit lengths and EtherTypes are made of.
        if let Some(pair) = seed.get(at..at + 2) {
            for value in [0_u16, 8, 0xffff, seed.len() as u16, 0x0800, 0x86dd, 0x8100] {
                bytes[at..at + 2].copy_from_slice(&value.to_be_bytes());
                each(&bytes);
            }
            bytes[at..at + 2].copy_from_slice(pair);
        }
    }
}

/// Where headers are: what is behind is payload to weir, whatever it is.
const HEADERS: usize = 120;

/// An endless stream of malformed packets, the same for the same seed.
pub struct Malformer {
    random: Random,
    seeds: Vec<Vec<u8>>,
    longest: usize,
}

impl Malformer {
    /// The stream of `seed`, of packets of at most `longest` bytes.
    #[must_use]
    pub fn new(seed: u64, longest: usize) -> Self {
        let seeds = seeds().into_iter().map(|seed| seed.bytes);
        Self {
            random: Random::new(seed),
            seeds: seeds.filter(|bytes| bytes.len() <= longest).collect(),
            longest,
        }
    }

    /// Writes the next packet to `bytes`, in the place of what was there.
    #[inline]
    pub fn next(&mut self, bytes: &mut Vec<u8>) {
        bytes.clear();
        let seed = self.random.below(self.seeds.len());
        bytes.extend_from_slice(&self.seeds[seed]);
        // One in eight stays as it is, and most are damaged once: what is damaged often is soon just not IP.
        let damages = [0, 1, 1, 1, 1, 2, 2, 5][self.random.below(8)];
        for _ in 0..damages {
            self.damage(bytes);
        }
        bytes.truncate(self.longest);
    }

    fn damage(&mut self, bytes: &mut Vec<u8>) {
        let random = &mut self.random;
        let at = random.below(bytes.len().min(HEADERS));
        match random.below(10) {
            0 => bytes.truncate(random.below(bytes.len() + 1)),
            // Within the headers, where it hurts most.
            1 => bytes.truncate(at),
            2 => flip(bytes, at, 1 << random.below(8)),
            3 => flip(bytes, at, random.number() as u8),
            4 => set_pair(bytes, at, random.number() as u16),
            5 => {
                let lengths = [0, 1, 20, 40, 0xffff, bytes.len() as u16, bytes.len() as u16 - at as u16];
                set_pair(
                    bytes,
                    LENGTHS[random.below(LENGTHS.len())],
                    lengths[random.below(lengths.len())],
                );
            }
            // Other hosts and ports, so that flows and fragments are many.
            6 => {
                set_pair(bytes, 28, random.number() as u16);
                set_pair(bytes, 34, random.number() as u16);
            }
            7 if bytes.len() >= 12 => {
                let tpid = [0x81, 0x88, 0x91][random.below(3)];
                bytes.splice(12..12, [tpid, [0, 0xa8][random.below(2)], random.number() as u8, 1]);
            }
            7 | 8 => bytes.resize(bytes.len() + random.below(64), random.number() as u8),
            // The beginning of this one and the end of another.
            _ => {
                let other = &self.seeds[random.below(self.seeds.len())];
                let from = random.below(other.len() + 1);
                bytes.truncate(at);
                bytes.extend_from_slice(&other[from..]);
            }
        }
    }
}

/// Where lengths and fragment offsets lie in untagged IPv4, IPv6, UDP over either, and behind one tag.
const LENGTHS: [usize; 9] = [12, 14, 16, 18, 20, 22, 24, 38, 58];

fn flip(bytes: &mut [u8], at: usize, bits: u8) {
    if let Some(byte) = bytes.get_mut(at) {
        *byte ^= bits;
    }
}

fn set_pair(bytes: &mut [u8], at: usize, value: u16) {
    if let Some(pair) = bytes.get_mut(at..at + 2) {
        pair.copy_from_slice(&value.to_be_bytes());
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use dataplane::packet::{Family, Fragment, Parsed, parse};

    #[test]
    fn the_same_seed_gives_the_same_packets() {
        let run = |seed| {
            let (mut malformer, mut bytes, mut all) = (Malformer::new(seed, 1500), Vec::new(), Vec::new());
            for _ in 0..100 {
                malformer.next(&mut bytes);
                assert!(bytes.len() <= 1500);
                all.push(bytes.clone());
            }
            all
        };
        assert_eq!(run(1), run(1));
        assert_ne!(run(1), run(2));
    }

    /// Noise alone would test the first comparison of the parser a million times.
    #[test]
    fn the_stream_reaches_every_part_of_the_parser() {
        let (mut malformer, mut bytes) = (Malformer::new(1, 3818), Vec::new());
        let [
            mut other,
            mut v4,
            mut v6,
            mut tagged,
            mut first,
            mut later,
            mut ports,
            mut no_transport,
        ] = [0; 8];
        for _ in 0..20_000 {
            malformer.next(&mut bytes);
            let Parsed::Ip(headers) = parse(&bytes, bytes.len()) else {
                other += 1;
                continue;
            };
            v4 += u32::from(headers.family == Family::Ipv4);
            v6 += u32::from(headers.family == Family::Ipv6);
            tagged += u32::from(headers.vlan_tags > 0);
            first += u32::from(matches!(headers.fragment, Fragment::First { .. }));
            later += u32::from(matches!(headers.fragment, Fragment::Later { .. }));
            ports += u32::from(headers.ports.is_some());
            no_transport += u32::from(headers.l4_offset.is_none());
        }
        let seen = [other, v4, v6, tagged, first, later, ports, no_transport];
        assert!(seen.iter().all(|&count| count > 400), "{seen:?}");
    }
}

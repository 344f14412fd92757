//! Random numbers that are the same everywhere and for ever: SplitMix64, as [`mix`](crate::flow::mix) says.

use crate::flow::mix;

/// A stream of random numbers from a seed.
#[derive(Clone, Debug)]
pub(super) struct Random(u64);

impl Random {
    /// Number `index` of the streams of `seed`.
    pub(super) fn new(seed: u64, index: u64) -> Self {
        Self(mix(mix(seed) ^ index))
    }

    pub(super) fn next(&mut self) -> u64 {
        let number = mix(self.0);
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        number
    }

    /// Above 0, below 1, so that its logarithm is finite.
    pub(super) fn uniform(&mut self) -> f64 {
        ((self.next() >> 11) as f64 + 0.5) / (1u64 << 53) as f64
    }

    /// The gap to the next event of a Poisson process with this mean gap.
    pub(super) fn exponential(&mut self, mean: f64) -> f64 {
        -mean * self.uniform().ln()
    }
}

//! One contract and the workers that share it, for the tests of meters.
#![allow(dead_code, reason = "each test file takes what it needs")]

use dataplane::clock::Nanos;
use dataplane::meter::{Buckets, Color, Levels, Meter, Profile, Purse};

/// Bit-nanoseconds of a byte.
pub(crate) const UNITS: i128 = 8_000_000_000;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Rfc {
    None,
    R2697,
    R2698,
    R4115,
}

pub(crate) const RFCS: [Rfc; 4] = [Rfc::None, Rfc::R2697, Rfc::R2698, Rfc::R4115];

/// Rates in bit/s and bursts in bytes; the second ones where the RFC has them.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Numbers {
    pub(crate) rfc: Rfc,
    pub(crate) aware: bool,
    pub(crate) rate: u64,
    pub(crate) burst: u64,
    pub(crate) second_rate: u64,
    pub(crate) second_burst: u64,
}

impl Numbers {
    pub(crate) fn meter(&self) -> Meter {
        let &Numbers {
            rate,
            burst,
            second_rate,
            second_burst,
            ..
        } = self;
        let profile = match self.rfc {
            Rfc::None => Profile::token_bucket(rate, burst),
            Rfc::R2697 => Profile::sr_tcm(rate, burst, second_burst),
            Rfc::R2698 => Profile::tr_tcm(rate, burst, second_rate, second_burst),
            Rfc::R4115 => Profile::tr_tcm_4115(rate, burst, second_rate, second_burst),
        };
        Meter::new(profile.expect("numbers in range"), self.aware)
    }
}

pub(crate) fn token_bucket(rate: u64, burst: u64) -> Meter {
    Meter::new(Profile::token_bucket(rate, burst).expect("numbers in range"), false)
}

/// The state of one contract, shared by `purses.len()` workers.
pub(crate) struct Shared {
    pub(crate) buckets: Buckets,
    pub(crate) purses: Vec<Purse>,
}

impl Shared {
    pub(crate) fn among(workers: usize) -> Self {
        Self {
            buckets: Buckets::new(),
            purses: (0..workers).map(|_| Purse::new()).collect(),
        }
    }

    pub(crate) fn workers(&self) -> usize {
        self.purses.len()
    }

    pub(crate) fn color(&self, meter: &Meter, worker: usize, bytes: u32, now: u64, arrived: Color) -> Color {
        let sharing = self.buckets.among(self.workers());
        meter.color_shared(sharing, &self.purses[worker], bytes, Nanos(now), arrived)
    }

    pub(crate) fn green(&self, meter: &Meter, worker: usize, bytes: u32, now: u64) -> bool {
        self.color(meter, worker, bytes, now, Color::Green) == Color::Green
    }

    pub(crate) fn levels(&self, meter: &Meter, now: u64) -> Levels {
        meter.levels_shared(self.buckets.among(self.workers()), self.purses.iter(), Nanos(now))
    }
}

/// SplitMix64: any distinct seeds give unrelated sequences.
pub(crate) struct Random(pub(crate) u64);

impl Random {
    pub(crate) fn between(&mut self, low: u64, high: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        low + (mixed ^ (mixed >> 31)) % (high - low + 1)
    }
}

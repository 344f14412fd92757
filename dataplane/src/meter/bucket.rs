//! One token bucket in one atomic word: `(level, at)`.
//!
//! `level` is in **bit-nanoseconds**: one byte is [`UNITS_PER_BYTE`] of them, and a rate of `r` bit/s adds exactly `r` of
//! them per nanosecond. So refilling is one multiplication with no remainder to lose at any rate, and a level means the
//! same under every rate: a new profile takes over the old level as it is. A burst of 2 GB is 1.6 × 10^19 units, which is
//! what fits a `u64`.
//!
//! `at` is the instant up to which `level` is filled, in nanoseconds. It never goes back: an operation with an earlier
//! `now` sees the bucket as of `at`, with nothing granted for the difference.

use crate::word::{UNITS_PER_BYTE, Word};

/// `at` of a bucket that nobody has taken from: full, whatever the burst turns out to be.
const FRESH: u64 = u64::MAX;

/// What fills a bucket: a rate in bit/s (zero for one that only another bucket's overflow fills) and the level it is
/// full at, in bit-nanoseconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Fill {
    pub(super) rate_bps: u64,
    pub(super) full: u64,
}

/// A bucket's contents: full while [`FRESH`], else filled up to `at`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct State {
    level: u64,
    at: u64,
}

impl State {
    const FRESH: State = State { level: 0, at: FRESH };

    fn unpack(word: u128) -> Self {
        Self {
            level: (word >> 64) as u64,
            at: word as u64,
        }
    }

    fn pack(self) -> u128 {
        u128::from(self.level) << 64 | u128::from(self.at)
    }

    /// The state at `now`, and what ran over the brim on the way. A level above `full` (the burst has shrunk) is cut
    /// without running over: those tokens belong to the old entitlement.
    #[inline]
    fn filled(self, fill: Fill, now: u64) -> (State, u128) {
        let now = now.min(FRESH - 1);
        if self.at == FRESH {
            return (
                State {
                    level: fill.full,
                    at: now,
                },
                0,
            );
        }
        let gain = u128::from(fill.rate_bps) * u128::from(now.saturating_sub(self.at));
        let level = self.level.min(fill.full);
        let at = self.at.max(now);
        let room = u128::from(fill.full - level);
        if gain >= room {
            (State { level: fill.full, at }, gain - room)
        } else {
            (
                State {
                    level: level + gain as u64,
                    at,
                },
                0,
            )
        }
    }
}

#[derive(Debug)]
pub(super) struct Bucket(Word);

impl Bucket {
    pub(super) fn fresh() -> Self {
        Self(Word::new(State::FRESH.pack()))
    }

    pub(super) fn refresh(&self) {
        self.0.store(State::FRESH.pack());
    }

    /// Takes `need` if the bucket holds it at `now`: "takes nothing" is the literal truth of a failure, which stores
    /// nothing. The refill it has computed is not lost, because filling up to one instant and then to a later one gives
    /// what filling at once gives.
    #[inline]
    pub(super) fn take(&self, fill: Fill, now: u64, need: u64) -> bool {
        let mut word = self.0.load();
        loop {
            let (filled, _) = State::unpack(word).filled(fill, now);
            if filled.level < need {
                return false;
            }
            let taken = State {
                level: filled.level - need,
                at: filled.at,
            };
            match self.0.compare_exchange(word, taken.pack()) {
                Ok(()) => return true,
                Err(newer) => word = newer,
            }
        }
    }

    /// As [`take`](Self::take), for a bucket whose overflow is somebody's: `(taken, overflow)`, where this caller and no
    /// other answers for `overflow`. Stores also on failure when something has run over (so that it is handed out once)
    /// and when the bucket is fresh (so that it runs over from now on).
    #[inline]
    pub(super) fn take_or_settle(&self, fill: Fill, now: u64, need: Option<u64>) -> (bool, u128) {
        let mut word = self.0.load();
        loop {
            let state = State::unpack(word);
            let (filled, overflow) = state.filled(fill, now);
            let left = need.and_then(|need| filled.level.checked_sub(need));
            if left.is_none() && overflow == 0 && state.at != FRESH {
                return (false, 0);
            }
            let next = State {
                level: left.unwrap_or(filled.level),
                at: filled.at,
            };
            match self.0.compare_exchange(word, next.pack()) {
                Ok(()) => return (left.is_some(), overflow),
                Err(newer) => word = newer,
            }
        }
    }

    /// Adds `gift` up to the brim and then takes `need` if it is there, both in one step. Stores nothing when that would
    /// change nothing: a full bucket has no use for a gift, and a fresh one is full.
    #[inline]
    pub(super) fn give_and_take(&self, full: u64, now: u64, gift: u128, need: Option<u64>) -> bool {
        let mut word = self.0.load();
        loop {
            let state = State::unpack(word);
            let (held, _) = state.filled(Fill { rate_bps: 0, full }, now);
            let level = (u128::from(held.level) + gift).min(u128::from(full)) as u64;
            let left = need.and_then(|need| level.checked_sub(need));
            let next = State {
                level: left.unwrap_or(level),
                at: held.at,
            };
            if left.is_none() && (next.level == state.level || state.at == FRESH) {
                return false;
            }
            match self.0.compare_exchange(word, next.pack()) {
                Ok(()) => return left.is_some(),
                Err(newer) => word = newer,
            }
        }
    }

    /// The level at `now` and what has run over since the last store; changes nothing.
    pub(super) fn peek(&self, fill: Fill, now: u64) -> (u64, u128) {
        let (filled, overflow) = State::unpack(self.0.load()).filled(fill, now);
        (filled.level, overflow)
    }
}

/// `bytes` in bit-nanoseconds. Saturates above 2.3 GB, which no bucket holds, so such a packet never fits.
#[inline]
pub(super) fn units(bytes: u32) -> u64 {
    u64::from(bytes).saturating_mul(UNITS_PER_BYTE)
}

//! A port's rate, shared by the workers that send on it, and the one thing they must tell each other: who still holds
//! conforming packets.
//!
//! The rate is a bucket that may go into debt: a packet goes whenever the level is not negative and then takes all its
//! bytes, so the level falls below zero by at most one packet, and no packet is too large to ever go. Over any interval
//! the port sends at most `rate × (interval + slack + 1 ns)` and one packet; while something waits, never less than the
//! rate by more than one packet and the time that workers are late in asking.
//!
//! The level and its instant are one word, in bit-nanoseconds, as in [`crate::meter`]; what is said there of progress,
//! ordering and stale clocks holds here: lock-free, an earlier `now` grants nothing. [`ShaperRate`] is part of a
//! table and replaced with it; [`ShaperState`] lives on, so a new rate finds the old debt, in bits.

use crate::clock::Nanos;
use crate::word::{UNITS_PER_BYTE, Word};
use thiserror::Error;

#[cfg(loom)]
use loom::sync::atomic::{AtomicU64, Ordering};
#[cfg(not(loom))]
use std::sync::atomic::{AtomicU64, Ordering};

/// A port's rate and how far behind it the workers may be without losing any of it. Immutable.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ShaperRate {
    rate_bps: u64,
    /// The most that an idle port saves up, in bit-nanoseconds.
    ceiling: i64,
}

/// Why numbers do not make a port rate.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum ShaperRateError {
    /// A rate outside [`ShaperRate::RATE_BPS`].
    #[error("rate is {rate_bps} bit/s; a port rate is 8000 to 800000000000 bit/s")]
    RateOutOfRange {
        /// What it was, in bit/s.
        rate_bps: u64,
    },
    /// A slack above [`ShaperRate::SLACK_MAX`].
    #[error("slack is {slack_ns} ns; at most 10000000 ns")]
    SlackTooLong {
        /// What it was, in nanoseconds.
        slack_ns: u64,
    },
}

impl ShaperRate {
    /// 8 kbit/s to 800 Gbit/s.
    pub const RATE_BPS: std::ops::RangeInclusive<u64> = 8_000..=800_000_000_000;

    /// 10 ms: already a burst of 1 GB at 800 Gbit/s, and a seventh less than where a level would overflow (11.5 ms).
    pub const SLACK_MAX: Nanos = Nanos(10_000_000);

    /// A port of `rate_bps`. After idle time it may send `slack` worth of the rate at once: zero paces perfectly (a
    /// replay, whose clock is never late); live, about the longest time between two looks of a worker (100 µs), because
    /// what would have been sent in a longer pause is lost.
    ///
    /// One nanosecond is always added: [`ShaperState::next_send`] rounds up to whole nanoseconds, and without room for
    /// what accrues in the rounding a 10 Gbit/s port would lose 1.5 % on packets of 64 bytes.
    ///
    /// # Errors
    /// `rate_bps` outside [`Self::RATE_BPS`], `slack` above [`Self::SLACK_MAX`].
    pub fn new(rate_bps: u64, slack: Nanos) -> Result<Self, ShaperRateError> {
        if !Self::RATE_BPS.contains(&rate_bps) {
            return Err(ShaperRateError::RateOutOfRange { rate_bps });
        }
        if slack > Self::SLACK_MAX {
            return Err(ShaperRateError::SlackTooLong { slack_ns: slack.0 });
        }
        Ok(Self {
            rate_bps,
            ceiling: (rate_bps * (slack.0 + 1)) as i64,
        })
    }
}

/// What a port has sent ahead of or behind its rate, shared by its workers. On a cache line of its own.
#[derive(Debug)]
#[repr(align(64))]
pub struct ShaperState(Word);

/// `at` of a port that has not sent yet: as after a long idle time.
const FRESH: u64 = u64::MAX;

impl ShaperState {
    /// A port that has been idle for long.
    #[must_use]
    pub fn new() -> Self {
        Self(Word::new(pack(0, FRESH)))
    }

    /// Whether a packet of `bytes` (in the port's layer) may go at `now`; if so it is counted as sent. A refusal stores
    /// nothing. Bytes above 1.1 GB count as that many.
    #[inline]
    #[must_use]
    pub fn try_send(&self, rate: &ShaperRate, bytes: u32, now: Nanos) -> bool {
        let cost = i64::try_from(u64::from(bytes).saturating_mul(UNITS_PER_BYTE)).unwrap_or(i64::MAX);
        let mut word = self.0.load();
        loop {
            let (level, at) = filled(word, rate, now);
            if level < 0 {
                return false;
            }
            match self.0.compare_exchange(word, pack(level - cost, at)) {
                Ok(()) => return true,
                Err(newer) => word = newer,
            }
        }
    }

    /// Gives back what [`try_send`](Self::try_send) took for a packet that was then dropped instead of sent.
    pub fn refund(&self, rate: &ShaperRate, bytes: u32) {
        let cost = i64::try_from(u64::from(bytes).saturating_mul(UNITS_PER_BYTE)).unwrap_or(i64::MAX);
        let mut word = self.0.load();
        loop {
            let (level, at) = ((word >> 64) as u64 as i64, word as u64);
            let level = level.saturating_add(cost).min(rate.ceiling);
            match self.0.compare_exchange(word, pack(level, at)) {
                Ok(()) => return,
                Err(newer) => word = newer,
            }
        }
    }

    /// The first instant from `now` on at which [`try_send`](Self::try_send) would succeed if nobody else sent: exact,
    /// rounded up to a nanosecond.
    #[must_use]
    pub fn next_send(&self, rate: &ShaperRate, now: Nanos) -> Nanos {
        let (level, at) = filled(self.0.load(), rate, now);
        if level >= 0 {
            now
        } else {
            Nanos(at).plus(Nanos(level.unsigned_abs().div_ceil(rate.rate_bps)))
        }
    }
}

impl Default for ShaperState {
    fn default() -> Self {
        Self::new()
    }
}

/// Level and instant with everything accrued until `now`. A level above the ceiling (the rate or the slack has shrunk)
/// is cut.
#[inline]
fn filled(word: u128, rate: &ShaperRate, now: Nanos) -> (i64, u64) {
    let (level, at) = ((word >> 64) as u64 as i64, word as u64);
    let now = now.0.min(FRESH - 1);
    if at == FRESH {
        return (rate.ceiling, now);
    }
    let gain = u128::from(rate.rate_bps) * u128::from(now.saturating_sub(at));
    // At most 2^63 + 2^63: the level is never below -2^63 and the ceiling is under 2^63.
    let room = (i128::from(rate.ceiling) - i128::from(level)).max(0) as u128;
    let level = if gain >= room {
        rate.ceiling
    } else {
        level.wrapping_add_unsigned(gain as u64)
    };
    (level, at.max(now))
}

fn pack(level: i64, at: u64) -> u128 {
    u128::from(level as u64) << 64 | u128::from(at)
}

/// Which workers of a port still hold conforming packets after they have scheduled. While another does, a worker keeps
/// its nonconforming packets back: they would spend rate that the other's conforming packets are waiting for.
///
/// This is advice between cores, not a lock: a worker that looks just before another's bit goes up sends what it was
/// about to send (at most its batch), as if the conforming packet had come that much later. Relaxed ordering, because the
/// bits publish no other memory, and each bit has one writer. All operations are wait-free.
///
/// A worker that stops must take its bit down, or the others hold their nonconforming packets for ever.
#[derive(Debug)]
#[repr(align(64))]
pub struct ConformingBacklog(AtomicU64);

impl ConformingBacklog {
    /// Workers that fit: indices 0 to 63.
    pub const WORKERS_MAX: usize = 64;

    /// Nobody waits.
    #[must_use]
    pub fn new() -> Self {
        Self(AtomicU64::new(0))
    }

    /// Says whether `worker` still holds conforming packets for this port. Called by that worker only; writes to the
    /// shared line only when the answer changes. An index from 64 on is ignored.
    #[inline]
    pub fn set(&self, worker: usize, waiting: bool) {
        let bit = bit(worker);
        let told = self.0.load(Ordering::Relaxed) & bit;
        if waiting && told != bit {
            self.0.fetch_or(bit, Ordering::Relaxed);
        } else if !waiting && told != 0 {
            self.0.fetch_and(!bit, Ordering::Relaxed);
        }
    }

    /// Whether a worker other than `worker` holds conforming packets: then nonconforming ones must wait.
    #[inline]
    #[must_use]
    pub fn others_waiting(&self, worker: usize) -> bool {
        self.0.load(Ordering::Relaxed) & !bit(worker) != 0
    }
}

impl Default for ConformingBacklog {
    fn default() -> Self {
        Self::new()
    }
}

fn bit(worker: usize) -> u64 {
    debug_assert!(worker < ConformingBacklog::WORKERS_MAX);
    if worker < ConformingBacklog::WORKERS_MAX {
        1 << worker
    } else {
        0
    }
}

#[cfg(all(test, loom))]
mod loom_tests {
    use super::*;
    use loom::sync::Arc;
    use loom::thread;

    /// 8 bits per nanosecond: a byte each.
    const BYTE_PER_NS: u64 = 8_000_000_000;

    #[test]
    fn never_more_than_rate_and_one_packet() {
        loom::model(|| {
            let rate = ShaperRate::new(BYTE_PER_NS, Nanos(0)).unwrap();
            let state = Arc::new(ShaperState::new());
            let threads = [0, 3, 7].map(|now| {
                let state = Arc::clone(&state);
                thread::spawn(move || u64::from(state.try_send(&rate, 5, Nanos(now))))
            });
            let sent: u64 = threads.into_iter().map(|thread| thread.join().unwrap()).sum();
            // Savings of one nanosecond, seven elapsed, then one packet of debt.
            assert!((1..=2).contains(&sent), "{sent} packets");
        });
    }

    #[test]
    fn each_bit_is_its_own() {
        loom::model(|| {
            let backlog = Arc::new(ConformingBacklog::new());
            let threads = [(0, true), (1, false)].map(|(worker, stays)| {
                let backlog = Arc::clone(&backlog);
                thread::spawn(move || {
                    backlog.set(worker, true);
                    backlog.set(worker, stays);
                })
            });
            for thread in threads {
                thread.join().unwrap();
            }
            assert!(backlog.others_waiting(1), "worker 0 waits and nobody has lost its bit");
            assert!(!backlog.others_waiting(0), "worker 1 has taken its bit down");
        });
    }
}

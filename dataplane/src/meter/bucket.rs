//! One token bucket: what it holds, where it lies, and how a worker takes from it.
//!
//! A level is in **bit-nanoseconds**: one byte is [`UNITS_PER_BYTE`] of them, and a rate of `r` bit/s adds exactly `r` of
//! them per nanosecond. So refilling is one multiplication with no remainder to lose at any rate, and a level means the
//! same under every rate: a new profile takes over the old level as it is. A burst of 2 GB is 1.6 × 10^19 units, which is
//! what fits a `u64`.
//!
//! `at` is the instant up to which the level is filled, in nanoseconds. It never goes back: an operation with an earlier
//! `now` sees the bucket as of `at`, with nothing granted for the difference.
//!
//! The same four operations work on a bucket that is one worker's own ([`Own`]) and on one that workers share
//! ([`Word`], with a [`Credit`] for each of them).

use crate::clock::Nanos;
use crate::sync::{AtomicU64, Ordering};
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

impl Fill {
    /// The same rate into a bucket that is full earlier.
    #[inline]
    pub(super) fn less(self, units: u64) -> Self {
        Self {
            full: self.full - units,
            ..self
        }
    }
}

/// A bucket's contents: full while [`FRESH`], else filled up to `at`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct State {
    level: u64,
    at: u64,
}

impl State {
    const FRESH: State = State {
        level: u64::MAX,
        at: FRESH,
    };

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
        if self.at == FRESH {
            let level = fill.full;
            return (State { level, at: now }, 0);
        }
        let level = self.level.min(fill.full);
        // Most packets of a busy contract come with an instant that the bucket has seen.
        if now <= self.at {
            return (State { level, at: self.at }, 0);
        }
        let gain = u128::from(fill.rate_bps) * u128::from(now - self.at);
        let room = u128::from(fill.full - level);
        if gain >= room {
            let level = fill.full;
            return (State { level, at: now }, gain - room);
        }
        let level = level + gain as u64;
        (State { level, at: now }, 0)
    }
}

/// Where a bucket's state lies.
pub(super) trait Place {
    fn load(&self) -> State;

    /// Puts `new` in the place of `old`; the error is what is there instead.
    fn replace(&self, old: State, new: State) -> Result<(), State>;
}

/// A place that one worker alone writes: plain loads and stores. Others may read; what they see can mix two states that
/// are one packet apart.
#[derive(Debug)]
pub(super) struct Own {
    level: AtomicU64,
    at: AtomicU64,
}

impl Own {
    pub(super) fn fresh() -> Self {
        Self {
            level: AtomicU64::new(State::FRESH.level),
            at: AtomicU64::new(State::FRESH.at),
        }
    }

    /// Full again. One store, for its worker may be storing, too: with two, it could be full twice.
    pub(super) fn refresh(&self) {
        self.at.store(FRESH, Ordering::Relaxed);
    }

    /// Filled to `level` at `at`. Before its worker runs.
    pub(super) fn set(&self, level: u64, at: u64) {
        self.store(State { level, at });
    }

    /// The same state, in a place that nobody else knows.
    pub(super) fn copied(&self) -> Self {
        let copy = Self::fresh();
        copy.store(self.load());
        copy
    }

    #[inline]
    fn store(&self, state: State) {
        self.level.store(state.level, Ordering::Relaxed);
        self.at.store(state.at, Ordering::Relaxed);
    }
}

impl Place for Own {
    #[inline]
    fn load(&self) -> State {
        State {
            level: self.level.load(Ordering::Relaxed),
            at: self.at.load(Ordering::Relaxed),
        }
    }

    #[inline]
    fn replace(&self, _old: State, new: State) -> Result<(), State> {
        self.store(new);
        Ok(())
    }
}

/// A place that all workers write, by compare-and-exchange.
#[derive(Debug)]
pub(super) struct Shared(Word);

impl Shared {
    pub(super) fn fresh() -> Self {
        Self(Word::new(State::FRESH.pack()))
    }

    pub(super) fn refresh(&self) {
        self.0.store(State::FRESH.pack());
    }

    /// Filled to `level` at `at`. Before workers run.
    pub(super) fn set(&self, level: u64, at: u64) {
        self.0.store(State { level, at }.pack());
    }

    /// The same state, in a place that nobody else knows.
    pub(super) fn copied(&self) -> Self {
        Self(Word::new(self.0.load()))
    }
}

impl Place for Shared {
    #[inline]
    fn load(&self) -> State {
        State::unpack(self.0.load())
    }

    #[inline]
    fn replace(&self, old: State, new: State) -> Result<(), State> {
        self.0.compare_exchange(old.pack(), new.pack()).map_err(State::unpack)
    }
}

/// What a worker has borrowed ahead from a shared bucket, and how much it may.
pub(super) trait Loan {
    /// What is left of it, for a bucket that is full at `full`.
    fn left(&self, full: u64) -> u64;

    fn set(&self, left: u64);

    /// The most that a worker holds.
    fn most(&self, full: u64) -> u64;

    /// The most that all workers hold together: so much less is in the bucket when it is full.
    fn most_of_all(&self, full: u64) -> u64;

    /// Whether the shared bucket is known not to hold `short` at `now`.
    fn is_dry(&self, now: u64, short: u64) -> bool;

    /// Remembers that the shared bucket holds only `level` at `now`.
    fn saw(&self, now: u64, level: u64);
}

/// Nothing is borrowed ahead.
pub(super) struct NoLoan;

impl Loan for NoLoan {
    #[inline]
    fn left(&self, _full: u64) -> u64 {
        0
    }

    #[inline]
    fn set(&self, _left: u64) {}

    #[inline]
    fn most(&self, _full: u64) -> u64 {
        0
    }

    #[inline]
    fn most_of_all(&self, _full: u64) -> u64 {
        0
    }

    #[inline]
    fn is_dry(&self, _now: u64, _short: u64) -> bool {
        false
    }

    #[inline]
    fn saw(&self, _now: u64, _level: u64) {}
}

/// A worker's credit with a shared bucket. It lies where an only worker would keep the level, and is written by its worker
/// alone. One that was never used is full, as buckets begin.
pub(super) struct Credit<'a> {
    own: &'a Own,
    sharers: Sharers,
}

impl<'a> Credit<'a> {
    pub(super) fn new(own: &'a Own, sharers: Sharers) -> Self {
        Self { own, sharers }
    }
}

impl Loan for Credit<'_> {
    /// Cut to what may be held, which is less than before when the burst has shrunk.
    #[inline]
    fn left(&self, full: u64) -> u64 {
        self.own.level.load(Ordering::Relaxed).min(self.most(full))
    }

    #[inline]
    fn set(&self, left: u64) {
        self.own.level.store(left, Ordering::Relaxed);
    }

    #[inline]
    fn most(&self, full: u64) -> u64 {
        self.sharers.most(full)
    }

    #[inline]
    fn most_of_all(&self, full: u64) -> u64 {
        self.sharers.most_of_all(full)
    }

    /// Where an only worker would keep the instant, here is the last one at which the shared bucket was dry. The rest of a
    /// batch then does not ask it again, which under a flood of excess is what the workers would meet at.
    #[inline]
    fn is_dry(&self, now: u64, short: u64) -> bool {
        short >= SMALLEST_BYTES * UNITS_PER_BYTE && self.own.at.load(Ordering::Relaxed) == now
    }

    #[inline]
    fn saw(&self, now: u64, level: u64) {
        if level < SMALLEST_BYTES * UNITS_PER_BYTE {
            self.own.at.store(now, Ordering::Relaxed);
        }
    }
}

/// Bytes that one worker borrows ahead at most. A contended exchange costs what some ten packets' judgements cost (docs/SCALING.md);
/// at 64 KiB even the smallest packets share it among a thousand, and more would only make bursts less exact.
const CREDIT_BYTES_MAX: u64 = 65_536;

/// The smallest packet: an IPv4 header (RFC 791 section 3.1). A bucket that holds less is dry.
const SMALLEST_BYTES: u64 = 20;

/// Bytes of a bucket that nobody borrows ahead: the largest packet of networks with jumbo frames always fits if it would
/// fit a bucket of one worker.
const UNLENT_BYTES: u64 = 9_216;

/// Of what is lent, all workers together hold at most this part of the burst: 2^-3.
const LENT_LOG2: u32 = 3;

/// The workers that share a bucket.
#[derive(Clone, Copy, Debug)]
pub(super) struct Sharers {
    workers: u32,
    /// Of the power of two not below: every packet asks what its worker may hold, and a shift is quicker than a division.
    log2: u32,
}

impl Sharers {
    #[inline]
    pub(super) fn new(workers: usize) -> Self {
        Self {
            workers: workers as u32,
            log2: workers.next_power_of_two().trailing_zeros(),
        }
    }

    /// The most that each of them borrows ahead from a bucket that is full at `full`.
    #[inline]
    pub(super) fn most(self, full: u64) -> u64 {
        let share = full.saturating_sub(UNLENT_BYTES * UNITS_PER_BYTE) >> (LENT_LOG2 + self.log2);
        share.min(CREDIT_BYTES_MAX * UNITS_PER_BYTE)
    }

    /// What they hold together when all hold the most: for these workers, not for a power of two of them, or a part of the
    /// burst would be kept for workers that do not exist.
    #[inline]
    pub(super) fn most_of_all(self, full: u64) -> u64 {
        self.most(full) * u64::from(self.workers)
    }
}

/// Exchanges that a worker attempts before it lets a packet go without tokens. Each failure is another worker's success on
/// the same contract, and workers succeed once in many packets.
const ATTEMPTS: usize = 64;

/// A bucket as one worker sees it.
pub(super) struct Bucket<'a, P, L> {
    pub(super) place: &'a P,
    pub(super) loan: L,
}

impl<P: Place, L: Loan> Bucket<'_, P, L> {
    /// Takes `need` if it is there at `now`. "Takes nothing" is the literal truth of a failure, which stores nothing. The
    /// refill it has computed is not lost, because filling up to one instant and then to a later one gives what filling at
    /// once gives.
    #[inline]
    pub(super) fn take(&self, fill: Fill, now: u64, need: u64) -> bool {
        let left = self.loan.left(fill.full);
        if left > 0 && need <= left {
            self.loan.set(left - need);
            return true;
        }
        if self.loan.is_dry(now, need - left) {
            return false;
        }
        let most = self.loan.most(fill.full);
        let fill = self.unlent(fill);
        let mut state = self.place.load();
        for _ in 0..ATTEMPTS {
            let (filled, _) = state.filled(fill, now);
            let Some((level, left)) = pay(filled.level, left, need, most) else {
                self.loan.saw(now, filled.level);
                return false;
            };
            match self.place.replace(state, State { level, at: filled.at }) {
                Ok(()) => {
                    self.loan.set(left);
                    return true;
                }
                Err(newer) => state = newer,
            }
        }
        false
    }

    /// As [`take`](Self::take), for a bucket whose overflow is somebody's: `(taken, overflow)`, where this caller and no
    /// other answers for `overflow`. Stores also on failure when something has run over (so that it is handed out once)
    /// and when the bucket is fresh (so that it runs over from now on).
    #[inline]
    pub(super) fn take_or_settle(&self, fill: Fill, now: u64, need: Option<u64>) -> (bool, u128) {
        let left = self.loan.left(fill.full);
        if let Some(need) = need
            && left > 0
            && need <= left
        {
            self.loan.set(left - need);
            return (true, 0);
        }
        if need.is_some_and(|need| self.loan.is_dry(now, need - left)) {
            return (false, 0);
        }
        let most = self.loan.most(fill.full);
        let fill = self.unlent(fill);
        let mut state = self.place.load();
        for _ in 0..ATTEMPTS {
            let (filled, overflow) = state.filled(fill, now);
            let paid = need.and_then(|need| pay(filled.level, left, need, most));
            if paid.is_none() && overflow == 0 && state.at != FRESH {
                self.loan.saw(now, filled.level);
                return (false, 0);
            }
            let level = paid.map_or(filled.level, |(level, _)| level);
            match self.place.replace(state, State { level, at: filled.at }) {
                Ok(()) => {
                    if let Some((_, left)) = paid {
                        self.loan.set(left);
                    }
                    return (paid.is_some(), overflow);
                }
                Err(newer) => state = newer,
            }
        }
        (false, 0)
    }

    /// Adds `gift` up to the brim and then takes `need` if it is there, both in one step. Stores nothing when that would
    /// change nothing: a full bucket has no use for a gift, and a fresh one is full.
    #[inline]
    pub(super) fn give_and_take(&self, full: u64, now: u64, gift: u128, need: Option<u64>) -> bool {
        let left = self.loan.left(full);
        let by_credit = need.is_some_and(|need| left > 0 && need <= left);
        if let Some(need) = need
            && by_credit
        {
            self.loan.set(left - need);
            if gift == 0 {
                return true;
            }
        }
        // What the credit has paid for is not asked of the bucket again.
        let need = if by_credit { None } else { need };
        let most = self.loan.most(full);
        let fill = self.unlent(Fill { rate_bps: 0, full });
        let mut state = self.place.load();
        for _ in 0..ATTEMPTS {
            let (held, _) = state.filled(fill, now);
            let level = (u128::from(held.level) + gift).min(u128::from(fill.full)) as u64;
            let paid = need.and_then(|need| pay(level, left, need, most));
            if paid.is_none() && (level == state.level || state.at == FRESH) {
                return by_credit;
            }
            let next = State {
                level: paid.map_or(level, |(level, _)| level),
                at: held.at,
            };
            match self.place.replace(state, next) {
                Ok(()) => {
                    if let Some((_, left)) = paid {
                        self.loan.set(left);
                    }
                    return by_credit || paid.is_some();
                }
                Err(newer) => state = newer,
            }
        }
        by_credit
    }

    /// The part of the bucket that is never lent.
    #[inline]
    fn unlent(&self, fill: Fill) -> Fill {
        fill.less(self.loan.most_of_all(fill.full))
    }
}

/// The level at `now`, and what has run over since the last store; changes nothing.
pub(super) fn peek(place: &impl Place, fill: Fill, now: u64) -> (u64, u128) {
    let (filled, overflow) = place.load().filled(fill, now);
    (filled.level, overflow)
}

/// An instant as buckets know it: the last of all stands for one that never was.
#[inline]
pub(super) fn instant(now: Nanos) -> u64 {
    now.0.min(FRESH - 1)
}

/// Pays `need` from all that is `left` of a credit, which is not more, and from `level` of the bucket, and borrows ahead up
/// to `most`: what then is in the bucket, and in the credit. `None`: both together do not hold it.
#[inline]
fn pay(level: u64, left: u64, need: u64, most: u64) -> Option<(u64, u64)> {
    let level = level.checked_sub(need - left)?;
    let lent = most.min(level);
    Some((level - lent, lent))
}

/// `bytes` in bit-nanoseconds. Saturates above 2.3 GB, which no bucket holds, so such a packet never fits.
#[inline]
pub(super) fn units(bytes: u32) -> u64 {
    u64::from(bytes).saturating_mul(UNITS_PER_BYTE)
}

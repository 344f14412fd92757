//! Meters: is this packet inside the entitlement?
//!
//! A [`Meter`] is numbers only, immutable, and part of a contract table. Its state outlives the table: a [`Purse`] for each
//! worker and, where there are several workers, [`Buckets`] that they share. [`Meter::color`] and [`Meter::color_shared`]
//! bring them together, once per packet, with the batch's `now`. What a packet's size counts (IP packet, frame, or line) is
//! for the caller; what follows from a colour is, too.
//!
//! # Exactness
//!
//! Levels are counted in bit-nanoseconds, in which a rate in bit/s times a time in ns is a whole number: nothing is
//! rounded, at any rate. One worker alone, whose clock does not go back, gives exactly the colours of the RFC with tokens
//! that accrue continuously. (The RFCs let whole tokens drip, at instants that they leave open.) Its purse then is the
//! buckets themselves, and judging takes no atomic instruction.
//!
//! # Many workers
//!
//! ```text
//!   burst = unlent part, one shared word, refilled by rate × time
//!         + most × workers, each worker's own credit, refilled from the shared word when it is spent
//! ```
//!
//! A worker pays from its credit, which nobody else touches. When that does not hold a packet, the worker refills the shared
//! word to `now`, takes from it what is missing and as much again as its credit may hold (`most`), all in one
//! compare-and-exchange. So the workers meet once in `most` bytes, and excess only
//! reads; a worker that has found the word dry does not even ask it again at the same instant.
//!
//! - *Over-grant*: 0 bytes. All tokens that exist lie in the word or in a credit; the word holds at most burst − workers × most
//!   and a credit at most `most`, so together never more than the burst. Tokens come into being only by an exchange that moves
//!   the word's time forward, rate × the move, once. So between any two instants of the word's time all workers together
//!   give at most burst + rate × interval, however their clocks disagree. RFC 2698 and 4115 never need two buckets in one
//!   step: each packet asks them in the RFC's order and pays the first that decides.
//! - *Under-grant*: what lies in other workers' credits is out of a worker's reach, and the shared word runs over while
//!   credits are not full. Of the burst, that is at most (2 × workers - 1) × `most` bytes ([`Meter::under_grant_bytes`]) and at
//!   most a quarter of it, and 0 with one worker: all credits are spent and the word runs over, which loses up to workers × `most`;
//!   then all other workers borrow. `most` leaves 9,216 bytes unlent, so a packet that fits the burst of a small bucket still
//!   does. Of the rate it is nothing: a credit stays until its worker has spent it all, and the word runs over only while
//!   nobody asks it. Nothing is ever given back and nothing expires, so there is no scan, no timer, and no hand-off.
//! - *Late clocks*: a worker whose `now` is behind sees rate × lag less, for as long as it lags. These tokens are late, not lost.
//! - *Progress*: a failed exchange means that another worker's has succeeded; after 64 of them in one packet, that packet goes
//!   without tokens (an under-grant of its size, and of the overflow that it had for E). So there is no unbounded retry.
//! - *Ordering*: acquire and release on the word, which only RFC 2697's pair of buckets needs (`word.rs` says why). Credits are
//!   read by others for `status` only.
//! - *RFC 2697's overflow* moves from C to E in two steps. Whoever moved C's time owes it to E and pays at once; until
//!   then E is short of it and a packet may be red that would be yellow, never one that would be green. C runs over as soon as
//!   its shared word is full, also while credits are not. So of yellow (never of green) a worker can give up to one overflow,
//!   at most EBS, early or late; the total stays within CBS + EBS + CIR × time.
//!
//! # Reload
//!
//! A new meter on old buckets takes over the levels and credits, cut to the new bursts. The time since a bucket was last
//! taken from counts at the new rate, to the new burst at most; on a contract with traffic that is one packet's gap.
//!
//! # Deviations
//!
//! RFC 2697 and 2698 count rates in bytes/s; here all rates are in bit/s. The text of RFC 4115 asks for `Tc(t) - B > 0`,
//! its Figure 1 for `B <= Tc`; here a packet of exactly the level fits, as in the figure, the other two RFCs, and DPDK.

mod bucket;
#[cfg(all(test, loom))]
mod loom_tests;
mod profile;

pub use profile::{BURST_BYTES_MAX, Profile, ProfileError, RATE_BPS};

use crate::clock::Nanos;
use crate::word::UNITS_PER_BYTE;
use bucket::{Bucket, Credit, Fill, Loan, NoLoan, Own, Place, Shared, Sharers, instant, peek, units};
use profile::Kind;

/// What a meter says of a packet, and what an earlier one has said. Green is conforming; yellow and red are
/// nonconforming, red to be dropped first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Color {
    /// Inside the committed rate and burst.
    Green,
    /// Above the committed, inside the excess or peak.
    Yellow,
    /// Above both.
    Red,
}

/// One contract's meter: a [`Profile`] and the mode. Immutable; a reload makes a new one and uses it on the old state.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Meter {
    profile: Profile,
    color_aware: bool,
}

/// What one worker holds of a contract's tokens: all of them if it is the only worker, else what it has borrowed ahead.
/// Written by that worker alone.
#[derive(Debug)]
pub struct Purse {
    committed: Own,
    second: Own,
}

/// The tokens of a contract that several workers share: C in one word, the second bucket (E or P) in the other. On a cache
/// line of its own, so that contracts do not disturb each other.
#[derive(Debug)]
#[repr(align(64))]
pub struct Buckets {
    committed: Shared,
    second: Shared,
}

/// Shared buckets, and by how many workers they are shared.
#[derive(Clone, Copy, Debug)]
pub struct Sharing<'a> {
    buckets: &'a Buckets,
    sharers: Sharers,
}

/// How full the buckets are, for `status`, in whole bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Levels {
    /// C.
    pub committed_bytes: u64,
    /// E of RFC 2697 and 4115, P of RFC 2698; none in a token bucket.
    pub second_bytes: Option<u64>,
}

const _: () = assert!(size_of::<Meter>() <= 48);
#[cfg(not(loom))]
const _: () = assert!(size_of::<Buckets>() == 64);
#[cfg(not(loom))]
const _: () = assert!(
    size_of::<Purse>() == 32,
    "half a cache line: counters take the other half"
);

impl Purse {
    /// Full, whatever the burst of the first meter used on it.
    #[must_use]
    pub fn new() -> Self {
        Self {
            committed: Own::fresh(),
            second: Own::fresh(),
        }
    }
}

/// For asking what would be judged now, without taking anything. What is read may be of slightly different instants.
impl Purse {
    /// A purse with the same tokens.
    #[must_use]
    pub fn copied(&self) -> Self {
        Self {
            committed: self.committed.copied(),
            second: self.second.copied(),
        }
    }
}

impl Default for Purse {
    fn default() -> Self {
        Self::new()
    }
}

impl Buckets {
    /// Full, whatever the burst of the first meter used on them.
    #[must_use]
    pub fn new() -> Self {
        Self {
            committed: Shared::fresh(),
            second: Shared::fresh(),
        }
    }

    /// Buckets with the same tokens; see [`Purse::copied`].
    #[must_use]
    pub fn copied(&self) -> Self {
        Self {
            committed: self.committed.copied(),
            second: self.second.copied(),
        }
    }

    /// These buckets, shared by `workers` workers (more than one), each with a purse of its own.
    #[inline]
    #[must_use]
    pub fn among(&self, workers: usize) -> Sharing<'_> {
        Sharing {
            buckets: self,
            sharers: Sharers::new(workers),
        }
    }
}

impl Default for Buckets {
    fn default() -> Self {
        Self::new()
    }
}

impl Meter {
    /// A colour-blind meter takes every packet for green on arrival; a colour-aware one believes the arrived colour.
    #[must_use]
    pub fn new(profile: Profile, color_aware: bool) -> Self {
        Self { profile, color_aware }
    }

    /// The committed rate in bit/s.
    #[must_use]
    pub fn committed_rate_bps(&self) -> u64 {
        self.profile.committed.rate_bps
    }

    /// What a contract's burst can seem short of to one of `workers` workers, in bytes, because others hold it or because
    /// it has run over while they did not: the greater of its two buckets' bounds, rounded up.
    #[must_use]
    pub fn under_grant_bytes(&self, workers: usize) -> u64 {
        if workers < 2 {
            return 0;
        }
        let sharers = Sharers::new(workers);
        let out_of_reach = |fill: Fill| 2 * sharers.most_of_all(fill.full) - sharers.most(fill.full);
        let Profile { committed, second, .. } = self.profile;
        out_of_reach(committed)
            .max(out_of_reach(second))
            .div_ceil(UNITS_PER_BYTE)
    }

    /// The colour of a packet of `bytes` (of the counted layer) that came at `now` with the colour `arrived`; takes from
    /// `purse` what that colour costs. For the only worker there is.
    #[inline]
    #[must_use]
    pub fn color(&self, purse: &Purse, bytes: u32, now: Nanos, arrived: Color) -> Color {
        self.judge(&own(&purse.committed), &own(&purse.second), bytes, now, arrived)
    }

    /// The same for one of several workers, with its own `purse`.
    #[inline]
    #[must_use]
    pub fn color_shared(&self, sharing: Sharing<'_>, purse: &Purse, bytes: u32, now: Nanos, arrived: Color) -> Color {
        let Sharing { buckets, sharers } = sharing;
        let committed = Bucket {
            place: &buckets.committed,
            loan: Credit::new(&purse.committed, sharers),
        };
        let second = Bucket {
            place: &buckets.second,
            loan: Credit::new(&purse.second, sharers),
        };
        self.judge(&committed, &second, bytes, now, arrived)
    }

    /// Fills an only worker's `purse`, for a contract that begins. Control thread. If the worker is just then judging a packet
    /// by the contract that was there before, the purse is filled once or, at worst, left as it is.
    pub fn refill(&self, purse: &Purse) {
        purse.committed.refresh();
        purse.second.refresh();
    }

    /// The same for several workers, of whom these are all `purses`. Credits are filled to what this meter lends, so that a
    /// later one with larger bursts finds no more in those that were never used.
    pub fn refill_shared<'a>(&self, sharing: Sharing<'_>, purses: impl Iterator<Item = &'a Purse>) {
        let Sharing { buckets, sharers } = sharing;
        let Profile { committed, second, .. } = self.profile;
        buckets.committed.refresh();
        buckets.second.refresh();
        for purse in purses {
            Credit::new(&purse.committed, sharers).set(sharers.most(committed.full));
            Credit::new(&purse.second, sharers).set(sharers.most(second.full));
        }
    }

    /// Full buckets, rounded down to bytes.
    #[must_use]
    pub fn full(&self) -> Levels {
        self.rounded(self.profile.committed.full, self.profile.second.full)
    }

    /// Fills an only worker's `purse` to the `levels` that it had at `at`, in a process before this one. Before the worker runs.
    pub fn resume(&self, purse: &Purse, levels: Levels, at: Nanos) {
        let (committed, second) = in_units(levels);
        purse.committed.set(committed, instant(at));
        if let Some(second) = second {
            purse.second.set(second, instant(at));
        }
    }

    /// The same for several workers, of whom these are all `purses`: the word gets as much as it holds, the credits what
    /// is then left, in equal parts.
    pub fn resume_shared<'a>(
        &self,
        sharing: Sharing<'_>,
        purses: impl ExactSizeIterator<Item = &'a Purse>,
        levels: Levels,
        at: Nanos,
    ) {
        let Sharing { buckets, sharers } = sharing;
        let Profile { committed, second, .. } = self.profile;
        let workers = purses.len().max(1) as u64;
        let split = |fill: Fill, level: u64| {
            let unlent = level.min(fill.full - sharers.most_of_all(fill.full));
            (unlent, ((level - unlent) / workers).min(sharers.most(fill.full)))
        };
        let (level, second_level) = in_units(levels);
        let (unlent, credit) = split(committed, level);
        buckets.committed.set(unlent, instant(at));
        let second_split = second_level.map(|level| split(second, level));
        if let Some((unlent, _)) = second_split {
            buckets.second.set(unlent, instant(at));
        }
        for purse in purses {
            Credit::new(&purse.committed, sharers).set(credit);
            if let Some((_, credit)) = second_split {
                Credit::new(&purse.second, sharers).set(credit);
            }
        }
    }

    /// The levels of an only worker's `purse` at `now`, rounded down to bytes; takes nothing. While the worker runs, what is
    /// read may be of slightly different instants.
    #[must_use]
    pub fn levels(&self, purse: &Purse, now: Nanos) -> Levels {
        let Profile { committed, second, .. } = self.profile;
        let (committed, overflow) = peek(&purse.committed, committed, instant(now));
        let second = self.peek_second(&purse.second, second, overflow, now);
        self.rounded(committed, second)
    }

    /// The same for several workers, of whom these are all `purses`.
    #[must_use]
    pub fn levels_shared<'a>(
        &self,
        sharing: Sharing<'_>,
        purses: impl Iterator<Item = &'a Purse>,
        now: Nanos,
    ) -> Levels {
        let Profile { committed, second, .. } = self.profile;
        let Sharing { buckets, sharers } = sharing;
        let (mut lent_of_committed, mut lent_of_second) = (0, 0);
        for purse in purses {
            lent_of_committed += Credit::new(&purse.committed, sharers).left(committed.full);
            lent_of_second += Credit::new(&purse.second, sharers).left(second.full);
        }
        let unlent = |fill: Fill| fill.less(sharers.most_of_all(fill.full));
        let (committed, overflow) = peek(&buckets.committed, unlent(committed), instant(now));
        let second = self.peek_second(&buckets.second, unlent(second), overflow, now);
        self.rounded(committed + lent_of_committed, second + lent_of_second)
    }

    /// The second bucket's level at `now`, with RFC 2697's `overflow` that C has not handed over yet, as far as it has room.
    fn peek_second(&self, place: &impl Place, fill: Fill, overflow: u128, now: Nanos) -> u64 {
        let (level, _) = peek(place, fill, instant(now));
        match self.profile.kind {
            Kind::SrTcm => (u128::from(level) + overflow).min(u128::from(fill.full)) as u64,
            Kind::TokenBucket | Kind::TrTcm | Kind::TrTcm4115 => level,
        }
    }

    fn rounded(&self, committed: u64, second: u64) -> Levels {
        let has_second = self.profile.kind != Kind::TokenBucket;
        Levels {
            committed_bytes: committed / UNITS_PER_BYTE,
            second_bytes: has_second.then_some(second / UNITS_PER_BYTE),
        }
    }

    #[inline]
    fn judge<P: Place, L: Loan>(
        &self,
        committed: &Bucket<'_, P, L>,
        second: &Bucket<'_, P, L>,
        bytes: u32,
        now: Nanos,
        arrived: Color,
    ) -> Color {
        let arrived = if self.color_aware { arrived } else { Color::Green };
        let (need, now) = (units(bytes), instant(now));
        match self.profile.kind {
            Kind::TokenBucket => token_bucket(&self.profile, committed, need, now, arrived),
            Kind::SrTcm => sr_tcm(&self.profile, committed, second, need, now, arrived),
            Kind::TrTcm => tr_tcm(&self.profile, committed, second, need, now, arrived),
            Kind::TrTcm4115 => tr_tcm_4115(&self.profile, committed, second, need, now, arrived),
        }
    }
}

/// Levels in bit-nanoseconds. What does not fit is more than any burst.
fn in_units(levels: Levels) -> (u64, Option<u64>) {
    let units = |bytes: u64| bytes.saturating_mul(UNITS_PER_BYTE);
    (units(levels.committed_bytes), levels.second_bytes.map(units))
}

fn own(place: &Own) -> Bucket<'_, Own, NoLoan> {
    Bucket { place, loan: NoLoan }
}

/// Two colours: what fits is green, what does not is red, as RFC 2697 with an EBS of 0. Colour-aware, only what comes
/// green may stay green; the rest leaves as it came and takes nothing.
#[inline]
fn token_bucket<P: Place, L: Loan>(
    profile: &Profile,
    committed: &Bucket<'_, P, L>,
    need: u64,
    now: u64,
    arrived: Color,
) -> Color {
    match arrived {
        Color::Green if committed.take(profile.committed, now, need) => Color::Green,
        Color::Green => Color::Red,
        Color::Yellow | Color::Red => arrived,
    }
}

/// RFC 2697 section 3. Filling: "If Tc is less than CBS, Tc is incremented by one, else if Te is less then EBS, Te is
/// incremented by one, else neither Tc nor Te is incremented." So what runs over C goes to E, also while no packet is
/// green.
#[inline]
fn sr_tcm<P: Place, L: Loan>(
    profile: &Profile,
    committed: &Bucket<'_, P, L>,
    second: &Bucket<'_, P, L>,
    need: u64,
    now: u64,
    arrived: Color,
) -> Color {
    // "the packet is red and neither Tc nor Te is decremented"
    if arrived == Color::Red {
        return Color::Red;
    }
    // "If the packet has been precolored as green and Tc(t)-B >= 0, the packet is green and Tc is decremented by B down
    // to the minimum value of 0, else"
    let need_of_c = (arrived == Color::Green).then_some(need);
    let (green, overflow) = committed.take_or_settle(profile.committed, now, need_of_c);
    if green {
        if overflow > 0 {
            second.give_and_take(profile.second.full, now, overflow, None);
        }
        return Color::Green;
    }
    // "if the packet has been precolored as green or yellow and if Te(t)-B >= 0, the packets is yellow and Te is
    // decremented by B down to the minimum value of 0, else"
    if second.give_and_take(profile.second.full, now, overflow, Some(need)) {
        Color::Yellow
    } else {
        Color::Red
    }
}

/// RFC 2698 section 3. P is asked first and C second, and whoever passes P pays P: so the two buckets need no common
/// atomic step, and none is ever paid back.
#[inline]
fn tr_tcm<P: Place, L: Loan>(
    profile: &Profile,
    committed: &Bucket<'_, P, L>,
    second: &Bucket<'_, P, L>,
    need: u64,
    now: u64,
    arrived: Color,
) -> Color {
    // "If the packet has been precolored as red or if Tp(t)-B < 0, the packet is red, else"
    if arrived == Color::Red || !second.take(profile.second, now, need) {
        return Color::Red;
    }
    // "if the packet has been precolored as yellow or if Tc(t)-B < 0, the packet is yellow and Tp is decremented by B,
    // else the packet is green and both Tp and Tc are decremented by B."
    if arrived == Color::Green && committed.take(profile.committed, now, need) {
        Color::Green
    } else {
        Color::Yellow
    }
}

/// RFC 4115 section 3. A green packet pays C or E, never both.
#[inline]
fn tr_tcm_4115<P: Place, L: Loan>(
    profile: &Profile,
    committed: &Bucket<'_, P, L>,
    second: &Bucket<'_, P, L>,
    need: u64,
    now: u64,
    arrived: Color,
) -> Color {
    if arrived == Color::Green && committed.take(profile.committed, now, need) {
        return Color::Green;
    }
    if arrived != Color::Red && second.take(profile.second, now, need) {
        Color::Yellow
    } else {
        Color::Red
    }
}

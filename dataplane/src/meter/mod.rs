//! Meters: is this packet inside the entitlement?
//!
//! A [`Meter`] is numbers only, immutable, and part of a contract table. [`Buckets`] is the state, shared by all workers,
//! and outlives the table. [`Meter::color`] brings them together, once per packet, with the batch's `now`. What a packet's
//! size counts (IP packet, frame, or line) is for the caller; what follows from a colour is, too.
//!
//! # Exactness
//!
//! Levels are counted in bit-nanoseconds, in which a rate in bit/s times a time in ns is a whole number: nothing is
//! rounded, at any rate. One worker alone, whose clock does not go back, gives exactly the colours of the RFC with tokens
//! that accrue continuously. (The RFCs let whole tokens drip, at instants that they leave open.)
//!
//! # Many workers
//!
//! Each bucket is one 128-bit atomic word, changed by compare-and-exchange and by nothing else.
//!
//! - *Progress*: lock-free. A failed exchange means that another worker's has succeeded, so some worker always gets on. A
//!   packet costs one load and one exchange per bucket that it takes from; one that a bucket refuses costs one load.
//! - *Ordering*: acquire and release, which only RFC 2697's pair of buckets needs (`word.rs` says why).
//! - *Over-grant*: 0 bytes. The exchanges on a word are in one order, its time never goes back along this order, and each
//!   takes what is there. So between any two instants of a bucket's time it gives at most its burst + rate × interval,
//!   whatever the number of workers and however their clocks disagree. RFC 2698 and 4115 never need two buckets in one
//!   step: each packet asks them in the RFC's order and pays the first that decides.
//! - *Under-grant*: at most rate × (the lag of a worker's `now`), for as long as it lags, because a batch of packets has the
//!   time at which it was received. These tokens are late, not lost: the next `now` brings them.
//! - *RFC 2697's overflow* moves from C to E in two steps. Whoever moved C's time owes it to E and pays at once; until
//!   then E is short of it and a packet may be red that would be yellow, never one that would be green. An overflow paid
//!   late may also fit where E was full when it ran over. So of yellow (never of green) a worker can give up to one overflow,
//!   at most EBS, early or late; the total stays within CBS + EBS + CIR × time.
//!
//! # Reload
//!
//! A new meter on old buckets takes over the levels, cut to the new bursts. The time since a bucket was last taken from
//! counts at the new rate, to the new burst at most; on a contract with traffic that is one packet's gap.
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
use bucket::{Bucket, units};
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

/// One contract's meter: a [`Profile`] and the mode. Immutable; a reload makes a new one and uses it on the old
/// [`Buckets`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Meter {
    profile: Profile,
    color_aware: bool,
}

/// The state of one contract's meter, shared by all workers: C in one word, the second bucket (E or P) in the other. On a
/// cache line of its own, so that contracts do not disturb each other.
#[derive(Debug)]
#[repr(align(64))]
pub struct Buckets {
    committed: Bucket,
    second: Bucket,
}

/// How full the buckets are, for `status`, in whole bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Levels {
    /// C.
    pub committed_bytes: u64,
    /// E of RFC 2697 and 4115, P of RFC 2698; none in a token bucket.
    pub second_bytes: Option<u64>,
}

const _: () = assert!(size_of::<Meter>() <= 64);
#[cfg(not(loom))]
const _: () = assert!(size_of::<Buckets>() == 64);

impl Buckets {
    /// Full, whatever the burst of the first meter used on them.
    #[must_use]
    pub fn new() -> Self {
        Self {
            committed: Bucket::fresh(),
            second: Bucket::fresh(),
        }
    }

    /// Full again: for a contract that was away for some time and comes back.
    pub fn reset(&self) {
        self.committed.refresh();
        self.second.refresh();
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

    /// The colour of a packet of `bytes` (of the counted layer) that came at `now` with the colour `arrived`; takes from
    /// `buckets` what that colour costs.
    #[inline]
    #[must_use]
    pub fn color(&self, buckets: &Buckets, bytes: u32, now: Nanos, arrived: Color) -> Color {
        let arrived = if self.color_aware { arrived } else { Color::Green };
        match self.profile.kind {
            Kind::TokenBucket => token_bucket(&self.profile, buckets, units(bytes), now.0, arrived),
            Kind::SrTcm => sr_tcm(&self.profile, buckets, units(bytes), now.0, arrived),
            Kind::TrTcm => tr_tcm(&self.profile, buckets, units(bytes), now.0, arrived),
            Kind::TrTcm4115 => tr_tcm_4115(&self.profile, buckets, units(bytes), now.0, arrived),
        }
    }

    /// The levels at `now`, rounded down to bytes; takes nothing. The two are read one after the other: while workers
    /// run they may be of slightly different instants.
    #[must_use]
    pub fn levels(&self, buckets: &Buckets, now: Nanos) -> Levels {
        let Profile {
            kind,
            committed,
            second,
        } = self.profile;
        let (committed_level, overflow) = buckets.committed.peek(committed, now.0);
        let (second_level, _) = buckets.second.peek(second, now.0);
        let second_level = match kind {
            Kind::TokenBucket => None,
            Kind::SrTcm => Some((u128::from(second_level) + overflow).min(u128::from(second.full)) as u64),
            Kind::TrTcm | Kind::TrTcm4115 => Some(second_level),
        };
        Levels {
            committed_bytes: committed_level / UNITS_PER_BYTE,
            second_bytes: second_level.map(|level| level / UNITS_PER_BYTE),
        }
    }
}

/// Two colours: what fits is green, what does not is red, as RFC 2697 with an EBS of 0. Colour-aware, only what comes
/// green may stay green; the rest leaves as it came and takes nothing.
fn token_bucket(profile: &Profile, buckets: &Buckets, need: u64, now: u64, arrived: Color) -> Color {
    match arrived {
        Color::Green if buckets.committed.take(profile.committed, now, need) => Color::Green,
        Color::Green => Color::Red,
        Color::Yellow | Color::Red => arrived,
    }
}

/// RFC 2697 section 3. Filling: "If Tc is less than CBS, Tc is incremented by one, else if Te is less then EBS, Te is
/// incremented by one, else neither Tc nor Te is incremented." So what runs over C goes to E, also while no packet is
/// green.
fn sr_tcm(profile: &Profile, buckets: &Buckets, need: u64, now: u64, arrived: Color) -> Color {
    // "the packet is red and neither Tc nor Te is decremented"
    if arrived == Color::Red {
        return Color::Red;
    }
    // "If the packet has been precolored as green and Tc(t)-B >= 0, the packet is green and Tc is decremented by B down
    // to the minimum value of 0, else"
    let need_of_c = (arrived == Color::Green).then_some(need);
    let (green, overflow) = buckets.committed.take_or_settle(profile.committed, now, need_of_c);
    if green {
        if overflow > 0 {
            buckets.second.give_and_take(profile.second.full, now, overflow, None);
        }
        return Color::Green;
    }
    // "if the packet has been precolored as green or yellow and if Te(t)-B >= 0, the packets is yellow and Te is
    // decremented by B down to the minimum value of 0, else"
    if buckets
        .second
        .give_and_take(profile.second.full, now, overflow, Some(need))
    {
        Color::Yellow
    } else {
        Color::Red
    }
}

/// RFC 2698 section 3. P is asked first and C second, and whoever passes P pays P: so the two buckets need no common
/// atomic step, and none is ever paid back.
fn tr_tcm(profile: &Profile, buckets: &Buckets, need: u64, now: u64, arrived: Color) -> Color {
    // "If the packet has been precolored as red or if Tp(t)-B < 0, the packet is red, else"
    if arrived == Color::Red || !buckets.second.take(profile.second, now, need) {
        return Color::Red;
    }
    // "if the packet has been precolored as yellow or if Tc(t)-B < 0, the packet is yellow and Tp is decremented by B,
    // else the packet is green and both Tp and Tc are decremented by B."
    if arrived == Color::Green && buckets.committed.take(profile.committed, now, need) {
        Color::Green
    } else {
        Color::Yellow
    }
}

/// RFC 4115 section 3. A green packet pays C or E, never both.
fn tr_tcm_4115(profile: &Profile, buckets: &Buckets, need: u64, now: u64, arrived: Color) -> Color {
    if arrived == Color::Green && buckets.committed.take(profile.committed, now, need) {
        return Color::Green;
    }
    if arrived != Color::Red && buckets.second.take(profile.second, now, need) {
        Color::Yellow
    } else {
        Color::Red
    }
}

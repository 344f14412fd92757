//! CoDel (RFC 8289) for one ring: whether the packet at the head is sent, marked or dropped, given how long it waited.
//!
//! Owns the control state only, neither packets nor clock; runs on the worker that owns the ring. Differences from the
//! pseudo code of RFC 8289 section 5:
//! - It judges one head at a time instead of dequeuing in a loop, so that the scheduler may turn to another ring after
//!   a drop. What the loop would do to the following packet is remembered until that packet is judged.
//! - An ECN-capable packet is marked where it would have been dropped, and then sent; the control law steps as for a
//!   drop (RFC 8289 section 3, as RFC 8290 and Linux do it).
//! - The ring is never polled while empty. The last packet has nothing behind it, so judging it already resets what the
//!   poll would reset, and it is never the one that is dropped.
//!
//! The size of the judged packet plays no part (RFC 7141): only its waiting time and what is left behind it.
use std::mem::offset_of;

use crate::clock::Nanos;

/// Waiting time that is still acceptable: 5 ms (RFC 8289 section 4.3).
pub const TARGET: Nanos = Nanos(5_000_000);
/// The time the wait must stay above [`TARGET`] before the first drop: 100 ms, a long round trip (RFC 8289 section 4.3).
pub const INTERVAL: Nanos = Nanos(100_000_000);
/// With no more bytes than this left behind the head nothing is dropped: one full frame of a 1500-byte MTU in layer 1.
pub const MAX_PACKET_BYTES: u64 = 1538;

/// What becomes of the packet at the head of the ring.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Judgement {
    /// Send it as it is.
    Pass,
    /// Set congestion experienced, then send it.
    Mark,
    /// Drop it, and judge the next head before sending from this ring.
    Drop,
}

/// Control state of one ring; [`Default`] is a ring that has never been congested.
#[derive(Clone, Debug, Default)]
#[repr(C)]
pub struct Codel {
    /// Whether `first_above` or `dropping` is set (`after` only while dropping): if not, a packet that has not waited long
    /// changes nothing.
    alert: bool,
    dropping: bool,
    after: After,
    first_above: Option<Nanos>,
    drop_next: Nanos,
    count: u32,
    last_count: u32,
}

/// What the last drop leaves to be done when the next head is judged.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum After {
    #[default]
    Nothing,
    /// The first drop of a dropping state: the next packet is sent whatever its wait.
    First,
    /// A later drop: the control law steps if the next packet has waited too long as well.
    Later,
}

impl Codel {
    /// As many of its first bytes are touched for a packet that nothing special happens to.
    pub(crate) const HOT_BYTES: usize = offset_of!(Codel, alert) + 1;

    /// Judges the head: it has waited since `enqueued`, and `behind_bytes` stay in the ring without it. Call it exactly
    /// when the packet could be sent, and do what it says.
    #[inline]
    pub fn judge(&mut self, enqueued: Nanos, behind_bytes: u64, ecn_capable: bool, now: Nanos) -> Judgement {
        if now.since(enqueued) < TARGET && !self.alert {
            return Judgement::Pass;
        }
        let judgement = self.consider(enqueued, behind_bytes, ecn_capable, now);
        self.alert = self.first_above.is_some() || self.dropping;
        judgement
    }

    #[cold]
    fn consider(&mut self, enqueued: Nanos, behind_bytes: u64, ecn_capable: bool, now: Nanos) -> Judgement {
        let late = self.late(enqueued, behind_bytes, now);
        match std::mem::take(&mut self.after) {
            After::First => return Judgement::Pass,
            After::Later if late => self.drop_next = control_law(self.drop_next, self.count),
            After::Later | After::Nothing => {}
        }
        if !late {
            self.dropping = false;
            return Judgement::Pass;
        }
        if !self.dropping {
            return self.enter(ecn_capable, now);
        }
        if now < self.drop_next {
            return Judgement::Pass;
        }
        self.count = self.count.saturating_add(1);
        if ecn_capable {
            self.drop_next = control_law(self.drop_next, self.count);
            return Judgement::Mark;
        }
        self.after = After::Later;
        Judgement::Drop
    }

    fn late(&mut self, enqueued: Nanos, behind_bytes: u64, now: Nanos) -> bool {
        if now.since(enqueued) < TARGET || behind_bytes <= MAX_PACKET_BYTES {
            self.first_above = None;
            return false;
        }
        match self.first_above {
            Some(at) => now >= at,
            None => {
                self.first_above = Some(now.plus(INTERVAL));
                false
            }
        }
    }

    #[cold]
    fn enter(&mut self, ecn_capable: bool, now: Nanos) -> Judgement {
        self.dropping = true;
        let delta = self.count.saturating_sub(self.last_count);
        let recent = now.since(self.drop_next) < Nanos(16 * INTERVAL.0);
        self.count = if delta > 1 && recent { delta } else { 1 };
        self.drop_next = control_law(now, self.count);
        self.last_count = self.count;
        if ecn_capable {
            return Judgement::Mark;
        }
        self.after = After::First;
        Judgement::Drop
    }
}

/// The next drop: `INTERVAL / sqrt(count)` after `from`. Square roots of `f64` are exact to the last bit everywhere.
fn control_law(from: Nanos, count: u32) -> Nanos {
    from.plus(Nanos((INTERVAL.0 as f64 / f64::from(count.max(1)).sqrt()) as u64))
}

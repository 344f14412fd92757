//! Time as the packet path sees it: nanoseconds since some fixed origin, read once per batch and passed down as `now`.
//!
//! This is the only file that may read a clock (clippy forbids `Instant::now` elsewhere in this package). Everything
//! below a worker takes `now` as an argument, so tests and `weir replay` run the same code on invented time.

use std::sync::atomic::{AtomicU64, Ordering};

/// An instant or a duration in nanoseconds. The origin is the clock's own: boot for [`MonotonicClock`], whatever the
/// test chose for [`ManualClock`], the Unix epoch in a replayed capture.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Nanos(pub u64);

impl Nanos {
    /// One microsecond, millisecond and second.
    pub const MICROSECOND: Nanos = Nanos(1_000);
    /// One millisecond.
    pub const MILLISECOND: Nanos = Nanos(1_000_000);
    /// One second.
    pub const SECOND: Nanos = Nanos(1_000_000_000);

    /// The time from `earlier` to `self`; zero when the clock seems to have gone back.
    #[inline]
    #[must_use]
    pub fn since(self, earlier: Nanos) -> Nanos {
        Nanos(self.0.saturating_sub(earlier.0))
    }

    /// `self + delay`, stopping at the end of time (584 years) instead of wrapping.
    #[inline]
    #[must_use]
    pub fn plus(self, delay: Nanos) -> Nanos {
        Nanos(self.0.saturating_add(delay.0))
    }
}

/// A source of `now`. Never goes back.
pub trait Clock {
    /// The current instant.
    fn now(&self) -> Nanos;
}

/// The machine's `CLOCK_MONOTONIC`, in nanoseconds since boot: the clock that `bpf_ktime_get_ns` reads too, so that the XDP
/// program can compare a worker's heartbeat with its own time for as long as the box is up. A calibrated TSC would save
/// some 10 ns per batch and drift away from it.
#[derive(Clone, Copy, Debug, Default)]
pub struct MonotonicClock;

impl Clock for MonotonicClock {
    #[inline]
    fn now(&self) -> Nanos {
        // The call cannot fail: CLOCK_MONOTONIC exists on every Linux and needs no privilege.
        let now = nix::time::clock_gettime(nix::time::ClockId::CLOCK_MONOTONIC)
            .unwrap_or(nix::sys::time::TimeSpec::new(0, 0));
        Nanos(now.tv_sec() as u64 * 1_000_000_000 + now.tv_nsec() as u64)
    }
}

/// A clock that stands still until it is set. Shared by reference between a test and what it tests.
#[derive(Debug, Default)]
pub struct ManualClock(AtomicU64);

impl ManualClock {
    /// Starts at `now`.
    #[must_use]
    pub fn new(now: Nanos) -> Self {
        Self(AtomicU64::new(now.0))
    }

    /// Moves the clock to `now`; a move back is ignored, because a clock never goes back.
    pub fn set(&self, now: Nanos) {
        self.0.fetch_max(now.0, Ordering::Relaxed);
    }

    /// Moves the clock on by `delay`.
    pub fn advance(&self, delay: Nanos) {
        self.0.fetch_add(delay.0, Ordering::Relaxed);
    }
}

impl Clock for ManualClock {
    fn now(&self) -> Nanos {
        Nanos(self.0.load(Ordering::Relaxed))
    }
}

impl<C: Clock + ?Sized> Clock for &C {
    #[inline]
    fn now(&self) -> Nanos {
        (**self).now()
    }
}

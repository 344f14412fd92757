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

/// The machine's monotonic clock (`CLOCK_MONOTONIC` scaled from the TSC by `quanta`), in nanoseconds since it was made.
#[derive(Clone, Debug)]
pub struct MonotonicClock {
    clock: quanta::Clock,
    origin: quanta::Instant,
}

impl MonotonicClock {
    /// Calibrates against the system clock: takes up to 200 ms the first time in a process.
    #[must_use]
    pub fn new() -> Self {
        let clock = quanta::Clock::new();
        let origin = clock.now();
        Self { clock, origin }
    }
}

impl Default for MonotonicClock {
    fn default() -> Self {
        Self::new()
    }
}

impl Clock for MonotonicClock {
    #[inline]
    fn now(&self) -> Nanos {
        let elapsed = self.clock.now().duration_since(self.origin);
        Nanos(elapsed.as_nanos() as u64)
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

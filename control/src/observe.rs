//! What the appliance did over the last second and the last minute: rates of contracts and ports, turns of workers, and how
//! long packets waited in the priority rings.
//!
//! Owned by the control thread, which reads all counters once a second and keeps a few of these readings: the last two, and
//! one for every ten seconds of the last minute. A rate is the difference of two readings over the time between them, so it
//! is as exact as the counters. Nothing here is written by, or waited for, a worker. 40 bytes for each contract and
//! reading: 36 MB for 100,000 contracts.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::{Duration, Instant};

use dataplane::cells::{Cells, SlotId};
use dataplane::priority::{Half, MAX_CLASSES, RingId};
use dataplane::sojourn::{RingReading, Waits};
use dataplane::stats::{Amount, DropReason};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::report::Count;

/// Time between two readings.
const SECOND: Duration = Duration::from_secs(1);
/// Time between the readings that the last minute is cut into.
const STEP: Duration = Duration::from_secs(10);
/// What "the last minute" covers at least, once weir has run for so long; at most a [`STEP`] more.
const MINUTE: Duration = Duration::from_secs(60);

/// Rates of one contract in the counted layer, over one window. Bits per second, rounded down.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Rate {
    /// Conforming and nonconforming together.
    pub offered_bps: u64,
    /// Judged inside the entitlement.
    pub conforming_bps: u64,
    /// Judged above it.
    pub nonconforming_bps: u64,
    /// Dropped, for whatever reason.
    pub dropped_bps: u64,
    /// Of those, conforming.
    pub conforming_dropped_bps: u64,
    /// Conforming packets dropped within the window (a number, not a rate: a single one matters).
    pub conforming_dropped_packets: u64,
}

/// Rates over the two windows.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Rates {
    /// Over the last second.
    pub last_second: Rate,
    /// Over the last minute.
    pub last_minute: Rate,
}

/// How many seconds the windows really are. 0: there is no second reading yet, and all rates are 0.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Windows {
    /// About 1.
    pub last_second: f64,
    /// 60 to 71 once weir has run for a minute, before that what there is.
    pub last_minute: f64,
}

/// All that is read at one instant.
#[derive(Clone, Debug)]
pub struct Reading {
    /// When.
    pub at: Instant,
    /// By slot.
    pub contracts: Vec<Totals>,
    /// Sent, in frame bytes, by the port's number.
    pub ports: Vec<Amount>,
    /// By worker.
    pub workers: Vec<WorkerTotals>,
    /// Rings that have carried anything.
    pub rings: Vec<Ring>,
}

/// The counters of one contract, summed over the workers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Totals {
    conforming_bytes: u64,
    nonconforming_bytes: u64,
    dropped_bytes: u64,
    conforming_dropped: Count,
}

impl Totals {
    /// As the counters are now.
    #[must_use]
    pub fn read(cells: &Cells, slot: SlotId) -> Self {
        let mut sum = Self::default();
        for worker in (0..cells.workers()).map(|worker| cells.of(worker)) {
            let (cell, excess) = (worker.cell(slot), worker.excess(slot));
            let dropped = DropReason::ALL.iter().map(|reason| excess.dropped(*reason).get().bytes);
            sum.dropped_bytes += dropped.sum::<u64>();
            sum.conforming_dropped = sum.conforming_dropped + excess.conforming_dropped.get().into();
            sum.nonconforming_bytes += cell.nonconforming.get().bytes;
            sum.conforming_bytes += cell.conforming.get().bytes;
        }
        sum
    }

    fn rate_since(&self, before: &Totals, seconds: f64) -> Rate {
        let bps = |now: u64, before: u64| per_second(now.saturating_sub(before) * 8, seconds);
        let conforming = self.conforming_bytes.saturating_sub(before.conforming_bytes);
        let nonconforming = self.nonconforming_bytes.saturating_sub(before.nonconforming_bytes);
        Rate {
            offered_bps: bps(conforming + nonconforming, 0),
            conforming_bps: bps(conforming, 0),
            nonconforming_bps: bps(nonconforming, 0),
            dropped_bps: bps(self.dropped_bytes, before.dropped_bytes),
            conforming_dropped_bps: bps(self.conforming_dropped.bytes, before.conforming_dropped.bytes),
            conforming_dropped_packets: self
                .conforming_dropped
                .packets
                .saturating_sub(before.conforming_dropped.packets),
        }
    }
}

/// What a worker has done.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct WorkerTotals {
    /// Turns of its loop.
    pub turns: u64,
    /// Packets received in all its lanes, both ways.
    pub packets: u64,
}

/// One priority ring of a port, all workers together.
#[derive(Clone, Debug)]
pub struct Ring {
    /// The sending port's number.
    pub port: usize,
    /// Which half.
    pub half: Half,
    /// The class's ring.
    pub ring: RingId,
    /// What was read of it.
    pub reading: RingReading,
}

impl Ring {
    fn is(&self, other: &Ring) -> bool {
        (self.port, self.half, self.ring) == (other.port, other.half, other.ring)
    }

    /// Waits since this ring was read in `before`; all of them if it was not in use then.
    #[must_use]
    pub fn waits_since(&self, before: &[Ring]) -> Waits {
        let then = before.iter().find(|other| self.is(other));
        let waits = &self.reading.waits;
        then.map_or_else(|| waits.clone(), |then| waits.since(&then.reading.waits))
    }

    /// All rings there can be at a port.
    pub(crate) fn all() -> impl Iterator<Item = (Half, RingId)> {
        let rings = (0..MAX_CLASSES).filter_map(|slot| RingId::new(u8::try_from(slot).ok()?));
        rings.flat_map(|ring| [Half::Conforming, Half::Nonconforming].map(|half| (half, ring)))
    }
}

/// The readings that are kept; a copy shares them.
#[derive(Clone, Debug, Default)]
pub struct Observer {
    latest: Option<Arc<Reading>>,
    previous: Option<Arc<Reading>>,
    /// Oldest first, a [`STEP`] apart; only the oldest may be more than a minute old.
    minute: VecDeque<Arc<Reading>>,
}

impl Observer {
    /// Whether it is time for the next reading.
    #[must_use]
    pub fn is_due(&self, now: Instant) -> bool {
        let age = self
            .latest
            .as_ref()
            .map(|latest| now.saturating_duration_since(latest.at));
        age.is_none_or(|age| age >= SECOND)
    }

    /// Keeps a reading.
    pub fn take(&mut self, reading: Reading) {
        let reading = Arc::new(reading);
        let age = |old: &Arc<Reading>| reading.at.saturating_duration_since(old.at);
        if self.minute.back().is_none_or(|newest| age(newest) >= STEP) {
            self.minute.push_back(reading.clone());
        }
        while self.minute.get(1).is_some_and(|second| age(second) >= MINUTE) {
            self.minute.pop_front();
        }
        self.previous = self.latest.replace(reading);
    }

    /// The newest reading.
    #[must_use]
    pub fn latest(&self) -> Option<&Reading> {
        self.latest.as_deref()
    }

    /// The reading a second before the newest; `None` as long as there is only one.
    #[must_use]
    pub fn second_ago(&self) -> Option<&Reading> {
        self.previous.as_deref()
    }

    /// The reading a minute before the newest, or the oldest; `None` as long as there is only one.
    #[must_use]
    pub fn minute_ago(&self) -> Option<&Reading> {
        self.previous.as_ref()?;
        self.minute.front().map(|reading| &**reading)
    }

    /// How long the windows are.
    #[must_use]
    pub fn windows(&self) -> Windows {
        Windows {
            last_second: self.seconds_since(self.second_ago()),
            last_minute: self.seconds_since(self.minute_ago()),
        }
    }

    /// Rates of what judges under this slot. Zero where there is nothing to compare, as with a contract that is new.
    #[must_use]
    pub fn rates(&self, slot: SlotId) -> Rates {
        let at = |reading: &Reading| reading.contracts.get(slot.0 as usize).copied();
        let Some(now) = self.latest().and_then(at) else {
            return Rates::default();
        };
        let rate = |before: Option<&Reading>| {
            // What is not in an older reading began after it, from nothing.
            let then = before.and_then(at).unwrap_or_default();
            before.map_or(Rate::default(), |_| now.rate_since(&then, self.seconds_since(before)))
        };
        Rates {
            last_second: rate(self.second_ago()),
            last_minute: rate(self.minute_ago()),
        }
    }

    /// Packets and frame bytes that a port sent within a window, and the seconds of it.
    #[must_use]
    pub fn sent(&self, port: usize, since: Option<&Reading>) -> (Amount, f64) {
        let at = |reading: &Reading| reading.ports.get(port).copied().unwrap_or_default();
        let (Some(now), Some(before)) = (self.latest(), since) else {
            return (Amount::default(), 0.0);
        };
        let (now, then) = (at(now), at(before));
        let amount = Amount {
            packets: now.packets.saturating_sub(then.packets),
            bytes: now.bytes.saturating_sub(then.bytes),
        };
        (amount, self.seconds_since(since))
    }

    /// What a worker did over the last second; `None`: not known yet.
    #[must_use]
    pub fn worker(&self, worker: usize) -> Option<(WorkerTotals, f64)> {
        let before = self.second_ago()?;
        let (now, then) = (self.latest()?.workers.get(worker)?, before.workers.get(worker)?);
        let done = WorkerTotals {
            turns: now.turns.saturating_sub(then.turns),
            packets: now.packets.saturating_sub(then.packets),
        };
        Some((done, self.seconds_since(Some(before))))
    }

    fn seconds_since(&self, before: Option<&Reading>) -> f64 {
        let (Some(now), Some(before)) = (self.latest(), before) else {
            return 0.0;
        };
        now.at.saturating_duration_since(before.at).as_secs_f64()
    }
}

/// Rounded down; 0 where no time has passed.
#[must_use]
pub fn per_second(amount: u64, seconds: f64) -> u64 {
    if seconds > 0.0 {
        (amount as f64 / seconds) as u64
    } else {
        0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn reading(at: Instant, seconds: u64) -> Reading {
        let totals = Totals {
            conforming_bytes: 1_000 * seconds,
            nonconforming_bytes: 500 * seconds.saturating_sub(100),
            dropped_bytes: 250 * seconds.saturating_sub(100),
            conforming_dropped: Count {
                packets: seconds / 100,
                bytes: seconds / 100 * 60,
            },
        };
        Reading {
            at: at + Duration::from_secs(seconds),
            contracts: vec![Totals::default(), totals],
            ports: vec![Amount {
                packets: seconds,
                bytes: 100 * seconds,
            }],
            workers: vec![WorkerTotals {
                turns: 10 * seconds,
                packets: 5 * seconds,
            }],
            rings: Vec::new(),
        }
    }

    #[test]
    fn rates_are_differences_over_the_time_between() {
        let start = Instant::now();
        let mut observer = Observer::default();
        for second in 0..=130 {
            assert!(observer.is_due(start + Duration::from_secs(second)));
            observer.take(reading(start, second));
            let Windows {
                last_second,
                last_minute,
            } = observer.windows();
            assert_eq!(last_second, if second == 0 { 0.0 } else { 1.0 });
            let least = (second as f64).min(60.0);
            assert!((least..least + 11.0).contains(&last_minute), "{second}: {last_minute}");
            assert!(observer.minute.len() <= 8);
        }
        let rates = observer.rates(SlotId(1));
        let second = Rate {
            offered_bps: 12_000,
            conforming_bps: 8_000,
            nonconforming_bps: 4_000,
            dropped_bps: 2_000,
            ..Rate::default()
        };
        assert_eq!(rates.last_second, second);
        assert_eq!(rates.last_minute.conforming_bps, 8_000);
        assert_eq!(rates.last_minute.conforming_dropped_packets, 1);
        // Thirty seconds of excess in a window of a minute.
        let window = observer.windows().last_minute;
        assert_eq!(rates.last_minute.nonconforming_bps, (30.0 * 4_000.0 / window) as u64);
        assert_eq!(observer.rates(SlotId(0)), Rates::default());
        assert_eq!(
            observer.rates(SlotId(9)),
            Rates::default(),
            "a slot that nobody has read"
        );
        let (sent, seconds) = observer.sent(0, observer.second_ago());
        assert_eq!((sent.packets, sent.bytes, seconds), (1, 100, 1.0));
        assert_eq!(
            observer.worker(0).map(|(done, _)| (done.turns, done.packets)),
            Some((10, 5))
        );
    }

    #[test]
    fn one_reading_is_no_rate() {
        let mut observer = Observer::default();
        assert_eq!((observer.windows(), observer.rates(SlotId(1))), Default::default());
        observer.take(reading(Instant::now(), 5));
        assert_eq!((observer.windows(), observer.rates(SlotId(1))), Default::default());
        assert_eq!(observer.worker(0), None);
    }
}

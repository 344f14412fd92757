//! When each packet of a capture is due, and waiting until then.

use std::thread;
use std::time::Duration;

use dataplane::clock::{Clock, ManualClock, MonotonicClock, Nanos};
use serde::Serialize;

use crate::rate::Layer;

use super::ReplayError;

/// How fast packets go.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Timing {
    /// The gaps of the capture, divided by `speed`: 2.0 is twice as fast. Above 0.
    Original {
        /// The divisor.
        speed: f64,
    },
    /// One packet each 1/rate seconds, whatever the capture says. Above 0.
    PacketsPerSecond(f64),
    /// As many bits each second. A packet is due when the bits before it have had their time.
    BitsPerSecond {
        /// Bits per second, above 0.
        rate: f64,
        /// Which bytes count.
        layer: Layer,
    },
    /// No waiting at all.
    AsFastAsPossible,
}

/// Bytes that a bit rate counts of a packet of `packet_bytes` (from the Ethernet header on, without FCS) with `tags` VLAN
/// tags.
pub(super) fn counted(layer: Layer, packet_bytes: usize, tags: usize) -> usize {
    match layer {
        Layer::L1 => packet_bytes + 24,
        Layer::L2 => packet_bytes + 4,
        Layer::L3 => packet_bytes.saturating_sub(14 + 4 * tags),
    }
}

impl Timing {
    pub(super) fn validate(self) -> Result<(), ReplayError> {
        let (name, value) = match self {
            Self::Original { speed } => ("speed", speed),
            Self::PacketsPerSecond(rate) => ("packet rate", rate),
            Self::BitsPerSecond { rate, .. } => ("bit rate", rate),
            Self::AsFastAsPossible => return Ok(()),
        };
        // Slower than one packet in 30 years, or faster than any clock tells.
        if (1e-9..=1e15).contains(&value) {
            return Ok(());
        }
        Err(ReplayError::Options(format!(
            "the {name} {value} is out of range: it must be above 0 (1e-9 to 1e15)"
        )))
    }
}

/// Turns the timestamps of one pass over a capture into positions that never go back.
///
/// Packets that several queues recorded are out of order by microseconds: those go with the latest one before, and the
/// gap after them is measured from that one too, so that the pass does not grow longer. A step back of more than
/// [`CLOCK_STEP_NS`] is a clock that was set, and gaps are measured from there on. Either way the packet that goes back
/// has gap 0.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct CaptureTime {
    latest: Option<u64>,
    position: u64,
}

/// More than queues of an interface ever differ, less than anybody sets a clock by.
const CLOCK_STEP_NS: u64 = 1_000_000_000;

impl CaptureTime {
    /// The position of the next packet in nanoseconds since the first one, and whether its timestamp ran backwards.
    pub(super) fn next(&mut self, at: u64) -> (u64, bool) {
        let latest = *self.latest.get_or_insert(at);
        if at >= latest {
            self.position = self.position.saturating_add(at - latest);
            self.latest = Some(at);
            return (self.position, false);
        }
        if latest - at > CLOCK_STEP_NS {
            self.latest = Some(at);
        }
        (self.position, true)
    }
}

/// When packets are due, in nanoseconds since the start.
#[derive(Clone, Debug)]
pub(super) struct Schedule {
    timing: Timing,
    origin: u64,
    /// Packets and bytes given out since the origin.
    packets: u64,
    bytes: u64,
}

impl Schedule {
    pub(super) fn new(timing: Timing) -> Self {
        Self {
            timing,
            origin: 0,
            packets: 0,
            bytes: 0,
        }
    }

    /// When a packet at `position` of the pass is due. As fast as possible everything is due at once.
    pub(super) fn due(&self, position: u64) -> Nanos {
        let after = match self.timing {
            Timing::Original { speed } => scaled(position, speed),
            // Floating-point numbers tell nanoseconds for 104 days, and round by less than the clock after that.
            Timing::PacketsPerSecond(rate) => (self.packets as f64 * 1e9 / rate) as u64,
            Timing::BitsPerSecond { rate, .. } => (self.bytes as f64 * 8e9 / rate) as u64,
            Timing::AsFastAsPossible => 0,
        };
        Nanos(self.origin.saturating_add(after))
    }

    /// A packet of which `bytes` count was given out.
    pub(super) fn given(&mut self, bytes: u32) {
        self.packets += 1;
        self.bytes += u64::from(bytes);
    }

    /// Begins another pass. `last` is when the last packet of the one before was due, `last_position` its position,
    /// `mean_gap` the mean of the capture's gaps; `stated` the gap to leave if not the mean.
    pub(super) fn next_pass(&mut self, last: Nanos, last_position: u64, mean_gap: u64, stated: Option<Nanos>) {
        match (stated, self.timing) {
            (Some(gap), Timing::Original { .. }) => self.origin = self.due(last_position).plus(gap).0,
            (Some(gap), _) => {
                self.origin = last.plus(gap).0;
                (self.packets, self.bytes) = (0, 0);
            }
            (None, Timing::Original { speed }) => {
                self.origin = self.due(last_position).0.saturating_add(scaled(mean_gap, speed));
            }
            // A fixed rate goes on as if the capture did.
            (None, _) => {}
        }
    }
}

/// Exact at the speed of the capture.
fn scaled(nanoseconds: u64, speed: f64) -> u64 {
    if speed == 1.0 {
        nanoseconds
    } else {
        (nanoseconds as f64 / speed) as u64
    }
}

/// A clock that one can wait for.
pub trait Timer: Clock {
    /// Lets time pass until `due`, or a part of it; `now` is what the clock said.
    fn rest(&self, now: Nanos, due: Nanos);
}

impl Timer for MonotonicClock {
    fn rest(&self, now: Nanos, due: Nanos) {
        let idle = due.since(now);
        if idle > SLEEP_MARGIN {
            let sleep = Nanos(idle.0 - SLEEP_MARGIN.0).min(SLEEP_MAX);
            thread::sleep(Duration::from_nanos(sleep.0));
        } else {
            std::hint::spin_loop();
        }
    }
}

/// Time passes by waiting only.
impl Timer for ManualClock {
    fn rest(&self, _now: Nanos, due: Nanos) {
        self.set(due);
    }
}

/// What a sleep may be late by on an ordinary kernel (50 µs of timer slack and a wake-up): this long before a packet is
/// due the thread spins.
const SLEEP_MARGIN: Nanos = Nanos(100_000);
/// How soon a stop is noticed.
const SLEEP_MAX: Nanos = Nanos(1_000_000);

#[cfg(test)]
mod tests {
    use super::*;

    fn positions(times: &[u64]) -> Vec<(u64, bool)> {
        let mut time = CaptureTime::default();
        times.iter().map(|&at| time.next(at)).collect()
    }

    #[test]
    fn positions_never_go_back() {
        assert_eq!(positions(&[7, 7, 9]), [(0, false), (0, false), (2, false)]);
        // Out of order by little: no time is added.
        assert_eq!(
            positions(&[100, 99, 101, 101]),
            [(0, false), (0, true), (1, false), (1, false)]
        );
        // A clock that was set back: the gaps behind the step count.
        let hour = 3_600_000_000_000;
        assert_eq!(
            positions(&[hour, 5, 8, hour + 8]),
            [(0, false), (0, true), (3, false), (hour + 3, false)]
        );
        assert_eq!(positions(&[u64::MAX, 0, u64::MAX])[2], (u64::MAX, false));
    }

    #[test]
    fn dues_follow_the_timing() {
        let due = |timing, packets: &[u32], position| {
            let mut schedule = Schedule::new(timing);
            packets.iter().for_each(|&bytes| schedule.given(bytes));
            schedule.due(position).0
        };
        assert_eq!(due(Timing::Original { speed: 1.0 }, &[60], u64::MAX - 1), u64::MAX - 1);
        assert_eq!(due(Timing::Original { speed: 2.0 }, &[60], 1001), 500);
        assert_eq!(due(Timing::Original { speed: 0.5 }, &[60], 7), 14);
        assert_eq!(due(Timing::PacketsPerSecond(3.0), &[60, 60], 99), 666_666_666);
        let bits = Timing::BitsPerSecond {
            rate: 1e9,
            layer: Layer::L2,
        };
        assert_eq!(due(bits, &[125, 1000], 99), 9_000);
        assert_eq!(due(Timing::AsFastAsPossible, &[1, 2], 99), 0);
    }

    #[test]
    fn passes_follow_at_the_mean_gap_or_the_stated_one() {
        let mut original = Schedule::new(Timing::Original { speed: 2.0 });
        original.next_pass(Nanos(50), 100, 20, None);
        assert_eq!(original.due(0).0, 50 + 10);
        original.next_pass(original.due(100), 100, 20, Some(Nanos(1_000)));
        assert_eq!(original.due(0).0, 60 + 50 + 1_000);
        let mut fixed = Schedule::new(Timing::PacketsPerSecond(1e9));
        fixed.given(60);
        fixed.next_pass(Nanos(0), 0, 0, None);
        assert_eq!(fixed.due(0).0, 1);
        fixed.next_pass(Nanos(0), 0, 0, Some(Nanos(70)));
        assert_eq!(fixed.due(0).0, 70);
    }

    #[test]
    fn impossible_rates_are_refused() {
        for value in [0.0, -1.0, f64::NAN, f64::INFINITY, 1e-300, 1e300] {
            assert!(Timing::Original { speed: value }.validate().is_err());
            assert!(Timing::PacketsPerSecond(value).validate().is_err());
        }
        assert!(Timing::PacketsPerSecond(14.88e6).validate().is_ok());
    }
}

//! Rate over time, and from it the exact instant of each packet.
//!
//! A [`Plan`] is what an operator writes; with the frames and the line known it becomes a [`Schedule`], in integers; and
//! [`Schedule::instants`] yields when each packet is due, in constant time, without allocation.
//!
//! ```text
//! plan     = part *( ";" part ) [ ";" "repeat" ]
//! part     = RATE [ DURATION ]                                     one rate
//!          | "ramp" RATE ".." RATE DURATION                        from one to the other in a straight line
//!          | "step" RATE DURATION *( "," RATE [ DURATION ] )       one rate after the other
//!          | "burst" COUNT "packets" [ "at" RATE ] "every" DURATION [ "for" DURATION ]
//!          | "on" RATE DURATION "off" DURATION [ "for" DURATION ]
//!          | "idle" DURATION
//! RATE     = as in `rate`; an end of a ramp may be 0
//! DURATION = a number and ns, us, ms, s, min or h: a whole number of nanoseconds
//! ```
//!
//! A part without an end lasts for ever and so must be the last. When all parts have ended the schedule has, or begins
//! anew with `repeat`. Packets of a burst are due at one instant, or `at` a rate.
//!
//! # What is exact
//!
//! Rates are integers of 10^-6 packets per second, and the integral of the rate over time is kept without rounding across
//! parts and repeats: packet `k` is due at the last instant at which fewer than `k` packets' worth and no more had been
//! reached, rounded down to the nanosecond. In any span from 0 the number of packets is the integral, rounded up. Bursts
//! of a count stand beside the integral: they begin with their part, and leave it as it was.

mod instants;
mod plan;
mod segment;

#[cfg(test)]
mod tests;

use std::cmp::Ordering;
use std::sync::Arc;

use dataplane::clock::Nanos;

pub use instants::Instants;
pub use plan::{Part, Plan, PlanError};

use crate::rate::{LineRate, MeanFrame, Rate, RateError};
use segment::{Kind, PACKET, Ramp, Segment};

/// Rates over time, resolved to integers. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Schedule {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    /// Never empty; each begins where the one before ended.
    segments: Vec<Segment>,
    /// Length of one pass in nanoseconds; `ENDLESS` if the last segment has no end.
    length: u64,
    /// Work (see `segment`) and packets in bursts of one pass.
    work: u128,
    bursts: u64,
    repeats: bool,
}

/// The instants of one of several senders.
pub type Share = std::iter::StepBy<std::iter::Skip<Instants>>;

/// Why a plan has no instants.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub enum ScheduleError {
    /// A rate that cannot be turned into packets per second.
    #[error(transparent)]
    Rate(#[from] RateError),
    /// `max` has no instants.
    #[error("\"max\" has no schedule: it can only stand alone, as the whole rate")]
    Max,
    /// A rate outside of what is kept exactly.
    #[error("a rate of {pps} packets per second is out of range: 0.000001 to 1000000000")]
    Range {
        /// Packets per second.
        pps: f64,
    },
    /// A ramp whose integral does not fit.
    #[error(
        "a ramp from {from_pps} to {to_pps} packets per second over {seconds} s cannot be kept exactly: round the rates to whole packets per second and the time to whole seconds, or split the ramp"
    )]
    Ramp {
        /// Packets per second at its beginning.
        from_pps: f64,
        /// Packets per second at its end.
        to_pps: f64,
        /// Its length.
        seconds: f64,
    },
    /// A burst that is not over when the next begins.
    #[error(
        "a burst of {packets} packets at {pps} packets per second lasts longer than its period of {period_ns} ns: shorten it or raise its rate"
    )]
    Burst {
        /// Packets of a burst.
        packets: u64,
        /// Packets per second within it.
        pps: f64,
        /// Nanoseconds from one burst to the next.
        period_ns: u64,
    },
    /// Silence for ever.
    #[error("the schedule sends no packet at all")]
    Silent,
    /// More than 584 years.
    #[error("the schedule is longer than 2^63 ns (292 years)")]
    Length,
}

impl Plan {
    /// The plan in integers, for frames that are `frame` on average and a line of `line`, if stated.
    ///
    /// # Errors
    /// A rate that cannot be resolved or is out of range; `max`; a plan that cannot be kept exactly or sends nothing.
    pub fn schedule(&self, frame: MeanFrame, line: Option<LineRate>) -> Result<Schedule, ScheduleError> {
        let micro_pps = |rate: Rate| -> Result<u64, ScheduleError> {
            let pps = rate.load(frame, line)?.pps.ok_or(ScheduleError::Max)?;
            to_micro_pps(pps)
        };
        let mut segments = Vec::with_capacity(self.parts().len());
        for part in self.parts() {
            segments.push((part.duration().map(|d| d.0), kind_of(part, micro_pps)?));
        }
        Schedule::assemble(segments, self.repeats())
    }

    /// A sentence for the operator if the stated line cannot carry a rate of the plan.
    #[must_use]
    pub fn warning(&self, frame: MeanFrame, line: LineRate) -> Option<String> {
        let loads = self
            .parts()
            .iter()
            .flat_map(Part::rates)
            .filter_map(|rate| rate.load(frame, Some(line)).ok());
        let highest = loads.max_by(|a, b| {
            a.over_line_percent
                .partial_cmp(&b.over_line_percent)
                .unwrap_or(Ordering::Equal)
        });
        highest.and_then(|load| load.warning())
    }
}

impl Schedule {
    /// One rate for ever, in packets per second.
    ///
    /// # Errors
    /// Out of range: 10^-6 to 10^9.
    pub fn constant(pps: f64) -> Result<Self, ScheduleError> {
        let twice_rate = 2 * to_micro_pps(pps)?;
        Self::assemble(vec![(None, Kind::Constant { twice_rate })], false)
    }

    fn assemble(kinds: Vec<(Option<u64>, Kind)>, repeats: bool) -> Result<Self, ScheduleError> {
        let mut inner = Inner {
            segments: Vec::with_capacity(kinds.len()),
            length: 0,
            work: 0,
            bursts: 0,
            repeats,
        };
        let mut sends = false;
        for (duration, kind) in kinds {
            let segment = Segment {
                start: inner.length,
                duration: duration.unwrap_or(ENDLESS),
                work_before: inner.work,
                bursts_before: inner.bursts,
                kind,
            };
            sends |= segment.kind.work(segment.duration) > 0 || segment.kind.bursts(segment.duration) > 0;
            if duration.is_some() {
                inner.work += segment.kind.work(segment.duration);
                inner.bursts += segment.kind.bursts(segment.duration);
            }
            let end = segment.start.saturating_add(segment.duration);
            inner.length = if duration.is_some() { end } else { ENDLESS };
            if duration.is_some() && end > LENGTH_MAX {
                return Err(ScheduleError::Length);
            }
            inner.segments.push(segment);
        }
        if !sends {
            return Err(ScheduleError::Silent);
        }
        Ok(Self { inner: Arc::new(inner) })
    }

    /// When each packet is due, from the first on, as offsets from the start.
    #[must_use]
    pub fn instants(&self) -> Instants {
        Instants::new(Arc::clone(&self.inner))
    }

    /// The instants of one of several senders that take turns: packets `share`, `share + of` and so on, `of` being 1 or
    /// more. Each walks through all instants, some nanoseconds of work for each.
    pub fn instants_of(&self, share: usize, of: usize) -> Share {
        self.instants().skip(share).step_by(of.max(1))
    }

    /// When packet `k`, from 0, is due; `None` if the schedule ends before. A search among the parts: for one packet of
    /// many use [`instants`](Self::instants).
    #[must_use]
    pub fn instant(&self, k: u64) -> Option<Nanos> {
        let inner = &*self.inner;
        let pass = if inner.repeats { inner.pass_of(k) } else { 0 };
        let (work, bursts) = (u128::from(pass) * inner.work, pass * inner.bursts);
        let first = |segment: &Segment| inner.packets(work + segment.work_before, bursts + segment.bursts_before);
        let index = inner
            .segments
            .partition_point(|segment| first(segment) <= k)
            .checked_sub(1)?;
        let segment = &inner.segments[index];
        let offset = match segment.kind {
            Kind::Burst { .. } => segment.kind.burst_instant(k - first(segment)),
            _ => {
                let flow_index = k - bursts - segment.bursts_before;
                segment.kind.flow_instant(
                    u128::from(flow_index) * PACKET - (work + segment.work_before),
                    segment.duration,
                )
            }
        };
        if offset >= segment.duration {
            return None;
        }
        let pass_start = if pass == 0 { 0 } else { pass.checked_mul(inner.length)? };
        pass_start.checked_add(segment.start)?.checked_add(offset).map(Nanos)
    }

    /// How many packets are due before `instant`: exact.
    #[must_use]
    pub fn packets_before(&self, instant: Nanos) -> u64 {
        let inner = &*self.inner;
        let (pass, at) = match inner.repeats {
            true => (instant.0 / inner.length, instant.0 % inner.length),
            false => (0, instant.0),
        };
        let index = inner
            .segments
            .partition_point(|segment| segment.start <= at)
            .saturating_sub(1);
        let segment = &inner.segments[index];
        let offset = (at - segment.start).min(segment.duration);
        let work = u128::from(pass) * inner.work + segment.work_before + segment.kind.work(offset);
        inner.packets(
            work,
            pass * inner.bursts + segment.bursts_before + segment.kind.bursts(offset),
        )
    }

    /// How many packets are due in `from..to`: exact.
    #[must_use]
    pub fn packets_between(&self, from: Nanos, to: Nanos) -> u64 {
        self.packets_before(to).saturating_sub(self.packets_before(from))
    }

    /// When the schedule ends; `None` if never.
    #[must_use]
    pub fn end(&self) -> Option<Nanos> {
        (!self.inner.repeats && self.inner.length != ENDLESS).then_some(Nanos(self.inner.length))
    }

    /// Packets per second asked for at `instant`; of bursts the mean over their period. For plots: the instants do not
    /// come from it.
    #[must_use]
    pub fn pps_at(&self, instant: Nanos) -> f64 {
        let inner = &*self.inner;
        let at = if inner.repeats {
            instant.0 % inner.length
        } else {
            instant.0
        };
        let index = inner
            .segments
            .partition_point(|segment| segment.start <= at)
            .saturating_sub(1);
        let segment = &inner.segments[index];
        let offset = at - segment.start;
        if offset >= segment.duration {
            0.0
        } else {
            segment.kind.pps_at(offset)
        }
    }

    /// The highest rate there is, packets per second; of bursts the mean over their period.
    #[must_use]
    pub fn peak_pps(&self) -> f64 {
        let ends = |s: &Segment| s.kind.pps_at(0).max(s.kind.pps_at(s.duration.saturating_sub(1)));
        self.inner.segments.iter().map(ends).fold(0.0, f64::max)
    }
}

impl Inner {
    /// Packets that `work` and bursts make: the integral, rounded up.
    fn packets(&self, work: u128, bursts: u64) -> u64 {
        u64::try_from(work.div_ceil(PACKET))
            .unwrap_or(u64::MAX)
            .saturating_add(bursts)
    }

    /// The pass in which packet `k` is: the last that begins with no more than `k` packets sent.
    fn pass_of(&self, k: u64) -> u64 {
        let begins = |pass: u64| {
            let pass = u128::from(pass);
            (pass * self.work).div_ceil(PACKET) + pass * u128::from(self.bursts)
        };
        let (mut low, mut high) = (0, LENGTH_MAX / self.length.max(1) + 1);
        while high - low > 1 {
            let middle = low + (high - low) / 2;
            if begins(middle) <= u128::from(k) {
                low = middle;
            } else {
                high = middle;
            }
        }
        low
    }
}

fn kind_of(part: &Part, mut micro_pps: impl FnMut(Rate) -> Result<u64, ScheduleError>) -> Result<Kind, ScheduleError> {
    Ok(match *part {
        Part::Idle { .. } => Kind::Idle,
        Part::Constant { rate, .. } => Kind::Constant {
            twice_rate: 2 * micro_pps(rate)?,
        },
        Part::OnOff { rate, on, off, .. } => Kind::OnOff {
            twice_rate: 2 * micro_pps(rate)?,
            on: on.0,
            period: on.0.checked_add(off.0).ok_or(ScheduleError::Length)?,
        },
        Part::Burst { packets, at, every, .. } => {
            let twice_rate = at.map(&mut micro_pps).transpose()?.map_or(0, |rate| 2 * rate);
            // At most 10^9 packets a second here too: sums of packets then fit 64 bits.
            if packets > every.0 {
                return Err(ScheduleError::Range {
                    pps: packets as f64 * 1e9 / every.0 as f64,
                });
            }
            let kind = Kind::Burst {
                packets,
                twice_rate,
                period: every.0,
            };
            if kind.burst_instant(packets - 1) >= every.0 {
                return Err(ScheduleError::Burst {
                    packets,
                    pps: twice_rate as f64 / 2e6,
                    period_ns: every.0,
                });
            }
            kind
        }
        Part::Ramp { from, to, duration } => {
            let mut end = |rate: Option<Rate>| rate.map_or(Ok(0), &mut micro_pps);
            let (from, to) = (end(from)?, end(to)?);
            match Ramp::new(from, to, duration.0) {
                _ if from == to && from == 0 => Kind::Idle,
                _ if from == to => Kind::Constant { twice_rate: 2 * from },
                Some(ramp) => Kind::Ramp(ramp),
                None => {
                    return Err(ScheduleError::Ramp {
                        from_pps: from as f64 / 1e6,
                        to_pps: to as f64 / 1e6,
                        seconds: duration.0 as f64 / 1e9,
                    });
                }
            }
        }
    })
}

fn to_micro_pps(pps: f64) -> Result<u64, ScheduleError> {
    let micro = (pps * 1e6).round();
    if (1.0..=MICRO_PPS_MAX).contains(&micro) {
        Ok(micro as u64)
    } else {
        Err(ScheduleError::Range { pps })
    }
}

/// A billion packets a second, past any port; the arithmetic of `segment` has its bounds from it.
const MICRO_PPS_MAX: f64 = 1e15;
/// The length of a part that never ends.
const ENDLESS: u64 = u64::MAX;
/// 292 years, so that sums of two lengths do not wrap.
const LENGTH_MAX: u64 = 1 << 63;

//! The instants of a schedule's packets, one after the other.
//!
//! Within a part of one rate the next instant is a sum of two integers with the remainder kept; on a ramp it is a root and
//! two products. What a part leaves undone of the next packet is handed to the next part.

use std::sync::Arc;

use dataplane::clock::Nanos;

use super::segment::{Kind, PACKET, PACKET_U64, Ramp};
use super::{ENDLESS, Inner};

/// When each packet is due: offsets from the start, never falling. Ends if the schedule does.
#[derive(Clone, Debug)]
pub struct Instants {
    schedule: Arc<Inner>,
    /// The segment that runs, and when it and its pass began.
    index: usize,
    start: u64,
    pass_start: u64,
    duration: u64,
    running: Running,
    ended: bool,
}

/// The next packet of the running segment: its offset, and what is needed for the one after it.
#[derive(Clone, Copy, Debug)]
enum Running {
    Idle {
        /// Work that is missing to the next packet; less than one packet's, as in all that follow.
        missing: u64,
    },
    Even(Even),
    /// `even` counts the time in which the part is on. `end` is when the current on-time ends in it, and `gaps` the time
    /// it was off until then.
    OnOff {
        even: Even,
        end: u64,
        gaps: u64,
        on: u64,
        off: u64,
    },
    Ramp(Climb),
    Burst {
        missing: u64,
        /// Where the burst that runs began, and its packets before the next.
        begin: u64,
        sent: u64,
        even: Even,
        packets: u64,
        period: u64,
    },
}

/// Equal distances: time and remainder, in units of 1/rate nanoseconds.
#[derive(Clone, Copy, Debug)]
struct Even {
    time: u64,
    rest: u64,
    step: u64,
    step_rest: u64,
    twice_rate: u64,
}

impl Even {
    /// The first when `missing` work is done. `twice_rate` 0: all at once.
    fn new(twice_rate: u64, missing: u64) -> Self {
        let divisor = twice_rate.max(1);
        let (step, step_rest) = if twice_rate == 0 {
            (0, 0)
        } else {
            (PACKET_U64 / divisor, PACKET_U64 % divisor)
        };
        Self {
            time: missing / divisor,
            rest: missing % divisor,
            step,
            step_rest,
            twice_rate,
        }
    }

    #[inline]
    fn advance(&mut self) {
        self.time = self.time.saturating_add(self.step);
        // Both are below 2 * 10^15.
        self.rest += self.step_rest;
        if self.rest >= self.twice_rate.max(1) {
            self.rest -= self.twice_rate;
            self.time = self.time.saturating_add(1);
        }
    }

    /// The work that the next packet stands for.
    fn work(&self) -> u128 {
        u128::from(self.time) * u128::from(self.twice_rate) + u128::from(self.rest)
    }
}

/// The next packet of a ramp. Work is q-fold (see `segment`).
#[derive(Clone, Copy, Debug)]
struct Climb {
    ramp: Ramp,
    /// Work of the whole ramp, and of one packet.
    whole: i128,
    step: i128,
    /// Work of the next packet, and its offset, or ENDLESS if that is past the end.
    target: i128,
    offset: u64,
    /// From the packet before.
    gap: u64,
}

impl Climb {
    fn new(ramp: Ramp, missing: u64, duration: u64) -> Self {
        let target = ramp.scaled(u128::from(missing));
        let whole = ramp.at(duration);
        Self {
            ramp,
            whole,
            step: PACKET as i128 * ramp.scale(),
            target,
            offset: if target >= whole {
                ENDLESS
            } else {
                ramp.instant(target, 0)
            },
            gap: 0,
        }
    }

    #[inline]
    fn advance(&mut self, duration: u64) {
        self.target += self.step;
        if self.target >= self.whole {
            self.offset = ENDLESS;
            return;
        }
        // From one packet to the next the gap changes by less than a nanosecond but at the beginning of a ramp from 0.
        let near = self
            .ramp
            .near(self.target, self.offset, self.gap.min(duration - self.offset));
        let next = near.unwrap_or_else(|| self.ramp.instant(self.target, self.offset));
        self.gap = next - self.offset;
        self.offset = next;
    }
}

impl Instants {
    pub(super) fn new(schedule: Arc<Inner>) -> Self {
        let mut instants = Self {
            schedule,
            index: 0,
            start: 0,
            pass_start: 0,
            duration: 0,
            running: Running::Idle { missing: 0 },
            ended: false,
        };
        instants.enter(0);
        instants
    }

    /// Begins segment `self.index` with `missing` work to the next packet.
    fn enter(&mut self, missing: u64) {
        let Some(segment) = self.schedule.segments.get(self.index) else {
            self.ended = true;
            return;
        };
        self.start = self.pass_start.saturating_add(segment.start);
        self.duration = segment.duration;
        self.running = match segment.kind {
            Kind::Idle => Running::Idle { missing },
            Kind::Constant { twice_rate } => Running::Even(Even::new(twice_rate, missing)),
            Kind::OnOff { twice_rate, on, period } => {
                let even = Even::new(twice_rate, missing);
                let (end, gaps) = on_time_of(even.time, on, period - on);
                Running::OnOff {
                    even,
                    end,
                    gaps,
                    on,
                    off: period - on,
                }
            }
            Kind::Burst {
                packets,
                twice_rate,
                period,
            } => Running::Burst {
                missing,
                begin: 0,
                sent: 0,
                even: Even::new(twice_rate, 0),
                packets,
                period,
            },
            Kind::Ramp(ramp) => Running::Ramp(Climb::new(ramp, missing, segment.duration)),
        };
    }

    /// Goes on to the next segment, or pass.
    #[cold]
    fn leave(&mut self) {
        if self.duration == ENDLESS {
            self.ended = true;
            return;
        }
        let mut missing = self.running.missing_at(self.duration);
        self.index += 1;
        if self.index == self.schedule.segments.len() && self.schedule.repeats {
            self.index = 0;
            let mut passes = 1;
            // Passes that do not even fill the next packet are skipped at once: a slow rate over short passes would
            // otherwise walk through millions of them.
            if self.schedule.bursts == 0 {
                let empty = u128::from(missing) / self.schedule.work.max(1);
                missing -= (empty * self.schedule.work) as u64;
                passes += empty as u64;
            }
            match passes
                .checked_mul(self.schedule.length)
                .and_then(|time| self.pass_start.checked_add(time))
            {
                Some(start) => self.pass_start = start,
                None => self.ended = true,
            }
        }
        if !self.ended {
            self.enter(missing);
        }
    }
}

impl Iterator for Instants {
    type Item = Nanos;

    #[inline]
    fn next(&mut self) -> Option<Nanos> {
        // Ends: every pass has a packet or is skipped, so this walks each segment of the schedule at most twice.
        while !self.ended {
            let offset = self.running.offset();
            if offset < self.duration {
                self.running.advance(self.duration);
                return self.start.checked_add(offset).map(Nanos);
            }
            self.leave();
        }
        None
    }
}

impl Running {
    /// When the next packet is due.
    #[inline]
    fn offset(&self) -> u64 {
        match self {
            Running::Even(even) => even.time,
            Running::OnOff { even, gaps, .. } => even.time.saturating_add(*gaps),
            Running::Ramp(climb) => climb.offset,
            Running::Burst { begin, even, .. } => begin.saturating_add(even.time),
            Running::Idle { .. } => ENDLESS,
        }
    }

    #[inline]
    fn advance(&mut self, duration: u64) {
        match self {
            Running::Even(even) => even.advance(),
            Running::OnOff {
                even,
                end,
                gaps,
                on,
                off,
            } => {
                even.advance();
                if even.time >= *end {
                    (*end, *gaps) = on_time_of(even.time, *on, *off);
                }
            }
            Running::Ramp(climb) => climb.advance(duration),
            Running::Burst {
                begin,
                sent,
                even,
                packets,
                period,
                ..
            } => {
                even.advance();
                *sent += 1;
                if sent == packets {
                    *sent = 0;
                    *begin = begin.saturating_add(*period);
                    *even = Even::new(even.twice_rate, 0);
                }
            }
            Running::Idle { .. } => {}
        }
    }

    /// The work missing to the next packet when the segment ends, its length being `duration`. The next packet is then
    /// past the end, so nothing is negative, and less than one packet is missing.
    fn missing_at(&self, duration: u64) -> u64 {
        match self {
            Running::Idle { missing } | Running::Burst { missing, .. } => *missing,
            Running::Even(even) => (even.work() - u128::from(even.twice_rate) * u128::from(duration)) as u64,
            Running::OnOff { even, on, off, .. } => {
                let period = on + off;
                let kind = Kind::OnOff {
                    twice_rate: even.twice_rate,
                    on: *on,
                    period,
                };
                (even.work() - kind.work(duration)) as u64
            }
            Running::Ramp(climb) => ((climb.target - climb.whole) / climb.ramp.scale()) as u64,
        }
    }
}

/// In which on-time `time` (counted while on) falls: when that ends, and the time off before it.
fn on_time_of(time: u64, on: u64, off: u64) -> (u64, u64) {
    let before = time / on;
    ((before + 1).saturating_mul(on), before.saturating_mul(off))
}

//! The arithmetic of one part: work done by a time, and the time by which work is done.
//!
//! *Work* is the integral of the rate: rates are in 10^-6 packets per second and time in 10^-9 seconds, so one packet is
//! 10^15 of their products; all is doubled, because a ramp's mean is half a sum. With rates up to 2^50 and times up to
//! 2^64 the work stays below 2^115.

/// The work of one packet.
pub(super) const PACKET: u128 = PACKET_U64 as u128;
pub(super) const PACKET_U64: u64 = 2_000_000_000_000_000;

#[derive(Debug)]
pub(super) struct Segment {
    /// Nanoseconds from the beginning of the pass.
    pub(super) start: u64,
    pub(super) duration: u64,
    /// Work and packets in bursts of the pass before this segment.
    pub(super) work_before: u128,
    pub(super) bursts_before: u64,
    pub(super) kind: Kind,
}

/// `twice_rate` is in 2 * 10^-6 packets per second, at most 2 * 10^15; times are nanoseconds.
#[derive(Clone, Copy, Debug)]
pub(super) enum Kind {
    Idle,
    Constant {
        twice_rate: u64,
    },
    Ramp(Ramp),
    OnOff {
        twice_rate: u64,
        on: u64,
        period: u64,
    },
    /// `twice_rate` within the burst; 0: all at once.
    Burst {
        packets: u64,
        twice_rate: u64,
        period: u64,
    },
}

impl Kind {
    /// Work done in the first `offset` nanoseconds.
    pub(super) fn work(&self, offset: u64) -> u128 {
        match *self {
            Kind::Idle | Kind::Burst { .. } => 0,
            Kind::Constant { twice_rate } => u128::from(twice_rate) * u128::from(offset),
            Kind::OnOff { twice_rate, on, period } => {
                let on_time = u128::from(offset / period) * u128::from(on) + u128::from((offset % period).min(on));
                u128::from(twice_rate) * on_time
            }
            Kind::Ramp(ramp) => ramp.work(offset),
        }
    }

    /// Packets of bursts due in the first `offset` nanoseconds.
    pub(super) fn bursts(&self, offset: u64) -> u64 {
        let Kind::Burst {
            packets,
            twice_rate,
            period,
        } = *self
        else {
            return 0;
        };
        let in_last = match (offset % period, twice_rate) {
            (0, _) => 0,
            (_, 0) => packets,
            (rest, _) => (u128::from(rest) * u128::from(twice_rate))
                .div_ceil(PACKET)
                .min(u128::from(packets)) as u64,
        };
        (offset / period).saturating_mul(packets).saturating_add(in_last)
    }

    /// The last whole nanosecond at which no more than `work` is done; `duration` or more if that is past the end.
    pub(super) fn flow_instant(&self, work: u128, duration: u64) -> u64 {
        let saturated = |time: u128| u64::try_from(time).unwrap_or(u64::MAX);
        match *self {
            Kind::Idle | Kind::Burst { .. } => u64::MAX,
            Kind::Constant { twice_rate } => saturated(work / u128::from(twice_rate)),
            Kind::OnOff { twice_rate, on, period } => {
                let on_time = work / u128::from(twice_rate);
                saturated(on_time + on_time / u128::from(on) * u128::from(period - on))
            }
            Kind::Ramp(ramp) if work >= ramp.work(duration) => u64::MAX,
            Kind::Ramp(ramp) => ramp.instant(ramp.scaled(work), 0),
        }
    }

    /// When packet `j` of this part's bursts is due.
    pub(super) fn burst_instant(&self, j: u64) -> u64 {
        let Kind::Burst {
            packets,
            twice_rate,
            period,
        } = *self
        else {
            return u64::MAX;
        };
        let within = match twice_rate {
            0 => 0,
            _ => u64::try_from(u128::from(j % packets) * PACKET / u128::from(twice_rate)).unwrap_or(u64::MAX),
        };
        (j / packets).saturating_mul(period).saturating_add(within)
    }

    pub(super) fn pps_at(&self, offset: u64) -> f64 {
        match *self {
            Kind::Idle => 0.0,
            Kind::Constant { twice_rate } => twice_rate as f64 / 2e6,
            Kind::OnOff { twice_rate, on, period } => {
                if offset % period < on {
                    twice_rate as f64 / 2e6
                } else {
                    0.0
                }
            }
            Kind::Burst { packets, period, .. } => packets as f64 * 1e9 / period as f64,
            Kind::Ramp(ramp) => ramp.slope_at(offset) as f64 / ramp.scale as f64 / 2e6,
        }
    }
}

/// A ramp from rate a to b over T: work(t) = 2at + (b - a)t²/T. With (b - a)/T = p/q in lowest terms all is kept q-fold:
/// q * work(t) = 2aq t + p t², in integers.
#[derive(Clone, Copy, Debug)]
pub(super) struct Ramp {
    /// 2aq
    linear: i128,
    /// p
    quadratic: i128,
    /// q
    scale: i128,
    duration: u64,
}

impl Ramp {
    /// Rates in 10^-6 packets per second, that differ; `None` if the products would not fit 127 bits.
    pub(super) fn new(from: u64, to: u64, duration: u64) -> Option<Self> {
        let common = greatest_common_divisor(from.abs_diff(to), duration).max(1);
        let scale = i128::from(duration / common);
        let quadratic = (i128::from(to) - i128::from(from)) / i128::from(common);
        let linear = (2 * i128::from(from)).checked_mul(scale)?;
        // The largest of all products is 2 * rate * T * q; a packet more is added to the work, and a slope is twice it.
        let work_max = (2 * i128::from(from.max(to))).checked_mul(i128::from(duration))?;
        work_max
            .checked_add(2 * PACKET as i128)?
            .checked_mul(scale)?
            .checked_mul(4)?;
        Some(Self {
            linear,
            quadratic,
            scale,
            duration,
        })
    }

    /// q-fold work.
    pub(super) fn scaled(&self, work: u128) -> i128 {
        // Callers have checked that the work is less than the whole ramp's, or a packet more than that.
        i128::try_from(work).unwrap_or(i128::MAX).saturating_mul(self.scale)
    }

    pub(super) fn work(&self, offset: u64) -> u128 {
        let offset = offset.min(self.duration);
        if offset == self.duration {
            // (a + b)T is whole; before the end the quotient is rounded up, as the count of packets is.
            return (self.at(offset) / self.scale) as u128;
        }
        (self.at(offset) as u128).div_ceil(self.scale as u128)
    }

    /// q-fold work at `offset`.
    #[inline]
    pub(super) fn at(&self, offset: u64) -> i128 {
        let offset = i128::from(offset);
        (self.linear + self.quadratic * offset) * offset
    }

    #[inline]
    fn slope_at(&self, offset: u64) -> i128 {
        self.linear + 2 * self.quadratic * i128::from(offset)
    }

    pub(super) fn scale(&self) -> i128 {
        self.scale
    }

    /// The rates at both ends, 10^-6 packets per second.
    #[cfg(test)]
    pub(super) fn ends(&self) -> (i128, i128) {
        let end = self.linear + 2 * self.quadratic * i128::from(self.duration);
        (self.linear / self.scale / 2, end / self.scale / 2)
    }

    /// As [`instant`](Self::instant), looked for within a few nanoseconds of `since` + `gap`, which is not past the end:
    /// six products instead of a root. `None`: not there.
    #[inline]
    pub(super) fn near(&self, target: i128, since: u64, gap: u64) -> Option<u64> {
        let slope = self.slope_at(since);
        let missing = target - self.at(since);
        // Work done in the gap, and in the nanosecond after it: both change by products with small numbers only.
        let wide = i128::from(gap);
        let mut done = (slope + self.quadratic * wide) * wide;
        let mut next = slope + self.quadratic * (2 * wide + 1);
        let mut at = since + gap;
        for _ in 0..NEAR_STEPS {
            if done > missing {
                // The work at `since` is no more than the target, so `at` stays above `since`.
                next -= 2 * self.quadratic;
                done -= next;
                at -= 1;
            } else if done + next <= missing {
                // The work at the end is more than the target, so `at` stays below the end.
                done += next;
                next += 2 * self.quadratic;
                at += 1;
            } else {
                return Some(at);
            }
        }
        None
    }

    /// The last nanosecond at which no more than `target` (q-fold work, less than the whole ramp's) is done, searched
    /// from `since`, which is not after it.
    ///
    /// The root in floating point is off by less than a nanosecond but where a ramp starts or ends at 0; integers then
    /// decide, in steps that double, so that a bad guess costs little and cannot matter.
    #[inline]
    pub(super) fn instant(&self, target: i128, since: u64) -> u64 {
        let slope = self.slope_at(since) as f64;
        let missing = (target - self.at(since)) as f64;
        let root = (slope * slope + 4.0 * self.quadratic as f64 * missing).max(0.0).sqrt();
        // NaN (0 / 0) becomes 0.
        let guess = since
            .saturating_add((2.0 * missing / (slope + root)) as u64)
            .min(self.duration - 1);
        let (mut low, mut high, mut step) = (guess, guess, 1);
        if self.at(guess) <= target {
            while high < self.duration {
                high = low.saturating_add(step).min(self.duration);
                if self.at(high) > target {
                    break;
                }
                low = high;
                step *= 2;
            }
        } else {
            while low > since {
                low = high.saturating_sub(step).max(since);
                if self.at(low) <= target {
                    break;
                }
                high = low;
                step *= 2;
            }
        }
        while high - low > 1 {
            let middle = low + (high - low) / 2;
            if self.at(middle) <= target {
                low = middle;
            } else {
                high = middle;
            }
        }
        low
    }
}

/// Packets of a ramp are a nanosecond or two from where the last gap puts them; where more, the root is quicker.
const NEAR_STEPS: usize = 6;

fn greatest_common_divisor(mut a: u64, mut b: u64) -> u64 {
    while b != 0 {
        (a, b) = (b, a % b);
    }
    a
}

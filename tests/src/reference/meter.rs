//! Meters in exact rational arithmetic and continuous time.
//!
//! A bucket holds a rational number of bytes and fills continuously at its rate; nothing is ever rounded. Buckets start
//! full, and their time starts with the first packet; a contract renewed under another period is a new one and starts
//! full too. Deviations and choices:
//!
//! - RFC 4115 contradicts itself at equality (the text has `Tc - B > 0`, its figure 1 `B <= Tc`); here as in the figure.
//! - The plain token bucket knows no yellow of its own. Colour-aware, only a packet that arrives green may be green; any
//!   other stays as it came and takes nothing.

use num_bigint::BigInt;
use num_rational::BigRational;

/// The colours of the RFCs; green is conforming, the others are not.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Colour {
    /// Within the committed rate and burst.
    Green,
    /// Above it, within the excess or peak.
    Yellow,
    /// Above everything.
    Red,
}

/// The numbers of a meter. Rates are bits per second, bursts bytes, both of the counted layer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Profile {
    /// One rate, one bucket.
    TokenBucket {
        /// Filling rate.
        rate_bps: u64,
        /// Depth.
        burst_bytes: u64,
    },
    /// RFC 2697: one rate fills the committed bucket, and what that cannot hold fills the excess bucket.
    SrTcm {
        /// Committed information rate.
        rate_bps: u64,
        /// Committed burst size.
        burst_bytes: u64,
        /// Excess burst size.
        excess_burst_bytes: u64,
    },
    /// RFC 2698: committed and peak bucket, a green packet takes from both.
    TrTcm {
        /// Committed information rate.
        rate_bps: u64,
        /// Committed burst size.
        burst_bytes: u64,
        /// Peak information rate, at least the committed one.
        peak_rate_bps: u64,
        /// Peak burst size.
        peak_burst_bytes: u64,
    },
    /// RFC 4115: committed and excess bucket, independent of each other.
    TrTcm4115 {
        /// Committed information rate.
        rate_bps: u64,
        /// Committed burst size.
        burst_bytes: u64,
        /// Excess information rate.
        excess_rate_bps: u64,
        /// Excess burst size.
        excess_burst_bytes: u64,
    },
}

/// A meter with its state.
#[derive(Clone, Debug)]
pub struct Meter {
    profile: Profile,
    color_aware: bool,
    committed: BigRational,
    second: BigRational,
    at_ns: Option<u64>,
}

impl Meter {
    /// A meter whose buckets are full.
    pub fn new(profile: Profile, color_aware: bool) -> Self {
        let (committed, second) = depths(&profile);
        Self {
            profile,
            color_aware,
            committed: bytes(committed),
            second: bytes(second),
            at_ns: None,
        }
    }

    /// Colours a packet of `length_bytes` that arrives at `now_ns` with the colour `arrived` (ignored when colour-blind).
    ///
    /// An instant before the last one counts as the last one: time does not run backwards.
    pub fn colour(&mut self, now_ns: u64, length_bytes: u64, arrived: Colour) -> Colour {
        self.fill(now_ns);
        let arrived = if self.color_aware { arrived } else { Colour::Green };
        let length = bytes(length_bytes);
        match self.profile {
            Profile::TokenBucket { .. } => self.token_bucket(&length, arrived),
            Profile::SrTcm { .. } => self.srtcm(&length, arrived),
            Profile::TrTcm { .. } => self.trtcm(&length, arrived),
            Profile::TrTcm4115 { .. } => self.trtcm_4115(&length, arrived),
        }
    }

    fn token_bucket(&mut self, length: &BigRational, arrived: Colour) -> Colour {
        if arrived != Colour::Green {
            return arrived;
        }
        if length <= &self.committed {
            self.committed -= length;
            return Colour::Green;
        }
        Colour::Red
    }

    /// RFC 2697 section 3, whose colour-blind mode is the colour-aware one with every packet green.
    fn srtcm(&mut self, length: &BigRational, arrived: Colour) -> Colour {
        // "If the packet has been precolored as green and Tc(t)-B >= 0, the packet is green and Tc is decremented by B"
        if arrived == Colour::Green && length <= &self.committed {
            self.committed -= length;
            return Colour::Green;
        }
        // "Else if the packet has been precolored as green or yellow and if Te(t)-B >= 0, the packets is yellow and Te
        // is decremented by B"
        if arrived != Colour::Red && length <= &self.second {
            self.second -= length;
            return Colour::Yellow;
        }
        // "Else the packet is red and neither Tc nor Te is decremented."
        Colour::Red
    }

    /// RFC 2698 section 3.
    fn trtcm(&mut self, length: &BigRational, arrived: Colour) -> Colour {
        // "If the packet has been precolored as red or if Tp(t)-B < 0, the packet is red"
        if arrived == Colour::Red || length > &self.second {
            return Colour::Red;
        }
        self.second -= length;
        // "if the packet has been precolored as yellow or if Tc(t)-B < 0, the packet is yellow and Tp is decremented by B"
        if arrived == Colour::Yellow || length > &self.committed {
            return Colour::Yellow;
        }
        // "else the packet is green and both Tp and Tc are decremented by B."
        self.committed -= length;
        Colour::Green
    }

    /// RFC 4115 figure 1.
    fn trtcm_4115(&mut self, length: &BigRational, arrived: Colour) -> Colour {
        if arrived == Colour::Green && length <= &self.committed {
            self.committed -= length;
            return Colour::Green;
        }
        if arrived != Colour::Red && length <= &self.second {
            self.second -= length;
            return Colour::Yellow;
        }
        Colour::Red
    }

    fn fill(&mut self, now_ns: u64) {
        let last_ns = self.at_ns.unwrap_or(now_ns);
        let elapsed_ns = now_ns.saturating_sub(last_ns);
        self.at_ns = Some(now_ns.max(last_ns));
        let (committed_depth, second_depth) = depths(&self.profile);
        let (committed_depth, second_depth) = (bytes(committed_depth), bytes(second_depth));
        match self.profile {
            Profile::TokenBucket { rate_bps, .. } => {
                self.committed = committed_depth.min(&self.committed + arriving(rate_bps, elapsed_ns));
            }
            Profile::SrTcm { rate_bps, .. } => {
                // Section 3: a token goes to the committed bucket, "else if Te is less than EBS" to the excess bucket.
                let together = &self.committed + arriving(rate_bps, elapsed_ns);
                self.committed = committed_depth.min(together.clone());
                self.second = second_depth.min(&self.second + (together - &self.committed));
            }
            Profile::TrTcm {
                rate_bps,
                peak_rate_bps: second_bps,
                ..
            }
            | Profile::TrTcm4115 {
                rate_bps,
                excess_rate_bps: second_bps,
                ..
            } => {
                self.committed = committed_depth.min(&self.committed + arriving(rate_bps, elapsed_ns));
                self.second = second_depth.min(&self.second + arriving(second_bps, elapsed_ns));
            }
        }
    }
}

/// Depths in bytes of the committed bucket and of the second one (excess or peak; 0 where there is none).
fn depths(profile: &Profile) -> (u64, u64) {
    match *profile {
        Profile::TokenBucket { burst_bytes, .. } => (burst_bytes, 0),
        Profile::SrTcm {
            burst_bytes,
            excess_burst_bytes,
            ..
        }
        | Profile::TrTcm4115 {
            burst_bytes,
            excess_burst_bytes,
            ..
        } => (burst_bytes, excess_burst_bytes),
        Profile::TrTcm {
            burst_bytes,
            peak_burst_bytes,
            ..
        } => (burst_bytes, peak_burst_bytes),
    }
}

fn bytes(number: u64) -> BigRational {
    BigRational::from_integer(BigInt::from(number))
}

/// Bytes that `rate_bps` brings in `elapsed_ns`.
fn arriving(rate_bps: u64, elapsed_ns: u64) -> BigRational {
    BigRational::new(
        BigInt::from(rate_bps) * BigInt::from(elapsed_ns),
        BigInt::from(8_000_000_000_u64),
    )
}

#[cfg(test)]
mod tests {
    use super::Colour::{Green, Red, Yellow};
    use super::*;

    const SECOND_NS: u64 = 1_000_000_000;
    /// Rates of the DPDK vectors (`app/test/test_meter.c`): 46 and 69 million bytes per second.
    const CIR_BPS: u64 = 46_000_000 * 8;
    const PIR_BPS: u64 = 69_000_000 * 8;

    fn dpdk_profiles() -> [Profile; 3] {
        let (rate_bps, burst_bytes) = (CIR_BPS, 2048);
        [
            Profile::SrTcm {
                rate_bps,
                burst_bytes,
                excess_burst_bytes: 4096,
            },
            Profile::TrTcm {
                rate_bps,
                burst_bytes,
                peak_rate_bps: PIR_BPS,
                peak_burst_bytes: 4096,
            },
            Profile::TrTcm4115 {
                rate_bps,
                burst_bytes,
                excess_rate_bps: PIR_BPS,
                excess_burst_bytes: 4096,
            },
        ]
    }

    /// One packet, one second after the meter was made.
    fn dpdk_colours(profile: &Profile, color_aware: bool, arrived: Colour) -> Vec<Colour> {
        let colour = |length| {
            let mut meter = Meter::new(profile.clone(), color_aware);
            meter.fill(0);
            meter.colour(SECOND_NS, length, arrived)
        };
        [2047, 2049, 4095, 4097].map(colour).to_vec()
    }

    #[test]
    fn agrees_with_the_dpdk_vectors() {
        for profile in dpdk_profiles() {
            for arrived in [Green, Yellow, Red] {
                assert_eq!(
                    dpdk_colours(&profile, false, arrived),
                    [Green, Yellow, Yellow, Red],
                    "{profile:?} blind"
                );
            }
            assert_eq!(
                dpdk_colours(&profile, true, Green),
                [Green, Yellow, Yellow, Red],
                "{profile:?} aware"
            );
            assert_eq!(
                dpdk_colours(&profile, true, Yellow),
                [Yellow, Yellow, Yellow, Red],
                "{profile:?} aware"
            );
            assert_eq!(dpdk_colours(&profile, true, Red), [Red; 4], "{profile:?} aware");
        }
    }

    fn colours_at_one_instant(profile: Profile, lengths: [u64; 3]) -> [Colour; 3] {
        let mut meter = Meter::new(profile, false);
        lengths.map(|length| meter.colour(7, length, Green))
    }

    #[test]
    fn agrees_with_the_vectors_of_several_packets_at_one_instant() {
        let rate_bps = 8_000;
        let srtcm = Profile::SrTcm {
            rate_bps,
            burst_bytes: 2000,
            excess_burst_bytes: 1000,
        };
        // 1200 fits neither the 500 left nor the 1000, and takes nothing; 600 fits the 1000.
        assert_eq!(colours_at_one_instant(srtcm, [1500, 1200, 600]), [Green, Red, Yellow]);
        let trtcm = Profile::TrTcm {
            rate_bps,
            burst_bytes: 1500,
            peak_rate_bps: rate_bps,
            peak_burst_bytes: 3000,
        };
        assert_eq!(colours_at_one_instant(trtcm, [1200, 1000, 900]), [Green, Yellow, Red]);
        let trtcm_4115 = Profile::TrTcm4115 {
            rate_bps,
            burst_bytes: 1500,
            excess_rate_bps: rate_bps,
            excess_burst_bytes: 3000,
        };
        assert_eq!(
            colours_at_one_instant(trtcm_4115, [1200, 1000, 900]),
            [Green, Yellow, Yellow]
        );
    }

    #[test]
    fn a_packet_equal_to_the_level_is_green_and_one_byte_more_is_not() {
        for profile in dpdk_profiles() {
            assert_eq!(Meter::new(profile.clone(), false).colour(0, 2048, Green), Green);
            assert_eq!(Meter::new(profile, false).colour(0, 2049, Green), Yellow);
        }
    }

    #[test]
    fn a_token_bucket_fills_to_the_nanosecond() {
        // 8 bit/s is a byte a second: the 1000 bytes are there again after exactly 1000 seconds.
        let profile = Profile::TokenBucket {
            rate_bps: 8,
            burst_bytes: 1000,
        };
        let mut meter = Meter::new(profile, false);
        assert_eq!(meter.colour(5, 1000, Green), Green);
        assert_eq!(meter.colour(5 + 1000 * SECOND_NS - 1, 1000, Green), Red);
        assert_eq!(meter.colour(5 + 1000 * SECOND_NS, 1000, Green), Green);
        // Earlier than the last packet: nothing has arrived since.
        assert_eq!(meter.colour(0, 1, Green), Red);
    }

    #[test]
    fn a_colour_aware_token_bucket_keeps_what_came_yellow_or_red() {
        let mut meter = Meter::new(
            Profile::TokenBucket {
                rate_bps: 8_000,
                burst_bytes: 1000,
            },
            true,
        );
        assert_eq!(meter.colour(0, 1000, Yellow), Yellow);
        assert_eq!(meter.colour(0, 1000, Red), Red);
        assert_eq!(meter.colour(0, 1000, Green), Green, "the others took nothing");
        assert_eq!(meter.colour(0, 1, Green), Red);
    }

    #[test]
    fn the_excess_bucket_of_rfc_2697_fills_only_from_what_the_committed_one_cannot_hold() {
        let profile = Profile::SrTcm {
            rate_bps: 8_000,
            burst_bytes: 1000,
            excess_burst_bytes: 1000,
        };
        let mut meter = Meter::new(profile, false);
        assert_eq!(meter.colour(0, 1000, Green), Green);
        assert_eq!(meter.colour(0, 1000, Green), Yellow);
        // A second brings 1000 bytes, all to the committed bucket; half a second more brings 500 to the other.
        assert_eq!(meter.colour(SECOND_NS * 3 / 2, 1000, Green), Green);
        assert_eq!(meter.colour(SECOND_NS * 3 / 2, 501, Green), Red);
        assert_eq!(meter.colour(SECOND_NS * 3 / 2, 500, Green), Yellow);
    }
}

//! The numbers of an entitlement, checked: what a meter may be built from.

use super::bucket::Fill;
use crate::word::UNITS_PER_BYTE;
use thiserror::Error;

/// Rates a bucket may have, in bit/s: 8 kbit/s to 400 Gbit/s.
pub const RATE_BPS: std::ops::RangeInclusive<u64> = 8_000..=400_000_000_000;

/// The largest burst, in bytes: what a level counted in bit-nanoseconds holds in a `u64`.
pub const BURST_BYTES_MAX: u64 = 2_000_000_000;

/// Rates and bursts of one meter: which RFC it follows, and that RFC's numbers. Rates are in bits per second and bursts
/// in bytes of the layer that is counted; what that is, is for the caller, who passes each packet's size in it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Profile {
    pub(super) kind: Kind,
    pub(super) committed: Fill,
    /// E of RFC 2697 and 4115, P of RFC 2698; unused by the token bucket.
    pub(super) second: Fill,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    TokenBucket,
    SrTcm,
    TrTcm,
    TrTcm4115,
}

impl Profile {
    /// One rate, two colours: green or red.
    ///
    /// # Errors
    /// `rate_bps` outside [`RATE_BPS`]; `burst_bytes` outside 1..=[`BURST_BYTES_MAX`].
    pub fn token_bucket(rate_bps: u64, burst_bytes: u64) -> Result<Self, ProfileError> {
        let committed = fill("rate", rate_bps, "burst", burst_bytes)?;
        Ok(Self {
            kind: Kind::TokenBucket,
            committed,
            second: Fill { rate_bps: 0, full: 0 },
        })
    }

    /// RFC 2697, single rate three color marker. "The CBS and EBS [...] must be configured so that at least one of them
    /// is larger than 0" (section 2): one may be zero.
    ///
    /// # Errors
    /// `cir_bps` outside [`RATE_BPS`]; a burst above [`BURST_BYTES_MAX`]; both bursts zero.
    pub fn sr_tcm(cir_bps: u64, cbs_bytes: u64, ebs_bytes: u64) -> Result<Self, ProfileError> {
        check_rate("rate", cir_bps)?;
        if cbs_bytes == 0 && ebs_bytes == 0 {
            return Err(ProfileError::BothBurstsZero);
        }
        for (name, bytes) in [("burst", cbs_bytes), ("excess_burst", ebs_bytes)] {
            if bytes != 0 {
                check_burst(name, bytes)?;
            }
        }
        let committed = Fill {
            rate_bps: cir_bps,
            full: cbs_bytes * UNITS_PER_BYTE,
        };
        let second = Fill {
            rate_bps: 0,
            full: ebs_bytes * UNITS_PER_BYTE,
        };
        Ok(Self {
            kind: Kind::SrTcm,
            committed,
            second,
        })
    }

    /// RFC 2698, two rate three color marker. "The PIR must be equal to or greater than the CIR" and both bursts "must
    /// be configured to be greater than 0" (section 2).
    ///
    /// # Errors
    /// A rate outside [`RATE_BPS`]; a burst outside 1..=[`BURST_BYTES_MAX`]; `pir_bps` below `cir_bps`.
    pub fn tr_tcm(cir_bps: u64, cbs_bytes: u64, pir_bps: u64, pbs_bytes: u64) -> Result<Self, ProfileError> {
        let committed = fill("rate", cir_bps, "burst", cbs_bytes)?;
        let second = fill("peak_rate", pir_bps, "peak_burst", pbs_bytes)?;
        if pir_bps < cir_bps {
            return Err(ProfileError::PeakBelowCommitted { pir_bps, cir_bps });
        }
        Ok(Self {
            kind: Kind::TrTcm,
            committed,
            second,
        })
    }

    /// RFC 4115, two rates with independent buckets. The excess rate may be zero: the RFC sets the rates independently
    /// and asks nothing more of them, and DPDK ("The CBS and EBS need to be greater than zero if CIR and EIR are none-zero
    /// respectively") takes it so. Then E is a single allowance of `ebs_bytes`, which may be zero too.
    ///
    /// # Errors
    /// `cir_bps` outside [`RATE_BPS`], `eir_bps` neither zero nor in it; `cbs_bytes` outside 1..=[`BURST_BYTES_MAX`];
    /// `ebs_bytes` above that, or zero beside an excess rate.
    pub fn tr_tcm_4115(cir_bps: u64, cbs_bytes: u64, eir_bps: u64, ebs_bytes: u64) -> Result<Self, ProfileError> {
        let committed = fill("rate", cir_bps, "burst", cbs_bytes)?;
        if eir_bps != 0 {
            check_rate("excess_rate", eir_bps)?;
        }
        if eir_bps != 0 || ebs_bytes != 0 {
            check_burst("excess_burst", ebs_bytes)?;
        }
        let second = Fill {
            rate_bps: eir_bps,
            full: ebs_bytes * UNITS_PER_BYTE,
        };
        Ok(Self {
            kind: Kind::TrTcm4115,
            committed,
            second,
        })
    }
}

/// Why numbers do not make a profile. Names are the keys that operators write.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum ProfileError {
    /// A rate outside [`RATE_BPS`].
    #[error("{name} is {rate_bps} bit/s; a meter works from {} to {} bit/s", RATE_BPS.start(), RATE_BPS.end())]
    RateOutOfRange {
        /// Which rate.
        name: &'static str,
        /// What it was, in bit/s.
        rate_bps: u64,
    },
    /// A burst of zero, or above [`BURST_BYTES_MAX`].
    #[error("{name} is {burst_bytes} bytes; a meter works from 1 to {BURST_BYTES_MAX} bytes")]
    BurstOutOfRange {
        /// Which burst.
        name: &'static str,
        /// What it was, in bytes.
        burst_bytes: u64,
    },
    /// RFC 2697 wants one of them above zero.
    #[error("burst and excess_burst are both zero; at least one must be larger")]
    BothBurstsZero,
    /// RFC 2698 wants the peak rate to be at least the committed rate.
    #[error("peak_rate is {pir_bps} bit/s, below rate, which is {cir_bps} bit/s")]
    PeakBelowCommitted {
        /// The peak rate, in bit/s.
        pir_bps: u64,
        /// The committed rate, in bit/s.
        cir_bps: u64,
    },
}

fn fill(rate: &'static str, rate_bps: u64, burst: &'static str, burst_bytes: u64) -> Result<Fill, ProfileError> {
    check_rate(rate, rate_bps)?;
    check_burst(burst, burst_bytes)?;
    Ok(Fill {
        rate_bps,
        full: burst_bytes * UNITS_PER_BYTE,
    })
}

fn check_rate(name: &'static str, rate_bps: u64) -> Result<(), ProfileError> {
    if RATE_BPS.contains(&rate_bps) {
        Ok(())
    } else {
        Err(ProfileError::RateOutOfRange { name, rate_bps })
    }
}

fn check_burst(name: &'static str, burst_bytes: u64) -> Result<(), ProfileError> {
    if (1..=BURST_BYTES_MAX).contains(&burst_bytes) {
        Ok(())
    } else {
        Err(ProfileError::BurstOutOfRange { name, burst_bytes })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_are_inclusive_and_named() {
        assert!(Profile::token_bucket(8_000, 1).is_ok());
        assert!(Profile::token_bucket(400_000_000_000, BURST_BYTES_MAX).is_ok());
        for rate_bps in [0, 7_999, 400_000_000_001, u64::MAX] {
            let refused = Err(ProfileError::RateOutOfRange { name: "rate", rate_bps });
            assert_eq!(Profile::token_bucket(rate_bps, 1), refused);
            assert_eq!(Profile::sr_tcm(rate_bps, 1, 1), refused);
        }
        for burst_bytes in [0, BURST_BYTES_MAX + 1, u64::MAX] {
            let refused = Err(ProfileError::BurstOutOfRange {
                name: "peak_burst",
                burst_bytes,
            });
            assert_eq!(Profile::tr_tcm(8_000, 1, 8_000, burst_bytes), refused);
        }
    }

    #[test]
    fn each_rfc_has_its_own_rule() {
        assert_eq!(Profile::sr_tcm(8_000, 0, 0), Err(ProfileError::BothBurstsZero));
        assert!(Profile::sr_tcm(8_000, 0, 1).is_ok());
        assert!(Profile::sr_tcm(8_000, 1, 0).is_ok());
        let refused = Err(ProfileError::PeakBelowCommitted {
            pir_bps: 8_000,
            cir_bps: 8_001,
        });
        assert_eq!(Profile::tr_tcm(8_001, 1, 8_000, 1), refused);
        assert!(
            Profile::tr_tcm_4115(8_001, 1, 8_000, 1).is_ok(),
            "the two rates of RFC 4115 are independent"
        );
        assert!(Profile::tr_tcm_4115(8_000, 1, 0, 0).is_ok());
        assert!(Profile::tr_tcm_4115(8_000, 1, 0, 1).is_ok());
        let refused = Err(ProfileError::BurstOutOfRange {
            name: "excess_burst",
            burst_bytes: 0,
        });
        assert_eq!(Profile::tr_tcm_4115(8_000, 1, 8_000, 0), refused);
    }
}

//! At which loads latency is measured: idle, and at parts of the partial drop rate, as FD.io CSIT does. A device at its
//! limit has full rings and shows their length; what operators live with is the latency below it.

use serde::{Deserialize, Serialize};

/// One load to measure latency at.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct LatencyLoad {
    /// "0 %", "10 %", "50 %", "90 %": part of the partial drop rate.
    pub label: String,
    /// Packets per second.
    pub load_pps: f64,
}

/// The load that stands for none, packets per second: enough samples for the 99.9th percentile within seconds, and far
/// from filling a batch anywhere.
pub const IDLE_PPS: f64 = 9_001.0;

/// The loads for a partial drop rate of `pdr_pps`. "0 %" is [`IDLE_PPS`], or 1 % of the rate of a device so slow that
/// this would load it. Empty for a rate that is not a positive number: there is nothing to take parts of.
#[must_use]
pub fn loads(pdr_pps: f64) -> Vec<LatencyLoad> {
    if !(pdr_pps > 0.0 && pdr_pps.is_finite()) {
        return Vec::new();
    }
    let idle = ("0 %", IDLE_PPS.min(pdr_pps * 0.01));
    [
        idle,
        ("10 %", pdr_pps * 0.1),
        ("50 %", pdr_pps * 0.5),
        ("90 %", pdr_pps * 0.9),
    ]
    .into_iter()
    .map(|(label, load_pps)| LatencyLoad {
        label: label.into(),
        load_pps,
    })
    .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn four_loads_rise() {
        for pdr_pps in [10.0, 5e5, 1e7] {
            let loads = loads(pdr_pps);
            assert_eq!(loads.len(), 4);
            assert!(
                loads.windows(2).all(|pair| pair[0].load_pps < pair[1].load_pps),
                "{loads:?}"
            );
        }
        let fast = loads(1e7);
        assert_eq!((fast[0].label.as_str(), fast[0].load_pps), ("0 %", 9_001.0));
        assert_eq!((fast[3].label.as_str(), fast[3].load_pps), ("90 %", 9e6));
        assert!(loads(0.0).is_empty() && loads(f64::NAN).is_empty());
    }
}

//! The rows of a report: one plain struct for each kind of result.

use hdrhistogram::Histogram;
use serde::{Deserialize, Serialize};

use super::or_nan;

/// How a throughput was searched for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Method {
    /// MLRsearch, RFC 9971.
    Mlr,
    /// RFC 2544 section 26.1.
    Rfc2544,
}

impl Method {
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Mlr => "MLRsearch (RFC 9971)",
            Self::Rfc2544 => "RFC 2544",
        }
    }
}

/// The throughput with one frame size or mix.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ThroughputRow {
    /// The frame size with FCS ("64"), or the name of a mix with its genome.
    pub frame: String,
    /// Mean bytes of a frame with FCS.
    #[serde(deserialize_with = "or_nan")]
    pub mean_frame_bytes: f64,
    /// How it was searched for.
    pub method: Method,
    /// What was found, in the order the goals were given.
    pub goals: Vec<GoalRow>,
    /// Every trial, in the order they were made.
    pub trials: Vec<TrialRow>,
}

/// One goal of a search and what was found for it. Loads are packets per second of the whole mix.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct GoalRow {
    /// "NDR", "PDR".
    pub name: String,
    /// The largest loss ratio the goal allows, 0 to 1.
    #[serde(deserialize_with = "or_nan")]
    pub loss_ratio: f64,
    /// The relevant lower bound: the largest load found to meet the goal. `None` if even the smallest did not.
    pub lower_pps: Option<f64>,
    /// The relevant upper bound: the smallest load found not to. `None` if even the largest did.
    pub upper_pps: Option<f64>,
    /// Packets per second that came through at the lower bound: RFC 9971's conditional throughput. For RFC 2544, the load.
    pub throughput_pps: Option<f64>,
    /// The same in bits per second at layer 1: frames with FCS, preamble and gap.
    pub l1_bps: Option<f64>,
}

/// One trial.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct TrialRow {
    /// Intended load in packets per second.
    #[serde(deserialize_with = "or_nan")]
    pub load_pps: f64,
    /// How long it sent.
    #[serde(deserialize_with = "or_nan")]
    pub seconds: f64,
    /// Packets that were sent.
    pub sent: u64,
    /// Those that did not come.
    pub lost: u64,
    /// False if the generator itself could not keep the load: such a trial says nothing about the device.
    pub valid: bool,
}

impl TrialRow {
    /// Lost of sent, 0 to 1; `None` if nothing was sent.
    #[must_use]
    pub fn loss_ratio(&self) -> Option<f64> {
        ratio(self.lost, self.sent)
    }
}

/// The latency at one load, in nanoseconds from the intended instant of sending.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct LatencyRow {
    /// "50 % of PDR".
    pub label: String,
    /// The frame size with FCS or the mix.
    pub frame: String,
    /// The load in packets per second.
    #[serde(deserialize_with = "or_nan")]
    pub load_pps: f64,
    /// Packets that were timed. A percentile needs more packets than one in its remainder, or it is shown as a dash.
    pub packets: u64,
    /// The usual percentiles.
    pub percentiles: Percentiles,
    /// The whole curve, percentiles rising.
    pub curve: Vec<CurvePoint>,
}

impl LatencyRow {
    /// A row from the receiver's histogram of nanoseconds.
    #[must_use]
    pub fn from_histogram(
        label: impl Into<String>,
        frame: impl Into<String>,
        load_pps: f64,
        histogram: &Histogram<u64>,
    ) -> Self {
        let mut curve = Vec::new();
        if !histogram.is_empty() {
            curve = histogram
                .iter_quantiles(CURVE_POINTS_PER_HALVING)
                .map(|step| CurvePoint {
                    percentile: step.percentile(),
                    ns: step.value_iterated_to(),
                })
                .take(CURVE_POINTS_MAX)
                .collect();
        }
        Self {
            label: label.into(),
            frame: frame.into(),
            load_pps,
            packets: histogram.len(),
            percentiles: Percentiles::from_histogram(histogram),
            curve,
        }
    }
}

/// Each time the distance to 100 % halves, so many points: a smooth line without thousands of them.
const CURVE_POINTS_PER_HALVING: u32 = 5;
/// 2^64 packets would need 320.
const CURVE_POINTS_MAX: usize = 400;

/// Percentiles in nanoseconds; 0 throughout if nothing was timed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Percentiles {
    /// The least.
    pub min: u64,
    /// 50 %.
    pub p50: u64,
    /// 90 %.
    pub p90: u64,
    /// 99 %.
    pub p99: u64,
    /// 99.9 %.
    pub p99_9: u64,
    /// 99.99 %.
    pub p99_99: u64,
    /// 99.9999 %.
    pub p99_9999: u64,
    /// The most.
    pub max: u64,
}

impl Percentiles {
    /// Those of a histogram of nanoseconds.
    #[must_use]
    pub fn from_histogram(histogram: &Histogram<u64>) -> Self {
        let at = |quantile| histogram.value_at_quantile(quantile);
        if histogram.is_empty() {
            return Self::default();
        }
        Self {
            min: histogram.min(),
            p50: at(0.5),
            p90: at(0.9),
            p99: at(0.99),
            p99_9: at(0.999),
            p99_99: at(0.9999),
            p99_9999: at(0.999_999),
            max: histogram.max(),
        }
    }
}

/// So many percent of the packets took at most so long.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct CurvePoint {
    /// 0 to 100.
    #[serde(deserialize_with = "or_nan")]
    pub percentile: f64,
    /// Nanoseconds.
    pub ns: u64,
}

/// What became of one stream of a service.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct ServiceRow {
    /// The service.
    pub service: String,
    /// The stream, if the service has several.
    pub stream: String,
    /// Packets per second it was to send.
    #[serde(deserialize_with = "or_nan")]
    pub offered_pps: f64,
    /// Bits per second of IP packets it was to send.
    #[serde(deserialize_with = "or_nan")]
    pub offered_bps: f64,
    /// Offered as so many times what its contract grants; `None` without a contract.
    pub multiple: Option<f64>,
    /// Packets sent.
    pub sent: u64,
    /// Packets that came, each counted once.
    pub received: u64,
    /// Packets that did not come.
    pub lost: u64,
    /// Came after a later one.
    pub reordered: u64,
    /// Came again.
    pub duplicated: u64,
    /// The DSCP they were sent with.
    pub dscp_in: u8,
    /// How many came with which DSCP.
    pub dscp_out: Vec<DscpCount>,
    /// Of those that came; `None` if none did.
    pub latency: Option<ServiceLatency>,
    /// How far latency changes, up or down, from one packet of the stream to the next: median, in nanoseconds; `None` if not
    /// measured.
    pub jitter_ns: Option<u64>,
}

/// Packets that arrived with one DSCP.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DscpCount {
    /// 0 to 63.
    pub dscp: u8,
    /// How many.
    pub packets: u64,
}

/// A stream's latency in nanoseconds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ServiceLatency {
    /// 50 %.
    pub p50: u64,
    /// 99 %.
    pub p99: u64,
    /// 99.9 %.
    pub p99_9: u64,
    /// The most.
    pub max: u64,
}

impl ServiceLatency {
    /// That of a histogram of nanoseconds; `None` of nothing.
    #[must_use]
    pub fn from_histogram(histogram: &Histogram<u64>) -> Option<Self> {
        (!histogram.is_empty()).then(|| Percentiles::from_histogram(histogram).into())
    }
}

impl From<Percentiles> for ServiceLatency {
    fn from(all: Percentiles) -> Self {
        Self {
            p50: all.p50,
            p99: all.p99,
            p99_9: all.p99_9,
            max: all.max,
        }
    }
}

/// How well the generator kept one rate.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct CalibrationRow {
    /// Packets per second asked for.
    #[serde(deserialize_with = "or_nan")]
    pub asked_pps: f64,
    /// Packets per second sent.
    #[serde(deserialize_with = "or_nan")]
    pub achieved_pps: f64,
    /// Achieved over asked minus one, in millionths.
    #[serde(deserialize_with = "or_nan")]
    pub error_ppm: f64,
    /// How long it was measured.
    #[serde(deserialize_with = "or_nan")]
    pub seconds: f64,
    /// How late packets were handed to the kernel after their instant, in nanoseconds: half of them at most so much.
    pub lateness_p50_ns: u64,
    /// 99 % of them.
    pub lateness_p99_ns: u64,
    /// 99.9 % of them.
    pub lateness_p99_9_ns: u64,
    /// The latest.
    pub lateness_max_ns: u64,
}

impl CalibrationRow {
    /// A row from what was sent over so many seconds, and the histogram of lateness in nanoseconds.
    #[must_use]
    pub fn from_histogram(asked_pps: f64, achieved_pps: f64, seconds: f64, lateness: &Histogram<u64>) -> Self {
        let late = Percentiles::from_histogram(lateness);
        Self {
            asked_pps,
            achieved_pps,
            error_ppm: (achieved_pps / asked_pps - 1.0) * 1e6,
            seconds,
            lateness_p50_ns: late.p50,
            lateness_p99_ns: late.p99,
            lateness_p99_9_ns: late.p99_9,
            lateness_max_ns: late.max,
        }
    }
}

/// The longest burst without loss with one frame size: RFC 9004.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct BackToBackRow {
    /// The frame size with FCS or the mix.
    pub frame: String,
    /// How often the longest burst was searched for.
    pub repetitions: u32,
    /// Packets of the longest burst: mean of the repetitions.
    #[serde(deserialize_with = "or_nan")]
    pub mean_packets: f64,
    /// The shortest of them.
    pub min_packets: u64,
    /// The longest of them.
    pub max_packets: u64,
    /// Their standard deviation.
    #[serde(deserialize_with = "or_nan")]
    pub deviation_packets: f64,
    /// Packets per second within the burst.
    #[serde(deserialize_with = "or_nan")]
    pub burst_pps: f64,
    /// Mean burst length in seconds.
    #[serde(deserialize_with = "or_nan")]
    pub seconds: f64,
    /// The same less what the device forwarded meanwhile (RFC 9004's Corrected DUT Buffer Time); `None` without a known throughput.
    pub corrected_buffer_seconds: Option<f64>,
}

/// A long run at one load.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Soak {
    /// The frame size with FCS or the mix.
    pub frame: String,
    /// Packets per second.
    #[serde(deserialize_with = "or_nan")]
    pub load_pps: f64,
    /// How long.
    #[serde(deserialize_with = "or_nan")]
    pub seconds: f64,
    /// Packets sent.
    pub sent: u64,
    /// Packets that did not come.
    pub lost: u64,
    /// What happened in each interval, in order of time.
    pub points: Vec<SoakPoint>,
}

/// One interval of a long run.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct SoakPoint {
    /// Seconds from the start of the run to the end of the interval.
    #[serde(deserialize_with = "or_nan")]
    pub at_seconds: f64,
    /// Packets sent in it.
    pub sent: u64,
    /// Those that did not come.
    pub lost: u64,
    /// 99 % of its packets took at most so long, in nanoseconds; `None` if none were timed.
    pub p99_ns: Option<u64>,
}

/// What a change of the device's configuration cost under load.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct ReconfigurationRow {
    /// What was changed.
    pub change: String,
    /// The frame size with FCS or the mix.
    pub frame: String,
    /// Packets per second meanwhile.
    #[serde(deserialize_with = "or_nan")]
    pub load_pps: f64,
    /// How often it was changed.
    pub changes: u64,
    /// Packets sent.
    pub sent: u64,
    /// Packets that did not come.
    pub lost: u64,
    /// Lost over load, of all changes together: for how long all traffic would have had to stand still to lose as many.
    #[serde(deserialize_with = "or_nan")]
    pub blocked_seconds: f64,
}

/// A capture that was sent again.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Replay {
    /// The file.
    pub file: String,
    /// Original gaps, scaled by so much, at a fixed rate, as fast as possible.
    pub timing: String,
    /// Packets sent.
    pub packets: u64,
    /// How often the file was sent.
    pub loops: u64,
    /// How far gaps between packets were from what they should have been; ranges in rising order.
    pub gap_errors: Vec<GapBucket>,
    /// 99 % of the gaps were wrong by at most so many nanoseconds, early or late; `None` if not measured.
    pub gap_error_p99_ns: Option<u64>,
}

/// Gaps whose error lies in a range.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct GapBucket {
    /// From here on, in nanoseconds; negative: the gap was too short.
    pub low_ns: i64,
    /// To below here.
    pub high_ns: i64,
    /// How many.
    pub gaps: u64,
}

/// `part` of `whole`; `None` of nothing.
pub(super) fn ratio(part: u64, whole: u64) -> Option<f64> {
    (whole > 0).then(|| part as f64 / whole as f64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_row_from_a_histogram() {
        let mut histogram = Histogram::new(3).unwrap();
        for ns in 1..=100_000u64 {
            histogram.record(ns).unwrap();
        }
        let row = LatencyRow::from_histogram("50 %", "64", 1e6, &histogram);
        assert_eq!((row.packets, row.percentiles.min), (100_000, 1));
        let near = |ns: u64, truth: u64| assert!(ns.abs_diff(truth) <= truth / 500, "{ns} {truth}");
        near(row.percentiles.p50, 50_000);
        near(row.percentiles.p99_9, 99_900);
        near(row.percentiles.max, 100_000);
        assert!(
            row.curve
                .is_sorted_by(|a, b| a.percentile <= b.percentile && a.ns <= b.ns)
        );
        assert_eq!(row.curve.last().map(|point| point.percentile), Some(100.0));
        assert!((20..200).contains(&row.curve.len()), "{}", row.curve.len());
        let calibration = CalibrationRow::from_histogram(1e6, 999_900.0, 1.0, &histogram);
        assert!((calibration.error_ppm + 100.0).abs() < 1e-6, "{calibration:?}");
        near(calibration.lateness_p99_ns, 99_000);
        assert!(ServiceLatency::from_histogram(&histogram).is_some_and(|latency| latency.p50 > 0));
        assert_eq!(ServiceLatency::from_histogram(&Histogram::new(3).unwrap()), None);
        let empty = LatencyRow::from_histogram("0 %", "64", 0.0, &Histogram::new(3).unwrap());
        assert_eq!(
            (empty.packets, empty.curve.len(), empty.percentiles),
            (0, 0, Percentiles::default())
        );
    }
}

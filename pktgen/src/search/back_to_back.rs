//! The longest burst without loss: RFC 2544 section 26.4 as updated by RFC 9004.
//!
//! A burst is packets with the least gap the generator has, sent after silence. Each repetition finds the longest burst
//! of which nothing is lost by halving; a lossy burst may be sent again before it counts (RFC 9004 section 5.2, loss
//! verification of ETSI GS NFV-TST 009). The benchmark is the average over the repetitions, with minimum, maximum and
//! standard deviation (section 5.3). From it follows the buffer time of the device (section 5.4):
//!
//! ```text
//!   implied = average burst / burst rate;   corrected = implied - implied x throughput / burst rate
//! ```
//!
//! Corrected, because a device forwards while the burst comes in. Neither means anything where the throughput reaches the
//! burst rate: no buffer fills then, and the longest burst is only the longest that was tried.

use serde::{Deserialize, Serialize};

use super::session::Session;
use super::{Control, Device, Ending, INVALID_REPEATS, ParameterError, Trial, check_load, check_seconds};

/// Which bursts to try.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct BurstPlan {
    /// The rate within a burst, packets per second: the theoretical maximum of the link, or of the generator.
    pub burst_pps: f64,
    /// The longest burst in packets; "at least 2 seconds" of them (RFC 2544 section 26.4) is [`BurstPlan::new`]'s.
    pub packets_max: u64,
    /// How exactly the longest burst is found, in packets; at least 1.
    pub resolution_packets: u64,
    /// How often it is found; "at least 50 times" in RFC 2544, fewer where the spread is small.
    pub repetitions: u32,
    /// How often a lossy burst is sent again before it counts.
    pub verifications: u32,
    /// The RFC 2544 throughput for the same traffic, packets per second, for the corrected buffer time.
    pub throughput_pps: Option<f64>,
}

impl BurstPlan {
    /// Bursts of up to 2 s at `burst_pps`, found to 0.1 % of that, 50 times.
    #[must_use]
    pub fn new(burst_pps: f64, throughput_pps: Option<f64>) -> Self {
        let packets_max = (burst_pps * 2.0).clamp(1.0, 1e15) as u64;
        Self {
            burst_pps,
            packets_max,
            resolution_packets: (packets_max / 1000).max(1),
            repetitions: 50,
            verifications: 0,
            throughput_pps,
        }
    }

    fn check(&self) -> Result<(), ParameterError> {
        check_load("the burst rate", self.burst_pps)?;
        let whole = [
            ("the longest burst", self.packets_max),
            ("the resolution", self.resolution_packets),
            ("the number of repetitions", u64::from(self.repetitions)),
        ];
        if let Some((what, value)) = whole.into_iter().find(|&(_, value)| value == 0) {
            return Err(ParameterError::new(what, value, "it must be at least 1"));
        }
        check_seconds("the longest burst", self.packets_max as f64 / self.burst_pps)?;
        self.throughput_pps
            .map_or(Ok(()), |pps| check_load("the throughput", pps))
    }
}

/// The benchmark. Bursts are packets, times seconds.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct BurstResult {
    /// The longest burst without loss of each complete repetition.
    pub bursts: Vec<u64>,
    /// Over the repetitions; none if not one is complete.
    pub statistics: Option<BurstStatistics>,
    /// Repetitions in which the longest burst tried passed: the device's own limit is not below it.
    pub at_packets_max: usize,
    /// Repetitions in which a longer burst was not lossy but beyond the generator: neither is it below this.
    pub at_generator_limit: usize,
    /// Average burst / burst rate.
    pub implied_buffer_s: Option<f64>,
    /// The implied time less what is forwarded while the burst comes in; none without a throughput below the burst rate.
    pub corrected_buffer_s: Option<f64>,
    /// Whether all repetitions were made.
    pub ending: Ending,
    /// All bursts sent, in order.
    pub trials: Vec<Trial>,
    /// Length of the test in seconds.
    pub seconds: f64,
}

/// Of the longest bursts, in packets.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct BurstStatistics {
    /// The benchmark itself.
    pub average: f64,
    /// The shortest.
    pub min: u64,
    /// The longest.
    pub max: u64,
    /// Of the sample (n - 1); 0 of a single one.
    pub standard_deviation: f64,
}

impl BurstStatistics {
    fn of(bursts: &[u64]) -> Option<Self> {
        let (&min, &max) = (bursts.iter().min()?, bursts.iter().max()?);
        let count = bursts.len() as f64;
        let average = bursts.iter().map(|&burst| burst as f64).sum::<f64>() / count;
        let squares: f64 = bursts.iter().map(|&burst| (burst as f64 - average).powi(2)).sum();
        Some(Self {
            average,
            min,
            max,
            standard_deviation: (squares / (count - 1.0).max(1.0)).sqrt(),
        })
    }
}

/// Finds the longest burst.
///
/// # Errors
/// The plan cannot be searched with.
pub fn search<D: Device>(
    plan: &BurstPlan,
    device: &mut D,
    control: &mut Control<'_>,
) -> Result<BurstResult, ParameterError> {
    plan.check()?;
    let mut session = Session::new(device, control);
    let mut found = Vec::new();
    let ending = run(plan, &mut session, &mut found).err().unwrap_or_default();
    let (trials, seconds) = session.finish(&ending);
    let bursts: Vec<u64> = found.iter().map(|longest| longest.packets).collect();
    let statistics = BurstStatistics::of(&bursts);
    let implied_buffer_s = statistics.map(|s| s.average / plan.burst_pps);
    let forwarded = plan
        .throughput_pps
        .map(|pps| pps / plan.burst_pps)
        .filter(|&part| part < 1.0);
    Ok(BurstResult {
        at_generator_limit: found.iter().filter(|longest| longest.by_generator).count(),
        at_packets_max: bursts.iter().filter(|&&burst| burst == plan.packets_max).count(),
        bursts,
        statistics,
        implied_buffer_s,
        corrected_buffer_s: implied_buffer_s
            .zip(forwarded)
            .map(|(implied, part)| implied * (1.0 - part)),
        ending,
        trials,
        seconds,
    })
}

/// The longest burst without loss of one repetition, and whether the generator set its end.
struct Longest {
    packets: u64,
    by_generator: bool,
}

fn run<D: Device>(plan: &BurstPlan, session: &mut Session<'_, '_, D>, found: &mut Vec<Longest>) -> Result<(), Ending> {
    let longest_s = plan.packets_max as f64 / plan.burst_pps;
    for done in 0..plan.repetitions {
        // Halving sends about one longest burst for the first, and one more for all the halves.
        let remaining_s = f64::from(plan.repetitions - done) * longest_s * 2.0;
        found.push(longest_burst(plan, session, remaining_s)?);
    }
    Ok(())
}

/// By halving; 0 packets if even the shortest burst loses.
fn longest_burst<D: Device>(
    plan: &BurstPlan,
    session: &mut Session<'_, '_, D>,
    remaining_s: f64,
) -> Result<Longest, Ending> {
    let (mut passed, mut failed) = (0, plan.packets_max.saturating_add(1));
    let mut by_generator = false;
    let mut burst = plan.packets_max;
    loop {
        match send(plan, session, burst, remaining_s)? {
            Burst::Passed => passed = burst,
            refused => {
                failed = burst;
                by_generator = refused == Burst::Unsendable;
            }
        }
        if passed == plan.packets_max || failed - passed <= plan.resolution_packets {
            return Ok(Longest {
                packets: passed,
                by_generator,
            });
        }
        burst = passed + (failed - passed) / 2;
    }
}

/// What became of a burst.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Burst {
    Passed,
    Lossy,
    /// The generator lagged each time: says nothing of the device.
    Unsendable,
}

fn send<D: Device>(
    plan: &BurstPlan,
    session: &mut Session<'_, '_, D>,
    burst: u64,
    remaining_s: f64,
) -> Result<Burst, Ending> {
    // Up to the next nanosecond: a duration a hair short would be a burst of one packet less.
    let seconds = (burst as f64 / plan.burst_pps * 1e9).ceil() / 1e9;
    for _ in 0..=plan.verifications {
        match session.usable_trial(plan.burst_pps, seconds, remaining_s, INVALID_REPEATS)? {
            Some(measured) if measured.lost == 0 => return Ok(Burst::Passed),
            Some(_) => {}
            None => return Ok(Burst::Unsendable),
        }
    }
    Ok(Burst::Lossy)
}

#[cfg(test)]
mod tests {
    use super::super::simulated::{Loss, Simulated, Time, controlled, stoppable};
    use super::*;

    fn plan() -> BurstPlan {
        BurstPlan {
            resolution_packets: 1,
            repetitions: 20,
            ..BurstPlan::new(1_488_095.0, Some(1e6))
        }
    }

    fn find(plan: &BurstPlan, loss: Loss) -> BurstResult {
        let time = Time::default();
        let mut device = Simulated::new(loss, 3, &time);
        controlled(&time, None, |control| search(plan, &mut device, control))
            .0
            .expect("the plan is good")
    }

    #[test]
    fn a_known_buffer_is_found_and_corrected() {
        // While the burst comes in, 1 of 1.488 Mpps leaves; 10,000 packets of buffer take the rest.
        let result = find(
            &plan(),
            Loss::Buffer {
                pps: 1e6,
                packets: 10_000.0,
                noise: 0.0,
            },
        );
        let statistics = result.statistics.expect("complete");
        let truth = 10_000.0 / (1.0 - 1e6 / 1_488_095.0);
        assert!(
            (statistics.average - truth).abs() <= 2.0,
            "{} for {truth}",
            statistics.average
        );
        assert_eq!((statistics.min, statistics.standard_deviation), (statistics.max, 0.0));
        let corrected = result.corrected_buffer_s.expect("the throughput is below the rate");
        assert!((corrected * 1_488_095.0 - 10_000.0).abs() < 2.0, "{corrected}");
        assert_eq!((result.bursts.len(), result.at_packets_max), (20, 0));
    }

    #[test]
    fn noise_shows_in_the_spread() {
        let result = find(
            &plan(),
            Loss::Buffer {
                pps: 1e6,
                packets: 10_000.0,
                noise: 0.05,
            },
        );
        let s = result.statistics.expect("complete");
        assert!(
            (s.min as f64) < s.average && s.average < s.max as f64 && s.standard_deviation > 100.0,
            "{s:?}"
        );
    }

    #[test]
    fn a_device_that_keeps_up_has_no_buffer_to_measure() {
        let result = find(
            &BurstPlan {
                throughput_pps: Some(2e6),
                ..plan()
            },
            Loss::Never,
        );
        assert_eq!(result.statistics.map(|s| s.average), Some(2_976_190.0));
        assert_eq!((result.at_packets_max, result.corrected_buffer_s), (20, None));
        let lossy = find(
            &BurstPlan {
                repetitions: 1,
                ..plan()
            },
            Loss::Always(0.9),
        );
        assert!(lossy.bursts[0] <= 1, "{:?}", lossy.bursts);
    }

    #[test]
    fn a_burst_beyond_the_generator_is_no_loss() {
        let time = Time::default();
        let mut device = Simulated::new(Loss::Never, 3, &time);
        device.generator_pps = 1e6;
        let plan = BurstPlan {
            repetitions: 2,
            ..plan()
        };
        let (result, _) = controlled(&time, None, |control| search(&plan, &mut device, control));
        let result = result.expect("the plan is good");
        assert_eq!((result.at_generator_limit, result.at_packets_max), (2, 0));
    }

    #[test]
    fn statistics_are_of_the_sample() {
        let s = BurstStatistics::of(&[2, 4, 4, 4, 5, 5, 7, 9]).expect("some");
        assert_eq!((s.average, s.min, s.max), (5.0, 2, 9));
        assert!((s.standard_deviation - (32.0_f64 / 7.0).sqrt()).abs() < 1e-12);
        assert_eq!(BurstStatistics::of(&[]), None);
        assert_eq!(BurstStatistics::of(&[7]).map(|s| s.standard_deviation), Some(0.0));
    }

    #[test]
    fn complete_repetitions_survive_a_stop() {
        let time = Time::default();
        let mut device = Simulated::new(
            Loss::Buffer {
                pps: 1e6,
                packets: 1e4,
                noise: 0.01,
            },
            3,
            &time,
        );
        let (result, _) = stoppable(&time, None, 60, |control| search(&plan(), &mut device, control));
        let result = result.expect("the plan is good");
        assert_eq!(result.ending, Ending::Stopped);
        assert!(!result.bursts.is_empty() && result.bursts.len() < 20 && result.statistics.is_some());
    }

    #[test]
    fn bad_plans_are_refused() {
        let cases = [
            (
                BurstPlan {
                    packets_max: 0,
                    ..plan()
                },
                "the longest burst is 0, but it must be at least 1",
            ),
            (
                BurstPlan {
                    resolution_packets: 0,
                    ..plan()
                },
                "the resolution is 0",
            ),
            (
                BurstPlan {
                    repetitions: 0,
                    ..plan()
                },
                "the number of repetitions is 0",
            ),
            (BurstPlan::new(f64::NAN, None), "the burst rate is NaN"),
        ];
        for (plan, expected) in cases {
            let time = Time::default();
            let mut device = Simulated::new(Loss::Never, 3, &time);
            let fault = controlled(&time, None, |control| search(&plan, &mut device, control))
                .0
                .expect_err("refused");
            assert!(fault.to_string().contains(expected), "{fault}");
        }
    }
}

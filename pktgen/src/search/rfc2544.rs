//! Throughput by binary search: RFC 2544 section 26.1, one trial for each load, no loss borne.
//!
//! The first trial is at the maximum load. If it passes, that is the throughput; if not, the interval between the minimum
//! and the maximum is halved until it is no wider than the resolution. A lossy trial may be repeated before it counts
//! (ETSI GS NFV-TST 009 section 12.3.3, "binary search with loss verification"); by default it is not, as in the RFC.
//! The waits of RFC 2544 section 23 are the device's.

use serde::{Deserialize, Serialize};

use super::session::Session;
use super::{Control, Device, Ending, ParameterError, Trial, check_loads, check_seconds};

/// What to search between. Loads are packets per second.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ThroughputPlan {
    /// No smaller load is tried.
    pub min_load_pps: f64,
    /// Line rate, or what the generator can do.
    pub max_load_pps: f64,
    /// How far apart the loads of the last passing and the last failing trial may be, as a part of the maximum load;
    /// above 0 to below 1.
    pub resolution: f64,
    /// Length of each trial in seconds: "at least 60" (section 24).
    pub trial_s: f64,
    /// How often a lossy trial is repeated before its load counts as too much; 0 as in the RFC.
    pub verifications: u32,
}

impl ThroughputPlan {
    /// Trials of 60 s, a resolution of 0.1 % of the maximum, no repeats.
    #[must_use]
    pub fn new(min_load_pps: f64, max_load_pps: f64) -> Self {
        Self {
            min_load_pps,
            max_load_pps,
            resolution: 0.001,
            trial_s: 60.0,
            verifications: 0,
        }
    }

    fn check(&self) -> Result<(), ParameterError> {
        check_seconds("the trial duration", self.trial_s)?;
        check_loads(self.min_load_pps, self.max_load_pps, self.trial_s)?;
        if !(RESOLUTION_MIN..1.0).contains(&self.resolution) {
            let rule =
                format!("it must be from {RESOLUTION_MIN} to below 1, as in 0.001 for 0.1 % of the maximum load");
            return Err(ParameterError::new("the resolution", self.resolution, rule));
        }
        Ok(())
    }
}

/// The result of the search. Loads are packets per second.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ThroughputResult {
    /// The largest load that lost nothing, all smaller tried ones included; none if no load tried passed.
    pub throughput_pps: Option<f64>,
    /// The smallest load that lost packets, if any did.
    pub failed_pps: Option<f64>,
    /// The smallest load the generator could not send, if any: then the device may be better than the throughput.
    pub unsendable_load_pps: Option<f64>,
    /// Whether the search ran to its end.
    pub ending: Ending,
    /// All trials in the order made.
    pub trials: Vec<Trial>,
    /// Length of the search in seconds.
    pub seconds: f64,
}

/// Searches for the throughput.
///
/// # Errors
/// The plan cannot be searched with.
pub fn search<D: Device>(
    plan: &ThroughputPlan,
    device: &mut D,
    control: &mut Control<'_>,
) -> Result<ThroughputResult, ParameterError> {
    plan.check()?;
    let mut search = Search {
        plan,
        session: Session::new(device, control),
        passed: None,
        failed: None,
        unsendable: None,
    };
    let ending = search.run().err().unwrap_or_default();
    let Search {
        session,
        passed,
        failed,
        unsendable,
        ..
    } = search;
    let (trials, seconds) = session.finish(&ending);
    Ok(ThroughputResult {
        throughput_pps: passed,
        failed_pps: failed,
        unsendable_load_pps: unsendable,
        ending,
        trials,
        seconds,
    })
}

struct Search<'p, 's, 'c, D> {
    plan: &'p ThroughputPlan,
    session: Session<'s, 'c, D>,
    passed: Option<f64>,
    failed: Option<f64>,
    unsendable: Option<f64>,
}

impl<D: Device> Search<'_, '_, '_, D> {
    fn run(&mut self) -> Result<(), Ending> {
        let plan = self.plan;
        let resolution_pps = plan.resolution * plan.max_load_pps;
        let mut load_pps = plan.max_load_pps;
        loop {
            let lower = self.passed.unwrap_or(plan.min_load_pps);
            let upper = self.too_much().unwrap_or(plan.max_load_pps);
            let halvings = ((upper - lower) / resolution_pps).log2().ceil().max(0.0);
            self.try_load(load_pps, (halvings + 1.0) * plan.trial_s)?;
            let Some(upper) = self.too_much() else { return Ok(()) };
            let lower = self.passed.unwrap_or(plan.min_load_pps);
            load_pps = match self.passed {
                _ if upper <= plan.min_load_pps => return Ok(()),
                Some(_) if upper - lower <= resolution_pps => return Ok(()),
                // Below the resolution only the minimum itself is left to try.
                None if upper - lower <= resolution_pps => lower,
                _ => f64::midpoint(lower, upper),
            };
        }
    }

    fn try_load(&mut self, load_pps: f64, remaining_s: f64) -> Result<(), Ending> {
        for _ in 0..=self.plan.verifications {
            let Some(measured) = self.session.load_trial(load_pps, self.plan.trial_s, remaining_s)? else {
                self.unsendable = Some(load_pps);
                return Ok(());
            };
            if measured.lost == 0 {
                self.passed = Some(load_pps);
                return Ok(());
            }
        }
        self.failed = Some(load_pps);
        Ok(())
    }

    /// The smallest load that is not to be exceeded, for whichever reason.
    fn too_much(&self) -> Option<f64> {
        [self.failed, self.unsendable]
            .into_iter()
            .flatten()
            .min_by(f64::total_cmp)
    }
}

/// A millionth of the maximum takes twenty trials; finer than that, one packet more in a trial decides.
const RESOLUTION_MIN: f64 = 1e-6;

#[cfg(test)]
mod tests {
    use super::super::simulated::{Loss, Simulated, Time, controlled, stoppable};
    use super::*;

    const MAX_PPS: f64 = 1_488_095.0;

    fn plan() -> ThroughputPlan {
        ThroughputPlan::new(100.0, MAX_PPS)
    }

    fn find(plan: &ThroughputPlan, loss: Loss, generator_pps: f64) -> ThroughputResult {
        let time = Time::default();
        let mut device = Simulated::new(loss, 7, &time);
        device.generator_pps = generator_pps;
        controlled(&time, None, |control| search(plan, &mut device, control))
            .0
            .expect("the plan is good")
    }

    #[test]
    fn the_knee_is_found_within_the_resolution() {
        for pps in [500.0, 1_600.0, 744_000.0, 1_000_000.5, 1_488_000.0] {
            let result = find(&plan(), Loss::Knee { pps, noise: 0.0 }, f64::INFINITY);
            let (throughput, failed) = (result.throughput_pps.expect("found"), result.failed_pps.expect("found"));
            assert!(throughput <= pps && pps < failed, "{pps}: {throughput} to {failed}");
            assert!(
                failed - throughput <= MAX_PPS * 0.001,
                "{pps}: {throughput} to {failed}"
            );
            assert!(result.trials.len() <= 12, "{pps}: {} trials", result.trials.len());
            assert!(result.trials.iter().all(|trial| trial.duration_s == 60.0));
        }
    }

    #[test]
    fn the_ends_of_the_range_are_tried_themselves() {
        let all = find(&plan(), Loss::Never, f64::INFINITY);
        assert_eq!(
            (all.throughput_pps, all.failed_pps, all.trials.len()),
            (Some(MAX_PPS), None, 1)
        );
        let none = find(&plan(), Loss::Always(0.1), f64::INFINITY);
        assert_eq!((none.throughput_pps, none.failed_pps), (None, Some(100.0)));
        assert_eq!(none.ending, Ending::Complete);
    }

    #[test]
    fn what_the_generator_cannot_send_is_no_loss() {
        let result = find(&plan(), Loss::Never, 1e6);
        assert!(result.failed_pps.is_none() && result.unsendable_load_pps.is_some_and(|load| load > 1e6));
        assert!(
            result.throughput_pps.is_some_and(|load| load > 0.998e6 && load <= 1e6),
            "{result:?}"
        );
    }

    #[test]
    fn a_lossy_trial_is_repeated_if_asked() {
        let loss = Loss::Sporadic {
            pps: 1e6,
            noise: 0.0,
            chance: 0.3,
            part: 0.01,
        };
        let plain = find(&plan(), loss, f64::INFINITY);
        let verified = find(
            &ThroughputPlan {
                verifications: 8,
                ..plan()
            },
            loss,
            f64::INFINITY,
        );
        assert!(
            verified
                .throughput_pps
                .is_some_and(|load| (load / 1e6 - 1.0).abs() < 0.002),
            "{verified:?}"
        );
        assert!(
            plain.throughput_pps.is_none_or(|load| load < 0.99e6),
            "one sporadic loss misleads: {plain:?}"
        );
    }

    #[test]
    fn the_stop_flag_gives_the_bounds_so_far() {
        let time = Time::default();
        let mut device = Simulated::new(Loss::Knee { pps: 1e6, noise: 0.0 }, 7, &time);
        let (result, _) = stoppable(&time, None, 3, |control| search(&plan(), &mut device, control));
        let result = result.expect("the plan is good");
        assert_eq!((result.ending, result.trials.len()), (Ending::Stopped, 4));
        assert!(result.throughput_pps < Some(1e6) && result.failed_pps > Some(1e6));
    }

    #[test]
    fn bad_plans_are_refused() {
        let cases = [
            (
                ThroughputPlan {
                    resolution: 0.0,
                    ..plan()
                },
                "the resolution is 0",
            ),
            (
                ThroughputPlan {
                    trial_s: -1.0,
                    ..plan()
                },
                "the trial duration is -1 s",
            ),
            (
                ThroughputPlan {
                    min_load_pps: 2e6,
                    ..plan()
                },
                "it must be below the maximum load, 1488095",
            ),
        ];
        for (plan, expected) in cases {
            let time = Time::default();
            let mut device = Simulated::new(Loss::Never, 7, &time);
            let text = controlled(&time, None, |control| search(&plan, &mut device, control))
                .0
                .expect_err("refused");
            assert!(text.to_string().contains(expected), "{text}");
        }
    }
}

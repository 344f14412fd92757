//! How long the box stands still while it is being changed, as FD.io CSIT measures it: a load that it carries without
//! loss is held, the change is made in the middle, and what was lost divided by the load is the blocked time.
//!
//! One packet lost is 1 / load seconds: that is the resolution, so the load should be near the NDR. Before each trial with
//! the change there is one without, of the same length. Its loss is not subtracted, for it need not recur; but where it
//! is not 0, the load is too high for the blocked time to mean much.

use std::time::Duration;

use dataplane::clock::{Clock, MonotonicClock};
use serde::{Deserialize, Serialize};

use super::session::Session;
use super::{Control, Device, Ending, Measurement, ParameterError, Trial, check_load, check_seconds};

/// At which load, and how often.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ReconfigurePlan {
    /// Packets per second: the relevant lower bound of the NDR.
    pub load_pps: f64,
    /// Length of each trial in seconds; the change is begun in the middle and must be over well before the end.
    pub trial_s: f64,
    /// How often the change is made; at least 1.
    pub repetitions: u32,
}

impl ReconfigurePlan {
    fn check(&self) -> Result<(), ParameterError> {
        check_load("the load", self.load_pps)?;
        check_seconds("the trial duration", self.trial_s)?;
        if self.repetitions == 0 {
            return Err(ParameterError::new(
                "the number of repetitions",
                0,
                "it must be at least 1",
            ));
        }
        Ok(())
    }
}

/// One change under load.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Change {
    /// What was lost in the trial without the change, before it.
    pub quiet: Measurement,
    /// The trial with the change.
    pub trial: Measurement,
    /// How long the change itself took, in seconds.
    pub change_s: f64,
    /// Lost / load in seconds; none if the generator lagged, or the change failed.
    pub blocked_s: Option<f64>,
    /// Why the change itself failed, or why its loss was not all seen.
    pub failure: Option<String>,
}

/// All changes, and what they cost. Times are seconds.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ReconfigureResult {
    /// In the order made.
    pub changes: Vec<Change>,
    /// Mean of the blocked times; none if there is no change to speak of.
    pub blocked_mean_s: Option<f64>,
    /// The longest of them.
    pub blocked_max_s: Option<f64>,
    /// The time that one lost packet stands for.
    pub resolution_s: f64,
    /// Packets lost in the trials without change: should be 0.
    pub lost_without_change: u64,
    /// All trials in the order made.
    pub trials: Vec<Trial>,
    /// Whether all changes were made.
    pub ending: Ending,
    /// Length of the test in seconds.
    pub seconds: f64,
}

/// Makes the changes under load. `change` is told which one it is, from 0; it runs while traffic does, as
/// [`Device::trial_with`] says, perhaps in another thread. A change that fails does not end the test.
///
/// # Errors
/// The plan cannot be followed.
pub fn measure<D: Device, E: std::fmt::Display>(
    plan: &ReconfigurePlan,
    device: &mut D,
    control: &mut Control<'_>,
    mut change: impl FnMut(u32) -> Result<(), E> + Send,
) -> Result<ReconfigureResult, ParameterError> {
    plan.check()?;
    let mut session = Session::new(device, control);
    let mut changes = Vec::new();
    let ending = run(plan, &mut session, &mut changes, &mut change)
        .err()
        .unwrap_or_default();
    let (trials, seconds) = session.finish(&ending);
    let blocked: Vec<f64> = changes.iter().filter_map(|change| change.blocked_s).collect();
    Ok(ReconfigureResult {
        blocked_mean_s: (!blocked.is_empty()).then(|| blocked.iter().sum::<f64>() / blocked.len() as f64),
        blocked_max_s: blocked.iter().copied().max_by(f64::total_cmp),
        resolution_s: 1.0 / plan.load_pps,
        lost_without_change: changes.iter().filter(|c| c.quiet.usable()).map(|c| c.quiet.lost).sum(),
        changes,
        trials,
        ending,
        seconds,
    })
}

fn run<D: Device, E: std::fmt::Display>(
    plan: &ReconfigurePlan,
    session: &mut Session<'_, '_, D>,
    changes: &mut Vec<Change>,
    change: &mut (impl FnMut(u32) -> Result<(), E> + Send),
) -> Result<(), Ending> {
    let after = Duration::from_secs_f64(plan.trial_s / 2.0);
    for number in 0..plan.repetitions {
        let remaining_s = f64::from(plan.repetitions - number) * 2.0 * plan.trial_s;
        let quiet = session.trial(plan.load_pps, plan.trial_s, remaining_s)?;
        let mut failure = Some("the trial ended before the change was begun".to_string());
        let mut change_s = 0.0;
        let mut action = || {
            let begun = MonotonicClock.now();
            failure = change(number).err().map(|error| error.to_string());
            change_s = MonotonicClock.now().since(begun).0 as f64 / 1e9;
        };
        let trial = session.trial_by(
            plan.load_pps,
            plan.trial_s,
            remaining_s - plan.trial_s,
            |device, duration| device.trial_with(plan.load_pps, duration, after, &mut action),
        )?;
        if failure.is_none() && change_s > plan.trial_s / 2.0 {
            failure = Some(format!(
                "the change took {change_s:.1} s and outlasted the traffic: make the trials longer than {:.0} s",
                change_s * 2.0
            ));
        }
        let counts = trial.usable() && failure.is_none();
        changes.push(Change {
            quiet,
            trial,
            change_s,
            blocked_s: counts.then(|| trial.lost as f64 / plan.load_pps),
            failure,
        });
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};

    use super::super::simulated::{Loss, Simulated, Time, controlled};
    use super::*;

    fn plan() -> ReconfigurePlan {
        ReconfigurePlan {
            load_pps: 2e6,
            trial_s: 4.0,
            repetitions: 5,
        }
    }

    #[test]
    fn lost_packets_become_blocked_time() {
        let time = Time::default();
        let mut device = Simulated::new(Loss::Knee { pps: 2.1e6, noise: 0.0 }, 1, &time);
        device.blocked_s = 0.0015;
        let changed = AtomicU32::new(0);
        let change = |number| -> Result<(), String> {
            assert_eq!(changed.fetch_add(1, Ordering::Relaxed), number);
            if number == 3 {
                Err("contract 7 is not valid".into())
            } else {
                Ok(())
            }
        };
        let (result, _) = controlled(&time, None, |control| measure(&plan(), &mut device, control, change));
        let result = result.expect("the plan is good");
        assert_eq!(changed.load(Ordering::Relaxed), 5);
        assert_eq!(
            (result.changes.len(), result.trials.len(), result.lost_without_change),
            (5, 10, 0)
        );
        assert_eq!(
            (result.blocked_mean_s, result.blocked_max_s),
            (Some(0.0015), Some(0.0015))
        );
        assert_eq!(result.changes[3].failure.as_deref(), Some("contract 7 is not valid"));
        assert_eq!(result.changes[3].blocked_s, None);
        assert_eq!(result.resolution_s, 0.5e-6);
    }

    #[test]
    fn loss_without_the_change_is_shown() {
        let time = Time::default();
        let mut device = Simulated::new(Loss::Always(0.001), 1, &time);
        let change = |_| Ok::<(), String>(());
        let (result, _) = controlled(&time, None, |control| measure(&plan(), &mut device, control, change));
        assert_eq!(result.expect("the plan is good").lost_without_change, 5 * 8_000);
    }

    #[test]
    fn a_failing_device_keeps_the_changes_before() {
        let time = Time::default();
        let mut device = Simulated::new(Loss::Never, 1, &time);
        device.fails_at = Some(5);
        let change = |_| Ok::<(), String>(());
        let (result, _) = controlled(&time, None, |control| measure(&plan(), &mut device, control, change));
        let result = result.expect("the plan is good");
        assert!(matches!(result.ending, Ending::DeviceFailed { .. }));
        assert_eq!((result.changes.len(), result.blocked_max_s), (2, Some(0.0)));
    }

    /// A device that has only what the trait demands, and waits for the action to be sure that it runs meanwhile.
    struct Plain<'a>(&'a AtomicBool);

    impl Device for Plain<'_> {
        type Error = std::io::Error;

        fn trial(&mut self, load_pps: f64, duration: Duration) -> Result<Measurement, std::io::Error> {
            while !self.0.load(Ordering::Acquire) {
                std::thread::yield_now();
            }
            Ok(Measurement {
                load_pps,
                sent: 1000,
                lost: 1,
                seconds: duration.as_secs_f64(),
                valid: true,
            })
        }
    }

    #[test]
    fn the_provided_trial_runs_the_action_beside_it() {
        let acted = AtomicBool::new(false);
        let mut action = || acted.store(true, Ordering::Release);
        let measured = Plain(&acted).trial_with(10.0, Duration::from_millis(2), Duration::from_millis(1), &mut action);
        assert_eq!(measured.expect("measured").lost, 1);
    }

    #[test]
    fn a_trial_that_ends_before_the_change_leaves_it_out() {
        let ended = AtomicBool::new(true);
        let mut changes = 0;
        let mut action = || changes += 1;
        let hour = Duration::from_secs(3600);
        Plain(&ended)
            .trial_with(10.0, hour, hour, &mut action)
            .expect("measured");
        assert_eq!(changes, 0);
        let time = Time::default();
        let plan = ReconfigurePlan {
            trial_s: 7200.0,
            repetitions: 1,
            ..plan()
        };
        let change = |_| Ok::<(), String>(());
        let (result, _) = controlled(&time, None, |control| {
            measure(&plan, &mut Plain(&ended), control, change)
        });
        let result = result.expect("the plan is good");
        assert_eq!(
            result.changes[0].failure.as_deref(),
            Some("the trial ended before the change was begun")
        );
        assert_eq!(result.blocked_mean_s, None);
    }

    #[test]
    fn bad_plans_are_refused() {
        for (plan, expected) in [
            (
                ReconfigurePlan {
                    repetitions: 0,
                    ..plan()
                },
                "the number of repetitions is 0",
            ),
            (
                ReconfigurePlan {
                    load_pps: f64::NAN,
                    ..plan()
                },
                "the load is NaN",
            ),
        ] {
            let time = Time::default();
            let mut device = Simulated::new(Loss::Never, 1, &time);
            let change = |_| Ok::<(), String>(());
            let (result, _) = controlled(&time, None, |control| measure(&plan, &mut device, control, change));
            assert!(result.expect_err("refused").to_string().contains(expected));
        }
    }
}

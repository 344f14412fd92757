//! Loss over hours at one load: trial after trial, with the ratio of each kept, so that a leak, a periodic task or a
//! heat problem shows where the mean would hide it.

use serde::{Deserialize, Serialize};

use super::session::Session;
use super::{Control, Device, Ending, ParameterError, Trial, check_load, check_seconds};

/// At which load, and how long.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct SoakPlan {
    /// Packets per second; usually a part of the NDR.
    pub load_pps: f64,
    /// Traffic in all, in seconds.
    pub total_s: f64,
    /// Length of each trial in seconds: the grain of loss over time. The last one may be shorter.
    pub trial_s: f64,
}

impl SoakPlan {
    fn check(&self) -> Result<(), ParameterError> {
        check_load("the load", self.load_pps)?;
        check_seconds("the length of the soak", self.total_s)?;
        check_seconds("the trial duration", self.trial_s)?;
        if self.trial_s > self.total_s {
            let rule = format!("it must not be longer than the soak, {} s", self.total_s);
            return Err(ParameterError::new(
                "the trial duration",
                format_args!("{} s", self.trial_s),
                rule,
            ));
        }
        if self.load_pps * self.trial_s < 1.0 {
            let rule = format!("a trial of {} s would not send one packet", self.trial_s);
            return Err(ParameterError::new(
                "the load",
                format_args!("{} packets per second", self.load_pps),
                rule,
            ));
        }
        Ok(())
    }
}

/// What was lost, and when. Counts are of the usable trials only.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct SoakResult {
    /// Packets sent.
    pub sent: u64,
    /// Of these, never arrived.
    pub lost: u64,
    /// Lost / sent; 0 if nothing was sent.
    pub loss_ratio: f64,
    /// Trials that lost at least one packet.
    pub lossy_trials: usize,
    /// Trials in which the generator lagged: they say nothing of the device.
    pub invalid_trials: usize,
    /// The usable trial of the largest loss ratio, the first of them; none if no trial lost anything.
    pub worst: Option<Trial>,
    /// The longest stretch without loss between two lossy trials or an end, in seconds of traffic.
    pub longest_lossless_s: f64,
    /// All trials in the order made: loss over time.
    pub trials: Vec<Trial>,
    /// Whether the soak lasted as long as planned.
    pub ending: Ending,
    /// Length of the soak in seconds, waits included.
    pub seconds: f64,
}

/// Holds one load.
///
/// # Errors
/// The plan cannot be followed.
pub fn run<D: Device>(
    plan: &SoakPlan,
    device: &mut D,
    control: &mut Control<'_>,
) -> Result<SoakResult, ParameterError> {
    plan.check()?;
    let mut session = Session::new(device, control);
    let ending = hold(plan, &mut session).err().unwrap_or_default();
    let (trials, seconds) = session.finish(&ending);
    Ok(summarize(trials, ending, seconds))
}

fn hold<D: Device>(plan: &SoakPlan, session: &mut Session<'_, '_, D>) -> Result<(), Ending> {
    // A rest too short for a packet, or for a clock, is no trial.
    let least_s = (1.0 / plan.load_pps).max(1e-3);
    let mut sent_s = 0.0;
    while plan.total_s - sent_s >= least_s.min(plan.trial_s) {
        let rest_s = plan.total_s - sent_s;
        let seconds = plan.trial_s.min(rest_s);
        session.trial(plan.load_pps, seconds, rest_s)?;
        sent_s += seconds;
    }
    Ok(())
}

fn summarize(trials: Vec<Trial>, ending: Ending, seconds: f64) -> SoakResult {
    let (mut sent, mut lost, mut lossy_trials) = (0_u64, 0_u64, 0);
    let mut worst: Option<Trial> = None;
    let (mut lossless_s, mut longest_lossless_s) = (0.0, 0.0_f64);
    for trial in trials.iter().filter(|trial| trial.measurement.usable()) {
        sent += trial.measurement.sent;
        lost += trial.measurement.lost;
        if trial.measurement.lost == 0 {
            lossless_s += trial.duration_s;
            longest_lossless_s = longest_lossless_s.max(lossless_s);
            continue;
        }
        lossless_s = 0.0;
        lossy_trials += 1;
        if worst.is_none_or(|w| trial.measurement.loss_ratio() > w.measurement.loss_ratio()) {
            worst = Some(*trial);
        }
    }
    SoakResult {
        sent,
        lost,
        loss_ratio: if sent == 0 {
            0.0
        } else {
            (lost as f64 / sent as f64).min(1.0)
        },
        lossy_trials,
        invalid_trials: trials.iter().filter(|trial| !trial.measurement.usable()).count(),
        worst,
        longest_lossless_s,
        trials,
        ending,
        seconds,
    }
}

#[cfg(test)]
mod tests {
    use super::super::Measurement;
    use super::super::simulated::{Loss, Simulated, Time, controlled, stoppable};
    use super::*;

    fn plan() -> SoakPlan {
        SoakPlan {
            load_pps: 1e6,
            total_s: 605.0,
            trial_s: 10.0,
        }
    }

    #[test]
    fn the_whole_time_is_filled() {
        let time = Time::default();
        let mut device = Simulated::new(Loss::Never, 1, &time);
        let (result, told) = controlled(&time, None, |control| run(&plan(), &mut device, control));
        let result = result.expect("the plan is good");
        assert_eq!((result.trials.len(), result.sent, result.lost), (61, 605_000_000, 0));
        assert_eq!((result.worst, result.longest_lossless_s), (None, 605.0));
        // With the first trial the overhead is known, and from then on the end.
        let expected: Vec<_> = told[1..].iter().map(|p| p.expected.as_secs()).collect();
        assert!(expected.iter().all(|&s| (616..=618).contains(&s)), "{expected:?}");
    }

    #[test]
    fn loss_is_counted_by_trial() {
        let trial = |at_s: f64, sent: u64, lost: u64, valid: bool| Trial {
            at_s,
            duration_s: 10.0,
            measurement: Measurement {
                load_pps: 10.0,
                sent,
                lost,
                seconds: 10.0,
                valid,
            },
        };
        let trials = vec![
            trial(0.0, 100, 0, true),
            trial(10.0, 100, 3, true),
            trial(20.0, 100, 0, true),
            trial(30.0, 100, 90, false),
            trial(40.0, 100, 0, true),
            trial(50.0, 100, 5, true),
        ];
        let result = summarize(trials, Ending::Complete, 60.0);
        assert_eq!((result.sent, result.lost, result.loss_ratio), (500, 8, 0.016));
        assert_eq!(
            (result.lossy_trials, result.invalid_trials, result.longest_lossless_s),
            (2, 1, 20.0)
        );
        assert_eq!(result.worst.map(|worst| worst.at_s), Some(50.0));
    }

    #[test]
    fn a_stop_keeps_what_was_counted() {
        let time = Time::default();
        let mut device = Simulated::new(Loss::Always(0.01), 1, &time);
        let (result, _) = stoppable(&time, None, 4, |control| run(&plan(), &mut device, control));
        let result = result.expect("the plan is good");
        assert_eq!(
            (result.ending, result.trials.len(), result.lossy_trials),
            (Ending::Stopped, 5, 5)
        );
        assert!((result.loss_ratio - 0.01).abs() < 1e-9);
    }

    #[test]
    fn bad_plans_are_refused() {
        let cases = [
            (
                SoakPlan {
                    load_pps: -1.0,
                    ..plan()
                },
                "the load is -1",
            ),
            (
                SoakPlan {
                    trial_s: 1000.0,
                    ..plan()
                },
                "it must not be longer than the soak, 605 s",
            ),
            (
                SoakPlan {
                    total_s: 1e12,
                    ..plan()
                },
                "at most 30 days",
            ),
            (
                SoakPlan {
                    load_pps: 0.01,
                    ..plan()
                },
                "would not send one packet",
            ),
        ];
        for (plan, expected) in cases {
            let time = Time::default();
            let mut device = Simulated::new(Loss::Never, 1, &time);
            let fault = controlled(&time, None, |control| run(&plan, &mut device, control))
                .0
                .expect_err("refused");
            assert!(fault.to_string().contains(expected), "{fault}");
        }
    }
}

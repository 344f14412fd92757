//! What an MLRsearch looks for: goals, and the coarser targets that lead to each.

use serde::{Deserialize, Serialize};

use super::super::{ParameterError, check_seconds};
use super::classify::Criteria;

/// One search goal (RFC 9971 section 4.6.7). Ratios are 0 to 1, durations seconds.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Goal {
    /// What reports call it.
    pub name: String,
    /// A trial that loses more than this ratio is a high-loss trial; 0 to below 1 (section 4.6.3).
    pub loss_ratio: f64,
    /// Up to this part of the trials, by duration, may be high-loss at a lower bound; 0 to below 1 (section 4.6.4).
    pub exceed_ratio: f64,
    /// The bounds are close enough once (upper - lower) / upper is at most this; above 0 to below 1 (section 4.6.5).
    pub width: f64,
    /// The shortest trial made for this goal (section 4.6.6).
    pub initial_trial_s: f64,
    /// The shortest trial that can make a lower bound (section 4.6.1).
    pub final_trial_s: f64,
    /// Trials of this sum of durations settle what a load is (section 4.6.2).
    pub duration_sum_s: f64,
    /// How many coarser targets, each of twice the width and fewer trials, are reached before the goal itself. More
    /// save time on a quiet device and waste it on a noisy one.
    pub preceding_targets: u32,
    /// By what a step grows each time the search has to look further outside; above 1.
    pub expansion: f64,
}

impl Goal {
    /// A goal of the FD.io CSIT project: trials of 1 s, 21 s in sum, exceed ratio 50 %, width 0.5 %, expansion 2.
    #[must_use]
    pub fn csit(name: impl Into<String>, loss_ratio: f64) -> Self {
        Self {
            name: name.into(),
            loss_ratio,
            exceed_ratio: 0.5,
            width: 0.005,
            initial_trial_s: 1.0,
            final_trial_s: 1.0,
            duration_sum_s: 21.0,
            preceding_targets: 2,
            expansion: 2.0,
        }
    }

    /// The non-drop rate: no loss at all.
    #[must_use]
    pub fn ndr() -> Self {
        Self::csit("NDR", 0.0)
    }

    /// The partial drop rate: at most 0.5 % lost.
    #[must_use]
    pub fn pdr() -> Self {
        Self::csit("PDR", 0.005)
    }

    /// The goal whose result is RFC 2544 throughput, unconditionally compliant (RFC 9971 section 4.10.2); shorter trials
    /// may rule a load out, only one of 60 s without loss may rule it in.
    #[must_use]
    pub fn rfc2544() -> Self {
        Self {
            exceed_ratio: 0.0,
            final_trial_s: 60.0,
            duration_sum_s: 60.0,
            ..Self::csit("RFC 2544", 0.0)
        }
    }

    /// What a load must show to be a bound for this goal.
    #[must_use]
    pub fn criteria(&self) -> Criteria {
        Criteria {
            loss_ratio: self.loss_ratio,
            exceed_ratio: self.exceed_ratio,
            full_length_s: self.final_trial_s,
            duration_sum_s: self.duration_sum_s,
        }
    }

    /// Refuses attributes outside the ranges of RFC 9971 section 4.6.
    pub(super) fn check(&self) -> Result<(), ParameterError> {
        let of = |what: &str| format!("{what} of goal {}", self.name);
        let ratios = [
            ("the loss ratio", self.loss_ratio),
            ("the exceed ratio", self.exceed_ratio),
        ];
        for (what, ratio) in ratios {
            if !(0.0..1.0).contains(&ratio) {
                let rule = "it must be from 0 to below 1, as in 0.005 for 0.5 %";
                return Err(ParameterError::new(of(what), ratio, rule));
            }
        }
        if !(WIDTH_MIN..1.0).contains(&self.width) {
            let rule = format!("it must be from {WIDTH_MIN} to below 1, as in 0.005 for 0.5 %");
            return Err(ParameterError::new(of("the width"), self.width, rule));
        }
        check_seconds(&of("the initial trial duration"), self.initial_trial_s)?;
        check_seconds(&of("the final trial duration"), self.final_trial_s)?;
        check_seconds(&of("the duration sum"), self.duration_sum_s)?;
        if self.initial_trial_s > self.final_trial_s {
            return Err(ParameterError::new(
                of("the initial trial duration"),
                format_args!("{} s", self.initial_trial_s),
                format!("it must not be longer than the final one, {} s", self.final_trial_s),
            ));
        }
        if !(self.expansion > 1.0 && self.expansion <= 1000.0) {
            let rule = "it must be above 1 and at most 1000; 2 is usual";
            return Err(ParameterError::new(
                of("the expansion coefficient"),
                self.expansion,
                rule,
            ));
        }
        if self.preceding_targets > PRECEDING_TARGETS_MAX {
            return Err(ParameterError::new(
                of("the number of preceding targets"),
                self.preceding_targets,
                format!("it must be at most {PRECEDING_TARGETS_MAX}; 2 is usual"),
            ));
        }
        Ok(())
    }

    /// The targets on the way to this goal, the coarsest first, the goal itself last. Sums of durations shrink
    /// geometrically from the goal's down to one initial trial; widths double.
    pub(super) fn targets(&self) -> Vec<Target> {
        let steps = self.preceding_targets;
        let initial_s = self.initial_trial_s.min(self.duration_sum_s);
        let shrink = if steps == 0 {
            1.0
        } else {
            (initial_s / self.duration_sum_s).powf(1.0 / f64::from(steps))
        };
        let log_width = -(1.0 - self.width).ln();
        (0..=steps)
            .rev()
            .map(|step| {
                let duration_sum_s = match step {
                    0 => self.duration_sum_s,
                    last if last == steps => initial_s,
                    _ => self.duration_sum_s * shrink.powi(step as i32),
                };
                let trial_s = if step == 0 {
                    self.final_trial_s
                } else {
                    self.final_trial_s.min(duration_sum_s)
                };
                Target {
                    criteria: Criteria {
                        full_length_s: trial_s,
                        duration_sum_s,
                        ..self.criteria()
                    },
                    log_width: log_width * f64::from(1_u32 << step),
                    expansion: self.expansion,
                }
            })
            .collect()
    }
}

/// A goal or a coarser forerunner of it.
#[derive(Clone, Copy, Debug)]
pub(super) struct Target {
    /// What makes a bound; `full_length_s` is also how long the trials made for it are.
    pub(super) criteria: Criteria,
    /// ln(upper / lower) of bounds that are close enough: in logarithms a relative width is the same everywhere.
    pub(super) log_width: f64,
    pub(super) expansion: f64,
}

/// Below a millionth a width is no longer a whole packet per second on most links, and rounding decides.
const WIDTH_MIN: f64 = 1e-6;
const PRECEDING_TARGETS_MAX: u32 = 10;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn targets_lead_from_one_trial_to_the_goal() {
        let targets = Goal::ndr().targets();
        let shape: Vec<_> = targets
            .iter()
            .map(|t| {
                (
                    t.criteria.full_length_s,
                    t.criteria.duration_sum_s,
                    t.log_width / targets[2].log_width,
                )
            })
            .collect();
        assert_eq!(shape[0], (1.0, 1.0, 4.0));
        assert!(
            (shape[1].1 - 21.0_f64.sqrt()).abs() < 1e-9 && shape[1].2 == 2.0,
            "{shape:?}"
        );
        assert_eq!(shape[2], (1.0, 21.0, 1.0));
        assert_eq!(
            Goal {
                preceding_targets: 0,
                ..Goal::ndr()
            }
            .targets()
            .len(),
            1
        );
    }

    #[test]
    fn attributes_out_of_range_are_named() {
        let good = Goal::ndr;
        let cases = [
            (
                Goal {
                    exceed_ratio: 1.5,
                    ..good()
                },
                "the exceed ratio of goal NDR is 1.5",
            ),
            (
                Goal {
                    loss_ratio: -0.1,
                    ..good()
                },
                "the loss ratio of goal NDR is -0.1",
            ),
            (
                Goal {
                    loss_ratio: f64::NAN,
                    ..good()
                },
                "the loss ratio of goal NDR is NaN",
            ),
            (Goal { width: 0.0, ..good() }, "the width of goal NDR is 0"),
            (Goal { width: 1.0, ..good() }, "the width of goal NDR is 1"),
            (
                Goal {
                    final_trial_s: 0.0,
                    ..good()
                },
                "the final trial duration of goal NDR is 0 s",
            ),
            (
                Goal {
                    initial_trial_s: 2.0,
                    ..good()
                },
                "not be longer than the final one, 1 s",
            ),
            (
                Goal {
                    duration_sum_s: f64::INFINITY,
                    ..good()
                },
                "the duration sum of goal NDR is inf s",
            ),
            (
                Goal {
                    expansion: 1.0,
                    ..good()
                },
                "the expansion coefficient of goal NDR is 1",
            ),
            (
                Goal {
                    preceding_targets: 40,
                    ..good()
                },
                "at most 10",
            ),
        ];
        for (goal, expected) in cases {
            let text = goal.check().expect_err("refused").to_string();
            assert!(text.contains(expected), "{text}");
        }
        assert_eq!(good().check(), Ok(()));
        assert_eq!(Goal::rfc2544().check(), Ok(()));
    }
}

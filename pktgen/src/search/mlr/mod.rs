//! MLRsearch: several throughputs in one search, by many short trials and a vote instead of a few long ones.
//!
//! Follows RFC 9971, with the load selection of FD.io CSIT: [`classify`](mod@classify) is its logic (section 6), `select`
//! picks loads, this file is its Controller (section 4.9.2). Of several goals that want a trial the lowest load is
//! measured first, so that upper bounds found later seldom undo work (section 5.3.4).
//!
//! Deviations and freedoms used: the effective duration of a trial is its intended one; a relative width is
//! (upper - lower) / upper; a trial in which the generator lagged is repeated and not counted as loss (the RFC
//! recommends, but does not require, to count it as loss: section 4.9.1).

pub mod classify;
mod goal;
mod select;

use serde::{Deserialize, Serialize};

use self::classify::{Database, Sample, conditional_throughput};
pub use self::goal::Goal;
use self::select::{Limits, NARROW, Nomination, Selector};
use super::session::Session;
use super::{Control, Device, Ending, Measurement, ParameterError, Trial, check_loads};

/// What to search for, and between which loads (RFC 9971 section 4.6.8). Loads are packets per second.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct MlrPlan {
    /// In the order of the results; usually the smaller loss ratio first.
    pub goals: Vec<Goal>,
    /// No smaller load is tried; the shortest trial must send at least one packet at it.
    pub min_load_pps: f64,
    /// No larger load is tried: line rate, or what the generator can do.
    pub max_load_pps: f64,
}

impl MlrPlan {
    /// NDR and PDR with the goals of FD.io CSIT.
    #[must_use]
    pub fn csit(min_load_pps: f64, max_load_pps: f64) -> Self {
        Self {
            goals: vec![Goal::ndr(), Goal::pdr()],
            min_load_pps,
            max_load_pps,
        }
    }

    fn check(&self) -> Result<(), ParameterError> {
        if self.goals.is_empty() {
            return Err(ParameterError::new(
                "the list of goals",
                "empty",
                "a search needs at least one goal",
            ));
        }
        for (index, goal) in self.goals.iter().enumerate() {
            goal.check()?;
            if self.goals[..index].iter().any(|other| other.name == goal.name) {
                return Err(ParameterError::new(
                    "the name of a goal",
                    &goal.name,
                    "another goal has it: rename one",
                ));
            }
        }
        let shortest_s = self
            .goals
            .iter()
            .map(|g| g.initial_trial_s.min(g.duration_sum_s))
            .fold(f64::MAX, f64::min);
        check_loads(self.min_load_pps, self.max_load_pps, shortest_s)
    }
}

/// What became of one goal (RFC 9971 section 4.8.4). Only [`Regular`](Outcome::Regular) is a regular result; the others
/// must be marked as irregular wherever their loads are shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Outcome {
    /// Both bounds, no further apart than the width.
    Regular,
    /// The maximum load is a lower bound: the throughput is at least that.
    MaxLoadPassed,
    /// The minimum load is an upper bound: there is no lower bound, the throughput is less than that.
    MinLoadFailed,
    /// The generator cannot send more than the lower bound: the throughput is at least that.
    GeneratorLimit,
    /// The search ended before the bounds were close enough.
    Unfinished,
}

impl Outcome {
    /// Whether the result is a regular one.
    #[must_use]
    pub fn is_regular(self) -> bool {
        self == Outcome::Regular
    }

    /// What the outcome means, for a report.
    #[must_use]
    pub fn explain(self) -> &'static str {
        match self {
            Outcome::Regular => "regular",
            Outcome::MaxLoadPassed => "irregular: the maximum load passed, so there is no upper bound",
            Outcome::MinLoadFailed => "irregular: the minimum load failed, so there is no lower bound",
            Outcome::GeneratorLimit => "irregular: the generator could not send more, so there is no upper bound",
            Outcome::Unfinished => "irregular: the search ended before the bounds were close enough",
        }
    }
}

/// Bounds by a coarser measure than the goal's, when the goal has none yet.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Provisional {
    /// By how many seconds of trials per load, where the goal wants its duration sum.
    pub duration_sum_s: f64,
    /// Packets per second.
    pub lower_bound_pps: Option<f64>,
    /// Packets per second.
    pub upper_bound_pps: Option<f64>,
}

/// The result for one goal. Loads and rates are packets per second.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct GoalResult {
    /// The goal as searched for.
    pub goal: Goal,
    /// Whether the result is regular, and if not, why.
    pub outcome: Outcome,
    /// The largest load below the upper bound that holds (section 4.8.2). With no upper bound, the largest that holds:
    /// an effective one only (section 4.8.4.2).
    pub relevant_lower_bound_pps: Option<f64>,
    /// The smallest load that fails (section 4.8.1).
    pub relevant_upper_bound_pps: Option<f64>,
    /// What the device forwards at the lower bound (section 4.8.3): the figure to compare and to report.
    pub conditional_throughput_pps: Option<f64>,
    /// For a search that ended early.
    pub provisional: Option<Provisional>,
}

/// The result of a search (RFC 9971 section 4.8.6).
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct MlrResult {
    /// One for each goal of the plan, in its order.
    pub goals: Vec<GoalResult>,
    /// Whether the search ran to its end.
    pub ending: Ending,
    /// The plan's limits, packets per second.
    pub min_load_pps: f64,
    /// The plan's limits, packets per second.
    pub max_load_pps: f64,
    /// The smallest load at which the generator lagged in every repeat, if any.
    pub unsendable_load_pps: Option<f64>,
    /// All trials in the order made.
    pub trials: Vec<Trial>,
    /// Length of the search in seconds.
    pub seconds: f64,
}

/// Searches for all goals of `plan`.
///
/// # Errors
/// The plan cannot be searched with. A failing device is no error: [`MlrResult::ending`] tells it, with what was found.
pub fn search<D: Device>(
    plan: &MlrPlan,
    device: &mut D,
    control: &mut Control<'_>,
) -> Result<MlrResult, ParameterError> {
    plan.check()?;
    let limits = Limits {
        min_pps: plan.min_load_pps,
        max_pps: plan.max_load_pps,
        unsendable_pps: None,
    };
    let mut search = Search {
        session: Session::new(device, control),
        database: Database::default(),
        selectors: Vec::new(),
        limits,
    };
    let ending = search.run(&plan.goals).err().unwrap_or_default();
    let Search {
        session,
        database,
        selectors,
        limits,
    } = search;
    let goals = plan
        .goals
        .iter()
        .enumerate()
        .map(|(index, goal)| goal_result(goal, selectors.get(index), &database, &limits))
        .collect();
    let (trials, seconds) = session.finish(&ending);
    Ok(MlrResult {
        goals,
        ending,
        min_load_pps: plan.min_load_pps,
        max_load_pps: plan.max_load_pps,
        unsendable_load_pps: limits.unsendable_pps,
        trials,
        seconds,
    })
}

struct Search<'s, 'c, D> {
    session: Session<'s, 'c, D>,
    database: Database,
    selectors: Vec<Selector>,
    limits: Limits,
}

impl<D: Device> Search<'_, '_, D> {
    fn run(&mut self, goals: &[Goal]) -> Result<(), Ending> {
        let (lower, upper) = self.initial_loads(goals)?;
        self.selectors = goals.iter().map(|goal| Selector::new(goal, lower, upper)).collect();
        loop {
            let (database, limits) = (&self.database, &self.limits);
            let lowest = self
                .selectors
                .iter_mut()
                .filter_map(|s| s.nominate(database, limits))
                .min_by(|a, b| {
                    // At the same load the longer trial serves both goals.
                    a.load_pps.total_cmp(&b.load_pps).then(b.seconds.total_cmp(&a.seconds))
                });
            let Some(nomination) = lowest else { return Ok(()) };
            let remaining_s: f64 = self.selectors.iter().map(|s| s.remaining_s(database, limits)).sum();
            self.measure(nomination, remaining_s.max(nomination.seconds))?;
        }
    }

    /// The first loads, by the forwarding rate at maximum offered load (RFC 2285 section 3.6.2, RFC 9971 section 1.1): an
    /// overloaded device tells at once about what it can do.
    fn initial_loads(&mut self, goals: &[Goal]) -> Result<(Option<f64>, Option<f64>), Ending> {
        let strictest = goals.iter().min_by(|a, b| a.loss_ratio.total_cmp(&b.loss_ratio));
        let Some(goal) = strictest else { return Ok((None, None)) };
        let Limits { min_pps, max_pps, .. } = self.limits;
        let Some(target) = goal.targets().first().copied() else {
            return Ok((None, None));
        };
        let seconds = target.criteria.full_length_s;
        let guess_s: f64 = goals.iter().map(|g| g.duration_sum_s * 1.5).sum();
        // Half a width below what was forwarded, so that the final bounds, whole widths apart, fall on either side of
        // where votes would be evenly split and long.
        let half_a_width = (1.0 - goal.width).sqrt();
        let forwarded = |m: &Measurement| m.forwarding_rate_pps() / (1.0 - goal.loss_ratio) * half_a_width;
        let below = |load: f64, rate: f64| rate.min(load * (-target.log_width).exp()).max(min_pps);

        let Some(first) = self.measure(
            Nomination {
                load_pps: max_pps,
                seconds,
            },
            guess_s,
        )?
        else {
            return Ok((None, None));
        };
        if first.loss_ratio() <= goal.loss_ratio {
            return Ok((Some(max_pps), None));
        }
        let second_pps = below(max_pps, forwarded(&first));
        let Some(second) = self.measure(
            Nomination {
                load_pps: second_pps,
                seconds,
            },
            guess_s,
        )?
        else {
            return Ok((None, None));
        };
        if second.loss_ratio() <= goal.loss_ratio {
            let above = second_pps * target.log_width.exp();
            return Ok((Some(second_pps), Some(above.min(max_pps))));
        }
        let third_pps = below(second_pps, forwarded(&second));
        Ok((Some(third_pps), (third_pps < second_pps).then_some(second_pps)))
    }

    fn measure(&mut self, trial: Nomination, remaining_s: f64) -> Result<Option<Measurement>, Ending> {
        let measured = self.session.load_trial(trial.load_pps, trial.seconds, remaining_s)?;
        match &measured {
            Some(m) => {
                self.database.add(
                    trial.load_pps,
                    Sample {
                        seconds: trial.seconds,
                        loss_ratio: m.loss_ratio(),
                    },
                );
            }
            None => self.limits.unsendable_pps = Some(trial.load_pps),
        }
        Ok(measured)
    }
}

fn goal_result(goal: &Goal, selector: Option<&Selector>, database: &Database, limits: &Limits) -> GoalResult {
    let criteria = goal.criteria();
    let (lower, upper) = database.bounds(&criteria);
    let narrow = |lower: f64, upper: f64| (upper / lower).ln() <= -(1.0 - goal.width).ln() * NARROW;
    let outcome = match (lower, upper, limits.unsendable_pps) {
        (Some(lower), Some(upper), _) if narrow(lower, upper) => Outcome::Regular,
        (None, Some(upper), _) if upper <= limits.min_pps => Outcome::MinLoadFailed,
        (Some(lower), None, _) if lower >= limits.max_pps => Outcome::MaxLoadPassed,
        (Some(lower), _, Some(unsendable)) if narrow(lower, unsendable) => Outcome::GeneratorLimit,
        (None, _, Some(unsendable)) if unsendable <= limits.min_pps => Outcome::GeneratorLimit,
        _ => Outcome::Unfinished,
    };
    let provisional = selector
        .filter(|_| outcome == Outcome::Unfinished)
        .and_then(|selector| {
            let (duration_sum_s, lower_bound_pps, upper_bound_pps) = selector.provisional(database)?;
            Some(Provisional {
                duration_sum_s,
                lower_bound_pps,
                upper_bound_pps,
            })
        });
    GoalResult {
        goal: goal.clone(),
        outcome,
        relevant_lower_bound_pps: lower,
        relevant_upper_bound_pps: upper,
        conditional_throughput_pps: lower
            .map(|load_pps| conditional_throughput(load_pps, database.samples(load_pps), &criteria)),
        provisional,
    }
}

#[cfg(test)]
mod tests;

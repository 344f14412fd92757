//! Which load to try next. The RFC leaves this to the implementation (section 4.1.3); the method is that of FD.io CSIT:
//! each goal is led through its coarser targets, and the bounds of one target are the first loads of the next.

use super::classify::{Bound, Database, classify};
use super::goal::{Goal, Target};

/// Between which loads trials may be made, packets per second.
#[derive(Clone, Copy, Debug)]
pub(super) struct Limits {
    pub(super) min_pps: f64,
    pub(super) max_pps: f64,
    /// The smallest load known to be beyond the generator; larger than any load that was measured.
    pub(super) unsendable_pps: Option<f64>,
}

/// A trial that a goal asks for.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Nomination {
    pub(super) load_pps: f64,
    pub(super) seconds: f64,
}

/// One goal on its way.
#[derive(Debug)]
pub(super) struct Selector {
    targets: Vec<Target>,
    at: usize,
    /// The bounds of the target before, or where the search begins: the loads to confirm first.
    initial_lower: Option<f64>,
    initial_upper: Option<f64>,
    /// ln of the ratio by which the next step outside goes.
    step: f64,
    /// The load being measured, kept until it is decided or of no use any more.
    current: Option<f64>,
}

impl Selector {
    /// A goal that begins between two loads, packets per second.
    pub(super) fn new(goal: &Goal, initial_lower: Option<f64>, initial_upper: Option<f64>) -> Self {
        let mut selector = Self {
            targets: goal.targets(),
            at: 0,
            initial_lower,
            initial_upper,
            step: 0.0,
            current: None,
        };
        selector.reset_step();
        selector
    }

    /// The next trial for this goal; `None` when its bounds are close enough or at the limits.
    pub(super) fn nominate(&mut self, database: &Database, limits: &Limits) -> Option<Nomination> {
        loop {
            let target = self.targets[self.at];
            let (lower, upper) = database.bounds(&target.criteria);
            let interval = Interval {
                lower,
                upper: upper.or(limits.unsendable_pps),
            };
            if !self
                .current
                .is_some_and(|load| interval.has_inside(load) && is_open(database, load, &target))
            {
                self.current = self.next_load(&interval, limits);
            }
            if let Some(load_pps) = self.current {
                return Some(Nomination {
                    load_pps,
                    seconds: target.criteria.full_length_s,
                });
            }
            if self.at + 1 == self.targets.len() {
                return None;
            }
            self.at += 1;
            self.initial_lower = interval.lower;
            self.initial_upper = interval.upper;
            self.reset_step();
        }
    }

    /// A rough estimate of the traffic this goal still needs, in seconds.
    pub(super) fn remaining_s(&self, database: &Database, limits: &Limits) -> f64 {
        let target = self.targets[self.at];
        let (lower, upper) = database.bounds(&target.criteria);
        let loads = match (lower, upper.or(limits.unsendable_pps)) {
            (Some(lower), Some(upper)) => ((upper / lower).ln() / target.log_width / NARROW)
                .log2()
                .ceil()
                .max(0.0),
            (None, None) => 2.0,
            _ => 1.0,
        };
        // A load is settled once half the sum speaks with one voice; the noise near the knee asks for somewhat more.
        let per_load = |target: &Target| (target.criteria.duration_sum_s * 0.55).max(target.criteria.full_length_s);
        // Each later target confirms one bound and halves once; what it is spared by other goals' trials makes up for noise.
        let later_s: f64 = self.targets[self.at + 1..]
            .iter()
            .map(|target| 2.0 * per_load(target))
            .sum();
        loads * per_load(&target) + later_s
    }

    /// Bounds of the finest target so far that has any, with that target's duration sum in seconds.
    pub(super) fn provisional(&self, database: &Database) -> Option<(f64, Option<f64>, Option<f64>)> {
        self.targets[..=self.at].iter().rev().find_map(|target| {
            let (lower, upper) = database.bounds(&target.criteria);
            (lower.is_some() || upper.is_some()).then_some((target.criteria.duration_sum_s, lower, upper))
        })
    }

    fn reset_step(&mut self) {
        let target = self.targets[self.at];
        let initial = match (self.initial_lower, self.initial_upper) {
            (Some(lower), Some(upper)) => (upper / lower).ln(),
            _ => 0.0,
        };
        self.step = initial.max(target.log_width) * target.expansion;
        self.current = None;
    }

    /// The load to decide next, strictly inside `interval`; `None` when nothing is left to find for this target.
    fn next_load(&mut self, interval: &Interval, limits: &Limits) -> Option<f64> {
        let target = self.targets[self.at];
        let at_limit = match (interval.lower, interval.upper) {
            (Some(lower), Some(upper)) => (upper / lower).ln() <= target.log_width * NARROW,
            (Some(lower), None) => lower >= limits.max_pps,
            (None, Some(upper)) => upper <= limits.min_pps,
            (None, None) => false,
        };
        if at_limit {
            return None;
        }
        if let Some(load) = self.halfway(interval, &target) {
            return Some(load);
        }
        // The lower one first: its trials can make upper bounds above it irrelevant, not the other way round.
        let initial = [self.initial_lower, self.initial_upper].into_iter().flatten();
        if let Some(load) = initial.into_iter().find(|&load| interval.has_inside(load)) {
            return Some(load);
        }
        match (interval.lower, interval.upper) {
            (None, None) => Some(limits.max_pps),
            (Some(lower), None) => Some(self.step_up(lower, &target, limits)),
            (None, Some(upper)) => Some(self.step_down(upper, &target, limits)),
            (Some(lower), Some(upper)) => Some(self.between(lower, upper, &target)),
        }
    }

    /// The middle of the initial interval, if nothing is known that speaks against the interval and one halving makes
    /// it narrow enough: then one of its two ends need not be measured at all.
    fn halfway(&self, interval: &Interval, target: &Target) -> Option<f64> {
        let (lower, upper) = (self.initial_lower?, self.initial_upper?);
        let goals = (upper / lower).ln() / target.log_width;
        let unrefuted = interval.lower.is_none_or(|known| known <= lower) && interval.upper.is_none_or(|k| k >= upper);
        if !unrefuted || goals <= NARROW || goals > 2.0 * NARROW {
            return None;
        }
        let load = middle(lower, upper, target);
        interval.has_inside(load).then_some(load)
    }

    fn step_up(&mut self, lower: f64, target: &Target, limits: &Limits) -> f64 {
        let load = lower * self.step.exp();
        self.step *= target.expansion;
        // A step that would end just short of the limit goes there, so that no sliver is left.
        if load * target.log_width.exp() >= limits.max_pps {
            limits.max_pps
        } else {
            load
        }
    }

    fn step_down(&mut self, upper: f64, target: &Target, limits: &Limits) -> f64 {
        let load = upper * (-self.step).exp();
        self.step *= target.expansion;
        if load * (-target.log_width).exp() <= limits.min_pps {
            limits.min_pps
        } else {
            load
        }
    }

    /// Bisects; but where one bound is far from all that was thought likely, steps from the other instead.
    fn between(&mut self, lower: f64, upper: f64, target: &Target) -> f64 {
        let middle = middle(lower, upper, target);
        let below = upper * (-self.step).exp();
        if self
            .initial_upper
            .is_some_and(|initial| middle < initial && below < initial)
            && below > middle
        {
            self.step *= target.expansion;
            return below;
        }
        let above = lower * self.step.exp();
        if self
            .initial_lower
            .is_some_and(|initial| middle > initial && above > initial)
            && above < middle
        {
            self.step *= target.expansion;
            return above;
        }
        let smaller_part = (upper / middle).ln().min((middle / lower).ln());
        self.step = smaller_part.max(target.log_width) * target.expansion;
        middle
    }
}

/// Loads between two bounds, either of which may be missing.
#[derive(Clone, Copy, Debug)]
struct Interval {
    lower: Option<f64>,
    upper: Option<f64>,
}

impl Interval {
    fn has_inside(&self, load: f64) -> bool {
        self.lower.is_none_or(|lower| lower < load) && self.upper.is_none_or(|upper| load < upper)
    }
}

fn is_open(database: &Database, load: f64, target: &Target) -> bool {
    classify(database.samples(load), &target.criteria) == Bound::Undecided
}

/// A load between two, a whole number of widths above the lower one, about half way: so that as many halvings as needed
/// end at the width and not just above it.
fn middle(lower: f64, upper: f64, target: &Target) -> f64 {
    let goals = ((upper / lower).ln() / target.log_width / NARROW).ceil();
    let load = lower * ((goals / 2.0).floor() * target.log_width).exp();
    if goals >= 2.0 && load < upper {
        load
    } else {
        (lower * upper).sqrt()
    }
}

/// A width is reached also when rounding has made it a hair wider.
pub(super) const NARROW: f64 = 1.0 + 1e-6;

//! The whole search against simulated devices of known truth.

use std::time::Duration;

use super::super::simulated::{Loss, Simulated, Time, controlled, stoppable};
use super::*;

const MAX_PPS: f64 = 14_880_952.0;
const MIN_PPS: f64 = 9_001.0;

fn csit() -> MlrPlan {
    MlrPlan::csit(MIN_PPS, MAX_PPS)
}

/// A knee for each seed, anywhere from 0.5 to 14 Mpps.
fn knee_of(seed: u64) -> f64 {
    500_000.0 + (seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) >> 40) as f64 / f64::from(1 << 24) * 13_500_000.0
}

fn find(plan: &MlrPlan, loss: Loss, seed: u64) -> MlrResult {
    let time = Time::default();
    let mut device = Simulated::new(loss, seed, &time);
    let (result, _) = controlled(&time, None, |control| search(plan, &mut device, control));
    result.expect("the plan is good")
}

fn off_by(found: Option<f64>, truth: f64) -> f64 {
    (found.expect("found") / truth - 1.0).abs()
}

#[test]
fn a_noisy_knee_is_found_within_half_a_percent() {
    let mut trials = Vec::new();
    for seed in 0..200 {
        let pps = knee_of(seed);
        let result = find(&csit(), Loss::Knee { pps, noise: 0.001 }, seed);
        assert_eq!(result.ending, Ending::Complete, "seed {seed}");
        for (goal, truth) in result.goals.iter().zip([pps, pps / 0.995]) {
            let what = format!("seed {seed}, knee {pps}, {}: {goal:?}", goal.goal.name);
            assert!(goal.outcome.is_regular(), "{what}");
            let (lower, upper) = (
                goal.relevant_lower_bound_pps.expect("regular"),
                goal.relevant_upper_bound_pps.expect("regular"),
            );
            assert!((upper - lower) / upper <= goal.goal.width * 1.0001, "{what}");
            // A vote of 21 trials sees a load a tenth of a percent beside the knee on its right side.
            assert!(lower < truth * 1.001 && upper > truth * 0.999, "{what}");
            assert!(off_by(Some(f64::midpoint(lower, upper)), truth) < 0.005, "{what}");
            // What is forwarded at either goal's lower bound is the knee, less the width for the NDR.
            let forwarded = goal.conditional_throughput_pps.expect("regular");
            assert!(forwarded <= lower && off_by(Some(forwarded), pps) < 0.006, "{what}");
        }
        trials.push(result.trials.len());
    }
    trials.sort_unstable();
    // Eleven trials settle each of three loads, for the upper bound of the NDR is the lower one of the PDR, and two lead
    // there; the reference implementation (MLRsearch 1.2.1 of FD.io CSIT) takes 38 in the median on such devices.
    assert!(
        trials[100] <= 40 && trials[199] < 100,
        "median {}, most {}",
        trials[100],
        trials[199]
    );
}

#[test]
fn with_half_the_width_the_throughput_itself_is_within_half_a_percent() {
    let mut plan = csit();
    plan.goals.iter_mut().for_each(|goal| goal.width = 0.0025);
    for seed in 1000..1200 {
        let pps = knee_of(seed);
        let result = find(&plan, Loss::Knee { pps, noise: 0.001 }, seed);
        let [ndr, pdr] = &result.goals[..] else {
            panic!("two goals")
        };
        assert!(ndr.outcome.is_regular() && pdr.outcome.is_regular(), "seed {seed}");
        assert!(
            off_by(ndr.relevant_lower_bound_pps, pps) < 0.005,
            "seed {seed}, knee {pps}: {ndr:?}"
        );
        assert!(
            off_by(ndr.conditional_throughput_pps, pps) < 0.005,
            "seed {seed}, knee {pps}: {ndr:?}"
        );
        assert!(
            off_by(pdr.relevant_lower_bound_pps, pps / 0.995) < 0.005,
            "seed {seed}, knee {pps}: {pdr:?}"
        );
        assert!(
            off_by(pdr.conditional_throughput_pps, pps) < 0.005,
            "seed {seed}, knee {pps}: {pdr:?}"
        );
    }
}

#[test]
fn rare_losses_below_the_knee_do_not_move_it() {
    for seed in 0..100 {
        let pps = knee_of(seed);
        let result = find(
            &csit(),
            Loss::Sporadic {
                pps,
                noise: 0.0005,
                chance: 0.1,
                part: 0.02,
            },
            seed,
        );
        for (goal, truth) in result.goals.iter().zip([pps, pps / 0.995]) {
            let what = format!("seed {seed}, knee {pps}: {goal:?}");
            assert!(goal.outcome.is_regular(), "{what}");
            // One lossy trial can make a coarse target begin too low; the goal's own votes correct that.
            assert!(off_by(goal.relevant_lower_bound_pps, truth) < 0.0065, "{what}");
        }
        assert!(result.trials.len() < 300, "seed {seed}: {}", result.trials.len());
    }
}

#[test]
fn a_device_that_collapses_under_overload_is_searched_from_below_too() {
    for seed in 0..50 {
        let pps = knee_of(seed);
        let result = find(&csit(), Loss::Collapsing { pps }, seed);
        assert!(
            off_by(result.goals[0].relevant_lower_bound_pps, pps) < 0.0051,
            "seed {seed}"
        );
        assert!(result.goals.iter().all(|goal| goal.outcome.is_regular()), "seed {seed}");
    }
}

#[test]
fn a_device_without_loss_passes_at_the_maximum_load() {
    let result = find(&csit(), Loss::Never, 1);
    for goal in &result.goals {
        assert_eq!(goal.outcome, Outcome::MaxLoadPassed);
        assert_eq!(goal.relevant_lower_bound_pps, Some(MAX_PPS));
        assert_eq!(goal.relevant_upper_bound_pps, None);
        assert_eq!(goal.conditional_throughput_pps, Some(MAX_PPS));
    }
    // Eleven of twenty-one settle it, for both goals at once.
    assert_eq!(result.trials.len(), 11);
}

#[test]
fn a_device_that_always_loses_has_no_lower_bound() {
    for part in [0.02, 1.0] {
        let result = find(&csit(), Loss::Always(part), 1);
        for goal in &result.goals {
            assert_eq!(goal.outcome, Outcome::MinLoadFailed);
            assert_eq!(goal.relevant_upper_bound_pps, Some(MIN_PPS));
            assert_eq!(
                (goal.relevant_lower_bound_pps, goal.conditional_throughput_pps),
                (None, None)
            );
        }
        assert!(result.trials.len() < 40, "{}", result.trials.len());
    }
    // Between the two goals' loss ratios: no NDR, but all there is as PDR.
    let result = find(&csit(), Loss::Always(0.004), 1);
    assert_eq!(result.goals[0].outcome, Outcome::MinLoadFailed);
    assert_eq!(result.goals[1].outcome, Outcome::MaxLoadPassed);
    assert!(off_by(result.goals[1].conditional_throughput_pps, MAX_PPS * 0.996) < 1e-6);
}

#[test]
fn a_flapping_device_ends_the_search_all_the_same() {
    for seed in 0..100 {
        let result = find(&csit(), Loss::Flapping, seed);
        assert_eq!(result.ending, Ending::Complete, "seed {seed}");
        assert!(result.trials.len() < 2000, "seed {seed}: {}", result.trials.len());
        for goal in &result.goals {
            assert_ne!(goal.outcome, Outcome::Unfinished, "seed {seed}: {goal:?}");
            if let (Some(lower), Some(upper)) = (goal.relevant_lower_bound_pps, goal.relevant_upper_bound_pps) {
                assert!(lower < upper, "seed {seed}: {goal:?}");
            }
        }
    }
}

#[test]
fn loads_and_durations_stay_within_the_plan() {
    for (seed, loss) in [
        (1, Loss::Flapping),
        (
            2,
            Loss::Knee {
                pps: 12_000.0,
                noise: 0.05,
            },
        ),
        (3, Loss::Always(0.5)),
    ] {
        for trial in find(&csit(), loss, seed).trials {
            assert!(
                (MIN_PPS..=MAX_PPS).contains(&trial.measurement.load_pps),
                "{loss:?}: {trial:?}"
            );
            assert_eq!(trial.duration_s, 1.0, "{loss:?}");
        }
    }
}

#[test]
fn the_goal_of_rfc_2544_takes_long_trials_only_where_needed() {
    let plan = MlrPlan {
        goals: vec![Goal::rfc2544()],
        ..csit()
    };
    let result = find(&plan, Loss::Knee { pps: 2e6, noise: 0.0 }, 1);
    let goal = &result.goals[0];
    assert!(goal.outcome.is_regular() && off_by(goal.relevant_lower_bound_pps, 2e6) < 0.005);
    assert_eq!(goal.relevant_lower_bound_pps, goal.conditional_throughput_pps);
    let long = result.trials.iter().filter(|trial| trial.duration_s >= 60.0).count();
    assert!((1..=2).contains(&long), "{long} trials of 60 s");
    let at_bound = |t: &&Trial| Some(t.measurement.load_pps) == goal.relevant_lower_bound_pps && t.duration_s >= 60.0;
    assert_eq!(
        result.trials.iter().filter(at_bound).count(),
        1,
        "one full-length trial without loss is enough"
    );
}

#[test]
fn a_load_beyond_the_generator_bounds_the_search() {
    let time = Time::default();
    let mut device = Simulated::new(Loss::Never, 1, &time);
    device.generator_pps = 5e6;
    let (result, _) = controlled(&time, None, |control| search(&csit(), &mut device, control));
    let result = result.expect("the plan is good");
    for goal in &result.goals {
        assert_eq!(goal.outcome, Outcome::GeneratorLimit);
        assert_eq!(goal.relevant_upper_bound_pps, None);
        assert!(off_by(goal.relevant_lower_bound_pps, 5e6) < 0.005, "{goal:?}");
    }
    assert!(
        result
            .unsendable_load_pps
            .is_some_and(|load| load > 5e6 && load < 5.03e6)
    );

    // One that cannot even send the least proves nothing of the device.
    let mut device = Simulated::new(Loss::Never, 1, &time);
    device.generator_pps = 1.0;
    let (result, _) = controlled(&time, None, |control| search(&csit(), &mut device, control));
    let result = result.expect("the plan is good");
    assert_eq!(
        (result.ending, result.goals[0].outcome),
        (Ending::Complete, Outcome::GeneratorLimit)
    );
    assert_eq!(
        (
            result.goals[0].relevant_lower_bound_pps,
            result.goals[0].relevant_upper_bound_pps
        ),
        (None, None)
    );
}

#[test]
fn a_lagging_generator_is_not_counted_as_loss() {
    let mut lagged = 0;
    for seed in 0..60 {
        let time = Time::default();
        let mut device = Simulated::new(
            Loss::Knee {
                pps: 3e6,
                noise: 0.0005,
            },
            seed,
            &time,
        );
        device.hiccups = if seed % 2 == 0 { 0.05 } else { 0.3 };
        let (result, _) = controlled(&time, None, |control| search(&csit(), &mut device, control));
        let result = result.expect("the plan is good");
        lagged += result.trials.iter().filter(|trial| !trial.measurement.valid).count();
        assert_eq!(result.ending, Ending::Complete, "seed {seed}");
        assert!(
            off_by(result.goals[0].relevant_lower_bound_pps, 3e6) < 0.006,
            "seed {seed}: {:?}",
            result.goals
        );
    }
    assert!(lagged > 300, "{lagged}");
}

#[test]
fn a_generator_that_stops_keeping_up_ends_the_search() {
    let time = Time::default();
    let mut device = Simulated::new(
        Loss::Knee {
            pps: 3e6,
            noise: 0.0005,
        },
        1,
        &time,
    );
    device.busy_from = 20;
    let (result, _) = controlled(&time, None, |control| search(&csit(), &mut device, control));
    let result = result.expect("the plan is good");
    let Ending::DeviceFailed { message } = &result.ending else {
        panic!("{:?}", result.ending)
    };
    assert!(
        message.starts_with("the generator lagged 11 times in a row at "),
        "{message}"
    );
    assert_eq!((result.trials.len(), result.unsendable_load_pps), (31, None));
}

/// Any plan on any device: the search ends, keeps to its limits and says of each goal what its own trials say.
#[test]
fn whatever_the_plan_and_the_device_the_result_agrees_with_its_trials() {
    use rand::rngs::StdRng;
    use rand::{RngExt, SeedableRng};
    for seed in 0..400 {
        let mut random = StdRng::seed_from_u64(seed);
        let goals = (0..random.random_range(1..4))
            .map(|number| {
                let initial_trial_s = [0.1, 0.5, 1.0][random.random_range(0..3)];
                Goal {
                    name: format!("goal {number}"),
                    loss_ratio: [0.0, 0.0001, 0.005, 0.1][random.random_range(0..4)],
                    exceed_ratio: [0.0, 0.25, 0.5, 0.9][random.random_range(0..4)],
                    width: [0.0005, 0.005, 0.05, 0.5][random.random_range(0..4)],
                    initial_trial_s,
                    final_trial_s: initial_trial_s * [1.0, 2.0, 10.0][random.random_range(0..3)],
                    duration_sum_s: [0.5, 1.0, 5.0, 21.0][random.random_range(0..4)],
                    preceding_targets: random.random_range(0..5),
                    expansion: [1.1, 2.0, 10.0][random.random_range(0..3)],
                }
            })
            .collect();
        let pps = knee_of(seed);
        let loss = match random.random_range(0..6) {
            0 => Loss::Knee { pps, noise: 0.01 },
            1 => Loss::Sporadic {
                pps,
                noise: 0.001,
                chance: 0.3,
                part: 0.05,
            },
            2 => Loss::Collapsing { pps },
            3 => Loss::Always([0.00005, 0.004, 0.5, 1.0][random.random_range(0..4)]),
            4 => Loss::Never,
            _ => Loss::Flapping,
        };
        let min_load_pps = if seed % 5 == 0 { MAX_PPS * 0.97 } else { MIN_PPS };
        let plan = MlrPlan {
            goals,
            min_load_pps,
            max_load_pps: MAX_PPS,
        };
        let time = Time::default();
        let mut device = Simulated::new(loss, seed, &time);
        if seed % 3 == 0 {
            device.generator_pps = knee_of(seed + 7);
            device.hiccups = 0.05;
        }
        let (result, _) = controlled(&time, None, |control| search(&plan, &mut device, control));
        let result = result.expect("the plan is good");
        let what = format!("seed {seed}: {loss:?}, {plan:?}");
        assert_eq!(result.ending, Ending::Complete, "{what}");
        assert!(result.trials.len() < 5000, "{what}: {} trials", result.trials.len());
        assert!(
            result
                .trials
                .iter()
                .all(|t| (min_load_pps..=MAX_PPS).contains(&t.measurement.load_pps)),
            "{what}"
        );
        result
            .goals
            .iter()
            .for_each(|goal| agrees_with_trials(goal, &result, &what));
    }
}

fn agrees_with_trials(found: &GoalResult, result: &MlrResult, what: &str) {
    use super::classify::{Bound, classify};
    let goal = &found.goal;
    let bound_of = |load_pps: f64| {
        let at = |t: &&Trial| t.measurement.load_pps == load_pps && t.measurement.usable();
        let sample = |t: &Trial| Sample {
            seconds: t.duration_s,
            loss_ratio: t.measurement.loss_ratio(),
        };
        classify(
            &result.trials.iter().filter(at).map(sample).collect::<Vec<_>>(),
            &goal.criteria(),
        )
    };
    let (lower, upper) = (found.relevant_lower_bound_pps, found.relevant_upper_bound_pps);
    assert!(
        lower.is_none_or(|load| bound_of(load) == Bound::Lower),
        "{what}: {found:?}"
    );
    assert!(
        upper.is_none_or(|load| bound_of(load) == Bound::Upper),
        "{what}: {found:?}"
    );
    let any_upper_below = |t: &Trial| {
        upper.is_none_or(|upper| t.measurement.load_pps < upper) && bound_of(t.measurement.load_pps) == Bound::Upper
    };
    assert!(!result.trials.iter().any(any_upper_below), "{what}: {found:?}");
    match (found.outcome, lower, upper) {
        (Outcome::Regular, Some(lower), Some(upper)) => {
            assert!(
                lower < upper && (upper - lower) / upper <= goal.width * 1.00001,
                "{what}: {found:?}"
            );
            let forwarded = found.conditional_throughput_pps.expect("a lower bound");
            assert!(
                forwarded <= lower && forwarded >= lower * (1.0 - goal.loss_ratio) * 0.999_999,
                "{what}: {found:?}"
            );
        }
        (Outcome::MaxLoadPassed, Some(lower), None) => assert_eq!(lower, result.max_load_pps, "{what}"),
        (Outcome::MinLoadFailed, None, Some(upper)) => assert_eq!(upper, result.min_load_pps, "{what}"),
        (Outcome::GeneratorLimit, _, None) => assert!(result.unsendable_load_pps.is_some(), "{what}"),
        other => panic!("{what}: {other:?}"),
    }
}

#[test]
fn the_time_budget_is_kept_and_what_was_found_is_given() {
    let whole = find(&csit(), Loss::Knee { pps: 3e6, noise: 0.001 }, 5);
    for seconds in [0, 1, 5, 15, 25, 35] {
        let time = Time::default();
        let mut device = Simulated::new(Loss::Knee { pps: 3e6, noise: 0.001 }, 5, &time);
        let budget = Duration::from_secs(seconds);
        let (result, told) = controlled(&time, Some(budget), |control| search(&csit(), &mut device, control));
        let result = result.expect("the plan is good");
        assert!(
            whole.seconds > 40.0 && result.ending == Ending::OutOfTime,
            "{seconds} s: {:?}",
            result.ending
        );
        // The last trial may end late by its own waiting, not by its sending.
        assert!(
            result.seconds <= seconds as f64 + 0.2,
            "{seconds} s: {}",
            result.seconds
        );
        assert!(
            told.iter()
                .all(|p| p.expected >= p.done && p.expected <= budget.max(p.done))
        );
        assert_eq!(
            result.trials[..],
            whole.trials[..result.trials.len()],
            "the same trials up to the end"
        );
        let ndr = &result.goals[0];
        if (5..20).contains(&seconds) {
            assert_eq!(ndr.outcome, Outcome::Unfinished);
            let provisional = ndr.provisional.expect("some bound by now");
            assert!(
                provisional
                    .lower_bound_pps
                    .is_none_or(|lower| off_by(Some(lower), 3e6) < 0.05),
                "{ndr:?}"
            );
        }
    }
}

#[test]
fn the_stop_flag_gives_the_partial_result() {
    for stop_at in [0, 3, 30] {
        let time = Time::default();
        let mut device = Simulated::new(Loss::Knee { pps: 3e6, noise: 0.001 }, 5, &time);
        let (result, told) = stoppable(&time, None, stop_at, |control| search(&csit(), &mut device, control));
        let result = result.expect("the plan is good");
        assert_eq!(result.ending, Ending::Stopped);
        assert_eq!(result.trials.len(), stop_at + 1, "the trial under way is kept");
        assert_eq!(result.goals.len(), 2);
        assert_eq!(told.last().map(|p| p.expected), told.last().map(|p| p.done));
    }
}

#[test]
fn a_failing_device_keeps_what_was_found() {
    let time = Time::default();
    let mut device = Simulated::new(Loss::Knee { pps: 3e6, noise: 0.001 }, 5, &time);
    device.fails_at = Some(25);
    let (result, _) = controlled(&time, None, |control| search(&csit(), &mut device, control));
    let result = result.expect("the plan is good");
    assert_eq!(
        result.ending,
        Ending::DeviceFailed {
            message: "port b went away: ENODEV".into()
        }
    );
    assert_eq!(result.trials.len(), 25);
    assert!(result.goals[0].provisional.is_some() || result.goals[0].relevant_upper_bound_pps.is_some());
}

#[test]
fn progress_is_told_before_each_trial_and_comes_to_its_end() {
    let time = Time::default();
    let mut device = Simulated::new(Loss::Knee { pps: 3e6, noise: 0.001 }, 5, &time);
    let (result, told) = controlled(&time, None, |control| search(&csit(), &mut device, control));
    let result = result.expect("the plan is good");
    assert_eq!(told.len(), result.trials.len() + 1);
    assert!(told.windows(2).all(|pair| pair[0].done <= pair[1].done));
    assert_eq!(told[0].message, "trial 1: 14880952 packets/s for 1 s");
    assert_eq!(told.last().expect("told").message, "complete");
    let halfway = &told[told.len() / 2];
    let ratio = halfway.expected.as_secs_f64() / result.seconds;
    assert!(
        (0.5..2.0).contains(&ratio),
        "the estimate half way: {halfway:?} of {} s",
        result.seconds
    );
}

#[test]
fn plans_that_cannot_be_searched_with_are_refused() {
    let two_of_a_name = (
        MlrPlan {
            goals: vec![Goal::ndr(), Goal::ndr()],
            ..csit()
        },
        "another goal has it",
    );
    let cases = [
        (
            MlrPlan {
                goals: Vec::new(),
                ..csit()
            },
            "the list of goals is empty",
        ),
        (
            MlrPlan {
                min_load_pps: 2e7,
                ..csit()
            },
            "it must be below the maximum load",
        ),
        (
            MlrPlan {
                min_load_pps: 0.0,
                ..csit()
            },
            "the minimum load is 0 packets per second, but it must be more than",
        ),
        (
            MlrPlan {
                max_load_pps: f64::INFINITY,
                ..csit()
            },
            "the maximum load is inf",
        ),
        (
            MlrPlan {
                min_load_pps: 0.5,
                ..csit()
            },
            "would not send one packet: raise it to 1 or more",
        ),
        (
            MlrPlan {
                goals: vec![Goal {
                    exceed_ratio: 1.5,
                    ..Goal::ndr()
                }],
                ..csit()
            },
            "the exceed ratio of goal NDR",
        ),
        (
            MlrPlan {
                goals: vec![Goal {
                    width: 0.0,
                    ..Goal::pdr()
                }],
                ..csit()
            },
            "the width of goal PDR is 0",
        ),
    ];
    for (plan, expected) in cases.into_iter().chain([two_of_a_name]) {
        let time = Time::default();
        let mut device = Simulated::new(Loss::Never, 1, &time);
        let (result, _) = controlled(&time, None, |control| search(&plan, &mut device, control));
        let text = result.expect_err("refused").to_string();
        assert!(text.contains(expected), "{text}");
        assert_eq!(device.trials, 0);
    }
}

#[test]
fn the_result_is_plain_json() {
    let result = find(&csit(), Loss::Knee { pps: 3e6, noise: 0.001 }, 5);
    let text = serde_json::to_string(&result).expect("serializes");
    assert!(
        text.contains(r#""outcome":"regular""#) && text.contains(r#""ending":{"kind":"complete"}"#),
        "{text}"
    );
    let back: MlrResult = serde_json::from_str(&text).expect("reads back");
    assert_eq!(back.goals.len(), 2);
    assert_eq!(back.trials.len(), result.trials.len());
}

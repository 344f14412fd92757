//! Loss over offered load: RFC 2544 section 26.3. From the maximum down in equal steps of at most 10 %, "until there are
//! two successive trials in which no frames are lost".

use serde::{Deserialize, Serialize};

use super::session::Session;
use super::{Control, Device, Ending, ParameterError, Trial, check_load, check_seconds};

/// Which loads to try.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct FrameLossPlan {
    /// The first load, packets per second.
    pub max_load_pps: f64,
    /// How much lower each further load is, as a part of the maximum: 0.01 to 0.1; the RFC encourages less than 0.1.
    pub step: f64,
    /// Length of each trial in seconds.
    pub trial_s: f64,
    /// Whether to end at two successive trials without loss, as the RFC has it, or go through all loads, for a plot.
    pub to_the_end: bool,
}

/// Loss at each load tried, in the order tried: from the largest down.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct FrameLossResult {
    /// One trial for each load; those that are not valid speak of the generator, not of the device.
    pub trials: Vec<Trial>,
    /// Whether all loads were tried.
    pub ending: Ending,
    /// Length of the test in seconds.
    pub seconds: f64,
}

/// Measures loss over load.
///
/// # Errors
/// The plan cannot be measured by.
pub fn measure<D: Device>(
    plan: &FrameLossPlan,
    device: &mut D,
    control: &mut Control<'_>,
) -> Result<FrameLossResult, ParameterError> {
    check_load("the maximum load", plan.max_load_pps)?;
    check_seconds("the trial duration", plan.trial_s)?;
    if !(0.01..=0.1).contains(&plan.step) {
        let rule = "it must be from 0.01 to 0.1 of the maximum load (RFC 2544 section 26.3)";
        return Err(ParameterError::new("the step", plan.step, rule));
    }
    let mut session = Session::new(device, control);
    let ending = run(plan, &mut session).err().unwrap_or_default();
    let (trials, seconds) = session.finish(&ending);
    Ok(FrameLossResult {
        trials,
        ending,
        seconds,
    })
}

fn run<D: Device>(plan: &FrameLossPlan, session: &mut Session<'_, '_, D>) -> Result<(), Ending> {
    // The last step is left out where rounding would make it a load of almost nothing.
    let steps = (1.0 / plan.step - 1e-6).ceil() as u32;
    let mut without_loss = 0;
    for step in 0..steps {
        let load_pps = plan.max_load_pps * (1.0 - plan.step * f64::from(step));
        let remaining_s = f64::from(steps - step) * plan.trial_s;
        let measured = session.trial(load_pps, plan.trial_s, remaining_s)?;
        without_loss = if measured.usable() && measured.lost == 0 {
            without_loss + 1
        } else {
            0
        };
        if without_loss == 2 && !plan.to_the_end {
            break;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::super::simulated::{Loss, Simulated, Time, controlled};
    use super::*;

    fn at(plan: &FrameLossPlan) -> Result<FrameLossResult, ParameterError> {
        let time = Time::default();
        let mut device = Simulated::new(Loss::Knee { pps: 650.0, noise: 0.0 }, 1, &time);
        controlled(&time, None, |control| measure(plan, &mut device, control)).0
    }

    #[test]
    fn loads_go_down_to_two_without_loss() {
        let plan = FrameLossPlan {
            max_load_pps: 1000.0,
            step: 0.1,
            trial_s: 1.0,
            to_the_end: false,
        };
        let result = at(&plan).expect("measured");
        let loads: Vec<_> = result.trials.iter().map(|t| t.measurement.load_pps.round()).collect();
        assert_eq!(loads, [1000.0, 900.0, 800.0, 700.0, 600.0, 500.0]);
        assert_eq!(result.trials[0].measurement.lost, 350);
        let all = at(&FrameLossPlan {
            to_the_end: true,
            ..plan
        })
        .expect("measured");
        assert_eq!((all.trials.len(), all.ending), (10, Ending::Complete));
    }

    #[test]
    fn a_step_of_nothing_is_refused() {
        let plan = FrameLossPlan {
            max_load_pps: 1000.0,
            step: 0.0,
            trial_s: 1.0,
            to_the_end: false,
        };
        assert!(at(&plan).expect_err("refused").to_string().contains("the step is 0"));
    }
}

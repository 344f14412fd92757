//! One running search: makes its trials, keeps them, tells progress, and ends it in time.

use std::error::Error;
use std::sync::atomic::Ordering;
use std::time::Duration;

use dataplane::clock::Nanos;

use super::{Control, Device, Ending, INVALID_REPEATS, LAG_REPEATS, Measurement, Progress, TRIALS_MAX, Trial};

/// The device and the surroundings of a search, and the trials so far.
pub(super) struct Session<'s, 'c, D> {
    device: &'s mut D,
    control: &'s mut Control<'c>,
    start: Nanos,
    trials: Vec<Trial>,
    /// Sum of the intended durations, in seconds: what the time spent is compared with to learn a trial's overhead.
    traffic_s: f64,
    /// The largest load of which a trial was usable.
    sent_pps_max: f64,
}

impl<'s, 'c, D: Device> Session<'s, 'c, D> {
    pub(super) fn new(device: &'s mut D, control: &'s mut Control<'c>) -> Self {
        let start = control.clock.now();
        Self {
            device,
            control,
            start,
            trials: Vec::new(),
            traffic_s: 0.0,
            sent_pps_max: 0.0,
        }
    }

    /// One trial. `remaining_s` is the estimated traffic still to send, this trial included, in seconds.
    ///
    /// # Errors
    /// The search is to end, and how.
    pub(super) fn trial(&mut self, load_pps: f64, seconds: f64, remaining_s: f64) -> Result<Measurement, Ending> {
        self.trial_by(load_pps, seconds, remaining_s, |device, duration| {
            device.trial(load_pps, duration)
        })
    }

    /// One trial made by `make`, for trials in which something happens.
    pub(super) fn trial_by(
        &mut self,
        load_pps: f64,
        seconds: f64,
        remaining_s: f64,
        make: impl FnOnce(&mut D, Duration) -> Result<Measurement, D::Error>,
    ) -> Result<Measurement, Ending> {
        let duration = Duration::from_secs_f64(seconds);
        self.may_begin(duration)?;
        self.tell(
            remaining_s,
            format!(
                "trial {}: {load_pps:.0} packets/s for {seconds} s",
                self.trials.len() + 1
            ),
        );
        let at_s = self.elapsed().as_secs_f64();
        let measurement = make(self.device, duration).map_err(|error| {
            // A generator that is being stopped may well fail for that reason.
            if self.is_stopped() {
                Ending::Stopped
            } else {
                Ending::DeviceFailed { message: chain(&error) }
            }
        })?;
        self.trials.push(Trial {
            at_s,
            duration_s: seconds,
            measurement,
        });
        self.traffic_s += seconds;
        Ok(measurement)
    }

    /// One trial, repeated up to `repeats` times while it is not usable; `None` when no repeat was.
    pub(super) fn usable_trial(
        &mut self,
        load_pps: f64,
        seconds: f64,
        remaining_s: f64,
        repeats: u32,
    ) -> Result<Option<Measurement>, Ending> {
        for _ in 0..=repeats {
            let measurement = self.trial(load_pps, seconds, remaining_s)?;
            if measurement.usable() {
                return Ok(Some(measurement));
            }
        }
        Ok(None)
    }

    /// One trial of a search over loads, repeated while it is not usable. `None` says that this load, larger than all
    /// sent so far, is beyond the generator; at a load that it has shown to send, lagging again and again ends the
    /// search, for then nothing it says is to be trusted.
    pub(super) fn load_trial(
        &mut self,
        load_pps: f64,
        seconds: f64,
        remaining_s: f64,
    ) -> Result<Option<Measurement>, Ending> {
        let was_sent = load_pps <= self.sent_pps_max;
        let repeats = if was_sent { LAG_REPEATS } else { INVALID_REPEATS };
        match self.usable_trial(load_pps, seconds, remaining_s, repeats)? {
            Some(measurement) => {
                self.sent_pps_max = self.sent_pps_max.max(load_pps);
                Ok(Some(measurement))
            }
            None if was_sent => Err(Ending::DeviceFailed {
                message: format!(
                    "the generator lagged {} times in a row at {load_pps:.0} packets/s, though it has sent {:.0}: is \
                     the machine busy with something else?",
                    repeats + 1,
                    self.sent_pps_max
                ),
            }),
            None => Ok(None),
        }
    }

    /// Time since the search began.
    pub(super) fn elapsed(&self) -> Duration {
        Duration::from_nanos(self.control.clock.now().since(self.start).0)
    }

    /// Tells that the search is over, and gives its trials and its length in seconds.
    pub(super) fn finish(mut self, ending: &Ending) -> (Vec<Trial>, f64) {
        self.tell(0.0, ending.to_string());
        let seconds = self.elapsed().as_secs_f64();
        (self.trials, seconds)
    }

    /// What a trial takes beside its sending, on average so far.
    fn overhead(&self) -> Duration {
        let waited_s = (self.elapsed().as_secs_f64() - self.traffic_s).max(0.0);
        Duration::try_from_secs_f64(waited_s / self.trials.len() as f64).unwrap_or_default()
    }

    fn is_stopped(&self) -> bool {
        self.control.stop.load(Ordering::Relaxed)
    }

    fn may_begin(&self, duration: Duration) -> Result<(), Ending> {
        if self.is_stopped() {
            return Err(Ending::Stopped);
        }
        if self
            .control
            .budget
            .is_some_and(|budget| self.elapsed() + duration + self.overhead() > budget)
        {
            return Err(Ending::OutOfTime);
        }
        if self.trials.len() >= TRIALS_MAX {
            return Err(Ending::OutOfTrials);
        }
        Ok(())
    }

    fn tell(&mut self, remaining_s: f64, message: String) {
        let done = self.elapsed();
        // Waiting for stragglers and setting up cost the coming trials what they cost those so far.
        let overhead = if self.traffic_s > 0.0 {
            (done.as_secs_f64() / self.traffic_s).max(1.0)
        } else {
            1.0
        };
        let mut expected = done.saturating_add(Duration::try_from_secs_f64(remaining_s * overhead).unwrap_or_default());
        if let Some(budget) = self.control.budget {
            expected = expected.min(budget.max(done));
        }
        (self.control.progress)(&Progress {
            done,
            expected,
            message,
        });
    }
}

/// An error with its causes, each after a colon, none told twice.
fn chain(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        let cause_text = cause.to_string();
        if !text.contains(&cause_text) {
            text = format!("{text}: {cause_text}");
        }
        source = cause.source();
    }
    text
}

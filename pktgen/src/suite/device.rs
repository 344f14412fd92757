//! The generator as a search sees it.

use std::sync::atomic::AtomicBool;
use std::time::Duration;

use crate::search::{Device, Measurement};
use crate::trial::{Generator, TrialError, TrialLoad};

/// What lies between the generator's two ends.
pub(super) struct Link<'l> {
    generator: &'l mut Generator,
    stop: &'l AtomicBool,
}

impl<'l> Link<'l> {
    pub(super) fn new(generator: &'l mut Generator, stop: &'l AtomicBool) -> Self {
        Self { generator, stop }
    }
}

impl Device for Link<'_> {
    type Error = TrialError;

    fn trial(&mut self, load_pps: f64, duration: Duration) -> Result<Measurement, TrialError> {
        let trial = self
            .generator
            .trial(&TrialLoad::PacketsPerSecond(load_pps), duration, self.stop)?;
        Ok(Measurement {
            load_pps,
            sent: trial.sent(),
            lost: trial.lost(),
            seconds: trial.seconds,
            valid: trial.invalid.is_empty(),
        })
    }
}

//! Devices of known truth for the tests of the searches, and a control that runs on invented time.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use dataplane::clock::{Clock, Nanos};
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};

use super::{Control, Device, Measurement, Progress};

/// The time that trials take, shared by the device and the control.
#[derive(Debug, Default)]
pub(super) struct Time(AtomicU64);

impl Clock for Time {
    fn now(&self) -> Nanos {
        Nanos(self.0.load(Ordering::Relaxed))
    }
}

impl Time {
    fn pass(&self, duration: Duration) {
        self.0.fetch_add(duration.as_nanos() as u64, Ordering::Relaxed);
    }
}

/// How a simulated device loses packets.
#[derive(Clone, Copy, Debug)]
pub(super) enum Loss {
    /// Forwards `pps`, give or take normal noise of the relative deviation `noise` for each trial.
    Knee { pps: f64, noise: f64 },
    /// As `Knee`, but each trial has the chance `chance` to lose `part` of its packets at any load.
    Sporadic {
        pps: f64,
        noise: f64,
        chance: f64,
        part: f64,
    },
    /// Forwards less the more it is offered: `pps` at the knee, falling to 60 % of it.
    Collapsing { pps: f64 },
    /// Loses this part always.
    Always(f64),
    /// Loses nothing ever.
    Never,
    /// Holds or fails by the toss of a coin, whatever the load.
    Flapping,
    /// Room for this many packets beyond what leaves at `pps`.
    Buffer { pps: f64, packets: f64, noise: f64 },
}

/// A device under test, with the generator's faults.
#[derive(Debug)]
pub(super) struct Simulated<'t> {
    pub(super) loss: Loss,
    /// Loads above are invalid.
    pub(super) generator_pps: f64,
    /// The chance of a trial to be invalid for no reason of its own.
    pub(super) hiccups: f64,
    /// Trials from this number on are invalid.
    pub(super) busy_from: usize,
    /// The trial of this number, from 0, fails.
    pub(super) fails_at: Option<usize>,
    /// Each trial takes this much longer than it sends.
    pub(super) overhead: Duration,
    /// What `trial_with` costs at the load of the trial, in seconds of blocking.
    pub(super) blocked_s: f64,
    pub(super) trials: usize,
    time: &'t Time,
    random: StdRng,
}

#[derive(Debug, thiserror::Error)]
#[error("port b went away")]
pub(super) struct PortGone(#[source] std::io::Error);

impl<'t> Simulated<'t> {
    pub(super) fn new(loss: Loss, seed: u64, time: &'t Time) -> Self {
        Self {
            loss,
            generator_pps: f64::INFINITY,
            hiccups: 0.0,
            busy_from: usize::MAX,
            fails_at: None,
            overhead: Duration::from_millis(200),
            blocked_s: 0.0,
            trials: 0,
            time,
            random: StdRng::seed_from_u64(seed),
        }
    }

    fn loss_ratio(&mut self, load: f64, sent: f64) -> f64 {
        let noisy = |pps: f64, noise: f64, random: &mut StdRng| pps * (1.0 + noise * normal(random));
        let above = |capacity: f64| (1.0 - capacity / load).max(0.0);
        match self.loss {
            Loss::Knee { pps, noise } => above(noisy(pps, noise, &mut self.random)),
            Loss::Sporadic {
                pps,
                noise,
                chance,
                part,
            } => {
                let base = above(noisy(pps, noise, &mut self.random));
                if self.random.random_bool(chance) {
                    base.max(part)
                } else {
                    base
                }
            }
            Loss::Collapsing { pps } => above(pps.min(pps * (pps / load).max(0.6))),
            Loss::Always(ratio) => ratio,
            Loss::Never => 0.0,
            Loss::Flapping => {
                if self.random.random_bool(0.5) {
                    0.1
                } else {
                    0.0
                }
            }
            Loss::Buffer { pps, packets, noise } => {
                let room = packets * (1.0 + noise * normal(&mut self.random));
                ((sent * (1.0 - pps / load) - room) / sent).clamp(0.0, 1.0)
            }
        }
    }
}

impl Device for Simulated<'_> {
    type Error = PortGone;

    fn trial(&mut self, load_pps: f64, duration: Duration) -> Result<Measurement, PortGone> {
        if self.fails_at == Some(self.trials) {
            return Err(PortGone(std::io::Error::other("ENODEV")));
        }
        self.trials += 1;
        self.time.pass(duration + self.overhead);
        let sent = (load_pps * duration.as_secs_f64()).round();
        let lost = (self.loss_ratio(load_pps, sent) * sent).round();
        let valid =
            load_pps <= self.generator_pps && self.trials <= self.busy_from && !self.random.random_bool(self.hiccups);
        Ok(Measurement {
            load_pps,
            sent: sent as u64,
            lost: lost as u64,
            seconds: duration.as_secs_f64(),
            valid,
        })
    }

    fn trial_with(
        &mut self,
        load_pps: f64,
        duration: Duration,
        _after: Duration,
        action: &mut (dyn FnMut() + Send),
    ) -> Result<Measurement, PortGone> {
        action();
        let mut measurement = self.trial(load_pps, duration)?;
        measurement.lost += (self.blocked_s * load_pps).round() as u64;
        Ok(measurement)
    }
}

/// A standard normal number, by Box and Muller.
fn normal(random: &mut StdRng) -> f64 {
    let (a, b): (f64, f64) = (random.random(), random.random());
    (-2.0 * (1.0 - a).ln()).sqrt() * (std::f64::consts::TAU * b).cos()
}

/// Runs `search` with a control on `time`; gives its result and what it told of its progress.
pub(super) fn controlled<R>(
    time: &Time,
    budget: Option<Duration>,
    search: impl FnOnce(&mut Control<'_>) -> R,
) -> (R, Vec<Progress>) {
    stoppable(time, budget, usize::MAX, search)
}

/// As [`controlled`], with the stop flag raised when progress is told for the time number `stop_at`, from 0.
pub(super) fn stoppable<R>(
    time: &Time,
    budget: Option<Duration>,
    stop_at: usize,
    search: impl FnOnce(&mut Control<'_>) -> R,
) -> (R, Vec<Progress>) {
    let stop = AtomicBool::new(false);
    let mut told = Vec::new();
    let mut progress = |p: &Progress| {
        if told.len() == stop_at {
            stop.store(true, Ordering::Relaxed);
        }
        told.push(p.clone());
    };
    let mut control = Control {
        stop: &stop,
        clock: time,
        budget,
        progress: &mut progress,
    };
    let result = search(&mut control);
    (result, told)
}

//! Searches: which load to try next, for how long, and what the trials together say. No sockets and no threads of their
//! own; all traffic goes through a [`Device`], all time through a [`Clock`].
//!
//! ```text
//!   plan ─► search ── load, duration ──► Device (generator, box under test, receiver)
//!              ▲                            │
//!              └──────── Measurement ◄──────┘        progress ─► bar;  stop flag ─► partial result
//! ```
//!
//! | module | what it finds | method |
//! | --- | --- | --- |
//! | [`mlr`] | several throughputs (NDR, PDR) in one search, with noise borne | MLRsearch, RFC 9971 |
//! | [`rfc2544`] | throughput without loss | RFC 2544 section 26.1 |
//! | [`frame_loss`] | loss over offered load | RFC 2544 section 26.3 |
//! | [`back_to_back`] | the longest burst without loss, buffer time | RFC 9004 |
//! | [`latency`] | the loads to measure latency at | FD.io CSIT |
//! | [`soak`] | loss over hours at one load | — |
//! | [`reconfigure`] | how long the box stood still during a change | FD.io CSIT |
//! | [`sweep`] | the frame sizes to repeat all this for | RFC 2544 section 9.1 |
//!
//! Load is packets per second of the whole traffic mix. A trial is one sending at one load for one duration, then the
//! wait for stragglers, then reading the counters. A trial in which the generator lagged is invalid: it is kept in the
//! list, never counted as loss of the device, and repeated up to [`INVALID_REPEATS`] times; a load at which that does
//! not help, and larger than all that were sent, is beyond the generator and bounds the search from above. A device that
//! needs warming up is to be warmed up before the search: first trials that lose unjustly stay.
//!
//! Every search returns what it has found so far when the stop flag is raised, the time budget is used up or the device
//! fails; [`Ending`] says which. Only parameters that cannot be searched with are errors.

pub mod back_to_back;
pub mod frame_loss;
pub mod latency;
pub mod mlr;
pub mod reconfigure;
pub mod rfc2544;
mod session;
#[cfg(test)]
mod simulated;
pub mod soak;
pub mod sweep;

use std::fmt;
use std::sync::atomic::AtomicBool;
use std::sync::mpsc;
use std::time::Duration;

use dataplane::clock::Clock;
use serde::{Deserialize, Serialize};

/// How often an invalid trial is repeated before its load counts as beyond the generator. A hiccup of a virtual machine
/// rarely spoils three trials in a row; more repeats make finding the generator's limit slow.
pub const INVALID_REPEATS: u32 = 2;

/// How often a trial at a load that the generator has sent before is repeated while it lags. On a busy virtual machine
/// every third trial may; eleven in a row are no accident.
pub const LAG_REPEATS: u32 = 10;

/// No search needs more trials than this; a device that answers at random could otherwise keep one going for days.
pub const TRIALS_MAX: usize = 20_000;

/// The generator, the box under test and the receiver, as a search sees them.
pub trait Device {
    /// Why a trial could not be made at all.
    type Error: std::error::Error + 'static;

    /// Sends `load_pps` packets per second for `duration`, waits for stragglers, counts. A trial that was cut short or
    /// in which the generator lagged is reported as not valid.
    ///
    /// # Errors
    /// The trial could not be made; the search ends with what it has.
    fn trial(&mut self, load_pps: f64, duration: Duration) -> Result<Measurement, Self::Error>;

    /// A trial with `action` done once, `after` from its start. As provided, `action` runs in a thread of its own that
    /// counts from the call, and is left out if the trial ends before; a device whose trials need time to begin does
    /// better by starting it itself.
    ///
    /// # Errors
    /// As for [`trial`](Self::trial).
    fn trial_with(
        &mut self,
        load_pps: f64,
        duration: Duration,
        after: Duration,
        action: &mut (dyn FnMut() + Send),
    ) -> Result<Measurement, Self::Error> {
        std::thread::scope(|scope| {
            let (over, is_over) = mpsc::channel::<()>();
            scope.spawn(move || {
                if is_over.recv_timeout(after) == Err(mpsc::RecvTimeoutError::Timeout) {
                    action();
                }
            });
            let measured = self.trial(load_pps, duration);
            drop(over);
            measured
        })
    }
}

/// What one trial counted.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Measurement {
    /// The intended load in packets per second.
    pub load_pps: f64,
    /// Packets sent.
    pub sent: u64,
    /// Of these, packets that never arrived.
    pub lost: u64,
    /// How long sending took, in seconds.
    pub seconds: f64,
    /// Whether the generator kept up, so that the counts speak of the device.
    pub valid: bool,
}

impl Measurement {
    /// Lost / sent, 0 to 1 (RFC 9971 section 4.5.6). A trial that sent nothing lost nothing; it is not [usable](Self::usable).
    #[must_use]
    pub fn loss_ratio(&self) -> f64 {
        if self.sent == 0 {
            0.0
        } else {
            (self.lost as f64 / self.sent as f64).min(1.0)
        }
    }

    /// Intended load x (1 - loss ratio), packets per second (RFC 9971 section 4.5.7).
    #[must_use]
    pub fn forwarding_rate_pps(&self) -> f64 {
        self.load_pps * (1.0 - self.loss_ratio())
    }

    /// Whether the counts say anything of the device: valid, and something was sent.
    #[must_use]
    pub fn usable(&self) -> bool {
        self.valid && self.sent > 0
    }
}

/// One trial of a search, in the order made.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Trial {
    /// When it began, seconds after the search.
    pub at_s: f64,
    /// The intended duration in seconds.
    pub duration_s: f64,
    /// What it counted.
    #[serde(flatten)]
    pub measurement: Measurement,
}

/// How a search came to its end.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum Ending {
    /// All was found that can be.
    #[default]
    Complete,
    /// The stop flag was raised: the result is partial.
    Stopped,
    /// The next trial would have passed the time budget: the result is partial.
    OutOfTime,
    /// [`TRIALS_MAX`] trials did not settle it: the result is partial.
    OutOfTrials,
    /// The device failed: the result is partial.
    DeviceFailed {
        /// The device's error with its causes.
        message: String,
    },
}

impl Ending {
    /// Whether the result lacks something that more trials would have brought.
    #[must_use]
    pub fn is_partial(&self) -> bool {
        *self != Ending::Complete
    }
}

impl fmt::Display for Ending {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Ending::Complete => f.write_str("complete"),
            Ending::Stopped => f.write_str("partial: stopped by the operator"),
            Ending::OutOfTime => f.write_str("partial: the time budget is used up"),
            Ending::OutOfTrials => write!(f, "partial: {TRIALS_MAX} trials did not settle it"),
            Ending::DeviceFailed { message } => write!(f, "partial: {message}"),
        }
    }
}

/// How far a search is, told before each trial and once at its end.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Progress {
    /// Time since the search began.
    pub done: Duration,
    /// The estimated length of the whole search, at least `done`. It moves: how many loads need trying depends on the
    /// device.
    pub expected: Duration,
    /// What the next trial is, for a person.
    pub message: String,
}

/// What a search asks of its surroundings.
pub struct Control<'c> {
    /// Looked at between trials; once true, the search returns what it has.
    pub stop: &'c AtomicBool,
    /// Measures the search itself: progress and the time budget.
    pub clock: &'c dyn Clock,
    /// No trial is begun that would end later than this after the beginning of the search, its waits included as far
    /// as they are known from the trials before.
    pub budget: Option<Duration>,
    /// Told how far the search is.
    pub progress: &'c mut dyn FnMut(&Progress),
}

/// A parameter that cannot be searched with.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
#[error("{parameter} is {value}, but {rule}")]
pub struct ParameterError {
    /// Which parameter, with the goal it belongs to.
    pub parameter: String,
    /// The value given.
    pub value: String,
    /// What it must be instead.
    pub rule: String,
}

impl ParameterError {
    fn new(parameter: impl Into<String>, value: impl fmt::Display, rule: impl Into<String>) -> Self {
        Self {
            parameter: parameter.into(),
            value: value.to_string(),
            rule: rule.into(),
        }
    }
}

/// The longest trial or sum of trials that is taken for meant: 30 days.
const SECONDS_MAX: f64 = 30.0 * 86_400.0;

/// Refuses what is no duration of a trial: zero, negative, infinite, longer than 30 days.
fn check_seconds(parameter: &str, seconds: f64) -> Result<(), ParameterError> {
    if seconds > 0.0 && seconds <= SECONDS_MAX {
        return Ok(());
    }
    Err(ParameterError::new(
        parameter,
        format_args!("{seconds} s"),
        "it must be more than 0 s and at most 30 days",
    ))
}

/// Refuses a load that is not a positive number.
fn check_load(parameter: &str, load_pps: f64) -> Result<(), ParameterError> {
    if load_pps > 0.0 && load_pps.is_finite() {
        return Ok(());
    }
    Err(ParameterError::new(
        parameter,
        format_args!("{load_pps} packets per second"),
        "it must be more than 0",
    ))
}

/// Refuses loads that leave nothing to search between, and a least load of which a trial of `trial_s` seconds would not
/// send a packet: its loss ratio would mean nothing (RFC 9971 section 4.6.8.2).
fn check_loads(min_pps: f64, max_pps: f64, trial_s: f64) -> Result<(), ParameterError> {
    check_load("the minimum load", min_pps)?;
    check_load("the maximum load", max_pps)?;
    if min_pps >= max_pps {
        return Err(ParameterError::new(
            "the minimum load",
            format_args!("{min_pps} packets per second"),
            format!("it must be below the maximum load, {max_pps}"),
        ));
    }
    if min_pps * trial_s < 1.0 {
        return Err(ParameterError::new(
            "the minimum load",
            format_args!("{min_pps} packets per second"),
            format!(
                "a trial of {trial_s} s would not send one packet: raise it to {} or more",
                (1.0 / trial_s).ceil().max(1.0)
            ),
        ));
    }
    Ok(())
}

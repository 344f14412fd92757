//! What the commands and the appliance say to each other about changes.

use std::path::PathBuf;
use std::time::Duration;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::appliance::ReloadError;
use crate::change::history::{History, HistoryError, Version};
use crate::change::samples::Series;
use crate::socket::Files;

/// Longest trial: a day is time for anybody to decide.
pub const CONFIRM_MAX: Duration = Duration::from_secs(86_400);

/// What `weir apply` asks for.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Wish {
    /// Seconds until it goes back unless it is confirmed; `None`: it stays.
    pub confirm_seconds: Option<u64>,
    /// Parts per million of conforming packets that may be lost meanwhile.
    pub max_loss_ppm: u32,
    /// Microseconds that the 99th percentile of a conforming ring's sojourn may reach meanwhile; `None`: whatever it is.
    #[serde(default)]
    pub max_latency_us: Option<u64>,
    /// What to remember of it.
    pub note: Option<String>,
    /// The base file that is meant; `None`: the one that the appliance reads, whichever that is.
    #[serde(default)]
    pub file: Option<PathBuf>,
}

/// What a change came to.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Done {
    /// Generation of the table that is live now.
    pub generation: u64,
    /// The version that runs now, if it is known.
    pub version: Option<u64>,
    /// What is different from before.
    pub summary: String,
    /// What `check` would warn of.
    pub warnings: String,
    /// What else the operator must know, a sentence each.
    pub notes: Vec<String>,
    /// Whether it goes back by itself unless it is confirmed.
    pub on_trial: bool,
    /// A worker has not taken the table within a second: it hangs, and takes it when it goes on.
    pub is_late: bool,
}

/// Why nothing was changed.
#[derive(Debug, thiserror::Error)]
pub enum Refusal {
    /// The texts were refused.
    #[error(transparent)]
    Reload(#[from] ReloadError),
    /// The history has no such version.
    #[error(transparent)]
    History(#[from] HistoryError),
    /// Another file is meant than the one that the appliance reads.
    #[error(
        "the appliance reads {reads}, not {meant}: put the text there, because what is only applied is gone with the next start"
    )]
    File {
        /// What it reads.
        reads: PathBuf,
        /// What was asked for.
        meant: PathBuf,
    },
    /// It makes no sense now.
    #[error("{0}")]
    State(String),
}

/// What `weir plan` compares with.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Running {
    /// The base file that the appliance reads.
    pub path: PathBuf,
    /// Generation of the table.
    pub generation: u64,
    /// The version, if it is known.
    pub version: Option<Version>,
    /// Whether it is on trial.
    pub on_trial: bool,
    /// The texts that run, base file first.
    pub files: Files,
    /// Milliseconds of each sample, oldest first.
    pub sample_ms: Vec<u32>,
    /// Contracts with traffic in these samples.
    pub samples: Vec<Series>,
}

/// What `weir history` prints.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct HistoryReport {
    /// Where it lies.
    pub directory: PathBuf,
    /// The version that runs; `None`: none, or not known.
    pub running: Option<u64>,
    /// All versions, oldest first.
    pub versions: Vec<Version>,
    /// Files that should be versions and are not, and why nothing could be kept.
    pub problems: Vec<String>,
}

impl HistoryReport {
    /// Of a history that nobody may be running from.
    #[must_use]
    pub fn of(history: &History) -> Self {
        Self {
            directory: history.directory().to_owned(),
            running: None,
            versions: history.versions().cloned().collect(),
            problems: history.damaged().to_vec(),
        }
    }
}

//! `weir plan`: the files on disk against what runs, in a process of its own. The appliance only hands over its texts and its
//! samples; reading, comparing and judging a hundred thousand contracts does not hold it up.

use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use config::{Config, Report, Texts};
use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::change::diff::Difference;
use crate::change::estimate::{self, Judged};
use crate::change::findings::{self, Finding};
use crate::change::history::{History, Version};
use crate::change::messages::Running;
use crate::socket::{self, Files, Request, Response};

/// What `weir plan` is asked.
#[derive(Clone, Debug)]
pub struct PlanOptions {
    /// The base file; `None`: the one that the appliance reads, or else `default_config`.
    pub config: Option<PathBuf>,
    /// The base file where no appliance runs and none is named.
    pub default_config: PathBuf,
    /// Where the appliance listens.
    pub socket: PathBuf,
    /// The round trip that bursts should last.
    pub rtt: Option<Duration>,
}

/// All that `weir plan --json` prints.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct PlanReport {
    /// The base file that was read.
    pub file: PathBuf,
    /// What it was compared with.
    pub against: Against,
    /// What is different.
    #[serde(flatten)]
    pub difference: Difference,
    /// One line of that.
    pub summary: String,
    /// What may not be meant.
    pub findings: Vec<Finding>,
    /// How many warnings `weir check` has besides.
    pub check_warnings: usize,
    /// Seconds of traffic that were judged again.
    pub sampled_seconds: f64,
    /// Contracts whose traffic would have been judged differently, the largest change first. An estimate.
    pub judged: Vec<Judged>,
}

/// What a plan compares with.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum Against {
    /// The appliance.
    Running {
        /// The base file that it reads; `apply` takes that one.
        path: PathBuf,
        /// Generation of its table.
        generation: u64,
        /// Its version, if it is known.
        version: Option<Version>,
        /// Whether that is on trial.
        on_trial: bool,
    },
    /// No appliance runs: the version applied last.
    History {
        /// That version.
        version: Version,
    },
    /// No appliance runs, and there is no version.
    Nothing,
}

/// Why there is no plan.
#[derive(Debug, thiserror::Error)]
pub enum PlanError {
    /// The files on disk are not valid.
    #[error("the configuration is not valid")]
    Config(Report),
    /// The appliance is there and cannot be asked.
    #[error("no answer at {path}: {cause}")]
    Socket {
        /// Its socket.
        path: PathBuf,
        /// What the system said.
        cause: io::Error,
    },
    /// The appliance answers something else.
    #[error("{0}")]
    Answer(String),
    /// What runs cannot be read by this weir.
    #[error("what runs is not valid for this weir; are both of the same version?\n{}", .0.render(false))]
    Running(Report),
}

/// Compares.
///
/// # Errors
/// See [`PlanError`].
pub fn plan(options: &PlanOptions) -> Result<PlanReport, PlanError> {
    let mut running = ask_running(&options.socket)?;
    let default = running
        .as_ref()
        .map_or(&options.default_config, |running| &running.path);
    let file = options.config.as_ref().unwrap_or(default);
    let file = std::path::absolute(file).unwrap_or_else(|_| file.clone());
    let running_files = running.as_mut().map(|running| std::mem::take(&mut running.files));
    let (old, new) = load_both(running_files, Texts::read(&file));
    let new = new.map_err(PlanError::Config)?;
    let old = old.transpose().map_err(PlanError::Running)?;
    let (against, old) = match (running, old) {
        (Some(running), old) => (Ok(running), old),
        (None, _) => match last_applied(&new.config) {
            Some((version, old)) => (Err(Against::History { version }), Some(old)),
            None => (Err(Against::Nothing), None),
        },
    };
    // Texts that are equal were loaded once.
    let old = match &against {
        Ok(_) => Some(old.unwrap_or_else(|| new.config.clone())),
        Err(_) => old,
    };
    let now = Timestamp::now();
    let difference = Difference::new(old.as_ref(), &new.config);
    let (sampled_seconds, judged) = match (&against, &old) {
        (Ok(running), Some(old)) => (
            running.sample_ms.iter().map(|ms| f64::from(*ms)).sum::<f64>() / 1_000.0,
            estimate::judge(old, &new.config, now, &running.sample_ms, &running.samples),
        ),
        _ => (0.0, Vec::new()),
    };
    let against = against.map_or_else(
        |other| other,
        |running| Against::Running {
            path: running.path,
            generation: running.generation,
            version: running.version,
            on_trial: running.on_trial,
        },
    );
    Ok(PlanReport {
        file,
        against,
        summary: difference.summary(),
        difference,
        findings: findings::find(&new.config, now, options.rtt),
        check_warnings: new.warnings.len(),
        sampled_seconds,
        judged,
    })
}

/// The texts of a version in the form in which they travel.
#[must_use]
pub fn texts(files: Files) -> Texts {
    Texts::new(
        files
            .into_iter()
            .map(|(path, text)| (path, text.into_bytes()))
            .collect(),
    )
}

/// Whether nobody listens there, as opposed to somebody who may not be asked.
#[must_use]
pub fn is_absent(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused)
}

fn ask_running(socket: &Path) -> Result<Option<Running>, PlanError> {
    match socket::ask(socket, &Request::Running) {
        Ok(Response::Running(running)) => Ok(Some(*running)),
        Ok(Response::Invalid { reason } | Response::Failed { reason }) => Err(PlanError::Answer(reason)),
        Ok(_) => Err(PlanError::Answer(
            "an answer of another kind came: are both of the same version?".to_owned(),
        )),
        Err(error) if is_absent(&error) => Ok(None),
        Err(cause) => Err(PlanError::Socket {
            path: socket.to_owned(),
            cause,
        }),
    }
}

/// What runs and what the disk has, each on a thread of its own: at a hundred thousand contracts this is most of the work.
/// What runs is `None` where its texts are those on disk.
fn load_both(running: Option<Files>, texts: Texts) -> (Option<Result<Config, Report>>, Result<config::Loaded, Report>) {
    let old = running.map(self::texts).filter(|old| *old != texts);
    std::thread::scope(|scope| {
        let old = old.map(|old| scope.spawn(move || old.into_loaded().map(|loaded| loaded.config)));
        let new = texts.into_loaded();
        let old = old.map(|old| old.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic)));
        (old, new)
    })
}

/// The newest version in the history that the configuration names, if it can be read.
fn last_applied(config: &Config) -> Option<(Version, Config)> {
    let history = History::read(&config.control.state).ok()?;
    let newest = history.newest()?;
    let old = history.texts(newest.number).ok()?.load().ok()?;
    Some((newest.clone(), old.config))
}

//! What is applied, what is on trial, and what the disk has: owned by the control thread, which does one thing at a time, so
//! nothing here is shared or locked. The argument is in `docs/decisions/0021-applied-on-trial-on-disk.md`.
//!
//! | what | where it is | after a crash |
//! |---|---|---|
//! | the texts that run | memory | the files on disk run, as at every start |
//! | versions | history, flushed | whole or not there |
//! | a trial | memory; its end in the newest version | goes on, if the disk still has the text that was on trial |
//! | the texts to go back to | memory, and the history | from the history |
//! | samples, what the disk has | memory | forgotten |

mod on_trial;

use std::path::Path;
use std::time::{Duration, Instant};

use config::{Report, Texts, Watch};
use jiff::{SignedDuration, Timestamp};

use crate::appliance::{Appliance, ReloadError};
use crate::change::diff::Difference;
use crate::change::disk::{Disk, DiskStatus, first_error};
use crate::change::history::{History, HistoryError, How, TrialRecord, Version};
use crate::change::messages::{CONFIRM_MAX, Done, HistoryReport, Refusal, Running, Wish};
use crate::change::samples::{Samples, Series};
use crate::change::trial::Trial;
use crate::socket;
use crate::status::{ChangeStatus, Status, TrialStatus};
use crate::top::selection::{self, TopStatus, TopWish};

use on_trial::Limits;

/// The state of changes.
pub struct Changes {
    running: Texts,
    version: Option<Version>,
    history: Option<History>,
    history_error: Option<String>,
    trial: Option<Trial>,
    observed: Instant,
    disk: Disk,
    disk_status: DiskStatus,
    /// Content of the disk that was deliberately left behind, and is not to be taken again by itself.
    set_aside: Option<Texts>,
    samples: Samples,
    last_error: Option<String>,
}

/// What is said of a disk that [`Changes::rollback`] has left as it was.
const LEFT_BEHIND: &str = "still has the text left behind";

/// Time between two looks at the loss of a trial.
const OBSERVE: Duration = Duration::from_secs(1);

impl Changes {
    /// For an appliance that has just started with `running`, read from `disk`.
    #[must_use]
    pub fn start(disk: Disk, running: Texts, appliance: &Appliance) -> Self {
        let mut changes = Self {
            running,
            version: None,
            history: None,
            history_error: None,
            trial: None,
            observed: Instant::now(),
            disk,
            disk_status: DiskStatus::as_it_runs(),
            set_aside: None,
            samples: Samples::default(),
            last_error: None,
        };
        match History::open(&appliance.config().control.state) {
            Ok(history) => {
                for damaged in history.damaged() {
                    tracing::error!(event = "history", "history: {damaged}; it is left out and left alone");
                }
                changes.history = Some(history);
            }
            Err(error) => changes.history_failed(&error),
        }
        changes.take_up(appliance);
        changes
    }

    /// Finds the place of what was started with among the versions, and takes up a trial that a restart has cut off.
    fn take_up(&mut self, appliance: &Appliance) {
        let newest = self.history.as_ref().and_then(|history| history.newest().cloned());
        let Some(newest) = newest else {
            self.keep(Origin::new(How::Start, "weir"), "the first version", appliance);
            return;
        };
        let texts = self
            .history
            .as_ref()
            .and_then(|history| history.texts(newest.number).ok());
        if texts.as_ref() == Some(&self.running) {
            self.version = Some(newest.clone());
            if let Some(trial) = newest.trial.filter(|trial| !trial.confirmed) {
                self.resume(&trial, appliance);
            }
            return;
        }
        let old = texts.and_then(|texts| texts.load().ok());
        let summary = old.map_or("not comparable".to_owned(), |old| {
            Difference::new(Some(&old.config), appliance.config()).summary()
        });
        tracing::warn!(
            event = "disk",
            version = newest.number,
            "the files on disk, which run now, are other than what was applied last ({newest}): {summary}"
        );
        if newest.trial.is_some_and(|trial| !trial.confirmed) {
            tracing::warn!(
                event = "trial",
                version = newest.number,
                "version {} was never confirmed; its trial ends here",
                newest.number
            );
        }
        self.keep(Origin::new(How::Start, "weir"), &summary, appliance);
    }

    /// To be called with every tick: samples, the trial's end, the disk.
    pub fn tick(&mut self, appliance: &mut Appliance) {
        let now = Instant::now();
        let table = &appliance.compiled().table;
        self.samples
            .tick(now, &table.cells, table.contracts.iter().map(|contract| contract.slot));
        appliance.view().observe(now);
        self.watch_trial(now, appliance);
        if let Some(texts) = self.disk.look(now) {
            self.disk_changed(&texts, appliance);
        }
    }

    /// `weir reload` and SIGHUP: takes what the disk has.
    ///
    /// # Errors
    /// See [`Refusal`]; nothing has changed.
    pub fn reload(&mut self, author: &str, appliance: &mut Appliance) -> Result<Done, Refusal> {
        let texts = self.disk.read();
        let undone = self
            .version
            .as_ref()
            .filter(|version| version.restores.is_some())
            .cloned();
        let mut done = self.take_from_disk(&texts, Origin::new(How::Reload, author), appliance)?;
        if let Some(version) = undone.filter(|_| !done.summary.starts_with("no change")) {
            done.notes.push(format!(
                "this undoes {version}: the files on disk still had the newer text"
            ));
        }
        if self.trial.is_some() {
            done.notes
                .push("the trial goes on: without `weir confirm` it still goes back".to_owned());
        }
        Ok(done)
    }

    /// `weir apply`.
    ///
    /// # Errors
    /// See [`Refusal`]; nothing has changed.
    pub fn apply(&mut self, wish: &Wish, author: &str, appliance: &mut Appliance) -> Result<Done, Refusal> {
        if self.trial.is_some() {
            return Err(Refusal::State(
                "another version is on trial: `weir confirm` or `weir rollback` first".to_owned(),
            ));
        }
        if let Some(meant) = wish.file.clone().filter(|meant| !same_file(meant, self.disk.path())) {
            let reads = self.disk.path().to_owned();
            return Err(Refusal::File { reads, meant });
        }
        let texts = self.disk.read();
        if texts == self.running {
            self.disk_status = DiskStatus::as_it_runs();
            return Ok(Done {
                generation: appliance.compiled().table.generation,
                version: self.version.as_ref().map(|version| version.number),
                summary: "no change".to_owned(),
                notes: vec!["the files on disk are what runs already".to_owned()],
                ..Done::default()
            });
        }
        let confirm = wish
            .confirm_seconds
            .map(|seconds| Duration::from_secs(seconds).min(CONFIRM_MAX));
        let previous = self.version.as_ref().map(|version| version.number);
        let origin = Origin {
            note: wish.note.clone(),
            trial: confirm.zip(previous).map(|(time, previous)| TrialRecord {
                previous,
                until: Timestamp::now()
                    .saturating_add(SignedDuration::try_from(time).unwrap_or_default())
                    .unwrap_or(Timestamp::MAX),
                max_loss_ppm: wish.max_loss_ppm,
                max_latency_us: wish.max_latency_us,
                confirmed: false,
            }),
            ..Origin::new(How::Apply, author)
        };
        let before = self.running.clone();
        let mut done = self.take_from_disk(&texts, origin, appliance)?;
        if let Some(time) = confirm {
            done.on_trial = true;
            let limits = Limits {
                max_loss_ppm: wish.max_loss_ppm,
                max_latency_us: wish.max_latency_us,
            };
            self.begin_trial(Instant::now() + time, previous, before, limits, appliance);
            if self.history_error.is_some() || previous.is_none() {
                done.notes
                    .push("this trial does not survive a restart, because the history could not be kept".to_owned());
            }
        }
        Ok(done)
    }

    /// `weir rollback`: to this version, or to the one before.
    ///
    /// # Errors
    /// See [`Refusal`]; nothing has changed.
    pub fn rollback(
        &mut self,
        number: Option<u64>,
        note: Option<String>,
        author: &str,
        appliance: &mut Appliance,
    ) -> Result<Done, Refusal> {
        let (number, texts) = self.text_to_go_back_to(number)?;
        let origin = Origin {
            note,
            restores: number,
            ..Origin::new(How::Rollback, author)
        };
        // Going back ends a trial, whether by its own end or by hand.
        let trial = self.trial.take();
        match self.swap(&texts, origin, appliance) {
            Ok(mut done) => {
                done.notes.extend(self.leave_disk_behind());
                Ok(done)
            }
            Err(refusal) => {
                self.trial = trial;
                Err(refusal)
            }
        }
    }

    fn text_to_go_back_to(&self, number: Option<u64>) -> Result<(Option<u64>, Texts), Refusal> {
        if let (None, Some(trial)) = (number, &self.trial) {
            return Ok((trial.previous, trial.texts.clone()));
        }
        let Some(history) = &self.history else {
            let why = self.history_error.as_deref().unwrap_or_default();
            return Err(Refusal::State(format!("there is no history to go back in: {why}")));
        };
        let current = self.version.as_ref().map(|version| version.number);
        let number = match (number, current) {
            (Some(number), _) => number,
            (None, Some(current)) => {
                let before = history.before(current).map(|version| version.number);
                before.ok_or_else(|| Refusal::State("there is no version before this one".to_owned()))?
            }
            // What runs could not be kept: the newest that could is the one before it.
            (None, None) => {
                let newest = history
                    .newest()
                    .map(|version| version.restores.unwrap_or(version.number));
                newest.ok_or_else(|| Refusal::State("there is no version to go back to".to_owned()))?
            }
        };
        Ok((Some(number), history.texts(number)?))
    }

    /// What `weir plan` compares with.
    #[must_use]
    pub fn running(&self, appliance: &Appliance) -> Running {
        let contracts = appliance.compiled().contracts();
        let samples = contracts.filter_map(|(name, slot)| {
            Some(Series {
                service: name.service.to_owned(),
                class: name.class.to_owned(),
                direction: name.direction.to_owned(),
                segment: name.segment.map(str::to_owned),
                bytes: self.samples.bytes(slot)?,
            })
        });
        Running {
            path: self.disk.path().to_owned(),
            generation: appliance.compiled().table.generation,
            version: self.version.clone(),
            on_trial: self.trial.is_some(),
            files: socket::files(&self.running),
            sample_ms: self.samples.lengths(),
            samples: samples.collect(),
        }
    }

    /// What `weir history` prints.
    #[must_use]
    pub fn history(&self) -> HistoryReport {
        let mut report = self.history.as_ref().map(HistoryReport::of).unwrap_or_default();
        report.running = self.version.as_ref().map(|version| version.number);
        report.problems.extend(self.history_error.clone());
        report
    }

    /// The texts of a version and of the one that was there before it, if there is one.
    ///
    /// # Errors
    /// It is not there, or not whole.
    pub fn version_texts(&self, number: u64) -> Result<(Texts, Option<Texts>), Refusal> {
        let history = self.history.as_ref();
        let history = history.ok_or_else(|| Refusal::State(self.history_error.clone().unwrap_or_default()))?;
        history.with_predecessor(number).map_err(Refusal::History)
    }

    /// The status of the appliance with that of its changes.
    #[must_use]
    pub fn status(&self, appliance: &Appliance) -> Status {
        self.complete(appliance.status())
    }

    /// What `weir top` shows: the contracts that match `wish`, those with most traffic in the last second if they are many.
    #[must_use]
    pub fn top(&self, wish: &TopWish, appliance: &Appliance) -> TopStatus {
        let mut top = selection::select(wish, appliance, |slot| self.samples.last_bytes(slot));
        top.status = self.complete(top.status);
        top
    }

    fn complete(&self, mut status: Status) -> Status {
        status.last_reload_error = self.last_error.clone();
        status.change = self.change_status();
        status
    }

    /// The part of the status that is of changes.
    #[must_use]
    pub fn change_status(&self) -> ChangeStatus {
        ChangeStatus {
            applied: self.version.clone(),
            trial: self.trial.as_ref().map(|trial| TrialStatus {
                seconds_left: trial.until.saturating_duration_since(Instant::now()).as_secs_f64(),
                previous: trial.previous,
                conforming_packets: trial.seen.packets,
                conforming_lost: trial.seen.lost,
                max_loss_ppm: trial.max_loss_ppm,
                max_latency_us: trial.max_latency_ns.map(|ns| ns / 1_000),
                p99_us: trial.slowest.map(|slow| slow.p99_ns as f64 / 1_000.0),
            }),
            disk: Some(self.disk_status.clone()),
            history_error: self.history_error.clone(),
        }
    }

    /// Error of the last reload, apply or rollback, if it was refused.
    #[must_use]
    pub fn last_error(&self) -> Option<&str> {
        self.last_error.as_deref()
    }

    /// The texts that run.
    #[must_use]
    pub fn texts(&self) -> &Texts {
        &self.running
    }

    /// As [`swap`](Self::swap), to what the disk has just been found to have; if it is refused, the disk differs.
    fn take_from_disk(
        &mut self,
        texts: &Texts,
        origin: Origin<'_>,
        appliance: &mut Appliance,
    ) -> Result<Done, Refusal> {
        let result = self.swap(texts, origin, appliance);
        if let Err(refusal) = &result
            && *texts != self.running
        {
            let report = match refusal {
                Refusal::Reload(ReloadError::Config(report)) => Some(report),
                _ => None,
            };
            self.disk_status = DiskStatus::other(report, "changed");
        }
        result
    }

    /// Swaps to `texts` and remembers it. A text that is what runs already is swapped too, but is no new version.
    fn swap(&mut self, texts: &Texts, mut origin: Origin<'_>, appliance: &mut Appliance) -> Result<Done, Refusal> {
        let asked = Instant::now();
        let swapped = texts
            .load()
            .map_err(ReloadError::Config)
            .and_then(|loaded| appliance.swap(loaded));
        self.last_error = swapped.as_ref().err().map(ToString::to_string);
        let swapped = swapped?;
        let live_after = asked.elapsed();
        let summary = Difference::new(Some(&swapped.old), appliance.config()).summary();
        let is_new = *texts != self.running;
        self.running = texts.clone();
        self.disk_status = DiskStatus::as_it_runs();
        self.set_aside = None;
        log_warnings(&swapped.warnings);
        tracing::info!(
            event = "table",
            how = origin.how.word(),
            author = origin.author,
            generation = swapped.generation,
            live_after_ms = live_after.as_millis() as u64,
            "{} by {}: table {} is live after {} ms: {summary}",
            origin.how.word(),
            origin.author.escape_debug(),
            swapped.generation,
            live_after.as_millis()
        );
        let mut notes = Vec::new();
        if is_new {
            // A change in the middle of a trial is on trial too: a restart must know.
            origin.trial = origin.trial.or_else(|| self.trial_record());
            notes.extend(self.keep(origin, &summary, appliance));
        }
        if !swapped.taken {
            notes.push(format!(
                "a worker has not taken table {} within a second: see `weir status`",
                swapped.generation
            ));
        }
        Ok(Done {
            generation: swapped.generation,
            version: self.version.as_ref().map(|version| version.number),
            summary,
            warnings: swapped.warnings.render(false),
            notes,
            on_trial: self.trial.is_some(),
            is_late: !swapped.taken,
        })
    }

    /// Writes a version of what runs now. Says what the operator must know if that failed; what runs is not touched by it.
    fn keep(&mut self, origin: Origin<'_>, summary: &str, appliance: &Appliance) -> Option<String> {
        self.version = None;
        let history = self.history.as_mut()?;
        let version = Version {
            number: history.next_number(),
            time: Timestamp::now(),
            how: origin.how,
            author: origin.author.to_owned(),
            note: origin.note,
            summary: summary.to_owned(),
            generation: appliance.compiled().table.generation,
            restores: origin.restores,
            trial: origin.trial,
        };
        match history.append(version.clone(), &self.running) {
            Ok(()) => {
                self.version = Some(version);
                self.history_error = None;
                None
            }
            Err(error) => {
                self.history_failed(&error);
                Some(format!("it is live, but could not be kept in the history: {error}"))
            }
        }
    }

    fn history_failed(&mut self, error: &HistoryError) {
        tracing::error!(event = "history", reason = %error, "history: {error}");
        self.history_error = Some(error.to_string());
    }

    /// After going back: what the disk has is not to be taken by itself. Says so, if it is other than what runs.
    fn leave_disk_behind(&mut self) -> Option<String> {
        let texts = self.disk.read();
        if texts == self.running {
            return None;
        }
        self.disk_status = DiskStatus::other(texts.load().err().as_ref(), LEFT_BEHIND);
        self.set_aside = Some(texts);
        Some("the files on disk still have the other text: mend them, or the next reload or start takes it".to_owned())
    }

    fn disk_changed(&mut self, texts: &Texts, appliance: &mut Appliance) {
        if *texts == self.running {
            if self.disk_status.differs {
                tracing::info!(event = "disk", "the files on disk are again what runs");
            }
            self.disk_status = DiskStatus::as_it_runs();
            return;
        }
        if self.set_aside.as_ref() == Some(texts) {
            // It may have been other again meanwhile.
            if !self.disk_status.summary.starts_with(LEFT_BEHIND) {
                self.disk_status = DiskStatus::other(texts.load().err().as_ref(), LEFT_BEHIND);
            }
            return;
        }
        let loaded = texts.load();
        let applies = appliance.config().control.watch == Watch::Apply && self.trial.is_none();
        if applies && loaded.is_ok() {
            match self.take_from_disk(texts, Origin::new(How::Watch, "weir"), appliance) {
                Ok(done) => done
                    .notes
                    .iter()
                    .for_each(|note| tracing::warn!(event = "note", "{note}")),
                Err(error) => {
                    tracing::error!(event = "disk", reason = %error, "the files on disk have changed and cannot be applied: {error}");
                }
            }
            return;
        }
        self.disk_status = DiskStatus::other(loaded.as_ref().err(), "changed");
        match loaded {
            Ok(loaded) => tracing::warn!(
                event = "disk",
                "the files on disk have changed and are not applied: {}; `weir plan` shows it, `weir apply` takes it",
                Difference::new(Some(appliance.config()), &loaded.config).summary()
            ),
            Err(report) => tracing::warn!(
                event = "disk",
                "the files on disk have changed and are not valid, the running table goes on: {}",
                first_error(&report)
            ),
        }
    }
}

/// Where a change comes from.
struct Origin<'a> {
    how: How,
    author: &'a str,
    note: Option<String>,
    restores: Option<u64>,
    trial: Option<TrialRecord>,
}

impl<'a> Origin<'a> {
    fn new(how: How, author: &'a str) -> Self {
        Self {
            how,
            author,
            note: None,
            restores: None,
            trial: None,
        }
    }
}

fn same_file(a: &Path, b: &Path) -> bool {
    a == b || a.canonicalize().is_ok_and(|a| b.canonicalize().is_ok_and(|b| a == b))
}

/// One line each: `weir check` shows them at length.
pub(crate) fn log_warnings(warnings: &Report) {
    for warning in warnings.diagnostics() {
        tracing::warn!(
            event = "configuration",
            line = warning.line,
            "{}:{}: {}",
            warning.file.display(),
            warning.line,
            warning.message
        );
    }
}

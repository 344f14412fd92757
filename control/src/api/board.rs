//! What the control thread pins up for the API thread: the current [`View`], and what it knows beside the counters.
//!
//! The control thread replaces what has changed, with one pointer store; the API thread reads whenever it is asked. Neither
//! waits for the other.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use arc_swap::ArcSwap;
use jiff::Timestamp;

use crate::appliance::{Appliance, View};
use crate::change::changes::Changes;
use crate::change::history::{How, fnv1a};
use crate::change::messages::HistoryReport;
use crate::events::{EventKind, EventLog};
use crate::status::{ChangeStatus, Status};

/// Shared by the control thread, which writes, and the API thread.
pub struct Board {
    view: ArcSwap<View>,
    change: ArcSwap<Change>,
    history: ArcSwap<HistoryReport>,
    /// What happened lately; anybody may push.
    pub events: EventLog,
    made: Instant,
    /// Milliseconds from `made` to the control thread's last tick.
    ticked_ms: AtomicU64,
}

/// What only the control thread knows.
#[derive(Clone, Debug, PartialEq)]
pub struct Change {
    /// Versions, trial, disk.
    pub status: ChangeStatus,
    /// Error of the last reload, apply or rollback, if it was refused.
    pub last_reload_error: Option<String>,
    /// When the current table became live.
    pub live_since: Timestamp,
    /// Hash of the texts that run, 16 hexadecimal digits.
    pub config_hash: String,
}

impl Board {
    /// As things stand at the start.
    #[must_use]
    pub fn new(changes: &Changes, appliance: &Appliance) -> Self {
        let board = Self {
            view: ArcSwap::from_pointee(appliance.view().clone()),
            change: ArcSwap::from_pointee(Change {
                status: changes.change_status(),
                last_reload_error: None,
                live_since: Timestamp::now(),
                config_hash: config_hash(changes),
            }),
            history: ArcSwap::from_pointee(changes.history()),
            events: EventLog::default(),
            made: Instant::now(),
            ticked_ms: AtomicU64::new(0),
        };
        let generation = appliance.compiled().table.generation;
        board.events.push(
            EventKind::Started,
            format!("weir {} runs table {generation}", env!("CARGO_PKG_VERSION")),
        );
        board
    }

    /// To be called by the control thread after whatever may have changed something, and with every tick.
    pub fn update(&self, changes: &Changes, appliance: &Appliance) {
        let elapsed = u64::try_from(self.made.elapsed().as_millis()).unwrap_or(u64::MAX);
        self.ticked_ms.store(elapsed, Ordering::Relaxed);
        let old = self.change.load_full();
        let swapped = self.view.load().compiled().table.generation != appliance.compiled().table.generation;
        let mut new = Change {
            status: changes.change_status(),
            last_reload_error: changes.last_error().map(str::to_owned),
            ..Change::clone(&old)
        };
        if swapped {
            new.live_since = Timestamp::now();
            new.config_hash = config_hash(changes);
            self.view.store(Arc::new(appliance.view().clone()));
        }
        if new.status.applied != old.status.applied || new.status.history_error != old.status.history_error {
            self.history.store(Arc::new(changes.history()));
        }
        self.push_events(&old, &new, swapped);
        if new != *old {
            self.change.store(Arc::new(new));
        }
    }

    fn push_events(&self, old: &Change, new: &Change, swapped: bool) {
        let is_new_version = new.status.applied != old.status.applied;
        let version = new.status.applied.as_ref().filter(|_| is_new_version);
        if swapped {
            let generation = self.view.load().compiled().table.generation;
            let by = version.map_or("the same text, or a contract began or ended".to_owned(), |version| {
                format!("{version}: {}", version.summary)
            });
            self.events
                .push(EventKind::Swapped, format!("table {generation} is live: {by}"));
        }
        if let Some(error) = new
            .last_reload_error
            .as_ref()
            .filter(|_| new.last_reload_error != old.last_reload_error)
        {
            self.events.push(EventKind::Refused, error.clone());
        }
        match (&old.status.trial, &new.status.trial) {
            (None, Some(trial)) => self.events.push(
                EventKind::TrialBegan,
                format!(
                    "on trial: goes back in {:.0} s without `weir confirm`",
                    trial.seconds_left
                ),
            ),
            (Some(_), None) if version.is_some_and(|version| version.how == How::Revert) => {
                let version = version.map(ToString::to_string).unwrap_or_default();
                self.events.push(EventKind::TrialReverted, version);
            }
            (Some(_), None) => self.events.push(EventKind::TrialEnded, "the trial is over"),
            _ => {}
        }
    }

    /// What runs.
    #[must_use]
    pub fn view(&self) -> Arc<View> {
        self.view.load_full()
    }

    /// What the control thread knows beside it.
    #[must_use]
    pub fn change(&self) -> Arc<Change> {
        self.change.load_full()
    }

    /// The versions.
    #[must_use]
    pub fn history(&self) -> Arc<HistoryReport> {
        self.history.load_full()
    }

    /// What `weir status --json` prints, without contracts.
    #[must_use]
    pub fn status_without_contracts(&self) -> Status {
        self.with_change(self.view.load().status_without_contracts())
    }

    /// The same, with the alarms of the contracts.
    #[must_use]
    pub fn status_with_alarms(&self) -> Status {
        self.with_change(self.view.load().status_with_alarms())
    }

    fn with_change(&self, mut status: Status) -> Status {
        let change = self.change.load();
        status.last_reload_error.clone_from(&change.last_reload_error);
        status.change.clone_from(&change.status);
        status
    }

    /// Time since the control thread last said that it goes round.
    #[must_use]
    pub fn since_tick(&self) -> Duration {
        let ticked = Duration::from_millis(self.ticked_ms.load(Ordering::Relaxed));
        self.made.elapsed().saturating_sub(ticked)
    }
}

/// Tells configurations apart; two boxes with the same files show the same.
fn config_hash(changes: &Changes) -> String {
    let mut bytes = Vec::new();
    for (path, text) in changes.texts().files() {
        // Not the directory: the same files elsewhere are the same configuration.
        bytes.extend(path.file_name().unwrap_or_default().as_encoded_bytes());
        bytes.extend_from_slice(&text.len().to_le_bytes());
        bytes.extend_from_slice(text);
    }
    format!("{:016x}", fnv1a(&bytes))
}

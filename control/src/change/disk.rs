//! Files that changed on disk and were not applied. Looked at once a second by the control thread: first only at sizes and
//! times; the content is read when those have been still for [`SETTLE`], so that an editor's half-written file is not taken.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant, SystemTime};

use config::{Report, Texts};
use jiff::Timestamp;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// How long the files must be still before they are read.
pub const SETTLE: Duration = Duration::from_secs(1);

/// What the disk has, seen from what runs.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct DiskStatus {
    /// In a sentence: `as it runs`, or `changed since …`.
    pub summary: String,
    /// Whether the files are other than what runs.
    pub differs: bool,
    /// Since when, if they are.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub since: Option<Timestamp>,
    /// Whether they could be applied.
    pub valid: bool,
    /// The first reason why not.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub error: Option<String>,
}

impl DiskStatus {
    /// The disk has what runs.
    #[must_use]
    pub fn as_it_runs() -> Self {
        Self {
            summary: "as it runs".to_owned(),
            differs: false,
            since: None,
            valid: true,
            error: None,
        }
    }

    /// The disk has other texts, from now on; `what` begins the sentence about it. `report`: what is wrong with them.
    #[must_use]
    pub fn other(report: Option<&Report>, what: &str) -> Self {
        let since = Timestamp::now();
        let error = report.map(first_error);
        let validity = if error.is_some() {
            "not valid"
        } else {
            "valid, not applied"
        };
        Self {
            summary: format!("{what} since {}, {validity}", since.strftime("%F %TZ")),
            differs: true,
            since: Some(since),
            valid: error.is_none(),
            error,
        }
    }
}

/// The first message of a report, in one line.
pub(crate) fn first_error(report: &Report) -> String {
    report.diagnostics().first().map_or_else(String::new, |first| {
        format!("{}:{}: {}", first.file.display(), first.line, first.message)
    })
}

/// Size and time of a file; `None`: it cannot be looked at.
type Stamp = (PathBuf, Option<(u64, Option<SystemTime>, u64)>);

/// The files of one configuration, watched.
#[derive(Debug)]
pub struct Disk {
    path: PathBuf,
    /// As they were last seen.
    stamps: Vec<Stamp>,
    /// When they became so, if they have not been read since.
    unread_since: Option<Instant>,
    looked: Option<Instant>,
}

impl Disk {
    /// Watches the files of `path` from now on.
    #[must_use]
    pub fn new(path: &Path) -> Self {
        Self {
            path: path.to_owned(),
            stamps: stamps(path),
            unread_since: None,
            looked: None,
        }
    }

    /// The base file.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Looks, at most once a second; gives the content if it has changed and settled.
    pub fn look(&mut self, now: Instant) -> Option<Texts> {
        if self
            .looked
            .is_some_and(|looked| now.saturating_duration_since(looked) < SETTLE)
        {
            return None;
        }
        self.looked = Some(now);
        let stamps = stamps(&self.path);
        if stamps != self.stamps {
            self.stamps = stamps;
            self.unread_since = Some(now);
            return None;
        }
        let since = self.unread_since?;
        if now.saturating_duration_since(since) < SETTLE {
            return None;
        }
        let texts = Texts::read(&self.path);
        // Written while it was read: it has not settled after all.
        let stamps = self::stamps(&self.path);
        if stamps != self.stamps {
            self.stamps = stamps;
            self.unread_since = Some(now);
            return None;
        }
        self.unread_since = None;
        Some(texts)
    }

    /// Reads the content now, for whoever asks for it.
    pub fn read(&mut self) -> Texts {
        self.stamps = stamps(&self.path);
        self.unread_since = None;
        Texts::read(&self.path)
    }
}

fn stamps(path: &Path) -> Vec<Stamp> {
    use std::os::unix::fs::MetadataExt;
    let paths = config::config_paths(path).unwrap_or_else(|(directory, _)| vec![path.to_owned(), directory]);
    let stamp = |path: PathBuf| {
        let file = std::fs::metadata(&path).ok();
        let seen = file.map(|file| (file.len(), file.modified().ok(), file.ino()));
        (path, seen)
    };
    paths.into_iter().map(stamp).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A directory that goes when dropped.
    struct Scratch(PathBuf);

    impl Drop for Scratch {
        fn drop(&mut self) {
            let _gone = std::fs::remove_dir_all(&self.0);
        }
    }

    #[test]
    fn what_settles_is_read_once() {
        let scratch = Scratch(std::env::temp_dir().join(format!("weir-disk-{}", std::process::id())));
        let path = scratch.0.join("weir.toml");
        std::fs::create_dir_all(&scratch.0).unwrap();
        std::fs::write(&path, "a").unwrap();
        let mut disk = Disk::new(&path);
        let start = Instant::now();
        let mut at = |ms| disk.look(start + Duration::from_millis(ms));
        assert_eq!(at(0), None);
        std::fs::write(&path, "half").unwrap();
        assert_eq!(at(1_000), None, "seen");
        std::fs::write(&path, "whole").unwrap();
        assert_eq!(at(2_000), None, "seen again");
        assert_eq!(at(2_500), None, "not looked at");
        let texts = at(3_000).expect("settled");
        assert_eq!(texts.files()[0].1, b"whole");
        assert_eq!(at(4_000), None);
        std::fs::create_dir(scratch.0.join("contracts.d")).unwrap();
        std::fs::write(scratch.0.join("contracts.d/a.toml"), "b").unwrap();
        assert_eq!(at(5_000), None);
        assert_eq!(at(6_000).expect("a new file").files().len(), 2);
        std::fs::remove_file(&path).unwrap();
        assert_eq!(at(7_000), None);
        assert_eq!(at(8_000).expect("a file that is gone").files().len(), 1);
    }
}

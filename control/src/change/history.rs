//! The versions that were applied, on disk: one file each, with the whole text of the base file and the drop-ins.
//!
//! ```text
//! DIR/history/000007.version:   one line of JSON (see [`Version`]), then the files' bytes one after the other
//! ```
//!
//! A version is written to a temporary file, flushed to the disk, renamed, and the directory is flushed: after a crash it is
//! whole or not there. The last [`VERSIONS_MAX`] are kept, and of those no more than [`BYTES_MAX`] bytes, but always two. Old
//! ones go only after the new one is safe, so a full disk costs the new version and never an old one. A file that is no whole
//! version is said and left out, never deleted. One process at a time writes, by a lock on `DIR/history/lock`.

use std::collections::BTreeMap;
use std::fmt;
use std::fs::{self, File};
use std::io::{self, BufRead, BufReader, Read, Write};
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

use config::Texts;
use jiff::Timestamp;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Versions kept.
pub const VERSIONS_MAX: usize = 100;
/// Bytes kept: a hundred versions of a hundred thousand contracts (25 MB each) would be a disk of their own.
pub const BYTES_MAX: u64 = 1 << 30;

/// What is known of a version, without its texts.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Version {
    /// From 1, never given twice while the newest is kept.
    pub number: u64,
    /// When it became live.
    pub time: Timestamp,
    /// How.
    pub how: How,
    /// Who asked for it.
    pub author: String,
    /// What the author said of it.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub note: Option<String>,
    /// What was different from the version that ran before.
    pub summary: String,
    /// Generation of its table, in the process that made it.
    pub generation: u64,
    /// The older version whose text this is, if it was gone back to.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub restores: Option<u64>,
    /// Set while, or because, it has to be confirmed.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub trial: Option<TrialRecord>,
}

impl fmt::Display for Version {
    /// `version 7, 2026-11-21 18:52:59Z, apply by alice: a note`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let time = self.time.strftime("%F %TZ");
        write!(f, "version {}, {time}, {}", self.number, self.how.word())?;
        if let Some(older) = self.restores {
            write!(f, " to {older}")?;
        }
        write!(f, " by {}", self.author.escape_debug())?;
        match &self.note {
            Some(note) => write!(f, ": {}", note.escape_debug()),
            None => Ok(()),
        }
    }
}

/// What a restart must know of a trial.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct TrialRecord {
    /// The version to go back to.
    pub previous: u64,
    /// When.
    pub until: Timestamp,
    /// Parts per million of conforming packets that may be lost.
    pub max_loss_ppm: u32,
    /// Microseconds that the 99th percentile of a conforming ring's sojourn may reach.
    #[serde(default)]
    pub max_latency_us: Option<u64>,
    /// Whether it was confirmed.
    pub confirmed: bool,
}

/// How a version came to run.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum How {
    /// weir started with it.
    Start,
    /// `weir reload` or SIGHUP.
    Reload,
    /// `weir apply`.
    Apply,
    /// `weir rollback`.
    Rollback,
    /// A trial that was not confirmed, or went wrong.
    Revert,
    /// The files changed, and `watch = "apply"`.
    Watch,
}

impl How {
    /// The word for it.
    #[must_use]
    pub fn word(self) -> &'static str {
        match self {
            How::Start => "start",
            How::Reload => "reload",
            How::Apply => "apply",
            How::Rollback => "rollback",
            How::Revert => "revert",
            How::Watch => "watch",
        }
    }
}

/// Why the history could not be read or written.
#[derive(Debug, thiserror::Error)]
pub enum HistoryError {
    /// The system refused.
    #[error("{what} {path}: {cause}")]
    System {
        /// What was attempted.
        what: &'static str,
        /// On what.
        path: PathBuf,
        /// What the system said.
        cause: io::Error,
    },
    /// Another process writes there.
    #[error("another weir keeps its history in {0}: give this one a `[control] state` of its own")]
    Taken(PathBuf),
    /// There is no such version.
    #[error("there is no version {number} in {directory}: `weir history` shows what there is")]
    Missing {
        /// The number asked for.
        number: u64,
        /// Where.
        directory: PathBuf,
    },
    /// The file is not whole.
    #[error("{path} is damaged: {what}")]
    Damaged {
        /// The file.
        path: PathBuf,
        /// In what way.
        what: String,
    },
}

/// The first line of a file: the version, and what must follow.
#[derive(Serialize, Deserialize)]
struct Header {
    /// Of the file, now 1: a later weir may write others.
    format: u32,
    #[serde(flatten)]
    version: Version,
    files: Vec<HeaderFile>,
    /// FNV-1a of all that follows the line.
    check: u64,
}

#[derive(Serialize, Deserialize)]
struct HeaderFile {
    path: PathBuf,
    bytes: u64,
}

/// A directory of versions.
#[derive(Debug)]
pub struct History {
    directory: PathBuf,
    versions: BTreeMap<u64, Version>,
    damaged: Vec<String>,
    /// Held while the process lives; `None`: only read.
    _lock: Option<File>,
}

impl History {
    /// The history in `state/history`, to write: makes the directory if need be, and removes what a crash left half written.
    ///
    /// # Errors
    /// The directory cannot be made, locked or read.
    pub fn open(state: &Path) -> Result<Self, HistoryError> {
        let directory = state.join("history");
        // Whoever may not read the configuration must not read it here.
        let made = fs::DirBuilder::new().recursive(true).mode(0o700).create(&directory);
        made.map_err(system("create", &directory))?;
        let path = directory.join("lock");
        let lock = File::options().create(true).truncate(false).write(true).open(&path);
        let lock = lock.map_err(system("open", &path))?;
        match lock.try_lock() {
            Ok(()) => {}
            Err(fs::TryLockError::WouldBlock) => return Err(HistoryError::Taken(directory)),
            Err(fs::TryLockError::Error(cause)) => return Err(system("lock", &path)(cause)),
        }
        for path in paths(&directory, "tmp")? {
            // If it stays, it stays: nothing reads it.
            let _removed = fs::remove_file(path);
        }
        let mut history = Self::read(state)?;
        history._lock = Some(lock);
        Ok(history)
    }

    /// The same only to read; a directory that does not exist holds nothing.
    ///
    /// # Errors
    /// The directory cannot be read.
    pub fn read(state: &Path) -> Result<Self, HistoryError> {
        let directory = state.join("history");
        let (mut versions, mut damaged) = (BTreeMap::new(), Vec::new());
        for path in paths(&directory, "version")? {
            match read_header(&path) {
                Ok((header, _)) => {
                    versions.insert(header.version.number, header.version);
                }
                Err(error) => damaged.push(error.to_string()),
            }
        }
        Ok(Self {
            directory,
            versions,
            damaged,
            _lock: None,
        })
    }

    /// Where it lies.
    #[must_use]
    pub fn directory(&self) -> &Path {
        &self.directory
    }

    /// All versions, oldest first.
    pub fn versions(&self) -> impl DoubleEndedIterator<Item = &Version> {
        self.versions.values()
    }

    /// The newest.
    #[must_use]
    pub fn newest(&self) -> Option<&Version> {
        self.versions.values().next_back()
    }

    /// Files that should be versions and are not, in words.
    #[must_use]
    pub fn damaged(&self) -> &[String] {
        &self.damaged
    }

    /// Number of the next version.
    #[must_use]
    pub fn next_number(&self) -> u64 {
        // A damaged newest file keeps its number: it is evidence, and is not written over.
        let taken = paths(&self.directory, "version").unwrap_or_default();
        let highest = taken
            .iter()
            .filter_map(|path| path.file_stem()?.to_str()?.parse::<u64>().ok())
            .max();
        highest.max(self.newest().map(|version| version.number)).unwrap_or(0) + 1
    }

    /// The texts of a version.
    ///
    /// # Errors
    /// It is not there, or not whole.
    pub fn texts(&self, number: u64) -> Result<Texts, HistoryError> {
        if !self.versions.contains_key(&number) {
            return Err(HistoryError::Missing {
                number,
                directory: self.directory.clone(),
            });
        }
        let path = self.path(number);
        let (header, mut reader) = read_header(&path)?;
        let mut body = Vec::new();
        reader.read_to_end(&mut body).map_err(system("read", &path))?;
        let damaged = |what: &str| HistoryError::Damaged {
            path: path.clone(),
            what: what.to_owned(),
        };
        if fnv1a(&body) != header.check {
            return Err(damaged("its content is not what was written"));
        }
        let mut files = Vec::new();
        let mut rest = body.as_slice();
        for file in header.files {
            let length = usize::try_from(file.bytes).ok().filter(|length| *length <= rest.len());
            let (content, more) = rest.split_at(length.ok_or_else(|| damaged("it is cut short"))?);
            files.push((file.path, content.to_vec()));
            rest = more;
        }
        Ok(Texts::new(files))
    }

    /// The texts of a version, and of the one that ran before it if that is still kept.
    ///
    /// # Errors
    /// The version is not there, or one of the two is not whole.
    pub fn with_predecessor(&self, number: u64) -> Result<(Texts, Option<Texts>), HistoryError> {
        let texts = self.texts(number)?;
        let before = self.versions.range(..number).next_back();
        Ok((texts, before.map(|(before, _)| self.texts(*before)).transpose()?))
    }

    /// Keeps a version and its texts, and lets the oldest go.
    ///
    /// # Errors
    /// It could not be written; what was there is as it was.
    pub fn append(&mut self, version: Version, texts: &Texts) -> Result<(), HistoryError> {
        self.write(&version, texts)?;
        self.versions.insert(version.number, version);
        self.prune();
        Ok(())
    }

    /// Marks the trial of a version confirmed.
    ///
    /// # Errors
    /// It could not be written; the file is as it was.
    pub fn confirm(&mut self, number: u64) -> Result<(), HistoryError> {
        let texts = self.texts(number)?;
        let Some(mut version) = self.versions.get(&number).cloned() else {
            return Ok(());
        };
        if let Some(trial) = &mut version.trial {
            trial.confirmed = true;
        }
        self.write(&version, &texts)?;
        self.versions.insert(number, version);
        Ok(())
    }

    /// The version to go back to from `current`: the newest before it, or before the one whose text it is.
    #[must_use]
    pub fn before(&self, current: u64) -> Option<&Version> {
        let origin = self
            .versions
            .get(&current)
            .and_then(|version| version.restores)
            .unwrap_or(current);
        let earlier = self.versions.range(..origin).next_back()?.1;
        // That one may itself be a return to an older text.
        Some(
            earlier
                .restores
                .and_then(|older| self.versions.get(&older))
                .unwrap_or(earlier),
        )
    }

    fn path(&self, number: u64) -> PathBuf {
        self.directory.join(format!("{number:06}.version"))
    }

    fn write(&self, version: &Version, texts: &Texts) -> Result<(), HistoryError> {
        let mut body = Vec::new();
        let mut files = Vec::new();
        for (path, bytes) in texts.files() {
            files.push(HeaderFile {
                path: path.clone(),
                bytes: bytes.len() as u64,
            });
            body.extend_from_slice(bytes);
        }
        let header = Header {
            format: 1,
            version: version.clone(),
            files,
            check: fnv1a(&body),
        };
        let path = self.path(version.number);
        let temporary = path.with_extension("tmp");
        let written = (|| {
            let mut file = File::create(&temporary)?;
            serde_json::to_writer(&mut file, &header)?;
            file.write_all(b"\n")?;
            file.write_all(&body)?;
            file.sync_all()?;
            fs::rename(&temporary, &path)?;
            File::open(&self.directory)?.sync_all()
        })();
        written.map_err(|cause| {
            // Half a file on a full disk only makes it fuller.
            let _removed = fs::remove_file(&temporary);
            system("write", &path)(cause)
        })
    }

    fn prune(&mut self) {
        let sizes: Vec<(u64, u64)> = self
            .versions
            .keys()
            .map(|&number| (number, fs::metadata(self.path(number)).map_or(0, |file| file.len())))
            .collect();
        let mut bytes: u64 = sizes.iter().map(|(_, size)| size).sum();
        for (number, size) in sizes {
            let kept = self.versions.len();
            if kept <= 2 || (kept <= VERSIONS_MAX && bytes <= BYTES_MAX) {
                return;
            }
            // One that cannot be removed is tried again with the next version.
            if fs::remove_file(self.path(number)).is_ok() {
                self.versions.remove(&number);
            }
            bytes -= size;
        }
    }
}

fn system(what: &'static str, path: &Path) -> impl FnOnce(io::Error) -> HistoryError {
    let path = path.to_owned();
    move |cause| HistoryError::System { what, path, cause }
}

/// The files of a directory that end so; none where there is no directory.
fn paths(directory: &Path, extension: &str) -> Result<Vec<PathBuf>, HistoryError> {
    let entries = match fs::read_dir(directory) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(system("read", directory)(error)),
    };
    let paths = entries.filter_map(|entry| Some(entry.ok()?.path()));
    Ok(paths
        .filter(|path| path.extension().is_some_and(|found| found == extension))
        .collect())
}

/// The first line; the reader stands behind it.
fn read_header(path: &Path) -> Result<(Header, BufReader<File>), HistoryError> {
    let damaged = |what: String| HistoryError::Damaged {
        path: path.to_owned(),
        what,
    };
    let file = File::open(path).map_err(system("open", path))?;
    let length = file.metadata().map_err(system("look at", path))?.len();
    let mut reader = BufReader::new(file);
    let mut line = Vec::new();
    let mut limited = (&mut reader).take(HEADER_MAX);
    limited.read_until(b'\n', &mut line).map_err(system("read", path))?;
    if line.last() != Some(&b'\n') {
        return Err(damaged("it is cut short".into()));
    }
    let header: Header = serde_json::from_slice(&line).map_err(|error| damaged(format!("not a version: {error}")))?;
    let named = path.file_stem().and_then(|stem| stem.to_str()?.parse().ok());
    if header.format != 1 || named != Some(header.version.number) {
        return Err(damaged("not a version that this weir can read".into()));
    }
    // A file cut in half is found without reading it all.
    let body = header
        .files
        .iter()
        .try_fold(line.len() as u64, |sum, file| sum.checked_add(file.bytes));
    if body != Some(length) {
        return Err(damaged("it is cut short".into()));
    }
    Ok((header, reader))
}

/// FNV-1a, 64 bits: tells a damaged file from a whole one, and one content from another. It keeps nobody out.
#[must_use]
pub fn fnv1a(bytes: &[u8]) -> u64 {
    let step = |hash: u64, byte: &u8| (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3);
    bytes.iter().fold(0xcbf2_9ce4_8422_2325, step)
}

/// Bytes of a first line: room for the names of some ten thousand drop-ins.
const HEADER_MAX: u64 = 4 << 20;

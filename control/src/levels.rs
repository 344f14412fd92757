//! Bucket levels over a restart: written down when weir stops, taken up by the next start, so that a contract does not get a
//! second burst by it.
//!
//! The file stands beside the history, in `[control] state`. Levels are as of an instant of the monotonic clock, which all
//! processes share until the machine boots again, so the time between two processes fills the buckets exactly as if weir had
//! gone on. A contract without a level here begins full, as does every contract after a kill or a boot.

use std::collections::HashMap;
use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use dataplane::clock::Nanos;
use dataplane::contract::Judge;
use dataplane::meter;
use serde::{Deserialize, Serialize};

use crate::change::diff::ContractName;
use crate::compile::Compiled;

const FILE: &str = "levels.json";
const FORMAT: u32 = 1;

/// What tells one boot of the machine from another: a new one for each.
const BOOT: &str = "/proc/sys/kernel/random/boot_id";

/// The levels of contracts whose buckets were not full.
#[derive(Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Levels {
    format: u32,
    boot: String,
    at_ns: u64,
    contracts: Vec<Level>,
}

#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Level {
    service: String,
    class: String,
    direction: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    segment: Option<String>,
    region: String,
    committed_bytes: u64,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    second_bytes: Option<u64>,
}

/// Why levels could not be kept or found.
#[derive(Debug, thiserror::Error)]
#[error("{path}: {cause}")]
pub struct LevelsError {
    path: PathBuf,
    cause: io::Error,
}

impl Levels {
    /// Those of a table at `now`.
    #[must_use]
    pub fn of(compiled: &Compiled, now: Nanos) -> Self {
        let level = |(number, name): (usize, ContractName<'_>)| {
            let contract = compiled.contract(number);
            let Judge::Meter(meter) = &contract.judge else {
                return None;
            };
            let levels = compiled.table.cells.levels(meter, contract.slot, now);
            (levels != meter.full()).then(|| Level::new(name, levels))
        };
        Self {
            format: FORMAT,
            boot: boot(),
            at_ns: now.0,
            contracts: compiled.numbered().filter_map(level).collect(),
        }
    }

    /// Takes what the process before has left in `state`; the file is gone then. Nothing, if there is no file, or one of
    /// another boot.
    ///
    /// # Errors
    /// The file cannot be read, or is damaged.
    pub fn take(state: &Path, now: Nanos) -> Result<Self, LevelsError> {
        let path = state.join(FILE);
        let read = || -> io::Result<Self> {
            let text = match fs::read(&path) {
                Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Self::default()),
                text => text?,
            };
            // Where it cannot be removed it is used again: its levels only grow older, and so fuller.
            let _removed = fs::remove_file(&path);
            Ok(serde_json::from_slice(&text)?)
        };
        let levels = read().map_err(|cause| LevelsError {
            path: path.clone(),
            cause,
        })?;
        let is_ours = levels.format == FORMAT && levels.boot == boot() && levels.at_ns <= now.0;
        Ok(if is_ours { levels } else { Self::default() })
    }

    /// Writes them down in `state`, whole or not at all.
    ///
    /// # Errors
    /// The directory cannot be written to.
    pub fn keep(&self, state: &Path) -> Result<(), LevelsError> {
        let path = state.join(FILE);
        let temporary = path.with_extension("tmp");
        let write = || -> io::Result<()> {
            fs::create_dir_all(state)?;
            let mut file = io::BufWriter::new(File::create(&temporary)?);
            serde_json::to_writer(&mut file, self)?;
            file.flush()?;
            fs::rename(&temporary, &path)
        };
        write().map_err(|cause| {
            let _removed = fs::remove_file(&temporary);
            LevelsError { path, cause }
        })
    }

    /// Fills the buckets of a table to these levels, before any worker runs. Returns how many contracts that were.
    pub fn resume(&self, compiled: &Compiled) -> usize {
        let levels: HashMap<ContractName<'_>, &Level> =
            self.contracts.iter().map(|level| (level.name(), level)).collect();
        let mut resumed = 0;
        for (number, name) in compiled.numbered() {
            let contract = compiled.contract(number);
            if let Judge::Meter(meter) = &contract.judge
                && let Some(level) = levels.get(&name)
            {
                let cells = &compiled.table.cells;
                cells.resume(meter, contract.slot, level.levels(), Nanos(self.at_ns));
                resumed += 1;
            }
        }
        resumed
    }
}

impl Level {
    fn new(name: ContractName<'_>, levels: meter::Levels) -> Self {
        Self {
            service: name.service.to_owned(),
            class: name.class.to_owned(),
            direction: name.direction.to_owned(),
            segment: name.segment.map(str::to_owned),
            region: name.region.to_owned(),
            committed_bytes: levels.committed_bytes,
            second_bytes: levels.second_bytes,
        }
    }

    fn name(&self) -> ContractName<'_> {
        ContractName {
            service: &self.service,
            class: &self.class,
            direction: &self.direction,
            segment: self.segment.as_deref(),
            region: &self.region,
        }
    }

    fn levels(&self) -> meter::Levels {
        meter::Levels {
            committed_bytes: self.committed_bytes,
            second_bytes: self.second_bytes,
        }
    }
}

/// Empty where the kernel does not tell, which is then as good as any other boot.
fn boot() -> String {
    fs::read_to_string(BOOT).unwrap_or_default().trim().to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn levels(at_ns: u64) -> Levels {
        Levels {
            format: FORMAT,
            boot: boot(),
            at_ns,
            contracts: vec![Level {
                service: "web".into(),
                class: "gold".into(),
                direction: "egress".into(),
                segment: None,
                region: "here".into(),
                committed_bytes: 1_234,
                second_bytes: Some(0),
            }],
        }
    }

    #[test]
    fn what_was_kept_is_taken_once() {
        let state = tempfile::tempdir().unwrap();
        let inner = state.path().join("made/for/it");
        levels(5).keep(&inner).unwrap();
        assert_eq!(Levels::take(&inner, Nanos(6)).unwrap(), levels(5));
        assert_eq!(Levels::take(&inner, Nanos(6)).unwrap(), Levels::default());
        assert_eq!(fs::read_dir(&inner).unwrap().count(), 0);
    }

    #[test]
    fn another_boot_another_format_and_the_future_are_nothing() {
        let state = tempfile::tempdir().unwrap();
        let other_boot = Levels {
            boot: "no".into(),
            ..levels(5)
        };
        let other_format = Levels { format: 2, ..levels(5) };
        for foreign in [other_boot, other_format, levels(7)] {
            foreign.keep(state.path()).unwrap();
            assert_eq!(Levels::take(state.path(), Nanos(6)).unwrap(), Levels::default());
        }
    }

    #[test]
    fn a_damaged_file_is_told_and_does_not_come_back() {
        let state = tempfile::tempdir().unwrap();
        levels(5).keep(state.path()).unwrap();
        let path = state.path().join(FILE);
        let text = fs::read(&path).unwrap();
        fs::write(&path, &text[..text.len() / 2]).unwrap();
        let error = Levels::take(state.path(), Nanos(6)).unwrap_err();
        assert!(error.to_string().contains("levels.json"), "{error}");
        assert_eq!(Levels::take(state.path(), Nanos(6)).unwrap(), Levels::default());
    }

    #[test]
    fn where_nothing_can_be_written_it_is_said() {
        let error = levels(5).keep(Path::new("/dev/null/weir")).unwrap_err();
        assert!(error.to_string().starts_with("/dev/null/weir/levels.json: "), "{error}");
    }
}

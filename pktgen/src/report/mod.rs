//! What a run found, as a value: [`Report`], and from it text for a terminal, JSON, and one HTML file that needs nothing else.
//!
//! ```text
//!   results of a run ─► Report ─┬─► text()   tables of at most 100 columns
//!   machine, interfaces ──┘     ├─► json()   everything; from_json() reads it again
//!                               └─► html()   the same with plots, one file, no script, nothing fetched
//! ```
//!
//! A report holds plain numbers and texts: no sockets, no histograms, no borrowed data. It measures nothing itself but the
//! [`Machine`], and knows nothing of how a search is done. A run that was broken off makes a report as well, which says so.
//!
//! | module | what it owns |
//! | --- | --- |
//! | `setup` | what sent what to what: [`Setup`], [`StreamRow`] |
//! | `machine` | [`Machine`]: the computer under the bench |
//! | `interface` | [`Interface`]: driver, queues, rings, offloads |
//! | `result` | the rows: throughput, latency, services, and the smaller tests |
//! | `units`, `table` | numbers as people read them, and rows of them |
//! | `tables`, `bench` | which tables there are: of results, and of what they depend on |
//! | `text` | the tables on a terminal |
//! | `html`, `figures` | the page, and which plots it has |
//! | `plot`, `axis`, `markup` | how a plot is drawn as SVG, and how text is escaped |
//! | `write` | files that are there whole or not at all |
//!
//! Numbers: rates are packets per second or bits per second as `f64`, times are nanoseconds unless the name says
//! seconds, ratios are 0 to 1. A number that is not finite is shown as a dash, and becomes `null` in JSON and NaN when
//! read again. Texts may come from contract files and command lines: they are escaped, never trusted.

mod axis;
mod bench;
mod figures;
mod html;
mod interface;
mod machine;
mod markup;
mod plot;
mod result;
#[cfg(test)]
mod sample;
mod setup;
mod table;
mod tables;
mod text;
mod units;
mod write;

pub use interface::{Coalescing, Interface, OffloadState, RingSizes};
pub use machine::{Machine, Mitigation};
pub use result::{
    BackToBackRow, CalibrationRow, CurvePoint, DscpCount, GapBucket, GoalRow, LatencyRow, Method, Percentiles,
    ReconfigurationRow, Replay, ServiceLatency, ServiceRow, Soak, SoakPoint, ThroughputRow, TrialRow,
};
pub use setup::{Setup, SocketSetup, StreamRow};
pub use write::{WriteError, write_atomically};

use std::path::Path;

use serde::{Deserialize, Deserializer, Serialize};

/// The number of the JSON's shape: it grows when a field changes its meaning or goes away, not when one is added.
pub const FORMAT: u32 = 1;

/// Everything a run found, and everything needed to judge it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Report {
    /// The shape of this value as JSON: [`FORMAT`].
    pub format: u32,
    /// What was tested, in a few words.
    pub title: String,
    /// When the run began: RFC 3339, UTC, to the second.
    pub when: String,
    /// How long the run took, in seconds; 0 while it has not ended.
    #[serde(deserialize_with = "or_nan")]
    pub seconds: f64,
    /// Whether the run came to its end.
    pub completeness: Completeness,
    /// The command line, program first.
    pub command: Vec<String>,
    /// Same seed, same packets at the same instants.
    pub seed: u64,
    /// The computer.
    pub machine: Machine,
    /// Interfaces, sockets, traffic.
    pub setup: Setup,
    /// How well the generator kept the rates it was asked for.
    #[serde(default)]
    pub calibration: Vec<CalibrationRow>,
    /// One row for each frame size or mix. The page takes its headline from the first.
    #[serde(default)]
    pub throughput: Vec<ThroughputRow>,
    /// One row for each load.
    #[serde(default)]
    pub latency: Vec<LatencyRow>,
    /// One row for each stream of each service.
    #[serde(default)]
    pub services: Vec<ServiceRow>,
    /// One row for each frame size (RFC 9004).
    #[serde(default)]
    pub back_to_back: Vec<BackToBackRow>,
    /// A long run at one load.
    #[serde(default)]
    pub soak: Option<Soak>,
    /// What a change of the device's configuration cost.
    #[serde(default)]
    pub reconfiguration: Vec<ReconfigurationRow>,
    /// A capture that was sent again.
    #[serde(default)]
    pub replay: Option<Replay>,
    /// Sentences a reader must know to judge the figures.
    #[serde(default)]
    pub notes: Vec<String>,
}

/// Whether a run came to its end.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "state")]
pub enum Completeness {
    /// All that was asked for was measured.
    Complete,
    /// The run was broken off; what is in the report was measured before that.
    Partial {
        /// By what, in words: "interrupted", "the link went down".
        why: String,
    },
}

impl Report {
    /// An empty report that begins now: with this machine, this process's command line and the seed. It is partial until
    /// [`finish`](Self::finish) is called.
    ///
    /// Takes some milliseconds for [`Machine::read`].
    #[must_use]
    pub fn begin(title: impl Into<String>, seed: u64, setup: Setup) -> Self {
        Self {
            format: FORMAT,
            title: title.into(),
            when: format!("{:.0}", jiff::Timestamp::now()),
            seconds: 0.0,
            completeness: Completeness::Partial {
                why: "the run has not ended".to_owned(),
            },
            // A file name that is not UTF-8 must not cost the report.
            command: std::env::args_os()
                .map(|word| word.to_string_lossy().into_owned())
                .collect(),
            seed,
            machine: Machine::read(),
            setup,
            calibration: Vec::new(),
            throughput: Vec::new(),
            latency: Vec::new(),
            services: Vec::new(),
            back_to_back: Vec::new(),
            soak: None,
            reconfiguration: Vec::new(),
            replay: None,
            notes: Vec::new(),
        }
    }

    /// Ends the run after so many seconds.
    pub fn finish(&mut self, seconds: f64, completeness: Completeness) {
        self.seconds = seconds;
        self.completeness = completeness;
    }

    /// Tables of at most 100 columns for a terminal, with control characters of names taken out.
    #[must_use]
    pub fn text(&self) -> String {
        text::render(self)
    }

    /// Everything, indented.
    ///
    /// # Errors
    /// None that a report can cause: its maps have text keys, and numbers that are not finite become `null`.
    pub fn json(&self) -> serde_json::Result<String> {
        serde_json::to_string_pretty(self)
    }

    /// Reads what [`json`](Self::json) wrote. Fields that a newer version added are ignored.
    ///
    /// # Errors
    /// The text is no report: the error says which field, line and column.
    pub fn from_json(text: &str) -> serde_json::Result<Self> {
        serde_json::from_str(text)
    }

    /// One page: style and plots inside, no script, nothing fetched.
    #[must_use]
    pub fn html(&self) -> String {
        html::render(self)
    }

    /// Writes [`json`](Self::json) to a file, whole or not at all.
    ///
    /// # Errors
    /// See [`write_atomically`].
    pub fn write_json(&self, path: &Path) -> Result<(), WriteError> {
        let mut text = self
            .json()
            .map_err(|error| WriteError::new(path, "make its text", error.into()))?;
        text.push('\n');
        write_atomically(path, text.as_bytes())
    }

    /// Writes [`html`](Self::html) to a file, whole or not at all.
    ///
    /// # Errors
    /// See [`write_atomically`].
    pub fn write_html(&self, path: &Path) -> Result<(), WriteError> {
        write_atomically(path, self.html().as_bytes())
    }

    /// Writes [`text`](Self::text) to a file, whole or not at all.
    ///
    /// # Errors
    /// See [`write_atomically`].
    pub fn write_text(&self, path: &Path) -> Result<(), WriteError> {
        write_atomically(path, self.text().as_bytes())
    }
}

/// JSON has no NaN: what was written as `null` is read as one.
fn or_nan<'de, D: Deserializer<'de>>(deserializer: D) -> Result<f64, D::Error> {
    Ok(Option::<f64>::deserialize(deserializer)?.unwrap_or(f64::NAN))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn json_comes_back_as_it_was() {
        let report = sample::full();
        let text = report.json().unwrap();
        assert_eq!(Report::from_json(&text).unwrap(), report);
        // Sections a run did not have may be missing altogether.
        let bare = sample::bare();
        let mut value: serde_json::Value = serde_json::from_str(&bare.json().unwrap()).unwrap();
        for section in [
            "throughput",
            "latency",
            "services",
            "soak",
            "replay",
            "notes",
            "calibration",
        ] {
            value.as_object_mut().unwrap().remove(section);
        }
        assert_eq!(Report::from_json(&value.to_string()).unwrap(), bare);
    }

    #[test]
    fn numbers_that_are_not_finite_survive_json() {
        let report = sample::not_finite();
        let again = Report::from_json(&report.json().unwrap()).unwrap();
        assert!(again.seconds.is_nan());
        assert!(again.throughput[0].trials[0].load_pps.is_nan());
        assert_eq!(again.throughput[0].goals[0].lower_pps, None);
        assert_eq!(again.json().unwrap(), report.json().unwrap());
    }

    #[test]
    fn a_report_begins_partial_and_ends() {
        let mut report = Report::begin("nothing", 7, Setup::default());
        assert!(matches!(report.completeness, Completeness::Partial { .. }));
        let when: jiff::Timestamp = report.when.parse().unwrap();
        assert!(
            report.when.ends_with('Z') && when.subsec_nanosecond() == 0,
            "{}",
            report.when
        );
        report.finish(1.5, Completeness::Complete);
        assert_eq!(Report::from_json(&report.json().unwrap()).unwrap(), report);
    }

    #[test]
    fn an_error_in_json_says_where() {
        let text = sample::full()
            .json()
            .unwrap()
            .replace("\"seed\": 42", "\"seed\": \"x\"");
        let error = Report::from_json(&text).unwrap_err().to_string();
        assert!(error.contains("line"), "{error}");
    }
}

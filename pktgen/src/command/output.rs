//! Reports on the terminal and in files, progress on a terminal only, and Ctrl-C.

use std::io::{IsTerminal, Write};
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use indicatif::{ProgressBar, ProgressStyle};
use pktgen::report::{Completeness, Report};
use pktgen::search::Progress;

use super::{Done, Failure};

#[derive(clap::Args)]
pub(super) struct Output {
    /// Print JSON instead of tables
    #[arg(long)]
    json: bool,
    /// Write a page with plots, one file that needs nothing else
    #[arg(long, value_name = "FILE.html")]
    report: Option<PathBuf>,
    /// Write the JSON to a file as well
    #[arg(long, value_name = "FILE.json")]
    json_file: Option<PathBuf>,
}

impl Output {
    /// Writes everything that was asked for. The status says whether the report is complete.
    pub(super) fn write(&self, report: &Report) -> Done {
        let text = if self.json {
            report.json()? + "\n"
        } else {
            report.text()
        };
        // The reader may have gone (`| head`): the files are still worth writing.
        let _gone = std::io::stdout().write_all(text.as_bytes());
        if let Some(path) = &self.report {
            report.write_html(path)?;
            eprintln!("report: {}", path.display());
        }
        if let Some(path) = &self.json_file {
            report.write_json(path)?;
        }
        Ok(match &report.completeness {
            Completeness::Complete => ExitCode::SUCCESS,
            Completeness::Partial { why } => {
                eprintln!("pktgen: the report is partial: {why}");
                ExitCode::FAILURE
            }
        })
    }
}

/// A flag that Ctrl-C and SIGTERM raise. A second Ctrl-C ends the program at once.
pub(super) fn stop_flag() -> Result<Arc<AtomicBool>, Failure> {
    let stop = Arc::new(AtomicBool::new(false));
    for signal in [signal_hook::consts::SIGINT, signal_hook::consts::SIGTERM] {
        // In this order: the first signal finds the flag down and raises it.
        signal_hook::flag::register_conditional_shutdown(signal, 1, Arc::clone(&stop))?;
        signal_hook::flag::register(signal, Arc::clone(&stop))?;
    }
    Ok(stop)
}

/// A bar on standard error with the time left, where that is a terminal.
pub(super) struct Bar(ProgressBar);

impl Bar {
    pub(super) fn new() -> Self {
        let bar = if std::io::stderr().is_terminal() {
            ProgressBar::new(1)
        } else {
            ProgressBar::hidden()
        };
        if let Ok(style) = ProgressStyle::with_template("{bar:30} {msg}") {
            bar.set_style(style);
        }
        bar.enable_steady_tick(Duration::from_millis(200));
        Self(bar)
    }

    pub(super) fn show(&self, step: &Progress) {
        let left = step.expected.saturating_sub(step.done);
        self.0.set_length(step.expected.as_millis().max(1) as u64);
        self.0.set_position(step.done.as_millis() as u64);
        self.0
            .set_message(format!("{} ({} s left)", step.message, left.as_secs()));
    }
}

impl Drop for Bar {
    fn drop(&mut self) {
        self.0.finish_and_clear();
    }
}

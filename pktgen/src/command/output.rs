//! Reports on the terminal and in files.

use std::io::Write;
use std::path::PathBuf;
use std::process::ExitCode;

use pktgen::report::{Completeness, Report};

use super::Done;

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

/// Writes a line of data. The reader may have gone (`| head`): what is left to do is done all the same.
pub(super) fn say(line: impl std::fmt::Display) {
    let _gone = writeln!(std::io::stdout(), "{line}");
}

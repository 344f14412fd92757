//! `weir doctor`.

use std::io::{IsTerminal, Write};
use std::path::PathBuf;
use std::process::ExitCode;

use control::doctor::{DoctorOptions, Level, examine};
use control::socket;

use super::print_json;

#[derive(clap::Args)]
pub(crate) struct Doctor {
    /// Base configuration file.
    #[arg(long, value_name = "FILE", default_value = crate::DEFAULT_CONFIG)]
    config: PathBuf,
    /// Print JSON.
    #[arg(long)]
    json: bool,
    /// Where the appliance listens, if it runs.
    #[arg(long, value_name = "PATH", default_value = socket::DEFAULT_PATH)]
    socket: PathBuf,
    /// Read the files of another machine, unpacked here.
    #[arg(long, value_name = "DIRECTORY", default_value = "/", hide = true)]
    root: PathBuf,
}

/// Exit status when there are warnings and no errors.
const WARNINGS: u8 = 3;

pub(crate) fn doctor(doctor: Doctor) -> ExitCode {
    let findings = examine(&DoctorOptions {
        config: doctor.config,
        socket: doctor.socket,
        root: doctor.root,
    });
    if doctor.json {
        print_json(&findings);
    } else {
        let mut out = std::io::stdout().lock();
        let colour = out.is_terminal() && std::env::var_os("NO_COLOR").is_none();
        // Whoever reads us may have gone (`| head`): the exit status still says it.
        let _gone = out.write_all(findings.to_text(colour).as_bytes());
    }
    match findings.worst() {
        Level::Ok | Level::Note => ExitCode::SUCCESS,
        Level::Warning => ExitCode::from(WARNINGS),
        Level::Error => ExitCode::FAILURE,
    }
}

//! What the commands share: asking the appliance, printing, exit status.

pub(crate) mod change;
pub(crate) mod explain;
pub(crate) mod generate;
pub(crate) mod show;
pub(crate) mod top;

use std::io::{IsTerminal, Write};
use std::path::Path;
use std::process::ExitCode;

use control::socket::{self, Request, Response};

/// Exit status of invalid configuration and of usage errors (clap's own).
pub(crate) const INVALID: u8 = 2;

pub(crate) fn ask(socket: &Path, request: &Request) -> Result<Response, ExitCode> {
    socket::ask(socket, request).map_err(|error| {
        let remedy = "is `weir run` running, with this --socket, and may you open it (root, group `weir`)?";
        fail(&format!("no answer at {}: {error}", socket.display()), Some(remedy), 1)
    })
}

pub(crate) fn unexpected(response: &Response) -> ExitCode {
    match response {
        Response::Invalid { reason } | Response::Refused { reason } | Response::Failed { reason } => {
            fail(reason, None, 1)
        }
        _ => fail(
            &"an answer of another kind came: are both of the same version?",
            None,
            1,
        ),
    }
}

pub(crate) fn print_json(value: &impl serde::Serialize) -> ExitCode {
    let mut out = std::io::stdout().lock();
    // Whoever reads us may have gone (`| head`): nothing to say to them then.
    let written = serde_json::to_writer_pretty(&mut out, value).is_ok() && writeln!(out).is_ok();
    if written { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

pub(crate) fn print_text(text: &str) -> ExitCode {
    // Whoever reads us may have gone (`| head`): nothing to say to them then.
    match std::io::stdout().write_all(text.as_bytes()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(_) => ExitCode::FAILURE,
    }
}

pub(crate) fn fail(error: &impl std::fmt::Display, remedy: Option<&str>, status: u8) -> ExitCode {
    eprintln!("weir: {error}");
    if let Some(remedy) = remedy {
        eprintln!("  help: {remedy}");
    }
    ExitCode::from(status)
}

/// Whether to colour what goes to stderr.
pub(crate) fn colour() -> bool {
    std::io::stderr().is_terminal() && std::env::var_os("NO_COLOR").is_none()
}

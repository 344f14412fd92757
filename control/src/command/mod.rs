//! What the commands share: asking the appliance, printing, exit status.

pub(crate) mod bundle;
pub(crate) mod capture;
pub(crate) mod change;
pub(crate) mod doctor;
pub(crate) mod explain;
pub(crate) mod generate;
mod indent;
pub(crate) mod show;
pub(crate) mod top;

use std::io::{BufWriter, IsTerminal, StdoutLock, Write};
use std::path::Path;
use std::process::ExitCode;

use control::socket::{self, Request, Response};

/// Exit status of invalid configuration and of usage errors (clap's own).
pub(crate) const INVALID: u8 = 2;

pub(crate) fn ask(socket: &Path, request: &Request) -> Result<Response, ExitCode> {
    socket::ask(socket, request).map_err(|error| no_answer(socket, &error))
}

pub(crate) fn no_answer(socket: &Path, error: &std::io::Error) -> ExitCode {
    let remedy = "is `weir run` running, with this --socket, and may you open it (root, group `weir`)?";
    fail(&format!("no answer at {}: {error}", socket.display()), Some(remedy), 1)
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
    print(|out| Ok(serde_json::to_writer_pretty(out, value)?))
}

/// Prints JSON that has no line breaks as [`print_json`] would.
pub(crate) fn print_json_text(text: &str) -> ExitCode {
    print(|out| indent::write_indented(out, text))
}

fn print(write: impl FnOnce(&mut BufWriter<StdoutLock<'static>>) -> std::io::Result<()>) -> ExitCode {
    // Standard output alone would write every line by itself.
    let mut out = BufWriter::with_capacity(64 << 10, std::io::stdout().lock());
    // Whoever reads us may have gone (`| head`): nothing to say to them then.
    let written = write(&mut out).and_then(|()| writeln!(out)).and_then(|()| out.flush());
    match written {
        Ok(()) => ExitCode::SUCCESS,
        Err(_) => ExitCode::FAILURE,
    }
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

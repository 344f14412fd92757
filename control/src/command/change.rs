//! `weir plan`, `apply`, `confirm`, `rollback`, `history`.

use std::io::IsTerminal;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use control::change::diff::Difference;
use control::change::messages::{Done, HistoryReport, Wish};
use control::change::plan::{self, PlanError, PlanOptions};
use control::change::{history, messages, words};
use control::socket::{self, Files, Request, Response};

use super::{INVALID, ask, colour, fail, print_json, print_text, unexpected};
use crate::DEFAULT_CONFIG;

/// Exit status of `weir plan` when there are changes.
const CHANGES: u8 = 3;

#[derive(clap::Args)]
pub(crate) struct Plan {
    /// Base configuration file [default: the one that the appliance reads, or /etc/weir/weir.toml]
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Also find contracts whose burst lasts less than this round trip at their rate: 20ms, 1s.
    #[arg(long, value_name = "TIME", value_parser = latency)]
    rtt: Option<u64>,
    /// Print JSON.
    #[arg(long)]
    json: bool,
    /// Where the appliance listens.
    #[arg(long, value_name = "PATH", default_value = socket::DEFAULT_PATH)]
    socket: PathBuf,
}

#[derive(clap::Args)]
pub(crate) struct Apply {
    /// The base file that the appliance reads; another one is refused, because the next start would not read it.
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Go back by itself after this time unless `weir confirm` comes: 90s, 5m, 2h, at most a day.
    #[arg(long, value_name = "TIME", value_parser = confirm_time)]
    confirm: Option<Duration>,
    /// Go back at once if more than this share of the conforming packets is lost on trial.
    ///
    /// Of one contract or of all together, judged from a thousand conforming packets on.
    #[arg(long, value_name = "PERCENT", default_value = "0.1", value_parser = percent, requires = "confirm")]
    max_loss: u32,
    /// Go back at once if one in a hundred conforming packets waits so long in weir on trial: 500us, 20ms, 1s.
    ///
    /// Of one class at one port, judged from a thousand packets on. Waiting is measured in steps of an eighth.
    #[arg(long, value_name = "TIME", value_parser = latency, requires = "confirm")]
    max_latency: Option<u64>,
    /// What to remember of it in the history, at most 500 bytes.
    #[arg(long, value_name = "TEXT", value_parser = note)]
    note: Option<String>,
    /// Where the appliance listens.
    #[arg(long, value_name = "PATH", default_value = socket::DEFAULT_PATH)]
    socket: PathBuf,
}

#[derive(clap::Args)]
pub(crate) struct Confirm {
    /// Where the appliance listens.
    #[arg(long, value_name = "PATH", default_value = socket::DEFAULT_PATH)]
    socket: PathBuf,
}

#[derive(clap::Args)]
pub(crate) struct Rollback {
    /// Number of the version, as `weir history` shows it [default: the one before what runs]
    #[arg(value_name = "N")]
    version: Option<u64>,
    /// What to remember of it in the history, at most 500 bytes.
    #[arg(long, value_name = "TEXT", value_parser = note)]
    note: Option<String>,
    /// Where the appliance listens.
    #[arg(long, value_name = "PATH", default_value = socket::DEFAULT_PATH)]
    socket: PathBuf,
}

#[derive(clap::Args)]
pub(crate) struct History {
    /// Show what this version changed.
    #[arg(value_name = "N")]
    version: Option<u64>,
    /// Print JSON.
    #[arg(long)]
    json: bool,
    /// Where no appliance runs: the base file that names the directory of the history.
    #[arg(long, value_name = "FILE", default_value = DEFAULT_CONFIG)]
    config: PathBuf,
    /// Where the appliance listens.
    #[arg(long, value_name = "PATH", default_value = socket::DEFAULT_PATH)]
    socket: PathBuf,
}

pub(crate) fn plan(options: Plan) -> ExitCode {
    let wanted = PlanOptions {
        config: options.config,
        default_config: DEFAULT_CONFIG.into(),
        socket: options.socket,
        rtt: options.rtt.map(Duration::from_micros),
    };
    let found = match plan::plan(&wanted) {
        Ok(found) => found,
        Err(PlanError::Config(report)) => {
            eprint!("{}", report.render(colour()));
            return fail(&"the configuration is not valid: there is no plan", None, INVALID);
        }
        Err(error) => {
            let remedy = matches!(error, PlanError::Socket { .. }).then_some("may you open it (root, group `weir`)?");
            return fail(&error, remedy, 1);
        }
    };
    let printed = if options.json {
        print_json(&found)
    } else {
        print_text(&words::plan_text(&found, stdout_colour()))
    };
    if printed != ExitCode::SUCCESS || found.difference.is_empty() {
        printed
    } else {
        ExitCode::from(CHANGES)
    }
}

pub(crate) fn apply(options: Apply) -> ExitCode {
    let wish = Wish {
        confirm_seconds: options.confirm.map(|time| time.as_secs()),
        max_loss_ppm: options.max_loss,
        max_latency_us: options.max_latency,
        note: options.note,
        file: options.config.map(|file| std::path::absolute(&file).unwrap_or(file)),
    };
    let request = Request::Apply { wish, by: sudo_user() };
    match ask(&options.socket, &request) {
        Ok(Response::Changed(done)) => {
            let status = say(&done);
            print_line(format_args!(
                "table {} is live{}: {}",
                done.generation,
                version(&done),
                done.summary
            ));
            if let Some(time) = options.confirm.filter(|_| done.on_trial) {
                print_line(format_args!(
                    "on trial: goes back in {time:?} unless `weir confirm` comes"
                ));
            }
            status
        }
        other => refused("apply", other),
    }
}

pub(crate) fn confirm(options: &Confirm) -> ExitCode {
    match ask(&options.socket, &Request::Confirm { by: sudo_user() }) {
        Ok(Response::Changed(done)) => {
            let status = say(&done);
            print_line(format_args!(
                "confirmed: table {}{} stays",
                done.generation,
                version(&done)
            ));
            status
        }
        other => refused("confirm", other),
    }
}

pub(crate) fn rollback(options: Rollback) -> ExitCode {
    let request = Request::Rollback {
        version: options.version,
        note: options.note,
        by: sudo_user(),
    };
    match ask(&options.socket, &request) {
        Ok(Response::Changed(done)) => {
            let status = say(&done);
            print_line(format_args!(
                "table {} is live{}: {}",
                done.generation,
                version(&done),
                done.summary
            ));
            status
        }
        other => refused("rollback", other),
    }
}

pub(crate) fn history(options: &History) -> ExitCode {
    if let Some(number) = options.version {
        return version_difference(options, number);
    }
    let report = match socket::ask(&options.socket, &Request::History) {
        Ok(Response::History(report)) => report,
        Ok(other) => return unexpected(&other),
        Err(error) if plan::is_absent(&error) => match read_history(&options.config) {
            Ok(found) => HistoryReport::of(&found),
            Err(failed) => return failed,
        },
        Err(error) => return fail(&format!("no answer at {}: {error}", options.socket.display()), None, 1),
    };
    if options.json {
        return print_json(&report);
    }
    eprintln!("history in {}", report.directory.display());
    print_text(&words::history_text(&report))
}

/// What a version changed against the one before it.
fn version_difference(options: &History, number: u64) -> ExitCode {
    let (files, before) = match socket::ask(&options.socket, &Request::Version { number }) {
        Ok(Response::Version { files, before }) => (files, before),
        Ok(other) => return unexpected(&other),
        Err(error) if plan::is_absent(&error) => {
            let found = match read_history(&options.config) {
                Ok(found) => found.with_predecessor(number),
                Err(failed) => return failed,
            };
            match found {
                Ok((texts, before)) => (socket::files(&texts), before.as_ref().map(socket::files)),
                Err(error) => return fail(&error, None, 1),
            }
        }
        Err(error) => return fail(&format!("no answer at {}: {error}", options.socket.display()), None, 1),
    };
    let load = |files: Files| plan::texts(files).into_loaded().map(|loaded| loaded.config);
    let loaded = load(files).and_then(|new| Ok((new, before.map(load).transpose()?)));
    let (new, old) = match loaded {
        Ok(loaded) => loaded,
        Err(report) => {
            eprint!("{}", report.render(colour()));
            return fail(
                &format!("version {number} or the one before it is not valid for this weir"),
                None,
                1,
            );
        }
    };
    let difference = Difference::new(old.as_ref(), &new);
    if options.json {
        return print_json(&difference);
    }
    let mut text = String::new();
    // Writing to a String cannot fail.
    let _ok = words::write_difference(&mut text, &difference, stdout_colour());
    print_text(&format!("{text}Version {number}: {}.\n", difference.summary()))
}

/// The history on disk, for when nobody runs.
fn read_history(path: &Path) -> Result<history::History, ExitCode> {
    let loaded = config::load(path).map_err(|report| {
        eprint!("{}", report.render(colour()));
        fail(
            &"no appliance runs, and the configuration, which says where the history lies, is not valid",
            None,
            INVALID,
        )
    })?;
    history::History::read(&loaded.config.control.state).map_err(|error| fail(&error, None, 1))
}

/// What goes to stderr, and the exit status: a change that a worker has not taken is no success.
pub(crate) fn say(done: &Done) -> ExitCode {
    eprint!("{}", done.warnings);
    done.notes.iter().for_each(|note| eprintln!("weir: {note}"));
    if done.is_late {
        ExitCode::FAILURE
    } else {
        ExitCode::SUCCESS
    }
}

/// It is done, whether or not anybody reads that.
fn print_line(text: std::fmt::Arguments<'_>) {
    let _gone = print_text(&format!("{text}\n"));
}

fn version(done: &Done) -> String {
    done.version
        .map(|number| format!(", version {number}"))
        .unwrap_or_default()
}

fn refused(what: &str, answer: Result<Response, ExitCode>) -> ExitCode {
    match answer {
        Ok(Response::Refused { reason }) => {
            eprintln!("{reason}");
            eprintln!("weir: {what} refused: nothing has changed");
            ExitCode::from(INVALID)
        }
        Ok(other) => unexpected(&other),
        Err(failed) => failed,
    }
}

/// Whom sudo made root, if it did.
pub(crate) fn sudo_user() -> Option<String> {
    std::env::var("SUDO_USER").ok()
}

fn stdout_colour() -> bool {
    std::io::stdout().is_terminal() && std::env::var_os("NO_COLOR").is_none()
}

/// `90s`, `5m`, `2h`; a number alone would leave open of what.
fn confirm_time(text: &str) -> Result<Duration, String> {
    let help = || {
        format!(
            "write such as 90s, 5m or 2h, at most {} h",
            messages::CONFIRM_MAX.as_secs() / 3_600
        )
    };
    let split = text.find(|c: char| !c.is_ascii_digit()).ok_or_else(help)?;
    let number: u64 = text[..split].parse().map_err(|_| help())?;
    let factor = match text[split..].trim() {
        "s" => 1,
        "m" | "min" => 60,
        "h" => 3_600,
        _ => return Err(help()),
    };
    let seconds = number
        .checked_mul(factor)
        .filter(|seconds| *seconds > 0)
        .ok_or_else(help)?;
    let time = Duration::from_secs(seconds);
    if time <= messages::CONFIRM_MAX {
        Ok(time)
    } else {
        Err(help())
    }
}

/// Microseconds from `500us`, `20ms`, `1s`.
fn latency(text: &str) -> Result<u64, String> {
    let help = || "write such as 500us, 20ms or 1s, 10us to 10s".to_owned();
    let split = text.find(|c: char| !c.is_ascii_digit() && c != '.').ok_or_else(help)?;
    let number: f64 = text[..split].parse().map_err(|_| help())?;
    let factor = match text[split..].trim() {
        "us" | "µs" => 1.0,
        "ms" => 1e3,
        "s" => 1e6,
        _ => return Err(help()),
    };
    let us = number * factor;
    if (10.0..=1e7).contains(&us) {
        Ok(us as u64)
    } else {
        Err(help())
    }
}

/// Parts per million from `0.1` or `0.1 %`.
fn percent(text: &str) -> Result<u32, String> {
    let number = text.trim().trim_end_matches('%').trim();
    config::units::parse_percent(&format!("{number} %")).map_err(|error| format!("{}: {}", error.message, error.help))
}

fn note(text: &str) -> Result<String, String> {
    if text.len() <= 500 {
        Ok(text.to_owned())
    } else {
        Err("at most 500 bytes".to_owned())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_and_shares() {
        let seconds = |text| confirm_time(text).ok().map(|time| time.as_secs());
        let times = ["90s", "5m", "5 min", "2h", "24h"].map(seconds);
        assert_eq!(times, [90, 300, 300, 7_200, 86_400].map(Some));
        for text in [
            "",
            "5",
            "0s",
            "25h",
            "5 parsecs",
            "-5m",
            "m",
            "99999999999999999999h",
            "9999999999999999999h",
        ] {
            assert_eq!(seconds(text), None, "{text}");
        }
        assert_eq!(
            ["0.1", "0.1 %", "100%", "0"].map(|text| percent(text).ok()),
            [1_000, 1_000, 1_000_000, 0].map(Some)
        );
        assert!(percent("101").is_err() && percent("x").is_err());
        let limits = ["500us", "20ms", "2.5 ms", "1s"].map(|text| latency(text).ok());
        assert_eq!(limits, [500, 20_000, 2_500, 1_000_000].map(Some));
        for text in ["", "20", "0ms", "1us", "11s", "ms", "1.2.3ms", "-1ms", "2m"] {
            assert!(latency(text).is_err(), "{text}");
        }
    }
}

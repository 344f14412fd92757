//! `weir`, the command. Exit status: 0 done, 1 failed, 2 usage or invalid configuration; of `weir plan` 3 changes, of `weir run`
//! 3 a fault that a new start may mend.
#![deny(unsafe_code)]

mod command;

use std::io::{IsTerminal, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::{FromArgMatches, Parser, Subcommand};
use command::bundle::SupportBundle;
use command::capture::Capture;
use command::change::{Apply, Confirm, History, Plan, Rollback};
use command::doctor::Doctor;
use command::show::Show;
use command::{INVALID, ask, colour, fail, print_json, print_text, unexpected};
use control::appliance::{MESSAGES_SHOWN, StartError};
use control::bench::{BenchError, BenchOptions};
use control::demo::DemoOptions;
use control::replay::{ReplayError, ReplayOptions};
use control::run::{RunError, RunOptions};
use control::socket::{self, Request, Response};
use control::system::logging::{self, Format, Level};
use pktgen::report::Completeness;
use pktgen::suite::Method;

/// A bandwidth-entitlement gateway: conforming traffic is protected, excess goes last.
#[derive(Parser)]
#[command(name = "weir", version)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Run the appliance in the foreground (systemd runs this).
    ///
    /// SIGHUP reloads the contracts, SIGTERM and SIGINT stop. Needs root, or CAP_NET_ADMIN, CAP_NET_RAW and CAP_BPF.
    /// Exit status: 0 stopped, 1 failed, 2 usage or invalid configuration, 3 a fault that a new start may mend.
    Run {
        /// Base configuration file; `contracts.d/*.toml` beside it are read too.
        #[arg(long, value_name = "FILE", default_value = DEFAULT_CONFIG)]
        config: PathBuf,
        /// Where to listen for the commands that ask a running appliance.
        #[arg(long, value_name = "PATH", default_value = socket::DEFAULT_PATH)]
        socket: PathBuf,
        /// Form of the log on stderr [default: text, or journald's fields where stderr is the journal's]
        #[arg(long, value_name = "FORMAT")]
        log_format: Option<Format>,
        /// The least important messages that are still logged.
        #[arg(long, value_name = "LEVEL", default_value = "info")]
        log_level: Level,
        /// Stop when standard input closes.
        #[arg(long, hide = true)]
        die_with_parent: bool,
    },
    /// Validate the configuration: every error and warning, with its place and remedy.
    Check {
        /// Base configuration file.
        #[arg(long, value_name = "FILE", default_value = DEFAULT_CONFIG)]
        config: PathBuf,
        /// Print JSON.
        #[arg(long)]
        json: bool,
    },
    /// Show what `weir apply` would change: contracts, classes, ports, findings, and traffic of the last minute judged again.
    ///
    /// Exit status: 0 no change, 3 changes, 1 failed, 2 invalid configuration or usage.
    Plan(Plan),
    /// Make the running appliance take its configuration from disk, at once or on trial.
    ///
    /// It reads the file that it was started with. The version is kept in the history; nothing changes if the file is not valid.
    Apply(Apply),
    /// Keep the version that is on trial.
    Confirm(Confirm),
    /// Go back to an earlier version.
    ///
    /// The files on disk stay as they are: mend them too, or the next reload or start takes them.
    Rollback(Rollback),
    /// Show the versions that were applied.
    History(History),
    /// Show what the running appliance does.
    Status {
        /// Print JSON.
        #[arg(long)]
        json: bool,
        /// Where the appliance listens.
        #[arg(long, value_name = "PATH", default_value = socket::DEFAULT_PATH)]
        socket: PathBuf,
    },
    /// Show one contract, service, class, port or worker in full, or a table of all of them.
    Show(Show),
    /// Say why a packet gets the verdict it gets: service, class, contract, bucket, ring, and the line that decided.
    ///
    /// Asks the running appliance, whose tokens it leaves alone; with --config it needs none.
    Explain(Box<command::explain::Explain>),
    /// Watch what the running appliance does, on a terminal: rates by contract, sorted and filtered; ? shows the keys.
    Top(command::top::Top),
    /// Write packets that the running appliance drops, re-marks or samples to a pcapng file, each with the reason in its comment.
    ///
    /// It never holds the appliance up: what is too much is counted as missed.
    Capture(Box<Capture>),
    /// Look at machine, interfaces and configuration: what stands in weir's way, and what to do about it.
    ///
    /// Changes nothing. Exit status: 0 nothing worse than a note, 3 warnings, 1 errors.
    Doctor(Doctor),
    /// Write what a support engineer asks for into one file: configuration, status, history, findings, machine, log.
    ///
    /// Secrets are removed and no packet is in it, but names and addresses of services are. What cannot be had is noted inside.
    SupportBundle(SupportBundle),
    /// Make the running appliance read its contracts again; nothing changes if they are not valid.
    Reload {
        /// Where the appliance listens.
        #[arg(long, value_name = "PATH", default_value = socket::DEFAULT_PATH)]
        socket: PathBuf,
    },
    /// Run the pipeline over a capture, with the capture's clock.
    Replay {
        /// Base configuration file.
        #[arg(long, value_name = "FILE")]
        config: PathBuf,
        /// Capture to read: pcap or pcapng, Ethernet.
        #[arg(long = "in", value_name = "A.pcap")]
        input: PathBuf,
        /// Port at which its frames enter [default: the first port with side = "site"].
        #[arg(long, value_name = "PORT")]
        port: Option<String>,
        /// Capture to write: what leaves the other port, when it leaves (pcap, nanoseconds).
        #[arg(long = "out", value_name = "B.pcap")]
        output: PathBuf,
        /// Write counters per contract and the ledger as JSON.
        #[arg(long, value_name = "R.json")]
        report: Option<PathBuf>,
    },
    /// Show a whole virtual gateway on this machine: namespaces, veth pairs, traffic, and a verdict. Needs root.
    ///
    /// Seven services in three classes send at 0.5 to 10 times their entitlements through a real `weir run`: with room for
    /// all, under congestion, while an entitlement is doubled, and while a broken file is loaded. Nothing is left behind.
    Demo {
        /// Seconds of traffic.
        #[arg(long, value_name = "N", default_value_t = 20.0, value_parser = demo_seconds)]
        seconds: f64,
        /// Print the verdict as JSON.
        #[arg(long)]
        json: bool,
    },
    /// Measure what a gateway with these contracts does on this machine, in a virtual lab: NDR and PDR by frame size, latency,
    /// each service's share, and what a swap of the tables costs. Needs root.
    ///
    /// Sender, receiver and gateway share the machine. For a box of its own, `pktgen bench` measures between two interfaces.
    Bench(Box<Bench>),
    /// Print the JSON Schema of the configuration, for editors.
    Schema {
        /// Print the OpenAPI document of the HTTP API instead.
        #[arg(long)]
        api: bool,
    },
    /// Write the manual pages of all commands.
    Man {
        /// Directory to write to; it is made if need be.
        #[arg(value_name = "DIR")]
        directory: PathBuf,
    },
    /// Print the script that completes weir's commands and options in a shell.
    Completions {
        /// The shell.
        #[arg(value_name = "SHELL")]
        shell: clap_complete::Shell,
    },
}

#[derive(clap::Args)]
struct Bench {
    /// The configuration to measure; its ports become virtual links [default: 12 built-in contracts]
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// How much of its entitlement each service sends: 0.9 for everyone, ads=3 for one, 0.9,ads=3 for both.
    #[arg(long, value_name = "LIST", default_value = "0.9")]
    multiple: pktgen::contracts::Multiples,
    /// Frame sizes and mixes, separated by spaces: 64, 1518, simple, trex, csit, aaafg (RFC 6985).
    #[arg(long, value_name = "LIST", default_value = "64 csit 1518")]
    frames: String,
    /// `quick` looks for NDR and PDR 2 % wide; `full` as FD.io CSIT does, 0.5 % wide, some minutes for each frame size.
    #[arg(long, value_parser = ["quick", "full"], default_value = "quick")]
    method: String,
    /// Seconds at each load at which latency is measured.
    #[arg(long, value_name = "S", default_value_t = 2.0, value_parser = bench_seconds)]
    seconds: f64,
    /// Flows of each contract.
    #[arg(long, value_name = "N", default_value_t = 40)]
    flows: u32,
    /// Write a page with plots: one file that needs nothing else.
    #[arg(long, value_name = "FILE.html", default_value = "weir-bench.html")]
    report: PathBuf,
    /// Print JSON.
    #[arg(long)]
    json: bool,
}

const DEFAULT_CONFIG: &str = "/etc/weir/weir.toml";

fn main() -> ExitCode {
    let cli = command::generate::definition().get_matches();
    let cli = Cli::from_arg_matches(&cli).unwrap_or_else(|error| error.exit());
    match cli.command {
        Command::Run {
            config,
            socket,
            log_format,
            log_level,
            die_with_parent,
        } => {
            logging::begin(log_format, log_level);
            run(&RunOptions {
                config,
                socket,
                die_with_parent,
            })
        }
        Command::Check { config, json } => check(&config, json),
        Command::Plan(options) => command::change::plan(options),
        Command::Apply(options) => command::change::apply(options),
        Command::Confirm(options) => command::change::confirm(&options),
        Command::Rollback(options) => command::change::rollback(options),
        Command::History(options) => command::change::history(&options),
        Command::Status { json, socket } => status(&socket, json),
        Command::Show(options) => command::show::show(&options),
        Command::Explain(options) => command::explain::explain(&options),
        Command::Top(options) => command::top::top(options),
        Command::Capture(options) => command::capture::capture(*options),
        Command::Doctor(options) => command::doctor::doctor(options),
        Command::SupportBundle(options) => command::bundle::bundle(options),
        Command::Reload { socket } => reload(&socket),
        Command::Replay {
            config,
            input,
            port,
            output,
            report,
        } => replay(&config, &ReplayOptions { input, port, output }, report.as_deref()),
        Command::Demo { seconds, json } => demo(&DemoOptions { seconds, quiet: json }, json),
        Command::Bench(options) => bench(&options),
        Command::Schema { api: false } => print_json(&config::json_schema()),
        Command::Schema { api: true } => print_json(&control::api::openapi::document()),
        Command::Man { directory } => command::generate::man(&directory),
        Command::Completions { shell } => command::generate::completions(shell),
    }
}

/// Exit status of `weir run` after a fault that a new start may mend.
const TAKES_RESTART: u8 = 3;

fn run(options: &RunOptions) -> ExitCode {
    match control::run::run(options) {
        Ok(()) => ExitCode::SUCCESS,
        Err(RunError::Start(error)) => {
            if let StartError::Config(report) = &error {
                eprint!("{}", report.render_first(MESSAGES_SHOWN, colour()));
            }
            fail(
                &error,
                error.remedy().as_deref(),
                if error.is_configuration() { INVALID } else { 1 },
            )
        }
        Err(error @ RunError::Fault(_)) => fail(&error, None, TAKES_RESTART),
        Err(error) => fail(&error, error.remedy().as_deref(), 1),
    }
}

fn bench(options: &Bench) -> ExitCode {
    let frames = options
        .frames
        .split_whitespace()
        .map(str::parse)
        .collect::<Result<Vec<_>, _>>();
    let frames = match frames {
        Ok(frames) => frames,
        Err(error) => return fail(&error, None, INVALID),
    };
    let wanted = BenchOptions {
        config: options.config.clone(),
        multiple: options.multiple.clone(),
        frames,
        method: if options.method == "full" {
            Method::csit()
        } else {
            Method::quick()
        },
        seconds: std::time::Duration::from_secs_f64(options.seconds),
        flows: options.flows,
    };
    let stop = match pktgen::console::stop_flag() {
        Ok(stop) => stop,
        Err(error) => return fail(&error, None, 1),
    };
    let bar = pktgen::console::Bar::default();
    let report = control::bench::run(&wanted, &stop, &mut |step| bar.show(step));
    drop(bar);
    match report {
        Ok(report) => write_bench(options, &report),
        Err(BenchError::Config(report)) => {
            eprint!("{}", report.render(colour()));
            ExitCode::from(INVALID)
        }
        Err(error) => fail(&error, None, 1),
    }
}

fn write_bench(options: &Bench, report: &pktgen::report::Report) -> ExitCode {
    let text = if options.json {
        report.json().unwrap_or_default() + "\n"
    } else {
        report.text()
    };
    // The reader may have gone: the page is still worth writing.
    let _gone = std::io::stdout().write_all(text.as_bytes());
    if let Err(error) = report.write_html(&options.report) {
        return fail(&error, None, 1);
    }
    eprintln!("report: {}", options.report.display());
    match &report.completeness {
        Completeness::Complete => ExitCode::SUCCESS,
        Completeness::Partial { why } => {
            eprintln!("the report is partial: {why}");
            ExitCode::FAILURE
        }
    }
}

fn bench_seconds(text: &str) -> Result<f64, String> {
    match text.parse() {
        Ok(seconds) if (0.1..=86_400.0).contains(&seconds) => Ok(seconds),
        _ => Err("write seconds, 0.1 to 86400".to_owned()),
    }
}

fn demo(options: &DemoOptions, json: bool) -> ExitCode {
    let verdict = match control::demo::run(options) {
        Ok(verdict) => verdict,
        Err(error) => return fail(&error, None, 1),
    };
    if json {
        let _printed = print_json(&verdict);
    } else {
        let _gone = print_text(&control::demo::screen::verdict_text(&verdict));
    }
    if verdict.passed {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    }
}

fn demo_seconds(text: &str) -> Result<f64, String> {
    let seconds: f64 = text.parse().map_err(|_| "not a number".to_owned())?;
    if (5.0..=3600.0).contains(&seconds) {
        Ok(seconds)
    } else {
        Err("between 5 and 3600".to_owned())
    }
}

fn check(path: &Path, json: bool) -> ExitCode {
    let result = config::load(path);
    let (report, valid) = match &result {
        Ok(loaded) => (&loaded.warnings, true),
        Err(report) => (report, false),
    };
    if json {
        let printed = print_json(&serde_json::json!({ "valid": valid, "diagnostics": report.to_json() }));
        return if valid { printed } else { ExitCode::from(INVALID) };
    }
    eprint!("{}", report.render(colour()));
    match &result {
        Ok(loaded) => {
            let config = &loaded.config;
            print_text(&format!(
                "{}: valid: {} ports, {} classes, {} services, {} contracts in {} files, {} warnings\n",
                path.display(),
                config.ports.len(),
                config.classes.len(),
                config.services.len(),
                config.contracts.len(),
                loaded.files.len(),
                report.len()
            ))
        }
        Err(_) => {
            eprintln!("weir: {}: not valid: {} errors", path.display(), report.len());
            ExitCode::from(INVALID)
        }
    }
}

fn status(socket: &Path, json: bool) -> ExitCode {
    if json {
        return match socket::ask_status_text(socket) {
            Ok(Ok(status)) => command::print_json_text(&status),
            Ok(Err(other)) => unexpected(&other),
            Err(error) => command::no_answer(socket, &error),
        };
    }
    match ask(socket, &Request::Summary) {
        Ok(Response::Status(status)) => print_text(&status.to_text()),
        Ok(other) => unexpected(&other),
        Err(failed) => failed,
    }
}

fn reload(socket: &Path) -> ExitCode {
    match ask(
        socket,
        &Request::Reload {
            by: command::change::sudo_user(),
        },
    ) {
        Ok(Response::Reloaded(done)) => {
            let status = command::change::say(&done);
            if !done.is_late {
                let _gone = print_text(&format!("table {} is live on every worker\n", done.generation));
            }
            status
        }
        Ok(Response::Refused { reason }) => {
            eprintln!("{reason}");
            eprintln!("weir: reload refused: nothing has changed");
            ExitCode::from(INVALID)
        }
        Ok(other) => unexpected(&other),
        Err(failed) => failed,
    }
}

fn replay(config: &Path, options: &ReplayOptions, report: Option<&Path>) -> ExitCode {
    let loaded = match config::load(config) {
        Ok(loaded) => loaded,
        Err(errors) => {
            eprint!("{}", errors.render(colour()));
            eprintln!("weir: {}: not valid", config.display());
            return ExitCode::from(INVALID);
        }
    };
    eprint!("{}", loaded.warnings.render(colour()));
    let size = std::fs::metadata(&options.input).map_or(0, |file| file.len());
    let bar = progress_bar(size);
    let result = control::replay::replay(&loaded.config, options, |read| bar.set_position(read));
    bar.finish_and_clear();
    let traffic = match result {
        Ok(traffic) => traffic,
        Err(error @ (ReplayError::Port { .. } | ReplayError::Compile(_))) => return fail(&error, None, INVALID),
        Err(error) => return fail(&error, None, 1),
    };
    let mut text = String::new();
    let _ok = control::status::write_contracts(&mut text, &traffic);
    eprint!("{text}");
    let Some(path) = report else { return ExitCode::SUCCESS };
    let json = serde_json::to_string_pretty(&traffic).unwrap_or_default();
    match std::fs::write(path, json + "\n") {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => fail(&format!("cannot write {}: {error}", path.display()), None, 1),
    }
}

/// A bar that only a person sees, and only when there is time to see it.
fn progress_bar(bytes: u64) -> indicatif::ProgressBar {
    if !std::io::stderr().is_terminal() {
        return indicatif::ProgressBar::hidden();
    }
    let bar = indicatif::ProgressBar::new(bytes);
    if let Ok(style) = indicatif::ProgressStyle::with_template("{bar:40} {bytes}/{total_bytes} {eta} left") {
        bar.set_style(style);
    }
    bar
}

//! The command line. Exit status: 0 done, 1 failed or partial, 2 usage.

mod bench;
mod ends;
mod load;
mod output;
mod profiles;
mod receive;
mod replay;
mod run;
mod send;
mod traffic;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

/// Generates packets by AF_XDP on ordinary interfaces, receives them, and says what lies between.
///
/// Sizes are bytes with the frame check sequence (64 to 1518, jumbo frames up to 3844). Needs root, or CAP_NET_RAW, CAP_NET_ADMIN
/// and CAP_BPF; for other namespaces CAP_SYS_ADMIN too.
#[derive(Parser)]
#[command(name = "pktgen", version)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Finds what is between two interfaces: throughput by frame size, latency, services, in one report.
    Bench(Box<bench::Bench>),
    /// One trial at one load between two interfaces: what was sent, lost, re-marked, late.
    Run(Box<run::Run>),
    /// Sends only; `receive` on another machine scores.
    Send(Box<send::Send>),
    /// Receives only, and scores what `send` sent.
    Receive(receive::Receive),
    /// Sends a pcap or pcapng capture: at its own gaps, at another speed or a fixed rate, looped, with other addresses.
    ///
    /// Ends with a histogram of how far the gaps were off. Exit status 1 if the rate was not held.
    Replay(Box<replay::Replay>),
    /// Lists the traffic profiles with their sources.
    Profiles(profiles::Profiles),
}

/// Reads the command line and does what it says.
pub(crate) fn main() -> ExitCode {
    let done = match Arguments::parse().command {
        Command::Bench(bench) => bench.run(),
        Command::Run(run) => run.run(),
        Command::Send(send) => send.run(),
        Command::Receive(receive) => receive.run(),
        Command::Replay(replay) => replay.run(),
        Command::Profiles(profiles) => profiles.run(),
    };
    match done {
        Ok(status) => status,
        Err(Failure::Usage(message)) => {
            eprintln!("pktgen: {message}");
            ExitCode::from(2)
        }
        Err(Failure::Run(message)) => {
            eprintln!("pktgen: {message}");
            ExitCode::FAILURE
        }
    }
}

/// Why a command ends without a result.
enum Failure {
    /// What was asked for makes no sense.
    Usage(String),
    /// It could not be done.
    Run(String),
}

impl<E: std::error::Error> From<E> for Failure {
    fn from(error: E) -> Self {
        Self::Run(error.to_string())
    }
}

/// Makes a usage error of anything.
#[allow(clippy::needless_pass_by_value, reason = "goes into map_err as it is")]
fn usage(error: impl ToString) -> Failure {
    Failure::Usage(error.to_string())
}

/// What a command comes to.
type Done = Result<ExitCode, Failure>;

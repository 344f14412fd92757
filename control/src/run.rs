//! `weir run`: the appliance in the foreground, until a signal ends it.
//!
//! One thread does everything that is not a packet: it waits for signals, for requests on the control socket, and for a
//! tick ten times a second, and handles one of them at a time. SIGHUP reloads; SIGTERM and SIGINT stop.

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use crossbeam::channel::{Receiver, bounded, select, tick, unbounded};
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
use signal_hook::iterator::Signals;

use crate::appliance::{Appliance, ReloadError, StartError};
use crate::socket::{Call, ControlSocket, Request, Response};

/// What `weir run` is asked to do.
#[derive(Clone, Debug)]
pub struct RunOptions {
    /// The base configuration file.
    pub config: PathBuf,
    /// Where to listen for `weir status` and `weir reload`.
    pub socket: PathBuf,
    /// End when standard input closes: the demo's gateway must not outlive the demo.
    pub die_with_parent: bool,
}

/// Why it ended, other than by a signal.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    /// It could not start.
    #[error(transparent)]
    Start(#[from] StartError),
    /// The control socket could not be made.
    #[error("control socket {path}: {cause}")]
    Socket {
        /// Its path.
        path: PathBuf,
        /// What the system said.
        cause: std::io::Error,
    },
    /// Signals could not be caught.
    #[error("cannot catch signals: {0}")]
    Signals(std::io::Error),
    /// Something happened that weir cannot mend.
    #[error("{0}")]
    Fault(String),
}

/// Time between two rounds of housekeeping.
const TICK: Duration = Duration::from_millis(100);
/// Time between two looks at whether everything is still there and accounted for.
const AUDIT: Duration = Duration::from_secs(1);

/// Runs until stopped.
///
/// # Errors
/// See [`RunError`]. The machine is left as it was found.
pub fn run(options: &RunOptions) -> Result<(), RunError> {
    let signals = catch_signals().map_err(RunError::Signals)?;
    if options.die_with_parent {
        stop_when_input_closes().map_err(RunError::Signals)?;
    }
    let loaded = config::load(&options.config).map_err(StartError::Config)?;
    log_warnings(&loaded.warnings);
    let mut appliance = Appliance::start(&options.config, loaded)?;
    let (calls, requests) = bounded(16);
    let socket = ControlSocket::listen(&options.socket, calls);
    let socket = socket.map_err(|cause| RunError::Socket {
        path: options.socket.clone(),
        cause,
    })?;
    let status = appliance.status();
    for port in &status.ports {
        tracing::info!(
            "port {} on {} ({}, {}): XDP {}, {}, {} queues",
            port.port,
            port.interface,
            port.side,
            port.driver,
            port.xdp,
            port.mode,
            port.queues.len()
        );
    }
    tracing::info!(
        "running table {} with {} contracts",
        status.generation,
        status.traffic.contracts.len()
    );

    let result = serve(&mut appliance, &signals, &requests);
    drop(socket);
    let last = appliance.stop();
    tracing::info!("stopped; packets unaccounted for: {}", last.unaccounted());
    result
}

fn serve(appliance: &mut Appliance, signals: &Receiver<i32>, requests: &Receiver<Call>) -> Result<(), RunError> {
    let ticks = tick(TICK);
    let mut audited = Instant::now();
    let mut reported_unaccounted = 0;
    let mut reported_unserved = BTreeSet::new();
    loop {
        select! {
            recv(signals) -> signal => match signal {
                Ok(SIGHUP) => { let _answer = reload(appliance); }
                _ => return Ok(()),
            },
            recv(requests) -> call => if let Ok(call) = call {
                let answer = match call.request {
                    Request::Status => Response::Status(Box::new(appliance.status())),
                    Request::Reload => reload(appliance),
                };
                // A client that no longer waits needs no answer.
                let _sent = call.answer.send(answer);
            },
            recv(ticks) -> _ => {
                match appliance.keep_house() {
                    Ok(None) => {}
                    Ok(Some(generation)) => tracing::info!("a contract began or ended: table {generation} is live"),
                    Err(error) => tracing::error!("a contract began or ended, but the new table was refused: {error}"),
                }
                if audited.elapsed() >= AUDIT {
                    audited = Instant::now();
                    if let Some(fault) = appliance.fault() {
                        return Err(RunError::Fault(fault));
                    }
                    for (port, queue) in appliance.unserved_queues() {
                        if reported_unserved.insert((port.to_owned(), queue)) {
                            tracing::error!(
                                "queue {queue} of port {port} has no worker: its packets are dropped (`no_socket`); set the queues back with `ethtool -L`, or restart weir"
                            );
                        }
                    }
                    let unaccounted = appliance.status().unaccounted();
                    if unaccounted != reported_unaccounted {
                        reported_unaccounted = unaccounted;
                        tracing::error!("the ledger does not close: {unaccounted} packets unaccounted for");
                    }
                }
            },
        }
    }
}

fn reload(appliance: &mut Appliance) -> Response {
    match appliance.reload() {
        Ok((generation, warnings)) => {
            log_warnings(&warnings);
            let warnings = warnings.render(false);
            tracing::info!("reloaded: table {generation} is live on every worker");
            Response::Reloaded { generation, warnings }
        }
        Err(error) => {
            let reason = match &error {
                ReloadError::Config(report) => report.render(false),
                other => other.to_string(),
            };
            tracing::error!("reload refused, the running table goes on:\n{reason}");
            Response::Refused { reason }
        }
    }
}

/// Stops when the other end of standard input goes away, as it does with its process, however that ends.
fn stop_when_input_closes() -> std::io::Result<()> {
    std::thread::Builder::new().name("weir-leash".into()).spawn(|| {
        // Nothing is ever sent: this returns when the pipe closes.
        let _closed = std::io::copy(&mut std::io::stdin(), &mut std::io::sink());
        // SIGTERM to ourselves takes the same way as anybody's.
        let _raised = signal_hook::low_level::raise(SIGTERM);
    })?;
    Ok(())
}

/// One line each: `weir check` shows them at length.
fn log_warnings(warnings: &config::Report) {
    for warning in warnings.diagnostics() {
        tracing::warn!("{}:{}: {}", warning.file.display(), warning.line, warning.message);
    }
}

/// A thread that passes signals on: from before the first thread of ours starts, so that none is missed.
fn catch_signals() -> std::io::Result<Receiver<i32>> {
    let mut signals = Signals::new([SIGHUP, SIGINT, SIGTERM])?;
    let (sender, receiver) = unbounded();
    std::thread::Builder::new().name("weir-signals".into()).spawn(move || {
        for signal in &mut signals {
            if sender.send(signal).is_err() {
                break;
            }
        }
    })?;
    Ok(receiver)
}

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

use crate::appliance::{Appliance, StartError};
use crate::capture::CaptureError;
use crate::change::changes::{Changes, log_warnings};
use crate::change::disk::Disk;
use crate::change::messages::{Done, Refusal};
use crate::socket::{self, Call, Capturing, ControlSocket, Request, Response};

/// What `weir run` is asked to do.
#[derive(Clone, Debug)]
pub struct RunOptions {
    /// The base configuration file.
    pub config: PathBuf,
    /// Where to listen for the other commands.
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
    // The history knows files by their whole names, wherever weir is started.
    let path = std::path::absolute(&options.config).unwrap_or_else(|_| options.config.clone());
    let mut disk = Disk::new(&path);
    let texts = disk.read();
    let loaded = texts.load().map_err(StartError::Config)?;
    log_warnings(&loaded.warnings);
    let mut appliance = Appliance::start(loaded)?;
    let (calls, requests) = bounded(16);
    let listening = ControlSocket::listen(&options.socket, calls);
    let listening = listening.map_err(|cause| RunError::Socket {
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

    let mut changes = Changes::start(disk, texts, &appliance);
    let result = serve(&mut appliance, &mut changes, &signals, &requests);
    drop(listening);
    let last = appliance.stop();
    tracing::info!("stopped; packets unaccounted for: {}", last.unaccounted());
    result
}

fn serve(
    appliance: &mut Appliance,
    changes: &mut Changes,
    signals: &Receiver<i32>,
    requests: &Receiver<Call>,
) -> Result<(), RunError> {
    let ticks = tick(TICK);
    let mut audit = Audit::default();
    loop {
        select! {
            recv(signals) -> signal => match signal {
                Ok(SIGHUP) => { let _answer = reload(changes, "SIGHUP", appliance); }
                _ => return Ok(()),
            },
            recv(requests) -> call => if let Ok(call) = call {
                let answer = answer(call.request, &call.author, changes, appliance);
                // A client that no longer waits needs no answer.
                let _sent = call.answer.send(answer);
            },
            recv(ticks) -> _ => {
                match appliance.keep_house() {
                    Ok(None) => {}
                    Ok(Some(generation)) => tracing::info!("a contract began or ended: table {generation} is live"),
                    Err(error) => tracing::error!("a contract began or ended, but the new table was refused: {error}"),
                }
                changes.tick(appliance);
                audit.tick(appliance)?;
            },
        }
    }
}

/// Looks now and then whether everything is still there and accounted for, and says once what is not.
#[derive(Default)]
struct Audit {
    done: Option<Instant>,
    unaccounted: i64,
    unserved: BTreeSet<(String, u32)>,
}

impl Audit {
    fn tick(&mut self, appliance: &Appliance) -> Result<(), RunError> {
        if self.done.is_some_and(|done| done.elapsed() < AUDIT) {
            return Ok(());
        }
        self.done = Some(Instant::now());
        if let Some(fault) = appliance.fault() {
            return Err(RunError::Fault(fault));
        }
        for (port, queue) in appliance.unserved_queues() {
            if self.unserved.insert((port.to_owned(), queue)) {
                tracing::error!(
                    "queue {queue} of port {port} has no worker: its packets are dropped (`no_socket`); set the queues back with `ethtool -L`, or restart weir"
                );
            }
        }
        let unaccounted = appliance.unaccounted();
        if unaccounted != self.unaccounted {
            self.unaccounted = unaccounted;
            tracing::error!("the ledger does not close: {unaccounted} packets unaccounted for");
        }
        Ok(())
    }
}

fn answer(request: Request, author: &str, changes: &mut Changes, appliance: &mut Appliance) -> Response {
    match request {
        Request::Status => Response::Status(Box::new(changes.status(appliance))),
        Request::Reload { .. } => reload(changes, author, appliance),
        Request::Running => Response::Running(Box::new(changes.running(appliance))),
        Request::Apply { wish, .. } => changed("apply", changes.apply(&wish, author, appliance)),
        Request::Confirm { .. } => changed("confirm", changes.confirm(author, appliance)),
        Request::Rollback { version, note, .. } => {
            changed("rollback", changes.rollback(version, note, author, appliance))
        }
        Request::Capture(options) => match appliance.capture(&options, author) {
            Ok(session) => {
                tracing::info!("capture begins, for {author}: {}", options.words());
                Response::Capturing(Capturing::new(session))
            }
            Err(error @ CaptureError::Busy { .. }) => Response::Failed {
                reason: error.to_string(),
            },
            Err(CaptureError::Invalid(reason)) => Response::Invalid { reason },
        },
        Request::History => Response::History(changes.history()),
        Request::Version { number } => match changes.version_texts(number) {
            Ok((texts, before)) => Response::Version {
                files: socket::files(&texts),
                before: before.as_ref().map(socket::files),
            },
            Err(refusal) => Response::Failed {
                reason: refusal.to_string(),
            },
        },
    }
}

fn changed(what: &str, result: Result<Done, Refusal>) -> Response {
    match result {
        Ok(done) => Response::Changed(done),
        Err(refusal) => refused(what, &refusal),
    }
}

fn reload(changes: &mut Changes, author: &str, appliance: &mut Appliance) -> Response {
    match changes.reload(author, appliance) {
        Ok(done) => {
            done.notes.iter().for_each(|note| tracing::warn!("{note}"));
            Response::Reloaded(done)
        }
        Err(refusal) => refused("reload", &refusal),
    }
}

fn refused(what: &str, refusal: &Refusal) -> Response {
    let reason = refusal.to_string();
    tracing::error!("{what} refused, the running table goes on:\n{reason}");
    if matches!(refusal, Refusal::Reload(_) | Refusal::File { .. }) {
        Response::Refused { reason }
    } else {
        Response::Failed { reason }
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

//! `weir run`: the appliance in the foreground, until a signal ends it.
//!
//! One thread does everything that is not a packet: it waits for signals, for requests on the control socket, and for a
//! tick ten times a second, and handles one of them at a time. SIGHUP reloads; SIGTERM and SIGINT stop.

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crossbeam::channel::{Receiver, bounded, select, tick, unbounded};
use dataplane::clock::{Clock, MonotonicClock};
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
use signal_hook::iterator::Signals;

use crate::api::board::Board;
use crate::api::{ApiError, BoundApi};
use crate::appliance::{Appliance, StartError};
use crate::capture::CaptureError;
use crate::change::changes::{Changes, log_warnings};
use crate::change::disk::Disk;
use crate::change::messages::{Done, Refusal};
use crate::levels::Levels;
use crate::socket::{self, Call, Capturing, ControlSocket, Request, Response};
use crate::status::SUMMARY_CONTRACTS;
use crate::system::notify::Notifier;
use crate::system::{logging, privileges};

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
    /// The API could not start.
    #[error(transparent)]
    Api(#[from] ApiError),
    /// Signals could not be caught.
    #[error("cannot catch signals: {0}")]
    Signals(std::io::Error),
    /// Something happened that takes a new start: the process ends with status 3, for the service manager to start it again.
    #[error("{0}")]
    Fault(String),
}

impl RunError {
    /// What the operator can do, if the message does not already say it.
    #[must_use]
    pub fn remedy(&self) -> Option<String> {
        let text = match self {
            RunError::Start(error) => return error.remedy(),
            RunError::Socket { .. } => {
                "name a path with `--socket` in a directory that weir may write to, where no other weir answers"
            }
            RunError::Api(ApiError::Socket { .. }) => {
                "name a path in `[api] socket` in a directory that weir may write to, where no other weir answers"
            }
            RunError::Api(ApiError::Listen { .. }) => {
                "name an address of this machine and a free port in `[api] listen`: `ss -ltnp` shows who has which"
            }
            RunError::Api(_) | RunError::Signals(_) | RunError::Fault(_) => return None,
        };
        Some(text.to_owned())
    }
}

/// Time between two rounds of housekeeping.
const TICK: Duration = Duration::from_millis(100);
/// Time between two looks at whether everything is still there and accounted for.
const AUDIT: Duration = Duration::from_millis(500);

/// Runs until stopped.
///
/// # Errors
/// See [`RunError`]. The machine is left as it was found.
pub fn run(options: &RunOptions) -> Result<(), RunError> {
    // From here on none is missed; who listens for them comes later, with the fewer privileges of then.
    let signals = Signals::new([SIGHUP, SIGINT, SIGTERM]).map_err(RunError::Signals)?;
    // The history knows files by their whole names, wherever weir is started.
    let path = std::path::absolute(&options.config).unwrap_or_else(|_| options.config.clone());
    let mut disk = Disk::new(&path);
    let texts = disk.read();
    let loaded = texts.load().map_err(StartError::Config)?;
    log_warnings(&loaded.warnings);
    let state = loaded.config.control.state.clone();
    let levels = Levels::take(&state, MonotonicClock.now()).unwrap_or_else(|error| {
        tracing::warn!(event = "levels", "every contract begins with a full burst: {error}");
        Levels::default()
    });
    let mut appliance = Appliance::start_from(loaded, &levels)?;
    let bound = ControlSocket::bind(&options.socket).map_err(|cause| RunError::Socket {
        path: options.socket.clone(),
        cause,
    })?;
    let bound_api = BoundApi::bind(&appliance.config().api, &options.socket)?;
    // What needs privileges is before this line. Every thread made after it inherits what is left.
    if let Err(error) = privileges::confine_control() {
        tracing::warn!(event = "privileges", "weir keeps its privileges: {error}");
    }
    let signals = pass_on(signals).map_err(RunError::Signals)?;
    if options.die_with_parent {
        stop_when_input_closes().map_err(RunError::Signals)?;
    }
    let (calls, requests) = bounded(16);
    let listening = bound.listen(calls).map_err(|cause| RunError::Socket {
        path: options.socket.clone(),
        cause,
    })?;
    tell_start(&appliance);

    let mut changes = Changes::start(disk, texts, &appliance);
    let board = Arc::new(Board::new(&changes, &appliance));
    let api = bound_api.start(board.clone())?;
    let mut notifier = Notifier::new();
    notifier.ready();
    let result = serve(&mut appliance, &mut changes, &board, &mut notifier, &signals, &requests);
    notifier.stopping();
    drop(listening);
    // Both hold views of the appliance, and with them its sockets.
    drop(api);
    drop(board);
    appliance.halt();
    let levels = Levels::of(appliance.compiled(), MonotonicClock.now());
    if let Err(error) = levels.keep(&state) {
        tracing::warn!(event = "levels", "every contract will begin with a full burst: {error}");
    }
    let last = appliance.status();
    tracing::info!(
        event = "stop",
        "stopped; packets unaccounted for: {}",
        last.unaccounted()
    );
    result
}

/// What runs, for the log.
fn tell_start(appliance: &Appliance) {
    let status = appliance.view().status_without_contracts();
    for port in &status.ports {
        tracing::info!(
            event = "port",
            port = port.port,
            interface = port.interface,
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
        event = "start",
        generation = status.generation,
        "running table {} with {} contracts",
        status.generation,
        appliance.compiled().contracts().count()
    );
}

fn serve(
    appliance: &mut Appliance,
    changes: &mut Changes,
    board: &Board,
    notifier: &mut Notifier,
    signals: &Receiver<i32>,
    requests: &Receiver<Call>,
) -> Result<(), RunError> {
    let ticks = tick(TICK);
    let mut audit = Audit::default();
    loop {
        select! {
            recv(signals) -> signal => match signal {
                Ok(SIGHUP) => {
                    notifier.reloading();
                    let _answer = reload(changes, "SIGHUP", appliance);
                    notifier.ready();
                }
                _ => return Ok(()),
            },
            recv(requests) -> call => if let Ok(call) = call {
                let answer = answer(call.request, &call.author, changes, appliance);
                // Whoever has an answer finds the API to say the same.
                board.update(changes, appliance);
                // A client that no longer waits needs no answer.
                let _sent = call.answer.send(answer);
            },
            recv(ticks) -> _ => {
                match appliance.keep_house() {
                    Ok(None) => {}
                    Ok(Some(generation)) => tracing::info!(event = "period", generation, "a contract began or ended: table {generation} is live"),
                    Err(error) => tracing::error!(event = "period", "a contract began or ended, but the new table was refused: {error}"),
                }
                changes.tick(appliance);
                audit.tick(appliance)?;
                notifier.tick(appliance);
                logging::tell_kept_back();
            },
        }
        board.update(changes, appliance);
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
        for (port, queue) in appliance.view().unserved_queues() {
            if self.unserved.insert((port.to_owned(), queue)) {
                tracing::error!(
                    event = "queue_unserved",
                    port,
                    queue,
                    "queue {queue} of port {port} has no worker: its packets are dropped (`no_socket`); set the queues back with `ethtool -L`, or restart weir"
                );
            }
        }
        let unaccounted = appliance.view().unaccounted();
        if unaccounted != self.unaccounted {
            self.unaccounted = unaccounted;
            tracing::error!(
                event = "ledger",
                unaccounted,
                "the ledger does not close: {unaccounted} packets unaccounted for"
            );
        }
        Ok(())
    }
}

fn answer(request: Request, author: &str, changes: &mut Changes, appliance: &mut Appliance) -> Response {
    match request {
        Request::Status => Response::Status(Box::new(changes.status(appliance))),
        Request::Summary => Response::Status(Box::new(changes.status(appliance).summary(SUMMARY_CONTRACTS))),
        Request::Show { kind, name } => {
            let status = changes.status(appliance);
            match crate::show::show(kind, name.as_deref(), &status, appliance.config()) {
                Ok(shown) => Response::Shown(Box::new(shown)),
                Err(unknown) => Response::Failed {
                    reason: unknown.to_string(),
                },
            }
        }
        Request::Top { wish } => Response::Top(Box::new(changes.top(&wish, appliance))),
        Request::Explain { question } => match crate::explain::live(appliance, &question) {
            Ok(explanation) => Response::Explained(Box::new(explanation)),
            Err(error) => Response::Invalid {
                reason: error.to_string(),
            },
        },
        Request::Reload { .. } => reload(changes, author, appliance),
        Request::Running => Response::Running(Box::new(changes.running(appliance))),
        Request::Apply { wish, .. } => changed("apply", changes.apply(&wish, author, appliance)),
        Request::Confirm { .. } => changed("confirm", changes.confirm(author, appliance)),
        Request::Rollback { version, note, .. } => {
            changed("rollback", changes.rollback(version, note, author, appliance))
        }
        Request::Capture(options) => match appliance.capture(&options, author) {
            Ok(session) => {
                tracing::info!(
                    event = "capture",
                    author,
                    "capture begins, for {}: {}",
                    author.escape_debug(),
                    options.words().escape_debug()
                );
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
            done.notes
                .iter()
                .for_each(|note| tracing::warn!(event = "note", "{note}"));
            Response::Reloaded(done)
        }
        Err(refusal) => refused("reload", &refusal),
    }
}

fn refused(what: &str, refusal: &Refusal) -> Response {
    let reason = refusal.to_string();
    tracing::error!(
        event = "refused",
        what,
        "{what} refused, the running table goes on:\n{reason}"
    );
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

/// A thread that passes signals on.
fn pass_on(mut signals: Signals) -> std::io::Result<Receiver<i32>> {
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

#[cfg(test)]
mod tests {
    use std::io::ErrorKind;

    use super::*;

    #[test]
    fn what_cannot_be_bound_has_a_remedy_that_names_its_key() {
        let (path, cause) = (|| PathBuf::from("/x"), || ErrorKind::AddrInUse.into());
        let (listen, socket) = (
            ApiError::Listen {
                address: ([127, 0, 0, 1], 9469).into(),
                cause: cause(),
            },
            ApiError::Socket {
                path: path(),
                cause: cause(),
            },
        );
        let control = RunError::Socket {
            path: path(),
            cause: cause(),
        };
        let cases = [
            (control, "`--socket`"),
            (listen.into(), "`[api] listen`"),
            (socket.into(), "`[api] socket`"),
        ];
        for (error, key) in cases {
            assert!(error.remedy().is_some_and(|remedy| remedy.contains(key)), "{error}");
        }
    }
}

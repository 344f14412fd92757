//! Whether weir lives and is ready, with reasons; and the events that come of watching that.
//!
//! The API thread looks a few times a second: at the workers' turns, at the generation they run, at links. What it has seen
//! answers `/livez` and `/readyz`, so that asking often costs nothing.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use af_xdp::device;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::api::board::Board;
use crate::appliance::View;
use crate::events::{EventKind, EventLog};
use crate::port_fault::PortFaultKind;

/// Time between two looks.
pub const LOOK: Duration = Duration::from_millis(200);
/// Time without a turn after which a worker counts as stale. An idle one makes a hundred turns in it; the XDP program gives
/// up earlier, but a machine that takes a core away for a quarter of a second is no reason to call the box away.
const WORKER_STALE: Duration = Duration::from_secs(1);
/// Time a worker may take for a new table before it is a reason.
const TAKING: Duration = Duration::from_secs(2);
/// Time without a round of the control thread after which weir does not live: longer than compiling the largest table takes.
const CONTROL_STALE: Duration = Duration::from_secs(30);

/// The answer of `/livez` and `/readyz`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Health {
    /// Whether there is no reason against it; then the answer is 200, otherwise 503.
    pub ok: bool,
    /// What is wrong.
    pub reasons: Vec<Reason>,
}

/// Something that is wrong.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Reason {
    /// Which check failed.
    pub check: Check,
    /// In a sentence.
    pub message: String,
}

/// The checks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Check {
    /// The thread that takes commands and reloads does not go round.
    ControlStale,
    /// A worker makes no turns.
    WorkerStale,
    /// A worker has not taken the current table.
    GenerationNotTaken,
    /// The interface of a port has vanished.
    InterfaceGone,
    /// The kernel has taken the interface of a port away from the sockets.
    SocketsLost,
    /// Somebody has detached the XDP program of a port.
    ProgramDetached,
    /// The interface of a port is down, or has no carrier.
    LinkDown,
    /// A port may get packets that fit no frame.
    MtuTooLarge,
    /// A port has other queues than at start.
    QueuesChanged,
    /// The ledgers do not close.
    Unaccounted,
}

impl Check {
    fn of(fault: PortFaultKind) -> Self {
        match fault {
            PortFaultKind::InterfaceGone => Check::InterfaceGone,
            PortFaultKind::SocketsLost => Check::SocketsLost,
            PortFaultKind::ProgramDetached => Check::ProgramDetached,
            PortFaultKind::LinkDown => Check::LinkDown,
            PortFaultKind::MtuTooLarge => Check::MtuTooLarge,
            PortFaultKind::QueuesChanged => Check::QueuesChanged,
        }
    }
}

fn event_of(fault: PortFaultKind) -> Option<EventKind> {
    Some(match fault {
        PortFaultKind::InterfaceGone => EventKind::InterfaceGone,
        PortFaultKind::SocketsLost => EventKind::SocketsLost,
        PortFaultKind::ProgramDetached => EventKind::ProgramDetached,
        PortFaultKind::LinkDown => return None,
        PortFaultKind::MtuTooLarge => EventKind::MtuTooLarge,
        PortFaultKind::QueuesChanged => EventKind::QueuesChanged,
    })
}

impl Health {
    fn of(reasons: Vec<Reason>) -> Self {
        Self {
            ok: reasons.is_empty(),
            reasons,
        }
    }
}

/// What has been seen so far.
#[derive(Debug, Default)]
pub struct Watcher {
    workers: Vec<Seen>,
    generation: Option<(u64, Instant)>,
    links: BTreeMap<String, bool>,
    faults: BTreeMap<(String, PortFaultKind), String>,
    unaccounted: i64,
    looked: Option<Instant>,
}

#[derive(Debug)]
struct Seen {
    turns: u64,
    moved: Instant,
    stale: bool,
}

impl Watcher {
    /// Looks at everything.
    pub fn look(&mut self, board: &Board) {
        let (now, view) = (Instant::now(), board.view());
        self.looked = Some(now);
        let generation = view.compiled().table.generation;
        if self.generation.is_none_or(|(seen, _)| seen != generation) {
            self.generation = Some((generation, now));
        }
        self.workers.resize_with(view.shared().len(), || Seen {
            turns: 0,
            moved: now,
            stale: false,
        });
        for (number, (seen, shared)) in self.workers.iter_mut().zip(view.shared()).enumerate() {
            seen.look(number, shared.turns(), now, &board.events);
        }
        for port in &view.config().ports {
            // Unless the interface is not there: that is a fault of its own.
            if let Ok(up) = device::has_carrier(&port.interface)
                && self
                    .links
                    .insert(port.interface.clone(), up)
                    .is_some_and(|before| before != up)
            {
                let (kind, word) = if up {
                    (EventKind::LinkUp, "up")
                } else {
                    (EventKind::LinkDown, "down")
                };
                let message = format!("port {}: {} is {word}", port.name, port.interface);
                tell(&board.events, kind, message);
            }
        }
        self.look_at_ports(&view, &board.events);
        let unaccounted = view.unaccounted();
        if unaccounted != self.unaccounted {
            let message = format!("{unaccounted} packets unaccounted for");
            board.events.push(EventKind::Unaccounted, message);
        }
        self.unaccounted = unaccounted;
    }

    fn look_at_ports(&mut self, view: &View, events: &EventLog) {
        let mut faults = BTreeMap::new();
        for (port, found) in view.config().ports.iter().zip(view.port_faults()) {
            faults.extend(
                found
                    .into_iter()
                    .map(|fault| ((port.name.clone(), fault.kind), fault.message)),
            );
        }
        for ((port, kind), message) in &faults {
            // Links have events of their own.
            if let Some(event) = event_of(*kind).filter(|_| !self.faults.contains_key(&(port.clone(), *kind))) {
                tell(events, event, format!("port {port}: {message}"));
            }
        }
        let over = self.faults.keys().filter(|key| !faults.contains_key(*key));
        for (port, kind) in over.filter(|(_, kind)| *kind != PortFaultKind::LinkDown) {
            tell(
                events,
                EventKind::PortMended,
                format!("port {port}: {} is over", kind.name()),
            );
        }
        self.faults = faults;
    }

    /// Seconds since each worker was last seen to make a turn.
    #[must_use]
    pub fn turn_ages(&self) -> Vec<f64> {
        let age = |seen: &Seen| self.looked.map_or(0.0, |now| (now - seen.moved).as_secs_f64());
        self.workers.iter().map(age).collect()
    }

    /// Whether each interface has its link, by its name.
    #[must_use]
    pub fn links(&self) -> &BTreeMap<String, bool> {
        &self.links
    }

    /// Whether the control thread goes round; that this is answered says that the API thread does.
    #[must_use]
    pub fn livez(board: &Board) -> Health {
        let since = board.since_tick();
        let stale = (since > CONTROL_STALE).then(|| Reason {
            check: Check::ControlStale,
            message: format!("the control thread has not gone round for {:.0} s", since.as_secs_f64()),
        });
        Health::of(stale.into_iter().collect())
    }

    /// Whether packets are judged and forwarded as the current table says.
    #[must_use]
    pub fn readyz(&self, board: &Board) -> Health {
        let mut reasons = Self::livez(board).reasons;
        let mut add = |check, message| reasons.push(Reason { check, message });
        for (worker, seen) in self.workers.iter().enumerate().filter(|(_, seen)| seen.stale) {
            let seconds = seen.moved.elapsed().as_secs_f64();
            add(
                Check::WorkerStale,
                format!("worker {worker} has made no turn for {seconds:.1} s"),
            );
        }
        if let Some((generation, since)) = self.generation.filter(|(_, since)| since.elapsed() > TAKING) {
            let view = board.view();
            for (worker, shared) in view.shared().iter().enumerate() {
                let runs = shared.generation();
                if runs < generation {
                    let seconds = since.elapsed().as_secs_f64();
                    let message =
                        format!("worker {worker} runs table {runs}, {generation} is current for {seconds:.1} s");
                    add(Check::GenerationNotTaken, message);
                }
            }
        }
        for ((port, kind), message) in &self.faults {
            add(Check::of(*kind), format!("port {port}: {message}"));
        }
        if self.unaccounted != 0 {
            let message = format!("the ledgers do not close: {} packets unaccounted for", self.unaccounted);
            add(Check::Unaccounted, message);
        }
        Health::of(reasons)
    }
}

impl Seen {
    fn look(&mut self, worker: usize, turns: u64, now: Instant, events: &EventLog) {
        if turns != self.turns {
            self.turns = turns;
            self.moved = now;
        }
        let stale = now - self.moved > WORKER_STALE;
        if stale && !self.stale {
            let message = format!("worker {worker} makes no turns");
            tell(events, EventKind::WorkerStale, message);
        } else if self.stale && !stale {
            tell(
                events,
                EventKind::WorkerBack,
                format!("worker {worker} makes turns again"),
            );
        }
        self.stale = stale;
    }
}

/// Into the ring and into the log.
fn tell(events: &EventLog, kind: EventKind, message: String) {
    match kind {
        EventKind::LinkUp | EventKind::WorkerBack | EventKind::PortMended => {
            tracing::info!(event = "watch", "{message}");
        }
        _ => tracing::warn!(event = "watch", "{message}"),
    }
    events.push(kind, message);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_worker_is_stale_until_it_turns_again() {
        let (events, start) = (EventLog::default(), Instant::now());
        let mut seen = Seen {
            turns: 0,
            moved: start,
            stale: false,
        };
        let at = |ms| start + Duration::from_millis(ms);
        seen.look(0, 5, at(200), &events);
        seen.look(0, 5, at(1_200), &events);
        assert!(!seen.stale, "exactly a second is not yet too long");
        seen.look(0, 5, at(1_201), &events);
        seen.look(0, 5, at(1_400), &events);
        assert!(seen.stale);
        seen.look(0, 6, at(1_600), &events);
        assert!(!seen.stale);
        let kinds: Vec<EventKind> = events.after(0).iter().map(|event| event.kind).collect();
        assert_eq!(kinds, [EventKind::WorkerStale, EventKind::WorkerBack]);
    }
}

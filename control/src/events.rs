//! What happened lately: swaps, refusals, trials, links, workers. A ring in memory, newest last; the log has it all too.
//!
//! Any thread may push. Nothing here is on a packet's way.

use std::collections::VecDeque;

use jiff::Timestamp;
use parking_lot::Mutex;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Events kept: some hours of a busy day's changes, at most some hundred kilobytes.
const EVENTS_MAX: usize = 512;

/// What kind of thing happened.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum EventKind {
    /// weir has started.
    Started,
    /// Another table is live.
    Swapped,
    /// A reload, apply or rollback was refused.
    Refused,
    /// A version is on trial.
    TrialBegan,
    /// It was confirmed, or something else was applied.
    TrialEnded,
    /// It went back by itself.
    TrialReverted,
    /// A port has its link.
    LinkUp,
    /// A port has lost its link.
    LinkDown,
    /// The interface of a port has vanished.
    InterfaceGone,
    /// The kernel has taken the interface of a port away from the sockets.
    SocketsLost,
    /// Somebody has detached the XDP program of a port.
    ProgramDetached,
    /// A port may get packets that fit no frame.
    MtuTooLarge,
    /// A port has other queues than at start.
    QueuesChanged,
    /// One of the last two is over.
    PortMended,
    /// A worker makes no turns.
    WorkerStale,
    /// It makes turns again.
    WorkerBack,
    /// The number of packets that the ledgers cannot explain has changed.
    Unaccounted,
}

/// One event.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Event {
    /// From 1, in order; a gap means that older ones were forgotten.
    pub number: u64,
    /// When.
    pub time: Timestamp,
    /// What.
    pub kind: EventKind,
    /// In a sentence.
    pub message: String,
}

/// The ring.
#[derive(Debug, Default)]
pub struct EventLog {
    ring: Mutex<Ring>,
}

#[derive(Debug, Default)]
struct Ring {
    pushed: u64,
    events: VecDeque<Event>,
}

impl EventLog {
    /// Adds one; the oldest goes when the ring is full.
    pub fn push(&self, kind: EventKind, message: impl Into<String>) {
        let (time, message) = (Timestamp::now(), message.into());
        let mut ring = self.ring.lock();
        ring.pushed += 1;
        if ring.events.len() == EVENTS_MAX {
            ring.events.pop_front();
        }
        let number = ring.pushed;
        ring.events.push_back(Event {
            number,
            time,
            kind,
            message,
        });
    }

    /// Those with a number above `after`, oldest first.
    #[must_use]
    pub fn after(&self, after: u64) -> Vec<Event> {
        let ring = self.ring.lock();
        ring.events
            .iter()
            .filter(|event| event.number > after)
            .cloned()
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_oldest_go_first_and_numbers_go_on() {
        let log = EventLog::default();
        for number in 0..EVENTS_MAX + 3 {
            log.push(EventKind::Swapped, number.to_string());
        }
        let events = log.after(0);
        assert_eq!(events.len(), EVENTS_MAX);
        assert_eq!((events[0].number, events[0].message.as_str()), (4, "3"));
        let newest = EVENTS_MAX as u64 + 3;
        assert_eq!(log.after(newest - 1).len(), 1);
        assert!(log.after(newest).is_empty());
    }
}

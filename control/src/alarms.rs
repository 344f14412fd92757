//! Alarms: where what the appliance does parts from what it was told to do. Made from a [`Status`] and nothing else, so that
//! whoever reads the status can check each of them.
//!
//! | name | when |
//! |---|---|
//! | `packets_unaccounted` | the ledger of a queue does not close |
//! | `frames_lost` | the frames of a worker, counted by owner, are fewer than it has |
//! | `interface_gone`, `sockets_lost`, `program_detached`, `link_down`, `mtu_too_large`, `queues_changed` | see [`crate::port_fault`] |
//! | `worker_stalled` | a worker made no turn for a second, or has ended |
//! | `conforming_dropped` | conforming packets were dropped within the last minute |
//! | `contract_not_delivered` | a contract was offered its entitlement over the last minute, and less than 95 % of it was delivered as conforming |
//! | `port_over_rate` | a port sent more than its rate allows over the last minute |
//!
//! An alarm is raised as long as its figures say so, and goes by itself.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::report::{ContractReport, Count};
use crate::status::{PortStatus, Status, WorkerStatus, bits};

/// Something that an operator should look at.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Alarm {
    /// Which kind: one of the names above, which never change.
    pub name: String,
    /// What is the matter, a sentence.
    pub what: String,
    /// Where: a contract as `service/class/direction[/segment]`, `uncontracted/class/direction`, `port lan`, `port lan queue 0`,
    /// `worker 0`.
    #[serde(rename = "where")]
    pub place: String,
    /// The figures it rests on, by names that end in their unit.
    pub figures: BTreeMap<String, f64>,
    /// What to do about it.
    pub remedy: String,
}

/// Part of the entitlement that must be delivered while at least all of it is offered: a meter loses a little of it to
/// bursts, because tokens that do not fit its bucket are lost; 5 % of that is normal, more of it is worth a look.
pub const DELIVERED_PERCENT: u64 = 95;
/// Seconds below which a window tells nothing of rates: bursts, and the bucket that was full at the start, weigh too much.
const WINDOW_MIN: f64 = 10.0;

/// All alarms, most grave first, then in the order of the status.
#[must_use]
pub fn alarms(status: &Status) -> Vec<Alarm> {
    let mut alarms = Vec::new();
    for ledger in status.traffic.ledger.iter().filter(|ledger| ledger.unaccounted != 0) {
        alarms.push(Alarm {
            name: "packets_unaccounted".to_owned(),
            what: format!("{} packets of the ledger are not accounted for", ledger.unaccounted),
            place: format!("port {} queue {}", ledger.port, ledger.queue),
            figures: figures([("unaccounted_packets", ledger.unaccounted as f64)]),
            remedy: "this is an error in weir: keep `weir status --json` and report it".to_owned(),
        });
    }
    for port in &status.ports {
        alarms.extend(port.faults.iter().map(|fault| Alarm {
            name: fault.kind.name().to_owned(),
            what: fault.message.clone(),
            place: format!("port {}", port.port),
            figures: BTreeMap::new(),
            remedy: fault.remedy.clone(),
        }));
    }
    alarms.extend(status.workers.iter().filter_map(stalled));
    alarms.extend(status.workers.iter().filter_map(frames_lost));
    let traffic = &status.traffic;
    alarms.extend(traffic.contracts.iter().filter_map(|contract| {
        let rates = contract.rates?;
        conforming_dropped(contract.name(), rates.last_minute, contract.counters.conforming_dropped)
    }));
    alarms.extend(traffic.uncontracted.iter().filter_map(|row| {
        let place = format!("uncontracted/{}/{}", row.class, row.direction);
        conforming_dropped(place, row.rates?.last_minute, row.counters.conforming_dropped)
    }));
    alarms.extend(traffic.other.iter().filter_map(|row| {
        let place = format!("not IP/{}", row.direction);
        conforming_dropped(place, row.rates?.last_minute, row.counters.conforming_dropped)
    }));
    // A table that is younger than the window would be judged by the traffic of the one before it.
    let window = status.windows.last_minute;
    if window >= WINDOW_MIN && status.table_seconds >= window {
        alarms.extend(traffic.contracts.iter().filter_map(not_delivered));
        alarms.extend(status.ports.iter().filter_map(|port| over_rate(port, window)));
    }
    alarms
}

fn stalled(worker: &WorkerStatus) -> Option<Alarm> {
    let ended = worker.state == "fail";
    if !ended && !worker.stalled {
        return None;
    }
    let what = if ended {
        "it has ended by itself"
    } else {
        "it has made no turn for a second"
    };
    let cpu = worker.cpu.map_or("its core".to_owned(), |cpu| format!("core {cpu}"));
    let remedy = if ended {
        "this is an error in weir: keep the log and report it; a restart brings the worker back".to_owned()
    } else {
        format!(
            "does something else use {cpu} (`top -1`), or is the process stopped? Its packets take the way of `fail`"
        )
    };
    Some(Alarm {
        name: "worker_stalled".to_owned(),
        what: what.to_owned(),
        place: format!("worker {}", worker.worker),
        figures: figures([
            ("turns", worker.turns as f64),
            ("turns_per_second", worker.turns_per_second as f64),
        ]),
        remedy,
    })
}

fn frames_lost(worker: &WorkerStatus) -> Option<Alarm> {
    // A worker that has not turned yet has counted nothing.
    (worker.turns > 0 && worker.frames_counted != worker.frames).then(|| Alarm {
        name: "frames_lost".to_owned(),
        what: format!("it has {} frames, and {} are accounted for", worker.frames, worker.frames_counted),
        place: format!("worker {}", worker.worker),
        figures: figures([
            ("frames", worker.frames as f64),
            ("frames_counted", worker.frames_counted as f64),
        ]),
        remedy: "this is an error in weir or in the driver: keep `weir status --json` and report it; a restart brings the frames back"
            .to_owned(),
    })
}

fn conforming_dropped(place: String, minute: crate::observe::Rate, ever: Count) -> Option<Alarm> {
    let packets = minute.conforming_dropped_packets;
    if packets == 0 {
        return None;
    }
    let them = if packets == 1 { "packet was" } else { "packets were" };
    Some(Alarm {
        name: "conforming_dropped".to_owned(),
        what: format!("{packets} conforming {them} dropped within the last minute"),
        place,
        figures: figures([
            ("last_minute_packets", packets as f64),
            ("last_minute_bps", minute.conforming_dropped_bps as f64),
            ("conforming_bps", minute.conforming_bps as f64),
            ("since_start_packets", ever.packets as f64),
        ]),
        remedy:
            "contracts promise more than the port carries: `weir plan` sums them up, `weir show port` has the rings; \
                 raise the port's `rate`, or lower contracts"
                .to_owned(),
    })
}

fn not_delivered(contract: &ContractReport) -> Option<Alarm> {
    let minute = contract.rates?.last_minute;
    let delivered = minute.conforming_bps.saturating_sub(minute.conforming_dropped_bps);
    let least = u128::from(contract.rate_bps) * u128::from(DELIVERED_PERCENT);
    let is_short = contract.active && minute.offered_bps >= contract.rate_bps && u128::from(delivered) * 100 < least;
    if !is_short {
        return None;
    }
    let remedy = if minute.conforming_dropped_bps > 0 {
        "conforming packets were dropped: see the alarm `conforming_dropped` of this contract"
    } else {
        "its bursts are longer than its bucket, so tokens go unused: raise `burst`, or let the sender pace its packets"
    };
    Some(Alarm {
        name: "contract_not_delivered".to_owned(),
        what: format!(
            "offered {}, delivered {} of its {} within the contract",
            bits(minute.offered_bps),
            bits(delivered),
            bits(contract.rate_bps)
        ),
        place: contract.name(),
        figures: figures([
            ("entitled_bps", contract.rate_bps as f64),
            ("offered_bps", minute.offered_bps as f64),
            ("delivered_bps", delivered as f64),
            ("conforming_dropped_bps", minute.conforming_dropped_bps as f64),
        ]),
        remedy: remedy.to_owned(),
    })
}

/// What a port may catch up after late turns is at most 5 ms of its rate, once in a window; the rest of this is for the
/// frames' tags, which the ledger counts and the layer of the rate may not.
const OVER_PERCENT: u64 = 2;

fn over_rate(port: &PortStatus, window: f64) -> Option<Alarm> {
    let (rate, sent) = (port.rate_bps?, port.delivered.last_minute_bps);
    if u128::from(sent) * 100 <= u128::from(rate) * u128::from(100 + OVER_PERCENT) {
        return None;
    }
    Some(Alarm {
        name: "port_over_rate".to_owned(),
        what: format!("sent {}, its rate is {}", bits(sent), bits(rate)),
        place: format!("port {}", port.port),
        figures: figures([
            ("rate_bps", rate as f64),
            ("delivered_bps", sent as f64),
            ("window_seconds", window),
        ]),
        remedy: "this is an error in weir: keep `weir status --json` and report it; what is behind the port may drop"
            .to_owned(),
    })
}

fn figures<const N: usize>(figures: [(&str, f64); N]) -> BTreeMap<String, f64> {
    figures
        .into_iter()
        .map(|(name, figure)| (name.to_owned(), figure))
        .collect()
}

//! What the screen shows, computed from one answer of the appliance after the other: rates over the time between two.
//!
//! The time between two answers is the appliance's own (`uptime_seconds`), so a slow connection changes no rate. When the
//! appliance was restarted, or a counter went back, there is no rate until the answer after that.

use std::collections::{HashMap, VecDeque};

use serde::Serialize;

use super::selection::TopStatus;
use crate::report::{Count, Counters, LedgerReport, Tokens};
use crate::status::Status;

/// Samples that a sparkline is drawn from.
pub const SAMPLES: usize = 60;
/// Answers without it after which a contract is forgotten: those that come and go in a busy table keep their past.
const FORGET: u64 = 120;

/// Bits per second of the counted layer over the last interval.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize)]
pub struct Rates {
    /// Conforming and nonconforming together.
    pub offered_bps: f64,
    /// Inside the entitlement.
    pub conforming_bps: f64,
    /// Above it.
    pub excess_bps: f64,
    /// Dropped for whatever reason.
    pub dropped_bps: f64,
}

/// What a row stands for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Kind {
    /// A contract.
    Contract,
    /// Traffic of a class that no contract covers.
    Uncontracted,
    /// Packets that are not IP.
    Other,
}

/// What a row is known by.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize)]
pub struct Name {
    /// What it stands for.
    pub kind: Kind,
    /// Service; empty if it is no contract.
    pub service: String,
    /// Class; empty for packets that are not IP.
    pub class: String,
    /// `egress` or `ingress`.
    pub direction: String,
    /// Far segment.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub segment: Option<String>,
}

/// One line of the table.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Row {
    /// Whose.
    #[serde(flatten)]
    pub name: Name,
    /// Committed rate, bit/s; `None`: not a contract.
    pub entitled_bps: Option<u64>,
    /// Whether it is within its period.
    pub active: bool,
    /// `None`: there is only one answer yet.
    #[serde(flatten)]
    pub rates: Option<Rates>,
    /// Bucket levels.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tokens: Option<Tokens>,
    /// Counters since the appliance started.
    #[serde(skip)]
    pub counters: Counters,
    /// Offered bit/s of the last answers, oldest first.
    #[serde(skip)]
    pub past: VecDeque<f64>,
}

/// One port.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct PortRow {
    /// Its name.
    pub port: String,
    /// `site` or `wan`.
    pub side: String,
    /// Its configured rate, bit/s; `None`: the device is the limit.
    pub rate_bps: Option<u64>,
    /// What it received, bit/s of the counted layer.
    pub received_bps: Option<f64>,
    /// What was given to it to send.
    pub sent_bps: Option<f64>,
    /// What it received that was dropped, packets per second.
    pub dropped_pps: Option<f64>,
}

/// Everything on the screen but where the cursor is.
#[derive(Default)]
pub struct Board {
    /// The last answer.
    pub status: Option<TopStatus>,
    /// Seconds between the last two.
    pub interval: Option<f64>,
    /// Contracts, then what no contract covers, in the order of the configuration.
    pub rows: Vec<Row>,
    /// Ports, in the order of the configuration.
    pub ports: Vec<PortRow>,
    seen: HashMap<Name, Seen>,
    ledgers: Ledgers,
    answers: u64,
}

/// By receiving port: received, forwarded and dropped, and the appliance's age then.
#[derive(Default)]
struct Ledgers {
    uptime: f64,
    by_port: HashMap<String, [Count; 3]>,
}

/// A row as it was the last time.
struct Seen {
    answer: u64,
    uptime: f64,
    bytes: [u64; 4],
    past: VecDeque<f64>,
}

impl Board {
    /// Takes the next answer.
    pub fn take(&mut self, top: TopStatus) {
        let uptime = top.status.uptime_seconds;
        let before = self.status.as_ref().map(|before| before.status.uptime_seconds);
        if before.is_some_and(|before| uptime < before) {
            // Another process: its counters have nothing to do with those before.
            *self = Self::default();
        }
        self.answers += 1;
        self.interval = before.map(|before| uptime - before).filter(|seconds| *seconds > 0.0);
        self.rows = self.take_rows(&top.status);
        self.ports = self.take_ports(&top);
        let answer = self.answers;
        self.seen.retain(|_, seen| answer - seen.answer < FORGET);
        self.status = Some(top);
    }

    /// The sum over all rows there are; `None` as long as no row has rates.
    #[must_use]
    pub fn totals(&self) -> Option<Rates> {
        let mut rates = self.rows.iter().filter_map(|row| row.rates).peekable();
        rates.peek()?;
        Some(rates.fold(Rates::default(), |sum, row| Rates {
            offered_bps: sum.offered_bps + row.offered_bps,
            conforming_bps: sum.conforming_bps + row.conforming_bps,
            excess_bps: sum.excess_bps + row.excess_bps,
            dropped_bps: sum.dropped_bps + row.dropped_bps,
        }))
    }

    fn take_rows(&mut self, status: &Status) -> Vec<Row> {
        let mut rows = Vec::with_capacity(status.traffic.contracts.len());
        for contract in &status.traffic.contracts {
            let name = Name {
                kind: Kind::Contract,
                service: contract.service.clone(),
                class: contract.class.clone(),
                direction: contract.direction.clone(),
                segment: contract.segment.clone(),
            };
            let mut row = self.take_row(name, &contract.counters, status.uptime_seconds);
            row.entitled_bps = Some(contract.rate_bps);
            row.active = contract.active;
            row.tokens = contract.tokens;
            rows.push(row);
        }
        let loose = |kind, class: &str, direction: &str| Name {
            kind,
            service: String::new(),
            class: class.to_owned(),
            direction: direction.to_owned(),
            segment: None,
        };
        let uncontracted = status.traffic.uncontracted.iter();
        let uncontracted = uncontracted.map(|row| {
            let name = loose(Kind::Uncontracted, &row.class, &row.direction);
            (name, &row.counters)
        });
        let other = status.traffic.other.iter();
        let other = other.map(|row| (loose(Kind::Other, "", &row.direction), &row.counters));
        for (name, counters) in uncontracted.chain(other) {
            // Also of what is not shown yet: its first packets are then a rate.
            let row = self.take_row(name, counters, status.uptime_seconds);
            if counters.offered.packets > 0 {
                rows.push(row);
            }
        }
        rows
    }

    fn take_row(&mut self, name: Name, counters: &Counters, uptime: f64) -> Row {
        let bytes = [
            counters.offered.bytes,
            counters.conforming.bytes,
            counters.nonconforming.bytes,
            counters.dropped_in_all().bytes,
        ];
        let mut past = VecDeque::new();
        let mut rates = None;
        if let Some(seen) = self.seen.remove(&name) {
            let went_back = bytes.iter().zip(seen.bytes).any(|(now, before)| *now < before);
            let seconds = uptime - seen.uptime;
            if !went_back {
                past = seen.past;
                if seconds > 0.0 {
                    let rate = |at: usize| (bytes[at] - seen.bytes[at]) as f64 * 8.0 / seconds;
                    let [offered_bps, conforming_bps, excess_bps, dropped_bps] = [0, 1, 2, 3].map(rate);
                    rates = Some(Rates {
                        offered_bps,
                        conforming_bps,
                        excess_bps,
                        dropped_bps,
                    });
                    past.push_back(offered_bps);
                    if past.len() > SAMPLES {
                        past.pop_front();
                    }
                }
            }
        }
        let seen = Seen {
            answer: self.answers,
            uptime,
            bytes,
            past: past.clone(),
        };
        self.seen.insert(name.clone(), seen);
        Row {
            name,
            entitled_bps: None,
            active: true,
            rates,
            tokens: None,
            counters: counters.clone(),
            past,
        }
    }

    fn take_ports(&mut self, top: &TopStatus) -> Vec<PortRow> {
        let status = &top.status;
        let mut by_port: HashMap<String, [Count; 3]> = HashMap::new();
        for ledger in &status.traffic.ledger {
            let sums = by_port.entry(ledger.port.clone()).or_default();
            for (sum, more) in sums.iter_mut().zip(terms(ledger)) {
                *sum = *sum + more;
            }
        }
        let seconds = status.uptime_seconds - self.ledgers.uptime;
        let known = !self.ledgers.by_port.is_empty() && seconds > 0.0;
        let change = |port: &str, term: usize| {
            let (now, before) = (by_port.get(port)?[term], self.ledgers.by_port.get(port)?[term]);
            let packets = now.packets.checked_sub(before.packets)?;
            let bytes = now.bytes.checked_sub(before.bytes)?;
            known.then_some(Count { packets, bytes })
        };
        let rate = |count: Count| counted(count, &top.layer) * 8.0 / seconds;
        let row = |port: &crate::status::PortStatus| PortRow {
            port: port.port.clone(),
            side: port.side.clone(),
            rate_bps: port.rate_bps,
            received_bps: change(&port.port, 0).map(rate),
            sent_bps: far_end(&top.wires, &port.port).and_then(|far| change(far, 1)).map(rate),
            dropped_pps: change(&port.port, 2).map(|count| count.packets as f64 / seconds),
        };
        let rows = status.ports.iter().map(row).collect();
        self.ledgers = Ledgers {
            uptime: status.uptime_seconds,
            by_port,
        };
        rows
    }
}

/// Received, forwarded and dropped of a ledger.
fn terms(ledger: &LedgerReport) -> [Count; 3] {
    let dropped = ledger.dropped.values().copied();
    [
        ledger.received,
        ledger.forwarded,
        dropped.fold(Count::default(), |sum, count| sum + count),
    ]
}

/// Bytes of the counted layer of frames without FCS. A VLAN tag counts as part of the packet here: the ledger does not know
/// how many there were.
fn counted(frames: Count, layer: &str) -> f64 {
    let (bytes, packets) = (frames.bytes as f64, frames.packets as f64);
    match layer {
        "l3" => (bytes - 14.0 * packets).max(0.0),
        "l1" => bytes + 24.0 * packets,
        _ => bytes,
    }
}

fn far_end<'w>(wires: &'w [[String; 2]], port: &str) -> Option<&'w str> {
    wires.iter().find_map(|[site, wan]| {
        if site == port {
            Some(wan.as_str())
        } else if wan == port {
            Some(site.as_str())
        } else {
            None
        }
    })
}

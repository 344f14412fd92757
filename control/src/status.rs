//! `weir status`: what the appliance tells about itself, as JSON and as tables of at most 100 columns.

use std::collections::BTreeMap;
use std::fmt::Write;

use dataplane::sojourn::{self, Waits};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::alarms::Alarm;
use crate::change::disk::DiskStatus;
use crate::change::history::Version;
use crate::observe::Windows;
use crate::port_fault::PortFault;
use crate::report::{Count, Counters, TrafficReport};
use crate::wrap::{WIDTH, wrap};

/// Everything `weir status --json` prints.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Status {
    /// Version of the running weir.
    pub version: String,
    /// Region of the box.
    pub region: String,
    /// Generation of the current table; each worker says in `workers` which one it runs.
    pub generation: u64,
    /// Seconds since the appliance started.
    pub uptime_seconds: f64,
    /// Seconds since the current table was published.
    #[serde(default)]
    pub table_seconds: f64,
    /// What is not as it should be, most grave first; see [`crate::alarms`].
    #[serde(default)]
    pub alarms: Vec<Alarm>,
    /// How long the windows are that rates and sojourns are of.
    #[serde(default)]
    pub windows: Windows,
    /// Error of the last reload, apply or rollback, if it was refused.
    pub last_reload_error: Option<String>,
    /// Which version runs, what is on trial, what the disk has.
    #[serde(flatten)]
    pub change: ChangeStatus,
    /// Worst over-grant in bytes that sharing one contract between the workers can cost.
    pub over_grant_bytes: u64,
    /// Most bytes of a contract's burst that can be out of one worker's reach because it shares them with others; each
    /// contract says its own.
    #[serde(default)]
    pub under_grant_bytes: u64,
    /// Contracts that a summary leaves out; 0 in a status.
    #[serde(default)]
    pub contracts_left_out: usize,
    /// Workers.
    pub workers: Vec<WorkerStatus>,
    /// Ports.
    pub ports: Vec<PortStatus>,
    /// Contracts, uncontracted traffic, ledger.
    #[serde(flatten)]
    pub traffic: TrafficReport,
}

/// What is known of the configuration beside its table.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct ChangeStatus {
    /// The version that runs; `None`: none could be kept.
    pub applied: Option<Version>,
    /// What has to be confirmed, if something has.
    pub trial: Option<TrialStatus>,
    /// The files, seen from what runs.
    pub disk: Option<DiskStatus>,
    /// Why the history could not be read or written, the last time that it could not.
    pub history_error: Option<String>,
}

/// A version that goes back by itself.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct TrialStatus {
    /// Seconds left for `weir confirm`.
    pub seconds_left: f64,
    /// The version it goes back to.
    pub previous: Option<u64>,
    /// Conforming packets since it began.
    pub conforming_packets: u64,
    /// Of them certainly lost.
    pub conforming_lost: u64,
    /// Parts per million of them that may be lost.
    pub max_loss_ppm: u32,
    /// Microseconds that the 99th percentile of a conforming ring's sojourn may reach; `None`: it is not looked at.
    #[serde(default)]
    pub max_latency_us: Option<u64>,
    /// The greatest of these percentiles since it began, as the lower edge of its bucket; `None`: too few packets, or not
    /// looked at.
    #[serde(default)]
    pub p99_us: Option<f64>,
}

/// One worker.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct WorkerStatus {
    /// Its number.
    pub worker: usize,
    /// The core it is pinned to; `None` if pinning failed.
    pub cpu: Option<usize>,
    /// `boot`, `run`, `halt`, or `fail` when it ended by itself.
    pub state: String,
    /// Generation of the table it runs.
    pub generation: u64,
    /// Turns of its loop.
    pub turns: u64,
    /// Of the last second.
    #[serde(default)]
    pub turns_per_second: u64,
    /// Packets received in a turn, both ways, on average over the last second; idle turns count.
    #[serde(default)]
    pub packets_per_turn: f64,
    /// It made no turn over the last second, and none since.
    #[serde(default)]
    pub stalled: bool,
    /// Frames in its pool.
    pub free_frames: u64,
    /// Frames it has in all.
    pub frames: u64,
    /// Frames counted by owner (pool, priority rings, kernel) at its last turn: as many as it has.
    #[serde(default)]
    pub frames_counted: u64,
}

/// One port.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct PortStatus {
    /// Name in the configuration.
    pub port: String,
    /// Interface.
    pub interface: String,
    /// `site` or `wan`.
    pub side: String,
    /// `native` or `generic`.
    pub xdp: String,
    /// `zero-copy` or `copy`.
    pub mode: String,
    /// Driver, as ethtool names it.
    pub driver: String,
    /// Rate of the port in bit/s of the counted layer; `None`: the device is the only limit.
    pub rate_bps: Option<u64>,
    /// What it sent, in the counted layer.
    #[serde(default)]
    pub delivered: Delivered,
    /// Its priority rings, all workers together: those of every class, conforming first.
    #[serde(default)]
    pub rings: Vec<RingStatus>,
    /// What is the matter with it; empty when all is well.
    #[serde(default)]
    pub faults: Vec<PortFault>,
    /// By queue.
    pub queues: Vec<QueueStatus>,
}

/// What a port sent, in bit/s of the counted layer. With `layer = "l3"` a tag of a frame counts here, but not for the rate:
/// up to 4 bytes a tag too much.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Delivered {
    /// Over the last second.
    pub last_second_bps: u64,
    /// Over the last minute.
    pub last_minute_bps: u64,
}

/// A priority ring of a port.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct RingStatus {
    /// Class of service.
    pub class: String,
    /// `conforming` or `nonconforming`.
    pub half: String,
    /// Packets that wait.
    pub held: u64,
    /// The most that ever waited at one worker.
    pub high_watermark: u64,
    /// How long packets that were sent within the last minute had waited.
    pub sojourn_us: Sojourn,
    /// The same since weir started.
    pub sojourn_since_start_us: Sojourn,
}

/// Times that packets waited in a ring, in microseconds: at most 12.5 % (or 1 µs) too large, never too small.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Sojourn {
    /// Packets that this is of; 0: there were none, and the times mean nothing.
    pub packets: u64,
    /// Median.
    pub p50: f64,
    /// 90th percentile.
    pub p90: f64,
    /// 99th percentile.
    pub p99: f64,
    /// 99.9th percentile.
    #[serde(rename = "p99.9")]
    pub p99_9: f64,
    /// The longest.
    pub max: f64,
}

impl Sojourn {
    /// Of these waits, none of which was longer than `max_ns`.
    #[must_use]
    pub fn new(waits: &Waits, max_ns: u64) -> Self {
        let at = |permille| {
            let edge = waits.percentile(permille).map(sojourn::upper_edge_ns);
            let ns = edge.map_or(0, |edge| edge.map_or(max_ns, |edge| edge.min(max_ns)));
            ns as f64 / 1_000.0
        };
        Self {
            packets: waits.count(),
            p50: at(500),
            p90: at(900),
            p99: at(990),
            p99_9: at(999),
            max: at(1_000),
        }
    }
}

/// One queue of a port.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct QueueStatus {
    /// Its number.
    pub queue: u32,
    /// The worker that owns it.
    pub worker: usize,
    /// The kernel's XDP statistics of the socket, by their names in `struct xdp_statistics`.
    pub xdp_statistics: BTreeMap<String, u64>,
    /// How often each answer came back from a wake-up.
    pub kicks: BTreeMap<String, u64>,
}

impl Status {
    /// Packets that the ledgers cannot explain, over all queues: anything but 0 is an error in weir.
    #[must_use]
    pub fn unaccounted(&self) -> i64 {
        self.traffic.ledger.iter().map(|ledger| ledger.unaccounted).sum()
    }

    /// Keeps the `most` contracts that were offered most over the last minute, in their order.
    #[must_use]
    pub fn summary(mut self, most: usize) -> Self {
        let contracts = std::mem::take(&mut self.traffic.contracts);
        self.contracts_left_out = contracts.len().saturating_sub(most);
        let mut order: Vec<usize> = (0..contracts.len()).collect();
        let offered = |at: &usize| contracts[*at].rates.map_or(0, |rates| rates.last_minute.offered_bps);
        order.sort_by_key(|at| std::cmp::Reverse(offered(at)));
        order.truncate(most);
        order.sort_unstable();
        let mut places = order.into_iter().peekable();
        let mut kept = Vec::new();
        for (at, contract) in contracts.into_iter().enumerate() {
            if places.next_if_eq(&at).is_some() {
                kept.push(contract);
            }
        }
        self.traffic.contracts = kept;
        self
    }

    /// The tables that `weir status` prints.
    #[must_use]
    pub fn to_text(&self) -> String {
        let mut text = String::new();
        // Writing to a String cannot fail.
        let _ok = self.write_text(&mut text);
        text
    }

    fn write_text(&self, out: &mut String) -> std::fmt::Result {
        writeln!(
            out,
            "weir {}, region {}, up {:.0} s, table {}",
            self.version, self.region, self.uptime_seconds, self.generation
        )?;
        if let Some(error) = &self.last_reload_error {
            let reason = error.lines().next().unwrap_or_default();
            writeln!(out, "{}", cut(&format!("the last change was refused: {reason}"), 100))?;
        }
        self.write_change(out)?;
        writeln!(out)?;
        self.write_alarms(out)?;
        self.write_workers(out)?;
        self.write_ports(out)?;
        write_rings(out, &self.ports)?;
        write_contracts(out, &self.traffic)?;
        if self.contracts_left_out > 0 {
            let left_out = self.contracts_left_out;
            writeln!(
                out,
                "and {left_out} contracts with less traffic: `weir show contract` has all\n"
            )?;
        }
        self.write_ledger(out)
    }

    fn write_alarms(&self, out: &mut String) -> std::fmt::Result {
        for alarm in self.alarms.iter().take(ALARMS_SHOWN) {
            let text = format!("ALARM {}: {}: {}", alarm.name, alarm.place, alarm.what);
            writeln!(out, "{}", cut(&text, 100))?;
            write_wrapped(out, "  help: ", &alarm.remedy)?;
        }
        match self.alarms.len() {
            0 => Ok(()),
            all if all > ALARMS_SHOWN => writeln!(out, "and {} alarms more: --json has all\n", all - ALARMS_SHOWN),
            _ => writeln!(out),
        }
    }

    fn write_change(&self, out: &mut String) -> std::fmt::Result {
        let change = &self.change;
        if let Some(version) = &change.applied {
            writeln!(out, "{}", cut(&version.to_string(), 100))?;
        }
        if let Some(trial) = &change.trial {
            let back = trial
                .previous
                .map_or("what was before".to_owned(), |number| format!("version {number}"));
            writeln!(
                out,
                "on trial: goes back to {back} in {:.0} s unless `weir confirm` comes; {} of {} conforming lost",
                trial.seconds_left, trial.conforming_lost, trial.conforming_packets
            )?;
        }
        if let Some(disk) = change.disk.as_ref().filter(|disk| disk.differs) {
            writeln!(out, "{}", cut(&format!("disk: {}", disk.summary), 100))?;
        }
        if let Some(error) = &change.history_error {
            writeln!(out, "{}", cut(&format!("history: {error}"), 100))?;
        }
        Ok(())
    }

    fn write_workers(&self, out: &mut String) -> std::fmt::Result {
        writeln!(
            out,
            "{:<8}{:>5}  {:<6}{:>11}{:>15}{:>16}",
            "WORKER", "CPU", "STATE", "GENERATION", "TURNS", "FREE FRAMES"
        )?;
        for worker in &self.workers {
            let cpu = worker.cpu.map_or("-".to_owned(), |cpu| cpu.to_string());
            let frames = format!("{}/{}", worker.free_frames, worker.frames);
            let WorkerStatus {
                worker: number,
                state,
                generation,
                turns,
                ..
            } = worker;
            writeln!(
                out,
                "{number:<8}{cpu:>5}  {state:<6}{generation:>11}{turns:>15}{frames:>16}"
            )?;
        }
        writeln!(out)
    }

    fn write_ports(&self, out: &mut String) -> std::fmt::Result {
        writeln!(
            out,
            "{:<12}{:<16}{:<6}{:<9}{:<11}{:<12}{:>14}{:>8}",
            "PORT", "INTERFACE", "SIDE", "XDP", "MODE", "DRIVER", "RATE", "QUEUES"
        )?;
        for port in &self.ports {
            let rate = port.rate_bps.map_or("-".to_owned(), bits);
            writeln!(
                out,
                "{:<12}{:<16}{:<6}{:<9}{:<11}{:<12}{:>14}{:>8}",
                cut(&port.port, 11),
                cut(&port.interface, 15),
                port.side,
                port.xdp,
                port.mode,
                cut(&port.driver, 11),
                rate,
                port.queues.len()
            )?;
        }
        writeln!(out)
    }

    fn write_ledger(&self, out: &mut String) -> std::fmt::Result {
        writeln!(
            out,
            "{:<12}{:>5}{:>14}{:>14}{:>10}{:>14}{:>9}{:>13}",
            "LEDGER", "QUEUE", "RECEIVED", "FORWARDED", "KERNEL", "DROPPED", "HELD", "UNACCOUNTED"
        )?;
        for ledger in &self.traffic.ledger {
            let dropped: u64 = ledger.dropped.values().map(|count| count.packets).sum();
            writeln!(
                out,
                "{:<12}{:>5}{:>14}{:>14}{:>10}{:>14}{:>9}{:>13}",
                cut(&ledger.port, 11),
                ledger.queue,
                ledger.received.packets,
                ledger.forwarded.packets,
                ledger.kernel.packets,
                dropped,
                ledger.held.packets,
                ledger.unaccounted
            )?;
            for (reason, count) in &ledger.dropped {
                writeln!(
                    out,
                    "{:<17}dropped: {reason} {} packets, {} bytes",
                    "", count.packets, count.bytes
                )?;
            }
        }
        Ok(())
    }
}

/// Contracts that `weir status` shows without `--json`: a screen or two.
pub const SUMMARY_CONTRACTS: usize = 100;

/// Alarms that the text shows, so that the tables stay in sight.
const ALARMS_SHOWN: usize = 10;

/// Words after `label`, in lines of at most 100 columns; later lines begin under the first word.
pub(crate) fn write_wrapped(out: &mut String, label: &str, text: &str) -> std::fmt::Result {
    let indent = label.chars().count();
    let lines = wrap(text, WIDTH - indent, WIDTH - indent);
    writeln!(out, "{label}{}", lines.join(&format!("\n{:indent$}", "")))
}

/// The rings of these ports that have ever carried a packet.
pub(crate) fn write_rings(out: &mut String, ports: &[PortStatus]) -> std::fmt::Result {
    writeln!(
        out,
        "{:<12}{:<11}{:<14}{:>6}{:>7}{:>12}{:>9}{:>9}{:>9}{:>11}",
        "RING AT", "CLASS", "HALF", "HELD", "MOST", "SENT/MIN", "P50", "P99", "P99.9", "MAX"
    )?;
    for port in ports {
        let used = |ring: &&RingStatus| ring.high_watermark > 0;
        for ring in port.rings.iter().filter(used) {
            let of = &ring.sojourn_us;
            let time = |us: f64| if of.packets > 0 { micros(us) } else { "-".to_owned() };
            writeln!(
                out,
                "{:<12}{:<11}{:<14}{:>6}{:>7}{:>12}{:>9}{:>9}{:>9}{:>11}",
                cut(&port.port, 11),
                cut(&ring.class, 10),
                ring.half,
                ring.held,
                ring.high_watermark,
                of.packets,
                time(of.p50),
                time(of.p99),
                time(of.p99_9),
                time(of.max)
            )?;
        }
    }
    writeln!(out)
}

/// A time with three digits: `0 us`, `1.02 us`, `15.4 ms`, `1.2 s`.
pub(crate) fn micros(us: f64) -> String {
    let (value, unit) = match us {
        us if us >= 1e6 => (us / 1e6, "s"),
        us if us >= 1e3 => (us / 1e3, "ms"),
        us => (us, "us"),
    };
    let digits = if value >= 100.0 {
        0
    } else {
        usize::from(value < 10.0) + 1
    };
    let number = format!("{value:.digits$}");
    let number = if number.contains('.') {
        number.trim_end_matches('0').trim_end_matches('.')
    } else {
        &number
    };
    format!("{number} {unit}")
}

/// The table of contracts, also printed by `weir replay`.
pub fn write_contracts(out: &mut String, traffic: &TrafficReport) -> std::fmt::Result {
    writeln!(
        out,
        "{:<16}{:<10}{:<8}{:>13}{:>13}{:>13}{:>13}{:>13}",
        "SERVICE", "CLASS", "DIR", "ENTITLED", "OFFERED", "CONFORMING", "REMARKED", "DROPPED"
    )?;
    for contract in &traffic.contracts {
        let name = match &contract.segment {
            Some(segment) => format!("{}>{segment}", contract.service),
            None => contract.service.clone(),
        };
        let entitled = if contract.active {
            bits(contract.rate_bps)
        } else {
            "(not now)".to_owned()
        };
        write_row(
            out,
            &name,
            &contract.class,
            &contract.direction,
            &entitled,
            &contract.counters,
        )?;
    }
    for row in traffic
        .uncontracted
        .iter()
        .filter(|row| row.counters.offered.packets > 0)
    {
        write_row(out, "(uncontracted)", &row.class, &row.direction, "-", &row.counters)?;
    }
    for row in traffic.other.iter().filter(|row| row.counters.offered.packets > 0) {
        write_row(out, "(not IP)", "-", &row.direction, "-", &row.counters)?;
    }
    writeln!(out)
}

fn write_row(
    out: &mut String,
    name: &str,
    class: &str,
    direction: &str,
    entitled: &str,
    c: &Counters,
) -> std::fmt::Result {
    let Counters {
        offered,
        conforming,
        remarked,
        ..
    } = c;
    writeln!(
        out,
        "{:<16}{:<10}{direction:<8}{entitled:>13}{:>13}{:>13}{:>13}{:>13}",
        cut(name, 15),
        cut(class, 9),
        octets(*offered),
        octets(*conforming),
        octets(*remarked),
        octets(c.dropped_in_all())
    )
}

/// A rate with a decimal prefix: `2 Gbit/s`, `500 kbit/s`, `1.25 Mbit/s`.
#[must_use]
pub fn bits(bps: u64) -> String {
    scaled(bps as f64, "bit/s")
}

pub(crate) fn octets(count: Count) -> String {
    scaled(count.bytes as f64, "B")
}

fn scaled(value: f64, unit: &str) -> String {
    let steps = [
        (1e18, "E"),
        (1e15, "P"),
        (1e12, "T"),
        (1e9, "G"),
        (1e6, "M"),
        (1e3, "k"),
    ];
    let (divisor, prefix) = steps.into_iter().find(|(step, _)| value >= *step).unwrap_or((1.0, ""));
    let number = format!("{:.2}", value / divisor);
    let number = number.trim_end_matches('0').trim_end_matches('.');
    format!("{number} {prefix}{unit}")
}

pub(crate) fn cut(text: &str, width: usize) -> String {
    if text.chars().count() <= width {
        return text.to_owned();
    }
    text.chars().take(width - 1).chain(['…']).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rates_read_like_the_configuration() {
        let texts = [2_000_000_000, 500_000, 1_250_000, 8_000, 999].map(bits);
        assert_eq!(
            texts,
            ["2 Gbit/s", "500 kbit/s", "1.25 Mbit/s", "8 kbit/s", "999 bit/s"]
        );
    }

    #[test]
    fn no_line_is_wider_than_100_columns() {
        let mut traffic = TrafficReport::default();
        let most = Count {
            packets: u64::MAX,
            bytes: u64::MAX,
        };
        traffic.contracts.push(crate::report::ContractReport {
            service: "a-service-with-a-very-long-name".into(),
            class: "a-long-class-name".into(),
            region: "atn".into(),
            direction: "ingress".into(),
            segment: Some("elsewhere".into()),
            active: true,
            rate_bps: 399_999_999_999,
            under_grant_bytes: 0,
            tokens: None,
            rates: None,
            counters: Counters {
                offered: most,
                conforming: most,
                remarked: most,
                ..Counters::default()
            },
        });
        let mut text = String::new();
        write_contracts(&mut text, &traffic).unwrap();
        assert!(text.lines().all(|line| line.chars().count() <= 100), "{text}");
    }
}

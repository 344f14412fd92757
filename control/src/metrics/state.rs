//! Everything but contracts: the box, its configuration, workers, ports and queues.

use std::fmt;

use prometheus_client::encoding::DescriptorEncoder;

use super::Observed;
use super::contracts::{PARTS, Term, write_counters};
use super::family::{counter, gauge, info, single};
use crate::api::board::Change;
use crate::report::{Count, LedgerReport};
use crate::status::{PortStatus, RingStatus, Status};

/// States of a worker, as `weir status` names them.
const STATES: [&str; 4] = ["boot", "run", "halt", "fail"];

/// Reasons that only a ledger knows: what the XDP program drops before a worker sees it.
const PROGRAM_REASONS: [&str; 2] = ["stalled", "no_socket"];

pub(super) fn write(
    encoder: &mut DescriptorEncoder<'_>,
    status: &Status,
    change: &Change,
    observed: &Observed,
) -> fmt::Result {
    write_box(encoder, status, observed)?;
    write_config(encoder, status, change)?;
    write_workers(encoder, status, observed)?;
    write_ports(encoder, status, observed)?;
    write_rings(encoder, status)?;
    write_ledger(encoder, &status.traffic.ledger)?;
    let rows = &status.traffic.uncontracted;
    let rows: Vec<_> = rows
        .iter()
        .map(|row| {
            (
                [("class", row.class.as_str()), ("direction", row.direction.as_str())],
                &row.counters,
            )
        })
        .collect();
    write_counters(encoder, "uncontracted", "Traffic that no contract covers", &rows)?;
    let rows = &status.traffic.other;
    let rows: Vec<_> = rows
        .iter()
        .map(|row| ([("direction", row.direction.as_str())], &row.counters))
        .collect();
    write_counters(encoder, "other", "Packets that are not IP", &rows)
}

fn write_box(encoder: &mut DescriptorEncoder<'_>, status: &Status, observed: &Observed) -> fmt::Result {
    let facts = [("version", status.version.as_str()), ("region", status.region.as_str())];
    info(encoder, "build", "Version of weir, and the region of the box", [facts])?;
    let help = "Time since the appliance started";
    single(encoder, "uptime", help, Some("seconds"), status.uptime_seconds)?;
    single(
        encoder,
        "ready",
        "Whether /readyz answers 200",
        None,
        bit(observed.ready),
    )?;
    let help = "Packets received that the ledgers cannot explain; anything but 0 is an error in weir";
    single(
        encoder,
        "unaccounted",
        help,
        Some("packets"),
        status.unaccounted() as f64,
    )
}

fn write_config(encoder: &mut DescriptorEncoder<'_>, status: &Status, change: &Change) -> fmt::Result {
    let version = change.status.applied.as_ref();
    let version = version.map_or(String::new(), |version| version.number.to_string());
    let facts = [("hash", change.config_hash.as_str()), ("version", version.as_str())];
    info(
        encoder,
        "config",
        "Hash of the texts that run, and their version in the history",
        [facts],
    )?;
    let help = "Generation of the current contract table";
    single(encoder, "config_generation", help, None, status.generation as f64)?;
    let help = "Whether the last reload, apply or rollback was taken";
    let successful = bit(change.last_reload_error.is_none());
    single(encoder, "config_last_reload_successful", help, None, successful)?;
    let help = "When the current contract table became live, seconds since 1970";
    let since = change.live_since.as_millisecond() as f64 / 1000.0;
    let name = "config_last_reload_success_timestamp";
    single(encoder, name, help, Some("seconds"), since)?;
    let help = "Whether a version is on trial and goes back by itself";
    single(
        encoder,
        "config_on_trial",
        help,
        None,
        bit(change.status.trial.is_some()),
    )?;
    let differs = change.status.disk.as_ref().is_some_and(|disk| disk.differs);
    let help = "Whether the files on disk are other than what runs";
    single(encoder, "config_disk_differs", help, None, bit(differs))?;
    let help = "Whether the history of versions can be kept";
    single(
        encoder,
        "config_history_kept",
        help,
        None,
        bit(change.status.history_error.is_none()),
    )
}

fn write_workers(encoder: &mut DescriptorEncoder<'_>, status: &Status, observed: &Observed) -> fmt::Result {
    let workers = || {
        status
            .workers
            .iter()
            .map(|worker| (worker, [("worker", worker.worker)]))
    };
    counter(
        encoder,
        "worker_turns",
        "Turns of the worker's loop",
        None,
        workers().map(|(worker, labels)| (labels, worker.turns)),
    )?;
    gauge(
        encoder,
        "worker_generation",
        "Generation of the contract table that the worker runs",
        None,
        workers().map(|(worker, labels)| (labels, worker.generation as f64)),
    )?;
    gauge(
        encoder,
        "worker_free_frames",
        "Frames free in the worker's pool",
        None,
        workers().map(|(worker, labels)| (labels, worker.free_frames as f64)),
    )?;
    gauge(
        encoder,
        "worker_frames",
        "Frames that the worker has in all",
        None,
        workers().map(|(worker, labels)| (labels, worker.frames as f64)),
    )?;
    let ages = observed.turn_ages.iter().enumerate();
    gauge(
        encoder,
        "worker_last_turn_age",
        "Time since the worker was last seen to make a turn",
        Some("seconds"),
        ages.map(|(worker, age)| ([("worker", worker)], *age)),
    )?;
    let states = status.workers.iter().flat_map(|worker| {
        let number = worker.worker.to_string();
        STATES.map(|state| {
            (
                [("worker", number.clone()), ("state", state.to_owned())],
                bit(worker.state == state),
            )
        })
    });
    gauge(
        encoder,
        "worker_state",
        "1 for the state that the worker is in",
        None,
        states,
    )
}

fn write_ports(encoder: &mut DescriptorEncoder<'_>, status: &Status, observed: &Observed) -> fmt::Result {
    let facts = status.ports.iter().map(|port| {
        [
            ("port", port.port.as_str()),
            ("interface", &port.interface),
            ("side", &port.side),
            ("xdp", &port.xdp),
            ("mode", &port.mode),
            ("driver", &port.driver),
        ]
    });
    info(encoder, "port", "What the port is", facts)?;
    let links = status.ports.iter().map(|port| {
        let up = observed.links.get(&port.interface).copied().unwrap_or(false);
        ([("port", port.port.as_str())], bit(up))
    });
    gauge(
        encoder,
        "port_up",
        "Whether the interface of the port is there, up and has its link",
        None,
        links,
    )?;
    let rates = status.ports.iter().filter_map(|port| {
        let rate = port.rate_bps? as f64 / 8.0;
        Some(([("port", port.port.as_str())], rate))
    });
    let help =
        "Rate that the port sends at most, in bytes of the counted layer; not there: the device is the only limit";
    gauge(encoder, "port_rate", help, Some("bytes_per_second"), rates)?;
    let queues = || {
        let ports = status.ports.iter();
        ports.flat_map(|port| port.queues.iter().map(move |queue| (port.port.clone(), queue)))
    };
    let statistics = queues().flat_map(|(port, queue)| {
        let named = |(name, value): (&String, &u64)| (queue_labels(&port, queue.queue, "statistic", name), *value);
        queue.xdp_statistics.iter().map(named).collect::<Vec<_>>()
    });
    let help = "The kernel's statistics of the XDP socket, by their names in struct xdp_statistics";
    counter(encoder, "queue_xdp_statistics", help, None, statistics)?;
    let kicks = queues().flat_map(|(port, queue)| {
        let named = |(name, value): (&String, &u64)| (queue_labels(&port, queue.queue, "answer", name), *value);
        queue.kicks.iter().map(named).collect::<Vec<_>>()
    });
    counter(
        encoder,
        "queue_kicks",
        "Answers of the kernel to wake-ups for sending",
        None,
        kicks,
    )
}

fn write_rings(encoder: &mut DescriptorEncoder<'_>, status: &Status) -> fmt::Result {
    let rings = || {
        status
            .ports
            .iter()
            .flat_map(|port| port.rings.iter().map(move |ring| (port, ring)))
    };
    let labels = |(port, ring): (&PortStatus, &RingStatus)| {
        [
            ("port", port.port.clone()),
            ("class", ring.class.clone()),
            ("half", ring.half.clone()),
        ]
    };
    let held = rings().map(|of| (labels(of), of.1.held as f64));
    gauge(
        encoder,
        "ring_held",
        "Waiting in the priority ring",
        Some("packets"),
        held,
    )?;
    let most = rings().map(|of| (labels(of), of.1.high_watermark as f64));
    let help = "The most packets that ever waited in the ring at one worker";
    gauge(encoder, "ring_high_watermark", help, Some("packets"), most)?;
    // Without packets in the last minute the times mean nothing.
    let waits = rings().filter(|(_, ring)| ring.sojourn_us.packets > 0).flat_map(|of| {
        let sojourn = of.1.sojourn_us;
        let percentiles = [
            ("50", sojourn.p50),
            ("90", sojourn.p90),
            ("99", sojourn.p99),
            ("99.9", sojourn.p99_9),
            ("100", sojourn.max),
        ];
        percentiles.map(|(percentile, micros)| {
            let [port, class, half] = labels(of);
            ([port, class, half, ("percentile", percentile.to_owned())], micros / 1e6)
        })
    });
    let help = "How long packets that were sent within the last minute had waited in the ring";
    gauge(encoder, "ring_sojourn", help, Some("seconds"), waits)
}

fn write_ledger(encoder: &mut DescriptorEncoder<'_>, ledger: &[LedgerReport]) -> fmt::Result {
    let terms: [Term<LedgerReport, Count>; 5] = [
        ("received", "Taken from the port by weir or its XDP program", |row| {
            row.received
        }),
        ("forwarded", "Given to the other port of the wire", |row| row.forwarded),
        (
            "kernel",
            "Given to the kernel, because the worker was not running",
            |row| row.kernel,
        ),
        (
            "ce_marked",
            "Forwarded with a CE mark that CoDel set instead of a drop",
            |row| row.ce_marked,
        ),
        ("other", "Received, but not IP", |row| row.other),
    ];
    for (name, help, count) in terms {
        for (unit, part) in PARTS {
            let samples = ledger.iter().map(|row| (port_labels(row), part(count(row))));
            counter(encoder, &format!("queue_{name}"), help, Some(unit), samples)?;
        }
    }
    for (unit, part) in PARTS {
        let samples = ledger.iter().map(|row| (port_labels(row), part(row.held) as f64));
        gauge(encoder, "queue_held", "Waiting in priority rings", Some(unit), samples)?;
    }
    for (unit, part) in PARTS {
        let samples = ledger.iter().flat_map(|row| {
            let reasons = dataplane::stats::DropReason::ALL.map(|reason| reason.name());
            reasons.into_iter().chain(PROGRAM_REASONS).map(move |reason| {
                let count = row.dropped.get(reason).copied().unwrap_or_default();
                (queue_labels(&row.port, row.queue, "reason", reason), part(count))
            })
        });
        counter(encoder, "queue_dropped", "Dropped, by reason", Some(unit), samples)?;
    }
    let samples = ledger.iter().map(|row| (port_labels(row), row.unaccounted as f64));
    let help = "Packets received that no other term explains; anything but 0 is an error in weir";
    gauge(encoder, "queue_unaccounted", help, Some("packets"), samples)
}

fn port_labels(row: &LedgerReport) -> [(&'static str, String); 2] {
    [("port", row.port.clone()), ("queue", row.queue.to_string())]
}

fn queue_labels(port: &str, queue: u32, key: &'static str, value: &str) -> [(&'static str, String); 3] {
    [
        ("port", port.to_owned()),
        ("queue", queue.to_string()),
        (key, value.to_owned()),
    ]
}

fn bit(is: bool) -> f64 {
    f64::from(u8::from(is))
}

//! Pages and tables for people, at most 100 columns wide.

use std::fmt::{Result, Write};

use super::{ClassPage, ContractPage, PortPage, ServicePage, Shown, WorkerPage};
use crate::alarms::Alarm;
use crate::observe::Rate;
use crate::report::{Count, Counters, LedgerReport};
use crate::status::{RingStatus, Sojourn, bits, cut, micros, octets, write_rings, write_wrapped};

pub(super) fn write_pages(out: &mut String, shown: &Shown) -> Result {
    match shown {
        Shown::Contract(pages) => each(out, pages, write_contract),
        Shown::Service(pages) => each(out, pages, write_service),
        Shown::Class(pages) => each(out, pages, write_class),
        Shown::Port(pages) => each(out, pages, write_port),
        Shown::Worker(pages) => each(out, pages, write_worker),
    }
}

/// Pages with an empty line between them.
fn each<P>(out: &mut String, pages: &[P], write: impl Fn(&mut String, &P) -> Result) -> Result {
    for (number, page) in pages.iter().enumerate() {
        if number > 0 {
            writeln!(out)?;
        }
        write(out, page)?;
    }
    Ok(())
}

pub(super) fn write_table(out: &mut String, shown: &Shown) -> Result {
    use Column::{Left, Right};
    match shown {
        Shown::Contract(pages) => {
            let columns = [
                Left("CONTRACT, LAST MINUTE", 40),
                Right("ENTITLED", 15),
                Right("OFFERED", 15),
                Right("CONFORMING", 15),
                Right("DROPPED", 15),
            ];
            table(out, columns, pages, contract_cells)
        }
        Shown::Service(pages) => {
            let columns = [
                Left("SERVICE", 32),
                Right("CONTRACTS", 10),
                Right("ENDPOINTS", 11),
                Left("  OWNER", 47),
            ];
            table(out, columns, pages, service_cells)
        }
        Shown::Class(pages) => {
            let columns = [
                Left("CLASS", 32),
                Right("CONTRACTS", 10),
                Right("EGRESS", 18),
                Right("INGRESS", 18),
            ];
            table(out, columns, pages, class_cells)
        }
        Shown::Port(pages) => {
            let columns = [
                Left("PORT", 16),
                Left("INTERFACE", 16),
                Left("SIDE", 6),
                Right("RATE", 18),
                Right("LAST SECOND", 18),
                Right("LAST MINUTE", 18),
            ];
            table(out, columns, pages, port_cells)
        }
        Shown::Worker(pages) => {
            let columns = [
                Left("WORKER", 8),
                Right("CPU", 5),
                Left("  STATE", 10),
                Right("GENERATION", 11),
                Right("TURNS/S", 14),
                Right("PACKETS/TURN", 18),
            ];
            table(out, columns, pages, worker_cells)
        }
    }
}

/// A column of a table: its title, its width, and the side on which its cells stand. Those on the left are cut if need be.
#[derive(Clone, Copy)]
enum Column {
    Left(&'static str, usize),
    Right(&'static str, usize),
}

/// The titles, and a line for each page.
fn table<P, const N: usize>(
    out: &mut String,
    columns: [Column; N],
    pages: &[P],
    cells: impl Fn(&P) -> [String; N],
) -> Result {
    let titles = columns.map(|(Column::Left(title, _) | Column::Right(title, _))| title.to_owned());
    for cells in std::iter::once(titles).chain(pages.iter().map(cells)) {
        let mut line = String::new();
        for (column, cell) in columns.into_iter().zip(cells) {
            match column {
                Column::Left(_, width) => write!(line, "{:<width$}", cut(&cell, width - 1))?,
                Column::Right(_, width) => write!(line, "{cell:>width$}")?,
            }
        }
        writeln!(out, "{}", line.trim_end())?;
    }
    Ok(())
}

/// Of the last minute, all of it.
fn contract_cells(page: &ContractPage) -> [String; 5] {
    let minute = page.report.rates.unwrap_or_default().last_minute;
    let entitled = if page.report.active {
        bits(page.report.rate_bps)
    } else {
        "(not now)".to_owned()
    };
    [
        page.name.clone(),
        entitled,
        bits(minute.offered_bps),
        bits(minute.conforming_bps),
        bits(minute.dropped_bps),
    ]
}

fn service_cells(page: &ServicePage) -> [String; 4] {
    [
        page.name.clone(),
        page.contracts.len().to_string(),
        page.endpoints.len().to_string(),
        format!("  {}", page.owner.as_deref().unwrap_or("-")),
    ]
}

fn class_cells(page: &ClassPage) -> [String; 4] {
    let entitled = |direction| {
        let bps = page.entitled_bps.get(direction);
        bps.map_or("-".to_owned(), |bps| bits(*bps))
    };
    [
        page.name.clone(),
        page.contracts.to_string(),
        entitled("egress"),
        entitled("ingress"),
    ]
}

fn port_cells(page: &PortPage) -> [String; 6] {
    let port = &page.status;
    [
        page.name.clone(),
        port.interface.clone(),
        port.side.clone(),
        port.rate_bps.map_or("-".to_owned(), bits),
        bits(port.delivered.last_second_bps),
        bits(port.delivered.last_minute_bps),
    ]
}

fn worker_cells(page: &WorkerPage) -> [String; 6] {
    let worker = &page.status;
    [
        page.name.clone(),
        worker.cpu.map_or("-".to_owned(), |cpu| cpu.to_string()),
        format!("  {}", worker.state),
        worker.generation.to_string(),
        worker.turns_per_second.to_string(),
        format!("{:.2}", worker.packets_per_turn),
    ]
}

fn write_contract(out: &mut String, page: &ContractPage) -> Result {
    let report = &page.report;
    writeln!(out, "contract {}", page.name)?;
    write_alarms(out, &page.alarms)?;
    if let Some(agreed) = &page.agreed {
        write_wrapped(out, "  agreed    ", &agreed.terms)?;
        writeln!(out, "  written   {}:{}", agreed.file, agreed.line)?;
        if let Some(owner) = &agreed.owner {
            write_wrapped(out, "  owner     ", owner)?;
        }
    }
    let state = if report.active {
        "within its period"
    } else {
        "outside its period: it judges nothing"
    };
    writeln!(out, "  now       {state}, region {}", report.region)?;
    if let Some(tokens) = report.tokens {
        let burst = page.agreed.as_ref().map(|agreed| format!(" of {}", agreed.burst_bytes));
        let second = tokens.second.map(|second| format!(", second bucket {second} B"));
        writeln!(
            out,
            "  bucket    {}{} B{}",
            tokens.committed,
            burst.unwrap_or_default(),
            second.unwrap_or_default()
        )?;
    }
    writeln!(
        out,
        "  sharing   over-grant 0 B, under-grant at most {} B of a burst",
        report.under_grant_bytes
    )?;
    let rates = report.rates.unwrap_or_default();
    write_figures(out, rates.last_second, rates.last_minute, &report.counters)
}

/// Rates and counters side by side.
fn write_figures(out: &mut String, second: Rate, minute: Rate, counters: &Counters) -> Result {
    writeln!(
        out,
        "  {:<26}{:>16}{:>16}{:>18}{:>16}",
        "", "LAST SECOND", "LAST MINUTE", "PACKETS IN ALL", "BYTES IN ALL"
    )?;
    let mut row = |name: &str, rate: Option<fn(Rate) -> u64>, count: Count| {
        let of = |rates: Rate| rate.map_or(String::new(), |rate| bits(rate(rates)));
        writeln!(
            out,
            "  {:<26}{:>16}{:>16}{:>18}{:>16}",
            cut(name, 25),
            of(second),
            of(minute),
            count.packets,
            octets(count)
        )
    };
    row("offered", Some(|rate| rate.offered_bps), counters.offered)?;
    row("conforming", Some(|rate| rate.conforming_bps), counters.conforming)?;
    row(
        "nonconforming",
        Some(|rate| rate.nonconforming_bps),
        counters.nonconforming,
    )?;
    row("  remarked", None, counters.remarked)?;
    row("dropped", Some(|rate| rate.dropped_bps), counters.dropped_in_all())?;
    row(
        "  conforming",
        Some(|rate| rate.conforming_dropped_bps),
        counters.conforming_dropped,
    )?;
    for (reason, count) in &counters.dropped {
        row(&format!("  by {reason}"), None, *count)?;
    }
    Ok(())
}

fn write_service(out: &mut String, page: &ServicePage) -> Result {
    writeln!(out, "service {}", page.name)?;
    if let Some(owner) = &page.owner {
        write_wrapped(out, "  owner     ", owner)?;
    }
    write_wrapped(out, "  endpoints ", &page.endpoints.join(", "))?;
    writeln!(out)?;
    each(out, &page.contracts, write_contract)
}

fn write_class(out: &mut String, page: &ClassPage) -> Result {
    writeln!(out, "class {}", page.name)?;
    write_wrapped(out, "  order     ", &page.terms)?;
    let entitled: Vec<String> = page
        .entitled_bps
        .iter()
        .map(|(direction, bps)| format!("{} {direction}", bits(*bps)))
        .collect();
    writeln!(
        out,
        "  promised  {} contracts: {}",
        page.contracts,
        if entitled.is_empty() {
            "-".to_owned()
        } else {
            entitled.join(", ")
        }
    )?;
    for row in &page.uncontracted {
        let minute = row.rates.unwrap_or_default().last_minute;
        writeln!(
            out,
            "  {:<10}without a contract: {} in the last minute, {} packets in all",
            row.direction,
            bits(minute.offered_bps),
            row.counters.offered.packets
        )?;
    }
    for (port, rings) in &page.rings {
        for ring in rings {
            write_ring(out, &format!("at {port}, {}", ring.half), ring)?;
        }
    }
    Ok(())
}

fn write_ring(out: &mut String, name: &str, ring: &RingStatus) -> Result {
    writeln!(
        out,
        "  ring {name}: {} held, {} at most",
        ring.held, ring.high_watermark
    )?;
    for (window, of) in [
        ("last minute", ring.sojourn_us),
        ("since start", ring.sojourn_since_start_us),
    ] {
        let Sojourn {
            packets,
            p50,
            p90,
            p99,
            p99_9,
            max,
        } = of;
        if packets == 0 {
            writeln!(out, "    {window}: no packet")?;
            continue;
        }
        let [p50, p90, p99, p99_9, max] = [p50, p90, p99, p99_9, max].map(micros);
        writeln!(
            out,
            "    {window}: {packets} packets, p50 {p50}, p90 {p90}, p99 {p99}, p99.9 {p99_9}, max {max}"
        )?;
    }
    Ok(())
}

fn write_port(out: &mut String, page: &PortPage) -> Result {
    let port = &page.status;
    writeln!(
        out,
        "port {} on {} ({}, {})",
        page.name, port.interface, port.side, port.driver
    )?;
    write_alarms(out, &page.alarms)?;
    writeln!(out, "  XDP       {}, {}", port.xdp, port.mode)?;
    writeln!(
        out,
        "  rate      {}; sent {} in the last second, {} in the last minute",
        port.rate_bps.map_or("none: the device is the limit".to_owned(), bits),
        bits(port.delivered.last_second_bps),
        bits(port.delivered.last_minute_bps)
    )?;
    writeln!(out)?;
    write_rings(out, std::slice::from_ref(port))?;
    writeln!(out, "{:<16}{:>18}{:>18}", "LEDGER", "PACKETS", "BYTES")?;
    for ledger in &page.ledger {
        write_ledger(out, ledger)?;
    }
    writeln!(out)?;
    for queue in &port.queues {
        writeln!(out, "queue {} of worker {}", queue.queue, queue.worker)?;
        let list = |counts: &std::collections::BTreeMap<String, u64>| {
            let items: Vec<String> = counts.iter().map(|(name, count)| format!("{name} {count}")).collect();
            items.join(", ")
        };
        write_wrapped(out, "  XDP statistics: ", &list(&queue.xdp_statistics))?;
        write_wrapped(out, "  kicks: ", &list(&queue.kicks))?;
    }
    Ok(())
}

fn write_ledger(out: &mut String, ledger: &LedgerReport) -> Result {
    let mut row = |name: &str, count: Count| writeln!(out, "{:<16}{:>18}{:>18}", name, count.packets, count.bytes);
    row(&format!("queue {}", ledger.queue), ledger.received)?;
    row("  forwarded", ledger.forwarded)?;
    row("  kernel", ledger.kernel)?;
    for (reason, count) in &ledger.dropped {
        row(&format!("  {reason}"), *count)?;
    }
    row("  held", ledger.held)?;
    row("  (CE marked)", ledger.ce_marked)?;
    row("  (not IP)", ledger.other)?;
    writeln!(out, "{:<16}{:>18}", "  unaccounted", ledger.unaccounted)
}

fn write_worker(out: &mut String, page: &WorkerPage) -> Result {
    let worker = &page.status;
    let cpu = worker.cpu.map_or("not pinned".to_owned(), |cpu| format!("core {cpu}"));
    writeln!(out, "worker {} on {cpu}: {}", page.name, worker.state)?;
    write_alarms(out, &page.alarms)?;
    let newest = if worker.generation == page.current_generation {
        "the current one"
    } else {
        "not the current one"
    };
    writeln!(out, "  table     {}, {newest}", worker.generation)?;
    writeln!(
        out,
        "  turns     {} in the last second, {} in all; {:.2} packets a turn",
        worker.turns_per_second, worker.turns, worker.packets_per_turn
    )?;
    writeln!(out, "  frames    {} free of {}", worker.free_frames, worker.frames)?;
    for (port, queues) in &page.queues {
        let queues: Vec<String> = queues.iter().map(u32::to_string).collect();
        write_wrapped(out, "  queues    ", &format!("{port}: {}", queues.join(", ")))?;
    }
    Ok(())
}

fn write_alarms(out: &mut String, alarms: &[Alarm]) -> Result {
    for alarm in alarms {
        write_wrapped(out, "  ALARM     ", &format!("{}: {}", alarm.name, alarm.what))?;
        write_wrapped(out, "    help:   ", &alarm.remedy)?;
    }
    Ok(())
}

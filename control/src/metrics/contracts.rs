//! The counters of contracts, of uncontracted traffic and of what is not IP.

use std::fmt;

use dataplane::cells::{Cells, SlotId};
use dataplane::contract::Judge;
use dataplane::stats::{Amount, DropReason};
use prometheus_client::encoding::DescriptorEncoder;

use super::family::{counter, gauge};
use crate::compile::Compiled;
use crate::report::{Count, Counters};

/// All contracts of a table with their counters, read once, so that the families of a scrape agree with each other.
pub(super) struct Contracts {
    rows: Vec<Row>,
}

/// One contract; compact, because there may be 100,000.
struct Row {
    number: u32,
    offered: Amount,
    conforming: Amount,
    nonconforming: Amount,
    remarked: Amount,
    conforming_dropped: Amount,
    dropped: [Amount; DropReason::ALL.len()],
}

impl Contracts {
    pub(super) fn read(compiled: &Compiled) -> Self {
        let cells = &compiled.table.cells;
        let row = |(number, _)| Row::read(number as u32, cells, compiled.contract(number).slot);
        Self {
            rows: compiled.numbered().map(row).collect(),
        }
    }

    /// Writes one family after the other, as OpenMetrics wants it.
    pub(super) fn write(&self, encoder: &mut DescriptorEncoder<'_>, compiled: &Compiled) -> fmt::Result {
        let terms: [Term<Row, Amount>; 5] = [
            (
                "offered",
                "Judged by the contract, conforming and nonconforming",
                |row| row.offered,
            ),
            ("conforming", "Judged inside the entitlement", |row| row.conforming),
            ("nonconforming", "Judged above the entitlement", |row| row.nonconforming),
            ("remarked", "Nonconforming, with DSCP or PCP changed", |row| {
                row.remarked
            }),
            (
                "conforming_dropped",
                "Dropped although judged inside the entitlement",
                |row| row.conforming_dropped,
            ),
        ];
        for (name, help, amount) in terms {
            for (unit, of) in UNITS {
                let samples = self.rows.iter().map(|row| (labels(compiled, row), of(amount(row))));
                counter(encoder, &format!("contract_{name}"), help, Some(unit), samples)?;
            }
        }
        for (unit, of) in UNITS {
            let samples = self.rows.iter().flat_map(|row| {
                let [service, class, direction, segment] = labels(compiled, row);
                let happened = DropReason::ALL
                    .into_iter()
                    .zip(row.dropped)
                    .filter(|(_, amount)| amount.packets > 0);
                happened.map(move |(reason, amount)| {
                    let reason = ("reason", reason.name());
                    ([service, class, direction, segment, reason], of(amount))
                })
            });
            let help = "Dropped, by reason; a reason is there once it has happened";
            counter(encoder, "contract_dropped", help, Some(unit), samples)?;
        }
        let rates = self
            .rows
            .iter()
            .map(|row| (labels(compiled, row), rate_bytes(compiled, row)));
        let help = "Committed rate of the contract in bytes of the counted layer";
        gauge(encoder, "contract_rate", help, Some("bytes_per_second"), rates)?;
        let active = self.rows.iter().map(|row| {
            let active = compiled.is_active(row.number as usize);
            (labels(compiled, row), f64::from(u8::from(active)))
        });
        let help = "Whether the contract is within its period; outside it judges nothing";
        gauge(encoder, "contract_active", help, None, active)
    }
}

impl Row {
    /// Sums a slot over all workers. Nonconforming is read after remarked and dropped, so that neither ever seems larger.
    fn read(number: u32, cells: &Cells, slot: SlotId) -> Self {
        let mut row = Self {
            number,
            offered: Amount::default(),
            conforming: Amount::default(),
            nonconforming: Amount::default(),
            remarked: Amount::default(),
            conforming_dropped: Amount::default(),
            dropped: Default::default(),
        };
        for worker in (0..cells.workers()).map(|worker| cells.of(worker)) {
            let (cell, excess) = (worker.cell(slot), worker.excess(slot));
            for (sum, reason) in row.dropped.iter_mut().zip(DropReason::ALL) {
                *sum += excess.dropped(reason).get();
            }
            row.conforming_dropped += excess.conforming_dropped.get();
            row.remarked += excess.remarked.get();
            row.nonconforming += cell.nonconforming.get();
            row.conforming += cell.conforming.get();
        }
        row.offered = row.conforming + row.nonconforming;
        row
    }
}

/// Name and help of a family of metrics, and what of a row it counts.
pub(super) type Term<R, A> = (&'static str, &'static str, fn(&R) -> A);

/// Name of a unit, and the part of an amount that is of it.
pub(super) type Unit<A> = (&'static str, fn(A) -> u64);

/// The units in which everything is counted, and the part of an amount that is of each.
pub(super) const UNITS: [Unit<Amount>; 2] = [("packets", |amount| amount.packets), ("bytes", |amount| amount.bytes)];

/// Writes the families of rows that are not contracts, such as uncontracted traffic: few, with every reason.
pub(super) fn write_counters<const N: usize>(
    encoder: &mut DescriptorEncoder<'_>,
    of: &str,
    whose: &str,
    rows: &[([(&'static str, &str); N], &Counters)],
) -> fmt::Result {
    let terms: [Term<Counters, Count>; 4] = [
        ("offered", "conforming and nonconforming", |c| c.offered),
        ("conforming", "taken as conforming", |c| c.conforming),
        ("nonconforming", "taken as nonconforming", |c| c.nonconforming),
        ("remarked", "with DSCP or PCP changed", |c| c.remarked),
    ];
    for (name, help, count) in terms {
        for (unit, part) in PARTS {
            let samples = rows
                .iter()
                .map(|(labels, counters)| (labels.as_slice(), part(count(counters))));
            counter(
                encoder,
                &format!("{of}_{name}"),
                &format!("{whose}, {help}"),
                Some(unit),
                samples,
            )?;
        }
    }
    for (unit, part) in PARTS {
        let samples = rows.iter().flat_map(|(labels, counters)| {
            counters.dropped.iter().map(move |(reason, count)| {
                let mut labels = labels.to_vec();
                labels.push(("reason", reason));
                (labels, part(*count))
            })
        });
        counter(
            encoder,
            &format!("{of}_dropped"),
            &format!("{whose}, dropped, by reason"),
            Some(unit),
            samples,
        )?;
    }
    Ok(())
}

/// As [`UNITS`], of what is reported.
pub(super) const PARTS: [Unit<Count>; 2] = [("packets", |count| count.packets), ("bytes", |count| count.bytes)];

/// A contract's labels; without a far segment that label is empty, which to Prometheus is as if it were not there.
fn labels<'c>(compiled: &'c Compiled, row: &Row) -> [(&'static str, &'c str); 4] {
    let name = compiled.name_of(row.number as usize);
    let name = name.map_or(("", "", "", ""), |name| {
        (name.service, name.class, name.direction, name.segment.unwrap_or(""))
    });
    [
        ("service", name.0),
        ("class", name.1),
        ("direction", name.2),
        ("segment", name.3),
    ]
}

fn rate_bytes(compiled: &Compiled, row: &Row) -> f64 {
    match &compiled.contract(row.number as usize).judge {
        Judge::Meter(meter) => meter.committed_rate_bps() as f64 / 8.0,
        Judge::Always(_) => f64::INFINITY,
    }
}

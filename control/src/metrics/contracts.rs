//! The counters of contracts, of uncontracted traffic and of what is not IP.

use std::fmt::{self, Write};
use std::ops::Add;

use dataplane::cells::{Cells, SlotId};
use dataplane::contract::Judge;
use dataplane::stats::{Amount, DropReason};
use prometheus_client::encoding::DescriptorEncoder;

use super::family::counter;
use super::samples::{Family, LabelSets};
use crate::compile::Compiled;
use crate::report::{Count, Counters};

/// All contracts of a table with their counters, read once, so that the families of a scrape agree with each other.
pub(super) struct Contracts {
    rows: Vec<Row>,
    drops: Vec<Drops>,
}

/// One contract; compact, because there may be 100,000.
struct Row {
    number: u32,
    offered: Amount,
    conforming: Amount,
    nonconforming: Amount,
    remarked: Amount,
    conforming_dropped: Amount,
}

/// What a contract lost for one reason; few of the contracts have any.
struct Drops {
    /// Place among the rows.
    row: usize,
    reason: DropReason,
    amount: Amount,
}

impl Contracts {
    pub(super) fn read(compiled: &Compiled) -> Self {
        let cells = &compiled.table.cells;
        let mut drops = Vec::new();
        let rows = compiled.numbered().enumerate().map(|(row, (number, _))| {
            let slot = compiled.contract(number).slot;
            // What was judged is read after what became of it, so that the latter never seems larger.
            for reason in DropReason::ALL {
                let of_worker = |worker| cells.of(worker).excess(slot).dropped(reason).get();
                let amount = (0..cells.workers()).map(of_worker).fold(Amount::default(), Add::add);
                if amount.packets > 0 {
                    drops.push(Drops { row, reason, amount });
                }
            }
            Row::read(number as u32, cells, slot)
        });
        Self {
            rows: rows.collect(),
            drops,
        }
    }

    /// Writes one family after the other, as OpenMetrics wants it.
    pub(super) fn write(&self, out: &mut impl Write, compiled: &Compiled) -> fmt::Result {
        let mut labels = LabelSets::default();
        for row in &self.rows {
            labels.push(&labels_of(compiled, row));
        }
        for (name, help, amount) in TERMS {
            for (unit, of) in UNITS {
                let mut family = Family::counter(out, &format!("contract_{name}"), help, unit)?;
                for (number, row) in self.rows.iter().enumerate() {
                    family.sample(&[labels.get(number)], of(amount(row)))?;
                }
            }
        }
        for (unit, of) in UNITS {
            let help = "Dropped, by reason; a reason is there once it has happened";
            let mut family = Family::counter(out, "contract_dropped", help, unit)?;
            for drops in &self.drops {
                let labels = [labels.get(drops.row), ",reason=\"", drops.reason.name(), "\""];
                family.sample(&labels, of(drops.amount))?;
            }
        }
        let help = "Committed rate of the contract in bytes of the counted layer";
        let mut family = Family::gauge(out, "contract_rate", help, Some("bytes_per_second"))?;
        for (number, row) in self.rows.iter().enumerate() {
            family.sample(&[labels.get(number)], rate_bytes(compiled, row))?;
        }
        let help = "Whether the contract is within its period; outside it judges nothing";
        let mut family = Family::gauge(out, "contract_active", help, None)?;
        for (number, row) in self.rows.iter().enumerate() {
            let active = compiled.is_active(row.number as usize);
            family.sample(&[labels.get(number)], f64::from(u8::from(active)))?;
        }
        Ok(())
    }
}

/// What is counted of every contract.
const TERMS: [Term<Row, Amount>; 5] = [
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

impl Row {
    /// Sums a slot over all workers. Nonconforming is read after remarked, so that the latter never seems larger.
    fn read(number: u32, cells: &Cells, slot: SlotId) -> Self {
        let mut row = Self {
            number,
            offered: Amount::default(),
            conforming: Amount::default(),
            nonconforming: Amount::default(),
            remarked: Amount::default(),
            conforming_dropped: Amount::default(),
        };
        for worker in (0..cells.workers()).map(|worker| cells.of(worker)) {
            let (cell, excess) = (worker.cell(slot), worker.excess(slot));
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
fn labels_of<'c>(compiled: &'c Compiled, row: &Row) -> [(&'static str, &'c str); 4] {
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

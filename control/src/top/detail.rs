//! One row in full: what the table has no room for.

use super::board::{Board, Row};
use super::table::{label, short_bits, sparkline};
use crate::report::Count;
use crate::status::{bits, cut};

/// The lines, none wider than `width`.
pub(super) fn lines(row: Option<&Row>, board: &Board, width: usize, ascii: bool) -> Vec<String> {
    let Some(row) = row else {
        return vec![cut(
            "it is gone from the table, or from what the appliance sends",
            width,
        )];
    };
    let mut lines = vec![format!("{}  {}  {}", label(row), row.name.class, row.name.direction)];
    if let Some(bps) = row.entitled_bps {
        let when = if row.active { "" } else { ", outside its period" };
        lines.push(format!("entitled    {}{when}", bits(bps)));
    }
    if let (Some(rates), Some(entitled)) = (row.rates, row.entitled_bps) {
        let share = |bps: f64| bps / (entitled as f64) * 100.0;
        let (offered, conforming) = (share(rates.offered_bps), share(rates.conforming_bps));
        lines.push(format!(
            "of that     offered {offered:.1} %, conforming {conforming:.1} %"
        ));
    }
    if let Some(tokens) = row.tokens {
        let second = tokens
            .second
            .map_or(String::new(), |bytes| format!(", second {bytes} bytes"));
        lines.push(format!("bucket      {} bytes{second}", tokens.committed));
    }
    if let Some(rates) = row.rates {
        lines.push(format!(
            "now         offered {} conforming {} excess {} dropped {}",
            short_bits(rates.offered_bps),
            short_bits(rates.conforming_bps),
            short_bits(rates.excess_bps),
            short_bits(rates.dropped_bps)
        ));
    }
    let counters = &row.counters;
    let counts = [
        ("offered", counters.offered),
        ("conforming", counters.conforming),
        ("excess", counters.nonconforming),
        ("remarked", counters.remarked),
    ];
    lines.extend(counts.map(|(name, count)| count_line(name, count)));
    let dropped = counters.dropped.iter();
    lines.extend(dropped.map(|(reason, count)| count_line(&format!("dropped, {reason}"), *count)));
    if !row.past.is_empty() {
        let highest = row.past.iter().copied().fold(0.0, f64::max);
        let seconds = board.interval.unwrap_or(1.0) * row.past.len() as f64;
        lines.push(format!("past {seconds:.0} s, at most {}", short_bits(highest)));
        lines.push(sparkline(&row.past, row.past.len().min(width), ascii));
    }
    lines.iter().map(|line| cut(line, width)).collect()
}

fn count_line(name: &str, count: Count) -> String {
    format!("{name:<24}{:>16} packets {:>20} bytes", count.packets, count.bytes)
}

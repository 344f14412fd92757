//! Tables of results. Each answers `None` where the report has nothing for it.

use super::Report;
use super::result::{LatencyRow, ServiceRow, ratio};
use super::table::{Cell, Table};
use super::units::{self, NONE, bps, count, maybe, nanoseconds, percent, pps, seconds};

pub(super) fn throughput(report: &Report) -> Option<Table> {
    let mut table = Table::new(
        "Throughput by frame size and goal",
        &[
            "Frame",
            "Goal",
            ">Loss ≤",
            ">Lower bound",
            ">Upper bound",
            ">Throughput",
            ">Layer 1",
            ">Trials",
        ],
    );
    for row in &report.throughput {
        for goal in &row.goals {
            table.row([
                row.frame.as_str().into(),
                goal.name.as_str().into(),
                percent(goal.loss_ratio).into(),
                maybe(goal.lower_pps, pps).into(),
                maybe(goal.upper_pps, pps).into(),
                maybe(goal.throughput_pps, pps).into(),
                maybe(goal.l1_bps, bps).into(),
                row.trials.len().to_string().into(),
            ]);
        }
    }
    table.if_any()
}

/// Every trial of every search.
pub(super) fn trials(report: &Report) -> Option<Table> {
    let mut table = Table::new(
        "Trials",
        &[
            "Frame",
            "Method",
            ">Load",
            ">Duration",
            ">Sent",
            ">Lost",
            ">Loss",
            "Valid",
        ],
    );
    for row in &report.throughput {
        for trial in &row.trials {
            table.row([
                row.frame.as_str().into(),
                row.method.name().into(),
                pps(trial.load_pps).into(),
                seconds(trial.seconds).into(),
                count(trial.sent).into(),
                count(trial.lost).into(),
                maybe(trial.loss_ratio(), percent).into(),
                if trial.valid { "yes" } else { "no: the generator lagged" }.into(),
            ]);
        }
    }
    table.if_any()
}

pub(super) fn latency(report: &Report) -> Option<Table> {
    let mut table = Table::new(
        "Latency by load",
        &[
            "Load",
            "+pps",
            "Frame",
            ">min",
            ">50 %",
            ">90 %",
            ">99 %",
            ">99.9 %",
            ">99.99 %",
            ">99.9999 %",
            ">max",
        ],
    );
    for row in &report.latency {
        let all = row.percentiles;
        table.row([
            row.label.as_str().into(),
            pps(row.load_pps).into(),
            row.frame.as_str().into(),
            known(row, 1, all.min),
            known(row, 2, all.p50),
            known(row, 10, all.p90),
            known(row, 100, all.p99),
            known(row, 1_000, all.p99_9),
            known(row, 10_000, all.p99_99),
            known(row, 1_000_000, all.p99_9999),
            known(row, 1, all.max),
        ]);
    }
    table.if_any()
}

/// The percentile that one packet in `one_in` exceeds is only known from so many packets: of fewer it is the maximum, whatever
/// the device does.
fn known(row: &LatencyRow, one_in: u64, ns: u64) -> Cell {
    if row.packets < one_in {
        NONE.into()
    } else {
        nanoseconds(ns).into()
    }
}

pub(super) fn services(report: &Report) -> Option<Table> {
    let mut table = Table::new(
        "Loss by service",
        &[
            "Service",
            "Stream",
            ">Offered",
            ">× contract",
            ">Sent",
            ">Received",
            ">Lost",
            ">Loss",
        ],
    );
    for row in &report.services {
        let loss = ratio(row.lost, row.sent);
        table.row([
            row.service.as_str().into(),
            row.stream.as_str().into(),
            bps(row.offered_bps).into(),
            maybe(row.multiple, units::number).into(),
            count(row.sent).into(),
            count(row.received).into(),
            count(row.lost).into(),
            Cell::bar(maybe(loss, percent), loss),
        ]);
    }
    table.if_any()
}

/// The rest of what is known of services: one table would be too wide for a terminal.
pub(super) fn service_quality(report: &Report) -> Option<Table> {
    let mut table = Table::new(
        "Order and latency by service",
        &[
            "Service",
            "Stream",
            ">Reordered",
            ">Duplicated",
            ">50 %",
            ">99 %",
            ">99.9 %",
            ">max",
            ">Jitter",
        ],
    );
    for row in &report.services {
        let at = |pick: fn(&super::ServiceLatency) -> u64| -> Cell {
            maybe(row.latency.as_ref(), |latency| nanoseconds(pick(latency))).into()
        };
        table.row([
            row.service.as_str().into(),
            row.stream.as_str().into(),
            count(row.reordered).into(),
            count(row.duplicated).into(),
            at(|latency| latency.p50),
            at(|latency| latency.p99),
            at(|latency| latency.p99_9),
            at(|latency| latency.max),
            maybe(row.jitter_ns, nanoseconds).into(),
        ]);
    }
    table.if_any()
}

/// How many packets left with which DSCP, for each DSCP they came with: rising, all services together.
pub(super) fn dscp_counts(services: &[ServiceRow]) -> Vec<(u8, u8, u64)> {
    let mut counts = std::collections::BTreeMap::new();
    for row in services {
        for out in row.dscp_out.iter().filter(|out| out.packets > 0) {
            let packets: &mut u64 = counts.entry((row.dscp_in, out.dscp)).or_default();
            *packets = packets.saturating_add(out.packets);
        }
    }
    counts
        .into_iter()
        .map(|((came, left), packets)| (came, left, packets))
        .collect()
}

/// A DSCP with its usual name (RFC 2474, 2597, 3246, 5865, 8622).
pub(super) fn dscp_name(dscp: u8) -> String {
    let name = match dscp {
        0 => "DF",
        1 => "LE",
        44 => "VA",
        46 => "EF",
        8 | 16 | 24 | 32 | 40 | 48 | 56 => return format!("{dscp} CS{}", dscp / 8),
        10..=38 if dscp.is_multiple_of(2) && (1..=3).contains(&(dscp % 8 / 2)) => {
            return format!("{dscp} AF{}{}", dscp / 8, dscp % 8 / 2);
        }
        _ => return dscp.to_string(),
    };
    format!("{dscp} {name}")
}

/// The matrix as rows, for a terminal.
pub(super) fn dscp(report: &Report) -> Option<Table> {
    let counts = dscp_counts(&report.services);
    let mut table = Table::new(
        "DSCP from end to end",
        &[
            ">Sent with",
            ">Arrived with",
            ">Packets",
            ">Of what was sent with it and came",
        ],
    );
    for &(came, left, packets) in &counts {
        let all = counts
            .iter()
            .filter(|count| count.0 == came)
            .fold(0u64, |sum, count| sum.saturating_add(count.2));
        table.row([
            dscp_name(came).into(),
            dscp_name(left).into(),
            count(packets).into(),
            maybe(ratio(packets, all), percent).into(),
        ]);
    }
    table.if_any()
}

pub(super) fn back_to_back(report: &Report) -> Option<Table> {
    let mut table = Table::new(
        "Back-to-back bursts (RFC 9004)",
        &[
            "Frame",
            ">Runs",
            ">Mean burst",
            ">Least",
            ">Most",
            ">Deviation",
            ">Within at",
            ">Duration",
            ">Buffer",
        ],
    );
    for row in &report.back_to_back {
        table.row([
            row.frame.as_str().into(),
            row.repetitions.to_string().into(),
            units::number(row.mean_packets).into(),
            count(row.min_packets).into(),
            count(row.max_packets).into(),
            units::number(row.deviation_packets).into(),
            pps(row.burst_pps).into(),
            seconds(row.seconds).into(),
            maybe(row.corrected_buffer_seconds, seconds).into(),
        ]);
    }
    table.if_any()
}

pub(super) fn reconfiguration(report: &Report) -> Option<Table> {
    let mut table = Table::new(
        "Blocked by a change of configuration",
        &[
            "Change", "Frame", ">Load", ">Changes", ">Sent", ">Lost", ">Blocked", ">Each",
        ],
    );
    for row in &report.reconfiguration {
        table.row([
            row.change.as_str().into(),
            row.frame.as_str().into(),
            pps(row.load_pps).into(),
            count(row.changes).into(),
            count(row.sent).into(),
            count(row.lost).into(),
            seconds(row.blocked_seconds).into(),
            if row.changes == 0 {
                NONE.into()
            } else {
                seconds(row.blocked_seconds / row.changes as f64).into()
            },
        ]);
    }
    table.if_any()
}

pub(super) fn soak(report: &Report) -> Option<Table> {
    let soak = report.soak.as_ref()?;
    let mut table = Table::new("Long run", &["Frame", ">Load", ">Duration", ">Sent", ">Lost", ">Loss"]);
    table.row([
        soak.frame.as_str().into(),
        pps(soak.load_pps).into(),
        seconds(soak.seconds).into(),
        count(soak.sent).into(),
        count(soak.lost).into(),
        maybe(ratio(soak.lost, soak.sent), percent).into(),
    ]);
    Some(table)
}

pub(super) fn replay(report: &Report) -> Option<Table> {
    let replay = report.replay.as_ref()?;
    let mut table = Table::new(
        "Capture sent again",
        &["File", "Timing", ">Packets", ">Loops", ">99 % of gap errors up to"],
    );
    table.row([
        replay.file.as_str().into(),
        replay.timing.as_str().into(),
        count(replay.packets).into(),
        count(replay.loops).into(),
        maybe(replay.gap_error_p99_ns, nanoseconds).into(),
    ]);
    Some(table)
}

pub(super) fn gap_errors(report: &Report) -> Option<Table> {
    let mut table = Table::new(
        "Errors of gaps between packets",
        &[">From", ">To below", ">Gaps", ">Share"],
    );
    let buckets = &report.replay.as_ref()?.gap_errors;
    let all = buckets.iter().fold(0u64, |sum, bucket| sum.saturating_add(bucket.gaps));
    for bucket in buckets {
        let share = ratio(bucket.gaps, all);
        table.row([
            units::time_ns(bucket.low_ns as f64).into(),
            units::time_ns(bucket.high_ns as f64).into(),
            count(bucket.gaps).into(),
            Cell::bar(maybe(share, percent), share),
        ]);
    }
    table.if_any()
}

#[cfg(test)]
mod tests {
    use super::super::sample;
    use super::*;

    #[test]
    fn rows_are_as_many_as_the_results() {
        let report = sample::full();
        let goals: usize = report.throughput.iter().map(|row| row.goals.len()).sum();
        assert_eq!(throughput(&report).unwrap().rows.len(), goals);
        assert_eq!(services(&report).unwrap().rows.len(), report.services.len());
        let bare = sample::bare();
        assert!(throughput(&bare).is_none() && latency(&bare).is_none() && services(&bare).is_none());
        assert!(soak(&bare).is_none() && replay(&bare).is_none() && gap_errors(&bare).is_none());
        for table in [throughput(&report), trials(&report), latency(&report), dscp(&report)] {
            let table = table.unwrap();
            assert!(
                table.rows.iter().all(|row| row.len() == table.columns.len()),
                "{}",
                table.title
            );
        }
    }

    #[test]
    fn a_percentile_of_too_few_packets_is_not_told() {
        let mut report = sample::full();
        report.latency.truncate(1);
        report.latency[0].packets = 999;
        let table = latency(&report).unwrap();
        let texts: Vec<&str> = table.rows[0].iter().map(|cell| cell.text.as_str()).collect();
        assert_ne!(texts[6], NONE, "99 %");
        assert_eq!(texts[7], NONE, "99.9 %");
        assert_ne!(texts[10], NONE, "max");
    }

    #[test]
    fn code_points_have_their_names() {
        let names: Vec<String> = [0, 1, 8, 10, 18, 26, 34, 38, 44, 46, 48, 3, 63, 9, 255]
            .map(dscp_name)
            .into();
        let expected = "0 DF|1 LE|8 CS1|10 AF11|18 AF21|26 AF31|34 AF41|38 AF43|44 VA|46 EF|48 CS6|3|63|9|255";
        assert_eq!(names.join("|"), expected);
    }
}

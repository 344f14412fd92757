//! Which tables a report has. Each answers `None` where the report has nothing for it.

use super::result::{LatencyRow, ServiceRow, ratio};
use super::table::{Cell, Table};
use super::units::{self, NONE, bps, count, maybe, nanoseconds, percent, pps, seconds};
use super::{Machine, Report};

pub(super) fn throughput(report: &Report) -> Option<Table> {
    let mut table = Table::new(
        "Throughput",
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
        "Latency",
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
        "Services",
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
            ">Corrupted",
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
            count(row.corrupted).into(),
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
        for out in &row.dscp_out {
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
        10..=38 if dscp % 2 == 0 && (1..=3).contains(&(dscp % 8 / 2)) => {
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
        "DSCP",
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
        "Reconfiguration under load",
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
    let mut table = Table::new("Soak", &["Frame", ">Load", ">Duration", ">Sent", ">Lost", ">Loss"]);
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
        "Replay",
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

pub(super) fn calibration(report: &Report) -> Option<Table> {
    let mut table = Table::new(
        "Rate asked for and rate sent",
        &[
            ">Asked",
            ">Sent",
            ">Error",
            ">Over",
            ">Late 50 %",
            ">99 %",
            ">99.9 %",
            ">max",
        ],
    );
    for row in &report.calibration {
        table.row([
            pps(row.asked_pps).into(),
            pps(row.achieved_pps).into(),
            format!("{} ppm", units::number(row.error_ppm)).into(),
            seconds(row.seconds).into(),
            nanoseconds(row.lateness_p50_ns).into(),
            nanoseconds(row.lateness_p99_ns).into(),
            nanoseconds(row.lateness_p99_9_ns).into(),
            nanoseconds(row.lateness_max_ns).into(),
        ]);
    }
    table.if_any()
}

pub(super) fn streams(report: &Report) -> Option<Table> {
    let mut table = Table::new(
        "Traffic",
        &[
            "Stream",
            "Protocol",
            "Frames",
            ">Mean",
            ">Flows",
            ">DSCP",
            ">× contract",
            ">Share",
        ],
    );
    for row in &report.setup.streams {
        table.row([
            row.name.as_str().into(),
            row.protocol.as_str().into(),
            row.frames.as_str().into(),
            format!("{} B", units::number(row.mean_frame_bytes)).into(),
            count(row.flows).into(),
            dscp_name(row.dscp).into(),
            maybe(row.multiple, units::number).into(),
            percent(row.share).into(),
        ]);
    }
    table.if_any()
}

/// Pairs of what and its value, one table for each interface.
pub(super) fn interfaces(report: &Report) -> Vec<Table> {
    let unsaid = |text: &str| {
        if text.is_empty() {
            "not stated".to_owned()
        } else {
            text.to_owned()
        }
    };
    let one = |interface: &super::Interface| {
        let mut table = pairs("Interface");
        let mut pair = |name: &str, value: String| table.row([name.into(), value.into()]);
        pair("Interface", format!("{} ({})", interface.name, interface.role));
        pair(
            "Driver",
            format!("{} {}", unsaid(&interface.driver), interface.driver_version)
                .trim_end()
                .to_owned(),
        );
        pair("Firmware", unsaid(&interface.firmware));
        pair("Bus", unsaid(&interface.bus));
        pair("MTU", interface.mtu.to_string());
        pair(
            "Queues",
            format!("{} rx, {} tx", interface.rx_queues, interface.tx_queues),
        );
        let rings = interface.rings;
        pair(
            "Device rings",
            maybe(rings, |r| {
                format!("rx {} of {}, tx {} of {}", r.rx, r.rx_max, r.tx, r.tx_max)
            }),
        );
        pair(
            "Coalescing",
            maybe(interface.coalescing, |waits| {
                let adaptive = if waits.adaptive { ", adaptive" } else { "" };
                format!(
                    "rx {} µs, {} packets; tx {} µs, {} packets{adaptive}",
                    waits.rx_us, waits.rx_packets, waits.tx_us, waits.tx_packets
                )
            }),
        );
        let mode = maybe(interface.zero_copy, |zero| {
            if zero { ", zero-copy" } else { ", copy" }.to_owned()
        });
        let mode = if mode == NONE { String::new() } else { mode };
        pair("XDP", format!("{}{mode}", unsaid(&interface.xdp_mode)));
        let named = |on: bool| -> String {
            let names: Vec<&str> = interface
                .offloads
                .iter()
                .filter(|offload| offload.on == on)
                .map(|offload| offload.name.as_str())
                .collect();
            if names.is_empty() {
                "none".to_owned()
            } else {
                names.join(" ")
            }
        };
        pair("Offloads on", named(true));
        pair("Offloads off", named(false));
        table
    };
    report.setup.interfaces.iter().map(one).collect()
}

/// The run and its sockets.
pub(super) fn setup(report: &Report) -> Table {
    let setup = &report.setup;
    let mut table = pairs("Run");
    let mut pair = |name: &str, value: String| table.row([name.into(), value.into()]);
    pair("Command", report.command.join(" "));
    pair("Seed", report.seed.to_string());
    pair("Began", report.when.clone());
    pair("Took", seconds(report.seconds));
    pair("Engine", setup.engine.clone());
    pair("Between", setup.between.clone());
    pair("Line rate", setup.line_rate_bps.map_or("not stated".to_owned(), bps));
    if let Some(sockets) = setup.sockets {
        pair(
            "UMEM",
            format!(
                "{} frames of {} bytes",
                count(sockets.umem_frames.into()),
                sockets.frame_bytes
            ),
        );
        pair(
            "Socket rings",
            format!(
                "fill {}, completion {}, rx {}, tx {}",
                sockets.fill_ring, sockets.completion_ring, sockets.rx_ring, sockets.tx_ring
            ),
        );
    }
    let cores = |cores: &[u32]| -> String {
        let numbers: Vec<String> = cores.iter().map(u32::to_string).collect();
        if numbers.is_empty() {
            "not pinned".to_owned()
        } else {
            numbers.join(" ")
        }
    };
    pair("Cores that send", cores(&setup.transmit_cores));
    pair("Cores that receive", cores(&setup.receive_cores));
    table
}

/// The computer.
pub(super) fn machine(machine: &Machine) -> Table {
    let mut table = pairs("Machine");
    let mut pair = |name: &str, value: String| table.row([name.into(), value.into()]);
    let unread = || "not readable".to_owned();
    pair("Processor", machine.cpu.clone());
    pair("Cores", machine.cores.to_string());
    pair("Governor", machine.governor.clone().unwrap_or_else(unread));
    pair("Memory", units::bytes(machine.memory_bytes));
    pair(
        "Hypervisor",
        machine.hypervisor.clone().unwrap_or_else(|| "none seen".to_owned()),
    );
    pair("Kernel", machine.kernel.clone());
    if !machine.kernel_options.is_empty() {
        pair("Kernel options", machine.kernel_options.join(" "));
    }
    pair("Clock source", machine.clock_source.clone().unwrap_or_else(unread));
    pair("Empty system call", units::time_ns(machine.empty_system_call_ns));
    let mitigations: Vec<String> = machine
        .mitigations
        .iter()
        .map(|mitigation| format!("{}: {}", mitigation.name, mitigation.state))
        .collect();
    let none = mitigations.is_empty();
    pair(
        "Mitigations",
        if none {
            "none".to_owned()
        } else {
            mitigations.join("; ")
        },
    );
    pair("pktgen", machine.pktgen.clone());
    table
}

fn pairs(title: &'static str) -> Table {
    Table::new(title, &["What", "Value"])
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
        assert_eq!(interfaces(&report).len(), 2);
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

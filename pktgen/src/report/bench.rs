//! Tables of what the results depend on: the generator's accuracy, the traffic, sockets, interfaces, the computer.

use super::table::Table;
use super::tables::dscp_name;
use super::units::{self, bps, count, maybe, nanoseconds, percent, pps, seconds};
use super::{Interface, Machine, OffloadState, Report};

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
    report.setup.interfaces.iter().map(interface).collect()
}

fn interface(interface: &Interface) -> Table {
    let mut table = pairs("Interface");
    let mut pair = |name: &str, value: String| table.row([name.into(), value.into()]);
    pair("Interface", format!("{} ({})", interface.name, interface.role));
    let driver = format!("{} {}", stated(&interface.driver), interface.driver_version);
    pair("Driver", driver.trim_end().to_owned());
    pair("Firmware", stated(&interface.firmware));
    pair("Bus", stated(&interface.bus));
    pair("MTU", interface.mtu.to_string());
    pair(
        "Queues",
        format!("{} rx, {} tx", interface.rx_queues, interface.tx_queues),
    );
    let rings = maybe(interface.rings, |rings| {
        format!(
            "rx {} of {}, tx {} of {}",
            rings.rx, rings.rx_max, rings.tx, rings.tx_max
        )
    });
    pair("Device rings", rings);
    let coalescing = maybe(interface.coalescing, |waits| {
        let adaptive = if waits.adaptive { ", adaptive" } else { "" };
        format!(
            "rx {} µs, {} packets; tx {} µs, {} packets{adaptive}",
            waits.rx_us, waits.rx_packets, waits.tx_us, waits.tx_packets
        )
    });
    pair("Coalescing", coalescing);
    let copying = match interface.zero_copy {
        Some(true) => ", zero-copy",
        Some(false) => ", copy",
        None => "",
    };
    pair("XDP", format!("{}{copying}", stated(&interface.xdp_mode)));
    pair("Offloads on", offloads(&interface.offloads, true));
    pair("Offloads off", offloads(&interface.offloads, false));
    table
}

fn stated(text: &str) -> String {
    if text.is_empty() { "not stated" } else { text }.to_owned()
}

fn offloads(all: &[OffloadState], on: bool) -> String {
    let names: Vec<&str> = all.iter().filter(|one| one.on == on).map(|one| &*one.name).collect();
    if names.is_empty() {
        "none".to_owned()
    } else {
        names.join(" ")
    }
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

    fn value<'a>(table: &'a Table, name: &str) -> &'a str {
        let row = table.rows.iter().find(|row| row[0].text == name).expect(name);
        &row[1].text
    }

    #[test]
    fn an_interface_tells_what_it_knows() {
        let report = sample::full();
        let tables = interfaces(&report);
        assert_eq!(tables.len(), 2);
        assert_eq!(value(&tables[0], "Driver"), "veth 1.0");
        assert_eq!(value(&tables[0], "Device rings"), "rx 512 of 4096, tx 512 of 4096");
        assert_eq!(value(&tables[0], "XDP"), "driver, copy");
        assert_eq!(value(&tables[0], "Offloads on"), "tso gso");
        let silent = interface(&Interface::default());
        assert_eq!(value(&silent, "Driver"), "not stated");
        assert_eq!(value(&silent, "Device rings"), units::NONE);
        assert_eq!(value(&silent, "Offloads off"), "none");
    }

    #[test]
    fn a_machine_and_a_run_tell_what_they_know() {
        let report = sample::full();
        assert_eq!(value(&machine(&report.machine), "Empty system call"), "131 ns");
        assert_eq!(value(&setup(&report), "Line rate"), "10.00 Gbit/s");
        let bare = sample::bare();
        assert_eq!(value(&setup(&bare), "Line rate"), "not stated");
        assert_eq!(value(&setup(&bare), "Cores that send"), "not pinned");
        assert_eq!(value(&machine(&bare.machine), "Hypervisor"), "none seen");
        assert!(streams(&bare).is_none() && calibration(&bare).is_none());
    }
}

//! `pktgen`: the packet generator on the command line. Today it floods one interface with paced UDP, and sends captures.

#![deny(unsafe_code)]

mod command;

use std::process::ExitCode;
use std::sync::atomic::AtomicBool;

use clap::{Parser, Subcommand};
use dataplane::clock::{Clock, MonotonicClock, Nanos};
use ipnet::IpNet;
use pktgen::flow::Stream;
use pktgen::transmit::{Remote, Transmitter};

/// Sends paced UDP packets and captures by AF_XDP. Measuring what arrives is done by the library, not yet by this program.
#[derive(Parser)]
#[command(name = "pktgen", version, about)]
struct Arguments {
    #[command(subcommand)]
    command: Subcommands,
}

#[derive(Subcommand)]
enum Subcommands {
    /// Sends one stream of UDP packets out of one queue of an interface, and reports the rate achieved.
    Flood(Flood),
    /// Sends a pcap or pcapng capture: at its own gaps, at another speed or a fixed rate, looped, with other addresses.
    ///
    /// Ends with the errors of the gaps as a histogram. Exit status 1 if the rate was not held. Needs CAP_NET_RAW.
    Replay(Box<command::replay::Arguments>),
}

#[derive(clap::Args)]
struct Flood {
    /// The interface to send on
    #[arg(long)]
    interface: String,
    /// The queue of the interface
    #[arg(long, default_value_t = 0)]
    queue: u32,
    /// Bits of IP packets per second
    #[arg(long)]
    rate: u64,
    /// Bytes of a packet from the Ethernet header on, without FCS
    #[arg(long, default_value_t = 60)]
    size: u16,
    /// Distinct combinations of addresses and ports
    #[arg(long, default_value_t = 1000)]
    flows: u32,
    /// How long to send
    #[arg(long, default_value_t = 10)]
    seconds: u64,
    /// Where packets come from
    #[arg(long, default_value = "198.18.0.0/16")]
    source: IpNet,
    /// Where packets go
    #[arg(long, default_value = "198.19.0.0/16")]
    destination: IpNet,
    /// Ethernet address packets go to
    #[arg(long, default_value = "ff:ff:ff:ff:ff:ff", value_parser = command::parse_mac)]
    destination_mac: [u8; 6],
    /// DSCP, 0 to 63
    #[arg(long, default_value_t = 0)]
    dscp: u8,
    /// Same seed, same packets at the same instants
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Report as JSON
    #[arg(long)]
    json: bool,
}

/// What was sent.
#[derive(serde::Serialize)]
struct Report {
    packets: u64,
    ip_bytes: u64,
    /// Due, but never made because the sender was too late.
    skipped_packets: u64,
    /// Made, but refused by the device.
    dropped_by_device: u64,
    seconds: f64,
    /// Bits of IP packets per second that were given to the device.
    rate_bps: f64,
    packets_per_second: f64,
    wanted_bps: u64,
}

fn main() -> ExitCode {
    let flood = match Arguments::parse().command {
        Subcommands::Flood(flood) => flood,
        Subcommands::Replay(arguments) => return command::replay::run(&arguments),
    };
    match run(&flood) {
        Ok(report) => print(&report, flood.json),
        Err(error) => {
            eprintln!("pktgen: {error}");
            ExitCode::FAILURE
        }
    }
}

fn run(flood: &Flood) -> Result<Report, Box<dyn std::error::Error>> {
    let stream = Stream {
        id: 0,
        source: flood.source,
        destination: flood.destination,
        source_ports: 1024..=65535,
        // The discard port.
        destination_ports: 9..=9,
        dscp: flood.dscp,
        frame_bytes: flood.size,
        flows: flood.flows,
        vlan: None,
        source_mac: af_xdp::device::mac(&flood.interface)?,
        destination_mac: flood.destination_mac,
        rate_bps: flood.rate,
    };
    let clock = MonotonicClock;
    // Binding may take a while; the schedule begins after it.
    let start = clock.now().plus(Nanos(300_000_000));
    let (mut transmitter, remote) =
        Transmitter::new(&flood.interface, flood.queue, &[stream], flood.seed, start, &clock)?;
    let end = start.plus(Nanos(flood.seconds.saturating_mul(1_000_000_000)));
    transmitter.run(end, &AtomicBool::new(false));
    Ok(report(flood, &remote, clock.now().since(start)))
}

fn report(flood: &Flood, remote: &Remote, took: Nanos) -> Report {
    let sent = remote.sent().first().copied().unwrap_or_default();
    let dropped = remote.dropped_by_device();
    let seconds = took.0 as f64 / 1e9;
    let bytes_each = sent.ip_bytes.checked_div(sent.packets).unwrap_or(0);
    let left = sent.packets.saturating_sub(dropped);
    Report {
        packets: sent.packets,
        ip_bytes: sent.ip_bytes,
        skipped_packets: sent.skipped,
        dropped_by_device: dropped,
        seconds,
        rate_bps: (left * bytes_each * 8) as f64 / seconds,
        packets_per_second: left as f64 / seconds,
        wanted_bps: flood.rate,
    }
}

fn print(report: &Report, json: bool) -> ExitCode {
    if json {
        match serde_json::to_string_pretty(report) {
            Ok(text) => println!("{text}"),
            Err(error) => {
                eprintln!("pktgen: {error}");
                return ExitCode::FAILURE;
            }
        }
    } else {
        println!(
            "{} packets in {:.3} s: {:.0} bit/s of {} wanted, {:.0} packets/s; {} skipped, {} refused by the device",
            report.packets,
            report.seconds,
            report.rate_bps,
            report.wanted_bps,
            report.packets_per_second,
            report.skipped_packets,
            report.dropped_by_device
        );
    }
    ExitCode::SUCCESS
}

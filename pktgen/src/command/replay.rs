//! `pktgen replay`: sends a capture.

use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use dataplane::clock::{MonotonicClock, Nanos};
use pktgen::flow::Vlan;
use pktgen::replay::{
    AddressRule, CutPackets, Layer, PacketSink, PortRule, Repeat, Replay, ReplayOptions, Rewrite, Side, Timing,
    VlanChange, XdpSink,
};

use super::parse_mac;

/// What to send, and how.
#[derive(clap::Args)]
pub(crate) struct Arguments {
    /// The capture: pcap or pcapng, Ethernet
    #[arg(value_name = "CAPTURE")]
    capture: PathBuf,
    /// The interface to send on
    #[arg(long)]
    interface: String,
    /// The queue of the interface
    #[arg(long, default_value_t = 0)]
    queue: u32,
    /// The core to send from [default: wherever the scheduler likes]
    #[arg(long, value_name = "N")]
    core: Option<usize>,
    #[command(flatten)]
    timing: TimingArguments,
    #[command(flatten)]
    repeat: RepeatArguments,
    #[command(flatten)]
    rewrite: RewriteArguments,
    /// Put zeros in place of what the capture has cut off, instead of skipping such packets
    #[arg(long)]
    pad: bool,
    /// Finish checksums that the captured sender had left to its interface (always done for rewritten packets)
    #[arg(long)]
    finish_checksums: bool,
    /// Of a broken capture, send what comes before the error
    #[arg(long)]
    until_error: bool,
    /// Memory for packets in MiB; a larger capture is read while it is sent
    #[arg(long, value_name = "MIB", default_value_t = 512)]
    memory: u64,
    /// Report as JSON
    #[arg(long)]
    json: bool,
}

/// How fast; without any of these at the capture's own gaps.
#[derive(clap::Args)]
#[group(multiple = false)]
struct TimingArguments {
    /// The capture's gaps divided by this: 2.0 is twice as fast
    #[arg(long, value_name = "FACTOR")]
    speed: Option<f64>,
    /// A fixed rate: packets per second, such as 1.5M
    #[arg(long, value_name = "PACKETS/S", value_parser = parse_number)]
    pps: Option<f64>,
    /// A fixed rate: bits per second with preamble, FCS and gap (layer 1), such as 10G
    #[arg(long, value_name = "BIT/S", value_parser = parse_number)]
    rate_l1: Option<f64>,
    /// A fixed rate: bits per second of frames with FCS (layer 2)
    #[arg(long, value_name = "BIT/S", value_parser = parse_number)]
    rate_l2: Option<f64>,
    /// A fixed rate: bits per second from the IP header on (layer 3)
    #[arg(long, value_name = "BIT/S", value_parser = parse_number)]
    rate_l3: Option<f64>,
    /// As fast as possible
    #[arg(long)]
    max: bool,
}

/// How often; without any of these once.
#[derive(clap::Args)]
struct RepeatArguments {
    /// Send the capture N times; 0: until --duration ends, or until Ctrl-C
    #[arg(long, value_name = "N")]
    loops: Option<u64>,
    /// Send the capture again and again for this long, such as 10s; with --loops N whichever ends first
    #[arg(long, value_name = "TIME", value_parser = parse_duration)]
    duration: Option<Duration>,
    /// From the last packet of a loop to the next one's first, such as 1ms [default: the capture's mean gap]
    #[arg(long, value_name = "TIME", value_parser = parse_duration)]
    loop_gap: Option<Duration>,
}

/// What changes in packets.
#[derive(clap::Args)]
struct RewriteArguments {
    /// Ethernet source address of all packets
    #[arg(long, value_name = "MAC", value_parser = parse_mac)]
    source_mac: Option<[u8; 6]>,
    /// Ethernet destination address of all packets
    #[arg(long, value_name = "MAC", value_parser = parse_mac)]
    destination_mac: Option<[u8; 6]>,
    /// Map a prefix to another one, keeping host bits: 10.0.0.0/8=172.16.0.0/8; the first that fits is taken
    #[arg(long, value_name = "FROM=TO")]
    map: Vec<AddressRule>,
    /// As --map, for source addresses only; before those of --map
    #[arg(long, value_name = "FROM=TO")]
    map_source: Vec<AddressRule>,
    /// As --map, for destination addresses only; before those of --map
    #[arg(long, value_name = "FROM=TO")]
    map_destination: Vec<AddressRule>,
    /// Map a TCP or UDP port to another one: 80=8080
    #[arg(long, value_name = "FROM=TO")]
    map_port: Vec<PortRule>,
    /// Take VLAN tags off
    #[arg(long, conflicts_with = "vlan")]
    strip_vlan: bool,
    /// Set VLAN and priority of the outer tag, adding one where there is none
    #[arg(long, value_name = "ID[:PCP]", value_parser = parse_vlan)]
    vlan: Option<Vlan>,
}

impl TimingArguments {
    fn timing(&self) -> Timing {
        let layers = [
            (self.rate_l1, Layer::L1),
            (self.rate_l2, Layer::L2),
            (self.rate_l3, Layer::L3),
        ];
        let bits = layers.into_iter().find_map(|(rate, layer)| Some((rate?, layer)));
        match (self.pps, bits, self.max) {
            (Some(rate), _, _) => Timing::PacketsPerSecond(rate),
            (_, Some((rate, layer)), _) => Timing::BitsPerSecond { rate, layer },
            (_, _, true) => Timing::AsFastAsPossible,
            _ => Timing::Original {
                speed: self.speed.unwrap_or(1.0),
            },
        }
    }
}

impl RepeatArguments {
    fn repeat(&self) -> Repeat {
        Repeat {
            times: match (self.loops, self.duration) {
                (Some(0), _) | (None, Some(_)) => None,
                (Some(loops), _) => Some(loops),
                (None, None) => Some(1),
            },
            duration: self.duration,
            gap: self.loop_gap.map(nanos),
        }
    }
}

impl RewriteArguments {
    fn rewrite(&self) -> Rewrite {
        let sided = |rules: &[AddressRule], side| rules.iter().map(|rule| rule.only(side)).collect::<Vec<_>>();
        let mut addresses = sided(&self.map_source, Side::Source);
        addresses.extend(sided(&self.map_destination, Side::Destination));
        addresses.extend(&self.map);
        Rewrite {
            source_mac: self.source_mac,
            destination_mac: self.destination_mac,
            vlan: match (self.strip_vlan, self.vlan) {
                (true, _) => VlanChange::Strip,
                (_, Some(vlan)) => VlanChange::Set(vlan),
                _ => VlanChange::Keep,
            },
            addresses,
            ports: self.map_port.clone(),
        }
    }
}

/// Sends, and prints what was sent. Failure if that was not what was asked for.
pub(crate) fn run(arguments: &Arguments) -> ExitCode {
    match send(arguments) {
        Ok(complaints) if complaints.is_empty() => ExitCode::SUCCESS,
        Ok(complaints) => {
            for complaint in complaints {
                eprintln!("pktgen: {complaint}");
            }
            ExitCode::FAILURE
        }
        Err(error) => {
            eprintln!("pktgen: {error}");
            ExitCode::FAILURE
        }
    }
}

fn send(arguments: &Arguments) -> Result<Vec<String>, Box<dyn std::error::Error>> {
    let options = ReplayOptions {
        capture: arguments.capture.clone(),
        timing: arguments.timing.timing(),
        repeat: arguments.repeat.repeat(),
        rewrite: arguments.rewrite.rewrite(),
        cut: if arguments.pad {
            CutPackets::Pad
        } else {
            CutPackets::Skip
        },
        finish_checksums: arguments.finish_checksums,
        until_error: arguments.until_error,
        memory_bytes_max: arguments.memory.saturating_mul(1 << 20),
    };
    if let Some(core) = arguments.core
        && !core_affinity::set_for_current(core_affinity::CoreId { id: core })
    {
        return Err(format!("cannot send from core {core}: there is no such core, or it is not ours to use").into());
    }
    let mut sink = XdpSink::bind(&arguments.interface, arguments.queue)?;
    let replay = Replay::open(&options, sink.limits())?;
    let stop = Arc::new(AtomicBool::new(false));
    for signal in [signal_hook::consts::SIGINT, signal_hook::consts::SIGTERM] {
        signal_hook::flag::register(signal, Arc::clone(&stop))?;
    }
    let result = replay.run(&mut sink, &MonotonicClock, &stop);
    if arguments.json {
        println!("{}", serde_json::to_string_pretty(&result)?);
    } else {
        print!("{}", result.text());
    }
    Ok(result.complaints())
}

/// A number with k, M or G behind it.
fn parse_number(text: &str) -> Result<f64, String> {
    let (digits, unit) = match text.char_indices().last() {
        Some((at, 'k' | 'K')) => (&text[..at], 1e3),
        Some((at, 'M')) => (&text[..at], 1e6),
        Some((at, 'G')) => (&text[..at], 1e9),
        _ => (text, 1.0),
    };
    match digits.trim_end().parse::<f64>() {
        Ok(number) if number > 0.0 && number.is_finite() => Ok(number * unit),
        _ => Err(format!("`{text}` is not a number above 0 such as 250000, 1.5M or 10G")),
    }
}

/// A number with ns, us, ms, s or min behind it.
fn parse_duration(text: &str) -> Result<Duration, String> {
    let units = [("ns", 1e-9), ("us", 1e-6), ("ms", 1e-3), ("min", 60.0), ("s", 1.0)];
    let split = units
        .iter()
        .find_map(|&(name, seconds)| Some((text.strip_suffix(name)?, seconds)));
    let seconds = split.and_then(|(digits, unit)| Some(digits.trim_end().parse::<f64>().ok()? * unit));
    seconds
        .and_then(|seconds| Duration::try_from_secs_f64(seconds).ok())
        .ok_or_else(|| format!("`{text}` is not a time such as 10s, 1.5ms or 20us"))
}

fn parse_vlan(text: &str) -> Result<Vlan, String> {
    let (id, pcp) = text.split_once(':').unwrap_or((text, "0"));
    match (id.parse(), pcp.parse()) {
        (Ok(id @ 0..=4095), Ok(pcp @ 0..=7)) => Ok(Vlan { id, pcp }),
        _ => Err(format!(
            "`{text}` is not ID or ID:PCP with a VLAN of 0 to 4095 and a priority of 0 to 7"
        )),
    }
}

fn nanos(duration: Duration) -> Nanos {
    Nanos(u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX))
}

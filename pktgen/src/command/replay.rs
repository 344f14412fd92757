//! `pktgen replay`: sends a capture.

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use dataplane::clock::{MonotonicClock, Nanos};
use pktgen::console::stop_flag;
use pktgen::rate::Rate;
use pktgen::replay::{
    self, AddressRule, CutPackets, PacketSink, PortRule, Repeat, ReplayOptions, ReplayResult, Rewrite, Side, Timing,
    VlanChange, XdpSink,
};
use pktgen::stream::Vlan;

use super::ends::end;
use super::output::say;
use super::traffic::{mac, vlan};
use super::{Done, Failure, usage};

/// What to send, and how.
#[derive(clap::Args)]
pub(super) struct Replay {
    /// The capture: pcap or pcapng, Ethernet
    #[arg(value_name = "CAPTURE")]
    capture: PathBuf,
    /// Interface to send on
    #[arg(long, value_name = "IF")]
    interface: String,
    /// Its network namespace, as `ip netns` names it [default: this one]
    #[arg(long, value_name = "NAME")]
    netns: Option<String>,
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
    /// A fixed rate whatever the gaps: 10kpps, 5Gbit/s (layer 2), 5Gbit/s@l1; max is as fast as possible
    #[arg(long, value_name = "RATE")]
    rate: Option<Rate>,
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
    #[arg(long, value_name = "MAC", value_parser = mac)]
    source_mac: Option<[u8; 6]>,
    /// Ethernet destination address of all packets
    #[arg(long, value_name = "MAC", value_parser = mac)]
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
    #[arg(long, value_name = "ID[:PCP]", value_parser = vlan)]
    vlan: Option<Vlan>,
}

impl TimingArguments {
    fn timing(&self) -> Result<Timing, Failure> {
        Ok(match self.rate {
            None => Timing::Original {
                speed: self.speed.unwrap_or(1.0),
            },
            Some(Rate::PacketsPerSecond(rate)) => Timing::PacketsPerSecond(rate),
            Some(Rate::BitsPerSecond(rate, layer)) => Timing::BitsPerSecond { rate, layer },
            Some(Rate::Max) => Timing::AsFastAsPossible,
            Some(Rate::Percent(_)) => {
                return Err(usage(
                    "--rate: a replay knows no line rate to take a share of: write 10kpps or 5Gbit/s@l1",
                ));
            }
        })
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

impl Replay {
    /// Sends, and prints what was sent. Failure if that was not what was asked for.
    pub(super) fn run(&self) -> Done {
        let options = ReplayOptions {
            capture: self.capture.clone(),
            timing: self.timing.timing()?,
            repeat: self.repeat.repeat(),
            rewrite: self.rewrite.rewrite(),
            cut: if self.pad { CutPackets::Pad } else { CutPackets::Skip },
            finish_checksums: self.finish_checksums,
            until_error: self.until_error,
            memory_bytes_max: self.memory.saturating_mul(1 << 20),
        };
        let at = end(self.netns.as_deref(), &self.interface)?;
        let stop = stop_flag()?;
        let result = at.namespace.run(|| -> Result<ReplayResult, Failure> {
            if let Some(core) = self.core
                && !core_affinity::set_for_current(core_affinity::CoreId { id: core })
            {
                return Err(usage(format!("there is no core {core}, or it is not ours to use")));
            }
            let mut sink = XdpSink::bind(&at.interface, self.queue)?;
            let replay = replay::Replay::open(&options, sink.limits())?;
            Ok(replay.run(&mut sink, &MonotonicClock, &stop))
        })??;
        if self.json {
            say(serde_json::to_string_pretty(&result)?);
        } else {
            say(result.text().trim_end());
        }
        let complaints = result.complaints();
        for complaint in &complaints {
            eprintln!("pktgen: {complaint}");
        }
        Ok(if complaints.is_empty() {
            ExitCode::SUCCESS
        } else {
            ExitCode::FAILURE
        })
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

fn nanos(duration: Duration) -> Nanos {
    Nanos(u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX))
}

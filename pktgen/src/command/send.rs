//! `pktgen send`: the sending half alone.

use std::time::Instant;

use dataplane::clock::{Clock, MonotonicClock, Nanos};
use pktgen::console::stop_flag;
use pktgen::imix::FrameMix;
use pktgen::stream::Stream;
use pktgen::transmit::{Load, Transmitter};
use serde::Serialize;

use super::bench::some_seconds;
use super::ends::end;
use super::load::LoadOptions;
use super::output::say;
use super::traffic::Traffic;
use super::{Done, Failure};

#[derive(clap::Args)]
pub(super) struct Send {
    /// Interface to send on
    #[arg(long, value_name = "IF")]
    interface: String,
    /// Its network namespace, as `ip netns` names it [default: this one]
    #[arg(long, value_name = "NAME")]
    netns: Option<String>,
    /// The queue of the interface
    #[arg(long, default_value_t = 0)]
    queue: u32,
    #[command(flatten)]
    traffic: Traffic,
    /// Frame size or mix: 64, simple, trex, csit, aaafg (RFC 6985)
    #[arg(long, value_name = "MIX", default_value = "64")]
    frames: FrameMix,
    #[command(flatten)]
    load: LoadOptions,
    /// How long to send
    #[arg(long, default_value_t = 10.0)]
    seconds: f64,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

/// What was sent.
#[derive(Serialize)]
struct Report {
    packets: u64,
    ip_bytes: u64,
    /// Due, but never made because the sender was too late.
    skipped_packets: u64,
    /// Made, but refused by the device.
    dropped_by_device: u64,
    /// Made, and still in the ring: the link is down.
    not_taken: u64,
    seconds: f64,
    packets_per_second: f64,
    /// Due in that time; none where it was as many as possible.
    due_packets: Option<f64>,
}

impl Send {
    pub(super) fn run(&self) -> Done {
        let at = end(self.netns.as_deref(), &self.interface)?;
        let services = self.traffic.services(&at, None, &self.frames)?;
        let duration = some_seconds("--seconds", self.seconds)?;
        let own_pps = pktgen::load::own_pps(&services);
        let own_pps = if self.traffic.has_rates() { own_pps } else { 10_000.0 };
        let load = self.load.load(&services, own_pps)?;
        let streams: Vec<Stream> = services
            .iter()
            .zip(0u16..)
            .map(|(service, id)| Stream {
                id,
                rate_bps: 0,
                ..service.stream.clone()
            })
            .collect();
        let stop = stop_flag()?;
        let clock = MonotonicClock;
        at.namespace.run(|| {
            let start = clock.now().plus(LEAD);
            let (mut transmitter, remote) = Transmitter::new(
                &at.interface,
                self.queue,
                &streams,
                self.traffic.seed,
                clock.now(),
                clock,
            )?;
            let end = start.plus(Nanos(u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)));
            remote.change(start, load.part(&services, 0, 1));
            remote.change(end, Load::Rates(vec![0; streams.len()]));
            let begun = Instant::now();
            transmitter.run(end, &stop);
            let took = begun.elapsed().as_secs_f64().min(duration.as_secs_f64());
            let sent = remote.sent();
            let packets = sent.iter().map(|stream| stream.packets).sum();
            let report = Report {
                packets,
                ip_bytes: sent.iter().map(|stream| stream.ip_bytes).sum(),
                skipped_packets: sent.iter().map(|stream| stream.skipped).sum(),
                dropped_by_device: remote.dropped_by_device(),
                not_taken: remote.waiting(),
                seconds: took,
                packets_per_second: packets as f64 / took,
                due_packets: load.due(Nanos((took * 1e9) as u64)),
            };
            self.print(&report)
        })?
    }

    fn print(&self, report: &Report) -> Done {
        if self.json {
            say(serde_json::to_string_pretty(report)?);
        } else {
            say(format_args!(
                "{} packets in {:.3} s: {:.0} packets/s; {} skipped, {} refused by the device",
                report.packets,
                report.seconds,
                report.packets_per_second,
                report.skipped_packets,
                report.dropped_by_device
            ));
        }
        if report.not_taken > 0 {
            return Err(Failure::Run(format!(
                "{} of these packets are still in the ring: is the link of {} up? (`ip link`)",
                report.not_taken, self.interface
            )));
        }
        match report.due_packets {
            Some(due) if (report.packets as f64 - due).abs() > due * 0.001 + 1.0 => Err(Failure::Run(format!(
                "{due:.0} packets were due, {} were sent: the rate was not kept (lower it, or use a faster machine)",
                report.packets
            ))),
            _ => Ok(std::process::ExitCode::SUCCESS),
        }
    }
}

/// Time to bind the socket before the first packet.
const LEAD: Nanos = Nanos(300_000_000);

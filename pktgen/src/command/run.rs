//! `pktgen run`: one trial.

use std::time::Instant;

use pktgen::console::stop_flag;
use pktgen::imix::FrameMix;
use pktgen::load::own_pps;
use pktgen::suite;
use pktgen::trial::{Generator, GeneratorConfig};

use super::Done;
use super::bench::some_seconds;
use super::ends::Ends;
use super::load::LoadOptions;
use super::output::Output;
use super::traffic::Traffic;

#[derive(clap::Args)]
pub(super) struct Run {
    #[command(flatten)]
    ends: Ends,
    #[command(flatten)]
    traffic: Traffic,
    /// Frame size or mix: 64, simple, trex, csit, aaafg (RFC 6985)
    #[arg(long, value_name = "MIX", default_value = "64")]
    frames: FrameMix,
    #[command(flatten)]
    load: LoadOptions,
    /// af_xdp (everything), or live: packets made and scored in the kernel, several times as fast, at one rate or `max`, flows in
    /// turn, checksums not verified on arrival
    #[arg(long, value_parser = ["af_xdp", "live"], default_value = "af_xdp")]
    engine: String,
    /// How long to send
    #[arg(long, default_value_t = 10.0)]
    seconds: f64,
    #[command(flatten)]
    output: Output,
}

impl Run {
    pub(super) fn run(&self) -> Done {
        let ends = self.ends.open()?;
        let services = self
            .traffic
            .services(&ends.transmit, Some(&ends.receive), &self.frames)?;
        let duration = some_seconds("--seconds", self.seconds)?;
        let own_pps = if self.traffic.has_rates() {
            own_pps(&services)
        } else {
            10_000.0
        };
        let load = self.load.load(&services, own_pps)?;
        let config = GeneratorConfig {
            transmit: ends.transmit,
            receive: ends.receive,
            services,
            transmit_cpus: ends.transmit_cpus,
            receive_cpu: ends.receive_cpu,
            seed: self.traffic.seed,
        };
        let stop = stop_flag()?;
        let begun = Instant::now();
        let trial = match self.engine.as_str() {
            "live" => pktgen::live::trial(&config, &load, duration, &stop)?,
            _ => Generator::start(&config)?.trial(&load, duration, &stop)?,
        };
        let report = suite::of_trial(
            &config,
            &self.engine,
            &self.frames,
            &self.load.label(&self.frames),
            &trial,
            begun.elapsed(),
        )?;
        self.output.write(&report)
    }
}

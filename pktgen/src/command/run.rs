//! `pktgen run`: one trial.

use std::time::Instant;

use pktgen::imix::FrameMix;
use pktgen::rate::{LineRate, MeanFrame, Rate};
use pktgen::suite;
use pktgen::trial::{Generator, GeneratorConfig, TrialLoad};

use super::bench::seconds;
use super::ends::Ends;
use super::output::{Output, stop_flag};
use super::traffic::Traffic;
use super::{Done, usage};

#[derive(clap::Args)]
pub(super) struct Run {
    #[command(flatten)]
    ends: Ends,
    #[command(flatten)]
    traffic: Traffic,
    /// Frame size or mix: 64, simple, trex, csit, aaafg (RFC 6985)
    #[arg(long, value_name = "MIX", default_value = "64")]
    frames: FrameMix,
    /// 100kpps, 5Gbit/s (frames), 5Gbit/s@l1, 80% (of --line-rate) or max [default: what the contracts come to, or 10kpps]
    #[arg(long)]
    rate: Option<Rate>,
    /// What the line carries, such as 10Gbit/s
    #[arg(long, value_name = "RATE")]
    line_rate: Option<LineRate>,
    /// How long to send
    #[arg(long, default_value_t = 10.0)]
    seconds: f64,
    #[command(flatten)]
    output: Output,
}

impl Run {
    pub(super) fn run(&self) -> Done {
        let ends = self.ends.open()?;
        let services = self.traffic.services(&ends.transmit, Some(&ends.receive), &self.frames)?;
        let duration = seconds("--seconds", self.seconds)?;
        let config = GeneratorConfig {
            transmit: ends.transmit,
            receive: ends.receive,
            services,
            transmit_cpus: ends.transmit_cpus,
            receive_cpu: ends.receive_cpu,
            seed: self.traffic.seed,
        };
        let stop = stop_flag()?;
        let mut generator = Generator::start(&config)?;
        let load = match self.rate {
            Some(rate) => self.load(rate)?,
            None if self.traffic.has_rates() => TrialLoad::PacketsPerSecond(generator.own_pps()),
            None => TrialLoad::PacketsPerSecond(10_000.0),
        };
        let begun = Instant::now();
        let trial = generator.trial(load, duration, &stop)?;
        let report = suite::of_trial(&config, &self.frames, generator.services(), &trial, begun.elapsed())?;
        self.output.write(&report)
    }

    fn load(&self, rate: Rate) -> Result<TrialLoad, super::Failure> {
        let mean = MeanFrame {
            bytes: self.frames.mean_frame_bytes(),
            vlan_tags: 0,
        };
        let load = rate.load(mean, self.line_rate).map_err(usage)?;
        if let Some(warning) = load.warning() {
            eprintln!("pktgen: {warning}");
        }
        Ok(load.pps.map_or(TrialLoad::Max, TrialLoad::PacketsPerSecond))
    }
}

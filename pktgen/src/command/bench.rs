//! `pktgen bench`: the whole measurement.

use std::time::Duration;

use pktgen::console::{Bar, stop_flag};
use pktgen::imix::FrameMix;
use pktgen::rate::LineRate;
use pktgen::suite::{self, Method, Plan, Surroundings};
use pktgen::trial::GeneratorConfig;

use super::ends::Ends;
use super::output::Output;
use super::traffic::Traffic;
use super::{Done, Failure, usage};

#[derive(clap::Args)]
pub(super) struct Bench {
    #[command(flatten)]
    ends: Ends,
    #[command(flatten)]
    traffic: Traffic,
    /// Frame sizes and mixes to measure with, separated by spaces: 64, 1518, simple, trex, csit, aaafg or 64:28,570:16,1518:4 (RFC 6985), or
    /// "rfc2544" for all its sizes
    #[arg(long, value_name = "LIST", default_value = "64 csit 1518")]
    frames: String,
    /// mlr (RFC 9971, NDR and PDR), quick (the same in a twentieth of the time), or rfc2544
    #[arg(long, value_parser = ["mlr", "quick", "rfc2544"], default_value = "mlr")]
    method: String,
    /// Seconds of each trial of `--method rfc2544`
    #[arg(long, value_name = "S", default_value_t = 60.0)]
    trial_seconds: f64,
    /// Seconds that one search may take; it then reports what it has
    #[arg(long, value_name = "S")]
    budget: Option<f64>,
    /// Seconds at each load at which latency is measured; 0: not
    #[arg(long, value_name = "S", default_value_t = 5.0)]
    latency_seconds: f64,
    /// Seconds for which the contracts' services send at their own rates; 0: not
    #[arg(long, value_name = "S", default_value_t = 5.0)]
    services_seconds: f64,
    /// How often to search for the longest burst without loss (RFC 9004 asks for 50); 0: not
    #[arg(long, value_name = "N", default_value_t = 0)]
    bursts: u32,
    /// Seconds to hold the load at which nothing was lost; 0: not
    #[arg(long, value_name = "S", default_value_t = 0.0)]
    soak_seconds: f64,
    /// What the line carries, such as 10Gbit/s: no more is tried
    #[arg(long, value_name = "RATE")]
    line_rate: Option<LineRate>,
    /// What is between the two interfaces, for the report
    #[arg(long, value_name = "WORDS", default_value = "not said")]
    between: String,
    #[command(flatten)]
    output: Output,
}

impl Bench {
    pub(super) fn run(&self) -> Done {
        let ends = self.ends.open()?;
        let frames = mixes(&self.frames)?;
        let Some(first) = frames.first() else {
            return Err(usage("--frames: at least one size"));
        };
        let services = self.traffic.services(&ends.transmit, Some(&ends.receive), first)?;
        let plan = Plan {
            title: format!("{} to {}", ends.transmit.interface, ends.receive.interface),
            between: self.between.clone(),
            generator: GeneratorConfig {
                transmit: ends.transmit,
                receive: ends.receive,
                services,
                transmit_cpus: ends.transmit_cpus,
                receive_cpu: ends.receive_cpu,
                seed: self.traffic.seed,
            },
            frames,
            method: match self.method.as_str() {
                "quick" => Method::quick(),
                "rfc2544" => Method::Rfc2544(self.trial_seconds),
                _ => Method::csit(),
            },
            search_budget: self.budget.map(|s| seconds("--budget", s)).transpose()?,
            latency: seconds("--latency-seconds", self.latency_seconds)?,
            services: if self.traffic.has_rates() {
                seconds("--services-seconds", self.services_seconds)?
            } else {
                Duration::ZERO
            },
            reconfigurations: 0,
            bursts: self.bursts,
            soak: seconds("--soak-seconds", self.soak_seconds)?,
            line_rate_bps: self.line_rate.map(LineRate::bps),
        };
        let stop = stop_flag()?;
        let bar = Bar::default();
        let report = suite::run(
            &plan,
            &mut Surroundings {
                stop: &stop,
                progress: &mut |step| bar.show(step),
                change: None,
            },
        )?;
        drop(bar);
        self.output.write(&report)
    }
}

/// "64 csit" and the like.
pub(super) fn mixes(text: &str) -> Result<Vec<FrameMix>, Failure> {
    let mut mixes = Vec::new();
    for part in text.split_whitespace() {
        if part == "rfc2544" {
            for bytes in pktgen::search::sweep::RFC2544_SIZES {
                mixes.push(FrameMix::fixed(bytes).map_err(usage)?);
            }
        } else {
            mixes.push(part.parse().map_err(usage)?);
        }
    }
    Ok(mixes)
}

/// Seconds of an option that must not be none.
pub(super) fn some_seconds(option: &str, value: f64) -> Result<Duration, Failure> {
    let duration = seconds(option, value)?;
    if duration.is_zero() {
        Err(usage(format!("{option}: more than 0")))
    } else {
        Ok(duration)
    }
}

/// Seconds of an option.
pub(super) fn seconds(option: &str, seconds: f64) -> Result<Duration, Failure> {
    Duration::try_from_secs_f64(seconds).map_err(|error| usage(format!("{option}: {error}")))
}

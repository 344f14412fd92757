//! How fast: one rate, a schedule, or a profile.

use pktgen::imix::FrameMix;
use pktgen::load::{self, ServiceTraffic, TrialLoad};
use pktgen::profile::{Framing, Profile, Settings, Traffic as ProfileTraffic};
use pktgen::rate::LineRate;
use pktgen::schedule::Plan;
use pktgen::timeline::Timeline;

use super::{Failure, usage};

#[derive(clap::Args)]
pub(super) struct LoadOptions {
    /// A rate (100kpps, 5Gbit/s, 5Gbit/s@l1, 80% of --line-rate, max) or a schedule, such as "ramp 1kpps..50kpps 10s" or
    /// "burst 64 packets every 1ms" [default: what the contracts come to, or 10kpps]
    #[arg(long, value_name = "RATE", help_heading = "Load")]
    rate: Option<Plan>,
    /// What the line carries, such as 10Gbit/s
    #[arg(long, value_name = "RATE", help_heading = "Load")]
    line_rate: Option<LineRate>,
    /// Send the messages of a profile (see `pktgen profiles`) instead of evenly spaced packets; --rate is their mean
    #[arg(long, value_name = "NAME", help_heading = "Load")]
    profile: Option<Profile>,
    /// Senders of the profile
    #[arg(
        long,
        value_name = "N",
        default_value_t = 8,
        requires = "profile",
        help_heading = "Load"
    )]
    sources: u32,
}

impl LoadOptions {
    /// What the packets are, for a report.
    pub(super) fn label(&self, mix: &FrameMix) -> String {
        self.profile
            .map_or_else(|| mix.to_string(), |profile| profile.name().to_owned())
    }

    /// What to send: `own_pps` if no rate is given.
    pub(super) fn load(&self, services: &[ServiceTraffic], own_pps: f64) -> Result<TrialLoad, Failure> {
        let frame = load::mean_frame(services);
        if let Some(profile) = self.profile {
            return self.profile(profile, services, own_pps);
        }
        let Some(plan) = &self.rate else {
            return Ok(TrialLoad::PacketsPerSecond(own_pps));
        };
        let Some(rate) = plan.single_rate() else {
            let schedule = plan.schedule(frame, self.line_rate).map_err(usage)?;
            return Ok(TrialLoad::Timeline(Timeline::scheduled(
                schedule,
                &load::shares(services),
            )));
        };
        let load = rate.load(frame, self.line_rate).map_err(usage)?;
        if let Some(warning) = load.warning() {
            eprintln!("pktgen: {warning}");
        }
        Ok(load.pps.map_or(TrialLoad::Max, TrialLoad::PacketsPerSecond))
    }

    fn profile(&self, profile: Profile, services: &[ServiceTraffic], own_pps: f64) -> Result<TrialLoad, Failure> {
        // The lines of the sources: what is stated, or a server's usual one.
        let line_bps = self.line_rate.map_or(SOURCE_LINE_BPS, LineRate::bps);
        let framing = framing(services);
        let load_pps = match &self.rate {
            None => own_pps,
            Some(plan) => {
                let rate = plan
                    .single_rate()
                    .ok_or_else(|| usage("--profile has a schedule of its own: give --rate one rate"))?;
                let load = rate
                    .load(profile.mean_frame(framing, line_bps), self.line_rate)
                    .map_err(usage)?;
                load.pps
                    .ok_or_else(|| usage("--profile needs a --rate that is not max"))?
            }
        };
        let settings = Settings {
            sources: self.sources,
            load_pps,
            line_bps,
            period: None,
            framing,
            seed: 1,
        };
        let traffic = ProfileTraffic::new(profile, settings).map_err(usage)?;
        Ok(TrialLoad::Timeline(Timeline::profile(traffic, services.len())))
    }
}

/// How messages are cut for all of these services: by the one with the longest headers.
fn framing(services: &[ServiceTraffic]) -> Framing {
    let shortest = services
        .iter()
        .map(|service| service.stream.frame_bytes_min())
        .max()
        .unwrap_or(60);
    let tags = services
        .iter()
        .map(|service| service.stream.vlans.len())
        .max()
        .unwrap_or(0) as u16;
    Framing {
        mtu: 1500,
        // What the shortest packet holds besides Ethernet, tags and our own 18 bytes.
        header_bytes: shortest - 14 - 4 * tags - pktgen::probe::PROBE_BYTES as u16,
        vlan_tags: tags as u8,
        frame_bytes_min: (shortest + 4).max(64),
    }
}

/// A server's link where none is stated.
const SOURCE_LINE_BPS: f64 = 10e9;

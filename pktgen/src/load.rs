//! What a trial sends: services in their proportions, and how fast all of them together.

use dataplane::clock::Nanos;

use crate::imix::FrameMix;
use crate::rate::MeanFrame;
use crate::stream::Stream;
use crate::timeline::Timeline;
use crate::transmit::Load;

/// What is sent for one service. Its stream's rate is its part of the whole: a load scales all of them.
#[derive(Clone, Debug, PartialEq)]
pub struct ServiceTraffic {
    /// What reports call it.
    pub name: String,
    /// Its packets. The id is given by the generator.
    pub stream: Stream,
    /// How many times its entitlement it sends, where it has one: for the report.
    pub multiple: Option<f64>,
}

/// The load of a trial.
#[derive(Clone, Debug)]
pub enum TrialLoad {
    /// Packets per second of all services together.
    PacketsPerSecond(f64),
    /// As fast as the senders can.
    Max,
    /// Packets at instants of their own, whatever the services' rates.
    Timeline(Timeline),
}

impl TrialLoad {
    /// The part of sender `number` of `senders`.
    #[must_use]
    pub fn part(&self, services: &[ServiceTraffic], number: usize, senders: usize) -> Load {
        match self {
            TrialLoad::PacketsPerSecond(pps) => {
                let factor = pps / own_pps(services) / senders.max(1) as f64;
                let rate = |service: &ServiceTraffic| (service.stream.rate_bps as f64 * factor).round() as u64;
                Load::Rates(services.iter().map(rate).collect())
            }
            TrialLoad::Max => Load::Max(shares(services)),
            TrialLoad::Timeline(timeline) => Load::Timeline(timeline.part(number, senders)),
        }
    }

    /// Packets that are due in so long; `None`: as many as possible. Of a timeline they are counted one by one.
    #[must_use]
    pub fn due(&self, duration: Nanos) -> Option<f64> {
        match self {
            TrialLoad::PacketsPerSecond(pps) => Some(pps * duration.0 as f64 / 1e9),
            TrialLoad::Max => None,
            TrialLoad::Timeline(timeline) => Some(timeline.count_before(duration) as f64),
        }
    }
}

/// Packets per second of all services at their own rates.
#[must_use]
pub fn own_pps(services: &[ServiceTraffic]) -> f64 {
    services.iter().map(|service| packets_per_second(&service.stream)).sum()
}

/// Each service's part of the packets, to one in 4096; at least that, if it has any rate.
#[must_use]
pub fn shares(services: &[ServiceTraffic]) -> Vec<u32> {
    let total = own_pps(services);
    let share = |service: &ServiceTraffic| (packets_per_second(&service.stream) / total * 4096.0).ceil() as u32;
    services.iter().map(share).collect()
}

/// The sizes of a mix as a stream has them: without FCS, none too short for the stream's headers and ours, and a random mix
/// drawn once.
#[must_use]
pub fn frame_bytes(mix: &FrameMix, stream: &Stream) -> Vec<u16> {
    let mix = mix.raised_to(stream.frame_bytes_min() + FCS);
    let drawn = mix.random_seed().map_or(mix.sequence().len() as u64, |_| RANDOM_FRAMES);
    (0..drawn).map(|frame| mix.size(frame) - FCS).collect()
}

/// What the packets of all services are on average, at their own rates.
#[must_use]
pub fn mean_frame(services: &[ServiceTraffic]) -> MeanFrame {
    let mut bytes = 0.0;
    for ServiceTraffic { stream, .. } in services {
        let sizes = &stream.frame_bytes;
        let sum: f64 = sizes.iter().map(|&bytes| f64::from(bytes + FCS)).sum();
        bytes += packets_per_second(stream) * sum / sizes.len().max(1) as f64;
    }
    MeanFrame {
        bytes: bytes / own_pps(services),
        vlan_tags: services.first().map_or(0, |service| service.stream.vlans.len() as u8),
    }
}

/// Packets per second of a stream at its own rate.
#[must_use]
pub fn packets_per_second(stream: &Stream) -> f64 {
    let (bytes, packets) = stream.ip_bytes_of_a_turn();
    stream.rate_bps as f64 * packets as f64 / (8 * bytes.max(1)) as f64
}

/// A random mix is drawn once for so many frames and then repeats.
const RANDOM_FRAMES: u64 = 4096;
/// Bytes of the frame check sequence, which mixes have and packets in memory have not.
const FCS: u16 = 4;

//! A trial with the engine inside the kernel: the same streams, the same result as [`crate::trial`].

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use dataplane::clock::Nanos;
use hdrhistogram::Histogram;

use super::{Latency, LiveError, Load, Portion, Receiver, ReceiverConfig, Score, Sender, SenderConfig, Sent};
use crate::lab::LabError;
use crate::load::{TrialLoad, packets_per_second};
use crate::score::empty_histogram;
use crate::stream::Stream;
use crate::trial::{End, GeneratorConfig, ServiceTrial, Trial};

/// Why a trial did not come about.
#[derive(Debug, thiserror::Error)]
pub enum LiveTrialError {
    /// Entering a namespace.
    #[error(transparent)]
    Lab(#[from] LabError),
    /// Sender or receiver.
    #[error(transparent)]
    Live(#[from] LiveError),
    /// A schedule or a profile.
    #[error(
        "the engine `live` sends at one rate or as fast as it can: schedules and profiles take the engine `af_xdp`"
    )]
    Timeline,
}

/// Runs one trial. It ends early, and is invalid, when `interrupted` is set. The first of the senders' cores is used.
///
/// # Errors
/// See [`LiveTrialError`].
pub fn trial(
    config: &GeneratorConfig,
    load: &TrialLoad,
    duration: Duration,
    interrupted: &AtomicBool,
) -> Result<Trial, LiveTrialError> {
    let portions = portions(config);
    let ids: Vec<u16> = portions.iter().map(|portion| portion.stream.id).collect();
    let End { namespace, interface } = &config.receive;
    // The clock is read for one packet in sixteen: reading it costs as much as everything else that is done with a packet.
    let scoring = ReceiverConfig {
        latency_every: 16,
        ..ReceiverConfig::new(interface, &ids)
    };
    let receiver = namespace.run(|| Receiver::attach(&scoring))??;
    let (live_load, packets) = match load {
        TrialLoad::PacketsPerSecond(pps) => (
            Load::PacketsPerSecond(*pps),
            Some((pps * duration.as_secs_f64()).round() as u64),
        ),
        TrialLoad::Max => (Load::Max, None),
        TrialLoad::Timeline(_) => return Err(LiveTrialError::Timeline),
    };
    let sending = SenderConfig {
        interface: &config.transmit.interface,
        cpu: config.transmit_cpus.first().copied(),
        portions: &portions,
        load: live_load,
        packets,
        // From the moment it is ready: loading its programs takes as long as the kernel's verifier likes.
        start: None,
        phase: 0,
        seed: config.seed,
        after: None,
    };
    let mut sender = config.transmit.namespace.run(|| Sender::start(&sending))??;
    let begun = Instant::now();
    let mut faults = Vec::new();
    // A sender with an end is given twice the time.
    let longest = if packets.is_some() {
        2 * duration + GRACE
    } else {
        duration
    };
    loop {
        let left = longest.saturating_sub(begun.elapsed()).min(LOOK);
        if left.is_zero() {
            if packets.is_some() {
                faults.push("the sender did not come to an end in twice the time it was given".to_owned());
            }
            break;
        }
        if interrupted.load(Ordering::Relaxed) {
            faults.push("interrupted".to_owned());
            break;
        }
        if packets.is_none() {
            thread::sleep(left);
        } else if sender.wait(left)? {
            break;
        }
    }
    let elapsed = begun.elapsed().as_secs_f64();
    let sent = sender.stop()?;
    thread::sleep(QUIET);
    let scores = receiver.read()?;
    let seconds = if packets.is_some() {
        duration.as_secs_f64()
    } else {
        elapsed
    };
    let services = (0u16..).zip(&config.services).map(|(id, service)| {
        let sent = sent.by_stream.get(&id).map_or(0, super::StreamSent::packets);
        service_trial(&service.name, service.stream.dscp, sent, scores.by_stream.get(&(id, 0)))
    });
    let mut trial = Trial {
        due: load.due(Nanos((seconds * 1e9) as u64)),
        seconds,
        services: services.collect(),
        corrupted: 0,
        foreign: scores.foreign,
        lateness: lateness(&sent),
        dropped_by_sender: sent.refused.unwrap_or(0),
        invalid: faults,
    };
    if sent.lag_max > LAG_MAX {
        let lag = sent.lag_max.0 / 1_000_000;
        trial
            .invalid
            .push(format!("the sender was {lag} ms late with a packet"));
    }
    Ok(trial)
}

/// The services that send, each with its number as the stream id. The engine takes no silent ones.
fn portions(config: &GeneratorConfig) -> Vec<Portion> {
    (0u16..)
        .zip(&config.services)
        .filter(|(_, service)| service.stream.rate_bps > 0)
        .map(|(id, service)| Portion {
            weight: packets_per_second(&service.stream),
            stream: Stream {
                id,
                ..service.stream.clone()
            },
        })
        .collect()
}

fn service_trial(name: &str, dscp: u8, sent: u64, score: Option<&Score>) -> ServiceTrial {
    let by_dscp = score.into_iter().flat_map(|score| (0u8..).zip(&score.by_dscp));
    let dscp_received: BTreeMap<u8, u64> = by_dscp
        .filter(|&(_, &packets)| packets > 0)
        .map(|(dscp, &packets)| (dscp, packets))
        .collect();
    let of = |pick: fn(&Score) -> u64| score.map_or(0, pick);
    ServiceTrial {
        name: name.to_owned(),
        dscp,
        sent,
        received: of(|score| score.unique),
        received_ip_bytes: of(|score| score.ip_bytes),
        reordered: of(|score| score.reordered),
        duplicated: of(|score| score.duplicated),
        congestion_marked: of(|score| score.congestion_marked),
        dscp_received,
        latency: score.map_or_else(empty_histogram, |score| histogram(&score.latency)),
        jitter: empty_histogram(),
    }
}

/// The middles of the buckets.
fn histogram(latency: &Latency) -> Histogram<u64> {
    let mut histogram = empty_histogram();
    for (low, high, packets) in latency.buckets() {
        histogram.saturating_record_n(u64::midpoint(low.0, high.0).max(1), packets);
    }
    histogram
}

/// The upper ends of the buckets: what is known is a power of two.
fn lateness(sent: &Sent) -> Histogram<u64> {
    let mut histogram = empty_histogram();
    for (bucket, &packets) in sent.lags.iter().enumerate() {
        histogram.saturating_record_n((1u64 << bucket).min(sent.lag_max.0.max(1)), packets);
    }
    histogram
}

/// What a sender with an end may take besides.
const GRACE: Duration = Duration::from_millis(500);
/// How soon Ctrl-C is noticed.
const LOOK: Duration = Duration::from_millis(50);
/// Time for the last packets to come.
const QUIET: Duration = Duration::from_millis(200);
/// As with the other engine: a packet that is later than this is none of the load that was asked for.
const LAG_MAX: Nanos = crate::pace::CATCH_UP_MAX;

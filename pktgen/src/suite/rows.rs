//! From what searches and trials found to the rows of a report.

use crate::imix::FrameMix;
use crate::load::{ServiceTraffic, packets_per_second};
use crate::report::{
    BackToBackRow, CalibrationRow, DscpCount, GoalRow, Method, ReconfigurationRow, ServiceLatency, ServiceRow, Soak,
    SoakPoint, StreamRow, ThroughputRow, TrialRow,
};
use crate::search;
use crate::search::back_to_back::BurstResult;
use crate::search::mlr::MlrResult;
use crate::search::reconfigure::ReconfigureResult;
use crate::search::rfc2544::ThroughputResult;
use crate::search::soak::SoakResult;
use crate::stream::Stream;
use crate::trial::Trial;

/// How a mix is named: its size, or its name and mean.
pub(super) fn label(mix: &FrameMix) -> String {
    mix.to_string()
}

/// Bits per second at L1 of so many packets of the mix.
fn l1_bps(mix: &FrameMix, pps: f64) -> f64 {
    pps * (mix.mean_frame_bytes() + 20.0) * 8.0
}

pub(super) fn mlr(mix: &FrameMix, found: &MlrResult) -> ThroughputRow {
    let goal = |goal: &search::mlr::GoalResult| GoalRow {
        name: match goal.outcome.is_regular() {
            true => goal.goal.name.clone(),
            false => format!("{} (irregular)", goal.goal.name),
        },
        loss_ratio: goal.goal.loss_ratio,
        lower_pps: goal.relevant_lower_bound_pps,
        upper_pps: goal.relevant_upper_bound_pps,
        throughput_pps: goal.conditional_throughput_pps,
        l1_bps: goal.conditional_throughput_pps.map(|pps| l1_bps(mix, pps)),
    };
    throughput(mix, Method::Mlr, found.goals.iter().map(goal).collect(), &found.trials)
}

pub(super) fn rfc2544(mix: &FrameMix, found: &ThroughputResult) -> ThroughputRow {
    let goal = GoalRow {
        name: "throughput".to_owned(),
        loss_ratio: 0.0,
        lower_pps: found.throughput_pps,
        upper_pps: found.failed_pps,
        throughput_pps: found.throughput_pps,
        l1_bps: found.throughput_pps.map(|pps| l1_bps(mix, pps)),
    };
    throughput(mix, Method::Rfc2544, vec![goal], &found.trials)
}

fn throughput(mix: &FrameMix, method: Method, goals: Vec<GoalRow>, trials: &[search::Trial]) -> ThroughputRow {
    ThroughputRow {
        frame: label(mix),
        mean_frame_bytes: mix.mean_frame_bytes(),
        method,
        goals,
        trials: trials.iter().map(trial).collect(),
    }
}

fn trial(trial: &search::Trial) -> TrialRow {
    let measurement = &trial.measurement;
    TrialRow {
        load_pps: measurement.load_pps,
        seconds: measurement.seconds,
        sent: measurement.sent,
        lost: measurement.lost,
        valid: measurement.valid,
    }
}

pub(super) fn calibration(trial: &Trial, asked_pps: f64) -> CalibrationRow {
    let late = |quantile| trial.lateness.value_at_quantile(quantile);
    CalibrationRow {
        asked_pps,
        achieved_pps: trial.sent_pps(),
        error_ppm: (trial.sent_pps() / asked_pps - 1.0) * 1e6,
        seconds: trial.seconds,
        lateness_p50_ns: late(0.5),
        lateness_p99_ns: late(0.99),
        lateness_p99_9_ns: late(0.999),
        lateness_max_ns: trial.lateness.max(),
    }
}

pub(super) fn services(trial: &Trial, traffic: &[ServiceTraffic]) -> Vec<ServiceRow> {
    let row = |(service, traffic): (&crate::trial::ServiceTrial, &ServiceTraffic)| {
        let dscp_out = |(&dscp, &packets)| DscpCount { dscp, packets };
        // Of a profile the sizes are known by what came.
        let (bytes, packets) = match service.received {
            0 => traffic.stream.ip_bytes_of_a_turn(),
            received => (service.received_ip_bytes, received),
        };
        let offered_pps = service.sent as f64 / trial.seconds;
        ServiceRow {
            service: service.name.clone(),
            stream: protocol(&traffic.stream),
            offered_pps,
            offered_bps: offered_pps * 8.0 * bytes as f64 / packets.max(1) as f64,
            multiple: traffic.multiple,
            sent: service.sent,
            received: service.received,
            lost: service.sent.saturating_sub(service.received),
            reordered: service.reordered,
            duplicated: service.duplicated,
            dscp_in: service.dscp,
            dscp_out: service.dscp_received.iter().map(dscp_out).collect(),
            latency: ServiceLatency::from_histogram(&service.latency),
            jitter_ns: (!service.jitter.is_empty()).then(|| service.jitter.value_at_quantile(0.5)),
        }
    };
    trial.services.iter().zip(traffic).map(row).collect()
}

pub(super) fn streams(services: &[ServiceTraffic], mixes: &[FrameMix]) -> Vec<StreamRow> {
    let total: f64 = services.iter().map(|service| packets_per_second(&service.stream)).sum();
    let frames = mixes.iter().map(label).collect::<Vec<_>>().join(", ");
    let bytes: f64 = mixes.iter().map(FrameMix::mean_frame_bytes).sum();
    let row = |service: &ServiceTraffic| StreamRow {
        name: service.name.clone(),
        protocol: protocol(&service.stream),
        frames: frames.clone(),
        mean_frame_bytes: bytes / mixes.len().max(1) as f64,
        flows: u64::from(service.stream.flows),
        dscp: service.stream.dscp,
        multiple: service.multiple,
        share: packets_per_second(&service.stream) / total,
    };
    services.iter().map(row).collect()
}

fn protocol(stream: &Stream) -> String {
    format!("{:?}", stream.protocol).to_lowercase()
}

pub(super) fn reconfiguration(mix: &FrameMix, load_pps: f64, found: &ReconfigureResult) -> ReconfigurationRow {
    let usable = || found.changes.iter().filter(|change| change.blocked_s.is_some());
    ReconfigurationRow {
        change: "swap of the tables".to_owned(),
        frame: label(mix),
        load_pps,
        changes: usable().count() as u64,
        sent: usable().map(|change| change.trial.sent).sum(),
        lost: usable().map(|change| change.trial.lost).sum(),
        blocked_seconds: match usable().count() {
            0 => f64::NAN,
            _ => usable().filter_map(|change| change.blocked_s).sum(),
        },
    }
}

pub(super) fn bursts(mix: &FrameMix, burst_pps: f64, found: &BurstResult) -> BackToBackRow {
    let statistics = found.statistics;
    BackToBackRow {
        frame: label(mix),
        repetitions: found.bursts.len() as u32,
        mean_packets: statistics.map_or(f64::NAN, |s| s.average),
        min_packets: statistics.map_or(0, |s| s.min),
        max_packets: statistics.map_or(0, |s| s.max),
        deviation_packets: statistics.map_or(f64::NAN, |s| s.standard_deviation),
        burst_pps,
        seconds: found.implied_buffer_s.unwrap_or(f64::NAN),
        corrected_buffer_seconds: found.corrected_buffer_s,
    }
}

pub(super) fn soak(mix: &FrameMix, load_pps: f64, found: &SoakResult) -> Soak {
    let point = |trial: &search::Trial| SoakPoint {
        at_seconds: trial.at_s,
        sent: trial.measurement.sent,
        lost: trial.measurement.lost,
        p99_ns: None,
    };
    Soak {
        frame: label(mix),
        load_pps,
        seconds: found.seconds,
        sent: found.sent,
        lost: found.lost,
        points: found
            .trials
            .iter()
            .filter(|trial| trial.measurement.usable())
            .map(point)
            .collect(),
    }
}

//! From what the receiver counted to PASS or FAIL.
//!
//! All numbers of packets and latencies are the receiver's own. The gateway's counters are asked one thing only: how many
//! packets of a contract it judged conforming during the congestion, which must be the number that arrived unmarked.

use std::collections::BTreeMap;

use pktgen::score::{ScoreKey, Scores};
use pktgen::transmit::Phase;
use serde::Serialize;

use super::pauses::{Paused, Pausing};
use super::script::{Part, Script};
use super::services::{DemoService, RAISED, SERVICES};
use crate::report::Count;
use crate::status::Status;

/// Everything the demo saw.
pub struct Observed {
    /// Sent, by phase and service.
    pub sent: Vec<Phase>,
    /// Received.
    pub received: Scores,
    /// Dropped by the sender's own device.
    pub dropped_by_sender: u64,
    /// The gateway after `room` and after `congestion`.
    pub around_congestion: [Status; 2],
    /// The gateway at the end.
    pub last: Status,
    /// Generation before and after the entitlement was raised, and after the broken file.
    pub generations: [u64; 3],
    /// Why the broken file was refused; `None`: it was not.
    pub refusal: Option<String>,
    /// When the machine's cores were away.
    pub paused: Paused,
}

/// The result.
#[derive(Debug, Serialize)]
pub struct Verdict {
    /// Whether every check passed.
    pub passed: bool,
    /// By service.
    pub services: Vec<ServiceVerdict>,
    /// Checks that concern all of them.
    pub checks: Vec<Check>,
    /// The longest time in milliseconds that the machine took a core away from the demo; what is allowed has grown by it.
    pub machine_paused_ms: f64,
}

/// One service.
#[derive(Debug, Serialize)]
pub struct ServiceVerdict {
    /// Name.
    pub service: &'static str,
    /// Class.
    pub class: &'static str,
    /// Entitlement in bit/s; `None`: no contract.
    pub entitled_bps: Option<u64>,
    /// Offered in bit/s.
    pub offered_bps: u64,
    /// Whether all its checks passed.
    pub passed: bool,
    /// What was measured in each part in which services send.
    pub parts: BTreeMap<&'static str, PartResult>,
    /// Its checks.
    pub checks: Vec<Check>,
}

/// What the receiver measured of one service in one part.
#[derive(Clone, Debug, Serialize)]
pub struct PartResult {
    /// Sent by the sender.
    pub sent: u64,
    /// Sent, but never received.
    pub lost: u64,
    /// Received with the DSCP it was sent with.
    pub conforming: Count,
    /// Received with the DSCP of its class's excess.
    pub excess: Count,
    /// Latency of what came with its own DSCP, in microseconds.
    pub conforming_p50_us: f64,
    /// The same, 99th percentile.
    pub conforming_p99_us: f64,
    /// Latency of excess, median, in microseconds.
    pub excess_p50_us: f64,
}

/// One thing that was to be shown.
#[derive(Clone, Debug, Serialize)]
pub struct Check {
    /// What.
    pub name: String,
    /// Whether it was.
    pub passed: bool,
    /// The numbers.
    pub detail: String,
}

fn check(name: impl Into<String>, passed: bool, detail: impl Into<String>) -> Check {
    Check {
        name: name.into(),
        passed,
        detail: detail.into(),
    }
}

/// Share of an entitlement by which the received rate of conforming traffic may differ: the first and last packet of a
/// part, and what was left in the bucket from the part before.
const RATE_TOLERANCE: f64 = 0.03;
/// The burst of the demo's contracts, as a share of a second at the rate.
const BURST_SECONDS: f64 = 0.1;
/// How much longer conforming packets may take under congestion, beside the pauses of the machine: two frames of a
/// 100 Mbit/s port are 0.24 ms; threads that share a core add milliseconds now and then, and a standing queue hundreds.
const LATENCY_ALLOWANCE_US: f64 = 10_000.0;
/// Packets that pile up during a pause need as long again until the last of them is through.
const LATENCY_PAUSES: f64 = 2.0;

/// Judges.
#[must_use]
pub fn judge(observed: &Observed, script: &Script) -> Verdict {
    let services: Vec<ServiceVerdict> = SERVICES
        .iter()
        .enumerate()
        .map(|(id, service)| judge_service(id, service, observed, script))
        .collect();
    let all = observed
        .paused
        .between(script.begin(Part::Room), script.end(Part::Rest));
    let checks = vec![
        order_of_loss(&services),
        reload_is_live(observed),
        refusal(observed),
        ledger(observed),
        sender(observed),
    ];
    let passed = services.iter().all(|s| s.passed) && checks.iter().all(|check| check.passed);
    Verdict {
        passed,
        services,
        checks,
        machine_paused_ms: all.longest.0 as f64 / 1e6,
    }
}

fn judge_service(id: usize, service: &'static DemoService, observed: &Observed, script: &Script) -> ServiceVerdict {
    let measured = |part: Part| measure(id as u16, service, part, observed);
    let parts: BTreeMap<&'static str, PartResult> = Part::ALL
        .into_iter()
        .filter(|part| part.sends())
        .map(|part| (part.name(), measured(part)))
        .collect();
    let mut checks = Vec::new();
    for part in [Part::Room, Part::Before, Part::After, Part::BadFile] {
        let result = &parts[part.name()];
        let detail = format!("{} lost of {}", result.lost, result.sent);
        checks.push(check(
            format!("{}: nothing is lost", part.name()),
            result.lost == 0,
            detail,
        ));
    }
    let paused = |part: Part| observed.paused.between(script.begin(part), script.end(part));
    let (room, congested) = (paused(Part::Room), paused(Part::Congestion));
    checks.push(marks(
        service,
        &parts[Part::Room.name()],
        script.seconds(Part::Room),
        room,
    ));
    checks.extend(congestion(service, &parts, observed, congested));
    if service.name == RAISED {
        checks.push(raised(&parts, script));
    }
    ServiceVerdict {
        service: service.name,
        class: service.class.name,
        entitled_bps: service.entitled_bps,
        offered_bps: service.offered_bps,
        passed: checks.iter().all(|check| check.passed),
        parts,
        checks,
    }
}

fn measure(id: u16, service: &DemoService, part: Part, observed: &Observed) -> PartResult {
    let of = |dscp: u8| move |key: &ScoreKey| key.stream == id && key.phase == part.phase() && key.dscp == dscp;
    let count = |dscp: u8| {
        let totals = observed.received.totals(of(dscp));
        Count {
            packets: totals.unique,
            bytes: totals.ip_bytes,
        }
    };
    let phase = observed
        .sent
        .iter()
        .find(|phase| phase.number == u64::from(part.phase()));
    let sent = phase
        .and_then(|phase| phase.sent.get(usize::from(id)))
        .copied()
        .unwrap_or(0);
    let (own, marked) = (service.class.dscp, service.class.nonconforming_dscp);
    let own_latency = observed.received.latency(of(own));
    let quantile = |q: f64| own_latency.value_at_quantile(q) as f64 / 1e3;
    PartResult {
        sent,
        lost: observed.received.lost(id, part.phase(), sent),
        conforming: count(own),
        excess: count(marked),
        conforming_p50_us: quantile(0.5),
        conforming_p99_us: quantile(0.99),
        excess_p50_us: observed.received.latency(of(marked)).value_at_quantile(0.5) as f64 / 1e3,
    }
}

/// With room for all, exactly the excess is marked. What a pause holds up comes at once when it is over, and a bucket holds
/// no more than its burst.
fn marks(service: &DemoService, room: &PartResult, seconds: f64, paused: Pausing) -> Check {
    let rate = room.conforming.bytes as f64 * 8.0 / seconds;
    match service.entitled_bps {
        None => check(
            "all of it is marked: it has no contract",
            room.conforming.packets == 0 && room.excess.packets > 0,
            format!("{} unmarked, {} marked", room.conforming.packets, room.excess.packets),
        ),
        Some(_) if service.within() => check(
            "none of it is marked: it is within its entitlement",
            room.excess.packets == 0 && room.conforming.packets > 0,
            format!("{} unmarked, {} marked", room.conforming.packets, room.excess.packets),
        ),
        Some(entitled) => {
            let entitled = entitled as f64;
            let (least, most) = (
                entitled * (1.0 - RATE_TOLERANCE - paused.sum.0 as f64 / 1e9 / seconds),
                entitled * (1.0 + BURST_SECONDS / seconds + RATE_TOLERANCE),
            );
            check(
                "its entitlement goes unmarked and the rest is marked",
                (least..=most).contains(&rate) && room.excess.packets > 0,
                format!("{:.2} Mbit/s unmarked of {:.2} entitled", rate / 1e6, entitled / 1e6),
            )
        }
    }
}

fn congestion(
    service: &DemoService,
    parts: &BTreeMap<&'static str, PartResult>,
    observed: &Observed,
    paused: Pausing,
) -> Vec<Check> {
    let (room, congested) = (&parts[Part::Room.name()], &parts[Part::Congestion.name()]);
    if service.entitled_bps.is_none() {
        let detail = format!(
            "{} unmarked of {} received",
            congested.conforming.packets,
            congested.sent - congested.lost
        );
        return vec![check(
            "congestion: it gets what is left, marked",
            congested.conforming.packets == 0,
            detail,
        )];
    }
    let [before, after] = observed
        .around_congestion
        .each_ref()
        .map(|status| judged_conforming(status, service.name));
    let judged = after - before;
    let arrived = congested.conforming.packets;
    let mut checks = vec![check(
        "congestion: nothing conforming is lost",
        judged == arrived && arrived > 0,
        format!("{judged} judged conforming, {arrived} received unmarked"),
    )];
    if service.within() {
        let detail = format!("{} lost of {}", congested.lost, congested.sent);
        checks.push(check("congestion: it loses nothing", congested.lost == 0, detail));
    }
    let pause_us = paused.longest.0 as f64 / 1e3;
    let allowed = room.conforming_p99_us + LATENCY_ALLOWANCE_US + LATENCY_PAUSES * pause_us;
    checks.push(check(
        "congestion: conforming traffic keeps its latency",
        congested.conforming_p99_us <= allowed,
        format!(
            "p99 {:.2} ms, with room {:.2} ms; the machine was away for up to {:.2} ms",
            congested.conforming_p99_us / 1e3,
            room.conforming_p99_us / 1e3,
            pause_us / 1e3
        ),
    ));
    checks
}

fn judged_conforming(status: &Status, service: &str) -> u64 {
    let of_service = status
        .traffic
        .contracts
        .iter()
        .filter(|contract| contract.service == service);
    of_service.map(|contract| contract.counters.conforming.packets).sum()
}

fn raised(parts: &BTreeMap<&'static str, PartResult>, script: &Script) -> Check {
    let rate = |part: Part| parts[part.name()].conforming.bytes as f64 / script.seconds(part);
    let ratio = rate(Part::After) / rate(Part::Before).max(1.0);
    check(
        "the receiver sees twice as much unmarked after the reload",
        (1.85..=2.15).contains(&ratio),
        format!("{ratio:.2} times as much"),
    )
}

/// Loss lies on excess alone, and on the excess of later classes first.
fn order_of_loss(services: &[ServiceVerdict]) -> Check {
    let share = |class: &str| {
        let of_class = services
            .iter()
            .filter(|s| s.class == class)
            .map(|s| &s.parts[Part::Congestion.name()]);
        let (lost, excess) = of_class.fold((0, 0), |(lost, excess), part| {
            (lost + part.lost, excess + part.excess.packets + part.lost)
        });
        lost as f64 / (excess as f64).max(1.0)
    };
    let [gold, silver, bronze] = ["gold", "silver", "bronze"].map(share);
    check(
        "congestion: excess is lost in the order of the classes, last class first",
        gold < 0.02 && gold < silver && silver < bronze && bronze > 0.9,
        format!(
            "lost of the excess: gold {:.1} %, silver {:.1} %, bronze {:.1} %",
            gold * 1e2,
            silver * 1e2,
            bronze * 1e2
        ),
    )
}

fn reload_is_live(observed: &Observed) -> Check {
    let [before, after, _] = observed.generations;
    check(
        "the reload put a new table to work",
        after > before,
        format!("table {before}, then {after}"),
    )
}

fn refusal(observed: &Observed) -> Check {
    let [_, before, after] = observed.generations;
    let reason = observed.refusal.as_deref().and_then(|text| text.lines().next());
    check(
        "a broken file is refused and changes nothing",
        reason.is_some() && before == after,
        format!("table {after}; {}", reason.unwrap_or("it was taken")),
    )
}

fn ledger(observed: &Observed) -> Check {
    let unaccounted = observed.last.unaccounted();
    let queues = observed.last.traffic.ledger.len();
    check(
        "the gateway's ledger closes",
        unaccounted == 0,
        format!("{unaccounted} packets unaccounted for on {queues} queues"),
    )
}

/// The proof needs a sound sender and receiver.
fn sender(observed: &Observed) -> Check {
    let broken = observed.received.corrupted;
    let dropped = observed.dropped_by_sender;
    check(
        "sender and receiver are sound",
        broken == 0 && dropped == 0,
        format!("{dropped} dropped by the sender's device, {broken} corrupted on arrival"),
    )
}

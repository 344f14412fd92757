//! What is valid and may still not be meant, as far as it depends on the moment or on how things fit together. Findings about
//! many contracts are one message. What a file says wrongly by itself is told by `weir check`.

use std::time::Duration;

use config::units::format_rate;
use config::{Action, Config, Contract, Direction, Endpoint, Grain, Ports, Side, Word};
use ipnet::IpNet;
use jiff::{SignedDuration, Timestamp};
use serde::{Deserialize, Serialize};

use crate::change::diff::ContractName;
use crate::change::fields::{burst_bytes, format_bytes, format_time};

/// One finding.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Finding {
    /// How bad it is.
    pub severity: Severity,
    /// Which rule found it; stable, for scripts.
    pub rule: String,
    /// What was found.
    pub message: String,
    /// What to do about it.
    pub help: String,
    /// How many contracts or endpoints it is about.
    pub count: usize,
    /// The first of them, at most [`NAMED`].
    pub about: Vec<String>,
}

/// How bad a finding is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Severity {
    /// Probably not meant.
    Warning,
    /// Good to know.
    Note,
}

/// Names in a finding: what one reads, not what one scrolls.
pub const NAMED: usize = 5;
/// A contract that ends within this time is about to expire: one that is renewed in office hours must be seen over a weekend.
const SOON: SignedDuration = SignedDuration::from_hours(7 * 24);
/// TCP hands over its initial window, ten segments, back to back (RFC 6928): a smaller bucket marks an idle sender's first data.
const FRAMES_MIN: u64 = 10;
/// A bucket that holds more than a second of the rate lets a second pass unmetered at any time.
const BURST_MAX_NS: u128 = 1_000_000_000;

/// All findings about `config` at `now`, the worst first. `rtt` is the round trip of the services' clients, where it is known.
#[must_use]
pub fn find(config: &Config, now: Timestamp, rtt: Option<Duration>) -> Vec<Finding> {
    let mut found = Vec::new();
    for direction in [Direction::Egress, Direction::Ingress] {
        found.extend(promised(config, direction));
    }
    found.extend(shadowed(config));
    found.extend(by_contract(config, now, rtt));
    found.sort_by_key(|finding| finding.severity);
    found
}

/// The most that contracts of one direction promise at one time, against the ports that carry it.
fn promised(config: &Config, direction: Direction) -> Option<Finding> {
    let port = |wire: &config::Wire| match direction {
        Direction::Egress => wire.wan,
        Direction::Ingress => wire.site,
    };
    let carried = config
        .wires
        .iter()
        .map(|wire| config.ports[port(wire)].rate_bps)
        .sum::<Option<u64>>()?;
    let mut events: Vec<(Timestamp, bool, u64)> = Vec::new();
    for contract in config
        .contracts
        .iter()
        .filter(|c| c.region == config.region && c.direction == direction)
    {
        let rate = contract.meter.rate_bps();
        events.push((contract.from.unwrap_or(Timestamp::MIN), true, rate));
        events.extend(contract.until.map(|until| (until, false, rate)));
    }
    // At one instant ends come first: `until` is exclusive.
    events.sort_unstable();
    let (mut sum, mut most, mut when) = (0_u64, 0_u64, Timestamp::MIN);
    for (at, begins, rate) in events {
        sum = if begins {
            sum.saturating_add(rate)
        } else {
            sum.saturating_sub(rate)
        };
        if sum > most {
            (most, when) = (sum, at);
        }
    }
    let since = if when == Timestamp::MIN {
        String::new()
    } else {
        format!(" from {} on", format_time(when))
    };
    let side = if direction == Direction::Egress {
        Side::Wan
    } else {
        Side::Site
    };
    (most > carried).then(|| Finding {
        severity: Severity::Warning,
        rule: "promised".into(),
        message: format!(
            "{} contracts promise {}{since}, the {} ports carry {}",
            direction.word(),
            format_rate(most),
            side.word(),
            format_rate(carried)
        ),
        help: "conforming traffic may be lost: lower the contracts or raise the port `rate`".into(),
        count: 1,
        about: Vec::new(),
    })
}

/// A rule about single contracts: name, severity, what they are, what to do, and which, with a word about each.
type Rule<'a> = (
    &'static str,
    Severity,
    &'static str,
    &'static str,
    &'a dyn Fn(&Contract) -> Option<String>,
);

fn by_contract(config: &Config, now: Timestamp, rtt: Option<Duration>) -> Vec<Finding> {
    let frame = config.defaults.layer.full_frame_bytes();
    let here = |contract: &Contract| contract.region == config.region;
    let lasts = |contract: &Contract| here(contract) && contract.until.is_none_or(|until| until > now);
    let burst = |contract: &Contract| format!("burst {}", format_bytes(burst_bytes(&contract.meter)));
    let burst_ns = |contract: &Contract| {
        u128::from(burst_bytes(&contract.meter)) * 8_000_000_000 / u128::from(contract.meter.rate_bps().max(1))
    };
    let moves_packets = |contract: &Contract| {
        let reorders = contract.grain == Grain::Packet && contract.action != Action::Drop;
        (lasts(contract) && reorders).then(String::new)
    };
    let rules: [Rule<'_>; 8] = [
        (
            "ended",
            Severity::Warning,
            "past its end",
            "nothing is judged by it any more: renew `until`, or remove it",
            &|c| {
                let until = c.until.filter(|until| here(c) && *until <= now)?;
                Some(format!("ended {}", format_time(until)))
            },
        ),
        (
            "expires",
            Severity::Warning,
            "about to end, within 7 days",
            "renew `until` where it is to go on",
            &|c| {
                let until = c.until.filter(|_| lasts(c))?;
                (until.duration_since(now) <= SOON).then(|| format!("ends {}", format_time(until)))
            },
        ),
        (
            "burst_short",
            Severity::Warning,
            "with a burst of fewer than 10 full frames",
            "a sender's first window (10 segments) is more than that, and is marked though its rate is low: raise `burst`",
            &|c| {
                let short = burst_bytes(&c.meter) < FRAMES_MIN * frame;
                (lasts(c) && short).then(|| burst(c))
            },
        ),
        (
            "burst_rtt",
            Severity::Warning,
            "with a burst of less than a round trip at the rate",
            "a TCP sender that fills the rate has that much under way, and sends it in bursts: raise `burst`, to a round trip or more",
            &|c| {
                let short = rtt.is_some_and(|rtt| burst_ns(c) < rtt.as_nanos());
                (lasts(c) && short).then(|| format!("{}, {:.1} ms", burst(c), burst_ns(c) as f64 / 1e6))
            },
        ),
        (
            "burst_long",
            Severity::Warning,
            "with a burst of more than a second of the rate",
            "that much may pass at once on top of the rate: lower `burst`, 10 ms is the default",
            &|c| {
                let long = burst_ns(c) > BURST_MAX_NS && burst_bytes(&c.meter) > FRAMES_MIN * frame;
                (lasts(c) && long).then(|| format!("{}, {:.1} s", burst(c), burst_ns(c) as f64 / 1e9))
            },
        ),
        (
            "not_begun",
            Severity::Note,
            "not yet begun",
            "nothing to do: it begins by itself",
            &|c| {
                let from = c.from.filter(|from| lasts(c) && *from > now)?;
                Some(format!("begins {}", format_time(from)))
            },
        ),
        (
            "other_region",
            Severity::Note,
            "of another region",
            "nothing to do: it is checked, and not installed here",
            &|c| (!here(c)).then(String::new),
        ),
        (
            "packet_grain",
            Severity::Note,
            "judged packet by packet, with excess in another ring",
            "packets of one TCP flow can overtake each other there, and it slows down: give flows that matter room in `rate`",
            &moves_packets,
        ),
    ];
    rules.into_iter().filter_map(|rule| apply_rule(config, rule)).collect()
}

fn apply_rule(config: &Config, (rule, severity, what, help, test): Rule<'_>) -> Option<Finding> {
    let mut about = Vec::new();
    let mut count = 0;
    for contract in &config.contracts {
        let Some(word) = test(contract) else { continue };
        count += 1;
        if about.len() < NAMED {
            let name = ContractName::of(config, contract).text(&config.region);
            about.push(if word.is_empty() {
                name
            } else {
                format!("{name} ({word})")
            });
        }
    }
    let noun = if count == 1 { "contract" } else { "contracts" };
    (count > 0).then(|| Finding {
        severity,
        rule: rule.to_owned(),
        message: format!("{count} {noun} {what}"),
        help: help.to_owned(),
        count,
        about,
    })
}

/// An endpoint with its service.
struct Claim<'c> {
    net: IpNet,
    ports: Option<&'c Ports>,
    service: usize,
    endpoint: &'c Endpoint,
}

/// Endpoints that no packet can match, because more specific ones of other services cover all of them.
fn shadowed(config: &Config) -> Option<Finding> {
    let mut claims = Vec::new();
    for (service, of_service) in config.services.iter().enumerate() {
        claims.extend(of_service.endpoints.iter().map(|endpoint| Claim {
            net: endpoint.prefix,
            ports: endpoint.ports.as_ref(),
            service,
            endpoint,
        }));
    }
    claims.sort_by_key(|claim| (claim.net.network(), claim.net.prefix_len()));
    let (mut about, mut count, mut steps) = (Vec::new(), 0, 0);
    for (at, claim) in claims.iter().enumerate() {
        if steps > STEPS_MAX {
            break;
        }
        let inside = claims[at + 1..]
            .iter()
            .take_while(|other| claim.net.contains(&other.net));
        let inside = inside
            .inspect(|_| steps += 1)
            .filter(|other| other.net != claim.net && takes(other, claim));
        if let Some(by) = covered_by_others(claim, inside) {
            count += 1;
            if about.len() < NAMED {
                let service = &config.services[claim.service].name;
                about.push(format!(
                    "{} of {service} (by {})",
                    claim.endpoint, config.services[by].name
                ));
            }
        }
    }
    let (noun, verb) = if count == 1 {
        ("endpoint", "is")
    } else {
        ("endpoints", "are")
    };
    (count > 0).then(|| Finding {
        severity: Severity::Warning,
        rule: "shadowed".into(),
        message: format!("{count} {noun} {verb} never matched: more specific ones of other services cover all of it"),
        help: "remove it, or look whether the others are too wide".into(),
        count,
        about,
    })
}

/// Whether every packet of `claim` within the prefix of `other` goes to `other`.
fn takes(other: &Claim<'_>, claim: &Claim<'_>) -> bool {
    match (other.ports, claim.ports) {
        (None, _) => true,
        (Some(_), None) => false,
        (Some(wide), Some(narrow)) => {
            let held = |range: &std::ops::RangeInclusive<u16>| {
                wide.ranges
                    .iter()
                    .any(|w| w.start() <= range.start() && range.end() <= w.end())
            };
            wide.protocol == narrow.protocol && narrow.ranges.iter().all(held)
        }
    }
}

/// One of the other services, if `inside` (sorted, within the claim) leave no address of the claim over.
fn covered_by_others<'a, 'c: 'a>(claim: &Claim<'c>, inside: impl Iterator<Item = &'a Claim<'c>>) -> Option<usize> {
    let width = u32::from(claim.net.max_prefix_len());
    // Addresses as a power of two; only ::/0 does not fit, and there the sum overflows when it is whole.
    let size = |net: &IpNet| 1_u128.checked_shl(width - u32::from(net.prefix_len()));
    let mut last: Option<IpNet> = None;
    let mut sum = Some(0_u128);
    let mut by = None;
    for other in inside {
        by = by.or((other.service != claim.service).then_some(other.service));
        if last.is_some_and(|last| last.contains(&other.net)) {
            continue;
        }
        last = Some(other.net);
        sum = sum.and_then(|sum| sum.checked_add(size(&other.net)?));
    }
    let whole = match (sum, size(&claim.net)) {
        (Some(sum), Some(whole)) => sum == whole,
        (None, _) => true,
        (Some(_), None) => false,
    };
    by.filter(|_| whole)
}

/// Pairs of endpoints looked at: hundreds of thousands of endpoints nested in each other must not hold `plan` up.
const STEPS_MAX: usize = 20_000_000;

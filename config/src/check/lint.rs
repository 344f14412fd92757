//! What is accepted and probably not meant. Findings about many contracts are one message, readable at a thousand.

use jiff::Timestamp;

use super::class::show_dscp;
use crate::diagnostic::{At, Log, Problem};
use crate::types::{Action, Config, Contract, Direction, Side};
use crate::units::format_rate;

/// Where the things stand, by index.
pub(super) struct Places {
    pub(super) contracts: Vec<At>,
    pub(super) ports: Vec<At>,
    pub(super) marks: Vec<At>,
}

/// A property that many contracts may have: what it is, how to mend it, and the test.
type Grouped<'a> = (&'static str, &'static str, &'a dyn Fn(&Contract) -> bool);

pub(super) fn lint(config: &Config, places: &Places, log: &mut Log) {
    for (index, port) in config.ports.iter().enumerate() {
        if !config.wires.iter().any(|wire| wire.site == index || wire.wan == index)
            && let Some(&at) = places.ports.get(index)
        {
            let problem = Problem::new(at, format!("port \"{}\" is in no wire", port.name)).label("unused");
            log.warning(problem.help("add a [[wire]] that names it, or remove it"));
        }
    }
    let now = Timestamp::now();
    let grouped: [Grouped<'_>; 5] = [
        ("without `slo`", "add such as slo = \"99.98 %\"", &|contract| {
            contract.slo_ppm.is_none()
        }),
        ("without a whole period", "add `from` and `until`", &|contract| {
            contract.from.is_none() || contract.until.is_none()
        }),
        (
            "colour-aware in a class without `yellow_dscp` and `red_dscp`",
            "every packet of the class arrives green: list the DSCPs of the other colours, or leave `color_aware` out",
            &|contract| {
                let class = &config.classes[contract.class];
                contract.color_aware && class.yellow_dscp.is_empty() && class.red_dscp.is_empty()
            },
        ),
        (
            "expired",
            "renew `until`, or remove what is no longer wanted",
            &|contract| contract.until.is_some_and(|until| until <= now),
        ),
        (
            "that re-mark excess in a class without `nonconforming_dscp`",
            "give the class one, or write action = \"queue\"",
            &|contract| {
                contract.action == Action::Remark && config.classes[contract.class].nonconforming_dscp.is_none()
            },
        ),
    ];
    for (what, help, found) in grouped {
        group(config, &places.contracts, what, help, found, log);
    }
    marks(config, &places.marks, log);
    wan_sum(config, &places.ports, log);
}

fn group(config: &Config, places: &[At], what: &str, help: &str, found: &dyn Fn(&Contract) -> bool, log: &mut Log) {
    let indices: Vec<usize> = (0..config.contracts.len())
        .filter(|&index| found(&config.contracts[index]))
        .collect();
    let Some(&at) = indices.first().and_then(|&first| places.get(first)) else {
        return;
    };
    let shown: Vec<String> = indices
        .iter()
        .take(5)
        .map(|&index| show(config, &config.contracts[index]))
        .collect();
    let more = if indices.len() > 5 {
        format!(" and {} more", indices.len() - 5)
    } else {
        String::new()
    };
    let noun = if indices.len() == 1 { "contract" } else { "contracts" };
    let problem = Problem::new(
        at,
        format!("{} {noun} {what}: {}{more}", indices.len(), shown.join(", ")),
    );
    log.warning(problem.label("the first").help(help));
}

fn show(config: &Config, contract: &Contract) -> String {
    let direction = if contract.direction == Direction::Egress {
        "egress"
    } else {
        "ingress"
    };
    let (service, class) = (
        &config.services[contract.service].name,
        &config.classes[contract.class].name,
    );
    format!("{service}/{class} {direction} (line {})", contract.place.line)
}

/// Re-marked packets that a second weir would take for conforming ones.
fn marks(config: &Config, places: &[At], log: &mut Log) {
    for (index, class) in config.classes.iter().enumerate() {
        let (Some(mark), Some(&at)) = (class.nonconforming_dscp, places.get(index)) else {
            continue;
        };
        let takes = |(other, candidate): &(usize, &crate::types::Class)| {
            let coloured = candidate.yellow_dscp.contains(&mark) || candidate.red_dscp.contains(&mark);
            candidate.dscp.contains(&mark) || (*other != index && coloured)
        };
        if let Some((_, other)) = config.classes.iter().enumerate().find(takes) {
            let message = format!(
                "class \"{}\" re-marks excess to {}, which leads to class \"{}\"",
                class.name,
                show_dscp(mark),
                other.name
            );
            log.warning(
                Problem::new(at, message)
                    .help("a second weir on the way would meter it again: choose a DSCP that no class lists"),
            );
        }
        if mark == 1 {
            let message = format!(
                "class \"{}\" re-marks excess to LE (RFC 8622): others may starve it altogether",
                class.name
            );
            log.note(Problem::new(at, message));
        }
    }
}

/// The most that egress contracts promise at one time, against what the wan ports carry.
fn wan_sum(config: &Config, places: &[At], log: &mut Log) {
    let wires = config.wires.iter().map(|wire| config.ports[wire.wan].rate_bps);
    let Some(carried) = wires.sum::<Option<u64>>() else {
        return;
    };
    let Some(&at) = config.wires.first().and_then(|wire| places.get(wire.wan)) else {
        return;
    };
    let here = |contract: &&Contract| contract.region == config.region && contract.direction == Direction::Egress;
    let mut events: Vec<(Timestamp, bool, u64)> = Vec::new();
    for contract in config.contracts.iter().filter(here) {
        let rate_bps = contract.meter.rate_bps();
        events.push((contract.from.unwrap_or(Timestamp::MIN), true, rate_bps));
        events.extend(contract.until.map(|until| (until, false, rate_bps)));
    }
    // At one instant ends come first: `until` is exclusive.
    events.sort_unstable();
    let (mut sum, mut most) = (0_u64, 0_u64);
    for (_, begins, rate_bps) in events {
        sum = if begins {
            sum.saturating_add(rate_bps)
        } else {
            sum.saturating_sub(rate_bps)
        };
        most = most.max(sum);
    }
    debug_assert!(config.wires.iter().all(|wire| config.ports[wire.wan].side == Side::Wan));
    if most > carried {
        let message = format!(
            "egress contracts promise up to {} at one time, the wan ports carry {}",
            format_rate(most),
            format_rate(carried)
        );
        log.warning(
            Problem::new(at, message)
                .help("conforming traffic may be lost: lower the contracts or raise the port `rate`"),
        );
    }
}

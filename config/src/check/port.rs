//! Ports and the wires that join them.

use std::collections::HashMap;

use super::word_or_default;
use crate::diagnostic::{At, Log, Problem};
use crate::schema::keys;
use crate::table::{Names, Table, Value};
use crate::types::{Port, Side, Wire};
use crate::units::{format_rate, parse_rate};

pub(super) fn ports<'t>(base: &Table<'t>, whole: bool, log: &mut Log) -> (Vec<Option<Port>>, Names<'t>, Vec<At>) {
    let mut names = Names::new("port", whole);
    let mut interfaces: HashMap<&str, At> = HashMap::new();
    let (mut ports, mut places) = (Vec::new(), Vec::new());
    for table in base.tables("port", "[[port]]", log) {
        table.refuse_unknown(keys::PORT, log);
        let name_value = table.require("name", "\"lan\"", log);
        let name = name_value.and_then(|value| Some((value, value.name(log)?)));
        if let Some((value, name)) = name {
            names.add(value, name, ports.len(), log);
        }
        let interface_value = table.require("interface", "\"eth1\"", log);
        let interface = interface_value.and_then(|value| interface(value, log));
        if let (Some(value), Some(interface)) = (interface_value, interface)
            && let Some(first) = interfaces.insert(interface, value.at)
        {
            let problem = Problem::new(value.at, format!("two ports have the interface \"{interface}\""));
            log.error(
                problem
                    .label("again")
                    .also(first, "first here")
                    .help("give each port its own interface"),
            );
        }
        let side = table
            .require("side", "\"site\" or \"wan\"", log)
            .and_then(|value| value.word(log));
        let rate_bps = table.get("rate").and_then(|value| rate(value, PORT_RATE_MAX, log));
        let xdp = word_or_default(&table, "xdp", log);
        let zero_copy = table.get("zero_copy").map_or(Some(true), |value| value.boolean(log));
        let at = name_value.map_or(table.at, |value| value.at);
        places.push(at);
        let port = || {
            Some(Port {
                name: name?.1.to_owned(),
                interface: interface?.to_owned(),
                side: side?,
                rate_bps,
                xdp,
                zero_copy: zero_copy?,
                place: log.place(at),
            })
        };
        ports.push(port());
    }
    if ports.len() < 2 {
        let problem = Problem::new(
            base.at,
            format!("a box has at least two ports, here are {}", ports.len()),
        );
        log.error(problem.help("add a [[port]] with side = \"site\" and one with side = \"wan\""));
    }
    (ports, names, places)
}

pub(super) fn wires(base: &Table<'_>, ports: &[Option<Port>], names: &Names<'_>, log: &mut Log) -> Vec<Wire> {
    let tables = base.tables("wire", "[[wire]]", log);
    if tables.is_empty() && base.get("wire").is_none() {
        let problem = Problem::new(base.at, "a box has at least one wire, here is none");
        log.error(problem.help("add [[wire]] with ports = [\"lan\", \"uplink\"]"));
    }
    let mut used = HashMap::new();
    let mut wires = Vec::new();
    for table in tables {
        table.refuse_unknown(keys::WIRE, log);
        let bridge = table
            .get("bridge")
            .and_then(|value| interface(value, log))
            .map(str::to_owned);
        let Some(value) = table.require("ports", "[\"lan\", \"uplink\"]", log) else {
            continue;
        };
        let Some(ends) = value.array(log) else { continue };
        let mut found = Vec::new();
        for end in &ends {
            let index = end.string(log).and_then(|name| names.find(*end, name, log));
            let Some(index) = index else { continue };
            if let Some(first) = used.insert(index, end.at) {
                let problem = Problem::new(end.at, "this port is already in a wire")
                    .label("again")
                    .also(first, "first here");
                log.error(problem.help("a port is the end of one wire only"));
            }
            found.push(index);
        }
        if ends.len() != 2 {
            let problem = Problem::new(value.at, format!("a wire has two ports, here are {}", ends.len()));
            log.error(problem.help("name a site port and a wan port"));
        } else if let [a, b] = found[..]
            && a != b
        {
            wires.extend(join(value, a, b, ports, bridge, log));
        }
    }
    wires
}

fn join(
    value: Value<'_>,
    a: usize,
    b: usize,
    ports: &[Option<Port>],
    bridge: Option<String>,
    log: &mut Log,
) -> Option<Wire> {
    let side = |index: usize| ports.get(index).and_then(Option::as_ref).map(|port| port.side);
    match (side(a)?, side(b)?) {
        (Side::Site, Side::Wan) => Some(Wire {
            site: a,
            wan: b,
            bridge,
        }),
        (Side::Wan, Side::Site) => Some(Wire {
            site: b,
            wan: a,
            bridge,
        }),
        _ => {
            let problem = Problem::new(value.at, "both ports of this wire are on the same side").label("same side");
            log.error(problem.help("a wire joins a port with side = \"site\" to one with side = \"wan\""));
            None
        }
    }
}

/// A rate from 8 kbit/s to `max` bit/s.
pub(super) fn rate(value: Value<'_>, max: u64, log: &mut Log) -> Option<u64> {
    let rate_bps = if value.is_integer() {
        value.integer(0, u64::MAX, log)?
    } else if let Some(text) = value.as_str() {
        value.parsed(parse_rate(text), log)?
    } else {
        return value.wrong_type("a rate", "write \"2 Gbit/s\" or an integer of bit/s", log);
    };
    if (RATE_MIN..=max).contains(&rate_bps) {
        return Some(rate_bps);
    }
    let problem = Problem::new(
        value.at,
        format!("`{}` of {} is out of range", value.key, format_rate(rate_bps)),
    );
    log.error(problem.label("out of range").help(format!(
        "it must be from {} to {}",
        format_rate(RATE_MIN),
        format_rate(max)
    )));
    None
}

/// A name that the kernel takes for an interface (`dev_valid_name`).
fn interface<'t>(value: Value<'t>, log: &mut Log) -> Option<&'t str> {
    let text = value.string(log)?;
    let fine = (1..16).contains(&text.len()) && text != "." && text != "..";
    if fine
        && !text
            .chars()
            .any(|c| c.is_whitespace() || c.is_control() || matches!(c, '/' | ':'))
    {
        return Some(text);
    }
    let problem = Problem::new(value.at, format!("`{}` is not the name of an interface", value.key));
    log.error(
        problem
            .label("not an interface")
            .help("1 to 15 bytes without blanks, `/` or `:`, as `ip link` shows it"),
    );
    None
}

/// Below it a full frame takes over a second.
pub(super) const RATE_MIN: u64 = 8_000;
/// The dataplane's shaper computes up to here.
const PORT_RATE_MAX: u64 = 400_000_000_000;

//! The chain of reasons. Each stage is asked of the dataplane first, and put into words then.

use std::path::Path;

use config::{Config, Place};
use dataplane::classify::PathClassifier;
use dataplane::clock::Nanos;
use dataplane::contract::{Action, Contract, ContractIndex, Direction, Judge as Judged};
use dataplane::mark;
use dataplane::meter::{Color, Meter};
use dataplane::packet::{self, Family, Fragment, Headers, Parsed};
use dataplane::priority::Half;
use jiff::Timestamp;

use super::input::{InputError, address, to_hex};
use super::malformed::why_not_ip;
use super::report::{ContractFound, Explanation, Ring};
use super::service;
use crate::change::diff::ContractName;
use crate::change::fields::burst_bytes;
use crate::compile::Compiled;
use crate::report::{Tokens as Levels, color_name, direction_name, half_name};
use crate::status::bits;

/// Why there is no explanation.
#[derive(Debug, thiserror::Error)]
pub enum ExplainError {
    /// The packet cannot be read.
    #[error(transparent)]
    Input(#[from] InputError),
    /// No such port, or one that is in no wire.
    #[error("there is no port `{name}` in a wire; the configuration has: {known}")]
    Port {
        /// The port asked for.
        name: String,
        /// Ports in wires.
        known: String,
    },
}

/// Where tokens come from.
pub(super) enum Tokens<'j> {
    /// A running appliance's: looked at, not taken.
    Live,
    /// Our own: taken as the packets of a capture come. The classifiers, by direction, remember its fragments.
    Own(&'j mut [PathClassifier; 2]),
}

/// What judges, for one packet.
pub(super) struct Judge<'j> {
    pub(super) config: &'j Config,
    pub(super) compiled: &'j Compiled,
    pub(super) tokens: Tokens<'j>,
    pub(super) now: Nanos,
    pub(super) at: Timestamp,
}

/// Where a packet comes in and where it goes.
struct Way {
    from: usize,
    to: usize,
    direction: Direction,
    /// Whether nobody has said so.
    assumed: bool,
}

impl Judge<'_> {
    /// Explains one packet.
    pub(super) fn explain(
        &mut self,
        bytes: &[u8],
        wire_len: u32,
        port: Option<&str>,
    ) -> Result<Explanation, ExplainError> {
        let wire_len = wire_len.max(bytes.len() as u32);
        let parsed = packet::parse(bytes, wire_len as usize);
        let way = self.way(port, parsed.headers())?;
        let mut told = Explanation {
            live: matches!(self.tokens, Tokens::Live),
            port: self.config.ports[way.from].name.clone(),
            direction: direction_name(way.direction).to_owned(),
            ..Explanation::default()
        };
        self.say_way(&mut told, &way);
        let table = &self.compiled.table;
        told.packet.frame_bytes = wire_len;
        let (index, arrived, l3_len) = match &parsed {
            Parsed::Ip(headers) => {
                let (index, arrived) = self.classify(&mut told, headers, way.direction);
                (index, arrived, headers.l3_len)
            }
            Parsed::Other { l3_offset, pcp } => {
                told.packet.pcp = pcp.map(packet::Pcp::get);
                self.say_other(&mut told, bytes, wire_len);
                let l3_len = wire_len.saturating_sub(u32::from(*l3_offset));
                (table.other[way.direction.index()], Color::Green, l3_len)
            }
        };
        let counted = table.layer.count(wire_len, l3_len);
        told.packet.counted_bytes = counted;
        let contract = *table.contract(index);
        self.compiled.class_name(contract.class).clone_into(&mut told.class);
        let half = self.meter(&mut told, &contract, counted, arrived);
        self.conclude(&mut told, &contract, half, bytes, &parsed, way.to);
        Ok(told)
    }

    /// By the port's name, or where a packet with these headers is likely to come in.
    fn way(&self, port: Option<&str>, headers: Option<&Headers>) -> Result<Way, ExplainError> {
        let wires = &self.config.wires;
        let ends = wires.iter().flat_map(|wire| {
            [
                (wire.site, wire.wan, Direction::Egress),
                (wire.wan, wire.site, Direction::Ingress),
            ]
        });
        let way = |(from, to, direction)| Way {
            from,
            to,
            direction,
            assumed: port.is_none(),
        };
        if let Some(name) = port {
            let mut named = ends.clone().filter(|(from, ..)| self.config.ports[*from].name == name);
            return named.next().map(way).ok_or_else(|| ExplainError::Port {
                name: name.to_owned(),
                known: ends
                    .map(|(from, ..)| self.config.ports[from].name.as_str())
                    .collect::<Vec<_>>()
                    .join(", "),
            });
        }
        let classifier = &self.compiled.table.classifier;
        let has_service = |direction| headers.is_some_and(|headers| classifier.service(headers, direction).is_some());
        let inwards = !has_service(Direction::Egress) && has_service(Direction::Ingress);
        let wanted = if inwards { Direction::Ingress } else { Direction::Egress };
        let mut found = ends.filter(|(.., direction)| *direction == wanted);
        // The checks of the configuration want at least one wire.
        found.next().map(way).ok_or_else(|| ExplainError::Port {
            name: String::new(),
            known: "no wire".to_owned(),
        })
    }

    fn say_way(&self, told: &mut Explanation, way: &Way) {
        let [from, to] = [way.from, way.to].map(|port| &self.config.ports[port]);
        let side = config::Word::word(from.side);
        let assumed = if way.assumed {
            " (assumed: --port says otherwise)"
        } else {
            ""
        };
        let text = format!(
            "{} is a {side} port, so to {} is {}{assumed}",
            from.name, to.name, told.direction
        );
        told.say("port", text, Some(&from.place));
    }

    /// From headers to the entry of the table, and the colour on arrival.
    fn classify(&mut self, told: &mut Explanation, headers: &Headers, direction: Direction) -> (ContractIndex, Color) {
        self.say_headers(told, headers);
        let table = &self.compiled.table;
        let service = match &mut self.tokens {
            Tokens::Own(paths) => paths[direction.index()].service(table, headers, self.now),
            Tokens::Live => table.classifier.service(headers, direction),
        };
        let (class, arrived) = table.classes.class(headers.dscp, headers.pcp);
        let index = table.classifier.contract(service, class, direction, headers);
        let service = service.map(|service| self.compiled.service_name(service).to_owned());
        let class = self.compiled.class_name(class).to_owned();
        service::say_service(told, self.config, headers, direction, service.as_deref());
        if matches!(headers.fragment, Fragment::Later { .. }) {
            let text = match self.tokens {
                Tokens::Live => {
                    "a later fragment has no ports: its worker knows the first one's service, if that was seen; here by address"
                }
                Tokens::Own(_) => "a later fragment has no ports: it follows its first one where the capture has that",
            };
            told.say("service", text, None);
        }
        say_class(told, self.config, headers, &class, arrived);
        match self.compiled.contract_name(index) {
            Some(name) => {
                let found = self
                    .config
                    .contracts
                    .iter()
                    .find(|contract| ContractName::of(self.config, contract) == name && contract.valid_at(self.at));
                if let Some(contract) = found {
                    say_contract(told, self.config, contract);
                }
            }
            None => service::say_uncontracted(
                told,
                self.config,
                headers,
                direction,
                (service.as_deref(), &class),
                self.at,
            ),
        }
        told.service = service;
        (index, arrived)
    }

    fn say_headers(&self, told: &mut Explanation, headers: &Headers) {
        let [src, dst] = [headers.src, headers.dst].map(|bits| address(headers.family, bits));
        let facts = &mut told.packet;
        facts.vlan_tags = headers.vlan_tags;
        facts.pcp = headers.pcp.map(packet::Pcp::get);
        facts.protocol = Some(headers.protocol);
        facts.src_port = headers.ports.map(|ports| ports.src);
        facts.dst_port = headers.ports.map(|ports| ports.dst);
        facts.dscp = Some(headers.dscp.get());
        facts.ecn = Some(headers.ecn);
        let fragment = match headers.fragment {
            Fragment::Whole => "whole",
            Fragment::First { .. } => "first",
            Fragment::Later { .. } => "later",
        };
        facts.fragment = Some(fragment.to_owned());
        let end = |address: std::net::IpAddr, port: Option<u16>| match (address, port) {
            (address, None) => address.to_string(),
            (address, Some(port)) => std::net::SocketAddr::new(address, port).to_string(),
        };
        let mut text = format!(
            "{} {} from {} to {}, {} bytes of IP, DSCP {}",
            if headers.family == Family::Ipv4 { "IPv4" } else { "IPv6" },
            protocol_name(headers.protocol),
            end(src, facts.src_port),
            end(dst, facts.dst_port),
            headers.l3_len,
            dscp_text(headers.dscp.get()),
        );
        match (headers.vlan_tags, facts.pcp) {
            (1, Some(pcp)) => text += &format!(", a VLAN tag with PCP {pcp}"),
            (2, Some(pcp)) => text += &format!(", two VLAN tags, the outer with PCP {pcp}"),
            _ => {}
        }
        match headers.fragment {
            Fragment::Whole => {}
            Fragment::First { id } => text += &format!(", first fragment of datagram {id}"),
            Fragment::Later { id } => text += &format!(", later fragment of datagram {id}"),
        }
        (facts.src, facts.dst) = (Some(src.to_string()), Some(dst.to_string()));
        told.say("packet", text, None);
    }

    fn say_other(&self, told: &mut Explanation, bytes: &[u8], wire_len: u32) {
        let reason = why_not_ip(bytes, wire_len as usize);
        let text = reason.as_ref().map_or("not IP".to_owned(), ToString::to_string);
        let broken = reason.as_ref().is_some_and(|reason| reason.broken);
        told.packet.not_ip = reason;
        let text = if broken { format!("malformed: {text}") } else { text };
        told.say(
            "packet",
            format!("{text}; {} bytes of frame", told.packet.frame_bytes),
            None,
        );
        told.say(
            "packet",
            "so it has no service, and no contract can hold it: such packets are never dropped for being strange",
            None,
        );
        let other = self.config.defaults.other;
        let (class, half) = (
            &self.config.classes[other.class].name,
            config::Word::word(other.conformance),
        );
        match self.config.defaults.places.of("other") {
            Some(place) => told.say(
                "class",
                format!("[defaults] other sends it to {class}, {half}"),
                Some(place),
            ),
            None => told.say(
                "class",
                format!("{class}, {half}: the default class, as [defaults] other does not say otherwise"),
                Some(&self.config.classes[other.class].place),
            ),
        }
    }

    /// Asks the meter; says in which half the packet goes.
    fn meter(&self, told: &mut Explanation, contract: &Contract, counted: u32, arrived: Color) -> Half {
        let table = &self.compiled.table;
        let meter = match &contract.judge {
            Judged::Meter(meter) => meter,
            Judged::Always(half) => return *half,
        };
        let levels = table.cells.levels(meter, contract.slot, self.now);
        told.tokens = Some(Levels {
            committed: levels.committed_bytes,
            second: levels.second_bytes,
        });
        let color = match self.tokens {
            Tokens::Own(_) => meter.color(&table.cells.of(0).cell(contract.slot).purse, counted, self.now, arrived),
            Tokens::Live => self.live_color(told, meter, contract, counted, arrived),
        };
        let now = if told.live {
            " now, of which nothing was taken"
        } else {
            ""
        };
        let second = levels
            .second_bytes
            .map_or(String::new(), |bytes| format!(" and {bytes} in the second bucket"));
        let text = format!(
            "{} bytes of tokens{now}{second}, the packet counts {counted}: {}",
            levels.committed_bytes,
            color_name(color)
        );
        told.say("meter", text, None);
        told.color = Some(color_name(color).to_owned());
        if color == Color::Green {
            Half::Conforming
        } else {
            Half::Nonconforming
        }
    }

    /// What the first worker would say; the others are named if they would say something else.
    fn live_color(
        &self,
        told: &mut Explanation,
        meter: &Meter,
        contract: &Contract,
        counted: u32,
        arrived: Color,
    ) -> Color {
        let cells = &self.compiled.table.cells;
        let colors: Vec<Color> = (0..cells.workers())
            .map(|worker| cells.would_color(meter, contract.slot, worker, counted, self.now, arrived))
            .collect();
        let first = colors.first().copied().unwrap_or(Color::Green);
        if let Some(other) = colors.iter().position(|color| *color != first) {
            let text = format!(
                "worker {other} would say {}: part of the burst lies with single workers",
                color_name(colors[other])
            );
            told.say("meter", text, None);
        }
        first
    }

    /// Verdict, marks and ring.
    fn conclude(
        &self,
        told: &mut Explanation,
        contract: &Contract,
        half: Half,
        bytes: &[u8],
        parsed: &Parsed,
        to: usize,
    ) {
        let half_name = half_name(half);
        half_name.clone_into(&mut told.verdict);
        told.say("verdict", half_name, None);
        let place = told.contract.as_ref().map(|contract| Place {
            file: Path::new(&contract.file).into(),
            line: contract.line,
            column: 1,
        });
        let place = place.as_ref();
        let mut leaves = bytes.to_vec();
        if half == Half::Nonconforming {
            match (contract.action, parsed) {
                (Action::Drop, _) => {
                    told.say(
                        "verdict",
                        "dropped (policed): [contract.excess] action = \"drop\"",
                        place,
                    );
                    told.dropped = Some("policed".to_owned());
                    return;
                }
                (Action::Queue, Parsed::Ip(_)) => {
                    told.say("marks", "not touched: [contract.excess] action = \"queue\"", place);
                }
                (Action::Remark, Parsed::Ip(headers)) => self.remark(told, contract, headers, &mut leaves),
                (_, Parsed::Other { .. }) => {}
            }
        } else if let Parsed::Ip(headers) = parsed {
            told.say(
                "marks",
                format!("leaves with DSCP {}, as it came", dscp_text(headers.dscp.get())),
                None,
            );
        }
        self.leaves(told, half, &leaves, to);
    }

    /// What it looks like from here on, and where it waits.
    fn leaves(&self, told: &mut Explanation, half: Half, leaves: &[u8], to: usize) {
        let half_name = half_name(half);
        let parsed = packet::parse(leaves, told.packet.frame_bytes as usize);
        told.dscp_out = parsed.headers().map(|headers| headers.dscp.get());
        told.pcp_out = match &parsed {
            Parsed::Ip(headers) => headers.pcp,
            Parsed::Other { pcp, .. } => *pcp,
        }
        .map(packet::Pcp::get);
        told.leaves_as = Some(to_hex(leaves));
        let port = self.config.ports[to].name.clone();
        let first = if half == Half::Nonconforming {
            ", behind everything conforming"
        } else {
            ""
        };
        told.say(
            "ring",
            format!("{half_name} ring of class {} towards {port}{first}", told.class),
            None,
        );
        told.ring = Some(Ring {
            port,
            class: told.class.clone(),
            half: half_name.to_owned(),
        });
        told.say(
            "note",
            "it can still be dropped there: a full ring, CoDel, few free frames",
            None,
        );
    }

    fn remark(&self, told: &mut Explanation, contract: &Contract, headers: &Headers, leaves: &mut [u8]) {
        let class = self.config.classes.iter().find(|class| class.name == told.class);
        let place = |key: &str| class.and_then(|class| class.places.of(key));
        let before = dscp_text(headers.dscp.get());
        match contract.marking.dscp {
            Some(dscp) if mark::set_dscp(leaves, headers.l3_offset, headers.family, dscp) => {
                let text = format!("DSCP {before} becomes {}", dscp_text(dscp.get()));
                told.say("marks", text, place("nonconforming_dscp"));
            }
            Some(_) => {
                let text = format!("leaves with DSCP {before}, which is what excess gets");
                told.say("marks", text, place("nonconforming_dscp"));
            }
            None => {
                let text = format!("leaves with DSCP {before}: the class has no nonconforming_dscp");
                told.say("marks", text, class.map(|class| &class.place));
            }
        }
        if let Some(pcp) = contract.marking.pcp
            && mark::set_pcp(leaves, pcp)
        {
            told.say(
                "marks",
                format!("PCP becomes {}", pcp.get()),
                place("nonconforming_pcp"),
            );
        }
    }
}

fn say_class(told: &mut Explanation, config: &Config, headers: &Headers, class: &str, arrived: Color) {
    let Some(found) = config.classes.iter().find(|known| known.name == class) else {
        return;
    };
    let dscp = headers.dscp.get();
    let lists = [
        ("dscp", &found.dscp),
        ("yellow_dscp", &found.yellow_dscp),
        ("red_dscp", &found.red_dscp),
    ];
    if let Some((key, _)) = lists.iter().find(|(_, list)| list.contains(&dscp)) {
        let color = if arrived == Color::Green {
            String::new()
        } else {
            format!(", arrives {}", color_name(arrived))
        };
        let text = format!("DSCP {} is in `{key}` of class {class}{color}", dscp_text(dscp));
        return told.say("class", text, found.places.of(key));
    }
    if let Some(pcp) = headers.pcp.map(packet::Pcp::get).filter(|pcp| found.pcp.contains(pcp)) {
        let text = format!(
            "no class lists DSCP {}; PCP {pcp} is in `pcp` of class {class}",
            dscp_text(dscp)
        );
        return told.say("class", text, found.places.of("pcp"));
    }
    let why = if found.places.of("default").is_some() {
        "the default"
    } else {
        "the last by priority, and so the default"
    };
    let pcp = headers
        .pcp
        .map_or(String::new(), |pcp| format!(" or PCP {}", pcp.get()));
    let text = format!("no class lists DSCP {}{pcp}: class {class}, {why}", dscp_text(dscp));
    told.say("class", text, Some(found.places.of("default").unwrap_or(&found.place)));
}

fn say_contract(told: &mut Explanation, config: &Config, contract: &config::Contract) {
    let segment = contract.segment.map(|segment| &config.segments[segment]);
    let found = ContractFound {
        service: config.services[contract.service].name.clone(),
        class: config.classes[contract.class].name.clone(),
        direction: config::Word::word(contract.direction).to_owned(),
        segment: segment.map(|segment| segment.name.clone()),
        rate_bps: contract.meter.rate_bps(),
        file: contract.place.file.display().to_string(),
        line: contract.place.line,
    };
    let towards = found
        .segment
        .as_ref()
        .map_or(String::new(), |name| format!(" segment {name}"));
    let period = match (contract.from, contract.until) {
        (None, None) => String::new(),
        (Some(from), None) => format!(", since {from}"),
        (None, Some(until)) => format!(", until {until}"),
        (Some(from), Some(until)) => format!(", from {from} until {until}"),
    };
    let text = format!(
        "{} {} {}{towards}: {}, burst {} bytes, {}{period}",
        found.service,
        found.class,
        found.direction,
        bits(found.rate_bps),
        burst_bytes(&contract.meter),
        config::Word::word(contract.meter.kind()),
    );
    told.say("contract", text, Some(&contract.place));
    if let Some(segment) = segment {
        told.say(
            "contract",
            format!("segment {} holds the far address", segment.name),
            Some(&segment.place),
        );
    }
    told.contract = Some(found);
}

/// `46 (EF)`, `3`.
fn dscp_text(dscp: u8) -> String {
    match config::dscp_name(dscp) {
        Some(name) => format!("{dscp} ({name})"),
        None => dscp.to_string(),
    }
}

/// The protocols that people ask about.
pub(super) fn protocol_name(protocol: u8) -> String {
    match protocol {
        1 => "ICMP".to_owned(),
        2 => "IGMP".to_owned(),
        4 => "IP in IP".to_owned(),
        6 => "TCP".to_owned(),
        17 => "UDP".to_owned(),
        41 => "IPv6 in IP".to_owned(),
        47 => "GRE".to_owned(),
        50 => "ESP".to_owned(),
        58 => "ICMPv6".to_owned(),
        89 => "OSPF".to_owned(),
        132 => "SCTP".to_owned(),
        other => format!("protocol {other}"),
    }
}

//! In words: whose packet it is, who else might have had it, and why no contract holds it.

use std::net::IpAddr;

use config::{Config, Endpoint, Service};
use dataplane::contract::Direction;
use dataplane::packet::Headers;
use jiff::Timestamp;

use super::input::address;
use super::report::Explanation;

/// Beaten endpoints that are named; the others are counted.
const BEATEN: usize = 4;

/// An endpoint whose prefix holds the site-side address.
struct Candidate<'c> {
    service: &'c Service,
    endpoint: &'c Endpoint,
    /// Whether its ports match too.
    fits: bool,
}

impl Candidate<'_> {
    /// The larger wins: the longest prefix, then one with ports.
    fn rank(&self) -> (bool, u8, bool) {
        (
            self.fits,
            self.endpoint.prefix.prefix_len(),
            self.endpoint.ports.is_some(),
        )
    }
}

/// The service, the endpoint that decided, and those that were beaten. `found` is what the classifier says.
pub(super) fn say_service(
    told: &mut Explanation,
    config: &Config,
    headers: &Headers,
    direction: Direction,
    found: Option<&str>,
) {
    let (site, port) = site_side(headers, direction);
    let mut candidates = candidates(config, site, headers.protocol, port);
    candidates.sort_by_key(|candidate| std::cmp::Reverse(candidate.rank()));
    let winner = candidates
        .iter()
        .position(|candidate| candidate.fits && Some(candidate.service.name.as_str()) == found);
    let which = match direction {
        Direction::Egress => "source",
        Direction::Ingress => "destination",
    };
    match (winner, found) {
        (Some(at), _) => {
            let Candidate { service, endpoint, .. } = &candidates[at];
            let text = format!("{which} {site} is in service {} by endpoint {endpoint}", service.name);
            told.say("service", text, Some(&service.place_of(endpoint)));
        }
        // A later fragment, which follows its first one.
        (None, Some(name)) => told.say("service", format!("{name}, as its first fragment"), None),
        (None, None) => told.say(
            "service",
            format!("none: no endpoint holds {which} {site} as this packet has it"),
            None,
        ),
    }
    let best = winner.map(|at| candidates[at].rank());
    let beaten = candidates.iter().enumerate().filter(|(at, _)| Some(*at) != winner);
    let beaten: Vec<_> = beaten.map(|(_, candidate)| candidate).collect();
    for candidate in beaten.iter().take(BEATEN) {
        let why = match best {
            _ if !candidate.fits => "its ports are others",
            Some((_, length, _)) if candidate.endpoint.prefix.prefix_len() < length => "a shorter prefix",
            Some(_) => "the same prefix, but without ports",
            None => "not asked: its first fragment decides",
        };
        let Candidate { service, endpoint, .. } = candidate;
        let text = format!("beaten: {} by {endpoint}: {why}", service.name);
        told.say("service", text, Some(&service.place_of(endpoint)));
    }
    if beaten.len() > BEATEN {
        told.say("service", format!("beaten: {} more", beaten.len() - BEATEN), None);
    }
}

fn site_side(headers: &Headers, direction: Direction) -> (IpAddr, Option<u16>) {
    let ports = headers.ports;
    match direction {
        Direction::Egress => (address(headers.family, headers.src), ports.map(|ports| ports.src)),
        Direction::Ingress => (address(headers.family, headers.dst), ports.map(|ports| ports.dst)),
    }
}

fn candidates(config: &Config, site: IpAddr, protocol: u8, port: Option<u16>) -> Vec<Candidate<'_>> {
    let fits = |endpoint: &Endpoint| match (&endpoint.ports, port) {
        (None, _) => true,
        (Some(_), None) => false,
        (Some(ports), Some(port)) => {
            let number = match ports.protocol {
                config::Protocol::Tcp => 6,
                config::Protocol::Udp => 17,
            };
            number == protocol && ports.ranges.iter().any(|range| range.contains(&port))
        }
    };
    let mut found = Vec::new();
    for service in &config.services {
        let holding = service
            .endpoints
            .iter()
            .filter(|endpoint| endpoint.prefix.contains(&site));
        found.extend(holding.map(|endpoint| Candidate {
            service,
            endpoint,
            fits: fits(endpoint),
        }));
    }
    found
}

/// Why no contract holds a packet of this service and class, what becomes of it, and what would change that.
pub(super) fn say_uncontracted(
    told: &mut Explanation,
    config: &Config,
    headers: &Headers,
    direction: Direction,
    (service, class): (Option<&str>, &str),
    at: Timestamp,
) {
    let far = match direction {
        Direction::Egress => address(headers.family, headers.dst),
        Direction::Ingress => address(headers.family, headers.src),
    };
    let direction = crate::report::direction_name(direction);
    match service {
        None => told.say("contract", "none: without a service there is no contract", None),
        Some(service) => {
            let none = format!("none for {service} {class} {direction}");
            told.say("contract", none, None);
            say_near_misses(told, config, (service, class, direction), far, at);
        }
    }
    let half = config::Word::word(config.defaults.uncontracted);
    match config.defaults.places.of("uncontracted") {
        Some(place) => told.say("contract", format!("[defaults] uncontracted = \"{half}\""), Some(place)),
        None => told.say(
            "contract",
            format!("{half}: [defaults] uncontracted does not say otherwise"),
            None,
        ),
    }
    let change = match service {
        None => {
            "to change it: an endpoint that holds the address, in some [[service]], and a [[contract]] of it".to_owned()
        }
        Some(service) => format!(
            "to change it: a [[contract]] with service = \"{service}\", class = \"{class}\", direction = \"{direction}\""
        ),
    };
    told.say("contract", change, None);
}

/// Contracts that would hold it, were it not for one thing.
fn say_near_misses(
    told: &mut Explanation,
    config: &Config,
    (service, class, direction): (&str, &str, &str),
    far: IpAddr,
    at: Timestamp,
) {
    let of_service = config
        .contracts
        .iter()
        .filter(|contract| config.services[contract.service].name == service);
    for contract in of_service.take(8) {
        let (its_class, its_direction) = (
            &config.classes[contract.class].name,
            config::Word::word(contract.direction),
        );
        let segment = contract.segment.map(|segment| &config.segments[segment]);
        let why = if its_class != class {
            format!("is of class {its_class}")
        } else if its_direction != direction {
            format!("is {its_direction}")
        } else if contract.region != config.region {
            format!("is of region {}, this box stands in {}", contract.region, config.region)
        } else if let Some(from) = contract.from.filter(|from| *from > at) {
            format!("begins at {from}")
        } else if let Some(until) = contract.until.filter(|until| *until <= at) {
            format!("ended at {until}")
        } else if let Some(segment) = segment {
            format!("is for segment {}, which does not hold {far}", segment.name)
        } else {
            continue;
        };
        told.say("contract", format!("this one {why}"), Some(&contract.place));
    }
}

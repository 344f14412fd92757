//! Which service, class and contract a packet belongs to, by asking every entry of the configuration in turn.

use std::net::IpAddr;

use super::dissect::IpPacket;
use super::meter::Colour;
use super::model::{Config, Contract, Direction, Endpoint};

/// The service and class of a packet as indices into the configuration, and the colour it came with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Classification {
    /// Index of the service, if any endpoint matched.
    pub service: Option<usize>,
    /// Index of the class.
    pub class: usize,
    /// From `yellow_dscp` and `red_dscp`; else green.
    pub colour: Colour,
}

/// Service of the site side, from the best of all endpoints that match: "the longest prefix wins; at equal length one
/// with protocol and ports beats one without".
pub fn service(config: &Config, packet: &IpPacket, direction: Direction) -> Option<usize> {
    let mut best: Option<((u8, bool), usize)> = None;
    for (index, service) in config.services.iter().enumerate() {
        for endpoint in &service.endpoints {
            let rank = (endpoint.prefix.length, endpoint.ports.is_some());
            if matches(endpoint, packet, direction) && best.is_none_or(|(best_rank, _)| rank > best_rank) {
                best = Some((rank, index));
            }
        }
    }
    best.map(|(_, index)| index)
}

/// Class and arriving colour: the DSCP if a class lists it, else the PCP of the outer tag if a class lists it, else the
/// default class.
pub fn class(config: &Config, packet: &IpPacket) -> (usize, Colour) {
    for (index, class) in config.classes.iter().enumerate() {
        for (list, colour) in [
            (&class.dscp, Colour::Green),
            (&class.yellow_dscp, Colour::Yellow),
            (&class.red_dscp, Colour::Red),
        ] {
            if list.contains(&packet.dscp) {
                return (index, colour);
            }
        }
    }
    let by_pcp = packet
        .pcp
        .and_then(|pcp| config.classes.iter().position(|class| class.pcp.contains(&pcp)));
    let default = config
        .classes
        .iter()
        .position(|class| class.is_default)
        .expect("a model has a default class");
    (by_pcp.unwrap_or(default), Colour::Green)
}

/// The contract in force at `now_ns`, as an index: the one whose segment's matching prefix is longest, else the one without
/// segment. A contract of another region or outside its period does not exist.
pub fn contract(
    config: &Config,
    packet: &IpPacket,
    direction: Direction,
    (service, class): (usize, usize),
    now_ns: u64,
) -> Option<usize> {
    let far = match direction {
        Direction::Egress => packet.destination,
        Direction::Ingress => packet.source,
    };
    let mut best: Option<(i32, usize)> = None;
    for (index, contract) in config.contracts.iter().enumerate() {
        if contract.service != config.services[service].name
            || contract.class != config.classes[class].name
            || contract.region != config.region
            || contract.direction != direction
            || !in_force(contract, now_ns)
        {
            continue;
        }
        let rank = match &contract.segment {
            // Below a prefix of length 0.
            None => Some(-1),
            Some(name) => longest_match(config, name, far),
        };
        if let Some(rank) = rank
            && best.is_none_or(|(best_rank, _)| rank > best_rank)
        {
            best = Some((rank, index));
        }
    }
    best.map(|(_, index)| index)
}

fn matches(endpoint: &Endpoint, packet: &IpPacket, direction: Direction) -> bool {
    let (address, port) = match direction {
        Direction::Egress => (packet.source, packet.ports.map(|(source, _)| source)),
        Direction::Ingress => (packet.destination, packet.ports.map(|(_, destination)| destination)),
    };
    if !endpoint.prefix.contains(address) {
        return false;
    }
    endpoint.ports.as_ref().is_none_or(|ports| {
        let in_a_range = |port| ports.ranges.iter().any(|&(first, last)| (first..=last).contains(&port));
        ports.protocol == packet.protocol && port.is_some_and(in_a_range)
    })
}

fn longest_match(config: &Config, segment: &str, far: IpAddr) -> Option<i32> {
    let segment = config.segments.iter().find(|candidate| candidate.name == segment)?;
    segment
        .prefixes
        .iter()
        .filter(|prefix| prefix.contains(far))
        .map(|prefix| i32::from(prefix.length))
        .max()
}

/// `from` is inclusive, `until` exclusive.
fn in_force(contract: &Contract, now_ns: u64) -> bool {
    let ns = |second: u64| u128::from(second) * 1_000_000_000;
    let now_ns = u128::from(now_ns);
    contract.from_s.is_none_or(|from_s| ns(from_s) <= now_ns)
        && contract.until_s.is_none_or(|until_s| now_ns < ns(until_s))
}

#[cfg(test)]
mod tests {
    use super::super::meter::Profile;
    use super::super::model::{Action, Class, Layer, Ports, Prefix, Segment, Service};
    use super::*;

    fn prefix(text: &str) -> Prefix {
        let (address, length) = text.split_once('/').unwrap();
        Prefix {
            address: address.parse().unwrap(),
            length: length.parse().unwrap(),
        }
    }

    fn contract_of(segment: Option<&str>, until_s: Option<u64>) -> Contract {
        Contract {
            service: "wide".into(),
            class: "gold".into(),
            region: "atn".into(),
            direction: Direction::Egress,
            segment: segment.map(str::to_owned),
            profile: Profile::TokenBucket {
                rate_bps: 8_000,
                burst_bytes: 1_500,
            },
            burst_text: None,
            color_aware: false,
            action: Action::Remark,
            from_s: None,
            until_s,
        }
    }

    fn config() -> Config {
        let class = |name: &str, is_default: bool, dscp: u8, pcp: u8| Class {
            name: name.into(),
            priority: 1,
            is_default,
            dscp: vec![dscp],
            yellow_dscp: vec![dscp + 1],
            red_dscp: vec![dscp + 2],
            pcp: vec![pcp],
            nonconforming_dscp: None,
        };
        let service = |name: &str, text: &str, ports: Option<Ports>| Service {
            name: name.into(),
            endpoints: vec![Endpoint {
                prefix: prefix(text),
                ports,
            }],
        };
        let https = || {
            Some(Ports {
                protocol: 6,
                ranges: vec![(443, 443)],
            })
        };
        Config {
            region: "atn".into(),
            layer: Layer::L3,
            uncontracted_conforms: false,
            classes: vec![class("best-effort", true, 0, 1), class("gold", false, 40, 5)],
            segments: vec![
                Segment {
                    name: "far".into(),
                    prefixes: vec![prefix("0.0.0.0/0"), prefix("198.51.100.0/25")],
                },
                Segment {
                    name: "near".into(),
                    prefixes: vec![prefix("198.51.100.0/24")],
                },
            ],
            services: vec![
                service("wide", "10.0.0.0/8", None),
                service("web", "10.0.0.0/8", https()),
                service("long", "10.1.0.0/16", None),
                service(
                    "long-dns",
                    "10.1.2.0/24",
                    Some(Ports {
                        protocol: 17,
                        ranges: vec![(53, 53)],
                    }),
                ),
            ],
            contracts: vec![
                contract_of(None, None),
                contract_of(Some("far"), Some(5)),
                contract_of(Some("near"), None),
                Contract {
                    region: "elsewhere".into(),
                    ..contract_of(Some("near"), None)
                },
            ],
        }
    }

    fn packet(source: &str, protocol: u8, port: u16) -> IpPacket {
        IpPacket {
            pcp: None,
            ip_offset: 14,
            ipv4_header_bytes: Some(20),
            total_bytes: 40,
            dscp: 40,
            source: source.parse().unwrap(),
            destination: "198.51.100.7".parse().unwrap(),
            protocol,
            ports: Some((port, 9)),
            fragment: None,
        }
    }

    #[test]
    fn the_longest_prefix_that_matches_wins_then_ports() {
        let config = config();
        let service = |packet: &IpPacket| {
            service(&config, packet, Direction::Egress).map(|index| config.services[index].name.as_str())
        };
        assert_eq!(service(&packet("10.9.0.1", 6, 80)), Some("wide"));
        assert_eq!(service(&packet("10.9.0.1", 6, 443)), Some("web"));
        assert_eq!(service(&packet("10.9.0.1", 17, 443)), Some("wide"), "another protocol");
        assert_eq!(
            service(&packet("10.1.9.1", 6, 443)),
            Some("long"),
            "length before ports"
        );
        assert_eq!(service(&packet("10.1.2.1", 17, 53)), Some("long-dns"));
        assert_eq!(
            service(&packet("10.1.2.1", 17, 54)),
            Some("long"),
            "the longest one does not match"
        );
        assert_eq!(service(&packet("11.0.0.1", 6, 443)), None);
        let without_ports = IpPacket {
            ports: None,
            ..packet("10.9.0.1", 6, 443)
        };
        assert_eq!(service(&without_ports), Some("wide"));
        assert_eq!(
            super::service(&config, &without_ports, Direction::Ingress),
            None,
            "the site is the destination"
        );
    }

    #[test]
    fn the_code_point_decides_before_the_tag_and_the_tag_before_the_default() {
        let config = config();
        let class = |dscp, pcp| {
            class(
                &config,
                &IpPacket {
                    dscp,
                    pcp,
                    ..packet("10.0.0.1", 6, 1)
                },
            )
        };
        assert_eq!(class(40, Some(1)), (1, Colour::Green));
        assert_eq!(class(41, None), (1, Colour::Yellow));
        assert_eq!(class(42, None), (1, Colour::Red));
        assert_eq!(class(63, Some(5)), (1, Colour::Green));
        assert_eq!(class(63, Some(7)), (0, Colour::Green));
        assert_eq!(class(63, None), (0, Colour::Green));
    }

    #[test]
    fn the_longest_matching_segment_in_force_wins() {
        let config = config();
        let contract = |far: &str, now_ns| {
            let packet = IpPacket {
                destination: far.parse().unwrap(),
                ..packet("10.0.0.1", 6, 1)
            };
            contract(&config, &packet, Direction::Egress, (0, 1), now_ns)
        };
        assert_eq!(
            contract("198.51.100.7", 0),
            Some(1),
            "a /25 of the segment that also holds a /0"
        );
        assert_eq!(contract("198.51.100.200", 0), Some(2));
        assert_eq!(contract("203.0.113.1", 0), Some(1));
        assert_eq!(contract("198.51.100.7", 4_999_999_999), Some(1));
        assert_eq!(contract("198.51.100.7", 5_000_000_000), Some(2), "until is exclusive");
        assert_eq!(contract("203.0.113.1", 5_000_000_000), Some(0), "no segment left");
        let packet = packet("10.0.0.1", 6, 1);
        assert_eq!(super::contract(&config, &packet, Direction::Ingress, (0, 1), 0), None);
        assert_eq!(super::contract(&config, &packet, Direction::Egress, (0, 0), 0), None);
    }
}

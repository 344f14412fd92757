//! Traffic straight from a contract set: each contract in force becomes a service that sends a multiple of its entitlement.
//!
//! A contract says all that a packet must have to fall under it: addresses and ports of the service, DSCP or PCP of the class,
//! far addresses of the segment. Where it leaves a choice, the first value that is listed is taken.

use std::collections::BTreeMap;
use std::net::{Ipv4Addr, Ipv6Addr};
use std::ops::RangeInclusive;
use std::str::FromStr;

use config::types::{Class, Config, Contract, Direction, Endpoint, Layer, Protocol as PortProtocol};
use ipnet::{IpNet, Ipv4Net, Ipv6Net};
use jiff::Timestamp;

use crate::imix::FrameMix;
use crate::load::frame_bytes;
use crate::stream::{FlowOrder, Protocol, Stream, Vlan};
use crate::trial::ServiceTraffic;

/// How much of its entitlement each service sends: "0.9" for everyone, "ads=3" for one, "0.9,ads=3" for both.
#[derive(Clone, Debug, PartialEq)]
pub struct Multiples {
    everyone: f64,
    services: BTreeMap<String, f64>,
}

/// What contracts leave open.
#[derive(Clone, Debug, PartialEq)]
pub struct Choice {
    /// Which contracts: those of traffic from site to wan, or from wan to site.
    pub direction: Direction,
    /// Sizes of packets.
    pub frames: FrameMix,
    /// Flows of each contract, as far as it has room for them.
    pub flows: u32,
    /// Which flow gets the next packet.
    pub flow_order: FlowOrder,
    /// Ethernet addresses of packets.
    pub source_mac: [u8; 6],
    /// The far end's, or anybody's: a wire does not look at it.
    pub destination_mac: [u8; 6],
}

/// Why no traffic can be made of a contract set.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub enum ContractsError {
    /// Nothing to send.
    #[error(
        "no contract of region \"{region}\" and direction {direction} is in force now: nothing to send (see `weir check`)"
    )]
    NoneInForce {
        /// The region of the configuration.
        region: String,
        /// "egress" or "ingress".
        direction: &'static str,
    },
    /// A multiple for nobody.
    #[error("a multiple is given for service \"{0}\", which has no contract in force in this direction")]
    UnknownService(String),
}

/// What is wrong with a list of multiples.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("\"{0}\" is not a multiple: write 0.9 for everyone or ads=3 for one service, 0 to 1000, separated by commas")]
pub struct MultipleError(String);

impl Default for Multiples {
    /// Everyone sends what they are entitled to.
    fn default() -> Self {
        Self {
            everyone: 1.0,
            services: BTreeMap::new(),
        }
    }
}

impl FromStr for Multiples {
    type Err = MultipleError;

    fn from_str(text: &str) -> Result<Self, MultipleError> {
        let mut multiples = Self::default();
        for part in text.split(',') {
            let failed = || MultipleError(part.to_owned());
            let (service, number) = match part.split_once('=') {
                Some((service, number)) => (Some(service.trim()), number),
                None => (None, part),
            };
            let number: f64 = number.trim().parse().map_err(|_| failed())?;
            if !(0.0..=1000.0).contains(&number) {
                return Err(failed());
            }
            match service {
                Some("") => return Err(failed()),
                Some(service) => {
                    multiples.services.insert(service.to_owned(), number);
                }
                None => multiples.everyone = number,
            }
        }
        Ok(multiples)
    }
}

impl Multiples {
    fn of(&self, service: &str) -> f64 {
        self.services.get(service).copied().unwrap_or(self.everyone)
    }
}

/// The traffic of all contracts in force at `now`, each at its multiple. A service with several endpoints sends from all of
/// them, in equal parts. Names are "service/class", with the segment where there is one.
///
/// # Errors
/// See [`ContractsError`].
pub fn traffic(
    config: &Config,
    choice: &Choice,
    multiples: &Multiples,
    now: Timestamp,
) -> Result<Vec<ServiceTraffic>, ContractsError> {
    let in_force = |contract: &&Contract| {
        contract.region == config.region && contract.direction == choice.direction && contract.valid_at(now)
    };
    let contracts: Vec<&Contract> = config.contracts.iter().filter(in_force).collect();
    if contracts.is_empty() {
        let direction = match choice.direction {
            Direction::Egress => "egress",
            Direction::Ingress => "ingress",
        };
        return Err(ContractsError::NoneInForce {
            region: config.region.to_string(),
            direction,
        });
    }
    let has_contract = |name: &&String| contracts.iter().any(|one| config.services[one.service].name == **name);
    if let Some(unknown) = multiples.services.keys().find(|name| !has_contract(name)) {
        return Err(ContractsError::UnknownService(unknown.clone()));
    }
    Ok(contracts
        .into_iter()
        .flat_map(|contract| of_contract(config, choice, multiples, contract))
        .collect())
}

fn of_contract(config: &Config, choice: &Choice, multiples: &Multiples, contract: &Contract) -> Vec<ServiceTraffic> {
    let service = &config.services[contract.service];
    let class = &config.classes[contract.class];
    let segment = contract.segment.map(|segment| &config.segments[segment]);
    // A segment may have no prefix of the family of an endpoint: such traffic would not be this contract's.
    let ends: Vec<(&Endpoint, IpNet)> = service
        .endpoints
        .iter()
        .filter_map(|endpoint| {
            let same_family = |prefix: &&IpNet| is_ipv4(prefix) == is_ipv4(&endpoint.prefix);
            let far = match segment {
                Some(segment) => *segment.prefixes.iter().find(same_family)?,
                None => far_away(is_ipv4(&endpoint.prefix)),
            };
            Some((endpoint, far))
        })
        .collect();
    let mut name = format!("{}/{}", service.name, class.name);
    if let Some(segment) = segment {
        name.push('@');
        name.push_str(&segment.name);
    }
    let multiple = multiples.of(&service.name);
    let wanted = contract.meter.rate_bps() as f64 * multiple / ends.len().max(1) as f64;
    let several = ends.len() > 1;
    let of_end = |(endpoint, far): &(&Endpoint, IpNet)| {
        let mut stream = stream(endpoint, *far, class, choice);
        stream.rate_bps = ip_rate(wanted, config.defaults.layer, &stream);
        let name = if several {
            format!("{name} {}", endpoint.prefix)
        } else {
            name.clone()
        };
        ServiceTraffic {
            name,
            stream,
            multiple: Some(multiple),
        }
    };
    ends.iter().map(of_end).collect()
}

fn stream(endpoint: &Endpoint, far: IpNet, class: &Class, choice: &Choice) -> Stream {
    let (protocol, service_ports) = match &endpoint.ports {
        Some(ports) => {
            let protocol = match ports.protocol {
                PortProtocol::Tcp => Protocol::Tcp,
                PortProtocol::Udp => Protocol::Udp,
            };
            (protocol, ports.ranges.first().cloned().unwrap_or(EPHEMERAL))
        }
        None => (Protocol::Udp, EPHEMERAL),
    };
    let egress = choice.direction == Direction::Egress;
    let swap = |site: IpNet, far: IpNet| if egress { (site, far) } else { (far, site) };
    let (source, destination) = swap(endpoint.prefix, far);
    let (source_ports, destination_ports) = if egress {
        (service_ports, EPHEMERAL)
    } else {
        (EPHEMERAL, service_ports)
    };
    let mut stream = Stream {
        id: 0,
        protocol,
        source,
        destination,
        source_ports,
        destination_ports,
        dscp: class.dscp.first().copied().unwrap_or(0),
        frame_bytes: Vec::new(),
        flows: choice.flows.max(1),
        flow_order: choice.flow_order,
        vlans: Vec::new(),
        source_mac: choice.source_mac,
        destination_mac: choice.destination_mac,
        rate_bps: 0,
    };
    // A class that goes by PCP alone needs a tag to carry it.
    if let (true, Some(&pcp)) = (class.dscp.is_empty(), class.pcp.first()) {
        stream.vlans.push(Vlan { id: 1, pcp });
    }
    // An endpoint may be a single address and port.
    stream.flows = u32::try_from(stream.combinations())
        .unwrap_or(u32::MAX)
        .min(stream.flows);
    stream.frame_bytes = frame_bytes(&choice.frames, &stream);
    stream
}

/// Bits per second from the IP header on, of a rate that counts the bytes of `layer`.
fn ip_rate(rate_bps: f64, layer: Layer, stream: &Stream) -> u64 {
    let (ip_bytes, packets) = stream.ip_bytes_of_a_turn();
    let overhead = match layer {
        Layer::L3 => 0,
        Layer::L2 => u64::from(stream.ip_offset()),
        // FCS 4, preamble and start of frame 8, gap 12.
        Layer::L1 => u64::from(stream.ip_offset()) + 24,
    };
    (rate_bps * ip_bytes as f64 / (ip_bytes + packets * overhead) as f64).round() as u64
}

fn is_ipv4(net: &IpNet) -> bool {
    matches!(net, IpNet::V4(_))
}

/// Where traffic goes that may go anywhere: the prefixes set aside for benchmarks (RFC 2544 appendix C.2.2, RFC 5180 section 8).
fn far_away(ipv4: bool) -> IpNet {
    if ipv4 {
        IpNet::V4(Ipv4Net::new_assert(Ipv4Addr::new(198, 19, 0, 0), 16))
    } else {
        IpNet::V6(Ipv6Net::new_assert(Ipv6Addr::new(0x2001, 2, 0, 1, 0, 0, 0, 0), 64))
    }
}

/// Ports of whoever asks (RFC 6056 section 3.2: 1024 to 65535).
const EPHEMERAL: RangeInclusive<u16> = 1024..=65535;

#[cfg(test)]
mod tests {
    use super::*;
    use std::path::Path;

    const CONFIG: &str = r#"
region = "ams"
[[port]]
name = "lan"
interface = "site"
side = "site"
[[port]]
name = "wan"
interface = "wan"
side = "wan"
[[wire]]
ports = ["lan", "wan"]
[[class]]
name = "gold"
priority = 0
dscp = ["EF"]
[[class]]
name = "silver"
priority = 1
default = true
dscp = [0]
[[segment]]
name = "paris"
prefixes = ["203.0.113.0/24"]
[[service]]
name = "ads"
endpoints = ["10.1.2.0/24 tcp/443", "2001:db8:1::/64"]
[[service]]
name = "mail"
endpoints = ["10.9.0.7/32"]
[[contract]]
service = "ads"
class = "gold"
region = "ams"
direction = "egress"
rate = "100Mbit/s"
[[contract]]
service = "mail"
class = "silver"
region = "ams"
direction = "egress"
segment = "paris"
rate = "10Mbit/s"
[[contract]]
service = "mail"
class = "silver"
region = "ams"
direction = "ingress"
rate = "10Mbit/s"
[[contract]]
service = "mail"
class = "gold"
region = "fra"
direction = "egress"
rate = "10Mbit/s"
"#;

    fn made(direction: Direction, multiples: &str) -> Result<Vec<ServiceTraffic>, ContractsError> {
        let loaded = config::load_texts((Path::new("weir.toml"), CONFIG), &[]);
        let config = loaded.map_err(|report| report.render(false)).unwrap().config;
        let choice = Choice {
            direction,
            frames: "64,1518".parse().unwrap(),
            flows: 100_000,
            flow_order: FlowOrder::Step,
            source_mac: [2; 6],
            destination_mac: [4; 6],
        };
        traffic(&config, &choice, &multiples.parse().unwrap(), Timestamp::now())
    }

    #[test]
    fn each_contract_in_force_becomes_traffic_that_falls_under_it() {
        let egress = made(Direction::Egress, "0.5,ads=3").unwrap();
        let names: Vec<&str> = egress.iter().map(|service| service.name.as_str()).collect();
        assert_eq!(
            names,
            ["ads/gold 10.1.2.0/24", "ads/gold 2001:db8:1::/64", "mail/silver@paris"]
        );
        let [tcp, ipv6, mail] = &egress[..] else {
            unreachable!("three names")
        };
        assert_eq!(
            (tcp.stream.protocol, tcp.stream.source_ports.clone()),
            (Protocol::Tcp, 443..=443)
        );
        assert_eq!(
            (tcp.stream.dscp, tcp.stream.rate_bps, ipv6.stream.rate_bps),
            (46, 150_000_000, 150_000_000)
        );
        assert_eq!(tcp.stream.frame_bytes, [72, 1514], "TCP needs 12 bytes more");
        assert_eq!(ipv6.stream.frame_bytes, [80, 1514]);
        assert_eq!(mail.stream.destination, "203.0.113.0/24".parse::<IpNet>().unwrap());
        assert_eq!(mail.stream.rate_bps, 5_000_000);
        for service in &egress {
            service.stream.validate().unwrap();
        }
        let ingress = made(Direction::Ingress, "1").unwrap();
        assert_eq!(ingress.len(), 1);
        assert_eq!(ingress[0].stream.destination, "10.9.0.7/32".parse::<IpNet>().unwrap());
        assert_eq!(ingress[0].stream.source, "198.19.0.0/16".parse::<IpNet>().unwrap());
    }

    #[test]
    fn a_multiple_for_nobody_and_broken_multiples_are_refused() {
        let error = made(Direction::Egress, "sda=3").unwrap_err();
        assert_eq!(error, ContractsError::UnknownService("sda".into()));
        for text in ["", "x", "-1", "ads=", "=3", "1001", "ads=nan", "1,,2"] {
            assert!(text.parse::<Multiples>().is_err(), "{text}");
        }
    }
}

//! What is sent: a contract set, or one stream described by options.

use std::path::PathBuf;

use ipnet::IpNet;
use jiff::Timestamp;
use pktgen::contracts::{self, Choice, Multiples};
use pktgen::imix::FrameMix;
use pktgen::load::{ServiceTraffic, frame_bytes};
use pktgen::stream::{FlowOrder, Protocol, Stream, Vlan};
use pktgen::trial::End;

use super::{Failure, usage};

#[derive(clap::Args)]
pub(super) struct Traffic {
    /// Take the traffic from this configuration of weir: each contract in force sends a multiple of its entitlement
    #[arg(long, value_name = "WEIR.toml", help_heading = "Traffic")]
    contracts: Option<PathBuf>,
    /// How much of its entitlement each service sends: 0.9 for everyone, ads=3 for one, 0.9,ads=3 for both
    #[arg(
        long,
        value_name = "LIST",
        default_value = "1",
        requires = "contracts",
        help_heading = "Traffic"
    )]
    multiple: Multiples,
    /// Which contracts: egress (site to wan) or ingress
    #[arg(long, value_parser = direction, default_value = "egress", requires = "contracts", help_heading = "Traffic")]
    direction: config::types::Direction,
    /// udp, tcp (segments without a connection) or icmp (echo requests)
    #[arg(long, value_parser = protocol, default_value = "udp", conflicts_with = "contracts", help_heading = "Traffic")]
    protocol: Protocol,
    /// Where packets come from
    #[arg(
        long,
        value_name = "PREFIX",
        default_value = "198.18.0.0/16",
        help_heading = "Traffic"
    )]
    source: IpNet,
    /// Where packets go
    #[arg(
        long,
        value_name = "PREFIX",
        default_value = "198.19.0.0/16",
        help_heading = "Traffic"
    )]
    destination: IpNet,
    /// DSCP, 0 to 63
    #[arg(long, default_value_t = 0, help_heading = "Traffic")]
    dscp: u8,
    /// VLAN tag, ID or ID:PCP; the outer one first
    #[arg(long, value_name = "ID[:PCP]", value_parser = vlan, help_heading = "Traffic")]
    vlan: Vec<Vlan>,
    /// Distinct combinations of addresses and ports, of each contract as far as it has room for them
    #[arg(long, default_value_t = 1000, help_heading = "Traffic")]
    flows: u32,
    /// Which flow gets the next packet: step, random, or zipf:EXPONENT
    #[arg(long, value_parser = flow_order, default_value = "step", help_heading = "Traffic")]
    flow_order: FlowOrder,
    /// Ethernet address packets go to [default: the receiving interface's]
    #[arg(long, value_name = "MAC", value_parser = mac, help_heading = "Traffic")]
    destination_mac: Option<[u8; 6]>,
    /// Same seed, same packets at the same instants
    #[arg(long, default_value_t = 1, help_heading = "Traffic")]
    pub(super) seed: u64,
}

impl Traffic {
    /// The services, with packets of the sizes of `mix`. Of a stream without contracts the rate is one packet per second: only
    /// proportions count.
    pub(super) fn services(
        &self,
        transmit: &End,
        receive: Option<&End>,
        mix: &FrameMix,
    ) -> Result<Vec<ServiceTraffic>, Failure> {
        let source_mac = mac_of(transmit)?;
        let destination_mac = match (self.destination_mac, receive) {
            (Some(mac), _) => mac,
            (None, Some(end)) => mac_of(end)?,
            (None, None) => [0xff; 6],
        };
        if let Some(path) = &self.contracts {
            let loaded = config::load(path).map_err(|report| usage(report.render(false)))?;
            let choice = Choice {
                direction: self.direction,
                frames: mix.clone(),
                flows: self.flows,
                flow_order: self.flow_order,
                source_mac,
                destination_mac,
            };
            return contracts::traffic(&loaded.config, &choice, &self.multiple, Timestamp::now()).map_err(usage);
        }
        let mut stream = Stream {
            id: 0,
            protocol: self.protocol,
            source: self.source,
            destination: self.destination,
            source_ports: 1024..=65535,
            // The discard port.
            destination_ports: 9..=9,
            dscp: self.dscp,
            frame_bytes: Vec::new(),
            flows: self.flows,
            flow_order: self.flow_order,
            vlans: self.vlan.clone(),
            source_mac,
            destination_mac,
            rate_bps: 1_000_000,
        };
        stream.frame_bytes = frame_bytes(mix, &stream);
        stream.validate().map_err(usage)?;
        Ok(vec![ServiceTraffic {
            name: format!("{} to {}", self.source, self.destination),
            stream,
            multiple: None,
        }])
    }

    /// Whether the services have rates of their own.
    pub(super) fn has_rates(&self) -> bool {
        self.contracts.is_some()
    }
}

fn mac_of(end: &End) -> Result<[u8; 6], Failure> {
    let End { namespace, interface } = end;
    let mac = namespace.run(|| af_xdp::device::mac(interface))?;
    mac.map_err(Failure::from)
}

fn direction(text: &str) -> Result<config::types::Direction, String> {
    match text {
        "egress" => Ok(config::types::Direction::Egress),
        "ingress" => Ok(config::types::Direction::Ingress),
        _ => Err("write egress or ingress".to_owned()),
    }
}

fn protocol(text: &str) -> Result<Protocol, String> {
    match text {
        "udp" => Ok(Protocol::Udp),
        "tcp" => Ok(Protocol::Tcp),
        "icmp" => Ok(Protocol::Icmp),
        _ => Err("write udp, tcp or icmp".to_owned()),
    }
}

fn flow_order(text: &str) -> Result<FlowOrder, String> {
    match (text, text.strip_prefix("zipf:").map(str::parse)) {
        ("step", _) => Ok(FlowOrder::Step),
        ("random", _) => Ok(FlowOrder::Random),
        (_, Some(Ok(exponent))) => Ok(FlowOrder::Zipf(exponent)),
        _ => Err("write step, random or zipf:1.1".to_owned()),
    }
}

pub(super) fn vlan(text: &str) -> Result<Vlan, String> {
    let (id, pcp) = text.split_once(':').unwrap_or((text, "0"));
    match (id.parse(), pcp.parse()) {
        (Ok(id @ 0..=4095), Ok(pcp @ 0..=7)) => Ok(Vlan { id, pcp }),
        _ => Err("write ID or ID:PCP, 0 to 4095 and 0 to 7, such as 100:5".to_owned()),
    }
}

pub(super) fn mac(text: &str) -> Result<[u8; 6], String> {
    let bytes: Result<Vec<u8>, _> = text.split(':').map(|byte| u8::from_str_radix(byte, 16)).collect();
    let bytes = bytes.ok().and_then(|bytes| bytes.try_into().ok());
    bytes.ok_or_else(|| format!("`{text}` is not an Ethernet address such as 02:00:00:00:00:01"))
}

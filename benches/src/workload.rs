//! The traffic that the benches run: flows, their packets, and the contracts they are judged by.
//!
//! [`SERVICES`] services own a /24 each and have one contract each, for egress, in one of four classes. Every second contract is
//! so wide that its traffic always conforms, the others so narrow that nearly all of theirs does not, so half of the packets are
//! marked whatever the speed of the machine. Everything is derived from a seed.

use std::fmt::Write;
use std::path::{Path, PathBuf};

use config::Loaded;
use dataplane::checksum;

use crate::Error;

/// Services, and contracts.
pub const SERVICES: usize = 1_000;

/// Flows; `FLOWS` in `xdp/flood.bpf.c`. A power of two.
pub const FLOWS: usize = 4_096;

/// Length of the shortest Ethernet frame, with the FCS that no software sees.
pub const SHORT: usize = 64;

/// Length of a long Ethernet frame, with FCS.
pub const LONG: usize = 1_500;

/// Bytes of the frame check sequence.
pub const FCS: usize = 4;

/// What tells one flow from another. All are UDP over IPv4 to the same destination.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Flow {
    /// Source address.
    pub source: [u8; 4],
    /// Source port.
    pub source_port: u16,
    /// DSCP, 0 to 63.
    pub dscp: u8,
}

/// The fields of a packet that differ between flows, each as it stands in the packet: `struct flow` of `xdp/flood.bpf.c`.
pub type FlowBytes = [u8; 12];

/// Name, priority and DSCP of the classes.
pub(crate) const CLASSES: [(&str, u8, u8); 4] = [
    ("gold", 1, 46),
    ("silver", 2, 26),
    ("bronze", 3, 10),
    ("standard", 7, 0),
];

/// The DSCP of excess, by class.
pub(crate) const NONCONFORMING_DSCP: [u8; 4] = [45, 25, 9, 1];

const DESTINATION: [u8; 4] = [198, 18, 0, 1];

/// The 4,096 flows, spread evenly over the services.
#[must_use]
pub fn flows(random: &mut Random) -> Vec<Flow> {
    let flow = |number: usize| {
        let service = number % SERVICES;
        Flow {
            source: [10, (service / 256) as u8, service as u8, random.below(254) as u8 + 1],
            source_port: 1024 + (number as u16),
            dscp: CLASSES[class_of(service)].2,
        }
    };
    (0..FLOWS).map(flow).collect()
}

/// The packet of `flow` in a frame of `frame_len` bytes, FCS included but not written: 64 to 1518.
#[must_use]
pub fn packet(flow: &Flow, frame_len: usize) -> Vec<u8> {
    let len = frame_len - FCS;
    let mut packet = vec![0; len];
    packet[..14].copy_from_slice(&[2, 0, 0, 0, 0, 2, 2, 0, 0, 0, 0, 1, 8, 0]);
    let (ip, udp) = packet[14..].split_at_mut(20);
    let ip_len = (len - 14) as u16;
    ip[0] = 0x45;
    ip[1] = flow.dscp << 2;
    ip[2..4].copy_from_slice(&ip_len.to_be_bytes());
    ip[8] = 64;
    ip[9] = 17;
    ip[12..16].copy_from_slice(&flow.source);
    ip[16..20].copy_from_slice(&DESTINATION);
    let ip_checksum = checksum::ipv4_header_checksum(ip);
    ip[10..12].copy_from_slice(&ip_checksum.to_be_bytes());
    udp[0..2].copy_from_slice(&flow.source_port.to_be_bytes());
    udp[2..4].copy_from_slice(&9u16.to_be_bytes());
    udp[4..6].copy_from_slice(&(ip_len - 20).to_be_bytes());
    let [source, destination] = [flow.source, DESTINATION].map(|address| u128::from(u32::from_be_bytes(address)));
    let udp_checksum = checksum::transport_checksum(source, destination, 17, udp);
    udp[6..8].copy_from_slice(&udp_checksum.to_be_bytes());
    packet
}

/// What the flood writes into a packet of `frame_len` bytes to make it one of `flow`.
#[must_use]
pub fn flow_bytes(flow: &Flow, frame_len: usize) -> FlowBytes {
    let packet = packet(flow, frame_len);
    let mut bytes = [0; 12];
    let mut at = 0;
    for (start, len) in FIELDS {
        bytes[at..at + len].copy_from_slice(&packet[start..start + len]);
        at += len;
    }
    bytes
}

/// Makes a packet of any flow, and of the same length, one of the flow that `bytes` is of.
pub fn become_flow(packet: &mut [u8], bytes: &FlowBytes) {
    let mut at = 0;
    for (start, len) in FIELDS {
        packet[start..start + len].copy_from_slice(&bytes[at..at + len]);
        at += len;
    }
}

/// Where the parts of [`FlowBytes`] stand in a packet, and how long they are: source address, IP checksum, source port, UDP
/// checksum, DSCP.
const FIELDS: [(usize, usize); 5] = [(26, 4), (24, 2), (34, 2), (40, 2), (15, 1)];

/// The configuration: ports on the interfaces `site` and `wan`, one spinning worker on `cpu`, 1,000 contracts.
///
/// # Errors
/// Whatever the checks of the configuration find.
pub fn configuration(site: &str, wan: &str, cpu: usize) -> Result<Loaded, Error> {
    let base = base(site, wan, cpu);
    let contracts = (PathBuf::from("contracts.d/services.toml"), contracts());
    config::load_texts((Path::new("weir.toml"), &base), &[contracts]).map_err(|report| report.render(false).into())
}

/// The same box with one contract for all of these services: every worker that judges a packet judges by it. Wide enough for
/// any machine.
///
/// # Errors
/// Whatever the checks of the configuration find.
pub fn one_contract() -> Result<Loaded, Error> {
    // All packets go to one class, for a contract is of one.
    let mut base = base("site", "wan", 0);
    for dscp in [26, 10, 0] {
        base = base.replace(&format!("dscp = [{dscp}]"), "dscp = []");
    }
    let base = base.replace("dscp = [46]", "dscp = [46, 26, 10, 0]");
    let contract = "[[service]]\nname = \"all\"\nendpoints = [\"10.0.0.0/8\"]\n\
        [[contract]]\nservice = \"all\"\nclass = \"gold\"\nregion = \"here\"\ndirection = \"egress\"\n\
        rate = \"100 Gbit/s\"\n";
    let contracts = (PathBuf::from("contracts.d/all.toml"), contract.to_owned());
    config::load_texts((Path::new("weir.toml"), &base), &[contracts]).map_err(|report| report.render(false).into())
}

pub(crate) fn base(site: &str, wan: &str, cpu: usize) -> String {
    let mut text = format!(
        "region = \"here\"\n\
         [workers]\ncpus = [{cpu}]\npoll = \"busy\"\n\
         [[port]]\nname = \"site\"\ninterface = \"{site}\"\nside = \"site\"\n\
         [[port]]\nname = \"wan\"\ninterface = \"{wan}\"\nside = \"wan\"\n\
         [[wire]]\nports = [\"site\", \"wan\"]\n"
    );
    for ((name, priority, dscp), nonconforming) in CLASSES.iter().zip(NONCONFORMING_DSCP) {
        // Writing to a string cannot fail.
        let _written = write!(
            text,
            "[[class]]\nname = \"{name}\"\npriority = {priority}\ndscp = [{dscp}]\nnonconforming_dscp = {nonconforming}\n"
        );
    }
    text
}

fn contracts() -> String {
    let mut text = String::new();
    for service in 0..SERVICES {
        let class = CLASSES[class_of(service)].0;
        let grant = if is_wide(service) {
            "rate = \"10 Gbit/s\""
        } else {
            "rate = \"8 kbit/s\"\nburst = 1500"
        };
        let _written = write!(
            text,
            "[[service]]\nname = \"service-{service}\"\nendpoints = [\"10.{}.{}.0/24\"]\n\
             [[contract]]\nservice = \"service-{service}\"\nclass = \"{class}\"\nregion = \"here\"\ndirection = \"egress\"\n\
             {grant}\n",
            service / 256,
            service % 256,
        );
    }
    text
}

fn class_of(service: usize) -> usize {
    service % CLASSES.len()
}

/// Both kinds occur in every class.
fn is_wide(service: usize) -> bool {
    (service / CLASSES.len()).is_multiple_of(2)
}

/// Marsaglia's xorshift of 64 bits: enough to shuffle with, and the same everywhere.
#[derive(Clone, Debug)]
pub struct Random(u64);

impl Random {
    /// From a seed; 0 counts as 1.
    #[must_use]
    pub fn new(seed: u64) -> Self {
        Self(seed.max(1))
    }

    /// A number from 0 to `bound` - 1; `bound` is at least 1 and far below 2^32.
    pub fn below(&mut self, bound: u32) -> u32 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (((self.0 >> 32) * u64::from(bound)) >> 32) as u32
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use dataplane::packet::{self as parser, Parsed};

    #[test]
    fn packets_are_what_they_say() {
        let flows = flows(&mut Random::new(1));
        assert_eq!(flows.len(), FLOWS);
        for (flow, frame_len) in flows.iter().zip([SHORT, LONG].into_iter().cycle()) {
            let bytes = packet(flow, frame_len);
            let Parsed::Ip(headers) = parser::parse(&bytes, bytes.len()) else {
                panic!("not IP: {flow:?}");
            };
            assert_eq!(headers.src, u128::from(u32::from_be_bytes(flow.source)));
            assert_eq!(headers.dscp.get(), flow.dscp);
            assert_eq!(headers.ports.map(|ports| ports.src), Some(flow.source_port));
            assert_eq!(headers.l3_len as usize, frame_len - FCS - 14);
            assert_eq!(checksum::find_partial(&bytes, &headers), None);
        }
    }

    #[test]
    fn flow_bytes_turn_one_flow_into_another() {
        let flows = flows(&mut Random::new(1));
        let mut bytes = packet(&flows[0], SHORT);
        become_flow(&mut bytes, &flow_bytes(&flows[77], SHORT));
        assert_eq!(bytes, packet(&flows[77], SHORT));
    }

    #[test]
    fn the_configurations_are_valid() {
        let loaded = configuration("a", "b", 0).unwrap();
        assert_eq!(loaded.config.contracts.len(), SERVICES);
        assert_eq!(one_contract().unwrap().config.contracts.len(), 1);
    }
}

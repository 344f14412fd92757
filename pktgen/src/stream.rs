//! Streams: what traffic of one service looks like.
//!
//! Sizes here are bytes in memory, from the Ethernet header on and without FCS: the test literature's "64-byte frame" has 60.

use std::ops::RangeInclusive;

use ipnet::IpNet;

use crate::probe::PROBE_BYTES;

/// The traffic of one service in one class.
#[derive(Clone, Debug, PartialEq)]
pub struct Stream {
    /// Whose it is, in every packet; unique among the streams of one receiver.
    pub id: u16,
    /// What carries our header.
    pub protocol: Protocol,
    /// Where packets come from: addresses of this prefix, at most the first 2^24.
    pub source: IpNet,
    /// Where they go: the same family as `source`.
    pub destination: IpNet,
    /// Source ports; of ICMP the identifiers of the echo requests.
    pub source_ports: RangeInclusive<u16>,
    /// Destination ports; of ICMP the sequence numbers of the echo requests.
    pub destination_ports: RangeInclusive<u16>,
    /// DSCP, 0 to 63. ECN is always 0 (not ECN-capable).
    pub dscp: u8,
    /// Sizes of packets, which take turns: each at least [`Stream::frame_bytes_min`], at most [`FRAME_BYTES_MAX`].
    pub frame_bytes: Vec<u16>,
    /// How many flows, 1 or more, at most the combinations there are.
    pub flows: u32,
    /// Which flow gets the next packet.
    pub flow_order: FlowOrder,
    /// VLAN tags, the outer first, at most two. Of two the outer is a service tag (802.1ad, 0x88a8).
    pub vlans: Vec<Vlan>,
    /// Ethernet source address.
    pub source_mac: [u8; 6],
    /// Ethernet destination address.
    pub destination_mac: [u8; 6],
    /// Bits of IP packets (from the IP header on) per second; 0: silent until the rate is changed.
    pub rate_bps: u64,
}

/// What a packet is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Protocol {
    /// UDP (RFC 768).
    #[default]
    Udp,
    /// A TCP segment without a connection: ACK set, no options (RFC 9293).
    Tcp,
    /// An echo request (RFC 792, RFC 4443).
    Icmp,
}

/// Which flow gets the next packet.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub enum FlowOrder {
    /// One after the other.
    #[default]
    Step,
    /// Any of them, each as likely.
    Random,
    /// Few get most: the n-th in proportion to n to the power of minus this exponent, more than 0.
    Zipf(f64),
}

/// An 802.1Q tag.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Vlan {
    /// 0 to 4095.
    pub id: u16,
    /// Priority code point, 0 to 7.
    pub pcp: u8,
}

/// What is wrong with a stream.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("stream {id}: {field} = {value}: allowed is {allowed}")]
pub struct StreamError {
    /// The stream's id.
    pub id: u16,
    /// The field of [`Stream`].
    pub field: &'static str,
    /// Its value.
    pub value: String,
    /// What it may be.
    pub allowed: String,
}

impl Stream {
    /// Bytes of the shortest packet that carries our header: 60 for UDP and ICMP over IPv4, 12 more for TCP, 20 more for
    /// IPv6, 4 more for each tag.
    #[must_use]
    pub fn frame_bytes_min(&self) -> u16 {
        self.payload_offset() + PROBE_BYTES as u16
    }

    /// Bytes from the IP header on of all sizes, each once, and how many sizes there are.
    #[must_use]
    pub fn ip_bytes_of_a_turn(&self) -> (u64, u64) {
        let bytes = self
            .frame_bytes
            .iter()
            .map(|&bytes| u64::from(bytes.saturating_sub(self.ip_offset())));
        (bytes.sum(), self.frame_bytes.len() as u64)
    }

    pub(crate) fn ip_offset(&self) -> u16 {
        14 + 4 * self.vlans.len() as u16
    }

    pub(crate) fn transport_offset(&self) -> u16 {
        self.ip_offset() + if self.is_ipv4() { 20 } else { 40 }
    }

    /// Where our header begins.
    pub(crate) fn payload_offset(&self) -> u16 {
        self.transport_offset() + self.protocol.header_bytes()
    }

    pub(crate) fn is_ipv4(&self) -> bool {
        matches!(self.source, IpNet::V4(_))
    }

    fn error(&self, field: &'static str, value: &dyn ToString, allowed: &dyn ToString) -> StreamError {
        StreamError {
            id: self.id,
            field,
            value: value.to_string(),
            allowed: allowed.to_string(),
        }
    }

    /// Whether frames can be made of it.
    ///
    /// # Errors
    /// The first field that is out of range.
    pub fn validate(&self) -> Result<(), StreamError> {
        if self.is_ipv4() != matches!(self.destination, IpNet::V4(_)) {
            return Err(self.error("destination", &self.destination, &"a prefix of the source's family"));
        }
        if self.dscp > 63 {
            return Err(self.error("dscp", &self.dscp, &"0 to 63"));
        }
        if self.vlans.len() > 2 || self.vlans.iter().any(|vlan| vlan.id > 4095 || vlan.pcp > 7) {
            let vlans = format!("{:?}", self.vlans);
            return Err(self.error("vlans", &vlans, &"at most two, id 0 to 4095, pcp 0 to 7"));
        }
        if let FlowOrder::Zipf(exponent) = self.flow_order
            && !(exponent > 0.0 && exponent.is_finite())
        {
            return Err(self.error("flow_order", &exponent, &"an exponent above 0"));
        }
        let minimum = self.frame_bytes_min();
        let allowed = format!("{minimum} to {FRAME_BYTES_MAX} (without FCS)");
        if self.frame_bytes.is_empty() {
            return Err(self.error("frame_bytes", &"none", &allowed));
        }
        let mut sizes = self.frame_bytes.iter();
        if let Some(bytes) = sizes.find(|bytes| !(minimum..=FRAME_BYTES_MAX).contains(bytes)) {
            return Err(self.error("frame_bytes", bytes, &allowed));
        }
        for (field, ports) in [
            ("source_ports", &self.source_ports),
            ("destination_ports", &self.destination_ports),
        ] {
            if ports.is_empty() {
                return Err(self.error(field, &format!("{ports:?}"), &"at least one port"));
            }
        }
        let combinations = self.combinations();
        if self.flows == 0 || u128::from(self.flows) > combinations {
            return Err(self.error("flows", &self.flows, &format!("1 to {combinations}")));
        }
        Ok(())
    }
}

impl Protocol {
    /// Its number in the IP header.
    pub(crate) fn number(self, ipv4: bool) -> u8 {
        match (self, ipv4) {
            (Protocol::Udp, _) => 17,
            (Protocol::Tcp, _) => 6,
            (Protocol::Icmp, true) => 1,
            (Protocol::Icmp, false) => 58,
        }
    }

    /// Bytes of its header, without options.
    pub(crate) fn header_bytes(self) -> u16 {
        match self {
            Protocol::Udp | Protocol::Icmp => 8,
            Protocol::Tcp => 20,
        }
    }

    /// Where its checksum is.
    pub(crate) fn checksum_offset(self) -> usize {
        match self {
            Protocol::Udp => 6,
            Protocol::Tcp => 16,
            Protocol::Icmp => 2,
        }
    }

    /// Where the two words begin that differ between flows: ports, or identifier and sequence number.
    pub(crate) fn ports_offset(self) -> usize {
        match self {
            Protocol::Udp | Protocol::Tcp => 0,
            Protocol::Icmp => 4,
        }
    }

    /// Whether its checksum covers the addresses (RFC 768, RFC 9293, RFC 4443); not so that of ICMP for IPv4 (RFC 792).
    pub(crate) fn has_pseudo_header(self, ipv4: bool) -> bool {
        !(self == Protocol::Icmp && ipv4)
    }
}

/// What a frame of 4096 bytes holds after the kernel's 256.
pub const FRAME_BYTES_MAX: u16 = 3840;

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    pub(crate) fn stream(id: u16, frame_bytes: u16) -> Stream {
        Stream {
            id,
            protocol: Protocol::Udp,
            source: "10.1.0.0/16".parse().unwrap(),
            destination: "198.51.100.0/24".parse().unwrap(),
            source_ports: 1024..=2047,
            destination_ports: 443..=443,
            dscp: 46,
            frame_bytes: vec![frame_bytes],
            flows: 100,
            flow_order: FlowOrder::Step,
            vlans: Vec::new(),
            source_mac: [2, 0, 0, 0, 0, 1],
            destination_mac: [2, 0, 0, 0, 0, 2],
            rate_bps: 8_000_000,
        }
    }

    #[test]
    fn each_bad_field_is_named() {
        let good = stream(1, 60);
        let cases: [(&str, Stream); 9] = [
            (
                "frame_bytes",
                Stream {
                    frame_bytes: Vec::new(),
                    ..good.clone()
                },
            ),
            (
                "flow_order",
                Stream {
                    flow_order: FlowOrder::Zipf(0.0),
                    ..good.clone()
                },
            ),
            (
                "destination",
                Stream {
                    destination: "2001:db8::/64".parse().unwrap(),
                    ..good.clone()
                },
            ),
            (
                "dscp",
                Stream {
                    dscp: 64,
                    ..good.clone()
                },
            ),
            (
                "vlans",
                Stream {
                    vlans: vec![Vlan { id: 4096, pcp: 0 }],
                    ..good.clone()
                },
            ),
            (
                "frame_bytes",
                Stream {
                    frame_bytes: vec![60, 59],
                    ..good.clone()
                },
            ),
            (
                "frame_bytes",
                Stream {
                    frame_bytes: vec![3841],
                    ..good.clone()
                },
            ),
            (
                "flows",
                Stream {
                    flows: 0,
                    ..good.clone()
                },
            ),
            (
                "flows",
                Stream {
                    source: "10.0.0.1/32".parse().unwrap(),
                    destination: "10.0.0.2/32".parse().unwrap(),
                    flows: 1025,
                    ..good.clone()
                },
            ),
        ];
        for (field, stream) in cases {
            assert_eq!(stream.validate().unwrap_err().field, field);
        }
        assert_eq!(good.validate(), Ok(()));
    }
}

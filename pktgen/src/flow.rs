//! Streams: what traffic of one service looks like, and the flows it is made of.
//!
//! A flow is one combination of addresses and UDP ports. A stream's flows are distinct, spread over the whole of its
//! prefixes and port ranges, and the same for the same seed. Packets go to them in turn.

use std::ops::RangeInclusive;

use ipnet::IpNet;

use crate::probe::PROBE_BYTES;

/// The traffic of one service in one class.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Stream {
    /// Whose it is, in every packet; unique among the streams of one receiver.
    pub id: u16,
    /// Where packets come from: addresses of this prefix, at most the first 2^24.
    pub source: IpNet,
    /// Where they go: the same family as `source`.
    pub destination: IpNet,
    /// UDP source ports.
    pub source_ports: RangeInclusive<u16>,
    /// UDP destination ports.
    pub destination_ports: RangeInclusive<u16>,
    /// DSCP, 0 to 63. ECN is always 0 (not ECN-capable).
    pub dscp: u8,
    /// Bytes of a packet from the Ethernet header on, without FCS: at least [`Stream::frame_bytes_min`], at most 1792,
    /// what a frame of 2048 bytes holds. A "64-byte frame" of the test literature has 60.
    pub frame_bytes: u16,
    /// How many flows, 1 or more, at most the combinations there are.
    pub flows: u32,
    /// An 802.1Q tag, if any.
    pub vlan: Option<Vlan>,
    /// Ethernet source address.
    pub source_mac: [u8; 6],
    /// Ethernet destination address.
    pub destination_mac: [u8; 6],
    /// Bits of IP packets (from the IP header on) per second; 0: silent until the rate is changed.
    pub rate_bps: u64,
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
    /// Bytes of the shortest packet that carries our header: 60 for IPv4, 80 for IPv6, 4 more with a tag.
    #[must_use]
    pub fn frame_bytes_min(&self) -> u16 {
        self.headers_bytes() + PROBE_BYTES as u16
    }

    /// Bytes of one packet that count against its rate: from the IP header on.
    #[must_use]
    pub fn ip_bytes(&self) -> u16 {
        self.frame_bytes - self.ip_offset()
    }

    pub(crate) fn ip_offset(&self) -> u16 {
        if self.vlan.is_some() { 18 } else { 14 }
    }

    pub(crate) fn udp_offset(&self) -> u16 {
        self.ip_offset() + if self.is_ipv4() { 20 } else { 40 }
    }

    pub(crate) fn is_ipv4(&self) -> bool {
        matches!(self.source, IpNet::V4(_))
    }

    fn headers_bytes(&self) -> u16 {
        self.udp_offset() + 8
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
        if let Some(vlan) = self.vlan
            && (vlan.id > 4095 || vlan.pcp > 7)
        {
            return Err(self.error("vlan", &format!("{vlan:?}"), &"id 0 to 4095, pcp 0 to 7"));
        }
        let minimum = self.frame_bytes_min();
        if !(minimum..=FRAME_BYTES_MAX).contains(&self.frame_bytes) {
            let allowed = format!("{minimum} to {FRAME_BYTES_MAX} (without FCS)");
            return Err(self.error("frame_bytes", &self.frame_bytes, &allowed));
        }
        for (field, ports) in [
            ("source_ports", &self.source_ports),
            ("destination_ports", &self.destination_ports),
        ] {
            if ports.is_empty() {
                return Err(self.error(field, &format!("{ports:?}"), &"at least one port"));
            }
        }
        let combinations = self.sizes().into_iter().product::<u128>();
        if self.flows == 0 || u128::from(self.flows) > combinations {
            return Err(self.error("flows", &self.flows, &format!("1 to {combinations}")));
        }
        Ok(())
    }

    /// How many values each field of a flow can have, in the order of [`Flow`].
    fn sizes(&self) -> [u128; 4] {
        let hosts = |net: &IpNet| 1u128 << (net.max_prefix_len() - net.prefix_len()).min(HOST_BITS_MAX);
        let ports = |range: &RangeInclusive<u16>| u128::from(range.end().saturating_sub(*range.start())) + 1;
        [
            hosts(&self.source),
            hosts(&self.destination),
            ports(&self.source_ports),
            ports(&self.destination_ports),
        ]
    }

    /// The flows, each once. The stream must be valid.
    ///
    /// The combinations are numbered, and flow `i` is number `start + i * stride` of them, modulo how many there are;
    /// the stride has no factor in common with that, so none comes twice.
    pub(crate) fn flows(&self, seed: u64) -> Vec<Flow> {
        let sizes = self.sizes();
        let combinations: u128 = sizes.into_iter().product();
        let random = |n: u64| u128::from(mix(seed ^ u64::from(self.id) << 32 ^ n)) << 64 | u128::from(mix(!seed ^ n));
        let start = random(0) % combinations;
        let mut stride = (random(1) % combinations).max(1);
        while greatest_common_divisor(stride, combinations) != 1 {
            stride += 1;
        }
        let mut number = start;
        (0..self.flows)
            .map(|_| {
                let flow = self.flow(number, sizes);
                // Both are below 2^80, so the sum cannot overflow.
                number = (number + stride) % combinations;
                flow
            })
            .collect()
    }

    fn flow(&self, mut number: u128, sizes: [u128; 4]) -> Flow {
        let mut digits = [0u32; 4];
        for (digit, size) in digits.iter_mut().zip(sizes) {
            *digit = (number % size) as u32;
            number /= size;
        }
        Flow {
            source_host: digits[0],
            destination_host: digits[1],
            source_port: self.source_ports.start() + digits[2] as u16,
            destination_port: self.destination_ports.start() + digits[3] as u16,
        }
    }
}

/// One flow: 12 bytes, so that ten million take 120 MB.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Flow {
    /// The low bits of the source address, below its prefix.
    pub(crate) source_host: u32,
    /// The low bits of the destination address.
    pub(crate) destination_host: u32,
    pub(crate) source_port: u16,
    pub(crate) destination_port: u16,
}

/// A well-spread number for each number (the finalizer of SplitMix64, Steele and others 2014): the same on every machine
/// and in every version, as no random generator of a library promises to be.
pub(crate) fn mix(n: u64) -> u64 {
    let n = n.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let n = (n ^ n >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let n = (n ^ n >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
    n ^ n >> 31
}

fn greatest_common_divisor(mut a: u128, mut b: u128) -> u128 {
    while b != 0 {
        (a, b) = (b, a % b);
    }
    a
}

/// 16 million addresses a prefix: with both ports that leaves any sum of two flow numbers below 2^81.
const HOST_BITS_MAX: u8 = 24;
/// What a frame of 2048 bytes holds after the kernel's 256.
const FRAME_BYTES_MAX: u16 = 1792;

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use std::collections::HashSet;

    pub(crate) fn stream(id: u16, frame_bytes: u16) -> Stream {
        Stream {
            id,
            source: "10.1.0.0/16".parse().unwrap(),
            destination: "198.51.100.0/24".parse().unwrap(),
            source_ports: 1024..=2047,
            destination_ports: 443..=443,
            dscp: 46,
            frame_bytes,
            flows: 100,
            vlan: None,
            source_mac: [2, 0, 0, 0, 0, 1],
            destination_mac: [2, 0, 0, 0, 0, 2],
            rate_bps: 8_000_000,
        }
    }

    #[test]
    fn flows_are_distinct_seeded_and_can_be_all_there_are() {
        let every = Stream {
            source: "192.0.2.0/30".parse().unwrap(),
            destination: "192.0.2.128/29".parse().unwrap(),
            source_ports: 7..=9,
            destination_ports: 1..=5,
            flows: 4 * 8 * 3 * 5,
            ..stream(1, 60)
        };
        for stream in [
            every,
            Stream {
                flows: 50_000,
                ..stream(2, 60)
            },
        ] {
            stream.validate().unwrap();
            let flows = stream.flows(7);
            assert_eq!(flows.iter().collect::<HashSet<_>>().len(), stream.flows as usize);
            assert_eq!(flows, stream.flows(7));
            assert_ne!(flows, stream.flows(8));
        }
    }

    #[test]
    fn each_bad_field_is_named() {
        let good = stream(1, 60);
        let cases: [(&str, Stream); 7] = [
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
                "vlan",
                Stream {
                    vlan: Some(Vlan { id: 4096, pcp: 0 }),
                    ..good.clone()
                },
            ),
            (
                "frame_bytes",
                Stream {
                    frame_bytes: 59,
                    ..good.clone()
                },
            ),
            (
                "frame_bytes",
                Stream {
                    frame_bytes: 1793,
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

//! A whole capture through the reference: what leaves, when, and what the counters show.

use std::collections::BTreeMap;
use std::net::IpAddr;

use super::classify;
use super::dissect::{Dissected, Fragment, IpPacket, dissect};
use super::meter::{Colour, Meter};
use super::model::{Action, Config, Direction, Layer};
use crate::capture::Packet;

/// Packets and bytes of the counted layer.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Count {
    /// Packets.
    pub packets: u64,
    /// Their bytes.
    pub bytes: u64,
}

/// What is counted of a contract, or of the packets of a class that have none.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counters {
    /// Everything that came.
    pub offered: Count,
    /// Found within the entitlement.
    pub conforming: Count,
    /// The rest, dropped ones included.
    pub nonconforming: Count,
    /// Left with another DSCP than they came with.
    pub remarked: Count,
    /// Did not leave, for whatever reason.
    pub dropped: Count,
}

/// Which counters: `service`, `class`, `direction`, `segment`. Contracts that differ only in their period share them.
pub type ContractKey = (String, String, String, Option<String>);

/// What must come of a capture.
#[derive(Debug, Default)]
pub struct Outcome {
    /// For each packet in order: what leaves and when, or nothing.
    pub packets: Vec<Option<Packet>>,
    /// Of the contracts of the box's region that saw a packet.
    pub contracts: BTreeMap<ContractKey, Counters>,
    /// By class: packets without a contract.
    pub uncontracted: BTreeMap<String, Counters>,
    /// Frames that are not sound IP.
    pub other: Count,
    /// How often each colour was given, green, yellow, red; tells a test whether its traffic was worth anything.
    pub colours: [u64; 3],
}

/// How long a first fragment is remembered, as Linux's `ipfrag_time`.
pub const FRAGMENT_NS_MAX: u64 = 30_000_000_000;

/// Sends `capture` through the gateway that `config` describes, every packet entering at the same side.
///
/// The clock is the capture's and never runs backwards: a packet stamped earlier than its predecessor comes, and leaves,
/// at the predecessor's instant.
pub fn replay(config: &Config, direction: Direction, capture: &[Packet]) -> Outcome {
    let mut gateway = Gateway {
        config,
        direction,
        meters: config
            .contracts
            .iter()
            .map(|contract| Meter::new(contract.profile.clone(), contract.color_aware))
            .collect(),
        first_fragments: Vec::new(),
        outcome: Outcome::default(),
    };
    let mut now_ns = 0;
    for packet in capture {
        now_ns = now_ns.max(packet.at_ns);
        let left = gateway.forward(now_ns, &packet.bytes);
        gateway
            .outcome
            .packets
            .push(left.map(|bytes| Packet { at_ns: now_ns, bytes }));
    }
    gateway.outcome
}

struct Gateway<'config> {
    config: &'config Config,
    direction: Direction,
    meters: Vec<Meter>,
    first_fragments: Vec<FirstFragment>,
    outcome: Outcome,
}

struct FirstFragment {
    source: IpAddr,
    destination: IpAddr,
    fragment: Fragment,
    at_ns: u64,
    service: Option<usize>,
}

impl Gateway<'_> {
    /// The bytes that leave, if any do.
    fn forward(&mut self, now_ns: u64, frame: &[u8]) -> Option<Vec<u8>> {
        let packet = match dissect(frame) {
            Dissected::Ip(packet) => packet,
            Dissected::Other { payload_bytes } => {
                self.outcome
                    .other
                    .add(counted_bytes(self.config.layer, frame, payload_bytes));
                return Some(frame.to_vec());
            }
        };
        let length = counted_bytes(self.config.layer, frame, packet.total_bytes);
        let service = self.service(now_ns, &packet);
        let (class, arrived) = classify::class(self.config, &packet);
        let contract = service
            .and_then(|service| classify::contract(self.config, &packet, self.direction, (service, class), now_ns));
        let (conforms, action) = match contract {
            Some(index) => {
                let colour = self.meters[index].colour(now_ns, length, arrived);
                self.outcome.colours[colour as usize] += 1;
                (colour == Colour::Green, self.config.contracts[index].action)
            }
            None => (self.config.uncontracted_conforms, Action::Remark),
        };
        let left = match (conforms, action) {
            (true, _) | (false, Action::Queue) => Some(frame.to_vec()),
            (false, Action::Drop) => None,
            (false, Action::Remark) => {
                let dscp = self.config.classes[class].nonconforming_dscp.unwrap_or(packet.dscp);
                Some(with_dscp(frame, &packet, dscp))
            }
        };
        let remarked = left.as_ref().is_some_and(|left| left != frame);
        let counters = self.counters(contract, class);
        counters.offered.add(length);
        if conforms {
            &mut counters.conforming
        } else {
            &mut counters.nonconforming
        }
        .add(length);
        if remarked {
            counters.remarked.add(length);
        }
        if left.is_none() {
            counters.dropped.add(length);
        }
        left
    }

    /// Later fragments follow the first where it was seen at most [`FRAGMENT_NS_MAX`] ago; else they have no ports.
    fn service(&mut self, now_ns: u64, packet: &IpPacket) -> Option<usize> {
        let by_endpoint = classify::service(self.config, packet, self.direction);
        let Some(fragment) = &packet.fragment else {
            return by_endpoint;
        };
        if fragment.is_first {
            self.first_fragments.push(FirstFragment {
                source: packet.source,
                destination: packet.destination,
                fragment: fragment.clone(),
                at_ns: now_ns,
                service: by_endpoint,
            });
            return by_endpoint;
        }
        let first = self.first_fragments.iter().rev().find(|first| {
            (first.source, first.destination) == (packet.source, packet.destination)
                && (first.fragment.id, first.fragment.protocol) == (fragment.id, fragment.protocol)
        });
        match first {
            Some(first) if now_ns - first.at_ns <= FRAGMENT_NS_MAX => first.service,
            _ => by_endpoint,
        }
    }

    fn counters(&mut self, contract: Option<usize>, class: usize) -> &mut Counters {
        let Some(index) = contract else {
            return self
                .outcome
                .uncontracted
                .entry(self.config.classes[class].name.clone())
                .or_default();
        };
        let contract = &self.config.contracts[index];
        let direction = contract.direction.name().to_owned();
        let key = (
            contract.service.clone(),
            contract.class.clone(),
            direction,
            contract.segment.clone(),
        );
        self.outcome.contracts.entry(key).or_default()
    }
}

impl Count {
    /// One more packet.
    pub fn add(&mut self, bytes: u64) {
        self.packets += 1;
        self.bytes += bytes;
    }
}

fn counted_bytes(layer: Layer, frame: &[u8], l3_bytes: usize) -> u64 {
    let bytes = match layer {
        Layer::L3 => l3_bytes,
        Layer::L2 => frame.len(),
        Layer::L1 => frame.len() + 24,
    };
    bytes as u64
}

/// The frame with another code point, ECN untouched.
///
/// A right IPv4 header checksum is summed anew. A wrong one must stay as wrong as it was, so that whoever checks it next
/// still sees the damage: there the change is added by RFC 1624 section 3, `HC' = ~(~HC + ~m + m')`.
fn with_dscp(frame: &[u8], packet: &IpPacket, dscp: u8) -> Vec<u8> {
    let mut out = frame.to_vec();
    if dscp == packet.dscp {
        return out;
    }
    let ip = packet.ip_offset;
    let Some(header_bytes) = packet.ipv4_header_bytes else {
        out[ip] = out[ip] & 0xf0 | dscp >> 2;
        out[ip + 1] = (dscp & 3) << 6 | out[ip + 1] & 0x3f;
        return out;
    };
    let was_right = sum(&frame[ip..ip + header_bytes]) == 0xffff;
    let checksum = u16::from_be_bytes([frame[ip + 10], frame[ip + 11]]);
    out[ip + 1] = dscp << 2 | frame[ip + 1] & 3;
    let new_checksum = if was_right {
        out[ip + 10..ip + 12].fill(0);
        !sum(&out[ip..ip + header_bytes])
    } else {
        let words = [
            !checksum,
            !u16::from_be_bytes([frame[ip], frame[ip + 1]]),
            u16::from_be_bytes([out[ip], out[ip + 1]]),
        ];
        !sum(&words.map(u16::to_be_bytes).concat())
    };
    out[ip + 10..ip + 12].copy_from_slice(&new_checksum.to_be_bytes());
    out
}

/// One's complement sum of 16-bit words, RFC 1071.
fn sum(bytes: &[u8]) -> u16 {
    let mut sum: u32 = bytes
        .chunks(2)
        .map(|word| u32::from(word[0]) << 8 | u32::from(word[1]))
        .sum();
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    u16::try_from(sum).expect("folded to 16 bits")
}

#[cfg(test)]
mod tests {
    use super::super::dissect::Fragment;
    use super::*;

    /// A header of RFC 791 with a right checksum, DSCP 46 and ECN 1, behind an Ethernet header.
    const FRAME: [u8; 34] = [
        2, 0, 0, 0, 0, 1, 2, 0, 0, 0, 0, 2, 8, 0, // Ethernet
        0x45, 0xb9, 0, 20, 0, 0, 0x40, 0, 0x40, 0xfd, 0x25, 0x32, 10, 0, 0, 1, 10, 0, 0, 2,
    ];

    fn packet(frame: &[u8]) -> IpPacket {
        match dissect(frame) {
            Dissected::Ip(packet) => packet,
            Dissected::Other { .. } => panic!("not IP: {frame:02x?}"),
        }
    }

    #[test]
    fn a_remarked_header_still_sums_to_all_ones_and_keeps_ecn() {
        assert_eq!(sum(&FRAME[14..]), 0xffff, "the test's own header");
        let left = with_dscp(&FRAME, &packet(&FRAME), 3);
        assert_eq!((left[15], sum(&left[14..])), (3 << 2 | 1, 0xffff));
        let expected: Vec<u8> = FRAME[..15]
            .iter()
            .copied()
            .chain([0x0d, 0, 20, 0, 0, 0x40, 0, 0x40, 0xfd])
            .collect();
        assert_eq!(left[..24], expected);
        assert_eq!(left[26..], FRAME[26..]);
    }

    #[test]
    fn a_wrong_checksum_stays_exactly_as_wrong() {
        let mut damaged = FRAME;
        damaged[25] = damaged[25].wrapping_add(1);
        let left = with_dscp(&damaged, &packet(&damaged), 3);
        let right = with_dscp(&FRAME, &packet(&FRAME), 3);
        assert_eq!(left[25], right[25].wrapping_add(1));
        assert_eq!(sum(&left[14..]), sum(&damaged[14..]));
    }

    #[test]
    fn later_fragments_follow_the_first_for_thirty_seconds() {
        use super::super::model::{Endpoint, Ports, Prefix, Service};
        let prefix = Prefix {
            address: "10.0.0.0".parse().unwrap(),
            length: 8,
        };
        let endpoint = Endpoint {
            prefix,
            ports: Some(Ports {
                protocol: 17,
                ranges: vec![(53, 53)],
            }),
        };
        let config = Config {
            region: "atn".into(),
            layer: Layer::L3,
            uncontracted_conforms: false,
            classes: Vec::new(),
            segments: Vec::new(),
            services: vec![Service {
                name: "dns".into(),
                endpoints: vec![endpoint],
            }],
            contracts: Vec::new(),
        };
        let mut gateway = Gateway {
            config: &config,
            direction: Direction::Egress,
            meters: Vec::new(),
            first_fragments: Vec::new(),
            outcome: Outcome::default(),
        };
        let fragment = |is_first: bool, id: u32| IpPacket {
            protocol: 17,
            ports: is_first.then_some((53, 9)),
            fragment: Some(Fragment {
                id,
                protocol: 17,
                is_first,
            }),
            ..packet(&FRAME)
        };
        assert_eq!(
            gateway.service(0, &fragment(false, 1)),
            None,
            "before the first was seen"
        );
        assert_eq!(gateway.service(5, &fragment(true, 1)), Some(0));
        assert_eq!(gateway.service(6, &fragment(false, 1)), Some(0));
        assert_eq!(gateway.service(6, &fragment(false, 2)), None, "of another datagram");
        assert_eq!(gateway.service(5 + FRAGMENT_NS_MAX, &fragment(false, 1)), Some(0));
        assert_eq!(
            gateway.service(6 + FRAGMENT_NS_MAX, &fragment(false, 1)),
            None,
            "forgotten"
        );
    }
}

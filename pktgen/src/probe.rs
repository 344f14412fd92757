//! The header of ours that every generated packet carries after UDP, TCP or ICMP, and reading it back.
//!
//! 18 bytes, because a 64-byte Ethernet frame (60 without its FCS) leaves exactly that after 14 of Ethernet, 20 of IPv4
//! and 8 of UDP. All numbers are big-endian.
//!
//! | offset | bytes | field |
//! | --- | --- | --- |
//! | 0 | 2 | magic 0x7765 ("we") |
//! | 2 | 2 | stream: whose packet it is |
//! | 4 | 1 | phase: counts up by one each time the rates change, and wraps |
//! | 5 | 5 | sequence: the packet's number in its stream, from 0, the low 40 bits |
//! | 10 | 8 | intended: when the packet was to be sent, in nanoseconds of CLOCK_MONOTONIC |
//!
//! The sequence runs on over all phases. 40 bits last for 20 hours at 15 million packets a second, and the receiver
//! extends them to 64 (see `sequence`). The phase travels with the packet so that a receiver assigns each to its phase
//! exactly, also when the first of one overtake the last of another.

use dataplane::checksum::{internet_checksum, ipv4_header_checksum, transport_checksum};
use dataplane::clock::Nanos;

/// Bytes of the header.
pub const PROBE_BYTES: usize = 18;
/// How many bits of the sequence travel.
pub const SEQUENCE_BITS: u32 = 40;

/// What the header of one packet says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Probe {
    /// Whose packet it is.
    pub stream: u16,
    /// The low eight bits of the number of the phase.
    pub phase: u8,
    /// The low [`SEQUENCE_BITS`] of the packet's number in its stream.
    pub sequence: u64,
    /// When it was to be sent.
    pub intended: Nanos,
}

impl Probe {
    /// The bytes, as in the table above.
    #[must_use]
    pub fn to_bytes(self) -> [u8; PROBE_BYTES] {
        let mut bytes = [0; PROBE_BYTES];
        bytes[0..2].copy_from_slice(&MAGIC.to_be_bytes());
        bytes[2..4].copy_from_slice(&self.stream.to_be_bytes());
        let numbers = u64::from(self.phase) << SEQUENCE_BITS | self.sequence & SEQUENCE_MASK;
        bytes[4..10].copy_from_slice(&numbers.to_be_bytes()[2..]);
        bytes[10..18].copy_from_slice(&self.intended.0.to_be_bytes());
        bytes
    }

    /// The header at the start of a UDP payload, or `None` if it is not one of ours.
    #[must_use]
    pub fn parse(payload: &[u8]) -> Option<Self> {
        let bytes: &[u8; PROBE_BYTES] = payload.first_chunk()?;
        if u16::from_be_bytes([bytes[0], bytes[1]]) != MAGIC {
            return None;
        }
        let mut numbers = [0; 8];
        numbers[2..].copy_from_slice(&bytes[4..10]);
        let mut intended = [0; 8];
        intended.copy_from_slice(&bytes[10..18]);
        Some(Self {
            stream: u16::from_be_bytes([bytes[2], bytes[3]]),
            phase: bytes[4],
            sequence: u64::from_be_bytes(numbers) & SEQUENCE_MASK,
            intended: Nanos(u64::from_be_bytes(intended)),
        })
    }
}

/// A received packet, taken apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Seen {
    /// One of ours, intact.
    Probe {
        /// What its header says.
        probe: Probe,
        /// The DSCP it arrived with, 0 to 63.
        dscp: u8,
        /// The two ECN bits it arrived with.
        ecn: u8,
        /// IP total length in bytes.
        ip_bytes: u16,
    },
    /// Something we could have sent, but a checksum or a length is wrong: nothing it says can be believed.
    Corrupted,
    /// Something else.
    Foreign,
}

/// Takes a packet apart: Ethernet, any number of VLAN tags up to two, IPv4 or IPv6 without extension headers, and UDP, TCP
/// without options or an ICMP echo request. Verifies the IPv4 header checksum and that of the transport over all of it.
#[must_use]
pub fn dissect(packet: &[u8]) -> Seen {
    let mut at = 12;
    for _ in 0..=VLAN_TAGS_MAX {
        let Some(ethertype) = be16(packet, at) else {
            return Seen::Foreign;
        };
        let after = packet.get(at + 2..).unwrap_or(&[]);
        match ethertype {
            0x8100 | 0x88a8 => at += 4,
            0x0800 => return ipv4(after),
            0x86dd => return ipv6(after),
            _ => return Seen::Foreign,
        }
    }
    Seen::Foreign
}

fn ipv4(packet: &[u8]) -> Seen {
    let Some(header) = packet.first_chunk::<20>() else {
        return Seen::Foreign;
    };
    // Options are nothing we send, and fragments nothing that can be scored.
    if header[0] != 0x45 || be16(header, 6).is_none_or(|word| word & 0x3fff != 0) {
        return Seen::Foreign;
    }
    let ip_bytes = u16::from_be_bytes([header[2], header[3]]);
    let Some(segment) = packet.get(20..usize::from(ip_bytes)) else {
        return Seen::Corrupted;
    };
    if ipv4_header_checksum(header) != u16::from_be_bytes([header[10], header[11]]) {
        return Seen::Corrupted;
    }
    let address = |at: usize| {
        u128::from(u32::from_be_bytes([
            header[at],
            header[at + 1],
            header[at + 2],
            header[at + 3],
        ]))
    };
    transport(header[9], [address(12), address(16)], segment, header[1], ip_bytes)
}

fn ipv6(packet: &[u8]) -> Seen {
    let Some(header) = packet.first_chunk::<40>() else {
        return Seen::Foreign;
    };
    if header[0] >> 4 != 6 {
        return Seen::Foreign;
    }
    let payload_bytes = u16::from_be_bytes([header[4], header[5]]);
    let Some(segment) = packet.get(40..40 + usize::from(payload_bytes)) else {
        return Seen::Corrupted;
    };
    let address = |at: usize| (0..16).fold(0u128, |address, i| address << 8 | u128::from(header[at + i]));
    let traffic_class = header[0] << 4 | header[1] >> 4;
    let ip_bytes = payload_bytes.saturating_add(40);
    transport(header[6], [address(8), address(24)], segment, traffic_class, ip_bytes)
}

fn transport(protocol: u8, addresses: [u128; 2], segment: &[u8], traffic_class: u8, ip_bytes: u16) -> Seen {
    let (header_bytes, intact) = match (protocol, segment.first()) {
        (UDP, _) => {
            let length = be16(segment, 4).map(usize::from);
            let has_checksum = be16(segment, 6).is_some_and(|checksum| checksum != 0);
            (
                8,
                length == Some(segment.len()) && has_checksum && sums_up(protocol, addresses, segment),
            )
        }
        (TCP, _) if segment.get(12).is_some_and(|word| word >> 4 == 5) => (20, sums_up(protocol, addresses, segment)),
        (ICMPV6, Some(128)) => (8, sums_up(protocol, addresses, segment)),
        // Its checksum covers no pseudo header, which is to say one of zeros.
        (ICMP, Some(8)) => (8, segment.len() >= 8 && internet_checksum(segment) == 0),
        _ => return Seen::Foreign,
    };
    if !intact {
        return Seen::Corrupted;
    }
    match segment.get(header_bytes..).and_then(Probe::parse) {
        Some(probe) => Seen::Probe {
            probe,
            dscp: traffic_class >> 2,
            ecn: traffic_class & 3,
            ip_bytes,
        },
        None => Seen::Foreign,
    }
}

/// Over a segment that holds its own checksum the sum is all ones, and its complement 0; as a UDP checksum 0xffff.
fn sums_up(protocol: u8, [source, destination]: [u128; 2], segment: &[u8]) -> bool {
    matches!(transport_checksum(source, destination, protocol, segment), 0 | 0xffff)
}

fn be16(bytes: &[u8], at: usize) -> Option<u16> {
    Some(u16::from_be_bytes([*bytes.get(at)?, *bytes.get(at + 1)?]))
}

const MAGIC: u16 = 0x7765;
const SEQUENCE_MASK: u64 = (1 << SEQUENCE_BITS) - 1;
const ICMP: u8 = 1;
const TCP: u8 = 6;
const UDP: u8 = 17;
const ICMPV6: u8 = 58;
const VLAN_TAGS_MAX: usize = 2;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_layout_is_the_documented_one() {
        let probe = Probe {
            stream: 0x0102,
            phase: 3,
            sequence: 0x04_0506_0708,
            intended: Nanos(0x090a_0b0c_0d0e_0f10),
        };
        let bytes = probe.to_bytes();
        assert_eq!(
            bytes,
            [0x77, 0x65, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16]
        );
        assert_eq!(Probe::parse(&bytes), Some(probe));
        assert_eq!(Probe::parse(&bytes[..17]), None);
        assert_eq!(Probe::parse(&[0; 18]), None);
    }

    #[test]
    fn odd_packets_are_foreign_and_never_a_panic() {
        for len in 0..80 {
            for fill in [0u8, 0x45, 0x60, 0x81, 0xff] {
                let mut packet = vec![fill; len];
                for (at, ethertype) in [(12, 0x0800u16), (12, 0x86dd), (12, 0x8100)] {
                    if len > at + 1 {
                        packet[at..at + 2].copy_from_slice(&ethertype.to_be_bytes());
                    }
                    assert!(!matches!(dissect(&packet), Seen::Probe { .. }));
                }
            }
        }
    }
}

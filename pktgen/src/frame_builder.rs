//! From a stream to the bytes of its packets: a template made once, and a few fields written for each packet.
//!
//! The UDP checksum of a packet is the template's sum plus that of the fields that differ (RFC 1071 section 2: the sum of
//! the parts, in any order), so the cost does not depend on the size but for copying it.

use std::net::IpAddr;

use dataplane::clock::Nanos;
use ipnet::IpNet;

use crate::flow::{Flow, Stream, StreamError, mix};
use crate::probe::{PROBE_BYTES, Probe};

/// Writes the packets of one stream.
#[derive(Clone, Debug)]
pub struct FrameBuilder {
    stream: u16,
    ipv4: bool,
    /// A whole packet in which everything that differs between packets, and every checksum, is zero.
    template: Box<[u8]>,
    ip_offset: usize,
    udp_offset: usize,
    /// The sum of the template's IPv4 header, not folded.
    ip_sum: u64,
    /// The sum of the template's pseudo header, UDP header and payload, not folded.
    udp_sum: u64,
    /// The low 32 bits of the two prefixes.
    source_low: u32,
    destination_low: u32,
    flows: Box<[Flow]>,
}

impl FrameBuilder {
    /// Prepares the stream's template and flows.
    ///
    /// # Errors
    /// See [`Stream::validate`].
    pub fn new(stream: &Stream, seed: u64) -> Result<Self, StreamError> {
        stream.validate()?;
        let ip_offset = usize::from(stream.ip_offset());
        let udp_offset = usize::from(stream.udp_offset());
        let source = network_bytes(&stream.source);
        let destination = network_bytes(&stream.destination);
        let mut template = vec![0; usize::from(stream.frame_bytes)];
        write_ethernet(&mut template, stream);
        let udp_bytes = stream.frame_bytes - stream.udp_offset();
        if stream.is_ipv4() {
            write_ipv4(&mut template[ip_offset..], stream, &source, &destination);
        } else {
            write_ipv6(&mut template[ip_offset..], stream, &source, &destination, udp_bytes);
        }
        template[udp_offset + 4..udp_offset + 6].copy_from_slice(&udp_bytes.to_be_bytes());
        fill(&mut template[udp_offset + 8 + PROBE_BYTES..], seed);
        let udp_sum =
            sum(&source) + sum(&destination) + u64::from(UDP) + u64::from(udp_bytes) + sum(&template[udp_offset..]);
        let ip_sum = if stream.is_ipv4() {
            sum(&template[ip_offset..udp_offset])
        } else {
            0
        };
        Ok(Self {
            stream: stream.id,
            ipv4: stream.is_ipv4(),
            ip_offset,
            udp_offset,
            ip_sum,
            udp_sum,
            source_low: low_32(&source),
            destination_low: low_32(&destination),
            flows: stream.flows(seed).into(),
            template: template.into(),
        })
    }

    /// Bytes of every packet, without FCS.
    #[must_use]
    pub fn frame_bytes(&self) -> usize {
        self.template.len()
    }

    /// Bytes of every packet from the IP header on.
    #[must_use]
    pub fn ip_bytes(&self) -> usize {
        self.template.len() - self.ip_offset
    }

    /// Writes packet number `sequence`; flow `sequence` modulo their number gets it. `packet` must be
    /// [`frame_bytes`](Self::frame_bytes) long, otherwise nothing is written.
    pub fn write(&self, packet: &mut [u8], phase: u8, sequence: u64, intended: Nanos) {
        if packet.len() != self.template.len() {
            return;
        }
        packet.copy_from_slice(&self.template);
        let flow = self.flows[(sequence % self.flows.len() as u64) as usize];
        // What the template already holds of these words is the prefix; the host bits below it are zero there.
        let addresses = sum(&flow.source_host.to_be_bytes()) + sum(&flow.destination_host.to_be_bytes());
        let (source_at, destination_at) = if self.ipv4 { (12, 16) } else { (20, 36) };
        let ip = &mut packet[self.ip_offset..];
        ip[source_at..source_at + 4].copy_from_slice(&(self.source_low | flow.source_host).to_be_bytes());
        ip[destination_at..destination_at + 4]
            .copy_from_slice(&(self.destination_low | flow.destination_host).to_be_bytes());
        if self.ipv4 {
            ip[10..12].copy_from_slice(&(!fold(self.ip_sum + addresses)).to_be_bytes());
        }
        let probe = Probe {
            stream: self.stream,
            phase,
            sequence,
            intended,
        }
        .to_bytes();
        let ports = u64::from(flow.source_port) + u64::from(flow.destination_port);
        let checksum = match !fold(self.udp_sum + addresses + ports + sum(&probe)) {
            // RFC 768: a computed zero is sent as all ones, zero means "no checksum".
            0 => 0xffff,
            checksum => checksum,
        };
        let udp = &mut packet[self.udp_offset..];
        udp[0..2].copy_from_slice(&flow.source_port.to_be_bytes());
        udp[2..4].copy_from_slice(&flow.destination_port.to_be_bytes());
        udp[6..8].copy_from_slice(&checksum.to_be_bytes());
        udp[8..8 + PROBE_BYTES].copy_from_slice(&probe);
    }
}

fn write_ethernet(packet: &mut [u8], stream: &Stream) {
    packet[0..6].copy_from_slice(&stream.destination_mac);
    packet[6..12].copy_from_slice(&stream.source_mac);
    if let Some(vlan) = stream.vlan {
        packet[12..14].copy_from_slice(&0x8100u16.to_be_bytes());
        packet[14..16].copy_from_slice(&(u16::from(vlan.pcp) << 13 | vlan.id).to_be_bytes());
    }
    let ethertype: u16 = if stream.is_ipv4() { 0x0800 } else { 0x86dd };
    let at = usize::from(stream.ip_offset()) - 2;
    packet[at..at + 2].copy_from_slice(&ethertype.to_be_bytes());
}

fn write_ipv4(ip: &mut [u8], stream: &Stream, source: &[u8], destination: &[u8]) {
    ip[0] = 0x45;
    ip[1] = stream.dscp << 2;
    ip[2..4].copy_from_slice(&stream.ip_bytes().to_be_bytes());
    // Don't fragment, so that the identification may stay 0 (RFC 6864 section 4.1).
    ip[6] = 0x40;
    ip[8] = HOP_LIMIT;
    ip[9] = UDP;
    ip[12..16].copy_from_slice(source);
    ip[16..20].copy_from_slice(destination);
}

fn write_ipv6(ip: &mut [u8], stream: &Stream, source: &[u8], destination: &[u8], payload_bytes: u16) {
    let traffic_class = stream.dscp << 2;
    ip[0] = 6 << 4 | traffic_class >> 4;
    ip[1] = traffic_class << 4;
    ip[4..6].copy_from_slice(&payload_bytes.to_be_bytes());
    ip[6] = UDP;
    ip[7] = HOP_LIMIT;
    ip[8..24].copy_from_slice(source);
    ip[24..40].copy_from_slice(destination);
}

/// Bytes that differ from each other, so that a shifted or swapped word shows in a checksum.
fn fill(bytes: &mut [u8], seed: u64) {
    for (i, byte) in bytes.iter_mut().enumerate() {
        *byte = mix(seed ^ i as u64) as u8;
    }
}

fn network_bytes(net: &IpNet) -> Vec<u8> {
    match net.network() {
        IpAddr::V4(address) => address.octets().to_vec(),
        IpAddr::V6(address) => address.octets().to_vec(),
    }
}

fn low_32(address: &[u8]) -> u32 {
    address.iter().fold(0, |low, &byte| low << 8 | u32::from(byte))
}

/// The sum of the big-endian 16-bit words, the last padded with zero (RFC 1071), not folded.
fn sum(bytes: &[u8]) -> u64 {
    let words = bytes.chunks_exact(2);
    let last = words.remainder().first().map_or(0, |&byte| u64::from(byte) << 8);
    last + words
        .map(|word| u64::from(u16::from_be_bytes([word[0], word[1]])))
        .sum::<u64>()
}

fn fold(mut sum: u64) -> u16 {
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    sum as u16
}

const UDP: u8 = 17;
/// What most systems send with.
const HOP_LIMIT: u8 = 64;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::flow::Vlan;
    use crate::flow::tests::stream;
    use crate::probe::{Seen, dissect};

    #[test]
    fn every_packet_is_intact_and_says_what_it_was_told() {
        let ipv6 = |stream: Stream| Stream {
            source: "2001:db8:1::/48".parse().unwrap(),
            destination: "2001:db8:ffff::1/128".parse().unwrap(),
            ..stream
        };
        let tagged = |stream: Stream| Stream {
            vlan: Some(Vlan { id: 100, pcp: 5 }),
            ..stream
        };
        for stream in [
            stream(1, 60),
            stream(2, 61),
            stream(3, 1514),
            tagged(stream(4, 64)),
            ipv6(stream(5, 80)),
            ipv6(tagged(stream(6, 1501))),
        ] {
            let builder = FrameBuilder::new(&stream, 42).unwrap();
            let mut packet = vec![0; builder.frame_bytes()];
            for i in 0..20_000u64 {
                let (sequence, intended) = (mix(i) >> 24, Nanos(mix(!i)));
                builder.write(&mut packet, i as u8, sequence, intended);
                let expected = Seen::Probe {
                    probe: Probe {
                        stream: stream.id,
                        phase: i as u8,
                        sequence,
                        intended,
                    },
                    dscp: 46,
                    ecn: 0,
                    ip_bytes: builder.ip_bytes() as u16,
                };
                assert_eq!(dissect(&packet), expected, "stream {} packet {i}", stream.id);
            }
            // One flipped bit anywhere from the addresses on does not go unnoticed.
            for bit in (usize::from(stream.ip_offset()) + 12) * 8..packet.len() * 8 {
                packet[bit / 8] ^= 1 << (bit % 8);
                assert!(!matches!(dissect(&packet), Seen::Probe { .. }), "bit {bit}");
                packet[bit / 8] ^= 1 << (bit % 8);
            }
        }
    }

    #[test]
    fn addresses_stay_in_their_prefixes() {
        let builder = FrameBuilder::new(&stream(1, 60), 1).unwrap();
        let mut packet = vec![0; 60];
        for sequence in 0..100 {
            builder.write(&mut packet, 0, sequence, Nanos(0));
            assert_eq!(packet[26..28], [10, 1]);
            assert_eq!(packet[30..33], [198, 51, 100]);
            assert_eq!(packet[36..38], 443u16.to_be_bytes());
        }
        builder.write(&mut packet[..59], 0, 0, Nanos(7));
        assert_eq!(
            dissect(&packet),
            dissect(&packet.clone()),
            "a wrong length writes nothing"
        );
    }
}

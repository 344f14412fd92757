//! From a stream to the bytes of its packets: a template made once, and a few fields written for each packet.
//!
//! A checksum is the template's sum plus that of the fields that differ (RFC 1071 section 2: the sum of the parts, in any
//! order), and the sum of as many bytes of filling as the packet has is kept ready, so the cost does not depend on the
//! size but for copying it.

use std::net::IpAddr;

use dataplane::clock::Nanos;
use ipnet::IpNet;

use crate::flow::{Flows, mix};
use crate::probe::{PROBE_BYTES, Probe};
use crate::stream::{FRAME_BYTES_MAX, Protocol, Stream, StreamError};

/// Writes the packets of one stream.
#[derive(Clone, Debug)]
pub struct FrameBuilder {
    stream: u16,
    ipv4: bool,
    protocol: Protocol,
    /// The longest packet, in which everything that differs between packets, and every checksum, is zero.
    template: Box<[u8]>,
    ip_offset: usize,
    transport_offset: usize,
    payload_offset: usize,
    /// The sum of the template's IPv4 header, not folded.
    ip_sum: u64,
    /// The sum of what the transport checksum covers but for lengths, our header and the filling; not folded.
    transport_sum: u64,
    /// The sum of the first so many bytes of the filling.
    filling_sums: Box<[u64]>,
    /// The low 32 bits of the two prefixes.
    source_low: u32,
    destination_low: u32,
    sizes: Box<[u16]>,
    flows: Flows,
}

impl FrameBuilder {
    /// Prepares the stream's template and flows.
    ///
    /// # Errors
    /// See [`Stream::validate`].
    pub fn new(stream: &Stream, seed: u64) -> Result<Self, StreamError> {
        stream.validate()?;
        let ipv4 = stream.is_ipv4();
        let ip_offset = usize::from(stream.ip_offset());
        let transport_offset = usize::from(stream.transport_offset());
        let payload_offset = usize::from(stream.payload_offset());
        let source = network_bytes(&stream.source);
        let destination = network_bytes(&stream.destination);
        let protocol = stream.protocol.number(ipv4);
        let mut template = vec![0; usize::from(FRAME_BYTES_MAX)];
        write_ethernet(&mut template, stream);
        let ip = &mut template[ip_offset..];
        if ipv4 {
            write_ipv4(ip, stream.dscp, protocol, &source, &destination);
        } else {
            write_ipv6(ip, stream.dscp, protocol, &source, &destination);
        }
        write_transport(&mut template[transport_offset..], stream.protocol, ipv4);
        let filling = &mut template[payload_offset + PROBE_BYTES..];
        fill(filling, seed);
        let filling_sums = (0..=filling.len()).scan(0, |before, bytes| {
            // Of an odd number the last byte is the high one of a word (RFC 1071).
            let odd = bytes % 2 == 1;
            let sum = *before + if odd { u64::from(filling[bytes - 1]) << 8 } else { 0 };
            if odd && bytes < filling.len() {
                *before = sum + u64::from(filling[bytes]);
            }
            Some(sum)
        });
        let filling_sums = filling_sums.collect();
        let mut transport_sum = sum(&template[transport_offset..payload_offset]);
        if stream.protocol.has_pseudo_header(ipv4) {
            transport_sum += sum(&source) + sum(&destination) + u64::from(protocol);
        }
        Ok(Self {
            stream: stream.id,
            ipv4,
            protocol: stream.protocol,
            ip_offset,
            transport_offset,
            payload_offset,
            ip_sum: sum(&template[ip_offset..transport_offset]),
            transport_sum,
            filling_sums,
            source_low: low_32(&source),
            destination_low: low_32(&destination),
            sizes: stream.frame_bytes.clone().into(),
            flows: Flows::new(stream, seed),
            template: template.into(),
        })
    }

    /// Bytes of packet number `sequence` without FCS: the stream's sizes in turn.
    #[inline]
    #[must_use]
    pub fn frame_bytes(&self, sequence: u64) -> usize {
        match &*self.sizes {
            [only] => usize::from(*only),
            sizes => usize::from(sizes[(sequence % sizes.len() as u64) as usize]),
        }
    }

    /// Bytes of a packet of `frame_bytes` from the IP header on.
    #[inline]
    #[must_use]
    pub fn ip_bytes(&self, frame_bytes: usize) -> usize {
        frame_bytes - self.ip_offset
    }

    /// Writes packet number `sequence` of any length from the shortest that holds our header to [`FRAME_BYTES_MAX`]; of
    /// another length nothing is written.
    #[inline]
    pub fn write(&self, packet: &mut [u8], phase: u8, sequence: u64, intended: Nanos) {
        self.write_of_flow(packet, phase, sequence, sequence, intended);
    }

    /// [`write`](Self::write) for the flow that packet number `flow` would get.
    #[inline]
    pub fn write_of_flow(&self, packet: &mut [u8], phase: u8, sequence: u64, flow: u64, intended: Nanos) {
        let Some(filling) = packet.len().checked_sub(self.payload_offset + PROBE_BYTES) else {
            return;
        };
        let (Some(template), Some(filling_sum)) = (self.template.get(..packet.len()), self.filling_sums.get(filling))
        else {
            return;
        };
        packet.copy_from_slice(template);
        let flow = self.flows.of(flow);
        // What the template already holds of these words is the prefix; the host bits below it are zero there.
        let addresses = sum(&flow.source_host.to_be_bytes()) + sum(&flow.destination_host.to_be_bytes());
        let source = (self.source_low | flow.source_host).to_be_bytes();
        let destination = (self.destination_low | flow.destination_host).to_be_bytes();
        let transport_bytes = packet.len() - self.transport_offset;
        let ip = &mut packet[self.ip_offset..];
        if self.ipv4 {
            let length = ip.len() as u16;
            ip[2..4].copy_from_slice(&length.to_be_bytes());
            let checksum = !fold(self.ip_sum + addresses + u64::from(length));
            ip[10..12].copy_from_slice(&checksum.to_be_bytes());
            ip[12..16].copy_from_slice(&source);
            ip[16..20].copy_from_slice(&destination);
        } else {
            ip[4..6].copy_from_slice(&(transport_bytes as u16).to_be_bytes());
            ip[20..24].copy_from_slice(&source);
            ip[36..40].copy_from_slice(&destination);
        }
        let probe = Probe {
            stream: self.stream,
            phase,
            sequence,
            intended,
        }
        .to_bytes();
        let transport = &mut packet[self.transport_offset..];
        let at = self.protocol.ports_offset();
        transport[at..at + 2].copy_from_slice(&flow.source_port.to_be_bytes());
        transport[at + 2..at + 4].copy_from_slice(&flow.destination_port.to_be_bytes());
        let ports = u64::from(flow.source_port) + u64::from(flow.destination_port);
        let mut total = self.transport_sum + ports + sum(&probe) + filling_sum;
        if self.protocol.has_pseudo_header(self.ipv4) {
            total += addresses + transport_bytes as u64;
        }
        if self.protocol == Protocol::Udp {
            transport[4..6].copy_from_slice(&(transport_bytes as u16).to_be_bytes());
            total += transport_bytes as u64;
        }
        let checksum = match !fold(total) {
            // RFC 768: a computed zero is sent as all ones, zero means "no checksum".
            0 if self.protocol == Protocol::Udp => 0xffff,
            checksum => checksum,
        };
        let at = self.protocol.checksum_offset();
        transport[at..at + 2].copy_from_slice(&checksum.to_be_bytes());
        let at = self.payload_offset - self.transport_offset;
        transport[at..at + PROBE_BYTES].copy_from_slice(&probe);
    }
}

fn write_ethernet(packet: &mut [u8], stream: &Stream) {
    packet[0..6].copy_from_slice(&stream.destination_mac);
    packet[6..12].copy_from_slice(&stream.source_mac);
    let tags = stream.vlans.len();
    for (number, vlan) in stream.vlans.iter().enumerate() {
        let ether_type: u16 = if number + 1 < tags { 0x88a8 } else { 0x8100 };
        let tag = &mut packet[12 + 4 * number..16 + 4 * number];
        tag[0..2].copy_from_slice(&ether_type.to_be_bytes());
        tag[2..4].copy_from_slice(&(u16::from(vlan.pcp) << 13 | vlan.id).to_be_bytes());
    }
    let ether_type: u16 = if stream.is_ipv4() { 0x0800 } else { 0x86dd };
    let at = usize::from(stream.ip_offset()) - 2;
    packet[at..at + 2].copy_from_slice(&ether_type.to_be_bytes());
}

fn write_ipv4(ip: &mut [u8], dscp: u8, protocol: u8, source: &[u8], destination: &[u8]) {
    ip[0] = 0x45;
    ip[1] = dscp << 2;
    // Don't fragment, so that the identification may stay 0 (RFC 6864 section 4.1).
    ip[6] = 0x40;
    ip[8] = HOP_LIMIT;
    ip[9] = protocol;
    ip[12..16].copy_from_slice(source);
    ip[16..20].copy_from_slice(destination);
}

fn write_ipv6(ip: &mut [u8], dscp: u8, protocol: u8, source: &[u8], destination: &[u8]) {
    let traffic_class = dscp << 2;
    ip[0] = 6 << 4 | traffic_class >> 4;
    ip[1] = traffic_class << 4;
    ip[6] = protocol;
    ip[7] = HOP_LIMIT;
    ip[8..24].copy_from_slice(source);
    ip[24..40].copy_from_slice(destination);
}

/// The fields of a transport header that are the same in every packet.
fn write_transport(header: &mut [u8], protocol: Protocol, ipv4: bool) {
    match protocol {
        Protocol::Udp => {}
        Protocol::Tcp => {
            // Five words of header; ACK; a window of 65,535.
            header[12] = 5 << 4;
            header[13] = 0x10;
            header[14..16].copy_from_slice(&u16::MAX.to_be_bytes());
        }
        // Echo request.
        Protocol::Icmp => header[0] = if ipv4 { 8 } else { 128 },
    }
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

/// What most systems send with.
const HOP_LIMIT: u8 = 64;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::probe::{Seen, dissect};
    use crate::stream::Vlan;
    use crate::stream::tests::stream;

    #[test]
    fn every_packet_is_intact_and_says_what_it_was_told() {
        let ipv6 = |stream: Stream| Stream {
            source: "2001:db8:1::/48".parse().unwrap(),
            destination: "2001:db8:ffff::1/128".parse().unwrap(),
            ..stream
        };
        let tagged = |stream: Stream| Stream {
            vlans: vec![Vlan { id: 7, pcp: 1 }, Vlan { id: 100, pcp: 5 }],
            ..stream
        };
        let carried_by = |protocol, stream: Stream| Stream { protocol, ..stream };
        let streams = [
            stream(1, 60),
            stream(2, 61),
            stream(3, 1514),
            tagged(stream(4, 68)),
            ipv6(stream(5, 80)),
            ipv6(tagged(stream(6, 1501))),
            Stream {
                frame_bytes: vec![60, 590, 60, 1514, 3840],
                ..stream(7, 60)
            },
            carried_by(Protocol::Tcp, stream(8, 72)),
            carried_by(Protocol::Tcp, ipv6(stream(9, 1001))),
            carried_by(Protocol::Icmp, stream(10, 60)),
            carried_by(Protocol::Icmp, ipv6(stream(11, 81))),
        ];
        for stream in streams {
            let builder = FrameBuilder::new(&stream, 42).unwrap();
            let mut packet = Vec::new();
            for i in 0..20_000u64 {
                let (sequence, intended) = (mix(i) >> 24, Nanos(mix(!i)));
                packet.resize(builder.frame_bytes(sequence), 0);
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
                    ip_bytes: builder.ip_bytes(packet.len()) as u16,
                };
                assert_eq!(dissect(&packet), expected, "stream {} packet {i}", stream.id);
            }
            // One flipped bit anywhere from the transport header on does not go unnoticed.
            for bit in usize::from(stream.transport_offset()) * 8..packet.len() * 8 {
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

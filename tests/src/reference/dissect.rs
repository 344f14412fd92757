//! Bytes of a frame to the fields that classification needs, one field after the other.
//!
//! A frame is IP when it has at most two VLAN tags, an IPv4 or IPv6 header that agrees with its ethertype and with
//! itself, and no less bytes than that header promises. Everything else is `other`. What follows that header may be
//! anything: a chain of IPv6 extension headers that is cut off, longer than [`EXTENSION_HEADERS_MAX`] or with a second fragment header
//! (even behind an atomic one), and a TCP or UDP header too short to hold its ports, merely leave the packet without ports. The IPv4 header checksum
//! is not judged.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// What a frame turned out to be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Dissected {
    /// Not IP, or not sound. Holds the bytes after the Ethernet header and VLAN tags, which is what layer 3 counts.
    Other {
        /// Their number.
        payload_bytes: usize,
    },
    /// A sound IP packet.
    Ip(IpPacket),
}

/// A sound IP packet's fields.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct IpPacket {
    /// Priority code point of the outer VLAN tag, if there is a tag.
    pub pcp: Option<u8>,
    /// Where the IP header starts in the frame.
    pub ip_offset: usize,
    /// Length of the IPv4 header with its options; `None` for IPv6.
    pub ipv4_header_bytes: Option<usize>,
    /// IP total length, headers included; without Ethernet padding.
    pub total_bytes: usize,
    /// Differentiated services code point, 0 to 63.
    pub dscp: u8,
    /// Source address.
    pub source: IpAddr,
    /// Destination address.
    pub destination: IpAddr,
    /// IPv4 protocol, or the next header after the last IPv6 extension header.
    pub protocol: u8,
    /// Source and destination port of TCP or UDP, where the packet holds them.
    pub ports: Option<(u16, u16)>,
    /// Set for fragments; an IPv6 packet with a fragment header that is whole (RFC 6946) is none.
    pub fragment: Option<Fragment>,
}

/// Which datagram a fragment belongs to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fragment {
    /// Identification: 16 bits in IPv4, 32 in IPv6.
    pub id: u32,
    /// Protocol of the IPv4 header, or next header of the IPv6 fragment header: the same in all fragments.
    pub protocol: u8,
    /// Offset zero: the one fragment that holds the ports.
    pub is_first: bool,
}

/// After more extension headers than this nobody looks for ports.
pub const EXTENSION_HEADERS_MAX: usize = 8;

const VLAN_ETHERTYPES: [u16; 3] = [0x8100, 0x88a8, 0x9100];
const VLAN_TAGS_MAX: usize = 2;
const TCP: u8 = 6;
const UDP: u8 = 17;

/// Reads a frame.
pub fn dissect(frame: &[u8]) -> Dissected {
    let mut pcp = None;
    let mut ethertype_offset = 12;
    for _ in 0..VLAN_TAGS_MAX {
        let is_tag = u16_at(frame, ethertype_offset).is_some_and(|ethertype| VLAN_ETHERTYPES.contains(&ethertype));
        // A tag is four bytes, and another ethertype follows.
        if !is_tag {
            break;
        }
        if frame.len() < ethertype_offset + 6 {
            // All that is there is the beginning of a tag: nothing follows the link layer.
            return Dissected::Other { payload_bytes: 0 };
        }
        pcp = pcp.or(Some(frame[ethertype_offset + 2] >> 5));
        ethertype_offset += 4;
    }
    let ip_offset = ethertype_offset + 2;
    let packet = frame.get(ip_offset..).unwrap_or(&[]);
    let ip = match u16_at(frame, ethertype_offset) {
        Some(0x0800) => ipv4(packet),
        Some(0x86dd) => ipv6(packet),
        _ => None,
    };
    ip.map_or(
        Dissected::Other {
            payload_bytes: packet.len(),
        },
        |ip| Dissected::Ip(IpPacket { pcp, ip_offset, ..ip }),
    )
}

/// RFC 791 section 3.1.
fn ipv4(packet: &[u8]) -> Option<IpPacket> {
    let header_bytes = usize::from(packet.first()? & 0x0f) * 4;
    let total_bytes = usize::from(u16_at(packet, 2)?);
    if packet[0] >> 4 != 4 || header_bytes < 20 || total_bytes < header_bytes || packet.len() < total_bytes {
        return None;
    }
    let protocol = packet[9];
    let flags_and_offset = u16_at(packet, 6)?;
    let (more, offset) = (flags_and_offset & 0x2000 != 0, flags_and_offset & 0x1fff);
    let fragment = Fragment {
        id: u32::from(u16_at(packet, 4)?),
        protocol,
        is_first: offset == 0,
    };
    let payload = &packet[header_bytes..total_bytes];
    Some(IpPacket {
        pcp: None,
        ip_offset: 0,
        ipv4_header_bytes: Some(header_bytes),
        total_bytes,
        dscp: packet[1] >> 2,
        source: ipv4_address(&packet[12..16]),
        destination: ipv4_address(&packet[16..20]),
        protocol,
        ports: if offset == 0 { ports(protocol, payload) } else { None },
        fragment: (more || offset != 0).then_some(fragment),
    })
}

/// RFC 8200 sections 3 and 4.
fn ipv6(packet: &[u8]) -> Option<IpPacket> {
    let total_bytes = 40 + usize::from(u16_at(packet, 4)?);
    if packet[0] >> 4 != 6 || packet.len() < total_bytes {
        return None;
    }
    let packet = &packet[..total_bytes];
    let mut protocol = packet[6];
    let mut offset = 40;
    let mut fragment: Option<Fragment> = None;
    let mut headers = 0;
    let mut fragment_headers = 0;
    // The IP header is good, so the packet has addresses and a class, wherever its chain of headers leads. A chain that
    // is cut off, too long, or fragmented twice only hides the ports.
    let mut broken = false;
    while is_extension_header(protocol) {
        let rest = packet.get(offset..).unwrap_or(&[]);
        headers += 1;
        fragment_headers += usize::from(protocol == 44);
        let length = extension_header_bytes(protocol, rest).filter(|length| *length <= rest.len());
        let Some(length) = length.filter(|_| headers <= EXTENSION_HEADERS_MAX && fragment_headers <= 1) else {
            broken = true;
            break;
        };
        let header = &rest[..length];
        let kind = protocol;
        protocol = header[0];
        offset += length;
        if kind == 44 {
            let offset_and_more = u16_at(header, 2)?;
            let (is_first, more) = (offset_and_more & 0xfff8 == 0, offset_and_more & 1 != 0);
            let id = u32::from_be_bytes(header[4..8].try_into().ok()?);
            fragment = (more || !is_first).then_some(Fragment { id, protocol, is_first });
            if !is_first {
                // What follows is the middle of the datagram, not a header.
                break;
            }
        }
    }
    let is_later = fragment.as_ref().is_some_and(|fragment| !fragment.is_first);
    Some(IpPacket {
        pcp: None,
        ip_offset: 0,
        ipv4_header_bytes: None,
        total_bytes,
        dscp: (packet[0] & 0x0f) << 2 | packet[1] >> 6,
        source: ipv6_address(&packet[8..24]),
        destination: ipv6_address(&packet[24..40]),
        protocol,
        ports: if is_later || broken {
            None
        } else {
            ports(protocol, &packet[offset..])
        },
        fragment,
    })
}

fn is_extension_header(protocol: u8) -> bool {
    matches!(protocol, 0 | 43 | 44 | 51 | 60 | 135 | 139 | 140)
}

/// Length of the extension header in bytes; `None` when it cannot be read.
fn extension_header_bytes(protocol: u8, rest: &[u8]) -> Option<usize> {
    let length = usize::from(*rest.get(1)?);
    Some(match protocol {
        // The fragment header has one size.
        44 => 8,
        // Authentication header, RFC 4302 section 2.2: 4-byte units, minus 2.
        51 => (length + 2) * 4,
        // Hop-by-hop, routing, destination options, mobility, HIP, shim6: 8-byte units, the first not counted.
        _ => (length + 1) * 8,
    })
}

fn ports(protocol: u8, payload: &[u8]) -> Option<(u16, u16)> {
    if protocol != TCP && protocol != UDP {
        return None;
    }
    Some((u16_at(payload, 0)?, u16_at(payload, 2)?))
}

fn u16_at(bytes: &[u8], offset: usize) -> Option<u16> {
    Some(u16::from_be_bytes(bytes.get(offset..offset + 2)?.try_into().ok()?))
}

fn ipv4_address(bytes: &[u8]) -> IpAddr {
    let octets: [u8; 4] = bytes.try_into().expect("four bytes were cut out");
    IpAddr::V4(Ipv4Addr::from(octets))
}

fn ipv6_address(bytes: &[u8]) -> IpAddr {
    let octets: [u8; 16] = bytes.try_into().expect("sixteen bytes were cut out");
    IpAddr::V6(Ipv6Addr::from(octets))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Ethernet and a 28-byte IPv4 packet: 10.0.0.1 port 1 to 10.0.0.2 port 2 over UDP, DSCP 46.
    fn udp_over_ipv4() -> Vec<u8> {
        let mut frame = vec![0; 12];
        frame.extend([
            0x08,
            0x00,
            0x45,
            46 << 2,
            0,
            28,
            0,
            7,
            0,
            0,
            64,
            17,
            0,
            0,
            10,
            0,
            0,
            1,
            10,
            0,
            0,
            2,
        ]);
        frame.extend([0, 1, 0, 2, 0, 8, 0, 0]);
        frame
    }

    /// Ethernet and IPv6 with the given kinds of 8-byte extension headers, then UDP from port 1 to port 2.
    fn udp_over_ipv6(kinds: &[u8]) -> Vec<u8> {
        let mut frame = vec![0; 12];
        frame.extend([0x86, 0xdd, 0x6b, 0x80, 0, 0, 0, 8 * (kinds.len() as u8 + 1)]);
        frame.extend([kinds.first().copied().unwrap_or(UDP), 64]);
        frame.extend([0x20; 32]);
        for index in 0..kinds.len() {
            frame.extend([kinds.get(index + 1).copied().unwrap_or(UDP), 0, 0, 0, 0, 0, 0, 9]);
        }
        frame.extend([0, 1, 0, 2, 0, 8, 0, 0]);
        frame
    }

    fn ip(frame: &[u8]) -> IpPacket {
        match dissect(frame) {
            Dissected::Ip(packet) => packet,
            Dissected::Other { .. } => panic!("not IP: {frame:02x?}"),
        }
    }

    #[test]
    fn reads_sound_packets() {
        let packet = ip(&udp_over_ipv4());
        assert_eq!(
            (packet.dscp, packet.total_bytes, packet.ports, packet.pcp),
            (46, 28, Some((1, 2)), None)
        );
        assert_eq!(
            (packet.source.to_string(), packet.destination.to_string()),
            ("10.0.0.1".into(), "10.0.0.2".into())
        );
        assert_eq!(packet.fragment, None);
        let packet = ip(&udp_over_ipv6(&[0, 43, 60]));
        assert_eq!(
            (packet.dscp, packet.total_bytes, packet.ports),
            (46, 40 + 32, Some((1, 2)))
        );
    }

    #[test]
    fn reads_two_tags_and_no_third() {
        let tagged = |tags: usize| {
            let frame = udp_over_ipv4();
            [
                &frame[..12],
                &[0x88, 0xa8, 0xa0, 1, 0x81, 0, 0x20, 2, 0x91, 0, 0x40, 3][..tags * 4],
                &frame[12..],
            ]
            .concat()
        };
        assert_eq!((ip(&tagged(1)).pcp, ip(&tagged(1)).ip_offset), (Some(5), 18));
        assert_eq!((ip(&tagged(2)).pcp, ip(&tagged(2)).ip_offset), (Some(5), 22));
        assert_eq!(dissect(&tagged(3)), Dissected::Other { payload_bytes: 28 + 4 });
    }

    #[test]
    fn strange_frames_are_other() {
        let changed = |at: usize, value: u8| {
            let mut frame = udp_over_ipv4();
            frame[at] = value;
            frame
        };
        for (why, frame) in [
            ("version 6 under the ethertype of IPv4", changed(14, 0x65)),
            ("a header of 16 bytes", changed(14, 0x44)),
            ("a header longer than the packet", changed(14, 0x4f)),
            ("one byte less than the total length", udp_over_ipv4()[..41].to_vec()),
            ("no header at all", udp_over_ipv4()[..14].to_vec()),
            ("an IPv6 packet cut short", udp_over_ipv6(&[])[..61].to_vec()),
        ] {
            assert_eq!(
                dissect(&frame),
                Dissected::Other {
                    payload_bytes: frame.len() - 14
                },
                "{why}"
            );
        }
    }

    #[test]
    fn a_broken_chain_of_extension_headers_only_hides_the_ports() {
        assert_eq!(ip(&udp_over_ipv6(&[60; 8])).ports, Some((1, 2)));
        let mut overrun = udp_over_ipv6(&[60]);
        overrun[14 + 41] = 9;
        for (why, frame) in [
            ("nine extension headers", udp_over_ipv6(&[60; 9])),
            ("an extension header beyond the packet", overrun),
        ] {
            let packet = ip(&frame);
            assert_eq!((packet.dscp, packet.ports), (46, None), "{why}");
        }
    }

    #[test]
    fn only_the_first_fragment_has_ports() {
        let fragment = |flags_and_offset: [u8; 2]| {
            let mut frame = udp_over_ipv4();
            frame[20..22].copy_from_slice(&flags_and_offset);
            ip(&frame)
        };
        let first = fragment([0x20, 0]);
        assert_eq!((first.ports, first.fragment.unwrap().is_first), (Some((1, 2)), true));
        let last = fragment([0, 1]);
        let datagram = Fragment {
            id: 7,
            protocol: UDP,
            is_first: false,
        };
        assert_eq!((last.ports, last.fragment), (None, Some(datagram)));
        assert_eq!(fragment([0x40, 0]).fragment, None, "don't fragment");
        let mut later = udp_over_ipv6(&[60, 44]);
        let header = 14 + 40 + 8;
        assert_eq!(ip(&later).fragment, None, "an atomic fragment is whole");
        later[header + 3] = 8;
        let later = ip(&later);
        assert_eq!(
            (later.ports, later.fragment),
            (
                None,
                Some(Fragment {
                    id: 9,
                    protocol: UDP,
                    is_first: false
                })
            )
        );
    }

    #[test]
    fn padding_counts_for_nothing_and_short_transport_headers_have_no_ports() {
        let mut frame = udp_over_ipv4();
        frame.resize(60, 0xff);
        assert_eq!((ip(&frame).total_bytes, ip(&frame).ports), (28, Some((1, 2))));
        frame[17] = 23;
        assert_eq!((ip(&frame).total_bytes, ip(&frame).ports), (23, None));
    }
}

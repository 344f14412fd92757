//! What the headers of a packet say: Ethernet, 802.1Q tags, IPv4 or IPv6, and the ports of TCP and UDP.
//!
//! [`parse`] looks at one packet and answers with a value; nothing a sender writes is an error here. A packet is either
//! [`Parsed::Ip`], when its IP header is whole and agrees with the length of the packet, or [`Parsed::Other`], which is
//! forwarded untouched. The parser reads, it never writes (that is `mark.rs`), keeps no state (fragments: `fragment.rs`)
//! and verifies no checksum: a damaged packet is the receiver's to drop. Every worker calls it once per packet.
//!
//! ```text
//! Ethernet ─► up to 2 tags ─► IPv4 ─► options ────────────────────► ports of TCP, UDP
//!     │             │     └─► IPv6 ─► up to 8 extension headers ──────►┘
//!     └─────────────┴── anything else, lengths that lie ─► Other
//! ```
//!
//! The fields are read straight from slices and not through `smoltcp::wire`, which knows no 802.1Q, checks a whole
//! packet where captures are cut short, and would be three views where one fixed-size header read per layer is enough.
//! The tests hold both against each other.
//!
//! Deviations: jumbograms (RFC 2675) have payload length 0 and count as their 40 header bytes, ports unknown. An IPv4
//! total length of 0, as captures of segmentation offload show it, makes the packet `Other`. A second fragment header
//! in one packet ends the chain, transport unknown (RFC 8200 section 4.1 has each header "occur at most once").

/// A differentiated services code point (RFC 2474 section 3): 0 to 63.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Dscp(u8);

impl Dscp {
    /// The code point `value`; `None` above 63.
    #[inline]
    #[must_use]
    pub const fn new(value: u8) -> Option<Self> {
        if value < 64 { Some(Self(value)) } else { None }
    }

    /// The code point as a number, 0 to 63.
    #[inline]
    #[must_use]
    pub const fn get(self) -> u8 {
        self.0
    }
}

/// A priority code point of a VLAN tag (IEEE 802.1Q section 6.9.3): 0 to 7.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Pcp(u8);

impl Pcp {
    /// The code point `value`; `None` above 7.
    #[inline]
    #[must_use]
    pub const fn new(value: u8) -> Option<Self> {
        if value < 8 { Some(Self(value)) } else { None }
    }

    /// The code point as a number, 0 to 7.
    #[inline]
    #[must_use]
    pub const fn get(self) -> u8 {
        self.0
    }
}

/// The version of IP.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Family {
    /// IPv4 (RFC 791).
    Ipv4,
    /// IPv6 (RFC 8200).
    Ipv6,
}

/// Which part of its datagram an IP packet carries.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Fragment {
    /// All of it; also an IPv6 "atomic fragment" (RFC 6946).
    Whole,
    /// The beginning, where the transport header is.
    First {
        /// The identification all fragments of the datagram share: 16 bits in IPv4, 32 in IPv6.
        id: u32,
    },
    /// A part behind the beginning, without a transport header.
    Later {
        /// As in [`Fragment::First`].
        id: u32,
    },
}

/// The port numbers of a TCP or UDP header.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Ports {
    /// The sender's.
    pub src: u16,
    /// The receiver's.
    pub dst: u16,
}

/// The headers of an IP packet. Offsets count from the first byte of the packet and lie inside the bytes parsed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Headers {
    /// The version of IP.
    pub family: Family,
    /// The priority of the outer VLAN tag; `None` without a tag.
    pub pcp: Option<Pcp>,
    /// VLAN tags, 0 to 2.
    pub vlan_tags: u8,
    /// Where the IP header begins: 14, 18 or 22.
    pub l3_offset: u16,
    /// Length of the IP packet in bytes with its header, without Ethernet padding: IPv4 total length, or 40 + IPv6
    /// payload length. At most what was on the wire behind `l3_offset`, which in a capture may be more than was kept.
    pub l3_len: u32,
    /// The upper six bits of the IPv4 TOS byte or the IPv6 traffic class (RFC 2474).
    pub dscp: Dscp,
    /// The lower two bits of that byte (RFC 3168), 0 to 3.
    pub ecn: u8,
    /// Source address; an IPv4 address in the low 32 bits.
    pub src: u128,
    /// Destination address of the IP header, whatever a routing header says; an IPv4 address in the low 32 bits.
    pub dst: u128,
    /// Number of the last header reached. IPv4: the protocol. IPv6: the first that is not an extension header this
    /// parser walks, or the extension header at which it had to stop.
    pub protocol: u8,
    /// Where the header `protocol` begins (possibly at the very end, with no byte there). `None` in a later fragment,
    /// after an IPv6 header chain that could not be followed to its end, and for "no next header".
    pub l4_offset: Option<u16>,
    /// Ports of TCP (6) and UDP (17); `None` for any other protocol, in a later fragment, and when cut off.
    pub ports: Option<Ports>,
    /// Which part of its datagram this is.
    pub fragment: Fragment,
}

/// What [`parse`] makes of a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Parsed {
    /// IPv4 or IPv6 with a good header.
    Ip(Headers),
    /// Anything else: ARP, 802.3 length frames, three tags, broken or cut-off IP headers.
    Other {
        /// Bytes of the Ethernet header and up to two tags: 14, 18 or 22, less if `bytes` ends before. A third tag
        /// counts as payload.
        l3_offset: u16,
        /// The priority of the outer tag, if there is one and it is not cut off.
        pcp: Option<Pcp>,
    },
}

impl Parsed {
    /// The headers of an IP packet.
    #[inline]
    #[must_use]
    pub fn headers(&self) -> Option<&Headers> {
        match self {
            Parsed::Ip(headers) => Some(headers),
            Parsed::Other { .. } => None,
        }
    }
}

/// Reads the headers of the packet `bytes`, an Ethernet II frame from destination address to the end without FCS.
///
/// `wire_len` is the packet's length on the wire in bytes: the same as `bytes.len()` on a live port, more when a
/// capture kept only the beginning (less is taken as `bytes.len()`). Lengths inside the packet are held against it;
/// reads are held against `bytes`. At most 8 extension headers are looked at, so the work is bounded.
#[inline]
#[must_use]
pub fn parse(bytes: &[u8], wire_len: usize) -> Parsed {
    match parse_plain(bytes, wire_len) {
        Some(headers) => Parsed::Ip(headers),
        None => parse_any(bytes, wire_len),
    }
}

/// Up to here the headers of a plain packet reach, and the ports behind them.
const PLAIN_LEN: usize = ETHERNET_LEN + IPV4_HEADER_LEN + 4;

/// What nearly every packet is: untagged, IPv4 without options, not fragmented, TCP or UDP. One comparison of lengths then
/// does for all layers, which is a third of the instructions. `None` for everything else; [`parse_any`] gives the same for
/// what is plain.
#[inline(always)]
pub(crate) fn parse_plain(bytes: &[u8], wire_len: usize) -> Option<Headers> {
    let at = bytes.first_chunk::<PLAIN_LEN>()?;
    let plain = be16(at[12], at[13]) == ETHER_TYPE_IPV4
        && at[14] == 0x45
        && be16(at[20], at[21]) & 0x3fff == 0
        && matches!(at[23], TCP | UDP);
    let total_len = usize::from(be16(at[16], at[17]));
    if !plain || total_len < PLAIN_LEN - ETHERNET_LEN || total_len > wire_len.max(bytes.len()) - ETHERNET_LEN {
        return None;
    }
    Some(Headers {
        family: Family::Ipv4,
        pcp: None,
        vlan_tags: 0,
        l3_offset: ETHERNET_LEN as u16,
        l3_len: total_len as u32,
        dscp: Dscp(at[15] >> 2),
        ecn: at[15] & 3,
        src: u128::from(u32::from_be_bytes([at[26], at[27], at[28], at[29]])),
        dst: u128::from(u32::from_be_bytes([at[30], at[31], at[32], at[33]])),
        protocol: at[23],
        l4_offset: Some((ETHERNET_LEN + IPV4_HEADER_LEN) as u16),
        ports: Some(Ports {
            src: be16(at[34], at[35]),
            dst: be16(at[36], at[37]),
        }),
        fragment: Fragment::Whole,
    })
}

/// [`parse`] without its short cut.
pub(crate) fn parse_any(bytes: &[u8], wire_len: usize) -> Parsed {
    let link = parse_link(bytes);
    let l3 = usize::from(link.l3_offset);
    let on_wire = wire_len.max(bytes.len()).saturating_sub(l3);
    let headers = match (link.ether_type, bytes.get(l3..)) {
        (Some(ETHER_TYPE_IPV4), Some(packet)) => parse_ipv4(packet, on_wire, &link),
        (Some(ETHER_TYPE_IPV6), Some(packet)) => parse_ipv6(packet, on_wire, &link),
        _ => None,
    };
    match headers {
        Some(headers) => Parsed::Ip(headers),
        None => Parsed::Other {
            l3_offset: link.l3_offset,
            pcp: link.pcp,
        },
    }
}

/// True when `ether_type` announces a VLAN tag: 802.1Q C-tag, 802.1ad S-tag, or the older 0x9100 of stacked tags.
#[inline]
pub(crate) const fn is_tag(ether_type: u16) -> bool {
    matches!(ether_type, 0x8100 | 0x88a8 | 0x9100)
}

/// Where the EtherType or first TPID of a packet lies.
pub(crate) const ETHER_TYPE_AT: usize = 12;

const ETHERNET_LEN: usize = 14;
const TAG_LEN: usize = 4;
const TAGS_MAX: u8 = 2;
const ETHER_TYPE_IPV4: u16 = 0x0800;
const ETHER_TYPE_IPV6: u16 = 0x86dd;

const IPV4_HEADER_LEN: usize = 20;
pub(crate) const IPV6_HEADER_LEN: usize = 40;

pub(crate) const TCP: u8 = 6;
pub(crate) const UDP: u8 = 17;

/// RFC 8200 section 4.1 knows six kinds of extension header, destination options twice; eight leaves room for one
/// more. Fewer would lose the ports of legal packets, many more would let one packet cost as much as a batch.
const EXTENSION_HEADERS_MAX: usize = 8;

/// The link layer of a packet.
struct Link {
    /// `None` when cut off.
    ether_type: Option<u16>,
    pcp: Option<Pcp>,
    vlan_tags: u8,
    /// Not beyond the end of the packet.
    l3_offset: u16,
}

/// An 802.3 length (below 0x0600) needs no branch of its own: it equals neither IP EtherType.
#[inline]
fn parse_link(bytes: &[u8]) -> Link {
    let mut offset = ETHERNET_LEN;
    let mut ether_type = read_u16(bytes, ETHER_TYPE_AT);
    let mut vlan_tags = 0;
    let mut pcp = None;
    while vlan_tags < TAGS_MAX && ether_type.is_some_and(is_tag) {
        // IEEE 802.1Q section 9.6: the tag control information is PCP (3 bits), DEI (1), VID (12).
        if vlan_tags == 0 {
            pcp = bytes.get(offset).map(|tci| Pcp(tci >> 5));
        }
        vlan_tags += 1;
        ether_type = read_u16(bytes, offset + 2);
        offset += TAG_LEN;
    }
    Link {
        ether_type,
        pcp,
        vlan_tags,
        l3_offset: offset.min(bytes.len()) as u16,
    }
}

/// `packet` begins with the IP header; `on_wire` bytes of it were on the wire.
#[inline]
fn parse_ipv4(packet: &[u8], on_wire: usize, link: &Link) -> Option<Headers> {
    let header = packet.first_chunk::<IPV4_HEADER_LEN>()?;
    // RFC 791 section 3.1: version 4; "the minimum value for a correct header is 5" for the IHL, in 32-bit words.
    let header_len = usize::from(header[0] & 0x0f) * 4;
    if header[0] >> 4 != 4 || header_len < IPV4_HEADER_LEN || header_len > packet.len() {
        return None;
    }
    let total_len = usize::from(be16(header[2], header[3]));
    if total_len < header_len || total_len > on_wire {
        return None;
    }
    let id = u32::from(be16(header[4], header[5]));
    // RFC 791 section 3.1: bit 0 reserved, 1 DF, 2 MF, then 13 bits of offset. RFC 6864 section 4: the
    // identification means something only in fragments.
    let flags = be16(header[6], header[7]);
    let fragment = match (flags & 0x1fff, flags & 0x2000) {
        (0, 0) => Fragment::Whole,
        (0, _) => Fragment::First { id },
        _ => Fragment::Later { id },
    };
    let transport = Transport {
        protocol: header[9],
        offset: if matches!(fragment, Fragment::Later { .. }) {
            None
        } else {
            Some(header_len)
        },
        fragment,
    };
    let src = u128::from(u32::from_be_bytes([header[12], header[13], header[14], header[15]]));
    let dst = u128::from(u32::from_be_bytes([header[16], header[17], header[18], header[19]]));
    Some(headers(
        packet,
        link,
        Family::Ipv4,
        total_len,
        header[1],
        (src, dst),
        transport,
    ))
}

/// As [`parse_ipv4`].
#[inline]
fn parse_ipv6(packet: &[u8], on_wire: usize, link: &Link) -> Option<Headers> {
    let (header, _) = packet.split_first_chunk::<IPV6_HEADER_LEN>()?;
    // RFC 8200 section 3: version, traffic class, flow label; the payload length includes extension headers.
    let total_len = IPV6_HEADER_LEN + usize::from(be16(header[4], header[5]));
    if header[0] >> 4 != 6 || total_len > on_wire {
        return None;
    }
    let traffic_class = header[0] << 4 | header[1] >> 4;
    let src = u128::from_be_bytes(*header[8..].first_chunk()?);
    let dst = u128::from_be_bytes(*header[24..].first_chunk()?);
    let transport = match header[6] {
        protocol @ (TCP | UDP) => Transport {
            protocol,
            offset: Some(IPV6_HEADER_LEN),
            fragment: Fragment::Whole,
        },
        first => walk_extensions(&packet[..total_len.min(packet.len())], first),
    };
    Some(headers(
        packet,
        link,
        Family::Ipv6,
        total_len,
        traffic_class,
        (src, dst),
        transport,
    ))
}

/// The common end of both families; `class` is the TOS byte or the traffic class.
#[inline]
fn headers(
    packet: &[u8],
    link: &Link,
    family: Family,
    total_len: usize,
    class: u8,
    (src, dst): (u128, u128),
    transport: Transport,
) -> Headers {
    let ports = match (transport.protocol, transport.offset) {
        // RFC 9293 section 3.1 and RFC 768: source port, then destination port, at the very front of both.
        (TCP | UDP, Some(offset)) if offset + 4 <= total_len => read_ports(packet, offset),
        _ => None,
    };
    Headers {
        family,
        pcp: link.pcp,
        vlan_tags: link.vlan_tags,
        l3_offset: link.l3_offset,
        l3_len: total_len as u32,
        dscp: Dscp(class >> 2),
        ecn: class & 3,
        src,
        dst,
        protocol: transport.protocol,
        l4_offset: transport.offset.map(|offset| link.l3_offset + offset as u16),
        ports,
        fragment: transport.fragment,
    }
}

/// Where the header chain of an IP packet leads.
#[derive(Clone, Copy)]
struct Transport {
    protocol: u8,
    /// From the beginning of the IP header; `None` as in [`Headers::l4_offset`].
    offset: Option<usize>,
    fragment: Fragment,
}

/// Follows the extension headers of the IPv6 packet `packet`, which ends with its payload or where the capture does.
/// `first` is the next-header field of the IPv6 header. Not inlined: most packets have none.
#[inline(never)]
fn walk_extensions(packet: &[u8], first: u8) -> Transport {
    let mut protocol = first;
    let mut offset = IPV6_HEADER_LEN;
    let mut fragment = None;
    let end = |protocol, offset, fragment: Option<Fragment>| Transport {
        protocol,
        offset,
        fragment: fragment.unwrap_or(Fragment::Whole),
    };
    for _ in 0..EXTENSION_HEADERS_MAX {
        // Every extension header is at least 8 bytes (RFC 8200 section 4), so one check covers the fields read here.
        let header = packet.get(offset..).and_then(|rest| rest.first_chunk::<8>());
        let (header, len) = match (protocol, header) {
            // Hop-by-hop options, routing, destination options (RFC 8200 sections 4.3, 4.4, 4.6), mobility (RFC 6275
            // section 6.1.1), HIP (RFC 7401 section 5.1) and shim6 (RFC 5533 section 5.1): length "in 8-octet
            // units, not including the first 8 octets".
            (0 | 43 | 60 | 135 | 139 | 140, Some(header)) => (header, (usize::from(header[1]) + 1) * 8),
            // Authentication header (RFC 4302 section 2.2): 32-bit words, minus 2.
            (51, Some(header)) => (header, (usize::from(header[1]) + 2) * 4),
            // Fragment header (RFC 8200 section 4.5): 8 bytes, no length field; a second one is not followed.
            (44, Some(header)) if fragment.is_none() => {
                let id = u32::from_be_bytes([header[4], header[5], header[6], header[7]]);
                let field = be16(header[2], header[3]);
                match (field >> 3, field & 1) {
                    // RFC 6946 section 4: processed "in isolation from any other packets/fragments".
                    (0, 0) => fragment = Some(Fragment::Whole),
                    (0, _) => fragment = Some(Fragment::First { id }),
                    // What follows is a piece from the middle; the next header is that of the first fragment's
                    // beginning (RFC 8200 section 4.5).
                    _ => return end(header[0], None, Some(Fragment::Later { id })),
                }
                (header, 8)
            }
            (0 | 43 | 44 | 51 | 60 | 135 | 139 | 140, _) => return end(protocol, None, fragment),
            // "No next header" (RFC 8200 section 4.7): bytes behind it "must be ignored".
            (59, _) => return end(protocol, None, fragment),
            // The transport, or ESP (50, RFC 4303), behind which all is encrypted.
            _ => return end(protocol, Some(offset), fragment),
        };
        if offset + len > packet.len() {
            // The header says it is longer than the packet: its next-header field is not to be trusted either.
            return end(protocol, None, fragment);
        }
        protocol = header[0];
        offset += len;
    }
    let followed = !matches!(protocol, 0 | 43 | 44 | 51 | 59 | 60 | 135 | 139 | 140);
    end(protocol, followed.then_some(offset), fragment)
}

#[inline]
fn read_ports(packet: &[u8], offset: usize) -> Option<Ports> {
    let field = packet.get(offset..)?.first_chunk::<4>()?;
    Some(Ports {
        src: be16(field[0], field[1]),
        dst: be16(field[2], field[3]),
    })
}

#[inline]
fn read_u16(bytes: &[u8], offset: usize) -> Option<u16> {
    let field = bytes.get(offset..)?.first_chunk::<2>()?;
    Some(u16::from_be_bytes(*field))
}

#[inline]
const fn be16(high: u8, low: u8) -> u16 {
    u16::from_be_bytes([high, low])
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Every value of every byte of a plain packet, every length of it, on the wire as long, shorter and longer.
    #[test]
    fn what_is_plain_is_parsed_as_anything_is() {
        let mut plain = [0; 60];
        plain[12..14].copy_from_slice(&[8, 0]);
        plain[14..20].copy_from_slice(&[0x45, 0xb8, 0, 46, 1, 2]);
        plain[23] = UDP;
        plain[26..38].copy_from_slice(&[10, 1, 2, 3, 192, 0, 2, 1, 0x12, 0x34, 0, 53]);
        let mut short_cuts = 0;
        let mut check = |bytes: &[u8], wire_len| {
            if let Some(headers) = parse_plain(bytes, wire_len) {
                assert_eq!(parse_any(bytes, wire_len), Parsed::Ip(headers), "{bytes:?}, {wire_len}");
                short_cuts += 1;
            }
        };
        for at in 0..plain.len() {
            for value in 0..=255 {
                let mut bytes = plain;
                bytes[at] = value;
                check(&bytes, bytes.len());
                check(&bytes, 1514);
            }
            for wire_len in [0, at, 60, 1514] {
                check(&plain[..at], wire_len);
            }
        }
        // All but those that change what makes it plain.
        assert!(short_cuts > 20_000, "{short_cuts}");
    }
}

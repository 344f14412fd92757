//! Internet checksums (RFC 1071): computing them, and finishing those a local sender left to its interface.
//!
//! A sender on this machine, behind a veth pair, hands over TCP and UDP packets whose checksum is only begun
//! (`CHECKSUM_PARTIAL` in the kernel's include/linux/skbuff.h): the field holds the folded sum of the pseudo-header, not
//! complemented, and the interface is meant to add the rest. AF_XDP shows the bytes as they lie, and what leaves through
//! another AF_XDP socket is not touched by the kernel again, so somebody has to finish them. [`find_partial`] tells such
//! packets, [`complete`] finishes them in software; which ports need this is the caller's knowledge.
//!
//! Not done: packets in fragments (the kernel finishes those before cutting), UDP whose length field differs from the
//! IP payload, and IPv6 packets with extension headers, see [`find_partial`].

use std::ops::Range;

use crate::packet::{Family, Fragment, Headers, IPV6_HEADER_LEN, TCP, UDP};

/// Where the checksum a sender only began has to be finished.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PartialChecksum {
    /// Where the TCP or UDP header begins, in bytes from the beginning of the packet.
    pub start: u16,
    /// Where in that header the checksum is: 16 in TCP (RFC 9293 section 3.1), 6 in UDP (RFC 768).
    pub offset: u16,
}

/// Tells whether the packet `bytes` with the headers `at` carries a checksum that was only begun: a whole TCP or UDP
/// packet, all of it in `bytes`, whose checksum field equals the sum of its pseudo-header.
///
/// One finished packet in 2^16 looks the same by chance. Finishing it "again" is harmless: [`complete`] starts from a
/// zero field, so it computes what an intact packet carries already. (One damaged on its way here would get a checksum
/// that hides the damage, which happens to one packet in 2^16 by the checksum's own weakness anyway.)
///
/// IPv6 packets with any extension header are never taken for partial. Behind a routing header the pseudo-header has
/// the final destination (RFC 8200 section 8.1), behind a home address option another source (RFC 6275 section
/// 6.3), so finishing by the addresses of the IPv6 header could break a good packet. Linux itself begins UDP
/// checksums only without extension headers; TCP with them, from a local sender, stays unfinished and is lost. The same
/// could be said of IPv4 source routes (RFC 791 section 3.1), but other options begin checksums legitimately and source
/// routes are refused nearly everywhere (RFC 7126 section 4.3), so IPv4 options are not looked into.
#[inline]
#[must_use]
pub fn find_partial(bytes: &[u8], at: &Headers) -> Option<PartialChecksum> {
    let partial = checksum_field(at)?;
    let segment = bytes.get(segment_range(at, partial)?)?;
    if at.protocol == UDP && usize::from(field(segment, UDP_LENGTH_OFFSET)?) != segment.len() {
        return None;
    }
    let begun = field(segment, partial.offset)?;
    let pseudo = fold(pseudo_header_sum(at.src, at.dst, at.protocol, segment.len()));
    (begun == pseudo).then_some(partial)
}

/// Writes the checksum of the packet `bytes` with the headers `at` into the field [`find_partial`] found. The old
/// content of the field does not matter. Nothing is written if the three do not belong together.
pub fn complete(bytes: &mut [u8], at: &Headers, partial: PartialChecksum) {
    if checksum_field(at) != Some(partial) {
        return;
    }
    let Some(segment) = segment_range(at, partial).and_then(|range| bytes.get_mut(range)) else {
        return;
    };
    set_field(segment, partial.offset, 0);
    let checksum = transport_checksum(at.src, at.dst, at.protocol, segment);
    set_field(segment, partial.offset, checksum);
}

/// The checksum of the IPv4 header `header`, from its version to the end of its options (RFC 791 section 3.1). The
/// checksum field (bytes 10 and 11) counts as zero whatever it holds.
#[must_use]
pub fn ipv4_header_checksum(header: &[u8]) -> u16 {
    let (before, rest) = header.split_at(header.len().min(10));
    let after = rest.get(2..).unwrap_or_default();
    !fold(sum(before) + sum(after))
}

/// The checksum of `bytes` (RFC 1071), for ICMP over IPv4 (RFC 792): 0 if they hold their own and it is right.
#[must_use]
pub fn internet_checksum(bytes: &[u8]) -> u16 {
    !fold(sum(bytes))
}

/// The checksum of `segment`, a TCP or UDP header with its payload (RFC 9293 section 3.1, RFC 768), or an ICMPv6
/// message (RFC 4443 section 2.3), between `src` and `dst`, which are IPv4 addresses in the low 32 bits or IPv6
/// addresses. The checksum field in `segment` counts as it stands: zero it first.
///
/// A UDP checksum that comes out as 0 is returned as 0xffff (RFC 768: "an all zero transmitted checksum value means
/// that the transmitter generated no checksum").
#[must_use]
pub fn transport_checksum(src: u128, dst: u128, protocol: u8, segment: &[u8]) -> u16 {
    let checksum = !fold(pseudo_header_sum(src, dst, protocol, segment.len()) + sum(segment));
    if checksum == 0 && protocol == UDP {
        0xffff
    } else {
        checksum
    }
}

const TCP_HEADER_LEN: usize = 20;
const UDP_HEADER_LEN: usize = 8;
const UDP_LENGTH_OFFSET: u16 = 4;

/// Where the checksum field of a packet is if it may be one a local sender began.
#[inline]
fn checksum_field(at: &Headers) -> Option<PartialChecksum> {
    let start = at.l4_offset?;
    let extended = at.family == Family::Ipv6 && usize::from(start) != usize::from(at.l3_offset) + IPV6_HEADER_LEN;
    if at.fragment != Fragment::Whole || extended {
        return None;
    }
    match at.protocol {
        TCP => Some(PartialChecksum { start, offset: 16 }),
        UDP => Some(PartialChecksum { start, offset: 6 }),
        _ => None,
    }
}

/// Where the TCP or UDP header and payload lie, unless they are shorter than that header. May end beyond the packet.
#[inline]
fn segment_range(at: &Headers, partial: PartialChecksum) -> Option<Range<usize>> {
    let header_len = if at.protocol == TCP {
        TCP_HEADER_LEN
    } else {
        UDP_HEADER_LEN
    };
    let start = usize::from(partial.start);
    let end = usize::from(at.l3_offset) + at.l3_len as usize;
    (start + header_len <= end).then_some(start..end)
}

#[inline]
fn field(segment: &[u8], offset: u16) -> Option<u16> {
    let field = segment.get(usize::from(offset)..)?.first_chunk::<2>()?;
    Some(u16::from_be_bytes(*field))
}

#[inline]
fn set_field(segment: &mut [u8], offset: u16, value: u16) {
    if let Some(field) = segment
        .get_mut(usize::from(offset)..)
        .and_then(|rest| rest.first_chunk_mut::<2>())
    {
        *field = value.to_be_bytes();
    }
}

/// The pseudo-header of either family (RFC 9293 section 3.1, RFC 8200 section 8.1) as a sum of 16-bit words. The upper
/// words of an IPv4 address here, and of the length in IPv4, are zero and add nothing, so one form does for both.
#[inline]
fn pseudo_header_sum(src: u128, dst: u128, protocol: u8, len: usize) -> u64 {
    let words = |address: u128| {
        let (high, low) = ((address >> 64) as u64, address as u64);
        (high >> 32) + (high & 0xffff_ffff) + (low >> 32) + (low & 0xffff_ffff)
    };
    words(src) + words(dst) + u64::from(protocol) + len as u64
}

/// A sum congruent to that of the big-endian 16-bit words of `bytes`, an odd last byte padded with zero. Folded,
/// so that sums can be added without a thought.
///
/// RFC 1071 section 2 (B): the sum is the same in either byte order but for a final swap; (C): wider words may be added
/// and folded afterwards. 32 bits at a time in 64-bit lanes leaves the carries room, and the compiler vectors it.
fn sum(bytes: &[u8]) -> u64 {
    let (chunks, rest) = bytes.as_chunks::<4>();
    let total: u64 = chunks.iter().map(|chunk| u64::from(u32::from_ne_bytes(*chunk))).sum();
    let mut last = [0; 4];
    last[..rest.len()].copy_from_slice(rest);
    u64::from(u16::from_be(fold(total + u64::from(u32::from_ne_bytes(last)))))
}

/// Adds the 16-bit words of `sum` with end-around carry. Zero only for zero.
#[inline]
fn fold(sum: u64) -> u16 {
    let sum = (sum & 0xffff_ffff) + (sum >> 32);
    let sum = (sum & 0xffff) + (sum >> 16 & 0xffff) + (sum >> 32);
    let sum = (sum & 0xffff) + (sum >> 16);
    ((sum & 0xffff) + (sum >> 16)) as u16
}

//! Writes a packet's marks in place: DSCP, the "congestion experienced" code point, and the priority of a VLAN tag.
//!
//! Each function changes the field it is named for, and the IPv4 header checksum that covers it, and nothing else. What
//! mark a packet gets is decided elsewhere. Runs on workers, at most once or twice per packet.
//!
//! The IPv4 checksum is updated and not computed anew (RFC 1624): a header that arrived damaged leaves damaged, by the
//! same amount, so that the receiver still drops it. TCP and UDP checksums do not cover these fields (RFC 9293 section
//! 3.1, RFC 8200 section 8.1: the pseudo-header holds addresses, length and protocol only).

use crate::packet::{self, Dscp, Family, Pcp};

/// Sets the DSCP of the packet `bytes` whose IP header begins at `l3_offset`, as [`packet::parse`] has found; ECN bits stay
/// as they are.
///
/// True when the value changed. False, and nothing written, when it was `dscp` already (or when `l3_offset` points beyond
/// these bytes).
#[inline]
pub fn set_dscp(bytes: &mut [u8], l3_offset: u16, family: Family, dscp: Dscp) -> bool {
    let Some(header) = ip_header(bytes, l3_offset) else {
        return false;
    };
    let old = class_byte(header, family);
    let new = dscp.get() << 2 | old & ECN_MASK;
    set_class_byte(header, family, old, new)
}

/// Sets "congestion experienced" on the packet `bytes` whose IP header begins at `l3_offset`, if it is ECN-capable.
///
/// True when the packet leaves with the mark: it was ECT(0) or ECT(1), or had the mark already. False, and nothing
/// written, for a not-ECT packet, which a queue has to drop instead. RFC 3168 section 5: "The CE codepoint '11' is set
/// by a router to indicate congestion to the end nodes"; a not-ECT packet must not be given it.
#[inline]
pub fn set_ce(bytes: &mut [u8], l3_offset: u16, family: Family) -> bool {
    let Some(header) = ip_header(bytes, l3_offset) else {
        return false;
    };
    let old = class_byte(header, family);
    if old & ECN_MASK == ECN_NOT_ECT {
        return false;
    }
    set_class_byte(header, family, old, old | ECN_CE);
    true
}

/// Sets the priority in the outer VLAN tag of the packet `bytes`; drop eligibility and VLAN stay as they are.
///
/// True when the value changed; false without a tag.
#[inline]
pub fn set_pcp(bytes: &mut [u8], pcp: Pcp) -> bool {
    let Some([high, low, tci, _]) = bytes
        .get_mut(packet::ETHER_TYPE_AT..)
        .and_then(|rest| rest.first_chunk_mut())
    else {
        return false;
    };
    if !packet::is_tag(u16::from_be_bytes([*high, *low])) {
        return false;
    }
    // IEEE 802.1Q section 9.6: the priority is the upper three bits of the tag control information.
    let new = pcp.get() << 5 | *tci & 0x1f;
    let changed = *tci != new;
    *tci = new;
    changed
}

/// RFC 3168 section 5, figure 1.
const ECN_MASK: u8 = 0b11;
const ECN_NOT_ECT: u8 = 0b00;
const ECN_CE: u8 = 0b11;

/// The part of an IP header marking needs, common to both families: up to the IPv4 checksum.
const HEADER_LEN: usize = 12;

#[inline]
fn ip_header(bytes: &mut [u8], l3_offset: u16) -> Option<&mut [u8; HEADER_LEN]> {
    bytes.get_mut(usize::from(l3_offset)..)?.first_chunk_mut()
}

/// The TOS byte (RFC 791 section 3.1) or the traffic class, which lies across two bytes (RFC 8200 section 3).
#[inline]
fn class_byte(header: &[u8; HEADER_LEN], family: Family) -> u8 {
    match family {
        Family::Ipv4 => header[1],
        Family::Ipv6 => header[0] << 4 | header[1] >> 4,
    }
}

/// True when `new` differs from `old`, the present value.
#[inline]
fn set_class_byte(header: &mut [u8; HEADER_LEN], family: Family, old: u8, new: u8) -> bool {
    if old == new {
        return false;
    }
    match family {
        Family::Ipv4 => {
            let before = u16::from_be_bytes([header[0], old]);
            let after = u16::from_be_bytes([header[0], new]);
            let checksum = u16::from_be_bytes([header[10], header[11]]);
            header[1] = new;
            [header[10], header[11]] = updated_checksum(checksum, before, after).to_be_bytes();
        }
        Family::Ipv6 => {
            header[0] = header[0] & 0xf0 | new >> 4;
            header[1] = header[1] & 0x0f | new << 4;
        }
    }
    true
}

/// RFC 1624 section 3, equation 3: HC' = ~(~HC + ~m + m'), in one's complement arithmetic.
///
/// Of the two zeros it gives the one a full computation gives: 0x0000. The sum could be zero (and so the checksum
/// 0xffff, where RFC 1141's form went wrong) only if ~HC, ~m and m' were all zero, and m begins with the IP version.
#[inline]
fn updated_checksum(checksum: u16, before: u16, after: u16) -> u16 {
    let sum = u32::from(!checksum) + u32::from(!before) + u32::from(after);
    let folded = (sum & 0xffff) + (sum >> 16);
    !((folded & 0xffff) + (folded >> 16)) as u16
}

//! Why the parser takes a packet for something else than IP, and at which byte.
//!
//! `dataplane::packet::parse` decides and gives no reasons, because no worker needs one. Here its rules are gone through once
//! more, for the words; a test holds both against each other.

use std::fmt;

use serde::{Deserialize, Serialize};

/// What is not as IP has it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Malformed {
    /// In words.
    pub what: String,
    /// The byte of the frame, from 0.
    pub offset: usize,
    /// Whether it is broken, rather than another protocol.
    pub broken: bool,
}

impl fmt::Display for Malformed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} (byte {} of the frame)", self.what, self.offset)
    }
}

/// The reason why `bytes`, of a frame of `wire_len` bytes, is not IP to weir; `None`: it is.
#[must_use]
pub fn why_not_ip(bytes: &[u8], wire_len: usize) -> Option<Malformed> {
    let mut at = 12;
    let mut tags = 0;
    let ether_type = loop {
        let Some(ether_type) = u16_at(bytes, at) else {
            let what = format!("the frame ends after {} bytes, within its Ethernet header", bytes.len());
            return broken(what, bytes.len());
        };
        if !matches!(ether_type, 0x8100 | 0x88a8 | 0x9100) || tags == 2 {
            break ether_type;
        }
        tags += 1;
        at += 4;
    };
    let l3 = at + 2;
    let on_wire = wire_len.max(bytes.len()).saturating_sub(l3);
    let packet = bytes.get(l3..).unwrap_or_default();
    match ether_type {
        0x0800 => why_not_ipv4(packet, on_wire, l3),
        0x86dd => why_not_ipv6(packet, on_wire, l3),
        _ => Some(Malformed {
            what: other_protocol(ether_type),
            offset: at,
            broken: false,
        }),
    }
}

fn why_not_ipv4(packet: &[u8], on_wire: usize, l3: usize) -> Option<Malformed> {
    if packet.len() < 20 {
        return broken(
            format!("an IPv4 header has 20 bytes, here are {}", packet.len()),
            l3 + packet.len(),
        );
    }
    let version = packet[0] >> 4;
    if version != 4 {
        return broken(
            format!("EtherType 0x0800 says IPv4, the header says version {version}"),
            l3,
        );
    }
    let header_len = usize::from(packet[0] & 15) * 4;
    if header_len < 20 {
        return broken(format!("the header length is {header_len} bytes, 20 is the least"), l3);
    }
    if header_len > packet.len() {
        let what = format!(
            "the header length is {header_len} bytes, of which {} are there",
            packet.len()
        );
        return broken(what, l3);
    }
    let total_len = usize::from(u16::from_be_bytes([packet[2], packet[3]]));
    if total_len < header_len {
        let what = format!("the total length is {total_len} bytes, less than the header's {header_len}");
        return broken(what, l3 + 2);
    }
    if total_len > on_wire {
        let what = format!("the total length is {total_len} bytes, but only {on_wire} came");
        return broken(what, l3 + 2);
    }
    None
}

fn why_not_ipv6(packet: &[u8], on_wire: usize, l3: usize) -> Option<Malformed> {
    if packet.len() < 40 {
        return broken(
            format!("an IPv6 header has 40 bytes, here are {}", packet.len()),
            l3 + packet.len(),
        );
    }
    let version = packet[0] >> 4;
    if version != 6 {
        return broken(
            format!("EtherType 0x86dd says IPv6, the header says version {version}"),
            l3,
        );
    }
    let total_len = 40 + usize::from(u16::from_be_bytes([packet[4], packet[5]]));
    if total_len > on_wire {
        let what = format!("header and payload are {total_len} bytes, but only {on_wire} came");
        return broken(what, l3 + 4);
    }
    None
}

fn other_protocol(ether_type: u16) -> String {
    let name = match ether_type {
        0x0806 => "ARP",
        0x8100 | 0x88a8 | 0x9100 => return format!("a third VLAN tag (0x{ether_type:04x}): weir looks behind two"),
        0x8847 | 0x8848 => "MPLS",
        0x8863 | 0x8864 => "PPPoE",
        0x88cc => "LLDP",
        0x8809 => "slow protocols (LACP)",
        0x88e5 => "MACsec",
        0..0x0600 => return format!("an 802.3 length of {ether_type} in place of an EtherType"),
        _ => "not IPv4 or IPv6",
    };
    format!("EtherType 0x{ether_type:04x}: {name}")
}

#[allow(clippy::unnecessary_wraps)]
fn broken(what: String, offset: usize) -> Option<Malformed> {
    Some(Malformed {
        what,
        offset,
        broken: true,
    })
}

fn u16_at(bytes: &[u8], at: usize) -> Option<u16> {
    let pair = bytes.get(at..at + 2)?;
    Some(u16::from_be_bytes([pair[0], pair[1]]))
}

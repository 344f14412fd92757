//! Changing addresses, ports and VLAN tags of captured packets, with their checksums.
//!
//! Checksums are updated and not computed anew (RFC 1624): a packet that was damaged when it was captured leaves damaged,
//! by the same amount. One that its sender had only begun, because the interface was to finish it, is finished first.
//!
//! Not changed: addresses inside of ICMP errors, of neighbour discovery, of tunnels and of payloads. Behind an IPv6 routing
//! header the transport checksum is updated as if the destination of the IPv6 header were the final one.

use std::net::IpAddr;
use std::str::FromStr;

use dataplane::checksum;
use dataplane::packet::{self, Family, Fragment, Headers, Parsed};
use ipnet::IpNet;

use crate::stream::Vlan;

/// What is changed in every packet.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Rewrite {
    /// The Ethernet source address, also in ARP.
    pub source_mac: Option<[u8; 6]>,
    /// The Ethernet destination address, of broadcasts too.
    pub destination_mac: Option<[u8; 6]>,
    /// The VLAN tags.
    pub vlan: VlanChange,
    /// IP addresses, also in ARP; the first rule that fits an address is taken.
    pub addresses: Vec<AddressRule>,
    /// TCP and UDP ports; the first rule that fits a port is taken.
    pub ports: Vec<PortRule>,
}

/// What happens to VLAN tags (802.1Q, 802.1ad, 0x9100).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum VlanChange {
    /// They stay.
    #[default]
    Keep,
    /// All go, two at most.
    Strip,
    /// The outer tag gets this VLAN and priority; a packet without one gets a tag (0x8100).
    Set(Vlan),
}

/// Which of the two addresses or ports a rule is for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Side {
    /// Both.
    #[default]
    Both,
    /// The source only.
    Source,
    /// The destination only.
    Destination,
}

impl Side {
    fn includes(self, side: Side) -> bool {
        self == Self::Both || self == side
    }
}

/// Addresses of one prefix become those of another; the bits behind the prefix stay.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AddressRule {
    side: Side,
    from: IpNet,
    to: IpNet,
}

/// One port becomes another.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PortRule {
    /// Which ports.
    pub side: Side,
    /// The captured port.
    pub from: u16,
    /// The port sent.
    pub to: u16,
}

impl AddressRule {
    /// From prefix to prefix. Of two lengths the missing bits are those of `to`.
    ///
    /// # Errors
    /// Two families, or a `to` that is longer than `from`: several addresses would become one.
    pub fn new(side: Side, from: IpNet, to: IpNet) -> Result<Self, String> {
        if from.addr().is_ipv4() != to.addr().is_ipv4() {
            return Err(format!(
                "{from} and {to} are of different families: map IPv4 to IPv4 and IPv6 to IPv6"
            ));
        }
        if to.prefix_len() > from.prefix_len() {
            return Err(format!(
                "{to} has less room than {from}, so that several addresses would become one: give a prefix of /{} or shorter",
                from.prefix_len()
            ));
        }
        let (from, to) = (from.trunc(), to.trunc());
        Ok(Self { side, from, to })
    }

    fn apply(&self, side: Side, address: IpAddr) -> Option<IpAddr> {
        if !self.side.includes(side) || !self.from.contains(&address) {
            return None;
        }
        match (address, self.from.hostmask(), self.to.network()) {
            (IpAddr::V4(address), IpAddr::V4(host), IpAddr::V4(network)) => Some(IpAddr::V4(
                (network.to_bits() | address.to_bits() & host.to_bits()).into(),
            )),
            (IpAddr::V6(address), IpAddr::V6(host), IpAddr::V6(network)) => Some(IpAddr::V6(
                (network.to_bits() | address.to_bits() & host.to_bits()).into(),
            )),
            _ => None,
        }
    }
}

/// `FROM=TO`, for both sides.
impl FromStr for AddressRule {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let prefix = |part: &str| {
            let address = || part.parse::<IpAddr>().map(IpNet::from);
            part.parse::<IpNet>()
                .or_else(|_| address())
                .map_err(|_| format!("`{part}` is not a prefix such as 10.0.0.0/8 or 2001:db8::/32"))
        };
        let (from, to) = text
            .split_once('=')
            .ok_or_else(|| format!("`{text}` is not FROM=TO, such as 10.0.0.0/8=172.16.0.0/8"))?;
        Self::new(Side::Both, prefix(from)?, prefix(to)?)
    }
}

impl AddressRule {
    /// The same rule for one side.
    #[must_use]
    pub fn only(self, side: Side) -> Self {
        Self { side, ..self }
    }
}

/// `FROM=TO`, for both sides.
impl FromStr for PortRule {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let ports = text.split_once('=');
        let ports = ports.and_then(|(from, to)| Some((from.parse().ok()?, to.parse().ok()?)));
        let (from, to) = ports.ok_or_else(|| format!("`{text}` is not FROM=TO of ports, such as 80=8080"))?;
        let side = Side::Both;
        Ok(Self { side, from, to })
    }
}

impl Rewrite {
    /// True when no packet is changed.
    #[must_use]
    pub fn is_nothing(&self) -> bool {
        *self == Self::default()
    }

    /// Changes `packet`, all of one Ethernet frame without FCS. Returns whether a checksum was finished on the way.
    pub fn apply(&self, packet: &mut Vec<u8>) -> bool {
        if packet.len() < ETHERNET || self.is_nothing() {
            return false;
        }
        if let Some(mac) = self.destination_mac {
            packet[0..6].copy_from_slice(&mac);
        }
        if let Some(mac) = self.source_mac {
            packet[6..12].copy_from_slice(&mac);
        }
        self.change_vlan(packet);
        match packet::parse(packet, packet.len()) {
            Parsed::Ip(at) if !self.addresses.is_empty() || !self.ports.is_empty() => {
                let finished = finish(packet, &at);
                self.change_ip(packet, &at);
                finished
            }
            Parsed::Ip(_) => false,
            Parsed::Other { l3_offset, .. } => {
                self.change_arp(packet, usize::from(l3_offset));
                false
            }
        }
    }

    fn change_vlan(&self, packet: &mut Vec<u8>) {
        let tags = vlan_tags(packet);
        match self.vlan {
            VlanChange::Keep => {}
            VlanChange::Strip => {
                packet.drain(TYPE_AT..TYPE_AT + 4 * tags);
            }
            VlanChange::Set(vlan) => {
                let tci = (u16::from(vlan.pcp & 7) << 13 | vlan.id & 0xfff).to_be_bytes();
                if tags > 0 {
                    packet[TYPE_AT + 2..TYPE_AT + 4].copy_from_slice(&tci);
                } else {
                    packet.splice(TYPE_AT..TYPE_AT, [0x81, 0x00, tci[0], tci[1]]);
                }
            }
        }
    }

    fn change_ip(&self, packet: &mut [u8], at: &Headers) {
        let l3 = usize::from(at.l3_offset);
        let (length, source_at) = match at.family {
            Family::Ipv4 => (4, l3 + 12),
            Family::Ipv6 => (16, l3 + 8),
        };
        let mut addresses = Change::default();
        for (side, offset) in [(Side::Source, source_at), (Side::Destination, source_at + length)] {
            self.change_address(packet, side, offset, length, &mut addresses);
        }
        let mut transport = addresses;
        if let (Some(ports), Some(l4)) = (at.ports, at.l4_offset) {
            let l4 = usize::from(l4);
            for (side, port, offset) in [(Side::Source, ports.src, l4), (Side::Destination, ports.dst, l4 + 2)] {
                let rule = self
                    .ports
                    .iter()
                    .find(|rule| rule.side.includes(side) && rule.from == port);
                if let Some(rule) = rule {
                    transport.write(packet, offset, &rule.to.to_be_bytes());
                }
            }
        }
        if at.family == Family::Ipv4 {
            addresses.update(packet, l3 + 10, false);
        }
        if let Some(field) = transport_checksum_at(at) {
            let is_udp = matches!(at.protocol, UDP | UDP_LITE);
            // RFC 768: zero "means that the transmitter generated no checksum".
            let none = at.protocol == UDP && packet.get(field..field + 2) == Some(&[0, 0]);
            if !none {
                transport.update(packet, field, is_udp);
            }
        }
    }

    fn change_address(&self, packet: &mut [u8], side: Side, offset: usize, length: usize, change: &mut Change) {
        let old = packet.get(offset..offset + length).and_then(address);
        let new = old.and_then(|old| self.addresses.iter().find_map(|rule| rule.apply(side, old)));
        match new {
            Some(IpAddr::V4(new)) => change.write(packet, offset, &new.octets()),
            Some(IpAddr::V6(new)) => change.write(packet, offset, &new.octets()),
            None => {}
        }
    }

    /// Sender and target of an ARP packet for IPv4 over Ethernet (RFC 826), which carries no checksum.
    fn change_arp(&self, packet: &mut [u8], l3: usize) {
        let is_arp = packet.get(l3.saturating_sub(2)..l3) == Some(&[0x08, 0x06])
            && packet.get(l3..l3 + 6) == Some(&[0, 1, 8, 0, 6, 4])
            && packet.len() >= l3 + 28;
        if !is_arp {
            return;
        }
        if let Some(mac) = self.source_mac {
            packet[l3 + 8..l3 + 14].copy_from_slice(&mac);
        }
        let mut unchecked = Change::default();
        self.change_address(packet, Side::Source, l3 + 14, 4, &mut unchecked);
        self.change_address(packet, Side::Destination, l3 + 24, 4, &mut unchecked);
    }
}

/// VLAN tags of a packet that are all there, 0 to 2.
pub(super) fn vlan_tags(packet: &[u8]) -> usize {
    let is_tag = |at: usize| {
        let tag = packet.get(at..at + 6);
        tag.is_some_and(|tag| matches!([tag[0], tag[1]], [0x81, 0x00] | [0x88, 0xa8] | [0x91, 0x00]))
    };
    match (is_tag(TYPE_AT), is_tag(TYPE_AT + 4)) {
        (true, true) => 2,
        (true, false) => 1,
        _ => 0,
    }
}

/// Finishes a checksum that the packet's sender only began; says whether it did.
pub(super) fn finish(packet: &mut [u8], at: &Headers) -> bool {
    let begun = checksum::find_partial(packet, at);
    if let Some(partial) = begun {
        checksum::complete(packet, at, partial);
    }
    begun.is_some()
}

/// Computes the TCP or UDP checksum of a packet whose end was made up. Fragments, and UDP without a checksum, stay.
pub(super) fn recompute(packet: &mut [u8]) {
    let Parsed::Ip(at) = packet::parse(packet, packet.len()) else {
        return;
    };
    let (Some(start), Fragment::Whole) = (at.l4_offset, at.fragment) else {
        return;
    };
    let offset = match at.protocol {
        TCP => 16,
        UDP => 6,
        _ => return,
    };
    let field = usize::from(start) + usize::from(offset);
    let none = at.protocol == UDP && at.family == Family::Ipv4 && packet.get(field..field + 2) == Some(&[0, 0]);
    if !none {
        checksum::complete(packet, &at, checksum::PartialChecksum { start, offset });
    }
}

/// Where the checksum over the pseudo-header is, if the packet has one.
fn transport_checksum_at(at: &Headers) -> Option<usize> {
    let offset = match (at.protocol, at.family) {
        (TCP, _) => 16,
        (UDP | UDP_LITE | DCCP, _) => 6,
        (ICMPV6, Family::Ipv6) => 2,
        _ => return None,
    };
    let field = usize::from(at.l4_offset?) + offset;
    let end = usize::from(at.l3_offset) + at.l3_len as usize;
    (field + 2 <= end).then_some(field)
}

fn address(bytes: &[u8]) -> Option<IpAddr> {
    let v4 = <[u8; 4]>::try_from(bytes).map(IpAddr::from);
    v4.or_else(|_| <[u8; 16]>::try_from(bytes).map(IpAddr::from)).ok()
}

/// What was changed, as checksums see it: the sum of ~m + m' over all 16-bit words.
#[derive(Clone, Copy, Debug, Default)]
struct Change(u64);

impl Change {
    /// Writes `new`, of an even length, at an even distance from where the checksum begins to count.
    fn write(&mut self, packet: &mut [u8], at: usize, new: &[u8]) {
        let Some(old) = packet.get_mut(at..at + new.len()) else {
            return;
        };
        let word = |pair: &[u8; 2]| u16::from_be_bytes(*pair);
        let (old_words, new_words) = (old.as_chunks::<2>().0, new.as_chunks::<2>().0);
        for (old, new) in old_words.iter().zip(new_words) {
            self.0 += u64::from(!word(old)) + u64::from(word(new));
        }
        old.copy_from_slice(new);
    }

    /// RFC 1624 section 3, equation 3: HC' = ~(~HC + ~m + m').
    fn update(self, packet: &mut [u8], at: usize, zero_is_none: bool) {
        let Some(field) = packet.get_mut(at..at + 2) else {
            return;
        };
        if self.0 == 0 {
            return;
        }
        let mut sum = self.0 + u64::from(!u16::from_be_bytes([field[0], field[1]]));
        while sum > 0xffff {
            sum = (sum & 0xffff) + (sum >> 16);
        }
        let checksum = match !(sum as u16) {
            0 if zero_is_none => 0xffff,
            checksum => checksum,
        };
        field.copy_from_slice(&checksum.to_be_bytes());
    }
}

const ETHERNET: usize = 14;
const TYPE_AT: usize = 12;
const TCP: u8 = 6;
const UDP: u8 = 17;
const DCCP: u8 = 33;
const ICMPV6: u8 = 58;
const UDP_LITE: u8 = 136;

//! Frames from fields: what the builders take is written as it is, whether or not it makes sense together.

use std::net::IpAddr;

/// The IP packet to build.
#[derive(Clone, Debug)]
pub(super) struct Ip {
    pub(super) source: IpAddr,
    pub(super) destination: IpAddr,
    /// DSCP and ECN.
    pub(super) traffic_class: u8,
    pub(super) protocol: u8,
    /// IPv4 options, a multiple of four bytes up to 40; ignored for IPv6.
    pub(super) options: Vec<u8>,
    /// IPv6 extension headers before the fragment header, as kind and bytes whose first is overwritten by the next kind.
    pub(super) extensions: Vec<(u8, Vec<u8>)>,
    /// Identification, offset in 8-byte units, more to come.
    pub(super) fragment: Option<(u32, u16, bool)>,
    pub(super) payload: Vec<u8>,
}

/// Ethernet addresses, `tags` as (ethertype, control information), the packet, and padding to 60 bytes if asked for.
pub(super) fn ethernet(tags: &[(u16, u16)], ethertype: u16, packet: &[u8], pad: bool) -> Vec<u8> {
    let mut frame = vec![0x02, 0, 0, 0, 0, 0x01, 0x02, 0, 0, 0, 0, 0x02];
    for &(kind, control) in tags {
        frame.extend(kind.to_be_bytes());
        frame.extend(control.to_be_bytes());
    }
    frame.extend(ethertype.to_be_bytes());
    frame.extend(packet);
    if pad && frame.len() < 60 {
        frame.resize(60, 0);
    }
    frame
}

/// Ethertype and bytes of the packet.
pub(super) fn ip(ip: &Ip) -> (u16, Vec<u8>) {
    match (ip.source, ip.destination) {
        (IpAddr::V4(source), IpAddr::V4(destination)) => (0x0800, ipv4(ip, source.octets(), destination.octets())),
        (IpAddr::V6(source), IpAddr::V6(destination)) => (0x86dd, ipv6(ip, source.octets(), destination.octets())),
        _ => unreachable!("flows keep to one family"),
    }
}

fn ipv4(ip: &Ip, source: [u8; 4], destination: [u8; 4]) -> Vec<u8> {
    let header_bytes = 20 + ip.options.len();
    let total = u16::try_from(header_bytes + ip.payload.len()).expect("short packets only");
    let (id, offset, more) = ip.fragment.unwrap_or((0x1234, 0, false));
    let mut packet = vec![0x40 | (header_bytes / 4) as u8, ip.traffic_class];
    packet.extend(total.to_be_bytes());
    packet.extend((id as u16).to_be_bytes());
    packet.extend((offset | if more { 0x2000 } else { 0 }).to_be_bytes());
    packet.extend([64, ip.protocol, 0, 0]);
    packet.extend(source);
    packet.extend(destination);
    packet.extend(&ip.options);
    let mut sum: u32 = packet
        .chunks(2)
        .map(|word| u32::from(word[0]) << 8 | u32::from(word[1]))
        .sum();
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    packet[10..12].copy_from_slice(&(!(sum as u16)).to_be_bytes());
    packet.extend(&ip.payload);
    packet
}

fn ipv6(ip: &Ip, source: [u8; 16], destination: [u8; 16]) -> Vec<u8> {
    let mut extensions = ip.extensions.clone();
    if let Some((id, offset, more)) = ip.fragment {
        let mut header = vec![0, 0];
        header.extend((offset << 3 | u16::from(more)).to_be_bytes());
        header.extend(id.to_be_bytes());
        extensions.push((44, header));
    }
    let length = extensions.iter().map(|(_, header)| header.len()).sum::<usize>() + ip.payload.len();
    let mut packet = vec![0x60 | ip.traffic_class >> 4, ip.traffic_class << 4, 0, 0];
    packet.extend(u16::try_from(length).expect("short packets only").to_be_bytes());
    packet.extend([extensions.first().map_or(ip.protocol, |&(kind, _)| kind), 64]);
    packet.extend(source);
    packet.extend(destination);
    for index in 0..extensions.len() {
        let next = extensions.get(index + 1).map_or(ip.protocol, |&(kind, _)| kind);
        let header = &extensions[index].1;
        packet.push(next);
        packet.extend(&header[1..]);
    }
    packet.extend(&ip.payload);
    packet
}

//! One function per header. What is given is written as it is, so lengths are right unless a kind lies about them later.

use dataplane::checksum::ipv4_header_checksum;

pub(super) const IPV4: u16 = 0x0800;
pub(super) const IPV6: u16 = 0x86dd;
pub(super) const MPLS: u16 = 0x8847;
pub(super) const TCP: u8 = 6;
pub(super) const UDP: u8 = 17;

/// From 02::2 to 02::1.
pub(super) fn ethernet(ether_type: u16, payload: &[u8]) -> Vec<u8> {
    tagged(&[], ether_type, payload)
}

/// The same with tags of (TPID, tag control information).
pub(super) fn tagged(tags: &[(u16, u16)], ether_type: u16, payload: &[u8]) -> Vec<u8> {
    let mut bytes = vec![2, 0, 0, 0, 0, 1, 2, 0, 0, 0, 0, 2];
    for (tpid, control) in tags {
        bytes.extend(tpid.to_be_bytes());
        bytes.extend(control.to_be_bytes());
    }
    bytes.extend(ether_type.to_be_bytes());
    bytes.extend(payload);
    bytes
}

/// An IPv4 header to be filled in, from 10.1.2.3 to 198.51.100.7.
pub(super) struct V4<'a> {
    pub(super) tos: u8,
    pub(super) id: u16,
    /// Flags and offset.
    pub(super) flags: u16,
    pub(super) options: &'a [u8],
}

pub(super) const V4_PLAIN: V4<'_> = V4 {
    tos: 0xb8,
    id: 0x1234,
    flags: 0,
    options: &[],
};

impl V4<'_> {
    pub(super) fn packet(&self, protocol: u8, payload: &[u8]) -> Vec<u8> {
        let total_len = (20 + self.options.len() + payload.len()) as u16;
        let mut bytes = vec![0x40 | (5 + self.options.len() / 4) as u8 & 0x0f, self.tos];
        bytes.extend(total_len.to_be_bytes());
        bytes.extend(self.id.to_be_bytes());
        bytes.extend(self.flags.to_be_bytes());
        bytes.extend([64, protocol, 0, 0, 10, 1, 2, 3, 198, 51, 100, 7]);
        bytes.extend(self.options);
        let checksum = ipv4_header_checksum(&bytes);
        bytes[10..12].copy_from_slice(&checksum.to_be_bytes());
        bytes.extend(payload);
        bytes
    }
}

pub(super) fn ipv4(protocol: u8, payload: &[u8]) -> Vec<u8> {
    V4_PLAIN.packet(protocol, payload)
}

/// From 2001:db8:1::5 to 2001:db8:2::6.
pub(super) fn ipv6(next_header: u8, payload: &[u8]) -> Vec<u8> {
    let mut bytes = vec![0x6b, 0x8a, 0xbc, 0xde];
    bytes.extend((payload.len() as u16).to_be_bytes());
    bytes.extend([next_header, 64]);
    bytes.extend(0x2001_0db8_0001_0000_0000_0000_0000_0005_u128.to_be_bytes());
    bytes.extend(0x2001_0db8_0002_0000_0000_0000_0000_0006_u128.to_be_bytes());
    bytes.extend(payload);
    bytes
}

pub(super) fn udp(src: u16, dst: u16, payload: &[u8]) -> Vec<u8> {
    let mut bytes = [src.to_be_bytes(), dst.to_be_bytes()].concat();
    bytes.extend((8 + payload.len() as u16).to_be_bytes());
    bytes.extend([0, 0]);
    bytes.extend(payload);
    bytes
}

pub(super) fn tcp(src: u16, dst: u16, payload: &[u8]) -> Vec<u8> {
    let mut bytes = [src.to_be_bytes(), dst.to_be_bytes()].concat();
    bytes.extend([0, 0, 0, 1, 0, 0, 0, 2, 0x50, 0x18, 0x10, 0, 0, 0, 0, 0]);
    bytes.extend(payload);
    bytes
}

/// An extension header of `8 * (units + 1)` bytes that says so.
pub(super) fn extension(next_header: u8, units: u8, rest: &[u8]) -> Vec<u8> {
    let mut bytes = vec![next_header, units];
    bytes.resize(8 * (usize::from(units) + 1), 0);
    bytes.extend(rest);
    bytes
}

pub(super) fn fragment(next_header: u8, offset: u16, more: bool, rest: &[u8]) -> Vec<u8> {
    let mut bytes = vec![next_header, 0];
    bytes.extend((offset << 3 | u16::from(more)).to_be_bytes());
    bytes.extend([0xde, 0xad, 0xbe, 0xef]);
    bytes.extend(rest);
    bytes
}

/// RFC 4302 with a check value of 12 bytes.
pub(super) fn authentication(next_header: u8, rest: &[u8]) -> Vec<u8> {
    let mut bytes = vec![next_header, 4];
    bytes.resize(24, 0);
    bytes.extend(rest);
    bytes
}

/// RFC 2784 and 2890: a field of four bytes for each of checksum, key and sequence number that `flags` (0x8000, 0x2000, 0x1000)
/// announces.
pub(super) fn gre(flags: u16, protocol: u16, payload: &[u8]) -> Vec<u8> {
    let mut bytes = flags.to_be_bytes().to_vec();
    bytes.extend(protocol.to_be_bytes());
    let fields = [0x8000, 0x2000, 0x1000].iter().filter(|&&bit| flags & bit != 0).count();
    bytes.resize(bytes.len() + 4 * fields, 0);
    bytes.extend(payload);
    bytes
}

/// RFC 7348: UDP to port 4789, and a frame inside.
pub(super) fn vxlan(frame: &[u8]) -> Vec<u8> {
    udp(50_000, 4_789, &[&[0x08, 0, 0, 0, 0, 0, 42, 0], frame].concat())
}

/// RFC 3032: `labels` entries, the last of them the bottom if `has_bottom`.
pub(super) fn mpls(labels: usize, has_bottom: bool, payload: &[u8]) -> Vec<u8> {
    let entry = |index: usize| {
        let bottom = u32::from(has_bottom && index + 1 == labels);
        ((16 + index as u32) << 12 | bottom << 8 | 64).to_be_bytes()
    };
    let mut bytes: Vec<u8> = (0..labels).flat_map(entry).collect();
    bytes.extend(payload);
    bytes
}

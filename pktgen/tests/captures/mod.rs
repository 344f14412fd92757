//! Captures and packets built by hand, for the tests of replaying.

/// Words of a file in its own byte order.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Order {
    Little,
    Big,
}

impl Order {
    pub(crate) fn u16(self, value: u16) -> [u8; 2] {
        match self {
            Self::Little => value.to_le_bytes(),
            Self::Big => value.to_be_bytes(),
        }
    }

    pub(crate) fn u32(self, value: u32) -> [u8; 4] {
        match self {
            Self::Little => value.to_le_bytes(),
            Self::Big => value.to_be_bytes(),
        }
    }
}

/// A packet of a capture.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Record {
    /// Nanoseconds since 1970.
    pub(crate) at: u64,
    pub(crate) wire_len: u32,
    pub(crate) data: Vec<u8>,
}

impl Record {
    pub(crate) fn whole(at: u64, data: &[u8]) -> Self {
        Self {
            at,
            wire_len: data.len() as u32,
            data: data.to_vec(),
        }
    }
}

pub(crate) const MICROS: u32 = 0xa1b2_c3d4;
pub(crate) const NANOS: u32 = 0xa1b2_3c4d;

/// A classic pcap; `magic` says the unit.
pub(crate) fn pcap(order: Order, magic: u32, linktype: u32, records: &[Record]) -> Vec<u8> {
    let unit = if magic == NANOS { 1 } else { 1000 };
    let mut file = order.u32(magic).to_vec();
    file.extend(order.u16(2));
    file.extend(order.u16(4));
    file.extend([0; 8]);
    file.extend(order.u32(262_144));
    file.extend(order.u32(linktype));
    for record in records {
        let (seconds, rest) = (record.at / 1_000_000_000, record.at % 1_000_000_000 / unit);
        for word in [seconds as u32, rest as u32, record.data.len() as u32, record.wire_len] {
            file.extend(order.u32(word));
        }
        file.extend(&record.data);
    }
    file
}

fn block(order: Order, kind: u32, body: &[u8]) -> Vec<u8> {
    let mut body = body.to_vec();
    body.resize(body.len().next_multiple_of(4), 0);
    let len = order.u32(12 + body.len() as u32);
    [&order.u32(kind)[..], &len, &body, &len].concat()
}

/// One section with as many interfaces as `units` has: seconds in powers of ten (`if_tsresol`). The packets come from
/// them in turn.
pub(crate) fn pcapng(order: Order, linktype: u16, units: &[u8], records: &[Record]) -> Vec<u8> {
    let section = [&order.u32(0x1a2b_3c4d)[..], &order.u16(1), &order.u16(0), &[0xff; 8]].concat();
    let mut file = block(order, 0x0a0d_0d0a, &section);
    for &unit in units {
        let options = [&order.u16(9)[..], &order.u16(1), &[unit, 0, 0, 0], &[0; 4]].concat();
        let interface = [&order.u16(linktype)[..], &[0; 2], &order.u32(0), &options].concat();
        file.extend(block(order, 1, &interface));
    }
    for (number, record) in records.iter().enumerate() {
        let interface = number % units.len();
        let at = record.at / 10_u64.pow(9 - u32::from(units[interface]));
        let words = [
            interface as u32,
            (at >> 32) as u32,
            at as u32,
            record.data.len() as u32,
            record.wire_len,
        ];
        let mut body: Vec<u8> = words.iter().flat_map(|&word| order.u32(word)).collect();
        body.extend(&record.data);
        file.extend(block(order, 6, &body));
    }
    file
}

/// A frame of 802.3 experimental type, numbered, so that no two are the same.
pub(crate) fn frame(number: u32, len: usize) -> Vec<u8> {
    let mut bytes = vec![2; 12];
    bytes.extend([0x88, 0xb5]);
    bytes.extend(number.to_be_bytes());
    bytes.resize(len.max(18), number as u8);
    bytes
}

/// Protocols of [`packet`].
pub(crate) const ICMP: u8 = 1;
pub(crate) const TCP: u8 = 6;
pub(crate) const UDP: u8 = 17;
pub(crate) const ICMPV6: u8 = 58;

/// A packet with right checksums, between 10.1.2.3 and 198.51.100.7 or 2001:db8:1::3 and 2001:db8:2::7, ports 1234 and 80.
pub(crate) fn packet(ipv4: bool, protocol: u8, vlan: Option<u16>, payload: usize) -> Vec<u8> {
    let mut segment = match protocol {
        TCP => vec![4, 210, 0, 80, 1, 2, 3, 4, 5, 6, 7, 8, 0x50, 0x18, 1, 0, 0, 0, 0, 0],
        UDP => vec![4, 210, 0, 80, 0, 0, 0, 0],
        ICMP => vec![8, 0, 0, 0, 0, 1, 0, 1],
        _ => vec![128, 0, 0, 0, 0, 1, 0, 1],
    };
    segment.extend((0..payload).map(|byte| (byte * 7) as u8));
    let len = segment.len() as u16;
    if protocol == UDP {
        segment[4..6].copy_from_slice(&len.to_be_bytes());
    }
    let (source, destination): (Vec<u8>, Vec<u8>) = if ipv4 {
        (vec![10, 1, 2, 3], vec![198, 51, 100, 7])
    } else {
        let v6 = |net: u8, host: u8| [&[0x20, 0x01, 0x0d, 0xb8, 0, net][..], &[0; 9], &[host]].concat();
        (v6(1, 3), v6(2, 7))
    };
    let pseudo = match protocol {
        ICMP => Vec::new(),
        _ => [&source[..], &destination, &[0, protocol], &len.to_be_bytes()].concat(),
    };
    let at = match protocol {
        TCP => 16,
        UDP => 6,
        _ => 2,
    };
    let sum = checksum(&[&pseudo[..], &segment].concat());
    segment[at..at + 2].copy_from_slice(&sum.to_be_bytes());
    let mut bytes = vec![2, 0, 0, 0, 0, 2, 2, 0, 0, 0, 0, 1];
    if let Some(vlan) = vlan {
        bytes.extend([0x81, 0]);
        bytes.extend(vlan.to_be_bytes());
    }
    if ipv4 {
        bytes.extend([8, 0]);
        let total = (20 + len).to_be_bytes();
        let mut header = vec![0x45, 0, total[0], total[1], 0, 9, 0x40, 0, 64, protocol, 0, 0];
        header.extend(source.iter().chain(&destination));
        let sum = checksum(&header);
        header[10..12].copy_from_slice(&sum.to_be_bytes());
        bytes.extend(header);
    } else {
        bytes.extend([0x86, 0xdd, 0x60, 0, 0, 0]);
        bytes.extend(len.to_be_bytes());
        bytes.extend([protocol, 64]);
        bytes.extend(source.iter().chain(&destination));
    }
    bytes.extend(segment);
    bytes
}

/// The Internet checksum (RFC 1071) the slow way, so that it can judge the fast one. An odd end counts as if a zero came
/// behind it.
pub(crate) fn checksum(bytes: &[u8]) -> u16 {
    let mut sum = 0_u32;
    for pair in bytes.chunks(2) {
        sum += u32::from(pair[0]) << 8 | pair.get(1).map_or(0, |&low| u32::from(low));
        sum = (sum & 0xffff) + (sum >> 16);
    }
    !(sum as u16)
}

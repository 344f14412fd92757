//! Packets built by hand for the tests of the parser: one function per header, and a table of samples.

/// From 02::2 to 02::1, with `tags` of (TPID, tag control information).
pub(crate) fn ethernet(tags: &[(u16, u16)], ether_type: u16, payload: &[u8]) -> Vec<u8> {
    let mut bytes = vec![2, 0, 0, 0, 0, 1, 2, 0, 0, 0, 0, 2];
    for (tpid, tci) in tags {
        bytes.extend(tpid.to_be_bytes());
        bytes.extend(tci.to_be_bytes());
    }
    bytes.extend(ether_type.to_be_bytes());
    bytes.extend(payload);
    bytes
}

/// From 10.1.2.3 to 198.51.100.7, identification 0x1234; `flags` is the 16-bit word of flags and fragment offset.
pub(crate) fn ipv4(tos: u8, flags: u16, protocol: u8, options: &[u8], payload: &[u8]) -> Vec<u8> {
    let total_len = (20 + options.len() + payload.len()) as u16;
    let mut bytes = vec![0x40 | (5 + options.len() / 4) as u8, tos];
    bytes.extend(total_len.to_be_bytes());
    bytes.extend([0x12, 0x34]);
    bytes.extend(flags.to_be_bytes());
    bytes.extend([64, protocol, 0, 0, 10, 1, 2, 3, 198, 51, 100, 7]);
    bytes.extend(options);
    let checksum = slow_checksum(&bytes);
    bytes[10..12].copy_from_slice(&checksum.to_be_bytes());
    bytes.extend(payload);
    bytes
}

/// From 2001:db8:1::5 to 2001:db8:2::6, flow label 0xabcde.
pub(crate) fn ipv6(traffic_class: u8, next_header: u8, payload: &[u8]) -> Vec<u8> {
    let mut bytes = vec![0x60 | traffic_class >> 4, traffic_class << 4 | 0xa, 0xbc, 0xde];
    bytes.extend((payload.len() as u16).to_be_bytes());
    bytes.extend([next_header, 64]);
    bytes.extend(0x2001_0db8_0001_0000_0000_0000_0000_0005_u128.to_be_bytes());
    bytes.extend(0x2001_0db8_0002_0000_0000_0000_0000_0006_u128.to_be_bytes());
    bytes.extend(payload);
    bytes
}

/// Checksum 0.
pub(crate) fn udp(src: u16, dst: u16, payload: &[u8]) -> Vec<u8> {
    let mut bytes = [src.to_be_bytes(), dst.to_be_bytes()].concat();
    bytes.extend((8 + payload.len() as u16).to_be_bytes());
    bytes.extend([0, 0]);
    bytes.extend(payload);
    bytes
}

/// Checksum 0.
pub(crate) fn tcp(src: u16, dst: u16, payload: &[u8]) -> Vec<u8> {
    let mut bytes = [src.to_be_bytes(), dst.to_be_bytes()].concat();
    bytes.extend([0, 0, 0, 1, 0, 0, 0, 2, 0x50, 0x18, 0x10, 0, 0, 0, 0, 0]);
    bytes.extend(payload);
    bytes
}

/// An extension header with a length field in 8-byte units: `8 * (units + 1)` bytes.
pub(crate) fn extension(next_header: u8, units: u8, rest: &[u8]) -> Vec<u8> {
    let mut bytes = vec![next_header, units];
    bytes.resize(8 * (usize::from(units) + 1), 0);
    bytes.extend(rest);
    bytes
}

/// A fragment header, identification 0xdeadbeef.
pub(crate) fn fragment(next_header: u8, offset: u16, more: bool, rest: &[u8]) -> Vec<u8> {
    let mut bytes = vec![next_header, 0];
    bytes.extend((offset << 3 | u16::from(more)).to_be_bytes());
    bytes.extend([0xde, 0xad, 0xbe, 0xef]);
    bytes.extend(rest);
    bytes
}

/// An authentication header with a 12-byte check value: 24 bytes, length field 4.
pub(crate) fn authentication(next_header: u8, rest: &[u8]) -> Vec<u8> {
    let mut bytes = vec![next_header, 4];
    bytes.resize(24, 0);
    bytes.extend(rest);
    bytes
}

/// `count` destination options headers of 8 bytes, then `rest`, of protocol `last`.
pub(crate) fn options_chain(count: usize, last: u8, rest: &[u8]) -> Vec<u8> {
    (0..count).fold(rest.to_vec(), |rest, index| {
        extension(if index == 0 { last } else { 60 }, 0, &rest)
    })
}

/// The checksum of RFC 1071 word by word, as in its section 1.
pub(crate) fn slow_checksum(bytes: &[u8]) -> u16 {
    let mut sum = 0_u32;
    for pair in bytes.chunks(2) {
        sum += u32::from(pair[0]) << 8 | u32::from(*pair.get(1).unwrap_or(&0));
        sum = (sum & 0xffff) + (sum >> 16);
    }
    !(sum as u16)
}

/// `bytes` with the byte at `offset` replaced.
pub(crate) fn with(mut bytes: Vec<u8>, offset: usize, value: u8) -> Vec<u8> {
    bytes[offset] = value;
    bytes
}

/// (description, packet, what the parser makes of it as the table test renders it).
pub(crate) fn samples() -> Vec<(&'static str, Vec<u8>, &'static str)> {
    let mut samples = link_samples();
    samples.extend(ipv4_samples());
    samples.extend(ipv6_samples());
    samples
}

const IPV4: u16 = 0x0800;
const IPV6: u16 = 0x86dd;

fn link_samples() -> Vec<(&'static str, Vec<u8>, &'static str)> {
    let v4 = ipv4(0, 0, 17, &[], &udp(1, 2, b"x"));
    let tagged = |tags: &[(u16, u16)]| ethernet(tags, IPV4, &v4);
    vec![
        ("nothing", vec![], "other at 0"),
        ("ARP", ethernet(&[], 0x0806, &[0; 46]), "other at 14"),
        (
            "ARP in a tag",
            ethernet(&[(0x8100, 0x6001)], 0x0806, &[0; 46]),
            "other at 18 pcp 3",
        ),
        ("802.3 length frame", ethernet(&[], 46, &[0x42; 46]), "other at 14"),
        (
            "C-tag, PCP 5",
            tagged(&[(0x8100, 0xa00a)]),
            "v4 tags 1 pcp 5 l3 18+29 dscp 0.0 proto 17 at 38 ports 1>2",
        ),
        (
            "S-tag, DEI set, PCP 0",
            tagged(&[(0x88a8, 0x1fff)]),
            "v4 tags 1 pcp 0 l3 18+29 dscp 0.0 proto 17 at 38 ports 1>2",
        ),
        (
            "S-tag then C-tag: the outer priority",
            tagged(&[(0x88a8, 0xc064), (0x8100, 0x2065)]),
            "v4 tags 2 pcp 6 l3 22+29 dscp 0.0 proto 17 at 42 ports 1>2",
        ),
        (
            "9100 twice",
            tagged(&[(0x9100, 0xe000), (0x9100, 0)]),
            "v4 tags 2 pcp 7 l3 22+29 dscp 0.0 proto 17 at 42 ports 1>2",
        ),
        (
            "three tags",
            tagged(&[(0x8100, 0x2000), (0x8100, 0), (0x8100, 0)]),
            "other at 22 pcp 1",
        ),
        (
            "IPv4 EtherType over IPv6",
            ethernet(&[], IPV4, &ipv6(0, 17, &udp(1, 2, b""))),
            "other at 14",
        ),
        (
            "IPv6 EtherType over IPv4",
            ethernet(&[], IPV6, &ipv4(0, 0, 17, &[], &[0; 40])),
            "other at 14",
        ),
    ]
}

fn ipv4_samples() -> Vec<(&'static str, Vec<u8>, &'static str)> {
    let v4 = |packet: &[u8]| ethernet(&[], IPV4, packet);
    let plain = ipv4(0xb9, 0x4000, 17, &[], &udp(1000, 53, b"query"));
    let padded = [ipv4(0, 0, 17, &[], &udp(7, 8, b"")), vec![0xff; 18]].concat();
    let bare = ipv4(0, 0, 17, &[], &[]);
    vec![
        (
            "UDP, EF, ECT(1), DF",
            v4(&plain),
            "v4 tags 0 l3 14+33 dscp 46.1 proto 17 at 34 ports 1000>53",
        ),
        (
            "TCP, CE",
            v4(&ipv4(0x2b, 0, 6, &[], &tcp(443, 50000, b"data"))),
            "v4 tags 0 l3 14+44 dscp 10.3 proto 6 at 34 ports 443>50000",
        ),
        (
            "Ethernet padding is not IP",
            v4(&padded),
            "v4 tags 0 l3 14+28 dscp 0.0 proto 17 at 34 ports 7>8",
        ),
        (
            "options are skipped",
            v4(&ipv4(0, 0, 17, &[1; 40], &udp(7, 8, b""))),
            "v4 tags 0 l3 14+68 dscp 0.0 proto 17 at 74 ports 7>8",
        ),
        (
            "ICMP has no ports",
            v4(&ipv4(0, 0, 1, &[], &[8, 0, 0, 0, 0, 1, 0, 1])),
            "v4 tags 0 l3 14+28 dscp 0.0 proto 1 at 34",
        ),
        (
            "first fragment",
            v4(&ipv4(0, 0x2000, 17, &[], &udp(7, 8, &[0; 24]))),
            "v4 tags 0 l3 14+52 dscp 0.0 proto 17 at 34 ports 7>8 first 1234",
        ),
        (
            "middle fragment",
            v4(&ipv4(0, 0x2004, 17, &[], &[0x55; 32])),
            "v4 tags 0 l3 14+52 dscp 0.0 proto 17 later 1234",
        ),
        (
            "last fragment",
            v4(&ipv4(0, 0x0008, 6, &[], &[0x55; 5])),
            "v4 tags 0 l3 14+25 dscp 0.0 proto 6 later 1234",
        ),
        (
            "the reserved bit and DF are not MF",
            v4(&ipv4(0, 0xc000, 17, &[], &udp(7, 8, b""))),
            "v4 tags 0 l3 14+28 dscp 0.0 proto 17 at 34 ports 7>8",
        ),
        (
            "no transport bytes",
            v4(&bare),
            "v4 tags 0 l3 14+20 dscp 0.0 proto 17 at 34",
        ),
        (
            "ports are not read from padding",
            v4(&[bare.clone(), vec![0xee; 26]].concat()),
            "v4 tags 0 l3 14+20 dscp 0.0 proto 17 at 34",
        ),
        (
            "three of four bytes of ports",
            v4(&ipv4(0, 0, 6, &[], &[1, 2, 3])),
            "v4 tags 0 l3 14+23 dscp 0.0 proto 6 at 34",
        ),
        ("IHL 4", v4(&with(plain.clone(), 0, 0x44)), "other at 14"),
        (
            "IHL beyond the total length",
            v4(&with(bare.clone(), 0, 0x46)),
            "other at 14",
        ),
        ("version 5", v4(&with(plain.clone(), 0, 0x55)), "other at 14"),
        (
            "total length 0",
            v4(&with(with(plain.clone(), 2, 0), 3, 0)),
            "other at 14",
        ),
        (
            "total length one short of the header",
            v4(&with(plain.clone(), 3, 19)),
            "other at 14",
        ),
        (
            "total length one beyond the packet",
            v4(&with(plain.clone(), 3, 34)),
            "other at 14",
        ),
        (
            "total length 65535",
            v4(&with(with(plain, 2, 0xff), 3, 0xff)),
            "other at 14",
        ),
    ]
}

fn ipv6_samples() -> Vec<(&'static str, Vec<u8>, &'static str)> {
    let v6 = |next_header: u8, payload: &[u8]| ethernet(&[], IPV6, &ipv6(0, next_header, payload));
    let u = udp(7, 8, b"");
    let padded = [ipv6(0, 17, &[0, 7, 0]), vec![0xee; 9]].concat();
    let all = [135, 139, 140, 0, 43]
        .iter()
        .fold((17, u.clone()), |(next, rest), kind| (*kind, extension(next, 1, &rest)));
    vec![
        (
            "UDP, EF, ECT(0)",
            ethernet(&[], IPV6, &ipv6(0xba, 17, &udp(1000, 53, b"q"))),
            "v6 tags 0 l3 14+49 dscp 46.2 proto 17 at 54 ports 1000>53",
        ),
        (
            "TCP in a tag",
            ethernet(&[(0x8100, 0x8001)], IPV6, &ipv6(0, 6, &tcp(1, 2, b""))),
            "v6 tags 1 pcp 4 l3 18+60 dscp 0.0 proto 6 at 58 ports 1>2",
        ),
        (
            "ICMPv6",
            v6(58, &[128, 0, 0, 0]),
            "v6 tags 0 l3 14+44 dscp 0.0 proto 58 at 54",
        ),
        (
            "hop-by-hop options",
            v6(0, &extension(17, 2, &u)),
            "v6 tags 0 l3 14+72 dscp 0.0 proto 17 at 78 ports 7>8",
        ),
        (
            "authentication header",
            v6(51, &authentication(17, &u)),
            "v6 tags 0 l3 14+72 dscp 0.0 proto 17 at 78 ports 7>8",
        ),
        (
            "routing, hop-by-hop, shim6, HIP, mobility",
            v6(all.0, &all.1),
            "v6 tags 0 l3 14+128 dscp 0.0 proto 17 at 134 ports 7>8",
        ),
        (
            "ESP hides the rest",
            v6(50, &[0x77; 24]),
            "v6 tags 0 l3 14+64 dscp 0.0 proto 50 at 54",
        ),
        (
            "ESP behind options",
            v6(60, &extension(50, 0, &[0x77; 24])),
            "v6 tags 0 l3 14+72 dscp 0.0 proto 50 at 62",
        ),
        ("no next header", v6(59, &u), "v6 tags 0 l3 14+48 dscp 0.0 proto 59"),
        (
            "no payload at all",
            v6(17, &[]),
            "v6 tags 0 l3 14+40 dscp 0.0 proto 17 at 54",
        ),
        (
            "first fragment",
            v6(44, &fragment(17, 0, true, &u)),
            "v6 tags 0 l3 14+56 dscp 0.0 proto 17 at 62 ports 7>8 first deadbeef",
        ),
        (
            "first fragment, options behind",
            v6(44, &fragment(60, 0, true, &extension(6, 0, &tcp(7, 8, b"")))),
            "v6 tags 0 l3 14+76 dscp 0.0 proto 6 at 70 ports 7>8 first deadbeef",
        ),
        (
            "later fragment",
            v6(44, &fragment(17, 185, true, &u)),
            "v6 tags 0 l3 14+56 dscp 0.0 proto 17 later deadbeef",
        ),
        (
            "last fragment, options before",
            v6(60, &extension(44, 0, &fragment(60, 185, false, &u))),
            "v6 tags 0 l3 14+64 dscp 0.0 proto 60 later deadbeef",
        ),
        (
            "atomic fragment is whole",
            v6(44, &fragment(17, 0, false, &u)),
            "v6 tags 0 l3 14+56 dscp 0.0 proto 17 at 62 ports 7>8",
        ),
        (
            "two fragment headers",
            v6(44, &fragment(44, 0, true, &fragment(17, 9, true, &u))),
            "v6 tags 0 l3 14+64 dscp 0.0 proto 44 first deadbeef",
        ),
        (
            "eight extension headers",
            v6(60, &options_chain(8, 17, &u)),
            "v6 tags 0 l3 14+112 dscp 0.0 proto 17 at 118 ports 7>8",
        ),
        (
            "nine extension headers",
            v6(60, &options_chain(9, 17, &u)),
            "v6 tags 0 l3 14+120 dscp 0.0 proto 60",
        ),
        (
            "eight, then no next header",
            v6(60, &options_chain(8, 59, &[])),
            "v6 tags 0 l3 14+104 dscp 0.0 proto 59",
        ),
        (
            "an extension header longer than the packet",
            v6(0, &with(extension(17, 0, &u), 1, 2)),
            "v6 tags 0 l3 14+56 dscp 0.0 proto 0",
        ),
        (
            "an extension header of exactly the payload",
            v6(0, &with(extension(17, 0, &u), 1, 1)),
            "v6 tags 0 l3 14+56 dscp 0.0 proto 17 at 70",
        ),
        (
            "half an extension header",
            v6(43, &[17, 0, 0, 0]),
            "v6 tags 0 l3 14+44 dscp 0.0 proto 43",
        ),
        (
            "jumbogram: payload length 0",
            ethernet(&[], IPV6, &with(ipv6(0, 0, &extension(17, 0, &u)), 5, 0)),
            "v6 tags 0 l3 14+40 dscp 0.0 proto 0",
        ),
        (
            "payload length one beyond the packet",
            ethernet(&[], IPV6, &with(ipv6(0, 17, &u), 5, 9)),
            "other at 14",
        ),
        (
            "ports are not read from padding",
            ethernet(&[], IPV6, &padded),
            "v6 tags 0 l3 14+43 dscp 0.0 proto 17 at 54",
        ),
        (
            "version 4",
            ethernet(&[], IPV6, &with(ipv6(0, 17, &u), 0, 0x40)),
            "other at 14",
        ),
    ]
}

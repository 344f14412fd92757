//! The seeds, by kind. Each has a name that says what is wrong with it.

use super::build::{
    IPV4, IPV6, MPLS, TCP, UDP, V4, V4_PLAIN, authentication, ethernet, extension, fragment, gre, ipv4, ipv6, mpls,
    tagged, tcp, udp, vxlan,
};

/// A packet and what it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Seed {
    /// Words joined by hyphens.
    pub name: String,
    /// From the destination address on, without FCS; 0 to 3,818 bytes.
    pub bytes: Vec<u8>,
}

/// All of them.
#[must_use]
pub fn seeds() -> Vec<Seed> {
    let mut all = Seeds(Vec::new());
    all.frames();
    all.ipv4_headers();
    all.ipv4_fragments();
    all.ipv6_chains();
    all.ipv6_fragments();
    all.towers();
    all.tunnels();
    all.0
}

struct Seeds(Vec<Seed>);

impl Seeds {
    fn add(&mut self, name: impl Into<String>, bytes: Vec<u8>) {
        let name = name.into();
        assert!(bytes.len() <= 3818, "{name}: {} bytes", bytes.len());
        self.0.push(Seed { name, bytes });
    }

    fn v4(&mut self, name: impl Into<String>, packet: &[u8]) {
        self.add(name, ethernet(IPV4, packet));
    }

    fn v6(&mut self, name: impl Into<String>, packet: &[u8]) {
        self.add(name, ethernet(IPV6, packet));
    }

    /// Runts, giants, and what is not IP.
    fn frames(&mut self) {
        for length in [0, 1, 6, 11, 12, 13, 14] {
            self.add(format!("runt-of-{length}"), vec![0xff; length]);
        }
        self.add(
            "arp",
            ethernet(0x0806, &[0, 1, 8, 0, 6, 4, 0, 1, 2, 0, 0, 0, 0, 2, 10, 1, 2, 3]),
        );
        self.add("arp-cut", ethernet(0x0806, &[0, 1]));
        self.add("802.3-length", ethernet(46, &[0xaa, 0xaa, 3, 0, 0, 0, 8, 0, 0x45]));
        self.add("802.3-length-that-lies", ethernet(1500, &[0x42, 0x42, 3]));
        self.add("pppoe", ethernet(0x8864, &[0x11, 0, 0, 1, 0, 30, 0, 0x21, 0x45]));
        self.add("nothing-behind-ethernet", ethernet(IPV4, &[]));
        self.add("giant", ethernet(IPV4, &ipv4(UDP, &udp(1, 2, &[0x55; 3_700]))));
        self.v6("giant-of-ipv6", &ipv6(UDP, &udp(1, 2, &[0x55; 3_700])));
        self.v4("plain-udp", &ipv4(UDP, &udp(40_000, 443, b"payload")));
        self.v4("plain-tcp", &ipv4(TCP, &tcp(40_000, 443, b"payload")));
        self.v6("plain-udp-of-ipv6", &ipv6(UDP, &udp(40_000, 443, b"payload")));
        self.v6("plain-tcp-of-ipv6", &ipv6(TCP, &tcp(40_000, 443, b"payload")));
        self.v4("version-6-under-ipv4", &ipv6(UDP, &udp(1, 2, b"")));
        self.v6("version-4-under-ipv6", &ipv4(UDP, &[0; 40]));
    }

    /// Lengths that lie, options to the limit, transport headers that are not whole.
    fn ipv4_headers(&mut self) {
        let plain = ipv4(UDP, &udp(40_000, 443, &[7; 30]));
        for words in [0, 4, 6, 15] {
            let mut packet = plain.clone();
            packet[0] = 0x40 | words;
            self.v4(format!("header-of-{words}-words"), &packet);
        }
        for total_len in [0, 19, 20, 27, 57, 59, 1_500, 0xffff_u16] {
            let mut packet = plain.clone();
            packet[2..4].copy_from_slice(&total_len.to_be_bytes());
            self.v4(format!("total-length-{total_len}"), &packet);
        }
        for udp_len in [0, 7, 9, 0xffff_u16] {
            let mut packet = plain.clone();
            packet[24..26].copy_from_slice(&udp_len.to_be_bytes());
            self.v4(format!("udp-length-{udp_len}"), &packet);
        }
        for data_offset in [0_u8, 4, 15] {
            let mut packet = ipv4(TCP, &tcp(40_000, 443, b"data"));
            packet[32] = data_offset << 4;
            self.v4(format!("tcp-data-offset-{data_offset}"), &packet);
        }
        let options = |options: &[u8]| V4 { options, ..V4_PLAIN }.packet(UDP, &udp(1, 2, b""));
        self.v4("options-to-the-limit", &options(&[1; 40]));
        self.v4("option-of-length-0", &options(&[7, 0, 4, 0]));
        self.v4("option-longer-than-the-header", &options(&[131, 255, 4, 10]));
        for length in 0..=8 {
            self.v4(format!("{length}-bytes-of-tcp"), &ipv4(TCP, &[0xff; 8][..length]));
            self.v4(format!("{length}-bytes-of-udp"), &ipv4(UDP, &[0xff; 8][..length]));
        }
        for protocol in [0, 1, 2, 41, 47, 50, 51, 89, 132, 255] {
            self.v4(format!("protocol-{protocol}"), &ipv4(protocol, &[0xff; 16]));
        }
    }

    /// Tiny, overlapping, out of order, beyond 64 KiB.
    fn ipv4_fragments(&mut self) {
        let part = |id, offset: u16, more: bool, payload: &[u8]| {
            let flags = offset | if more { 0x2000 } else { 0 };
            V4 { id, flags, ..V4_PLAIN }.packet(UDP, payload)
        };
        let datagram = udp(40_000, 443, &[9; 64]);
        self.v4("first-fragment", &part(1, 0, true, &datagram[..32]));
        self.v4("fragment-that-overlaps-the-first", &part(1, 2, true, &datagram[16..48]));
        self.v4("fragment-over-the-ports", &part(1, 0, false, &udp(1, 1, &[0; 8])));
        self.v4("last-fragment", &part(1, 4, false, &datagram[32..]));
        self.v4("last-fragment-without-a-first", &part(2, 4, false, &datagram[32..]));
        for length in 0..=8 {
            self.v4(
                format!("tiny-first-fragment-of-{length}"),
                &part(3, 0, true, &datagram[..length]),
            );
        }
        self.v4("tiny-later-fragment", &part(3, 1, true, &datagram[8..16]));
        self.v4("fragment-of-nothing", &part(4, 100, true, &[]));
        self.v4("fragment-beyond-64-kib", &part(5, 0x1fff, false, &[0; 100]));
        self.v4(
            "all-flags",
            &V4 {
                flags: 0xffff,
                ..V4_PLAIN
            }
            .packet(TCP, &datagram),
        );
    }

    /// Extension headers: long chains, loops, lengths that run beyond.
    fn ipv6_chains(&mut self) {
        let end = udp(40_000, 443, b"end");
        let chain = |kinds: &[u8], last: u8| {
            let mut next = last;
            let mut rest = end.clone();
            for &kind in kinds.iter().rev() {
                rest = if kind == 51 {
                    authentication(next, &rest)
                } else {
                    extension(next, 0, &rest)
                };
                next = kind;
            }
            ipv6(next, &rest)
        };
        for length in [1, 7, 8, 9, 64, 400] {
            self.v6(format!("{length}-extension-headers"), &chain(&vec![60; length], UDP));
        }
        // As long as a frame allows, and each names another: whoever follows them all has work for a batch.
        let many: Vec<u8> = (0..300)
            .map(|index| [0, 43, 60, 51, 135, 139, 140][index % 7])
            .collect();
        self.v6("every-kind-of-extension-header-in-a-circle", &chain(&many[..200], UDP));
        self.v6("hop-by-hop-for-ever", &chain(&[0; 400], 0));
        self.v6("chain-that-ends-in-itself", &chain(&[60; 6], 60));
        self.v6("chain-to-no-next-header", &chain(&[0, 43, 60], 59));
        self.v6("chain-to-esp", &chain(&[0, 43, 60], 50));
        self.v6("all-of-them-then-tcp", &chain(&[0, 60, 43, 51, 60, 135], TCP));
        for units in [1, 2, 31, 255_u8] {
            let mut packet = chain(&[60, 60], UDP);
            packet[49] = units;
            self.v6(format!("extension-header-of-{units}-units-that-are-not-there"), &packet);
        }
        self.v6("extension-header-of-2048-bytes", &ipv6(0, &extension(UDP, 255, &end)));
        let mut short = chain(&[51], UDP);
        short[41] = 0;
        self.v6("authentication-header-of-length-0", &short);
        for payload_len in [0, 1, 10, 12, 0xffff_u16] {
            let mut packet = ipv6(UDP, &end);
            packet[4..6].copy_from_slice(&payload_len.to_be_bytes());
            self.v6(format!("payload-length-{payload_len}"), &packet);
        }
        let routing = [
            UDP, 2, 0, 255, 0, 0, 0, 0, 0x20, 1, 13, 184, 0, 2, 0, 0, 0, 0, 0, 0, 0, 0, 0, 6,
        ];
        self.v6(
            "routing-header-with-255-segments-left",
            &ipv6(43, &[&routing[..], &end].concat()),
        );
        for length in 0..=7 {
            self.v6(
                format!("{length}-bytes-of-an-extension-header"),
                &ipv6(60, &[UDP; 7][..length]),
            );
        }
    }

    fn ipv6_fragments(&mut self) {
        let end = udp(40_000, 443, &[9; 64]);
        self.v6("first-fragment-of-ipv6", &ipv6(44, &fragment(UDP, 0, true, &end[..32])));
        self.v6(
            "fragment-of-ipv6-that-overlaps",
            &ipv6(44, &fragment(UDP, 2, true, &end[16..48])),
        );
        self.v6("last-fragment-of-ipv6", &ipv6(44, &fragment(UDP, 4, false, &end[32..])));
        self.v6("atomic-fragment", &ipv6(44, &fragment(UDP, 0, false, &end)));
        self.v6(
            "fragment-of-ipv6-beyond-64-kib",
            &ipv6(44, &fragment(UDP, 0x1fff, false, &end)),
        );
        for length in 0..=8 {
            let part = fragment(TCP, 0, true, &end[..length]);
            self.v6(format!("tiny-first-fragment-of-{length}-of-ipv6"), &ipv6(44, &part));
        }
        let twice = fragment(44, 0, true, &fragment(UDP, 0, true, &end));
        self.v6("fragment-of-a-fragment", &ipv6(44, &twice));
        // RFC 7112: the chain goes on in the next fragment.
        self.v6(
            "chain-cut-by-a-fragment",
            &ipv6(44, &fragment(60, 0, true, &[60, 200, 0, 0, 0, 0, 0, 0])),
        );
        self.v6(
            "options-before-a-later-fragment",
            &ipv6(60, &extension(44, 0, &fragment(UDP, 9, true, &end))),
        );
        self.v6("half-a-fragment-header", &ipv6(44, &fragment(UDP, 0, true, &[])[..4]));
    }

    /// VLAN tags, one on the other.
    fn towers(&mut self) {
        let packet = ipv4(UDP, &udp(40_000, 443, b"in a tower"));
        for height in [1, 2, 3, 8, 64, 900] {
            let kinds = [0x8100, 0x88a8, 0x9100];
            let tags: Vec<(u16, u16)> = (0..height)
                .map(|index| (kinds[index % 3], 0xe001 + index as u16))
                .collect();
            self.add(format!("tower-of-{height}-tags"), tagged(&tags, IPV4, &packet));
            self.add(
                format!("tower-of-{height}-tags-without-an-end"),
                tagged(&tags, 0x8100, &[]),
            );
            self.add(
                format!("tower-of-{height}-tags-and-ipv6"),
                tagged(&tags, IPV6, &ipv6(TCP, &tcp(1, 2, b""))),
            );
        }
        let one = tagged(&[(0x8100, 0x2001)], IPV4, &packet);
        for length in 12..=19 {
            self.add(format!("tag-cut-at-{length}"), one[..length].to_vec());
        }
        let two = tagged(&[(0x88a8, 0x2001), (0x8100, 0xffff)], IPV4, &packet);
        for length in 18..=23 {
            self.add(format!("second-tag-cut-at-{length}"), two[..length].to_vec());
        }
    }

    /// Packets in packets.
    fn tunnels(&mut self) {
        let inner = ipv4(TCP, &tcp(40_000, 443, b"inside"));
        let frame = ethernet(IPV4, &inner);
        for flags in [0, 0x8000, 0xb000, 0xffff] {
            self.v4(format!("gre-{flags:04x}"), &ipv4(47, &gre(flags, IPV4, &inner)));
            self.v6(
                format!("gre-{flags:04x}-over-ipv6"),
                &ipv6(47, &gre(flags, 0x6558, &frame)),
            );
        }
        self.v4("gre-cut", &ipv4(47, &gre(0xb000, IPV4, &[])[..3]));
        self.v4("vxlan", &ipv4(UDP, &vxlan(&frame)));
        self.v6("vxlan-over-ipv6", &ipv6(UDP, &vxlan(&frame)));
        self.v4("vxlan-with-nothing-inside", &ipv4(UDP, &vxlan(&[])));
        self.v4(
            "vxlan-with-a-tower-inside",
            &ipv4(UDP, &vxlan(&tagged(&[(0x8100, 1); 40], IPV4, &inner))),
        );
        for labels in [1, 3, 200] {
            self.add(
                format!("mpls-of-{labels}-labels"),
                ethernet(MPLS, &mpls(labels, true, &inner)),
            );
            self.add(
                format!("mpls-of-{labels}-labels-without-a-bottom"),
                ethernet(MPLS, &mpls(labels, false, &[])),
            );
        }
        let in_gre = gre(0, MPLS, &mpls(2, true, &inner));
        self.v4(
            "mpls-in-gre-in-vxlan",
            &ipv4(UDP, &vxlan(&ethernet(IPV4, &ipv4(47, &in_gre)))),
        );
        // Packets in packets as deep as a frame allows, by turns.
        let nested = (0..60).fold(inner.clone(), |rest, depth| {
            let kind = if rest[0] >> 4 == 4 { 4 } else { 41 };
            if depth % 2 == 0 {
                ipv4(kind, &rest)
            } else {
                ipv6(kind, &rest)
            }
        });
        self.v6("sixty-packets-in-one-another", &nested);
        self.v6("ipv6-in-ipv6", &ipv6(41, &ipv6(41, &ipv6(UDP, &udp(1, 2, b"")))));
        // The error of an error: ICMP quotes a packet that is cut.
        let quote = [&[3, 4, 0, 0, 0, 0, 0, 0], &inner[..28]].concat();
        self.v4("icmp-that-quotes", &ipv4(1, &quote));
    }
}

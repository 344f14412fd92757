//! Packets of every kind, at instants with bursts and long silences.

use std::collections::VecDeque;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use rand::RngExt as _;
use rand::rngs::StdRng;

use super::frames::{self, Ip};
use super::{far_spine, pick, site_spine};
use crate::capture::Packet;
use crate::reference::model::{Config, Direction, Prefix};

/// Who talks to whom; the packets of a flow differ in everything else.
#[derive(Clone, Debug)]
struct Flow {
    site: IpAddr,
    far: IpAddr,
    protocol: u8,
    site_port: u16,
    far_port: u16,
}

/// Longest frame: an Ethernet header and 1500 bytes.
const FRAME_BYTES_MAX: usize = 1_514;
const TCP: u8 = 6;
const UDP: u8 = 17;

/// About `count` instants `gap_ns` apart on average, and a second at which exactly one of them lies.
pub(super) fn instants(rng: &mut StdRng, count: usize, gap_ns: u64) -> (Vec<u64>, u64) {
    let runs_backwards = rng.random_bool(0.1);
    let mut now_ns = 0_u64;
    let mut instants: Vec<u64> = (0..count)
        .map(|_| {
            now_ns += match rng.random_range(0..1000) {
                0..400 => rng.random_range(0..=gap_ns / 10),
                400..430 => rng.random_range(gap_ns * 5..=gap_ns * 50),
                // Around the memory for fragments, and beyond the depth of every bucket.
                430..435 => rng.random_range(1_000_000..=40_000_000_000),
                435 => rng.random_range(86_400_000_000_000..=864_000_000_000_000),
                _ => rng.random_range(0..=gap_ns * 2),
            };
            let step_back = runs_backwards && rng.random_bool(0.05);
            if step_back {
                now_ns.saturating_sub(rng.random_range(0..=gap_ns * 3))
            } else {
                now_ns
            }
        })
        .collect();
    // 2026-11-21, at midnight or at any other second.
    let boundary_s = 1_795_219_200
        + if rng.random_bool(0.5) {
            0
        } else {
            rng.random_range(1..86_400)
        };
    let pivot_ns = instants[rng.random_range(0..count)];
    instants
        .iter_mut()
        .for_each(|instant| *instant = boundary_s * 1_000_000_000 + *instant - pivot_ns);
    (instants, boundary_s)
}

/// One packet per instant.
pub(super) fn capture(rng: &mut StdRng, config: &Config, direction: Direction, instants_ns: &[u64]) -> Vec<Packet> {
    let flows: Vec<Flow> = (0..6).map(|_| flow(rng, config)).collect();
    // Fragments on their way: they come later, between other packets.
    let mut pending: VecDeque<Vec<u8>> = VecDeque::new();
    let mut next = |rng: &mut StdRng| {
        if !pending.is_empty() && rng.random_bool(0.5) {
            return pending.pop_front().expect("not empty");
        }
        let flow = if rng.random_bool(0.9) {
            pick(rng, &flows)
        } else {
            flow(rng, config)
        };
        match rng.random_range(0..100) {
            0..5 => not_ip(rng),
            5..15 => {
                pending.extend(fragments(rng, config, direction, &flow));
                pending.pop_front().expect("at least one fragment")
            }
            15..23 => {
                let frame = whole(rng, config, direction, &flow);
                damaged(rng, frame)
            }
            _ => whole(rng, config, direction, &flow),
        }
    };
    instants_ns
        .iter()
        .map(|&at_ns| Packet {
            at_ns,
            bytes: next(rng),
        })
        .collect()
}

/// A flow that some endpoint and segment of the configuration probably match.
fn flow(rng: &mut StdRng, config: &Config) -> Flow {
    let service = pick(rng, &config.services);
    let endpoint = pick(rng, &service.endpoints);
    let is_v4 = endpoint.prefix.address.is_ipv4();
    let of_family = |prefix: &&Prefix| prefix.address.is_ipv4() == is_v4;
    let prefixes: Vec<Prefix> = config
        .segments
        .iter()
        .flat_map(|segment| &segment.prefixes)
        .filter(of_family)
        .copied()
        .collect();
    let far = match prefixes.len() {
        1.. if rng.random_bool(0.7) => {
            let prefix = pick(rng, &prefixes);
            host(rng, &prefix)
        }
        _ => host(
            rng,
            &Prefix {
                address: far_spine(is_v4),
                length: 8,
            },
        ),
    };
    let mut flow = Flow {
        site: host(
            rng,
            &Prefix {
                address: site_spine(is_v4),
                length: if is_v4 { 16 } else { 48 },
            },
        ),
        far,
        protocol: pick(rng, &[TCP, UDP, UDP, 1, 58, 47, 50, 132, 59]),
        site_port: pick(rng, &[53, 80, 443, 5_050, 8_100, 8_101, 65_535, 0]),
        far_port: rng.random(),
    };
    if rng.random_bool(0.9) {
        flow.site = host(rng, &endpoint.prefix);
        if let Some(ports) = &endpoint.ports
            && rng.random_bool(0.8)
        {
            let (first, last) = pick(rng, &ports.ranges);
            flow.protocol = ports.protocol;
            flow.site_port = rng.random_range(first..=last);
        }
    }
    flow
}

/// An address of the prefix: one of few, so that longer prefixes inside are met too.
fn host(rng: &mut StdRng, prefix: &Prefix) -> IpAddr {
    let spine = if rng.random_bool(0.5) {
        site_spine(prefix.address.is_ipv4())
    } else {
        far_spine(prefix.address.is_ipv4())
    };
    let of_spine = rng.random_bool(0.5);
    match (prefix.address, spine) {
        (IpAddr::V4(address), IpAddr::V4(spine)) => {
            let mask = u32::MAX.checked_shr(u32::from(prefix.length)).unwrap_or(0);
            let low: u32 = if of_spine { spine.to_bits() } else { rng.random() };
            IpAddr::V4(Ipv4Addr::from_bits(address.to_bits() & !mask | low & mask))
        }
        (IpAddr::V6(address), IpAddr::V6(spine)) => {
            let mask = u128::MAX.checked_shr(u32::from(prefix.length)).unwrap_or(0);
            let low: u128 = if of_spine { spine.to_bits() } else { rng.random() };
            IpAddr::V6(Ipv6Addr::from_bits(address.to_bits() & !mask | low & mask))
        }
        _ => unreachable!("the spine was chosen by family"),
    }
}

/// A sound packet in one piece.
fn whole(rng: &mut StdRng, config: &Config, direction: Direction, flow: &Flow) -> Vec<u8> {
    let mut ip = headers(rng, config, direction, flow);
    let room = FRAME_BYTES_MAX - 14 - 40 - 80;
    let payload_bytes = match rng.random_range(0..10) {
        0 => rng.random_range(0..8),
        1..4 => rng.random_range(8..64),
        4..7 => rng.random_range(64..800),
        _ => rng.random_range(800..=room),
    };
    ip.payload = payload(rng, direction, flow, payload_bytes);
    if rng.random_bool(0.15) {
        ip.extensions = extensions(rng);
    }
    if rng.random_bool(0.02) {
        // An atomic fragment in IPv6 (RFC 6946), nothing special in IPv4.
        ip.fragment = Some((rng.random(), 0, false));
    }
    frame(rng, config, &ip)
}

/// Up to four fragments of one datagram, the first one not always first and not always there.
fn fragments(rng: &mut StdRng, config: &Config, direction: Direction, flow: &Flow) -> Vec<Vec<u8>> {
    let ip = headers(rng, config, direction, flow);
    let id = rng.random();
    let extensions = if rng.random_bool(0.2) {
        extensions(rng).into_iter().take(2).collect()
    } else {
        Vec::new()
    };
    let count = rng.random_range(2..=4_u16);
    let unit_bytes = 8 * rng.random_range(1..=100_usize);
    let mut frames: Vec<Vec<u8>> = (0..count)
        .map(|index| {
            let is_last = index + 1 == count;
            let mut piece = ip.clone();
            piece.extensions = extensions.clone();
            piece.fragment = Some((id, index * (unit_bytes / 8) as u16, !is_last));
            let bytes = if is_last {
                rng.random_range(1..=unit_bytes)
            } else {
                unit_bytes
            };
            piece.payload = if index == 0 {
                payload(rng, direction, flow, bytes)
            } else {
                random_bytes(rng, bytes)
            };
            if rng.random_bool(0.2) {
                // Fragments need not agree on their mark: each keeps to its own class.
                piece.traffic_class = traffic_class(rng, config);
            }
            frame(rng, config, &piece)
        })
        .collect();
    match rng.random_range(0..10) {
        0..2 => frames.reverse(),
        2..4 => frames.rotate_left(1),
        4 => drop(frames.remove(0)),
        _ => {}
    }
    frames
}

fn headers(rng: &mut StdRng, config: &Config, direction: Direction, flow: &Flow) -> Ip {
    let (source, destination) = match direction {
        Direction::Egress => (flow.site, flow.far),
        Direction::Ingress => (flow.far, flow.site),
    };
    let options_bytes = if rng.random_bool(0.1) {
        4 * rng.random_range(1..=10)
    } else {
        0
    };
    Ip {
        source,
        destination,
        traffic_class: traffic_class(rng, config),
        protocol: flow.protocol,
        options: random_bytes(rng, options_bytes),
        extensions: Vec::new(),
        fragment: None,
        payload: Vec::new(),
    }
}

/// Mostly a code point that some class lists, with any ECN bits.
fn traffic_class(rng: &mut StdRng, config: &Config) -> u8 {
    let class = pick(rng, &config.classes);
    let listed: Vec<u8> = [class.dscp, class.yellow_dscp, class.red_dscp].concat();
    let dscp = match listed.len() {
        1.. if rng.random_bool(0.8) => pick(rng, &listed),
        _ if rng.random_bool(0.3) => class.nonconforming_dscp.unwrap_or(0),
        _ => rng.random_range(0..64),
    };
    dscp << 2 | rng.random_range(0..4)
}

fn payload(rng: &mut StdRng, direction: Direction, flow: &Flow, bytes: usize) -> Vec<u8> {
    let (source, destination) = match direction {
        Direction::Egress => (flow.site_port, flow.far_port),
        Direction::Ingress => (flow.far_port, flow.site_port),
    };
    let mut payload = [source.to_be_bytes(), destination.to_be_bytes()].concat();
    payload.extend(random_bytes(rng, bytes.saturating_sub(4)));
    payload.truncate(bytes);
    payload
}

/// One to nine headers: eight are read, nine are strange.
fn extensions(rng: &mut StdRng) -> Vec<(u8, Vec<u8>)> {
    let count = pick(rng, &[1, 1, 1, 2, 2, 3, 8, 9]);
    (0..count)
        .map(|_| {
            let kind = pick(rng, &[0, 43, 60, 51, 135, 139, 140]);
            let units = rng.random_range(0..=u8::from(count < 4));
            let bytes = if kind == 51 {
                (usize::from(units) + 2) * 4
            } else {
                (usize::from(units) + 1) * 8
            };
            let mut header = random_bytes(rng, bytes);
            header[1] = units;
            (kind, header)
        })
        .collect()
}

fn frame(rng: &mut StdRng, config: &Config, ip: &Ip) -> Vec<u8> {
    let (ethertype, mut packet) = frames::ip(ip);
    if rng.random_bool(0.05) {
        // Bytes behind the packet that its header does not count.
        let trailer_bytes = rng.random_range(1..20);
        packet.extend(random_bytes(rng, trailer_bytes));
    }
    let tags = tags(rng, config, 0.3);
    let pad = rng.random_bool(0.5);
    let mut frame = frames::ethernet(&tags, ethertype, &packet, pad);
    if frame.len() > FRAME_BYTES_MAX {
        frame.truncate(FRAME_BYTES_MAX);
    }
    frame
}

/// Up to two tags, rarely three, the outer one often with a priority that some class lists.
fn tags(rng: &mut StdRng, config: &Config, share: f64) -> Vec<(u16, u16)> {
    if !rng.random_bool(share) {
        return Vec::new();
    }
    let count = pick(rng, &[1, 1, 1, 1, 1, 1, 2, 2, 2, 3]);
    let listed: Vec<u8> = config.classes.iter().flat_map(|class| class.pcp.clone()).collect();
    let listed_pcp = (!listed.is_empty() && rng.random_bool(0.6)).then(|| pick(rng, &listed));
    (0..count)
        .map(|index| {
            let random_pcp = rng.random_range(0..8_u8);
            let pcp = if index == 0 {
                listed_pcp.unwrap_or(random_pcp)
            } else {
                random_pcp
            };
            (
                pick(rng, &[0x8100, 0x8100, 0x88a8, 0x9100]),
                u16::from(pcp) << 13 | rng.random_range(0..0x1000_u16),
            )
        })
        .collect()
}

/// ARP, LLDP, an 802.3 length, an unknown ethertype, tags with nothing behind.
fn not_ip(rng: &mut StdRng) -> Vec<u8> {
    let bytes = rng.random_range(0..200);
    let body = random_bytes(rng, bytes);
    let pad = rng.random_bool(0.5);
    match rng.random_range(0..6) {
        0 => {
            let arp = [&[0, 1, 8, 0, 6, 4, 0, 1][..], &random_bytes(rng, 20)].concat();
            frames::ethernet(&[], 0x0806, &arp, pad)
        }
        1 => frames::ethernet(&[], 0x88cc, &body, pad),
        2 => frames::ethernet(&[], u16::try_from(bytes).unwrap_or(0), &body, pad),
        3 => frames::ethernet(&[(0x8100, 0x6001)], 0x0806, &body, pad),
        4 => frames::ethernet(&[(0x88a8, 0xe001)], 0x8100, &body[..bytes.min(3)], false),
        _ => frames::ethernet(
            &[],
            pick(rng, &[0x8847, 0x8864, 0x88f7, 0x0800, 0x86dd, 0x8100]),
            &body,
            pad,
        ),
    }
}

/// The frame cut short, lying about itself, or with a random byte in its headers.
fn damaged(rng: &mut StdRng, mut frame: Vec<u8>) -> Vec<u8> {
    match rng.random_range(0..4) {
        0 => frame.truncate(rng.random_range(14..=frame.len())),
        1 => {
            // The first byte of an untagged packet: version and header length.
            frame[14] = rng.random();
        }
        2 => {
            // IPv4 total length, or half of the IPv6 flow label and length, when untagged.
            let at = rng.random_range(16..20.min(frame.len()));
            frame[at] = rng.random();
        }
        _ => {
            let at = rng.random_range(12..70.min(frame.len()));
            frame[at] = rng.random();
        }
    }
    frame
}

fn random_bytes(rng: &mut StdRng, count: usize) -> Vec<u8> {
    (0..count).map(|_| rng.random()).collect()
}

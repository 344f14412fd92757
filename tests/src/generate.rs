//! Seeded configurations and captures, aimed at each other: addresses, marks and rates of the packets are drawn so that
//! every rule of the configuration is hit and all colours come up. The same seed gives the same scenario.

mod frames;
mod traffic;

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use rand::rngs::StdRng;
use rand::{RngExt as _, SeedableRng as _};

use crate::capture::Packet;
use crate::reference::meter::Profile;
use crate::reference::model::{
    Action, Class, Config, Contract, Direction, Endpoint, Layer, Ports, Prefix, Segment, Service,
};

/// A configuration and a capture that enters at one of its ports.
#[derive(Clone, Debug)]
pub struct Scenario {
    /// What the gateway is told.
    pub config: Config,
    /// Which way the capture's packets go.
    pub direction: Direction,
    /// What comes in.
    pub capture: Vec<Packet>,
}

/// The scenario of `seed`, with about `packets` packets.
pub fn scenario(seed: u64, packets: usize) -> Scenario {
    let mut rng = StdRng::seed_from_u64(seed);
    let rng = &mut rng;
    let direction = if rng.random_bool(0.5) {
        Direction::Egress
    } else {
        Direction::Ingress
    };
    // From back-to-back frames of a fast port to tens of milliseconds between packets.
    let gap_ns = 10_f64.powf(rng.random_range(2.0..7.5)) as u64;
    let (instants_ns, boundary_s) = traffic::instants(rng, packets, gap_ns);
    let layer = pick(rng, &[Layer::L3, Layer::L3, Layer::L2, Layer::L1]);
    let classes = classes(rng);
    let segments = segments(rng);
    let services = services(rng);
    let mut config = Config {
        region: "atn".to_owned(),
        layer,
        uncontracted_conforms: rng.random_bool(0.3),
        classes,
        segments,
        services,
        contracts: Vec::new(),
    };
    config.contracts = contracts(rng, &config, direction, gap_ns, boundary_s);
    let capture = traffic::capture(rng, &config, direction, &instants_ns);
    Scenario {
        config,
        direction,
        capture,
    }
}

/// One to five classes that share out some of the code points; exactly one is the default.
fn classes(rng: &mut StdRng) -> Vec<Class> {
    let mut dscps: Vec<u8> = (0..64).collect();
    let mut pcps: Vec<u8> = (0..8).collect();
    let count = rng.random_range(1..=5_u8);
    let default = rng.random_range(0..count);
    (0..count)
        .map(|index| {
            let green = rng.random_range(if index == default { 0..=2 } else { 1..=3 });
            let [yellow, red] = if rng.random_bool(0.6) {
                [1, 1]
            } else {
                [0, rng.random_range(0..=1)]
            };
            let dscp = draw(rng, &mut dscps, green);
            let yellow_dscp = draw(rng, &mut dscps, yellow);
            let red_dscp = draw(rng, &mut dscps, red);
            let pcp_count = rng.random_range(0..=1);
            let pcp = draw(rng, &mut pcps, pcp_count);
            // Either a mark of its own or, as AF does it, the class's higher drop precedence.
            let nonconforming_dscp = match rng.random_range(0..4) {
                0 => None,
                1 if !yellow_dscp.is_empty() => Some(yellow_dscp[0]),
                _ => Some(draw(rng, &mut dscps, 1)[0]),
            };
            Class {
                name: format!("class{index}"),
                priority: index + 1,
                is_default: index == default,
                dscp,
                yellow_dscp,
                red_dscp,
                pcp,
                nonconforming_dscp,
            }
        })
        .collect()
}

fn segments(rng: &mut StdRng) -> Vec<Segment> {
    let mut seen: Vec<Prefix> = Vec::new();
    (0..rng.random_range(0..=3))
        .map(|index| {
            let mut prefixes = Vec::new();
            while prefixes.is_empty() || rng.random_bool(0.5) {
                let spine = far_spine(rng.random_bool(0.5));
                let prefix = nested_prefix(rng, &spine);
                // The same prefix in two segments is a mistake in a configuration.
                if !seen.contains(&prefix) {
                    seen.push(prefix);
                    prefixes.push(prefix);
                }
            }
            Segment {
                name: format!("segment{index}"),
                prefixes,
            }
        })
        .collect()
}

fn services(rng: &mut StdRng) -> Vec<Service> {
    let mut seen: Vec<Endpoint> = Vec::new();
    (0..rng.random_range(1..=4))
        .map(|index| {
            let mut endpoints: Vec<Endpoint> = Vec::new();
            while endpoints.is_empty() || rng.random_bool(0.6) {
                let spine = site_spine(rng.random_bool(0.5));
                let endpoint = Endpoint {
                    prefix: nested_prefix(rng, &spine),
                    ports: rng.random_bool(0.5).then(|| ports(rng)),
                };
                if !seen.iter().any(|other| ties(other, &endpoint)) {
                    seen.push(endpoint.clone());
                    endpoints.push(endpoint);
                }
            }
            Service {
                name: format!("service{index}"),
                endpoints,
            }
        })
        .collect()
}

/// Whether a packet could match both with the same rank, which is a mistake in a configuration.
fn ties(one: &Endpoint, other: &Endpoint) -> bool {
    if one.prefix != other.prefix {
        return false;
    }
    match (&one.ports, &other.ports) {
        (None, None) => true,
        (Some(one), Some(other)) => {
            let overlap = |&(first, last): &(u16, u16)| other.ranges.iter().any(|&(f, l)| first <= l && f <= last);
            one.protocol == other.protocol && one.ranges.iter().any(overlap)
        }
        _ => false,
    }
}

fn ports(rng: &mut StdRng) -> Ports {
    let mut ranges = vec![
        (53, 53),
        (80, 80),
        (443, 443),
        (5_000, 5_099),
        (8_000, 8_100),
        (60_000, 65_535),
    ];
    let count = rng.random_range(1..=3);
    let mut ranges = draw(rng, &mut ranges, count);
    ranges.sort_unstable();
    Ports {
        protocol: pick(rng, &[6, 17]),
        ranges,
    }
}

fn contracts(rng: &mut StdRng, config: &Config, direction: Direction, gap_ns: u64, boundary_s: u64) -> Vec<Contract> {
    let mut contracts = Vec::new();
    for service in &config.services {
        for class in &config.classes {
            let segments = config.segments.iter().map(|segment| Some(segment.name.clone()));
            for segment in segments.chain([None]) {
                if !rng.random_bool(if segment.is_none() { 0.9 } else { 0.4 }) {
                    continue;
                }
                let mut contract = contract(rng, config.layer, gap_ns);
                contract.service.clone_from(&service.name);
                contract.class.clone_from(&class.name);
                contract.segment = segment;
                contract.direction = direction;
                push_with_period(rng, &mut contracts, contract, boundary_s);
            }
        }
    }
    // Two that must stay without effect: the other direction and another region.
    for (service, class) in config.services.iter().zip(&config.classes).take(1) {
        let [mut reverse, mut elsewhere] = [contract(rng, config.layer, gap_ns), contract(rng, config.layer, gap_ns)];
        for contract in [&mut reverse, &mut elsewhere] {
            contract.service.clone_from(&service.name);
            contract.class.clone_from(&class.name);
        }
        reverse.direction = if direction == Direction::Egress {
            Direction::Ingress
        } else {
            Direction::Egress
        };
        elsewhere.direction = direction;
        elsewhere.region = "elsewhere".to_owned();
        contracts.extend([reverse, elsewhere]);
    }
    contracts
}

/// The contract as it is, or limited to one side of the boundary, or followed by another one from the boundary on.
fn push_with_period(rng: &mut StdRng, contracts: &mut Vec<Contract>, contract: Contract, boundary_s: u64) {
    let from = Contract {
        from_s: Some(boundary_s),
        ..contract.clone()
    };
    let until = Contract {
        until_s: Some(boundary_s),
        ..contract.clone()
    };
    let year_s = 365 * 86_400;
    match rng.random_range(0..10) {
        0 => contracts.push(from),
        1 => contracts.push(until),
        2 => contracts.push(Contract {
            until_s: Some(boundary_s + year_s),
            ..from
        }),
        3 => contracts.push(Contract {
            from_s: Some(boundary_s - 1000),
            ..until
        }),
        4 => contracts.extend([until, from]),
        5 => contracts.push(Contract {
            from_s: Some(boundary_s - year_s),
            until_s: Some(boundary_s + year_s),
            ..contract
        }),
        _ => contracts.push(contract),
    }
}

/// A contract of nobody yet, whose rate is of the order of what a few flows offer.
fn contract(rng: &mut StdRng, layer: Layer, gap_ns: u64) -> Contract {
    let offered_bps = 600.0 * 8e9 / gap_ns as f64;
    let rate_bps = (offered_bps * 10_f64.powf(rng.random_range(-3.5..-1.0))) as u64;
    // Mostly a round number, which allows bursts given as a time; sometimes a crooked one.
    let is_round = rng.random_bool(0.7);
    let rate_bps = if is_round { rate_bps / 8_000 * 8_000 } else { rate_bps }.clamp(8_000, 400_000_000_000);
    let (burst_bytes, burst_text) = burst(rng, layer, rate_bps);
    let second_burst_bytes = rng.random_range(1_538..=6_000);
    let second_rate_bps = (rate_bps as f64 * rng.random_range(0.2..3.0)) as u64;
    let profile = match rng.random_range(0..4) {
        0 => Profile::TokenBucket { rate_bps, burst_bytes },
        1 => Profile::SrTcm {
            rate_bps,
            burst_bytes,
            excess_burst_bytes: second_burst_bytes,
        },
        2 => Profile::TrTcm {
            rate_bps,
            burst_bytes,
            peak_rate_bps: rate_bps.max(second_rate_bps).min(400_000_000_000),
            // Less than the committed burst would be pointless: no green packet could use it.
            peak_burst_bytes: burst_bytes + second_burst_bytes,
        },
        _ => Profile::TrTcm4115 {
            rate_bps,
            burst_bytes,
            excess_rate_bps: second_rate_bps.clamp(8_000, 400_000_000_000),
            excess_burst_bytes: second_burst_bytes,
        },
    };
    Contract {
        service: String::new(),
        class: String::new(),
        region: "atn".to_owned(),
        direction: Direction::Egress,
        segment: None,
        profile,
        burst_text,
        color_aware: rng.random_bool(0.5),
        action: pick(
            rng,
            &[
                Action::Remark,
                Action::Remark,
                Action::Remark,
                Action::Queue,
                Action::Drop,
            ],
        ),
        from_s: None,
        until_s: None,
    }
}

/// A committed burst in bytes and how it is written. Small ones come most, so that buckets run empty.
fn burst(rng: &mut StdRng, layer: Layer, rate_bps: u64) -> (u64, Option<String>) {
    let full_frame_bytes = match layer {
        Layer::L3 => 1_500,
        Layer::L2 => 1_514,
        Layer::L1 => 1_538,
    };
    let ms = rng.random_range(1..=20);
    match rng.random_range(0..8) {
        // Left out: "10 ms at the rate, at least 10 full frames".
        0 if rate_bps.is_multiple_of(800) => ((rate_bps / 800).max(10 * full_frame_bytes), None),
        1 if rate_bps.is_multiple_of(8_000) && rate_bps / 8_000 * ms >= 1_538 => {
            (rate_bps / 8_000 * ms, Some(format!("\"{ms} ms\"")))
        }
        2 => (16_000, Some("\"16 kB\"".to_owned())),
        3 => (4_096, Some("\"4 KiB\"".to_owned())),
        _ => {
            let bytes = rng.random_range(1_538..=4_000_u64);
            (bytes, Some(bytes.to_string()))
        }
    }
}

/// Addresses the prefixes of one side are cut from, so that they nest.
fn site_spine(is_v4: bool) -> IpAddr {
    if is_v4 {
        IpAddr::from([10, 1, 2, 200])
    } else {
        "2001:db8:1:2:3:4:5:6".parse().expect("an address")
    }
}

fn far_spine(is_v4: bool) -> IpAddr {
    if is_v4 {
        IpAddr::from([198, 51, 100, 77])
    } else {
        "2001:db8:ff:fe:fd:fc:fb:fa".parse().expect("an address")
    }
}

/// Some leading bits of the spine, now and then with the last of them flipped.
fn nested_prefix(rng: &mut StdRng, spine: &IpAddr) -> Prefix {
    let usual: &[u8] = if spine.is_ipv4() {
        &[0, 8, 16, 24, 32]
    } else {
        &[0, 32, 48, 64, 128]
    };
    let longest = *usual.last().expect("not empty");
    let length = if rng.random_bool(0.5) {
        pick(rng, usual)
    } else {
        rng.random_range(1..=longest)
    };
    let flip = length > 0 && rng.random_bool(0.3);
    Prefix {
        address: cut(spine, length, flip),
        length,
    }
}

fn cut(address: &IpAddr, length: u8, flip: bool) -> IpAddr {
    let length = u32::from(length);
    match *address {
        IpAddr::V4(address) => {
            let bits = if flip {
                address.to_bits() ^ 1 << (32 - length)
            } else {
                address.to_bits()
            };
            IpAddr::V4(Ipv4Addr::from_bits(
                bits & u32::MAX.checked_shl(32 - length).unwrap_or(0),
            ))
        }
        IpAddr::V6(address) => {
            let bits = if flip {
                address.to_bits() ^ 1 << (128 - length)
            } else {
                address.to_bits()
            };
            IpAddr::V6(Ipv6Addr::from_bits(
                bits & u128::MAX.checked_shl(128 - length).unwrap_or(0),
            ))
        }
    }
}

fn pick<T: Clone>(rng: &mut StdRng, from: &[T]) -> T {
    from[rng.random_range(0..from.len())].clone()
}

/// Takes up to `count` values out of `from`.
fn draw<T>(rng: &mut StdRng, from: &mut Vec<T>, count: usize) -> Vec<T> {
    (0..count.min(from.len()))
        .map(|_| from.swap_remove(rng.random_range(0..from.len())))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::reference::replay::replay;

    #[test]
    fn the_same_seed_gives_the_same_scenario() {
        let [one, other] = [scenario(7, 200), scenario(7, 200)];
        assert_eq!(one.config.to_toml(), other.config.to_toml());
        assert_eq!(one.capture, other.capture);
    }

    #[test]
    fn everything_comes_up_often() {
        let mut colours = [0; 3];
        let (mut other, mut dropped, mut remarked, mut uncontracted, mut offered) = (0, 0, 0, 0, 0);
        for seed in 0..40 {
            let Scenario {
                config,
                direction,
                capture,
            } = scenario(seed, 500);
            let outcome = replay(&config, direction, &capture);
            (0..3).for_each(|colour| colours[colour] += outcome.colours[colour]);
            other += outcome.other.packets;
            uncontracted += outcome
                .uncontracted
                .values()
                .map(|counters| counters.offered.packets)
                .sum::<u64>();
            for counters in outcome.contracts.values() {
                offered += counters.offered.packets;
                dropped += counters.dropped.packets;
                remarked += counters.remarked.packets;
            }
        }
        println!(
            "{colours:?} offered {offered} dropped {dropped} remarked {remarked} uncontracted {uncontracted} other {other}"
        );
        let packets = 40 * 500;
        assert!(
            colours.iter().all(|&count| count > packets / 20),
            "green, yellow, red: {colours:?}"
        );
        assert!(
            [other, dropped, remarked, uncontracted]
                .iter()
                .all(|&count| count > packets / 40)
        );
        assert!(offered > packets / 3, "{offered} of {packets} packets met a contract");
    }
}

//! From streams to the maps of the sender: for each a template with its sums, the arithmetic of its flows, and the order
//! in which they take turns.

use std::collections::BTreeMap;
use std::ops::RangeInclusive;

use dataplane::clock::Nanos;
use ipnet::IpNet;

use super::error::LiveError;
use crate::flow::mix;
use crate::frame_builder::FrameBuilder;
use crate::probe::PROBE_BYTES;
use crate::stream::{FlowOrder, Protocol, Stream};

/// A stream's part in the mix.
#[derive(Clone, Debug, PartialEq)]
pub struct Portion {
    /// What its packets look like; its `rate_bps` is not looked at, its flows must take turns, and its sizes come evenly
    /// mixed rather than in turn, each with all the flows. Several portions may have the same id: their sequence is one.
    pub stream: Stream,
    /// Its share of the packets is this over the sum of all weights; above 0. Shares are kept to 0.01 % where a period of
    /// 65,536 packets allows it.
    pub weight: f64,
}

/// `struct entry` of `xdp/send/send.bpf.c`: words of 64 bits.
pub(super) type Entry = [u64; ENTRY_WORDS];

/// What the sender's maps are filled with.
#[derive(Debug)]
pub(super) struct Mix {
    pub(super) entries: Vec<Entry>,
    pub(super) slots: Vec<u64>,
    /// The ids of the streams, in the order of the map `sequences`.
    pub(super) streams: Vec<u16>,
    /// What frames begin as: as long as the longest packet, and filled.
    pub(super) frame: Vec<u8>,
}

impl Mix {
    pub(super) fn new(portions: &[Portion], seed: u64) -> Result<Self, LiveError> {
        if !(1..=PORTIONS_MAX).contains(&portions.len()) {
            let allowed = format!("1 to {PORTIONS_MAX} of them");
            return Err(LiveError::config("streams of a mix", &portions.len(), allowed));
        }
        let mut indices = BTreeMap::new();
        let mut streams = Vec::new();
        let mut longest = 0;
        let (mut entries, mut weights) = (Vec::new(), Vec::new());
        for Portion { stream, weight } in portions {
            stream.validate()?;
            if stream.flow_order != FlowOrder::Step {
                let allowed = "Step (for any other order take the engine af_xdp)";
                return Err(LiveError::config(
                    "flow_order",
                    &format!("{:?}", stream.flow_order),
                    allowed,
                ));
            }
            let index = *indices.entry(stream.id).or_insert_with(|| {
                streams.push(stream.id);
                streams.len() - 1
            });
            let mut sizes: BTreeMap<u16, u32> = BTreeMap::new();
            for &bytes in &stream.frame_bytes {
                *sizes.entry(bytes).or_default() += 1;
            }
            for (bytes, times) in sizes {
                entries.push(entry(stream, bytes, index, seed)?);
                weights.push(weight * f64::from(times) / stream.frame_bytes.len() as f64);
                longest = longest.max(usize::from(bytes));
            }
        }
        if longest > FRAME_BYTES_MAX {
            return Err(LiveError::config(
                "frame_bytes",
                &longest,
                format!("up to {FRAME_BYTES_MAX} (without FCS)"),
            ));
        }
        let mut frame = vec![0; longest];
        fill(&mut frame, 0, seed);
        Ok(Self {
            entries,
            slots: slots(&weights)?,
            streams,
            frame,
        })
    }
}

/// The entry of a stream's packets of one size.
fn entry(stream: &Stream, bytes: u16, index: usize, seed: u64) -> Result<Entry, LiveError> {
    // Any of its packets is a template, once all that differs is zero.
    let one = Stream {
        flows: 1,
        ..stream.clone()
    };
    let builder = FrameBuilder::new(&one, 0)?;
    let mut packet = vec![0; usize::from(bytes)];
    builder.write(&mut packet, 0, 0, Nanos(0));
    let ip = usize::from(stream.ip_offset());
    let transport = usize::from(stream.transport_offset());
    let probe = usize::from(stream.payload_offset());
    let ipv4 = stream.is_ipv4();
    let (addresses, source, destination) = if ipv4 {
        (ip + 12, ip + 12, ip + 16)
    } else {
        (ip + 8, ip + 20, ip + 36)
    };
    let ports = transport + stream.protocol.ports_offset();
    let checksum = transport + stream.protocol.checksum_offset();
    let ip_checksum = if ipv4 { ip + 10 } else { 0 };
    for field in [
        source..source + 4,
        destination..destination + 4,
        ports..ports + 4,
        checksum..checksum + 2,
    ] {
        packet[field].fill(0);
    }
    if ipv4 {
        packet[ip_checksum..ip_checksum + 2].fill(0);
    }
    // What is left of our header is its magic number.
    packet[probe + 2..probe + PROBE_BYTES].fill(0);
    fill(&mut packet, probe + PROBE_BYTES, seed);
    let mut transport_sum = sum(&packet[transport..]);
    let covers_addresses = stream.protocol.has_pseudo_header(ipv4);
    if covers_addresses {
        // Of IPv6 the addresses' prefixes above their last 32 bits are left.
        let transport_bytes = (packet.len() - transport) as u16;
        transport_sum += sum(&packet[addresses..transport]);
        transport_sum += sum(&[0, stream.protocol.number(ipv4)]) + sum(&transport_bytes.to_be_bytes());
    }
    // RFC 768: a computed zero is sent as all ones, zero means "no checksum".
    let zero_checksum = if stream.protocol == Protocol::Udp { 0xffff } else { 0 };

    // Past the end of a short packet the template goes on with filling, for the sake of longer ones in the same frame.
    let mut headers = [0; HEADERS];
    fill(&mut headers, 0, seed);
    let shared = packet.len().min(HEADERS);
    headers[..shared].copy_from_slice(&packet[..shared]);
    let mut words = Vec::with_capacity(ENTRY_WORDS);
    words.extend(headers.chunks_exact(8).map(in_memory));
    words.extend([sum(&packet[ip..transport]), transport_sum, packet.len() as u64]);
    words.extend([ip_checksum, source, destination, ports, checksum, probe].map(|at| at as u64));
    words.extend([covers_addresses.into(), zero_checksum, index as u64, stream.id.into()]);
    words.extend([&stream.source, &stream.destination].map(|net| u64::from(low_in_memory(net))));
    words.extend(Walk::new(stream, seed).words());
    let mut entry = [0; ENTRY_WORDS];
    entry.copy_from_slice(&words);
    Ok(entry)
}

/// The flows of a stream as the program walks through them, without a table: the same as those of [`crate::flow`], by the
/// same arithmetic.
#[derive(Debug)]
struct Walk {
    flows: u32,
    start: u128,
    stride: u128,
    combinations: u128,
    source_bits: u8,
    destination_bits: u8,
    source_ports: RangeInclusive<u16>,
    destination_ports: RangeInclusive<u16>,
}

impl Walk {
    fn new(stream: &Stream, seed: u64) -> Self {
        let bits = |net: &IpNet| (net.max_prefix_len() - net.prefix_len()).min(HOST_BITS_MAX);
        let mut walk = Self {
            flows: stream.flows,
            start: 0,
            stride: 0,
            combinations: 0,
            source_bits: bits(&stream.source),
            destination_bits: bits(&stream.destination),
            source_ports: stream.source_ports.clone(),
            destination_ports: stream.destination_ports.clone(),
        };
        let ports = count(&walk.source_ports) * count(&walk.destination_ports);
        walk.combinations = u128::from(ports) << (walk.source_bits + walk.destination_bits);
        let random = |n: u64| u128::from(mix(seed ^ u64::from(stream.id) << 32 ^ n)) << 64 | u128::from(mix(!seed ^ n));
        walk.start = random(0) % walk.combinations;
        walk.stride = (random(1) % walk.combinations).max(1);
        while greatest_common_divisor(walk.stride, walk.combinations) != 1 {
            walk.stride += 1;
        }
        // Only with a single combination, where it does not matter, can it have got there.
        walk.stride %= walk.combinations;
        walk
    }

    /// The end of `struct entry`, from `flows` on.
    fn words(&self) -> Vec<u64> {
        let mut words = vec![self.flows.into(), 0];
        for number in [self.start, self.start, self.stride, self.combinations] {
            words.extend([number as u64, (number >> 64) as u64]);
        }
        words.extend([self.source_bits, self.destination_bits].map(u64::from));
        words.extend([count(&self.source_ports), count(&self.destination_ports)]);
        words.extend([*self.source_ports.start(), *self.destination_ports.start()].map(u64::from));
        words
    }
}

fn count(ports: &RangeInclusive<u16>) -> u64 {
    u64::from(ports.end().saturating_sub(*ports.start())) + 1
}

fn greatest_common_divisor(mut a: u128, mut b: u128) -> u128 {
    while b != 0 {
        (a, b) = (b, a % b);
    }
    a
}

/// Whose turn it is, packet by packet, over one period: each as often as its weight says, and evenly spread.
fn slots(weights: &[f64]) -> Result<Vec<u64>, LiveError> {
    if let Some(weight) = weights.iter().find(|weight| !(weight.is_finite() && **weight > 0.0)) {
        return Err(LiveError::config("weight of a stream", weight, "a number above 0"));
    }
    let sum: f64 = weights.iter().sum();
    let shares: Vec<f64> = weights.iter().map(|weight| weight / sum).collect();
    let smallest = shares.iter().copied().fold(1.0, f64::min);
    // Periods in which the rarest stream has one, two, three turns: where weights are ratios of small numbers, one of the
    // first fits exactly.
    let periods = (1..=PERIOD_MAX)
        .map(|turns| (turns as f64 / smallest).round() as usize)
        .take_while(|&period| period <= PERIOD_MAX)
        .chain([PERIOD_MAX]);
    let mut best: Option<(f64, Vec<usize>)> = None;
    for period in periods.take(CANDIDATES_MAX) {
        let Some(turns) = apportion(&shares, period) else {
            continue;
        };
        let error = turns
            .iter()
            .zip(&shares)
            .map(|(&turns, share)| (turns as f64 / period as f64 / share - 1.0).abs())
            .fold(0.0, f64::max);
        if best.as_ref().is_none_or(|(least, _)| error < *least) {
            best = Some((error, turns));
        }
        if error <= SHARE_ERROR {
            break;
        }
    }
    match best {
        Some((error, turns)) if error <= SHARE_ERROR_MAX => Ok(interleave(&turns)),
        _ => Err(LiveError::config(
            "smallest share of the mix",
            &smallest,
            format!(
                "shares that are multiples of 1/{PERIOD_MAX} to within {} %",
                100.0 * SHARE_ERROR_MAX
            ),
        )),
    }
}

/// How many turns of a period each gets, by largest remainders; `None` if one would get none.
fn apportion(shares: &[f64], period: usize) -> Option<Vec<usize>> {
    let mut turns: Vec<usize> = shares
        .iter()
        .map(|share| (share * period as f64 + 1e-9) as usize)
        .collect();
    let left = period.checked_sub(turns.iter().sum())?;
    let mut order: Vec<usize> = (0..shares.len()).collect();
    let remainder = |i: usize| shares[i] * period as f64 - turns[i] as f64;
    order.sort_by(|&a, &b| remainder(b).total_cmp(&remainder(a)));
    for &i in order.iter().take(left) {
        turns[i] += 1;
    }
    turns.iter().all(|&turns| turns > 0).then_some(turns)
}

fn interleave(turns: &[usize]) -> Vec<u64> {
    let mut places: Vec<(f64, u64)> = turns
        .iter()
        .enumerate()
        .flat_map(|(i, &turns)| (0..turns).map(move |turn| ((turn as f64 + 0.5) / turns as f64, i as u64)))
        .collect();
    places.sort_by(|a, b| a.0.total_cmp(&b.0).then(a.1.cmp(&b.1)));
    places.into_iter().map(|(_, i)| i).collect()
}

/// Fills a packet from `from` on with bytes that depend on nothing but their place.
fn fill(packet: &mut [u8], from: usize, seed: u64) {
    for (i, byte) in packet.iter_mut().enumerate().skip(from) {
        *byte = mix(seed ^ i as u64) as u8;
    }
}

/// The sum of 16-bit words as this machine reads them from memory, the last padded with zero.
fn sum(bytes: &[u8]) -> u64 {
    let words = bytes.chunks(2);
    words
        .map(|word| u64::from(u16::from_ne_bytes([word[0], word.get(1).copied().unwrap_or(0)])))
        .sum()
}

fn in_memory(bytes: &[u8]) -> u64 {
    let mut word = [0; 8];
    word.copy_from_slice(bytes);
    u64::from_ne_bytes(word)
}

/// The last 32 bits of the first address, as they lie in a packet.
fn low_in_memory(net: &IpNet) -> u32 {
    match net.network() {
        std::net::IpAddr::V4(address) => u32::from_ne_bytes(address.octets()),
        std::net::IpAddr::V6(address) => {
            let octets = address.octets();
            u32::from_ne_bytes([octets[12], octets[13], octets[14], octets[15]])
        }
    }
}

/// `HEADERS` of `xdp/send/send.bpf.c`.
const HEADERS: usize = 104;
const ENTRY_WORDS: usize = HEADERS / 8 + 11 + 4 + 16;
/// As in [`crate::flow`]: addresses of a prefix that are used, 2^24. The program relies on 48 bits for both.
const HOST_BITS_MAX: u8 = 24;
/// A page of 4,096 bytes, less what the kernel keeps before and after a live frame, with some to spare.
const FRAME_BYTES_MAX: usize = 3_400;
/// A thousand services in four classes fit; above, the entries leave the cache, and the rarest get no turn in a period.
const PORTIONS_MAX: usize = 16_384;
/// Packets after which the order repeats: half a megabyte of map.
const PERIOD_MAX: usize = 65_536;
/// Periods that are tried: each costs a pass over the streams.
const CANDIDATES_MAX: usize = 4_096;
/// A period that is this near to all shares is good enough.
const SHARE_ERROR: f64 = 1e-4;
/// Farther away than this from one of them, none is.
const SHARE_ERROR_MAX: f64 = 0.01;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::flow::Flow;
    use crate::stream::{Vlan, tests::stream};

    fn portion(weight: f64, stream: Stream) -> Portion {
        Portion { stream, weight }
    }

    #[test]
    fn turns_follow_the_weights() {
        assert_eq!(slots(&[5.0]).unwrap(), [0]);
        assert_eq!(slots(&[1.0, 1.0]).unwrap(), [0, 1]);
        assert_eq!(slots(&[3.0, 1.0]).unwrap(), [0, 0, 1, 0]);
        assert_eq!(slots(&[0.3, 0.7]).unwrap(), [1, 0, 1, 1, 0, 1, 1, 1, 0, 1]);
        assert_eq!(slots(&[0.1; 1000]).unwrap().len(), 1000);
        // Shares that no small period has.
        let weights = [1.0, std::f64::consts::PI, 100.0 * std::f64::consts::E];
        let sum: f64 = weights.iter().sum();
        let slots = slots(&weights).unwrap();
        for (i, weight) in weights.iter().enumerate() {
            let share = slots.iter().filter(|slot| **slot == i as u64).count() as f64 / slots.len() as f64;
            assert!((share / (weight / sum) - 1.0).abs() < 2e-3, "{i}: {share}");
        }
        for bad in [0.0, -1.0, f64::NAN, f64::INFINITY] {
            assert!(super::slots(&[1.0, bad]).unwrap_err().to_string().contains("above 0"));
        }
        assert!(super::slots(&[1.0, 1e-7]).is_err());
    }

    #[test]
    fn headers_are_the_streams_and_the_rest_is_filled_by_place() {
        let tagged = Stream {
            vlans: vec![Vlan { id: 100, pcp: 5 }],
            ..stream(9, 64)
        };
        let mix = Mix::new(
            &[
                portion(1.0, stream(3, 60)),
                portion(1.0, tagged),
                portion(2.0, stream(3, 400)),
            ],
            7,
        )
        .unwrap();
        assert_eq!((mix.frame.len(), mix.streams.as_slice()), (400, [3, 9].as_slice()));
        assert_eq!(mix.slots, [2, 0, 1, 2]);
        let headers = |entry: &Entry| -> Vec<u8> {
            entry[..HEADERS / 8]
                .iter()
                .flat_map(|word| word.to_ne_bytes())
                .collect()
        };
        let tagged = headers(&mix.entries[1]);
        assert_eq!(tagged[..6], [2, 0, 0, 0, 0, 2]);
        assert_eq!(tagged[12..20], [0x81, 0, 0xa0, 100, 8, 0, 0x45, 46 << 2]);
        assert_eq!(tagged[46..48], [0x77, 0x65]);
        assert_eq!(tagged[64..], mix.frame[64..HEADERS]);
        for at in [0, 2] {
            let entry = &mix.entries[at];
            assert_eq!(headers(entry)[60..], mix.frame[60..HEADERS]);
            assert_eq!(
                [entry[HEADERS / 8 + 11], entry[HEADERS / 8 + 12]],
                [0, 3],
                "index and id"
            );
        }
    }

    /// What the program does, number by number.
    fn walk(walk: &Walk) -> Vec<Flow> {
        let next = |number: &u128| Some((number + walk.stride) % walk.combinations);
        let flow = |number: u128| {
            let ports = (number >> (walk.source_bits + walk.destination_bits)) as u64;
            let source_ports = count(&walk.source_ports);
            Flow {
                source_host: (number & ((1 << walk.source_bits) - 1)) as u32,
                destination_host: ((number >> walk.source_bits) & ((1 << walk.destination_bits) - 1)) as u32,
                source_port: walk.source_ports.start() + (ports % source_ports) as u16,
                destination_port: walk.destination_ports.start() + (ports / source_ports) as u16,
            }
        };
        let numbers = std::iter::successors(Some(walk.start), next);
        numbers.map(flow).take(walk.flows as usize).collect()
    }

    #[test]
    fn flows_are_those_of_the_other_engine() {
        let every = Stream {
            source: "192.0.2.0/30".parse().unwrap(),
            destination: "192.0.2.128/29".parse().unwrap(),
            source_ports: 7..=9,
            destination_ports: 1..=5,
            flows: 4 * 8 * 3 * 5,
            ..stream(1, 60)
        };
        let one = Stream {
            source: "192.0.2.1/32".parse().unwrap(),
            destination: "192.0.2.2/32".parse().unwrap(),
            source_ports: 7..=7,
            destination_ports: 1..=1,
            flows: 1,
            ..stream(1, 60)
        };
        let vast = Stream {
            source: "2001:db8::/32".parse().unwrap(),
            destination: "2001:db8::/32".parse().unwrap(),
            source_ports: 0..=65535,
            destination_ports: 0..=65535,
            flows: 100_000,
            ..stream(1, 80)
        };
        for stream in [every, one, vast] {
            assert_eq!(walk(&Walk::new(&stream, 5)), stream.flows(5));
        }
    }

    #[test]
    fn a_mix_of_nothing_or_of_something_else_is_refused() {
        assert!(Mix::new(&[], 0).unwrap_err().to_string().contains("0"));
        let bad = stream(1, 59);
        assert!(matches!(Mix::new(&[portion(1.0, bad)], 0), Err(LiveError::Stream(_))));
        let random = Stream {
            flow_order: FlowOrder::Random,
            ..stream(1, 60)
        };
        let error = Mix::new(&[portion(1.0, random)], 0).unwrap_err().to_string();
        assert!(error.contains("flow_order") && error.contains("af_xdp"), "{error}");
        let error = Mix::new(&[portion(1.0, stream(1, 3_500))], 0).unwrap_err().to_string();
        assert!(error.contains("3400"), "{error}");
    }
}

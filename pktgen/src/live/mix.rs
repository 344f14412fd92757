//! From streams to the maps of the sender: for each a template with its sums, the arithmetic of its flows, and the order
//! in which they take turns.

use std::collections::BTreeMap;
use std::ops::RangeInclusive;

use dataplane::clock::Nanos;
use ipnet::IpNet;

use super::error::LiveError;
use crate::flow::{Stream, mix};
use crate::frame_builder::FrameBuilder;
use crate::probe::PROBE_BYTES;

/// A stream's part in the mix.
#[derive(Clone, Debug, PartialEq)]
pub struct Portion {
    /// What its packets look like; its `rate_bps` is not looked at. Several portions may name the same stream with packets
    /// of different lengths or flows: their sequence is one.
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
        let mut entries = Vec::with_capacity(portions.len());
        for (number, portion) in portions.iter().enumerate() {
            let stream = &portion.stream;
            let index = *indices.entry(stream.id).or_insert_with(|| {
                streams.push(stream.id);
                streams.len() - 1
            });
            entries.push(entry(stream, index, mix(seed ^ number as u64), seed)?);
            longest = longest.max(usize::from(stream.frame_bytes));
        }
        let weights: Vec<f64> = portions.iter().map(|portion| portion.weight).collect();
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

fn entry(stream: &Stream, index: usize, flow_seed: u64, fill_seed: u64) -> Result<Entry, LiveError> {
    let builder = FrameBuilder::new(stream, 0)?;
    let mut packet = vec![0; builder.frame_bytes()];
    builder.write(&mut packet, 0, 0, Nanos(0));
    let layout = Layout::of(&packet).ok_or_else(|| {
        LiveError::config(
            "stream",
            &stream.id,
            "UDP over IPv4 or IPv6 with up to two VLAN tags (take the engine af_xdp for others)",
        )
    })?;
    let (source_at, destination_at, udp_at) = layout.offsets();
    for field in [source_at..source_at + 4, destination_at..destination_at + 4] {
        packet[field].fill(0);
    }
    packet[udp_at..udp_at + 4].fill(0);
    packet[udp_at + 6..udp_at + 8].fill(0);
    let probe_at = udp_at + 8;
    // What is left of the probe is its magic number.
    packet[probe_at + 2..probe_at + PROBE_BYTES].fill(0);
    fill(&mut packet, probe_at + PROBE_BYTES, fill_seed);
    if !layout.is_ipv6 {
        packet[layout.ip_at + 10..layout.ip_at + 12].fill(0);
    }
    // The addresses' prefixes above their last 32 bits, which IPv6 has, and of the pseudo header protocol and length.
    let ip_sum = sum(&packet[layout.ip_at..udp_at]);
    let addresses_at = if layout.is_ipv6 {
        layout.ip_at + 8
    } else {
        layout.ip_at + 12
    };
    let pseudo = sum(&packet[addresses_at..udp_at]) + sum(&[0, UDP]) + sum(&packet[udp_at + 4..udp_at + 6]);
    let udp_sum = pseudo + sum(&packet[udp_at..]);

    let mut headers = [0; HEADERS];
    // A shorter packet of another length may share the frame: its words end where it does, but the template goes on.
    fill(&mut headers, 0, fill_seed);
    let shared = packet.len().min(HEADERS);
    headers[..shared].copy_from_slice(&packet[..shared]);
    let mut words = Vec::with_capacity(ENTRY_WORDS);
    words.extend(headers.chunks_exact(8).map(in_memory));
    words.extend([
        ip_sum,
        udp_sum,
        packet.len() as u64,
        layout.ip_at as u64,
        layout.is_ipv6.into(),
    ]);
    words.extend([index as u64, stream.id.into()]);
    words.extend([&stream.source, &stream.destination].map(|net| u64::from(low_in_memory(net))));
    words.extend(Walk::new(stream, flow_seed).words());
    let mut entry = [0; ENTRY_WORDS];
    entry.copy_from_slice(&words);
    Ok(entry)
}

/// Where things are in a packet.
struct Layout {
    ip_at: usize,
    is_ipv6: bool,
}

impl Layout {
    /// `None` if it is not what the sender writes.
    fn of(packet: &[u8]) -> Option<Self> {
        let mut at = 12;
        for _ in 0..=2 {
            let ethertype = u16::from_be_bytes([*packet.get(at)?, *packet.get(at + 1)?]);
            let ip_at = at + 2;
            match ethertype {
                0x8100 | 0x88a8 => at += 4,
                0x0800 if packet.get(ip_at + 9) == Some(&UDP) => return Some(Self { ip_at, is_ipv6: false }),
                0x86dd if packet.get(ip_at + 6) == Some(&UDP) => return Some(Self { ip_at, is_ipv6: true }),
                _ => return None,
            }
        }
        None
    }

    /// Of the last 32 bits of the source and the destination, and of UDP.
    fn offsets(&self) -> (usize, usize, usize) {
        let ip = self.ip_at;
        if self.is_ipv6 {
            (ip + 20, ip + 36, ip + 40)
        } else {
            (ip + 12, ip + 16, ip + 20)
        }
    }
}

/// The flows of a stream as the program walks through them: combinations of addresses and ports are numbered, and flow `i`
/// is number `start + i * stride` modulo how many there are; the stride has no factor in common with that, so none comes
/// twice.
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
        let random = |n: u64| u128::from(mix(seed ^ n)) << 64 | u128::from(mix(!seed ^ n));
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
const HEADERS: usize = 88;
const ENTRY_WORDS: usize = HEADERS / 8 + 5 + 4 + 16;
/// As in [`crate::flow`]: addresses of a prefix that are used, 2^24. The program relies on 48 bits for both.
const HOST_BITS_MAX: u8 = 24;
const UDP: u8 = 17;
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
    use crate::flow::{Vlan, tests::stream};

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
            vlan: Some(Vlan { id: 100, pcp: 5 }),
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
            assert_eq!([entry[HEADERS / 8 + 5], entry[HEADERS / 8 + 6]], [0, 3], "index and id");
        }
    }

    /// What the program does, number by number.
    fn walk(walk: &Walk) -> Vec<u128> {
        let next = |number: &u128| Some((number + walk.stride) % walk.combinations);
        std::iter::successors(Some(walk.start), next)
            .take(walk.flows as usize)
            .collect()
    }

    #[test]
    fn flows_are_distinct_and_seeded() {
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
            let numbers = walk(&Walk::new(&stream, 5));
            let distinct: std::collections::HashSet<_> = numbers.iter().collect();
            assert_eq!(distinct.len(), stream.flows as usize);
            assert_eq!(numbers, walk(&Walk::new(&stream, 5)));
            assert!(stream.flows == 1 || numbers != walk(&Walk::new(&stream, 6)));
        }
    }

    #[test]
    fn a_mix_of_nothing_or_of_something_else_is_refused() {
        assert!(Mix::new(&[], 0).unwrap_err().to_string().contains("0"));
        let bad = stream(1, 59);
        assert!(matches!(Mix::new(&[portion(1.0, bad)], 0), Err(LiveError::Stream(_))));
        assert!(Layout::of(&[0; 60]).is_none());
    }
}

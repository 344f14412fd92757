//! The flows of a stream, and which of them gets the next packet.
//!
//! A flow is one combination of addresses and ports. A stream's flows are distinct, spread over the whole of its prefixes
//! and port ranges, and the same for the same seed.

use std::ops::RangeInclusive;

use ipnet::IpNet;
use rand::SeedableRng;
use rand::rngs::SmallRng;
use rand_distr::{Distribution, Zipf};

use crate::stream::{FlowOrder, Stream};

/// All flows of a stream.
#[derive(Clone, Debug)]
pub(crate) struct Flows {
    flows: Box<[Flow]>,
    order: Order,
    seed: u64,
}

#[derive(Clone, Debug)]
enum Order {
    Step,
    Random,
    Zipf(Zipf<f64>),
}

impl Flows {
    /// The flows of a valid stream.
    pub(crate) fn new(stream: &Stream, seed: u64) -> Self {
        let flows: Box<[Flow]> = stream.flows(seed).into();
        let order = match stream.flow_order {
            FlowOrder::Step => Order::Step,
            FlowOrder::Random => Order::Random,
            FlowOrder::Zipf(exponent) => Zipf::new(flows.len() as f64, exponent).map_or(Order::Random, Order::Zipf),
        };
        let seed = mix(seed ^ u64::from(stream.id));
        Self { flows, order, seed }
    }

    /// The flow of packet number `sequence`: the same whenever it is asked for.
    #[inline]
    pub(crate) fn of(&self, sequence: u64) -> Flow {
        let count = self.flows.len() as u64;
        let index = match &self.order {
            Order::Step => sequence % count,
            // The high half of a product is a fair share of the range (Lemire 2019), without a division.
            Order::Random => ((u128::from(mix(self.seed ^ sequence)) * u128::from(count)) >> 64) as u64,
            Order::Zipf(zipf) => {
                let mut random = SmallRng::seed_from_u64(self.seed ^ sequence);
                (zipf.sample(&mut random) as u64).clamp(1, count) - 1
            }
        };
        self.flows[index as usize]
    }
}

impl Stream {
    /// How many flows there could be.
    pub(crate) fn combinations(&self) -> u128 {
        self.sizes().into_iter().product()
    }

    /// How many values each field of a flow can have, in the order of [`Flow`].
    fn sizes(&self) -> [u128; 4] {
        let hosts = |net: &IpNet| 1u128 << (net.max_prefix_len() - net.prefix_len()).min(HOST_BITS_MAX);
        let ports = |range: &RangeInclusive<u16>| u128::from(range.end().saturating_sub(*range.start())) + 1;
        [
            hosts(&self.source),
            hosts(&self.destination),
            ports(&self.source_ports),
            ports(&self.destination_ports),
        ]
    }

    /// The flows, each once. The stream must be valid.
    ///
    /// The combinations are numbered, and flow `i` is number `start + i * stride` of them, modulo how many there are;
    /// the stride has no factor in common with that, so none comes twice.
    pub(crate) fn flows(&self, seed: u64) -> Vec<Flow> {
        let sizes = self.sizes();
        let combinations: u128 = sizes.into_iter().product();
        let random = |n: u64| u128::from(mix(seed ^ u64::from(self.id) << 32 ^ n)) << 64 | u128::from(mix(!seed ^ n));
        let start = random(0) % combinations;
        let mut stride = (random(1) % combinations).max(1);
        while greatest_common_divisor(stride, combinations) != 1 {
            stride += 1;
        }
        let mut number = start;
        (0..self.flows)
            .map(|_| {
                let flow = self.flow(number, sizes);
                // Both are below 2^80, so the sum cannot overflow.
                number = (number + stride) % combinations;
                flow
            })
            .collect()
    }

    fn flow(&self, mut number: u128, sizes: [u128; 4]) -> Flow {
        let mut digits = [0u32; 4];
        for (digit, size) in digits.iter_mut().zip(sizes) {
            *digit = (number % size) as u32;
            number /= size;
        }
        Flow {
            source_host: digits[0],
            destination_host: digits[1],
            source_port: self.source_ports.start() + digits[2] as u16,
            destination_port: self.destination_ports.start() + digits[3] as u16,
        }
    }
}

/// One flow: 12 bytes, so that ten million take 120 MB.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Flow {
    /// The low bits of the source address, below its prefix.
    pub(crate) source_host: u32,
    /// The low bits of the destination address.
    pub(crate) destination_host: u32,
    pub(crate) source_port: u16,
    pub(crate) destination_port: u16,
}

/// A well-spread number for each number (the finalizer of SplitMix64, Steele and others 2014): the same on every machine
/// and in every version, as no random generator of a library promises to be.
pub(crate) fn mix(n: u64) -> u64 {
    let n = n.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let n = (n ^ n >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let n = (n ^ n >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
    n ^ n >> 31
}

fn greatest_common_divisor(mut a: u128, mut b: u128) -> u128 {
    while b != 0 {
        (a, b) = (b, a % b);
    }
    a
}

/// 16 million addresses a prefix: with both ports that leaves any sum of two flow numbers below 2^81.
const HOST_BITS_MAX: u8 = 24;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::stream::tests::stream;
    use std::collections::HashSet;

    #[test]
    fn flows_are_distinct_seeded_and_can_be_all_there_are() {
        let every = Stream {
            source: "192.0.2.0/30".parse().unwrap(),
            destination: "192.0.2.128/29".parse().unwrap(),
            source_ports: 7..=9,
            destination_ports: 1..=5,
            flows: 4 * 8 * 3 * 5,
            ..stream(1, 60)
        };
        for stream in [
            every,
            Stream {
                flows: 50_000,
                ..stream(2, 60)
            },
        ] {
            stream.validate().unwrap();
            let flows = stream.flows(7);
            assert_eq!(flows.iter().collect::<HashSet<_>>().len(), stream.flows as usize);
            assert_eq!(flows, stream.flows(7));
            assert_ne!(flows, stream.flows(8));
        }
    }

    #[test]
    fn every_order_is_repeatable_and_as_it_says() {
        const PACKETS: u64 = 100_000;
        let shares = |order| {
            let stream = Stream {
                flow_order: order,
                ..stream(1, 60)
            };
            let flows = Flows::new(&stream, 3);
            let mut counts = vec![0u64; 100];
            for sequence in 0..PACKETS {
                let flow = flows.of(sequence);
                assert_eq!(flow, flows.of(sequence));
                counts[flows.flows.iter().position(|&other| other == flow).unwrap()] += 1;
            }
            counts
        };
        assert!(shares(FlowOrder::Step).iter().all(|&count| count == 1_000));
        // Binomial with a standard deviation of 31: five of them.
        assert!(
            shares(FlowOrder::Random)
                .iter()
                .all(|count| (845..=1_155).contains(count))
        );
        let zipf = shares(FlowOrder::Zipf(1.0));
        // The share of the first is 1 / (1 + 1/2 + ... + 1/100) = 0.1928, of the second half of that.
        assert!((18_600..=19_960).contains(&zipf[0]), "{}", zipf[0]);
        assert!((9_150..=10_130).contains(&zipf[1]), "{}", zipf[1]);
    }
}

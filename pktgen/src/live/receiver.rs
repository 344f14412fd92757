//! The receiver: its program, attached to an interface, and its maps. No thread: the kernel runs it where packets arrive.

use std::collections::BTreeMap;

use af_xdp::device::{self, Promiscuous};
use aya::maps::{Array, MapData, PerCpuArray};
use aya::programs::links::FdLink;
use aya::programs::{Xdp, xdp::XdpMode};
use aya::{Ebpf, EbpfLoader};

use super::error::{LOAD, LiveError};
use super::score::{Score, ScoreWords, Scores};

/// The object built from `xdp/score/score.bpf.c`; see there.
static OBJECT: &[u8] = aya::include_bytes_aligned!("../../xdp/score/score.bpf.o");

/// What to score, and where.
#[derive(Clone, Debug)]
pub struct ReceiverConfig<'a> {
    /// Name of the interface, in the calling thread's network namespace.
    pub interface: &'a str,
    /// The ids to score; at most 16,384, each of which takes 16 KiB and for each phase and CPU another 5 KiB.
    pub streams: &'a [u16],
    /// Phases told apart, a power of two from 1 to 256: a packet counts with the phase it carries modulo this.
    pub phases: u16,
    /// The latency is taken of each packet whose number is a multiple of this, a power of two. Reading the clock costs about
    /// as much as everything else the program does.
    pub latency_every: u64,
}

impl<'a> ReceiverConfig<'a> {
    /// One phase, the latency of every packet.
    #[must_use]
    pub fn new(interface: &'a str, streams: &'a [u16]) -> Self {
        Self {
            interface,
            streams,
            phases: 1,
            latency_every: 1,
        }
    }
}

/// A receiver at work. Dropping it detaches the program.
pub struct Receiver {
    _link: FdLink,
    _promiscuous: Promiscuous,
    _ebpf: Ebpf,
    is_native: bool,
    maps: Maps,
}

/// What the program writes.
struct Maps {
    streams: Vec<u16>,
    phases: u16,
    scores: PerCpuArray<MapData, ScoreWords>,
    others: PerCpuArray<MapData, [u64; 2]>,
}

impl Receiver {
    /// Attaches the program to an interface of the calling thread's network namespace: in the driver, or else in the stack.
    /// From now on packets of ours that arrive there are scored and dropped, and all others pass.
    ///
    /// System calls: bpf(2) with CAP_BPF and CAP_NET_ADMIN; a packet socket with CAP_NET_RAW keeps the interface promiscuous.
    /// It is attached by a bpf_link, so it goes with the process.
    ///
    /// # Errors
    /// Streams or phases out of range, no such interface, another program on it, missing privileges.
    pub fn attach(config: &ReceiverConfig<'_>) -> Result<Self, LiveError> {
        config.validate()?;
        let failed = |source| LiveError::interface(config.interface, source);
        let index = device::index(config.interface).map_err(failed)?;
        let promiscuous = Promiscuous::hold(index).map_err(failed)?;
        let (mut ebpf, maps) = config.load()?;
        let program = program(&mut ebpf)?;
        let attach = |error: &(dyn std::error::Error + 'static)| {
            LiveError::kernel(format!("attach XDP to {}", config.interface), error)
        };
        let (link, is_native) = match program.attach_to_if_index(index, XdpMode::Driver) {
            Ok(link) => (link, true),
            Err(_) => {
                let link = program
                    .attach_to_if_index(index, XdpMode::Skb)
                    .map_err(|error| attach(&error))?;
                (link, false)
            }
        };
        let link = program.take_link(link).map_err(|error| attach(&error))?;
        // A kernel before 5.9 attaches by netlink only, and such a program would outlive the process.
        let link = FdLink::try_from(link).map_err(|error| attach(&error))?;
        Ok(Self {
            _link: link,
            _promiscuous: promiscuous,
            _ebpf: ebpf,
            is_native,
            maps,
        })
    }

    /// Whether the program runs in the driver; otherwise in the stack, which is slower.
    #[must_use]
    pub fn is_native(&self) -> bool {
        self.is_native
    }

    /// All scores so far. Read them after the last packets have had the time to come: they are not one instant's.
    ///
    /// # Errors
    /// The kernel refuses to read a map.
    pub fn read(&self) -> Result<Scores, LiveError> {
        self.maps.read()
    }
}

impl Maps {
    fn read(&self) -> Result<Scores, LiveError> {
        let refused = |error: aya::maps::MapError| LiveError::kernel("read the scores", &error);
        let mut by_stream = BTreeMap::new();
        let mut key = 0;
        for &stream in &self.streams {
            for phase in 0..self.phases {
                let by_cpu = self.scores.get(&key, 0).map_err(refused)?;
                by_stream.insert((stream, phase as u8), Score::new(&by_cpu));
                key += 1;
            }
        }
        let others = self.others.get(&0, 0).map_err(refused)?;
        Ok(Scores {
            by_stream,
            foreign: others.iter().map(|[foreign, _]| foreign).sum(),
            unknown_stream: others.iter().map(|[_, unknown]| unknown).sum(),
        })
    }
}

impl ReceiverConfig<'_> {
    fn validate(&self) -> Result<(), LiveError> {
        if !(1..=STREAMS_MAX).contains(&self.streams.len()) {
            let allowed = format!("1 to {STREAMS_MAX} of them");
            return Err(LiveError::config("streams to score", &self.streams.len(), allowed));
        }
        let mut ids = self.streams.to_vec();
        ids.sort_unstable();
        if let Some(twice) = ids.windows(2).find(|pair| pair[0] == pair[1]) {
            return Err(LiveError::config("stream to score", &twice[0], "each id once"));
        }
        if !self.phases.is_power_of_two() || self.phases > 256 {
            return Err(LiveError::config(
                "phases",
                &self.phases,
                "a power of two from 1 to 256",
            ));
        }
        if !self.latency_every.is_power_of_two() {
            return Err(LiveError::config(
                "latency_every",
                &self.latency_every,
                "a power of two",
            ));
        }
        Ok(())
    }

    /// The program, in the kernel, and its maps.
    fn load(&self) -> Result<(Ebpf, Maps), LiveError> {
        let streams = self.streams.len() as u32;
        let mut ebpf = EbpfLoader::new()
            .override_global("phase_mask", &(u32::from(self.phases) - 1), true)
            .override_global("latency_mask", &(self.latency_every - 1), true)
            .map_max_entries("windows", streams)
            .map_max_entries("scores", streams * u32::from(self.phases))
            .load(OBJECT)
            .map_err(|error| LiveError::kernel(LOAD, &error))?;
        let mut indices: Array<_, u64> = map(&mut ebpf, "indices")?;
        for (number, &id) in (1..).zip(self.streams) {
            indices
                .set(id.into(), number, 0)
                .map_err(|error| LiveError::kernel("fill the maps of the receiver", &error))?;
        }
        let maps = Maps {
            streams: self.streams.to_vec(),
            phases: self.phases,
            scores: map(&mut ebpf, "scores")?,
            others: map(&mut ebpf, "others")?,
        };
        program(&mut ebpf)?
            .load()
            .map_err(|error| LiveError::kernel(LOAD, &error))?;
        Ok((ebpf, maps))
    }
}

fn program(ebpf: &mut Ebpf) -> Result<&mut Xdp, LiveError> {
    ebpf.program_mut("score")
        .and_then(|program| program.try_into().ok())
        .ok_or_else(|| LiveError::missing("program `score`"))
}

fn map<M: TryFrom<aya::maps::Map, Error = aya::maps::MapError>>(ebpf: &mut Ebpf, name: &str) -> Result<M, LiveError> {
    let map = ebpf.take_map(name).ok_or_else(|| LiveError::missing(name))?;
    M::try_from(map).map_err(|error| LiveError::kernel(LOAD, &error))
}

/// As many as a mix can have.
const STREAMS_MAX: usize = 16_384;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::frame_builder::FrameBuilder;
    use crate::lab::privileged;
    use crate::live::Score;
    use crate::score::Scorer;
    use crate::stream::{Protocol, Stream, tests::stream};
    use aya::programs::{TestRun, TestRunOptions};
    use dataplane::clock::Nanos;
    use rand::rngs::SmallRng;
    use rand::{Rng, RngExt, SeedableRng};

    const SEED: u64 = 77;

    fn skipped(test: &str) -> bool {
        println!("seed {SEED}");
        privileged().is_err_and(|error| {
            eprintln!("SKIPPED {test}: {error}");
            true
        })
    }

    /// The program, run on one packet after another; nothing is attached.
    struct Bench {
        ebpf: Ebpf,
        maps: Maps,
    }

    impl Bench {
        fn new(config: &ReceiverConfig<'_>) -> Self {
            let (ebpf, maps) = config.load().unwrap();
            Self { ebpf, maps }
        }

        /// Whether the packet went on to the kernel.
        fn passes(&mut self, packet: &[u8]) -> bool {
            let options = TestRunOptions {
                data_in: Some(packet),
                repeat: 1,
                ..TestRunOptions::new()
            };
            match program(&mut self.ebpf).unwrap().test_run(options).unwrap().return_value {
                1 => false,
                2 => true,
                other => panic!("XDP action {other}"),
            }
        }
    }

    /// Numbers of a stream after loss, duplication, late arrival and jumps.
    fn disturbed(random: &mut SmallRng, count: u64) -> Vec<u64> {
        let mut numbers = Vec::new();
        let mut held = Vec::new();
        let mut next = 0;
        while next < count {
            let number = next;
            next += 1;
            match random.random_range(0..100) {
                0..10 => {}
                10..15 => numbers.extend([number, number]),
                15..20 => held.push(number),
                20 => next += random.random_range(0..200_000),
                _ => numbers.push(number),
            }
            if random.random_range(0..10) == 0
                && let Some(number) = held.pop()
            {
                numbers.push(number);
                // Anywhere but between the two windows, which differ by 32 numbers.
                let back = random.random_range(0..60_000) + [0, 70_000][random.random_range(0..2)];
                numbers.extend(number.checked_sub(back));
            }
        }
        numbers
    }

    #[test]
    fn loss_reordering_and_duplicates_are_those_of_the_other_engine() {
        if skipped("loss_reordering_and_duplicates_are_those_of_the_other_engine") {
            return;
        }
        let six = Stream {
            source: "2001:db8:1::/48".parse().unwrap(),
            destination: "2001:db8:2::/48".parse().unwrap(),
            dscp: 10,
            protocol: Protocol::Tcp,
            ..stream(900, 92)
        };
        let streams = [stream(5, 60), six];
        let mut bench = Bench::new(&ReceiverConfig {
            phases: 4,
            ..ReceiverConfig::new("none", &[5, 900])
        });
        let mut other = Scorer::new(&[5, 900]);
        let mut random = SmallRng::seed_from_u64(SEED);
        let mut packets = 0;
        for stream in &streams {
            let builder = FrameBuilder::new(stream, SEED).unwrap();
            let mut packet = vec![0; builder.frame_bytes(0)];
            for (at, number) in disturbed(&mut random, 5_000_000).into_iter().enumerate().take(40_000) {
                builder.write(&mut packet, (at / 1_000 % 4) as u8, number, Nanos(u64::MAX));
                if stream.is_ipv4() && random.random_range(0..50) == 0 {
                    // Congestion experienced, checksum kept by moving the same amount out of the identification.
                    packet[15] |= 3;
                    packet[18..20].copy_from_slice(&0xfffcu16.to_be_bytes());
                }
                assert!(!bench.passes(&packet));
                other.packet(&packet, Nanos(0));
                packets += 1;
            }
        }
        let scores = bench.maps.read().unwrap();
        assert_eq!(scores.received(), packets);
        assert_eq!(
            [scores.foreign, scores.unknown_stream, other.scores().corrupted],
            [0, 0, 0]
        );
        let mut kinds = [0; 4];
        for (&(stream, phase), score) in &scores.by_stream {
            let expected = other.scores().totals(|key| (key.stream, key.phase) == (stream, phase));
            let of = |score: &Score| [score.unique, score.ip_bytes, score.congestion_marked];
            assert_eq!(
                of(score),
                [expected.unique, expected.ip_bytes, expected.congestion_marked],
                "{stream} {phase}"
            );
            assert_eq!(
                [score.reordered, score.duplicated],
                [expected.reordered, expected.duplicated]
            );
            assert_eq!(score.too_old, expected.too_old);
            assert_eq!(score.by_dscp[if stream == 5 { 46 } else { 10 }], score.unique);
            assert_eq!(score.latency.quantile(1.0), Some(Nanos(0)), "before its time");
            for (kind, count) in kinds
                .iter_mut()
                .zip([score.unique, score.reordered, score.duplicated, score.too_old])
            {
                *kind += count;
            }
        }
        assert!(
            kinds.iter().all(|&count| count > 100),
            "{kinds:?}: not every kind occurs"
        );
    }

    #[test]
    fn what_is_not_ours_goes_on_and_strangers_of_ours_are_counted() {
        if skipped("what_is_not_ours_goes_on_and_strangers_of_ours_are_counted") {
            return;
        }
        let mut bench = Bench::new(&ReceiverConfig::new("none", &[5]));
        let builder = FrameBuilder::new(&stream(6, 60), SEED).unwrap();
        let mut packet = vec![0; 60];
        builder.write(&mut packet, 0, 0, Nanos(0));
        assert!(!bench.passes(&packet));
        let change = |at: usize, byte: u8| {
            let mut packet = packet.clone();
            packet[at] = byte;
            packet
        };
        // Ethertype, options, fragment, protocol, magic number, and too short for what it says.
        let mut foreign = vec![
            change(12, 9),
            change(14, 0x46),
            change(20, 0x20),
            change(23, 6),
            change(42, 0),
        ];
        foreign.extend([14, 20, 33, 34, 42, 59].map(|bytes| packet[..bytes].to_vec()));
        let mut random = SmallRng::seed_from_u64(SEED);
        foreign.extend((0..2_000).map(|_| {
            let mut packet = change(12, 8);
            packet.truncate(random.random_range(14..=60));
            let at = random.random_range(12..packet.len());
            random.fill_bytes(&mut packet[at..]);
            packet[13] = [0, 0xdd, 1][random.random_range(0..3)];
            packet[12] = [8, 0x86, 0x81, 0x88][random.random_range(0..4)];
            packet
        }));
        let passed = foreign.iter().filter(|packet| bench.passes(packet)).count() as u64;
        let scores = bench.maps.read().unwrap();
        assert!(passed >= 11 && scores.foreign == passed);
        assert_eq!(scores.unknown_stream, 1 + foreign.len() as u64 - passed);
        assert_eq!(scores.received(), 1 + foreign.len() as u64);
    }
}

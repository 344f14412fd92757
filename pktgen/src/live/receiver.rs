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
        let mut ebpf = config.load()?;
        let mut indices: Array<_, u64> = map(&mut ebpf, "indices")?;
        for (number, &id) in (1..).zip(config.streams) {
            indices
                .set(id.into(), number, 0)
                .map_err(|error| LiveError::kernel("fill the maps of the receiver", &error))?;
        }
        let scores = map(&mut ebpf, "scores")?;
        let others = map(&mut ebpf, "others")?;
        let program: &mut Xdp = ebpf
            .program_mut("score")
            .and_then(|program| program.try_into().ok())
            .ok_or_else(|| LiveError::missing("program `score`"))?;
        program.load().map_err(|error| LiveError::kernel(LOAD, &error))?;
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
            streams: config.streams.to_vec(),
            phases: config.phases,
            scores,
            others,
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

    fn load(&self) -> Result<Ebpf, LiveError> {
        let streams = self.streams.len() as u32;
        EbpfLoader::new()
            .override_global("phase_mask", &(u32::from(self.phases) - 1), true)
            .override_global("latency_mask", &(self.latency_every - 1), true)
            .map_max_entries("windows", streams)
            .map_max_entries("scores", streams * u32::from(self.phases))
            .load(OBJECT)
            .map_err(|error| LiveError::kernel(LOAD, &error))
    }
}

fn map<M: TryFrom<aya::maps::Map, Error = aya::maps::MapError>>(ebpf: &mut Ebpf, name: &str) -> Result<M, LiveError> {
    let map = ebpf.take_map(name).ok_or_else(|| LiveError::missing(name))?;
    M::try_from(map).map_err(|error| LiveError::kernel(LOAD, &error))
}

/// As many as a mix can have.
const STREAMS_MAX: usize = 16_384;

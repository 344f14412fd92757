//! The sender: its program, the thread that runs it inside the kernel, and what it has sent.
//!
//! The schedule is kept by the program, frame by frame, because one call of BPF_PROG_TEST_RUN takes some 20 ms to set up
//! and tear down: a frame that comes before the next packet is due is dropped again at once, one that comes after becomes
//! that packet, stamped with the instant at which it was *due*. A sender that falls behind sends at full speed until it has
//! caught up and says how late it was ([`Sent::lag_max`], [`Sent::lags`]). The grain is a batch of 16 frames, which leave
//! together: a few microseconds at most. A trial of some seconds at a load is that many packets ([`SenderConfig::packets`]);
//! it is a good one if [`Sender::wait`] saw them all made in time and the lag stayed small. The thread keeps its core busy for as long as it lives.

use std::collections::BTreeMap;
use std::os::unix::thread::JoinHandleExt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use af_xdp::device;
use aya::maps::{Array, MapData};
use aya::programs::{ProgramError, TestRun, TestRunAttrs, TestRunOptions, Xdp};
use aya::{Ebpf, EbpfLoader};
use dataplane::clock::Nanos;
use nix::errno::Errno;
use nix::sched::{CpuSet, sched_setaffinity};
use nix::sys::pthread::pthread_kill;
use nix::sys::signal::Signal;
use nix::unistd::Pid;
use signal_hook::SigId;

use super::error::{LOAD, LiveError, RUN};
use super::mix::{Entry, Mix, Portion};
use super::refused::{self, Refused};

/// The object built from `xdp/send/send.bpf.c`; see there.
static OBJECT: &[u8] = aya::include_bytes_aligned!("../../xdp/send/send.bpf.o");

/// How many packets in what time.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Load {
    /// As many as one core can. A packet is stamped when it is made, to within 16 packets, and leaves with its batch of 64:
    /// latencies below the time that 64 packets take say nothing.
    Max,
    /// Packets per second of the whole mix, from 1 to 10^9.
    PacketsPerSecond(f64),
}

/// What to send, and where.
#[derive(Clone, Debug)]
pub struct SenderConfig<'a> {
    /// Name of the interface, in the calling thread's network namespace.
    pub interface: &'a str,
    /// The core it runs on; `None`: where the kernel likes.
    pub cpu: Option<usize>,
    /// The mix.
    pub portions: &'a [Portion],
    /// The load.
    pub load: Load,
    /// Packets to make, and then no more; `None`: until it is stopped.
    pub packets: Option<u64>,
    /// CLOCK_MONOTONIC when the first packet is due; `None`: at once. An instant that is over is caught up with at full speed.
    /// Not with [`Load::Max`].
    pub start: Option<Nanos>,
    /// Travels with each packet.
    pub phase: u8,
    /// From which flows and filling are derived.
    pub seed: u64,
    /// What was sent before, after which the numbers of the streams go on; `None`: from 0. A receiver that stays needs this.
    pub after: Option<&'a Sent>,
}

/// What a sender has made. All counters only grow.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Sent {
    /// Packets of all streams.
    pub packets: u64,
    /// Those of them that the interface did not take: its ring was full, or it takes no redirected packets. They never were
    /// on the wire, and their numbers are missing on arrival. `None`: the kernel has no BTF by which to count them.
    pub refused: Option<u64>,
    /// By stream id.
    pub by_stream: BTreeMap<u16, StreamSent>,
    /// The longest time by which a packet was made after it was due. 0 with [`Load::Max`], which has no schedule.
    pub lag_max: Nanos,
    /// Packets by how late they were made: entry `b` from 2^(b-1) ns to below 2^b, entry 0 on the nanosecond, the last one
    /// (2^38 ns, over four minutes) everything above. Empty with [`Load::Max`].
    pub lags: Vec<u64>,
}

/// The numbers of one stream's packets: from `first`, and below `next`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct StreamSent {
    /// The first number, if any packet was sent.
    pub first: u64,
    /// One more than the last number.
    pub next: u64,
}

impl StreamSent {
    /// How many there are.
    #[must_use]
    pub fn packets(&self) -> u64 {
        self.next - self.first
    }
}

/// A sender at work. Dropping it stops it.
pub struct Sender {
    thread: Option<JoinHandle<Result<(), LiveError>>>,
    stop: Arc<AtomicBool>,
    maps: Maps,
    refused: Option<Refused>,
    packets_max: Option<u64>,
    handler: SigId,
}

/// What the program writes and this reads.
struct Maps {
    states: Array<MapData, [u64; STATE_WORDS]>,
    sequences: Array<MapData, u64>,
    /// Id and first number of each stream, in the order of `sequences`.
    streams: Vec<(u16, u64)>,
}

impl Sender {
    /// Starts to send, in the calling thread's network namespace.
    ///
    /// System calls: bpf(2) with CAP_BPF and CAP_NET_ADMIN. Handles SIGUSR1, by which the thread is told to stop, from now on.
    ///
    /// # Errors
    /// A stream or load that cannot be, no such interface or one that is down, packets over its MTU, a core that is not
    /// there, a kernel without live frames, missing privileges.
    pub fn start(config: &SenderConfig<'_>) -> Result<Self, LiveError> {
        let mix = Mix::new(config.portions, config.seed)?;
        let interface_index = check_interface(config.interface, mix.frame.len())?;
        let interval = interval(config.load)?;
        if config.start.is_some() && config.load == Load::Max {
            return Err(LiveError::config("start", &"an instant", "none with the load `max`"));
        }
        let mut ebpf = load(config, &mix, interface_index, interval)?;
        let maps = Maps::fill(&mut ebpf, config, &mix)?;
        // The handler does nothing: a signal that is handled interrupts the system call and nothing else.
        let handler = signal_hook::flag::register(signal_hook::consts::SIGUSR1, Arc::default())
            .map_err(|error| LiveError::kernel("handle SIGUSR1", &error))?;
        let stop = Arc::new(AtomicBool::new(false));
        let told = Arc::clone(&stop);
        let cpu = config.cpu;
        let batch = if interval == 0 { BATCH } else { PACED_BATCH };
        let name = refused::thread_name();
        let refused = Refused::attach(&name).ok();
        let thread = thread::Builder::new()
            .name(name)
            .spawn(move || {
                cpu.map_or(Ok(()), pin)?;
                run(&mut ebpf, &mix.frame, batch, &told)
            })
            .map_err(|error| LiveError::kernel("start the thread of the sender", &error))?;
        let mut sender = Self {
            thread: Some(thread),
            stop,
            maps,
            refused,
            packets_max: config.packets,
            handler,
        };
        sender.wait_until_running()?;
        Ok(sender)
    }

    /// What has been sent so far. Of different streams, not all at the same instant.
    ///
    /// # Errors
    /// The kernel refuses to read a map.
    pub fn sent(&self) -> Result<Sent, LiveError> {
        Ok(Sent {
            refused: self.refused.as_ref().map(Refused::read).transpose()?,
            ..self.maps.read()?
        })
    }

    /// Waits until all of [`SenderConfig::packets`] are made, at most `timeout`; says whether they are.
    ///
    /// # Errors
    /// The kernel refuses to read a map, or the sender has failed.
    pub fn wait(&mut self, timeout: Duration) -> Result<bool, LiveError> {
        let until = Instant::now() + timeout;
        loop {
            if self
                .packets_max
                .is_some_and(|max| self.sent().is_ok_and(|sent| sent.packets >= max))
            {
                return Ok(true);
            }
            if self.thread.as_ref().is_some_and(JoinHandle::is_finished) {
                self.join()?;
            }
            if Instant::now() >= until {
                return Ok(false);
            }
            thread::sleep(POLL);
        }
    }

    /// Ends it; returns what it has sent.
    ///
    /// # Errors
    /// What went wrong while it ran.
    pub fn stop(mut self) -> Result<Sent, LiveError> {
        self.join()?;
        self.sent()
    }

    fn join(&mut self) -> Result<(), LiveError> {
        let Some(thread) = self.thread.take() else {
            return Ok(());
        };
        self.stop.store(true, Ordering::Release);
        // A signal that comes before the thread is in the system call is lost: repeat it.
        while !thread.is_finished() {
            pthread_kill(thread.as_pthread_t(), Signal::SIGUSR1)
                .map_err(|errno| LiveError::kernel("stop the sender", &std::io::Error::from(errno)))?;
            thread::sleep(POLL);
        }
        thread
            .join()
            .unwrap_or_else(|payload| std::panic::resume_unwind(payload))
    }

    /// Until the program has run once, or its thread has failed.
    fn wait_until_running(&mut self) -> Result<(), LiveError> {
        let until = Instant::now() + START_WITHIN;
        while self.maps.state()?[NOW] == 0 {
            let finished = self.thread.as_ref().is_some_and(JoinHandle::is_finished);
            if finished || Instant::now() >= until {
                self.join()?;
                return Err(LiveError::kernel(RUN, &std::io::Error::from(Errno::ETIMEDOUT)));
            }
            thread::sleep(POLL);
        }
        Ok(())
    }
}

impl Drop for Sender {
    fn drop(&mut self) {
        // Whoever wants to know calls `stop`.
        let _ended = self.join();
        // The library keeps the signal for the life of the process, so one that is still on its way harms nobody.
        let _was_there = signal_hook::low_level::unregister(self.handler);
    }
}

impl Maps {
    fn fill(ebpf: &mut Ebpf, config: &SenderConfig<'_>, mix: &Mix) -> Result<Self, LiveError> {
        let mut entries = array::<Entry>(ebpf, "entries")?;
        let mut slots = array::<u64>(ebpf, "slots")?;
        let mut sequences = array::<u64>(ebpf, "sequences")?;
        let mut states = array::<[u64; STATE_WORDS]>(ebpf, "states")?;
        let refused = |error: aya::maps::MapError| LiveError::kernel("fill the maps of the sender", &error);
        for (key, entry) in (0..).zip(&mix.entries) {
            entries.set(key, entry, 0).map_err(refused)?;
        }
        for (key, slot) in (0..).zip(&mix.slots) {
            slots.set(key, slot, 0).map_err(refused)?;
        }
        let first = |id: &u16| {
            config
                .after
                .and_then(|sent| sent.by_stream.get(id))
                .map_or(0, |stream| stream.next)
        };
        let streams: Vec<(u16, u64)> = mix.streams.iter().map(|id| (*id, first(id))).collect();
        for (key, (_, first)) in (0..).zip(&streams) {
            sequences.set(key, first, 0).map_err(refused)?;
        }
        let mut state = [0; STATE_WORDS];
        state[DUE] = config.start.map_or(0, |start| start.0);
        states.set(0, state, 0).map_err(refused)?;
        Ok(Self {
            states,
            sequences,
            streams,
        })
    }

    fn state(&self) -> Result<[u64; STATE_WORDS], LiveError> {
        self.states.get(&0, 0).map_err(|error| LiveError::kernel(READ, &error))
    }

    fn read(&self) -> Result<Sent, LiveError> {
        let state = self.state()?;
        let mut by_stream = BTreeMap::new();
        for (key, &(id, first)) in (0..).zip(&self.streams) {
            let next = self
                .sequences
                .get(&key, 0)
                .map_err(|error| LiveError::kernel(READ, &error))?;
            by_stream.insert(id, StreamSent { first, next });
        }
        let is_paced = state[DUE] != 0;
        Ok(Sent {
            packets: state[SENT],
            refused: None,
            by_stream,
            lag_max: Nanos(state[LAG_MAX]),
            lags: if is_paced { state[LAGS..].to_vec() } else { Vec::new() },
        })
    }
}

fn load(config: &SenderConfig<'_>, mix: &Mix, interface_index: u32, interval: u64) -> Result<Ebpf, LiveError> {
    let slot_count = mix.slots.len() as u32;
    let frame_bytes = mix.frame.len() as u32;
    let phase = u64::from(config.phase);
    let packets_max = config.packets.unwrap_or(u64::MAX);
    let mut ebpf = EbpfLoader::new()
        .override_global("interface_index", &interface_index, true)
        .override_global("slot_count", &slot_count, true)
        .override_global("frame_bytes", &frame_bytes, true)
        .override_global("phase", &phase, true)
        .override_global("packets_max", &packets_max, true)
        .override_global("interval", &interval, true)
        .map_max_entries("entries", mix.entries.len() as u32)
        .map_max_entries("slots", slot_count)
        .map_max_entries("sequences", mix.streams.len() as u32)
        .load(OBJECT)
        .map_err(|error| LiveError::kernel(LOAD, &error))?;
    program(&mut ebpf)?
        .load()
        .map_err(|error| LiveError::kernel(LOAD, &error))?;
    Ok(ebpf)
}

fn run(ebpf: &mut Ebpf, frame: &[u8], batch: u32, stop: &AtomicBool) -> Result<(), LiveError> {
    let program = program(ebpf)?;
    while !stop.load(Ordering::Acquire) {
        let options = TestRunOptions {
            data_in: Some(frame),
            repeat: FRAMES,
            attrs: TestRunAttrs::new().xdp_live_frames(batch),
            ..TestRunOptions::new()
        };
        match program.test_run(options) {
            Err(ProgramError::SyscallError(error)) if error.io_error.raw_os_error() == Some(Errno::EINTR as i32) => {}
            Err(error) => return Err(LiveError::kernel(RUN, &error)),
            Ok(_) => {}
        }
    }
    Ok(())
}

fn program(ebpf: &mut Ebpf) -> Result<&mut Xdp, LiveError> {
    ebpf.program_mut("send")
        .and_then(|program| program.try_into().ok())
        .ok_or_else(|| LiveError::missing("program `send`"))
}

fn array<V: aya::Pod>(ebpf: &mut Ebpf, name: &str) -> Result<Array<MapData, V>, LiveError> {
    let map = ebpf.take_map(name).ok_or_else(|| LiveError::missing(name))?;
    Array::try_from(map).map_err(|error| LiveError::kernel(LOAD, &error))
}

fn pin(cpu: usize) -> Result<(), LiveError> {
    let mut set = CpuSet::new();
    set.set(cpu)
        .and_then(|()| sched_setaffinity(Pid::from_raw(0), &set))
        .map_err(|_| LiveError::config("cpu", &cpu, "a core that is there and that this process may use"))
}

/// The index of an interface that can take such packets.
fn check_interface(interface: &str, longest: usize) -> Result<u32, LiveError> {
    let failed = |source| LiveError::interface(interface, source);
    let index = device::index(interface).map_err(failed)?;
    if !device::is_up(interface).map_err(failed)? {
        let allowed = format!("one that is up (ip link set {interface} up)");
        return Err(LiveError::config("interface", &interface, allowed));
    }
    // What the kernel lets through: a header and a tag beyond the MTU.
    let most = device::mtu(interface).map_err(failed)? as usize + 18;
    if longest > most {
        let allowed = format!("up to {most} on {interface} (without FCS; ip link set {interface} mtu N)");
        return Err(LiveError::config("frame_bytes", &longest, allowed));
    }
    Ok(index)
}

/// From one packet to the next, in ns << 32; 0 for no pause.
fn interval(load: Load) -> Result<u64, LiveError> {
    match load {
        Load::Max => Ok(0),
        Load::PacketsPerSecond(rate) if (1.0..=1e9).contains(&rate) => Ok((1e9 / rate * 2f64.powi(32)).round() as u64),
        Load::PacketsPerSecond(rate) => Err(LiveError::config("packets per second", &rate, "1 to 10^9, or `max`")),
    }
}

const READ: &str = "read the counters of the sender";

/// Words of `struct state` in `xdp/send/send.bpf.c`.
const STATE_WORDS: usize = 6 + 40;
const SENT: usize = 0;
const NOW: usize = 2;
const DUE: usize = 3;
const LAG_MAX: usize = 5;
const LAGS: usize = 6;

/// Frames that the kernel makes and sends together at full speed: what a driver's poll takes.
const BATCH: u32 = 64;
/// The same on a schedule: a packet waits for the rest of its batch.
const PACED_BATCH: u32 = 16;
/// Frames of one run, skipped ones included: a minute of them, and half of what the kernel can count to.
const FRAMES: u32 = 1 << 31;
/// Between two looks at something that takes milliseconds.
const POLL: Duration = Duration::from_millis(1);
/// Setting up takes 20 ms, and a busy machine a hundred times that.
const START_WITHIN: Duration = Duration::from_secs(10);

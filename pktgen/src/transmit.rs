//! The transmitter: streams out of one queue of one interface, each packet as near to its instant as the machine allows.
//!
//! One thread owns it. Another one changes rates and reads counters through a [`Remote`]. Needs CAP_NET_RAW, in the
//! interface's network namespace.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc::{self, Sender};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::Duration;

use af_xdp::{Frame, Kick, Socket, SocketConfig, Umem, UmemConfig, device};
use dataplane::clock::{Clock, Nanos};
use hdrhistogram::Histogram;

use crate::frame_builder::FrameBuilder;
use crate::pace::{Paced, Pacer};
use crate::rota::Rota;
use crate::score::empty_histogram;
use crate::stream::{Stream, StreamError};
use crate::timeline::{Packets, Running, Timed};

/// Why a transmitter could not be set up.
#[derive(Debug, thiserror::Error)]
pub enum TransmitError {
    /// The interface or its socket.
    #[error("{interface}: {source}{}", source.remedy().map(|remedy| format!(" ({remedy})")).unwrap_or_default())]
    Socket {
        /// The interface.
        interface: String,
        /// What failed.
        source: af_xdp::Error,
    },
    /// A stream that cannot be made.
    #[error(transparent)]
    Stream(#[from] StreamError),
}

/// Sends the packets of several streams.
pub struct Transmitter<C> {
    socket: Socket,
    umem: Umem,
    pool: Vec<Frame>,
    builders: Vec<FrameBuilder>,
    sequences: Vec<u64>,
    pacer: Pacer,
    /// Who is next where nobody waits; `None` while the pacer says it.
    rota: Option<Rota>,
    /// Packets at instants of their own, while there are such.
    timeline: Option<Running>,
    /// Packets of timelines that were never sent, by stream.
    timeline_skipped: Vec<u64>,
    lateness: Histogram<u64>,
    phase: u8,
    commands: mpsc::Receiver<Command>,
    pending: VecDeque<Command>,
    shared: Arc<Shared>,
    clock: C,
}

/// Changes a transmitter's rates and reads its counters from another thread.
#[derive(Clone, Debug)]
pub struct Remote {
    commands: Sender<Command>,
    shared: Arc<Shared>,
}

/// What was sent of one stream, since the start. Counters only grow.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Sent {
    /// Packets given to the kernel.
    pub packets: u64,
    /// Their bytes from the IP header on.
    pub ip_bytes: u64,
    /// Packets that were due but never made, because the transmitter was late by more than
    /// [`CATCH_UP_MAX`](crate::pace::CATCH_UP_MAX).
    pub skipped: u64,
}

/// A time of constant rates.
#[derive(Clone, Debug, PartialEq)]
pub struct Phase {
    /// Counts from 0; packets carry the low eight bits.
    pub number: u64,
    /// Its first instant.
    pub from: Nanos,
    /// Packets sent in it so far, by index of the stream.
    pub sent: Vec<u64>,
    /// Nanoseconds from the instant a packet was due to the instant its frame was written, of a phase that is over; see
    /// [`crate::score::LATENCY_MAX`] for its range. `None` where packets were not due at any instant ([`Load::Max`], silence).
    pub lateness: Option<Histogram<u64>>,
}

/// How fast streams are to be sent.
pub enum Load {
    /// Bits of IP packets per second for each stream, by index; streams past the end of the list keep theirs.
    Rates(Vec<u64>),
    /// As fast as it goes, packets of the streams in these proportions, by index. A packet is due when it is written.
    Max(Vec<u32>),
    /// Packets at instants of their own, counted from the beginning of the phase.
    Timeline(Packets),
}

struct Command {
    at: Nanos,
    load: Load,
}

#[derive(Debug)]
struct Shared {
    streams: Vec<Counters>,
    dropped_by_device: AtomicU64,
    /// Packets counted as sent that the kernel has not taken from the ring yet.
    waiting: AtomicU64,
    phases: Mutex<Vec<Begun>>,
}

impl Shared {
    fn new(streams: usize, start: Nanos) -> Self {
        let counters = |_| Counters {
            ip_bytes: AtomicU64::new(0),
            packets: AtomicU64::new(0),
            skipped: AtomicU64::new(0),
        };
        Self {
            streams: (0..streams).map(counters).collect(),
            dropped_by_device: AtomicU64::new(0),
            waiting: AtomicU64::new(0),
            phases: Mutex::new(vec![Begun {
                from: start,
                first: vec![0; streams],
                lateness: None,
            }]),
        }
    }
}

/// A phase, as it began.
#[derive(Debug)]
struct Begun {
    from: Nanos,
    /// The sequence each stream was at.
    first: Vec<u64>,
    /// Filled in at its end.
    lateness: Option<Histogram<u64>>,
}

#[derive(Debug)]
struct Counters {
    ip_bytes: AtomicU64,
    packets: AtomicU64,
    skipped: AtomicU64,
}

impl Remote {
    /// Begins a new phase at `at`. Packets due before still go by the old rates and count for the old phase. Changes must
    /// be given in the order of their times. False if the transmitter is gone.
    pub fn change(&self, at: Nanos, load: Load) -> bool {
        self.commands.send(Command { at, load }).is_ok()
    }

    /// [`change`](Self::change) to rates in bits of IP packets per second.
    pub fn change_rates(&self, at: Nanos, rates_bps: &[u64]) -> bool {
        self.change(at, Load::Rates(rates_bps.to_vec()))
    }

    /// What was sent, by index of the stream.
    #[must_use]
    pub fn sent(&self) -> Vec<Sent> {
        let of = |counters: &Counters| {
            let packets = counters.packets.load(Ordering::Acquire);
            Sent {
                packets,
                ip_bytes: counters.ip_bytes.load(Ordering::Relaxed),
                skipped: counters.skipped.load(Ordering::Relaxed),
            }
        };
        self.shared.streams.iter().map(of).collect()
    }

    /// How many phases have begun.
    #[must_use]
    pub fn phases_begun(&self) -> u64 {
        self.shared.phases.lock().unwrap_or_else(PoisonError::into_inner).len() as u64
    }

    /// The last phase that is over, with its lateness, which is given away; `None` while the first is on.
    #[must_use]
    pub fn take_ended(&self) -> Option<Phase> {
        let mut phases = self.shared.phases.lock().unwrap_or_else(PoisonError::into_inner);
        let count = phases.len();
        let [.., ended, next] = &mut phases[..] else {
            return None;
        };
        Some(Phase {
            number: count as u64 - 2,
            from: ended.from,
            sent: next
                .first
                .iter()
                .zip(&ended.first)
                .map(|(end, first)| end.saturating_sub(*first))
                .collect(),
            lateness: ended.lateness.take(),
        })
    }

    /// All phases begun so far. Those before the last are complete and do not change any more.
    #[must_use]
    pub fn phases(&self) -> Vec<Phase> {
        let phases = self.shared.phases.lock().unwrap_or_else(PoisonError::into_inner);
        let now: Vec<u64> = self.sent().iter().map(|sent| sent.packets).collect();
        let ends = phases.iter().skip(1).map(|phase| &phase.first).chain([&now]);
        let with_ends = phases.iter().zip(ends).enumerate();
        with_ends
            .map(|(number, (begun, end))| Phase {
                number: number as u64,
                from: begun.from,
                sent: end
                    .iter()
                    .zip(&begun.first)
                    .map(|(end, first)| end.saturating_sub(*first))
                    .collect(),
                lateness: begun.lateness.clone(),
            })
            .collect()
    }

    /// Packets counted as sent that the kernel has not taken yet: with the link down it never does.
    #[must_use]
    pub fn waiting(&self) -> u64 {
        self.shared.waiting.load(Ordering::Relaxed)
    }

    /// Packets counted as sent that the device refused (EBUSY): lost before the wire.
    #[must_use]
    pub fn dropped_by_device(&self) -> u64 {
        self.shared.dropped_by_device.load(Ordering::Relaxed)
    }
}

impl<C: Clock> Transmitter<C> {
    /// Binds a socket to `queue` of the interface in the calling thread's namespace, and prepares all packets. The first
    /// phase begins at `start`; the clock must be the one that receivers measure with.
    ///
    /// # Errors
    /// No such interface or queue, missing privileges, a stream out of range.
    pub fn new(
        interface: &str,
        queue: u32,
        streams: &[Stream],
        seed: u64,
        start: Nanos,
        clock: C,
    ) -> Result<(Self, Remote), TransmitError> {
        let failed = |source| TransmitError::Socket {
            interface: interface.to_owned(),
            source,
        };
        let builders = streams
            .iter()
            .map(|stream| FrameBuilder::new(stream, seed))
            .collect::<Result<Vec<_>, _>>()?;
        let paced = |stream: &Stream| {
            let (bytes, of_packets) = stream.ip_bytes_of_a_turn();
            Paced {
                bytes,
                of_packets,
                rate_bps: stream.rate_bps,
            }
        };
        let paced: Vec<Paced> = streams.iter().map(paced).collect();
        let longest = streams.iter().flat_map(|stream| &stream.frame_bytes).max();
        let umem_config = UmemConfig {
            frame_count: 2 * TX_RING,
            frame_size: if longest.is_none_or(|&bytes| bytes <= SMALL_FRAME_BYTES_MAX) {
                2048
            } else {
                4096
            },
            ..UmemConfig::default()
        };
        let (umem, pool) = Umem::new(&umem_config).map_err(failed)?;
        let config = SocketConfig {
            // Nothing is received.
            rx_size: 64,
            fill_size: 64,
            tx_size: TX_RING,
            tx_budget: Some(TX_RING),
            ..SocketConfig::default()
        };
        let index = device::index(interface).map_err(failed)?;
        let socket = Socket::bind(&umem, index, queue, &config, &mut Vec::new()).map_err(failed)?;
        let shared = Arc::new(Shared::new(streams.len(), start));
        let (sender, commands) = mpsc::channel();
        let remote = Remote {
            commands: sender,
            shared: Arc::clone(&shared),
        };
        let transmitter = Self {
            socket,
            umem,
            pool,
            sequences: vec![0; builders.len()],
            pacer: Pacer::new(&paced, start, seed),
            rota: None,
            timeline: None,
            timeline_skipped: vec![0; streams.len()],
            lateness: empty_histogram(),
            builders,
            phase: 0,
            commands,
            pending: VecDeque::new(),
            shared,
            clock,
        };
        Ok((transmitter, remote))
    }

    /// Sends until `end` (exclusive: packets due then are not sent any more) or until `stop` is set, then waits until
    /// the device has let go of all packets, 100 ms at most.
    pub fn run(&mut self, end: Nanos, stop: &AtomicBool) {
        loop {
            let now = self.clock.now();
            let limit = self.turn(now, end);
            if stop.load(Ordering::Acquire)
                || (now >= end
                    && (self.rota.is_some()
                        || earlier(self.pacer.next_due(), self.timeline.as_mut()).is_none_or(|due| due >= end)))
            {
                break;
            }
            let idle = self.idle(now, limit);
            if idle.0 > 0 {
                thread::sleep(Duration::from_nanos(idle.0));
            }
        }
        self.finish();
    }

    /// For a thread that does more than sending: what [`run`](Self::run) does between two sleeps. Returns for how long there is
    /// nothing to do.
    pub fn step(&mut self) -> Nanos {
        let now = self.clock.now();
        let limit = self.turn(now, Nanos(u64::MAX));
        self.idle(now, limit)
    }

    /// Waits until the device has let go of all packets, 100 ms at most.
    pub fn finish(&mut self) {
        self.publish_skipped();
        let deadline = self.clock.now().plus(Nanos(100_000_000));
        while self.socket.frames_in_tx() > 0 && self.clock.now() < deadline {
            self.kick();
            self.socket.complete(&mut self.pool);
            thread::yield_now();
        }
    }

    /// Sends what is due at `now`, one batch at most, before the next change of rates and before `end`. Returns the
    /// nearer of the two.
    fn turn(&mut self, now: Nanos, end: Nanos) -> Nanos {
        self.socket.complete(&mut self.pool);
        self.pending.extend(self.commands.try_iter());
        while let Some(change) = self.pending.front()
            && change.at <= now
            && earlier(self.pacer.next_due(), self.timeline.as_mut()).is_none_or(|due| due >= change.at)
        {
            if let Some(change) = self.pending.pop_front() {
                self.begin_phase(change);
            }
        }
        let limit = self.pending.front().map_or(end, |change| change.at.min(end));
        let room = self.socket.tx_room().min(BATCH);
        match self.rota.take() {
            Some(mut rota) if now < limit => {
                self.send_rota(&mut rota, room, now);
                self.rota = Some(rota);
            }
            rota => {
                self.rota = rota;
                let until = Nanos(now.0.min(limit.0.saturating_sub(1)));
                match self.timeline.take() {
                    Some(mut timeline) => {
                        self.send_timeline(&mut timeline, room, now, until);
                        self.timeline = Some(timeline);
                    }
                    None => self.send_due(room, now, until),
                }
            }
        }
        self.socket.submit_tx();
        self.kick();
        limit
    }

    /// Sends what the pacer says is due at `until`, which is `now` or earlier.
    fn send_due(&mut self, room: usize, now: Nanos, until: Nanos) {
        for _ in 0..room {
            let Some(frame) = self.pool.pop() else { return };
            let Some((stream, intended)) = self.pacer.next(until) else {
                self.pool.push(frame);
                return;
            };
            self.lateness.saturating_record(now.since(intended).0.max(1));
            self.push(frame, stream, None, intended);
        }
    }

    /// The same of a timeline.
    fn send_timeline(&mut self, timeline: &mut Running, room: usize, now: Nanos, until: Nanos) {
        for _ in 0..room {
            let Some(frame) = self.pool.pop() else { return };
            let skipped = &mut self.timeline_skipped;
            let Some((timed, intended)) = timeline.next(until, |stream| skipped[stream] += 1) else {
                self.pool.push(frame);
                return;
            };
            self.lateness.saturating_record(now.since(intended).0.max(1));
            self.push(frame, timed.stream, Some(timed), intended);
        }
    }

    /// Sends as much as there is room for.
    fn send_rota(&mut self, rota: &mut Rota, room: usize, now: Nanos) {
        for _ in 0..room {
            let Some(frame) = self.pool.pop() else { return };
            let stream = rota.next();
            self.push(frame, stream, None, now);
        }
    }

    #[inline]
    fn push(&mut self, mut frame: Frame, stream: usize, timed: Option<Timed>, intended: Nanos) {
        let builder = &self.builders[stream];
        let sequence = self.sequences[stream];
        let own_bytes = timed.and_then(|timed| timed.frame_bytes).map(usize::from);
        let frame_bytes = own_bytes.unwrap_or_else(|| builder.frame_bytes(sequence));
        let flow = timed.and_then(|timed| timed.flow).unwrap_or(sequence);
        self.umem.reset(&mut frame);
        // A frame takes any size that a valid stream has; a timeline's larger ones are cut.
        let frame_bytes = frame_bytes.min(self.umem.capacity(&frame));
        let fits = self.umem.set_len(&mut frame, frame_bytes);
        debug_assert!(fits);
        let bytes = self.umem.bytes_mut(&mut frame);
        builder.write_of_flow(bytes, self.phase, sequence, flow, intended);
        match self.socket.push_tx(frame) {
            Ok(()) => {
                self.sequences[stream] += 1;
                let counters = &self.shared.streams[stream];
                let ip_bytes = counters.ip_bytes.load(Ordering::Relaxed) + builder.ip_bytes(frame_bytes) as u64;
                counters.ip_bytes.store(ip_bytes, Ordering::Relaxed);
                counters.packets.store(self.sequences[stream], Ordering::Release);
            }
            Err(frame) => self.pool.push(frame),
        }
    }

    fn begin_phase(&mut self, change: Command) {
        self.timeline = None;
        match change.load {
            Load::Rates(rates_bps) => {
                self.rota = None;
                for (stream, rate_bps) in rates_bps.into_iter().enumerate() {
                    self.pacer.set_rate(stream, rate_bps, change.at);
                }
            }
            Load::Max(shares) => {
                self.silence(change.at);
                self.rota = Rota::new(&shares, self.sequences.len());
            }
            Load::Timeline(packets) => {
                self.silence(change.at);
                self.rota = None;
                self.timeline = Some(Running::new(change.at, packets));
            }
        }
        self.phase = self.phase.wrapping_add(1);
        self.publish_skipped();
        let mut phases = self.shared.phases.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(ended) = phases.last_mut()
            && !self.lateness.is_empty()
        {
            ended.lateness = Some(std::mem::replace(&mut self.lateness, empty_histogram()));
        }
        phases.push(Begun {
            from: change.at,
            first: self.sequences.clone(),
            lateness: None,
        });
    }

    fn silence(&mut self, at: Nanos) {
        for stream in 0..self.sequences.len() {
            self.pacer.set_rate(stream, 0, at);
        }
    }

    fn publish_skipped(&self) {
        for (stream, counters) in self.shared.streams.iter().enumerate() {
            let skipped = self.pacer.skipped(stream) + self.timeline_skipped[stream];
            counters.skipped.store(skipped, Ordering::Relaxed);
        }
    }

    /// Wakes the kernel until it has taken all, or says that more wake-ups do not help now.
    fn kick(&mut self) {
        for _ in 0..KICKS_MAX {
            if self.socket.tx_pending() == 0 {
                break;
            }
            let kick = self.socket.kick_tx();
            if kick == Kick::Dropped {
                self.shared.dropped_by_device.fetch_add(1, Ordering::Relaxed);
            }
            if !kick.again() {
                break;
            }
        }
        let waiting = u64::from(self.socket.tx_pending());
        self.shared.waiting.store(waiting, Ordering::Relaxed);
    }

    /// For how long to sleep, if that is worth it: until shortly before the next packet or change.
    fn idle(&mut self, now: Nanos, limit: Nanos) -> Nanos {
        if self.rota.is_some() || self.socket.tx_pending() > 0 {
            return Nanos(0);
        }
        let due = earlier(self.pacer.next_due(), self.timeline.as_mut()).map_or(limit, |due| due.min(limit));
        Nanos(due.since(now).0.saturating_sub(SLEEP_MARGIN.0)).min(SLEEP_MAX)
    }
}

/// The earlier of what the pacer and the timeline have.
fn earlier(paced: Option<Nanos>, timeline: Option<&mut Running>) -> Option<Nanos> {
    let timed = timeline.and_then(Running::next_due);
    paced.into_iter().chain(timed).min()
}

pub(crate) const TX_RING: u32 = 2048;
/// What a frame of 2048 bytes holds after the kernel's 256.
const SMALL_FRAME_BYTES_MAX: u16 = 1792;
/// Packets between two looks at the clock and the commands.
const BATCH: usize = 64;
/// One for each packet of a batch that the device refuses, and some.
const KICKS_MAX: usize = 128;
/// What a sleep may be late by on an ordinary kernel (50 µs of timer slack and a wake-up): this long before a packet is
/// due the thread spins.
const SLEEP_MARGIN: Nanos = Nanos(100_000);
/// How soon a stop or a command is noticed.
const SLEEP_MAX: Nanos = Nanos(1_000_000);

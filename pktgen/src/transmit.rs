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

use crate::flow::{Stream, StreamError};
use crate::frame_builder::FrameBuilder;
use crate::pace::Pacer;

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
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Phase {
    /// Counts from 0; packets carry the low eight bits.
    pub number: u64,
    /// Its first instant.
    pub from: Nanos,
    /// Packets sent in it so far, by index of the stream.
    pub sent: Vec<u64>,
}

#[derive(Debug)]
struct Command {
    at: Nanos,
    rates_bps: Vec<u64>,
}

#[derive(Debug)]
struct Shared {
    streams: Vec<Counters>,
    dropped_by_device: AtomicU64,
    /// When each phase began, and the sequence each stream was at.
    phases: Mutex<Vec<(Nanos, Vec<u64>)>>,
}

#[derive(Debug)]
struct Counters {
    ip_bytes_per_packet: u64,
    packets: AtomicU64,
    skipped: AtomicU64,
}

impl Remote {
    /// Begins a new phase at `at`, with a rate in bits of IP packets per second for each stream, by index; streams past
    /// the end of the list keep theirs. Packets due before `at` still go by the old rates and count for the old phase.
    /// Changes must be given in the order of their times. False if the transmitter is gone.
    pub fn change_rates(&self, at: Nanos, rates_bps: &[u64]) -> bool {
        let rates_bps = rates_bps.to_vec();
        self.commands.send(Command { at, rates_bps }).is_ok()
    }

    /// What was sent, by index of the stream.
    #[must_use]
    pub fn sent(&self) -> Vec<Sent> {
        let of = |counters: &Counters| {
            let packets = counters.packets.load(Ordering::Acquire);
            Sent {
                packets,
                ip_bytes: packets * counters.ip_bytes_per_packet,
                skipped: counters.skipped.load(Ordering::Relaxed),
            }
        };
        self.shared.streams.iter().map(of).collect()
    }

    /// All phases begun so far. Those before the last are complete and do not change any more.
    #[must_use]
    pub fn phases(&self) -> Vec<Phase> {
        let phases = self.shared.phases.lock().unwrap_or_else(PoisonError::into_inner);
        let now: Vec<u64> = self.sent().iter().map(|sent| sent.packets).collect();
        let ends = phases.iter().skip(1).map(|(_, first)| first).chain([&now]);
        let with_ends = phases.iter().zip(ends).enumerate();
        with_ends
            .map(|(number, ((from, first), end))| Phase {
                number: number as u64,
                from: *from,
                sent: end
                    .iter()
                    .zip(first)
                    .map(|(end, first)| end.saturating_sub(*first))
                    .collect(),
            })
            .collect()
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
        let rates: Vec<(usize, u64)> = builders
            .iter()
            .zip(streams)
            .map(|(builder, stream)| (builder.ip_bytes(), stream.rate_bps))
            .collect();
        let (umem, pool) = Umem::new(&UmemConfig::default()).map_err(failed)?;
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
        let counters = |&(bytes, _): &(usize, u64)| Counters {
            ip_bytes_per_packet: bytes as u64,
            packets: AtomicU64::new(0),
            skipped: AtomicU64::new(0),
        };
        let shared = Arc::new(Shared {
            streams: rates.iter().map(counters).collect(),
            dropped_by_device: AtomicU64::new(0),
            phases: Mutex::new(vec![(start, vec![0; streams.len()])]),
        });
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
            pacer: Pacer::new(&rates, start, seed),
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
            if stop.load(Ordering::Acquire) || (now >= end && self.pacer.next_due().is_none_or(|due| due >= end)) {
                break;
            }
            self.rest(now, limit);
        }
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
            && self.pacer.next_due().is_none_or(|due| due >= change.at)
        {
            if let Some(change) = self.pending.pop_front() {
                self.begin_phase(&change);
            }
        }
        let limit = self.pending.front().map_or(end, |change| change.at.min(end));
        // Due before the limit, not at it.
        let until = Nanos(now.0.min(limit.0.saturating_sub(1)));
        for _ in 0..self.socket.tx_room().min(BATCH) {
            let Some(frame) = self.pool.pop() else { break };
            match self.pacer.next(until) {
                Some((stream, intended)) => self.push(frame, stream, intended),
                None => {
                    self.pool.push(frame);
                    break;
                }
            }
        }
        self.socket.submit_tx();
        self.kick();
        limit
    }

    fn push(&mut self, mut frame: Frame, stream: usize, intended: Nanos) {
        let builder = &self.builders[stream];
        self.umem.reset(&mut frame);
        // A frame takes any size that a valid stream has.
        let fits = self.umem.set_len(&mut frame, builder.frame_bytes());
        debug_assert!(fits);
        let sequence = self.sequences[stream];
        builder.write(self.umem.bytes_mut(&mut frame), self.phase, sequence, intended);
        match self.socket.push_tx(frame) {
            Ok(()) => {
                self.sequences[stream] += 1;
                let counters = &self.shared.streams[stream];
                counters.packets.store(self.sequences[stream], Ordering::Release);
                counters.skipped.store(self.pacer.skipped(stream), Ordering::Relaxed);
            }
            Err(frame) => self.pool.push(frame),
        }
    }

    fn begin_phase(&mut self, change: &Command) {
        for (stream, &rate_bps) in change.rates_bps.iter().enumerate() {
            self.pacer.set_rate(stream, rate_bps, change.at);
        }
        self.phase = self.phase.wrapping_add(1);
        let mut phases = self.shared.phases.lock().unwrap_or_else(PoisonError::into_inner);
        phases.push((change.at, self.sequences.clone()));
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
    }

    /// Sleeps until shortly before the next packet or change, if that is worth it.
    fn rest(&self, now: Nanos, limit: Nanos) {
        let due = self.pacer.next_due().map_or(limit, |due| due.min(limit));
        let idle = due.since(now);
        if idle > SLEEP_MARGIN && self.socket.tx_pending() == 0 {
            let sleep = Nanos(idle.0 - SLEEP_MARGIN.0).min(SLEEP_MAX);
            thread::sleep(Duration::from_nanos(sleep.0));
        }
    }
}

const TX_RING: u32 = 2048;
/// Packets between two looks at the clock and the commands.
const BATCH: usize = 64;
/// One for each packet of a batch that the device refuses, and some.
const KICKS_MAX: usize = 128;
/// What a sleep may be late by on an ordinary kernel (50 µs of timer slack and a wake-up): this long before a packet is
/// due the thread spins.
const SLEEP_MARGIN: Nanos = Nanos(100_000);
/// How soon a stop or a command is noticed.
const SLEEP_MAX: Nanos = Nanos(1_000_000);

//! The receiver: all queues of one interface, on one thread, into the scores.
//!
//! It takes every packet that reaches the interface; the kernel's own stack sees none while it runs. Needs CAP_NET_RAW,
//! CAP_NET_ADMIN and CAP_BPF, in the interface's network namespace.

use std::collections::BTreeMap;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use af_xdp::device::{self, Promiscuous};
use af_xdp::{Frame, Socket, SocketConfig, Statistics, Umem, UmemConfig};
use dataplane::clock::Clock;

use crate::program::{ProgramError, RedirectProgram};
use crate::score::{Scorer, Scores};

/// Why a receiver could not be set up.
#[derive(Debug, thiserror::Error)]
pub enum ReceiveError {
    /// The interface or its sockets.
    #[error("{interface}: {source}{}", source.remedy().map(|remedy| format!(" ({remedy})")).unwrap_or_default())]
    Socket {
        /// The interface.
        interface: String,
        /// What failed.
        source: af_xdp::Error,
    },
    /// The XDP program.
    #[error(transparent)]
    Program(#[from] ProgramError),
}

/// Takes packets from an interface and scores them.
pub struct Receiver<C> {
    // Before the sockets, so that no packet is redirected to a socket that is gone.
    _program: RedirectProgram,
    _promiscuous: Promiscuous,
    queues: Vec<Queue>,
    batch: Vec<Frame>,
    scorer: Arc<Mutex<Scorer>>,
    clock: C,
}

struct Queue {
    socket: Socket,
    umem: Umem,
    pool: Vec<Frame>,
}

/// Reads a receiver's scores while it runs.
#[derive(Clone, Debug)]
pub struct ScoreReader {
    scorer: Arc<Mutex<Scorer>>,
    sockets: Arc<[OwnedFd]>,
}

impl ScoreReader {
    /// A copy of all scores. The receiver waits while the copy is made (60 kB for each stream, phase and DSCP), which
    /// its rings bridge.
    #[must_use]
    pub fn snapshot(&self) -> Scores {
        self.lock().scores().clone()
    }

    /// What could not be assigned so far, without the scores themselves, and how many packets came in all.
    #[must_use]
    pub fn strays(&self) -> Scores {
        let scorer = self.lock();
        let Scores {
            corrupted,
            unknown_stream,
            foreign,
            received,
            ..
        } = *scorer.scores();
        Scores {
            by_key: BTreeMap::new(),
            corrupted,
            unknown_stream,
            foreign,
            received,
        }
    }

    /// Packets of one phase that have come, each once.
    #[must_use]
    pub fn unique_in(&self, phase: u8) -> u64 {
        self.lock().scores().totals(|key| key.phase == phase).unique
    }

    /// See [`Scorer::take_phase`].
    #[must_use]
    pub fn take_phase(&self, phase: u8) -> Scores {
        let by_key = self.lock().take_phase(phase);
        Scores {
            by_key,
            ..self.strays()
        }
    }

    /// Packets that reached the interface and were lost before they were scored, because the receiver was too slow.
    ///
    /// # Errors
    /// Whatever getsockopt answers.
    pub fn overrun(&self) -> Result<u64, af_xdp::Error> {
        let mut lost = 0;
        for socket in &*self.sockets {
            let one = Statistics::read(socket.as_fd())?;
            lost += one.rx_dropped + one.rx_ring_full;
        }
        Ok(lost)
    }

    fn lock(&self) -> MutexGuard<'_, Scorer> {
        self.scorer.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<C: Clock> Receiver<C> {
    /// Binds a socket to each queue of the interface in the calling thread's namespace, and attaches the XDP program.
    /// `streams` are the ids to score.
    ///
    /// # Errors
    /// No such interface, a queue or the interface that another program uses, missing privileges.
    pub fn new(interface: &str, streams: &[u16], clock: C) -> Result<Self, ReceiveError> {
        let failed = |source| ReceiveError::Socket {
            interface: interface.to_owned(),
            source,
        };
        let index = device::index(interface).map_err(failed)?;
        let promiscuous = Promiscuous::hold(index).map_err(failed)?;
        let count = device::channels(interface).map_err(failed)?.receiving();
        let queues = (0..count)
            .map(|queue| Queue::bind(index, queue))
            .collect::<Result<Vec<_>, _>>()
            .map_err(failed)?;
        let sockets: Vec<&Socket> = queues.iter().map(|queue| &queue.socket).collect();
        let program = RedirectProgram::attach(interface, index, &sockets)?;
        Ok(Self {
            _program: program,
            _promiscuous: promiscuous,
            queues,
            batch: Vec::with_capacity(BATCH),
            scorer: Arc::new(Mutex::new(Scorer::new(streams))),
            clock,
        })
    }

    /// For another thread to read the scores with.
    ///
    /// # Errors
    /// No descriptor is left.
    pub fn reader(&self) -> std::io::Result<ScoreReader> {
        let sockets = self
            .queues
            .iter()
            .map(|queue| queue.socket.as_fd().try_clone_to_owned());
        Ok(ScoreReader {
            scorer: Arc::clone(&self.scorer),
            sockets: sockets.collect::<Result<_, _>>()?,
        })
    }

    /// Receives until `stop` is set, and then what is still in the rings.
    pub fn run(&mut self, stop: &AtomicBool) {
        loop {
            let stopping = stop.load(Ordering::Acquire);
            if self.step() == 0 {
                if stopping {
                    return;
                }
                self.wait(IDLE_WAIT);
            }
        }
    }

    /// For a thread that does more than receiving: takes a batch of each queue. Returns how many packets came.
    pub fn step(&mut self) -> usize {
        let mut taken = 0;
        for queue in &mut self.queues {
            taken += queue.take(&mut self.batch, &self.scorer, &self.clock);
        }
        taken
    }

    /// Sleeps until a packet comes, or for so long.
    pub fn wait(&self, longest: Duration) {
        let fds: Vec<BorrowedFd<'_>> = self.queues.iter().map(|queue| queue.socket.as_fd()).collect();
        // Interrupted or refused: the next turn looks at the rings anyway.
        let _ready = af_xdp::poll(&fds, Some(longest));
    }

    /// The kernel's counters, summed over the queues: packets lost here rather than on the way.
    ///
    /// # Errors
    /// Whatever getsockopt answers.
    pub fn statistics(&self) -> Result<Statistics, af_xdp::Error> {
        let mut sum = Statistics::default();
        for queue in &self.queues {
            let one = queue.socket.statistics()?;
            sum.rx_dropped += one.rx_dropped;
            sum.rx_ring_full += one.rx_ring_full;
            sum.rx_invalid_descs += one.rx_invalid_descs;
            sum.rx_fill_ring_empty_descs += one.rx_fill_ring_empty_descs;
        }
        Ok(sum)
    }
}

impl Queue {
    fn bind(interface_index: u32, queue: u32) -> Result<Self, af_xdp::Error> {
        let (umem, mut pool) = Umem::new(&UmemConfig {
            frame_count: 2 * RING,
            frame_size: 4096,
            ..UmemConfig::default()
        })?;
        let config = SocketConfig {
            rx_size: RING,
            fill_size: RING,
            ..SocketConfig::default()
        };
        let socket = Socket::bind(&umem, interface_index, queue, &config, &mut pool)?;
        Ok(Self { socket, umem, pool })
    }

    /// Scores one batch. All of it counts as arrived when it was taken.
    fn take(&mut self, batch: &mut Vec<Frame>, scorer: &Mutex<Scorer>, clock: &impl Clock) -> usize {
        let taken = self.socket.receive(BATCH, |frame| batch.push(frame));
        if taken > 0 {
            let now = clock.now();
            let mut scorer = scorer.lock().unwrap_or_else(PoisonError::into_inner);
            for frame in batch.drain(..) {
                scorer.packet(self.umem.bytes(&frame), now);
                self.pool.push(frame);
            }
        }
        self.socket.refill(&mut self.pool, usize::MAX);
        let _outcome = self.socket.wake_rx();
        taken
    }
}

/// Packets between two looks at the clock: at a million packets a second 64 µs at worst.
const BATCH: usize = 64;
/// A ring for 40 ms at 100,000 packets a second: what a virtual machine's host may take a core away for.
pub(crate) const RING: u32 = 4096;
/// How soon a stop is noticed when nothing comes.
const IDLE_WAIT: Duration = Duration::from_millis(1);

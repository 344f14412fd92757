//! A capture on its way to its client: the thread that serves the connection drains the taps and writes.
//!
//! After the line that answers the request come pieces: a length in 4 bytes, big-endian, and so many bytes of pcapng. A
//! length of 0 ends them; a line of JSON ([`Summary`]) follows. The client ends the capture by closing its sending side.
//!
//! Nothing here blocks for longer than [`TURN`], and memory is bounded: while the client takes nothing, the taps are not
//! drained, and the workers count what they miss.

use std::io::{self, ErrorKind, Read, Write};
use std::os::fd::AsFd;
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use config::Config;
use dataplane::clock::{Clock, MonotonicClock};
use dataplane::tap::Record;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use serde::{Deserialize, Serialize};

use super::Running;
use super::pcapng::{Origin, Section};

/// A capture that has begun. Ends when it is dropped.
pub struct Session {
    running: Arc<Running>,
    ports: Vec<(String, String)>,
}

impl std::fmt::Debug for Session {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Session")
            .field("options", &self.running.options)
            .finish_non_exhaustive()
    }
}

/// What a capture came to.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Summary {
    /// Why it ended: `count`, `seconds`, `client`, `stopping`.
    pub ended: String,
    /// What happened to packets, as often as it was written: twice as a packet, before and after, or once.
    pub records: u64,
    /// Packets in the file.
    pub packets: u64,
    /// Events that were asked for and not recorded.
    pub missed: u64,
    /// Of them because of the rate; the others because the client was slow.
    pub missed_by_rate: u64,
}

/// Time between two looks at the taps. Their records hold what a worker may record in that time ten times over.
const TURN: Duration = Duration::from_millis(10);
/// Bytes waiting for the client from which on the taps are not drained.
const PENDING_MAX: usize = 1 << 20;
/// Time without a byte taken after which a client is given up.
const STALLED: Duration = Duration::from_secs(30);
/// The same for the last of it.
const LAST: Duration = Duration::from_secs(2);
/// Records taken from the taps at once.
const DRAIN_MAX: usize = 2048;

impl Session {
    pub(super) fn new(running: Arc<Running>, config: &Config) -> Self {
        let port = |port: &config::Port| (port.name.clone(), port.interface.clone());
        Self {
            running,
            ports: config.ports.iter().map(port).collect(),
        }
    }

    /// Sends the capture to the client until it ends. The answer to its request has been sent.
    ///
    /// # Errors
    /// The client went away, or took nothing for 30 s.
    pub fn stream(&self, stream: &UnixStream) -> io::Result<()> {
        stream.set_nonblocking(true)?;
        let options = &self.running.options;
        let comment = format!("weir capture by {}: {}", self.running.author, options.words());
        let section = Section::begin(&self.ports, options.snaplen, comment).map_err(io::Error::other)?;
        let mut sending = Sending {
            stream,
            pending: Vec::new(),
            progress: Instant::now(),
        };
        let mut capture = Streaming {
            session: self,
            section,
            since_epoch: since_epoch(),
            records: Vec::new(),
        };
        let began = capture.since_epoch + Duration::from_nanos(MonotonicClock.now().0);
        sending.piece(&capture.section.take());
        let ended = loop {
            if let Some(ended) = self.is_over(&capture.section, sending.stream)? {
                break ended;
            }
            if sending.pending.len() < PENDING_MAX {
                capture.drain()?;
                sending.piece(&capture.section.take());
            }
            sending.push(TURN, STALLED)?;
        };
        // Before the client hears of the end: it may begin another one at once.
        self.running.take_off();
        // What was recorded before the end belongs to it, but not without end where traffic goes on.
        if ended != "count" {
            capture.drain()?;
        }
        let summary = capture.finish(ended, began)?;
        sending.piece(&capture.section.take());
        sending.pending.extend(0_u32.to_be_bytes());
        serde_json::to_writer(&mut sending.pending, &summary)?;
        sending.pending.push(b'\n');
        while !sending.pending.is_empty() {
            sending.push(TURN, LAST)?;
        }
        Ok(())
    }

    fn is_over(&self, section: &Section, mut stream: &UnixStream) -> io::Result<Option<&'static str>> {
        let options = &self.running.options;
        if options.count.is_some_and(|count| section.records() >= count) {
            return Ok(Some("count"));
        }
        let elapsed = self.running.began.elapsed().as_millis();
        if options.milliseconds.is_some_and(|most| elapsed >= u128::from(most)) {
            return Ok(Some("seconds"));
        }
        if self.running.stop.load(Ordering::Relaxed) {
            return Ok(Some("stopping"));
        }
        match stream.read(&mut [0; 64]) {
            Ok(0) => Ok(Some("client")),
            // Nothing more is expected of a client, and nothing it says matters.
            Ok(_) => Ok(None),
            Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted) => Ok(None),
            Err(error) => Err(error),
        }
    }
}

struct Streaming<'s> {
    session: &'s Session,
    section: Section,
    /// What the workers' clock lacks to the wall clock, as of the beginning: so that times of a capture never go back.
    since_epoch: Duration,
    records: Vec<(usize, Box<Record>)>,
}

impl Streaming<'_> {
    /// Writes what the taps hold, in the order of time, and gives the records back.
    fn drain(&mut self) -> io::Result<()> {
        let running = &self.session.running;
        for (worker, stream) in running.streams.iter().enumerate() {
            let records = std::iter::from_fn(|| stream.pop()).take(DRAIN_MAX);
            self.records.extend(records.map(|record| (worker, record)));
        }
        self.records.sort_by_key(|(_, record)| record.at);
        let names = running.names.load();
        let mut written = Ok(());
        for (worker, record) in self.records.drain(..) {
            let is_enough = running
                .options
                .count
                .is_some_and(|count| self.section.records() >= count);
            let lane = running.lanes[worker].get(usize::from(record.path) / 2);
            if let Some(&lane) = lane.filter(|_| !is_enough && written.is_ok()) {
                let at = self.since_epoch + Duration::from_nanos(record.at.0);
                written = self.section.write(&record, Origin { worker, lane }, &names, at);
            }
            running.streams[worker].give_back(record);
        }
        written.map_err(io::Error::other)
    }

    fn finish(&mut self, ended: &str, began: Duration) -> io::Result<Summary> {
        let running = &self.session.running;
        let mut missed = vec![0; self.session.ports.len()];
        for (stream, lanes) in running.streams.iter().zip(&running.lanes) {
            for (number, lane) in lanes.iter().enumerate() {
                for way in 0..2 {
                    missed[lane.ports[way]] += stream.missed(2 * number + way);
                }
            }
        }
        let now = self.since_epoch + Duration::from_nanos(MonotonicClock.now().0);
        self.section.end(&missed, began, now).map_err(io::Error::other)?;
        Ok(Summary {
            ended: ended.to_owned(),
            records: self.section.records(),
            packets: self.section.packets(),
            missed: missed.iter().sum(),
            missed_by_rate: running.streams.iter().map(|stream| stream.capped()).sum(),
        })
    }
}

/// What the client has still to take.
struct Sending<'s> {
    stream: &'s UnixStream,
    pending: Vec<u8>,
    progress: Instant,
}

impl Sending<'_> {
    fn piece(&mut self, bytes: &[u8]) {
        if !bytes.is_empty() {
            self.pending.extend((bytes.len() as u32).to_be_bytes());
            self.pending.extend(bytes);
        }
    }

    /// Sends what the client takes, then waits until it takes or says more, `turn` at most.
    fn push(&mut self, turn: Duration, patience: Duration) -> io::Result<()> {
        match self.stream.write(&self.pending) {
            Ok(0) if self.pending.is_empty() => self.progress = Instant::now(),
            Ok(0) => return Err(ErrorKind::WriteZero.into()),
            Ok(written) => {
                self.pending.drain(..written);
                self.progress = Instant::now();
            }
            Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted) => {}
            Err(error) => return Err(error),
        }
        if self.progress.elapsed() > patience {
            return Err(ErrorKind::TimedOut.into());
        }
        let mut wanted = PollFlags::POLLIN;
        wanted.set(PollFlags::POLLOUT, !self.pending.is_empty());
        let timeout = PollTimeout::try_from(turn).unwrap_or(PollTimeout::ZERO);
        // A signal only makes the next turn come early.
        let _ready = poll(&mut [PollFd::new(self.stream.as_fd(), wanted)], timeout);
        Ok(())
    }
}

/// The wall clock's time at the workers' time 0.
fn since_epoch() -> Duration {
    let wall = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    wall.saturating_sub(Duration::from_nanos(MonotonicClock.now().0))
}

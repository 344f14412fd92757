//! The loop: each packet at its instant.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use dataplane::clock::Nanos;

use super::gaps::GapMeter;
use super::prepare::{Entry, Skipped};
use super::result::{Ended, RATE_ERROR_MAX, ReplayResult};
use super::sink::PacketSink;
use super::source::{Chunk, Feed};
use super::timing::{Schedule, Timer, Timing};
use super::{Repeat, Replay};

/// Everything about one run that changes.
pub(super) struct Run<'a, S, T> {
    sink: &'a mut S,
    timer: &'a T,
    stop: &'a AtomicBool,
    repeat: Repeat,
    schedule: Schedule,
    paced: bool,
    start: Nanos,
    end: Option<Nanos>,
    now: Nanos,
    /// Intended instants of the packets pushed and not flushed.
    batch: Vec<Nanos>,
    meter: GapMeter,
    last_due: Nanos,
    first_sent: Option<Nanos>,
    pass: Pass,
    counts: Counts,
}

/// What is known of the present pass.
#[derive(Clone, Copy, Debug, Default)]
struct Pass {
    packets: u64,
    sent: u64,
    last_position: u64,
}

#[derive(Clone, Copy, Debug, Default)]
struct Counts {
    packets: u64,
    bytes: u64,
    loops: u64,
    skipped: Skipped,
    padded: u64,
    finished: u64,
    backwards: u64,
}

impl<'a, S: PacketSink, T: Timer> Run<'a, S, T> {
    pub(super) fn new(replay: &Replay, sink: &'a mut S, timer: &'a T, stop: &'a AtomicBool) -> Self {
        let start = timer.now();
        let end = replay.repeat.duration.map(|duration| {
            let nanos = u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX);
            start.plus(Nanos(nanos))
        });
        Self {
            sink,
            timer,
            stop,
            repeat: replay.repeat,
            schedule: Schedule::new(replay.timing),
            paced: replay.timing != Timing::AsFastAsPossible,
            start,
            end,
            now: start,
            batch: Vec::with_capacity(BATCH),
            meter: GapMeter::new(),
            last_due: start,
            first_sent: None,
            pass: Pass::default(),
            counts: Counts::default(),
        }
    }

    /// Runs to the end, and says why that came.
    pub(super) fn run(mut self, replay: &mut Replay) -> ReplayResult {
        let mut ended = loop {
            let step = match replay.source.next() {
                Feed::Chunk(chunk) => self.chunk(&chunk),
                Feed::EndOfPass(error) => {
                    let fatal = error.is_some() && !replay.until_error;
                    if let Some(error) = error {
                        replay.capture_error = Some(error.to_string());
                    }
                    match &replay.capture_error {
                        Some(error) if fatal => Err(Ended::Capture(error.clone())),
                        _ => self.end_of_pass(),
                    }
                }
                Feed::Wait => self.flush(),
            };
            if let Err(ended) = step {
                break ended;
            }
            if self.stop.load(Ordering::Acquire) {
                break Ended::Stopped;
            }
        };
        // What was pushed is due, however the run ends.
        if let Err(failed) = self.flush() {
            ended = failed;
        }
        let finished = self.timer.now();
        self.drain();
        self.result(replay, ended, finished)
    }

    fn chunk(&mut self, chunk: &Arc<Chunk>) -> Result<(), Ended> {
        for entry in &chunk.entries {
            let range = entry.start as usize..(entry.start + entry.len) as usize;
            let bytes = chunk.bytes.get(range).unwrap_or_default();
            self.packet(entry, bytes)?;
        }
        self.flush()
    }

    fn packet(&mut self, entry: &Entry, bytes: &[u8]) -> Result<(), Ended> {
        let due = self.start.plus(self.schedule.due(entry.position));
        if let Some(skip) = entry.skip {
            if self.end.is_some_and(|end| due >= end) {
                return Err(Ended::Done);
            }
            self.counts.skipped.count(skip);
        } else {
            self.wait(due)?;
            self.take(entry, bytes, due)?;
        }
        self.counts.backwards += u64::from(entry.backwards);
        self.pass.packets += 1;
        self.pass.last_position = entry.position;
        Ok(())
    }

    /// Waits until `due`; what is due before goes first.
    fn wait(&mut self, due: Nanos) -> Result<(), Ended> {
        if self.end.is_some_and(|end| due >= end || self.now >= end) {
            return Err(Ended::Done);
        }
        if due <= self.now {
            return Ok(());
        }
        self.flush()?;
        loop {
            self.now = self.timer.now();
            if due <= self.now {
                return Ok(());
            }
            if self.stop.load(Ordering::Acquire) {
                return Err(Ended::Stopped);
            }
            self.timer.rest(self.now, due);
        }
    }

    fn take(&mut self, entry: &Entry, bytes: &[u8], due: Nanos) -> Result<(), Ended> {
        if self.sink.room() == 0 {
            self.make_room()?;
        }
        if !self.sink.push(bytes) {
            return Err(Ended::Interface(format!(
                "a packet of {} bytes was not taken by the interface",
                bytes.len()
            )));
        }
        self.schedule.given(entry.counted);
        self.batch.push(due);
        self.last_due = due;
        self.pass.sent += 1;
        self.counts.packets += 1;
        self.counts.bytes += bytes.len() as u64;
        self.counts.padded += u64::from(entry.padded);
        self.counts.finished += u64::from(entry.finished);
        if self.batch.len() == BATCH {
            self.flush()?;
        }
        Ok(())
    }

    /// Waits until the sink takes a packet again.
    fn make_room(&mut self) -> Result<(), Ended> {
        self.flush()?;
        let deadline = self.timer.now().plus(ROOM_WAIT_MAX);
        while self.sink.room() == 0 {
            let now = self.timer.now();
            if self.stop.load(Ordering::Acquire) {
                return Err(Ended::Stopped);
            }
            if now >= deadline {
                return Err(Ended::Interface(format!(
                    "the interface sent nothing for {} s: is its other end up, and does somebody take the packets?",
                    ROOM_WAIT_MAX.0 / 1_000_000_000
                )));
            }
            self.sink.flush().map_err(Ended::Interface)?;
            self.timer.rest(now, now.plus(Nanos::MICROSECOND));
        }
        Ok(())
    }

    /// Gives the batch to the kernel. Its packets count as sent just before: what the kernel takes for each of them is
    /// not known here.
    fn flush(&mut self) -> Result<(), Ended> {
        if self.batch.is_empty() {
            return Ok(());
        }
        let at = self.timer.now();
        let flushed = self.sink.flush();
        self.first_sent.get_or_insert(at);
        // Unpaced there is nothing to compare with, and the time is better spent on sending.
        if self.paced {
            self.batch.iter().for_each(|&due| self.meter.packet(due, at));
        }
        self.batch.clear();
        self.now = self.timer.now();
        flushed.map_err(Ended::Interface)
    }

    fn end_of_pass(&mut self) -> Result<(), Ended> {
        let pass = std::mem::take(&mut self.pass);
        if pass.sent == 0 {
            return Err(Ended::NothingToSend);
        }
        self.counts.loops += 1;
        if self.repeat.times.is_some_and(|times| self.counts.loops >= times) {
            return Err(Ended::Done);
        }
        let mean_gap = pass.last_position.checked_div(pass.packets - 1).unwrap_or(0);
        let last = self.last_due.since(self.start);
        self.schedule
            .next_pass(last, pass.last_position, mean_gap, self.repeat.gap);
        Ok(())
    }

    /// Waits until the device has let go of all packets, 100 ms at most.
    fn drain(&mut self) {
        let deadline = self.timer.now().plus(DRAIN_MAX);
        while self.sink.in_flight() > 0 && self.sink.flush().is_ok() {
            let now = self.timer.now();
            if now >= deadline {
                break;
            }
            self.timer.rest(now, now.plus(Nanos::MICROSECOND));
        }
    }

    fn result(self, replay: &Replay, ended: Ended, finished: Nanos) -> ReplayResult {
        let paced = self.paced;
        let (asked_seconds, paced_seconds) = self.meter.spans().unwrap_or_default();
        let until_taken = finished.since(self.first_sent.unwrap_or(finished)).0 as f64 / 1e9;
        // A rate of n packets is n - 1 gaps; unpaced there are no gaps, but the time the kernel took for all.
        let (seconds, intervals) = if paced {
            (paced_seconds, self.counts.packets.saturating_sub(1))
        } else {
            (until_taken, self.counts.packets)
        };
        let rate = |seconds: f64| {
            if seconds > 0.0 { intervals as f64 / seconds } else { 0.0 }
        };
        let asked_pps = (paced && asked_seconds > 0.0).then(|| rate(asked_seconds));
        let achieved_pps = rate(seconds);
        let mean_bits = (self.counts.bytes + 4 * self.counts.packets) as f64 * 8.0 / self.counts.packets.max(1) as f64;
        let rate_held = asked_pps
            .filter(|_| asked_seconds >= 1.0)
            .map(|asked| (achieved_pps / asked - 1.0).abs() <= RATE_ERROR_MAX);
        ReplayResult {
            packets: self.counts.packets,
            bytes: self.counts.bytes,
            dropped_by_device: self.sink.dropped(),
            unsettled: self.sink.in_flight(),
            loops: self.counts.loops,
            skipped: self.counts.skipped,
            padded: self.counts.padded,
            checksums_finished: self.counts.finished,
            timestamps_backwards: self.counts.backwards,
            in_memory: replay.source.is_in_memory(),
            timing: replay.timing,
            seconds,
            asked_pps,
            achieved_pps,
            achieved_bps: achieved_pps * mean_bits,
            rate_held,
            gap_errors: self.meter.errors(),
            lateness: self.meter.lateness(),
            ended,
            capture_error: replay.capture_error.clone(),
        }
    }
}

/// Packets between two looks at the clock when packets are late or unpaced.
const BATCH: usize = 64;
/// A device that takes this long for one packet will not recover by itself.
const ROOM_WAIT_MAX: Nanos = Nanos(2_000_000_000);
const DRAIN_MAX: Nanos = Nanos(100_000_000);

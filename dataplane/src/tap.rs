//! The tap: copies of packets for `weir capture`, taken where a packet gets its verdict and where a ring drops it.
//!
//! ```text
//!   worker: path sees an event ─► wanted? ─► token? ─► free record ─► copy ─► full ─┐
//!                                               │          │                        │
//!                                               └── none ──┴─► counted as missed    ▼
//!   control: ◄──────────────────────────────────────────────── free ◄─ written ◄─ drained
//! ```
//!
//! A worker never waits: without a token or a free record the event is counted as missed. Records are made when a capture
//! begins and go round between two queues (crossbeam's `ArrayQueue`: no lock, no allocation), so that a record may be as long
//! as the capture asks. While nobody captures, a worker loads one number a turn, and a path looks at one `Option` a batch.
//!
//! Owns nothing of the packet: what it copies is a packet's beginning. Runs on the worker, but for [`TapStream::pop`],
//! [`TapStream::give_back`] and the counts, which the capturing thread calls.

use std::borrow::Cow;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use arc_swap::ArcSwapOption;
use crossbeam::queue::ArrayQueue;

use crate::cells::SlotId;
use crate::clock::Nanos;
use crate::meter::Color;
use crate::priority::Half;
use crate::stats::DropReason;

/// Bytes at a packet's beginning in which marks can change: Ethernet, two tags, and the class byte and checksum of an IP
/// header, which end at byte 34. More is copied for nothing.
const HEAD: usize = 40;

/// Fewest bytes that a record has room for: less would not show the headers up to the ports.
pub const SNAPLEN_MIN: u32 = 64;
/// Most: the largest frame of a UMEM.
pub const SNAPLEN_MAX: u32 = 4096;

/// The beginning of a packet before it was re-marked.
pub(crate) type Head = [u8; HEAD];

/// Copies what re-marking may change.
#[inline]
pub(crate) fn head(bytes: &[u8]) -> Head {
    let mut head = [0; HEAD];
    let len = bytes.len().min(HEAD);
    head[..len].copy_from_slice(&bytes[..len]);
    head
}

/// What happened to a packet, and the packet.
pub(crate) struct Event<'a> {
    pub(crate) at: Nanos,
    pub(crate) generation: u64,
    pub(crate) slot: SlotId,
    pub(crate) half: Half,
    /// `None`: nobody measured it, or the ring did not keep it.
    pub(crate) color: Option<Color>,
    pub(crate) dropped: Option<DropReason>,
    /// Its beginning as it was, if it was re-marked.
    pub(crate) head: Option<Head>,
    /// It is one of the sample.
    pub(crate) sampled: bool,
    /// Since it came into its ring; `None` up to the ring.
    pub(crate) waited: Option<Nanos>,
    pub(crate) bytes: &'a [u8],
    pub(crate) wire_len: u32,
}

/// A packet as the tap saw it.
#[derive(Debug)]
pub struct Record {
    /// When, by the worker's clock.
    pub at: Nanos,
    /// On which path of the worker: twice the lane's number, and one more for ingress.
    pub path: u16,
    /// Generation of the table that judged, or that ran when the ring dropped.
    pub generation: u64,
    /// Whose counters it is counted in.
    pub slot: SlotId,
    /// Conforming or not: with its class, the ring it went to or was to go to.
    pub half: Half,
    /// The meter's colour; `None`: nobody measured it, or the ring did not keep it.
    pub color: Option<Color>,
    /// Why it was dropped.
    pub dropped: Option<DropReason>,
    /// Whether DSCP or PCP was changed just before.
    pub remarked: bool,
    /// How long it waited in its ring, if the ring dropped it.
    pub waited: Option<Nanos>,
    /// Bytes of the packet on the wire.
    pub wire_len: u32,
    head: Head,
    len: usize,
    bytes: Box<[u8]>,
}

impl Record {
    fn new(snaplen: u32) -> Self {
        Self {
            at: Nanos(0),
            path: 0,
            generation: 0,
            slot: SlotId(0),
            half: Half::Conforming,
            color: None,
            dropped: None,
            remarked: false,
            waited: None,
            wire_len: 0,
            head: [0; HEAD],
            len: 0,
            bytes: vec![0; snaplen.clamp(SNAPLEN_MIN, SNAPLEN_MAX) as usize].into(),
        }
    }

    fn fill(&mut self, path: u16, event: &Event<'_>) {
        self.at = event.at;
        self.path = path;
        self.generation = event.generation;
        self.slot = event.slot;
        self.half = event.half;
        self.color = event.color;
        self.dropped = event.dropped;
        self.remarked = event.head.is_some();
        self.waited = event.waited;
        self.wire_len = event.wire_len;
        self.head = event.head.unwrap_or([0; HEAD]);
        self.len = event.bytes.len().min(self.bytes.len());
        self.bytes[..self.len].copy_from_slice(&event.bytes[..self.len]);
    }

    /// The packet's beginning as it lay in its frame when this happened.
    #[must_use]
    pub fn after(&self) -> &[u8] {
        &self.bytes[..self.len]
    }

    /// The same before it was re-marked.
    #[must_use]
    pub fn before(&self) -> Cow<'_, [u8]> {
        if !self.remarked {
            return Cow::Borrowed(self.after());
        }
        let mut bytes = self.after().to_vec();
        let len = bytes.len().min(HEAD);
        bytes[..len].copy_from_slice(&self.head[..len]);
        Cow::Owned(bytes)
    }
}

/// What becomes a record.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct TapWish {
    /// Every packet that is dropped.
    pub dropped: bool,
    /// Every packet whose DSCP or PCP is changed.
    pub remarked: bool,
    /// One of so many that get a verdict; 0: none.
    pub every: u32,
}

/// The records of one worker, their way to whoever captures, and what was missed. Outlives a change of the filter.
#[derive(Debug)]
pub struct TapStream {
    // Boxed, so that a queue moves a pointer and not a packet.
    free: ArrayQueue<Box<Record>>,
    full: ArrayQueue<Box<Record>>,
    rate: u64,
    /// Written by the worker only, as are those that follow.
    tokens: AtomicU64,
    filled: AtomicU64,
    until_sample: AtomicU64,
    missed: Box<[AtomicU64]>,
    capped: AtomicU64,
}

/// Fewest records in flight: what a burst may bring before the capturing thread, which comes round every 10 ms, has a turn.
const RECORDS_MIN: u32 = 1024;
/// Most: at [`SNAPLEN_MAX`] this is 32 MiB.
const RECORDS_MAX: u32 = 8192;

impl TapStream {
    /// For a worker with `lanes` lanes: at most `rate` records a second (a second's worth at once), each with room for the
    /// first `snaplen` bytes ([`SNAPLEN_MIN`] to [`SNAPLEN_MAX`]). Takes all memory a capture needs.
    #[must_use]
    pub fn new(lanes: usize, rate: u32, snaplen: u32) -> Self {
        let records = (rate / 10).clamp(RECORDS_MIN, RECORDS_MAX) as usize;
        let free = ArrayQueue::new(records);
        for _ in 0..records {
            // There is room for all: that many were asked for.
            let _pushed = free.push(Box::new(Record::new(snaplen)));
        }
        Self {
            free,
            full: ArrayQueue::new(records),
            rate: u64::from(rate),
            tokens: AtomicU64::new(u64::from(rate)),
            filled: AtomicU64::new(0),
            until_sample: AtomicU64::new(0),
            missed: (0..2 * lanes).map(|_| AtomicU64::new(0)).collect(),
            capped: AtomicU64::new(0),
        }
    }

    /// The oldest record.
    #[must_use]
    pub fn pop(&self) -> Option<Box<Record>> {
        self.full.pop()
    }

    /// Makes a record that [`pop`](Self::pop) gave free again.
    pub fn give_back(&self, record: Box<Record>) {
        // As many records as places: it cannot be full.
        let _pushed = self.free.push(record);
    }

    /// Events on a path that were wanted and not recorded.
    #[must_use]
    pub fn missed(&self, path: usize) -> u64 {
        self.missed.get(path).map_or(0, |missed| missed.load(Ordering::Relaxed))
    }

    /// How many of them, on all paths, because of the rate; the others because no record was free.
    #[must_use]
    pub fn capped(&self) -> u64 {
        self.capped.load(Ordering::Relaxed)
    }

    /// Whether one more record is within the rate. Whole tokens; the time of a part of one is kept.
    fn take_token(&self, now: Nanos) -> bool {
        const SECOND: u64 = Nanos::SECOND.0;
        let elapsed = now.since(Nanos(get(&self.filled))).0;
        let mut tokens = get(&self.tokens);
        if elapsed >= SECOND {
            tokens = self.rate;
            set(&self.filled, now.0);
        } else {
            let new = elapsed * self.rate / SECOND;
            if new > 0 {
                tokens = (tokens + new).min(self.rate);
                set(&self.filled, get(&self.filled) + new * SECOND / self.rate);
            }
        }
        set(&self.tokens, tokens.saturating_sub(1));
        tokens > 0
    }
}

/// One writer, so a plain load and store, never a locked instruction.
fn set(word: &AtomicU64, value: u64) {
    word.store(value, Ordering::Relaxed);
}

fn get(word: &AtomicU64) -> u64 {
    word.load(Ordering::Relaxed)
}

fn add_one(word: &AtomicU64) {
    set(word, get(word) + 1);
}

/// What hangs on a worker while somebody captures. Immutable but for its stream.
#[derive(Debug)]
pub struct Tap {
    wish: TapWish,
    /// Bit n: slot n is wanted. `None`: all are.
    slots: Option<Box<[u64]>>,
    /// By path: whether it is wanted.
    paths: Box<[bool]>,
    stream: Arc<TapStream>,
}

impl Tap {
    /// A tap that fills `stream` with what `wish` says of these slots (`None`: all) and paths (by [`Record::path`]).
    #[must_use]
    pub fn new(wish: TapWish, slots: Option<&[SlotId]>, paths: Box<[bool]>, stream: Arc<TapStream>) -> Self {
        let bits = |slots: &[SlotId]| {
            let words = slots.iter().map(|slot| slot.0 as usize / 64 + 1).max().unwrap_or(0);
            let mut bits = vec![0; words];
            for slot in slots {
                bits[slot.0 as usize / 64] |= 1_u64 << (slot.0 % 64);
            }
            bits.into_boxed_slice()
        };
        Self {
            wish,
            slots: slots.map(bits),
            paths,
            stream,
        }
    }

    fn wants_slot(&self, slot: SlotId) -> bool {
        let Some(bits) = &self.slots else { return true };
        let word = bits.get(slot.0 as usize / 64).copied().unwrap_or(0);
        word >> (slot.0 % 64) & 1 == 1
    }
}

/// Where a tap is hung on a worker. The worker looks once a turn whether there is another.
#[derive(Debug, Default)]
pub struct TapPoint {
    version: AtomicU64,
    tap: ArcSwapOption<Tap>,
}

impl TapPoint {
    /// Hangs this tap on the worker, or takes it off. Keep taps until their `Arc` is the only one: a worker should not free.
    pub fn set(&self, tap: Option<Arc<Tap>>) {
        self.tap.store(tap);
        self.version.fetch_add(1, Ordering::Release);
    }

    #[inline]
    pub(crate) fn version(&self) -> u64 {
        self.version.load(Ordering::Acquire)
    }

    pub(crate) fn tap(&self) -> Option<Arc<Tap>> {
        self.tap.load_full()
    }
}

/// A copy that waits for what becomes of its packet; empty when there was no token or no record for it.
pub(crate) struct Copied(Option<Box<Record>>);

/// The tap as a path has it.
#[derive(Debug)]
pub(crate) struct PathTap {
    tap: Arc<Tap>,
    path: u16,
}

impl PathTap {
    /// `None` when nothing of this path is wanted.
    pub(crate) fn new(tap: &Arc<Tap>, path: usize) -> Option<Self> {
        let wanted = tap.paths.get(path).copied().unwrap_or(false);
        wanted.then(|| Self {
            tap: tap.clone(),
            path: path as u16,
        })
    }

    /// Whether this packet, one that gets a verdict, is one of the sample.
    pub(crate) fn sample(&self, slot: SlotId) -> bool {
        let every = u64::from(self.tap.wish.every);
        if every == 0 || !self.tap.wants_slot(slot) {
            return false;
        }
        let until = &self.tap.stream.until_sample;
        let left = get(until);
        set(until, if left == 0 { every - 1 } else { left - 1 });
        left == 0
    }

    /// Copies a packet, if it is wanted.
    pub(crate) fn copy(&self, event: &Event<'_>) -> Option<Copied> {
        let wish = self.tap.wish;
        let by_kind = event.dropped.is_some() && wish.dropped || event.head.is_some() && wish.remarked;
        if !(by_kind || event.sampled) || !self.tap.wants_slot(event.slot) {
            return None;
        }
        let stream = &self.tap.stream;
        if !stream.take_token(event.at) {
            add_one(&stream.capped);
            return Some(Copied(None));
        }
        let record = stream.free.pop().map(|mut record| {
            record.fill(self.path, event);
            record
        });
        Some(Copied(record))
    }

    /// Hands a copy on, or counts it as missed.
    pub(crate) fn keep(&self, copied: Copied, dropped: Option<DropReason>) {
        let stream = &self.tap.stream;
        let handed = copied.0.is_some_and(|mut record| {
            record.dropped = dropped;
            // As many records as places: it cannot be full.
            stream.full.push(record).is_ok()
        });
        if !handed && let Some(missed) = stream.missed.get(usize::from(self.path)) {
            add_one(missed);
        }
    }

    /// Both at once.
    pub(crate) fn see(&self, event: &Event<'_>) {
        if let Some(copied) = self.copy(event) {
            self.keep(copied, event.dropped);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn event(at: u64, slot: u32, bytes: &[u8]) -> Event<'_> {
        Event {
            at: Nanos(at),
            generation: 1,
            slot: SlotId(slot),
            half: Half::Nonconforming,
            color: None,
            dropped: Some(DropReason::Policed),
            head: None,
            sampled: false,
            waited: None,
            bytes,
            wire_len: bytes.len() as u32,
        }
    }

    fn path_tap(wish: TapWish, slots: Option<&[SlotId]>, stream: &Arc<TapStream>) -> PathTap {
        let tap = Arc::new(Tap::new(wish, slots, [false, true].into(), stream.clone()));
        assert!(PathTap::new(&tap, 0).is_none() && PathTap::new(&tap, 7).is_none());
        PathTap::new(&tap, 1).unwrap()
    }

    const DROPPED: TapWish = TapWish {
        dropped: true,
        remarked: false,
        every: 0,
    };

    #[test]
    fn a_rate_grants_a_second_at_once_and_then_whole_tokens() {
        let stream = TapStream::new(1, 100, 64);
        let granted = |at: u64, tries: usize| (0..tries).filter(|_| stream.take_token(Nanos(at))).count();
        let start = 5 * Nanos::SECOND.0;
        assert_eq!(granted(start, 150), 100);
        assert_eq!(granted(start + 9_999_999, 2), 0);
        assert_eq!(granted(start + 10_000_000, 2), 1);
        // 15 ms, and 15 ms: the half tokens are not lost.
        assert_eq!(granted(start + 25_000_000, 2), 1);
        assert_eq!(granted(start + 40_000_000, 3), 2);
        assert_eq!(granted(start + 60 * Nanos::SECOND.0, 500), 100);
        assert_eq!(granted(u64::MAX, 500), 100);
    }

    #[test]
    fn what_is_not_asked_for_is_not_copied() {
        let stream = Arc::new(TapStream::new(1, 1000, 64));
        let tap = path_tap(DROPPED, Some(&[SlotId(3), SlotId(64)]), &stream);
        for slot in [0, 3, 64, 65, 1000] {
            tap.see(&event(0, slot, &[slot as u8; 80]));
        }
        tap.see(&Event {
            dropped: None,
            head: Some([0; HEAD]),
            ..event(0, 3, &[9; 80])
        });
        let slots: Vec<u32> = std::iter::from_fn(|| stream.pop())
            .map(|record| record.slot.0)
            .collect();
        assert_eq!((slots, stream.missed(1)), (vec![3, 64], 0));
    }

    #[test]
    fn one_of_so_many_is_sampled() {
        let stream = Arc::new(TapStream::new(1, 1000, 64));
        let wish = TapWish {
            every: 4,
            ..TapWish::default()
        };
        let tap = path_tap(wish, Some(&[SlotId(1)]), &stream);
        let sampled: Vec<bool> = (0..9).map(|_| tap.sample(SlotId(1))).collect();
        assert_eq!(sampled.iter().filter(|sampled| **sampled).count(), 3, "{sampled:?}");
        assert!(sampled[0] && sampled[4] && sampled[8]);
        assert!(!tap.sample(SlotId(2)));
    }

    #[test]
    fn a_re_marked_packet_is_known_as_it_was() {
        let stream = Arc::new(TapStream::new(1, 1000, 64));
        let wish = TapWish {
            remarked: true,
            ..TapWish::default()
        };
        let tap = path_tap(wish, None, &stream);
        for len in [20, HEAD, 64, 1500] {
            let (before, mut after) = (vec![7; len], vec![7; len]);
            after[15] = 8;
            tap.see(&Event {
                dropped: None,
                head: Some(head(&before)),
                ..event(0, 0, &after)
            });
            let record = stream.pop().unwrap();
            let kept = len.min(64);
            assert_eq!(
                (record.before().as_ref(), record.after()),
                (&before[..kept], &after[..kept])
            );
            stream.give_back(record);
        }
    }

    #[test]
    fn every_event_is_handed_on_whole_or_counted_as_missed() {
        const EVENTS: u64 = 200_000;
        let stream = Arc::new(TapStream::new(1, u32::MAX, 64));
        let records = stream.free.len() as u64;
        let tap = path_tap(DROPPED, None, &stream);
        // Nobody drains at first: exactly as many as there are records get through.
        for at in 0..records + 10 {
            tap.see(&event(at, 0, &[at as u8; 64]));
        }
        assert_eq!(
            (stream.full.len() as u64, stream.missed(1), stream.capped()),
            (records, 10, 0)
        );
        let worker = std::thread::spawn(move || {
            for at in records + 10..EVENTS {
                tap.see(&event(at, 0, &[at as u8; 64]));
            }
        });
        let (mut handed, mut last) = (0, None);
        let mut drain = || {
            while let Some(record) = stream.pop() {
                assert!(last < Some(record.at), "in order, and none twice");
                last = Some(record.at);
                assert!(record.after() == [record.at.0 as u8; 64], "whole");
                handed += 1;
                stream.give_back(record);
            }
        };
        while !worker.is_finished() {
            drain();
        }
        worker.join().unwrap();
        drain();
        assert_eq!(handed + stream.missed(1), EVENTS);
        assert_eq!(stream.free.len() as u64, records, "no record is lost");
    }
}

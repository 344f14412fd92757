//! Messages as packets at the line rate of their source, and many sources merged by time.

use std::cmp::Reverse;
use std::collections::BinaryHeap;

use dataplane::clock::Nanos;

use super::Message;
use super::sizes::{Framing, Segments, segment};

/// One packet of a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Packet {
    /// When it begins, from the start.
    pub at: Nanos,
    /// Bytes with FCS.
    pub frame_bytes: u16,
    /// The flow of its message.
    pub flow: u64,
    /// Which message of its source it is of, from 0.
    pub message: u64,
}

/// The packets of one source: messages one after the other, none before its instant, none before the line is free.
#[derive(Clone, Debug)]
pub struct Packets<M> {
    messages: M,
    framing: Framing,
    ns_per_byte: f64,
    /// When the line is free.
    free: f64,
    frames: Segments,
    flow: u64,
    /// Messages begun.
    begun: u64,
}

impl<M: Iterator<Item = Message>> Packets<M> {
    /// `messages` cut by `framing`, on a line of `line_bps` bits per second at L1 (20 bytes for each frame besides it).
    #[must_use]
    pub fn new(messages: M, framing: Framing, line_bps: f64) -> Self {
        Self {
            messages,
            framing,
            ns_per_byte: 8e9 / line_bps,
            free: 0.0,
            frames: segment(0, framing),
            flow: 0,
            begun: 0,
        }
    }
}

impl<M: Iterator<Item = Message>> Iterator for Packets<M> {
    type Item = Packet;

    #[inline]
    fn next(&mut self) -> Option<Packet> {
        let frame_bytes = loop {
            if let Some(frame_bytes) = self.frames.next() {
                break frame_bytes;
            }
            let message = self.messages.next()?;
            self.free = self.free.max(message.at.0 as f64);
            self.frames = segment(message.bytes, self.framing);
            self.flow = message.flow;
            self.begun += 1;
        };
        let at = Nanos(self.free as u64);
        self.free += (f64::from(frame_bytes) + 20.0) * self.ns_per_byte;
        Some(Packet {
            at,
            frame_bytes,
            flow: self.flow,
            message: self.begun - 1,
        })
    }
}

/// What has an instant.
pub trait Due {
    /// When it is due.
    fn due(&self) -> Nanos;
}

impl Due for Message {
    fn due(&self) -> Nanos {
        self.at
    }
}

impl Due for Packet {
    fn due(&self) -> Nanos {
        self.at
    }
}

/// Several sources as one, in order of time: yields (source, what it sends); the lower source first at the same instant.
#[derive(Clone, Debug)]
pub struct Merged<I: Iterator> {
    sources: Vec<I>,
    /// The next of each source.
    waiting: Vec<Option<I::Item>>,
    due: BinaryHeap<Reverse<(Nanos, u32)>>,
}

impl<I: Iterator<Item: Due>> Merged<I> {
    /// These sources, numbered from 0.
    #[must_use]
    pub fn new(sources: impl IntoIterator<Item = I>) -> Self {
        let mut sources: Vec<I> = sources.into_iter().collect();
        let waiting: Vec<Option<I::Item>> = sources.iter_mut().map(Iterator::next).collect();
        let due = waiting
            .iter()
            .zip(0..)
            .filter_map(|(next, index)| Some(Reverse((next.as_ref()?.due(), index))));
        Self {
            due: due.collect(),
            sources,
            waiting,
        }
    }
}

impl<I: Iterator<Item: Due>> Iterator for Merged<I> {
    type Item = (u32, I::Item);

    #[inline]
    fn next(&mut self) -> Option<Self::Item> {
        let Reverse((_, index)) = self.due.pop()?;
        let place = index as usize;
        let item = std::mem::replace(&mut self.waiting[place], self.sources[place].next())?;
        if let Some(next) = &self.waiting[place] {
            self.due.push(Reverse((next.due(), index)));
        }
        Some((index, item))
    }
}

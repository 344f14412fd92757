//! Frames and the packets in them, as everything above the sockets sees them.
//!
//! A [`Frame`] has exactly one owner at any time: the [`FramePool`], the kernel (then there is no `Frame` value at all), a
//! batch, or a priority ring. The pool and the kernel's rings are where frames rest; a worker audits that none is missing.

pub use af_xdp::{Frame, Umem};
use arrayvec::ArrayVec;

/// Most packets a worker takes together. Copy mode moves 32 per system call and zero-copy drivers refill by 64; more would
/// only make the first packet wait for the last, fewer would pay the ring and clock costs more often.
pub const BATCH: usize = 64;

/// One packet: the bytes of an Ethernet frame without FCS, lying in a frame.
#[must_use = "a packet that is dropped leaks its frame"]
#[derive(Debug)]
pub struct Packet {
    /// Where the bytes lie.
    pub frame: Frame,
    /// Bytes the packet had on the wire. More than lie in the frame only in captures that were cut short.
    pub wire_len: u32,
}

impl Packet {
    /// A packet that is wholly in `frame`.
    #[inline]
    pub fn whole(frame: Frame) -> Self {
        let wire_len = frame.len() as u32;
        Self { frame, wire_len }
    }
}

/// Up to [`BATCH`] packets.
pub type Batch = ArrayVec<Packet, BATCH>;

/// The free frames of one worker.
#[derive(Debug)]
pub struct FramePool {
    free: Vec<Frame>,
    reserve: usize,
}

impl FramePool {
    /// Owns `frames`. Below a quarter of them the pool says it is low: then only conforming packets may wait in rings, so
    /// that a backlog of excess can never take the frames that receiving needs.
    #[must_use]
    pub fn new(frames: Vec<Frame>) -> Self {
        let reserve = frames.len() / 4;
        Self { free: frames, reserve }
    }

    /// Takes a free frame.
    #[inline]
    pub fn take(&mut self) -> Option<Frame> {
        self.free.pop()
    }

    /// Takes a frame back. Never allocates: all frames there are fit.
    #[inline]
    pub fn put(&mut self, frame: Frame) {
        self.free.push(frame);
    }

    /// Whether what is left should go to conforming packets only.
    #[inline]
    #[must_use]
    pub fn is_low(&self) -> bool {
        self.free.len() < self.reserve
    }

    /// How many frames are free.
    #[must_use]
    pub fn len(&self) -> usize {
        self.free.len()
    }

    /// Whether no frame is free.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.free.is_empty()
    }

    /// The free frames themselves, for ports that move many at once.
    #[inline]
    pub fn frames(&mut self) -> &mut Vec<Frame> {
        &mut self.free
    }
}

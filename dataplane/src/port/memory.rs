//! A port made of two lists. What a test or a replay puts in is received; what is sent can be taken out.

use std::collections::VecDeque;

use super::Port;
use crate::frame::{Batch, FramePool, Packet};
use crate::stats::Amount;

/// A port in memory. It holds at most `room` sent packets until they are taken, so back-pressure can be tested.
#[derive(Debug)]
pub struct MemoryPort {
    incoming: VecDeque<Packet>,
    outgoing: VecDeque<Packet>,
    room: usize,
    partial_checksums: bool,
}

impl MemoryPort {
    /// An empty port that takes up to `room` packets before somebody must take them out.
    #[must_use]
    pub fn new(room: usize) -> Self {
        Self {
            incoming: VecDeque::with_capacity(room),
            outgoing: VecDeque::with_capacity(room),
            room,
            partial_checksums: false,
        }
    }

    /// The same port, receiving like a veth end whose peer leaves transport checksums to the device.
    #[must_use]
    pub fn with_partial_checksums(mut self) -> Self {
        self.partial_checksums = true;
        self
    }

    /// Puts a packet on the wire towards this port.
    pub fn arrive(&mut self, packet: Packet) {
        self.incoming.push_back(packet);
    }

    /// Takes the oldest packet that was sent out of this port.
    pub fn departed(&mut self) -> Option<Packet> {
        self.outgoing.pop_front()
    }
}

impl Port for MemoryPort {
    fn rx_batch(&mut self, max: usize, batch: &mut Batch) {
        let take = max.min(batch.remaining_capacity()).min(self.incoming.len());
        for packet in self.incoming.drain(..take) {
            batch.push(packet);
        }
    }

    fn refill(&mut self, _pool: &mut FramePool) {}

    fn tx_room(&mut self) -> usize {
        self.room - self.outgoing.len()
    }

    #[inline]
    fn tx(&mut self, packet: Packet) -> Result<(), Packet> {
        if self.outgoing.len() == self.room {
            return Err(packet);
        }
        self.outgoing.push_back(packet);
        Ok(())
    }

    fn flush(&mut self, _pool: &mut FramePool) -> Amount {
        Amount::default()
    }

    fn has_partial_checksums(&self) -> bool {
        self.partial_checksums
    }

    fn frames_inside(&self) -> usize {
        self.incoming.len() + self.outgoing.len()
    }
}

//! A port on a real interface: one AF_XDP socket on one queue.
//!
//! Receives into frames of the worker's UMEM and sends frames of the same UMEM, so a packet that crosses from one port of
//! a wire to the other is never copied by us.

use af_xdp::{Kick, KickCounts, Socket, SocketConfig, Statistics, Umem};

use super::Port;
use crate::clock::{Clock, MonotonicClock, Nanos};
use crate::frame::{Batch, FramePool, Packet};
use crate::stats::Amount;

/// What a port is bound to.
#[derive(Clone, Debug)]
pub struct XdpPortConfig {
    /// Kernel index of the interface.
    pub interface_index: u32,
    /// Queue of the interface.
    pub queue: u32,
    /// Ring sizes and binding flags.
    pub socket: SocketConfig,
    /// Whether packets may arrive with a transport checksum still to be filled in (see [`crate::checksum`]).
    pub partial_checksums: bool,
}

/// One queue of one interface, through AF_XDP.
pub struct XdpPort {
    socket: Socket,
    partial_checksums: bool,
    /// Lengths of the packets in the TX ring, in order, so that a drop reported by the kernel can be counted in bytes.
    lengths: Box<[u32]>,
    staged: u32,
    consumed: u32,
    /// Until then the kernel is not woken, because it has just said that the link is down.
    down_until: Option<Nanos>,
}

/// How long a port whose link is down is left alone: asking at every turn would be a system call each, for nothing.
const DOWN_PAUSE: Nanos = Nanos(10 * 1_000_000);

impl XdpPort {
    /// Binds a socket. Its fill ring is stocked from `pool` before the bind, because some drivers leak otherwise.
    ///
    /// # Errors
    /// Anything [`Socket::bind`] reports.
    pub fn bind(umem: &Umem, config: &XdpPortConfig, pool: &mut FramePool) -> Result<Self, af_xdp::Error> {
        let socket = Socket::bind(
            umem,
            config.interface_index,
            config.queue,
            &config.socket,
            pool.frames(),
        )?;
        let lengths = vec![0; config.socket.tx_size as usize].into_boxed_slice();
        Ok(Self {
            socket,
            partial_checksums: config.partial_checksums,
            lengths,
            staged: 0,
            consumed: 0,
            down_until: None,
        })
    }

    /// The socket, for the XDP program's map, poll(2) and statistics.
    #[must_use]
    pub fn socket(&self) -> &Socket {
        &self.socket
    }

    /// The kernel's own counters of this socket.
    ///
    /// # Errors
    /// getsockopt(2) fails.
    pub fn statistics(&self) -> Result<Statistics, af_xdp::Error> {
        self.socket.statistics()
    }

    /// Whether the link was down a moment ago. Reads the clock only then.
    fn is_down(&mut self) -> bool {
        self.down_until = self.down_until.filter(|&until| MonotonicClock.now() < until);
        self.down_until.is_some()
    }

    /// Length of the packet that the kernel consumed last.
    fn last_consumed_len(&mut self) -> u32 {
        self.consumed = self.staged.wrapping_sub(self.socket.tx_pending());
        self.lengths[self.consumed.wrapping_sub(1) as usize & (self.lengths.len() - 1)]
    }
}

impl Port for XdpPort {
    #[inline]
    fn rx_batch(&mut self, max: usize, batch: &mut Batch) {
        let max = max.min(batch.remaining_capacity());
        self.socket.receive(max, |frame| batch.push(Packet::whole(frame)));
    }

    #[inline]
    fn refill(&mut self, pool: &mut FramePool) {
        self.socket.refill(pool.frames(), usize::MAX);
        // What it came to is in the socket's own counts; a refused wake-up is tried again in the next turn.
        let _woken = self.socket.wake_rx();
    }

    #[inline]
    fn tx_room(&mut self) -> usize {
        self.socket.tx_room()
    }

    #[inline]
    fn tx(&mut self, packet: Packet) -> Result<(), Packet> {
        let wire_len = packet.wire_len;
        match self.socket.push_tx(packet.frame) {
            Ok(()) => {
                self.lengths[self.staged as usize & (self.lengths.len() - 1)] = wire_len;
                self.staged = self.staged.wrapping_add(1);
                Ok(())
            }
            Err(frame) => Err(Packet { frame, wire_len }),
        }
    }

    #[inline]
    fn flush(&mut self, pool: &mut FramePool) -> Amount {
        let mut dropped = Amount::default();
        self.socket.submit_tx();
        // Copy mode moves a limited number of packets per call and says EAGAIN; EBUSY ends a call after each packet that
        // the device dropped. Neither may leave a standing backlog in the TX ring, so go on while the kernel makes progress.
        let mut pending = self.socket.tx_pending();
        while pending > 0 && !self.is_down() {
            match self.socket.kick_tx() {
                Kick::Dropped => dropped += Amount::one(self.last_consumed_len()),
                Kick::Again => {}
                Kick::NetworkDown => {
                    self.down_until = Some(MonotonicClock.now().plus(DOWN_PAUSE));
                    break;
                }
                _ => break,
            }
            let left = self.socket.tx_pending();
            if left == pending {
                break;
            }
            pending = left;
        }
        self.socket.complete(pool.frames());
        dropped
    }

    fn has_partial_checksums(&self) -> bool {
        self.partial_checksums
    }

    fn kicks(&self) -> KickCounts {
        self.socket.kick_counts()
    }

    fn frames_inside(&self) -> usize {
        (self.socket.frames_in_fill() + self.socket.frames_in_tx()) as usize
    }
}

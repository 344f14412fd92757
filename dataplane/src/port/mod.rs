//! Ports: where packets come from and go to. One queue of one interface, or something that stands in for it.
//!
//! - [`XdpPort`]: an AF_XDP socket on a real interface (NIC, virtio, veth);
//! - [`MemoryPort`]: two lists, for tests, benches and `weir replay`.
//!
//! A worker owns its ports; nothing here is shared. [`Program`] is the XDP program that steers packets to the sockets.

mod memory;
mod program;
mod xdp;

pub use memory::MemoryPort;
pub use program::{Attached, KernelCounters, OnStall, Program, ProgramError, QUEUES_MAX, XdpMode};
pub use xdp::{XdpPort, XdpPortConfig};

pub use af_xdp::KickCounts;

use crate::frame::{Batch, FramePool, Packet};
use crate::stats::Amount;

/// One queue of one interface.
pub trait Port {
    /// Takes up to `max` received packets, as far as `batch` has room.
    fn rx_batch(&mut self, max: usize, batch: &mut Batch);

    /// Gives the port free frames to receive into, as many as it wants and the pool has.
    fn refill(&mut self, pool: &mut FramePool);

    /// How many packets [`Port::tx`] would take now.
    fn tx_room(&mut self) -> usize;

    /// Stages a packet for sending; gives it back when there is no room.
    ///
    /// # Errors
    /// The packet itself, when the port has no room.
    fn tx(&mut self, packet: Packet) -> Result<(), Packet>;

    /// Sends what is staged, takes back the frames of what was sent earlier, and says what the device dropped on the way.
    fn flush(&mut self, pool: &mut FramePool) -> Amount;

    /// Whether local senders may hand over packets whose transport checksum is still to be filled in (veth).
    fn has_partial_checksums(&self) -> bool {
        false
    }

    /// How often each answer came back from a wake-up for sending.
    fn kicks(&self) -> KickCounts {
        KickCounts::default()
    }

    /// Frames this port or the kernel below it holds, for the audit that no frame is missing.
    fn frames_inside(&self) -> usize;
}

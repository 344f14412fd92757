//! What becomes of a captured packet before it can be sent: skipped for a reason, or padded, rewritten, finished.

use dataplane::packet::{self, Parsed};
use serde::Serialize;

use crate::capture::Captured;
use crate::rate::Layer;

use super::rewrite::{self, Rewrite, vlan_tags};
use super::sink::Limits;
use super::timing::counted;

/// What happens to packets of which the capture holds only the beginning.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum CutPackets {
    /// They are skipped and counted.
    #[default]
    Skip,
    /// Zeros take the place of what is missing, and checksums of TCP and UDP are computed for them.
    Pad,
}

/// Why a packet is not sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Skip {
    Cut,
    TooLong,
    TooShort,
}

/// Packets of the capture that were not sent, each time they were due.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Skipped {
    /// The capture holds only their beginning (its snap length).
    pub cut: u64,
    /// Longer than the interface's MTU or a frame of the UMEM allow.
    pub too_long: u64,
    /// Shorter than an Ethernet header.
    pub too_short: u64,
}

impl Skipped {
    pub(super) fn count(&mut self, skip: Skip) {
        *match skip {
            Skip::Cut => &mut self.cut,
            Skip::TooLong => &mut self.too_long,
            Skip::TooShort => &mut self.too_short,
        } += 1;
    }

    /// All of them.
    #[must_use]
    pub fn total(&self) -> u64 {
        self.cut + self.too_long + self.too_short
    }
}

/// One packet of a chunk.
#[derive(Clone, Copy, Debug)]
pub(super) struct Entry {
    /// Nanoseconds since the first packet of the pass.
    pub(super) position: u64,
    /// Where its bytes lie in the chunk.
    pub(super) start: u32,
    pub(super) len: u32,
    /// Bytes that a bit rate counts.
    pub(super) counted: u32,
    pub(super) skip: Option<Skip>,
    pub(super) backwards: bool,
    pub(super) padded: bool,
    pub(super) finished: bool,
}

/// Makes captured packets ready.
#[derive(Clone, Debug)]
pub(super) struct Preparer {
    pub(super) rewrite: Rewrite,
    pub(super) cut: CutPackets,
    pub(super) finish_checksums: bool,
    pub(super) limits: Limits,
    pub(super) layer: Layer,
}

impl Preparer {
    /// Appends the packet's bytes to `bytes`, unless it is skipped. What is in `captured` afterwards is of no use.
    pub(super) fn prepare(
        &self,
        captured: &mut Captured,
        position: u64,
        backwards: bool,
        bytes: &mut Vec<u8>,
    ) -> Entry {
        let start = bytes.len() as u32;
        let mut entry = Entry {
            position,
            start,
            len: 0,
            counted: 0,
            skip: None,
            backwards,
            padded: false,
            finished: false,
        };
        entry.skip = self.change(captured, &mut entry);
        if entry.skip.is_none() {
            let packet = &captured.data;
            // Within the limits of a frame.
            entry.len = packet.len() as u32;
            entry.counted = counted(self.layer, packet.len(), vlan_tags(packet)) as u32;
            bytes.extend_from_slice(packet);
        }
        entry
    }

    fn change(&self, captured: &mut Captured, entry: &mut Entry) -> Option<Skip> {
        let wire_len = captured.wire_len as usize;
        let packet = &mut captured.data;
        if wire_len < ETHERNET {
            return Some(Skip::TooShort);
        }
        // Before a byte is added: a capture may claim 4 GiB. Two tags less may still make it fit.
        if wire_len > self.limits.packet_bytes_max + 8 {
            return Some(Skip::TooLong);
        }
        entry.padded = wire_len > packet.len();
        if entry.padded && self.cut == CutPackets::Skip {
            return Some(Skip::Cut);
        }
        packet.resize(wire_len, 0);
        if self.finish_checksums
            && !entry.padded
            && let Parsed::Ip(at) = packet::parse(packet, packet.len())
        {
            entry.finished = rewrite::finish(packet, &at);
        }
        entry.finished |= self.rewrite.apply(packet);
        if entry.padded {
            rewrite::recompute(packet);
        }
        if !self.limits.allow(packet.len(), vlan_tags(packet)) {
            return Some(Skip::TooLong);
        }
        None
    }
}

const ETHERNET: usize = 14;

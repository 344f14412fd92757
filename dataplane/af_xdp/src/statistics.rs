//! The kernel's counters of one socket.

use std::os::fd::BorrowedFd;

use crate::error::{Error, Step};
use crate::sys;

/// `XDP_STATISTICS` (struct xdp_statistics of linux/if_xdp.h): packets or descriptors since the socket was made. RX
/// losses show here and not in the interface's own error counters.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Statistics {
    /// Packets dropped for reasons other than the ones below: too long for a frame, or the fill ring was empty.
    pub rx_dropped: u64,
    /// Addresses in the fill ring that the kernel refused. Not 0: a bug.
    pub rx_invalid_descs: u64,
    /// Descriptors in the TX ring that the kernel refused; their frames never complete. Not 0: a bug.
    pub tx_invalid_descs: u64,
    /// Packets dropped because the RX ring was full: the worker is too slow.
    pub rx_ring_full: u64,
    /// Times the kernel found the fill ring empty: the pool ran dry, or refilling came too late.
    pub rx_fill_ring_empty_descs: u64,
    /// Times the kernel found the TX ring empty.
    pub tx_ring_empty_descs: u64,
}

impl Statistics {
    /// Reads the counters of the socket behind `fd`: its own, or a duplicate that another thread keeps while the socket is
    /// busy elsewhere. One system call: between batches, not per packet.
    ///
    /// # Errors
    /// Whatever getsockopt answers; `fd` may not be an AF_XDP socket.
    pub fn read(fd: BorrowedFd<'_>) -> Result<Self, Error> {
        let zero = libc::xdp_statistics {
            rx_dropped: 0,
            rx_invalid_descs: 0,
            tx_invalid_descs: 0,
            rx_ring_full: 0,
            rx_fill_ring_empty_descs: 0,
            tx_ring_empty_descs: 0,
        };
        let counters =
            sys::get_option(fd, libc::SOL_XDP, libc::XDP_STATISTICS, zero).map_err(|source| Error::System {
                step: Step::GetStatistics,
                source,
            })?;
        Ok(Self {
            rx_dropped: counters.rx_dropped,
            rx_invalid_descs: counters.rx_invalid_descs,
            tx_invalid_descs: counters.tx_invalid_descs,
            rx_ring_full: counters.rx_ring_full,
            rx_fill_ring_empty_descs: counters.rx_fill_ring_empty_descs,
            tx_ring_empty_descs: counters.tx_ring_empty_descs,
        })
    }
}

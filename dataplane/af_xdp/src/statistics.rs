//! The kernel's counters of one socket.

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

//! What can go wrong while memory and sockets are set up: the step, the errno, and what an operator can do about it.

use std::fmt;
use std::io;

/// A set-up step that failed. What happens to a packet is never an error: see [`Kick`](crate::Kick) and
/// [`Statistics`](crate::Statistics).
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A configuration value the kernel would refuse.
    #[error("{field} = {value}: allowed is {allowed}")]
    Config {
        /// The field of [`UmemConfig`](crate::UmemConfig) or [`SocketConfig`](crate::SocketConfig).
        field: &'static str,
        /// Its value.
        value: u32,
        /// The values it may have.
        allowed: &'static str,
    },
    /// A system call that failed.
    #[error("{step}: {source}")]
    System {
        /// What was being done.
        step: Step,
        /// What the kernel answered.
        source: io::Error,
    },
    /// The process has made 2^32 - 1 UMEMs: identities have run out and are never used twice.
    #[error("no UMEM identity is left in this process")]
    UmemsExhausted,
}

impl Error {
    pub(crate) fn config(field: &'static str, value: u32, allowed: &'static str) -> Self {
        Self::Config { field, value, allowed }
    }

    /// The kernel's error number, if a system call failed.
    #[must_use]
    pub fn errno(&self) -> Option<i32> {
        match self {
            Self::System { source, .. } => source.raw_os_error(),
            _ => None,
        }
    }

    /// The step that failed, if a system call failed.
    #[must_use]
    pub fn step(&self) -> Option<&Step> {
        match self {
            Self::System { step, .. } => Some(step),
            _ => None,
        }
    }

    /// What usually mends it, in one sentence for an operator; `None` where the message itself says all there is.
    #[must_use]
    pub fn remedy(&self) -> Option<&'static str> {
        let (step, errno) = (self.step()?, self.errno()?);
        Some(match (step, errno) {
            (Step::MapHugePages, libc::ENOMEM) => {
                "not enough huge pages of 2 MiB are free: raise /proc/sys/vm/nr_hugepages, or set huge_pages = false"
            }
            (Step::OpenSocket, libc::EPERM) => "an AF_XDP socket needs the capability CAP_NET_RAW",
            (Step::OpenSocket, libc::EAFNOSUPPORT) => "this kernel was built without CONFIG_XDP_SOCKETS",
            (Step::RegisterUmem, libc::ENOBUFS) => {
                "the UMEM is larger than RLIMIT_MEMLOCK: raise it (ulimit -l), or grant CAP_IPC_LOCK"
            }
            (Step::RegisterUmem, libc::EINVAL) => {
                "the kernel is too old for tx_metadata (6.11), or refuses the frame size"
            }
            (Step::SetBusyPoll, libc::EPERM) => "busy polling needs the capability CAP_NET_ADMIN",
            (Step::Bind { .. }, libc::EPERM) => {
                "binding needs the capability CAP_NET_RAW (and CAP_NET_ADMIN for zero-copy)"
            }
            (Step::Bind { .. }, libc::EBUSY) => {
                "another socket is bound to this queue: look for it with `ss --xdp -p` or `bpftool net`, or stop its program"
            }
            (Step::Bind { .. }, libc::EINVAL) => {
                "the interface has no such queue (`ethtool -l`), or another socket of this UMEM is bound to it (`ss --xdp -p`)"
            }
            (Step::Bind { .. } | Step::Device { .. }, libc::ENODEV | libc::ENXIO) => {
                "the interface is not there (any more) in this network namespace"
            }
            (Step::Bind { .. }, libc::ENETDOWN) => "the interface is down: `ip link set <interface> up`",
            (Step::Bind { .. }, libc::EOPNOTSUPP) => {
                "the driver has no zero-copy (or no multi-buffer) support: bind with BindMode::Auto or BindMode::Copy"
            }
            (Step::Bind { .. }, libc::ERANGE) => {
                "the MTU is larger than one frame: lower it, or use multi_buffer with an XDP program that accepts fragments"
            }
            (Step::Device { .. } | Step::HoldPromiscuous, libc::EPERM) => {
                "reading and changing interfaces needs the capabilities CAP_NET_ADMIN and CAP_NET_RAW"
            }
            (Step::Device { .. }, libc::EOPNOTSUPP) => "the driver does not offer this setting",
            (Step::MapArray, libc::EINVAL | libc::EPERM | libc::EACCES | libc::ENODEV) => {
                "the map must be a BPF array created with BPF_F_MMAPABLE, writable, and not smaller than asked for"
            }
            _ => return None,
        })
    }
}

/// What was being done when a system call failed.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Step {
    /// mmap of the UMEM.
    MapUmem,
    /// mmap of the UMEM in huge pages.
    MapHugePages,
    /// socket(AF_XDP).
    OpenSocket,
    /// setsockopt XDP_UMEM_REG.
    RegisterUmem,
    /// setsockopt of one ring's size.
    SizeRing(RingName),
    /// getsockopt XDP_MMAP_OFFSETS.
    RingOffsets,
    /// mmap of one ring.
    MapRing(RingName),
    /// setsockopt XDP_MAX_TX_SKB_BUDGET.
    SetTxBudget,
    /// setsockopt SO_PREFER_BUSY_POLL, SO_BUSY_POLL or SO_BUSY_POLL_BUDGET.
    SetBusyPoll,
    /// bind to a queue.
    Bind {
        /// Index of the interface.
        interface_index: u32,
        /// The queue.
        queue: u32,
        /// The UMEM was registered by an earlier socket (XDP_SHARED_UMEM).
        shared_umem: bool,
    },
    /// getsockopt XDP_STATISTICS.
    GetStatistics,
    /// ppoll.
    Poll,
    /// A question to, or a change of, an interface.
    Device {
        /// The interface by name, or `#index`.
        interface: String,
        /// What was asked.
        request: &'static str,
    },
    /// setsockopt PACKET_ADD_MEMBERSHIP with PACKET_MR_PROMISC.
    HoldPromiscuous,
    /// mmap of a BPF array.
    MapArray,
}

impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::MapUmem => f.write_str("map the UMEM"),
            Self::MapHugePages => f.write_str("map the UMEM in huge pages (/proc/sys/vm/nr_hugepages)"),
            Self::OpenSocket => f.write_str("open an AF_XDP socket"),
            Self::RegisterUmem => f.write_str("register the UMEM (XDP_UMEM_REG)"),
            Self::SizeRing(ring) => write!(f, "set the size of the {ring} ring"),
            Self::RingOffsets => f.write_str("ask for the layout of the rings (XDP_MMAP_OFFSETS)"),
            Self::MapRing(ring) => write!(f, "map the {ring} ring"),
            Self::SetTxBudget => f.write_str("set tx_budget (XDP_MAX_TX_SKB_BUDGET)"),
            Self::SetBusyPoll => f.write_str("set busy_poll (SO_PREFER_BUSY_POLL)"),
            Self::Bind {
                interface_index,
                queue,
                shared_umem,
            } => {
                let shared = if *shared_umem { " with a shared UMEM" } else { "" };
                write!(f, "bind to queue {queue} of interface #{interface_index}{shared}")
            }
            Self::GetStatistics => f.write_str("ask for the counters (XDP_STATISTICS)"),
            Self::Poll => f.write_str("poll"),
            Self::Device { interface, request } => write!(f, "{interface}: {request}"),
            Self::HoldPromiscuous => f.write_str("hold promiscuous mode (PACKET_MR_PROMISC)"),
            Self::MapArray => f.write_str("map a BPF array"),
        }
    }
}

/// One of the four rings of a socket.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RingName {
    /// Empty frames to the kernel.
    Fill,
    /// Received packets from the kernel.
    Rx,
    /// Packets to send to the kernel.
    Tx,
    /// Sent frames back from the kernel.
    Completion,
}

impl fmt::Display for RingName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Fill => "fill",
            Self::Rx => "RX",
            Self::Tx => "TX",
            Self::Completion => "completion",
        })
    }
}

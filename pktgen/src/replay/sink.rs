//! Where packets go: a queue of an interface by AF_XDP, or whatever a test wants.

use af_xdp::{Frame, Kick, Socket, SocketConfig, Umem, UmemConfig, device};

/// Takes packets. One thread calls it.
pub trait PacketSink {
    /// Which packets it takes.
    fn limits(&self) -> Limits;

    /// How many packets [`push`](Self::push) takes now.
    fn room(&mut self) -> usize;

    /// Takes a packet within the [`limits`](Self::limits), to be sent with the next [`flush`](Self::flush). False if it
    /// was not taken.
    fn push(&mut self, packet: &[u8]) -> bool;

    /// Sends what was pushed.
    ///
    /// # Errors
    /// The interface cannot send any more; what mends it.
    fn flush(&mut self) -> Result<(), String>;

    /// Packets taken and not yet sent.
    fn in_flight(&self) -> u64;

    /// Packets taken that the device refused.
    fn dropped(&self) -> u64;
}

/// The largest packets, in bytes from the Ethernet header on, without FCS.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Of any packet.
    pub packet_bytes_max: usize,
    /// Of a packet without a VLAN tag; one with tags may be 4 longer, as far as `packet_bytes_max` allows.
    pub untagged_bytes_max: usize,
}

impl Limits {
    pub(super) fn allow(&self, bytes: usize, tags: usize) -> bool {
        let tag = if tags > 0 { 4 } else { 0 };
        bytes <= self.packet_bytes_max && bytes <= self.untagged_bytes_max + tag
    }
}

/// One queue of one interface, by AF_XDP. Nothing is received.
pub struct XdpSink {
    interface: String,
    socket: Socket,
    umem: Umem,
    pool: Vec<Frame>,
    limits: Limits,
    dropped: u64,
}

impl XdpSink {
    /// Binds a socket to `queue` of the interface in the calling thread's namespace. Needs CAP_NET_RAW.
    ///
    /// # Errors
    /// No such interface or queue, an interface that is down, missing privileges.
    pub fn bind(interface: &str, queue: u32) -> Result<Self, SinkError> {
        let failed = |source| SinkError::Socket {
            interface: interface.to_owned(),
            source,
        };
        let index = device::index(interface).map_err(failed)?;
        if !device::is_up(interface).map_err(failed)? {
            return Err(SinkError::Down {
                interface: interface.to_owned(),
            });
        }
        let mtu = device::mtu(interface).map_err(failed)? as usize;
        let (umem, pool) = Umem::new(&UmemConfig {
            frame_count: FRAMES,
            frame_size: FRAME_SIZE,
            ..UmemConfig::default()
        })
        .map_err(failed)?;
        let config = SocketConfig {
            rx_size: 64,
            fill_size: 64,
            tx_size: TX_RING,
            completion_size: FRAMES,
            tx_budget: Some(TX_RING),
            ..SocketConfig::default()
        };
        let socket = Socket::bind(&umem, index, queue, &config, &mut Vec::new()).map_err(failed)?;
        let limits = Limits {
            packet_bytes_max: pool.first().map_or(0, |frame| umem.capacity(frame)),
            untagged_bytes_max: mtu.saturating_add(ETHERNET),
        };
        Ok(Self {
            interface: interface.to_owned(),
            socket,
            umem,
            pool,
            limits,
            dropped: 0,
        })
    }
}

impl PacketSink for XdpSink {
    fn limits(&self) -> Limits {
        self.limits
    }

    fn room(&mut self) -> usize {
        if self.pool.is_empty() {
            self.socket.complete(&mut self.pool);
        }
        self.socket.tx_room().min(self.pool.len())
    }

    fn push(&mut self, packet: &[u8]) -> bool {
        let Some(mut frame) = self.pool.pop() else {
            return false;
        };
        self.umem.reset(&mut frame);
        if !self.umem.set_len(&mut frame, packet.len()) {
            self.pool.push(frame);
            return false;
        }
        self.umem.bytes_mut(&mut frame).copy_from_slice(packet);
        match self.socket.push_tx(frame) {
            Ok(()) => true,
            Err(frame) => {
                self.pool.push(frame);
                false
            }
        }
    }

    fn flush(&mut self) -> Result<(), String> {
        self.socket.submit_tx();
        for _ in 0..KICKS_MAX {
            if self.socket.tx_pending() == 0 {
                break;
            }
            match self.socket.kick_tx() {
                Kick::Dropped => self.dropped += 1,
                Kick::Again => {
                    self.socket.complete(&mut self.pool);
                }
                Kick::NetworkDown => return Err(format!("{0} went down: `ip link set {0} up`", self.interface)),
                Kick::Other(errno) => return Err(format!("{} cannot send any more: errno {errno}", self.interface)),
                Kick::Sent | Kick::NotNeeded | Kick::NoBuffers => break,
            }
        }
        self.socket.complete(&mut self.pool);
        Ok(())
    }

    fn in_flight(&self) -> u64 {
        self.socket.frames_in_tx()
    }

    fn dropped(&self) -> u64 {
        self.dropped
    }
}

/// Why packets cannot be sent at all.
#[derive(Debug, thiserror::Error)]
pub enum SinkError {
    /// The interface or its socket.
    #[error("{interface}: {source}{}", source.remedy().map(|remedy| format!(" ({remedy})")).unwrap_or_default())]
    Socket {
        /// The interface.
        interface: String,
        /// What failed.
        source: af_xdp::Error,
    },
    /// The interface is down.
    #[error("{interface} is down, so that nothing can be sent on it: `ip link set {interface} up`")]
    Down {
        /// The interface.
        interface: String,
    },
}

/// The largest that sockets take: packets of up to 3840 bytes.
const FRAME_SIZE: u32 = 4096;
/// Twice the ring, because a frame completes only when its receiver lets go of the packet.
const FRAMES: u32 = 2 * TX_RING;
const TX_RING: u32 = 2048;
/// One for each packet of a batch that the device refuses, and some.
const KICKS_MAX: usize = 128;
/// Bytes of the Ethernet header.
const ETHERNET: usize = 14;

//! Interfaces as the appliance finds and leaves them: what it must know of one, what it must change, and how it is put back.

use std::collections::BTreeMap;
use std::os::fd::BorrowedFd;

use af_xdp::{Statistics, device};

/// Why an interface cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum InterfaceError {
    /// There is none of that name.
    #[error("interface `{name}` does not exist")]
    Missing {
        /// Its name in the configuration.
        name: String,
    },
    /// It is there, but a question or a change was refused.
    #[error("interface `{name}`: cannot {what}: {cause}")]
    Refused {
        /// Its name.
        name: String,
        /// What was tried.
        what: &'static str,
        /// The kernel's answer.
        cause: af_xdp::Error,
    },
}

impl InterfaceError {
    /// What the operator can do.
    #[must_use]
    pub fn remedy(&self) -> Option<String> {
        match self {
            InterfaceError::Missing { .. } => {
                Some("see `ip link` for the interfaces of this machine and this network namespace, and name one in `[[port]] interface`".into())
            }
            InterfaceError::Refused { .. } => Some("run as root, or with CAP_NET_ADMIN and CAP_NET_RAW".into()),
        }
    }
}

/// An interface made ready: up, promiscuous, without offloads that hide packets. Dropping it puts offloads and
/// promiscuity back; it stays up.
pub struct Interface {
    /// Its name.
    pub name: String,
    /// The kernel's number for it.
    pub index: u32,
    /// Largest IP packet, in bytes.
    pub mtu: u32,
    /// Driver, as ethtool names it.
    pub driver: String,
    /// Receive queues in use.
    pub queues: u32,
    _promiscuous: device::Promiscuous,
    switched_off: Vec<device::Offload>,
}

/// Offloads that would keep a packet, or a part of it, from us: VLAN tags stripped into metadata that AF_XDP does not see,
/// and packets merged beyond what a frame holds.
const HARMFUL: [device::Offload; 2] = [device::Offload::RxVlan, device::Offload::Lro];

impl Interface {
    /// Looks at the interface and makes it ready.
    ///
    /// # Errors
    /// It does not exist, or weir may not change it.
    pub fn prepare(name: &str) -> Result<Self, InterfaceError> {
        let refused = |what| {
            move |cause| InterfaceError::Refused {
                name: name.to_owned(),
                what,
                cause,
            }
        };
        let index = device::index(name).map_err(|_| InterfaceError::Missing { name: name.to_owned() })?;
        let mtu = device::mtu(name).map_err(refused("read its MTU"))?;
        let driver = device::driver(name).unwrap_or_else(|_| "unknown".to_owned());
        let queues = device::channels(name).map_err(refused("count its queues"))?.receiving();
        device::set_up(name, true).map_err(refused("set it up"))?;
        // XDP does not make an interface promiscuous, and a wire must carry packets for other people's addresses.
        let promiscuous = device::Promiscuous::hold(index).map_err(refused("make it promiscuous"))?;
        let mut switched_off = Vec::new();
        for offload in HARMFUL {
            // Not every driver has every offload, nor lets it be changed: then there is nothing to switch off.
            let on = device::offload(name, offload).unwrap_or(false);
            if on && device::set_offload(name, offload, false).is_ok() {
                switched_off.push(offload);
            }
        }
        Ok(Self {
            name: name.to_owned(),
            index,
            mtu,
            driver,
            queues,
            _promiscuous: promiscuous,
            switched_off,
        })
    }

    /// Whether senders on this machine hand packets to it without a transport checksum.
    #[must_use]
    pub fn has_partial_checksums(&self) -> bool {
        // On these the sender's stack sees a device that could fill checksums in, and no hardware ever does.
        matches!(
            self.driver.as_str(),
            "veth" | "virtio_net" | "tun" | "xen-netfront" | "hv_netvsc"
        )
    }
}

impl Drop for Interface {
    fn drop(&mut self) {
        for &offload in &self.switched_off {
            // The interface may be gone by now; then there is nothing to put back.
            let _restored = device::set_offload(&self.name, offload, true);
        }
    }
}

/// The kernel's XDP statistics of a socket, by their names in `struct xdp_statistics`.
#[must_use]
pub fn statistics_by_name(socket: BorrowedFd<'_>) -> BTreeMap<String, u64> {
    let Ok(s) = Statistics::read(socket) else {
        return BTreeMap::new();
    };
    let named = [
        ("rx_dropped", s.rx_dropped),
        ("rx_invalid_descs", s.rx_invalid_descs),
        ("tx_invalid_descs", s.tx_invalid_descs),
        ("rx_ring_full", s.rx_ring_full),
        ("rx_fill_ring_empty_descs", s.rx_fill_ring_empty_descs),
        ("tx_ring_empty_descs", s.tx_ring_empty_descs),
    ];
    named
        .into_iter()
        .map(|(name, value)| (name.to_owned(), value))
        .collect()
}

//! An interface as a bench needs to know it. Asks by ioctl, which follows the calling thread into its network namespace;
//! `/sys/class/net` does not.

use af_xdp::device::{self, Offload};
use serde::{Deserialize, Serialize};

/// An interface. What its driver does not say is `None` or empty.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Interface {
    /// Its name.
    pub name: String,
    /// What the bench does with it: "sends", "receives", "sends and receives".
    pub role: String,
    /// The driver.
    pub driver: String,
    /// The driver's version: most drivers give the kernel's.
    pub driver_version: String,
    /// The firmware's version.
    pub firmware: String,
    /// Where it sits, such as a PCI address.
    pub bus: String,
    /// The largest packet after the Ethernet header, in bytes.
    pub mtu: u32,
    /// Queues that receive.
    pub rx_queues: u32,
    /// Queues that send.
    pub tx_queues: u32,
    /// The device's own rings; drivers without hardware have none.
    pub rings: Option<RingSizes>,
    /// How long the device waits before it interrupts.
    pub coalescing: Option<Coalescing>,
    /// Offloads that can be asked for.
    pub offloads: Vec<OffloadState>,
    /// How XDP runs on it: "driver", "generic", "offload"; empty if it does not.
    pub xdp_mode: String,
    /// Whether sockets share memory with the device. `None` where there are none.
    pub zero_copy: Option<bool>,
}

/// Packets that the device's rings hold.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct RingSizes {
    /// Of each receiving queue.
    pub rx: u32,
    /// Of each sending queue.
    pub tx: u32,
    /// The most `rx` can be.
    pub rx_max: u32,
    /// The most `tx` can be.
    pub tx_max: u32,
}

/// How long the device waits before it interrupts.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Coalescing {
    /// After the first packet received, in microseconds.
    pub rx_us: u32,
    /// Or after so many packets received.
    pub rx_packets: u32,
    /// After the first packet sent, in microseconds.
    pub tx_us: u32,
    /// Or after so many packets sent.
    pub tx_packets: u32,
    /// The driver changes the above by itself.
    pub adaptive: bool,
}

/// One offload.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct OffloadState {
    /// Its name for `ethtool -K`.
    pub name: String,
    /// Whether it is on.
    pub on: bool,
}

impl Interface {
    /// Asks the interface of this name in the calling thread's namespace. `xdp_mode` and `zero_copy` are for the caller to
    /// fill in, who bound the sockets. No privilege is needed.
    ///
    /// # Errors
    /// ENODEV if there is no such interface.
    pub fn read(name: &str, role: &str) -> Result<Self, af_xdp::Error> {
        let mtu = device::mtu(name)?;
        let channels = device::channels(name)?;
        let driver = device::driver_info(name).unwrap_or_default();
        Ok(Self {
            name: name.to_owned(),
            role: role.to_owned(),
            driver: driver.driver,
            driver_version: driver.version,
            firmware: driver.firmware,
            bus: driver.bus,
            mtu,
            rx_queues: channels.receiving(),
            tx_queues: channels.sending(),
            rings: device::ring_sizes(name).ok().map(|rings| RingSizes {
                rx: rings.rx,
                tx: rings.tx,
                rx_max: rings.rx_max,
                tx_max: rings.tx_max,
            }),
            coalescing: device::coalescing(name).ok().map(|waits| Coalescing {
                rx_us: waits.rx_us,
                rx_packets: waits.rx_packets,
                tx_us: waits.tx_us,
                tx_packets: waits.tx_packets,
                adaptive: waits.adaptive_rx || waits.adaptive_tx,
            }),
            offloads: OFFLOADS
                .iter()
                .filter_map(|&(offload, name_of_it)| {
                    Some(OffloadState {
                        on: device::offload(name, offload).ok()?,
                        name: name_of_it.to_owned(),
                    })
                })
                .collect(),
            xdp_mode: String::new(),
            zero_copy: None,
        })
    }
}

const OFFLOADS: [(Offload, &str); 9] = [
    (Offload::RxChecksum, "rx"),
    (Offload::TxChecksum, "tx"),
    (Offload::ScatterGather, "sg"),
    (Offload::Tso, "tso"),
    (Offload::Gso, "gso"),
    (Offload::Gro, "gro"),
    (Offload::Lro, "lro"),
    (Offload::RxVlan, "rxvlan"),
    (Offload::TxVlan, "txvlan"),
];

#[cfg(test)]
mod tests {
    use super::*;
    use crate::lab::{Namespace, VethEnd, create_veth, privileged};

    #[test]
    fn the_loopback_interface_answers() {
        let interface = Interface::read("lo", "sends").unwrap();
        assert_eq!((interface.name.as_str(), interface.role.as_str()), ("lo", "sends"));
        assert!(interface.mtu >= 1500 && interface.rx_queues == 1);
        assert!(interface.offloads.iter().any(|offload| offload.name == "tso"));
    }

    #[test]
    fn a_missing_interface_is_named() {
        let error = Interface::read("nosuchport0", "sends").unwrap_err().to_string();
        assert!(error.starts_with("nosuchport0"), "{error}");
    }

    #[test]
    fn an_interface_is_asked_in_the_namespace_of_the_thread() {
        if let Err(error) = privileged() {
            eprintln!("SKIPPED: {error}");
            return;
        }
        let namespace = Namespace::new().unwrap();
        let mut near = VethEnd::new(&namespace, "near");
        near.mtu = 1400;
        near.queues = 2;
        create_veth(&near, &VethEnd::new(&namespace, "far")).unwrap();
        let interface = namespace.run(|| Interface::read("near", "receives")).unwrap().unwrap();
        assert_eq!((interface.driver.as_str(), interface.mtu), ("veth", 1400));
        assert_eq!((interface.rx_queues, interface.tx_queues), (2, 2));
        assert!(Interface::read("near", "receives").is_err(), "not in this namespace");
    }
}

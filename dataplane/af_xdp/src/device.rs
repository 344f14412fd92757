//! Questions to network interfaces, and the few settings AF_XDP depends on.
//!
//! All functions look in the network namespace of the calling thread, and take the interface by name unless they say
//! otherwise. Each opens a socket, makes one or two ioctls and closes it again: for set-up and watching, never per
//! packet. Reading needs no privilege; changing needs CAP_NET_ADMIN.

use std::io;
use std::os::fd::{AsFd, OwnedFd};

use crate::error::{Error, Step};
use crate::sys::{self, Plain};

/// The kernel's index of the interface, which [`Socket::bind`](crate::Socket::bind) takes.
///
/// # Errors
/// ENODEV if there is no such interface; this holds for every function of this module.
pub fn index(name: &str) -> Result<u32, Error> {
    Ok(u32::from_ne_bytes(first(ask(
        name,
        "read the index",
        libc::SIOCGIFINDEX,
    )?)))
}

/// The largest packet the interface sends, in bytes after the Ethernet header.
///
/// # Errors
/// See [`index`].
pub fn mtu(name: &str) -> Result<u32, Error> {
    Ok(u32::from_ne_bytes(first(ask(name, "read the MTU", libc::SIOCGIFMTU)?)))
}

/// The Ethernet address.
///
/// # Errors
/// See [`index`].
pub fn mac(name: &str) -> Result<[u8; 6], Error> {
    // A struct sockaddr: two bytes of family, then the address.
    let [_, _, mac @ ..] = first::<8>(ask(name, "read the Ethernet address", libc::SIOCGIFHWADDR)?);
    Ok(mac)
}

/// The interface has been set up by its administrator (IFF_UP).
///
/// # Errors
/// See [`index`].
pub fn is_up(name: &str) -> Result<bool, Error> {
    Ok(flags(name)? & libc::IFF_UP as u16 != 0)
}

/// The interface is up and has a carrier (IFF_RUNNING): after binding, some drivers need seconds until it is so again.
///
/// # Errors
/// See [`index`].
pub fn has_carrier(name: &str) -> Result<bool, Error> {
    Ok(flags(name)? & libc::IFF_RUNNING as u16 != 0)
}

/// Sets the interface up or down.
///
/// # Errors
/// EPERM without CAP_NET_ADMIN; see [`index`].
pub fn set_up(name: &str, up: bool) -> Result<(), Error> {
    let before = flags(name)?;
    let after = if up {
        before | libc::IFF_UP as u16
    } else {
        before & !(libc::IFF_UP as u16)
    };
    let mut value = [0; sys::IFREQ_VALUE];
    value[..2].copy_from_slice(&after.to_ne_bytes());
    let socket = open(name)?;
    sys::interface_ioctl(socket.as_fd(), libc::SIOCSIFFLAGS, &padded(name)?, &mut value)
        .map_err(failed(name, "set up or down"))
}

/// The driver's name, for example `veth`, `virtio_net` or `ice`.
///
/// # Errors
/// EOPNOTSUPP if the driver does not say; see [`index`].
pub fn driver(name: &str) -> Result<String, Error> {
    Ok(driver_info(name)?.driver)
}

/// What a driver says of itself and its device. See `ethtool -i`; fields it leaves out are empty.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct DriverInfo {
    /// The driver's name.
    pub driver: String,
    /// Its version: for most drivers the kernel's.
    pub version: String,
    /// The firmware's version.
    pub firmware: String,
    /// Where the device sits, such as a PCI address.
    pub bus: String,
}

/// What the driver says of itself and its device.
///
/// # Errors
/// EOPNOTSUPP if the driver does not say; see [`index`].
pub fn driver_info(name: &str) -> Result<DriverInfo, Error> {
    let mut info = EthtoolDriverInfo {
        command: ETHTOOL_GDRVINFO,
        driver: [0; 32],
        version: [0; 32],
        firmware: [0; 32],
        bus: [0; 32],
        rest: [0; 64],
    };
    ethtool(name, "read the driver's name", &mut info)?;
    Ok(DriverInfo {
        driver: text(&info.driver),
        version: text(&info.version),
        firmware: text(&info.firmware),
        bus: text(&info.bus),
    })
}

/// How many packets the device's own rings hold, for each queue. See `ethtool -g`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RingSizes {
    /// The receive ring.
    pub rx: u32,
    /// The transmit ring.
    pub tx: u32,
    /// The most `rx` can be.
    pub rx_max: u32,
    /// The most `tx` can be.
    pub tx_max: u32,
}

/// The sizes of the device's own rings.
///
/// # Errors
/// EOPNOTSUPP if the device has none or the driver does not say; see [`index`].
pub fn ring_sizes(name: &str) -> Result<RingSizes, Error> {
    let mut answer = EthtoolRings {
        command: ETHTOOL_GRINGPARAM,
        ..EthtoolRings::default()
    };
    ethtool(name, "read the ring sizes", &mut answer)?;
    Ok(RingSizes {
        rx: answer.rx,
        tx: answer.tx,
        rx_max: answer.rx_max,
        tx_max: answer.tx_max,
    })
}

/// How long the device waits before it interrupts: the sooner of a time and a count. See `ethtool -c`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Coalescing {
    /// Microseconds after the first packet received.
    pub rx_us: u32,
    /// Packets received.
    pub rx_packets: u32,
    /// Microseconds after the first packet sent.
    pub tx_us: u32,
    /// Packets sent.
    pub tx_packets: u32,
    /// The driver changes the values for receiving by itself.
    pub adaptive_rx: bool,
    /// The driver changes the values for sending by itself.
    pub adaptive_tx: bool,
}

/// How long the device waits before it interrupts.
///
/// # Errors
/// EOPNOTSUPP if there is nothing to wait for or the driver does not say; see [`index`].
pub fn coalescing(name: &str) -> Result<Coalescing, Error> {
    let mut answer = EthtoolCoalescing {
        command: ETHTOOL_GCOALESCE,
        ..EthtoolCoalescing::default()
    };
    ethtool(name, "read the interrupt coalescing", &mut answer)?;
    Ok(Coalescing {
        rx_us: answer.rx_us,
        rx_packets: answer.rx_packets,
        tx_us: answer.tx_us,
        tx_packets: answer.tx_packets,
        adaptive_rx: answer.adaptive_rx != 0,
        adaptive_tx: answer.adaptive_tx != 0,
    })
}

/// How many queues an interface uses, and could use. See `ethtool -l`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Channels {
    /// Queues that only receive.
    pub rx: u32,
    /// Queues that only send.
    pub tx: u32,
    /// Queues that do both.
    pub combined: u32,
    /// The most `rx` can be.
    pub rx_max: u32,
    /// The most `tx` can be.
    pub tx_max: u32,
    /// The most `combined` can be.
    pub combined_max: u32,
}

impl Channels {
    /// Queues on which packets may come in: as many sockets are needed to see all of them.
    #[must_use]
    pub fn receiving(&self) -> u32 {
        self.combined + self.rx
    }

    /// Queues a packet can be sent on.
    #[must_use]
    pub fn sending(&self) -> u32 {
        self.combined + self.tx
    }
}

/// The queues in use. A driver that knows no such question has one queue of each kind.
///
/// # Errors
/// See [`index`].
pub fn channels(name: &str) -> Result<Channels, Error> {
    let mut answer = EthtoolChannels {
        command: ETHTOOL_GCHANNELS,
        ..EthtoolChannels::default()
    };
    match ethtool(name, "read the channels", &mut answer) {
        Ok(()) => Ok(Channels {
            rx: answer.rx,
            tx: answer.tx,
            combined: answer.combined,
            rx_max: answer.rx_max,
            tx_max: answer.tx_max,
            combined_max: answer.combined_max,
        }),
        Err(error) if error.errno() == Some(libc::EOPNOTSUPP) => Ok(Channels {
            rx: 1,
            tx: 1,
            combined: 0,
            rx_max: 1,
            tx_max: 1,
            combined_max: 0,
        }),
        Err(error) => Err(error),
    }
}

/// A feature that changes what packets look like to an AF_XDP socket. In brackets: its name for `ethtool -K`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Offload {
    /// The NIC takes the VLAN tag out of the packet, and AF_XDP never sees it (`rxvlan`). To be off.
    RxVlan,
    /// The sender's tag travels outside the packet, and over veth is lost the same way (`txvlan`).
    TxVlan,
    /// Received packets are merged beyond the MTU, and dropped (`lro`). To be off.
    Lro,
    /// The stack merges received packets (`gro`).
    Gro,
    /// The stack leaves checksums to the device (`tx`): over veth, packets of a local stack arrive with half a checksum.
    TxChecksum,
    /// The device checks checksums of what it receives (`rx`).
    RxChecksum,
    /// The device collects a packet from several pieces of memory (`sg`).
    ScatterGather,
    /// The device cuts large TCP packets into segments (`tso`).
    Tso,
    /// The stack cuts large packets as late as it can (`gso`).
    Gso,
}

/// Whether the feature is on.
///
/// # Errors
/// EOPNOTSUPP if the driver does not know the question; see [`index`].
pub fn offload(name: &str, offload: Offload) -> Result<bool, Error> {
    let (get, _, bit) = offload.commands();
    let mut value = EthtoolValue { command: get, data: 0 };
    ethtool(name, "read an offload", &mut value)?;
    Ok(value.data & bit != 0)
}

/// Turns the feature on or off.
///
/// # Errors
/// EOPNOTSUPP or EINVAL if it cannot be changed on this interface, EPERM without CAP_NET_ADMIN; see [`index`].
pub fn set_offload(name: &str, offload: Offload, on: bool) -> Result<(), Error> {
    let (get, set, bit) = offload.commands();
    let mut value = EthtoolValue { command: get, data: 0 };
    ethtool(name, "read an offload", &mut value)?;
    if (value.data & bit != 0) == on {
        return Ok(());
    }
    let data = if on { value.data | bit } else { value.data & !bit };
    ethtool(name, "change an offload", &mut EthtoolValue { command: set, data })
}

/// Keeps an interface in promiscuous mode while it lives; the kernel counts the holders, so that several do not get in
/// each other's way. Needed because XDP by itself leaves the NIC's filter of foreign addresses on.
#[derive(Debug)]
pub struct Promiscuous {
    _socket: OwnedFd,
}

impl Promiscuous {
    /// Holds the interface of this index. It ends when the value is dropped, or the process dies by any means.
    ///
    /// # Errors
    /// EPERM without CAP_NET_RAW, ENODEV if there is no such interface.
    pub fn hold(interface_index: u32) -> Result<Self, Error> {
        let failed = |source| Error::System {
            step: Step::HoldPromiscuous,
            source,
        };
        // Protocol 0: the socket receives nothing, it only holds the membership.
        let socket = sys::open_socket(libc::AF_PACKET, libc::SOCK_RAW, 0).map_err(failed)?;
        let membership = libc::packet_mreq {
            mr_ifindex: i32::try_from(interface_index).unwrap_or(0),
            mr_type: libc::PACKET_MR_PROMISC as u16,
            mr_alen: 0,
            mr_address: [0; 8],
        };
        sys::set_option(
            socket.as_fd(),
            libc::SOL_PACKET,
            libc::PACKET_ADD_MEMBERSHIP,
            &membership,
        )
        .map_err(failed)?;
        Ok(Self { _socket: socket })
    }
}

impl Offload {
    /// The ethtool commands to get and to set, and the bit that means this feature.
    fn commands(self) -> (u32, u32, u32) {
        match self {
            Self::RxVlan => (ETHTOOL_GFLAGS, ETHTOOL_SFLAGS, 1 << 8),
            Self::TxVlan => (ETHTOOL_GFLAGS, ETHTOOL_SFLAGS, 1 << 7),
            Self::Lro => (ETHTOOL_GFLAGS, ETHTOOL_SFLAGS, 1 << 15),
            Self::Gro => (ETHTOOL_GGRO, ETHTOOL_SGRO, 1),
            Self::TxChecksum => (ETHTOOL_GTXCSUM, ETHTOOL_STXCSUM, 1),
            Self::RxChecksum => (ETHTOOL_GRXCSUM, ETHTOOL_SRXCSUM, 1),
            Self::ScatterGather => (ETHTOOL_GSG, ETHTOOL_SSG, 1),
            Self::Tso => (ETHTOOL_GTSO, ETHTOOL_STSO, 1),
            Self::Gso => (ETHTOOL_GGSO, ETHTOOL_SGSO, 1),
        }
    }
}

fn flags(name: &str) -> Result<u16, Error> {
    Ok(u16::from_ne_bytes(first(ask(
        name,
        "read the flags",
        libc::SIOCGIFFLAGS,
    )?)))
}

/// One ioctl that answers in the value of struct ifreq.
fn ask(name: &str, what: &'static str, request: libc::c_ulong) -> Result<[u8; sys::IFREQ_VALUE], Error> {
    let mut value = [0; sys::IFREQ_VALUE];
    let socket = open(name)?;
    sys::interface_ioctl(socket.as_fd(), request as libc::Ioctl, &padded(name)?, &mut value)
        .map_err(failed(name, what))?;
    Ok(value)
}

fn ethtool<T: Plain>(name: &str, what: &'static str, command: &mut T) -> Result<(), Error> {
    let socket = open(name)?;
    sys::ethtool_ioctl(socket.as_fd(), &padded(name)?, command).map_err(failed(name, what))
}

fn open(name: &str) -> Result<OwnedFd, Error> {
    sys::open_socket(libc::AF_UNIX, libc::SOCK_DGRAM, 0).map_err(failed(name, "open a socket to ask with"))
}

/// The name with zeros after it. No interface has a name of more than 15 bytes, or one with a zero in it.
fn padded(name: &str) -> Result<[u8; libc::IFNAMSIZ], Error> {
    let mut padded = [0; libc::IFNAMSIZ];
    if name.is_empty() || name.len() >= libc::IFNAMSIZ || name.contains('\0') {
        return Err(failed(name, "find the interface")(io::Error::from_raw_os_error(
            libc::ENODEV,
        )));
    }
    padded[..name.len()].copy_from_slice(name.as_bytes());
    Ok(padded)
}

fn failed(name: &str, request: &'static str) -> impl FnOnce(io::Error) -> Error {
    move |source| Error::System {
        step: Step::Device {
            interface: name.to_owned(),
            request,
        },
        source,
    }
}

fn first<const N: usize>(value: [u8; sys::IFREQ_VALUE]) -> [u8; N] {
    std::array::from_fn(|i| value[i])
}

/// The text before the first zero.
fn text(bytes: &[u8]) -> String {
    let len = bytes.iter().position(|&byte| byte == 0).unwrap_or(bytes.len());
    String::from_utf8_lossy(&bytes[..len]).into_owned()
}

/// struct ethtool_drvinfo of linux/ethtool.h; `rest` are names and counts nobody here reads.
#[repr(C)]
#[derive(Clone, Copy)]
struct EthtoolDriverInfo {
    command: u32,
    driver: [u8; 32],
    version: [u8; 32],
    firmware: [u8; 32],
    bus: [u8; 32],
    rest: [u8; 64],
}

/// struct ethtool_ringparam.
#[repr(C)]
#[derive(Clone, Copy, Default)]
struct EthtoolRings {
    command: u32,
    rx_max: u32,
    rx_mini_max: u32,
    rx_jumbo_max: u32,
    tx_max: u32,
    rx: u32,
    rx_mini: u32,
    rx_jumbo: u32,
    tx: u32,
}

/// struct ethtool_coalesce; `rest` are the values for low and high rates.
#[repr(C)]
#[derive(Clone, Copy, Default)]
struct EthtoolCoalescing {
    command: u32,
    rx_us: u32,
    rx_packets: u32,
    rx_us_irq: u32,
    rx_packets_irq: u32,
    tx_us: u32,
    tx_packets: u32,
    tx_us_irq: u32,
    tx_packets_irq: u32,
    statistics_us: u32,
    adaptive_rx: u32,
    adaptive_tx: u32,
    rest: [u32; 11],
}

/// struct ethtool_channels.
#[repr(C)]
#[derive(Clone, Copy, Default)]
struct EthtoolChannels {
    command: u32,
    rx_max: u32,
    tx_max: u32,
    other_max: u32,
    combined_max: u32,
    rx: u32,
    tx: u32,
    other: u32,
    combined: u32,
}

/// struct ethtool_value.
#[repr(C)]
#[derive(Clone, Copy)]
struct EthtoolValue {
    command: u32,
    data: u32,
}

// SAFETY: integers only, laid out as in linux/ethtool.h.
unsafe impl Plain for EthtoolDriverInfo {}
// SAFETY: integers only, laid out as in linux/ethtool.h.
unsafe impl Plain for EthtoolRings {}
// SAFETY: integers only, laid out as in linux/ethtool.h.
unsafe impl Plain for EthtoolCoalescing {}
// SAFETY: integers only, laid out as in linux/ethtool.h.
unsafe impl Plain for EthtoolChannels {}
// SAFETY: integers only, laid out as in linux/ethtool.h.
unsafe impl Plain for EthtoolValue {}

// As large as the kernel's: it writes so many bytes.
const _: () = assert!(size_of::<EthtoolDriverInfo>() == 196);
const _: () = assert!(size_of::<EthtoolRings>() == 36);
const _: () = assert!(size_of::<EthtoolCoalescing>() == 92);

// linux/ethtool.h.
const ETHTOOL_GDRVINFO: u32 = 0x03;
const ETHTOOL_GCOALESCE: u32 = 0x0e;
const ETHTOOL_GRINGPARAM: u32 = 0x10;
const ETHTOOL_GRXCSUM: u32 = 0x14;
const ETHTOOL_SRXCSUM: u32 = 0x15;
const ETHTOOL_GTXCSUM: u32 = 0x16;
const ETHTOOL_STXCSUM: u32 = 0x17;
const ETHTOOL_GSG: u32 = 0x18;
const ETHTOOL_SSG: u32 = 0x19;
const ETHTOOL_GTSO: u32 = 0x1e;
const ETHTOOL_STSO: u32 = 0x1f;
const ETHTOOL_GGSO: u32 = 0x23;
const ETHTOOL_SGSO: u32 = 0x24;
const ETHTOOL_GFLAGS: u32 = 0x25;
const ETHTOOL_SFLAGS: u32 = 0x26;
const ETHTOOL_GGRO: u32 = 0x2b;
const ETHTOOL_SGRO: u32 = 0x2c;
const ETHTOOL_GCHANNELS: u32 = 0x3c;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_loopback_interface_answers() {
        assert_eq!(index("lo").unwrap(), 1);
        assert!(mtu("lo").unwrap() >= 1500);
        assert_eq!(mac("lo").unwrap(), [0; 6]);
        // No driver behind it: the answer for drivers that do not know the question.
        assert_eq!(channels("lo").unwrap().receiving(), 1);
        // No rings and no interrupts either, and it says so.
        assert_eq!(ring_sizes("lo").unwrap_err().errno(), Some(libc::EOPNOTSUPP));
        assert_eq!(coalescing("lo").unwrap_err().errno(), Some(libc::EOPNOTSUPP));
        for question in [Offload::RxChecksum, Offload::ScatterGather, Offload::Tso, Offload::Gso] {
            assert!(offload("lo", question).is_ok(), "{question:?}");
        }
    }

    #[test]
    fn an_unknown_interface_is_named_with_a_remedy() {
        for name in ["nosuchport0", "", "a name that is much too long", "l\0o"] {
            let error = index(name).unwrap_err();
            assert_eq!(error.errno(), Some(libc::ENODEV), "{name}");
            assert!(error.to_string().starts_with(name));
            assert!(error.remedy().is_some());
        }
    }
}

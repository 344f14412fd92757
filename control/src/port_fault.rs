//! What can befall the interface of a port while weir runs, and how it is seen. Looked for a few times a second; never on a
//! packet's way.
//!
//! | fault | how it is seen | what becomes of it |
//! |---|---|---|
//! | `interface_gone` | no interface of that name, or one of another index | restart |
//! | `sockets_lost` | the sockets say ENETDOWN: the interface went to another network namespace, and came back | restart |
//! | `program_detached` | the link's `/proc/self/fdinfo` has no interface | restart |
//! | `link_down` | not up, or no carrier | goes by itself with the link; sockets and program stay |
//! | `mtu_too_large` | the MTU no longer fits a frame | goes by itself with the MTU |
//! | `queues_changed` | as many receiving queues as at start no longer | goes by itself with the queues |
//!
//! Restart: the process ends with status 3 and the service manager starts it again, because binding and attaching take
//! privileges that it has given up.

use af_xdp::device;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::interface::Interface;

/// What kind of fault.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum PortFaultKind {
    /// The interface has vanished, or another one has its name.
    InterfaceGone,
    /// The kernel has taken the interface away from the sockets.
    SocketsLost,
    /// Somebody has detached the XDP program.
    ProgramDetached,
    /// The interface is down, or has no carrier.
    LinkDown,
    /// Packets may come that fit no frame; the kernel drops them.
    MtuTooLarge,
    /// Other queues than at start: those that came have no worker, those that went leave theirs idle.
    QueuesChanged,
}

impl PortFaultKind {
    /// Its name in JSON, and that of its alarm.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            PortFaultKind::InterfaceGone => "interface_gone",
            PortFaultKind::SocketsLost => "sockets_lost",
            PortFaultKind::ProgramDetached => "program_detached",
            PortFaultKind::LinkDown => "link_down",
            PortFaultKind::MtuTooLarge => "mtu_too_large",
            PortFaultKind::QueuesChanged => "queues_changed",
        }
    }

    /// Whether only a new start mends it.
    #[must_use]
    pub fn takes_restart(self) -> bool {
        matches!(
            self,
            PortFaultKind::InterfaceGone | PortFaultKind::SocketsLost | PortFaultKind::ProgramDetached
        )
    }
}

/// A fault of a port.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct PortFault {
    /// Which kind.
    pub kind: PortFaultKind,
    /// What is the matter, with the name of the interface.
    pub message: String,
    /// What to do about it.
    pub remedy: String,
}

/// What is known of a port beside what the interface says of itself.
pub struct Watched<'a> {
    /// The interface as it was at start.
    pub interface: &'a Interface,
    /// Largest MTU whose packets fit a frame.
    pub mtu_max: u32,
    /// The kernel still gives its packets to our sockets.
    pub is_bound: bool,
    /// The XDP program is still attached.
    pub is_attached: bool,
}

/// All faults of a port, most grave first; only the first of those that take a restart, because the others follow from it.
#[must_use]
pub fn look(port: &Watched<'_>) -> Vec<PortFault> {
    let Interface {
        name, index, queues, ..
    } = port.interface;
    let fault = |kind, message, remedy: &str| PortFault {
        kind,
        message,
        remedy: remedy.replace("IFACE", name),
    };
    // Any other error (no file descriptor left to ask with) tells nothing of the interface.
    let is_gone = match device::index(name) {
        Ok(now) => now != *index,
        Err(error) => error.errno() == Some(libc::ENODEV),
    };
    if is_gone {
        return vec![fault(
            PortFaultKind::InterfaceGone,
            format!("interface `{name}` has vanished"),
            "bring it back and start weir again, if the service manager does not",
        )];
    }
    if !port.is_bound {
        return vec![fault(
            PortFaultKind::SocketsLost,
            format!("interface `{name}` was taken away from the sockets: it has been in another network namespace"),
            "start weir again, if the service manager does not",
        )];
    }
    if !port.is_attached {
        return vec![fault(
            PortFaultKind::ProgramDetached,
            format!("the XDP program was detached from `{name}` by somebody else"),
            "find out by whom (`bpftool link`), and start weir again, if the service manager does not",
        )];
    }
    let mut faults = Vec::new();
    if !device::has_carrier(name).unwrap_or(true) {
        faults.push(fault(
            PortFaultKind::LinkDown,
            format!("`{name}` is down or has no carrier"),
            "`ip link set dev IFACE up`; then the cable, and the device at its other end",
        ));
    }
    if let Some(mtu) = device::mtu(name).ok().filter(|&mtu| mtu > port.mtu_max) {
        let most = port.mtu_max;
        faults.push(fault(
            PortFaultKind::MtuTooLarge,
            format!("`{name}` has MTU {mtu}, and a frame holds {most} bytes: the kernel drops what is longer"),
            "set the MTU back with `ip link set dev IFACE mtu N`, or restart weir, which then takes larger frames if it can",
        ));
    }
    let now = device::channels(name).map_or(*queues, |channels| channels.receiving());
    if now != *queues {
        faults.push(fault(
            PortFaultKind::QueuesChanged,
            format!("`{name}` has {now} receiving queues, {queues} at start: packets of new ones are dropped"),
            "set them back with `ethtool -L`, or restart weir",
        ));
    }
    faults
}

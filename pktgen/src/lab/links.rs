//! Links, addresses, neighbours, routes and bridges. The only file that knows rtnetlink.
//!
//! Every function but [`create_veth`] works in the network namespace of the calling thread; for another one use
//! `namespace.try_run(|| links::...)`. Each opens a netlink socket on a thread of its own, waits for the kernel's answer
//! and closes it: for set-up, and safe to call from inside or outside any async runtime. Changing needs CAP_NET_ADMIN.

use std::future::Future;
use std::net::IpAddr;
use std::os::fd::{AsFd, AsRawFd};

use af_xdp::device::{self, Offload};
use futures_util::TryStreamExt;
use nix::errno::Errno;
use rtnetlink::packet_route::address::{AddressAttribute, AddressFlags, AddressHeaderFlags};
use rtnetlink::packet_route::link::{
    AfSpecInet6, AfSpecUnspec, In6AddrGenMode, InfoData, InfoKind, InfoVeth, LinkAttribute, LinkXdp,
};
use rtnetlink::{Handle, LinkBridge, LinkMessageBuilder, LinkUnspec, LinkVeth, RouteMessageBuilder};

use super::error::LabError;
use super::namespace::{Namespace, on_a_thread};

/// One end of a veth pair.
#[derive(Clone, Debug)]
pub struct VethEnd<'a> {
    /// Where the end lies.
    pub namespace: &'a Namespace,
    /// The interface's name, 1 to 15 bytes.
    pub name: &'a str,
    /// The Ethernet address; `None`: a random one.
    pub mac: Option<[u8; 6]>,
    /// Bytes after the Ethernet header. AF_XDP with frames of 2048 bytes takes up to 1778 (1792 - 14).
    pub mtu: u32,
    /// Receive and transmit queues, as many of each. An XDP program that transmits to the end, and AF_XDP sockets one for
    /// each queue, want this to be the number of workers.
    pub queues: u32,
}

impl<'a> VethEnd<'a> {
    /// An end with a random address, an MTU of 1500 and one queue.
    #[must_use]
    pub fn new(namespace: &'a Namespace, name: &'a str) -> Self {
        Self {
            namespace,
            name,
            mac: None,
            mtu: 1500,
            queues: 1,
        }
    }
}

/// Creates a veth pair with its ends in two namespaces (or twice the same), both down and with nothing but what
/// [`VethEnd`] says: no IPv6 address of its own, no checksum and VLAN offload, so that every packet on the wire is one
/// somebody sent, and looks on arrival as it would on a cable.
///
/// # Errors
/// EOPNOTSUPP without the kernel module veth, EEXIST if a name is taken, EPERM without CAP_NET_ADMIN.
pub fn create_veth(a: &VethEnd<'_>, b: &VethEnd<'_>) -> Result<(), LabError> {
    let step = format!("create the veth pair {} - {}", a.name, b.name);
    let peer = LinkUnspec::new_with_name(b.name)
        .setns_by_fd(b.namespace.as_fd().as_raw_fd())
        .append_extra_attribute(LinkAttribute::NumTxQueues(b.queues))
        .append_extra_attribute(LinkAttribute::NumRxQueues(b.queues))
        .mtu(b.mtu);
    let peer = match b.mac {
        Some(mac) => peer.address(mac.to_vec()),
        None => peer,
    };
    let pair = LinkMessageBuilder::<LinkVeth>::new_with_info_kind(InfoKind::Veth)
        .name(a.name)
        .append_extra_attribute(LinkAttribute::NumTxQueues(a.queues))
        .append_extra_attribute(LinkAttribute::NumRxQueues(a.queues))
        .mtu(a.mtu)
        .set_info_data(InfoData::Veth(InfoVeth::Peer(peer.build())));
    let pair = match a.mac {
        Some(mac) => pair.address(mac.to_vec()),
        None => pair,
    };
    a.namespace
        .try_run(|| request(&step, async |handle| handle.link().add(pair.build()).execute().await))?;
    for end in [a, b] {
        end.namespace.try_run(|| {
            disable_ipv6_autoconf(end.name)?;
            plain_packets(end.name)
        })?;
    }
    Ok(())
}

/// Sets an interface up.
///
/// # Errors
/// ENODEV, EPERM.
pub fn set_up(name: &str) -> Result<(), LabError> {
    request(&format!("set {name} up"), async |handle| {
        handle
            .link()
            .set(LinkUnspec::new_with_name(name).up().build())
            .execute()
            .await
    })
}

/// Sets an interface down.
///
/// # Errors
/// ENODEV, EPERM.
pub fn set_down(name: &str) -> Result<(), LabError> {
    request(&format!("set {name} down"), async |handle| {
        handle
            .link()
            .set(LinkUnspec::new_with_name(name).down().build())
            .execute()
            .await
    })
}

/// Deletes an interface; a veth takes its other end with it.
///
/// # Errors
/// ENODEV, EPERM.
pub fn delete(name: &str) -> Result<(), LabError> {
    let index = index(name)?;
    request(&format!("delete {name}"), async |handle| {
        handle.link().del(index).execute().await
    })
}

/// Adds an address, IPv6 without duplicate address detection: usable at once, and no packet is sent for it.
///
/// # Errors
/// EEXIST, ENODEV, EPERM.
pub fn add_address(name: &str, address: IpAddr, prefix_len: u8) -> Result<(), LabError> {
    let index = index(name)?;
    request(&format!("add {address}/{prefix_len} to {name}"), async |handle| {
        let mut add = handle.address().add(index, address, prefix_len);
        if address.is_ipv6() {
            let message = add.message_mut();
            message.header.flags |= AddressHeaderFlags::Nodad;
            message.attributes.push(AddressAttribute::Flags(AddressFlags::Nodad));
        }
        add.execute().await
    })
}

/// Sets the Ethernet address of a neighbour for ever, so that neither ARP nor neighbour discovery is ever sent for it.
///
/// # Errors
/// ENODEV, EPERM.
pub fn set_neighbour(name: &str, address: IpAddr, mac: [u8; 6]) -> Result<(), LabError> {
    let index = index(name)?;
    request(&format!("add the neighbour {address} of {name}"), async |handle| {
        let add = handle.neighbours().add(index, address);
        add.link_layer_address(&mac).replace().execute().await
    })
}

/// Adds a route to `prefix`/`prefix_len` through the interface, by way of `gateway` if there is one.
///
/// # Errors
/// EEXIST, ENODEV, ENETUNREACH if the gateway is not on the link; EINVAL if the address families differ.
pub fn add_route(name: &str, prefix: IpAddr, prefix_len: u8, gateway: Option<IpAddr>) -> Result<(), LabError> {
    let index = index(name)?;
    let step = format!("add the route to {prefix}/{prefix_len} over {name}");
    let mut route = RouteMessageBuilder::<IpAddr>::new()
        .destination_prefix(prefix, prefix_len)
        .map_err(|error| LabError::other(&step, error))?
        .output_interface(index);
    if let Some(gateway) = gateway {
        route = route.gateway(gateway).map_err(|error| LabError::other(&step, error))?;
    }
    request(&step, async |handle| handle.route().add(route.build()).execute().await)
}

/// Sees to it that there is a bridge `name`, up, without spanning tree, with exactly these interfaces added to it; those
/// it has already stay. Calling it twice changes nothing. Says whether this call made the bridge; one that it made and
/// could not finish is removed again. A bridge of an IPv6 address of its own stays silent.
///
/// # Errors
/// ENODEV if a port is not there, EOPNOTSUPP without the kernel module bridge, EBUSY if a port belongs to another bridge.
pub fn ensure_bridge(name: &str, ports: &[&str]) -> Result<bool, LabError> {
    let step = format!("create the bridge {name}");
    let is_new = device::index(name).is_err();
    if is_new {
        request(&step, async |handle| {
            // No forward delay: ports forward as soon as they are up, because without spanning tree there is nothing to
            // wait for. No snooping: a bridge that stands in for a wire must not send queries or filter multicast.
            let bridge = LinkBridge::new(name).forward_delay(0).mcast_snooping(false);
            handle.link().add(bridge.build()).execute().await
        })?;
    }
    let result = fill_bridge(name, ports, is_new);
    if result.is_err() && is_new {
        // The first error is the one to tell.
        let _deleted = delete(name);
    }
    result.map(|()| is_new)
}

fn fill_bridge(name: &str, ports: &[&str], is_new: bool) -> Result<(), LabError> {
    if is_new {
        disable_ipv6_autoconf(name)?;
    }
    let bridge = index(name)?;
    for port in ports {
        request(&format!("add {port} to the bridge {name}"), async |handle| {
            let port = LinkUnspec::new_with_name(port).controller(bridge).up();
            handle.link().set(port.build()).execute().await
        })?;
    }
    set_up(name)
}

/// Takes an interface out of its bridge.
///
/// # Errors
/// ENODEV, EPERM.
pub fn leave_bridge(name: &str) -> Result<(), LabError> {
    request(&format!("take {name} out of its bridge"), async |handle| {
        let port = LinkUnspec::new_with_name(name).nocontroller();
        handle.link().set(port.build()).execute().await
    })
}

/// Gives the interface no IPv6 address of its own (`addrgenmode none`): without one it solicits no router and reports
/// no multicast group, and counters hold only what was sent on purpose. A kernel without IPv6 has nothing to turn off.
///
/// # Errors
/// ENODEV, EPERM.
pub fn disable_ipv6_autoconf(name: &str) -> Result<(), LabError> {
    let mode = AfSpecInet6::AddrGenMode(In6AddrGenMode::None);
    let attribute = LinkAttribute::AfSpecUnspec(vec![AfSpecUnspec::Inet6(vec![mode])]);
    let result = request(&format!("turn IPv6 autoconfiguration of {name} off"), async |handle| {
        let link = LinkUnspec::new_with_name(name).append_extra_attribute(attribute.clone());
        handle.link().set(link.build()).execute().await
    });
    match result {
        Err(error) if error.raw_os_error() == Some(Errno::EAFNOSUPPORT as i32) => Ok(()),
        result => result,
    }
}

/// Turns off what would make packets of the local stack look different on the wire: checksums left to a device that does
/// not exist (`tx`), and VLAN tags that travel outside the packet (`txvlan`, `rxvlan`).
///
/// # Errors
/// ENODEV, EPERM. A driver that knows no such setting has nothing to turn off.
pub fn plain_packets(name: &str) -> Result<(), LabError> {
    for offload in [Offload::TxChecksum, Offload::TxVlan, Offload::RxVlan] {
        match device::set_offload(name, offload, false) {
            Ok(()) => {}
            Err(error) => {
                let error = device_error(format!("turn {offload:?} of {name} off"), error);
                let unknown = [Errno::EOPNOTSUPP as i32, Errno::EINVAL as i32];
                if !error.raw_os_error().is_some_and(|errno| unknown.contains(&errno)) {
                    return Err(error);
                }
            }
        }
    }
    Ok(())
}

/// The names of all interfaces, in the order of their indices.
///
/// # Errors
/// Whatever netlink answers.
pub fn names() -> Result<Vec<String>, LabError> {
    request("list the interfaces", async |handle| {
        let mut names = Vec::new();
        let mut links = handle.link().get().execute();
        while let Some(link) = links.try_next().await? {
            names.extend(link.attributes.into_iter().filter_map(|attribute| match attribute {
                LinkAttribute::IfName(name) => Some(name),
                _ => None,
            }));
        }
        Ok(names)
    })
}

/// What the kernel says of a link that neither ethtool nor an ioctl does.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct LinkState {
    /// Number of the XDP program that is attached.
    pub xdp_program: Option<u32>,
    /// Index of the bridge (or bond) that it belongs to.
    pub controller: Option<u32>,
    /// How many hold it promiscuous.
    pub promiscuity: u32,
}

/// The state of a link. Needs no privilege.
///
/// # Errors
/// ENODEV.
pub fn state(name: &str) -> Result<LinkState, LabError> {
    request(&format!("look at {name}"), async |handle| {
        let mut state = LinkState::default();
        let mut links = handle.link().get().match_name(name.to_owned()).execute();
        while let Some(link) = links.try_next().await? {
            for attribute in link.attributes {
                match attribute {
                    LinkAttribute::Controller(index) => state.controller = Some(index),
                    LinkAttribute::Promiscuity(count) => state.promiscuity = count,
                    LinkAttribute::Xdp(parts) => {
                        state.xdp_program = parts.into_iter().find_map(|part| match part {
                            LinkXdp::ProgId(id) => Some(id),
                            _ => None,
                        });
                    }
                    _ => {}
                }
            }
        }
        Ok(state)
    })
}

fn index(name: &str) -> Result<u32, LabError> {
    device::index(name).map_err(|error| device_error(format!("find the interface {name}"), error))
}

fn device_error(step: String, error: af_xdp::Error) -> LabError {
    match error.errno() {
        Some(errno) => LabError::errno(step, Errno::from_raw(errno)),
        None => LabError::other(step, error),
    }
}

/// One conversation with the kernel: a thread, a runtime and a socket for it alone. The thread inherits the caller's
/// namespace, and because it is its own, a caller that is inside another runtime does not matter.
fn request<T: Send, F: Future<Output = Result<T, rtnetlink::Error>>>(
    step: &str,
    conversation: impl FnOnce(Handle) -> F + Send,
) -> Result<T, LabError> {
    on_a_thread("lab-netlink", || {
        let failed = |source| LabError::new(step, source);
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_io()
            .build()
            .map_err(failed)?;
        runtime.block_on(async {
            let (connection, handle, _) = rtnetlink::new_connection().map_err(failed)?;
            let connection = tokio::spawn(connection);
            let result = conversation(handle).await;
            connection.abort();
            result.map_err(|error| match error {
                rtnetlink::Error::NetlinkError(message) => {
                    LabError::errno(step, Errno::from_raw(message.raw_code().wrapping_neg()))
                }
                error => LabError::other(step, error),
            })
        })
    })?
}

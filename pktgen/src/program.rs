//! The receiver's XDP program: loaded, given its sockets, attached. The only file that knows aya.
//!
//! Privileges: CAP_BPF and CAP_NET_ADMIN. It is attached by a bpf_link, so it goes with the process.

use std::error::Error;
use std::os::fd::AsFd;

use af_xdp::Socket;
use aya::Ebpf;
use aya::maps::{MapData, XskMap};
use aya::programs::links::FdLink;
use aya::programs::{Xdp, xdp};

/// The object built from `xdp/redirect.bpf.c`; see there.
static OBJECT: &[u8] = aya::include_bytes_aligned!("../xdp/redirect.bpf.o");

/// Why the program could not be put in place.
#[derive(Debug, thiserror::Error)]
#[error(
    "cannot {step}: {cause} (run as root, or with CAP_BPF and CAP_NET_ADMIN; `bpftool net` shows programs already attached)"
)]
pub struct ProgramError {
    /// What was being done.
    pub step: String,
    /// What the kernel or the loader said.
    pub cause: String,
}

/// A program at work; dropping it detaches it.
pub(crate) struct RedirectProgram {
    _link: FdLink,
    _ebpf: Ebpf,
    _sockets: XskMap<MapData>,
}

impl RedirectProgram {
    /// Redirects every packet of queue `i` of the interface to `sockets[i]`: in the driver, or else in the stack.
    pub(crate) fn attach(interface: &str, interface_index: u32, sockets: &[&Socket]) -> Result<Self, ProgramError> {
        let load = "load the XDP program";
        let mut ebpf = Ebpf::load(OBJECT).map_err(|error| failed(load, &error))?;
        let map = ebpf.take_map("sockets").ok_or_else(|| missing("map `sockets`"))?;
        let mut map = XskMap::try_from(map).map_err(|error| failed(load, &error))?;
        for (queue, socket) in (0u32..).zip(sockets) {
            let fd = socket
                .as_fd()
                .try_clone_to_owned()
                .map_err(|error| failed(load, &error))?;
            map.set(queue, fd, 0)
                .map_err(|error| failed(&format!("put the socket of queue {queue} into the XSKMAP"), &error))?;
        }
        let program: &mut Xdp = ebpf
            .program_mut("redirect")
            .and_then(|program| program.try_into().ok())
            .ok_or_else(|| missing("program `redirect`"))?;
        program.load().map_err(|error| failed(load, &error))?;
        let step = format!("attach XDP to {interface}");
        let link = program
            .attach_to_if_index(interface_index, xdp::XdpMode::Driver)
            .or_else(|_| program.attach_to_if_index(interface_index, xdp::XdpMode::Skb))
            .map_err(|error| failed(&step, &error))?;
        let link = program.take_link(link).map_err(|error| failed(&step, &error))?;
        // A kernel before 5.9 attaches by netlink only, and such a program would outlive the process.
        let link = FdLink::try_from(link).map_err(|error| failed(&step, &error))?;
        Ok(Self {
            _link: link,
            _ebpf: ebpf,
            _sockets: map,
        })
    }
}

fn missing(what: &str) -> ProgramError {
    ProgramError {
        step: "load the XDP program".into(),
        cause: format!("its object has no {what}"),
    }
}

/// An error with all its causes on one line.
fn failed(step: &str, error: &dyn Error) -> ProgramError {
    let mut cause = error.to_string();
    let mut next = error.source();
    while let Some(error) = next {
        cause.push_str(": ");
        cause.push_str(&error.to_string());
        next = error.source();
    }
    ProgramError {
        step: step.to_owned(),
        cause,
    }
}

//! The XDP program of a port: loaded, attached, and told which socket serves which queue.
//!
//! Set-up needs CAP_BPF and CAP_NET_ADMIN (or CAP_SYS_ADMIN) and makes the system calls bpf(2) and mmap(2). The program is
//! attached by a bpf_link, so the kernel detaches it with the process, however it ends; a program that somebody else has
//! attached is left alone, and named in the error.

use std::os::fd::AsFd;
use std::path::PathBuf;
use std::sync::Arc;

use af_xdp::{SharedArray, Socket};
use aya::maps::{Map, MapData, PerCpuArray, XskMap};
use aya::programs::links::FdLink;
use aya::programs::{Xdp, xdp};
use aya::{Ebpf, EbpfLoader};

use crate::clock::Nanos;
use crate::stats::Amount;

/// The object built from `xdp/weir.bpf.c`; see there.
static OBJECT: &[u8] = aya::include_bytes_aligned!("../../xdp/weir.bpf.o");

/// Queues a port can have; `QUEUES` in the program.
pub const QUEUES_MAX: u32 = 64;

/// `enum counter` in the program.
const COUNTERS: u32 = 3;

/// How an XDP program is attached.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum XdpMode {
    /// In the driver, before the kernel makes an skb.
    Native,
    /// In the kernel's generic path: works on every interface, costs an skb for each packet.
    Generic,
}

impl XdpMode {
    /// `native` or `generic`.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            XdpMode::Native => "native",
            XdpMode::Generic => "generic",
        }
    }
}

/// What happens to packets when the worker that should take them is not running.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OnStall {
    /// They go to the kernel, which may bridge them.
    Open,
    /// They are dropped.
    Closed,
}

/// Why a port's program could not be set up.
#[derive(Debug, thiserror::Error)]
pub enum ProgramError {
    /// The kernel refused to load the program or its maps.
    #[error("cannot load the XDP program: {cause}")]
    Load {
        /// What the kernel or the loader said.
        cause: String,
    },
    /// The kernel refused to attach it.
    #[error("cannot attach XDP ({mode}) to {interface}: {cause}", mode = mode.name())]
    Attach {
        /// The interface.
        interface: String,
        /// The last mode tried.
        mode: XdpMode,
        /// The kernel's answer, with its error number.
        cause: std::io::Error,
    },
    /// A map of the loaded program could not be used.
    #[error("cannot use map `{map}` of the XDP program: {cause}")]
    Map {
        /// Its name in the program.
        map: &'static str,
        /// What the kernel or the loader said.
        cause: String,
    },
    /// The kernel would attach only in a way that outlives the process.
    #[error("this kernel cannot attach XDP to {interface} by a bpf_link, so a crash would leave the program behind")]
    NoLink {
        /// The interface.
        interface: String,
    },
}

impl ProgramError {
    /// What the operator can do about it.
    #[must_use]
    pub fn remedy(&self) -> &'static str {
        match self {
            ProgramError::Load { .. } => {
                "run as root, or with CAP_BPF, CAP_NET_ADMIN and CAP_NET_RAW; the kernel must be 5.18 or newer with CONFIG_BPF_SYSCALL"
            }
            ProgramError::Attach { cause, .. } => match cause.raw_os_error().unwrap_or(0) {
                code if code == nix::errno::Errno::EBUSY as i32 || code == nix::errno::Errno::EEXIST as i32 => {
                    "another XDP program is attached: `bpftool net` and `bpftool link` show it. If a process holds it by a link (another weir does), stop that process; only one attached by netlink goes with `ip link set dev IFACE xdp off`"
                }
                code if code == nix::errno::Errno::ENOSPC as i32 => {
                    "the peer of this veth has more transmit queues than it has receive queues: `ethtool -L IFACE rx N` with as many, or set `xdp = \"generic\"` on the port"
                }
                code if code == nix::errno::Errno::ERANGE as i32 || code == nix::errno::Errno::EINVAL as i32 => {
                    "the MTU is too large for XDP in the driver (about 3,500 on veth): lower it with `ip link set dev IFACE mtu 1500`, or set `xdp = \"generic\"` on the port"
                }
                code if code == nix::errno::Errno::EPERM as i32 || code == nix::errno::Errno::EACCES as i32 => {
                    "run as root, or with CAP_BPF and CAP_NET_ADMIN"
                }
                _ => "set `xdp = \"generic\"` on the port to attach outside the driver",
            },
            ProgramError::Map { .. } => "the kernel must be 5.18 or newer",
            ProgramError::NoLink { .. } => "use a kernel of 5.18 or newer",
        }
    }
}

/// What the program did with packets that it did not give to a socket.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct KernelCounters {
    /// Given to the kernel because the worker was not running (`fail = "open"`).
    pub to_kernel: Amount,
    /// Dropped because the worker was not running (`fail = "closed"`).
    pub dropped_stale: Amount,
    /// Dropped because the queue has no socket, whatever [`OnStall`] says.
    pub dropped_no_socket: Amount,
}

/// The program of one port, loaded but not attached.
pub struct Program {
    ebpf: Ebpf,
    sockets: XskMap<MapData>,
    heartbeats: Arc<SharedArray>,
    counters: PerCpuArray<MapData, [u64; 2]>,
}

impl Program {
    /// Loads the program and its maps. A worker that has not beaten for longer than `stale_after` counts as stalled; it beats
    /// on every turn, at least every 10 ms when it sleeps.
    ///
    /// # Errors
    /// The kernel refuses: privileges, or a kernel too old.
    pub fn load(on_stall: OnStall, stale_after: Nanos) -> Result<Self, ProgramError> {
        let fail_open = u8::from(on_stall == OnStall::Open);
        let mut ebpf = EbpfLoader::new()
            .override_global("stale_after_ns", &stale_after.0, true)
            .override_global("fail_open", &fail_open, true)
            .load(OBJECT)
            .map_err(|error| ProgramError::Load { cause: chain(&error) })?;
        // The program refers to its maps by file descriptor until the kernel has it: load it before any of them is closed.
        xdp_program(&mut ebpf)?
            .load()
            .map_err(|error| ProgramError::Load { cause: chain(&error) })?;
        let sockets = XskMap::try_from(take_map(&mut ebpf, "sockets")?).map_err(|e| map_error("sockets", &e))?;
        let counters =
            PerCpuArray::try_from(take_map(&mut ebpf, "counters")?).map_err(|e| map_error("counters", &e))?;
        let Map::Array(heartbeats) = take_map(&mut ebpf, "heartbeats")? else {
            return Err(ProgramError::Map {
                map: "heartbeats",
                cause: "it is not an array".into(),
            });
        };
        let heartbeats = SharedArray::map(heartbeats.fd().as_fd(), QUEUES_MAX as usize);
        let heartbeats = Arc::new(heartbeats.map_err(|e| map_error("heartbeats", &e))?);
        Ok(Self {
            ebpf,
            sockets,
            heartbeats,
            counters,
        })
    }

    /// Lets `socket` serve `queue`.
    ///
    /// # Errors
    /// The kernel refuses the map entry.
    pub fn serve(&mut self, queue: u32, socket: &Socket) -> Result<(), ProgramError> {
        self.sockets
            .set(
                queue,
                socket
                    .as_fd()
                    .try_clone_to_owned()
                    .map_err(|e| map_error("sockets", &e))?,
                0,
            )
            .map_err(|e| map_error("sockets", &e))
    }

    /// The heartbeats by queue, which the workers write. Several workers share the mapping.
    #[must_use]
    pub fn heartbeats(&self) -> Arc<SharedArray> {
        self.heartbeats.clone()
    }

    /// Attaches to an interface: `wanted`, or native and then generic when `None`.
    ///
    /// # Errors
    /// No mode works; the error is that of the last mode tried, or of the first that tells of another program.
    pub fn attach(
        mut self,
        interface: &str,
        interface_index: u32,
        wanted: Option<XdpMode>,
    ) -> Result<Attached, ProgramError> {
        let program = xdp_program(&mut self.ebpf)?;
        let modes: &[XdpMode] = match wanted {
            Some(XdpMode::Native) => &[XdpMode::Native],
            Some(XdpMode::Generic) => &[XdpMode::Generic],
            None => &[XdpMode::Native, XdpMode::Generic],
        };
        let (mode, link) = attach_first(program, interface, interface_index, modes)?;
        Ok(Attached {
            program: self,
            mode,
            link: Some(link),
            link_info: link_info(interface_index),
        })
    }
}

/// A program at work. Dropping it detaches it: packets go to the kernel again.
pub struct Attached {
    program: Program,
    mode: XdpMode,
    link: Option<FdLink>,
    /// What the kernel tells of the link, a file.
    link_info: Option<PathBuf>,
}

impl Attached {
    /// Detaches now; the counters can still be read.
    pub fn detach(&mut self) {
        self.link = None;
    }

    /// Whether it is still attached. The kernel takes it off when the interface goes, and for whoever forces the link
    /// (`bpftool link detach`); `ip link set dev IFACE xdp off` does not touch it. Reads `/proc/self/fdinfo`, which needs no
    /// privilege; what cannot be read counts as attached.
    #[must_use]
    pub fn is_attached(&self) -> bool {
        let text = self
            .link_info
            .as_ref()
            .and_then(|path| std::fs::read_to_string(path).ok());
        self.link.is_some() && !text.is_some_and(|text| has_line(&text, "ifindex:", "0"))
    }

    /// How it is attached.
    #[must_use]
    pub fn mode(&self) -> XdpMode {
        self.mode
    }

    /// What the program counted on `queue`, over all CPUs.
    ///
    /// # Errors
    /// The kernel refuses to read the map.
    pub fn counters(&self, queue: u32) -> Result<KernelCounters, ProgramError> {
        let read = |which: u32| -> Result<Amount, ProgramError> {
            let key = queue * COUNTERS + which;
            let by_cpu = self
                .program
                .counters
                .get(&key, 0)
                .map_err(|e| map_error("counters", &e))?;
            Ok(by_cpu.iter().map(|&[packets, bytes]| Amount { packets, bytes }).sum())
        };
        Ok(KernelCounters {
            to_kernel: read(0)?,
            dropped_stale: read(1)?,
            dropped_no_socket: read(2)?,
        })
    }
}

/// The file in `/proc/self/fdinfo` about our link to an interface. The link itself does not tell its descriptor.
fn link_info(interface_index: u32) -> Option<PathBuf> {
    let index = interface_index.to_string();
    let files = std::fs::read_dir("/proc/self/fdinfo").ok()?;
    files.filter_map(Result::ok).map(|file| file.path()).find(|path| {
        let text = std::fs::read_to_string(path).unwrap_or_default();
        has_line(&text, "link_type:", "xdp") && has_line(&text, "ifindex:", &index)
    })
}

fn has_line(text: &str, key: &str, value: &str) -> bool {
    text.lines().any(|line| line.split_whitespace().eq([key, value]))
}

fn xdp_program(ebpf: &mut Ebpf) -> Result<&mut Xdp, ProgramError> {
    let program = ebpf.program_mut("weir").and_then(|program| program.try_into().ok());
    program.ok_or_else(|| ProgramError::Load {
        cause: "the object holds no XDP program `weir`".into(),
    })
}

fn attach_first(
    program: &mut Xdp,
    interface: &str,
    interface_index: u32,
    modes: &[XdpMode],
) -> Result<(XdpMode, FdLink), ProgramError> {
    let mut last = None;
    for &mode in modes {
        let flags = match mode {
            XdpMode::Native => xdp::XdpMode::Driver,
            XdpMode::Generic => xdp::XdpMode::Skb,
        };
        match program.attach_to_if_index(interface_index, flags) {
            Ok(id) => {
                let no_link = |_| ProgramError::NoLink {
                    interface: interface.to_owned(),
                };
                let link = program
                    .take_link(id)
                    .map_err(|e| ProgramError::Load { cause: chain(&e) })?;
                return Ok((mode, FdLink::try_from(link).map_err(no_link)?));
            }
            Err(error) => {
                let cause = io_cause(&error);
                let busy = cause.raw_os_error() == Some(nix::errno::Errno::EBUSY as i32);
                last = Some(ProgramError::Attach {
                    interface: interface.to_owned(),
                    mode,
                    cause,
                });
                if busy {
                    break;
                }
            }
        }
    }
    Err(last.unwrap_or_else(|| ProgramError::NoLink {
        interface: interface.to_owned(),
    }))
}

/// The error number at the bottom of a chain of errors, so that a remedy can be named for it.
fn io_cause(error: &(dyn std::error::Error + 'static)) -> std::io::Error {
    let mut next = Some(error);
    while let Some(current) = next {
        if let Some(code) = current
            .downcast_ref::<std::io::Error>()
            .and_then(std::io::Error::raw_os_error)
        {
            return std::io::Error::from_raw_os_error(code);
        }
        next = current.source();
    }
    std::io::Error::other(chain(error))
}

fn take_map(ebpf: &mut Ebpf, name: &'static str) -> Result<Map, ProgramError> {
    ebpf.take_map(name).ok_or(ProgramError::Map {
        map: name,
        cause: "it is not in the object".into(),
    })
}

fn map_error(map: &'static str, error: &(dyn std::error::Error + 'static)) -> ProgramError {
    ProgramError::Map {
        map,
        cause: chain(error),
    }
}

/// An error with its causes on one line.
fn chain(error: &(dyn std::error::Error + 'static)) -> String {
    let mut text = error.to_string();
    let mut next = error.source();
    while let Some(cause) = next {
        let cause_text = cause.to_string();
        if !text.contains(&cause_text) {
            text.push_str(": ");
            text.push_str(&cause_text);
        }
        next = cause.source();
    }
    text
}

#[cfg(test)]
mod tests {
    use nix::errno::Errno;

    use super::*;

    #[test]
    fn remedies_name_the_cause() {
        let remedy = |errno: Errno| {
            let error = ProgramError::Attach {
                interface: "eth1".into(),
                mode: XdpMode::Native,
                cause: std::io::Error::from_raw_os_error(errno as i32),
            };
            error.remedy()
        };
        assert!(remedy(Errno::ENOSPC).contains("ethtool -L IFACE rx N"));
        assert!(remedy(Errno::EBUSY).contains("bpftool link"));
    }
}

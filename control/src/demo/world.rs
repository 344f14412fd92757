//! The demo's network: a site, a gateway and a wan in namespaces of their own, and a real `weir run` in the middle.
//!
//! ```text
//!   site ── veth ── lan [ gateway: weir run ] uplink ── veth ── wan
//! ```
//!
//! Nothing of it outlives the process, however that ends: the namespaces have no names, the files lie on a tmpfs in a
//! private mount namespace, and the gateway ends when the pipe to its standard input closes.

use std::io;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::time::{Duration, Instant};

use nix::mount::{MsFlags, mount};
use nix::sched::{CloneFlags, unshare};
use pktgen::lab::{LabError, Namespace, VethEnd, create_veth, links};

use super::services::{ROOMY_BPS, SERVICES, base_toml};
use crate::socket::{self, Request, Response};
use crate::status::Status;

/// Ethernet address of the sender in the site.
pub const SITE_MAC: [u8; 6] = [2, 0, 0, 0, 0, 1];
/// Ethernet address of the receiver in the wan.
pub const WAN_MAC: [u8; 6] = [2, 0, 0, 0, 0, 2];
/// Interface of the sender.
pub const SITE_INTERFACE: &str = "site";
/// Interface of the receiver.
pub const WAN_INTERFACE: &str = "wan";

/// Where the demo's files lie, visible to this process and its children only.
const DIRECTORY: &str = "/run/weir-demo";

/// Why the network could not be built.
#[derive(Debug, thiserror::Error)]
pub enum WorldError {
    /// Namespaces or links.
    #[error(transparent)]
    Lab(#[from] LabError),
    /// Files, mounts, processes.
    #[error("cannot {what}: {cause}")]
    System {
        /// What was tried.
        what: &'static str,
        /// What the system said.
        cause: io::Error,
    },
    /// The gateway did not come up.
    #[error("the gateway did not start: {said}")]
    Gateway {
        /// What it wrote.
        said: String,
    },
    /// The gateway refused what it should not.
    #[error("the gateway did not {what}: {said}")]
    Refused {
        /// What it was asked.
        what: &'static str,
        /// What it said.
        said: String,
    },
}

fn system(what: &'static str) -> impl FnOnce(io::Error) -> WorldError {
    move |cause| WorldError::System { what, cause }
}

/// The network and the gateway in it.
pub struct World {
    /// Where traffic comes from.
    pub site: Namespace,
    /// Where it goes.
    pub wan: Namespace,
    gateway: Child,
    /// The gateway ends when this is closed.
    _leash: Option<ChildStdin>,
    cpu: Option<usize>,
}

impl World {
    /// Builds everything and waits until the gateway runs. `cpu` is the core of its worker.
    ///
    /// # Errors
    /// See [`WorldError`].
    pub fn new(cpu: Option<usize>) -> Result<Self, WorldError> {
        pktgen::lab::privileged()?;
        private_directory()?;
        let [site, gateway, wan] = [Namespace::new()?, Namespace::new()?, Namespace::new()?];
        let end = |namespace, name, mac| VethEnd {
            mac,
            ..VethEnd::new(namespace, name)
        };
        create_veth(&end(&site, SITE_INTERFACE, Some(SITE_MAC)), &end(&gateway, "lan", None))?;
        create_veth(&end(&wan, WAN_INTERFACE, Some(WAN_MAC)), &end(&gateway, "uplink", None))?;
        site.try_run(|| links::set_up(SITE_INTERFACE))?;
        wan.try_run(|| links::set_up(WAN_INTERFACE))?;
        gateway.try_run(|| links::set_up("lan").and_then(|()| links::set_up("uplink")))?;
        write_all(cpu).map_err(system("write the demo's configuration"))?;

        let program = std::env::current_exe().map_err(system("find this program"))?;
        let log = std::fs::File::create(path("gateway.log")).map_err(system("create the gateway's log"))?;
        let mut command = Command::new(program);
        command
            .args(["run", "--die-with-parent", "--config"])
            .arg(path("weir.toml"));
        command.arg("--socket").arg(path("control.sock"));
        command.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(log);
        let mut child = gateway.spawn(&mut command)?;
        let leash = child.stdin.take();
        let mut world = Self {
            site,
            wan,
            gateway: child,
            _leash: leash,
            cpu,
        };
        world.wait_until_running()?;
        Ok(world)
    }

    /// The gateway's status.
    ///
    /// # Errors
    /// It does not answer.
    pub fn status(&self) -> Result<Status, WorldError> {
        match socket::ask(&path("control.sock"), &Request::Status) {
            Ok(Response::Status(status)) => Ok(*status),
            Ok(other) => Err(WorldError::Refused {
                what: "tell its status",
                said: format!("{other:?}"),
            }),
            Err(cause) => Err(WorldError::System {
                what: "ask the gateway for its status",
                cause,
            }),
        }
    }

    /// Changes the rate of the wan port, as an operator would: edit, reload. Returns the new generation.
    ///
    /// # Errors
    /// The gateway refuses.
    pub fn set_wan_rate(&self, rate_bps: u64) -> Result<u64, WorldError> {
        self.write("weir.toml", &base_toml(rate_bps, self.cpu))?;
        self.reload()?.map_err(|said| WorldError::Refused {
            what: "take the new rate of its port",
            said,
        })
    }

    /// Writes a file of the gateway's configuration.
    ///
    /// # Errors
    /// It cannot be written.
    pub fn write(&self, name: &str, text: &str) -> Result<(), WorldError> {
        std::fs::write(path(name), text).map_err(system("write the demo's configuration"))
    }

    /// Asks for a reload. The inner error is the gateway's reason for refusing.
    ///
    /// # Errors
    /// The gateway does not answer.
    pub fn reload(&self) -> Result<Result<u64, String>, WorldError> {
        match socket::ask(&path("control.sock"), &Request::Reload { by: None }) {
            Ok(Response::Reloaded(done)) => Ok(Ok(done.generation)),
            Ok(Response::Refused { reason }) => Ok(Err(reason)),
            Ok(other) => Err(WorldError::Refused {
                what: "reload",
                said: format!("{other:?}"),
            }),
            Err(cause) => Err(WorldError::System {
                what: "ask the gateway to reload",
                cause,
            }),
        }
    }

    fn wait_until_running(&mut self) -> Result<(), WorldError> {
        let deadline = Instant::now() + Duration::from_secs(10);
        loop {
            let running = self
                .status()
                .is_ok_and(|s| s.workers.iter().all(|worker| worker.state == "run"));
            if running {
                return Ok(());
            }
            let ended = self.gateway.try_wait().ok().flatten().is_some();
            if ended || Instant::now() > deadline {
                let said = std::fs::read_to_string(path("gateway.log")).unwrap_or_default();
                return Err(WorldError::Gateway {
                    said: said.trim().to_owned(),
                });
            }
            std::thread::sleep(Duration::from_millis(20));
        }
    }
}

impl Drop for World {
    fn drop(&mut self) {
        // Closing its standard input lets the gateway end in order; if it does not within two seconds, it is ended.
        self._leash = None;
        let deadline = Instant::now() + Duration::from_secs(2);
        while Instant::now() < deadline {
            if !matches!(self.gateway.try_wait(), Ok(None)) {
                return;
            }
            std::thread::sleep(Duration::from_millis(10));
        }
        // Both fail only if it is gone already.
        let _killed = self.gateway.kill();
        let _reaped = self.gateway.wait();
    }
}

/// A file of the demo; contracts lie in `contracts.d`.
pub(crate) fn path(name: &str) -> PathBuf {
    Path::new(DIRECTORY).join(name)
}

/// Name of a service's file below the demo's directory.
#[must_use]
pub fn contract_file(name: &str) -> String {
    format!("contracts.d/{name}.toml")
}

fn write_all(cpu: Option<usize>) -> io::Result<()> {
    std::fs::create_dir_all(path("contracts.d"))?;
    std::fs::write(path("weir.toml"), base_toml(ROOMY_BPS, cpu))?;
    for service in &SERVICES {
        std::fs::write(
            path(&contract_file(service.name)),
            service.to_toml(service.entitled_bps),
        )?;
    }
    Ok(())
}

/// Mounts a tmpfs over /run in a mount namespace of our own, so that the demo's files are gone with the process.
pub(crate) fn private_directory() -> Result<(), WorldError> {
    let none: Option<&str> = None;
    unshare(CloneFlags::CLONE_NEWNS).map_err(|e| system("take a mount namespace of its own")(e.into()))?;
    mount(none, "/", none, MsFlags::MS_REC | MsFlags::MS_PRIVATE, none)
        .map_err(|e| system("keep mounts to itself")(e.into()))?;
    mount(
        Some("weir-demo"),
        "/run",
        Some("tmpfs"),
        MsFlags::empty(),
        Some("size=16m,mode=0755"),
    )
    .map_err(|e| system("mount a tmpfs over /run for itself")(e.into()))?;
    std::fs::create_dir_all(DIRECTORY).map_err(system("create its directory"))
}

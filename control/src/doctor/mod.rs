//! `weir doctor`: what of the machine, its interfaces and the configuration stands in weir's way, and what to do about it.
//!
//! Everything is read, nothing is changed or attached, so it may run beside an appliance that forwards. Files come from under
//! one root, so that tests can make a machine up; what the kernel is asked directly (ethtool, netlink) is asked only of the
//! machine it runs on. What cannot be read is a finding too: "cannot say".

mod interfaces;
mod machine;
mod report;
mod root;
mod system;

use std::path::{Path, PathBuf};

pub use report::{Finding, Findings, Level};
use root::Root;

use crate::change::plan::is_absent;
use crate::socket::{Request, Response, ask};
use crate::status::Status;

/// Where to look.
#[derive(Clone, Debug)]
pub struct DoctorOptions {
    /// Base configuration file.
    pub config: PathBuf,
    /// Where the appliance listens, if it runs.
    pub socket: PathBuf,
    /// What the machine's files are under: `/`.
    pub root: PathBuf,
}

/// What there is to run on, seen from the configuration.
struct Patient<'p> {
    root: &'p Root,
    /// `None`: not valid.
    config: Option<&'p config::Config>,
    /// `None`: no appliance answers.
    status: Option<&'p Status>,
    /// Whether one runs, or cannot be told not to: its socket is there, and may not be opened or gives no status.
    may_run: bool,
    interfaces: &'p [interfaces::Facts],
}

/// Looks at everything. Takes some milliseconds, and no privilege; with root it can say more.
#[must_use]
pub fn examine(options: &DoctorOptions) -> Findings {
    let root = Root::new(&options.root);
    let mut findings = Findings::default();
    let loaded = config::load(&options.config);
    system::configuration(&options.config, &loaded, &mut findings);
    let status = ask_status(&options.socket);
    let loaded = loaded.ok();
    let config = loaded.as_ref().map(|loaded| &loaded.config);
    let facts: Vec<_> = config
        .into_iter()
        .flat_map(|config| &config.ports)
        .map(|port| interfaces::Facts::read(&root, &port.interface))
        .collect();
    let patient = Patient {
        root: &root,
        config,
        status: status.as_ref().ok().and_then(Option::as_ref),
        may_run: status.as_ref().map_or_else(|error| !is_absent(error), |_| true),
        interfaces: &facts,
    };
    system::examine(&patient, &options.socket, &mut findings);
    machine::examine(&patient, &mut findings);
    interfaces::examine(&patient, &mut findings);
    findings
}

/// `Ok(None)`: somebody answers, but with no status.
fn ask_status(socket: &Path) -> std::io::Result<Option<Status>> {
    Ok(match ask(socket, &Request::Status)? {
        Response::Status(status) => Some(*status),
        _ => None,
    })
}

impl Patient<'_> {
    /// The CPUs of the workers: as they run, as configured, or as weir would choose.
    fn worker_cpus(&self) -> Vec<usize> {
        if let Some(status) = self.status {
            return status.workers.iter().filter_map(|worker| worker.cpu).collect();
        }
        let Some(config) = self.config else { return Vec::new() };
        if !config.workers.cpus.is_empty() {
            return config.workers.cpus.clone();
        }
        let online = self.root.list("sys/devices/system/cpu/online");
        let queues = self.interfaces.iter().filter_map(|facts| facts.queues).max();
        crate::plan::pick_cpus(&online, queues.unwrap_or(1))
    }
}

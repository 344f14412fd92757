//! The configuration, and the appliance as the system knows it.

use std::os::unix::net::UnixStream;
use std::path::Path;
use std::process::Command;

use config::Loaded;

use super::Patient;
use super::report::{Findings, Level};
use crate::status::Status;

pub(super) fn configuration(path: &Path, loaded: &Result<Loaded, config::Report>, findings: &mut Findings) {
    let about = "configuration";
    let remedy = Some(format!("weir check --config {}", path.display()));
    match loaded {
        Ok(loaded) if loaded.warnings.is_empty() => {
            let contracts = loaded.config.contracts.len();
            findings.ok(about, "valid", format!("{}: {contracts} contracts", path.display()));
        }
        Ok(loaded) => {
            let found = format!("{}: valid, with {} warnings", path.display(), loaded.warnings.len());
            findings.add(Level::Note, about, "valid", found, "weir runs with it", remedy);
        }
        Err(report) => {
            let found = format!("{}: {} errors", path.display(), report.len());
            let why = "weir neither starts with it nor takes it; the ports are not looked at, because nobody can say which they are";
            findings.add(Level::Error, about, "valid", found, why, remedy);
        }
    }
}

pub(super) fn examine(patient: &Patient<'_>, socket: &Path, findings: &mut Findings) {
    appliance(patient, socket, findings);
    state_directory(patient, findings);
    unit(patient, findings);
}

fn appliance(patient: &Patient<'_>, socket: &Path, findings: &mut Findings) {
    match patient.status {
        Some(status) => running(status, findings),
        None => no_status(socket, findings),
    }
}

fn running(status: &Status, findings: &mut Findings) {
    let found = format!("runs, table {}, version {}", status.generation, status.version);
    findings.ok("system", "appliance", found);
    if let Some(worker) = status.workers.iter().find(|worker| worker.state != "run") {
        let why = "its queues are not served";
        let found = format!("worker {} is in state {}", worker.worker, worker.state);
        let remedy = Some("journalctl -u weir; systemctl restart weir".into());
        findings.add(Level::Error, "system", "workers", found, why, remedy);
    }
    let unaccounted = status.unaccounted();
    if unaccounted != 0 {
        let why = "this is an error in weir";
        let found = format!("{unaccounted} packets unaccounted for");
        let remedy = Some("weir support-bundle, and report it".into());
        findings.add(Level::Error, "system", "ledger", found, why, remedy);
    }
}

/// Why there is none: nobody runs, or somebody does not answer.
fn no_status(socket: &Path, findings: &mut Findings) {
    let path = socket.display();
    let (level, found, why, remedy) = match UnixStream::connect(socket) {
        Ok(_) => (
            Level::Error,
            format!("no answer at {path}"),
            "something listens there, but gives no status: is it another version, or does it hang?",
            "journalctl -u weir",
        ),
        Err(error) if error.kind() == std::io::ErrorKind::PermissionDenied => (
            Level::Note,
            format!("cannot say: {path}: {error}"),
            "",
            "sudo weir doctor",
        ),
        Err(_) if std::fs::symlink_metadata(socket).is_ok() => (
            Level::Note,
            format!("does not run, but its socket {path} is there"),
            "an appliance ended without cleaning up; the next start replaces the file",
            "systemctl start weir",
        ),
        Err(_) => (Level::Note, "does not run".to_owned(), "", "systemctl start weir"),
    };
    findings.add(level, "system", "appliance", found, why, Some(remedy.into()));
}

/// Fewest free bytes: a history of large configurations and a log take some MiB.
const ROOM: u64 = 64 << 20;

fn state_directory(patient: &Patient<'_>, findings: &mut Findings) {
    let Some(config) = patient.config else { return };
    let path = &config.control.state;
    // A directory that weir is still to make lies on the disk of the one above it.
    let Some(there) = path.ancestors().find(|path| path.exists()) else {
        return;
    };
    let Ok(disk) = nix::sys::statvfs::statvfs(there) else {
        return findings.add(
            Level::Note,
            "system",
            "state_directory",
            format!("cannot say: {}", path.display()),
            "",
            None,
        );
    };
    let free = disk.blocks_available() * disk.fragment_size();
    let found = format!("{}: {} MiB free", path.display(), free >> 20);
    let why = "without room the history of applied versions is not kept; weir itself goes on";
    if disk.flags().contains(nix::sys::statvfs::FsFlags::ST_RDONLY) {
        findings.add(
            Level::Warning,
            "system",
            "state_directory",
            format!("{}: read-only", path.display()),
            why,
            Some("`[control] state` names the directory".into()),
        );
    } else if free < ROOM {
        findings.add(
            Level::Warning,
            "system",
            "state_directory",
            found,
            why,
            Some(format!("df -h {}", there.display())),
        );
    } else {
        findings.ok("system", "state_directory", found);
    }
}

fn unit(patient: &Patient<'_>, findings: &mut Findings) {
    if !patient.root.is_real() || !patient.root.exists("run/systemd/system") {
        return findings.add(
            Level::Note,
            "system",
            "unit",
            "cannot say: systemd does not run here",
            "",
            None,
        );
    }
    let shown = Command::new("systemctl")
        .args([
            "show",
            "weir.service",
            "--property=LoadState,ActiveState,UnitFileState,NRestarts",
        ])
        .output();
    let Some(shown) = shown.ok().filter(|output| output.status.success()) else {
        return findings.add(
            Level::Note,
            "system",
            "unit",
            "cannot say: systemctl does not answer",
            "",
            None,
        );
    };
    let text = String::from_utf8_lossy(&shown.stdout).into_owned();
    let value = |key: &str| {
        text.lines()
            .find_map(|line| line.strip_prefix(key)?.strip_prefix('='))
            .unwrap_or("")
    };
    let (loaded, active, enabled) = (value("LoadState"), value("ActiveState"), value("UnitFileState"));
    let found = format!("weir.service: {loaded}, {active}, {enabled}");
    if loaded != "loaded" {
        let why = "weir is not started by systemd, nor again after a failure";
        findings.add(
            Level::Note,
            "system",
            "unit",
            found,
            why,
            Some("install the package, or packaging/systemd/weir.service".into()),
        );
    } else if active == "failed" {
        let remedy = "journalctl -u weir -n 50; systemctl restart weir";
        findings.add(
            Level::Error,
            "system",
            "unit",
            found,
            "it ended with an error",
            Some(remedy.into()),
        );
    } else if enabled == "disabled" {
        let why = "it does not start at the next boot";
        findings.add(
            Level::Warning,
            "system",
            "unit",
            found,
            why,
            Some("systemctl enable weir".into()),
        );
    } else {
        findings.ok("system", "unit", found);
    }
}

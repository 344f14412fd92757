//! The real `weir run` as a child in the gateway's namespace.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, ExitStatus, Output, Stdio};
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use pktgen::lab::Namespace;
use serde_json::Value;

use super::interface_state;
use crate::weir_binary;

/// A running `weir`; dropping it kills it.
pub struct Weir {
    /// weir ends when this closes: with the test, however that ends. Kept apart, because waiting for a child closes its own.
    _leash: Option<ChildStdin>,
    child: Child,
    gw: Namespace,
    directory: PathBuf,
    /// Path of the control socket.
    pub socket: PathBuf,
    log: PathBuf,
    found: Vec<(String, String)>,
}

/// How it ended.
pub struct Ended {
    /// Exit status.
    pub status: ExitStatus,
    /// All it wrote to stderr.
    pub log: String,
}

const START: Duration = Duration::from_secs(10);
const END: Duration = Duration::from_secs(5);

impl Weir {
    /// Starts `weir run` with `weir.toml` of the directory; remembers how the interfaces were before.
    ///
    /// # Panics
    ///
    /// When the process cannot be started.
    #[must_use]
    pub fn launch(gw: &Namespace, directory: &Path, interfaces: &[&str]) -> Self {
        let socket = directory.join("control.sock");
        Self::launch_as(gw, directory, &socket, interfaces, &[])
    }

    /// As [`launch`](Self::launch), with another control socket and by way of another command (`setpriv ...`).
    ///
    /// # Panics
    ///
    /// When the process cannot be started.
    #[must_use]
    pub fn launch_as(gw: &Namespace, directory: &Path, socket: &Path, interfaces: &[&str], by: &[&str]) -> Self {
        let found = interfaces
            .iter()
            .map(|name| ((*name).to_owned(), interface_state(gw, name)))
            .collect();
        let log = tempfile::Builder::new()
            .prefix("weir-")
            .suffix(".log")
            .tempfile_in(directory)
            .expect("a log file");
        let (log, path) = log.keep().expect("a log file that stays");
        let mut child = start(gw, directory, socket, by, log);
        Self {
            _leash: child.stdin.take(),
            child,
            gw: gw.clone(),
            directory: directory.to_owned(),
            socket: socket.to_owned(),
            log: path,
            found,
        }
    }

    /// Waits until `weir status --json` says that all workers run and the programs are attached.
    ///
    /// # Panics
    ///
    /// When it ends, or this takes more than ten seconds.
    pub fn wait_until_running(&mut self) {
        let deadline = Instant::now() + START;
        loop {
            if let Some(status) = self.child.try_wait().expect("a child of ours") {
                panic!("weir ended at its start with {status}:\n{}", self.log());
            }
            if let Some(status) = self.try_status() {
                let workers = status["workers"].as_array().expect("workers");
                if workers.iter().all(|worker| worker["state"] == "run") {
                    return;
                }
            }
            assert!(
                Instant::now() < deadline,
                "weir does not answer after {START:?}:\n{}",
                self.log()
            );
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    /// Runs another command of the binary against this appliance: `status`, `reload`.
    ///
    /// # Panics
    ///
    /// When it cannot be started.
    #[must_use]
    pub fn ask(&self, arguments: &[&str]) -> Output {
        Command::new(weir_binary())
            .args(arguments)
            .arg("--socket")
            .arg(&self.socket)
            .output()
            .expect("weir starts")
    }

    /// What `weir status --json` prints.
    ///
    /// # Panics
    ///
    /// When it does not answer.
    #[must_use]
    pub fn status(&self) -> Value {
        self.try_status()
            .unwrap_or_else(|| panic!("no status; weir said:\n{}", self.log()))
    }

    fn try_status(&self) -> Option<Value> {
        let output = self.ask(&["status", "--json"]);
        let parsed = output.status.success().then(|| serde_json::from_slice(&output.stdout));
        parsed.and_then(Result::ok)
    }

    /// Where packets went, for the message of a test that misses some: the tables of `weir status`, and what the kernel
    /// counted for each socket.
    #[must_use]
    pub fn account(&self) -> String {
        let tables = super::text(&self.ask(&["status"]));
        let status = self.status();
        let queues = status["ports"]
            .as_array()
            .into_iter()
            .flatten()
            .map(|port| &port["queues"]);
        let sockets: Vec<String> = queues.map(Value::to_string).collect();
        format!("\n{tables}\n{}", sockets.join("\n"))
    }

    /// Reads statuses until one is as wished, for at most two seconds: counters are published once per turn of a worker.
    ///
    /// # Panics
    ///
    /// When none was; prints the last.
    #[must_use]
    pub fn status_when(&self, wished: impl Fn(&Value) -> bool) -> Value {
        self.status_when_within(Duration::from_secs(2), wished)
    }

    /// As [`status_when`](Self::status_when), for at most this long.
    ///
    /// # Panics
    ///
    /// When none was; prints the last.
    pub fn status_when_within(&self, patience: Duration, wished: impl Fn(&Value) -> bool) -> Value {
        let deadline = Instant::now() + patience;
        loop {
            let status = self.status();
            if wished(&status) {
                return status;
            }
            assert!(
                Instant::now() < deadline,
                "the status never became as wished: {status:#}"
            );
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    /// How many file descriptors it has open.
    ///
    /// # Panics
    ///
    /// When it has ended.
    #[must_use]
    pub fn open_files(&self) -> usize {
        let directory = format!("/proc/{}/fd", self.child.id());
        std::fs::read_dir(directory).expect("a running process").count()
    }

    /// Sends a signal.
    ///
    /// # Panics
    ///
    /// When the process is gone.
    pub fn signal(&self, signal: Signal) {
        let pid = Pid::from_raw(i32::try_from(self.child.id()).expect("a process id"));
        kill(pid, signal).expect("weir is there to be signalled");
    }

    /// Its process id; its name with those of its threads under `/proc`.
    #[must_use]
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// All it wrote to stderr so far.
    #[must_use]
    pub fn log(&self) -> String {
        std::fs::read_to_string(&self.log).unwrap_or_default()
    }

    /// Waits until it ends by itself.
    ///
    /// # Panics
    ///
    /// When it does not within five seconds.
    #[must_use]
    pub fn wait(&mut self) -> Ended {
        let deadline = Instant::now() + END;
        loop {
            if let Some(status) = self.child.try_wait().expect("a child of ours") {
                return Ended {
                    status,
                    log: self.log(),
                };
            }
            assert!(Instant::now() < deadline, "weir goes on after {END:?}:\n{}", self.log());
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    /// Stops it by SIGTERM and checks all that a clean end leaves: exit status 0, a ledger that closes on every queue, and
    /// the interfaces as they were found. Returns the last status before.
    ///
    /// # Panics
    ///
    /// When one of these does not hold.
    pub fn stop(self) -> Value {
        self.stop_by(Signal::SIGTERM)
    }

    /// As [`stop`](Self::stop), by this signal.
    ///
    /// # Panics
    ///
    /// As [`stop`](Self::stop).
    pub fn stop_by(mut self, signal: Signal) -> Value {
        let status = self.end_by(signal);
        self.check_left_as_found();
        status
    }

    /// As [`stop`](Self::stop), where the interfaces are not to be as they were found: the bridge stays, with its ports.
    ///
    /// # Panics
    ///
    /// As [`stop`](Self::stop).
    pub fn end(mut self) -> Value {
        self.end_by(Signal::SIGTERM)
    }

    fn end_by(&mut self, signal: Signal) -> Value {
        let status = self.status();
        for ledger in status["ledger"].as_array().expect("a ledger") {
            assert_eq!(ledger["unaccounted"], 0, "the ledger does not close: {ledger}");
        }
        self.signal(signal);
        let ended = self.wait();
        assert_eq!(ended.status.code(), Some(0), "{}", ended.log);
        assert!(ended.log.contains("packets unaccounted for: 0"), "{}", ended.log);
        assert!(!ended.log.contains("ledger does not close"), "{}", ended.log);
        assert!(!self.socket.exists(), "the control socket stays behind");
        status
    }

    /// Checks that the interfaces are as they were before it started.
    ///
    /// # Panics
    ///
    /// When one is not.
    pub fn check_left_as_found(&self) {
        for (interface, found) in &self.found {
            assert_eq!(&interface_state(&self.gw, interface), found, "{interface}");
        }
    }

    /// Directory of its configuration.
    #[must_use]
    pub fn directory(&self) -> &Path {
        &self.directory
    }
}

impl Drop for Weir {
    fn drop(&mut self) {
        // Ended already, or ended now: in both cases nothing more can be done about it.
        let _killed = self.child.kill();
        let _reaped = self.child.wait();
        if std::thread::panicking() {
            eprintln!("weir wrote:\n{}", self.log());
        }
    }
}

fn start(gw: &Namespace, directory: &Path, socket: &Path, by: &[&str], log: File) -> Child {
    let mut line: Vec<std::ffi::OsString> = by.iter().map(Into::into).collect();
    line.push(weir_binary().into());
    let mut command = Command::new(&line[0]);
    command
        .args(&line[1..])
        .arg("run")
        .arg("--config")
        .arg(directory.join("weir.toml"))
        .arg("--socket")
        .arg(socket)
        .arg("--die-with-parent")
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(log);
    gw.spawn(&mut command).expect("weir starts")
}

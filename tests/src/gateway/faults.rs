//! What the tests of faults share: a steady load, how long it was interrupted, a worker that is held, and how often each
//! fault is made.

use std::io::Write as _;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use nix::sys::ptrace;
use nix::sys::wait::{WaitPidFlag, waitpid};
use nix::unistd::Pid;
use pktgen::lab::links;
use serde_json::Value;

use super::{Arrival, Config, Gateway, HOST, Running, SITE, Stream, WAN, Weir, contract, http};

/// Packets per second of the load.
pub const LOAD: u32 = 4000;

/// How often a fault is made: so often in CI, so often with `WEIR_FULL=1`, or as `WEIR_ROUNDS` says.
#[must_use]
pub fn rounds(ci: u32, full: u32) -> u32 {
    let wished = std::env::var("WEIR_ROUNDS").ok().and_then(|rounds| rounds.parse().ok());
    if let Some(rounds) = wished {
        return rounds;
    }
    let is_full = std::env::var_os("WEIR_FULL").is_some_and(|value| value == "1");
    if is_full { full } else { ci }
}

/// A gateway with a bridge beside it, and a contract that the load keeps to.
#[must_use]
pub fn bridged() -> Config {
    Config {
        bridge: "weirbr0",
        contracts: contract("web", "\"10.0.0.0/24\"", "best-effort", "egress", "100 Mbit/s", "1 MB"),
        ..Config::default()
    }
}

/// Sends from site to wan until it is stopped, an hour at most. Neither host ever asks for the other's address.
///
/// # Panics
///
/// When an address cannot be bound.
#[must_use]
pub fn load(gateway: &Gateway) -> Running {
    load_of(gateway, LOAD, 200)
}

/// The same with so many packets a second of so many bytes of payload.
///
/// # Panics
///
/// When an address cannot be bound.
#[must_use]
pub fn load_of(gateway: &Gateway, per_second: u32, payload: usize) -> Running {
    let mac = |host: &pktgen::lab::Namespace| {
        let mac = host
            .run(|| af_xdp::device::mac(HOST))
            .expect("a thread in the namespace");
        mac.expect("an Ethernet address")
    };
    let pairs = [
        (&gateway.site, WAN, mac(&gateway.wan)),
        (&gateway.wan, SITE, mac(&gateway.site)),
    ];
    for (host, far, mac) in pairs {
        let far = far.parse().expect("an address");
        host.try_run(|| links::set_neighbour(HOST, far, mac))
            .expect("a neighbour");
    }
    let stream = Stream {
        from: SocketAddr::new(SITE.parse().expect("an address"), 0),
        to: SocketAddr::new(WAN.parse().expect("an address"), 7000),
        packets: per_second * 3600,
        per_second,
        payload,
        tos: 0,
    };
    stream.start(&gateway.site, &gateway.wan)
}

/// The longest time without a packet between two instants, both of which count as one.
#[must_use]
pub fn longest_gap(arrivals: &[Arrival], from: Instant, to: Instant) -> Duration {
    let inside = arrivals
        .iter()
        .map(|arrival| arrival.at)
        .filter(|at| (from..=to).contains(at));
    let mut before = from;
    let mut longest = Duration::ZERO;
    for at in inside.chain([to]) {
        longest = longest.max(at - before);
        before = at;
    }
    longest
}

/// The longest gap in times when nothing was the matter: what the machine itself takes away, because others use it too.
#[must_use]
pub fn noise(arrivals: &[Arrival], quiet: &[(Instant, Instant)]) -> Duration {
    let gaps: Vec<Duration> = quiet
        .iter()
        .map(|&(from, to)| longest_gap(arrivals, from, to))
        .collect();
    let _printed = measured("the machine's own gaps", &gaps);
    gaps.into_iter().max().unwrap_or_default()
}

/// From an instant to the first packet after it.
///
/// # Panics
///
/// When none came.
#[must_use]
pub fn until_next(arrivals: &[Arrival], from: Instant) -> Duration {
    let next = arrivals.iter().map(|arrival| arrival.at).find(|&at| at >= from);
    next.expect("packets come again") - from
}

/// Prints what was measured, also when the test passes, and returns the median and the 99th percentile.
///
/// # Panics
///
/// When nothing was measured.
#[must_use]
pub fn measured(what: &str, times: &[Duration]) -> (Duration, Duration) {
    let mut sorted = times.to_vec();
    sorted.sort_unstable();
    let at = |percent: usize| sorted[(sorted.len() * percent).div_ceil(100).max(1) - 1];
    let (median, p99, most) = (at(50), at(99), at(100));
    let line = format!(
        "MEASURED {what}: n={} median {median:.1?} p99 {p99:.1?} max {most:.1?}",
        times.len()
    );
    // Not by eprintln, which the test harness hides when a test passes.
    let _written = writeln!(std::io::stderr(), "{line}");
    (median, p99)
}

/// Every worker's frames, counted by owner, are all it has, and every packet is accounted for.
///
/// # Panics
///
/// When this does not hold.
pub fn check_nothing_missing(status: &Value) {
    for worker in status["workers"].as_array().expect("workers") {
        assert_eq!(worker["frames_counted"], worker["frames"], "frames are lost: {worker}");
    }
    for ledger in status["ledger"].as_array().expect("a ledger") {
        assert_eq!(ledger["unaccounted"], 0, "the ledger does not close: {ledger}");
    }
}

/// Names of the alarms in a status.
#[must_use]
pub fn alarms(status: &Value) -> Vec<&str> {
    let alarms = status["alarms"].as_array().into_iter().flatten();
    alarms.filter_map(|alarm| alarm["name"].as_str()).collect()
}

/// Why the gateway is not ready: the names of the checks.
///
/// # Panics
///
/// When it does not answer.
#[must_use]
pub fn reasons(gateway: &Gateway) -> Vec<String> {
    let (_, body) = http::get(gateway, &[], "/readyz");
    let health: Value = serde_json::from_str(&body).expect("JSON");
    let reasons = health["reasons"].as_array().into_iter().flatten();
    reasons
        .filter_map(|reason| reason["check"].as_str().map(str::to_owned))
        .collect()
}

/// Asks until the reasons are as wished, and returns how long that took.
///
/// # Panics
///
/// When that is more than this.
pub fn reasons_when(gateway: &Gateway, within: Duration, wished: impl Fn(&[String]) -> bool) -> Duration {
    let start = Instant::now();
    loop {
        let found = reasons(gateway);
        let took = start.elapsed();
        if wished(&found) {
            return took;
        }
        assert!(took < within, "after {took:?} the reasons are {found:?}");
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// The kinds of all events, oldest first.
///
/// # Panics
///
/// When the gateway does not answer.
#[must_use]
pub fn events(gateway: &Gateway) -> Vec<String> {
    let (_, body) = http::get(gateway, &[], "/api/v1/events");
    let events: Value = serde_json::from_str(&body).expect("JSON");
    let events = events["events"].as_array().into_iter().flatten();
    events
        .filter_map(|event| event["kind"].as_str().map(str::to_owned))
        .collect()
}

/// A worker held by a debugger: the one thread stands still, all others go on. Given back when dropped. Lives and dies on one
/// thread.
pub struct Held {
    worker: Pid,
    task: std::path::PathBuf,
    /// When it stood still.
    pub since: Instant,
}

impl Held {
    /// Holds the only worker of a gateway.
    ///
    /// # Panics
    ///
    /// When there is none, or somebody else holds it.
    #[must_use]
    pub fn hold(weir: &Weir) -> Self {
        let tasks = format!("/proc/{}/task", weir.id());
        let is_worker = |task: &std::fs::DirEntry| {
            let name = std::fs::read_to_string(task.path().join("comm")).unwrap_or_default();
            name.starts_with("weir-cpu") || name.starts_with("weir-worker")
        };
        let task = std::fs::read_dir(tasks)
            .expect("a running weir")
            .filter_map(Result::ok)
            .find(is_worker);
        let task = task.expect("a worker").path();
        let id = task
            .file_name()
            .expect("a task")
            .to_string_lossy()
            .parse()
            .expect("a number");
        let worker = Pid::from_raw(id);
        ptrace::seize(worker, ptrace::Options::empty()).expect("the worker is nobody else's");
        ptrace::interrupt(worker).expect("it can be stopped");
        let _stopped = waitpid(worker, Some(WaitPidFlag::__WALL)).expect("it stops");
        Self {
            worker,
            task,
            since: Instant::now(),
        }
    }
}

impl Held {
    /// Lets the worker go on, and waits until it has its core again: on a machine that others use too, the scheduler may take
    /// its time for that. Returns that instant.
    ///
    /// # Panics
    ///
    /// When it has not run within five seconds.
    #[must_use]
    pub fn release(self) -> Instant {
        let task = self.task.clone();
        // How often it was given a core, the third number of schedstat.
        let slices = || {
            let text = std::fs::read_to_string(task.join("schedstat")).expect("a running worker");
            text.split_whitespace()
                .nth(2)
                .and_then(|slices| slices.parse::<u64>().ok())
        };
        let (before, start) = (slices(), Instant::now());
        drop(self);
        while slices() == before {
            assert!(
                start.elapsed() < Duration::from_secs(5),
                "the worker does not run again"
            );
            std::thread::sleep(Duration::from_micros(200));
        }
        Instant::now()
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        // It may have been killed meanwhile.
        let _goes_on = ptrace::detach(self.worker, None);
    }
}

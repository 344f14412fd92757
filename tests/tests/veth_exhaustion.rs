//! A gateway that runs out of something, under load: time, frames, room on disk, file descriptors. Needs root.

use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nix::sys::signal::Signal;
use serde_json::Value;
use weir_tests::gateway::faults::{Held, bridged, check_nothing_missing, load, load_of, measured, rounds, until_next};
use weir_tests::gateway::http::get;
use weir_tests::gateway::{
    Capture, Config, Gateway, HOST, LAN, Layout, Running, Score, UPLINK, Weir, contract, ledger_sum, text,
};

fn pause(ms: u64) {
    std::thread::sleep(Duration::from_millis(ms));
}

const RATE_BPS: u64 = 5_000_000;
const BURST_BYTES: u64 = 100_000;

/// Over any stretch of time, a pause in it or not, what conforms is at most burst + rate × time.
#[test]
fn a_pause_of_the_process_grants_one_burst_at_most() {
    let Some(gateway) = Gateway::build(Layout::default()) else {
        return;
    };
    let config = Config {
        contracts: contract("web", "\"10.0.0.0/24\"", "best-effort", "egress", "5 Mbit/s", "100 kB"),
        ..Config::default()
    };
    let weir = gateway.start(&config);
    // Without a mark: conforming. The excess is re-marked.
    let path = gateway.directory.path().join("conforming.pcap");
    let capture = Capture::start(&gateway.wan, HOST, "udp dst port 7000 and ip[1] = 0", &path);
    let running = load_of(&gateway, 4000, 600);
    pause(1500);
    weir.signal(Signal::SIGSTOP);
    let stopped = Instant::now();
    std::thread::sleep(Duration::from_secs(u64::from(rounds(3, 30))));
    weir.signal(Signal::SIGCONT);
    let on_again = Instant::now();
    pause(1500);
    let (_, arrivals) = running.stop();
    let packets = capture.finish();
    let _times = measured(
        "paused process: until the next packet",
        &[until_next(&arrivals, on_again)],
    );
    assert!(arrivals.iter().filter(|arrival| arrival.at > on_again).count() > 1000);
    assert!(stopped < on_again && packets.len() > 1000, "{}", packets.len());

    // A bucket as the contract says; what it lacks is granted too much. The path to the receiver takes some time, which
    // bunches packets: 20 ms of the rate.
    let burst_bits = (BURST_BYTES * 8 + RATE_BPS / 50) as f64;
    let (mut level, mut before, mut least) = (burst_bits, packets[0].at_ns, burst_bits);
    for packet in &packets {
        let gained = RATE_BPS as f64 * packet.at_ns.saturating_sub(before) as f64 / 1e9;
        before = packet.at_ns;
        level = (level + gained).min(burst_bits) - (packet.bytes.len() - 14) as f64 * 8.0;
        least = least.min(level);
    }
    assert!(least >= 0.0, "{:.0} bytes too much were granted", -least / 8.0);
    let status = weir.status();
    check_nothing_missing(&status);
    weir.end();
}

/// The worker stands still for longer than its rings last: the kernel drops what does not fit, counts it, and forwards as
/// soon as the worker goes on.
#[test]
fn rings_that_overflow_are_counted_and_empty_at_once() {
    let Some(gateway) = Gateway::build(Layout::default()) else {
        return;
    };
    let config = Config {
        poll: "busy",
        stale_after: "10 s",
        ..bridged()
    };
    let weir = gateway.start(&config);
    let running = load_of(&gateway, 8000, 100);
    pause(300);
    let (mut relieved, mut waits) = (Vec::new(), Vec::new());
    for _ in 0..rounds(8, 200) {
        let held = Held::hold(&weir);
        pause(500);
        let before = Instant::now();
        relieved.push(held.release());
        waits.push(before.elapsed());
        pause(200);
    }
    let (sent, arrivals) = running.stop();
    let status = weir.status();
    let overflow = sum_of(&status, "rx_ring_full") + sum_of(&status, "rx_dropped");
    assert!(overflow > 1000, "{}", weir.account());
    let times: Vec<Duration> = relieved.iter().map(|&at| until_next(&arrivals, at)).collect();
    let _waits = measured("rings full: until the worker has its core again", &waits);
    let (median, _) = measured("rings full: from then to the next packet", &times);
    assert!(median <= Duration::from_millis(10), "{times:?}");
    // Every packet that is missing is one that a ring had no room for.
    let score = Score::of(sent, &arrivals);
    let elsewhere = gateway.lost_elsewhere(&status);
    assert!(
        u64::from(score.lost()) <= overflow + elsewhere,
        "{score:?}: {}",
        weir.account()
    );
    assert_eq!((score.duplicates, score.reordered), (0, 0), "{score:?}");
    check_nothing_missing(&status);
    weir.end();
}

/// A number of the kernel's XDP statistics, over all queues.
fn sum_of(status: &Value, name: &str) -> u64 {
    let ports = status["ports"].as_array().into_iter().flatten();
    let queues = ports.flat_map(|port| port["queues"].as_array().into_iter().flatten());
    queues.filter_map(|queue| queue["xdp_statistics"][name].as_u64()).sum()
}

#[test]
fn a_disk_that_is_full_or_read_only_and_a_log_that_goes_nowhere() {
    let Some(gateway) = Gateway::build(Layout::default()) else {
        return;
    };
    let state = gateway.directory.path().join("state");
    std::fs::create_dir(&state).unwrap();
    let disk = SmallDisk::mount(&state);
    gateway.write(&config_of("50 Mbit/s"));
    // All that weir says is refused: the log's disk is full from the start.
    let by = ["sh", "-c", "exec \"$@\" 2>/dev/full", "sh"];
    let socket = gateway.directory.path().join("control.sock");
    let mut weir = Weir::launch_as(&gateway.gw, gateway.directory.path(), &socket, &[LAN, UPLINK], &by);
    weir.wait_until_running();
    let running = load(&gateway);
    pause(200);

    std::fs::write(state.join("filler"), vec![0; 2 << 20]).unwrap_err();
    changes_anyway(&gateway, &weir, "51 Mbit/s");
    std::fs::remove_file(state.join("filler")).unwrap();
    let read_only = disk.cover_read_only();
    changes_anyway(&gateway, &weir, "52 Mbit/s");
    drop(read_only);
    gateway.write(&config_of("53 Mbit/s"));
    let output = weir.ask(&["apply"]);
    assert!(
        output.status.success() && !text(&output).contains("could not be kept"),
        "{}",
        text(&output)
    );

    check_load(running, &gateway, &weir);
    weir.signal(Signal::SIGTERM);
    assert_eq!(weir.wait().status.code(), Some(0));
}

/// The change is made, and it is said that it could not be kept.
fn changes_anyway(gateway: &Gateway, weir: &Weir, rate: &str) {
    let before = weir.status()["generation"].as_u64();
    gateway.write(&config_of(rate));
    let output = weir.ask(&["apply"]);
    assert!(
        text(&output).contains("could not be kept in the history"),
        "{}",
        text(&output)
    );
    assert!(weir.status()["generation"].as_u64() > before, "{}", text(&output));
}

fn config_of(rate: &str) -> Config {
    Config {
        contracts: contract("web", "\"10.0.0.0/24\"", "best-effort", "egress", rate, "1 MB"),
        ..Config::default()
    }
}

#[test]
fn file_descriptors_that_run_out() {
    let Some(gateway) = Gateway::build(Layout::default()) else {
        return;
    };
    let weir = gateway.start(&config_of("50 Mbit/s"));
    let running = load(&gateway);
    pause(200);
    let limit = |files: usize| {
        let (pid, files) = (weir.id().to_string(), format!("--nofile={files}:"));
        let output = Command::new("prlimit").args(["--pid", &pid, &files]).output().unwrap();
        assert!(output.status.success(), "{}", text(&output));
    };
    limit(weir.open_files() + 3);
    let api = gateway.directory.path().join("api.sock");
    let mut idle = Vec::new();
    for path in [&api, &weir.socket] {
        // More than it may open, and than the kernel queues: those are refused here.
        idle.extend((0..200).map_while(|_| connect(path)));
    }
    assert!(idle.len() > 10, "{}", idle.len());
    pause(1500);
    drop(idle);
    limit(1024);
    // What had been queued is looked at first.
    pause(1000);
    assert_eq!(get(&gateway, &[], "/readyz").0, 200, "{}", weir.log());
    assert!(weir.ask(&["status"]).status.success());
    check_load(running, &gateway, &weir);
    weir.stop();
}

fn connect(path: &Path) -> Option<UnixStream> {
    // A full backlog would wait for ever.
    let socket = nix::sys::socket::socket(
        nix::sys::socket::AddressFamily::Unix,
        nix::sys::socket::SockType::Stream,
        nix::sys::socket::SockFlag::SOCK_NONBLOCK,
        None,
    )
    .ok()?;
    let address = nix::sys::socket::UnixAddr::new(path).ok()?;
    nix::sys::socket::connect(std::os::fd::AsRawFd::as_raw_fd(&socket), &address).ok()?;
    Some(UnixStream::from(socket))
}

/// No packet of it was lost by weir, and all is accounted for.
fn check_load(running: Running, gateway: &Gateway, weir: &Weir) {
    let (sent, arrivals) = running.stop();
    let status = weir.status();
    let score = Score::of(sent, &arrivals);
    let elsewhere = gateway.lost_elsewhere(&status);
    assert!(
        u64::from(score.lost()) <= elsewhere,
        "{score:?}, elsewhere {elsewhere}: {}",
        weir.account()
    );
    assert!(ledger_sum(&status, &["forwarded", "packets"]) > 500, "{status:#}");
    check_nothing_missing(&status);
}

/// A file system of one megabyte.
struct SmallDisk(PathBuf);

impl SmallDisk {
    fn mount(path: &Path) -> Self {
        mount(Some("tmpfs"), path, Some("tmpfs"), MsFlags::empty(), Some("size=1m")).unwrap();
        Self(path.to_owned())
    }

    /// Lays the same over it once more, read-only: a file system whose files are open for writing is not made so.
    fn cover_read_only(&self) -> ReadOnly<'_> {
        mount(Some(&self.0), &self.0, None::<&str>, MsFlags::MS_BIND, None::<&str>).unwrap();
        let cover = ReadOnly(&self.0);
        let flags = MsFlags::MS_BIND | MsFlags::MS_REMOUNT | MsFlags::MS_RDONLY;
        mount(None::<&str>, &self.0, None::<&str>, flags, None::<&str>).unwrap();
        cover
    }
}

struct ReadOnly<'a>(&'a Path);

impl Drop for ReadOnly<'_> {
    fn drop(&mut self) {
        umount2(self.0, MntFlags::MNT_DETACH).unwrap();
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        // The directory goes with the test, which a mount would hinder.
        let _gone = umount2(&self.0, MntFlags::MNT_DETACH);
    }
}

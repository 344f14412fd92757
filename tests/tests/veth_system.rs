//! How weir lives in the system: what it tells the service manager, what its threads may do after the start, as whom it can
//! run, who may ask it, and where its log goes. Needs root.

use std::collections::BTreeMap;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _, chown};
use std::os::unix::net::UnixDatagram;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;
use serde_json::Value;
use weir_tests::gateway::faults::Held;
use weir_tests::gateway::{Config, Gateway, LAN, Layout, UPLINK, Weir, contract, text};
use weir_tests::weir_binary;

/// A user and a group that no machine has.
const SOMEBODY: u32 = 47_110;
const GROUP: u32 = 47_111;

fn config(rate: &str) -> Config {
    Config {
        contracts: contract("web", "\"10.0.0.0/24\"", "best-effort", "egress", rate, "100 kB"),
        ..Config::default()
    }
}

/// For each thread its name and the lines of its `/proc/PID/task/TID/status`.
fn threads(weir: &Weir) -> Vec<(i32, BTreeMap<String, String>)> {
    let tasks = std::fs::read_dir(format!("/proc/{}/task", weir.id())).unwrap();
    let read = |task: std::io::Result<std::fs::DirEntry>| {
        let task = task.ok()?;
        // A thread may have ended since.
        let status = std::fs::read_to_string(task.path().join("status")).ok()?;
        let line = |line: &str| {
            let (key, value) = line.split_once(':')?;
            Some((key.to_owned(), value.trim().to_owned()))
        };
        let id = task.file_name().to_string_lossy().parse().ok()?;
        Some((id, status.lines().filter_map(line).collect()))
    };
    tasks.filter_map(read).collect()
}

fn is_worker(thread: &BTreeMap<String, String>) -> bool {
    ["weir-cpu", "weir-worker"]
        .iter()
        .any(|name| thread["Name"].starts_with(name))
}

/// No thread has a capability in effect, all have a filter; workers cannot get any back, the others CAP_NET_ADMIN (bit 12).
fn check_confined(weir: &Weir) {
    let threads = threads(weir);
    assert!(threads.len() >= 4, "{threads:?}");
    assert_eq!(threads.iter().filter(|(_, thread)| is_worker(thread)).count(), 1);
    for (_, thread) in &threads {
        let number = |key: &str| u64::from_str_radix(&thread[key], 16).unwrap();
        assert_eq!(
            (number("CapEff"), number("CapInh"), number("CapAmb")),
            (0, 0, 0),
            "{thread:?}"
        );
        assert_eq!((&*thread["Seccomp"], &*thread["NoNewPrivs"]), ("2", "1"), "{thread:?}");
        let left = if is_worker(thread) { 0 } else { 1 << 12 };
        assert_eq!(number("CapPrm"), left, "{thread:?}");
    }
}

fn succeeds(weir: &Weir, command: &[&str]) -> String {
    let output = weir.ask(command);
    assert_eq!(output.status.code(), Some(0), "{command:?}: {}", text(&output));
    text(&output)
}

/// Everything an operator does to a running weir.
fn use_it(gateway: &Gateway, weir: &Weir) {
    gateway.warm();
    gateway.write(&config("11 Mbit/s"));
    succeeds(weir, &["apply", "--confirm", "5m"]);
    succeeds(weir, &["confirm"]);
    succeeds(weir, &["rollback"]);
    succeeds(weir, &["history"]);
    succeeds(weir, &["reload"]);
    gateway.write(&config("12 Mbit/s"));
    weir.signal(Signal::SIGHUP);
    let status = weir.status_when(|status| status["contracts"][0]["rate_bps"] == 12_000_000);
    assert_eq!(status["history_error"], Value::Null, "{status:#}");
    let counted = status["ledger"].as_array().unwrap();
    assert!(
        counted
            .iter()
            .all(|ledger| ledger["received"]["packets"].as_u64() > Some(0)),
        "{status:#}"
    );
}

#[test]
fn after_the_start_no_thread_has_a_privilege_and_everything_works() {
    let Some(gateway) = Gateway::build(Layout::default()) else {
        return;
    };
    let weir = gateway.start(&config("10 Mbit/s"));
    check_confined(&weir);
    use_it(&gateway, &weir);
    check_confined(&weir);
    // Puts the offloads back, which takes the capability that was kept for it.
    let status = weir.stop();
    assert!(status["generation"].as_u64() >= Some(4));
}

/// What a service manager hears.
struct Manager {
    socket: UnixDatagram,
    path: PathBuf,
}

impl Manager {
    fn listen(directory: &Path) -> Self {
        let path = directory.join("notify.sock");
        let socket = UnixDatagram::bind(&path).unwrap();
        socket.set_read_timeout(Some(Duration::from_millis(100))).unwrap();
        Self { socket, path }
    }

    fn next(&self) -> Option<String> {
        let mut message = [0; 4096];
        let len = self.socket.recv(&mut message).ok()?;
        Some(String::from_utf8_lossy(&message[..len]).into_owned())
    }

    /// The next message that begins so; those before it are dropped.
    fn wait_for(&self, beginning: &str) -> String {
        let deadline = Instant::now() + Duration::from_secs(10);
        while Instant::now() < deadline {
            if let Some(message) = self.next().filter(|message| message.starts_with(beginning)) {
                return message;
            }
        }
        panic!("never told: {beginning}");
    }

    /// Whether one that begins so comes within this time.
    fn hears(&self, beginning: &str, within: Duration) -> bool {
        let deadline = Instant::now() + within;
        while Instant::now() < deadline {
            if self.next().is_some_and(|message| message.starts_with(beginning)) {
                return true;
            }
        }
        false
    }
}

fn launch_by(gateway: &Gateway, by: &[&str]) -> Weir {
    let directory = gateway.directory.path();
    Weir::launch_as(
        &gateway.gw,
        directory,
        &directory.join("control.sock"),
        &[LAN, UPLINK],
        by,
    )
}

#[test]
fn the_service_manager_is_told() {
    let Some(gateway) = Gateway::build(Layout::default()) else {
        return;
    };
    gateway.write(&config("10 Mbit/s"));
    let manager = Manager::listen(gateway.directory.path());
    let socket = format!("NOTIFY_SOCKET={}", manager.path.display());
    let mut weir = launch_by(&gateway, &["env", &socket, "WATCHDOG_USEC=1000000"]);
    assert_eq!(manager.wait_for(""), "READY=1\n", "the first word");
    weir.wait_until_running();
    assert_eq!(manager.wait_for("WATCHDOG"), "WATCHDOG=1\n");
    let status = manager.wait_for("STATUS=table 1, 1 contracts, in ");
    assert!(
        status.contains("bit/s, out ") && status.ends_with("bit/s\n"),
        "{status}"
    );

    gateway.write(&config("20 Mbit/s"));
    let before = monotonic_usec();
    weir.signal(Signal::SIGHUP);
    let told = manager.wait_for("RELOADING=1\nMONOTONIC_USEC=");
    let at: u128 = told.trim().rsplit('=').next().unwrap().parse().unwrap();
    assert!((before..=monotonic_usec()).contains(&at), "{told}");
    manager.wait_for("READY=1");
    assert_eq!(weir.status()["generation"], 2);
    // A reload that is refused ends too.
    std::fs::write(gateway.directory.path().join("weir.toml"), "nonsense").unwrap();
    weir.signal(Signal::SIGHUP);
    manager.wait_for("RELOADING=1");
    manager.wait_for("READY=1");
    assert_eq!(weir.status()["generation"], 2);

    // A debugger holds the worker, and nobody else: the pings must stop, and come back with it.
    let held = Held::hold(&weir);
    std::thread::sleep(Duration::from_millis(1_100));
    while manager.next().is_some_and(|message| message.starts_with("WATCHDOG")) {}
    assert!(
        !manager.hears("WATCHDOG", Duration::from_secs(2)),
        "a ping although the worker hangs"
    );
    assert!(
        weir.status()["workers"][0]["turns"].as_u64() > Some(0),
        "the control thread lives on"
    );
    drop(held);
    manager.wait_for("WATCHDOG=1");

    weir.stop();
    manager.wait_for("STOPPING=1");
}

fn monotonic_usec() -> u128 {
    let now = nix::time::clock_gettime(nix::time::ClockId::CLOCK_MONOTONIC).unwrap();
    Duration::from(now).as_micros()
}

/// Makes the test's directory somebody's, with a copy of the binary that they can reach.
fn give_to(gateway: &Gateway, user: u32, group: u32) -> PathBuf {
    let directory = gateway.directory.path();
    let copy = directory.join("weir");
    std::fs::copy(weir_binary(), &copy).unwrap();
    for path in [
        directory.to_owned(),
        directory.join("weir.toml"),
        directory.join("contracts.d"),
    ] {
        chown(path, Some(user), Some(group)).unwrap();
    }
    copy
}

/// `setpriv` to be somebody with these capabilities and no others.
fn as_somebody(capabilities: &[&str]) -> Vec<String> {
    let list = |prefix: &str| {
        let named = capabilities.iter().map(|name| format!("{prefix}{name}"));
        std::iter::once("-all".to_owned())
            .chain(named)
            .collect::<Vec<_>>()
            .join(",")
    };
    let mut line = vec!["setpriv".to_owned()];
    for set in ["--inh-caps", "--ambient-caps", "--bounding-set"] {
        line.extend([set.to_owned(), list("+")]);
    }
    line.extend(
        [
            "--reuid",
            &SOMEBODY.to_string(),
            "--regid",
            &GROUP.to_string(),
            "--clear-groups",
        ]
        .map(str::to_owned),
    );
    line
}

const ENOUGH: [&str; 3] = ["net_admin", "net_raw", "bpf"];
/// Stands for `LimitMEMLOCK=infinity` of the unit: raising a hard limit is more than every machine lets root do.
const UNLIMITED: &str = "ipc_lock";

#[test]
fn a_user_with_three_capabilities_can_run_it() {
    let Some(gateway) = Gateway::build(Layout::default()) else {
        return;
    };
    gateway.write(&config("10 Mbit/s"));
    let copy = give_to(&gateway, SOMEBODY, GROUP);
    let by = as_somebody(&[ENOUGH.as_slice(), &[UNLIMITED]].concat());
    let by: Vec<&str> = by.iter().map(String::as_str).chain(["env"]).collect();
    let mut weir = launch_program(&gateway, &by, &copy);
    weir.wait_until_running();
    let all = threads(&weir);
    assert!(
        all.iter()
            .all(|(_, thread)| thread["Uid"].starts_with(&SOMEBODY.to_string())),
        "{all:?}"
    );
    check_confined(&weir);
    use_it(&gateway, &weir);
    weir.stop();
}

#[test]
fn none_of_the_three_can_be_missing() {
    let Some(gateway) = Gateway::build(Layout::default()) else {
        return;
    };
    for missing in ENOUGH {
        gateway.write(&config("10 Mbit/s"));
        let copy = give_to(&gateway, SOMEBODY, GROUP);
        let rest: Vec<&str> = ENOUGH
            .into_iter()
            .chain([UNLIMITED])
            .filter(|name| *name != missing)
            .collect();
        let by = as_somebody(&rest);
        let by: Vec<&str> = by.iter().map(String::as_str).chain(["env"]).collect();
        let mut weir = launch_program(&gateway, &by, &copy);
        let ended = weir.wait();
        assert_eq!(ended.status.code(), Some(1), "without {missing}: {}", ended.log);
        let named = format!("CAP_{}", missing.to_uppercase());
        assert!(ended.log.contains(&named), "without {missing}: {}", ended.log);
        weir.check_left_as_found();
    }
}

/// As `launch_by`, with a copy of the binary: the first argument after `by` is the test's own, which `sh` leaves out.
fn launch_program(gateway: &Gateway, by: &[&str], program: &Path) -> Weir {
    let script = format!("shift; exec {} \"$@\"", program.display());
    let line: Vec<&str> = by.iter().copied().chain(["sh", "-c", &script, "sh"]).collect();
    launch_by(gateway, &line)
}

#[test]
fn the_group_may_ask_and_change_and_others_may_not() {
    let Some(gateway) = Gateway::build(Layout::default()) else {
        return;
    };
    gateway.write(&config("10 Mbit/s"));
    let directory = gateway.directory.path();
    std::fs::set_permissions(directory, std::fs::Permissions::from_mode(0o755)).unwrap();
    let groups = directory.join("group");
    std::fs::write(&groups, format!("root:x:0:\nweir:x:{GROUP}:\n")).unwrap();
    let socket = directory.join("run/weir/control.sock");
    let script = format!("mount --bind {} /etc/group && exec \"$@\"", groups.display());
    let by = ["unshare", "--mount", "sh", "-c", &script, "sh"];
    let mut weir = Weir::launch_as(&gateway.gw, directory, &socket, &[LAN, UPLINK], &by);
    weir.wait_until_running();
    let found = |path: &Path| {
        let found = std::fs::metadata(path).unwrap();
        (found.uid(), found.gid(), found.mode() & 0o777)
    };
    assert_eq!(found(&socket), (0, GROUP, 0o660));
    assert_eq!(found(socket.parent().unwrap()), (0, GROUP, 0o750));

    let copy = directory.join("weir");
    std::fs::copy(weir_binary(), &copy).unwrap();
    let ask = |group: u32, command: &str| -> Output {
        let mut line = Command::new("setpriv");
        line.args(["--reuid", "65534", "--regid", "65534", "--groups", &group.to_string()]);
        line.arg(&copy).arg(command).arg("--socket").arg(&socket);
        line.output().unwrap()
    };
    for command in ["status", "reload"] {
        let output = ask(GROUP, command);
        assert_eq!(output.status.code(), Some(0), "{command}: {}", text(&output));
        let output = ask(65_534, command);
        assert_eq!(output.status.code(), Some(1), "{command}: {}", text(&output));
        assert!(text(&output).contains("group `weir`"), "{command}: {}", text(&output));
    }
    weir.stop();
}

#[test]
fn without_the_group_only_its_owner_may_ask() {
    let Some(gateway) = Gateway::build(Layout::default()) else {
        return;
    };
    gateway.write(&config("10 Mbit/s"));
    let directory = gateway.directory.path();
    let script = "mount --bind /dev/null /etc/group && exec \"$@\"";
    let mut weir = launch_by(&gateway, &["unshare", "--mount", "sh", "-c", script, "sh"]);
    weir.wait_until_running();
    let found = std::fs::metadata(directory.join("control.sock")).unwrap();
    assert_eq!((found.uid(), found.mode() & 0o777), (0, 0o600));
    weir.stop();
}

#[test]
fn journald_gets_fields_and_stderr_nothing() {
    let Some(gateway) = Gateway::build(Layout::default()) else {
        return;
    };
    gateway.write(&config("10 Mbit/s"));
    let directory = gateway.directory.path();
    let journal = UnixDatagram::bind(directory.join("socket")).unwrap();
    journal.set_read_timeout(Some(Duration::from_millis(200))).unwrap();
    let script = format!(
        "mount -t tmpfs none /run && mkdir -p /run/systemd/journal && touch /run/systemd/journal/socket && \
         mount --bind {}/socket /run/systemd/journal/socket && \
         JOURNAL_STREAM=$(stat -Lc %d:%i /proc/self/fd/2) exec \"$@\"",
        directory.display()
    );
    let mut weir = launch_by(&gateway, &["unshare", "--mount", "sh", "-c", &script, "sh"]);
    weir.wait_until_running();
    weir.signal(Signal::SIGHUP);
    let _status = weir.status_when(|status| status["generation"] == 2);
    let log = weir.log();
    assert_eq!(log, "", "stderr has nothing that the journal has");
    weir.signal(Signal::SIGTERM);
    assert_eq!(weir.wait().status.code(), Some(0));
    let mut messages = Vec::new();
    let mut message = [0; 65_536];
    while let Ok(len) = journal.recv(&mut message) {
        messages.push(String::from_utf8_lossy(&message[..len]).into_owned());
    }
    let has = |fields: &[&str]| {
        messages
            .iter()
            .any(|message| fields.iter().all(|field| message.contains(field)))
    };
    assert!(
        has(&[
            "WEIR_EVENT",
            "port",
            "WEIR_PORT",
            "uplink",
            "SYSLOG_IDENTIFIER",
            "PRIORITY"
        ]),
        "{messages:?}"
    );
    assert!(
        has(&["running table 1 with 1 contracts", "WEIR_GENERATION"]),
        "{messages:?}"
    );
    assert!(has(&["SIGHUP", "WEIR_GENERATION"]), "{messages:?}");
    assert!(has(&["packets unaccounted for: 0"]), "{messages:?}");
}

#[test]
fn the_log_as_json_is_json() {
    let Some(gateway) = Gateway::build(Layout::default()) else {
        return;
    };
    gateway.write(&config("10 Mbit/s"));
    let script = format!("shift; exec {} \"$@\" --log-format json", weir_binary().display());
    let mut weir = launch_by(&gateway, &["sh", "-c", &script, "sh"]);
    weir.wait_until_running();
    let log = weir.log();
    let lines: Vec<Value> = log.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let start = lines.iter().find(|line| line["fields"]["event"] == "start").unwrap();
    assert_eq!(
        (&start["level"], &start["fields"]["generation"]),
        (&Value::from("INFO"), &Value::from(1))
    );
    weir.signal(Signal::SIGTERM);
    assert_eq!(weir.wait().status.code(), Some(0));
}

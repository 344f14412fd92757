//! `weir top` on a real terminal and `weir explain` against a live gateway. Needs root.

use std::fs::OpenOptions;
use std::io::{Read, Write};
use std::net::SocketAddr;
use std::os::unix::fs::OpenOptionsExt;
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use nix::fcntl::OFlag;
use nix::pty::{PtyMaster, grantpt, posix_openpt, ptsname_r, unlockpt};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::Value;
use weir_tests::gateway::{Config, Gateway, Layout, SITE, Stream, WAN, Weir, contract, contract_of, text};
use weir_tests::weir_binary;

fn config() -> Config {
    let web = contract("web", "\"10.0.0.0/24\"", "best-effort", "egress", "4 Mbit/s", "20 kB");
    let idle = contract(
        "idle",
        "\"10.7.0.0/16\"",
        "best-effort",
        "egress",
        "900 Mbit/s",
        "100 kB",
    );
    Config {
        contracts: web + &idle,
        ..Config::default()
    }
}

/// A terminal of 80 by 24 made by script(1), with `weir top` on it.
struct Terminal {
    child: Child,
    keys: std::process::ChildStdin,
    printed: Arc<Mutex<Vec<u8>>>,
}

impl Terminal {
    /// What the terminal's settings are before and after is printed around it.
    fn start(weir: &Weir, environment: &str) -> Self {
        let top = format!(
            "stty rows 24 cols 80; stty -g; env LC_ALL=C.UTF-8 {environment} '{}' top --interval 0.3 --socket '{}'; \
             echo \"status $?\"; stty -g",
            weir_binary().display(),
            weir.socket.display()
        );
        let mut command = Command::new("script");
        command.args(["-q", "-f", "-e", "-c", &top, "/dev/null"]);
        command.env("TERM", "xterm-256color").env_remove("NO_COLOR");
        let piped = command.stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut child = piped.spawn().expect("script(1) of util-linux");
        let (keys, mut output) = (child.stdin.take().unwrap(), child.stdout.take().unwrap());
        let printed = Arc::new(Mutex::new(Vec::new()));
        let sink = printed.clone();
        std::thread::spawn(move || {
            let mut piece = [0; 4096];
            while let Ok(read @ 1..) = output.read(&mut piece) {
                sink.lock().unwrap().extend_from_slice(&piece[..read]);
            }
        });
        Self { child, keys, printed }
    }

    fn screen(&self) -> vt100::Parser {
        let mut parser = vt100::Parser::new(24, 80, 0);
        parser.process(&self.printed.lock().unwrap());
        parser
    }

    fn press(&mut self, keys: &str) {
        self.keys.write_all(keys.as_bytes()).unwrap();
        self.keys.flush().unwrap();
    }

    /// Waits until the screen is as wanted, and gives it.
    fn until(&self, what: &str, wanted: impl Fn(&str) -> bool) -> String {
        let deadline = Instant::now() + Duration::from_secs(8);
        loop {
            let shown = self.screen().screen().contents();
            if wanted(&shown) {
                return shown;
            }
            assert!(Instant::now() < deadline, "{what} does not come:\n{shown}");
            std::thread::sleep(Duration::from_millis(50));
        }
    }

    /// Waits for the end; the terminal must be as it was.
    fn check_restored(mut self, status: &str) {
        let deadline = Instant::now() + Duration::from_secs(5);
        while self.child.try_wait().unwrap().is_none() {
            assert!(Instant::now() < deadline, "weir top does not end");
            std::thread::sleep(Duration::from_millis(20));
        }
        // The reader sees the end of the pipe after the child's.
        std::thread::sleep(Duration::from_millis(100));
        let parser = self.screen();
        let screen = parser.screen();
        assert!(
            !screen.alternate_screen() && !screen.hide_cursor(),
            "the terminal is not restored"
        );
        let shown = screen.contents();
        let settings: Vec<&str> = shown.lines().filter(|line| line.matches(':').count() > 20).collect();
        assert_eq!(settings.len(), 2, "{shown}");
        assert_eq!(settings[0], settings[1], "stty before and after");
        assert!(shown.contains(status), "{shown}");
    }
}

impl Drop for Terminal {
    fn drop(&mut self) {
        let _gone = self.child.kill();
        let _reaped = self.child.wait();
    }
}

/// 1,000 packets of 1,028 bytes of IP a second: 8.2 Mbit/s, twice what is granted.
fn stream(seconds: u32) -> Stream {
    Stream {
        from: SocketAddr::new(SITE.parse().unwrap(), 0),
        to: SocketAddr::new(WAN.parse().unwrap(), 7000),
        packets: 1000 * seconds,
        per_second: 1000,
        payload: 1000,
        tos: 0,
    }
}

/// The cell of a row that begins so, in bit/s.
fn cell(shown: &str, row: &str, column: usize) -> Option<f64> {
    let line = shown.lines().find(|line| line.starts_with(row))?;
    let text = line.split_whitespace().nth(column)?;
    let digits = text.trim_end_matches(['k', 'M', 'G']);
    let scale = match text.chars().last()? {
        'k' => 1e3,
        'M' => 1e6,
        'G' => 1e9,
        _ => 1.0,
    };
    Some(digits.parse::<f64>().ok()? * scale)
}

#[test]
fn top_shows_live_rates_and_takes_keys() {
    let Some(gateway) = Gateway::build(Layout::default()) else {
        return;
    };
    let weir = gateway.start(&config());
    gateway.warm();
    let running = stream(8).start(&gateway.site, &gateway.wan);
    let mut terminal = Terminal::start(&weir, "");
    let shown = terminal.until("the rate of web", |shown| {
        cell(shown, "web", 4).is_some_and(|offered| (6e6..11e6).contains(&offered))
            && cell(shown, "web", 5).is_some_and(|conforming| (3e6..5e6).contains(&conforming))
    });
    assert_eq!(cell(&shown, "web", 3), Some(4e6), "{shown}");
    assert!(
        shown.contains("workers 1/1") && shown.contains("unaccounted 0"),
        "{shown}"
    );
    // Numbers of one contract are one contract's: the parts make the whole, as well as three digits tell.
    let parts = cell(&shown, "web", 5).unwrap() + cell(&shown, "web", 6).unwrap();
    assert!((parts - cell(&shown, "web", 4).unwrap()).abs() < 0.1e6, "{shown}");
    let order = |shown: &str| {
        let rows = shown
            .lines()
            .filter_map(|line| line.split_whitespace().next().map(str::to_owned));
        rows.filter(|name| name == "web" || name == "idle").collect::<Vec<_>>()
    };
    assert_eq!(order(&shown), ["web", "idle"], "by what is offered");
    terminal.press("4");
    terminal.until("the order by entitlement", |shown| order(shown) == ["idle", "web"]);
    terminal.press("/we");
    terminal.until("the filter", |shown| {
        shown.contains("filter: we_") && order(shown) == ["web"]
    });
    terminal.press("\r\r");
    terminal.until("the contract in full", |shown| {
        shown.contains("entitled    4 Mbit/s") && shown.contains("bucket")
    });
    terminal.press("?");
    terminal.until("the help", |shown| shown.contains("sort by the next column"));
    terminal.press("q");
    terminal.check_restored("status 0");
    let _score = running.finish();
}

#[test]
fn top_without_colour_ends_by_a_signal_with_the_terminal_restored() {
    let Some(gateway) = Gateway::build(Layout::default()) else {
        return;
    };
    let weir = gateway.start(&config());
    for (signal, name) in [(Some(Signal::SIGTERM), "SIGTERM"), (None, "Ctrl-C")] {
        let mut terminal = Terminal::start(&weir, "NO_COLOR=1");
        terminal.until("the table", |shown| shown.contains("idle"));
        let parser = terminal.screen();
        let cells = (0..24).flat_map(|row| (0..80).map(move |column| (row, column)));
        for (row, column) in cells {
            let cell = parser.screen().cell(row, column).unwrap();
            let colours = (cell.fgcolor(), cell.bgcolor());
            assert_eq!(
                colours,
                (vt100::Color::Default, vt100::Color::Default),
                "{row} {column}"
            );
        }
        match signal {
            Some(signal) => kill(top_of(&weir), signal).unwrap(),
            None => terminal.press("\u{3}"),
        }
        eprintln!("ended by {name}");
        terminal.check_restored("status 0");
    }
}

/// The process of `weir top` that asks this appliance.
fn top_of(weir: &Weir) -> Pid {
    let socket = weir.socket.to_str().unwrap();
    for entry in std::fs::read_dir("/proc").unwrap().flatten() {
        let line = std::fs::read(entry.path().join("cmdline")).unwrap_or_default();
        let words: Vec<&[u8]> = line.split(|byte| *byte == 0).collect();
        if words.get(1) == Some(&&b"top"[..]) && words.contains(&socket.as_bytes()) {
            return Pid::from_raw(entry.file_name().to_str().unwrap().parse().unwrap());
        }
    }
    panic!("no weir top");
}

/// Starts `weir top` on a pseudo-terminal of this process, does `end` to it, and wants it gone within two seconds. As a leader
/// it gets SIGHUP from the kernel when the terminal goes; otherwise it has only the terminal itself to go by.
fn top_ends(weir: &Weir, what: &str, as_leader: bool, end: impl FnOnce(PtyMaster, Pid) -> Option<PtyMaster>) {
    // A child that held the master too would keep its own terminal up.
    let master = posix_openpt(OFlag::O_RDWR | OFlag::O_NOCTTY | OFlag::O_CLOEXEC).unwrap();
    grantpt(&master).unwrap();
    unlockpt(&master).unwrap();
    let terminal = ptsname_r(&master).unwrap();
    let sized = Command::new("stty")
        .args(["-F", &terminal, "rows", "24", "cols", "80"])
        .status();
    assert!(sized.unwrap().success(), "stty");
    let slave = || {
        let mut open = OpenOptions::new();
        open.read(true).write(true).custom_flags(OFlag::O_NOCTTY.bits());
        Stdio::from(open.open(&terminal).unwrap())
    };
    let mut command = Command::new(if as_leader { "setsid" } else { "env" });
    command.args(as_leader.then_some("--ctty")).arg(weir_binary());
    command.args(["top", "--interval", "0.3", "--socket"]).arg(&weir.socket);
    command
        .env("TERM", "xterm-256color")
        .stdin(slave())
        .stdout(slave())
        .stderr(slave());
    let mut child = command.spawn().expect("setsid(1) of util-linux, env(1)");
    // The copies of the terminal that it holds.
    drop(command);
    let (mut shown, mut piece) = (Vec::new(), [0; 4096]);
    while !String::from_utf8_lossy(&shown).contains("idle") {
        let read = (&master).read(&mut piece).unwrap();
        shown.extend_from_slice(&piece[..read]);
    }
    let begin = Instant::now();
    let kept = end(master, Pid::from_raw(child.id().try_into().unwrap()));
    while child.try_wait().unwrap().is_none() {
        if begin.elapsed() > Duration::from_secs(2) {
            let _gone = child.kill();
            let _reaped = child.wait();
            panic!("{what}, leader {as_leader}: weir top goes on");
        }
        std::thread::sleep(Duration::from_millis(20));
    }
    drop(kept);
}

#[test]
fn top_ends_with_its_terminal() {
    let Some(gateway) = Gateway::build(Layout::default()) else {
        return;
    };
    let weir = gateway.start(&config());
    for as_leader in [true, false] {
        top_ends(&weir, "the terminal is closed", as_leader, |_master, _top| None);
        top_ends(&weir, "SIGHUP", as_leader, |master, top| {
            kill(top, Signal::SIGHUP).unwrap();
            Some(master)
        });
    }
}

#[test]
fn top_outlives_the_appliance() {
    let Some(gateway) = Gateway::build(Layout::default()) else {
        return;
    };
    let weir = gateway.start(&config());
    let mut terminal = Terminal::start(&weir, "");
    terminal.until("the table", |shown| shown.contains("idle") && shown.contains("table 1"));
    weir.stop();
    terminal.until("the notice", |shown| shown.contains("not reachable, trying again"));
    let weir = gateway.start(&config());
    terminal.until("the table again", |shown| {
        shown.contains("idle") && !shown.contains("not reachable") && shown.contains("offered 0 ")
    });
    terminal.press("\u{1b}");
    terminal.check_restored("status 0");
    drop(weir);
}

#[test]
fn plain_and_json_need_no_terminal() {
    let Some(gateway) = Gateway::build(Layout::default()) else {
        return;
    };
    let weir = gateway.start(&config());
    let running = stream(5).start(&gateway.site, &gateway.wan);
    std::thread::sleep(Duration::from_millis(500));
    let plain = weir.ask(&["top", "--filter", "web"]);
    let shown = String::from_utf8_lossy(&plain.stdout).into_owned();
    assert!(
        plain.status.success() && shown.lines().all(|line| line.chars().count() <= 100),
        "{}",
        text(&plain)
    );
    assert!(
        cell(&shown, "web", 4).is_some_and(|offered| (6e6..11e6).contains(&offered)),
        "{shown}"
    );
    assert!(
        !shown.contains("idle") && text(&plain).contains("no terminal"),
        "{}",
        text(&plain)
    );
    let json = weir.ask(&["top", "--json", "--count", "2", "--interval", "0.5", "--rows", "1"]);
    let lines: Vec<Value> = String::from_utf8_lossy(&json.stdout)
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect();
    assert_eq!(lines.len(), 2, "{}", text(&json));
    assert_eq!(
        (&lines[1]["contracts_in_all"], &lines[1]["contracts_matching"]),
        (&2.into(), &2.into())
    );
    let rows = lines[1]["rows"].as_array().unwrap();
    assert_eq!(rows.iter().filter(|row| row["kind"] == "contract").count(), 1);
    assert_eq!(rows[0]["service"], "web", "the busiest of them");
    let _score = running.finish();
    let silent = Command::new(weir_binary())
        .args(["top", "--socket", "/nonexistent/weir.sock"])
        .output()
        .unwrap();
    assert_eq!(silent.status.code(), Some(1));
}

fn explain(weir: &Weir, size: &str) -> Value {
    let flow = [
        "explain",
        "10.0.0.1:1234",
        "10.0.0.9:80",
        "--port",
        "lan",
        "--size",
        size,
        "--json",
    ];
    let output = weir.ask(&flow);
    serde_json::from_slice(&output.stdout).unwrap_or_else(|error| panic!("{error}: {}", text(&output)))
}

#[test]
fn explain_asks_the_live_buckets_and_takes_nothing() {
    for (queues, cpus) in [(1, ""), (2, "[0, 1]")] {
        let Some(gateway) = Gateway::build(Layout {
            queues,
            ..Layout::default()
        }) else {
            return;
        };
        let weir = gateway.start(&Config { cpus, ..config() });
        // 20 kB of burst: a hundred times 1,500 bytes would have emptied it long before a second's refill.
        let full = explain(&weir, "1500");
        assert_eq!(
            (&full["live"], &full["verdict"]),
            (&true.into(), &"conforming".into()),
            "{full}"
        );
        for _ in 0..40 {
            assert_eq!(explain(&weir, "1500")["tokens"]["committed"], 20_000);
        }
        let large = explain(&weir, "30000");
        assert_eq!(
            (&large["verdict"], &large["color"]),
            (&"nonconforming".into(), &"red".into()),
            "{large}"
        );
        assert_eq!(large["dscp_out"], 2);
        assert_eq!(
            contract_of(&weir.status(), "web")["offered"]["packets"],
            0,
            "nothing was judged"
        );
        gateway.warm();
        let running = stream(4).start(&gateway.site, &gateway.wan);
        std::thread::sleep(Duration::from_secs(2));
        let dry = explain(&weir, "1500");
        assert!(dry["tokens"]["committed"].as_u64().unwrap() < 20_000, "{dry}");
        let _score = running.finish();
        let refused = weir.ask(&["explain", "10.0.0.1:1", "10.0.0.9:80", "--port", "nowhere"]);
        assert_eq!(refused.status.code(), Some(2), "{}", text(&refused));
        assert!(
            text(&refused).contains("the configuration has: lan, uplink"),
            "{}",
            text(&refused)
        );
    }
}

//! `weir capture` against known traffic, read back by tshark, and against clients that behave badly. Needs root.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use pcap_file::pcapng::blocks::interface_statistics::InterfaceStatisticsOption;
use pcap_file::pcapng::{Block, PcapNgReader};
use pktgen::lab::Namespace;
use serde_json::Value;
use weir_tests::gateway::{
    Config, Gateway, Layout, SITE, Stream, WAN, Weir, contract, contract_of, ledger_sum, succeed, text,
};

/// DSCP EF, which leads to the class gold.
const EF: u8 = 46;
/// What gold's excess is re-marked to.
const EXCESS: &str = "3";

/// A `weir capture` in the background.
struct Capture {
    child: Child,
    file: PathBuf,
}

impl Capture {
    fn start(weir: &Weir, gateway: &Gateway, name: &str, arguments: &[&str]) -> Self {
        let file = gateway.directory.path().join(name);
        let mut child = Command::new(weir_tests::weir_binary())
            .args(["capture", "--socket"])
            .arg(&weir.socket)
            .arg("-w")
            .arg(&file)
            .args(arguments)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .expect("weir starts");
        // The section header comes at once: from then on packets are caught.
        for _ in 0..200 {
            if std::fs::metadata(&file).is_ok_and(|file| file.len() > 0) {
                return Self { child, file };
            }
            std::thread::sleep(Duration::from_millis(10));
        }
        let _killed = child.kill();
        panic!(
            "the capture does not begin: {}",
            text(&child.wait_with_output().unwrap())
        );
    }

    fn signal(&self, signal: Signal) {
        kill(Pid::from_raw(self.child.id() as i32), signal).expect("a child of ours");
    }

    /// Ends it as Ctrl-C does; gives the packets, and what it said.
    fn finish(self) -> (Vec<Seen>, String) {
        // What a sleeping worker still holds is to be caught.
        std::thread::sleep(Duration::from_millis(100));
        let (file, said) = self.end();
        (dissect(&file), said)
    }

    /// The same without a look at the packets.
    fn end(self) -> (PathBuf, String) {
        self.signal(Signal::SIGINT);
        self.wait()
    }

    fn wait(self) -> (PathBuf, String) {
        let output = self.child.wait_with_output().expect("it ends");
        let said = text(&output);
        assert_eq!(output.status.code(), Some(0), "{said}");
        (self.file, said)
    }
}

/// One packet of the file, as tshark reads it.
#[derive(Debug)]
struct Seen {
    interface: String,
    dscp: String,
    captured: usize,
    len: usize,
    event: String,
    keys: BTreeMap<String, String>,
}

impl Seen {
    fn key(&self, name: &str) -> &str {
        self.keys.get(name).map_or("", String::as_str)
    }
}

fn tshark(file: &Path, more: &[&str]) -> String {
    let here = Namespace::current().expect("the namespace of this thread");
    let line = [&["tshark", "-n", "-r", file.to_str().expect("plain letters")], more].concat();
    succeed(&here, &line)
}

fn dissect(file: &Path) -> Vec<Seen> {
    let fields = [
        "frame.interface_name",
        "ip.dsfield.dscp",
        "frame.cap_len",
        "frame.len",
        "frame.comment",
    ];
    let mut line = vec!["-T", "fields"];
    fields.iter().for_each(|field| line.extend(["-e", field]));
    let seen = |line: &str| {
        let fields: Vec<&str> = line.split('\t').collect();
        let mut words = fields[4].split(' ');
        let event = words.next().unwrap().to_owned();
        let pair = |word: &str| {
            let (key, value) = word.split_once('=').unwrap_or_else(|| panic!("{line:?}"));
            (key.to_owned(), value.to_owned())
        };
        Seen {
            interface: fields[0].to_owned(),
            dscp: fields[1].to_owned(),
            captured: fields[2].parse().unwrap(),
            len: fields[3].parse().unwrap(),
            event,
            keys: words.map(pair).collect(),
        }
    };
    tshark(file, &line).lines().map(seen).collect()
}

/// 20 packets of 528 bytes of `web` are in the bucket, and next to nothing refills it; `hard` is policed in the same way.
fn config() -> Config {
    Config {
        contracts: contract("web", "\"10.0.0.1/32\"", "gold", "egress", "8 kbit/s", "10600 B")
            + &contract("hard", "\"10.0.0.2/32\"", "gold", "egress", "8 kbit/s", "10600 B")
            + "[contract.excess]\naction = \"drop\"\n",
        ..Config::default()
    }
}

fn stream(from: &str, packets: u32, per_second: u32, tos: u8) -> Stream {
    Stream {
        from: SocketAddr::new(from.parse().unwrap(), 0),
        to: SocketAddr::new(WAN.parse().unwrap(), 7000),
        packets,
        per_second,
        payload: 500,
        tos,
    }
}

fn packets(status: &Value, service: &str, counter: &[&str]) -> u64 {
    let value = counter
        .iter()
        .fold(contract_of(status, service), |value, key| &value[key]);
    value["packets"].as_u64().unwrap_or(0)
}

#[test]
fn re_marked_packets_are_there_before_and_after() {
    let Some(gateway) = Gateway::build(Layout::default()) else {
        return;
    };
    let weir = gateway.start(&config());
    gateway.warm();
    let capture = Capture::start(
        &weir,
        &gateway,
        "remarked.pcapng",
        &["--what", "remarked", "--service", "web"],
    );
    let score = stream(SITE, 60, 1000, EF << 2).run(&gateway.site, &gateway.wan);
    assert_eq!(score.lost(), 0, "{score:?}");
    let (seen, said) = capture.finish();
    let status = weir.status();
    assert_eq!(packets(&status, "web", &["remarked"]), 40);
    assert!(
        said.contains("40 packets captured (80 in the file") && said.contains("; 0 missed"),
        "{said}"
    );
    assert_eq!(seen.len(), 80);
    for (number, pair) in seen.chunks(2).enumerate() {
        let [before, after] = pair else { panic!("{pair:?}") };
        assert_eq!(
            (before.interface.as_str(), before.dscp.as_str()),
            ("lan:in", "46"),
            "{before:?}"
        );
        assert_eq!(
            (after.interface.as_str(), after.dscp.as_str()),
            ("uplink:out", EXCESS),
            "{after:?}"
        );
        assert_eq!(before.keys, after.keys);
        assert_eq!((before.captured, before.len), (128, 14 + 528));
        let id = (number + 1).to_string();
        let expected = [
            ("verdict", "nonconforming"),
            ("color", "red"),
            ("service", "web"),
            ("class", "gold"),
            ("contract", "web/gold/egress"),
            ("ring", "nonconforming/gold"),
            ("dscp", "46>3"),
            ("worker", "0"),
            ("queue", "0"),
            ("table", "1"),
            ("id", &id),
        ];
        assert_eq!(before.event, "remarked");
        for (key, value) in expected {
            assert_eq!(before.key(key), value, "{key} of {before:?}");
        }
    }
    // What an operator would filter by, and checksums on both sides of the mark.
    let file = gateway.directory.path().join("remarked.pcapng");
    let filter = "frame.comment contains \"dscp=46>3\" and frame.interface_name == \"uplink:out\"";
    assert_eq!(tshark(&file, &["-Y", filter]).lines().count(), 40);
    let good = tshark(
        &file,
        &["-o", "ip.check_checksum:TRUE", "-Y", "ip.checksum.status == 1"],
    );
    assert_eq!(good.lines().count(), 80);
    weir.stop();
}

#[test]
fn every_drop_is_there_with_its_reason() {
    let Some(gateway) = Gateway::build(Layout::default()) else {
        return;
    };
    let config = Config {
        wan_rate: "10 Mbit/s",
        contracts: config().contracts
            + &contract("bulk", "\"10.0.0.4/32\"", "best-effort", "egress", "1 Mbit/s", "64 kB"),
        ..config()
    };
    let weir = gateway.start(&config);
    gateway.warm();
    let capture = Capture::start(&weir, &gateway, "dropped.pcapng", &["--rate", "20000"]);
    // 24 Mbit/s of bulk into 10, and a policer beside it.
    let bulk = Stream {
        to: SocketAddr::new(WAN.parse().unwrap(), 7001),
        ..stream("10.0.0.4", 10_000, 5_700, 0)
    };
    let bulk = bulk.start(&gateway.site, &gateway.wan);
    let hard = stream("10.0.0.2", 100, 1000, EF << 2).run(&gateway.site, &gateway.wan);
    let bulk = bulk.finish();
    let _empty = weir.status_when(|status| ledger_sum(status, &["held", "packets"]) == 0);
    let (seen, said) = capture.finish();
    assert!(said.contains("; 0 missed"), "{said}");
    let status = weir.status();
    let mut by_reason: BTreeMap<(String, String), u64> = BTreeMap::new();
    for one in &seen {
        assert_eq!(one.event, "dropped", "{one:?}");
        let key = (one.key("service").to_owned(), one.key("reason").to_owned());
        *by_reason.entry(key).or_default() += 1;
        // What a ring dropped is known as it lay there, the others as they came.
        let from_ring = one.key("reason") == "codel";
        assert_eq!(
            one.interface,
            if from_ring { "uplink:out" } else { "lan:in" },
            "{one:?}"
        );
        assert_eq!(one.keys.contains_key("waited_us"), from_ring, "{one:?}");
    }
    for service in ["web", "hard", "bulk"] {
        let counted = contract_of(&status, service)["dropped"].as_object().unwrap();
        for (reason, count) in counted {
            let captured = by_reason.remove(&(service.to_owned(), reason.clone()));
            assert_eq!(captured, count["packets"].as_u64(), "{service} {reason}: {said}");
        }
    }
    assert!(by_reason.is_empty(), "captured, but not counted: {by_reason:?}");
    assert_eq!(packets(&status, "hard", &["dropped", "policed"]), 80, "{hard:?}");
    let queued = packets(&status, "bulk", &["dropped", "codel"]) + packets(&status, "bulk", &["dropped", "red_first"]);
    assert!(queued > 100, "the congestion dropped {queued}: {bulk:?}");
    weir.stop();
}

#[test]
fn samples_filters_counts_and_caps() {
    let Some(gateway) = Gateway::build(Layout::default()) else {
        return;
    };
    let weir = gateway.start(&config());
    gateway.warm();
    // How many were judged: on an overloaded machine fewer than were sent.
    let send = || {
        let offered = || packets(&weir.status(), "web", &["offered"]);
        let before = offered();
        let _score = stream(SITE, 600, 3000, EF << 2).run(&gateway.site, &gateway.wan);
        (offered() - before) as usize
    };
    let caught = |name: &str, arguments: &[&str]| {
        let capture = Capture::start(&weir, &gateway, name, arguments);
        let judged = send();
        let (seen, said) = capture.finish();
        (seen, said, judged)
    };
    let (seen, said, judged) = caught("all.pcapng", &["--what", "all", "--contract", "web gold egress"]);
    assert_eq!(seen.len(), 2 * judged, "{said}");
    let passed = seen.iter().filter(|one| one.event == "passed").count();
    assert!((2 * 18..=2 * 22).contains(&passed), "20 fit into the bucket: {passed}");
    let (seen, said, judged) = caught("sampled.pcapng", &["--what", "sampled=1/50", "--service", "web"]);
    let sampled = seen.len() / 2;
    assert!(
        (judged / 50..=judged.div_ceil(50)).contains(&sampled),
        "{sampled} of {judged}: {said}"
    );
    let (seen, said, _) = caught(
        "none.pcapng",
        &["--what", "all", "--direction", "ingress", "--class", "gold"],
    );
    assert!(seen.is_empty(), "{said}");
    let (seen, said, _) = caught("hard.pcapng", &["--what", "all", "--service", "hard"]);
    assert!(seen.is_empty(), "{said}");
    let (seen, said, judged) = caught(
        "port.pcapng",
        &[
            "--what",
            "all",
            "--port",
            "uplink",
            "--class",
            "gold",
            "--snaplen",
            "64",
        ],
    );
    assert!(
        seen.len() == 2 * judged && seen.iter().all(|one| one.captured == 64),
        "{said}"
    );
    // A count ends it by itself; a rate loses the rest, and says how many.
    let capture = Capture::start(
        &weir,
        &gateway,
        "count.pcapng",
        &["--what", "all", "--service", "web", "--count", "7"],
    );
    let _judged = send();
    let (file, said) = capture.wait();
    let seen = dissect(&file);
    assert!(seen.len() == 14 && said.contains("7 packets captured"), "{said}");
    let (seen, said, judged) = caught("rate.pcapng", &["--what", "all", "--service", "web", "--rate", "100"]);
    // 100 at once, and 100 a second for a fifth of a second.
    let records = seen.len() / 2;
    assert!((100..=140).contains(&records), "{records}: {said}");
    let missed = format!("{0} missed, {0} of them by the rate", judged - records);
    assert!(said.contains(&missed), "{missed}: {said}");
    let dropped = drops_in_statistics(&gateway.directory.path().join("rate.pcapng"));
    assert_eq!(dropped, (judged - records) as u64, "{said}");
    // A reload in the middle of a capture: the names and the filter are those of the new table.
    let capture = Capture::start(&weir, &gateway, "reload.pcapng", &["--what", "all", "--service", "web"]);
    let before = send();
    assert!(weir.ask(&["reload"]).status.success());
    let after = send();
    let (seen, said) = capture.finish();
    let of_table = |number: &str| seen.iter().filter(|one| one.key("table") == number).count();
    assert_eq!((of_table("1"), of_table("2")), (2 * before, 2 * after), "{said}");
    weir.stop();
}

/// The sum of `isb_ifdrop` over the interfaces of a file.
fn drops_in_statistics(file: &Path) -> u64 {
    let mut reader = PcapNgReader::new(std::fs::File::open(file).unwrap()).unwrap();
    let mut dropped = 0;
    while let Some(block) = reader.next_block() {
        if let Block::InterfaceStatistics(statistics) = block.unwrap() {
            dropped += statistics.options.iter().fold(0, |sum, option| match option {
                InterfaceStatisticsOption::IsbIfDrop(count) => sum + count,
                _ => sum,
            });
        }
    }
    dropped
}

fn refused(weir: &Weir, arguments: &[&str], status: i32, part: &str) {
    let output: Output = weir.ask(&[&["capture"], arguments].concat());
    let said = text(&output);
    assert_eq!(output.status.code(), Some(status), "{arguments:?}: {said}");
    assert!(said.contains(part), "{arguments:?}: no {part:?} in {said}");
}

#[test]
fn what_cannot_be_captured_is_said() {
    let Some(gateway) = Gateway::build(Layout::default()) else {
        return;
    };
    let weir = gateway.start(&config());
    let out = gateway.directory.path().join("x.pcapng");
    let out = out.to_str().unwrap();
    refused(
        &weir,
        &["-w", out, "--service", "wbe"],
        2,
        "no service `wbe`: there is web, hard",
    );
    refused(
        &weir,
        &["-w", out, "--class", "tin"],
        2,
        "no class `tin`: there is gold, best-effort",
    );
    refused(
        &weir,
        &["-w", out, "--port", "wan"],
        2,
        "no port `wan`: there is lan, uplink",
    );
    refused(&weir, &["-w", out, "--contract", "web tin"], 2, "no contract `web tin`");
    refused(&weir, &["-w", out, "--what", "lost"], 2, "sampled=1/1000");
    refused(&weir, &["-w", out, "--what", "sampled=1/0"], 2, "sampled=1/1000");
    refused(&weir, &["-w", out, "--snaplen", "9"], 2, "64 to 4096");
    refused(&weir, &["-w", out, "--rate", "0"], 2, "1 to 100000");
    refused(
        &weir,
        &["-w", "/nonexistent/x"],
        1,
        "cannot write /nonexistent/x: No such file",
    );
    refused(&weir, &["-w", "/"], 1, "cannot write /: Is a directory");
    // A full disk ends the capture, and so its tap: the next one begins.
    refused(&weir, &["-w", "/dev/full"], 1, "cannot write /dev/full: No space left");
    let capture = Capture::start(&weir, &gateway, "one.pcapng", &[]);
    refused(&weir, &["-w", out], 1, "there is one tap");
    let mode = std::os::unix::fs::PermissionsExt::mode(&std::fs::metadata(&capture.file).unwrap().permissions());
    assert_eq!(mode & 0o777, 0o600);
    capture.finish();
    // When the appliance stops, the capture ends and is whole.
    let capture = Capture::start(&weir, &gateway, "stop.pcapng", &[]);
    weir.stop();
    let (_, said) = capture.wait();
    assert!(said.contains("the appliance stopped"), "{said}");
}

#[test]
fn a_slow_and_a_killed_client_cost_the_traffic_nothing() {
    let Some(gateway) = Gateway::build(Layout::default()) else {
        return;
    };
    let weir = gateway.start(&Config {
        contracts: contract("web", "\"10.0.0.1/32\"", "best-effort", "egress", "500 Mbit/s", "1 MB"),
        ..Config::default()
    });
    gateway.warm();
    let all = ["--what", "all", "--rate", "100000", "--snaplen", "1500"];
    let running = stream(SITE, 64_000, 8_000, 0).start(&gateway.site, &gateway.wan);
    // One that stops reading for a while: it misses, and goes on.
    let slow = Capture::start(&weir, &gateway, "slow.pcapng", &all);
    slow.signal(Signal::SIGSTOP);
    std::thread::sleep(Duration::from_secs(2));
    slow.signal(Signal::SIGCONT);
    let (slow, said) = slow.end();
    assert!(
        !said.contains("; 0 missed") && said.contains(", 0 of them by the rate"),
        "{said}"
    );
    // One that is killed: the tap is free at once.
    let killed = ["1.pcapng", "2.pcapng", "3.pcapng"].map(|name| {
        let killed = Capture::start(&weir, &gateway, name, &all);
        std::thread::sleep(Duration::from_millis(200));
        killed.signal(Signal::SIGKILL);
        let _status = killed.child.wait_with_output();
        std::thread::sleep(Duration::from_millis(300));
        killed.file
    });
    let last = Capture::start(&weir, &gateway, "last.pcapng", &all);
    assert!(running.is_sending(), "all of this was to happen under load");
    let score = running.finish();
    last.end();
    let elsewhere = gateway.lost_elsewhere(&weir.status());
    let clean = u64::from(score.lost()) <= elsewhere && (score.reordered, score.duplicates) == (0, 0);
    assert!(clean, "{score:?}, lost elsewhere {elsewhere}: {}", weir.account());
    weir.stop();
    assert!(!dissect(&slow).is_empty());
    assert!(killed.iter().all(|file| !dissect_cut(file).is_empty()));
}

/// What tshark reads of a file whose end is missing.
fn dissect_cut(file: &Path) -> String {
    let output = Command::new("tshark")
        .args(["-n", "-r"])
        .arg(file)
        .output()
        .expect("tshark");
    String::from_utf8_lossy(&output.stdout).into_owned()
}

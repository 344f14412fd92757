//! Captures sent over veth, and what tcpdump and tshark say came. Needs root; without it, or without these programs,
//! every test is skipped and says so.

#[allow(dead_code, reason = "shared with the tests without sockets")]
mod captures;

use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Child, ChildStderr, Command, Stdio};
use std::sync::atomic::AtomicBool;
use std::thread;
use std::time::Duration;

use captures::{ICMP, ICMPV6, MICROS, NANOS, Order, Record, TCP, UDP, frame, packet, pcap, pcapng};
use dataplane::clock::MonotonicClock;
use pktgen::capture::{CaptureReader, Captured};
use pktgen::lab::{Namespace, VethEnd, links, privileged};
use pktgen::replay::{
    Ended, PacketSink, Repeat, Replay, ReplayOptions, ReplayResult, Rewrite, Timing, VlanChange, XdpSink,
};
use pktgen::stream::Vlan;
use tempfile::TempDir;

fn skipped(test: &str) -> bool {
    if let Err(error) = privileged() {
        eprintln!("SKIPPED {test}: {error}");
        return true;
    }
    for program in ["tcpdump", "tshark"] {
        let runs = Command::new(program).arg("--version").output();
        if !runs.is_ok_and(|output| output.status.success()) {
            eprintln!("SKIPPED {test}: no {program}, which is what judges the packets (Debian package {program})");
            return true;
        }
    }
    false
}

/// A pair of veths, up, between two namespaces.
fn wire() -> (Namespace, Namespace) {
    let (a, b) = (Namespace::new().unwrap(), Namespace::new().unwrap());
    links::create_veth(&VethEnd::new(&a, "left"), &VethEnd::new(&b, "right")).unwrap();
    a.try_run(|| links::set_up("left")).unwrap();
    b.try_run(|| links::set_up("right")).unwrap();
    (a, b)
}

/// A running tcpdump.
struct Recording {
    tcpdump: Child,
    messages: BufReader<ChildStderr>,
}

impl Recording {
    fn begin(namespace: &Namespace, path: &Path) -> Self {
        let mut command = Command::new("tcpdump");
        command
            // In nanoseconds, at once, whole, without a change of user. The kernel cuts its ring into slots of the snap
            // length: with a larger one there are too few for what comes as fast as possible.
            .args([
                "-i",
                "right",
                "-U",
                "-s",
                "1600",
                "-Z",
                "root",
                "-B",
                "16384",
                "--immediate-mode",
            ])
            .args(["--time-stamp-precision=nano", "-Q", "in", "-w"])
            .arg(path)
            .stderr(Stdio::piped());
        let mut tcpdump = namespace.spawn(&mut command).unwrap();
        let mut messages = BufReader::new(tcpdump.stderr.take().unwrap());
        let mut line = String::new();
        while messages.read_line(&mut line).unwrap() > 0 && !line.contains("listening on") {
            line.clear();
        }
        assert!(line.contains("listening on"), "tcpdump did not begin");
        Self { tcpdump, messages }
    }

    fn end(mut self) {
        // What is on the way arrives within this.
        thread::sleep(Duration::from_millis(300));
        let pid = nix::unistd::Pid::from_raw(self.tcpdump.id() as i32);
        nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGINT).unwrap();
        let dropped = self.messages.lines().map_while(Result::ok);
        let dropped: Vec<String> = dropped.filter(|line| line.contains("dropped by kernel")).collect();
        assert!(self.tcpdump.wait().unwrap().success());
        assert!(dropped.iter().all(|line| line.starts_with("0 ")), "{dropped:?}");
    }
}

fn read(path: &Path) -> Vec<(u64, Vec<u8>)> {
    let mut reader = CaptureReader::open(path).unwrap();
    let (mut captured, mut all) = (Captured::default(), Vec::new());
    while reader.next(&mut captured).unwrap() {
        all.push((captured.at, captured.data.clone()));
    }
    all
}

/// Sends the capture, and what arrives; `directory` holds the recording as `out`.
fn send(
    directory: &TempDir,
    capture: &[u8],
    change: impl FnOnce(&mut ReplayOptions) + Send,
) -> (Vec<(u64, Vec<u8>)>, ReplayResult) {
    let (a, b) = wire();
    let (input, output) = (directory.path().join("in"), directory.path().join("out"));
    std::fs::write(&input, capture).unwrap();
    let recording = Recording::begin(&b, &output);
    let result = a
        .run(|| {
            let mut options = ReplayOptions::new(&input);
            change(&mut options);
            let mut sink = XdpSink::bind("left", 0).unwrap();
            let replay = Replay::open(&options, sink.limits()).unwrap();
            replay.run(&mut sink, &MonotonicClock, &AtomicBool::new(false))
        })
        .unwrap();
    recording.end();
    println!("{}", result.text());
    let _flushed = std::io::stdout().flush();
    (read(&output), result)
}

/// Packets of all sizes, 200 us apart, among them some that come at once.
fn records(count: u32) -> Vec<Record> {
    let record = |number: u32| {
        let at = 1_700_000_000_000_000_000 + u64::from(number / 3) * 600_000;
        Record::whole(at, &frame(number, 14 + (number as usize * 37) % 1501))
    };
    (0..count).map(record).collect()
}

#[test]
fn what_arrives_is_the_capture() {
    if skipped("what_arrives_is_the_capture") {
        return;
    }
    let records = records(3_000);
    let expected: Vec<&[u8]> = records.iter().map(|record| &record.data[..]).collect();
    let formats = [
        (pcap(Order::Big, MICROS, 1, &records), Timing::Original { speed: 1.0 }),
        (
            pcapng(Order::Little, 1, &[6, 9], &records),
            Timing::Original { speed: 10.0 },
        ),
        (pcap(Order::Little, NANOS, 1, &records), Timing::PacketsPerSecond(20e3)),
        (pcapng(Order::Big, 1, &[9], &records), Timing::AsFastAsPossible),
    ];
    for (capture, timing) in formats {
        let directory = TempDir::new().unwrap();
        let (arrived, result) = send(&directory, &capture, |options| options.timing = timing);
        let arrived: Vec<&[u8]> = arrived.iter().map(|packet| &packet.1[..]).collect();
        assert_eq!(arrived.len(), expected.len());
        assert!(arrived == expected, "the same bytes in the same order");
        assert_eq!(
            (result.packets, result.dropped_by_device, result.unsettled),
            (3_000, 0, 0)
        );
        assert_eq!((result.ended.clone(), result.skipped.total()), (Ended::Done, 0));
    }
}

/// How exact the gaps are is for a quiet machine to tell. That the instants follow the capture, no packet before its
/// time, holds on any.
#[test]
fn no_packet_arrives_before_its_time() {
    if skipped("no_packet_arrives_before_its_time") {
        return;
    }
    let records = records(600);
    let capture = pcap(Order::Little, NANOS, 1, &records);
    let directory = TempDir::new().unwrap();
    let (arrived, result) = send(&directory, &capture, |options| {
        options.timing = Timing::Original { speed: 0.5 };
        options.repeat.times = Some(2);
    });
    assert_eq!((arrived.len(), result.loops), (1_200, 2));
    let span = (records[599].at - records[0].at) * 2;
    let due: Vec<u64> = records.iter().map(|record| (record.at - records[0].at) * 2).collect();
    let second = span + span / 599;
    let due = due.iter().copied().chain(due.iter().map(|due| due + second));
    // Each packet is late by its own delay, the first one too: only as much may it come too early.
    let first_late = result.lateness.unwrap().max_ns.max(1_000_000);
    for ((at, _), due) in arrived.iter().zip(due) {
        let after = at - arrived[0].0;
        assert!(after + first_late >= due, "{after} ns after the first one, not {due}");
    }
    assert_eq!(result.gap_errors.unwrap().gaps, 1_199);
}

#[test]
fn tshark_finds_rewritten_packets_whole() {
    if skipped("tshark_finds_rewritten_packets_whole") {
        return;
    }
    let kinds = [
        (true, TCP),
        (true, UDP),
        (true, ICMP),
        (false, TCP),
        (false, UDP),
        (false, ICMPV6),
    ];
    let mut records = Vec::new();
    for payload in [0, 1, 33, 1000] {
        for (ipv4, protocol) in kinds {
            for vlan in [None, Some(5)] {
                records.push(Record::whole(
                    1_000_000 * records.len() as u64,
                    &packet(ipv4, protocol, vlan, payload),
                ));
            }
        }
    }
    let directory = TempDir::new().unwrap();
    let (arrived, _) = send(&directory, &pcap(Order::Little, MICROS, 1, &records), |options| {
        options.rewrite = Rewrite {
            source_mac: Some([2, 0, 0, 0, 0, 0xaa]),
            destination_mac: Some([2, 0, 0, 0, 0, 0xbb]),
            vlan: VlanChange::Set(Vlan { id: 100, pcp: 3 }),
            addresses: vec![
                "10.0.0.0/8=172.0.0.0/8".parse().unwrap(),
                "198.51.100.0/24=192.0.2.0/24".parse().unwrap(),
                "2001:db8:1::/48=fd00:1::/48".parse().unwrap(),
                "2001:db8:2::/48=fd00:2::/48".parse().unwrap(),
            ],
            ports: vec!["80=8080".parse().unwrap()],
        };
    });
    assert_eq!(arrived.len(), records.len());
    let checks = ["ip", "tcp", "udp"].map(|protocol| format!("{protocol}.check_checksum:TRUE"));
    let fields = [
        "eth.src",
        "eth.dst",
        "vlan.id",
        "vlan.priority",
        "ip.src",
        "ip.dst",
        "ipv6.src",
        "ipv6.dst",
        "tcp.dstport",
        "udp.dstport",
        "ip.checksum.status",
        "tcp.checksum.status",
        "udp.checksum.status",
        "icmp.checksum.status",
        "icmpv6.checksum.status",
    ];
    let output = Command::new("tshark")
        .arg("-r")
        .arg(directory.path().join("out"))
        .args(["-T", "fields", "-E", "separator=,"])
        .args(checks.iter().flat_map(|check| ["-o", check]))
        .args(fields.iter().flat_map(|field| ["-e", field]))
        .output()
        .unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    let ethernet = "02:00:00:00:00:aa,02:00:00:00:00:bb,100,3";
    let v4 = "172.1.2.3,192.0.2.7,,";
    let v6 = ",,fd00:1::3,fd00:2::7";
    // Ports, then the status of each checksum: 1 is good.
    let expected = [
        format!("{ethernet},{v4},8080,,1,1,,,"),
        format!("{ethernet},{v4},,8080,1,,1,,"),
        format!("{ethernet},{v4},,,1,,,1,"),
        format!("{ethernet},{v6},8080,,,1,,,"),
        format!("{ethernet},{v6},,8080,,,1,,"),
        format!("{ethernet},{v6},,,,,,,1"),
    ];
    for (number, line) in text.lines().enumerate() {
        assert_eq!(
            line,
            expected[number / 2 % 6],
            "packet {}\n{}",
            number + 1,
            String::from_utf8_lossy(&output.stderr)
        );
    }
    assert_eq!(text.lines().count(), records.len());
}

/// The kernel forwards a tagged packet of 4 bytes more, and drops longer ones without a word.
#[test]
fn packets_over_the_mtu_are_skipped_and_counted() {
    if skipped("packets_over_the_mtu_are_skipped_and_counted") {
        return;
    }
    let tagged = |len: usize| {
        let mut bytes = packet(true, UDP, Some(5), 9);
        bytes.resize(len, 0);
        bytes
    };
    let packets = [
        frame(1, 1514),
        frame(2, 1515),
        tagged(1518),
        tagged(1519),
        frame(3, 9014),
        frame(4, 60),
    ];
    let records = packets.clone().map(|bytes| Record::whole(0, &bytes));
    let directory = TempDir::new().unwrap();
    let (arrived, result) = send(&directory, &pcap(Order::Little, MICROS, 1, &records), |_| {});
    let arrived: Vec<Vec<u8>> = arrived.into_iter().map(|packet| packet.1).collect();
    assert_eq!(arrived, [0, 2, 5].map(|number| packets[number].clone()));
    assert_eq!(
        (result.packets, result.skipped.too_long, result.skipped.total()),
        (3, 3, 3)
    );
}

#[test]
fn an_interface_that_cannot_send_says_so() {
    if skipped("an_interface_that_cannot_send_says_so") {
        return;
    }
    let (a, _b) = wire();
    let error = |name: &'static str| a.run(|| XdpSink::bind(name, 0).err().unwrap().to_string()).unwrap();
    assert!(error("nowhere").starts_with("nowhere: "), "{}", error("nowhere"));
    let directory = TempDir::new().unwrap();
    let input = directory.path().join("in");
    // One packet at once, and the next ones when the interface is down.
    let records = [0, 300, 301].map(|ms: u64| Record::whole(ms * 1_000_000, &frame(1, 60)));
    std::fs::write(&input, pcap(Order::Little, MICROS, 1, &records)).unwrap();
    let result = a
        .run(|| {
            let mut sink = XdpSink::bind("left", 0).unwrap();
            let options = ReplayOptions {
                repeat: Repeat {
                    times: Some(2),
                    ..Repeat::once()
                },
                ..ReplayOptions::new(&input)
            };
            let replay = Replay::open(&options, sink.limits()).unwrap();
            links::set_down("left").unwrap();
            replay.run(&mut sink, &MonotonicClock, &AtomicBool::new(false))
        })
        .unwrap();
    assert!(
        matches!(&result.ended, Ended::Interface(what) if what.contains("left")),
        "{result:?}"
    );
    assert!(error("left").contains("ip link set left up"), "{}", error("left"));
}

#[test]
fn the_command_sends_and_prints_the_gaps() {
    if skipped("the_command_sends_and_prints_the_gaps") {
        return;
    }
    let (a, _b) = wire();
    let directory = TempDir::new().unwrap();
    let input = directory.path().join("in.pcap");
    std::fs::write(&input, pcap(Order::Little, MICROS, 1, &records(90))).unwrap();
    let pktgen = |arguments: &[&str]| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_pktgen"));
        command
            .arg("replay")
            .arg(&input)
            .args(["--interface", "left"])
            .args(arguments);
        command.stdout(Stdio::piped()).stderr(Stdio::piped());
        let output = a.spawn(&mut command).unwrap().wait_with_output().unwrap();
        let text = |bytes| String::from_utf8(bytes).unwrap();
        (output.status.code(), text(output.stdout), text(output.stderr))
    };
    let (code, stdout, stderr) = pktgen(&["--speed", "2", "--loops", "2", "--map", "10.0.0.0/8=172.0.0.0/8"]);
    assert_eq!((code, stderr.as_str()), (Some(0), ""));
    assert!(
        stdout.contains("180 packets") && stdout.contains("Gap errors"),
        "{stdout}"
    );
    let (code, stdout, _) = pktgen(&["--rate", "max", "--json", "--until-error"]);
    let json: serde_json::Value = serde_json::from_str(&stdout).unwrap();
    assert_eq!((code, json["packets"].as_u64()), (Some(0), Some(90)));
    let (code, _, stderr) = pktgen(&["--rate", "80%"]);
    assert!(code == Some(2) && stderr.contains("no line rate"), "{stderr}");
    let (code, _, stderr) = pktgen(&["--rate", "5pps", "--speed", "2"]);
    assert!(code == Some(2) && stderr.contains("cannot be used with"), "{stderr}");
    let bytes = std::fs::read(&input).unwrap();
    std::fs::write(&input, &bytes[..bytes.len() - 1]).unwrap();
    let (code, _, stderr) = pktgen(&["--rate", "max"]);
    assert!(code == Some(1) && stderr.contains("packet 90"), "{stderr}");
}

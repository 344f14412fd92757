//! Transmitter and receiver over veth, against the kernel and against tshark. Needs root; without it every test is
//! skipped and says so.

mod common;

use std::io::{BufRead, BufReader};
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use dataplane::clock::{Clock, MonotonicClock, Nanos};
use pktgen::lab::{Namespace, VethEnd, links};
use pktgen::receive::Receiver;
use pktgen::stream::{Protocol, Stream, Vlan};
use pktgen::transmit::Transmitter;

use common::skipped;

fn streams() -> Vec<Stream> {
    let gold = Stream {
        id: 1,
        frame_bytes: vec![1514],
        rate_bps: 20_000_000,
        ..common::stream()
    };
    let small = Stream {
        id: 2,
        dscp: 0,
        frame_bytes: vec![60],
        rate_bps: 1_000_000,
        ..gold.clone()
    };
    let tagged = Stream {
        id: 3,
        source: "2001:db8:1::/48".parse().unwrap(),
        destination: "2001:db8:2::/48".parse().unwrap(),
        dscp: 10,
        frame_bytes: vec![333],
        vlans: vec![Vlan { id: 100, pcp: 5 }],
        rate_bps: 5_000_000,
        ..gold.clone()
    };
    vec![gold, small, tagged]
}

/// A pair of veths, up, between two namespaces.
fn wire(queues: u32) -> (Namespace, Namespace) {
    let (a, b) = (Namespace::new().unwrap(), Namespace::new().unwrap());
    let right = VethEnd {
        queues,
        ..VethEnd::new(&b, "right")
    };
    links::create_veth(
        &VethEnd {
            queues,
            ..VethEnd::new(&a, "left")
        },
        &right,
    )
    .unwrap();
    a.try_run(|| links::set_up("left")).unwrap();
    b.try_run(|| links::set_up("right")).unwrap();
    (a, b)
}

#[test]
fn what_is_sent_is_scored_phase_by_phase() {
    if skipped("what_is_sent_is_scored_phase_by_phase") {
        return;
    }
    let (a, b) = wire(2);
    let clock: &'static MonotonicClock = Box::leak(Box::default());
    let stop = Arc::new(AtomicBool::new(false));
    let mut receiver = b.run(|| Receiver::new("right", &[1, 2, 3], clock)).unwrap().unwrap();
    let reader = receiver.reader().unwrap();
    let receiving = {
        let stop = Arc::clone(&stop);
        thread::spawn(move || {
            receiver.run(&stop);
            receiver.statistics().unwrap()
        })
    };
    let streams = streams();
    let start = clock.now().plus(Nanos(20_000_000));
    let at = |ms: u64| start.plus(Nanos(ms * 1_000_000));
    let (mut transmitter, remote) = a
        .run(|| Transmitter::new("left", 1, &streams, 42, start, clock))
        .unwrap()
        .unwrap();
    assert!(remote.change_rates(at(200), &[10_000_000, 2_000_000, 0]));
    assert!(remote.change_rates(at(400), &[0, 500_000]));
    transmitter.run(at(600), &AtomicBool::new(false));
    thread::sleep(Duration::from_millis(50));
    stop.store(true, Ordering::Release);
    let statistics = receiving.join().unwrap();

    let scores = reader.snapshot();
    let phases = remote.phases();
    println!("{phases:?}\n{:?} {statistics:?}", remote.sent());
    assert_eq!(phases.len(), 3);
    let rates = [
        [20_000_000, 1_000_000, 5_000_000],
        [10_000_000, 2_000_000, 0],
        [0, 500_000, 0],
    ];
    for (phase, rates) in phases.iter().zip(rates) {
        for ((stream, &sent), rate) in streams.iter().zip(&phase.sent).zip(rates) {
            assert_eq!(scores.lost(stream.id, phase.number as u8, sent), 0, "{phase:?}");
            // 200 ms at the rate, but for the packet at either end and for what a stalled machine skips.
            let due = rate / 5 / (stream.ip_bytes_of_a_turn().0 * 8);
            let skipped: u64 = remote.sent().iter().map(|sent| sent.skipped).sum();
            assert!(
                sent <= due + 1 && sent + skipped + 1 >= due,
                "{sent} of {due} in {phase:?}"
            );
        }
    }
    let sent: u64 = remote.sent().iter().map(|sent| sent.packets).sum();
    let totals = scores.totals(|_| true);
    assert_eq!((totals.unique, scores.received), (sent, sent));
    assert_eq!((totals.duplicated, totals.reordered, totals.too_old), (0, 0, 0));
    assert_eq!((scores.corrupted, scores.foreign, scores.unknown_stream), (0, 0, 0));
    assert_eq!(scores.totals(|key| key.dscp == 46).unique, remote.sent()[0].packets);
    let bytes: u64 = remote.sent().iter().map(|sent| sent.ip_bytes).sum();
    assert_eq!(totals.ip_bytes, bytes);
    let latency = scores.latency(|_| true);
    assert!(latency.len() == sent && latency.value_at_quantile(0.5) > 100);
    println!(
        "latency p50 {} ns, p99 {} ns",
        latency.value_at_quantile(0.5),
        latency.value_at_quantile(0.99)
    );
}

#[test]
fn tshark_finds_every_checksum_good() {
    if skipped("tshark_finds_every_checksum_good") {
        return;
    }
    let (a, b) = wire(1);
    let fields = [
        "frame.len",
        "ip.checksum.status",
        "udp.checksum.status",
        "tcp.checksum.status",
        "icmp.checksum.status",
        "icmpv6.checksum.status",
        "ip.dsfield.dscp",
        "vlan.id",
        "ieee8021ad.id",
    ];
    let mut command = Command::new("tshark");
    command.args([
        "-i",
        "right",
        "-l",
        "-a",
        "duration:4",
        "-T",
        "fields",
        "-o",
        "ip.check_checksum:TRUE",
    ]);
    command.args(["-o", "udp.check_checksum:TRUE", "-o", "tcp.check_checksum:TRUE"]);
    for field in fields {
        command.args(["-e", field]);
    }
    command.stdout(Stdio::piped()).stderr(Stdio::piped());
    let Ok(mut tshark) = b.spawn(&mut command) else {
        eprintln!("SKIPPED tshark_finds_every_checksum_good: no tshark");
        return;
    };
    let mut messages = BufReader::new(tshark.stderr.take().unwrap()).lines();
    assert!(messages.any(|line| line.unwrap().contains("Capturing on")));
    // It says so shortly before it does.
    thread::sleep(Duration::from_millis(500));
    let clock = MonotonicClock;
    let (mut transmitter, remote) = a
        .run(|| Transmitter::new("left", 0, &all_kinds(), 7, clock.now(), &clock))
        .unwrap()
        .unwrap();
    let end = clock.now().plus(Nanos(300_000_000));
    transmitter.run(end, &AtomicBool::new(false));
    let output = tshark.wait_with_output().unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    // Status 1 is "good"; IPv6 has no header checksum, and ICMP over IPv4 and 802.1ad have columns of their own.
    let sent = remote.sent();
    let expected = [
        "1514\t1\t1\t\t\t\t46\t\t",
        "60\t1\t1\t\t\t\t0\t\t",
        "333\t\t1\t\t\t\t\t100\t",
        "200\t1\t\t1\t\t\t46\t\t",
        "98\t1\t\t\t1\t\t46\t\t",
        "120\t\t\t\t\t1\t\t\t",
        "128\t1\t1\t\t\t\t46\t100\t7",
    ];
    for (line, sent) in expected.iter().zip(&sent) {
        assert!(sent.packets > 0);
        let found = text.lines().filter(|found| found == line).count() as u64;
        assert_eq!(found, sent.packets, "{line:?} in\n{text:.900}");
    }
    let all: u64 = sent.iter().map(|sent| sent.packets).sum();
    assert_eq!(text.lines().count() as u64, all);
}

/// The streams above, and each other kind of packet there is.
fn all_kinds() -> Vec<Stream> {
    let mut all = streams();
    let kind = |id: u16, protocol, frame_bytes: u16| Stream {
        id,
        protocol,
        frame_bytes: vec![frame_bytes],
        rate_bps: 1_000_000,
        ..common::stream()
    };
    let over_ipv6 = |stream| Stream {
        source: "2001:db8:1::/48".parse().unwrap(),
        destination: "2001:db8:2::/48".parse().unwrap(),
        ..stream
    };
    all.push(kind(4, Protocol::Tcp, 200));
    all.push(kind(5, Protocol::Icmp, 98));
    all.push(over_ipv6(kind(6, Protocol::Icmp, 120)));
    all.push(Stream {
        vlans: vec![Vlan { id: 7, pcp: 1 }, Vlan { id: 100, pcp: 5 }],
        ..kind(7, Protocol::Udp, 128)
    });
    all
}

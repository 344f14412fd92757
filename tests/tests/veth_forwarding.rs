//! What crosses the gateway, on veth pairs between unmodified hosts: everything, unharmed. Needs root.

use std::io::{BufRead as _, BufReader};
use std::net::SocketAddr;
use std::process::{Command, Stdio};

use pktgen::lab::Namespace;
use rand::rngs::StdRng;
use rand::{Rng as _, SeedableRng as _};
use serde_json::Value;
use weir_tests::gateway::{
    Capture, Config, Gateway, HOST, Layout, Running, SITE, SITE6, Score, Stream, WAN, WAN6, Weir, address, command,
    host_counters, ledger_sum, ping, send_frames, succeed, text,
};

#[test]
fn pings_cross_and_so_do_the_arp_and_neighbour_discovery_they_need() {
    let Some(gateway) = Gateway::build(Layout::default()) else {
        return;
    };
    let weir = gateway.start(&Config::default());
    for (from, to) in [
        (&gateway.site, WAN),
        (&gateway.wan, SITE),
        (&gateway.site, WAN6),
        (&gateway.wan, SITE6),
    ] {
        let output = ping(from, to, 3);
        assert!(text(&output).contains("3 received"), "{to}: {}", text(&output));
        assert!(!text(&output).contains("DUP!"), "{to}: {}", text(&output));
    }
    let status = weir.stop();
    assert!(
        ledger_sum(&status, &["other", "packets"]) >= 2,
        "ARP is not IP: {status:#}"
    );
    assert_eq!(ledger_sum(&status, &["kernel", "packets"]), 0);
}

#[test]
fn a_busy_polling_worker_does_the_same() {
    let Some(gateway) = Gateway::build(Layout::default()) else {
        return;
    };
    let config = Config {
        poll: "busy",
        ..Config::default()
    };
    let weir = gateway.start(&config);
    gateway.warm();
    let before = weir.status()["workers"][0]["turns"].as_u64();
    std::thread::sleep(std::time::Duration::from_millis(100));
    let after = weir.status()["workers"][0]["turns"].as_u64();
    assert!(
        after > before.map(|turns| turns + 1000),
        "a busy worker turns without packets"
    );
    weir.stop();
}

#[test]
fn frames_that_are_not_ip_cross_byte_for_byte() {
    let Some(gateway) = Gateway::build(Layout::default()) else {
        return;
    };
    let weir = gateway.start(&Config::default());
    let frames = strange_frames(1);
    for (from, to) in [(&gateway.site, &gateway.wan), (&gateway.wan, &gateway.site)] {
        let path = gateway.directory.path().join("far.pcap");
        let capture = Capture::start(to, HOST, "ether src 02:00:00:00:00:77", &path);
        send_frames(from, HOST, &frames);
        let arrived: Vec<Vec<u8>> = capture.finish().into_iter().map(|packet| packet.bytes).collect();
        assert_eq!(arrived.len(), frames.len(), "{}", weir.account());
        for (number, (sent, arrived)) in frames.iter().zip(&arrived).enumerate() {
            assert!(sent == arrived, "frame {number} changed:\n{sent:02x?}\n{arrived:02x?}");
        }
    }
    let status = weir.stop();
    let [received, forwarded] = ["received", "forwarded"].map(|term| ledger_sum(&status, &[term, "packets"]));
    assert_eq!(received, forwarded, "{status:#}");
}

#[test]
fn tcp_and_udp_of_unmodified_hosts_cross_with_valid_checksums() {
    let Some(gateway) = Gateway::build(Layout::default()) else {
        return;
    };
    let weir = gateway.start(&Config::default());
    assert_eq!(weir.status()["ports"][0]["xdp"], "native");
    gateway.warm();
    exchange(&gateway, &weir, &[]);
    exchange(&gateway, &weir, &["-R"]);
    exchange(&gateway, &weir, &["-u", "-b", "20M", "-l", "1200"]);
    exchange(&gateway, &weir, &["-u", "-b", "20M", "-l", "1200", "-R"]);
    weir.stop();
}

#[test]
fn tcp_and_udp_cross_over_ipv6_too() {
    let Some(gateway) = Gateway::build(Layout::default()) else {
        return;
    };
    let weir = gateway.start(&Config::default());
    gateway.warm();
    exchange(&gateway, &weir, &["-6"]);
    exchange(&gateway, &weir, &["-6", "-R"]);
    exchange(&gateway, &weir, &["-6", "-u", "-b", "20M", "-l", "1200"]);
    weir.stop();
}

#[test]
fn generic_xdp_forwards_what_native_does() {
    let Some(gateway) = Gateway::build(Layout::default()) else {
        return;
    };
    let config = Config {
        xdp: "generic",
        ..Config::default()
    };
    let weir = gateway.start(&config);
    assert_eq!(weir.status()["ports"][0]["xdp"], "generic");
    // Outside the driver a veth pair hands over segments as large as the sender makes them, and no frame holds those.
    for host in [&gateway.site, &gateway.wan] {
        let _said = succeed(host, &["ethtool", "-K", HOST, "tso", "off", "gso", "off"]);
    }
    gateway.warm();
    exchange(&gateway, &weir, &["-u", "-b", "20M", "-l", "1200"]);
    exchange(&gateway, &weir, &[]);
    exchange(&gateway, &weir, &["-6", "-R"]);
    weir.stop();
}

#[test]
fn two_workers_share_the_flows_and_lose_nothing() {
    let layout = Layout {
        queues: 2,
        ..Layout::default()
    };
    let Some(gateway) = Gateway::build(layout) else { return };
    let config = Config {
        cpus: "[0, 1]",
        ..Config::default()
    };
    let weir = gateway.start(&config);
    gateway.warm();
    let streams: Vec<_> = (0..8)
        .map(|flow| {
            let egress = flow % 2 == 0;
            let (from, to) = if egress { (SITE, WAN) } else { (WAN, SITE) };
            let hosts = if egress {
                [&gateway.site, &gateway.wan]
            } else {
                [&gateway.wan, &gateway.site]
            };
            let stream = Stream {
                from: SocketAddr::new(from.parse().unwrap(), 20_000 + flow),
                to: SocketAddr::new(to.parse().unwrap(), 30_000 + flow),
                packets: 1500,
                per_second: 1000,
                payload: 400,
                tos: 0,
            };
            stream.start(hosts[0], hosts[1])
        })
        .collect();
    let scores: Vec<_> = streams.into_iter().map(Running::finish).collect();
    let lost: u32 = scores.iter().map(Score::lost).sum();
    let elsewhere = gateway.lost_elsewhere(&weir.status());
    assert!(u64::from(lost) <= elsewhere, "{scores:?}: {}", weir.account());
    for score in &scores {
        assert_eq!((score.reordered, score.duplicates), (0, 0), "{score:?}");
    }
    let status = weir.stop();
    assert_eq!(status["workers"].as_array().unwrap().len(), 2);
    let ledgers = status["ledger"].as_array().unwrap();
    assert_eq!(ledgers.len(), 4, "two ports of two queues");
    for worker in 0..2u32 {
        let of_queue = ledgers.iter().filter(|ledger| ledger["queue"] == worker);
        let received: u64 = of_queue
            .map(|ledger| ledger["received"]["packets"].as_u64().unwrap())
            .sum();
        assert!(received > 500, "queue {worker} took {received} packets: {status:#}");
        assert_eq!(status["ports"][0]["queues"][worker as usize]["worker"], worker);
    }
    assert!(ledger_sum(&status, &["forwarded", "packets"]) + elsewhere >= 12_000);
}

#[test]
fn packets_of_the_largest_native_mtu_cross_both_ways() {
    let layout = Layout {
        mtu: 3498,
        ..Layout::default()
    };
    let Some(gateway) = Gateway::build(layout) else { return };
    let weir = gateway.start(&Config::default());
    assert_eq!(weir.status()["ports"][0]["xdp"], "native");
    gateway.warm();
    for (from, to, payload) in [
        (&gateway.site, WAN, "3470"),
        (&gateway.wan, SITE, "3470"),
        (&gateway.site, WAN6, "3450"),
    ] {
        let output = command(
            from,
            &[
                "ping", "-n", "-c", "3", "-i", "0.2", "-W", "1", "-M", "do", "-s", payload, to,
            ],
        );
        assert!(text(&output).contains("3 received"), "{to}: {}", text(&output));
    }
    exchange(&gateway, &weir, &[]);
    let status = weir.stop();
    assert_eq!(ledger_sum(&status, &["dropped", "oversize", "packets"]), 0);
}

#[test]
fn an_mtu_beyond_native_xdp_falls_back_to_generic() {
    let layout = Layout {
        mtu: 3800,
        ..Layout::default()
    };
    let Some(gateway) = Gateway::build(layout) else { return };
    let weir = gateway.start(&Config::default());
    assert_eq!(weir.status()["ports"][0]["xdp"], "generic");
    gateway.warm();
    let output = command(
        &gateway.site,
        &[
            "ping", "-n", "-c", "3", "-i", "0.2", "-W", "1", "-M", "do", "-s", "3772", WAN,
        ],
    );
    assert!(text(&output).contains("3 received"), "{}", text(&output));
    weir.stop();
}

#[test]
fn a_management_interface_beside_the_ports_is_left_alone() {
    let Some(gateway) = Gateway::build(Layout::default()) else {
        return;
    };
    let host = Namespace::new().expect("a namespace");
    let [near, far] = [
        pktgen::lab::VethEnd::new(&gateway.gw, "mgmt"),
        pktgen::lab::VethEnd::new(&host, HOST),
    ];
    pktgen::lab::links::create_veth(&near, &far).expect("a veth pair");
    for end in [&near, &far] {
        end.namespace
            .try_run(|| pktgen::lab::links::set_up(end.name))
            .expect("up");
    }
    address(&gateway.gw, "mgmt", "192.0.2.1", 24);
    address(&host, HOST, "192.0.2.2", 24);
    let weir = gateway.start(&Config::default());
    gateway.warm();
    assert!(text(&ping(&host, "192.0.2.1", 2)).contains("2 received"));
    iperf3(&gateway.gw, &host, "192.0.2.1", &["-n", "1M"]);
    assert!(!succeed(&gateway.gw, &["ip", "-d", "link", "show", "dev", "mgmt"]).contains("xdp"));
    weir.stop();
}

/// LLDP, LACP, spanning tree and experimental Ethertypes, short and long, and random bytes behind them.
fn strange_frames(seed: u64) -> Vec<Vec<u8>> {
    println!("seed {seed}");
    let mut random = StdRng::seed_from_u64(seed);
    let mut frame = |to: [u8; 6], ethertype: u16, length: usize| {
        let mut frame = [&to[..], &[2, 0, 0, 0, 0, 0x77], &ethertype.to_be_bytes()].concat();
        let header = frame.len();
        frame.resize(length, 0);
        random.fill_bytes(&mut frame[header..]);
        frame
    };
    let everybody = [0xff; 6];
    let mut frames = vec![
        frame([1, 0x80, 0xc2, 0, 0, 0x0e], 0x88cc, 60),
        frame([1, 0x80, 0xc2, 0, 0, 2], 0x8809, 124),
        frame([1, 0x80, 0xc2, 0, 0, 0], 38, 60),
        frame(everybody, 0x88b5, 15),
        frame(everybody, 0x88b5, 1514),
        // IPv4 and IPv6 by their Ethertype only.
        frame(everybody, 0x0800, 20),
        frame(everybody, 0x86dd, 30),
    ];
    for _ in 0..40 {
        let length = 16 + (frames.len() * 37) % 1400;
        frames.push(frame([2, 0, 0, 0, 0, 0x99], 0x88b6, length));
    }
    let lengths: Vec<usize> = frames.iter().map(Vec::len).collect();
    assert!(lengths.iter().all(|&length| length <= 1514));
    frames
}

/// A second of iperf3 over the gateway; no host may have seen a wrong checksum.
fn exchange(gateway: &Gateway, weir: &Weir, options: &[&str]) {
    let far = if options.contains(&"-6") { WAN6 } else { WAN };
    let options: Vec<&str> = options.iter().copied().filter(|option| *option != "-6").collect();
    let report = iperf3(&gateway.wan, &gateway.site, far, &[&options[..], &["-t", "1"]].concat());
    let status = weir.status();
    for ledger in status["ledger"].as_array().unwrap() {
        assert!(
            ledger["dropped"].as_object().is_some_and(|reasons| reasons.is_empty()),
            "{options:?}: {ledger}"
        );
    }
    let received = &report["end"][if options.contains(&"-u") { "sum" } else { "sum_received" }];
    assert!(received["bytes"].as_u64() > Some(500_000), "{options:?}: {received}");
    if options.contains(&"-u") {
        // Of its own losses iperf3 counts those at its own, small receive buffer too.
        let lost = received["lost_packets"].as_u64().expect("a count");
        assert!(
            lost <= gateway.lost_elsewhere(&status),
            "{options:?}: {received}: {}",
            weir.account()
        );
    }
    for host in [&gateway.site, &gateway.wan] {
        assert_eq!(
            host_counters(host, "CsumErrors"),
            0,
            "{options:?}: a host received wrong checksums"
        );
    }
}

fn iperf3(server: &Namespace, client: &Namespace, address: &str, options: &[&str]) -> Value {
    let mut listen = Command::new("iperf3");
    listen
        .args(["-s", "--forceflush", "-B", address])
        .stdout(Stdio::piped())
        .stderr(Stdio::null());
    let mut listening = server.spawn(&mut listen).expect("iperf3 starts");
    let mut said = BufReader::new(listening.stdout.take().expect("a pipe")).lines();
    let listens = said.any(|line| line.is_ok_and(|line| line.contains("Server listening")));
    assert!(listens, "the iperf3 server ended");
    let output = command(
        client,
        &[&["iperf3", "-J", "--connect-timeout", "10000", "-c", address], options].concat(),
    );
    let _killed = listening.kill();
    let _reaped = listening.wait();
    let report: Value = serde_json::from_slice(&output.stdout).unwrap_or(Value::Null);
    assert!(report["error"].is_null(), "iperf3 {options:?}: {}", report["error"]);
    report
}

//! Marks as the far host sees them, read by tshark, which computes every checksum again. Needs root.

use std::net::{IpAddr, SocketAddr};
use std::path::Path;
use std::process::Command;

use pktgen::lab::Namespace;
use serde_json::Value;
use weir_tests::gateway::{
    Capture, Config, Gateway, HOST, Layout, SITE, SITE6, Stream, WAN, WAN6, Weir, contract, contract_of, ledger_sum,
    send_frames, succeed,
};

/// DSCP EF, which leads to the class gold.
const EF: u8 = 46;
/// What gold's excess is re-marked to.
const EXCESS: u8 = 3;
/// ECN-capable transport, ECT(0).
const ECT: u8 = 2;
const PACKETS: u32 = 60;

/// 20 packets of 528 bytes in the bucket, and next to nothing that refills it while a test runs.
fn web() -> Config {
    let endpoints = "\"10.0.0.0/24\", \"10.5.0.0/24\", \"fd00::/64\"";
    Config {
        contracts: contract("web", endpoints, "gold", "egress", "8 kbit/s", "10600 B"),
        ..Config::default()
    }
}

#[test]
fn excess_is_re_marked_with_valid_checksums_and_its_ecn_bits() {
    let Some(gateway) = Gateway::build(Layout::default()) else {
        return;
    };
    let weir = gateway.start(&web());
    gateway.warm();
    let seen = stream(&gateway, SITE, WAN, "udp dst port 7000");
    check(&seen, &weir, "the protocol's own length: 500 + 28");
    weir.stop();
}

#[test]
fn excess_is_re_marked_in_ipv6_too() {
    let Some(gateway) = Gateway::build(Layout::default()) else {
        return;
    };
    let weir = gateway.start(&web());
    gateway.warm();
    let seen = stream(&gateway, SITE6, WAN6, "udp dst port 7000");
    check(&seen, &weir, "IPv6");
    weir.stop();
}

#[test]
fn traffic_below_its_contract_keeps_its_marks() {
    let Some(gateway) = Gateway::build(Layout::default()) else {
        return;
    };
    let mut config = web();
    config.contracts = config
        .contracts
        .replace("8 kbit/s", "50 Mbit/s")
        .replace("10600 B", "1 MB");
    let weir = gateway.start(&config);
    gateway.warm();
    let seen = stream(&gateway, SITE, WAN, "udp dst port 7000");
    assert_eq!(seen.len(), PACKETS as usize);
    assert!(seen.iter().all(|packet| packet.is(EF)), "{seen:?}");
    let status = weir.stop();
    assert_eq!(contract_of(&status, "web")["nonconforming"]["packets"], 0);
}

#[test]
fn tcp_segments_of_a_local_sender_are_re_marked_with_valid_checksums() {
    let Some(gateway) = Gateway::build(Layout::default()) else {
        return;
    };
    let weir = gateway.start(&web());
    gateway.warm();
    let path = gateway.directory.path().join("tcp.pcap");
    let capture = Capture::start(&gateway.wan, HOST, "tcp", &path);
    let mut listen = Command::new("iperf3");
    listen.args(["-s", "-1", "-B", WAN]).stdout(std::process::Stdio::null());
    let mut server = gateway.wan.spawn(&mut listen).expect("iperf3 starts");
    std::thread::sleep(std::time::Duration::from_millis(300));
    let _report = succeed(&gateway.site, &["iperf3", "-c", WAN, "-n", "300K", "--dscp", "46"]);
    let _killed = server.kill();
    let _reaped = server.wait();
    assert!(!capture.finish().is_empty());
    let seen = dissect(&path);
    assert!(seen.iter().all(|packet| packet.checksums_are_valid()), "{seen:?}");
    assert!(seen.iter().any(|packet| packet.dscp == EXCESS), "{seen:?}");
    let status = weir.stop();
    assert!(contract_of(&status, "web")["remarked"]["packets"].as_u64() > Some(50));
}

#[test]
fn one_tag_stays_and_its_packets_are_classified() {
    tagged(&[0x81, 0, 0xa0, 5], "5");
}

#[test]
fn both_tags_of_qinq_stay_and_their_packets_are_classified() {
    tagged(&[0x88, 0xa8, 0, 100, 0x81, 0, 0xa0, 5], "100,5");
}

fn tagged(tags: &[u8], ids: &str) {
    let Some(gateway) = Gateway::build(Layout::default()) else {
        return;
    };
    let weir = gateway.start(&web());
    gateway.warm();
    let frames: Vec<Vec<u8>> = (0..PACKETS).map(|number| tagged_frame(tags, number)).collect();
    let path = gateway.directory.path().join("tagged.pcap");
    let capture = Capture::start(&gateway.wan, HOST, "ether src 02:00:00:00:00:77", &path);
    send_frames(&gateway.site, HOST, &frames);
    let arrived = capture.finish();
    assert_eq!(arrived.len(), frames.len(), "{}", weir.account());
    let ip = 14 + tags.len();
    for (sent, arrived) in frames.iter().zip(&arrived) {
        // All but the traffic class and the header's checksum is as it was.
        let mut expected = sent.clone();
        for at in [ip + 1, ip + 10, ip + 11] {
            expected[at] = arrived.bytes[at];
        }
        assert!(expected == arrived.bytes, "{sent:02x?}\n{:02x?}", arrived.bytes);
    }
    let seen = dissect(&path);
    assert!(seen.iter().all(|packet| packet.vlans == ids), "{seen:?}");
    check(&seen, &weir, ids);
    weir.stop();
}

#[test]
fn a_port_rate_delivers_all_that_conforms_and_loses_the_excess() {
    let Some(gateway) = Gateway::build(Layout::default()) else {
        return;
    };
    let config = Config {
        wan_rate: "20 Mbit/s",
        contracts: contract(
            "mail",
            "\"10.0.0.3/32\"",
            "best-effort",
            "egress",
            "10 Mbit/s",
            "512 kB",
        ) + &contract("bulk", "\"10.0.0.4/32\"", "best-effort", "egress", "4 Mbit/s", "64 kB"),
        ..Config::default()
    };
    let weir = gateway.start(&config);
    gateway.warm();
    // 1,250 bytes of IP packet: 10 kbit. Mail offers 9 Mbit/s of its 10, bulk 51 of its 4; the port sends 20.
    let offer = |from: &str, port, per_second, seconds| {
        let stream = Stream {
            from: SocketAddr::new(from.parse().unwrap(), 0),
            to: SocketAddr::new(WAN.parse().unwrap(), port),
            packets: per_second * seconds,
            per_second,
            payload: 1250 - 28,
            tos: 0,
        };
        stream.start(&gateway.site, &gateway.wan)
    };
    let (mail, bulk) = (offer("10.0.0.3", 7001, 900, 3), offer("10.0.0.4", 7002, 5100, 3));
    let (mail, bulk) = (mail.finish(), bulk.finish());
    let status = weir.status();
    let of = |service: &str, counter: &str| contract_of(&status, service)[counter]["packets"].as_u64().unwrap();
    let elsewhere = gateway.lost_elsewhere(&status);
    // A worker that was away for a moment finds a burst, and CoDel may take a packet of the queue that makes.
    let lost = u64::from(mail.lost()).saturating_sub(elsewhere);
    assert!(
        lost <= 27 && mail.reordered == 0,
        "{mail:?}: all of it conforms: {}",
        weir.account()
    );
    // A ping of the preparation is among the packets of 10.0.0.3.
    assert!(of("mail", "conforming") + elsewhere >= 2701);
    let bulk_offered = of("bulk", "conforming") + of("bulk", "nonconforming");
    assert!(bulk_offered <= 15_300 && bulk_offered + elsewhere >= 15_300);
    assert!(
        u64::from(bulk.received) + elsewhere >= of("bulk", "conforming"),
        "{bulk:?}: what conforms arrives"
    );
    assert!(bulk.lost() > 7_000, "{bulk:?}: the excess is lost");
    // The port sends 6,000 packets in three seconds; an overloaded sender takes longer.
    let arrived = mail.received + bulk.received;
    assert!(
        (5_000..=8_000).contains(&arrived),
        "{arrived} packets passed a port of 20 Mbit/s"
    );
    assert_eq!(ledger_sum(&status, &["held", "packets"]), 0);
    let status = weir.stop();
    let dropped: u64 = dropped_packets(contract_of(&status, "bulk"));
    let lost = u64::from(bulk.lost());
    assert!(
        dropped <= lost && lost <= dropped + elsewhere,
        "every loss has a reason: {status:#}"
    );
    assert!(dropped_packets(contract_of(&status, "mail")) <= u64::from(mail.lost()));
}

fn dropped_packets(contract: &Value) -> u64 {
    let reasons = contract["dropped"].as_object().expect("drops by reason").values();
    reasons.map(|count| count["packets"].as_u64().unwrap()).sum()
}

/// What tshark reads from one packet.
#[derive(Debug)]
struct Seen {
    dscp: u8,
    ecn: u8,
    vlans: String,
    /// Status of each checksum: 0 bad, 1 good, 3 none sent; IPv6 headers have no such field.
    checksums: Vec<String>,
}

impl Seen {
    fn checksums_are_valid(&self) -> bool {
        !self.checksums.is_empty() && self.checksums.iter().all(|status| matches!(status.as_str(), "1" | "3"))
    }

    fn is(&self, dscp: u8) -> bool {
        self.dscp == dscp && self.ecn == ECT && self.checksums_are_valid()
    }
}

/// Sends the test's packets from one host to the other and reads what arrives.
fn stream(gateway: &Gateway, from: &str, to: &str, filter: &str) -> Vec<Seen> {
    let path = gateway.directory.path().join("far.pcap");
    let capture = Capture::start(&gateway.wan, HOST, filter, &path);
    let [from, to]: [IpAddr; 2] = [from, to].map(|text| text.parse().unwrap());
    let stream = Stream {
        from: SocketAddr::new(from, 0),
        to: SocketAddr::new(to, 7000),
        packets: PACKETS,
        per_second: 1000,
        payload: if from.is_ipv6() { 480 } else { 500 },
        tos: EF << 2 | ECT,
    };
    let score = stream.run(&gateway.site, &gateway.wan);
    assert_eq!((score.lost(), score.reordered), (0, 0), "{score:?}");
    assert_eq!(capture.finish().len(), PACKETS as usize);
    dissect(&path)
}

/// The first 20 packets conform and are as they were sent, the others are re-marked, and the counters say so.
fn check(seen: &[Seen], weir: &Weir, what: &str) {
    assert_eq!(seen.len(), PACKETS as usize, "{what}");
    let (conforming, excess) = seen.split_at(20);
    assert!(conforming.iter().all(|packet| packet.is(EF)), "{what}: {conforming:?}");
    assert!(excess.iter().all(|packet| packet.is(EXCESS)), "{what}: {excess:?}");
    let status = weir.status_when(|status| contract_of(status, "web")["offered"]["packets"] == PACKETS);
    let web = contract_of(&status, "web");
    assert_eq!(web["conforming"]["packets"], 20, "{what}");
    assert_eq!(web["conforming"]["bytes"], 20 * 528, "{what}");
    assert_eq!(web["remarked"]["packets"], PACKETS - 20, "{what}");
}

fn dissect(path: &Path) -> Vec<Seen> {
    let here = Namespace::current().expect("the namespace of this thread");
    let mut line = vec![
        "tshark",
        "-n",
        "-r",
        path.to_str().expect("a path of plain letters"),
        "-T",
        "fields",
    ];
    for preference in [
        "ip.check_checksum:TRUE",
        "udp.check_checksum:TRUE",
        "tcp.check_checksum:TRUE",
    ] {
        line.extend(["-o", preference]);
    }
    let fields = [
        "ip.dsfield.dscp",
        "ip.dsfield.ecn",
        "ipv6.tclass.dscp",
        "ipv6.tclass.ecn",
        "ieee8021ad.id",
        "vlan.id",
        "ip.checksum.status",
        "udp.checksum.status",
        "tcp.checksum.status",
    ];
    for field in fields {
        line.extend(["-e", field]);
    }
    succeed(&here, &line).lines().map(seen).collect()
}

fn seen(line: &str) -> Seen {
    let fields: Vec<&str> = line.split('\t').collect();
    let either = |a: usize, b: usize| {
        let text = if fields[a].is_empty() { fields[b] } else { fields[a] };
        text.parse().unwrap_or_else(|_| panic!("tshark: {line:?}"))
    };
    let present = |fields: &[&str]| -> Vec<String> {
        let present = fields.iter().filter(|text| !text.is_empty());
        present.map(|text| (*text).to_owned()).collect()
    };
    Seen {
        dscp: either(0, 2),
        ecn: either(1, 3),
        vlans: present(&fields[4..6]).join(","),
        checksums: present(&fields[6..9]),
    }
}

/// A UDP packet from the site behind these tags, without a UDP checksum (RFC 768: 0 is "none").
fn tagged_frame(tags: &[u8], number: u32) -> Vec<u8> {
    let mut ip = vec![0x45, EF << 2 | ECT, 2, 0x10, 0, 0, 0x40, 0, 64, 17, 0, 0];
    ip.extend([10, 5, 0, 1, 10, 5, 0, 9]);
    let sum: u32 = ip
        .chunks(2)
        .map(|pair| u32::from(pair[0]) << 8 | u32::from(pair[1]))
        .sum();
    let folded = (sum & 0xffff) + (sum >> 16);
    ip[10..12].copy_from_slice(&(!(folded as u16)).to_be_bytes());
    let mut frame = [&[0xff; 6][..], &[2, 0, 0, 0, 0, 0x77], tags, &[8, 0], &ip].concat();
    frame.extend([0x1b, 0x58, 0x1b, 0x58, 1, 0xfc, 0, 0]);
    frame.extend(number.to_be_bytes());
    frame.resize(14 + tags.len() + 528, 0x5a);
    frame
}

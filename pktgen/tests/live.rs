//! The engine inside the kernel over veth: what is sent against what is scored, and what is on the wire. Needs root; without
//! it every test is skipped and says so.

mod common;

use std::collections::{BTreeMap, HashSet};
use std::net::IpAddr;
use std::os::fd::{AsRawFd, OwnedFd};
use std::thread;
use std::time::Duration;

use af_xdp::device::{self, Offload};
use dataplane::clock::{Clock, MonotonicClock, Nanos};
use nix::sys::socket::{self, AddressFamily, SockFlag, SockProtocol, SockType, sockopt};
use nix::sys::time::TimeVal;
use pktgen::lab::{Namespace, VethEnd, links};
use pktgen::live::{LiveError, Load, Portion, Receiver, ReceiverConfig, Scores, Sender, SenderConfig, Sent};
use pktgen::probe::{Probe, Seen, dissect};
use pktgen::stream::{Protocol, Stream, Vlan};

const SEED: u64 = 20_261_121;
/// Between reading one clock and another.
const CLOCKS: Duration = Duration::from_millis(1);

fn skipped(test: &str) -> bool {
    println!("seed {SEED}");
    common::skipped(test)
}

fn ipv4(id: u16, frame_bytes: u16) -> Stream {
    Stream {
        id,
        destination_ports: 443..=445,
        frame_bytes: vec![frame_bytes],
        ..common::stream()
    }
}

fn ipv6(id: u16, frame_bytes: u16) -> Stream {
    Stream {
        source: "2001:db8:1::/48".parse().unwrap(),
        destination: "2001:db8:2::/48".parse().unwrap(),
        source_ports: 0..=65535,
        destination_ports: 0..=65535,
        dscp: 10,
        ..ipv4(id, frame_bytes)
    }
}

fn portions(streams: &[(f64, Stream)]) -> Vec<Portion> {
    let portion = |(weight, stream): &(f64, Stream)| Portion {
        stream: stream.clone(),
        weight: *weight,
    };
    streams.iter().map(portion).collect()
}

/// Every length, family, protocol and tag in one mix: each frame is all of them in turn.
fn mix() -> Vec<Portion> {
    let tagged = |tags: &[u16], stream| Stream {
        vlans: tags.iter().map(|&id| Vlan { id, pcp: 5 }).collect(),
        ..stream
    };
    let carried = |protocol, stream| Stream { protocol, ..stream };
    let odd = Stream {
        dscp: 0,
        flows: 1,
        ..ipv4(2, 61)
    };
    let sizes = Stream {
        frame_bytes: vec![1514, 100, 1514, 577],
        ..ipv6(6, 0)
    };
    let of_seven = Stream {
        flows: 7,
        ..ipv4(8, 577)
    };
    portions(&[
        (4.0, ipv4(1, 60)),
        (1.0, odd),
        (1.0, ipv6(7, 80)),
        (1.0, tagged(&[100], ipv4(60_000, 64))),
        (1.0, tagged(&[7, 100], ipv6(4, 89))),
        (2.0, ipv6(5, 1514)),
        (2.0, sizes),
        (1.0, carried(Protocol::Tcp, ipv4(10, 72))),
        (1.0, tagged(&[7, 100], carried(Protocol::Tcp, ipv6(11, 100)))),
        (1.0, carried(Protocol::Icmp, ipv4(12, 63))),
        (1.0, carried(Protocol::Icmp, ipv6(13, 1001))),
        // Two portions of one stream.
        (0.5, ipv4(8, 1513)),
        (0.5, of_seven),
    ])
}

fn ids(portions: &[Portion]) -> Vec<u16> {
    let ids: HashSet<u16> = portions.iter().map(|portion| portion.stream.id).collect();
    ids.into_iter().collect()
}

/// A pair of veths, up, between two namespaces, with a queue for each of two cores.
fn wire() -> (Namespace, Namespace) {
    let (a, b) = (Namespace::new().unwrap(), Namespace::new().unwrap());
    let end = |namespace, name| VethEnd {
        queues: 2,
        ..VethEnd::new(namespace, name)
    };
    links::create_veth(&end(&a, "left"), &end(&b, "right")).unwrap();
    a.try_run(|| links::set_up("left")).unwrap();
    b.try_run(|| links::set_up("right")).unwrap();
    (a, b)
}

fn config(portions: &[Portion], packets: u64) -> SenderConfig<'_> {
    SenderConfig {
        interface: "left",
        cpu: None,
        portions,
        load: Load::Max,
        packets: Some(packets),
        start: None,
        phase: 0,
        seed: SEED,
        after: None,
    }
}

fn send(namespace: &Namespace, config: &SenderConfig<'_>) -> Sent {
    let mut sender = namespace.run(|| Sender::start(config)).unwrap().unwrap();
    assert!(
        sender.wait(Duration::from_secs(60)).unwrap(),
        "not all were sent in a minute"
    );
    sender.stop().unwrap()
}

fn receiver<'a>(namespace: &Namespace, config: &ReceiverConfig<'a>) -> Receiver {
    namespace.run(|| Receiver::attach(config)).unwrap().unwrap()
}

/// The scores once all that was sent has come, or as they are after a while.
fn settle(receiver: &Receiver, packets: u64) -> Scores {
    for _ in 0..500 {
        let scores = receiver.read().unwrap();
        if scores.received() >= packets {
            return scores;
        }
        thread::sleep(Duration::from_millis(10));
    }
    receiver.read().unwrap()
}

#[test]
fn everything_that_is_sent_is_scored_by_stream_and_dscp() {
    if skipped("everything_that_is_sent_is_scored_by_stream_and_dscp") {
        return;
    }
    let (a, b) = wire();
    let portions = mix();
    let receiver = receiver(&b, &ReceiverConfig::new("right", &ids(&portions)));
    assert!(receiver.is_native());
    let packets = 340_000;
    let sent = send(&a, &config(&portions, packets));
    let scores = settle(&receiver, packets);

    assert_eq!((sent.packets, sent.refused), (packets, Some(0)));
    assert!(sent.lags.is_empty());
    assert_eq!([scores.unknown_stream, scores.foreign], [0, 0]);
    assert_eq!(scores.by_stream.len(), 12);
    for (&(stream, phase), score) in &scores.by_stream {
        let sent = sent.by_stream[&stream].packets();
        let of_it: Vec<&Portion> = portions.iter().filter(|portion| portion.stream.id == stream).collect();
        let weight: f64 = of_it.iter().map(|portion| portion.weight).sum();
        assert_eq!(phase, 0);
        assert_eq!(sent, (packets as f64 * weight / 17.0) as u64, "stream {stream}");
        assert_eq!(scores.lost(stream, 0, sent), 0, "stream {stream}");
        assert_eq!(
            [score.unique, score.reordered, score.duplicated, score.too_old],
            [sent, 0, 0, 0]
        );
        let dscp = usize::from(of_it[0].stream.dscp);
        assert_eq!(score.by_dscp[dscp], sent);
        assert_eq!(score.by_dscp.iter().sum::<u64>(), sent);
        let mean = |stream: &Stream| {
            let (bytes, sizes) = stream.ip_bytes_of_a_turn();
            bytes as f64 / sizes as f64
        };
        let bytes: f64 = of_it
            .iter()
            .map(|portion| mean(&portion.stream) * portion.weight / weight)
            .sum();
        assert_eq!(score.ip_bytes, (bytes * sent as f64).round() as u64);
        assert_eq!(score.latency.count(), sent);
        assert!(score.latency.quantile(0.5) <= Some(score.latency.max()));
    }
}

#[test]
fn numbers_go_on_in_the_next_phase_and_latency_can_be_sampled() {
    if skipped("numbers_go_on_in_the_next_phase_and_latency_can_be_sampled") {
        return;
    }
    let (a, b) = wire();
    let portions = portions(&[(1.0, ipv4(1, 60)), (3.0, ipv6(2, 100))]);
    let receiver = receiver(
        &b,
        &ReceiverConfig {
            phases: 2,
            latency_every: 4,
            ..ReceiverConfig::new("right", &[1, 2])
        },
    );
    let first = send(&a, &config(&portions, 40_000));
    let second = send(
        &a,
        &SenderConfig {
            phase: 3,
            after: Some(&first),
            ..config(&portions, 80_000)
        },
    );
    let scores = settle(&receiver, 120_000);
    assert_eq!(
        [second.by_stream[&1].first, second.by_stream[&1].next],
        [10_000, 30_000]
    );
    let expected = [((1, 0), 10_000), ((1, 1), 20_000), ((2, 0), 30_000), ((2, 1), 60_000)];
    for (key, unique) in expected {
        let score = &scores.by_stream[&key];
        assert_eq!(
            [score.unique, score.reordered, score.duplicated, score.too_old],
            [unique, 0, 0, 0],
            "{key:?}"
        );
        assert_eq!(score.latency.count(), unique / 4);
    }
}

/// The packets on the far interface's wire, from a packet socket.
struct Capture(OwnedFd);

impl Capture {
    fn open(namespace: &Namespace) -> Self {
        let open = || {
            let flags = SockFlag::SOCK_CLOEXEC;
            let all = SockProtocol::EthAll;
            let fd = socket::socket(AddressFamily::Packet, SockType::Raw, flags, all).unwrap();
            socket::setsockopt(&fd, sockopt::RcvBufForce, &(64 << 20)).unwrap();
            socket::setsockopt(&fd, sockopt::ReceiveTimeout, &TimeVal::new(10, 0)).unwrap();
            fd
        };
        Self(namespace.run(open).unwrap())
    }

    /// The next one; `None` if for ten seconds none has come.
    fn next(&self) -> Option<Vec<u8>> {
        let mut packet = vec![0; 2048];
        let bytes = socket::recv(self.0.as_raw_fd(), &mut packet, socket::MsgFlags::empty()).ok()?;
        packet.truncate(bytes);
        Some(packet)
    }
}

/// Addresses and ports, or identifier and sequence number.
fn flow_of(packet: &[u8]) -> (IpAddr, IpAddr, [u16; 2]) {
    let at = if packet[12..14] == [0x81, 0] { 16 } else { 12 };
    let (is_ipv4, ip) = (packet[at] == 8, &packet[at + 2..]);
    let v4 = |at: usize| IpAddr::from(<[u8; 4]>::try_from(&ip[at..at + 4]).unwrap());
    let v6 = |at: usize| IpAddr::from(<[u8; 16]>::try_from(&ip[at..at + 16]).unwrap());
    let (source, destination, protocol, transport) = if is_ipv4 {
        (v4(12), v4(16), ip[9], &ip[20..])
    } else {
        (v6(8), v6(24), ip[6], &ip[40..])
    };
    let ports = if [1, 58].contains(&protocol) { 4 } else { 0 };
    let port = |at: usize| u16::from_be_bytes([transport[at], transport[at + 1]]);
    (source, destination, [port(ports), port(ports + 2)])
}

/// Whether a packet socket can show so many bytes of the stream: the kernel takes the outer tag out before.
fn has_size(stream: &Stream, bytes: usize) -> bool {
    let tag = if stream.vlans.is_empty() { 0 } else { 4 };
    stream.frame_bytes.iter().any(|&size| usize::from(size) == bytes + tag)
}

#[test]
fn packets_on_the_wire_are_intact_and_of_the_flows_of_their_stream() {
    if skipped("packets_on_the_wire_are_intact_and_of_the_flows_of_their_stream") {
        return;
    }
    let (a, b) = wire();
    let portions = mix();
    // Without an XDP program on the far end, veth takes what is redirected to it only if it polls there.
    b.run(|| device::set_offload("right", Offload::Gro, true))
        .unwrap()
        .unwrap();
    let capture = Capture::open(&b);
    let packets = 51_000;
    let slow = SenderConfig {
        load: Load::PacketsPerSecond(100_000.0),
        phase: 9,
        ..config(&portions, packets)
    };
    // Read as they come, so that the sender is given frames back as they were left on this side.
    let captured = thread::spawn(move || {
        let mut all = Vec::new();
        while all.len() < packets as usize {
            let Some(packet) = capture.next() else { break };
            all.push(packet);
        }
        all
    });
    let sent = send(&a, &slow);
    let mut flows: BTreeMap<(u16, u32), HashSet<_>> = BTreeMap::new();
    let mut numbers: BTreeMap<u16, BTreeMap<u64, Nanos>> = BTreeMap::new();
    let mut seen = 0;
    for packet in captured.join().unwrap() {
        let Seen::Probe { probe, dscp, ecn, .. } = dissect(&packet) else {
            panic!("{:?}: {packet:02x?}", dissect(&packet));
        };
        let Probe {
            stream,
            phase,
            sequence,
            intended,
        } = probe;
        let portion = portions
            .iter()
            .find(|portion| portion.stream.id == stream && has_size(&portion.stream, packet.len()))
            .unwrap_or_else(|| panic!("stream {stream}, {} bytes", packet.len()));
        let expected = &portion.stream;
        assert_eq!([dscp, ecn, phase], [expected.dscp, 0, 9]);
        // In any order: GRO looks at some packets longer than at others.
        numbers.entry(stream).or_default().insert(sequence, intended);
        assert_eq!(packet[..12], [2, 0, 0, 0, 0, 2, 2, 0, 0, 0, 0, 1]);
        let flow @ (source, destination, [source_port, destination_port]) = flow_of(&packet);
        assert!(
            expected.source.contains(&source) && expected.destination.contains(&destination),
            "{flow:?}"
        );
        assert!(expected.source_ports.contains(&source_port), "{flow:?}");
        assert!(expected.destination_ports.contains(&destination_port), "{flow:?}");
        flows.entry((stream, expected.flows)).or_default().insert(flow);
        seen += 1;
    }
    assert_eq!((seen, sent.packets), (packets, packets));
    for (stream, numbers) in numbers {
        assert!(
            numbers.keys().copied().eq(0..sent.by_stream[&stream].next),
            "stream {stream}"
        );
        assert!(
            numbers.values().is_sorted(),
            "stream {stream}: due before the packet before it"
        );
    }
    for portion in &portions {
        let Stream { id, flows: count, .. } = portion.stream;
        assert_eq!(flows[&(id, count)].len(), count as usize, "stream {id}");
    }
}

#[test]
fn a_schedule_is_kept_and_its_lag_is_known() {
    if skipped("a_schedule_is_kept_and_its_lag_is_known") {
        return;
    }
    let (a, b) = wire();
    let portions = portions(&[(1.0, ipv4(1, 60))]);
    let receiver = receiver(&b, &ReceiverConfig::new("right", &[1]));
    let delay = Duration::from_millis(200);
    let slow = SenderConfig {
        load: Load::PacketsPerSecond(30_000.0),
        start: Some(MonotonicClock.now().plus(Nanos(delay.as_nanos() as u64))),
        ..config(&portions, 15_000)
    };
    let begun = std::time::Instant::now();
    let sent = send(&a, &slow);
    let took = begun.elapsed();
    let scores = settle(&receiver, 15_000);
    let score = &scores.by_stream[&(1, 0)];
    assert_eq!([sent.packets, score.unique, score.reordered], [15_000, 15_000, 0]);
    // The last is due 14,999 intervals after the first; how much later it left is the machine's affair.
    assert!(
        took >= delay + Duration::from_nanos(14_999 * 33_333) - CLOCKS,
        "{took:?}"
    );
    assert_eq!(sent.lags.iter().sum::<u64>(), 15_000);
    let longest = sent.lags.iter().rposition(|&packets| packets > 0).unwrap();
    assert_eq!(longest as u32, (64 - sent.lag_max.0.leading_zeros()).min(39));
    println!("{took:?} {sent:?} {:?}", score.latency.max());
}

#[test]
fn what_cannot_be_is_refused_with_the_reason() {
    if skipped("what_cannot_be_is_refused_with_the_reason") {
        return;
    }
    let (a, _b) = wire();
    let good = portions(&[(1.0, ipv4(1, 60))]);
    let long = portions(&[(1.0, ipv4(1, 1600))]);
    let rare = portions(&[(1.0, ipv4(1, 60)), (1e-6, ipv4(2, 60))]);
    let start = |config: &SenderConfig<'_>| {
        a.run(|| Sender::start(config).err().map(|error| error.to_string()))
            .unwrap()
    };
    let cases = [
        (
            SenderConfig {
                interface: "none",
                ..config(&good, 1)
            },
            "none",
        ),
        (
            SenderConfig {
                interface: "lo",
                ..config(&good, 1)
            },
            "ip link set lo up",
        ),
        (
            SenderConfig {
                cpu: Some(1000),
                ..config(&good, 1)
            },
            "cpu = 1000",
        ),
        (
            SenderConfig {
                load: Load::PacketsPerSecond(0.0),
                ..config(&good, 1)
            },
            "1 to 10^9",
        ),
        (
            SenderConfig {
                load: Load::PacketsPerSecond(f64::NAN),
                ..config(&good, 1)
            },
            "1 to 10^9",
        ),
        (config(&long, 1), "up to 1518 on left"),
        (config(&rare, 1), "smallest share"),
        (config(&[], 1), "streams of a mix = 0"),
    ];
    for (config, expected) in cases {
        let error = start(&config).unwrap_or_default();
        assert!(error.contains(expected), "{error:?} does not say {expected:?}");
    }
    let attach = |config: &ReceiverConfig<'_>| a.run(|| Receiver::attach(config).err()).unwrap().unwrap().to_string();
    for (config, expected) in [
        (ReceiverConfig::new("none", &[1]), "none"),
        (ReceiverConfig::new("left", &[]), "streams to score = 0"),
        (ReceiverConfig::new("left", &[5, 1, 5]), "stream to score = 5"),
        (
            ReceiverConfig {
                phases: 3,
                ..ReceiverConfig::new("left", &[1])
            },
            "phases = 3",
        ),
        (
            ReceiverConfig {
                latency_every: 0,
                ..ReceiverConfig::new("left", &[1])
            },
            "latency_every = 0",
        ),
    ] {
        let error = attach(&config);
        assert!(error.contains(expected), "{error:?} does not say {expected:?}");
    }
    let _first = receiver(&a, &ReceiverConfig::new("left", &[1]));
    let error = a.run(|| Receiver::attach(&ReceiverConfig::new("left", &[1]))).unwrap();
    assert!(matches!(error.err(), Some(LiveError::Kernel { step, .. }) if step.contains("left")));
}

#[test]
fn what_the_interface_does_not_take_is_counted() {
    if skipped("what_the_interface_does_not_take_is_counted") {
        return;
    }
    let (a, b) = wire();
    let portions = portions(&[(1.0, ipv4(1, 60))]);
    // Nothing polls on the far end.
    let sent = send(&a, &config(&portions, 5_000));
    assert_eq!((sent.packets, sent.refused), (5_000, Some(5_000)));
    let receiver = receiver(&b, &ReceiverConfig::new("right", &[1]));
    let sent = send(&a, &config(&portions, 5_000));
    let scores = settle(&receiver, 5_000);
    assert_eq!((sent.refused, scores.by_stream[&(1, 0)].unique), (Some(0), 5_000));
}

#[test]
fn two_cores_that_send_the_same_numbers_leave_one_of_each() {
    if skipped("two_cores_that_send_the_same_numbers_leave_one_of_each") {
        return;
    }
    let cores = thread::available_parallelism().map_or(1, usize::from);
    if cores < 2 {
        eprintln!("SKIPPED two_cores_that_send_the_same_numbers_leave_one_of_each: one core");
        return;
    }
    let (a, b) = wire();
    let portions = portions(&[(1.0, ipv4(1, 60))]);
    let receiver = receiver(&b, &ReceiverConfig::new("right", &[1]));
    // Fewer than the window holds, so that both may be at any of them.
    let packets = 60_000;
    let senders = [0, 1].map(|cpu| {
        let config = SenderConfig {
            cpu: Some(cpu),
            load: Load::PacketsPerSecond(500_000.0),
            start: Some(MonotonicClock.now().plus(Nanos(100_000_000))),
            ..config(&portions, packets)
        };
        a.run(|| Sender::start(&config)).unwrap().unwrap()
    });
    for mut sender in senders {
        assert!(sender.wait(Duration::from_secs(60)).unwrap());
        assert_eq!(sender.stop().unwrap().refused, Some(0));
    }
    let scores = settle(&receiver, 2 * packets);
    let score = &scores.by_stream[&(1, 0)];
    assert_eq!([score.unique, score.duplicated, score.too_old], [packets, packets, 0]);
    println!("{} came after a later one", score.reordered);
}

#[test]
fn the_longest_packets_are_made_and_taken() {
    if skipped("the_longest_packets_are_made_and_taken") {
        return;
    }
    let (a, b) = (Namespace::new().unwrap(), Namespace::new().unwrap());
    let end = |namespace, name| VethEnd {
        mtu: 3_386,
        ..VethEnd::new(namespace, name)
    };
    links::create_veth(&end(&a, "left"), &end(&b, "right")).unwrap();
    a.try_run(|| links::set_up("left")).unwrap();
    b.try_run(|| links::set_up("right")).unwrap();
    let receiver = receiver(&b, &ReceiverConfig::new("right", &[1, 2]));
    let portions = portions(&[(1.0, ipv4(1, 3_400)), (1.0, ipv6(2, 80))]);
    let sent = send(&a, &config(&portions, 2_000));
    let scores = settle(&receiver, 2_000);
    assert_eq!(sent.refused, Some(0));
    assert_eq!([1, 2].map(|id| scores.by_stream[&(id, 0)].unique), [1_000, 1_000]);
    assert_eq!(scores.by_stream[&(1, 0)].ip_bytes, 3_386_000);
}

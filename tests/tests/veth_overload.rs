//! More than fits, on veth pairs: what conforms is not lost, whoever else sends how much, and neither is what keeps a network
//! together. Needs root.
//!
//! A port is the end of one wire only, so two site ports cannot share a wan port. What can is two queues of a site port: each has
//! a worker of its own, and both share the pace of the wan port's rate, which is where one could starve the other.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use serde_json::Value;
use weir_tests::gateway::faults::{check_nothing_missing, rounds};
use weir_tests::gateway::{
    Capture, Config, Gateway, HOST, Layout, Running, Score, Stream, WAN, Weir, contract, ledger_sum, send_frames,
};

/// Payload of the streams: IP packets of 1,028 bytes, of which 300 a second are 2.5 Mbit/s.
const PAYLOAD: usize = 1_000;
const WAN_RATE: &str = "16 Mbit/s";

/// Three services within 3 Mbit/s each, in two classes, and one of 2 Mbit/s that sends twelve times as much.
fn config() -> Config {
    let service = |number: u8, class: &str, rate: &str| {
        contract(
            &format!("s{number}"),
            &format!("\"10.0.0.{number}\""),
            class,
            "egress",
            rate,
            "60 kB",
        )
    };
    let mut contracts = service(1, "gold", "3 Mbit/s")
        + &service(2, "best-effort", "3 Mbit/s")
        + &service(3, "best-effort", "3 Mbit/s")
        + &service(4, "best-effort", "2 Mbit/s");
    // Neighbour discovery is IP: without a contract it would be what goes last.
    contracts += &contract(
        "neighbours",
        "\"fe80::/10\"",
        "best-effort",
        "egress",
        "200 kbit/s",
        "20 kB",
    );
    contracts += "[[contract]]\nservice = \"s1\"\nclass = \"control\"\nregion = \"atn\"\ndirection = \"egress\"\n\
                  rate = \"500 kbit/s\"\nburst = \"20 kB\"\n";
    Config {
        cpus: "[0, 1]",
        wan_rate: WAN_RATE,
        control: "[[class]]\nname = \"control\"\npriority = 0\ndscp = [\"CS6\", \"CS7\"]\n",
        contracts,
        ..Config::default()
    }
}

fn stream(number: u16, tos: u8, per_second: u32, seconds: u32) -> Stream {
    Stream {
        from: format!("10.0.0.{number}:0").parse().expect("an address"),
        to: to(7_000 + number),
        payload: PAYLOAD,
        tos,
        ..Stream::to_wan(per_second, seconds)
    }
}

fn to(port: u16) -> SocketAddr {
    SocketAddr::new(WAN.parse().expect("an address"), port)
}

const EF: u8 = 46 << 2;
const CS6: u8 = 48 << 2;

/// Conforming packets that weir itself dropped, by contract.
fn conforming_dropped(status: &Value) -> Vec<(String, u64)> {
    let contracts = status["contracts"].as_array().expect("contracts");
    let dropped = contracts.iter().map(|contract| {
        let name = format!("{}/{}", contract["service"], contract["class"]);
        (
            name,
            contract["conforming_dropped"]["packets"].as_u64().expect("a count"),
        )
    });
    dropped.filter(|(_, packets)| *packets > 0).collect()
}

/// How long the workers were kept waiting for their cores so far: the scheduler's own account.
fn kept_waiting(weir: &Weir) -> Duration {
    let threads = std::fs::read_dir(format!("/proc/{}/task", weir.id())).expect("it runs");
    let waits = threads.filter_map(|thread| {
        let thread = thread.ok()?.path();
        let is_worker = std::fs::read_to_string(thread.join("comm"))
            .ok()?
            .starts_with("weir-cpu");
        let schedule = std::fs::read_to_string(thread.join("schedstat")).ok()?;
        let waited = schedule.split_whitespace().nth(1)?.parse().ok()?;
        is_worker.then_some(Duration::from_nanos(waited))
    });
    waits.sum()
}

/// What came of the streams that keep to their contracts.
struct Outcome {
    scores: Vec<Score>,
    /// Others that must not be lost, by name.
    lost: Vec<(&'static str, u32)>,
    status: Value,
}

/// Repeats `attempt` while conforming packets were lost and the workers had to wait for their cores: on a machine that lends
/// its cores to others it says nothing. One that had its cores must have lost nothing.
fn hold_to_no_loss(gateway: &Gateway, attempt: impl Fn(&Weir) -> Outcome, config: &Config) {
    for number in 1.. {
        let weir = gateway.start(config);
        gateway.warm();
        let before = kept_waiting(&weir);
        let outcome = attempt(&weir);
        let waited = kept_waiting(&weir) - before;
        let elsewhere = gateway.lost_elsewhere(&outcome.status);
        let scored = outcome.scores.iter().map(Score::lost);
        let lost = scored
            .clone()
            .chain(outcome.lost.iter().map(|(_, lost)| *lost))
            .sum::<u32>();
        let dropped = conforming_dropped(&outcome.status);
        println!(
            "MEASURED attempt {number}: lost {:?} of {:?} conforming, {:?}; dropped by weir {dropped:?}; lost elsewhere {elsewhere}; \
             workers kept waiting {} ms",
            scored.collect::<Vec<_>>(),
            outcome.scores.iter().map(|score| score.sent).collect::<Vec<_>>(),
            outcome.lost,
            waited.as_millis(),
        );
        check_nothing_missing(&outcome.status);
        let clean = dropped.is_empty() && u64::from(lost) <= elsewhere;
        let account = weir.account();
        weir.end();
        if clean {
            return;
        }
        assert!(
            waited > BUSY && number < ATTEMPTS,
            "{lost} lost, {elsewhere} of them elsewhere: {account}"
        );
    }
}

/// Waiting that says that others use the cores: CoDel drops what conforms when a queue stands for 100 ms, whoever made it.
const BUSY: Duration = Duration::from_millis(100);
const ATTEMPTS: u32 = 4;

#[test]
fn the_excess_of_one_costs_no_other_a_packet() {
    let Some(gateway) = Gateway::build(Layout {
        queues: 2,
        ..Layout::default()
    }) else {
        return;
    };
    hold_to_no_loss(&gateway, |weir| overload(&gateway, weir), &config());
}

fn overload(gateway: &Gateway, weir: &Weir) -> Outcome {
    let seconds = rounds(3, 60);
    let run = |stream: Stream| stream.start(&gateway.site, &gateway.wan);
    let good: Vec<Running> = [(1, EF), (2, 0), (3, 0)]
        .into_iter()
        .map(|(number, tos)| run(stream(number, tos, 300, seconds)))
        .collect();
    let bfd = run(Stream {
        payload: 24,
        to: to(3_784),
        ..stream(1, CS6, 100, seconds)
    });
    // Several flows, which find both queues.
    let hogs: Vec<Running> = (0..8)
        .map(|index| {
            run(Stream {
                to: to(8_000 + index),
                ..stream(4, 0, 365, seconds)
            })
        })
        .collect();
    let (arps, neighbours) = resolve(gateway, seconds);
    let scores: Vec<_> = good.into_iter().map(Running::finish).collect();
    let bfd = bfd.finish();
    let hogs: Vec<Score> = hogs.into_iter().map(Running::finish).collect();
    let status = weir.status();
    let sent: u32 = hogs.iter().map(|score| score.sent).sum();
    let lost: u32 = hogs.iter().map(Score::lost).sum();
    assert!(
        lost > sent / 4,
        "there was no overload: {lost} of {sent} lost: {}",
        weir.account()
    );
    let queues = status["ledger"].as_array().expect("ledgers").iter();
    let busy = queues.filter(|ledger| ledger["port"] == "lan" && ledger["received"]["packets"].as_u64() > Some(300));
    assert_eq!(busy.count(), 2, "both workers send to the port: {}", weir.account());
    println!("MEASURED {seconds} s at twice the rate: who sent the excess lost {lost} of {sent}");
    Outcome {
        scores,
        lost: vec![("CS6", bfd.lost()), ("ARP", arps), ("ND", neighbours)],
        status,
    }
}

/// Numbered ARP requests and neighbour solicitations, forty of each a second, while the streams run; how many never arrived.
fn resolve(gateway: &Gateway, seconds: u32) -> (u32, u32) {
    let path = gateway.directory.path().join("resolve.pcap");
    let capture = Capture::start(&gateway.wan, HOST, "ether src 02:00:00:00:00:77", &path);
    let count = (seconds - 1) * 40;
    for number in 0..count {
        send_frames(&gateway.site, HOST, &[arp(number), solicitation(number)]);
        std::thread::sleep(Duration::from_millis(25));
    }
    let arrived = capture.finish();
    let of = |ether_type: [u8; 2]| {
        arrived
            .iter()
            .filter(|packet| packet.bytes[12..14] == ether_type)
            .count() as u32
    };
    (count - of([0x08, 0x06]), count - of([0x86, 0xdd]))
}

const FROM: [u8; 6] = [2, 0, 0, 0, 0, 0x77];

/// Who has 10.1.x.y: nobody, so no answer disturbs the count.
fn arp(number: u32) -> Vec<u8> {
    let [.., high, low] = number.to_be_bytes();
    let mut frame = [
        &[0xff; 6][..],
        &FROM,
        &[8, 6, 0, 1, 8, 0, 6, 4, 0, 1],
        &FROM,
        &[10, 0, 0, 77],
    ]
    .concat();
    frame.extend([0, 0, 0, 0, 0, 0, 10, 1, high, low]);
    frame.resize(60, 0);
    frame
}

/// The same of IPv6 (RFC 4861 section 4.3), to the group of all nodes.
fn solicitation(number: u32) -> Vec<u8> {
    let [.., high, low] = number.to_be_bytes();
    let mut frame = [
        &[0x33, 0x33, 0, 0, 0, 1][..],
        &FROM,
        &[0x86, 0xdd, 0x60, 0, 0, 0, 0, 24, 58, 255],
    ]
    .concat();
    frame.extend([0xfe, 0x80, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0x77]);
    frame.extend([0xff, 0x02, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1]);
    // The checksum is wrong, so no host answers; weir carries it all the same.
    frame.extend([
        135, 0, 0, 0, 0, 0, 0, 0, 0xfd, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, high, low,
    ]);
    frame
}

/// Every packet of the attack is a new flow: none is in the flow cache, and each pushes somebody out of it.
#[test]
fn a_churn_of_flows_costs_no_established_flow_a_packet() {
    let Some(gateway) = Gateway::build(Layout::default()) else {
        return;
    };
    let one_worker = Config { cpus: "", ..config() };
    hold_to_no_loss(&gateway, |weir| churning(&gateway, weir), &one_worker);
}

fn churning(gateway: &Gateway, weir: &Weir) -> Outcome {
    let seconds = rounds(3, 60);
    let running: Vec<Running> = [(1, EF), (2, 0), (3, 0)]
        .into_iter()
        .map(|(number, tos)| stream(number, tos, 300, seconds).start(&gateway.site, &gateway.wan))
        .collect();
    let (began, mut flows) = (Instant::now(), 0_u32);
    while running.iter().any(Running::is_sending) {
        // What a core taken away has held up is made up for in portions.
        let due = (began.elapsed().as_secs_f64() * f64::from(CHURN)) as u32;
        let until = due.min(flows + 64);
        let frames: Vec<Vec<u8>> = (flows..until).map(churn).collect();
        send_frames(&gateway.site, HOST, &frames);
        flows = until;
        std::thread::sleep(Duration::from_millis(2));
    }
    let scores: Vec<_> = running.into_iter().map(Running::finish).collect();
    let status = weir.status();
    let received = ledger_sum(&status, &["received", "packets"]);
    assert!(
        flows > CHURN / 2 * seconds && received > u64::from(flows),
        "{flows} flows: {}",
        weir.account()
    );
    println!("MEASURED {flows} new flows in {seconds} s");
    Outcome {
        scores,
        lost: Vec::new(),
        status,
    }
}

/// New flows a second, far below what the miss path takes (`benches/benches/tables.rs` measures it) and what a debug build does.
const CHURN: u32 = 2_000;

/// UDP from 10.0.0.4, of a pair of ports that has not been seen, to a host that is not there.
fn churn(number: u32) -> Vec<u8> {
    let [a, b, c, d] = number.wrapping_mul(0x9e37_79b1).to_be_bytes();
    let mut frame = [
        &[2, 0, 0, 0, 0, 0x99][..],
        &FROM,
        &[8, 0, 0x45, 0, 0, 100, 0, 0, 0, 0, 64, 17, 0, 0],
    ]
    .concat();
    frame.extend([10, 0, 0, 4, 198, 51, 100, 7, a, b, c, d, 0, 80, 0, 0]);
    frame.resize(114, 0);
    frame
}

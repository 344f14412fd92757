//! Faults of interfaces, workers and the process, made under load. `WEIR_FULL=1` makes each of them as often as
//! docs/RELIABILITY.md says. Needs root.

use std::process::{Child, Command};
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;
use pktgen::lab::{Namespace, links};
use weir_tests::gateway::faults::{
    Held, alarms, bridged, check_nothing_missing, events, load, longest_gap, measured, noise, reasons_when, rounds,
    until_next,
};
use weir_tests::gateway::{Config, Gateway, HOST, LAN, Layout, Score, UPLINK, Weir, ledger_sum, succeed};

/// Within this every fault has to be noticed.
const NOTICED: Duration = Duration::from_secs(1);
const MS: Duration = Duration::from_millis(1);

fn pause(ms: u64) {
    std::thread::sleep(Duration::from_millis(ms));
}

#[test]
fn links_that_flap_forward_again_at_once() {
    let Some(gateway) = Gateway::build(Layout::default()) else {
        return;
    };
    let weir = gateway.start(&bridged());
    let running = load(&gateway);
    pause(200);
    let mut back = Vec::new();
    for round in 0..rounds(12, 1000) {
        // Each end of each link in turn, for 5 to 100 ms.
        let ends = [(&gateway.gw, UPLINK), (&gateway.wan, HOST), (&gateway.gw, LAN)];
        let (namespace, name) = ends[round as usize % 3];
        namespace.try_run(|| links::set_down(name)).unwrap();
        pause(5 + u64::from(round * 37 % 96));
        namespace.try_run(|| links::set_up(name)).unwrap();
        wait_for_links(&gateway, true);
        back.push(Instant::now());
        pause(150);
    }
    let (sent, arrivals) = running.stop();
    let times: Vec<Duration> = back.iter().map(|&at| until_next(&arrivals, at)).collect();
    let (_, p99) = measured("both links up to the next packet", &times);
    let quiet: Vec<_> = back.iter().map(|&at| (at + 50 * MS, at + 150 * MS)).collect();
    assert!(p99 <= 100 * MS + noise(&arrivals, &quiet), "{times:?}");
    let score = Score::of(sent, &arrivals);
    assert_eq!((score.duplicates, score.reordered), (0, 0), "{score:?}");
    check_nothing_missing(&weir.status());
    weir.end();
}

#[test]
fn a_link_that_is_down_is_said_until_it_is_up() {
    let Some(gateway) = Gateway::build(Layout::default()) else {
        return;
    };
    let weir = gateway.start(&bridged());
    let running = load(&gateway);
    let mut noticed = Vec::new();
    for (namespace, name) in [(&gateway.gw, UPLINK), (&gateway.wan, HOST), (&gateway.gw, LAN)] {
        namespace.try_run(|| links::set_down(name)).unwrap();
        wait_for_links(&gateway, false);
        noticed.push(reasons_when(&gateway, NOTICED, |reasons| reasons == ["link_down"]));
        let status = weir.status();
        assert!(alarms(&status).contains(&"link_down"), "{status:#}");
        check_nothing_missing(&status);
        namespace.try_run(|| links::set_up(name)).unwrap();
        wait_for_links(&gateway, true);
        noticed.push(reasons_when(&gateway, NOTICED, <[String]>::is_empty));
        let both = ["link_down", "link_up"].map(str::to_owned);
        assert!(events(&gateway).ends_with(&both), "{:?}", events(&gateway));
        assert!(!alarms(&weir.status()).contains(&"link_down"));
    }
    let _times = measured("link down or up to readyz", &noticed);
    let (_, arrivals) = running.stop();
    assert!(!arrivals.is_empty());
    assert!(weir.log().contains("uplink is down"), "{}", weir.log());
    weir.end();
}

/// An interface goes for good, or to another namespace; weir ends with status 3, and its next start serves what is there.
#[test]
fn an_interface_that_goes_and_comes_back_takes_a_new_start() {
    let Some(gateway) = Gateway::build(Layout::default()) else {
        return;
    };
    let elsewhere = Namespace::new().unwrap();
    let [here, there] = [&gateway.gw, &elsewhere].map(Anchor::new);
    let mut ends = Vec::new();
    // The way back may come before weir looks: then the name and the index are the same, and only the sockets know.
    for away_ms in [700, 0, 30] {
        let mut weir = gateway.start(&bridged());
        let running = load(&gateway);
        pause(200);
        let start = Instant::now();
        move_to(&gateway.gw, UPLINK, &there);
        pause(away_ms);
        move_to(&elsewhere, UPLINK, &here);
        let ended = weir.wait();
        ends.push(start.elapsed());
        assert_eq!(ended.status.code(), Some(3), "{}", ended.log);
        let says = [
            "interface `uplink` has vanished",
            "interface `uplink` was taken away from the sockets",
        ];
        assert!(says.iter().any(|says| ended.log.contains(says)), "{}", ended.log);
        assert!(
            !ended.log.contains("panicked") && ended.log.contains("unaccounted for: 0"),
            "{}",
            ended.log
        );
        let weir = gateway.start(&bridged());
        let from = Instant::now();
        pause(300);
        let (_, arrivals) = running.stop();
        assert!(
            arrivals.iter().any(|arrival| arrival.at > from),
            "nothing after the new start"
        );
        check_nothing_missing(&weir.status());
        weir.end();
    }
    let (_, p99) = measured("interface moved away to the end of weir", &ends);
    assert!(p99 < NOTICED + Duration::from_millis(700), "{ends:?}");
}

#[test]
fn a_program_that_somebody_detaches() {
    let Some(gateway) = Gateway::build(Layout::default()) else {
        return;
    };
    let mut weir = gateway.start(&bridged());
    let running = load(&gateway);
    pause(200);
    // This takes off programs that were attached without a link; ours stays.
    for how in ["xdp", "xdpdrv", "xdpgeneric"] {
        let _refused = weir_tests::gateway::command(&gateway.gw, &["ip", "link", "set", "dev", LAN, how, "off"]);
    }
    pause(600);
    assert_eq!(weir.status()["ports"][0]["faults"], serde_json::json!([]));
    let start = Instant::now();
    detach_by_force(&weir, &gateway.gw, LAN);
    let ended = weir.wait();
    let took = start.elapsed();
    let _times = measured("program detached to the end of weir", &[took]);
    assert!(took < NOTICED + Duration::from_millis(500), "{took:?}");
    assert_eq!(ended.status.code(), Some(3), "{}", ended.log);
    assert!(
        ended.log.contains("the XDP program was detached from `lan`"),
        "{}",
        ended.log
    );
    // The bridge has it from then on.
    pause(300);
    let (_, arrivals) = running.stop();
    assert!(longest_gap(&arrivals, start, start + took) < Duration::from_millis(200));
    let weir = gateway.start(&bridged());
    gateway.warm();
    weir.end();
}

#[test]
fn packets_that_may_become_too_large_and_queues_that_come() {
    let layout = Layout {
        queues: 2,
        ..Layout::default()
    };
    let Some(gateway) = Gateway::build(layout) else { return };
    for (namespace, name) in [
        (&gateway.site, HOST),
        (&gateway.wan, HOST),
        (&gateway.gw, LAN),
        (&gateway.gw, UPLINK),
    ] {
        let _set = succeed(namespace, &["ethtool", "-L", name, "rx", "1", "tx", "1"]);
    }
    let weir = gateway.start(&bridged());
    let running = load(&gateway);
    let set_mtu = |mtu: &str| succeed(&gateway.gw, &["ip", "link", "set", "dev", UPLINK, "mtu", mtu]);
    let set_queues = |queues: &str| succeed(&gateway.gw, &["ethtool", "-L", LAN, "rx", queues, "tx", "1"]);
    let mut noticed = Vec::new();
    let mut check = |fault: &str, event: &str, make: &dyn Fn() -> String, mend: &dyn Fn() -> String| {
        let _made = make();
        noticed.push(reasons_when(&gateway, NOTICED, |reasons| reasons == [fault]));
        assert!(alarms(&weir.status()).contains(&fault));
        let _mended = mend();
        noticed.push(reasons_when(&gateway, NOTICED, <[String]>::is_empty));
        let both = [event, "port_mended"].map(str::to_owned);
        assert!(events(&gateway).ends_with(&both), "{:?}", events(&gateway));
    };
    check("mtu_too_large", "mtu_too_large", &|| set_mtu("3000"), &|| {
        set_mtu("1500")
    });
    check("queues_changed", "queues_changed", &|| set_queues("2"), &|| {
        set_queues("1")
    });
    // One that fits is nobody's fault.
    let _smaller = set_mtu("1400");
    pause(400);
    assert_eq!(events(&gateway).last().map(String::as_str), Some("port_mended"));
    let _back = set_mtu("1500");
    let _times = measured("MTU or queues changed to readyz", &noticed);
    let (sent, arrivals) = running.stop();
    let status = weir.status();
    let score = Score::of(sent, &arrivals);
    assert!(
        u64::from(score.lost()) <= gateway.lost_elsewhere(&status),
        "{score:?}: {}",
        weir.account()
    );
    check_nothing_missing(&status);
    weir.end();
}

#[test]
fn a_worker_that_stands_still_is_gone_around() {
    let Some(gateway) = Gateway::build(Layout::default()) else {
        return;
    };
    let config = Config {
        poll: "busy",
        ..bridged()
    };
    let weir = gateway.start(&config);
    let running = load(&gateway);
    pause(300);
    let mut stops = Vec::new();
    for round in 0..rounds(10, 200) {
        let held = Held::hold(&weir);
        let since = held.since;
        if round == 0 {
            let noticed = reasons_when(&gateway, 2 * NOTICED, |reasons| reasons == ["worker_stale"]);
            let _times = measured("worker stopped to readyz", &[noticed]);
            let said = weir.status_when(|status| alarms(status).contains(&"worker_stalled"));
            check_nothing_missing(&said);
        } else {
            pause(150);
        }
        drop(held);
        stops.push((since, Instant::now()));
        pause(100);
    }
    let _times = reasons_when(&gateway, NOTICED, <[String]>::is_empty);
    let before = ledger_sum(&weir.status(), &["forwarded", "packets"]);
    pause(200);
    let after = weir.status();
    assert!(ledger_sum(&after, &["forwarded", "packets"]) > before + u64::from(LOAD_IN_200_MS) / 2);
    assert!(ledger_sum(&after, &["kernel", "packets"]) > 0, "{after:#}");
    let (_, arrivals) = running.stop();
    let gaps: Vec<Duration> = stops
        .iter()
        .map(|&(since, until)| longest_gap(&arrivals, since, until))
        .collect();
    let (median, p99) = measured("busy worker stopped: longest gap", &gaps);
    let quiet: Vec<_> = stops.iter().map(|&(_, on)| (on + 50 * MS, on + 100 * MS)).collect();
    assert!(
        median <= 35 * MS && p99 <= 50 * MS + noise(&arrivals, &quiet),
        "{gaps:?}"
    );
    assert!(weir.log().contains("worker 0 makes no turns"), "{}", weir.log());
    check_nothing_missing(&weir.status());
    weir.end();
}

const LOAD_IN_200_MS: u32 = weir_tests::gateway::faults::LOAD / 5;

#[test]
fn killed_again_and_again_the_bridge_carries_on() {
    let Some(gateway) = Gateway::build(Layout::default()) else {
        return;
    };
    // Until the kernel has taken the process apart its program goes on, and lets packets pass when the worker is stale: that
    // bounds the outage, however long the taking apart.
    let config = Config {
        poll: "busy",
        ..bridged()
    };
    let mut weir = gateway.start(&config);
    let running = load(&gateway);
    let (mut kills, mut starts) = (Vec::new(), Vec::new());
    for _ in 0..rounds(5, 1000) {
        pause(100);
        kills.push(Instant::now());
        weir.signal(Signal::SIGKILL);
        let _ended = weir.wait();
        let link = succeed(&gateway.gw, &["ip", "-d", "link", "show", "dev", LAN]);
        assert!(!link.contains("xdp"), "the program stays: {link}");
        pause(100);
        let start = Instant::now();
        weir = gateway.start(&config);
        starts.push((start, Instant::now()));
    }
    pause(100);
    let (sent, arrivals) = running.stop();
    let outages: Vec<Duration> = kills
        .iter()
        .zip(&starts)
        .map(|(&at, &(next, _))| longest_gap(&arrivals, at, next))
        .collect();
    let (_, p99) = measured("kill -9: longest gap", &outages);
    let quiet: Vec<_> = kills.iter().map(|&at| (at - 80 * MS, at)).collect();
    assert!(p99 <= 50 * MS + noise(&arrivals, &quiet), "{outages:?}");
    let begun: Vec<Duration> = starts.iter().map(|(start, running)| *running - *start).collect();
    let _times = measured("start until all workers run", &begun);
    let taken: Vec<Duration> = starts
        .iter()
        .map(|&(start, running)| longest_gap(&arrivals, start, running + Duration::from_millis(50)))
        .collect();
    let _times = measured("start over the bridge: longest gap", &taken);
    let score = Score::of(sent, &arrivals);
    assert_eq!(score.duplicates, 0, "{score:?}");
    check_nothing_missing(&weir.status());
    weir.end();
}

/// Waits until all four ends are up and have a carrier, or one of the gateway has not. The kernel itself takes up to a second
/// to tell: it lets changes of carriers wait for each other (net/core/link_watch.c).
fn wait_for_links(gateway: &Gateway, up: bool) {
    let ends = [
        (&gateway.gw, LAN),
        (&gateway.gw, UPLINK),
        (&gateway.site, HOST),
        (&gateway.wan, HOST),
    ];
    let has_carrier = |&(namespace, name): &(&Namespace, &str)| {
        let carrier = namespace.run(|| af_xdp::device::has_carrier(name)).unwrap();
        carrier.unwrap()
    };
    let deadline = Instant::now() + 3 * NOTICED;
    while if up {
        !ends.iter().all(has_carrier)
    } else {
        ends[..2].iter().all(has_carrier)
    } {
        assert!(Instant::now() < deadline, "the links do not change");
        pause(1);
    }
}

/// A process that a namespace is named by, for `ip link set netns`.
struct Anchor(Child);

impl Anchor {
    fn new(namespace: &Namespace) -> Self {
        Self(namespace.spawn(Command::new("sleep").arg("600")).unwrap())
    }
}

impl Drop for Anchor {
    fn drop(&mut self) {
        let _killed = self.0.kill();
        let _reaped = self.0.wait();
    }
}

/// Moves an interface, which comes back down.
fn move_to(from: &Namespace, interface: &str, to: &Anchor) {
    let id = to.0.id().to_string();
    let _moved = succeed(from, &["ip", "link", "set", "dev", interface, "netns", &id]);
}

/// What `bpftool link detach` does, to weir's own link of this interface.
fn detach_by_force(weir: &Weir, gw: &Namespace, interface: &str) {
    let index = gw
        .run(|| af_xdp::device::index(interface))
        .unwrap()
        .unwrap()
        .to_string();
    let value = |text: &str, key: &str| {
        let found = text.lines().find_map(|line| line.strip_prefix(key));
        found.map(|value| value.trim().to_owned())
    };
    let files = std::fs::read_dir(format!("/proc/{}/fdinfo", weir.id())).unwrap();
    let texts = files.filter_map(|file| std::fs::read_to_string(file.ok()?.path()).ok());
    let mut links = texts.filter(|text| value(text, "ifindex:") == Some(index.clone()));
    let id = links.find_map(|text| value(&text, "link_id:")).expect("a link to it");
    // BPF_LINK_GET_FD_BY_ID is 30, BPF_LINK_DETACH 34.
    let script = format!(
        "import ctypes, platform, struct\n\
         number = 321 if platform.machine() == 'x86_64' else 280\n\
         call = ctypes.CDLL(None, use_errno=True).syscall\n\
         def bpf(command, value):\n\
         \x20   attributes = struct.pack('III', value, 0, 0)\n\
         \x20   result = call(number, command, attributes, len(attributes))\n\
         \x20   assert result >= 0, ctypes.get_errno()\n\
         \x20   return result\n\
         bpf(34, bpf(30, {id}))\n"
    );
    let _detached = succeed(gw, &["python3", "-c", &script]);
}

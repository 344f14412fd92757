//! How weir ends, by whatever means, and what carries on without it. Needs root.

use std::net::SocketAddr;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;
use pktgen::lab::Namespace;
use weir_tests::gateway::{
    Config, Gateway, LAN, Layout, SITE, Stream, UPLINK, WAN, Weir, contract_of, interface_state, ledger_sum, ping,
    succeed, text,
};

fn has_xdp(gw: &Namespace, interface: &str) -> bool {
    succeed(gw, &["ip", "-d", "link", "show", "dev", interface]).contains("xdp")
}

#[test]
fn signals_end_it_cleanly_and_the_next_starts_at_once() {
    let Some(gateway) = Gateway::build(Layout::default()) else {
        return;
    };
    for signal in [Signal::SIGTERM, Signal::SIGINT, Signal::SIGTERM] {
        let weir = gateway.start(&Config::default());
        assert!(has_xdp(&gateway.gw, LAN) && has_xdp(&gateway.gw, UPLINK));
        gateway.warm();
        weir.stop_by(signal);
        assert!(!has_xdp(&gateway.gw, LAN) && !has_xdp(&gateway.gw, UPLINK));
    }
}

#[test]
fn it_ends_cleanly_under_load() {
    let Some(gateway) = Gateway::build(Layout::default()) else {
        return;
    };
    let weir = gateway.start(&Config::default());
    gateway.warm();
    let running = stream(2000).start(&gateway.site, &gateway.wan);
    std::thread::sleep(Duration::from_millis(300));
    weir.stop();
    let score = running.finish();
    assert!(
        score.received > 0 && (score.reordered, score.duplicates) == (0, 0),
        "{score:?}"
    );
}

/// 8 kbit/s is 1,000 bytes a second: what has been spent is not back after a restart of some seconds.
#[test]
fn a_restart_gives_no_second_burst() {
    let Some(gateway) = Gateway::build(Layout::default()) else {
        return;
    };
    let level = |weir: &Weir| {
        contract_of(&weir.status(), "web")["tokens"]["committed"]
            .as_u64()
            .unwrap()
    };
    let config = Config::web("8 kbit/s");
    let weir = gateway.start(&config);
    gateway.warm();
    assert!(level(&weir) > 90_000, "nothing has been spent");
    let _spent = stream(1000).run(&gateway.site, &gateway.wan);
    let spent = level(&weir);
    assert!(spent < 10_000, "{spent} of 100,000 bytes are left");
    let begun = Instant::now();
    weir.stop();
    let weir = gateway.start(&config);
    let resumed = level(&weir);
    let earned = 1_000 * (begun.elapsed().as_secs() + 1);
    assert!(resumed <= spent + earned, "{spent} bytes were left, {resumed} are");

    // Whoever is killed leaves nothing, and the next one begins full.
    let mut weir = weir;
    weir.signal(Signal::SIGKILL);
    let _ended = weir.wait();
    let weir = gateway.start(&config);
    assert_eq!(level(&weir), 100_000);
}

#[test]
fn killed_it_leaves_nothing_and_the_next_starts_at_once() {
    let Some(gateway) = Gateway::build(Layout::default()) else {
        return;
    };
    let found = [LAN, UPLINK].map(|name| interface_state(&gateway.gw, name));
    for _ in 0..3 {
        let mut weir = gateway.start(&Config::default());
        gateway.warm();
        weir.signal(Signal::SIGKILL);
        let _ended = weir.wait();
        assert!(
            !has_xdp(&gateway.gw, LAN) && !has_xdp(&gateway.gw, UPLINK),
            "the program is still attached"
        );
    }
    let after = [LAN, UPLINK].map(|name| interface_state(&gateway.gw, name));
    for (found, after) in found.iter().zip(&after) {
        let promiscuity = |state: &str| state.split(',').next().map(str::to_owned);
        assert_eq!(promiscuity(found), promiscuity(after));
    }
    let weir = gateway.start(&Config::default());
    gateway.warm();
    weir.stop();
}

#[test]
fn packets_go_through_weir_and_not_through_the_bridge_too() {
    let Some(gateway) = Gateway::build(Layout::default()) else {
        return;
    };
    let weir = gateway.start(&bridged("open"));
    gateway.warm();
    let score = stream(1000).run(&gateway.site, &gateway.wan);
    let status = weir.status();
    assert!(
        u64::from(score.lost()) <= gateway.lost_elsewhere(&status),
        "{score:?}: {}",
        weir.account()
    );
    assert_eq!(score.duplicates, 0, "{score:?}");
    // A worker that lost its core for a quarter of a second is gone around; it is back after that.
    let [forwarded, kernel] = ["forwarded", "kernel"].map(|term| ledger_sum(&status, &[term, "packets"]));
    assert!(
        forwarded + kernel + u64::from(score.lost()) >= 1000 && forwarded > 500,
        "{status:#}"
    );
}

#[test]
fn the_bridge_carries_on_when_weir_is_killed() {
    let Some(gateway) = Gateway::build(Layout::default()) else {
        return;
    };
    let mut weir = gateway.start(&bridged("open"));
    gateway.warm();
    let pings = start_ping(&gateway.site, 30);
    std::thread::sleep(Duration::from_secs(1));
    weir.signal(Signal::SIGKILL);
    let _ended = weir.wait();
    let said = finish(pings);
    // One may be under way at that moment.
    assert!(said.contains("30 received") || said.contains("29 received"), "{said}");
    assert!(!said.contains("DUP!"), "{said}");

    // And the next weir takes over from the bridge.
    let weir = gateway.start(&bridged("open"));
    let before = ledger_sum(&weir.status(), &["forwarded", "packets"]);
    assert!(text(&ping(&gateway.site, WAN, 3)).contains("3 received"));
    let _counted = weir.status_when(|status| ledger_sum(status, &["forwarded", "packets"]) >= before + 6);
}

#[test]
fn a_hung_worker_is_gone_around_when_failing_open() {
    let Some(gateway) = Gateway::build(Layout::default()) else {
        return;
    };
    let weir = gateway.start(&bridged("open"));
    gateway.warm();
    weir.signal(Signal::SIGSTOP);
    // The heartbeat is stale after 250 ms.
    std::thread::sleep(Duration::from_millis(400));
    let said = text(&ping(&gateway.site, WAN, 5));
    assert!(said.contains("5 received") && !said.contains("DUP!"), "{said}");
    weir.signal(Signal::SIGCONT);
    std::thread::sleep(Duration::from_millis(100));
    let status = weir.status();
    let kernel = ledger_sum(&status, &["kernel", "packets"]);
    assert!(kernel >= 10, "five pings and their answers: {status:#}");
    assert!(text(&ping(&gateway.site, WAN, 3)).contains("3 received"));
    let after = weir.status();
    assert_eq!(
        ledger_sum(&after, &["kernel", "packets"]),
        kernel,
        "weir has taken over again"
    );
    for ledger in after["ledger"].as_array().unwrap() {
        assert_eq!(ledger["unaccounted"], 0, "{ledger}");
    }
}

#[test]
fn a_hung_worker_stops_the_traffic_when_failing_closed() {
    let Some(gateway) = Gateway::build(Layout::default()) else {
        return;
    };
    let weir = gateway.start(&bridged("closed"));
    gateway.warm();
    weir.signal(Signal::SIGSTOP);
    std::thread::sleep(Duration::from_millis(400));
    let said = text(&ping(&gateway.site, WAN, 3));
    assert!(said.contains("0 received"), "{said}");
    weir.signal(Signal::SIGCONT);
    std::thread::sleep(Duration::from_millis(100));
    assert!(text(&ping(&gateway.site, WAN, 3)).contains("3 received"));
    let status = weir.status();
    assert!(
        ledger_sum(&status, &["dropped", "stalled", "packets"]) >= 3,
        "{status:#}"
    );
    assert_eq!(ledger_sum(&status, &["kernel", "packets"]), 0, "{status:#}");
}

fn bridged(fail: &'static str) -> Config {
    Config {
        fail,
        bridge: "weirbr0",
        ..Config::default()
    }
}

fn stream(packets: u32) -> Stream {
    Stream {
        from: SocketAddr::new(SITE.parse().unwrap(), 0),
        to: SocketAddr::new(WAN.parse().unwrap(), 7000),
        packets,
        per_second: 2000,
        payload: 200,
        tos: 0,
    }
}

/// Ten pings a second.
fn start_ping(from: &Namespace, count: u32) -> Child {
    let mut command = Command::new("ping");
    let count = count.to_string();
    command
        .args(["-n", "-c", &count, "-i", "0.1", "-W", "1", WAN])
        .stdout(Stdio::piped());
    from.spawn(&mut command).expect("ping starts")
}

fn finish(pings: Child) -> String {
    text(&pings.wait_with_output().expect("ping ends"))
}

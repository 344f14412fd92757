//! What an operator sees while a port is congested: standing queues of excess, none of what conforms, pages that agree with the
//! status, alarms, and a trial that goes back because conforming packets wait. Needs root.

use std::time::Duration;

use serde_json::Value;
use weir_tests::gateway::{Config, Gateway, Layout, Weir, contract, contract_of, text};

/// 228 bytes a packet, 14.6 Mbit/s: above the contract, and above the port.
fn congested(contract_rate: &str, port_rate: &'static str) -> Config {
    Config {
        wan_rate: port_rate,
        contracts: contract(
            "web",
            "\"10.0.0.0/24\"",
            "best-effort",
            "egress",
            contract_rate,
            "20 kB",
        ),
        ..Config::default()
    }
}

fn run(weir: &Weir, arguments: &[&str], status: i32) -> String {
    let output = weir.ask(arguments);
    assert_eq!(output.status.code(), Some(status), "{arguments:?}: {}", text(&output));
    text(&output)
}

fn show(weir: &Weir, kind: &str, name: &str) -> Value {
    let output = weir.ask(&["show", kind, name, "--json"]);
    assert!(output.status.success(), "{}", text(&output));
    let shown: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(
        (&shown["kind"], shown["pages"].as_array().unwrap().len()),
        (&kind.into(), 1)
    );
    shown["pages"][0].clone()
}

fn ring<'a>(port: &'a Value, half: &str) -> &'a Value {
    let rings = port["rings"].as_array().unwrap();
    let found = rings
        .iter()
        .find(|ring| ring["class"] == "best-effort" && ring["half"] == half);
    found.unwrap_or_else(|| panic!("no {half} ring in {port:#}"))
}

fn alarm<'a>(status: &'a Value, name: &str) -> Option<&'a Value> {
    status["alarms"].as_array()?.iter().find(|alarm| alarm["name"] == name)
}

fn narrow(text: &str) {
    assert!(text.lines().all(|line| line.chars().count() <= 100), "{text}");
}

#[test]
fn excess_waits_and_what_conforms_does_not() {
    let Some(gateway) = Gateway::build(Layout::default()) else {
        return;
    };
    let weir = gateway.start(&congested("500 kbit/s", "8 Mbit/s"));
    gateway.warm();
    let running = gateway.traffic(8000, 6);
    // Under congestion, with at least two readings of every counter.
    let status = weir.status_when_within(Duration::from_secs(5), |status| {
        let excess = ring(&status["ports"][1], "nonconforming");
        let second = &contract_of(status, "web")["rates"]["last_second"];
        excess["sojourn_us"]["packets"].as_u64() > Some(3_000) && second["offered_bps"].as_u64() > Some(4_000_000)
    });
    let port = &status["ports"][1];
    let [excess, conforming] = ["nonconforming", "conforming"].map(|half| ring(port, half).clone());
    assert!(
        excess["held"].as_u64() > Some(50) && excess["high_watermark"].as_u64() > Some(200),
        "{excess}"
    );
    let us = |ring: &Value, part: &str| ring["sojourn_us"][part].as_f64().unwrap();
    assert!(us(&excess, "p50") > 20_000.0, "{excess}");
    // A machine with other work takes the worker's core away for a while, and then everybody waits: what conforms is held
    // against the excess, not against the clock.
    assert!(
        us(&conforming, "p50") * 4.0 < us(&excess, "p50"),
        "{conforming} {excess}"
    );
    for part in [("p50", "p90"), ("p90", "p99"), ("p99", "p99.9"), ("p99.9", "max")] {
        assert!(us(&excess, part.0) <= us(&excess, part.1), "{excess}");
    }
    let second = &contract_of(&status, "web")["rates"]["last_second"];
    let rate = |name: &str| second[name].as_f64().unwrap();
    assert!((0.1e6..0.7e6).contains(&rate("conforming_bps")), "{second}");
    assert!(
        (rate("offered_bps") - rate("conforming_bps") - rate("nonconforming_bps")).abs() <= 2.0,
        "{second}"
    );
    assert!(
        rate("dropped_bps") > 1e6 && rate("conforming_dropped_bps") == 0.0,
        "{second}"
    );
    assert!(running.is_sending(), "all of this was to be seen under load");
    let _score = running.finish();

    // At rest every page says what the status says.
    let status = weir.status_when_within(Duration::from_secs(5), |status| {
        let second = &contract_of(status, "web")["rates"]["last_second"];
        second["offered_bps"] == 0 && ring(&status["ports"][1], "nonconforming")["held"] == 0
    });
    let page = show(&weir, "contract", "web/best-effort/egress");
    let of = contract_of(&status, "web");
    for field in [
        "offered",
        "conforming",
        "nonconforming",
        "remarked",
        "dropped",
        "conforming_dropped",
        "rate_bps",
        "active",
    ] {
        assert_eq!(page[field], of[field], "{field}");
    }
    assert_eq!(page["agreed"]["burst_bytes"], 20_000);
    let file = page["agreed"]["file"].as_str().unwrap();
    assert!(
        file.ends_with("contracts.d/test.toml") && page["agreed"]["line"] == 4,
        "{page:#}"
    );
    assert_eq!(
        show(&weir, "contract", "web")["name"],
        page["name"],
        "a service's name is enough"
    );
    let service = show(&weir, "service", "web");
    assert_eq!(service["contracts"][0]["offered"], of["offered"]);
    let port = show(&weir, "port", "uplink");
    for field in ["high_watermark", "sojourn_since_start_us", "held"] {
        let of = ring(&status["ports"][1], "nonconforming");
        assert_eq!(ring(&port, "nonconforming")[field], of[field], "{field}");
    }
    // The kernel goes on counting how often it found nothing to send; what it lost stands still.
    for field in ["rx_dropped", "rx_ring_full", "tx_invalid_descs"] {
        let of = |port: &Value| port["queues"][0]["xdp_statistics"][field].as_u64();
        assert_eq!(of(&port), of(&status["ports"][1]), "{field}");
        assert!(of(&port).is_some(), "{port:#}");
    }
    let class = show(&weir, "class", "best-effort");
    assert_eq!(
        (&class["contracts"], &class["entitled_bps"]["egress"]),
        (&1.into(), &500_000.into())
    );
    assert_eq!(
        class["rings"]["uplink"][1]["high_watermark"],
        ring(&port, "nonconforming")["high_watermark"]
    );
    let worker = show(&weir, "worker", "0");
    assert_eq!((&worker["state"], &worker["stalled"]), (&"run".into(), &false.into()));
    assert!(worker["turns_per_second"].as_u64() > Some(0), "{worker}");
    let forwarded = |status: &Value| status["ledger"][0]["forwarded"].clone();
    assert_eq!(show(&weir, "port", "lan")["ledger"][0]["forwarded"], forwarded(&status));

    // For people: no wider than a terminal, and a name that is not there is answered with one that is.
    for kind in ["contract", "service", "class", "port", "worker"] {
        narrow(&run(&weir, &["show", kind], 0));
    }
    narrow(&run(&weir, &["status"], 0));
    for (kind, name, part) in [
        ("contract", "web", "written"),
        ("service", "web", "endpoints 10.0.0.0/24"),
        ("class", "gold", "priority 1"),
        ("port", "uplink", "rate      8 Mbit/s"),
        ("worker", "0", "frames"),
    ] {
        let page = run(&weir, &["show", kind, name], 0);
        assert!(page.contains(part), "no {part:?} in {page}");
        narrow(&page);
    }
    assert!(run(&weir, &["show", "contract", "wbe"], 1).contains("did you mean `web`?"));
    assert!(run(&weir, &["show", "port", "uplnk"], 1).contains("did you mean `uplink`?"));
    assert!(run(&weir, &["show", "worker", "7"], 1).contains("there is no worker `7`"));
    let _usage = run(&weir, &["show", "weather"], 2);
    weir.stop();
}

#[test]
fn a_trial_that_makes_conforming_packets_wait_goes_back() {
    let Some(gateway) = Gateway::build(Layout::default()) else {
        return;
    };
    let weir = gateway.start(&congested("20 Mbit/s", ""));
    gateway.warm();
    let running = gateway.traffic(8000, 12);
    // All of the 14.6 Mbit/s conforms, and a port of 5 Mbit/s makes it wait before it loses any. Loss is not to matter here.
    gateway.write(&congested("20 Mbit/s", "5 Mbit/s"));
    let applied = ["apply", "--confirm", "1h", "--max-loss", "100", "--max-latency", "20ms"];
    run(&weir, &applied, 0);
    assert_eq!(weir.status()["trial"]["max_latency_us"], 20_000);
    let status = weir.status_when_within(Duration::from_secs(8), |status| status["trial"] == Value::Null);
    assert!(running.is_sending(), "it took too long");
    assert_eq!(status["ports"][1]["rate_bps"], Value::Null, "{status:#}");
    // Long notes are wrapped.
    let history = run(&weir, &["history"], 0);
    let history = history.split_whitespace().collect::<Vec<_>>().join(" ");
    let reason = "one conforming packet of best-effort in a hundred waited";
    assert!(
        history.contains(reason) && history.contains("for port uplink (the limit is 20 ms)"),
        "{history}"
    );
    // What was lost meanwhile conformed: it is counted as such, and an alarm for a minute.
    let of = contract_of(&status, "web");
    let lost = of["conforming_dropped"]["packets"].as_u64().unwrap();
    let dropped: u64 = of["dropped"]
        .as_object()
        .unwrap()
        .values()
        .map(|count| count["packets"].as_u64().unwrap())
        .sum();
    // A sender that was late and catches up is above its contract for a moment: at most so many of the dropped were excess.
    let excess = of["nonconforming"]["packets"].as_u64().unwrap();
    assert!(lost > 0 && lost <= dropped && dropped <= lost + excess, "{of}");
    let status = weir.status_when_within(Duration::from_secs(3), |status| {
        alarm(status, "conforming_dropped").is_some()
    });
    let raised = alarm(&status, "conforming_dropped").unwrap();
    assert_eq!(raised["where"], "web/best-effort/egress");
    assert!(
        raised["figures"]["last_minute_packets"].as_f64() > Some(0.0),
        "{raised}"
    );
    let text = run(&weir, &["status"], 0);
    assert!(
        text.contains("ALARM conforming_dropped: web/best-effort/egress"),
        "{text}"
    );
    narrow(&text);
    let _score = running.finish();
    weir.stop();
}

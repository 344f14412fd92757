//! Reloading under load: no packet lost, none reordered, and a bad file changes nothing. Needs root.

use std::time::Duration;

use nix::sys::signal::Signal;
use serde_json::Value;
use weir_tests::gateway::{Config, Gateway, Layout, Stream, contract_of, ledger_sum, text};

const RELOADS: u64 = 20;

#[test]
fn reloads_under_load_lose_and_reorder_nothing() {
    let Some(gateway) = Gateway::build(Layout::default()) else {
        return;
    };
    let weir = gateway.start(&Config::web("10 Mbit/s"));
    gateway.warm();
    let running = Stream::to_wan(8000, 4).start(&gateway.site, &gateway.wan);
    let mut last = weir.status();
    let first = last["generation"].as_u64().unwrap();
    for number in 1..=RELOADS {
        gateway.write(&Config::web(if number % 2 == 0 { "10 Mbit/s" } else { "12 Mbit/s" }));
        if number % 2 == 0 {
            let output = weir.ask(&["reload"]);
            assert_eq!(output.status.code(), Some(0), "{}", text(&output));
            assert!(text(&output).contains(&format!("table {} is live", first + number)));
        } else {
            weir.signal(Signal::SIGHUP);
        }
        let status = weir.status_when(|status| status["generation"] == first + number);
        let runs = |worker: &Value| worker["generation"] == first + number;
        assert!(status["workers"].as_array().unwrap().iter().all(runs), "{status:#}");
        check_never_back(&last, &status);
        last = status;
    }
    assert!(running.is_sending(), "the reloads were to happen under load");
    gateway.check_nothing_lost(&running.finish(), &weir);
    let status = weir.stop();
    let elsewhere = gateway.lost_elsewhere(&status);
    assert!(contract_of(&status, "web")["offered"]["packets"].as_u64() >= Some(32_000 - elsewhere));
}

fn check_never_back(before: &Value, after: &Value) {
    for counter in ["offered", "conforming", "nonconforming", "remarked"] {
        let [before, after] = [before, after].map(|status| contract_of(status, "web")[counter]["packets"].as_u64());
        assert!(before <= after, "{counter} went from {before:?} to {after:?}");
    }
    for term in ["received", "forwarded"] {
        let [before, after] = [before, after].map(|status| ledger_sum(status, &[term, "packets"]));
        assert!(before <= after, "{term} went from {before} to {after}");
    }
}

#[test]
fn a_bad_file_is_refused_with_its_place_and_changes_nothing() {
    let Some(gateway) = Gateway::build(Layout::default()) else {
        return;
    };
    let weir = gateway.start(&Config::web("10 Mbit/s"));
    gateway.warm();
    let running = Stream::to_wan(8000, 2).start(&gateway.site, &gateway.wan);
    gateway.write(&Config::web("10 parsecs"));
    let output = weir.ask(&["reload"]);
    assert_eq!(output.status.code(), Some(2), "{}", text(&output));
    assert!(
        text(&output).contains("test.toml:9:"),
        "file, line and column: {}",
        text(&output)
    );
    assert!(text(&output).contains("10 parsecs"), "{}", text(&output));
    let status = weir.status();
    assert_eq!(status["generation"], 1);
    assert!(
        status["last_reload_error"]
            .as_str()
            .is_some_and(|error| error.contains("10 parsecs"))
    );
    assert_eq!(contract_of(&status, "web")["rate_bps"], 10_000_000);

    weir.signal(Signal::SIGHUP);
    std::thread::sleep(Duration::from_millis(200));
    assert_eq!(weir.status()["generation"], 1);

    // What only a restart can change is refused too, by name.
    let with_other_ports = Config {
        fail: "closed",
        ..Config::web("10 Mbit/s")
    };
    gateway.write(&with_other_ports);
    let output = weir.ask(&["reload"]);
    assert_eq!(output.status.code(), Some(2));
    assert!(
        text(&output).contains("`fail`") && text(&output).contains("restart"),
        "{}",
        text(&output)
    );

    gateway.write(&Config::web("11 Mbit/s"));
    assert_eq!(weir.ask(&["reload"]).status.code(), Some(0));
    let status = weir.status();
    assert_eq!(
        (status["generation"].as_u64(), &status["last_reload_error"]),
        (Some(2), &Value::Null)
    );
    gateway.check_nothing_lost(&running.finish(), &weir);
    weir.stop();
}

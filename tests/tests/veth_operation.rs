//! Daily operation: plan, apply, confirm, go back, and what the history keeps, while traffic flows. Needs root.

use std::process::Output;
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;
use serde_json::Value;
use weir_tests::gateway::{Config, Gateway, Layout, Weir, contract_of, text};

/// Runs a command that must end with this status; gives what it said.
fn run(weir: &Weir, arguments: &[&str], status: i32) -> String {
    let output = weir.ask(arguments);
    assert_eq!(output.status.code(), Some(status), "{arguments:?}: {}", text(&output));
    text(&output)
}

fn json(output: &Output) -> Value {
    serde_json::from_slice(&output.stdout).unwrap_or_else(|error| panic!("{error}: {}", text(output)))
}

fn rate(weir: &Weir) -> u64 {
    contract_of(&weir.status(), "web")["rate_bps"].as_u64().unwrap()
}

fn versions(weir: &Weir) -> Vec<String> {
    let history = json(&weir.ask(&["history", "--json"]));
    let versions = history["versions"].as_array().unwrap().iter();
    versions
        .map(|version| format!("{} {}", version["number"], version["how"].as_str().unwrap()))
        .collect()
}

#[test]
fn plan_apply_confirm_and_back_under_load() {
    let Some(gateway) = Gateway::build(Layout::default()) else {
        return;
    };
    let mut weir = gateway.start(&Config::web("10 Mbit/s"));
    gateway.warm();
    let running = gateway.traffic(8000, 12);
    assert!(run(&weir, &["plan"], 0).contains("Plan: no change."));

    // Plan shows the change in words; live traffic is judged by both.
    std::thread::sleep(Duration::from_millis(2_500));
    gateway.write(&Config::web("20 Mbit/s"));
    let plan = run(&weir, &["plan"], 3);
    for part in [
        "~ contract web best-effort egress",
        "rate 10 Mbit/s -> 20 Mbit/s (+100 %)",
        "Plan: contracts ~1.",
        "AS PLANNED",
    ] {
        assert!(plan.contains(part), "no {part:?} in {plan}");
    }
    assert!(plan.lines().all(|line| line.chars().count() <= 100), "{plan}");
    let report = json(&weir.ask(&["plan", "--json"]));
    assert_eq!(report["changes"][0]["after"]["rate_bps"], 20_000_000);
    let judged = &report["judged"][0];
    // 14.6 Mbit/s against 10: about a third, less what the bucket held; against 20: nothing.
    let before = judged["nonconforming_before"].as_f64().unwrap();
    assert!((0.1..0.45).contains(&before), "{judged}");
    assert_eq!(judged["nonconforming_after"], 0.0, "{judged}");
    assert_eq!(rate(&weir), 10_000_000, "plan changes nothing");

    // On trial, and back by itself.
    let applied = run(&weir, &["apply", "--confirm", "3s", "--note", "more room"], 0);
    assert!(
        applied.contains("version 2") && applied.contains("on trial"),
        "{applied}"
    );
    assert_eq!(rate(&weir), 20_000_000);
    let refused = run(&weir, &["apply"], 1);
    assert!(refused.contains("on trial"), "{refused}");
    let start = Instant::now();
    while rate(&weir) != 10_000_000 {
        assert!(start.elapsed() < Duration::from_secs(6), "{}", weir.log());
        std::thread::sleep(Duration::from_millis(100));
    }
    assert!(
        start.elapsed() > Duration::from_secs(2),
        "back too early: {:?}",
        start.elapsed()
    );
    let status = weir.status();
    assert_eq!(
        (&status["trial"], &status["disk"]["differs"]),
        (&Value::Null, &Value::Bool(true))
    );
    assert!(
        run(&weir, &["status"], 0).contains("disk: "),
        "it is said that the disk has the other text"
    );

    // Again, and confirmed in time: it stays.
    run(&weir, &["apply", "--confirm", "2s"], 0);
    run(&weir, &["confirm"], 0);
    run(&weir, &["confirm"], 1);
    std::thread::sleep(Duration::from_millis(2_500));
    assert_eq!(rate(&weir), 20_000_000);

    // Back by hand, and what the disk has is said.
    let back = run(&weir, &["rollback"], 0);
    assert!(back.contains("still have the other text"), "{back}");
    assert_eq!(rate(&weir), 10_000_000);
    assert_eq!(run(&weir, &["plan"], 3).matches("10 Mbit/s -> 20 Mbit/s").count(), 1);
    let expected = ["1 start", "2 apply", "3 revert", "4 apply", "5 rollback"];
    assert_eq!(versions(&weir), expected);
    assert!(running.is_sending(), "all of this was to happen under load");
    gateway.check_nothing_lost(&running.finish(), &weir);

    // After a restart the disk counts, and the history is still there.
    weir.stop();
    weir = gateway.start(&Config::web("20 Mbit/s"));
    assert_eq!(rate(&weir), 20_000_000);
    assert!(
        weir.log().contains("other than what was applied last"),
        "{}",
        weir.log()
    );
    assert_eq!(versions(&weir).len(), 6);
    run(&weir, &["rollback", "1"], 0);
    assert_eq!(rate(&weir), 10_000_000);
    assert!(run(&weir, &["rollback", "77"], 1).contains("no version 77"));
    assert!(run(&weir, &["history"], 0).contains("more room"));
    assert!(run(&weir, &["history", "2"], 0).contains("10 Mbit/s -> 20 Mbit/s"));
    // A reload takes the disk again, and says what that undoes.
    assert!(run(&weir, &["reload"], 0).contains("this undoes version 7"));
    weir.stop();
}

#[test]
fn a_bad_file_changes_nothing() {
    let Some(gateway) = Gateway::build(Layout::default()) else {
        return;
    };
    let weir = gateway.start(&Config::web("10 Mbit/s"));
    gateway.warm();
    let running = gateway.traffic(8000, 6);
    gateway.write(&Config::web("10 parsecs"));
    assert!(run(&weir, &["plan"], 2).contains("test.toml:9:"));
    assert!(run(&weir, &["apply"], 2).contains("apply refused: nothing has changed"));
    let base = gateway.directory.path().join("other.toml");
    std::fs::copy(gateway.directory.path().join("weir.toml"), &base).unwrap();
    let other = run(&weir, &["apply", "--config", base.to_str().unwrap()], 2);
    assert!(other.contains("the appliance reads"), "{other}");
    assert!(run(&weir, &["rollback"], 1).contains("no version before"));
    let first = weir.status();
    assert_eq!(
        (&first["generation"], &first["disk"]["valid"]),
        (&1.into(), &false.into())
    );
    // Nobody asks for this one: it is noticed.
    gateway.write(&Config::web("11 parsecs"));
    weir.status_when_within(Duration::from_secs(5), |status| {
        status["disk"]["since"] != first["disk"]["since"]
    });
    assert!(weir.log().contains("have changed and are not valid"), "{}", weir.log());
    assert_eq!(versions(&weir), ["1 start"]);
    // What only a restart can change is planned, and refused.
    gateway.write(&Config {
        fail: "closed",
        ..Config::web("10 Mbit/s")
    });
    assert!(run(&weir, &["plan"], 3).contains("`fail` changes"));
    assert!(run(&weir, &["apply"], 2).contains("restart"));
    gateway.check_nothing_lost(&running.finish(), &weir);
    weir.stop();
}

#[test]
fn a_changed_file_is_applied_where_asked_for_and_a_rollback_is_not_undone() {
    let Some(gateway) = Gateway::build(Layout::default()) else {
        return;
    };
    let watching = |rate| Config {
        control: "watch = \"apply\"\n",
        ..Config::web(rate)
    };
    let weir = gateway.start(&watching("10 Mbit/s"));
    let patience = Duration::from_secs(6);
    gateway.write(&watching("10 parsecs"));
    let status = weir.status_when_within(patience, |status| status["disk"]["differs"] == true);
    assert_eq!(status["generation"], 1);
    gateway.write(&watching("12 Mbit/s"));
    weir.status_when_within(patience, |status| status["generation"] == 2);
    assert_eq!(rate(&weir), 12_000_000);
    run(&weir, &["rollback"], 0);
    // The same content once more is no reason to take it.
    gateway.write(&watching("12 Mbit/s"));
    std::thread::sleep(Duration::from_millis(3_500));
    assert_eq!(rate(&weir), 10_000_000);
    gateway.write(&watching("13 Mbit/s"));
    weir.status_when_within(patience, |status| status["generation"] == 4);
    assert_eq!(versions(&weir), ["1 start", "2 watch", "3 rollback", "4 watch"]);
    weir.stop();
}

#[test]
fn a_trial_survives_a_crash() {
    let Some(gateway) = Gateway::build(Layout::default()) else {
        return;
    };
    let mut weir = gateway.start(&Config::web("10 Mbit/s"));
    gateway.write(&Config::web("20 Mbit/s"));
    run(&weir, &["apply", "--confirm", "4s"], 0);
    weir.signal(Signal::SIGKILL);
    let _ended = weir.wait();
    drop(weir);
    weir = gateway.start(&Config::web("20 Mbit/s"));
    assert_ne!(weir.status()["trial"], Value::Null, "{}", weir.log());
    weir.status_when_within(Duration::from_secs(8), |status| status["trial"] == Value::Null);
    assert_eq!(rate(&weir), 10_000_000, "{}", weir.log());
    assert_eq!(versions(&weir), ["1 start", "2 apply", "3 revert"]);
    weir.stop();
}

#[test]
fn a_contract_ends_by_itself_also_after_a_rollback() {
    let Some(gateway) = Gateway::build(Layout::default()) else {
        return;
    };
    let now = std::time::SystemTime::now()
        .duration_since(std::time::UNIX_EPOCH)
        .unwrap();
    let mut short = Config::web("10 Mbit/s");
    // TOML has no seconds since the epoch, so `date` writes them out.
    let until = weir_tests::gateway::succeed(
        &gateway.gw,
        &[
            "date",
            "-u",
            "-d",
            &format!("@{}", now.as_secs() + 9),
            "+%Y-%m-%dT%H:%M:%SZ",
        ],
    );
    short.contracts += &format!("until = {}\n", until.trim());
    let weir = gateway.start(&short);
    gateway.write(&Config::web("20 Mbit/s"));
    run(&weir, &["apply"], 0);
    run(&weir, &["rollback"], 0);
    let active = |status: &Value| contract_of(status, "web")["active"] == true;
    assert!(active(&weir.status()), "{}", weir.log());
    weir.status_when_within(Duration::from_secs(12), |status| !active(status));
    run(&weir, &["apply"], 0);
    assert!(active(&weir.status()));
    weir.stop();
}

#[test]
fn a_trial_that_loses_conforming_packets_goes_back_at_once() {
    let Some(gateway) = Gateway::build(Layout::default()) else {
        return;
    };
    let weir = gateway.start(&Config::web("20 Mbit/s"));
    gateway.warm();
    let running = gateway.traffic(8000, 12);
    // All of the 14.6 Mbit/s conforms, and a port of 5 Mbit/s cannot carry it.
    let narrow = Config {
        wan_rate: "5 Mbit/s",
        ..Config::web("20 Mbit/s")
    };
    gateway.write(&narrow);
    run(&weir, &["apply", "--confirm", "1h", "--max-loss", "1"], 0);
    let status = weir.status_when_within(Duration::from_secs(10), |status| status["trial"] == Value::Null);
    assert!(running.is_sending(), "it took too long");
    assert_eq!(status["ports"][1]["rate_bps"], Value::Null, "{status:#}");
    let history = json(&weir.ask(&["history", "--json"]));
    let note = history["versions"][2]["note"].as_str().unwrap();
    assert!(
        note.contains("conforming packets of web best-effort egress were lost"),
        "{note}"
    );
    let _score = running.finish();
    weir.stop();
}

#[test]
fn what_cannot_be_kept_is_live_nevertheless_and_said() {
    let Some(gateway) = Gateway::build(Layout::default()) else {
        return;
    };
    let weir = gateway.start(&Config::web("10 Mbit/s"));
    gateway.warm();
    let running = gateway.traffic(8000, 4);
    let state = gateway.directory.path().join("state");
    std::fs::remove_dir_all(state.join("history")).unwrap();
    gateway.write(&Config::web("20 Mbit/s"));
    let applied = run(&weir, &["apply", "--confirm", "2s"], 0);
    assert!(
        applied.contains("is live, but could not be kept in the history"),
        "{applied}"
    );
    assert!(applied.contains("does not survive a restart"), "{applied}");
    assert_eq!(rate(&weir), 20_000_000);
    assert!(run(&weir, &["status"], 0).contains("history: "));
    // It still goes back: the text before is in memory.
    weir.status_when_within(Duration::from_secs(5), |status| status["trial"] == Value::Null);
    assert_eq!(rate(&weir), 10_000_000, "{}", weir.log());
    // When there is room again, the next version is kept.
    std::fs::create_dir(state.join("history")).unwrap();
    run(&weir, &["apply"], 0);
    assert_eq!(weir.status()["history_error"], Value::Null);
    gateway.check_nothing_lost(&running.finish(), &weir);
    weir.stop();
}

#[test]
fn who_did_it_is_remembered() {
    let Some(gateway) = Gateway::build(Layout::default()) else {
        return;
    };
    let weir = gateway.start(&Config::web("10 Mbit/s"));
    gateway.write(&Config::web("11 Mbit/s"));
    let applied = std::process::Command::new(weir_tests::weir_binary())
        .env("SUDO_USER", "alice")
        .args(["apply", "--note", "ticket 7", "--socket"])
        .arg(&weir.socket)
        .output()
        .unwrap();
    assert!(applied.status.success(), "{}", text(&applied));
    gateway.write(&Config::web("12 Mbit/s"));
    weir.signal(Signal::SIGHUP);
    weir.status_when_within(Duration::from_secs(2), |status| status["generation"] == 3);
    // The same text once more swaps, as reload always did, and is no new version.
    run(&weir, &["reload"], 0);
    assert_eq!(weir.status()["generation"], 4);
    let history = json(&weir.ask(&["history", "--json"]));
    let versions = history["versions"].as_array().unwrap();
    let authors: Vec<&str> = versions
        .iter()
        .map(|version| version["author"].as_str().unwrap())
        .collect();
    assert_eq!(authors, ["weir", "alice", "SIGHUP"]);
    assert_eq!(versions[1]["note"], "ticket 7");
    assert_eq!(versions[2]["summary"], "contracts ~1");
    weir.stop();
    // Without an appliance the history is read from where the file says it is.
    let base = gateway.directory.path().join("weir.toml");
    let without = |command: &str, status: i32| {
        let output = std::process::Command::new(weir_tests::weir_binary())
            .args([command, "--socket", "/nonexistent/weir.sock", "--config"])
            .arg(&base)
            .output()
            .unwrap();
        assert_eq!(output.status.code(), Some(status), "{}", text(&output));
        text(&output)
    };
    assert!(without("history", 0).contains("ticket 7"));
    let plan = without("plan", 0).replace('\n', " ");
    assert!(
        plan.contains("no appliance runs") && plan.contains("version 3"),
        "{plan}"
    );
    std::fs::remove_dir_all(gateway.directory.path().join("state")).unwrap();
    let fresh = without("plan", 3);
    assert!(
        fresh.contains("against nothing") && fresh.contains("+ contract web"),
        "{fresh}"
    );
    assert!(without("apply", 1).contains("no answer at"));
}

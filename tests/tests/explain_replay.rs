//! `weir explain --pcap` against `weir replay`: what is explained of a packet is what the dataplane does with it.
//!
//! Each seed gives a configuration and a capture aimed at it. Replay runs the real path; explain must give the same bytes for
//! every packet that leaves, and its verdicts must add up to the replay's counters, contract by contract.

use std::collections::BTreeMap;
use std::path::Path;
use std::process::{Command, Output};

use serde_json::Value;
use weir_tests::capture;
use weir_tests::generate::scenario;
use weir_tests::reference::model::Config;
use weir_tests::weir_binary;

const SEEDS: u64 = 24;
const PACKETS: usize = 300;

/// Service, class, direction, segment; or what stands in for a contract.
type Key = [String; 4];
/// Packets and bytes: conforming, nonconforming.
type Sums = [u64; 4];

#[test]
fn every_packet_is_explained_as_it_is_judged() {
    for seed in 0..SEEDS {
        let directory = tempfile::tempdir().expect("a temporary directory");
        compare(seed, directory.path());
    }
}

fn compare(seed: u64, directory: &Path) {
    let scenario = scenario(seed, PACKETS);
    let file = |name: &str| directory.join(name).display().to_string();
    let (config, input, output, report) = (
        file("weir.toml"),
        file("in.pcap"),
        file("out.pcap"),
        file("report.json"),
    );
    std::fs::write(&config, scenario.config.to_toml()).expect("a file");
    capture::write(Path::new(&input), &scenario.capture).expect("a capture");
    let port = Config::entry_port(scenario.direction);
    let common = ["--config", &config, "--port", port];
    weir(
        &[
            &["replay", "--in", &input, "--out", &output, "--report", &report][..],
            &common,
        ]
        .concat(),
    );
    let told = weir(
        &[
            &["explain", "--pcap", &input, "--limit", "100000", "--json"][..],
            &common,
        ]
        .concat(),
    );
    let told: Vec<Value> = serde_json::from_slice(&told.stdout).expect("JSON");
    assert_eq!(told.len(), scenario.capture.len(), "seed {seed}");

    let left = capture::read(Path::new(&output)).expect("what replay wrote");
    let mut left = left.iter();
    let mut sums: BTreeMap<Key, Sums> = BTreeMap::new();
    for told in &told {
        if let Some(hex) = told["leaves_as"].as_str() {
            let packet = left
                .next()
                .unwrap_or_else(|| panic!("seed {seed}: fewer packets left than explained"));
            let really: String = packet.bytes.iter().map(|byte| format!("{byte:02x}")).collect();
            assert_eq!(hex, really, "seed {seed}, packet {}: {told:#}", told["number"]);
        }
        let sum = sums.entry(key(told)).or_default();
        let at = if told["verdict"] == "conforming" { 0 } else { 2 };
        sum[at] += 1;
        sum[at + 1] += told["packet"]["counted_bytes"].as_u64().expect("bytes");
    }
    assert!(left.next().is_none(), "seed {seed}: more packets left than explained");

    let report = std::fs::read_to_string(&report).expect("the replay's report");
    let report: Value = serde_json::from_str(&report).expect("JSON");
    assert_eq!(sums, counted(&report), "seed {seed}");
}

fn key(told: &Value) -> Key {
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let direction = text(&told["direction"]);
    let contract = &told["contract"];
    if !told["packet"]["not_ip"].is_null() {
        ["(other)".to_owned(), String::new(), direction, String::new()]
    } else if contract.is_null() {
        [
            "(uncontracted)".to_owned(),
            text(&told["class"]),
            direction,
            String::new(),
        ]
    } else {
        assert_eq!(contract["service"], told["service"]);
        ["service", "class", "direction", "segment"].map(|name| text(&contract[name]))
    }
}

/// The same from the replay's report.
fn counted(report: &Value) -> BTreeMap<Key, Sums> {
    let mut sums = BTreeMap::new();
    for (list, stand_in) in [
        ("contracts", ""),
        ("uncontracted", "(uncontracted)"),
        ("other", "(other)"),
    ] {
        for row in report[list].as_array().expect("a list") {
            let text = |name: &str| row[name].as_str().unwrap_or_default().to_owned();
            let count = |of: &str, what: &str| row[of][what].as_u64().expect("a number");
            let sum = [
                count("conforming", "packets"),
                count("conforming", "bytes"),
                count("nonconforming", "packets"),
                count("nonconforming", "bytes"),
            ];
            let service = if stand_in.is_empty() {
                text("service")
            } else {
                stand_in.to_owned()
            };
            if sum != [0; 4] {
                sums.insert([service, text("class"), text("direction"), text("segment")], sum);
            }
        }
    }
    sums
}

fn weir(arguments: &[&str]) -> Output {
    let output = Command::new(weir_binary())
        .args(arguments)
        .output()
        .expect("weir starts");
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{arguments:?}: {}\n{said}", output.status);
    output
}

#[test]
fn captures_that_are_none_get_a_clear_error() {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let path = |name: &str| directory.path().join(name);
    std::fs::write(path("weir.toml"), scenario(1, 1).config.to_toml()).expect("a file");
    std::fs::write(path("text.pcap"), "this is no capture").expect("a file");
    capture::write(&path("cut.pcap"), &scenario(1, 20).capture).expect("a capture");
    let whole = std::fs::read(path("cut.pcap")).expect("a file");
    std::fs::write(path("cut.pcap"), &whole[..whole.len() - 7]).expect("a file");
    for (name, part) in [
        ("text.pcap", "text.pcap"),
        ("cut.pcap", "cut"),
        ("none.pcap", "No such file"),
    ] {
        let mut command = Command::new(weir_binary());
        command
            .args(["explain", "--limit", "1000", "--config"])
            .arg(path("weir.toml"));
        let output = command.arg("--pcap").arg(path(name)).output().expect("weir starts");
        let said = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(1), "{name}: {said}");
        assert!(said.contains(part) && output.stdout.is_empty(), "{name}: {said}");
    }
}

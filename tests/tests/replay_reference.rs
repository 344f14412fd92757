//! `weir replay` against the reference: every byte, every timestamp, every contract's counters.
//!
//! Each seed gives a configuration and a capture. `WEIR_REPLAY_SEEDS=N` tries the first N seeds instead of the usual ones,
//! `WEIR_REPLAY_SEED=S` only that one. A difference prints the seed and the first packet that differs, and keeps the files.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::Value;
use weir_tests::capture::{self, Packet};
use weir_tests::generate::{Scenario, scenario};
use weir_tests::reference::dissect::dissect;
use weir_tests::reference::model::Config;
use weir_tests::reference::replay::{ContractKey, Count, Counters, Outcome, replay};
use weir_tests::weir_binary;

const SEEDS: u64 = 200;
/// Enough that buckets run empty and fill again, few enough for some hundred runs of a debug build.
const PACKETS: usize = 500;
/// Differences printed before the test gives up: they mostly have one cause.
const FAILURES_MAX: usize = 5;

#[test]
fn the_binary_does_to_every_packet_what_the_reference_does() {
    let mut failures = Vec::new();
    let seeds = seeds();
    for &seed in &seeds {
        let directory = tempfile::Builder::new()
            .prefix("weir-replay-")
            .tempdir()
            .expect("a temporary directory");
        if let Err(difference) = compare(seed, directory.path()) {
            let kept = directory.keep();
            println!("seed {seed}: {difference}\n  files kept in {}\n", kept.display());
            failures.push(seed);
            if failures.len() == FAILURES_MAX {
                break;
            }
        }
    }
    assert!(
        failures.is_empty(),
        "{} seeds, these differ (more may): {failures:?}",
        seeds.len()
    );
}

#[test]
fn the_same_input_gives_the_same_output_bit_for_bit() {
    for seed in 0..5 {
        let directory = tempfile::tempdir().expect("a temporary directory");
        let scenario = scenario(seed, PACKETS);
        let read = |name: &str| {
            let files = run(&scenario, &directory.path().join(name)).expect("the replay works");
            [files.output, files.report].map(|path| std::fs::read(path).expect("the replay wrote its files"))
        };
        assert!(read("first") == read("second"), "seed {seed}: two runs differ");
    }
}

fn seeds() -> Vec<u64> {
    let number = |name: &str| {
        let text = std::env::var(name).ok()?;
        Some(text.parse().unwrap_or_else(|_| panic!("{name}={text} is not a number")))
    };
    number("WEIR_REPLAY_SEED").map_or_else(
        || (0..number("WEIR_REPLAY_SEEDS").unwrap_or(SEEDS)).collect(),
        |seed| vec![seed],
    )
}

struct Files {
    output: PathBuf,
    report: PathBuf,
}

/// Writes the scenario into `directory` and runs the binary on it.
fn run(scenario: &Scenario, directory: &Path) -> Result<Files, String> {
    std::fs::create_dir_all(directory).map_err(|error| error.to_string())?;
    let [config, input, output, report] =
        ["weir.toml", "in.pcap", "out.pcap", "report.json"].map(|name| directory.join(name));
    std::fs::write(&config, scenario.config.to_toml()).map_err(|error| error.to_string())?;
    capture::write(&input, &scenario.capture).map_err(|error| error.to_string())?;
    let mut command = Command::new(weir_binary());
    command
        .arg("replay")
        .arg("--config")
        .arg(&config)
        .arg("--in")
        .arg(&input);
    command.args(["--port", Config::entry_port(scenario.direction)]);
    command.arg("--out").arg(&output).arg("--report").arg(&report);
    let done = command
        .output()
        .map_err(|error| format!("{}: {error}", weir_binary().display()))?;
    if !done.status.success() {
        return Err(format!(
            "{command:?}: {}\n{}",
            done.status,
            String::from_utf8_lossy(&done.stderr)
        ));
    }
    Ok(Files { output, report })
}

fn compare(seed: u64, directory: &Path) -> Result<(), String> {
    let scenario = scenario(seed, PACKETS);
    let expected = replay(&scenario.config, scenario.direction, &scenario.capture);
    let files = run(&scenario, directory)?;
    compare_packets(&scenario.capture, &expected, &capture::read(&files.output)?)?;
    let report = std::fs::read_to_string(&files.report).map_err(|error| error.to_string())?;
    let report: Value = serde_json::from_str(&report).map_err(|error| format!("report: {error}"))?;
    compare_contracts(&expected, &report)?;
    compare_other_counters(&expected, &report)?;
    check_ledger(&scenario, &expected, &report)
}

/// The first packet that left and should not have, did not and should have, or left differently.
fn compare_packets(capture: &[Packet], expected: &Outcome, actual: &[Packet]) -> Result<(), String> {
    let mut left = actual.iter();
    for (index, (input, expected)) in capture.iter().zip(&expected.packets).enumerate() {
        let Some(expected) = expected else { continue };
        let actual = left.next();
        if actual != Some(expected) {
            return Err(format!(
                "packet {index} differs\n  came     {}\n  expected {}\n  actual   {}\n  read as  {:?}",
                packet_text(Some(input)),
                packet_text(Some(expected)),
                packet_text(actual),
                dissect(&input.bytes),
            ));
        }
    }
    match left.next() {
        None => Ok(()),
        more => Err(format!("one packet too many: {}", packet_text(more))),
    }
}

/// Instant, length and the headers.
fn packet_text(packet: Option<&Packet>) -> String {
    let Some(packet) = packet else {
        return "nothing".to_owned();
    };
    let shown = packet.bytes.len().min(80);
    let hex: String = packet.bytes[..shown].iter().map(|byte| format!("{byte:02x}")).collect();
    format!("{} ns, {} bytes: {hex}", packet.at_ns, packet.bytes.len())
}

fn compare_contracts(expected: &Outcome, report: &Value) -> Result<(), String> {
    let mut actual: BTreeMap<ContractKey, Counters> = BTreeMap::new();
    for entry in list(report, "contracts")? {
        let text = |key: &str| entry[key].as_str().map(str::to_owned);
        let required = |key: &str| text(key).ok_or_else(|| format!("a contract without {key}: {entry}"));
        let key = (
            required("service")?,
            required("class")?,
            required("direction")?,
            text("segment"),
        );
        let sum = actual.entry(key).or_default();
        *sum = add(*sum, counters(entry)?);
    }
    compare_maps("contract", &expected.contracts, &actual)
}

fn compare_other_counters(expected: &Outcome, report: &Value) -> Result<(), String> {
    let mut actual: BTreeMap<String, Counters> = BTreeMap::new();
    for entry in list(report, "uncontracted")? {
        let class = entry["class"]
            .as_str()
            .ok_or_else(|| format!("uncontracted without class: {entry}"))?;
        let sum = actual.entry(class.to_owned()).or_default();
        *sum = add(*sum, counters(entry)?);
    }
    compare_maps("uncontracted", &expected.uncontracted, &actual)?;
    let mut other = Count::default();
    for entry in list(report, "other")? {
        other = add_count(other, count(&entry["offered"])?);
    }
    if other == expected.other {
        return Ok(());
    }
    Err(format!("other: expected {:?}, actual {other:?}", expected.other))
}

/// Entries that saw nothing may be left out on either side.
fn compare_maps<K: Ord + std::fmt::Debug>(
    what: &str,
    expected: &BTreeMap<K, Counters>,
    actual: &BTreeMap<K, Counters>,
) -> Result<(), String> {
    for key in expected.keys().chain(actual.keys()) {
        let [expected, actual] = [expected, actual].map(|map| map.get(key).copied().unwrap_or_default());
        if expected != actual {
            return Err(format!(
                "{what} {key:?}\n  expected {expected:?}\n  actual   {actual:?}"
            ));
        }
    }
    Ok(())
}

/// "received = forwarded + delivered to the kernel + drops + held", for every line and, in packets, for the capture.
fn check_ledger(scenario: &Scenario, expected: &Outcome, report: &Value) -> Result<(), String> {
    let (mut received, mut forwarded) = (0, 0);
    for line in list(report, "ledger")? {
        let came = count(&line["received"])?;
        let mut gone = dropped(&line["dropped"])?;
        for term in ["forwarded", "kernel", "held"] {
            gone = add_count(gone, count(&line[term])?);
        }
        if came.packets != gone.packets {
            return Err(format!("the ledger does not add up: {line}"));
        }
        received += came.packets;
        forwarded += count(&line["forwarded"])?.packets;
    }
    let left = expected.packets.iter().flatten().count() as u64;
    if (received, forwarded) == (scenario.capture.len() as u64, left) {
        return Ok(());
    }
    Err(format!(
        "ledger: {received} received, {forwarded} forwarded of {}, {left}",
        scenario.capture.len()
    ))
}

fn list<'report>(report: &'report Value, key: &str) -> Result<&'report Vec<Value>, String> {
    report[key]
        .as_array()
        .ok_or_else(|| format!("the report has no list \"{key}\": {report}"))
}

fn counters(entry: &Value) -> Result<Counters, String> {
    Ok(Counters {
        offered: count(&entry["offered"])?,
        conforming: count(&entry["conforming"])?,
        nonconforming: count(&entry["nonconforming"])?,
        remarked: count(&entry["remarked"])?,
        dropped: dropped(&entry["dropped"])?,
    })
}

/// Packets and bytes; a counter left out is zero.
fn count(value: &Value) -> Result<Count, String> {
    if value.is_null() {
        return Ok(Count::default());
    }
    match (value["packets"].as_u64(), value["bytes"].as_u64()) {
        (Some(packets), Some(bytes)) => Ok(Count { packets, bytes }),
        _ => Err(format!("neither packets and bytes nor nothing: {value}")),
    }
}

/// The sum over all reasons.
fn dropped(value: &Value) -> Result<Count, String> {
    let Some(reasons) = value.as_object() else {
        return count(value);
    };
    reasons
        .values()
        .try_fold(Count::default(), |sum, reason| Ok(add_count(sum, count(reason)?)))
}

fn add_count(one: Count, other: Count) -> Count {
    Count {
        packets: one.packets + other.packets,
        bytes: one.bytes + other.bytes,
    }
}

fn add(one: Counters, other: Counters) -> Counters {
    Counters {
        offered: add_count(one.offered, other.offered),
        conforming: add_count(one.conforming, other.conforming),
        nonconforming: add_count(one.nonconforming, other.nonconforming),
        remarked: add_count(one.remarked, other.remarked),
        dropped: add_count(one.dropped, other.dropped),
    }
}

//! What `weir status` says about contracts that several workers share.

use std::fmt::Write as _;
use std::path::Path;

use control::compile::Compiler;
use control::report::TrafficReport;
use dataplane::clock::Nanos;
use jiff::Timestamp;

const BASE: &str = include_str!("../../config/examples/full/weir.toml");

/// The full example with contracts of these bursts only, reported for so many workers.
fn report(workers: usize, bursts: &[&str]) -> TrafficReport {
    let mut text = String::new();
    for (number, burst) in bursts.iter().enumerate() {
        writeln!(
            text,
            "[[service]]\nname = \"s{number}\"\nendpoints = [\"10.77.{number}.0/24\"]\n[[contract]]\nservice = \"s{number}\"\nclass = \"gold\"\nregion = \"atn\"\ndirection = \"egress\"\nrate = \"2 Gbit/s\"\n{burst}\nslo = \"99.9 %\"\nfrom = 2020-01-01\nuntil = 2126-01-01\nowner = \"us\""
        )
        .unwrap();
    }
    let drop_in = (Path::new("contracts.d/all.toml").to_owned(), text);
    let loaded = match config::load_texts((Path::new("weir.toml"), BASE), &[drop_in]) {
        Ok(loaded) => loaded,
        Err(report) => panic!("{}", report.render(false)),
    };
    let at = "2026-01-01T00:00:00Z".parse::<Timestamp>().unwrap();
    let compiled = Compiler::new(workers, Nanos(0)).compile(&loaded.config, at).unwrap();
    compiled.traffic(Some(Nanos(0)), None)
}

fn under_grants(workers: usize, bursts: &[&str]) -> Vec<u64> {
    let report = report(workers, bursts);
    assert_eq!(report.contracts.len(), bursts.len());
    report.contracts.iter().map(|one| one.under_grant_bytes).collect()
}

/// 25,216 bytes lend 1,000 bytes to each of two workers and 500 to each of three; a large burst lends 65,536 to each. Out of
/// reach are all credits once and those of the others once more.
#[test]
fn the_under_grant_is_that_of_the_greater_bucket_and_zero_for_an_only_worker() {
    let bursts = [
        "burst = 25216",
        "burst = \"1 GB\"",
        "meter = \"srtcm\"\nburst = 25216\nexcess_burst = \"1 GB\"",
        "meter = \"trtcm\"\nburst = \"1 GB\"\npeak_rate = \"3 Gbit/s\"\npeak_burst = 25216",
    ];
    assert_eq!(under_grants(1, &bursts), [0; 4]);
    assert_eq!(under_grants(2, &bursts), [3_000, 196_608, 196_608, 196_608]);
    assert_eq!(under_grants(3, &bursts), [2_500, 327_680, 327_680, 327_680]);
}

/// Tokens start full, to the byte, for any number of workers.
#[test]
fn tokens_start_full() {
    for workers in [1, 2, 3, 7] {
        let report = report(workers, &["meter = \"srtcm\"\nburst = 25216\nexcess_burst = \"1 GB\""]);
        let tokens = report.contracts[0].tokens.expect("a clock was given");
        assert_eq!((tokens.committed, tokens.second), (25_216, Some(1_000_000_000)));
    }
}

/// The field has the name that the documentation gives it.
#[test]
fn the_under_grant_is_in_the_json() {
    let json = serde_json::to_value(report(2, &["burst = 25216"])).unwrap();
    assert_eq!(json["contracts"][0]["under_grant_bytes"], 3_000);
}

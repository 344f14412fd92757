//! Configurations broken by chance, through the program itself and through the library: a place for every error, never a
//! panic. And large ones. `WEIR_MUTATIONS` makes the random part longer.

mod common;

use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Instant;

use common::{Chance, Scratch, number_from};
use control::compile::{CompileError, Compiler};
use dataplane::clock::Nanos;
use jiff::Timestamp;

const BASE: &str = include_str!("../../config/examples/full/weir.toml");
const DROP_IN: &str = include_str!("../../config/examples/full/contracts.d/ads.toml");

/// Words that mean something, in places where they do not.
const WORDS: [&str; 24] = [
    "0",
    "-1",
    "18446744073709551616",
    "1e400",
    "nan",
    "\"\"",
    "\"0\"",
    "\"999999999999 Gbit/s\"",
    "\"0.0.0.0/0\"",
    "\"::/0\"",
    "[]",
    "[[]]",
    "{}",
    "[[port]]",
    "[[class]]",
    "\"\\u0000\"",
    "\u{1f30a}",
    "\"1 \u{fffd}\"",
    "2026-02-30",
    "9999-12-31",
    "0001-01-01T00:00:00Z",
    "\"800 Gbit/s\"",
    "\"100 %\"",
    "1979-05-27T07:32:00+23:59",
];

fn mutate(chance: &mut Chance, text: &str) -> String {
    let mut lines: Vec<String> = text
        .lines()
        .map(|line| line.split('#').next().unwrap_or("").trim_end().to_owned())
        .collect();
    for _ in 0..1 + chance.below(3) {
        let at = chance.below(lines.len());
        let other = lines[chance.below(lines.len())].clone();
        match chance.below(8) {
            0 => lines.remove(at).clear(),
            1 => lines.insert(at, other),
            2 => lines[at] = other,
            3 | 4 => {
                if let Some((key, _)) = lines[at].split_once('=') {
                    lines[at] = format!("{key}= {}", chance.of(&WORDS));
                }
            }
            5 => {
                let characters: Vec<char> = lines[at].chars().collect();
                lines[at] = characters[..chance.below(characters.len() + 1)].iter().collect();
            }
            6 => {
                let mut characters: Vec<char> = lines[at].chars().collect();
                let place = chance.below(characters.len() + 1);
                characters.insert(
                    place,
                    chance.of(&['"', '[', ']', '=', '\u{0}', '\t', '\u{202e}', '9', '.', 'é']),
                );
                lines[at] = characters.into_iter().collect();
            }
            _ => {
                // Digits grow and shrink.
                lines[at] = lines[at].replacen(|c: char| c.is_ascii_digit(), chance.of(&["", "0", "99999", "-3"]), 1);
            }
        }
        if lines.is_empty() {
            lines.push(String::new());
        }
    }
    lines.join("\n")
}

#[test]
fn chance_breaks_no_check() {
    let mut chance = Chance::seeded("configurations", 0x746f_6d6c);
    let (mut valid, mut invalid) = (0, 0);
    for _ in 0..number_from("WEIR_MUTATIONS", 3_000) {
        let mut texts = [BASE.to_owned(), DROP_IN.to_owned()];
        let which = chance.below(2);
        texts[which] = mutate(&mut chance, &texts[which]);
        let [base, drop_in] = texts;
        match config::load_texts(
            (Path::new("weir.toml"), &base),
            &[(PathBuf::from("contracts.d/ads.toml"), drop_in)],
        ) {
            Ok(loaded) => {
                valid += 1;
                // What the checks let through becomes a table, now and whenever.
                for at in [Timestamp::MIN, Timestamp::UNIX_EPOCH, Timestamp::MAX] {
                    if let Err(error) = Compiler::new(2, Nanos(100_000)).compile(&loaded.config, at) {
                        panic!("checked, but {error}\n{base}");
                    }
                }
            }
            Err(report) => {
                invalid += 1;
                let text = report.render(false);
                assert!(
                    text.contains("weir.toml:") || text.contains("ads.toml:"),
                    "no place:\n{text}\n{base}"
                );
            }
        }
    }
    println!("{valid} valid, {invalid} invalid");
    assert!(valid > 100 && invalid > 100);
}

#[test]
fn the_program_says_so_by_its_status() {
    let mut chance = Chance::seeded("program", 0x7769_6572);
    let scratch = Scratch::new("program");
    let path = scratch.file("weir.toml");
    for _ in 0..100 {
        let mut text = mutate(&mut chance, BASE).into_bytes();
        if chance.percent(10) {
            let at = chance.below(text.len());
            text[at] = 0xff;
        }
        std::fs::write(&path, &text).unwrap();
        let run = Command::new(env!("CARGO_BIN_EXE_weir"))
            .args(["check", "--config"])
            .arg(&path)
            .output()
            .unwrap();
        let said = String::from_utf8_lossy(&run.stderr);
        match run.status.code() {
            Some(0) => {}
            Some(2) => assert!(said.contains("weir.toml"), "{said}"),
            other => panic!("status {other:?}: {said}"),
        }
    }
}

#[test]
fn the_fastest_port_allowed_compiles() {
    let text = BASE.replace("10 Gbit/s", "400 Gbit/s");
    let loaded = config::load_texts((Path::new("weir.toml"), &text), &[]).unwrap();
    assert!(
        Compiler::new(1, Nanos(100_000))
            .compile(&loaded.config, Timestamp::UNIX_EPOCH)
            .is_ok()
    );
}

#[test]
fn a_refused_table_leaves_no_trace() {
    let good = common::checked(BASE);
    let mut compiler = Compiler::new(1, Nanos(100_000));
    let before = compiler.compile(&good, Timestamp::UNIX_EPOCH).unwrap().table.generation;
    let mut bad = good.clone();
    bad.ports[1].rate_bps = Some(1);
    assert!(matches!(
        compiler.compile(&bad, Timestamp::UNIX_EPOCH),
        Err(CompileError::PortRate { .. })
    ));
    assert_eq!(
        compiler.compile(&good, Timestamp::UNIX_EPOCH).unwrap().table.generation,
        before + 1
    );
}

/// Two contracts for each of `services` services, in ten drop-ins.
fn large(services: usize) -> Vec<(PathBuf, String)> {
    let files = 10;
    (0..files)
        .map(|file| {
            let mut text = String::new();
            for service in (file..services).step_by(files) {
                let (high, low) = (service >> 8, service & 255);
                writeln!(text, "[[service]]\nname = \"s{service}\"\nendpoints = [\"10.{high}.{low}.0/24\"]").unwrap();
                for direction in ["egress", "ingress"] {
                    writeln!(
                        text,
                        "[[contract]]\nservice = \"s{service}\"\nclass = \"gold\"\nregion = \"atn\"\ndirection = \"{direction}\"\nrate = \"2 Gbit/s\"\nslo = \"99.9 %\"\nfrom = 2020-01-01\nuntil = 2126-01-01\nowner = \"us\""
                    )
                    .unwrap();
                }
            }
            (PathBuf::from(format!("contracts.d/{file}.toml")), text)
        })
        .collect()
}

/// The time must grow as the number of contracts does, whatever the machine: a quadratic step would make four times as
/// many take sixteen times as long.
#[test]
fn many_contracts_take_linear_time() {
    let mut times = Vec::new();
    for services in [4_000, 16_000] {
        let drop_ins = large(services);
        let start = Instant::now();
        let loaded = config::load_texts((Path::new("weir.toml"), BASE), &drop_ins).unwrap();
        let checked = start.elapsed();
        let mut compiler = Compiler::new(2, Nanos(100_000));
        let compiled = compiler.compile(&loaded.config, Timestamp::UNIX_EPOCH).unwrap();
        let first = start.elapsed() - checked;
        assert!(compiled.next_change.is_some());
        let again = compiler
            .compile(&loaded.config, "2026-11-01T00:00:00Z".parse().unwrap())
            .unwrap();
        println!(
            "{} contracts: checked in {checked:?}, compiled in {first:?}, both and again in {:?}",
            2 * services,
            start.elapsed()
        );
        assert_eq!(again.table.contracts.len(), 2 * services + 6);
        times.push(start.elapsed());
    }
    assert!(times[1] < times[0] * 9, "{times:?}");
}

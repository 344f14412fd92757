//! Plans: what two configurations differ in, what is found, and that going back is going back.

mod common;

use std::path::PathBuf;
use std::time::Duration;

use common::{Chance, Scratch, checked, number_from};
use config::{Config, Texts};
use control::change::diff::{Difference, Kind};
use control::change::estimate::judge;
use control::change::findings::{self, Severity};
use control::change::history::{History, How, Version};
use control::change::plan::{Against, PlanReport};
use control::change::samples::Series;
use control::change::words;
use control::compile::{Compiled, Compiler};
use dataplane::clock::Nanos;
use dataplane::contract::{ClassId, Direction};
use dataplane::packet::{self, Parsed};
use dataplane::priority::RingId;
use jiff::Timestamp;

const BASE: &str = r#"region = "atn"
[[port]]
name = "lan"
interface = "eth1"
side = "site"
rate = "10 Gbit/s"
[[port]]
name = "uplink"
interface = "eth2"
side = "wan"
rate = "10 Gbit/s"
[[wire]]
ports = ["lan", "uplink"]
[[class]]
name = "gold"
priority = 1
dscp = ["EF"]
nonconforming_dscp = 3
[[class]]
name = "bulk"
priority = 7
default = true
nonconforming_dscp = 2
"#;

const ADS: &str = r#"[[service]]
name = "ads"
endpoints = ["10.1.0.0/16"]
[[contract]]
service = "ads"
class = "gold"
region = "atn"
direction = "egress"
rate = "2 Gbit/s"
burst = "1250 kB"
"#;

fn now() -> Timestamp {
    "2026-11-21T12:00:00Z".parse().unwrap()
}

/// Sign, what and name of each change, with its details.
fn lines(old: &str, new: &str) -> Vec<String> {
    let difference = Difference::new(Some(&checked(old)), &checked(new));
    let line = |change: &control::change::diff::Change| {
        let sign = match change.kind {
            Kind::Appears => '+',
            Kind::Goes => '-',
            Kind::Changes => '~',
        };
        let head = format!("{sign} {} {}", change.what.word(), change.name);
        format!("{}: {}", head.trim_end(), change.details.join("; "))
    };
    difference.changes.iter().map(line).collect()
}

#[test]
fn changes_in_words() {
    let file = format!("{BASE}{ADS}");
    // (from, to, what is said)
    let cases: [(&str, &str, &[&str]); 15] = [
        ("", "", &[]),
        ("# a comment\n", "", &[]),
        (
            "rate = \"2 Gbit/s\"\nburst = \"1250 kB\"",
            "rate = \"4 Gbit/s\"\nburst = \"2500 kB\"",
            &["~ contract ads gold egress: rate 2 Gbit/s -> 4 Gbit/s (+100 %); burst 1.25 MB -> 2.5 MB"],
        ),
        (
            "rate = \"2 Gbit/s\"",
            "rate = \"2000000001 bit/s\"",
            &["~ contract ads gold egress: rate 2 Gbit/s -> 2000000.001 kbit/s (+<0.1 %)"],
        ),
        (
            "rate = \"2 Gbit/s\"\n",
            "rate = \"2 Gbit/s\"\nmeter = \"trtcm\"\npeak_rate = \"3 Gbit/s\"\npeak_burst = \"1 MB\"\n",
            &[
                "~ contract ads gold egress: meter token-bucket -> trtcm; peak rate none -> 3 Gbit/s; peak burst none -> 1 MB",
            ],
        ),
        (
            "burst = \"1250 kB\"",
            "burst = \"1250 kB\"\nuntil = 2027-01-01\nowner = \"a\\u001bb\"\nslo = \"99.98 %\"",
            &["~ contract ads gold egress: slo none -> 99.98 %; until none -> 2027-01-01; owner none -> a\\u{1b}b"],
        ),
        (
            "direction = \"egress\"",
            "direction = \"ingress\"",
            &[
                "+ contract ads gold ingress: rate 2 Gbit/s; burst 1.25 MB; meter token-bucket; action remark; grain packet",
                "- contract ads gold egress: rate 2 Gbit/s; burst 1.25 MB; meter token-bucket; action remark; grain packet",
            ],
        ),
        (
            "region = \"atn\"\ndirection",
            "region = \"lhr\"\ndirection",
            &[
                "+ contract ads gold egress (region lhr): rate 2 Gbit/s; burst 1.25 MB; meter token-bucket; action remark; grain packet",
                "- contract ads gold egress: rate 2 Gbit/s; burst 1.25 MB; meter token-bucket; action remark; grain packet",
            ],
        ),
        (
            "endpoints = [\"10.1.0.0/16\"]",
            "endpoints = [\"10.2.0.0/16 tcp/443,8000-8100\"]",
            &["~ service ads: endpoints +10.2.0.0/16 tcp/443,8000-8100 -10.1.0.0/16"],
        ),
        (
            "side = \"wan\"\nrate = \"10 Gbit/s\"",
            "side = \"wan\"",
            &["~ port uplink: rate 10 Gbit/s -> none"],
        ),
        (
            "dscp = [\"EF\"]",
            "dscp = [\"EF\", 7]\nweight = 3",
            &["~ class gold: weight 1 -> 3; dscp +7"],
        ),
        (
            "region = \"atn\"\n[[port]]",
            "region = \"atn\"\nfail = \"closed\"\n[[port]]",
            &["~ box: fail open -> closed"],
        ),
        (
            "[[wire]]",
            "[workers]\nstale_after = \"30 ms\"\n[[wire]]",
            &["~ box: stale_after 20 ms -> 30 ms"],
        ),
        (
            "[[wire]]",
            "[control]\nwatch = \"apply\"\n[[wire]]",
            &["~ box: watch notice -> apply"],
        ),
        (
            "[[service]]",
            "[[segment]]\nname = \"emea\"\nprefixes = [\"10.128.0.0/10\"]\n[[service]]",
            &["+ segment emea: prefixes 10.128.0.0/10"],
        ),
    ];
    for (from, to, expected) in cases {
        let old = file.clone();
        let new = if from.starts_with('#') {
            format!("{from}{file}")
        } else {
            file.replacen(from, to, 1)
        };
        assert_eq!(lines(&old, &new), expected, "{from} -> {to}");
        // And back: as many changes, of the opposite kind.
        assert_eq!(lines(&new, &old).len(), expected.len(), "{to} -> {from}");
    }
}

#[test]
fn periods_of_one_name_are_paired_where_equal() {
    let period = |from: &str, until: &str, rate: &str| {
        ADS.replace("[[service]]\nname = \"ads\"\nendpoints = [\"10.1.0.0/16\"]\n", "")
            .replace("2 Gbit/s", rate)
            + &format!("from = {from}\nuntil = {until}\n")
    };
    let service = "[[service]]\nname = \"ads\"\nendpoints = [\"10.1.0.0/16\"]\n";
    let first = period("2026-01-01", "2026-07-01", "1 Gbit/s");
    let second = period("2026-07-01", "2027-01-01", "2 Gbit/s");
    let raised = period("2026-07-01", "2027-01-01", "3 Gbit/s");
    let file = |periods: &[&String]| {
        periods
            .iter()
            .fold(format!("{BASE}{service}"), |file, period| file + period)
    };
    let only_rate = ["~ contract ads gold egress: rate 2 Gbit/s -> 3 Gbit/s (+50 %)"];
    assert_eq!(lines(&file(&[&first, &second]), &file(&[&raised, &first])), only_rate);
    let gone = lines(&file(&[&first, &second]), &file(&[&second]));
    assert!(
        gone.len() == 1 && gone[0].starts_with("- contract ads gold egress: rate 1 Gbit/s"),
        "{gone:?}"
    );
    let difference = Difference::new(Some(&checked(&file(&[&first]))), &checked(&file(&[&first, &second])));
    assert_eq!(difference.summary(), "contracts +1");
}

#[test]
fn what_needs_a_restart_is_named() {
    let file = format!("{BASE}{ADS}");
    let cases = [
        ("eth1", "eth3", "a `[[port]]` (other than its rate)"),
        ("[[wire]]", "[control]\nstate = \"/srv\"\n[[wire]]", "`[control] state`"),
        ("region = \"atn\"\n[[port]]", "region = \"lhr\"\n[[port]]", "`region`"),
    ];
    for (from, to, expected) in cases {
        let new = checked(&file.replacen(from, to, 1));
        let found = Difference::new(Some(&checked(&file)), &new).needs_restart;
        assert_eq!(found.as_deref(), Some(expected), "{to}");
    }
}

/// Rules that found something, with the words about it.
fn found(file: &str) -> Vec<(String, String)> {
    let findings = findings::find(&checked(file), now(), Some(Duration::from_millis(5)));
    let words = |finding: findings::Finding| {
        assert!(finding.about.len() <= findings::NAMED && !finding.help.is_empty());
        (
            finding.rule,
            format!("{}: {}", finding.message, finding.about.join(", ")),
        )
    };
    findings.into_iter().map(words).collect()
}

#[test]
fn findings_in_words() {
    let file = format!("{BASE}{ADS}");
    let with = |more: &str| format!("{file}{more}\n");
    let service = |name: &str, endpoints: &str| format!("[[service]]\nname = \"{name}\"\nendpoints = [{endpoints}]\n");
    let halves = service("low", "\"10.1.0.0/17\"") + &service("high", "\"10.1.128.0/17\"");
    let one_half = service("low", "\"10.1.0.0/17\"") + &service("high", "\"10.1.128.0/18\"");
    let ports = service("low", "\"10.1.0.0/17 tcp/443\"") + &service("high", "\"10.1.128.0/17\"");
    let own = file.replace("\"10.1.0.0/16\"", "\"10.1.0.0/16\", \"10.1.0.0/17\", \"10.1.128.0/17\"");
    // (file, rule, what its words hold; none: it must not be found)
    let cases: [(String, &str, &str); 22] = [
        (with("until = 2026-11-21"), "ended", "ended 2026-11-21"),
        (with("until = 2026-11-28"), "expires", "ends 2026-11-28"),
        (with("until = 2026-12-24"), "expires", ""),
        (with("from = 2026-12-24"), "not_begun", "begins 2026-12-24"),
        (with("from = 2026-11-21"), "not_begun", ""),
        (file.replace("1250 kB", "14999 B"), "burst_short", "burst 14.999 kB"),
        (file.replace("1250 kB", "15000 B"), "burst_short", ""),
        (
            file.replace("1250 kB", "1249 kB"),
            "burst_rtt",
            "burst 1.249 MB, 5.0 ms",
        ),
        (file.clone(), "burst_rtt", ""),
        (file.replace("1250 kB", "251 MB"), "burst_long", "burst 251 MB, 1.0 s"),
        (file.replace("1250 kB", "250 MB"), "burst_long", ""),
        // The default burst of a slow contract is long in time and not worth a word.
        (
            file.replace("2 Gbit/s", "8 kbit/s")
                .replace("burst = \"1250 kB\"\n", ""),
            "burst_long",
            "",
        ),
        (
            file.replace("region = \"atn\"\ndir", "region = \"lhr\"\ndir"),
            "other_region",
            "ads gold egress (region lhr)",
        ),
        (file.clone(), "packet_grain", "ads gold egress"),
        (with("[contract.excess]\naction = \"drop\""), "packet_grain", ""),
        (
            file.replace("2 Gbit/s", "11 Gbit/s"),
            "promised",
            "egress contracts promise 11 Gbit/s, the wan ports carry 10",
        ),
        (
            file.replace("2 Gbit/s", "11 Gbit/s").replace("egress", "ingress"),
            "promised",
            "ingress contracts promise 11 Gbit/s, the site ports carry 10",
        ),
        (file.replace("2 Gbit/s", "10 Gbit/s"), "promised", ""),
        (with(&halves), "shadowed", "10.1.0.0/16 of ads (by low)"),
        (with(&one_half), "shadowed", ""),
        (with(&ports), "shadowed", ""),
        (own, "shadowed", ""),
    ];
    for (file, rule, expected) in cases {
        let found = found(&file);
        let words: Vec<&String> = found
            .iter()
            .filter(|(name, _)| name == rule)
            .map(|(_, words)| words)
            .collect();
        match expected {
            "" => assert_eq!(words, [""; 0], "{rule} in {file}"),
            _ => assert!(
                words.len() == 1 && words[0].contains(expected),
                "{rule}: {found:?} in {file}"
            ),
        }
    }
}

#[test]
fn endpoints_with_ports_and_all_of_ipv6_are_shadowed_too() {
    let service = |name: &str, endpoints: &str| format!("[[service]]\nname = \"{name}\"\nendpoints = [{endpoints}]\n");
    let cases = [
        (
            "\"10.1.0.0/24 tcp/443\"",
            "\"10.1.0.0/25 tcp/400-500\", \"10.1.0.128/25\"",
            true,
        ),
        (
            "\"10.1.0.0/24 tcp/443\"",
            "\"10.1.0.0/25 udp/400-500\", \"10.1.0.128/25\"",
            false,
        ),
        (
            "\"10.1.0.0/24 tcp/443,500\"",
            "\"10.1.0.0/25 tcp/443\", \"10.1.0.128/25\"",
            false,
        ),
        ("\"::/0\"", "\"::/1\", \"8000::/1\"", true),
        ("\"::/0\"", "\"::/1\", \"8000::/2\"", false),
        ("\"::/0\"", "\"0.0.0.0/0\"", false),
    ];
    for (wide, narrow, shadowed) in cases {
        let file = format!("{BASE}{}{}", service("a", wide), service("b", narrow));
        let rules = found(&file);
        assert_eq!(
            rules.iter().any(|(rule, _)| rule == "shadowed"),
            shadowed,
            "{wide} under {narrow}: {rules:?}"
        );
    }
}

#[test]
fn a_plan_fits_the_screen() {
    let long = "x".repeat(64);
    let old = format!("{BASE}{ADS}");
    let mut new = old
        .replace("name = \"ads\"", &format!("name = \"{long}\""))
        .replace("service = \"ads\"", &format!("service = \"{long}\""));
    new = new.replace(
        "10.1.0.0/16\"",
        &format!(
            "10.1.0.0/16\", {}",
            (0..100)
                .map(|n| format!("\"10.7.{n}.0/24\""))
                .collect::<Vec<_>>()
                .join(", ")
        ),
    );
    let (old, new) = (checked(&old), checked(&new));
    let difference = Difference::new(Some(&old), &new);
    let series = Series {
        service: "ads".into(),
        class: "gold".into(),
        direction: "egress".into(),
        segment: None,
        bytes: vec![1_000_000_000; 10],
    };
    let judged = judge(&old, &new, now(), &[1_000; 10], &[series]);
    assert_eq!(
        (judged.len(), judged[0].nonconforming_after),
        (1, None),
        "its contract goes"
    );
    assert_eq!(judged[0].offered_bps, 8_000_000_000);
    let version = Version {
        number: 7,
        time: now(),
        how: How::Apply,
        author: "a".repeat(64),
        note: Some("\u{1b}[31m".repeat(20)),
        summary: "contracts +1".into(),
        generation: 3,
        restores: None,
        trial: None,
    };
    let plan = PlanReport {
        file: PathBuf::from(format!("/{long}/{long}/weir.toml")),
        against: Against::Running {
            path: "/etc/weir/weir.toml".into(),
            generation: 3,
            version: Some(version.clone()),
            on_trial: true,
        },
        summary: difference.summary(),
        findings: findings::find(&new, now(), None),
        difference,
        check_warnings: 2,
        sampled_seconds: 10.0,
        judged,
    };
    let text = words::plan_text(&plan, false);
    let history = words::history_text(&control::change::messages::HistoryReport {
        directory: "/x".into(),
        running: Some(7),
        versions: vec![version],
        problems: vec![long.repeat(3)],
    });
    for text in [&text, &history] {
        assert!(text.lines().all(|line| line.chars().count() <= words::WIDTH), "{text}");
        assert!(!text.contains('\u{1b}'), "no colour, and none by way of a note: {text}");
    }
    assert!(text.contains("10.7.99.0/24"), "nothing of a diff is cut: {text}");
    assert!(
        words::plan_text(&plan, true).contains("\u{1b}[32m+ "),
        "what appears is green"
    );
    assert_eq!(
        plan.findings.first().map(|finding| finding.severity),
        Some(Severity::Note)
    );
}

/// A configuration of chance: services, segments, contracts of all meters.
fn any_file(chance: &mut Chance) -> String {
    let mut text = BASE.to_owned();
    if chance.percent(50) {
        text = text.replacen("rate = \"10 Gbit/s\"\n", "", 1);
    }
    text += "[[segment]]\nname = \"far\"\nprefixes = [\"192.168.0.0/16\"]\n";
    for service in 0..1 + chance.below(5) {
        let ports = if chance.percent(30) { " udp/9" } else { "" };
        text += &format!(
            "[[service]]\nname = \"s{service}\"\nendpoints = [\"10.{service}.{}.0/24{ports}\"]\n",
            chance.below(4)
        );
        for class in ["gold", "bulk"] {
            for (direction, segment) in [("egress", ""), ("ingress", ""), ("egress", "segment = \"far\"\n")] {
                if chance.percent(50) {
                    continue;
                }
                let rate = 1 + chance.below(5_000);
                let meter = chance.of(&[
                    "",
                    "meter = \"srtcm\"\n",
                    "meter = \"trtcm\"\npeak_rate = \"9 Gbit/s\"\n",
                    "meter = \"trtcm-4115\"\nexcess_rate = \"1 Mbit/s\"\n",
                ]);
                let action = chance.of(&[
                    "",
                    "[contract.excess]\naction = \"drop\"\n",
                    "[contract.excess]\naction = \"queue\"\n",
                ]);
                text += &format!(
                    "[[contract]]\nservice = \"s{service}\"\nclass = \"{class}\"\nregion = \"atn\"\ndirection = \"{direction}\"\n\
                     rate = \"{rate} Mbit/s\"\n{segment}{meter}{action}"
                );
            }
        }
    }
    text
}

/// All that judges and orders packets, in words: each contract by number, and where a fixed set of packets goes.
fn judgement(compiled: &Compiled) -> String {
    let table = &compiled.table;
    let mut text = format!(
        "{:?} {:?} {:?} {:?}",
        table.layer, table.classes, table.order, table.port_rates
    );
    for contract in &table.contracts {
        text += &format!("\n{contract:?}");
    }
    for service in 0..6_u8 {
        for net in 0..4_u8 {
            for (far, protocol) in [(0, 17), (168, 17), (168, 6)] {
                let mut bytes = vec![0; 60];
                bytes[12..14].copy_from_slice(&[8, 0]);
                bytes[14..34].copy_from_slice(&[
                    0x45, 0, 0, 46, 0, 0, 0, 0, 64, protocol, 0, 0, 10, service, net, 1, 192, far, 0, 1,
                ]);
                bytes[35] = 9;
                let Parsed::Ip(headers) = packet::parse(&bytes, 60) else {
                    panic!("an IPv4 packet")
                };
                for direction in Direction::BOTH {
                    let id = table.classifier.service(&headers, direction);
                    for class in (0..2).filter_map(RingId::new).map(ClassId) {
                        text += &format!(" {:?}", table.classifier.contract(id, class, direction, &headers));
                    }
                }
            }
        }
    }
    text
}

fn version(number: u64) -> Version {
    Version {
        number,
        time: now(),
        how: How::Apply,
        author: "test".into(),
        note: None,
        summary: String::new(),
        generation: number,
        restores: None,
        trial: None,
    }
}

#[test]
fn apply_and_back_gives_the_same_table() {
    let rounds = number_from("WEIR_ROUNDS", 60);
    let mut chance = Chance::seeded("apply and back", 11);
    let scratch = Scratch::new("apply-and-back");
    for round in 0..rounds {
        let texts = [(); 2].map(|()| {
            Texts::new(vec![(
                PathBuf::from("/etc/weir/weir.toml"),
                any_file(&mut chance).into_bytes(),
            )])
        });
        let load = |texts: &Texts| -> Config {
            texts
                .load()
                .unwrap_or_else(|report| panic!("{}", report.render(false)))
                .config
        };
        let mut history = History::open(&scratch.file(&round.to_string())).unwrap();
        let mut compiler = Compiler::new(2, Nanos(100_000));
        let mut compile = |texts: &Texts| compiler.compile(&load(texts), now()).unwrap();
        let first = judgement(&compile(&texts[0]));
        history.append(version(1), &texts[0]).unwrap();
        let second = judgement(&compile(&texts[1]));
        history.append(version(2), &texts[1]).unwrap();
        let back = history.texts(history.before(2).unwrap().number).unwrap();
        assert_eq!(back, texts[0]);
        assert_eq!(judgement(&compile(&back)), first, "round {round}");
        assert!(Difference::new(Some(&load(&texts[0])), &load(&back)).is_empty());
        // The two tables differ exactly where the plan says that they do.
        let planned = Difference::new(Some(&load(&texts[0])), &load(&texts[1]));
        assert_eq!(
            planned.is_empty(),
            texts[0] == texts[1] || first == second,
            "round {round}: {}",
            planned.summary()
        );
    }
}

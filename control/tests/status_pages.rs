//! Alarms and pages, made from a status that a test writes; and how long they take with very many contracts.

mod common;

use std::fmt::Write as _;
use std::time::Instant;

use common::{checked, two_ports};
use control::alarms::{Alarm, alarms};
use control::compile::Compiler;
use control::observe::{Observer, Rate, Rates, Reading, Totals, Windows};
use control::report::{ContractReport, LedgerReport};
use control::show::{Kind, Shown, show};
use control::status::{Delivered, PortStatus, Status, WorkerStatus};
use dataplane::clock::Nanos;
use dataplane::stats::Amount;
use jiff::Timestamp;

const CLASSES: &str = r#"
[[class]]
name = "gold"
priority = 1
dscp = ["EF"]
[[class]]
name = "default"
priority = 2
default = true
"#;

/// A healthy gateway with one contract of 100 Mbit/s that has been live for two minutes.
fn healthy() -> Status {
    let rate = Rate {
        offered_bps: 150_000_000,
        conforming_bps: 100_000_000,
        nonconforming_bps: 50_000_000,
        dropped_bps: 40_000_000,
        ..Rate::default()
    };
    let mut status = Status {
        table_seconds: 120.0,
        windows: Windows {
            last_second: 1.0,
            last_minute: 63.0,
        },
        workers: vec![WorkerStatus {
            state: "run".to_owned(),
            ..WorkerStatus::default()
        }],
        ports: vec![PortStatus {
            port: "uplink".to_owned(),
            rate_bps: Some(1_000_000_000),
            delivered: Delivered {
                last_second_bps: 1_001_000_000,
                last_minute_bps: 1_000_500_000,
            },
            ..PortStatus::default()
        }],
        ..Status::default()
    };
    status.traffic.contracts.push(ContractReport {
        service: "ads".to_owned(),
        class: "gold".to_owned(),
        direction: "egress".to_owned(),
        segment: Some("far".to_owned()),
        active: true,
        rate_bps: 100_000_000,
        rates: Some(Rates {
            last_second: rate,
            last_minute: rate,
        }),
        ..ContractReport::default()
    });
    status.traffic.ledger.push(LedgerReport {
        port: "lan".to_owned(),
        ..LedgerReport::default()
    });
    status
}

/// The alarms of a status that is healthy but for what `change` does to it.
fn raised(change: impl Fn(&mut Status)) -> Vec<Alarm> {
    let mut status = healthy();
    change(&mut status);
    let alarms = alarms(&status);
    for alarm in &alarms {
        assert!(
            !alarm.what.is_empty() && !alarm.remedy.is_empty() && !alarm.figures.is_empty(),
            "{alarm:?}"
        );
    }
    status.alarms = alarms.clone();
    assert!(
        status.to_text().lines().all(|line| line.chars().count() <= 100),
        "{}",
        status.to_text()
    );
    alarms
}

fn minute(status: &mut Status) -> &mut Rate {
    &mut status.traffic.contracts[0].rates.as_mut().unwrap().last_minute
}

#[test]
fn each_alarm_is_raised_by_its_cause_and_by_nothing_else() {
    let names = |alarms: Vec<Alarm>| -> Vec<String> {
        alarms
            .into_iter()
            .map(|alarm| format!("{} {}", alarm.name, alarm.place))
            .collect()
    };
    let none: [String; 0] = [];
    assert_eq!(names(raised(|_| {})), none);
    assert_eq!(
        names(raised(|status| status.traffic.ledger[0].unaccounted = -2)),
        ["packets_unaccounted port lan queue 0"]
    );
    assert_eq!(
        names(raised(|status| status.workers[0].stalled = true)),
        ["worker_stalled worker 0"]
    );
    assert_eq!(
        names(raised(|status| "fail".clone_into(&mut status.workers[0].state))),
        ["worker_stalled worker 0"]
    );
    // 95 % is enough, and so is less where less was offered; a table that is young is not judged yet.
    let short = |status: &mut Status, bps| minute(status).conforming_bps = bps;
    assert_eq!(names(raised(|status| short(status, 95_000_000))), none);
    let expected = ["contract_not_delivered ads/gold/egress/far"];
    assert_eq!(names(raised(|status| short(status, 94_999_999))), expected);
    assert_eq!(
        names(raised(|status| {
            short(status, 50_000_000);
            minute(status).offered_bps = 99_000_000;
        })),
        none
    );
    assert_eq!(
        names(raised(|status| {
            short(status, 50_000_000);
            status.table_seconds = 62.0;
        })),
        none
    );
    assert_eq!(
        names(raised(|status| {
            short(status, 50_000_000);
            status.traffic.contracts[0].active = false;
        })),
        none
    );
    // One packet is enough; a great part of them is no delivery.
    assert_eq!(
        names(raised(|status| minute(status).conforming_dropped_packets = 1)),
        ["conforming_dropped ads/gold/egress/far"]
    );
    let both = raised(|status| {
        *minute(status) = Rate {
            conforming_dropped_packets: 9_000,
            conforming_dropped_bps: 6_000_000,
            ..*minute(status)
        };
    });
    assert_eq!(both[1].figures["delivered_bps"], 94_000_000.0);
    assert!(both[1].remedy.contains("conforming_dropped"), "{both:?}");
    // Two percent over the rate is still the rate.
    let over = |bps| names(raised(move |status| status.ports[0].delivered.last_minute_bps = bps));
    assert_eq!(over(1_020_000_000), none);
    assert_eq!(over(1_020_000_001), ["port_over_rate port uplink"]);
}

#[test]
fn a_summary_keeps_what_is_offered_most_in_its_order() {
    let mut status = healthy();
    let one = status.traffic.contracts.remove(0);
    for offered_bps in [5, 0, 9, 7, 9] {
        let mut contract = one.clone();
        contract.rates.as_mut().unwrap().last_minute.offered_bps = offered_bps;
        status.traffic.contracts.push(contract);
    }
    let offered = |status: &Status| -> Vec<u64> {
        let contracts = status.traffic.contracts.iter();
        contracts
            .map(|contract| contract.rates.unwrap().last_minute.offered_bps)
            .collect()
    };
    let summary = status.clone().summary(3);
    assert_eq!((offered(&summary), summary.contracts_left_out), (vec![9, 7, 9], 2));
    assert!(summary.to_text().contains("and 2 contracts with less traffic"));
    assert_eq!(status.clone().summary(5), status);
}

#[test]
fn contracts_are_found_by_their_name_and_by_its_beginning() {
    let mut text = two_ports(Some("100 Gbit/s")) + CLASSES;
    for (service, segment) in [("ads", ""), ("ads", "segment = \"far\"\n"), ("adserver", "")] {
        if segment.is_empty() {
            let end = service.len();
            write!(
                text,
                "[[service]]\nname = \"{service}\"\nowner = \"{service}-oncall\"\nendpoints = [\"10.{end}.0.0/16\"]\n"
            )
            .unwrap();
        } else {
            text += "[[segment]]\nname = \"far\"\nprefixes = [\"198.51.100.0/24\"]\n";
        }
        write!(
            text,
            "[[contract]]\nservice = \"{service}\"\nclass = \"gold\"\nregion = \"here\"\ndirection = \"egress\"\n{segment}rate = \"1 Gbit/s\"\nslo = \"99.9 %\"\n"
        )
        .unwrap();
    }
    let config = checked(&text);
    let compiled = Compiler::new(1, Nanos(0)).compile(&config, Timestamp::now()).unwrap();
    let status = Status {
        traffic: compiled.traffic(Some(Nanos(0)), None),
        ..Status::default()
    };
    let names = |name: &str| match show(Kind::Contract, Some(name), &status, &config) {
        Ok(Shown::Contract(pages)) => pages.into_iter().map(|page| page.name).collect(),
        other => vec![format!("{}", other.unwrap_err())],
    };
    assert_eq!(names("ads"), ["ads/gold/egress", "ads/gold/egress/far"]);
    assert_eq!(names("ads/gold"), ["ads/gold/egress", "ads/gold/egress/far"]);
    assert_eq!(names("ads/gold/egress/far"), ["ads/gold/egress/far"]);
    assert_eq!(names("adserver"), ["adserver/gold/egress"]);
    assert_eq!(names("adz"), ["there is no contract `adz`; did you mean `ads`?"]);
    assert_eq!(
        names("ads/gold/egres"),
        ["there is no contract `ads/gold/egres`; did you mean `ads/gold/egress`?"]
    );
    assert_eq!(names("zzz"), ["there is no contract `zzz`; there are ads, adserver"]);
    let Ok(Shown::Service(pages)) = show(Kind::Service, Some("ads"), &status, &config) else {
        panic!("no page");
    };
    assert_eq!(
        (pages.len(), pages[0].contracts.len(), pages[0].endpoints.as_slice()),
        (1, 2, &["10.3.0.0/16".to_owned()][..])
    );
    let agreed = pages[0].contracts[0].agreed.as_ref().unwrap();
    assert_eq!(
        (agreed.slo_percent, agreed.owner.as_deref(), agreed.file.as_str()),
        (Some(99.9), Some("ads-oncall"), "weir.toml")
    );
    let line = text.lines().nth(agreed.line - 1);
    assert_eq!(line, Some("[[contract]]"), "the line it is written in");
    // What travels over the socket is read back as it was.
    for kind in Kind::ALL {
        let shown = show(kind, None, &status, &config).unwrap();
        let json = serde_json::to_string(&shown).unwrap();
        assert_eq!(serde_json::from_str::<Shown>(&json).unwrap(), shown);
        for text in [shown.to_text(true), shown.to_text(false)] {
            assert!(text.lines().all(|line| line.chars().count() <= 100), "{text}");
        }
    }
}

/// What the control thread and `weir status` do with very many contracts. The bound is of an unoptimized build on a busy
/// machine; the time is printed.
#[test]
fn a_status_of_very_many_contracts_is_quick() {
    const CONTRACTS: usize = 100_000;
    let mut text = two_ports(Some("100 Gbit/s")) + CLASSES;
    for service in 0..CONTRACTS / 4 {
        let (high, low) = (service >> 8, service & 255);
        writeln!(
            text,
            "[[service]]\nname = \"s{service}\"\nendpoints = [\"10.{high}.{low}.0/24\"]"
        )
        .unwrap();
        for (class, direction) in [
            ("gold", "egress"),
            ("gold", "ingress"),
            ("default", "egress"),
            ("default", "ingress"),
        ] {
            writeln!(
                text,
                "[[contract]]\nservice = \"s{service}\"\nclass = \"{class}\"\nregion = \"here\"\ndirection = \"{direction}\"\nrate = 1000000"
            )
            .unwrap();
        }
    }
    let config = checked(&text);
    let compiled = Compiler::new(2, Nanos(0)).compile(&config, Timestamp::now()).unwrap();
    let cells = &compiled.table.cells;
    let mut observer = Observer::default();
    let read = |at| Reading {
        at,
        contracts: compiled
            .table
            .contracts
            .iter()
            .map(|contract| Totals::read(cells, contract.slot))
            .collect(),
        ports: vec![Amount::default(); 2],
        workers: Vec::new(),
        rings: Vec::new(),
    };
    let start = Instant::now();
    observer.take(read(start));
    for contract in &compiled.table.contracts {
        cells.of(0).cell(contract.slot).conforming.add(Amount {
            packets: 1,
            bytes: 1_000,
        });
    }
    let reading = Instant::now();
    observer.take(read(start + std::time::Duration::from_secs(1)));
    let read_in = reading.elapsed();
    let making = Instant::now();
    let mut status = Status {
        traffic: compiled.traffic(Some(Nanos(0)), Some(&observer)),
        windows: observer.windows(),
        ..Status::default()
    };
    status.alarms = alarms(&status);
    let made_in = making.elapsed();
    assert_eq!(status.traffic.contracts.len(), CONTRACTS);
    assert_eq!(
        status.traffic.contracts[CONTRACTS - 1]
            .rates
            .unwrap()
            .last_second
            .conforming_bps,
        8_000
    );
    let paging = Instant::now();
    let page = show(Kind::Contract, Some("s24999/gold/egress"), &status, &config).unwrap();
    assert!(!page.is_empty());
    let Ok(Shown::Service(services)) = show(Kind::Service, None, &status, &config) else {
        panic!("no pages");
    };
    assert_eq!(services.len(), CONTRACTS / 4);
    assert!(services.iter().all(|service| service.contracts.len() == 4));
    let paged_in = paging.elapsed();
    let writing = Instant::now();
    let summary = status.summary(100);
    let json = serde_json::to_vec(&summary).unwrap();
    let back: Status = serde_json::from_slice(&json).unwrap();
    let summarized_in = writing.elapsed();
    assert_eq!(
        (back.traffic.contracts.len(), back.contracts_left_out),
        (100, CONTRACTS - 100)
    );
    println!(
        "{CONTRACTS} contracts: read in {read_in:?}, status made in {made_in:?}, pages of one and of all in {paged_in:?}, a summary in {summarized_in:?}"
    );
    assert!(
        (read_in + made_in + paged_in).as_secs() < 10,
        "too slow for a control thread"
    );
}

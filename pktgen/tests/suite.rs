//! Whole measurements over veth. Needs root; without it every test is skipped and says so.

mod common;

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use pktgen::lab::{Namespace, VethEnd, links};
use pktgen::live;
use pktgen::load::{ServiceTraffic, TrialLoad};
use pktgen::report::{Completeness, Report};
use pktgen::stream::Stream;
use pktgen::suite::{self, Method, Plan, SuiteError, Surroundings};
use pktgen::trial::{End, GeneratorConfig};

use common::skipped;

/// One service from `left` to `right`, which are two ends of one link, or of two if `severed`.
fn plan(severed: bool) -> Plan {
    let [a, b] = [Namespace::new().unwrap(), Namespace::new().unwrap()];
    let link = |near: &VethEnd<'_>, far: &VethEnd<'_>| {
        links::create_veth(near, far).unwrap();
        for end in [near, far] {
            end.namespace.try_run(|| links::set_up(end.name)).unwrap();
        }
    };
    if severed {
        link(&VethEnd::new(&a, "left"), &VethEnd::new(&a, "nowhere"));
        link(&VethEnd::new(&b, "right"), &VethEnd::new(&b, "elsewhere"));
    } else {
        link(&VethEnd::new(&a, "left"), &VethEnd::new(&b, "right"));
    }
    let stream = Stream {
        rate_bps: 400_000,
        ..common::stream()
    };
    Plan {
        title: "a cable".into(),
        between: "nothing".into(),
        generator: GeneratorConfig {
            transmit: End {
                namespace: a,
                interface: "left".into(),
            },
            receive: End {
                namespace: b,
                interface: "right".into(),
            },
            services: vec![ServiceTraffic {
                name: "all".into(),
                stream,
                multiple: None,
            }],
            transmit_cpus: vec![0],
            receive_cpu: Some(0),
            seed: 1,
        },
        frames: vec!["64".parse().unwrap(), "csit".parse().unwrap()],
        method: Method::quick(),
        search_budget: None,
        latency: Duration::from_millis(200),
        services: Duration::from_millis(500),
        reconfigurations: 1,
        bursts: 0,
        soak: Duration::ZERO,
        // A line that the machine can fill: 10,000 frames of 64 bytes a second.
        line_rate_bps: Some(10_000.0 * 84.0 * 8.0),
    }
}

fn run(plan: &Plan, stop: &AtomicBool) -> Result<Report, SuiteError> {
    suite::run(
        plan,
        &mut Surroundings {
            stop,
            progress: &mut |_| {},
            change: Some(&mut |_| Ok(())),
        },
    )
}

#[test]
fn a_cable_carries_its_line_rate_and_the_report_says_so() {
    if skipped("a_cable_carries_its_line_rate_and_the_report_says_so") {
        return;
    }
    let report = run(&plan(false), &AtomicBool::new(false)).unwrap();
    assert_eq!(report.completeness, Completeness::Complete, "{:?}", report.notes);
    let frames: Vec<&str> = report.throughput.iter().map(|row| row.frame.as_str()).collect();
    assert_eq!(frames, ["64", "csit"]);
    assert_eq!(report.calibration.len(), 2);
    assert_eq!(report.services.len(), 1);
    for row in &report.throughput {
        assert!(!row.trials.is_empty());
        // Loss on a cable would be the generator's own; a trial it lagged in is marked and proves nothing.
        for trial in row.trials.iter().filter(|trial| trial.valid) {
            assert_eq!(trial.lost, 0, "{row:?}");
        }
    }
    let service = &report.services[0];
    assert_eq!((service.received, service.lost), (service.sent, 0));
    assert_eq!(service.dscp_out.len(), 1);
    assert!(report.html().contains("a cable") && report.text().contains("csit"));
}

#[test]
fn no_way_between_the_ends_is_an_error_that_says_so() {
    if skipped("no_way_between_the_ends_is_an_error_that_says_so") {
        return;
    }
    let error = run(&plan(true), &AtomicBool::new(false)).unwrap_err();
    assert!(matches!(error, SuiteError::NoRoute { .. }), "{error}");
    assert!(error.to_string().contains("none arrived on right"), "{error}");
}

#[test]
fn a_stopped_run_keeps_what_it_has() {
    if skipped("a_stopped_run_keeps_what_it_has") {
        return;
    }
    let stop = AtomicBool::new(false);
    let mut steps = 0;
    let report = suite::run(
        &plan(false),
        &mut Surroundings {
            stop: &stop,
            // In the middle of the first search.
            progress: &mut |step| {
                steps += usize::from(step.message.starts_with("64: ") && !step.message.contains("generator"));
                stop.store(steps > 2, Ordering::Relaxed);
            },
            change: None,
        },
    )
    .unwrap();
    assert!(
        matches!(report.completeness, Completeness::Partial { .. }),
        "{:?}",
        report.completeness
    );
    assert_eq!(report.throughput.len(), 1);
}

#[test]
fn the_engine_in_the_kernel_gives_the_same_kind_of_trial() {
    if skipped("the_engine_in_the_kernel_gives_the_same_kind_of_trial") {
        return;
    }
    let plan = plan(false);
    let load = TrialLoad::PacketsPerSecond(5_000.0);
    let trial = live::trial(
        &plan.generator,
        &load,
        Duration::from_millis(500),
        &AtomicBool::new(false),
    )
    .unwrap();
    assert_eq!((trial.sent(), trial.lost()), (2_500, 0), "{trial:?}");
    assert_eq!(trial.services[0].dscp_received.get(&46), Some(&2_500));
    assert!(trial.services[0].latency.len() >= 2_500 / 16);
}

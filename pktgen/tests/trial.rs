//! Trials over veth: what is sent comes, at the rate that was asked for. Needs root; without it every test is skipped and
//! says so.

mod common;

use std::sync::atomic::AtomicBool;
use std::time::Duration;

use pktgen::lab::{Namespace, VethEnd, links};
use pktgen::stream::{FlowOrder, Protocol, Stream};
use pktgen::trial::{End, Generator, GeneratorConfig, ServiceTraffic, Trial, TrialLoad};

use common::skipped;

/// Two services on two queues of a pair of veths.
fn generator(senders: usize, receive_cpu: Option<usize>) -> Generator {
    let (a, b) = (Namespace::new().unwrap(), Namespace::new().unwrap());
    let queues = senders as u32;
    let left = VethEnd {
        queues,
        ..VethEnd::new(&a, "left")
    };
    let right = VethEnd {
        queues,
        ..VethEnd::new(&b, "right")
    };
    links::create_veth(&left, &right).unwrap();
    a.try_run(|| links::set_up("left")).unwrap();
    b.try_run(|| links::set_up("right")).unwrap();
    let stream = |protocol, dscp, frame_bytes, rate_bps| Stream {
        protocol,
        dscp,
        frame_bytes,
        flow_order: FlowOrder::Random,
        rate_bps,
        ..common::stream()
    };
    let service = |name: &str, stream| ServiceTraffic {
        name: name.into(),
        stream,
        multiple: None,
    };
    Generator::start(&GeneratorConfig {
        transmit: End {
            namespace: a,
            interface: "left".into(),
        },
        receive: End {
            namespace: b,
            interface: "right".into(),
        },
        services: vec![
            service("small", stream(Protocol::Udp, 46, vec![60], 3_000_000)),
            service("mixed", stream(Protocol::Tcp, 10, vec![80, 590, 1514], 9_000_000)),
        ],
        transmit_cpus: vec![0; senders],
        receive_cpu,
        seed: 1,
    })
    .unwrap()
}

fn assert_whole(trial: &Trial) {
    assert_eq!(trial.invalid, Vec::<String>::new());
    assert_eq!((trial.lost(), trial.corrupted, trial.foreign), (0, 0, 0), "{trial:?}");
    for service in &trial.services {
        assert_eq!(service.received, service.sent);
        assert_eq!((service.reordered, service.duplicated), (0, 0));
        assert_eq!(
            service.dscp_received.iter().collect::<Vec<_>>(),
            [(&service.dscp, &service.sent)]
        );
        assert_eq!(service.latency.len(), service.sent);
    }
}

/// A trial of 1 s, again where the machine was busy with something else: what a generator that lagged says is no result.
fn valid(generator: &mut Generator, load: &TrialLoad) -> Trial {
    for _ in 0..10 {
        let trial = generator
            .trial(load, Duration::from_secs(1), &AtomicBool::new(false))
            .unwrap();
        if trial.invalid.is_empty() {
            return trial;
        }
        eprintln!("again: {:?}", trial.invalid);
        assert_eq!(trial.lost(), 0, "{trial:?}");
    }
    panic!("ten trials in a row were not valid");
}

#[test]
fn trials_send_what_was_asked_and_see_all_of_it() {
    if skipped("trials_send_what_was_asked_and_see_all_of_it") {
        return;
    }
    // On threads of their own, several senders, and sender and receiver on one thread.
    for (senders, receive_cpu) in [(1, None), (2, None), (1, Some(0))] {
        let mut generator = generator(senders, receive_cpu);
        for pps in [1_000.0, 20_000.5, 3_000.0] {
            let trial = valid(&mut generator, &TrialLoad::PacketsPerSecond(pps));
            assert_whole(&trial);
            // 3 Mbit/s of 46 bytes are 8152 packets a second, 9 Mbit/s of 714.7 on average are 1574.
            let share = trial.services[0].sent as f64 / trial.sent() as f64;
            assert!((share - 8152.2 / 9726.3).abs() < 0.005, "{share}");
        }
        let trial = generator
            .trial(&TrialLoad::Max, Duration::from_millis(300), &AtomicBool::new(false))
            .unwrap();
        assert!(trial.sent_pps() > 20_000.0, "{trial:?}");
    }
}

#[test]
fn an_interrupted_trial_ends_at_once_and_says_so() {
    if skipped("an_interrupted_trial_ends_at_once_and_says_so") {
        return;
    }
    let mut generator = generator(1, None);
    let begun = std::time::Instant::now();
    let load = TrialLoad::PacketsPerSecond(1_000.0);
    let trial = generator
        .trial(&load, Duration::from_secs(60), &AtomicBool::new(true))
        .unwrap();
    assert!(begun.elapsed() < Duration::from_secs(5));
    assert!(
        trial.invalid.iter().any(|reason| reason == "interrupted"),
        "{:?}",
        trial.invalid
    );
    assert_eq!(trial.lost(), 0);
}

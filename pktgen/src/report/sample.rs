//! Reports for tests. The numbers are made up: of the size such runs have, and measured by nobody.

use super::*;

/// What somebody might name a service to break a page, a terminal or a table.
pub(super) const HOSTILE: &str =
    "<script>alert(1)</script>\"' onload=\"x\" <img src=http://x/> & \u{0}\u{1b}[2J\u{202e}]]>";

/// Every section, several rows in each.
pub(super) fn full() -> Report {
    Report {
        format: FORMAT,
        title: "weir with 3 contracts between two veth pairs".to_owned(),
        when: "2026-11-21T16:40:00Z".to_owned(),
        seconds: 1342.0,
        completeness: Completeness::Complete,
        command: [
            "weir",
            "bench",
            "--contracts",
            "contracts.toml",
            "--html",
            "report.html",
        ]
        .map(str::to_owned)
        .into(),
        seed: 42,
        machine: machine(),
        setup: setup(),
        calibration: vec![calibration(100_000.0, 3.2), calibration(1_000_000.0, -41.0)],
        throughput: throughput(),
        latency: latency(),
        services: services(),
        back_to_back: vec![BackToBackRow {
            frame: "64".to_owned(),
            repetitions: 50,
            mean_packets: 8123.4,
            min_packets: 7_990,
            max_packets: 8_192,
            deviation_packets: 44.1,
            burst_pps: 2.1e6,
            seconds: 0.003_868,
            corrected_buffer_seconds: Some(0.000_475),
        }],
        soak: Some(Soak {
            frame: "64".to_owned(),
            load_pps: 1.5e6,
            seconds: 1800.0,
            sent: 2_700_000_000,
            lost: 311,
            points: (1..=60)
                .map(|i| SoakPoint {
                    at_seconds: f64::from(i) * 30.0,
                    sent: 45_000_000,
                    lost: if i % 17 == 0 { 104 } else { 0 },
                    p99_ns: Some(48_000 + noise(i) % 9_000),
                })
                .collect(),
        }),
        reconfiguration: vec![ReconfigurationRow {
            change: "contract table swapped".to_owned(),
            frame: "64".to_owned(),
            load_pps: 1.84e6,
            changes: 10,
            sent: 18_400_000,
            lost: 92,
            blocked_seconds: 92.0 / 1.84e6,
        }],
        replay: Some(replay()),
        notes: vec!["Both ends of the traffic run on the same two cores as the gateway.".to_owned()],
    }
}

/// Begun and broken off at once.
pub(super) fn bare() -> Report {
    Report {
        completeness: Completeness::Partial {
            why: "interrupted".to_owned(),
        },
        command: Vec::new(),
        machine: Machine::default(),
        setup: Setup::default(),
        calibration: Vec::new(),
        throughput: Vec::new(),
        latency: Vec::new(),
        services: Vec::new(),
        back_to_back: Vec::new(),
        soak: None,
        reconfiguration: Vec::new(),
        replay: None,
        notes: Vec::new(),
        ..full()
    }
}

/// One of everything, and in it one point.
pub(super) fn single() -> Report {
    let mut report = full();
    report.throughput.truncate(1);
    report.throughput[0].goals.truncate(1);
    report.throughput[0].trials.truncate(1);
    report.latency.truncate(1);
    report.latency[0].curve.truncate(1);
    report.services.truncate(1);
    if let Some(soak) = &mut report.soak {
        soak.points.truncate(1);
    }
    if let Some(replay) = &mut report.replay {
        replay.gap_errors.truncate(1);
    }
    report
}

/// Numbers that are none, and zeros where something is divided by.
pub(super) fn not_finite() -> Report {
    let mut report = full();
    report.seconds = f64::INFINITY;
    report.machine.empty_system_call_ns = f64::NAN;
    report.setup.line_rate_bps = Some(f64::INFINITY);
    report.calibration[0].error_ppm = f64::NAN;
    for row in &mut report.throughput {
        for goal in &mut row.goals {
            goal.lower_pps = Some(f64::NAN);
            goal.upper_pps = Some(f64::NEG_INFINITY);
            goal.throughput_pps = Some(f64::INFINITY);
            goal.l1_bps = None;
            goal.loss_ratio = f64::NAN;
        }
        for trial in &mut row.trials {
            trial.load_pps = f64::NAN;
            trial.sent = 0;
        }
    }
    for row in &mut report.latency {
        row.load_pps = f64::NAN;
        row.percentiles = Percentiles::default();
        row.curve[0].percentile = f64::NAN;
    }
    for row in &mut report.services {
        row.offered_bps = f64::NAN;
        row.multiple = Some(f64::INFINITY);
        row.sent = 0;
    }
    if let Some(soak) = &mut report.soak {
        soak.points.iter_mut().for_each(|point| point.at_seconds = f64::NAN);
    }
    report.reconfiguration[0].changes = 0;
    report.reconfiguration[0].blocked_seconds = f64::NEG_INFINITY;
    report
}

/// As large as numbers get.
pub(super) fn huge() -> Report {
    let mut report = full();
    report.seconds = f64::MAX;
    report.setup.line_rate_bps = Some(f64::MAX);
    for row in &mut report.throughput {
        row.goals[0].throughput_pps = Some(f64::MAX);
        row.goals[0].l1_bps = Some(1e30);
        row.goals[0].lower_pps = Some(f64::MIN);
        for trial in &mut row.trials {
            trial.load_pps *= 1e300;
            trial.sent = u64::MAX;
            trial.lost = u64::MAX;
        }
    }
    for row in &mut report.latency {
        row.packets = u64::MAX;
        row.percentiles.max = u64::MAX;
        row.curve[3].ns = u64::MAX;
    }
    for row in &mut report.services {
        (row.sent, row.received, row.lost) = (u64::MAX, u64::MAX, u64::MAX);
        row.dscp_out.iter_mut().for_each(|count| count.packets = u64::MAX);
        row.dscp_in = 255;
    }
    if let Some(replay) = &mut report.replay {
        replay.gap_errors[0] = GapBucket {
            low_ns: i64::MIN,
            high_ns: i64::MAX,
            gaps: u64::MAX,
        };
    }
    report
}

/// [`HOSTILE`] wherever a text can be.
pub(super) fn hostile() -> Report {
    hostile_with(HOSTILE)
}

/// A text wherever a text can be.
pub(super) fn hostile_with(text: &str) -> Report {
    let plain = full();
    let mut value = serde_json::to_value(&plain).unwrap_or_default();
    replace_texts(&mut value, text);
    let mut report: Report = serde_json::from_value(value).unwrap_or(plain);
    report.completeness = Completeness::Partial { why: text.to_owned() };
    report
}

fn replace_texts(value: &mut serde_json::Value, by: &str) {
    match value {
        // These two are no free text: what follows could not be read again.
        serde_json::Value::String(text) if ["mlr", "rfc2544", "complete"].contains(&text.as_str()) => {}
        serde_json::Value::String(text) => by.clone_into(text),
        serde_json::Value::Array(values) => values.iter_mut().for_each(|value| replace_texts(value, by)),
        serde_json::Value::Object(fields) => fields.values_mut().for_each(|value| replace_texts(value, by)),
        _ => {}
    }
}

fn machine() -> Machine {
    let mitigation = |name: &str, state: &str| Mitigation {
        name: name.to_owned(),
        state: state.to_owned(),
    };
    Machine {
        cpu: "Example(R) Processor 9000 @ 2.50GHz".to_owned(),
        cores: 8,
        governor: Some("performance".to_owned()),
        kernel: "Linux 6.12.48 #1 SMP PREEMPT_DYNAMIC Debian 6.12.48-1 (2025-09-20)".to_owned(),
        kernel_options: vec!["isolcpus=2-5".to_owned(), "nohz_full=2-5".to_owned()],
        hypervisor: Some("QEMU Standard PC".to_owned()),
        memory_bytes: 16 << 30,
        mitigations: vec![
            mitigation("meltdown", "PTI"),
            mitigation("spectre_v1", "usercopy/swapgs barriers and __user pointer sanitization"),
            mitigation("spectre_v2", "Retpolines"),
        ],
        clock_source: Some("tsc".to_owned()),
        empty_system_call_ns: 131.4,
        pktgen: "0.1.0".to_owned(),
    }
}

fn setup() -> Setup {
    let interface = |name: &str, role: &str| Interface {
        name: name.to_owned(),
        role: role.to_owned(),
        driver: "veth".to_owned(),
        driver_version: "1.0".to_owned(),
        mtu: 1500,
        rx_queues: 1,
        tx_queues: 1,
        rings: Some(RingSizes {
            rx: 512,
            tx: 512,
            rx_max: 4096,
            tx_max: 4096,
        }),
        coalescing: Some(Coalescing {
            rx_us: 50,
            adaptive: true,
            ..Coalescing::default()
        }),
        offloads: [("tx", false), ("tso", true), ("gso", true), ("gro", false)]
            .map(|(name, on)| OffloadState {
                name: name.to_owned(),
                on,
            })
            .into(),
        xdp_mode: "driver".to_owned(),
        zero_copy: Some(false),
        ..Interface::default()
    };
    let stream = |name: &str, dscp, multiple, share| StreamRow {
        name: name.to_owned(),
        protocol: "UDP".to_owned(),
        frames: "64".to_owned(),
        mean_frame_bytes: 64.0,
        flows: 4096,
        dscp,
        multiple: Some(multiple),
        share,
    };
    Setup {
        engine: "af_xdp".to_owned(),
        between: "weir 0.1.0, contracts.toml".to_owned(),
        interfaces: vec![interface("bench0", "sends"), interface("bench1", "receives")],
        line_rate_bps: Some(1e10),
        sockets: Some(SocketSetup {
            umem_frames: 8192,
            frame_bytes: 2048,
            fill_ring: 4096,
            completion_ring: 4096,
            rx_ring: 2048,
            tx_ring: 2048,
        }),
        transmit_cores: vec![2],
        receive_cores: vec![3],
        streams: vec![
            stream("web", 46, 0.9, 0.5),
            stream("storage", 26, 0.9, 0.3),
            stream("ads", 10, 3.0, 0.2),
        ],
    }
}

fn calibration(asked_pps: f64, error_ppm: f64) -> CalibrationRow {
    CalibrationRow {
        asked_pps,
        achieved_pps: asked_pps * (1.0 + error_ppm / 1e6),
        error_ppm,
        seconds: 1.0,
        lateness_p50_ns: 2_100,
        lateness_p99_ns: 14_700,
        lateness_p99_9_ns: 88_000,
        lateness_max_ns: 1_240_000,
    }
}

fn throughput() -> Vec<ThroughputRow> {
    [
        ("64", 64.0, 1.842e6),
        ("128", 128.0, 1.801e6),
        ("256", 256.0, 1.733e6),
        ("512", 512.0, 1.512e6),
        ("1024", 1024.0, 1.104e6),
        ("1518", 1518.0, 0.797e6),
        ("IMIX 28x64,16x570,4x1518", 353.8, 1.601e6),
    ]
    .into_iter()
    .map(|(frame, mean, ndr): (&str, f64, f64)| {
        let goal = |name: &str, loss_ratio: f64, load: f64| GoalRow {
            name: name.to_owned(),
            loss_ratio,
            lower_pps: Some(load),
            upper_pps: Some(load * 1.005),
            throughput_pps: Some(load * (1.0 - loss_ratio)),
            l1_bps: Some(load * (1.0 - loss_ratio) * (mean + 20.0) * 8.0),
        };
        ThroughputRow {
            frame: frame.to_owned(),
            mean_frame_bytes: mean,
            method: Method::Mlr,
            goals: vec![goal("NDR", 0.0, ndr), goal("PDR", 0.005, ndr * 1.031)],
            trials: trials(ndr),
        }
    })
    .collect()
}

/// Loss begins at the knee and grows with the square of what is beyond it.
fn trials(knee: f64) -> Vec<TrialRow> {
    (0..40u32)
        .map(|i| {
            let load_pps = knee * (0.96 + 0.1 * f64::from(i % 20) / 20.0);
            let beyond = (load_pps / knee - 1.0).max(0.0);
            let sent = load_pps as u64;
            TrialRow {
                load_pps,
                seconds: 1.0,
                sent,
                lost: (sent as f64 * beyond * beyond * 4.0) as u64 + if beyond > 0.0 { noise(i) % 700 } else { 0 },
                valid: i != 7,
            }
        })
        .collect()
}

fn latency() -> Vec<LatencyRow> {
    [
        ("0 %", 1_000.0, 9_000.0, 0.30),
        ("10 %", 189_000.0, 11_000.0, 0.42),
        ("50 %", 945_000.0, 19_000.0, 0.55),
        ("90 %", 1.7e6, 44_000.0, 0.8),
    ]
    .into_iter()
    .map(|(share, load_pps, median, slope): (&str, f64, f64, f64)| {
        let at = |one_in: f64| (median * (1.0 + slope * (one_in / 2.0).ln()).max(0.2)) as u64;
        let packets = (load_pps * 60.0) as u64;
        LatencyRow {
            label: format!("{share} of PDR"),
            frame: "64".to_owned(),
            load_pps,
            packets,
            percentiles: Percentiles {
                min: at(1.0),
                p50: at(2.0),
                p90: at(10.0),
                p99: at(100.0),
                p99_9: at(1e3),
                p99_99: at(1e4),
                p99_9999: at(1e6),
                max: at(packets as f64),
            },
            curve: (0..120)
                .map(|i| 2f64.powf(f64::from(i) / 5.0))
                .map(|one_in| CurvePoint {
                    percentile: 100.0 - 100.0 / one_in,
                    ns: at(one_in),
                })
                .collect(),
        }
    })
    .collect()
}

fn services() -> Vec<ServiceRow> {
    let service = |name: &str, stream: &str, dscp_in: u8, multiple: f64, lost: u64, marked: u64| ServiceRow {
        service: name.to_owned(),
        stream: stream.to_owned(),
        offered_pps: 100_000.0 * multiple,
        offered_bps: 36_800_000.0 * multiple,
        multiple: Some(multiple),
        sent: 6_000_000,
        received: 6_000_000 - lost,
        lost,
        reordered: 12,
        duplicated: 0,
        dscp_in,
        dscp_out: vec![
            DscpCount {
                dscp: dscp_in,
                packets: 6_000_000 - lost - marked,
            },
            DscpCount {
                dscp: 1,
                packets: marked,
            },
        ],
        latency: Some(ServiceLatency {
            p50: 18_400,
            p99: 61_000,
            p99_9: 140_000,
            max: 1_310_000,
        }),
        jitter_ns: Some(3_900),
    };
    vec![
        service("web", "a", 46, 0.9, 0, 0),
        service("web", "b", 46, 0.9, 31, 2_000),
        service("storage", "", 26, 0.9, 0, 180_000),
        service("ads", "", 10, 3.0, 4_010_000, 1_900_000),
    ]
}

fn replay() -> Replay {
    let edges = [
        -1_000_000, -100_000, -10_000, -1_000, -100, 0, 100, 1_000, 10_000, 100_000, 1_000_000,
    ];
    let gaps = [0, 3, 240, 9_100, 41_000, 52_000, 8_800, 310, 12, 1];
    Replay {
        file: "datacentre.pcapng".to_owned(),
        timing: "original gaps".to_owned(),
        packets: 111_467,
        loops: 1,
        gap_errors: edges
            .windows(2)
            .zip(gaps)
            .map(|(edge, gaps)| GapBucket {
                low_ns: edge[0],
                high_ns: edge[1],
                gaps,
            })
            .collect(),
        gap_error_p99_ns: Some(4_700),
    }
}

/// The same each time, and without a pattern the eye would find.
fn noise(i: u32) -> u64 {
    crate::flow::mix(u64::from(i)) >> 8
}

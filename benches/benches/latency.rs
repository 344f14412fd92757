//! What conforming packets wait for when a flood of nonconforming ones wants the same shaped port.
//!
//!     cargo bench -p weir-benches --bench latency [-- --quick] [--json]
//!
//! ```text
//!   namespace           namespace "gateway"               namespace
//!   pktgen ─── veth ─── site   core 1   wan, rate ── veth ─── pktgen
//!   core 0              weir                              core 0
//! ```
//!
//! Three loads in turns: the conforming service alone; the same with the flood; the same with as much traffic that weir drops
//! on arrival, which is as much work for the machine and none for the port.
//!
//! Needs root and two cores; without root it says so and succeeds. Ends with status 1 when a conforming packet was lost.
#![deny(unsafe_code)]

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::atomic::AtomicBool;
use std::thread;
use std::time::Duration;

use control::appliance::Appliance;
use control::status::Status;
use hdrhistogram::Histogram;
use pktgen::lab::{self, Namespace, VethEnd, links};
use pktgen::load::own_pps;
use pktgen::stream::{FlowOrder, Protocol, Stream};
use pktgen::trial::{End, Generator, GeneratorConfig, ServiceTraffic, ServiceTrial, Trial, TrialLoad};
use weir_benches::precedence::{Awake, Precedence};
use weir_benches::summary::Summary;
use weir_benches::workload::FCS;
use weir_benches::{Error, machine};

/// Sender and receiver have the first core, weir's worker has the second to itself.
const GENERATOR_CPU: usize = 0;
const WORKER_CPU: usize = 1;

/// As the kernel knows the threads of generator and worker.
const THREADS: [&str; 2] = ["pktgen", "weir-cpu1"];

const SEED: u64 = 20_261_121;

/// Between two windows: for the other processes of the machine, which have to wait in a window.
const REST: Duration = Duration::from_millis(300);

/// Part of the port's rate that the conforming service sends, and that it may send.
const SENT: f64 = 0.3;
const GRANTED: f64 = 0.6;

/// The flood, in port rates.
const FLOOD: f64 = 10.0;

/// Flows of each service.
const SERVICE_FLOWS: u32 = 64;

/// The bound: so many times the latency without the flood, and one frame's serialisation time.
const BOUND: f64 = 1.1;

/// By how much one packet of a hundred may leave late in any case: what a flood of short gaps costs a sender that does not lag.
const LAG_NS: f64 = 120_000.0;

/// A port and the frames it sends. Floods of 42,000 to 172,000 packets a second: what one core sends, forwards to a socket and
/// receives beside them without falling behind.
#[derive(Clone, Copy)]
struct Case {
    rate_mbps: u64,
    /// Bytes of a frame with FCS.
    frame_len: u16,
}

const CASES: [Case; 3] = [
    Case {
        rate_mbps: 50,
        frame_len: 1_500,
    },
    Case {
        rate_mbps: 200,
        frame_len: 1_500,
    },
    Case {
        rate_mbps: 25,
        frame_len: 200,
    },
];

/// What is sent beside the conforming service.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Beside {
    Nothing,
    /// As much as the flood, dropped by weir on arrival.
    Policed,
    /// Uncontracted, in the class of the conforming service.
    Flood,
}

const BESIDE: [Beside; 3] = [Beside::Nothing, Beside::Policed, Beside::Flood];

/// What one trial came to for the conforming service.
struct Window {
    beside: Beside,
    latency: Histogram<u64>,
    sent: u64,
    lost: u64,
    /// Of the lost, those that weir dropped.
    dropped: u64,
    /// Share of what was sent beside it that did not arrive.
    beside_lost: f64,
    /// Whether other processes could be kept off the cores.
    has_precedence: bool,
    /// Why it says nothing about weir, if it does not.
    fault: Option<&'static str>,
}

/// The windows of one case.
struct Measured {
    case: Case,
    windows: Vec<Window>,
}

/// Namespaces and links; gone when this is dropped.
struct Topology {
    site: Namespace,
    gateway: Namespace,
    wan: Namespace,
}

fn main() -> Result<(), Error> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let has = |name: &str| arguments.iter().any(|argument| argument == name);
    if let Err(error) = lab::privileged() {
        println!("SKIPPED (needs root): the latency bench: {error}");
        return Ok(());
    }
    if thread::available_parallelism()?.get() < 2 {
        println!("SKIPPED (needs two cores): the latency bench");
        return Ok(());
    }
    let (rounds, window) = if has("--quick") {
        (3, Duration::from_millis(200))
    } else {
        (12, Duration::from_millis(250))
    };
    let before = machine::empty_syscall_ns();
    let topology = Topology::new()?;
    let measured = CASES
        .iter()
        .map(|&case| topology.measure(case, rounds, window))
        .collect::<Result<Vec<_>, _>>()?;
    let syscall_ns = [before, machine::empty_syscall_ns()];
    if has("--json") {
        print_json(&measured, window, syscall_ns);
    } else {
        print_table(&measured, window, syscall_ns);
    }
    let lost: u64 = measured
        .iter()
        .flat_map(Measured::valid)
        .map(|window| window.lost)
        .sum();
    if lost > 0 {
        return Err(format!("{lost} conforming packets were lost").into());
    }
    Ok(())
}

impl Case {
    fn rate_bps(self) -> u64 {
        self.rate_mbps * 1_000_000
    }

    /// How long the port is busy with one frame: its rate counts IP packets.
    fn frame_ns(self) -> f64 {
        let ip_bytes = usize::from(self.frame_len) - FCS - ETHERNET;
        (8 * ip_bytes) as f64 / self.rate_bps() as f64 * 1e9
    }

    fn configuration(self) -> String {
        let rate = self.rate_bps();
        let granted = (rate as f64 * GRANTED) as u64;
        format!(
            "region = \"here\"\n\
             [workers]\ncpus = [{WORKER_CPU}]\npoll = \"busy\"\n\
             [[port]]\nname = \"site\"\ninterface = \"site\"\nside = \"site\"\n\
             [[port]]\nname = \"wan\"\ninterface = \"wan\"\nside = \"wan\"\nrate = {rate}\n\
             [[wire]]\nports = [\"site\", \"wan\"]\n\
             [[class]]\nname = \"gold\"\npriority = 1\ndscp = [46]\nnonconforming_dscp = 45\n\
             [[class]]\nname = \"standard\"\npriority = 7\ndscp = [0]\nnonconforming_dscp = 1\n\
             [[service]]\nname = \"conforming\"\nendpoints = [\"10.1.0.0/24\"]\n\
             [[contract]]\nservice = \"conforming\"\nclass = \"gold\"\nregion = \"here\"\ndirection = \"egress\"\nrate = {granted}\n\
             [[service]]\nname = \"flood\"\nendpoints = [\"10.2.0.0/24\"]\n\
             [[service]]\nname = \"policed\"\nendpoints = [\"10.3.0.0/24\"]\n\
             [[contract]]\nservice = \"policed\"\nclass = \"gold\"\nregion = \"here\"\ndirection = \"egress\"\nrate = \"8 kbit/s\"\nburst = 1500\n\
             [contract.excess]\naction = \"drop\"\n"
        )
    }

    /// The conforming service, and what is sent beside it.
    fn services(self, beside: Beside) -> Result<Vec<ServiceTraffic>, Error> {
        let conforming = ("conforming", "10.1.0.0/24", SENT);
        let other = match beside {
            Beside::Nothing => None,
            Beside::Policed => Some(("policed", "10.3.0.0/24", FLOOD)),
            Beside::Flood => Some(("flood", "10.2.0.0/24", FLOOD)),
        };
        let service = |(name, source, port_rates): (&str, &str, f64)| {
            Ok(ServiceTraffic {
                name: name.to_owned(),
                stream: Stream {
                    id: 0,
                    protocol: Protocol::Udp,
                    source: source.parse()?,
                    destination: "198.51.100.0/24".parse()?,
                    source_ports: 1024..=2047,
                    destination_ports: 443..=443,
                    dscp: 46,
                    frame_bytes: vec![self.frame_len - FCS as u16],
                    flows: SERVICE_FLOWS,
                    flow_order: FlowOrder::Step,
                    vlans: Vec::new(),
                    source_mac: [2, 0, 0, 0, 0, 1],
                    destination_mac: [2, 0, 0, 0, 0, 2],
                    rate_bps: (self.rate_bps() as f64 * port_rates) as u64,
                },
                multiple: None,
            })
        };
        std::iter::once(conforming).chain(other).map(service).collect()
    }
}

impl Topology {
    fn new() -> Result<Self, Error> {
        let topology = Self {
            site: Namespace::new()?,
            gateway: Namespace::new()?,
            wan: Namespace::new()?,
        };
        let pairs = [
            (
                VethEnd::new(&topology.site, "bench0"),
                VethEnd::new(&topology.gateway, "site"),
            ),
            (
                VethEnd::new(&topology.wan, "bench1"),
                VethEnd::new(&topology.gateway, "wan"),
            ),
        ];
        for (a, b) in &pairs {
            links::create_veth(a, b)?;
            for end in [a, b] {
                end.namespace.try_run(|| links::set_up(end.name))?;
            }
        }
        Ok(topology)
    }

    /// Rounds of one window of each kind, each round beginning with another one.
    fn measure(&self, case: Case, rounds: usize, window: Duration) -> Result<Measured, Error> {
        let text = case.configuration();
        let loaded = config::load_texts((Path::new("weir.toml"), &text), &[]).map_err(|report| report.render(false))?;
        let appliance = self.gateway.run(|| Appliance::start(loaded))??;
        let mut windows = Vec::new();
        for number in 0..rounds * BESIDE.len() {
            // Three in turns, each round beginning with another one.
            let beside = BESIDE[(number + number / BESIDE.len()) % BESIDE.len()];
            windows.push(self.window(&appliance, case, beside, window)?);
        }
        appliance.stop();
        Ok(Measured { case, windows })
    }

    fn window(&self, appliance: &Appliance, case: Case, beside: Beside, window: Duration) -> Result<Window, Error> {
        let services = case.services(beside)?;
        let load = TrialLoad::PacketsPerSecond(own_pps(&services));
        let before = appliance.status();
        let mut generator = Generator::start(&GeneratorConfig {
            transmit: End {
                namespace: self.site.clone(),
                interface: "bench0".into(),
            },
            receive: End {
                namespace: self.wan.clone(),
                interface: "bench1".into(),
            },
            services,
            transmit_cpus: vec![GENERATOR_CPU],
            receive_cpu: Some(GENERATOR_CPU),
            seed: SEED,
        })?;
        let awake = Awake::keep(GENERATOR_CPU);
        let precedence = Precedence::take(&THREADS);
        let trial = generator.trial(&load, window, &AtomicBool::new(false))?;
        let has_precedence = precedence.is_some();
        drop(precedence);
        drop((generator, awake));
        thread::sleep(REST);
        let after = appliance.status();
        let [conforming, others @ ..] = &trial.services[..] else {
            return Err("the trial is of no service".into());
        };
        let lost = |service: &ServiceTrial| service.sent.saturating_sub(service.received);
        let sent_beside: u64 = others.iter().map(|service| service.sent).sum();
        let lost_beside: u64 = others.iter().map(lost).sum();
        Ok(Window {
            beside,
            latency: conforming.latency.clone(),
            sent: conforming.sent,
            lost: lost(conforming),
            dropped: dropped_conforming(&after) - dropped_conforming(&before),
            beside_lost: lost_beside as f64 / sent_beside.max(1) as f64,
            has_precedence,
            fault: fault(&trial, case, unseen(&after) - unseen(&before)),
        })
    }
}

/// Why the trial says nothing about weir: a host or another process had one of the cores meanwhile.
fn fault(trial: &Trial, case: Case, unseen: u64) -> Option<&'static str> {
    if trial.lateness.value_at_quantile(0.99) as f64 > case.frame_ns().max(LAG_NS) {
        Some("the generator lagged: one packet of a hundred was later than a frame takes, and than 120 µs")
    } else if !trial.invalid.is_empty() || trial.dropped_by_sender > 0 {
        Some("the generator did not send what was due")
    } else if unseen > 0 {
        Some("packets came while weir's RX ring was full, and weir never saw them")
    } else {
        None
    }
}

/// Packets that came to the site port when its socket had no room.
fn unseen(status: &Status) -> u64 {
    let queues = status
        .ports
        .iter()
        .filter(|port| port.port == "site")
        .flat_map(|port| &port.queues);
    queues
        .flat_map(|queue| ["rx_dropped", "rx_ring_full"].map(|name| queue.xdp_statistics.get(name).copied()))
        .flatten()
        .sum()
}

/// Packets of the conforming service that weir dropped, for whatever reason.
fn dropped_conforming(status: &Status) -> u64 {
    let contracts = status.traffic.contracts.iter();
    contracts
        .filter(|contract| contract.service == "conforming")
        .map(|contract| contract.counters.dropped_in_all().packets)
        .sum()
}

/// What one kind of window came to, over the valid ones; latencies in µs.
struct Row {
    beside: Beside,
    windows: usize,
    p50: Summary,
    p99: Summary,
    p999: Summary,
    sent: u64,
    lost: u64,
    dropped: u64,
    beside_lost: f64,
}

/// The figure itself: the p99 with the flood beside that without.
struct Verdict {
    /// Of the medians over windows.
    median: Comparison,
    /// Of the windows with the smallest p99 of each kind: what a host takes away only ever adds.
    quietest: Comparison,
}

struct Comparison {
    ratio: f64,
    bound_us: f64,
    is_met: bool,
}

impl Measured {
    fn valid(&self) -> impl Iterator<Item = &Window> {
        self.windows.iter().filter(|window| window.fault.is_none())
    }

    /// By place in [`BESIDE`]; `None` without a valid window of each.
    fn rows(&self) -> Option<Vec<Row>> {
        BESIDE.iter().map(|&beside| self.row(beside)).collect()
    }

    fn row(&self, beside: Beside) -> Option<Row> {
        let windows: Vec<&Window> = self.valid().filter(|window| window.beside == beside).collect();
        if windows.is_empty() {
            return None;
        }
        let quantile = |quantile: f64| {
            let values: Vec<f64> = windows.iter().map(|window| latency_us(window, quantile)).collect();
            Summary::of(&values)
        };
        Some(Row {
            beside,
            windows: windows.len(),
            p50: quantile(0.5),
            p99: quantile(0.99),
            p999: quantile(0.999),
            sent: windows.iter().map(|window| window.sent).sum(),
            lost: windows.iter().map(|window| window.lost).sum(),
            dropped: windows.iter().map(|window| window.dropped).sum(),
            beside_lost: windows.iter().map(|window| window.beside_lost).sum::<f64>() / windows.len() as f64,
        })
    }

    /// The flood beside one of the other two.
    fn verdict(&self, rows: &[Row], without: Beside) -> Verdict {
        let [without, flood] = [without, Beside::Flood].map(|beside| rows[beside as usize].p99);
        let compare = |without: f64, flood: f64| {
            let bound_us = BOUND * without + self.case.frame_ns() / 1e3;
            Comparison {
                ratio: flood / without,
                bound_us,
                is_met: flood <= bound_us,
            }
        };
        Verdict {
            median: compare(without.median, flood.median),
            quietest: compare(without.min, flood.min),
        }
    }

    /// How many windows were left out, by reason.
    fn left_out(&self) -> BTreeMap<&'static str, usize> {
        let mut left_out = BTreeMap::new();
        for fault in self.windows.iter().filter_map(|window| window.fault) {
            *left_out.entry(fault).or_default() += 1;
        }
        left_out
    }
}

/// Whether other processes could be kept off the cores in all windows.
fn has_precedence(measured: &[Measured]) -> bool {
    let mut windows = measured.iter().flat_map(|measured| &measured.windows);
    windows.all(|window| window.has_precedence)
}

fn latency_us(window: &Window, quantile: f64) -> f64 {
    window.latency.value_at_quantile(quantile) as f64 / 1e3
}

fn name(beside: Beside) -> &'static str {
    match beside {
        Beside::Nothing => "nothing",
        Beside::Policed => "as much, dropped on arrival",
        Beside::Flood => "the flood",
    }
}

fn print_table(measured: &[Measured], window: Duration, syscall_ns: [f64; 2]) {
    println!("Latency of conforming packets on a shaped port: {}", machine::name());
    println!(
        "Conforming at {:.0} % of the port's rate, flood of {FLOOD} port rates, {SERVICE_FLOWS} flows each (seed {SEED}), windows of {:.1} s, interleaved; medians over windows, µs",
        SENT * 100.0,
        window.as_secs_f64()
    );
    println!(
        "An empty system call took {:.0} ns before, {:.0} ns after. Real-time priority: {}\n",
        syscall_ns[0],
        syscall_ns[1],
        if has_precedence(measured) { "yes" } else { "no" }
    );
    println!(
        "| port | frame | beside the conforming | windows | p50 | p99 (min to max) | p99.9 | conforming sent | lost | of the others lost |"
    );
    println!("|---|---|---|---|---|---|---|---|---|---|");
    for one in measured {
        for row in one.rows().iter().flatten() {
            let Case { rate_mbps, frame_len } = one.case;
            let Summary { median, min, max, .. } = row.p99;
            println!(
                "| {rate_mbps} Mbit/s | {frame_len} B | {} | {} | {:.0} | {median:.0} ({min:.0} to {max:.0}) | {:.0} | {} | {} | {:.1} % |",
                name(row.beside),
                row.windows,
                row.p50.median,
                row.p999.median,
                row.sent,
                row.lost,
                row.beside_lost * 100.0
            );
        }
    }
    println!();
    for one in measured {
        print_verdict(one);
    }
}

fn print_verdict(measured: &Measured) {
    let Case { rate_mbps, frame_len } = measured.case;
    match measured.rows() {
        None => println!("{rate_mbps} Mbit/s, {frame_len} B: no valid window of each kind"),
        Some(rows) => {
            let frame_us = measured.case.frame_ns() / 1e3;
            for without in [Beside::Nothing, Beside::Policed] {
                let verdict = measured.verdict(&rows, without);
                let parts = [("medians", verdict.median), ("quietest windows", verdict.quietest)];
                for (of, comparison) in parts {
                    println!(
                        "{rate_mbps} Mbit/s, {frame_len} B, {of}: p99 {:.2} times that with {}; bound {BOUND} times and a frame of {frame_us:.0} µs = {:.0} µs: {}",
                        comparison.ratio,
                        name(without),
                        comparison.bound_us,
                        if comparison.is_met { "met" } else { "NOT met" },
                    );
                }
            }
        }
    }
    for (reason, count) in measured.left_out() {
        println!("  left out {count} of {} windows: {reason}", measured.windows.len());
    }
}

fn print_json(measured: &[Measured], window: Duration, syscall_ns: [f64; 2]) {
    let cases: Vec<_> = measured
        .iter()
        .map(|measured| {
            let rows = measured.rows().unwrap_or_default();
            let json = |comparison: &Comparison| {
                serde_json::json!({
                    "ratio": comparison.ratio,
                    "bound_us": comparison.bound_us,
                    "met": comparison.is_met,
                })
            };
            let verdict = |without: Beside| {
                (!rows.is_empty()).then(|| {
                    let verdict = measured.verdict(&rows, without);
                    serde_json::json!({ "medians": json(&verdict.median), "quietest": json(&verdict.quietest) })
                })
            };
            serde_json::json!({
                "rate_bps": measured.case.rate_bps(),
                "frame_bytes": measured.case.frame_len,
                "frame_us": measured.case.frame_ns() / 1e3,
                "rows": rows.iter().map(row_json).collect::<Vec<_>>(),
                "flood_over_nothing": verdict(Beside::Nothing),
                "flood_over_policed": verdict(Beside::Policed),
                "windows": measured.windows.len(),
                "left_out": measured.left_out(),
            })
        })
        .collect();
    let report = serde_json::json!({
        "machine": machine::name(),
        "empty_syscall_ns": syscall_ns,
        "has_precedence": has_precedence(measured),
        "window_seconds": window.as_secs_f64(),
        "seed": SEED,
        "cases": cases,
    });
    println!("{report:#}");
}

fn row_json(row: &Row) -> serde_json::Value {
    serde_json::json!({
        "beside": name(row.beside),
        "p50_us": row.p50.json(),
        "p99_us": row.p99.json(),
        "p999_us": row.p999.json(),
        "windows": row.windows,
        "conforming_sent": row.sent,
        "conforming_lost": row.lost,
        "conforming_dropped_by_weir": row.dropped,
        "beside_lost_share": row.beside_lost,
    })
}

/// Bytes of an Ethernet header.
const ETHERNET: usize = 14;

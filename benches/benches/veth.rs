//! What AF_XDP forwards on veth, bare and with weir's whole pipeline, side by side.
//!
//!     cargo bench -p weir-benches --bench veth [-- --quick] [--json] [--short | --long]
//!
//! ```text
//!   namespace           namespace "gateway"             namespace
//!   flood ──── veth ──── site   core 1   wan ──── veth ──── sink
//!   core 0               bare or weir                   counts, drops
//! ```
//!
//! Needs root and two cores; without root it says so and succeeds.
#![deny(unsafe_code)]

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use af_xdp::device;
use aya::programs::xdp::XdpMode;
use control::appliance::Appliance;
use pktgen::lab::{self, Namespace, VethEnd, links};
use weir_benches::bare::Bare;
use weir_benches::live::{Flood, FloodConfig};
use weir_benches::sink::Sink;
use weir_benches::summary::Summary;
use weir_benches::workload::{self, FLOWS, Flow, LONG, Random, SHORT};
use weir_benches::{Error, machine};

/// The flood and everything that arrives runs on the first core, the forwarder has the second to itself.
const GENERATOR_CPU: usize = 0;
const FORWARDER_CPU: usize = 1;

const SEED: u32 = 20_261_121;

/// From the start of the flood to the start of measuring: rings filled, caches warm.
const WARM_UP: Duration = Duration::from_millis(300);

/// Which forwarder.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Forwarder {
    Bare,
    Weir,
}

/// Namespaces and links; gone when this is dropped.
struct Topology {
    generator: Namespace,
    gateway: Namespace,
    /// Where the sink is; held, because a namespace that nobody holds is gone.
    _end: Namespace,
    flood_index: u32,
    sink: Sink,
}

/// What the windows of one frame length came to.
struct Measured {
    frame_len: usize,
    bare_mpps: Vec<f64>,
    weir_mpps: Vec<f64>,
    /// Smallest rate of the flood: far above the others, or it is the bottleneck.
    flood_mpps: f64,
    /// Empty system call before each round, in ns.
    syscall_ns: Vec<f64>,
    nonconforming: f64,
}

fn main() -> Result<(), Error> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let has = |name: &str| arguments.iter().any(|argument| argument == name);
    if let Err(error) = lab::privileged() {
        println!("SKIPPED (needs root): the veth bench: {error}");
        return Ok(());
    }
    let (rounds, window) = if has("--quick") {
        (3, Duration::from_millis(300))
    } else {
        (21, Duration::from_millis(500))
    };
    let lengths: &[usize] = match (has("--short"), has("--long")) {
        (true, false) => &[SHORT],
        (false, true) => &[LONG],
        _ => &[SHORT, LONG],
    };
    let topology = Topology::new()?;
    let flows = workload::flows(&mut Random::new(u64::from(SEED)));
    let mut measured = Vec::new();
    for &frame_len in lengths {
        measured.push(topology.compare(&flows, frame_len, rounds, window)?);
    }
    if has("--json") {
        print_json(&measured, window);
    } else {
        print_table(&measured, window);
    }
    Ok(())
}

impl Topology {
    fn new() -> Result<Self, Error> {
        let [generator, gateway, end] = [Namespace::new()?, Namespace::new()?, Namespace::new()?];
        let pairs = [
            (VethEnd::new(&generator, "flood"), VethEnd::new(&gateway, "site")),
            (VethEnd::new(&gateway, "wan"), VethEnd::new(&end, "sink")),
        ];
        for (a, b) in &pairs {
            links::create_veth(a, b)?;
            for end in [a, b] {
                end.namespace.try_run(|| links::set_up(end.name))?;
            }
        }
        let flood_index = generator.run(|| device::index("flood"))??;
        let sink = end.run(|| Sink::attach(device::index("sink")?, XdpMode::Skb))??;
        Ok(Self {
            generator,
            gateway,
            _end: end,
            flood_index,
            sink,
        })
    }

    /// Rounds of one window each, in turns first the one and first the other, so that neither profits from a drift.
    fn compare(&self, flows: &[Flow], frame_len: usize, rounds: usize, window: Duration) -> Result<Measured, Error> {
        let mut measured = Measured {
            frame_len,
            bare_mpps: Vec::new(),
            weir_mpps: Vec::new(),
            flood_mpps: f64::INFINITY,
            syscall_ns: Vec::new(),
            nonconforming: 0.0,
        };
        for round in 0..rounds {
            measured.syscall_ns.push(machine::empty_syscall_ns());
            let order = [Forwarder::Bare, Forwarder::Weir];
            for at in 0..2 {
                let forwarder = order[(round + at) % 2];
                let mpps = self.window(forwarder, flows, window, &mut measured)?;
                match forwarder {
                    Forwarder::Bare => measured.bare_mpps.push(mpps),
                    Forwarder::Weir => measured.weir_mpps.push(mpps),
                }
            }
        }
        Ok(measured)
    }

    /// Sets a forwarder up, floods it for a window, takes it down. Returns what arrived, in millions of packets a second.
    fn window(
        &self,
        forwarder: Forwarder,
        flows: &[Flow],
        window: Duration,
        measured: &mut Measured,
    ) -> Result<f64, Error> {
        let frame_len = measured.frame_len;
        let flood = || self.flood(flows, frame_len, window);
        let ([arrived, sent], nonconforming) = self.gateway.run(|| match forwarder {
            Forwarder::Bare => Ok::<_, Error>((with_bare(flood)?, None)),
            Forwarder::Weir => with_weir(flood).map(|(rates, share)| (rates, Some(share))),
        })??;
        measured.flood_mpps = measured.flood_mpps.min(sent);
        measured.nonconforming = nonconforming.unwrap_or(measured.nonconforming);
        Ok(arrived)
    }

    /// Floods for a window; returns the rate that arrived and the rate that was sent.
    fn flood(&self, flows: &[Flow], frame_len: usize, window: Duration) -> Result<[f64; 2], Error> {
        let begun = Instant::now();
        let flood = Flood::start(&FloodConfig {
            namespace: &self.generator,
            interface_index: self.flood_index,
            cpu: GENERATOR_CPU,
            flows,
            frame_len,
            seed: SEED,
        })?;
        std::thread::sleep(WARM_UP);
        let (start, before) = (Instant::now(), self.sink.arrived()?);
        std::thread::sleep(window);
        let (end, after) = (Instant::now(), self.sink.arrived()?);
        let sent = flood.stop()?;
        let packets = after[0] - before[0];
        if after[1] - before[1] != packets * (frame_len - workload::FCS) as u64 {
            return Err("packets of another length have arrived".into());
        }
        let mpps = |packets: u64, time: Duration| packets as f64 / time.as_secs_f64() / 1e6;
        Ok([mpps(packets, end - start), mpps(sent, begun.elapsed())])
    }
}

fn with_bare(flood: impl FnOnce() -> Result<[f64; 2], Error>) -> Result<[f64; 2], Error> {
    let mut bare = Bare::bind([("site", device::index("site")?), ("wan", device::index("wan")?)])?;
    let stop = Arc::new(AtomicBool::new(false));
    let told = stop.clone();
    let thread = std::thread::spawn(move || {
        let pinned = machine::pin(FORWARDER_CPU);
        bare.run(&told);
        pinned
    });
    let rates = flood();
    stop.store(true, Ordering::Relaxed);
    thread.join().map_err(|_| "the bare forwarder has panicked")??;
    rates
}

/// The appliance as `weir run` starts it. Returns also the share of packets that did not conform.
fn with_weir(flood: impl FnOnce() -> Result<[f64; 2], Error>) -> Result<([f64; 2], f64), Error> {
    let loaded = workload::configuration("site", "wan", FORWARDER_CPU)?;
    let weir = Appliance::start(loaded)?;
    let rates = flood();
    let status = weir.stop();
    let (mut conforming, mut nonconforming) = (0, 0);
    for contract in &status.traffic.contracts {
        conforming += contract.counters.conforming.packets;
        nonconforming += contract.counters.nonconforming.packets;
    }
    Ok((
        rates?,
        nonconforming as f64 / (conforming + nonconforming).max(1) as f64,
    ))
}

/// Weir's share of the bare rate: of the medians, and the median over the rounds.
fn ratios(measured: &Measured) -> [f64; 2] {
    let [bare, weir] = [&measured.bare_mpps, &measured.weir_mpps];
    let by_round: Vec<f64> = bare.iter().zip(weir).map(|(bare, weir)| weir / bare).collect();
    let of_medians = Summary::of(weir).median / Summary::of(bare).median;
    [of_medians, Summary::of(&by_round).median]
}

fn print_table(measured: &[Measured], window: Duration) {
    println!("On veth, one worker: {}", machine::name());
    println!(
        "{} contracts, {FLOWS} flows drawn at random (seed {SEED}), {} rounds of {:.1} s each, interleaved; sink: generic XDP\n",
        workload::SERVICES,
        measured[0].bare_mpps.len(),
        window.as_secs_f64(),
    );
    println!("| frame | forwarder | Mpps median | min | max | ratio of medians | median of ratios |");
    println!("|---|---|---|---|---|---|---|");
    for measured in measured {
        let [of_medians, median_of] = ratios(measured);
        let row = |name: &str, values: &[f64], ratio: &str| {
            let Summary { median, min, max, .. } = Summary::of(values);
            let frame_len = measured.frame_len;
            println!("| {frame_len} B | {name} | {median:.3} | {min:.3} | {max:.3} | {ratio} |");
        };
        row("bare", &measured.bare_mpps, "1 | 1");
        row(
            "weir",
            &measured.weir_mpps,
            &format!("{of_medians:.3} | {median_of:.3}"),
        );
    }
    println!();
    for measured in measured {
        let syscall = Summary::of(&measured.syscall_ns);
        println!(
            "{} B: flood at least {:.1} Mpps; {:.0} % of weir's packets nonconforming; empty system call {:.0} ns ({:.0} to {:.0})",
            measured.frame_len,
            measured.flood_mpps,
            measured.nonconforming * 100.0,
            syscall.median,
            syscall.min,
            syscall.max
        );
    }
}

fn print_json(measured: &[Measured], window: Duration) {
    let rows: Vec<_> = measured
        .iter()
        .map(|measured| {
            let [of_medians, median_of] = ratios(measured);
            serde_json::json!({
                "frame_bytes": measured.frame_len,
                "bare_mpps": Summary::of(&measured.bare_mpps).json(),
                "weir_mpps": Summary::of(&measured.weir_mpps).json(),
                "bare_windows_mpps": measured.bare_mpps,
                "weir_windows_mpps": measured.weir_mpps,
                "ratio_of_medians": of_medians,
                "median_of_ratios": median_of,
                "flood_mpps": measured.flood_mpps,
                "empty_syscall_ns": measured.syscall_ns,
                "nonconforming_share": measured.nonconforming,
            })
        })
        .collect();
    let report = serde_json::json!({
        "machine": machine::name(),
        "window_seconds": window.as_secs_f64(),
        "seed": SEED,
        "frames": rows,
    });
    println!("{report:#}");
}

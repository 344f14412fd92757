//! What the generator costs: making frames in memory, sending them beside a bare transmitter of one constant frame, and
//! the engine `live` beside a flood that does less.
//!
//!     cargo bench -p weir-benches --bench generate [-- --quick] [--json]
//!
//! ```text
//!   namespace                    namespace
//!   sender ── core 1 ── veth ── sink: counts and drops, in the generic XDP path; scoring receiver
//! ```
//!
//! Sending needs root and two cores; without root that part says so and is left out.
#![deny(unsafe_code)]

use std::hint::black_box;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use af_xdp::device;
use aya::programs::xdp::XdpMode;
use dataplane::clock::{Clock, MonotonicClock, Nanos};
use pktgen::frame_builder::FrameBuilder;
use pktgen::lab::{self, Namespace, VethEnd, links};
use pktgen::live::{self, Portion, Receiver, ReceiverConfig, Sender, SenderConfig};
use pktgen::stream::{FlowOrder, Stream};
use pktgen::transmit::{Load, Transmitter};
use weir_benches::live::{Flood, FloodConfig};
use weir_benches::sender::{Bare, stream};
use weir_benches::sink::Sink;
use weir_benches::summary::Summary;
use weir_benches::workload::{self, Random, SHORT};
use weir_benches::{Error, allocation, machine};

#[global_allocator]
static ALLOCATOR: allocation::Counting = allocation::Counting;

const SEED: u64 = 20_261_121;
const OUR_CPU: usize = 0;
const SENDER_CPU: usize = 1;
/// From the start of a sender to the start of measuring.
const WARM_UP: Duration = Duration::from_millis(200);
/// From the last packet made to the last one scored.
const DRAIN: Duration = Duration::from_millis(50);

/// A line of the table of frames in memory.
struct Built {
    name: &'static str,
    ns: Summary,
    allocations: u64,
}

/// Packets per second of one sender, in millions, a value for each round.
struct SentBy {
    name: &'static str,
    mpps: Vec<f64>,
}

fn main() -> Result<(), Error> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let has = |name: &str| arguments.iter().any(|argument| argument == name);
    let (rounds, window) = if has("--quick") { (3, 200) } else { (15, 500) };
    let window = Duration::from_millis(window);
    // Before pinning, which hides the other cores.
    let machine = machine::name();
    machine::pin(SENDER_CPU)?;
    let built = build(rounds)?;
    if let Some(row) = built.iter().find(|row| row.allocations > 0) {
        return Err(format!("{}: {} allocations while making frames", row.name, row.allocations).into());
    }
    // Out of the senders' way.
    machine::pin(OUR_CPU)?;
    let (sent, flooded) = match lab::privileged() {
        Ok(()) => (send(rounds, window)?, flood(rounds, window)?),
        Err(error) => {
            eprintln!("SKIPPED (needs root): sending: {error}");
            (Vec::new(), Vec::new())
        }
    };
    if has("--json") {
        print_json(&machine, &built, &[&sent, &flooded]);
    } else {
        print_built(&machine, &built);
        print_sent("sender, core 1; sink: generic XDP", &sent, window);
        print_sent("engine live, core 1; sink and receiver: native XDP", &flooded, window);
    }
    Ok(())
}

fn build(rounds: usize) -> Result<Vec<Built>, Error> {
    const FRAMES: u64 = 1 << 16;
    let stream = stream()?;
    let random = Stream {
        flow_order: FlowOrder::Random,
        ..stream.clone()
    };
    let imix = Stream {
        frame_bytes: [vec![60; 7], vec![590; 4], vec![1514]].concat(),
        ..stream.clone()
    };
    let long = Stream {
        frame_bytes: vec![1514],
        ..stream.clone()
    };
    let mut rows = Vec::new();
    for (name, stream) in [
        ("64 B, flows in turn", stream),
        ("64 B, flows at random", random),
        ("IMIX 7:4:1 of 64, 594, 1518 B", imix),
        ("1518 B", long),
    ] {
        let builder = FrameBuilder::new(&stream, SEED)?;
        let mut packet = vec![0; 2048];
        let mut ns = Vec::new();
        let mut counted = 0;
        for _ in 0..rounds {
            let allocations = allocation::count();
            let start = machine::thread_ns();
            for sequence in 0..FRAMES {
                let packet = &mut packet[..builder.frame_bytes(sequence)];
                builder.write(black_box(packet), 0, sequence, Nanos(sequence));
            }
            let took = machine::thread_ns() - start;
            counted += allocation::count() - allocations;
            ns.push(took as f64 / FRAMES as f64);
        }
        rows.push(Built {
            name,
            ns: Summary::of(&ns),
            allocations: counted,
        });
    }
    Ok(rows)
}

fn send(rounds: usize, window: Duration) -> Result<Vec<SentBy>, Error> {
    let [near, far] = link()?;
    let sink = far.run(|| Sink::attach(device::index("sink")?, XdpMode::Skb))??;
    let mut rows = [
        ("bare, one constant frame", Vec::new()),
        ("pktgen, 4,096 flows", Vec::new()),
    ];
    for round in 0..rounds {
        for at in 0..2 {
            let which = (round + at) % 2;
            let mpps = near.run(|| match which {
                0 => bare(&sink, window),
                _ => generator(&sink, window),
            })??;
            rows[which].1.push(mpps);
        }
    }
    Ok(rows.into_iter().map(|(name, mpps)| SentBy { name, mpps }).collect())
}

/// The interfaces `sender` and `sink`, each in a namespace of its own.
fn link() -> Result<[Namespace; 2], Error> {
    let [near, far] = [Namespace::new()?, Namespace::new()?];
    links::create_veth(&VethEnd::new(&near, "sender"), &VethEnd::new(&far, "sink"))?;
    near.try_run(|| links::set_up("sender"))?;
    far.try_run(|| links::set_up("sink"))?;
    Ok([near, far])
}

/// The rate at the sink while `run` sends on a thread of its own.
fn rate(
    sink: &Sink,
    window: Duration,
    run: impl FnOnce(&AtomicBool) -> Result<(), Error> + Send + 'static,
) -> Result<f64, Error> {
    let stop = Arc::new(AtomicBool::new(false));
    let told = stop.clone();
    let thread = std::thread::spawn(move || {
        machine::pin(SENDER_CPU)
            .and_then(|()| run(&told))
            .map_err(|error| error.to_string())
    });
    let mpps = watch(window, || Ok(sink.arrived()?[0]));
    stop.store(true, Ordering::Release);
    thread.join().map_err(|_| "the sender has panicked")??;
    mpps
}

/// Millions a second, by a counter that is read twice.
fn watch(window: Duration, count: impl Fn() -> Result<u64, Error>) -> Result<f64, Error> {
    std::thread::sleep(WARM_UP);
    let (start, before) = (Instant::now(), count()?);
    std::thread::sleep(window);
    let (took, after) = (start.elapsed(), count()?);
    Ok((after - before) as f64 / took.as_secs_f64() / 1e6)
}

fn generator(sink: &Sink, window: Duration) -> Result<f64, Error> {
    let start = MonotonicClock.now();
    let (mut transmitter, remote) = Transmitter::new("sender", 0, &[stream()?], SEED, start, MonotonicClock)?;
    remote.change(start, Load::Max(vec![1]));
    rate(sink, window, move |stop| {
        transmitter.run(Nanos(u64::MAX), stop);
        Ok(())
    })
}

fn bare(sink: &Sink, window: Duration) -> Result<f64, Error> {
    let mut bare = Bare::bind("sender")?;
    rate(sink, window, move |stop| {
        bare.run(stop);
        Ok(())
    })
}

/// What the engine `live` makes and scores, beside the flood of the veth bench.
fn flood(rounds: usize, window: Duration) -> Result<Vec<SentBy>, Error> {
    let [near, far] = link()?;
    let flows = workload::flows(&mut Random::new(SEED));
    let mut rows = [
        ("flood of the veth bench, counted", Vec::new()),
        ("live, counted", Vec::new()),
        ("live, scored, latency of every 16th", Vec::new()),
        ("live, scored, latency of all", Vec::new()),
    ];
    for round in 0..rounds {
        for at in 0..rows.len() {
            let which = (round + at) % rows.len();
            let mpps = match which {
                0 => {
                    let flood = Flood::start(&FloodConfig {
                        namespace: &near,
                        interface_index: near.run(|| device::index("sender"))??,
                        cpu: SENDER_CPU,
                        flows: &flows,
                        frame_len: SHORT,
                        seed: SEED as u32,
                    });
                    counted(&far, window, flood?, |flood| flood.stop().map(drop))?
                }
                1 => counted(&far, window, live(&near)?, |sender| Ok(sender.stop().map(drop)?))?,
                2 => scored(&near, &far, window, 16)?,
                _ => scored(&near, &far, window, 1)?,
            };
            rows[which].1.push(mpps);
        }
    }
    Ok(rows.into_iter().map(|(name, mpps)| SentBy { name, mpps }).collect())
}

fn live(near: &Namespace) -> Result<Sender, Error> {
    let portions = [Portion {
        stream: stream()?,
        weight: 1.0,
    }];
    let config = SenderConfig {
        interface: "sender",
        cpu: Some(SENDER_CPU),
        portions: &portions,
        load: live::Load::Max,
        packets: None,
        start: None,
        phase: 0,
        seed: SEED,
        after: None,
    };
    Ok(near.run(|| Sender::start(&config))??)
}
/// At a sink in the driver, which is what redirected frames reach.
fn counted<S>(
    far: &Namespace,
    window: Duration,
    sender: S,
    stop: impl FnOnce(S) -> Result<(), Error>,
) -> Result<f64, Error> {
    let sink = far.run(|| Sink::attach(device::index("sink")?, XdpMode::Driver))?;
    let mpps = sink.and_then(|sink| watch(window, || Ok(sink.arrived()?[0])));
    stop(sender)?;
    mpps
}

/// At a receiver that looks at every number, and in the end must have seen all that the interface took.
fn scored(near: &Namespace, far: &Namespace, window: Duration, latency_every: u64) -> Result<f64, Error> {
    let config = ReceiverConfig {
        latency_every,
        ..ReceiverConfig::new("sink", &[0])
    };
    let receiver = far.run(|| Receiver::attach(&config))??;
    let sender = live(near)?;
    let mpps = watch(window, || Ok(receiver.read()?.by_stream[&(0, 0)].unique));
    let sent = sender.stop()?;
    std::thread::sleep(DRAIN);
    let lost = receiver.read()?.lost(0, 0, sent.packets);
    if sent.refused.is_some_and(|refused| lost != refused) {
        return Err(format!("{lost} packets lost, of which the interface refused {:?}", sent.refused).into());
    }
    mpps
}

fn print_built(machine: &str, built: &[Built]) {
    println!(
        "The generator: {machine}; empty system call {:.0} ns\n",
        machine::empty_syscall_ns()
    );
    println!("| making a frame, ns | median | min | p90 | allocations |");
    println!("|---|---|---|---|---|");
    for Built { name, ns, allocations } in built {
        println!(
            "| {name} | {:.1} | {:.1} | {:.1} | {allocations} |",
            ns.median, ns.min, ns.p90
        );
    }
}

/// The first row is what the others are held against.
fn print_sent(heading: &str, sent: &[SentBy], window: Duration) {
    let [first, ..] = sent else { return };
    println!(
        "\n{} rounds of {:.1} s each, interleaved; 64 B; empty system call {:.0} ns\n",
        first.mpps.len(),
        window.as_secs_f64(),
        machine::empty_syscall_ns()
    );
    println!("| {heading} | Mpps median | min | max | ratio of medians | median of ratios |");
    println!("|---|---|---|---|---|---|");
    for row in sent {
        let Summary { median, min, max, .. } = Summary::of(&row.mpps);
        let [of_medians, median_of] = ratios(first, row);
        println!(
            "| {} | {median:.3} | {min:.3} | {max:.3} | {of_medians:.3} | {median_of:.3} |",
            row.name
        );
    }
}

fn ratios(first: &SentBy, other: &SentBy) -> [f64; 2] {
    let by_round: Vec<f64> = first
        .mpps
        .iter()
        .zip(&other.mpps)
        .map(|(first, other)| other / first)
        .collect();
    let of_medians = Summary::of(&other.mpps).median / Summary::of(&first.mpps).median;
    [of_medians, Summary::of(&by_round).median]
}

fn print_json(machine: &str, built: &[Built], tables: &[&[SentBy]; 2]) {
    let built: Vec<_> = built
        .iter()
        .map(|row| serde_json::json!({ "name": row.name, "ns": row.ns.json(), "allocations": row.allocations }))
        .collect();
    let [sent, flooded] = tables.map(|table| {
        let row = |row: &SentBy| {
            serde_json::json!({ "name": row.name, "mpps": Summary::of(&row.mpps).json(), "rounds_mpps": row.mpps })
        };
        table.iter().map(row).collect::<Vec<_>>()
    });
    let report = serde_json::json!({
        "machine": machine, "making_a_frame": built, "sending": sent, "flooding": flooded,
    });
    println!("{report:#}");
}

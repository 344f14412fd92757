//! What the generator costs: making frames in memory, and sending them beside a bare transmitter of one constant frame.
//!
//!     cargo bench -p weir-benches --bench generate [-- --quick] [--json]
//!
//! ```text
//!   namespace                    namespace
//!   sender ── core 1 ── veth ── sink: counts in the generic XDP path, drops
//! ```
//!
//! Sending needs root and two cores; without root that part says so and is left out.
#![deny(unsafe_code)]

use std::hint::black_box;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use af_xdp::{Frame, Kick, Socket, SocketConfig, Umem, UmemConfig, device};
use dataplane::clock::{Clock, MonotonicClock, Nanos};
use pktgen::frame_builder::FrameBuilder;
use pktgen::lab::{self, Namespace, VethEnd, links};
use pktgen::stream::{FlowOrder, Protocol, Stream};
use pktgen::transmit::{Load, Transmitter};
use weir_benches::sink::Sink;
use weir_benches::summary::Summary;
use weir_benches::{Error, allocation, machine};

#[global_allocator]
static ALLOCATOR: allocation::Counting = allocation::Counting;

const SEED: u64 = 20_261_121;
const SENDER_CPU: usize = 1;
/// From the start of a sender to the start of measuring.
const WARM_UP: Duration = Duration::from_millis(200);
/// As the generator has them.
const RING: u32 = 2048;
const BATCH: u32 = 64;

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
    let sent = match lab::privileged() {
        Ok(()) => send(rounds, window)?,
        Err(error) => {
            eprintln!("SKIPPED (needs root): sending: {error}");
            Vec::new()
        }
    };
    if has("--json") {
        print_json(&machine, &built, &sent);
    } else {
        print_table(&machine, &built, &sent, window);
    }
    Ok(())
}

/// 4,096 flows of UDP over IPv4, as most tests of forwarders have them.
fn stream() -> Result<Stream, Error> {
    Ok(Stream {
        id: 0,
        protocol: Protocol::Udp,
        source: "198.18.0.0/16".parse()?,
        destination: "198.19.0.0/16".parse()?,
        source_ports: 1024..=65535,
        destination_ports: 9..=9,
        dscp: 10,
        frame_bytes: vec![60],
        flows: 4096,
        flow_order: FlowOrder::Step,
        vlans: Vec::new(),
        source_mac: [2, 0, 0, 0, 0, 1],
        destination_mac: [2, 0, 0, 0, 0, 2],
        rate_bps: 0,
    })
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
    let [near, far] = [Namespace::new()?, Namespace::new()?];
    links::create_veth(&VethEnd::new(&near, "sender"), &VethEnd::new(&far, "sink"))?;
    near.try_run(|| links::set_up("sender"))?;
    far.try_run(|| links::set_up("sink"))?;
    let sink = far.run(|| Sink::attach(device::index("sink")?))??;
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
    std::thread::sleep(WARM_UP);
    let (start, before) = (Instant::now(), sink.arrived()?);
    std::thread::sleep(window);
    let (took, after) = (start.elapsed(), sink.arrived()?);
    stop.store(true, Ordering::Release);
    thread.join().map_err(|_| "the sender has panicked")??;
    Ok((after[0] - before[0]) as f64 / took.as_secs_f64() / 1e6)
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

/// The same socket and batch, and a frame that is written once.
fn bare(sink: &Sink, window: Duration) -> Result<f64, Error> {
    let (umem, mut pool) = Umem::new(&UmemConfig {
        frame_count: 2 * RING,
        ..UmemConfig::default()
    })?;
    let config = SocketConfig {
        rx_size: 64,
        fill_size: 64,
        tx_size: RING,
        tx_budget: Some(RING),
        ..SocketConfig::default()
    };
    let mut socket = Socket::bind(&umem, device::index("sender")?, 0, &config, &mut Vec::new())?;
    let builder = FrameBuilder::new(&stream()?, SEED)?;
    for frame in &mut pool {
        let fits = umem.set_len(frame, 60);
        debug_assert!(fits);
        builder.write(umem.bytes_mut(frame), 0, 0, Nanos(0));
    }
    rate(sink, window, move |stop| {
        while !stop.load(Ordering::Acquire) {
            turn(&mut socket, &umem, &mut pool);
        }
        Ok(())
    })
}

fn turn(socket: &mut Socket, umem: &Umem, pool: &mut Vec<Frame>) {
    socket.complete(pool);
    for _ in 0..socket.tx_room().min(BATCH as usize) {
        let Some(mut frame) = pool.pop() else { break };
        // A frame comes back empty: only its length is set, its bytes are as they were.
        let fits = umem.set_len(&mut frame, 60);
        debug_assert!(fits);
        if let Err(frame) = socket.push_tx(frame) {
            pool.push(frame);
            break;
        }
    }
    socket.submit_tx();
    while socket.tx_pending() > 0 && matches!(socket.kick_tx(), Kick::Again | Kick::Dropped) {}
}

fn print_table(machine: &str, built: &[Built], sent: &[SentBy], window: Duration) {
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
    if let [bare, _] = sent {
        println!(
            "\n{} rounds of {:.1} s each, interleaved; 64 B; sink: generic XDP\n",
            bare.mpps.len(),
            window.as_secs_f64()
        );
        println!("| sender | Mpps median | min | max | ratio of medians | median of ratios |");
        println!("|---|---|---|---|---|---|");
        for row in sent {
            let Summary { median, min, max, .. } = Summary::of(&row.mpps);
            let [of_medians, median_of] = ratios(bare, row);
            println!(
                "| {} | {median:.3} | {min:.3} | {max:.3} | {of_medians:.3} | {median_of:.3} |",
                row.name
            );
        }
    }
}

fn ratios(bare: &SentBy, other: &SentBy) -> [f64; 2] {
    let by_round: Vec<f64> = bare
        .mpps
        .iter()
        .zip(&other.mpps)
        .map(|(bare, other)| other / bare)
        .collect();
    let of_medians = Summary::of(&other.mpps).median / Summary::of(&bare.mpps).median;
    [of_medians, Summary::of(&by_round).median]
}

fn print_json(machine: &str, built: &[Built], sent: &[SentBy]) {
    let built: Vec<_> = built
        .iter()
        .map(|row| serde_json::json!({ "name": row.name, "ns": row.ns.json(), "allocations": row.allocations }))
        .collect();
    let sent: Vec<_> = sent
        .iter()
        .map(|row| serde_json::json!({ "name": row.name, "mpps": Summary::of(&row.mpps).json(), "rounds_mpps": row.mpps }))
        .collect();
    let report = serde_json::json!({ "machine": machine, "making_a_frame": built, "sending": sent });
    println!("{report:#}");
}

//! What the engine `live` makes and scores on one core: 64-byte frames of 4,096 flows into a veth whose other end scores.
//!
//!     cargo run --release -p pktgen --example live_flood [-- SECONDS [FRAME_BYTES]]
//!
//! Prints millions of packets a second that were made, and that were scored, in several rounds, with the clock read on
//! arrival of every packet and of each sixteenth; and how late packets are made on schedules. Needs root; works in
//! namespaces of its own.

use std::error::Error;
use std::thread;
use std::time::{Duration, Instant};

use pktgen::lab::{Namespace, VethEnd, links};
use pktgen::live::{Load, Portion, Receiver, ReceiverConfig, Sender, SenderConfig};
use pktgen::stream::{FlowOrder, Protocol, Stream};

const ROUNDS: usize = 5;
/// Bytes of the frame check sequence, which is spoken of and never seen.
const FCS: u16 = 4;

fn main() -> Result<(), Box<dyn Error>> {
    let mut arguments = std::env::args().skip(1);
    let seconds: f64 = arguments.next().map_or(Ok(1.0), |text| text.parse())?;
    let frame_bytes: u16 = arguments.next().map_or(Ok(64), |text| text.parse())?;
    let (a, b) = (Namespace::new()?, Namespace::new()?);
    links::create_veth(&VethEnd::new(&a, "left"), &VethEnd::new(&b, "right"))?;
    a.try_run(|| links::set_up("left"))?;
    b.try_run(|| links::set_up("right"))?;
    let stream = Stream {
        id: 1,
        protocol: Protocol::Udp,
        source: "10.0.0.0/8".parse()?,
        destination: "198.51.100.0/24".parse()?,
        source_ports: 1024..=65535,
        destination_ports: 443..=443,
        dscp: 46,
        frame_bytes: vec![frame_bytes.saturating_sub(FCS)],
        flows: 4096,
        flow_order: FlowOrder::Step,
        vlans: Vec::new(),
        source_mac: [2, 0, 0, 0, 0, 1],
        destination_mac: [2, 0, 0, 0, 0, 2],
        rate_bps: 0,
    };
    let portions = [Portion { stream, weight: 1.0 }];
    println!("latency of every   made   scored (Mpps)     lost   p50 ns");
    for _ in 0..ROUNDS {
        for latency_every in [1, 16] {
            round(&a, &b, &portions, latency_every, Duration::from_secs_f64(seconds))?;
        }
    }
    println!("packets per second    late by at most, of half, of 99.9 %, of all (ns)    one way p50, p99.9");
    for rate in [10_000.0, 100_000.0, 1_000_000.0] {
        paced(&a, &b, &portions, rate, seconds)?;
    }
    Ok(())
}

fn paced(a: &Namespace, b: &Namespace, portions: &[Portion], rate: f64, seconds: f64) -> Result<(), Box<dyn Error>> {
    let receiver = b.run(|| Receiver::attach(&ReceiverConfig::new("right", &[1])))??;
    let config = SenderConfig {
        load: Load::PacketsPerSecond(rate),
        packets: Some((rate * seconds) as u64),
        ..sending(portions)
    };
    let mut sender = a.run(|| Sender::start(&config))??;
    if !sender.wait(Duration::from_secs_f64(2.0 * seconds))? {
        println!("{rate:18} not reached");
    }
    let sent = sender.stop()?;
    thread::sleep(Duration::from_millis(50));
    let latency = receiver.read()?.by_stream[&(1, 0)].latency.clone();
    let late = |share: f64| {
        let mut left = (share * sent.packets as f64).ceil() as u64;
        let bucket = sent.lags.iter().position(|&packets| {
            left = left.saturating_sub(packets);
            left == 0
        });
        bucket.map_or(0, |bucket| 1u64 << bucket)
    };
    let one_way = |share| latency.quantile(share).map_or(0, |latency| latency.0);
    println!(
        "{rate:18} {:22} {:12} {:12} {:20} {:10}",
        late(0.5),
        late(0.999),
        sent.lag_max.0,
        one_way(0.5),
        one_way(0.999),
    );
    Ok(())
}

fn sending(portions: &[Portion]) -> SenderConfig<'_> {
    SenderConfig {
        interface: "left",
        cpu: Some(0),
        portions,
        load: Load::Max,
        packets: None,
        start: None,
        phase: 0,
        seed: 1,
        after: None,
    }
}

fn round(
    a: &Namespace,
    b: &Namespace,
    portions: &[Portion],
    latency_every: u64,
    window: Duration,
) -> Result<(), Box<dyn Error>> {
    let receiving = ReceiverConfig {
        latency_every,
        ..ReceiverConfig::new("right", &[1])
    };
    let receiver = b.run(|| Receiver::attach(&receiving))??;
    let sender = a.run(|| Sender::start(&sending(portions)))??;
    thread::sleep(Duration::from_millis(100));
    let scored = || Ok::<_, Box<dyn Error>>(receiver.read()?.by_stream[&(1, 0)].unique);
    let (start, sent_before, before) = (Instant::now(), sender.sent()?.packets, scored()?);
    thread::sleep(window);
    let (took, sent_after, after) = (start.elapsed(), sender.sent()?.packets, scored()?);
    let sent = sender.stop()?;
    thread::sleep(Duration::from_millis(50));
    let scores = receiver.read()?;
    let mpps = |packets: u64| packets as f64 / took.as_secs_f64() / 1e6;
    println!(
        "{latency_every:16} {:6.2} {:8.2} {:15} {:8}",
        mpps(sent_after - sent_before),
        mpps(after - before),
        scores.lost(1, 0, sent.packets),
        scores.by_stream[&(1, 0)]
            .latency
            .quantile(0.5)
            .map_or(0, |latency| latency.0),
    );
    Ok(())
}

//! What the engine `live` makes and scores on one core: 64-byte frames of 4,096 flows into a veth whose other end scores.
//!
//!     cargo run --release -p pktgen --example live_flood [-- SECONDS [FRAME_BYTES]]
//!
//! Prints millions of packets a second that were made, and that were scored, in several rounds; and the same with the clock
//! read for each sixteenth packet only. Needs root; works in namespaces of its own.

use std::error::Error;
use std::thread;
use std::time::{Duration, Instant};

use pktgen::flow::Stream;
use pktgen::lab::{Namespace, VethEnd, links};
use pktgen::live::{Load, Portion, Receiver, ReceiverConfig, Sender, SenderConfig};

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
        source: "10.0.0.0/8".parse()?,
        destination: "198.51.100.0/24".parse()?,
        source_ports: 1024..=65535,
        destination_ports: 443..=443,
        dscp: 46,
        frame_bytes: frame_bytes.saturating_sub(FCS),
        flows: 4096,
        vlan: None,
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
    Ok(())
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
    let sending = SenderConfig {
        interface: "left",
        cpu: Some(0),
        portions,
        load: Load::Max,
        packets: None,
        start: None,
        phase: 0,
        seed: 1,
        after: None,
    };
    let sender = a.run(|| Sender::start(&sending))??;
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

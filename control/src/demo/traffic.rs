//! The demo's traffic: one sender in the site, one receiver in the wan, both on AF_XDP, each on a thread of its own.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;

use dataplane::clock::{MonotonicClock, Nanos};
use ipnet::IpNet;
use pktgen::receive::{ReceiveError, Receiver, ScoreReader};
use pktgen::score::Scores;
use pktgen::stream::{FlowOrder, Protocol, Stream};
use pktgen::transmit::{Phase, Remote, TransmitError, Transmitter};

use super::services::{DemoService, SERVICES};
use super::world::{SITE_INTERFACE, SITE_MAC, WAN_INTERFACE, WAN_MAC, World};

/// Why traffic could not be started.
#[derive(Debug, thiserror::Error)]
pub enum TrafficError {
    /// Entering a namespace.
    #[error(transparent)]
    Lab(#[from] pktgen::lab::LabError),
    /// The sender.
    #[error("sender: {0}")]
    Transmit(#[from] TransmitError),
    /// The receiver.
    #[error("receiver: {0}")]
    Receive(#[from] ReceiveError),
    /// A thread.
    #[error("cannot start a thread: {0}")]
    Thread(#[from] std::io::Error),
}

/// Sender and receiver at work.
pub struct Traffic {
    remote: Remote,
    reader: ScoreReader,
    stop: Arc<AtomicBool>,
    threads: Vec<JoinHandle<()>>,
}

/// Seed of flows and offsets: the demo is the same each time.
const SEED: u64 = 0x7765_6972;

impl Traffic {
    /// Binds both ends and starts their threads. The first packet is due at `start`, the last before `end`. `cpu` is the
    /// core they share.
    ///
    /// # Errors
    /// See [`TrafficError`].
    pub fn start(world: &World, start: Nanos, end: Nanos, cpu: Option<usize>) -> Result<Self, TrafficError> {
        let streams: Vec<Stream> = SERVICES
            .iter()
            .enumerate()
            .map(|(id, service)| stream(id as u16, service))
            .collect();
        let ids: Vec<u16> = streams.iter().map(|stream| stream.id).collect();
        let mut receiver = world.wan.try_run(|| {
            let receiver = Receiver::new(WAN_INTERFACE, &ids, MonotonicClock);
            receiver.map_err(TrafficError::from)
        })?;
        let reader = receiver.reader()?;
        let (mut transmitter, remote) = world.site.try_run(|| {
            let sender = Transmitter::new(SITE_INTERFACE, 0, &streams, SEED, start, MonotonicClock);
            sender.map_err(TrafficError::from)
        })?;
        let stop = Arc::new(AtomicBool::new(false));
        let receiver_stop = stop.clone();
        let sender_stop = stop.clone();
        let threads = vec![
            thread("demo-receiver", cpu, move || receiver.run(&receiver_stop))?,
            thread("demo-sender", cpu, move || transmitter.run(end, &sender_stop))?,
        ];
        Ok(Self {
            remote,
            reader,
            stop,
            threads,
        })
    }

    /// Lets a new phase begin at `at`, with all services sending as they do, or nobody.
    #[must_use]
    pub fn phase(&self, at: Nanos, sending: bool) -> bool {
        let rates: Vec<u64> = SERVICES
            .iter()
            .map(|s| if sending { s.offered_bps } else { 0 })
            .collect();
        self.remote.change_rates(at, &rates)
    }

    /// What was sent, by phase and service.
    #[must_use]
    pub fn sent(&self) -> Vec<Phase> {
        self.remote.phases()
    }

    /// What was received.
    #[must_use]
    pub fn received(&self) -> Scores {
        self.reader.snapshot()
    }

    /// Packets that the sender's own device dropped before they reached the gateway.
    #[must_use]
    pub fn dropped_by_sender(&self) -> u64 {
        self.remote.dropped_by_device()
    }
}

impl Drop for Traffic {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Release);
        for thread in self.threads.drain(..) {
            // A thread that panicked has said so itself.
            let _ended = thread.join();
        }
    }
}

fn thread(name: &str, cpu: Option<usize>, run: impl FnOnce() + Send + 'static) -> std::io::Result<JoinHandle<()>> {
    std::thread::Builder::new().name(name.to_owned()).spawn(move || {
        if let Some(id) = cpu {
            // A wish: on a machine with one core all share it.
            let _pinned = core_affinity::set_for_current(core_affinity::CoreId { id });
        }
        run();
    })
}

fn stream(id: u16, service: &DemoService) -> Stream {
    const ETHERNET: u32 = 14;
    // These are literals of `SERVICES`, held against the configuration's own parser by a test there.
    let host = |address: &str| {
        address
            .parse::<std::net::IpAddr>()
            .map_or_else(|_| IpNet::default(), IpNet::from)
    };
    Stream {
        id,
        protocol: Protocol::Udp,
        source: host(service.source),
        destination: host(service.destination),
        source_ports: 20_000..=20_063,
        destination_ports: 443..=443,
        dscp: service.class.dscp,
        frame_bytes: vec![(service.packet_bytes + ETHERNET) as u16],
        flows: 64,
        flow_order: FlowOrder::Step,
        vlans: Vec::new(),
        source_mac: SITE_MAC,
        destination_mac: WAN_MAC,
        rate_bps: service.offered_bps,
    }
}

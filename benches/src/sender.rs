//! What the generator is held against: a bare AF_XDP transmitter, and the stream that it and the generator send.
//!
//! One thread; no thread of its own.

use std::sync::atomic::{AtomicBool, Ordering};

use af_xdp::{Frame, Kick, Socket, SocketConfig, Umem, UmemConfig, device};
use dataplane::clock::Nanos;
use pktgen::frame_builder::FrameBuilder;
use pktgen::stream::{FlowOrder, Protocol, Stream};

use crate::Error;
use crate::workload::FLOWS;

/// As the generator has them.
const RING: u32 = 2048;
const BATCH: u32 = 64;

/// 64 bytes with the FCS that no software sees.
const FRAME_BYTES: u16 = 60;

/// 4,096 flows of UDP over IPv4 in the shortest frames, as most tests of forwarders have them.
///
/// # Errors
/// None: the prefixes are valid.
pub fn stream() -> Result<Stream, Error> {
    Ok(Stream {
        id: 0,
        protocol: Protocol::Udp,
        source: "198.18.0.0/16".parse()?,
        destination: "198.19.0.0/16".parse()?,
        source_ports: 1024..=65535,
        destination_ports: 9..=9,
        dscp: 10,
        frame_bytes: vec![FRAME_BYTES],
        flows: FLOWS as u32,
        flow_order: FlowOrder::Step,
        vlans: Vec::new(),
        source_mac: [2, 0, 0, 0, 0, 1],
        destination_mac: [2, 0, 0, 0, 0, 2],
        rate_bps: 0,
    })
}

/// A transmitter with the socket and the batch of the generator, and frames that were written once, all the same.
pub struct Bare {
    socket: Socket,
    umem: Umem,
    pool: Vec<Frame>,
}

impl Bare {
    /// Binds queue 0 of an interface of the calling thread's network namespace. socket(2), bind(2): CAP_NET_RAW.
    ///
    /// # Errors
    /// The kernel refuses the socket, or there is no such interface.
    pub fn bind(interface: &str) -> Result<Self, Error> {
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
        let socket = Socket::bind(&umem, device::index(interface)?, 0, &config, &mut Vec::new())?;
        let builder = FrameBuilder::new(&stream()?, 0)?;
        for frame in &mut pool {
            let fits = umem.set_len(frame, FRAME_BYTES.into());
            debug_assert!(fits);
            builder.write(umem.bytes_mut(frame), 0, 0, Nanos(0));
        }
        Ok(Self { socket, umem, pool })
    }

    /// Sends until `stop` is set.
    pub fn run(&mut self, stop: &AtomicBool) {
        while !stop.load(Ordering::Acquire) {
            self.turn();
        }
    }

    fn turn(&mut self) {
        let Self { socket, umem, pool } = self;
        socket.complete(pool);
        for _ in 0..socket.tx_room().min(BATCH as usize) {
            let Some(mut frame) = pool.pop() else { break };
            // A frame comes back empty: only its length is set, its bytes are as they were.
            let fits = umem.set_len(&mut frame, FRAME_BYTES.into());
            debug_assert!(fits);
            if let Err(frame) = socket.push_tx(frame) {
                pool.push(frame);
                break;
            }
        }
        socket.submit_tx();
        while socket.tx_pending() > 0 && matches!(socket.kick_tx(), Kick::Again | Kick::Dropped) {}
    }
}

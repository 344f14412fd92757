//! The bare forwarder: what AF_XDP costs when nobody looks at the packets. The yardstick that weir is held against.
//!
//! Same UMEM, sockets, rings, transmit budget, batch and XDP program as a worker of weir with one lane (`control::plan`), and the
//! same order of steps: receive a batch, push its descriptors to the other socket, submit, kick until sent, complete,
//! refill, in both directions. Not one byte of a packet is read.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use af_xdp::{BindMode, Frame, Kick, Socket, SocketConfig, Umem, UmemConfig};
use dataplane::clock::Nanos;
use dataplane::port::{Attached, OnStall, Program, XdpMode};

use crate::Error;

/// Descriptors in each ring, frames, and packets per wake-up, all as `control::plan` has them.
const RING: u32 = 2048;
const FRAMES: u32 = 16_384;
const TX_BUDGET: u32 = 128;
const BATCH: usize = dataplane::frame::BATCH;

/// Both sockets and their frames.
pub struct Bare {
    // Before the sockets: no packet may come to one that is closing.
    _programs: [Attached; 2],
    sockets: [Socket; 2],
    pool: Vec<Frame>,
}

impl Bare {
    /// Binds queue 0 of two interfaces of the calling thread's network namespace and attaches the programs.
    ///
    /// # Errors
    /// The kernel refuses a socket or a program.
    pub fn bind(interfaces: [(&str, u32); 2]) -> Result<Self, Error> {
        let umem_config = UmemConfig {
            frame_count: FRAMES,
            tx_metadata: true,
            ..UmemConfig::default()
        };
        let (umem, mut pool) = Umem::new(&umem_config)?;
        let [site, wan] = interfaces;
        let (site, site_program) = end(&umem, site, &mut pool)?;
        let (wan, wan_program) = end(&umem, wan, &mut pool)?;
        Ok(Self {
            _programs: [site_program, wan_program],
            sockets: [site, wan],
            pool,
        })
    }

    /// Forwards until `stop` is set.
    pub fn run(&mut self, stop: &Arc<AtomicBool>) {
        let [site, wan] = &mut self.sockets;
        while !stop.load(Ordering::Relaxed) {
            forward(site, wan, &mut self.pool);
            forward(wan, site, &mut self.pool);
        }
    }
}

/// One end: socket, program, and the one served by the other.
fn end(umem: &Umem, (name, index): (&str, u32), pool: &mut Vec<Frame>) -> Result<(Socket, Attached), Error> {
    let config = SocketConfig {
        rx_size: RING,
        tx_size: RING,
        fill_size: RING,
        completion_size: RING,
        bind: BindMode::Auto,
        need_wakeup: true,
        tx_budget: Some(TX_BUDGET),
        ..SocketConfig::default()
    };
    let socket = Socket::bind(umem, index, 0, &config, pool)?;
    // One heartbeat for ever: the program does the same work as under weir.
    let mut program = Program::load(OnStall::Closed, Nanos(u64::MAX))?;
    program.heartbeats().set(0, 1);
    program.serve(0, &socket)?;
    let attached = program.attach(name, index, Some(XdpMode::Native))?;
    Ok((socket, attached))
}

#[inline]
fn forward(from: &mut Socket, to: &mut Socket, pool: &mut Vec<Frame>) {
    // Only what fits: a frame that cannot be pushed would have to be dropped.
    let room = to.tx_room().min(BATCH);
    from.receive(room, |frame| {
        if let Err(frame) = to.push_tx(frame) {
            pool.push(frame);
        }
    });
    to.submit_tx();
    let mut pending = to.tx_pending();
    while pending > 0 {
        if !matches!(to.kick_tx(), Kick::Again | Kick::Dropped) {
            break;
        }
        let left = to.tx_pending();
        if left == pending {
            break;
        }
        pending = left;
    }
    to.complete(pool);
    from.refill(pool, usize::MAX);
    // Its outcome is in the socket's own counts.
    let _woken = from.wake_rx();
}

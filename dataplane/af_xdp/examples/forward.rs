//! Forwards packets between queue 0 of two interfaces, both ways, without copying them from one socket to the other.
//!
//! ```console
//! # for n in a b; do ip netns add $n; ip link add veth-$n type veth peer name eth0 netns $n; ip link set veth-$n up; done
//! # ip -n a addr add 10.9.0.1/24 dev eth0; ip -n a link set eth0 up
//! # ip -n b addr add 10.9.0.2/24 dev eth0; ip -n b link set eth0 up
//! # cargo run -p af_xdp --release --example forward -- veth-a veth-b
//! # ip netns exec a ping 10.9.0.2      (in another terminal)
//! # ip netns del a; ip netns del b
//! ```
//!
//! TCP between such namespaces also needs `ethtool -K eth0 tx off` in both: see the README on checksums.

mod support;

use std::error::Error;
use std::time::{Duration, Instant};

use af_xdp::device::{self, Promiscuous};
use af_xdp::{Frame, Socket, SocketConfig, Umem, UmemConfig, poll};
use support::{Attach, Redirect};

/// One interface: its socket, and what keeps packets coming to it.
struct Port {
    name: String,
    socket: Socket,
    forwarded: u64,
    _promiscuous: Promiscuous,
    _redirect: Redirect,
}

impl Port {
    fn open(name: &str, umem: &Umem, pool: &mut Vec<Frame>) -> Result<Self, Box<dyn Error>> {
        let index = device::index(name)?;
        let socket = Socket::bind(umem, index, 0, &SocketConfig::default(), pool)
            .inspect_err(|error| eprintln!("{}", error.remedy().unwrap_or_default()))?;
        let mut redirect = Redirect::load(1, false)?;
        redirect.set(0, socket.fd())?;
        redirect
            .attach(index, Attach::Native)
            .or_else(|_| redirect.attach(index, Attach::Generic))?;
        let promiscuous = Promiscuous::hold(index)?;
        Ok(Self {
            name: name.to_owned(),
            socket,
            forwarded: 0,
            _promiscuous: promiscuous,
            _redirect: redirect,
        })
    }
}

fn main() -> Result<(), Box<dyn Error>> {
    let names: Vec<String> = std::env::args().skip(1).collect();
    let [a, b] = names.as_slice() else {
        return Err("usage: forward INTERFACE INTERFACE".into());
    };
    // Both fill rings full (2 x 2048), and as many again on their way out.
    let (umem, mut pool) = Umem::new(&UmemConfig {
        frame_count: 8192,
        ..UmemConfig::default()
    })?;
    let mut a = Port::open(a, &umem, &mut pool)?;
    let mut b = Port::open(b, &umem, &mut pool)?;

    let mut report = Instant::now() + Duration::from_secs(1);
    loop {
        let moved = forward(&mut a, &mut b, &mut pool) + forward(&mut b, &mut a, &mut pool);
        if moved == 0 {
            poll(&[a.socket.fd(), b.socket.fd()], Some(Duration::from_millis(100)))?;
        }
        if Instant::now() >= report {
            for port in [&a, &b] {
                println!(
                    "{}: {} packets out, {:?}",
                    port.name,
                    port.forwarded,
                    port.socket.statistics()?
                );
            }
            report += Duration::from_secs(1);
        }
    }
}

/// Moves what waits on `from` to `to`, no more than `to` has room for, so that no frame is ever left over.
fn forward(from: &mut Port, to: &mut Port, pool: &mut Vec<Frame>) -> usize {
    to.socket.complete(pool);
    from.socket.refill(pool, 64);
    let _ = from.socket.wake_rx();
    let room = to.socket.tx_room().min(64);
    let received = from.socket.receive(room, |frame| {
        if let Err(empty) = to.socket.push_tx(frame) {
            pool.push(empty);
        } else {
            to.forwarded += 1;
        }
    });
    to.socket.submit_tx();
    // In copy mode one call sends 32 packets at most; what is left after a few is tried again in the next round.
    for _ in 0..4 {
        if !to.socket.kick_tx().again() {
            break;
        }
    }
    received
}

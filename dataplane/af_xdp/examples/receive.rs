//! Prints the first bytes of every packet that arrives on one queue of an interface.
//!
//! ```console
//! # ip link add left type veth peer name right; ip link set left up; ip link set right up
//! # cargo run -p af_xdp --example receive -- left
//! # ping -c 1 -I right ff02::1        (in another terminal)
//! # ip link del left
//! ```
//!
//! Every packet of that queue goes to this program and to no one else. Stop it with Ctrl-C: the XDP program goes with it.

mod support;

use std::error::Error;
use std::time::Duration;

use af_xdp::{Socket, SocketConfig, Umem, UmemConfig, device, poll};
use support::{Attach, Redirect};

fn main() -> Result<(), Box<dyn Error>> {
    let mut arguments = std::env::args().skip(1);
    let interface = arguments.next().ok_or("usage: receive INTERFACE [QUEUE]")?;
    let queue: u32 = arguments.next().map_or(Ok(0), |queue| queue.parse())?;

    let index = device::index(&interface)?;
    let (umem, mut pool) = Umem::new(&UmemConfig::default())?;
    let mut socket = Socket::bind(&umem, index, queue, &SocketConfig::default(), &mut pool)
        .inspect_err(|error| eprintln!("{}", error.remedy().unwrap_or_default()))?;
    let mut redirect = Redirect::load(queue + 1, false)?;
    redirect.set(queue, socket.fd())?;
    redirect
        .attach(index, Attach::Native)
        .or_else(|_| redirect.attach(index, Attach::Generic))?;
    println!(
        "receiving on {interface} queue {queue}, zero-copy: {}",
        socket.is_zero_copy()
    );

    loop {
        poll(&[socket.fd()], Some(Duration::from_secs(1)))?;
        socket.receive(64, |frame| {
            let bytes = umem.bytes(&frame);
            println!("{:5} bytes: {:02x?}", bytes.len(), &bytes[..bytes.len().min(32)]);
            pool.push(frame);
        });
        socket.refill(&mut pool, 64);
        let _ = socket.wake_rx();
    }
}

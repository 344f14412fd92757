//! A network namespace with a pair of veth ends, gone with the thread that made it.

#![allow(dead_code, reason = "each test file uses a part of it")]

#[path = "../../examples/support/mod.rs"]
pub(crate) mod support;

use std::io::Write;
use std::process::Command;
use std::thread;
use std::time::{Duration, Instant};

use af_xdp::{Frame, Socket, SocketConfig, Umem, UmemConfig, device};
use support::{Attach, Redirect};

/// Runs `test` on a thread of its own in a new network namespace, or says loudly that it did not.
pub(crate) fn in_namespace(name: &str, test: impl FnOnce() + Send + 'static) {
    // SAFETY: geteuid has no arguments and cannot fail.
    if unsafe { libc::geteuid() } != 0 {
        skipped("needs root", name);
        return;
    }
    let body = move || {
        // SAFETY: unshare of the network namespace changes only which interfaces this thread sees.
        let unshared = unsafe { libc::unshare(libc::CLONE_NEWNET) };
        assert_eq!(unshared, 0, "{}", std::io::Error::last_os_error());
        // No neighbour discovery: every packet on the wire is one the test has sent.
        std::fs::write("/proc/sys/net/ipv6/conf/default/disable_ipv6", "1").unwrap();
        test();
    };
    if let Err(panic) = thread::spawn(body).join() {
        std::panic::resume_unwind(panic);
    }
}

/// Says so on the standard error itself, which the test harness does not swallow.
pub(crate) fn skipped(why: &str, name: &str) {
    let _ = writeln!(std::io::stderr(), "SKIPPED ({why}): {name}");
}

/// Runs `ip` in this thread's namespace.
pub(crate) fn ip(arguments: &str) {
    let status = Command::new("ip").args(arguments.split_whitespace()).status().unwrap();
    assert!(status.success(), "ip {arguments}");
}

/// A veth pair, both ends up.
pub(crate) fn veth(a: &str, b: &str) {
    ip(&format!("link add {a} type veth peer name {b}"));
    for end in [a, b] {
        device::set_up(end, true).unwrap();
    }
}

/// A small UMEM: 256 frames of 2048 bytes.
pub(crate) fn small_umem() -> (Umem, Vec<Frame>) {
    Umem::new(&UmemConfig {
        frame_count: 256,
        ..UmemConfig::default()
    })
    .unwrap()
}

/// Rings of 64 descriptors.
pub(crate) fn small_rings() -> SocketConfig {
    SocketConfig {
        rx_size: 64,
        tx_size: 64,
        fill_size: 64,
        completion_size: 64,
        ..SocketConfig::default()
    }
}

/// Binds queue 0 of the interface and redirects its packets to the socket.
pub(crate) fn receiver(umem: &Umem, pool: &mut Vec<Frame>, name: &str, attach: Attach) -> (Socket, Redirect) {
    let index = device::index(name).unwrap();
    let socket = Socket::bind(umem, index, 0, &small_rings(), pool).unwrap();
    let mut redirect = Redirect::load(1, false).unwrap();
    redirect.attach(index, attach).unwrap();
    redirect.set(0, socket.fd()).unwrap();
    (socket, redirect)
}

/// An Ethernet frame of the local experimental ethertype (0x88b5) with `payload`.
pub(crate) fn packet(payload: &[u8]) -> Vec<u8> {
    let mut packet = vec![2, 0, 0, 0, 0, 2, 2, 0, 0, 0, 0, 1, 0x88, 0xb5];
    packet.extend_from_slice(payload);
    packet.resize(packet.len().max(60), 0);
    packet
}

/// Takes a frame from the pool, writes the packet into it and pushes it.
pub(crate) fn send(socket: &mut Socket, pool: &mut Vec<Frame>, packet: &[u8]) {
    let umem = socket.umem().clone();
    let mut frame = pool.pop().expect("a frame in the pool");
    umem.reset(&mut frame);
    assert!(umem.set_len(&mut frame, packet.len()));
    umem.bytes_mut(&mut frame).copy_from_slice(packet);
    socket.push_tx(frame).expect("room in the TX ring");
}

/// Repeats `step` until it says true, for two seconds at most.
pub(crate) fn eventually(what: &str, mut step: impl FnMut() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(2);
    while !step() {
        assert!(Instant::now() < deadline, "not within two seconds: {what}");
        thread::sleep(Duration::from_micros(200));
    }
}

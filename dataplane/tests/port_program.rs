//! The XDP program and the kernel: what it takes to load it, and what it does without a socket. Needs root; without it
//! the tests say so and end.

use std::io::Write;
use std::process::Command;

use dataplane::clock::Nanos;
use dataplane::frame::{FramePool, Packet};
use dataplane::port::{OnStall, Port, Program, XdpMode, XdpPort, XdpPortConfig};

/// Set in the child that has given up all other capabilities.
const CHILD: &str = "WEIR_TEST_FEW_CAPABILITIES";

#[test]
fn the_program_loads_without_perfmon() {
    if std::env::var_os(CHILD).is_some() {
        Program::load(OnStall::Open, Nanos(250_000_000)).map(drop).unwrap();
        return;
    }
    if skipped("the_program_loads_without_perfmon") {
        return;
    }
    // The bounding set limits what root's next program may do: these are the capabilities that OPERATING.md names.
    let status = Command::new("setpriv")
        .args(["--bounding-set", "-all,+net_raw,+net_admin,+bpf,+ipc_lock"])
        .arg(std::env::current_exe().unwrap())
        .args(["--exact", "the_program_loads_without_perfmon"])
        .env(CHILD, "1")
        .status();
    assert!(status.unwrap().success());
}

#[test]
fn a_queue_without_a_socket_drops_and_counts() {
    if skipped("a_queue_without_a_socket_drops_and_counts") {
        return;
    }
    // A thread of its own: the namespace ends with it.
    let test = std::thread::spawn(|| {
        nix::sched::unshare(nix::sched::CloneFlags::CLONE_NEWNET).unwrap();
        ip("link add left type veth peer name right");
        ip("link set left up");
        ip("link set right up");
        let program = Program::load(OnStall::Open, Nanos(250_000_000)).unwrap();
        let index = af_xdp::device::index("left").unwrap();
        let attached = program.attach("left", index, Some(XdpMode::Generic)).unwrap();
        // Something broadcast: an ARP request for somebody who is not there.
        ip("addr add 192.0.2.2/24 dev right");
        let _ = Command::new("ping").args(["-c", "1", "-W", "1", "192.0.2.1"]).output();
        let counted = attached.counters(0).unwrap();
        assert!(counted.dropped_no_socket.packets > 0, "{counted:?}");
        assert!(
            counted.dropped_no_socket.bytes >= 42 * counted.dropped_no_socket.packets,
            "{counted:?}"
        );
        assert_eq!(counted.to_kernel.packets, 0, "{counted:?}");
    });
    test.join().unwrap();
}

#[test]
fn a_port_whose_link_is_down_seldom_asks() {
    if skipped("a_port_whose_link_is_down_seldom_asks") {
        return;
    }
    let test = std::thread::spawn(|| {
        nix::sched::unshare(nix::sched::CloneFlags::CLONE_NEWNET).unwrap();
        ip("link add left type veth peer name right");
        ip("link set left up");
        ip("link set right up");
        let config = XdpPortConfig {
            interface_index: af_xdp::device::index("left").unwrap(),
            queue: 0,
            socket: af_xdp::SocketConfig::default(),
            partial_checksums: false,
        };
        let (umem, frames) = af_xdp::Umem::new(&af_xdp::UmemConfig::default()).unwrap();
        let mut pool = FramePool::new(frames);
        let mut port = XdpPort::bind(&umem, &config, &mut pool).unwrap();
        ip("link set left down");
        let mut frame = pool.frames().pop().unwrap();
        assert!(umem.set_len(&mut frame, 60));
        assert!(port.tx(Packet::whole(frame)).is_ok());
        let start = std::time::Instant::now();
        for _ in 0..1000 {
            let _ = port.flush(&mut pool);
        }
        let allowed = 1 + start.elapsed().as_millis() as u64 / 10;
        let asked = port.kicks().network_down;
        assert!((1..=allowed).contains(&asked), "{asked} times, {allowed} allowed");
    });
    test.join().unwrap();
}

fn ip(arguments: &str) {
    let status = Command::new("ip").args(arguments.split_whitespace()).status().unwrap();
    assert!(status.success(), "ip {arguments}");
}

fn skipped(name: &str) -> bool {
    let skip = !nix::unistd::geteuid().is_root();
    if skip {
        let _ = writeln!(std::io::stderr(), "SKIPPED (needs root): {name}");
    }
    skip
}

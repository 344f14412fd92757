//! Sockets on veth, against the kernel itself. Needs root (CAP_NET_ADMIN, CAP_NET_RAW, CAP_BPF, CAP_SYS_ADMIN for the
//! namespace); without it every test is skipped and says so.

mod common;

use std::os::fd::AsFd;
use std::time::Duration;

use af_xdp::{Kick, Socket, SocketConfig, device, poll};
use common::support::{Attach, Redirect};
use common::{eventually, in_namespace, ip, packet, receiver, send, skipped, small_rings, small_umem, veth};

fn one_end_to_the_other(attach: Attach) {
    veth("left", "right");
    let (umem_a, mut pool_a) = small_umem();
    let (umem_b, mut pool_b) = small_umem();
    let left = device::index("left").unwrap();
    let mut a = Socket::bind(&umem_a, left, 0, &small_rings(), &mut pool_a).unwrap();
    let (mut b, _redirect) = receiver(&umem_b, &mut pool_b, "right", attach);
    assert_eq!((a.frames_in_fill(), pool_a.len()), (64, 192));
    assert!(!a.is_zero_copy());
    assert_eq!(a.kick_tx(), Kick::NotNeeded, "nothing was submitted");

    // 600 packets in bursts of 50, which takes every ring around several times.
    let mut expected = 0u32;
    for burst in 0..12u32 {
        for i in 0..50 {
            send(&mut a, &mut pool_a, &packet(&(burst * 50 + i).to_be_bytes()));
        }
        a.submit_tx();
        let mut received = 0;
        eventually("the burst arrives in order", || {
            while a.tx_pending() > 0 && a.kick_tx().again() {}
            received += b.receive(64, |frame| {
                assert_eq!(umem_b.bytes(&frame), packet(&expected.to_be_bytes()));
                assert!(!frame.is_continued());
                expected += 1;
                pool_b.push(frame);
            });
            b.refill(&mut pool_b, 64);
            a.complete(&mut pool_a);
            received == 50
        });
    }
    eventually("every frame comes back", || {
        a.complete(&mut pool_a);
        a.frames_in_tx() == 0
    });
    assert_eq!(pool_a.len() as u64 + a.frames_in_fill(), 256);
    assert_eq!(pool_b.len() as u64 + b.frames_in_fill(), 256);
    assert_eq!(a.bad_descriptors() + b.bad_descriptors(), 0);
    let counts = a.kick_counts();
    assert!(
        counts.again >= 12,
        "50 packets exceed the budget of 32 in one call: {counts:?}"
    );
    assert_eq!((counts.dropped, counts.other, counts.network_down), (0, 0, 0));
    let statistics = b.statistics().unwrap();
    assert_eq!(
        (statistics.rx_dropped, statistics.rx_ring_full),
        (0, 0),
        "{statistics:?}"
    );
}

#[test]
fn packets_cross_in_order_with_a_native_program() {
    in_namespace("packets_cross_in_order_with_a_native_program", || {
        one_end_to_the_other(Attach::Native);
    });
}

#[test]
fn packets_cross_in_order_with_a_generic_program() {
    in_namespace("packets_cross_in_order_with_a_generic_program", || {
        one_end_to_the_other(Attach::Generic);
    });
}

#[test]
fn a_larger_budget_sends_a_full_ring_in_one_call() {
    in_namespace("a_larger_budget_sends_a_full_ring_in_one_call", || {
        veth("left", "right");
        let (umem, mut pool) = small_umem();
        let config = SocketConfig {
            tx_budget: Some(64),
            ..small_rings()
        };
        let mut a = Socket::bind(&umem, device::index("left").unwrap(), 0, &config, &mut pool).unwrap();
        if a.tx_budget() != 64 {
            skipped(
                "kernel without XDP_MAX_TX_SKB_BUDGET",
                "a_larger_budget_sends_a_full_ring_in_one_call",
            );
            return;
        }
        for i in 0..64u32 {
            send(&mut a, &mut pool, &packet(&i.to_be_bytes()));
        }
        assert_eq!(a.tx_room(), 0);
        let extra = pool.pop().unwrap();
        let extra = a.push_tx(extra).expect_err("the ring is full");
        pool.push(extra);
        assert_eq!(a.tx_pending(), 0, "nothing is shown before submit");
        a.submit_tx();
        assert_eq!(a.tx_pending(), 64);
        assert_eq!(a.kick_tx(), Kick::Sent);
        assert_eq!((a.tx_pending(), a.tx_room()), (0, 64));
    });
}

#[test]
fn an_empty_frame_is_not_sent() {
    in_namespace("an_empty_frame_is_not_sent", || {
        veth("left", "right");
        let (umem, mut pool) = small_umem();
        let mut a = Socket::bind(&umem, device::index("left").unwrap(), 0, &small_rings(), &mut pool).unwrap();
        let mut frame = pool.pop().unwrap();
        umem.reset(&mut frame);
        let frame = a.push_tx(frame).expect_err("the kernel would refuse it");
        pool.push(frame);
        a.submit_tx();
        assert_eq!((a.tx_pending(), a.frames_in_tx()), (0, 0));
        assert_eq!(a.statistics().unwrap().tx_invalid_descs, 0);
    });
}

#[test]
fn a_frame_crosses_two_devices_of_one_umem_without_a_copy() {
    in_namespace("a_frame_crosses_two_devices_of_one_umem_without_a_copy", || {
        veth("hosta", "porta");
        veth("portb", "hostb");
        let (umem, mut pool) = small_umem();
        let (mut in_port, _program) = receiver(&umem, &mut pool, "porta", Attach::Native);
        let out = device::index("portb").unwrap();
        let mut out_port = Socket::bind(&umem, out, 0, &small_rings(), &mut pool).unwrap();
        let (umem_host, mut pool_host) = small_umem();
        let host_a = device::index("hosta").unwrap();
        let mut source = Socket::bind(&umem_host, host_a, 0, &small_rings(), &mut pool_host).unwrap();
        let (umem_sink, mut pool_sink) = small_umem();
        let (mut sink, _sink_program) = receiver(&umem_sink, &mut pool_sink, "hostb", Attach::Native);

        for i in 0..30u32 {
            send(&mut source, &mut pool_host, &packet(&i.to_be_bytes()));
        }
        source.submit_tx();
        let mut arrived = Vec::new();
        eventually("30 packets are forwarded", || {
            let _ = source.kick_tx();
            out_port.complete(&mut pool);
            let room = out_port.tx_room();
            let mut forwarded = Vec::new();
            in_port.receive(room, |frame| forwarded.push(frame));
            for mut frame in forwarded {
                // The very bytes that were received leave again, changed in place.
                umem.bytes_mut(&mut frame)[0] = 6;
                out_port
                    .push_tx(frame)
                    .expect("received no more than there was room for");
            }
            out_port.submit_tx();
            let _ = out_port.kick_tx();
            sink.receive(64, |frame| {
                arrived.push(umem_sink.bytes(&frame).to_vec());
                pool_sink.push(frame);
            });
            arrived.len() == 30
        });
        for (i, bytes) in arrived.iter().enumerate() {
            let mut expected = packet(&(i as u32).to_be_bytes());
            expected[0] = 6;
            assert_eq!(*bytes, expected);
        }
        eventually("the frames come back", || {
            out_port.complete(&mut pool);
            out_port.frames_in_tx() == 0
        });
        let with_kernel = in_port.frames_in_fill() + out_port.frames_in_fill();
        assert_eq!(pool.len() as u64 + with_kernel, 256, "free + fill + tx = all");
    });
}

#[test]
fn polling_ends_when_a_packet_comes() {
    in_namespace("polling_ends_when_a_packet_comes", || {
        veth("left", "right");
        let (umem_a, mut pool_a) = small_umem();
        let (umem_b, mut pool_b) = small_umem();
        let mut a = Socket::bind(&umem_a, device::index("left").unwrap(), 0, &small_rings(), &mut pool_a).unwrap();
        let (mut b, _redirect) = receiver(&umem_b, &mut pool_b, "right", Attach::Native);
        assert_eq!(poll(&[b.as_fd()], Some(Duration::from_millis(1))).unwrap(), 0);
        send(&mut a, &mut pool_a, &packet(b"wake"));
        a.submit_tx();
        assert_eq!(a.kick_tx(), Kick::Sent);
        assert_eq!(poll(&[b.as_fd()], Some(Duration::from_secs(2))).unwrap(), 1);
        assert_eq!(b.receive(64, |frame| pool_b.push(frame)), 1);
    });
}

#[test]
fn two_queues_of_one_device_share_a_umem() {
    in_namespace("two_queues_of_one_device_share_a_umem", || {
        ip("link add left numrxqueues 2 numtxqueues 2 type veth peer name right numrxqueues 2 numtxqueues 2");
        for end in ["left", "right"] {
            device::set_up(end, true).unwrap();
        }
        let (left, right) = (device::index("left").unwrap(), device::index("right").unwrap());
        assert_eq!(device::channels("right").unwrap().receiving(), 2);
        let (umem_a, mut pool_a) = small_umem();
        let (umem_b, mut pool_b) = small_umem();
        let mut redirect = Redirect::load(2, false).unwrap();
        let mut senders = Vec::new();
        let mut receivers = Vec::new();
        for queue in 0..2 {
            senders.push(Socket::bind(&umem_a, left, queue, &small_rings(), &mut pool_a).unwrap());
            receivers.push(Socket::bind(&umem_b, right, queue, &small_rings(), &mut pool_b).unwrap());
            redirect.set(queue, receivers[queue as usize].fd()).unwrap();
        }
        redirect.attach(right, Attach::Native).unwrap();
        // What is sent on a queue of one end comes in on the same queue of the other.
        for queue in 0..2u32 {
            let sender = &mut senders[queue as usize];
            assert_eq!((sender.interface_index(), sender.queue()), (left, queue));
            for i in 0..20u32 {
                send(sender, &mut pool_a, &packet(&(queue * 100 + i).to_be_bytes()));
            }
            sender.submit_tx();
            assert_eq!(sender.kick_tx(), Kick::Sent);
            let mut next = queue * 100;
            eventually("twenty packets arrive on the queue", || {
                receivers[queue as usize].receive(64, |frame| {
                    assert_eq!(umem_b.bytes(&frame), packet(&next.to_be_bytes()));
                    pool_b.push(frame);
                    next += 1;
                });
                next == queue * 100 + 20
            });
        }
        let with_kernel: u64 = receivers.iter().map(Socket::frames_in_fill).sum();
        assert_eq!(pool_b.len() as u64 + with_kernel, 256);
    });
}

/// A long run in bursts of pseudo-random size, forwarded with more sent than the forwarder can always take, and at the
/// end an audit: every slot is there once. (Debug builds also check each handover between us and the kernel.)
#[test]
fn after_a_long_run_every_slot_is_there_once() {
    in_namespace("after_a_long_run_every_slot_is_there_once", || {
        veth("hosta", "porta");
        veth("portb", "hostb");
        let (umem, mut pool) = small_umem();
        let (mut in_port, in_program) = receiver(&umem, &mut pool, "porta", Attach::Native);
        let out = device::index("portb").unwrap();
        let mut out_port = Socket::bind(&umem, out, 0, &small_rings(), &mut pool).unwrap();
        let (umem_host, mut pool_host) = small_umem();
        let host_a = device::index("hosta").unwrap();
        let mut source = Socket::bind(&umem_host, host_a, 0, &small_rings(), &mut pool_host).unwrap();

        let (mut random, mut sent, mut forwarded) = (0x2545_f491u32, 0u64, 0u64);
        eprintln!("seed {random:#x}");
        let mut burst = |limit: u32| {
            random = random.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            ((random >> 16) % limit) as usize
        };
        for _ in 0..2000 {
            source.complete(&mut pool_host);
            for _ in 0..burst(40).min(source.tx_room()).min(pool_host.len()) {
                send(&mut source, &mut pool_host, &packet(&sent.to_be_bytes()));
                sent += 1;
            }
            source.submit_tx();
            let _ = source.kick_tx();

            out_port.complete(&mut pool);
            in_port.refill(&mut pool, burst(64));
            let room = out_port.tx_room().min(burst(64));
            forwarded += in_port.receive(room, |frame| out_port.push_tx(frame).expect("there is room")) as u64;
            out_port.submit_tx();
            let _ = out_port.kick_tx();
            let with_kernel = in_port.frames_in_fill() + out_port.frames_in_fill() + out_port.frames_in_tx();
            assert_eq!(
                pool.len() as u64 + with_kernel,
                256,
                "free + fill + tx = all, at any time"
            );
        }
        assert!(forwarded > 10_000, "{forwarded} of {sent}");
        let lost = in_port.statistics().unwrap();

        // No more packets; what waits goes through, and all frames but those in the fill rings come home.
        drop(in_program);
        eventually("everything drains", || {
            let _ = source.kick_tx();
            let room = out_port.tx_room();
            forwarded += in_port.receive(room, |frame| out_port.push_tx(frame).expect("there is room")) as u64;
            out_port.submit_tx();
            let _ = out_port.kick_tx();
            out_port.complete(&mut pool);
            out_port.frames_in_tx() == 0
        });
        let mut slots: Vec<u32> = pool.iter().map(|frame| umem.slot(frame)).collect();
        slots.sort_unstable();
        slots.dedup();
        assert_eq!(slots.len(), pool.len(), "no slot twice");
        assert_eq!(
            pool.len() as u64,
            256 - in_port.frames_in_fill() - out_port.frames_in_fill()
        );
        assert_eq!(in_port.bad_descriptors() + out_port.bad_descriptors(), 0);
        assert_eq!(out_port.statistics().unwrap().tx_invalid_descs, 0);
        assert!(forwarded + lost.rx_dropped + lost.rx_ring_full <= sent, "{lost:?}");
    });
}

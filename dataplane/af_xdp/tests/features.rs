//! Statistics, multi-buffer packets, checksum requests and the modes of waking, on veth. Needs root; without it every
//! test is skipped and says so.

mod common;

use af_xdp::{BindMode, BusyPoll, Frame, Kick, Socket, SocketConfig, Umem, UmemConfig, device};
use common::support::{Attach, Redirect};
use common::{eventually, in_namespace, ip, packet, receiver, send, skipped, small_rings, small_umem, veth};

#[test]
fn an_empty_fill_ring_shows_in_the_statistics() {
    in_namespace("an_empty_fill_ring_shows_in_the_statistics", || {
        veth("left", "right");
        let (umem_a, mut pool_a) = small_umem();
        let (umem_b, _pool_b) = small_umem();
        let left = device::index("left").unwrap();
        let mut a = Socket::bind(&umem_a, left, 0, &small_rings(), &mut pool_a).unwrap();
        let (mut b, _redirect) = receiver(&umem_b, &mut Vec::new(), "right", Attach::Native);
        assert_eq!(b.frames_in_fill(), 0);
        for _ in 0..10 {
            send(&mut a, &mut pool_a, &packet(b"unwanted"));
        }
        a.submit_tx();
        assert_eq!(a.kick_tx(), Kick::Sent);
        eventually("ten packets are counted as dropped", || {
            b.statistics().unwrap().rx_dropped == 10
        });
        assert_eq!(b.statistics().unwrap().rx_fill_ring_empty_descs, 10);
        assert_eq!(b.receive(64, |_| panic!("no frame to receive into")), 0);
    });
}

#[test]
fn a_full_rx_ring_shows_in_the_statistics() {
    in_namespace("a_full_rx_ring_shows_in_the_statistics", || {
        veth("left", "right");
        let (umem_a, mut pool_a) = small_umem();
        let (umem_b, mut pool_b) = small_umem();
        let left = device::index("left").unwrap();
        let mut a = Socket::bind(&umem_a, left, 0, &small_rings(), &mut pool_a).unwrap();
        let config = SocketConfig {
            rx_size: 4,
            ..small_rings()
        };
        let right = device::index("right").unwrap();
        let mut b = Socket::bind(&umem_b, right, 0, &config, &mut pool_b).unwrap();
        let mut redirect = Redirect::load(1, false).unwrap();
        redirect.attach(right, Attach::Native).unwrap();
        redirect.set(0, b.fd()).unwrap();
        for i in 0..10u32 {
            send(&mut a, &mut pool_a, &packet(&i.to_be_bytes()));
        }
        a.submit_tx();
        let _ = a.kick_tx();
        eventually("six of ten find no place", || b.statistics().unwrap().rx_ring_full == 6);
        assert_eq!(b.receive(64, |frame| pool_b.push(frame)), 4);
        assert_eq!(
            pool_b.len() as u64 + b.frames_in_fill(),
            256,
            "dropped packets cost no frame"
        );
    });
}

#[test]
fn jumbo_packets_come_and_go_as_chains() {
    in_namespace("jumbo_packets_come_and_go_as_chains", || {
        veth("left", "right");
        for end in ["left", "right"] {
            ip(&format!("link set {end} mtu 9000"));
        }
        let config = SocketConfig {
            multi_buffer: true,
            bind: BindMode::Copy,
            ..small_rings()
        };
        let (umem_a, mut pool_a) = small_umem();
        let (umem_b, mut pool_b) = small_umem();
        let (left, right) = (device::index("left").unwrap(), device::index("right").unwrap());
        let mut a = Socket::bind(&umem_a, left, 0, &config, &mut pool_a).unwrap();
        let mut b = Socket::bind(&umem_b, right, 0, &config, &mut pool_b).unwrap();
        // A program that accepts no fragments is refused at this MTU.
        let refused = Redirect::load(1, false)
            .unwrap()
            .attach(right, Attach::Native)
            .unwrap_err();
        assert_eq!(refused.raw_os_error(), Some(libc::ERANGE));
        let mut redirect = Redirect::load(1, true).unwrap();
        redirect.attach(right, Attach::Native).unwrap();
        redirect.set(0, b.fd()).unwrap();

        let payload: Vec<u8> = (0..8986u32).map(|i| (i * 7 % 251) as u8).collect();
        let jumbo = packet(&payload);
        assert_eq!(jumbo.len(), 9000);
        for _ in 0..5 {
            push_chain(&mut a, &mut pool_a, &jumbo, 1500);
            a.submit_tx();
            let mut chain: Vec<Frame> = Vec::new();
            eventually("the whole chain arrives", || {
                let _ = a.kick_tx();
                b.receive(64, |frame| chain.push(frame));
                chain.last().is_some_and(|last| !last.is_continued())
            });
            assert!(chain.len() >= 5 && chain[..chain.len() - 1].iter().all(Frame::is_continued));
            let bytes: Vec<u8> = chain.iter().flat_map(|frame| umem_b.bytes(frame).to_vec()).collect();
            assert_eq!(bytes, jumbo);
            pool_b.append(&mut chain);
            b.refill(&mut pool_b, 64);
        }
        eventually("every frame of the chains completes", || {
            a.complete(&mut pool_a);
            a.frames_in_tx() == 0
        });
        assert_eq!(a.statistics().unwrap().tx_invalid_descs, 0);
    });
}

/// Pushes one packet cut into frames of `piece` bytes.
fn push_chain(socket: &mut Socket, pool: &mut Vec<Frame>, packet: &[u8], piece: usize) {
    let umem = socket.umem().clone();
    let pieces = packet.chunks(piece);
    let last = pieces.len() - 1;
    for (i, bytes) in pieces.enumerate() {
        let mut frame = pool.pop().unwrap();
        umem.reset(&mut frame);
        assert!(umem.set_len(&mut frame, bytes.len()));
        umem.bytes_mut(&mut frame).copy_from_slice(bytes);
        frame.set_continued(i < last);
        socket.push_tx(frame).expect("room for the chain");
    }
}

#[test]
fn a_requested_checksum_is_right_at_the_receiver() {
    in_namespace("a_requested_checksum_is_right_at_the_receiver", || {
        veth("left", "right");
        // With this offload veth would pass the request on to the receiving stack, and an AF_XDP receiver sees no sum.
        device::set_offload("left", device::Offload::TxChecksum, false).unwrap();
        let config = UmemConfig {
            frame_count: 256,
            tx_metadata: true,
            ..UmemConfig::default()
        };
        let (umem_a, mut pool_a) = Umem::new(&config).unwrap();
        let (umem_b, mut pool_b) = small_umem();
        let left = device::index("left").unwrap();
        let mut a = match Socket::bind(&umem_a, left, 0, &small_rings(), &mut pool_a) {
            Ok(socket) => socket,
            Err(error) => {
                // Only a kernel before 6.11 may say no.
                assert_eq!(error.step(), Some(&af_xdp::Step::RegisterUmem), "{error}");
                skipped(
                    "kernel without TX metadata",
                    "a_requested_checksum_is_right_at_the_receiver",
                );
                return;
            }
        };
        let (mut b, _redirect) = receiver(&umem_b, &mut pool_b, "right", Attach::Native);
        for len in [8usize, 9, 100, 1401] {
            let udp = udp_with_pseudo_sum(len);
            let mut frame = pool_a.pop().unwrap();
            umem_a.reset(&mut frame);
            assert!(umem_a.set_len(&mut frame, udp.len()));
            umem_a.bytes_mut(&mut frame).copy_from_slice(&udp);
            assert!(umem_a.request_checksum(&mut frame, 34, 6));
            a.push_tx(frame).unwrap();
            a.submit_tx();
            assert_eq!(a.kick_tx(), Kick::Sent);
            let mut got = Vec::new();
            eventually("the packet arrives", || {
                b.receive(1, |frame| {
                    got = umem_b.bytes(&frame).to_vec();
                    pool_b.push(frame);
                }) == 1
            });
            assert_ne!(got[40..42], udp[40..42], "the field was filled in");
            assert_eq!(
                sum(&pseudo_header(len)) + sum(&got[34..34 + len]),
                0xffff,
                "RFC 768 checksum of {len} bytes"
            );
            assert_eq!(
                (&got[..40], &got[42..]),
                (&udp[..40], &udp[42..]),
                "nothing else changed"
            );
        }
        // And without a request the bytes go as they are.
        send(&mut a, &mut pool_a, &udp_with_pseudo_sum(100));
        a.submit_tx();
        assert_eq!(a.kick_tx(), Kick::Sent);
        eventually("the plain packet arrives", || {
            b.receive(1, |frame| assert_eq!(umem_b.bytes(&frame), udp_with_pseudo_sum(100))) == 1
        });
        eventually("all frames complete", || {
            a.complete(&mut pool_a);
            a.frames_in_tx() == 0
        });
    });
}

/// Source 10.0.0.1, destination 10.0.0.2, UDP, `len` bytes with the UDP header.
fn pseudo_header(len: usize) -> Vec<u8> {
    let mut header = vec![10, 0, 0, 1, 10, 0, 0, 2, 0, 17];
    header.extend_from_slice(&(len as u16).to_be_bytes());
    header
}

/// An Ethernet + IPv4 + UDP packet whose checksum field holds the sum of the pseudo header only.
fn udp_with_pseudo_sum(len: usize) -> Vec<u8> {
    let mut packet = vec![2, 0, 0, 0, 0, 2, 2, 0, 0, 0, 0, 1, 8, 0];
    let mut ip = vec![0x45, 0, 0, 0, 0, 0, 0x40, 0, 64, 17, 0, 0, 10, 0, 0, 1, 10, 0, 0, 2];
    ip[2..4].copy_from_slice(&(20 + len as u16).to_be_bytes());
    let header_sum = !(sum(&ip) as u16);
    ip[10..12].copy_from_slice(&header_sum.to_be_bytes());
    packet.extend_from_slice(&ip);
    packet.extend_from_slice(&[0x30, 0x39, 0x00, 0x09]);
    packet.extend_from_slice(&(len as u16).to_be_bytes());
    packet.extend_from_slice(&(sum(&pseudo_header(len)) as u16).to_be_bytes());
    packet.extend((8..len).map(|i| (i * 31 % 253) as u8));
    packet
}

/// The one's complement sum of RFC 1071, folded to 16 bits.
fn sum(bytes: &[u8]) -> u32 {
    let words = bytes
        .chunks(2)
        .map(|pair| u32::from(pair[0]) << 8 | u32::from(*pair.get(1).unwrap_or(&0)));
    let mut total: u32 = words.sum();
    while total > 0xffff {
        total = (total & 0xffff) + (total >> 16);
    }
    total
}

#[test]
fn sockets_work_without_need_wakeup_and_with_busy_polling() {
    in_namespace("sockets_work_without_need_wakeup_and_with_busy_polling", || {
        veth("left", "right");
        let (umem_a, mut pool_a) = small_umem();
        let (umem_b, mut pool_b) = small_umem();
        let (left, right) = (device::index("left").unwrap(), device::index("right").unwrap());
        let config = SocketConfig {
            need_wakeup: false,
            ..small_rings()
        };
        let mut a = Socket::bind(&umem_a, left, 0, &config, &mut pool_a).unwrap();
        let busy = SocketConfig {
            busy_poll: Some(BusyPoll { usecs: 20, budget: 64 }),
            ..small_rings()
        };
        let mut b = Socket::bind(&umem_b, right, 0, &busy, &mut pool_b).unwrap();
        let mut redirect = Redirect::load(1, false).unwrap();
        redirect.attach(right, Attach::Native).unwrap();
        redirect.set(0, b.fd()).unwrap();
        assert_eq!(a.wake_rx(), Kick::NotNeeded);
        send(&mut a, &mut pool_a, &packet(b"awake"));
        a.submit_tx();
        assert_eq!(
            a.kick_tx(),
            Kick::Sent,
            "without the flag every kick with something to send is a call"
        );
        eventually("the packet arrives", || {
            assert_eq!(b.wake_rx(), Kick::Sent);
            b.receive(1, |frame| pool_b.push(frame)) == 1
        });
        assert!(b.wake_counts().sent >= 1);
    });
}

#[test]
fn headroom_moves_the_packet() {
    in_namespace("headroom_moves_the_packet", || {
        veth("left", "right");
        let config = UmemConfig {
            frame_count: 256,
            headroom: 128,
            ..UmemConfig::default()
        };
        let (umem_a, mut pool_a) = Umem::new(&config).unwrap();
        let (umem_b, mut pool_b) = Umem::new(&config).unwrap();
        let left = device::index("left").unwrap();
        let mut a = Socket::bind(&umem_a, left, 0, &small_rings(), &mut pool_a).unwrap();
        let (mut b, _redirect) = receiver(&umem_b, &mut pool_b, "right", Attach::Native);
        let long = packet(&[0x5a; 1500]);
        send(&mut a, &mut pool_a, &long);
        a.submit_tx();
        assert_eq!(a.kick_tx(), Kick::Sent);
        eventually("the packet arrives", || {
            b.receive(1, |frame| {
                assert_eq!(umem_b.capacity(&frame), 2048 - 256 - 128);
                assert_eq!(umem_b.bytes(&frame), long);
            }) == 1
        });
    });
}

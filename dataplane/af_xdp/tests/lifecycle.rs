//! What can go wrong around a socket: queues taken, released, interfaces down and gone. Needs root; without it every
//! test is skipped and says so.

mod common;

use std::os::fd::AsFd;
use std::time::{Duration, Instant};

use af_xdp::device::{self, Offload, Promiscuous};
use af_xdp::{BindMode, Error, Kick, SharedArray, Socket, SocketConfig, Step, Umem, UmemConfig};
use common::support::{Attach, array_value, mappable_array};
use common::{eventually, in_namespace, ip, packet, receiver, send, small_rings, small_umem, veth};

fn bind_error(umem: &Umem, index: u32, queue: u32, config: &SocketConfig) -> Error {
    Socket::bind(umem, index, queue, config, &mut Vec::new()).expect_err("binding should fail")
}

#[test]
fn a_taken_queue_is_reported_with_a_remedy() {
    in_namespace("a_taken_queue_is_reported_with_a_remedy", || {
        veth("left", "right");
        let left = device::index("left").unwrap();
        let (umem, mut pool) = small_umem();
        let _first = Socket::bind(&umem, left, 0, &small_rings(), &mut pool).unwrap();

        let (other, mut other_pool) = small_umem();
        let begin = Instant::now();
        let error = Socket::bind(&other, left, 0, &small_rings(), &mut other_pool).expect_err("the queue is taken");
        assert!(begin.elapsed() >= Duration::from_millis(100), "it is waited for");
        assert_eq!(error.errno(), Some(libc::EBUSY));
        assert_eq!(
            error.step(),
            Some(&Step::Bind {
                interface_index: left,
                queue: 0,
                shared_umem: false
            })
        );
        assert!(error.remedy().unwrap().contains("ss --xdp"), "{error}");
        assert_eq!(other_pool.len(), 256, "a failed bind gives every frame back");

        let error = bind_error(&umem, left, 0, &small_rings());
        assert_eq!(error.errno(), Some(libc::EINVAL), "the same queue with the same UMEM");
        assert!(error.remedy().unwrap().contains("another socket"));
    });
}

#[test]
fn impossible_binds_name_their_remedy() {
    in_namespace("impossible_binds_name_their_remedy", || {
        veth("left", "right");
        let left = device::index("left").unwrap();
        let (umem, _pool) = small_umem();
        let error = bind_error(&umem, left, 7, &small_rings());
        assert_eq!(error.errno(), Some(libc::EINVAL), "no such queue");
        assert!(error.remedy().unwrap().contains("queue"));
        let error = bind_error(&umem, 4242, 0, &small_rings());
        assert_eq!(error.errno(), Some(libc::ENODEV));
        assert!(error.remedy().unwrap().contains("not there"));
        let zero_copy = SocketConfig {
            bind: BindMode::ZeroCopy,
            ..small_rings()
        };
        let error = bind_error(&umem, left, 0, &zero_copy);
        assert_eq!(error.errno(), Some(libc::EOPNOTSUPP));
        assert!(error.remedy().unwrap().contains("BindMode::Auto"));
    });
}

#[test]
fn a_closed_queue_can_be_bound_again_at_once() {
    in_namespace("a_closed_queue_can_be_bound_again_at_once", || {
        veth("left", "right");
        let left = device::index("left").unwrap();
        let (umem, mut pool) = small_umem();
        for round in 0..3u64 {
            let socket = Socket::bind(&umem, left, 0, &small_rings(), &mut pool).unwrap();
            assert_eq!(socket.frames_in_fill(), 64);
            drop(socket);
            // What the kernel held stays lost to this UMEM.
            assert_eq!(pool.len() as u64, 256 - 64 * (round + 1));
        }
    });
}

#[test]
fn a_later_socket_shares_with_any_that_is_open() {
    in_namespace("a_later_socket_shares_with_any_that_is_open", || {
        veth("left", "right");
        let (umem, mut pool) = small_umem();
        let (left, right) = (device::index("left").unwrap(), device::index("right").unwrap());
        let first = Socket::bind(&umem, left, 0, &small_rings(), &mut pool).unwrap();
        let second = Socket::bind(&umem, right, 0, &small_rings(), &mut pool).unwrap();
        drop(first);
        // The one that registered the memory is gone; the second stands in for it.
        let again = Socket::bind(&umem, left, 0, &small_rings(), &mut pool).unwrap();
        drop((second, again));
        // And with none left the memory is registered anew.
        let _fresh = Socket::bind(&umem, left, 0, &small_rings(), &mut pool).unwrap();
    });
}

#[test]
fn the_memory_outlives_its_handle_while_a_socket_uses_it() {
    in_namespace("the_memory_outlives_its_handle_while_a_socket_uses_it", || {
        veth("left", "right");
        let (umem_a, mut pool_a) = small_umem();
        let (umem_b, mut pool_b) = small_umem();
        let left = device::index("left").unwrap();
        let mut a = Socket::bind(&umem_a, left, 0, &small_rings(), &mut pool_a).unwrap();
        let (mut b, _redirect) = receiver(&umem_b, &mut pool_b, "right", Attach::Native);
        drop((umem_a, umem_b));
        send(&mut a, &mut pool_a, &packet(b"still here"));
        a.submit_tx();
        assert_eq!(a.kick_tx(), Kick::Sent);
        let mut frames = Vec::new();
        eventually("the packet arrives", || b.receive(1, |frame| frames.push(frame)) == 1);
        assert_eq!(b.umem().bytes(&frames[0])[14..24], *b"still here");
    });
}

#[test]
fn a_downed_interface_is_an_outcome_and_recovers() {
    in_namespace("a_downed_interface_is_an_outcome_and_recovers", || {
        veth("left", "right");
        let (umem_a, mut pool_a) = small_umem();
        let (umem_b, mut pool_b) = small_umem();
        let left = device::index("left").unwrap();
        let mut a = Socket::bind(&umem_a, left, 0, &small_rings(), &mut pool_a).unwrap();
        let (mut b, _redirect) = receiver(&umem_b, &mut pool_b, "right", Attach::Native);
        device::set_up("left", false).unwrap();
        send(&mut a, &mut pool_a, &packet(b"later"));
        a.submit_tx();
        assert_eq!(a.kick_tx(), Kick::NetworkDown);
        assert_eq!((a.tx_pending(), a.kick_counts().network_down), (1, 1));
        device::set_up("left", true).unwrap();
        eventually("it is sent once the interface is up", || {
            let _ = a.kick_tx();
            b.receive(1, |frame| pool_b.push(frame)) == 1
        });
    });
}

#[test]
fn a_packet_the_device_drops_is_counted_and_its_frame_returns() {
    in_namespace("a_packet_the_device_drops_is_counted_and_its_frame_returns", || {
        veth("left", "right");
        let (umem, mut pool) = small_umem();
        let mut a = Socket::bind(&umem, device::index("left").unwrap(), 0, &small_rings(), &mut pool).unwrap();
        // Without a carrier the stack drops what is sent.
        device::set_up("right", false).unwrap();
        for _ in 0..3 {
            send(&mut a, &mut pool, &packet(b"lost"));
        }
        a.submit_tx();
        for left_over in [2, 1, 0] {
            assert_eq!((a.kick_tx(), a.tx_pending()), (Kick::Dropped, left_over));
        }
        assert_eq!((a.kick_tx(), a.kick_counts().dropped), (Kick::NotNeeded, 3));
        eventually("the frames come back", || {
            a.complete(&mut pool);
            a.frames_in_tx() == 0
        });
        assert_eq!(pool.len() as u64 + a.frames_in_fill(), 256);
    });
}

#[test]
fn two_threads_may_bind_the_same_umem_at_once() {
    in_namespace("two_threads_may_bind_the_same_umem_at_once", || {
        veth("left", "right");
        let (umem, mut pool) = small_umem();
        let half = pool.split_off(128);
        // Threads inherit the namespace of the one that starts them.
        std::thread::scope(|scope| {
            for (name, mut pool) in [("left", pool), ("right", half)] {
                let umem = &umem;
                scope.spawn(move || {
                    let index = device::index(name).unwrap();
                    let socket = Socket::bind(umem, index, 0, &small_rings(), &mut pool).unwrap();
                    assert_eq!((socket.frames_in_fill(), pool.len()), (64, 64));
                });
            }
        });
    });
}

#[test]
fn a_deleted_interface_leaves_a_harmless_socket() {
    in_namespace("a_deleted_interface_leaves_a_harmless_socket", || {
        veth("left", "right");
        let (umem, mut pool) = small_umem();
        let left = device::index("left").unwrap();
        let mut socket = Socket::bind(&umem, left, 0, &small_rings(), &mut pool).unwrap();
        assert_eq!(socket.take_error(), None);
        ip("link del left");
        assert_eq!((socket.take_error(), socket.take_error()), (Some(libc::ENETDOWN), None));
        send(&mut socket, &mut pool, &packet(b"nowhere"));
        socket.submit_tx();
        let kick = socket.kick_tx();
        assert!(matches!(kick, Kick::Other(_) | Kick::NetworkDown), "{kick:?}");
        assert_eq!(socket.receive(64, |_| panic!("a packet from nowhere")), 0);
        assert_eq!(device::index("left").unwrap_err().errno(), Some(libc::ENODEV));
        drop(socket);
        // The same names come back as a new interface, and a new UMEM has all its frames.
        veth("left", "right");
        let (umem, mut pool) = small_umem();
        Socket::bind(&umem, device::index("left").unwrap(), 0, &small_rings(), &mut pool).unwrap();
    });
}

#[test]
fn interfaces_answer_and_change() {
    in_namespace("interfaces_answer_and_change", || {
        veth("left", "right");
        assert_eq!(device::driver("left").unwrap(), "veth");
        assert_eq!(device::mtu("left").unwrap(), 1500);
        assert_eq!(device::mac("left").unwrap()[0] & 1, 0);
        assert!(device::is_up("left").unwrap() && device::has_carrier("left").unwrap());
        let channels = device::channels("left").unwrap();
        assert_eq!((channels.receiving(), channels.sending()), (1, 1), "{channels:?}");
        for offload in [Offload::TxVlan, Offload::RxVlan, Offload::TxChecksum, Offload::Gro] {
            for on in [false, true, false] {
                device::set_offload("left", offload, on).unwrap();
                assert_eq!(device::offload("left", offload).unwrap(), on, "{offload:?}");
            }
        }
        // Veth has none: switching it off is done already, switching it on is refused.
        device::set_offload("left", Offload::Lro, false).unwrap();
        assert!(device::set_offload("left", Offload::Lro, true).is_err());
        device::set_up("left", false).unwrap();
        assert!(!device::is_up("left").unwrap());
    });
}

#[test]
fn promiscuous_mode_ends_with_its_holder() {
    in_namespace("promiscuous_mode_ends_with_its_holder", || {
        veth("left", "right");
        let promiscuity = || {
            let output = std::process::Command::new("ip")
                .args(["-d", "link", "show", "left"])
                .output()
                .unwrap();
            let text = String::from_utf8(output.stdout).unwrap();
            text.split("promiscuity ")
                .nth(1)
                .and_then(|rest| rest.split(' ').next())
                .map(str::to_owned)
        };
        let left = device::index("left").unwrap();
        let (first, second) = (Promiscuous::hold(left).unwrap(), Promiscuous::hold(left).unwrap());
        assert_eq!(promiscuity().as_deref(), Some("2"));
        drop(first);
        assert_eq!(promiscuity().as_deref(), Some("1"));
        drop(second);
        assert_eq!(promiscuity().as_deref(), Some("0"));
        assert_eq!(Promiscuous::hold(4242).unwrap_err().errno(), Some(libc::ENODEV));
    });
}

#[test]
fn a_bpf_array_is_seen_as_memory() {
    in_namespace("a_bpf_array_is_seen_as_memory", || {
        let map = mappable_array(3).unwrap();
        let array = SharedArray::map(map.as_fd(), 3).unwrap();
        assert_eq!((array.slots(), array.get(2), array.get(3)), (3, Some(0), None));
        assert!(array.set(2, u64::MAX - 1) && !array.set(3, 1));
        assert_eq!(array_value(map.as_fd(), 2).unwrap(), u64::MAX - 1);
        assert_eq!(format!("{array:?}"), "[0, 0, 18446744073709551614]");
        assert_eq!(
            SharedArray::map(map.as_fd(), 4).unwrap_err().errno(),
            Some(libc::EINVAL)
        );
        drop(map);
        assert_eq!(array.get(2), Some(u64::MAX - 1), "the mapping keeps the map");
    });
}

#[test]
fn huge_pages_work_or_say_where_to_get_them() {
    in_namespace("huge_pages_work_or_say_where_to_get_them", || {
        veth("left", "right");
        let config = UmemConfig {
            frame_count: 256,
            huge_pages: true,
            ..UmemConfig::default()
        };
        match Umem::new(&config) {
            Ok((umem, mut pool)) => {
                Socket::bind(&umem, device::index("left").unwrap(), 0, &small_rings(), &mut pool).unwrap();
            }
            Err(error) => assert!(error.remedy().unwrap().contains("/proc/sys/vm/nr_hugepages"), "{error}"),
        }
    });
}

/// Leaves this thread the capabilities of the mask and no others.
fn keep_capabilities(mask: u32) {
    // struct __user_cap_header_struct, version 3, this thread; and two struct __user_cap_data_struct.
    let header = [0x2008_0522u32, 0];
    let data = [mask, mask, 0, 0, 0, 0];
    // SAFETY: both arrays have the layout and length that version 3 asks for; only this thread is changed.
    let result = unsafe { libc::syscall(libc::SYS_capset, header.as_ptr(), data.as_ptr()) };
    assert_eq!(result, 0, "{}", std::io::Error::last_os_error());
}

#[test]
fn missing_privileges_are_named() {
    const CAP_NET_RAW: u32 = 1 << 13;
    in_namespace("missing_privileges_are_named", || {
        veth("left", "right");
        let left = device::index("left").unwrap();
        let (umem, mut pool) = small_umem();
        let mut limit = libc::rlimit {
            rlim_cur: 0,
            rlim_max: 0,
        };
        // SAFETY: `limit` is writable while the call lasts.
        let result = unsafe { libc::getrlimit(libc::RLIMIT_MEMLOCK, &raw mut limit) };
        assert_eq!(result, 0);

        keep_capabilities(CAP_NET_RAW);
        let error = device::set_up("left", false).unwrap_err();
        assert_eq!(error.errno(), Some(libc::EPERM));
        assert!(error.remedy().unwrap().contains("CAP_NET_ADMIN"), "{error}");
        if limit.rlim_cur < 128 << 20 {
            let large = UmemConfig {
                frame_count: 65_536,
                ..UmemConfig::default()
            };
            let (large, mut frames) = Umem::new(&large).unwrap();
            let error = Socket::bind(&large, left, 0, &small_rings(), &mut frames).expect_err("128 MiB are too many");
            assert_eq!(
                (error.step(), error.errno()),
                (Some(&Step::RegisterUmem), Some(libc::ENOBUFS))
            );
            assert!(error.remedy().unwrap().contains("RLIMIT_MEMLOCK"));
        }
        drop(Socket::bind(&umem, left, 0, &small_rings(), &mut pool).expect("CAP_NET_RAW is enough for copy mode"));

        keep_capabilities(0);
        let error = Socket::bind(&umem, left, 0, &small_rings(), &mut pool).expect_err("without any capability");
        assert_eq!(
            (error.step(), error.errno()),
            (Some(&Step::OpenSocket), Some(libc::EPERM))
        );
        assert!(error.remedy().unwrap().contains("CAP_NET_RAW"));
    });
}

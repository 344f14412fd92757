//! Captures that lie, break off or come from elsewhere: an error that says where, or the right packets; never a panic.

use super::captures::{MICROS, NANOS, Order, Record, UDP, frame, packet, pcap, pcapng};
use super::*;

fn open(bytes: &[u8], until_error: bool, cut: CutPackets) -> Result<ReplayResult, ReplayError> {
    open_with(bytes, until_error, cut, Timing::AsFastAsPossible)
}

fn open_with(bytes: &[u8], until_error: bool, cut: CutPackets, timing: Timing) -> Result<ReplayResult, ReplayError> {
    let file = file(bytes);
    let options = ReplayOptions {
        until_error,
        cut,
        timing,
        rewrite: Rewrite {
            source_mac: Some([2, 0, 0, 0, 0, 9]),
            addresses: vec!["10.0.0.0/8=172.16.0.0/8".parse().unwrap()],
            ports: vec!["80=8080".parse().unwrap()],
            vlan: VlanChange::Strip,
            ..Rewrite::default()
        },
        finish_checksums: true,
        ..ReplayOptions::new(file.path())
    };
    let clock = ManualClock::default();
    let mut sink = Recorder::new(&clock);
    let result = Replay::open(&options, LIMITS)?.run(&mut sink, &clock, &AtomicBool::new(false));
    assert_eq!(result.packets, sink.packets.len() as u64);
    Ok(result)
}

fn two() -> [Record; 2] {
    [
        Record::whole(SECOND, &packet(true, UDP, Some(7), 20)),
        Record::whole(2 * SECOND, &frame(2, 64)),
    ]
}

fn wholes() -> Vec<Vec<u8>> {
    vec![
        pcap(Order::Little, MICROS, 1, &two()),
        pcap(Order::Big, NANOS, 1, &two()),
        pcapng(Order::Little, 1, &[9, 6], &two()),
        pcapng(Order::Big, 1, &[6], &two()),
    ]
}

#[test]
fn a_capture_cut_anywhere_gives_an_error_or_what_is_whole() {
    for whole in wholes() {
        for end in 0..whole.len() {
            match open(&whole[..end], false, CutPackets::Skip) {
                Ok(result) => assert!(result.packets < 2, "cut at {end}"),
                Err(ReplayError::Capture(_)) => {}
                Err(error) => panic!("cut at {end}: {error}"),
            }
            if let Ok(result) = open(&whole[..end], true, CutPackets::Skip) {
                assert!(result.packets < 2, "cut at {end}");
                let complaint =
                    result.capture_error.is_some() || result.packets == 1 || result.ended == Ended::NothingToSend;
                assert!(complaint, "cut at {end}: {result:?}");
            }
        }
        assert_eq!(open(&whole, false, CutPackets::Skip).unwrap().packets, 2);
    }
}

#[test]
fn an_error_names_the_packet_and_what_to_do() {
    let whole = pcap(Order::Little, MICROS, 1, &two());
    let cut = &whole[..whole.len() - 1];
    let error = open(cut, false, CutPackets::Skip).unwrap_err().to_string();
    assert!(error.contains("packet 2") && error.contains("cut off"), "{error}");
    let result = open(cut, true, CutPackets::Skip).unwrap();
    assert_eq!((result.packets, result.ended), (1, Ended::Done));
    assert!(result.capture_error.unwrap().contains("packet 2"));

    for linktype in [0, 101, 113, 276] {
        let error = open(&pcap(Order::Big, NANOS, linktype, &two()), false, CutPackets::Skip).unwrap_err();
        assert!(error.to_string().contains("not Ethernet"), "{error}");
        let foreign = pcapng(Order::Big, linktype as u16, &[9], &two());
        let error = open(&foreign, false, CutPackets::Skip).unwrap_err().to_string();
        assert!(error.contains("packet 1: not Ethernet"), "{error}");
    }
    for (bytes, says) in [
        (&b""[..], "empty"),
        (b"GET / HTTP/1.1\r\n", "tcpdump -w"),
        (
            b"\x1f\x8b\x08\x00\x00\x00\x00\x00\x00\x03 a compressed file",
            "tcpdump -w",
        ),
    ] {
        let error = open(bytes, false, CutPackets::Skip).unwrap_err().to_string();
        assert!(error.contains(says), "{error}");
    }
    let options = ReplayOptions::new("/nonexistent/capture.pcap");
    let error = Replay::open(&options, LIMITS).err().unwrap().to_string();
    assert!(error.contains("cannot read /nonexistent/capture.pcap"), "{error}");
}

#[test]
fn a_broken_capture_that_is_streamed_keeps_the_partial_result() {
    let times: Vec<u64> = (0..40_000).collect();
    let mut bytes = at(&times);
    bytes.truncate(bytes.len() - 1);
    for until_error in [false, true] {
        let (packets, result) = run_with(
            &bytes,
            |options| {
                options.memory_bytes_max = 1 << 20;
                options.until_error = until_error;
            },
            |_| {},
        );
        assert_eq!((packets.len(), result.in_memory), (39_999, false));
        assert!(result.capture_error.unwrap().contains("packet 40000"));
        assert_eq!(result.ended == Ended::Done, until_error);
    }
}

#[test]
fn a_pipe_is_read_once_into_memory_or_refused() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("pipe");
    nix::unistd::mkfifo(&path, nix::sys::stat::Mode::from_bits_truncate(0o600)).unwrap();
    let capture = at(&(0..30_000).collect::<Vec<_>>());
    for (memory_bytes_max, fits) in [(64 << 20, true), (1 << 20, false)] {
        let writer = {
            let (path, capture) = (path.clone(), capture.clone());
            // Whoever reads may leave before the end.
            std::thread::spawn(move || drop(std::fs::write(path, capture)))
        };
        let options = ReplayOptions {
            memory_bytes_max,
            ..ReplayOptions::new(&path)
        };
        match Replay::open(&options, LIMITS) {
            Ok(_) => assert!(fits),
            Err(error) => assert!(!fits && error.to_string().contains("no file"), "{error}"),
        }
        writer.join().unwrap();
    }
}

#[test]
fn packets_of_every_length_are_sent_or_counted() {
    let lengths = [
        0, 1, 13, 14, 15, 17, 18, 60, 1514, 1515, 1518, 1519, 3840, 3841, 65_549, 262_144,
    ];
    for cut in [CutPackets::Skip, CutPackets::Pad] {
        let records: Vec<Record> = lengths
            .iter()
            .map(|&len| Record::whole(SECOND, &[0x55].repeat(len)))
            .collect();
        let result = open(&pcap(Order::Little, NANOS, 1, &records), false, cut).unwrap();
        assert_eq!(result.packets, 6);
        assert_eq!(
            (result.skipped.too_short, result.skipped.too_long, result.skipped.cut),
            (3, 7, 0)
        );
    }
    // A capture may claim any length for what it cut.
    let cut = |wire_len, kept: usize| Record {
        at: SECOND,
        wire_len,
        data: packet(true, UDP, None, 1000)[..kept].to_vec(),
    };
    let records = [
        cut(1042, 1041),
        cut(1042, 60),
        cut(1042, 0),
        cut(u32::MAX, 60),
        cut(13, 0),
    ];
    let capture = pcap(Order::Big, MICROS, 1, &records);
    let result = open(&capture, false, CutPackets::Skip).unwrap();
    assert_eq!((result.packets, result.ended.clone()), (0, Ended::NothingToSend));
    assert_eq!(
        (result.skipped.too_short, result.skipped.too_long, result.skipped.cut),
        (1, 1, 3)
    );
    assert!(
        result.complaints()[0].contains("tcpdump -s 0"),
        "{:?}",
        result.complaints()
    );
    let result = open(&capture, false, CutPackets::Pad).unwrap();
    assert_eq!((result.packets, result.padded, result.bytes), (3, 3, 3 * 1042));
}

#[test]
fn lengths_that_lie_are_not_believed() {
    for value in [0_u32, 0x7fff_ffff, u32::MAX] {
        for whole in wholes() {
            for at in (0..whole.len() - 3).step_by(2) {
                let mut bytes = whole.clone();
                bytes[at..at + 4].copy_from_slice(&value.to_be_bytes());
                let _either = open(&bytes, true, CutPackets::Pad);
            }
        }
    }
}

#[test]
fn chance_breaks_nothing() {
    let mut state = 0x7265_706c_6179_u64;
    println!("seed {state:#x}");
    let mut next = || {
        state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        crate::flow::mix(state)
    };
    let (wholes, mut sent) = (wholes(), 0);
    for _ in 0..500 {
        let mut bytes = wholes[next() as usize % wholes.len()].clone();
        for _ in 0..1 + next() % 4 {
            let at = next() as usize % bytes.len();
            match next() % 4 {
                0 => bytes[at] ^= 1 << (next() % 8),
                1 => bytes[at] = [0, 1, 0x7f, 0x80, 0xff][next() as usize % 5],
                2 => bytes.insert(at, next() as u8),
                _ => bytes.truncate(at.max(1)),
            }
        }
        // The clock of the test jumps over centuries as over nothing.
        let timing = Timing::Original { speed: 1e-3 };
        let result = open_with(&bytes, true, CutPackets::Pad, timing);
        if let Ok(result) = &result {
            assert!(result.text().lines().count() > 1);
        }
        sent += result.map_or(0, |result| result.packets);
    }
    assert!(
        sent > 0,
        "every mutation was refused: they test nothing behind the header"
    );
}

//! Captures that lie, break off or come from elsewhere: a clear error or the right output, never a panic, never much
//! memory. The full path of `weir replay` for what is built by hand, mostly the reader alone for what chance builds
//! (`WEIR_MUTATIONS` makes that part longer).

mod common;

use std::path::Path;

use common::{Chance, Scratch, checked, number_from, two_ports};
use config::Config;
use control::replay::{ReplayError, ReplayOptions, replay};
use control::report::TrafficReport;
use pktgen::capture::{CaptureError, CaptureReader, Captured};

fn config(rate: Option<&str>) -> Config {
    checked(&(two_ports(rate) + "[[class]]\nname = \"only\"\npriority = 1\n"))
}

/// Words of a file in its own byte order.
#[derive(Clone, Copy)]
struct Order(bool);

impl Order {
    fn u16(self, value: u16) -> [u8; 2] {
        if self.0 {
            value.to_be_bytes()
        } else {
            value.to_le_bytes()
        }
    }

    fn u32(self, value: u32) -> [u8; 4] {
        if self.0 {
            value.to_be_bytes()
        } else {
            value.to_le_bytes()
        }
    }
}

const LITTLE: Order = Order(false);
const BIG: Order = Order(true);
const MICROS: u32 = 0xa1b2_c3d4;
const NANOS: u32 = 0xa1b2_3c4d;

/// A frame of 802.3 experimental type, which is forwarded as it is.
fn frame(len: usize) -> Vec<u8> {
    let mut bytes = vec![2; 12];
    bytes.extend([0x88, 0xb5]);
    bytes.resize(len.max(14), 0x42);
    bytes
}

fn pcap(order: Order, magic: u32, linktype: u32, packets: &[(u32, u32, u32, Vec<u8>)]) -> Vec<u8> {
    let mut file = order.u32(magic).to_vec();
    file.extend(order.u16(2));
    file.extend(order.u16(4));
    file.extend([0; 8]);
    file.extend(order.u32(262_144));
    file.extend(order.u32(linktype));
    for (seconds, fraction, wire_len, data) in packets {
        for word in [*seconds, *fraction, data.len() as u32, *wire_len] {
            file.extend(order.u32(word));
        }
        file.extend(data);
    }
    file
}

fn block(order: Order, kind: u32, body: &[u8]) -> Vec<u8> {
    let mut body = body.to_vec();
    body.resize(body.len().next_multiple_of(4), 0);
    let len = order.u32(12 + body.len() as u32);
    [&order.u32(kind)[..], &len, &body, &len].concat()
}

/// One section, one interface with `options`, packets at (high, low) units.
fn pcapng(order: Order, linktype: u16, options: &[u8], packets: &[(u32, u32, Vec<u8>)]) -> Vec<u8> {
    let section = [&order.u32(0x1a2b_3c4d)[..], &order.u16(1), &order.u16(0), &[0xff; 8]].concat();
    let mut file = block(order, 0x0a0d_0d0a, &section);
    let interface = [&order.u16(linktype)[..], &[0; 2], &order.u32(0), options].concat();
    file.extend(block(order, 1, &interface));
    for (high, low, data) in packets {
        let len = order.u32(data.len() as u32);
        let body = [&order.u32(0)[..], &order.u32(*high), &order.u32(*low), &len, &len, data].concat();
        file.extend(block(order, 6, &body));
    }
    file
}

/// Replays `file`; the packets that came out as (nanoseconds, bytes), and the report.
fn run(config: &Config, file: &[u8]) -> Result<(Vec<(u64, Captured)>, TrafficReport), ReplayError> {
    let scratch = Scratch::new("captures");
    let (input, output) = (scratch.file("in"), scratch.file("out"));
    std::fs::write(&input, file).unwrap();
    let options = ReplayOptions {
        input,
        port: None,
        output: output.clone(),
    };
    let report = replay(config, &options, |_| {})?;
    Ok((read_all(&output).unwrap(), report))
}

fn read_all(path: &Path) -> Result<Vec<(u64, Captured)>, CaptureError> {
    let mut reader = CaptureReader::open(path)?;
    let (mut packet, mut all) = (Captured::default(), Vec::new());
    while reader.next(&mut packet)? {
        all.push((packet.at, packet.clone()));
    }
    Ok(all)
}

fn times(file: &[u8]) -> Vec<u64> {
    let (packets, report) = run(&config(None), file).unwrap();
    assert!(report.ledger.iter().all(|ledger| ledger.unaccounted == 0));
    packets.iter().map(|(at, _)| *at).collect()
}

#[test]
fn every_unit_and_byte_order_gives_the_same_times() {
    for order in [LITTLE, BIG] {
        let data = frame(60);
        assert_eq!(
            times(&pcap(order, MICROS, 1, &[(5, 7, 60, data.clone())])),
            [5_000_007_000]
        );
        assert_eq!(
            times(&pcap(order, NANOS, 1, &[(5, 7, 60, data.clone())])),
            [5_000_000_007]
        );
        assert_eq!(
            times(&pcapng(order, 1, &[], &[(0, 5_000_007, data.clone())])),
            [5_000_007_000]
        );
        // if_tsresol (option 9): 10^-9, and 2^-10 seconds.
        let option = |value: u8| [&order.u16(9)[..], &order.u16(1), &[value, 0, 0, 0], &[0; 4]].concat();
        assert_eq!(
            times(&pcapng(order, 1, &option(9), &[(1, 7, data.clone())])),
            [(1 << 32) + 7]
        );
        assert_eq!(
            times(&pcapng(order, 1, &option(0x8a), &[(0, 1536, data)])),
            [1_500_000_000]
        );
    }
}

#[test]
fn time_never_runs_backwards() {
    let packets = [(9, 0, 60, frame(60)), (3, 0, 61, frame(61)), (10, 0, 62, frame(62))];
    let seconds = 1_000_000_000;
    assert_eq!(
        times(&pcap(LITTLE, NANOS, 1, &packets)),
        [9 * seconds, 9 * seconds, 10 * seconds]
    );
}

#[test]
fn empty_captures_are_told_from_empty_files() {
    assert!(times(&pcap(LITTLE, MICROS, 1, &[])).is_empty());
    assert!(times(&pcapng(LITTLE, 1, &[], &[])).is_empty());
    let error = run(&config(None), &[]).unwrap_err();
    assert!(error.to_string().contains("empty"), "{error}");
}

#[test]
fn other_link_types_are_refused() {
    for linktype in [0, 101, 113, 276, 0xffff] {
        let error = run(&config(None), &pcap(LITTLE, MICROS, linktype, &[(1, 0, 60, frame(60))])).unwrap_err();
        assert!(error.to_string().contains("not Ethernet"), "{linktype}: {error}");
        let file = pcapng(LITTLE, linktype as u16, &[], &[(0, 1, frame(60))]);
        let error = run(&config(None), &file).unwrap_err();
        assert!(error.to_string().contains("not Ethernet"), "{linktype}: {error}");
    }
}

#[test]
fn packets_before_segmentation_and_cut_ones_pass_whole() {
    for (wire_len, kept) in [(65_549, 65_549), (1514, 96), (1514, 14), (9000, 0), (u32::MAX, 60)] {
        let data = frame(kept as usize)[..kept as usize].to_vec();
        let (packets, report) = run(
            &config(None),
            &pcap(LITTLE, NANOS, 1, &[(1, 0, wire_len, data.clone())]),
        )
        .unwrap();
        let (_, packet) = &packets[0];
        assert_eq!((packet.wire_len, &packet.data), (wire_len, &data));
        assert_eq!(report.ledger[0].forwarded.bytes, u64::from(wire_len));
    }
}

/// Seconds since 1970 fit a pcap until 2106. What lies beyond must not come out as another time.
#[test]
fn a_time_that_the_output_cannot_hold_is_an_error() {
    let year_2200 = 7_258_118_400_u64 * 1_000_000;
    let file = pcapng(
        LITTLE,
        1,
        &[],
        &[((year_2200 >> 32) as u32, year_2200 as u32, frame(60))],
    );
    let error = run(&config(None), &file).unwrap_err();
    assert!(error.to_string().contains("2106"), "{error}");
}

/// Frames without payload count nothing in layer 3, so many of them may go at one instant; each still goes at an instant
/// of the capture.
#[test]
fn what_waits_behind_a_rate_leaves_in_the_time_of_the_capture() {
    let mut packets = vec![(100, 0, 1014, frame(1014))];
    packets.extend((0..10).map(|_| (100, 1, 14, frame(14))));
    // The very nanosecond at which the port is ready again: the turn that takes this frame in sends as much as one may.
    packets.push((100, 999_999_999, 14, frame(14)));
    packets.push((102, 0, 14, frame(14)));
    let (packets, report) = run(&config(Some("8 kbit/s")), &pcap(LITTLE, NANOS, 1, &packets)).unwrap();
    assert_eq!(packets.len(), 13);
    assert_eq!(report.ledger[0].held.packets, 0);
    let times: Vec<u64> = packets.iter().map(|(at, _)| *at).collect();
    assert!(times.is_sorted() && times[0] == 100_000_000_000, "{times:?}");
}

#[test]
fn a_file_cut_anywhere_gives_its_first_packets_and_an_error() {
    let packets = [(1, 0, 60, frame(60)), (2, 0, 64, frame(64))];
    let classic = pcap(LITTLE, MICROS, 1, &packets);
    let next_generation = pcapng(BIG, 1, &[], &[(0, 1, frame(60)), (0, 2, frame(64))]);
    let scratch = Scratch::new("cut");
    let path = scratch.file("in");
    for whole in [classic, next_generation] {
        for end in 0..whole.len() {
            std::fs::write(&path, &whole[..end]).unwrap();
            match read_all(&path) {
                Ok(packets) => assert!(packets.len() < 2, "cut at {end}"),
                Err(error) => assert!(error.to_string().contains(path.to_str().unwrap()), "{error}"),
            }
        }
        std::fs::write(&path, &whole).unwrap();
        assert_eq!(read_all(&path).unwrap().len(), 2);
    }
}

#[test]
fn a_record_as_long_as_its_header_says_is_not_believed() {
    for order in [LITTLE, BIG] {
        let mut file = pcap(order, MICROS, 1, &[(1, 0, 60, frame(60))]);
        file[32..36].copy_from_slice(&[0xff; 4]);
        assert!(matches!(run(&config(None), &file), Err(ReplayError::Capture(_))));
        let mut file = pcapng(order, 1, &[], &[(0, 1, frame(60))]);
        let lengths = file.len() - 4 - 60 - 8;
        file[lengths..lengths + 4].copy_from_slice(&[0xff; 4]);
        let _either = run(&config(None), &file);
    }
}

#[test]
fn a_wrong_port_leaves_the_output_alone() {
    let scratch = Scratch::new("port");
    let (input, output) = (scratch.file("in"), scratch.file("out"));
    std::fs::write(&input, pcap(LITTLE, MICROS, 1, &[])).unwrap();
    std::fs::write(&output, "precious").unwrap();
    let options = ReplayOptions {
        input: input.clone(),
        port: Some("nowhere".into()),
        output: output.clone(),
    };
    assert!(matches!(
        replay(&config(None), &options, |_| {}),
        Err(ReplayError::Port { .. })
    ));
    assert_eq!(std::fs::read_to_string(&output).unwrap(), "precious");
    // The capture itself as the output would be emptied before it is read.
    let before = std::fs::read(&input).unwrap();
    let options = ReplayOptions {
        input: input.clone(),
        port: None,
        output: input.clone(),
    };
    assert!(matches!(
        replay(&config(None), &options, |_| {}),
        Err(ReplayError::SameFile { .. })
    ));
    assert_eq!(std::fs::read(&input).unwrap(), before);
}

#[test]
fn chance_breaks_no_reader() {
    let mut chance = Chance::seeded("captures", 0x7063_6170);
    let scratch = Scratch::new("mutations");
    let path = scratch.file("in");
    let packets = [(1, 0, 60, frame(60)), (2, 5, 1514, frame(96))];
    let wholes = [
        pcap(LITTLE, MICROS, 1, &packets),
        pcap(BIG, NANOS, 1, &packets),
        pcapng(
            LITTLE,
            1,
            &[9, 0, 1, 0, 9, 0, 0, 0, 0, 0, 0, 0],
            &[(1, 2, frame(60)), (1, 3, frame(61))],
        ),
        pcapng(BIG, 1, &[], &[(1, 2, frame(60)), (1, 3, frame(61))]),
    ];
    let config = config(None);
    let runs = number_from("WEIR_MUTATIONS", 600);
    let mut read = 0;
    for number in 0..runs {
        let mut file = wholes[chance.below(wholes.len())].clone();
        for _ in 0..1 + chance.below(4) {
            let at = chance.below(file.len());
            match chance.below(5) {
                0 => file[at] ^= 1 << chance.below(8),
                1 => file[at] = chance.of(&[0, 1, 0x7f, 0x80, 0xff]),
                2 => file.truncate(at.max(1)),
                3 => file.insert(at, chance.next() as u8),
                _ => {
                    let end = (at + 4).min(file.len());
                    file[at..end].fill(chance.of(&[0, 0xff, 0x80]));
                }
            }
        }
        std::fs::write(&path, &file).unwrap();
        read += usize::from(read_all(&path).is_ok());
        if number % 100 == 0 {
            let _either = run(&config, &file);
        }
    }
    assert!(
        read > 0,
        "every mutation was refused: they test nothing behind the header"
    );
}

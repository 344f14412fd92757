//! Captures: pcap and pcapng, as `weir replay`, `weir explain --pcap` and `pktgen replay` read them.

use std::io::Cursor;
use std::os::fd::AsRawFd;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;

use config::Config;
use control::explain::{Offline, text};
use control::replay::{ReplayError, ReplayOptions, replay};
use jiff::Timestamp;
use nix::sys::memfd::{MFdFlags, memfd_create};
use pktgen::capture::{CaptureReader, Captured};
use weir_tests::malformed;
use weir_tests::memory::{CONFIG, checked};

/// Packets that are explained: each takes as long as a thousand that are judged.
const EXPLAINED: usize = 4;

/// Reads, explains and replays it.
///
/// # Panics
/// A packet is neither sent nor dropped nor in an error.
pub fn run(input: &[u8]) {
    let (packets, whole) = read(input);
    explain(&packets);
    let file = memfd_create(c"capture", MFdFlags::MFD_CLOEXEC).expect("memory for a file");
    nix::unistd::write(&file, input).expect("it is small");
    let options = ReplayOptions {
        input: PathBuf::from(format!("/proc/self/fd/{}", file.as_raw_fd())),
        port: None,
        output: PathBuf::from("/dev/null"),
    };
    match replay(config(), &options, |_| ()) {
        Ok(report) => {
            assert!(whole, "replayed, though it cannot be read");
            let received: u64 = report.ledger.iter().map(|ledger| ledger.received.packets).sum();
            assert_eq!(received, packets.len() as u64);
            for ledger in &report.ledger {
                assert_eq!((ledger.unaccounted, ledger.held.packets), (0, 0), "{ledger:?}");
            }
        }
        // Times that the output cannot hold.
        Err(ReplayError::Write { .. }) => {}
        Err(error) => assert!(!whole, "{error}"),
    }
}

/// All packets, and whether they are all there are.
fn read(input: &[u8]) -> (Vec<Captured>, bool) {
    let mut packets = Vec::new();
    let Ok(mut reader) = CaptureReader::new(Path::new("input"), Cursor::new(input.to_vec())) else {
        return (packets, false);
    };
    loop {
        let mut packet = Captured::default();
        match reader.next(&mut packet) {
            Ok(true) => packets.push(packet),
            Ok(false) => return (packets, true),
            Err(error) => {
                assert!(error.to_string().starts_with("input, packet "), "{error}");
                return (packets, false);
            }
        }
    }
}

fn explain(packets: &[Captured]) {
    let at = |packet: &Captured| Timestamp::from_nanosecond(i128::from(packet.at)).unwrap_or(Timestamp::MAX);
    let Some(first) = packets.first() else { return };
    let mut offline = Offline::new(config(), at(first)).expect("it compiles");
    for packet in packets.iter().take(EXPLAINED) {
        match offline.explain(&packet.data, packet.wire_len, None, at(packet)) {
            Ok(explanation) => assert!(!text::text(&explanation).is_empty()),
            Err(error) => assert!(!error.to_string().is_empty()),
        }
    }
}

fn config() -> &'static Config {
    static CHECKED: OnceLock<Config> = OnceLock::new();
    CHECKED.get_or_init(|| checked(CONFIG))
}

/// Every form there is, with packets that are malformed themselves.
#[must_use]
pub fn seeds() -> Vec<(String, Vec<u8>)> {
    let packets: Vec<Vec<u8>> = malformed::seeds()
        .into_iter()
        .filter(|seed| (60..200).contains(&seed.bytes.len()))
        .map(|seed| seed.bytes)
        .step_by(9)
        .take(5)
        .collect();
    let mut seeds = Vec::new();
    for big in [false, true] {
        let order = if big { "big" } else { "little" };
        for (unit, magic) in [("micros", 0xa1b2_c3d4_u32), ("nanos", 0xa1b2_3c4d)] {
            seeds.push((format!("pcap-{order}-{unit}"), pcap(big, magic, &packets)));
        }
        seeds.push((format!("pcapng-{order}"), pcapng(big, &[], &packets)));
        // if_tsresol 9, and a power of two; if_tsoffset.
        let resolution = |value: u8| [&number(big, 9, 2)[..], &number(big, 1, 2), &[value, 0, 0, 0]].concat();
        seeds.push((format!("pcapng-{order}-nanos"), pcapng(big, &resolution(9), &packets)));
        seeds.push((
            format!("pcapng-{order}-units-of-2"),
            pcapng(big, &resolution(0x9e), &packets),
        ));
        seeds.push((
            format!("pcapng-{order}-units-too-small"),
            pcapng(big, &resolution(20), &packets),
        ));
    }
    seeds
}

fn number(big: bool, value: u32, bytes: usize) -> Vec<u8> {
    if big {
        value.to_be_bytes()[4 - bytes..].to_vec()
    } else {
        value.to_le_bytes()[..bytes].to_vec()
    }
}

fn pcap(big: bool, magic: u32, packets: &[Vec<u8>]) -> Vec<u8> {
    let word = |value| number(big, value, 4);
    let mut file = [
        word(magic),
        number(big, 2, 2),
        number(big, 4, 2),
        word(0),
        word(0),
        word(65_535),
        word(1),
    ]
    .concat();
    for (index, packet) in packets.iter().enumerate() {
        let length = packet.len() as u32;
        for value in [1_795_219_200, index as u32 * 50, length, length + 10 * index as u32] {
            file.extend(word(value));
        }
        file.extend(packet);
    }
    file
}

fn pcapng(big: bool, interface_options: &[u8], packets: &[Vec<u8>]) -> Vec<u8> {
    let word = |value| number(big, value, 4);
    let block = |kind: u32, body: &[u8]| {
        let padding = vec![0; body.len().wrapping_neg() % 4];
        let length = word((12 + body.len() + padding.len()) as u32);
        [&word(kind), &length, body, &padding, &length].concat()
    };
    let section = [word(0x1a2b_3c4d), number(big, 1, 2), number(big, 0, 2), vec![0xff; 8]].concat();
    let end = if interface_options.is_empty() {
        vec![]
    } else {
        vec![0; 4]
    };
    let interface = [&number(big, 1, 2)[..], &[0, 0], &word(0), interface_options, &end].concat();
    let mut file = [block(0x0a0d_0d0a, &section), block(1, &interface)].concat();
    for (index, packet) in packets.iter().enumerate() {
        let length = word(packet.len() as u32);
        let body = [
            &word(0),
            &word(0x0005_0000),
            &word(index as u32),
            &length,
            &length,
            &packet[..],
        ]
        .concat();
        file.extend(block(6, &body));
    }
    // A block of statistics, which says nothing about packets.
    file.extend(block(5, &[0; 12]));
    file
}

//! What people and scripts write on a command line. The input: a byte that says which reader, then the text.
//!
//! The options themselves are clap's affair and are held to it by a test beside them (`control/src/command/generate.rs`).

use std::str::FromStr;

use config::units;
use control::explain::input::{self, End};
use pktgen::contracts::Multiples;
use pktgen::imix::FrameMix;
use pktgen::rate::{LineRate, Rate};
use pktgen::replay::{AddressRule, PortRule};
use pktgen::schedule::Plan;
use pktgen::search::sweep::FrameSize;

/// Reads the text.
///
/// # Panics
/// What was read is not what is printed.
pub fn run(input: &[u8]) {
    let Some((&which, text)) = input.split_first() else {
        return;
    };
    let Ok(text) = std::str::from_utf8(text) else { return };
    match which % 16 {
        0 | 1 => hex(text),
        2 => end(text),
        3 => try_read::<FrameMix>(text),
        4 => try_read::<Multiples>(text),
        5 => try_read::<FrameSize>(text),
        6 => try_read::<AddressRule>(text),
        7 => try_read::<PortRule>(text),
        8 => try_read::<Plan>(text),
        9 => try_read::<Rate>(text),
        10 => try_read::<LineRate>(text),
        11 => rate(text),
        12 => {
            let burst = units::parse_burst(text);
            let _bytes = burst.map(|burst| [8_000, 400_000_000_000].map(|rate_bps| burst.bytes_at(rate_bps)));
        }
        13 => drop(units::parse_time(text)),
        14 => drop((units::parse_percent(text), units::parse_fraction(text))),
        _ => {
            let value = config::dscp_from_name(text);
            assert!(value.is_none_or(|value| config::dscp_name(value).is_some()));
        }
    }
}

fn try_read<T: FromStr>(text: &str) {
    let _read = text.parse::<T>();
}

fn hex(text: &str) {
    match input::parse_hex(text) {
        Ok(bytes) => assert_eq!(input::parse_digits(&input::to_hex(&bytes)), Ok(bytes)),
        Err(error) => assert!(!error.to_string().is_empty()),
    }
}

fn end(text: &str) {
    let Ok(end) = text.parse::<End>() else { return };
    let printed = match end.port {
        Some(port) => std::net::SocketAddr::new(end.address, port).to_string(),
        None => end.address.to_string(),
    };
    // What tells one of the host's own links from the others (`%1`) is no part of a packet.
    if !text.contains('%') {
        assert_eq!(printed.parse::<End>(), Ok(end));
    }
}

fn rate(text: &str) {
    let Ok(rate_bps) = units::parse_rate(text) else { return };
    let printed = units::format_rate(rate_bps);
    assert_eq!(
        units::parse_rate(&printed).ok(),
        Some(rate_bps),
        "{text} is printed as {printed}"
    );
}

/// A few of each.
#[must_use]
pub fn seeds() -> Vec<(String, Vec<u8>)> {
    let texts: [(u8, &str, &[&str]); 15] = [
        (
            0,
            "hex",
            &[
                "0800 4500",
                "0000  02 00 00 00 00 01 02 00  ........\n0008  45",
                "0x0000:  0200 0000\n",
                "1",
                "0x",
                "0010  00",
            ],
        ),
        (
            2,
            "end",
            &[
                "10.1.2.3",
                "10.1.2.3:443",
                "2001:db8::1",
                "[2001:db8::1]:443",
                "[::1",
                "fe80::1%1",
                "1.2.3.4:65536",
            ],
        ),
        (
            3,
            "mix",
            &[
                "simple",
                "csit",
                "aaafg",
                "64:7,594:4,1518:1",
                "64 csit 1518",
                "64:0",
                "z*9",
            ],
        ),
        (4, "multiples", &["0.9", "0.9,ads=3", "=1", "nan", "ads=1e308"]),
        (5, "frame-size", &["64", "csit", "9000", "0"]),
        (
            6,
            "addresses",
            &[
                "10.0.0.0/8=192.168.0.0/16",
                "src:::/0=fd00::/8",
                "10.0.0.0/33=1.1.1.1/0",
            ],
        ),
        (7, "ports", &["80=8080", "src:1-2=3-4", "65536=1"]),
        (
            8,
            "plan",
            &["10%", "1 Gbit/s 5s, ramp 10 s to 2 Gbit/s", "0s", "1 kpps for 1e30 s"],
        ),
        (9, "rate-or-packets", &["1 Gbit/s", "10 Mpps", "1e9 pps", "100 %"]),
        (10, "line-rate", &["10 Gbit/s", "25G", "0"]),
        (
            11,
            "rate",
            &[
                "2 Gbit/s",
                "500 kbit/s",
                "0.1 Tbit/s",
                "1.0000000000001 Gbit/s",
                "18446744073709551616",
            ],
        ),
        (12, "burst", &["256 kB", "64 KiB", "5 ms", "16000", "1e3 kB"]),
        (13, "time", &["5 ms", "1 h", "0.5 s", "99999999999 d"]),
        (14, "percent", &["99.98 %", "0.1", "101 %", "-0 %"]),
        (15, "dscp", &["EF", "AF41", "cs6", "le"]),
    ];
    let seed = |which: u8, name: &str, number: usize, text: &str| {
        (format!("{name}-{number}"), [&[which], text.as_bytes()].concat())
    };
    let all = texts.into_iter().flat_map(|(which, name, texts)| {
        let numbered = texts.iter().enumerate();
        numbered.map(move |(number, text)| seed(which, name, number, text))
    });
    all.collect()
}

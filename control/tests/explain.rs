//! `weir explain` by hand: each case with every line it prints, and input that is no packet.

use std::path::{Path, PathBuf};

use config::{Loaded, load_texts};
use control::explain::input::{End, FlowPacket, InputError, parse_hex};
use control::explain::{Explanation, Offline, text, why_not_ip};
use dataplane::packet::{Parsed, parse};
use jiff::Timestamp;
use proptest::prelude::*;

const BASE: &str = r#"region = "atn"
[[port]]
name = "lan"
interface = "eth1"
side = "site"
[[port]]
name = "uplink"
interface = "eth2"
side = "wan"
[[wire]]
ports = ["lan", "uplink"]
[[class]]
name = "gold"
priority = 1
dscp = ["EF", "CS5"]
yellow_dscp = ["AF42"]
nonconforming_dscp = 3
[[class]]
name = "silver"
priority = 2
pcp = [4]
[[class]]
name = "best-effort"
priority = 3
default = true
[[segment]]
name = "emea"
prefixes = ["198.51.100.0/24"]
"#;

const DROP_IN: &str = r#"[[service]]
name = "ads"
endpoints = [
  "10.1.0.0/16",
  "10.1.2.0/24 tcp/443",
]
[[service]]
name = "web"
endpoints = ["10.0.0.0/8", "10.1.2.0/24"]
[[contract]]
service = "ads"
class = "gold"
region = "atn"
direction = "egress"
rate = "8 Mbit/s"
burst = "3 kB"
[[contract]]
service = "web"
class = "gold"
region = "atn"
direction = "egress"
segment = "emea"
rate = "8 Mbit/s"
burst = "3 kB"
[contract.excess]
action = "drop"
[[contract]]
service = "web"
class = "silver"
region = "atn"
direction = "ingress"
rate = "8 Mbit/s"
from = 2030-01-01
[[contract]]
service = "ads"
class = "best-effort"
region = "lon"
direction = "egress"
rate = "8 Mbit/s"
"#;

fn loaded(base: &str) -> Loaded {
    let drop_in = (PathBuf::from("contracts.d/a.toml"), DROP_IN.to_owned());
    load_texts((Path::new("weir.toml"), base), &[drop_in]).unwrap_or_else(|report| panic!("{}", report.render(false)))
}

fn at() -> Timestamp {
    "2026-11-01T00:00:00Z".parse().unwrap()
}

fn flow(src: &str, dst: &str, protocol: u8, dscp: u8) -> FlowPacket {
    let end = |text: &str| text.parse::<End>().unwrap();
    FlowPacket {
        src: end(src),
        dst: end(dst),
        protocol,
        dscp,
        ecn: 0,
        pcp: None,
        vlan: None,
        size: 1500,
    }
}

fn frame(bytes: &[u8], wire_len: usize, port: Option<&str>) -> Explanation {
    let loaded = loaded(BASE);
    let mut offline = Offline::new(&loaded.config, at()).unwrap();
    offline.explain(bytes, wire_len as u32, port, at()).unwrap()
}

fn lines(packet: &FlowPacket, port: Option<&str>) -> String {
    let (bytes, wire_len) = packet.frame().unwrap();
    text::text(&frame(&bytes, wire_len, port))
}

#[test]
fn a_contract_that_holds_the_packet() {
    let told = lines(&flow("10.1.2.3:443", "198.51.100.7:40000", 6, 46), Some("lan"));
    assert_eq!(
        told,
        "\
port      lan is a site port, so to uplink is egress (weir.toml:3)
packet    IPv4 TCP from 10.1.2.3:443 to 198.51.100.7:40000, 1500 bytes of IP, DSCP 46 (EF)
service   source 10.1.2.3 is in service ads by endpoint 10.1.2.0/24 tcp/443 (contracts.d/a.toml:5)
          beaten: web by 10.1.2.0/24: the same prefix, but without ports (contracts.d/a.toml:9)
          beaten: ads by 10.1.0.0/16: a shorter prefix (contracts.d/a.toml:4)
          beaten: web by 10.0.0.0/8: a shorter prefix (contracts.d/a.toml:9)
class     DSCP 46 (EF) is in `dscp` of class gold (weir.toml:15)
contract  ads gold egress: 8 Mbit/s, burst 3000 bytes, token-bucket (contracts.d/a.toml:10)
meter     3000 bytes of tokens, the packet counts 1500: green
verdict   conforming
marks     leaves with DSCP 46 (EF), as it came
ring      conforming ring of class gold towards uplink
note      it can still be dropped there: a full ring, CoDel, few free frames
"
    );
}

#[test]
fn excess_is_marked_and_dropped_as_its_contract_says() {
    let loaded = loaded(BASE);
    let mut offline = Offline::new(&loaded.config, at()).unwrap();
    let mut judge = |src: &str| {
        let (bytes, wire_len) = flow(src, "198.51.100.7:40000", 6, 46).frame().unwrap();
        offline.explain(&bytes, wire_len as u32, Some("lan"), at()).unwrap()
    };
    // Two packets fill a burst of 3,000 bytes.
    let verdicts: Vec<String> = (0..3).map(|_| judge("10.1.2.3:443").verdict).collect();
    assert_eq!(verdicts, ["conforming", "conforming", "nonconforming"]);
    let excess = text::text(&judge("10.1.2.3:443"));
    for line in [
        "meter     0 bytes of tokens, the packet counts 1500: red\n",
        "marks     DSCP 46 (EF) becomes 3 (weir.toml:17)\n",
        "ring      nonconforming ring of class gold towards uplink, behind everything conforming\n",
    ] {
        assert!(excess.contains(line), "{excess}");
    }
    let policed: Vec<Explanation> = (0..3).map(|_| judge("10.1.2.3:80")).collect();
    assert_eq!(policed[2].dropped.as_deref(), Some("policed"));
    assert_eq!((&policed[2].ring, &policed[2].leaves_as), (&None, &None));
    let told = text::text(&policed[2]);
    assert!(
        told.contains("dropped (policed): [contract.excess] action = \"drop\" (contracts.d/a.toml:17)\n"),
        "{told}"
    );
    assert!(
        told.contains("segment emea holds the far address (weir.toml:26)\n"),
        "{told}"
    );
}

#[test]
fn uncontracted_says_what_is_near_and_what_would_change_it() {
    // Of the service: another direction, a period that has not begun, another region, another segment.
    let cases = [
        (
            lines(&flow("10.9.9.9:1", "203.0.113.1:2", 17, 46), Some("lan")),
            "this one is for segment emea, which does not hold 203.0.113.1 (contracts.d/a.toml:17)\n",
        ),
        (
            lines(&flow("203.0.113.1:2", "10.9.9.9:1", 17, 46), Some("uplink")),
            "this one is egress (contracts.d/a.toml:17)\n",
        ),
        (
            lines(&flow("10.1.9.9:1", "203.0.113.1:2", 17, 0), Some("lan")),
            "this one is of region lon, this box stands in atn (contracts.d/a.toml:34)\n",
        ),
        (
            lines(&flow("192.0.2.1", "203.0.113.1", 1, 0), Some("lan")),
            "none: no endpoint holds source 192.0.2.1 as this packet has it\n",
        ),
        (
            lines(&flow("192.0.2.1", "203.0.113.1", 1, 0), Some("lan")),
            "to change it: an endpoint that holds the address, in some [[service]], and a [[contract]]\n",
        ),
    ];
    for (told, line) in cases {
        assert!(told.contains(line), "{line}{told}");
        assert!(
            told.contains("[defaults] uncontracted does not say otherwise"),
            "{told}"
        );
        assert!(told.lines().all(|line| line.chars().count() <= 100), "{told}");
    }
    let tagged = FlowPacket {
        pcp: Some(4),
        vlan: Some(7),
        ..flow("203.0.113.1:2", "10.9.9.9:1", 17, 5)
    };
    let told = lines(&tagged, None);
    for line in [
        "port      uplink is a wan port, so to lan is ingress (assumed: --port says otherwise)",
        "class     no class lists DSCP 5; PCP 4 is in `pcp` of class silver (weir.toml:21)\n",
        "this one begins at 2030-01-01T00:00:00Z (contracts.d/a.toml:27)\n",
    ] {
        assert!(told.contains(line), "{line}{told}");
    }
}

#[test]
fn defaults_are_named_where_they_are_written() {
    let base = format!("{BASE}[defaults]\nuncontracted = \"conforming\"\nother = \"silver nonconforming\"\n");
    let loaded = loaded(&base);
    let mut offline = Offline::new(&loaded.config, at()).unwrap();
    let (bytes, wire_len) = flow("192.0.2.1", "203.0.113.1", 1, 0).frame().unwrap();
    let told = text::text(&offline.explain(&bytes, wire_len as u32, None, at()).unwrap());
    assert!(
        told.contains("[defaults] uncontracted = \"conforming\" (weir.toml:30)\n"),
        "{told}"
    );
    let told = text::text(&offline.explain(&[0; 60], 60, None, at()).unwrap());
    assert!(
        told.contains("class     [defaults] other sends it to silver, nonconforming (weir.toml:31)\n"),
        "{told}"
    );
    assert!(
        told.contains("ring      nonconforming ring of class silver towards uplink"),
        "{told}"
    );
}

#[test]
fn what_is_not_ip_is_told_with_its_byte() {
    let ethernet = "ffffffffffff020000000001";
    let cases = [
        ("0806000108000604", "EtherType 0x0806: ARP (byte 12 of the frame)"),
        (
            "0800450000",
            "malformed: an IPv4 header has 20 bytes, here are 3 (byte 17 of the frame)",
        ),
        (
            "08004400001400000000400600000a0102030a010204",
            "malformed: the header length is 16 bytes, 20 is the least (byte 14 of the frame)",
        ),
        (
            "08004500ffff00000000400600000a0102030a010204",
            "malformed: the total length is 65535 bytes, but only 20 came (byte 16 of the frame)",
        ),
        (
            "81000001810000018100000108004500",
            "a third VLAN tag (0x8100): weir looks behind two (byte 20 of the frame)",
        ),
        (
            "8100",
            "malformed: the frame ends after 14 bytes, within its Ethernet header",
        ),
    ];
    for (rest, line) in cases {
        let bytes = parse_hex(&format!("{ethernet}{rest}")).unwrap();
        let told = text::text(&frame(&bytes, bytes.len(), None));
        assert!(told.contains(line), "{line}\n{told}");
        assert!(
            told.contains("the default class, as [defaults] other does not say otherwise"),
            "{told}"
        );
    }
}

#[test]
fn fragments_follow_their_first_one() {
    let loaded = loaded(BASE);
    let mut offline = Offline::new(&loaded.config, at()).unwrap();
    let (mut first, wire_len) = flow("10.1.2.3:443", "198.51.100.7:40000", 6, 46).frame().unwrap();
    let mut later = first.clone();
    (first[18..22]).copy_from_slice(&[0x12, 0x34, 0x20, 0]);
    (later[18..22]).copy_from_slice(&[0x12, 0x34, 0, 185]);
    let alone = frame(&later, wire_len, Some("lan"));
    assert_eq!((alone.service.as_deref(), alone.packet.src_port), (Some("web"), None));
    let mut judge = |bytes: &[u8]| offline.explain(bytes, wire_len as u32, Some("lan"), at()).unwrap();
    assert_eq!(judge(&first).service.as_deref(), Some("ads"));
    assert_eq!(judge(&later).service.as_deref(), Some("ads"));
}

#[test]
fn a_port_that_is_in_no_wire_is_refused() {
    let loaded = loaded(BASE);
    let mut offline = Offline::new(&loaded.config, at()).unwrap();
    let error = offline
        .explain(&[0; 60], 60, Some("eth1"), at())
        .unwrap_err()
        .to_string();
    assert_eq!(
        error,
        "there is no port `eth1` in a wire; the configuration has: lan, uplink"
    );
}

#[test]
fn hexadecimal_in_the_forms_that_tools_print() {
    let bytes: Vec<u8> = (0xf0..=0xff).chain(0x20..0x26).collect();
    let forms = [
        "f0f1f2f3f4f5f6f7f8f9fafbfcfdfeff202122232425",
        " f0:f1:f2:f3:f4:f5:f6:f7:f8:f9:fa:fb:fc:fd:fe:ff:20:21:22:23:24:25\n",
        "0xf0f1f2f3 f4f5f6f7\nF8F9FAFB FCFDFEFF 2021 2223 2425",
        "0000  f0 f1 f2 f3 f4 f5 f6 f7 f8 f9 fa fb fc fd fe ff   ................\n0010  20 21 22 23 24 25                                  !\"#$%\n",
        "00000000: f0f1 f2f3 f4f5 f6f7 f8f9 fafb fcfd feff  ................\n00000010: 2021 2223 2425                            !\"#$%\n",
        "\t0x0000:  f0f1 f2f3 f4f5 f6f7 f8f9 fafb fcfd feff\n\t0x0010:  2021 2223 2425\n",
    ];
    for form in forms {
        assert_eq!(parse_hex(form).as_deref(), Ok(&bytes[..]), "{form}");
    }
    let bad = [
        ("", InputError::Empty),
        ("  \n", InputError::Empty),
        ("abc", InputError::Odd { digits: 3 }),
        (
            "00 11 zz",
            InputError::NotHex {
                line: 1,
                text: "zz".into(),
            },
        ),
        (
            "0000  00 11\n0010  22",
            InputError::Offset {
                line: 2,
                found: 16,
                expected: 2,
            },
        ),
    ];
    for (form, error) in bad {
        assert_eq!(parse_hex(form), Err(error), "{form}");
    }
}

#[test]
fn flows_that_cannot_be() {
    let cases = [
        (flow("10.0.0.1", "10.0.0.2:1", 6, 0), "two ports"),
        (flow("10.0.0.1:1", "10.0.0.2", 1, 0), "no ports"),
        (flow("10.0.0.1:1", "[2001:db8::1]:1", 17, 0), "one end is IPv4"),
        (
            FlowPacket {
                size: 30,
                ..flow("10.0.0.1:1", "10.0.0.2:1", 6, 0)
            },
            "headers alone take 40",
        ),
        (
            FlowPacket {
                size: 30,
                ..flow("[::1]:1", "[::2]:1", 17, 0)
            },
            "headers alone take 48",
        ),
    ];
    for (packet, part) in cases {
        let error = packet.frame().unwrap_err().to_string();
        assert!(error.contains(part), "{error}");
    }
}

#[test]
fn what_is_typed_is_what_is_parsed() {
    let packet = FlowPacket {
        pcp: Some(5),
        ecn: 1,
        ..flow("[2001:db8::1]:443", "[2001:db8::2]:40000", 17, 46)
    };
    let (bytes, wire_len) = packet.frame().unwrap();
    let Parsed::Ip(headers) = parse(&bytes, wire_len) else {
        panic!("not IP")
    };
    assert_eq!(
        (headers.dscp.get(), headers.ecn, headers.l3_len, headers.protocol),
        (46, 1, 1500, 17)
    );
    assert_eq!(headers.pcp.map(|pcp| pcp.get()), Some(5));
    assert_eq!(headers.ports.map(|ports| (ports.src, ports.dst)), Some((443, 40_000)));
    let (bytes, _) = flow("10.0.0.1:1", "10.0.0.2:2", 6, 0).frame().unwrap();
    assert_eq!(dataplane::checksum::internet_checksum(&bytes[14..34]), 0);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(20_000))]

    /// Frames that begin as IP does are the ones in question, so most of them do.
    #[test]
    fn there_is_a_reason_exactly_where_the_parser_sees_no_ip(
        mut bytes in proptest::collection::vec(any::<u8>(), 0..90),
        ether_types in proptest::collection::vec(prop::sample::select(vec![0x0800_u16, 0x86dd, 0x8100, 0x88a8, 0x0806]), 4),
        first in prop::sample::select(vec![0x45_u8, 0x46, 0x44, 0x60, 0x65, 0x4f]),
        length in 0_u16..100,
        more in 0_usize..40,
    ) {
        let mut at = 12;
        for ether_type in ether_types {
            put(&mut bytes, at, &ether_type.to_be_bytes());
            if !matches!(ether_type, 0x8100 | 0x88a8) {
                break;
            }
            at += 4;
        }
        put(&mut bytes, at + 2, &[first]);
        put(&mut bytes, at + 4, &length.to_be_bytes());
        put(&mut bytes, at + 6, &length.to_be_bytes());
        let wire_len = bytes.len() + more;
        let is_ip = parse(&bytes, wire_len).headers().is_some();
        let why = why_not_ip(&bytes, wire_len);
        prop_assert_eq!(why.is_none(), is_ip, "{:?}", why);
        if let Some(why) = why {
            prop_assert!(why.offset <= bytes.len());
        }
    }
}

fn put(bytes: &mut [u8], at: usize, what: &[u8]) {
    if let Some(place) = bytes.get_mut(at..at + what.len()) {
        place.copy_from_slice(what);
    }
}

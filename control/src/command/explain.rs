//! `weir explain`.

use std::io::{IsTerminal, Read, Write};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use config::Config;
use control::change::plan::is_absent;
use control::explain::input::{End, FlowPacket, parse_hex};
use control::explain::{Explanation, Offline, Question, text};
use control::socket::{self, Request, Response};
use jiff::Timestamp;
use pktgen::capture::{CaptureReader, Captured};

use super::{INVALID, ask, colour, fail, print_json, unexpected};
use crate::DEFAULT_CONFIG;

#[derive(clap::Args)]
#[command(override_usage = "weir explain SRC[:PORT] DST[:PORT] [PROTOCOL] [OPTIONS]
       weir explain --hex HEX|- [OPTIONS]
       weir explain --pcap A.pcap [OPTIONS]")]
pub(crate) struct Explain {
    #[allow(rustdoc::broken_intra_doc_links, reason = "brackets of an address")]
    /// Where the packet comes from: 10.1.2.3:40000, [2001:db8::1]:443; without a port for other protocols.
    #[arg(value_name = "SRC", requires = "dst", required_unless_present_any = ["hex", "pcap"])]
    src: Option<End>,
    /// Where it goes.
    #[arg(value_name = "DST")]
    dst: Option<End>,
    /// tcp, udp, icmp or a number [default: tcp where there are ports, else icmp]
    #[arg(value_name = "PROTOCOL", value_parser = protocol)]
    protocol: Option<u8>,
    /// A frame as hexadecimal digits, from its destination address on; `-` reads them from standard input.
    ///
    /// Blanks, colons and line ends do not matter; the output of `tshark -x`, `xxd` and `tcpdump -xx` will do.
    #[arg(long, value_name = "HEX", conflicts_with_all = ["src", "pcap"])]
    hex: Option<String>,
    /// Every packet of a capture, with its clock: pcap or pcapng, Ethernet.
    #[arg(long, value_name = "A.pcap", conflicts_with = "src")]
    pcap: Option<PathBuf>,
    /// Packets of the capture at most.
    #[arg(long, value_name = "N", requires = "pcap", default_value_t = 10, value_parser = clap::value_parser!(u64).range(1..=100_000))]
    limit: u64,
    /// Port at which it comes in [default: a site port, or a wan port if only the destination is a service's]
    #[arg(long, value_name = "PORT")]
    port: Option<String>,
    /// DSCP: a number from 0 to 63, or its name.
    #[arg(long, value_name = "X", default_value = "0", value_parser = dscp)]
    dscp: u8,
    /// ECN bits, 0 to 3.
    #[arg(long, value_name = "N", default_value_t = 0, value_parser = clap::value_parser!(u8).range(0..=3))]
    ecn: u8,
    /// Priority of a VLAN tag.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u8).range(0..=7))]
    pcp: Option<u8>,
    /// VLAN of a tag.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(0..=4095))]
    vlan: Option<u16>,
    /// Length of the IP packet in bytes, with its headers.
    #[arg(long, value_name = "N", default_value_t = 1500, value_parser = clap::value_parser!(u16).range(20..))]
    size: u16,
    /// Use this configuration, with full buckets, instead of asking the running appliance.
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Print JSON.
    #[arg(long)]
    json: bool,
    /// Where the appliance listens.
    #[arg(long, value_name = "PATH", default_value = socket::DEFAULT_PATH)]
    socket: PathBuf,
}

/// One packet to explain.
struct Packet {
    bytes: Vec<u8>,
    wire_len: usize,
    /// Of a capture: number and time.
    captured: Option<(u64, Timestamp)>,
}

pub(crate) fn explain(options: &Explain) -> ExitCode {
    let packets = match packets(options) {
        Ok(packets) => packets,
        Err(failed) => return failed,
    };
    let is_default = options.socket == Path::new(socket::DEFAULT_PATH) && Path::new(DEFAULT_CONFIG).exists();
    let answers = match (&options.config, UnixStream::connect(&options.socket)) {
        (Some(path), _) => offline(options, path, &packets),
        (None, Ok(_)) => live(options, &packets),
        // One that may not be asked may well run, and its buckets are not full.
        (None, Err(error)) if is_default && is_absent(&error) => {
            eprintln!("weir: no appliance answers: by {DEFAULT_CONFIG}, with full buckets");
            offline(options, Path::new(DEFAULT_CONFIG), &packets)
        }
        (None, Err(error)) => {
            let remedy = "start `weir run`, name its --socket (and be allowed to open it: root, group `weir`), or give --config FILE";
            let socket = options.socket.display();
            return fail(&format!("no appliance answers at {socket}: {error}"), Some(remedy), 1);
        }
    };
    match answers {
        Ok(answers) => print(options, &answers),
        Err(failed) => failed,
    }
}

fn print(options: &Explain, answers: &[Explanation]) -> ExitCode {
    if options.json {
        return match answers {
            [one] if options.pcap.is_none() => print_json(one),
            all => print_json(&all),
        };
    }
    let texts: Vec<String> = answers.iter().map(text::text).collect();
    // The reader may have gone: nothing to say to them then.
    let _gone = std::io::stdout().write_all(texts.join("\n").as_bytes());
    ExitCode::SUCCESS
}

fn packets(options: &Explain) -> Result<Vec<Packet>, ExitCode> {
    if let Some(path) = &options.pcap {
        return captured(path, options.limit);
    }
    let one = |(bytes, wire_len)| {
        vec![Packet {
            bytes,
            wire_len,
            captured: None,
        }]
    };
    if let Some(hex) = &options.hex {
        let mut text = hex.clone();
        if hex == "-" {
            text.clear();
            // More than any frame in any form: the rest of a mistaken file is not read.
            let mut input = std::io::stdin().lock().take(1 << 20);
            if std::io::stdin().is_terminal() {
                eprintln!("weir: reading the frame from standard input; Ctrl-D ends it");
            }
            if let Err(error) = input.read_to_string(&mut text) {
                return Err(fail(&format!("cannot read standard input: {error}"), None, INVALID));
            }
        }
        let bytes = parse_hex(&text).map_err(|error| fail(&error, None, INVALID))?;
        return Ok(one((bytes.clone(), bytes.len())));
    }
    let (Some(src), Some(dst)) = (options.src, options.dst) else {
        return Err(fail(&"give SRC and DST, --hex or --pcap", None, INVALID));
    };
    let has_port = src.port.is_some() || dst.port.is_some();
    let icmp = if src.address.is_ipv4() { 1 } else { 58 };
    let flow = FlowPacket {
        src,
        dst,
        protocol: options.protocol.unwrap_or(if has_port { 6 } else { icmp }),
        dscp: options.dscp,
        ecn: options.ecn,
        pcp: options.pcp,
        vlan: options.vlan,
        size: options.size,
    };
    flow.frame().map(one).map_err(|error| fail(&error, None, INVALID))
}

fn captured(path: &Path, limit: u64) -> Result<Vec<Packet>, ExitCode> {
    let failed = |error| fail(&error, None, 1);
    let mut reader = CaptureReader::open(path).map_err(failed)?;
    let mut packets = Vec::new();
    let mut captured = Captured::default();
    for number in 1..=limit {
        if !reader.next(&mut captured).map_err(failed)? {
            return Ok(packets);
        }
        let at = Timestamp::from_nanosecond(i128::from(captured.at)).unwrap_or_default();
        packets.push(Packet {
            bytes: std::mem::take(&mut captured.data),
            wire_len: captured.wire_len as usize,
            captured: Some((number, at)),
        });
    }
    if reader.next(&mut captured).map_err(failed)? {
        eprintln!("weir: the capture has more packets than {limit}: --limit N shows them");
    }
    Ok(packets)
}

fn live(options: &Explain, packets: &[Packet]) -> Result<Vec<Explanation>, ExitCode> {
    let one = |packet: &Packet| {
        let question = Question::new(&packet.bytes, packet.wire_len, options.port.clone());
        match ask(&options.socket, &Request::Explain { question }) {
            Ok(Response::Explained(answer)) => Ok(numbered(*answer, packet)),
            Ok(Response::Invalid { reason }) => Err(fail(&reason, None, INVALID)),
            Ok(other) => Err(unexpected(&other)),
            Err(failed) => Err(failed),
        }
    };
    packets.iter().map(one).collect()
}

fn offline(options: &Explain, path: &Path, packets: &[Packet]) -> Result<Vec<Explanation>, ExitCode> {
    let loaded = config::load(path).map_err(|errors| {
        eprint!("{}", errors.render(colour()));
        fail(&format!("{}: not valid", path.display()), None, INVALID)
    })?;
    judge(&loaded.config, options, packets)
}

fn judge(config: &Config, options: &Explain, packets: &[Packet]) -> Result<Vec<Explanation>, ExitCode> {
    let when = |packet: &Packet| packet.captured.map_or_else(Timestamp::now, |(_, at)| at);
    let start = packets.first().map_or_else(Timestamp::now, when);
    let mut offline = Offline::new(config, start).map_err(|error| fail(&error, None, INVALID))?;
    let one = |packet: &Packet| {
        let wire_len = u32::try_from(packet.wire_len).unwrap_or(u32::MAX);
        let answer = offline.explain(&packet.bytes, wire_len, options.port.as_deref(), when(packet));
        let answer = answer.map_err(|error| fail(&error, None, INVALID))?;
        Ok(numbered(answer, packet))
    };
    packets.iter().map(one).collect()
}

fn numbered(mut answer: Explanation, packet: &Packet) -> Explanation {
    if let Some((number, at)) = packet.captured {
        answer.number = Some(number);
        answer.at = Some(at.to_string());
    }
    answer
}

fn protocol(text: &str) -> Result<u8, String> {
    match text.to_lowercase().as_str() {
        "tcp" => Ok(6),
        "udp" => Ok(17),
        "icmp" => Ok(1),
        "icmpv6" => Ok(58),
        other => other
            .parse()
            .map_err(|_| "write tcp, udp, icmp, icmpv6 or a number from 0 to 255".to_owned()),
    }
}

fn dscp(text: &str) -> Result<u8, String> {
    let number = text
        .parse()
        .ok()
        .or_else(|| config::dscp_from_name(&text.to_uppercase()));
    number
        .filter(|dscp| *dscp < 64)
        .ok_or_else(|| "write a number from 0 to 63 or a name such as EF, AF41, CS5, LE".to_owned())
}

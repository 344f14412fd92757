//! What an operator types, as the bytes of a frame: addresses and marks, or hexadecimal digits in the forms that tools print.

use std::fmt::Write;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::str::FromStr;

use dataplane::packet::Family;

/// Why it is not a packet.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum InputError {
    /// Something else than hexadecimal digits.
    #[error(
        "line {line}: `{text}` is not hexadecimal: write the frame as pairs of 0-9 and a-f, or as `tshark -x` prints it"
    )]
    NotHex {
        /// From 1.
        line: usize,
        /// What stands there.
        text: String,
    },
    /// Half a byte is left.
    #[error("{digits} hexadecimal digits are not whole bytes: one is missing or too many")]
    Odd {
        /// How many there are.
        digits: usize,
    },
    /// The offsets of a dump do not follow each other.
    #[error(
        "line {line}: offset {found:#06x} where {expected:#06x} was to come: a line of the dump is missing or doubled"
    )]
    Offset {
        /// From 1.
        line: usize,
        /// As written.
        found: usize,
        /// As counted.
        expected: usize,
    },
    /// Nothing at all.
    #[error("there is no packet: not one byte was given")]
    Empty,
    /// Longer than a frame can be.
    #[error("{bytes} bytes are no frame: the longest that weir knows is {FRAME_MAX}")]
    TooLong {
        /// How many there are.
        bytes: usize,
    },
    /// The two ends do not fit together.
    #[error("{0}")]
    Flow(String),
}

/// Longest frame: what a capture of local traffic may hold before segmentation.
const FRAME_MAX: usize = 128 * 1024;

/// One end of a flow: `10.1.2.3`, `10.1.2.3:443`, `2001:db8::1`, `[2001:db8::1]:443`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct End {
    /// Address.
    pub address: IpAddr,
    /// Transport port.
    pub port: Option<u16>,
}

impl FromStr for End {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if let Ok(both) = text.parse::<SocketAddr>() {
            return Ok(Self {
                address: both.ip(),
                port: Some(both.port()),
            });
        }
        let bare = text
            .strip_prefix('[')
            .and_then(|text| text.strip_suffix(']'))
            .unwrap_or(text);
        match bare.parse() {
            Ok(address) => Ok(Self { address, port: None }),
            Err(_) => Err("write 10.1.2.3, 10.1.2.3:443, 2001:db8::1 or [2001:db8::1]:443".to_owned()),
        }
    }
}

/// A packet described in words.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FlowPacket {
    /// Source.
    pub src: End,
    /// Destination.
    pub dst: End,
    /// IP protocol number.
    pub protocol: u8,
    /// 0 to 63.
    pub dscp: u8,
    /// 0 to 3.
    pub ecn: u8,
    /// PCP of a tag; with it or `vlan` there is one.
    pub pcp: Option<u8>,
    /// VLAN of a tag.
    pub vlan: Option<u16>,
    /// Bytes of the IP packet with its headers.
    pub size: u16,
}

impl FlowPacket {
    /// Headers of the frame, and its length on the wire.
    ///
    /// # Errors
    /// Two families, ports where there are none or none where there are, or too small for its headers.
    pub fn frame(&self) -> Result<(Vec<u8>, usize), InputError> {
        let has_ports = matches!(self.protocol, 6 | 17);
        let wrong = |text: &str| Err(InputError::Flow(text.to_owned()));
        let ports = match (has_ports, self.src.port, self.dst.port) {
            (true, Some(src), Some(dst)) => Some((src, dst)),
            (true, ..) => return wrong("TCP and UDP have two ports: write both ends as 10.1.2.3:443"),
            (false, None, None) => None,
            (false, ..) => return wrong("this protocol has no ports: write the ends without, or say tcp or udp"),
        };
        let l4: &[u8] = match self.protocol {
            6 => &[0; 20],
            17 => &[0; 8],
            _ => &[],
        };
        let mut frame = vec![0x02, 0, 0, 0, 0, 2, 0x02, 0, 0, 0, 0, 1];
        if self.pcp.is_some() || self.vlan.is_some() {
            let tag = u16::from(self.pcp.unwrap_or(0)) << 13 | self.vlan.unwrap_or(0) & 0xfff;
            frame.extend([0x81, 0x00]);
            frame.extend(tag.to_be_bytes());
        }
        let class = self.dscp << 2 | self.ecn & 3;
        let l3 = frame.len() + 2;
        match (self.src.address, self.dst.address) {
            (IpAddr::V4(src), IpAddr::V4(dst)) => self.ipv4(&mut frame, class, src, dst),
            (IpAddr::V6(src), IpAddr::V6(dst)) => self.ipv6(&mut frame, class, src, dst, l4.len())?,
            _ => return wrong("one end is IPv4 and the other IPv6: a packet has one of them"),
        }
        let l4_at = frame.len();
        frame.extend(l4);
        if let Some((src, dst)) = ports {
            frame[l4_at..l4_at + 2].copy_from_slice(&src.to_be_bytes());
            frame[l4_at + 2..l4_at + 4].copy_from_slice(&dst.to_be_bytes());
        }
        let headers = frame.len() - l3;
        if usize::from(self.size) < headers {
            return Err(InputError::Flow(format!(
                "{} bytes are too few: the headers alone take {headers}",
                self.size
            )));
        }
        let wire_len = l3 + usize::from(self.size);
        Ok((frame, wire_len))
    }

    fn ipv4(&self, frame: &mut Vec<u8>, class: u8, src: Ipv4Addr, dst: Ipv4Addr) {
        frame.extend([0x08, 0x00]);
        let at = frame.len();
        frame.extend([0x45, class]);
        frame.extend(self.size.to_be_bytes());
        frame.extend([0, 0, 0x40, 0, 64, self.protocol, 0, 0]);
        frame.extend(src.octets());
        frame.extend(dst.octets());
        let checksum = dataplane::checksum::ipv4_header_checksum(&frame[at..]);
        frame[at + 10..at + 12].copy_from_slice(&checksum.to_be_bytes());
    }

    fn ipv6(
        &self,
        frame: &mut Vec<u8>,
        class: u8,
        src: Ipv6Addr,
        dst: Ipv6Addr,
        l4_len: usize,
    ) -> Result<(), InputError> {
        let Some(payload) = self
            .size
            .checked_sub(40)
            .filter(|payload| usize::from(*payload) >= l4_len)
        else {
            let headers = 40 + l4_len;
            let text = format!("{} bytes are too few: the headers alone take {headers}", self.size);
            return Err(InputError::Flow(text));
        };
        frame.extend([0x86, 0xdd, 0x60 | class >> 4, class << 4, 0, 0]);
        frame.extend(payload.to_be_bytes());
        frame.extend([self.protocol, 64]);
        frame.extend(src.octets());
        frame.extend(dst.octets());
        Ok(())
    }
}

/// The bytes of a frame from hexadecimal digits: in one piece, in groups (blanks, colons, `0x`), or as `tshark -x`, `xxd` and
/// `tcpdump -xx` print them, with an offset before each line.
///
/// # Errors
/// See [`InputError`].
pub fn parse_hex(text: &str) -> Result<Vec<u8>, InputError> {
    let mut digits = String::new();
    for (number, line) in text.lines().enumerate() {
        let line_number = number + 1;
        let line = line.trim();
        match offset_of(line) {
            Some((offset, rest)) => {
                let expected = digits.len() / 2;
                if offset != expected {
                    return Err(InputError::Offset {
                        line: line_number,
                        found: offset,
                        expected,
                    });
                }
                digits += &dump_line(rest);
            }
            None => plain_line(line, line_number, &mut digits)?,
        }
    }
    parse_digits(&digits)
}

/// Bytes from pairs of digits and nothing else.
///
/// # Errors
/// See [`InputError`].
pub fn parse_digits(digits: &str) -> Result<Vec<u8>, InputError> {
    if digits.is_empty() {
        return Err(InputError::Empty);
    }
    if let Some(at) = digits.find(|character: char| !character.is_ascii_hexdigit()) {
        return Err(InputError::NotHex {
            line: 1,
            text: digits[at..].chars().take(16).collect(),
        });
    }
    if !digits.len().is_multiple_of(2) {
        return Err(InputError::Odd { digits: digits.len() });
    }
    if digits.len() / 2 > FRAME_MAX {
        return Err(InputError::TooLong {
            bytes: digits.len() / 2,
        });
    }
    let nibble = |digit: u8| (digit as char).to_digit(16).unwrap_or(0) as u8;
    Ok(digits
        .as_bytes()
        .chunks_exact(2)
        .map(|pair| nibble(pair[0]) << 4 | nibble(pair[1]))
        .collect())
}

/// Bytes as digits.
#[must_use]
pub fn to_hex(bytes: &[u8]) -> String {
    bytes
        .iter()
        .fold(String::with_capacity(bytes.len() * 2), |mut text, byte| {
            // Writing to a String cannot fail.
            let _ok = write!(text, "{byte:02x}");
            text
        })
}

/// An address from the bits that the parser gives.
pub(super) fn address(family: Family, bits: u128) -> IpAddr {
    match family {
        Family::Ipv4 => Ipv4Addr::from(bits as u32).into(),
        Family::Ipv6 => Ipv6Addr::from(bits).into(),
    }
}

/// The offset that a line of a dump begins with: `0010  08 00`, `0x0010:  0800`, `00000010: 0800`.
fn offset_of(line: &str) -> Option<(usize, &str)> {
    let (word, rest) = line.split_once(char::is_whitespace)?;
    let (digits, marked) = match (word.strip_suffix(':'), word.strip_prefix("0x")) {
        (Some(digits), _) => (digits.trim_start_matches("0x"), true),
        _ => (word, false),
    };
    // Without a colon only the two blanks that tshark and hexdump leave tell an offset from a group of digits.
    let is_offset = (4..=8).contains(&digits.len()) && (marked || rest.starts_with(' '));
    let offset = usize::from_str_radix(digits, 16).ok().filter(|_| is_offset)?;
    Some((offset, rest))
}

/// The digits of a line of a dump, without the characters behind them: at most 16 bytes, up to the first wide gap that follows
/// them, or whatever is not digits.
fn dump_line(rest: &str) -> String {
    let rest = rest.trim_start();
    let hex = rest.split("   ").next().unwrap_or_default();
    let groups = hex.split_whitespace();
    let groups = groups.take_while(|group| {
        matches!(group.len(), 2 | 4 | 8) && group.chars().all(|character| character.is_ascii_hexdigit())
    });
    groups.collect::<String>().chars().take(32).collect()
}

fn plain_line(line: &str, number: usize, digits: &mut String) -> Result<(), InputError> {
    for group in line.split(|character: char| character.is_whitespace() || matches!(character, ':' | '-' | ',')) {
        let group = group.strip_prefix("0x").unwrap_or(group);
        if !group.chars().all(|character| character.is_ascii_hexdigit()) {
            return Err(InputError::NotHex {
                line: number,
                text: group.chars().take(16).collect(),
            });
        }
        digits.push_str(group);
    }
    Ok(())
}

//! Reading captures: pcap (microseconds or nanoseconds, either byte order) and pcapng, Ethernet only.

use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use pcap_parser::traits::PcapReaderIterator;
use pcap_parser::{Block, Linktype, PcapBlockOwned, PcapError, create_reader};

/// One captured packet.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Captured {
    /// Nanoseconds since the Unix epoch; 0 for the times before it that a broken capture may hold.
    pub at: u64,
    /// Bytes on the wire, at least as many as were captured.
    pub wire_len: u32,
    /// Bytes captured.
    pub data: Vec<u8>,
}

/// Why a capture cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum CaptureError {
    /// The file itself.
    #[error("cannot read {path}: {cause}")]
    Io {
        /// The file.
        path: PathBuf,
        /// What the system said.
        cause: io::Error,
    },
    /// It is no capture at all.
    #[error("{path}: {what}")]
    Foreign {
        /// The file.
        path: PathBuf,
        /// What it is instead, and what to do.
        what: &'static str,
    },
    /// What is in it.
    #[error("{path}, packet {}: {what}", packets + 1)]
    Format {
        /// The file.
        path: PathBuf,
        /// What is wrong, and what to do.
        what: String,
        /// How many packets were read before.
        packets: u64,
    },
}

/// Reads a capture packet by packet.
pub struct CaptureReader {
    path: PathBuf,
    reader: Box<dyn PcapReaderIterator + Send>,
    bytes_read: Arc<AtomicU64>,
    packets: u64,
    clock: LegacyClock,
    interfaces: Vec<NgInterface>,
}

/// Units of a classic pcap's second timestamp field.
#[derive(Clone, Copy)]
enum LegacyClock {
    Micros,
    Nanos,
}

/// What a pcapng section says of an interface.
struct NgInterface {
    ethernet: bool,
    units_per_second: u64,
    offset_seconds: i64,
}

/// First buffer, and how far it grows for one record. Captures hold packets of up to 256 KiB (`tcpdump -s 0`), most much
/// smaller ones, and the buffer is filled with zeros before its first use.
const BUFFER: usize = 1 << 17;
const BUFFER_MAX: usize = 64 << 20;

impl CaptureReader {
    /// Opens a capture.
    ///
    /// # Errors
    /// It cannot be read, or is neither pcap nor pcapng.
    pub fn open(path: &Path) -> Result<Self, CaptureError> {
        let file = File::open(path).map_err(|cause| CaptureError::Io {
            path: path.to_owned(),
            cause,
        })?;
        Self::new(path, file)
    }

    /// Reads a capture from anywhere. `path` is its name in errors.
    ///
    /// # Errors
    /// It is neither pcap nor pcapng.
    pub fn new(path: &Path, input: impl Read + Send + 'static) -> Result<Self, CaptureError> {
        let bytes_read = Arc::new(AtomicU64::new(0));
        let counted = Counted {
            input,
            bytes: bytes_read.clone(),
        };
        let reader = create_reader(BUFFER, counted).map_err(|error| CaptureError::Foreign {
            path: path.to_owned(),
            what: match error {
                PcapError::Eof => "the file is empty",
                PcapError::ReadError => "the file cannot be read",
                _ => "neither a pcap nor a pcapng file: record one with `tcpdump -w FILE`",
            },
        })?;
        let clock = LegacyClock::Micros;
        Ok(Self {
            path: path.to_owned(),
            reader,
            bytes_read,
            packets: 0,
            clock,
            interfaces: Vec::new(),
        })
    }

    /// Bytes of the file read so far.
    #[must_use]
    pub fn bytes_read(&self) -> u64 {
        self.bytes_read.load(Ordering::Relaxed)
    }

    /// Reads the next packet into `packet`; `false` at the end.
    ///
    /// # Errors
    /// The capture is cut off, corrupt, or not of Ethernet.
    pub fn next(&mut self, packet: &mut Captured) -> Result<bool, CaptureError> {
        loop {
            let taken = match self.reader.next() {
                Ok((consumed, block)) => {
                    let found = take(&mut self.clock, &mut self.interfaces, block, packet);
                    self.reader.consume(consumed);
                    found
                }
                Err(PcapError::Eof) => return Ok(false),
                Err(PcapError::Incomplete(_) | PcapError::BufferTooSmall) => self.read_more(),
                Err(PcapError::UnexpectedEof) => Err(CUT_OFF.to_owned()),
                Err(error) => Err(format!("its record cannot be read: {}{REPAIR}", name(&error))),
            };
            match taken {
                Ok(false) => {}
                Ok(true) => {
                    self.packets += 1;
                    return Ok(true);
                }
                Err(what) => return Err(self.error(what)),
            }
        }
    }

    fn read_more(&mut self) -> Result<bool, String> {
        let before = self.reader.data().len();
        if self.reader.refill().is_err() {
            return Err("the file cannot be read further".to_owned());
        }
        // At the end of the file the next call says whether that is in the middle of a record.
        if self.reader.data().len() > before || self.reader.reader_exhausted() {
            return Ok(false);
        }
        if before < BUFFER_MAX && self.reader.grow(2 * before.max(BUFFER)) {
            return Ok(false);
        }
        Err(format!("its record is longer than {BUFFER_MAX} bytes{REPAIR}"))
    }

    fn error(&self, what: String) -> CaptureError {
        CaptureError::Format {
            path: self.path.clone(),
            what,
            packets: self.packets,
        }
    }
}

/// Takes a packet out of a block, if it holds one.
fn take(
    clock: &mut LegacyClock,
    interfaces: &mut Vec<NgInterface>,
    block: PcapBlockOwned<'_>,
    packet: &mut Captured,
) -> Result<bool, String> {
    match block {
        PcapBlockOwned::LegacyHeader(header) => {
            ethernet(header.network)?;
            // The magic number, in either byte order, tells the unit.
            let nanos = matches!(header.magic_number, 0xa1b2_3c4d | 0x4d3c_b2a1);
            *clock = if nanos { LegacyClock::Nanos } else { LegacyClock::Micros };
            Ok(false)
        }
        PcapBlockOwned::Legacy(record) => {
            let fraction = match clock {
                LegacyClock::Micros => u64::from(record.ts_usec) * 1_000,
                LegacyClock::Nanos => u64::from(record.ts_usec),
            };
            let at = u64::from(record.ts_sec) * 1_000_000_000 + fraction;
            Ok(fill(packet, at, record.origlen, record.data))
        }
        PcapBlockOwned::NG(Block::SectionHeader(_)) => {
            interfaces.clear();
            Ok(false)
        }
        PcapBlockOwned::NG(Block::InterfaceDescription(interface)) => {
            interfaces.push(NgInterface {
                ethernet: interface.linktype == Linktype::ETHERNET,
                units_per_second: units_per_second(interface.if_tsresol)
                    .ok_or("an interface counts time in units too small for 64 bits")?,
                offset_seconds: interface.if_tsoffset,
            });
            Ok(false)
        }
        PcapBlockOwned::NG(Block::EnhancedPacket(record)) => {
            let interface = interfaces
                .get(record.if_id as usize)
                .ok_or("it names an interface that the file does not describe")?;
            if !interface.ethernet {
                return Err(NOT_ETHERNET.to_owned());
            }
            let units = u64::from(record.ts_high) << 32 | u64::from(record.ts_low);
            let captured = record.data.get(..record.caplen as usize).unwrap_or(record.data);
            Ok(fill(packet, interface.nanoseconds(units), record.origlen, captured))
        }
        PcapBlockOwned::NG(Block::SimplePacket(_)) => {
            Err("it has no timestamp (a pcapng simple packet block): record with `tcpdump` or `dumpcap`".to_owned())
        }
        PcapBlockOwned::NG(_) => Ok(false),
    }
}

impl NgInterface {
    fn nanoseconds(&self, units: u64) -> u64 {
        let scaled = u128::from(units) * 1_000_000_000 / u128::from(self.units_per_second);
        let offset = i128::from(self.offset_seconds) * 1_000_000_000;
        let total = i128::try_from(scaled).unwrap_or(i128::MAX).saturating_add(offset);
        u64::try_from(total.max(0)).unwrap_or(u64::MAX)
    }
}

/// What an `if_tsresol` byte says (draft-ietf-opsawg-pcapng section 4.2): a negative power of ten of a second, or with the
/// top bit set of two. pcap-parser's own reading knows no powers of two.
fn units_per_second(resolution: u8) -> Option<u64> {
    let exponent = u32::from(resolution & 0x7f);
    if resolution & 0x80 == 0 {
        10_u64.checked_pow(exponent)
    } else {
        1_u64.checked_shl(exponent)
    }
}

fn fill(packet: &mut Captured, at: u64, wire_len: u32, data: &[u8]) -> bool {
    packet.at = at;
    packet.wire_len = wire_len.max(data.len() as u32);
    packet.data.clear();
    packet.data.extend_from_slice(data);
    true
}

const NOT_ETHERNET: &str = "not Ethernet: capture on an Ethernet interface (not `-i any`)";
const CUT_OFF: &str =
    "the file ends in the middle of its record: the recording or a copy was cut off; what comes before is whole";
const REPAIR: &str = "; `editcap IN OUT` may save what follows, what comes before is whole";

fn ethernet(linktype: Linktype) -> Result<(), String> {
    if linktype == Linktype::ETHERNET {
        Ok(())
    } else {
        Err(NOT_ETHERNET.to_owned())
    }
}

fn name<I>(error: &PcapError<I>) -> &'static str {
    match error {
        PcapError::ReadError => "the file cannot be read",
        PcapError::HeaderNotRecognized => "its header is unknown",
        _ => "its lengths contradict each other",
    }
}

/// Counts what is read, for progress.
struct Counted<R> {
    input: R,
    bytes: Arc<AtomicU64>,
}

impl<R: Read> Read for Counted<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let read = self.input.read(buffer)?;
        self.bytes.fetch_add(read as u64, Ordering::Relaxed);
        Ok(read)
    }
}

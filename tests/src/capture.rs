//! Packets with their instants, to and from nanosecond pcap files.

use std::fs::File;
use std::io::{BufReader, BufWriter, Write as _};
use std::path::Path;
use std::time::Duration;

use pcap_file::pcap::{PcapHeader, PcapPacket, PcapReader, PcapWriter};
use pcap_file::{DataLink, Endianness, PcapError, PcapResult, TsResolution};

/// One packet of a capture.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Packet {
    /// When it was seen: nanoseconds since the Unix epoch, below 2^32 seconds (the format has no more).
    pub at_ns: u64,
    /// The whole Ethernet frame without FCS.
    pub bytes: Vec<u8>,
}

/// Writes `packets` in their order as a pcap file with nanosecond resolution.
///
/// # Errors
///
/// What the file system or the format refuses.
pub fn write(path: &Path, packets: &[Packet]) -> PcapResult<()> {
    let header = PcapHeader {
        version_major: 2,
        version_minor: 4,
        ts_correction: 0,
        ts_accuracy: 0,
        snaplen: 65_535,
        datalink: DataLink::ETHERNET,
        ts_resolution: TsResolution::NanoSecond,
        endianness: Endianness::Little,
    };
    let file = File::create(path).map_err(PcapError::IoError)?;
    let mut writer = PcapWriter::with_header(BufWriter::new(file), header)?;
    for packet in packets {
        let length = u32::try_from(packet.bytes.len()).expect("a packet is shorter than 4 GiB");
        writer.write_packet(&PcapPacket::new(
            Duration::from_nanos(packet.at_ns),
            length,
            &packet.bytes,
        ))?;
    }
    writer.into_writer().flush().map_err(PcapError::IoError)
}

/// Reads a pcap file whole.
///
/// # Errors
///
/// When it cannot be read, is no pcap, or holds a packet that was cut by a snap length (the gateway never cuts).
pub fn read(path: &Path) -> Result<Vec<Packet>, String> {
    let file = File::open(path).map_err(|error| format!("{}: {error}", path.display()))?;
    let mut reader = PcapReader::new(BufReader::new(file)).map_err(|error| format!("{}: {error}", path.display()))?;
    let mut packets = Vec::new();
    while let Some(packet) = reader.next_packet() {
        let packet = packet.map_err(|error| format!("{}: packet {}: {error}", path.display(), packets.len()))?;
        if packet.orig_len as usize != packet.data.len() {
            return Err(format!(
                "packet {} was cut from {} bytes",
                packets.len(),
                packet.orig_len
            ));
        }
        let at_ns = u64::try_from(packet.timestamp.as_nanos()).map_err(|error| error.to_string())?;
        packets.push(Packet {
            at_ns,
            bytes: packet.data.into_owned(),
        });
    }
    Ok(packets)
}

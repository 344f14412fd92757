//! Records as pcapng: one or two packets each, with a comment that says what happened.
//!
//! Every port is two interfaces: packets as they came from it (`lan:in`) and as they go towards it (`uplink:out`). A packet
//! is on the first of them as it arrived; if weir did not drop it on arrival, also on the second, as it went into its ring
//! (re-marked, perhaps). A packet that CoDel drops from its ring is on the second alone: it is no longer known as it arrived.
//!
//! The section is big-endian, because pcapng puts the halves of a 64-bit time in that order whatever the section's, and
//! `pcap-file` writes times of statistics as one number.

use std::fmt::Write;
use std::time::Duration;

use dataplane::packet;
use dataplane::tap::Record;
use pcap_file::pcapng::PcapNgWriter;
use pcap_file::pcapng::blocks::enhanced_packet::{EnhancedPacketBlock, EnhancedPacketOption};
use pcap_file::pcapng::blocks::interface_description::{InterfaceDescriptionBlock, InterfaceDescriptionOption};
use pcap_file::pcapng::blocks::interface_statistics::{InterfaceStatisticsBlock, InterfaceStatisticsOption};
use pcap_file::pcapng::blocks::section_header::{SectionHeaderBlock, SectionHeaderOption};
use pcap_file::{DataLink, Endianness, PcapError};

use super::LanePorts;
use super::names::Names;
use crate::report::{color_name, half_name};

/// Where a record comes from, for its comment.
#[derive(Clone, Copy, Debug)]
pub(super) struct Origin {
    pub(super) worker: usize,
    pub(super) lane: LanePorts,
}

/// A pcapng section in the making.
pub(super) struct Section {
    writer: PcapNgWriter<Vec<u8>>,
    /// By interface: packets written.
    written: Vec<u64>,
    records: u64,
}

impl Section {
    /// Begins a section with two interfaces for each port: its name, and what it is (interface and driver).
    pub(super) fn begin(ports: &[(String, String)], snaplen: u32, comment: String) -> Result<Self, PcapError> {
        let header = SectionHeaderBlock {
            endianness: Endianness::Big,
            options: vec![
                SectionHeaderOption::Comment(comment.into()),
                SectionHeaderOption::OS("Linux".into()),
                SectionHeaderOption::UserApplication(concat!("weir ", env!("CARGO_PKG_VERSION")).into()),
            ],
            ..SectionHeaderBlock::default()
        };
        let mut writer = PcapNgWriter::with_section_header(Vec::new(), header)?;
        for (name, device) in ports {
            for (way, what) in [("in", "as they came from"), ("out", "as they go towards")] {
                let options = vec![
                    InterfaceDescriptionOption::IfName(format!("{name}:{way}").into()),
                    InterfaceDescriptionOption::IfDescription(format!("packets {what} port {name} ({device})").into()),
                    InterfaceDescriptionOption::IfTsResol(9),
                ];
                writer.write_pcapng_block(InterfaceDescriptionBlock {
                    linktype: DataLink::ETHERNET,
                    snaplen,
                    options,
                })?;
            }
        }
        Ok(Self {
            writer,
            written: vec![0; 2 * ports.len()],
            records: 0,
        })
    }

    /// Writes a record that is `at` by the wall clock.
    pub(super) fn write(
        &mut self,
        record: &Record,
        origin: Origin,
        names: &Names,
        at: Duration,
    ) -> Result<(), PcapError> {
        self.records += 1;
        let comment = comment(record, self.records, origin, names);
        let way = usize::from(record.path & 1);
        let (from, to) = (2 * origin.lane.ports[way], 2 * origin.lane.ports[1 - way] + 1);
        if record.waited.is_none() {
            self.packet(from, at, &record.before(), record.wire_len, &comment)?;
        }
        if record.waited.is_some() || record.dropped.is_none() {
            self.packet(to, at, record.after(), record.wire_len, &comment)?;
        }
        Ok(())
    }

    fn packet(
        &mut self,
        interface: usize,
        at: Duration,
        bytes: &[u8],
        wire_len: u32,
        comment: &str,
    ) -> Result<(), PcapError> {
        self.written[interface] += 1;
        // pcapng section 4.3.1: bits 0 and 1 are the direction, 1 inbound, 2 outbound.
        let direction = 1 + interface as u32 % 2;
        self.writer.write_pcapng_block(EnhancedPacketBlock {
            interface_id: interface as u32,
            timestamp: at,
            original_len: wire_len,
            data: bytes.into(),
            options: vec![
                EnhancedPacketOption::Comment(comment.into()),
                EnhancedPacketOption::Flags(direction),
            ],
        })?;
        Ok(())
    }

    /// Ends the section: how many packets each interface had, and how many were `missed` (by port, as they came from it).
    pub(super) fn end(&mut self, missed: &[u64], began: Duration, ended: Duration) -> Result<(), PcapError> {
        for interface in 0..self.written.len() {
            let (port, is_out) = (interface / 2, interface % 2 == 1);
            let written = self.written[interface];
            let missed = if is_out {
                0
            } else {
                missed.get(port).copied().unwrap_or(0)
            };
            self.writer.write_pcapng_block(InterfaceStatisticsBlock {
                interface_id: interface as u32,
                timestamp: ended.as_nanos() as u64,
                options: vec![
                    InterfaceStatisticsOption::IsbStartTime(began.as_nanos() as u64),
                    InterfaceStatisticsOption::IsbEndTime(ended.as_nanos() as u64),
                    InterfaceStatisticsOption::IsbIfRecv(written + missed),
                    InterfaceStatisticsOption::IsbIfDrop(missed),
                    InterfaceStatisticsOption::IsbUsrDeliv(written),
                ],
            })?;
        }
        Ok(())
    }

    /// Takes what has been written since the last time.
    pub(super) fn take(&mut self) -> Vec<u8> {
        std::mem::take(self.writer.get_mut())
    }

    /// Records so far.
    pub(super) fn records(&self) -> u64 {
        self.records
    }

    /// Packets so far: one or two for each record.
    pub(super) fn packets(&self) -> u64 {
        self.written.iter().sum()
    }
}

/// What happened, then `key=value` pairs, all separated by single spaces; `id` is the same for the two packets of a record.
fn comment(record: &Record, id: u64, origin: Origin, names: &Names) -> String {
    let mut text = String::new();
    // Writing to a String cannot fail.
    let _ok = write_comment(&mut text, record, origin, names);
    let _ok = write!(text, " id={id}");
    text
}

fn write_comment(out: &mut String, record: &Record, origin: Origin, names: &Names) -> std::fmt::Result {
    match (record.dropped, record.remarked) {
        (Some(reason), _) => write!(out, "dropped reason={}", reason.name())?,
        (None, true) => write!(out, "remarked")?,
        (None, false) => write!(out, "passed")?,
    }
    let verdict = half_name(record.half);
    write!(out, " verdict={verdict}")?;
    if let Some(color) = record.color {
        write!(out, " color={}", color_name(color))?;
    }
    match names.get(record.slot) {
        Some(name) => {
            let (class, direction) = (&name.class, name.direction);
            match &name.service {
                Some(service) => {
                    let segment = name.segment.as_ref().map(|s| format!("/{s}")).unwrap_or_default();
                    write!(
                        out,
                        " service={service} class={class} contract={service}/{class}/{direction}{segment}"
                    )?;
                }
                None if name.is_other => write!(out, " service=none class={class} contract=not_ip")?,
                None => write!(out, " service=none class={class} contract=none")?,
            }
            write!(out, " ring={verdict}/{class} direction={direction}")?;
        }
        // A table went before its last packets had left the rings.
        None => write!(out, " service=unknown contract=removed")?,
    }
    let [before, after] = [&*record.before(), record.after()].map(|bytes| marks(bytes, record.wire_len));
    for ((mark, before), (_, after)) in before.into_iter().zip(after) {
        match (before, after) {
            (Some(before), Some(after)) if before != after => write!(out, " {mark}={before}>{after}")?,
            (Some(before), _) => write!(out, " {mark}={before}")?,
            _ => {}
        }
    }
    if let Some(waited) = record.waited {
        write!(out, " waited_us={}", waited.0 / 1000)?;
    }
    write!(
        out,
        " worker={} queue={} table={}",
        origin.worker, origin.lane.queue, record.generation
    )
}

/// DSCP and PCP, by name.
fn marks(bytes: &[u8], wire_len: u32) -> [(&'static str, Option<u8>); 2] {
    let (dscp, pcp) = match packet::parse(bytes, wire_len as usize) {
        packet::Parsed::Ip(headers) => (Some(headers.dscp.get()), headers.pcp),
        packet::Parsed::Other { pcp, .. } => (None, pcp),
    };
    [("dscp", dscp), ("pcp", pcp.map(packet::Pcp::get))]
}

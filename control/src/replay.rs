//! `weir replay`: the pipeline over a capture, with the capture's clock.
//!
//! Every frame of the capture enters at one port at its timestamp; what leaves the other port of the wire is written with
//! the instant it left. One packet is a batch of its own and nothing depends on the machine, so the same input gives the
//! same output, bit for bit. Time never runs backwards: a frame stamped before its predecessor enters with it.

use std::fs::File;
use std::io::{self, BufWriter, Write};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use af_xdp::{Umem, UmemConfig};
use config::Config;
use dataplane::clock::Nanos;
use dataplane::frame::{FramePool, Packet};
use dataplane::lane::{Lane, WireEnds};
use dataplane::path::PortShare;
use dataplane::port::MemoryPort;
use dataplane::worker::{Worker, WorkerShared};
use jiff::Timestamp;
use pcap_file::pcap::{PcapHeader, PcapPacket, PcapWriter};
use pcap_file::{DataLink, TsResolution};
use pktgen::capture::{CaptureError, CaptureReader, Captured};

use crate::compile::{CompileError, Compiled, Compiler};
use crate::publish::Publisher;
use crate::report::{LedgerReport, TrafficReport};

/// What a replay is asked to do.
#[derive(Clone, Debug)]
pub struct ReplayOptions {
    /// The capture to read: pcap or pcapng, Ethernet.
    pub input: PathBuf,
    /// The port at which its frames enter; `None`: the first site port that is in a wire.
    pub port: Option<String>,
    /// The capture to write: pcap with nanosecond timestamps.
    pub output: PathBuf,
}

/// Why a replay failed.
#[derive(Debug, thiserror::Error)]
pub enum ReplayError {
    /// The capture cannot be read.
    #[error(transparent)]
    Capture(#[from] CaptureError),
    /// The output cannot be written.
    #[error("cannot write {path}: {cause}")]
    Write {
        /// The output.
        path: PathBuf,
        /// What the system said.
        cause: io::Error,
    },
    /// No such port, or one that is in no wire.
    #[error("there is no port `{name}` in a wire; the configuration has: {known}")]
    Port {
        /// The port asked for.
        name: String,
        /// Ports in wires.
        known: String,
    },
    /// The configuration cannot become a table.
    #[error(transparent)]
    Compile(#[from] CompileError),
    /// The frames cannot be had.
    #[error("cannot take memory for frames: {0}")]
    Memory(af_xdp::Error),
    /// More packets wait than a replay has frames for.
    #[error(
        "after {packets} packets all {FRAMES} frames hold packets that wait for a port's rate: replay a shorter capture, or raise the rate"
    )]
    Frames {
        /// How many packets had entered.
        packets: u64,
    },
    /// The output would overwrite the input.
    #[error("{path} is the capture to read: write to another file")]
    SameFile {
        /// Both.
        path: PathBuf,
    },
}

/// Chunks for captured packets: captures of local traffic hold packets of up to 64 KiB before segmentation, and then some
/// link headers.
const FRAME_SIZE: u32 = 128 * 1024;
/// Enough for all rings of four classes to be full in the direction of the capture; memory is only used when they are.
const FRAMES: u32 = 16 * 1024;

/// Runs a replay. `progress` is called now and then with the bytes of input read so far.
///
/// # Errors
/// See [`ReplayError`]; what was written of the output until then stays.
pub fn replay(
    config: &Config,
    options: &ReplayOptions,
    mut progress: impl FnMut(u64),
) -> Result<TrafficReport, ReplayError> {
    let entrance = Entrance::find(config, options.port.as_deref())?;
    let mut reader = CaptureReader::open(&options.input)?;
    refuse_same_file(&options.input, &options.output)?;
    let output = CaptureOutput::create(&options.output)?;
    let mut captured = Captured::default();
    let mut more = reader.next(&mut captured)?;
    let mut now = Nanos(captured.at);
    let mut bench = Bench::new(config, &entrance, now, output)?;
    let mut count = 0_u64;
    while more {
        now = now.max(Nanos(captured.at));
        bench.depart_until(now)?;
        if !bench.enter(&captured, now)? {
            return Err(ReplayError::Frames { packets: count });
        }
        more = reader.next(&mut captured)?;
        count += 1;
        if count.is_multiple_of(4096) {
            progress(reader.bytes_read());
        }
    }
    bench.depart_until(Nanos(u64::MAX))?;
    bench.finish()
}

/// Two names may mean one file, so the files themselves are compared. An output that is not there yet is another file.
fn refuse_same_file(input: &Path, output: &Path) -> Result<(), ReplayError> {
    let file = |path: &Path| std::fs::metadata(path).map(|file| (file.dev(), file.ino()));
    match (file(input), file(output)) {
        (Ok(input_file), Ok(output_file)) if input_file == output_file => {
            Err(ReplayError::SameFile { path: input.to_owned() })
        }
        _ => Ok(()),
    }
}

/// Where frames enter.
struct Entrance {
    /// Port numbers of the wire: site, wan.
    ports: [usize; 2],
    /// 0: the site port, 1: the wan port.
    end: usize,
}

impl Entrance {
    fn find(config: &Config, name: Option<&str>) -> Result<Self, ReplayError> {
        let ends = config.wires.iter().flat_map(|wire| {
            let ports = [wire.site, wire.wan];
            [Entrance { ports, end: 0 }, Entrance { ports, end: 1 }]
        });
        let name_of = |entrance: &Entrance| config.ports[entrance.ports[entrance.end]].name.as_str();
        let mut ends: Vec<Entrance> = ends.collect();
        let place = match name {
            Some(name) => ends.iter().position(|entrance| name_of(entrance) == name),
            None => (0..ends.len())
                .filter(|&place| ends[place].end == 0)
                .min_by_key(|&place| ends[place].ports[0]),
        };
        match place {
            Some(place) => Ok(ends.swap_remove(place)),
            None => Err(ReplayError::Port {
                name: name.unwrap_or_default().to_owned(),
                known: ends.iter().map(name_of).collect::<Vec<_>>().join(", "),
            }),
        }
    }
}

/// A worker of one lane on memory ports, and everything around it.
struct Bench<'a> {
    config: &'a Config,
    compiler: Compiler,
    compiled: Compiled,
    publisher: Publisher,
    shared: Arc<WorkerShared>,
    worker: Worker<MemoryPort>,
    /// When the worker last turned; it must never turn at an earlier instant.
    turned: Nanos,
    end: usize,
    names: [String; 2],
    output: CaptureOutput,
}

impl<'a> Bench<'a> {
    fn new(config: &'a Config, entrance: &Entrance, start: Nanos, output: CaptureOutput) -> Result<Self, ReplayError> {
        // No slack: a port's rate paces every packet exactly.
        let mut compiler = Compiler::new(1, Nanos(0));
        let compiled = compiler.compile(config, timestamp(start))?;
        let publisher = Publisher::new(compiled.table.clone());
        let umem_config = UmemConfig {
            frame_count: FRAMES,
            frame_size: FRAME_SIZE,
            // Most captures use a few frames of the thousands that a port rate may keep waiting.
            prefault: false,
            ..UmemConfig::default()
        };
        let (umem, frames) = Umem::new(&umem_config).map_err(ReplayError::Memory)?;
        let share = || Arc::new(PortShare::new());
        let ends = WireEnds {
            ports: entrance.ports,
            shares: [share(), share()],
            seed: 0,
        };
        let port = || MemoryPort::new(FRAMES as usize);
        let lane = Lane::new(0, &ends, port(), port());
        let shared = Arc::new(WorkerShared::new(1));
        let pool = FramePool::new(frames);
        let worker = Worker::new(vec![lane], umem, pool, &publisher.current(), shared.clone(), 1);
        let names = entrance.ports.map(|port| config.ports[port].name.clone());
        Ok(Self {
            config,
            compiler,
            compiled,
            publisher,
            shared,
            worker,
            turned: start,
            end: entrance.end,
            names,
            output,
        })
    }

    /// Swaps the table if a contract began or ended by `now`.
    fn keep_periods(&mut self, now: Nanos) -> Result<(), ReplayError> {
        let at = timestamp(now);
        if self.compiled.next_change.is_some_and(|change| change <= at) {
            self.compiled = self.compiler.compile(self.config, at)?;
            self.publisher.publish(self.compiled.table.clone());
            self.publisher.retire([&*self.shared]);
        }
        Ok(())
    }

    /// Lets a packet in; false when no frame is left for it, which takes full rings of 16 classes.
    fn enter(&mut self, captured: &Captured, now: Nanos) -> Result<bool, ReplayError> {
        self.keep_periods(now)?;
        let (umem, pool) = self.worker.pool();
        let Some(mut frame) = pool.take() else {
            return Ok(false);
        };
        umem.reset(&mut frame);
        let length = captured.data.len().min(umem.capacity(&frame));
        let _fits = umem.set_len(&mut frame, length);
        umem.bytes_mut(&mut frame).copy_from_slice(&captured.data[..length]);
        let packet = Packet {
            frame,
            wire_len: captured.wire_len,
        };
        self.worker.lanes_mut()[0].ports_mut()[self.end].arrive(packet);
        self.turn(now)?;
        Ok(true)
    }

    fn turn(&mut self, now: Nanos) -> Result<(), ReplayError> {
        self.turned = now;
        self.worker.turn(now);
        self.write_departed(now)
    }

    /// Lets everything leave that may leave before `until`.
    fn depart_until(&mut self, until: Nanos) -> Result<(), ReplayError> {
        // From the last turn on, not from the beginning of time: what may go at once goes then.
        while let Some(at) = self.worker.next_departure(self.turned) {
            if at >= until {
                break;
            }
            let now = self.turned.max(at);
            self.keep_periods(now)?;
            self.turn(now)?;
        }
        Ok(())
    }

    fn write_departed(&mut self, now: Nanos) -> Result<(), ReplayError> {
        while let Some(packet) = self.worker.lanes_mut()[0].ports_mut()[1 - self.end].departed() {
            let (umem, pool) = self.worker.pool();
            let written = self.output.write(now, umem.bytes(&packet.frame), packet.wire_len);
            pool.put(packet.frame);
            written?;
        }
        Ok(())
    }

    fn finish(self) -> Result<TrafficReport, ReplayError> {
        self.output.finish()?;
        let mut report = self.compiled.traffic(None, None);
        for (end, published) in self.shared.ledgers[0].iter().enumerate() {
            report
                .ledger
                .push(LedgerReport::new(&self.names[end], 0, &published.read()));
        }
        Ok(report)
    }
}

/// The last instant that fits a pcap record: 32 bits of seconds since 1970.
const PCAP_END: Nanos = Nanos(u32::MAX as u64 * 1_000_000_000 + 999_999_999);

/// A pcap file with nanosecond timestamps.
struct CaptureOutput {
    path: PathBuf,
    writer: PcapWriter<BufWriter<File>>,
}

impl CaptureOutput {
    fn create(path: &Path) -> Result<Self, ReplayError> {
        let failed = |cause| ReplayError::Write {
            path: path.to_owned(),
            cause,
        };
        let file = File::create(path).map_err(failed)?;
        let header = PcapHeader {
            ts_resolution: TsResolution::NanoSecond,
            datalink: DataLink::ETHERNET,
            snaplen: 256 * 1024,
            ..PcapHeader::default()
        };
        let writer = PcapWriter::with_header(BufWriter::new(file), header);
        let writer = writer.map_err(|error| failed(io::Error::other(error)))?;
        Ok(Self {
            path: path.to_owned(),
            writer,
        })
    }

    fn write(&mut self, at: Nanos, bytes: &[u8], wire_len: u32) -> Result<(), ReplayError> {
        if at > PCAP_END {
            return Err(ReplayError::Write {
                path: self.path.clone(),
                cause: io::Error::other("a packet leaves after 2106-02-07, which a pcap file cannot say"),
            });
        }
        let packet = PcapPacket::new(std::time::Duration::from_nanos(at.0), wire_len, bytes);
        let failed = |error| ReplayError::Write {
            path: self.path.clone(),
            cause: io::Error::other(error),
        };
        self.writer.write_packet(&packet).map(drop).map_err(failed)
    }

    fn finish(self) -> Result<(), ReplayError> {
        let mut file = self.writer.into_writer();
        file.flush()
            .map_err(|cause| ReplayError::Write { path: self.path, cause })
    }
}

/// Nanoseconds since the Unix epoch as a point in time; the end of time for what lies beyond it.
fn timestamp(at: Nanos) -> Timestamp {
    Timestamp::from_nanosecond(i128::from(at.0)).unwrap_or(Timestamp::MAX)
}

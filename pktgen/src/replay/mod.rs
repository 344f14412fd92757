//! Sending captures: the packets of a pcap or pcapng file out of one queue of an interface, at the capture's own gaps, at
//! another speed, at a fixed rate or as fast as possible, once or over and over, with other addresses if wanted.
//!
//! ```text
//!   CaptureReader ─► Preparer ─► Source ─► Run ── PacketSink (AF_XDP) ──► wire
//!                    Rewrite                └─ Schedule, Timer   └─► GapMeter ─► ReplayResult
//! ```
//!
//! | module | what it owns |
//! | --- | --- |
//! | `timing` | [`Timing`]: when each packet is due; [`Timer`]: waiting until then |
//! | `rewrite` | [`Rewrite`]: addresses, ports and VLAN tags, with their checksums |
//! | `prepare` | what becomes of a captured packet before it is sent |
//! | `source` | all packets in memory, or read ahead |
//! | `sink` | [`PacketSink`]: where packets go; [`XdpSink`] |
//! | `run` | the loop |
//! | `gaps` | how far the gaps were off |
//! | `result` | [`ReplayResult`] |
//!
//! The thread that calls [`Replay::run`] sends; pinned to a core of its own it is exact to microseconds. A late packet is
//! sent at once and never left out, and later ones keep their instants: gaps are off, the rate is not. An XDP socket
//! sends what was captured as it was: offloads are the affair of whoever recorded.

mod gaps;
mod prepare;
mod result;
mod rewrite;
mod run;
mod sink;
mod source;
#[cfg(test)]
mod tests;
mod timing;

use std::io;
use std::path::PathBuf;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use dataplane::clock::Nanos;

use crate::capture::CaptureError;
use crate::rate::Layer;

pub use gaps::{Bucket, GapErrors, Lateness, histogram_text};
pub use prepare::{CutPackets, Skipped};
pub use result::{Ended, RATE_ERROR_MAX, ReplayResult};
pub use rewrite::{AddressRule, PortRule, Rewrite, Side, VlanChange};
pub use sink::{Limits, PacketSink, SinkError, XdpSink};
pub use timing::{Timer, Timing};

use prepare::Preparer;
use run::Run;
use source::Source;

/// What to send, and how.
#[derive(Clone, Debug)]
pub struct ReplayOptions {
    /// The capture: pcap or pcapng, Ethernet.
    pub capture: PathBuf,
    /// How fast packets go.
    pub timing: Timing,
    /// How often.
    pub repeat: Repeat,
    /// What is changed in packets.
    pub rewrite: Rewrite,
    /// What happens to packets that the capture holds in part.
    pub cut: CutPackets,
    /// Finish TCP and UDP checksums that the captured sender had left to its interface. Without it they go as they were
    /// captured, unless addresses or ports are changed.
    pub finish_checksums: bool,
    /// Send what comes before an error in the capture, instead of nothing.
    pub until_error: bool,
    /// Bytes of memory for packets, each with 32 bytes beside its own. A capture that needs more is read while it is
    /// sent.
    pub memory_bytes_max: u64,
}

impl ReplayOptions {
    /// The capture once, as it was.
    #[must_use]
    pub fn new(capture: impl Into<PathBuf>) -> Self {
        Self {
            capture: capture.into(),
            timing: Timing::Original { speed: 1.0 },
            repeat: Repeat::once(),
            rewrite: Rewrite::default(),
            cut: CutPackets::Skip,
            finish_checksums: false,
            until_error: false,
            memory_bytes_max: MEMORY_BYTES_MAX,
        }
    }
}

/// How often a capture is sent: whichever bound comes first.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Repeat {
    /// As many passes; `None`: until the duration ends, or a stop.
    pub times: Option<u64>,
    /// Until this long after the start; what is due then or later is not sent.
    pub duration: Option<Duration>,
    /// From the last packet of a pass to the first one of the next. `None`: the mean gap of the capture, at the speed of
    /// the replay.
    pub gap: Option<Nanos>,
}

impl Repeat {
    /// One pass.
    #[must_use]
    pub fn once() -> Self {
        Self {
            times: Some(1),
            duration: None,
            gap: None,
        }
    }
}

/// Why a replay cannot begin.
#[derive(Debug, thiserror::Error)]
pub enum ReplayError {
    /// The capture cannot be read, or not to its end.
    #[error(transparent)]
    Capture(#[from] CaptureError),
    /// An option out of its range.
    #[error("{0}")]
    Options(String),
    /// The capture has to be read while it is sent, and cannot be.
    #[error("{path} is larger than the memory for packets and cannot be read while it is sent: {cause}")]
    Memory {
        /// The capture.
        path: PathBuf,
        /// What the system said.
        cause: io::Error,
    },
}

/// A capture ready to be sent.
pub struct Replay {
    source: Source,
    timing: Timing,
    repeat: Repeat,
    until_error: bool,
    capture_error: Option<String>,
}

impl Replay {
    /// Reads the capture, as far as it fits the memory, for a sink with these `limits`.
    ///
    /// # Errors
    /// It cannot be read (to its end, unless what comes before an error is wanted), or an option is out of range. A
    /// capture too large for the memory shows its errors only while it is sent, in [`ReplayResult::ended`].
    pub fn open(options: &ReplayOptions, limits: Limits) -> Result<Self, ReplayError> {
        options.timing.validate()?;
        if options.repeat.times == Some(0) {
            return Err(ReplayError::Options(
                "0 loops send nothing: ask for 1 or more".to_owned(),
            ));
        }
        let layer = match options.timing {
            Timing::BitsPerSecond { layer, .. } => layer,
            _ => Layer::default(),
        };
        let preparer = Preparer {
            rewrite: options.rewrite.clone(),
            cut: options.cut,
            finish_checksums: options.finish_checksums,
            limits,
            layer,
        };
        let (source, error) = Source::open(&options.capture, preparer, options.memory_bytes_max)?;
        let capture_error = match error {
            Some(error) if !options.until_error => return Err(error.into()),
            error => error.map(|error| error.to_string()),
        };
        Ok(Self {
            source,
            timing: options.timing,
            repeat: options.repeat,
            until_error: options.until_error,
            capture_error,
        })
    }

    /// Sends until the end or until `stop` is set, and waits until the sink has let go of all packets, 100 ms at most.
    /// However it ends, the result says what was sent until then.
    pub fn run(mut self, sink: &mut impl PacketSink, timer: &impl Timer, stop: &AtomicBool) -> ReplayResult {
        Run::new(&self, sink, timer, stop).run(&mut self)
    }
}

/// Half a gigabyte: some minutes of a busy gigabit link cut to headers, and no trouble for a machine that tests networks.
const MEMORY_BYTES_MAX: u64 = 512 << 20;

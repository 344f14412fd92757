//! What a replay did.

use std::fmt::Write;

use serde::Serialize;

use crate::rate::Rate;
use crate::report;

use super::gaps::{Bucket, GapErrors, Lateness, duration, histogram_text};
use super::prepare::Skipped;
use super::timing::Timing;

/// Everything a replay sent, and how well. Counters are of the whole run, over all passes.
#[derive(Clone, Debug, Serialize)]
pub struct ReplayResult {
    /// Packets given to the kernel.
    pub packets: u64,
    /// Their bytes from the Ethernet header on, without FCS.
    pub bytes: u64,
    /// Of the packets, those the device refused.
    pub dropped_by_device: u64,
    /// Of the packets, those that the device had not yet let go of 100 ms after the last one.
    pub unsettled: u64,
    /// Passes that were sent to the end.
    pub loops: u64,
    /// Packets of the capture that were not sent.
    pub skipped: Skipped,
    /// Packets sent with zeros in place of what the capture had cut off.
    pub padded: u64,
    /// Packets whose checksum the sender had left to its interface, and which was finished here.
    pub checksums_finished: u64,
    /// Packets whose timestamp ran backwards: they went with gap 0.
    pub timestamps_backwards: u64,
    /// All of the capture was in memory, so that no disk came between packets.
    pub in_memory: bool,
    /// How fast packets were to go.
    pub timing: Timing,
    /// From the first packet to the last one, as it was.
    pub seconds: f64,
    /// Packets per second that were asked for, as the mean between the first packet and the last one sent. `None` as fast
    /// as possible, and where no time was to pass.
    pub asked_pps: Option<f64>,
    /// Packets per second between the first and the last one; as fast as possible until the kernel had taken all.
    pub achieved_pps: f64,
    /// Bits per second of that rate, of frames with FCS (layer 2).
    pub achieved_bps: f64,
    /// Whether the rate was within [`RATE_ERROR_MAX`] of what was asked. `None` if less than a second was asked for,
    /// which is too short to tell.
    pub rate_held: Option<bool>,
    /// How far the gaps were off; `None` as fast as possible.
    pub gap_errors: Option<GapErrors>,
    /// How late packets were; `None` as fast as possible.
    pub lateness: Option<Lateness>,
    /// Why it ended.
    pub ended: Ended,
    /// What ends the capture early, if it is broken and what is whole was asked to be sent.
    pub capture_error: Option<String>,
}

/// Why a replay ended.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Ended {
    /// All was sent, or the time was up.
    Done,
    /// It was told to stop.
    Stopped,
    /// A whole pass had nothing to send.
    NothingToSend,
    /// The capture cannot be read further.
    Capture(String),
    /// The interface takes no more packets.
    Interface(String),
}

/// The share by which an achieved rate may be off: 0.1 %.
pub const RATE_ERROR_MAX: f64 = 0.001;

impl ReplayResult {
    /// What went wrong, in sentences; empty when the replay was what was asked for.
    #[must_use]
    pub fn complaints(&self) -> Vec<String> {
        let mut complaints = Vec::new();
        match &self.ended {
            Ended::Done | Ended::Stopped => {}
            Ended::NothingToSend => complaints.push(format!("nothing to send: {}", self.skipped.text())),
            Ended::Capture(what) | Ended::Interface(what) => complaints.push(what.clone()),
        }
        if let (Some(false), Some(asked)) = (self.rate_held, self.asked_pps) {
            complaints.push(format!(
                "the rate was not held: {:.1} of {asked:.1} packets/s ({:+.2} %): ask for less, or let fewer programs share the cores",
                self.achieved_pps,
                (self.achieved_pps / asked - 1.0) * 100.0
            ));
        }
        if self.dropped_by_device > 0 {
            complaints.push(format!("the device refused {} packets", self.dropped_by_device));
        }
        complaints
    }

    /// The part of a [`Report`](crate::report::Report) that is about the capture `file`.
    #[must_use]
    pub fn to_report(&self, file: &str) -> report::Replay {
        let errors = self.gap_errors.as_ref();
        let bucket = |bucket: &Bucket| report::GapBucket {
            low_ns: bucket.from_ns,
            high_ns: bucket.to_ns,
            gaps: bucket.gaps,
        };
        report::Replay {
            file: file.to_owned(),
            timing: match self.timing {
                Timing::Original { speed: 1.0 } => "original gaps".to_owned(),
                Timing::Original { speed } => format!("original gaps, {speed} times as fast"),
                Timing::PacketsPerSecond(rate) => Rate::PacketsPerSecond(rate).to_string(),
                Timing::BitsPerSecond { rate, layer } => Rate::BitsPerSecond(rate, layer).to_string(),
                Timing::AsFastAsPossible => "as fast as possible".to_owned(),
            },
            packets: self.packets,
            loops: self.loops,
            gap_errors: errors.map_or_else(Vec::new, |errors| errors.buckets.iter().map(bucket).collect()),
            gap_error_p99_ns: errors.map(|errors| errors.p99_ns),
        }
    }

    /// The result as text, at most 100 columns wide but for messages.
    #[must_use]
    pub fn text(&self) -> String {
        let mut text = String::new();
        // Writing to a string cannot fail.
        let _written = self.write_text(&mut text);
        text
    }

    fn write_text(&self, text: &mut String) -> std::fmt::Result {
        writeln!(
            text,
            "{} packets, {} bytes in {:.6} s, {} whole loops",
            self.packets, self.bytes, self.seconds, self.loops
        )?;
        let asked = match self.asked_pps {
            Some(asked) => format!(" of {asked:.1} asked"),
            None => String::new(),
        };
        writeln!(
            text,
            "{:.1} packets/s{asked}, {:.0} bit/s with FCS",
            self.achieved_pps, self.achieved_bps
        )?;
        if self.skipped.total() > 0 {
            writeln!(text, "skipped: {}", self.skipped.text())?;
        }
        for (count, what) in [
            (self.padded, "packets padded with zeros"),
            (
                self.checksums_finished,
                "checksums finished that the sender had only begun",
            ),
            (self.timestamps_backwards, "timestamps ran backwards: gap 0"),
            (self.unsettled, "packets still in the device at the end"),
        ] {
            if count > 0 {
                writeln!(text, "{count} {what}")?;
            }
        }
        if let Some(error) = &self.capture_error {
            writeln!(text, "sent what comes before: {error}")?;
        }
        if !self.in_memory {
            writeln!(text, "read while sending: the disk may have come between packets")?;
        }
        if let Some(late) = &self.lateness {
            writeln!(
                text,
                "Lateness: p50 {}, p99 {}, p99.9 {}, max {}",
                duration(late.p50_ns),
                duration(late.p99_ns),
                duration(late.p999_ns),
                duration(late.max_ns)
            )?;
        }
        if let Some(errors) = &self.gap_errors {
            text.push_str(&histogram_text(errors));
        }
        Ok(())
    }
}

impl Skipped {
    /// What was skipped, and what mends it.
    #[must_use]
    pub fn text(&self) -> String {
        let reasons = [
            (
                self.cut,
                "cut by the snap length (pad them, or record with `tcpdump -s 0`)",
            ),
            (
                self.too_long,
                "too long (raise the MTU up to 3826, or record with segmentation offload off)",
            ),
            (self.too_short, "shorter than an Ethernet header"),
        ];
        let present = reasons.iter().filter(|(count, _)| *count > 0);
        let texts: Vec<String> = present.map(|(count, what)| format!("{count} {what}")).collect();
        if texts.is_empty() {
            "the capture holds no packets".to_owned()
        } else {
            texts.join(", ")
        }
    }
}

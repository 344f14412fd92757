//! Traffic profiles: what known workloads and hostile ones put on the wire, with where that is known from.
//!
//! A [`Profile`] and [`Settings`] make [`Traffic`]; each of its sources yields [`Message`]s: when, how many bytes, of which
//! flow. Messages are cut into frames by [`segment`], or by [`Traffic::packets`], which also spaces them at the line
//! rate of their source. All is open loop: nothing waits for an answer, and a late network does not slow the sources.
//!
//! ```text
//!   sizes (distribution) ─┐
//!                         ├─► Messages of source 0 ─► Packets ─┐
//!   arrivals ─────────────┘           ...                      ├─► merged by time
//!                              Messages of source n ─► Packets ┘
//! ```
//!
//! The load asked for is in packets per second of all sources together, as everywhere in this program;
//! [`Profile::mean_frame`] turns bits into it. The mean over a long time is the load; heavy tails take long: the largest
//! hundredth of data-mining's messages carries most of its bytes.
//!
//! The same seed gives the same messages on the same machine; on another one the logarithm of its C library may move an
//! instant by a nanosecond.

mod arrivals;
mod packets;
mod random;
mod registry;
mod sessions;
mod sizes;

#[cfg(test)]
mod tests;

use dataplane::clock::Nanos;
use serde::Serialize;

pub use arrivals::Messages;
pub use packets::{Due, Merged, Packet, Packets};
pub use registry::{Entry, Profile, UnknownProfile};
pub use sizes::{Distribution, Framing, Segments, segment};

use crate::rate::{Layer, MeanFrame};

/// What a source wants to send at an instant.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Message {
    /// When, from the start.
    pub at: Nanos,
    /// Bytes above the transport header, 1 or more.
    pub bytes: u64,
    /// Which flow of its source: messages with the same number belong to the same. Sources share no flows.
    pub flow: u64,
}

/// How a profile is to be run.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Settings {
    /// Senders, 1 to 65,536, equally loaded.
    pub sources: u32,
    /// Packets per second of all sources together, in the mean; above 0.
    pub load_pps: f64,
    /// Bits per second at L1 that one source sends at when it bursts; above 0.
    pub line_bps: f64,
    /// Iteration time of ai-training and checkpoint, day of serverless; other profiles have no use for it. `None`: the
    /// profile's own.
    pub period: Option<Nanos>,
    /// How messages are cut.
    pub framing: Framing,
    /// Same seed, same messages.
    pub seed: u64,
}

/// All that someone else needs to send the same traffic, and what it comes to.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct TrafficReport {
    /// Name, source and assumptions.
    pub profile: Entry,
    /// Senders.
    pub sources: u32,
    /// Packets per second of all.
    pub load_pps: f64,
    /// Bits per second at L1 of each when it bursts.
    pub line_bps: f64,
    /// Where the profile has one.
    pub period_ns: Option<u64>,
    /// How messages are cut.
    pub framing: Framing,
    /// The seed.
    pub seed: u64,
    /// Mean packets of a message; bursts that the load settles count packet by packet.
    pub mean_packets: f64,
    /// Mean bytes of a frame with FCS.
    pub mean_frame_bytes: f64,
    /// Mean messages per second of all.
    pub messages_per_second: f64,
}

/// Why a profile cannot be run like this.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub enum ProfileError {
    /// A number out of range.
    #[error("profile {profile}: {field} = {value}: allowed is {allowed}")]
    Range {
        /// The profile.
        profile: Profile,
        /// The field of [`Settings`].
        field: &'static str,
        /// Its value.
        value: String,
        /// What it may be.
        allowed: String,
    },
    /// More than its sources can send in the time they have.
    #[error(
        "profile {profile}: {load_pps} packets per second are too many for {sources} sources of {line_bps} bit/s, which send {share_percent} % of the time: at most {load_pps_max:.0}; lower the load, or add sources"
    )]
    OverLine {
        /// The profile.
        profile: Profile,
        /// Packets per second asked for.
        load_pps: f64,
        /// Sources there are.
        sources: u32,
        /// What each can send.
        line_bps: f64,
        /// How much of the time they may.
        share_percent: f64,
        /// What would be possible.
        load_pps_max: f64,
    },
}

/// A profile and its settings, checked: sources to take messages from.
#[derive(Clone, Debug)]
pub struct Traffic {
    profile: Profile,
    settings: Settings,
    /// Mean packets of a message, worked out once: a sum over as many terms as the largest message has packets.
    mean_packets: f64,
}

impl Traffic {
    /// A profile with its settings.
    ///
    /// # Errors
    /// A setting out of range, or a load that the lines of the sources cannot carry.
    pub fn new(profile: Profile, settings: Settings) -> Result<Self, ProfileError> {
        let traffic = Self {
            profile,
            settings,
            mean_packets: profile.mean_packets(settings.framing, settings.line_bps),
        };
        traffic.validate()?;
        Ok(traffic)
    }

    /// The messages of source `index`, 0 to `sources` - 1: they never end. Instants never fall.
    #[must_use]
    pub fn source(&self, index: u32) -> Messages {
        Messages::new(self, index)
    }

    /// All sources' messages, merged by time.
    #[must_use]
    pub fn messages(&self) -> Merged<Messages> {
        Merged::new((0..self.settings.sources).map(|index| self.source(index)))
    }

    /// All sources' packets, merged by time: each source sends its messages one after the other at its line rate.
    #[must_use]
    pub fn packets(&self) -> Merged<Packets<Messages>> {
        let Settings {
            sources,
            framing,
            line_bps,
            ..
        } = self.settings;
        Merged::new((0..sources).map(|index| Packets::new(self.source(index), framing, line_bps)))
    }

    /// What a report says of it.
    #[must_use]
    pub fn report(&self) -> TrafficReport {
        let Settings {
            sources,
            load_pps,
            line_bps,
            framing,
            seed,
            ..
        } = self.settings;
        TrafficReport {
            profile: self.profile.entry(),
            sources,
            load_pps,
            line_bps,
            period_ns: self.profile.has_period().then_some(self.period().0),
            framing,
            seed,
            mean_packets: self.mean_packets,
            mean_frame_bytes: self.profile.mean_frame(framing, line_bps).bytes,
            messages_per_second: load_pps / self.mean_packets,
        }
    }

    /// The profile.
    #[must_use]
    pub fn profile(&self) -> Profile {
        self.profile
    }

    /// Its settings.
    #[must_use]
    pub fn settings(&self) -> &Settings {
        &self.settings
    }

    /// Packets per second of one source.
    fn source_pps(&self) -> f64 {
        self.settings.load_pps / f64::from(self.settings.sources)
    }

    /// Mean nanoseconds between two messages of one source.
    fn mean_gap_ns(&self) -> f64 {
        1e9 * self.mean_packets / self.source_pps()
    }

    fn period(&self) -> Nanos {
        self.settings.period.unwrap_or(self.profile.default_period())
    }

    /// Packets of the largest size that one source's line carries in a second.
    fn line_pps(&self) -> f64 {
        full_frames_per_second(self.settings.framing, self.settings.line_bps)
    }

    fn validate(&self) -> Result<(), ProfileError> {
        let Settings {
            sources,
            load_pps,
            line_bps,
            framing,
            ..
        } = self.settings;
        let range = |field, value: String, allowed: &str| {
            let allowed = allowed.to_owned();
            Err(ProfileError::Range {
                profile: self.profile,
                field,
                value,
                allowed,
            })
        };
        let positive = |value: f64| value.is_finite() && value > 0.0;
        if !(1..=SOURCES_MAX).contains(&sources) {
            return range("sources", sources.to_string(), "1 to 65536");
        }
        if !positive(load_pps) {
            return range("load_pps", load_pps.to_string(), "a finite number above 0");
        }
        if !positive(line_bps) {
            return range("line_bps", line_bps.to_string(), "a finite number above 0");
        }
        if framing.mtu <= framing.header_bytes || framing.mtu > MTU_MAX {
            let allowed = format!("{} to {MTU_MAX}", u32::from(framing.header_bytes) + 1);
            return range("mtu", framing.mtu.to_string(), &allowed);
        }
        if self.period().0 == 0 || self.period().0 > PERIOD_MAX.0 {
            return range("period", format!("{} ns", self.period().0), "above 0, at most a day");
        }
        let per_period = self.source_pps() * self.period().0 as f64 / 1e9;
        let least = self.profile.parts_of_period() as f64;
        if per_period < least {
            let allowed = format!(
                "at least {:.0} ns, for {least} packets of each source",
                least * 1e9 / self.source_pps()
            );
            return range("period", format!("{} ns", self.period().0), &allowed);
        }
        if self.profile == Profile::LlmTokens && self.source_pps() > sessions::TOKENS_PER_SECOND_MAX {
            let allowed = format!("at most {} for each source", sessions::TOKENS_PER_SECOND_MAX);
            return range("load_pps", load_pps.to_string(), &allowed);
        }
        let share = self.profile.sending_share();
        let frame = self.profile.mean_frame(framing, line_bps);
        let load_pps_max = line_bps / frame.bytes_at(Layer::L1) / 8.0 * share * f64::from(sources);
        if load_pps > load_pps_max {
            return Err(ProfileError::OverLine {
                profile: self.profile,
                load_pps,
                sources,
                line_bps,
                share_percent: share * 100.0,
                load_pps_max,
            });
        }
        Ok(())
    }
}

impl Profile {
    /// What its frames are on average: the way from bits per second to packets per second.
    #[must_use]
    pub fn mean_frame(self, framing: Framing, line_bps: f64) -> MeanFrame {
        let packets = self.mean_packets(framing, line_bps);
        let bytes = match self.sizes() {
            Some(sizes) => {
                let overhead = f64::from(framing.header_bytes) + 18.0 + 4.0 * f64::from(framing.vlan_tags);
                // Sizes are rounded up to whole bytes: half a byte in the mean.
                (sizes.mean_bytes() + 0.5 + sizes.mean_padding(framing)) / packets + overhead
            }
            None => {
                let frames = segment(self.fixed_bytes(framing, line_bps), framing);
                frames.map(f64::from).sum::<f64>() / packets
            }
        };
        MeanFrame {
            bytes,
            vlan_tags: framing.vlan_tags,
        }
    }

    fn mean_packets(self, framing: Framing, line_bps: f64) -> f64 {
        match self.sizes() {
            Some(sizes) => sizes.mean_packets(framing.payload_bytes()),
            None => self
                .fixed_bytes(framing, line_bps)
                .div_ceil(u64::from(framing.payload_bytes())) as f64,
        }
    }
}

/// Frames of the largest size that a line carries in a second: 20 bytes each for preamble and gap.
fn full_frames_per_second(framing: Framing, line_bps: f64) -> f64 {
    line_bps / 8.0 / (f64::from(framing.frame_bytes(framing.payload_bytes())) + 20.0)
}

const SOURCES_MAX: u32 = 65_536;
/// With the Ethernet header, two tags and the FCS a frame still counts in 16 bits.
const MTU_MAX: u16 = 65_000;
const PERIOD_MAX: Nanos = Nanos(86_400_000_000_000);

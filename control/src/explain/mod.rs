//! `weir explain`: why a packet gets the verdict it gets, with the line of the configuration behind every step.
//!
//! ```text
//! addresses, hex, capture ─► Question ─► Judge ─► Explanation ─► text, JSON
//!        (input)                          │  parser, classifier, meter and marker of the dataplane
//!                                         │  the checked configuration, for names and places
//! ```
//!
//! The dataplane decides; what is here only says why. A running appliance is asked with a request: its control thread judges
//! on a copy of the live tokens and takes none. Without one the configuration is compiled here, and its buckets are full.
//! What only the moment decides (a full ring, CoDel, few free frames) is named and not foretold.

pub mod input;
mod judge;
mod malformed;
mod offline;
mod report;
mod service;
pub mod text;

pub use judge::ExplainError;
pub use malformed::{Malformed, why_not_ip};
pub use offline::Offline;
pub use report::{ContractFound, Explanation, PacketFacts, Ring, Step};

use dataplane::clock::{Clock, MonotonicClock};
use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::appliance::Appliance;
use judge::{Judge, Tokens};

/// Bytes of a packet that a request holds at most: more than any headers take, and within the 4 KiB of a request.
pub const BYTES_MAX: usize = 1_500;

/// Which packet, and where it comes in.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Question {
    /// The frame from its destination address on, without FCS, as hexadecimal digits; at most [`BYTES_MAX`] bytes of it.
    pub frame: String,
    /// Its length on the wire in bytes, without FCS.
    pub wire_len: u32,
    /// The port it comes in at; `None`: the site port of the first wire, or its wan port if only the destination is a
    /// service's.
    #[serde(default)]
    pub port: Option<String>,
}

impl Question {
    /// About these bytes of a frame that was `wire_len` bytes long.
    #[must_use]
    pub fn new(bytes: &[u8], wire_len: usize, port: Option<String>) -> Self {
        let kept = &bytes[..bytes.len().min(BYTES_MAX)];
        Self {
            frame: input::to_hex(kept),
            wire_len: u32::try_from(wire_len.max(bytes.len())).unwrap_or(u32::MAX),
            port,
        }
    }
}

/// What a running appliance would do with the packet now. Control thread; reads the tokens of one contract.
///
/// # Errors
/// See [`ExplainError`].
pub fn live(appliance: &Appliance, question: &Question) -> Result<Explanation, ExplainError> {
    let bytes = input::parse_digits(&question.frame)?;
    let mut judge = Judge {
        config: appliance.config(),
        compiled: appliance.compiled(),
        tokens: Tokens::Live,
        now: MonotonicClock.now(),
        at: Timestamp::now(),
    };
    judge.explain(&bytes, question.wire_len, question.port.as_deref())
}

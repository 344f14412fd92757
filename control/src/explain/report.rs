//! What `weir explain` answers, and `--json` prints.

use config::Place;
use serde::{Deserialize, Serialize};

use super::malformed::Malformed;
use crate::report::Tokens;

/// The answer to one question.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Explanation {
    /// Whether a running appliance was asked; else its buckets began full.
    pub live: bool,
    /// Number of the packet in its capture, from 1.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub number: Option<u64>,
    /// When it was captured.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub at: Option<String>,
    /// The port it comes in at.
    pub port: String,
    /// `egress` or `ingress`.
    pub direction: String,
    /// What its headers say.
    pub packet: PacketFacts,
    /// Whose it is.
    pub service: Option<String>,
    /// Class of service, by its marks; of packets that are not IP, the class of `[defaults] other`.
    pub class: String,
    /// The contract that judges it; `None`: uncontracted, or not IP.
    pub contract: Option<ContractFound>,
    /// Tokens before it, bytes.
    pub tokens: Option<Tokens>,
    /// `green`, `yellow`, `red`: what the meter says; `None`: no meter is asked.
    pub color: Option<String>,
    /// `conforming` or `nonconforming`.
    pub verdict: String,
    /// `policed` if its contract drops its excess at once. Other reasons depend on the moment.
    pub dropped: Option<String>,
    /// Where it waits; `None` if it is dropped.
    pub ring: Option<Ring>,
    /// The DSCP it leaves with.
    pub dscp_out: Option<u8>,
    /// The PCP it leaves with.
    pub pcp_out: Option<u8>,
    /// The bytes that leave, as far as they are known, in hexadecimal digits; `None` if it is dropped.
    pub leaves_as: Option<String>,
    /// Step by step.
    pub steps: Vec<Step>,
}

/// What the headers of a packet say.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct PacketFacts {
    /// Length of the frame without FCS.
    pub frame_bytes: u32,
    /// Bytes that the meter counts.
    pub counted_bytes: u32,
    /// VLAN tags.
    pub vlan_tags: u8,
    /// Priority of the outer tag.
    pub pcp: Option<u8>,
    /// Source address.
    pub src: Option<String>,
    /// Destination address.
    pub dst: Option<String>,
    /// IP protocol number.
    pub protocol: Option<u8>,
    /// Source port.
    pub src_port: Option<u16>,
    /// Destination port.
    pub dst_port: Option<u16>,
    /// DSCP as it arrives.
    pub dscp: Option<u8>,
    /// ECN bits.
    pub ecn: Option<u8>,
    /// `whole`, `first` or `later`.
    pub fragment: Option<String>,
    /// Why it is not IP to weir.
    pub not_ip: Option<Malformed>,
}

/// A contract and where it is written.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ContractFound {
    /// Service.
    pub service: String,
    /// Class of service.
    pub class: String,
    /// `egress` or `ingress`.
    pub direction: String,
    /// Far segment.
    pub segment: Option<String>,
    /// Committed rate, bit/s.
    pub rate_bps: u64,
    /// File.
    pub file: String,
    /// Line, from 1.
    pub line: usize,
}

/// A priority ring.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ring {
    /// The port it leads to.
    pub port: String,
    /// Class of service.
    pub class: String,
    /// `conforming` or `nonconforming`.
    pub half: String,
}

/// One reason.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Step {
    /// `port`, `packet`, `service`, `class`, `contract`, `meter`, `verdict`, `ring`, `marks`, `note`.
    pub topic: String,
    /// A sentence or less.
    pub text: String,
    /// Where it is written.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub file: Option<String>,
    /// Its line, from 1.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub line: Option<usize>,
}

impl Explanation {
    /// Adds a reason; one of the same topic as the last belongs to it.
    pub(super) fn say(&mut self, topic: &str, text: impl Into<String>, place: Option<&Place>) {
        self.steps.push(Step {
            topic: topic.to_owned(),
            text: text.into(),
            file: place.map(|place| place.file.display().to_string()),
            line: place.map(|place| place.line),
        });
    }
}

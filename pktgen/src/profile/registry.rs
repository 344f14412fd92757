//! Which profiles there are, what each stands for, and where that is known from.

use std::fmt;
use std::str::FromStr;

use dataplane::clock::Nanos;
use serde::{Deserialize, Serialize};

use super::full_frames_per_second;
use super::sizes::{self, Distribution, Framing};

/// A kind of traffic. [`Profile::entry`] tells its story.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[expect(missing_docs, reason = "the registry below describes each, for operators too")]
pub enum Profile {
    GoogleRpcRequest,
    GoogleRpcResponse,
    #[serde(rename = "google-rpc-2008")]
    GoogleRpc2008,
    WebSearch,
    Hadoop,
    Storage,
    DataMining,
    Cache,
    AiTraining,
    Checkpoint,
    Serverless,
    LlmTokens,
    FlowChurn,
    Microbursts,
    Incast,
    AllMinimum,
    BurstyUdp,
}

/// One line of `pktgen profiles`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct Entry {
    /// What it is asked for by.
    pub name: &'static str,
    /// What it is, in a line.
    pub description: &'static str,
    /// Paper or repository, and year.
    pub source: &'static str,
    /// What is ours and not the source's; empty if nothing.
    pub assumed: &'static str,
}

/// A name that no profile has.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("there is no profile \"{name}\"; there are {}", names())]
pub struct UnknownProfile {
    /// What was written.
    pub name: String,
}

impl Profile {
    /// All profiles, in the order in which they are listed.
    pub const ALL: [Profile; 17] = [
        Profile::GoogleRpcRequest,
        Profile::GoogleRpcResponse,
        Profile::GoogleRpc2008,
        Profile::WebSearch,
        Profile::Hadoop,
        Profile::Storage,
        Profile::DataMining,
        Profile::Cache,
        Profile::AiTraining,
        Profile::Checkpoint,
        Profile::Serverless,
        Profile::LlmTokens,
        Profile::FlowChurn,
        Profile::Microbursts,
        Profile::Incast,
        Profile::AllMinimum,
        Profile::BurstyUdp,
    ];

    /// All profiles with their descriptions.
    pub fn list() -> impl Iterator<Item = Entry> {
        Self::ALL.into_iter().map(Profile::entry)
    }

    /// What is asked for.
    #[must_use]
    pub fn name(self) -> &'static str {
        self.entry().name
    }

    /// Name, description and source.
    #[must_use]
    pub fn entry(self) -> Entry {
        let (name, description, source, assumed) = match self {
            Profile::GoogleRpcRequest => GOOGLE_RPC_REQUEST,
            Profile::GoogleRpcResponse => GOOGLE_RPC_RESPONSE,
            Profile::GoogleRpc2008 => GOOGLE_RPC_2008,
            Profile::WebSearch => WEB_SEARCH,
            Profile::Hadoop => HADOOP,
            Profile::Storage => STORAGE,
            Profile::DataMining => DATA_MINING,
            Profile::Cache => CACHE,
            Profile::AiTraining => AI_TRAINING,
            Profile::Checkpoint => CHECKPOINT,
            Profile::Serverless => SERVERLESS,
            Profile::LlmTokens => LLM_TOKENS,
            Profile::FlowChurn => FLOW_CHURN,
            Profile::Microbursts => MICROBURSTS,
            Profile::Incast => INCAST,
            Profile::AllMinimum => ALL_MINIMUM,
            Profile::BurstyUdp => BURSTY_UDP,
        };
        Entry {
            name,
            description,
            source,
            assumed,
        }
    }

    /// How large its messages are; `None` if all of a source's are the same, or as long as the load makes them.
    #[must_use]
    pub fn sizes(self) -> Option<&'static Distribution> {
        match self {
            Profile::GoogleRpcRequest | Profile::Serverless => Some(&sizes::RPC_REQUEST),
            Profile::GoogleRpcResponse => Some(&sizes::RPC_RESPONSE),
            Profile::GoogleRpc2008 => Some(&sizes::RPC_2008),
            Profile::WebSearch => Some(&sizes::WEB_SEARCH),
            Profile::Hadoop => Some(&sizes::HADOOP),
            Profile::Storage => Some(&sizes::STORAGE),
            Profile::DataMining => Some(&sizes::DATA_MINING),
            Profile::Cache => Some(&sizes::CACHE),
            Profile::LlmTokens => Some(&sizes::TOKEN_BYTES),
            _ => None,
        }
    }

    /// The bytes of each message where all are the same. Bursts whose length is settled only by the load count as one
    /// full packet here: their frames have that size.
    pub(super) fn fixed_bytes(self, framing: Framing, line_bps: f64) -> u64 {
        let payload = u64::from(framing.payload_bytes());
        match self {
            Profile::FlowChurn | Profile::AllMinimum => 1,
            Profile::Incast => INCAST_BYTES,
            Profile::Microbursts => {
                let packets = full_frames_per_second(framing, line_bps) * MICROBURST_SECONDS;
                (packets as u64).max(1).saturating_mul(payload)
            }
            _ => payload,
        }
    }

    /// In how many messages the packets of a period are sent, one packet each or more; 0: by no period.
    pub(super) fn parts_of_period(self) -> u64 {
        match self {
            Profile::AiTraining => 1,
            Profile::Checkpoint => CHECKPOINT_PARTS,
            _ => 0,
        }
    }

    /// Whether [`Settings::period`](super::Settings::period) matters to it.
    #[must_use]
    pub fn has_period(self) -> bool {
        matches!(self, Profile::AiTraining | Profile::Checkpoint | Profile::Serverless)
    }

    /// In how much of the time it may send.
    pub(super) fn sending_share(self) -> f64 {
        match self {
            Profile::Checkpoint => 1.0 - CHECKPOINT_BUSY_SHARE,
            Profile::BurstyUdp => 0.95,
            _ => 1.0,
        }
    }

    pub(super) fn default_period(self) -> Nanos {
        match self {
            Profile::Serverless => Nanos(24_000_000_000),
            _ => Nanos(100_000_000),
        }
    }
}

impl fmt::Display for Profile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

impl FromStr for Profile {
    type Err = UnknownProfile;

    fn from_str(name: &str) -> Result<Self, UnknownProfile> {
        let found = Self::ALL.into_iter().find(|profile| profile.name() == name.trim());
        found.ok_or_else(|| UnknownProfile { name: name.to_owned() })
    }
}

fn names() -> String {
    Profile::ALL.map(Profile::name).join(", ")
}

/// Name, description, source, and what is assumed.
type Story = (&'static str, &'static str, &'static str, &'static str);

const GOOGLE_RPC_REQUEST: Story = (
    "google-rpc-request",
    "Requests of remote procedure calls: half below 1.5 kB, one in a hundred above 196 kB",
    "Seemakhupt and others, A Cloud-Scale Characterization of Remote Procedure Calls, SOSP 2023, as noted by readers",
    "Poisson arrivals; straight lines between the published percentiles; 4 MiB at most; 100 connections for each source",
);
const GOOGLE_RPC_RESPONSE: Story = (
    "google-rpc-response",
    "Responses of remote procedure calls: half below 315 B, one in a hundred above 563 kB",
    "Seemakhupt and others, A Cloud-Scale Characterization of Remote Procedure Calls, SOSP 2023, as noted by readers",
    "Poisson arrivals; straight lines between the published percentiles; 4 MiB at most; 100 connections for each source",
);
const GOOGLE_RPC_2008: Story = (
    "google-rpc-2008",
    "Remote procedure calls of 2008: median 258 B, one in a hundred above 31 kB, the largest 15 MB",
    "GoogleRPC2008.txt of alibaba-edu/High-Precision-Congestion-Control, 2019",
    "35 of its 1000 points; Poisson arrivals, as that generator; 100 connections for each source",
);
const WEB_SEARCH: Story = (
    "web-search",
    "Flows of a search cluster: mean 1.7 MB, 30 % above 1 MB",
    "DCTCP, SIGCOMM 2010, as WebSearch_distribution.txt of alibaba-edu/High-Precision-Congestion-Control, 2019",
    "Poisson arrivals, as that generator",
);
const HADOOP: Story = (
    "hadoop",
    "Flows of a Hadoop cluster: median 700 B, mean 120 kB",
    "Roy and others, Inside the Social Network's (Datacenter) Network, SIGCOMM 2015, as FbHdp_distribution.txt of \
     alibaba-edu/High-Precision-Congestion-Control, 2019",
    "Poisson arrivals: the source found none that come on and off",
);
const STORAGE: Story = (
    "storage",
    "Flows of a block store: half within 4 to 8 kB, mean 41 kB",
    "AliStorage2019.txt of alibaba-edu/High-Precision-Congestion-Control, 2019",
    "Poisson arrivals, as that generator",
);
const DATA_MINING: Story = (
    "data-mining",
    "Flows of a data-mining cluster: half of one segment, mean 7.5 MB, one in a hundred above 97 MB",
    "VL2, SIGCOMM 2009, as CDF_vl2.txt of HKUST-SING/TrafficGenerator, 2016",
    "Poisson arrivals, as that generator; its unit taken as 1460 bytes",
);
const CACHE: Story = (
    "cache",
    "Flows of a cache cluster: a third of one segment, half above 19 kB, a tenth above 2.9 MB",
    "CDF_cache.txt of HKUST-SING/TrafficGenerator, 2016, which does not say where it has it from",
    "Poisson arrivals, as that generator; its unit taken as 1460 bytes",
);
const AI_TRAINING: Story = (
    "ai-training",
    "One very large flow from each source, on and off at line rate, all in phase, once in an iteration",
    "Gangidi and others, RDMA over Ethernet for Distributed AI Training at Meta Scale, SIGCOMM 2024, as noted by readers",
    "an iteration of 100 ms unless stated; each begins with the exchange",
);
const CHECKPOINT: Story = (
    "checkpoint",
    "A checkpoint in every iteration, cut in 8 and put into the half of it in which training leaves the network idle",
    "Gemini, SOSP 2023",
    "an iteration of 100 ms unless stated; its first half busy; 8 parts",
);
const SERVERLESS: Story = (
    "serverless",
    "Function calls with the swing of a day, 4.3 from peak to trough, and spikes of 100 calls",
    "XFaaS, SOSP 2023: the swing",
    "a sine; a day of 24 s unless stated, that begins at its trough; 9 % of calls in spikes; sizes of google-rpc-request",
);
const LLM_TOKENS: Story = (
    "llm-tokens",
    "Answers of a chat model, streamed: one small packet for each token, sessions of 129 tokens in the median",
    "Splitwise, ISCA 2024: tokens of an answer",
    "10 to 100 tokens a second in a session, 50 to 250 bytes each, and the shape around the median: not sourced",
);
const FLOW_CHURN: Story = (
    "flow-churn",
    "Hostile: every packet a new flow, of the smallest size",
    "ours: what empties every flow cache",
    "",
);
const MICROBURSTS: Story = (
    "microbursts",
    "Hostile: silence, and bursts of 100 us at line rate at random",
    "RFC 8239, Data Center Benchmarking Methodology, 2017, names the test",
    "100 us, Poisson",
);
const INCAST: Story = (
    "incast",
    "Hostile: all sources send 32 KiB at the same instant, over and over",
    "RFC 8239, Data Center Benchmarking Methodology, 2017, names the test",
    "32 KiB",
);
const ALL_MINIMUM: Story = (
    "all-minimum",
    "Hostile: every frame as small as can be, at equal distances",
    "RFC 2544, Benchmarking Methodology for Network Interconnect Devices, 1999: the smallest size",
    "",
);
const BURSTY_UDP: Story = (
    "bursty-udp",
    "Hostile: a neighbour that sends UDP at line rate for a millisecond or so, and stops for as long as the load leaves",
    "EyeQ, NSDI 2013: the neighbour that isolation is tested with",
    "exponential times, on 1 ms in the mean; at most 95 % of the line",
);

/// Larger than a switch port's fair share of buffer when some dozens answer at once.
const INCAST_BYTES: u64 = 32 * 1024;
const MICROBURST_SECONDS: f64 = 100e-6;
const CHECKPOINT_PARTS: u64 = 8;
/// How much of an iteration training keeps the network busy.
pub(super) const CHECKPOINT_BUSY_SHARE: f64 = 0.5;

//! The checked configuration. Only [`load`](crate::load()) makes a [`Config`]; who holds one need not check it again.
//!
//! Indices (`usize`) point into the vectors of the same [`Config`] and are always in range. Vectors keep the order of
//! the files.

use std::fmt;
use std::net::SocketAddr;
use std::ops::RangeInclusive;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use ipnet::IpNet;
use jiff::Timestamp;

/// Everything one box is told.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct Config {
    /// The region the box stands in.
    pub region: Arc<str>,
    /// What the XDP program does with packets when a worker hangs.
    pub fail: Fail,
    /// What holds where a contract or packet says nothing.
    pub defaults: Defaults,
    /// The worker threads.
    pub workers: Workers,
    /// How changes of the configuration are dealt with.
    pub control: Control,
    /// How figures are served over HTTP.
    pub api: Api,
    /// At least two.
    pub ports: Vec<Port>,
    /// At least one; no port is in two.
    pub wires: Vec<Wire>,
    /// At least one, in the order of the file (not of priority); exactly one has `default`.
    pub classes: Vec<Class>,
    /// Far parts of the network.
    pub segments: Vec<Segment>,
    /// Whose traffic there is.
    pub services: Vec<Service>,
    /// All contracts, also those of other regions and other periods: the reader skips them.
    pub contracts: Vec<Contract>,
}

impl Config {
    /// The index of the default class.
    pub fn default_class(&self) -> usize {
        self.classes.iter().position(|class| class.default).unwrap_or(0)
    }
}

/// What happens to packets when a worker's heartbeat goes stale.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Fail {
    /// They go to the kernel, unmetered.
    #[default]
    Open,
    /// They are dropped.
    Closed,
}

/// What holds where nothing else is said.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Defaults {
    /// The half in which packets without a contract travel; default nonconforming.
    pub uncontracted: Conformance,
    /// The ring of unparseable and non-IP frames; default: the default class, conforming.
    pub other: OtherRing,
    /// Which bytes count; default [`Layer::L3`].
    pub layer: Layer,
    /// The meter of a contract that names none; default token bucket.
    pub meter: MeterKind,
    /// The grain of a contract that names none; default packet.
    pub grain: Grain,
    /// Where `uncontracted`, `other` and `layer` are written.
    pub places: KeyPlaces,
}

/// A half of the rings.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Conformance {
    /// Inside the entitlement.
    Conforming,
    /// Above it.
    Nonconforming,
}

/// A class with its half.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct OtherRing {
    /// Index into [`Config::classes`].
    pub class: usize,
    /// The half.
    pub conformance: Conformance,
}

/// Which bytes of a packet rates and bursts count.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Layer {
    /// IP total length.
    #[default]
    L3,
    /// The Ethernet frame without FCS.
    L2,
    /// The frame, FCS, preamble and gap.
    L1,
}

impl Layer {
    /// Bytes of a full frame, of a 1500-byte MTU, in this layer.
    pub fn full_frame_bytes(self) -> u64 {
        match self {
            Layer::L3 => 1500,
            Layer::L2 => 1514,
            Layer::L1 => 1538,
        }
    }
}

/// The kind of a meter, without its numbers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum MeterKind {
    /// One rate.
    #[default]
    TokenBucket,
    /// RFC 2697.
    SrTcm,
    /// RFC 2698.
    TrTcm,
    /// RFC 4115.
    TrTcm4115,
}

/// What is marked as excess together. This version implements [`Grain::Packet`] only and refuses the others.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Grain {
    /// Each packet by itself.
    #[default]
    Packet,
    /// A stable share of the flows.
    Flow,
    /// A stable share of the site hosts.
    Host,
}

/// The worker threads.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Workers {
    /// CPUs to pin them to, each once; empty: chosen automatically.
    pub cpus: Vec<usize>,
    /// Packets taken together, 1 to 64; default 64.
    pub batch: usize,
    /// How they wait; default busy.
    pub poll: Poll,
    /// Nanoseconds without a turn after which packets no longer go to a worker but the way of `fail`; 5 ms (adaptive: 20 ms)
    /// to 10 s. Default: [`Poll::stale_after_ns`].
    pub stale_after_ns: u64,
}

/// How a worker waits for packets.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Poll {
    /// Never sleeps: lowest latency, a whole CPU.
    #[default]
    Busy,
    /// Sleeps when idle: for boxes that share their CPUs.
    Adaptive,
}

impl Poll {
    /// Default of `[workers] stale_after`. A busy worker has a core of its own and makes a turn in tens of microseconds: 20 ms
    /// without one is a fault. An adaptive one sleeps for up to 10 ms and shares its core, and a scheduler (or the host of a
    /// virtual machine) may keep it waiting for tens of milliseconds without anything being wrong.
    #[must_use]
    pub fn stale_after_ns(self) -> u64 {
        match self {
            Poll::Busy => 20_000_000,
            Poll::Adaptive => 250_000_000,
        }
    }
}

/// How changes of the configuration are dealt with.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Control {
    /// Absolute path of the directory for what outlives the process; default `/var/lib/weir`.
    pub state: PathBuf,
    /// What happens when the files change; default notice.
    pub watch: Watch,
}

/// How figures are served over HTTP: metrics, health and the read-only API.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Api {
    /// Absolute path of the Unix socket; `None`: `api.sock` beside the control socket.
    pub socket: Option<PathBuf>,
    /// Address to listen on beside it; `None`: no TCP.
    pub listen: Option<SocketAddr>,
    /// Absolute path of the file with the token that TCP clients show; always there unless `listen` is a loopback address.
    pub token_file: Option<PathBuf>,
}

impl Default for Control {
    fn default() -> Self {
        Self {
            state: "/var/lib/weir".into(),
            watch: Watch::Notice,
        }
    }
}

/// What happens when the files on disk change and nobody applies them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Watch {
    /// It is said, in the log and the status.
    #[default]
    Notice,
    /// They are applied, if they are valid.
    Apply,
}

/// A network interface.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Port {
    /// Unique.
    pub name: String,
    /// The kernel's name; unique.
    pub interface: String,
    /// Which side it looks to.
    pub side: Side,
    /// Bits per second, in the counted layer, sent at most; 8 kbit/s to 400 Gbit/s. None: as fast as it goes.
    pub rate_bps: Option<u64>,
    /// How the XDP program is attached; default automatic.
    pub xdp: XdpMode,
    /// Whether zero-copy is used where the driver offers it; default yes.
    pub zero_copy: bool,
    /// Where it is written.
    pub place: Place,
}

/// Where a port looks to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Side {
    /// The region's own network.
    Site,
    /// The network between regions.
    Wan,
}

/// How the XDP program is attached.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum XdpMode {
    /// Native where the driver can, else generic.
    #[default]
    Auto,
    /// By the driver, or not at all.
    Native,
    /// By the kernel's generic path.
    Generic,
}

/// Two ports joined.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Wire {
    /// Index of the site port.
    pub site: usize,
    /// Index of the wan port.
    pub wan: usize,
    /// The kernel bridge that carries on when weir does not run.
    pub bridge: Option<String>,
}

/// A class of service.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Class {
    /// Unique.
    pub name: String,
    /// 0 to 255; the smaller is served first.
    pub priority: u8,
    /// Share among classes of equal priority, 1 to 1000; default 1.
    pub weight: u16,
    /// DSCPs that lead here, green.
    pub dscp: Vec<u8>,
    /// DSCPs that lead here, yellow.
    pub yellow_dscp: Vec<u8>,
    /// DSCPs that lead here, red.
    pub red_dscp: Vec<u8>,
    /// 802.1p code points that lead here, 0 to 7.
    pub pcp: Vec<u8>,
    /// What excess is re-marked to.
    pub nonconforming_dscp: Option<u8>,
    /// What the outer tag of excess is re-marked to.
    pub nonconforming_pcp: Option<u8>,
    /// Whether packets that no class lists belong here.
    pub default: bool,
    /// Parts per million of what the port sends in a half that this class's ring gets at least.
    pub min_share_ppm: Option<u32>,
    /// Where it is written.
    pub place: Place,
    /// Where its code points and `default` are written.
    pub places: KeyPlaces,
}

/// A named set of far prefixes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Segment {
    /// Unique.
    pub name: String,
    /// At least one; none is in two segments.
    pub prefixes: Vec<IpNet>,
    /// Where it is written.
    pub place: Place,
}

/// Whose traffic it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Service {
    /// Unique.
    pub name: String,
    /// At least one.
    pub endpoints: Vec<Endpoint>,
    /// Whom to call.
    pub owner: Option<String>,
    /// Where it is written. Its endpoints are in the same file.
    pub place: Place,
}

impl Service {
    /// Where one of its endpoints is written.
    pub fn place_of(&self, endpoint: &Endpoint) -> Place {
        Place {
            file: self.place.file.clone(),
            line: endpoint.line as usize,
            column: 1,
        }
    }
}

/// Site-side addresses and, perhaps, transport ports.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Endpoint {
    /// Without host bits.
    pub prefix: IpNet,
    /// None: every protocol and port.
    pub ports: Option<Ports>,
    /// The line it is written in, from 1.
    pub line: u32,
}

/// Transport ports of one protocol.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ports {
    /// The protocol.
    pub protocol: Protocol,
    /// Sorted, not overlapping, at least one.
    pub ranges: Vec<RangeInclusive<u16>>,
}

impl fmt::Display for Endpoint {
    /// As it is written: `10.1.0.0/16 tcp/443,8000-8443`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.prefix)?;
        let Some(ports) = &self.ports else { return Ok(()) };
        let protocol = match ports.protocol {
            Protocol::Tcp => "tcp",
            Protocol::Udp => "udp",
        };
        for (number, range) in ports.ranges.iter().enumerate() {
            let (first, last) = (range.start(), range.end());
            let before = if number == 0 {
                format!(" {protocol}/")
            } else {
                ",".into()
            };
            if first == last {
                write!(f, "{before}{first}")?;
            } else {
                write!(f, "{before}{first}-{last}")?;
            }
        }
        Ok(())
    }
}

/// A transport protocol.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Protocol {
    /// Protocol 6.
    Tcp,
    /// Protocol 17.
    Udp,
}

/// One service's entitlement.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Contract {
    /// Index into [`Config::services`].
    pub service: usize,
    /// Index into [`Config::classes`].
    pub class: usize,
    /// Not necessarily the box's. Shared by contracts that follow each other.
    pub region: Arc<str>,
    /// Seen from the region.
    pub direction: Direction,
    /// Index into [`Config::segments`].
    pub segment: Option<usize>,
    /// Kind and numbers.
    pub meter: Meter,
    /// Whether the meter starts from the packet's colour; default false.
    pub color_aware: bool,
    /// What happens to the excess; default re-mark.
    pub action: Action,
    /// What is marked together.
    pub grain: Grain,
    /// Availability objective in parts per million, 1 to 1_000_000.
    pub slo_ppm: Option<u32>,
    /// Inclusive.
    pub from: Option<Timestamp>,
    /// Exclusive.
    pub until: Option<Timestamp>,
    /// Whom to call.
    pub owner: Option<String>,
    /// Where it is written.
    pub place: Place,
}

impl Contract {
    /// Whether the period of the contract holds `at`.
    pub fn valid_at(&self, at: Timestamp) -> bool {
        self.from.is_none_or(|from| from <= at) && self.until.is_none_or(|until| at < until)
    }
}

/// A place in a file.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Place {
    /// The file, shared by all places in it.
    pub file: Arc<Path>,
    /// From 1.
    pub line: usize,
    /// In characters, from 1.
    pub column: usize,
}

impl fmt::Display for Place {
    /// `weir.toml:20`, with the whole name of the file as it was read.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.file.display(), self.line)
    }
}

/// Where the keys of a table are written that `weir explain` refers to.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct KeyPlaces(pub(crate) Vec<(&'static str, Place)>);

impl KeyPlaces {
    /// The place of the value of `key`; `None` if it was left out.
    pub fn of(&self, key: &str) -> Option<&Place> {
        self.0.iter().find(|(known, _)| *known == key).map(|(_, place)| place)
    }
}

/// The way of a packet, seen from the region.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Direction {
    /// From site to wan.
    Egress,
    /// From wan to site.
    Ingress,
}

/// What happens to excess.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Action {
    /// The class's `nonconforming_dscp` and the nonconforming ring.
    #[default]
    Remark,
    /// The nonconforming ring; DSCP untouched.
    Queue,
    /// A hard policer.
    Drop,
}

/// A meter with its numbers: rates in bit/s (8_000 to 400_000_000_000), bursts in bytes (at most 2_000_000_000), both in
/// the counted layer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Meter {
    /// One rate, two colours.
    TokenBucket {
        /// Rate, bit/s.
        rate_bps: u64,
        /// Depth, bytes; at least a full frame.
        burst_bytes: u64,
    },
    /// RFC 2697; `cbs` and `ebs` are not both 0.
    SrTcm {
        /// Committed rate, bit/s.
        cir_bps: u64,
        /// Committed burst, bytes.
        cbs: u64,
        /// Excess burst, bytes.
        ebs: u64,
    },
    /// RFC 2698; `pir_bps >= cir_bps`.
    TrTcm {
        /// Committed rate, bit/s.
        cir_bps: u64,
        /// Committed burst, bytes.
        cbs: u64,
        /// Peak rate, bit/s.
        pir_bps: u64,
        /// Peak burst, bytes.
        pbs: u64,
    },
    /// RFC 4115.
    TrTcm4115 {
        /// Committed rate, bit/s.
        cir_bps: u64,
        /// Committed burst, bytes.
        cbs: u64,
        /// Excess rate, bit/s.
        eir_bps: u64,
        /// Excess burst, bytes.
        ebs: u64,
    },
}

impl Meter {
    /// The rate that is conforming, bit/s.
    pub fn rate_bps(&self) -> u64 {
        match *self {
            Meter::TokenBucket { rate_bps, .. } => rate_bps,
            Meter::SrTcm { cir_bps, .. } | Meter::TrTcm { cir_bps, .. } | Meter::TrTcm4115 { cir_bps, .. } => cir_bps,
        }
    }

    /// The kind alone.
    pub fn kind(&self) -> MeterKind {
        match self {
            Meter::TokenBucket { .. } => MeterKind::TokenBucket,
            Meter::SrTcm { .. } => MeterKind::SrTcm,
            Meter::TrTcm { .. } => MeterKind::TrTcm,
            Meter::TrTcm4115 { .. } => MeterKind::TrTcm4115,
        }
    }
}

/// A type whose values are words in the file.
pub trait Word: Copy + PartialEq + 'static {
    /// Each word with its value.
    const WORDS: &'static [(&'static str, Self)];

    /// The word of a value.
    fn word(self) -> &'static str {
        let found = Self::WORDS.iter().find(|(_, value)| *value == self);
        found.map_or("", |(word, _)| *word)
    }
}

impl Word for Fail {
    const WORDS: &'static [(&'static str, Self)] = &[("open", Fail::Open), ("closed", Fail::Closed)];
}
impl Word for Conformance {
    const WORDS: &'static [(&'static str, Self)] = &[
        ("conforming", Conformance::Conforming),
        ("nonconforming", Conformance::Nonconforming),
    ];
}
impl Word for Layer {
    const WORDS: &'static [(&'static str, Self)] = &[("l3", Layer::L3), ("l2", Layer::L2), ("l1", Layer::L1)];
}
impl Word for MeterKind {
    const WORDS: &'static [(&'static str, Self)] = &[
        ("token-bucket", MeterKind::TokenBucket),
        ("srtcm", MeterKind::SrTcm),
        ("trtcm", MeterKind::TrTcm),
        ("trtcm-4115", MeterKind::TrTcm4115),
    ];
}
impl Word for Grain {
    const WORDS: &'static [(&'static str, Self)] =
        &[("packet", Grain::Packet), ("flow", Grain::Flow), ("host", Grain::Host)];
}
impl Word for Poll {
    const WORDS: &'static [(&'static str, Self)] = &[("busy", Poll::Busy), ("adaptive", Poll::Adaptive)];
}
impl Word for Watch {
    const WORDS: &'static [(&'static str, Self)] = &[("notice", Watch::Notice), ("apply", Watch::Apply)];
}
impl Word for Side {
    const WORDS: &'static [(&'static str, Self)] = &[("site", Side::Site), ("wan", Side::Wan)];
}
impl Word for XdpMode {
    const WORDS: &'static [(&'static str, Self)] = &[
        ("auto", XdpMode::Auto),
        ("native", XdpMode::Native),
        ("generic", XdpMode::Generic),
    ];
}
impl Word for Direction {
    const WORDS: &'static [(&'static str, Self)] = &[("egress", Direction::Egress), ("ingress", Direction::Ingress)];
}
impl Word for Action {
    const WORDS: &'static [(&'static str, Self)] = &[
        ("remark", Action::Remark),
        ("queue", Action::Queue),
        ("drop", Action::Drop),
    ];
}

//! The JSON Schema of a file, from Rust types that hold the keys and nothing else. The keys that the checks accept stand
//! in [`keys`]; a test holds the two against each other.
#![allow(dead_code, reason = "the fields are there for the schema only")]

use schemars::JsonSchema;
use schemars::generate::SchemaSettings;

/// The JSON Schema, draft 07, of the base file. A drop-in has `service`, `contract` and `segment` of it only.
pub fn json_schema() -> serde_json::Value {
    SchemaSettings::draft07()
        .into_generator()
        .into_root_schema_for::<File>()
        .to_value()
}

/// The keys of each table.
pub(crate) mod keys {
    pub(crate) const FILE: &[&str] = &[
        "region", "fail", "defaults", "workers", "control", "api", "port", "wire", "class", "segment", "service",
        "contract",
    ];
    pub(crate) const DROP_IN: &[&str] = &["segment", "service", "contract"];
    pub(crate) const DEFAULTS: &[&str] = &["uncontracted", "other", "layer", "meter", "grain"];
    pub(crate) const WORKERS: &[&str] = &["cpus", "batch", "poll", "stale_after"];
    pub(crate) const CONTROL: &[&str] = &["state", "watch"];
    pub(crate) const API: &[&str] = &["socket", "listen", "token_file"];
    pub(crate) const PORT: &[&str] = &["name", "interface", "side", "rate", "xdp", "zero_copy"];
    pub(crate) const WIRE: &[&str] = &["ports", "bridge"];
    pub(crate) const CLASS: &[&str] = &[
        "name",
        "priority",
        "weight",
        "dscp",
        "pcp",
        "yellow_dscp",
        "red_dscp",
        "nonconforming_dscp",
        "nonconforming_pcp",
        "default",
        "min_share",
    ];
    pub(crate) const SEGMENT: &[&str] = &["name", "prefixes"];
    pub(crate) const SERVICE: &[&str] = &["name", "endpoints", "owner"];
    pub(crate) const CONTRACT: &[&str] = &[
        "service",
        "class",
        "region",
        "direction",
        "segment",
        "rate",
        "burst",
        "meter",
        "color_aware",
        "slo",
        "from",
        "until",
        "owner",
        "excess_burst",
        "peak_rate",
        "peak_burst",
        "excess_rate",
        "excess",
    ];
    pub(crate) const EXCESS: &[&str] = &["action", "grain"];
}

/// A weir configuration.
#[derive(JsonSchema)]
#[schemars(deny_unknown_fields)]
struct File {
    /// The region the box stands in.
    region: String,
    /// When a worker hangs: "open" passes packets to the kernel, "closed" drops them. Default "open".
    fail: Option<Fail>,
    defaults: Option<Defaults>,
    workers: Option<Workers>,
    control: Option<Control>,
    api: Option<Api>,
    #[schemars(length(min = 2))]
    port: Vec<Port>,
    #[schemars(length(min = 1))]
    wire: Vec<Wire>,
    #[schemars(length(min = 1))]
    class: Vec<Class>,
    segment: Option<Vec<Segment>>,
    service: Option<Vec<Service>>,
    contract: Option<Vec<Contract>>,
}

#[derive(JsonSchema)]
#[schemars(rename_all = "kebab-case")]
enum Fail {
    Open,
    Closed,
}

/// What holds where nothing else is said.
#[derive(JsonSchema)]
#[schemars(deny_unknown_fields)]
struct Defaults {
    /// The half of packets without a contract. Default "nonconforming".
    uncontracted: Option<Conformance>,
    /// The ring of non-IP frames: "CLASS" or "CLASS nonconforming". Default: the default class.
    other: Option<String>,
    /// Which bytes count. Default "l3".
    layer: Option<Layer>,
    /// Default "token-bucket".
    meter: Option<MeterKind>,
    /// Default "packet", the only one of this version.
    grain: Option<Grain>,
}

#[derive(JsonSchema)]
#[schemars(rename_all = "kebab-case")]
enum Conformance {
    Conforming,
    Nonconforming,
}

#[derive(JsonSchema)]
#[schemars(rename_all = "kebab-case")]
enum Layer {
    L3,
    L2,
    L1,
}

#[derive(JsonSchema)]
enum MeterKind {
    #[schemars(rename = "token-bucket")]
    TokenBucket,
    #[schemars(rename = "srtcm")]
    SrTcm,
    #[schemars(rename = "trtcm")]
    TrTcm,
    #[schemars(rename = "trtcm-4115")]
    TrTcm4115,
}

#[derive(JsonSchema)]
#[schemars(rename_all = "kebab-case")]
enum Grain {
    Packet,
    Flow,
    Host,
}

/// The worker threads.
#[derive(JsonSchema)]
#[schemars(deny_unknown_fields)]
struct Workers {
    /// CPUs, each once. Default: chosen automatically.
    cpus: Option<Vec<u16>>,
    /// Packets taken together. Default 64.
    #[schemars(range(min = 1, max = 64))]
    batch: Option<u8>,
    /// Default "busy".
    poll: Option<Poll>,
    /// Time without a turn after which packets take the way of `fail`, such as "20 ms": "5 ms" ("adaptive": "20 ms") to "10 s".
    /// Default "20 ms" with "busy", "250 ms" with "adaptive".
    stale_after: Option<String>,
}

#[derive(JsonSchema)]
#[schemars(rename_all = "kebab-case")]
enum Poll {
    Busy,
    Adaptive,
}

/// How changes of the configuration are dealt with.
#[derive(JsonSchema)]
#[schemars(deny_unknown_fields)]
struct Control {
    /// Absolute path of the directory for what outlives the process: `history/`, and the bucket levels of a weir that has stopped. Default "/var/lib/weir".
    state: Option<String>,
    /// When the files change and nobody applies them: "notice" says so, "apply" applies what is valid. Default "notice".
    watch: Option<Watch>,
}

/// How figures are served over HTTP: metrics, health and the read-only API.
#[derive(JsonSchema)]
#[schemars(deny_unknown_fields)]
struct Api {
    /// Absolute path of the Unix socket. Default: `api.sock` beside the control socket.
    socket: Option<String>,
    /// Address and port to listen on beside it: "127.0.0.1:9469", "[::1]:9469". Default: no TCP.
    listen: Option<String>,
    /// Absolute path of the file with the token for TCP. Required unless `listen` is a loopback address.
    token_file: Option<String>,
}

#[derive(JsonSchema)]
#[schemars(rename_all = "kebab-case")]
enum Watch {
    Notice,
    Apply,
}

#[derive(JsonSchema)]
#[schemars(deny_unknown_fields)]
struct Port {
    name: String,
    interface: String,
    side: Side,
    /// "10 Gbit/s", or an integer of bit/s; 8 kbit/s to 400 Gbit/s.
    rate: Option<Quantity>,
    /// Default "auto".
    xdp: Option<Xdp>,
    /// Whether to use zero-copy where the driver offers it. Default true.
    zero_copy: Option<bool>,
}

#[derive(JsonSchema)]
#[schemars(rename_all = "kebab-case")]
enum Side {
    Site,
    Wan,
}

#[derive(JsonSchema)]
#[schemars(rename_all = "kebab-case")]
enum Xdp {
    Auto,
    Native,
    Generic,
}

/// Text with a unit, or an integer of the base unit.
#[derive(JsonSchema)]
#[schemars(untagged)]
enum Quantity {
    Text(String),
    Number(u64),
}

/// A percentage such as "5 %", or a fraction such as 0.05.
#[derive(JsonSchema)]
#[schemars(untagged)]
enum Share {
    Text(String),
    Fraction(f64),
}

/// 0 to 63, or an IANA name.
#[derive(JsonSchema)]
#[schemars(untagged)]
enum Dscp {
    Name(String),
    Number(#[schemars(range(max = 63))] u8),
}

/// Two ports joined.
#[derive(JsonSchema)]
#[schemars(deny_unknown_fields)]
struct Wire {
    /// A site port and a wan port.
    ports: [String; 2],
    /// The kernel bridge that carries on without weir.
    bridge: Option<String>,
}

#[derive(JsonSchema)]
#[schemars(deny_unknown_fields)]
struct Class {
    name: String,
    /// The smaller is served first.
    priority: u8,
    /// Default 1.
    #[schemars(range(min = 1, max = 1000))]
    weight: Option<u16>,
    dscp: Option<Vec<Dscp>>,
    pcp: Option<Vec<u8>>,
    yellow_dscp: Option<Vec<Dscp>>,
    red_dscp: Option<Vec<Dscp>>,
    nonconforming_dscp: Option<Dscp>,
    #[schemars(range(max = 7))]
    nonconforming_pcp: Option<u8>,
    /// Default: the class with the largest priority number.
    default: Option<bool>,
    min_share: Option<Share>,
}

#[derive(JsonSchema)]
#[schemars(deny_unknown_fields)]
struct Segment {
    name: String,
    prefixes: Vec<String>,
}

#[derive(JsonSchema)]
#[schemars(deny_unknown_fields)]
struct Service {
    name: String,
    /// PREFIX or PREFIX tcp|udp/PORTS.
    #[schemars(length(min = 1))]
    endpoints: Vec<String>,
    owner: Option<String>,
}

#[derive(JsonSchema)]
#[schemars(deny_unknown_fields)]
struct Contract {
    service: String,
    class: String,
    region: String,
    direction: Direction,
    segment: Option<String>,
    /// 8 kbit/s to 400 Gbit/s.
    rate: Quantity,
    /// Bytes, or a time at the rate. Default 10 ms, at least 10 full frames.
    burst: Option<Quantity>,
    meter: Option<MeterKind>,
    color_aware: Option<bool>,
    slo: Option<Share>,
    /// A TOML date or date-time, inclusive.
    from: Option<String>,
    /// A TOML date or date-time, exclusive.
    until: Option<String>,
    owner: Option<String>,
    excess_burst: Option<Quantity>,
    peak_rate: Option<Quantity>,
    peak_burst: Option<Quantity>,
    excess_rate: Option<Quantity>,
    excess: Option<Excess>,
}

#[derive(JsonSchema)]
#[schemars(rename_all = "kebab-case")]
enum Direction {
    Egress,
    Ingress,
}

#[derive(JsonSchema)]
#[schemars(deny_unknown_fields)]
struct Excess {
    action: Option<Action>,
    grain: Option<Grain>,
}

#[derive(JsonSchema)]
#[schemars(rename_all = "kebab-case")]
enum Action {
    Remark,
    Queue,
    Drop,
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn the_schema_has_exactly_the_keys_that_are_read() {
        let schema = json_schema();
        let tables = [
            ("File", keys::FILE),
            ("Defaults", keys::DEFAULTS),
            ("Workers", keys::WORKERS),
            ("Control", keys::CONTROL),
            ("Api", keys::API),
            ("Port", keys::PORT),
            ("Wire", keys::WIRE),
            ("Class", keys::CLASS),
            ("Segment", keys::SEGMENT),
            ("Service", keys::SERVICE),
            ("Contract", keys::CONTRACT),
            ("Excess", keys::EXCESS),
        ];
        for (name, known) in tables {
            let table = if name == "File" {
                &schema
            } else {
                &schema["definitions"][name]
            };
            let properties: BTreeSet<&str> = table["properties"]
                .as_object()
                .unwrap()
                .keys()
                .map(String::as_str)
                .collect();
            assert_eq!(properties, known.iter().copied().collect(), "{name}");
            assert_eq!(table["additionalProperties"], false, "{name}");
        }
    }
}

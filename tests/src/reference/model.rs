//! A configuration as plain values, which also prints itself as the TOML an operator would write.

use std::fmt::Write as _;
use std::net::IpAddr;

use super::meter::Profile;

/// Everything that decides what happens to a packet.
#[derive(Clone, Debug)]
pub struct Config {
    /// The box's region.
    pub region: String,
    /// Which bytes are counted.
    pub layer: Layer,
    /// Whether packets without a contract are nonconforming (the default) or conforming.
    pub uncontracted_conforms: bool,
    /// Classes; exactly one is the default.
    pub classes: Vec<Class>,
    /// Sets of far prefixes.
    pub segments: Vec<Segment>,
    /// Services.
    pub services: Vec<Service>,
    /// Contracts, of this and of other regions.
    pub contracts: Vec<Contract>,
}

/// Which bytes of a packet rates and counters mean.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Layer {
    /// IP total length.
    L3,
    /// The Ethernet frame without FCS.
    L2,
    /// The frame with FCS (4), preamble and start delimiter (8) and gap (12).
    L1,
}

/// A class of service. Code points are 0 to 63, priority code points 0 to 7; each is listed by at most one class.
#[derive(Clone, Debug)]
pub struct Class {
    /// Its name.
    pub name: String,
    /// Smaller is served first.
    pub priority: u8,
    /// Whether packets without a listed mark belong to it.
    pub is_default: bool,
    /// Code points that arrive green.
    pub dscp: Vec<u8>,
    /// Code points that arrive yellow.
    pub yellow_dscp: Vec<u8>,
    /// Code points that arrive red.
    pub red_dscp: Vec<u8>,
    /// Priority code points that lead here when the DSCP does not decide.
    pub pcp: Vec<u8>,
    /// What the excess is marked with; none leaves it alone.
    pub nonconforming_dscp: Option<u8>,
}

/// An address prefix in canonical form (host bits zero).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Prefix {
    /// First address.
    pub address: IpAddr,
    /// Bits that count: to 32 or 128.
    pub length: u8,
}

/// A named set of far prefixes.
#[derive(Clone, Debug)]
pub struct Segment {
    /// Its name.
    pub name: String,
    /// Its prefixes; no two segments share one.
    pub prefixes: Vec<Prefix>,
}

/// A named set of site endpoints.
#[derive(Clone, Debug)]
pub struct Service {
    /// Its name.
    pub name: String,
    /// Where it lives.
    pub endpoints: Vec<Endpoint>,
}

/// A prefix, or a protocol and ports in it.
#[derive(Clone, Debug)]
pub struct Endpoint {
    /// Addresses.
    pub prefix: Prefix,
    /// Protocol and inclusive port ranges, if not everything.
    pub ports: Option<Ports>,
}

/// A protocol and ports of it.
#[derive(Clone, Debug)]
pub struct Ports {
    /// TCP (6) or UDP (17).
    pub protocol: u8,
    /// First and last port of each range.
    pub ranges: Vec<(u16, u16)>,
}

/// Which way a packet crosses the region's border.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Direction {
    /// From a site port to a wan port.
    Egress,
    /// From a wan port to a site port.
    Ingress,
}

/// One service's entitlement in one class, region and direction.
#[derive(Clone, Debug)]
pub struct Contract {
    /// Name of the service.
    pub service: String,
    /// Name of the class.
    pub class: String,
    /// Only contracts of the box's region are in force.
    pub region: String,
    /// Which way.
    pub direction: Direction,
    /// Name of the far segment it is limited to.
    pub segment: Option<String>,
    /// The meter's numbers.
    pub profile: Profile,
    /// The committed burst as written; `None` leaves it out, and then the profile holds the documented default.
    pub burst_text: Option<String>,
    /// Whether the meter heeds the colour the packet came with.
    pub color_aware: bool,
    /// What happens to the excess.
    pub action: Action,
    /// First second of its period, since the Unix epoch.
    pub from_s: Option<u64>,
    /// First second after its period.
    pub until_s: Option<u64>,
}

/// What happens to nonconforming packets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    /// The class's `nonconforming_dscp`, the nonconforming ring.
    Remark,
    /// The nonconforming ring, the code point left alone.
    Queue,
    /// Dropped.
    Drop,
}

impl Prefix {
    /// Whether `address` is of the same family and its first `length` bits are the same.
    pub fn contains(&self, address: IpAddr) -> bool {
        let (own, other) = match (self.address, address) {
            (IpAddr::V4(own), IpAddr::V4(other)) => (own.octets().to_vec(), other.octets().to_vec()),
            (IpAddr::V6(own), IpAddr::V6(other)) => (own.octets().to_vec(), other.octets().to_vec()),
            _ => return false,
        };
        (0..usize::from(self.length)).all(|bit| bit_of(&own, bit) == bit_of(&other, bit))
    }
}

fn bit_of(octets: &[u8], bit: usize) -> u8 {
    octets[bit / 8] >> (7 - bit % 8) & 1
}

impl Config {
    /// The port that packets of `direction` enter by.
    pub fn entry_port(direction: Direction) -> &'static str {
        match direction {
            Direction::Egress => "lan",
            Direction::Ingress => "uplink",
        }
    }

    /// The whole configuration in one file.
    pub fn to_toml(&self) -> String {
        let mut text = format!("region = \"{}\"\n\n[defaults]\n", self.region);
        let layer = match self.layer {
            Layer::L3 => "l3",
            Layer::L2 => "l2",
            Layer::L1 => "l1",
        };
        let uncontracted = if self.uncontracted_conforms {
            "conforming"
        } else {
            "nonconforming"
        };
        text += &format!("layer = \"{layer}\"\nuncontracted = \"{uncontracted}\"\n");
        text += "\n[[port]]\nname = \"lan\"\ninterface = \"eth1\"\nside = \"site\"\n";
        text += "\n[[port]]\nname = \"uplink\"\ninterface = \"eth2\"\nside = \"wan\"\n";
        text += "\n[[wire]]\nports = [\"lan\", \"uplink\"]\n";
        self.classes.iter().for_each(|class| text += &class.to_toml());
        for segment in &self.segments {
            let prefixes: Vec<_> = segment
                .prefixes
                .iter()
                .map(|prefix| quoted(&prefix.to_string()))
                .collect();
            text += &format!(
                "\n[[segment]]\nname = \"{}\"\nprefixes = [{}]\n",
                segment.name,
                prefixes.join(", ")
            );
        }
        for service in &self.services {
            let endpoints: Vec<_> = service
                .endpoints
                .iter()
                .map(|endpoint| quoted(&endpoint.to_string()))
                .collect();
            text += &format!(
                "\n[[service]]\nname = \"{}\"\nendpoints = [{}]\n",
                service.name,
                endpoints.join(", ")
            );
        }
        self.contracts.iter().for_each(|contract| text += &contract.to_toml());
        text
    }
}

impl Class {
    fn to_toml(&self) -> String {
        let mut text = format!("\n[[class]]\nname = \"{}\"\npriority = {}\n", self.name, self.priority);
        if self.is_default {
            text += "default = true\n";
        }
        for (key, list) in [
            ("dscp", &self.dscp),
            ("yellow_dscp", &self.yellow_dscp),
            ("red_dscp", &self.red_dscp),
        ] {
            if !list.is_empty() {
                let values: Vec<_> = list.iter().map(|&dscp| dscp_text(dscp)).collect();
                text += &format!("{key} = [{}]\n", values.join(", "));
            }
        }
        if !self.pcp.is_empty() {
            text += &format!("pcp = {:?}\n", self.pcp);
        }
        if let Some(dscp) = self.nonconforming_dscp {
            text += &format!("nonconforming_dscp = {}\n", dscp_text(dscp));
        }
        text
    }
}

impl Contract {
    fn to_toml(&self) -> String {
        let mut text = format!(
            "\n[[contract]]\nservice = \"{}\"\nclass = \"{}\"\nregion = \"{}\"\ndirection = \"{}\"\n",
            self.service,
            self.class,
            self.region,
            self.direction.name()
        );
        if let Some(segment) = &self.segment {
            text += &format!("segment = \"{segment}\"\n");
        }
        let (meter, rate_bps, rest) = self.meter_keys();
        text += &format!("meter = \"{meter}\"\nrate = {}\n", rate_text(rate_bps));
        if let Some(burst) = &self.burst_text {
            text += &format!("burst = {burst}\n");
        }
        text += &rest;
        if self.color_aware {
            text += "color_aware = true\n";
        }
        for (key, second) in [("from", self.from_s), ("until", self.until_s)] {
            if let Some(second) = second {
                text += &format!("{key} = {}\n", date_text(second));
            }
        }
        let action = match self.action {
            Action::Remark => "remark",
            Action::Queue => "queue",
            Action::Drop => "drop",
        };
        text + &format!("[contract.excess]\naction = \"{action}\"\ngrain = \"packet\"\n")
    }

    /// Name of the meter, its committed rate, and the keys only that meter has.
    fn meter_keys(&self) -> (&'static str, u64, String) {
        match self.profile {
            Profile::TokenBucket { rate_bps, .. } => ("token-bucket", rate_bps, String::new()),
            Profile::SrTcm {
                rate_bps,
                excess_burst_bytes,
                ..
            } => ("srtcm", rate_bps, format!("excess_burst = {excess_burst_bytes}\n")),
            Profile::TrTcm {
                rate_bps,
                peak_rate_bps,
                peak_burst_bytes,
                ..
            } => {
                let rest = format!(
                    "peak_rate = {}\npeak_burst = {peak_burst_bytes}\n",
                    rate_text(peak_rate_bps)
                );
                ("trtcm", rate_bps, rest)
            }
            Profile::TrTcm4115 {
                rate_bps,
                excess_rate_bps,
                excess_burst_bytes,
                ..
            } => {
                let rest = format!(
                    "excess_rate = {}\nexcess_burst = {excess_burst_bytes}\n",
                    rate_text(excess_rate_bps)
                );
                ("trtcm-4115", rate_bps, rest)
            }
        }
    }
}

impl Direction {
    /// As configurations and reports spell it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Egress => "egress",
            Self::Ingress => "ingress",
        }
    }
}

impl std::fmt::Display for Prefix {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(formatter, "{}/{}", self.address, self.length)
    }
}

impl std::fmt::Display for Endpoint {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.prefix.fmt(formatter)?;
        let Some(ports) = &self.ports else { return Ok(()) };
        let mut list = String::new();
        for &(first, last) in &ports.ranges {
            let separator = if list.is_empty() { "" } else { "," };
            if first == last {
                write!(list, "{separator}{first}")?;
            } else {
                write!(list, "{separator}{first}-{last}")?;
            }
        }
        write!(formatter, " {}/{list}", if ports.protocol == 6 { "tcp" } else { "udp" })
    }
}

fn quoted(text: &str) -> String {
    format!("\"{text}\"")
}

/// The IANA name where there is one, else the number.
fn dscp_text(dscp: u8) -> String {
    let (class, drop_precedence) = (dscp >> 3, dscp >> 1 & 3);
    match dscp {
        1 => quoted("LE"),
        46 => quoted("EF"),
        _ if dscp.is_multiple_of(8) => format!("\"CS{class}\""),
        _ if dscp.is_multiple_of(2) && (1..=4).contains(&class) => format!("\"AF{class}{drop_precedence}\""),
        _ => dscp.to_string(),
    }
}

/// The largest unit that needs at most one decimal, else the plain number of bit/s.
fn rate_text(rate_bps: u64) -> String {
    for (unit, unit_bps) in [("Gbit/s", 1_000_000_000), ("Mbit/s", 1_000_000), ("kbit/s", 1_000)] {
        if rate_bps >= unit_bps && rate_bps.is_multiple_of(unit_bps / 10) {
            let (whole, tenths) = (rate_bps / unit_bps, rate_bps % unit_bps / (unit_bps / 10));
            return if tenths == 0 {
                format!("\"{whole} {unit}\"")
            } else {
                format!("\"{whole}.{tenths} {unit}\"")
            };
        }
    }
    rate_bps.to_string()
}

/// A TOML date where the second is a midnight in UTC, else a date-time in UTC.
fn date_text(unix_s: u64) -> String {
    let (days, second) = (unix_s / 86_400, unix_s % 86_400);
    let (mut year, mut day) = (1970, days);
    let year_days = |year: u64| {
        if year.is_multiple_of(4) && (!year.is_multiple_of(100) || year.is_multiple_of(400)) {
            366
        } else {
            365
        }
    };
    while day >= year_days(year) {
        day -= year_days(year);
        year += 1;
    }
    let february = year_days(year) - 337;
    let mut month = 1;
    for month_days in [31, february, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31] {
        if day < month_days {
            break;
        }
        day -= month_days;
        month += 1;
    }
    let date = format!("{year:04}-{month:02}-{:02}", day + 1);
    if second == 0 {
        return date;
    }
    format!(
        "{date}T{:02}:{:02}:{:02}Z",
        second / 3600,
        second / 60 % 60,
        second % 60
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dates_are_those_of_the_calendar() {
        // Each from `date -u -d @N`.
        assert_eq!(date_text(0), "1970-01-01");
        assert_eq!(date_text(951_782_399), "2000-02-28T23:59:59Z");
        assert_eq!(date_text(951_782_400), "2000-02-29");
        assert_eq!(date_text(1_798_761_600), "2027-01-01");
    }

    #[test]
    fn rates_and_code_points_are_written_as_an_operator_would() {
        assert_eq!(rate_text(2_500_000), "\"2.5 Mbit/s\"");
        assert_eq!(rate_text(400_000_000_000), "\"400 Gbit/s\"");
        assert_eq!(rate_text(8_001), "8001");
        let names = [0, 1, 10, 12, 38, 44, 46].map(dscp_text);
        assert_eq!(
            names,
            ["\"CS0\"", "\"LE\"", "\"AF11\"", "\"AF12\"", "\"AF43\"", "44", "\"EF\""]
        );
    }

    #[test]
    fn prefixes_contain_what_shares_their_bits() {
        let prefix = Prefix {
            address: "10.64.0.0".parse().unwrap(),
            length: 10,
        };
        assert!(prefix.contains("10.127.255.255".parse().unwrap()));
        assert!(!prefix.contains("10.128.0.0".parse().unwrap()));
        let everything = Prefix {
            address: "::".parse().unwrap(),
            length: 0,
        };
        assert!(everything.contains("2001:db8::1".parse().unwrap()));
        assert!(!everything.contains("10.0.0.1".parse().unwrap()), "the other family");
    }
}

//! Who sends what in the demo, and the configuration that says what they may.

use std::fmt::Write;

/// A service of the demo.
pub struct DemoService {
    /// Name in the contracts.
    pub name: &'static str,
    /// Class it sends in.
    pub class: &'static Class,
    /// Entitlement in bit/s of IP packets; `None`: it has no contract.
    pub entitled_bps: Option<u64>,
    /// What it sends, in bit/s of IP packets.
    pub offered_bps: u64,
    /// Bytes of its IP packets.
    pub packet_bytes: u32,
    /// Its prefix on the site's side.
    pub prefix: &'static str,
    /// Its first address there.
    pub source: &'static str,
    /// Where it sends to.
    pub destination: &'static str,
}

/// A class of service of the demo.
#[derive(PartialEq, Eq)]
pub struct Class {
    /// Name.
    pub name: &'static str,
    /// Served first when smaller.
    pub priority: u8,
    /// DSCP its services send with.
    pub dscp: u8,
    /// DSCP of its excess.
    pub nonconforming_dscp: u8,
}

/// EF, and a value for local use for its excess.
static GOLD: Class = Class {
    name: "gold",
    priority: 1,
    dscp: 46,
    nonconforming_dscp: 3,
};
/// AF21.
static SILVER: Class = Class {
    name: "silver",
    priority: 2,
    dscp: 18,
    nonconforming_dscp: 5,
};
/// The default class: DF.
static BRONZE: Class = Class {
    name: "bronze",
    priority: 3,
    dscp: 0,
    nonconforming_dscp: 7,
};

const M: u64 = 1_000_000;

/// Seven services in three classes, at 0.5, 1, 2, 3 and 10 times their entitlement, one of them IPv6, one uncontracted.
pub static SERVICES: [DemoService; 7] = [
    service(
        "voice",
        &GOLD,
        Some(8 * M),
        4 * M,
        200,
        "10.1.0.0/16",
        "10.1.0.1",
        "192.0.2.1",
    ),
    service(
        "payments",
        &GOLD,
        Some(16 * M),
        16 * M,
        600,
        "10.2.0.0/16",
        "10.2.0.1",
        "192.0.2.1",
    ),
    service(
        "control",
        &GOLD,
        Some(4 * M),
        8 * M,
        400,
        "10.3.0.0/16",
        "10.3.0.1",
        "192.0.2.1",
    ),
    service(
        "ads",
        &SILVER,
        Some(16 * M),
        48 * M,
        1000,
        "10.4.0.0/16",
        "10.4.0.1",
        "192.0.2.1",
    ),
    service(
        "mail",
        &SILVER,
        Some(12 * M),
        24 * M,
        1200,
        "2001:db8:5::/48",
        "2001:db8:5::1",
        "2001:db8:ffff::1",
    ),
    service(
        "backup",
        &BRONZE,
        Some(8 * M),
        80 * M,
        1400,
        "10.6.0.0/16",
        "10.6.0.1",
        "192.0.2.1",
    ),
    service(
        "guest",
        &BRONZE,
        None,
        20 * M,
        1400,
        "10.7.0.0/16",
        "10.7.0.1",
        "192.0.2.1",
    ),
];

#[expect(clippy::too_many_arguments, reason = "a row of a table")]
const fn service(
    name: &'static str,
    class: &'static Class,
    entitled_bps: Option<u64>,
    offered_bps: u64,
    packet_bytes: u32,
    prefix: &'static str,
    source: &'static str,
    destination: &'static str,
) -> DemoService {
    DemoService {
        name,
        class,
        entitled_bps,
        offered_bps,
        packet_bytes,
        prefix,
        source,
        destination,
    }
}

/// The service whose entitlement is doubled under load.
pub const RAISED: &str = "ads";

/// Rate of the wan port while there is room for all: far more than is offered.
pub const ROOMY_BPS: u64 = 4_000 * M;

/// Rate of the wan port as the bottleneck: room for all entitlements (60 Mbit/s offered of 64), for the excess of gold
/// (4 Mbit/s) and for most of silver's (36 of 44 Mbit/s), and for nothing of bronze's (92 Mbit/s).
pub const NARROW_BPS: u64 = 100 * M;

impl DemoService {
    /// Offered over entitled.
    #[must_use]
    pub fn multiple(&self) -> Option<f64> {
        self.entitled_bps
            .map(|entitled| self.offered_bps as f64 / entitled as f64)
    }

    /// Whether all it sends is inside its entitlement.
    #[must_use]
    pub fn within(&self) -> bool {
        self.entitled_bps.is_some_and(|entitled| self.offered_bps <= entitled)
    }

    /// The file that holds its service and contract.
    #[must_use]
    pub fn file_name(&self) -> String {
        format!("{}.toml", self.name)
    }

    /// Its service and, if it has one, its contract, entitled to `entitled_bps`.
    #[must_use]
    pub fn to_toml(&self, entitled_bps: Option<u64>) -> String {
        let mut text = format!(
            "[[service]]\nname = \"{}\"\nendpoints = [\"{}\"]\nowner = \"demo\"\n",
            self.name, self.prefix
        );
        // Who stays within the entitlement must be able to catch up after losing its core for a moment; who does not fills
        // any burst at once, and all of them together should not hold each other up.
        let burst = if self.within() { "100 ms" } else { "20 ms" };
        if let Some(rate) = entitled_bps {
            // Writing to a String cannot fail.
            let _ok = write!(
                text,
                "\n[[contract]]\nservice = \"{}\"\nclass = \"{}\"\nregion = \"demo\"\ndirection = \"egress\"\n\
                 rate = \"{rate} bit/s\"\nburst = \"{burst}\"\nslo = \"99.9 %\"\nfrom = 2020-01-01\nuntil = 2120-01-01\n",
                self.name, self.class.name
            );
        }
        text
    }
}

/// The base file: two ports, a wire, three classes.
#[must_use]
pub fn base_toml(wan_rate_bps: u64, cpu: Option<usize>) -> String {
    let mut text = String::from(
        "region = \"demo\"\n\n[workers]\n# The demo shares its cores with traffic and sink.\npoll = \"adaptive\"\n",
    );
    if let Some(cpu) = cpu {
        let _ok = writeln!(text, "cpus = [{cpu}]");
    }
    let _ok = write!(
        text,
        "\n[control]\n# Gone with the demo.\nstate = \"{}\"\n\n[[port]]\nname = \"lan\"\ninterface = \"lan\"\nside = \"site\"\n\n[[port]]\nname = \"uplink\"\ninterface = \"uplink\"\n\
         side = \"wan\"\nrate = \"{wan_rate_bps} bit/s\"\n\n[[wire]]\nports = [\"lan\", \"uplink\"]\n",
        super::world::path("state").display()
    );
    for class in [&GOLD, &SILVER, &BRONZE] {
        let _ok = write!(
            text,
            "\n[[class]]\nname = \"{}\"\npriority = {}\ndscp = [{}]\nnonconforming_dscp = {}\ndefault = {}\n",
            class.name,
            class.priority,
            class.dscp,
            class.nonconforming_dscp,
            *class == BRONZE
        );
    }
    text
}

#[cfg(test)]
mod tests {
    use std::path::{Path, PathBuf};

    use super::*;

    #[test]
    fn what_the_demo_writes_is_a_valid_configuration() {
        let files: Vec<_> = SERVICES
            .iter()
            .map(|s| (PathBuf::from(s.file_name()), s.to_toml(s.entitled_bps)))
            .collect();
        let loaded = config::load_texts((Path::new("weir.toml"), &base_toml(NARROW_BPS, Some(0))), &files);
        let loaded = loaded.unwrap_or_else(|report| panic!("{}", report.render(false)));
        assert_eq!(loaded.config.contracts.len(), 6);
    }

    #[test]
    fn the_narrow_port_is_as_the_comment_says() {
        let sum = |value: fn(&DemoService) -> u64| SERVICES.iter().map(value).sum::<u64>();
        let conforming = sum(|s| s.offered_bps.min(s.entitled_bps.unwrap_or(0)));
        let excess = |class: &str| -> u64 {
            let of_class = SERVICES.iter().filter(|s| s.class.name == class);
            of_class
                .map(|s| s.offered_bps - s.offered_bps.min(s.entitled_bps.unwrap_or(0)))
                .sum()
        };
        assert_eq!((conforming, sum(|s| s.entitled_bps.unwrap_or(0))), (60 * M, 64 * M));
        assert_eq!(
            (excess("gold"), excess("silver"), excess("bronze")),
            (4 * M, 44 * M, 92 * M)
        );
        let left_for_silver = NARROW_BPS - conforming - excess("gold");
        assert_eq!(left_for_silver, 36 * M);
        assert!(sum(|s| s.offered_bps) < ROOMY_BPS / 10);
    }
}

//! A gateway to test: three anonymous namespaces in a row, and the real `weir` in the middle one.
//!
//! ```text
//!   site              gw                       wan
//!   eth0 ─── veth ─── lan  [weir]  uplink ─── veth ─── eth0
//!   10.0.0.1..4, fd00::1..4                     10.0.0.9, fd00::9
//! ```
//!
//! The hosts are as an unmodified machine has them: checksums are left to the device, segments are large, VLAN tags travel
//! beside the packet. A test that wants otherwise says so. Tests take turns, because the machine has few cores.

pub mod faults;
pub mod http;
mod process;
mod traffic;

use std::io::Write as _;
use std::net::IpAddr;
use std::process::{Command, Output};
use std::sync::{Mutex, MutexGuard, PoisonError};

use af_xdp::device::{self, Offload};
use pktgen::lab::{self, Namespace, VethEnd, links};
use serde_json::Value;
use tempfile::TempDir;

pub use process::{Ended, Weir};
pub use traffic::{Arrival, Capture, Running, Score, Stream, send_frames, udp_socket};

/// Interface of the gateway towards the site.
pub const LAN: &str = "lan";
/// Interface of the gateway towards the network.
pub const UPLINK: &str = "uplink";
/// The only interface of a host.
pub const HOST: &str = "eth0";
/// The host behind the site port; it also has .2, .3 and .4.
pub const SITE: &str = "10.0.0.1";
/// The host behind the wan port.
pub const WAN: &str = "10.0.0.9";
/// The same of IPv6.
pub const SITE6: &str = "fd00::1";
/// The same of IPv6.
pub const WAN6: &str = "fd00::9";

/// How the links are made.
#[derive(Clone, Copy, Debug)]
pub struct Layout {
    /// MTU of all four ends.
    pub mtu: u32,
    /// Queues of all four ends.
    pub queues: u32,
}

impl Default for Layout {
    fn default() -> Self {
        Self { mtu: 1500, queues: 1 }
    }
}

/// The namespaces, their links, and a directory for files.
pub struct Gateway {
    /// Namespace of the site's host.
    pub site: Namespace,
    /// Namespace of the gateway.
    pub gw: Namespace,
    /// Namespace of the far host.
    pub wan: Namespace,
    /// For configurations, sockets, captures.
    pub directory: TempDir,
    _turn: MutexGuard<'static, ()>,
}

static TURN: Mutex<()> = Mutex::new(());

impl Gateway {
    /// Builds it; without the privileges for that says on stderr that the test is skipped, and is `None`.
    ///
    /// # Panics
    ///
    /// When the kernel refuses a link although the privileges are there.
    #[must_use]
    pub fn build(layout: Layout) -> Option<Self> {
        if let Err(missing) = lab::privileged() {
            let thread = std::thread::current();
            let test = thread.name().unwrap_or("a test");
            // Not by eprintln, which the test harness hides when a test passes.
            let _written = writeln!(std::io::stderr(), "SKIPPED (needs root): {test}: {missing}");
            return None;
        }
        let turn = TURN.lock().unwrap_or_else(PoisonError::into_inner);
        let namespace = || Namespace::new().expect("a network namespace");
        let gateway = Self {
            site: namespace(),
            gw: namespace(),
            wan: namespace(),
            directory: tempfile::Builder::new()
                .prefix("weir-veth-")
                .tempdir()
                .expect("a directory"),
            _turn: turn,
        };
        gateway.link(&gateway.site, LAN, layout);
        gateway.link(&gateway.wan, UPLINK, layout);
        for number in 1..=4 {
            address(&gateway.site, HOST, &format!("10.0.0.{number}"), 24);
            address(&gateway.site, HOST, &format!("fd00::{number}"), 64);
        }
        address(&gateway.wan, HOST, WAN, 24);
        address(&gateway.wan, HOST, WAN6, 64);
        Some(gateway)
    }

    fn link(&self, host: &Namespace, port: &str, layout: Layout) {
        let host_end = VethEnd {
            mtu: layout.mtu,
            queues: layout.queues,
            ..VethEnd::new(host, HOST)
        };
        let port_end = VethEnd {
            mtu: layout.mtu,
            queues: layout.queues,
            ..VethEnd::new(&self.gw, port)
        };
        links::create_veth(&host_end, &port_end).expect("a veth pair");
        for end in [&host_end, &port_end] {
            for offload in [Offload::TxChecksum, Offload::TxVlan, Offload::RxVlan] {
                set_offload(end.namespace, end.name, offload, true);
            }
            end.namespace
                .try_run(|| links::set_up(end.name))
                .expect("an interface goes up");
        }
    }

    /// Starts weir with this base file and this file of contracts, and waits until it runs.
    ///
    /// # Panics
    ///
    /// When it ends or does not answer within ten seconds.
    #[must_use]
    pub fn start(&self, config: &Config) -> Weir {
        let mut weir = self.launch(config);
        weir.wait_until_running();
        weir
    }

    /// Starts weir without waiting for anything.
    ///
    /// # Panics
    ///
    /// When the process cannot be started.
    #[must_use]
    pub fn launch(&self, config: &Config) -> Weir {
        self.write(config);
        Weir::launch(&self.gw, self.directory.path(), &["lan", "uplink"])
    }

    /// Writes the files that weir reads.
    ///
    /// # Panics
    ///
    /// When the disk is full.
    pub fn write(&self, config: &Config) {
        let contracts = self.directory.path().join("contracts.d");
        std::fs::create_dir_all(&contracts).expect("a directory");
        // What outlives a weir of a test must not outlive the test.
        let state = self.directory.path().join("state");
        let base = config.base() + &format!("[control]\nstate = \"{}\"\n{}", state.display(), config.control);
        std::fs::write(self.directory.path().join("weir.toml"), base).expect("a file");
        std::fs::write(contracts.join("test.toml"), &config.contracts).expect("a file");
    }

    /// Packets that were lost, but not by weir: its worker did not run for a quarter of a second, or a queue of the kernel
    /// was full in front of it, behind it or at the receiver. None on a machine that is not overloaded.
    ///
    /// # Panics
    ///
    /// When a counter cannot be read.
    #[must_use]
    pub fn lost_elsewhere(&self, status: &Value) -> u64 {
        let stalled =
            ledger_sum(status, &["kernel", "packets"]) + ledger_sum(status, &["dropped", "stalled", "packets"]);
        let links = [
            (&self.site, HOST),
            (&self.gw, LAN),
            (&self.gw, UPLINK),
            (&self.wan, HOST),
        ];
        let in_queues = links.map(|(namespace, name)| {
            let link = succeed(namespace, &["ip", "-s", "-j", "link", "show", "dev", name]);
            let link: Value = serde_json::from_str(&link).expect("JSON of ip");
            let directions = ["tx", "rx"].map(|way| link[0]["stats64"][way]["dropped"].as_u64().unwrap_or(0));
            directions.into_iter().sum::<u64>()
        });
        let at_sockets = [&self.site, &self.wan].map(|host| host_counters(host, "RcvbufErrors"));
        stalled + in_queues.into_iter().chain(at_sockets).sum::<u64>()
    }

    /// Starts numbered packets of 228 bytes from the site's host to the WAN's: 8,000 a second are 14.6 Mbit/s.
    ///
    /// # Panics
    ///
    /// When an address cannot be bound.
    #[must_use]
    pub fn traffic(&self, per_second: u32, seconds: u32) -> Running {
        Stream::to_wan(per_second, seconds).start(&self.site, &self.wan)
    }

    /// Holds a stream against the promise that weir loses, doubles and reorders nothing.
    ///
    /// # Panics
    ///
    /// When it has.
    pub fn check_nothing_lost(&self, score: &Score, weir: &Weir) {
        let elsewhere = self.lost_elsewhere(&weir.status());
        let clean = u64::from(score.lost()) <= elsewhere && (score.reordered, score.duplicates) == (0, 0);
        assert!(clean, "{score:?}, lost elsewhere {elsewhere}: {}", weir.account());
    }

    /// Resolves the addresses in both directions, and so proves the path.
    ///
    /// # Panics
    ///
    /// When no answer comes.
    pub fn warm(&self) {
        for (host, far) in [(&self.site, WAN), (&self.site, WAN6), (&self.wan, "10.0.0.3")] {
            let output = ping(host, far, 1);
            assert!(output.status.success(), "ping {far}: {}", text(&output));
        }
    }
}

/// What goes into the configuration beside the ports.
#[derive(Clone, Debug)]
pub struct Config {
    /// `open` or `closed`.
    pub fail: &'static str,
    /// `busy` or `adaptive`.
    pub poll: &'static str,
    /// Such as `20 ms`; empty: the default of `poll`.
    pub stale_after: &'static str,
    /// Such as `[0, 1]`; empty: weir chooses.
    pub cpus: &'static str,
    /// `auto`, `native` or `generic`.
    pub xdp: &'static str,
    /// Name of the fail-open bridge; empty: none.
    pub bridge: &'static str,
    /// Such as `20 Mbit/s`; empty: none.
    pub wan_rate: &'static str,
    /// More lines of `[control]`.
    pub control: &'static str,
    /// The text of `contracts.d/test.toml`.
    pub contracts: String,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            fail: "open",
            poll: "adaptive",
            stale_after: "",
            cpus: "",
            xdp: "auto",
            bridge: "",
            wan_rate: "",
            control: "",
            contracts: String::new(),
        }
    }
}

impl Config {
    /// One service, `web`, with one contract of this rate and 100 kB.
    #[must_use]
    pub fn web(rate: &str) -> Self {
        Self {
            contracts: contract("web", "\"10.0.0.0/24\"", "best-effort", "egress", rate, "100 kB"),
            ..Self::default()
        }
    }

    /// The base file.
    #[must_use]
    pub fn base(&self) -> String {
        let line = |key: &str, value: &str| match value {
            "" => String::new(),
            list if list.starts_with('[') => format!("{key} = {list}\n"),
            text => format!("{key} = \"{text}\"\n"),
        };
        let mut file = format!("region = \"atn\"\nfail = \"{}\"\n[workers]\n", self.fail);
        file += &line("poll", self.poll);
        file += &line("stale_after", self.stale_after);
        file += &line("cpus", self.cpus);
        file += &format!("[[port]]\nname = \"lan\"\ninterface = \"{LAN}\"\nside = \"site\"\n");
        file += &line("xdp", self.xdp);
        file += &format!("[[port]]\nname = \"uplink\"\ninterface = \"{UPLINK}\"\nside = \"wan\"\n");
        file += &line("xdp", self.xdp);
        file += &line("rate", self.wan_rate);
        file += "[[wire]]\nports = [\"lan\", \"uplink\"]\n";
        file += &line("bridge", self.bridge);
        file + CLASSES
    }
}

const CLASSES: &str = r#"
[[class]]
name = "gold"
priority = 1
dscp = ["EF"]
nonconforming_dscp = 3
[[class]]
name = "best-effort"
priority = 7
nonconforming_dscp = 2
default = true
"#;

/// A service and its contract in the form of the file.
#[must_use]
pub fn contract(service: &str, endpoints: &str, class: &str, direction: &str, rate: &str, burst: &str) -> String {
    format!(
        "[[service]]\nname = \"{service}\"\nendpoints = [{endpoints}]\n\
         [[contract]]\nservice = \"{service}\"\nclass = \"{class}\"\nregion = \"atn\"\ndirection = \"{direction}\"\n\
         rate = \"{rate}\"\nburst = \"{burst}\"\n"
    )
}

/// Gives an interface of a namespace an address.
///
/// # Panics
///
/// When the kernel refuses it.
pub fn address(namespace: &Namespace, interface: &str, address: &str, prefix_len: u8) {
    let parsed: IpAddr = address.parse().expect("an address");
    namespace
        .try_run(|| links::add_address(interface, parsed, prefix_len))
        .expect("the address is taken");
}

/// Switches an offload of an interface of a namespace.
///
/// # Panics
///
/// When the kernel refuses it.
pub fn set_offload(namespace: &Namespace, interface: &str, offload: Offload, on: bool) {
    namespace
        .run(|| device::set_offload(interface, offload, on))
        .expect("a thread in the namespace")
        .unwrap_or_else(|error| panic!("{offload:?} of {interface}: {error}"));
}

/// Runs a command in a namespace to its end.
///
/// # Panics
///
/// When it cannot be started.
#[must_use]
pub fn command(namespace: &Namespace, line: &[&str]) -> Output {
    namespace
        .run(|| Command::new(line[0]).args(&line[1..]).output())
        .expect("a thread in the namespace")
        .unwrap_or_else(|error| panic!("{line:?}: {error}"))
}

/// As [`command`], for one that must succeed; gives its standard output.
///
/// # Panics
///
/// When it fails.
#[must_use]
pub fn succeed(namespace: &Namespace, line: &[&str]) -> String {
    let output = command(namespace, line);
    assert!(output.status.success(), "{line:?}: {}", text(&output));
    String::from_utf8_lossy(&output.stdout).into_owned()
}

/// Pings `count` times, five a second, waiting at most a second for each answer.
#[must_use]
pub fn ping(from: &Namespace, to: &str, count: u32) -> Output {
    let count = count.to_string();
    command(from, &["ping", "-n", "-c", &count, "-i", "0.2", "-W", "1", to])
}

/// Everything a command printed.
#[must_use]
pub fn text(output: &Output) -> String {
    let [out, err] = [&output.stdout, &output.stderr].map(|bytes| String::from_utf8_lossy(bytes).into_owned());
    out + &err
}

/// The sum of a host's protocol counters whose name ends so, such as `CsumErrors`.
///
/// # Panics
///
/// When they cannot be read.
#[must_use]
pub fn host_counters(host: &Namespace, ending: &str) -> u64 {
    let counters = succeed(host, &["nstat", "-a", "-s", "-z"]);
    let counters = counters.lines().filter_map(|line| {
        let mut words = line.split_whitespace();
        words
            .next()?
            .ends_with(ending)
            .then(|| words.next()?.parse::<u64>().ok())?
    });
    counters.sum()
}

/// What weir may change of an interface while it runs, and must have put back when it has ended.
///
/// # Panics
///
/// When there is no such interface.
#[must_use]
pub fn interface_state(gw: &Namespace, interface: &str) -> String {
    let link = succeed(gw, &["ip", "-d", "-j", "link", "show", "dev", interface]);
    let link: Value = serde_json::from_str(&link).expect("JSON of ip");
    let features = succeed(gw, &["ethtool", "-k", interface]);
    let offloads = ["rx-vlan-offload", "large-receive-offload", "generic-receive-offload"];
    let offloads: Vec<&str> = features
        .lines()
        .filter(|line| offloads.iter().any(|name| line.starts_with(name)))
        .collect();
    format!(
        "promiscuity {}, xdp {}, mtu {}, master {}, {offloads:?}",
        link[0]["promiscuity"], link[0]["xdp"], link[0]["mtu"], link[0]["master"]
    )
}

/// The sum of a counter over all ledgers, such as `["kernel", "packets"]`; what is not there counts as 0.
#[must_use]
pub fn ledger_sum(status: &Value, path: &[&str]) -> u64 {
    let ledgers = status["ledger"].as_array().into_iter().flatten();
    ledgers
        .map(|ledger| {
            let found = path.iter().fold(ledger, |value, key| &value[key]);
            found.as_u64().unwrap_or(0)
        })
        .sum()
}

/// The contract of a service in a status.
///
/// # Panics
///
/// When there is none.
#[must_use]
pub fn contract_of<'a>(status: &'a Value, service: &str) -> &'a Value {
    let contracts = status["contracts"].as_array().expect("contracts");
    contracts
        .iter()
        .find(|contract| contract["service"] == service)
        .unwrap_or_else(|| panic!("no contract of {service} in {status}"))
}

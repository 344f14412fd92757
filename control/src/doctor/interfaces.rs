//! The interfaces of the ports: what they are, and whether they suit.

use af_xdp::device::{self, Offload};
use config::{Config, Wire, XdpMode};
use dataplane::port::QUEUES_MAX;
use pktgen::lab::links;

use super::Patient;
use super::machine::node_of;
use super::report::{Findings, Level};
use super::root::{Root, list_text};
use crate::plan::MTU_MAX;

/// What is known of an interface. `None`: cannot be said.
#[derive(Clone, Debug, Default)]
pub(super) struct Facts {
    pub(super) name: String,
    pub(super) exists: bool,
    up: Option<bool>,
    carrier: Option<bool>,
    pub(super) mtu: Option<u32>,
    pub(super) queues: Option<u32>,
    queues_max: Option<u32>,
    driver: Option<String>,
    node: Option<usize>,
    controller: Option<String>,
    xdp_program: Option<u32>,
    promiscuity: Option<u32>,
    rings: Option<device::RingSizes>,
    /// Those that are on.
    offloads: Vec<Offload>,
    addresses: Vec<String>,
}

/// Offloads that doctor looks at, with their names for `ethtool -K`.
const OFFLOADS: [(Offload, &str); 5] = [
    (Offload::RxVlan, "rxvlan"),
    (Offload::Lro, "lro"),
    (Offload::Gro, "gro"),
    (Offload::Tso, "tso"),
    (Offload::Gso, "gso"),
];

impl Facts {
    /// Reads what there is under `root`, and asks the kernel if that is this machine.
    pub(super) fn read(root: &Root, name: &str) -> Self {
        let class = format!("sys/class/net/{name}");
        let file = |file: &str| root.line(&format!("{class}/{file}"));
        let queues = root
            .names(&format!("{class}/queues"))
            .iter()
            .filter(|q| q.starts_with("rx-"))
            .count();
        let facts = Self {
            name: name.to_owned(),
            exists: root.exists(&class),
            up: file("flags")
                .and_then(|flags| u32::from_str_radix(flags.trim_start_matches("0x"), 16).ok())
                .map(|f| f & 1 == 1),
            carrier: file("carrier").map(|carrier| carrier == "1"),
            mtu: file("mtu").and_then(|mtu| mtu.parse().ok()),
            queues: (queues > 0).then_some(queues as u32),
            driver: root.link(&format!("{class}/device/driver")),
            node: file("device/numa_node").and_then(|node| node.parse().ok()),
            controller: root.link(&format!("{class}/master")),
            ..Self::default()
        };
        if !root.is_real() {
            return facts;
        }
        let Ok(index) = device::index(name) else {
            return Self {
                name: name.to_owned(),
                ..Self::default()
            };
        };
        // In another network namespace /sys may show that of somebody else: then it says nothing of this interface.
        let facts = match file("ifindex").is_some_and(|known| known == index.to_string()) {
            true => facts,
            false => Self {
                name: name.to_owned(),
                ..Self::default()
            },
        };
        facts.ask_kernel()
    }

    fn ask_kernel(mut self) -> Self {
        let name = self.name.clone();
        self.exists = true;
        self.up = device::is_up(&name).ok();
        self.carrier = device::has_carrier(&name).ok();
        self.mtu = device::mtu(&name).ok();
        if let Ok(channels) = device::channels(&name) {
            self.queues = Some(channels.receiving());
            self.queues_max = Some(channels.combined_max.max(channels.rx_max));
        }
        self.driver = device::driver(&name).ok().or(self.driver);
        self.rings = device::ring_sizes(&name).ok();
        let on = |offload: &Offload| device::offload(&name, *offload).unwrap_or(false);
        self.offloads = OFFLOADS.iter().map(|(offload, _)| *offload).filter(on).collect();
        if let Ok(state) = links::state(&name) {
            self.xdp_program = state.xdp_program;
            self.promiscuity = Some(state.promiscuity);
            self.controller = state
                .controller
                .map(|index| name_of(index).unwrap_or_else(|| format!("number {index}")));
        }
        self.addresses = addresses(&name);
        self
    }
}

fn name_of(index: u32) -> Option<String> {
    let mut names = links::names().ok()?.into_iter();
    names.find(|name| device::index(name).is_ok_and(|found| found == index))
}

/// Addresses of the interface, but for those that IPv6 gives itself.
fn addresses(name: &str) -> Vec<String> {
    let all = nix::ifaddrs::getifaddrs().into_iter().flatten();
    let own = all
        .filter(|address| address.interface_name == name)
        .filter_map(|found| {
            let storage = found.address?;
            let v4 = storage.as_sockaddr_in().map(|address| address.ip().to_string());
            let v6 = storage.as_sockaddr_in6().map(nix::sys::socket::SockaddrIn6::ip);
            v4.or_else(|| {
                v6.filter(|address| !address.is_unicast_link_local())
                    .map(|address| address.to_string())
            })
        });
    own.collect()
}

/// Drivers whose native XDP is in the kernel, and whether they have AF_XDP zero-copy, as of Linux 6.18's sources.
const DRIVERS: [(&str, bool); 28] = [
    ("bnxt_en", false),
    ("cpsw-switch", false),
    ("ena", false),
    ("fec", false),
    ("fsl_dpaa2_eth", true),
    ("fsl_enetc", false),
    ("gve", true),
    ("hv_netvsc", false),
    ("i40e", true),
    ("ice", true),
    ("idpf", true),
    ("igb", true),
    ("igc", true),
    ("ixgbe", true),
    ("ixgbevf", false),
    ("mana", false),
    ("mlx4_en", false),
    ("mlx5_core", true),
    ("mtk_soc_eth", false),
    ("mvneta", false),
    ("nfp", true),
    ("qede", false),
    ("sfc", false),
    ("stmmac", true),
    ("tun", false),
    ("veth", false),
    ("virtio_net", true),
    ("vmxnet3", false),
];

/// Fewest descriptors of a NIC's ring that hold what comes while a worker's core is away for 0.5 ms at 1 Mpps.
const RING_GOOD: u32 = 512;

pub(super) fn examine(patient: &Patient<'_>, findings: &mut Findings) {
    let Some(config) = patient.config else { return };
    for (number, (port, facts)) in config.ports.iter().zip(patient.interfaces).enumerate() {
        let about = format!("port {}", port.name);
        if !facts.exists {
            let why = "weir does not start without the interfaces of all its ports";
            let remedy = "see `ip link` for what there is, and name one in `[[port]] interface`";
            let found = format!("no interface `{}` in this network namespace", facts.name);
            findings.add(Level::Error, &about, "interface", found, why, Some(remedy.into()));
            continue;
        }
        link(&about, facts, findings);
        driver(&about, facts, port.xdp, findings);
        mtu(&about, facts, findings);
        offloads(&about, facts, port.xdp == XdpMode::Generic, findings);
        rings(&about, facts, findings);
        holders(patient, &about, facts, findings);
        interrupts(patient, &about, facts, findings);
        node(patient, &about, facts, findings);
        let wire = config
            .wires
            .iter()
            .find(|wire| wire.site == number || wire.wan == number);
        bridge(patient.root, &about, facts, wire, findings);
    }
    for wire in &config.wires {
        ends(config, wire, patient.interfaces, findings);
    }
}

fn link(about: &str, facts: &Facts, findings: &mut Findings) {
    let name = &facts.name;
    match (facts.up, facts.carrier) {
        (Some(false), _) => {
            let why = "weir sets it up when it starts";
            let remedy = Some(format!("ip link set {name} up"));
            findings.add(Level::Note, about, "link", format!("{name} is down"), why, remedy);
        }
        (_, Some(false)) => {
            let why = "nothing can be received or sent";
            let remedy = Some(format!("check cable and the other end: ethtool {name}"));
            findings.add(
                Level::Warning,
                about,
                "link",
                format!("{name} is up, without carrier"),
                why,
                remedy,
            );
        }
        _ => findings.ok(about, "link", format!("{name} is up")),
    }
    if !facts.addresses.is_empty() {
        let why =
            "weir forwards all that comes in here, also what is for this machine: SSH, ARP, DNS stop working on it";
        let remedy = format!("use another interface for management: ip address flush dev {name}");
        let found = format!("{name} has {}", facts.addresses.join(", "));
        findings.add(Level::Warning, about, "addresses", found, why, Some(remedy));
    }
}

fn driver(about: &str, facts: &Facts, wanted: XdpMode, findings: &mut Findings) {
    let Some(driver) = &facts.driver else {
        findings.add(
            Level::Note,
            about,
            "driver",
            "cannot say: the driver does not tell",
            "",
            None,
        );
        return;
    };
    let known = DRIVERS.iter().find(|(name, _)| name == driver);
    match known {
        Some((_, true)) => findings.ok(
            about,
            "driver",
            format!("{driver}: native XDP, zero-copy in recent kernels"),
        ),
        Some((_, false)) => {
            let why = "packets are copied in and out of the frames: some hundred nanoseconds each";
            findings.add(
                Level::Note,
                about,
                "driver",
                format!("{driver}: native XDP, no zero-copy"),
                why,
                None,
            );
        }
        None => {
            let level = if wanted == XdpMode::Native {
                Level::Warning
            } else {
                Level::Note
            };
            let why = "if it has no native XDP, weir attaches in generic mode, which is several times slower; `weir status` says which";
            findings.add(
                level,
                about,
                "driver",
                format!("{driver}: not known to have native XDP"),
                why,
                None,
            );
        }
    }
}

fn mtu(about: &str, facts: &Facts, findings: &mut Findings) {
    let Some(mtu) = facts.mtu else { return };
    let remedy = |most: u32| Some(format!("ip link set {} mtu {most}", facts.name));
    let native_max = match facts.driver.as_deref() {
        Some("veth") => 3_520,
        Some("ena") => 3_498,
        _ => MTU_MAX,
    };
    if mtu > MTU_MAX {
        let why = "a frame of 4,096 bytes holds packets of an MTU of 3,818; weir does not start";
        findings.add(Level::Error, about, "mtu", mtu.to_string(), why, remedy(MTU_MAX));
    } else if mtu > native_max {
        let why = "this driver refuses native XDP above some 3,500, and weir falls back to generic mode";
        findings.add(
            Level::Warning,
            about,
            "mtu",
            mtu.to_string(),
            why,
            remedy(native_max - native_max % 100),
        );
    } else {
        findings.ok(about, "mtu", mtu.to_string());
    }
}

fn offloads(about: &str, facts: &Facts, is_generic: bool, findings: &mut Findings) {
    let on = |wanted: &[Offload]| -> Vec<&str> {
        let is_on = |(offload, _): &&(Offload, &str)| wanted.contains(offload) && facts.offloads.contains(offload);
        OFFLOADS.iter().filter(is_on).map(|(_, name)| *name).collect()
    };
    let harmful = on(&[Offload::RxVlan, Offload::Lro]);
    let merging = on(&[Offload::Gro]);
    let name = &facts.name;
    if is_generic && !merging.is_empty() {
        let why = "in generic mode merged packets reach the program, and those that do not fit a frame are lost";
        let remedy = Some(format!("ethtool -K {name} gro off"));
        findings.add(Level::Warning, about, "offloads", "gro is on", why, remedy);
    } else if !harmful.is_empty() {
        let why = "weir switches them off when it starts, and on again when it stops";
        findings.add(
            Level::Note,
            about,
            "offloads",
            format!("{} on", harmful.join(", ")),
            why,
            None,
        );
    } else {
        findings.ok(about, "offloads", "none that hides packets");
    }
}

fn rings(about: &str, facts: &Facts, findings: &mut Findings) {
    let Some(rings) = facts.rings.filter(|rings| rings.rx_max > 0) else {
        return;
    };
    let found = format!(
        "rx {} of {}, tx {} of {}",
        rings.rx, rings.rx_max, rings.tx, rings.tx_max
    );
    if rings.rx < RING_GOOD.min(rings.rx_max) {
        let why = "a worker that is away for half a millisecond finds the ring full, and the NIC drops";
        let rx = rings.rx_max.min(2048);
        let remedy = Some(format!("ethtool -G {} rx {rx}", facts.name));
        findings.add(Level::Warning, about, "nic_rings", found, why, remedy);
    } else {
        findings.ok(about, "nic_rings", found);
    }
}

/// Who else has a hand on the interface.
fn holders(patient: &Patient<'_>, about: &str, facts: &Facts, findings: &mut Findings) {
    let runs = patient.status.is_some();
    let name = &facts.name;
    match facts.xdp_program {
        Some(id) if !patient.may_run => {
            let why = "another program sees the packets first, and weir cannot attach its own";
            let remedy = Some(format!("bpftool prog show id {id}; ip link set dev {name} xdp off"));
            findings.add(
                Level::Error,
                about,
                "xdp_program",
                format!("program {id} is attached"),
                why,
                remedy,
            );
        }
        Some(id) if runs => findings.ok(about, "xdp_program", format!("program {id} is attached, and weir runs")),
        Some(id) => {
            let found = format!("cannot say whose program {id} is: the appliance gives no status");
            let remedy = Some("sudo weir doctor".into());
            findings.add(Level::Note, about, "xdp_program", found, "", remedy);
        }
        None if runs && patient.root.is_real() => {
            let why =
                "an appliance answers, but no program is on this interface: is it another one's, or was it taken off?";
            findings.add(
                Level::Warning,
                about,
                "xdp_program",
                "none",
                why,
                Some("systemctl restart weir".into()),
            );
        }
        None => findings.ok(about, "xdp_program", "none"),
    }
    if let Some(count @ 1..) = facts
        .promiscuity
        .filter(|_| !patient.may_run && facts.controller.is_none())
    {
        let why = "somebody captures here, or something that is gone has left it so; weir holds it promiscuous itself";
        findings.add(Level::Note, about, "promiscuity", format!("held by {count}"), why, None);
    }
}

/// Interrupts that go to a worker's CPU only.
fn interrupts(patient: &Patient<'_>, about: &str, facts: &Facts, findings: &mut Findings) {
    let root = patient.root;
    let table = root.text("proc/interrupts").unwrap_or_default();
    let belongs = |line: &&str| {
        line.split(|c: char| c.is_whitespace() || c == ',')
            .any(|word| is_irq_of(word, &facts.name))
    };
    let irqs: Vec<usize> = table
        .lines()
        .filter(belongs)
        .filter_map(|line| line.split(':').next()?.trim().parse().ok())
        .collect();
    if irqs.is_empty() {
        return;
    }
    let workers = patient.worker_cpus();
    let on_workers: Vec<usize> = irqs
        .iter()
        .copied()
        .filter(|irq| {
            let cpus = root.list(&format!("proc/irq/{irq}/smp_affinity_list"));
            !cpus.is_empty() && cpus.iter().all(|cpu| workers.contains(cpu))
        })
        .collect();
    if on_workers.is_empty() {
        return findings.ok(
            about,
            "irq_affinity",
            format!("{} interrupts, none bound to a worker's CPU alone", irqs.len()),
        );
    }
    let online = root.list("sys/devices/system/cpu/online");
    let free: Vec<usize> = online.into_iter().filter(|cpu| !workers.contains(cpu)).collect();
    let remedy = (!free.is_empty()).then(|| {
        let (irq, cpus) = (on_workers[0], list_text(&free));
        format!("echo {cpus} > /proc/irq/{irq}/smp_affinity_list (and so on)")
    });
    let found = format!("interrupts {} go to workers' CPUs", list_text(&on_workers));
    let why = "a busy worker and the driver's own work then take turns on one CPU, and each waits for the other";
    findings.add(Level::Warning, about, "irq_affinity", found, why, remedy);
}

/// `eth1`, `eth1-rx-0`, `ice-eth1-TxRx-3`: drivers name interrupts after the interface.
fn is_irq_of(word: &str, name: &str) -> bool {
    let mut rest = word;
    while let Some(at) = rest.find(name) {
        let before = rest[..at].chars().next_back();
        let after = rest[at + name.len()..].chars().next();
        let ends = |c: Option<char>| c.is_none_or(|c| !c.is_ascii_alphanumeric());
        if ends(before) && ends(after) {
            return true;
        }
        rest = &rest[at + name.len()..];
    }
    false
}

fn node(patient: &Patient<'_>, about: &str, facts: &Facts, findings: &mut Findings) {
    let Some(node) = facts.node else { return };
    let far: Vec<usize> = patient
        .worker_cpus()
        .into_iter()
        .filter(|&cpu| node_of(patient.root, cpu).is_some_and(|of_cpu| of_cpu != node))
        .collect();
    if far.is_empty() {
        return findings.ok(about, "numa", format!("node {node}, as the workers"));
    }
    let near = patient
        .root
        .line(&format!("sys/devices/system/node/node{node}/cpulist"))
        .unwrap_or_default();
    let found = format!("the NIC is on node {node}, CPUs {} are not", list_text(&far));
    let why = "every packet crosses from one processor's memory to the other's";
    findings.add(
        Level::Warning,
        about,
        "numa",
        found,
        why,
        Some(format!("name CPUs of {near} in `[workers] cpus`")),
    );
}

fn bridge(root: &Root, about: &str, facts: &Facts, wire: Option<&Wire>, findings: &mut Findings) {
    let wanted = wire.and_then(|wire| wire.bridge.as_deref());
    let name = &facts.name;
    match (wanted, facts.controller.as_deref()) {
        (None, None) => {
            let why = "when weir ends, packets meet this machine's own stack, and the wire is cut (docs: the fail-open bridge)";
            findings.add(
                Level::Note,
                about,
                "bridge",
                "no fail-open bridge",
                why,
                Some("`bridge = \"br-weir\"` in `[[wire]]`".into()),
            );
        }
        (Some(wanted), Some(found)) if wanted == found => {
            let stp = root.number::<u32>(&format!("sys/class/net/{found}/bridge/stp_state"));
            if stp.is_some_and(|state| state != 0) {
                let why = "after weir ends, spanning tree keeps the ports closed for up to 30 s";
                let remedy = Some(format!("ip link set {found} type bridge stp_state 0"));
                findings.add(
                    Level::Warning,
                    about,
                    "bridge",
                    format!("{found} has spanning tree on"),
                    why,
                    remedy,
                );
            } else {
                findings.ok(about, "bridge", format!("in {found}"));
            }
        }
        (Some(wanted), None) => {
            let why = "weir makes it, and adds the ports, when it starts";
            findings.add(
                Level::Note,
                about,
                "bridge",
                format!("{name} is not in {wanted} yet"),
                why,
                None,
            );
        }
        (wanted, Some(found)) => {
            let level = if wanted.is_some() { Level::Error } else { Level::Warning };
            let why = "it belongs to something else: weir cannot add it to its own bridge, and on its end packets go where that sends them";
            let remedy = Some(format!("ip link set {name} nomaster"));
            findings.add(
                level,
                about,
                "bridge",
                format!("{name} belongs to {found}"),
                why,
                remedy,
            );
        }
    }
}

/// What the two ends of a wire must have in common.
fn ends(config: &Config, wire: &Wire, facts: &[Facts], findings: &mut Findings) {
    let [site, wan] = [&facts[wire.site], &facts[wire.wan]];
    let about = format!(
        "wire {} - {}",
        config.ports[wire.site].name, config.ports[wire.wan].name
    );
    if let (Some(of_site), Some(of_wan)) = (site.queues, wan.queues) {
        let found = format!("{of_site} and {of_wan} receive queues");
        let named = config.workers.cpus.len();
        let less = of_site.min(of_wan).min(QUEUES_MAX);
        if of_site != of_wan || of_site > QUEUES_MAX {
            let why = "queue q of both ends belongs to one worker: both need the same number, at most 64; weir does not start";
            let more = if of_site > of_wan { site } else { wan };
            let what = if more.driver.as_deref() == Some("veth") {
                format!("rx {less} tx {less}")
            } else {
                format!("combined {less}")
            };
            let remedy = Some(format!("ethtool -L {} {what}", more.name));
            findings.add(Level::Error, &about, "queues", found, why, remedy);
        } else if named > of_site as usize {
            let why = "a worker without a queue would have nothing to do; weir does not start";
            let remedy = Some(format!(
                "name {of_site} `cpus`, or: ethtool -L {} combined {named} (both ends)",
                site.name
            ));
            findings.add(
                Level::Error,
                &about,
                "queues",
                format!("{found}, {named} workers"),
                why,
                remedy,
            );
        } else {
            let most = site.queues_max.zip(wan.queues_max).map(|(a, b)| a.min(b));
            let more = most
                .filter(|most| *most > of_site)
                .map(|most| format!(" (up to {most} possible)"));
            findings.ok(&about, "queues", found + &more.unwrap_or_default());
        }
    }
    if let (Some(of_site), Some(of_wan)) = (site.mtu, wan.mtu)
        && of_site != of_wan
    {
        let why = "weir does not fragment and does not answer \"packet too big\": what is larger than the other end takes is lost";
        let less = of_site.min(of_wan);
        let remedy = Some(format!(
            "ip link set {} mtu {less}; ip link set {} mtu {less}",
            site.name, wan.name
        ));
        findings.add(
            Level::Warning,
            &about,
            "mtu",
            format!("{of_site} and {of_wan}"),
            why,
            remedy,
        );
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    #[test]
    fn a_program_is_foreign_only_where_no_appliance_can_have_attached_it() {
        let root = Root::new(Path::new("/nonexistent"));
        let facts = Facts {
            name: "eth1".to_owned(),
            xdp_program: Some(7),
            ..Facts::default()
        };
        for (may_run, level) in [(false, Level::Error), (true, Level::Note)] {
            let patient = Patient {
                root: &root,
                config: None,
                status: None,
                may_run,
                interfaces: &[],
            };
            let mut findings = Findings::default();
            holders(&patient, "port lan", &facts, &mut findings);
            let found = findings.of("port lan", "xdp_program").expect("it is looked at");
            assert_eq!(found.level, level, "{found:?}");
            let says_off = found.remedy.as_ref().is_some_and(|remedy| remedy.contains("xdp off"));
            assert_eq!(says_off, !may_run, "{found:?}");
        }
    }
}

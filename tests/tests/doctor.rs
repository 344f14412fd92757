//! `weir doctor` on machines that are made up: files of /sys and /proc under a directory.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;

use control::doctor::{DoctorOptions, Findings, Level, examine};
use tempfile::TempDir;

const CONFIG: &str = r#"
region = "atn"
[workers]
poll = "busy"
cpus = [2, 3]
[[port]]
name = "lan"
interface = "eth1"
side = "site"
[[port]]
name = "uplink"
interface = "eth2"
side = "wan"
[[wire]]
ports = ["lan", "uplink"]
bridge = "br-weir"
[[class]]
name = "best-effort"
priority = 7
default = true
"#;

struct Machine(TempDir);

impl Machine {
    /// A good one: 4 cores, 2 of them for the workers, NICs with zero-copy on the workers' node.
    fn good() -> Self {
        let machine = Self(tempfile::tempdir().unwrap());
        let files = [
            ("proc/sys/kernel/osrelease", "6.18.1"),
            ("proc/self/status", "Name:\tweir\nCapEff:\t000001ffffffffff\n"),
            (
                "proc/self/limits",
                "Max open files            20000  20000  files\nMax locked memory         8388608  8388608  bytes\n",
            ),
            ("proc/sys/net/core/bpf_jit_enable", "1"),
            ("proc/sys/kernel/unprivileged_bpf_disabled", "2"),
            ("proc/sys/net/core/netdev_budget", "300"),
            ("proc/sys/vm/nr_hugepages", "0"),
            ("proc/meminfo", "MemTotal: 16000000 kB\nMemAvailable: 12000000 kB\n"),
            ("sys/devices/system/cpu/online", "0-3"),
            ("sys/devices/system/cpu/isolated", "2-3"),
            ("sys/devices/system/cpu/nohz_full", "2-3"),
            ("sys/devices/system/clocksource/clocksource0/current_clocksource", "tsc"),
            (
                "sys/devices/system/clocksource/clocksource0/available_clocksource",
                "tsc hpet acpi_pm",
            ),
            ("sys/devices/system/node/node0/cpulist", "0-3"),
            ("sys/devices/system/node/node1/cpulist", "4-7"),
            ("proc/irq/40/smp_affinity_list", "0-1"),
            ("proc/irq/41/smp_affinity_list", "0"),
            (
                "proc/interrupts",
                "  40: 1 2 PCI-MSI ice-eth1-TxRx-0\n  41: 1 2 PCI-MSI ice-eth2-TxRx-0\n",
            ),
            ("sys/class/net/br-weir/bridge/stp_state", "0"),
        ];
        files.iter().for_each(|(path, text)| machine.write(path, text));
        for cpu in 0..4 {
            let directory = format!("sys/devices/system/cpu/cpu{cpu}");
            machine.write(&format!("{directory}/cpufreq/scaling_governor"), "performance");
            machine.write(&format!("{directory}/topology/thread_siblings_list"), &cpu.to_string());
        }
        for name in ["eth1", "eth2"] {
            let directory = format!("sys/class/net/{name}");
            for (file, text) in [
                ("flags", "0x1003"),
                ("carrier", "1"),
                ("mtu", "1500"),
                ("device/numa_node", "0"),
            ] {
                machine.write(&format!("{directory}/{file}"), text);
            }
            for queue in 0..2 {
                machine.write(&format!("{directory}/queues/rx-{queue}/rps_cpus"), "0");
            }
            symlink(
                "../../../bus/pci/drivers/ice",
                machine.path(&format!("{directory}/device/driver")),
            )
            .unwrap();
            symlink("../br-weir", machine.path(&format!("{directory}/master"))).unwrap();
        }
        fs::write(machine.0.path().join("weir.toml"), CONFIG).unwrap();
        machine
    }

    fn path(&self, path: &str) -> std::path::PathBuf {
        self.0.path().join("root").join(path)
    }

    fn write(&self, path: &str, text: &str) {
        let path = self.path(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }

    fn remove(&self, path: &str) {
        let path = self.path(path);
        if path.is_symlink() || path.is_file() {
            fs::remove_file(path).unwrap();
        } else {
            fs::remove_dir_all(path).unwrap();
        }
    }

    fn examine(&self) -> Findings {
        examine_at(&self.path(""), &self.0.path().join("weir.toml"))
    }
}

fn examine_at(root: &Path, config: &Path) -> Findings {
    examine_with(root, config, Path::new("/nonexistent/control.sock"))
}

fn examine_with(root: &Path, config: &Path, socket: &Path) -> Findings {
    examine(&DoctorOptions {
        config: config.to_owned(),
        socket: socket.to_owned(),
        root: root.to_owned(),
    })
}

#[test]
fn an_appliance_that_gives_no_status_may_have_taken_its_memory() {
    let machine = Machine::good();
    machine.write("proc/meminfo", "MemAvailable: 60000 kB\n");
    let level = |findings: &Findings, check| findings.of("machine", check).expect("it is looked at").level;
    assert_eq!(level(&machine.examine(), "memory"), Level::Error);
    let socket = machine.0.path().join("control.sock");
    let listener = std::os::unix::net::UnixListener::bind(&socket).unwrap();
    std::thread::spawn(move || listener.incoming().for_each(drop));
    let findings = examine_with(&machine.path(""), &machine.0.path().join("weir.toml"), &socket);
    assert_eq!(level(&findings, "memory"), Level::Ok);
    let appliance = findings.of("system", "appliance").expect("it is looked at");
    assert!(appliance.found.contains("no answer"), "{appliance:?}");
}

#[test]
fn a_good_machine_has_nothing_above_a_note() {
    let findings = Machine::good().examine();
    assert!(findings.worst() <= Level::Note, "{}", findings.to_text(false));
    for (about, check) in [
        ("machine", "kernel"),
        ("machine", "cpu_isolation"),
        ("machine", "clock"),
        ("port lan", "driver"),
        ("port uplink", "bridge"),
        ("wire lan - uplink", "queues"),
    ] {
        let finding = findings
            .of(about, check)
            .unwrap_or_else(|| panic!("no {check} of {about}"));
        assert_eq!(finding.level, Level::Ok, "{finding:?}");
    }
}

/// What is otherwise than on a good machine (a file and its text; without a text it is missing), and what is found: of what,
/// by which check, how bad it is, and a part of the remedy.
const FAULTS: &str = "\
proc/sys/kernel/osrelease = 5.10.0-8 | machine | kernel | error | newer kernel
proc/sys/kernel/osrelease = 6.1.0 | machine | kernel | note |
proc/self/status = CapEff: 0000000000000000 | machine | capabilities | note | sudo
proc/sys/net/core/bpf_jit_enable = 0 | machine | bpf_jit | warning | bpf_jit_enable=1
proc/sys/kernel/unprivileged_bpf_disabled = 0 | machine | unprivileged_bpf | note | =2
sys/devices/system/cpu/online = 0-2 | machine | cpus | error | cpu3/online
sys/devices/system/cpu/online = 2-3 | machine | cpus | warning | adaptive
sys/devices/system/cpu/isolated = | machine | cpu_isolation | note | isolcpus=2-3
sys/devices/system/cpu/cpu3/cpufreq/scaling_governor = powersave | machine | cpu_frequency | warning | cpupower -c 3
sys/devices/system/cpu/cpu2/topology/thread_siblings_list = 2-3 | machine | smt | warning | one thread
sys/devices/system/clocksource/clocksource0/current_clocksource = hpet | machine | clock | warning | echo tsc
proc/meminfo = MemAvailable: 60000 kB | machine | memory | error | ethtool -L
proc/77/comm = irqbalance | machine | irqbalance | note | disable
sys/class/net/eth2 = | port uplink | interface | error | ip link
sys/class/net/eth1/carrier = 0 | port lan | link | warning | ethtool eth1
sys/class/net/eth1/mtu = 9000 | port lan | mtu | error | ip link set eth1 mtu 3818
sys/class/net/eth1/mtu = 1400 | wire lan - uplink | mtu | warning | eth2 mtu 1400
proc/irq/41/smp_affinity_list = 3 | port uplink | irq_affinity | warning | echo 0-1 > /proc/irq/41/
sys/class/net/eth1/device/numa_node = 1 | port lan | numa | warning | CPUs of 4-7
sys/class/net/br-weir/bridge/stp_state = 1 | port lan | bridge | warning | stp_state 0
sys/class/net/eth1/queues/rx-1 = | wire lan - uplink | queues | error | ethtool -L eth2 combined 1
";

#[test]
fn each_fault_is_found_with_its_remedy() {
    for line in FAULTS.lines() {
        let columns: Vec<&str> = line.split('|').map(str::trim).collect();
        let [fault, about, check, level, remedy] = columns[..] else {
            panic!("{line}");
        };
        let machine = Machine::good();
        match fault.split_once(" =").expect("a file") {
            (path, "") => machine.remove(path),
            (path, text) => machine.write(path, text.trim_start()),
        }
        let findings = machine.examine();
        let finding = findings
            .of(about, check)
            .unwrap_or_else(|| panic!("no {check} of {about}"));
        assert_eq!(finding.level.name(), level, "{finding:?}");
        assert!(
            finding.remedy.as_deref().unwrap_or("").contains(remedy),
            "{remedy}: {finding:?}"
        );
        assert!(!finding.why.is_empty(), "{finding:?}");
        let text = findings.to_text(false);
        assert!(text.lines().all(|line| line.chars().count() <= 100), "{text}");
    }
}

#[test]
fn a_machine_that_says_nothing_and_a_broken_configuration() {
    let machine = Machine::good();
    let empty = tempfile::tempdir().unwrap();
    let findings = examine_at(empty.path(), &machine.0.path().join("weir.toml"));
    for check in [
        "kernel",
        "capabilities",
        "bpf_jit",
        "cpus",
        "clock",
        "netdev_budget",
        "open_files",
    ] {
        let finding = findings.of("machine", check).unwrap_or_else(|| panic!("no {check}"));
        assert!(
            finding.level == Level::Note && finding.found.contains("cannot say"),
            "{finding:?}"
        );
    }
    let bad = empty.path().join("bad.toml");
    fs::write(&bad, "region = 7").unwrap();
    let findings = examine_at(&machine.path(""), &bad);
    let valid = findings.of("configuration", "valid").unwrap();
    assert_eq!(valid.level, Level::Error);
    assert!(
        valid.remedy.as_deref().unwrap().contains("weir check --config"),
        "{valid:?}"
    );
    assert_eq!(findings.of("machine", "kernel").unwrap().level, Level::Ok);
}

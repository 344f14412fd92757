//! The computer under the bench. Reads `/proc` and `/sys/devices`, which say the same in every network namespace.

use std::fs;
use std::path::Path;

use dataplane::clock::{Clock, MonotonicClock};
use nix::unistd::getppid;
use serde::{Deserialize, Serialize};

use super::or_nan;

/// The computer. What cannot be read is `None` or empty: a virtual machine has no governor.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Machine {
    /// The processor's model.
    pub cpu: String,
    /// Logical processors that are on.
    pub cores: u32,
    /// The frequency governor, all of them if cores differ.
    pub governor: Option<String>,
    /// Kernel release and build.
    pub kernel: String,
    /// What bears on timing of the kernel's command line: isolated cores, mitigations, idle states, huge pages.
    pub kernel_options: Vec<String>,
    /// The hypervisor, if this is a virtual machine; "unnamed" if it does not say.
    pub hypervisor: Option<String>,
    /// Bytes of memory.
    pub memory_bytes: u64,
    /// Weaknesses of the processor that the kernel works around, which costs time at each system call.
    pub mitigations: Vec<Mitigation>,
    /// What the kernel tells the time by; reading it is slow where it is not `tsc` or `arch_sys_counter`.
    pub clock_source: Option<String>,
    /// Nanoseconds of an empty system call, median of some thousands: a quiet host and a noisy one differ in it as they
    /// differ in everything else measured.
    #[serde(deserialize_with = "or_nan")]
    pub empty_system_call_ns: f64,
    /// The version of pktgen.
    pub pktgen: String,
}

/// A weakness and what is done about it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Mitigation {
    /// The kernel's name for the weakness.
    pub name: String,
    /// The kernel's words, up to the first `;`.
    pub state: String,
}

impl Machine {
    /// This computer. Takes some milliseconds to time the system call; no privilege is needed.
    #[must_use]
    pub fn read() -> Self {
        let mut machine = Self::read_at(Path::new("/"));
        machine.empty_system_call_ns = empty_system_call_ns();
        machine
    }

    /// What the files under `root` say, without the time of a system call.
    fn read_at(root: &Path) -> Self {
        let read = |path: &str| line(&root.join(path));
        let cpuinfo = fs::read_to_string(root.join("proc/cpuinfo")).unwrap_or_default();
        let release = read("proc/sys/kernel/osrelease").unwrap_or_default();
        let build = read("proc/sys/kernel/version").unwrap_or_default();
        Self {
            cpu: cpu(&cpuinfo).unwrap_or_else(|| "unknown".to_owned()),
            cores: read("sys/devices/system/cpu/online").map_or(0, |list| count(&list)),
            governor: governor(root),
            kernel: format!("Linux {release} {build}").trim_end().to_owned(),
            kernel_options: kernel_options(&read("proc/cmdline").unwrap_or_default()),
            hypervisor: hypervisor(root, &cpuinfo),
            memory_bytes: memory_bytes(&fs::read_to_string(root.join("proc/meminfo")).unwrap_or_default()),
            mitigations: mitigations(root),
            clock_source: read("sys/devices/system/clocksource/clocksource0/current_clocksource"),
            empty_system_call_ns: f64::NAN,
            pktgen: env!("CARGO_PKG_VERSION").to_owned(),
        }
    }
}

/// x86 says `model name`; Arm only numbers.
fn cpu(cpuinfo: &str) -> Option<String> {
    let field = |name| value(cpuinfo, name).filter(|text| !text.is_empty());
    field("model name").map(str::to_owned).or_else(|| {
        let (implementer, part) = (field("CPU implementer")?, field("CPU part")?);
        Some(format!("implementer {implementer}, part {part}"))
    })
}

/// The value of the first line `name : value`.
fn value<'a>(lines: &'a str, name: &str) -> Option<&'a str> {
    lines.lines().find_map(|line| {
        let (key, value) = line.split_once(':')?;
        (key.trim() == name).then(|| value.trim())
    })
}

fn governor(root: &Path) -> Option<String> {
    let mut found: Vec<String> = entries(&root.join("sys/devices/system/cpu/cpufreq"))
        .iter()
        .filter_map(|policy| line(&policy.join("scaling_governor")))
        .collect();
    found.sort();
    found.dedup();
    (!found.is_empty()).then(|| found.join(", "))
}

/// The flag `hypervisor` is what x86 processors show in a guest; the name comes from the firmware or from Xen.
fn hypervisor(root: &Path, cpuinfo: &str) -> Option<String> {
    let flagged = value(cpuinfo, "flags").is_some_and(|flags| flags.split(' ').any(|flag| flag == "hypervisor"));
    let named = line(&root.join("sys/hypervisor/type"));
    if !flagged && named.is_none() {
        return None;
    }
    let vendor = line(&root.join("sys/class/dmi/id/sys_vendor"));
    let product = line(&root.join("sys/class/dmi/id/product_name"));
    let words: Vec<String> = [named, vendor, product].into_iter().flatten().collect();
    Some(if words.is_empty() {
        "unnamed".to_owned()
    } else {
        words.join(" ")
    })
}

fn kernel_options(command_line: &str) -> Vec<String> {
    command_line
        .split_whitespace()
        .filter(|option| {
            let name = option.split('=').next().unwrap_or_default();
            BEARING_ON_TIMING.contains(&name)
        })
        .map(str::to_owned)
        .collect()
}

/// Kernel options that change how even and how fast packets go.
const BEARING_ON_TIMING: [&str; 20] = [
    "isolcpus",
    "nohz",
    "nohz_full",
    "rcu_nocbs",
    "irqaffinity",
    "mitigations",
    "spectre_v2",
    "pti",
    "nopti",
    "idle",
    "intel_idle.max_cstate",
    "processor.max_cstate",
    "intel_pstate",
    "amd_pstate",
    "iommu",
    "intel_iommu",
    "preempt",
    "hugepages",
    "transparent_hugepage",
    "clocksource",
];

fn memory_bytes(meminfo: &str) -> u64 {
    value(meminfo, "MemTotal")
        .and_then(|text| text.strip_suffix("kB"))
        .and_then(|kib| kib.trim().parse::<u64>().ok())
        .map_or(0, |kib| kib.saturating_mul(1024))
}

/// Only those that apply to this processor.
fn mitigations(root: &Path) -> Vec<Mitigation> {
    let mut found: Vec<Mitigation> = entries(&root.join("sys/devices/system/cpu/vulnerabilities"))
        .iter()
        .filter_map(|path| {
            let text = line(path)?;
            let state = text.split(';').next()?.trim();
            let state = state.strip_prefix("Mitigation: ").unwrap_or(state).to_owned();
            let name = path.file_name()?.to_string_lossy().into_owned();
            (state != "Not affected").then_some(Mitigation { name, state })
        })
        .collect();
    found.sort_by(|a, b| a.name.cmp(&b.name));
    found
}

fn entries(directory: &Path) -> Vec<std::path::PathBuf> {
    fs::read_dir(directory)
        .map(|entries| entries.filter_map(Result::ok).map(|entry| entry.path()).collect())
        .unwrap_or_default()
}

/// The text of a file of one line; `None` if it is missing or empty.
fn line(path: &Path) -> Option<String> {
    let text = fs::read_to_string(path).ok()?;
    let text = text.trim();
    (!text.is_empty()).then(|| text.to_owned())
}

/// How many numbers a list such as `0-3,8,10-11` has.
fn count(list: &str) -> u32 {
    let number = |text: &str| text.trim().parse::<u32>().ok();
    list.split(',')
        .filter_map(|range| match range.split_once('-') {
            Some((first, last)) => Some(number(last)?.checked_sub(number(first)?)?.saturating_add(1)),
            None => number(range).map(|_| 1),
        })
        .fold(0, u32::saturating_add)
}

fn empty_system_call_ns() -> f64 {
    const CALLS: u32 = 200;
    let clock = MonotonicClock;
    let mut rounds: Vec<f64> = (0..51)
        .map(|_| {
            let start = clock.now();
            for _ in 0..CALLS {
                std::hint::black_box(getppid());
            }
            clock.now().since(start).0 as f64 / f64::from(CALLS)
        })
        .collect();
    rounds.sort_by(f64::total_cmp);
    rounds[rounds.len() / 2]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_machine_says_who_it_is() {
        let machine = Machine::read();
        assert!(machine.kernel.starts_with("Linux "), "{machine:?}");
        assert!(machine.cores > 0 && machine.memory_bytes > 1 << 20, "{machine:?}");
        assert!(machine.empty_system_call_ns > 1.0, "{machine:?}");
        assert!(!machine.cpu.is_empty() && !machine.pktgen.is_empty());
    }

    #[test]
    fn a_machine_that_says_nothing_is_unknown() {
        let empty = tempfile::tempdir().unwrap();
        let machine = Machine::read_at(empty.path());
        assert_eq!((machine.cpu.as_str(), machine.kernel.as_str()), ("unknown", "Linux"));
        assert_eq!((machine.cores, machine.memory_bytes, machine.hypervisor), (0, 0, None));
    }

    #[test]
    fn files_of_a_guest_are_understood() {
        let root = tempfile::tempdir().unwrap();
        let write = |path: &str, text: &str| {
            let path = root.path().join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        };
        write(
            "proc/cpuinfo",
            "processor\t: 0\nmodel name\t: Fast: 3000\nflags\t\t: fpu hypervisor sse\n",
        );
        write("proc/meminfo", "MemTotal:       2048 kB\nMemFree: 1 kB\n");
        write(
            "proc/cmdline",
            "quiet isolcpus=2,3 root=/dev/x mitigations=off secret=1\n",
        );
        write("sys/devices/system/cpu/online", "0-3,8,10-11\n");
        write("sys/devices/system/cpu/cpufreq/policy0/scaling_governor", "powersave\n");
        write(
            "sys/devices/system/cpu/cpufreq/policy1/scaling_governor",
            "performance\n",
        );
        write("sys/devices/system/cpu/vulnerabilities/meltdown", "Not affected\n");
        write(
            "sys/devices/system/cpu/vulnerabilities/spectre_v2",
            "Mitigation: Retpolines; IBPB: conditional; RSB filling\n",
        );
        write(
            "sys/devices/system/cpu/vulnerabilities/mds",
            "Vulnerable: no microcode\n",
        );
        write("sys/class/dmi/id/sys_vendor", "QEMU\n");
        let machine = Machine::read_at(root.path());
        assert_eq!(machine.cpu, "Fast: 3000");
        assert_eq!((machine.cores, machine.memory_bytes), (7, 2 << 20));
        assert_eq!(machine.governor.as_deref(), Some("performance, powersave"));
        assert_eq!(machine.hypervisor.as_deref(), Some("QEMU"));
        assert_eq!(machine.kernel_options, ["isolcpus=2,3", "mitigations=off"]);
        let states: Vec<_> = machine
            .mitigations
            .iter()
            .map(|one| (&*one.name, &*one.state))
            .collect();
        assert_eq!(
            states,
            [("mds", "Vulnerable: no microcode"), ("spectre_v2", "Retpolines")]
        );
    }
}

//! The machine: kernel, processors, memory, clock, limits.

use super::Patient;
use super::report::{Findings, Level};
use super::root::{Root, list_text, numbers};
use crate::plan::{FRAMES, frame_bytes};

const ABOUT: &str = "machine";

/// Oldest kernel: the XDP program calls `bpf_xdp_get_buff_len`.
const KERNEL_MIN: (u32, u32) = (5, 18);
/// From here on a wake-up sends 128 packets in copy mode instead of 32.
const KERNEL_GOOD: (u32, u32) = (6, 17);

pub(super) fn examine(patient: &Patient<'_>, findings: &mut Findings) {
    let root = patient.root;
    kernel(root, findings);
    privileges(root, findings);
    bpf(root, findings);
    workers(patient, findings);
    isolation(patient, findings);
    governor(patient, findings);
    siblings(patient, findings);
    clock(root, findings);
    memory(patient, findings);
    network(root, findings);
}

fn kernel(root: &Root, findings: &mut Findings) {
    let Some(release) = root.line("proc/sys/kernel/osrelease") else {
        return unknown(findings, "kernel", "/proc/sys/kernel/osrelease");
    };
    let mut parts = release
        .split(|c: char| !c.is_ascii_digit())
        .map(|part| part.parse().unwrap_or(0));
    let version = (parts.next().unwrap_or(0), parts.next().unwrap_or(0));
    if version < KERNEL_MIN {
        let why = "weir needs Linux 5.18 or newer: older kernels lack what its XDP program and sockets ask for";
        findings.add(
            Level::Error,
            ABOUT,
            "kernel",
            release,
            why,
            Some("install a newer kernel".into()),
        );
    } else if version < KERNEL_GOOD {
        let why = "from Linux 6.17 on a wake-up sends 128 packets in copy mode; here it sends 32, so more system calls";
        findings.add(Level::Note, ABOUT, "kernel", release, why, None);
    } else {
        findings.ok(ABOUT, "kernel", release);
    }
}

/// What is needed, by its number in `linux/capability.h`.
const CAPABILITIES: [(u32, &str); 3] = [(12, "CAP_NET_ADMIN"), (13, "CAP_NET_RAW"), (39, "CAP_BPF")];
const CAP_IPC_LOCK: u32 = 14;

fn privileges(root: &Root, findings: &mut Findings) {
    let status = root.text("proc/self/status").unwrap_or_default();
    let effective = status.lines().find_map(|line| line.strip_prefix("CapEff:"));
    let effective = effective.and_then(|hex| u64::from_str_radix(hex.trim(), 16).ok());
    let has = |bit: u32| effective.is_some_and(|effective| effective >> bit & 1 == 1);
    let missing: Vec<&str> = CAPABILITIES
        .iter()
        .filter(|(bit, _)| !has(*bit))
        .map(|(_, name)| *name)
        .collect();
    if effective.is_none() {
        unknown(findings, "capabilities", "/proc/self/status");
    } else if missing.is_empty() {
        findings.ok(ABOUT, "capabilities", "this user may run weir");
    } else {
        let found = format!("this user lacks {}", missing.join(", "));
        let why =
            "`weir run` needs them (systemd gives them to the service); some of what follows cannot be read without";
        let remedy = Some("sudo weir doctor".into());
        findings.add(Level::Note, ABOUT, "capabilities", found, why, remedy);
    }
    limit(
        root,
        "Max locked memory",
        |most| most >= 1 << 30 || has(CAP_IPC_LOCK),
        findings,
        (
            "locked_memory",
            "packet frames are locked, 32 MiB for each queue of a wire; without CAP_IPC_LOCK this limit counts",
            "ulimit -l unlimited (systemd: LimitMEMLOCK=infinity)",
        ),
    );
    limit(
        root,
        "Max open files",
        |most| most >= 1024,
        findings,
        (
            "open_files",
            "each queue takes some descriptors, and so does each connection to the control socket",
            "ulimit -n 4096 (systemd: LimitNOFILE=4096)",
        ),
    );
}

/// A soft limit of this process, against what it should be: (check, why, remedy).
fn limit(root: &Root, name: &str, is_enough: impl Fn(u64) -> bool, findings: &mut Findings, text: (&str, &str, &str)) {
    let (check, why, remedy) = text;
    let limits = root.text("proc/self/limits").unwrap_or_default();
    let line = limits.lines().find_map(|line| line.strip_prefix(name));
    let Some(soft) = line.and_then(|line| line.split_whitespace().next()) else {
        return unknown(findings, check, "/proc/self/limits");
    };
    let most = soft.parse().unwrap_or(u64::MAX);
    if is_enough(most) {
        findings.ok(ABOUT, check, format!("limit {soft}"));
    } else {
        findings.add(
            Level::Note,
            ABOUT,
            check,
            format!("limit {soft}"),
            why,
            Some(remedy.into()),
        );
    }
}

fn bpf(root: &Root, findings: &mut Findings) {
    match root.number::<i32>("proc/sys/net/core/bpf_jit_enable") {
        Some(0) => findings.add(
            Level::Warning,
            ABOUT,
            "bpf_jit",
            "off",
            "the XDP program is then interpreted, for every packet",
            Some("sysctl -w net.core.bpf_jit_enable=1".into()),
        ),
        Some(_) => findings.ok(ABOUT, "bpf_jit", "on"),
        None => unknown(findings, "bpf_jit", "/proc/sys/net/core/bpf_jit_enable"),
    }
    match root.number::<i32>("proc/sys/kernel/unprivileged_bpf_disabled") {
        Some(0) => findings.add(
            Level::Note,
            ABOUT,
            "unprivileged_bpf",
            "allowed",
            "weir does not need it, and it widens what any local user can try on the kernel",
            Some("sysctl -w kernel.unprivileged_bpf_disabled=2".into()),
        ),
        Some(_) => findings.ok(ABOUT, "unprivileged_bpf", "not allowed"),
        None => unknown(
            findings,
            "unprivileged_bpf",
            "/proc/sys/kernel/unprivileged_bpf_disabled",
        ),
    }
}

fn workers(patient: &Patient<'_>, findings: &mut Findings) {
    let online = patient.root.list("sys/devices/system/cpu/online");
    let workers = patient.worker_cpus();
    if online.is_empty() {
        return unknown(findings, "cpus", "/sys/devices/system/cpu/online");
    }
    if workers.is_empty() {
        return;
    }
    let found = format!("workers on {} of {}", list_text(&workers), list_text(&online));
    let is_busy = patient
        .config
        .is_some_and(|config| config.workers.poll == config::Poll::Busy);
    if let Some(cpu) = workers.iter().find(|cpu| !online.contains(cpu)) {
        let why = "a worker is to be pinned to a CPU that is not there or is off";
        let remedy = format!("name others in `[workers] cpus`, or: echo 1 > /sys/devices/system/cpu/cpu{cpu}/online");
        findings.add(Level::Error, ABOUT, "cpus", found, why, Some(remedy));
    } else if is_busy && workers.len() >= online.len() {
        let why = "with poll = \"busy\" workers never sleep: on every CPU they leave none for the kernel's side of the packets";
        let remedy = "set `[workers] poll = \"adaptive\"`, or name fewer `cpus`";
        findings.add(Level::Warning, ABOUT, "cpus", found, why, Some(remedy.into()));
    } else {
        findings.ok(ABOUT, "cpus", found);
    }
}

fn isolation(patient: &Patient<'_>, findings: &mut Findings) {
    let workers = patient.worker_cpus();
    if workers.is_empty() {
        return;
    }
    let isolated = patient.root.list("sys/devices/system/cpu/isolated");
    let tickless = patient
        .root
        .line("sys/devices/system/cpu/nohz_full")
        .map(|l| numbers(&l))
        .unwrap_or_default();
    let shared: Vec<usize> = workers.iter().copied().filter(|cpu| !isolated.contains(cpu)).collect();
    let ticking = workers.iter().any(|cpu| !tickless.contains(cpu));
    if shared.is_empty() && !ticking {
        return findings.ok(
            ABOUT,
            "cpu_isolation",
            format!("{} are for the workers alone", list_text(&workers)),
        );
    }
    let found = if shared.is_empty() {
        "the workers' CPUs are isolated, but have a timer tick".to_owned()
    } else {
        format!("CPUs {} run other things beside workers", list_text(&shared))
    };
    let why = "whatever else runs there takes the worker away for microseconds to milliseconds, and a full NIC ring loses packets";
    let list = list_text(&workers);
    let remedy = format!("kernel command line: isolcpus={list} nohz_full={list} rcu_nocbs={list}; then reboot");
    findings.add(Level::Note, ABOUT, "cpu_isolation", found, why, Some(remedy));
}

fn governor(patient: &Patient<'_>, findings: &mut Findings) {
    let governor = |cpu: &usize| {
        let path = format!("sys/devices/system/cpu/cpu{cpu}/cpufreq/scaling_governor");
        patient.root.line(&path).map(|governor| (*cpu, governor))
    };
    let found: Vec<(usize, String)> = patient.worker_cpus().iter().filter_map(governor).collect();
    let slow: Vec<usize> = found
        .iter()
        .filter(|(_, name)| name != "performance")
        .map(|(cpu, _)| *cpu)
        .collect();
    match (found.first(), slow.first()) {
        (None, _) => findings.ok(ABOUT, "cpu_frequency", "not scaled by this kernel"),
        (Some(_), None) => findings.ok(ABOUT, "cpu_frequency", "governor performance"),
        (Some((_, name)), Some(_)) => findings.add(
            Level::Warning,
            ABOUT,
            "cpu_frequency",
            format!("governor {name} on CPUs {}", list_text(&slow)),
            "a core that has slowed down loses the first packets of a burst",
            Some(format!("cpupower -c {} frequency-set -g performance", list_text(&slow))),
        ),
    }
}

fn siblings(patient: &Patient<'_>, findings: &mut Findings) {
    let workers = patient.worker_cpus();
    let threads = |cpu: usize| {
        patient.root.list(&format!(
            "sys/devices/system/cpu/cpu{cpu}/topology/thread_siblings_list"
        ))
    };
    let together = workers.iter().find_map(|&cpu| {
        let other = threads(cpu)
            .into_iter()
            .find(|other| *other > cpu && workers.contains(other));
        other.map(|other| (cpu, other))
    });
    let has_sibling = workers.iter().any(|&cpu| threads(cpu).len() > 1);
    match together {
        Some((one, other)) => findings.add(
            Level::Warning,
            ABOUT,
            "smt",
            format!("workers on {one} and {other} share one core"),
            "two workers on one core have about 1.2 times the speed of one, not twice",
            Some("name one thread of each core in `[workers] cpus`".into()),
        ),
        None if has_sibling => findings.add(
            Level::Note,
            ABOUT,
            "smt",
            "each worker's core has a second thread",
            "what runs there slows the worker by up to half",
            Some("keep the siblings idle, or: echo off > /sys/devices/system/cpu/smt/control".into()),
        ),
        None if workers.is_empty() => {}
        None => findings.ok(ABOUT, "smt", "no worker shares its core"),
    }
}

fn clock(root: &Root, findings: &mut Findings) {
    const FAST: [&str; 4] = ["tsc", "arch_sys_counter", "kvm-clock", "hyperv_clocksource_tsc_page"];
    let path = "sys/devices/system/clocksource/clocksource0/";
    let Some(current) = root.line(&format!("{path}current_clocksource")) else {
        return unknown(findings, "clock", "/sys/devices/system/clocksource");
    };
    if FAST.contains(&current.as_str()) {
        return findings.ok(ABOUT, "clock", current);
    }
    let available = root.line(&format!("{path}available_clocksource")).unwrap_or_default();
    let fast = FAST
        .into_iter()
        .find(|fast| available.split(' ').any(|name| name == *fast));
    let remedy = fast.map(|fast| format!("echo {fast} > /{path}current_clocksource"));
    let why = "every turn of a worker reads the clock; this one takes a system call for it, about a microsecond";
    findings.add(Level::Warning, ABOUT, "clock", current, why, remedy);
}

fn memory(patient: &Patient<'_>, findings: &mut Findings) {
    let root = patient.root;
    let meminfo = root.text("proc/meminfo").unwrap_or_default();
    let kib = |name: &str| {
        let line = meminfo
            .lines()
            .find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
        line.and_then(|rest| rest.split_whitespace().next()?.parse::<u64>().ok())
    };
    let (Some(available), Some(config)) = (kib("MemAvailable"), patient.config) else {
        return;
    };
    let mtu = patient
        .interfaces
        .iter()
        .filter_map(|facts| facts.mtu)
        .max()
        .unwrap_or(0);
    // With an MTU that no frame holds weir does not start: see the port.
    let Some(frame) = frame_bytes(mtu) else { return };
    let queues = |wire: &config::Wire| u64::from(patient.interfaces[wire.site].queues.unwrap_or(1));
    let lanes: u64 = config.wires.iter().map(queues).sum();
    let needed = lanes * u64::from(FRAMES) * u64::from(frame);
    let found = format!(
        "{} MiB available, {} MiB needed for frames",
        available >> 10,
        needed >> 20
    );
    if !patient.may_run && available << 10 < needed {
        let why = "frames are taken and locked at the start, which then fails";
        let remedy = "free memory, or use fewer queues: ethtool -L IFACE combined N";
        findings.add(Level::Error, ABOUT, "memory", found, why, Some(remedy.into()));
    } else {
        findings.ok(ABOUT, "memory", found);
    }
    if let Some(huge) = root.number::<u64>("proc/sys/vm/nr_hugepages") {
        // weir takes none, so none are missing: those that somebody set aside are only lost to it.
        findings.ok(ABOUT, "hugepages", format!("{huge} set aside; weir uses none"));
    }
}

fn network(root: &Root, findings: &mut Findings) {
    const BUDGET: u32 = 300;
    match root.number::<u32>("proc/sys/net/core/netdev_budget") {
        Some(budget) if budget < BUDGET => findings.add(
            Level::Note,
            ABOUT,
            "netdev_budget",
            budget.to_string(),
            "the kernel takes so few packets from the NICs at a time; its default is 300",
            Some("sysctl -w net.core.netdev_budget=300".into()),
        ),
        Some(budget) => findings.ok(ABOUT, "netdev_budget", budget.to_string()),
        None => unknown(findings, "netdev_budget", "/proc/sys/net/core/netdev_budget"),
    }
    let irqbalance = root
        .names("proc")
        .into_iter()
        .filter(|name| name.bytes().all(|b| b.is_ascii_digit()));
    let runs = irqbalance
        .into_iter()
        .any(|pid| root.line(&format!("proc/{pid}/comm")).as_deref() == Some("irqbalance"));
    if runs {
        let why = "it moves the NICs' interrupts about, also onto the workers' CPUs";
        let remedy = "systemctl disable --now irqbalance, or ban the CPUs: IRQBALANCE_BANNED_CPULIST";
        findings.add(Level::Note, ABOUT, "irqbalance", "runs", why, Some(remedy.into()));
    }
}

pub(super) fn unknown(findings: &mut Findings, check: &str, path: &str) {
    let found = format!("cannot say: {path} cannot be read");
    findings.add(Level::Note, ABOUT, check, found, "", None);
}

/// The nodes of memory that CPUs belong to.
pub(super) fn node_of(root: &Root, cpu: usize) -> Option<usize> {
    let nodes = root.names("sys/devices/system/node");
    nodes.iter().find_map(|name| {
        let node = name.strip_prefix("node")?.parse().ok()?;
        root.list(&format!("sys/devices/system/node/{name}/cpulist"))
            .contains(&cpu)
            .then_some(node)
    })
}

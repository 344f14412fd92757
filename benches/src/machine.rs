//! The machine under the bench: which core a thread runs on, and how fast the machine is just now.

use std::time::Instant;

use nix::sched::{CpuSet, sched_setaffinity};
use nix::unistd::{Pid, getppid};

use crate::Error;

/// Pins the calling thread to a core.
///
/// # Errors
/// There is no such core, or this process may not use it.
pub fn pin(cpu: usize) -> Result<(), Error> {
    let mut set = CpuSet::new();
    set.set(cpu)?;
    sched_setaffinity(Pid::from_raw(0), &set).map_err(|errno| format!("cannot run on core {cpu}: {errno}"))?;
    Ok(())
}

/// Nanoseconds of an empty system call: the median of some thousands. The clock of a virtual machine's noise: a quiet host
/// and a noisy one differ in it as they differ in everything else that is measured here.
#[must_use]
pub fn empty_syscall_ns() -> f64 {
    const CALLS: u32 = 1_000;
    let mut rounds: Vec<f64> = (0..50)
        .map(|_| {
            let start = Instant::now();
            for _ in 0..CALLS {
                std::hint::black_box(getppid());
            }
            start.elapsed().as_nanos() as f64 / f64::from(CALLS)
        })
        .collect();
    rounds.sort_by(f64::total_cmp);
    rounds[rounds.len() / 2]
}

/// The processor and the kernel, for the heading of a table.
#[must_use]
pub fn name() -> String {
    let cpuinfo = std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let model = cpuinfo
        .lines()
        .find_map(|line| line.strip_prefix("model name")?.split_once(": "))
        .map_or("unknown processor", |(_, model)| model);
    let kernel = std::fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    format!("{model}, {cores} cores, Linux {}", kernel.trim())
}

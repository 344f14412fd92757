//! The machine under the bench: which core a thread runs on, and how fast the machine is just now.

use std::time::Instant;

use nix::sched::{CpuSet, sched_setaffinity};
use nix::sys::time::TimeSpec;
use nix::time::{ClockId, clock_gettime};
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

/// Processor time of the calling thread, in nanoseconds: it stands still while others have the core. Costs a system call.
#[must_use]
pub fn thread_ns() -> u64 {
    // The call cannot fail: Linux has had this clock for ever, and it needs no privilege.
    let now = clock_gettime(ClockId::CLOCK_THREAD_CPUTIME_ID).unwrap_or(TimeSpec::new(0, 0));
    now.tv_sec() as u64 * 1_000_000_000 + now.tv_nsec() as u64
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

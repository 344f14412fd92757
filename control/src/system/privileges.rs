//! What weir may still do after its start, and the tables that say so.
//!
//! | thread | capabilities | system calls |
//! |---|---|---|
//! | main | CAP_NET_ADMIN permitted, not effective; raised at the stop, to switch offloads on again | all but `FORBIDDEN` |
//! | all others of the control side | as main, from which they come; none can raise it but by asking for it | all but `FORBIDDEN` |
//! | workers | none | `WORKER` only |
//!
//! Nothing else needs a capability once the sockets are bound: descriptors carry the right to send, receive, read maps and
//! statistics, and detaching is closing a `bpf_link`. Before Linux 6.0 reading a map needs CAP_BPF where unprivileged BPF is
//! switched off (`kernel.unprivileged_bpf_disabled`); there it stays effective.
//!
//! A forbidden call fails with EPERM. `no_new_privs` is set. Capabilities and filters are a thread's own: each worker takes
//! its own when it begins; main takes its before it makes any other thread.

use std::collections::{BTreeMap, HashSet};

use caps::{CapSet, Capability};
use seccompiler::{
    BpfProgram, SeccompAction, SeccompCmpArgLen, SeccompCmpOp, SeccompCondition, SeccompFilter, SeccompRule, TargetArch,
};

/// All that a worker calls while it turns, sleeps and ends. Opening, connecting, starting are not among it.
const WORKER: &[i64] = &[
    // The rings: wake-ups and sleep.
    libc::SYS_sendto,
    libc::SYS_recvfrom,
    libc::SYS_ppoll,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_poll,
    // Time, where the vDSO has no answer, and waiting.
    libc::SYS_clock_gettime,
    libc::SYS_clock_nanosleep,
    libc::SYS_nanosleep,
    libc::SYS_futex,
    libc::SYS_sched_yield,
    libc::SYS_restart_syscall,
    // The allocator, when the thread begins and ends.
    libc::SYS_brk,
    libc::SYS_mmap,
    libc::SYS_munmap,
    libc::SYS_mremap,
    libc::SYS_mprotect,
    libc::SYS_madvise,
    libc::SYS_getrandom,
    // The last message of a thread that panics, and its end.
    libc::SYS_write,
    libc::SYS_writev,
    libc::SYS_close,
    libc::SYS_gettid,
    libc::SYS_getpid,
    libc::SYS_tgkill,
    libc::SYS_rt_sigaction,
    libc::SYS_rt_sigprocmask,
    libc::SYS_rt_sigreturn,
    libc::SYS_sigaltstack,
    libc::SYS_set_robust_list,
    libc::SYS_rseq,
    libc::SYS_exit,
    libc::SYS_exit_group,
];

/// What nobody in weir has a reason to call after the start. Of bpf(2) all but reading a map is forbidden as well.
const FORBIDDEN: &[i64] = &[
    // Other programs, other processes.
    libc::SYS_execve,
    libc::SYS_execveat,
    libc::SYS_ptrace,
    libc::SYS_process_vm_readv,
    libc::SYS_process_vm_writev,
    libc::SYS_pidfd_getfd,
    libc::SYS_process_madvise,
    libc::SYS_kcmp,
    // Namespaces, mounts, roots.
    libc::SYS_unshare,
    libc::SYS_setns,
    libc::SYS_mount,
    libc::SYS_umount2,
    libc::SYS_move_mount,
    libc::SYS_open_tree,
    libc::SYS_fsopen,
    libc::SYS_fsconfig,
    libc::SYS_fsmount,
    libc::SYS_fspick,
    libc::SYS_mount_setattr,
    libc::SYS_pivot_root,
    libc::SYS_chroot,
    libc::SYS_mknodat,
    libc::SYS_open_by_handle_at,
    libc::SYS_fanotify_init,
    libc::SYS_quotactl,
    libc::SYS_swapon,
    libc::SYS_swapoff,
    libc::SYS_acct,
    // The kernel, its modules, keys and clock.
    libc::SYS_kexec_load,
    libc::SYS_kexec_file_load,
    libc::SYS_init_module,
    libc::SYS_finit_module,
    libc::SYS_delete_module,
    libc::SYS_reboot,
    libc::SYS_syslog,
    libc::SYS_add_key,
    libc::SYS_request_key,
    libc::SYS_keyctl,
    libc::SYS_settimeofday,
    libc::SYS_clock_settime,
    libc::SYS_adjtimex,
    libc::SYS_clock_adjtime,
    libc::SYS_sethostname,
    libc::SYS_setdomainname,
    libc::SYS_perf_event_open,
    libc::SYS_userfaultfd,
    libc::SYS_io_uring_setup,
    libc::SYS_personality,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_iopl,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_ioperm,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_modify_ldt,
    // Being somebody else.
    libc::SYS_setuid,
    libc::SYS_setgid,
    libc::SYS_setreuid,
    libc::SYS_setregid,
    libc::SYS_setresuid,
    libc::SYS_setresgid,
    libc::SYS_setfsuid,
    libc::SYS_setfsgid,
    libc::SYS_setgroups,
];

/// Command of bpf(2) that reads an element of a map: what the XDP program has counted.
const BPF_MAP_LOOKUP_ELEM: u64 = 1;

/// Why privileges could not be given up.
#[derive(Debug, thiserror::Error)]
pub enum PrivilegeError {
    /// The capability sets cannot be read or set.
    #[error("capabilities: {0}")]
    Capabilities(#[from] caps::errors::CapsError),
    /// The kernel takes no filter, or this machine has another architecture than those known here.
    #[error("seccomp: {0}")]
    Filter(String),
}

/// To be called on a worker's thread before it turns: no capability, and only the calls of `WORKER`.
///
/// # Errors
/// See [`PrivilegeError`]; the thread then has what it had.
pub fn confine_worker() -> Result<(), PrivilegeError> {
    let program = worker_filter()?;
    keep(&HashSet::new(), &HashSet::new())?;
    install(&program)
}

/// To be called on the main thread after the start, before it makes other threads.
///
/// # Errors
/// See [`PrivilegeError`]; the thread then has what it had, or has lost its capabilities only.
pub fn confine_control() -> Result<(), PrivilegeError> {
    let program = control_filter()?;
    let permitted = caps::read(None, CapSet::Permitted)?;
    let mut wanted = HashSet::from([Capability::CAP_NET_ADMIN]);
    let mut effective = HashSet::new();
    if kernel_reads_maps_with_capability() {
        wanted.insert(Capability::CAP_BPF);
        effective.insert(Capability::CAP_BPF);
    }
    wanted.retain(|capability| permitted.contains(capability));
    effective.retain(|capability| permitted.contains(capability));
    keep(&wanted, &effective)?;
    install(&program)
}

/// To be called on the main thread before it puts the interfaces back. Without the capability that fails later, and says so.
pub fn raise_for_stop() {
    if caps::has_cap(None, CapSet::Permitted, Capability::CAP_NET_ADMIN).unwrap_or(false) {
        // It is permitted, so the kernel has no reason to refuse.
        let _raised = caps::raise(None, CapSet::Effective, Capability::CAP_NET_ADMIN);
    }
}

/// Ambient and inheritable go first: none of them may be without being permitted.
fn keep(permitted: &HashSet<Capability>, effective: &HashSet<Capability>) -> Result<(), PrivilegeError> {
    caps::clear(None, CapSet::Ambient)?;
    caps::clear(None, CapSet::Inheritable)?;
    caps::set(None, CapSet::Effective, effective)?;
    caps::set(None, CapSet::Permitted, permitted)?;
    Ok(())
}

/// Sets `no_new_privs` and the filter, for this thread and those that it will make.
fn install(program: &BpfProgram) -> Result<(), PrivilegeError> {
    seccompiler::apply_filter(program).map_err(filter_error)
}

fn worker_filter() -> Result<BpfProgram, PrivilegeError> {
    let allowed = WORKER.iter().map(|&call| (call, Vec::new())).collect();
    compile(allowed, refuse(), SeccompAction::Allow)
}

fn control_filter() -> Result<BpfProgram, PrivilegeError> {
    let mut forbidden: BTreeMap<i64, Vec<SeccompRule>> = FORBIDDEN.iter().map(|&call| (call, Vec::new())).collect();
    let command = SeccompCondition::new(0, SeccompCmpArgLen::Dword, SeccompCmpOp::Ne, BPF_MAP_LOOKUP_ELEM);
    let rule = command
        .and_then(|command| SeccompRule::new(vec![command]))
        .map_err(filter_error)?;
    forbidden.insert(libc::SYS_bpf, vec![rule]);
    compile(forbidden, SeccompAction::Allow, refuse())
}

fn compile(
    calls: BTreeMap<i64, Vec<SeccompRule>>,
    others: SeccompAction,
    those: SeccompAction,
) -> Result<BpfProgram, PrivilegeError> {
    let architecture = TargetArch::try_from(std::env::consts::ARCH).map_err(filter_error)?;
    let filter = SeccompFilter::new(calls, others, those, architecture).map_err(filter_error)?;
    filter.try_into().map_err(filter_error)
}

fn refuse() -> SeccompAction {
    SeccompAction::Errno(libc::EPERM as u32)
}

fn filter_error(error: impl std::fmt::Display) -> PrivilegeError {
    PrivilegeError::Filter(error.to_string())
}

/// Since 6.0 whoever holds the descriptor of a map may read it.
fn kernel_reads_maps_with_capability() -> bool {
    let release = nix::sys::utsname::uname().map(|name| name.release().to_string_lossy().into_owned());
    let release = release.unwrap_or_default();
    let major = release.split('.').next().and_then(|major| major.parse::<u32>().ok());
    major.is_none_or(|major| major < 6)
}

#[cfg(test)]
mod tests {
    use std::io::ErrorKind;
    use std::process::Command;

    use nix::sched::{CloneFlags, unshare};

    use super::*;

    /// What a thread may do is its own, so the test's other threads keep what they have.
    fn on_a_thread(test: impl FnOnce() + Send + 'static) {
        std::thread::spawn(test).join().expect("the thread's checks hold");
    }

    fn status_of_this_thread(key: &str) -> String {
        let status = std::fs::read_to_string("/proc/thread-self/status").expect("proc is mounted");
        let line = status
            .lines()
            .find(|line| line.starts_with(key))
            .expect("the kernel tells");
        line[key.len()..].trim().to_owned()
    }

    #[test]
    fn the_control_side_starts_nothing_and_enters_nothing() {
        on_a_thread(|| {
            assert_eq!(
                std::fs::read("/proc/version").map(|text| text.is_empty()).ok(),
                Some(false)
            );
            confine_control().expect("this kernel has seccomp");
            assert_eq!(status_of_this_thread("Seccomp:"), "2");
            assert_eq!(status_of_this_thread("NoNewPrivs:"), "1");
            assert_eq!(status_of_this_thread("CapAmb:"), "0000000000000000");
            let started = Command::new("/bin/true").status();
            assert_eq!(started.map_err(|error| error.kind()), Err(ErrorKind::PermissionDenied));
            assert_eq!(unshare(CloneFlags::CLONE_NEWUSER), Err(nix::Error::EPERM));
            // Files, sockets, threads go on.
            let socket = std::os::unix::net::UnixDatagram::pair();
            assert!(socket.is_ok() && std::fs::read("/proc/version").is_ok());
            std::thread::spawn(|| assert_eq!(status_of_this_thread("Seccomp:"), "2"))
                .join()
                .expect("it inherits the filter");
        });
    }

    #[test]
    fn a_worker_opens_nothing() {
        on_a_thread(|| {
            let (mut sender, receiver) = (std::os::unix::net::UnixStream::pair().expect("a pair"), [0u8; 1]);
            confine_worker().expect("this kernel has seccomp");
            let opened = std::fs::File::open("/proc/version");
            assert_eq!(
                opened.map_err(|error| error.kind()).err(),
                Some(ErrorKind::PermissionDenied)
            );
            let connected = std::net::UdpSocket::bind("127.0.0.1:0");
            assert_eq!(
                connected.map_err(|error| error.kind()).err(),
                Some(ErrorKind::PermissionDenied)
            );
            // Sending, waiting and memory go on.
            std::io::Write::write_all(&mut sender.0, &receiver).expect("an open socket is written to");
            std::thread::sleep(std::time::Duration::from_millis(1));
            assert_eq!(
                vec![1u8; 8 << 20].iter().map(|&byte| u64::from(byte)).sum::<u64>(),
                8 << 20
            );
        });
    }
}

//! The XDP program and the kernel: what it takes to load it. Needs root; without it the test says so and ends.

use std::io::Write;
use std::process::Command;

use dataplane::port::{OnStall, Program, STALE_AFTER};

/// Set in the child that has given up all other capabilities.
const CHILD: &str = "WEIR_TEST_FEW_CAPABILITIES";

#[test]
fn the_program_loads_without_perfmon() {
    if std::env::var_os(CHILD).is_some() {
        Program::load(OnStall::Open, STALE_AFTER).map(drop).unwrap();
        return;
    }
    if !nix::unistd::geteuid().is_root() {
        let _ = writeln!(
            std::io::stderr(),
            "SKIPPED (needs root): the_program_loads_without_perfmon"
        );
        return;
    }
    // The bounding set limits what root's next program may do: these are the capabilities that OPERATING.md names.
    let status = Command::new("setpriv")
        .args(["--bounding-set", "-all,+net_raw,+net_admin,+bpf,+ipc_lock"])
        .arg(std::env::current_exe().unwrap())
        .args(["--exact", "the_program_loads_without_perfmon"])
        .env(CHILD, "1")
        .status();
    assert!(status.unwrap().success());
}

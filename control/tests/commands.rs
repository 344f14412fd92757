//! The command line where no appliance runs: what it leaves alone, and what it says.

mod common;

use std::path::Path;
use std::process::{Command, Output, Stdio};

use common::Scratch;

fn weir(arguments: &[&str]) -> Output {
    let output = Command::new(env!("CARGO_BIN_EXE_weir")).args(arguments).output();
    output.expect("weir runs")
}

fn text(path: &Path) -> &str {
    path.to_str().expect("text")
}

#[test]
fn a_capture_that_does_not_begin_leaves_the_file_of_an_earlier_one() {
    let scratch = Scratch::new("capture");
    let file = scratch.file("incident.pcapng");
    std::fs::write(&file, "packets").unwrap();
    let socket = scratch.file("control.sock");
    let done = weir(&["capture", "-w", text(&file), "--socket", text(&socket)]);
    assert_eq!(done.status.code(), Some(1), "{done:?}");
    assert_eq!(std::fs::read(&file).unwrap(), b"packets");
}

#[test]
fn a_socket_that_cannot_be_opened_is_not_an_appliance_that_does_not_run() {
    let scratch = Scratch::new("explain");
    let file = scratch.file("no-directory");
    std::fs::write(&file, "").unwrap();
    let socket = file.join("control.sock");
    let done = weir(&["explain", "10.1.2.3", "198.51.100.1", "--socket", text(&socket)]);
    let said = String::from_utf8_lossy(&done.stderr).into_owned();
    assert_eq!(done.status.code(), Some(1), "{said}");
    assert!(
        said.contains("Not a directory") && said.contains("--config FILE"),
        "{said}"
    );
}

#[test]
fn a_reader_that_has_gone_is_no_panic() {
    let example = concat!(env!("CARGO_MANIFEST_DIR"), "/../config/examples/minimal/weir.toml");
    let mut child = Command::new(env!("CARGO_BIN_EXE_weir"))
        .args(["check", "--config", example])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("weir runs");
    // Long before it has read its configuration.
    drop(child.stdout.take());
    let done = child.wait_with_output().expect("it ends");
    let said = String::from_utf8_lossy(&done.stderr).into_owned();
    assert!(done.status.code() < Some(2) && !said.contains("panicked"), "{said}");
}

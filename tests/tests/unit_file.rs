//! `weir.service`, held against systemd's own judgement. Skipped loudly where systemd is not installed.

use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use weir_tests::gateway::text;

/// The exposure level that `systemd-analyze security` may give at most, in tenths, and as docs/INSTALL.md says it.
const EXPOSURE: (&str, &str) = ("18", "1.8");

fn repository() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

fn analyze(arguments: &[&str], unit: &Path) -> Option<Output> {
    let output = Command::new("systemd-analyze").args(arguments).arg(unit).output();
    if output.is_err() {
        let _written = writeln!(std::io::stderr(), "SKIPPED (needs systemd-analyze): {arguments:?}");
    }
    output.ok()
}

#[test]
fn it_exposes_no_more_than_the_documents_say() {
    let unit = repository().join("packaging/systemd/weir.service");
    let threshold = format!("--threshold={}", EXPOSURE.0);
    let Some(output) = analyze(&["security", "--offline=yes", &threshold], &unit) else {
        return;
    };
    assert!(output.status.success(), "{}", text(&output));
    let documents = std::fs::read_to_string(repository().join("docs/INSTALL.md")).unwrap();
    assert!(documents.contains(&format!("Overall exposure level for weir.service: {}", EXPOSURE.1)));
}

#[test]
fn systemd_understands_every_line() {
    let scratch = tempfile::tempdir().unwrap();
    let unit = scratch.path().join("weir.service");
    let source = std::fs::read_to_string(repository().join("packaging/systemd/weir.service")).unwrap();
    // The program that it names need not be installed here, nor its page.
    let source = source.replace("/usr/bin/weir", "/bin/true").replace("man:weir(1) ", "");
    std::fs::write(&unit, source).unwrap();
    let Some(output) = analyze(&["verify", "--man=no"], &unit) else {
        return;
    };
    let said = text(&output);
    // What systemd before 253 does not know, and the line before it stands in for.
    let complaints = said.lines().filter(|line| !line.contains("ignoring: notify-reload"));
    let complaints: Vec<&str> = complaints.filter(|line| line.contains("weir.service")).collect();
    assert!(complaints.is_empty(), "{complaints:?}");
}

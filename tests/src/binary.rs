//! Finds the `weir` binary for tests that run it as an operator would.

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

/// Path of the `weir` binary, built at the first call, in the same target directory and profile as the calling test.
///
/// `CARGO_BIN_EXE_weir` exists only for tests of the package that owns the binary, so the binary is built here by
/// `cargo build -p weir --bin weir`; cargo holds no lock on the target directory while tests run. The target directory
/// and the profile are read from the place the test itself lies in (`TARGET/PROFILE/deps/test`), which respects
/// `CARGO_TARGET_DIR` and `--release` without being told. `WEIR_BINARY` in the environment names a ready binary instead,
/// for machines that have no toolchain.
///
/// # Panics
///
/// When the build fails: no test that asked for the binary can go on.
pub fn weir_binary() -> &'static Path {
    static BINARY: OnceLock<PathBuf> = OnceLock::new();
    BINARY.get_or_init(|| std::env::var_os("WEIR_BINARY").map_or_else(build, PathBuf::from))
}

fn build() -> PathBuf {
    let test = std::env::current_exe().expect("the path of the running test");
    let profile_directory = test
        .parent()
        .and_then(Path::parent)
        .expect("a test lies in TARGET/PROFILE/deps");
    let target_directory = profile_directory
        .parent()
        .expect("a profile lies in the target directory");
    let profile = match profile_directory.file_name().and_then(|name| name.to_str()) {
        Some("debug") | None => "dev",
        Some(name) => name,
    };
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| OsString::from("cargo"));
    let status = Command::new(cargo)
        .args([
            "build",
            "--quiet",
            "--package",
            "weir",
            "--bin",
            "weir",
            "--profile",
            profile,
            "--target-dir",
        ])
        .arg(target_directory)
        .current_dir(env!("CARGO_MANIFEST_DIR"))
        .status()
        .expect("cargo runs");
    assert!(status.success(), "building the weir binary failed: {status}");
    profile_directory.join("weir")
}

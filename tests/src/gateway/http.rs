//! The HTTP side of a gateway, asked by curl from the gateway's namespace.

use std::fs;
use std::os::unix::fs::PermissionsExt;

use pktgen::lab::links;

use super::{Config, Gateway, command, text};

/// What TCP clients show.
pub const TOKEN: &str = "0123456789abcdef0123456789abcdef";
/// Where weir listens in the gateway's namespace.
pub const ADDRESS: &str = "127.0.0.1:9469";

/// The configuration with TCP and a token, in the file `api.token` of the gateway's directory.
///
/// # Panics
///
/// When loopback does not go up, or the disk is full.
#[must_use]
pub fn with_tcp(gateway: &Gateway, config: Config) -> Config {
    gateway.gw.try_run(|| links::set_up("lo")).expect("loopback goes up");
    let token = gateway.directory.path().join("api.token");
    fs::write(&token, format!("{TOKEN}\n")).expect("a file");
    fs::set_permissions(&token, fs::Permissions::from_mode(0o600)).expect("permissions");
    let api = format!("[api]\nlisten = \"{ADDRESS}\"\ntoken_file = \"{}\"\n", token.display());
    Config {
        control: Box::leak(api.into_boxed_str()),
        ..config
    }
}

/// What curl gets for a path on the Unix socket: status and body.
///
/// # Panics
///
/// When curl fails, or an answer is JSON and does not say so.
#[must_use]
pub fn get(gateway: &Gateway, arguments: &[&str], path: &str) -> (u32, String) {
    let socket = gateway.directory.path().join("api.sock").display().to_string();
    let arguments = [&["--unix-socket", &socket], arguments].concat();
    curl(gateway, &arguments, &format!("http://weir{path}"))
}

/// The same over TCP.
///
/// # Panics
///
/// When curl fails, or an answer is JSON and does not say so.
#[must_use]
pub fn get_tcp(gateway: &Gateway, arguments: &[&str], path: &str) -> (u32, String) {
    curl(gateway, arguments, &format!("http://{ADDRESS}{path}"))
}

fn curl(gateway: &Gateway, arguments: &[&str], url: &str) -> (u32, String) {
    let fixed = ["curl", "-sS", "-m", "10", "-w", "\n%{content_type}\n%{http_code}"];
    let output = command(&gateway.gw, &[&fixed, arguments, &[url]].concat());
    assert!(output.status.success(), "curl {url}: {}", text(&output));
    let all = String::from_utf8_lossy(&output.stdout).into_owned();
    let (rest, status) = all.rsplit_once('\n').expect("a status");
    let (body, content_type) = rest.rsplit_once('\n').expect("a media type");
    if !body.starts_with('#') {
        assert_eq!(content_type, "application/json", "{url}");
    }
    (status.parse().expect("a number"), body.to_owned())
}

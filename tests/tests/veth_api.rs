//! The HTTP side of a running gateway: metrics, health, the read-only API. Needs root; curl, promtool and prometheus.

use std::path::PathBuf;
use std::process::Output;

use serde_json::Value;
use weir_tests::gateway::{Config, Gateway, Layout, Weir, command, contract, text};

fn config() -> Config {
    Config {
        contracts: contract("web", "\"10.0.0.0/24\"", "best-effort", "egress", "10 Mbit/s", "100 kB"),
        ..Config::default()
    }
}

fn socket(gateway: &Gateway) -> PathBuf {
    gateway.directory.path().join("api.sock")
}

/// What curl gets for a path on the Unix socket: status and body.
fn get(gateway: &Gateway, arguments: &[&str], path: &str) -> (u32, String) {
    let socket = socket(gateway).display().to_string();
    let url = format!("http://weir{path}");
    let mut line = vec![
        "curl",
        "-sS",
        "-m",
        "10",
        "-w",
        "\n%{http_code}",
        "--unix-socket",
        &socket,
    ];
    line.extend(arguments);
    line.push(&url);
    answer(&command(&gateway.gw, &line))
}

fn answer(output: &Output) -> (u32, String) {
    assert!(output.status.success(), "curl: {}", text(output));
    let all = String::from_utf8_lossy(&output.stdout).into_owned();
    let (body, status) = all.rsplit_once('\n').expect("a status");
    (status.parse().expect("a number"), body.to_owned())
}

fn json(gateway: &Gateway, path: &str) -> Value {
    let (status, body) = get(gateway, &[], path);
    assert_eq!(status, 200, "{path}: {body}");
    serde_json::from_str(&body).unwrap_or_else(|error| panic!("{path}: {error}: {body}"))
}

#[test]
fn a_gateway_answers_over_http() {
    let Some(gateway) = Gateway::build(Layout::default()) else {
        return;
    };
    let weir = gateway.start(&config());
    gateway.warm();
    for path in ["/livez", "/readyz"] {
        let health = json(&gateway, path);
        assert_eq!(health["ok"], true, "{health}");
    }
    let (_, metrics) = get(&gateway, &[], "/metrics");
    println!("{metrics}");
    for path in ["status", "contracts", "ports", "workers", "history", "events"] {
        println!("{path}: {}", json(&gateway, &format!("/api/v1/{path}")));
    }
    let _: &Weir = &weir;
}

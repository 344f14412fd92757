//! `weir doctor` and `weir support-bundle` beside a real gateway. Needs root.

use std::os::unix::fs::PermissionsExt;
use std::process::Output;

use nix::sys::signal::Signal;
use pktgen::lab::links;
use serde_json::Value;
use weir_tests::gateway::{Config, Gateway, Layout, UPLINK, Weir, address, command, contract, succeed, text};

fn config() -> Config {
    Config {
        contracts: contract("web", "\"10.0.0.0/24\"", "gold", "egress", "10 Mbit/s", "100 kB"),
        ..Config::default()
    }
}

/// Runs `weir` in the gateway's namespace, against its configuration and socket.
fn weir(gateway: &Gateway, arguments: &[&str]) -> Output {
    let path = |name: &str| {
        gateway
            .directory
            .path()
            .join(name)
            .to_str()
            .expect("plain letters")
            .to_owned()
    };
    let (binary, config, socket) = (weir_tests::weir_binary(), path("weir.toml"), path("control.sock"));
    let mut line = vec![binary.to_str().expect("plain letters")];
    line.extend(arguments);
    line.extend(["--config", &config, "--socket", &socket]);
    command(&gateway.gw, &line)
}

fn doctor(gateway: &Gateway) -> (Value, i32) {
    let output = weir(gateway, &["doctor", "--json"]);
    let findings = serde_json::from_slice(&output.stdout).unwrap_or_else(|error| panic!("{error}: {}", text(&output)));
    (findings, output.status.code().unwrap())
}

/// Level and finding of a check.
fn of(findings: &Value, about: &str, check: &str) -> (String, String) {
    let all = findings["findings"].as_array().unwrap();
    let found = all
        .iter()
        .find(|finding| finding["about"] == about && finding["check"] == check);
    let found = found.unwrap_or_else(|| panic!("no {check} of {about} in {findings:#}"));
    let text = |key: &str| found[key].as_str().unwrap().to_owned();
    (text("level"), text("found"))
}

#[test]
fn doctor_sees_what_is_wrong_with_real_interfaces() {
    let Some(gateway) = Gateway::build(Layout { mtu: 1500, queues: 2 }) else {
        return;
    };
    gateway.write(&config());
    let (findings, _) = doctor(&gateway);
    assert_eq!(of(&findings, "port lan", "driver").0, "note", "veth has no zero-copy");
    assert!(of(&findings, "port lan", "driver").1.contains("veth"));
    assert!(of(&findings, "wire lan - uplink", "queues").1.starts_with("2 and 2"));
    assert_eq!(of(&findings, "port lan", "xdp_program").1, "none");
    assert_eq!(of(&findings, "system", "appliance").0, "note");
    assert!(of(&findings, "port lan", "offloads").1.contains("rxvlan on"));

    // Faults that the configuration cannot show.
    address(&gateway.gw, UPLINK, "192.0.2.1", 24);
    let _set = succeed(&gateway.gw, &["ip", "link", "set", UPLINK, "mtu", "1400"]);
    let _set = succeed(&gateway.gw, &["ethtool", "-L", UPLINK, "rx", "1"]);
    let (findings, status) = doctor(&gateway);
    assert_eq!(status, 1);
    assert_eq!(of(&findings, "wire lan - uplink", "queues").0, "error");
    assert_eq!(of(&findings, "wire lan - uplink", "mtu").0, "warning");
    assert!(of(&findings, "port uplink", "addresses").1.contains("192.0.2.1"));
    let _set = succeed(&gateway.gw, &["ethtool", "-L", UPLINK, "rx", "2"]);

    // Beside a running appliance it disturbs nothing, and knows that the program is its own.
    let mut running = gateway.start(&config());
    let (findings, _) = doctor(&gateway);
    assert_eq!(of(&findings, "system", "appliance").0, "ok");
    let program = of(&findings, "port lan", "xdp_program");
    assert!(program.0 == "ok" && program.1.contains("is attached"), "{program:?}");
    let said = text(&weir(&gateway, &["doctor"]));
    assert!(said.lines().all(|line| line.chars().count() <= 100), "{said}");
    assert!(
        said.contains("help: ip link set lan mtu 1400; ip link set uplink mtu 1400"),
        "{said}"
    );
    running.signal(Signal::SIGKILL);
    let _ended = running.wait();
    let (findings, _) = doctor(&gateway);
    let leftover = of(&findings, "system", "appliance").1;
    assert!(leftover.contains("its socket"), "{leftover}");
    assert_eq!(
        of(&findings, "port lan", "xdp_program").1,
        "none",
        "it goes with its process"
    );

    // Somebody else's bridge.
    gateway.gw.try_run(|| links::ensure_bridge("br0", &[UPLINK])).unwrap();
    let (findings, _) = doctor(&gateway);
    assert_eq!(of(&findings, "port uplink", "bridge").0, "warning");
}

fn unpack(gateway: &Gateway, file: &str) -> (String, String) {
    let here = gateway.directory.path().join("unpacked");
    std::fs::create_dir_all(&here).unwrap();
    let list = succeed(&gateway.gw, &["tar", "tzf", file]);
    let _out = succeed(&gateway.gw, &["tar", "xzf", file, "-C", here.to_str().unwrap()]);
    let everything = succeed(&gateway.gw, &["grep", "-r", "", here.to_str().unwrap()]);
    (list, everything)
}

#[test]
fn a_bundle_has_all_there_is_and_no_secret() {
    let Some(gateway) = Gateway::build(Layout::default()) else {
        return;
    };
    let running: Weir = gateway.start(&config());
    // Secrets where careless people leave them.
    let base = gateway.directory.path().join("weir.toml");
    let mut text_of_base = std::fs::read_to_string(&base).unwrap();
    text_of_base += "# token = \"planted-in-comment\"\n[api]\ntoken = \"hunter2hunter2\"\npassword = 'planted-two'\n\
                     secrets = [\n\"planted-three\",\n]\nurl = \"https://me:planted-four@example.net/\"\n";
    std::fs::write(&base, text_of_base).unwrap();
    let file = gateway.directory.path().join("bundle.tar.gz");
    let file = file.to_str().unwrap();
    let made = weir(&gateway, &["support-bundle", "-o", file]);
    assert!(made.status.success(), "{}", text(&made));
    let mode = std::fs::metadata(file).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    let (list, everything) = unpack(&gateway, file);
    for part in [
        "config/weir.toml",
        "config/contracts.d/test.toml",
        "config/check.txt",
        "status.json",
        "status.txt",
        "history.json",
        "doctor.json",
        "version.txt",
        "metrics.txt",
        "machine/interrupts",
        "MANIFEST.json",
        "README.txt",
    ] {
        assert!(
            list.lines().any(|line| line == format!("weir-support/{part}")),
            "no {part} in {list}"
        );
    }
    for secret in ["planted-", "hunter2"] {
        assert!(!everything.contains(secret), "{secret} is in the bundle");
    }
    assert!(everything.contains("weir_build_info{") && everything.contains("region = \"atn\""));
    let status = std::fs::read(gateway.directory.path().join("unpacked/weir-support/status.json")).unwrap();
    let status: Value = serde_json::from_slice(&status).unwrap();
    assert_eq!(status["contracts"][0]["service"], "web");
    running.stop();

    // Without an appliance it is made all the same, and says what it lacks. What is there is not written over.
    let again = weir(&gateway, &["support-bundle", "-o", file]);
    assert!(
        again.status.code() == Some(1) && text(&again).contains("File exists"),
        "{}",
        text(&again)
    );
    let other = gateway.directory.path().join("other.tar.gz");
    let made = weir(&gateway, &["support-bundle", "-o", other.to_str().unwrap()]);
    assert!(
        made.status.success() && text(&made).contains("without status.json"),
        "{}",
        text(&made)
    );
    let full = weir(&gateway, &["support-bundle", "-o", "/nonexistent/x.tar.gz"]);
    assert!(
        full.status.code() == Some(1) && text(&full).contains("cannot write /nonexistent/x.tar.gz"),
        "{}",
        text(&full)
    );
}

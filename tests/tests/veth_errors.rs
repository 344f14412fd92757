//! What weir says when it cannot start or go on: the reason, the remedy, the exit status, and the machine as it was
//! found. Needs root, to have it fail for other reasons than that.

use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::process::Command;

use pktgen::lab::links;
use weir_tests::gateway::{Config, Ended, Gateway, LAN, Layout, UPLINK, Weir, succeed, text};
use weir_tests::weir_binary;

/// It must end by itself with this status and say all of this.
fn check(ended: &Ended, status: i32, expected: &[&str]) {
    assert_eq!(ended.status.code(), Some(status), "{}", ended.log);
    for part in expected {
        assert!(ended.log.contains(part), "no {part:?} in: {}", ended.log);
    }
    assert!(!ended.log.contains("panicked"), "{}", ended.log);
}

#[test]
fn an_interface_that_does_not_exist() {
    let Some(gateway) = Gateway::build(Layout::default()) else {
        return;
    };
    gateway.write(&Config::default());
    let base = Config::default()
        .base()
        .replace("interface = \"uplink\"", "interface = \"eth77\"");
    std::fs::write(gateway.directory.path().join("weir.toml"), base).unwrap();
    let mut weir = Weir::launch(&gateway.gw, gateway.directory.path(), &[LAN, UPLINK]);
    check(
        &weir.wait(),
        1,
        &["interface `eth77` does not exist", "help: see `ip link`"],
    );
    weir.check_left_as_found();
}

#[test]
fn an_interface_that_another_weir_serves() {
    let Some(gateway) = Gateway::build(Layout::default()) else {
        return;
    };
    let first = gateway.start(&Config::default());
    gateway.warm();
    let other = gateway.directory.path().join("other.sock");
    let mut second = Weir::launch_as(&gateway.gw, gateway.directory.path(), &other, &[LAN, UPLINK], &[]);
    check(&second.wait(), 1, &["lan", "help: ", "another"]);
    second.check_left_as_found();
    gateway.warm();
    // The same with the first one's control socket, which must go on answering.
    let mut third = Weir::launch(&gateway.gw, gateway.directory.path(), &[LAN, UPLINK]);
    check(&third.wait(), 1, &["another"]);
    gateway.warm();
    first.stop();
}

#[test]
fn an_interface_with_somebody_elses_xdp_program() {
    let Some(gateway) = Gateway::build(Layout::default()) else {
        return;
    };
    let object = Path::new(env!("CARGO_MANIFEST_DIR")).join("../dataplane/xdp/weir.bpf.o");
    let attach = [
        "ip",
        "link",
        "set",
        "dev",
        UPLINK,
        "xdp",
        "obj",
        object.to_str().unwrap(),
        "sec",
        "xdp",
    ];
    let _attached = succeed(&gateway.gw, &attach);
    let mut weir = gateway.launch(&Config::default());
    check(
        &weir.wait(),
        1,
        &["uplink", "another XDP program is attached", "xdp off"],
    );
    weir.check_left_as_found();
    drop(weir);
    let _off = succeed(&gateway.gw, &["ip", "link", "set", "dev", UPLINK, "xdp", "off"]);
    let weir = gateway.start(&Config::default());
    gateway.warm();
    weir.stop();
}

#[test]
fn a_packet_size_that_fits_no_frame() {
    let layout = Layout {
        mtu: 9000,
        ..Layout::default()
    };
    let Some(gateway) = Gateway::build(layout) else { return };
    let mut weir = gateway.launch(&Config::default());
    check(&weir.wait(), 1, &["MTU 9000", "help: `ip link set dev", "mtu 3818"]);
    weir.check_left_as_found();
}

#[test]
fn without_root() {
    let Some(gateway) = Gateway::build(Layout::default()) else {
        return;
    };
    gateway.write(&Config::default());
    open_to_all(gateway.directory.path());
    // The binary lies where not everybody may go.
    let copy = gateway.directory.path().join("weir");
    std::fs::copy(weir_binary(), &copy).unwrap();
    let base = gateway.directory.path().join("weir.toml");
    let socket = gateway.directory.path().join("nobody.sock");
    let mut command = Command::new("setpriv");
    command
        .args(["--reuid", "65534", "--regid", "65534", "--clear-groups"])
        .arg(&copy);
    command.arg("run").arg("--config").arg(base).arg("--socket").arg(socket);
    let output = gateway.gw.run(|| command.output()).unwrap().unwrap();
    assert_eq!(output.status.code(), Some(1), "{}", text(&output));
    assert!(
        text(&output).contains("root") && text(&output).contains("CAP_NET_ADMIN"),
        "{}",
        text(&output)
    );
}

#[test]
fn an_interface_that_is_deleted_while_it_runs() {
    let Some(gateway) = Gateway::build(Layout::default()) else {
        return;
    };
    let mut weir = gateway.start(&Config::default());
    gateway.warm();
    gateway.gw.try_run(|| links::delete(UPLINK)).unwrap();
    check(&weir.wait(), 3, &["interface `uplink` has vanished"]);
}

#[test]
fn a_control_socket_that_cannot_be_made() {
    let Some(gateway) = Gateway::build(Layout::default()) else {
        return;
    };
    gateway.write(&Config::default());
    let socket = gateway.directory.path().join("weir.toml").join("control.sock");
    let mut weir = Weir::launch_as(&gateway.gw, gateway.directory.path(), &socket, &[LAN, UPLINK], &[]);
    check(&weir.wait(), 1, &["control socket", "weir.toml/control.sock"]);
    weir.check_left_as_found();
}

#[test]
fn a_configuration_that_is_missing() {
    let Some(gateway) = Gateway::build(Layout::default()) else {
        return;
    };
    let mut weir = Weir::launch(&gateway.gw, gateway.directory.path(), &[LAN, UPLINK]);
    check(&weir.wait(), 2, &["weir.toml"]);
    weir.check_left_as_found();
}

#[test]
fn ports_of_a_wire_that_differ_in_queues() {
    let layout = Layout {
        queues: 2,
        ..Layout::default()
    };
    let Some(gateway) = Gateway::build(layout) else { return };
    let _set = succeed(&gateway.gw, &["ethtool", "-L", UPLINK, "rx", "1", "tx", "1"]);
    let mut weir = gateway.launch(&Config::default());
    check(
        &weir.wait(),
        1,
        &["`lan` has 2 queues", "`uplink` has 1", "ethtool -L lan"],
    );
    weir.check_left_as_found();
}

#[test]
fn the_status_fits_100_columns_and_says_how_packets_are_taken() {
    let Some(gateway) = Gateway::build(Layout::default()) else {
        return;
    };
    let weir = gateway.start(&Config::default());
    gateway.warm();
    let output = weir.ask(&["status"]);
    let status = text(&output);
    assert!(status.lines().all(|line| line.chars().count() <= 100), "{status}");
    for part in ["native", "copy", "veth", "lan", "uplink", "run"] {
        assert!(status.contains(part), "no {part:?} in:\n{status}");
    }
    weir.stop();
}

#[test]
fn a_status_of_nobody() {
    let directory = tempfile::tempdir().unwrap();
    let socket = directory.path().join("control.sock");
    for command in ["status", "reload"] {
        let mut weir = Command::new(weir_binary());
        weir.args([command, "--socket"]).arg(&socket);
        let output = weir.output().unwrap();
        assert_eq!(output.status.code(), Some(1), "{}", text(&output));
        assert!(
            text(&output).contains("help: is `weir run` running"),
            "{}",
            text(&output)
        );
    }
}

fn open_to_all(directory: &Path) {
    std::fs::set_permissions(directory, std::fs::Permissions::from_mode(0o777)).unwrap();
}

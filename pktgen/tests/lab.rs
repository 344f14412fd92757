//! The lab against the kernel itself. Needs root (CAP_SYS_ADMIN, CAP_NET_ADMIN); without it every test is skipped and
//! says so.

mod common;

use std::io::{BufRead, BufReader};
use std::net::IpAddr;
use std::process::{Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use pktgen::lab::{Namespace, VethEnd, links};

use common::skipped;

fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

/// A veth pair between two new namespaces, both ends up, with addresses of both families.
fn two_hosts() -> (Namespace, Namespace) {
    let (a, b) = (Namespace::new().unwrap(), Namespace::new().unwrap());
    let left = VethEnd {
        mac: Some([2, 0, 0, 0, 0, 1]),
        ..VethEnd::new(&a, "left")
    };
    links::create_veth(
        &left,
        &VethEnd {
            queues: 2,
            ..VethEnd::new(&b, "right")
        },
    )
    .unwrap();
    for (namespace, name, host) in [(&a, "left", 1), (&b, "right", 2)] {
        namespace
            .try_run(|| {
                links::set_up("lo")?;
                links::add_address(name, ip(&format!("192.0.2.{host}")), 24)?;
                links::add_address(name, ip(&format!("2001:db8::{host}")), 64)?;
                links::set_up(name)
            })
            .unwrap();
    }
    (a, b)
}

fn ping(namespace: &Namespace, address: &str) -> bool {
    let mut command = Command::new("ping");
    command.args(["-c", "1", "-W", "1", address]).stdout(Stdio::null());
    namespace.spawn(&mut command).unwrap().wait().unwrap().success()
}

/// The kernel learns of a carrier, and makes routes usable, some time after a link is set up.
fn reaches(namespace: &Namespace, address: &str) {
    eventually("an answer to a ping", || ping(namespace, address));
}

fn eventually(what: &str, mut is: impl FnMut() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(10);
    while !is() {
        assert!(Instant::now() < deadline, "not within ten seconds: {what}");
        thread::sleep(Duration::from_millis(10));
    }
}

#[test]
fn two_namespaces_ping_each_other() {
    if skipped("two_namespaces_ping_each_other") {
        return;
    }
    let (a, b) = two_hosts();
    reaches(&a, "192.0.2.2");
    reaches(&b, "2001:db8::1");
    let mac = a.run(|| af_xdp::device::mac("left")).unwrap().unwrap();
    assert_eq!(mac, [2, 0, 0, 0, 0, 1]);
    let channels = b.run(|| af_xdp::device::channels("right")).unwrap().unwrap();
    assert_eq!((channels.receiving(), channels.sending()), (2, 2));
    for offload in [af_xdp::device::Offload::TxChecksum, af_xdp::device::Offload::TxVlan] {
        assert!(!a.run(|| af_xdp::device::offload("left", offload)).unwrap().unwrap());
    }
    // Another interface of that name, and one that is not there.
    let error = links::create_veth(&VethEnd::new(&a, "left"), &VethEnd::new(&b, "other")).unwrap_err();
    assert!(error.to_string().contains("there already"), "{error}");
    let error = a.try_run(|| links::set_up("nosuchlink")).unwrap_err();
    assert!(error.to_string().contains("no such interface"), "{error}");
}

#[test]
fn static_neighbours_and_routes_reach_a_far_host() {
    if skipped("static_neighbours_and_routes_reach_a_far_host") {
        return;
    }
    let (a, b) = two_hosts();
    let mac = b.run(|| af_xdp::device::mac("right")).unwrap().unwrap();
    b.try_run(|| {
        links::add_address("lo", ip("198.51.100.1"), 32)?;
        links::add_address("lo", ip("2001:db8:1::1"), 128)?;
        // The answers must not have to ask either.
        links::set_neighbour("right", ip("2001:db8::1"), [2, 0, 0, 0, 0, 1])
    })
    .unwrap();
    a.try_run(|| {
        links::set_neighbour("left", ip("192.0.2.2"), mac)?;
        links::set_neighbour("left", ip("2001:db8::2"), mac)?;
        links::set_neighbour("left", ip("2001:db8::2"), mac)?;
        links::add_route("left", ip("198.51.100.0"), 24, Some(ip("192.0.2.2")))?;
        links::add_route("left", ip("2001:db8:1::"), 48, Some(ip("2001:db8::2")))
    })
    .unwrap();
    reaches(&a, "198.51.100.1");
    reaches(&a, "2001:db8:1::1");
}

#[test]
fn a_bridge_joins_two_pairs_and_can_be_asked_for_twice() {
    if skipped("a_bridge_joins_two_pairs_and_can_be_asked_for_twice") {
        return;
    }
    let (a, middle, b) = (
        Namespace::new().unwrap(),
        Namespace::new().unwrap(),
        Namespace::new().unwrap(),
    );
    for (host, name, port, number) in [(&a, "hosta", "porta", 1), (&b, "hostb", "portb", 2)] {
        links::create_veth(&VethEnd::new(host, name), &VethEnd::new(&middle, port)).unwrap();
        host.try_run(|| {
            links::add_address(name, ip(&format!("192.0.2.{number}")), 24)?;
            links::set_up(name)
        })
        .unwrap();
    }
    let missing = middle.try_run(|| links::ensure_bridge("br0", &["porta", "missing"]));
    assert!(missing.is_err());
    assert_eq!(
        middle.try_run(links::names).unwrap(),
        ["lo", "porta", "portb"],
        "nothing is left of it"
    );
    for is_new in [true, false] {
        let made = middle.try_run(|| links::ensure_bridge("br0", &["porta", "portb"]));
        assert_eq!(made.unwrap(), is_new);
    }
    reaches(&a, "192.0.2.2");
    middle.try_run(|| links::leave_bridge("portb")).unwrap();
    assert!(!ping(&a, "192.0.2.2"));
    middle.try_run(|| links::delete("br0")).unwrap();
    assert_eq!(middle.try_run(links::names).unwrap(), ["lo", "porta", "portb"]);
}

#[test]
fn a_quiet_link_carries_nothing_by_itself() {
    if skipped("a_quiet_link_carries_nothing_by_itself") {
        return;
    }
    let (a, b) = (Namespace::new().unwrap(), Namespace::new().unwrap());
    links::create_veth(&VethEnd::new(&a, "left"), &VethEnd::new(&b, "right")).unwrap();
    a.try_run(|| links::set_up("left")).unwrap();
    b.try_run(|| links::set_up("right")).unwrap();
    // Router solicitations and multicast reports would come within the first second.
    thread::sleep(Duration::from_millis(1500));
    let output = a
        .run(|| Command::new("ip").args(["-s", "-j", "link", "show", "left"]).output())
        .unwrap()
        .unwrap();
    let links: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    let counters = &links[0]["stats64"];
    assert_eq!(
        (&counters["rx"]["packets"], &counters["tx"]["packets"]),
        (&0.into(), &0.into())
    );
}

#[test]
fn nothing_is_left_after_drop() {
    if skipped("nothing_is_left_after_drop") {
        return;
    }
    let outer = Namespace::new().unwrap();
    let inner = Namespace::new().unwrap();
    let before = named_namespaces();
    links::create_veth(&VethEnd::new(&outer, "stays"), &VethEnd::new(&inner, "goes")).unwrap();
    assert_eq!(outer.try_run(links::names).unwrap(), ["lo", "stays"]);
    drop(inner);
    eventually("the pair goes with the namespace of one end", || {
        outer.try_run(links::names).unwrap() == ["lo"]
    });
    assert_eq!(named_namespaces(), before);
    let here = links::names().unwrap();
    assert!(!here.iter().any(|name| name == "stays" || name == "goes"), "{here:?}");
}

#[test]
fn nothing_is_left_after_kill_9() {
    if skipped("nothing_is_left_after_kill_9") {
        return;
    }
    let outer = Namespace::new().unwrap();
    let before = named_namespaces();
    let mut command = Command::new(std::env::current_exe().unwrap());
    command
        .args(["--exact", "child_that_holds_a_lab", "--nocapture"])
        .env(CHILD, "1")
        .stdout(Stdio::piped());
    let mut child = outer.spawn(&mut command).unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    assert!(
        lines.any(|line| line.unwrap().contains("ready")),
        "the child built its lab"
    );
    assert_eq!(outer.try_run(links::names).unwrap(), ["lo", "uplink"]);
    child.kill().unwrap();
    child.wait().unwrap();
    eventually("the killed child's links are gone", || {
        outer.try_run(links::names).unwrap() == ["lo"]
    });
    assert_eq!(named_namespaces(), before);
}

/// Not a test by itself: the process that [`nothing_is_left_after_kill_9`] kills.
#[test]
fn child_that_holds_a_lab() {
    if std::env::var_os(CHILD).is_none() {
        return;
    }
    let (a, _b) = two_hosts();
    links::create_veth(
        &VethEnd::new(&Namespace::current().unwrap(), "uplink"),
        &VethEnd::new(&a, "downlink"),
    )
    .unwrap();
    println!("\nready");
    thread::sleep(Duration::from_secs(60));
}

#[test]
fn threads_live_inside_and_panics_come_back() {
    if skipped("threads_live_inside_and_panics_come_back") {
        return;
    }
    let (a, _b) = two_hosts();
    let thread = a.spawn_thread("inside", || links::names().unwrap()).unwrap();
    assert_eq!(thread.join().unwrap(), ["lo", "left"]);
    let result = std::panic::catch_unwind(|| a.run(|| panic!("inside")));
    assert_eq!(*result.unwrap_err().downcast::<&str>().unwrap(), "inside");
}

fn named_namespaces() -> String {
    let output = Command::new("ip").args(["netns", "list"]).output().unwrap();
    String::from_utf8(output.stdout).unwrap()
}

const CHILD: &str = "PKTGEN_LAB_CHILD";

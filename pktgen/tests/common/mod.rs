//! What the tests over veth share.
#![allow(dead_code, reason = "each test program uses a part")]

use pktgen::lab::privileged;
use pktgen::stream::{FlowOrder, Protocol, Stream};

/// Whether `test` cannot run here, which is said aloud.
pub(crate) fn skipped(test: &str) -> bool {
    match privileged() {
        Ok(()) => false,
        Err(error) => {
            eprintln!("SKIPPED {test}: {error}");
            true
        }
    }
}

/// UDP over IPv4 with DSCP 46 in 64-byte frames (60 without FCS), silent.
pub(crate) fn stream() -> Stream {
    Stream {
        id: 0,
        protocol: Protocol::Udp,
        source: "10.1.0.0/16".parse().unwrap(),
        destination: "198.51.100.0/24".parse().unwrap(),
        source_ports: 1024..=65535,
        destination_ports: 443..=443,
        dscp: 46,
        frame_bytes: vec![60],
        flows: 1000,
        flow_order: FlowOrder::Step,
        vlans: Vec::new(),
        source_mac: [2, 0, 0, 0, 0, 1],
        destination_mac: [2, 0, 0, 0, 0, 2],
        rate_bps: 0,
    }
}

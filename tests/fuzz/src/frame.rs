//! One packet for the parser. The input: a byte of how much longer the packet was on the wire than was captured, then the packet.

use std::net::IpAddr;

use control::explain::why_not_ip;
use dataplane::packet::{Family, Fragment, Headers, Parsed, parse};
use weir_tests::malformed;
use weir_tests::reference::dissect::{Dissected, IpPacket, dissect};

/// Parses, and holds the answer against the second parser.
///
/// # Panics
/// They differ, or a place lies outside the packet.
pub fn run(input: &[u8]) {
    let Some((&cut, bytes)) = input.split_first() else {
        return;
    };
    // A block of memory of just this size: whatever reads beyond the packet reads beyond the block.
    let bytes: Box<[u8]> = bytes.into();
    let wire_len = bytes.len() + usize::from(cut);
    let parsed = parse(&bytes, wire_len);
    assert_eq!(
        why_not_ip(&bytes, wire_len).is_none(),
        parsed.headers().is_some(),
        "a reason, but {parsed:?}"
    );
    match &parsed {
        Parsed::Other { l3_offset, .. } => assert!(usize::from(*l3_offset) <= bytes.len()),
        Parsed::Ip(headers) => inside(headers, &bytes, wire_len),
    }
    if cut == 0 {
        match (dissect(&bytes), &parsed) {
            (Dissected::Other { payload_bytes }, Parsed::Other { l3_offset, .. }) => {
                assert_eq!(payload_bytes, bytes.len() - usize::from(*l3_offset));
            }
            (Dissected::Ip(expected), Parsed::Ip(headers)) => same(&expected, headers),
            (expected, _) => panic!("{expected:?} is not {parsed:?}"),
        }
    }
}

fn inside(headers: &Headers, bytes: &[u8], wire_len: usize) {
    let l3 = usize::from(headers.l3_offset);
    assert!(l3 < bytes.len() && l3 + headers.l3_len as usize <= wire_len);
    if let Some(l4) = headers.l4_offset {
        assert!(usize::from(l4) > l3 && usize::from(l4) <= bytes.len());
    }
    assert!(headers.ports.is_none() || headers.l4_offset.is_some());
}

fn same(expected: &IpPacket, headers: &Headers) {
    let address = |bits: u128| match headers.family {
        Family::Ipv4 => IpAddr::V4((bits as u32).into()),
        Family::Ipv6 => IpAddr::V6(bits.into()),
    };
    assert_eq!(expected.pcp, headers.pcp.map(dataplane::packet::Pcp::get));
    assert_eq!(expected.ip_offset, usize::from(headers.l3_offset));
    assert_eq!(expected.total_bytes, headers.l3_len as usize);
    assert_eq!(expected.dscp, headers.dscp.get());
    assert_eq!(expected.source, address(headers.src));
    assert_eq!(expected.destination, address(headers.dst));
    assert_eq!(expected.protocol, headers.protocol);
    assert_eq!(expected.ports, headers.ports.map(|ports| (ports.src, ports.dst)));
    let fragment = expected.fragment.as_ref().map(|found| (found.id, found.is_first));
    let ours = match headers.fragment {
        Fragment::Whole => None,
        Fragment::First { id } => Some((id, true)),
        Fragment::Later { id } => Some((id, false)),
    };
    assert_eq!(fragment, ours);
}

/// Every kind of malformed packet, whole and cut.
#[must_use]
pub fn seeds() -> Vec<(String, Vec<u8>)> {
    let seeds = malformed::seeds().into_iter().filter(|seed| seed.bytes.len() <= 512);
    seeds
        .map(|seed| (seed.name, [&[0], &seed.bytes[..]].concat()))
        .collect()
}

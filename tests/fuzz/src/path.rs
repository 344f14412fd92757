//! A series of packets through a worker on memory ports. The input: a byte of options, then packets, each after a byte that says
//! where it comes in and how much time has passed, and two of its length, least significant first.

use std::cell::RefCell;
use std::collections::HashMap;

use dataplane::clock::Nanos;
use dataplane::stats::PathCounters;
use weir_tests::malformed;
use weir_tests::memory::{CONFIG, MemoryGateway, PACKET_MAX, Size, checked, unmarked};

/// Most packets of an input: more would only be slower.
const PACKETS_MAX: usize = 64;

thread_local! {
    /// A gateway for each combination of options, for all inputs: making one takes a hundred times as long as an input. Buckets and
    /// flow caches remember what came before, so an input that fails may not fail alone; `fuzz.sh` with the whole corpus then does.
    static GATEWAYS: RefCell<[Option<MemoryGateway>; 8]> = const { RefCell::new([const { None }; 8]) };
}

/// Sends the packets through, and looks at the books and at what left.
///
/// # Panics
/// The books do not add up, or something left that had not come, or not as it came.
pub fn run(input: &[u8]) {
    let Some((&options, rest)) = input.split_first() else {
        return;
    };
    let options = usize::from(options % 8);
    let size = Size {
        frames: 128,
        room: 128,
        batch: [1, 2, 16, 64][options / 2],
        partial_checksums: options % 2 == 1,
    };
    GATEWAYS.with_borrow_mut(|gateways| {
        let make = || MemoryGateway::new(&checked(CONFIG), size).expect("128 frames are to be had");
        send(gateways[options].get_or_insert_with(make), rest, size.partial_checksums);
    });
}

fn send(gateway: &mut MemoryGateway, mut rest: &[u8], partial_checksums: bool) {
    let before = sums(gateway);
    let mut under_way: [HashMap<Vec<u8>, u32>; 2] = Default::default();
    let (mut came, mut left) = (0, 0);
    while let [how, low, high, bytes @ ..] = rest
        && came < PACKETS_MAX
    {
        let length = bytes
            .len()
            .min(usize::from(u16::from_le_bytes([*low, *high])))
            .min(PACKET_MAX);
        let (packet, behind) = bytes.split_at(length);
        rest = behind;
        let end = usize::from(how & 1);
        // Captures hold less than was on the wire.
        let wire_len = length + usize::from(how >> 1 & 1) * 100;
        assert!(gateway.arrive(end, packet, wire_len as u32), "no frame is free");
        *under_way[end]
            .entry(unmarked(packet, wire_len, partial_checksums))
            .or_default() += 1;
        came += 1;
        // Packets that come at one instant are one batch.
        let after = [0, 0, 1_000, 1_000_000, 31_000_000_000][usize::from(how >> 2) % 5];
        if after > 0 {
            gateway.turn(Nanos(after));
            for end in [0, 1] {
                gateway.departed(end, |after, wire_len| {
                    left += 1;
                    let after = unmarked(after, wire_len as usize, partial_checksums);
                    take(&mut under_way[1 - end], &after);
                });
            }
        }
    }
    // Who came in where is known from where it leaves only while both are told apart: the rest is only counted.
    gateway.drain(|_, _| left += 1);
    let after = sums(gateway);
    assert_eq!(after.received - before.received, came as u64);
    assert_eq!(after.forwarded - before.forwarded, left);
    assert_eq!(after.held, 0, "a minute is enough for all");
}

/// Packets in both directions.
struct Sums {
    received: u64,
    forwarded: u64,
    held: u64,
}

fn sums(gateway: &MemoryGateway) -> Sums {
    let ledgers = gateway.books().unwrap_or_else(|wrong| panic!("{wrong}"));
    let sum = |of: fn(&PathCounters) -> u64| ledgers.iter().map(of).sum::<u64>();
    Sums {
        received: sum(|ledger| ledger.received.packets),
        forwarded: sum(|ledger| ledger.forwarded.packets),
        held: sum(|ledger| ledger.held.packets),
    }
}

fn take(under_way: &mut HashMap<Vec<u8>, u32>, packet: &[u8]) {
    match under_way.get_mut(packet) {
        Some(count) if *count > 0 => *count -= 1,
        _ => panic!("nothing like this came: {packet:02x?}"),
    }
}

/// Each kind of malformed packet from both sides at once, and some trains of all of them.
#[must_use]
pub fn seeds() -> Vec<(String, Vec<u8>)> {
    let seeds: Vec<_> = malformed::seeds()
        .into_iter()
        .filter(|seed| seed.bytes.len() <= 256)
        .collect();
    let record = |how: u8, bytes: &[u8]| {
        let length = (bytes.len() as u16).to_le_bytes();
        [&[how], &length[..], bytes].concat()
    };
    let train = |options: u8, how: u8, step: usize| {
        let packets = seeds.iter().enumerate().step_by(step).take(20);
        let packets = packets.flat_map(|(index, seed)| record(how + (index % 2) as u8, &seed.bytes));
        let input: Vec<u8> = std::iter::once(options).chain(packets).collect();
        (format!("train-{options}-{how}-{step}"), input)
    };
    (0..8)
        .flat_map(|options| [(0, 3), (8, 7), (12, 5), (16, 11)].map(|(how, step)| train(options, how, step)))
        .collect()
}

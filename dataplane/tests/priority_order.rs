//! What goes first, that nothing waits without a reason, and that excess delays what conforms by one frame at most.
mod priority_common;

use std::collections::BTreeMap;

use dataplane::clock::Nanos;
use dataplane::priority::*;
use priority_common::{Gone, Out, Port, Random, class, entry, id};

/// Keeps count of what waits, from outside, and checks each packet against it as it leaves.
#[derive(Default)]
struct Watch {
    waits: [[usize; 32]; 2],
    /// Of each ring, smaller is more urgent; without minimum shares.
    priority: [u16; 32],
    room: usize,
    sent: usize,
    dropped: usize,
}

impl Watch {
    fn leaves(&mut self, half: Half, ring: RingId) {
        let conforming: usize = self.waits[0].iter().sum();
        assert!(
            half == Half::Conforming || conforming == 0,
            "{conforming} conforming wait"
        );
        let waits = &mut self.waits[half as usize];
        let priority = self.priority[ring.index()];
        let more_urgent = (0..32).find(|other| waits[*other] > 0 && self.priority[*other] < priority);
        assert_eq!(more_urgent, None, "more urgent than {ring:?}");
        waits[ring.index()] -= 1;
    }
}

impl Sink<u32> for Watch {
    fn room(&self) -> usize {
        self.room
    }
    fn send(&mut self, half: Half, ring: RingId, _: Entry<u32>) {
        self.leaves(half, ring);
        self.sent += 1;
    }
    fn mark_ce(&mut self, item: &mut u32) -> bool {
        item.is_multiple_of(3)
    }
    fn drop(&mut self, half: Half, ring: RingId, _: Entry<u32>) {
        self.leaves(half, ring);
        self.dropped += 1;
    }
}

/// Refuses a half at random, and remembers the last answer.
struct Moody<'a> {
    random: &'a mut Random,
    refused: Option<Half>,
}

impl Gate for Moody<'_> {
    fn admits(&mut self, half: Half, _: u32) -> bool {
        assert_eq!(self.refused, None, "a refusal ends the scheduling");
        if self.random.below(8) == 0 {
            self.refused = Some(half);
        }
        self.refused.is_none()
    }
    fn sent(&mut self, _: Half, _: u32) {}
}

#[test]
fn conforming_first_by_priority_and_never_idle() {
    for seed in 0..200 {
        let mut random = Random(seed);
        let mut watch = Watch::default();
        let classes: Vec<_> = (0..8)
            .map(|slot| class(slot, random.below(4) as u16, random.within(1, 1000) as u16, 0))
            .collect();
        for one in &classes {
            watch.priority[one.ring.index()] = one.priority;
        }
        let order = Order::new(&classes);
        let mut rings = Rings::new(16);
        let (mut now, mut taken) = (0, 0);
        for item in 0..400 {
            now += random.below(20_000_000);
            for _ in 0..random.below(4) {
                let half = [Half::Conforming, Half::Nonconforming][random.below(2) as usize];
                let ring = id(random.below(8) as usize);
                let mut new = entry(item, random.within(0, 9000) as u32, now);
                new.ecn_capable = random.below(2) == 0;
                new.drop_first = random.below(2) == 0;
                if rings.enqueue(half, ring, new).is_ok() {
                    watch.waits[half as usize][ring.index()] += 1;
                    taken += 1;
                }
            }
            watch.room = random.below(6) as usize;
            let before = watch.sent;
            let mut gate = Moody {
                random: &mut random,
                refused: None,
            };
            let done = rings.schedule(&order, Nanos(now), &mut gate, &mut watch);
            let (refused, left) = (gate.refused, rings.held());
            assert_eq!(done.sent, watch.sent - before);
            match done.stop {
                Stop::Empty => assert_eq!((left, refused), (0, None), "seed {seed}"),
                Stop::NoRoom => assert!(done.sent == watch.room && left > 0 && refused.is_none(), "seed {seed}"),
                Stop::Gate => {
                    let conforming_waits = rings.held_in(Half::Conforming) > 0;
                    assert_eq!(
                        refused == Some(Half::Conforming),
                        conforming_waits,
                        "seed {seed}: who was asked for"
                    );
                    assert!(left > 0 && done.sent < watch.room);
                }
            }
            assert_eq!(watch.sent + watch.dropped + left, taken, "seed {seed}: nothing is lost");
        }
    }
}

/// One arrival at the port.
#[derive(Clone, Copy)]
struct Arrival {
    at: u64,
    half: Half,
    ring: usize,
    item: u32,
    bytes: u32,
}

/// 80 ns for a byte: 100 Mbit/s.
const NS_PER_BYTE: u64 = 80;

/// What leaves a port of 100 Mbit/s, and when its transmission began, for these arrivals in the order of time.
fn simulate(order: &Order, arrivals: &[Arrival]) -> Vec<(u64, Gone)> {
    let mut rings = Rings::new(1024);
    let mut port = Port {
        now: 0,
        free_at: 0,
        ns_per_byte: NS_PER_BYTE,
    };
    let (mut out, mut departures, mut refused) = (Out::new(usize::MAX), Vec::new(), 0);
    let mut arrivals_left = arrivals.iter().peekable();
    loop {
        let next_arrival = arrivals_left.peek().map(|arrival| arrival.at);
        let next_departure = (!rings.is_empty()).then_some(port.free_at.max(port.now));
        let Some(next) = next_arrival.into_iter().chain(next_departure).min() else {
            break;
        };
        port.now = next;
        while let Some(arrival) = arrivals_left.next_if(|arrival| arrival.at <= port.now) {
            let new = entry(arrival.item, arrival.bytes, arrival.at);
            refused += usize::from(rings.enqueue(arrival.half, id(arrival.ring), new).is_err());
        }
        let sent = out.sent.len();
        rings.schedule(order, Nanos(port.now), &mut port, &mut out);
        departures.extend(out.sent[sent..].iter().map(|packet| (port.now, *packet)));
    }
    assert_eq!(
        out.sent.len() + out.dropped.len() + refused,
        arrivals.len(),
        "nothing is lost"
    );
    let kept = out.dropped.iter().all(|packet| packet.half == Half::Nonconforming);
    assert!(kept, "what conforms is below the rate and loses nothing");
    departures
}

/// Conforming packets at 70 % of the rate in bursts, over half a second, in the rings 0 to `rings - 1`.
fn conforming(random: &mut Random, rings: u64) -> Vec<Arrival> {
    let (mut at, mut arrivals) = (0, Vec::new());
    while at < 500_000_000 {
        let burst: Vec<u32> = (0..random.within(1, 12))
            .map(|_| random.within(60, 1500) as u32)
            .collect();
        for &bytes in &burst {
            let (ring, item) = (random.below(rings) as usize, arrivals.len() as u32);
            arrivals.push(Arrival {
                at,
                half: Half::Conforming,
                ring,
                item,
                bytes,
            });
        }
        let busy: u64 = burst.iter().map(|bytes| u64::from(*bytes) * NS_PER_BYTE).sum();
        at += busy * 10 / 7 * random.within(1, 199) / 100;
    }
    arrivals
}

/// The same packets with excess at `times` their number of bytes, in all rings. Equal instants: the excess comes first.
fn flooded(conforming: &[Arrival], times: u64, random: &mut Random) -> Vec<Arrival> {
    let mut all = Vec::new();
    for arrival in conforming {
        let mut bytes_left = u64::from(arrival.bytes) * times;
        while bytes_left > 0 {
            let bytes = random.within(60, 1500).min(bytes_left.max(60));
            bytes_left = bytes_left.saturating_sub(bytes);
            let (half, ring) = (Half::Nonconforming, random.below(4) as usize);
            all.push(Arrival {
                half,
                ring,
                item: u32::MAX,
                bytes: bytes as u32,
                ..*arrival
            });
        }
        all.push(*arrival);
    }
    all
}

/// By item: when the transmission of a conforming packet began, after its arrival.
fn waits(departures: &[(u64, Gone)]) -> BTreeMap<u32, u64> {
    let conforming = departures.iter().filter(|(_, packet)| packet.half == Half::Conforming);
    conforming
        .map(|(at, packet)| (packet.item, at - packet.enqueued.0))
        .collect()
}

const FRAME_NS: u64 = 1500 * NS_PER_BYTE;

#[test]
fn excess_delays_what_conforms_by_one_frame_at_most() {
    let order = Order::new(&[
        class(0, 1, 1, 0),
        class(1, 1, 3, 300),
        class(2, 2, 1, 100),
        class(3, 3, 1, 0),
    ]);
    for seed in 0..3 {
        let mut random = Random(seed);
        let calm = conforming(&mut random, 1);
        let alone = waits(&simulate(&order, &calm));
        assert_eq!(alone.len(), calm.len());
        for times in [1, 10, 100] {
            let beside = waits(&simulate(&order, &flooded(&calm, times, &mut random)));
            assert_eq!(beside.len(), calm.len());
            for (item, wait) in &alone {
                let more = beside[item].checked_sub(*wait);
                let within = more.is_some_and(|more| more <= FRAME_NS);
                assert!(
                    within,
                    "seed {seed}, flood x {times}: packet {item} waited {wait} ns, then {}",
                    beside[item]
                );
            }
        }
    }
}

/// With several classes a frame's delay can let a more urgent packet pass, so a single wait may change by more; but the most
/// urgent class has nobody to pass it, and all that conforms together is never later by more than that one frame.
#[test]
fn excess_delays_all_classes_together_by_one_frame_at_most() {
    let order = Order::new(&[
        class(0, 1, 1, 0),
        class(1, 2, 1, 0),
        class(2, 2, 5, 0),
        class(3, 3, 1, 200),
    ]);
    let urgent_first = Order::new(&[
        class(0, 1, 1, 0),
        class(1, 2, 1, 0),
        class(2, 2, 5, 0),
        class(3, 3, 1, 0),
    ]);
    for seed in 0..3 {
        let mut random = Random(seed);
        let calm = conforming(&mut random, 4);
        for (times, order) in [(10, &order), (100, &order), (10, &urgent_first), (100, &urgent_first)] {
            let alone = simulate(order, &calm);
            let beside = simulate(order, &flooded(&calm, times, &mut random));
            let (work_alone, work_beside) = (work(&alone), work(&beside));
            assert_eq!(work_alone.last().map(|end| end.1), work_beside.last().map(|end| end.1));
            for &(began, done) in &work_alone {
                // The same bytes are out at most one frame later.
                let at = work_beside.partition_point(|(_, other)| *other < done);
                let (later, over) = (work_beside[at].0, work_beside[at].1 - done);
                assert!(
                    later <= began + FRAME_NS + over * NS_PER_BYTE,
                    "seed {seed}, flood x {times}"
                );
            }
            if std::ptr::eq(order, &raw const urgent_first) {
                let (alone, beside) = (waits(&alone), waits(&beside));
                for packet in calm.iter().filter(|packet| packet.ring == 0) {
                    let (one, other) = (alone[&packet.item], beside[&packet.item]);
                    assert!(
                        one.abs_diff(other) <= FRAME_NS,
                        "seed {seed}, flood x {times}: {one} ns, then {other}"
                    );
                }
            }
        }
    }
}

/// When conforming transmissions ended, and how many bytes were out then.
fn work(departures: &[(u64, Gone)]) -> Vec<(u64, u64)> {
    let mut bytes = 0;
    let conforming = departures.iter().filter(|(_, packet)| packet.half == Half::Conforming);
    conforming
        .map(|(began, packet)| {
            bytes += u64::from(packet.bytes);
            (began + u64::from(packet.bytes) * NS_PER_BYTE, bytes)
        })
        .collect()
}

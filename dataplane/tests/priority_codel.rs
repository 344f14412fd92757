//! CoDel against the pseudo code of RFC 8289 section 5, written down plainly, over random arrivals.
mod priority_common;

use dataplane::clock::Nanos;
use dataplane::codel::{Codel, INTERVAL, Judgement, MAX_PACKET_BYTES, TARGET};
use dataplane::priority::*;
use priority_common::{Open, Out, Port, Random, entry, id};
use proptest::prelude::*;
use std::collections::VecDeque;

type Packet = (u64, u64);

#[derive(Default)]
struct Reference {
    first_above: u64,
    drop_next: u64,
    count: u64,
    last_count: u64,
    dropping: bool,
}

impl Reference {
    fn dodequeue(&mut self, ring: &mut VecDeque<Packet>, now: u64) -> (Option<Packet>, bool) {
        let Some(packet) = ring.pop_front() else {
            self.first_above = 0;
            return (None, false);
        };
        let left: u64 = ring.iter().map(|packet| packet.1).sum();
        if now - packet.0 < TARGET.0 || left <= MAX_PACKET_BYTES {
            self.first_above = 0;
        } else if self.first_above == 0 {
            self.first_above = now + INTERVAL.0;
        } else if now >= self.first_above {
            return (Some(packet), true);
        }
        (Some(packet), false)
    }

    fn law(from: u64, count: u64) -> u64 {
        from + (INTERVAL.0 as f64 / (count as f64).sqrt()) as u64
    }

    fn dequeue(&mut self, ring: &mut VecDeque<Packet>, now: u64, dropped: &mut Vec<Packet>) -> Option<Packet> {
        let (mut packet, mut ok) = self.dodequeue(ring, now);
        if self.dropping {
            self.dropping = ok;
            while now >= self.drop_next && self.dropping {
                dropped.extend(packet);
                self.count += 1;
                (packet, ok) = self.dodequeue(ring, now);
                if ok {
                    self.drop_next = Self::law(self.drop_next, self.count);
                } else {
                    self.dropping = false;
                }
            }
        } else if ok {
            dropped.extend(packet);
            (packet, _) = self.dodequeue(ring, now);
            self.dropping = true;
            let delta = self.count as i64 - self.last_count as i64;
            let recent = (now as i64) - (self.drop_next as i64) < 16 * INTERVAL.0 as i64;
            self.count = if delta > 1 && recent { delta as u64 } else { 1 };
            self.drop_next = Self::law(now, self.count);
            self.last_count = self.count;
        }
        packet
    }
}

fn dequeue(codel: &mut Codel, ring: &mut VecDeque<Packet>, now: u64, dropped: &mut Vec<Packet>) -> Option<Packet> {
    while let Some(packet) = ring.pop_front() {
        let left = ring.iter().map(|packet| packet.1).sum();
        let judgement = codel.judge(Nanos(packet.0), left, false, Nanos(now));
        if judgement == Judgement::Pass {
            return Some(packet);
        }
        dropped.push(packet);
    }
    None
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 60, failure_persistence: None, ..ProptestConfig::default() })]
    #[test]
    fn drops_what_the_rfc_drops(steps in prop::collection::vec((0u64..30, 0usize..4, 64u64..1514), 1..600)) {
        let (mut reference, mut codel) = (Reference::default(), Codel::default());
        let (mut left, mut right) = (VecDeque::new(), VecDeque::new());
        let (mut want, mut got) = (Vec::new(), Vec::new());
        let mut now = 1;
        for (step, (gap_ms, arrivals, bytes)) in steps.into_iter().enumerate() {
            // Fills for 40 steps and drains for 80, so that the dropping state is left and entered again.
            let arrivals = if step % 120 < 40 { arrivals } else { arrivals / 3 };
            now += gap_ms * 1_000_000;
            for _ in 0..arrivals {
                left.push_back((now, bytes));
                right.push_back((now, bytes));
            }
            if !left.is_empty() {
                let sent = reference.dequeue(&mut left, now, &mut want);
                prop_assert_eq!(sent, dequeue(&mut codel, &mut right, now, &mut got));
                prop_assert_eq!(want.len(), got.len());
            }
        }
        prop_assert_eq!(want, got);
    }
}

/// The pseudo code again, on a ring in [`Rings`] and with marking as Linux does it: the packet that would be dropped is marked
/// and sent, the control law steps. Counts which branches were taken.
#[derive(Default)]
struct Marking {
    state: Reference,
    ring: VecDeque<(Packet, bool)>,
    dropped: Vec<Packet>,
    marked: Vec<Packet>,
    entered: usize,
    resumed: usize,
    steps: usize,
}

impl Marking {
    fn dodequeue(&mut self, now: u64) -> (Option<(Packet, bool)>, bool) {
        let capable = self.ring.front().map(|head| head.1);
        let mut packets: VecDeque<Packet> = self.ring.iter().map(|packet| packet.0).collect();
        let (packet, late) = self.state.dodequeue(&mut packets, now);
        self.ring.pop_front();
        (packet.zip(capable), late)
    }

    fn dequeue(&mut self, now: u64) -> Option<Packet> {
        let (mut head, mut late) = self.dodequeue(now);
        if self.state.dropping {
            self.state.dropping = late;
            while now >= self.state.drop_next && self.state.dropping {
                self.state.count += 1;
                self.steps += 1;
                let (packet, capable) = head?;
                if capable {
                    self.marked.push(packet);
                    self.state.drop_next = Reference::law(self.state.drop_next, self.state.count);
                    return Some(packet);
                }
                self.dropped.push(packet);
                (head, late) = self.dodequeue(now);
                if late {
                    self.state.drop_next = Reference::law(self.state.drop_next, self.state.count);
                } else {
                    self.state.dropping = false;
                }
            }
        } else if late {
            let (packet, capable) = head?;
            if capable {
                self.marked.push(packet);
            } else {
                self.dropped.push(packet);
                (head, _) = self.dodequeue(now);
            }
            self.entered += 1;
            self.state.dropping = true;
            let delta = self.state.count as i64 - self.state.last_count as i64;
            let recent = (now as i64) - (self.state.drop_next as i64) < 16 * INTERVAL.0 as i64;
            self.resumed += usize::from(delta > 1 && recent);
            self.state.count = if delta > 1 && recent { delta as u64 } else { 1 };
            self.state.drop_next = Reference::law(now, self.state.count);
            self.state.last_count = self.state.count;
        }
        head.map(|head| head.0)
    }
}

#[test]
fn constants_are_those_of_the_rfc() {
    assert_eq!((TARGET, INTERVAL), (Nanos(5_000_000), Nanos(100_000_000)));
    // A full frame at 1500 bytes of MTU: header, tag or none, FCS, preamble and gap.
    assert_eq!(MAX_PACKET_BYTES, 1500 + 14 + 4 + 8 + 12);
}

#[test]
fn a_ring_is_controlled_as_the_rfc_says_and_marks_who_can_be_marked() {
    let (mut entered, mut resumed, mut steps, mut marked) = (0, 0, 0, 0);
    for seed in 0..12 {
        let mut random = Random(seed);
        let order = Order::new(&[]);
        let (mut rings, mut out, mut reference) = (Rings::new(1024), Out::new(1), Marking::default());
        let (mut now, mut item, mut refused) = (1_000_000_000, 0, 0);
        let mut sent = Vec::new();
        for step in 0..12_000 {
            now += random.within(200_000, 1_800_000);
            // Overload, and relief in between of every length: the dropping state is left and entered again soon and late.
            let busy = (step / (100 * (1 + seed))) % 3 != 2;
            for _ in 0..[random.below(2), random.below(4)][usize::from(busy)] {
                let mut new = entry(item, random.within(64, 1500) as u32, now);
                new.ecn_capable = random.below(3) == 0 && seed % 3 > 0;
                let packet = ((now, u64::from(new.bytes)), new.ecn_capable);
                item += 1;
                match rings.enqueue(Half::Conforming, id(7), new) {
                    Ok(()) => reference.ring.push_back(packet),
                    Err(_) => refused += 1,
                }
            }
            if !reference.ring.is_empty() {
                rings.schedule(&order, Nanos(now), &mut Open, &mut out);
                sent.extend(reference.dequeue(now));
                assert_eq!(
                    (out.sent.len(), out.dropped.len()),
                    (sent.len(), reference.dropped.len()),
                    "seed {seed} step {step}"
                );
            }
        }
        let packets = |gone: &[priority_common::Gone]| -> Vec<Packet> {
            gone.iter()
                .map(|packet| (packet.enqueued.0, u64::from(packet.bytes)))
                .collect()
        };
        assert_eq!(packets(&out.sent), sent, "seed {seed}");
        assert_eq!(packets(&out.dropped), reference.dropped, "seed {seed}");
        assert_eq!(out.marked.len(), reference.marked.len(), "seed {seed}");
        assert_eq!(
            out.sent.len() + out.dropped.len() + rings.held() + refused,
            item as usize,
            "nothing is lost"
        );
        entered += reference.entered;
        resumed += reference.resumed;
        steps += reference.steps;
        marked += reference.marked.len();
    }
    assert!(
        entered > 25 && resumed > 10 && steps > 500 && marked > 100,
        "{entered} {resumed} {steps} {marked}"
    );
}

/// Of an overloaded ring: the positions of what is dropped, and the sizes of what was offered. A packet a millisecond leaves.
fn judged(sizes: &[u32], seed: u64) -> Vec<u32> {
    let mut random = Random(seed);
    let order = Order::new(&[]);
    let (mut rings, mut out) = (Rings::new(4096), Out::new(1));
    let mut offered = sizes.iter().zip(0u32..);
    for ms in 0..sizes.len() as u64 {
        // Always more behind than one full frame, even of the smallest packets.
        while rings.held() < 40 + random.below(60) as usize {
            let Some((&bytes, item)) = offered.next() else { break };
            let arrived = (ms * 1_000_000).saturating_sub(random.below(1_000_000));
            rings
                .enqueue(Half::Nonconforming, id(0), entry(item, bytes, arrived))
                .expect("room");
        }
        if rings.held_bytes(Half::Nonconforming) < 2 * 1538 {
            break;
        }
        rings.schedule(&order, Nanos(ms * 1_000_000), &mut Open, &mut out);
    }
    out.dropped.iter().map(|packet| packet.item).collect()
}

/// RFC 7141 section 2.3: no dependence of dropping or marking on the size of the packet.
#[test]
fn the_same_positions_are_dropped_whatever_the_sizes() {
    for seed in 0..10 {
        let mut random = Random(seed);
        let mut sizes: Vec<u32> = (0..4000).map(|_| [64, 1500][random.below(2) as usize]).collect();
        let dropped = judged(&sizes, seed);
        assert!(dropped.len() > 100, "{}", dropped.len());
        for at in (1..sizes.len()).rev() {
            sizes.swap(at, random.below(at as u64 + 1) as usize);
        }
        let again = judged(&sizes, seed);
        let last = dropped.last().min(again.last()).copied().unwrap_or(0);
        assert!(last > 3000);
        assert!(
            dropped
                .iter()
                .filter(|at| **at <= last)
                .eq(again.iter().filter(|at| **at <= last)),
            "seed {seed}"
        );
    }
}

#[test]
fn small_and_large_packets_are_dropped_equally_often() {
    let (mut dropped, mut offered) = ([0.0f64; 2], [0.0f64; 2]);
    for seed in 100..140 {
        let mut random = Random(seed);
        let sizes: Vec<u32> = (0..4000).map(|_| [64, 1500][random.below(2) as usize]).collect();
        for item in judged(&sizes, seed) {
            dropped[usize::from(sizes[item as usize] == 1500)] += 1.0;
        }
        for size in sizes {
            offered[usize::from(size == 1500)] += 1.0;
        }
    }
    let share = [dropped[0] / offered[0], dropped[1] / offered[1]];
    let mean = (dropped[0] + dropped[1]) / (offered[0] + offered[1]);
    let deviation = (mean * (1.0 - mean) * (1.0 / offered[0] + 1.0 / offered[1])).sqrt();
    assert!(
        dropped[0] > 1000.0 && (share[0] - share[1]).abs() < 3.0 * deviation,
        "{share:?} deviation {deviation}"
    );
}

/// A sender that adds a packet to its window each round trip and halves it for a loss, at most once each round trip.
#[derive(Clone, Copy)]
struct Sender {
    window: f64,
    in_flight: f64,
    halved_at: u64,
    slow_start: bool,
}

/// Four such senders on a port of 20 Mbit/s, 60 ms away: how long each packet sent waited, with when.
fn responsive(ecn_capable: bool) -> Vec<(u64, u64)> {
    const ROUND_TRIP: u64 = 60_000_000;
    let order = Order::new(&[]);
    let mut rings = Rings::new(1024);
    let mut port = Port {
        now: 0,
        free_at: 0,
        ns_per_byte: 400,
    };
    let (mut out, mut waits, mut enqueued) = (Out::new(usize::MAX), Vec::new(), 0);
    let mut senders = [Sender {
        window: 2.0,
        in_flight: 0.0,
        halved_at: 0,
        slow_start: true,
    }; 4];
    // What a sender hears a round trip later: who, and whether to slow down.
    let mut heard: VecDeque<(u64, usize, bool)> = VecDeque::new();
    for tick in 0..400_000u64 {
        port.now = tick * 100_000;
        while let Some((_, who, slower)) = heard.pop_front_if(|news| news.0 <= port.now) {
            let sender = &mut senders[who];
            sender.in_flight -= 1.0;
            if !slower {
                sender.window += if sender.slow_start { 1.0 } else { 1.0 / sender.window };
            } else if port.now > sender.halved_at + ROUND_TRIP {
                (sender.window, sender.halved_at, sender.slow_start) =
                    ((sender.window / 2.0).max(1.0), port.now, false);
            }
        }
        for (who, sender) in senders.iter_mut().enumerate() {
            while sender.in_flight < sender.window.floor() {
                let new = Entry {
                    ecn_capable,
                    ..entry(who as u32, 1500, port.now)
                };
                sender.in_flight += 1.0;
                enqueued += 1;
                if rings.enqueue(Half::Conforming, id(0), new).is_err() {
                    heard.push_back((port.now + ROUND_TRIP, who, true));
                    enqueued -= 1;
                }
            }
        }
        let before = (out.sent.len(), out.dropped.len(), out.marked.len());
        rings.schedule(&order, Nanos(port.now), &mut port, &mut out);
        for packet in &out.dropped[before.1..] {
            heard.push_back((port.now + ROUND_TRIP, packet.item as usize, true));
        }
        let mut marked = out.marked[before.2..].iter();
        for packet in &out.sent[before.0..] {
            let slower = marked.as_slice().first() == Some(&packet.item) && marked.next().is_some();
            heard.push_back((port.now + ROUND_TRIP, packet.item as usize, slower));
            waits.push((port.now, port.now - packet.enqueued.0));
        }
    }
    assert_eq!(
        out.sent.len() + out.dropped.len() + rings.held(),
        enqueued,
        "nothing is lost"
    );
    assert_eq!(
        out.dropped.is_empty(),
        ecn_capable,
        "the capable are marked, the others dropped"
    );
    assert_eq!(out.marked.is_empty(), !ecn_capable);
    waits
}

#[test]
fn a_standing_queue_of_responsive_senders_comes_down_to_the_target() {
    for ecn_capable in [false, true] {
        let waits = responsive(ecn_capable);
        let most = |from: u64, to: u64| {
            waits
                .iter()
                .filter(|wait| (from..to).contains(&wait.0))
                .map(|wait| wait.1)
                .max()
        };
        assert!(
            most(0, 2_000_000_000) > Some(30_000_000),
            "without control the ring holds up to 600 ms"
        );
        // From 10 s to 40 s: the mean, and the least of each 100 ms, which is what CoDel holds down.
        let later: Vec<_> = waits.iter().filter(|wait| wait.0 > 10_000_000_000).collect();
        let mean = later.iter().map(|wait| wait.1).sum::<u64>() / later.len() as u64;
        let mut standing: Vec<u64> = later
            .chunk_by(|one, next| one.0 / INTERVAL.0 == next.0 / INTERVAL.0)
            .filter_map(|interval| interval.iter().map(|wait| wait.1).min())
            .collect();
        standing.sort_unstable();
        let (median, rare) = (standing[standing.len() / 2], standing[standing.len() * 95 / 100]);
        println!(
            "ecn {ecn_capable}: mean {mean} ns, standing queue median {median} ns, 95 % below {rare} ns, {} packets",
            later.len()
        );
        assert!(mean < 8_000_000, "mean {mean} ns");
        assert!(
            median < 5_500_000 && rare < 12_000_000,
            "standing {median} ns, 95 % below {rare} ns"
        );
        // 30 s at 20 Mbit/s are 50,000 packets: control must not cost the port its use.
        assert!(later.len() > 42_000, "{} packets", later.len());
    }
}

#[test]
fn marks_the_capable_and_never_drops_them() {
    let mut codel = Codel::default();
    let mut marks = Vec::new();
    for ms in 10..1000 {
        let now = Nanos(ms * 1_000_000);
        match codel.judge(Nanos(now.0 - 6_000_000), 10_000, true, now) {
            Judgement::Pass => {}
            Judgement::Mark => marks.push(ms),
            Judgement::Drop => panic!("dropped a capable packet"),
        }
    }
    assert_eq!(
        marks[..3],
        [110, 210, 281],
        "the control law steps by 100/sqrt(count) ms"
    );
}

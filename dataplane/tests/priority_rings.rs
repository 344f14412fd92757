//! The order of the rings against a slow model, and the promises of the scheduler one by one.
use dataplane::clock::Nanos;
use dataplane::priority::*;
use proptest::prelude::*;
use std::collections::{BTreeMap, VecDeque};

#[derive(Default)]
struct Out {
    room: usize,
    sent: Vec<(Half, usize, u32)>,
    dropped: Vec<u32>,
}

/// Lets this many bytes go.
struct Budget(u64);

impl Gate for Budget {
    fn admits(&mut self, _: Half, bytes: u32) -> bool {
        self.0 >= u64::from(bytes)
    }
    fn sent(&mut self, _: Half, bytes: u32) {
        self.0 -= u64::from(bytes);
    }
}

impl Sink<u32> for Out {
    fn room(&self) -> usize {
        self.room
    }
    fn send(&mut self, half: Half, ring: RingId, entry: Entry<u32>) {
        self.sent.push((half, ring.index(), entry.item));
    }
    fn mark_ce(&mut self, _: &mut u32) -> bool {
        true
    }
    fn drop(&mut self, _: Half, _: RingId, entry: Entry<u32>) {
        self.dropped.push(entry.item);
    }
}

fn id(slot: u8) -> RingId {
    RingId::new(slot).expect("a slot below 32")
}

fn class(slot: u8, priority: u16, weight: u16, min_share_permille: u16) -> ClassOrder {
    ClassOrder {
        ring: id(slot),
        priority,
        weight,
        min_share_permille,
    }
}

fn entry(item: u32, bytes: u32) -> Entry<u32> {
    Entry {
        item,
        bytes,
        enqueued: Nanos(0),
        drop_first: false,
        ecn_capable: false,
    }
}

fn run(rings: &mut Rings<u32>, order: &Order, packets: usize) -> Vec<(Half, usize, u32)> {
    let mut out = Out {
        room: packets,
        ..Out::default()
    };
    rings.schedule(order, Nanos(0), &mut Budget(u64::MAX), &mut out);
    out.sent
}

/// Keeps rings 0 and 1 backlogged with full frames and returns the rings served.
fn backlogged(order: &Order, packets: u32) -> Vec<usize> {
    let mut rings = Rings::new(64);
    let mut served = Vec::new();
    for item in 0..packets {
        for slot in [id(0), id(1)] {
            while rings.len(Half::Conforming, slot) < 4 {
                rings.enqueue(Half::Conforming, slot, entry(item, 1500)).expect("room");
            }
        }
        served.extend(run(&mut rings, order, 1).iter().map(|sent| sent.1));
    }
    served
}

#[test]
fn strict_priority_starves_without_a_minimum_share_and_not_with_it() {
    let strict = backlogged(&Order::new(&[class(0, 1, 1, 0), class(1, 2, 1, 0)]), 500);
    assert!(strict.iter().all(|ring| *ring == 0));
    let fair = backlogged(&Order::new(&[class(0, 1, 1, 0), class(1, 2, 1, 100)]), 1000);
    for window in fair.windows(100) {
        let share = window.iter().filter(|ring| **ring == 1).count();
        assert!((9..=11).contains(&share), "{share} of 100");
    }
}

#[test]
fn conforming_first_even_against_a_minimum_share() {
    let order = Order::new(&[class(0, 1, 1, 1000), class(1, 2, 1, 0)]);
    let mut rings = Rings::new(8);
    for item in 0..4 {
        rings
            .enqueue(Half::Nonconforming, id(0), entry(item, 100))
            .expect("room");
        rings.enqueue(Half::Conforming, id(1), entry(item, 100)).expect("room");
    }
    let halves: Vec<_> = run(&mut rings, &order, 99).iter().map(|sent| sent.0).collect();
    assert_eq!(halves, [[Half::Conforming; 4], [Half::Nonconforming; 4]].concat());
}

#[test]
fn red_is_refused_above_half_and_yellow_when_full() {
    let mut rings = Rings::new(8);
    let red = |item| Entry {
        drop_first: true,
        ..entry(item, 100)
    };
    for item in 0..5 {
        rings
            .enqueue(Half::Nonconforming, id(3), red(item))
            .expect("half and one");
    }
    let refused = rings.enqueue(Half::Nonconforming, id(3), red(5)).expect_err("red");
    assert_eq!(refused.1, Refused::RedFirst);
    for item in 5..8 {
        rings
            .enqueue(Half::Nonconforming, id(3), entry(item, 100))
            .expect("yellow");
    }
    let refused = rings
        .enqueue(Half::Nonconforming, id(3), entry(8, 100))
        .expect_err("full");
    assert_eq!((refused.0.item, refused.1), (8, Refused::RingFull));
    assert_eq!(rings.high_watermark(Half::Nonconforming, id(3)), 8);
}

/// The slow model: no bitmaps, looks for the level and for who is owed anew for each packet.
struct Model {
    rings: Vec<VecDeque<(u32, u32)>>,
    deficit: Vec<u64>,
    /// In thousandths of bytes.
    credit: Vec<u64>,
    /// By half and priority: the rings that the round has still to visit, next one first.
    round: BTreeMap<(usize, u16), VecDeque<usize>>,
}

impl Model {
    /// The next packet's ring and item.
    fn next(&mut self, classes: &[ClassOrder]) -> Option<(usize, u32)> {
        let place = |half: usize, c: &ClassOrder| half * 32 + c.ring.index();
        let waiting = |half: usize| {
            let waits = |c: &&ClassOrder| !self.rings[place(half, c)].is_empty();
            classes.iter().filter(waits).collect::<Vec<_>>()
        };
        let (half, waiting) = [(0, waiting(0)), (1, waiting(1))]
            .into_iter()
            .find(|half| !half.1.is_empty())?;
        let mut shares: Vec<_> = waiting
            .iter()
            .filter(|c| c.min_share_permille > 0)
            .map(|c| (place(half, c), u64::from(c.min_share_permille)))
            .collect();
        shares.sort_unstable();
        let price = shares.iter().map(|share| share.1).sum::<u64>().max(1000);
        let bytes = |ring: usize| u64::from(self.rings[ring][0].1);
        let mut owed: Option<usize> = None;
        for &(ring, _) in &shares {
            let credit = self.credit[ring];
            if credit >= bytes(ring) * price && credit > owed.map_or(0, |best| self.credit[best]) {
                owed = Some(ring);
            }
        }
        let priority = waiting.iter().map(|c| c.priority).min()?;
        let mut equals: Vec<_> = waiting
            .iter()
            .filter(|c| c.priority == priority)
            .map(|c| (place(half, c), u64::from(c.weight)))
            .collect();
        equals.sort_unstable();
        let ring = match owed {
            Some(ring) => ring,
            None => self.round_robin((half, priority), &equals)?,
        };
        let cost = u64::from(self.rings[ring][0].1);
        for (other, share) in shares {
            self.credit[other] = (self.credit[other] + cost * share).min(CREDIT_BYTES_MAX * price);
        }
        self.credit[ring] = self.credit[ring].saturating_sub(cost * price);
        Some((ring, self.take(ring)))
    }

    fn round_robin(&mut self, level: (usize, u16), equals: &[(usize, u64)]) -> Option<usize> {
        let round = self.round.entry(level).or_default();
        if let [(alone, _)] = equals[..] {
            round.clear();
            self.deficit[alone] = 0;
            return Some(alone);
        }
        loop {
            while let Some(&ring) = round.front() {
                let bytes = u64::from(self.rings[ring][0].1);
                if self.deficit[ring] >= bytes {
                    self.deficit[ring] -= bytes;
                    return Some(ring);
                }
                round.pop_front();
            }
            let heaviest = equals.iter().map(|(_, weight)| *weight).max()?;
            let unit = (0..)
                .map(|power| 1 << power)
                .find(|unit| unit * heaviest >= QUANTUM_BYTES)?;
            for (ring, weight) in equals {
                self.deficit[*ring] += weight * unit;
                round.push_back(*ring);
            }
        }
    }

    fn take(&mut self, ring: usize) -> u32 {
        let item = self.rings[ring].pop_front().map_or(0, |packet| packet.0);
        if self.rings[ring].is_empty() {
            (self.deficit[ring], self.credit[ring]) = (0, 0);
            for round in self.round.values_mut() {
                round.retain(|other| *other != ring);
            }
        }
        item
    }
}

type Step = (u8, u32, usize, bool, u64, u64);

proptest! {
    #![proptest_config(ProptestConfig { cases: 200, failure_persistence: None, ..ProptestConfig::default() })]
    #[test]
    fn drains_as_the_model(ops in prop::collection::vec((0u8..12, 0u32..1600, 0usize..4), 1..300),
                           shares in prop::collection::vec(prop_oneof![Just(0u16), 0u16..400], 6),
                           with_shares in any::<bool>(),
                           weights in prop::collection::vec((0u16..3, 1u16..20), 6)) {
        let classes: Vec<_> = (0u8..).zip(weights.iter().zip(&shares))
            .map(|(slot, ((p, w), s))| class(slot, *p, *w, if with_shares { *s } else { 0 })).collect();
        let order = Order::new(&classes);
        let mut rings = Rings::new(512);
        let mut model = Model { rings: vec![VecDeque::new(); 64], deficit: vec![0; 64], credit: vec![0; 64], round: BTreeMap::new() };
        for (item, (slot, bytes, sends)) in (0u32..).zip(ops) {
            let half = if slot < 6 { Half::Conforming } else { Half::Nonconforming };
            rings.enqueue(half, id(slot % 6), entry(item, bytes)).expect("room");
            model.rings[half as usize * 32 + usize::from(slot % 6)].push_back((item, bytes));
            let got: Vec<_> = run(&mut rings, &order, sends).iter().map(|s| (s.0 as usize * 32 + s.1, s.2)).collect();
            let want: Vec<_> = (0..sends).map_while(|_| model.next(&classes)).collect();
            prop_assert_eq!(got, want);
        }
    }

    #[test]
    fn nothing_is_lost_whatever_the_order(steps in prop::collection::vec(any::<Step>(), 1..400)) {
        let (mut rings, mut out, mut all) = (Rings::new(16), Out::default(), Vec::new());
        let (mut now, mut taken) = (0, 0u32);
        for (slot, bytes, room, red, gap, seed) in steps {
            now += gap % 40_000_000;
            let bit = |at: u8| (seed >> at) as u16;
            let classes: Vec<_> = (0u8..8).filter(|slot| bit(*slot) & 1 == 1)
                .map(|slot| class(slot, bit(8 + slot) & 3, 1 + (bit(slot) & 7), bit(20 + slot) & 255)).collect();
            let half = if red { Half::Nonconforming } else { Half::Conforming };
            for _ in 0..3 {
                let new = Entry { enqueued: Nanos(now), drop_first: bit(41) & 1 == 1, ecn_capable: bit(40) & 1 == 1,
                                  ..entry(taken, bytes % 3000) };
                all.extend(rings.enqueue(half, id(slot % 8), new).err().map(|back| back.0.item));
                taken += 1;
            }
            out.room = room % 5;
            let before = (out.sent.len(), out.dropped.len());
            let done = rings.schedule(&Order::new(&classes), Nanos(now), &mut Budget(seed & 0x3fff), &mut out);
            prop_assert_eq!((out.sent.len() - before.0, out.dropped.len() - before.1), (done.sent, done.dropped));
            prop_assert!(done.stop != Stop::Empty || rings.is_empty());
            prop_assert!(done.stop != Stop::NoRoom || done.sent == out.room);
            prop_assert_eq!(rings.held() + out.sent.len() + out.dropped.len() + all.len(), taken as usize);
        }
        let mut last = BTreeMap::new();
        for (half, ring, item) in &out.sent {
            prop_assert!(last.insert((*half as u8, *ring), *item).is_none_or(|earlier| earlier < *item));
        }
        all.extend(out.sent.iter().map(|sent| sent.2).chain(out.dropped));
        while let Some((_, _, entry)) = rings.take_any() {
            all.push(entry.item);
        }
        all.sort_unstable();
        prop_assert_eq!(all, (0..taken).collect::<Vec<_>>());
        prop_assert_eq!(rings.held_bytes(Half::Conforming) + rings.held_bytes(Half::Nonconforming), 0);
    }
}

//! Deficit round robin and minimum shares, over every window of what was sent.
mod priority_common;

use dataplane::clock::Nanos;
use dataplane::priority::*;
use priority_common::{Gone, Open, Out, Random, Sizes, class, entry, id};

const HALVES: [Half; 2] = [Half::Conforming, Half::Nonconforming];

/// Rings of one half that always wait: each is filled up to four entries before every call.
struct Backlog {
    rings: Rings<u32>,
    sizes: Vec<(usize, Sizes)>,
    enqueued: u32,
    sent: usize,
    half: Half,
}

impl Backlog {
    fn new(half: Half, sizes: Vec<(usize, Sizes)>) -> Self {
        Self {
            rings: Rings::new(16),
            sizes,
            enqueued: 0,
            sent: 0,
            half,
        }
    }

    fn fill(&mut self, random: &mut Random) {
        for (slot, sizes) in &self.sizes {
            while self.rings.len(self.half, id(*slot)) < 4 {
                let new = entry(self.enqueued, sizes.next(random), 0);
                self.rings.enqueue(self.half, id(*slot), new).expect("room");
                self.enqueued += 1;
            }
        }
    }

    /// Sends at least `packets`, up to three at a time: more could empty a ring.
    fn run(&mut self, order: &Order, packets: usize, random: &mut Random) -> Vec<Gone> {
        let mut out = Out::default();
        while out.sent.len() < packets {
            self.fill(random);
            out.room = random.within(1, 3) as usize;
            self.rings.schedule(order, Nanos(0), &mut Open, &mut out);
        }
        self.sent += out.sent.len();
        assert_eq!(self.sent + self.rings.held(), self.enqueued as usize, "nothing is lost");
        assert!(out.dropped.is_empty(), "nothing waited, so CoDel has nothing to do");
        out.sent
    }
}

/// How far a sum strayed over any window: its greatest less its smallest value.
#[derive(Default)]
struct Range {
    now: i128,
    least: i128,
    most: i128,
}

impl Range {
    fn add(&mut self, change: i128) {
        self.now += change;
        self.least = self.least.min(self.now);
        self.most = self.most.max(self.now);
    }

    fn width(&self) -> i128 {
        self.most - self.least
    }
}

/// Every pair of `equals` (slot, weight, largest frame) over every window, against the bound of the module's documentation.
fn check_pairs(sent: &[Gone], equals: &[(usize, u64, u64)], context: &str) -> f64 {
    let heaviest = equals.iter().map(|ring| ring.1).max().expect("rings");
    let unit = (0..12).map(|power| 1u64 << power).find(|unit| unit * heaviest >= 2048);
    let unit = unit.expect("weights are above 0");
    let mut closest = 0.0f64;
    for (at, &(a, weight_a, most_a)) in equals.iter().enumerate() {
        for &(b, weight_b, most_b) in &equals[at + 1..] {
            // Bytes by weight, times both weights, so that nothing is rounded.
            let mut ahead = Range::default();
            for packet in sent {
                if packet.ring == a {
                    ahead.add(i128::from(packet.bytes) * i128::from(weight_b));
                } else if packet.ring == b {
                    ahead.add(-i128::from(packet.bytes) * i128::from(weight_a));
                }
            }
            let bound = unit * weight_a * weight_b + (most_a - 1) * weight_b + (most_b - 1) * weight_a;
            let bound = i128::from(bound);
            assert!(
                ahead.width() <= bound,
                "{context}: rings {a} and {b}: {} > {bound}",
                ahead.width()
            );
            closest = closest.max(ahead.width() as f64 / bound as f64);
        }
    }
    closest
}

#[test]
fn equals_are_served_by_weight_over_every_window() {
    let mut closest = 0.0f64;
    for seed in 0..60 {
        let mut random = Random(seed);
        let rings = random.within(2, 8) as usize;
        let equals: Vec<_> = (0..rings)
            .map(|slot| {
                (
                    slot * 3,
                    random.within(1, [1, 10, 1000][seed as usize % 3]),
                    Sizes::random(&mut random),
                )
            })
            .collect();
        let classes: Vec<_> = equals.iter().map(|ring| class(ring.0, 5, ring.1 as u16, 0)).collect();
        let half = HALVES[seed as usize % 2];
        let mut backlog = Backlog::new(half, equals.iter().map(|ring| (ring.0, ring.2)).collect());
        let sent = backlog.run(&Order::new(&classes), 6000, &mut random);
        let equals: Vec<_> = equals.iter().map(|ring| (ring.0, ring.1, ring.2.most())).collect();
        closest = closest.max(check_pairs(&sent, &equals, &format!("seed {seed}")));
    }
    assert!(closest > 0.8, "the bound is not far from what happens: {closest}");
}

/// A byte too much in each round would add up to more than the bound.
#[test]
fn no_remainder_adds_up() {
    let mut random = Random(1);
    let sizes = vec![(0, Sizes::Same(64)), (1, Sizes::Same(100)), (2, Sizes::Same(1500))];
    let order = Order::new(&[class(0, 1, 3, 0), class(1, 1, 5, 0), class(2, 1, 7, 0)]);
    let sent = Backlog::new(Half::Conforming, sizes).run(&order, 250_000, &mut random);
    check_pairs(&sent, &[(0, 3, 64), (1, 5, 100), (2, 7, 1500)], "long");
}

#[test]
fn a_heavy_ring_does_not_keep_the_others_waiting() {
    let mut random = Random(2);
    let sizes = (0..3).map(|slot| (slot, Sizes::Same(1500))).collect();
    let order = Order::new(&[class(0, 1, 1, 0), class(1, 1, 500, 0), class(2, 1, 1000, 0)]);
    let sent = Backlog::new(Half::Conforming, sizes).run(&order, 4000, &mut random);
    let mut since = 0;
    for packet in sent.iter().filter(|packet| packet.ring != 0) {
        since = if packet.ring == 1 {
            0
        } else {
            since + u64::from(packet.bytes)
        };
        assert!(since <= 2 * QUANTUM_BYTES + 2 * 1500, "{since} bytes in a row");
    }
}

/// A ring that joins a round late is not served until the next, and then as all: within another unit.
#[test]
fn who_begins_to_wait_waits_for_the_next_round() {
    for seed in 0..200 {
        let mut random = Random(seed);
        let weights = [random.within(1, 1000), random.within(1, 1000), random.within(1, 1000)];
        let classes: Vec<_> = (0..3).map(|slot| class(slot, 1, weights[slot] as u16, 0)).collect();
        let order = Order::new(&classes);
        let sizes = Sizes::Any(60, 1500);
        let late = random.below(3) as usize;
        let early: Vec<_> = (0..3).filter(|slot| *slot != late).map(|slot| (slot, sizes)).collect();
        let mut backlog = Backlog::new(Half::Conforming, early.clone());
        let before = random.within(1, 300) as usize;
        backlog.run(&order, before, &mut random);
        backlog.sizes.push((late, sizes));
        let mut out = Out::default();
        while out.sent.len() < 2000 {
            backlog.fill(&mut random);
            out.room = 2;
            backlog.rings.schedule(&order, Nanos(0), &mut Open, &mut out);
        }
        assert_eq!(
            backlog.sent + out.sent.len() + backlog.rings.held(),
            backlog.enqueued as usize
        );
        let unit = |heaviest: u64| {
            (0..12)
                .map(|power| 1 << power)
                .find(|unit| unit * heaviest >= 2048)
                .unwrap_or(0)
        };
        let heaviest = weights.iter().copied().max().unwrap_or(1);
        let heaviest_before = early.iter().map(|ring| weights[ring.0]).max().unwrap_or(1);
        let units = i128::from(unit(heaviest) + unit(heaviest_before));
        for (other, _) in early {
            let (mine, its) = (i128::from(weights[late]), i128::from(weights[other]));
            let mut ahead = Range::default();
            for packet in &out.sent {
                if packet.ring == late {
                    ahead.add(i128::from(packet.bytes) * its);
                } else if packet.ring == other {
                    ahead.add(-i128::from(packet.bytes) * mine);
                }
            }
            let bound = units * mine * its + 1499 * (mine + its);
            assert!(ahead.width() <= bound, "seed {seed}: {} > {bound}", ahead.width());
        }
    }
}

/// Random shares of the rings 0 and up that add to exactly `sum`.
fn shares(random: &mut Random, rings: usize, sum: u64) -> Vec<u64> {
    let mut cuts: Vec<u64> = (1..rings).map(|_| random.below(sum - rings as u64 + 1)).collect();
    cuts.sort_unstable();
    let ends = cuts.iter().copied().chain([sum - rings as u64]);
    let starts = [0].into_iter().chain(cuts.iter().copied());
    ends.zip(starts).map(|(end, start)| end - start + 1).collect()
}

/// `largest * (1 + 1 + 1/2 + ... + 1/rings)`, rounded up.
fn credit_bound(largest: u64, rings: usize) -> f64 {
    largest as f64 * (1.0 + (1..=rings).map(|k| 1.0 / k as f64).sum::<f64>())
}

/// How far each of `shares` fell behind what it was due over the worst window, in bytes.
fn worst_lag(sent: &[Gone], shares: &[u64], whole: u64) -> Vec<f64> {
    let lag = |slot: usize| {
        let (mut due, mut least, mut worst) = (0i128, 0i128, 0i128);
        for packet in sent {
            due += i128::from(packet.bytes) * i128::from(shares[slot]);
            due -= i128::from(packet.bytes) * i128::from(if packet.ring == slot { whole } else { 0 });
            least = least.min(due);
            worst = worst.max(due - least);
        }
        worst as f64 / whole as f64
    };
    (0..shares.len()).map(lag).collect()
}

/// Shares of `rings` rings that add to `sum` thousandths, under two saturating rings that are more urgent.
fn under_pressure(seed: u64, rings: usize, sum: u64) -> (Vec<Gone>, Vec<u64>, u64) {
    let mut random = Random(seed);
    let shares = shares(&mut random, rings, sum);
    let mut classes: Vec<_> = (0..rings)
        .map(|slot| {
            let (priority, weight) = (random.within(1, 3) as u16, random.within(1, 1000) as u16);
            class(slot, priority, weight, shares[slot] as u16)
        })
        .collect();
    classes.extend([class(rings, 0, 1, 0), class(rings + 1, 1, 7, 0)]);
    let sizes: Vec<_> = (0..rings + 2).map(|slot| (slot, Sizes::random(&mut random))).collect();
    let largest = sizes.iter().map(|sizes| sizes.1.most()).max().unwrap_or(0);
    let mut backlog = Backlog::new(HALVES[seed as usize % 2], sizes);
    let sent = backlog.run(&Order::new(&classes), 6000, &mut random);
    (sent, shares, largest)
}

#[test]
fn minimum_shares_are_kept_over_every_window() {
    for seed in 0..60 {
        let mut random = Random(!seed);
        let rings = random.within(1, 12) as usize;
        let sum = if seed % 4 == 0 {
            1000
        } else {
            random.within(rings as u64, 1000)
        };
        let (sent, shares, largest) = under_pressure(seed, rings, sum);
        let bound = credit_bound(largest, rings);
        for (slot, lag) in worst_lag(&sent, &shares, 1000).into_iter().enumerate() {
            assert!(
                lag <= bound,
                "seed {seed}: ring {slot} of {shares:?} fell {lag} behind, bound {bound}"
            );
        }
        if sum == 1000 {
            // Without a ring that is owed, one without a share may go: while all credits are below a frame each.
            let others: u64 = sent
                .iter()
                .filter(|packet| packet.ring >= rings)
                .map(|packet| u64::from(packet.bytes))
                .sum();
            assert!(others <= (rings as u64 + 1) * largest, "seed {seed}: {others}");
        }
    }
}

#[test]
fn shares_of_more_than_the_whole_are_kept_in_proportion() {
    for seed in 0..40 {
        let mut random = Random(!seed);
        let rings = random.within(2, 12) as usize;
        let sum = random.within(1001, 1000 * rings as u64 / 2 + 1001).min(1800);
        let (sent, shares, largest) = under_pressure(seed, rings, sum);
        if shares.iter().any(|share| *share > 1000) {
            continue;
        }
        let bound = credit_bound(largest, rings);
        for (slot, lag) in worst_lag(&sent, &shares, sum).into_iter().enumerate() {
            assert!(
                lag <= bound,
                "seed {seed}: ring {slot} of {shares:?} fell {lag} behind, bound {bound}"
            );
        }
    }
}

/// Rings come and go at random; a share counts over every window in which its ring waits throughout.
#[test]
fn a_share_counts_while_its_ring_waits() {
    for seed in 0..40 {
        let mut random = Random(seed);
        let shares = [100u64, 250, 50, 0, 0, 300];
        let classes: Vec<_> = (0..6)
            .map(|slot| {
                class(
                    slot,
                    random.below(3) as u16,
                    random.within(1, 9) as u16,
                    shares[slot] as u16,
                )
            })
            .collect();
        let order = Order::new(&classes);
        let (mut rings, mut out) = (Rings::new(64), Out::new(1));
        let mut enqueued = 0;
        let mut lag: Vec<Range> = (0..6).map(|_| Range::default()).collect();
        let mut worst = [0i128; 6];
        for _ in 0..8000 {
            if random.below(20) == 0 {
                let slot = random.below(6) as usize;
                for _ in 0..random.within(1, 40) {
                    let new = entry(enqueued, random.within(60, 9000) as u32, 0);
                    enqueued += u32::from(rings.enqueue(Half::Conforming, id(slot), new).is_ok());
                }
            }
            let waited: Vec<bool> = (0..6).map(|slot| rings.len(Half::Conforming, id(slot)) > 0).collect();
            let before = out.sent.len();
            rings.schedule(&order, Nanos(0), &mut Open, &mut out);
            for packet in &out.sent[before..] {
                for slot in 0..6 {
                    let lag = &mut lag[slot];
                    lag.add(i128::from(packet.bytes) * i128::from(shares[slot]));
                    lag.add(-i128::from(packet.bytes) * if packet.ring == slot { 1000 } else { 0 });
                    worst[slot] = worst[slot].max(lag.now - lag.least);
                    if !waited[slot] || rings.len(Half::Conforming, id(slot)) == 0 {
                        *lag = Range::default();
                    }
                }
            }
        }
        assert_eq!(out.sent.len() + rings.held(), enqueued as usize);
        let bound = credit_bound(9000, 4) * 1000.0;
        assert!(
            worst
                .iter()
                .zip(shares)
                .all(|(worst, share)| share == 0 || *worst as f64 <= bound),
            "seed {seed}: {worst:?}"
        );
    }
}

#[test]
fn neither_idle_nor_overserved_rings_save_anything_up() {
    let order = Order::new(&[class(0, 1, 1, 0), class(1, 2, 1, 200)]);
    let mut random = Random(3);
    for overserved in [false, true] {
        let mut backlog = Backlog::new(Half::Conforming, vec![(0, Sizes::Same(1000))]);
        if overserved {
            // Alone it is sent far more than its share; then the urgent ring comes back, and it goes on waiting.
            backlog.sizes = vec![(1, Sizes::Same(1000))];
        }
        backlog.run(&order, 500, &mut random);
        backlog.sizes = vec![(0, Sizes::Same(1000)), (1, Sizes::Same(1000))];
        let sent = backlog.run(&order, 500, &mut random);
        let (mut all, mut mine) = (0, 0);
        for packet in sent {
            all += u64::from(packet.bytes);
            mine += u64::from(packet.bytes) * u64::from(packet.ring == 1);
            assert!(
                mine * 1000 <= all * 200,
                "it never has more than its share of what was sent since"
            );
            assert!(mine * 1000 + 2_000_000 >= all * 200, "nor less by more than two frames");
        }
    }
}

/// Credit for the nonconforming comes from nonconforming bytes alone, and buys no turn before what conforms.
#[test]
fn shares_of_one_half_mean_nothing_to_the_other() {
    let order = Order::new(&[class(0, 1, 1, 0), class(1, 2, 1, 500)]);
    let mut rings = Rings::new(256);
    for item in 0..200 {
        for half in HALVES {
            for slot in 0..2 {
                rings.enqueue(half, id(slot), entry(item, 1000, 0)).expect("room");
            }
        }
    }
    let mut out = Out::new(usize::MAX);
    rings.schedule(&order, Nanos(0), &mut Open, &mut out);
    assert_eq!(out.sent.len(), 800);
    for (half, sent) in HALVES.into_iter().zip(out.sent.chunks(400)) {
        assert!(sent.iter().all(|packet| packet.half == half));
        let first: Vec<usize> = sent.iter().take(6).map(|packet| packet.ring).collect();
        assert_eq!(first, [0, 0, 1, 0, 1, 0], "each half starts without credit");
    }
}

/// Frames as large as IP has them: the credit that a ring may have is enough for one.
#[test]
fn the_largest_packets_are_owed_too() {
    let classes: Vec<_> = (0..32).map(|slot| class(slot, slot as u16, 1, 31)).collect();
    let sizes = (0..32).map(|slot| (slot, Sizes::Same(65_535))).collect();
    let sent = Backlog::new(Half::Conforming, sizes).run(&Order::new(&classes), 3200, &mut Random(4));
    for slot in 0..32 {
        let count = sent.iter().filter(|packet| packet.ring == slot).count();
        assert!(count >= 90, "ring {slot}: {count} of 3200");
    }
}

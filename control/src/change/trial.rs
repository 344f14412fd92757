//! A version on trial: it goes back by itself unless it is confirmed in time, or as soon as it loses too much or makes
//! conforming packets wait too long.
//!
//! ```text
//!            apply --confirm                 confirm
//!  settled ──────────────────► on trial ──────────────────► settled, with the new version
//!                                 │ time is up, or conforming packets are lost or late
//!                                 └───────────────────────► settled, with the version before
//! ```
//!
//! Pure state: the clock and the counters are handed in, the swap is the caller's.

use std::collections::HashMap;
use std::time::Instant;

use config::Texts;
use dataplane::cells::SlotId;
use dataplane::priority::{Half, RingId};
use dataplane::sojourn::lower_edge_ns;

use crate::observe::Ring;

/// A version on trial.
#[derive(Clone, Debug)]
pub struct Trial {
    /// When it goes back.
    pub until: Instant,
    /// Number of the version to go back to, if it is in the history.
    pub previous: Option<u64>,
    /// Its texts.
    pub texts: Texts,
    /// Parts per million of conforming packets that may be lost.
    pub max_loss_ppm: u32,
    /// Nanoseconds that the 99th percentile of a conforming ring's sojourn may reach; `None`: it is not looked at.
    pub max_latency_ns: Option<u64>,
    /// Packets of each contract before the trial: judged conforming, and of those dropped.
    pub before: HashMap<SlotId, Conforming>,
    /// The rings before the trial. Conforming packets that waited in them then were judged before it, and so were their drops.
    pub rings: Vec<Ring>,
    /// Conforming packets and their loss so far, of all contracts together.
    pub seen: Conforming,
    /// The contract that lost most of its own: a small one must not hide among large ones.
    pub worst: Option<(SlotId, Conforming)>,
    /// The conforming ring with the greatest 99th percentile since it began.
    pub slowest: Option<Slow>,
}

/// A conforming ring and how long its packets waited.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Slow {
    /// Number of its port.
    pub port: usize,
    /// Ring of its class.
    pub ring: RingId,
    /// At least so long waited one packet in a hundred: the lower edge of the bucket of the 99th percentile.
    pub p99_ns: u64,
}

/// Why a trial must go back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// It was not confirmed in time.
    Late,
    /// Too many conforming packets were lost: of this contract, or of all together.
    Lost(Option<SlotId>, Conforming),
    /// Conforming packets waited too long in this ring.
    Slow(Slow),
}

/// Conforming packets, and how many of them were dropped, exactly as the dataplane counts them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Conforming {
    /// Packets judged conforming, those that `[defaults] uncontracted` lets count as such among them.
    pub packets: u64,
    /// Of them lost.
    pub lost: u64,
}

impl Conforming {
    /// What came since these counters were `before`.
    #[must_use]
    pub fn since(self, before: Self) -> Self {
        Self {
            packets: self.packets.saturating_sub(before.packets),
            lost: self.lost.saturating_sub(before.lost),
        }
    }

    /// Parts per million lost.
    #[must_use]
    pub fn loss_ppm(self) -> u64 {
        u64::try_from(u128::from(self.lost) * 1_000_000 / u128::from(self.packets.max(1))).unwrap_or(u64::MAX)
    }
}

/// Conforming packets before a loss or a percentile is judged: below a thousand, a single packet is more than the default limit.
pub const PACKETS_MIN: u64 = 1_000;

impl Trial {
    /// Takes the counters of each contract and the rings as they are now.
    pub fn observe(&mut self, counters: impl IntoIterator<Item = (SlotId, Conforming)>, rings: &[Ring]) {
        self.observe_loss(counters);
        let conforming = rings.iter().filter(|ring| ring.half == Half::Conforming);
        let slow = conforming.filter_map(|ring| {
            let waits = ring.waits_since(&self.rings);
            let p99_ns = lower_edge_ns(waits.percentile(990)?);
            (waits.count() >= PACKETS_MIN).then_some(Slow {
                port: ring.port,
                ring: ring.ring,
                p99_ns,
            })
        });
        self.slowest = slow.max_by_key(|slow| slow.p99_ns);
    }

    fn observe_loss(&mut self, counters: impl IntoIterator<Item = (SlotId, Conforming)>) {
        let waiting = self.rings.iter().filter(|ring| ring.half == Half::Conforming);
        let held: u64 = waiting.map(|ring| ring.reading.held).sum();
        let (mut all, mut worst) = (Conforming::default(), None::<(SlotId, Conforming)>);
        for (slot, now) in counters {
            let mut one = now.since(self.before.get(&slot).copied().unwrap_or_default());
            all.packets += one.packets;
            all.lost += one.lost;
            // Any of what waited may have been of this one.
            one.lost = one.lost.saturating_sub(held);
            let worse = worst.is_none_or(|(_, most)| one.loss_ppm() > most.loss_ppm());
            if one.packets >= PACKETS_MIN && worse {
                worst = Some((slot, one));
            }
        }
        all.lost = all.lost.saturating_sub(held);
        (self.seen, self.worst) = (all, worst);
    }

    /// Why it must go back now; `None`: it goes on.
    #[must_use]
    pub fn verdict(&self, now: Instant) -> Option<Verdict> {
        let too_much = |seen: Conforming| seen.packets >= PACKETS_MIN && seen.loss_ppm() > u64::from(self.max_loss_ppm);
        if let Some((slot, seen)) = self.worst.filter(|(_, seen)| too_much(*seen)) {
            return Some(Verdict::Lost(Some(slot), seen));
        }
        if too_much(self.seen) {
            return Some(Verdict::Lost(None, self.seen));
        }
        let late = |slow: &Slow| self.max_latency_ns.is_some_and(|limit| slow.p99_ns >= limit);
        if let Some(slow) = self.slowest.filter(late) {
            return Some(Verdict::Slow(slow));
        }
        (now >= self.until).then_some(Verdict::Late)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use dataplane::clock::Nanos;
    use dataplane::sojourn::RingReading;

    use super::*;

    fn conforming(packets: u64, lost: u64) -> Conforming {
        Conforming { packets, lost }
    }

    fn ring(half: Half, held: u64, waits: &[(u64, u64)]) -> Ring {
        let mut reading = RingReading {
            held,
            ..RingReading::default()
        };
        for (packets, wait_ns) in waits {
            (0..*packets).for_each(|_| reading.waits.add(Nanos(*wait_ns)));
        }
        Ring {
            port: 1,
            half,
            ring: RingId::new(2).unwrap(),
            reading,
        }
    }

    fn trial(now: Instant) -> Trial {
        Trial {
            until: now + Duration::from_secs(10),
            previous: Some(1),
            texts: Texts::default(),
            max_loss_ppm: 1_000,
            max_latency_ns: Some(20_000_000),
            before: HashMap::from([(SlotId(0), conforming(100, 40))]),
            rings: vec![
                ring(Half::Conforming, 3, &[(5_000, 40_000_000)]),
                ring(Half::Nonconforming, 500, &[]),
            ],
            seen: Conforming::default(),
            worst: None,
            slowest: None,
        }
    }

    #[test]
    fn it_ends_by_time_or_by_loss() {
        let now = Instant::now();
        let mut trial = trial(now);
        assert_eq!(trial.verdict(now), None);
        // 2,000 conforming, 5 dropped, 3 of them perhaps from before: 2 in 2,000 is not more than a thousandth.
        trial.observe([(SlotId(0), conforming(2_100, 45))], &[]);
        assert_eq!((trial.seen.lost, trial.verdict(now)), (2, None));
        trial.observe([(SlotId(0), conforming(2_100, 46))], &[]);
        let lost = |slot, seen| Some(Verdict::Lost(slot, seen));
        assert_eq!(trial.verdict(now), lost(Some(SlotId(0)), conforming(2_000, 3)));
        // A small contract among large ones, and a little of each of many.
        trial.observe(
            [
                (SlotId(1), conforming(1_000, 10)),
                (SlotId(2), conforming(10_000_000, 0)),
            ],
            &[],
        );
        assert_eq!(trial.verdict(now), lost(Some(SlotId(1)), conforming(1_000, 7)));
        trial.observe((1..100).map(|slot| (SlotId(slot), conforming(900, 2))), &[]);
        assert_eq!(trial.verdict(now), lost(None, conforming(89_100, 195)));
        // Too few to judge.
        trial.observe([(SlotId(7), conforming(900, 900))], &[]);
        assert_eq!(trial.verdict(now), None);
        assert_eq!(trial.verdict(now + Duration::from_secs(10)), Some(Verdict::Late));
    }

    #[test]
    fn it_ends_when_conforming_packets_wait() {
        let now = Instant::now();
        let mut trial = trial(now);
        let mut observe = |rings: &[Ring]| {
            trial.observe([], rings);
            trial.verdict(now)
        };
        let before = (5_000, 40_000_000);
        // What waited before the trial, and excess, is not its fault.
        assert_eq!(observe(&[ring(Half::Conforming, 0, &[before])]), None);
        let excess = ring(Half::Nonconforming, 0, &[(9_000, 900_000_000)]);
        assert_eq!(observe(&[excess]), None);
        // Nine in a thousand wait too long: the 99th percentile does not. Too few packets are not judged.
        let some = ring(Half::Conforming, 0, &[before, (991, 0), (9, 30_000_000)]);
        assert_eq!(observe(&[some]), None);
        let few = ring(Half::Conforming, 0, &[before, (900, 30_000_000)]);
        assert_eq!(observe(&[few]), None);
        let many = ring(Half::Conforming, 0, &[before, (985, 0), (15, 30_000_000)]);
        let Some(Verdict::Slow(slow)) = observe(&[many]) else {
            panic!("it goes on");
        };
        // 30 ms lies in a bucket from 2^24 * 14 / 8 to 2^24 * 15 / 8 ns.
        assert_eq!((slow.port, slow.p99_ns), (1, (1 << 24) / 8 * 14));
    }
}

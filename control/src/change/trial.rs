//! A version on trial: it goes back by itself unless it is confirmed in time, or as soon as it loses too much.
//!
//! ```text
//!            apply --confirm                 confirm
//!  settled ──────────────────► on trial ──────────────────► settled, with the new version
//!                                 │ time is up, or conforming packets are lost
//!                                 └───────────────────────► settled, with the version before
//! ```
//!
//! Pure state: the clock and the counters are handed in, the swap is the caller's.

use std::collections::HashMap;
use std::time::Instant;

use config::Texts;
use dataplane::cells::SlotId;

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
    /// Conforming, nonconforming and dropped packets of each contract before the trial.
    pub before: HashMap<SlotId, [u64; 3]>,
    /// Packets that waited in rings then: their drops belong to packets judged before the trial.
    pub held: u64,
    /// Conforming packets and their loss so far, of all contracts together.
    pub seen: Conforming,
    /// The contract that lost most of its own: a small one must not hide among large ones.
    pub worst: Option<(SlotId, Conforming)>,
}

/// Why a trial must go back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// It was not confirmed in time.
    Late,
    /// Too many conforming packets were lost: of this contract, or of all together.
    Lost(Option<SlotId>, Conforming),
}

/// Conforming packets, and how many of them were certainly dropped.
///
/// The dataplane counts drops by contract and reason, not by half. More drops than nonconforming packets must have met
/// conforming ones; fewer are taken for excess, which goes first. So the loss is never said too large, and can be said too
/// small where a `min_share` or a short overload drops conforming packets while excess gets through.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Conforming {
    /// Packets judged conforming, those that `[defaults] uncontracted` lets count as such among them.
    pub packets: u64,
    /// Of them lost.
    pub lost: u64,
}

impl Conforming {
    /// Adds what one contract did since its counters were `before`: conforming, nonconforming, dropped packets.
    pub fn add(&mut self, before: [u64; 3], now: [u64; 3]) {
        let [conforming, nonconforming, dropped] = std::array::from_fn(|n| now[n].saturating_sub(before[n]));
        self.packets += conforming;
        self.lost += dropped.saturating_sub(nonconforming).min(conforming);
    }

    /// Parts per million lost.
    #[must_use]
    pub fn loss_ppm(self) -> u64 {
        u64::try_from(u128::from(self.lost) * 1_000_000 / u128::from(self.packets.max(1))).unwrap_or(u64::MAX)
    }
}

/// Conforming packets before a loss is judged: below a thousand, a single packet is more than the default limit.
pub const PACKETS_MIN: u64 = 1_000;

impl Trial {
    /// Takes the counters of now: conforming, nonconforming and dropped packets of each contract.
    pub fn observe(&mut self, counters: impl IntoIterator<Item = (SlotId, [u64; 3])>) {
        let (mut all, mut worst) = (Conforming::default(), None::<(SlotId, Conforming)>);
        for (slot, now) in counters {
            let mut one = Conforming::default();
            one.add(self.before.get(&slot).copied().unwrap_or_default(), now);
            all.packets += one.packets;
            all.lost += one.lost;
            // Any of what waited may have been of this one.
            one.lost = one.lost.saturating_sub(self.held);
            let worse = worst.is_none_or(|(_, most)| one.loss_ppm() > most.loss_ppm());
            if one.packets >= PACKETS_MIN && worse {
                worst = Some((slot, one));
            }
        }
        all.lost = all.lost.saturating_sub(self.held);
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
        (now >= self.until).then_some(Verdict::Late)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn trial(now: Instant) -> Trial {
        Trial {
            until: now + Duration::from_secs(10),
            previous: Some(1),
            texts: Texts::default(),
            max_loss_ppm: 1_000,
            before: HashMap::from([(SlotId(0), [100, 50, 40])]),
            held: 3,
            seen: Conforming::default(),
            worst: None,
        }
    }

    #[test]
    fn what_is_lost_for_certain() {
        // (before, now, packets, lost) in conforming, nonconforming, dropped
        let cases = [
            ([0, 0, 0], [100, 0, 0], 100, 0),
            ([0, 0, 0], [100, 50, 50], 100, 0),
            ([0, 0, 0], [100, 50, 51], 100, 1),
            ([100, 50, 40], [200, 50, 45], 100, 5),
            ([100, 50, 40], [200, 60, 45], 100, 0),
            // Never more than there was.
            ([0, 0, 0], [10, 0, 500], 10, 10),
        ];
        for (before, now, packets, lost) in cases {
            let mut sum = Conforming::default();
            sum.add(before, now);
            assert_eq!(sum, Conforming { packets, lost }, "{before:?} {now:?}");
        }
    }

    #[test]
    fn it_ends_by_time_or_by_loss() {
        let now = Instant::now();
        let mut trial = trial(now);
        assert_eq!(trial.verdict(now), None);
        // 2,000 conforming, 5 dropped, 3 of them perhaps from before: 2 in 2,000 is not more than a thousandth.
        trial.observe([(SlotId(0), [2_100, 50, 45])]);
        assert_eq!((trial.seen.lost, trial.verdict(now)), (2, None));
        trial.observe([(SlotId(0), [2_100, 50, 46])]);
        let lost = |packets, lost| Conforming { packets, lost };
        assert_eq!(trial.verdict(now), Some(Verdict::Lost(Some(SlotId(0)), lost(2_000, 3))));
        // A small contract among large ones, and a little of each of many.
        trial.observe([(SlotId(1), [1_000, 0, 10]), (SlotId(2), [10_000_000, 0, 0])]);
        assert_eq!(trial.verdict(now), Some(Verdict::Lost(Some(SlotId(1)), lost(1_000, 7))));
        trial.observe((1..100).map(|slot| (SlotId(slot), [900, 0, 2])));
        assert_eq!(trial.verdict(now), Some(Verdict::Lost(None, lost(89_100, 195))));
        // Too few to judge.
        trial.observe([(SlotId(7), [900, 0, 900])]);
        assert_eq!(trial.verdict(now), None);
        assert_eq!(trial.verdict(now + Duration::from_secs(10)), Some(Verdict::Late));
    }
}

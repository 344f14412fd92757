//! Levels that one process wrote down and the next one takes up: no token more, and at most a byte less.

use dataplane::clock::Nanos;
use dataplane::meter::{Buckets, Color, Levels, Meter, Profile, Purse};
use proptest::prelude::*;

/// The state of one contract, as a worker alone or several together have it.
struct State {
    buckets: Buckets,
    purses: Vec<Purse>,
}

impl State {
    fn full(workers: usize) -> Self {
        Self {
            buckets: Buckets::new(),
            purses: (0..workers).map(|_| Purse::new()).collect(),
        }
    }

    fn color(&self, meter: &Meter, worker: usize, bytes: u32, now: Nanos) -> Color {
        match &self.purses[..] {
            [only] => meter.color(only, bytes, now, Color::Green),
            several => {
                let sharing = self.buckets.among(several.len());
                meter.color_shared(sharing, &several[worker % several.len()], bytes, now, Color::Green)
            }
        }
    }

    fn levels(&self, meter: &Meter, now: Nanos) -> Levels {
        match &self.purses[..] {
            [only] => meter.levels(only, now),
            several => meter.levels_shared(self.buckets.among(several.len()), several.iter(), now),
        }
    }

    fn resumed(meter: &Meter, workers: usize, levels: Levels, at: Nanos) -> Self {
        let state = Self::full(workers);
        match &state.purses[..] {
            [only] => meter.resume(only, levels, at),
            several => meter.resume_shared(state.buckets.among(workers), several.iter(), levels, at),
        }
        state
    }
}

fn meter() -> impl Strategy<Value = Meter> {
    let rate = 8_000_u64..10_000_000_000;
    let burst = 9_216_u64..4_000_000;
    (0..4, rate, burst.clone(), burst).prop_map(|(kind, rate, first, second)| {
        let profile = match kind {
            0 => Profile::token_bucket(rate, first),
            1 => Profile::sr_tcm(rate, first, second),
            2 => Profile::tr_tcm(rate, first, rate * 2, second),
            _ => Profile::tr_tcm_4115(rate, first, rate, second),
        };
        Meter::new(profile.unwrap(), false)
    })
}

/// `after`, or up to a byte less.
fn is_just_below(after: u64, before: u64) -> bool {
    (before.saturating_sub(1)..=before).contains(&after)
}

proptest! {
    #[test]
    fn levels_go_on_where_they_were(
        meter in meter(),
        workers in 1_usize..6,
        workers_after in 1_usize..6,
        packets in prop::collection::vec((0_usize..6, 40_u32..9_000, 0_u64..200_000), 0..400),
        later in 0_u64..1_000_000_000,
    ) {
        let before = State::full(workers);
        let mut now = Nanos::SECOND;
        for (worker, bytes, gap) in packets {
            now = now.plus(Nanos(gap));
            let _color = before.color(&meter, worker, bytes, now);
        }
        let saved = before.levels(&meter, now);
        let after = State::resumed(&meter, workers_after, saved, now);
        let resumed = after.levels(&meter, now);
        prop_assert!(is_just_below(resumed.committed_bytes, saved.committed_bytes), "{saved:?} became {resumed:?}");
        prop_assert_eq!(resumed.second_bytes.is_some(), saved.second_bytes.is_some());
        let second = resumed.second_bytes.zip(saved.second_bytes);
        prop_assert!(second.is_none_or(|(resumed, saved)| is_just_below(resumed, saved)), "{saved:?} became {resumed:?}");

        // What comes later fills both alike: together never more than the burst, and no token that the old one had not.
        let later = now.plus(Nanos(later));
        let (old, new) = (before.levels(&meter, later), after.levels(&meter, later));
        prop_assert!(new.committed_bytes <= meter.full().committed_bytes);
        if workers == 1 && workers_after == 1 {
            prop_assert!(is_just_below(new.committed_bytes, old.committed_bytes), "{old:?}, but {new:?}");
        }
    }

    #[test]
    fn a_level_above_the_burst_is_a_full_bucket(meter in meter(), workers in 1_usize..6) {
        let levels = Levels { committed_bytes: u64::MAX, second_bytes: Some(u64::MAX) };
        let state = State::resumed(&meter, workers, levels, Nanos::SECOND);
        prop_assert_eq!(state.levels(&meter, Nanos::SECOND), State::full(workers).levels(&meter, Nanos::SECOND));
    }
}

//! The port's rate: pacing, slack, reload, and workers that share it.

use dataplane::clock::Nanos;
use dataplane::shaper::{ConformingBacklog, ShaperRate, ShaperRateError, ShaperState};
use proptest::prelude::*;
use proptest::test_runner::{Config, RngSeed};
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;

fn rate(rate_bps: u64, slack_ns: u64) -> ShaperRate {
    ShaperRate::new(rate_bps, Nanos(slack_ns)).unwrap()
}

#[test]
fn ranges() {
    for rate_bps in [0, 7_999, 800_000_000_001] {
        assert_eq!(
            ShaperRate::new(rate_bps, Nanos(0)),
            Err(ShaperRateError::RateOutOfRange { rate_bps })
        );
    }
    let slack_ns = 10_000_001;
    assert_eq!(
        ShaperRate::new(8_000, Nanos(slack_ns)),
        Err(ShaperRateError::SlackTooLong { slack_ns })
    );
    assert!(ShaperRate::new(800_000_000_000, ShaperRate::SLACK_MAX).is_ok());
}

/// One byte per nanosecond: every packet leaves when the one before has left the wire.
#[test]
fn a_replayed_port_paces_perfectly() {
    let (rate, state) = (rate(8_000_000_000, 0), ShaperState::new());
    assert_eq!(state.next_send(&rate, Nanos(100)), Nanos(100));
    assert!(state.try_send(&rate, 1_500, Nanos(100)));
    assert_eq!(
        state.next_send(&rate, Nanos(101)),
        Nanos(1_599),
        "1,500 bytes less the one saved before the first"
    );
    assert!(!state.try_send(&rate, 64, Nanos(1_598)));
    assert!(state.try_send(&rate, 64, Nanos(1_599)));
    assert_eq!(
        state.next_send(&rate, Nanos(0)),
        Nanos(1_663),
        "also for a clock that is behind"
    );
    assert!(!state.try_send(&rate, 1, Nanos(0)));
}

/// Always sending at the first possible instant gives the rate exactly, in spite of whole nanoseconds.
#[test]
fn back_to_back_packets_give_the_rate() {
    for rate_bps in [8_000, 10_000_000_000, 1_234_567_891, 799_999_999_987, 800_000_000_000] {
        for bytes in [64, 65, 1_500] {
            let (rate, state) = (rate(rate_bps, 0), ShaperState::new());
            let mut now = Nanos(0);
            let packets = 20_000_u64;
            for _ in 0..packets {
                now = state.next_send(&rate, now);
                assert!(state.try_send(&rate, bytes, now));
            }
            // The last packet has begun; those before it have gone by at the rate, with a nanosecond saved at the start.
            let sent_bits = u128::from(packets - 1) * u128::from(bytes) * 8_000_000_000;
            let due = sent_bits.div_ceil(u128::from(rate_bps)) as u64 - 1;
            assert_eq!(now.0, due, "{bytes} bytes at {rate_bps} bit/s");
        }
    }
}

#[test]
fn an_idle_port_saves_up_its_slack_and_no_more() {
    let (rate, state) = (rate(8_000_000_000, 1_000), ShaperState::new());
    assert!(state.try_send(&rate, 1, Nanos(0)));
    let year = Nanos(31_557_600_000_000_000);
    let mut sent = 0;
    while state.try_send(&rate, 100, year) {
        sent += 100;
    }
    assert_eq!(sent, 1_100, "slack of 1,001 bytes, and the packet that goes into debt");
    assert_eq!(state.next_send(&rate, year), year.plus(Nanos(99)));
}

#[test]
fn a_new_rate_finds_the_old_debt_in_bits() {
    let (slow, fast) = (rate(8_000_000, 0), rate(8_000_000_000, 0));
    let state = ShaperState::new();
    assert!(state.try_send(&slow, 1_001, Nanos(0)));
    let at = state.next_send(&slow, Nanos(0));
    assert_eq!(
        at,
        Nanos(1_000_999),
        "a nanosecond's saving at 8 Mbit/s is a thousandth of a byte"
    );
    assert_eq!(state.next_send(&fast, Nanos(0)), Nanos(1_001));
    assert!(!state.try_send(&fast, 1, Nanos(1_000)));
    assert!(state.try_send(&fast, 1, Nanos(1_001)));
}

#[test]
fn extremes_saturate() {
    let (rate, state) = (rate(400_000_000_000, 10_000_000), ShaperState::new());
    assert!(state.try_send(&rate, u32::MAX, Nanos(0)));
    assert!(!state.try_send(&rate, 1, Nanos(0)));
    assert!(state.next_send(&rate, Nanos(0)) > Nanos(13_000_000));
    assert!(state.try_send(&rate, u32::MAX, Nanos(u64::MAX)));
    assert!(!state.try_send(&rate, 1, Nanos(u64::MAX)));
    assert_eq!(state.next_send(&rate, Nanos(u64::MAX)), Nanos(u64::MAX));
}

proptest! {
    #![proptest_config(Config {
        cases: 500, rng_seed: RngSeed::Fixed(0x5A_9E), failure_persistence: None, ..Config::default()
    })]

    /// `next_send` is the first instant at which `try_send` succeeds, and every window keeps its bound.
    #[test]
    fn next_send_is_exact_and_windows_are_bounded(
        rate_bps in prop_oneof![8_000_u64..100_000, 1_000_000_u64..1_000_000_000, 1_000_000_000_u64..=800_000_000_000],
        slack_ns in prop_oneof![Just(0_u64), 0_u64..1_000_000],
        packets in prop::collection::vec((0_u64..3, 0_u64..2_000_000, 1_u32..10_000), 1..60),
    ) {
        let (rate, state) = (rate(rate_bps, slack_ns), ShaperState::new());
        let mut now = 0;
        let mut sent = Vec::new();
        for (kind, gap, bytes) in packets {
            now += if kind == 0 { gap } else { 0 };
            let next = state.next_send(&rate, Nanos(now)).0;
            prop_assert!(next >= now);
            if next > now {
                prop_assert!(!state.try_send(&rate, bytes, Nanos(next - 1)));
                now = next;
            }
            prop_assert!(state.try_send(&rate, bytes, Nanos(now)));
            sent.push((now, bytes));
        }
        for (first, &(from, _)) in sent.iter().enumerate() {
            let mut before = 0_u128;
            for &(until, bytes) in &sent[first..] {
                let allowed = u128::from(rate_bps) * u128::from(until - from + slack_ns + 1);
                prop_assert!(before * 8_000_000_000 <= allowed, "{} bytes before the last", before);
                before += u128::from(bytes);
            }
        }
    }
}

#[test]
fn eight_workers_send_the_rate_together() {
    let rate_bps = 10_000_000_000;
    let (rate, state, clock) = (rate(rate_bps, 0), ShaperState::new(), AtomicU64::new(0));
    let bytes = thread::scope(|scope| {
        let worker = || {
            let mut sent = 0_u64;
            for _ in 0..50_000 {
                let now = Nanos(clock.fetch_add(10, Ordering::Relaxed));
                sent += if state.try_send(&rate, 1_000, now) { 1_000 } else { 0 };
            }
            sent
        };
        let workers: Vec<_> = (0..8).map(|_| scope.spawn(worker)).collect();
        workers.into_iter().map(|worker| worker.join().unwrap()).sum::<u64>()
    });
    let elapsed_ns = 8 * 50_000 * 10;
    let entitled = rate_bps * elapsed_ns / 8_000_000_000;
    assert!(bytes <= entitled + 1_000 + 2, "{bytes} of {entitled}");
    assert!(bytes > entitled / 2, "{bytes} of {entitled}");
}

#[test]
fn conforming_backlog_is_about_the_others() {
    let backlog = ConformingBacklog::new();
    assert!(!backlog.others_waiting(0));
    backlog.set(63, true);
    backlog.set(63, true);
    assert!(backlog.others_waiting(0));
    assert!(!backlog.others_waiting(63));
    backlog.set(0, true);
    assert!(backlog.others_waiting(63));
    backlog.set(63, false);
    backlog.set(63, false);
    assert!(!backlog.others_waiting(0));
    assert!(backlog.others_waiting(5));
}

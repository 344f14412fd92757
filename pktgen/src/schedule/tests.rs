//! The instants against the integral in big rationals, and the notation.

use num_bigint::BigInt;
use num_rational::BigRational;
use proptest::prelude::*;
use proptest::test_runner::RngSeed;

use super::*;

const FRAME: MeanFrame = MeanFrame {
    bytes: 64.0,
    vlan_tags: 0,
};

fn schedule(text: &str) -> Schedule {
    let plan: Plan = text.parse().unwrap_or_else(|e| panic!("{text}: {e}"));
    plan.schedule(FRAME, None).unwrap_or_else(|e| panic!("{text}: {e}"))
}

fn instants(text: &str, count: usize) -> Vec<u64> {
    schedule(text).instants().take(count).map(|instant| instant.0).collect()
}

#[test]
fn known_schedules_have_known_instants() {
    assert_eq!(instants("1Mpps", 4), [0, 1_000, 2_000, 3_000]);
    assert_eq!(instants("3Mpps", 7), [0, 333, 666, 1_000, 1_333, 1_666, 2_000]);
    // 15 Mpps: no drift after a second.
    assert_eq!(
        schedule("15Mpps").instants().nth(15_000_000),
        Some(Nanos(1_000_000_000))
    );
    assert_eq!(
        instants("step 1Mpps 3us, 2Mpps 1us", 9),
        [0, 1_000, 2_000, 3_000, 3_500]
    );
    assert_eq!(
        instants("burst 3 packets every 1ms", 7),
        [0, 0, 0, 1_000_000, 1_000_000, 1_000_000, 2_000_000]
    );
    assert_eq!(
        instants("burst 2 packets at 10Mpps every 1us for 2us", 9),
        [0, 100, 1_000, 1_100]
    );
    assert_eq!(
        instants("on 1Mpps 2us off 8us", 6),
        [0, 1_000, 10_000, 11_000, 20_000, 21_000]
    );
    // One and a half packets in each on-time: the half is kept, and the mean is right.
    assert_eq!(
        instants("on 1Mpps 1500ns off 8500ns", 6),
        [0, 1_000, 10_500, 20_000, 21_000, 30_500]
    );
    assert_eq!(instants("idle 5us; 1Mpps 2us", 9), [5_000, 6_000]);
    assert_eq!(instants("1Mpps 1us; idle 9us; repeat", 3), [0, 10_000, 20_000]);
    // A ramp from 0 to 2 packets per second in 2 s has t²/2 packets by t.
    assert_eq!(
        instants("ramp 0..2pps 2s; 2pps 1s", 9),
        [0, 1_414_213_562, 2_000_000_000, 2_500_000_000]
    );
    // 512 Mbit/s of 64-byte frames.
    assert_eq!(instants("512Mbit/s", 3), [0, 1_000, 2_000]);
}

#[test]
fn counts_are_exact() {
    let cases = [
        ("15Mpps 10s", 150_000_000),
        ("ramp 1Mpps..5Mpps 10s", 30_000_000),
        ("ramp 5Mpps..0 10s", 25_000_000),
        ("step 1Mpps 5s, 2Mpps 5s", 15_000_000),
        ("burst 64 packets every 1ms for 1s", 64_000),
        ("burst 64 packets every 1ms for 1.5ms", 128),
        ("on 10Mpps 100us off 900us for 1s", 1_000_000),
        ("1pps 1h; idle 1h", 3_600),
    ];
    for (text, packets) in cases {
        let schedule = schedule(text);
        let end = schedule.end().unwrap();
        assert_eq!(schedule.packets_before(end), packets, "{text}");
        assert_eq!(schedule.packets_before(Nanos(u64::MAX)), packets, "{text}");
        assert_eq!(schedule.packets_before(Nanos(0)), 0, "{text}");
        assert!(schedule.instant(packets - 1).is_some_and(|last| last < end), "{text}");
        assert_eq!(schedule.instant(packets), None, "{text}");
    }
    let repeated = schedule("ramp 0..1Mpps 10ms; idle 90ms; repeat");
    assert_eq!(
        repeated.packets_between(Nanos(0), Nanos(3_600_000_000_000)),
        5_000 * 36_000
    );
    assert_eq!(repeated.end(), None);
    assert!((repeated.pps_at(Nanos(105_000_000)) - 500_000.0).abs() < 1.0);
    assert!((schedule("burst 64 packets every 1ms").peak_pps() - 64_000.0).abs() < 1e-9);
}

#[test]
fn several_senders_share_the_packets() {
    let schedule = schedule("ramp 1Mpps..2Mpps 100us; burst 7 packets every 10us for 100us");
    let mut all: Vec<Nanos> = (0..3).flat_map(|share| schedule.instants_of(share, 3)).collect();
    all.sort();
    assert_eq!(all, schedule.instants().collect::<Vec<_>>());
    assert_eq!(schedule.instants_of(1, 3).next(), schedule.instant(1));
}

#[test]
fn a_rate_over_the_line_is_warned_of() {
    let line: LineRate = "1Gbit/s".parse().unwrap();
    let warning = |text: &str| text.parse::<Plan>().unwrap().warning(FRAME, line);
    assert_eq!(warning("ramp 0..100% 1s; idle 1s; burst 64 packets every 1ms"), None);
    assert!(warning("50% 1s; ramp 10%..150% 1s; 120%").is_some_and(|text| text.contains("150.0 %")));
}

#[test]
fn slow_rates_over_short_passes_are_not_walked_through() {
    let schedule = schedule("0.00001pps 1ns; idle 1ns; repeat");
    let two: Vec<u64> = schedule.instants().take(2).map(|i| i.0).collect();
    assert_eq!(two, [0, 200_000_000_000_000]);
    assert_eq!(schedule.instant(1), Some(Nanos(200_000_000_000_000)));
}

#[test]
fn the_iterator_ends_with_the_clock() {
    let all: Vec<Nanos> = schedule("0.000001pps").instants().collect();
    assert_eq!(all.len() as u64, u64::MAX / 1_000_000_000_000_000 + 1);
}

#[test]
fn the_iterator_and_the_search_agree() {
    for text in [
        "ramp 1Mpps..29Mpps 2ms; ramp 29Mpps..0 2ms; 7Mpps 1ms; repeat",
        "ramp 0..100Mpps 300us; on 3Mpps 700ns off 1900ns for 1ms; ramp 1kpps..1Mpps 10ms; repeat",
        "ramp 999999999pps..1pps 50us; burst 5 packets at 2Mpps every 10us for 33us; repeat",
    ] {
        let schedule = schedule(text);
        for (k, at) in schedule.instants().take(60_000).enumerate() {
            assert_eq!(schedule.instant(k as u64), Some(at), "{text}: packet {k}");
        }
    }
}

/// The number of packets due before `t` by the definition, in rationals: for each part its integral.
fn naive_count(schedule: &Schedule, t: u64) -> BigInt {
    let ratio = |n: u64, d: u64| BigRational::new(n.into(), d.into());
    let mut work = ratio(0, 1);
    let mut bursts = BigInt::from(0);
    let mut start = 0;
    'passes: loop {
        for segment in &schedule.inner.segments {
            if start >= t {
                break 'passes;
            }
            let x = (t - start).min(segment.duration);
            let (add, packets) = naive_part(&segment.kind, segment.duration, x);
            work += add;
            bursts += packets;
            start = start.saturating_add(segment.duration);
        }
        if !schedule.inner.repeats {
            break;
        }
    }
    work.ceil().to_integer() + bursts
}

/// Packets of the integral and of bursts in the first `x` ns of a part.
fn naive_part(kind: &Kind, duration: u64, x: u64) -> (BigRational, BigInt) {
    let ratio = |n: u64, d: u64| BigRational::new(n.into(), d.into());
    let packets = |twice_rate: u64, time: BigRational| ratio(twice_rate, 2_000_000) * time / ratio(1_000_000_000, 1);
    match *kind {
        Kind::Idle => (ratio(0, 1), 0.into()),
        Kind::Constant { twice_rate } => (packets(twice_rate, ratio(x, 1)), 0.into()),
        Kind::OnOff { twice_rate, on, period } => {
            let mut time = 0;
            let mut begin = 0;
            while begin < x {
                time += on.min(x - begin);
                begin += period;
            }
            (packets(twice_rate, ratio(time, 1)), 0.into())
        }
        Kind::Burst {
            packets: n,
            twice_rate,
            period,
        } => {
            let mut count = BigInt::from(0);
            let mut begin = 0;
            while begin < x {
                for i in 0..n {
                    let gap = if twice_rate == 0 {
                        ratio(0, 1)
                    } else {
                        ratio(i, 1) * ratio(2_000_000, twice_rate) * ratio(1_000_000_000, 1)
                    };
                    if ratio(begin, 1) + gap < ratio(x, 1) {
                        count += 1;
                    }
                }
                begin += period;
            }
            (ratio(0, 1), count)
        }
        Kind::Ramp(ramp) => {
            let (from, to) = ramp.ends();
            // The mean rate up to x is the mean of the rates at 0 and x.
            let from = BigRational::from_integer(from.into());
            let to = BigRational::from_integer(to.into());
            let x = ratio(x, 1);
            let mean = &from + (to - &from) * &x / ratio(2 * duration, 1);
            (
                mean * x / BigRational::from_integer(1_000_000_000_000_000u64.into()),
                0.into(),
            )
        }
    }
}

fn any_part() -> impl Strategy<Value = String> {
    let rate = || {
        prop_oneof![
            (1u32..5_000).prop_map(|n| format!("{n}kpps")),
            (1u32..9_999).prop_map(|n| format!("{n}.{n:04}pps"))
        ]
    };
    let end = move || prop_oneof![4 => rate(), 1 => Just("0".to_owned())];
    let time = || (1u32..3_000_000).prop_map(|n| format!("{n}ns"));
    prop_oneof![
        (rate(), time()).prop_map(|(r, t)| format!("{r} {t}")),
        (end(), end(), time()).prop_map(|(a, b, t)| format!("ramp {a}..{b} {t}")),
        (1u32..20, 1_000u32..500_000, time()).prop_map(|(n, e, t)| format!("burst {n} packets every {e}ns for {t}")),
        (1u32..20, 20_000u32..500_000, time())
            .prop_map(|(n, e, t)| format!("burst {n} packets at 1.7Mpps every {e}ns for {t}")),
        (rate(), 10_000u32..90_000, 10_000u32..90_000, time())
            .prop_map(|(r, a, b, t)| format!("on {r} {a}ns off {b}ns for {t}")),
        time().prop_map(|t| format!("idle {t}")),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig {
        cases: 200, rng_seed: RngSeed::Fixed(0x5c4e), failure_persistence: None, ..ProptestConfig::default()
    })]

    #[test]
    fn instants_and_counts_are_those_of_the_integral(
        parts in prop::collection::vec(any_part(), 1..5), repeats in any::<bool>(), cut in 0u64..4_000_000,
    ) {
        let text = parts.join("; ") + if repeats { "; repeat" } else { "" };
        let plan: Plan = text.parse().map_err(|e: PlanError| TestCaseError::fail(format!("{text}: {e}")))?;
        prop_assert_eq!(&plan.to_string().parse::<Plan>().map_err(|e| TestCaseError::fail(e.to_string()))?, &plan);
        let schedule = match plan.schedule(FRAME, None) {
            Err(ScheduleError::Silent) => return Ok(()),
            other => other.map_err(|e| TestCaseError::fail(format!("{text}: {e}")))?,
        };
        let due: Vec<Nanos> = schedule.instants().take(3_000).collect();
        prop_assert!(due.is_sorted(), "{}", text);
        let horizon = if due.len() < 3_000 { u64::MAX } else { due[due.len() - 1].0 };
        for t in [0, 1, cut / 7, cut, cut + 1].into_iter().filter(|t| *t <= horizon) {
            let naive = naive_count(&schedule, t);
            prop_assert_eq!(BigInt::from(schedule.packets_before(Nanos(t))), naive.clone(), "{} before {}", text, t);
            prop_assert_eq!(BigInt::from(due.iter().filter(|i| i.0 < t).count()), naive, "{} yielded before {}", text, t);
        }
        // By the definition each packet is the first not before its instant, and is before the next nanosecond.
        for k in [0, 1, 2, 7, 100, 1_000, 2_999].into_iter().filter(|k| *k < due.len()) {
            let at = due[k].0;
            prop_assert_eq!(schedule.instant(k as u64), Some(due[k]), "{}: packet {}", text, k);
            if at < 8_000_000 {
                prop_assert!(naive_count(&schedule, at) <= BigInt::from(k), "{}: packet {} at {}", text, k, at);
                prop_assert!(naive_count(&schedule, at + 1) > BigInt::from(k), "{}: packet {} at {}", text, k, at);
            }
        }
    }

    #[test]
    fn long_steep_ramps_are_exact(from in 0u64..20_000_000, to in 0u64..20_000_000, seconds in 1u64..1_000, k in any::<u32>()) {
        let end = |pps: u64| if pps == 0 { "0".to_owned() } else { format!("{pps}pps") };
        let text = format!("ramp {}..{} {seconds}s; repeat", end(from), end(to));
        prop_assume!(from + to > 0);
        let schedule = schedule(&text);
        let k = u64::from(k);
        let at = schedule.instant(k).ok_or_else(|| TestCaseError::fail("ended"))?;
        prop_assert!(schedule.packets_before(at) <= k && schedule.packets_before(Nanos(at.0 + 1)) > k, "{} {}", text, k);
    }

    #[test]
    fn no_text_panics(text in "(ramp|step|burst|on|idle|1Mpps|0|;|\\.\\.|,| |5s|0s|64|packets|every|for|at|off|repeat|é|max|1e18pps|9999999h|1.5ns){0,9}") {
        if let Ok(plan) = text.parse::<Plan>()
            && let Ok(schedule) = plan.schedule(FRAME, None)
        {
            prop_assert!(schedule.instants().take(5).count() > 0, "{}", text);
            let _ = schedule.instant(1 << 60);
            let _ = schedule.packets_before(Nanos(u64::MAX));
        }
    }
}

#[test]
fn plans_round_trip() {
    for text in [
        "1Mpps",
        "max",
        "ramp 0..5Gbit/s@l2 10s; 5Gbit/s@l2",
        "1Mpps 5s; 2Mpps 5s; repeat",
        "burst 64 packets at 10Mpps every 1ms for 2min",
        "on 80% 100us off 900us",
        "idle 1500us; on 1Mpps 1us off 1ns for 1h",
    ] {
        let plan: Plan = text.parse().unwrap_or_else(|e| panic!("{text}: {e}"));
        assert_eq!(plan.to_string(), text);
        let json = serde_json::to_string(&plan).unwrap();
        assert_eq!(serde_json::from_str::<Plan>(&json).unwrap(), plan);
    }
    let parse = |text: &str| text.parse::<Plan>().unwrap();
    assert_eq!(
        parse("step 1 Mpps 5 s, 2Mpps for 1.5ms"),
        parse("1Mpps 5000ms; 2Mpps 1500us")
    );
    assert_eq!(parse("burst 1 packet every 1ms"), parse("burst 1 packets every 1000us"));
    assert_eq!(parse("max").single_rate(), Some(Rate::Max));
    assert_eq!(parse("max"), Plan::constant(Rate::Max));
}

#[test]
fn bad_plans_say_how_to_mend_them() {
    let cases = [
        ("", "empty"),
        ("1Mpps 5s;", "empty"),
        ("repeat", "rate \"repeat\""),
        ("1Mpps; 2Mpps", "give it a duration"),
        ("1Mpps; repeat", "give it a duration"),
        ("ramp 1Mpps..5Mpps", "how long the ramp takes"),
        ("ramp 1Mpps 5Mpps 5s", "\"..\""),
        ("burst 64 every 1ms", "\"packets\""),
        ("burst x packets every 1ms", "whole number of packets"),
        ("burst 0 packets every 1ms", "above 0"),
        ("burst 64 packets every 0s", "above 0"),
        ("on 1Mpps 5s", "\"off\" is missing"),
        ("1Mpps 0s", "above 0"),
        ("1Mpps 5", "no duration"),
        ("1Mpps 0.1ns", "whole nanoseconds"),
        ("1Mpps 5s 6s", "too many"),
        ("step 1Mpps 5s, 2mpps 5s", "did you mean Mpps"),
        ("1Mpps 99999999999999999999h", "no duration"),
    ];
    for (text, part) in cases {
        let error = text.parse::<Plan>().unwrap_err().to_string();
        assert!(error.contains(part), "{text}: {error}");
    }
    let cases = [
        ("idle 5s", "no packet"),
        ("ramp 0..0 5s; repeat", "no packet"),
        ("max 5s", "stand alone"),
        ("80%", "--line-rate"),
        ("2e9pps", "out of range"),
        ("burst 64 packets at 10kpps every 1ms", "longer than its period"),
        ("burst 64 packets every 1ns", "out of range"),
        ("2pps 5000000h", "292 years"),
        (
            "ramp 1.000001pps..999999.999999pps 1000000.000000001s",
            "split the ramp",
        ),
    ];
    for (text, part) in cases {
        let plan: Plan = text.parse().unwrap_or_else(|e| panic!("{text}: {e}"));
        let error = plan.schedule(FRAME, None).unwrap_err().to_string();
        assert!(error.contains(part), "{text}: {error}");
    }
}

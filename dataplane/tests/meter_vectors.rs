//! Meters against published vectors and against the sentences of the RFCs that are easy to get wrong.

use dataplane::clock::Nanos;
use dataplane::meter::{Color, Levels, Meter, Profile, Purse};

use Color::{Green as G, Red as R, Yellow as Y};

/// The committed rate of DPDK's meter tests: 46,000,000 bytes/s.
const CIR: u64 = 368_000_000;
/// Their peak or excess rate: 69,000,000 bytes/s.
const PIR: u64 = 552_000_000;

const ARRIVALS: [Color; 3] = [G, Y, R];

/// Sends one packet after another at one instant.
fn colors(meter: Meter, packets: &[(u32, Color)]) -> Vec<Color> {
    let purse = Purse::new();
    packets
        .iter()
        .map(|&(bytes, arrived)| meter.color(&purse, bytes, Nanos(0), arrived))
        .collect()
}

fn levels(committed_bytes: u64, second_bytes: u64) -> Levels {
    Levels {
        committed_bytes,
        second_bytes: Some(second_bytes),
    }
}

/// DPDK `app/test/test_meter.c`: one packet, one second after a fresh meter was made.
#[test]
fn dpdk_published_colors() {
    let (cbs, second) = (2_048, 4_096);
    let sizes = [cbs - 1, cbs + 1, second - 1, second + 1].map(|bytes| bytes as u32);
    let aware = [(G, [G, Y, Y, R]), (Y, [Y, Y, Y, R]), (R, [R, R, R, R])];
    let profiles = [
        ("srTCM", Profile::sr_tcm(CIR, cbs, second)),
        ("trTCM", Profile::tr_tcm(CIR, cbs, PIR, second)),
        ("trTCM of RFC 4115", Profile::tr_tcm_4115(CIR, cbs, PIR, second)),
    ];
    for (name, profile) in profiles {
        let profile = profile.expect("the published numbers are valid");
        let one = |color_aware, bytes, arrived| {
            let purse = Purse::new();
            let meter = Meter::new(profile, color_aware);
            assert_eq!(meter.levels(&purse, Nanos(0)), levels(cbs, second));
            meter.color(&purse, bytes, Nanos::SECOND, arrived)
        };
        for arrived in ARRIVALS {
            assert_eq!(
                sizes.map(|bytes| one(false, bytes, arrived)),
                [G, Y, Y, R],
                "{name}, blind, {arrived:?}"
            );
        }
        for (arrived, expected) in aware {
            assert_eq!(
                sizes.map(|bytes| one(true, bytes, arrived)),
                expected,
                "{name}, aware, {arrived:?}"
            );
        }
    }
}

#[test]
fn dpdk_published_configurations() {
    assert!(Profile::sr_tcm(0, 2_048, 4_096).is_err());
    assert!(Profile::sr_tcm(CIR, 0, 0).is_err());
    assert!(Profile::sr_tcm(CIR, 0, 4_096).is_ok());
    assert!(Profile::sr_tcm(CIR, 2_048, 0).is_ok());
    assert!(Profile::tr_tcm(0, 2_048, PIR, 4_096).is_err());
    assert!(Profile::tr_tcm(CIR, 0, PIR, 4_096).is_err());
    assert!(Profile::tr_tcm(CIR, 2_048, PIR, 0).is_err());
    assert!(Profile::tr_tcm(PIR, 2_048, CIR, 4_096).is_err());
}

#[test]
fn several_packets_at_one_instant() {
    let sr_tcm = Meter::new(Profile::sr_tcm(CIR, 2_000, 1_000).unwrap(), false);
    assert_eq!(colors(sr_tcm, &[(1_500, G), (1_200, G), (600, G)]), [G, R, Y]);
    let tr_tcm = Meter::new(Profile::tr_tcm(CIR, 1_500, PIR, 3_000).unwrap(), false);
    assert_eq!(colors(tr_tcm, &[(1_200, G), (1_000, G), (900, G)]), [G, Y, R]);
    let tr_tcm_4115 = Meter::new(Profile::tr_tcm_4115(CIR, 1_500, PIR, 3_000).unwrap(), false);
    assert_eq!(
        colors(tr_tcm_4115, &[(1_500, G), (1_500, G), (1_500, G), (1, G)]),
        [G, Y, Y, R]
    );
}

#[test]
fn a_packet_of_exactly_the_level_fits() {
    for profile in [
        Profile::token_bucket(CIR, 1_500),
        Profile::sr_tcm(CIR, 1_500, 1_500),
        Profile::tr_tcm(CIR, 1_500, PIR, 3_000),
        Profile::tr_tcm_4115(CIR, 1_500, PIR, 1_500),
    ] {
        let packets = [(1_500, G), (1_500, G), (1, G)];
        let profile = profile.unwrap();
        let found = colors(Meter::new(profile, false), &packets);
        assert_eq!(found[0], G, "{profile:?}");
        assert_eq!(found[2], R, "{profile:?}");
    }
}

/// One byte at 8 kbit/s is one millisecond: not a nanosecond earlier.
#[test]
fn a_packet_fits_at_the_first_instant_that_the_rate_allows() {
    let meter = Meter::new(Profile::token_bucket(8_000, 100).unwrap(), false);
    let purse = Purse::new();
    assert_eq!(meter.color(&purse, 100, Nanos(5), G), G);
    assert_eq!(meter.color(&purse, 1, Nanos(5 + 999_999), G), R);
    assert_eq!(meter.color(&purse, 1, Nanos(5 + 1_000_000), G), G);
    assert_eq!(meter.color(&purse, 1, Nanos(5 + 1_000_000), G), R);
}

#[test]
fn what_a_color_costs() {
    let cost = |profile: Profile, color_aware, bytes, arrived| {
        let purse = Purse::new();
        let meter = Meter::new(profile, color_aware);
        let color = meter.color(&purse, bytes, Nanos(7), arrived);
        (color, meter.levels(&purse, Nanos(7)))
    };
    let sr_tcm = Profile::sr_tcm(CIR, 1_000, 2_000).unwrap();
    let tr_tcm = Profile::tr_tcm(CIR, 1_000, PIR, 2_000).unwrap();
    let tr_tcm_4115 = Profile::tr_tcm_4115(CIR, 1_000, PIR, 2_000).unwrap();
    // Green: C alone, but RFC 2698 takes both.
    assert_eq!(cost(sr_tcm, false, 700, G), (G, levels(300, 2_000)));
    assert_eq!(cost(tr_tcm, false, 700, G), (G, levels(300, 1_300)));
    assert_eq!(cost(tr_tcm_4115, false, 700, G), (G, levels(300, 2_000)));
    // Yellow: the second alone, whether it was too large for C or came yellow. Red: nothing.
    for profile in [sr_tcm, tr_tcm, tr_tcm_4115] {
        assert_eq!(cost(profile, false, 1_001, G), (Y, levels(1_000, 999)));
        assert_eq!(cost(profile, true, 700, Y), (Y, levels(1_000, 1_300)));
        assert_eq!(cost(profile, false, 2_001, G), (R, levels(1_000, 2_000)));
        assert_eq!(cost(profile, true, 2_001, Y), (R, levels(1_000, 2_000)));
        assert_eq!(cost(profile, true, 1, R), (R, levels(1_000, 2_000)));
    }
    let token_bucket = Profile::token_bucket(CIR, 1_000).unwrap();
    let committed = |committed_bytes| Levels {
        committed_bytes,
        second_bytes: None,
    };
    assert_eq!(cost(token_bucket, true, 700, G), (G, committed(300)));
    assert_eq!(cost(token_bucket, true, 700, Y), (Y, committed(1_000)));
    assert_eq!(cost(token_bucket, true, 700, R), (R, committed(1_000)));
    assert_eq!(cost(token_bucket, true, 1_001, G), (R, committed(1_000)));
    assert_eq!(cost(token_bucket, false, 700, R), (G, committed(300)));
}

/// In RFC 2698 a packet that P refuses must not be saved by C, although C may hold more than P.
#[test]
fn two_rates_ask_the_peak_first() {
    let meter = Meter::new(Profile::tr_tcm(CIR, 3_000, PIR, 1_500).unwrap(), false);
    assert_eq!(colors(meter, &[(2_000, G), (1_500, G), (1, G)]), [R, G, R]);
}

/// RFC 2697: tokens go to E only while C is full; that C is full is no reason to lose them.
#[test]
fn single_rate_overflow_goes_to_the_excess_bucket() {
    let rate = 8_000_000; // one byte per microsecond
    let meter = Meter::new(Profile::sr_tcm(rate, 1_000, 500).unwrap(), false);
    let purse = Purse::new();
    let after = |us: u64| Nanos(us * 1_000);
    assert_eq!(meter.color(&purse, 1_000, after(0), G), G);
    assert_eq!(meter.color(&purse, 500, after(0), G), Y);
    assert_eq!(meter.levels(&purse, after(0)), levels(0, 0));
    assert_eq!(meter.levels(&purse, after(900)), levels(900, 0));
    assert_eq!(meter.levels(&purse, after(1_200)), levels(1_000, 200));
    // A green packet moves the overflow, it does not drop it.
    assert_eq!(meter.color(&purse, 10, after(1_200), G), G);
    assert_eq!(meter.levels(&purse, after(1_200)), levels(990, 200));
    assert_eq!(meter.levels(&purse, after(1_210)), levels(1_000, 200));
    // Long idle fills both, and nothing above.
    assert_eq!(meter.levels(&purse, after(1_000_000_000)), levels(1_000, 500));
    assert_eq!(meter.color(&purse, 1_001, after(1_000_000_000), G), R);
    assert_eq!(meter.color(&purse, 1_000, after(1_000_000_000), G), G);
    assert_eq!(meter.color(&purse, 500, after(1_000_000_000), G), Y);
    assert_eq!(meter.color(&purse, 1, after(1_000_000_000), G), R);
}

/// Packets larger than CBS live on E alone, which C's overflow fills at the full rate: also when C was never taken from.
#[test]
fn single_rate_oversize_packets_live_on_overflow() {
    let meter = Meter::new(Profile::sr_tcm(8_000_000, 100, 1_500).unwrap(), false);
    let purse = Purse::new();
    assert_eq!(meter.color(&purse, 1_500, Nanos(0), G), Y);
    for packet in 1..=1_000_u64 {
        let due = packet * 1_500_000;
        assert_eq!(meter.color(&purse, 1_500, Nanos(due - 1), G), R);
        assert_eq!(meter.color(&purse, 1_500, Nanos(due), G), Y);
    }
    let now = Nanos(1_000 * 1_500_000);
    assert_eq!(meter.levels(&purse, now), levels(100, 0));
}

#[test]
fn single_rate_with_one_burst_of_zero() {
    let only_excess = Meter::new(Profile::sr_tcm(8_000_000, 0, 1_000).unwrap(), false);
    let purse = Purse::new();
    assert_eq!(only_excess.color(&purse, 1_000, Nanos(0), G), Y);
    assert_eq!(only_excess.color(&purse, 1, Nanos(999), G), R);
    assert_eq!(only_excess.color(&purse, 1, Nanos(1_000), G), Y);
    let only_committed = Meter::new(Profile::sr_tcm(8_000_000, 1_000, 0).unwrap(), false);
    assert_eq!(colors(only_committed, &[(1_000, G), (1, G)]), [G, R]);
}

#[test]
fn excess_rate_of_zero_is_one_allowance() {
    let meter = Meter::new(Profile::tr_tcm_4115(8_000, 100, 0, 300).unwrap(), true);
    let purse = Purse::new();
    let day = Nanos(86_400_000_000_000);
    assert_eq!(meter.color(&purse, 300, Nanos(0), Y), Y);
    assert_eq!(meter.color(&purse, 1, day, Y), R);
    assert_eq!(meter.color(&purse, 100, day, G), G);
}

#[test]
fn a_clock_that_goes_back_grants_nothing() {
    let meter = Meter::new(Profile::token_bucket(8_000_000, 1_000).unwrap(), false);
    let purse = Purse::new();
    assert_eq!(meter.color(&purse, 1_000, Nanos(1_000_000), G), G);
    assert_eq!(meter.color(&purse, 1, Nanos(0), G), R);
    assert_eq!(meter.color(&purse, 1, Nanos(1_000_999), G), R);
    assert_eq!(meter.color(&purse, 500, Nanos(1_500_000), G), G);
    assert_eq!(
        meter.color(&purse, 1, Nanos(1_200_000), G),
        R,
        "500 us were already granted"
    );
}

/// Years of idle at the highest rate, the last instant there is, the largest packet: nothing overflows.
#[test]
fn extremes_saturate() {
    let (rate, burst) = (400_000_000_000, 2_000_000_000);
    let year = 31_557_600_000_000_000_u64;
    for profile in [
        Profile::token_bucket(rate, burst),
        Profile::sr_tcm(rate, burst, burst),
        Profile::tr_tcm(rate, burst, rate, burst),
        Profile::tr_tcm_4115(rate, burst, rate, burst),
    ] {
        let meter = Meter::new(profile.unwrap(), false);
        let purse = Purse::new();
        for now in [0, year, 500 * year, u64::MAX - 1, u64::MAX, u64::MAX] {
            assert_eq!(meter.color(&purse, u32::MAX, Nanos(now), G), R);
            assert_eq!(meter.levels(&purse, Nanos(now)).committed_bytes, burst, "at {now}");
            if now < u64::MAX - 1 {
                assert_eq!(meter.color(&purse, burst as u32, Nanos(now), G), G);
                assert!(meter.levels(&purse, Nanos(now)).committed_bytes <= 50, "at {now}");
                assert_eq!(meter.color(&purse, 0, Nanos(now), G), G);
            }
        }
        // A drained bucket at the end of time is drained, not fresh again.
        assert_eq!(meter.color(&purse, burst as u32, Nanos(u64::MAX), G), G);
        assert_ne!(meter.color(&purse, burst as u32, Nanos(u64::MAX), R), G);
    }
}

#[test]
fn a_new_burst_clamps_and_a_new_rate_needs_nothing() {
    let old = Meter::new(Profile::sr_tcm(8_000_000, 1_000, 2_000).unwrap(), false);
    let new = Meter::new(Profile::sr_tcm(80_000_000, 600, 300).unwrap(), false);
    let purse = Purse::new();
    assert_eq!(old.color(&purse, 100, Nanos(0), G), G);
    assert_eq!(
        new.levels(&purse, Nanos(0)),
        levels(600, 300),
        "cut, without running over"
    );
    assert_eq!(new.color(&purse, 600, Nanos(0), G), G);
    assert_eq!(new.color(&purse, 300, Nanos(0), G), Y);
    assert_eq!(new.color(&purse, 10, Nanos(999), G), R);
    assert_eq!(new.color(&purse, 10, Nanos(1_000), G), G);
    // Back to the large burst: the level grows by rate alone.
    assert_eq!(old.levels(&purse, Nanos(11_000)), levels(10, 0));
    // A fresh purse is full under whatever comes first.
    assert_eq!(new.levels(&Purse::new(), Nanos(3)), levels(600, 300));
    assert_eq!(old.levels(&Purse::new(), Nanos(3)), levels(1_000, 2_000));
}

/// A burst that shrinks while C is full cuts C. What is cut must not reach E.
#[test]
fn a_shrinking_burst_does_not_fill_the_excess_bucket() {
    let old = Meter::new(Profile::sr_tcm(8_000_000, 2_000, 2_000).unwrap(), false);
    let new = Meter::new(Profile::sr_tcm(8_000_000, 1_000, 2_000).unwrap(), false);
    let purse = Purse::new();
    assert_eq!(old.color(&purse, 0, Nanos(0), G), G);
    assert_eq!(old.color(&purse, 2_000, Nanos(0), G), G);
    assert_eq!(old.color(&purse, 2_000, Nanos(0), G), Y);
    assert_eq!(old.color(&purse, 0, Nanos(2_000_000), G), G);
    assert_eq!(old.levels(&purse, Nanos(2_000_000)), levels(2_000, 0));
    assert_eq!(new.levels(&purse, Nanos(2_000_000)), levels(1_000, 0));
    assert_eq!(new.color(&purse, 1, Nanos(2_000_000), G), G);
    assert_eq!(new.color(&purse, 1_000, Nanos(2_000_000), G), R);
}

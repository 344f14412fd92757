//! What is easy to get wrong in RFC 2697, 2698 and 4115, one trap a test, and DPDK's published colours: for one worker, and
//! for several that judge the packets in turn. Bursts below 9,216 bytes lend nothing, so every worker sees the same bucket.

mod sharers;

use dataplane::clock::Nanos;
use dataplane::meter::{Color, Levels, Meter, Profile};
use sharers::{Random, Shared};

use Color::{Green as G, Red as R, Yellow as Y};

/// 46,000,000 bytes/s, and 69,000,000: the rates of DPDK's `app/test/test_meter.c`.
const CIR: u64 = 368_000_000;
const PIR: u64 = 552_000_000;

const WORKERS: [usize; 5] = [1, 2, 3, 8, 64];

/// A contract whose packets go to one worker after the other.
struct Contract {
    meter: Meter,
    shared: Shared,
    next: usize,
}

impl Contract {
    fn new(workers: usize, color_aware: bool, profile: Profile) -> Self {
        Self {
            meter: Meter::new(profile, color_aware),
            shared: Shared::among(workers),
            next: 0,
        }
    }

    fn color(&mut self, bytes: u32, now: u64, arrived: Color) -> Color {
        let worker = self.next % self.shared.workers();
        self.next += 1;
        if self.shared.workers() == 1 {
            self.meter.color(&self.shared.purses[0], bytes, Nanos(now), arrived)
        } else {
            self.shared.color(&self.meter, worker, bytes, now, arrived)
        }
    }

    fn levels(&self, now: u64) -> (u64, u64) {
        let Levels {
            committed_bytes,
            second_bytes,
        } = if self.shared.workers() == 1 {
            self.meter.levels(&self.shared.purses[0], Nanos(now))
        } else {
            self.shared.levels(&self.meter, now)
        };
        (committed_bytes, second_bytes.unwrap_or(0))
    }

    /// The colours of packets that come green at one instant.
    fn at_once<const N: usize>(&mut self, now: u64, sizes: [u32; N]) -> [Color; N] {
        sizes.map(|bytes| self.color(bytes, now, G))
    }
}

fn sr_tcm(cbs: u64, ebs: u64) -> Profile {
    Profile::sr_tcm(CIR, cbs, ebs).unwrap()
}

fn tr_tcm(cbs: u64, pbs: u64) -> Profile {
    Profile::tr_tcm(CIR, cbs, PIR, pbs).unwrap()
}

fn tr_tcm_4115(cbs: u64, ebs: u64) -> Profile {
    Profile::tr_tcm_4115(CIR, cbs, PIR, ebs).unwrap()
}

fn all_three(cbs: u64, second: u64) -> [Profile; 3] {
    [sr_tcm(cbs, second), tr_tcm(cbs, second), tr_tcm_4115(cbs, second)]
}

/// One packet a second after a fresh meter: 4 blind and 12 aware colours for each RFC.
#[test]
fn dpdk_published_colors_for_any_number_of_workers() {
    let sizes = [2_047, 2_049, 4_095, 4_097];
    let aware = [(G, [G, Y, Y, R]), (Y, [Y, Y, Y, R]), (R, [R, R, R, R])];
    for workers in WORKERS {
        for profile in all_three(2_048, 4_096) {
            for first in 0..workers {
                let one = |color_aware, bytes, arrived| {
                    let mut contract = Contract::new(workers, color_aware, profile);
                    contract.next = first;
                    contract.color(bytes, 1_000_000_000, arrived)
                };
                for (arrived, expected) in aware {
                    assert_eq!(sizes.map(|bytes| one(false, bytes, arrived)), [G, Y, Y, R]);
                    assert_eq!(sizes.map(|bytes| one(true, bytes, arrived)), expected, "{profile:?}");
                }
            }
        }
    }
}

#[test]
fn several_packets_at_one_instant_for_any_number_of_workers() {
    for workers in WORKERS {
        let mut contract = Contract::new(workers, false, sr_tcm(2_000, 1_000));
        assert_eq!(contract.at_once(0, [1_500, 1_200, 600]), [G, R, Y]);
        let mut contract = Contract::new(workers, false, tr_tcm(1_500, 3_000));
        assert_eq!(contract.at_once(0, [1_200, 1_000, 900]), [G, Y, R]);
        let mut contract = Contract::new(workers, false, tr_tcm_4115(1_500, 3_000));
        assert_eq!(contract.at_once(0, [1_500, 1_500, 1_500, 1]), [G, Y, Y, R]);
    }
}

/// "The token buckets C and E are initially (at time 0) full": whenever the first packet comes.
#[test]
fn trap_buckets_start_full_at_any_time() {
    for (workers, now) in WORKERS.into_iter().zip([0, 1, 1 << 40, u64::MAX - 2, u64::MAX]) {
        for profile in all_three(2_048, 4_096) {
            let contract = Contract::new(workers, false, profile);
            assert_eq!(contract.levels(now), (2_048, 4_096), "{workers} workers at {now}");
        }
    }
}

/// Also the last byte: 2698 asks whether "Tp(t)-B < 0", 2697 whether "Tc(t)-B >= 0". RFC 4115's text would want one byte
/// more ("Tc(t) - B > 0"); its figure and DPDK do not.
#[test]
fn trap_a_packet_of_exactly_the_level_fits() {
    for workers in WORKERS {
        for profile in all_three(1_500, 1_500) {
            let mut contract = Contract::new(workers, false, profile);
            assert_eq!(contract.color(1_500, 0, G), G, "{profile:?}");
            assert_eq!(contract.color(1, 0, G) == R, profile == tr_tcm(1_500, 1_500));
        }
        for profile in all_three(1_500, 1_600) {
            let mut contract = Contract::new(workers, false, profile);
            assert_eq!(contract.at_once(0, [1_601, 1_600]), [R, Y], "{profile:?}");
        }
    }
}

/// 46 bytes come in a microsecond: the rates of RFC 2697 and 2698 are in bytes/s, ours in bit/s.
#[test]
fn trap_rates_are_bits_per_second() {
    for workers in WORKERS {
        for profile in all_three(2_048, 4_096) {
            let mut contract = Contract::new(workers, false, profile);
            assert_eq!(contract.color(2_048, 5_000, G), G);
            assert_ne!(contract.color(46, 5_999, G), G, "{profile:?}");
            assert_eq!(contract.color(46, 6_000, G), G, "{profile:?}");
        }
    }
}

/// Red takes nothing, of either bucket, whether it came red or did not fit.
#[test]
fn trap_red_takes_nothing() {
    for workers in WORKERS {
        for profile in all_three(2_048, 4_096) {
            let mut contract = Contract::new(workers, true, profile);
            for arrived in [G, Y, R] {
                assert_eq!(contract.color(4_097, 7, arrived), R);
            }
            assert_eq!(contract.color(0, 7, R), R);
            assert_eq!(contract.color(64, 7, R), R);
            assert_eq!(contract.levels(7), (2_048, 4_096), "{profile:?}");
        }
    }
}

/// 2697: a yellow packet pays E only. 2698: P only, and a green one both. 4115: E only, and a green one C only.
#[test]
fn trap_who_pays_what() {
    for workers in WORKERS {
        let [of_2697, of_2698, of_4115] = all_three(2_048, 4_096).map(|profile| {
            let mut contract = Contract::new(workers, true, profile);
            assert_eq!(contract.color(100, 7, Y), Y);
            let after_yellow = contract.levels(7);
            assert_eq!(contract.color(100, 7, G), G);
            (after_yellow, contract.levels(7))
        });
        assert_eq!(of_2697, ((2_048, 3_996), (1_948, 3_996)));
        assert_eq!(of_2698, ((2_048, 3_996), (1_948, 3_896)));
        assert_eq!(of_4115, ((2_048, 3_996), (1_948, 3_996)));
    }
}

/// A packet that came yellow is never green, however full C is; one that came red stays red.
#[test]
fn trap_aware_meters_never_promote() {
    for workers in WORKERS {
        for profile in all_three(2_048, 4_096) {
            let mut contract = Contract::new(workers, true, profile);
            for _ in 0..40 {
                assert_eq!(contract.color(100, 0, Y), Y);
                assert_eq!(contract.color(1, 0, R), R);
            }
            assert_eq!(contract.color(100, 0, Y), R, "E or P is spent");
            assert_eq!(contract.levels(0).0, 2_048);
        }
    }
}

/// 2697: "each token goes to C first", to E only if C is full; also while only yellow packets come.
#[test]
fn trap_2697_tokens_go_to_c_first() {
    for workers in WORKERS {
        let mut contract = Contract::new(workers, true, sr_tcm(2_048, 4_096));
        assert_eq!(contract.color(2_048, 0, G), G);
        assert_eq!(contract.color(4_096, 0, Y), Y);
        let full_at = 2_048_u64 * 8_000_000_000 / CIR;
        assert_eq!(contract.color(1, full_at, Y), R, "all of it went to C");
        assert_eq!(contract.color(46, full_at + 1_001, Y), Y, "C is full");
        assert_eq!(contract.levels(full_at + 1_001).0, 2_048);
    }
}

/// 2698: P is asked first. What C would have held is red when P does not hold it, and C pays nothing.
#[test]
fn trap_2698_the_peak_decides_first() {
    for workers in WORKERS {
        let mut contract = Contract::new(workers, false, tr_tcm(4_096, 2_048));
        assert_eq!(contract.at_once(0, [2_049, 2_048, 1]), [R, G, R]);
        assert_eq!(contract.levels(0), (2_048, 0));
    }
}

/// 4115: in-profile traffic passes one test only. Green excess goes to E, and yellow traffic cannot starve C.
#[test]
fn trap_4115_buckets_are_independent() {
    for workers in WORKERS {
        let mut contract = Contract::new(workers, true, tr_tcm_4115(2_048, 4_096));
        assert_eq!(contract.color(4_096, 0, Y), Y);
        assert_eq!(contract.color(1, 0, Y), R);
        assert_eq!(contract.color(2_048, 0, G), G, "E is empty, C is asked all the same");
        assert_eq!(contract.color(1, 0, G), R);
        // 46 bytes into C, 69 into E: the green packet takes from C, then from E, then nothing.
        assert_eq!([46, 69, 1].map(|bytes| contract.color(bytes, 1_000, G)), [G, Y, R]);
    }
}

/// A token bucket is RFC 2697 with an EBS of zero, but what comes yellow stays so, for it has no E to ask.
#[test]
fn trap_a_token_bucket_has_two_colors() {
    for workers in WORKERS {
        let profile = Profile::token_bucket(CIR, 2_048).unwrap();
        let mut contract = Contract::new(workers, false, profile);
        assert_eq!(contract.at_once(0, [2_049, 2_048, 1, 0]), [R, G, R, G]);
        let mut contract = Contract::new(workers, true, profile);
        assert_eq!([G, Y, R].map(|arrived| contract.color(2_048, 0, arrived)), [G, Y, R]);
        assert_eq!(contract.color(1, 0, G), R);
    }
}

/// IP packets of 64 and 9,000 bytes and a mix of 40, 576 and 1,500 (7 : 4 : 1), 1.5 and 4 times the rates: green is CIR to
/// 0.1 %, and green and yellow what the RFC adds to it.
#[test]
fn long_runs_of_all_sizes_give_the_rates() {
    const MIX: [u32; 12] = [40, 576, 40, 576, 40, 1_500, 40, 576, 40, 576, 40, 40];
    let seed = 15;
    println!("seed {seed}");
    let mut random = Random(seed);
    for workers in WORKERS {
        for sizes in [&[64][..], &[9_000], &MIX] {
            for load_tenths in [15, 40] {
                let profiles = all_three(20_000, 40_000);
                for (profile, more) in profiles.into_iter().zip([0, PIR - CIR, PIR]) {
                    let mut contract = Contract::new(workers, false, profile);
                    let load = CIR * load_tenths / 10;
                    let (mut offered, mut green, mut yellow) = (0_u128, 0_u64, 0_u64);
                    let (mut from, packets) = (0, 9_000);
                    let mut now = 0;
                    for packet in 0..packets {
                        now = (offered * 8_000_000_000 / u128::from(load)) as u64;
                        let bytes = sizes[packet % sizes.len()];
                        offered += u128::from(bytes);
                        contract.next = random.between(0, 63) as usize;
                        if packet == packets / 3 {
                            (from, green, yellow) = (now, 0, 0);
                        }
                        match contract.color(bytes, now, G) {
                            G => green += u64::from(bytes),
                            Y => yellow += u64::from(bytes),
                            R => {}
                        }
                    }
                    let of = |rate: u64| (u128::from(rate) * u128::from(now - from) / 8_000_000_000) as u64;
                    let what = format!("{workers} workers, load {load_tenths}, {sizes:?}, {profile:?}");
                    let slack = 9_000;
                    assert!(green.abs_diff(of(CIR)) <= of(CIR) / 1_000 + slack, "green, {what}");
                    let all = of((CIR + more).min(load));
                    assert!((green + yellow).abs_diff(all) <= all / 1_000 + slack, "all, {what}");
                }
            }
        }
    }
}

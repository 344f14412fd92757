//! Meters against an exact reference: the RFCs' buckets in bytes, as rational numbers, filled eagerly at every arrival.
//! No unit, no lazy refill and no packing is shared with what is tested.

use dataplane::clock::Nanos;
use dataplane::meter::{Color, Meter, Profile, Purse};
use proptest::prelude::*;
use proptest::test_runner::{Config, RngSeed};

/// A non-negative rational number in lowest terms. Denominators divide 8 × 10^9 (a rate in bytes per nanosecond) and
/// values stay under 10^21 (400 Gbit/s for 584 years), so that numerators fit in a `u128`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Ratio {
    num: u128,
    den: u128,
}

impl Ratio {
    fn new(num: u128, den: u128) -> Self {
        let common = gcd(num, den);
        Self {
            num: num / common,
            den: den / common,
        }
    }

    fn whole(num: u64) -> Self {
        Self::new(u128::from(num), 1)
    }

    /// Both numerators over the least common denominator.
    fn common(self, other: Self) -> (u128, u128, u128) {
        let den = self.den / gcd(self.den, other.den) * other.den;
        (self.num * (den / self.den), other.num * (den / other.den), den)
    }

    fn add(self, other: Self) -> Self {
        let (a, b, den) = self.common(other);
        Self::new(a + b, den)
    }

    fn sub(self, other: Self) -> Self {
        let (a, b, den) = self.common(other);
        Self::new(a.checked_sub(b).expect("never below zero"), den)
    }

    fn at_least(self, other: Self) -> bool {
        let (a, b, _) = self.common(other);
        a >= b
    }

    fn min(self, other: Self) -> Self {
        if self.at_least(other) { other } else { self }
    }

    fn floor(self) -> u64 {
        (self.num / self.den) as u64
    }
}

fn gcd(a: u128, b: u128) -> u128 {
    if b == 0 { a } else { gcd(b, a % b) }
}

#[derive(Clone, Copy, Debug)]
enum Rfc {
    None,
    R2697,
    R2698,
    R4115,
}

#[derive(Clone, Copy, Debug)]
struct Numbers {
    rfc: Rfc,
    aware: bool,
    rate: u64,
    burst: u64,
    second_rate: u64,
    second_burst: u64,
}

impl Numbers {
    fn meter(&self) -> Meter {
        let &Numbers {
            rate,
            burst,
            second_rate,
            second_burst,
            ..
        } = self;
        let profile = match self.rfc {
            Rfc::None => Profile::token_bucket(rate, burst),
            Rfc::R2697 => Profile::sr_tcm(rate, burst, second_burst),
            Rfc::R2698 => Profile::tr_tcm(rate, burst, second_rate, second_burst),
            Rfc::R4115 => Profile::tr_tcm_4115(rate, burst, second_rate, second_burst),
        };
        Meter::new(profile.expect("generated in range"), self.aware)
    }
}

struct Reference {
    numbers: Numbers,
    first: Ratio,
    second: Ratio,
    at: u64,
}

impl Reference {
    fn new(numbers: Numbers, at: u64) -> Self {
        let (first, second) = (Ratio::whole(numbers.burst), Ratio::whole(numbers.second_burst));
        Self {
            numbers,
            first,
            second,
            at,
        }
    }

    fn advance(&mut self, now: u64) {
        let elapsed = u128::from(now - self.at);
        let earned = |rate: u64| Ratio::new(u128::from(rate) * elapsed, 8_000_000_000);
        let (burst, second_burst) = (
            Ratio::whole(self.numbers.burst),
            Ratio::whole(self.numbers.second_burst),
        );
        let into_first = earned(self.numbers.rate).min(burst.sub(self.first));
        let into_second = match self.numbers.rfc {
            Rfc::None => Ratio::whole(0),
            Rfc::R2697 => earned(self.numbers.rate).sub(into_first),
            Rfc::R2698 | Rfc::R4115 => earned(self.numbers.second_rate),
        };
        self.first = self.first.add(into_first);
        self.second = self.second.add(into_second).min(second_burst);
        self.at = now;
    }

    fn color(&mut self, bytes: u32, now: u64, arrived: Color) -> Color {
        self.advance(now);
        let size = Ratio::whole(u64::from(bytes));
        let arrived = if self.numbers.aware { arrived } else { Color::Green };
        let (fits_first, fits_second) = (self.first.at_least(size), self.second.at_least(size));
        let color = match (self.numbers.rfc, arrived) {
            (_, Color::Red) => Color::Red,
            (Rfc::None, Color::Yellow) => Color::Yellow,
            (Rfc::None, Color::Green) if fits_first => Color::Green,
            (Rfc::None, Color::Green) => Color::Red,
            (Rfc::R2698, _) if !fits_second => Color::Red,
            (_, Color::Green) if fits_first => Color::Green,
            (_, _) if fits_second => Color::Yellow,
            (_, _) => Color::Red,
        };
        if color == Color::Green {
            self.first = self.first.sub(size);
        }
        let pays_second = match self.numbers.rfc {
            Rfc::None => false,
            Rfc::R2697 | Rfc::R4115 => color == Color::Yellow,
            Rfc::R2698 => color != Color::Red,
        };
        if pays_second {
            self.second = self.second.sub(size);
        }
        color
    }

    /// Nanoseconds from now until the first or the second bucket holds `bytes`: the first whole one.
    fn wait_for(&self, second: bool, bytes: u32) -> u64 {
        let Numbers {
            rfc,
            rate,
            burst,
            second_rate,
            ..
        } = self.numbers;
        let size = Ratio::whole(u64::from(bytes));
        let level = if second { self.second } else { self.first };
        if level.at_least(size) {
            return 0;
        }
        let missing = size.sub(level);
        let (missing, rate) = match (second, rfc) {
            (false, _) => (missing, rate),
            (true, Rfc::R2697) => (missing.add(Ratio::whole(burst).sub(self.first)), rate),
            (true, _) => (missing, second_rate),
        };
        if rate == 0 {
            return 0;
        }
        let ns = (missing.num * 8_000_000_000).div_ceil(missing.den * u128::from(rate));
        u64::try_from(ns).unwrap_or(0)
    }
}

/// When the next packet comes.
#[derive(Clone, Copy, Debug)]
enum Gap {
    Ns(u64),
    /// When it just fits into the first or second bucket, less `early` nanoseconds.
    Fit {
        second: bool,
        early: u64,
    },
}

fn numbers() -> impl Strategy<Value = Numbers> {
    let rfc = prop_oneof![Just(Rfc::None), Just(Rfc::R2697), Just(Rfc::R2698), Just(Rfc::R4115)];
    (rfc, any::<bool>(), rate(), burst(), rate(), burst(), 0..8_u8).prop_map(
        |(rfc, aware, rate, burst, second_rate, second_burst, odd)| {
            let mut numbers = Numbers {
                rfc,
                aware,
                rate,
                burst,
                second_rate,
                second_burst,
            };
            match (rfc, odd) {
                (Rfc::R2697, 0) => numbers.burst = 0,
                (Rfc::R2697, 1) => numbers.second_burst = 0,
                (Rfc::R4115, 0) => numbers.second_rate = 0,
                (Rfc::R2698, _) => numbers.second_rate = rate.max(second_rate),
                _ => {}
            }
            numbers
        },
    )
}

/// 8 kbit/s to 400 Gbit/s, each order of magnitude alike, with round and awkward ones.
fn rate() -> impl Strategy<Value = u64> {
    let any_size = (8_000.0_f64.ln()..4e11_f64.ln()).prop_map(|ln| (ln.exp() as u64).clamp(8_000, 400_000_000_000));
    prop_oneof![
        6 => any_size,
        1 => Just(8_000),
        1 => Just(1_234_567_891),
        1 => Just(400_000_000_000),
    ]
}

fn burst() -> impl Strategy<Value = u64> {
    prop_oneof![6 => 1_000_u64..20_000, 2 => 1_u64..100, 2 => 1_u64..=2_000_000_000, 1 => Just(2_000_000_000)]
}

fn packet() -> impl Strategy<Value = (Gap, u32, Color)> {
    let gap = prop_oneof![
        3 => Just(Gap::Ns(0)),
        3 => (0_u32..40, 0_u64..2).prop_map(|(shift, low)| Gap::Ns((1 << shift) + low)),
        6 => (any::<bool>(), 0_u64..3).prop_map(|(second, early)| Gap::Fit { second, early }),
        1 => (0_u64..1_000_000_000_000_000).prop_map(Gap::Ns),
    ];
    let bytes = prop_oneof![8 => 20_u32..9_217, 1 => 0_u32..20, 1 => any::<u32>()];
    let color = prop_oneof![3 => Just(Color::Green), 2 => Just(Color::Yellow), 1 => Just(Color::Red)];
    (gap, bytes, color)
}

fn config(cases: u32) -> Config {
    Config {
        cases,
        rng_seed: RngSeed::Fixed(0x2697_2698_4115),
        failure_persistence: None,
        ..Config::default()
    }
}

/// Plays `packets` to `meter` and its reference, from `start`; gives the green ones as `(time, bytes)`.
fn play(numbers: Numbers, start: u64, packets: &[(Gap, u32, Color)]) -> Result<Vec<(u64, u32)>, TestCaseError> {
    let (meter, purse) = (numbers.meter(), Purse::new());
    let mut reference = Reference::new(numbers, start);
    let mut green = Vec::new();
    let mut now = start;
    for (index, &(gap, bytes, arrived)) in packets.iter().enumerate() {
        now = now.saturating_add(match gap {
            Gap::Ns(ns) => ns,
            Gap::Fit { second, early } => reference.wait_for(second, bytes).saturating_sub(early),
        });
        let now = now.min(u64::MAX - 1);
        let expected = reference.color(bytes, now, arrived);
        let found = meter.color(&purse, bytes, Nanos(now), arrived);
        prop_assert_eq!(found, expected, "packet {} at {}", index, now);
        let levels = meter.levels(&purse, Nanos(now));
        prop_assert_eq!(levels.committed_bytes, reference.first.floor());
        if let Some(second_bytes) = levels.second_bytes {
            prop_assert_eq!(second_bytes, reference.second.floor());
        }
        if found == Color::Green {
            green.push((now, bytes));
        }
    }
    Ok(green)
}

proptest! {
    #![proptest_config(config(1_500))]

    /// The colours, and the levels after each packet, are the reference's.
    #[test]
    fn colors_equal_the_exact_reference(
        numbers in numbers(),
        start in prop_oneof![Just(0_u64), 0_u64..2_000_000_000_000_000_000],
        packets in prop::collection::vec(packet(), 1..120),
    ) {
        play(numbers, start, &packets)?;
    }

    /// In any window whatever, green bytes are at most burst + rate × interval.
    #[test]
    fn no_window_holds_more_than_burst_and_rate(
        numbers in numbers(),
        packets in prop::collection::vec(packet(), 1..120),
    ) {
        let green = play(numbers, 0, &packets)?;
        for (first, &(from, _)) in green.iter().enumerate() {
            let mut bytes = 0_u128;
            for &(until, size) in &green[first..] {
                bytes += u128::from(size);
                let allowed = u128::from(numbers.burst) * 8_000_000_000
                    + u128::from(numbers.rate) * u128::from(until - from);
                prop_assert!(bytes * 8_000_000_000 <= allowed, "{} bytes in {}..={}", bytes, from, until);
            }
        }
    }
}

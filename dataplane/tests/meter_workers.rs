//! Several workers on one contract, played one packet at a time in any order, with clocks that disagree: what they grant
//! together, against exact buckets that one worker would have.

mod sharers;

use dataplane::cells::{Cells, SlotId};
use dataplane::clock::Nanos;
use dataplane::meter::{Color, Meter};
use proptest::prelude::*;
use proptest::test_runner::{Config, RngSeed};
use sharers::{Numbers, RFCS, Random, Rfc, Shared, UNITS, token_bucket};

/// Powers of two, their neighbours, and the most there can be.
const WORKERS: [usize; 10] = [2, 3, 4, 5, 7, 8, 9, 16, 33, 64];

const YEAR_NS: u64 = 31_557_600_000_000_000;

/// Exact buckets beside the tested ones: filled eagerly, in one piece, and charged with what the workers have granted.
/// A level below zero is what they have granted too much.
#[derive(Debug)]
struct Ledger {
    numbers: Numbers,
    first: i128,
    second: i128,
    at: u64,
}

impl Ledger {
    fn full(numbers: Numbers, at: u64) -> Self {
        Self {
            numbers,
            first: i128::from(numbers.burst) * UNITS,
            second: i128::from(numbers.second_burst) * UNITS,
            at,
        }
    }

    fn advance(&mut self, now: u64) {
        let Numbers {
            rfc,
            rate,
            burst,
            second_rate,
            second_burst,
            ..
        } = self.numbers;
        let elapsed = i128::from(now - self.at);
        let earned = i128::from(rate) * elapsed;
        let into_first = earned.min(i128::from(burst) * UNITS - self.first);
        let into_second = match rfc {
            Rfc::None => 0,
            Rfc::R2697 => earned - into_first,
            Rfc::R2698 | Rfc::R4115 => i128::from(second_rate) * elapsed,
        };
        self.first += into_first;
        self.second = (self.second + into_second).min(i128::from(second_burst) * UNITS);
        self.at = now;
    }

    fn charge(&mut self, bytes: u32, color: Color) {
        let size = i128::from(bytes) * UNITS;
        if color == Color::Green {
            self.first -= size;
        }
        let pays_second = match self.numbers.rfc {
            Rfc::None => false,
            Rfc::R2697 | Rfc::R4115 => color == Color::Yellow,
            Rfc::R2698 => color != Color::Red,
        };
        if pays_second {
            self.second -= size;
        }
    }
}

/// What a packet has asked of one bucket, and whether it was given.
type Asked = Option<bool>;

/// What a packet that came as `arrived` and left as `color` has asked of C and of the second bucket, by the RFC's order.
fn asked(numbers: &Numbers, arrived: Color, color: Color) -> (Asked, Asked) {
    let arrived = if numbers.aware { arrived } else { Color::Green };
    let came_green = arrived == Color::Green;
    let not_red = arrived != Color::Red;
    let green = color == Color::Green;
    match numbers.rfc {
        Rfc::None => (came_green.then_some(green), None),
        Rfc::R2697 | Rfc::R4115 => (
            came_green.then_some(green),
            (not_red && !green).then_some(color == Color::Yellow),
        ),
        Rfc::R2698 => (
            (came_green && color != Color::Red).then_some(green),
            not_red.then_some(color != Color::Red),
        ),
    }
}

/// One packet: who judges it, how long after the one before, by how much its clock is late, how large, and its colour.
#[derive(Clone, Copy, Debug)]
struct Packet {
    worker: usize,
    gap: Gap,
    /// In 1/256 of the most that clocks are late in this run.
    late: u8,
    size: Size,
    arrived: Color,
}

#[derive(Clone, Copy, Debug)]
enum Gap {
    Ns(u64),
    /// As long as the committed rate takes for so many bytes.
    Bytes(u64),
    /// As long as it takes for an eighth of the burst, so often.
    Eighths(u64),
}

impl Gap {
    fn ns(self, numbers: &Numbers) -> u64 {
        let time_of = |bytes: u128| u64::try_from(bytes * UNITS as u128 / u128::from(numbers.rate)).unwrap_or(u64::MAX);
        match self {
            Gap::Ns(ns) => ns,
            Gap::Bytes(bytes) => time_of(u128::from(bytes)),
            Gap::Eighths(eighths) => time_of(u128::from(numbers.burst) * u128::from(eighths) / 8),
        }
    }
}

#[derive(Clone, Copy, Debug)]
enum Size {
    Bytes(u32),
    /// The burst over a power of two, and a byte more or less: the whole of a bucket, or about what is lent.
    Part {
        log2: u32,
        more: i8,
    },
}

impl Size {
    fn bytes(self, numbers: &Numbers) -> u32 {
        match self {
            Size::Bytes(bytes) => bytes,
            Size::Part { log2, more } => (numbers.burst as u32 >> log2).saturating_add_signed(i32::from(more)),
        }
    }
}

fn packet() -> impl Strategy<Value = Packet> {
    let gap = prop_oneof![
        6 => Just(Gap::Ns(0)),
        2 => (0_u32..40).prop_map(|shift| Gap::Ns(1 << shift)),
        6 => (0_u64..20_000).prop_map(Gap::Bytes),
        4 => (0_u64..17).prop_map(Gap::Eighths),
        1 => (0_u64..30).prop_map(|years| Gap::Ns(years * YEAR_NS)),
    ];
    let size = prop_oneof![
        8 => (20_u32..9_217).prop_map(Size::Bytes),
        8 => (0_u32..14, -1_i8..2).prop_map(|(log2, more)| Size::Part { log2, more }),
        2 => prop_oneof![Just(0), Just(1), Just(9_216), Just(u32::MAX)].prop_map(Size::Bytes),
    ];
    let color = prop_oneof![4 => Just(Color::Green), 2 => Just(Color::Yellow), 1 => Just(Color::Red)];
    let late = prop_oneof![1 => Just(0), 1 => any::<u8>()];
    (0..64_usize, gap, late, size, color).prop_map(|(worker, gap, late, size, arrived)| Packet {
        worker,
        gap,
        late,
        size,
        arrived,
    })
}

/// 8 kbit/s to 400 Gbit/s, each order of magnitude alike.
fn rate() -> impl Strategy<Value = u64> {
    let any_size = (8_000.0_f64.ln()..4e11_f64.ln()).prop_map(|ln| (ln.exp() as u64).clamp(8_000, 400_000_000_000));
    prop_oneof![6 => any_size, 1 => Just(8_000), 1 => Just(1_234_567_891), 1 => Just(400_000_000_000)]
}

/// Mostly such as lend a few bytes to a worker, or some thousand, or all they may.
fn burst() -> impl Strategy<Value = u64> {
    prop_oneof![
        2 => 1_u64..9_300,
        4 => 9_216_u64..40_000,
        4 => 40_000_u64..2_000_000,
        2 => 1_u64..=2_000_000_000,
        1 => Just(2_000_000_000),
    ]
}

fn numbers() -> impl Strategy<Value = Numbers> {
    let rfc = (0..4_usize).prop_map(|index| RFCS[index]);
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

fn workers() -> impl Strategy<Value = usize> {
    (0..WORKERS.len()).prop_map(|index| WORKERS[index])
}

fn config(cases: u32) -> Config {
    Config {
        cases,
        rng_seed: RngSeed::Fixed(0x2697_2698_4115),
        failure_persistence: None,
        ..Config::default()
    }
}

/// A packet that was judged, and at what time of its worker.
#[derive(Clone, Copy, Debug)]
struct Judged {
    now: u64,
    bytes: u32,
    color: Color,
}

/// Over every run of packets, one after the other: `granted` says what counts of a packet, and together that is at most
/// `burst` bytes and what `rate` gives in the time that the clocks of these packets span.
fn assert_bounded(
    judged: &[Judged],
    what: &str,
    burst: u64,
    rate: u64,
    granted: impl Fn(Color) -> bool,
) -> Result<(), TestCaseError> {
    for first in 0..judged.len() {
        let (mut bytes, mut from, mut until) = (0_u128, u64::MAX, 0);
        for one in &judged[first..] {
            (from, until) = (from.min(one.now), until.max(one.now));
            if !granted(one.color) {
                continue;
            }
            bytes += u128::from(one.bytes);
            let allowed = u128::from(burst) * UNITS as u128 + u128::from(rate) * u128::from(until - from);
            prop_assert!(
                bytes * UNITS as u128 <= allowed,
                "{} {} bytes from packet {} in {}..={}",
                bytes,
                what,
                first,
                from,
                until
            );
        }
    }
    Ok(())
}

fn assert_windows(numbers: &Numbers, judged: &[Judged]) -> Result<(), TestCaseError> {
    let Numbers {
        rate,
        burst,
        second_rate,
        second_burst,
        ..
    } = *numbers;
    let green = |color| color == Color::Green;
    let yellow = |color| color == Color::Yellow;
    let both = |color| color != Color::Red;
    assert_bounded(judged, "green", burst, rate, green)?;
    match numbers.rfc {
        // What the token bucket is told is yellow stays so, unmetered.
        Rfc::None => Ok(()),
        Rfc::R2697 => {
            assert_bounded(judged, "yellow", second_burst, rate, yellow)?;
            assert_bounded(judged, "green and yellow", burst + second_burst, rate, both)
        }
        Rfc::R2698 => assert_bounded(judged, "green and yellow", second_burst, second_rate, both),
        Rfc::R4115 => assert_bounded(judged, "yellow", second_burst, second_rate, yellow),
    }
}

proptest! {
    #![proptest_config(config(250))]

    /// No byte above the entitlement in any window, however many the workers and however wrong their clocks. A packet that
    /// is judged by a late clock stretches its window to that time, and by no more.
    #[test]
    fn no_window_of_several_workers_holds_more_than_burst_and_rate(
        numbers in numbers(),
        workers in workers(),
        start in prop_oneof![Just(0_u64), 0_u64..u64::MAX],
        late_max in prop_oneof![Just(0_u64), 0_u64..1_000_000, any::<u64>()],
        packets in prop::collection::vec(packet(), 1..100),
    ) {
        let (meter, shared) = (numbers.meter(), Shared::among(workers));
        let mut clock = start;
        let mut judged = Vec::new();
        for packet in packets {
            clock = clock.saturating_add(packet.gap.ns(&numbers));
            let late = (u128::from(late_max) * u128::from(packet.late) / 256) as u64;
            let now = clock.saturating_sub(late);
            let bytes = packet.size.bytes(&numbers);
            let color = shared.color(&meter, packet.worker % workers, bytes, now, packet.arrived);
            judged.push(Judged { now, bytes, color });
            let levels = shared.levels(&meter, now);
            prop_assert!(levels.committed_bytes <= numbers.burst);
            prop_assert!(levels.second_bytes.unwrap_or(0) <= numbers.second_burst);
        }
        assert_windows(&numbers, &judged)?;
    }

    /// Every single verdict is that of one exact bucket which has given what the workers have given, unless the packet is
    /// within the stated under-grant of that bucket's level, and within what the rate gives while a clock is late. Where
    /// RFC 2697's overflow comes early, C and E together hold it.
    #[test]
    fn verdicts_of_several_workers_are_an_exact_buckets_but_for_the_stated_bytes(
        numbers in numbers(),
        workers in workers(),
        start in 0_u64..YEAR_NS,
        late_max in prop_oneof![2 => Just(0_u64), 1 => 0_u64..1_000_000],
        packets in prop::collection::vec(packet(), 1..150),
    ) {
        let start = start + late_max;
        let (meter, shared, mut ledger) = (numbers.meter(), Shared::among(workers), Ledger::full(numbers, start));
        let (mut clock, under) = (start, i128::from(meter.under_grant_bytes(workers)) * UNITS);
        for (index, packet) in packets.into_iter().enumerate() {
            clock = clock.saturating_add(packet.gap.ns(&numbers));
            ledger.advance(clock);
            let now = clock - late_max * u64::from(packet.late) / 256;
            let bytes = packet.size.bytes(&numbers);
            let color = shared.color(&meter, packet.worker % workers, bytes, now, packet.arrived);
            let size = i128::from(bytes) * UNITS;
            let (first, second) = asked(&numbers, packet.arrived, color);
            let late = i128::from(late_max) * i128::from(numbers.rate);
            match first {
                Some(true) => prop_assert!(size <= ledger.first + late, "packet {} is green above {:?}", index, ledger),
                Some(false) => prop_assert!(size > ledger.first - under - late, "packet {} is not green, {:?}", index, ledger),
                None => {}
            }
            let overflows = numbers.rfc == Rfc::R2697;
            let (in_reach, second_under, late) = if overflows {
                (ledger.first + ledger.second, 2 * under, late)
            } else {
                (ledger.second, under, i128::from(late_max) * i128::from(numbers.second_rate))
            };
            match second {
                Some(true) => prop_assert!(size <= in_reach + late, "packet {} is yellow above {:?}", index, ledger),
                Some(false) => prop_assert!(size > ledger.second - second_under - late, "packet {} is red, {:?}", index, ledger),
                None => {}
            }
            ledger.charge(bytes, color);
        }
    }

    /// Over reloads, too: at most the largest burst so far, and the largest rate of the window's generations.
    #[test]
    fn no_window_over_reloads_holds_more_than_the_largest_entitlement(
        generations in prop::collection::vec((rate(), burst()), 2..6),
        workers in workers(),
        packets in prop::collection::vec((packet(), 0..12_usize), 1..100),
    ) {
        let shared = Shared::among(workers);
        let of = |index: usize| {
            let (rate, burst) = generations[index];
            Numbers { rfc: Rfc::None, aware: false, rate, burst, second_rate: rate, second_burst: burst }
        };
        let (mut current, mut clock, mut largest) = (0, 0_u64, 0);
        let mut judged = Vec::new();
        for (packet, reload) in packets {
            if reload < generations.len() {
                current = reload;
            }
            prop_assert!(shared.levels(&of(current).meter(), clock).committed_bytes <= of(current).burst);
            let numbers = of(current);
            largest = largest.max(numbers.burst);
            clock = clock.saturating_add(packet.gap.ns(&numbers));
            let bytes = packet.size.bytes(&numbers);
            let color = shared.color(&numbers.meter(), packet.worker % workers, bytes, clock, Color::Green);
            judged.push((Judged { now: clock, bytes, color }, numbers.rate, largest));
        }
        for first in 0..judged.len() {
            let (mut bytes, mut rate) = (0_u128, 0);
            let from = judged[first].0.now;
            for &(one, one_rate, largest) in &judged[first..] {
                rate = rate.max(one_rate);
                bytes += if one.color == Color::Green { u128::from(one.bytes) } else { 0 };
                let allowed = u128::from(largest) * UNITS as u128 + u128::from(rate) * u128::from(one.now - from);
                prop_assert!(bytes * UNITS as u128 <= allowed, "{} bytes from packet {}", bytes, first);
            }
        }
    }
}

/// A burst that lends exactly 1,000 bytes to each of `workers` workers.
fn lending_1000(workers: usize) -> u64 {
    9_216 + 8 * workers.next_power_of_two() as u64 * 1_000
}

/// "Buckets start full", and fill up again: to the burst itself, for any number of workers.
#[test]
fn full_is_the_whole_burst() {
    for workers in WORKERS {
        for burst in [1, 9_216, 9_217, lending_1000(workers), 2_000_000_000] {
            let (meter, shared) = (token_bucket(8_000_000, burst), Shared::among(workers));
            assert_eq!(shared.levels(&meter, 5).committed_bytes, burst, "{workers} workers");
            let mut granted = 0;
            for size in [1 << 30, 1 << 20, 1 << 14, 1 << 10, 64, 1] {
                for worker in (0..workers).cycle().take(4 * workers.max(64)) {
                    granted += if shared.green(&meter, worker, size, 5) {
                        u64::from(size)
                    } else {
                        0
                    };
                }
            }
            assert_eq!(
                granted + shared.levels(&meter, 5).committed_bytes,
                burst,
                "{workers} workers"
            );
        }
    }
}

/// The worst for a worker: the bucket has run over while no credit was full, and then all others borrow.
#[test]
fn the_stated_under_grant_is_the_worst_there_is() {
    for workers in WORKERS {
        let burst = lending_1000(workers);
        let (meter, shared) = (token_bucket(8_000_000_000, burst), Shared::among(workers));
        for worker in 0..workers {
            assert!(shared.green(&meter, worker, 1_000, 0), "from its credit");
        }
        let idle = 1_000_000_000;
        for worker in 1..workers {
            assert!(shared.green(&meter, worker, 1, idle), "borrows 1,000 bytes");
        }
        let exact = burst - (workers as u64 - 1);
        let under = meter.under_grant_bytes(workers);
        assert!(
            shared.green(&meter, 0, (exact - under) as u32, idle),
            "{workers} workers, {under} bytes"
        );
        assert!(under <= burst / 4);
        let lost = (2 * workers as u64 - 1) * 1_000;
        assert_eq!(under, lost, "no more than needed");
    }
}

/// The largest packet of networks with jumbo frames always fits where it would fit one worker's bucket.
#[test]
fn a_jumbo_packet_fits_a_full_bucket_whatever_others_hold() {
    for workers in WORKERS {
        for burst in [9_216, 9_300, 10_000, 16_000, 64_000] {
            let (meter, shared) = (token_bucket(8_000_000_000, burst), Shared::among(workers));
            for worker in (0..workers).cycle().take(8 * workers) {
                let _ = shared.green(&meter, worker, 20, 0);
            }
            let idle = 1_000_000_000;
            for worker in 1..workers {
                assert!(shared.green(&meter, worker, 0, idle));
            }
            assert!(shared.green(&meter, 0, 9_216, idle), "{workers} workers, {burst} bytes");
        }
    }
}

/// Twice the rate offered, to any worker: of all green bytes never more than the stated ones and a packet are missing,
/// and once the burst is spent, the rate is exact to 0.1 %.
#[test]
fn a_greedy_load_loses_the_stated_bytes_once() {
    for workers in WORKERS {
        for (rate, burst, bytes) in [
            (8_000, 20_000, 1_500),
            (1_234_567_891, 200_000, 64),
            (1_234_567_891, 200_000, 9_216),
            (400_000_000_000, 2_000_000_000, 40_000_000),
        ] {
            let numbers = Numbers {
                rfc: Rfc::None,
                aware: false,
                rate,
                burst,
                second_rate: 0,
                second_burst: 0,
            };
            let (meter, shared) = (numbers.meter(), Shared::among(workers));
            let (mut one_bucket, mut random) = (Ledger::full(numbers, 0), Random(workers as u64));
            let (mut expected, mut found, mut steady) = (0_u64, 0_u64, None);
            let packets = 4 * burst / u64::from(bytes) + 4_000;
            for packet in 0..packets {
                let now = (u128::from(packet) * u128::from(bytes) * UNITS as u128 / (2 * u128::from(rate))) as u64;
                one_bucket.advance(now);
                if one_bucket.first >= i128::from(bytes) * UNITS {
                    one_bucket.charge(bytes, Color::Green);
                    expected += u64::from(bytes);
                }
                // At first each worker in turn, then some more than others.
                let worker = random.between(0, workers as u64 - 1).min(random.between(0, packet)) as usize;
                found += if shared.green(&meter, worker, bytes, now) {
                    u64::from(bytes)
                } else {
                    0
                };
                let missing = expected.saturating_sub(found);
                assert!(
                    missing <= meter.under_grant_bytes(workers) + u64::from(bytes),
                    "{missing} of {expected} bytes, {workers} workers"
                );
                if packet == packets / 4 * 3 {
                    steady = Some((now, found));
                }
                if packet == packets - 1
                    && let Some((then, before)) = steady
                {
                    let entitled = (u128::from(rate) * u128::from(now - then) / UNITS as u128) as u64;
                    let error = entitled.abs_diff(found - before);
                    assert!(
                        error <= entitled / 1_000 + u64::from(bytes),
                        "{error} of {entitled} bytes, {workers} workers"
                    );
                }
            }
        }
    }
}

/// A worker whose clock is ahead moves the bucket's time for all; those behind get nothing twice, and nothing is lost.
#[test]
fn a_clock_step_forward_and_back_grants_the_rate_once() {
    for workers in [2, 3, 5, 7, 64] {
        let (meter, shared) = (token_bucket(8_000_000_000, 1_000), Shared::among(workers));
        assert!(shared.green(&meter, 0, 1_000, 10_000));
        assert!(shared.green(&meter, 1, 500, 10_500), "ahead by 500 ns");
        assert!(!shared.green(&meter, 0, 1, 10_000));
        assert!(!shared.green(&meter, workers - 1, 1, 10_500));
        assert!(!shared.green(&meter, 0, 1, 0), "a step back of everything");
        assert!(shared.green(&meter, 0, 1, 10_501));
        assert!(
            shared.green(&meter, 1, 1_000, u64::MAX),
            "the end of time fills the burst"
        );
        assert!(!shared.green(&meter, 0, 1, u64::MAX), "once");
        assert!(!shared.green(&meter, 0, 1, 20_000));
    }
}

/// Two clocks that differ for good, and every packet takes what there is: each instant is granted once, not once for each
/// clock.
#[test]
fn clocks_that_differ_for_good_grant_each_instant_once() {
    let lag = 500;
    for burst in [1_000, 200_000] {
        let (meter, shared) = (token_bucket(8_000_000_000, burst), Shared::among(2));
        let mut granted = 0;
        let last = 2_000;
        for now in (1_000..=last).step_by(50) {
            for (worker, now) in [(0, now), (1, now - lag), (0, now), (1, now - lag)] {
                for bytes in (0..18).rev().map(|log2| 1 << log2) {
                    granted += if shared.green(&meter, worker, bytes, now) {
                        u64::from(bytes)
                    } else {
                        0
                    };
                }
            }
        }
        assert!(granted <= burst + last - 1_000, "{granted} bytes of {burst}");
        assert!(granted + shared.levels(&meter, last).committed_bytes == burst + last - 1_000);
    }
}

/// What status shows of E is what E can give, also while its overflow still lies in C.
#[test]
fn levels_show_no_overflow_that_has_no_room() {
    let workers = 4;
    let burst = lending_1000(workers);
    let numbers = Numbers {
        rfc: Rfc::R2697,
        aware: true,
        rate: 8_000_000_000,
        burst: 100,
        second_rate: 0,
        second_burst: burst,
    };
    let (meter, shared) = (numbers.meter(), Shared::among(workers));
    assert!(shared.green(&meter, 0, 1, 0), "C begins to fill");
    for worker in 0..workers {
        let color = shared.color(&meter, worker, 1_000, 0, Color::Yellow);
        assert_eq!(color, Color::Yellow, "from its credit");
    }
    let idle = 1_000_000_000;
    let shown = shared.levels(&meter, idle).second_bytes.unwrap();
    let mut given = 0;
    for worker in 0..workers {
        for bytes in [16_384, 4_096, 1_024, 256, 64, 16, 4, 1] {
            while shared.color(&meter, worker, bytes, idle, Color::Yellow) == Color::Yellow {
                given += u64::from(bytes);
            }
        }
    }
    assert_eq!(shown, given);
}

/// A reload to a larger burst finds what is there, and no tokens that nobody has saved: also where some workers have not
/// seen a packet of this contract yet.
#[test]
fn a_larger_burst_keeps_the_level() {
    for workers in [1, 2, 3, 8] {
        for burst in [5_000, 20_000, 1_000_000] {
            let cells = Cells::new(workers).grown(1);
            let (slot, worker) = (SlotId(0), 0);
            let color = |meter: &Meter, bytes, now| {
                let purse = &cells.of(worker).cell(slot).purse;
                match cells.of(worker).sharing(slot) {
                    None => meter.color(purse, bytes, now, Color::Green),
                    Some(sharing) => meter.color_shared(sharing, purse, bytes, now, Color::Green),
                }
            };
            let (old, new) = (token_bucket(8_000, burst), token_bucket(8_000, 2_000_000_000));
            cells.refill(&old, slot);
            let now = Nanos(77);
            assert_eq!(cells.levels(&old, slot, now).committed_bytes, burst);
            let most = burst as u32 - old.under_grant_bytes(workers) as u32;
            assert_eq!(color(&old, most, now), Color::Green);
            let before = cells.levels(&old, slot, now).committed_bytes;
            assert_eq!(before, burst - u64::from(most));
            assert_eq!(
                cells.levels(&new, slot, now).committed_bytes,
                before,
                "{workers} workers"
            );
            cells.refill(&new, slot);
            assert_eq!(cells.levels(&new, slot, now).committed_bytes, 2_000_000_000);
        }
    }
}

/// A contract that comes back starts full: both buckets, the word and every worker's credit.
#[test]
fn a_contract_that_comes_back_starts_full() {
    for workers in [1, 2, 3, 8] {
        for rfc in RFCS {
            let (burst, second_burst) = (100_000, 200_000);
            let numbers = Numbers {
                rfc,
                aware: false,
                rate: 8_000,
                burst,
                second_rate: 8_000,
                second_burst,
            };
            let (meter, slot, now) = (numbers.meter(), SlotId(300), Nanos(5));
            let cells = Cells::new(workers).grown(301);
            cells.refill(&meter, slot);
            let full = cells.levels(&meter, slot, now);
            assert_eq!(full.committed_bytes, burst);
            assert_eq!(full.second_bytes, (rfc != Rfc::None).then_some(second_burst));
            for worker in (0..workers).cycle().take(2_000) {
                let purse = &cells.of(worker).cell(slot).purse;
                let _color = match cells.of(worker).sharing(slot) {
                    None => meter.color(purse, 1_000, now, Color::Green),
                    Some(sharing) => meter.color_shared(sharing, purse, 1_000, now, Color::Green),
                };
            }
            assert!(cells.levels(&meter, slot, now).committed_bytes < burst / 4);
            assert_ne!(cells.levels(&meter, slot, now), full);
            cells.refill(&meter, slot);
            assert_eq!(cells.levels(&meter, slot, now), full, "{workers} workers, {rfc:?}");
        }
    }
}

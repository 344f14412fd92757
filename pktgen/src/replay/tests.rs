//! Replays without sockets: a clock that moves only when somebody waits, and a sink that notes what it got and when.

#![allow(clippy::unwrap_used, clippy::indexing_slicing)]

mod hostile;
mod rewriting;

use std::io::Write;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use dataplane::clock::{Clock, ManualClock, Nanos};
use tempfile::NamedTempFile;

use super::*;
use captures::{MICROS, NANOS, Order, Record, frame, pcap, pcapng};

#[path = "../../tests/captures/mod.rs"]
#[allow(dead_code, reason = "shared with the tests over veth")]
mod captures;

const LIMITS: Limits = Limits {
    packet_bytes_max: 3840,
    untagged_bytes_max: 1514,
};

/// Notes every packet with the instant at which it was flushed.
struct Recorder<'a> {
    clock: &'a ManualClock,
    packets: Vec<(u64, Vec<u8>)>,
    pending: Vec<Vec<u8>>,
    /// What a flush of one packet takes.
    cost: Nanos,
    /// The packet after which the machine stands still for 10 ms.
    stall_after: Option<usize>,
    fails_after: Option<usize>,
    stop_after: Option<(usize, &'a AtomicBool)>,
}

impl<'a> Recorder<'a> {
    fn new(clock: &'a ManualClock) -> Self {
        Self {
            clock,
            packets: Vec::new(),
            pending: Vec::new(),
            cost: Nanos(0),
            stall_after: None,
            fails_after: None,
            stop_after: None,
        }
    }

    fn instants(&self) -> Vec<u64> {
        self.packets.iter().map(|packet| packet.0 - START).collect()
    }
}

impl PacketSink for Recorder<'_> {
    fn limits(&self) -> Limits {
        LIMITS
    }

    fn room(&mut self) -> usize {
        100 - self.pending.len()
    }

    fn push(&mut self, packet: &[u8]) -> bool {
        self.pending.push(packet.to_vec());
        true
    }

    fn flush(&mut self) -> Result<(), String> {
        for packet in self.pending.drain(..) {
            self.packets.push((self.clock.now().0, packet));
            self.clock.advance(self.cost);
            let count = self.packets.len();
            if self.stall_after == Some(count) {
                self.clock.advance(Nanos(10_000_000));
            }
            if let Some((after, stop)) = self.stop_after {
                stop.store(count >= after, std::sync::atomic::Ordering::Release);
            }
            if self.fails_after == Some(count) {
                return Err("the interface is gone".to_owned());
            }
        }
        Ok(())
    }

    fn in_flight(&self) -> u64 {
        0
    }

    fn dropped(&self) -> u64 {
        0
    }
}

const START: u64 = 5_000_000;
const SECOND: u64 = 1_000_000_000;

fn file(bytes: &[u8]) -> NamedTempFile {
    let mut file = NamedTempFile::new().unwrap();
    file.write_all(bytes).unwrap();
    file
}

/// Packets of 60 bytes at these nanoseconds after some second.
fn at(times: &[u64]) -> Vec<u8> {
    let record = |(number, &at): (usize, &u64)| Record::whole(1_000 * SECOND + at, &frame(number as u32, 60));
    let records: Vec<Record> = times.iter().enumerate().map(record).collect();
    pcap(Order::Little, NANOS, 1, &records)
}

fn run_with(
    bytes: &[u8],
    change: impl FnOnce(&mut ReplayOptions),
    set: impl FnOnce(&mut Recorder<'_>),
) -> (Vec<(u64, Vec<u8>)>, ReplayResult) {
    let file = file(bytes);
    let mut options = ReplayOptions::new(file.path());
    change(&mut options);
    let clock = ManualClock::new(Nanos(START));
    let mut sink = Recorder::new(&clock);
    set(&mut sink);
    let replay = Replay::open(&options, LIMITS).unwrap();
    let result = replay.run(&mut sink, &clock, &AtomicBool::new(false));
    let instants = sink.instants();
    let packets = sink.packets.into_iter().map(|packet| packet.1);
    (instants.into_iter().zip(packets).collect(), result)
}

fn run(bytes: &[u8], change: impl FnOnce(&mut ReplayOptions)) -> (Vec<u64>, ReplayResult) {
    let (packets, result) = run_with(bytes, change, |_| {});
    (packets.into_iter().map(|packet| packet.0).collect(), result)
}

#[test]
fn original_gaps_are_kept_and_scaled() {
    let times = [0, 1, 1_000, 2_000_000, 2_000_000, 3 * SECOND];
    let (instants, result) = run(&at(&times), |_| {});
    assert_eq!(instants, times);
    assert_eq!((result.packets, result.bytes, result.loops), (6, 360, 1));
    assert_eq!((result.ended.clone(), result.in_memory), (Ended::Done, true));
    let errors = result.gap_errors.as_ref().unwrap();
    assert_eq!((errors.gaps, errors.longer_max_ns, errors.shorter_max_ns), (5, 0, 0));
    assert_eq!(result.rate_held, Some(true));
    assert!(result.complaints().is_empty());

    let (instants, _) = run(&at(&times), |options| options.timing = Timing::Original { speed: 2.0 });
    assert_eq!(instants, times.map(|at| at / 2));
    let (instants, _) = run(&at(&times), |options| options.timing = Timing::Original { speed: 0.5 });
    assert_eq!(instants, times.map(|at| at * 2));
}

#[test]
fn every_format_gives_the_same_packets_at_the_same_instants() {
    let times = [0, 5_000, 7_000, SECOND];
    let record = |(number, at): (usize, u64)| Record::whole(77 * SECOND + at, &frame(number as u32, 60 + number));
    let records: Vec<Record> = times.into_iter().enumerate().map(record).collect();
    for order in [Order::Little, Order::Big] {
        for bytes in [
            pcap(order, MICROS, 1, &records),
            pcap(order, NANOS, 1, &records),
            pcapng(order, 1, &[6], &records),
            // Two interfaces of different units.
            pcapng(order, 1, &[9, 6], &records),
        ] {
            let (packets, _) = run_with(&bytes, |_| {}, |_| {});
            let expected: Vec<_> = times
                .into_iter()
                .zip(records.iter().map(|record| record.data.clone()))
                .collect();
            assert_eq!(packets, expected);
        }
    }
}

#[test]
fn fixed_rates_ignore_the_gaps() {
    let capture = at(&[0, 9 * SECOND, 9 * SECOND, 9 * SECOND]);
    let (instants, result) = run(&capture, |options| options.timing = Timing::PacketsPerSecond(1e6));
    assert_eq!(instants, [0, 1_000, 2_000, 3_000]);
    assert_eq!(result.asked_pps.unwrap().round(), 1e6);
    let bits = |layer| Timing::BitsPerSecond { rate: 8e9, layer };
    for (layer, bytes) in [(Layer::L1, 84), (Layer::L2, 64), (Layer::L3, 46)] {
        let (instants, _) = run(&capture, |options| options.timing = bits(layer));
        assert_eq!(instants, [0, bytes, 2 * bytes, 3 * bytes]);
    }
    let (instants, result) = run(&capture, |options| options.timing = Timing::AsFastAsPossible);
    assert_eq!(instants, [0; 4]);
    assert!(result.gap_errors.is_none() && result.asked_pps.is_none() && result.lateness.is_none());
}

#[test]
fn passes_follow_at_the_mean_gap_the_stated_one_or_the_rate() {
    let capture = at(&[0, 100, 400]);
    let thrice = |gap| Repeat {
        times: Some(3),
        duration: None,
        gap,
    };
    let (instants, result) = run(&capture, |options| options.repeat = thrice(None));
    assert_eq!(instants, [0, 100, 400, 600, 700, 1000, 1200, 1300, 1600]);
    assert_eq!((result.loops, result.packets), (3, 9));
    let (instants, _) = run(&capture, |options| options.repeat = thrice(Some(Nanos(7))));
    assert_eq!(instants, [0, 100, 400, 407, 507, 807, 814, 914, 1214]);
    let (instants, _) = run(&capture, |options| {
        options.repeat = thrice(Some(Nanos(50_000)));
        options.timing = Timing::PacketsPerSecond(1e6);
    });
    assert_eq!(
        instants,
        [0, 1000, 2000, 52_000, 53_000, 54_000, 104_000, 105_000, 106_000]
    );
    let (instants, _) = run(&capture, |options| {
        options.repeat = thrice(None);
        options.timing = Timing::PacketsPerSecond(1e6);
    });
    assert_eq!(instants, (0..9).map(|packet| packet * 1000).collect::<Vec<_>>());
}

#[test]
fn a_duration_ends_in_the_middle_of_a_pass() {
    let forever = Repeat {
        times: None,
        duration: Some(Duration::from_nanos(700)),
        gap: None,
    };
    let (instants, result) = run(&at(&[0, 100, 400]), |options| options.repeat = forever);
    assert_eq!(instants, [0, 100, 400, 600], "what is due at the end is not sent");
    assert_eq!((result.loops, result.ended), (1, Ended::Done));
    // Nothing in this capture takes time, but sending does.
    let (packets, result) = run_with(
        &at(&[0, 0]),
        |options| options.repeat = forever,
        |sink| sink.cost = Nanos(100),
    );
    assert_eq!((packets.len(), result.loops), (8, 4));
}

#[test]
fn timestamps_that_run_backwards_are_counted_and_have_gap_0() {
    let (instants, result) = run(&at(&[0, 500, 300, 600, 5 * SECOND, 700, 900]), |_| {});
    assert_eq!(instants, [0, 500, 500, 600, 5 * SECOND, 5 * SECOND, 5 * SECOND + 200]);
    assert_eq!(result.timestamps_backwards, 2);
}

#[test]
fn a_stall_shows_in_the_gaps_and_shifts_nothing() {
    let times: Vec<u64> = (0..2_001).map(|packet| packet * 1_000_000).collect();
    let (packets, result) = run_with(&at(&times), |_| {}, |sink| sink.stall_after = Some(100));
    // Packets 101 to 109 go when the stall is over; the last instants are kept.
    assert_eq!(packets[109].0, 109_000_000);
    assert_eq!(packets[2_000].0, 2 * SECOND);
    let errors = result.gap_errors.unwrap();
    assert_eq!((errors.longer_max_ns, errors.shorter_max_ns), (9_000_000, 1_000_000));
    assert_eq!(errors.gaps, 2_000);
    assert_eq!(errors.buckets.iter().map(|bucket| bucket.gaps).sum::<u64>(), 2_000);
    assert_eq!(result.lateness.unwrap().max_ns, 9_000_000);
    assert_eq!(result.rate_held, Some(true));
}

#[test]
fn a_sender_that_is_too_slow_says_so() {
    let times: Vec<u64> = (0..2_001).map(|packet| packet * 1_000_000).collect();
    let (packets, result) = run_with(&at(&times), |_| {}, |sink| sink.cost = Nanos(1_100_000));
    assert_eq!(packets.len(), 2_001, "late packets are not left out");
    assert_eq!(result.rate_held, Some(false));
    assert!(result.complaints()[0].contains("not held"), "{:?}", result.complaints());
}

#[test]
fn the_result_is_kept_when_the_interface_goes_or_a_stop_comes() {
    let times: Vec<u64> = (0..100).map(|packet| packet * 1_000).collect();
    let (packets, result) = run_with(&at(&times), |_| {}, |sink| sink.fails_after = Some(7));
    assert_eq!((packets.len(), result.packets), (7, 7));
    assert_eq!(result.ended, Ended::Interface("the interface is gone".to_owned()));

    let file = file(&at(&times));
    let options = ReplayOptions {
        repeat: Repeat {
            times: None,
            ..Repeat::once()
        },
        ..ReplayOptions::new(file.path())
    };
    let (clock, stop) = (ManualClock::default(), AtomicBool::new(false));
    let mut sink = Recorder::new(&clock);
    sink.stop_after = Some((150, &stop));
    let result = Replay::open(&options, LIMITS).unwrap().run(&mut sink, &clock, &stop);
    assert_eq!((result.packets, result.loops, result.ended), (150, 1, Ended::Stopped));
}

#[test]
fn a_capture_larger_than_the_memory_is_read_while_it_is_sent() {
    let times: Vec<u64> = (0..40_000).map(|packet| packet * 1_000).collect();
    let capture = at(&times);
    let twice = Repeat {
        times: Some(2),
        ..Repeat::once()
    };
    let (in_memory, result) = run_with(&capture, |options| options.repeat = twice, |_| {});
    assert!(result.in_memory);
    let (streamed, result) = run_with(
        &capture,
        |options| {
            options.repeat = twice;
            options.memory_bytes_max = 1 << 20;
        },
        |_| {},
    );
    assert!(!result.in_memory);
    assert_eq!((result.packets, result.loops), (80_000, 2));
    assert!(in_memory == streamed, "the same packets at the same instants");
}

#[test]
fn options_out_of_range_are_refused() {
    let file = file(&at(&[0]));
    let zero = ReplayOptions {
        timing: Timing::PacketsPerSecond(0.0),
        ..ReplayOptions::new(file.path())
    };
    let error = Replay::open(&zero, LIMITS).err().unwrap().to_string();
    assert!(error.contains("above 0"), "{error}");
    let never = ReplayOptions {
        repeat: Repeat {
            times: Some(0),
            ..Repeat::once()
        },
        ..ReplayOptions::new(file.path())
    };
    assert!(Replay::open(&never, LIMITS).is_err());
}

#[test]
fn the_text_fits_a_hundred_columns() {
    let mut meter = gaps::GapMeter::new();
    let (mut due, mut actual) = (0, 0);
    // Errors of every size, on both sides.
    for step in 0..200_u32 {
        let error = 1.13_f64.powi(step as i32 % 200) as u64 % 20_000_000_000;
        let (early, late) = if step % 2 == 0 { (error, 0) } else { (0, error) };
        due += 1_000_000 + early;
        actual += 1_000_000 + late;
        meter.packet(Nanos(due), Nanos(actual));
    }
    let errors = meter.errors().unwrap();
    let text = histogram_text(&errors);
    println!("{text}");
    assert!(text.lines().all(|line| line.len() <= 100));
    assert_eq!(errors.buckets.iter().map(|bucket| bucket.gaps).sum::<u64>(), 199);
    assert!(errors.buckets.windows(2).all(|pair| pair[0].to_ns == pair[1].from_ns));
    let (_, result) = run(&at(&[0, 1_000, 3_000]), |_| {});
    let text = result.text();
    println!("{text}");
    assert!(text.lines().all(|line| line.len() <= 100));
    assert!(serde_json::to_string(&result).is_ok());
}

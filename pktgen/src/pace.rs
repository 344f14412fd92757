//! When each packet is to be sent: a schedule for each stream from its rate, merged in time.
//!
//! Packet `k` after a change of the rate is due exactly `(k + phase) * bits / rate` after the change (`bits` of the mean packet), rounded down to the
//! nanosecond: integers that keep the remainder, so the long-run rate is the rate. `phase` is a seeded fraction of one
//! interval, so that streams of equal rates do not come in lockstep. The instants depend on nothing but the seed, the
//! rates and their times: a late sender does not shift them, and latency is measured against them.
//!
//! After a stall the packets that became due meanwhile are sent at once, but only those of the last
//! [`CATCH_UP_MAX`]; older ones are skipped, never sent and counted.

use std::cmp::Reverse;
use std::collections::BinaryHeap;

use dataplane::clock::Nanos;

use crate::flow::mix;

/// A virtual machine's host takes a core away for tens of milliseconds: less would lose packets to that, and more would
/// make a burst that no contract was tested for.
pub const CATCH_UP_MAX: Nanos = Nanos(50_000_000);

/// What the pacer must know of a stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Paced {
    /// Bytes that count in `of_packets` packets.
    pub bytes: u64,
    /// In how many: more than one where sizes take turns, of which the pacer then knows the mean.
    pub of_packets: u64,
    /// Bits per second; 0: silent.
    pub rate_bps: u64,
}

/// The merged schedule of all streams.
#[derive(Debug)]
pub struct Pacer {
    streams: Vec<Schedule>,
    /// When each stream that is not silent sends next; the earliest on top, the lower index first at the same instant.
    due: BinaryHeap<Reverse<(Nanos, usize)>>,
}

#[derive(Debug)]
struct Schedule {
    /// Bits of as many packets as a turn of the stream's sizes has, and how many those are: a fraction, the mean packet.
    bits: u64,
    of_packets: u64,
    rate_bps: u64,
    /// When the rate was set, and the packets due since.
    since: Nanos,
    packets: u64,
    /// 0 to 2^32 - 1: which fraction of an interval passes before the first packet.
    phase: u32,
    skipped: u64,
}

impl Pacer {
    /// A schedule from `start` on.
    #[must_use]
    pub fn new(streams: &[Paced], start: Nanos, seed: u64) -> Self {
        let streams = streams
            .iter()
            .enumerate()
            .map(|(i, stream)| Schedule {
                bits: stream.bytes * 8,
                of_packets: stream.of_packets.max(1),
                rate_bps: stream.rate_bps,
                since: start,
                packets: 0,
                phase: (mix(seed ^ (i as u64) << 32) >> 32) as u32,
                skipped: 0,
            })
            .collect();
        let mut pacer = Self {
            streams,
            due: BinaryHeap::new(),
        };
        pacer.merge();
        pacer
    }

    /// Changes the rate of stream `index` from `at` on. Packets due before `at` must have been taken by
    /// [`next`](Self::next): they are forgotten.
    pub fn set_rate(&mut self, index: usize, rate_bps: u64, at: Nanos) {
        if let Some(stream) = self.streams.get_mut(index) {
            stream.rate_bps = rate_bps;
            stream.since = at;
            stream.packets = 0;
        }
        self.merge();
    }

    /// The next packet that is due at `now` or before: (stream, intended instant). `None` if none is yet.
    pub fn next(&mut self, now: Nanos) -> Option<(usize, Nanos)> {
        loop {
            let &Reverse((at, index)) = self.due.peek()?;
            if at > now {
                return None;
            }
            self.due.pop();
            let stream = &mut self.streams[index];
            let late = now.since(at) > CATCH_UP_MAX;
            if late {
                let before = stream.packets;
                stream.packets = stream.first_not_before(Nanos(now.0 - CATCH_UP_MAX.0)).max(before + 1);
                stream.skipped += stream.packets - before;
            } else {
                stream.packets += 1;
            }
            let next = stream.instant(stream.packets);
            self.due.push(Reverse((next, index)));
            if !late {
                return Some((index, at));
            }
        }
    }

    /// When the next packet is due; `None` if every stream is silent.
    #[must_use]
    pub fn next_due(&self) -> Option<Nanos> {
        self.due.peek().map(|&Reverse((at, _))| at)
    }

    /// Packets of stream `index` that were never sent because the sender was late by more than [`CATCH_UP_MAX`].
    #[must_use]
    pub fn skipped(&self, index: usize) -> u64 {
        self.streams.get(index).map_or(0, |stream| stream.skipped)
    }

    fn merge(&mut self) {
        self.due.clear();
        for (index, stream) in self.streams.iter().enumerate() {
            if stream.rate_bps > 0 && stream.bits > 0 {
                self.due.push(Reverse((stream.instant(stream.packets), index)));
            }
        }
    }
}

impl Schedule {
    /// When packet `k` since the last change is due. 2^64 packets of 2^14 bits times 10^9 exceed 128 bits only past
    /// any run: 10^9 packets a second for 60 years are 2^61 of them, and the product below 2^105.
    fn instant(&self, k: u64) -> Nanos {
        let bit_nanoseconds = u128::from(self.bits) * NANOSECONDS;
        let offset = (bit_nanoseconds * u128::from(self.phase)) >> 32;
        let after =
            (u128::from(k) * bit_nanoseconds + offset) / (u128::from(self.rate_bps) * u128::from(self.of_packets));
        self.since.plus(Nanos(u64::try_from(after).unwrap_or(u64::MAX)))
    }

    /// The first packet that is due at `at` or later.
    fn first_not_before(&self, at: Nanos) -> u64 {
        let bit_nanoseconds = u128::from(self.bits) * NANOSECONDS;
        let offset = (bit_nanoseconds * u128::from(self.phase)) >> 32;
        let target = u128::from(at.since(self.since).0) * u128::from(self.rate_bps) * u128::from(self.of_packets);
        let k = target.saturating_sub(offset).div_ceil(bit_nanoseconds);
        u64::try_from(k).unwrap_or(u64::MAX)
    }
}

const NANOSECONDS: u128 = 1_000_000_000;

#[cfg(test)]
mod tests {
    use super::*;

    fn paced(bytes: u64, rate_bps: u64) -> Paced {
        Paced {
            bytes,
            of_packets: 1,
            rate_bps,
        }
    }

    fn all_until(pacer: &mut Pacer, end: Nanos) -> Vec<(usize, Nanos)> {
        let mut sent = Vec::new();
        let mut now = Nanos(0);
        while now <= end {
            while let Some(packet) = pacer.next(now) {
                sent.push(packet);
            }
            now = now.plus(Nanos(1_000_000));
        }
        sent
    }

    #[test]
    fn the_rate_is_exact_and_the_order_is_by_time() {
        // 1500 bytes at 100 Mbit/s are 8333.3 packets a second; 46 bytes at 7 kbit/s are 19.02.
        let mut pacer = Pacer::new(&[paced(1500, 100_000_000), paced(46, 7_000), paced(64, 0)], Nanos(0), 9);
        let sent = all_until(&mut pacer, Nanos(60_000_000_000));
        assert!(sent.is_sorted_by_key(|&(_, at)| at));
        for (stream, bytes, rate) in [(0, 1500u64, 100_000_000u64), (1, 46, 7_000)] {
            let bits = sent.iter().filter(|packet| packet.0 == stream).count() as u64 * bytes * 8;
            assert!(bits.abs_diff(60 * rate) <= bytes * 8, "stream {stream}: {bits}");
        }
        assert!(!sent.iter().any(|packet| packet.0 == 2));
    }

    #[test]
    fn the_schedule_depends_on_the_seed_and_not_on_when_it_is_asked() {
        let streams = [paced(60, 3_000_000), paced(60, 3_000_000)];
        let smooth = all_until(&mut Pacer::new(&streams, Nanos(0), 1), Nanos(40_000_000));
        let mut late = Pacer::new(&streams, Nanos(0), 1);
        let mut at_once = Vec::new();
        while let Some(packet) = late.next(Nanos(40_000_000)) {
            at_once.push(packet);
        }
        assert_eq!(smooth, at_once);
        assert_ne!(
            smooth,
            all_until(&mut Pacer::new(&streams, Nanos(0), 2), Nanos(40_000_000))
        );
        assert_ne!(smooth[0].1, smooth[1].1, "equal rates do not come in lockstep");
    }

    #[test]
    fn a_long_stall_is_caught_up_only_in_part_and_counted() {
        // One packet each millisecond.
        let mut pacer = Pacer::new(&[paced(125, 1_000_000)], Nanos(0), 3);
        let now = Nanos(1_000_000_000);
        let mut sent = 0;
        while let Some((_, at)) = pacer.next(now) {
            assert!(now.since(at) <= CATCH_UP_MAX);
            sent += 1;
        }
        assert!((50..=51).contains(&sent), "{sent}");
        assert!((1000..=1001).contains(&(sent + pacer.skipped(0))));
    }

    #[test]
    fn a_new_rate_holds_from_its_instant() {
        let mut pacer = Pacer::new(&[paced(125, 1_000_000)], Nanos(0), 3);
        let boundary = Nanos(10_000_000);
        let mut first = 0;
        while pacer.next_due().is_some_and(|at| at < boundary) {
            assert!(pacer.next(boundary).is_some());
            first += 1;
        }
        assert_eq!(first, 10);
        pacer.set_rate(0, 10_000_000, boundary);
        let mut second = 0;
        while let Some((_, at)) = pacer.next(Nanos(20_000_000)) {
            assert!(at >= boundary);
            second += 1;
        }
        assert!((100..=101).contains(&second), "{second}");
        pacer.set_rate(0, 0, Nanos(20_000_000));
        assert_eq!(pacer.next_due(), None);
    }
}

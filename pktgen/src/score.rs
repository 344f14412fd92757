//! What arrived, by stream, phase and DSCP. Sockets and clocks are the receiver's affair: this takes bytes and `now`.
//!
//! Every counter only grows. A packet that comes twice counts once as unique, and the loss of a stream in a phase is what
//! was sent in it minus the unique packets that carry its number: exact whatever the order, and whether or not the
//! phases follow each other at once, once the last packets have had the time to come.

use std::collections::BTreeMap;

use dataplane::clock::Nanos;
use hdrhistogram::Histogram;

use crate::probe::{Probe, Seen, dissect};
use crate::sequence::{Arrival, SequenceTracker};

/// Whose packets a [`Score`] counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ScoreKey {
    /// The stream.
    pub stream: u16,
    /// The phase in which the packet was sent, modulo 256.
    pub phase: u8,
    /// The DSCP it arrived with.
    pub dscp: u8,
}

/// Packets that arrived.
#[derive(Clone, Debug)]
pub struct Score {
    /// Packets that came for the first time; what loss is computed from.
    pub unique: u64,
    /// Bytes of those, from the IP header on.
    pub ip_bytes: u64,
    /// Those of the unique that came after a later packet of their stream.
    pub reordered: u64,
    /// Packets that had come before; not among the unique.
    pub duplicated: u64,
    /// Packets too late to tell whether they had come before; not among the unique. See [`crate::sequence::WINDOW`].
    pub too_old: u64,
    /// Those of the unique that came marked congestion experienced (ECN 3).
    pub congestion_marked: u64,
    /// Nanoseconds from the intended instant of sending to the arrival, of the unique: 1 % exact from 1 ns to
    /// [`LATENCY_MAX`], where it saturates. A packet before its time (clocks of two machines) counts as 1 ns.
    pub latency: Histogram<u64>,
    /// Nanoseconds by which the latency of a packet differs from that of the one of its stream that arrived before it, up or
    /// down (RFC 5481 section 4.1: inter-packet delay variation), of the unique; 1 ns at least, like the latency.
    pub jitter: Histogram<u64>,
}

/// All scores of a receiver, and what could not be assigned.
#[derive(Clone, Debug, Default)]
pub struct Scores {
    /// By stream, phase and DSCP.
    pub by_key: BTreeMap<ScoreKey, Score>,
    /// Packets with a wrong checksum or length. Their streams miss them.
    pub corrupted: u64,
    /// Intact packets of ours with a stream id that no stream has.
    pub unknown_stream: u64,
    /// Packets that are not of ours.
    pub foreign: u64,
    /// All packets, which is the sum of everything above: unique, duplicated, too old, corrupted, unknown, foreign.
    pub received: u64,
}

/// Counts, when several keys are added up; see [`Score`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Totals {
    /// Packets that came for the first time.
    pub unique: u64,
    /// Their bytes from the IP header on.
    pub ip_bytes: u64,
    /// Out of order.
    pub reordered: u64,
    /// Come before.
    pub duplicated: u64,
    /// Too late to tell.
    pub too_old: u64,
    /// ECN 3.
    pub congestion_marked: u64,
}

impl Scores {
    /// The sum over all keys for which `wanted` says yes.
    pub fn totals(&self, mut wanted: impl FnMut(&ScoreKey) -> bool) -> Totals {
        let mut totals = Totals::default();
        for (_, score) in self.by_key.iter().filter(|(key, _)| wanted(key)) {
            totals.unique += score.unique;
            totals.ip_bytes += score.ip_bytes;
            totals.reordered += score.reordered;
            totals.duplicated += score.duplicated;
            totals.too_old += score.too_old;
            totals.congestion_marked += score.congestion_marked;
        }
        totals
    }

    /// The latencies of all keys for which `wanted` says yes, together.
    pub fn latency(&self, mut wanted: impl FnMut(&ScoreKey) -> bool) -> Histogram<u64> {
        let mut sum = empty_histogram();
        for (_, score) in self.by_key.iter().filter(|(key, _)| wanted(key)) {
            // All are made alike, so adding cannot fail.
            let added = sum.add(&score.latency);
            debug_assert!(added.is_ok());
        }
        sum
    }

    /// The jitter of all keys for which `wanted` says yes, together.
    pub fn jitter(&self, mut wanted: impl FnMut(&ScoreKey) -> bool) -> Histogram<u64> {
        let mut sum = empty_histogram();
        for (_, score) in self.by_key.iter().filter(|(key, _)| wanted(key)) {
            let added = sum.add(&score.jitter);
            debug_assert!(added.is_ok());
        }
        sum
    }

    /// Packets of `stream` sent in `phase` that never came, given how many were sent.
    #[must_use]
    pub fn lost(&self, stream: u16, phase: u8, sent: u64) -> u64 {
        let came = self.totals(|key| key.stream == stream && key.phase == phase);
        sent.saturating_sub(came.unique)
    }
}

/// Takes packets and keeps the scores. Memory is taken when a stream, phase and DSCP are first seen together.
#[derive(Debug, Default)]
pub struct Scorer {
    streams: BTreeMap<u16, StreamState>,
    scores: Scores,
}

#[derive(Debug, Default)]
struct StreamState {
    tracker: SequenceTracker,
    /// The latency of the packet that came last, in ns.
    last_latency: Option<u64>,
}

impl Scorer {
    /// For packets of these streams.
    #[must_use]
    pub fn new(streams: &[u16]) -> Self {
        Self {
            streams: streams.iter().map(|&id| (id, StreamState::default())).collect(),
            scores: Scores::default(),
        }
    }

    /// Scores one packet, from its Ethernet header on, that arrived at `now`.
    pub fn packet(&mut self, packet: &[u8], now: Nanos) {
        self.scores.received += 1;
        match dissect(packet) {
            Seen::Probe {
                probe,
                dscp,
                ecn,
                ip_bytes,
            } => self.probe(&probe, dscp, ecn, ip_bytes, now),
            Seen::Corrupted => self.scores.corrupted += 1,
            Seen::Foreign => self.scores.foreign += 1,
        }
    }

    /// The scores so far.
    #[must_use]
    pub fn scores(&self) -> &Scores {
        &self.scores
    }

    /// Takes out what came in one phase, which must be over: packets of it that still come begin a new score.
    pub fn take_phase(&mut self, phase: u8) -> BTreeMap<ScoreKey, Score> {
        self.scores.by_key.extract_if(.., |key, _| key.phase == phase).collect()
    }

    fn probe(&mut self, probe: &Probe, dscp: u8, ecn: u8, ip_bytes: u16, now: Nanos) {
        let Some(stream) = self.streams.get_mut(&probe.stream) else {
            self.scores.unknown_stream += 1;
            return;
        };
        let key = ScoreKey {
            stream: probe.stream,
            phase: probe.phase,
            dscp,
        };
        let score = self.scores.by_key.entry(key).or_insert_with(Score::new);
        match stream.tracker.arrived(probe.sequence) {
            Arrival::InOrder => {}
            Arrival::Reordered => score.reordered += 1,
            Arrival::Duplicate => {
                score.duplicated += 1;
                return;
            }
            Arrival::TooOld => {
                score.too_old += 1;
                return;
            }
        }
        score.unique += 1;
        score.ip_bytes += u64::from(ip_bytes);
        score.congestion_marked += u64::from(ecn == 3);
        let latency = now.since(probe.intended).0.max(1);
        score.latency.saturating_record(latency);
        if let Some(last) = stream.last_latency.replace(latency) {
            score.jitter.saturating_record(latency.abs_diff(last).max(1));
        }
    }
}

impl Score {
    fn new() -> Self {
        Self {
            unique: 0,
            ip_bytes: 0,
            reordered: 0,
            duplicated: 0,
            too_old: 0,
            congestion_marked: 0,
            latency: empty_histogram(),
            jitter: empty_histogram(),
        }
    }
}

/// Latencies above count as this: 60 s, longer than any queue holds a packet.
pub const LATENCY_MAX: Nanos = Nanos(60_000_000_000);

pub(crate) fn empty_histogram() -> Histogram<u64> {
    // Two digits: 1 %, and about 60 kB for a histogram.
    Histogram::new_with_bounds(1, LATENCY_MAX.0, 2).expect("1 <= low, 2 * low <= high, digits <= 5")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::flow::mix;
    use crate::frame_builder::FrameBuilder;
    use crate::stream::tests::stream;

    /// What the simulated channel did to the packets of one stream and phase.
    #[derive(Default, Debug)]
    struct Truth {
        sent: u64,
        lost: u64,
        corrupted: u64,
        duplicated: u64,
        remarked: u64,
    }

    /// Sends packets of three streams in four phases through a channel that loses, repeats, delays, re-marks and spoils
    /// them, all known. The scores must say exactly the same.
    #[test]
    fn the_scores_equal_the_truth_of_a_bad_channel() {
        for seed in 0..3u64 {
            println!("seed {seed}");
            let builders: Vec<_> = (1..=3)
                .map(|id| FrameBuilder::new(&stream(id, 100), seed).unwrap())
                .collect();
            let mut truth: BTreeMap<(u16, u8), Truth> = BTreeMap::new();
            // (arrival, tie, bytes)
            let mut channel: Vec<(u64, u64, Vec<u8>)> = Vec::new();
            let mut sequences = [0u64; 3];
            for i in 0..40_000u64 {
                let phase = (i / 10_000) as u8;
                let random = mix(seed << 32 ^ i);
                let which = (random % 3) as usize;
                let mut packet = vec![0; 100];
                let at = 1_000 * i;
                builders[which].write(&mut packet, phase, sequences[which], Nanos(at));
                sequences[which] += 1;
                let truth = truth.entry((which as u16 + 1, phase)).or_default();
                truth.sent += 1;
                // Up to 3 ms: thousands of packets, across phases, within the window.
                let delay = if random >> 8 & 7 == 0 {
                    (random >> 16) % 3_000_000
                } else {
                    50_000
                };
                match random >> 40 & 0xff {
                    0..10 => truth.lost += 1,
                    10..13 => {
                        packet[50 + (random >> 50 & 31) as usize] ^= 0x10;
                        truth.corrupted += 1;
                        channel.push((at + delay, i, packet));
                    }
                    13..20 => {
                        truth.duplicated += 1;
                        channel.push((at + delay, i, packet.clone()));
                        channel.push((at + delay + 70_000, i, packet));
                    }
                    20..40 => {
                        truth.remarked += 1;
                        mark_le(&mut packet);
                        channel.push((at + delay, i, packet));
                    }
                    _ => channel.push((at + delay, i, packet)),
                }
            }
            channel.sort();
            let mut scorer = Scorer::new(&[1, 2, 3]);
            for (at, _, packet) in &channel {
                scorer.packet(packet, Nanos(*at));
            }
            let scores = scorer.scores();
            for (&(stream, phase), truth) in &truth {
                let of_phase = |key: &ScoreKey| key.stream == stream && key.phase == phase;
                let totals = scores.totals(of_phase);
                let arrived = truth.sent - truth.lost - truth.corrupted;
                assert_eq!(totals.unique, arrived, "{truth:?}");
                assert_eq!(scores.lost(stream, phase, truth.sent), truth.lost + truth.corrupted);
                assert_eq!((totals.duplicated, totals.too_old), (truth.duplicated, 0));
                assert_eq!(totals.ip_bytes, arrived * 86);
                assert_eq!(
                    scores.totals(|key| of_phase(key) && key.dscp == 1).unique,
                    truth.remarked
                );
                assert_eq!(scores.latency(of_phase).len(), arrived);
            }
            assert_eq!(
                scores.corrupted,
                truth.values().map(|truth| truth.corrupted).sum::<u64>()
            );
            assert_eq!(scores.totals(|_| true).reordered, reordered_in(&channel));
            let totals = scores.totals(|_| true);
            assert_eq!(scores.received, channel.len() as u64);
            assert_eq!(scores.received, totals.unique + totals.duplicated + scores.corrupted);
            let latency = scores.latency(|_| true);
            assert!((2_950_000..=3_030_000).contains(&latency.max()), "{}", latency.max());
            assert!((49_500..=50_500).contains(&latency.value_at_quantile(0.5)));
        }
    }

    /// Counts by the definition: intact first arrivals with a number below one that has come.
    fn reordered_in(channel: &[(u64, u64, Vec<u8>)]) -> u64 {
        let mut came: BTreeMap<u16, std::collections::BTreeSet<u64>> = BTreeMap::new();
        let mut reordered = 0;
        for (_, _, packet) in channel {
            if let Seen::Probe { probe, .. } = dissect(packet) {
                let came = came.entry(probe.stream).or_default();
                let later = came.last().is_some_and(|&last| last > probe.sequence);
                if came.insert(probe.sequence) && later {
                    reordered += 1;
                }
            }
        }
        reordered
    }

    /// DSCP 46 to 1, with the checksum made right as a router would (RFC 1624).
    fn mark_le(packet: &mut [u8]) {
        packet[15] = 1 << 2;
        let checksum = dataplane::checksum::ipv4_header_checksum(&packet[14..34]);
        packet[24..26].copy_from_slice(&checksum.to_be_bytes());
    }

    #[test]
    fn what_is_not_ours_is_counted_apart() {
        let mut scorer = Scorer::new(&[1]);
        let mut packet = vec![0; 60];
        FrameBuilder::new(&stream(9, 60), 0)
            .unwrap()
            .write(&mut packet, 0, 0, Nanos(5));
        scorer.packet(&packet, Nanos(4));
        scorer.packet(&[0; 60], Nanos(4));
        scorer.packet(&[], Nanos(4));
        FrameBuilder::new(&stream(1, 60), 0)
            .unwrap()
            .write(&mut packet, 0, 0, Nanos(5));
        scorer.packet(&packet, Nanos(4));
        let scores = scorer.scores();
        assert_eq!((scores.unknown_stream, scores.foreign, scores.received), (1, 2, 4));
        assert_eq!(scores.latency(|_| true).max(), 1, "a packet before its time");
    }
}

//! What arrived, out of the maps of `xdp/score/score.bpf.c`.

use std::collections::BTreeMap;

use dataplane::clock::Nanos;

/// `struct score` of the program, one for each CPU.
pub(super) type ScoreWords = [u64; SCORE_WORDS];

/// All scores of a receiver. Every counter only grows.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Scores {
    /// By stream id and phase (modulo the phases told apart); also those of which nothing has come.
    pub by_stream: BTreeMap<(u16, u8), Score>,
    /// Packets of ours with a stream id that no stream has.
    pub unknown_stream: u64,
    /// Packets that are not ours. They went on to the kernel.
    pub foreign: u64,
}

/// Packets that arrived.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Score {
    /// Packets that came for the first time; what loss is computed from.
    pub unique: u64,
    /// Bytes of those, from the IP header on.
    pub ip_bytes: u64,
    /// Those of the unique that came after a later packet of their stream.
    pub reordered: u64,
    /// Packets that had come before; not among the unique.
    pub duplicated: u64,
    /// Packets more than 65,504 numbers before the next expected, too late to tell whether they had come before; not among the unique.
    pub too_old: u64,
    /// Those of the unique that came marked congestion experienced (ECN 3).
    pub congestion_marked: u64,
    /// Those of the unique by the DSCP they arrived with.
    pub by_dscp: [u64; 64],
    /// From the intended instant of sending to the arrival, of those of the unique that were measured.
    pub latency: Latency,
}

/// A histogram of latencies: a bucket for each nanosecond below 16, and sixteen for each doubling above, up to 2^40 ns
/// (18 minutes). The middle of a bucket is 3 % from its ends.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Latency {
    buckets: Vec<u64>,
    max: u64,
}

impl Scores {
    /// Packets that never came of `sent` packets of a stream in a phase.
    #[must_use]
    pub fn lost(&self, stream: u16, phase: u8, sent: u64) -> u64 {
        let came = self.by_stream.get(&(stream, phase)).map_or(0, |score| score.unique);
        sent.saturating_sub(came)
    }

    /// Everything that came: unique, duplicated, too old, unknown, foreign.
    #[must_use]
    pub fn received(&self) -> u64 {
        let ours: u64 = self
            .by_stream
            .values()
            .map(|score| score.unique + score.duplicated + score.too_old)
            .sum();
        ours + self.unknown_stream + self.foreign
    }
}

impl Score {
    /// The sum over all CPUs.
    pub(super) fn new(by_cpu: &[ScoreWords]) -> Self {
        let sum = |at: usize| by_cpu.iter().map(|words| words[at]).sum();
        let mut by_dscp = [0; 64];
        for (dscp, packets) in by_dscp.iter_mut().enumerate() {
            *packets = sum(BY_DSCP + dscp);
        }
        Self {
            unique: sum(0),
            ip_bytes: sum(1),
            reordered: sum(2),
            duplicated: sum(3),
            too_old: sum(4),
            congestion_marked: sum(5),
            by_dscp,
            latency: Latency {
                buckets: (LATENCY..SCORE_WORDS).map(sum).collect(),
                max: by_cpu.iter().map(|words| words[LATENCY_MAX]).max().unwrap_or(0),
            },
        }
    }
}

impl Latency {
    /// Packets measured.
    #[must_use]
    pub fn count(&self) -> u64 {
        self.buckets.iter().sum()
    }

    /// The longest, to the nanosecond.
    #[must_use]
    pub fn max(&self) -> Nanos {
        Nanos(self.max)
    }

    /// The shortest time that `quantile` (0 to 1) of the packets did not exceed, as the upper end of its bucket and never
    /// more than the longest; `None` if none was measured.
    #[must_use]
    pub fn quantile(&self, quantile: f64) -> Option<Nanos> {
        let count = self.count();
        let rank = ((quantile.clamp(0.0, 1.0) * count as f64).ceil() as u64).max(1);
        let mut below = 0;
        for (bucket, &packets) in self.buckets.iter().enumerate() {
            below += packets;
            if below >= rank {
                return Some(Nanos((lowest(bucket + 1) - 1).min(self.max)));
            }
        }
        None
    }

    /// The buckets that are not empty: the lowest and the highest nanosecond of each, and its packets.
    pub fn buckets(&self) -> impl Iterator<Item = (Nanos, Nanos, u64)> {
        let filled = self.buckets.iter().enumerate().filter(|(_, packets)| **packets > 0);
        filled.map(|(bucket, &packets)| (Nanos(lowest(bucket)), Nanos(lowest(bucket + 1) - 1), packets))
    }
}

/// The smallest latency of a bucket.
fn lowest(bucket: usize) -> u64 {
    let bucket = bucket as u64;
    if bucket < 16 {
        return bucket;
    }
    (16 + bucket % 16) << (bucket / 16 - 1)
}

/// Of `struct score`.
const LATENCY_MAX: usize = 6;
const BY_DSCP: usize = 7;
const LATENCY: usize = BY_DSCP + 64;
const SCORE_WORDS: usize = LATENCY + 16 * 37;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn buckets_follow_each_other_and_end_where_the_program_stops() {
        for bucket in 0..16 * 37 {
            assert!(lowest(bucket) < lowest(bucket + 1), "{bucket}");
        }
        assert_eq!([0, 15, 16, 17, 32, 33].map(lowest), [0, 15, 16, 17, 32, 34]);
        assert_eq!(lowest(16 * 37), 1 << 40);
    }

    #[test]
    fn counters_of_all_cpus_are_added_up_but_the_longest_latency_is_one_of_them() {
        let (mut a, mut b) = ([0; SCORE_WORDS], [0; SCORE_WORDS]);
        for (at, word) in a.iter_mut().enumerate() {
            *word = at as u64 + 1;
        }
        b[0] = 100;
        b[LATENCY_MAX] = 5_000;
        b[BY_DSCP + 46] = 7;
        let score = Score::new(&[a, b]);
        assert_eq!([score.unique, score.ip_bytes, score.reordered], [101, 2, 3]);
        assert_eq!([score.duplicated, score.too_old, score.congestion_marked], [4, 5, 6]);
        assert_eq!(score.by_dscp[46], 7 + BY_DSCP as u64 + 46 + 1);
        assert_eq!(score.latency.max(), Nanos(5_000));
    }

    #[test]
    fn quantiles_are_the_ends_of_buckets() {
        let mut words = [0; SCORE_WORDS];
        words[LATENCY + 3] = 98;
        words[LATENCY + 16 * 7] = 1;
        words[LATENCY + 16 * 8] = 1;
        words[LATENCY_MAX] = 2_050;
        let latency = Score::new(&[words]).latency;
        assert_eq!(latency.count(), 100);
        assert_eq!(latency.quantile(0.0), Some(Nanos(3)));
        assert_eq!(latency.quantile(0.98), Some(Nanos(3)));
        assert_eq!(latency.quantile(0.99), Some(Nanos(1_087)));
        assert_eq!(latency.quantile(1.0), Some(Nanos(2_050)));
        let ends: Vec<u64> = latency.buckets().map(|(low, _, _)| low.0).collect();
        assert_eq!(ends, [3, 1_024, 2_048]);
        assert_eq!(Score::new(&[]).latency.quantile(0.5), None);
    }
}

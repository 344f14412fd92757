//! How far the gaps between packets were off, and the histogram that shows it.

use std::fmt::Write;

use dataplane::clock::Nanos;
use hdrhistogram::Histogram;
use serde::Serialize;

/// Collects the instants of packets: intended and actual.
#[derive(Debug)]
pub(super) struct GapMeter {
    /// Of errors above zero (the gap was longer than intended), and at or below zero.
    longer: Histogram<u64>,
    shorter: Histogram<u64>,
    /// Of either.
    size: Histogram<u64>,
    late: Histogram<u64>,
    /// Exact, where the histograms round.
    longer_max: u64,
    shorter_max: u64,
    late_max: u64,
    sum_ns: i128,
    first: Option<(Nanos, Nanos)>,
    last: Option<(Nanos, Nanos)>,
}

/// How far the gaps between packets were off: actual minus intended, in nanoseconds. An actual gap is that between the
/// instants at which two packets were given to the kernel; those of one batch have the same.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct GapErrors {
    /// Gaps measured.
    pub gaps: u64,
    /// The mean error, with its sign.
    pub mean_ns: f64,
    /// Of the sizes of the errors, without their signs, exact to 1 %.
    pub p50_ns: u64,
    /// As above.
    pub p90_ns: u64,
    /// As above.
    pub p99_ns: u64,
    /// As above.
    pub p999_ns: u64,
    /// By how much the worst gap was too long.
    pub longer_max_ns: u64,
    /// By how much the worst gap was too short.
    pub shorter_max_ns: u64,
    /// Gaps by error, from the shortest to the longest, without empty ends.
    pub buckets: Vec<Bucket>,
}

/// Gaps with an error of `from_ns` (inclusive) to `to_ns` (exclusive).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct Bucket {
    /// The least error.
    pub from_ns: i64,
    /// The least error of the next bucket.
    pub to_ns: i64,
    /// How many gaps.
    pub gaps: u64,
}

/// How long after their intended instants packets were given to the kernel, in nanoseconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct Lateness {
    /// Half of the packets were later.
    pub p50_ns: u64,
    /// As above: 1 %.
    pub p99_ns: u64,
    /// As above: 0.1 %.
    pub p999_ns: u64,
    /// The latest.
    pub max_ns: u64,
}

impl GapMeter {
    pub(super) fn new() -> Self {
        Self {
            longer: empty(),
            shorter: empty(),
            size: empty(),
            late: empty(),
            longer_max: 0,
            shorter_max: 0,
            late_max: 0,
            sum_ns: 0,
            first: None,
            last: None,
        }
    }

    pub(super) fn packet(&mut self, due: Nanos, actual: Nanos) {
        if let Some((last_due, last_actual)) = self.last {
            let (intended, gap) = (due.since(last_due).0, actual.since(last_actual).0);
            let error = gap.abs_diff(intended);
            if gap > intended {
                self.longer.saturating_record(error);
                self.longer_max = self.longer_max.max(error);
                self.sum_ns += i128::from(error);
            } else {
                self.shorter.saturating_record(error);
                self.shorter_max = self.shorter_max.max(error);
                self.sum_ns -= i128::from(error);
            }
            self.size.saturating_record(error);
        }
        let late = actual.since(due).0;
        self.late.saturating_record(late);
        self.late_max = self.late_max.max(late);
        self.first.get_or_insert((due, actual));
        self.last = Some((due, actual));
    }

    /// From the first to the last packet: seconds intended and seconds taken.
    pub(super) fn spans(&self) -> Option<(f64, f64)> {
        let ((first_due, first_actual), (last_due, last_actual)) = (self.first?, self.last?);
        let seconds = |nanos: Nanos| nanos.0 as f64 / 1e9;
        Some((
            seconds(last_due.since(first_due)),
            seconds(last_actual.since(first_actual)),
        ))
    }

    pub(super) fn errors(&self) -> Option<GapErrors> {
        let gaps = self.size.len();
        if gaps == 0 {
            return None;
        }
        let percentile = |q| self.size.value_at_quantile(q);
        Some(GapErrors {
            gaps,
            mean_ns: self.sum_ns as f64 / gaps as f64,
            p50_ns: percentile(0.5),
            p90_ns: percentile(0.9),
            p99_ns: percentile(0.99),
            p999_ns: percentile(0.999),
            longer_max_ns: self.longer_max,
            shorter_max_ns: self.shorter_max,
            buckets: self.buckets(),
        })
    }

    pub(super) fn lateness(&self) -> Option<Lateness> {
        (!self.late.is_empty()).then(|| Lateness {
            p50_ns: self.late.value_at_quantile(0.5),
            p99_ns: self.late.value_at_quantile(0.99),
            p999_ns: self.late.value_at_quantile(0.999),
            max_ns: self.late_max,
        })
    }

    fn buckets(&self) -> Vec<Bucket> {
        let edges = edges();
        let mut counts = vec![0; edges.len() + 1];
        for value in self.shorter.iter_recorded() {
            let error = -(value.value_iterated_to() as i64);
            counts[edges.partition_point(|&edge| edge <= error)] += value.count_at_value();
        }
        for value in self.longer.iter_recorded() {
            let error = value.value_iterated_to() as i64;
            counts[edges.partition_point(|&edge| edge <= error)] += value.count_at_value();
        }
        let ends = [ERROR_MAX as i64 * 2];
        let from = [-ends[0]].into_iter().chain(edges.iter().copied());
        let to = edges.iter().copied().chain(ends);
        let all = from.zip(to).zip(counts);
        let mut buckets: Vec<Bucket> = all
            .map(|((from_ns, to_ns), gaps)| Bucket { from_ns, to_ns, gaps })
            .collect();
        let used = |bucket: &Bucket| bucket.gaps > 0;
        buckets.truncate(buckets.iter().rposition(used).map_or(0, |last| last + 1));
        buckets.drain(..buckets.iter().position(used).unwrap_or(0));
        buckets
    }
}

/// The bounds between buckets: 100, 200, 500 ns and so on to 10 s, on both sides of zero. The innermost bucket holds
/// errors of less than 100 ns, which no clock of a packet sender tells apart.
fn edges() -> Vec<i64> {
    let positive = (2..10).flat_map(|power| [1, 2, 5].map(|digit| digit * 10_i64.pow(power)));
    let positive: Vec<i64> = positive.chain([10_000_000_000]).collect();
    let negative = positive.iter().rev().map(|edge| 1 - edge);
    negative.chain(positive.iter().copied()).collect()
}

/// The errors as text: one line for each bucket, at most 100 columns.
#[must_use]
pub fn histogram_text(errors: &GapErrors) -> String {
    let most = errors
        .buckets
        .iter()
        .map(|bucket| bucket.gaps)
        .max()
        .unwrap_or(0)
        .max(1);
    let mut text = format!(
        "Gap errors (actual - intended) of {} gaps: mean {},\n  size p50 {}, p90 {}, p99 {}, p99.9 {}, longest +{}, shortest -{}\n",
        errors.gaps,
        signed(errors.mean_ns as i64),
        duration(errors.p50_ns),
        duration(errors.p90_ns),
        duration(errors.p99_ns),
        duration(errors.p999_ns),
        duration(errors.longer_max_ns),
        duration(errors.shorter_max_ns),
    );
    for bucket in &errors.buckets {
        let share = bucket.gaps as f64 * 100.0 / errors.gaps as f64;
        // At least a dot for what is there at all.
        let width = (u128::from(bucket.gaps) * BAR_WIDTH / u128::from(most)) as usize;
        let bar = match (bucket.gaps, width) {
            (0, _) => String::new(),
            (_, 0) => ".".to_owned(),
            (_, width) => "#".repeat(width),
        };
        let line = format!("  {:>20} {:>12} {share:>6.2} % {bar}", range(bucket), bucket.gaps);
        // Writing to a string cannot fail.
        let _written = writeln!(text, "{}", line.trim_end());
    }
    text
}

fn range(bucket: &Bucket) -> String {
    let inner = |edge: i64| edge.unsigned_abs() <= ERROR_MAX;
    match (inner(bucket.from_ns), inner(bucket.to_ns)) {
        (false, _) => format!("below {}", signed(bucket.to_ns - 1)),
        (_, false) => format!("above {}", signed(bucket.from_ns)),
        // The bounds of the negative side are one nanosecond off, so that the sides mirror each other.
        _ if bucket.to_ns <= 0 => format!("{} .. {}", signed(bucket.from_ns - 1), signed(bucket.to_ns - 1)),
        _ if bucket.from_ns < 0 => format!("{} .. {}", signed(bucket.from_ns - 1), signed(bucket.to_ns)),
        _ => format!("{} .. {}", signed(bucket.from_ns), signed(bucket.to_ns)),
    }
}

fn signed(nanoseconds: i64) -> String {
    let sign = match nanoseconds {
        0 => "",
        1.. => "+",
        _ => "-",
    };
    format!("{sign}{}", duration(nanoseconds.unsigned_abs()))
}

/// Nanoseconds in a unit that keeps the number below 1000, with up to three digits.
pub(super) fn duration(nanoseconds: u64) -> String {
    let (value, unit) = match nanoseconds {
        0..1_000 => (nanoseconds as f64, "ns"),
        1_000..1_000_000 => (nanoseconds as f64 / 1e3, "us"),
        1_000_000..1_000_000_000 => (nanoseconds as f64 / 1e6, "ms"),
        _ => (nanoseconds as f64 / 1e9, "s"),
    };
    if value.fract() == 0.0 || value >= 100.0 {
        format!("{value:.0} {unit}")
    } else {
        format!("{value:.1} {unit}")
    }
}

fn empty() -> Histogram<u64> {
    // The bounds are constants that hdrhistogram takes: 1 <= low, 2 * low <= high, digits <= 5.
    Histogram::new_with_bounds(1, ERROR_MAX, 2).expect("constant bounds")
}

/// An error of ten seconds is as bad as any.
const ERROR_MAX: u64 = 10_000_000_000;
/// So that a line stays within 100 columns.
const BAR_WIDTH: u128 = 50;

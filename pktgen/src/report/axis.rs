//! Axes: from values to places, and where the ticks are. Any numbers make an axis: empty and single ranges, and numbers that
//! are not finite, get one that something can be drawn on.

use super::units;

/// One axis.
pub(super) struct Axis {
    /// What it shows, with the unit.
    pub(super) name: String,
    /// The lowest value; below `high`.
    pub(super) low: f64,
    /// The highest.
    pub(super) high: f64,
    pub(super) scale: Scale,
    /// Where a line is drawn across the plot, and what stands beside it.
    pub(super) ticks: Vec<(f64, String)>,
}

/// How values are laid along an axis.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Scale {
    Linear,
    Log,
    /// Numbered from 0, each one wide.
    Categories,
}

impl Axis {
    /// From `low` to `high`, in multiples of `unit` by a thousand as fits.
    pub(super) fn linear(name: &str, unit: &str, low: f64, high: f64) -> Self {
        let (low, high) = (tame(low), tame(high));
        let (mut low, mut high) = (low.min(high), low.max(high));
        // A range of nothing, or one that f64 cannot divide: the value stands in the middle, and nothing at the left.
        if high - low <= high.abs().max(low.abs()) * 1e-9 {
            let margin = low.abs() * 0.05;
            (low, high) = (low - margin, high + margin.max(1e-3));
        }
        let step = round_step((high - low) / STEPS);
        let (factor, prefix) = units::prefix(low.abs().max(high.abs()));
        let decimals = usize::try_from(-(step / factor).log10().floor() as i64)
            .unwrap_or(0)
            .min(9);
        let first = (low / step).ceil();
        let ticks = (0..12)
            .map(|i| (first + f64::from(i)) * step)
            .filter(|&at| at <= high + step * 1e-6)
            .map(|at| (at, format!("{:.decimals$}", at / factor + 0.0)))
            .collect();
        Self {
            name: format!("{name}, {prefix}{unit}"),
            low,
            high,
            scale: Scale::Linear,
            ticks,
        }
    }

    /// From zero to the first round number at or above `high`: what bars stand on.
    pub(super) fn from_zero(name: &str, unit: &str, high: f64) -> Self {
        let high = if high > 0.0 { tame(high) } else { 1.0 };
        let step = round_step(high / STEPS);
        Self::linear(name, unit, 0.0, (high / step).ceil() * step)
    }

    /// From 1, 2 or 5 times a power of ten to another, so that `low` to `high`, both above zero, fit.
    pub(super) fn log(name: &str, low: f64, high: f64, label: impl Fn(f64) -> String) -> Self {
        let low = round_down(low);
        let high = round_step(tame(high)).max(low * 10.0);
        let decades = decades(low, high);
        let every = decades.len() / LABELLED_DECADES + 1;
        let mut ticks = Vec::new();
        for (number, at) in decades.iter().copied().enumerate() {
            let label_of = |at: f64| if number % every == 0 { label(at) } else { String::new() };
            ticks.push((at, label_of(at)));
            if decades.len() <= 4 {
                ticks.extend([2.0, 5.0].map(|part| (at * part, label_of(at * part))));
            }
        }
        ticks.retain(|&(at, _)| (low * (1.0 - 1e-9)..=high * (1.0 + 1e-9)).contains(&at));
        Self {
            name: name.to_owned(),
            low,
            high,
            scale: Scale::Log,
            ticks,
        }
    }

    /// The decades that hold `least` to `most`, both above zero, and below them one more whose end stands for nothing at all: a
    /// logarithm has no zero.
    pub(super) fn log_and_none(name: &str, least: f64, most: f64, label: impl Fn(f64) -> String) -> Self {
        let low = 10f64.powf((tame(least).max(LEAST).log10() + 1e-9).floor() - 1.0);
        let high = 10f64.powf((tame(most).max(LEAST).log10() - 1e-9).ceil());
        let high = high.max(low * 100.0);
        let decades = decades(low, high);
        let every = decades.len() / LABELLED_DECADES + 1;
        let ticks = decades
            .into_iter()
            .enumerate()
            .map(|(number, at)| match number {
                0 => (at, "none".to_owned()),
                _ if (number - 1) % every == 0 => (at, label(at)),
                _ => (at, String::new()),
            })
            .collect();
        Self {
            name: name.to_owned(),
            low,
            high,
            scale: Scale::Log,
            ticks,
        }
    }

    /// One place for each label.
    pub(super) fn categories(name: &str, labels: Vec<String>) -> Self {
        Self {
            name: name.to_owned(),
            low: 0.0,
            high: labels.len().max(1) as f64,
            scale: Scale::Categories,
            ticks: labels
                .into_iter()
                .enumerate()
                .map(|(i, label)| (i as f64 + 0.5, label))
                .collect(),
        }
    }

    /// Places between labels: one fewer than there are.
    pub(super) fn edges(name: &str, labels: Vec<String>) -> Self {
        Self {
            name: name.to_owned(),
            low: 0.0,
            high: labels.len().saturating_sub(1).max(1) as f64,
            scale: Scale::Categories,
            ticks: labels
                .into_iter()
                .enumerate()
                .map(|(i, label)| (i as f64, label))
                .collect(),
        }
    }

    /// Where a value lies, 0 to 1; what is beyond an end lies on it. `None` if it is not finite.
    pub(super) fn fraction(&self, value: f64) -> Option<f64> {
        if !value.is_finite() {
            return None;
        }
        let value = value.clamp(self.low, self.high);
        let fraction = match self.scale {
            Scale::Log => (value / self.low).log10() / (self.high / self.low).log10(),
            Scale::Linear | Scale::Categories => (value - self.low) / (self.high - self.low),
        };
        fraction.is_finite().then_some(fraction)
    }
}

/// About so many steps of a linear axis.
const STEPS: f64 = 6.0;
/// More decades than this, and only every second is labelled.
const LABELLED_DECADES: usize = 12;
/// What a logarithm is taken of at least.
const LEAST: f64 = 1e-18;

/// The powers of ten from just below `low` to `high`; 60 at most.
fn decades(low: f64, high: f64) -> Vec<f64> {
    let first = (low.log10() + 1e-9).floor() as i32;
    (first..first.saturating_add(60))
        .map(|power| 10f64.powi(power))
        .take_while(|&at| at <= high * (1.0 + 1e-9))
        .collect()
}

/// The last of 1, 2, 5 times a power of ten that is not above.
fn round_down(value: f64) -> f64 {
    let value = tame(value).max(LEAST);
    let decade = 10f64.powf((value.log10() + 1e-9).floor());
    let part = [5.0, 2.0]
        .into_iter()
        .find(|part| value >= decade * part * (1.0 - 1e-9))
        .unwrap_or(1.0);
    decade * part
}

/// Beyond this, differences and products of values would not be finite.
fn tame(value: f64) -> f64 {
    if value.is_nan() { 0.0 } else { value.clamp(-1e18, 1e18) }
}

/// The next of 1, 2, 5 times a power of ten; 1 of nothing.
fn round_step(step: f64) -> f64 {
    if !step.is_finite() || step <= 0.0 {
        return 1.0;
    }
    let decade = 10f64.powf(step.log10().floor());
    let of = step / decade;
    let round = [1.0, 2.0, 5.0]
        .into_iter()
        .find(|&round| of <= round + 1e-9)
        .unwrap_or(10.0);
    round * decade
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ticks_are_round_and_labels_differ() {
        let axis = Axis::linear("Load", "pps", 1_840_100.0, 1_842_300.0);
        assert_eq!(axis.name, "Load, Mpps");
        let labels: Vec<&str> = axis.ticks.iter().map(|tick| tick.1.as_str()).collect();
        assert_eq!(labels, ["1.8405", "1.8410", "1.8415", "1.8420"]);
        let axis = Axis::from_zero("Rate", "bit/s", 9.3e9);
        assert_eq!((axis.name.as_str(), axis.high), ("Rate, Gbit/s", 1e10));
        let axis = Axis::log("Time", 850.0, 1.2e6, units::round_time);
        let labels: Vec<&str> = axis.ticks.iter().map(|tick| tick.1.as_str()).collect();
        assert_eq!(labels, ["1 µs", "10 µs", "100 µs", "1 ms"]);
        assert_eq!((axis.low, axis.high), (500.0, 2e6));
        let axis = Axis::log("Time", 21_000.0, 48_000.0, units::round_time);
        let labels: Vec<&str> = axis.ticks.iter().map(|tick| tick.1.as_str()).collect();
        assert_eq!(labels, ["20 µs", "50 µs", "100 µs", "200 µs"]);
        let axis = Axis::log_and_none("Loss", 0.002, 0.3, units::percent);
        let labels: Vec<&str> = axis.ticks.iter().map(|tick| tick.1.as_str()).collect();
        assert_eq!(labels, ["none", "0.1 %", "1 %", "10 %", "100 %"]);
    }
}

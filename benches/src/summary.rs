//! Figures of several rounds, and how they are shown.

/// Order statistics of a handful of measurements.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Summary {
    /// Smallest.
    pub min: f64,
    /// In the middle.
    pub median: f64,
    /// Nine of ten are at most this.
    pub p90: f64,
    /// Largest.
    pub max: f64,
}

impl Summary {
    /// Of at least one value.
    ///
    /// # Panics
    /// If there is none.
    #[must_use]
    pub fn of(values: &[f64]) -> Self {
        let mut sorted = values.to_vec();
        sorted.sort_by(f64::total_cmp);
        let at = |share: f64| sorted[((sorted.len() - 1) as f64 * share).round() as usize];
        let middle = sorted.len() / 2;
        let median = if sorted.len().is_multiple_of(2) {
            f64::midpoint(sorted[middle - 1], sorted[middle])
        } else {
            sorted[middle]
        };
        Self {
            min: sorted[0],
            median,
            p90: at(0.9),
            max: sorted[sorted.len() - 1],
        }
    }

    /// As JSON, every figure by its name.
    #[must_use]
    pub fn json(&self) -> serde_json::Value {
        serde_json::json!({ "min": self.min, "median": self.median, "p90": self.p90, "max": self.max })
    }
}

#[cfg(test)]
mod tests {
    use super::Summary;

    #[test]
    fn statistics_of_odd_and_even_counts() {
        let odd = Summary::of(&[3.0, 1.0, 2.0]);
        assert_eq!((odd.min, odd.median, odd.max), (1.0, 2.0, 3.0));
        assert_eq!(Summary::of(&[4.0, 1.0, 2.0, 3.0]).median, 2.5);
        let ten: Vec<f64> = (0..=10).map(f64::from).collect();
        assert_eq!(Summary::of(&ten).p90, 9.0);
        assert_eq!(Summary::of(&[7.0]).p90, 7.0);
    }
}

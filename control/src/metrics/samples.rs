//! Families with a sample for each contract, of which there may be a million: written a line at a time, with labels that
//! are put together once for a scrape. The encoder of `prometheus-client` makes some thirty writes of a sample; it says
//! everything else, and what is written here reads as if it had.

use std::fmt::{self, Debug, Write};

/// Sets of labels, each in the form that it has in every sample: `service="web",class="gold"`.
#[derive(Debug, Default)]
pub(super) struct LabelSets {
    text: String,
    /// Where each set ends and the next begins.
    ends: Vec<usize>,
}

impl LabelSets {
    /// Adds one, with the number after that of the last; the first has 0.
    pub(super) fn push(&mut self, labels: &[(&str, &str)]) {
        for (position, (name, value)) in labels.iter().enumerate() {
            let comma = if position > 0 { "," } else { "" };
            self.text.extend([comma, name, "=\""]);
            push_escaped(&mut self.text, value);
            self.text.push('"');
        }
        self.ends.push(self.text.len());
    }

    /// The one of this number.
    pub(super) fn get(&self, number: usize) -> &str {
        let begin = number.checked_sub(1).map_or(0, |before| self.ends[before]);
        &self.text[begin..self.ends[number]]
    }
}

/// One family on its way out: its description has been written, its samples follow.
pub(super) struct Family<'o, W> {
    out: &'o mut W,
    line: String,
    /// How much of the line is the same in all samples.
    name_len: usize,
}

impl<'o, W: Write> Family<'o, W> {
    /// Describes a counter.
    pub(super) fn counter(out: &'o mut W, name: &str, help: &str, unit: &str) -> Result<Self, fmt::Error> {
        Self::new(out, &format!("{name}_{unit}"), help, Some(unit), "counter", "_total")
    }

    /// Describes a gauge.
    pub(super) fn gauge(out: &'o mut W, name: &str, help: &str, unit: Option<&str>) -> Result<Self, fmt::Error> {
        let whole = unit.map_or(name.to_owned(), |unit| format!("{name}_{unit}"));
        Self::new(out, &whole, help, unit, "gauge", "")
    }

    fn new(
        out: &'o mut W,
        name: &str,
        help: &str,
        unit: Option<&str>,
        kind: &str,
        suffix: &str,
    ) -> Result<Self, fmt::Error> {
        writeln!(out, "# HELP {PREFIX}_{name} {help}\n# TYPE {PREFIX}_{name} {kind}")?;
        if let Some(unit) = unit {
            writeln!(out, "# UNIT {PREFIX}_{name} {unit}")?;
        }
        let line = format!("{PREFIX}_{name}{suffix}{{");
        let name_len = line.len();
        Ok(Self { out, line, name_len })
    }

    /// Writes a sample whose labels are those of a set and what follows it.
    pub(super) fn sample(&mut self, labels: &[&str], value: impl Debug) -> fmt::Result {
        self.line.truncate(self.name_len);
        self.line.extend(labels.iter().copied());
        // A float has its point in this form, also when it is whole.
        writeln!(self.line, "}} {value:?}")?;
        self.out.write_str(&self.line)
    }
}

/// What all names begin with.
pub(super) const PREFIX: &str = "weir";

fn push_escaped(text: &mut String, value: &str) {
    for part in value.split_inclusive(['\\', '"', '\n']) {
        let plain = part.trim_end_matches(['\\', '"', '\n']);
        text.push_str(plain);
        match &part[plain.len()..] {
            "\n" => text.push_str("\\n"),
            "" => {}
            other => text.extend(["\\", other]),
        }
    }
}

#[cfg(test)]
mod tests {
    use prometheus_client::collector::Collector;
    use prometheus_client::encoding::{DescriptorEncoder, text};
    use prometheus_client::registry::Registry;

    use super::*;
    use crate::metrics::family;

    const SETS: [[(&str, &str); 2]; 4] = [
        [("service", "web"), ("class", "gold")],
        [("service", ""), ("class", "\"")],
        [("service", "a\\\\b\n\nc\"d\\"), ("class", "{}=, ü")],
        [("service", "web"), ("class", "gold")],
    ];
    const COUNTS: [u64; 4] = [0, 7, 1_234_567_890, u64::MAX];
    const GAUGES: [f64; 4] = [0.0, 1.0, 250_000_000.125, 50e9];

    #[derive(Debug)]
    struct Theirs;

    impl Collector for Theirs {
        fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
            let encoder = &mut encoder;
            family::counter(
                encoder,
                "counted",
                "So far",
                Some("bytes"),
                SETS.into_iter().zip(COUNTS),
            )?;
            family::gauge(
                encoder,
                "rate",
                "Now",
                Some("bytes_per_second"),
                SETS.into_iter().zip(GAUGES),
            )?;
            family::gauge(encoder, "active", "Whether", None, SETS.into_iter().zip(GAUGES))
        }
    }

    #[test]
    fn what_is_written_is_what_the_encoder_writes() {
        let mut theirs = String::new();
        let mut registry = Registry::with_prefix(PREFIX);
        registry.register_collector(Box::new(Theirs));
        text::encode_registry(&mut theirs, &registry).unwrap();

        let (mut ours, mut labels) = (String::new(), LabelSets::default());
        SETS.iter().for_each(|set| labels.push(set));
        let mut family = Family::counter(&mut ours, "counted", "So far", "bytes").unwrap();
        for (number, count) in COUNTS.into_iter().enumerate() {
            family.sample(&[labels.get(number)], count).unwrap();
        }
        for (name, help, unit) in [("rate", "Now", Some("bytes_per_second")), ("active", "Whether", None)] {
            let mut family = Family::gauge(&mut ours, name, help, unit).unwrap();
            for (number, value) in GAUGES.into_iter().enumerate() {
                family.sample(&[labels.get(number)], value).unwrap();
            }
        }
        assert_eq!(ours, theirs);
    }
}

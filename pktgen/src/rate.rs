//! Rates as operators write them, and what they are in packets per second.
//!
//! | text | meaning |
//! | --- | --- |
//! | `10Mpps`, `250kpps`, `1.5e6pps` | packets per second |
//! | `5Gbit/s`, `5Gbit/s@l2` | bits per second of frames with their FCS: **without a layer, L2 is meant** |
//! | `5Gbit/s@l1` | the same and 20 bytes for each frame (preamble and start 8, gap 12): what the wire is busy with |
//! | `5Gbit/s@l3` | from the IP header on: frames less 18 bytes, less 4 for each VLAN tag |
//! | `80%` | of a stated line rate, at L1; more than 100 is taken, with a warning |
//! | `max` | as fast as the generator can |
//!
//! `Gbps` and `Gb/s` are taken for `Gbit/s`. Prefixes are decimal and case counts, but for k: k, M, G, T. Numbers may have
//! underscores and exponents, and a space before the unit. [`Display`](fmt::Display) states the layer always, and its text
//! parses to the same rate to the last bit.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// How fast to send.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub enum Rate {
    /// Packets per second; finite, above 0.
    PacketsPerSecond(f64),
    /// Bits per second of which layer; finite, above 0.
    BitsPerSecond(f64, Layer),
    /// Percent of the line rate at L1; finite, above 0, may exceed 100.
    Percent(f64),
    /// As fast as the generator can.
    Max,
}

/// Which bytes of a frame count.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Layer {
    /// The frame with FCS, and preamble, start of frame and gap: 20 bytes more.
    L1,
    /// The frame with FCS.
    #[default]
    L2,
    /// From the IP header on.
    L3,
}

/// What the line can carry: bits per second at L1. Written as `10Gbit/s`.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct LineRate(f64);

/// What frames look like on average: enough to turn bits into packets.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct MeanFrame {
    /// Bytes with FCS and tags, 64 or more.
    pub bytes: f64,
    /// VLAN tags of each, 4 bytes each within `bytes`.
    pub vlan_tags: u8,
}

/// A rate in the generator's own unit.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Load {
    /// Packets per second of the whole mix; `None`: as fast as it goes.
    pub pps: Option<f64>,
    /// More than the stated line carries: what it is in percent of the line, to be warned of.
    pub over_line_percent: Option<f64>,
}

impl MeanFrame {
    /// Mean bytes of a frame that count at a layer.
    #[must_use]
    pub fn bytes_at(&self, layer: Layer) -> f64 {
        match layer {
            Layer::L1 => self.bytes + LAYER_1_BYTES,
            Layer::L2 => self.bytes,
            Layer::L3 => self.bytes - LAYER_2_BYTES - VLAN_BYTES * f64::from(self.vlan_tags),
        }
    }

    /// Bits per second at a layer when `pps` packets are sent a second.
    #[must_use]
    pub fn bps(&self, pps: f64, layer: Layer) -> f64 {
        pps * self.bytes_at(layer) * 8.0
    }
}

impl Rate {
    /// The rate in packets per second of frames that are `frame` on average. `line` is the stated line rate, if any.
    ///
    /// # Errors
    /// Percent without a line rate; frames of no bytes; not representable.
    pub fn load(self, frame: MeanFrame, line: Option<LineRate>) -> Result<Load, RateError> {
        let per_frame = |layer| {
            let bits = frame.bytes_at(layer) * 8.0;
            if bits.is_finite() && bits > 0.0 {
                Ok(bits)
            } else {
                Err(RateError::Frame { bytes: frame.bytes })
            }
        };
        let line_pps = match line {
            Some(line) => Some(line.0 / per_frame(Layer::L1)?),
            None => None,
        };
        let pps = match self {
            Rate::PacketsPerSecond(pps) => pps,
            Rate::BitsPerSecond(bps, layer) => bps / per_frame(layer)?,
            Rate::Percent(percent) => percent / 100.0 * line_pps.ok_or(RateError::NoLineRate { percent })?,
            Rate::Max => {
                return Ok(Load {
                    pps: None,
                    over_line_percent: None,
                });
            }
        };
        if !(pps.is_finite() && pps > 0.0) {
            return Err(RateError::Value { text: self.to_string() });
        }
        // The tolerance keeps 100 % of a line from being over it by a rounding.
        let percent = line_pps.map(|line_pps| pps / line_pps * 100.0);
        Ok(Load {
            pps: Some(pps),
            over_line_percent: percent.filter(|&percent| percent > 100.0 * (1.0 + 1e-9)),
        })
    }
}

impl Load {
    /// A sentence for the operator if the line cannot carry the load.
    #[must_use]
    pub fn warning(&self) -> Option<String> {
        self.over_line_percent
            .map(|percent| format!("the rate is {percent:.1} % of the stated line rate: the excess cannot be sent"))
    }
}

impl LineRate {
    /// A line of `bps` bits per second at L1.
    ///
    /// # Errors
    /// Not finite, 0 or negative.
    pub fn new(bps: f64) -> Result<Self, RateError> {
        positive(bps, &bps.to_string()).map(Self)
    }

    /// Bits per second at L1.
    #[must_use]
    pub fn bps(self) -> f64 {
        self.0
    }
}

/// What is wrong with a rate.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub enum RateError {
    /// Not in the grammar.
    #[error("rate \"{text}\": {problem}; {RATE_HELP}")]
    Syntax {
        /// What was written.
        text: String,
        /// What is wrong with it.
        problem: String,
    },
    /// A number no rate has.
    #[error("rate \"{text}\" is out of range: it must be a finite number above 0")]
    Value {
        /// What was written.
        text: String,
    },
    /// Percent of what?
    #[error("a rate of {percent} % needs the line rate: add --line-rate 10Gbit/s, or write the rate in pps or bit/s")]
    NoLineRate {
        /// Percent asked for.
        percent: f64,
    },
    /// A mix that has no bytes at the layer.
    #[error("frames of {bytes} bytes on average cannot carry a rate in bits: at least 64 are needed")]
    Frame {
        /// Mean bytes with FCS.
        bytes: f64,
    },
}

impl FromStr for Rate {
    type Err = RateError;

    fn from_str(text: &str) -> Result<Self, RateError> {
        let trimmed = text.trim();
        if trimmed == "max" {
            return Ok(Rate::Max);
        }
        let (number, unit) = split_number(trimmed);
        if unit == "%" {
            return Ok(Rate::Percent(scaled(number, 0, text)?));
        }
        let (unit, layer) = match unit.split_once('@') {
            None => (unit, Layer::default()),
            Some((unit, layer)) => {
                let known = [Layer::L1, Layer::L2, Layer::L3].into_iter();
                let layer = known.into_iter().find(|l| l.name().eq_ignore_ascii_case(layer.trim()));
                (
                    unit.trim(),
                    layer.ok_or_else(|| syntax(text, "the layer after @ is none of l1, l2, l3"))?,
                )
            }
        };
        let with_layer = trimmed.contains('@');
        for (exponent, prefix) in PREFIXES {
            let Some(base) = unit
                .strip_prefix(prefix)
                .or_else(|| unit.strip_prefix('K').filter(|_| exponent == 3))
            else {
                continue;
            };
            if matches!(base, "pps" | "p/s") && !with_layer {
                return Ok(Rate::PacketsPerSecond(scaled(number, exponent, text)?));
            }
            if matches!(base, "bit/s" | "bps" | "b/s") {
                return Ok(Rate::BitsPerSecond(scaled(number, exponent, text)?, layer));
            }
        }
        Err(syntax(text, &unit_problem(number, unit)))
    }
}

impl FromStr for LineRate {
    type Err = RateError;

    fn from_str(text: &str) -> Result<Self, RateError> {
        match text.parse()? {
            Rate::BitsPerSecond(bps, layer) if layer == Layer::L1 || !text.contains('@') => Ok(Self(bps)),
            _ => Err(syntax(text, "a line rate is bits per second at L1, such as 10Gbit/s")),
        }
    }
}

/// The number and the unit of "1.5e6 pps".
fn split_number(text: &str) -> (&str, &str) {
    let bytes = text.as_bytes();
    let is_number = |i: usize| match bytes[i] {
        b'0'..=b'9' | b'.' | b'_' => true,
        b'+' | b'-' => i == 0 || matches!(bytes[i - 1], b'e' | b'E'),
        b'e' | b'E' => i > 0 && bytes.get(i + 1).is_some_and(|c| matches!(c, b'0'..=b'9' | b'+' | b'-')),
        _ => false,
    };
    let end = (0..bytes.len()).find(|&i| !is_number(i)).unwrap_or(bytes.len());
    (&text[..end], text[end..].trim_start())
}

/// `number` times ten to the `exponent`, rounded once: the decimal point moves in the text, not in the product.
fn scaled(number: &str, exponent: i32, text: &str) -> Result<f64, RateError> {
    let digits = number.replace('_', "");
    let (mantissa, power) = digits.split_once(['e', 'E']).unwrap_or((&digits, "0"));
    let power: i32 = power
        .parse()
        .map_err(|_| syntax(text, "the exponent is not a whole number"))?;
    let decimal = format!("{mantissa}e{}", power.saturating_add(exponent));
    let value = decimal
        .parse()
        .map_err(|_| syntax(text, "it does not begin with a number"))?;
    positive(value, text)
}

fn positive(value: f64, text: &str) -> Result<f64, RateError> {
    if value.is_finite() && value > 0.0 {
        Ok(value)
    } else {
        Err(RateError::Value { text: text.to_owned() })
    }
}

fn unit_problem(number: &str, unit: &str) -> String {
    if number.is_empty() {
        return "it does not begin with a number".to_owned();
    }
    if unit.is_empty() {
        return "it has no unit".to_owned();
    }
    if unit.contains("B/s") || unit.contains("Bps") {
        return format!("unit \"{unit}\" counts bytes: write bits, such as Mbit/s");
    }
    let upper = unit
        .strip_prefix(['m', 'g', 't'])
        .map(|rest| format!("{}{rest}", unit[..1].to_uppercase()));
    match upper {
        Some(upper) if upper.ends_with("ps") || upper.ends_with("/s") => {
            format!("unit \"{unit}\" is not known: did you mean {upper}?")
        }
        _ if unit.contains("pps@") || unit.starts_with("pps") => "packets per second have no layer".to_owned(),
        _ => format!("unit \"{unit}\" is not known"),
    }
}

fn syntax(text: &str, problem: &str) -> RateError {
    RateError::Syntax {
        text: text.to_owned(),
        problem: problem.to_owned(),
    }
}

impl Layer {
    fn name(self) -> &'static str {
        match self {
            Layer::L1 => "l1",
            Layer::L2 => "l2",
            Layer::L3 => "l3",
        }
    }
}

impl fmt::Display for Layer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl fmt::Display for Rate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            Rate::PacketsPerSecond(pps) => write!(f, "{}", Prefixed(pps, "pps")),
            Rate::BitsPerSecond(bps, layer) => write!(f, "{}@{layer}", Prefixed(bps, "bit/s")),
            Rate::Percent(percent) => write!(f, "{percent}%"),
            Rate::Max => f.write_str("max"),
        }
    }
}

impl fmt::Display for LineRate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", Prefixed(self.0, "bit/s"))
    }
}

/// A number with the prefix that leaves one to three digits before the point, the shortest digits that parse back.
struct Prefixed(f64, &'static str);

impl fmt::Display for Prefixed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self(value, unit) = *self;
        let scientific = format!("{value:e}");
        let (mantissa, power) = scientific.split_once('e').unwrap_or((&scientific, "0"));
        let power: i32 = power.parse().unwrap_or(0);
        let Some((exponent, prefix)) = PREFIXES.into_iter().find(|p| (p.0..p.0 + 3).contains(&power)) else {
            return write!(f, "{scientific}{unit}");
        };
        let digits = mantissa.replace('.', "");
        let whole = (power - exponent) as usize + 1;
        if digits.len() <= whole {
            write!(f, "{digits}{}{prefix}{unit}", "0".repeat(whole - digits.len()))
        } else {
            write!(f, "{}.{}{prefix}{unit}", &digits[..whole], &digits[whole..])
        }
    }
}

macro_rules! as_text {
    ($($type:ty),*) => {$(
        impl TryFrom<String> for $type {
            type Error = RateError;

            fn try_from(text: String) -> Result<Self, RateError> {
                text.parse()
            }
        }

        impl From<$type> for String {
            fn from(value: $type) -> Self {
                value.to_string()
            }
        }
    )*};
}
as_text!(Rate, LineRate);

const RATE_HELP: &str = "write 10Mpps, 5Gbit/s (L2; or @l1, @l3), 80% or max";
const PREFIXES: [(i32, &str); 5] = [(12, "T"), (9, "G"), (6, "M"), (3, "k"), (0, "")];
/// Preamble 7, start of frame 1, gap 12: IEEE 802.3 clause 4.4.2.
const LAYER_1_BYTES: f64 = 20.0;
/// Ethernet header 14, FCS 4.
const LAYER_2_BYTES: f64 = 18.0;
const VLAN_BYTES: f64 = 4.0;

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use proptest::test_runner::RngSeed;

    const SMALL: MeanFrame = MeanFrame {
        bytes: 64.0,
        vlan_tags: 0,
    };

    fn parse(text: &str) -> Rate {
        text.parse().unwrap_or_else(|e| panic!("{text}: {e}"))
    }

    #[test]
    fn what_operators_write_is_read() {
        use Rate::{BitsPerSecond, Max, PacketsPerSecond, Percent};
        let cases = [
            ("10Mpps", PacketsPerSecond(1e7)),
            ("250kpps", PacketsPerSecond(250_000.0)),
            ("250Kpps", PacketsPerSecond(250_000.0)),
            ("1.5e6pps", PacketsPerSecond(1.5e6)),
            ("1_000 pps", PacketsPerSecond(1000.0)),
            ("14.88095238 Mpps", PacketsPerSecond(14_880_952.38)),
            ("5Gbit/s", BitsPerSecond(5e9, Layer::L2)),
            ("5 Gbps", BitsPerSecond(5e9, Layer::L2)),
            ("5Gbit/s@l1", BitsPerSecond(5e9, Layer::L1)),
            ("5Gbit/s @ L3", BitsPerSecond(5e9, Layer::L3)),
            ("1e3kbit/s", BitsPerSecond(1e6, Layer::L2)),
            ("80%", Percent(80.0)),
            ("0.1 %", Percent(0.1)),
            (" max ", Max),
        ];
        for (text, rate) in cases {
            assert_eq!(parse(text), rate, "{text}");
        }
    }

    #[test]
    fn bits_become_packets_by_the_layer() {
        let line: Option<LineRate> = Some("10Gbit/s".parse().unwrap());
        let full = 10e9 / (84.0 * 8.0);
        let cases = [
            ("100%", SMALL, full),
            ("10Gbit/s@l1", SMALL, full),
            ("50%", SMALL, full / 2.0),
            ("512Mbit/s", SMALL, 1e6),
            ("368Mbit/s@l3", SMALL, 1e6),
            ("336Mbit/s@l3", MeanFrame { vlan_tags: 1, ..SMALL }, 1e6),
            (
                "1Gbit/s",
                MeanFrame {
                    bytes: 353.833,
                    vlan_tags: 0,
                },
                1e9 / 8.0 / 353.833,
            ),
            ("1Mpps", SMALL, 1e6),
        ];
        for (text, frame, pps) in cases {
            let load = parse(text).load(frame, line).unwrap();
            assert!((load.pps.unwrap() / pps - 1.0).abs() < 1e-12, "{text}: {load:?}");
            assert_eq!(load.warning(), None, "{text}");
        }
        assert_eq!(parse("max").load(SMALL, line).unwrap().pps, None);
        // 14.88 million packets of 64 bytes are 10 Gbit/s, RFC 2544's best known number.
        assert!((full - 14_880_952.4).abs() < 0.1);
        assert!((SMALL.bps(full, Layer::L1) - 10e9).abs() < 1.0);
    }

    #[test]
    fn more_than_the_line_carries_is_warned_of() {
        let line = Some(LineRate::new(1e9).unwrap());
        for text in ["120%", "2Gbit/s", "5Mpps"] {
            let load = parse(text).load(SMALL, line).unwrap();
            assert!(
                load.warning().is_some_and(|w| w.contains("line rate")),
                "{text}: {load:?}"
            );
        }
        assert_eq!(parse("5Mpps").load(SMALL, None).unwrap().warning(), None);
        assert!(
            parse("80%")
                .load(SMALL, None)
                .unwrap_err()
                .to_string()
                .contains("--line-rate")
        );
        assert!(
            parse("1Gbit/s")
                .load(
                    MeanFrame {
                        bytes: 0.0,
                        vlan_tags: 0
                    },
                    None
                )
                .is_err()
        );
        assert!(
            parse("1Gbit/s@l3")
                .load(
                    MeanFrame {
                        bytes: 18.0,
                        vlan_tags: 0
                    },
                    None
                )
                .is_err()
        );
    }

    #[test]
    fn impossible_rates_say_how_to_mend_them() {
        let cases = [
            ("", "number"),
            ("pps", "number"),
            ("0pps", "above 0"),
            ("-5Mpps", "above 0"),
            ("NaNpps", "number"),
            ("inf pps", "number"),
            ("1e999pps", "above 0"),
            ("1e-999pps", "above 0"),
            ("0%", "above 0"),
            ("10", "no unit"),
            ("10mpps", "did you mean Mpps"),
            ("10gbit/s", "did you mean Gbit/s"),
            ("1GB/s", "counts bytes"),
            ("1Gbit/s@l4", "l1, l2, l3"),
            ("1Mpps@l2", "not known"),
            ("1..5Mpps", "number"),
            ("10 parsecs", "not known"),
            ("1e99999999999pps", "exponent"),
            ("½Mpps", "number"),
        ];
        for (text, part) in cases {
            let error = text.parse::<Rate>().unwrap_err().to_string();
            assert!(error.contains(part), "{text}: {error}");
        }
        for text in ["10Mpps", "10Gbit/s@l2", "max", "0bit/s"] {
            assert!(text.parse::<LineRate>().is_err(), "{text}");
        }
    }

    #[test]
    fn display_is_what_one_would_write() {
        for text in [
            "10Mpps",
            "250kpps",
            "1.5Mpps",
            "5Gbit/s@l2",
            "12.345Gbit/s@l1",
            "80%",
            "max",
            "999pps",
            "0.5%",
        ] {
            assert_eq!(parse(text).to_string(), text);
        }
        assert_eq!(LineRate::new(25e9).unwrap().to_string(), "25Gbit/s");
        assert_eq!(serde_json::to_string(&parse("5Gbit/s")).unwrap(), "\"5Gbit/s@l2\"");
    }

    proptest! {
        #![proptest_config(ProptestConfig { rng_seed: RngSeed::Fixed(11), failure_persistence: None, ..ProptestConfig::default() })]

        #[test]
        fn every_rate_round_trips(bits in any::<u64>(), kind in 0..5, simple in 1u64..1_000_000, exponent in -9i32..9) {
            let wild = f64::from_bits(bits).abs();
            let tame = simple as f64 * 10f64.powi(exponent);
            for value in [wild, tame].into_iter().filter(|v| v.is_finite() && *v > 0.0) {
                let rate = match kind {
                    0 => Rate::PacketsPerSecond(value),
                    1 => Rate::BitsPerSecond(value, Layer::L1),
                    2 => Rate::BitsPerSecond(value, Layer::L2),
                    3 => Rate::BitsPerSecond(value, Layer::L3),
                    _ => Rate::Percent(value),
                };
                let text = rate.to_string();
                prop_assert_eq!(text.parse::<Rate>().map_err(|e| TestCaseError::fail(e.to_string()))?, rate, "{}", text);
                let json = serde_json::to_string(&rate).map_err(|e| TestCaseError::fail(e.to_string()))?;
                prop_assert_eq!(serde_json::from_str::<Rate>(&json).map_err(|e| TestCaseError::fail(e.to_string()))?, rate);
            }
        }

        #[test]
        fn no_text_panics(text in ".{0,20}") {
            let _ = text.parse::<Rate>();
            let _ = text.parse::<LineRate>();
        }
    }
}

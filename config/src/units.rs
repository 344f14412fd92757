//! Rates, bursts and shares as people write them. All arithmetic is exact: what does not come out even is refused, but
//! for a burst written as a time, which is floored to whole bytes.

/// A decimal number as digits and the number of them behind the point.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Decimal {
    digits: u128,
    places: u32,
}

/// What is wrong with a value, and how it should look.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct UnitError {
    /// What is wrong.
    pub message: String,
    /// How to write it.
    pub help: String,
}

/// A burst: bytes, or nanoseconds at a rate.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Burst {
    /// Bytes in the counted layer.
    Bytes(u64),
    /// Nanoseconds at the rate the burst belongs to.
    Nanos(u64),
}

impl Burst {
    /// Whole bytes at `rate_bps`, rounded down; saturates.
    pub fn bytes_at(self, rate_bps: u64) -> u64 {
        match self {
            Burst::Bytes(bytes) => bytes,
            Burst::Nanos(nanos) => {
                // At most 2^64 × 2^64, so the product fits.
                let bytes = u128::from(nanos) * u128::from(rate_bps) / (8 * 1_000_000_000);
                u64::try_from(bytes).unwrap_or(u64::MAX)
            }
        }
    }
}

/// Bits per second from `"2.5 Gbit/s"`.
pub fn parse_rate(text: &str) -> Result<u64, UnitError> {
    let (number, unit) = split(text, RATE_HELP)?;
    let Some(factor) = factor_of(unit, RATE_UNITS) else {
        return Err(unknown_unit("rate", unit, RATE_UNITS, RATE_HELP));
    };
    scale(number, factor).ok_or_else(|| {
        error(
            format!("\"{text}\" is not a whole number of bit/s, or too large"),
            RATE_HELP,
        )
    })
}

/// A burst from `"256 kB"`, `"64 KiB"` or `"5 ms"`.
pub fn parse_burst(text: &str) -> Result<Burst, UnitError> {
    let (number, unit) = split(text, BURST_HELP)?;
    let bad = |what: &str| {
        error(
            format!("\"{text}\" is not a whole number of {what}, or too large"),
            BURST_HELP,
        )
    };
    if let Some(factor) = factor_of(unit, BYTE_UNITS) {
        return scale(number, factor).map(Burst::Bytes).ok_or_else(|| bad("bytes"));
    }
    if let Some(factor) = factor_of(unit, TIME_UNITS) {
        return scale(number, factor)
            .map(Burst::Nanos)
            .ok_or_else(|| bad("nanoseconds"));
    }
    Err(unknown_unit(
        "burst",
        unit,
        &[BYTE_UNITS, TIME_UNITS].concat(),
        BURST_HELP,
    ))
}

/// Nanoseconds from `"20 ms"`.
pub fn parse_time(text: &str) -> Result<u64, UnitError> {
    let (number, unit) = split(text, TIME_HELP)?;
    let Some(factor) = factor_of(unit, TIME_UNITS) else {
        return Err(unknown_unit("time", unit, TIME_UNITS, TIME_HELP));
    };
    scale(number, factor).ok_or_else(|| {
        error(
            format!("\"{text}\" is not a whole number of nanoseconds, or too large"),
            TIME_HELP,
        )
    })
}

/// Parts per million from `"99.98 %"`; 0 to 1_000_000.
pub fn parse_percent(text: &str) -> Result<u32, UnitError> {
    let (number, unit) = split(text, PERCENT_HELP)?;
    if unit != "%" {
        return Err(error(format!("\"{text}\" is not a percentage"), PERCENT_HELP));
    }
    share(number, 10_000).ok_or_else(|| {
        error(
            format!("\"{text}\" is not between 0 % and 100 % in steps of 0.0001 %"),
            PERCENT_HELP,
        )
    })
}

/// Parts per million from a fraction such as `0.05`; 0 to 1_000_000.
pub fn parse_fraction(text: &str) -> Result<u32, UnitError> {
    let bad = || {
        error(
            format!("{text} is not a fraction between 0 and 1 in steps of 0.000001"),
            PERCENT_HELP,
        )
    };
    decimal(text)
        .and_then(|number| share(number, 1_000_000))
        .ok_or_else(bad)
}

/// A rate as text, with the largest unit that leaves no remainder worth more than three digits.
pub fn format_rate(rate_bps: u64) -> String {
    for (unit, factor) in RATE_UNITS.iter().rev() {
        let step = u64::try_from(*factor / 1000).unwrap_or(0);
        if u128::from(rate_bps) >= *factor && (step == 0 || rate_bps.is_multiple_of(step)) {
            let factor = u64::try_from(*factor).unwrap_or(1);
            let (whole, rest) = (rate_bps / factor, rate_bps % factor);
            if rest == 0 {
                return format!("{whole} {unit}");
            }
            let thousandths = format!("{:03}", rest / step.max(1));
            return format!("{whole}.{} {unit}", thousandths.trim_end_matches('0'));
        }
    }
    format!("{rate_bps} bit/s")
}

/// The number and the unit behind it.
fn split<'t>(text: &'t str, help: &str) -> Result<(Decimal, &'t str), UnitError> {
    let text = text.trim();
    let end = text
        .find(|c: char| !(c.is_ascii_digit() || matches!(c, '.' | '_' | '-' | '+')))
        .unwrap_or(text.len());
    let (number, unit) = (&text[..end], text[end..].trim_start());
    if number.starts_with('-') {
        return Err(error(format!("\"{text}\" is negative"), help));
    }
    let number = decimal(number).ok_or_else(|| error(format!("\"{text}\" does not begin with a number"), help))?;
    if unit.is_empty() {
        return Err(error(format!("\"{text}\" has no unit"), help));
    }
    Ok((number, unit))
}

fn decimal(text: &str) -> Option<Decimal> {
    let (whole, fraction) = text.split_once('.').unwrap_or((text, "0"));
    let digits_only = |part: &str| !part.is_empty() && part.bytes().all(|b| b.is_ascii_digit() || b == b'_');
    if !digits_only(whole) || !digits_only(fraction) {
        return None;
    }
    // Zeros at the end say nothing and would cost range.
    let fraction = fraction
        .trim_end_matches(['0', '_'])
        .bytes()
        .filter(|byte| *byte != b'_');
    let all = whole.bytes().filter(|byte| *byte != b'_').chain(fraction.clone());
    let push = |digits: u128, byte: u8| digits.checked_mul(10)?.checked_add(u128::from(byte - b'0'));
    // A number of `_` alone is none.
    let is_number = all.clone().next().is_some();
    let digits = all.clone().try_fold(0, push).filter(|_| is_number)?;
    Some(Decimal {
        digits,
        places: u32::try_from(fraction.count()).ok()?,
    })
}

fn scale(number: Decimal, factor: u128) -> Option<u64> {
    let divisor = 10_u128.checked_pow(number.places)?;
    let product = number.digits.checked_mul(factor)?;
    if !product.is_multiple_of(divisor) {
        return None;
    }
    u64::try_from(product / divisor).ok()
}

fn share(number: Decimal, factor: u128) -> Option<u32> {
    let ppm = scale(number, factor)?;
    u32::try_from(ppm).ok().filter(|&ppm| ppm <= 1_000_000)
}

fn factor_of(unit: &str, units: &[(&str, u128)]) -> Option<u128> {
    units.iter().find(|(name, _)| *name == unit).map(|&(_, factor)| factor)
}

fn unknown_unit(what: &str, unit: &str, units: &[(&str, u128)], help: &str) -> UnitError {
    let near = units
        .iter()
        .find(|(name, _)| name.eq_ignore_ascii_case(unit))
        .map(|(name, _)| *name);
    let help = near.map_or_else(|| help.to_owned(), |name| format!("did you mean \"{name}\"? {help}"));
    error(format!("\"{unit}\" is not a unit of a {what}"), &help)
}

fn error(message: String, help: &str) -> UnitError {
    UnitError {
        message,
        help: help.to_owned(),
    }
}

const RATE_HELP: &str = "write a rate such as \"2 Gbit/s\", \"2.5 Mbit/s\" or \"500 kbit/s\", or an integer of bit/s";
const BURST_HELP: &str = "write a burst such as \"256 kB\", \"64 KiB\", \"1500 B\", a time at the rate such as \"5 ms\", or an integer of bytes";
const TIME_HELP: &str = "write a number and a unit, such as \"20 ms\"";
const PERCENT_HELP: &str = "write a percentage such as \"99.98 %\"";

const RATE_UNITS: &[(&str, u128)] = &[
    ("bit/s", 1),
    ("kbit/s", 1_000),
    ("Mbit/s", 1_000_000),
    ("Gbit/s", 1_000_000_000),
    ("Tbit/s", 1_000_000_000_000),
];
const BYTE_UNITS: &[(&str, u128)] = &[
    ("B", 1),
    ("kB", 1_000),
    ("MB", 1_000_000),
    ("GB", 1_000_000_000),
    ("KiB", 1 << 10),
    ("MiB", 1 << 20),
    ("GiB", 1 << 30),
];
const TIME_UNITS: &[(&str, u128)] = &[
    ("s", 1_000_000_000),
    ("ms", 1_000_000),
    ("us", 1_000),
    ("µs", 1_000),
    ("μs", 1_000),
    ("ns", 1),
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rates_are_exact() {
        for (text, bps) in [
            ("2 Gbit/s", 2_000_000_000),
            ("500 kbit/s", 500_000),
            ("2.5 Mbit/s", 2_500_000),
            ("0.1 Tbit/s", 100_000_000_000),
            ("0.000001 Mbit/s", 1),
            ("8_000bit/s", 8_000),
        ] {
            assert_eq!(parse_rate(text), Ok(bps), "{text}");
        }
        for text in [
            "1.5 bit/s",
            "2",
            "Gbit/s",
            "-1 bit/s",
            "2 GB",
            "",
            "1..2 kbit/s",
            "1e3 bit/s",
            "2 gbit/s",
        ] {
            assert!(parse_rate(text).is_err(), "{text}");
        }
        assert!(parse_rate(&format!("{} Gbit/s", "9".repeat(60))).is_err());
        assert!(
            parse_rate("2 gbit/s")
                .unwrap_err()
                .help
                .contains("did you mean \"Gbit/s\"")
        );
    }

    #[test]
    fn bursts_are_bytes_or_time() {
        assert_eq!(parse_burst("256 kB"), Ok(Burst::Bytes(256_000)));
        assert_eq!(parse_burst("64 KiB"), Ok(Burst::Bytes(65_536)));
        assert_eq!(parse_burst("0.5 MiB"), Ok(Burst::Bytes(524_288)));
        assert_eq!(parse_burst("5 ms").map(|b| b.bytes_at(2_000_000_000)), Ok(1_250_000));
        assert_eq!(parse_burst("250 us").map(|b| b.bytes_at(1_000_001)), Ok(31));
        assert!(parse_burst("0.3 B").is_err() && parse_burst("5 h").is_err());
    }

    #[test]
    fn shares_are_parts_per_million() {
        assert_eq!(parse_percent("99.98 %"), Ok(999_800));
        assert_eq!(parse_percent("100%"), Ok(1_000_000));
        assert_eq!(parse_fraction("0.05"), Ok(50_000));
        assert!(parse_percent("100.1 %").is_err() && parse_percent("99.99999 %").is_err());
        assert!(parse_fraction("1e-2").is_err() && parse_fraction("nan").is_err());
    }

    #[test]
    fn rates_are_printed_as_people_write_them() {
        assert_eq!(format_rate(2_500_000_000), "2.5 Gbit/s");
        assert_eq!(format_rate(64_000), "64 kbit/s");
        assert_eq!(format_rate(1), "1 bit/s");
    }
}

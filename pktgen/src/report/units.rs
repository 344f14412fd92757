//! Numbers as people read them: 4 significant digits of rates, 3 of times and ratios. A number that is not finite is a dash.

/// What stands where there is nothing to say.
pub(super) const NONE: &str = "–";

/// Packets per second: "1.845 Mpps".
pub(super) fn pps(value: f64) -> String {
    scaled(value, "pps")
}

/// Bits per second: "1.240 Gbit/s".
pub(super) fn bps(value: f64) -> String {
    scaled(value, "bit/s")
}

/// A number that may be missing.
pub(super) fn maybe<T>(value: Option<T>, format: impl FnOnce(T) -> String) -> String {
    value.map_or_else(|| NONE.to_owned(), format)
}

fn scaled(value: f64, unit: &str) -> String {
    if !value.is_finite() {
        return NONE.to_owned();
    }
    // What rounds up to the next thousand is written as one.
    let (factor, prefix) = prefix(value * 1.000_05);
    format!("{} {prefix}{unit}", significant(value / factor, 4))
}

/// The factor and the SI prefix a number of this size is written with.
pub(super) fn prefix(value: f64) -> (f64, &'static str) {
    let size = value.abs();
    [(1e12, "T"), (1e9, "G"), (1e6, "M"), (1e3, "k")]
        .into_iter()
        .find(|&(factor, _)| size >= factor)
        .unwrap_or((1.0, ""))
}

/// So many significant digits, and all digits before the point; very large and very small numbers with an exponent.
pub(super) fn significant(value: f64, digits: usize) -> String {
    if !value.is_finite() {
        return NONE.to_owned();
    }
    if value == 0.0 {
        return "0".to_owned();
    }
    let with_exponent = format!("{value:.*e}", digits.saturating_sub(1));
    // The exponent after rounding: 9.9996 is 10.00.
    let magnitude: i32 = with_exponent
        .split_once('e')
        .and_then(|(_, exponent)| exponent.parse().ok())
        .unwrap_or(0);
    if !(-7..=14).contains(&magnitude) {
        return with_exponent;
    }
    let decimals = usize::try_from(digits as i32 - 1 - magnitude).unwrap_or(0);
    format!("{value:.decimals$}")
}

/// A time in nanoseconds: "850 ns", "12.4 µs", "1.50 ms", "3.20 s".
pub(super) fn nanoseconds(value: u64) -> String {
    if value < 1000 {
        return format!("{value} ns");
    }
    time_ns(value as f64)
}

/// A round time in nanoseconds without the zeros: "20 µs".
pub(super) fn round_time(value: f64) -> String {
    let text = time_ns(value);
    if value == 0.0 {
        return "0".to_owned();
    }
    match text.split_once(' ') {
        Some((number, unit)) => format!("{} {unit}", plain(number)),
        None => text,
    }
}

/// A time in nanoseconds that may be a fraction of one.
pub(super) fn time_ns(value: f64) -> String {
    if !value.is_finite() {
        return NONE.to_owned();
    }
    let size = value.abs();
    let (factor, unit) = [(1e9, "s"), (1e6, "ms"), (1e3, "µs")]
        .into_iter()
        .find(|&(factor, _)| size >= factor)
        .unwrap_or((1.0, "ns"));
    format!("{} {unit}", significant(value / factor, 3))
}

/// A duration in seconds: as [`time_ns`] below two minutes, then "2 min 5 s", "24 h 0 min".
pub(super) fn seconds(value: f64) -> String {
    if !value.is_finite() || value.abs() < 120.0 || value < 0.0 {
        return time_ns(value * 1e9);
    }
    let whole = value as u64;
    if whole < 7200 {
        format!("{} min {} s", whole / 60, whole % 60)
    } else {
        format!("{} h {} min", whole / 3600, whole / 60 % 60)
    }
}

/// A ratio of 0 to 1 in percent: "0 %", "0.5 %", "12.3 %"; what is too small to count its zeros as "1.2e-7".
pub(super) fn percent(value: f64) -> String {
    if !value.is_finite() {
        return NONE.to_owned();
    }
    if value != 0.0 && value.abs() < 1e-6 {
        return format!("{value:.1e}");
    }
    // What is not all is never rounded to all: as many nines as tell.
    let rest = 1.0 - value;
    if rest > 0.0 && rest < 0.000_5 {
        let decimals = (-rest.log10()).ceil().clamp(0.0, 14.0) as usize;
        return format!("{} %", plain(&format!("{:.decimals$}", value * 100.0)));
    }
    format!("{} %", plain(&significant(value * 100.0, 3)))
}

/// Without the zeros that end a fraction.
fn plain(number: &str) -> &str {
    if number.contains('.') && !number.contains('e') {
        number.trim_end_matches('0').trim_end_matches('.')
    } else {
        number
    }
}

/// A number of things, in groups of three digits.
pub(super) fn count(value: u64) -> String {
    let digits = value.to_string();
    let mut text = String::with_capacity(digits.len() + digits.len() / 3);
    for (i, digit) in digits.chars().enumerate() {
        if i > 0 && (digits.len() - i).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// Bytes of memory: "16.0 GiB".
pub(super) fn bytes(value: u64) -> String {
    let size = value as f64;
    let (factor, unit) = [(30, "GiB"), (20, "MiB"), (10, "KiB")]
        .into_iter()
        .map(|(bits, unit)| (f64::from(1u32 << bits), unit))
        .find(|&(factor, _)| size >= factor)
        .unwrap_or((1.0, "B"));
    format!("{} {unit}", plain(&significant(size / factor, 3)))
}

/// A number as somebody may have typed it: "0.9", "3".
pub(super) fn number(value: f64) -> String {
    plain(&significant(value, 4)).to_owned()
}

/// A frame size is spoken of with its unit; a mix has a name.
pub(super) fn frames(label: &str) -> String {
    if !label.is_empty() && label.chars().all(|c| c.is_ascii_digit()) {
        format!("{label}-byte frames")
    } else {
        label.to_owned()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_read_as_people_write_them() {
        assert_eq!(pps(1_844_600.0), "1.845 Mpps");
        assert_eq!(pps(14_880_952.0), "14.88 Mpps");
        assert_eq!(pps(999_959.0), "1.000 Mpps");
        assert_eq!(pps(999_940.0), "999.9 kpps");
        assert_eq!(pps(0.0), "0 pps");
        assert_eq!(pps(12.0), "12.00 pps");
        assert_eq!(pps(f64::NAN), "–");
        assert_eq!(pps(1e300), "1.000e288 Tpps");
        assert_eq!(bps(1.24e9), "1.240 Gbit/s");
        assert_eq!(nanoseconds(850), "850 ns");
        assert_eq!(nanoseconds(12_400), "12.4 µs");
        assert_eq!(nanoseconds(1_500_000), "1.50 ms");
        assert_eq!(nanoseconds(u64::MAX), "18446744074 s");
        assert_eq!(time_ns(78.31), "78.3 ns");
        assert_eq!(round_time(20_000.0), "20 µs");
        assert_eq!(round_time(f64::NAN), "–");
        assert_eq!(seconds(21.0), "21.0 s");
        assert_eq!(seconds(125.0), "2 min 5 s");
        assert_eq!(seconds(86_400.0), "24 h 0 min");
        assert_eq!(seconds(0.000_25), "250 µs");
        assert_eq!(percent(0.0), "0 %");
        assert_eq!(percent(0.005), "0.5 %");
        assert_eq!(percent(0.123_4), "12.3 %");
        assert_eq!(percent(1.0), "100 %");
        assert_eq!(percent(0.999_833), "99.9833 %");
        assert_eq!(percent(0.999_999_99), "99.999999 %");
        assert_eq!(percent(1e-6), "0.0001 %");
        assert_eq!(percent(1.23e-7), "1.2e-7");
        assert_eq!(percent(f64::INFINITY), "–");
        assert_eq!(count(0), "0");
        assert_eq!(count(1_234_567), "1,234,567");
        assert_eq!(bytes(16 << 30), "16 GiB");
        assert_eq!(number(0.9), "0.9");
        assert_eq!(number(3.0), "3");
        assert_eq!(number(300.0), "300");
    }
}

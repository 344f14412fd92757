//! The plain form of a part: one `key = value` a line, as people and generators of contracts write it.
//!
//! With 100,000 contracts, the trees that the toml crate makes of their parts were half of what a check takes. What is read here
//! makes none: texts in one pair of double quotes without escapes, lists of such texts in one line, numbers, booleans, dates,
//! comments. A part with anything else in it is left to the toml crate as a whole. So what is TOML, and what is said about
//! what is not, is decided there alone; a test holds the two against each other.

use std::borrow::Cow;
use std::ops::Range;

use toml::Spanned;
use toml::de::{DeArray, DeValue};
use toml::value::{Date, Datetime};

/// One `key = value`, with the bytes of the part that it was read from.
#[derive(Debug)]
pub(crate) struct Line<'t> {
    pub(crate) key: &'t str,
    pub(crate) key_at: Range<usize>,
    pub(crate) value: DeValue<'t>,
    pub(crate) value_at: Range<usize>,
}

/// Reads the keys of a part that begins with `[[kind]]` into `lines`; answers with where that header stands. `None`: it is not
/// in the plain form, and what `lines` holds means nothing.
pub(crate) fn read<'t>(part: &'t str, kind: &str, lines: &mut Vec<Line<'t>>) -> Option<Range<usize>> {
    lines.clear();
    let mut rest = Rest { part, at: 0 };
    rest.skip(is_blank);
    let header = rest.at;
    rest.take("[[")?;
    rest.take(kind)?;
    rest.take("]]")?;
    let header = header..rest.at;
    rest.end_line()?;
    while rest.at < part.len() {
        rest.skip(is_blank);
        if rest.end_line().is_some() {
            continue;
        }
        let key_at = rest.skip(is_of_key);
        let key = &part[key_at.clone()];
        // An empty one is none, and one that is there twice is an error.
        if key.is_empty() || lines.iter().any(|line| line.key == key) {
            return None;
        }
        rest.skip(is_blank);
        rest.take("=")?;
        rest.skip(is_blank);
        let start = rest.at;
        let value = rest.value()?;
        lines.push(Line {
            key,
            key_at,
            value,
            value_at: start..rest.at,
        });
        rest.end_line()?;
    }
    Some(header)
}

/// A part from `at` on, which always lies between two characters.
struct Rest<'t> {
    part: &'t str,
    at: usize,
}

impl<'t> Rest<'t> {
    fn bytes(&self) -> &'t [u8] {
        &self.part.as_bytes()[self.at..]
    }

    /// Goes past all that `is` holds for: ASCII only.
    fn skip(&mut self, is: impl Fn(u8) -> bool) -> Range<usize> {
        let start = self.at;
        let rest = self.bytes();
        self.at += rest.iter().position(|&byte| !is(byte)).unwrap_or(rest.len());
        start..self.at
    }

    fn take(&mut self, text: &str) -> Option<()> {
        self.bytes().starts_with(text.as_bytes()).then(|| self.at += text.len())
    }

    /// Goes past blanks, a comment and the end of the line; stays where there is something else.
    fn end_line(&mut self) -> Option<()> {
        let start = self.at;
        self.skip(is_blank);
        if self.take("#").is_some() {
            let rest = self.bytes();
            self.at += rest.iter().position(|&byte| is_control(byte)).unwrap_or(rest.len());
        }
        let ended = self.at == self.part.len() || self.take("\n").or_else(|| self.take("\r\n")).is_some();
        if !ended {
            self.at = start;
        }
        ended.then_some(())
    }

    fn value(&mut self) -> Option<DeValue<'t>> {
        match self.bytes().first()? {
            b'"' => self.text().map(DeValue::String),
            b'[' => self.list().map(DeValue::Array),
            _ => {
                let word = self.skip(is_of_scalar);
                let word = &self.part[word];
                match date(word) {
                    Some(date) => Some(DeValue::Datetime(date)),
                    None => DeValue::parse(word).ok().map(Spanned::into_inner),
                }
            }
        }
    }

    fn text(&mut self) -> Option<Cow<'t, str>> {
        self.take("\"")?;
        let start = self.at;
        let is_other = |byte: &u8| matches!(byte, b'"' | b'\\') || is_control(*byte);
        self.at += self.bytes().iter().position(is_other)?;
        let text = &self.part[start..self.at];
        self.take("\"")?;
        Some(Cow::Borrowed(text))
    }

    fn list(&mut self) -> Option<DeArray<'t>> {
        self.take("[")?;
        let mut list = DeArray::new();
        loop {
            self.skip(is_blank);
            if self.take("]").is_some() {
                return Some(list);
            }
            let start = self.at;
            let text = self.text()?;
            list.push(Spanned::new(start..self.at, DeValue::String(text)));
            self.skip(is_blank);
            if self.take(",").is_none() {
                self.take("]")?;
                return Some(list);
            }
        }
    }
}

/// A date such as `2026-10-01`, the only kind of time that is written a hundred thousand times.
fn date(word: &str) -> Option<Datetime> {
    let number = |at: Range<usize>| {
        let digits = word.as_bytes().get(at)?;
        let digit = |sum: u16, byte: &u8| byte.is_ascii_digit().then(|| sum * 10 + u16::from(byte - b'0'));
        digits.iter().try_fold(0, digit)
    };
    let small = |at| number(at).and_then(|number| u8::try_from(number).ok());
    let is_date = word.len() == 10 && word.as_bytes()[4] == b'-' && word.as_bytes()[7] == b'-';
    let (year, month, day) = (number(0..4)?, small(5..7)?, small(8..10)?);
    // What no month has is left to the toml crate to refuse.
    let is_date = is_date && (1..=12).contains(&month) && (1..=28).contains(&day);
    is_date.then_some(Datetime {
        date: Some(Date { year, month, day }),
        time: None,
        offset: None,
    })
}

fn is_blank(byte: u8) -> bool {
    matches!(byte, b' ' | b'\t')
}

fn is_of_key(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'-')
}

fn is_of_scalar(byte: u8) -> bool {
    is_of_key(byte) || matches!(byte, b'+' | b'.' | b':')
}

/// What may not stand in a text or comment, and, to be on the safe side, a tab.
fn is_control(byte: u8) -> bool {
    byte.is_ascii_control()
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    use proptest::prelude::*;
    use proptest::test_runner::TestRunner;
    use toml::de::DeTable;

    use super::*;

    /// What the toml crate makes of the same text, if it is one table of `service`.
    fn by_the_crate(part: &str) -> Option<(Range<usize>, Vec<String>)> {
        let parsed = DeTable::parse(part).ok()?.into_inner();
        let (_, value) = parsed.get_key_value("service")?;
        let DeValue::Array(array) = value.get_ref() else {
            return None;
        };
        let [table] = &**array else { return None };
        let DeValue::Table(inner) = table.get_ref() else {
            return None;
        };
        let mut keys: Vec<String> = inner
            .iter()
            .map(|(key, value)| {
                format!(
                    "{} {:?} {:?} {:?}",
                    key.get_ref(),
                    key.span(),
                    value.span(),
                    value.get_ref()
                )
            })
            .collect();
        keys.sort();
        (parsed.len() == 1).then(|| (table.span(), keys))
    }

    fn read_plainly(part: &str) -> Option<(Range<usize>, Vec<String>)> {
        let mut lines = Vec::new();
        let header = read(part, "service", &mut lines)?;
        let line = |line: &Line<'_>| format!("{} {:?} {:?} {:?}", line.key, line.key_at, line.value_at, line.value);
        let mut keys: Vec<String> = lines.iter().map(line).collect();
        keys.sort();
        Some((header, keys))
    }

    #[test]
    fn what_is_usual_is_plain() {
        let parts = [
            "[[service]]\nname = \"ads\"\nendpoints = [\"10.1.0.0/16\", \"2001:db8::/48 tcp/443\"]\n",
            "[[service]] # of the ads\r\n\r\n  name=\"\" # none\r\n\tendpoints = [ ]\r\n",
            "[[service]]\nfrom = 2026-10-01\nuntil = 2027-01-31T08:00:00Z\nrate = 2_000\nshare = 0.5\ndefault = true",
            "  [[service]]\nowner = \"Zoë\"\nendpoints = [\"a\" , \"b\",]\n# ünd\n\n",
            "[[service]]",
        ];
        for part in parts {
            assert!(read_plainly(part).is_some(), "{part}");
            assert_eq!(read_plainly(part), by_the_crate(part), "{part}");
        }
    }

    #[test]
    fn what_is_unusual_is_left_to_the_crate() {
        let keys = [
            "name = \"a\\u0062\"",
            "name = \"\"\"a\"\"\"",
            "name = 'a'",
            "name = \"a\" \"b\"",
            "name = \"a\"\nname = \"a\"",
            "name = \"a",
            "name = ",
            "\"name\" = \"a\"",
            "a.name = \"a\"",
            "name = { a = 1 }",
            "endpoints = [\"a\" \"b\"]",
            "endpoints = [,]",
            "endpoints = [1]",
            "endpoints = [\n\"a\"]",
            "from = 2026-02-30",
            "from = 2026-10-01 08:00:00Z",
            "from = 26-10-01",
            "rate = 01",
            "rate = 1 000",
            "name = \"a\" # \u{7}",
            "name = \"a\"\rrate = 1",
            "[service.excess]\naction = \"drop\"",
        ];
        for key in keys {
            assert_eq!(read_plainly(&format!("[[service]]\n{key}\n")), None, "{key}");
        }
    }

    /// Pieces that are TOML in some orders only.
    fn text() -> impl Strategy<Value = String> {
        let pieces = prop::sample::select(vec![
            "name",
            "rate",
            "a-b",
            " ",
            "  ",
            "\t",
            " = ",
            "=",
            "\"",
            "\"",
            "\"ads\"",
            "\"10.0.0.0/8\"",
            "[",
            "]",
            ", ",
            "\n",
            "\n",
            "\r\n",
            "\r",
            "#",
            "# ü",
            "1",
            "08",
            "-1",
            "+0x1f",
            "2_000",
            "0.5",
            "1e3",
            "true",
            "inf",
            "2026-10-01",
            "2026-02-29",
            "2026-13-01",
            "T08:00:00Z",
            "'",
            "\\",
            "\\n",
            ".",
            "{",
            "}",
            "ü",
            "\u{7f}",
            "\u{0}",
            "[[service]]",
            "[[contract]]",
            "name = \"a\"\n",
            "rate = 5\n",
            "endpoints = [\"a\", \"b\"]\n",
            "from = 2026-10-01\n",
        ]);
        prop::collection::vec(pieces, 0..14).prop_map(|pieces| pieces.concat())
    }

    #[test]
    fn what_is_read_is_what_the_crate_reads() {
        let read = Cell::new(0);
        let mut runner = TestRunner::new(ProptestConfig::with_cases(20_000));
        let compared = runner.run(&text(), |text| {
            let part = format!("[[service]]\n{text}");
            if let Some(keys) = read_plainly(&part) {
                read.set(read.get() + 1);
                prop_assert_eq!(Some(keys), by_the_crate(&part), "{}", part);
            }
            Ok(())
        });
        compared.unwrap();
        assert!(read.get() > 1_000, "only {} were in the plain form", read.get());
    }
}

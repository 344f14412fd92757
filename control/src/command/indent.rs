//! Line breaks for JSON that has none.

use std::io::{self, Write};

/// Writes JSON without white space in the form that `serde_json` calls pretty, without reading what it says.
pub(crate) fn write_indented(mut out: impl Write, json: &str) -> io::Result<()> {
    let (mut depth, mut is_text, mut is_escaped) = (0_usize, false, false);
    // The byte before began a list or an object, or ended a part of one.
    let mut is_begun = false;
    // Where what has not been written yet begins.
    let mut begin = 0;
    for (at, byte) in json.bytes().enumerate() {
        if is_text {
            is_text = is_escaped || byte != b'"';
            is_escaped = !is_escaped && byte == b'\\';
            continue;
        }
        let (opens, closes) = (matches!(byte, b'{' | b'['), matches!(byte, b'}' | b']'));
        depth = depth.saturating_sub(usize::from(closes));
        // What is empty stays on its line: `{}`, `[]`.
        if is_begun != closes {
            out.write_all(&json.as_bytes()[begin..at])?;
            begin = at;
            out.write_all(b"\n")?;
            for _ in 0..depth {
                out.write_all(b"  ")?;
            }
        }
        depth += usize::from(opens);
        is_begun = opens || byte == b',';
        is_text = byte == b'"';
        if byte == b':' {
            out.write_all(&json.as_bytes()[begin..=at])?;
            begin = at + 1;
            out.write_all(b" ")?;
        }
    }
    out.write_all(&json.as_bytes()[begin..])
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn indented(json: &str) -> String {
        let mut out = Vec::new();
        write_indented(&mut out, json).unwrap();
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn it_is_what_serde_json_would_have_written() {
        let values = [
            json!({}),
            json!([]),
            json!(-1.5e300),
            json!("{\"a\":[1,2]}\\"),
            json!([[], {}, [[]], [{}], [1, "", null, true]]),
            json!({ "a": { "b": [1, { "c": "d,e:f\\\"\n{[" }], "": {} }, "ü\\": "\u{1}\u{2028}", "g": [[1, 2], [3.25]] }),
        ];
        for value in values {
            assert_eq!(indented(&value.to_string()), format!("{value:#}"));
        }
    }

    #[test]
    fn what_is_not_json_keeps_its_bytes() {
        for text in ["}", "]]]}", "\"", "\"\\", "{", ",,", "{]:", ""] {
            let out: String = indented(text).split_whitespace().collect();
            assert_eq!(out, text);
            assert!(serde_json::from_str::<Value>(text).is_err());
        }
    }
}

//! Which frame sizes the tests are repeated for: RFC 2544 section 9.1, and mixes (RFC 6985).

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use super::ParameterError;

/// The sizes of RFC 2544 section 9.1 for Ethernet, in bytes with FCS.
pub const RFC2544_SIZES: [u16; 7] = [64, 128, 256, 512, 1024, 1280, 1518];

/// One step of a sweep. Written "64" or, for the mix that the run is set to, "imix".
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub enum FrameSize {
    /// All frames of this size, in bytes with FCS: 64 to 9,216.
    Bytes(u16),
    /// The size mix that the run is set to.
    Imix,
}

/// The sweep of RFC 2544 and the mix after it. Sizes above `largest_bytes`, the largest frame with FCS that the ports
/// take, are left out.
#[must_use]
pub fn plan(largest_bytes: u16) -> Vec<FrameSize> {
    let sizes = RFC2544_SIZES
        .into_iter()
        .filter(|&bytes| bytes <= largest_bytes)
        .map(FrameSize::Bytes);
    sizes.chain([FrameSize::Imix]).collect()
}

/// Reads a sweep from "64,512,imix"; "all" stands for the whole of [`plan`]. A size given twice is taken once.
///
/// # Errors
/// A size that is no size, below the least frame of Ethernet, or above `largest_bytes`.
pub fn parse(text: &str, largest_bytes: u16) -> Result<Vec<FrameSize>, ParameterError> {
    if text.trim().eq_ignore_ascii_case("all") {
        return Ok(plan(largest_bytes));
    }
    let mut sizes = Vec::new();
    for part in text.split(',') {
        let size: FrameSize = part.parse()?;
        if let FrameSize::Bytes(bytes) = size
            && bytes > largest_bytes
        {
            let rule = format!("the ports take frames of at most {largest_bytes} bytes with FCS: raise their MTU");
            return Err(ParameterError::new("the frame size", bytes, rule));
        }
        if !sizes.contains(&size) {
            sizes.push(size);
        }
    }
    Ok(sizes)
}

impl FromStr for FrameSize {
    type Err = ParameterError;

    fn from_str(text: &str) -> Result<Self, ParameterError> {
        let text = text.trim();
        if text.eq_ignore_ascii_case("imix") {
            return Ok(FrameSize::Imix);
        }
        match text.parse() {
            Ok(bytes @ SIZE_MIN..=SIZE_MAX) => Ok(FrameSize::Bytes(bytes)),
            _ => {
                let rule =
                    format!("it must be {SIZE_MIN} to {SIZE_MAX} bytes with FCS, or imix, as in 64,512,1518,imix");
                Err(ParameterError::new("the frame size", format_args!("\"{text}\""), rule))
            }
        }
    }
}

impl TryFrom<String> for FrameSize {
    type Error = ParameterError;

    fn try_from(text: String) -> Result<Self, ParameterError> {
        text.parse()
    }
}

impl From<FrameSize> for String {
    fn from(size: FrameSize) -> Self {
        size.to_string()
    }
}

impl fmt::Display for FrameSize {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            FrameSize::Bytes(bytes) => bytes.fmt(f),
            FrameSize::Imix => f.write_str("imix"),
        }
    }
}

const SIZE_MIN: u16 = 64;
/// The largest jumbo frame that common hardware takes.
const SIZE_MAX: u16 = 9_216;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_sweep_is_that_of_the_rfc_and_the_mix() {
        let labels: Vec<_> = plan(1518).iter().map(ToString::to_string).collect();
        assert_eq!(labels.join(","), "64,128,256,512,1024,1280,1518,imix");
        assert_eq!(plan(1000).len(), 5);
    }

    #[test]
    fn lists_are_read_and_faults_named() {
        assert_eq!(
            parse(" 64, imix,64", 1518),
            Ok(vec![FrameSize::Bytes(64), FrameSize::Imix])
        );
        assert_eq!(parse("all", 1518), Ok(plan(1518)));
        for (text, expected) in [
            (
                "63",
                "the frame size is \"63\", but it must be 64 to 9216 bytes with FCS, or imix",
            ),
            ("64,,128", "the frame size is \"\""),
            ("70000", "\"70000\""),
            (
                "9000",
                "the frame size is 9000, but the ports take frames of at most 1518",
            ),
        ] {
            let fault = parse(text, 1518).expect_err("refused").to_string();
            assert!(fault.contains(expected), "{fault}");
        }
    }

    #[test]
    fn sizes_are_plain_text_in_json() {
        let json = serde_json::to_string(&[FrameSize::Bytes(64), FrameSize::Imix]).expect("serializes");
        assert_eq!(json, r#"["64","imix"]"#);
        assert_eq!(
            serde_json::from_str::<Vec<FrameSize>>(&json).expect("reads back").len(),
            2
        );
    }
}

//! Mixes as text: the grammar stands in the module above.

use std::fmt;
use std::str::FromStr;

use super::{FRAME_BYTES_MIN, FrameMix, MixError};

impl FromStr for FrameMix {
    type Err = MixError;

    fn from_str(text: &str) -> Result<Self, MixError> {
        let mut parts = text.split('/').map(str::trim);
        let body = parts.next().unwrap_or_default();
        let body = body.strip_prefix("IMIX - ").unwrap_or(body);
        let mut letters: Vec<(char, u16)> = Vec::new();
        let mut random = None;
        for option in parts {
            match option.split_once('=').map(|(key, value)| (key.trim(), value.trim())) {
                Some(("random", value)) if random.is_none() => {
                    random = Some(
                        value
                            .parse()
                            .map_err(|_| syntax(text, "the seed is not a whole number"))?,
                    );
                }
                Some((key, value)) if is_own_letter(key) && !letters.iter().any(|l| key.starts_with(l.0)) => {
                    letters.extend(key.chars().next().zip(Some(parsed_size(value, text)?)));
                }
                _ => {
                    return Err(syntax(
                        text,
                        &format!("\"{option}\" is neither random=SEED nor LETTER=SIZE, once"),
                    ));
                }
            }
        }
        let (sequence, notation) = parse_body(body, &letters, text)?;
        if sequence.len() > SEQUENCE_FRAMES_MAX {
            return Err(MixError::Length { frames: sequence.len() });
        }
        Ok(Self {
            notation,
            sequence,
            random,
        })
    }
}

/// The sequence, and the text that stands for it with the sizes of its own letters.
fn parse_body(body: &str, letters: &[(char, u16)], text: &str) -> Result<(Vec<u16>, String), MixError> {
    if let Some((name, weights)) = NAMED.iter().find(|(name, _)| *name == body) {
        return Ok((interleave(weights), (*name).to_owned()));
    }
    if body.contains(':') {
        let weights = parse_weights(body, text)?;
        let canonical: Vec<String> = weights
            .iter()
            .map(|(bytes, weight)| format!("{bytes}:{weight}"))
            .collect();
        return Ok((interleave(&weights), canonical.join(",")));
    }
    if body.starts_with(|c: char| c.is_ascii_digit()) {
        let sizes: Result<Vec<u16>, MixError> = body.split(',').map(|size| parsed_size(size.trim(), text)).collect();
        let sizes = sizes?;
        let canonical: Vec<String> = sizes.iter().map(u16::to_string).collect();
        return Ok((sizes, canonical.join(",")));
    }
    if body.is_empty()
        || !body
            .chars()
            .all(|c| STANDARD.iter().any(|s| s.0 == c) || c == 'z' || c.is_ascii_uppercase())
    {
        return Err(syntax(text, "it is no size, no genome and no name that is known"));
    }
    let mut sequence = Vec::with_capacity(body.len());
    let mut notation = body.to_owned();
    for letter in body.chars() {
        let own = letters.iter().find(|l| l.0 == letter);
        let standard = STANDARD.iter().find(|l| l.0 == letter);
        let &(_, bytes) = own.or(standard).ok_or_else(|| MixError::Letter {
            letter,
            text: body.to_owned(),
        })?;
        sequence.push(bytes);
    }
    for (letter, bytes) in letters.iter().filter(|(letter, _)| body.contains(*letter)) {
        notation.push_str(&format!("/{letter}={bytes}"));
    }
    Ok((sequence, notation))
}

/// size:weight,... with the weights in lowest terms: 28:16:4 is 7:4:1, four times over.
fn parse_weights(body: &str, text: &str) -> Result<Vec<(u16, u32)>, MixError> {
    let mut weights = Vec::new();
    for part in body.split(',') {
        let (bytes, weight) = part
            .split_once(':')
            .ok_or_else(|| syntax(text, &format!("\"{part}\" has no weight")))?;
        let weight: u32 = match weight.trim().parse() {
            Ok(weight) if weight > 0 => weight,
            _ => {
                return Err(syntax(
                    text,
                    &format!("weight \"{weight}\" is not a whole number of 1 or more"),
                ));
            }
        };
        weights.push((parsed_size(bytes.trim(), text)?, weight));
    }
    let common = weights
        .iter()
        .fold(0, |divisor, &(_, weight)| greatest_common_divisor(divisor, weight));
    for (_, weight) in &mut weights {
        *weight /= common;
    }
    let frames = weights.iter().map(|&(_, weight)| weight as usize).sum();
    if frames > SEQUENCE_FRAMES_MAX {
        return Err(MixError::Length { frames });
    }
    Ok(weights)
}

/// Each size spread evenly over the sequence: frame i of n stands at (2i + 1) / 2n of the way, and frames are taken in
/// that order, the size named first at the same place. No size is ever ahead of its share by a whole frame of its own.
fn interleave(weights: &[(u16, u32)]) -> Vec<u16> {
    let common = weights
        .iter()
        .fold(0, |divisor, &(_, weight)| greatest_common_divisor(divisor, weight))
        .max(1);
    let mut places: Vec<(u64, u64, u16)> = Vec::new();
    for &(bytes, weight) in weights {
        let weight = u64::from(weight / common);
        places.extend((0..weight).map(|i| (2 * i + 1, 2 * weight, bytes)));
    }
    // a/b < c/d is a*d < c*b; both are below 2^32. The sort is stable.
    places.sort_by(|x, y| (x.0 * y.1).cmp(&(y.0 * x.1)));
    places.into_iter().map(|(_, _, bytes)| bytes).collect()
}

/// The genome of a sequence and the letters of its own: the RFC's letters if they suffice, else capitals (section 5) in
/// order of size. Absent above the 99 frames that the RFC's form is for, or with more than 26 sizes.
pub(super) fn genome_of(sequence: &[u16]) -> Option<(String, Vec<(char, u16)>)> {
    if sequence.len() > GENOME_FRAMES_MAX {
        return None;
    }
    let by_letters = |letters: &[(char, u16)]| -> Option<String> {
        let letter = |bytes: &u16| letters.iter().find(|l| l.1 == *bytes).map(|l| l.0);
        sequence.iter().map(letter).collect()
    };
    if let Some(genome) = by_letters(&STANDARD) {
        return Some((format!("IMIX - {genome}"), Vec::new()));
    }
    let mut sizes = sequence.to_vec();
    sizes.sort_unstable();
    sizes.dedup();
    let own: Vec<(char, u16)> = if sizes.len() <= 26 {
        ('A'..='Z').zip(sizes).collect()
    } else {
        return None;
    };
    by_letters(&own).map(|genome| (format!("IMIX - {genome}"), own))
}

/// Text that parses to this sequence.
pub(super) fn notation_of(sequence: &[u16]) -> String {
    if let [bytes] = sequence {
        return bytes.to_string();
    }
    let Some((genome, letters)) = genome_of(sequence) else {
        let sizes: Vec<String> = sequence.iter().map(u16::to_string).collect();
        return sizes.join(",");
    };
    let sizes: String = letters
        .iter()
        .map(|(letter, bytes)| format!("/{letter}={bytes}"))
        .collect();
    format!("{}{sizes}", genome.trim_start_matches("IMIX - "))
}

impl fmt::Display for FrameMix {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.notation)?;
        self.random.map_or(Ok(()), |seed| write!(f, "/random={seed}"))
    }
}

impl TryFrom<String> for FrameMix {
    type Error = MixError;

    fn try_from(text: String) -> Result<Self, MixError> {
        text.parse()
    }
}

impl From<FrameMix> for String {
    fn from(mix: FrameMix) -> Self {
        mix.to_string()
    }
}

fn parsed_size(value: &str, text: &str) -> Result<u16, MixError> {
    let bytes = value
        .parse()
        .map_err(|_| syntax(text, &format!("\"{value}\" is not a whole number of bytes")))?;
    checked_size(bytes, value)
}

pub(super) fn checked_size(bytes: u64, text: &str) -> Result<u16, MixError> {
    match u16::try_from(bytes) {
        Ok(bytes) if bytes >= FRAME_BYTES_MIN => Ok(bytes),
        _ => Err(MixError::Size { text: text.to_owned() }),
    }
}

fn syntax(text: &str, problem: &str) -> MixError {
    MixError::Syntax {
        text: text.to_owned(),
        problem: problem.to_owned(),
    }
}

fn is_own_letter(key: &str) -> bool {
    key == "z" || key.len() == 1 && key.chars().all(|c| c.is_ascii_uppercase())
}

fn greatest_common_divisor(mut a: u32, mut b: u32) -> u32 {
    while b != 0 {
        (a, b) = (b, a % b);
    }
    a
}

pub(super) const NAMES: &str = "simple, trex, csit";
/// Without common divisors: the sequence is the shortest that has the ratio.
const NAMED: [(&str, &[(u16, u32)]); 3] = [
    ("simple", &[(64, 7), (594, 4), (1518, 1)]),
    ("trex", &[(64, 28), (594, 16), (1518, 4)]),
    ("csit", &[(64, 28), (570, 16), (1518, 4)]),
];
/// RFC 6985 section 4. `z` is the MTU, and stated.
const STANDARD: [(char, u16); 10] = [
    ('a', 64),
    ('b', 128),
    ('c', 256),
    ('d', 512),
    ('e', 1024),
    ('f', 1280),
    ('g', 1518),
    ('h', 2112),
    ('i', 9000),
    ('j', 16000),
];
/// Long enough for any ratio in use; a longer one would not stay in a core's first cache.
pub(super) const SEQUENCE_FRAMES_MAX: usize = 8192;
/// A genome of 100 letters and more nobody can read.
const GENOME_FRAMES_MAX: usize = 99;

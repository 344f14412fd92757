//! Frame sizes: one size, or a mix of several, stated so that anyone can repeat it.
//!
//! A mix is a *sequence* of sizes that repeats, or draws from one by a seed, which is then part of its name. RFC 6985
//! calls any standard mix a "colossal non-goal" and asks for the exact sequence instead, as a *genome*: one letter for
//! each frame in order. [`FrameMix::report`] gives it, with the table of the letters that are not in the RFC's.
//!
//! All sizes here are bytes of the Ethernet frame with its FCS (64, 1518), as RFC 2544 counts. The packets of this
//! program are 4 bytes shorter in memory.
//!
//! What may be written:
//!
//! | text | meaning |
//! | --- | --- |
//! | `64` | every frame has this size |
//! | `aaafg`, `IMIX - aaafg` | a genome: a 64, b 128, c 256, d 512, e 1024, f 1280, g 1518, h 2112, i 9000, j 16000 |
//! | `aaz/z=1450` | z is the MTU, whose size (of the frame, with FCS) must be stated |
//! | `AAB/A=570/B=78` | capital letters are sizes of one's own, stated |
//! | `simple` | 64, 594 and 1518 in 7:4:1; 46, 576 and 1500 bytes of IP |
//! | `trex` | TRex's 60, 590 and 1514 without FCS in 28:16:4: the same frames as `simple` |
//! | `csit` | FD.io CSIT's IMIX_v4_1: 64, 570 and 1518 in 28:16:4 |
//! | `64:28,570:16,1518:4` | size:weight; interleaved as evenly as can be, not 28 small ones in a row |
//! | any of them with `/random=7` | drawn from the sequence with seed 7, each place equally likely |

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::flow::mix;

/// Smallest frame: what Ethernet allows.
pub const FRAME_BYTES_MIN: u16 = 64;

/// A frame size or a mix of them. See the module for how it is written; [`Display`](fmt::Display) gives text that
/// parses to the same mix.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct FrameMix {
    /// As it was asked for, without options that [`Display`](fmt::Display) adds.
    notation: String,
    /// Never empty; [`SEQUENCE_FRAMES_MAX`] at most.
    sequence: Vec<u16>,
    /// Draw from the sequence by this seed instead of taking it in order.
    random: Option<u64>,
}

impl FrameMix {
    /// Frames of one size, in bytes with FCS.
    ///
    /// # Errors
    /// Below [`FRAME_BYTES_MIN`].
    pub fn fixed(frame_bytes: u16) -> Result<Self, MixError> {
        Ok(Self {
            notation: frame_bytes.to_string(),
            sequence: vec![checked_size(u64::from(frame_bytes), &frame_bytes.to_string())?],
            random: None,
        })
    }

    /// Exactly these frames in this order, over and over; bytes with FCS.
    ///
    /// # Errors
    /// None, too many, or one below [`FRAME_BYTES_MIN`].
    pub fn from_sequence(sequence: &[u16]) -> Result<Self, MixError> {
        if sequence.is_empty() || sequence.len() > SEQUENCE_FRAMES_MAX {
            return Err(MixError::Length { frames: sequence.len() });
        }
        for &bytes in sequence {
            checked_size(u64::from(bytes), &bytes.to_string())?;
        }
        Ok(Self {
            notation: notation_of(sequence),
            sequence: sequence.to_vec(),
            random: None,
        })
    }

    /// The same mix drawn at random by `seed`.
    #[must_use]
    pub fn randomized(mut self, seed: u64) -> Self {
        self.random = Some(seed);
        self
    }

    /// The same mix with frames below `frame_bytes` (with FCS) raised to it, such as IPv6 with a header of ours needs:
    /// its name becomes the exact sequence, because it is another mix.
    #[must_use]
    pub fn raised_to(&self, frame_bytes: u16) -> Self {
        if self.smallest() >= frame_bytes {
            return self.clone();
        }
        let sequence: Vec<u16> = self.sequence.iter().map(|&bytes| bytes.max(frame_bytes)).collect();
        Self {
            notation: notation_of(&sequence),
            sequence,
            random: self.random,
        }
    }

    /// The repeating sequence; with a seed, what is drawn from.
    #[must_use]
    pub fn sequence(&self) -> &[u16] {
        &self.sequence
    }

    /// The seed, if sizes are drawn at random.
    #[must_use]
    pub fn random_seed(&self) -> Option<u64> {
        self.random
    }

    /// The smallest frame, bytes with FCS.
    #[must_use]
    pub fn smallest(&self) -> u16 {
        self.sequence.iter().copied().min().unwrap_or(FRAME_BYTES_MIN)
    }

    /// The largest frame, bytes with FCS.
    #[must_use]
    pub fn largest(&self) -> u16 {
        self.sequence.iter().copied().max().unwrap_or(FRAME_BYTES_MIN)
    }

    /// Bytes with FCS of one pass through the sequence, and its frames: their quotient is the exact mean.
    #[must_use]
    pub fn pass(&self) -> (u64, u64) {
        let bytes = self.sequence.iter().map(|&bytes| u64::from(bytes)).sum();
        (bytes, self.sequence.len() as u64)
    }

    /// Mean bytes of a frame, with FCS. For a random mix the mean of the distribution.
    #[must_use]
    pub fn mean_frame_bytes(&self) -> f64 {
        let (bytes, frames) = self.pass();
        bytes as f64 / frames as f64
    }

    /// Bytes with FCS of frame `k`, from 0: of any one, in any order, so that several cores agree.
    #[inline]
    #[must_use]
    pub fn size(&self, k: u64) -> u16 {
        let frames = self.sequence.len() as u64;
        let place = match self.random {
            None => k % frames,
            Some(seed) => draw(seed, k, frames),
        };
        self.sequence[place as usize]
    }

    /// The sizes of frames 0, 1, 2 and so on: never ends, allocates nothing, and divides nothing.
    #[must_use]
    pub fn sizes(&self) -> Sizes<'_> {
        Sizes {
            mix: self,
            k: 0,
            place: 0,
        }
    }

    /// The mix as RFC 6985 section 4 wants it reported.
    #[must_use]
    pub fn report(&self) -> MixReport {
        let (genome, letters) = genome_of(&self.sequence).map_or((None, Vec::new()), |(g, l)| (Some(g), l));
        MixReport {
            name: self.to_string(),
            genome,
            letters,
            sequence: self.sequence.clone(),
            random_seed: self.random,
            mean_frame_bytes: self.mean_frame_bytes(),
        }
    }
}

/// The sizes of a mix, bytes with FCS.
#[derive(Clone, Debug)]
pub struct Sizes<'a> {
    mix: &'a FrameMix,
    k: u64,
    place: usize,
}

impl Iterator for Sizes<'_> {
    type Item = u16;

    #[inline]
    fn next(&mut self) -> Option<u16> {
        let sequence = &self.mix.sequence;
        let place = match self.mix.random {
            None => {
                let place = self.place;
                self.place = if place + 1 == sequence.len() { 0 } else { place + 1 };
                place
            }
            Some(seed) => draw(seed, self.k, sequence.len() as u64) as usize,
        };
        self.k = self.k.wrapping_add(1);
        sequence.get(place).copied()
    }
}

/// All that someone else needs to send the same sizes.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct MixReport {
    /// As it may be asked for again.
    pub name: String,
    /// RFC 6985: `IMIX - aaafg`; absent where more than 26 sizes or too long a sequence leave no genome.
    pub genome: Option<String>,
    /// What each capital letter (and z) of the genome stands for, bytes with FCS.
    pub letters: Vec<(char, u16)>,
    /// The exact sequence, bytes with FCS.
    pub sequence: Vec<u16>,
    /// The seed by which sizes are drawn from the sequence; absent: in order, over and over.
    pub random_seed: Option<u64>,
    /// Mean bytes of a frame with FCS.
    pub mean_frame_bytes: f64,
}

impl fmt::Display for MixReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.genome {
            _ if self.sequence.len() == 1 => write!(f, "{} bytes", self.sequence[0])?,
            Some(genome) => write!(f, "{genome}")?,
            None => write!(f, "{} ({} frames, no genome)", self.name, self.sequence.len())?,
        }
        for (i, (letter, bytes)) in self.letters.iter().enumerate().filter(|_| self.sequence.len() > 1) {
            write!(f, "{} {letter} = {bytes}", if i == 0 { ";" } else { "," })?;
        }
        if let Some(seed) = self.random_seed {
            write!(f, "; pseudo-random, seed {seed}")?;
        }
        if self.sequence.len() > 1 {
            write!(f, "; mean {:.2} bytes with FCS", self.mean_frame_bytes)?;
        }
        Ok(())
    }
}

/// What is wrong with a mix.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum MixError {
    /// Not in the grammar.
    #[error("frame sizes \"{text}\": {problem}; write a size (64), a genome (aaafg), {NAMES} or size:weight,...")]
    Syntax {
        /// What was written.
        text: String,
        /// What is wrong with it.
        problem: String,
    },
    /// A size no frame has.
    #[error(
        "frame size {text} is out of range: {FRAME_BYTES_MIN} to {} bytes, counted with the FCS",
        u16::MAX
    )]
    Size {
        /// What was written.
        text: String,
    },
    /// A letter whose size is nowhere stated.
    #[error("letter {letter} of the genome \"{text}\" has no size: add \"/{letter}=1450\" (bytes with FCS)")]
    Letter {
        /// The letter.
        letter: char,
        /// The genome.
        text: String,
    },
    /// Empty or too long.
    #[error("a mix of {frames} frames: allowed are 1 to {SEQUENCE_FRAMES_MAX}; use smaller weights of the same ratio")]
    Length {
        /// Frames of the sequence.
        frames: usize,
    },
}

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
        return Ok((vec![parsed_size(body, text)?], body.to_owned()));
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
fn genome_of(sequence: &[u16]) -> Option<(String, Vec<(char, u16)>)> {
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
fn notation_of(sequence: &[u16]) -> String {
    if let [bytes] = sequence {
        return bytes.to_string();
    }
    let Some((genome, letters)) = genome_of(sequence) else {
        return sequence_as_weights(sequence);
    };
    let sizes: String = letters
        .iter()
        .map(|(letter, bytes)| format!("/{letter}={bytes}"))
        .collect();
    format!("{}{sizes}", genome.trim_start_matches("IMIX - "))
}

/// For sequences that no genome states: their sizes and how many of each.
fn sequence_as_weights(sequence: &[u16]) -> String {
    let mut weights: Vec<(u16, u32)> = Vec::new();
    for &bytes in sequence {
        match weights.iter_mut().find(|w| w.0 == bytes) {
            Some(weight) => weight.1 += 1,
            None => weights.push((bytes, 1)),
        }
    }
    let parts: Vec<String> = weights
        .iter()
        .map(|(bytes, weight)| format!("{bytes}:{weight}"))
        .collect();
    parts.join(",")
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

/// A place below `frames`, the same for the same seed and k, by the high half of a product: no division, and a bias of
/// frames / 2^64.
#[inline]
fn draw(seed: u64, k: u64, frames: u64) -> u64 {
    ((u128::from(mix(mix(seed) ^ k)) * u128::from(frames)) >> 64) as u64
}

fn parsed_size(value: &str, text: &str) -> Result<u16, MixError> {
    let bytes = value
        .parse()
        .map_err(|_| syntax(text, &format!("\"{value}\" is not a whole number of bytes")))?;
    checked_size(bytes, value)
}

fn checked_size(bytes: u64, text: &str) -> Result<u16, MixError> {
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

const NAMES: &str = "simple, trex, csit";
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
const SEQUENCE_FRAMES_MAX: usize = 8192;
/// A genome of 100 letters and more nobody can read.
const GENOME_FRAMES_MAX: usize = 99;

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> FrameMix {
        text.parse().unwrap_or_else(|e| panic!("{text}: {e}"))
    }

    #[test]
    fn means_are_those_of_the_published_mixes() {
        // Without FCS TRex's mean is 357.8; the published means count CSIT's sizes with FCS.
        let cases = [
            (
                "simple",
                361.833,
                "IP of 40:576:1500 padded to Ethernet's minimum; Ostinato's",
            ),
            ("trex", 357.833 + 4.0, "60:590:1514 and 4 bytes of FCS"),
            ("csit", 353.833, "CSIT's own average for IMIX_v4_1"),
            (
                "64:28,594:20,1518:4",
                375.692 + 4.0,
                "CSIT's older IMIX_v4, 60:590:1514 and the FCS",
            ),
            ("64:57,570:7,594:16,1518:20", 475.02, "four sizes in percent"),
            ("aaafg", 598.0, "RFC 6985's example"),
            ("1518", 1518.0, "one size"),
        ];
        for (text, mean, why) in cases {
            let mix = parse(text);
            assert!(
                (mix.mean_frame_bytes() - mean).abs() < 0.001,
                "{text} ({why}): {}",
                mix.mean_frame_bytes()
            );
            let (bytes, frames) = mix.pass();
            let sent: u64 = mix.sizes().take(frames as usize * 3).map(u64::from).sum();
            assert_eq!(sent, 3 * bytes, "{text}");
        }
        assert_eq!(parse("trex").sequence(), parse("simple").sequence());
    }

    #[test]
    fn byte_shares_of_csit_are_as_published() {
        let mix = parse("csit");
        let (bytes, _) = mix.pass();
        for (size, share) in [(64, 10.6), (570, 53.7), (1518, 35.8)] {
            let own: u64 = mix
                .sequence()
                .iter()
                .filter(|&&s| s == size)
                .map(|&s| u64::from(s))
                .sum();
            assert!((own as f64 / bytes as f64 * 100.0 - share).abs() < 0.06, "{size}");
        }
    }

    #[test]
    fn sizes_are_interleaved_evenly() {
        let simple = [64, 594, 64, 64, 594, 64, 1518, 594, 64, 64, 594, 64];
        assert_eq!(parse("simple").sequence(), simple);
        for text in [
            "csit",
            "64:57,570:7,594:16,1518:20",
            "64:1000,1518:1",
            "100:3,200:3,300:3",
        ] {
            let mix = parse(text);
            let sequence = mix.sequence();
            let mut sizes = sequence.to_vec();
            sizes.sort_unstable();
            sizes.dedup();
            for size in sizes {
                let total = sequence.iter().filter(|&&s| s == size).count() as f64;
                let mut seen = 0.0;
                for (i, _) in sequence.iter().enumerate().filter(|(_, s)| **s == size) {
                    seen += 1.0;
                    let due = total * (i as f64 + 1.0) / sequence.len() as f64;
                    assert!((seen - due).abs() < 1.5, "{text}: {size} at {i}: {seen} of {due}");
                }
            }
        }
    }

    #[test]
    fn reports_state_the_exact_sequence() {
        assert_eq!(
            parse("aaafg").report().to_string(),
            "IMIX - aaafg; mean 598.00 bytes with FCS"
        );
        assert_eq!(parse("IMIX - aaafg").sequence(), [64, 64, 64, 1280, 1518]);
        assert_eq!(parse("aaz/z=1450").sequence(), [64, 64, 1450]);
        assert_eq!(parse("128").report().to_string(), "128 bytes");
        let csit = parse("csit/random=7").report();
        let text = csit.to_string();
        assert!(
            text.starts_with("IMIX - ") && text.contains("A = 64, B = 570, C = 1518"),
            "{text}"
        );
        assert!(text.contains("pseudo-random, seed 7"), "{text}");
        assert_eq!(csit.sequence.len(), 12);
        assert_eq!(parse("64:200,1518:1").report().genome, None);
    }

    #[test]
    fn random_mixes_keep_the_shares_and_are_repeatable() {
        let mix = parse("csit/random=42");
        let sizes: Vec<u16> = mix.sizes().take(120_000).collect();
        let mean = sizes.iter().map(|&s| f64::from(s)).sum::<f64>() / sizes.len() as f64;
        assert!((mean / 353.833 - 1.0).abs() < 0.01, "seed 42: {mean}");
        assert!(sizes.iter().enumerate().all(|(k, &size)| mix.size(k as u64) == size));
        assert_ne!(sizes, parse("csit/random=43").sizes().take(120_000).collect::<Vec<_>>());
        let plain = parse("csit");
        assert!(
            plain
                .sizes()
                .take(100)
                .enumerate()
                .all(|(k, size)| plain.size(k as u64) == size)
        );
    }

    #[test]
    fn text_and_json_round_trip() {
        for text in [
            "64",
            "simple",
            "csit/random=9",
            "AAB/A=570/B=78",
            "aaz/z=1450/random=1",
            "64:7,9000:2",
            "aaafg",
        ] {
            let mix = parse(text);
            assert_eq!(parse(&mix.to_string()), mix, "{text}");
            let json = serde_json::to_string(&mix).unwrap();
            assert_eq!(serde_json::from_str::<FrameMix>(&json).unwrap(), mix, "{json}");
        }
        let raised = parse("simple").raised_to(84);
        assert_eq!(raised.smallest(), 84);
        assert_eq!(parse(&raised.to_string()).sequence(), raised.sequence());
        assert_eq!(parse("simple").raised_to(64), parse("simple"));
        assert_eq!(FrameMix::from_sequence(&[64, 64, 1280]).unwrap().to_string(), "aaf");
        assert_eq!(
            parse(&FrameMix::from_sequence(&[64, 78]).unwrap().to_string()).sequence(),
            [64, 78]
        );
    }

    #[test]
    fn bad_mixes_say_how_to_mend_them() {
        let cases = [
            ("", "no size"),
            ("63", "64 to 65535"),
            ("70000", "64 to 65535"),
            ("aaz", "/z=1450"),
            ("aak", "no genome"),
            ("imix", "simple, trex, csit"),
            ("64:7,594", "has no weight"),
            ("64:0", "1 or more"),
            ("64:1,40:1", "40 is out of range"),
            ("64:100000,65:1", "smaller weights"),
            ("csit/random=x", "seed"),
            ("csit/foo", "neither"),
            ("99999999999999999999999", "not a whole number"),
        ];
        for (text, part) in cases {
            let error = text.parse::<FrameMix>().unwrap_err().to_string();
            assert!(error.contains(part), "{text}: {error}");
        }
        assert!(FrameMix::fixed(63).is_err() && FrameMix::from_sequence(&[]).is_err());
    }
}

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
//! | `64,64,1518` | exactly these frames in this order |
//! | `64:28,570:16,1518:4` | size:weight; interleaved as evenly as can be, not 28 small ones in a row |
//! | any of them with `/random=7` | drawn from the sequence with seed 7, each place equally likely |

mod notation;

#[cfg(test)]
mod tests;

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::flow::mix;
use notation::{NAMES, SEQUENCE_FRAMES_MAX, checked_size, genome_of, notation_of};

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

/// A place below `frames`, the same for the same seed and k, by the high half of a product: no division, and a bias of
/// frames / 2^64.
#[inline]
fn draw(seed: u64, k: u64, frames: u64) -> u64 {
    ((u128::from(mix(mix(seed) ^ k)) * u128::from(frames)) >> 64) as u64
}

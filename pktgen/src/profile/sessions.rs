//! Sessions of a chat model: answers streamed token by token, many at a time.
//!
//! A source has so many places that the load is reached when they are nearly always taken. In each place one answer
//! follows another: tokens at equal distances, then a pause. The pauses make up what whole places have too much.

use std::cmp::Reverse;
use std::collections::BinaryHeap;

use dataplane::clock::Nanos;

use super::Message;
use super::random::Random;
use super::sizes::{CHAT_TOKENS, TOKEN_BYTES};

/// A million places take 40 MB.
pub(super) const TOKENS_PER_SECOND_MAX: f64 = 2e7;

#[derive(Clone, Debug)]
pub(super) struct Sessions {
    places: Vec<Place>,
    /// Which place sends next; never grows.
    due: BinaryHeap<Reverse<(u64, u32)>>,
    /// Between two answers of a place, in the mean.
    mean_pause_ns: f64,
    answers: u64,
}

#[derive(Clone, Copy, Debug, Default)]
struct Place {
    /// When its next token comes.
    at: f64,
    token_gap_ns: f64,
    /// Tokens left of the answer.
    left: u64,
    answer: u64,
}

impl Sessions {
    /// Places for this many tokens a second in the mean.
    pub(super) fn new(tokens_per_second: f64, random: &mut Random) -> Self {
        // The gap between tokens is 1/rate; its mean over rates from a to b is ln(b/a) / (b - a).
        let mean_gap_ns = 1e9 * (RATE_MAX / RATE_MIN).ln() / (RATE_MAX - RATE_MIN);
        let places = (tokens_per_second * mean_gap_ns / 1e9).ceil().max(1.0);
        // Tokens are rounded up: half of one in the mean.
        let mean_tokens = CHAT_TOKENS.mean_bytes() + 0.5;
        let mean_answer_ns = mean_tokens * mean_gap_ns;
        let mean_turn_ns = mean_tokens * 1e9 * places / tokens_per_second;
        let mut sessions = Self {
            places: vec![Place::default(); places as usize],
            due: BinaryHeap::with_capacity(places as usize),
            mean_pause_ns: (mean_turn_ns - mean_answer_ns).max(0.0),
            answers: 0,
        };
        for index in 0..sessions.places.len() {
            sessions.begin(index, random);
            let place = &mut sessions.places[index];
            if random.uniform() < mean_answer_ns / mean_turn_ns {
                place.midway(random);
            }
            let at = place.at as u64;
            sessions.due.push(Reverse((at, index as u32)));
        }
        sessions
    }

    pub(super) fn next(&mut self, random: &mut Random) -> Option<Message> {
        let Reverse((at, index)) = self.due.pop()?;
        let place = &mut self.places[index as usize];
        let flow = place.answer;
        place.left -= 1;
        place.at += place.token_gap_ns;
        if place.left == 0 {
            self.begin(index as usize, random);
        }
        self.due.push(Reverse((self.places[index as usize].at as u64, index)));
        Some(Message {
            at: Nanos(at),
            bytes: TOKEN_BYTES.sample(random.uniform()),
            flow,
        })
    }

    /// A new answer in a place, after a pause.
    fn begin(&mut self, index: usize, random: &mut Random) {
        let place = &mut self.places[index];
        place.at += random.exponential(self.mean_pause_ns);
        place.token_gap_ns = 1e9 / (RATE_MIN + (RATE_MAX - RATE_MIN) * random.uniform());
        place.left = CHAT_TOKENS.sample(random.uniform());
        place.answer = self.answers;
        self.answers += 1;
    }
}

impl Place {
    /// In the midst of an answer, as at any moment of a long run: one of n tokens at rate r is met in proportion to n/r,
    /// so r is uniform in its logarithm, and n is kept with a chance of n of the most. The load is then there from the
    /// first moment.
    fn midway(&mut self, random: &mut Random) {
        self.token_gap_ns = 1e9 / (RATE_MIN * (RATE_MAX / RATE_MIN).powf(random.uniform()));
        let most = CHAT_TOKENS.quantile(1.0);
        let tokens = loop {
            let tokens = CHAT_TOKENS.sample(random.uniform()) as f64;
            if random.uniform() * most < tokens {
                break tokens;
            }
        };
        self.left = (tokens * random.uniform()).ceil() as u64;
        self.at = random.uniform() * self.token_gap_ns;
    }
}

/// Tokens a second in a session: an assumption, from slow reading to a fast model.
const RATE_MIN: f64 = 10.0;
const RATE_MAX: f64 = 100.0;

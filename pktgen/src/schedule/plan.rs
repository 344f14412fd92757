//! Schedules as operators write them: text, and the same as parts. The grammar stands in the module above.

use std::fmt;
use std::str::FromStr;

use dataplane::clock::Nanos;
use serde::{Deserialize, Serialize};

use crate::rate::{Rate, RateError};

/// What to send when. [`Display`](fmt::Display) gives text that parses to the same plan.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Plan {
    parts: Vec<Part>,
    repeats: bool,
}

/// One part of a plan. All durations are above 0; those that may be absent mean "for ever".
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Part {
    /// One rate.
    Constant {
        /// How fast.
        rate: Rate,
        /// For how long.
        duration: Option<Nanos>,
    },
    /// A straight line from one rate to another.
    Ramp {
        /// At its beginning; `None`: 0.
        from: Option<Rate>,
        /// At its end; `None`: 0.
        to: Option<Rate>,
        /// For how long.
        duration: Nanos,
    },
    /// Some packets at regular instants.
    Burst {
        /// Packets of one burst, 1 or more.
        packets: u64,
        /// The rate within a burst; `None`: all are due at once.
        at: Option<Rate>,
        /// From the beginning of one burst to that of the next.
        every: Nanos,
        /// For how long.
        duration: Option<Nanos>,
    },
    /// A rate that comes and goes.
    OnOff {
        /// The rate while on.
        rate: Rate,
        /// How long it is on.
        on: Nanos,
        /// How long it is off then.
        off: Nanos,
        /// For how long in all.
        duration: Option<Nanos>,
    },
    /// Nothing.
    Idle {
        /// For how long.
        duration: Nanos,
    },
}

/// What is wrong with a plan.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub enum PlanError {
    /// Not in the grammar.
    #[error("schedule \"{part}\": {problem}; {PLAN_HELP}")]
    Syntax {
        /// The part that is wrong.
        part: String,
        /// What is wrong with it.
        problem: String,
    },
    /// A rate that is none.
    #[error("schedule \"{part}\": {source}")]
    Rate {
        /// The part it stands in.
        part: String,
        /// What is wrong with it.
        source: RateError,
    },
    /// A part after one that never ends.
    #[error("schedule: \"{part}\" never ends, so {what} after it never begins: give it a duration")]
    Endless {
        /// The part without an end.
        part: String,
        /// What comes after it.
        what: &'static str,
    },
}

impl Plan {
    /// A plan of these parts, that begins anew at its end if it `repeats`.
    ///
    /// # Errors
    /// No part; a duration or a count of 0; something after a part without an end.
    pub fn new(parts: Vec<Part>, repeats: bool) -> Result<Self, PlanError> {
        if parts.is_empty() {
            return Err(syntax("", "it is empty"));
        }
        for (i, part) in parts.iter().enumerate() {
            part.validate()?;
            if part.duration().is_none() && (repeats || i + 1 < parts.len()) {
                return Err(PlanError::Endless {
                    part: part.to_string(),
                    what: if i + 1 < parts.len() { "the part" } else { "the repeat" },
                });
            }
        }
        Ok(Self { parts, repeats })
    }

    /// One rate for ever.
    #[must_use]
    pub fn constant(rate: Rate) -> Self {
        Self {
            parts: vec![Part::Constant { rate, duration: None }],
            repeats: false,
        }
    }

    /// The parts in order.
    #[must_use]
    pub fn parts(&self) -> &[Part] {
        &self.parts
    }

    /// Whether it begins anew at its end.
    #[must_use]
    pub fn repeats(&self) -> bool {
        self.repeats
    }

    /// The rate, if the plan is one rate and nothing else: what may be `max`.
    #[must_use]
    pub fn single_rate(&self) -> Option<Rate> {
        match *self.parts.as_slice() {
            [Part::Constant { rate, duration: None }] => Some(rate),
            _ => None,
        }
    }
}

impl Part {
    /// How long it lasts; `None`: for ever.
    #[must_use]
    pub fn duration(&self) -> Option<Nanos> {
        match *self {
            Part::Constant { duration, .. } | Part::Burst { duration, .. } | Part::OnOff { duration, .. } => duration,
            Part::Ramp { duration, .. } | Part::Idle { duration } => Some(duration),
        }
    }

    /// The rates that stand in it.
    pub fn rates(&self) -> impl Iterator<Item = Rate> {
        let rates = match *self {
            Part::Constant { rate, .. } | Part::OnOff { rate, .. } => [Some(rate), None],
            Part::Ramp { from, to, .. } => [from, to],
            Part::Burst { at, .. } => [at, None],
            Part::Idle { .. } => [None, None],
        };
        rates.into_iter().flatten()
    }

    fn validate(&self) -> Result<(), PlanError> {
        let zero = match *self {
            Part::Burst { packets, every, .. } => packets == 0 || every.0 == 0,
            Part::OnOff { on, off, .. } => on.0 == 0 || off.0 == 0,
            _ => false,
        };
        if zero || self.duration() == Some(Nanos(0)) {
            return Err(syntax(&self.to_string(), "durations and counts must be above 0"));
        }
        Ok(())
    }
}

impl FromStr for Plan {
    type Err = PlanError;

    fn from_str(text: &str) -> Result<Self, PlanError> {
        let mut texts: Vec<&str> = text.split(';').map(str::trim).collect();
        let repeats = texts.len() > 1 && texts.last() == Some(&"repeat");
        if repeats {
            texts.pop();
        }
        let mut parts = Vec::new();
        for text in texts {
            match text.strip_prefix("step ") {
                None => parts.push(Reader::new(text).part()?),
                Some(steps) => {
                    for step in steps.split(',') {
                        parts.push(Reader::new(step.trim()).constant()?);
                    }
                }
            }
        }
        Self::new(parts, repeats)
    }
}

/// The words of one part.
struct Reader<'a> {
    text: &'a str,
    words: std::vec::IntoIter<String>,
}

impl<'a> Reader<'a> {
    fn new(text: &'a str) -> Self {
        // "5 Mpps" is one word: a number takes what follows it if that is a unit.
        let spaced = text.replace("..", " .. ");
        let mut words: Vec<String> = Vec::new();
        for word in spaced.split_whitespace() {
            let unit = UNITS.contains(&word) || word.ends_with("pps") || word.contains("/s") || word.contains("bps");
            match words.last_mut() {
                Some(number)
                    if unit && number != ".." && number.chars().all(|c| c.is_ascii_digit() || "._".contains(c)) =>
                {
                    number.push_str(word);
                }
                _ => words.push(word.to_owned()),
            }
        }
        Self {
            text,
            words: words.into_iter(),
        }
    }

    fn part(mut self) -> Result<Part, PlanError> {
        match self.words.as_slice().first().map(String::as_str) {
            None => Err(self.problem("a part is empty")),
            Some("ramp") => self.after_keyword().ramp(),
            Some("burst") => self.after_keyword().burst(),
            Some("on") => self.after_keyword().on_off(),
            Some("idle") => {
                self = self.after_keyword();
                let duration = self.duration("how long nothing is sent")?;
                self.end(Part::Idle { duration })
            }
            Some(_) => self.constant(),
        }
    }

    fn constant(mut self) -> Result<Part, PlanError> {
        let rate = self.rate("a rate")?;
        if self.words.as_slice().first().is_some_and(|word| word == "for") {
            self.words.next();
        }
        let duration = if self.words.as_slice().is_empty() {
            None
        } else {
            Some(self.duration("how long it lasts")?)
        };
        self.end(Part::Constant { rate, duration })
    }

    fn ramp(mut self) -> Result<Part, PlanError> {
        let from = self.rate_or_zero("the rate at the beginning")?;
        self.keyword("..")?;
        let to = self.rate_or_zero("the rate at the end")?;
        let duration = self.duration("how long the ramp takes")?;
        self.end(Part::Ramp { from, to, duration })
    }

    fn burst(mut self) -> Result<Part, PlanError> {
        let count = self.word("how many packets")?;
        let packets = count.replace('_', "").parse();
        let packets = packets.map_err(|_| self.problem(&format!("\"{count}\" is not a whole number of packets")))?;
        let noun = if packets == 1 { "packet" } else { "packets" };
        if self.words.as_slice().first().is_none_or(|word| word != noun) {
            self.keyword("packets")?;
        } else {
            self.words.next();
        }
        let mut at = None;
        if self.words.as_slice().first().is_some_and(|word| word == "at") {
            self.words.next();
            at = Some(self.rate("the rate of a burst")?);
        }
        self.keyword("every")?;
        let every = self.duration("the period of the bursts")?;
        let duration = self.for_duration()?;
        self.end(Part::Burst {
            packets,
            at,
            every,
            duration,
        })
    }

    fn on_off(mut self) -> Result<Part, PlanError> {
        let rate = self.rate("the rate while on")?;
        let on = self.duration("how long it is on")?;
        self.keyword("off")?;
        let off = self.duration("how long it is off")?;
        let duration = self.for_duration()?;
        self.end(Part::OnOff {
            rate,
            on,
            off,
            duration,
        })
    }

    fn after_keyword(mut self) -> Self {
        self.words.next();
        self
    }

    fn for_duration(&mut self) -> Result<Option<Nanos>, PlanError> {
        if self.words.as_slice().is_empty() {
            return Ok(None);
        }
        self.keyword("for")?;
        self.duration("how long it lasts").map(Some)
    }

    fn rate_or_zero(&mut self, what: &str) -> Result<Option<Rate>, PlanError> {
        if self.words.as_slice().first().is_some_and(|word| word == "0") {
            self.words.next();
            return Ok(None);
        }
        self.rate(what).map(Some)
    }

    fn rate(&mut self, what: &str) -> Result<Rate, PlanError> {
        let word = self.word(what)?;
        word.parse().map_err(|source| PlanError::Rate {
            part: self.text.to_owned(),
            source,
        })
    }

    fn duration(&mut self, what: &str) -> Result<Nanos, PlanError> {
        let word = self.word(what)?;
        parse_duration(&word)
            .ok_or_else(|| self.problem(&format!("\"{word}\" is no duration ({what}): {DURATION_HELP}")))
    }

    fn keyword(&mut self, keyword: &str) -> Result<(), PlanError> {
        let word = self.word(&format!("\"{keyword}\""))?;
        if word == keyword {
            Ok(())
        } else {
            Err(self.problem(&format!("\"{word}\" stands where \"{keyword}\" should")))
        }
    }

    fn word(&mut self, what: &str) -> Result<String, PlanError> {
        self.words
            .next()
            .ok_or_else(|| self.problem(&format!("{what} is missing at its end")))
    }

    fn end(mut self, part: Part) -> Result<Part, PlanError> {
        match self.words.next() {
            None => Ok(part),
            Some(word) => Err(self.problem(&format!("\"{word}\" is one word too many"))),
        }
    }

    fn problem(&self, problem: &str) -> PlanError {
        syntax(self.text, problem)
    }
}

/// "1.5ms" in whole nanoseconds; `None` if it is none, or they are not whole.
fn parse_duration(text: &str) -> Option<Nanos> {
    let (unit, nanoseconds) = DURATIONS.into_iter().find(|(unit, _)| text.ends_with(unit))?;
    let number = text.strip_suffix(unit)?.replace('_', "");
    let (whole, fraction) = number.split_once('.').unwrap_or((&number, ""));
    let digits = |text: &str| text.chars().all(|c| c.is_ascii_digit());
    if whole.is_empty() || !digits(whole) || !digits(fraction) {
        return None;
    }
    let whole = whole.parse::<u64>().ok()?.checked_mul(nanoseconds)?;
    if fraction.is_empty() {
        return Some(Nanos(whole));
    }
    let scale = 10u128.checked_pow(u32::try_from(fraction.len()).ok()?)?;
    let parts = fraction.parse::<u128>().ok()?.checked_mul(u128::from(nanoseconds))?;
    if parts % scale != 0 {
        return None;
    }
    whole.checked_add(u64::try_from(parts / scale).ok()?).map(Nanos)
}

fn syntax(part: &str, problem: &str) -> PlanError {
    PlanError::Syntax {
        part: part.to_owned(),
        problem: problem.to_owned(),
    }
}

/// A duration in the largest unit of which it is a whole number.
struct Duration(Nanos);

impl fmt::Display for Duration {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let nanoseconds = self.0.0;
        let order = ["h", "min", "s", "ms", "us", "ns"];
        let units = order
            .iter()
            .filter_map(|name| DURATIONS.iter().find(|(unit, _)| unit == name));
        let mut fitting = units.filter(|(_, length)| nanoseconds.is_multiple_of(*length));
        let (unit, length) = fitting.next().copied().unwrap_or(("ns", 1));
        write!(f, "{}{unit}", nanoseconds / length)
    }
}

impl fmt::Display for Part {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let rate_or_zero = |rate: Option<Rate>| rate.map_or_else(|| "0".to_owned(), |rate| rate.to_string());
        let lasting = match *self {
            Part::Constant { rate, duration } => {
                write!(f, "{rate}")?;
                return duration.map_or(Ok(()), |duration| write!(f, " {}", Duration(duration)));
            }
            Part::Ramp { from, to, duration } => {
                return write!(
                    f,
                    "ramp {}..{} {}",
                    rate_or_zero(from),
                    rate_or_zero(to),
                    Duration(duration)
                );
            }
            Part::Idle { duration } => return write!(f, "idle {}", Duration(duration)),
            Part::Burst {
                packets,
                at,
                every,
                duration,
            } => {
                write!(f, "burst {packets} packets")?;
                if let Some(rate) = at {
                    write!(f, " at {rate}")?;
                }
                write!(f, " every {}", Duration(every))?;
                duration
            }
            Part::OnOff {
                rate,
                on,
                off,
                duration,
            } => {
                write!(f, "on {rate} {} off {}", Duration(on), Duration(off))?;
                duration
            }
        };
        lasting.map_or(Ok(()), |duration| write!(f, " for {}", Duration(duration)))
    }
}

impl fmt::Display for Plan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (i, part) in self.parts.iter().enumerate() {
            write!(f, "{}{part}", if i > 0 { "; " } else { "" })?;
        }
        f.write_str(if self.repeats { "; repeat" } else { "" })
    }
}

impl TryFrom<String> for Plan {
    type Error = PlanError;

    fn try_from(text: String) -> Result<Self, PlanError> {
        text.parse()
    }
}

impl From<Plan> for String {
    fn from(plan: Plan) -> Self {
        plan.to_string()
    }
}

const PLAN_HELP: &str = "write \"1Mpps\", \"ramp 1Mpps..5Mpps 10s\", \"step 1Mpps 5s, 2Mpps 5s\", \
    \"burst 64 packets every 1ms\", \"on 1Mpps 100us off 900us\" or \"idle 1s\", joined by \";\", and \"; repeat\" last";
const DURATION_HELP: &str = "write 10s, 1.5ms, 100us, 2min, in whole nanoseconds";
/// In this order a unit is found before the one it ends with.
const DURATIONS: [(&str, u64); 7] = [
    ("ns", 1),
    ("µs", 1_000),
    ("us", 1_000),
    ("ms", 1_000_000),
    ("min", 60_000_000_000),
    ("s", 1_000_000_000),
    ("h", 3_600_000_000_000),
];
const UNITS: [&str; 8] = ["ns", "us", "ms", "s", "min", "h", "%", "µs"];

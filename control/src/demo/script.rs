//! What happens in the demo, and when.
//!
//! | part | what the sender does | what the operator does |
//! |---|---|---|
//! | room | all services, the wan port has room | |
//! | pause | nothing | narrows the wan port |
//! | congestion | all services, the wan port is the bottleneck | |
//! | pause | nothing | widens the wan port again |
//! | before | all services | |
//! | after | all services, without a pause | doubles one entitlement as it begins |
//! | bad file | all services, without a pause | loads a broken file as it begins |
//! | rest | nothing | |

use dataplane::clock::Nanos;

/// One part of the demo. The order is that of the sender's phases.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Part {
    /// Room for all.
    Room,
    /// The port is narrowed.
    Narrow,
    /// The port is the bottleneck.
    Congestion,
    /// The port is widened.
    Widen,
    /// As before, up to the reload.
    Before,
    /// With the raised entitlement.
    After,
    /// A broken file is refused.
    BadFile,
    /// What is under way arrives.
    Rest,
}

impl Part {
    /// All, in order; the position is the sender's phase number.
    pub const ALL: [Part; 8] = [
        Part::Room,
        Part::Narrow,
        Part::Congestion,
        Part::Widen,
        Part::Before,
        Part::After,
        Part::BadFile,
        Part::Rest,
    ];

    /// The sender's phase number.
    #[must_use]
    pub fn phase(self) -> u8 {
        self as u8
    }

    /// Whether services send in it.
    #[must_use]
    pub fn sends(self) -> bool {
        !matches!(self, Part::Narrow | Part::Widen | Part::Rest)
    }

    /// Heading for people.
    #[must_use]
    pub fn title(self) -> &'static str {
        match self {
            Part::Room => "1. room for all: excess is marked and passes",
            Part::Narrow => "the uplink is narrowed to 100 Mbit/s",
            Part::Congestion => "2. congestion: excess goes last and is what gets lost",
            Part::Widen => "the uplink is widened again",
            Part::Before => "3. the entitlement of `ads` is about to be doubled",
            Part::After => "3. the entitlement of `ads` has been doubled under load",
            Part::BadFile => "4. a broken file was refused: nothing changes",
            Part::Rest => "what is under way arrives",
        }
    }

    /// Name in JSON.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Part::Room => "room",
            Part::Narrow => "narrow",
            Part::Congestion => "congestion",
            Part::Widen => "widen",
            Part::Before => "before_raise",
            Part::After => "after_raise",
            Part::BadFile => "bad_file",
            Part::Rest => "rest",
        }
    }
}

/// When each part begins, and when the last ends.
#[derive(Clone, Debug)]
pub struct Script {
    begins: [Nanos; Part::ALL.len() + 1],
}

impl Script {
    /// A script of `seconds` of traffic and pauses (at least 5), from `start`.
    #[must_use]
    pub fn new(start: Nanos, seconds: f64) -> Self {
        // Long enough for rings to run empty and for a reload.
        const PAUSE: f64 = 0.5;
        let sending = (seconds.max(5.0) - 3.0 * PAUSE).max(1.0);
        let share = |part: Part| match part {
            Part::Room => 0.25 * sending,
            Part::Congestion => 0.35 * sending,
            Part::Before | Part::After => 0.15 * sending,
            Part::BadFile => 0.1 * sending,
            Part::Narrow | Part::Widen | Part::Rest => PAUSE,
        };
        let mut begins = [start; Part::ALL.len() + 1];
        for (number, part) in Part::ALL.into_iter().enumerate() {
            begins[number + 1] = begins[number].plus(Nanos((share(part) * 1e9) as u64));
        }
        Self { begins }
    }

    /// When `part` begins.
    #[must_use]
    pub fn begin(&self, part: Part) -> Nanos {
        self.begins[usize::from(part.phase())]
    }

    /// When `part` ends.
    #[must_use]
    pub fn end(&self, part: Part) -> Nanos {
        self.begins[usize::from(part.phase()) + 1]
    }

    /// How long `part` takes, in seconds.
    #[must_use]
    pub fn seconds(&self, part: Part) -> f64 {
        self.end(part).since(self.begin(part)).0 as f64 / 1e9
    }
}

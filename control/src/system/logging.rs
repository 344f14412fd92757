//! Where the log goes, in what form, and how often the same thing is said.
//!
//! | wish | where | form |
//! |---|---|---|
//! | none, stderr is the journal's (`JOURNAL_STREAM`) | journald's own socket | fields `WEIR_EVENT`, `WEIR_PORT` ... |
//! | none, or `text` | stderr | `INFO` and the message |
//! | `json` | stderr | one object a line: `timestamp`, `level`, `fields` |
//!
//! Fields of weir's messages: `event` (what kind of thing happened), `port`, `queue`, `worker`, `generation`, `version`,
//! `reason`. Nothing of a packet is ever logged, and no worker logs while it turns.

use std::collections::HashMap;
use std::fmt::{self, Write as _};
use std::fs::File;
use std::io::IsTerminal;
use std::os::fd::AsFd;
use std::os::unix::fs::MetadataExt;
use std::time::{Duration, Instant};

use clap::ValueEnum;
use parking_lot::Mutex;
use tracing::field::{Field, Visit};
use tracing::level_filters::LevelFilter;
use tracing::{Event, Subscriber};
use tracing_subscriber::Layer;
use tracing_subscriber::fmt::format;
use tracing_subscriber::layer::{Context, SubscriberExt as _};
use tracing_subscriber::util::SubscriberInitExt as _;

/// A form of the log on stderr.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Format {
    /// Lines for people.
    Text,
    /// One JSON object a line.
    Json,
}

/// The least important message that is still logged.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum Level {
    /// What went wrong.
    Error,
    /// And what may go wrong.
    Warn,
    /// And what happened.
    #[default]
    Info,
    /// And what only a developer wants to know.
    Debug,
    /// Everything.
    Trace,
}

impl From<Level> for LevelFilter {
    fn from(level: Level) -> Self {
        match level {
            Level::Error => LevelFilter::ERROR,
            Level::Warn => LevelFilter::WARN,
            Level::Info => LevelFilter::INFO,
            Level::Debug => LevelFilter::DEBUG,
            Level::Trace => LevelFilter::TRACE,
        }
    }
}

/// Begins logging, for the life of the process. `format` overrides journald.
pub fn begin(format: Option<Format>, level: Level) {
    let registry = tracing_subscriber::registry()
        .with(LevelFilter::from(level))
        .with(Limit);
    let journal = || {
        let layer = tracing_journald::layer().ok()?;
        Some(
            layer
                .with_field_prefix(Some("WEIR".to_owned()))
                .with_syslog_identifier("weir".to_owned()),
        )
    };
    let journal = if format.is_none() && stderr_is_the_journal() {
        journal()
    } else {
        None
    };
    let stderr = tracing_subscriber::fmt::layer()
        .with_writer(std::io::stderr)
        .with_target(false);
    // Beginning twice is the only failure, and then a log is there already.
    let _begun = match (journal, format) {
        (Some(journal), _) => registry.with(journal).try_init(),
        (None, Some(Format::Json)) => registry.with(stderr.json()).try_init(),
        (None, _) => {
            let colour = std::io::stderr().is_terminal() && std::env::var_os("NO_COLOR").is_none();
            registry
                .with(stderr.with_ansi(colour).fmt_fields(format::debug_fn(only_message)))
                .try_init()
        }
    };
}

/// The message says it all; its fields are for programs.
fn only_message(writer: &mut format::Writer<'_>, field: &Field, value: &dyn fmt::Debug) -> fmt::Result {
    if field.name() == "message" {
        write!(writer, "{value:?}")
    } else {
        Ok(())
    }
}

/// Whether stderr leads to journald, as systemd says in `JOURNAL_STREAM` (device and inode).
fn stderr_is_the_journal() -> bool {
    let Ok(stream) = std::env::var("JOURNAL_STREAM") else {
        return false;
    };
    let stderr = std::io::stderr().as_fd().try_clone_to_owned().map(File::from);
    let found = stderr.and_then(|file| file.metadata());
    found.is_ok_and(|found| stream == format!("{}:{}", found.dev(), found.ino()))
}

/// The same text from the same place this often in [`WINDOW`] is news; more is noise.
const SAME: u32 = 5;
/// So much may one place say in [`WINDOW`], whatever the text: a check of a long configuration says some dozens.
const PLACE: u32 = 200;
/// After this long everything is news again.
const WINDOW: Duration = Duration::from_secs(10);

/// What was said lately.
static SAID: Mutex<Option<Said>> = Mutex::new(None);

/// A layer that keeps back what is said too often; [`tell_kept_back`] tells how much.
struct Limit;

impl<S: Subscriber> Layer<S> for Limit {
    fn event_enabled(&self, event: &Event<'_>, _: Context<'_, S>) -> bool {
        let mut text = Text::default();
        event.record(&mut text);
        let place = event.metadata().name();
        SAID.lock()
            .get_or_insert_with(|| Said::new(Instant::now()))
            .is_news(place, text.0)
    }
}

/// To be called now and then: at the end of a window says what was kept back in it.
pub fn tell_kept_back() {
    let kept_back = match &mut *SAID.lock() {
        Some(said) => said.end_window(Instant::now()),
        None => return,
    };
    for (text, times) in kept_back {
        tracing::warn!(
            event = "repeated",
            times,
            "said {times} times more, and kept back: {text}"
        );
    }
}

/// The message of an event.
#[derive(Default)]
struct Text(String);

impl Visit for Text {
    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        if field.name() == "message" {
            // Writing to a String cannot fail.
            let _ok = write!(self.0, "{value:?}");
        }
    }
}

struct Said {
    begun: Instant,
    texts: HashMap<String, u32>,
    places: HashMap<&'static str, u32>,
}

impl Said {
    fn new(begun: Instant) -> Self {
        Self {
            begun,
            texts: HashMap::new(),
            places: HashMap::new(),
        }
    }

    /// At most [`PLACE`] texts a place are remembered, so this is bounded by the messages that weir has.
    fn is_news(&mut self, place: &'static str, text: String) -> bool {
        let from_here = self.places.entry(place).or_default();
        *from_here += 1;
        if *from_here > PLACE {
            return false;
        }
        let times = self.texts.entry(text).or_default();
        *times += 1;
        *times <= SAME
    }

    /// What was kept back in the window, if it is over: text, or place, and how many times.
    fn end_window(&mut self, now: Instant) -> Vec<(String, u32)> {
        if now.saturating_duration_since(self.begun) < WINDOW {
            return Vec::new();
        }
        let over = std::mem::replace(self, Self::new(now));
        let texts = over.texts.into_iter().filter(|(_, times)| *times > SAME);
        let mut kept_back: Vec<_> = texts.map(|(text, times)| (text, times - SAME)).collect();
        let places = over.places.into_iter().filter(|(_, times)| *times > PLACE);
        kept_back.extend(places.map(|(place, times)| (format!("others from {place}"), times - PLACE)));
        kept_back.sort();
        kept_back
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    #[test]
    fn what_repeats_is_kept_back_and_counted() {
        let start = Instant::now();
        let mut said = Said::new(start);
        let news = (0..1000).filter(|_| said.is_news("here", "the same".into())).count();
        assert_eq!(news, 5);
        assert!(!said.is_news("here", "another, after too many".into()));
        assert!(said.is_news("elsewhere", "another".into()));
        assert!(said.end_window(start + Duration::from_secs(9)).is_empty());
        let kept_back = said.end_window(start + WINDOW);
        assert_eq!(kept_back, [("others from here".into(), 801), ("the same".into(), 195)]);
        assert!(said.is_news("here", "the same".into()), "a new window");
        assert!(said.end_window(start + 2 * WINDOW).is_empty());
    }

    #[test]
    fn different_texts_are_not_repetition() {
        let mut said = Said::new(Instant::now());
        assert!((0..200).all(|number| said.is_news("check", format!("contract {number}"))));
        assert!(!said.is_news("check", "one too many".into()));
    }

    /// Beginnings of the calls that log something, in all files below a directory.
    fn calls(directory: &Path) -> Vec<String> {
        let mut found = Vec::new();
        for entry in std::fs::read_dir(directory).expect("sources") {
            let path = entry.expect("an entry").path();
            if path.is_dir() {
                found.extend(calls(&path));
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                let text = std::fs::read_to_string(&path).expect("a source");
                for level in ["error", "warn", "info", "debug", "trace"] {
                    let call = format!("tracing::{level}{}", "!(");
                    let after = text.split(&call).skip(1);
                    found.extend(after.map(|rest| rest.trim_start().chars().take(60).collect::<String>()));
                }
            }
        }
        found
    }

    #[test]
    fn every_message_says_what_kind_of_event_it_is_and_the_documents_know_it() {
        let package = Path::new(env!("CARGO_MANIFEST_DIR"));
        let documents = std::fs::read_to_string(package.join("../docs/INSTALL.md")).expect("the document");
        let calls = calls(&package.join("src"));
        assert!(calls.len() > 30, "{calls:?}");
        for call in calls {
            let event = call.strip_prefix("event = \"").and_then(|rest| rest.split('"').next());
            let event = event.unwrap_or_else(|| panic!("no event: {call}"));
            assert!(
                documents.contains(&format!("`{event}`")),
                "{event} is not in docs/INSTALL.md"
            );
        }
    }
}

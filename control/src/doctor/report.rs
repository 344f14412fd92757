//! What was found, as JSON and as text of at most 100 columns.

use std::fmt::Write;

use serde::{Deserialize, Serialize};

use crate::wrap::{WIDTH, wrap};

/// How bad it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Level {
    /// As it should be.
    Ok,
    /// Worth knowing: could not be read, or could be better where it matters.
    Note,
    /// weir runs, but packets may be lost, late, or seen differently from what is expected.
    Warning,
    /// weir does not start, or does not do what the configuration says.
    Error,
}

impl Level {
    /// `ok`, `note`, `warning` or `error`.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Level::Ok => "ok",
            Level::Note => "note",
            Level::Warning => "warning",
            Level::Error => "error",
        }
    }
}

/// One thing that was looked at.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Finding {
    /// How bad it is.
    pub level: Level,
    /// Of what: `configuration`, `system`, `machine`, or `port NAME`.
    pub about: String,
    /// What was looked at, in snake_case: stable, for scripts.
    pub check: String,
    /// What was found.
    pub found: String,
    /// Why it matters; empty where all is well.
    pub why: String,
    /// A command, or what else to do.
    pub remedy: Option<String>,
}

/// All findings.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Findings {
    /// In the order in which they were looked for.
    pub findings: Vec<Finding>,
}

impl Findings {
    pub(super) fn ok(&mut self, about: &str, check: &str, found: impl Into<String>) {
        self.add(Level::Ok, about, check, found, "", None);
    }

    pub(super) fn add(
        &mut self,
        level: Level,
        about: &str,
        check: &str,
        found: impl Into<String>,
        why: &str,
        remedy: Option<String>,
    ) {
        self.findings.push(Finding {
            level,
            about: about.to_owned(),
            check: check.to_owned(),
            found: found.into(),
            why: why.to_owned(),
            remedy,
        });
    }

    /// The worst of them.
    #[must_use]
    pub fn worst(&self) -> Level {
        self.findings
            .iter()
            .map(|finding| finding.level)
            .max()
            .unwrap_or(Level::Ok)
    }

    /// How many are of this level.
    #[must_use]
    pub fn count(&self, level: Level) -> usize {
        self.findings.iter().filter(|finding| finding.level == level).count()
    }

    /// The finding of a check.
    #[must_use]
    pub fn of(&self, about: &str, check: &str) -> Option<&Finding> {
        self.findings
            .iter()
            .find(|finding| finding.about == about && finding.check == check)
    }

    /// Tables by what they are about; with `colour`, levels are coloured.
    #[must_use]
    pub fn to_text(&self, colour: bool) -> String {
        let mut text = String::new();
        // Writing to a String cannot fail.
        let _ok = self.write(&mut text, colour);
        text
    }

    fn write(&self, out: &mut String, colour: bool) -> std::fmt::Result {
        let mut about = "";
        for finding in &self.findings {
            if finding.about != about {
                writeln!(out, "{}{}", if about.is_empty() { "" } else { "\n" }, finding.about)?;
                about = &finding.about;
            }
            let name = finding.level.name();
            let (on, off) = match finding.level {
                _ if !colour => ("", ""),
                Level::Ok => ("\x1b[32m", "\x1b[0m"),
                Level::Note => ("\x1b[36m", "\x1b[0m"),
                Level::Warning => ("\x1b[33m", "\x1b[0m"),
                Level::Error => ("\x1b[31m", "\x1b[0m"),
            };
            let head = format!("{}: {}", finding.check.replace('_', " "), finding.found);
            write_folded(out, &format!("  {on}{name:<7}{off}  "), &head, "           ")?;
            if !finding.why.is_empty() {
                write_folded(out, "           ", &finding.why, "           ")?;
            }
            if let Some(remedy) = &finding.remedy {
                write_folded(out, "           help: ", remedy, "                 ")?;
            }
        }
        let [errors, warnings, notes] = [Level::Error, Level::Warning, Level::Note].map(|level| self.count(level));
        writeln!(
            out,
            "\n{} checks: {errors} errors, {warnings} warnings, {notes} notes",
            self.findings.len()
        )
    }
}

/// Writes words in lines of at most 100 columns; the first begins with `first`, the others with `next`, which is as wide.
fn write_folded(out: &mut String, first: &str, text: &str, next: &str) -> std::fmt::Result {
    let room = WIDTH - next.chars().count();
    let lines = wrap(text, room, room);
    writeln!(out, "{first}{}", lines.join(&format!("\n{next}")))
}

//! An explanation for people: a reason a line, the place behind it, at most 100 columns.

use std::fmt::Write;

use super::report::{Explanation, Step};
use crate::wrap::{WIDTH, wrap};

const INDENT: usize = 10;

/// The chain of reasons.
#[must_use]
pub fn text(explanation: &Explanation) -> String {
    let mut out = String::new();
    if let Some(number) = explanation.number {
        let at = explanation.at.as_deref().unwrap_or_default();
        // Writing to a String cannot fail, here and below.
        let _ok = writeln!(out, "packet {number} at {at}");
    }
    let mut before = "";
    for step in &explanation.steps {
        let topic = if step.topic == before { "" } else { &step.topic };
        before = &step.topic;
        for (number, line) in wrapped(step).iter().enumerate() {
            let topic = if number == 0 { topic } else { "" };
            let _ok = writeln!(out, "{topic:<INDENT$}{line}");
        }
    }
    out
}

/// Its text with the place behind it, in lines; those after the first stand a little to the right.
fn wrapped(step: &Step) -> Vec<String> {
    let mut text = step.text.clone();
    if let (Some(file), Some(line)) = (&step.file, step.line) {
        text += &format!(" ({file}:{line})");
    }
    let room = WIDTH - INDENT;
    let mut lines = wrap(&text, room, room - 2);
    lines.iter_mut().skip(1).for_each(|line| line.insert_str(0, "  "));
    lines
}

//! An explanation for people: a reason a line, the place behind it, at most 100 columns.

use std::fmt::Write;

use super::report::{Explanation, Step};

const WIDTH: usize = 100;
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

/// Its text with the place, cut into lines between words. A word longer than a line stays whole: a place must be found.
fn wrapped(step: &Step) -> Vec<String> {
    let mut text = step.text.clone();
    if let (Some(file), Some(line)) = (&step.file, step.line) {
        text += &format!(" ({file}:{line})");
    }
    let mut lines: Vec<String> = Vec::new();
    for word in text.split(' ') {
        match lines.last_mut() {
            Some(line) if line.chars().count() + word.chars().count() < WIDTH - INDENT => {
                line.push(' ');
                line.push_str(word);
            }
            Some(_) => lines.push(format!("  {word}")),
            None => lines.push(word.to_owned()),
        }
    }
    lines
}

//! `pktgen profiles`: what there is, and where it comes from.

use std::process::ExitCode;

use pktgen::profile::Profile;

use super::Done;
use super::output::say;

#[derive(clap::Args)]
pub(super) struct Profiles {
    /// Print JSON
    #[arg(long)]
    json: bool,
}

impl Profiles {
    pub(super) fn run(&self) -> Done {
        let all: Vec<_> = Profile::list().collect();
        if self.json {
            say(serde_json::to_string_pretty(&all)?);
        } else {
            for entry in &all {
                say(entry.name);
                for line in wrapped(entry.description)
                    .into_iter()
                    .chain(wrapped(&format!("from {}", entry.source)))
                {
                    say(format_args!("    {line}"));
                }
            }
        }
        Ok(ExitCode::SUCCESS)
    }
}

/// Lines of at most 92 characters, broken between words.
fn wrapped(text: &str) -> Vec<String> {
    let mut lines: Vec<String> = Vec::new();
    for word in text.split_whitespace() {
        match lines.last_mut() {
            Some(line) if line.chars().count() + 1 + word.chars().count() <= 92 => {
                line.push(' ');
                line.push_str(word);
            }
            _ => lines.push(word.to_owned()),
        }
    }
    lines
}

//! `pktgen profiles`: what there is, and where it comes from.

use std::process::ExitCode;

use pktgen::profile::Profile;

use super::Done;

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
            println!("{}", serde_json::to_string_pretty(&all)?);
        } else {
            for entry in &all {
                println!(
                    "{:<16} {}\n{:<16}   from {}",
                    entry.name, entry.description, "", entry.source
                );
            }
        }
        Ok(ExitCode::SUCCESS)
    }
}

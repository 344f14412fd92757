//! `weir show`: a page about one thing.

use std::path::PathBuf;
use std::process::ExitCode;

use clap::builder::PossibleValuesParser;
use clap::builder::TypedValueParser as _;
use control::show::Kind;
use control::socket::{self, Request, Response};

use super::{ask, print_json, print_text, unexpected};

#[derive(clap::Args)]
pub(crate) struct Show {
    /// What to show.
    #[arg(value_name = "WHAT", value_parser = kinds())]
    kind: Kind,
    /// Its name; a contract is `service/class/direction[/segment]`, or the beginning of that [default: a table of all]
    #[arg(value_name = "NAME")]
    name: Option<String>,
    /// Print JSON.
    #[arg(long)]
    json: bool,
    /// Where the appliance listens.
    #[arg(long, value_name = "PATH", default_value = socket::DEFAULT_PATH)]
    socket: PathBuf,
}

fn kinds() -> impl clap::builder::TypedValueParser<Value = Kind> {
    let words = Kind::ALL.map(Kind::word);
    PossibleValuesParser::new(words).map(|word| {
        let found = Kind::ALL.into_iter().find(|kind| kind.word() == word);
        found.unwrap_or(Kind::Contract)
    })
}

pub(crate) fn show(options: &Show) -> ExitCode {
    let request = Request::Show {
        kind: options.kind,
        name: options.name.clone(),
    };
    match ask(&options.socket, &request) {
        Ok(Response::Shown(shown)) if options.json => print_json(&shown),
        Ok(Response::Shown(shown)) => print_text(&shown.to_text(options.name.is_some())),
        Ok(other) => unexpected(&other),
        Err(failed) => failed,
    }
}

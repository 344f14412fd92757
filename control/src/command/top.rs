//! `weir top`.

use std::io::IsTerminal;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use control::socket;
use control::top::plain::{self, PlainError};
use control::top::selection::{ROWS_MAX, TopWish};
use control::top::table::{Column, Sort};
use control::top::{TopOptions, terminal};

use super::fail;

#[derive(clap::Args)]
pub(crate) struct Top {
    /// Seconds between two looks.
    #[arg(long, value_name = "SECONDS", default_value = "1", value_parser = interval)]
    interval: Duration,
    /// Column to sort by at the start.
    #[arg(long, value_name = "COLUMN", default_value = "offered",
        value_parser = ["service", "class", "dir", "entitled", "offered", "conforming", "excess", "dropped"])]
    sort: String,
    /// Turn the order round.
    #[arg(long)]
    reverse: bool,
    /// Only contracts whose service, class or segment holds this text.
    #[arg(long, value_name = "TEXT", default_value = "")]
    filter: String,
    /// Only this direction.
    #[arg(long, value_parser = ["egress", "ingress"])]
    direction: Option<String>,
    /// Only this class.
    #[arg(long, value_name = "CLASS")]
    class: Option<String>,
    /// Contracts at most: of more that match, those with most traffic.
    #[arg(long, value_name = "N", default_value_t = 1000, value_parser = rows)]
    rows: usize,
    /// Print a JSON object for every interval instead of a screen.
    #[arg(long)]
    json: bool,
    /// JSON objects to print; without it, until the reader goes.
    #[arg(long, value_name = "N", requires = "json", value_parser = clap::value_parser!(u64).range(1..))]
    count: Option<u64>,
    /// Where the appliance listens.
    #[arg(long, value_name = "PATH", default_value = socket::DEFAULT_PATH)]
    socket: PathBuf,
}

pub(crate) fn top(wanted: Top) -> ExitCode {
    let mut sort = Column::from_name(&wanted.sort).map(Sort::by).unwrap_or_default();
    sort.descending ^= wanted.reverse;
    let options = TopOptions {
        socket: wanted.socket,
        interval: wanted.interval,
        sort,
        wish: TopWish {
            rows: wanted.rows,
            text: wanted.filter,
            direction: wanted.direction,
            class: wanted.class,
        },
    };
    let mut out = std::io::stdout();
    let printed = if wanted.json {
        plain::json(&options, wanted.count, &mut out)
    } else if out.is_terminal() {
        return match terminal::show(&options) {
            Ok(()) => ExitCode::SUCCESS,
            Err(error) => fail(&format!("the terminal cannot be used: {error}"), None, 1),
        };
    } else {
        let seconds = options.interval.as_secs_f64();
        eprintln!("weir: standard output is no terminal: one table of the rates over {seconds} s (--json goes on)");
        plain::table(&options, &mut out)
    };
    match printed {
        // The reader may have gone (`| head`): nothing to say to them then.
        Ok(()) | Err(PlainError::Write(_)) => ExitCode::SUCCESS,
        Err(error) => {
            let remedy = "is `weir run` running, with this --socket, and may you open it (root)?";
            fail(&error, Some(remedy), 1)
        }
    }
}

fn interval(text: &str) -> Result<Duration, String> {
    match text.parse() {
        Ok(seconds) if (0.1..=3600.0).contains(&seconds) => Ok(Duration::from_secs_f64(seconds)),
        _ => Err("write seconds, 0.1 to 3600".to_owned()),
    }
}

fn rows(text: &str) -> Result<usize, String> {
    match text.parse() {
        Ok(rows) if (1..=ROWS_MAX).contains(&rows) => Ok(rows),
        _ => Err(format!("write a number from 1 to {ROWS_MAX}")),
    }
}

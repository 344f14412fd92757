//! `weir top` without a screen: one table, or a JSON object for every interval.

use std::io::{self, Write};
use std::time::Instant;

use jiff::Timestamp;
use serde::Serialize;

use super::TopOptions;
use super::board::{Board, PortRow, Rates, Row};
use super::draw::{alarms, notices, port_line, totals};
use super::table::Layout;
use super::view::View;

/// Width of the table.
const WIDTH: usize = 100;

/// What `--json` prints, one line for each interval.
#[derive(Serialize)]
struct Object<'b> {
    at: String,
    interval_seconds: Option<f64>,
    uptime_seconds: f64,
    generation: u64,
    contracts_in_all: usize,
    contracts_matching: usize,
    unaccounted: i64,
    totals: Option<Rates>,
    alarms: Vec<String>,
    notices: Vec<String>,
    ports: &'b [PortRow],
    rows: Vec<&'b Row>,
}

/// Why it ended early.
#[derive(Debug, thiserror::Error)]
pub enum PlainError {
    /// Nobody answers.
    #[error("no answer at {path}: {cause}")]
    Silent {
        /// The socket.
        path: std::path::PathBuf,
        /// What happened.
        cause: String,
    },
    /// The reader has gone.
    #[error(transparent)]
    Write(#[from] io::Error),
}

/// Prints the rates of one interval as a table.
///
/// # Errors
/// See [`PlainError`].
pub fn table(options: &TopOptions, out: &mut impl Write) -> Result<(), PlainError> {
    let mut board = Board::default();
    take(options, &mut board)?;
    std::thread::sleep(options.interval);
    take(options, &mut board)?;
    write!(out, "{}", text(&board, options))?;
    Ok(())
}

/// The table as text.
fn text(board: &Board, options: &TopOptions) -> String {
    let layout = Layout::new(WIDTH);
    let Some(top) = &board.status else { return String::new() };
    let view = View::new(options.sort, options.wish.clone());
    let mut lines = vec![format!(
        "weir {}, region {}, table {}, rates over {:.2} s",
        top.status.version,
        top.status.region,
        top.status.generation,
        board.interval.unwrap_or(0.0)
    )];
    lines.push(totals(board, WIDTH));
    lines.extend(alarms(&top.status));
    lines.extend(notices(&top.status));
    lines.extend(board.ports.iter().map(|port| port_line(port, WIDTH, true)));
    lines.push(String::new());
    lines.push(layout.titles(options.sort, true));
    for row in view.rows(board) {
        let cells: Vec<String> = layout.cells(row, true).into_iter().map(|(_, cell)| cell).collect();
        lines.push(cells.join(" "));
    }
    let lines = lines
        .iter()
        .map(|line| crate::status::cut(line.trim_end(), WIDTH) + "\n");
    lines.collect()
}

/// Prints `count` JSON objects, or until the reader goes. While nobody answers an object with `error` comes instead.
///
/// # Errors
/// Nobody answers at the beginning, or the reader has gone.
pub fn json(options: &TopOptions, count: Option<u64>, out: &mut impl Write) -> Result<(), PlainError> {
    let mut board = Board::default();
    take(options, &mut board)?;
    let mut printed = 0;
    let mut due = Instant::now();
    while count.is_none_or(|count| printed < count) {
        due += options.interval;
        std::thread::sleep(due.saturating_duration_since(Instant::now()));
        match take(options, &mut board) {
            Ok(()) => serde_json::to_writer(&mut *out, &object(&board, options)).map_err(io::Error::from)?,
            Err(error) => {
                let silent = serde_json::json!({ "at": Timestamp::now().to_string(), "error": error.to_string() });
                serde_json::to_writer(&mut *out, &silent).map_err(io::Error::from)?;
            }
        }
        writeln!(out)?;
        out.flush()?;
        printed += 1;
    }
    Ok(())
}

fn object<'b>(board: &'b Board, options: &TopOptions) -> Option<Object<'b>> {
    let top = board.status.as_ref()?;
    Some(Object {
        at: Timestamp::now().to_string(),
        interval_seconds: board.interval,
        uptime_seconds: top.status.uptime_seconds,
        generation: top.status.generation,
        contracts_in_all: top.contracts_in_all,
        contracts_matching: top.contracts_matching,
        unaccounted: top.status.unaccounted(),
        totals: board.totals(),
        alarms: alarms(&top.status),
        notices: notices(&top.status),
        ports: &board.ports,
        rows: View::new(options.sort, options.wish.clone()).rows(board),
    })
}

fn take(options: &TopOptions, board: &mut Board) -> Result<(), PlainError> {
    let answer = super::ask(&options.socket, options.wish.clone());
    board.take(answer.map_err(|cause| PlainError::Silent {
        path: options.socket.clone(),
        cause,
    })?);
    Ok(())
}

//! `weir top`: what the gateway does now, on a terminal.
//!
//! ```text
//! appliance ── TopStatus, once a second ─► board (rates) ─► table (columns, order) ─► draw, plain, JSON
//!     ▲                                                        ▲
//!     └─────────────── TopWish (filter, how many) ── view ◄── keys
//! ```
//!
//! It owns the screen and no fact: all figures are differences of the counters that `weir status` prints. The appliance
//! sends only the contracts that a screen has use for ([`selection`]), so a hundred thousand of them cost neither side much.

pub mod board;
mod detail;
pub mod draw;
pub mod plain;
pub mod selection;
pub mod table;
pub mod terminal;
pub mod view;

use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::socket::{self, Request, Response};
use selection::{TopStatus, TopWish};
use table::Sort;

/// What `weir top` is asked to do.
#[derive(Clone, Debug)]
pub struct TopOptions {
    /// Where the appliance listens.
    pub socket: PathBuf,
    /// Time between two answers.
    pub interval: Duration,
    /// Order at the start.
    pub sort: Sort,
    /// Filter at the start, and how many contracts at most.
    pub wish: TopWish,
}

/// Asks the appliance; an error is a sentence for the screen.
fn ask(socket: &Path, wish: TopWish) -> Result<TopStatus, String> {
    match socket::ask(socket, &Request::Top { wish }) {
        Ok(Response::Top(top)) => Ok(*top),
        Ok(Response::Invalid { reason } | Response::Failed { reason } | Response::Refused { reason }) => Err(reason),
        Ok(_) => Err("an answer of another kind came: are both of the same version?".to_owned()),
        Err(error) => Err(error.to_string()),
    }
}

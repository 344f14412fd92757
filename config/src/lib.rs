//! What an operator writes, read and checked: the TOML keys, the units, the rules, and the messages about them.
//!
//! ```text
//! weir.toml, contracts.d/*.toml ─► load ─► spanned tables ─► check ─► Config (only ever a checked one)
//!                                                            └──────► Report (every error at once, with its place)
//! ```
//!
//! It owns the meaning of the keys and nothing of what happens to packets: it opens no socket and knows no worker. It
//! runs on the control thread.
//!
//! - [`load()`], [`load_texts`], [`Texts`]: from files or texts to a [`Loaded`] or a [`Report`]
//! - [`types`]: the checked configuration
//! - [`units`]: rates, bursts and shares; no rounding
//! - [`json_schema`]: the JSON Schema (draft 07) of a file
#![deny(unsafe_code)]

mod check;
mod diagnostic;
mod document;
mod dscp;
mod endpoint;
mod load;
mod plain;
mod schema;
mod table;
pub mod types;
pub mod units;

pub use diagnostic::{Diagnostic, Related, Report, Severity};
pub use dscp::{dscp_from_name, dscp_name};
pub use load::{Loaded, Texts, config_paths, load, load_texts};
pub use schema::json_schema;
pub use table::nearest;
pub use types::*;

//! Changing what runs: compare, apply, confirm or go back, and remember.
//!
//! ```text
//!                    ┌──────────────── weir plan (its own process) ───────────────┐
//!  files on disk ──► texts ─► config ─┬─► diff ─► findings ─► estimate ─► words or JSON
//!        │                            │                          ▲
//!        │ once a second              └── the appliance's texts ─┤ samples, once a second
//!        ▼                                                       │
//!      disk ─► log, status      changes ─► appliance (swap) ─► history (one file per version)
//!                                  ▲ └─ trial: confirmed, or back by itself
//!                                  └── apply, confirm, rollback, reload: the control socket, SIGHUP
//! ```
//!
//! Everything here runs on the control thread, but for [`plan`], [`mod@diff`], [`findings`], [`estimate`] and [`words`], which run
//! in the process of `weir plan`: comparing a hundred thousand contracts must not keep the appliance from its house.
//!
//! - [`changes`]: owns what is applied, what is on trial and what the disk says; the only one that swaps on demand
//! - [`messages`]: what the commands and the appliance say to each other
//! - [`mod@diff`], [`fields`]: two configurations, and what is different in words
//! - [`findings`]: what is valid and may still not be meant
//! - [`samples`], [`estimate`]: traffic of the last minute, judged by both entitlements
//! - [`history`]: versions on disk
//! - [`trial`]: a version that goes back by itself
//! - [`disk`]: files that changed and nobody applied
//! - [`plan`], [`words`]: the command `weir plan`

pub mod changes;
pub mod diff;
pub mod disk;
pub mod estimate;
pub mod fields;
pub mod findings;
pub mod history;
pub mod messages;
pub mod plan;
pub mod samples;
pub mod trial;
pub mod words;

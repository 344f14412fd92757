//! The control side of weir: everything that is not a packet.
//!
//! ```text
//!  weir.toml ─► config::load ─► compile ─► publish ─► workers (dataplane)
//!                                                        │ counters, ledgers
//!  weir status ◄─ socket ◄─ appliance ◄─ report ◄────────┘
//!  weir replay: the same compile and the same workers, on a capture instead of sockets
//!  weir demo:   a virtual network around a real `weir run`, and a verdict
//!  weir bench:  a virtual lab around an appliance, and a report
//! ```
//!
//! - [`compile`]: contracts to a table, the one place where text becomes what workers run
//! - [`publish`]: one pointer, swapped whole, and what is not yet let go
//! - [`plan`], [`interface`]: which worker owns what, and interfaces made ready and put back
//! - [`appliance`]: all of that from start to stop; [`run`]: signals, reloads, housekeeping
//! - [`mod@change`]: `plan`, `apply`, `confirm`, `rollback`, `history`, and files that changed
//! - [`system`]: the service manager, the log, and what weir may still do after its start
//! - [`socket`], [`status`], [`report`]: what weir tells about itself; [`observe`], [`alarms`]: the last minute of it, and what is
//!   not as it should be; [`show`]: a page about one thing
//! - [`top`]: the terminal screen of `weir top`
//! - [`explain`]: why a packet gets the verdict it gets
//! - [`capture`]: packets of the running appliance, as pcapng
//! - [`doctor`]: what of the machine stands in weir's way
//! - [`bundle`]: what a support engineer asks for, in one file
//! - [`api`], [`metrics`], [`events`]: the same over HTTP, for monitoring
//! - [`replay`]: captures in and out (the reader is pktgen's)
//! - [`demo`]: a virtual network around a real `weir run`
//! - [`mod@bench`]: what a gateway with these contracts does on this machine
#![deny(unsafe_code)]

pub mod alarms;
pub mod api;
pub mod appliance;
pub mod bench;
pub mod bundle;
pub mod capture;
pub mod change;
pub mod compile;
pub mod demo;
pub mod doctor;
pub mod events;
pub mod explain;
pub mod interface;
pub mod levels;
pub mod metrics;
pub mod observe;
pub mod plan;
pub mod port_fault;
pub mod publish;
pub mod replay;
pub mod report;
pub mod run;
pub mod show;
pub mod socket;
pub mod status;
pub mod system;
pub mod top;
mod wrap;

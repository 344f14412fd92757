//! How weir lives in the system: what it tells the service manager, what it may do, where its log goes.
//!
//! - [`notify`]: readiness, reloads, status and the watchdog, told to systemd
//! - [`privileges`]: the capabilities and system calls that are left after the start
//! - [`logging`]: journald, text or JSON, without repetition
//! - [`group`]: who besides root may open the sockets

pub mod group;
pub mod logging;
pub mod notify;
pub mod privileges;

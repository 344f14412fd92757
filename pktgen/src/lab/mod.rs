//! A virtual lab that leaves no traces: anonymous network namespaces, joined by veth pairs.
//!
//! ```text
//!   Namespace "hosts"              Namespace "gateway"             Namespace "internet"
//!     thread, child  ── veth ──   site port    wan port  ── veth ──   thread, child
//! ```
//!
//! A namespace has no name and no bind mount: one descriptor, held by [`Namespace`], keeps it. When the process ends, by
//! whatever means, the kernel closes the descriptor, removes the namespace, and with it every veth whose end lies
//! inside. There is nothing to clean up after `kill -9`.
//!
//! Only threads move into a namespace, never the caller: [`Namespace::run`] takes a thread for the time of a closure.
//! `/sys` and `/proc/PID/net` go on showing the namespace they were mounted or opened in, so nothing here reads
//! them: links are asked and changed by rtnetlink and ioctl only, which follow the calling thread.
//!
//! | module | what it owns |
//! | --- | --- |
//! | `namespace` | [`Namespace`]: making one, and running threads and children in it |
//! | [`links`] | all of rtnetlink: veth pairs, addresses, routes, neighbours, bridges |
//! | `error` | [`LabError`]: the step that failed, and what mends it |
//!
//! Privileges: CAP_SYS_ADMIN to make and enter a namespace, CAP_NET_ADMIN to make links. [`privileged`] asks for both.

mod error;
pub mod links;
mod namespace;

pub use error::LabError;
pub use links::{VethEnd, create_veth, ensure_bridge};
pub use namespace::Namespace;

/// Whether this process may build a lab: makes a namespace and drops it again. The error says what is missing.
///
/// # Errors
/// See [`Namespace::new`].
pub fn privileged() -> Result<(), LabError> {
    Namespace::new().map(drop)
}

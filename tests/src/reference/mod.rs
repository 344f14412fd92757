//! A second opinion on every packet: what the gateway must do with a capture, computed the slow way.
//!
//! [`replay::replay`] takes a [`model::Config`] and the packets of a capture and says, for each packet, whether it is
//! dropped or which bytes leave when, and what every contract's counters must show. The tests compare this with what the
//! real binary writes, bit for bit.
//!
//! It is slow on purpose, because it shares nothing with what it checks: no table, cache, batch or hash map in front of
//! the configuration, but a linear scan over all endpoints, classes, segments and contracts for every packet; no integer
//! units, but exact rational numbers of bytes in continuous time; no incremental checksum, but a sum over the header. It
//! was written from the RFCs and the described semantics, not from the code. Where both agree, a common mistake is a
//! common misreading of the semantics, not a shared line of code.
//!
//! - [`model`]: the configuration as plain values, and as the TOML the binary reads
//! - [`dissect`]: bytes to addresses, ports, code points; anything strange is not IP
//! - [`classify`]: service, class, segment, contract
//! - [`meter`]: token bucket, RFC 2697, RFC 2698, RFC 4115
//! - [`replay`]: all of it, packet by packet, with the counters
//!
//! Not covered: port rates and rings (nothing waits here), flow and host grain, captures with two entry ports.

pub mod classify;
pub mod dissect;
pub mod meter;
pub mod model;
pub mod replay;

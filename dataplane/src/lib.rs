//! All that a worker core runs: from a received packet to a sent one. No files, no TOML, and no thread of its own.
//!
//! ```text
//!   site port, queue q                        one Lane                          wan port, queue q
//!                        ┌──────────── Path, egress ────────────────────┐
//!   XDP program ─► XSK rx ─► parse ─► classify ─► meter ─► mark ─► rings ─► schedule ─► XSK tx
//!        │                     │         │          │                │         │
//!        │                  packet    classify    meter            mark     priority, codel, shaper
//!        └─► kernel, when the worker's heartbeat is stale
//!
//!        XSK tx ◄─ schedule ◄─ rings ◄─ mark ◄─ meter ◄─ classify ◄─ parse ◄─ XSK rx ◄─ XDP program
//!                        └──────────── Path, ingress ───────────────────┘
//!
//!   Worker: clock once ─► newest ContractTable (one load) ─► a turn of each of its lanes ─► publish ─► again
//! ```
//!
//! A worker owns its lanes, sockets, frames and counters. With other workers it shares three kinds of single atomic words:
//! the buckets of a contract, the pace of a port, and who still holds conforming packets for a port. With the control
//! thread it shares the contract table (it only loads), its counters, and what is in [`worker::WorkerShared`].
//!
//! The stages call neither each other nor a port: they meet in [`path`]. All of it runs unchanged on
//! [`port::MemoryPort`], on any clock, without root.
//!
//! | module | what it is |
//! | --- | --- |
//! | [`worker`] | the loop: clock, table, a turn of every lane, publish; states, and sleep when idle |
//! | [`lane`] | one queue of both ports of a wire, and the two paths between them |
//! | [`path`] | one direction: where the stages meet and a packet gets its verdict |
//! | [`port`] | where packets come from and go to: AF_XDP, memory; the XDP program and its loader |
//! | [`frame`] | [`Frame`](frame::Frame), [`Packet`](frame::Packet), a batch, and the pool of free frames |
//! | [`packet`] | bytes to headers: Ethernet, 802.1Q, IPv4, IPv6, ports of TCP and UDP |
//! | [`classify`] | headers to contract: service, class, direction, segment; the flow cache in front |
//! | [`fragment`] | which service the first fragment of a datagram belonged to |
//! | [`contract`] | the contract table: immutable, numbered by a generation |
//! | [`cells`] | buckets and counters of contracts: what outlives a table |
//! | [`meter`] | token bucket, RFC 2697, 2698, 4115: a size and a time to a colour |
//! | [`mark`] | DSCP, CE and PCP written in place |
//! | [`checksum`] | checksums that a local sender left to its interface: found and finished |
//! | [`priority`] | the conforming and nonconforming rings, and the order in which they drain |
//! | [`codel`] | CoDel (RFC 8289): whether the packet at a ring's head goes, is marked, or is dropped |
//! | [`shaper`] | a port's rate, shared by its workers |
//! | [`sojourn`] | how full the priority rings were and how long packets waited in them, for others to read |
//! | [`stats`] | counters, drop reasons, the ledger and how others read it |
//! | [`clock`] | [`Nanos`](clock::Nanos) and the only file that reads a clock |
#![deny(unsafe_code, missing_docs)]

pub mod cells;
pub mod checksum;
pub mod classify;
pub mod clock;
pub mod codel;
pub mod contract;
pub mod fragment;
pub mod frame;
pub mod lane;
pub mod mark;
pub mod meter;
pub mod packet;
pub mod path;
pub mod port;
mod prefetch;
pub mod priority;
pub mod shaper;
pub mod sojourn;
pub mod stats;
mod sync;
mod word;
pub mod worker;

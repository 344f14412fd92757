//! The engine for floods: packets made inside the kernel by `BPF_PROG_TEST_RUN` on live frames, and scored inside the kernel.
//!
//! ```text
//!   Portion ─► entries ─► Sender: thread in bpf(2) ─► send.bpf.o ── redirect ─► interface
//!                                                                                  ...
//!   Scores  ◄─ maps    ◄─ Receiver               ◄─ score.bpf.o ◄──── XDP ──── interface
//! ```
//!
//! A packet never leaves the kernel, so one core makes several times what it can through an AF_XDP socket in copy mode. The
//! packets are those of [`transmit`](crate::transmit): same streams, same probe, checksums right. What differs:
//!
//! | | [`transmit`](crate::transmit), [`receive`](crate::receive) | here |
//! | --- | --- | --- |
//! | pacing | one schedule for each stream | one for the mix, shared out by [`Portion::weight`] in a fixed order |
//! | sizes of a stream | in turn, up to 3,840 bytes | evenly mixed, up to 3,400 bytes |
//! | flows of a stream | from a table, in any order | the same by arithmetic, in turn: any number of them costs the same |
//! | rates while it runs | change | stay; start another [`Sender`] |
//! | latency | HDR histogram, 1 % | [`Latency`]: buckets of 1/16 of a power of two, 3 % |
//! | damaged packets | counted as corrupted | not noticed: no checksum is verified on arrival |
//! | by DSCP | everything | unique packets |
//!
//! | module | what it owns |
//! | --- | --- |
//! | `mix` | the sender's maps from the streams: templates, sums, flows, order |
//! | `sender` | [`Sender`]: the program in its thread, and what it has sent |
//! | `refused` | how many packets the interface did not take |
//! | `receiver` | [`Receiver`]: the program on its interface |
//! | `score` | [`Scores`]: what the maps of the receiver hold, as plain structs |
//! | `trial` | [`trial()`]: one load for a time, as with the other engine |
//! | `error` | [`LiveError`] |
//!
//! Needs Linux 5.18, CAP_BPF and CAP_NET_ADMIN. The interface sent to must take redirected packets: a physical one of any
//! driver with XDP, or a veth whose other end has a native XDP program or GRO on (`ethtool -K IFACE gro on`).

mod error;
mod mix;
mod receiver;
mod refused;
mod score;
mod sender;
mod trial;

pub use error::LiveError;
pub use mix::Portion;
pub use receiver::{Receiver, ReceiverConfig};
pub use score::{Latency, Score, Scores};
pub use sender::{Load, Sender, SenderConfig, Sent, StreamSent};
pub use trial::{LiveTrialError, trial};

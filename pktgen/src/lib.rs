//! The packet generator, the receiver that scores what arrives, and the virtual lab they run in.
//!
//! ```text
//!   Stream ─► FrameBuilder ─► Transmitter ── AF_XDP ──►  ...  ── AF_XDP ──► Receiver ─► Scorer ─► Scores
//!               Pacer ────────────┘
//! ```
//!
//! | module | what it owns |
//! | --- | --- |
//! | [`stream`] | [`Stream`](stream::Stream): what one service's traffic looks like |
//! | [`contracts`] | the same straight from a contract set |
//! | `flow` | the flows of a stream, and which gets the next packet |
//! | [`frame_builder`] | packets from a template, checksums right |
//! | [`probe`] | the header of ours in each packet, and taking packets apart |
//! | [`pace`] | when each packet is due |
//! | `rota` | whose turn it is when nobody waits |
//! | [`load`] | what a trial sends, and how fast |
//! | [`timeline`] | packets at instants of their own: schedules and profiles |
//! | [`transmit`] | packets out of a queue, and changes of rate |
//! | [`receive`] | packets from an interface into the scores |
//! | `program` | the receiver's XDP program |
//! | [`sequence`] | which packets of a stream have come |
//! | [`score`] | what arrived, by stream, phase and DSCP |
//! | [`live`] | the second engine: floods made and scored inside the kernel |
//! | [`trial`] | a load for a time, and what it came to; the generator that runs one after the other |
//! | [`search`] | which load to try next, and what the trials together say |
//! | [`imix`] | frame sizes and mixes of them, RFC 6985 genomes |
//! | [`rate`] | rates as operators write them, and packets per second |
//! | [`schedule`] | rates over time, and the exact instant of each packet |
//! | [`suite`] | a whole measurement, from frame sizes to a report |
//! | [`profile`] | traffic of known workloads, and hostile ones, with their sources |
//! | [`report`] | results as text, JSON and one HTML file, with the machine they were measured on |
//! | [`console`] | progress and Ctrl-C of commands |
//! | [`capture`] | packets out of pcap and pcapng files |
//! | [`replay`] | sending captures: timing, loops, other addresses |
//! | [`lab`] | network namespaces and veth pairs that leave no trace |
#![deny(unsafe_code)]

pub mod capture;
pub mod console;
pub mod contracts;
mod flow;
pub mod frame_builder;
pub mod imix;
pub mod lab;
pub mod live;
pub mod load;
pub mod pace;
pub mod probe;
pub mod profile;
mod program;
pub mod rate;
pub mod receive;
pub mod replay;
pub mod report;
mod rota;
pub mod schedule;
pub mod score;
pub mod search;
pub mod sequence;
pub mod stream;
pub mod suite;
pub mod timeline;
pub mod transmit;
pub mod trial;

//! The packet generator, the receiver that scores what arrives, and the virtual lab they run in.
//!
//! ```text
//!   Stream ─► FrameBuilder ─► Transmitter ── AF_XDP ──►  ...  ── AF_XDP ──► Receiver ─► Scorer ─► Scores
//!               Pacer ────────────┘
//! ```
//!
//! | module | what it owns |
//! | --- | --- |
//! | [`flow`] | [`Stream`](flow::Stream): what one service's traffic looks like, and its flows |
//! | [`frame_builder`] | packets from a template, checksums right |
//! | [`probe`] | the header of ours in each packet, and taking packets apart |
//! | [`pace`] | when each packet is due |
//! | [`transmit`] | packets out of a queue, and changes of rate |
//! | [`receive`] | packets from an interface into the scores |
//! | `program` | the receiver's XDP program |
//! | [`sequence`] | which packets of a stream have come |
//! | [`score`] | what arrived, by stream, phase and DSCP |
//! | [`capture`] | packets out of pcap and pcapng files |
//! | [`replay`] | sending captures: timing, loops, other addresses |
//! | [`lab`] | network namespaces and veth pairs that leave no trace |
#![deny(unsafe_code)]

pub mod capture;
pub mod flow;
pub mod frame_builder;
pub mod lab;
pub mod pace;
pub mod probe;
mod program;
pub mod receive;
pub mod replay;
pub mod score;
pub mod sequence;
pub mod transmit;

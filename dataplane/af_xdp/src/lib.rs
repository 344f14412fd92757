//! AF_XDP sockets: packets between user space and a network driver through shared memory.
//!
//! ```text
//!              pool: Vec<Frame>
//!        refill |         ^ complete
//!               v         |
//!   fill ring --+         +-- completion ring       one Umem: frame_count frames of frame_size bytes,
//!       |                         ^                  mapped once, shared by every socket bound with it
//!       v   kernel and driver     |
//!    RX ring                   TX ring
//!       | receive                 ^ push_tx, submit_tx, kick_tx
//!       v                         |
//!      worker: umem.bytes_mut(&mut frame)
//! ```
//!
//! A [`Frame`] is the right to touch one slot of the [`Umem`]. It is neither `Copy` nor `Clone`, and it always has
//! exactly one owner: a pool, the worker, or the kernel, in which case no `Frame` value exists at all. Pointers stop in
//! this package: above it are slices and frames.
//!
//! | module | what it owns |
//! | --- | --- |
//! | `umem` | [`Umem`]: the memory, and the way from a frame to its bytes |
//! | `frame` | [`Frame`]: one slot, one owner |
//! | `ring` | positions and entries of one shared ring: reserve and submit, peek and release |
//! | `setup` | the system calls that make a socket, in their order |
//! | `socket` | [`Socket`]: the four rings at work, wake-ups |
//! | `config` | [`UmemConfig`], [`SocketConfig`] and their validation |
//! | `kick` | [`Kick`]: what came of a wake-up, and the counters |
//! | `statistics` | [`Statistics`]: the kernel's six counters of a socket |
//! | `poll` | [`poll()`]: sleep until a socket has something to do |
//! | [`device`] | interfaces: index, MTU, channels, offloads, promiscuous mode |
//! | `shared_array` | [`SharedArray`]: a BPF array map seen as memory |
//! | `error` | [`Error`]: the step that failed, the errno, and a remedy |
//!
//! What it does not do: load or attach an XDP program, or put a socket into an XSKMAP. Any BPF library does that with
//! the file descriptor of [`Socket`]. Unaligned chunks and RX metadata are not supported. Linux 5.10 or later, 64 bit.

#![deny(missing_docs)]
#![warn(unsafe_op_in_unsafe_fn)]

#[cfg(not(all(target_os = "linux", target_pointer_width = "64")))]
compile_error!("AF_XDP needs Linux, and this package a 64-bit target");

mod config;
pub mod device;
mod error;
mod frame;
mod kick;
mod poll;
mod ring;
mod setup;
mod shared_array;
mod socket;
mod statistics;
mod sync;
mod sys;
mod umem;

pub use config::{BindMode, BusyPoll, SocketConfig, UmemConfig};
pub use error::{Error, RingName, Step};
pub use frame::Frame;
pub use kick::{Kick, KickCounts};
pub use poll::poll;
pub use shared_array::SharedArray;
pub use socket::Socket;
pub use statistics::Statistics;
pub use umem::Umem;

/// The code of the README, compiled.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;

// A worker may take its sockets and frames along to its thread, and threads may share the memory.
const _: () = {
    const fn sendable<T: Send>() {}
    const fn shareable<T: Send + Sync>() {}
    sendable::<Socket>();
    shareable::<Umem>();
    shareable::<Frame>();
    shareable::<SharedArray>();
    shareable::<Error>();
};

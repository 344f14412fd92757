//! All that a worker core runs.
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
pub mod priority;
pub mod shaper;
pub mod stats;
mod sync;
pub mod worker;

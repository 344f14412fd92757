//! All that a worker core runs.
#![deny(unsafe_code, missing_docs)]

pub mod checksum;
pub mod clock;
pub mod codel;
pub mod fragment;
pub mod mark;
pub mod meter;
pub mod packet;
pub mod priority;
pub mod shaper;

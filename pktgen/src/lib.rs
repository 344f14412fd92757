//! The packet generator, the receiver that scores what arrives, and the virtual lab they run in.
#![deny(unsafe_code)]

pub mod lab;

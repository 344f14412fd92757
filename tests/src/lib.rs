//! What the end-to-end tests share: a slow, exact reference of what the gateway must do to every packet, seeded
//! configurations and captures to try it on, and the way to the real binary.

pub mod binary;
pub mod browser;
pub mod capture;
pub mod documents;
pub mod gateway;
pub mod generate;
pub mod malformed;
pub mod memory;
pub mod reference;

pub use binary::weir_binary;

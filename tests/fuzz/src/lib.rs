//! Everything in weir that reads what others write, each behind a function that takes bytes. A target panics when weir does
//! something that it must never do; whatever else it does with the bytes is its own affair.
//!
//! ```text
//!  corpus/TARGET/* ─┬─► cargo test -p weir-fuzz            every input through its target: no tools, no root, seconds
//!                   └─► tests/fuzz/fuzz.sh TARGET SECONDS  libFuzzer: new inputs, led by the branches they take
//! ```
//!
//! | target | what reads | what it is held to |
//! |---|---|---|
//! | [`frame`] | the packet parser, `explain` | a second parser, written from the RFCs; a reason exactly where it is not IP |
//! | [`path`] | a worker, from port to port | ledger and frames add up, no packet is changed but for its marks |
//! | [`configuration`] | TOML, all checks, the compiler | every error has its place; what is valid compiles, and swaps |
//! | [`capture`] | pcap and pcapng, `weir replay` | packets in are packets out, dropped, or an error that says where |
//! | [`control`] | requests on the control socket | what is understood is written and read back the same; packets are explained |
//! | [`api`] | HTTP requests | an answer or a closed connection, and the next client is served |
//! | [`words`] | arguments: hex, addresses, rates, mixes, profiles | no panic, and what is understood prints as it was read |
//!
//! A crash that was found stays in the corpus under a name that says what it was.

pub mod api;
pub mod capture;
pub mod configuration;
pub mod control;
pub mod frame;
mod live;
pub mod path;
pub mod words;

use std::path::PathBuf;

/// One target.
#[derive(Debug)]
pub struct Target {
    /// As in `corpus/` and for `fuzz.sh`.
    pub name: &'static str,
    /// Takes any input; panics at a bug.
    pub run: fn(&[u8]),
    /// Inputs to begin with: a name and the bytes.
    pub seeds: fn() -> Vec<(String, Vec<u8>)>,
}

/// All targets.
pub const TARGETS: [Target; 7] = [
    Target {
        name: "frame",
        run: frame::run,
        seeds: frame::seeds,
    },
    Target {
        name: "path",
        run: path::run,
        seeds: path::seeds,
    },
    Target {
        name: "configuration",
        run: configuration::run,
        seeds: configuration::seeds,
    },
    Target {
        name: "capture",
        run: capture::run,
        seeds: capture::seeds,
    },
    Target {
        name: "control",
        run: control::run,
        seeds: control::seeds,
    },
    Target {
        name: "api",
        run: api::run,
        seeds: api::seeds,
    },
    Target {
        name: "words",
        run: words::run,
        seeds: words::seeds,
    },
];

/// The target of this name.
#[must_use]
pub fn find(name: &str) -> Option<&'static Target> {
    TARGETS.iter().find(|target| target.name == name)
}

/// Where the inputs of a target are kept.
#[must_use]
pub fn corpus(target: &Target) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
        .join("corpus")
        .join(target.name)
}

//! `weir explain --config`: no appliance, buckets that begin full, and the capture's clock.
//!
//! One packet after the other is judged as `weir replay` judges it: tokens are taken, fragments follow their first ones,
//! contracts begin and end by the time stamps. So the verdicts are those that a replay gives.

use config::Config;
use dataplane::classify::PathClassifier;
use dataplane::clock::Nanos;
use dataplane::contract::Direction;
use jiff::Timestamp;

use super::judge::{ExplainError, Judge, Tokens};
use super::report::Explanation;
use crate::compile::{CompileError, Compiled, Compiler};

/// A configuration of our own.
pub struct Offline<'c> {
    config: &'c Config,
    compiler: Compiler,
    compiled: Compiled,
    paths: [PathClassifier; 2],
    now: Nanos,
}

impl<'c> Offline<'c> {
    /// Compiles `config` as of `start`.
    ///
    /// # Errors
    /// It cannot become a table.
    pub fn new(config: &'c Config, start: Timestamp) -> Result<Self, CompileError> {
        let mut compiler = Compiler::new(1, Nanos(0));
        let compiled = compiler.compile(config, start)?;
        Ok(Self {
            config,
            compiler,
            compiled,
            paths: Direction::BOTH.map(|direction| PathClassifier::new(direction, 0)),
            now: nanos(start),
        })
    }

    /// Judges a packet that comes at `at`, or with the one before it if that came later.
    ///
    /// # Errors
    /// See `OfflineError`.
    pub fn explain(
        &mut self,
        bytes: &[u8],
        wire_len: u32,
        port: Option<&str>,
        at: Timestamp,
    ) -> Result<Explanation, OfflineError> {
        self.now = self.now.max(nanos(at));
        let at = Timestamp::from_nanosecond(i128::from(self.now.0)).unwrap_or(at);
        if self.compiled.next_change.is_some_and(|change| change <= at) {
            self.compiled = self.compiler.compile(self.config, at)?;
        }
        let mut judge = Judge {
            config: self.config,
            compiled: &self.compiled,
            tokens: Tokens::Own(&mut self.paths),
            now: self.now,
            at,
        };
        Ok(judge.explain(bytes, wire_len, port)?)
    }
}

/// Why a packet was not explained.
#[derive(Debug, thiserror::Error)]
pub enum OfflineError {
    /// A contract began or ended and the new table cannot be made.
    #[error(transparent)]
    Compile(#[from] CompileError),
    /// The question was no good.
    #[error(transparent)]
    Explain(#[from] ExplainError),
}

/// Nanoseconds since the Unix epoch; 0 for what was before it.
fn nanos(at: Timestamp) -> Nanos {
    Nanos(u64::try_from(at.as_nanosecond()).unwrap_or(0))
}

//! What commands share on a terminal: progress with the time left, and Ctrl-C.

use std::io::{self, IsTerminal};
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use indicatif::{ProgressBar, ProgressStyle};

use crate::search::Progress;

/// A flag that Ctrl-C and SIGTERM raise. A second one ends the program at once, with status 1.
///
/// # Errors
/// A handler cannot be set.
pub fn stop_flag() -> io::Result<Arc<AtomicBool>> {
    let stop = Arc::new(AtomicBool::new(false));
    for signal in [signal_hook::consts::SIGINT, signal_hook::consts::SIGTERM] {
        // In this order: the first signal finds the flag down and raises it.
        signal_hook::flag::register_conditional_shutdown(signal, 1, Arc::clone(&stop))?;
        signal_hook::flag::register(signal, Arc::clone(&stop))?;
    }
    Ok(stop)
}

/// A bar on standard error with the time left, where that is a terminal; nothing elsewhere. Gone when dropped.
#[derive(Debug)]
pub struct Bar(ProgressBar);

impl Default for Bar {
    fn default() -> Self {
        let terminal = io::stderr().is_terminal();
        let bar = if terminal {
            ProgressBar::new(1)
        } else {
            ProgressBar::hidden()
        };
        if let Ok(style) = ProgressStyle::with_template("{bar:30} {wide_msg}") {
            bar.set_style(style);
        }
        bar.enable_steady_tick(Duration::from_millis(200));
        Self(bar)
    }
}

impl Bar {
    /// Shows how far a step is.
    pub fn show(&self, step: &Progress) {
        let left = step.expected.saturating_sub(step.done);
        self.0.set_length(step.expected.as_millis().max(1) as u64);
        self.0.set_position(step.done.as_millis() as u64);
        self.0
            .set_message(format!("{} ({} s left)", step.message, left.as_secs()));
    }
}

impl Drop for Bar {
    fn drop(&mut self) {
        self.0.finish_and_clear();
    }
}

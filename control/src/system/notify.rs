//! What weir tells the service manager, by sd_notify(3). Without `NOTIFY_SOCKET` nothing happens.
//!
//! | when | what |
//! |---|---|
//! | all workers run, programs are attached, the control socket listens | `READY=1` |
//! | SIGHUP came | `RELOADING=1` with `MONOTONIC_USEC=`, and `READY=1` when it is done, whatever it came to |
//! | every worker has turned since the last time, at most half of `WatchdogSec=` ago | `WATCHDOG=1` |
//! | every five seconds | `STATUS=`: table, contracts, rates |
//! | before it stops | `STOPPING=1` |
//!
//! A worker that hangs withholds the ping, and the service manager ends weir: the kernel's bridge carries on until the next
//! start. Runs on the main thread.

use std::time::{Duration, Instant};

use sd_notify::NotifyState;

use crate::appliance::Appliance;
use crate::observe::per_second;
use crate::status::bits;

/// Time between two texts for `systemctl status`.
const STATUS: Duration = Duration::from_secs(5);

/// Tells the service manager how it goes.
pub struct Notifier {
    watchdog: Option<Watchdog>,
    told: Option<(Instant, Carried)>,
}

impl Notifier {
    /// Reads `NOTIFY_SOCKET`, `WATCHDOG_USEC` and `WATCHDOG_PID`.
    #[must_use]
    pub fn new() -> Self {
        let watchdog = sd_notify::watchdog_enabled().map(|limit| Watchdog::new(limit, Instant::now()));
        Self { watchdog, told: None }
    }

    /// Everything is there.
    pub fn ready(&self) {
        tell(&[NotifyState::Ready]);
    }

    /// A reload begins; [`ready`](Self::ready) ends it.
    pub fn reloading(&self) {
        match NotifyState::monotonic_usec_now() {
            Ok(now) => tell(&[NotifyState::Reloading, now]),
            Err(error) => tracing::warn!(event = "notify", "the clock cannot be read: {error}"),
        }
    }

    /// The end begins.
    pub fn stopping(&self) {
        tell(&[NotifyState::Stopping]);
    }

    /// To be called a few times a second.
    pub fn tick(&mut self, appliance: &Appliance) {
        let now = Instant::now();
        if let Some(watchdog) = &mut self.watchdog
            && watchdog.is_fed(&appliance.view().turns(), now)
        {
            tell(&[NotifyState::Watchdog]);
        }
        if self
            .told
            .as_ref()
            .is_some_and(|(when, _)| now.duration_since(*when) < STATUS)
        {
            return;
        }
        let carried = Carried::until_now(appliance);
        let text = status_text(appliance, self.told.as_ref(), &carried, now);
        self.told = Some((now, carried));
        tell(&[NotifyState::Status(&text)]);
    }
}

impl Default for Notifier {
    fn default() -> Self {
        Self::new()
    }
}

/// Bytes of all ledgers since the start: Ethernet frames without FCS.
struct Carried {
    received: u64,
    forwarded: u64,
    dropped: u64,
}

impl Carried {
    fn until_now(appliance: &Appliance) -> Self {
        let mut sum = Self {
            received: 0,
            forwarded: 0,
            dropped: 0,
        };
        for path in appliance.view().path_counters() {
            sum.received += path.received.bytes;
            sum.forwarded += path.forwarded.bytes;
            sum.dropped += path.dropped.iter().map(|dropped| dropped.bytes).sum::<u64>();
        }
        sum
    }
}

/// One line for `systemctl status`.
fn status_text(appliance: &Appliance, before: Option<&(Instant, Carried)>, carried: &Carried, now: Instant) -> String {
    let table = &appliance.compiled().table;
    // Those of this region: what the log, `weir status` and the API count too.
    let contracts = appliance.compiled().numbered().count();
    let mut text = format!("table {}, {contracts} contracts", table.generation);
    if let Some((when, before)) = before {
        let seconds = now.duration_since(*when).as_secs_f64();
        let rate = |new: u64, old: u64| bits(per_second(new.saturating_sub(old) * 8, seconds));
        text += &format!(
            ", in {}, out {}, dropped {}",
            rate(carried.received, before.received),
            rate(carried.forwarded, before.forwarded),
            rate(carried.dropped, before.dropped)
        );
    }
    text
}

fn tell(states: &[NotifyState]) {
    if let Err(error) = sd_notify::notify(states) {
        tracing::warn!(event = "notify", "the service manager cannot be told: {error}");
    }
}

/// Decides when a ping is due and deserved.
struct Watchdog {
    every: Duration,
    pinged: Instant,
    turns: Vec<u64>,
}

impl Watchdog {
    /// `limit` is the time after which the service manager gives weir up; it is pinged twice in that time.
    fn new(limit: Duration, now: Instant) -> Self {
        Self {
            every: limit / 2,
            pinged: now,
            turns: Vec::new(),
        }
    }

    /// Whether to ping now, given the turns that each worker has made.
    fn is_fed(&mut self, turns: &[u64], now: Instant) -> bool {
        if now.saturating_duration_since(self.pinged) < self.every {
            return false;
        }
        let all_turned = self.turns.is_empty() || turns.iter().zip(&self.turns).all(|(new, old)| new != old);
        if all_turned {
            self.turns = turns.to_vec();
            self.pinged = now;
        }
        all_turned
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_worker_that_stands_still_withholds_the_ping() {
        let start = Instant::now();
        let at = |seconds| start + Duration::from_secs(seconds);
        let mut watchdog = Watchdog::new(Duration::from_secs(10), start);
        assert!(!watchdog.is_fed(&[1, 1], at(4)), "not yet due");
        assert!(watchdog.is_fed(&[2, 2], at(5)));
        assert!(watchdog.is_fed(&[3, 3], at(10)));
        assert!(!watchdog.is_fed(&[4, 3], at(15)), "the second hangs");
        assert!(!watchdog.is_fed(&[900, 3], at(19)), "and goes on hanging");
        assert!(watchdog.is_fed(&[901, 4], at(19)), "it turns again");
        assert!(!watchdog.is_fed(&[902, 5], at(20)), "half the limit after that ping");
        assert!(watchdog.is_fed(&[u64::MAX, 6], at(24)));
    }
}

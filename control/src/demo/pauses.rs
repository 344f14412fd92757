//! What the machine itself does to the demo: how long its cores were away.
//!
//! Sender, gateway and receiver share a machine that has other things to do, and whose cores may themselves be lent by a
//! hypervisor. A thread on each core sleeps for a millisecond at a time, at the priority of those three, and remembers when
//! it woke late. No gateway can be faster than its core: what [`verdict`](super::verdict) allows grows by these pauses.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use dataplane::clock::{Clock, MonotonicClock, Nanos};
use rustix::process::setpriority_process;

/// Time between two looks. A thousand a second cost a core a few thousandths of its time.
const SLEEP: Nanos = Nanos::MILLISECOND;
/// Lateness that is no pause: timers and switching between threads. The least burst of the demo's contracts is 20 ms.
const LATE: Nanos = Nanos(2_000_000);
/// Before everything that did not ask for more, and still among the threads that share cores fairly.
const PRIORITY: i32 = -20;

/// A time during which a core was away: from when it should have been there to when it was.
type Pause = (Nanos, Nanos);

/// The threads that look.
pub struct Pauses {
    stop: Arc<AtomicBool>,
    threads: Vec<JoinHandle<Vec<Pause>>>,
}

/// All pauses of one run, of all cores.
#[derive(Clone, Debug, Default)]
pub struct Paused(Vec<Pause>);

/// Puts this process, and what it starts from now on, before others. A wish: the demo works without.
pub fn take_precedence() {
    let _granted = setpriority_process(None, PRIORITY);
}

impl Pauses {
    /// Begins to look at `cpus`.
    #[must_use]
    pub fn watch(cpus: &[usize]) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let look = |&id: &usize| {
            let stop = stop.clone();
            let thread = std::thread::Builder::new().name("demo-pauses".to_owned());
            // Without a thread no pause is seen, and the demo only judges more strictly.
            let spawned = thread.spawn(move || {
                let _pinned = core_affinity::set_for_current(core_affinity::CoreId { id });
                look_until(&stop)
            });
            spawned.ok()
        };
        Self {
            threads: cpus.iter().filter_map(look).collect(),
            stop,
        }
    }

    /// Ends, and says what was seen.
    #[must_use]
    pub fn end(mut self) -> Paused {
        self.stop.store(true, Ordering::Relaxed);
        let seen = self.threads.drain(..).filter_map(|thread| thread.join().ok());
        Paused(seen.flatten().collect())
    }
}

impl Drop for Pauses {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
    }
}

fn look_until(stop: &AtomicBool) -> Vec<Pause> {
    let mut pauses = Vec::new();
    while !stop.load(Ordering::Relaxed) {
        let expected = MonotonicClock.now().plus(SLEEP);
        std::thread::sleep(Duration::from_nanos(SLEEP.0));
        let now = MonotonicClock.now();
        if now.since(expected) > LATE {
            pauses.push((expected, now));
        }
    }
    pauses
}

impl Paused {
    /// The longest pause that touched the time from `begin` to `end`, and the sum of all of them, of all cores. Two that
    /// follow each other closely count as one in `longest`: what piles up in the first is not gone by the second.
    #[must_use]
    pub fn between(&self, begin: Nanos, end: Nanos) -> Pausing {
        let touches = |&&(from, to): &&Pause| from < end && to > begin;
        let mut touching: Vec<Pause> = self.0.iter().filter(touches).copied().collect();
        touching.sort_unstable();
        let mut pausing = Pausing::default();
        let mut joined: Option<Pause> = None;
        for (from, to) in touching {
            pausing.sum = pausing.sum.plus(to.since(from));
            let (first, last) = joined
                .filter(|(_, last)| from.since(*last) < Nanos::MILLISECOND)
                .map_or((from, to), |(first, last)| (first, last.max(to)));
            pausing.longest = pausing.longest.max(last.since(first));
            joined = Some((first, last));
        }
        pausing
    }
}

/// What the cores were away in some time.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Pausing {
    /// The longest pause.
    pub longest: Nanos,
    /// All pauses together.
    pub sum: Nanos,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ms(n: u64) -> Nanos {
        Nanos(n * 1_000_000)
    }

    #[test]
    fn pauses_of_a_time_are_those_that_touch_it() {
        let paused = Paused(vec![
            (ms(100), ms(110)),
            (ms(300), ms(330)),
            (ms(105), ms(120)),
            (ms(500), ms(590)),
        ]);
        let between = |begin, end| {
            let Pausing { longest, sum } = paused.between(ms(begin), ms(end));
            (longest.0 / 1_000_000, sum.0 / 1_000_000)
        };
        assert_eq!(between(0, 100), (0, 0));
        assert_eq!(between(0, 101), (10, 10));
        assert_eq!(between(0, 200), (20, 25), "two cores, one after the other");
        assert_eq!(between(119, 400), (30, 45));
        assert_eq!(between(550, 560), (90, 90));
    }

    #[test]
    fn a_thread_that_is_watched_ends() {
        let paused = Pauses::watch(&[0]).end();
        let all = paused.between(Nanos(0), Nanos(u64::MAX));
        assert!(all.longest <= all.sum);
    }
}

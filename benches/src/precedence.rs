//! Precedence over the other processes of the machine, for the length of a window.
//!
//! A gateway has its cores to itself, and where a bench runs they are often shared: a compiler that gets a core for its time
//! slice of 3 ms is all that a latency or a worst gap would then show. Threads of real-time priority are not taken off their
//! core by others. What the machine's own host takes away they lose nonetheless.
//!
//! To be held for less than a second at a time, and let go for half as long: other processes wait meanwhile, and after 0.95 s the
//! kernel gives them a twentieth of the time, all at once.

use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use nix::unistd::gettid;

use crate::machine;

/// Precedence that some threads have until this is dropped.
pub struct Precedence {
    threads: Vec<String>,
}

impl Precedence {
    /// For the calling thread and one of this process by each of these names, of 15 bytes at most. `None` where it cannot be
    /// had: it takes CAP_SYS_NICE, and `chrt` of util-linux, because there is no safe way to call sched_setscheduler(2).
    #[must_use]
    pub fn take(names: &[&str]) -> Option<Self> {
        let mut held = Self { threads: Vec::new() };
        // The caller, and what it starts, comes first and before the others: they could keep it from going on.
        held.raise(gettid().to_string(), "2")?;
        for name in names {
            held.raise(named(name)?, "1")?;
        }
        Some(held)
    }

    fn raise(&mut self, thread: String, priority: &str) -> Option<()> {
        let is_raised = schedule("--fifo", priority, &thread);
        self.threads.push(thread);
        is_raised.then_some(())
    }
}

impl Drop for Precedence {
    fn drop(&mut self) {
        // A thread that has ended meanwhile has lost it already.
        while let Some(thread) = self.threads.pop() {
            let _scheduled = schedule("--other", "0", &thread);
        }
    }
}

/// A core that does not go to sleep until this is dropped. Where a host must give a sleeping core back, a thread that waits for
/// its next packet would wake up milliseconds late, and one that has much to do would not.
pub struct Awake {
    over: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Awake {
    /// Keeps core `cpu` busy whenever nothing else runs there. To be started before [`Precedence`] is taken, which a new thread
    /// inherits. Without `chrt` it does nothing: what it does must not be in the way of others.
    #[must_use]
    pub fn keep(cpu: usize) -> Self {
        let over = Arc::new(AtomicBool::new(false));
        let told = over.clone();
        let spin = move || {
            if machine::pin(cpu).is_ok() && schedule("--idle", "0", &gettid().to_string()) {
                while !told.load(Ordering::Relaxed) {
                    std::hint::spin_loop();
                }
            }
        };
        let thread = thread::Builder::new().name("awake".to_owned()).spawn(spin).ok();
        Self { over, thread }
    }
}

impl Drop for Awake {
    fn drop(&mut self) {
        self.over.store(true, Ordering::Relaxed);
        // It cannot panic.
        let _ended = self.thread.take().map(JoinHandle::join);
    }
}

/// The thread of that name. One that has just been started gives itself its name, and so may not have it yet.
fn named(name: &str) -> Option<String> {
    for _ in 0..100 {
        let threads = std::fs::read_dir("/proc/self/task").ok()?;
        let mut ids = threads.filter_map(|thread| thread.ok()?.file_name().into_string().ok());
        let is_named = |thread: &String| {
            let found = std::fs::read_to_string(format!("/proc/self/task/{thread}/comm"));
            found.is_ok_and(|found| found.trim_end() == name)
        };
        if let Some(thread) = ids.find(is_named) {
            return Some(thread);
        }
        thread::sleep(Duration::from_millis(1));
    }
    None
}

fn schedule(policy: &str, priority: &str, thread: &str) -> bool {
    let mut chrt = Command::new("chrt");
    chrt.args([policy, "--pid", priority, thread]);
    let status = chrt.stdout(Stdio::null()).stderr(Stdio::null()).status();
    status.is_ok_and(|status| status.success())
}

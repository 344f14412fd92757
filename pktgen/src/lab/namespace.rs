//! A network namespace without a name, and threads and children inside it.

use std::fs::File;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::panic;
use std::process::{Child, Command};
use std::sync::Arc;
use std::thread::{self, JoinHandle};

use nix::sched::{CloneFlags, setns, unshare};

use super::error::LabError;

/// A network namespace, kept by one descriptor that its clones share. It goes, with all its links, when the last
/// clone, thread, child and socket inside it is gone.
#[derive(Clone, Debug)]
pub struct Namespace {
    fd: Arc<OwnedFd>,
}

impl Namespace {
    /// Makes an empty namespace, whose only interface is a loopback that is down. The caller stays where it is.
    ///
    /// System calls: unshare(CLONE_NEWNET) on a thread of its own, open of /proc/thread-self/ns/net.
    ///
    /// # Errors
    /// EPERM without CAP_SYS_ADMIN, ENOSPC past the limit of namespaces.
    pub fn new() -> Result<Self, LabError> {
        on_a_thread("lab-namespace", || {
            unshare(CloneFlags::CLONE_NEWNET).map_err(|errno| LabError::errno("make a network namespace", errno))?;
            Self::current()
        })?
    }

    /// The namespace of the calling thread, for links between it and others.
    ///
    /// # Errors
    /// If /proc is not mounted.
    pub fn current() -> Result<Self, LabError> {
        let file = File::open("/proc/thread-self/ns/net")
            .map_err(|source| LabError::new("open the network namespace of this thread", source))?;
        Ok(Self {
            fd: Arc::new(file.into()),
        })
    }

    /// The namespace that `ip netns` calls so.
    ///
    /// # Errors
    /// If there is none of that name.
    pub fn named(name: &str) -> Result<Self, LabError> {
        // A slash would leave the directory.
        let path = std::path::Path::new("/run/netns").join(name.replace('/', "_"));
        let file = File::open(&path)
            .map_err(|source| LabError::new(format!("open network namespace {name} ({})", path.display()), source))?;
        Ok(Self {
            fd: Arc::new(file.into()),
        })
    }

    /// Runs `f` on a thread inside the namespace and waits for it. A panic in `f` goes on in the caller.
    ///
    /// # Errors
    /// EPERM without CAP_SYS_ADMIN, or if no thread can be started.
    pub fn run<T: Send>(&self, f: impl FnOnce() -> T + Send) -> Result<T, LabError> {
        on_a_thread("lab-run", || {
            self.enter()?;
            Ok(f())
        })?
    }

    /// As [`run`](Self::run), for an `f` that can fail itself.
    ///
    /// # Errors
    /// Those of [`run`](Self::run) and of `f`.
    pub fn try_run<T: Send, E: From<LabError> + Send>(&self, f: impl FnOnce() -> Result<T, E> + Send) -> Result<T, E> {
        self.run(f)?
    }

    /// Starts a child inside the namespace. The child keeps the namespace alive; the caller waits for the child.
    ///
    /// # Errors
    /// As for [`run`](Self::run), and if the command cannot be started.
    pub fn spawn(&self, command: &mut Command) -> Result<Child, LabError> {
        let program = command.get_program().to_string_lossy().into_owned();
        self.run(|| command.spawn())?
            .map_err(|source| LabError::new(format!("start {program}"), source))
    }

    /// Starts a thread that stays inside the namespace. It is there before `f` begins, or this fails.
    ///
    /// # Errors
    /// As for [`run`](Self::run).
    pub fn spawn_thread<T: Send + 'static>(
        &self,
        name: &str,
        f: impl FnOnce() -> T + Send + 'static,
    ) -> Result<JoinHandle<T>, LabError> {
        // A thread inherits the namespace of the one that starts it.
        self.run(|| thread::Builder::new().name(name.to_owned()).spawn(f))?
            .map_err(|source| LabError::new(format!("start the thread {name}"), source))
    }

    /// Moves the calling thread into the namespace, for good. For threads that nobody else relies on.
    ///
    /// # Errors
    /// EPERM without CAP_SYS_ADMIN.
    pub fn enter(&self) -> Result<(), LabError> {
        setns(self.fd.as_fd(), CloneFlags::CLONE_NEWNET)
            .map_err(|errno| LabError::errno("enter a network namespace", errno))
    }
}

impl AsFd for Namespace {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

/// Runs `f` on a thread of its own, so that what it does to its namespace ends with it.
pub(super) fn on_a_thread<T: Send>(name: &str, f: impl FnOnce() -> T + Send) -> Result<T, LabError> {
    thread::scope(|scope| {
        let thread = thread::Builder::new()
            .name(name.to_owned())
            .spawn_scoped(scope, f)
            .map_err(|source: io::Error| LabError::new(format!("start the thread {name}"), source))?;
        match thread.join() {
            Ok(value) => Ok(value),
            Err(payload) => panic::resume_unwind(payload),
        }
    })
}

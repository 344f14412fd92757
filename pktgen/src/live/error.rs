//! What can go wrong with the engine, and what mends it.

use std::error::Error;
use std::io;

use nix::errno::Errno;

use crate::lab::LabError;
use crate::stream::StreamError;

/// Why the engine cannot start, or stopped.
#[derive(Debug, thiserror::Error)]
pub enum LiveError {
    /// A stream no packets can be made of.
    #[error(transparent)]
    Stream(#[from] StreamError),
    /// Something else in the configuration.
    #[error("{what} = {value}: allowed is {allowed}")]
    Config {
        /// Which value.
        what: &'static str,
        /// What it is.
        value: String,
        /// What it may be.
        allowed: String,
    },
    /// The interface.
    #[error("{interface}: {source}{}", source.remedy().map(|remedy| format!(" ({remedy})")).unwrap_or_default())]
    Interface {
        /// Its name.
        interface: String,
        /// What failed.
        source: af_xdp::Error,
    },
    /// The kernel or the loader of programs.
    #[error("cannot {step}: {cause} ({remedy})")]
    Kernel {
        /// What was being done.
        step: String,
        /// What it answered.
        cause: String,
        /// What usually mends it.
        remedy: &'static str,
    },
    /// The network namespace.
    #[error(transparent)]
    Lab(#[from] LabError),
}

impl LiveError {
    pub(super) fn config(what: &'static str, value: &dyn ToString, allowed: impl Into<String>) -> Self {
        Self::Config {
            what,
            value: value.to_string(),
            allowed: allowed.into(),
        }
    }

    pub(super) fn interface(interface: &str, source: af_xdp::Error) -> Self {
        Self::Interface {
            interface: interface.to_owned(),
            source,
        }
    }

    /// A step that failed, all causes on one line.
    pub(super) fn kernel(step: impl Into<String>, error: &(dyn Error + 'static)) -> Self {
        let mut cause = error.to_string();
        let mut errno = errno(error);
        let mut next = error.source();
        while let Some(error) = next {
            cause.push_str(": ");
            cause.push_str(&error.to_string());
            errno = errno.or(self::errno(error));
            next = error.source();
        }
        let step = step.into();
        let mut remedy = remedy(&step, errno);
        // The verifier's log goes over thousands of lines; what it objects to is in the last ones.
        if let Some((_, log)) = cause.split_once(VERIFIER)
            && log.len() > VERIFIER_BYTES_MAX
        {
            let lines: Vec<&str> = log.lines().rev().take(6).collect();
            cause = lines.into_iter().rev().collect::<Vec<_>>().join("; ");
            remedy = "this kernel's verifier refuses a program that Linux 6.18 accepts";
        }
        Self::Kernel { step, cause, remedy }
    }

    pub(super) fn missing(what: &str) -> Self {
        Self::Kernel {
            step: LOAD.into(),
            cause: format!("its object has no {what}"),
            remedy: "rebuild it with the build.sh beside its source",
        }
    }
}

/// The steps that remedies depend on.
pub(super) const LOAD: &str = "load the program";
pub(super) const RUN: &str = "run the sender on live frames";

/// What the loader writes before the verifier's log.
const VERIFIER: &str = "Verifier output:";
/// Without privileges the log is empty or a line.
const VERIFIER_BYTES_MAX: usize = 200;

fn errno(error: &(dyn Error + 'static)) -> Option<Errno> {
    let raw = error.downcast_ref::<io::Error>()?.raw_os_error()?;
    Some(Errno::from_raw(raw))
}

fn remedy(step: &str, errno: Option<Errno>) -> &'static str {
    match errno {
        Some(Errno::EPERM | Errno::EACCES) => "run as root, or with CAP_BPF and CAP_NET_ADMIN",
        Some(Errno::EINVAL) if step == RUN => "BPF_PROG_TEST_RUN on live frames needs Linux 5.18 or later",
        Some(Errno::ENOMEM) => "the maps need memory: fewer streams or phases, or a higher limit of locked memory",
        Some(Errno::EBUSY | Errno::EEXIST) => "another XDP program is attached: `bpftool net` shows it",
        _ => "needs Linux 5.18 or later, and root or CAP_BPF and CAP_NET_ADMIN",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_mends_it_depends_on_what_was_done() {
        for (step, errno, expected) in [
            (RUN, Errno::EINVAL, "5.18"),
            (LOAD, Errno::EPERM, "CAP_BPF"),
            ("attach XDP to eth7", Errno::EBUSY, "bpftool"),
        ] {
            let text = LiveError::kernel(step, &io::Error::from(errno)).to_string();
            assert!(text.contains(step) && text.contains(expected), "{text}");
        }
    }
}

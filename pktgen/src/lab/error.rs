//! What can go wrong while a lab is built, and what mends it.

use std::io;

use nix::errno::Errno;

/// A step of the lab that failed.
#[derive(Debug, thiserror::Error)]
#[error("{step}: {source}{}", remedy_clause(.remedy))]
pub struct LabError {
    /// What was being done, with the names concerned.
    pub step: String,
    /// What the kernel answered.
    #[source]
    pub source: io::Error,
    /// What usually mends it, in one sentence for an operator.
    pub remedy: Option<&'static str>,
}

impl LabError {
    pub(crate) fn new(step: impl Into<String>, source: io::Error) -> Self {
        let step = step.into();
        let remedy = remedy(&step, &source);
        Self { step, source, remedy }
    }

    pub(crate) fn errno(step: impl Into<String>, errno: Errno) -> Self {
        Self::new(step, errno.into())
    }

    /// Nothing of the kernel's fits: the library answered with text only.
    pub(crate) fn other(step: impl Into<String>, what: impl std::fmt::Display) -> Self {
        Self::new(step, io::Error::other(what.to_string()))
    }

    /// The kernel's error number, if it was the kernel that refused.
    #[must_use]
    pub fn raw_os_error(&self) -> Option<i32> {
        self.source.raw_os_error()
    }
}

fn remedy_clause(remedy: &Option<&'static str>) -> String {
    remedy.map(|text| format!(" ({text})")).unwrap_or_default()
}

fn remedy(step: &str, source: &io::Error) -> Option<&'static str> {
    let errno = Errno::from_raw(source.raw_os_error()?);
    Some(match errno {
        Errno::EPERM | Errno::EACCES if step.contains("namespace") => {
            "network namespaces need CAP_SYS_ADMIN, and links in them CAP_NET_ADMIN: run with sudo"
        }
        Errno::EPERM | Errno::EACCES => "changing links needs CAP_NET_ADMIN: run with sudo",
        Errno::EOPNOTSUPP if step.contains("veth") => "the kernel module veth is missing: sudo modprobe veth",
        Errno::EOPNOTSUPP if step.contains("bridge") => "the kernel module bridge is missing: sudo modprobe bridge",
        Errno::EINVAL if step.contains("make a network namespace") => {
            "this kernel was built without network namespaces (CONFIG_NET_NS)"
        }
        Errno::ENOSPC if step.contains("namespace") => "too many namespaces: see /proc/sys/user/max_net_namespaces",
        Errno::EEXIST => "an interface or entry of that name is there already",
        Errno::ENODEV => "there is no such interface in this network namespace",
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_message_says_what_is_missing_and_what_to_do() {
        let cases = [
            ("make a network namespace", Errno::EPERM, "CAP_SYS_ADMIN"),
            ("make a network namespace", Errno::EPERM, "sudo"),
            ("create the veth pair a-b", Errno::EOPNOTSUPP, "modprobe veth"),
            ("create the bridge br0", Errno::EOPNOTSUPP, "modprobe bridge"),
            ("set a up", Errno::EPERM, "CAP_NET_ADMIN"),
        ];
        for (step, errno, expected) in cases {
            let text = LabError::errno(step, errno).to_string();
            assert!(text.starts_with(step) && text.contains(expected), "{text}");
        }
        assert_eq!(LabError::errno("x", Errno::EIO).remedy, None);
    }
}

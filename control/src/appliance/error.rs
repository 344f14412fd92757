//! Why the appliance could not start, or did not take a table.

use config::Report;

use crate::compile::CompileError;
use crate::interface::InterfaceError;
use crate::plan::PlanError;

/// Why the appliance could not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The configuration is not valid.
    #[error("the configuration is not valid")]
    Config(Report),
    /// It is valid but cannot become a table.
    #[error(transparent)]
    Compile(#[from] CompileError),
    /// An interface cannot be used.
    #[error(transparent)]
    Interface(#[from] InterfaceError),
    /// Interfaces, queues and workers do not fit together.
    #[error(transparent)]
    Plan(#[from] PlanError),
    /// A socket cannot be made.
    #[error("port `{port}` ({interface}), queue {queue}: {cause}")]
    Socket {
        /// Port in the configuration.
        port: String,
        /// Its interface.
        interface: String,
        /// Queue.
        queue: u32,
        /// What the kernel said.
        cause: af_xdp::Error,
    },
    /// The frames cannot be had.
    #[error("frames of worker {worker}: {cause}")]
    Umem {
        /// Worker.
        worker: usize,
        /// What the kernel said.
        cause: af_xdp::Error,
    },
    /// The XDP program cannot be loaded or attached.
    #[error("port `{port}`: {cause}")]
    Program {
        /// Port in the configuration.
        port: String,
        /// What the kernel said.
        cause: dataplane::port::ProgramError,
    },
    /// The fail-open bridge cannot be set up.
    #[error("bridge `{bridge}`: {cause}")]
    Bridge {
        /// The bridge.
        bridge: String,
        /// What went wrong.
        cause: String,
    },
    /// A thread could not be started.
    #[error("cannot start a worker thread: {0}")]
    Thread(std::io::Error),
}

impl StartError {
    /// What the operator can do, if the message does not already say it.
    #[must_use]
    pub fn remedy(&self) -> Option<String> {
        match self {
            StartError::Socket { cause, .. } | StartError::Umem { cause, .. } => cause.remedy().map(str::to_owned),
            StartError::Program { cause, .. } => Some(cause.remedy().to_owned()),
            StartError::Interface(error) => error.remedy(),
            StartError::Plan(error) => Some(error.remedy()),
            StartError::Bridge { .. } => {
                Some("the name must be free or belong to a bridge; weir needs CAP_NET_ADMIN to set it up".into())
            }
            _ => None,
        }
    }

    /// Whether the operator's input is at fault, rather than the machine: exit status 2 instead of 1.
    #[must_use]
    pub fn is_configuration(&self) -> bool {
        matches!(self, StartError::Config(_) | StartError::Compile(_))
    }
}

/// Why a reload was refused. The table before it goes on.
#[derive(Debug, thiserror::Error)]
pub enum ReloadError {
    /// The files are not valid.
    #[error("{}", .0.render_first(MESSAGES_SHOWN, false).trim_end())]
    Config(Report),
    /// They are valid but cannot become a table.
    #[error(transparent)]
    Compile(#[from] CompileError),
    /// They change what only a restart can change.
    #[error("{what} changed: that takes a restart (`systemctl restart weir`); the running table goes on")]
    NeedsRestart {
        /// What changed.
        what: String,
    },
}

/// Messages about a configuration that are said: what one reads. A hundred thousand contracts with a mistake each would be
/// tens of megabytes in the log, in every status, and on the control thread's hands.
pub const MESSAGES_SHOWN: usize = 20;

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    #[test]
    fn a_mistake_in_each_of_a_thousand_services_is_said_in_a_few_lines() {
        let service = |number| format!("[[service]]\nname = \"s{number}\"\nendpoints = [\"nonsense\"]\n");
        let text: String = (0..1_000).map(service).collect();
        let report = config::load_texts((Path::new("weir.toml"), &text), &[]).expect_err("nonsense");
        let more = report.len() - MESSAGES_SHOWN;
        let said = ReloadError::Config(report).to_string();
        assert!(said.lines().count() < 400, "{said}");
        assert!(
            said.ends_with(&format!("and {more} more: `weir check` shows all of them")),
            "{said}"
        );
    }
}

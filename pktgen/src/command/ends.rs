//! Between which interfaces, on which cores.

use pktgen::lab::Namespace;
use pktgen::trial::End;

use super::{Failure, usage};

#[derive(clap::Args)]
pub(super) struct Ends {
    /// Interface to send on
    #[arg(long, value_name = "IF")]
    tx: String,
    /// Interface to receive on
    #[arg(long, value_name = "IF")]
    rx: String,
    /// Network namespace of the sending interface, as `ip netns` names it [default: this one]
    #[arg(long, value_name = "NAME")]
    tx_netns: Option<String>,
    /// Network namespace of the receiving interface [default: this one]
    #[arg(long, value_name = "NAME")]
    rx_netns: Option<String>,
    /// Cores to send from, one for each queue used, such as 0,2
    #[arg(long, value_name = "LIST", value_delimiter = ',', default_value = "0")]
    tx_cpus: Vec<usize>,
    /// Core to receive on; the same as a single sender's: they take turns [default: the next after the senders']
    #[arg(long, value_name = "N")]
    rx_cpu: Option<usize>,
}

/// The ends, opened.
pub(super) struct Opened {
    pub(super) transmit: End,
    pub(super) receive: End,
    pub(super) transmit_cpus: Vec<usize>,
    pub(super) receive_cpu: Option<usize>,
}

impl Ends {
    pub(super) fn open(&self) -> Result<Opened, Failure> {
        let cores = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
        if let Some(missing) = self.tx_cpus.iter().chain(&self.rx_cpu).find(|&&cpu| cpu >= cores) {
            return Err(usage(format!(
                "there is no core {missing}: this machine has 0 to {}",
                cores - 1
            )));
        }
        let last = self.tx_cpus.iter().max().copied().unwrap_or(0);
        Ok(Opened {
            transmit: end(self.tx_netns.as_deref(), &self.tx)?,
            receive: end(self.rx_netns.as_deref(), &self.rx)?,
            transmit_cpus: self.tx_cpus.clone(),
            receive_cpu: Some(self.rx_cpu.unwrap_or((last + 1) % cores)),
        })
    }
}

/// An interface in a named namespace, or in this one.
pub(super) fn end(namespace: Option<&str>, interface: &str) -> Result<End, Failure> {
    let namespace = match namespace {
        Some(name) => Namespace::named(name)?,
        None => Namespace::current()?,
    };
    Ok(End {
        namespace,
        interface: interface.to_owned(),
    })
}

//! The figures in the form of OpenMetrics 1.0, as Prometheus scrapes them, or of the [`text`] format before it.
//!
//! Names are those of `weir status --json` after `weir_`, what they belong to, and before the unit: `conforming` of a
//! contract is `weir_contract_conforming_packets_total` and `weir_contract_conforming_bytes_total`. Drops by reason are
//! there once the reason has happened to a contract (so that 100,000 contracts stay bounded), and always for a queue.
//!
//! ```text
//!  View ─► Contracts (one reading of all counters) ─┐
//!  Board ─► Status, Change; Watcher ─► ages, links ─┴► Scrape ─► text, piece by piece
//! ```
//!
//! Reading is relaxed loads of what workers count; a scrape writes nothing that they use.

mod contracts;
mod family;
mod samples;
mod state;
pub mod text;

use std::collections::BTreeMap;
use std::fmt::{self, Write};
use std::sync::Arc;

use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, text as openmetrics};
use prometheus_client::registry::Registry;

use crate::api::board::{Board, Change};
use crate::appliance::View;
use crate::metrics::contracts::Contracts;
use crate::metrics::samples::PREFIX;
use crate::status::Status;

/// The media type of what [`Scrape::write`] writes.
pub const CONTENT_TYPE: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// Everything of one scrape, as of one moment.
pub struct Scrape {
    view: Arc<View>,
    contracts: Contracts,
    state: State,
}

/// All but the contracts.
#[derive(Debug)]
struct State {
    status: Status,
    change: Arc<Change>,
    observed: Observed,
}

/// What a [`Watcher`](crate::api::health::Watcher) has seen.
#[derive(Clone, Debug, Default)]
pub struct Observed {
    /// Whether `/readyz` says so.
    pub ready: bool,
    /// Seconds since each worker's last turn.
    pub turn_ages: Vec<f64>,
    /// Whether each interface has its link.
    pub links: BTreeMap<String, bool>,
}

impl Scrape {
    /// Reads everything now. With 100,000 contracts this holds some twenty megabytes until it is dropped.
    #[must_use]
    pub fn read(board: &Board, observed: Observed) -> Self {
        let view = board.view();
        Self {
            contracts: Contracts::read(view.compiled()),
            state: State {
                status: board.status_without_contracts(),
                change: board.change(),
                observed,
            },
            view,
        }
    }

    /// Writes all of it, ending with `# EOF`.
    ///
    /// # Errors
    /// Those of `out`.
    pub fn write(self, out: &mut impl Write) -> fmt::Result {
        let mut registry = Registry::with_prefix(PREFIX);
        registry.register_collector(Box::new(self.state));
        openmetrics::encode_registry(out, &registry)?;
        self.contracts.write(out, self.view.compiled())?;
        openmetrics::encode_eof(out)
    }
}

impl Collector for State {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
        state::write(&mut encoder, &self.status, &self.change, &self.observed)
    }
}

impl fmt::Debug for Scrape {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Scrape")
            .field("state", &self.state)
            .finish_non_exhaustive()
    }
}

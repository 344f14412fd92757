//! Publishing tables: one pointer that workers look at once per turn, and the list of tables not yet let go.
//!
//! The control thread keeps every table until each worker has said that it runs a newer one, so a worker only ever drops a
//! reference and never frees a table itself.

use std::sync::Arc;
use std::time::{Duration, Instant};

use arc_swap::ArcSwap;
use dataplane::contract::ContractTable;
use dataplane::worker::{CurrentTable, WorkerShared};

/// The current table and those before it that a worker may still hold.
pub struct Publisher {
    current: CurrentTable,
    held: Vec<Arc<ContractTable>>,
}

impl Publisher {
    /// Starts with `first`.
    #[must_use]
    pub fn new(first: Arc<ContractTable>) -> Self {
        Self {
            current: Arc::new(ArcSwap::new(first.clone())),
            held: vec![first],
        }
    }

    /// What workers watch.
    #[must_use]
    pub fn current(&self) -> CurrentTable {
        self.current.clone()
    }

    /// Puts `table` in the place of the current one, whole.
    pub fn publish(&mut self, table: Arc<ContractTable>) {
        self.held.push(table.clone());
        self.current.store(table);
    }

    /// Lets go of the tables that all workers have left behind. Returns how many older than the current one remain.
    pub fn retire<'a>(&mut self, workers: impl IntoIterator<Item = &'a WorkerShared>) -> usize {
        let newest = self.current.load().generation;
        let oldest_in_use = workers
            .into_iter()
            .map(WorkerShared::generation)
            .min()
            .unwrap_or(newest);
        self.held.retain(|table| table.generation >= oldest_in_use.min(newest));
        self.held.len() - 1
    }
}

/// Waits until every worker runs `generation` or a newer one. Says whether that came about within `patience`.
pub fn wait_for(workers: &[Arc<WorkerShared>], generation: u64, patience: Duration) -> bool {
    let deadline = Instant::now() + patience;
    while workers.iter().any(|worker| worker.generation() < generation) {
        if Instant::now() > deadline {
            return false;
        }
        std::thread::sleep(Duration::from_micros(200));
    }
    true
}

//! Cells: the state of contracts that outlives a contract table: the buckets, shared by all workers, and the counters,
//! one set per worker.
//!
//! A contract keeps its [`SlotId`] from the table it first appears in to the end of the process, so a packet that waits
//! in a ring over a reload is still counted for the right contract. Cells are added in chunks and never move or shrink:
//! a table holds its own list of chunks, so growing never disturbs a worker that still runs the table before.
//! What removed contracts leave behind is bounded by the number of different contracts an operator ever loads.

use std::sync::Arc;

use crate::meter::Buckets;
use crate::stats::ContractCounters;

/// The cell of a contract, stable for the life of the process.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct SlotId(pub u32);

/// The list of chunks that one table sees. Cloning shares the cells.
#[derive(Clone)]
pub struct Cells {
    buckets: Chunks<Buckets>,
    /// By worker.
    counters: Box<[Chunks<ContractCounters>]>,
}

type Chunks<T> = Box<[Arc<[T]>]>;

/// Cells in a chunk: 16 KiB of buckets, enough for a small box in one piece, and 400 pieces for 100,000 contracts.
const CHUNK: usize = 256;

impl Cells {
    /// No cells yet, for `workers` workers.
    #[must_use]
    pub fn new(workers: usize) -> Self {
        Self {
            buckets: Box::default(),
            counters: (0..workers).map(|_| Box::default()).collect(),
        }
    }

    /// The same cells with room for at least `slots` of them. Control thread only: it allocates.
    #[must_use]
    pub fn grown(&self, slots: usize) -> Self {
        let chunks = slots.div_ceil(CHUNK);
        Self {
            buckets: extended(&self.buckets, chunks, Buckets::new),
            counters: self
                .counters
                .iter()
                .map(|list| extended(list, chunks, ContractCounters::default))
                .collect(),
        }
    }

    /// How many workers have counters here.
    #[must_use]
    pub fn workers(&self) -> usize {
        self.counters.len()
    }

    /// The buckets of a contract.
    #[inline]
    #[must_use]
    pub fn buckets(&self, slot: SlotId) -> &Buckets {
        &self.buckets[slot.0 as usize / CHUNK][slot.0 as usize % CHUNK]
    }

    /// One worker's counters of a contract; only that worker adds to them, anybody may read.
    #[inline]
    #[must_use]
    pub fn counters(&self, worker: usize, slot: SlotId) -> &ContractCounters {
        &self.counters[worker][slot.0 as usize / CHUNK][slot.0 as usize % CHUNK]
    }
}

fn extended<T>(chunks: &[Arc<[T]>], wanted: usize, new: impl Fn() -> T) -> Chunks<T> {
    let mut list: Vec<Arc<[T]>> = chunks.to_vec();
    while list.len() < wanted {
        list.push((0..CHUNK).map(|_| new()).collect());
    }
    list.into_boxed_slice()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::stats::Amount;

    #[test]
    fn growing_keeps_what_was_counted() {
        let small = Cells::new(2).grown(1);
        small
            .counters(1, SlotId(0))
            .conforming
            .add(Amount { packets: 1, bytes: 60 });
        let large = small.grown(CHUNK * 3);
        large
            .counters(1, SlotId(0))
            .conforming
            .add(Amount { packets: 1, bytes: 40 });
        assert_eq!(
            small.counters(1, SlotId(0)).conforming.get(),
            Amount { packets: 2, bytes: 100 }
        );
        assert_eq!(large.counters(0, SlotId(0)).conforming.get(), Amount::default());
        let _last = large.buckets(SlotId(CHUNK as u32 * 3 - 1));
    }
}

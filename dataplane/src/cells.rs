//! Cells: the state of contracts that outlives a contract table: tokens and counters, one set per worker, and the buckets
//! that several workers share.
//!
//! A contract keeps its [`SlotId`] from the table it first appears in to the end of the process, so a packet that waits
//! in a ring over a reload is still counted for the right contract. Cells are added in chunks and never move or shrink:
//! a table holds its own list of chunks, so growing never disturbs a worker that still runs the table before.
//! What removed contracts leave behind is bounded by the number of different contracts an operator ever loads.

use std::sync::Arc;

use crate::clock::Nanos;
use crate::meter::{Buckets, Color, Levels, Meter, Purse, Sharing};
use crate::stats::{Counter, ExcessCounters};

/// The cell of a contract, stable for the life of the process.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct SlotId(pub u32);

/// One worker's part of one contract: all that judging a conforming packet changes. Only that worker writes, anybody may
/// read. What is offered is conforming + nonconforming, so it is not kept.
#[derive(Debug, Default)]
#[repr(C, align(64))]
pub struct Cell {
    /// Tokens.
    pub purse: Purse,
    /// Judged inside the entitlement.
    pub conforming: Counter,
    /// Judged above it.
    pub nonconforming: Counter,
}

#[cfg(not(loom))]
const _: () = assert!(
    size_of::<Cell>() == 64,
    "one worker's part of a contract, one cache line"
);

/// The list of chunks that one table sees. Cloning shares the cells.
#[derive(Clone)]
pub struct Cells {
    workers: Box<[Lists]>,
    /// Empty with one worker, whose purse holds everything.
    shared: Chunks<Buckets>,
}

/// One worker's lists.
#[derive(Clone, Default)]
struct Lists {
    cells: Chunks<Cell>,
    excess: Chunks<ExcessCounters>,
}

/// Chunks of a size known to the compiler: a position in one needs no check.
type Chunks<T> = Box<[Arc<[T; CHUNK]>]>;

/// Cells in a chunk: 16 KiB, enough for a small box in one piece, and 400 pieces for 100,000 contracts.
const CHUNK: usize = 256;

impl Cells {
    /// No cells yet, for `workers` workers.
    #[must_use]
    pub fn new(workers: usize) -> Self {
        Self {
            workers: (0..workers).map(|_| Lists::default()).collect(),
            shared: Box::default(),
        }
    }

    /// The same cells with room for at least `slots` of them. Control thread only: it allocates.
    #[must_use]
    pub fn grown(&self, slots: usize) -> Self {
        let chunks = slots.div_ceil(CHUNK);
        let shared = if self.workers.len() > 1 { chunks } else { 0 };
        let lists = self.workers.iter().map(|lists| Lists {
            cells: extended(&lists.cells, chunks),
            excess: extended(&lists.excess, chunks),
        });
        Self {
            workers: lists.collect(),
            shared: extended(&self.shared, shared),
        }
    }

    /// How many workers have cells here.
    #[must_use]
    pub fn workers(&self) -> usize {
        self.workers.len()
    }

    /// What worker number `worker` sees.
    #[inline]
    #[must_use]
    pub fn of(&self, worker: usize) -> WorkerCells<'_> {
        WorkerCells {
            lists: &self.workers[worker],
            shared: &self.shared,
            workers: self.workers.len(),
        }
    }

    /// Fills the buckets of a contract that begins with `meter`.
    pub fn refill(&self, meter: &Meter, slot: SlotId) {
        match at_slot(&self.shared, slot) {
            None => meter.refill(&self.of(0).cell(slot).purse),
            Some(buckets) => meter.refill_shared(buckets.among(self.workers()), self.purses(slot)),
        }
    }

    /// Fills the buckets of a contract to the `levels` that they had at `at`, in a process before this one. Before any worker
    /// runs.
    pub fn resume(&self, meter: &Meter, slot: SlotId, levels: Levels, at: Nanos) {
        match at_slot(&self.shared, slot) {
            None => meter.resume(&self.of(0).cell(slot).purse, levels, at),
            Some(buckets) => {
                meter.resume_shared(buckets.among(self.workers()), self.purses(slot), levels, at);
            }
        }
    }

    /// How full the buckets of a contract are under its `meter`.
    #[must_use]
    pub fn levels(&self, meter: &Meter, slot: SlotId, now: Nanos) -> Levels {
        match at_slot(&self.shared, slot) {
            None => meter.levels(&self.of(0).cell(slot).purse, now),
            Some(buckets) => meter.levels_shared(buckets.among(self.workers()), self.purses(slot), now),
        }
    }

    /// The colour that `worker` would give a packet of `bytes` at `now`, judged on a copy of the tokens: nothing is taken.
    #[must_use]
    pub fn would_color(
        &self,
        meter: &Meter,
        slot: SlotId,
        worker: usize,
        bytes: u32,
        now: Nanos,
        arrived: Color,
    ) -> Color {
        let purse = self.of(worker).cell(slot).purse.copied();
        match at_slot(&self.shared, slot) {
            None => meter.color(&purse, bytes, now, arrived),
            Some(buckets) => {
                let buckets = buckets.copied();
                meter.color_shared(buckets.among(self.workers()), &purse, bytes, now, arrived)
            }
        }
    }

    fn purses(&self, slot: SlotId) -> impl ExactSizeIterator<Item = &Purse> {
        (0..self.workers()).map(move |worker| &self.of(worker).cell(slot).purse)
    }
}

/// The cells that one worker uses.
#[derive(Clone, Copy)]
pub struct WorkerCells<'a> {
    lists: &'a Lists,
    shared: &'a [Arc<[Buckets; CHUNK]>],
    workers: usize,
}

impl<'a> WorkerCells<'a> {
    /// The worker's part of a contract.
    #[inline]
    #[must_use]
    pub fn cell(&self, slot: SlotId) -> &'a Cell {
        &self.lists.cells[slot.0 as usize / CHUNK][slot.0 as usize % CHUNK]
    }

    /// The worker's counters of what became of a contract's excess.
    #[inline]
    #[must_use]
    pub fn excess(&self, slot: SlotId) -> &'a ExcessCounters {
        &self.lists.excess[slot.0 as usize / CHUNK][slot.0 as usize % CHUNK]
    }

    /// The buckets that it shares; `None` for an only worker.
    #[inline]
    #[must_use]
    pub fn sharing(&self, slot: SlotId) -> Option<Sharing<'a>> {
        at_slot(self.shared, slot).map(|buckets| buckets.among(self.workers))
    }
}

#[inline]
fn at_slot<T>(chunks: &[Arc<[T; CHUNK]>], slot: SlotId) -> Option<&T> {
    chunks
        .get(slot.0 as usize / CHUNK)
        .map(|chunk| &chunk[slot.0 as usize % CHUNK])
}

fn extended<T: Default>(chunks: &[Arc<[T; CHUNK]>], wanted: usize) -> Chunks<T> {
    let mut list = chunks.to_vec();
    while list.len() < wanted {
        list.push(Arc::new(std::array::from_fn(|_| T::default())));
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
        let add = |cells: &Cells, bytes| {
            let cell = cells.of(1).cell(SlotId(0));
            cell.conforming.add(Amount { packets: 1, bytes });
        };
        add(&small, 60);
        let large = small.grown(CHUNK * 3);
        add(&large, 40);
        let seen = small.of(1).cell(SlotId(0)).conforming.get();
        assert_eq!(seen, Amount { packets: 2, bytes: 100 });
        assert_eq!(large.of(0).cell(SlotId(0)).conforming.get(), Amount::default());
        let _last = large.of(0).excess(SlotId(CHUNK as u32 * 3 - 1));
    }

    #[test]
    fn only_several_workers_share_buckets() {
        assert!(Cells::new(1).grown(1).of(0).sharing(SlotId(0)).is_none());
        assert!(Cells::new(2).grown(1).of(0).sharing(SlotId(0)).is_some());
    }
}

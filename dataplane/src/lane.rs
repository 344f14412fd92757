//! A lane: one queue of both ports of a wire, and the two paths between them. It belongs to one worker.

use std::sync::Arc;

use crate::clock::Nanos;
use crate::contract::{ContractTable, Direction};
use crate::frame::{Batch, FramePool, Umem};
use crate::path::{Path, PortShare};
use crate::port::Port;
use crate::sojourn::PathGauges;
use crate::stats::PathCounters;

/// The ports of a wire by their numbers in the contract tables, and what all workers share about them.
#[derive(Clone, Debug)]
pub struct WireEnds {
    /// Number of the site port and of the wan port.
    pub ports: [usize; 2],
    /// What is shared about sending to each of them.
    pub shares: [Arc<PortShare>; 2],
    /// Random on a network, fixed where the same input must give the same output.
    pub seed: u64,
}

/// One queue of a wire. Index 0 is the site port and the egress path, 1 the wan port and the ingress path.
pub struct Lane<P> {
    ports: [P; 2],
    paths: [Path; 2],
    batch: Batch,
}

impl<P: Port> Lane<P> {
    /// A lane of `worker` between `site` and `wan`.
    #[must_use]
    pub fn new(worker: usize, ends: &WireEnds, site: P, wan: P) -> Self {
        let path = |direction: Direction, to: usize| {
            Path::new(direction, worker, ends.ports[to], ends.shares[to].clone(), ends.seed)
        };
        Self {
            ports: [site, wan],
            paths: [path(Direction::Egress, 1), path(Direction::Ingress, 0)],
            batch: Batch::new(),
        }
    }

    /// One turn in both directions: refill, receive up to `max` packets each, judge, send. Returns how many came in.
    #[inline]
    pub fn turn(&mut self, umem: &Umem, pool: &mut FramePool, table: &ContractTable, now: Nanos, max: usize) -> usize {
        let [site, wan] = &mut self.ports;
        let [egress, ingress] = &mut self.paths;
        let mut trip = |path: &mut Path, from: &mut P, to: &mut P| {
            from.rx_batch(max, &mut self.batch);
            let received = self.batch.len();
            if received > 0 {
                path.admit(&mut self.batch, from.has_partial_checksums(), umem, pool, table, now);
            }
            // Twice the batch: a backlog shrinks even while a full batch comes in each time.
            path.drain(to, umem, pool, table, now, 2 * max);
            // After draining, so that completed frames can go straight back.
            from.refill(pool);
            received
        };
        trip(egress, site, wan) + trip(ingress, wan, site)
    }

    /// Takes down what other workers would wait for; see [`Path::retire`].
    pub fn retire(&self) {
        self.paths.iter().for_each(Path::retire);
    }

    /// The earliest instant at which a held packet may leave; `None` when nothing is held.
    #[must_use]
    pub fn next_departure(&self, table: &ContractTable, now: Nanos) -> Option<Nanos> {
        self.paths
            .iter()
            .filter_map(|path| path.next_departure(table, now))
            .min()
    }

    /// Packets waiting in the rings of both paths.
    #[must_use]
    pub fn held(&self) -> usize {
        self.paths.iter().map(Path::held).sum()
    }

    /// The ledgers, by [`Direction`].
    #[must_use]
    pub fn counters(&self) -> [PathCounters; 2] {
        [self.paths[0].counters(), self.paths[1].counters()]
    }

    /// What others may read of the priority rings, by [`Direction`].
    #[must_use]
    pub fn gauges(&self) -> [Arc<PathGauges>; 2] {
        [self.paths[0].gauges().clone(), self.paths[1].gauges().clone()]
    }

    /// The site port and the wan port.
    #[must_use]
    pub fn ports(&self) -> &[P; 2] {
        &self.ports
    }

    /// The same, to put packets in and take them out (memory ports).
    pub fn ports_mut(&mut self) -> &mut [P; 2] {
        &mut self.ports
    }

    /// Frames in the rings and ports of this lane, for the audit that none is missing.
    #[must_use]
    pub fn frames_inside(&self) -> usize {
        self.held() + self.ports.iter().map(Port::frames_inside).sum::<usize>()
    }
}

//! What weir tells about itself: the one shape of counters, used by `weir status`, `weir replay --report` and the demo.
//!
//! Every name here is part of the interface: scripts read it. Packets and bytes always come together; bytes of contracts
//! are those of the counted layer, bytes of the ledger are frame bytes without FCS.

use std::collections::BTreeMap;

use dataplane::cells::{Cells, SlotId};
use dataplane::contract::Direction;
use dataplane::meter::Color;
use dataplane::priority::Half;
use dataplane::stats::{Amount, DropReason, PathCounters};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::change::diff::ContractName;
use crate::observe::Rates;

/// Packets and bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Count {
    /// Packets.
    pub packets: u64,
    /// Bytes.
    pub bytes: u64,
}

impl From<Amount> for Count {
    fn from(amount: Amount) -> Self {
        Self {
            packets: amount.packets,
            bytes: amount.bytes,
        }
    }
}

impl std::ops::Add for Count {
    type Output = Count;
    fn add(self, more: Count) -> Count {
        Count {
            packets: self.packets + more.packets,
            bytes: self.bytes + more.bytes,
        }
    }
}

/// The counters of one contract, or of what stands in for one.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Counters {
    /// Conforming and nonconforming together.
    pub offered: Count,
    /// Judged inside the entitlement.
    pub conforming: Count,
    /// Judged above it.
    pub nonconforming: Count,
    /// Of those, with DSCP or PCP changed.
    pub remarked: Count,
    /// Dropped, by reason; reasons that never happened are left out. Not among them: `device`, which only the ledger has,
    /// because a packet that was given to the port is no longer known by its contract.
    pub dropped: BTreeMap<String, Count>,
    /// Of the dropped, those judged inside the entitlement: exact, whatever the reason.
    #[serde(default)]
    pub conforming_dropped: Count,
}

impl Counters {
    /// Sums a slot over all workers.
    #[must_use]
    pub fn read(cells: &Cells, slot: SlotId) -> Self {
        let mut sum = Self::default();
        for worker in (0..cells.workers()).map(|worker| cells.of(worker)) {
            let (cell, excess) = (worker.cell(slot), worker.excess(slot));
            // What was judged is read after what became of it, so that the latter never seems larger.
            for reason in DropReason::ALL {
                add_drop(&mut sum.dropped, reason.name(), excess.dropped(reason).get());
            }
            sum.conforming_dropped = sum.conforming_dropped + excess.conforming_dropped.get().into();
            sum.remarked = sum.remarked + excess.remarked.get().into();
            sum.nonconforming = sum.nonconforming + cell.nonconforming.get().into();
            sum.conforming = sum.conforming + cell.conforming.get().into();
        }
        sum.offered = sum.conforming + sum.nonconforming;
        sum
    }

    /// Dropped for any reason.
    #[must_use]
    pub fn dropped_in_all(&self) -> Count {
        self.dropped
            .values()
            .copied()
            .fold(Count::default(), |sum, count| sum + count)
    }
}

/// One contract.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct ContractReport {
    /// Service, as configured.
    pub service: String,
    /// Class of service.
    pub class: String,
    /// Region of the box.
    pub region: String,
    /// `egress` or `ingress`.
    pub direction: String,
    /// Far segment, if the contract names one.
    pub segment: Option<String>,
    /// Whether it is within its period; outside it judges nothing.
    pub active: bool,
    /// Committed rate in bit/s of the counted layer.
    pub rate_bps: u64,
    /// Bytes of the burst that can be out of one worker's reach because it shares them with others; 0 with one worker.
    #[serde(default)]
    pub under_grant_bytes: u64,
    /// Tokens in the committed bucket and, if the meter has two, the second, in bytes.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub tokens: Option<Tokens>,
    /// Over the last second and the last minute; a replay has none.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub rates: Option<Rates>,
    /// Counters.
    #[serde(flatten)]
    pub counters: Counters,
}

impl ContractReport {
    /// `service/class/direction`, and `/segment` if it has one: what `weir show contract` takes.
    #[must_use]
    pub fn name(&self) -> String {
        let name = ContractName {
            service: &self.service,
            class: &self.class,
            direction: &self.direction,
            segment: self.segment.as_deref(),
            region: &self.region,
        };
        name.path()
    }
}

/// Bucket levels in whole bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Tokens {
    /// Committed bucket.
    pub committed: u64,
    /// Excess or peak bucket.
    pub second: Option<u64>,
}

/// Traffic of a class that no contract covers.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct UncontractedReport {
    /// Class of service.
    pub class: String,
    /// `egress` or `ingress`.
    pub direction: String,
    /// Over the last second and the last minute; a replay has none.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub rates: Option<Rates>,
    /// Counters.
    #[serde(flatten)]
    pub counters: Counters,
}

/// Packets that are not IP.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct OtherReport {
    /// `egress` or `ingress`.
    pub direction: String,
    /// Over the last second and the last minute; a replay has none.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub rates: Option<Rates>,
    /// Counters.
    #[serde(flatten)]
    pub counters: Counters,
}

/// The ledger of one receiving queue: received = forwarded + kernel + dropped + held, as of one moment.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct LedgerReport {
    /// Receiving port.
    pub port: String,
    /// Its queue.
    pub queue: u32,
    /// Taken from the port by weir, or by its XDP program for the kernel or to drop.
    pub received: Count,
    /// Given to the other port of the wire.
    pub forwarded: Count,
    /// Given to the kernel, because the worker was not running.
    pub kernel: Count,
    /// Dropped, by reason; reasons that never happened are left out.
    pub dropped: BTreeMap<String, Count>,
    /// Waiting in priority rings.
    pub held: Count,
    /// Packets received that none of the others explains: anything but 0 is an error in weir.
    pub unaccounted: i64,
    /// Forwarded with a CE mark that CoDel set instead of a drop.
    pub ce_marked: Count,
    /// Received, but not IP.
    pub other: Count,
}

impl LedgerReport {
    /// The ledger of a path, without what the XDP program did before it.
    #[must_use]
    pub fn new(port: &str, queue: u32, path: &PathCounters) -> Self {
        let mut dropped = BTreeMap::new();
        for reason in DropReason::ALL {
            add_drop(&mut dropped, reason.name(), path.dropped[reason as usize]);
        }
        Self {
            port: port.to_owned(),
            queue,
            received: path.received.into(),
            forwarded: path.forwarded.into(),
            kernel: Count::default(),
            dropped,
            held: path.held.into(),
            unaccounted: path.unaccounted(),
            ce_marked: path.ce_marked.into(),
            other: path.other.into(),
        }
    }

    /// Adds what the XDP program of the port did on this queue.
    #[must_use]
    pub fn with_kernel(mut self, kernel: &dataplane::port::KernelCounters) -> Self {
        for amount in [kernel.to_kernel, kernel.dropped_stale, kernel.dropped_no_socket] {
            self.received = self.received + amount.into();
        }
        self.kernel = kernel.to_kernel.into();
        add_drop(&mut self.dropped, "stalled", kernel.dropped_stale);
        add_drop(&mut self.dropped, "no_socket", kernel.dropped_no_socket);
        self
    }
}

/// The judged traffic and the ledger: what `weir replay --report` writes, and the heart of `weir status`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct TrafficReport {
    /// Contracts in the order of the configuration.
    pub contracts: Vec<ContractReport>,
    /// Uncontracted traffic by class and direction.
    pub uncontracted: Vec<UncontractedReport>,
    /// Packets that are not IP, by direction.
    pub other: Vec<OtherReport>,
    /// By receiving port and queue.
    pub ledger: Vec<LedgerReport>,
}

/// `egress` or `ingress`.
#[must_use]
pub fn direction_name(direction: Direction) -> &'static str {
    match direction {
        Direction::Egress => "egress",
        Direction::Ingress => "ingress",
    }
}

/// `conforming` or `nonconforming`.
#[must_use]
pub fn half_name(half: Half) -> &'static str {
    match half {
        Half::Conforming => "conforming",
        Half::Nonconforming => "nonconforming",
    }
}

/// `green`, `yellow` or `red`.
#[must_use]
pub fn color_name(color: Color) -> &'static str {
    match color {
        Color::Green => "green",
        Color::Yellow => "yellow",
        Color::Red => "red",
    }
}

fn add_drop(dropped: &mut BTreeMap<String, Count>, name: &str, amount: Amount) {
    if amount.packets > 0 {
        let sum = dropped.entry(name.to_owned()).or_default();
        *sum = *sum + amount.into();
    }
}

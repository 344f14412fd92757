//! The contract table: everything a worker needs to judge a packet, compiled, immutable, and numbered by a generation.
//!
//! The control thread builds it and publishes it whole; a worker takes a new one between two batches with one load, so
//! no batch is ever judged by two tables. Two things outlive a table, because buckets must keep their level and counters
//! must never go back over a reload: both live in [`Cells`], and a contract names its cell by a [`SlotId`] that stays the
//! same for as long as the process runs.

use crate::cells::{Cells, SlotId};
use crate::classify::Classifier;
use crate::meter::{Color, Meter};
use crate::packet::{Dscp, Pcp};
use crate::priority::{Half, Order, RingId};
use crate::shaper::ShaperRate;

/// Where a packet is going, seen from the region the box stands in (hose model).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Direction {
    /// From a site port to a wan port: leaves the region.
    Egress,
    /// From a wan port to a site port: enters the region.
    Ingress,
}

impl Direction {
    /// Both, in the order in which arrays indexed by a direction hold them.
    pub const BOTH: [Direction; 2] = [Direction::Egress, Direction::Ingress];

    /// The position in an array of two.
    #[inline]
    #[must_use]
    pub fn index(self) -> usize {
        self as usize
    }
}

/// Which bytes of a packet count against rates and bursts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Layer {
    /// IP total length, as RFC 2697 section 1 says; of a packet that is not IP, what follows the Ethernet header and tags.
    L3,
    /// The Ethernet frame without its FCS.
    L2,
    /// What the wire is busy with: the frame, FCS (4), preamble and start delimiter (8) and inter-packet gap (12).
    L1,
}

impl Layer {
    /// The counted bytes of a packet with `wire_len` bytes of frame (no FCS), of which `l3_len` are the IP packet.
    #[inline]
    #[must_use]
    pub fn count(self, wire_len: u32, l3_len: u32) -> u32 {
        const L1_OVERHEAD: u32 = 4 + 8 + 12;
        match self {
            Layer::L3 => l3_len,
            Layer::L2 => wire_len,
            Layer::L1 => wire_len.saturating_add(L1_OVERHEAD),
        }
    }
}

/// A class of service: the rings that its packets go through, the same over reloads.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct ClassId(pub RingId);

impl ClassId {
    /// The position in an array of [`MAX_CLASSES`](crate::priority::MAX_CLASSES).
    #[inline]
    #[must_use]
    pub fn index(self) -> usize {
        self.0.index()
    }
}

/// How DSCP and PCP lead to a class and to the colour a packet arrives with.
#[derive(Clone, Debug)]
pub struct ClassMap {
    /// By DSCP (0 to 63): the class that lists it and the colour it stands for.
    pub by_dscp: [Option<(ClassId, Color)>; 64],
    /// By PCP of the outer tag (0 to 7), for packets whose DSCP no class lists.
    pub by_pcp: [Option<ClassId>; 8],
    /// The class of everything else.
    pub default: ClassId,
}

impl ClassMap {
    /// The class and colour of an IP packet as it arrives.
    #[inline]
    #[must_use]
    pub fn class(&self, dscp: Dscp, pcp: Option<Pcp>) -> (ClassId, Color) {
        if let Some(found) = self.by_dscp[usize::from(dscp.get() & 63)] {
            return found;
        }
        let by_pcp = pcp.and_then(|pcp| self.by_pcp[usize::from(pcp.get() & 7)]);
        (by_pcp.unwrap_or(self.default), Color::Green)
    }
}

/// What happens to the packets of a contract that do not conform.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    /// Nonconforming ring, and the marks of [`Contract::marking`].
    Remark,
    /// Nonconforming ring, marks untouched.
    Queue,
    /// Dropped at once: a hard policer.
    Drop,
}

/// The marks that [`Action::Remark`] writes; what is `None` stays as it arrived.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Marking {
    /// DSCP of excess; the ECN bits beside it are left alone.
    pub dscp: Option<Dscp>,
    /// PCP of excess, in the outer tag of tagged packets.
    pub pcp: Option<Pcp>,
}

/// Who decides whether a packet conforms.
#[derive(Clone, Copy, Debug)]
pub enum Judge {
    /// The contract's meter.
    Meter(Meter),
    /// Nobody measures: uncontracted traffic and packets that are not IP always go to this half.
    Always(Half),
}

/// One compiled entry: a contract, or what stands in for one (uncontracted traffic of a class, packets that are not IP).
#[derive(Clone, Copy, Debug)]
#[repr(align(64))]
pub struct Contract {
    /// Who decides.
    pub judge: Judge,
    /// What happens to the excess.
    pub action: Action,
    /// What [`Action::Remark`] writes.
    pub marking: Marking,
    /// The class whose rings the packets go through.
    pub class: ClassId,
    /// Buckets and counters.
    pub slot: SlotId,
}

const _: () = assert!(size_of::<Contract>() == 64, "one entry, one cache line");

/// The position of a [`Contract`] in its table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ContractIndex(pub u32);

/// All contracts compiled for the workers. Immutable once published.
pub struct ContractTable {
    /// Counts up by one with each published table, from 1.
    pub generation: u64,
    /// Which bytes count, for meters, port rates, and the byte counters of contracts.
    pub layer: Layer,
    /// DSCP and PCP to class.
    pub classes: ClassMap,
    /// The order in which rings drain.
    pub order: Order,
    /// (service, class, direction, segment) to contract.
    pub classifier: Classifier,
    /// All entries; [`ContractIndex`] points here.
    pub contracts: Box<[Contract]>,
    /// The entries of packets that are not IP, by direction.
    pub other: [ContractIndex; 2],
    /// Rate of each port, by its number in the configuration; `None` where the device is the only limit.
    pub port_rates: Box<[Option<ShaperRate>]>,
    /// Buckets and counters, shared by all tables of the process.
    pub cells: Cells,
}

impl ContractTable {
    /// The entry at `index`.
    #[inline]
    #[must_use]
    pub fn contract(&self, index: ContractIndex) -> &Contract {
        &self.contracts[index.0 as usize]
    }
}

impl std::fmt::Debug for ContractTable {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ContractTable")
            .field("generation", &self.generation)
            .field("contracts", &self.contracts.len())
            .finish_non_exhaustive()
    }
}

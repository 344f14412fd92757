//! The compiled tables, and what they are compiled from.

use super::contracts::{Contracts, Found};
use super::prefix::{self, Prefix};
use super::service::{Endpoints, PortRange, Search, ServiceId, ServiceTable};
use super::tree::{Forest, TooLarge, Tree, VALUE_MAX};
use crate::contract::{ClassId, ContractIndex, Direction};
use crate::packet::{Family, Headers};
use crate::prefetch::prefetch;

/// A set of far-side prefixes, by its place in the configuration the table was compiled from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SegmentId(pub u32);

/// What a contract is looked up by.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct ContractKey {
    /// Whose traffic.
    pub service: ServiceId,
    /// In which class.
    pub class: ClassId,
    /// Which way.
    pub direction: Direction,
    /// To or from which far prefixes; `None`: all.
    pub segment: Option<SegmentId>,
}

/// What a [`Classifier`] is compiled from.
#[derive(Clone, Debug)]
pub struct ClassifierBuilder {
    endpoints: Endpoints,
    /// By [`Family`].
    segments: [Vec<(Prefix, SegmentId)>; 2],
    contracts: Vec<(ContractKey, ContractIndex)>,
    uncontracted: Vec<[ContractIndex; 2]>,
}

/// The compiled tables. Their memory is proportional to what they were compiled from: see [`Classifier::bytes`].
#[derive(Clone, Debug)]
pub struct Classifier {
    services: ServiceTable,
    segments: Segments,
    contracts: Contracts,
    /// Where packets without a contract go, by class and direction.
    uncontracted: Vec<[ContractIndex; 2]>,
    /// Whether the tables are larger than [`NEAR_BYTES`].
    far: bool,
}

/// What a second-level cache holds beside everything else. In tables up to this size a lookup by itself is faster: it waits
/// for nothing, and going in step with others costs 15 to 20 ns. In larger ones waiting costs several times that.
const NEAR_BYTES: usize = 256 << 10;

/// Far prefixes to segments.
#[derive(Clone, Debug)]
struct Segments {
    forest: Forest,
    /// By [`Family`].
    trees: [Tree; 2],
    /// The segment of each prefix, and the place plus 1 of the next shorter prefix around it. A value of a tree is such a
    /// place plus 1 as well; 0 is none.
    chain: Vec<(SegmentId, u32)>,
}

impl ClassifierBuilder {
    /// Nothing yet. `uncontracted` gives, for each [`ClassId`] in turn, the entries by direction.
    #[must_use]
    pub fn new(uncontracted: Vec<[ContractIndex; 2]>) -> Self {
        Self {
            endpoints: Endpoints::default(),
            segments: [Vec::new(), Vec::new()],
            contracts: Vec::new(),
            uncontracted,
        }
    }

    /// Adds an endpoint. Bits of the address (right-aligned) beyond the length are ignored, a length beyond the address is
    /// taken as a host's. Of several services with the same endpoint, which the configuration refuses, the first stays.
    pub fn insert_endpoint(
        &mut self,
        family: Family,
        address: u128,
        length: u8,
        ports: Option<PortRange>,
        service: ServiceId,
    ) {
        let prefix = Prefix::new(family, address, length);
        self.endpoints.insert(family, prefix, ports, service);
    }

    /// Adds a prefix to a segment. Of several segments of a prefix, which the configuration refuses, the first stays.
    pub fn insert_segment(&mut self, family: Family, address: u128, length: u8, segment: SegmentId) {
        self.segments[family as usize].push((Prefix::new(family, address, length), segment));
    }

    /// Adds a contract. Of several of one key, which the configuration refuses, the last stays.
    pub fn insert_contract(&mut self, key: ContractKey, contract: ContractIndex) {
        self.contracts.push((key, contract));
    }

    /// Compiles. On the control thread: it sorts, and takes some 0.2 s for 1,000,000 prefixes.
    ///
    /// # Errors
    /// More than the tables can number.
    pub fn compile(self) -> Result<Classifier, TooLarge> {
        let mut classifier = Classifier {
            services: self.endpoints.compile()?,
            segments: Segments::compile(self.segments)?,
            contracts: Contracts::compile(self.contracts),
            uncontracted: self.uncontracted,
            far: false,
        };
        classifier.far = classifier.bytes() > NEAR_BYTES;
        Ok(classifier)
    }
}

impl Segments {
    fn compile(by_family: [Vec<(Prefix, SegmentId)>; 2]) -> Result<Self, TooLarge> {
        let mut forest = Forest::default();
        let nothing = forest.plant(0, &[], true)?;
        let mut segments = Self {
            forest,
            trees: [nothing; 2],
            chain: Vec::new(),
        };
        for (family, mut prefixes) in by_family.into_iter().enumerate() {
            // Stable, so that the first of several stays the first.
            prefixes.sort_by_key(|(prefix, _)| *prefix);
            prefixes.dedup_by_key(|(prefix, _)| *prefix);
            let chain = &mut segments.chain;
            let boundaries = prefix::boundaries(prefixes.into_iter(), |segment, around| {
                chain.push((segment, around));
                chain.len() as u32
            });
            if segments.chain.len() >= VALUE_MAX as usize {
                return Err(TooLarge);
            }
            segments.trees[family] = segments.forest.plant(0, &boundaries, false)?;
        }
        segments.forest.shrink();
        segments.chain.shrink_to_fit();
        Ok(segments)
    }

    /// The segments of all prefixes that hold a far address, the longest first.
    fn of(&self, family: Family, address: u128) -> impl Iterator<Item = SegmentId> {
        let mut at = self
            .forest
            .find(self.trees[family as usize], prefix::key(family, address));
        std::iter::from_fn(move || {
            let (segment, around) = self.chain[at.checked_sub(1)? as usize];
            at = around;
            Some(segment)
        })
    }
}

impl Classifier {
    /// The service of a packet by its own headers.
    #[inline]
    #[must_use]
    pub fn service(&self, headers: &Headers, direction: Direction) -> Option<ServiceId> {
        let (address, transport) = site_side(headers, direction);
        self.services.find(headers.family, address, transport)
    }

    /// The contract of a packet of `service`: one whose segment holds the far address, the longest prefix first; else the
    /// one without segment; else the entry for uncontracted packets of the class.
    #[inline]
    #[must_use]
    pub fn contract(
        &self,
        service: Option<ServiceId>,
        class: ClassId,
        direction: Direction,
        headers: &Headers,
    ) -> ContractIndex {
        let contracts = &self.contracts;
        let entry = service
            .and_then(|service| contracts.of_service(service))
            .and_then(|of| contracts.entry_of(of, class, direction));
        self.judge(entry, class, direction, headers)
    }

    /// Bytes that the tables take.
    #[must_use]
    pub fn bytes(&self) -> usize {
        let segments = self.segments.forest.bytes() + size_of_val(&self.segments.chain[..]);
        self.services.bytes() + segments + self.contracts.bytes() + size_of_val(&self.uncontracted[..])
    }

    /// Whether the tables are so large that packets should wait for them together.
    #[inline]
    pub(super) fn is_far(&self) -> bool {
        self.far
    }

    /// The contract that an entry stands for.
    #[inline]
    pub(super) fn judge(
        &self,
        entry: Option<&u32>,
        class: ClassId,
        direction: Direction,
        headers: &Headers,
    ) -> ContractIndex {
        let contracted = match entry.map(|&entry| self.contracts.found(entry)) {
            Some(Found::Whole(index)) => Some(index),
            Some(Found::BySegment(of)) => {
                let far = match direction {
                    Direction::Egress => headers.dst,
                    Direction::Ingress => headers.src,
                };
                self.contracts.by_segment(of, self.segments.of(headers.family, far))
            }
            None => None,
        };
        contracted.unwrap_or_else(|| self.uncontracted[class.index()][direction.index()])
    }
}

/// For packets that go through the tables together, a read of each in turn. Each step begins to load what the next one
/// reads, so that the packets wait for memory together.
impl Classifier {
    /// Begins to look for the service.
    #[inline]
    pub(super) fn begin(&self, headers: &Headers, direction: Direction) -> Search {
        let (address, transport) = site_side(headers, direction);
        let search = self.services.begin(headers.family, address, transport);
        self.services.prefetch(&search);
        search
    }

    /// One read further; says whether the search is over.
    #[inline]
    pub(super) fn step(&self, search: &mut Search) -> bool {
        if search.is_over() {
            return true;
        }
        self.services.step(search);
        if !search.is_over() {
            self.services.prefetch(search);
        } else if let Some(of) = search.service().and_then(|service| self.contracts.of_service(service)) {
            prefetch(of);
        }
        search.is_over()
    }

    /// Where the contract stands, when the search is over.
    #[inline]
    pub(super) fn entry(&self, search: &Search, class: ClassId, direction: Direction) -> Option<&u32> {
        let of = self.contracts.of_service(search.service()?)?;
        let entry = self.contracts.entry_of(of, class, direction)?;
        prefetch(entry);
        Some(entry)
    }
}

/// The site-side address of a packet, with the protocol and the port there if it has one.
#[inline]
fn site_side(headers: &Headers, direction: Direction) -> (u128, Option<(u8, u16)>) {
    let (address, port) = match direction {
        Direction::Egress => (headers.src, headers.ports.map(|ports| ports.src)),
        Direction::Ingress => (headers.dst, headers.ports.map(|ports| ports.dst)),
    };
    (address, port.map(|port| (headers.protocol, port)))
}

//! The order in which the rings of one half drain, compiled once from the classes.
use super::{MAX_CLASSES, RingId};

/// What a round of deficit round robin grants at least, and less than twice, to the heaviest ring that waits: above one full
/// frame of a 1500-byte MTU in any layer, so that every round sends. A power of two, so that every weight times it is in
/// proportion to the byte. Smaller makes more rounds for the same packets; larger makes the bursts of a ring longer.
pub const QUANTUM_BYTES: u64 = 2048;

/// How one class drains.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ClassOrder {
    /// Its ring in both halves.
    pub ring: RingId,
    /// Smaller drains first.
    pub priority: u16,
    /// Share among classes of equal priority, 1 to 1000 (clamped).
    pub weight: u16,
    /// Thousandths of what its half sends that the class gets at least while it waits; 0 is none, at most 1000 (clamped).
    pub min_share_permille: u16,
}

/// All classes' order; immutable, part of the contract table.
#[derive(Clone, Debug)]
pub struct Order {
    /// Rings of equal priority, most urgent first; the last level in use is of the rings no class has.
    levels: [u32; MAX_CLASSES + 1],
    weight: [u16; MAX_CLASSES],
    share: [u16; MAX_CLASSES],
    share_sum: u32,
    shared: u32,
}

impl Order {
    /// Compiles `classes`. The first of two classes with the same ring counts. Rings without a class drain last, as equals.
    #[must_use]
    pub fn new(classes: &[ClassOrder]) -> Self {
        let mut order = Self {
            levels: [0; MAX_CLASSES + 1],
            weight: [1; MAX_CLASSES],
            share: [0; MAX_CLASSES],
            share_sum: 0,
            shared: 0,
        };
        let mut by_ring: [Option<ClassOrder>; MAX_CLASSES] = [None; MAX_CLASSES];
        for class in classes {
            by_ring[class.ring.index()].get_or_insert(*class);
        }
        let mut left = by_ring;
        let mut levels = 0;
        while let Some(priority) = left.iter().flatten().map(|class| class.priority).min() {
            for (index, slot) in left.iter_mut().enumerate() {
                let Some(class) = slot.take_if(|class| class.priority == priority) else {
                    continue;
                };
                order.levels[levels] |= 1 << index;
                order.weight[index] = class.weight.clamp(1, 1000);
                order.share[index] = class.min_share_permille.min(1000);
                order.share_sum += u32::from(order.share[index]);
                order.shared |= u32::from(class.min_share_permille > 0) << index;
            }
            levels += 1;
        }
        let listed = order.levels.iter().fold(0, |all, level| all | level);
        order.levels[levels] = !listed;
        order
    }

    /// The rings of `occupied`, which is not 0, that are of the first level with such.
    #[inline]
    pub(super) fn most_urgent(&self, occupied: u32) -> u32 {
        let found = self
            .levels
            .iter()
            .map(|level| level & occupied)
            .find(|rings| *rings != 0);
        found.unwrap_or(occupied)
    }

    #[inline]
    pub(super) fn weight(&self, ring: usize) -> u64 {
        u64::from(self.weight[ring])
    }

    #[inline]
    pub(super) fn share(&self, ring: usize) -> u64 {
        u64::from(self.share[ring])
    }

    /// Whether all minimum shares together are more than the whole.
    #[inline]
    pub(super) fn is_oversubscribed(&self) -> bool {
        self.share_sum > 1000
    }

    /// The rings with a minimum share.
    #[inline]
    pub(super) fn shared(&self) -> u32 {
        self.shared
    }
}

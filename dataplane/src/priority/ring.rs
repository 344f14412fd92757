//! One bounded FIFO with its fixed memory, its CoDel state and its accounts with the scheduler.
use std::mem::{offset_of, size_of};

use super::Entry;
use crate::codel::Codel;

/// What every packet touches comes first, in one line; CoDel's times and counts follow in the next.
#[repr(C, align(64))]
pub(super) struct Ring<T> {
    slots: Box<[Option<Entry<T>>]>,
    /// Capacity less one: what is left of a position is its slot.
    mask: u32,
    /// Position of the oldest entry. Positions run on and wrap.
    head: u32,
    /// Position after the youngest entry.
    tail: u32,
    /// The greatest length before entries were taken.
    len_max: u32,
    bytes: u64,
    /// Bytes this ring may still send in its visit of the round.
    pub(super) deficit: u64,
    /// What is owed from the minimum share, in thousandths of bytes.
    pub(super) credit: u64,
    codel: Codel,
}

const _: () = assert!(size_of::<Ring<[u64; 3]>>() == 128);
const _: () = assert!(offset_of!(Ring<[u64; 3]>, codel) + Codel::HOT_BYTES <= 64);
/// What waits in a path's rings is as large as this: an entry is one line, and an empty slot needs no byte more.
const _: () = assert!(size_of::<Option<Entry<[u64; 6]>>>() == 64);

impl<T> Ring<T> {
    /// `capacity` is a power of two, at most 65536.
    pub(super) fn new(capacity: usize) -> Self {
        Self {
            slots: (0..capacity).map(|_| None).collect(),
            mask: capacity as u32 - 1,
            head: 0,
            tail: 0,
            len_max: 0,
            bytes: 0,
            deficit: 0,
            credit: 0,
            codel: Codel::default(),
        }
    }

    #[inline]
    pub(super) fn len(&self) -> usize {
        self.tail.wrapping_sub(self.head) as usize
    }

    pub(super) fn bytes(&self) -> u64 {
        self.bytes
    }

    /// The most entries ever held. A ring is longest just before entries are taken, or now.
    pub(super) fn high_watermark(&self) -> usize {
        self.len().max(self.len_max as usize)
    }

    /// The bytes of the oldest entry; 0 of an empty ring.
    #[inline]
    pub(super) fn head_bytes(&self) -> u64 {
        let head = self.slots.get((self.head & self.mask) as usize);
        head.and_then(Option::as_ref).map_or(0, |entry| u64::from(entry.bytes))
    }

    /// Whether the deficit is enough for the oldest entry.
    #[inline]
    pub(super) fn head_is_paid(&self) -> bool {
        self.deficit >= self.head_bytes()
    }

    /// Gives the entry back if the ring is full.
    #[inline]
    pub(super) fn push(&mut self, entry: Entry<T>) -> Result<(), Entry<T>> {
        if self.tail.wrapping_sub(self.head) > self.mask {
            return Err(entry);
        }
        let Some(slot) = self.slots.get_mut((self.tail & self.mask) as usize) else {
            return Err(entry);
        };
        self.bytes += u64::from(entry.bytes);
        *slot = Some(entry);
        self.tail = self.tail.wrapping_add(1);
        Ok(())
    }

    /// Takes the oldest entry out if `permits` says so of it, of the bytes behind it and with the ring's CoDel.
    /// [`Ring::rest`] ends a series of these.
    #[inline]
    pub(super) fn take_if(&mut self, permits: impl FnOnce(&Entry<T>, u64, &mut Codel) -> bool) -> Option<Entry<T>> {
        let slot = self.slots.get_mut((self.head & self.mask) as usize)?;
        let mut behind_bytes = 0;
        let entry = slot.take_if(|entry| {
            behind_bytes = self.bytes - u64::from(entry.bytes);
            permits(entry, behind_bytes, &mut self.codel)
        })?;
        self.head = self.head.wrapping_add(1);
        self.bytes = behind_bytes;
        Some(entry)
    }

    /// After a series of [`Ring::take_if`] that began with `len_before` entries: the ring that it emptied loses deficit and
    /// credit. Says whether anything waits.
    #[inline]
    pub(super) fn rest(&mut self, len_before: usize) -> bool {
        self.len_max = self.len_max.max(len_before as u32);
        let waits = self.head != self.tail;
        if !waits {
            // From the front again: a ring that never holds much then uses few cache lines instead of all it has.
            (self.head, self.tail) = (0, 0);
            (self.deficit, self.credit) = (0, 0);
            self.codel.emptied();
        }
        waits
    }
}

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
    /// Entries ever taken out.
    departed: u64,
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
            departed: 0,
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

    /// Entries ever taken out, as of the last [`Ring::rest`].
    pub(super) fn departed(&self) -> u64 {
        self.departed
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
        self.departed += (len_before - self.len()) as u64;
        let waits = self.head != self.tail;
        if !waits {
            // From the front again: a ring that never holds much then uses few cache lines instead of all it has.
            (self.head, self.tail) = (0, 0);
            (self.deficit, self.credit) = (0, 0);
        }
        waits
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::Nanos;

    fn entry(item: u64) -> Entry<u64> {
        Entry {
            item,
            bytes: 100,
            enqueued: Nanos(0),
            drop_first: false,
            ecn_capable: false,
        }
    }

    #[test]
    fn positions_wrap() {
        for (capacity, before) in [(2, 1), (8, 3), (8, 8), (64, 100)] {
            let mut ring = Ring::new(capacity);
            (ring.head, ring.tail) = (u32::MAX - before, u32::MAX - before);
            let (mut pushed, mut taken) = (0, 0);
            for step in 0..400 {
                // Fills, then goes on with as many as fit and never empties, so that positions are not reset.
                let full = ring.len() == capacity;
                assert_eq!(
                    ring.push(entry(pushed)).is_err(),
                    full,
                    "capacity {capacity}, step {step}"
                );
                pushed += u64::from(!full);
                if full || step % 3 == 2 && ring.len() > 1 {
                    let len = ring.len();
                    let entry = ring.take_if(|_, behind_bytes, _| behind_bytes == (len as u64 - 1) * 100);
                    assert_eq!(entry.map(|entry| entry.item), Some(taken));
                    assert!(ring.rest(len));
                    taken += 1;
                }
                assert_eq!(ring.len() as u64, pushed - taken);
                assert_eq!(ring.bytes(), (pushed - taken) * 100);
            }
            assert!(ring.head < u32::MAX / 2, "wrapped");
            assert_eq!(ring.high_watermark(), capacity);
        }
    }

    #[test]
    fn the_high_watermark_is_the_longest_it_ever_was() {
        let mut ring = Ring::new(8);
        for (pushes, expected) in [(3, 3), (2, 3), (5, 5), (1, 5), (8, 8), (0, 8)] {
            for item in 0..pushes {
                assert!(ring.push(entry(item)).is_ok());
            }
            assert_eq!(ring.high_watermark(), expected, "while they wait");
            while ring.len() > 0 {
                let len = ring.len();
                ring.take_if(|_, _, _| true);
                ring.rest(len);
            }
            assert_eq!(
                (ring.high_watermark(), ring.head, ring.bytes()),
                (expected, 0, 0),
                "after they went"
            );
        }
    }
}

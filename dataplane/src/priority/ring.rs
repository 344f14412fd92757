//! One bounded FIFO with its fixed memory, its CoDel state and its accounts with the scheduler.
use super::Entry;
use crate::codel::Codel;

pub(super) struct Ring<T> {
    slots: Box<[Option<Entry<T>>]>,
    head: usize,
    len: usize,
    pub(super) bytes: u64,
    pub(super) high_watermark: usize,
    pub(super) codel: Codel,
    /// Bytes this ring may still send in its visit of the round.
    pub(super) deficit: u64,
    /// What is owed from the minimum share, in thousandths of bytes.
    pub(super) credit: u64,
}

impl<T> Ring<T> {
    pub(super) fn new(capacity: usize) -> Self {
        let slots = (0..capacity).map(|_| None).collect();
        let codel = Codel::default();
        Self {
            slots,
            head: 0,
            len: 0,
            bytes: 0,
            high_watermark: 0,
            codel,
            deficit: 0,
            credit: 0,
        }
    }

    #[inline]
    pub(super) fn len(&self) -> usize {
        self.len
    }

    #[inline]
    pub(super) fn head(&self) -> Option<&Entry<T>> {
        self.slots.get(self.head)?.as_ref()
    }

    /// Gives the entry back if the ring is full.
    #[inline]
    pub(super) fn push(&mut self, entry: Entry<T>) -> Result<(), Entry<T>> {
        let at = (self.head + self.len) & (self.slots.len() - 1);
        match self.slots.get_mut(at) {
            Some(slot @ None) => {
                self.bytes += u64::from(entry.bytes);
                *slot = Some(entry);
            }
            _ => return Err(entry),
        }
        self.len += 1;
        self.high_watermark = self.high_watermark.max(self.len);
        Ok(())
    }

    /// Takes the oldest entry; the ring that it empties loses deficit and credit.
    #[inline]
    pub(super) fn pop(&mut self) -> Option<Entry<T>> {
        let entry = self.slots.get_mut(self.head)?.take()?;
        self.head = (self.head + 1) & (self.slots.len() - 1);
        self.len -= 1;
        self.bytes -= u64::from(entry.bytes);
        if self.len == 0 {
            // From the front again: a ring that never holds much then uses few cache lines instead of all it has.
            self.head = 0;
            (self.deficit, self.credit) = (0, 0);
            self.codel.emptied();
        }
        Some(entry)
    }
}

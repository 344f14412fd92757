//! One ring shared with the kernel: a power-of-two array of entries between two positions.
//!
//! ```text
//!   consumer (position of the reader)          producer (position of the writer)
//!      v                                          v
//!   ...| entry | entry | entry | entry | entry |...      entry i lies at index i & (size - 1)
//!      released <-----  peek, read  ----->  submitted
//! ```
//!
//! Positions count entries since the ring was made and wrap at 2^32, so they are only ever compared by wrapping
//! subtraction; neither `+` nor `-` nor `<` may touch them. Each side keeps a private copy of the other side's position
//! and looks again only when the copy does not suffice, which keeps the shared cache line still.
//!
//! Memory ordering, matching net/xdp/xsk_queue.h: the writer stores `producer` with Release after writing entries, and
//! the reader loads it with Acquire before reading them; the reader stores `consumer` with Release after reading, and
//! the writer loads it with Acquire before overwriting. So an entry is never touched by both sides at once.

use std::any::Any;
use std::ptr::NonNull;
use std::sync::Arc;

use crate::sync::{AtomicU32, Entry, Ordering};

/// Where the shared words and entries of one ring lie, and what keeps them there.
pub(crate) struct RingMemory<T> {
    producer: NonNull<AtomicU32>,
    consumer: NonNull<AtomicU32>,
    flags: NonNull<AtomicU32>,
    entries: NonNull<Entry<T>>,
    size: u32,
    _memory: Arc<dyn Any + Send + Sync>,
}

// SAFETY: the words are atomics, the entries are handed over through them (module doc), and `_memory` may be dropped by
// any thread; nothing is bound to the thread that made the ring.
unsafe impl<T: Send> Send for RingMemory<T> {}
// SAFETY: through a shared reference only the atomic words can be reached; entries need `&mut` Producer or Consumer.
unsafe impl<T: Send> Sync for RingMemory<T> {}

impl<T: Copy> RingMemory<T> {
    /// # Safety
    /// The three words and `size` entries must be valid, aligned, initialised and stay so while `memory` lives. `size`
    /// is a power of two. Any bit pattern is a valid `T`. One Producer and one Consumer at most, in this process and in
    /// the kernel together, may be working on this memory, and the other side must follow the protocol above.
    pub(crate) unsafe fn new(
        producer: NonNull<AtomicU32>,
        consumer: NonNull<AtomicU32>,
        flags: NonNull<AtomicU32>,
        entries: NonNull<Entry<T>>,
        size: u32,
        memory: Arc<dyn Any + Send + Sync>,
    ) -> Self {
        assert!(size.is_power_of_two());
        Self {
            producer,
            consumer,
            flags,
            entries,
            size,
            _memory: memory,
        }
    }

    fn producer(&self) -> &AtomicU32 {
        // SAFETY: valid and aligned while `_memory` lives, promised to `new`; the borrow is no longer than `self`.
        unsafe { self.producer.as_ref() }
    }

    fn consumer(&self) -> &AtomicU32 {
        // SAFETY: as for `producer`.
        unsafe { self.consumer.as_ref() }
    }

    fn flags(&self) -> u32 {
        // SAFETY: as for `producer`. Relaxed: the flag is a hint about waking up and guards no data.
        unsafe { self.flags.as_ref() }.load(Ordering::Relaxed)
    }

    fn entry(&self, position: u32) -> &Entry<T> {
        let index = (position & (self.size - 1)) as usize;
        // SAFETY: index < size, and `size` entries are valid while `_memory` lives, promised to `new`.
        unsafe { self.entries.add(index).as_ref() }
    }
}

/// The writing side: reserve, write, submit.
pub(crate) struct Producer<T> {
    ring: RingMemory<T>,
    /// Where the next entry is written. Entries from `submitted` to here are not visible to the reader yet.
    next: u32,
    /// The position last stored in `producer`.
    submitted: u32,
    /// The reader's position when last looked at.
    consumer: u32,
}

impl<T: Copy> Producer<T> {
    pub(crate) fn new(ring: RingMemory<T>) -> Self {
        let (next, consumer) = (
            ring.producer().load(Ordering::Relaxed),
            ring.consumer().load(Ordering::Acquire),
        );
        Self {
            ring,
            next,
            submitted: next,
            consumer,
        }
    }

    /// How many entries may be written now, at most `want`.
    #[inline]
    pub(crate) fn reserve(&mut self, want: u32) -> u32 {
        if self.room() < want {
            // Acquire: the reader is done with the entries before this position; see the module doc.
            self.consumer = self.ring.consumer().load(Ordering::Acquire);
        }
        self.room().min(want)
    }

    /// Writes the next entry, which the reader sees after [`submit`](Self::submit). False if the ring is full.
    #[inline]
    pub(crate) fn write(&mut self, entry: T) -> bool {
        if self.reserve(1) == 0 {
            return false;
        }
        // SAFETY: the entry is valid (see `entry`) and ours: it lies less than `size` past the reader's position, which
        // the reader stored when it was done with it; and `&mut self` is the only writer.
        self.ring.entry(self.next).with_mut(|slot| unsafe { slot.write(entry) });
        self.next = self.next.wrapping_add(1);
        true
    }

    /// Shows all written entries to the reader.
    #[inline]
    pub(crate) fn submit(&mut self) {
        if self.submitted != self.next {
            self.submitted = self.next;
            // Release: the entries are written before the position; see the module doc.
            self.ring.producer().store(self.next, Ordering::Release);
        }
    }

    /// Submitted entries that the reader has not released.
    #[inline]
    pub(crate) fn pending(&self) -> u32 {
        // Relaxed: a number to look at; nothing is overwritten because of it.
        self.submitted
            .wrapping_sub(self.ring.consumer().load(Ordering::Relaxed))
    }

    /// The flags word: `XDP_RING_NEED_WAKEUP`.
    #[inline]
    pub(crate) fn flags(&self) -> u32 {
        self.ring.flags()
    }

    /// Entries in the ring.
    pub(crate) fn size(&self) -> u32 {
        self.ring.size
    }

    /// Free entries by what was last seen; never more than there are. A reader's position ahead of ours (a broken
    /// reader) counts as a full ring.
    #[inline]
    fn room(&self) -> u32 {
        self.ring.size.saturating_sub(self.next.wrapping_sub(self.consumer))
    }
}

/// The reading side: peek, read, release.
pub(crate) struct Consumer<T> {
    ring: RingMemory<T>,
    /// Where the next entry is read. Entries from `released` to here are read but not given back yet.
    next: u32,
    /// The position last stored in `consumer`.
    released: u32,
    /// The writer's position when last looked at.
    producer: u32,
}

impl<T: Copy> Consumer<T> {
    pub(crate) fn new(ring: RingMemory<T>) -> Self {
        let (next, producer) = (
            ring.consumer().load(Ordering::Relaxed),
            ring.producer().load(Ordering::Acquire),
        );
        Self {
            ring,
            next,
            released: next,
            producer,
        }
    }

    /// How many entries may be read now, at most `max`.
    #[inline]
    pub(crate) fn peek(&mut self, max: u32) -> u32 {
        if self.available() < max {
            // Acquire: the entries before this position have been written; see the module doc.
            self.producer = self.ring.producer().load(Ordering::Acquire);
        }
        self.available().min(max)
    }

    /// The next entry, or `None` if the ring is empty. Its place goes back to the writer with
    /// [`release`](Self::release).
    #[inline]
    pub(crate) fn read(&mut self) -> Option<T> {
        if self.peek(1) == 0 {
            return None;
        }
        // SAFETY: the entry is valid (see `entry`) and written: it lies before the writer's position, and the writer
        // leaves it alone until it is released; and `&mut self` is the only reader.
        let entry = self.ring.entry(self.next).with(|slot| unsafe { slot.read() });
        self.next = self.next.wrapping_add(1);
        Some(entry)
    }

    /// Gives the places of all entries read back to the writer.
    #[inline]
    pub(crate) fn release(&mut self) {
        if self.released != self.next {
            self.released = self.next;
            // Release: the entries are read before the position moves; see the module doc.
            self.ring.consumer().store(self.next, Ordering::Release);
        }
    }

    /// Entries that can be read by what was last seen. A writer's position more than a ring ahead (a broken writer)
    /// counts as an empty ring.
    #[inline]
    fn available(&self) -> u32 {
        let ahead = self.producer.wrapping_sub(self.next);
        if ahead <= self.ring.size { ahead } else { 0 }
    }
}

#[cfg(test)]
mod tests;

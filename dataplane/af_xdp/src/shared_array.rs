//! A BPF array map seen as memory: numbers shared with an XDP program, without a system call for each.

use std::fmt;
use std::io;
use std::os::fd::BorrowedFd;
use std::sync::atomic::{AtomicU64, Ordering};

use crate::error::{Error, Step};
use crate::sys::{self, Mapping};

/// The values of a BPF array map, one `u64` for each key from 0 on.
///
/// Each slot is read and written by itself, relaxed: a program sees a value soon, and never half of one, but two slots
/// tell nothing about each other's order. Made for heartbeats and counters.
pub struct SharedArray {
    memory: Mapping,
    slots: usize,
}

impl SharedArray {
    /// Maps the first `slots` values of the map. It must be a `BPF_MAP_TYPE_ARRAY` of 8-byte values, made with
    /// `BPF_F_MMAPABLE`. The descriptor may be closed afterwards; the mapping keeps the map.
    ///
    /// # Errors
    /// EINVAL if the map is of another kind or has fewer values, and whatever bpf or mmap answers.
    pub fn map(fd: BorrowedFd<'_>, slots: usize) -> Result<Self, Error> {
        let failed = |source| Error::System {
            step: Step::MapArray,
            source,
        };
        // Asked first: mapping just any descriptor here, say a socket with its rings, would open memory to `set` that
        // others rely on.
        let info = sys::bpf_map_info(fd).map_err(failed)?;
        let fits = info.kind == sys::BPF_MAP_TYPE_ARRAY
            && info.value_size == 8
            && info.flags & sys::BPF_F_MMAPABLE != 0
            && slots > 0
            && slots <= info.max_entries as usize;
        if !fits {
            return Err(failed(io::Error::from_raw_os_error(libc::EINVAL)));
        }
        let memory = Mapping::shared(fd, slots * size_of::<u64>(), 0).map_err(failed)?;
        Ok(Self { memory, slots })
    }

    /// How many slots are mapped.
    #[must_use]
    pub fn slots(&self) -> usize {
        self.slots
    }

    /// The value of slot `i`, or `None` past the last.
    #[inline]
    #[must_use]
    pub fn get(&self, i: usize) -> Option<u64> {
        self.slot(i).map(|slot| slot.load(Ordering::Relaxed))
    }

    /// Sets slot `i`; false past the last.
    #[inline]
    pub fn set(&self, i: usize, value: u64) -> bool {
        self.slot(i).map(|slot| slot.store(value, Ordering::Relaxed)).is_some()
    }

    #[inline]
    fn slot(&self, i: usize) -> Option<&AtomicU64> {
        if i >= self.slots {
            return None;
        }
        // SAFETY: the mapping holds `slots` values of 8 bytes from its page-aligned start (checked in `map`) and lives
        // as long as `self`. The memory is only ever used as atomics here; the kernel and BPF programs access whole
        // words as well.
        Some(unsafe { self.memory.base().cast::<AtomicU64>().add(i).as_ref() })
    }
}

impl fmt::Debug for SharedArray {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list()
            .entries((0..self.slots).filter_map(|i| self.get(i)))
            .finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::fd::AsFd;

    #[test]
    fn a_descriptor_that_is_no_map_is_refused() {
        let socket = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
        let error = SharedArray::map(socket.as_fd(), 1).unwrap_err();
        assert_eq!(error.step(), Some(&Step::MapArray));
    }
}

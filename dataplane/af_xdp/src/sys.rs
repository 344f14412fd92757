//! The kernel interface that `libc` lacks, and the few system calls, each wrapped once.

use std::ffi::c_int;
use std::io;
use std::os::fd::{AsRawFd, BorrowedFd};
use std::ptr::{self, NonNull};

/// `XDP_PACKET_HEADROOM` (linux/bpf.h): bytes the kernel leaves free at the start of each frame it receives into.
pub(crate) const PACKET_HEADROOM: u32 = 256;
/// `sizeof(struct xsk_tx_metadata)` (linux/if_xdp.h since 6.14): flags, then 16 bytes of request.
pub(crate) const TX_METADATA_LEN: u32 = 24;

/// A mapping of memory that is unmapped when dropped.
#[derive(Debug)]
pub(crate) struct Mapping {
    base: NonNull<u8>,
    len: usize,
}

// SAFETY: a mapping is plain memory of the whole process, bound to no thread. Who may touch which byte is decided by the
// owner of the mapping (frames, rings, shared arrays), who says so where it does.
unsafe impl Send for Mapping {}
// SAFETY: as above; the mapping itself offers only its address.
unsafe impl Sync for Mapping {}

impl Mapping {
    /// Zeroed memory of this process, present at once, so that the first packet does not fault.
    pub(crate) fn anonymous(len: usize, huge_pages: bool) -> io::Result<Self> {
        let huge = if huge_pages {
            libc::MAP_HUGETLB | libc::MAP_HUGE_2MB
        } else {
            0
        };
        Self::map(
            len,
            libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_POPULATE | huge,
            -1,
            0,
        )
    }

    /// `len` bytes of what `fd` stands for, from `offset` on, shared with the kernel and readable and writable.
    pub(crate) fn shared(fd: BorrowedFd<'_>, len: usize, offset: i64) -> io::Result<Self> {
        Self::map(len, libc::MAP_SHARED | libc::MAP_POPULATE, fd.as_raw_fd(), offset)
    }

    fn map(len: usize, flags: c_int, fd: c_int, offset: i64) -> io::Result<Self> {
        // SAFETY: the address is left to the kernel (null, no MAP_FIXED), so no existing mapping is replaced.
        let base = unsafe {
            libc::mmap(
                ptr::null_mut(),
                len,
                libc::PROT_READ | libc::PROT_WRITE,
                flags,
                fd,
                offset,
            )
        };
        if base == libc::MAP_FAILED {
            return Err(io::Error::last_os_error());
        }
        // A successful mmap without MAP_FIXED never answers address zero.
        let base = NonNull::new(base.cast::<u8>()).ok_or_else(|| io::Error::from_raw_os_error(libc::ENOMEM))?;
        Ok(Self { base, len })
    }

    pub(crate) fn base(&self) -> NonNull<u8> {
        self.base
    }

    pub(crate) fn len(&self) -> usize {
        self.len
    }
}

impl Drop for Mapping {
    fn drop(&mut self) {
        // SAFETY: base and len are what mmap returned, and nothing outlives the mapping: bytes borrow the Umem, rings
        // and arrays own their mapping.
        let result = unsafe { libc::munmap(self.base.as_ptr().cast(), self.len) };
        debug_assert_eq!(result, 0, "munmap of an own mapping cannot fail");
    }
}

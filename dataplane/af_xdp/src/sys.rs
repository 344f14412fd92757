//! The kernel interface that `libc` lacks, and the few system calls, each wrapped once.

use std::ffi::c_int;
use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd};
use std::ptr::{self, NonNull};

/// `XDP_PACKET_HEADROOM` (linux/bpf.h): bytes the kernel leaves free at the start of each frame it receives into.
pub(crate) const PACKET_HEADROOM: u32 = 256;
/// `sizeof(struct xsk_tx_metadata)` (linux/if_xdp.h since 6.14): flags, then 16 bytes of request.
pub(crate) const TX_METADATA_LEN: u32 = 24;

/// A mapping of memory that is unmapped when dropped.
#[derive(Debug)]
pub(crate) struct Mapping {
    start: NonNull<u8>,
    len: usize,
    /// From the start of the mapping to the memory that is used: what it takes to begin at a huge page.
    offset: usize,
}

/// Bytes of the huge pages asked for (`MAP_HUGE_2MB`), and of transparent ones wherever the page is 4 KiB.
pub(crate) const HUGE_PAGE: usize = 2 << 20;

// SAFETY: a mapping is plain memory of the whole process, bound to no thread. Who may touch which byte is decided by the
// owner of the mapping (frames, rings, shared arrays), who says so where it does.
unsafe impl Send for Mapping {}
// SAFETY: as above; the mapping itself offers only its address.
unsafe impl Sync for Mapping {}

impl Mapping {
    /// Zeroed memory of this process; with `prefault` present at once, so that the first packet does not fault.
    ///
    /// Reserved huge pages are only taken when asked for. Without them prefaulted memory asks for transparent ones, which the
    /// kernel may or may not have: less time goes into looking up pages, and nothing else changes.
    pub(crate) fn anonymous(len: usize, reserved_huge_pages: bool, prefault: bool) -> io::Result<Self> {
        let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS;
        if reserved_huge_pages {
            // They must be there now: one that is missing on first touch would end the process.
            let populate = if prefault { libc::MAP_POPULATE } else { 0 };
            let huge = libc::MAP_HUGETLB | libc::MAP_HUGE_2MB;
            return Self::map(len.next_multiple_of(HUGE_PAGE), flags | huge | populate, -1, 0);
        }
        let reserve = if prefault { 0 } else { libc::MAP_NORESERVE };
        // One huge page more, so that a huge page can begin where the memory does; what is not touched costs nothing.
        let mut mapping = Self::map(len + HUGE_PAGE, flags | reserve, -1, 0)?;
        mapping.offset = mapping.start.as_ptr().align_offset(HUGE_PAGE);
        if !prefault {
            // Memory of which little is used would be taken in pieces of 2 MiB.
            return Ok(mapping);
        }
        // A hint: a kernel without transparent huge pages refuses it, and pages of 4 KiB do as well.
        let _hinted = mapping.advise(len, libc::MADV_HUGEPAGE);
        if let Err(error) = mapping.advise(len, libc::MADV_POPULATE_WRITE) {
            // Linux before 5.14 does not know it. There the registration with a socket brings the pages in.
            if error.raw_os_error() != Some(libc::EINVAL) {
                return Err(error);
            }
        }
        Ok(mapping)
    }

    /// madvise(2) on the first `len` bytes of the memory that is used.
    fn advise(&self, len: usize, advice: c_int) -> io::Result<()> {
        assert!(self.offset + len <= self.len, "advice is for memory of this mapping");
        // SAFETY: the range lies inside the mapping, checked above, and neither advice given here changes its contents.
        match unsafe { libc::madvise(self.base().as_ptr().cast(), len, advice) } {
            0 => Ok(()),
            _ => Err(io::Error::last_os_error()),
        }
    }

    /// `len` bytes of what `fd` stands for, from `offset` on, shared with the kernel and readable and writable.
    pub(crate) fn shared(fd: BorrowedFd<'_>, len: usize, offset: i64) -> io::Result<Self> {
        Self::map(len, libc::MAP_SHARED | libc::MAP_POPULATE, fd.as_raw_fd(), offset)
    }

    fn map(len: usize, flags: c_int, fd: c_int, offset: i64) -> io::Result<Self> {
        // SAFETY: the address is left to the kernel (null, no MAP_FIXED), so no existing mapping is replaced.
        let start = unsafe {
            libc::mmap(
                ptr::null_mut(),
                len,
                libc::PROT_READ | libc::PROT_WRITE,
                flags,
                fd,
                offset,
            )
        };
        if start == libc::MAP_FAILED {
            return Err(io::Error::last_os_error());
        }
        // A successful mmap without MAP_FIXED never answers address zero.
        let start = NonNull::new(start.cast::<u8>()).ok_or_else(|| io::Error::from_raw_os_error(libc::ENOMEM))?;
        Ok(Self { start, len, offset: 0 })
    }

    pub(crate) fn base(&self) -> NonNull<u8> {
        // SAFETY: the offset is less than the mapping's length (`anonymous`), or zero.
        unsafe { self.start.add(self.offset) }
    }
}

impl Drop for Mapping {
    fn drop(&mut self) {
        // SAFETY: start and len are what mmap returned, and nothing outlives the mapping: bytes borrow the Umem, rings
        // and arrays own their mapping.
        let result = unsafe { libc::munmap(self.start.as_ptr().cast(), self.len) };
        debug_assert_eq!(result, 0, "munmap of an own mapping cannot fail");
    }
}

/// Data the kernel may read or fill byte by byte.
///
/// # Safety
/// Every bit pattern is a valid value, and the layout is the kernel's.
pub(crate) unsafe trait Plain: Copy {}

// SAFETY: an integer.
unsafe impl Plain for u32 {}
// SAFETY: an integer.
unsafe impl Plain for c_int {}
// SAFETY: integers only, in the kernel's layout (repr(C) in libc).
unsafe impl Plain for libc::xdp_umem_reg {}
// SAFETY: integers only, in the kernel's layout (repr(C) in libc).
unsafe impl Plain for libc::xdp_mmap_offsets {}
// SAFETY: integers only, in the kernel's layout (repr(C) in libc).
unsafe impl Plain for libc::xdp_options {}
// SAFETY: integers only, in the kernel's layout (repr(C) in libc).
unsafe impl Plain for libc::xdp_statistics {}
// SAFETY: integers and a byte array only, in the kernel's layout (repr(C) in libc).
unsafe impl Plain for libc::packet_mreq {}

/// setsockopt of one plain value.
pub(crate) fn set_option<T: Plain>(fd: BorrowedFd<'_>, level: c_int, name: c_int, value: &T) -> io::Result<()> {
    // SAFETY: `value` is readable for the length given while the call lasts.
    let result = unsafe {
        libc::setsockopt(
            fd.as_raw_fd(),
            level,
            name,
            ptr::from_ref(value).cast(),
            size_of::<T>() as libc::socklen_t,
        )
    };
    if result == 0 {
        Ok(())
    } else {
        Err(io::Error::last_os_error())
    }
}

/// getsockopt of one plain value; the kernel may fill less than all of `initial`.
pub(crate) fn get_option<T: Plain>(fd: BorrowedFd<'_>, level: c_int, name: c_int, initial: T) -> io::Result<T> {
    let mut value = initial;
    let mut len = size_of::<T>() as libc::socklen_t;
    // SAFETY: `value` is writable for the length given while the call lasts, and whatever the kernel writes is a valid
    // value (Plain).
    let result = unsafe {
        libc::getsockopt(
            fd.as_raw_fd(),
            level,
            name,
            ptr::from_mut(&mut value).cast(),
            &raw mut len,
        )
    };
    if result == 0 {
        Ok(value)
    } else {
        Err(io::Error::last_os_error())
    }
}

/// socket(2), closed on exec.
pub(crate) fn open_socket(family: c_int, kind: c_int, protocol: c_int) -> io::Result<OwnedFd> {
    // SAFETY: no memory is passed.
    let fd = unsafe { libc::socket(family, kind | libc::SOCK_CLOEXEC, protocol) };
    if fd < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the descriptor has just been made and belongs to no one else.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// bind(2) of an AF_XDP socket.
pub(crate) fn bind(fd: BorrowedFd<'_>, address: &libc::sockaddr_xdp) -> io::Result<()> {
    let len = size_of::<libc::sockaddr_xdp>() as libc::socklen_t;
    // SAFETY: `address` is readable for the length given while the call lasts.
    let result = unsafe { libc::bind(fd.as_raw_fd(), ptr::from_ref(address).cast(), len) };
    if result == 0 {
        Ok(())
    } else {
        Err(io::Error::last_os_error())
    }
}

/// An empty, non-blocking sendto(2): wakes the kernel to send. The errno if it fails.
#[inline]
pub(crate) fn wake_to_send(fd: BorrowedFd<'_>) -> Result<(), c_int> {
    // SAFETY: no data and no address are passed (null with length 0).
    let result = unsafe { libc::sendto(fd.as_raw_fd(), ptr::null(), 0, libc::MSG_DONTWAIT, ptr::null(), 0) };
    if result >= 0 { Ok(()) } else { Err(last_errno()) }
}

/// An empty, non-blocking recvfrom(2): wakes the driver to receive. The errno if it fails.
#[inline]
pub(crate) fn wake_to_receive(fd: BorrowedFd<'_>) -> Result<(), c_int> {
    // SAFETY: no buffer and no address are passed (null with length 0).
    let result = unsafe {
        libc::recvfrom(
            fd.as_raw_fd(),
            ptr::null_mut(),
            0,
            libc::MSG_DONTWAIT,
            ptr::null_mut(),
            ptr::null_mut(),
        )
    };
    if result >= 0 { Ok(()) } else { Err(last_errno()) }
}

fn last_errno() -> c_int {
    // SAFETY: the pointer is this thread's own errno, always valid.
    unsafe { *libc::__errno_location() }
}

/// linux/if_xdp.h since 6.17; not in libc yet.
pub(crate) const XDP_MAX_TX_SKB_BUDGET: c_int = 9;
/// asm-generic/socket.h; not in libc.
pub(crate) const SO_PREFER_BUSY_POLL: c_int = 69;
/// asm-generic/socket.h; not in libc.
pub(crate) const SO_BUSY_POLL_BUDGET: c_int = 70;

/// Bytes of the value in struct ifreq (linux/if.h) on 64-bit machines.
pub(crate) const IFREQ_VALUE: usize = 24;

/// struct ifreq: a name, and a value whose meaning the request decides.
#[repr(C, align(8))]
struct InterfaceRequest {
    name: [u8; libc::IFNAMSIZ],
    value: [u8; IFREQ_VALUE],
}

const _: () = assert!(size_of::<InterfaceRequest>() == size_of::<libc::ifreq>());

/// An ioctl on an interface whose question and answer lie in the value itself (SIOCGIFINDEX, -MTU, -FLAGS, -HWADDR and
/// SIOCSIFFLAGS; none of them takes the value for an address).
pub(crate) fn interface_ioctl(
    fd: BorrowedFd<'_>,
    request: libc::Ioctl,
    name: &[u8; libc::IFNAMSIZ],
    value: &mut [u8; IFREQ_VALUE],
) -> io::Result<()> {
    let mut ask = InterfaceRequest {
        name: *name,
        value: *value,
    };
    // SAFETY: `ask` is a whole struct ifreq, writable while the call lasts, and the callers in device.rs pass only
    // requests whose answer lies inside it.
    let result = unsafe { libc::ioctl(fd.as_raw_fd(), request, &raw mut ask) };
    if result < 0 {
        return Err(io::Error::last_os_error());
    }
    *value = ask.value;
    Ok(())
}

/// SIOCETHTOOL. The command, which begins with its number, is also where the answer is put.
pub(crate) fn ethtool_ioctl<T: Plain>(
    fd: BorrowedFd<'_>,
    name: &[u8; libc::IFNAMSIZ],
    command: &mut T,
) -> io::Result<()> {
    let mut ask = InterfaceRequest {
        name: *name,
        value: [0; IFREQ_VALUE],
    };
    ask.value[..8].copy_from_slice(&(ptr::from_mut(command) as usize).to_ne_bytes());
    // SAFETY: `ask` is a whole struct ifreq whose value is the address of `command`, writable while the call lasts. The
    // kernel writes no more than the struct its number stands for, which is T (device.rs pairs them), and whatever it
    // writes is valid (Plain).
    let result = unsafe { libc::ioctl(fd.as_raw_fd(), libc::SIOCETHTOOL as libc::Ioctl, &raw mut ask) };
    if result < 0 {
        Err(io::Error::last_os_error())
    } else {
        Ok(())
    }
}

/// The start of struct bpf_map_info (linux/bpf.h).
#[repr(C)]
#[derive(Default)]
pub(crate) struct MapInfo {
    pub(crate) kind: u32,
    id: u32,
    key_size: u32,
    pub(crate) value_size: u32,
    pub(crate) max_entries: u32,
    pub(crate) flags: u32,
}

/// bpf(BPF_OBJ_GET_INFO_BY_FD) of a map.
pub(crate) fn bpf_map_info(fd: BorrowedFd<'_>) -> io::Result<MapInfo> {
    #[repr(C)]
    struct Attributes {
        fd: u32,
        info_len: u32,
        info: u64,
    }
    let mut info = MapInfo::default();
    let mut attributes = Attributes {
        fd: fd.as_raw_fd() as u32,
        info_len: size_of::<MapInfo>() as u32,
        info: ptr::from_mut(&mut info) as u64,
    };
    // SAFETY: the attributes and the info they point to are writable for the lengths given while the call lasts; the
    // kernel fills in integers.
    let result = unsafe {
        libc::syscall(
            libc::SYS_bpf,
            BPF_OBJ_GET_INFO_BY_FD,
            &raw mut attributes,
            size_of::<Attributes>(),
        )
    };
    // The kernel tells how much it filled: the info of a program or a link fits no map, and its first word is its own
    // type, so the caller checks type, size and flags together.
    if result < 0 {
        Err(io::Error::last_os_error())
    } else {
        Ok(info)
    }
}

const BPF_OBJ_GET_INFO_BY_FD: libc::c_long = 15;
/// linux/bpf.h.
pub(crate) const BPF_MAP_TYPE_ARRAY: u32 = 2;
/// linux/bpf.h.
pub(crate) const BPF_F_MMAPABLE: u32 = 1 << 10;

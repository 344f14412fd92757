//! The memory packets lie in, and the only way from a frame to its bytes.
//!
//! A UMEM is mapped once and cut into slots of equal size. [`Umem::new`] makes exactly one [`Frame`] for each slot, and
//! only the kernel rings of a socket take a frame out of the world (the kernel owns the slot) and bring it back. So two
//! frames never name the same slot, which is what makes [`Umem::bytes_mut`] sound.
//!
//! ```text
//!   one slot:  | 256 bytes for the kernel | headroom | packet ... up to frame_size |
//!                                ^ TX metadata, if asked for: the 24 bytes just before the packet
//! ```
//!
//! Making one takes mmap and no privilege: memory ports, captures and tests use the same type without any socket.

use std::num::NonZeroU32;
use std::os::fd::OwnedFd;
#[cfg(debug_assertions)]
use std::sync::atomic::AtomicBool;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

use crate::config::UmemConfig;
use crate::error::{Error, Step};
use crate::frame::Frame;
use crate::sys::{Mapping, PACKET_HEADROOM, TX_METADATA_LEN};

/// Memory for packets, shared by its clones and by every socket bound with it. It goes when the last of them goes.
#[derive(Clone, Debug)]
pub struct Umem(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    memory: Mapping,
    id: NonZeroU32,
    frame_count: u32,
    /// A power of two.
    frame_size: u32,
    headroom: u32,
    tx_metadata: bool,
    registered: Mutex<Registration>,
    /// Which slots the kernel owns, kept in debug builds only: the check behind "no frame is there twice".
    #[cfg(debug_assertions)]
    kernel_owns: Box<[AtomicBool]>,
}

/// The sockets the kernel knows this memory by: a later socket shares the UMEM of any that is still open.
#[derive(Debug, Default)]
pub(crate) struct Registration {
    pub(crate) sockets: Vec<Weak<OwnedFd>>,
    /// What the first socket was bound with, inherited by the later ones.
    pub(crate) need_wakeup: bool,
}

impl Registration {
    /// A socket that is still open, by which the kernel knows this memory.
    pub(crate) fn open_socket(&mut self) -> Option<Arc<OwnedFd>> {
        self.sockets.retain(|socket| socket.strong_count() > 0);
        self.sockets.iter().find_map(Weak::upgrade)
    }
}

impl Umem {
    /// Maps the memory, zeroed and present, and gives out one frame for each slot. No privilege is needed.
    ///
    /// # Errors
    /// [`Error::Config`] for a size the kernel would refuse later, [`Error::System`] when the memory is not to be had;
    /// with `huge_pages` the remedy names `/proc/sys/vm/nr_hugepages`.
    pub fn new(config: &UmemConfig) -> Result<(Umem, Vec<Frame>), Error> {
        config.validate()?;
        let id = next_id().ok_or(Error::UmemsExhausted)?;
        let step = if config.huge_pages {
            Step::MapHugePages
        } else {
            Step::MapUmem
        };
        let bytes = config.frame_count as usize * config.frame_size as usize;
        let memory = Mapping::anonymous(bytes, config.huge_pages, config.prefault)
            .map_err(|source| Error::System { step, source })?;
        let umem = Umem(Arc::new(Inner {
            memory,
            id,
            frame_count: config.frame_count,
            frame_size: config.frame_size,
            headroom: config.headroom,
            tx_metadata: config.tx_metadata,
            registered: Mutex::default(),
            #[cfg(debug_assertions)]
            kernel_owns: (0..config.frame_count).map(|_| AtomicBool::new(false)).collect(),
        }));
        // Descending, so that a pool used as a stack hands out the low addresses first.
        let frames = (0..config.frame_count)
            .rev()
            .map(|slot| umem.empty_frame(slot))
            .collect();
        Ok((umem, frames))
    }

    /// The packet: exactly [`Frame::len`] bytes.
    ///
    /// # Panics
    /// If the frame belongs to another UMEM.
    #[inline]
    #[must_use]
    pub fn bytes<'a>(&'a self, frame: &'a Frame) -> &'a [u8] {
        self.check(frame);
        // SAFETY: `check` says the frame was made by this UMEM, so offset + len lie inside its slot (kept so by every
        // function of this file and by `frame_from_kernel`), and the memory lives as long as `self` is borrowed. No one
        // writes meanwhile: `frame` is borrowed, it is the only frame of its slot, and the kernel owns slots only while
        // no frame of theirs exists.
        unsafe {
            let start = self.0.memory.base().as_ptr().add(frame.offset as usize);
            std::slice::from_raw_parts(start, frame.len as usize)
        }
    }

    /// The packet, to be changed: exactly [`Frame::len`] bytes.
    ///
    /// # Panics
    /// If the frame belongs to another UMEM.
    #[inline]
    #[must_use]
    pub fn bytes_mut<'a>(&'a self, frame: &'a mut Frame) -> &'a mut [u8] {
        self.check(frame);
        // SAFETY: as in `bytes`; and since `frame` is borrowed mutably and is the only frame of its slot, no other slice
        // of these bytes exists.
        unsafe {
            let start = self.0.memory.base().as_ptr().add(frame.offset as usize);
            std::slice::from_raw_parts_mut(start, frame.len as usize)
        }
    }

    /// Bytes from where the packet begins to the end of the slot: the greatest length [`set_len`](Self::set_len) takes.
    ///
    /// # Panics
    /// If the frame belongs to another UMEM.
    #[inline]
    #[must_use]
    pub fn capacity(&self, frame: &Frame) -> usize {
        self.check(frame);
        (self.0.frame_size - self.start_in_slot(frame)) as usize
    }

    /// Makes the frame empty, with room for the headroom and for TX metadata before the next packet built in it.
    ///
    /// # Panics
    /// If the frame belongs to another UMEM.
    #[inline]
    pub fn reset(&self, frame: &mut Frame) {
        self.check(frame);
        *frame = self.empty_frame(frame.offset / self.0.frame_size);
    }

    /// Sets the packet's length, and takes back a checksum request, which was made for the old length. Bytes past the
    /// old length are whatever lay in the slot. False, and nothing changed, if `len` exceeds
    /// [`capacity`](Self::capacity).
    ///
    /// # Panics
    /// If the frame belongs to another UMEM.
    #[inline]
    #[must_use = "a length past the capacity is refused"]
    pub fn set_len(&self, frame: &mut Frame, len: usize) -> bool {
        if len > self.capacity(frame) {
            return false;
        }
        frame.len = len as u32;
        frame.flags &= !Frame::TX_METADATA;
        true
    }

    /// Asks that the device (in copy mode: the kernel) adds up the bytes from `start` to the end of the packet and
    /// stores the Internet checksum at `start + offset`, where the caller has put the sum of the pseudo header. Both
    /// count from the packet's first byte, as `csum_start` and `csum_offset` of `struct xsk_tx_metadata` do.
    ///
    /// In copy mode the kernel adds up only if the device does not offer to. Veth does offer, and hands the packet over
    /// with the request still open: a stack at the other end takes it for good, an AF_XDP socket there sees no checksum
    /// unless [`TxChecksum`](crate::device::Offload::TxChecksum) is off at the sending end.
    ///
    /// False, and nothing changed, if the UMEM was made without `tx_metadata`, if less than 24 bytes of the slot lie
    /// before the packet, or if the checksum field is not inside the packet: the kernel would stall on such a request.
    ///
    /// # Panics
    /// If the frame belongs to another UMEM.
    #[must_use = "without the request the packet would leave with half a checksum"]
    pub fn request_checksum(&self, frame: &mut Frame, start: u16, offset: u16) -> bool {
        self.check(frame);
        let field_end = u32::from(start) + u32::from(offset) + 2;
        if !self.0.tx_metadata || self.start_in_slot(frame) < TX_METADATA_LEN || field_end > frame.len {
            return false;
        }
        let mut metadata = [0u8; TX_METADATA_LEN as usize];
        metadata[0..8].copy_from_slice(&u64::from(libc::XDP_TXMD_FLAGS_CHECKSUM).to_ne_bytes());
        metadata[8..10].copy_from_slice(&start.to_ne_bytes());
        metadata[10..12].copy_from_slice(&offset.to_ne_bytes());
        // SAFETY: at least 24 bytes of this frame's own slot lie before the packet (checked above), and `frame` is
        // borrowed mutably, so no one else sees the slot.
        unsafe {
            let before = self
                .0
                .memory
                .base()
                .as_ptr()
                .add((frame.offset - TX_METADATA_LEN) as usize);
            std::ptr::copy_nonoverlapping(metadata.as_ptr(), before, metadata.len());
        }
        frame.flags |= Frame::TX_METADATA;
        true
    }

    /// Bytes of one frame: 2048 or 4096.
    #[inline]
    #[must_use]
    pub fn frame_size(&self) -> u32 {
        self.0.frame_size
    }

    /// Number of frames, wherever they are now.
    #[inline]
    #[must_use]
    pub fn frame_count(&self) -> u32 {
        self.0.frame_count
    }

    /// Bytes kept free before each packet, after the kernel's 256.
    #[inline]
    #[must_use]
    pub fn headroom(&self) -> u32 {
        self.0.headroom
    }

    /// [`request_checksum`](Self::request_checksum) can be used.
    #[inline]
    #[must_use]
    pub fn has_tx_metadata(&self) -> bool {
        self.0.tx_metadata
    }

    /// The identity of this memory in this process, shared by its clones, never used twice.
    #[inline]
    #[must_use]
    pub fn id(&self) -> u32 {
        self.0.id.get()
    }

    /// Whether the frame is one of this UMEM's.
    #[inline]
    #[must_use]
    pub fn owns(&self, frame: &Frame) -> bool {
        frame.umem == self.0.id
    }

    /// Which slot the frame is, from 0 to `frame_count - 1`: for audits that look for a slot lost or seen twice.
    ///
    /// # Panics
    /// If the frame belongs to another UMEM.
    #[inline]
    #[must_use]
    pub fn slot(&self, frame: &Frame) -> u32 {
        self.check(frame);
        frame.offset / self.0.frame_size
    }

    /// Takes the frame out of the world: from now on the kernel owns its slot. Returns where its packet begins.
    #[inline]
    #[expect(clippy::needless_pass_by_value, reason = "the frame must be gone afterwards")]
    pub(crate) fn give_to_kernel(&self, frame: Frame) -> u64 {
        self.check(&frame);
        self.note_owner(frame.offset, true);
        u64::from(frame.offset)
    }

    /// The start of the frame's slot, which is the address a fill ring takes.
    #[inline]
    pub(crate) fn slot_address(&self, frame: &Frame) -> u64 {
        self.check(frame);
        u64::from(frame.offset & !(self.0.frame_size - 1))
    }

    /// The frame of a received packet. `None` if the descriptor does not lie within one slot, which would be a bug of
    /// the kernel; the slot is then lost.
    ///
    /// # Safety
    /// The descriptor was read from an RX ring of a socket bound with this UMEM, and once only: the kernel has given the
    /// slot back, and no frame of it exists.
    #[inline]
    pub(crate) unsafe fn frame_received(&self, descriptor: libc::xdp_desc) -> Option<Frame> {
        let start = self.offset_within(descriptor.addr)?;
        let start_in_slot = start & (self.0.frame_size - 1);
        // With TX metadata the kernel refuses to send a packet that has no room for it, so none may come in either.
        let start_min = if self.0.tx_metadata { TX_METADATA_LEN } else { 0 };
        if start_in_slot < start_min || descriptor.len > self.0.frame_size - start_in_slot {
            return None;
        }
        self.note_owner(start, false);
        let flags = if descriptor.options & libc::XDP_PKT_CONTD != 0 {
            Frame::CONTINUED
        } else {
            0
        };
        Some(Frame {
            offset: start,
            len: descriptor.len,
            umem: self.0.id,
            flags,
        })
    }

    /// The empty frame of a packet that has been sent. `None` if the address is outside the UMEM, as above.
    ///
    /// # Safety
    /// As above, of a completion ring.
    #[inline]
    pub(crate) unsafe fn frame_completed(&self, address: u64) -> Option<Frame> {
        let start = self.offset_within(address)?;
        self.note_owner(start, false);
        Some(self.empty_frame(start / self.0.frame_size))
    }

    /// What XDP_UMEM_REG is told.
    pub(crate) fn registration_request(&self) -> libc::xdp_umem_reg {
        libc::xdp_umem_reg {
            addr: self.0.memory.base().as_ptr() as u64,
            len: u64::from(self.0.frame_count) * u64::from(self.0.frame_size),
            chunk_size: self.0.frame_size,
            headroom: self.0.headroom,
            flags: if self.0.tx_metadata {
                libc::XDP_UMEM_TX_METADATA_LEN
            } else {
                0
            },
            tx_metadata_len: if self.0.tx_metadata { TX_METADATA_LEN } else { 0 },
        }
    }

    /// The sockets bound with this memory; held locked while another one is bound.
    pub(crate) fn registration(&self) -> MutexGuard<'_, Registration> {
        self.0.registered.lock().unwrap_or_else(PoisonError::into_inner)
    }

    #[inline]
    fn offset_within(&self, address: u64) -> Option<u32> {
        let end = u64::from(self.0.frame_count) * u64::from(self.0.frame_size);
        // The end is at most 2^32, so an address before it fits.
        if address < end { Some(address as u32) } else { None }
    }

    #[cfg(debug_assertions)]
    fn note_owner(&self, offset: u32, kernel: bool) {
        let slot = offset / self.0.frame_size;
        let before = self.0.kernel_owns[slot as usize].swap(kernel, Ordering::Relaxed);
        assert_ne!(
            before,
            kernel,
            "slot {slot} was {} the kernel twice",
            if kernel { "given to" } else { "taken from" }
        );
    }

    #[cfg(not(debug_assertions))]
    #[inline]
    fn note_owner(&self, _offset: u32, _kernel: bool) {}

    /// The check every access rests on; a frame of another UMEM may lie outside this memory, or name a slot that has
    /// an owner already.
    #[inline]
    pub(crate) fn check(&self, frame: &Frame) {
        assert!(self.owns(frame), "the frame belongs to another UMEM");
    }

    #[inline]
    fn start_in_slot(&self, frame: &Frame) -> u32 {
        frame.offset & (self.0.frame_size - 1)
    }

    #[inline]
    fn empty_frame(&self, slot: u32) -> Frame {
        let offset = slot * self.0.frame_size + PACKET_HEADROOM + self.0.headroom;
        Frame {
            offset,
            len: 0,
            umem: self.0.id,
            flags: 0,
        }
    }
}

fn next_id() -> Option<NonZeroU32> {
    static NEXT: AtomicU32 = AtomicU32::new(1);
    // Relaxed: only the uniqueness of the number matters. Zero means that all numbers have been given out.
    NEXT.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |id| {
        if id == 0 { None } else { Some(id.wrapping_add(1)) }
    })
    .ok()
    .and_then(NonZeroU32::new)
}

#[cfg(test)]
mod tests;

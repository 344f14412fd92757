//! One slot of a UMEM, and the right to use it.

use std::num::NonZeroU32;

/// The right to touch one slot of a [`Umem`](crate::Umem), with the position and length of the packet lying in it.
///
/// A frame is neither `Copy` nor `Clone`: its owner is whoever holds the value, and while the kernel owns the slot no
/// value exists. Dropping a frame is safe but loses the slot until the whole UMEM goes.
///
/// A frame cannot be cloned,
/// ```compile_fail,E0599
/// # let (_umem, mut pool) = af_xdp::Umem::new(&af_xdp::UmemConfig::default()).unwrap();
/// let frame = pool.pop().unwrap();
/// let second_owner = frame.clone();
/// ```
/// nor used after it was given away,
/// ```compile_fail,E0382
/// # let (_umem, mut pool) = af_xdp::Umem::new(&af_xdp::UmemConfig::default()).unwrap();
/// let frame = pool.pop().unwrap();
/// pool.push(frame);
/// println!("{}", frame.len());
/// ```
/// nor can its bytes be kept when it goes.
/// ```compile_fail,E0505
/// # let (umem, mut pool) = af_xdp::Umem::new(&af_xdp::UmemConfig::default()).unwrap();
/// let mut frame = pool.pop().unwrap();
/// let bytes = umem.bytes_mut(&mut frame);
/// pool.push(frame);
/// bytes[0] = 1;
/// ```
#[must_use = "dropping a frame loses its slot until the UMEM goes"]
#[derive(Debug, PartialEq, Eq)]
pub struct Frame {
    /// Where the packet begins, in bytes from the start of the UMEM. Always inside the frame's own slot.
    pub(crate) offset: u32,
    /// Bytes of the packet; `offset + len` never passes the end of the slot.
    pub(crate) len: u32,
    /// Which UMEM the slot belongs to. Not zero, so that `Option<Frame>` is no larger than `Frame`.
    pub(crate) umem: NonZeroU32,
    pub(crate) flags: u32,
}

impl Frame {
    /// The rest of the packet follows in the next frame (`XDP_PKT_CONTD` in the descriptor, linux/if_xdp.h).
    pub(crate) const CONTINUED: u32 = 1 << 0;
    /// A valid `struct xsk_tx_metadata` lies before the packet.
    pub(crate) const TX_METADATA: u32 = 1 << 1;

    /// Bytes of the packet in this frame, from the Ethernet header on, without the FCS.
    #[inline]
    #[must_use]
    pub fn len(&self) -> usize {
        self.len as usize
    }

    /// No packet lies in this frame.
    #[inline]
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// The packet goes on in the next frame of the same ring (multi-buffer, `XDP_PKT_CONTD`). The last frame of a
    /// packet, and the only frame of an ordinary one, is not continued.
    #[inline]
    #[must_use]
    pub fn is_continued(&self) -> bool {
        self.flags & Self::CONTINUED != 0
    }

    /// Says whether the packet goes on in the frame that is transmitted right after this one. At most 17 frames make up
    /// one packet in copy mode.
    #[inline]
    pub fn set_continued(&mut self, continued: bool) {
        if continued {
            self.flags |= Self::CONTINUED;
        } else {
            self.flags &= !Self::CONTINUED;
        }
    }

    /// The identity of the UMEM this frame belongs to; see [`Umem::id`](crate::Umem::id).
    #[inline]
    #[must_use]
    pub fn umem_id(&self) -> u32 {
        self.umem.get()
    }
}

// Four frames to a cache line, and no more for an optional one.
const _: () = assert!(size_of::<Frame>() == 16);
const _: () = assert!(size_of::<Option<Frame>>() == 16);

//! A socket bound to one queue: frames in, frames out, and waking the kernel.
//!
//! One worker owns it and calls, in a loop without locks or allocation:
//!
//! ```text
//!   complete -> refill -> receive (at most as many as can be sent or kept) -> push_tx ... submit_tx -> kick_tx
//! ```
//!
//! Every frame given away is counted when given and when taken back, so that at any time
//! `pool + frames_in_fill + frames_in_tx + held by the worker = frame_count`, over all sockets of the UMEM. Received
//! packets that wait in the RX ring count as in fill, sent ones that wait in the completion ring as in tx.
//!
//! When a socket is dropped the kernel lets go of the queue, but the frames it owned then are not given back: nobody
//! can say when a driver has stopped writing to them. Bind again with a new UMEM to have them all.

use std::fmt;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, RawFd};

use crate::config::{SocketConfig, UmemConfig};
use crate::error::Error;
use crate::frame::Frame;
use crate::kick::{Kick, KickCounts};
use crate::setup::{self, Bound};
use crate::statistics::Statistics;
use crate::sys;
use crate::umem::Umem;

/// An AF_XDP socket, bound to one queue of one interface.
///
/// It has no effect on traffic until an XDP program redirects packets to it through an XSKMAP that holds its file
/// descriptor. Remove it from the map, or detach the program, before dropping it under load.
pub struct Socket {
    bound: Bound,
    // After the rings and the descriptor: the memory goes last.
    umem: Umem,
    interface_index: u32,
    queue: u32,
    busy_poll: bool,
    received: u64,
    pushed: u64,
    completed: u64,
    bad_descriptors: u64,
    kicks: KickCounts,
    rx_wakes: KickCounts,
}

impl Socket {
    /// Opens a socket and binds it to `queue` of the interface, in the calling thread's network namespace. As many
    /// frames of `fill_first` as its fill ring holds go to the kernel at once; the rest stay.
    ///
    /// The first socket of a UMEM registers its memory with the kernel. While it, or a later one, is open, the next
    /// ones share that registration (`XDP_SHARED_UMEM`), each with rings of its own, and inherit `bind`, `need_wakeup`
    /// and `multi_buffer` from the first. So a frame received on one may be sent on another without a copy.
    ///
    /// A queue that was closed a moment ago is waited for, up to 200 ms. The steps and privileges stand in the error's
    /// [`Step`](crate::Step) and [`remedy`](Error::remedy).
    ///
    /// # Errors
    /// Every frame is then back in `fill_first`.
    ///
    /// # Panics
    /// If a frame of `fill_first` belongs to another UMEM.
    pub fn bind(
        umem: &Umem,
        interface_index: u32,
        queue: u32,
        config: &SocketConfig,
        fill_first: &mut Vec<Frame>,
    ) -> Result<Socket, Error> {
        UmemConfig::validate_for_socket(umem.frame_size())?;
        let bound = setup::bind(umem, interface_index, queue, config, fill_first)?;
        Ok(Self {
            bound,
            umem: umem.clone(),
            interface_index,
            queue,
            busy_poll: config.busy_poll.is_some(),
            received: 0,
            pushed: 0,
            completed: 0,
            bad_descriptors: 0,
            kicks: KickCounts::default(),
            rx_wakes: KickCounts::default(),
        })
    }

    /// Gives up to `want` frames of `pool` to the kernel to receive into, as many as the fill ring has room for.
    /// Returns how many went.
    ///
    /// # Panics
    /// If a frame belongs to another UMEM.
    pub fn refill(&mut self, pool: &mut Vec<Frame>, want: usize) -> usize {
        let want = u32::try_from(want.min(pool.len())).unwrap_or(u32::MAX);
        let granted = self.bound.fill.reserve(want);
        let mut given = 0;
        while given < granted {
            let Some(frame) = pool.pop() else { break };
            let address = self.umem.slot_address(&frame);
            self.umem.give_to_kernel(frame);
            let written = self.bound.fill.write(address);
            debug_assert!(written, "the entry was reserved");
            given += 1;
        }
        self.bound.fill.submit();
        self.bound.filled += u64::from(given);
        given as usize
    }

    /// Takes up to `max` received frames and hands each, oldest first, to `each`. Returns how many.
    ///
    /// With multi-buffer a packet may be cut by `max`: the frames that follow come with the next call.
    pub fn receive(&mut self, max: usize, mut each: impl FnMut(Frame)) -> usize {
        let waiting = self.bound.rx.peek(u32::try_from(max).unwrap_or(u32::MAX));
        let mut taken = 0;
        for _ in 0..waiting {
            let Some(descriptor) = self.bound.rx.read() else { break };
            // SAFETY: the descriptor was read from this socket's RX ring just now, and `read` never answers the same
            // entry twice. The kernel puts there only slots that a fill ring gave it, each of which was a frame that
            // `give_to_kernel` consumed.
            match unsafe { self.umem.frame_received(descriptor) } {
                Some(frame) => {
                    taken += 1;
                    each(frame);
                }
                None => self.bad_descriptors += 1,
            }
        }
        self.bound.rx.release();
        self.received += taken as u64;
        taken
    }

    /// How many frames [`push_tx`](Self::push_tx) takes now.
    #[inline]
    #[must_use]
    pub fn tx_room(&mut self) -> usize {
        self.bound.tx.reserve(self.bound.tx.size()) as usize
    }

    /// Puts a frame at the end of the TX ring; the kernel sees it after [`submit_tx`](Self::submit_tx). The frames of a
    /// multi-buffer packet must be pushed one right after the other.
    ///
    /// # Errors
    /// Gives the frame back if the ring is full, or if the frame is empty (which the kernel would refuse and never give
    /// back). With [`tx_room`](Self::tx_room) above zero only an empty frame comes back.
    ///
    /// # Panics
    /// If the frame belongs to another UMEM.
    #[inline]
    pub fn push_tx(&mut self, frame: Frame) -> Result<(), Frame> {
        if frame.is_empty() || self.bound.tx.reserve(1) == 0 {
            return Err(frame);
        }
        let mut options = 0;
        if frame.flags & Frame::CONTINUED != 0 {
            options |= libc::XDP_PKT_CONTD;
        }
        if frame.flags & Frame::TX_METADATA != 0 {
            options |= libc::XDP_TX_METADATA;
        }
        let len = frame.len;
        let addr = self.umem.give_to_kernel(frame);
        let written = self.bound.tx.write(libc::xdp_desc { addr, len, options });
        debug_assert!(written, "the entry was reserved");
        self.pushed += 1;
        Ok(())
    }

    /// Shows all pushed frames to the kernel. In copy mode they leave with the next [`kick_tx`](Self::kick_tx).
    #[inline]
    pub fn submit_tx(&mut self) {
        self.bound.tx.submit();
    }

    /// Takes all frames that have been sent back into `pool`, empty, and returns how many. To be called in every loop,
    /// also when idle: in copy mode a frame completes only when its receiver lets go of the packet.
    pub fn complete(&mut self, pool: &mut Vec<Frame>) -> usize {
        let mut taken = 0;
        for _ in 0..self.bound.completion.peek(u32::MAX) {
            let Some(address) = self.bound.completion.read() else {
                break;
            };
            // SAFETY: the address was read from this socket's completion ring just now, and only once; the kernel puts
            // there only what the TX ring gave it, which was a frame that `give_to_kernel` consumed.
            match unsafe { self.umem.frame_completed(address) } {
                Some(frame) => {
                    taken += 1;
                    pool.push(frame);
                }
                None => self.bad_descriptors += 1,
            }
        }
        self.bound.completion.release();
        self.completed += taken as u64;
        taken
    }

    /// Wakes the kernel to send what has been submitted, if anything waits and the kernel wants to be woken. To be
    /// called in every loop while [`tx_pending`](Self::tx_pending) is not zero; in copy mode one call sends at most
    /// [`tx_budget`](Self::tx_budget) packets.
    #[inline]
    pub fn kick_tx(&mut self) -> Kick {
        let asleep = !self.bound.need_wakeup || self.bound.tx.flags() & libc::XDP_RING_NEED_WAKEUP != 0;
        let kick = if !asleep || self.bound.tx.pending() == 0 {
            Kick::NotNeeded
        } else {
            sys::wake_to_send(self.fd()).map_or_else(Kick::from_errno, |()| Kick::Sent)
        };
        self.kicks.count(kick)
    }

    /// Wakes the driver to receive, if it sleeps because the fill ring was empty, and runs it if busy polling is on. To
    /// be called in every loop after [`refill`](Self::refill). Veth in copy mode never asks for it.
    #[inline]
    pub fn wake_rx(&mut self) -> Kick {
        let asleep = self.bound.need_wakeup && self.bound.fill.flags() & libc::XDP_RING_NEED_WAKEUP != 0;
        let kick = if asleep || self.busy_poll {
            sys::wake_to_receive(self.fd()).map_or_else(Kick::from_errno, |()| Kick::Sent)
        } else {
            Kick::NotNeeded
        };
        self.rx_wakes.count(kick)
    }

    /// Submitted descriptors that the kernel has not taken yet. Those it has taken may still be on their way out.
    #[inline]
    #[must_use]
    pub fn tx_pending(&self) -> u32 {
        self.bound.tx.pending()
    }

    /// Frames given to the kernel to receive into, and not taken back by [`receive`](Self::receive).
    #[inline]
    #[must_use]
    pub fn frames_in_fill(&self) -> u64 {
        self.bound.filled - self.received
    }

    /// Frames pushed to be sent, and not taken back by [`complete`](Self::complete).
    #[inline]
    #[must_use]
    pub fn frames_in_tx(&self) -> u64 {
        self.pushed - self.completed
    }

    /// Descriptors from the kernel that did not lie within one slot of the UMEM. Each has lost a frame, and is a bug of
    /// the kernel or of the XDP program.
    #[must_use]
    pub fn bad_descriptors(&self) -> u64 {
        self.bad_descriptors
    }

    /// What came of [`kick_tx`](Self::kick_tx).
    #[must_use]
    pub fn kick_counts(&self) -> KickCounts {
        self.kicks
    }

    /// What came of [`wake_rx`](Self::wake_rx).
    #[must_use]
    pub fn wake_counts(&self) -> KickCounts {
        self.rx_wakes
    }

    /// The kernel's counters of this socket. One system call: between batches, not per packet.
    ///
    /// # Errors
    /// Whatever getsockopt answers.
    pub fn statistics(&self) -> Result<Statistics, Error> {
        Statistics::read(self.fd())
    }

    /// An error the kernel has noted about this socket, as errno; reading it takes it away. ENETDOWN here means that the
    /// interface has been deleted: it shows nowhere else on a socket that only receives. One system call.
    #[must_use]
    pub fn take_error(&self) -> Option<i32> {
        sys::get_option(self.fd(), libc::SOL_SOCKET, libc::SO_ERROR, 0i32)
            .ok()
            .filter(|&errno| errno != 0)
    }

    /// The driver reads and writes the UMEM itself (`XDP_OPTIONS_ZEROCOPY`).
    #[must_use]
    pub fn is_zero_copy(&self) -> bool {
        self.bound.zero_copy
    }

    /// Packets one wake-up sends in copy mode: what was configured, or 32.
    #[must_use]
    pub fn tx_budget(&self) -> u32 {
        self.bound.tx_budget
    }

    /// The memory of this socket's packets.
    #[must_use]
    pub fn umem(&self) -> &Umem {
        &self.umem
    }

    /// Index of the interface this socket is bound to.
    #[must_use]
    pub fn interface_index(&self) -> u32 {
        self.interface_index
    }

    /// The queue this socket is bound to.
    #[must_use]
    pub fn queue(&self) -> u32 {
        self.queue
    }

    /// The file descriptor, for an XSKMAP or for [`poll`](crate::poll()).
    #[inline]
    #[must_use]
    pub fn fd(&self) -> BorrowedFd<'_> {
        self.bound.fd.as_fd()
    }
}

impl AsFd for Socket {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd()
    }
}

impl AsRawFd for Socket {
    fn as_raw_fd(&self) -> RawFd {
        self.bound.fd.as_raw_fd()
    }
}

impl fmt::Debug for Socket {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Socket")
            .field("interface_index", &self.interface_index)
            .field("queue", &self.queue)
            .field("zero_copy", &self.bound.zero_copy)
            .field("frames_in_fill", &self.frames_in_fill())
            .field("frames_in_tx", &self.frames_in_tx())
            .finish_non_exhaustive()
    }
}

//! From a UMEM and a queue to a bound socket: the system calls in their order.
//!
//! ```text
//!   socket -> XDP_UMEM_REG (first socket only) -> four ring sizes -> XDP_MMAP_OFFSETS -> mmap four rings
//!          -> budgets -> stock the fill ring -> bind (again while the old owner lets go)
//!          -> XDP_OPTIONS
//! ```
//!
//! Privileges: CAP_NET_RAW for the socket; RLIMIT_MEMLOCK or CAP_IPC_LOCK for the size of the UMEM; CAP_NET_ADMIN for
//! zero-copy drivers and busy polling.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::ptr::NonNull;
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use crate::config::{BindMode, BusyPoll, SocketConfig, TX_BUDGET_MIN};
use crate::error::{Error, RingName, Step};
use crate::frame::Frame;
use crate::ring::{Consumer, Producer, RingMemory};
use crate::sync::{AtomicU32, Entry};
use crate::sys::{self, Mapping};
use crate::umem::Umem;

/// What a socket is made of once it is bound. The rings stand first, so that they are unmapped before the descriptor is
/// closed: a mapped ring would keep the queue busy.
pub(crate) struct Bound {
    pub(crate) fill: Producer<u64>,
    pub(crate) rx: Consumer<libc::xdp_desc>,
    pub(crate) tx: Producer<libc::xdp_desc>,
    pub(crate) completion: Consumer<u64>,
    pub(crate) fd: Arc<OwnedFd>,
    /// Frames that lie in the fill ring.
    pub(crate) filled: u64,
    pub(crate) tx_budget: u32,
    pub(crate) need_wakeup: bool,
    pub(crate) zero_copy: bool,
}

/// Opens and binds. On an error every frame is back in `fill_first`.
pub(crate) fn bind(
    umem: &Umem,
    interface_index: u32,
    queue: u32,
    config: &SocketConfig,
    fill_first: &mut Vec<Frame>,
) -> Result<Bound, Error> {
    config.validate()?;
    // Locked to the end, so that of two threads one is the first and the other shares.
    let mut registration = umem.registration();
    let shared_with = registration.open_socket();
    let fd = Arc::new(system(
        Step::OpenSocket,
        sys::open_socket(libc::AF_XDP, libc::SOCK_RAW, 0),
    )?);
    if shared_with.is_none() {
        let request = umem.registration_request();
        system(
            Step::RegisterUmem,
            sys::set_option(fd.as_fd(), libc::SOL_XDP, libc::XDP_UMEM_REG, &request),
        )?;
    }
    let (mut fill, rx, tx, completion) = map_rings(fd.as_fd(), config)?;
    let tx_budget = set_tx_budget(fd.as_fd(), config.tx_budget)?;
    if let Some(poll) = config.busy_poll {
        system(Step::SetBusyPoll, set_busy_poll(fd.as_fd(), poll))?;
    }

    // Stocked before bind, even for a socket that only sends: ice and i40e leak buffers otherwise.
    let staged_count = fill.reserve(u32::try_from(fill_first.len()).unwrap_or(u32::MAX)) as usize;
    let staged = fill_first.split_off(fill_first.len() - staged_count);
    for frame in &staged {
        fill.write(umem.slot_address(frame));
    }
    fill.submit();

    let flags = if shared_with.is_some() {
        libc::XDP_SHARED_UMEM
    } else {
        bind_flags(config)
    };
    let address = libc::sockaddr_xdp {
        sxdp_family: libc::AF_XDP as u16,
        sxdp_flags: flags,
        sxdp_ifindex: interface_index,
        sxdp_queue_id: queue,
        sxdp_shared_umem_fd: shared_with.as_ref().map_or(0, |shared| raw(shared)),
    };
    if let Err(source) = bind_patiently(fd.as_fd(), &address) {
        // A socket that was never bound has read nothing from its fill ring: the frames are still ours.
        fill_first.extend(staged);
        let step = Step::Bind {
            interface_index,
            queue,
            shared_umem: shared_with.is_some(),
        };
        return Err(Error::System { step, source });
    }
    let filled = staged.len() as u64;
    for frame in staged {
        umem.give_to_kernel(frame);
    }

    if shared_with.is_none() {
        registration.need_wakeup = config.need_wakeup;
    }
    registration.sockets.push(Arc::downgrade(&fd));
    // The socket is bound: a kernel that cannot say its mode (before 5.3) has no say in whether it works.
    let zero_copy = sys::get_option(
        fd.as_fd(),
        libc::SOL_XDP,
        libc::XDP_OPTIONS,
        libc::xdp_options { flags: 0 },
    )
    .is_ok_and(|options| options.flags & libc::XDP_OPTIONS_ZEROCOPY != 0);
    let need_wakeup = registration.need_wakeup;
    Ok(Bound {
        fill,
        rx,
        tx,
        completion,
        fd,
        filled,
        tx_budget,
        need_wakeup,
        zero_copy,
    })
}

type Rings = (
    Producer<u64>,
    Consumer<libc::xdp_desc>,
    Producer<libc::xdp_desc>,
    Consumer<u64>,
);

fn map_rings(fd: BorrowedFd<'_>, config: &SocketConfig) -> Result<Rings, Error> {
    for (ring, option, size) in [
        (RingName::Fill, libc::XDP_UMEM_FILL_RING, config.fill_size),
        (
            RingName::Completion,
            libc::XDP_UMEM_COMPLETION_RING,
            config.completion_size,
        ),
        (RingName::Rx, libc::XDP_RX_RING, config.rx_size),
        (RingName::Tx, libc::XDP_TX_RING, config.tx_size),
    ] {
        system(Step::SizeRing(ring), sys::set_option(fd, libc::SOL_XDP, option, &size))?;
    }
    let zero = libc::xdp_ring_offset {
        producer: 0,
        consumer: 0,
        desc: 0,
        flags: 0,
    };
    let none = libc::xdp_mmap_offsets {
        rx: zero,
        tx: zero,
        fr: zero,
        cr: zero,
    };
    let at = system(
        Step::RingOffsets,
        sys::get_option(fd, libc::SOL_XDP, libc::XDP_MMAP_OFFSETS, none),
    )?;

    let map_error = |ring| {
        move |source| Error::System {
            step: Step::MapRing(ring),
            source,
        }
    };
    let (fill_at, completion_at) = (
        libc::XDP_UMEM_PGOFF_FILL_RING as i64,
        libc::XDP_UMEM_PGOFF_COMPLETION_RING as i64,
    );
    let fill = map_ring(fd, &at.fr, config.fill_size, fill_at).map_err(map_error(RingName::Fill))?;
    let rx = map_ring(fd, &at.rx, config.rx_size, libc::XDP_PGOFF_RX_RING).map_err(map_error(RingName::Rx))?;
    let tx = map_ring(fd, &at.tx, config.tx_size, libc::XDP_PGOFF_TX_RING).map_err(map_error(RingName::Tx))?;
    let completion =
        map_ring(fd, &at.cr, config.completion_size, completion_at).map_err(map_error(RingName::Completion))?;
    Ok((
        Producer::new(fill),
        Consumer::new(rx),
        Producer::new(tx),
        Consumer::new(completion),
    ))
}

/// Maps one ring of `size` entries, whose words the kernel has placed at `at` from the start of the mapping.
fn map_ring<T: Copy>(
    fd: BorrowedFd<'_>,
    at: &libc::xdp_ring_offset,
    size: u32,
    page_offset: i64,
) -> io::Result<RingMemory<T>> {
    let len = at.desc as usize + size as usize * size_of::<T>();
    let memory = Mapping::shared(fd, len, page_offset)?;
    let base = memory.base();
    // SAFETY: the kernel lays all three words and the entries out inside the mapping, aligned for their types
    // (struct xdp_ring of net/xdp/xsk_queue.h), and said where in XDP_MMAP_OFFSETS; the mapping is kept by the ring
    // itself. Entries are integers. Each ring is mapped once per socket, here, and its other side is the kernel's.
    unsafe {
        let word = |offset: u64| base.add(offset as usize).cast::<AtomicU32>();
        let entries: NonNull<Entry<T>> = base.add(at.desc as usize).cast();
        Ok(RingMemory::new(
            word(at.producer),
            word(at.consumer),
            word(at.flags),
            entries,
            size,
            Arc::new(memory),
        ))
    }
}

fn bind_flags(config: &SocketConfig) -> u16 {
    let mode = match config.bind {
        // Neither flag: the kernel tries zero-copy and falls back to copy mode by itself (xp_assign_dev).
        BindMode::Auto => 0,
        BindMode::Copy => libc::XDP_COPY,
        BindMode::ZeroCopy => libc::XDP_ZEROCOPY,
    };
    let need_wakeup = if config.need_wakeup {
        libc::XDP_USE_NEED_WAKEUP
    } else {
        0
    };
    let multi_buffer = if config.multi_buffer { libc::XDP_USE_SG } else { 0 };
    mode | need_wakeup | multi_buffer
}

/// Binds, trying again while the kernel says EBUSY: it takes the queue back from a closed socket in the background.
fn bind_patiently(fd: BorrowedFd<'_>, address: &libc::sockaddr_xdp) -> io::Result<()> {
    let start = Instant::now();
    let mut pause = Duration::from_millis(1);
    loop {
        match sys::bind(fd, address) {
            Err(error) if error.raw_os_error() == Some(libc::EBUSY) && start.elapsed() + pause <= BUSY_WAIT_MAX => {
                thread::sleep(pause);
                pause = (pause * 2).min(Duration::from_millis(20));
            }
            result => return result,
        }
    }
}

/// The budget in force: what was asked for, or the kernel's own where it cannot be set.
fn set_tx_budget(fd: BorrowedFd<'_>, budget: Option<u32>) -> Result<u32, Error> {
    let Some(budget) = budget else { return Ok(TX_BUDGET_MIN) };
    match sys::set_option(fd, libc::SOL_XDP, sys::XDP_MAX_TX_SKB_BUDGET, &budget) {
        Ok(()) => Ok(budget),
        // A kernel before 6.17 does not know the option; sending works all the same, in more calls.
        Err(error) if error.raw_os_error() == Some(libc::ENOPROTOOPT) => Ok(TX_BUDGET_MIN),
        Err(source) => Err(Error::System {
            step: Step::SetTxBudget,
            source,
        }),
    }
}

fn set_busy_poll(fd: BorrowedFd<'_>, poll: BusyPoll) -> io::Result<()> {
    sys::set_option(fd, libc::SOL_SOCKET, sys::SO_PREFER_BUSY_POLL, &1i32)?;
    sys::set_option(fd, libc::SOL_SOCKET, libc::SO_BUSY_POLL, &poll.usecs)?;
    sys::set_option(fd, libc::SOL_SOCKET, sys::SO_BUSY_POLL_BUDGET, &u32::from(poll.budget))
}

fn system<T>(step: Step, result: io::Result<T>) -> Result<T, Error> {
    result.map_err(|source| Error::System { step, source })
}

fn raw(fd: &OwnedFd) -> u32 {
    use std::os::fd::AsRawFd;
    // An open descriptor is never negative.
    fd.as_raw_fd() as u32
}

/// A closed socket's queue was seen busy for 3 to 33 ms; a queue that is busy after 200 ms has another owner.
const BUSY_WAIT_MAX: Duration = Duration::from_millis(200);

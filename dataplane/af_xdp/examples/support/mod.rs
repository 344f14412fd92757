//! The XDP program of the examples and tests, as instructions, and the few bpf(2) calls that load it.
//!
//! A product has a program of its own and loads it with a BPF library. This one redirects every packet to the socket
//! that the XSKMAP holds for its queue; packets of a queue without a socket go to the local stack.

#![allow(dead_code, reason = "each example and test uses a part of it")]

use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd};

/// A loaded program and its XSKMAP. Dropping it detaches the program: the link is held by nothing else.
pub(crate) struct Redirect {
    map: OwnedFd,
    program: OwnedFd,
    link: Option<OwnedFd>,
}

/// How the program is attached.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Attach {
    /// In the driver.
    Native,
    /// In the stack, with any driver.
    Generic,
}

impl Redirect {
    /// Loads the program with an XSKMAP of `queues` entries. `fragments`: it accepts packets of several buffers.
    pub(crate) fn load(queues: u32, fragments: bool) -> io::Result<Self> {
        let map = create_map(MAP_TYPE_XSKMAP, 4, queues, 0)?;
        let instructions = [
            // r2 = ctx->rx_queue_index
            instruction(0x61, 2, 1, 16, 0),
            // r1 = map, r3 = XDP_PASS for a queue without a socket
            instruction(0x18, 1, 1, 0, map.as_raw_fd()),
            instruction(0, 0, 0, 0, 0),
            instruction(0xb7, 3, 0, 0, 2),
            // return bpf_redirect_map(r1, r2, r3)
            instruction(0x85, 0, 0, 0, 51),
            instruction(0x95, 0, 0, 0, 0),
        ];
        let license = c"MIT";
        let mut attributes = Attributes::default();
        attributes.put_u32(0, 6); // BPF_PROG_TYPE_XDP
        attributes.put_u32(4, instructions.len() as u32);
        attributes.put_u64(8, instructions.as_ptr() as u64);
        attributes.put_u64(16, license.as_ptr() as u64);
        attributes.put_u32(44, if fragments { 1 << 5 } else { 0 }); // BPF_F_XDP_HAS_FRAGS
        let program = bpf_fd(5, &mut attributes)?;
        Ok(Self {
            map,
            program,
            link: None,
        })
    }

    /// Attaches the program to the interface; it takes effect at once.
    pub(crate) fn attach(&mut self, interface_index: u32, mode: Attach) -> io::Result<()> {
        let mut attributes = Attributes::default();
        attributes.put_u32(0, self.program.as_raw_fd() as u32);
        attributes.put_u32(4, interface_index);
        attributes.put_u32(8, 37); // BPF_XDP
        attributes.put_u32(12, if matches!(mode, Attach::Native) { 1 << 2 } else { 1 << 1 });
        self.link = Some(bpf_fd(28, &mut attributes)?);
        Ok(())
    }

    /// Sends the packets of `queue` to this socket.
    pub(crate) fn set(&self, queue: u32, socket: BorrowedFd<'_>) -> io::Result<()> {
        let value = socket.as_raw_fd();
        let mut attributes = Attributes::default();
        attributes.put_u32(0, self.map.as_raw_fd() as u32);
        attributes.put_u64(8, &raw const queue as u64);
        attributes.put_u64(16, &raw const value as u64);
        bpf(2, &mut attributes).map(|_| ())
    }
}

/// A BPF array of `entries` 64-bit values that can be mapped.
pub(crate) fn mappable_array(entries: u32) -> io::Result<OwnedFd> {
    create_map(2, 8, entries, 1 << 10)
}

/// Reads one value of a BPF array through the system call.
pub(crate) fn array_value(map: BorrowedFd<'_>, key: u32) -> io::Result<u64> {
    let mut value = 0u64;
    let mut attributes = Attributes::default();
    attributes.put_u32(0, map.as_fd().as_raw_fd() as u32);
    attributes.put_u64(8, &raw const key as u64);
    attributes.put_u64(16, &raw mut value as u64);
    bpf(1, &mut attributes)?;
    Ok(value)
}

fn create_map(kind: u32, value_size: u32, entries: u32, flags: u32) -> io::Result<OwnedFd> {
    let mut attributes = Attributes::default();
    for (at, value) in [(0, kind), (4, 4), (8, value_size), (12, entries), (16, flags)] {
        attributes.put_u32(at, value);
    }
    bpf_fd(0, &mut attributes)
}

/// One struct bpf_insn.
fn instruction(code: u8, dst: u8, src: u8, offset: i16, immediate: i32) -> [u8; 8] {
    let mut bytes = [code, dst | src << 4, 0, 0, 0, 0, 0, 0];
    bytes[2..4].copy_from_slice(&offset.to_ne_bytes());
    bytes[4..8].copy_from_slice(&immediate.to_ne_bytes());
    bytes
}

/// union bpf_attr, filled by offset.
#[repr(C, align(8))]
#[derive(Default)]
struct Attributes([u64; 16]);

impl Attributes {
    fn put_u32(&mut self, at: usize, value: u32) {
        let shift = if at.is_multiple_of(8) == cfg!(target_endian = "little") {
            0
        } else {
            32
        };
        self.0[at / 8] |= u64::from(value) << shift;
    }

    fn put_u64(&mut self, at: usize, value: u64) {
        self.0[at / 8] = value;
    }
}

fn bpf_fd(command: i64, attributes: &mut Attributes) -> io::Result<OwnedFd> {
    let fd = bpf(command, attributes)?;
    // SAFETY: the command made the descriptor just now, and no one else has it.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

fn bpf(command: i64, attributes: &mut Attributes) -> io::Result<i32> {
    // SAFETY: the attributes are as long as said, and every address in them is of a value its caller keeps alive and of
    // the size that the map or the program says.
    let result = unsafe { libc::syscall(libc::SYS_bpf, command, attributes, size_of::<Attributes>()) };
    if result < 0 {
        Err(io::Error::last_os_error())
    } else {
        Ok(result as i32)
    }
}

const MAP_TYPE_XSKMAP: u32 = 17;

//! The last veth end: a program that counts every packet and drops it.
//!
//! Behind a sender from user space it is best attached in the kernel's generic path. A native program on veth makes the
//! kernel copy each packet once more, within the sender's own system call, and the measurement would be of that copy.
//! Frames that a program redirects are not copied, and reach the other end of a veth only through a native program or GRO.

use aya::Ebpf;
use aya::maps::PerCpuArray;
use aya::programs::{Xdp, xdp::XdpMode};

use crate::{Error, live};

/// A sink at work. Dropping it detaches the program.
pub struct Sink {
    ebpf: Ebpf,
}

impl Sink {
    /// Attaches to an interface of the calling thread's network namespace, in the stack (`Skb`) or in the driver.
    /// bpf(2): CAP_BPF and CAP_NET_ADMIN.
    ///
    /// # Errors
    /// The kernel refuses the program.
    pub fn attach(interface_index: u32, mode: XdpMode) -> Result<Self, Error> {
        let mut ebpf = Ebpf::load(live::OBJECT)?;
        let program = ebpf.program_mut("sink").ok_or("the object holds no program `sink`")?;
        let program: &mut Xdp = program.try_into()?;
        program.load()?;
        program.attach_to_if_index(interface_index, mode)?;
        Ok(Self { ebpf })
    }

    /// Packets and bytes that have arrived so far.
    ///
    /// # Errors
    /// The kernel refuses to read the map.
    pub fn arrived(&self) -> Result<[u64; 2], Error> {
        let map = self.ebpf.map("arrived").ok_or("the object holds no map `arrived`")?;
        let by_cpu = PerCpuArray::<_, [u64; 2]>::try_from(map)?.get(&0, 0)?;
        let sum = |[packets, bytes]: [u64; 2], &[p, b]: &[u64; 2]| [packets + p, bytes + b];
        Ok(by_cpu.iter().fold([0; 2], sum))
    }
}

//! Counting the packets that an interface did not take; see `xdp/refused/refused.bpf.c`.

use std::sync::atomic::{AtomicU64, Ordering};

use aya::maps::{MapData, PerCpuArray};
use aya::programs::RawTracePoint;
use aya::{Ebpf, EbpfLoader};

use super::error::{LOAD, LiveError};
use crate::flow::mix;

/// The object built from `xdp/refused/refused.bpf.c`; see there.
static OBJECT: &[u8] = aya::include_bytes_aligned!("../../xdp/refused/refused.bpf.o");

/// A name for a sender's thread that no other thread has: 15 bytes, as long as the kernel keeps them.
pub(super) fn thread_name() -> String {
    static SENDERS: AtomicU64 = AtomicU64::new(0);
    let number = SENDERS.fetch_add(1, Ordering::Relaxed);
    let unique = mix(u64::from(std::process::id()) << 32 | number) as u32;
    format!("live-tx{unique:08x}")
}

/// The count at work. Dropping it detaches its programs.
pub(super) struct Refused {
    _ebpf: Ebpf,
    counter: PerCpuArray<MapData, u64>,
}

impl Refused {
    /// Begins to count for the thread of this name.
    ///
    /// # Errors
    /// A kernel without BTF (CONFIG_DEBUG_INFO_BTF), missing privileges.
    pub(super) fn attach(thread_name: &str) -> Result<Self, LiveError> {
        let [name_0, name_1] = words(thread_name);
        let mut ebpf = EbpfLoader::new()
            .override_global("name_0", &name_0, true)
            .override_global("name_1", &name_1, true)
            .load(OBJECT)
            .map_err(|error| LiveError::kernel(LOAD, &error))?;
        for (program, tracepoint) in [("not_taken", "xdp_devmap_xmit"), ("not_redirected", "xdp_redirect_err")] {
            let program: &mut RawTracePoint = ebpf
                .program_mut(program)
                .and_then(|program| program.try_into().ok())
                .ok_or_else(|| LiveError::missing(program))?;
            program.load().map_err(|error| LiveError::kernel(LOAD, &error))?;
            program
                .attach(tracepoint)
                .map_err(|error| LiveError::kernel(format!("attach to the tracepoint {tracepoint}"), &error))?;
        }
        let map = ebpf
            .take_map("refused")
            .ok_or_else(|| LiveError::missing("map `refused`"))?;
        let counter = PerCpuArray::try_from(map).map_err(|error| LiveError::kernel(LOAD, &error))?;
        Ok(Self { _ebpf: ebpf, counter })
    }

    /// Packets so far.
    pub(super) fn read(&self) -> Result<u64, LiveError> {
        let by_cpu = self
            .counter
            .get(&0, 0)
            .map_err(|error| LiveError::kernel("read the count of refused packets", &error))?;
        Ok(by_cpu.iter().sum())
    }
}

/// A thread's name as the kernel keeps it: 16 bytes, the last of them zero.
fn words(name: &str) -> [u64; 2] {
    let mut bytes = name.bytes().take(15);
    [(); 2].map(|()| u64::from_ne_bytes([(); 8].map(|()| bytes.next().unwrap_or(0))))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_unique_and_as_long_as_the_kernel_keeps_them() {
        let names = [thread_name(), thread_name()];
        assert_ne!(names[0], names[1]);
        assert!(names.iter().all(|name| name.len() == 15));
        let bytes: Vec<u8> = words("a-name-far-too-long")
            .iter()
            .flat_map(|word| word.to_ne_bytes())
            .collect();
        assert_eq!(bytes, b"a-name-far-too-\0");
        assert_eq!(words("abc")[1], 0);
    }
}

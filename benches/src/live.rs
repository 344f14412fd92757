//! A flood of packets made inside the kernel: `BPF_PROG_TEST_RUN` on live frames (Linux 5.18 or later), up to some 10 million
//! packets a second from one core. No generator in user space comes near what a forwarder on veth must be fed with.
//!
//! Each call sets up and tears down for about 20 ms, so one call with a huge count runs for the whole measurement, on a
//! thread of its own, and ends by a signal to that thread: the kernel looks for signals between batches.
//!
//! System calls: bpf(2), CAP_BPF and CAP_NET_ADMIN; entering a namespace, CAP_SYS_ADMIN.

use std::os::unix::thread::JoinHandleExt;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::thread::JoinHandle;
use std::time::Duration;

use aya::maps::{Array, PerCpuArray};
use aya::programs::{ProgramError, TestRun, TestRunAttrs, TestRunOptions, Xdp};
use aya::{Ebpf, EbpfLoader};
use nix::errno::Errno;
use nix::sys::pthread::pthread_kill;
use nix::sys::signal::Signal;
use pktgen::lab::Namespace;

use crate::workload::{self, FLOWS, Flow, FlowBytes};
use crate::{Error, machine};

/// The object built from `xdp/flood.bpf.c`; see there.
pub(crate) static OBJECT: &[u8] = aya::include_bytes_aligned!("../xdp/flood.bpf.o");

/// Frames that the kernel makes and sends together: what a driver's poll takes.
const BATCH: u32 = 64;

/// Frames of one run: minutes of them, and half of what the kernel can count to.
const FRAMES: u32 = 1 << 31;

/// What a flood is made of.
pub struct FloodConfig<'a> {
    /// Where the interface is.
    pub namespace: &'a Namespace,
    /// The interface it leaves by.
    pub interface_index: u32,
    /// The core it runs on.
    pub cpu: usize,
    /// The flows, as many as `FLOWS`.
    pub flows: &'a [Flow],
    /// Length of each frame in bytes, with FCS: 64 to 1518.
    pub frame_len: usize,
    /// From which the flow of each packet is drawn.
    pub seed: u32,
}

/// A flood under way. To be ended with [`Flood::stop`].
pub struct Flood {
    thread: JoinHandle<Result<u64, Error>>,
}

impl Flood {
    /// Starts to send.
    ///
    /// # Errors
    /// The kernel refuses the program, or the thread cannot be started.
    pub fn start(config: &FloodConfig<'_>) -> Result<Self, Error> {
        let mut ebpf = EbpfLoader::new()
            .override_global("interface_index", &config.interface_index, true)
            .override_global("seed", &config.seed, true)
            .load(OBJECT)?;
        let map = ebpf.map_mut("flows").ok_or("the object holds no map `flows`")?;
        let mut flows = Array::<_, FlowBytes>::try_from(map)?;
        if config.flows.len() != FLOWS {
            return Err(format!("the flood takes {FLOWS} flows").into());
        }
        for (number, flow) in config.flows.iter().enumerate() {
            flows.set(number as u32, workload::flow_bytes(flow, config.frame_len), 0)?;
        }
        program(&mut ebpf)?.load()?;
        // The handler does nothing: a signal that is handled interrupts the system call and nothing else.
        signal_hook::flag::register(signal_hook::consts::SIGUSR1, Arc::new(AtomicBool::new(false)))?;
        let packet = workload::packet(&config.flows[0], config.frame_len);
        let cpu = config.cpu;
        let thread = config.namespace.spawn_thread("flood", move || {
            machine::pin(cpu)?;
            run(&mut ebpf, &packet)
        })?;
        Ok(Self { thread })
    }

    /// Ends the flood; returns how many packets it made.
    ///
    /// # Errors
    /// What went wrong while it ran.
    pub fn stop(self) -> Result<u64, Error> {
        // A signal that comes before the thread is in the system call is lost: repeat it.
        while !self.thread.is_finished() {
            pthread_kill(self.thread.as_pthread_t(), Signal::SIGUSR1)?;
            std::thread::sleep(Duration::from_millis(2));
        }
        self.thread.join().map_err(|_| "the flood has panicked")?
    }
}

fn run(ebpf: &mut Ebpf, packet: &[u8]) -> Result<u64, Error> {
    let options = TestRunOptions {
        data_in: Some(packet),
        repeat: FRAMES,
        attrs: TestRunAttrs::new().xdp_live_frames(BATCH),
        ..TestRunOptions::new()
    };
    match program(ebpf)?.test_run(options) {
        Err(ProgramError::SyscallError(error)) if error.io_error.raw_os_error() == Some(Errno::EINTR as i32) => {}
        Err(error) => return Err(error.into()),
        Ok(_) => {}
    }
    let map = ebpf.map("states").ok_or("the object holds no map `states`")?;
    let states = PerCpuArray::<_, [u64; 2]>::try_from(map)?;
    Ok(states.get(&0, 0)?.iter().map(|[sent, _]| sent).sum())
}

fn program(ebpf: &mut Ebpf) -> Result<&mut Xdp, Error> {
    let program = ebpf.program_mut("flood").ok_or("the object holds no program `flood`")?;
    Ok(program.try_into()?)
}

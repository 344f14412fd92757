//! Our own part in the comparison with other generators and forwarders; `benches/peers/*.sh` run it.
//!
//!     peer machine               the processor, and nanoseconds of an empty system call
//!     peer sink IF native        counts and drops in XDP, in the driver (or: generic, in the stack); answers each line it
//!                                reads with the packets so far and CLOCK_MONOTONIC in ns; ends with its input
//!     peer bare IF CPU           the bare AF_XDP transmitter, one constant frame, until it is killed
//!     peer live IF CPU           pktgen's engine `live`, 4,096 flows and sequence numbers, until it is killed
//!     peer flood IF CPU BYTES    the flood of the veth bench, frames of so many bytes with FCS, until it is killed
//!     peer forward bare CPU      the bare AF_XDP forwarder between the interfaces `site` and `wan`, until it is killed
//!     peer forward weir CPU      the appliance with the contracts of the benches between them, until SIGTERM; then says
//!                                which share of the packets did not conform
//!     peer forward xdp           the XDP program of `benches/peers/xdp` from `site` to `wan`, likewise
//!     peer contracts             the contracts of the benches, one in a line: prefix, DSCP, DSCP of excess, bit/s, bytes
//!
//! Works on interfaces of the network namespace it is started in, as root.
#![deny(unsafe_code)]

use std::io::{BufRead, Write};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use af_xdp::device;
use aya::maps::lpm_trie::{Key, LpmTrie};
use aya::maps::{Array, PerCpuArray};
use aya::programs::Xdp;
use aya::programs::xdp::XdpMode;
use aya::{Ebpf, EbpfLoader};
use control::appliance::Appliance;
use dataplane::clock::{Clock, MonotonicClock};
use pktgen::lab::Namespace;
use pktgen::live::{Load, Portion, Sender, SenderConfig};
use weir_benches::live::{Flood, FloodConfig};
use weir_benches::sender::stream;
use weir_benches::sink::Sink;
use weir_benches::workload::{self, Random};
use weir_benches::{Error, bare, machine, sender};

static POLICER: &[u8] = aya::include_bytes_aligned!("../peers/xdp/policer.bpf.o");

fn main() -> Result<(), Error> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    match arguments[..] {
        ["machine"] => {
            println!("{}\n{:.0}", machine::name(), machine::empty_syscall_ns());
            Ok(())
        }
        ["sink", interface, "native"] => sink(interface, XdpMode::Driver),
        ["sink", interface, "generic"] => sink(interface, XdpMode::Skb),
        ["bare", interface, cpu] => {
            machine::pin(cpu.parse()?)?;
            sender::Bare::bind(interface)?.run(&AtomicBool::new(false));
            Ok(())
        }
        ["live", interface, cpu] => live(interface, cpu.parse()?),
        ["flood", interface, cpu, bytes] => flood(interface, cpu.parse()?, bytes.parse()?),
        ["forward", "bare", cpu] => {
            machine::pin(cpu.parse()?)?;
            let ends = [("site", device::index("site")?), ("wan", device::index("wan")?)];
            bare::Bare::bind(ends)?.run(&Arc::new(AtomicBool::new(false)));
            Ok(())
        }
        ["forward", "weir", cpu] => weir(cpu.parse()?),
        ["forward", "xdp"] => policer(),
        ["contracts"] => {
            for contract in contracts()? {
                let Contract {
                    address,
                    bits,
                    dscp,
                    excess_dscp,
                    rate_bps,
                    burst_bytes,
                } = contract;
                println!("{address}/{bits} {dscp} {excess_dscp} {rate_bps} {burst_bytes}");
            }
            Ok(())
        }
        _ => Err(
            "peer machine | sink IF native|generic | bare IF CPU | live IF CPU | flood IF CPU BYTES | \
            forward bare|weir|xdp [CPU] | contracts"
                .into(),
        ),
    }
}

fn sink(interface: &str, mode: XdpMode) -> Result<(), Error> {
    let sink = Sink::attach(device::index(interface)?, mode)?;
    let mut out = std::io::stdout().lock();
    for line in std::io::stdin().lock().lines() {
        line?;
        let ([packets, _], now) = (sink.arrived()?, MonotonicClock.now());
        writeln!(out, "{packets} {}", now.0)?;
        out.flush()?;
    }
    Ok(())
}

fn live(interface: &str, cpu: usize) -> Result<(), Error> {
    let portions = [Portion {
        stream: stream()?,
        weight: 1.0,
    }];
    let mut sender = Sender::start(&SenderConfig {
        interface,
        cpu: Some(cpu),
        portions: &portions,
        load: Load::Max,
        packets: None,
        start: None,
        phase: 0,
        seed: 1,
        after: None,
    })?;
    sender.wait(Duration::from_secs(3600))?;
    Ok(())
}

fn flood(interface: &str, cpu: usize, frame_len: usize) -> Result<(), Error> {
    const SEED: u32 = 20_261_121;
    let flood = Flood::start(&FloodConfig {
        namespace: &Namespace::current()?,
        interface_index: device::index(interface)?,
        cpu,
        flows: &workload::flows(&mut Random::new(u64::from(SEED))),
        frame_len,
        seed: SEED,
    })?;
    wait_for_end()?;
    flood.stop()?;
    Ok(())
}

/// The appliance as the veth bench starts it.
fn weir(cpu: usize) -> Result<(), Error> {
    let weir = Appliance::start(workload::configuration("site", "wan", cpu)?)?;
    wait_for_end()?;
    let (mut conforming, mut excess) = (0, 0);
    for contract in &weir.stop().traffic.contracts {
        conforming += contract.counters.conforming.packets;
        excess += contract.counters.nonconforming.packets;
    }
    print_excess(conforming, excess);
    Ok(())
}

/// Of one service, for egress in one class.
struct Contract {
    address: std::net::Ipv4Addr,
    bits: u8,
    dscp: u8,
    excess_dscp: u8,
    rate_bps: u64,
    burst_bytes: u64,
}

/// What weir is given, for those that are not configured by its files.
fn contracts() -> Result<Vec<Contract>, Error> {
    let config = workload::configuration("site", "wan", 0)?.config;
    let mut contracts = Vec::new();
    for contract in &config.contracts {
        let class = &config.classes[contract.class];
        let prefix = config.services[contract.service].endpoints[0].prefix;
        let (std::net::IpAddr::V4(address), config::Meter::TokenBucket { rate_bps, burst_bytes }) =
            (prefix.addr(), &contract.meter)
        else {
            return Err("the contracts of the benches are token buckets of IPv4 prefixes".into());
        };
        contracts.push(Contract {
            address,
            bits: prefix.prefix_len(),
            dscp: class.dscp[0],
            excess_dscp: class.nonconforming_dscp.unwrap_or(class.dscp[0]),
            rate_bps: *rate_bps,
            burst_bytes: *burst_bytes,
        });
    }
    Ok(contracts)
}

/// As `struct contract` of `policer.bpf.c`: full at, time of a byte in ns / 2^16, burst in ns, both DSCPs, and the rest of a line.
type PolicerContract = [u64; 8];

fn policer() -> Result<(), Error> {
    let mut ebpf = EbpfLoader::new()
        .override_global("interface_index", &device::index("wan")?, true)
        .load(POLICER)?;
    for (number, contract) in contracts()?.iter().enumerate() {
        let bits_per_ns = contract.rate_bps as f64 / 1e9;
        let value = [
            0,
            (8.0 / bits_per_ns * 65_536.0) as u64,
            (contract.burst_bytes as f64 * 8.0 / bits_per_ns) as u64,
            u64::from(contract.dscp) | u64::from(contract.excess_dscp) << 8,
            0,
            0,
            0,
            0,
        ];
        let map = ebpf.map_mut("contracts").ok_or("the object holds no map `contracts`")?;
        Array::<_, PolicerContract>::try_from(map)?.set(number as u32, value, 0)?;
        let map = ebpf.map_mut("services").ok_or("the object holds no map `services`")?;
        // In the order of the packet's bytes, whatever the processor's.
        let key = Key::new(u32::from(contract.bits), contract.address.octets());
        LpmTrie::<_, [u8; 4], u32>::try_from(map)?.insert(&key, number as u32, 0)?;
    }
    let program: &mut Xdp = ebpf
        .program_mut("policer")
        .ok_or("the object holds no program `policer`")?
        .try_into()?;
    program.load()?;
    program.attach_to_if_index(device::index("site")?, XdpMode::Driver)?;
    wait_for_end()?;
    let verdicts = |ebpf: &Ebpf, verdict: u32| -> Result<u64, Error> {
        let map = ebpf.map("verdicts").ok_or("the object holds no map `verdicts`")?;
        Ok(PerCpuArray::<_, u64>::try_from(map)?.get(&verdict, 0)?.iter().sum())
    };
    print_excess(verdicts(&ebpf, 0)?, verdicts(&ebpf, 1)?);
    Ok(())
}

fn print_excess(conforming: u64, excess: u64) {
    println!(
        "{:.0} % excess",
        excess as f64 * 100.0 / (conforming + excess).max(1) as f64
    );
}

fn wait_for_end() -> Result<(), Error> {
    let end = Arc::new(AtomicBool::new(false));
    for signal in [signal_hook::consts::SIGTERM, signal_hook::consts::SIGINT] {
        signal_hook::flag::register(signal, end.clone())?;
    }
    while !end.load(Ordering::Relaxed) {
        std::thread::sleep(Duration::from_millis(20));
    }
    Ok(())
}

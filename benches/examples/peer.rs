//! Our own part in the comparison with other generators; `benches/peers/generators.sh` runs it.
//!
//!     peer machine               the processor, and nanoseconds of an empty system call
//!     peer sink IF native        counts and drops in XDP, in the driver (or: generic, in the stack); answers each line it
//!                                reads with the packets so far and CLOCK_MONOTONIC in ns; ends with its input
//!     peer bare IF CPU           the bare AF_XDP transmitter, one constant frame, until it is killed
//!     peer live IF CPU           pktgen's engine `live`, 4,096 flows and sequence numbers, until it is killed
//!
//! Works on interfaces of the network namespace it is started in, as root.
#![deny(unsafe_code)]

use std::io::{BufRead, Write};
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use af_xdp::device;
use aya::programs::xdp::XdpMode;
use dataplane::clock::{Clock, MonotonicClock};
use pktgen::live::{Load, Portion, Sender, SenderConfig};
use weir_benches::sender::{Bare, stream};
use weir_benches::sink::Sink;
use weir_benches::{Error, machine};

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
            Bare::bind(interface)?.run(&AtomicBool::new(false));
            Ok(())
        }
        ["live", interface, cpu] => live(interface, cpu.parse()?),
        _ => Err("peer machine | sink IF native|generic | bare IF CPU | live IF CPU".into()),
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

//! A gateway in memory: one worker, one lane, two memory ports, real tables, and its books laid open. Everything that a packet
//! goes through on a live gateway but the kernel; no root, no clock but the caller's.

use std::path::Path;
use std::sync::Arc;

use af_xdp::{Umem, UmemConfig};
use config::Config;
use control::compile::Compiler;
use control::publish::Publisher;
use dataplane::clock::Nanos;
use dataplane::frame::{FramePool, Packet};
use dataplane::lane::{Lane, WireEnds};
use dataplane::packet::{self, Family, Parsed};
use dataplane::path::PortShare;
use dataplane::port::MemoryPort;
use dataplane::stats::{Amount, PathCounters};
use dataplane::worker::{Worker, WorkerShared};
use jiff::Timestamp;

/// Every meter and every action, in both directions, with rates so low that all of them have excess, and ports so slow that
/// packets wait, are dropped at full rings and by CoDel, and get "congestion experienced".
pub const CONFIG: &str = r#"
region = "here"
[[port]]
name = "lan"
interface = "a"
side = "site"
rate = "200 Mbit/s"
[[port]]
name = "uplink"
interface = "b"
side = "wan"
rate = "200 Mbit/s"
[[wire]]
ports = ["lan", "uplink"]
[[class]]
name = "gold"
priority = 1
dscp = ["EF", "CS5", "AF41"]
yellow_dscp = ["AF42"]
red_dscp = ["AF43"]
pcp = [5]
nonconforming_dscp = 3
nonconforming_pcp = 2
[[class]]
name = "bulk"
priority = 2
default = true
nonconforming_dscp = "LE"
[[segment]]
name = "far"
prefixes = ["198.51.100.0/24", "2001:db8:2::/48"]
[[service]]
name = "web"
endpoints = ["10.1.0.0/16 tcp/443,8000-8100", "10.1.0.0/16 udp/443", "2001:db8:1::/48 tcp/443"]
[[service]]
name = "us"
endpoints = ["10.1.0.0/16", "2001:db8:1::/48"]
[[service]]
name = "them"
endpoints = ["198.51.100.0/24", "2001:db8:2::/48"]
[[contract]]
service = "us"
class = "gold"
region = "here"
direction = "egress"
rate = "20 Mbit/s"
burst = "16 kB"
[[contract]]
service = "us"
class = "bulk"
region = "here"
direction = "egress"
meter = "srtcm"
color_aware = true
rate = "8 Mbit/s"
burst = "16 kB"
excess_burst = "32 kB"
[contract.excess]
action = "queue"
[[contract]]
service = "web"
class = "gold"
region = "here"
direction = "egress"
segment = "far"
meter = "trtcm"
color_aware = true
rate = "8 Mbit/s"
burst = "16 kB"
peak_rate = "16 Mbit/s"
peak_burst = "32 kB"
[[contract]]
service = "them"
class = "gold"
region = "here"
direction = "ingress"
meter = "trtcm-4115"
rate = "8 Mbit/s"
burst = "16 kB"
excess_rate = "8 Mbit/s"
excess_burst = "32 kB"
[contract.excess]
action = "drop"
"#;

/// Longest packet that a frame of [`Size`] takes: one of 4,096 bytes less what is in front of the packet.
pub const PACKET_MAX: usize = 3_818;

/// What a gateway is made of.
#[derive(Clone, Copy, Debug)]
pub struct Size {
    /// Frames of 4,096 bytes; a power of two.
    pub frames: u32,
    /// Packets that a sending port takes until somebody takes them out.
    pub room: usize,
    /// Packets taken together, 1 to 64.
    pub batch: usize,
    /// Packets may come with the transport checksum still to be filled in.
    pub partial_checksums: bool,
}

/// The gateway.
pub struct MemoryGateway {
    worker: Worker<MemoryPort>,
    shared: Arc<WorkerShared>,
    compiler: Compiler,
    publisher: Publisher,
    size: Size,
    now: Nanos,
}

impl MemoryGateway {
    /// A gateway that runs `config`.
    ///
    /// # Errors
    /// The configuration cannot become a table, or there is no memory for the frames.
    pub fn new(config: &Config, size: Size) -> Result<Self, String> {
        let mut compiler = Compiler::new(1, Nanos(100_000));
        let compiled = compiler
            .compile(config, Timestamp::UNIX_EPOCH)
            .map_err(|error| error.to_string())?;
        let publisher = Publisher::new(compiled.table);
        let umem_config = UmemConfig {
            frame_count: size.frames,
            frame_size: 4_096,
            prefault: false,
            ..UmemConfig::default()
        };
        let (umem, frames) = Umem::new(&umem_config).map_err(|error| error.to_string())?;
        let share = || Arc::new(PortShare::new());
        let ends = WireEnds {
            ports: [0, 1],
            shares: [share(), share()],
            seed: 7,
        };
        let port = || {
            let port = MemoryPort::new(size.room);
            if size.partial_checksums {
                port.with_partial_checksums()
            } else {
                port
            }
        };
        let lane = Lane::new(0, &ends, port(), port());
        let shared = Arc::new(WorkerShared::new(1));
        let pool = FramePool::new(frames);
        let worker = Worker::new(vec![lane], umem, pool, &publisher.current(), shared.clone(), size.batch);
        Ok(Self {
            worker,
            shared,
            compiler,
            publisher,
            size,
            now: Nanos(1),
        })
    }

    /// Puts the table of `config` in the place of the one before.
    ///
    /// # Errors
    /// It cannot become a table; the one before goes on.
    pub fn swap(&mut self, config: &Config) -> Result<(), String> {
        let compiled = self.compiler.compile(config, Timestamp::UNIX_EPOCH);
        let compiled = compiled.map_err(|error| error.to_string())?;
        self.publisher.publish(compiled.table);
        self.publisher.retire([&*self.shared]);
        Ok(())
    }

    /// Lets a packet arrive at port `end` (0: site, 1: wan). False, as on a starved network card, without a free frame, and when
    /// it does not fit one.
    #[inline]
    pub fn arrive(&mut self, end: usize, bytes: &[u8], wire_len: u32) -> bool {
        let (umem, pool) = self.worker.pool();
        let Some(mut frame) = pool.take() else { return false };
        umem.reset(&mut frame);
        if !umem.set_len(&mut frame, bytes.len()) {
            pool.put(frame);
            return false;
        }
        umem.bytes_mut(&mut frame).copy_from_slice(bytes);
        let packet = Packet { frame, wire_len };
        self.worker.lanes_mut()[0].ports_mut()[end].arrive(packet);
        true
    }

    /// One turn of the worker, `after` the last one. Returns how many packets came in.
    #[inline]
    pub fn turn(&mut self, after: Nanos) -> usize {
        self.now = self.now.plus(after);
        self.worker.turn(self.now)
    }

    /// Turns until nothing arrives and nothing waits any more: at most a minute of the gateway's time.
    pub fn drain(&mut self, mut each: impl FnMut(&[u8], u32)) {
        for _ in 0..60_000 {
            let came = self.turn(Nanos::MILLISECOND);
            self.departed(0, &mut each);
            self.departed(1, &mut each);
            if came == 0 && self.worker.lanes()[0].held() == 0 {
                return;
            }
        }
    }

    /// Takes all packets that were sent out of port `end`, and shows each with its length on the wire.
    #[inline]
    pub fn departed(&mut self, end: usize, mut each: impl FnMut(&[u8], u32)) {
        while let Some(packet) = self.worker.lanes_mut()[0].ports_mut()[end].departed() {
            let (umem, pool) = self.worker.pool();
            each(umem.bytes(&packet.frame), packet.wire_len);
            pool.put(packet.frame);
        }
    }

    /// The ledgers by direction, if they close in packets and in bytes, hold what the rings hold, and no frame is missing.
    ///
    /// # Errors
    /// What does not add up.
    pub fn books(&self) -> Result<[PathCounters; 2], String> {
        let frames = self.worker.frames();
        if frames != self.size.frames as usize {
            return Err(format!("{frames} frames of {}", self.size.frames));
        }
        let ledgers = [0, 1].map(|path: usize| self.shared.ledgers[0][path].read());
        for ledger in &ledgers {
            let dropped: Amount = ledger.dropped.iter().copied().sum();
            if ledger.unaccounted() != 0 || ledger.received != ledger.forwarded + dropped + ledger.held {
                return Err(format!("the ledger does not close: {ledger:?}"));
            }
        }
        let held: u64 = ledgers.iter().map(|ledger| ledger.held.packets).sum();
        if held != self.worker.lanes()[0].held() as u64 {
            return Err(format!("the rings do not hold {held} packets"));
        }
        Ok(ledgers)
    }
}

/// The checked configuration of one text.
///
/// # Panics
/// It is not valid.
#[must_use]
pub fn checked(text: &str) -> Config {
    match config::load_texts((Path::new("weir.toml"), text), &[]) {
        Ok(loaded) => loaded.config,
        Err(report) => panic!("{}\n{text}", report.render(false)),
    }
}

/// `bytes` with everything set to 0 that a gateway may change on the way: DSCP and ECN, the checksum of IPv4, the priority of a
/// tag, and with `partial_checksums` that of the transport. Equal before and after, or weir wrote where it must not.
#[must_use]
pub fn unmarked(bytes: &[u8], wire_len: usize, partial_checksums: bool) -> Vec<u8> {
    let mut bytes = bytes.to_vec();
    let Parsed::Ip(headers) = packet::parse(&bytes, wire_len) else {
        return bytes;
    };
    let at = usize::from(headers.l3_offset);
    let mut clear = |at: usize, mask: u8| {
        if let Some(byte) = bytes.get_mut(at) {
            *byte &= !mask;
        }
    };
    let marks = match headers.family {
        Family::Ipv4 => [(at + 1, 0xff), (at + 10, 0xff), (at + 11, 0xff)],
        Family::Ipv6 => [(at, 0x0f), (at + 1, 0xf0), (at, 0)],
    };
    marks.into_iter().for_each(|(at, mask)| clear(at, mask));
    if headers.vlan_tags > 0 {
        clear(14, 0xe0);
    }
    if let (true, Some(transport)) = (partial_checksums, headers.l4_offset) {
        let field = usize::from(transport) + if headers.protocol == TCP { 16 } else { 6 };
        clear(field, 0xff);
        clear(field + 1, 0xff);
    }
    bytes
}

/// IANA's number of the protocol.
const TCP: u8 = 6;

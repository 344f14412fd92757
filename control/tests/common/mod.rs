//! What the hostile tests share: chance that can be repeated, and a worker on memory ports with its books laid open.
#![allow(dead_code, reason = "every test binary uses a part of it")]

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use af_xdp::{Umem, UmemConfig};
use config::Config;
use control::compile::{Compiled, Compiler};
use control::publish::Publisher;
use dataplane::clock::Nanos;
use dataplane::frame::{FramePool, Packet};
use dataplane::lane::{Lane, WireEnds};
use dataplane::path::PortShare;
use dataplane::port::MemoryPort;
use dataplane::stats::{Amount, PathCounters};
use dataplane::worker::{Worker, WorkerShared};
use jiff::Timestamp;

/// SplitMix64: the same numbers from the same seed, everywhere.
pub(crate) struct Chance(u64);

impl Chance {
    pub(crate) fn new(seed: u64) -> Self {
        Self(seed)
    }

    /// Seeded by the environment variable `WEIR_SEED`, else by `default`, and says so.
    pub(crate) fn seeded(what: &str, default: u64) -> Self {
        let seed = number_from("WEIR_SEED", default);
        println!("{what}: seed {seed}");
        Self(seed)
    }

    pub(crate) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    /// 0 to `end - 1`.
    pub(crate) fn below(&mut self, end: usize) -> usize {
        (self.next() % end.max(1) as u64) as usize
    }

    pub(crate) fn percent(&mut self, percent: usize) -> bool {
        self.below(100) < percent
    }

    pub(crate) fn of<T: Copy>(&mut self, choices: &[T]) -> T {
        choices[self.below(choices.len())]
    }
}

/// A number from the environment, so that a long run needs no other program.
pub(crate) fn number_from(variable: &str, default: u64) -> u64 {
    let text = std::env::var(variable).ok();
    text.and_then(|text| text.parse().ok()).unwrap_or(default)
}

/// The checked configuration of one text; what is wrong with it fails the test.
pub(crate) fn checked(text: &str) -> Config {
    match config::load_texts((Path::new("weir.toml"), text), &[]) {
        Ok(loaded) => loaded.config,
        Err(report) => panic!("{}\n{text}", report.render(false)),
    }
}

/// A box whose ports `lan` (site) and `uplink` (wan, with this rate) are joined. The file goes on behind it.
pub(crate) fn two_ports(rate: Option<&str>) -> String {
    let rate = rate.map_or(String::new(), |rate| format!("rate = \"{rate}\"\n"));
    format!(
        r#"region = "here"
[[port]]
name = "lan"
interface = "lan"
side = "site"
[[port]]
name = "uplink"
interface = "uplink"
side = "wan"
{rate}[[wire]]
ports = ["lan", "uplink"]
"#
    )
}

/// A directory of this process and test; it goes when dropped.
pub(crate) struct Scratch(PathBuf);

impl Scratch {
    pub(crate) fn new(name: &str) -> Self {
        static NEXT: AtomicU64 = AtomicU64::new(0);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let path = std::env::temp_dir().join(format!("weir-{name}-{}-{number}", std::process::id()));
        std::fs::create_dir_all(&path).unwrap();
        Self(path)
    }

    pub(crate) fn file(&self, name: &str) -> PathBuf {
        self.0.join(name)
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let _gone = std::fs::remove_dir_all(&self.0);
    }
}

/// One worker with one lane between two memory ports, and what publishes its tables.
pub(crate) struct Bench {
    pub(crate) worker: Worker<MemoryPort>,
    pub(crate) shared: Arc<WorkerShared>,
    pub(crate) publisher: Publisher,
    pub(crate) compiler: Compiler,
    pub(crate) compiled: Compiled,
    frames: usize,
}

/// What a bench is made of.
pub(crate) struct BenchSize {
    pub(crate) frames: u32,
    pub(crate) room: usize,
    pub(crate) batch: usize,
    pub(crate) partial_checksums: bool,
}

impl Bench {
    pub(crate) fn new(config: &Config, size: &BenchSize) -> Self {
        let mut compiler = Compiler::new(1, Nanos(100_000));
        let compiled = compiler.compile(config, Timestamp::UNIX_EPOCH).unwrap();
        let publisher = Publisher::new(compiled.table.clone());
        let umem_config = UmemConfig {
            frame_count: size.frames,
            prefault: false,
            ..UmemConfig::default()
        };
        let (umem, frames) = Umem::new(&umem_config).unwrap();
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
        Self {
            worker,
            shared,
            publisher,
            compiler,
            compiled,
            frames: size.frames as usize,
        }
    }

    /// Puts the table of `config` in the place of the one before.
    pub(crate) fn swap(&mut self, config: &Config) {
        self.compiled = self.compiler.compile(config, Timestamp::UNIX_EPOCH).unwrap();
        self.publisher.publish(self.compiled.table.clone());
        self.publisher.retire([&*self.shared]);
    }

    /// Lets `bytes` arrive at port `end` (0: site, 1: wan). False, as on a starved network card, without a free frame.
    pub(crate) fn arrive(&mut self, end: usize, bytes: &[u8], wire_len: u32) -> bool {
        let (umem, pool) = self.worker.pool();
        let Some(mut frame) = pool.take() else { return false };
        umem.reset(&mut frame);
        assert!(umem.set_len(&mut frame, bytes.len()), "{} bytes", bytes.len());
        umem.bytes_mut(&mut frame).copy_from_slice(bytes);
        let packet = Packet { frame, wire_len };
        self.worker.lanes_mut()[0].ports_mut()[end].arrive(packet);
        true
    }

    /// Takes up to `max` packets that were sent out of port `end`.
    pub(crate) fn departed(&mut self, end: usize, max: usize) -> Vec<Vec<u8>> {
        let mut taken = Vec::new();
        while taken.len() < max {
            let Some(packet) = self.worker.lanes_mut()[0].ports_mut()[end].departed() else {
                break;
            };
            let (umem, pool) = self.worker.pool();
            taken.push(umem.bytes(&packet.frame).to_vec());
            pool.put(packet.frame);
        }
        taken
    }

    /// The ledgers as others read them, after checking that they close in packets and in bytes and that no frame is missing.
    pub(crate) fn closed_ledgers(&self) -> [PathCounters; 2] {
        assert_eq!(self.worker.frames(), self.frames, "a frame is missing");
        let ledgers = [0, 1].map(|path: usize| self.shared.ledgers[0][path].read());
        for ledger in &ledgers {
            assert_eq!(ledger.unaccounted(), 0, "{ledger:?}");
            let gone: Amount = ledger.dropped.iter().copied().sum();
            assert_eq!(ledger.received, ledger.forwarded + gone + ledger.held, "{ledger:?}");
        }
        let held: u64 = ledgers.iter().map(|ledger| ledger.held.packets).sum();
        assert_eq!(held, self.worker.lanes()[0].held() as u64);
        ledgers
    }
}

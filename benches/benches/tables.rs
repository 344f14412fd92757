//! What large tables cost: to load and publish a configuration, to compile prefixes, and to classify packets by them.
//!
//!     cargo bench -p weir-benches --bench tables [-- --quick] [--json]
//!
//! Every service has an IPv4 prefix, an IPv6 prefix, and a TCP port of an address that it shares with hundreds of others; every
//! contract is one of a service. Everything is derived from a seed.
#![deny(unsafe_code)]

use std::fmt::Write as _;
use std::hint::black_box;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use af_xdp::{Umem, UmemConfig};
use control::compile::Compiler;
use control::publish::{Publisher, wait_for};
use dataplane::classify::{ClassifierBuilder, PathClassifier, ServiceId};
use dataplane::clock::Nanos;
use dataplane::contract::{ContractIndex, ContractTable, Direction};
use dataplane::frame::{BATCH, FramePool};
use dataplane::lane::{Lane, WireEnds};
use dataplane::packet::{Dscp, Family, Fragment, Headers, Ports};
use dataplane::path::PortShare;
use dataplane::port::MemoryPort;
use dataplane::worker::{Worker, WorkerShared};
use jiff::Timestamp;
use weir_benches::summary::Summary;
use weir_benches::workload::Random;
use weir_benches::{Error, allocation, machine};

#[global_allocator]
static ALLOCATOR: allocation::Counting = allocation::Counting;

const SEED: u64 = 20_261_122;

/// Packets that the stages take together, as `dataplane::path` does.
const FEW: usize = 16;

/// Flows when every packet is a new one: far more than a flow cache holds.
const NEW_FLOWS: usize = 1_000_000;

/// Flows when all are known.
const KNOWN_FLOWS: usize = 4_096;

fn main() -> Result<(), Error> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let has = |name: &str| arguments.iter().any(|argument| argument == name);
    let (rounds, largest) = if has("--quick") { (3, 100_000) } else { (9, 1_000_000) };
    // First, because the peak of memory is that of the process: later tables would hide it.
    let mut loads = Vec::new();
    let mut packets = Vec::new();
    for services in [10, 1_000, 100_000] {
        let (load, table) = load(services, rounds.min(5))?;
        loads.push(load);
        packets.push(classify(services, &table, rounds)?);
    }
    let prefixes: Vec<Prefixes> = [10, 1_000, 100_000, 1_000_000]
        .into_iter()
        .filter(|&count| count <= largest)
        .map(prefixes)
        .collect::<Result<_, Error>>()?;
    if has("--json") {
        print_json(&loads, &packets, &prefixes);
    } else {
        print_tables(&loads, &packets, &prefixes);
    }
    if packets.iter().any(|row| row.allocations > 0) {
        return Err("classifying allocates".into());
    }
    Ok(())
}

/// From text to the last worker.
struct Load {
    contracts: usize,
    text_bytes: usize,
    check_ms: Summary,
    compile_ms: Summary,
    publish_ms: Summary,
    /// Most memory that the process had while the last of several configurations was loaded and compiled beside the table of
    /// the one before, as in a reload, over what it had at first.
    peak_mib: f64,
    classifier_bytes: usize,
}

fn load(services: usize, rounds: usize) -> Result<(Load, Arc<ContractTable>), Error> {
    let directory = Directory::new()?;
    let text_bytes = directory.write(services)?;
    let before = memory_mib("VmRSS")?;
    std::fs::write("/proc/self/clear_refs", "5")?;
    let (mut check, mut compile, mut publish) = (Vec::new(), Vec::new(), Vec::new());
    let mut compiler = Compiler::new(2, Nanos(200_000));
    let mut last = None;
    for _ in 0..rounds {
        let start = machine::thread_ns();
        let loaded = config::load(&directory.0.join("weir.toml")).map_err(|report| report.render(false))?;
        check.push((machine::thread_ns() - start) as f64 / 1e6);
        let start = machine::thread_ns();
        let compiled = compiler.compile(&loaded.config, Timestamp::now())?;
        compile.push((machine::thread_ns() - start) as f64 / 1e6);
        last = Some((loaded, compiled));
    }
    let peak_mib = memory_mib("VmHWM")? - before;
    let (loaded, first) = last.ok_or("no round")?;
    // Only now, because workers that spin would take the processor from what is measured above.
    let mut workers = Workers::start(first.table)?;
    for _ in 0..rounds {
        publish.push(workers.publish(compiler.compile(&loaded.config, Timestamp::now())?.table)?);
    }
    let table = compiler.compile(&loaded.config, Timestamp::now())?.table;
    workers.stop()?;
    let load = Load {
        contracts: services,
        text_bytes,
        check_ms: Summary::of(&check),
        compile_ms: Summary::of(&compile),
        publish_ms: Summary::of(&publish),
        peak_mib,
        classifier_bytes: table.classifier.bytes(),
    };
    Ok((load, table))
}

fn ms(since: Instant) -> f64 {
    since.elapsed().as_secs_f64() * 1e3
}

/// Two workers on memory ports, turning without packets.
struct Workers {
    publisher: Publisher,
    shared: Vec<Arc<WorkerShared>>,
    over: Arc<AtomicBool>,
    threads: Vec<std::thread::JoinHandle<()>>,
}

impl Workers {
    fn start(table: Arc<ContractTable>) -> Result<Self, Error> {
        let mut workers = Self {
            publisher: Publisher::new(table),
            shared: Vec::new(),
            over: Arc::new(AtomicBool::new(false)),
            threads: Vec::new(),
        };
        for number in 0..2 {
            let (umem, frames) = Umem::new(&UmemConfig {
                frame_count: 256,
                ..UmemConfig::default()
            })?;
            let ends = WireEnds {
                ports: [0, 1],
                shares: [Arc::new(PortShare::new()), Arc::new(PortShare::new())],
                seed: SEED,
            };
            let lane = Lane::new(number, &ends, MemoryPort::new(64), MemoryPort::new(64));
            let shared = Arc::new(WorkerShared::new(1));
            let current = workers.publisher.current();
            let mut worker = Worker::new(
                vec![lane],
                umem,
                FramePool::new(frames),
                &current,
                shared.clone(),
                BATCH,
            );
            let over = workers.over.clone();
            workers.shared.push(shared);
            workers.threads.push(std::thread::spawn(move || {
                let mut now = Nanos::SECOND;
                while !over.load(Ordering::Relaxed) {
                    now = now.plus(Nanos(1_000));
                    worker.turn(now);
                }
            }));
        }
        Ok(workers)
    }

    /// Publishes; milliseconds until the last worker runs the table.
    fn publish(&mut self, table: Arc<ContractTable>) -> Result<f64, Error> {
        let generation = table.generation;
        let start = Instant::now();
        self.publisher.publish(table);
        if !wait_for(&self.shared, generation, Duration::from_secs(5)) {
            return Err("a worker does not take the table".into());
        }
        let taken = ms(start);
        self.publisher.retire(self.shared.iter().map(Arc::as_ref));
        Ok(taken)
    }

    fn stop(self) -> Result<(), Error> {
        self.over.store(true, Ordering::Relaxed);
        for thread in self.threads {
            thread.join().map_err(|_| "a worker panicked")?;
        }
        Ok(())
    }
}

/// A line of /proc/self/status in MiB.
fn memory_mib(name: &str) -> Result<f64, Error> {
    let status = std::fs::read_to_string("/proc/self/status")?;
    let line = status
        .lines()
        .find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
    let kib: f64 = line
        .and_then(|line| line.split_whitespace().next())
        .ok_or_else(|| format!("no {name}"))?
        .parse()?;
    Ok(kib / 1024.0)
}

/// A directory that goes when it is dropped.
struct Directory(PathBuf);

impl Directory {
    fn new() -> Result<Self, Error> {
        let path = std::env::temp_dir().join(format!("weir-tables-{}", std::process::id()));
        std::fs::create_dir_all(path.join("contracts.d"))?;
        Ok(Self(path))
    }

    /// Writes the configuration; its size in bytes.
    fn write(&self, services: usize) -> Result<usize, Error> {
        let texts = texts(services);
        std::fs::write(self.0.join("weir.toml"), &texts[0])?;
        for (number, text) in texts[1..].iter().enumerate() {
            std::fs::write(self.0.join(format!("contracts.d/{number}.toml")), text)?;
        }
        Ok(texts.iter().map(String::len).sum())
    }
}

impl Drop for Directory {
    fn drop(&mut self) {
        // What cannot be removed stays in the directory for temporary files, where it belongs.
        let _removed = std::fs::remove_dir_all(&self.0);
    }
}

/// The base file, and a drop-in for every 20,000 services.
fn texts(services: usize) -> Vec<String> {
    let base = "region = \"here\"\n\
        [[port]]\nname = \"lan\"\ninterface = \"site\"\nside = \"site\"\n\
        [[port]]\nname = \"uplink\"\ninterface = \"wan\"\nside = \"wan\"\n\
        [[wire]]\nports = [\"lan\", \"uplink\"]\n\
        [[class]]\nname = \"gold\"\npriority = 1\ndscp = [46]\nnonconforming_dscp = 45\n\
        [[class]]\nname = \"silver\"\npriority = 2\ndscp = [26]\nnonconforming_dscp = 25\n\
        [[class]]\nname = \"standard\"\npriority = 7\ndscp = [0]\nnonconforming_dscp = 1\n";
    let mut texts = vec![base.to_owned()];
    for first in (0..services).step_by(20_000) {
        let mut text = String::new();
        for number in first..services.min(first + 20_000) {
            let [ipv4, ipv6] = [site(number as u32), number as u32].map(|bits| bits.to_be_bytes());
            let class = ["gold", "silver", "standard"][number % 3];
            // Writing to a string cannot fail.
            let _written = write!(
                text,
                "[[service]]\nname = \"service-{number}\"\nowner = \"oncall-{number}\"\nendpoints = [\"{}.{}.{}.{}/26\", \
                 \"2001:db8:{:x}:{:x}::/64\", \"192.0.2.{} tcp/{}\"]\n\
                 [[contract]]\nservice = \"service-{number}\"\nclass = \"{class}\"\nregion = \"here\"\ndirection = \"egress\"\n\
                 rate = \"{} Mbit/s\"\nburst = \"64 KiB\"\nslo = \"99.9 %\"\nfrom = 2026-01-01\nuntil = 2036-01-01\n\n",
                ipv4[0],
                ipv4[1],
                ipv4[2],
                ipv4[3],
                u16::from_be_bytes([ipv6[0], ipv6[1]]),
                u16::from_be_bytes([ipv6[2], ipv6[3]]),
                number % 256,
                1024 + number / 256,
                1 + number % 1_000,
            );
        }
        texts.push(text);
    }
    texts
}

/// The first address of a service's IPv4 prefix.
fn site(number: u32) -> u32 {
    10 << 24 | number << 6
}

/// What classifying costs.
struct Row {
    services: usize,
    /// Making the headers, which is in the others as well.
    headers_ns: Summary,
    known_ns: Summary,
    one_by_one_ns: Summary,
    together_ns: Summary,
    allocations: u64,
}

/// A flow as small as possible, so that a million of them do not push the tables out of the caches.
#[derive(Clone, Copy)]
struct Flow {
    source: u32,
    port: u16,
    dscp: u8,
}

fn classify(services: usize, table: &Arc<ContractTable>, rounds: usize) -> Result<Row, Error> {
    let mut random = Random::new(SEED);
    let mut flows: Vec<Flow> = (0..NEW_FLOWS)
        .map(|_| {
            let number = random.below(services as u32);
            Flow {
                source: site(number) | random.below(64),
                port: random.below(65_536) as u16,
                dscp: [46, 26, 0][number as usize % 3],
            }
        })
        .collect();
    let mut classifier = PathClassifier::new(Direction::Egress, SEED);
    let allocations = allocation::count();
    let mut time = |flows: &[Flow], how: How| {
        let mut figures = Vec::new();
        let packets = flows.len().max(NEW_FLOWS / 4);
        for round in 0..=rounds {
            let start = machine::thread_ns();
            for _ in 0..packets / flows.len() {
                pass(&mut classifier, table, flows, how);
            }
            if round > 0 {
                figures.push((machine::thread_ns() - start) as f64 / packets as f64);
            }
        }
        Summary::of(&figures)
    };
    let headers_ns = time(&flows, How::HeadersOnly);
    let one_by_one_ns = time(&flows, How::OneByOne);
    let together_ns = time(&flows, How::Together);
    flows.truncate(KNOWN_FLOWS);
    let known_ns = time(&flows, How::Together);
    Ok(Row {
        services,
        headers_ns,
        known_ns,
        one_by_one_ns,
        together_ns,
        // The figures themselves: a vector of `rounds` for each of four.
        allocations: (allocation::count() - allocations).saturating_sub(64),
    })
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum How {
    HeadersOnly,
    OneByOne,
    Together,
}

fn pass(classifier: &mut PathClassifier, table: &ContractTable, flows: &[Flow], how: How) {
    let now = Nanos::SECOND;
    for few in flows.chunks(FEW) {
        let parsed: arrayvec::ArrayVec<_, FEW> = few.iter().map(headers).collect();
        let parsed = black_box(parsed);
        if how == How::HeadersOnly {
            continue;
        }
        let flows: arrayvec::ArrayVec<_, FEW> = parsed.iter().filter_map(|headers| classifier.flow(headers)).collect();
        for flow in &flows {
            classifier.prefetch(flow);
        }
        let mut new: arrayvec::ArrayVec<_, FEW> = arrayvec::ArrayVec::new();
        for (headers, flow) in parsed.iter().zip(&flows) {
            match classifier.known(table, flow) {
                Some(known) => {
                    black_box(known);
                }
                None if how == How::Together => new.push((headers, flow)),
                None => {
                    black_box(classifier.classify(table, headers, Some(flow), now));
                }
            }
        }
        if !new.is_empty() {
            let judged: arrayvec::ArrayVec<_, FEW> = classifier.classify_few(table, new.into_iter());
            black_box(judged);
        }
    }
}

fn headers(flow: &Flow) -> Headers {
    Headers {
        family: Family::Ipv4,
        pcp: None,
        vlan_tags: 0,
        l3_offset: 14,
        l3_len: 46,
        dscp: Dscp::new(flow.dscp).unwrap_or_default(),
        ecn: 0,
        src: u128::from(flow.source),
        dst: 0xc612_0001,
        protocol: 17,
        l4_offset: Some(34),
        ports: Some(Ports { src: flow.port, dst: 9 }),
        fragment: Fragment::Whole,
    }
}

/// What compiling prefixes costs.
struct Prefixes {
    count: usize,
    compile_ms: f64,
    bytes: usize,
}

/// Random prefixes of both families and mixed lengths, each of a service of its own.
fn prefixes(count: usize) -> Result<Prefixes, Error> {
    let mut random = Random::new(SEED);
    let mut builder = ClassifierBuilder::new(vec![[ContractIndex(0); 2]; 32]);
    for number in 0..count {
        let mut word = || u128::from(random.below(1 << 31)) << 1 | u128::from(random.below(2));
        let service = ServiceId(number as u32);
        if number % 2 == 0 {
            let length = [16, 20, 24, 28, 32][number / 2 % 5];
            builder.insert_endpoint(Family::Ipv4, word(), length, None, service);
        } else {
            let address = 1 << 125 | (word() << 96 | word() << 64 | word() << 32 | word()) >> 3;
            let length = [32, 48, 56, 64, 128][number / 2 % 5];
            builder.insert_endpoint(Family::Ipv6, address, length, None, service);
        }
    }
    let start = Instant::now();
    let classifier = builder.compile()?;
    Ok(Prefixes {
        count,
        compile_ms: ms(start),
        bytes: classifier.bytes(),
    })
}

fn print_tables(loads: &[Load], packets: &[Row], prefixes: &[Prefixes]) {
    println!("Large tables: {} (seed {SEED})\n", machine::name());
    println!(
        "| contracts | text, MiB | parse and check, ms of processor time | compile, ms of processor time | published to last worker, ms (worst) | peak memory, MiB | classifier, MiB |"
    );
    println!("|---|---|---|---|---|---|---|");
    let mib = |bytes: usize| bytes as f64 / f64::from(1 << 20);
    for load in loads {
        println!(
            "| {} | {:.1} | {:.1} | {:.1} | {:.2} | {:.0} | {:.1} |",
            load.contracts,
            mib(load.text_bytes),
            load.check_ms.median,
            load.compile_ms.median,
            load.publish_ms.max,
            load.peak_mib,
            mib(load.classifier_bytes)
        );
    }
    println!(
        "\nOne core, packets in groups of {FEW}; known: {KNOWN_FLOWS} flows; new: {NEW_FLOWS} flows, every packet a miss of the flow cache.\n"
    );
    println!("| services | making headers, ns | known flow, ns | new flow, one by one, ns | new flow, together, ns |");
    println!("|---|---|---|---|---|");
    for row in packets {
        println!(
            "| {} | {:.1} | {:.1} | {:.1} | {:.1} |",
            row.services, row.headers_ns.median, row.known_ns.median, row.one_by_one_ns.median, row.together_ns.median
        );
    }
    println!("\n| random prefixes, half of them IPv6 | compile, ms | memory, MiB |");
    println!("|---|---|---|");
    for row in prefixes {
        println!("| {} | {:.1} | {:.2} |", row.count, row.compile_ms, mib(row.bytes));
    }
}

fn print_json(loads: &[Load], packets: &[Row], prefixes: &[Prefixes]) {
    let loads: Vec<_> = loads
        .iter()
        .map(|load| {
            serde_json::json!({
                "contracts": load.contracts, "text_bytes": load.text_bytes, "check_ms": load.check_ms.json(),
                "compile_ms": load.compile_ms.json(), "publish_ms": load.publish_ms.json(),
                "peak_mib": load.peak_mib, "classifier_bytes": load.classifier_bytes,
            })
        })
        .collect();
    let packets: Vec<_> = packets
        .iter()
        .map(|row| {
            serde_json::json!({
                "services": row.services, "headers_ns": row.headers_ns.json(), "known_ns": row.known_ns.json(),
                "one_by_one_ns": row.one_by_one_ns.json(), "together_ns": row.together_ns.json(),
            })
        })
        .collect();
    let prefixes: Vec<_> = prefixes
        .iter()
        .map(|row| serde_json::json!({ "prefixes": row.count, "compile_ms": row.compile_ms, "bytes": row.bytes }))
        .collect();
    let report = serde_json::json!({
        "machine": machine::name(), "seed": SEED, "loads": loads, "packets": packets, "prefixes": prefixes,
    });
    println!("{report:#}");
}

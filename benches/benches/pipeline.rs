//! What a packet costs in memory, on one core: the whole worker, and each stage by itself.
//!
//!     cargo bench -p weir-benches --bench pipeline [-- --quick] [--json]
//!     cargo bench -p weir-benches --bench pipeline -- --count ROW PASSES
//!
//! `--count` runs one row for `benches/peers/instructions.sh`: its work, and nothing else, within the function `counted`.
#![deny(unsafe_code)]

use std::hint::black_box;

use dataplane::classify::PathClassifier;
use dataplane::clock::Nanos;
use dataplane::contract::{ContractIndex, ContractTable, Direction, Judge};
use dataplane::frame::BATCH;
use dataplane::mark;
use dataplane::meter::Color;
use dataplane::packet::{self, Dscp, Headers, Parsed};
use dataplane::priority::{Entry, Gate, Half, RingId, Rings, Sink};
use weir_benches::lane::{self, MemoryLane, PASS};
use weir_benches::summary::Summary;
use weir_benches::workload::{self, FLOWS, Random, SHORT};
use weir_benches::{Error, allocation, machine, many};

#[global_allocator]
static ALLOCATOR: allocation::Counting = allocation::Counting;

const SEED: u64 = 20_261_121;

/// Passes before measuring: after them the narrow contracts have used up the burst that they begin with.
const WARM_UP: usize = 40;

/// The same for 50,000 narrow contracts, each of which passes some 30 packets first.
const CROWD_WARM_UP: usize = 1_500;

/// How much is measured.
#[derive(Clone, Copy)]
struct Effort<'a> {
    rounds: usize,
    /// Passes in a round: some 20 ms of work, so that a clock read and an interrupt vanish in it.
    passes: usize,
    /// This row only, once warm, without a clock: an instruction counter looks on.
    counted: Option<&'a str>,
}

impl Effort<'_> {
    fn wants(&self, row: &str) -> bool {
        self.counted.is_none_or(|counted| counted == row.trim())
    }
}

/// What one round came to.
#[derive(Clone, Copy, Default)]
struct Round {
    ns: u64,
    packets: u64,
    allocations: u64,
    counted: bool,
}

/// Found by its name.
#[inline(never)]
fn counted(work: impl FnOnce()) {
    work();
}

impl Round {
    fn time(&mut self, packets: usize, work: impl FnOnce()) {
        if self.counted {
            counted(work);
            self.packets += packets as u64;
            return;
        }
        let allocations = allocation::count();
        let start = machine::thread_ns();
        work();
        self.ns += machine::thread_ns() - start;
        self.allocations += allocation::count() - allocations;
        self.packets += packets as u64;
    }
}

/// A line of the table.
struct Row {
    name: &'static str,
    ns: Summary,
    allocations_per_packet: f64,
}

fn main() -> Result<(), Error> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let has = |name: &str| arguments.iter().any(|argument| argument == name);
    let counted = arguments.iter().position(|argument| argument == "--count");
    let effort = match counted.map(|at| &arguments[at + 1..]) {
        Some([row, passes, ..]) => Effort {
            rounds: 1,
            passes: passes.parse()?,
            counted: Some(row),
        },
        Some(_) => return Err("--count ROW PASSES".into()),
        None => {
            let (rounds, passes) = if has("--quick") { (5, 8) } else { (31, 100) };
            Effort {
                rounds,
                passes,
                counted: None,
            }
        }
    };
    let before = machine::empty_syscall_ns();
    let tables = lane::tables()?;
    let mut rows = Vec::new();
    let nonconforming = whole(effort, &tables, &mut rows)?;
    stages(effort, &tables, &mut rows)?;
    let after = machine::empty_syscall_ns();
    if effort.counted.is_some() {
        return Ok(());
    }
    if has("--json") {
        print_json(&rows, nonconforming, [before, after]);
    } else {
        print_table(&rows, nonconforming, [before, after]);
    }
    if rows.iter().any(|row| row.allocations_per_packet > 0.0) {
        return Err("the packet path allocates".into());
    }
    Ok(())
}

/// Warms up, then measures every round.
fn measure(
    name: &'static str,
    effort: Effort<'_>,
    mut pass: impl FnMut(&mut Round) -> Result<(), Error>,
) -> Result<Row, Error> {
    if !effort.wants(name) {
        return Ok(Row {
            name,
            ns: Summary::of(&[0.0]),
            allocations_per_packet: 0.0,
        });
    }
    let mut rounds = Vec::with_capacity(effort.rounds);
    for number in 0..=effort.rounds {
        let mut round = Round {
            counted: effort.counted.is_some() && number > 0,
            ..Round::default()
        };
        let passes = if number == 0 { WARM_UP } else { effort.passes };
        for _ in 0..passes {
            pass(&mut round)?;
        }
        if number > 0 {
            rounds.push(round);
        }
    }
    let ns: Vec<f64> = rounds
        .iter()
        .map(|round| round.ns as f64 / round.packets as f64)
        .collect();
    let packets: u64 = rounds.iter().map(|round| round.packets).sum();
    if effort.counted.is_some() {
        println!("{packets} packets");
    }
    let allocations: u64 = rounds.iter().map(|round| round.allocations).sum();
    Ok(Row {
        name,
        ns: Summary::of(&ns),
        allocations_per_packet: allocations as f64 / packets as f64,
    })
}

/// From port to port. Returns the share of packets that did not conform.
fn whole(effort: Effort<'_>, tables: &[std::sync::Arc<ContractTable>; 2], rows: &mut Vec<Row>) -> Result<f64, Error> {
    let mut lane = MemoryLane::new(tables[0].clone(), false, SEED)?;
    rows.push(measure("whole worker, parse to schedule", effort, |round| {
        round.time(PASS, || lane.run());
        lane.reload()
    })?);
    let nonconforming = lane.nonconforming_share();
    rows.push(measure("  of which the memory ports", effort, |round| {
        round.time(PASS, || lane.run_ports_only());
        lane.reload()
    })?);
    let mut turn = 0;
    rows.push(measure(
        "whole worker, a new table every 2,048 packets",
        effort,
        |round| {
            turn += 1;
            lane.publish(tables[turn % 2].clone());
            round.time(PASS, || lane.run());
            lane.reload()
        },
    )?);
    let mut veth = MemoryLane::new(tables[0].clone(), true, SEED)?;
    rows.push(measure(
        "whole worker, looking for partial checksums",
        effort,
        |round| {
            round.time(PASS, || veth.run());
            veth.reload()
        },
    )?);
    if effort.wants(CROWD) {
        rows.push(crowd(effort)?);
    }
    Ok(nonconforming)
}

const CROWD: &str = "whole worker, 100,000 contracts, 1,000,000 flows";

/// Far more flows than the flow cache holds, so nearly every packet is new to it; its contract and cell are in no cache either.
fn crowd(effort: Effort<'_>) -> Result<Row, Error> {
    let loaded = many::load(&many::texts(0))?;
    let table = lane::shared_table(&loaded, 1)?;
    let mut random = Random::new(SEED);
    let flows = many::flows(1_000_000, &mut random);
    let mut lane = MemoryLane::of_flows(0, table, false, &flows, random)?;
    for _ in 0..CROWD_WARM_UP {
        lane.run();
        lane.reload()?;
    }
    measure(CROWD, effort, |round| {
        round.time(PASS, || lane.run());
        lane.reload()
    })
}

/// One stage at a time, over the packets of all flows in random order.
fn stages(effort: Effort<'_>, tables: &[std::sync::Arc<ContractTable>; 2], rows: &mut Vec<Row>) -> Result<(), Error> {
    let mut random = Random::new(SEED);
    let flows = workload::flows(&mut random);
    let mut packets: Vec<Vec<u8>> = (0..PASS)
        .map(|_| workload::packet(&flows[random.below(FLOWS as u32) as usize], SHORT))
        .collect();
    let headers: Vec<Headers> = packets.iter().filter_map(|packet| parse(packet)).collect();
    let now = Nanos::SECOND;
    rows.push(measure("parse", effort, |round| {
        round.time(PASS, || {
            for packet in &packets {
                black_box(packet::parse(packet, packet.len()));
            }
        });
        Ok(())
    })?);

    let mut classifier = PathClassifier::new(Direction::Egress, SEED);
    rows.push(measure("classify, flow known", effort, |round| {
        round.time(PASS, || {
            for headers in &headers {
                black_box(classify(&mut classifier, &tables[0], headers, now));
            }
        });
        Ok(())
    })?);
    let all: Vec<Headers> = flows
        .iter()
        .filter_map(|flow| parse(&workload::packet(flow, SHORT)))
        .collect();
    let mut turn = 0;
    rows.push(measure("classify, flow new", effort, |round| {
        turn += 1;
        let table = &tables[turn % 2];
        round.time(FLOWS, || {
            for headers in &all {
                black_box(classify(&mut classifier, table, headers, now));
            }
        });
        Ok(())
    })?);
    rows.push(meter(effort, &tables[0], &mut classifier, &headers)?);

    let marks = [45, 25].map(|dscp| Dscp::new(dscp).unwrap_or_default());
    let mut turn = 0;
    rows.push(measure("mark (every packet changed)", effort, |round| {
        turn += 1;
        round.time(PASS, || {
            for (packet, headers) in packets.iter_mut().zip(&headers) {
                black_box(mark::set_dscp(
                    packet,
                    headers.l3_offset,
                    headers.family,
                    marks[turn % 2],
                ));
            }
        });
        Ok(())
    })?);
    rows.push(rings(effort, &tables[0])?);
    Ok(())
}

fn meter(
    effort: Effort<'_>,
    table: &ContractTable,
    classifier: &mut PathClassifier,
    headers: &[Headers],
) -> Result<Row, Error> {
    let now = Nanos::SECOND;
    let contracts: Vec<_> = headers
        .iter()
        .map(|headers| *table.contract(classify(classifier, table, headers, now).0))
        .collect();
    let cells = table.cells.of(0);
    let mut clock = now;
    measure("meter", effort, |round| {
        round.time(PASS, || {
            for batch in contracts.chunks(BATCH) {
                clock = clock.plus(Nanos(6_400));
                for contract in batch {
                    if let Judge::Meter(meter) = &contract.judge {
                        black_box(meter.color(&cells.cell(contract.slot).purse, 46, clock, Color::Green));
                    }
                }
            }
        });
        Ok(())
    })
}

/// As a path does it.
fn classify(
    classifier: &mut PathClassifier,
    table: &ContractTable,
    headers: &Headers,
    now: Nanos,
) -> (ContractIndex, Color) {
    let flow = classifier.flow(headers);
    let known = flow.as_ref().and_then(|flow| classifier.known(table, flow));
    known.unwrap_or_else(|| classifier.classify(table, headers, flow.as_ref(), now))
}

/// Something as large as what waits in a path's rings.
type Item = [u64; 6];

struct Open;

impl Gate for Open {
    fn admits(&mut self, _half: Half, _bytes: u32) -> bool {
        true
    }

    fn sent(&mut self, _half: Half, _bytes: u32) {}
}

struct Take;

impl Sink<Item> for Take {
    fn room(&self) -> usize {
        2 * BATCH
    }

    fn send(&mut self, _half: Half, _ring: RingId, entry: Entry<Item>) {
        black_box(entry.item[0]);
    }

    fn mark_ce(&mut self, _item: &mut Item) -> bool {
        true
    }

    fn drop(&mut self, _half: Half, _ring: RingId, entry: Entry<Item>) {
        black_box(entry.item[0]);
    }
}

fn rings(effort: Effort<'_>, table: &ContractTable) -> Result<Row, Error> {
    let mut rings: Rings<Item> = Rings::new(dataplane::path::RING_CAPACITY);
    let mut random = Random::new(SEED);
    let places: Vec<(Half, RingId)> = (0..PASS)
        .filter_map(|_| {
            let half = [Half::Conforming, Half::Nonconforming][random.below(2) as usize];
            Some((half, RingId::new(random.below(4) as u8)?))
        })
        .collect();
    let mut clock = Nanos::SECOND;
    measure("enqueue and schedule", effort, |round| {
        round.time(PASS, || {
            for batch in places.chunks(BATCH) {
                clock = clock.plus(Nanos(6_400));
                for &(half, ring) in batch {
                    let entry = Entry {
                        item: black_box([1; 6]),
                        bytes: 46,
                        enqueued: clock,
                        drop_first: false,
                        ecn_capable: false,
                    };
                    // A ring holds more than a batch, so none is refused.
                    let _taken = rings.enqueue(half, ring, entry);
                }
                black_box(rings.schedule(&table.order, clock, &mut Open, &mut Take));
            }
        });
        Ok(())
    })
}

fn parse(packet: &[u8]) -> Option<Headers> {
    match packet::parse(packet, packet.len()) {
        Parsed::Ip(headers) => Some(headers),
        Parsed::Other { .. } => None,
    }
}

fn print_table(rows: &[Row], nonconforming: f64, syscall_ns: [f64; 2]) {
    println!("In memory, one core: {}", machine::name());
    println!(
        "64-byte frames, {} contracts, {FLOWS} flows in random order (seed {SEED}), batches of {BATCH}, {:.0} % nonconforming and re-marked",
        workload::SERVICES,
        nonconforming * 100.0
    );
    println!(
        "An empty system call took {:.0} ns before, {:.0} ns after.\n",
        syscall_ns[0], syscall_ns[1]
    );
    println!("| ns for each packet | median | min | p90 | allocations per packet |");
    println!("|---|---|---|---|---|");
    for row in rows {
        let Summary { median, min, p90, .. } = row.ns;
        println!(
            "| {} | {median:.1} | {min:.1} | {p90:.1} | {} |",
            row.name, row.allocations_per_packet
        );
    }
}

fn print_json(rows: &[Row], nonconforming: f64, syscall_ns: [f64; 2]) {
    let rows: Vec<_> = rows
        .iter()
        .map(|row| {
            serde_json::json!({
                "name": row.name.trim(),
                "ns_per_packet": row.ns.json(),
                "allocations_per_packet": row.allocations_per_packet,
            })
        })
        .collect();
    let report = serde_json::json!({
        "machine": machine::name(),
        "empty_syscall_ns": syscall_ns,
        "nonconforming_share": nonconforming,
        "seed": SEED,
        "rows": rows,
    });
    println!("{report:#}");
}

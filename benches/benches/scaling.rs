//! What a packet costs each of several workers, in memory: on a contract of its own and on one that all share.
//!
//!     cargo bench -p weir-benches --bench scaling [-- --quick] [--json]
//!
//! One worker for each core, all of them workers of one contract table. Between two rounds all of them wait for each other, so
//! that they run together. docs/SCALING.md says what follows for machines with more cores.
#![deny(unsafe_code)]

use std::hint::black_box;
use std::sync::{Arc, Barrier};
use std::thread;

use dataplane::cells::Cells;
use dataplane::cells::SlotId;
use dataplane::clock::Nanos;
use dataplane::contract::ContractTable;
use dataplane::meter::{Color, Meter, Profile};
use weir_benches::lane::{MemoryLane, PASS, shared_table};
use weir_benches::summary::Summary;
use weir_benches::workload;
use weir_benches::{Error, machine};

const SEED: u64 = 20_261_121;

/// Passes between two readings of the clock: some 10 ms.
const PASSES: usize = 60;

/// Checks between two readings of the clock, where only the meter is asked.
const CHECKS: u64 = 400_000;

/// Counted bytes of a packet in a 64-byte frame.
const PACKET_BYTES: u32 = 46;

/// A line of the table: what a packet costs a worker, while so many work.
struct Row {
    name: &'static str,
    workers: usize,
    ns: Summary,
}

fn main() -> Result<(), Error> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let has = |name: &str| arguments.iter().any(|argument| argument == name);
    let rounds = if has("--quick") { 5 } else { 31 };
    let cores = thread::available_parallelism()?.get();
    let many = workload::configuration("site", "wan", 0)?;
    let one = workload::one_contract()?;
    let mut rows = Vec::new();
    for workers in 1..=cores {
        for (name, loaded) in [
            ("worker, 1,000 contracts", &many),
            ("worker, one contract for all", &one),
        ] {
            let table = shared_table(loaded, workers)?;
            let ns = together(workers, rounds, |worker| lane(worker, table.clone()))?;
            rows.push(Row { name, workers, ns });
        }
        // The same bucket that lends 64 KiB to each worker, and one so small that it lends nothing.
        for (name, burst) in [
            ("meter, all conform, credits", 125_000_000),
            ("meter, all conform, an exchange for each", 9_216),
        ] {
            let state = Arc::new((
                Meter::new(Profile::token_bucket(400_000_000_000, burst)?, false),
                Cells::new(workers).grown(1),
            ));
            let ns = together(workers, rounds, |worker| Ok(meter(worker, state.clone())))?;
            rows.push(Row { name, workers, ns });
        }
    }
    if has("--json") {
        print_json(&rows);
    } else {
        print_table(&rows);
    }
    Ok(())
}

/// Something that a worker does again and again; gives how many packets that were, and in how many ns.
type Work = Box<dyn FnMut() -> Result<(u64, u64), Error>>;

fn lane(worker: usize, table: Arc<ContractTable>) -> Result<Work, Error> {
    let mut lane = MemoryLane::of_worker(worker, table, false, SEED + worker as u64)?;
    Ok(Box::new(move || {
        let mut ns = 0;
        for _ in 0..PASSES {
            let start = machine::thread_ns();
            lane.run();
            ns += machine::thread_ns() - start;
            lane.reload()?;
        }
        Ok(((PASSES * PASS) as u64, ns))
    }))
}

fn meter(worker: usize, state: Arc<(Meter, Cells)>) -> Work {
    let mut now = Nanos::SECOND;
    Box::new(move || {
        let (meter, cells) = &*state;
        let cells = cells.of(worker);
        let purse = &cells.cell(SlotId(0)).purse;
        let start = machine::thread_ns();
        for _ in 0..CHECKS {
            // Faster than the rate needs: each packet finds its bytes.
            now = now.plus(Nanos(10));
            let color = match cells.sharing(SlotId(0)) {
                None => meter.color(purse, PACKET_BYTES, now, Color::Green),
                Some(sharing) => meter.color_shared(sharing, purse, PACKET_BYTES, now, Color::Green),
            };
            black_box(color);
        }
        Ok((CHECKS, machine::thread_ns() - start))
    })
}

/// Lets `workers` workers do their work at the same time, `rounds` times after one that warms up, each on a core of its own.
/// The ns of a packet, over all workers and rounds.
fn together(
    workers: usize,
    rounds: usize,
    work: impl Fn(usize) -> Result<Work, Error> + Sync,
) -> Result<Summary, Error> {
    let barrier = Barrier::new(workers);
    let one = |worker: usize| -> Result<Vec<f64>, Error> {
        machine::pin(worker)?;
        let mut work = work(worker);
        let mut ns = Vec::with_capacity(rounds);
        for round in 0..=rounds {
            // Also by one that has failed: the others wait for it.
            barrier.wait();
            let done = work.as_mut().map_or(Ok((1, 0)), |work| work());
            match done {
                Ok((packets, took)) if round > 0 => ns.push(took as f64 / packets as f64),
                Ok(_) => {}
                Err(error) => work = Err(error),
            }
        }
        work.map(|_| ns)
    };
    let one = &one;
    let ns: Result<Vec<Vec<f64>>, Error> = thread::scope(|scope| {
        let threads: Vec<_> = (0..workers).map(|worker| scope.spawn(move || one(worker))).collect();
        let joined = threads
            .into_iter()
            .map(|thread| thread.join().map_err(|_| Error::from("a worker has panicked"))?);
        joined.collect()
    });
    Ok(Summary::of(&ns?.concat()))
}

fn print_table(rows: &[Row]) {
    println!("In memory, workers together: {}", machine::name());
    println!(
        "64-byte frames; an empty system call takes {:.0} ns\n",
        machine::empty_syscall_ns()
    );
    println!("| ns for each packet of a worker | workers | median | min | p90 | all together, beside one |");
    println!("|---|---|---|---|---|---|");
    for row in rows {
        let alone = rows.iter().find(|one| one.name == row.name && one.workers == 1);
        let gain = alone.map_or(1.0, |one| one.ns.median * row.workers as f64 / row.ns.median);
        let Summary { median, min, p90, .. } = row.ns;
        println!(
            "| {} | {} | {median:.1} | {min:.1} | {p90:.1} | {gain:.2} |",
            row.name, row.workers
        );
    }
}

fn print_json(rows: &[Row]) {
    let rows: Vec<_> = rows
        .iter()
        .map(|row| serde_json::json!({ "name": row.name, "workers": row.workers, "ns_per_packet": row.ns.json() }))
        .collect();
    let report = serde_json::json!({
        "machine": machine::name(),
        "empty_syscall_ns": machine::empty_syscall_ns(),
        "rows": rows,
    });
    println!("{report:#}");
}

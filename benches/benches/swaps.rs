//! Tables of 100,000 contracts swapped under a worker at full load: what gets lost, what is reordered, and how long it takes.
//!
//!     cargo bench -p weir-benches --bench swaps [-- --quick] [--json]
//!
//! ```text
//!   core 0: control thread                     core 1: worker
//!   Publisher::publish, retire  ── table ──►   Worker::turn, check what left, send it in again
//! ```
//!
//! Needs two cores, no root. Ends with status 1 when a packet was lost, doubled or reordered, when a worker went back to an
//! older table, or when it freed one.
#![deny(unsafe_code)]

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Weak};
use std::thread;
use std::time::Duration;

use control::compile::Compiler;
use control::publish::Publisher;
use dataplane::clock::{Clock, MonotonicClock, Nanos};
use dataplane::contract::ContractTable;
use dataplane::frame::BATCH;
use dataplane::worker::WorkerShared;
use hdrhistogram::Histogram;
use jiff::Timestamp;
use nix::sys::resource::{UsageWho, getrusage};
use weir_benches::checked::{BACKLOG, CheckedLane, Findings, UNDER_WAY};
use weir_benches::many::{self, CONTRACTS, VARIANTS};
use weir_benches::precedence::Precedence;
use weir_benches::workload::{FLOWS, Random};
use weir_benches::{Error, machine};

const CONTROL_CPU: usize = 0;
const WORKER_CPU: usize = 1;

const SEED: u64 = 20_261_121;

/// Compiled tables that take turns: enough that publishing seldom waits for the worker, even when its core is away for a
/// while, and so also publishes over a table that the worker has not looked at.
const TABLES: usize = 4;

/// Between two swaps, and the 50 µs that a sleep is late by. A worker gets through some thousand packets meanwhile.
const PAUSE: Duration = Duration::from_micros(450);

/// From the start of the worker to the start of measuring: the narrow contracts have used up the burst they begin with.
const WARM_UP: Duration = Duration::from_millis(300);

/// Between two rounds, and between two reloads: for the other processes of the machine, which have to wait in a round.
const REST: Duration = Duration::from_millis(400);

/// The worker's thread.
const WORKER: &str = "swaps-worker";

/// A gap above this counts as late: what is aimed at.
const LATE: Nanos = Nanos(50_000);

/// A worker that takes longer than this for a table has gone.
const PATIENCE: Nanos = Nanos(5_000_000_000);

/// How much is measured.
#[derive(Clone, Copy)]
struct Effort {
    rounds: usize,
    /// Of a round; a round without swaps is as long.
    swaps: usize,
    reloads: usize,
}

/// What the control thread is doing while the worker turns.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Phase {
    /// Starting or going over to something else: nothing is recorded.
    Between,
    Alone,
    Swaps,
    Resting,
    Reloads,
}

/// The phases that are recorded, as the table calls them.
const PHASES: [(Phase, &str); 4] = [
    (Phase::Alone, "no swaps"),
    (Phase::Swaps, "swaps of compiled tables"),
    (Phase::Resting, "nothing between two reloads"),
    (Phase::Reloads, "reloads: read, check, compile, swap, free"),
];

/// What the control thread tells the worker's.
struct Signals {
    phase: AtomicUsize,
    stop: AtomicBool,
}

/// What the worker's thread saw in one phase.
struct Seen {
    /// Nanoseconds from the end of one turn to the end of the next.
    gaps: Histogram<u64>,
    /// Of those, from turns that were the first with their table.
    first: Histogram<u64>,
    /// Gaps above [`LATE`].
    late: u64,
    ns: u64,
    packets: u64,
    /// How often another process of this machine got the core. What the host takes away nobody here sees.
    preempted: u64,
}

/// What the worker's thread saw in all.
struct Observed {
    seen: Vec<Seen>,
    /// Generation, and the end of the first turn with it.
    taken: Vec<(u64, Nanos)>,
    /// Generations that were older than the one before.
    backwards: u64,
    findings: Findings,
}

/// What the control thread did.
struct Controlled {
    /// Generation, and the instant before publishing it.
    published: Vec<(u64, Nanos)>,
    reloads: Vec<Reload>,
    /// Whether other processes could be kept off the cores in the rounds; in reloads, which take longer, they never are.
    has_precedence: bool,
}

/// The machine.
struct State {
    machine: String,
    /// Before and after.
    syscall_ns: [f64; 2],
}

/// One reload, in nanoseconds.
struct Reload {
    check: Nanos,
    compile: Nanos,
    /// Letting go of the table before it: `None` where that was one of those that take turns.
    free: Option<Nanos>,
    /// Whether someone else still held the table before it when the control thread let go of it, and so freed it.
    freed_elsewhere: bool,
}

fn main() -> Result<(), Error> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let has = |name: &str| arguments.iter().any(|argument| argument == name);
    if thread::available_parallelism()?.get() < 2 {
        println!("SKIPPED (needs two cores): the swaps bench");
        return Ok(());
    }
    let (rounds, swaps, reloads) = if has("--quick") { (4, 250, 2) } else { (20, 500, 20) };
    let effort = Effort { rounds, swaps, reloads };
    let before = machine::empty_syscall_ns();
    // Now, because afterwards this thread is pinned, and knows of one core only.
    let machine_name = machine::name();
    let (observed, controlled) = measure(effort)?;
    let state = State {
        machine: machine_name,
        syscall_ns: [before, machine::empty_syscall_ns()],
    };
    let delays = delays(&controlled.published, &observed.taken)?;
    if has("--json") {
        print_json(&observed, &controlled, &delays, &state);
    } else {
        print_table(&observed, &controlled, &delays, &state);
    }
    if !observed.findings.is_clean() {
        return Err(format!("packets were lost, doubled or reordered: {:?}", observed.findings).into());
    }
    if observed.backwards > 0 {
        return Err("the worker went back to an older table".into());
    }
    if controlled.reloads.iter().any(|reload| reload.freed_elsewhere) {
        return Err("a table was not freed by the control thread".into());
    }
    Ok(())
}

fn measure(effort: Effort) -> Result<(Observed, Controlled), Error> {
    let mut control = Control::new(effort)?;
    let signals = Signals {
        phase: AtomicUsize::new(Phase::Between as usize),
        stop: AtomicBool::new(false),
    };
    let flows = many::flows(FLOWS, &mut Random::new(SEED));
    let lane = CheckedLane::new(
        &control.publisher.current(),
        control.worker.clone(),
        &flows,
        SEED,
        MonotonicClock.now(),
    )?;
    let worker = control.worker.clone();
    let observed = Observed::new(effort)?;
    machine::pin(CONTROL_CPU)?;
    thread::scope(|scope| {
        let thread = thread::Builder::new()
            .name(WORKER.to_owned())
            .spawn_scoped(scope, || observed.watch(lane, &worker, &signals))?;
        let result = control.run(effort, &signals);
        signals.stop.store(true, Ordering::Relaxed);
        let observed = thread.join().map_err(|_| "the worker has panicked")??;
        result?;
        Ok((observed, control.controlled))
    })
}

impl Signals {
    /// Goes over to `phase`, and lets what the one before has left behind pass.
    fn enter(&self, phase: Phase) {
        self.phase.store(Phase::Between as usize, Ordering::Relaxed);
        thread::sleep(Duration::from_millis(2));
        self.phase.store(phase as usize, Ordering::Relaxed);
    }
}

/// The control thread: what it publishes, and by what.
struct Control {
    texts: Vec<[String; 2]>,
    compiler: Compiler,
    publisher: Publisher,
    worker: Arc<WorkerShared>,
    /// Those that take turns.
    tables: Vec<Arc<ContractTable>>,
    /// The current table if it came by a reload: then nobody but publisher and worker holds it.
    reloaded: Option<Weak<ContractTable>>,
    generation: u64,
    controlled: Controlled,
}

impl Control {
    fn new(effort: Effort) -> Result<Self, Error> {
        let texts: Vec<[String; 2]> = (0..VARIANTS).map(many::texts).collect();
        let loaded = texts.iter().map(many::load).collect::<Result<Vec<_>, _>>()?;
        let mut compiler = Compiler::new(1, Nanos(200_000));
        let mut tables = Vec::with_capacity(TABLES);
        for number in 0..TABLES {
            let compiled = compiler.compile(&loaded[number % VARIANTS].config, Timestamp::now())?;
            tables.push(compiled.table);
        }
        Ok(Self {
            texts,
            compiler,
            publisher: Publisher::new(tables[0].clone()),
            worker: Arc::new(WorkerShared::new(1)),
            generation: tables[0].generation,
            tables,
            reloaded: None,
            controlled: Controlled {
                published: Vec::with_capacity(effort.tables()),
                reloads: Vec::new(),
                has_precedence: true,
            },
        })
    }

    fn run(&mut self, effort: Effort, signals: &Signals) -> Result<(), Error> {
        thread::sleep(WARM_UP);
        for round in 0..effort.rounds {
            let order = [Phase::Alone, Phase::Swaps];
            let precedence = Precedence::take(&[WORKER]);
            self.controlled.has_precedence &= precedence.is_some();
            for at in 0..2 {
                let phase = order[(round + at) % 2];
                signals.enter(phase);
                for _ in 0..effort.swaps {
                    thread::sleep(PAUSE);
                    if phase == Phase::Swaps {
                        self.swap()?;
                    }
                }
            }
            signals.enter(Phase::Between);
            drop(precedence);
            thread::sleep(REST);
        }
        for number in 0..effort.reloads {
            signals.enter(Phase::Reloads);
            self.reload(number % VARIANTS)?;
            signals.enter(Phase::Resting);
            thread::sleep(REST);
        }
        signals.enter(Phase::Between);
        Ok(())
    }

    /// Publishes the compiled table that the worker has left behind for longest, with a generation of its own.
    fn swap(&mut self) -> Result<(), Error> {
        let deadline = MonotonicClock.now().plus(PATIENCE);
        loop {
            self.publisher.retire([&*self.worker]);
            // Only a table that nobody else holds can be changed: the worker has let go of it.
            let free = self.tables.iter_mut().position(|table| Arc::get_mut(table).is_some());
            if let Some(free) = free {
                let mut table = self.tables.remove(free);
                self.renumber(&mut table)?;
                self.tables.push(table.clone());
                self.reloaded = None;
                self.publish(table);
                return Ok(());
            }
            if MonotonicClock.now() > deadline {
                return Err("the worker keeps its tables".into());
            }
            thread::yield_now();
        }
    }

    fn renumber(&mut self, table: &mut Arc<ContractTable>) -> Result<(), Error> {
        self.generation += 1;
        let table = Arc::get_mut(table).ok_or("the table is held by somebody else")?;
        table.generation = self.generation;
        Ok(())
    }

    fn publish(&mut self, table: Arc<ContractTable>) {
        let at = MonotonicClock.now();
        self.publisher.publish(table);
        self.controlled.published.push((self.generation, at));
    }

    /// What `Appliance::reload` does, but that the texts are in memory.
    fn reload(&mut self, variant: usize) -> Result<(), Error> {
        let start = MonotonicClock.now();
        let loaded = many::load(&self.texts[variant])?;
        let checked = MonotonicClock.now();
        let mut table = self.compiler.compile(&loaded.config, Timestamp::now())?.table;
        let compiled = MonotonicClock.now();
        self.renumber(&mut table)?;
        let before = self.reloaded.replace(Arc::downgrade(&table));
        self.publish(table);
        while self.worker.generation() < self.generation {
            if MonotonicClock.now().since(compiled) > PATIENCE {
                return Err("the worker does not take the table".into());
            }
            thread::sleep(Duration::from_micros(50));
        }
        let holders = before.as_ref().map(Weak::strong_count);
        let start_of_free = MonotonicClock.now();
        self.publisher.retire([&*self.worker]);
        let free = MonotonicClock.now().since(start_of_free);
        let is_gone = before.as_ref().is_none_or(|before| before.strong_count() == 0);
        self.controlled.reloads.push(Reload {
            check: checked.since(start),
            compile: compiled.since(checked),
            free: holders.map(|_| free),
            freed_elsewhere: holders.is_some_and(|holders| holders != 1) || !is_gone,
        });
        Ok(())
    }
}

impl Effort {
    /// Tables that are published, the first included.
    fn tables(self) -> usize {
        1 + self.rounds * self.swaps + self.reloads
    }
}

impl Seen {
    fn new() -> Result<Self, Error> {
        Ok(Self {
            gaps: histogram()?,
            first: histogram()?,
            late: 0,
            ns: 0,
            packets: 0,
            preempted: 0,
        })
    }

    fn seconds(&self) -> f64 {
        self.ns as f64 / 1e9
    }
}

impl Observed {
    fn new(effort: Effort) -> Result<Self, Error> {
        Ok(Self {
            seen: PHASES.iter().map(|_| Seen::new()).collect::<Result<_, _>>()?,
            taken: Vec::with_capacity(effort.tables()),
            backwards: 0,
            findings: Findings::default(),
        })
    }

    /// Turns until told to stop.
    fn watch(mut self, mut lane: CheckedLane, worker: &WorkerShared, signals: &Signals) -> Result<Self, Error> {
        machine::pin(WORKER_CPU)?;
        let clock = MonotonicClock;
        let mut phase = Phase::Between as usize;
        let mut generation = worker.generation();
        let mut preemptions = preemptions()?;
        let mut last = clock.now();
        while !signals.stop.load(Ordering::Relaxed) {
            lane.turn(last);
            let end = clock.now();
            let gap = end.since(last);
            last = end;
            let packets = lane.renew();
            let took = worker.generation();
            if took != generation {
                self.backwards += u64::from(took < generation);
                self.taken.push((took, end));
            }
            let wanted = signals.phase.load(Ordering::Relaxed);
            if wanted != phase {
                let now = self::preemptions()?;
                if let Some(seen) = recorded(&mut self.seen, phase) {
                    seen.preempted += now - preemptions;
                }
                (phase, preemptions, last) = (wanted, now, clock.now());
            } else if let Some(seen) = recorded(&mut self.seen, phase) {
                seen.gaps.saturating_record(gap.0);
                if took != generation {
                    seen.first.saturating_record(gap.0);
                }
                seen.late += u64::from(gap > LATE);
                seen.ns += gap.0;
                seen.packets += packets as u64;
            }
            generation = took;
        }
        self.findings = lane.finish(clock.now());
        Ok(self)
    }
}

fn recorded(seen: &mut [Seen], phase: usize) -> Option<&mut Seen> {
    let place = PHASES.iter().position(|&(recorded, _)| recorded as usize == phase)?;
    seen.get_mut(place)
}

/// How often the scheduler has taken the core from the calling thread.
fn preemptions() -> Result<u64, Error> {
    Ok(getrusage(UsageWho::RUSAGE_THREAD)?.involuntary_context_switches() as u64)
}

/// For 1 ns to 60 s, 0.1 % exact.
fn histogram() -> Result<Histogram<u64>, Error> {
    Ok(Histogram::new_with_bounds(1, 60_000_000_000, 3)?)
}

/// From each publication to the end of the worker's first turn with that table or a newer one.
fn delays(published: &[(u64, Nanos)], taken: &[(u64, Nanos)]) -> Result<Histogram<u64>, Error> {
    let mut delays = histogram()?;
    let mut taken = taken.iter().peekable();
    for &(generation, at) in published {
        while taken.next_if(|&&(took, _)| took < generation).is_some() {}
        let Some(&&(_, end)) = taken.peek() else {
            return Err(format!("the worker never ran table {generation} or a newer one").into());
        };
        delays.saturating_record(end.since(at).0.max(1));
    }
    Ok(delays)
}

fn us(ns: u64) -> f64 {
    ns as f64 / 1e3
}

/// Times of reloads, in ms: median and largest.
fn reload_ms(reloads: &[Reload], part: impl Fn(&Reload) -> Option<Nanos>) -> [f64; 2] {
    let mut ms: Vec<f64> = reloads
        .iter()
        .filter_map(part)
        .map(|time| time.0 as f64 / 1e6)
        .collect();
    ms.sort_by(f64::total_cmp);
    [ms.get(ms.len() / 2), ms.last()].map(|value| value.copied().unwrap_or(0.0))
}

fn print_table(observed: &Observed, controlled: &Controlled, delays: &Histogram<u64>, state: &State) {
    println!("Swaps under load, in memory: {}", state.machine);
    println!(
        "{CONTRACTS} contracts, {FLOWS} flows in random order (seed {SEED}), 64-byte frames, batches of {BATCH}, {UNDER_WAY} packets under way, {BACKLOG} of them in rings"
    );
    println!(
        "An empty system call took {:.0} ns before, {:.0} ns after. Real-time priority in the rounds with and without swaps: {}\n",
        state.syscall_ns[0],
        state.syscall_ns[1],
        if controlled.has_precedence { "yes" } else { "no" }
    );
    println!(
        "| the control thread does | s | Mpps | gap µs p50 | p99 | p99.9 | worst | above {:.0} µs | of those a second | preempted a second |",
        us(LATE.0)
    );
    println!("|---|---|---|---|---|---|---|---|---|---|");
    for ((_, name), seen) in PHASES.iter().zip(&observed.seen) {
        let seconds = seen.seconds();
        println!(
            "| {name} | {seconds:.1} | {:.2} | {} | {} | {:.1} | {:.1} |",
            seen.packets as f64 / seconds / 1e6,
            gaps(&seen.gaps),
            seen.late,
            seen.late as f64 / seconds,
            seen.preempted as f64 / seconds,
        );
        if !seen.first.is_empty() {
            let late = seen.first.count_between(LATE.0 + 1, u64::MAX);
            println!(
                "|   first turns with a table | | | {} | {late} | | |",
                gaps(&seen.first)
            );
        }
    }
    let Findings {
        sent,
        lost,
        doubled,
        reordered,
        dropped,
        ..
    } = &observed.findings;
    println!("\n{sent} packets: {lost} lost, {doubled} doubled, {reordered} reordered within a flow and ring");
    for (reason, packets) in dropped {
        println!("of the lost, weir dropped {packets}: {reason}");
    }
    println!(
        "{} tables published, {} of them run, {} skipped for a newer one, {} older than the one before",
        controlled.published.len(),
        observed.taken.len(),
        controlled.published.len().saturating_sub(observed.taken.len()),
        observed.backwards
    );
    println!(
        "from publishing to the end of the first turn with the table or a newer one: p50 {:.1} µs, p99 {:.1} µs, worst {:.1} µs",
        us(delays.value_at_quantile(0.5)),
        us(delays.value_at_quantile(0.99)),
        us(delays.max())
    );
    print_reloads(&controlled.reloads);
}

fn gaps(gaps: &Histogram<u64>) -> String {
    let at = |quantile| us(gaps.value_at_quantile(quantile));
    format!(
        "{:.1} | {:.1} | {:.1} | {:.1}",
        at(0.5),
        at(0.99),
        at(0.999),
        us(gaps.max())
    )
}

fn print_reloads(reloads: &[Reload]) {
    let [check, check_max] = reload_ms(reloads, |reload| Some(reload.check));
    let [compile, compile_max] = reload_ms(reloads, |reload| Some(reload.compile));
    let [free, free_max] = reload_ms(reloads, |reload| reload.free);
    let freed = reloads.iter().filter(|reload| reload.free.is_some());
    let here = freed.clone().filter(|reload| !reload.freed_elsewhere).count();
    println!(
        "{} reloads: check {check:.0} ms (at most {check_max:.0}), compile {compile:.0} ms (at most {compile_max:.0}), free the old table {free:.3} ms (at most {free_max:.3}): {here} of {} on the control thread",
        reloads.len(),
        freed.count(),
    );
}

fn print_json(observed: &Observed, controlled: &Controlled, delays: &Histogram<u64>, state: &State) {
    let json = |gaps: &Histogram<u64>| {
        let at = |quantile| us(gaps.value_at_quantile(quantile));
        serde_json::json!({
            "count": gaps.len(),
            "p50": at(0.5), "p99": at(0.99), "p999": at(0.999), "max": us(gaps.max()),
        })
    };
    let phases: serde_json::Map<String, serde_json::Value> = ["alone", "swaps", "resting", "reloads"]
        .into_iter()
        .zip(&observed.seen)
        .map(|(name, seen)| {
            let value = serde_json::json!({
                "seconds": seen.seconds(),
                "mpps": seen.packets as f64 / seen.seconds() / 1e6,
                "gap_us": json(&seen.gaps),
                "first_turn_gap_us": json(&seen.first),
                "late": seen.late,
                "preempted": seen.preempted,
            });
            (name.to_owned(), value)
        })
        .collect();
    let found = &observed.findings;
    let reload = |part: fn(&Reload) -> Option<Nanos>| {
        let [median, max] = reload_ms(&controlled.reloads, part);
        serde_json::json!({ "median": median, "max": max })
    };
    let report = serde_json::json!({
        "machine": state.machine,
        "empty_syscall_ns": state.syscall_ns,
        "has_precedence": controlled.has_precedence,
        "seed": SEED,
        "contracts": CONTRACTS,
        "phases": phases,
        "packets": found.sent,
        "lost": found.lost,
        "dropped": found.dropped.iter().copied().collect::<std::collections::BTreeMap<_, _>>(),
        "doubled": found.doubled,
        "reordered": found.reordered,
        "frames_missing": found.frames_missing,
        "tables_published": controlled.published.len(),
        "tables_run": observed.taken.len(),
        "tables_backwards": observed.backwards,
        "publish_to_run_us": json(delays),
        "reloads": controlled.reloads.len(),
        "check_ms": reload(|reload| Some(reload.check)),
        "compile_ms": reload(|reload| Some(reload.compile)),
        "free_ms": reload(|reload| reload.free),
        "freed_elsewhere": controlled.reloads.iter().filter(|reload| reload.freed_elsewhere).count(),
    });
    println!("{report:#}");
}

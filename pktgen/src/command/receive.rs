//! `pktgen receive`: the receiving half alone.

use std::collections::BTreeMap;
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use dataplane::clock::MonotonicClock;
use pktgen::console::stop_flag;
use pktgen::receive::Receiver;
use pktgen::score::Scores;
use serde::Serialize;

use super::bench::seconds;
use super::ends::end;
use super::output::say;
use super::{Done, Failure};

#[derive(clap::Args)]
pub(super) struct Receive {
    /// Interface to receive on; the kernel's own stack sees nothing on it meanwhile
    #[arg(long, value_name = "IF")]
    interface: String,
    /// Its network namespace, as `ip netns` names it [default: this one]
    #[arg(long, value_name = "NAME")]
    netns: Option<String>,
    /// Streams to score: 0 to this, less one
    #[arg(long, value_name = "N", default_value_t = 256)]
    streams: u16,
    /// How long to receive [default: until Ctrl-C]
    #[arg(long)]
    seconds: Option<f64>,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

/// What arrived of one stream.
#[derive(Serialize)]
struct Row {
    stream: u16,
    received: u64,
    reordered: u64,
    duplicated: u64,
    by_dscp: BTreeMap<u8, u64>,
    /// Only where sender and receiver have the same clock, which is on one machine.
    latency_p50_ns: u64,
    latency_p99_ns: u64,
    jitter_p50_ns: u64,
}

#[derive(Serialize)]
struct Received {
    streams: Vec<Row>,
    corrupted: u64,
    foreign: u64,
    unknown_stream: u64,
    /// Arrived, and lost because the receiver was too slow.
    overrun: u64,
}

impl Receive {
    pub(super) fn run(&self) -> Done {
        let at = end(self.netns.as_deref(), &self.interface)?;
        let ids: Vec<u16> = (0..self.streams).collect();
        let longest = self.seconds.map(|s| seconds("--seconds", s)).transpose()?;
        let stop = stop_flag()?;
        let name = &at.interface;
        let mut receiver = at.namespace.run(|| Receiver::new(name, &ids, MonotonicClock))??;
        let reader = receiver.reader()?;
        let told = Arc::new(AtomicBool::new(false));
        let thread_told = told.clone();
        let thread = std::thread::Builder::new()
            .name("pktgen-receive".into())
            .spawn(move || receiver.run(&thread_told))?;
        let begun = Instant::now();
        while !stop.load(Ordering::Relaxed) && longest.is_none_or(|longest| begun.elapsed() < longest) {
            std::thread::sleep(Duration::from_millis(20));
        }
        told.store(true, Ordering::Release);
        thread
            .join()
            .map_err(|_| Failure::Run("the receiver has panicked".into()))?;
        let overrun = reader.overrun()?;
        self.print(&rows(&reader.snapshot(), overrun))
    }

    fn print(&self, received: &Received) -> Done {
        if self.json {
            say(serde_json::to_string_pretty(received)?);
            return Ok(ExitCode::SUCCESS);
        }
        say(format_args!(
            "{:<8}{:>14}{:>12}{:>12}{:>13}{:>13}{:>13}  DSCP",
            "stream", "received", "reordered", "duplicated", "p50 µs", "p99 µs", "jitter µs"
        ));
        for row in &received.streams {
            let micros = |ns: u64| format!("{:.1}", ns as f64 / 1e3);
            let dscp: Vec<String> = row
                .by_dscp
                .iter()
                .map(|(dscp, packets)| format!("{dscp}: {packets}"))
                .collect();
            say(format_args!(
                "{:<8}{:>14}{:>12}{:>12}{:>13}{:>13}{:>13}  {}",
                row.stream,
                row.received,
                row.reordered,
                row.duplicated,
                micros(row.latency_p50_ns),
                micros(row.latency_p99_ns),
                micros(row.jitter_p50_ns),
                dscp.join(", ")
            ));
        }
        say(format_args!(
            "{} corrupted, {} not pktgen's, {} of other streams, {} lost by the receiver itself",
            received.corrupted, received.foreign, received.unknown_stream, received.overrun
        ));
        Ok(ExitCode::SUCCESS)
    }
}

fn rows(scores: &Scores, overrun: u64) -> Received {
    let mut streams: BTreeMap<u16, Row> = BTreeMap::new();
    for key in scores.by_key.keys() {
        let id = key.stream;
        streams.entry(id).or_insert_with(|| {
            let totals = scores.totals(|key| key.stream == id);
            let latency = scores.latency(|key| key.stream == id);
            let mut by_dscp = BTreeMap::new();
            for (key, score) in scores.by_key.iter().filter(|(key, _)| key.stream == id) {
                *by_dscp.entry(key.dscp).or_default() += score.unique;
            }
            Row {
                stream: id,
                received: totals.unique,
                reordered: totals.reordered,
                duplicated: totals.duplicated,
                by_dscp,
                latency_p50_ns: latency.value_at_quantile(0.5),
                latency_p99_ns: latency.value_at_quantile(0.99),
                jitter_p50_ns: scores.jitter(|key| key.stream == id).value_at_quantile(0.5),
            }
        });
    }
    Received {
        streams: streams.into_values().collect(),
        corrupted: scores.corrupted,
        foreign: scores.foreign,
        unknown_stream: scores.unknown_stream,
        overrun,
    }
}

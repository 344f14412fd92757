//! `weir capture`: dropped, re-marked or sampled packets of the running appliance, as pcapng with a comment on each.
//!
//! ```text
//!  worker ─► tap ─► records ─► session (thread of the client) ─► pcapng ─► control socket ─► weir capture ─► file
//!                                  ▲
//!  main thread: names of slots, filter; both again with every table
//! ```
//!
//! One capture at a time: there is one tap on a worker. A worker never waits for it (`dataplane::tap`); a client that is slow,
//! killed, or out of disk costs records, which are counted as missed, and nothing else.

pub mod client;
mod names;
mod pcapng;
mod session;

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};

use arc_swap::ArcSwap;
use config::Config;
use dataplane::cells::SlotId;
use dataplane::tap::{SNAPLEN_MAX, SNAPLEN_MIN, Tap, TapStream, TapWish};
use dataplane::worker::WorkerShared;
use parking_lot::Mutex;
use serde::{Deserialize, Serialize};

use crate::compile::Compiled;
use names::Names;
pub use session::Session;

/// What to capture.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Options {
    /// Packets that are dropped.
    #[serde(default)]
    pub dropped: bool,
    /// Packets whose DSCP or PCP is changed.
    #[serde(default)]
    pub remarked: bool,
    /// One of so many packets that get a verdict, after the filter; 0: none, 1: all.
    #[serde(default)]
    pub every: u32,
    /// Only those of contracts of this service.
    #[serde(default)]
    pub service: Option<String>,
    /// Only those of this class.
    #[serde(default)]
    pub class: Option<String>,
    /// Only those of contracts that match: service, class, direction and far segment, as many of them as are said.
    #[serde(default)]
    pub contract: Option<String>,
    /// Only `egress` or `ingress`.
    #[serde(default)]
    pub direction: Option<String>,
    /// Only those that come from or go to this port.
    #[serde(default)]
    pub port: Option<String>,
    /// End after so many.
    #[serde(default)]
    pub count: Option<u64>,
    /// End after so many milliseconds.
    #[serde(default)]
    pub milliseconds: Option<u64>,
    /// Most records a second of each worker, 1 to [`RATE_MAX`].
    pub rate: u32,
    /// Bytes of each packet.
    pub snaplen: u32,
}

impl Options {
    /// In the words of the command line.
    #[must_use]
    pub fn words(&self) -> String {
        let mut what = Vec::new();
        what.extend(self.dropped.then(|| "dropped".to_owned()));
        what.extend(self.remarked.then(|| "remarked".to_owned()));
        match self.every {
            0 => {}
            1 => what.push("all".to_owned()),
            every => what.push(format!("sampled=1/{every}")),
        }
        let mut words = what.join(",");
        let filters = [
            ("service", &self.service),
            ("class", &self.class),
            ("contract", &self.contract),
            ("direction", &self.direction),
            ("port", &self.port),
        ];
        for (name, value) in filters {
            if let Some(value) = value {
                words += &format!(", {name} {value}");
            }
        }
        words
            + &format!(
                ", {} bytes of each, {} a second and worker at most",
                self.snaplen, self.rate
            )
    }
}

/// Highest `rate`: with records of 128 bytes some 50 MB/s, which a file still takes.
pub const RATE_MAX: u32 = 100_000;

/// Why a capture cannot begin.
#[derive(Debug, thiserror::Error)]
pub enum CaptureError {
    /// The request is at fault.
    #[error("{0}")]
    Invalid(String),
    /// Another one runs.
    #[error("a capture of {author} has been running for {seconds} s, and there is one tap: end that first")]
    Busy {
        /// Whose.
        author: String,
        /// Since when.
        seconds: u64,
    },
}

/// A wire's queue on a worker: what a path number means.
#[derive(Clone, Copy, Debug)]
pub struct LanePorts {
    /// Queue of both ports.
    pub queue: u32,
    /// Numbers of the site and the wan port.
    pub ports: [usize; 2],
}

/// What an appliance keeps for captures.
pub struct Captures {
    workers: Vec<Arc<WorkerShared>>,
    lanes: Vec<Vec<LanePorts>>,
    running: Weak<Running>,
}

/// A capture while it lasts. Dropping it takes the taps off.
struct Running {
    options: Options,
    author: String,
    began: Instant,
    workers: Vec<Arc<WorkerShared>>,
    lanes: Vec<Vec<LanePorts>>,
    streams: Vec<Arc<TapStream>>,
    hung: Mutex<Hung>,
    names: ArcSwap<Names>,
    stop: AtomicBool,
}

#[derive(Default)]
struct Hung {
    /// All taps that a worker may hold, so that it frees none.
    taps: Vec<Arc<Tap>>,
    /// They have been taken off, for good.
    is_over: bool,
}

/// Time that workers have to let a tap go: they look at every turn, and sleep 10 ms at most.
const LET_GO: Duration = Duration::from_millis(100);
/// Time that a capture has to end when the appliance stops.
const END: Duration = Duration::from_millis(500);

impl Captures {
    /// For these workers, each with its lanes.
    #[must_use]
    pub fn new(workers: Vec<Arc<WorkerShared>>, lanes: Vec<Vec<LanePorts>>) -> Self {
        Self {
            workers,
            lanes,
            running: Weak::new(),
        }
    }

    /// Hangs taps on the workers.
    ///
    /// # Errors
    /// See [`CaptureError`]; no tap is hung then.
    pub fn begin(
        &mut self,
        options: &Options,
        author: &str,
        config: &Config,
        compiled: &Compiled,
    ) -> Result<Session, CaptureError> {
        check(options, config)?;
        if let Some(running) = self.running.upgrade().filter(|running| !running.hung.lock().is_over) {
            return Err(CaptureError::Busy {
                author: running.author.clone(),
                seconds: running.began.elapsed().as_secs(),
            });
        }
        let stream = |lanes: &Vec<LanePorts>| Arc::new(TapStream::new(lanes.len(), options.rate, options.snaplen));
        let running = Arc::new(Running {
            options: options.clone(),
            author: author.to_owned(),
            began: Instant::now(),
            workers: self.workers.clone(),
            lanes: self.lanes.clone(),
            streams: self.lanes.iter().map(stream).collect(),
            hung: Mutex::default(),
            names: ArcSwap::from_pointee(Names::default()),
            stop: AtomicBool::new(false),
        });
        running.hang(config, compiled);
        self.running = Arc::downgrade(&running);
        Ok(Session::new(running, config))
    }

    /// To be called when there is another table: its names and contracts are those of the capture from now on.
    pub fn table_changed(&self, config: &Config, compiled: &Compiled) {
        if let Some(running) = self.running.upgrade() {
            running.hang(config, compiled);
        }
    }

    /// Asks the capture that runs to end, and waits a moment until it has.
    pub fn stop(&self) {
        let Some(running) = self.running.upgrade() else { return };
        running.stop.store(true, Ordering::Relaxed);
        drop(running);
        let deadline = Instant::now() + END;
        while self.running.strong_count() > 0 && Instant::now() < deadline {
            std::thread::sleep(Duration::from_millis(5));
        }
    }
}

impl Running {
    fn hang(&self, config: &Config, compiled: &Compiled) {
        let options = &self.options;
        let names = Names::new(compiled);
        let wanted = names.matching(options);
        let wish = TapWish {
            dropped: options.dropped,
            remarked: options.remarked,
            every: options.every,
        };
        self.names.store(Arc::new(names));
        let mut hung = self.hung.lock();
        if hung.is_over {
            return;
        }
        for ((worker, lanes), stream) in self.workers.iter().zip(&self.lanes).zip(&self.streams) {
            let paths = lanes
                .iter()
                .flat_map(|lane| [0, 1].map(|way| wants_path(options, config, *lane, way)));
            let wanted: Option<&[SlotId]> = wanted.as_deref();
            let tap = Arc::new(Tap::new(wish, wanted, paths.collect(), stream.clone()));
            hung.taps.push(tap.clone());
            worker.tap.set(Some(tap));
        }
        // Those before that no worker holds any more: a capture may outlive many tables.
        hung.taps.retain(|tap| Arc::strong_count(tap) > 1);
    }

    /// Takes the taps off; the next capture may begin.
    fn take_off(&self) {
        let mut hung = self.hung.lock();
        if !hung.is_over {
            self.workers.iter().for_each(|worker| worker.tap.set(None));
            hung.is_over = true;
        }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.take_off();
        let deadline = Instant::now() + LET_GO;
        let hung = self.hung.lock();
        while hung.taps.iter().any(|tap| Arc::strong_count(tap) > 1) && Instant::now() < deadline {
            std::thread::sleep(Duration::from_millis(1));
        }
    }
}

/// Whether packets of a lane that go this way (0: from the site port) are asked for.
fn wants_path(options: &Options, config: &Config, lane: LanePorts, way: usize) -> bool {
    let direction = ["egress", "ingress"][way];
    let is_direction = options.direction.as_deref().is_none_or(|wanted| wanted == direction);
    let has_port = |name: &str| lane.ports.iter().any(|&port| config.ports[port].name == name);
    is_direction && options.port.as_deref().is_none_or(has_port)
}

/// Says what of the options cannot be.
fn check(options: &Options, config: &Config) -> Result<(), CaptureError> {
    let invalid = |text: String| Err(CaptureError::Invalid(text));
    if !options.dropped && !options.remarked && options.every == 0 {
        return invalid("nothing to capture: say dropped, remarked, sampled=1/N or all".into());
    }
    if !(1..=RATE_MAX).contains(&options.rate) {
        return invalid(format!("a rate of {} is not within 1 to {RATE_MAX}", options.rate));
    }
    if !(SNAPLEN_MIN..=SNAPLEN_MAX).contains(&options.snaplen) {
        let snaplen = options.snaplen;
        return invalid(format!(
            "a snaplen of {snaplen} is not within {SNAPLEN_MIN} to {SNAPLEN_MAX}"
        ));
    }
    names::is_known(
        "service",
        options.service.as_deref(),
        config.services.iter().map(|s| s.name.as_str()),
    )?;
    names::is_known(
        "class",
        options.class.as_deref(),
        config.classes.iter().map(|c| c.name.as_str()),
    )?;
    names::is_known(
        "port",
        options.port.as_deref(),
        config.ports.iter().map(|p| p.name.as_str()),
    )?;
    names::is_known(
        "direction",
        options.direction.as_deref(),
        ["egress", "ingress"].into_iter(),
    )?;
    let Some(contract) = &options.contract else {
        return Ok(());
    };
    let contracts = config
        .contracts
        .iter()
        .filter(|contract| contract.region == config.region);
    let mut contracts = contracts.map(|contract| crate::change::diff::ContractName::of(config, contract));
    let words = names::words(contract);
    if contracts.any(|name| names::has_words(&words, name.service, name.class, name.direction, name.segment)) {
        Ok(())
    } else {
        invalid(format!(
            "no contract `{contract}`: say its service, class, direction and segment as `weir status` names them, such as `web gold egress`"
        ))
    }
}

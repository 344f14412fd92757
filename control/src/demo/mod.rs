//! `weir demo`: a whole virtual gateway on this machine, real traffic through it, and a verdict.
//!
//! - [`world`]: namespaces, veth pairs, and a real `weir run` between them
//! - [`services`]: who sends what, and the contracts
//! - [`traffic`]: sender and receiver
//! - [`script`]: what happens when
//! - [`pauses`]: what the machine itself did meanwhile
//! - [`verdict`], [`screen`]: what it came to, and how it is shown

pub mod pauses;
pub mod screen;
pub mod script;
pub mod services;
pub mod traffic;
pub mod verdict;
pub mod world;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use dataplane::clock::{Clock, MonotonicClock, Nanos};

use pauses::Pauses;
use screen::Screen;
use script::{Part, Script};
use services::{NARROW_BPS, RAISED, ROOMY_BPS, SERVICES};
use traffic::{Traffic, TrafficError};
use verdict::{Observed, Verdict, judge};
use world::{World, WorldError, contract_file};

/// What the demo is asked to do.
#[derive(Clone, Copy, Debug)]
pub struct DemoOptions {
    /// Seconds of traffic and pauses; at least 5.
    pub seconds: f64,
    /// No live table.
    pub quiet: bool,
}

/// Why there is no verdict.
#[derive(Debug, thiserror::Error)]
pub enum DemoError {
    /// The network.
    #[error(transparent)]
    World(#[from] WorldError),
    /// The traffic.
    #[error(transparent)]
    Traffic(#[from] TrafficError),
    /// Signals could not be caught.
    #[error("cannot catch signals: {0}")]
    Signals(std::io::Error),
    /// Ctrl-C or SIGTERM.
    #[error("interrupted; nothing is left behind")]
    Interrupted,
    /// The sender did not take a phase.
    #[error("the sender has ended before its time")]
    SenderEnded,
}

/// Time for the kernel to see that links have come up, before the first packet.
const SETTLE: Nanos = Nanos(400 * 1_000_000);

/// Runs the demo. Must be called from the main thread, before others start.
///
/// # Errors
/// See [`DemoError`]. Whatever happens, nothing is left behind.
pub fn run(options: &DemoOptions) -> Result<Verdict, DemoError> {
    let interrupted = Arc::new(AtomicBool::new(false));
    for signal in [signal_hook::consts::SIGINT, signal_hook::consts::SIGTERM] {
        signal_hook::flag::register(signal, interrupted.clone()).map_err(DemoError::Signals)?;
    }
    pauses::take_precedence();
    let cores: Vec<usize> = core_affinity::get_core_ids()
        .unwrap_or_default()
        .iter()
        .map(|core| core.id)
        .collect();
    // The gateway's worker has the last core to itself where there are two; traffic and everything else the first.
    let (for_traffic, for_worker) = match cores.as_slice() {
        [first, .., last] => (Some(*first), Some(*last)),
        _ => (None, None),
    };
    let world = World::new(for_worker)?;
    let clock = MonotonicClock;
    let script = Script::new(clock.now().plus(SETTLE), options.seconds);
    let traffic = Traffic::start(&world, script.begin(Part::Room), script.end(Part::Rest), for_traffic)?;
    let mut play = Play {
        world,
        traffic,
        pauses: Some(Pauses::watch(
            &[for_traffic, for_worker].into_iter().flatten().collect::<Vec<_>>(),
        )),
        script,
        interrupted,
        screen: Screen::new(options.quiet),
    };
    let observed = play.play()?;
    play.screen.clear();
    Ok(judge(&observed, &play.script))
}

/// The demo while it runs.
struct Play {
    world: World,
    traffic: Traffic,
    /// Until it has all been seen.
    pauses: Option<Pauses>,
    script: Script,
    interrupted: Arc<AtomicBool>,
    screen: Screen,
}

impl Play {
    fn play(&mut self) -> Result<Observed, DemoError> {
        for part in Part::ALL.into_iter().skip(1) {
            if !self.traffic.phase(self.script.begin(part), part.sends()) {
                return Err(DemoError::SenderEnded);
            }
        }
        self.watch(Part::Room)?;
        self.drain(Part::Narrow)?;
        let after_room = self.world.status()?;
        self.world.set_wan_rate(NARROW_BPS)?;
        self.watch(Part::Congestion)?;
        self.drain(Part::Widen)?;
        let after_congestion = self.world.status()?;
        let before = self.world.set_wan_rate(ROOMY_BPS)?;
        self.watch(Part::Before)?;
        let after = self.raise_entitlement()?;
        self.watch(Part::After)?;
        let refusal = self.load_broken_file()?;
        self.watch(Part::BadFile)?;
        self.drain(Part::Rest)?;
        let last = self.world.status()?;
        Ok(Observed {
            sent: self.traffic.sent(),
            received: self.traffic.received(),
            dropped_by_sender: self.traffic.dropped_by_sender(),
            around_congestion: [after_room, after_congestion],
            generations: [before, after, last.generation],
            last,
            refusal,
            paused: self.pauses.take().map(Pauses::end).unwrap_or_default(),
        })
    }

    /// Doubles an entitlement as an operator would: edit the file, reload.
    fn raise_entitlement(&self) -> Result<u64, DemoError> {
        for service in SERVICES.iter().filter(|service| service.name == RAISED) {
            let text = service.to_toml(service.entitled_bps.map(|rate| 2 * rate));
            self.world.write(&contract_file(service.name), &text)?;
        }
        let refused = |said| WorldError::Refused {
            what: "take the new entitlement",
            said,
        };
        Ok(self.world.reload()?.map_err(refused)?)
    }

    /// Loads a file with two mistakes. Returns why it was refused.
    fn load_broken_file(&self) -> Result<Option<String>, DemoError> {
        let broken = "[[service]]\nname = \"broken\"\nendpoints = [\"10.9.0.0/16\"]\n\n[[contract]]\nservice = \"broken\"\n\
                      class = \"platinum\"\nregion = \"demo\"\ndirection = \"egress\"\nrate = \"fast\"\n";
        self.world.write(&contract_file("broken"), broken)?;
        Ok(self.world.reload()?.err())
    }

    /// Shows what happens until `part` is over.
    fn watch(&mut self, part: Part) -> Result<(), DemoError> {
        self.until(self.script.end(part), part)
    }

    /// Waits in the first half of a pause until what is under way has arrived.
    fn drain(&mut self, part: Part) -> Result<(), DemoError> {
        let half = Nanos(self.script.end(part).since(self.script.begin(part)).0 / 2);
        self.until(self.script.begin(part).plus(half), part)
    }

    fn until(&mut self, end: Nanos, part: Part) -> Result<(), DemoError> {
        loop {
            if self.interrupted.load(Ordering::Relaxed) {
                self.screen.clear();
                return Err(DemoError::Interrupted);
            }
            let now = MonotonicClock.now();
            let received = self.traffic.received();
            self.screen.draw(now, self.script.end(Part::Rest), part, &received);
            let left = end.since(MonotonicClock.now());
            if left == Nanos(0) {
                return Ok(());
            }
            std::thread::sleep(Duration::from_nanos(left.0).min(REFRESH));
        }
    }
}

/// Time between two pictures: reading the scores holds the receiver up for a moment.
const REFRESH: Duration = Duration::from_millis(400);

//! A trial: a load for a time, then silence until nothing comes any more, then the counters. And the generator that can run
//! one after the other: its senders, each pinned to a core, and one receiver.
//!
//! Nothing is read while packets are under way, and no counter is ever reset: what a trial sent and received is known by the
//! phase number that its packets carry. A trial says itself whether it is valid: what the generator did wrong is never
//! counted as loss of what is between its ends.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use dataplane::clock::{Clock, MonotonicClock, Nanos};
use hdrhistogram::Histogram;

use crate::lab::{LabError, Namespace};
pub use crate::load::{ServiceTraffic, TrialLoad};
use crate::receive::{ReceiveError, Receiver, ScoreReader};
use crate::score::{Scores, empty_histogram};
use crate::stream::Stream;
use crate::transmit::{Load, Phase, Remote, TransmitError, Transmitter};

/// Where one end of the generator is.
#[derive(Clone, Debug)]
pub struct End {
    /// The network namespace; of this process: [`Namespace::current`].
    pub namespace: Namespace,
    /// The interface in it.
    pub interface: String,
}

/// How a generator is made.
#[derive(Clone, Debug)]
pub struct GeneratorConfig {
    /// Where packets leave.
    pub transmit: End,
    /// Where they are expected.
    pub receive: End,
    /// What is sent; at least one service with a rate above 0.
    pub services: Vec<ServiceTraffic>,
    /// Cores of the senders, one for each: sender `i` has queue `i` of the interface.
    pub transmit_cpus: Vec<usize>,
    /// Core of the receiver; `None`: wherever the scheduler puts it.
    pub receive_cpu: Option<usize>,
    /// Same seed, same flows and the same offsets.
    pub seed: u64,
}

/// Why a generator or a trial did not come about.
#[derive(Debug, thiserror::Error)]
pub enum TrialError {
    /// Entering a namespace, or starting a thread.
    #[error(transparent)]
    Lab(#[from] LabError),
    /// A sender.
    #[error("sender: {0}")]
    Transmit(#[from] TransmitError),
    /// The receiver.
    #[error("receiver: {0}")]
    Receive(#[from] ReceiveError),
    /// The receiver's descriptors or counters.
    #[error("receiver: {0}")]
    Io(#[from] std::io::Error),
    /// The receiver's counters.
    #[error("receiver: {0}")]
    Socket(#[from] af_xdp::Error),
    /// Nothing to send.
    #[error("no service has a rate above 0: nothing would be sent")]
    Silent,
    /// More streams than ids.
    #[error("{services} services on {senders} senders: at most 65535 streams can be told apart")]
    TooMany {
        /// Services.
        services: usize,
        /// Senders.
        senders: usize,
    },
    /// A thread is gone.
    #[error("a sender has ended before its time")]
    SenderGone,
}

/// Senders and a receiver at work.
pub struct Generator {
    services: Vec<ServiceTraffic>,
    senders: Vec<Remote>,
    reader: ScoreReader,
    /// Phases begun; the first is the silence before the first trial.
    phase: u64,
    stop: Arc<AtomicBool>,
    threads: Vec<JoinHandle<()>>,
}

/// What a trial came to.
#[derive(Clone, Debug)]
pub struct Trial {
    /// Packets that were due; `None`: as many as it could.
    pub due: Option<f64>,
    /// How long was sent.
    pub seconds: f64,
    /// By service, in the order of the generator's.
    pub services: Vec<ServiceTrial>,
    /// Packets that came with a wrong checksum. Their services miss them.
    pub corrupted: u64,
    /// Packets that are not the generator's.
    pub foreign: u64,
    /// Nanoseconds by which packets left later than they were due, as far as the sender knows.
    pub lateness: Histogram<u64>,
    /// Packets that the sending device refused: counted as sent, and lost.
    pub dropped_by_sender: u64,
    /// Why the trial says nothing about what is between the ends; empty for a valid one.
    pub invalid: Vec<String>,
}

/// What a trial came to for one service.
#[derive(Clone, Debug)]
pub struct ServiceTrial {
    /// What reports call it.
    pub name: String,
    /// The DSCP it was sent with.
    pub dscp: u8,
    /// Packets sent.
    pub sent: u64,
    /// Packets received, each once.
    pub received: u64,
    /// Their bytes from the IP header on.
    pub received_ip_bytes: u64,
    /// Of the received, those that came after a later one.
    pub reordered: u64,
    /// Packets that came again.
    pub duplicated: u64,
    /// Received with congestion experienced.
    pub congestion_marked: u64,
    /// Of the received, by the DSCP they came with.
    pub dscp_received: BTreeMap<u8, u64>,
    /// From the intended instant of sending to the arrival, in ns; see [`crate::score::Score::latency`].
    pub latency: Histogram<u64>,
    /// See [`crate::score::Score::jitter`].
    pub jitter: Histogram<u64>,
}

impl Trial {
    /// Packets sent.
    #[must_use]
    pub fn sent(&self) -> u64 {
        self.services.iter().map(|service| service.sent).sum()
    }

    /// Packets received, each once.
    #[must_use]
    pub fn received(&self) -> u64 {
        self.services.iter().map(|service| service.received).sum()
    }

    /// Packets sent and never received.
    #[must_use]
    pub fn lost(&self) -> u64 {
        self.services
            .iter()
            .map(|service| service.sent.saturating_sub(service.received))
            .sum()
    }

    /// Packets sent per second.
    #[must_use]
    pub fn sent_pps(&self) -> f64 {
        self.sent() as f64 / self.seconds
    }

    /// Latency of all services, ns.
    #[must_use]
    pub fn latency(&self) -> Histogram<u64> {
        let mut all = empty_histogram();
        for service in &self.services {
            // All are made alike, so adding cannot fail.
            let added = all.add(&service.latency);
            debug_assert!(added.is_ok());
        }
        all
    }
}

impl Generator {
    /// Binds all sockets, attaches the receiver's program and starts the threads. Nothing is sent yet.
    ///
    /// # Errors
    /// See [`TrialError`].
    pub fn start(config: &GeneratorConfig) -> Result<Self, TrialError> {
        let senders = config.transmit_cpus.len().max(1);
        let count = config.services.len() * senders;
        if u16::try_from(count).is_err() {
            return Err(TrialError::TooMany {
                services: config.services.len(),
                senders,
            });
        }
        if config.services.iter().all(|service| service.stream.rate_bps == 0) {
            return Err(TrialError::Silent);
        }
        let ids: Vec<u16> = (0..count as u16).collect();
        let End { namespace, interface } = &config.receive;
        let mut receiver =
            namespace.try_run(|| Ok::<_, TrialError>(Receiver::new(interface, &ids, MonotonicClock)?))?;
        let mut generator = Self {
            services: config.services.clone(),
            senders: Vec::new(),
            reader: receiver.reader()?,
            phase: 0,
            stop: Arc::default(),
            threads: Vec::new(),
        };
        let mut transmitters = Vec::new();
        for number in 0..senders {
            let (transmitter, remote) = transmitter(config, number, senders)?;
            transmitters.push(transmitter);
            generator.senders.push(remote);
        }
        let cpu = config.receive_cpu;
        match (&config.transmit_cpus[..], transmitters.pop()) {
            // On one core they take turns, which the scheduler would let them do every few milliseconds only.
            (&[only], Some(transmitter)) if cpu == Some(only) => {
                generator.spawn(namespace, "pktgen", cpu, move |stop| both(transmitter, receiver, stop))?;
            }
            (_, last) => {
                generator.spawn(namespace, "pktgen-receive", cpu, move |stop| receiver.run(stop))?;
                for (number, mut transmitter) in transmitters.into_iter().chain(last).enumerate() {
                    let cpu = config.transmit_cpus.get(number).copied();
                    let run = move |stop: &AtomicBool| transmitter.run(Nanos(u64::MAX), stop);
                    generator.spawn(&config.transmit.namespace, "pktgen-transmit", cpu, run)?;
                }
            }
        }
        Ok(generator)
    }

    fn spawn(
        &mut self,
        namespace: &Namespace,
        name: &str,
        cpu: Option<usize>,
        run: impl FnOnce(&AtomicBool) + Send + 'static,
    ) -> Result<(), TrialError> {
        let stop = self.stop.clone();
        let thread = namespace.spawn_thread(name, move || {
            if let Some(id) = cpu {
                // A wish: on a machine with one core all share it.
                let _pinned = core_affinity::set_for_current(core_affinity::CoreId { id });
            }
            run(&stop);
        });
        self.threads.push(thread?);
        Ok(())
    }

    /// What is sent.
    #[must_use]
    pub fn services(&self) -> &[ServiceTraffic] {
        &self.services
    }

    /// Runs one trial. It ends early, and is invalid, when `interrupted` is set.
    ///
    /// # Errors
    /// A thread has ended, or the receiver's counters cannot be read.
    pub fn trial(
        &mut self,
        load: &TrialLoad,
        duration: Duration,
        interrupted: &AtomicBool,
    ) -> Result<Trial, TrialError> {
        let before = self.strays()?;
        let duration = Nanos(u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX));
        let from = MonotonicClock.now().plus(LEAD);
        let until = from.plus(duration);
        self.change(from, |number| load.part(&self.services, number, self.senders.len()))?;
        // The senders hear of the end in time to end at the packet, and not before it is sure.
        let whole = sleep_until(Nanos(until.0 - NOTICE.0.min(duration.0)), interrupted);
        let until = if whole {
            until
        } else {
            until.min(MonotonicClock.now().plus(LEAD)).max(from)
        };
        self.change(until, |_| Load::Rates(vec![0; self.services.len()]))?;
        self.phase += 2;
        // Nobody minds the exact instant from here on.
        let _whole = sleep_until(until, &AtomicBool::new(false));
        let phases = self.ended_phases()?;
        let phase = (self.phase - 1) as u8;
        self.drain(phases.iter().flat_map(|phase| &phase.sent).sum(), phase);
        let scores = self.reader.take_phase(phase);
        let after = self.strays()?;
        let mut trial = self.score(&phases, &scores, until.since(from).0 as f64 / 1e9);
        trial.due = load.due(until.since(from));
        trial.corrupted = after.strays.corrupted - before.strays.corrupted;
        trial.foreign = after.strays.foreign - before.strays.foreign;
        trial.dropped_by_sender = after.dropped_by_sender - before.dropped_by_sender;
        trial.invalid = faults(&trial, &before, &after, whole);
        Ok(trial)
    }

    fn change(&self, at: Nanos, load: impl Fn(usize) -> Load) -> Result<(), TrialError> {
        let mut senders = self.senders.iter().enumerate();
        let all = senders.all(|(number, sender)| sender.change(at, load(number)));
        if all { Ok(()) } else { Err(TrialError::SenderGone) }
    }

    /// What each sender sent in the trial, once all of them have got past its end.
    fn ended_phases(&self) -> Result<Vec<Phase>, TrialError> {
        let deadline = MonotonicClock.now().plus(SENDER_LAG_MAX);
        loop {
            let begun: Vec<u64> = self.senders.iter().map(Remote::phases_begun).collect();
            if begun.iter().all(|&begun| begun > self.phase) {
                return Ok(self.senders.iter().filter_map(Remote::take_ended).collect());
            }
            if MonotonicClock.now() > deadline {
                return Err(TrialError::SenderGone);
            }
            thread::sleep(Duration::from_millis(1));
        }
    }

    /// Waits for stragglers: until all have come, or none has for a while.
    fn drain(&self, sent: u64, phase: u8) {
        let mut last = (MonotonicClock.now(), 0);
        loop {
            let now = MonotonicClock.now();
            let received = self.reader.unique_in(phase);
            if received != last.1 {
                last = (now, received);
            }
            if received >= sent || now.since(last.0) > QUIET {
                return;
            }
            thread::sleep(Duration::from_millis(1));
        }
    }

    fn strays(&self) -> Result<Strays, TrialError> {
        Ok(Strays {
            strays: self.reader.strays(),
            overrun: self.reader.overrun()?,
            skipped: self
                .senders
                .iter()
                .flat_map(Remote::sent)
                .map(|sent| sent.skipped)
                .sum(),
            dropped_by_sender: self.senders.iter().map(Remote::dropped_by_device).sum(),
            waiting: self.senders.iter().map(Remote::waiting).sum(),
        })
    }

    fn score(&self, phases: &[Phase], scores: &Scores, seconds: f64) -> Trial {
        let senders = self.senders.len();
        let mut lateness = empty_histogram();
        for of_sender in phases.iter().filter_map(|phase| phase.lateness.as_ref()) {
            let added = lateness.add(of_sender);
            debug_assert!(added.is_ok());
        }
        let services = self.services.iter().enumerate().map(|(number, service)| {
            let wanted = |key: &crate::score::ScoreKey| usize::from(key.stream) / senders == number;
            let totals = scores.totals(wanted);
            let mut dscp_received = BTreeMap::new();
            for (key, score) in scores.by_key.iter().filter(|(key, _)| wanted(key)) {
                *dscp_received.entry(key.dscp).or_default() += score.unique;
            }
            ServiceTrial {
                name: service.name.clone(),
                dscp: service.stream.dscp,
                sent: phases.iter().filter_map(|phase| phase.sent.get(number)).sum(),
                received: totals.unique,
                received_ip_bytes: totals.ip_bytes,
                reordered: totals.reordered,
                duplicated: totals.duplicated,
                congestion_marked: totals.congestion_marked,
                dscp_received,
                latency: scores.latency(wanted),
                jitter: scores.jitter(wanted),
            }
        });
        Trial {
            due: None,
            seconds,
            services: services.collect(),
            corrupted: 0,
            foreign: 0,
            lateness,
            dropped_by_sender: 0,
            invalid: Vec::new(),
        }
    }
}

impl Drop for Generator {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Release);
        for thread in self.threads.drain(..) {
            // A thread that panicked has said so itself.
            let _ended = thread.join();
        }
    }
}

/// What does not belong to a trial, before and after it.
struct Strays {
    strays: Scores,
    overrun: u64,
    skipped: u64,
    dropped_by_sender: u64,
    waiting: u64,
}

/// What the generator did wrong.
fn faults(trial: &Trial, before: &Strays, after: &Strays, whole: bool) -> Vec<String> {
    let mut faults = Vec::new();
    if !whole {
        faults.push("interrupted".to_owned());
    }
    let skipped = after.skipped - before.skipped;
    if skipped > 0 {
        let late = crate::pace::CATCH_UP_MAX.0 / 1_000_000;
        faults.push(format!(
            "the sender was more than {late} ms late and left out {skipped} packets"
        ));
    }
    if after.waiting > 0 {
        let waiting = after.waiting;
        faults.push(format!(
            "{waiting} packets are still in the sender's ring: is its link up? (`ip link`)"
        ));
    }
    let overrun = after.overrun - before.overrun;
    if overrun > 0 {
        faults.push(format!(
            "the receiver was too slow and lost {overrun} packets that had arrived"
        ));
    }
    if let Some(due) = trial.due {
        let sent = trial.sent() as f64;
        // A part of a packet for each service cannot be sent, however exact the clock.
        if (sent - due).abs() > due * RATE_ERROR_MAX + trial.services.len() as f64 {
            let percent = 100.0 * (sent / due - 1.0);
            faults.push(format!("{sent} packets were sent instead of {due:.0}: {percent:+.2} %"));
        }
    }
    faults
}

fn sleep_until(at: Nanos, interrupted: &AtomicBool) -> bool {
    loop {
        let left = at.since(MonotonicClock.now());
        if interrupted.load(Ordering::Relaxed) {
            return false;
        }
        if left.0 == 0 {
            return true;
        }
        thread::sleep(Duration::from_nanos(left.0.min(10_000_000)));
    }
}

fn transmitter(
    config: &GeneratorConfig,
    number: usize,
    senders: usize,
) -> Result<(Transmitter<MonotonicClock>, Remote), TrialError> {
    let streams: Vec<Stream> = (0u16..)
        .zip(&config.services)
        .map(|(service, traffic)| Stream {
            id: service * senders as u16 + number as u16,
            rate_bps: 0,
            ..traffic.stream.clone()
        })
        .collect();
    let End { namespace, interface } = &config.transmit;
    let seed = config.seed.wrapping_add(number as u64);
    namespace.try_run(|| {
        let start = MonotonicClock.now();
        Ok(Transmitter::new(
            interface,
            number as u32,
            &streams,
            seed,
            start,
            MonotonicClock,
        )?)
    })
}

/// Sender and receiver on one thread.
fn both(mut transmitter: Transmitter<MonotonicClock>, mut receiver: Receiver<MonotonicClock>, stop: &AtomicBool) {
    while !stop.load(Ordering::Acquire) {
        let idle = transmitter.step();
        if receiver.step() == 0 && idle.0 > 0 {
            receiver.wait(Duration::from_nanos(idle.0));
        }
    }
    transmitter.finish();
}

/// How long before its end the senders are told of it.
const NOTICE: Nanos = Nanos(50_000_000);
/// From the decision to the first packet: time for the senders to hear of it.
const LEAD: Nanos = Nanos(10_000_000);
/// After this long without a packet none is expected any more. Four times the longest queue at a line rate that matters.
const QUIET: Nanos = Nanos(200_000_000);
/// A sender that is that late has gone.
const SENDER_LAG_MAX: Nanos = Nanos(5_000_000_000);
/// By how much the achieved rate may miss the asked one.
const RATE_ERROR_MAX: f64 = 0.001;

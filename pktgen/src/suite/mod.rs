//! A whole measurement, from frame sizes to a report: for each frame size or mix a calibration, a search and the latency below
//! what it found; then what becomes of each service, and what a change of the device's tables costs.
//!
//! ```text
//!   Plan ─► for each frame size: Generator ─► calibrate ─► search ─► latency ─┐
//!           services at their own rates, reconfiguration, bursts, soak ───────┴─► Report
//! ```
//!
//! A run that is stopped, or in which something fails, keeps what it has: the report says that it is partial, and why.

mod device;
mod rows;

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use dataplane::clock::MonotonicClock;

pub use crate::search::Progress;

use crate::imix::FrameMix;
use crate::load::{frame_bytes, own_pps};
use crate::report::{Completeness, Interface, LatencyRow, Report, Setup, SocketSetup};
use crate::search::back_to_back::{self, BurstPlan};
use crate::search::mlr::{self, Goal, MlrPlan};
use crate::search::reconfigure::{self, ReconfigurePlan};
use crate::search::rfc2544::{self, ThroughputPlan};
use crate::search::soak::{self, SoakPlan};
use crate::search::{Control, Ending, ParameterError, latency};
use crate::trial::{Generator, GeneratorConfig, ServiceTraffic, Trial, TrialError, TrialLoad};
use device::Link;

/// What is measured, and how.
#[derive(Clone, Debug)]
pub struct Plan {
    /// What the report is called.
    pub title: String,
    /// What is between the two interfaces, in words.
    pub between: String,
    /// Ends, cores, traffic and seed. The sizes of its packets are replaced by those of `frames`.
    pub generator: GeneratorConfig,
    /// What is repeated for each of them; at least one.
    pub frames: Vec<FrameMix>,
    /// How the throughput is searched for.
    pub method: Method,
    /// The longest that one search may take; `None`: until it has found what it looks for.
    pub search_budget: Option<Duration>,
    /// How long latency is measured at each load; zero: not at all.
    pub latency: Duration,
    /// For how long the services send at their own rates, as they were given; zero: not at all.
    pub services: Duration,
    /// How often the device's configuration is changed under load, if there is a way to.
    pub reconfigurations: u32,
    /// How often the longest burst is searched for (RFC 9004); 0: not at all.
    pub bursts: u32,
    /// For how long to hold the load that nothing was lost at; zero: not at all.
    pub soak: Duration,
    /// Bits per second at L1 that the line can carry, if it is known: no more is tried.
    pub line_rate_bps: Option<f64>,
}

/// How a throughput is searched for.
#[derive(Clone, Debug, PartialEq)]
pub enum Method {
    /// MLRsearch (RFC 9971) with these goals; the latency is measured at parts of the last one's.
    Mlr(Vec<Goal>),
    /// RFC 2544 section 26.1, with trials of this many seconds.
    Rfc2544(f64),
}

impl Method {
    /// NDR and PDR as FD.io CSIT searches for them: 21 s of trials at each bound, 0.5 % wide.
    #[must_use]
    pub fn csit() -> Self {
        Self::Mlr(vec![Goal::ndr(), Goal::pdr()])
    }

    /// The same goals in a twentieth of the time: trials of 0.3 s, 1.2 s in sum, 2 % wide. For a first look.
    #[must_use]
    pub fn quick() -> Self {
        let quick = |goal: Goal| Goal {
            initial_trial_s: 0.3,
            final_trial_s: 0.3,
            duration_sum_s: 1.2,
            width: 0.02,
            ..goal
        };
        Self::Mlr(vec![quick(Goal::ndr()), quick(Goal::pdr())])
    }
}

/// What the run asks of its surroundings.
pub struct Surroundings<'s> {
    /// Once true, the run ends with what it has.
    pub stop: &'s AtomicBool,
    /// Told how far the present step is.
    pub progress: &'s mut dyn FnMut(&Progress),
    /// Changes the device's configuration, if there is a way to: the number of the change, from 0.
    pub change: Option<Change<'s>>,
}

/// Changes the device's configuration; the argument counts from 0.
pub type Change<'s> = &'s mut (dyn FnMut(u32) -> Result<(), String> + Send);

/// Why a run has nothing to report.
#[derive(Debug, thiserror::Error)]
pub enum SuiteError {
    /// The generator could not be set up.
    #[error(transparent)]
    Trial(#[from] TrialError),
    /// A search cannot be done with these parameters.
    #[error(transparent)]
    Parameter(#[from] ParameterError),
    /// An interface could not be asked.
    #[error("{interface}: {source}")]
    Interface {
        /// Its name.
        interface: String,
        /// What failed.
        source: af_xdp::Error,
    },
    /// A size that one of the streams cannot have.
    #[error(transparent)]
    Stream(#[from] crate::stream::StreamError),
    /// Nothing comes through.
    #[error(
        "of {sent} packets sent on {transmit} none arrived on {receive}: is there a way from the one to the other, \
         and is what lies between them running? ({others} other packets arrived)"
    )]
    NoRoute {
        /// Packets sent.
        sent: u64,
        /// Packets that arrived and are not the generator's.
        others: u64,
        /// The sending interface.
        transmit: String,
        /// The receiving interface.
        receive: String,
    },
    /// The run was stopped before anything was measured.
    #[error("stopped before anything was measured")]
    Stopped,
}

/// Runs the plan.
///
/// # Errors
/// Only if nothing could be measured; see [`SuiteError`].
pub fn run(plan: &Plan, surroundings: &mut Surroundings<'_>) -> Result<Report, SuiteError> {
    let begun = Instant::now();
    let mut report = Report::begin(
        plan.title.clone(),
        plan.generator.seed,
        setup(&plan.generator, &plan.frames, &plan.between, plan.line_rate_bps)?,
    );
    // Until something says otherwise.
    report.completeness = Completeness::Complete;
    let mut run = Run {
        plan,
        surroundings,
        report,
        lossless: None,
    };
    let ended = run.all();
    let mut report = run.report;
    let completeness = match ended {
        Ok(()) => report.completeness.clone(),
        Err(error) if report.throughput.is_empty() => return Err(error),
        Err(error) => Completeness::Partial { why: error.to_string() },
    };
    report.finish(begun.elapsed().as_secs_f64(), completeness);
    Ok(report)
}

/// A report of a single trial, which took so long with its waits.
///
/// # Errors
/// An interface could not be asked.
pub fn of_trial(
    generator: &GeneratorConfig,
    engine: &str,
    mix: &FrameMix,
    label: &str,
    trial: &Trial,
    took: Duration,
) -> Result<Report, SuiteError> {
    let frames = std::slice::from_ref(mix);
    let mut setup = setup(generator, frames, "not said", None)?;
    engine.clone_into(&mut setup.engine);
    if engine == "live" {
        // It has none.
        setup.sockets = None;
    }
    let mut report = Report::begin("one trial", generator.seed, setup);
    report
        .calibration
        .extend(trial.due.map(|due| rows::calibration(trial, due / trial.seconds)));
    report.services = rows::services(trial, &generator.services);
    note_losses(&mut report, "the trial", trial);
    report.latency.push(LatencyRow::from_histogram(
        "this trial",
        label,
        trial.sent_pps(),
        &trial.latency(),
    ));
    let mut wrong = trial.invalid.clone();
    if trial.sent() > 0 && trial.received() == 0 {
        let (from, to) = (&generator.transmit.interface, &generator.receive.interface);
        wrong.push(format!(
            "none of the packets sent on {from} arrived on {to}: is there a way from the one to the other, for frames of this size?"
        ));
    }
    let completeness = match wrong.is_empty() {
        true => Completeness::Complete,
        false => Completeness::Partial { why: wrong.join("; ") },
    };
    report.finish(took.as_secs_f64(), completeness);
    Ok(report)
}

struct Run<'r, 's> {
    plan: &'r Plan,
    surroundings: &'r mut Surroundings<'s>,
    report: Report,
    /// The mix of the first search, and the load at which it lost nothing.
    lossless: Option<(FrameMix, f64)>,
}

impl Run<'_, '_> {
    fn all(&mut self) -> Result<(), SuiteError> {
        // What no service can send is not measured under its name.
        let shortest = |service: &ServiceTraffic| service.stream.frame_bytes_min() + FCS;
        let least = self.plan.generator.services.iter().map(shortest).min().unwrap_or(0);
        for mix in &self.plan.frames {
            self.frame(&mix.raised_to(least))?;
        }
        self.services()?;
        if let Some((mix, pps)) = self.lossless.clone() {
            self.reconfigure(&mix, pps)?;
            self.bursts(&mix, pps)?;
            self.soak(&mix, pps)?;
        }
        Ok(())
    }

    fn has_entitlements(&self) -> bool {
        self.plan
            .generator
            .services
            .iter()
            .any(|service| service.multiple.is_some())
    }

    fn stopped(&self) -> Result<(), SuiteError> {
        if self.surroundings.stop.load(Ordering::Relaxed) {
            Err(SuiteError::Stopped)
        } else {
            Ok(())
        }
    }

    fn say(&mut self, message: String, expected: Duration) {
        let done = Duration::ZERO;
        (self.surroundings.progress)(&Progress {
            done,
            expected,
            message,
        });
    }

    fn generator(&self, mix: &FrameMix) -> Result<Generator, SuiteError> {
        Ok(Generator::start(&GeneratorConfig {
            services: with_sizes(&self.plan.generator.services, mix),
            ..self.plan.generator.clone()
        })?)
    }

    fn frame(&mut self, mix: &FrameMix) -> Result<(), SuiteError> {
        self.stopped()?;
        let mut generator = self.generator(mix)?;
        let max_pps = self.calibrate(mix, &mut generator)?;
        let label = rows::label(mix);
        let (row, pdr_pps) = self.search(mix, &mut generator, max_pps)?;
        if let (None, Some(pps)) = (&self.lossless, row.goals.first().and_then(|goal| goal.lower_pps)) {
            self.lossless = Some((mix.clone(), pps));
        }
        self.report.throughput.push(row);
        if self.plan.latency.is_zero() {
            return Ok(());
        }
        for load in pdr_pps.map(latency::loads).unwrap_or_default() {
            self.stopped()?;
            self.say(format!("{label}: latency at {} of PDR", load.label), self.plan.latency);
            let asked = TrialLoad::PacketsPerSecond(load.load_pps);
            let trial = generator.trial(&asked, self.plan.latency, self.surroundings.stop)?;
            note_trial(&mut self.report, &format!("{label}, latency at {}", load.label), &trial);
            let invalid = if trial.invalid.is_empty() { "" } else { " (invalid)" };
            let of = format!("{}{invalid}", load.label);
            let row = LatencyRow::from_histogram(of, &label, load.load_pps, &trial.latency());
            self.report.latency.push(row);
        }
        Ok(())
    }

    /// The most that the generator can send, and how well it keeps a rate of half of that.
    fn calibrate(&mut self, mix: &FrameMix, generator: &mut Generator) -> Result<f64, SuiteError> {
        let label = rows::label(mix);
        self.say(format!("{label}: what can the generator send?"), CALIBRATION * 2);
        let stop = self.surroundings.stop;
        let max = generator.trial(&TrialLoad::Max, CALIBRATION, stop)?;
        if max.received() == 0 {
            self.stopped()?;
            return Err(SuiteError::NoRoute {
                sent: max.sent(),
                others: max.foreign,
                transmit: self.plan.generator.transmit.interface.clone(),
                receive: self.plan.generator.receive.interface.clone(),
            });
        }
        // A little below, so that the search does not meet the generator's own limit all the time.
        let mut max_pps = max.sent_pps() * 0.95;
        if let Some(line_bps) = self.plan.line_rate_bps {
            max_pps = max_pps.min(line_bps / ((mix.mean_frame_bytes() + 20.0) * 8.0));
        }
        let half = generator.trial(&TrialLoad::PacketsPerSecond(max_pps / 2.0), CALIBRATION, stop)?;
        self.report.calibration.push(rows::calibration(&half, max_pps / 2.0));
        note_trial(&mut self.report, &format!("{label}, calibration"), &half);
        Ok(max_pps)
    }

    fn search(
        &mut self,
        mix: &FrameMix,
        generator: &mut Generator,
        max_pps: f64,
    ) -> Result<(crate::report::ThroughputRow, Option<f64>), SuiteError> {
        let label = rows::label(mix);
        let mut link = Link::new(generator, self.surroundings.stop);
        let mut progress = labelled(&label, self.surroundings.progress);
        let mut control = Control {
            stop: self.surroundings.stop,
            clock: &MonotonicClock,
            budget: self.plan.search_budget,
            progress: &mut progress,
        };
        let min_pps = (max_pps / 1000.0).max(100.0).min(max_pps / 2.0);
        Ok(match &self.plan.method {
            Method::Mlr(goals) => {
                let search = MlrPlan {
                    goals: goals.clone(),
                    min_load_pps: min_pps,
                    max_load_pps: max_pps,
                };
                let found = mlr::search(&search, &mut link, &mut control)?;
                for goal in found.goals.iter().filter(|goal| !goal.outcome.is_regular()) {
                    let name = &goal.goal.name;
                    self.report
                        .notes
                        .push(format!("{label}, {name}: {}", goal.outcome.explain()));
                }
                note_ending(&mut self.report, &label, &found.ending);
                let pdr = found.goals.last().and_then(|goal| goal.relevant_lower_bound_pps);
                (rows::mlr(mix, &found), pdr)
            }
            Method::Rfc2544(trial_s) => {
                let search = ThroughputPlan {
                    trial_s: *trial_s,
                    ..ThroughputPlan::new(min_pps, max_pps)
                };
                let found = rfc2544::search(&search, &mut link, &mut control)?;
                note_ending(&mut self.report, &label, &found.ending);
                let throughput = found.throughput_pps;
                (rows::rfc2544(mix, &found), throughput)
            }
        })
    }

    /// What becomes of each service when all send as they were given.
    fn services(&mut self) -> Result<(), SuiteError> {
        let Some(mix) = self.plan.frames.last() else {
            return Ok(());
        };
        if self.plan.services.is_zero() {
            return Ok(());
        }
        self.stopped()?;
        self.say("every service at its own rate".to_owned(), self.plan.services);
        let mut generator = self.generator(mix)?;
        let asked = TrialLoad::PacketsPerSecond(own_pps(generator.services()));
        let trial = generator.trial(&asked, self.plan.services, self.surroundings.stop)?;
        note_trial(&mut self.report, "services at their own rates", &trial);
        self.report.services = rows::services(&trial, generator.services());
        Ok(())
    }

    fn reconfigure(&mut self, mix: &FrameMix, pps: f64) -> Result<(), SuiteError> {
        let has_entitlements = self.has_entitlements();
        let Some(change) = self.surroundings.change.as_mut() else {
            return Ok(());
        };
        if self.plan.reconfigurations == 0 || self.surroundings.stop.load(Ordering::Relaxed) {
            return Ok(());
        }
        let mut generator = Generator::start(&GeneratorConfig {
            services: with_sizes(&self.plan.generator.services, mix),
            ..self.plan.generator.clone()
        })?;
        // What is above an entitlement may be lost anyway: no more is sent than the services were given.
        let load_pps = match own_pps(generator.services()) {
            own if has_entitlements => own.min(pps),
            _ => pps,
        };
        let mut link = Link::new(&mut generator, self.surroundings.stop);
        let mut progress = labelled("reconfiguration", self.surroundings.progress);
        let mut control = Control {
            stop: self.surroundings.stop,
            clock: &MonotonicClock,
            budget: None,
            progress: &mut progress,
        };
        let plan = ReconfigurePlan {
            load_pps,
            trial_s: 1.0,
            repetitions: self.plan.reconfigurations,
        };
        let found = reconfigure::measure(&plan, &mut link, &mut control, &mut **change)?;
        note_ending(&mut self.report, "reconfiguration", &found.ending);
        for failure in found.changes.iter().filter_map(|change| change.failure.as_ref()) {
            self.report.notes.push(format!("reconfiguration: {failure}"));
        }
        if found.lost_without_change > 0 {
            let lost = found.lost_without_change;
            self.report.notes.push(format!(
                "reconfiguration: {lost} packets were lost at the same load without a change"
            ));
        }
        self.report
            .reconfiguration
            .push(rows::reconfiguration(mix, load_pps, &found));
        Ok(())
    }

    fn bursts(&mut self, mix: &FrameMix, pps: f64) -> Result<(), SuiteError> {
        if self.plan.bursts == 0 {
            return Ok(());
        }
        self.stopped()?;
        let mut generator = self.generator(mix)?;
        let max_pps = generator
            .trial(&TrialLoad::Max, CALIBRATION, self.surroundings.stop)?
            .sent_pps()
            * 0.9;
        let mut link = Link::new(&mut generator, self.surroundings.stop);
        let mut progress = labelled("back-to-back", self.surroundings.progress);
        let mut control = Control {
            stop: self.surroundings.stop,
            clock: &MonotonicClock,
            budget: self.plan.search_budget,
            progress: &mut progress,
        };
        let plan = BurstPlan {
            repetitions: self.plan.bursts,
            ..BurstPlan::new(max_pps, Some(pps))
        };
        let found = back_to_back::search(&plan, &mut link, &mut control)?;
        note_ending(&mut self.report, "back-to-back", &found.ending);
        let bounded = found.at_generator_limit + found.at_packets_max;
        if bounded > 0 {
            let note = format!(
                "back-to-back: {bounded} of the bursts were the longest the generator sends, and not the device's limit"
            );
            self.report.notes.push(note);
        }
        self.report.back_to_back.push(rows::bursts(mix, max_pps, &found));
        Ok(())
    }

    fn soak(&mut self, mix: &FrameMix, pps: f64) -> Result<(), SuiteError> {
        if self.plan.soak.is_zero() {
            return Ok(());
        }
        self.stopped()?;
        let mut generator = self.generator(mix)?;
        let mut link = Link::new(&mut generator, self.surroundings.stop);
        let mut progress = labelled("soak", self.surroundings.progress);
        let mut control = Control {
            stop: self.surroundings.stop,
            clock: &MonotonicClock,
            budget: None,
            progress: &mut progress,
        };
        let plan = SoakPlan {
            load_pps: pps,
            total_s: self.plan.soak.as_secs_f64(),
            trial_s: self.plan.soak.as_secs_f64().min(SOAK_TRIAL_S),
        };
        let found = soak::run(&plan, &mut link, &mut control)?;
        note_ending(&mut self.report, "soak", &found.ending);
        self.report.soak = Some(rows::soak(mix, pps, &found));
        Ok(())
    }
}

/// What a reader must know of a trial.
fn note_trial(report: &mut Report, what: &str, trial: &Trial) {
    for fault in &trial.invalid {
        report.notes.push(format!("{what}: invalid: {fault}"));
    }
    note_losses(report, what, trial);
}

/// What counts as lost and was not.
fn note_losses(report: &mut Report, what: &str, trial: &Trial) {
    if trial.corrupted > 0 {
        let corrupted = trial.corrupted;
        report.notes.push(format!(
            "{what}: {corrupted} packets came with a wrong checksum and count as lost"
        ));
    }
    if trial.dropped_by_sender > 0 {
        let dropped = trial.dropped_by_sender;
        report.notes.push(format!(
            "{what}: the sending interface refused {dropped} packets; they count as lost"
        ));
    }
}

/// A search that ended before its time makes the report partial.
fn note_ending(report: &mut Report, what: &str, ending: &Ending) {
    if !ending.is_partial() {
        return;
    }
    let why = format!("{what}: {ending}");
    report.notes.push(why.clone());
    if report.completeness == Completeness::Complete {
        report.completeness = Completeness::Partial { why };
    }
}

/// Puts what the step is about before its messages.
fn labelled<'p>(label: &'p str, progress: &'p mut dyn FnMut(&Progress)) -> impl FnMut(&Progress) + use<'p> {
    move |step: &Progress| {
        progress(&Progress {
            message: format!("{label}: {}", step.message),
            ..step.clone()
        });
    }
}

/// The services with packets of the mix's sizes, those too short for our header made as long as it needs.
fn with_sizes(services: &[ServiceTraffic], mix: &FrameMix) -> Vec<ServiceTraffic> {
    let of = |service: &ServiceTraffic| {
        let mut service = service.clone();
        service.stream.frame_bytes = frame_bytes(mix, &service.stream);
        service
    };
    services.iter().map(of).collect()
}

fn setup(
    generator: &GeneratorConfig,
    frames: &[FrameMix],
    between: &str,
    line_rate_bps: Option<f64>,
) -> Result<Setup, SuiteError> {
    let mut interfaces = Vec::new();
    for (end, role) in [(&generator.transmit, "transmit"), (&generator.receive, "receive")] {
        let name = &end.interface;
        let read = end
            .namespace
            .run(|| Interface::read(name, role))
            .map_err(TrialError::from)?;
        interfaces.push(read.map_err(|source| SuiteError::Interface {
            interface: name.clone(),
            source,
        })?);
    }
    for mix in frames {
        for service in with_sizes(&generator.services, mix) {
            service.stream.validate()?;
        }
    }
    Ok(Setup {
        engine: "af_xdp".to_owned(),
        between: between.to_owned(),
        interfaces,
        line_rate_bps,
        sockets: Some(SocketSetup {
            umem_frames: 2 * crate::transmit::TX_RING,
            frame_bytes: 2048,
            fill_ring: crate::receive::RING,
            completion_ring: crate::transmit::TX_RING,
            rx_ring: crate::receive::RING,
            tx_ring: crate::transmit::TX_RING,
        }),
        transmit_cores: generator.transmit_cpus.iter().map(|&cpu| cpu as u32).collect(),
        receive_cores: generator.receive_cpu.iter().map(|&cpu| cpu as u32).collect(),
        streams: rows::streams(&generator.services, frames),
    })
}

/// How long the generator shows what it can do.
const CALIBRATION: Duration = Duration::from_secs(1);
/// One point of a soak.
const SOAK_TRIAL_S: f64 = 10.0;
/// Bytes of the frame check sequence, which mixes have and packets in memory have not.
const FCS: u16 = 4;

//! What runs on trial: begun, watched, kept or given up.

use std::time::Instant;

use config::Texts;
use dataplane::cells::SlotId;
use jiff::{SignedDuration, Timestamp};

use crate::appliance::Appliance;
use crate::change::history::{How, TrialRecord};
use crate::change::messages::{CONFIRM_MAX, Done, Refusal};
use crate::change::trial::{Conforming, Slow, Trial, Verdict};
use crate::status::micros;

use super::{Changes, OBSERVE, Origin};

impl Changes {
    pub(super) fn resume(&mut self, record: &TrialRecord, appliance: &Appliance) {
        let left = record.until.duration_since(Timestamp::now());
        let left = left.clamp(
            SignedDuration::ZERO,
            SignedDuration::try_from(CONFIRM_MAX).unwrap_or(SignedDuration::ZERO),
        );
        let texts = self.history.as_ref().map(|history| history.texts(record.previous));
        match texts {
            Some(Ok(texts)) => {
                tracing::warn!(
                    event = "trial",
                    version = record.previous,
                    "this version is on trial since before the start: it goes back to version {} in {:.0} s unless `weir confirm` comes",
                    record.previous,
                    left.as_secs_f64()
                );
                let until = Instant::now() + left.unsigned_abs();
                let limits = Limits {
                    max_loss_ppm: record.max_loss_ppm,
                    max_latency_us: record.max_latency_us,
                };
                self.begin_trial(until, Some(record.previous), texts, limits, appliance);
            }
            Some(Err(error)) => tracing::error!(
                event = "trial",
                "the trial of this version is over, it cannot go back: {error}"
            ),
            None => {}
        }
    }

    /// `weir confirm`.
    ///
    /// # Errors
    /// Nothing is on trial.
    pub fn confirm(&mut self, author: &str, appliance: &Appliance) -> Result<Done, Refusal> {
        if self.trial.take().is_none() {
            return Err(Refusal::State("nothing is on trial".to_owned()));
        }
        let mut done = Done {
            generation: appliance.compiled().table.generation,
            ..Done::default()
        };
        if let Some(version) = &mut self.version {
            done.version = Some(version.number);
            if let Some(trial) = &mut version.trial {
                trial.confirmed = true;
            }
            let kept = self
                .history
                .as_mut()
                .map_or(Ok(()), |history| history.confirm(version.number));
            if let Err(error) = kept {
                self.history_failed(&error);
                done.notes.push(format!(
                    "it could not be written that it is confirmed, a restart would go back: {error}"
                ));
            }
        }
        tracing::info!(event = "confirm", author, "confirmed by {}", author.escape_debug());
        Ok(done)
    }

    pub(super) fn begin_trial(
        &mut self,
        until: Instant,
        previous: Option<u64>,
        texts: Texts,
        limits: Limits,
        appliance: &Appliance,
    ) {
        self.observed = Instant::now();
        self.trial = Some(Trial {
            until,
            previous,
            texts,
            max_loss_ppm: limits.max_loss_ppm,
            max_latency_ns: limits.max_latency_us.map(|us| us.saturating_mul(1_000)),
            before: counters(appliance).collect(),
            rings: appliance.view().rings(),
            seen: Conforming::default(),
            worst: None,
            slowest: None,
        });
    }

    pub(super) fn trial_record(&self) -> Option<TrialRecord> {
        let recorded = self.version.as_ref().and_then(|version| version.trial.clone());
        recorded.filter(|_| self.trial.is_some())
    }

    pub(super) fn watch_trial(&mut self, now: Instant, appliance: &mut Appliance) {
        let Some(trial) = &mut self.trial else { return };
        if now.saturating_duration_since(self.observed) >= OBSERVE {
            self.observed = now;
            trial.observe(counters(appliance), &appliance.view().rings());
        }
        let Some(verdict) = trial.verdict(now) else { return };
        let Some(trial) = self.trial.take() else { return };
        let reason = reason(verdict, &trial, appliance);
        tracing::warn!(event = "trial", reason, "the version on trial goes back: {reason}");
        let origin = Origin {
            note: Some(reason),
            restores: trial.previous,
            ..Origin::new(How::Revert, "weir")
        };
        match self.swap(&trial.texts, origin, appliance) {
            Ok(done) => {
                let behind = self.leave_disk_behind();
                for note in done.notes.into_iter().chain(behind) {
                    tracing::warn!(event = "note", "{note}");
                }
            }
            Err(error) => {
                tracing::error!(event = "trial", reason = %error, "it could not go back, and goes on: {error}");
            }
        }
    }
}

/// Why a trial goes back, in words.
fn reason(verdict: Verdict, trial: &Trial, appliance: &Appliance) -> String {
    let (slot, seen) = match verdict {
        Verdict::Late => return "it was not confirmed in time".to_owned(),
        Verdict::Slow(slow) => return slow_reason(slow, trial, appliance),
        Verdict::Lost(slot, seen) => (slot, seen),
    };
    let mut contracts = appliance.compiled().contracts();
    let of = slot.and_then(|slot| contracts.find(|(_, of)| *of == slot));
    let of = of
        .map(|(name, _)| format!(" of {}", name.text(name.region)))
        .unwrap_or_default();
    let percent = |ppm: u64| ppm as f64 / 10_000.0;
    format!(
        "{} of {} conforming packets{of} were lost ({} %, the limit is {} %)",
        seen.lost,
        seen.packets,
        percent(seen.loss_ppm()),
        percent(u64::from(trial.max_loss_ppm))
    )
}

fn slow_reason(slow: Slow, trial: &Trial, appliance: &Appliance) -> String {
    let port = appliance.config().ports.get(slow.port);
    let class = appliance.compiled().classes().find(|(_, ring)| *ring == slow.ring);
    format!(
        "one conforming packet of {} in a hundred waited {} or longer for port {} (the limit is {})",
        class.map_or("a class", |(name, _)| name),
        micros(slow.p99_ns as f64 / 1_000.0),
        port.map_or("?", |port| port.name.as_str()),
        micros(trial.max_latency_ns.unwrap_or_default() as f64 / 1_000.0)
    )
}

/// What a trial must not pass.
#[derive(Clone, Copy)]
pub(super) struct Limits {
    pub(super) max_loss_ppm: u32,
    pub(super) max_latency_us: Option<u64>,
}

/// Conforming packets of everything that judges, and of those the dropped. Reads drops first, so that they never seem more
/// than what was judged.
fn counters(appliance: &Appliance) -> impl Iterator<Item = (SlotId, Conforming)> + '_ {
    let table = &appliance.compiled().table;
    table.contracts.iter().map(move |contract| {
        let mut sum = Conforming::default();
        for worker in 0..table.cells.workers() {
            let of_worker = table.cells.of(worker);
            sum.lost += of_worker.excess(contract.slot).conforming_dropped.get().packets;
            sum.packets += of_worker.cell(contract.slot).conforming.get().packets;
        }
        (contract.slot, sum)
    })
}

//! What a person sees while the demo runs, and the verdict at the end. Tables fit 100 columns; a terminal gets a live one,
//! anything else a line for each part.

use std::fmt::Write;
use std::io::{IsTerminal, stderr};

use dataplane::clock::Nanos;
use pktgen::score::Scores;

use super::script::Part;
use super::services::SERVICES;
use super::verdict::{Check, Verdict};
use crate::status::bits;

/// The live view.
pub struct Screen {
    live: bool,
    lines: usize,
    last: Option<(Nanos, Vec<Seen>)>,
    part: Option<Part>,
}

/// What had come of one service by some instant.
#[derive(Clone, Copy, Default)]
struct Seen {
    own_bytes: u64,
    marked_bytes: u64,
}

impl Screen {
    /// Live on a terminal, unless `quiet`.
    #[must_use]
    pub fn new(quiet: bool) -> Self {
        Self {
            live: stderr().is_terminal() && !quiet,
            lines: 0,
            last: None,
            part: None,
        }
    }

    /// Draws the table as of `now`.
    pub fn draw(&mut self, now: Nanos, end: Nanos, part: Part, received: &Scores) {
        if self.part != Some(part) {
            self.part = Some(part);
            if !self.live {
                eprintln!("{}", part.title());
            }
        }
        let seen: Vec<Seen> = SERVICES
            .iter()
            .enumerate()
            .map(|(id, _)| seen(id as u16, received))
            .collect();
        if self.live {
            let text = self.table(now, end, part, &seen);
            // Back to the first line of what was drawn last, and over it.
            if self.lines > 0 {
                eprint!("\x1b[{}A\x1b[J", self.lines);
            }
            eprint!("{text}");
            self.lines = text.lines().count();
        }
        self.last = Some((now, seen));
    }

    fn table(&self, now: Nanos, end: Nanos, part: Part, seen: &[Seen]) -> String {
        let mut text = String::new();
        // Writing to a String cannot fail.
        let _ok = writeln!(
            text,
            "\x1b[1m{}\x1b[0m   ({:.0} s left)",
            part.title(),
            end.since(now).0 as f64 / 1e9
        );
        let _ok = writeln!(
            text,
            "{:<10}{:<8}{:>13}{:>13} | {:>15}{:>15}{:>15}",
            "SERVICE", "CLASS", "ENTITLED", "OFFERED", "UNMARKED", "MARKED", "MISSING"
        );
        let (then, before) = match &self.last {
            Some((then, before)) => (*then, before.clone()),
            None => (now, vec![Seen::default(); seen.len()]),
        };
        let seconds = (now.since(then).0 as f64 / 1e9).max(0.001);
        for ((service, now), then) in SERVICES.iter().zip(seen).zip(&before) {
            let rate = |now: u64, then: u64| ((now - then) as f64 * 8.0 / seconds) as u64;
            let (own, marked) = (
                rate(now.own_bytes, then.own_bytes),
                rate(now.marked_bytes, then.marked_bytes),
            );
            let offered = if part.sends() { service.offered_bps } else { 0 };
            let _ok = writeln!(
                text,
                "{:<10}{:<8}{:>13}{:>13} | {:>15}{:>15}{:>15}",
                service.name,
                service.class.name,
                service.entitled_bps.map_or("-".to_owned(), bits),
                bits(offered),
                bits(own),
                bits(marked),
                bits(offered.saturating_sub(own + marked)),
            );
        }
        text
    }

    /// Removes the live table.
    pub fn clear(&mut self) {
        if self.live && self.lines > 0 {
            eprint!("\x1b[{}A\x1b[J", self.lines);
        }
        self.lines = 0;
    }
}

fn seen(id: u16, received: &Scores) -> Seen {
    let class = SERVICES[usize::from(id)].class;
    let bytes = |dscp: u8| received.totals(|key| key.stream == id && key.dscp == dscp).ip_bytes;
    Seen {
        own_bytes: bytes(class.dscp),
        marked_bytes: bytes(class.nonconforming_dscp),
    }
}

/// A pause of the machine that is worth a word: longer than a burst of the demo's contracts.
const PAUSE_SHOWN_MS: f64 = 20.0;

/// The verdict as text.
#[must_use]
pub fn verdict_text(verdict: &Verdict) -> String {
    let mut text = String::new();
    // Writing to a String cannot fail.
    let _ok = write_verdict(&mut text, verdict);
    text
}

fn write_verdict(out: &mut String, verdict: &Verdict) -> std::fmt::Result {
    writeln!(out, "What the receiver counted; during congestion:")?;
    writeln!(
        out,
        "{:<6}{:<10}{:<8}{:>12}{:>7}{:>8}{:>10}{:>10}{:>8}{:>9}{:>10}",
        "", "SERVICE", "CLASS", "ENTITLED", "SENDS", "SENT", "UNMARKED", "MARKED", "LOST", "p99 ms", "p99 room"
    )?;
    for service in &verdict.services {
        let (room, congested) = (
            &service.parts[Part::Room.name()],
            &service.parts[Part::Congestion.name()],
        );
        let multiple = service.entitled_bps.map_or("-".to_owned(), |e| {
            format!("{:.1}x", service.offered_bps as f64 / e as f64)
        });
        let latency = |us: f64, packets: u64| {
            if packets > 0 {
                format!("{:.2}", us / 1e3)
            } else {
                "-".to_owned()
            }
        };
        writeln!(
            out,
            "{:<6}{:<10}{:<8}{:>12}{:>7}{:>8}{:>10}{:>10}{:>8}{:>9}{:>10}",
            word(service.passed),
            service.service,
            service.class,
            service.entitled_bps.map_or("-".to_owned(), bits),
            multiple,
            congested.sent,
            congested.conforming.packets,
            congested.excess.packets,
            congested.lost,
            latency(congested.conforming_p99_us, congested.conforming.packets),
            latency(room.conforming_p99_us, room.conforming.packets),
        )?;
    }
    writeln!(out)?;
    for check in &verdict.checks {
        write_check(out, "", check)?;
    }
    for service in &verdict.services {
        for check in service.checks.iter().filter(|check| !check.passed) {
            write_check(out, service.service, check)?;
        }
    }
    if verdict.machine_paused_ms > PAUSE_SHOWN_MS {
        let paused = verdict.machine_paused_ms;
        writeln!(
            out,
            "\nThis machine took a core away for up to {paused:.0} ms; what is allowed has grown by that."
        )?;
    }
    writeln!(
        out,
        "\n{}",
        if verdict.passed {
            "PASS: every contract was kept"
        } else {
            "FAIL"
        }
    )
}

fn write_check(out: &mut String, service: &str, check: &Check) -> std::fmt::Result {
    let colon = if service.is_empty() { "" } else { ": " };
    writeln!(out, "{:<6}{service}{colon}{}", word(check.passed), check.name)?;
    writeln!(out, "{:<6}    {}", "", check.detail)
}

fn word(passed: bool) -> &'static str {
    if passed { "PASS" } else { "FAIL" }
}

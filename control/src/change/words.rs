//! Plans and histories as people read them: at most [`WIDTH`] columns, colour only if asked for.

use std::fmt::Write;

use crate::change::diff::{Change, Difference, Kind};
use crate::change::findings::{Finding, NAMED, Severity};
use crate::change::messages::HistoryReport;
use crate::change::plan::{Against, PlanReport};
use crate::status::{bits, cut};

/// Columns of every text.
pub const WIDTH: usize = 100;
/// Contracts in the table of traffic: the largest changes; JSON has all.
const JUDGED_MAX: usize = 20;

/// The plan in words.
#[must_use]
pub fn plan_text(plan: &PlanReport, colour: bool) -> String {
    let mut out = String::new();
    // Writing to a String cannot fail.
    let _ok = write_plan(&mut out, plan, colour);
    out
}

fn write_plan(out: &mut String, plan: &PlanReport, colour: bool) -> std::fmt::Result {
    let file = plan.file.display();
    match &plan.against {
        Against::Running {
            path,
            generation,
            version,
            on_trial,
        } => {
            let version = version
                .as_ref()
                .map_or("a version not kept".to_owned(), ToString::to_string);
            paragraph(
                out,
                "",
                &format!("{file}, against what runs: table {generation}, {version}"),
            )?;
            if *on_trial {
                paragraph(
                    out,
                    "",
                    "That version is on trial: it goes back by itself unless `weir confirm` comes.",
                )?;
            }
            if *path != plan.file {
                paragraph(
                    out,
                    "",
                    &format!("The appliance reads {}: `weir apply` takes that file.", path.display()),
                )?;
            }
        }
        Against::History { version } => {
            paragraph(
                out,
                "",
                &format!("{file}, against what was applied last, because no appliance runs: {version}"),
            )?;
        }
        Against::Nothing => paragraph(
            out,
            "",
            &format!("{file}, against nothing: no appliance runs, and none has kept a history"),
        )?,
    }
    writeln!(out)?;
    write_difference(out, &plan.difference, colour)?;
    if let Some(what) = &plan.difference.needs_restart {
        paragraph(
            out,
            "",
            &format!("{what} changes: `weir apply` refuses that, it takes a restart."),
        )?;
        writeln!(out)?;
    }
    for finding in &plan.findings {
        write_finding(out, finding, colour)?;
    }
    if plan.check_warnings > 0 {
        let noun = if plan.check_warnings == 1 {
            "warning"
        } else {
            "warnings"
        };
        writeln!(out, "{} {noun} of `weir check`, which shows them.", plan.check_warnings)?;
    }
    if !plan.findings.is_empty() || plan.check_warnings > 0 {
        writeln!(out)?;
    }
    write_judged(out, plan)?;
    paragraph(out, "", &format!("Plan: {}.", plan.summary))
}

/// The changes, as in a diff: a line for each thing, and under it a line for each property.
pub fn write_difference(out: &mut String, difference: &Difference, colour: bool) -> std::fmt::Result {
    for change in &difference.changes {
        let Change {
            kind,
            what,
            name,
            details,
            ..
        } = change;
        let (sign, paint) = match kind {
            Kind::Appears => ('+', "32"),
            Kind::Goes => ('-', "31"),
            Kind::Changes => ('~', "33"),
        };
        let mut head = String::new();
        paragraph(&mut head, "    ", format!("{sign} {} {name}", what.word()).trim_end())?;
        out.push_str(&painted(&head, paint, colour));
        if *kind == Kind::Changes {
            for detail in details {
                paragraph(out, "      ", &format!("    {detail}"))?;
            }
        } else {
            paragraph(out, "    ", &format!("    {}", details.join(", ")))?;
        }
    }
    if !difference.changes.is_empty() {
        writeln!(out)?;
    }
    Ok(())
}

fn write_finding(out: &mut String, finding: &Finding, colour: bool) -> std::fmt::Result {
    let (word, paint) = match finding.severity {
        Severity::Warning => ("warning", "33"),
        Severity::Note => ("note", "36"),
    };
    let mut text = finding.message.clone();
    if !finding.about.is_empty() {
        let more = finding.count.saturating_sub(NAMED);
        let more = if more > 0 {
            format!(" and {more} more")
        } else {
            String::new()
        };
        text = format!("{text}: {}{more}", finding.about.join(", "));
    }
    let mut lines = String::new();
    paragraph(&mut lines, "  ", &format!("{word}: {text}"))?;
    let rest = lines.split_off(word.len());
    out.push_str(&painted(&lines, paint, colour));
    out.push_str(&rest);
    paragraph(out, "    ", &format!("  help: {}", finding.help))
}

fn write_judged(out: &mut String, plan: &PlanReport) -> std::fmt::Result {
    if plan.sampled_seconds == 0.0 || plan.difference.is_empty() {
        return Ok(());
    }
    let seconds = plan.sampled_seconds;
    if plan.judged.is_empty() {
        writeln!(
            out,
            "The traffic of the last {seconds:.0} s would have been judged the same (an estimate).\n"
        )?;
        return Ok(());
    }
    paragraph(
        out,
        "",
        &format!(
            "Of the traffic of the last {seconds:.0} s this would have been nonconforming (an estimate: traffic is taken to come \
             evenly within each second):"
        ),
    )?;
    writeln!(
        out,
        "{:<54}{:>14}{:>12}{:>14}",
        "CONTRACT", "OFFERED", "AS IT RUNS", "AS PLANNED"
    )?;
    for judged in plan.judged.iter().take(JUDGED_MAX) {
        let percent = |share: f64| format!("{:.1} %", share * 100.0);
        writeln!(
            out,
            "{:<54}{:>14}{:>12}{:>14}",
            cut(&judged.name, 53),
            bits(judged.offered_bps),
            percent(judged.nonconforming_before),
            judged.nonconforming_after.map_or("no contract".to_owned(), percent)
        )?;
    }
    if plan.judged.len() > JUDGED_MAX {
        writeln!(out, "and {} more: --json has all", plan.judged.len() - JUDGED_MAX)?;
    }
    writeln!(out)
}

/// The history as a table, newest last.
#[must_use]
pub fn history_text(history: &HistoryReport) -> String {
    let mut out = String::new();
    // Writing to a String cannot fail.
    let _ok = write_history(&mut out, history);
    out
}

fn write_history(out: &mut String, history: &HistoryReport) -> std::fmt::Result {
    writeln!(
        out,
        "  {:<9}{:<22}{:<18}{:<12}{:>6}  CHANGES",
        "VERSION", "TIME", "HOW", "AUTHOR", "TABLE"
    )?;
    for version in &history.versions {
        let mark = if history.running == Some(version.number) {
            '*'
        } else {
            ' '
        };
        let how = match (version.restores, &version.trial) {
            (Some(older), _) => format!("{} to {older}", version.how.word()),
            (None, Some(trial)) if trial.confirmed => format!("{}, confirmed", version.how.word()),
            (None, Some(_)) => format!("{}, on trial", version.how.word()),
            (None, None) => version.how.word().to_owned(),
        };
        let line = format!(
            "{mark} {:<9}{:<22}{:<18}{:<12}{:>6}  {}",
            version.number,
            version.time.strftime("%F %TZ").to_string(),
            cut(&how, 17),
            cut(&version.author.escape_debug().to_string(), 11),
            version.generation,
            version.summary
        );
        writeln!(out, "{}", cut(&line, WIDTH))?;
        if let Some(note) = &version.note {
            paragraph(out, "           ", &format!("           {}", note.escape_debug()))?;
        }
    }
    for problem in &history.problems {
        paragraph(out, "  ", &format!("problem: {problem}"))?;
    }
    Ok(())
}

/// A line, broken at blanks so that it fits; what follows the first is indented. A word that is too long is broken too.
fn paragraph(out: &mut String, indent: &str, text: &str) -> std::fmt::Result {
    let lead = text.len() - text.trim_start().len();
    let mut line = text[..lead].to_owned();
    let mut columns = lead;
    let mut begun = false;
    for word in text.split_whitespace() {
        let mut word = word;
        let length = word.chars().count();
        if begun && columns + 1 + length > WIDTH {
            writeln!(out, "{line}")?;
            (line, columns, begun) = (indent.to_owned(), indent.len(), false);
        }
        if begun {
            line.push(' ');
            columns += 1;
        }
        while columns + word.chars().count() > WIDTH {
            let at = word
                .char_indices()
                .nth(WIDTH - columns)
                .map_or(word.len(), |(at, _)| at);
            line.push_str(&word[..at]);
            writeln!(out, "{line}")?;
            word = &word[at..];
            (line, columns) = (indent.to_owned(), indent.len());
        }
        line.push_str(word);
        columns += word.chars().count();
        begun = true;
    }
    writeln!(out, "{line}")
}

fn painted(text: &str, code: &str, colour: bool) -> String {
    if !colour {
        return text.to_owned();
    }
    let (body, end) = text.strip_suffix('\n').map_or((text, ""), |body| (body, "\n"));
    format!("\x1b[{code}m{body}\x1b[0m{end}")
}

//! A report on a terminal: at most [`COLUMNS_MAX`] columns.

use super::table::{Table, length, printable};
use super::{Completeness, Report, bench, tables};

/// Fits a terminal beside another, a mail, and a block of code on a page.
pub(super) const COLUMNS_MAX: usize = 100;

pub(super) fn render(report: &Report) -> String {
    let mut text = String::new();
    wrap(&mut text, "", &report.title);
    text.push_str(&"═".repeat(length(&printable(&report.title)).clamp(1, COLUMNS_MAX)));
    text.push('\n');
    if let Completeness::Partial { why } = &report.completeness {
        wrap(&mut text, "PARTIAL: ", why);
    }
    let results = [
        tables::throughput(report),
        tables::latency(report),
        tables::services(report),
        tables::service_quality(report),
        tables::dscp(report),
        tables::back_to_back(report),
        tables::reconfiguration(report),
        tables::soak(report),
        tables::replay(report),
        tables::gap_errors(report),
        bench::calibration(report),
        bench::streams(report),
    ];
    for table in results.into_iter().flatten() {
        text.push_str(&format!("\n{}\n", table.title));
        text.push_str(&table.text(COLUMNS_MAX));
    }
    let mut pairs = vec![bench::setup(report), bench::machine(&report.machine)];
    pairs.extend(bench::interfaces(report));
    for table in &pairs {
        text.push_str(&format!("\n{}\n", table.title));
        for_each_pair(table, |name, value| wrap(&mut text, &format!("  {name:<19} "), value));
    }
    if !report.notes.is_empty() {
        text.push_str("\nNotes\n");
        for note in &report.notes {
            wrap(&mut text, "  - ", note);
        }
    }
    text
}

fn for_each_pair(table: &Table, mut f: impl FnMut(&str, &str)) {
    for row in &table.rows {
        if let [name, value] = row.as_slice() {
            f(&name.text, &value.text);
        }
    }
}

/// Lines that begin with `first`, the later ones as far in; a word longer than a line is broken.
fn wrap(text: &mut String, first: &str, words: &str) {
    let indent = length(first);
    let room = COLUMNS_MAX.saturating_sub(indent).max(1);
    let words = printable(words);
    let mut lines = vec![String::new()];
    for word in words.split_whitespace() {
        let characters: Vec<char> = word.chars().collect();
        for piece in characters.chunks(room) {
            let used = lines.last().map_or(0, |line| length(line));
            if used > 0 && used + 1 + piece.len() > room {
                lines.push(String::new());
            }
            if let Some(line) = lines.last_mut() {
                if !line.is_empty() {
                    line.push(' ');
                }
                line.extend(piece);
            }
        }
    }
    for (i, line) in lines.iter().enumerate() {
        let start = if i == 0 { first.to_owned() } else { " ".repeat(indent) };
        text.push_str(format!("{start}{line}").trim_end());
        text.push('\n');
    }
}

#[cfg(test)]
mod tests {
    use super::super::sample;
    use super::*;

    fn fits(text: &str) {
        for line in text.lines() {
            assert!(length(line) <= COLUMNS_MAX, "{} columns: {line}", length(line));
            assert!(!line.chars().any(super::super::table::is_harmful), "{line:?}");
        }
    }

    #[test]
    fn no_line_is_wider_than_a_terminal() {
        for report in [
            sample::full(),
            sample::bare(),
            sample::not_finite(),
            sample::hostile(),
            sample::huge(),
        ] {
            fits(&render(&report));
        }
    }

    #[test]
    fn usual_figures_are_not_cut() {
        let text = render(&sample::full());
        println!("{text}");
        assert!(!text.contains('…'), "{text}");
        for figure in [
            "1.842 Mpps",
            "1.238 Gbit/s",
            "NDR",
            "99.9999 %",
            "46 EF",
            "veth",
            "Retpolines",
        ] {
            assert!(text.contains(figure), "{figure}");
        }
    }

    #[test]
    fn a_run_broken_off_says_so_first() {
        let text = render(&sample::bare());
        assert!(
            text.lines().nth(2).is_some_and(|line| line.starts_with("PARTIAL: ")),
            "{text}"
        );
    }

    #[test]
    fn long_words_are_broken_and_lines_are_filled() {
        let mut text = String::new();
        wrap(&mut text, "- ", &format!("short {} end", "x".repeat(150)));
        assert_eq!(
            text,
            format!("- short\n  {}\n  {} end\n", "x".repeat(98), "x".repeat(52))
        );
        text.clear();
        wrap(&mut text, "- ", "");
        assert_eq!(text, "-\n");
    }
}

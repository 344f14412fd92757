//! A report as one page. Nothing in it is fetched and nothing runs: the policy in its head forbids both, should a text ever
//! get past the escaping. Figures come first, then everything needed to judge them, folded.

use super::figures;
use super::markup::escape;
use super::result::{GoalRow, ratio};
use super::table::{Cell, Table};
use super::units::{self, NONE, bps, count, maybe, nanoseconds, percent, pps, seconds};
use super::{Completeness, Report, bench, tables};

pub(super) fn render(report: &Report) -> String {
    let mut page = head(report);
    page += &header(report);
    page += &headline(report);
    page += &section(
        "Throughput",
        &[figures::throughput(report), table(tables::throughput(report))],
    );
    page += &section("Loss over offered load", &[figures::loss(report)]);
    page += &section(
        "Latency",
        &[
            figures::latency(report),
            table(tables::latency(report)),
            latency_note(report),
        ],
    );
    page += &section(
        "Services",
        &[
            table(tables::services(report)),
            table(tables::service_quality(report)),
            dscp(report),
        ],
    );
    page += &section("Back-to-back bursts", &[table(tables::back_to_back(report))]);
    page += &section("Reconfiguration under load", &[table(tables::reconfiguration(report))]);
    let soak = report.soak.as_ref().map(figures::soak).unwrap_or_default();
    page += &section("Soak", &[soak, table(tables::soak(report))]);
    page += &section("Replay", &[figures::gap_errors(report), table(tables::replay(report))]);
    page += &section("Accuracy of the generator", &[table(bench::calibration(report))]);
    page += &section("Notes", &[notes(report)]);
    page += &section("To judge these figures", &[judging(report)]);
    page + "</main></body></html>\n"
}

fn head(report: &Report) -> String {
    format!(
        "<!DOCTYPE html>\n<html lang=\"en\"><head><meta charset=\"utf-8\"/>\
         <meta http-equiv=\"Content-Security-Policy\" content=\"default-src 'none'; style-src 'unsafe-inline'\"/>\
         <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\"/>\
         <meta name=\"color-scheme\" content=\"light dark\"/>\
         <title>{}</title>\n<style>\n{}</style></head>\n<body><main>\n",
        escape(&report.title),
        include_str!("style.css")
    )
}

fn header(report: &Report) -> String {
    let mut text = format!("<header><h1>{}</h1>", escape(&report.title));
    let facts = [
        report.when.clone(),
        format!("took {}", seconds(report.seconds)),
        format!("pktgen {}", report.machine.pktgen),
        report.setup.between.clone(),
    ];
    let facts: Vec<String> = facts
        .iter()
        .filter(|fact| !fact.is_empty())
        .map(|fact| escape(fact))
        .collect();
    text += &format!("<p class=\"soft\">{}</p>", facts.join(" · "));
    if let Completeness::Partial { why } = &report.completeness {
        text += &format!(
            "<p class=\"partial\" role=\"note\"><b>Partial.</b> {}. What is here was measured before that.</p>",
            escape(why)
        );
    }
    text + "</header>\n"
}

/// The figures that somebody looks for first.
fn headline(report: &Report) -> String {
    let mut cards = String::new();
    if let Some(row) = report.throughput.first() {
        for (series, goal) in row.goals.iter().enumerate().take(GOALS_MAX) {
            cards += &goal_card(series, &row.frame, goal);
        }
    }
    // The highest load: that of the first row may be next to none.
    let loaded = report.latency.iter().filter(|row| row.packets > 0);
    if let Some(row) = loaded.max_by(|a, b| a.load_pps.total_cmp(&b.load_pps)) {
        let half = format!("half within {}", nanoseconds(row.percentiles.p50));
        let what = format!("99 % latency, {}", row.label);
        cards += &card(2, &what, &nanoseconds(row.percentiles.p99), &half);
    }
    if report.throughput.is_empty() && !report.services.is_empty() {
        let (sent, lost) = report.services.iter().fold((0u64, 0u64), |(sent, lost), row| {
            (sent.saturating_add(row.sent), lost.saturating_add(row.lost))
        });
        let of = format!("{} of {} packets", count(lost), count(sent));
        cards += &card(0, "Loss", &maybe(ratio(lost, sent), percent), &of);
    }
    if let Some(soak) = &report.soak {
        let what = format!("Loss over {}", seconds(soak.seconds));
        let loss = maybe(ratio(soak.lost, soak.sent), percent);
        cards += &card(3, &what, &loss, &format!("at {}", pps(soak.load_pps)));
    }
    let errors = report.calibration.iter().map(|row| row.error_ppm.abs());
    if let Some(ppm) = errors.filter(|ppm| ppm.is_finite()).reduce(f64::max) {
        let ppm = format!("± {} ppm", units::number(ppm));
        cards += &card(
            4,
            "Error of the rate",
            &ppm,
            "sent against asked for, worst of the calibration",
        );
    }
    if cards.is_empty() {
        return "<p class=\"soft\">Nothing was measured.</p>\n".to_owned();
    }
    format!("<div class=\"cards\">{cards}</div>\n")
}

fn goal_card(series: usize, frame: &str, goal: &GoalRow) -> String {
    let loss = percent(goal.loss_ratio);
    let at = maybe(goal.l1_bps, bps);
    let more = match (goal.lower_pps, goal.upper_pps) {
        (None, _) => format!("no load was found that loses at most {loss}"),
        (_, None) => format!("{at} at layer 1, loss up to {loss}; the highest load tried, so it may do more"),
        _ => format!("{at} at layer 1, loss up to {loss}"),
    };
    let what = format!("{}, {}", goal.name, units::frames(frame));
    card(series, &what, &maybe(goal.throughput_pps, pps), &more)
}

fn card(series: usize, what: &str, figure: &str, more: &str) -> String {
    format!(
        "<div class=\"card c{series}\"><span class=\"what\">{}</span><b>{}</b><span>{}</span></div>",
        escape(what),
        escape(figure),
        escape(more)
    )
}

/// More goals than this are left to the table.
const GOALS_MAX: usize = 4;

/// A heading with what is below it; nothing if nothing is.
fn section(title: &str, parts: &[String]) -> String {
    let body: String = parts.concat();
    if body.is_empty() {
        return body;
    }
    format!("<section><h2>{title}</h2>\n{body}</section>\n")
}

fn table(table: Option<Table>) -> String {
    let Some(table) = table else {
        return String::new();
    };
    let side = |right: bool| if right { "right" } else { "name" };
    let names: String = table
        .columns
        .iter()
        .map(|column| {
            format!(
                "<th scope=\"col\" class=\"{}\">{}</th>",
                side(column.right),
                escape(&column.name)
            )
        })
        .collect();
    let mut rows = String::new();
    for row in &table.rows {
        let cells: String = row
            .iter()
            .zip(&table.columns)
            .map(|(cell, column)| format!("<td class=\"{}\">{}</td>", side(column.right), content(cell)))
            .collect();
        rows += &format!("<tr>{cells}</tr>\n");
    }
    format!(
        "<div class=\"scroll\"><table><caption>{}</caption><thead><tr>{names}</tr></thead><tbody>\n{rows}</tbody></table></div>\n",
        escape(table.title)
    )
}

fn content(cell: &Cell) -> String {
    let text = escape(&cell.text);
    match cell.bar.filter(|share| share.is_finite()) {
        Some(share) => {
            let width = share.clamp(0.0, 1.0) * 100.0;
            format!("{text}<span class=\"meter\"><i style=\"width:{width:.2}%\"></i></span>")
        }
        None => text,
    }
}

fn latency_note(report: &Report) -> String {
    if report.latency.is_empty() {
        return String::new();
    }
    format!(
        "<p class=\"soft\">One way, from the instant a packet was meant to be sent. {NONE}: too few packets to know this \
         percentile.</p>\n"
    )
}

/// Which DSCP became which: sent down, arrived across.
fn dscp(report: &Report) -> String {
    let counts = tables::dscp_counts(&report.services);
    if counts.is_empty() {
        return String::new();
    }
    let mut came: Vec<u8> = counts.iter().map(|count| count.0).collect();
    let mut left: Vec<u8> = counts.iter().map(|count| count.1).collect();
    for codes in [&mut came, &mut left] {
        codes.sort_unstable();
        codes.dedup();
    }
    let names: String = left
        .iter()
        .map(|&code| format!("<th scope=\"col\" class=\"right\">{}</th>", tables::dscp_name(code)))
        .collect();
    let mut rows = String::new();
    for &from in &came {
        let of_row = || counts.iter().filter(|count| count.0 == from);
        let all = of_row().fold(0u64, |sum, count| sum.saturating_add(count.2));
        rows += &format!("<tr><th scope=\"row\">{}</th>", tables::dscp_name(from));
        for &to in &left {
            match of_row().find(|count| count.1 == to) {
                Some(&(_, _, packets)) => {
                    let class = if from == to { "kept" } else { "changed" };
                    let share = maybe(ratio(packets, all), percent);
                    rows += &format!("<td class=\"{class}\">{share}<small>{}</small></td>", count(packets));
                }
                None => rows += "<td></td>",
            }
        }
        rows += "</tr>\n";
    }
    format!(
        "<div class=\"scroll\"><table class=\"matrix\"><caption>DSCP: sent with (down), arrived with (across)</caption>\
         <thead><tr><th></th>{names}</tr></thead><tbody>\n{rows}</tbody></table></div>\n"
    )
}

fn notes(report: &Report) -> String {
    if report.notes.is_empty() {
        return String::new();
    }
    let items: String = report
        .notes
        .iter()
        .map(|note| format!("<li>{}</li>", escape(note)))
        .collect();
    format!("<ul>{items}</ul>")
}

const TRIALS: &str = "Every trial";

/// Everything about the bench, folded; unfolded on paper.
fn judging(report: &Report) -> String {
    let mut folds = String::new();
    let mut fold = |name: &str, body: String| {
        if !body.is_empty() {
            // Hundreds of rows, which paper is not for.
            let class = if name == TRIALS { " class=\"long\"" } else { "" };
            folds += &format!("<details{class}><summary>{name}</summary>{body}</details>\n");
        }
    };
    fold("Run and sockets", table(Some(bench::setup(report))));
    fold("Machine", table(Some(bench::machine(&report.machine))));
    fold(
        "Interfaces",
        bench::interfaces(report)
            .into_iter()
            .map(|one| table(Some(one)))
            .collect(),
    );
    fold("Traffic", table(bench::streams(report)));
    fold(TRIALS, table(tables::trials(report)));
    fold("Errors of gaps between packets", table(tables::gap_errors(report)));
    folds
}

#[cfg(test)]
mod tests {
    use super::super::markup::tests::assert_well_formed;
    use super::super::sample;
    use super::*;

    #[test]
    fn every_page_is_well_formed_and_needs_nothing_else() {
        for report in [
            sample::full(),
            sample::bare(),
            sample::single(),
            sample::not_finite(),
            sample::hostile(),
            sample::huge(),
        ] {
            let page = render(&report);
            assert_well_formed(&page);
            // A hostile name may say such a thing, if it says it as text.
            let page_text = page.replace(&escape(sample::HOSTILE), "");
            for outside in [
                "://", "src=", "href=", "url(", "@import", "<script", "<link", "<img", "onload",
            ] {
                assert!(!page_text.contains(outside), "{outside}");
            }
            for nonsense in ["NaN", "Infinity", ">inf<"] {
                assert!(!page.contains(nonsense), "{nonsense}");
            }
        }
    }

    #[test]
    fn hostile_names_stay_text() {
        let page = render(&sample::hostile());
        assert!(
            !page.contains("<script") && !page.contains("<img") && !page.contains("\" onload=\""),
            "{page}"
        );
        assert!(page.contains("&lt;script&gt;"));
        // Wherever a name goes there is nothing but text: as many tags as with plain names.
        let plain = render(&sample::hostile_with("hostile name"));
        assert_eq!(page.matches('<').count(), plain.matches('<').count());
        assert_eq!(page.matches('"').count(), plain.matches('"').count());
    }

    #[test]
    fn a_page_has_its_headline_and_every_section() {
        let page = render(&sample::full());
        for text in [
            "<b>1.842 Mpps</b>",
            "NDR, 64-byte frames",
            "<h2>Throughput</h2>",
            "<h2>Loss over offered load</h2>",
            "<h2>Latency</h2>",
            "<h2>Services</h2>",
            "<h2>Back-to-back bursts</h2>",
            "<h2>Reconfiguration under load</h2>",
            "<h2>Soak</h2>",
            "<h2>Replay</h2>",
            "<h2>Accuracy of the generator</h2>",
            "<summary>Every trial</summary>",
            "class=\"changed\"",
        ] {
            assert!(page.contains(text), "{text}");
        }
        assert!(!page.contains("Partial."));
        let bare = render(&sample::bare());
        assert!(bare.contains("<b>Partial.</b> interrupted") && bare.contains("Nothing was measured"));
        assert!(!bare.contains("<h2>Throughput</h2>"));
    }

    #[test]
    fn a_goal_no_load_met_and_one_that_every_load_met_are_told_apart() {
        let mut report = sample::full();
        let goals = &mut report.throughput[0].goals;
        goals[0].lower_pps = None;
        goals[0].throughput_pps = None;
        goals[1].upper_pps = None;
        let page = render(&report);
        assert!(
            page.contains("<b>–</b><span>no load was found that loses at most 0 %"),
            "{page}"
        );
        assert!(page.contains("the highest load tried, so it may do more"));
    }
}

//! Which plots a report has. Each is a `<figure>` with its legend in HTML, where it can wrap, or nothing if the report has no
//! data for it.

use super::axis::Axis;
use super::markup::escape;
use super::plot::{Plot, Shape, bar_sample, sample, threshold_sample};
use super::result::{GoalRow, LatencyRow, ThroughputRow, TrialRow, ratio};
use super::units::{self, bps, count, percent, pps, round_time};
use super::{Report, Soak, SoakPoint};

/// Throughput by frame size in packets and in bits per second, a bar for each goal.
pub(super) fn throughput(report: &Report) -> String {
    let goals = goal_names(report);
    if goals.is_empty() {
        return String::new();
    }
    let packets = bars(report, &goals, "packets", |goal| goal.throughput_pps);
    let bits = bars(report, &goals, "bits", |goal| goal.l1_bps);
    format!("<div class=\"pair\">{packets}{bits}</div>")
}

/// The goals' names in the order they first appear.
fn goal_names(report: &Report) -> Vec<&str> {
    let mut names: Vec<&str> = Vec::new();
    for goal in report.throughput.iter().flat_map(|row| &row.goals) {
        if !names.contains(&goal.name.as_str()) {
            names.push(&goal.name);
        }
    }
    names
}

fn bars(report: &Report, goals: &[&str], what: &str, value: fn(&GoalRow) -> Option<f64>) -> String {
    let in_bits = what == "bits";
    let (name, unit) = if in_bits {
        ("Layer 1", "bit/s")
    } else {
        ("Throughput", "pps")
    };
    let line_rate = report.setup.line_rate_bps.filter(|rate| in_bits && rate.is_finite());
    let values = report.throughput.iter().flat_map(|row| &row.goals).filter_map(value);
    // Room for the labels above the bars.
    let high = greatest(values.chain(line_rate)) * 1.05;
    let labels = report.throughput.iter().map(|row| row.frame.clone()).collect();
    let x = Axis::categories("Frame, bytes with FCS", labels);
    let y = Axis::from_zero(name, unit, high);
    // Figures on bars are in the unit of the axis.
    let (factor, _) = units::prefix(y.high);
    let mut plot = Plot::new(540.0, 320.0, x, y);
    let mut legend: Vec<(String, String)> = goals
        .iter()
        .enumerate()
        .map(|(series, goal)| (bar_sample(series), (*goal).to_owned()))
        .collect();
    // Below the bars, or it would strike out the figures on them.
    if let Some(rate) = line_rate {
        plot.across("limit", rate);
        legend.push((threshold_sample("limit"), format!("line rate {}", bps(rate))));
    }
    // A few frame sizes do not make bars as wide as walls.
    let group = (0.22 * report.throughput.len() as f64).min(0.84);
    let width = group / goals.len() as f64;
    // Labels of one length, so that each fits above its bar or none does.
    let decimals = usize::from(high / factor < 100.0) + usize::from(high / factor < 10.0);
    for (place, row) in report.throughput.iter().enumerate() {
        for goal in &row.goals {
            let (Some(value), Some(series)) = (value(goal), goals.iter().position(|&name| name == goal.name)) else {
                continue;
            };
            let from = place as f64 + 0.5 - group / 2.0 + width * series as f64;
            let told = if in_bits { bps(value) } else { pps(value) };
            let told = format!("{} {}: {told}", row.frame, goal.name);
            let label = if value.is_finite() {
                format!("{:.decimals$}", value / factor)
            } else {
                String::new()
            };
            plot.bar(series, from, from + width, value, &label, &told);
        }
    }
    let title = if in_bits {
        "Throughput by frame size in bits per second"
    } else {
        "Throughput by frame size in packets per second"
    };
    let svg = plot.finish(
        &format!("throughput-{what}"),
        title,
        "The table below has the same numbers.",
    );
    figure(title, &svg, &legend)
}

/// Latency over percentiles, both on a log scale: a plot for each frame size, a line for each load.
pub(super) fn latency(report: &Report) -> String {
    let mut frames: Vec<(&str, Vec<Line<'_>>)> = Vec::new();
    for row in &report.latency {
        let points = curve(row);
        if points.is_empty() {
            continue;
        }
        match frames.iter_mut().find(|(frame, _)| *frame == row.frame) {
            Some((_, lines)) => lines.push(Line { row, points }),
            None => frames.push((&row.frame, vec![Line { row, points }])),
        }
    }
    let size = if frames.len() == 1 {
        (960.0, 400.0)
    } else {
        (540.0, 320.0)
    };
    let figures: String = frames
        .iter()
        .enumerate()
        .map(|(number, (frame, lines))| latency_of(number, frame, lines, size))
        .collect();
    match frames.len() {
        0 => String::new(),
        1 => figures,
        _ => format!("<div class=\"pair\">{figures}</div>"),
    }
}

/// One load's line: points of (one packet in so many takes longer, nanoseconds).
struct Line<'a> {
    row: &'a LatencyRow,
    points: Vec<(f64, f64)>,
}

fn latency_of(number: usize, frame: &str, lines: &[Line<'_>], size: (f64, f64)) -> String {
    let all = || lines.iter().flat_map(|line| &line.points);
    let x = Axis::log("Percentile", 1.0, greatest(all().map(|point| point.0)), nines);
    let least = all().map(|point| point.1).fold(f64::MAX, f64::min);
    let y = Axis::log("Latency", least, greatest(all().map(|point| point.1)), round_time);
    let mut plot = Plot::new(size.0, size.1, x, y);
    let mut legend = Vec::new();
    for (series, Line { row, points }) in lines.iter().enumerate() {
        plot.line(series, points);
        for &(quantile, name) in MARKED {
            if let Some(&(x, ns)) = points.iter().find(|point| point.0 >= quantile * (1.0 - 1e-9)) {
                let told = format!("{} {name}: {}", row.label, units::time_ns(ns));
                plot.mark(Shape::Series(series), x, ns, &told);
            }
        }
        legend.push((
            sample(Shape::Series(series)),
            format!("{} ({})", row.label, pps(row.load_pps)),
        ));
    }
    let title = format!("Latency by percentile, {}", units::frames(frame));
    let svg = plot.finish(
        &format!("latency-{number}"),
        &title,
        "One line for each load; from left to right ever fewer packets took longer. The table below has the percentiles.",
    );
    figure(&title, &svg, &legend)
}

/// Where lines have marks: one packet in so many takes longer.
const MARKED: &[(f64, &str)] = &[
    (2.0, "50 %"),
    (10.0, "90 %"),
    (100.0, "99 %"),
    (1e3, "99.9 %"),
    (1e4, "99.99 %"),
];

/// Points of (one packet in so many takes longer, nanoseconds). It ends where no packets are left to tell: at the slowest
/// one.
fn curve(row: &LatencyRow) -> Vec<(f64, f64)> {
    if row.packets == 0 {
        return Vec::new();
    }
    let p = row.percentiles;
    let last = row.packets as f64;
    let from_table = [
        (0.0, p.min),
        (50.0, p.p50),
        (90.0, p.p90),
        (99.0, p.p99),
        (99.9, p.p99_9),
        (99.99, p.p99_99),
    ];
    let steps: Vec<(f64, u64)> = if row.curve.is_empty() {
        from_table.to_vec()
    } else {
        row.curve.iter().map(|point| (point.percentile, point.ns)).collect()
    };
    let mut points: Vec<(f64, f64)> = steps
        .into_iter()
        .filter(|&(percentile, _)| (0.0..100.0).contains(&percentile))
        // A logarithm wants something above zero; the clock knows nothing below a nanosecond.
        .map(|(percentile, ns)| (100.0 / (100.0 - percentile), ns.max(1) as f64))
        .filter(|&(one_in, _)| one_in < last)
        .collect();
    points.push((last, p.max.max(1) as f64));
    points
}

/// One packet in 1000 takes longer: "99.9 %".
fn nines(one_in: f64) -> String {
    let percent = 100.0 - 100.0 / one_in;
    // Below the digits of f64 there is nothing to tell apart.
    let decimals = (one_in.log10() - 2.0).clamp(0.0, 13.0) as usize;
    format!("{percent:.decimals$} %")
}

/// All trials of each search: a small plot for each frame size, around the loads that were searched.
pub(super) fn loss(report: &Report) -> String {
    let mut figures = String::new();
    for (number, row) in report.throughput.iter().enumerate() {
        if row.trials.iter().any(|trial| trial.load_pps.is_finite()) {
            figures += &loss_of(number, row);
        }
    }
    if figures.is_empty() {
        return figures;
    }
    let mut legend = vec![
        (sample(Shape::Point), "a trial".to_owned()),
        (sample(Shape::Cross), "not valid: the generator lagged".to_owned()),
    ];
    for (series, goal) in goal_names(report).into_iter().enumerate() {
        let class = format!("goal c{}", series % super::plot::SERIES);
        legend.push((
            threshold_sample(&class),
            format!("{goal}: loss allowed, and load found"),
        ));
    }
    format!("<div class=\"small\">{figures}</div>{}", list(&legend))
}

fn loss_of(number: usize, row: &ThroughputRow) -> String {
    let trials: Vec<(&TrialRow, f64)> = row
        .trials
        .iter()
        .filter_map(|trial| Some((trial, trial.loss_ratio()?)))
        .collect();
    let found = row.goals.iter().filter_map(|goal| goal.lower_pps);
    let loads: Vec<f64> = row
        .trials
        .iter()
        .map(|trial| trial.load_pps)
        .chain(found)
        .filter(|load| load.is_finite())
        .collect();
    let low = loads.iter().copied().fold(f64::MAX, f64::min);
    let high = greatest(loads.iter().copied());
    let margin = (high - low) * 0.03;
    let x = Axis::linear("Offered load", "pps", low - margin, high + margin);
    let ratios = trials
        .iter()
        .map(|trial| trial.1)
        .chain(row.goals.iter().map(|goal| goal.loss_ratio));
    let least = ratios.filter(|&ratio| ratio > 0.0).fold(0.01, f64::min).max(1e-12);
    let most = greatest(trials.iter().map(|trial| trial.1)).max(0.01);
    let y = Axis::log_and_none("Loss", least, most, percent);
    let none = y.low;
    let mut plot = Plot::new(360.0, 260.0, x, y);
    for (series, goal) in row.goals.iter().enumerate() {
        let class = format!("goal c{}", series % super::plot::SERIES);
        plot.across(&class, goal.loss_ratio.max(none));
        if let Some(load) = goal.lower_pps {
            plot.upright(&class, load);
        }
    }
    for (trial, ratio) in &trials {
        let shape = if trial.valid { Shape::Point } else { Shape::Cross };
        let told = format!(
            "{}: lost {} of {} ({})",
            pps(trial.load_pps),
            count(trial.lost),
            count(trial.sent),
            percent(*ratio)
        );
        plot.mark(shape, trial.load_pps, ratio.max(none), &told);
    }
    let frames = units::frames(&row.frame);
    let title = format!("Loss over offered load, {frames}");
    let description = format!("{} trials, each a point.", row.trials.len());
    let svg = plot.finish(&format!("loss-{number}"), &title, &description);
    figure(&frames, &svg, &[])
}

/// How wrong the gaps of a replay were.
pub(super) fn gap_errors(report: &Report) -> String {
    let Some(replay) = report.replay.as_ref().filter(|replay| !replay.gap_errors.is_empty()) else {
        return String::new();
    };
    let buckets = &replay.gap_errors;
    let edges = buckets
        .iter()
        .map(|bucket| bucket.low_ns)
        .chain(buckets.last().map(|bucket| bucket.high_ns));
    let labels = edges.map(|edge| round_time(edge as f64)).collect();
    let most = greatest(buckets.iter().map(|bucket| bucket.gaps as f64));
    let y = Axis::log_and_none("Gaps", 1.0, most, |gaps| count(gaps.round() as u64));
    let mut plot = Plot::new(960.0, 300.0, Axis::edges("Error of the gap", labels), y);
    for (place, bucket) in buckets.iter().enumerate() {
        if bucket.gaps > 0 {
            let told = format!(
                "{} to {}: {} gaps",
                units::time_ns(bucket.low_ns as f64),
                units::time_ns(bucket.high_ns as f64),
                count(bucket.gaps)
            );
            let from = place as f64;
            plot.bar(0, from + 0.05, from + 0.95, bucket.gaps as f64, "", &told);
        }
    }
    let title = "Errors of gaps between packets";
    let svg = plot.finish(
        "gaps",
        title,
        "Left of zero gaps were too short, right of it too long. The table has the counts.",
    );
    figure(title, &svg, &[])
}

/// Loss and latency of a long run over time.
pub(super) fn soak(soak: &Soak) -> String {
    let points: Vec<&SoakPoint> = soak
        .points
        .iter()
        .filter(|point| point.at_seconds.is_finite())
        .collect();
    let end = greatest(points.iter().map(|point| point.at_seconds));
    let (unit_seconds, unit) = match end {
        7200.0.. => (3600.0, "h"),
        120.0.. => (60.0, "min"),
        _ => (1.0, "s"),
    };
    let time = || Axis::linear("Time", unit, 0.0, end / unit_seconds);
    let losses: Vec<(f64, f64)> = points
        .iter()
        .filter_map(|point| Some((point.at_seconds / unit_seconds, ratio(point.lost, point.sent)?)))
        .collect();
    let latencies: Vec<(f64, f64)> = points
        .iter()
        .filter_map(|point| Some((point.at_seconds / unit_seconds, point.p99_ns?.max(1) as f64)))
        .collect();
    let figures = [soak_loss(time(), &losses), soak_latency(time(), &latencies)].concat();
    if figures.is_empty() {
        return figures;
    }
    format!("<div class=\"pair\">{figures}</div>")
}

fn soak_loss(time: Axis, losses: &[(f64, f64)]) -> String {
    if losses.is_empty() {
        return String::new();
    }
    let some = losses.iter().map(|point| point.1).filter(|&loss| loss > 0.0);
    let least = some.clone().fold(1e-3, f64::min);
    let y = Axis::log_and_none("Loss", least, greatest(some).max(1e-3), percent);
    let none = y.low;
    let mut plot = Plot::new(540.0, 260.0, time, y);
    let drawn: Vec<(f64, f64)> = losses.iter().map(|&(at, loss)| (at, loss.max(none))).collect();
    plot.line(0, &drawn);
    for &(at, loss) in losses.iter().filter(|point| point.1 > 0.0 || losses.len() == 1) {
        plot.mark(Shape::Series(0), at, loss.max(none), &percent(loss));
    }
    let title = "Loss over time";
    figure(
        title,
        &plot.finish("soak-loss", title, "One point for each interval."),
        &[],
    )
}

fn soak_latency(time: Axis, latencies: &[(f64, f64)]) -> String {
    if latencies.is_empty() {
        return String::new();
    }
    let least = latencies.iter().map(|point| point.1).fold(f64::MAX, f64::min);
    let most = greatest(latencies.iter().map(|point| point.1));
    let mut plot = Plot::new(540.0, 260.0, time, Axis::log("Latency, 99 %", least, most, round_time));
    plot.line(1, latencies);
    if let [(at, ns)] = latencies {
        plot.mark(Shape::Series(1), *at, *ns, &round_time(*ns));
    }
    let title = "99 % latency over time";
    figure(
        title,
        &plot.finish("soak-latency", title, "One point for each interval."),
        &[],
    )
}

/// The largest number that is finite; 0 of none.
fn greatest(values: impl Iterator<Item = f64>) -> f64 {
    values.filter(|value| value.is_finite()).fold(0.0, f64::max)
}

fn figure(caption: &str, svg: &str, legend: &[(String, String)]) -> String {
    format!(
        "<figure><figcaption>{}</figcaption>{svg}{}</figure>\n",
        escape(caption),
        list(legend)
    )
}

/// Samples and what they stand for.
fn list(legend: &[(String, String)]) -> String {
    if legend.is_empty() {
        return String::new();
    }
    let items: String = legend
        .iter()
        .map(|(sample, text)| format!("<li>{sample}{}</li>", escape(text)))
        .collect();
    format!("<ul class=\"legend\">{items}</ul>")
}

#[cfg(test)]
mod tests {
    use super::super::sample as reports;
    use super::*;

    #[test]
    fn a_curve_ends_at_the_slowest_packet() {
        let mut report = reports::full();
        let row = &mut report.latency[0];
        row.packets = 5_000;
        let with_points = curve(row);
        assert!(with_points.is_sorted_by(|a, b| a.0 <= b.0));
        assert_eq!(with_points.last(), Some(&(5_000.0, row.percentiles.max as f64)));
        row.curve.clear();
        let from_table = curve(row);
        assert_eq!(from_table.len(), 6, "0, 50, 90, 99 and 99.9 % and the maximum");
        row.packets = 0;
        assert_eq!(curve(row), []);
        row.packets = 1;
        assert_eq!(curve(row).len(), 1);
    }

    #[test]
    fn each_frame_size_has_its_own_latency_plot() {
        let mut report = reports::full();
        assert_eq!(latency(&report).matches("<figure>").count(), 1);
        let mut more = report.latency.clone();
        more.iter_mut().for_each(|row| row.frame = "1518".to_owned());
        report.latency.append(&mut more);
        let page = latency(&report);
        assert_eq!(page.matches("<figure>").count(), 2);
        assert!(page.contains("64-byte frames") && page.contains("1518-byte frames"));
    }

    #[test]
    fn percentiles_have_their_nines() {
        let labels: Vec<String> = [1.0, 10.0, 100.0, 1e3, 1e4, 1e6].map(nines).into();
        assert_eq!(labels.join("|"), "0 %|90 %|99 %|99.9 %|99.99 %|99.9999 %");
    }

    #[test]
    fn there_is_no_plot_of_nothing() {
        let bare = reports::bare();
        assert_eq!(
            throughput(&bare) + &latency(&bare) + &loss(&bare) + &gap_errors(&bare),
            ""
        );
        assert_eq!(soak(&Soak::default()), "");
    }

    #[test]
    fn every_trial_is_drawn() {
        let report = reports::full();
        let page = loss(&report);
        let valid = report
            .throughput
            .iter()
            .flat_map(|row| &row.trials)
            .filter(|trial| trial.valid)
            .count();
        let invalid = report
            .throughput
            .iter()
            .flat_map(|row| &row.trials)
            .filter(|trial| !trial.valid)
            .count();
        assert!(invalid > 0);
        // One more of each in the legend.
        assert_eq!(page.matches("class=\"point\"").count(), valid + 1);
        assert_eq!(page.matches("class=\"cross\"").count(), invalid + 1);
    }
}

//! Plots as SVG inside a page: a grid with labels that never overlap, lines, marks and bars. Colours, fonts and line
//! widths are the page's, by class: `c0` to `c5` for the series. Values that are not finite are left out, and no range of
//! values, empty and single ones included, draws outside the frame.

use super::axis::{Axis, Scale};
use super::markup::escape;

/// How many series have a colour and a mark of their own; the next begins again.
pub(super) const SERIES: usize = 6;

/// A plot being drawn.
pub(super) struct Plot {
    width: f64,
    height: f64,
    x: Axis,
    y: Axis,
    body: String,
}

impl Plot {
    /// An empty plot of so many points, with its grid.
    pub(super) fn new(width: f64, height: f64, x: Axis, y: Axis) -> Self {
        let mut plot = Self {
            width,
            height,
            x,
            y,
            body: String::new(),
        };
        plot.grid();
        plot
    }

    fn grid(&mut self) {
        let (left, right, top, bottom) = (LEFT, self.width - RIGHT, TOP, self.height - BOTTOM);
        let mut grid = String::new();
        for (at, label) in &self.y.ticks {
            let y = self.y_of(*at).unwrap_or(bottom);
            grid += &format!("<line class=\"grid\" x1=\"{left}\" y1=\"{y:.1}\" x2=\"{right}\" y2=\"{y:.1}\"/>");
            if !label.is_empty() {
                let (x, y) = (left - 8.0, y + 4.0);
                grid += &format!(
                    "<text class=\"tick\" x=\"{x}\" y=\"{y:.1}\" text-anchor=\"end\">{}</text>",
                    escape(label)
                );
            }
        }
        let categories = self.x.scale == Scale::Categories;
        let place = (right - left) / (self.x.high - self.x.low).max(1.0);
        let mut free_from = f64::MIN;
        for (at, label) in &self.x.ticks {
            let x = self.x_of(*at).unwrap_or(left);
            if !categories {
                grid += &format!("<line class=\"grid\" x1=\"{x:.1}\" y1=\"{top}\" x2=\"{x:.1}\" y2=\"{bottom}\"/>");
            }
            let shown = if categories {
                cut(label, place.max(CATEGORY_LEAST))
            } else {
                label.clone()
            };
            let half = text_width(&shown) / 2.0;
            let middle = x.min(self.width - half - 2.0);
            if shown.is_empty() || middle - half < free_from {
                continue;
            }
            free_from = middle + half + LABEL_GAP;
            let y = bottom + 18.0;
            grid += &format!(
                "<text class=\"tick\" x=\"{middle:.1}\" y=\"{y}\" text-anchor=\"middle\">{}</text>",
                escape(&shown)
            );
        }
        grid += &format!("<line class=\"axis\" x1=\"{left}\" y1=\"{bottom}\" x2=\"{right}\" y2=\"{bottom}\"/>");
        let (middle, under) = ((left + right) / 2.0, self.height - 8.0);
        grid += &format!("<text class=\"name\" x=\"4\" y=\"14\">{}</text>", escape(&self.y.name));
        grid += &format!(
            "<text class=\"name\" x=\"{middle:.1}\" y=\"{under}\" text-anchor=\"middle\">{}</text>",
            escape(&self.x.name)
        );
        self.body += &grid;
    }

    fn x_of(&self, value: f64) -> Option<f64> {
        Some(LEFT + self.x.fraction(value)? * (self.width - LEFT - RIGHT))
    }

    fn y_of(&self, value: f64) -> Option<f64> {
        let bottom = self.height - BOTTOM;
        Some(bottom - self.y.fraction(value)? * (bottom - TOP))
    }

    /// A line through points, in their order.
    pub(super) fn line(&mut self, series: usize, points: &[(f64, f64)]) {
        let mut path = String::new();
        for &(x, y) in points {
            if let (Some(x), Some(y)) = (self.x_of(x), self.y_of(y)) {
                path += &format!("{}{x:.1} {y:.1}", if path.is_empty() { "M" } else { " L" });
            }
        }
        if !path.is_empty() {
            self.body += &format!("<path class=\"line c{}\" d=\"{path}\"/>", series % SERIES);
        }
    }

    /// A mark at a point, with what a pointer that rests on it is told.
    pub(super) fn mark(&mut self, shape: Shape, x: f64, y: f64, told: &str) {
        if let (Some(x), Some(y)) = (self.x_of(x), self.y_of(y)) {
            let body = mark(shape, x, y, 4.0);
            self.body += &format!("<g>{body}<title>{}</title></g>", escape(told));
        }
    }

    /// A threshold from the left to the right.
    pub(super) fn across(&mut self, class: &str, y: f64) {
        if let Some(y) = self.y_of(y) {
            let right = self.width - RIGHT;
            self.body += &format!("<line class=\"{class}\" x1=\"{LEFT}\" y1=\"{y:.1}\" x2=\"{right}\" y2=\"{y:.1}\"/>");
        }
    }

    /// A threshold from the bottom to the top.
    pub(super) fn upright(&mut self, class: &str, x: f64) {
        if let Some(x) = self.x_of(x) {
            let bottom = self.height - BOTTOM;
            self.body += &format!("<line class=\"{class}\" x1=\"{x:.1}\" y1=\"{TOP}\" x2=\"{x:.1}\" y2=\"{bottom}\"/>");
        }
    }

    /// A bar from the bottom up between two places of the x axis, with its value above it if there is room.
    pub(super) fn bar(&mut self, series: usize, from: f64, to: f64, value: f64, label: &str, told: &str) {
        let (Some(left), Some(right), Some(top)) = (self.x_of(from), self.x_of(to), self.y_of(value)) else {
            return;
        };
        let height = self.height - BOTTOM - top;
        let width = (right - left).max(0.5);
        self.body += &format!(
            "<g><rect class=\"bar c{}\" x=\"{left:.1}\" y=\"{top:.1}\" width=\"{width:.1}\" height=\"{height:.1}\"/>\
             <title>{}</title></g>",
            series % SERIES,
            escape(told)
        );
        if !label.is_empty() && text_width(label) <= width + 2.0 {
            let (x, y) = (left + width / 2.0, top - 5.0);
            self.body += &format!(
                "<text class=\"value\" x=\"{x:.1}\" y=\"{y:.1}\" text-anchor=\"middle\">{}</text>",
                escape(label)
            );
        }
    }

    /// The SVG. `id` is to be unique in the page; title and description are read to those who do not see it.
    pub(super) fn finish(self, id: &str, title: &str, description: &str) -> String {
        format!(
            "<svg viewBox=\"0 0 {} {}\" role=\"img\" aria-labelledby=\"{id}-t {id}-d\"><title id=\"{id}-t\">{}</title>\
             <desc id=\"{id}-d\">{}</desc>{}</svg>",
            self.width,
            self.height,
            escape(title),
            escape(description),
            self.body
        )
    }
}

/// How a point is marked: each series has its own, so that nobody needs the colours.
#[derive(Clone, Copy)]
pub(super) enum Shape {
    /// That of a series.
    Series(usize),
    /// A point that counts, of no series.
    Point,
    /// A point that does not count.
    Cross,
}

/// The mark itself around a middle.
fn mark(shape: Shape, x: f64, y: f64, r: f64) -> String {
    let (left, right, top, bottom) = (x - r, x + r, y - r, y + r);
    let series = match shape {
        Shape::Point => return format!("<circle class=\"point\" cx=\"{x:.1}\" cy=\"{y:.1}\" r=\"{r}\"/>"),
        Shape::Cross => {
            return format!(
                "<path class=\"cross\" d=\"M{left:.1} {top:.1} L{right:.1} {bottom:.1} M{left:.1} {bottom:.1} L{right:.1} {top:.1}\"/>"
            );
        }
        Shape::Series(series) => series % SERIES,
    };
    let outline = match series {
        0 => return format!("<circle class=\"mark c0\" cx=\"{x:.1}\" cy=\"{y:.1}\" r=\"{r}\"/>"),
        1 => format!("M{left:.1} {top:.1} H{right:.1} V{bottom:.1} H{left:.1} Z"),
        2 => format!("M{x:.1} {top:.1} L{right:.1} {bottom:.1} H{left:.1} Z"),
        3 => format!("M{x:.1} {top:.1} L{right:.1} {y:.1} L{x:.1} {bottom:.1} L{left:.1} {y:.1} Z"),
        4 => format!("M{left:.1} {top:.1} H{right:.1} L{x:.1} {bottom:.1} Z"),
        _ => format!("M{left:.1} {y:.1} L{x:.1} {top:.1} V{bottom:.1} Z"),
    };
    format!("<path class=\"mark c{series}\" d=\"{outline}\"/>")
}

/// The sample of a series in a legend.
pub(super) fn sample(shape: Shape) -> String {
    let line = match shape {
        Shape::Series(series) => format!("<path class=\"line c{}\" d=\"M1 7 L27 7\"/>", series % SERIES),
        Shape::Point | Shape::Cross => String::new(),
    };
    swatch(&format!("{line}{}", mark(shape, 14.0, 7.0, 4.0)))
}

/// The sample of bars in a legend.
pub(super) fn bar_sample(series: usize) -> String {
    let series = series % SERIES;
    swatch(&format!(
        "<rect class=\"bar c{series}\" x=\"7\" y=\"1\" width=\"14\" height=\"12\"/>"
    ))
}

/// The sample of a threshold in a legend.
pub(super) fn threshold_sample(class: &str) -> String {
    swatch(&format!(
        "<line class=\"{class}\" x1=\"1\" y1=\"7\" x2=\"27\" y2=\"7\"/>"
    ))
}

fn swatch(body: &str) -> String {
    format!("<svg class=\"swatch\" viewBox=\"0 0 28 14\" aria-hidden=\"true\">{body}</svg>")
}

/// Points around the frame: labels of the y axis, room right of the last label, the y axis's name, the x axis.
const LEFT: f64 = 66.0;
const RIGHT: f64 = 14.0;
const TOP: f64 = 30.0;
const BOTTOM: f64 = 48.0;

/// Between two labels of an axis.
const LABEL_GAP: f64 = 8.0;
/// A category narrower than this shares its label's place with the next, which is then left out.
const CATEGORY_LEAST: f64 = 40.0;

/// An estimate that errs on the wide side, for 11-point type without a font to measure.
fn text_width(text: &str) -> f64 {
    text.chars().count() as f64 * 6.6
}

fn cut(text: &str, width: f64) -> String {
    let room = (width / 6.6) as usize;
    if text.chars().count() <= room {
        return text.to_owned();
    }
    let mut short: String = text.chars().take(room.saturating_sub(1)).collect();
    short.push('…');
    short
}

#[cfg(test)]
mod tests {
    use super::super::markup::tests::assert_well_formed;
    use super::super::units;
    use super::*;

    const ODD: [f64; 12] = [
        f64::NAN,
        f64::INFINITY,
        f64::NEG_INFINITY,
        f64::MAX,
        f64::MIN,
        f64::MIN_POSITIVE,
        0.0,
        -0.0,
        1e-300,
        1e300,
        -5.0,
        42.0,
    ];

    #[test]
    fn every_number_can_be_drawn() {
        for a in ODD {
            for b in ODD {
                for x in [
                    Axis::linear("x", "pps", a, b),
                    Axis::from_zero("x", "pps", a),
                    Axis::log("x", a, b, units::round_time),
                    Axis::log_and_none("x", a, b, units::percent),
                    Axis::categories("x", vec!["a".to_owned(); 3]),
                    Axis::categories("x", Vec::new()),
                    Axis::edges("x", vec!["a".to_owned(); 3]),
                    Axis::edges("x", Vec::new()),
                ] {
                    assert!(x.ticks.len() <= 60 && x.low < x.high, "{a} {b}");
                    let mut plot = Plot::new(300.0, 200.0, x, Axis::log("y", b, a, units::round_time));
                    plot.line(7, &[(a, b), (b, a), (1.0, 1.0)]);
                    plot.bar(1, a, b, a, "label", "<told>");
                    plot.mark(Shape::Series(8), a, b, "told");
                    plot.across("goal", a);
                    plot.upright("goal", b);
                    let svg = plot.finish("p", "title", "a & b");
                    assert_well_formed(&svg);
                    assert!(!svg.contains("NaN") && !svg.contains("inf\""), "{a} {b} {svg}");
                }
            }
        }
    }

    #[test]
    fn labels_of_an_axis_do_not_overlap() {
        for count in [1, 2, 7, 20, 300] {
            let labels = (0..count).map(|i| format!("a long label number {i}")).collect();
            let plot = Plot::new(
                520.0,
                300.0,
                Axis::categories("x", labels),
                Axis::from_zero("y", "pps", 1e6),
            );
            let svg = plot.finish("p", "t", "d");
            let mut free_from = f64::MIN;
            for text in svg
                .split("<text class=\"tick\"")
                .skip(1)
                .filter(|text| text.contains("middle"))
            {
                let x: f64 = text.split('"').nth(1).unwrap().parse().unwrap();
                let label = text.split('>').nth(1).unwrap().split('<').next().unwrap();
                assert!(x - text_width(label) / 2.0 >= free_from, "{count}: {label}");
                free_from = x + text_width(label) / 2.0;
                assert!(free_from <= 520.0);
            }
            assert!(free_from > 0.0);
        }
    }
}

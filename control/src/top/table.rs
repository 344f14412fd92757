//! The table of contracts as text: which columns fit a width, what stands in them, in which order the rows come.

use std::cmp::Ordering;
use std::collections::VecDeque;

use super::board::{Kind, Row};

/// A column.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Column {
    /// Service, with the segment behind `>`.
    Service,
    /// Class of service.
    Class,
    /// Direction.
    Dir,
    /// Committed rate.
    Entitled,
    /// Offered.
    Offered,
    /// Conforming.
    Conforming,
    /// Nonconforming.
    Excess,
    /// Dropped.
    Dropped,
}

impl Column {
    /// From left to right.
    pub const ALL: [Column; 8] = [
        Column::Service,
        Column::Class,
        Column::Dir,
        Column::Entitled,
        Column::Offered,
        Column::Conforming,
        Column::Excess,
        Column::Dropped,
    ];

    /// As `--sort` takes it.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Column::Service => "service",
            Column::Class => "class",
            Column::Dir => "dir",
            Column::Entitled => "entitled",
            Column::Offered => "offered",
            Column::Conforming => "conforming",
            Column::Excess => "excess",
            Column::Dropped => "dropped",
        }
    }

    /// The column of a name.
    #[must_use]
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|column| column.name() == name)
    }

    /// Whether large comes first when nobody has said otherwise.
    #[must_use]
    pub fn is_number(self) -> bool {
        !matches!(self, Column::Service | Column::Class | Column::Dir)
    }

    fn title(self) -> &'static str {
        match self {
            Column::Service => "SERVICE",
            Column::Class => "CLASS",
            Column::Dir => "DIR",
            Column::Entitled => "ENTITLED",
            Column::Offered => "OFFERED",
            Column::Conforming => "CONFORM",
            Column::Excess => "EXCESS",
            Column::Dropped => "DROPPED",
        }
    }

    fn width(self) -> usize {
        match self {
            Column::Service => 14,
            Column::Class => 11,
            Column::Dir => 3,
            Column::Entitled => 8,
            _ => 7,
        }
    }

    /// The smallest width of a screen that shows it.
    fn width_least(self) -> usize {
        match self {
            Column::Service | Column::Offered => 0,
            Column::Dropped => 31,
            Column::Excess => 39,
            Column::Dir => 43,
            Column::Conforming => 51,
            Column::Entitled => 60,
            Column::Class => 72,
        }
    }
}

/// How rows are ordered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sort {
    /// By what.
    pub column: Column,
    /// Whether the largest comes first.
    pub descending: bool,
}

impl Default for Sort {
    fn default() -> Self {
        Self::by(Column::Offered)
    }
}

impl Sort {
    /// Numbers from the largest, names from the first.
    #[must_use]
    pub fn by(column: Column) -> Self {
        Self {
            column,
            descending: column.is_number(),
        }
    }

    /// Sorts. Of equals the order of the configuration stays, so a silent table stands still.
    pub fn sort(self, rows: &mut [&Row]) {
        rows.sort_by(|a, b| {
            let order = self.compare(a, b);
            if self.descending { order.reverse() } else { order }
        });
    }

    fn compare(self, a: &Row, b: &Row) -> Ordering {
        let rates = |row: &Row| row.rates.unwrap_or_default();
        let (of_a, of_b) = (rates(a), rates(b));
        match self.column {
            Column::Service => {
                (a.name.kind, &a.name.service, &a.name.segment).cmp(&(b.name.kind, &b.name.service, &b.name.segment))
            }
            Column::Class => a.name.class.cmp(&b.name.class),
            Column::Dir => a.name.direction.cmp(&b.name.direction),
            Column::Entitled => a.entitled_bps.cmp(&b.entitled_bps),
            Column::Offered => of_a.offered_bps.total_cmp(&of_b.offered_bps),
            Column::Conforming => of_a.conforming_bps.total_cmp(&of_b.conforming_bps),
            Column::Excess => of_a.excess_bps.total_cmp(&of_b.excess_bps),
            Column::Dropped => of_a.dropped_bps.total_cmp(&of_b.dropped_bps),
        }
    }
}

/// The columns that a screen of some width has room for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Layout {
    columns: Vec<(Column, usize)>,
    /// Characters of the sparkline; 0: none.
    spark: usize,
}

impl Layout {
    /// Of a screen `width` characters wide. Names take what numbers leave, and a sparkline what names do not need.
    #[must_use]
    pub fn new(width: usize) -> Self {
        let fits = |column: &Column| width >= column.width_least();
        let mut columns: Vec<_> = Column::ALL
            .into_iter()
            .filter(fits)
            .map(|column| (column, column.width()))
            .collect();
        let used: usize = columns.iter().map(|(_, width)| width + 1).sum::<usize>() - 1;
        let mut left = width.saturating_sub(used);
        let more = left.saturating_sub(SPARK + 1).min(26);
        let spark = if left > SPARK {
            (left - more - 1).min(super::board::SAMPLES)
        } else {
            0
        };
        left = if spark > 0 { more } else { left };
        if used > width {
            columns[0].1 = columns[0].1.saturating_sub(used - width).max(1);
        } else {
            columns[0].1 += left;
        }
        Self { columns, spark }
    }

    /// The line of titles; an arrow stands before the title that sorts, or behind `SERVICE`.
    #[must_use]
    pub fn titles(&self, sort: Sort, ascii: bool) -> String {
        let arrow = match (ascii, sort.descending) {
            (false, true) => "▼",
            (false, false) => "▲",
            (true, true) => "v",
            (true, false) => "^",
        };
        let mut line = String::new();
        for &(column, width) in &self.columns {
            let (title, sorted) = (column.title(), column == sort.column);
            match column {
                Column::Service if sorted => line += &place(&format!("{title}{arrow}"), width, false),
                Column::Service => line += &place(title, width, false),
                // The blank before the column has room for the arrow.
                _ if sorted => line += &format!("{:>1$}", format!("{arrow}{title}"), width + 1),
                _ => line += &format!(" {}", place(title, width, column.is_number())),
            }
        }
        if self.spark > 0 {
            line.push(' ');
            line += &place(if self.spark < 13 { "PAST" } else { "PAST, OFFERED" }, self.spark, true);
        }
        line
    }

    /// The cells of a row, with the column of each; the last, without one, is the sparkline.
    #[must_use]
    pub fn cells(&self, row: &Row, ascii: bool) -> Vec<(Option<Column>, String)> {
        let mut cells: Vec<_> = self
            .columns
            .iter()
            .map(|&(column, width)| (Some(column), place(&text(row, column), width, column.is_number())))
            .collect();
        if self.spark > 0 {
            cells.push((None, sparkline(&row.past, self.spark, ascii)));
        }
        cells
    }
}

/// Characters of the shortest sparkline worth drawing.
const SPARK: usize = 8;

/// The name of a row as the screen shows it.
#[must_use]
pub fn label(row: &Row) -> String {
    match (row.name.kind, &row.name.segment) {
        (Kind::Uncontracted, _) => "(uncontracted)".to_owned(),
        (Kind::Other, _) => "(not IP)".to_owned(),
        (Kind::Contract, Some(segment)) => format!("{}>{segment}", row.name.service),
        (Kind::Contract, None) => row.name.service.clone(),
    }
}

fn text(row: &Row, column: Column) -> String {
    let rate = |of: fn(super::board::Rates) -> f64| row.rates.map_or("-".to_owned(), |rates| short_bits(of(rates)));
    match column {
        Column::Service => label(row),
        Column::Class => row.name.class.clone(),
        Column::Dir => row.name.direction.chars().take(3).collect(),
        Column::Entitled => match row.entitled_bps {
            Some(_) if !row.active => "not now".to_owned(),
            Some(bps) => short_bits(bps as f64),
            None => "-".to_owned(),
        },
        Column::Offered => rate(|rates| rates.offered_bps),
        Column::Conforming => rate(|rates| rates.conforming_bps),
        Column::Excess => rate(|rates| rates.excess_bps),
        Column::Dropped => rate(|rates| rates.dropped_bps),
    }
}

/// Bits per second in at most six characters: `1.25G`, `999k`, `0`.
#[must_use]
pub fn short_bits(bps: f64) -> String {
    let steps = [(1e12, "T"), (1e9, "G"), (1e6, "M"), (1e3, "k")];
    // What would be shown as 1000k is 1M.
    let step = steps.into_iter().find(|(step, _)| bps >= step * 0.999_5);
    let Some((divisor, prefix)) = step else {
        return format!("{bps:.0}");
    };
    let value = bps / divisor;
    let digits = if value < 9.995 {
        2
    } else if value < 99.95 {
        1
    } else {
        0
    };
    format!("{value:.digits$}{prefix}")
}

/// The past as bars of eight heights, the newest at the right; the highest is as high as it goes.
pub(super) fn sparkline(past: &VecDeque<f64>, width: usize, ascii: bool) -> String {
    let bars: &[char; 9] = if ascii {
        &[' ', '.', ':', '-', '=', '+', '*', '#', '@']
    } else {
        &[' ', '▁', '▂', '▃', '▄', '▅', '▆', '▇', '█']
    };
    let shown = past.iter().skip(past.len().saturating_sub(width));
    let top = shown.clone().copied().fold(0.0, f64::max);
    let bar = |value: &f64| {
        if top <= 0.0 || *value <= 0.0 {
            return ' ';
        }
        // Whatever is there at all has a bar.
        bars[((value / top * 8.0).ceil() as usize).clamp(1, 8)]
    };
    let line: String = shown.map(bar).collect();
    format!("{line:>width$}")
}

fn place(text: &str, width: usize, right: bool) -> String {
    let text = if text.chars().count() > width {
        match width {
            0 | 1 => first(text, width),
            _ => format!("{}…", first(text, width - 1)),
        }
    } else {
        text.to_owned()
    };
    if right {
        format!("{text:>width$}")
    } else {
        format!("{text:<width$}")
    }
}

fn first(text: &str, width: usize) -> String {
    text.chars().take(width).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rates_take_six_characters_at_most() {
        let texts = [
            0.0, 7.4, 999.0, 999.6, 1e3, 12_345.0, 999_999.0, 1.25e9, 399e9, 4e11, 5e14,
        ]
        .map(short_bits);
        assert_eq!(
            texts,
            [
                "0", "7", "999", "1.00k", "1.00k", "12.3k", "1.00M", "1.25G", "399G", "400G", "500T"
            ]
        );
        assert!((0..60).all(|power| short_bits(1.7_f64.powi(power)).len() <= 6));
    }

    #[test]
    fn every_width_is_filled_and_never_overrun() {
        for width in 1..240 {
            let layout = Layout::new(width);
            for ascii in [false, true] {
                for column in Column::ALL {
                    let titles = layout.titles(Sort::by(column), ascii);
                    assert!(titles.chars().count() <= width.max(9), "{width}: {titles}");
                }
            }
        }
        assert_eq!(Layout::new(80).columns.len(), 8);
        assert!(Layout::new(80).spark >= SPARK);
    }

    #[test]
    fn a_sparkline_shows_the_newest_at_the_right() {
        let past: VecDeque<f64> = [0.0, 1.0, 4.0, 8.0].into();
        assert_eq!(sparkline(&past, 6, false), "   ▁▄█");
        assert_eq!(sparkline(&past, 2, true), "=@");
        assert_eq!(sparkline(&VecDeque::from([0.0, 0.0]), 4, false), "    ");
    }
}

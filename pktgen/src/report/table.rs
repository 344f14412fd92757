//! Rows and columns, for a terminal or a page.

/// A table. Every row has as many cells as there are columns.
pub(super) struct Table {
    pub(super) title: &'static str,
    pub(super) columns: Vec<Column>,
    pub(super) rows: Vec<Vec<Cell>>,
}

/// One column.
pub(super) struct Column {
    pub(super) name: String,
    /// Numbers stand right.
    pub(super) right: bool,
    /// A terminal has no room for it.
    pub(super) page_only: bool,
}

/// One cell: unescaped text, and on a page a bar behind it.
pub(super) struct Cell {
    pub(super) text: String,
    /// How long the bar is, 0 to 1.
    pub(super) bar: Option<f64>,
}

impl Cell {
    /// A cell with a bar.
    pub(super) fn bar(text: String, share: Option<f64>) -> Self {
        Self { text, bar: share }
    }
}

impl From<String> for Cell {
    fn from(text: String) -> Self {
        Self { text, bar: None }
    }
}

impl From<&str> for Cell {
    fn from(text: &str) -> Self {
        text.to_owned().into()
    }
}

impl Table {
    /// A table without rows. A column whose name begins with `>` stands right; one that begins with `+` does too, and is
    /// only on a page.
    pub(super) fn new(title: &'static str, columns: &[&str]) -> Self {
        let columns = columns
            .iter()
            .map(|name| Column {
                name: name.trim_start_matches(['>', '+']).to_owned(),
                right: name.starts_with(['>', '+']),
                page_only: name.starts_with('+'),
            })
            .collect();
        Self {
            title,
            columns,
            rows: Vec::new(),
        }
    }

    pub(super) fn row<const N: usize>(&mut self, cells: [Cell; N]) {
        debug_assert_eq!(N, self.columns.len(), "{}", self.title);
        self.rows.push(cells.into());
    }

    /// The table, or `None` if it has no rows.
    pub(super) fn if_any(self) -> Option<Self> {
        (!self.rows.is_empty()).then_some(self)
    }

    /// As lines of at most `columns_max` characters: the widest columns are cut until it fits.
    pub(super) fn text(&self, columns_max: usize) -> String {
        let columns: Vec<&Column> = self.columns.iter().filter(|column| !column.page_only).collect();
        let rows: Vec<Vec<String>> = self
            .rows
            .iter()
            .map(|row| {
                let cells = row.iter().zip(&self.columns).filter(|(_, column)| !column.page_only);
                cells.map(|(cell, _)| printable(&cell.text)).collect()
            })
            .collect();
        let mut widths: Vec<usize> = columns.iter().map(|column| length(&column.name)).collect();
        for row in &rows {
            for (width, cell) in widths.iter_mut().zip(row) {
                *width = (*width).max(length(cell));
            }
        }
        let gaps = GAP.len() * widths.len().saturating_sub(1);
        shrink(&mut widths, columns_max.saturating_sub(gaps));
        let names: Vec<String> = columns.iter().map(|column| column.name.clone()).collect();
        let rule: Vec<String> = widths.iter().map(|&width| "─".repeat(width)).collect();
        let mut text = String::new();
        for row in [&names, &rule].into_iter().chain(&rows) {
            let cells: Vec<String> = row
                .iter()
                .zip(&columns)
                .zip(&widths)
                .map(|((cell, column), &width)| padded(cell, width, column.right))
                .collect();
            text.push_str(cells.join(GAP).trim_end());
            text.push('\n');
        }
        text
    }
}

const GAP: &str = "  ";

/// Cuts the widest columns until their sum fits. Ends: each round makes the widest at least one less, down to 1.
fn shrink(widths: &mut [usize], sum_max: usize) {
    loop {
        let sum: usize = widths.iter().sum();
        let widest = widths.iter().copied().max().unwrap_or(0);
        if sum <= sum_max || widest <= 1 {
            return;
        }
        let next = widths
            .iter()
            .copied()
            .filter(|&width| width < widest)
            .max()
            .unwrap_or(1);
        let count = widths.iter().filter(|&&width| width == widest).count();
        let cut = (sum - sum_max).div_ceil(count).min((widest - next).max(1));
        for width in widths.iter_mut().filter(|width| **width == widest) {
            *width = widest.saturating_sub(cut).max(1);
        }
    }
}

fn padded(text: &str, width: usize, right: bool) -> String {
    let len = length(text);
    if len > width {
        let mut cut: String = text.chars().take(width.saturating_sub(1)).collect();
        cut.push('…');
        return cut;
    }
    let space = " ".repeat(width - len);
    if right {
        format!("{space}{text}")
    } else {
        format!("{text}{space}")
    }
}

/// Columns on a terminal, if every character takes one.
pub(super) fn length(text: &str) -> usize {
    text.chars().count()
}

/// One line without anything a terminal obeys: control characters, and those that turn the direction of writing, become
/// U+FFFD. A name in a contract file must not be able to rewrite the screen.
pub(super) fn printable(text: &str) -> String {
    text.chars()
        .map(|c| match c {
            '\n' | '\t' | '\r' => ' ',
            c if is_harmful(c) => '\u{fffd}',
            c => c,
        })
        .collect()
}

/// Control characters and the marks that reorder the text after them.
pub(super) fn is_harmful(c: char) -> bool {
    c.is_control() || matches!(c, '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_table_lines_up_and_fits() {
        let mut table = Table::new("Things", &["Name", ">Number"]);
        table.row(["one".into(), "1".into()]);
        table.row(["a name that goes on and on".into(), "1,000".into()]);
        assert_eq!(
            table.text(100),
            "Name                        Number\n\
             ──────────────────────────  ──────\n\
             one                              1\n\
             a name that goes on and on   1,000\n"
        );
        assert_eq!(
            table.text(20),
            "Name          Number\n\
             ────────────  ──────\n\
             one                1\n\
             a name that…   1,000\n"
        );
    }

    #[test]
    fn no_width_is_too_small_to_end() {
        for columns_max in 0..30 {
            let mut table = Table::new("Things", &["Name", ">Number", "Other"]);
            table.row(["x".repeat(500).into(), "9".repeat(40).into(), "".into()]);
            let text = table.text(columns_max);
            assert!(text.lines().all(|line| length(line) <= columns_max.max(7)), "{text}");
        }
        let none = Table::new("None", &[]);
        assert_eq!(none.text(10), "\n\n");
    }

    #[test]
    fn a_terminal_has_nothing_to_obey() {
        assert_eq!(printable("a\u{1b}[2Jb\nc\u{202e}d"), "a\u{fffd}[2Jb c\u{fffd}d");
    }
}

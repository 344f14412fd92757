//! Where the operator is on the screen: order, filter, cursor, what is open. Knows keys, and nothing of drawing.

use ratatui::crossterm::event::{KeyCode, KeyEvent, KeyModifiers};

use super::board::{Board, Name, Row};
use super::selection::TopWish;
use super::table::{Column, Sort};
use crate::change::diff::ContractName;

/// What lies over the table, or instead of it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Open {
    /// Nothing.
    #[default]
    Table,
    /// The keys.
    Help,
    /// One row in full.
    Detail(Name),
}

/// What a key asks of the loop.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wanted {
    /// Draw again.
    Redraw,
    /// Ask the appliance at once: the selection has changed.
    Ask,
    /// End.
    Quit,
}

/// The state.
#[derive(Clone, Debug, Default)]
pub struct View {
    /// Order of rows.
    pub sort: Sort,
    /// What the appliance is asked for.
    pub wish: TopWish,
    /// Whether the filter is being typed.
    pub typing: bool,
    /// Whether answers are left aside.
    pub paused: bool,
    /// What is open.
    pub open: Open,
    /// The row under the cursor.
    pub cursor: Option<Name>,
    /// Rows that the last drawing had room for.
    pub page: usize,
    /// The first row that is drawn.
    pub scroll: usize,
}

impl View {
    /// Sorted and filtered so at the start.
    #[must_use]
    pub fn new(sort: Sort, wish: TopWish) -> Self {
        Self {
            sort,
            wish,
            ..Self::default()
        }
    }

    /// The rows in order, without those that do not match. What no contract covers is matched by its class and direction.
    #[must_use]
    pub fn rows<'b>(&self, board: &'b Board) -> Vec<&'b Row> {
        let matches = self.wish.matcher();
        let shown = board.rows.iter().filter(|row| {
            matches(&ContractName {
                service: &row.name.service,
                class: &row.name.class,
                direction: &row.name.direction,
                segment: row.name.segment.as_deref(),
                region: "",
            })
        });
        let mut rows: Vec<&Row> = shown.collect();
        self.sort.sort(&mut rows);
        rows
    }

    /// Takes a key.
    pub fn key(&mut self, key: KeyEvent, board: &Board) -> Wanted {
        if key.modifiers.contains(KeyModifiers::CONTROL) {
            return match key.code {
                KeyCode::Char('c') => Wanted::Quit,
                _ => Wanted::Redraw,
            };
        }
        if self.typing {
            return self.typed(key.code);
        }
        match key.code {
            KeyCode::Char('q') => return Wanted::Quit,
            KeyCode::Esc if self.open == Open::Table => return Wanted::Quit,
            KeyCode::Esc => self.open = Open::Table,
            KeyCode::Char('?') | KeyCode::Char('h') => self.toggle_help(),
            KeyCode::Char('p') | KeyCode::Char(' ') => self.paused = !self.paused,
            KeyCode::Char('/') => (self.typing, self.open) = (true, Open::Table),
            KeyCode::Char('d') => return self.next_direction(),
            KeyCode::Char('c') => return self.next_class(board),
            KeyCode::Char('x') => return self.no_filter(),
            KeyCode::Char('r') => self.sort.descending = !self.sort.descending,
            KeyCode::Char('>') | KeyCode::Char('s') | KeyCode::Right => self.next_column(1),
            KeyCode::Char('<') | KeyCode::Left => self.next_column(Column::ALL.len() - 1),
            KeyCode::Char(digit @ '1'..='8') => {
                self.sort = Sort::by(Column::ALL[digit as usize - '1' as usize]);
            }
            KeyCode::Enter => self.toggle_detail(board),
            code => self.step(code, board),
        }
        Wanted::Redraw
    }

    fn typed(&mut self, code: KeyCode) -> Wanted {
        match code {
            KeyCode::Enter => self.typing = false,
            KeyCode::Esc => {
                self.typing = false;
                self.wish.text.clear();
            }
            KeyCode::Backspace => drop(self.wish.text.pop()),
            // Longer than any name that a configuration is likely to hold, and far below what a request may be.
            KeyCode::Char(character) if self.wish.text.len() < 64 => self.wish.text.push(character),
            _ => return Wanted::Redraw,
        }
        Wanted::Ask
    }

    fn toggle_help(&mut self) {
        self.open = if self.open == Open::Help {
            Open::Table
        } else {
            Open::Help
        };
    }

    fn toggle_detail(&mut self, board: &Board) {
        self.open = match (&self.open, &self.cursor) {
            (Open::Table, Some(name)) => Open::Detail(name.clone()),
            (Open::Table, None) => match self.rows(board).first() {
                Some(row) => Open::Detail(row.name.clone()),
                None => Open::Table,
            },
            _ => Open::Table,
        };
    }

    fn next_column(&mut self, steps: usize) {
        let at = Column::ALL.iter().position(|column| *column == self.sort.column);
        self.sort = Sort::by(Column::ALL[(at.unwrap_or(0) + steps) % Column::ALL.len()]);
    }

    fn next_direction(&mut self) -> Wanted {
        self.wish.direction = match self.wish.direction.as_deref() {
            None => Some("egress".to_owned()),
            Some("egress") => Some("ingress".to_owned()),
            Some(_) => None,
        };
        Wanted::Ask
    }

    /// All classes, then one after the other.
    fn next_class(&mut self, board: &Board) -> Wanted {
        let classes = board.status.as_ref().map_or(&[][..], |top| &top.classes);
        self.wish.class = match &self.wish.class {
            None => classes.first().cloned(),
            Some(class) => {
                let at = classes.iter().position(|known| known == class);
                at.and_then(|at| classes.get(at + 1)).cloned()
            }
        };
        Wanted::Ask
    }

    fn no_filter(&mut self) -> Wanted {
        self.wish.text.clear();
        (self.wish.direction, self.wish.class) = (None, None);
        Wanted::Ask
    }

    /// Moves the cursor; in the detail view to the row beside.
    fn step(&mut self, code: KeyCode, board: &Board) {
        let rows = self.rows(board);
        let Some(last) = rows.len().checked_sub(1) else { return };
        let at = self.cursor_at(&rows);
        let page = self.page.max(1);
        let to = match (code, at) {
            (KeyCode::Down | KeyCode::Char('j'), Some(at)) => at + 1,
            (KeyCode::Down | KeyCode::Char('j'), None) | (KeyCode::Home | KeyCode::Char('g'), _) => 0,
            (KeyCode::Up | KeyCode::Char('k'), _) => at.unwrap_or(0).saturating_sub(1),
            (KeyCode::PageDown, _) => at.unwrap_or(0) + page,
            (KeyCode::PageUp, _) => at.unwrap_or(0).saturating_sub(page),
            (KeyCode::End | KeyCode::Char('G'), _) => last,
            _ => return,
        };
        let name = rows[to.min(last)].name.clone();
        if let Open::Detail(shown) = &mut self.open {
            shown.clone_from(&name);
        }
        self.cursor = Some(name);
    }

    /// Where the cursor is among `rows`; it stays with its row wherever that goes.
    #[must_use]
    pub fn cursor_at(&self, rows: &[&Row]) -> Option<usize> {
        let name = self.cursor.as_ref()?;
        rows.iter().position(|row| row.name == *name)
    }

    /// What is being filtered, for the last line; empty when nothing is.
    #[must_use]
    pub fn filter_text(&self) -> String {
        let mut parts = Vec::new();
        if !self.wish.text.is_empty() {
            parts.push(format!("/{}", self.wish.text));
        }
        parts.extend(self.wish.direction.clone());
        parts.extend(self.wish.class.iter().map(|class| format!("class {class}")));
        parts.join(", ")
    }
}

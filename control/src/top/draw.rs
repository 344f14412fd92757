//! Draws the board. The sixteen colours of the terminal only, and never as the only sign: it is readable on light and dark,
//! and without colour.

use ratatui::Frame;
use ratatui::layout::Rect;
use ratatui::style::{Color, Modifier, Style};
use ratatui::text::{Line, Span};
use ratatui::widgets::{Block, Clear, Paragraph};

use super::board::{Board, Kind, PortRow, Row};
use super::detail;
use super::table::{Column, Layout, short_bits};
use super::view::{Open, View};
use crate::status::{Status, cut};

/// How it looks.
#[derive(Clone, Copy, Debug, Default)]
pub struct Look {
    /// Whether colours are used.
    pub colour: bool,
    /// Whether only ASCII is used.
    pub ascii: bool,
}

impl Look {
    fn style(self, colour: Color) -> Style {
        if self.colour {
            Style::new().fg(colour)
        } else {
            Style::new()
        }
    }

    /// For what must be seen.
    fn alarm(self) -> Style {
        self.style(Color::Red).add_modifier(Modifier::BOLD)
    }

    /// For a rate of this column that is not 0.
    fn rate(self, column: Column) -> Style {
        match column {
            Column::Excess => self.style(Color::Magenta),
            Column::Dropped => self.alarm(),
            _ => Style::new(),
        }
    }
}

/// Draws everything. `trouble`: why no answer comes, if none does.
pub fn draw(frame: &mut Frame<'_>, board: &Board, view: &mut View, trouble: Option<&str>, look: Look) {
    let area = frame.area();
    if area.width == 0 || area.height == 0 {
        return;
    }
    let width = usize::from(area.width);
    let head = header(board, view, trouble, width, usize::from(area.height), look);
    let body = Rect {
        y: area.y + head.len() as u16,
        height: area.height.saturating_sub(head.len() as u16 + 1),
        ..area
    };
    let foot = Rect {
        y: area.bottom() - 1,
        height: 1,
        ..area
    };
    frame.render_widget(Paragraph::new(head), area);
    match view.open.clone() {
        Open::Detail(name) => {
            let row = board.rows.iter().find(|row| row.name == name);
            let lines = detail::lines(row, board, width, look.ascii);
            frame.render_widget(
                Paragraph::new(lines.into_iter().map(Line::from).collect::<Vec<_>>()),
                body,
            );
        }
        Open::Table | Open::Help => draw_table(frame, board, view, body, look),
    }
    frame.render_widget(Paragraph::new(footer(board, view, width)), foot);
    if view.open == Open::Help {
        draw_help(frame, area);
    }
}

/// The lines above the table: as many as leave room for some rows.
fn header(
    board: &Board,
    view: &View,
    trouble: Option<&str>,
    width: usize,
    height: usize,
    look: Look,
) -> Vec<Line<'static>> {
    let mut lines = Vec::new();
    let bold = Style::new().add_modifier(Modifier::BOLD);
    let top = board.status.as_ref();
    let title = top.map_or("weir top".to_owned(), |top| first_line(&top.status, view.paused));
    lines.push(Line::styled(cut(&title, width), bold));
    if let Some(trouble) = trouble {
        let text = format!("not reachable, trying again: {trouble}");
        lines.push(Line::styled(cut(&text, width), look.alarm()));
    }
    let Some(top) = top else { return lines };
    for alarm in alarms(&top.status) {
        lines.push(Line::styled(cut(&alarm, width), look.alarm()));
    }
    let room = (height / 3).max(1);
    lines.truncate(room);
    let mut quiet = vec![totals(board, width)];
    quiet.extend(notices(&top.status));
    quiet.extend(board.ports.iter().map(|port| port_line(port, width, look.ascii)));
    for line in quiet {
        if lines.len() < room {
            lines.push(Line::raw(cut(&line, width)));
        }
    }
    lines
}

fn first_line(status: &Status, paused: bool) -> String {
    let running = status.workers.iter().filter(|worker| worker.state == "run").count();
    let paused = if paused { "PAUSED  " } else { "" };
    format!(
        "{paused}weir {}  up {}  table {}  workers {running}/{}  unaccounted {}  region {}",
        status.version,
        duration(status.uptime_seconds),
        status.generation,
        status.workers.len(),
        status.unaccounted(),
        status.region
    )
}

/// What is wrong.
pub(super) fn alarms(status: &Status) -> Vec<String> {
    let alarms = status.alarms.iter();
    alarms
        .map(|alarm| format!("ALARM {}: {}", alarm.place, alarm.what))
        .collect()
}

/// What an operator should know.
pub(super) fn notices(status: &Status) -> Vec<String> {
    let mut notices = Vec::new();
    if let Some(trial) = &status.change.trial {
        notices.push(format!(
            "on trial: goes back in {:.0} s unless `weir confirm` comes",
            trial.seconds_left
        ));
    }
    if let Some(disk) = status.change.disk.as_ref().filter(|disk| disk.differs) {
        notices.push(format!("disk: {}", disk.summary));
    }
    if let Some(error) = &status.last_reload_error {
        let reason = error.lines().next().unwrap_or_default();
        notices.push(format!("the last change was refused: {reason}"));
    }
    if let Some(error) = &status.change.history_error {
        notices.push(format!("history: {error}"));
    }
    notices
}

/// The sums, with as much of them as fits.
pub(super) fn totals(board: &Board, width: usize) -> String {
    let rate = |bps: Option<f64>| bps.map_or("-".to_owned(), short_bits);
    let sums = board.totals();
    let parts = [
        ("offered", sums.map(|sums| sums.offered_bps)),
        ("conforming", sums.map(|sums| sums.conforming_bps)),
        ("excess", sums.map(|sums| sums.excess_bps)),
        ("dropped", sums.map(|sums| sums.dropped_bps)),
    ];
    let mut line = String::new();
    for (name, bps) in parts {
        let part = format!("{name} {}", rate(bps));
        if !line.is_empty() && line.len() + part.len() + 2 > width {
            break;
        }
        let gap = if line.is_empty() { "" } else { "  " };
        line = format!("{line}{gap}{part}");
    }
    let contracts = board.rows.iter().filter(|row| row.name.kind == Kind::Contract);
    let shown = contracts.count();
    if let Some(top) = &board.status {
        let plural = if top.contracts_in_all == 1 { "" } else { "s" };
        let room = format!("  bit/s, {} contract{plural}", top.contracts_in_all);
        let unsent = top.contracts_matching > shown;
        if line.len() + room.len() <= width {
            line += &room;
        }
        let unsent_text = format!(", the busiest {shown} shown");
        if unsent && line.len() + unsent_text.len() <= width {
            line += &unsent_text;
        }
    }
    line
}

/// A port, with a bar of what it sends where it has a rate.
pub(super) fn port_line(port: &PortRow, width: usize, ascii: bool) -> String {
    let rate = |bps: Option<f64>| bps.map_or("-".to_owned(), short_bits);
    let mut line = format!(
        "{:<8} {:<4} received {:>6}  sent {:>6}",
        cut(&port.port, 8),
        port.side,
        rate(port.received_bps),
        rate(port.sent_bps)
    );
    if let (Some(limit), Some(sent)) = (port.rate_bps, port.sent_bps) {
        let share = sent / limit as f64;
        line += &format!(" of {:>6} {:>3.0} %", short_bits(limit as f64), share * 100.0);
        let room = width.saturating_sub(line.chars().count() + 3).min(20);
        if room >= 5 {
            let full = ((share * room as f64).round() as usize).min(room);
            let (bar, rest) = if ascii { ("#", ".") } else { ("█", "░") };
            line += &format!(" {}{}", bar.repeat(full), rest.repeat(room - full));
        }
    }
    if let Some(dropped) = port.dropped_pps.filter(|pps| *pps > 0.0) {
        line += &format!("  dropped {dropped:.0} packets/s");
    }
    line
}

fn draw_table(frame: &mut Frame<'_>, board: &Board, view: &mut View, area: Rect, look: Look) {
    let layout = Layout::new(usize::from(area.width));
    let mut lines = Vec::new();
    if area.height > 1 {
        let titles = layout.titles(view.sort, look.ascii);
        lines.push(Line::styled(titles, Style::new().add_modifier(Modifier::REVERSED)));
    }
    let rows = view.rows(board);
    let room = usize::from(area.height).saturating_sub(lines.len());
    view.page = room;
    let cursor = view.cursor_at(&rows);
    if let Some(at) = cursor {
        view.scroll = view.scroll.clamp((at + 1).saturating_sub(room), at);
    }
    view.scroll = view.scroll.min(rows.len().saturating_sub(room));
    for (number, row) in rows.iter().enumerate().skip(view.scroll).take(room) {
        lines.push(row_line(&layout, row, cursor == Some(number), look));
    }
    if rows.is_empty() && board.status.is_some() && room > 0 {
        lines.push(Line::raw("nothing matches: x clears the filters"));
    }
    frame.render_widget(Paragraph::new(lines), area);
}

fn row_line(layout: &Layout, row: &Row, selected: bool, look: Look) -> Line<'static> {
    let rates = row.rates.unwrap_or_default();
    let mut spans = Vec::new();
    for (column, cell) in layout.cells(row, look.ascii) {
        if !spans.is_empty() {
            spans.push(Span::raw(" "));
        }
        let style = match column {
            Some(Column::Excess) if rates.excess_bps > 0.0 => look.rate(Column::Excess),
            Some(Column::Dropped) if rates.dropped_bps > 0.0 => look.rate(Column::Dropped),
            None => look.style(Color::Cyan),
            _ => Style::new(),
        };
        spans.push(Span::styled(cell, style));
    }
    let line = Line::from(spans);
    if selected {
        line.style(Style::new().add_modifier(Modifier::REVERSED))
    } else {
        line
    }
}

fn footer(board: &Board, view: &View, width: usize) -> Line<'static> {
    if view.typing {
        return Line::raw(cut(&format!("filter: {}_", view.wish.text), width));
    }
    let filter = view.filter_text();
    let rows = view.rows(board).len();
    let keys = match &view.open {
        Open::Detail(_) => "Esc back  up/down beside  q quit",
        _ => "q quit  ? help  / filter  < > sort  Enter detail  p pause",
    };
    let text = if filter.is_empty() {
        keys.to_owned()
    } else {
        format!("{rows} rows: {filter} (x clears)  {keys}")
    };
    Line::styled(cut(&text, width), Style::new().add_modifier(Modifier::DIM))
}

const HELP: [&str; 17] = [
    "q Esc Ctrl-C  quit",
    "up down j k   choose a row; PgUp PgDn Home End",
    "Enter         the contract in full",
    "< > s         sort by the next column",
    "1 to 8        sort by this column",
    "r             turn the order round",
    "/             filter by service, class, segment",
    "d             all, egress, ingress",
    "c             all classes, or one after the other",
    "x             no filter",
    "p space       pause; again: go on",
    "?             close this",
    "",
    "Rates are bit/s of the counted layer over the",
    "last interval. CONFORM is inside the entitlement,",
    "EXCESS above it. DROPPED counts all reasons but",
    "what a device refused (see `weir status`).",
];

fn draw_help(frame: &mut Frame<'_>, area: Rect) {
    let width = area.width.min(54);
    let height = area.height.min(HELP.len() as u16 + 2);
    let place = Rect {
        x: area.x + (area.width - width) / 2,
        y: area.y + (area.height - height) / 2,
        width,
        height,
    };
    let lines: Vec<Line<'_>> = HELP.into_iter().map(Line::raw).collect();
    frame.render_widget(Clear, place);
    frame.render_widget(
        Paragraph::new(lines).block(Block::bordered().title(" weir top ")),
        place,
    );
}

/// A time in its two largest units.
pub(super) fn duration(seconds: f64) -> String {
    let seconds = seconds as u64;
    let (minutes, hours, days) = (seconds / 60, seconds / 3600, seconds / 86_400);
    match (days, hours, minutes) {
        (0, 0, 0) => format!("{seconds} s"),
        (0, 0, _) => format!("{minutes} min {} s", seconds % 60),
        (0, ..) => format!("{hours} h {} min", minutes % 60),
        _ => format!("{days} d {} h", hours % 24),
    }
}

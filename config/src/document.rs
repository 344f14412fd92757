//! The tables of all files, for the checks to go through.
//!
//! A parsed file takes ten times the memory of its text. So a configuration is read in parts: each `[[service]]`,
//! `[[contract]]` and `[[segment]]` is read when the checks ask for it and let go at once: line by line in the plain form
//! ([`plain`]), else by the toml crate. A cut through the middle of
//! something, such as a text of several lines, leaves a part that is not TOML by itself; then, as for any other error, the files
//! are read again as a whole, which tells exactly what is wrong.

use std::cell::Cell;

use toml::de::DeTable;

use crate::diagnostic::{At, Log, Source};
use crate::plain;
use crate::table::Table;

/// The files of one configuration.
pub(crate) struct Documents<'t> {
    /// The base file, if it could be read; without its `parts`.
    pub(crate) base: Option<Table<'t>>,
    /// The drop-ins that could be read, without their `parts`.
    pub(crate) drop_ins: Vec<Table<'t>>,
    /// What is parsed when it is asked for, in the order of the files. None when the files were parsed as a whole.
    pub(crate) parts: Option<Parts<'t>>,
}

/// Pieces of the texts.
pub(crate) struct Parts<'t> {
    sources: &'t [Source],
    parts: Vec<Part>,
    broken: Cell<bool>,
}

/// One `[[kind]]` with all that follows up to the next.
struct Part {
    /// Position in [`KINDS`].
    kind: u8,
    file: u32,
    start: u32,
    end: u32,
}

/// The kinds of tables that there may be many of.
pub(crate) const KINDS: [&str; 3] = ["service", "contract", "segment"];

impl Documents<'_> {
    /// How many `[[kind]]` tables there will be, to make room for them; 0 where that is not known.
    pub(crate) fn count(&self, kind: &str) -> usize {
        self.parts.as_ref().map_or(0, |parts| parts.of_kind(kind).count())
    }

    /// Gives every `[[kind]]` table of all files to `check`.
    pub(crate) fn each(
        &self,
        kind: &str,
        title: &'static str,
        log: &mut Log,
        mut check: impl FnMut(&Table<'_>, &mut Log),
    ) {
        if let Some(parts) = &self.parts {
            return parts.each(kind, title, log, check);
        }
        for file in self.base.iter().chain(&self.drop_ins) {
            for table in file.tables(kind, title, log) {
                check(&table, log);
            }
        }
    }
}

impl<'t> Parts<'t> {
    /// Finds the parts of all files; the second half of the answer is how long the text before the first part is.
    pub(crate) fn find(sources: &'t [Source]) -> (Self, Vec<usize>) {
        let mut parts: Vec<Part> = Vec::new();
        let mut heads = Vec::new();
        for (file, source) in sources.iter().enumerate() {
            let first = parts.len();
            let (mut start, text) = (0, &*source.text);
            for line in text.split_inclusive('\n') {
                if let Some(kind) = kind_of(line) {
                    if let Some(before) = parts[first..].last_mut() {
                        before.end = start as u32;
                    }
                    parts.push(Part {
                        kind: kind as u8,
                        file: file as u32,
                        start: start as u32,
                        end: text.len() as u32,
                    });
                }
                start += line.len();
            }
            heads.push(parts.get(first).map_or(text.len(), |part| part.start as usize));
        }
        let broken = Cell::new(false);
        (Self { sources, parts, broken }, heads)
    }

    /// Whether a part was not TOML by itself, or held something else than its kind: then nothing that was read is valid.
    pub(crate) fn broken(&self) -> bool {
        self.broken.get()
    }

    fn of_kind(&self, kind: &str) -> impl Iterator<Item = &Part> {
        let kind = KINDS.iter().position(|known| *known == kind);
        self.parts
            .iter()
            .filter(move |part| Some(usize::from(part.kind)) == kind)
    }

    fn each(&self, kind: &str, title: &'static str, log: &mut Log, mut check: impl FnMut(&Table<'_>, &mut Log)) {
        let mut lines = Vec::new();
        for part in self.of_kind(kind) {
            let (file, start, end) = (part.file as usize, part.start as usize, part.end as usize);
            let text = &self.sources[file].text[start..end];
            let at = At::new(file, start..end);
            if let Some(header) = plain::read(text, kind, &mut lines) {
                check(&Table::of_lines(at.within(start, header), title, &lines, start), log);
                continue;
            }
            let Ok(parsed) = DeTable::parse(text) else {
                self.broken.set(true);
                return;
            };
            let table = Table::of_part(at, parsed.get_ref(), start);
            if !table.has_only(kind) {
                self.broken.set(true);
                return;
            }
            for table in table.tables(kind, title, log) {
                check(&table, log);
            }
        }
    }
}

/// The position in [`KINDS`] of the kind of a line that is nothing but `[[kind]]`.
fn kind_of(line: &str) -> Option<usize> {
    let name = line.trim().strip_prefix("[[")?.strip_suffix("]]")?;
    KINDS.iter().position(|kind| *kind == name)
}

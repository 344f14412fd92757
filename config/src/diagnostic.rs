//! Messages about a configuration, with their places. Rendering is ariadne's, behind our own types.

use std::fmt::Write as _;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::types::Place;
use ariadne::{CharSet, Color, Config, IndexType, Label, ReportKind};

/// How bad it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Severity {
    /// Refused.
    Error,
    /// Accepted, and probably not meant.
    Warning,
    /// Accepted, and worth knowing.
    Note,
}

/// One message. Line 0 means the file as a whole, such as one that cannot be read.
#[derive(Clone, Debug)]
pub struct Diagnostic {
    /// How bad it is.
    pub severity: Severity,
    /// The file.
    pub file: PathBuf,
    /// From 1.
    pub line: usize,
    /// In characters, from 1.
    pub column: usize,
    /// Bytes of the file.
    pub span: Range<usize>,
    /// The offending text, its first line.
    pub text: String,
    /// What is wrong.
    pub message: String,
    /// What stands beside the caret.
    pub label: String,
    /// How to mend it.
    pub help: Option<String>,
    /// Other places that have to do with it.
    pub related: Vec<Related>,
    at: Option<At>,
}

/// Another place that a message speaks of.
#[derive(Clone, Debug)]
pub struct Related {
    /// The file.
    pub file: PathBuf,
    /// From 1.
    pub line: usize,
    /// In characters, from 1.
    pub column: usize,
    /// What is there.
    pub label: String,
    at: At,
}

/// All messages of one load.
#[derive(Clone, Debug, Default)]
pub struct Report {
    diagnostics: Vec<Diagnostic>,
    sources: Arc<Vec<Source>>,
}

impl Report {
    /// The messages: by severity, then as found.
    pub fn diagnostics(&self) -> &[Diagnostic] {
        &self.diagnostics
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.diagnostics.is_empty()
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.diagnostics.len()
    }

    /// Text for people; without colour it is plain ASCII but for what the files hold.
    pub fn render(&self, colour: bool) -> String {
        self.render_first(usize::MAX, colour)
    }

    /// The same of the first `most` messages, with a line about how many there are beside them.
    pub fn render_first(&self, most: usize, colour: bool) -> String {
        let mut out = String::new();
        let cache: Vec<(String, String)> = self
            .sources
            .iter()
            .map(|source| (source.path.display().to_string(), source.text.clone()))
            .collect();
        let mut cache = ariadne::sources(cache);
        for diagnostic in self.diagnostics.iter().take(most) {
            self.render_one(diagnostic, colour, &mut cache, &mut out);
        }
        let more = self.len().saturating_sub(most);
        if more > 0 {
            let _ = writeln!(out, "and {more} more: `weir check` shows all of them");
        }
        out
    }

    /// The messages as JSON.
    pub fn to_json(&self) -> serde_json::Value {
        self.diagnostics.iter().map(Diagnostic::to_json).collect()
    }

    fn render_one(
        &self,
        diagnostic: &Diagnostic,
        colour: bool,
        cache: &mut impl ariadne::Cache<String>,
        out: &mut String,
    ) {
        let (name, paint) = match diagnostic.severity {
            Severity::Error => ("error", Color::Red),
            Severity::Warning => ("warning", Color::Yellow),
            Severity::Note => ("note", Color::Cyan),
        };
        let Some(at) = diagnostic.at else {
            let _ = writeln!(
                out,
                "{name}: {}\n  in {}",
                diagnostic.message,
                diagnostic.file.display()
            );
            if let Some(help) = &diagnostic.help {
                let _ = writeln!(out, "  help: {help}");
            }
            return;
        };
        let config = Config::default()
            .with_color(colour)
            .with_char_set(CharSet::Ascii)
            .with_index_type(IndexType::Byte)
            .with_compact(false);
        let mut report = ariadne::Report::build(ReportKind::Custom(name, paint), self.span(at))
            .with_config(config)
            .with_message(&diagnostic.message);
        report = report.with_label(
            Label::new(self.span(at))
                .with_message(&diagnostic.label)
                .with_color(paint),
        );
        for (order, related) in diagnostic.related.iter().enumerate() {
            let order = i32::try_from(order).unwrap_or(i32::MAX - 1) + 1;
            report = report.with_label(
                Label::new(self.span(related.at))
                    .with_message(&related.label)
                    .with_order(order),
            );
        }
        if let Some(help) = &diagnostic.help {
            report = report.with_help(help);
        }
        let mut bytes = Vec::new();
        // Writing to memory cannot fail; a missing source is written into the text by ariadne.
        let _ = report.finish().write(&mut *cache, &mut bytes);
        let text = String::from_utf8_lossy(&bytes);
        // The kind is painted by ariadne even where the rest is plain.
        let text = if colour {
            text.into_owned()
        } else {
            without_escapes(&text)
        };
        for line in text.lines() {
            out.push_str(line.trim_end());
            out.push('\n');
        }
    }

    fn span(&self, at: At) -> (String, Range<usize>) {
        self.sources.get(at.file()).map_or_else(
            || (String::new(), 0..0),
            |source| (source.path.display().to_string(), source.first_line(at)),
        )
    }
}

/// The text without the escape sequences of colours.
fn without_escapes(text: &str) -> String {
    let mut parts = text.split('\u{1b}');
    let mut out = parts.next().unwrap_or_default().to_owned();
    for part in parts {
        out.push_str(
            part.split_once('m')
                .filter(|(colour, _)| colour.starts_with('['))
                .map_or(part, |(_, rest)| rest),
        );
    }
    out
}

impl Diagnostic {
    fn to_json(&self) -> serde_json::Value {
        let related: Vec<_> = self
            .related
            .iter()
            .map(|r| serde_json::json!({ "file": r.file.to_string_lossy(), "line": r.line, "column": r.column, "label": r.label }))
            .collect();
        serde_json::json!({
            "severity": match self.severity { Severity::Error => "error", Severity::Warning => "warning", Severity::Note => "note" },
            "file": self.file.to_string_lossy(), "line": self.line, "column": self.column,
            "span": [self.span.start, self.span.end], "text": self.text,
            "message": self.message, "label": self.label, "help": self.help, "related": related,
        })
    }
}

impl std::fmt::Display for Report {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.render(false))
    }
}

impl std::error::Error for Report {}

/// A place: file by index, bytes by offset. In 32 bits each, because hundreds of thousands are kept while a configuration is
/// checked; a file has 64 MiB at most.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct At {
    file: u32,
    start: u32,
    end: u32,
}

impl At {
    pub(crate) fn new(file: usize, bytes: Range<usize>) -> Self {
        At {
            file: file as u32,
            start: bytes.start as u32,
            end: bytes.end as u32,
        }
    }

    /// The place of `bytes` of a text that begins at byte `base` of the same file.
    pub(crate) fn within(self, base: usize, bytes: Range<usize>) -> Self {
        At {
            file: self.file,
            start: (base + bytes.start) as u32,
            end: (base + bytes.end) as u32,
        }
    }

    pub(crate) fn file(self) -> usize {
        self.file as usize
    }
}

/// A file's text with the starts of its lines.
#[derive(Clone, Debug)]
pub(crate) struct Source {
    pub(crate) path: PathBuf,
    pub(crate) text: String,
    lines: Vec<u32>,
    name: Arc<Path>,
}

impl Source {
    pub(crate) fn new(path: PathBuf, text: String) -> Self {
        let mut lines: Vec<u32> = std::iter::once(0)
            .chain(text.match_indices('\n').map(|(at, _)| at as u32 + 1))
            .collect();
        lines.shrink_to_fit();
        Source {
            name: path.as_path().into(),
            path,
            text,
            lines,
        }
    }

    /// Line and column, both from 1.
    pub(crate) fn line_column(&self, at: At) -> (usize, usize) {
        let start = self.floor(at.start as usize);
        let line = self.lines.partition_point(|&begin| begin as usize <= start).max(1);
        let begin = self.lines.get(line - 1).copied().unwrap_or(0) as usize;
        (
            line,
            self.text
                .get(begin..start)
                .map_or(1, |before| before.chars().count() + 1),
        )
    }

    fn floor(&self, mut offset: usize) -> usize {
        offset = offset.min(self.text.len());
        while !self.text.is_char_boundary(offset) {
            offset -= 1;
        }
        offset
    }

    /// The part of the place in its first line, within the text and on character boundaries.
    fn first_line(&self, at: At) -> Range<usize> {
        let (start, end) = (self.floor(at.start as usize), self.floor(at.end as usize));
        let end = end.max(start);
        let line_end = self.text[start..end]
            .find(['\n', '\r'])
            .map_or(end, |offset| start + offset);
        start..line_end
    }
}

/// A message before its place is looked up.
#[derive(Debug)]
pub(crate) struct Problem {
    at: At,
    message: String,
    label: String,
    help: Option<String>,
    also: Vec<(At, String)>,
}

impl Problem {
    pub(crate) fn new(at: At, message: impl Into<String>) -> Self {
        Problem {
            at,
            message: message.into(),
            label: "here".to_owned(),
            help: None,
            also: Vec::new(),
        }
    }

    pub(crate) fn label(mut self, label: impl Into<String>) -> Self {
        self.label = label.into();
        self
    }

    pub(crate) fn help(mut self, help: impl Into<String>) -> Self {
        self.help = Some(help.into());
        self
    }

    pub(crate) fn also(mut self, at: At, label: impl Into<String>) -> Self {
        self.also.push((at, label.into()));
        self
    }
}

/// Collects messages.
#[derive(Debug)]
pub(crate) struct Log {
    pub(crate) sources: Arc<Vec<Source>>,
    diagnostics: Vec<Diagnostic>,
    /// How many more did-you-mean searches are made: each looks at every known name.
    pub(crate) searches_left: usize,
}

impl Log {
    pub(crate) fn new(sources: Arc<Vec<Source>>) -> Self {
        Log {
            sources,
            diagnostics: Vec::new(),
            searches_left: 200,
        }
    }

    pub(crate) fn error(&mut self, problem: Problem) {
        self.push(Severity::Error, problem);
    }

    pub(crate) fn warning(&mut self, problem: Problem) {
        self.push(Severity::Warning, problem);
    }

    pub(crate) fn note(&mut self, problem: Problem) {
        self.push(Severity::Note, problem);
    }

    /// About a file that cannot be read.
    pub(crate) fn unreadable(&mut self, path: &Path, message: String, help: &str) {
        self.diagnostics.push(Diagnostic {
            severity: Severity::Error,
            file: path.to_owned(),
            line: 0,
            column: 0,
            span: 0..0,
            text: String::new(),
            message,
            label: String::new(),
            help: Some(help.to_owned()),
            related: Vec::new(),
            at: None,
        });
    }

    pub(crate) fn has_errors(&self) -> bool {
        self.diagnostics
            .iter()
            .any(|diagnostic| diagnostic.severity == Severity::Error)
    }

    pub(crate) fn line_column(&self, at: At) -> (usize, usize) {
        self.sources
            .get(at.file())
            .map_or((0, 0), |source| source.line_column(at))
    }

    /// The place for later, when the texts are gone.
    pub(crate) fn place(&self, at: At) -> Place {
        let (line, column) = self.line_column(at);
        let file = self.sources.get(at.file()).map(|source| source.name.clone());
        Place {
            file: file.unwrap_or_else(|| Path::new("").into()),
            line,
            column,
        }
    }

    pub(crate) fn into_report(mut self) -> Report {
        self.diagnostics.sort_by_key(|diagnostic| diagnostic.severity);
        // Texts that no message speaks of need not be kept: they can be tens of megabytes.
        let sources = if self.diagnostics.is_empty() {
            Arc::default()
        } else {
            self.sources
        };
        Report {
            diagnostics: self.diagnostics,
            sources,
        }
    }

    fn push(&mut self, severity: Severity, problem: Problem) {
        let Some(source) = self.sources.get(problem.at.file()) else {
            return;
        };
        let (line, column) = source.line_column(problem.at);
        let span = source.first_line(problem.at);
        let related = problem.also.into_iter().filter_map(|(at, label)| {
            let source = self.sources.get(at.file())?;
            let (line, column) = source.line_column(at);
            Some(Related {
                file: source.path.clone(),
                line,
                column,
                label,
                at,
            })
        });
        let diagnostic = Diagnostic {
            severity,
            file: source.path.clone(),
            line,
            column,
            text: source.text.get(span.clone()).unwrap_or_default().to_owned(),
            span,
            message: problem.message,
            label: problem.label,
            help: problem.help,
            related: related.collect(),
            at: Some(problem.at),
        };
        self.diagnostics.push(diagnostic);
    }
}

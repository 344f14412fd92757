//! Spanned TOML tables, read key by key: each wrong value is reported and the reading goes on.

use std::borrow::Cow;
use std::collections::HashMap;
use std::ops::Range;

use foldhash::fast::RandomState;
use toml::de::{DeTable, DeValue};

use crate::diagnostic::{At, Log, Problem};
use crate::plain::Line;
use crate::types::{KeyPlaces, Word};
use crate::units::UnitError;

/// A table of a file.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Table<'t> {
    /// The header, or the braces.
    pub(crate) at: At,
    /// As written: `[[port]]`.
    pub(crate) title: &'static str,
    inner: Inner<'t>,
    /// Where in the file the text begins that was parsed.
    base: usize,
}

/// The keys of a table, by whichever of the two they were read.
#[derive(Clone, Copy, Debug)]
enum Inner<'t> {
    Tree(&'t DeTable<'t>),
    Lines(&'t [Line<'t>]),
}

/// A value with its place.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Value<'t> {
    pub(crate) at: At,
    pub(crate) key: &'t str,
    inner: &'t DeValue<'t>,
    base: usize,
}

impl<'t> Table<'t> {
    pub(crate) fn new(at: At, title: &'static str, inner: &'t DeTable<'t>) -> Self {
        Table {
            at,
            title,
            inner: Inner::Tree(inner),
            base: 0,
        }
    }

    /// A table that was read line by line, of a part that begins at byte `base` of its file.
    pub(crate) fn of_lines(at: At, title: &'static str, lines: &'t [Line<'t>], base: usize) -> Self {
        Table {
            at,
            title,
            inner: Inner::Lines(lines),
            base,
        }
    }

    /// The table of a text that begins at byte `base` of its file.
    pub(crate) fn of_part(at: At, inner: &'t DeTable<'t>, base: usize) -> Self {
        Table {
            at,
            title: "the top level",
            inner: Inner::Tree(inner),
            base,
        }
    }

    /// Whether there is exactly one key, and it is `key`.
    pub(crate) fn has_only(&self, key: &str) -> bool {
        let keys = match self.inner {
            Inner::Tree(table) => table.len(),
            Inner::Lines(lines) => lines.len(),
        };
        keys == 1 && self.get(key).is_some()
    }

    /// The value of a key that may be left out.
    pub(crate) fn get(&self, key: &str) -> Option<Value<'t>> {
        let (key, at, inner) = match self.inner {
            Inner::Tree(table) => {
                let (key, value) = table.get_key_value(key)?;
                (&**key.get_ref(), value.span(), value.get_ref())
            }
            Inner::Lines(lines) => {
                let line = lines.iter().find(|line| line.key == key)?;
                (line.key, line.value_at.clone(), &line.value)
            }
        };
        Some(Value {
            at: self.at.within(self.base, at),
            key,
            inner,
            base: self.base,
        })
    }

    /// Where those of `keys` are written that are there.
    pub(crate) fn places(&self, keys: &[&'static str], log: &Log) -> KeyPlaces {
        let place = |key: &&'static str| Some((*key, log.place(self.get(key)?.at)));
        KeyPlaces(keys.iter().filter_map(place).collect())
    }

    /// The value of a key that must be there.
    pub(crate) fn require(&self, key: &str, example: &str, log: &mut Log) -> Option<Value<'t>> {
        let value = self.get(key);
        if value.is_none() {
            let problem = Problem::new(self.at, format!("{} has no `{key}`", self.title));
            log.error(
                problem
                    .label("it is required here")
                    .help(format!("add: {key} = {example}")),
            );
        }
        value
    }

    /// Reports every key that is not one of `known`.
    pub(crate) fn refuse_unknown(&self, known: &[&str], log: &mut Log) {
        match self.inner {
            Inner::Tree(table) => {
                for (key, _) in table {
                    self.refuse_if_unknown(key.get_ref(), key.span(), known, log);
                }
            }
            Inner::Lines(lines) => {
                for line in lines {
                    self.refuse_if_unknown(line.key, line.key_at.clone(), known, log);
                }
            }
        }
    }

    fn refuse_if_unknown(&self, name: &str, at: Range<usize>, known: &[&str], log: &mut Log) {
        if known.contains(&name) {
            return;
        }
        let help = nearest(name, known.iter().copied()).map_or_else(
            || format!("known keys are {}", list(known.iter().copied())),
            |near| format!("did you mean `{near}`?"),
        );
        let problem = Problem::new(
            self.at.within(self.base, at),
            format!("unknown key `{name}` in {}", self.title),
        );
        log.error(problem.label("not a key of this table").help(help));
    }

    /// The tables of an array of tables.
    pub(crate) fn tables(&self, key: &str, title: &'static str, log: &mut Log) -> Vec<Table<'t>> {
        let Some(value) = self.get(key) else { return Vec::new() };
        let DeValue::Array(array) = value.inner else {
            let problem = Problem::new(
                value.at,
                format!("`{key}` must be an array of tables, found {}", value.kind()),
            );
            log.error(problem.help(format!("write {title} above its keys")));
            return Vec::new();
        };
        let elements = array.iter().map(|element| Value {
            at: self.at.within(self.base, element.span()),
            key: value.key,
            inner: element.get_ref(),
            base: self.base,
        });
        elements.filter_map(|element| element.table(title, log)).collect()
    }
}

impl<'t> Value<'t> {
    /// What TOML calls it.
    pub(crate) fn kind(&self) -> &'static str {
        match self.inner {
            DeValue::String(_) => "a string",
            DeValue::Integer(_) => "an integer",
            DeValue::Float(_) => "a float",
            DeValue::Boolean(_) => "a boolean",
            DeValue::Datetime(_) => "a date-time",
            DeValue::Array(_) => "an array",
            DeValue::Table(_) => "a table",
        }
    }

    pub(crate) fn as_str(&self) -> Option<&'t str> {
        if let DeValue::String(text) = self.inner {
            Some(text)
        } else {
            None
        }
    }

    pub(crate) fn as_float(&self) -> Option<&'t str> {
        if let DeValue::Float(float) = self.inner {
            Some(float.as_str())
        } else {
            None
        }
    }

    pub(crate) fn as_datetime(&self) -> Option<&'t toml::value::Datetime> {
        if let DeValue::Datetime(datetime) = self.inner {
            Some(datetime)
        } else {
            None
        }
    }

    pub(crate) fn is_integer(&self) -> bool {
        matches!(self.inner, DeValue::Integer(_))
    }

    pub(crate) fn string(&self, log: &mut Log) -> Option<&'t str> {
        self.as_str()
            .or_else(|| self.wrong_type("a string", "put it in double quotes", log))
    }

    pub(crate) fn boolean(&self, log: &mut Log) -> Option<bool> {
        if let DeValue::Boolean(value) = *self.inner {
            return Some(value);
        }
        self.wrong_type("a boolean", "write true or false without quotes", log)
    }

    /// An integer within `min..=max`.
    pub(crate) fn integer(&self, min: u64, max: u64, log: &mut Log) -> Option<u64> {
        let DeValue::Integer(integer) = self.inner else {
            return self.wrong_type("an integer", &format!("write a number from {min} to {max}"), log);
        };
        let value = u64::from_str_radix(integer.as_str().trim_start_matches('+'), integer.radix());
        let value = value.ok().filter(|value| (min..=max).contains(value));
        if value.is_none() {
            let problem = Problem::new(self.at, format!("`{}` is out of range: {integer}", self.key));
            log.error(
                problem
                    .label("out of range")
                    .help(format!("it must be from {min} to {max}")),
            );
        }
        value
    }

    pub(crate) fn array(&self, log: &mut Log) -> Option<Vec<Value<'t>>> {
        let DeValue::Array(array) = self.inner else {
            return self.wrong_type("an array", "put it in square brackets", log);
        };
        let value = |span: Range<usize>, inner| Value {
            at: self.at.within(self.base, span),
            key: self.key,
            inner,
            base: self.base,
        };
        Some(
            array
                .iter()
                .map(|element| value(element.span(), element.get_ref()))
                .collect(),
        )
    }

    pub(crate) fn table(&self, title: &'static str, log: &mut Log) -> Option<Table<'t>> {
        match self.inner {
            DeValue::Table(inner) => Some(Table {
                at: self.at,
                title,
                inner: Inner::Tree(inner),
                base: self.base,
            }),
            _ => self.wrong_type("a table", &format!("write {title} above its keys"), log),
        }
    }

    /// One of the words of a type.
    pub(crate) fn word<W: Word>(&self, log: &mut Log) -> Option<W> {
        let text = self.string(log)?;
        let found = W::WORDS.iter().find(|(word, _)| *word == text).map(|&(_, value)| value);
        if found.is_none() {
            let words = || W::WORDS.iter().map(|(word, _)| *word);
            let known = words().map(|word| format!("\"{word}\"")).collect::<Vec<_>>().join(", ");
            let hint = nearest(text, words())
                .map(|near| format!("did you mean \"{near}\"? "))
                .unwrap_or_default();
            let problem = Problem::new(self.at, format!("`{}` cannot be \"{}\"", self.key, text.escape_debug()));
            log.error(
                problem
                    .label("not one of the words")
                    .help(format!("{hint}it is one of {known}")),
            );
        }
        found
    }

    /// A name: 1 to 64 characters, no control characters, no white space at the ends.
    pub(crate) fn name(&self, log: &mut Log) -> Option<&'t str> {
        let text = self.string(log)?;
        let fine = !text.is_empty()
            && text.chars().count() <= 64
            && text.trim() == text
            && !text.chars().any(char::is_control);
        if fine {
            return Some(text);
        }
        let problem = Problem::new(self.at, format!("`{}` is not a name", self.key)).label("not a name");
        log.error(
            problem.help("a name has 1 to 64 characters, none of them a control character, and no blanks at its ends"),
        );
        None
    }

    /// Takes the result of a parser of units, or reports its error here.
    pub(crate) fn parsed<T>(&self, result: Result<T, UnitError>, log: &mut Log) -> Option<T> {
        match result {
            Ok(value) => Some(value),
            Err(error) => {
                let message = format!(
                    "`{}`: {}",
                    self.key,
                    error.message.escape_debug().to_string().replace("\\\"", "\"")
                );
                log.error(Problem::new(self.at, message).label("not understood").help(error.help));
                None
            }
        }
    }

    pub(crate) fn wrong_type<T>(&self, wanted: &str, help: &str, log: &mut Log) -> Option<T> {
        let problem = Problem::new(
            self.at,
            format!("`{}` must be {wanted}, found {}", self.key, self.kind()),
        );
        log.error(problem.label(format!("this is {}", self.kind())).help(help));
        None
    }
}

/// The names of one kind of thing, each with its index and place.
#[derive(Debug)]
pub(crate) struct Names<'t> {
    /// `service`, for messages.
    kind: &'static str,
    known: HashMap<Cow<'t, str>, (u32, At), RandomState>,
    /// False when some files could not be read, so that a missing name means nothing.
    whole: bool,
}

impl<'t> Names<'t> {
    pub(crate) fn new(kind: &'static str, whole: bool) -> Self {
        Self::with_capacity(kind, whole, 0)
    }

    pub(crate) fn with_capacity(kind: &'static str, whole: bool, count: usize) -> Self {
        Names {
            kind,
            known: HashMap::with_capacity_and_hasher(count, RandomState::default()),
            whole,
        }
    }

    /// Takes a name in; a second one of the same is an error at both places.
    pub(crate) fn add(&mut self, value: Value<'_>, name: impl Into<Cow<'t, str>>, index: usize, log: &mut Log) {
        let name = name.into();
        if let Some(&(_, first)) = self.known.get(&name) {
            let problem = Problem::new(
                value.at,
                format!("two {} have the {} \"{name}\"", plural(self.kind), value.key),
            );
            log.error(
                problem
                    .label("again")
                    .also(first, "first here")
                    .help("give each its own"),
            );
            return;
        }
        // More than 2^32 names do not fit the files.
        self.known.insert(name, (index as u32, value.at));
    }

    /// The index of the thing that a value names.
    pub(crate) fn find(&self, value: Value<'_>, name: &str, log: &mut Log) -> Option<usize> {
        if let Some(&(index, _)) = self.known.get(name) {
            return Some(index as usize);
        }
        if !self.whole {
            return None;
        }
        let problem = Problem::new(
            value.at,
            format!("there is no {} \"{}\"", self.kind, name.escape_debug()),
        );
        let mut known: Vec<(u32, &str)> = self.known.iter().map(|(name, (index, _))| (*index, &**name)).collect();
        known.sort_unstable();
        let known = known.iter().map(|&(_, name)| name);
        let mut near = None;
        if log.searches_left > 0 {
            log.searches_left -= 1;
            near = nearest(name, known.clone());
        }
        let hint = near
            .map(|near| format!("did you mean \"{near}\"? "))
            .unwrap_or_default();
        let known = if self.known.is_empty() {
            "none is defined".to_owned()
        } else {
            format!("known are {}", list(known))
        };
        log.error(problem.label("unknown").help(format!("{hint}{known}")));
        None
    }
}

/// At most eight of the names, and how many more there are.
pub(crate) fn list<'a>(names: impl Iterator<Item = &'a str> + Clone) -> String {
    let total = names.clone().count();
    let shown = names
        .take(8)
        .map(|name| format!("`{name}`"))
        .collect::<Vec<_>>()
        .join(", ");
    if total > 8 {
        format!("{shown} and {} more", total - 8)
    } else {
        shown
    }
}

fn plural(kind: &str) -> String {
    if kind.ends_with('s') {
        format!("{kind}es")
    } else {
        format!("{kind}s")
    }
}

/// The known name nearest to `name`, when it is near enough to be a slip.
pub fn nearest<'a>(name: &str, known: impl Iterator<Item = &'a str>) -> Option<&'a str> {
    let limit = (name.chars().count() / 3).max(1);
    if name.len() > 256 {
        return None;
    }
    let near = known.filter(|other| other.len().abs_diff(name.len()) <= limit * 4);
    near.map(|other| (distance(name, other), other))
        .filter(|&(far, _)| far <= limit)
        .min()
        .map(|(_, other)| other)
}

/// Edit distance where swapping two neighbours costs one; case costs nothing.
fn distance(a: &str, b: &str) -> usize {
    let a: Vec<char> = a.to_lowercase().chars().collect();
    let b: Vec<char> = b.to_lowercase().chars().collect();
    let mut rows = vec![vec![0; b.len() + 1]; a.len() + 1];
    for (i, row) in rows.iter_mut().enumerate() {
        row[0] = i;
    }
    for (j, cell) in rows[0].iter_mut().enumerate() {
        *cell = j;
    }
    for i in 1..=a.len() {
        for j in 1..=b.len() {
            let change = rows[i - 1][j - 1] + usize::from(a[i - 1] != b[j - 1]);
            let mut best = change.min(rows[i - 1][j] + 1).min(rows[i][j - 1] + 1);
            if i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1] {
                best = best.min(rows[i - 2][j - 2] + 1);
            }
            rows[i][j] = best;
        }
    }
    rows[a.len()][b.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slips_are_recognised() {
        let known = ["service", "class", "region"];
        assert_eq!(nearest("serivce", known.into_iter()), Some("service"));
        assert_eq!(nearest("Class", known.into_iter()), Some("class"));
        assert_eq!(nearest("weight", known.into_iter()), None);
    }
}

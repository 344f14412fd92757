//! The files of a machine, under a root.

use std::fs;
use std::path::{Path, PathBuf};

/// `/`, or a directory that a test has filled.
#[derive(Clone, Debug)]
pub(super) struct Root(PathBuf);

impl Root {
    pub(super) fn new(path: &Path) -> Self {
        Self(path.to_owned())
    }

    /// Whether this is the machine itself, so that the kernel may be asked too.
    pub(super) fn is_real(&self) -> bool {
        self.0 == Path::new("/")
    }

    pub(super) fn path(&self, path: &str) -> PathBuf {
        self.0.join(path)
    }

    pub(super) fn exists(&self, path: &str) -> bool {
        self.path(path).exists()
    }

    pub(super) fn text(&self, path: &str) -> Option<String> {
        fs::read_to_string(self.path(path)).ok()
    }

    /// The text of a file of one line; `None` if it is missing, empty or not to be read.
    pub(super) fn line(&self, path: &str) -> Option<String> {
        let text = self.text(path)?;
        let text = text.trim();
        (!text.is_empty()).then(|| text.to_owned())
    }

    pub(super) fn number<T: std::str::FromStr>(&self, path: &str) -> Option<T> {
        self.line(path)?.parse().ok()
    }

    /// The numbers of a list such as `0-3,8`; none if there is no such file.
    pub(super) fn list(&self, path: &str) -> Vec<usize> {
        self.line(path).map(|line| numbers(&line)).unwrap_or_default()
    }

    /// The names in a directory, in order.
    pub(super) fn names(&self, path: &str) -> Vec<String> {
        let entries = fs::read_dir(self.path(path)).into_iter().flatten().flatten();
        let mut names: Vec<String> = entries.map(|e| e.file_name().to_string_lossy().into_owned()).collect();
        names.sort();
        names
    }

    /// The last part of what a link points to.
    pub(super) fn link(&self, path: &str) -> Option<String> {
        let target = fs::read_link(self.path(path)).ok()?;
        Some(target.file_name()?.to_string_lossy().into_owned())
    }
}

/// The numbers of a list such as `0-3,8`. What is no number is left out; a range of more than 4,096 is cut off there.
pub(super) fn numbers(list: &str) -> Vec<usize> {
    const MOST: usize = 4096;
    let number = |text: &str| text.trim().parse::<usize>().ok();
    let range = |part: &str| match part.split_once('-') {
        Some((first, last)) => number(first).zip(number(last)),
        None => number(part).map(|n| (n, n)),
    };
    let ranges = list.split(',').filter_map(range);
    ranges.flat_map(|(first, last)| (first..=last).take(MOST)).collect()
}

/// A list as people write it: `0-3,8`.
pub(super) fn list_text(numbers: &[usize]) -> String {
    let mut parts: Vec<(usize, usize)> = Vec::new();
    for &number in numbers {
        match parts.last_mut() {
            Some((_, last)) if *last + 1 == number => *last = number,
            _ => parts.push((number, number)),
        }
    }
    let text = |&(first, last): &(usize, usize)| match first == last {
        true => first.to_string(),
        false => format!("{first}-{last}"),
    };
    parts.iter().map(text).collect::<Vec<_>>().join(",")
}

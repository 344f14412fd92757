//! The Markdown of the repository, as its tests see it: fenced blocks, links, headings.
//!
//! A block's first line says what may be done with it:
//!
//! | mark | meaning |
//! | --- | --- |
//! | `sh run` | run by the tests, in the order of the page, as root in namespaces of its own |
//! | `sh run setup` | the same; and first of all for a page that says `<!-- runs after PAGE -->` |
//! | `sh run status=3` | its last command ends with this status |
//! | `output` | what the block before it prints, at least: see [`missing_line`] |
//! | `sh` | not run; the page says why |
//! | `toml` | configuration, whole or in part: valid |

use std::path::{Path, PathBuf};

/// A fenced block of a page.
#[derive(Clone, Debug)]
pub struct Block {
    /// Line of its fence, from 1.
    pub line: usize,
    /// The words behind the fence.
    pub info: Vec<String>,
    /// What stands between the fences.
    pub text: String,
}

impl Block {
    /// Whether the first line has this word.
    #[must_use]
    pub fn is(&self, word: &str) -> bool {
        self.info.iter().any(|info| info == word)
    }

    /// Exit status that its last command must have.
    #[must_use]
    pub fn status(&self) -> i32 {
        let wanted = self.info.iter().find_map(|info| info.strip_prefix("status="));
        wanted.and_then(|status| status.parse().ok()).unwrap_or(0)
    }
}

/// Root of the repository.
#[must_use]
pub fn repository() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..").components().collect()
}

/// Every Markdown file of the repository, sorted.
///
/// # Panics
///
/// When a directory cannot be read.
#[must_use]
pub fn pages() -> Vec<PathBuf> {
    let mut pages = Vec::new();
    let mut directories = vec![repository()];
    while let Some(directory) = directories.pop() {
        for entry in std::fs::read_dir(&directory).expect("a directory of the repository") {
            let path = entry.expect("an entry of it").path();
            let name = path
                .file_name()
                .map(|name| name.to_string_lossy().into_owned())
                .unwrap_or_default();
            if path.is_dir() && name != "target" && !name.starts_with('.') {
                directories.push(path);
            } else if name.ends_with(".md") {
                pages.push(path);
            }
        }
    }
    pages.sort();
    pages
}

/// All fenced blocks, in order. Fences within list items may be indented.
#[must_use]
pub fn blocks(page: &str) -> Vec<Block> {
    let mut blocks = Vec::new();
    let mut open: Option<Block> = None;
    for (number, line) in page.lines().enumerate() {
        match (open.take(), line.trim_start().strip_prefix("```")) {
            (Some(block), Some(_)) => blocks.push(block),
            (Some(mut block), None) => {
                block.text += line;
                block.text.push('\n');
                open = Some(block);
            }
            (None, Some(info)) => {
                open = Some(Block {
                    line: number + 1,
                    info: info.split_whitespace().map(str::to_owned).collect(),
                    text: String::new(),
                });
            }
            (None, None) => {}
        }
    }
    blocks
}

/// The page without its code: fenced and indented blocks, and `code` within a line.
#[must_use]
pub fn prose(page: &str) -> String {
    let mut prose = String::new();
    let mut fenced = false;
    for line in page.lines() {
        let is_fence = line.trim_start().starts_with("```");
        fenced ^= is_fence;
        if !fenced && !is_fence && !line.starts_with("    ") {
            let outside = line.split('`').step_by(2);
            prose += &outside.collect::<Vec<_>>().join("code");
        }
        prose.push('\n');
    }
    prose
}

/// Targets of all links and images, with the line of each, from 1.
#[must_use]
pub fn links(page: &str) -> Vec<(usize, String)> {
    let mut links = Vec::new();
    for (number, line) in prose(page).lines().enumerate() {
        for piece in line.split("](").skip(1) {
            if let Some((target, _)) = piece.split_once(')') {
                links.push((
                    number + 1,
                    target.split_whitespace().next().unwrap_or_default().to_owned(),
                ));
            }
        }
    }
    links
}

/// The anchors of all headings, as code hosts and mdBook make them: lower case, blanks to hyphens, punctuation gone.
#[must_use]
pub fn anchors(page: &str) -> Vec<String> {
    let mut fenced = false;
    let mut anchors: Vec<String> = Vec::new();
    for line in page.lines() {
        fenced ^= line.trim_start().starts_with("```");
        let heading = line.trim_start_matches('#');
        if fenced || heading.len() == line.len() || !heading.starts_with(' ') {
            continue;
        }
        let kept = heading.trim().to_lowercase();
        let kept = kept
            .chars()
            .filter(|letter| letter.is_alphanumeric() || matches!(letter, ' ' | '-' | '_'));
        let anchor = kept.collect::<String>().replace(' ', "-");
        let same = anchors.iter().filter(|other| **other == anchor).count();
        anchors.push(if same == 0 { anchor } else { format!("{anchor}-{same}") });
    }
    anchors
}

/// The first line of `wanted` that `printed` lacks; lines have to come in order, others may stand between them.
///
/// A word with a digit in it stands for any such word, a unit for its multiples, and the words of a line need only be there in
/// their order: times, rates and counts differ, and columns with them.
#[must_use]
pub fn missing_line<'a>(wanted: &'a str, printed: &str) -> Option<&'a str> {
    let words = |line: &str| -> Vec<String> { line.split_whitespace().map(word_to_compare).collect() };
    let mut lines = printed.lines().map(words);
    wanted.lines().find(|line| {
        let wanted = words(line);
        !lines.any(|line| {
            let mut line = line.iter();
            wanted.iter().all(|word| line.any(|other| other == word))
        })
    })
}

/// What is compared of a word.
fn word_to_compare(word: &str) -> String {
    if word.contains(|letter: char| letter.is_ascii_digit()) {
        return "0".to_owned();
    }
    let word = word.trim_matches(|letter| ",;:.()".contains(letter));
    let unit = word.trim_start_matches(['k', 'K', 'M', 'G', 'm', 'u']);
    let is_unit = ["B", "bit/s", "s", "Bytes", "bits/sec"].contains(&unit);
    if is_unit { unit } else { word }.to_owned()
}

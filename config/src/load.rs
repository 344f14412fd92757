//! Reads the base file and the drop-ins beside it, and hands their tables to the checks.

use std::fs::File;
use std::io::Read as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use toml::de::DeTable;

use crate::check;
use crate::diagnostic::{At, Log, Problem, Report, Source};
use crate::document::{Documents, KINDS, Parts};
use crate::table::Table;
use crate::types::Config;

/// A configuration that is in order.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Loaded {
    /// The checked configuration.
    pub config: Config,
    /// Warnings and notes.
    pub warnings: Report,
    /// The files read: the base file, then the drop-ins in order.
    pub files: Vec<PathBuf>,
}

/// Reads `path` and the `contracts.d/*.toml` beside it, in lexical order; names that begin with a dot are left out.
///
/// # Errors
///
/// Every error of all files.
pub fn load(path: &Path) -> Result<Loaded, Report> {
    Texts::read(path).into_loaded()
}

/// The files of a configuration as they were at one moment: what is compared, kept and gone back to.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Texts {
    /// The base file first, if it could be read, then the drop-ins in order.
    files: Vec<(PathBuf, Vec<u8>)>,
    base_read: bool,
    unreadable: Vec<(PathBuf, String)>,
}

impl Texts {
    /// Reads what [`load()`] reads. What cannot be read is said by [`load`](Self::load).
    pub fn read(path: &Path) -> Self {
        let mut unreadable = Vec::new();
        let paths = config_paths(path).unwrap_or_else(|(directory, error)| {
            unreadable.push((directory, format!("cannot read the directory: {error}")));
            vec![path.to_owned()]
        });
        let mut files = Vec::new();
        for file in paths {
            match read(&file) {
                Ok(bytes) => files.push((file, bytes)),
                Err(error) => unreadable.push((file, format!("cannot read the file: {error}"))),
            }
        }
        let base_read = files.first().is_some_and(|(file, _)| file == path);
        Self {
            files,
            base_read,
            unreadable,
        }
    }

    /// The same from memory: the base file, then the drop-ins.
    pub fn new(files: Vec<(PathBuf, Vec<u8>)>) -> Self {
        Self {
            base_read: !files.is_empty(),
            files,
            unreadable: Vec::new(),
        }
    }

    /// Each file with its content.
    pub fn files(&self) -> &[(PathBuf, Vec<u8>)] {
        &self.files
    }

    /// Checks them.
    ///
    /// # Errors
    ///
    /// Every error of all files.
    pub fn load(&self) -> Result<Loaded, Report> {
        self.clone().into_loaded()
    }

    /// The same where the texts are not needed any more.
    ///
    /// # Errors
    ///
    /// Every error of all files.
    pub fn into_loaded(self) -> Result<Loaded, Report> {
        load_bytes(self.files, self.base_read, &self.unreadable)
    }
}

/// The files that [`load()`] reads for `path`.
///
/// # Errors
///
/// The directory of drop-ins that cannot be read, and why.
pub fn config_paths(path: &Path) -> Result<Vec<PathBuf>, (PathBuf, std::io::Error)> {
    let beside = path.parent().unwrap_or(Path::new("")).join("contracts.d");
    let mut files = vec![path.to_owned()];
    match drop_in_paths(&beside) {
        Ok(found) => files.extend(found),
        Err(error) => return Err((beside, error)),
    }
    Ok(files)
}

/// The same from texts; nothing is read.
///
/// # Errors
///
/// Every error of all texts.
pub fn load_texts(base: (&Path, &str), drop_ins: &[(PathBuf, String)]) -> Result<Loaded, Report> {
    let base = (base.0.to_owned(), base.1.as_bytes().to_vec());
    let texts: Vec<_> = std::iter::once(base)
        .chain(
            drop_ins
                .iter()
                .map(|(path, text)| (path.clone(), text.as_bytes().to_vec())),
        )
        .collect();
    load_bytes(texts, true, &[])
}

fn load_bytes(
    texts: Vec<(PathBuf, Vec<u8>)>,
    base_read: bool,
    unreadable: &[(PathBuf, String)],
) -> Result<Loaded, Report> {
    let (mut sources, mut not_text, mut files) = (Vec::new(), Vec::new(), Vec::new());
    for (path, bytes) in texts {
        let length = bytes.len();
        let text = valid_text(bytes);
        not_text.push(text.len() < length);
        sources.push(Source::new(path.clone(), text));
        files.push(path);
    }
    let sources = Arc::new(sources);
    if base_read && unreadable.is_empty() && !not_text.contains(&true) {
        let mut log = Log::new(Arc::clone(&sources));
        if let Some(config) = check_parts(&sources, &mut log) {
            let warnings = log.into_report();
            return Ok(Loaded {
                config,
                warnings,
                files,
            });
        }
    }
    let mut log = Log::new(Arc::clone(&sources));
    for (path, message) in unreadable {
        log.unreadable(
            path,
            message.clone(),
            "check that it exists, is a file of text, and may be read by this user",
        );
    }
    let mut parsed = Vec::new();
    for (file, (source, not_text)) in sources.iter().zip(not_text).enumerate() {
        let end = source.text.len();
        if not_text {
            let problem = Problem::new(At::new(file, end..end), "the file is not UTF-8");
            log.error(
                problem
                    .label("the first byte that is not")
                    .help("save the file as UTF-8"),
            );
            continue;
        }
        let (table, errors) = DeTable::parse_recoverable(&source.text);
        if errors.is_empty() {
            parsed.push((file, table));
        }
        for error in errors {
            let span = error.span().unwrap_or(end..end);
            let problem = Problem::new(At::new(file, span), format!("not TOML: {}", error.message()));
            log.error(problem.help(syntax_help(error.message())));
        }
    }
    let whole = parsed.len() == sources.len() && unreadable.is_empty();
    let mut tables = parsed.iter().map(|(file, table)| top_level(*file, table)).peekable();
    let documents = Documents {
        base: tables.next_if(|table| base_read && table.at.file() == 0),
        drop_ins: tables.collect(),
        parts: None,
    };
    match check::check(&documents, whole, &mut log) {
        Some(config) if !log.has_errors() => {
            let warnings = log.into_report();
            Ok(Loaded {
                config,
                warnings,
                files,
            })
        }
        _ => Err(log.into_report()),
    }
}

/// The configuration, read in parts; `None` when anything at all is wrong with it, for then it is better read as a whole.
fn check_parts(sources: &[Source], log: &mut Log) -> Option<Config> {
    let (parts, heads) = Parts::find(sources);
    let heads = sources.iter().zip(heads);
    let parsed = heads.map(|(source, head)| DeTable::parse(&source.text[..head]).ok());
    let parsed: Vec<_> = parsed.collect::<Option<_>>()?;
    let mut tables = parsed.iter().enumerate().map(|(file, table)| top_level(file, table));
    if tables
        .clone()
        .any(|table| KINDS.into_iter().any(|kind| table.get(kind).is_some()))
    {
        return None;
    }
    let documents = Documents {
        base: tables.next(),
        drop_ins: tables.collect(),
        parts: Some(parts),
    };
    let config = check::check(&documents, true, log);
    let broken = documents.parts.as_ref().is_some_and(Parts::broken);
    config.filter(|_| !broken && !log.has_errors())
}

fn top_level<'t>(file: usize, table: &'t toml::Spanned<DeTable<'_>>) -> Table<'t> {
    Table::new(At::new(file, 0..0), "the top level", table.get_ref())
}

fn drop_in_paths(directory: &Path) -> std::io::Result<Vec<PathBuf>> {
    let entries = match std::fs::read_dir(directory) {
        Ok(entries) => entries,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(error),
    };
    let mut paths = Vec::new();
    for entry in entries {
        let path = entry?.path();
        let hidden = path
            .file_name()
            .is_some_and(|name| name.as_encoded_bytes().starts_with(b"."));
        if !hidden && path.extension().is_some_and(|extension| extension == "toml") {
            paths.push(path);
        }
    }
    paths.sort();
    Ok(paths)
}

fn read(path: &Path) -> std::io::Result<Vec<u8>> {
    let file = File::open(path)?;
    // One more, for the read that finds the end.
    let length = file.metadata()?.len().min(FILE_BYTES_MAX) + 1;
    let mut bytes = Vec::with_capacity(usize::try_from(length).unwrap_or(0));
    file.take(FILE_BYTES_MAX + 1).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > FILE_BYTES_MAX {
        return Err(std::io::Error::other("it is larger than 64 MiB"));
    }
    Ok(bytes)
}

/// The text up to the first byte that is none.
fn valid_text(bytes: Vec<u8>) -> String {
    String::from_utf8(bytes).unwrap_or_else(|error| {
        let end = error.utf8_error().valid_up_to();
        let mut bytes = error.into_bytes();
        bytes.truncate(end);
        String::from_utf8(bytes).unwrap_or_default()
    })
}

fn syntax_help(message: &str) -> &'static str {
    if message.contains("duplicate") {
        "remove one of the two, or begin another table with [[...]]"
    } else if message.contains("string") || message.contains("quot") {
        "put text in double quotes: name = \"gold\""
    } else if message.contains("recursion") {
        "no key of weir nests deeper than three tables"
    } else {
        "write one `key = value` a line; text in double quotes, lists in square brackets, tables as [name] or [[name]]"
    }
}

/// Ten thousand contracts take about 3 MB; more than this is not a configuration but a slip such as `/dev/zero`.
const FILE_BYTES_MAX: u64 = 64 << 20;

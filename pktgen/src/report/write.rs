//! Files that are there whole or not at all.

use std::ffi::OsString;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

/// A file that could not be written.
#[derive(Debug, thiserror::Error)]
#[error("cannot write {}: {step}: {source}{}", path.display(), remedy(source))]
pub struct WriteError {
    /// The file.
    pub path: PathBuf,
    /// What was being done.
    pub step: &'static str,
    /// What the kernel answered.
    #[source]
    pub source: io::Error,
}

impl WriteError {
    pub(super) fn new(path: &Path, step: &'static str, source: io::Error) -> Self {
        Self {
            path: path.to_owned(),
            step,
            source,
        }
    }
}

/// Writes a file beside its place, flushes it to the disk and moves it there: whoever reads finds the old contents or the
/// new, and an error leaves the old. A symbolic link is followed. What is no file, such as `/dev/stdout`, is written to.
///
/// # Errors
/// The directory is missing or not writable, the disk is full, the path is a directory. Nothing is left behind.
pub fn write_atomically(path: &Path, bytes: &[u8]) -> Result<(), WriteError> {
    let failed = |step| move |source| WriteError::new(path, step, source);
    match fs::metadata(path) {
        Ok(found) if found.is_dir() => {
            return Err(failed("open it")(io::ErrorKind::IsADirectory.into()));
        }
        Ok(found) if !found.is_file() => {
            let mut file = OpenOptions::new().write(true).open(path).map_err(failed("open it"))?;
            return file.write_all(bytes).map_err(failed("write to it"));
        }
        _ => {}
    }
    let place = fs::canonicalize(path).unwrap_or_else(|_| path.to_owned());
    let Some(name) = place.file_name() else {
        return Err(failed("open it")(io::ErrorKind::NotFound.into()));
    };
    let mut hidden = OsString::from(".");
    hidden.push(name);
    hidden.push(format!(".{}.new", std::process::id()));
    let beside = place.with_file_name(hidden);
    // Left by an earlier process of the same number that was killed, if it is there at all.
    let _absent = fs::remove_file(&beside);
    let mut file = OpenOptions::new()
        .write(true)
        .create_new(true)
        .open(&beside)
        .map_err(failed("create a file in its directory"))?;
    let result = fill(&mut file, bytes)
        .map_err(failed("fill it"))
        .and_then(|()| fs::rename(&beside, &place).map_err(failed("move it to its place")));
    if result.is_err() {
        // The error to tell is the first one.
        let _removed = fs::remove_file(&beside);
    }
    result
}

fn fill(file: &mut File, bytes: &[u8]) -> io::Result<()> {
    file.write_all(bytes)?;
    file.sync_all()
}

fn remedy(error: &io::Error) -> &'static str {
    match error.kind() {
        io::ErrorKind::NotFound => " (make the directory first, or name another)",
        io::ErrorKind::PermissionDenied | io::ErrorKind::ReadOnlyFilesystem => {
            " (name a directory that this user may write to)"
        }
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => {
            " (make room, or name a directory on another disk)"
        }
        io::ErrorKind::IsADirectory => " (name a file in it)",
        io::ErrorKind::NotADirectory => " (a part of the path before the last is a file)",
        _ => "",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(directory: &Path) -> Vec<OsString> {
        fs::read_dir(directory)
            .unwrap()
            .map(|entry| entry.unwrap().file_name())
            .collect()
    }

    #[test]
    fn a_file_is_replaced_whole_and_nothing_is_left() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("report.json");
        write_atomically(&path, b"first").unwrap();
        write_atomically(&path, b"2").unwrap();
        assert_eq!(fs::read(&path).unwrap(), b"2");
        assert_eq!(names(directory.path()), ["report.json"]);
        let link = directory.path().join("link");
        std::os::unix::fs::symlink(&path, &link).unwrap();
        write_atomically(&link, b"through a link").unwrap();
        assert_eq!(fs::read(&path).unwrap(), b"through a link");
        assert!(fs::symlink_metadata(&link).unwrap().is_symlink());
    }

    #[test]
    fn an_error_says_which_file_why_and_what_to_do() {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("file");
        write_atomically(&file, b"kept").unwrap();
        for (path, why) in [
            (directory.path().join("missing/report.html"), "make the directory first"),
            (directory.path().to_owned(), "name a file in it"),
            (file.join("report.html"), "is a file"),
            (PathBuf::from("/dev/full"), "make room"),
            (PathBuf::from("/"), "name a file in it"),
            (PathBuf::from(""), "make the directory first"),
        ] {
            let error = write_atomically(&path, b"x").unwrap_err().to_string();
            assert!(
                error.starts_with(&format!("cannot write {}: ", path.display())),
                "{error}"
            );
            assert!(error.contains(why), "{error}");
        }
        assert_eq!(names(directory.path()), ["file"]);
        assert_eq!(fs::read(&file).unwrap(), b"kept");
    }

    #[test]
    fn what_is_no_file_is_written_to() {
        write_atomically(Path::new("/dev/null"), b"x").unwrap();
        assert!(!fs::metadata("/dev/null").unwrap().is_file());
    }
}

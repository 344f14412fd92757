//! The token that TCP clients show: `Authorization: Bearer TOKEN` (RFC 6750, section 2.1).

use std::fs::File;
use std::io::{self, Read};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use subtle::ConstantTimeEq;

/// Why a token file cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum TokenError {
    /// It cannot be read.
    #[error("`[api] token_file` {path}: {cause}")]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// What the system said.
        cause: io::Error,
    },
    /// Others may read or write it.
    #[error(
        "`[api] token_file` {path} is open to everybody (mode {mode:03o}): `chmod 640 {path}`, and make a new token"
    )]
    Open {
        /// The file.
        path: PathBuf,
        /// Its permissions.
        mode: u32,
    },
    /// What is in it is not a token.
    #[error(
        "`[api] token_file` {path}: a token is one line of {TOKEN_MIN} to {TOKEN_MAX} printable ASCII characters without blanks: `openssl rand -hex 32 > {path}`"
    )]
    NotAToken {
        /// The file.
        path: PathBuf,
    },
}

/// Shortest token: 16 random hexadecimal digits cannot be guessed over a network.
const TOKEN_MIN: usize = 16;
/// Longest.
const TOKEN_MAX: usize = 1024;

/// What a client must show.
#[derive(Clone)]
pub struct Token(Box<[u8]>);

impl Token {
    /// Reads it. The file belongs to whoever runs weir, and perhaps a group; nobody else may read it.
    ///
    /// # Errors
    /// See [`TokenError`].
    pub fn read(path: &Path) -> Result<Self, TokenError> {
        let unreadable = |cause| TokenError::Unreadable {
            path: path.to_owned(),
            cause,
        };
        let file = File::open(path).map_err(unreadable)?;
        let mode = file.metadata().map_err(unreadable)?.permissions().mode() & 0o777;
        if mode & 0o007 != 0 {
            let path = path.to_owned();
            return Err(TokenError::Open { path, mode });
        }
        let mut text = Vec::new();
        // One more than the longest with its line end tells a longer one.
        file.take(TOKEN_MAX as u64 + 3)
            .read_to_end(&mut text)
            .map_err(unreadable)?;
        let token = text.trim_ascii_end();
        let fits = (TOKEN_MIN..=TOKEN_MAX).contains(&token.len()) && token.iter().all(u8::is_ascii_graphic);
        if !fits {
            return Err(TokenError::NotAToken { path: path.to_owned() });
        }
        Ok(Self(token.into()))
    }

    /// Whether the value of an `Authorization` header shows this token. Takes the same time for every wrong token of the
    /// right length.
    #[must_use]
    pub fn is_shown_by(&self, header: &[u8]) -> bool {
        let Some((scheme, shown)) = header.split_at_checked(SCHEME.len()) else {
            return false;
        };
        scheme.eq_ignore_ascii_case(SCHEME) && bool::from(shown.trim_ascii().ct_eq(&self.0))
    }
}

const SCHEME: &[u8] = b"Bearer ";

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    fn file(text: &str, mode: u32) -> tempfile::NamedTempFile {
        let file = tempfile::NamedTempFile::new().unwrap();
        fs::write(file.path(), text).unwrap();
        fs::set_permissions(file.path(), fs::Permissions::from_mode(mode)).unwrap();
        file
    }

    #[test]
    fn only_the_right_token_passes() {
        let token = Token::read(file("0123456789abcdef\n", 0o640).path()).unwrap();
        for right in ["Bearer 0123456789abcdef", "bearer  0123456789abcdef"] {
            assert!(token.is_shown_by(right.as_bytes()), "{right}");
        }
        let wrong = [
            "",
            "Bearer",
            "Bearer ",
            "Basic 0123456789abcdef",
            "Bearer 0123456789abcdeF",
            "Bearer 0123456789abcdef0",
        ];
        for wrong in wrong {
            assert!(!token.is_shown_by(wrong.as_bytes()), "{wrong}");
        }
    }

    #[test]
    fn a_file_that_will_not_do_is_refused_with_its_remedy() {
        let cases = [
            ("0123456789abcdef", 0o644, "chmod 640"),
            ("0123456789abcdef", 0o602, "chmod 640"),
            ("short", 0o600, "16 to 1024"),
            ("0123456789 abcdef", 0o600, "without blanks"),
            (&"x".repeat(1025), 0o600, "openssl rand"),
        ];
        for (text, mode, part) in cases {
            let file = file(text, mode);
            let error = Token::read(file.path()).err().unwrap().to_string();
            assert!(
                error.contains(part) && error.contains(&file.path().display().to_string()),
                "{error}"
            );
        }
        let missing = Token::read(Path::new("/nonexistent/token")).err().unwrap().to_string();
        assert!(missing.contains("/nonexistent/token"), "{missing}");
    }
}

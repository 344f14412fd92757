//! Secrets out of texts: by what the configuration's keys are called, wherever their values then turn up.

use std::collections::BTreeSet;

/// What takes a secret's place.
pub(super) const REMOVED: &str = "(removed)";

/// Words in a key that make its value a secret. A key that ends in `_file` names where one is, and stays.
const WORDS: [&str; 8] = [
    "token",
    "secret",
    "password",
    "passwd",
    "passphrase",
    "credential",
    "apikey",
    "private",
];

/// Bytes of the shortest value that is removed from everything; a shorter one only where it stands on the line of its key.
const SECRET_MIN: usize = 4;

/// Secrets that are known, to be removed from everything.
#[derive(Debug, Default)]
pub(super) struct Redactor {
    secrets: BTreeSet<String>,
}

impl Redactor {
    /// Learns the secrets of a TOML file. Of one that is no TOML, those in lists and texts of several lines; what stands on
    /// the line of its key is found by [`clean`](Self::clean).
    pub(super) fn learn(&mut self, text: &str) {
        match text.parse::<toml::Table>() {
            Ok(table) => self.learn_table(&table),
            Err(_) => self.learn_lines(text),
        }
    }

    fn learn_lines(&mut self, text: &str) {
        let mut end: Option<&str> = None;
        for line in text.lines() {
            if let Some(mark) = end {
                let secret = line.trim_matches(|c: char| c.is_whitespace() || ['"', '\'', ',', ']'].contains(&c));
                self.remember(secret);
                end = end.filter(|_| !line.contains(mark));
            } else if let Some((key, value)) = line.split_once('=')
                && is_secret(
                    key.trim()
                        .trim_matches(['"', '\''])
                        .rsplit('.')
                        .next()
                        .unwrap_or_default(),
                )
            {
                let value = value.trim();
                let marks = [("[", "]"), ("\"\"\"", "\"\"\""), ("'''", "'''")];
                let open = marks.iter().find(|(begin, _)| value.starts_with(begin));
                end = open
                    .filter(|(begin, mark)| !value[begin.len()..].contains(mark))
                    .map(|(_, mark)| *mark);
            }
        }
    }

    fn learn_table(&mut self, table: &toml::Table) {
        for (key, value) in table {
            self.learn_value(value, is_secret(key));
        }
    }

    fn learn_value(&mut self, value: &toml::Value, secret: bool) {
        match value {
            toml::Value::String(text) if secret => {
                // Of several lines each is one, because logs and diffs show single lines.
                text.lines().for_each(|line| self.remember(line.trim()));
                self.remember(text);
            }
            toml::Value::Integer(number) if secret => self.remember(&number.to_string()),
            toml::Value::Array(values) => values.iter().for_each(|value| self.learn_value(value, secret)),
            toml::Value::Table(table) if secret => table.values().for_each(|value| self.learn_value(value, true)),
            toml::Value::Table(table) => self.learn_table(table),
            _ => {}
        }
    }

    /// So that it is removed wherever it turns up; not if it is so short that it turns up by chance, as `1` does in every number.
    fn remember(&mut self, secret: &str) {
        if secret.len() >= SECRET_MIN {
            self.secrets.insert(secret.to_owned());
        }
    }

    /// The text without secrets: those that are known, what follows a key of a secret on its line (also in comments), and
    /// passwords in URLs.
    pub(super) fn clean(&self, text: &str) -> String {
        let text = self.clean_known(text);
        let mut clean: String = text.lines().map(clean_line).collect::<Vec<_>>().join("\n");
        if text.ends_with('\n') {
            clean.push('\n');
        }
        clean
    }

    /// The text without the secrets that are known: for what weir itself wrote, whose keys are not an operator's (a bucket's
    /// `tokens` are no secret).
    pub(super) fn clean_known(&self, text: &str) -> String {
        // Long ones first: one may be a part of another.
        let mut secrets: Vec<&String> = self.secrets.iter().collect();
        secrets.sort_by_key(|secret| std::cmp::Reverse(secret.len()));
        let mut text = text.to_owned();
        for secret in secrets {
            text = text.replace(secret.as_str(), REMOVED);
        }
        text
    }
}

fn is_secret(key: &str) -> bool {
    let key = key.to_ascii_lowercase().replace('-', "_");
    let names_a_file = key.ends_with("_file") || key.ends_with("_path");
    // `api_key`, but not `keyboard`; `token-bucket` is a value and never comes here.
    !names_a_file && (WORDS.iter().any(|word| key.contains(word)) || key == "key" || key.ends_with("_key"))
}

fn clean_line(line: &str) -> String {
    let line = clean_urls(line);
    let is_key = |c: char| c.is_ascii_alphanumeric() || c == '_' || c == '-';
    for (at, sign) in line.char_indices().filter(|(_, c)| matches!(c, '=' | ':')) {
        let before = line[..at].trim_end().trim_end_matches(['"', '\'']);
        let key = before.rfind(|c| !is_key(c)).map_or(before, |end| &before[end + 1..]);
        let value = line[at + sign.len_utf8()..].trim();
        if is_secret(key) && !value.is_empty() && value != REMOVED {
            return format!("{} \"{REMOVED}\"", &line[..=at]);
        }
    }
    line
}

/// `https://user:password@host` without what is before the `@`.
fn clean_urls(line: &str) -> String {
    let mut clean = String::new();
    let mut rest = line;
    while let Some(at) = rest.find("://") {
        let (head, tail) = rest.split_at(at + 3);
        clean += head;
        let end = tail
            .find(|c: char| c == '/' || c.is_whitespace() || c == '"')
            .unwrap_or(tail.len());
        match tail[..end].rfind('@') {
            Some(user) if tail[..user].contains(':') => {
                clean += REMOVED;
                rest = &tail[user..];
            }
            _ => rest = tail,
        }
    }
    clean + rest
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cleaned(text: &str) -> String {
        let mut redactor = Redactor::default();
        redactor.learn(text);
        redactor.clean(text)
    }

    #[test]
    fn values_of_secret_keys_are_removed_however_they_are_written() {
        let text = r#"
region = "atn"
token = "s3cret-one"   # token: s3cret-one
[api]
bearer-token = 's3cret-two'
"auth_token" = "s3cret-three"
tokens = [
  "s3cret-four",
  "s3cret-five",
]
password = """
s3cret-six
s3cret-seven"""
nested = { api_key = "s3cret-eight", listen = "127.0.0.1:9" }
url = "https://me:s3cret-nine@example.net/x"
# password = "s3cret-ten"
secret.inner = "s3cret-eleven"
pin_token = 4711471147
token_file = "/etc/weir/api.token"
"#;
        let clean = cleaned(text);
        assert!(!clean.contains("s3cret") && !clean.contains("4711471147"), "{clean}");
        for kept in ["region = \"atn\"", "/etc/weir/api.token", "@example.net/x"] {
            assert!(clean.contains(kept), "{kept}: {clean}");
        }
    }

    #[test]
    fn a_secret_is_removed_where_it_turns_up_elsewhere() {
        let mut redactor = Redactor::default();
        redactor.learn("[api]\ntoken = \"abc123xyz\"\n");
        assert_eq!(redactor.clean("GET /x with abc123xyz\n"), "GET /x with (removed)\n");
    }

    #[test]
    fn a_value_too_short_for_a_secret_is_removed_beside_its_key_alone() {
        let mut redactor = Redactor::default();
        redactor.learn("token = 1\npassword = \"a\"\n");
        assert_eq!(redactor.clean_known("{\"packets\": 101}"), "{\"packets\": 101}");
        assert_eq!(redactor.clean("token = 1"), "token = \"(removed)\"");
    }

    #[test]
    fn what_is_no_secret_and_no_toml_stays() {
        let text = "meter = \"token-bucket\"\nburst = \"10 ms\" # a bucket of tokens\nconforming = [\n";
        assert_eq!(cleaned(text), text);
        assert_eq!(cleaned("token = \"unfinished"), "token = \"(removed)\"");
        let broken = "tokens = [\n  \"s3cret-one\",\n]\npassword = '''\ns3cret-two\n'''\nregion = \n";
        let clean = cleaned(broken);
        assert!(!clean.contains("s3cret") && clean.contains("region"), "{clean}");
    }
}

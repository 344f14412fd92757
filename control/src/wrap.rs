//! Texts in lines of at most 100 columns.

/// Columns of whatever people read.
pub(crate) const WIDTH: usize = 100;

/// The words of a text in lines: of at most `first` columns, and `rest` for those after it. A word that is longer stays whole,
/// because a path that is cut leads nowhere.
pub(crate) fn wrap(text: &str, first: usize, rest: usize) -> Vec<String> {
    let mut lines = vec![String::new()];
    let mut columns = 0;
    for word in text.split_whitespace() {
        let length = word.chars().count();
        let room = if lines.len() == 1 { first } else { rest };
        if columns > 0 && columns + 1 + length > room {
            lines.push(String::new());
            columns = 0;
        }
        if let Some(line) = lines.last_mut() {
            if columns > 0 {
                line.push(' ');
                columns += 1;
            }
            line.push_str(word);
            columns += length;
        }
    }
    lines
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_full_and_never_too_long() {
        assert_eq!(wrap("ab cd ef gh", 5, 8), ["ab cd", "ef gh"]);
        assert_eq!(wrap("ab cd ef gh", 4, 2), ["ab", "cd", "ef", "gh"]);
        assert_eq!(wrap("ä /a/long/path é", 3, 3), ["ä", "/a/long/path", "é"]);
        assert_eq!(wrap("  ", 10, 10), [""]);
    }
}

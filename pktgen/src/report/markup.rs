//! Text in HTML and SVG. Every text that comes from data goes through [`escape`].

use super::table::is_harmful;

/// Text that is safe between tags and within quoted attributes. What no markup may contain (control characters), and what
/// would turn the direction of the text after it, becomes U+FFFD.
pub(super) fn escape(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '&' => escaped.push_str("&amp;"),
            '<' => escaped.push_str("&lt;"),
            '>' => escaped.push_str("&gt;"),
            '"' => escaped.push_str("&quot;"),
            '\'' => escaped.push_str("&#39;"),
            '\n' | '\t' | '\r' => escaped.push(' '),
            '\u{fffe}' | '\u{ffff}' => escaped.push('\u{fffd}'),
            c if is_harmful(c) => escaped.push('\u{fffd}'),
            c => escaped.push(c),
        }
    }
    escaped
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    #[test]
    fn nothing_gets_out_of_its_place() {
        assert_eq!(
            escape("<script>alert('1' & \"2\")</script>\u{0}\u{202e}\n"),
            "&lt;script&gt;alert(&#39;1&#39; &amp; &quot;2&quot;)&lt;/script&gt;\u{fffd}\u{fffd} "
        );
    }

    /// Panics unless every tag is closed in order, every attribute quoted and named once, every `&` begins an entity that
    /// XML or a number names, and no id comes twice.
    pub(in super::super) fn assert_well_formed(page: &str) {
        let body = page.strip_prefix("<!DOCTYPE html>").unwrap_or(page);
        let mut open: Vec<String> = Vec::new();
        let mut ids = std::collections::BTreeSet::new();
        let mut rest = body;
        while let Some(start) = rest.find('<') {
            assert_text(&rest[..start]);
            let end = start + rest[start..].find('>').expect("a tag ends");
            let tag = &rest[start + 1..end];
            rest = &rest[end + 1..];
            if let Some(name) = tag.strip_prefix('/') {
                assert_eq!(open.pop().as_deref(), Some(name), "closes what is open");
                continue;
            }
            let (tag, closed) = tag.strip_suffix('/').map_or((tag, false), |tag| (tag, true));
            let (name, attributes) = tag.split_once(' ').unwrap_or((tag, ""));
            assert!(
                !name.is_empty() && name.chars().all(|c| c.is_ascii_alphanumeric()),
                "tag {tag}"
            );
            assert_attributes(attributes, &mut ids);
            if !closed {
                open.push(name.to_owned());
            }
            if name == "style" && !closed {
                let end = rest.find("</style>").expect("a style ends");
                assert!(!rest[..end].contains(['<', '&']), "style");
                rest = &rest[end..];
            }
        }
        assert_text(rest);
        assert!(open.is_empty(), "left open: {open:?}");
    }

    fn assert_attributes(mut rest: &str, ids: &mut std::collections::BTreeSet<String>) {
        let mut names = std::collections::BTreeSet::new();
        loop {
            rest = rest.trim_start();
            if rest.is_empty() {
                return;
            }
            let (name, after) = rest.split_once("=\"").expect("an attribute has a quoted value");
            assert!(
                name.chars().all(|c| c.is_ascii_alphanumeric() || c == '-'),
                "attribute {name}"
            );
            assert!(names.insert(name.to_owned()), "attribute {name} twice");
            let (value, after) = after.split_once('"').expect("a value ends");
            assert_text(value);
            assert!(!value.contains('<'), "{value}");
            assert!(name != "id" || ids.insert(value.to_owned()), "id {value} twice");
            rest = after;
        }
    }

    fn assert_text(text: &str) {
        assert!(!text.chars().any(|c| c.is_control() && c != '\n'), "{text:?}");
        for piece in text.split('&').skip(1) {
            let entity = piece.split(';').next().unwrap_or_default();
            assert!(
                piece.contains(';') && ["amp", "lt", "gt", "quot", "#39"].contains(&entity),
                "&{entity}"
            );
        }
    }
}

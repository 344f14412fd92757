//! The older text format of Prometheus (version 0.0.4), for clients that do not ask for OpenMetrics: `promtool check
//! metrics`, and scrapers other than Prometheus. Samples are the same; what is said of a family differs: it goes by the
//! whole name (`..._total`, `..._info`), facts are gauges, and there are neither units nor an end.

use std::fmt::{self, Write};

/// The media type of it.
pub const CONTENT_TYPE: &str = "text/plain; version=0.0.4; charset=utf-8";

/// Turns OpenMetrics into it, line by line on the way to `W`.
pub struct PlainText<W> {
    out: W,
    line: String,
    /// `NAME TEXT` of the family whose type comes next.
    help: String,
}

impl<W: Write> PlainText<W> {
    /// Writes to `out`.
    pub fn new(out: W) -> Self {
        Self {
            out,
            line: String::new(),
            help: String::new(),
        }
    }

    /// Gives back where it has written to.
    pub fn into_inner(self) -> W {
        self.out
    }

    fn end_line(&mut self) -> fmt::Result {
        let line = std::mem::take(&mut self.line);
        let written = self.write_line(&line);
        // Its memory serves the next line.
        self.line = line;
        self.line.clear();
        written
    }

    fn write_line(&mut self, line: &str) -> fmt::Result {
        if !line.starts_with('#') {
            return self.out.write_str(line);
        }
        if let Some(help) = line.strip_prefix("# HELP ") {
            help.clone_into(&mut self.help);
        } else if let Some((name, kind)) = line.strip_prefix("# TYPE ").and_then(|rest| rest.split_once(' ')) {
            let (suffix, kind) = match kind.trim_end() {
                "counter" => ("_total", "counter"),
                "info" => ("_info", "gauge"),
                kind => ("", kind),
            };
            let text = self.help.split_once(' ').map_or("\n", |(_, text)| text);
            writeln!(self.out, "# HELP {name}{suffix} {text}# TYPE {name}{suffix} {kind}")?;
        }
        Ok(())
    }
}

impl<W: Write> Write for PlainText<W> {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        for part in text.split_inclusive('\n') {
            if self.line.is_empty() && part.ends_with('\n') {
                // A whole line, as most are, needs no copy.
                self.write_line(part)?;
                continue;
            }
            self.line.push_str(part);
            if part.ends_with('\n') {
                self.end_line()?;
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn families_go_by_their_whole_names() {
        let openmetrics = "# HELP a_bytes Taken, so far\n# TYPE a_bytes counter\n# UNIT a_bytes bytes\na_bytes_total{x=\"#\"} 1\n\
                           # HELP b What it is\n# TYPE b info\nb_info{v=\"1\"} 1\n# HELP c Now\n# TYPE c gauge\nc 2.0\n# EOF\n";
        let plain = "# HELP a_bytes_total Taken, so far\n# TYPE a_bytes_total counter\na_bytes_total{x=\"#\"} 1\n\
                     # HELP b_info What it is\n# TYPE b_info gauge\nb_info{v=\"1\"} 1\n# HELP c Now\n# TYPE c gauge\nc 2.0\n";
        for size in [1, 7, openmetrics.len()] {
            let mut text = PlainText::new(String::new());
            for piece in openmetrics.as_bytes().chunks(size) {
                text.write_str(std::str::from_utf8(piece).unwrap()).unwrap();
            }
            assert_eq!(text.into_inner(), plain);
        }
    }
}

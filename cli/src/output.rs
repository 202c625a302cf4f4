//! How results and errors reach the user.

use std::io::{self, IsTerminal as _, Write as _};
use std::process::ExitCode;
use std::time::Duration;

use anyhow::Result;
use comfy_table::presets::{NOTHING, UTF8_FULL_CONDENSED};
use comfy_table::{CellAlignment, ContentArrangement, Table};
use serde::Serialize;

use crate::failure::Failure;

/// Columns of a terminal below which tables are not folded to fit.
const NARROWEST: u16 = 60;

/// What the user asked of the output.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Output {
    pub(crate) json: bool,
    pub(crate) verbose: u8,
}

impl Output {
    /// Prints a value as JSON.
    pub(crate) fn value(self, value: &impl Serialize) -> Result<()> {
        let mut text = serde_json::to_string_pretty(value)?;
        text.push('\n');
        // In one piece: there is nothing to strip from it, and the lines may be many.
        let mut stdout = io::stdout().lock();
        stdout.write_all(text.as_bytes())?;
        stdout.flush()?;
        Ok(())
    }

    /// Prints text to the standard output, and ends the line.
    pub(crate) fn text(self, text: &str) -> Result<()> {
        let mut stdout = anstream::stdout().lock();
        writeln!(stdout, "{}", text.trim_end_matches('\n'))?;
        stdout.flush()?;
        Ok(())
    }

    /// Says something beside the result, on standard error.
    pub(crate) fn note(self, text: &str) {
        // Nothing is left to tell the user with if this fails.
        let _ = writeln!(anstream::stderr(), "{text}");
    }

    /// Tells the user why the command failed.
    pub(crate) fn failed(self, error: &anyhow::Error) -> ExitCode {
        if is_broken_pipe(error) {
            // The reader of our output had enough.
            return ExitCode::SUCCESS;
        }
        let failure = Failure::from(error);
        if self.json {
            let _ = self.value(&serde_json::json!({ "error": failure }));
        } else {
            self.note(failure.to_string().trim_end());
        }
        ExitCode::FAILURE
    }
}

fn is_broken_pipe(error: &anyhow::Error) -> bool {
    error.downcast_ref::<io::Error>().is_some_and(|error| error.kind() == io::ErrorKind::BrokenPipe)
}

/// A table with borders at a terminal and without in a pipe. Columns named in `numbers` are
/// aligned to the right.
pub(crate) fn table(header: &[&str], numbers: &[&str], rows: Vec<Vec<String>>) -> String {
    let terminal = io::stdout().is_terminal();
    let mut table = Table::new();
    table
        .load_style(if terminal { UTF8_FULL_CONDENSED.with_rounded_corners() } else { NOTHING })
        .set_header(header)
        .add_rows(rows);
    // Some terminals say that they have no columns at all; lines that wrap are better than letters
    // below each other.
    if table.width().is_some_and(|columns| columns >= NARROWEST) {
        table.set_content_arrangement(ContentArrangement::Dynamic);
    }
    for (name, column) in header.iter().zip(table.column_iter_mut()) {
        if numbers.contains(name) {
            column.set_cell_alignment(CellAlignment::Right);
        }
    }
    table.to_string().lines().map(str::trim_end).collect::<Vec<_>>().join("\n")
}

/// A duration with three digits that count.
pub(crate) fn duration(duration: Duration) -> String {
    let micros = duration.as_secs_f64() * 1e6;
    let (n, unit) = match micros {
        n if n < 1e3 => (n, "µs"),
        n if n < 1e6 => (n / 1e3, "ms"),
        n => (n / 1e6, "s"),
    };
    let digits = if n < 10.0 { 2 } else { usize::from(n < 100.0) };
    format!("{n:.digits$} {unit}")
}

/// A duration in milliseconds, for JSON.
pub(crate) fn millis(duration: Duration) -> f64 {
    (duration.as_secs_f64() * 1e6).round() / 1e3
}

/// Text from an extension with its control characters made visible, so that it cannot drive the
/// terminal.
pub(crate) fn harmless(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        if c.is_control() && c != '\n' && c != '\t' {
            out.extend(c.escape_default());
        } else {
            out.push(c);
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::{duration, harmless};

    #[test]
    fn durations_keep_three_digits() {
        let cases = [
            (0, "0.00 µs"),
            (1_234, "1.23 µs"),
            (45_600, "45.6 µs"),
            (789_000, "789 µs"),
            (12_345_678, "12.3 ms"),
            (2_500_000_000, "2.50 s"),
            (75_000_000_000, "75.0 s"),
        ];
        for (nanos, expected) in cases {
            assert_eq!(duration(Duration::from_nanos(nanos)), expected);
        }
    }

    #[test]
    fn escape_sequences_become_visible() {
        assert_eq!(harmless("a\x1b[2Jb\u{9b}c\n\td"), "a\\u{1b}[2Jb\\u{9b}c\n\td");
    }
}

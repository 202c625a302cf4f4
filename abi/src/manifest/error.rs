use std::fmt;
use std::ops::Range;

/// Where and why a manifest is wrong.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ManifestError {
    /// The file, as the reader of the manifest named it.
    pub file: String,
    /// The line, from 1.
    pub line: usize,
    /// The column in characters, from 1.
    pub column: usize,
    /// What is wrong and what was expected.
    pub message: String,
    /// The line itself.
    pub source_line: String,
}

impl ManifestError {
    pub(super) fn from_toml(error: &toml::de::Error, text: &str, file: &str) -> Self {
        Self::at(text, file, error.span().unwrap_or_default(), error.message().trim().replace('\n', "; "))
    }

    /// Blames the value at a path of keys; where it cannot be found, the nearest table above it.
    pub(super) fn at_path(text: &str, file: &str, path: &[&str], message: String) -> Self {
        Self::at(text, file, span_of(text, path).unwrap_or_default(), message)
    }

    fn at(text: &str, file: &str, span: Range<usize>, message: String) -> Self {
        let before = text.get(..span.start).unwrap_or(text);
        let line_start = before.rfind('\n').map_or(0, |newline| newline + 1);
        Self {
            file: file.to_owned(),
            line: before.matches('\n').count() + 1,
            column: before[line_start..].chars().count() + 1,
            message,
            source_line: text[line_start..].lines().next().unwrap_or_default().to_owned(),
        }
    }
}

impl fmt::Display for ManifestError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { file, line, column, message, source_line } = self;
        write!(
            f,
            "{file}:{line}:{column}: {message}\n{line:>5} | {source_line}\n{:>5} | {:>column$}",
            "", "^"
        )
    }
}

impl std::error::Error for ManifestError {}

/// The place of the value at a path of keys in a TOML text that parses.
pub(super) fn span_of(text: &str, path: &[&str]) -> Option<Range<usize>> {
    let root = toml::de::DeTable::parse(text).ok()?;
    let mut table = root.get_ref();
    let mut span = None;
    for key in path {
        let value = table.get(*key)?;
        span = Some(value.span());
        match value.get_ref() {
            toml::de::DeValue::Table(inner) => table = inner,
            _ => break,
        }
    }
    span
}

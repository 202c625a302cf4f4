use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::Result;
use quadriga::Status;
use quadriga::abi::Isolation;
use serde::Serialize;

use super::site::{Made, Trouble};
use crate::output::{Output, duration, harmless, millis, table};

/// What the demo tells at its end.
#[derive(Serialize)]
pub(super) struct Report {
    /// The page to open first.
    index: PathBuf,
    /// Whether every page is there.
    pub(super) complete: bool,
    pages: usize,
    images: usize,
    bytes: u64,
    gzip_bytes: u64,
    ms: f64,
    extensions: Vec<Row>,
    failures: Vec<Failure>,
}

/// One extension.
#[derive(Serialize)]
struct Row {
    extension: String,
    runtime: String,
    isolation: Isolation,
    load_ms: f64,
    calls: u64,
    p50_ms: f64,
    p99_ms: f64,
    errors: u64,
    #[serde(skip)]
    cells: Vec<String>,
}

#[derive(Serialize)]
struct Failure {
    what: What,
    page: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    line: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    language: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    extension: Option<String>,
    message: String,
}

#[derive(Clone, Copy, Serialize)]
#[serde(rename_all = "kebab-case")]
enum What {
    /// A code block is not highlighted.
    PlainBlock,
    /// A page is not in the site.
    MissingPage,
}

impl Report {
    pub(super) fn new(made: Made, statuses: &[Status], out: &Path, elapsed: Duration) -> Self {
        let complete = made.missing.is_empty();
        let plain = made.plain.into_iter().map(|trouble| Failure::new(What::PlainBlock, trouble));
        let missing = made.missing.into_iter().map(|trouble| Failure::new(What::MissingPage, trouble));
        Self {
            index: out.join("index.html"),
            complete,
            pages: made.pages,
            images: made.images,
            bytes: made.bytes,
            gzip_bytes: made.gzip_bytes,
            ms: millis(elapsed),
            extensions: statuses.iter().map(Row::from).collect(),
            failures: missing.chain(plain).collect(),
        }
    }

    pub(super) fn show(&self, output: Output) -> Result<()> {
        if output.json {
            return output.value(self);
        }
        let header = ["Extension", "Runtime", "Load", "Calls", "p50", "p99", "Errors"];
        let numbers = ["Load", "Calls", "p50", "p99", "Errors"];
        let rows = self.extensions.iter().map(|row| row.cells.clone()).collect();
        let mut text = format!("{}\n\n", table(&header, &numbers, rows));
        for failure in &self.failures {
            writeln!(text, "{}", harmless(&failure.to_string()))?;
        }
        if !self.failures.is_empty() {
            text.push('\n');
        }
        let Self { pages, images, .. } = self;
        let (size, gzip) = (kib(self.bytes), kib(self.gzip_bytes));
        let took = duration(Duration::from_secs_f64(self.ms / 1e3));
        let pages = count(*pages, "page");
        let images = count(*images, "image");
        writeln!(text, "{pages} and {images} in {took}; {size}, compressed {gzip}")?;
        if !self.complete {
            text.push_str("The site is incomplete.\n");
        }
        writeln!(text, "Open {}", self.index.display())?;
        output.text(&text)
    }
}

fn kib(bytes: u64) -> String {
    format!("{} KiB", bytes.div_ceil(1024))
}

fn count(n: usize, what: &str) -> String {
    format!("{n} {what}{}", if n == 1 { "" } else { "s" })
}

impl From<&Status> for Row {
    fn from(status: &Status) -> Self {
        let metrics = &status.metrics;
        let cells = vec![
            status.id.to_string(),
            status.runtime.to_string(),
            duration(status.load_time),
            metrics.calls.to_string(),
            duration(metrics.p50),
            duration(metrics.p99),
            metrics.errors.to_string(),
        ];
        Self {
            extension: status.id.to_string(),
            runtime: status.runtime.to_string(),
            isolation: status.isolation,
            load_ms: millis(status.load_time),
            calls: metrics.calls,
            p50_ms: millis(metrics.p50),
            p99_ms: millis(metrics.p99),
            errors: metrics.errors,
            cells,
        }
    }
}

impl Failure {
    fn new(what: What, trouble: Trouble) -> Self {
        let Trouble { page, line, language, extension, message } = trouble;
        Self { what, page, line, language, extension, message }
    }
}

impl std::fmt::Display for Failure {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { page, message, .. } = self;
        let line = self.line.map(|line| format!(":{line}")).unwrap_or_default();
        match self.what {
            What::PlainBlock => {
                let language = self.language.as_deref().unwrap_or_default();
                write!(f, "{page}{line}: the `{language}` block stayed plain: {message}")
            }
            What::MissingPage => write!(f, "{page}{line}: there is no page for it: {message}"),
        }
    }
}

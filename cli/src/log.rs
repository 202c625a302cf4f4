//! The log, on standard error: ours and that of extensions.

use std::fmt::{self, Write as _};
use std::io::{self, Write};
use std::sync::{Mutex, PoisonError};

use anstyle::{AnsiColor, Style};
use indicatif::ProgressBar;
use tracing::field::{Field, Visit};
use tracing::{Event, Level, Subscriber};
use tracing_subscriber::EnvFilter;
use tracing_subscriber::fmt::format::Writer;
use tracing_subscriber::fmt::{FmtContext, FormatEvent, FormatFields};
use tracing_subscriber::registry::LookupSpan;

use crate::output::harmless;

/// The target of what extensions log.
const GUEST: &str = "quadriga::guest";

/// A bar at the bottom of the terminal, which lines of the log must not break.
static BAR: Mutex<Option<ProgressBar>> = Mutex::new(None);

/// Starts the log. `RUST_LOG` decides what is in it, or else how often `-v` was given.
pub(crate) fn start(verbose: u8) {
    let default = match verbose {
        0 => "warn,quadriga::guest=info",
        1 => "info,quadriga::guest=debug",
        2 => "info,quadriga=debug,quadriga_core=debug,quadriga::guest=trace",
        _ => "trace",
    };
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new(default));
    tracing_subscriber::fmt().with_env_filter(filter).event_format(Lines).with_writer(|| AroundBar).init();
}

/// Keeps the log from breaking this bar, or no longer.
pub(crate) fn set_bar(bar: Option<ProgressBar>) {
    *BAR.lock().unwrap_or_else(PoisonError::into_inner) = bar;
}

/// Writes whole lines to standard error, above the bar.
struct AroundBar;

impl Write for AroundBar {
    fn write(&mut self, lines: &[u8]) -> io::Result<usize> {
        let bar = BAR.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let write = || anstream::stderr().write_all(lines);
        bar.map_or_else(write, |bar| bar.suspend(write))?;
        Ok(lines.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// `extension: message`, with the level where it is a warning or worse.
struct Lines;

#[derive(Default)]
struct Parts {
    extension: String,
    message: String,
    rest: String,
}

impl<S, N> FormatEvent<S, N> for Lines
where
    S: Subscriber + for<'a> LookupSpan<'a>,
    N: for<'a> FormatFields<'a> + 'static,
{
    fn format_event(&self, _: &FmtContext<'_, S, N>, mut out: Writer<'_>, event: &Event<'_>) -> fmt::Result {
        let mut parts = Parts::default();
        event.record(&mut parts);
        let metadata = event.metadata();
        let guest = metadata.target() == GUEST;
        let source = if guest { parts.extension.as_str() } else { metadata.target() };
        let (word, style) = match *metadata.level() {
            Level::ERROR => ("error: ", AnsiColor::Red.on_default()),
            Level::WARN => ("warning: ", AnsiColor::Yellow.on_default()),
            Level::INFO => ("", Style::new()),
            Level::DEBUG | Level::TRACE => ("", Style::new().dimmed()),
        };
        let rest = if guest { "" } else { &parts.rest };
        writeln!(out, "{style}{source}: {word}{}{rest}{style:#}", harmless(&parts.message))
    }
}

impl Visit for Parts {
    fn record_str(&mut self, field: &Field, value: &str) {
        match field.name() {
            "extension" => self.extension = value.to_owned(),
            "message" => self.message = value.to_owned(),
            _ => self.record_debug(field, &value),
        }
    }

    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        let _ = match field.name() {
            "message" => write!(self.message, "{value:?}"),
            name => write!(self.rest, " {name}={value:?}"),
        };
    }
}

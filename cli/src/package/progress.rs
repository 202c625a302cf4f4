use std::io::IsTerminal as _;
use std::ops::ControlFlow;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use indicatif::{ProgressBar, ProgressStyle};

use crate::log;

/// Shows at a terminal how far the work is, and nothing elsewhere.
pub(super) struct Progress {
    bar: ProgressBar,
    stop: Arc<AtomicBool>,
}

impl Progress {
    pub(super) fn new() -> Self {
        let terminal = std::io::stderr().is_terminal();
        let bar = if terminal { ProgressBar::no_length() } else { ProgressBar::hidden() };
        // The templates are constant; with the default one, nothing but beauty is lost.
        if let Ok(style) = ProgressStyle::with_template("{spinner} {msg} {bytes}") {
            bar.set_style(style);
        }
        if terminal {
            log::set_bar(Some(bar.clone()));
        }
        Self { bar, stop: Arc::default() }
    }

    /// Ends the work at its next step when this becomes true.
    pub(super) fn until(mut self, stop: Arc<AtomicBool>) -> Self {
        self.stop = stop;
        self
    }

    /// So many bytes of so many are done.
    pub(super) fn show(&self, what: &'static str, done: u64, all: u64) -> ControlFlow<()> {
        if self.bar.length() != Some(all) {
            self.bar.set_length(all);
            if let Ok(style) = ProgressStyle::with_template("{bar:30.cyan} {msg} {bytes}/{total_bytes}") {
                self.bar.set_style(style);
            }
        }
        self.count(what, done)
    }

    /// So many bytes are done.
    pub(super) fn count(&self, what: &'static str, done: u64) -> ControlFlow<()> {
        self.bar.set_message(what);
        self.bar.set_position(done);
        if self.stop.load(Ordering::Relaxed) { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
    }

    /// Takes the bar away.
    pub(super) fn finish(&self) {
        self.bar.finish_and_clear();
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        log::set_bar(None);
        self.bar.finish_and_clear();
    }
}

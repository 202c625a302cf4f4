use std::io::IsTerminal as _;
use std::ops::ControlFlow;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use indicatif::{ProgressBar, ProgressStyle};

use crate::log;
use crate::output::Output;

/// Shows at a terminal how far the work is, and nothing elsewhere or with --json.
pub(crate) struct Progress {
    bar: ProgressBar,
    stop: Arc<AtomicBool>,
}

impl Progress {
    pub(crate) fn new(output: Output) -> Self {
        let terminal = !output.json && std::io::stderr().is_terminal();
        let bar = if terminal { ProgressBar::no_length() } else { ProgressBar::hidden() };
        if let Ok(style) = ProgressStyle::with_template("{spinner} {msg} {bytes}") {
            bar.set_style(style);
        }
        if terminal {
            log::set_bar(Some(bar.clone()));
        }
        Self { bar, stop: Arc::default() }
    }

    /// The same for an operation on a home. It is taken away with what is returned.
    pub(crate) fn of_home(output: Output) -> quadriga::home::Progress {
        let shown = Self::new(output);
        quadriga::home::Progress::new(move |what, done, all| {
            // Nothing ends an operation on a home.
            let _ = shown.show(what, done, all);
        })
    }

    /// Ends the work at its next step when this becomes true.
    pub(super) fn until(mut self, stop: Arc<AtomicBool>) -> Self {
        self.stop = stop;
        self
    }

    /// So many bytes are done, and of so many, if that is known.
    pub(super) fn show(&self, what: &'static str, done: u64, all: Option<u64>) -> ControlFlow<()> {
        if self.bar.length() != all {
            let template = match all {
                Some(all) => {
                    self.bar.set_length(all);
                    "{bar:30.cyan} {msg} {bytes}/{total_bytes}"
                }
                None => {
                    self.bar.unset_length();
                    "{spinner} {msg} {bytes}"
                }
            };
            // The templates are constant; with the default one, nothing but beauty is lost.
            if let Ok(style) = ProgressStyle::with_template(template) {
                self.bar.set_style(style);
            }
        }
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

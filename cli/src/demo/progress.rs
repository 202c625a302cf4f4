use std::io::IsTerminal as _;
use std::time::Duration;

use indicatif::{ProgressBar, ProgressStyle};

use crate::log;
use crate::output::Output;

/// Shows how far the work is: a bar at a terminal, lines in a pipe.
#[derive(Clone)]
pub(super) struct Progress {
    /// Hidden where standard error is no terminal.
    bar: ProgressBar,
    lines: bool,
    output: Output,
}

impl Progress {
    pub(super) fn new(output: Output) -> Self {
        let terminal = std::io::stderr().is_terminal();
        let bar = if terminal { ProgressBar::new_spinner() } else { ProgressBar::hidden() };
        if terminal {
            bar.enable_steady_tick(Duration::from_millis(100));
            log::set_bar(Some(bar.clone()));
        }
        // With --json, what is in the lines is in the JSON.
        Self { bar, lines: !terminal && !output.json, output }
    }

    /// From now on it is known how many steps there are.
    pub(super) fn steps(&self, steps: usize) {
        self.bar.set_length(steps as u64);
        // The template is constant; with the default one, nothing but beauty is lost.
        if let Ok(style) = ProgressStyle::with_template("{bar:30.cyan} {pos}/{len} {wide_msg}") {
            self.bar.set_style(style);
        }
    }

    /// Says what is being done.
    pub(super) fn now(&self, what: &str) {
        self.bar.set_message(what.to_owned());
    }

    /// One more step is done.
    pub(super) fn step(&self, what: &str) {
        self.bar.inc(1);
        self.now(what);
        self.line(what);
    }

    /// Says something where there is no bar.
    pub(super) fn line(&self, text: &str) {
        if self.lines {
            self.output.note(text);
        }
    }

    /// Takes the bar away.
    pub(super) fn finish(&self) {
        log::set_bar(None);
        self.bar.finish_and_clear();
    }
}

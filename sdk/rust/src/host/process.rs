//! Programs that the host runs, each confined as the extension is, or further. They have no network.
//! Each needs the permission `subprocess`.

use std::collections::BTreeMap;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::{Result, call};

/// A program to be run.
///
/// ```no_run
/// # fn main() -> Result<(), quadriga_sdk::Error> {
/// use quadriga_sdk::host::process::Program;
/// let ended = Program::new("sort").arg("-u").stdin("b\na\nb\n").run()?;
/// assert_eq!(ended.stdout, b"a\nb\n");
/// # Ok(())
/// # }
/// ```
#[derive(Debug, Clone)]
#[must_use = "it does not run before it is told to"]
pub struct Program {
    name: String,
    arguments: Vec<String>,
    options: Options,
}

#[derive(Debug, Clone, Default, Serialize)]
struct Options {
    stdin: Option<Vec<u8>>,
    env: BTreeMap<String, String>,
    timeout: Option<f64>,
    folder: Option<String>,
}

/// How a program ended, and what it printed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ended {
    /// Its exit status, unless a signal ended it.
    pub status: Option<i32>,
    /// The number of the signal that ended it.
    pub signal: Option<i32>,
    /// What it printed to its standard output.
    pub stdout: Vec<u8>,
    /// What it printed to its standard error.
    pub stderr: Vec<u8>,
}

impl Program {
    /// A plain name, or an absolute path.
    pub fn new(name: impl Into<String>) -> Self {
        Self { name: name.into(), arguments: Vec::new(), options: Options::default() }
    }

    /// Adds an argument.
    pub fn arg(mut self, argument: impl Into<String>) -> Self {
        self.arguments.push(argument.into());
        self
    }

    /// Adds arguments.
    pub fn args(mut self, arguments: impl IntoIterator<Item = impl Into<String>>) -> Self {
        self.arguments.extend(arguments.into_iter().map(Into::into));
        self
    }

    /// Gives it something to read from its standard input.
    pub fn stdin(mut self, bytes: impl Into<Vec<u8>>) -> Self {
        self.options.stdin = Some(bytes.into());
        self
    }

    /// Adds a variable to those that were granted.
    pub fn env(mut self, name: impl Into<String>, value: impl Into<String>) -> Self {
        self.options.env.insert(name.into(), value.into());
        self
    }

    /// Has it ended after some time.
    pub fn timeout(mut self, time: Duration) -> Self {
        self.options.timeout = Some(time.as_secs_f64());
        self
    }

    /// Has it start in a folder, by an absolute path or one from the package on, instead of one of its
    /// own.
    pub fn folder(mut self, folder: impl Into<String>) -> Self {
        self.options.folder = Some(folder.into());
        self
    }

    /// Runs it to its end. Fails with `permission_denied` unless it was granted, also when that is taken
    /// back while it runs; with `deadline_exceeded` at its timeout; with `message_too_large` if it
    /// prints too much.
    #[track_caller]
    pub fn run(&self) -> Result<Ended> {
        call("quadriga.process", "run", (&self.name, &self.arguments, &self.options))
    }
}

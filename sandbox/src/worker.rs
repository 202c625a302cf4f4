//! The other side: what runs in a worker process.

mod connect;
mod cpu;
mod pool;
mod program;
mod server;
mod spare;
mod start;
mod uplink;
mod zygote;

use std::io::Write as _;
use std::process::ExitCode;

use quadriga_abi::Error;
use quadriga_core::{Runtime, Warm};

/// A runtime that a worker can start.
#[derive(Debug, Clone, Copy)]
pub struct Engine {
    /// The kind that it runs.
    pub kind: &'static str,
    /// Starts it. Called once at most, on the main thread.
    pub start: fn() -> Box<dyn Runtime>,
    /// Does what can be done before there is an extension, on the main thread of a process that
    /// workers are forked from; `None` where there is nothing, or nothing that can be forked.
    pub warm: Option<Begin>,
}

/// Starts an engine that can be forked.
pub type Begin = fn() -> Result<Box<dyn Warm>, Error>;

/// Serves the host that started this process, until it has no more use for it.
///
/// To be called on the main thread of a program that was started with the one argument `worker`,
/// before it starts any other thread. Its standard input is the connection to the host. At its end
/// the program should exit at once: guests may be running still. The process that was started may
/// stay what it is and fork, so that this returns in several processes.
pub fn run(engines: &[Engine]) -> ExitCode {
    match start::serve(engines) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            // The host logs it.
            let _ = writeln!(std::io::stderr(), "the worker cannot go on: {error}");
            ExitCode::FAILURE
        }
    }
}

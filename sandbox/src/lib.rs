//! Runs extensions of any runtime in worker processes, and confines those with the means of Linux.
//!
//! A host registers a [`ProcessRuntime`] for each runtime whose extensions it may want outside its
//! own process. That starts worker processes per extension, which run [`worker::run`], and speaks
//! with it over a Unix socket: the frames of the contract, in both directions.

#![cfg(target_os = "linux")]

mod claims;
pub mod confine;
mod frame;
mod jail;
mod job;
mod launch;
mod link;
mod loan;
mod nursery;
mod output;
mod process;
mod program;
mod proxy;
mod runtime;
mod sentry;
mod shared;
mod spin;
mod streams;
mod team;
pub mod worker;
mod zygote;

pub use launch::ProcessLauncher;
pub use runtime::ProcessRuntime;

/// The worker program of a host that names none itself: see [`ProcessRuntime::new`].
///
/// # Errors
/// Says where it was looked for.
pub fn worker_program() -> Result<std::path::PathBuf, quadriga_abi::Error> {
    program::find(None)
}

/// For the fuzz targets.
#[doc(hidden)]
pub mod fuzzing {
    /// The payloads of the frames that a host reads of what a worker sends.
    pub fn frames(words: &[u8], most: usize) -> Vec<quadriga_abi::Bytes> {
        crate::frame::all(words, most)
    }
}

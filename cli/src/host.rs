//! The host that the commands run extensions in.

use std::path::Path;
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use anyhow::{Context as _, Result};
use clap::ValueEnum;
use quadriga::abi::limits::Limits;
use quadriga::abi::{ExtensionId, Isolation};
use quadriga::{Dispatcher, EventQuota, Grant, LoadOptions, Policy};
use serde::{Deserialize, Serialize};

use crate::secrets::Secrets;

/// What shells expect of a command that ended by Ctrl-C: 128 and the signal's number.
const INTERRUPTED: u8 = 130;

/// How long work may take to end after Ctrl-C.
const PARTING: Duration = Duration::from_millis(250);

/// How long a load may take where the extension's manifest does not say it.
pub(crate) const LOAD_TIMEOUT: Duration = Duration::from_secs(30);

/// Starts the engines. To be called on the main thread, as V8 demands.
pub(crate) fn start(minimum_isolation: Isolation, load_timeout: Duration) -> Result<Dispatcher> {
    start_with(minimum_isolation, load_timeout, Limits::default(), Secrets::new())
}

/// The same, with ceilings for the limits of all that is loaded, and secrets for it.
pub(crate) fn start_with(
    minimum_isolation: Isolation,
    load_timeout: Duration,
    limits: Limits,
    secrets: Secrets,
) -> Result<Dispatcher> {
    // It ends with the command, and so may what is kept for it.
    let events = EventQuota { in_memory: true, ..EventQuota::default() };
    build(Policy { minimum_isolation, load_timeout, limits, events, ..Policy::default() }, secrets)
}

/// The same by a whole policy.
pub(crate) fn build(policy: Policy, secrets: Secrets) -> Result<Dispatcher> {
    let builder = quadriga::builder().policy(policy).secrets(move |name| Ok(secrets.get(name).cloned()));
    builder.build().context("the dispatcher could not start its threads")
}

/// Works until it is done or the user presses Ctrl-C.
///
/// The work runs beside the main thread, because guests may hold the thread that calls them.
pub(crate) fn run(work: impl Future<Output = Result<ExitCode>> + Send + 'static) -> Result<ExitCode> {
    run_to_its_own_end(async {
        let mut work = tokio::spawn(work);
        tokio::select! {
            done = &mut work => done.context("the command panicked")?,
            _ = tokio::signal::ctrl_c() => {
                // What it had for a while goes with it, unless a guest holds its thread.
                work.abort();
                let _ = tokio::time::timeout(PARTING, work).await;
                Ok(ExitCode::from(INTERRUPTED))
            }
        }
    })
}

/// Works until it is done, beside the main thread in the same way. Ctrl-C is its own affair.
pub(crate) fn run_to_its_own_end(
    work: impl Future<Output = Result<ExitCode>> + Send + 'static,
) -> Result<ExitCode> {
    let threads = std::thread::available_parallelism().map_or(2, |n| n.get().max(2));
    let executor = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(threads)
        .enable_all()
        .build()
        .context("the command could not start its threads")?;
    let result = executor.block_on(async { tokio::spawn(work).await.context("the command panicked")? });
    // A guest may still run on one of the threads; nobody waits for it.
    executor.shutdown_background();
    result
}

/// Does work that waits for nobody and has things to put away. When the user presses Ctrl-C, `stop`
/// becomes true, and the work ends as soon as it looks there.
pub(crate) fn run_to_the_end(
    work: impl FnOnce(Arc<AtomicBool>) -> Result<ExitCode> + Send + 'static,
) -> Result<ExitCode> {
    let executor = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .context("the command could not start its threads")?;
    executor.block_on(async {
        let stop = Arc::new(AtomicBool::new(false));
        let seen = Arc::clone(&stop);
        let mut work = tokio::task::spawn_blocking(move || work(seen));
        tokio::select! {
            done = &mut work => done.context("the command panicked")?,
            _ = tokio::signal::ctrl_c() => {
                stop.store(true, Ordering::Relaxed);
                match work.await.context("the command panicked")? {
                    // It was as good as done.
                    Ok(code) => Ok(code),
                    Err(_) => Ok(ExitCode::from(INTERRUPTED)),
                }
            }
        }
    })
}

/// Loads extensions in the order in which they are given.
pub(crate) async fn load_all(
    dispatcher: &Dispatcher,
    folders: &[impl AsRef<Path>],
    options: &LoadOptions,
) -> Result<Vec<ExtensionId>> {
    let mut ids = Vec::new();
    for folder in folders {
        ids.push(dispatcher.load(folder, options.clone()).await?);
    }
    Ok(ids)
}

/// What extensions are granted.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, ValueEnum, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum GrantArg {
    /// All that they ask for
    Requested,
    /// Nothing
    #[default]
    None,
}

impl From<GrantArg> for Grant {
    fn from(grant: GrantArg) -> Self {
        match grant {
            GrantArg::Requested => Self::Requested,
            GrantArg::None => Self::Nothing,
        }
    }
}

//! The extension platform for Rust hosts: JavaScript, Python, WebAssembly and native Rust behind
//! one dispatcher.
//!
//! This crate composes: it re-exports the dispatcher and registers the runtimes whose features are
//! on.

use std::path::PathBuf;
use std::sync::Arc;

pub use quadriga_core::ApiStatus;
/// What a runtime of one's own is made of, and one for tests that needs no engine.
pub use quadriga_core::block_on;
/// What a host sees of what is loaded, and how it watches over it.
pub use quadriga_core::{
    Action, Activity, Alert, AlertRule, Bucket, Checked, Communication, Counter, Decision, DecisionFilter,
    Effect, ExtensionMetrics, Failure, Health, JobRecord, JobStatus, Liveness, MethodMetrics, Monitor,
    PROMETHEUS_TYPE, Pause, Reason, Recovery, Rule, Sample, Subject, Supervision, Tally, TotalMemory,
    Trigger, Verdict, prometheus,
};
pub use quadriga_core::{
    Answer, Arguments, BroadcastFilter, BroadcastOptions, Builder, CallOptions, Configuration, Dispatcher,
    Executed, Feed, Grant, Input, Items, LoadOptions, Metrics, Origin, Policy, Provided, Recycle, Setting,
    Settings, Snippet, State, Status, abi, settings_from_environment, settings_from_file,
};
pub use quadriga_core::{
    BoxFuture, Bridge, Call, CallContext, Instance, Language, Layer, LogLevel, MockRuntime, Outcome, Runtime,
    Support, Unit, Usage,
};

/// What the derive macro takes schemas from.
pub use quadriga_core::abi::schemars;
/// The hook points of a host, and what its extensions do there.
pub use quadriga_core::{
    Account, Conflict, Did, Finished, HookContext, HookField, HookPoint, HookPolicy, HookStatus, HookWork,
    Hooked, Overruled, Step, Stopped,
};
/// Makes a struct the context of a hook point.
///
/// ```
/// use quadriga::schemars::JsonSchema;
/// use quadriga::{Dispatcher, HookContext};
/// use serde::{Deserialize, Serialize};
///
/// /// Before a plan is carried out.
/// #[derive(Serialize, Deserialize, JsonSchema, HookContext)]
/// #[schemars(crate = "quadriga::schemars")]
/// #[hook(name = "plan.before_execution")]
/// struct BeforeExecution {
///     plan: String,
///     #[hook(changeable)]
///     steps: Vec<String>,
///     #[hook(sensitive)]
///     token: String,
/// }
///
/// # let host = Dispatcher::builder().build().unwrap();
/// # quadriga::block_on(async {
/// let (plan, steps, token) = ("move house".to_owned(), vec!["pack".to_owned()], "s3cret".to_owned());
/// let hooked = host.hook(BeforeExecution { plan, steps, token }).await?;
/// assert_eq!(hooked.context.steps, ["pack"]);
/// assert_eq!(BeforeExecution::schema().as_value()["required"][0], "plan");
/// # Ok::<(), quadriga::abi::Error>(())
/// # }).unwrap();
/// ```
pub use quadriga_derive::HookContext;

/// What a host does for extensions itself, beside calls.
pub use quadriga_core::{Ended, Launch, Launcher, SecretString, Service};

/// Data of a host that extensions may query.
pub use quadriga_core::{DataComparison, DataFilter, DataOrder, DataPage, DataQuery, DataSource};

/// What extensions keep with their host, wherever that puts it.
pub use quadriga_core::{
    KvAction, KvChange, KvEntry, KvKey, KvQuota, KvRange, KvStore, MemoryKv, check_kv_store,
};

/// APIs over HTTP, with an OpenAPI document of them.
#[cfg(feature = "http")]
pub use quadriga_http as http;

/// Events, and what is kept of them.
pub use quadriga_core::{
    DeadLetter, Event, EventQuota, EventStore, Events, KeptEvent, Letters, SubscriptionStatus,
};

/// Installed extensions, on disk.
#[cfg(feature = "home")]
pub use quadriga_core::home;

/// Metrics that are pushed to a collector, by OTLP.
#[cfg(feature = "otlp")]
pub use quadriga_core::{OtlpConfig, OtlpExporter};

/// Packages of extensions: to build, read, sign and verify them.
#[cfg(feature = "package")]
pub use quadriga_package as package;

/// What this machine and user can confine workers with, tried in child processes: to be called
/// before other threads are started.
#[cfg(all(feature = "process", target_os = "linux"))]
pub use quadriga_sandbox::confine::{LayerStatus, probe};
#[cfg(all(feature = "process", target_os = "linux"))]
pub use quadriga_sandbox::{ProcessLauncher, ProcessRuntime, worker_program};
#[cfg(all(feature = "process", target_os = "linux"))]
use quadriga_sandbox::{confine::ExecMemory, worker::Engine};

/// A builder with every runtime of this build, and with the same runtimes in worker processes.
///
/// The worker program is looked for when it is first needed: the environment variable
/// `QUADRIGA_WORKER` names it, or it is `quadriga` in the folder of the host's own program or the
/// one above it.
pub fn builder() -> Builder {
    runtimes(None)
}

/// The same, with the worker program at a path of the host's choice. It is run with the one
/// argument `worker`, and calls [`worker_main`].
#[cfg(all(feature = "process", target_os = "linux"))]
pub fn builder_with_worker(program: impl Into<PathBuf>) -> Builder {
    runtimes(Some(program.into()))
}

/// What a worker program does, on its main thread, when it is run with the one argument `worker`.
/// The program should exit with the code that it returns.
#[cfg(all(feature = "process", target_os = "linux"))]
pub fn worker_main() -> std::process::ExitCode {
    quadriga_sandbox::worker::run(&[
        #[cfg(any(feature = "v8", feature = "quickjs"))]
        Engine {
            kind: "javascript",
            start: || Box::new(quadriga_runtime_js::JsRuntime::for_one()),
            warm: None,
        },
        #[cfg(feature = "python")]
        Engine {
            kind: "python",
            start: || Box::new(quadriga_runtime_python::PythonRuntime::new()),
            warm: Some(quadriga_runtime_python::PythonRuntime::warm),
        },
        #[cfg(feature = "wasm")]
        Engine {
            kind: "webassembly",
            start: || Box::new(quadriga_runtime_wasm::WasmRuntime::for_one()),
            warm: None,
        },
        #[cfg(feature = "native")]
        Engine {
            kind: "native",
            start: || Box::new(quadriga_runtime_native::NativeRuntime::in_place()),
            warm: None,
        },
    ])
}

fn runtimes(worker: Option<PathBuf>) -> Builder {
    let builder = Dispatcher::builder();
    #[cfg(any(feature = "v8", feature = "quickjs"))]
    let builder = both(builder, quadriga_runtime_js::JsRuntime::new(), true, &worker);
    #[cfg(feature = "python")]
    let builder = both(builder, quadriga_runtime_python::PythonRuntime::new(), false, &worker);
    #[cfg(feature = "wasm")]
    let builder = both(builder, quadriga_runtime_wasm::WasmRuntime::new(), true, &worker);
    #[cfg(feature = "native")]
    let builder = both(builder, quadriga_runtime_native::NativeRuntime::new(), false, &worker);
    #[cfg(all(feature = "process", target_os = "linux"))]
    let builder = builder.launcher(ProcessLauncher::new(worker.clone()));
    let _ = worker;
    builder
}

/// A runtime in the host's process, and in confined processes where this build has them. An engine
/// that compiles needs memory that it may both write and run.
fn both(builder: Builder, runtime: impl Runtime, compiles: bool, worker: &Option<PathBuf>) -> Builder {
    let runtime: Arc<dyn Runtime> = Arc::new(runtime);
    #[cfg(all(feature = "process", target_os = "linux"))]
    let builder =
        [abi::Isolation::Process, abi::Isolation::Container].into_iter().fold(builder, |all, level| {
            let memory = if compiles { ExecMemory::Any } else { ExecMemory::Libraries };
            all.runtime(ProcessRuntime::new(Arc::clone(&runtime), level, memory, worker.clone()))
        });
    #[cfg(not(all(feature = "process", target_os = "linux")))]
    let _ = (worker, compiles);
    builder.runtime(runtime)
}

/// The Rust of the documentation, which is compiled with the doctests.
#[cfg(doctest)]
mod documentation {
    #[doc = include_str!("../../docs/apis.md")]
    mod apis {}
    #[doc = include_str!("../../docs/hooks.md")]
    mod hooks {}
    #[doc = include_str!("../../docs/hosts.md")]
    mod hosts {}
    #[cfg(feature = "home")]
    #[doc = include_str!("../../docs/manage.md")]
    mod manage {}
}

//! Loading extensions.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use parking_lot::Mutex;
use pyo3::prelude::*;
use quadriga_abi::{Description, Error, ErrorCode, Isolation, Method, Parameter, RuntimeKind};
use quadriga_core::{BoxFuture, Bridge, CallContext, Instance, Language, Runtime, Support, Unit, Warm};
use tokio::runtime::Handle;

use crate::config::{Engine, engine, version};
use crate::error::{Phase, from_exception};
use crate::host_call::Host;
use crate::instance::PythonInstance;
use crate::limits::{ENFORCED, Running};
use crate::{thread, warm};

/// How long a load that is out of time may take to end.
const GRACE: Duration = Duration::from_millis(500);

/// What a loose piece of source comes to is in the comment of its wrapper.
const LANGUAGES: [Language; 1] = [Language {
    names: &["python", "py"],
    file: "snippet.py",
    entry: "quadriga_snippet.py",
    wrapper: include_str!("python/snippet.py"),
}];

/// Runs Python extensions in the host's own interpreter.
#[derive(Debug, Default)]
pub struct PythonRuntime(());

/// What `load` in `python/guest.py` says of a method.
type Described = (
    String,
    Py<PyAny>,
    String,
    Vec<(String, Option<String>, bool)>,
    Option<String>,
    bool,
    bool,
    Option<String>,
    Option<String>,
);

impl PythonRuntime {
    /// A runtime. The interpreter starts with the first extension.
    pub fn new() -> Self {
        Self::default()
    }

    /// Starts the interpreter on this thread and no other, for a process that is forked for each
    /// extension.
    ///
    /// # Errors
    /// If there is no interpreter that can be started.
    pub fn warm() -> Result<Box<dyn Warm>, Error> {
        Ok(Box::new(warm::warm()?))
    }
}

impl Runtime for PythonRuntime {
    fn kind(&self) -> RuntimeKind {
        RuntimeKind::new("python")
    }

    fn engine(&self) -> String {
        version()
    }

    fn support(&self) -> Support {
        Support { isolation: Isolation::None, limits: ENFORCED, permissions: &[] }
    }

    fn languages(&self) -> &'static [Language] {
        &LANGUAGES
    }

    fn load(&self, unit: Unit, bridge: Bridge) -> BoxFuture<'_, Result<Arc<dyn Instance>, Error>> {
        Box::pin(async move {
            let progress = Progress::default();
            let (deadline, started) = (unit.deadline, Arc::clone(&progress.0));
            let executor = Handle::current();
            let mut work = tokio::task::spawn_blocking(move || load(&unit, bridge, executor, &started));
            let timer = tokio::time::sleep_until(deadline.into());
            let finished = tokio::select! {
                finished = &mut work => finished,
                () = timer => {
                    progress.interrupt();
                    match tokio::time::timeout(GRACE, work).await {
                        Ok(finished) => finished,
                        Err(_) => return Err(late()),
                    }
                }
            };
            let instance = finished.map_err(|error| Error::new(ErrorCode::Internal, error.to_string()))??;
            Ok(Arc::new(instance) as Arc<dyn Instance>)
        })
    }
}

/// A load that ends with the future that waits for it.
#[derive(Default)]
struct Progress(Arc<Mutex<Option<Arc<Running>>>>);

impl Progress {
    fn interrupt(&self) {
        if let Some(running) = &*self.0.lock() {
            running.interrupt();
        }
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        self.interrupt();
    }
}

fn load(
    unit: &Unit,
    bridge: Bridge,
    executor: Handle,
    progress: &Mutex<Option<Arc<Running>>>,
) -> Result<PythonInstance, Error> {
    static NUMBERS: AtomicU64 = AtomicU64::new(1);
    let engine = engine()?;
    let extension = bridge.extension().to_string();
    let number = NUMBERS.fetch_add(1, Relaxed);
    let entry = path(&unit.entry)?;
    let root = path(&unit.root)?;
    let module = unit.entry.file_stem().and_then(|stem| stem.to_str()).unwrap_or_default();
    if unit.entry.extension().is_none_or(|suffix| suffix != "py") || module.contains('.') {
        let message =
            format!("{} is no Python module: expected a name such as main.py", unit.entry.display());
        return Err(Error::new(ErrorCode::EntryInvalid, message));
    }
    thread::attach(|py| {
        // The one extension of a worker process.
        if bridge.is_remote() {
            let watched = engine.watch_files.bind(py).call0();
            watched.map_err(|error| Error::new(ErrorCode::Internal, error.to_string()))?;
        }
        let starts_programs = bridge.is_remote() && !unit.permissions.subprocess.is_empty();
        let host = Host::new(bridge, number, starts_programs, executor);
        let host = Py::new(py, host).map_err(|error| unopened(py, &error))?;
        let space = engine.open_space.bind(py).call1((&extension, root, entry, &host, &engine.sdk));
        let space = space.map_err(|error| unopened(py, &error))?.unbind();
        let context = CallContext { deadline: Some(unit.deadline), ..CallContext::default() };
        let running = Running::start(py, number, context, None);
        *progress.lock() = Some(Arc::clone(&running));
        let described = run(py, engine, &space, entry);
        let described = running.finish(py).map_err(timely).and(described);
        *progress.lock() = None;
        match described {
            Ok(methods) => {
                let instance = instance(&extension, engine, number, space, host, methods);
                instance.set_limits(&unit.limits).map(|()| instance)
            }
            Err(error) => {
                if let Err(error) = engine.close_space.bind(py).call1((&space,)) {
                    tracing::warn!(extension, "its modules could not be removed: {error}");
                }
                Err(error.in_extension(&extension))
            }
        }
    })
}

/// Runs the entry module.
fn run(py: Python<'_>, engine: &Engine, space: &Py<PyAny>, entry: &str) -> Result<Vec<Described>, Error> {
    let failed = |exception: PyErr| from_exception(py, engine, space, Phase::Load, &exception);
    engine.compile_entry.bind(py).call1((space, entry)).map_err(|exception| {
        let mut error = failed(exception);
        error.code = ErrorCode::EntryInvalid;
        error
    })?;
    let described = engine.load.bind(py).call1((space, entry)).map_err(failed)?;
    described.extract().map_err(failed)
}

fn instance(
    extension: &str,
    engine: &'static Engine,
    number: u64,
    space: Py<PyAny>,
    host: Py<Host>,
    described: Vec<Described>,
) -> PythonInstance {
    let (mut methods, mut functions, mut asynchronous) = (Vec::new(), Vec::new(), Vec::new());
    // What json.dumps wrote reads back.
    let schema = |text: Option<String>| text.and_then(|text| serde_json::from_str(&text).ok());
    for (name, function, doc, parameters, returns, streams, waits, input, output) in described {
        let parameter = |(name, ty, optional)| Parameter { name, ty, optional };
        let parameters = parameters.into_iter().map(parameter).collect();
        let (input, output) = (schema(input), schema(output));
        methods.push(Method { name, doc, parameters, returns, streams, input, output });
        functions.push(function);
        asynchronous.push(waits);
    }
    let sdk = format!("quadriga-python {} on {}", env!("CARGO_PKG_VERSION"), version());
    let description = Description::new(sdk, methods);
    PythonInstance::new(
        extension.to_owned(),
        description,
        engine,
        number,
        space,
        host,
        functions,
        asynchronous,
    )
}

fn path(path: &Path) -> Result<&str, Error> {
    path.to_str().ok_or_else(|| {
        let message = format!("{} is not UTF-8, which Python's module names need", path.display());
        Error::new(ErrorCode::EntryInvalid, message)
    })
}

/// What keeps a module space from being made: compiled code that another extension brought too.
fn unopened(py: Python<'_>, error: &PyErr) -> Error {
    Error::new(ErrorCode::LoadFailed, error.value(py).to_string())
        .with_hint("vendor the same version in both, or run one of them in a process of its own")
}

fn timely(error: Error) -> Error {
    if error.code == ErrorCode::DeadlineExceeded { late() } else { error }
}

fn late() -> Error {
    Error::new(ErrorCode::DeadlineExceeded, "the extension's top-level code did not end in time")
        .with_hint("move long work into a function, or raise [limits] load-timeout")
}

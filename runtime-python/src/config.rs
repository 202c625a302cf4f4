//! The one interpreter of the process: how it is set up, and what of it the runtime uses.

use std::ffi::CStr;
use std::mem::MaybeUninit;
use std::sync::mpsc::{self, Receiver};
use std::sync::{Arc, OnceLock};

use pyo3::ffi;
use pyo3::prelude::*;
use pyo3::types::PyDict;
use quadriga_abi::{Error, ErrorCode};

use crate::host_call::Orphan;
use crate::limits::{self, Interrupter, Running};

/// The interpreter, and the functions of `python/`.
pub(crate) struct Engine {
    pub(crate) interrupter: Interrupter,
    /// What calls that are out of time are ended with.
    pub(crate) interrupted: Py<PyAny>,
    pub(crate) open_space: Py<PyAny>,
    pub(crate) close_space: Py<PyAny>,
    pub(crate) compile_entry: Py<PyAny>,
    pub(crate) load: Py<PyAny>,
    pub(crate) run: Py<PyAny>,
    pub(crate) drain: Py<PyAny>,
    /// `loops.py`: the loop of an extension, and what runs on it.
    pub(crate) new_loop: Py<PyAny>,
    pub(crate) current_task: Py<PyAny>,
    pub(crate) cancel_task: Py<PyAny>,
    pub(crate) is_current_task: Py<PyAny>,
    pub(crate) wait: Py<PyAny>,
    pub(crate) next_of: Py<PyAny>,
    pub(crate) feed: Py<PyAny>,
    pub(crate) settle: Py<PyAny>,
    /// `sys._current_frames`.
    pub(crate) current_frames: Py<PyAny>,
    /// The folder of the standard library.
    pub(crate) standard_library: String,
    pub(crate) cancel: Py<PyAny>,
    pub(crate) fits: Py<PyAny>,
    pub(crate) report: Py<PyAny>,
    /// To be called once, in a worker process.
    pub(crate) watch_files: Py<PyAny>,
    /// The SDK's `Timestamp`, one for all extensions.
    pub(crate) timestamp: Py<PyAny>,
    /// The value that stands for an object, of `python/objects.py`.
    pub(crate) plain: Py<PyAny>,
    /// Does what a load does, without an extension.
    pub(crate) rehearse: Py<PyAny>,
    /// The code of the SDK, by module.
    pub(crate) sdk: Py<PyDict>,
}

/// The modules of sdk/python, built in so that extensions need nothing installed.
const SDK: [(&str, &str); 3] = [
    ("quadriga", include_str!("../../sdk/python/src/quadriga/__init__.py")),
    ("quadriga.errors", include_str!("../../sdk/python/src/quadriga/errors.py")),
    ("quadriga.host", include_str!("../../sdk/python/src/quadriga/host.py")),
];

/// Such as `CPython 3.11.7`. Needs no engine.
pub(crate) fn version() -> String {
    format!("CPython {}", Python::version_str().split_whitespace().next().unwrap_or_default())
}

static ENGINE: OnceLock<Result<Engine, Error>> = OnceLock::new();

/// The engine of this process, started by whoever asks first.
pub(crate) fn engine() -> Result<&'static Engine, Error> {
    ENGINE.get_or_init(start).as_ref().map_err(Clone::clone)
}

/// Starts the engine on this thread, which Python takes for its main thread, and no other: who
/// calls this sees to the requests to end calls.
pub(crate) fn start_here() -> Result<Receiver<Arc<Running>>, Error> {
    let (interrupter, requests) = limits::channel();
    ENGINE.get_or_init(|| initialise().and_then(|()| built(interrupter)).map_err(failed));
    engine().map(|_| requests)
}

/// Starts the interpreter on a thread of its own, which stays: Python takes the thread that
/// initialises it for its main thread, and it must outlive every other. It then ends calls that
/// are out of time.
fn start() -> Result<Engine, Error> {
    let (ready, started) = mpsc::sync_channel(1);
    let main = move || {
        let (interrupter, requests) = limits::channel();
        let engine = initialise().and_then(|()| built(interrupter));
        let works = engine.is_ok();
        if ready.send(engine).is_ok() && works {
            limits::watch(&requests);
        }
    };
    let thread = std::thread::Builder::new().name("quadriga-python".to_owned());
    thread.spawn(main).map_err(|error| failed(error.to_string()))?;
    started.recv().map_err(|error| failed(error.to_string()))?.map_err(failed)
}

fn failed(what: String) -> Error {
    Error::new(ErrorCode::LoadFailed, format!("Python could not be started: {what}"))
}

fn built(interrupter: Interrupter) -> Result<Engine, String> {
    Python::attach(|py| build(py, interrupter).map_err(|error| error.to_string()))
}

fn build(py: Python<'_>, interrupter: Interrupter) -> PyResult<Engine> {
    let module = |code, file, name| PyModule::from_code(py, code, file, name);
    let code = ffi::c_str!(include_str!("python/spaces.py"));
    let spaces = module(code, c"<quadriga>/spaces.py", c"_quadriga_spaces")?;
    spaces.call_method0("install")?;
    let code = ffi::c_str!(include_str!("python/watch.py"));
    let watch = module(code, c"<quadriga>/watch.py", c"_quadriga_watch")?;
    watch.call_method0("install")?;
    let code = ffi::c_str!(include_str!("python/shapes.py"));
    module(code, c"<quadriga>/shapes.py", c"_quadriga_shapes")?;
    let code = ffi::c_str!(include_str!("python/objects.py"));
    let objects = module(code, c"<quadriga>/objects.py", c"_quadriga_objects")?;
    let code = ffi::c_str!(include_str!("python/guest.py"));
    let guest = module(code, c"<quadriga>/guest.py", c"_quadriga_guest")?;
    guest.call_method1("redirect", (Orphan,))?;
    let code = ffi::c_str!(include_str!("../../sdk/python/src/quadriga/timestamp.py"));
    let timestamp = module(code, c"<quadriga>/timestamp.py", c"_quadriga_timestamp")?;
    let sdk = PyDict::new(py);
    let compile = py.import("builtins")?.getattr("compile")?;
    for (name, source) in SDK {
        sdk.set_item(name, compile.call1((source, format!("<{name}>"), "exec"))?)?;
    }
    let code = ffi::c_str!(include_str!("python/rehearsal.py"));
    let rehearsal = module(code, c"<quadriga>/rehearsal.py", c"_quadriga_rehearsal")?;
    let code = ffi::c_str!(include_str!("python/loops.py"));
    let loops = module(code, c"<quadriga>/loops.py", c"_quadriga_loops")?;
    let on_loops = |name: &str| loops.getattr(name).map(Bound::unbind);
    let get = |name: &str| guest.getattr(name).map(Bound::unbind);
    let os: String = py.import("os")?.getattr("__file__")?.extract()?;
    Ok(Engine {
        interrupter,
        interrupted: get("Interrupted")?,
        open_space: get("open_space")?,
        close_space: get("close_space")?,
        compile_entry: get("compile_entry")?,
        load: get("load")?,
        run: get("run")?,
        drain: get("drain")?,
        new_loop: on_loops("Loop")?,
        current_task: on_loops("current")?,
        cancel_task: on_loops("cancel")?,
        is_current_task: on_loops("is_current")?,
        wait: on_loops("wait")?,
        next_of: on_loops("next_of")?,
        feed: on_loops("feed")?,
        settle: on_loops("settle")?,
        current_frames: py.import("sys")?.getattr("_current_frames")?.unbind(),
        standard_library: os.rsplit_once("os.py").unwrap_or_default().0.to_owned(),
        cancel: get("cancel")?,
        fits: get("fits")?,
        report: get("report")?,
        watch_files: watch.getattr("watch_files")?.unbind(),
        timestamp: timestamp.getattr("Timestamp")?.unbind(),
        plain: objects.getattr("plain")?.unbind(),
        rehearse: rehearsal.getattr("rehearse")?.unbind(),
        sdk: sdk.unbind(),
    })
}

/// Starts an interpreter that takes nothing from the host's environment, user or site-packages,
/// and leaves signals, bytecode files and the locale alone. One that runs already is used as it is.
#[expect(unsafe_code, reason = "pyo3 offers no way to choose the configuration")]
fn initialise() -> Result<(), String> {
    // SAFETY: each structure is initialised by CPython before it is read, the calls come in the
    // order that CPython asks for, on one thread, and the last one gives up the interpreter's lock
    // that initialising took.
    unsafe {
        if ffi::Py_IsInitialized() != 0 {
            return Ok(());
        }
        let mut early = MaybeUninit::uninit();
        ffi::PyPreConfig_InitIsolatedConfig(early.as_mut_ptr());
        let mut early = early.assume_init();
        early.utf8_mode = 1;
        check(ffi::Py_PreInitialize(&raw const early))?;
        let mut config = MaybeUninit::uninit();
        ffi::PyConfig_InitIsolatedConfig(config.as_mut_ptr());
        let mut config = config.assume_init();
        config.site_import = 0;
        config.write_bytecode = 0;
        let status = ffi::Py_InitializeFromConfig(&raw const config);
        ffi::PyConfig_Clear(&raw mut config);
        check(status)?;
        ffi::PyEval_SaveThread();
    }
    Ok(())
}

#[expect(unsafe_code, reason = "the message is a C string")]
fn check(status: ffi::PyStatus) -> Result<(), String> {
    // SAFETY: only looks at the value.
    if unsafe { ffi::PyStatus_Exception(status) } == 0 {
        return Ok(());
    }
    if status.err_msg.is_null() {
        return Err(format!("it exited with {}", status.exitcode));
    }
    // SAFETY: CPython points to a static text.
    Err(unsafe { CStr::from_ptr(status.err_msg) }.to_string_lossy().into_owned())
}

//! The interpreter in a process that is forked for each extension.
//!
//! What is shared by all that are forked from one: the addresses of what was there, and the seed of
//! Python's hashes, which cannot change once names have been hashed. `random` gets a new seed.

use std::ffi::OsString;
use std::os::unix::ffi::OsStringExt as _;
use std::sync::Arc;
use std::sync::mpsc::Receiver;
use std::thread;

use pyo3::exceptions::PyRuntimeError;
use pyo3::ffi;
use pyo3::ffi::PyGILState_STATE;
use pyo3::prelude::*;
use pyo3::types::PyBytes;
use quadriga_abi::{Error, ErrorCode};
use quadriga_core::Warm;

use crate::config;
use crate::limits::{self, Running};

/// A started interpreter, before there is an extension.
pub(crate) struct WarmPython {
    /// What asks for calls to be ended, for the thread that does it.
    requests: Option<Receiver<Arc<Running>>>,
    /// The hold on the interpreter that a fork is done with.
    held: Option<PyGILState_STATE>,
}

/// Starts the interpreter, imports what every extension needs, and tidies up.
pub(crate) fn warm() -> Result<WarmPython, Error> {
    let requests = config::start_here()?;
    Python::attach(|py| watched(py).and_then(|()| settle(py))).map_err(failed)?;
    Ok(WarmPython { requests: Some(requests), held: None })
}

/// Wraps the functions that each worker watches.
fn watched(py: Python<'_>) -> PyResult<()> {
    py.import("_quadriga_watch")?.call_method0("wrap").map(drop)
}

/// Lets the collector look at nothing of this again, so that its pages stay shared.
fn settle(py: Python<'_>) -> PyResult<()> {
    let gc = py.import("gc")?;
    gc.call_method0("collect")?;
    gc.call_method0("freeze").map(drop)
}

fn failed(error: PyErr) -> Error {
    Error::new(ErrorCode::LoadFailed, format!("Python could not be made ready: {error}"))
}

impl WarmPython {
    /// Undoes `before_fork` in a child, and does something before the hold on the interpreter is
    /// given up. Does nothing if there is no hold.
    #[expect(unsafe_code, reason = "pyo3 does not wrap what CPython wants to know of a fork")]
    fn after_fork(&mut self, then: impl FnOnce(Python<'_>) -> PyResult<()>) -> PyResult<()> {
        let Some(held) = self.held.take() else { return Ok(()) };
        // SAFETY: undoes `before_fork`, in the copy of the same thread; the functions that
        // `os.register_at_fork` was given run here.
        unsafe { ffi::PyOS_AfterFork_Child() };
        let done = Python::attach(then);
        // SAFETY: the lock is held since `before_fork`.
        unsafe { ffi::PyGILState_Release(held) };
        done
    }
}

#[expect(unsafe_code, reason = "pyo3 does not wrap what CPython wants to know of a fork")]
impl Warm for WarmPython {
    fn before_fork(&mut self) {
        // SAFETY: the interpreter runs, on this thread; its lock is held until after the fork.
        unsafe {
            self.held = Some(ffi::PyGILState_Ensure());
            ffi::PyOS_BeforeFork();
        }
    }

    fn in_parent(&mut self) {
        let Some(held) = self.held.take() else { return };
        // SAFETY: undoes `before_fork`, on the same thread.
        unsafe {
            ffi::PyOS_AfterFork_Parent();
            ffi::PyGILState_Release(held);
        }
    }

    fn rehearse(&mut self) {
        // What goes wrong here does so again, and is told, where there is an extension.
        let _ = self.after_fork(|py| {
            renew(py)?;
            let engine = config::engine().map_err(|error| PyRuntimeError::new_err(error.to_string()))?;
            engine.rehearse.bind(py).call1((&engine.sdk,)).map(drop)
        });
        // The child may fork once more on its way into its confinement.
        self.before_fork();
    }

    fn in_child(&mut self) -> Result<(), Error> {
        self.after_fork(renew).map_err(failed)?;
        let Some(requests) = self.requests.take() else { return Ok(()) };
        let thread = thread::Builder::new().name("quadriga-python".to_owned());
        thread.spawn(move || limits::watch(&requests)).map(drop).map_err(|error| {
            Error::new(ErrorCode::LoadFailed, format!("no thread to interrupt calls: {error}"))
        })
    }
}

/// Python has read the environment once, and it has changed since.
fn renew(py: Python<'_>) -> PyResult<()> {
    // Before what Python clears is cleared for all.
    let variables: Vec<_> = std::env::vars_os().collect();
    let environment = py.import("os")?.getattr("environb")?;
    environment.call_method0("clear")?;
    let bytes = |text: OsString| PyBytes::new(py, &text.into_vec());
    for (name, value) in variables {
        environment.set_item(bytes(name), bytes(value))?;
    }
    py.import("time")?.call_method0("tzset").map(drop)
}

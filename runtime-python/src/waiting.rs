//! Futures of Rust that coroutines wait for, without holding up their event loop.

use std::future::Future;

use parking_lot::Mutex;
use pyo3::exceptions::PyRuntimeError;
use pyo3::prelude::*;
use pyo3::types::{PyCFunction, PyTuple};
use quadriga_abi::{Bytes, Error};
use tokio::task::AbortHandle;

use crate::config::{Engine, engine};
use crate::host_call::Host;
use crate::thread;

/// What is waited for: encoded, or nothing.
type Ready = Result<Option<Bytes>, Error>;

/// Gives a wait up.
#[pyclass(frozen)]
struct Abort(AbortHandle);

#[pymethods]
impl Abort {
    fn __call__(&self) {
        self.0.abort();
    }
}

/// A coroutine for the value that a future gives; None for nothing.
pub(crate) fn whole<'py>(
    host: &Bound<'py, Host>,
    future: impl Future<Output = Ready> + Send + 'static,
    what: String,
) -> PyResult<Bound<'py, PyAny>> {
    fn itself(value: Bound<'_, PyAny>) -> PyResult<Bound<'_, PyAny>> {
        Ok(value)
    }
    wait(host, |engine| &engine.wait, future, what, itself)
}

/// A coroutine for an item, in the way of `__anext__`; nothing stands for the end.
pub(crate) fn item<'py>(
    host: &Bound<'py, Host>,
    future: impl Future<Output = Ready> + Send + 'static,
) -> PyResult<Bound<'py, PyAny>> {
    fn tuple(value: Bound<'_, PyAny>) -> PyResult<Bound<'_, PyAny>> {
        Ok(PyTuple::new(value.py(), [&value])?.into_any())
    }
    wait(host, |engine| &engine.next_of, future, "an item of the stream".to_owned(), tuple)
}

fn wait<'py>(
    host: &Bound<'py, Host>,
    coroutine: fn(&Engine) -> &Py<PyAny>,
    future: impl Future<Output = Ready> + Send + 'static,
    what: String,
    wrap: for<'a> fn(Bound<'a, PyAny>) -> PyResult<Bound<'a, PyAny>>,
) -> PyResult<Bound<'py, PyAny>> {
    let py = host.py();
    let engine = engine().map_err(|error| PyRuntimeError::new_err(error.message.clone()))?;
    let started = Mutex::new(Some((future, host.clone().unbind(), what)));
    let begin = PyCFunction::new_closure(py, None, None, move |arguments: &Bound<'_, PyTuple>, _| {
        let waiter = arguments.get_item(0)?;
        let event_loop = waiter.call_method0("get_loop")?.unbind();
        let waiter = waiter.unbind();
        let (future, host, what) =
            started.lock().take().ok_or_else(|| PyRuntimeError::new_err("it was waited for already"))?;
        let executor = host.get().executor.clone();
        let task = executor.spawn(async move {
            let ready = future.await;
            // Whoever holds the interpreter's lock must not hold up the executor.
            let settled = tokio::task::spawn_blocking(move || {
                thread::attach(|py| {
                    let settled = settle(py, &host, ready, &what, wrap);
                    let (value, error) = match settled {
                        Ok(value) => (Some(value), None),
                        Err(error) => (None, Some(error.into_value(py))),
                    };
                    // The loop may be closed by now, and then nobody waits.
                    let settle = &engine.settle;
                    let _ =
                        event_loop.call_method1(py, "call_soon_threadsafe", (settle, waiter, value, error));
                });
            });
            let _ = settled.await;
        });
        Ok::<_, PyErr>(Abort(task.abort_handle()))
    })?;
    coroutine(engine).bind(py).call1((begin,))
}

fn settle(
    py: Python<'_>,
    host: &Py<Host>,
    ready: Ready,
    what: &str,
    wrap: for<'a> fn(Bound<'a, PyAny>) -> PyResult<Bound<'a, PyAny>>,
) -> PyResult<Py<PyAny>> {
    let host = host.get();
    match ready {
        Ok(Some(bytes)) => Ok(wrap(host.decode(py, &bytes, what)?)?.unbind()),
        Ok(None) => Ok(py.None()),
        Err(error) => Err(host.raise(py, &error)),
    }
}

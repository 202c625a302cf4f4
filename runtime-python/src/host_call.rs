//! What guests call: the object behind the SDK's `quadriga.host`.

use std::sync::OnceLock;

use pyo3::exceptions::PyRuntimeError;
use pyo3::prelude::*;
use pyo3::types::PyTuple;
use quadriga_abi::Error;
use quadriga_abi::msgpack::{Depth, Token, write};
use quadriga_core::{Bridge, CallContext, LogLevel};

use crate::config;
use crate::convert::{self, Misfit};
use crate::limits::Running;

/// The module `quadriga._host` of one extension.
#[pyclass(frozen)]
pub(crate) struct Host {
    bridge: Bridge,
    space: u64,
    /// Makes a QuadrigaError of this extension's SDK.
    error: OnceLock<Py<PyAny>>,
}

impl Host {
    pub(crate) fn new(bridge: Bridge, space: u64) -> Self {
        Self { bridge, space, error: OnceLock::new() }
    }

    /// The call that this thread runs for this extension; a call of its own for other threads.
    fn context(&self) -> CallContext {
        Running::current(self.space).map(|running| running.context).unwrap_or_default()
    }

    fn raise(&self, py: Python<'_>, error: &Error) -> PyErr {
        match self.exception(py, error) {
            Ok(exception) => PyErr::from_value(exception),
            Err(error) => error,
        }
    }

    fn exception<'py>(&self, py: Python<'py>, error: &Error) -> PyResult<Bound<'py, PyAny>> {
        let Some(make) = self.error.get() else {
            return Err(PyRuntimeError::new_err(error.message.clone()));
        };
        let cause = error.cause.as_ref().map(|cause| self.exception(py, cause)).transpose()?;
        let code = error.code.as_str();
        make.bind(py).call1((code, &error.message, &error.hint, &error.extension, &error.stack, cause))
    }
}

#[pymethods]
impl Host {
    /// Registers the class of errors. The SDK does it when it is imported.
    fn raises(&self, make: Py<PyAny>) {
        let _ = self.error.set(make);
    }

    /// The SDK's class for points in time finer than a datetime.
    #[getter(Timestamp)]
    fn timestamp(&self, py: Python<'_>) -> PyResult<Py<PyAny>> {
        let engine = config::engine().map_err(|error| PyRuntimeError::new_err(error.message))?;
        Ok(engine.timestamp.clone_ref(py))
    }

    fn call<'py>(
        &self,
        py: Python<'py>,
        extension: &str,
        method: &str,
        arguments: &Bound<'py, PyTuple>,
    ) -> PyResult<Bound<'py, PyAny>> {
        let running = Running::current(self.space);
        let context = running.as_ref().map(|running| running.context).unwrap_or_default();
        let arguments = encode_all(arguments)
            .map_err(|misfit| self.raise(py, &misfit.error(&format!("the call of {extension}/{method}"))))?;
        if let Some(running) = &running {
            running.leave(py)?;
        }
        let result = py.detach(|| self.bridge.call(&context, extension, method, arguments.into()).wait());
        if let Some(running) = &running {
            running.come_back(py)?;
        }
        let reply = result.map_err(|error| self.raise(py, &error))?;
        convert::decode(py, &reply)
            .map_err(|misfit| self.raise(py, &misfit.error(&format!("the reply of {extension}/{method}"))))
    }

    fn config<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyAny>> {
        let config = self.bridge.config();
        convert::decode(py, &config).map_err(|misfit| self.raise(py, &misfit.error("the configuration")))
    }

    fn cancelled(&self) -> bool {
        self.bridge.cancelled(&self.context())
    }

    fn log(&self, py: Python<'_>, level: &str, message: &str) {
        let level = level_of(level);
        let context = self.context();
        // Whoever subscribes to the log may wait for a lock.
        py.detach(|| self.bridge.log(&context, level, message));
    }
}

/// Takes what is printed outside of any extension.
#[pyclass(frozen)]
pub(crate) struct Orphan;

#[pymethods]
impl Orphan {
    fn __call__(&self, level: &str, message: &str) {
        tracing::info!(target: "quadriga::python", level, "{message}");
    }
}

fn encode_all(arguments: &Bound<'_, PyTuple>) -> Result<Vec<u8>, Misfit> {
    let mut out = Vec::with_capacity(64);
    write(&mut out, Token::List(arguments.len()))?;
    for (index, argument) in arguments.iter_borrowed().enumerate() {
        convert::encode(&mut out, &argument, Depth::default())
            .map_err(|misfit| misfit.at(format!("argument {}", index + 1)))?;
    }
    Ok(out)
}

fn level_of(level: &str) -> LogLevel {
    match level {
        "trace" => LogLevel::Trace,
        "debug" => LogLevel::Debug,
        "warn" => LogLevel::Warn,
        "error" => LogLevel::Error,
        _ => LogLevel::Info,
    }
}

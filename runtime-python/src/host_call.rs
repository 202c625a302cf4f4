//! What guests call: the object behind the SDK's `quadriga.host`.

use std::sync::OnceLock;
use std::sync::atomic::{AtomicU32, Ordering::Relaxed};

use pyo3::exceptions::PyRuntimeError;
use pyo3::intern;
use pyo3::prelude::*;
use pyo3::types::{PyIterator, PyTuple};
use quadriga_abi::msgpack::{Depth, STREAM, Token, write};
use quadriga_abi::permission::{Access, FsMode};
use quadriga_abi::{Bytes, Error, ErrorCode};
use quadriga_core::{Bridge, CallContext, Counter, LogLevel};
use tokio::runtime::Handle;

use crate::config;
use crate::convert::{self, Misfit};
use crate::limits::Running;
use crate::stream::{self, Items};
use crate::waiting;

/// The module `quadriga._host` of one extension.
#[pyclass(frozen)]
pub(crate) struct Host {
    pub(crate) bridge: Bridge,
    space: u64,
    /// It has a process of its own, which may start programs.
    starts_programs: bool,
    /// Makes a QuadrigaError of this extension's SDK.
    error: OnceLock<Py<PyAny>>,
    /// Polls what coroutines wait for.
    pub(crate) executor: Handle,
    /// How many calls hold up the extension's event loop, because they wait on its thread.
    pub(crate) blocking: AtomicU32,
}

impl Host {
    pub(crate) fn new(bridge: Bridge, space: u64, starts_programs: bool, executor: Handle) -> Self {
        let (error, blocking) = (OnceLock::new(), AtomicU32::new(0));
        Self { bridge, space, starts_programs, error, executor, blocking }
    }

    /// The call that this thread runs for this extension; a call of its own for other threads.
    pub(crate) fn context(&self, py: Python<'_>) -> CallContext {
        Running::current(py, self.space).map(|running| running.context).unwrap_or_default()
    }

    /// Waits for others, without the interpreter's lock.
    pub(crate) fn away<T: Send>(&self, py: Python<'_>, wait: impl FnOnce() -> T + Send) -> PyResult<T> {
        let Some(running) = Running::current(py, self.space) else { return Ok(py.detach(wait)) };
        running.leave(py)?;
        let blocks = u32::from(running.is_task());
        self.blocking.fetch_add(blocks, Relaxed);
        let result = py.detach(wait);
        self.blocking.fetch_sub(blocks, Relaxed);
        running.come_back(py)?;
        Ok(result)
    }

    pub(crate) fn decode<'py>(
        &self,
        py: Python<'py>,
        bytes: &[u8],
        what: &str,
    ) -> PyResult<Bound<'py, PyAny>> {
        convert::decode(py, bytes).map_err(|misfit| self.raise(py, &misfit.error(what)))
    }

    /// The arguments of a call, and the iterator among them if one is to be sent as a stream.
    fn encode<'py>(
        &self,
        py: Python<'py>,
        extension: &str,
        method: &str,
        arguments: &Bound<'py, PyTuple>,
    ) -> PyResult<(Bytes, Option<Bound<'py, PyAny>>)> {
        let encoded = encode_all(arguments);
        let (bytes, feed) = encoded
            .map_err(|misfit| self.raise(py, &misfit.error(&format!("the call of {extension}/{method}"))))?;
        Ok((bytes.into(), feed))
    }

    pub(crate) fn raise(&self, py: Python<'_>, error: &Error) -> PyErr {
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
        let engine = config::engine().map_err(|error| PyRuntimeError::new_err(error.to_string()))?;
        Ok(engine.timestamp.clone_ref(py))
    }

    fn call<'py>(
        &self,
        py: Python<'py>,
        extension: &str,
        method: &str,
        arguments: &Bound<'py, PyTuple>,
    ) -> PyResult<Bound<'py, PyAny>> {
        let context = self.context(py);
        let (arguments, feed) = self.encode(py, extension, method, arguments)?;
        let result = match feed {
            None => self.away(py, || self.bridge.call(&context, extension, method, arguments).wait())?,
            Some(items) => stream::feed(self, py, (extension, method, arguments), &items)?,
        };
        let reply = result.map_err(|error| self.raise(py, &error))?;
        self.decode(py, &reply, &format!("the reply of {extension}/{method}"))
    }

    /// A coroutine that calls and waits without holding up its event loop.
    fn call_async<'py>(
        slf: &Bound<'py, Self>,
        extension: &str,
        method: &str,
        arguments: &Bound<'py, PyTuple>,
    ) -> PyResult<Bound<'py, PyAny>> {
        let (py, host) = (slf.py(), slf.get());
        let (arguments, feed) = host.encode(py, extension, method, arguments)?;
        let context = host.context(py);
        if let Some(items) = feed {
            let call = (extension, method, arguments);
            return stream::feed_later(slf, &context, call, &items);
        }
        let reply = host.bridge.call_detached(&context, extension, method, arguments);
        let reply = async move { reply.await.map(Some) };
        waiting::whole(slf, reply, format!("the reply of {extension}/{method}"))
    }

    /// Begins a call whose items are read while it runs.
    fn stream<'py>(
        slf: &Bound<'py, Self>,
        extension: &str,
        method: &str,
        arguments: &Bound<'py, PyTuple>,
    ) -> PyResult<Items> {
        let (py, host) = (slf.py(), slf.get());
        let (arguments, feed) = host.encode(py, extension, method, arguments)?;
        if feed.is_some() {
            let message = "host.stream reads a stream; only host.call can send one";
            return Err(host.raise(py, &Error::new(ErrorCode::InvalidArguments, message)));
        }
        let items = host.bridge.start(&host.context(py), extension, method, arguments, None, true);
        Ok(Items::new(slf.clone().unbind(), items))
    }

    fn config<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyAny>> {
        let config = self.bridge.config();
        convert::decode(py, &config).map_err(|misfit| self.raise(py, &misfit.error("the configuration")))
    }

    fn cancelled(&self, py: Python<'_>) -> bool {
        self.bridge.cancelled(&self.context(py))
    }

    /// The kernel refused access to a file.
    fn refused(&self, py: Python<'_>, path: &str, writes: bool) {
        let mode = if writes { FsMode::ReadWrite } else { FsMode::ReadOnly };
        self.bridge.claim(&self.context(py), &Access::Fs { path, mode }, false);
    }

    /// The extension is about to start a process: which program, if that is known. Where some were
    /// granted, why it may not start this one and what to do about it; the kernel has been told the
    /// same. Where none was, the kernel refuses all and tells the host, whose word counts for more.
    fn starts(&self, py: Python<'_>, program: Option<&str>) -> Option<(String, Option<String>)> {
        let Some(program) = program.filter(|_| self.starts_programs) else {
            self.bridge.report(Counter::Spawns, 1);
            return None;
        };
        let refusal = self.bridge.check(&self.context(py), &Access::Subprocess(program)).err()?;
        Some((refusal.message.clone(), refusal.hint.clone()))
    }

    fn log(&self, py: Python<'_>, level: &str, message: &str) {
        let level = level_of(level);
        let context = self.context(py);
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

fn encode_all<'py>(arguments: &Bound<'py, PyTuple>) -> Result<(Vec<u8>, Option<Bound<'py, PyAny>>), Misfit> {
    let mut out = Vec::with_capacity(64);
    let mut feed = None;
    write(&mut out, Token::List(arguments.len()))?;
    for (index, argument) in arguments.iter_borrowed().enumerate() {
        let at = |misfit: Misfit| misfit.at(format!("argument {}", index + 1));
        if argument.is_instance_of::<PyIterator>() || argument.hasattr(intern!(argument.py(), "__anext__"))? {
            if feed.is_some() {
                return Err(at(Misfit::new("a call takes one stream at most")));
            }
            out.extend_from_slice(STREAM);
            feed = Some(argument.to_owned());
        } else {
            convert::encode(&mut out, &argument, Depth::default()).map_err(at)?;
        }
    }
    Ok((out, feed))
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

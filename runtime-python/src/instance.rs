//! One loaded extension.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::time::Duration;

use parking_lot::Mutex;
use pyo3::exceptions::PyTypeError;
use pyo3::ffi;
use pyo3::prelude::*;
use pyo3::types::{PyCFunction, PyTuple};
use quadriga_abi::msgpack::Depth;
use quadriga_abi::{Bytes, Description, Error, ErrorCode};
use quadriga_core::{BoxFuture, Call, Instance, Outcome, Usage};

use crate::config::Engine;
use crate::error::{Phase, from_exception};
use crate::host_call::Host;
use crate::limits::{Calls, Running};
use crate::stream::{self, Emitter};
use crate::{convert, thread};

/// How long a shutdown waits for calls that it has interrupted.
const PATIENCE: Duration = Duration::from_secs(2);

/// An extension in its module space.
pub(crate) struct PythonInstance {
    inner: Arc<Inner>,
}

struct Inner {
    extension: String,
    description: Description,
    engine: &'static Engine,
    number: u64,
    space: Py<PyAny>,
    host: Py<Host>,
    calls: Calls,
    closed: AtomicBool,
    /// By their place in the description. Emptied by the shutdown, so that the modules can go.
    functions: Mutex<Arc<[Py<PyAny>]>>,
}

impl PythonInstance {
    pub(crate) fn new(
        extension: String,
        description: Description,
        engine: &'static Engine,
        number: u64,
        space: Py<PyAny>,
        host: Py<Host>,
        functions: Vec<Py<PyAny>>,
    ) -> Self {
        let inner = Inner {
            extension,
            description,
            engine,
            number,
            space,
            host,
            calls: Calls::default(),
            closed: AtomicBool::new(false),
            functions: Mutex::new(functions.into()),
        };
        Self { inner: Arc::new(inner) }
    }
}

impl Instance for PythonInstance {
    fn describe(&self) -> &Description {
        &self.inner.description
    }

    fn call(&self, call: Call) -> Outcome {
        let result = thread::attach(|py| self.inner.call(py, &call));
        Outcome::Ready(result.map_err(|error| error.in_extension(&self.inner.extension)))
    }

    fn blocks(&self) -> bool {
        true
    }

    fn interrupt(&self, call: u64) {
        self.inner.calls.interrupt(call);
    }

    fn usage(&self) -> Usage {
        Usage { memory: None, instances: 1 }
    }

    fn shutdown(&self) -> BoxFuture<'_, ()> {
        let inner = Arc::clone(&self.inner);
        Box::pin(async move {
            let _ = tokio::task::spawn_blocking(move || inner.close()).await;
        })
    }
}

/// For a load that finished after its caller had gone.
impl Drop for Inner {
    fn drop(&mut self) {
        self.close();
    }
}

impl Inner {
    fn call(&self, py: Python<'_>, call: &Call) -> Result<Bytes, Error> {
        let function = self.functions.lock().get(call.method).map(|function| function.clone_ref(py));
        let Some(function) = function else {
            return Err(if self.closed.load(Relaxed) {
                Error::new(ErrorCode::ExtensionStopped, "the extension has been unloaded")
            } else {
                Error::new(ErrorCode::UnknownMethod, format!("there is no method {}", call.name()))
            });
        };
        let (output, input) = match &call.streams {
            Some(streams) => (streams.output.as_ref(), streams.input.as_ref()),
            None => (None, None),
        };
        let input = || stream::argument(py, &self.host, input.cloned());
        let arguments = convert::arguments(py, &call.envelope.payload, input)?;
        let result = self.calls.run(py, self.number, call.context(), |running| {
            let mut result = function.bind(py).call1(&arguments)?;
            if let Some(output) = output {
                let emitter = Emitter::new(self.host.clone_ref(py), output.clone());
                match stream::drain(&result, emitter)? {
                    Some(coroutine) => result = coroutine,
                    None => return Ok(py.None().into_bound(py)),
                }
            }
            if is_coroutine(&result) { self.run_coroutine(&result, running) } else { Ok(result) }
        })?;
        match result {
            Ok(value) => {
                let mut out = Vec::with_capacity(64);
                convert::encode(&mut out, &value, Depth::default())
                    .map_err(|misfit| misfit.error(&format!("the result of {}", call.name())))?;
                Ok(out.into())
            }
            Err(exception) => Err(self.failed(py, call, &function, &arguments, &exception)),
        }
    }

    fn run_coroutine<'py>(
        &self,
        coroutine: &Bound<'py, PyAny>,
        running: &Arc<Running>,
    ) -> PyResult<Bound<'py, PyAny>> {
        let py = coroutine.py();
        let running = Arc::clone(running);
        let started = PyCFunction::new_closure(py, None, None, move |arguments: &Bound<'_, PyTuple>, _| {
            running.set_event_loop(arguments.get_item(0)?.unbind());
            PyResult::Ok(())
        })?;
        self.engine.run.bind(py).call1((coroutine, started))
    }

    fn failed(
        &self,
        py: Python<'_>,
        call: &Call,
        function: &Py<PyAny>,
        arguments: &Bound<'_, PyTuple>,
        exception: &PyErr,
    ) -> Error {
        // One that never reached the function's body has no frames.
        if exception.is_instance_of::<PyTypeError>(py) && exception.traceback(py).is_none() {
            let misfit = self.engine.fits.bind(py).call1((call.name(), function, arguments));
            if let Ok(Some(message)) = misfit.and_then(|misfit| misfit.extract::<Option<String>>()) {
                return Error::new(ErrorCode::InvalidArguments, message);
            }
        }
        from_exception(py, self.engine, &self.space, Phase::Call, exception)
    }

    /// Ends what still runs, then forgets the modules.
    fn close(&self) {
        if self.closed.swap(true, Relaxed) {
            return;
        }
        self.calls.interrupt_all();
        let until = std::time::Instant::now() + PATIENCE;
        while !self.calls.is_empty() && std::time::Instant::now() < until {
            std::thread::sleep(Duration::from_millis(1));
        }
        let functions = std::mem::replace(&mut *self.functions.lock(), Arc::new([]));
        thread::attach(|py| {
            drop(functions);
            if let Err(error) = self.engine.close_space.bind(py).call1((&self.space,)) {
                tracing::warn!(extension = self.extension, "its modules could not be removed: {error}");
            }
        });
    }
}

#[expect(unsafe_code, reason = "pyo3 has no type for coroutines")]
fn is_coroutine(value: &Bound<'_, PyAny>) -> bool {
    // SAFETY: looks at the type of a live object.
    unsafe { ffi::PyCoro_CheckExact(value.as_ptr()) != 0 }
}

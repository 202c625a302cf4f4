//! One loaded extension.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::time::Duration;

use parking_lot::Mutex;
use pyo3::exceptions::PyTypeError;
use pyo3::ffi;
use pyo3::prelude::*;
use pyo3::types::{PyCFunction, PyTuple};
use quadriga_abi::limits::{Limits, Span};
use quadriga_abi::msgpack::Depth;
use quadriga_abi::{Bytes, Description, Error, ErrorCode};
use quadriga_core::{BoxFuture, Call, Instance, Outcome, Usage};
use tokio::sync::oneshot;

use crate::config::Engine;
use crate::error::{Phase, from_exception};
use crate::host_call::Host;
use crate::limits::{Calls, Running, Task};
use crate::stream::{self, Emitter};
use crate::{convert, cpu, thread};

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
    /// Which methods run on the event loop, by their place in the description.
    asynchronous: Vec<bool>,
    /// The event loop, from the first such call on.
    event_loop: Mutex<Option<Py<PyAny>>>,
    closed: AtomicBool,
    /// By their place in the description. Emptied by the shutdown, so that the modules can go.
    functions: Mutex<Arc<[Py<PyAny>]>>,
}

impl PythonInstance {
    #[expect(clippy::too_many_arguments, reason = "it only fills a struct")]
    pub(crate) fn new(
        extension: String,
        description: Description,
        engine: &'static Engine,
        number: u64,
        space: Py<PyAny>,
        host: Py<Host>,
        functions: Vec<Py<PyAny>>,
        asynchronous: Vec<bool>,
    ) -> Self {
        let inner = Inner {
            extension,
            description,
            engine,
            number,
            space,
            host,
            calls: Calls::default(),
            asynchronous,
            event_loop: Mutex::new(None),
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
        let inner = &self.inner;
        let waits = inner.asynchronous.get(call.method).is_some_and(|waits| *waits);
        // A loop whose thread waits for a callee must not get what the callee waits for.
        if waits && inner.host.get().blocking.load(Relaxed) == 0 {
            return inner.begin(call);
        }
        let result = thread::attach(|py| inner.call(py, &call));
        Outcome::Ready(result.map_err(|error| error.in_extension(&self.inner.extension)))
    }

    fn blocks(&self) -> bool {
        true
    }

    fn interrupt(&self, call: u64) {
        self.inner.calls.interrupt(call);
    }

    fn usage(&self) -> Usage {
        Usage { instances: 1, ..Usage::default() }
    }

    fn set_limits(&self, limits: &Limits) -> Result<(), Error> {
        if let Some(Span(limit)) = limits.cpu_time {
            cpu::start()
                .map_err(|error| Error::new(ErrorCode::Internal, format!("no thread for clocks: {error}")))?;
            self.inner.calls.1.set(limit);
        }
        Ok(())
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
    /// Begins a call on the event loop of the extension.
    fn begin(self: &Arc<Self>, call: Call) -> Outcome {
        let (answer, reply) = oneshot::channel();
        let begun = thread::attach(|py| {
            let (function, arguments) = self.prepare(py, &call)?;
            self.submit(py, &call, function, &arguments, answer)
                .map_err(|exception| from_exception(py, self.engine, &self.space, Phase::Call, &exception))
        });
        if let Err(error) = begun {
            return error.in_extension(&self.extension).into();
        }
        let extension = self.extension.clone();
        Outcome::Pending(Box::pin(async move {
            let stopped = || Error::new(ErrorCode::ExtensionStopped, "the extension has been unloaded");
            let result = reply.await.unwrap_or_else(|_| Err(stopped()));
            result.map_err(|error| error.in_extension(&extension))
        }))
    }

    fn submit(
        self: &Arc<Self>,
        py: Python<'_>,
        call: &Call,
        function: Py<PyAny>,
        arguments: &Bound<'_, PyTuple>,
        answer: oneshot::Sender<Result<Bytes, Error>>,
    ) -> PyResult<()> {
        let output = call.streams.as_ref().and_then(|streams| streams.output.clone());
        let emitter = output.map(|output| Emitter::new(self.host.clone_ref(py), output));
        let event_loop = self.event_loop(py)?;
        let running = self.calls.task(self.number, call.context());
        let task = Task(Arc::clone(&running));
        let (inner, name) = (Arc::clone(self), call.name().to_owned());
        let (given, called) = (arguments.clone().unbind(), function.clone_ref(py));
        let answer = Mutex::new(Some(answer));
        let done = PyCFunction::new_closure(py, None, None, move |outcome: &Bound<'_, PyTuple>, _| {
            let py = outcome.py();
            inner.calls.remove(&running);
            let (value, exception) = (outcome.get_item(0)?, outcome.get_item(1)?);
            let result = running.verdict().and_then(|()| {
                if exception.is_none() {
                    return encode(&name, &value);
                }
                let exception = PyErr::from_value(exception);
                Err(inner.failed(py, &name, &called, given.bind(py), &exception))
            });
            if let Some(answer) = answer.lock().take() {
                // The caller may have gone.
                let _ = answer.send(result);
            }
            PyResult::Ok(())
        })?;
        event_loop.call_method1("submit", (task, function, arguments, emitter, done)).map(drop)
    }

    fn event_loop<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyAny>> {
        if let Some(event_loop) = &*self.event_loop.lock() {
            return Ok(event_loop.bind(py).clone());
        }
        let new = self.engine.new_loop.bind(py).call1((format!("py {}", self.extension),))?;
        // Python code ran meanwhile, and another thread may have been quicker.
        let mut place = self.event_loop.lock();
        if let Some(event_loop) = &*place {
            let event_loop = event_loop.bind(py).clone();
            drop(place);
            new.call_method1("close", (0,))?;
            return Ok(event_loop);
        }
        *place = Some(new.clone().unbind());
        Ok(new)
    }

    /// The function of a call, and its arguments.
    fn prepare<'py>(&self, py: Python<'py>, call: &Call) -> Result<(Py<PyAny>, Bound<'py, PyTuple>), Error> {
        let function = self.functions.lock().get(call.method).map(|function| function.clone_ref(py));
        let Some(function) = function else {
            return Err(if self.closed.load(Relaxed) {
                Error::new(ErrorCode::ExtensionStopped, "the extension has been unloaded")
            } else {
                Error::new(ErrorCode::UnknownMethod, format!("there is no method {}", call.name()))
            });
        };
        let input = call.streams.as_ref().and_then(|streams| streams.input.clone());
        let input = || stream::argument(py, &self.host, input.clone());
        Ok((function, convert::arguments(py, &call.envelope.payload, input)?))
    }

    /// Runs a call on this thread, to its end.
    fn call(&self, py: Python<'_>, call: &Call) -> Result<Bytes, Error> {
        let (function, arguments) = self.prepare(py, call)?;
        let output = call.streams.as_ref().and_then(|streams| streams.output.as_ref());
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
            Ok(value) => encode(call.name(), &value),
            Err(exception) => Err(self.failed(py, call.name(), &function, &arguments, &exception)),
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
        name: &str,
        function: &Py<PyAny>,
        arguments: &Bound<'_, PyTuple>,
        exception: &PyErr,
    ) -> Error {
        // One that never reached the function's body has no frames.
        if exception.is_instance_of::<PyTypeError>(py) && exception.traceback(py).is_none() {
            let misfit = self.engine.fits.bind(py).call1((name, function, arguments));
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
        let event_loop = self.event_loop.lock().take();
        thread::attach(|py| {
            drop(functions);
            if let Some(event_loop) = event_loop
                && let Err(error) = event_loop.bind(py).call_method1("close", (PATIENCE.as_secs_f64(),))
            {
                tracing::warn!(extension = self.extension, "its event loop could not be ended: {error}");
            }
            if let Err(error) = self.engine.close_space.bind(py).call1((&self.space,)) {
                tracing::warn!(extension = self.extension, "its modules could not be removed: {error}");
            }
        });
    }
}

fn encode(name: &str, value: &Bound<'_, PyAny>) -> Result<Bytes, Error> {
    let mut out = Vec::with_capacity(64);
    convert::encode(&mut out, value, Depth::default())
        .map_err(|misfit| misfit.error(&format!("the result of {name}")))?;
    Ok(out.into())
}

#[expect(unsafe_code, reason = "pyo3 has no type for coroutines")]
fn is_coroutine(value: &Bound<'_, PyAny>) -> bool {
    // SAFETY: looks at the type of a live object.
    unsafe { ffi::PyCoro_CheckExact(value.as_ptr()) != 0 }
}

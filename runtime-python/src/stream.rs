//! Streams: generators as results, and iterators as arguments, in both directions.

use std::sync::Arc;

use parking_lot::Mutex;
use pyo3::exceptions::{PyRuntimeError, PyStopIteration};
use pyo3::prelude::*;
use pyo3::types::PyIterator;
use quadriga_abi::msgpack::Depth;
use quadriga_abi::{Bytes, Error, ErrorCode};
use quadriga_core::{CallContext, Feed, Input, Output};

use crate::config::engine;
use crate::convert;
use crate::host_call::Host;
use crate::waiting;

/// The stream among the arguments of a call, as its function sees it: an iterator, for `for` and
/// for `async for`.
#[pyclass(frozen)]
pub(crate) struct Reader {
    host: Py<Host>,
    input: Input,
}

/// The items of another extension's stream, for `for` and for `async for`.
#[pyclass(frozen)]
pub(crate) struct Items {
    host: Py<Host>,
    /// `None` at its end, and while another thread waits for the next item.
    items: Arc<Mutex<Option<quadriga_core::Items>>>,
}

/// A call that a coroutine sends a stream.
#[pyclass(frozen)]
struct Channel {
    host: Py<Host>,
    ends: Arc<tokio::sync::Mutex<(quadriga_core::Items, Option<Feed>)>>,
    what: String,
}

/// Takes the items of one call's generator.
#[pyclass(frozen)]
pub(crate) struct Emitter {
    host: Py<Host>,
    output: Output,
}

impl Reader {
    pub(crate) fn new(host: Py<Host>, input: Input) -> Self {
        Self { host, input }
    }
}

impl Items {
    pub(crate) fn new(host: Py<Host>, items: quadriga_core::Items) -> Self {
        Self { host, items: Arc::new(Mutex::new(Some(items))) }
    }
}

impl Emitter {
    pub(crate) fn new(host: Py<Host>, output: Output) -> Self {
        Self { host, output }
    }
}

impl Emitter {
    fn encode(&self, item: &Bound<'_, PyAny>) -> PyResult<Bytes> {
        let mut out = Vec::with_capacity(64);
        convert::encode(&mut out, item, Depth::default())
            .map_err(|misfit| self.host.get().raise(item.py(), &misfit.error("an item of the result")))?;
        Ok(out.into())
    }
}

#[pymethods]
impl Emitter {
    /// Hands an item on; returns a coroutine if the consumer has enough to read, else nothing.
    fn later<'py>(&self, item: &Bound<'py, PyAny>) -> PyResult<Option<Bound<'py, PyAny>>> {
        let py = item.py();
        let item = self.encode(item)?;
        match self.output.try_emit(&item) {
            Some(emitted) => emitted.map(|()| None).map_err(|error| self.host.get().raise(py, &error)),
            None => {
                let output = self.output.clone();
                let emitted = async move { output.emit_later(item).await.map(|()| None) };
                waiting::whole(self.host.bind(py), emitted, String::new()).map(Some)
            }
        }
    }

    /// Hands an item on, and waits while the consumer has enough to read.
    fn __call__(&self, item: &Bound<'_, PyAny>) -> PyResult<()> {
        let (py, host) = (item.py(), self.host.get());
        let item = self.encode(item)?;
        // Most find room: then nobody needs the interpreter's lock meanwhile.
        let emitted = match self.output.try_emit(&item) {
            Some(emitted) => emitted,
            None => host.away(py, || self.output.emit(&item))?,
        };
        emitted.map_err(|error| host.raise(py, &error))
    }
}

#[pymethods]
impl Reader {
    fn __iter__(slf: Bound<'_, Self>) -> Bound<'_, Self> {
        slf
    }

    fn __next__<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyAny>> {
        let host = self.host.get();
        let item = host.away(py, || self.input.next())?;
        item_of(host, py, item)
    }

    fn __aiter__(slf: Bound<'_, Self>) -> Bound<'_, Self> {
        slf
    }

    fn __anext__<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyAny>> {
        let input = self.input.clone();
        waiting::item(self.host.bind(py), async move { input.next_later().await.transpose() })
    }
}

#[pymethods]
impl Items {
    fn __iter__(slf: Bound<'_, Self>) -> Bound<'_, Self> {
        slf
    }

    fn __next__<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyAny>> {
        let host = self.host.get();
        let Some(mut items) = self.items.lock().take() else {
            return Err(PyStopIteration::new_err(()));
        };
        let (item, items) = host.away(py, move || (items.next_blocking(), items))?;
        if matches!(item, Some(Ok(_))) {
            *self.items.lock() = Some(items);
        }
        item_of(host, py, item)
    }

    fn __aiter__(slf: Bound<'_, Self>) -> Bound<'_, Self> {
        slf
    }

    fn __anext__<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyAny>> {
        let place = Arc::clone(&self.items);
        let next = async move {
            let Some(mut items) = place.lock().take() else { return Ok(None) };
            let item = items.next().await.transpose()?;
            if item.is_some() {
                *place.lock() = Some(items);
            }
            Ok(item)
        };
        waiting::item(self.host.bind(py), next)
    }

    /// Gives the call up.
    fn close(&self) {
        *self.items.lock() = None;
    }
}

fn item_of<'py>(
    host: &Host,
    py: Python<'py>,
    item: Option<Result<Bytes, Error>>,
) -> PyResult<Bound<'py, PyAny>> {
    match item {
        Some(Ok(item)) => host.decode(py, &item, "an item of the stream"),
        Some(Err(error)) => Err(host.raise(py, &error)),
        None => Err(PyStopIteration::new_err(())),
    }
}

/// Makes a call that sends the items of an iterator along, until its callee has heard enough.
pub(crate) fn feed<'py>(
    host: &Host,
    py: Python<'py>,
    (extension, method, arguments): (&str, &str, Bytes),
    iterator: &Bound<'py, PyAny>,
) -> PyResult<Result<Bytes, Error>> {
    let (feed, input) = Feed::new();
    let mut reply = host.bridge.start(&host.context(py), extension, method, arguments, Some(input), false);
    if !iterator.is_instance_of::<PyIterator>() {
        let message = "an async iterator is sent by host.call_async";
        return Err(host.raise(py, &Error::new(ErrorCode::InvalidArguments, message)));
    }
    for item in iterator.try_iter()? {
        let mut out = Vec::with_capacity(64);
        convert::encode(&mut out, &item?, Depth::default())
            .map_err(|misfit| host.raise(py, &misfit.error("an item of the stream")))?;
        let (feed, waiting) = (&feed, &mut reply);
        // The call is over: its result says more than this error.
        if host.away(py, move || waiting.alongside_blocking(feed.send(out)))?.is_err() {
            break;
        }
    }
    if iterator.hasattr("close")? {
        iterator.call_method0("close")?;
    }
    feed.finish();
    let none = || Err(Error::new(ErrorCode::ProtocolViolation, "the call gave no result"));
    Ok(host.away(py, move || reply.next_blocking())?.unwrap_or_else(none))
}

/// A coroutine for a call that sends the items of an iterator along, async or not.
pub(crate) fn feed_later<'py>(
    host: &Bound<'py, Host>,
    context: &CallContext,
    (extension, method, arguments): (&str, &str, Bytes),
    iterator: &Bound<'py, PyAny>,
) -> PyResult<Bound<'py, PyAny>> {
    let engine = engine().map_err(|error| PyRuntimeError::new_err(error.message.clone()))?;
    let (feed, input) = Feed::new();
    let items = host.get().bridge.start(context, extension, method, arguments, Some(input), false);
    let channel = Channel {
        host: host.clone().unbind(),
        ends: Arc::new(tokio::sync::Mutex::new((items, Some(feed)))),
        what: format!("the reply of {extension}/{method}"),
    };
    engine.feed.bind(host.py()).call1((channel, iterator))
}

#[pymethods]
impl Channel {
    /// A coroutine that sends an item, and tells whether the callee still listens.
    fn send<'py>(&self, item: &Bound<'py, PyAny>) -> PyResult<Bound<'py, PyAny>> {
        const TRUE: &[u8] = &[0xc3];
        const FALSE: &[u8] = &[0xc2];
        let py = item.py();
        let mut out = Vec::with_capacity(64);
        convert::encode(&mut out, item, Depth::default())
            .map_err(|misfit| self.host.get().raise(py, &misfit.error("an item of the stream")))?;
        let ends = Arc::clone(&self.ends);
        let sent = async move {
            let mut ends = ends.lock().await;
            let (items, feed) = &mut *ends;
            let Some(feed) = feed else { return Ok(Some(Bytes::from_static(FALSE))) };
            let listens = items.alongside(feed.send(out)).await.is_ok();
            Ok(Some(Bytes::from_static(if listens { TRUE } else { FALSE })))
        };
        waiting::whole(self.host.bind(py), sent, String::new())
    }

    fn finish(&self) {
        // Whoever sends waits for each item, so nobody has it now.
        if let Some(feed) = self.ends.try_lock().ok().and_then(|mut ends| ends.1.take()) {
            feed.finish();
        }
    }

    /// A coroutine for the result of the call.
    fn result<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyAny>> {
        let ends = Arc::clone(&self.ends);
        let reply = async move { ends.lock().await.0.next().await.transpose() };
        waiting::whole(self.host.bind(py), reply, self.what.clone())
    }
}

/// Whether a function's result is a generator to be drained, and what drains it.
pub(crate) fn drain<'py>(
    generator: &Bound<'py, PyAny>,
    emit: Emitter,
) -> PyResult<Option<Bound<'py, PyAny>>> {
    let engine = engine().map_err(|error| PyRuntimeError::new_err(error.message.clone()))?;
    let drained = engine.drain.bind(generator.py()).call1((generator, emit))?;
    Ok((!drained.is_none()).then_some(drained))
}

/// The argument that stands for a call's stream.
pub(crate) fn argument<'py>(
    py: Python<'py>,
    host: &Py<Host>,
    input: Option<Input>,
) -> Result<Bound<'py, PyAny>, convert::Misfit> {
    let input = input.ok_or_else(|| convert::Misfit::new("no stream came with the call"))?;
    Ok(Py::new(py, Reader::new(host.clone_ref(py), input))?.into_bound(py).into_any())
}

//! Streams: generators as results, and iterators as arguments, in both directions.

use parking_lot::Mutex;
use pyo3::exceptions::{PyRuntimeError, PyStopIteration};
use pyo3::prelude::*;
use quadriga_abi::msgpack::Depth;
use quadriga_abi::{Bytes, Error, ErrorCode};
use quadriga_core::{Feed, Input, Output};

use crate::config::engine;
use crate::convert;
use crate::host_call::Host;

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
    items: Mutex<Option<quadriga_core::Items>>,
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
        Self { host, items: Mutex::new(Some(items)) }
    }
}

impl Emitter {
    pub(crate) fn new(host: Py<Host>, output: Output) -> Self {
        Self { host, output }
    }
}

#[pymethods]
impl Emitter {
    /// Hands an item on, and waits while the consumer has enough to read.
    fn __call__(&self, item: &Bound<'_, PyAny>) -> PyResult<()> {
        let (py, host) = (item.py(), self.host.get());
        let mut out = Vec::with_capacity(64);
        convert::encode(&mut out, item, Depth::default())
            .map_err(|misfit| host.raise(py, &misfit.error("an item of the result")))?;
        let item = Bytes::from(out);
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

    fn __anext__<'py>(slf: &Bound<'py, Self>) -> PyResult<Bound<'py, PyAny>> {
        elsewhere(slf.as_any())
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

    fn __anext__<'py>(slf: &Bound<'py, Self>) -> PyResult<Bound<'py, PyAny>> {
        elsewhere(slf.as_any())
    }

    /// Gives the call up.
    fn close(&self) {
        *self.items.lock() = None;
    }
}

/// The next item, waited for on another thread.
fn elsewhere<'py>(iterator: &Bound<'py, PyAny>) -> PyResult<Bound<'py, PyAny>> {
    let engine = engine().map_err(|error| PyRuntimeError::new_err(error.message.clone()))?;
    engine.next_elsewhere.bind(iterator.py()).call1((iterator,))
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
    let mut reply = host.bridge.start(&host.context(), extension, method, arguments, Some(input), false);
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

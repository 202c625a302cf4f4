//! Between MessagePack and Python objects, by the value table, without a tree between.

use std::fmt;

use pyo3::exceptions::PyOverflowError;
use pyo3::prelude::*;
use pyo3::types::{
    PyBool, PyByteArray, PyBytes, PyDateTime, PyDelta, PyDeltaAccess, PyDict, PyFloat, PyInt, PyList,
    PyMemoryView, PyString, PyTuple, PyTzInfo, PyTzInfoAccess,
};
use quadriga_abi::msgpack::{Depth, Reader, Token, write};
use quadriga_abi::{Error, ErrorCode, Timestamp, ValueError};

use crate::config::{self, engine};

const DAY: i64 = 86_400;

/// Why a value cannot cross, and where in it.
#[derive(Debug)]
pub(crate) struct Misfit {
    what: String,
    /// Innermost first.
    path: Vec<String>,
}

impl Misfit {
    pub(crate) fn new(what: impl Into<String>) -> Self {
        Self { what: what.into(), path: Vec::new() }
    }

    pub(crate) fn at(mut self, step: impl Into<String>) -> Self {
        self.path.push(step.into());
        self
    }

    /// The error, with the name of the whole value.
    pub(crate) fn error(self, whole: &str) -> Error {
        Error::new(ErrorCode::InvalidValue, format!("{whole}: {self}"))
    }
}

impl fmt::Display for Misfit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (n, step) in self.path.iter().rev().enumerate() {
            if n > 0 && !step.starts_with('[') {
                f.write_str(", ")?;
            }
            f.write_str(step)?;
        }
        if !self.path.is_empty() {
            f.write_str(": ")?;
        }
        f.write_str(&self.what)
    }
}

impl From<ValueError> for Misfit {
    fn from(error: ValueError) -> Self {
        Self::new(error.to_string())
    }
}

/// What Python itself refuses: memory, or a date beyond its calendar.
impl From<PyErr> for Misfit {
    fn from(error: PyErr) -> Self {
        Self::new(error.to_string())
    }
}

/// Reads the arguments of a call. `input` makes the one that stands for its stream.
pub(crate) fn arguments<'py>(
    py: Python<'py>,
    payload: &[u8],
    mut input: impl FnMut() -> Result<Bound<'py, PyAny>, Misfit>,
) -> Result<Bound<'py, PyTuple>, Error> {
    let mut reader = Reader::new(payload);
    let Ok(Token::List(count)) = reader.token() else {
        return Err(Error::new(ErrorCode::InvalidArguments, "the arguments are not a list"));
    };
    let mut read = || -> Result<Bound<'py, PyTuple>, Misfit> {
        let items = (0..count).map(|n| {
            let item = if reader.take_stream() { input() } else { read(py, &mut reader, Depth::default()) };
            item.map_err(|misfit| misfit.at(format!("argument {}", n + 1)))
        });
        let items = items.collect::<Result<Vec<_>, _>>()?;
        reader.finish()?;
        Ok(PyTuple::new(py, items)?)
    };
    read().map_err(|misfit| {
        let mut error = misfit.error("the arguments");
        error.code = ErrorCode::InvalidArguments;
        error
    })
}

/// Reads exactly one value.
pub(crate) fn decode<'py>(py: Python<'py>, bytes: &[u8]) -> Result<Bound<'py, PyAny>, Misfit> {
    let mut reader = Reader::new(bytes);
    let value = read(py, &mut reader, Depth::default())?;
    reader.finish()?;
    Ok(value)
}

/// Appends a value.
pub(crate) fn encode(out: &mut Vec<u8>, value: &Bound<'_, PyAny>, depth: Depth) -> Result<(), Misfit> {
    if value.is_none() {
        write(out, Token::Nil)?;
    } else if let Ok(text) = value.cast::<PyString>() {
        let text =
            text.to_str().map_err(|_| Misfit::new("text with a lone surrogate has no place in UTF-8"))?;
        write(out, Token::Text(text))?;
    } else if let Ok(bytes) = value.cast::<PyBytes>() {
        write(out, Token::Bytes(bytes.as_bytes()))?;
    } else if let Ok(truth) = value.cast::<PyBool>() {
        write(out, Token::Bool(truth.is_true()))?;
    } else if let Ok(number) = value.cast::<PyInt>() {
        write(out, integer(number)?)?;
    } else if let Ok(number) = value.cast::<PyFloat>() {
        write(out, Token::Float(number.value()))?;
    } else if let Ok(list) = value.cast::<PyList>() {
        items(out, list.len(), list.iter(), depth)?;
    } else if let Ok(dict) = value.cast::<PyDict>() {
        pairs(out, dict, depth)?;
    } else if let Ok(tuple) = value.cast::<PyTuple>() {
        items(out, tuple.len(), tuple.iter(), depth)?;
    } else {
        return rare(out, value, depth);
    }
    Ok(())
}

fn rare(out: &mut Vec<u8>, value: &Bound<'_, PyAny>, depth: Depth) -> Result<(), Misfit> {
    if let Ok(bytes) = value.cast::<PyByteArray>() {
        write(out, Token::Bytes(&bytes.to_vec()))?;
    } else if value.is_instance_of::<PyMemoryView>() {
        let bytes = value.call_method0("tobytes")?;
        write(out, Token::Bytes(bytes.cast::<PyBytes>().map_err(PyErr::from)?.as_bytes()))?;
    } else if let Ok(time) = value.cast::<PyDateTime>() {
        write(out, Token::Timestamp(timestamp(time)?))?;
    } else if let Some(plain) = plain(value)? {
        // A level of its own: what stands for an object may be another, without end.
        encode(out, &plain, depth.enter()?)?;
    } else {
        let name = value.get_type().fully_qualified_name()?;
        return Err(Misfit::new(format!(
            "an object of type {} has no place among values",
            own_name(&name.to_string())
        )));
    }
    Ok(())
}

/// The value that stands for a dataclass, an enum's member or the like.
fn plain<'py>(value: &Bound<'py, PyAny>) -> Result<Option<Bound<'py, PyAny>>, Misfit> {
    let engine = engine().map_err(|error| Misfit::new(error.to_string()))?;
    let plain: Option<(Bound<'py, PyAny>,)> = engine.plain.bind(value.py()).call1((value,))?.extract()?;
    Ok(plain.map(|(value,)| value))
}

/// Without the prefix of the module space.
fn own_name(name: &str) -> &str {
    if name.starts_with('@') { name.split_once('.').map_or(name, |(_, rest)| rest) } else { name }
}

fn items<'py>(
    out: &mut Vec<u8>,
    len: usize,
    items: impl Iterator<Item = Bound<'py, PyAny>>,
    depth: Depth,
) -> Result<(), Misfit> {
    let depth = depth.enter()?;
    write(out, Token::List(len))?;
    for (index, item) in items.enumerate() {
        encode(out, &item, depth).map_err(|misfit| misfit.at(format!("[{index}]")))?;
    }
    Ok(())
}

fn pairs(out: &mut Vec<u8>, dict: &Bound<'_, PyDict>, depth: Depth) -> Result<(), Misfit> {
    let depth = depth.enter()?;
    write(out, Token::Map(dict.len()))?;
    for (key, value) in dict {
        encode(out, &key, depth).map_err(|misfit| misfit.at(format!("the key {key}")))?;
        encode(out, &value, depth).map_err(|misfit| {
            misfit.at(match key.repr() {
                Ok(key) => format!("[{key}]"),
                Err(_) => "[?]".to_owned(),
            })
        })?;
    }
    Ok(())
}

fn integer<'a>(number: &Bound<'_, PyInt>) -> Result<Token<'a>, Misfit> {
    if let Ok(number) = number.extract::<i64>() {
        return Ok(Token::Int(number));
    }
    number
        .extract::<u64>()
        .map(Token::UInt)
        .map_err(|_| Misfit::new("an integer beyond 64 bits has no place among values"))
}

fn read<'py>(py: Python<'py>, reader: &mut Reader<'_>, depth: Depth) -> Result<Bound<'py, PyAny>, Misfit> {
    Ok(match reader.token()? {
        Token::Nil => py.None().into_bound(py),
        Token::Bool(truth) => PyBool::new(py, truth).to_owned().into_any(),
        Token::Int(number) => number.into_pyobject(py).map_err(PyErr::from)?.into_any(),
        Token::UInt(number) => number.into_pyobject(py).map_err(PyErr::from)?.into_any(),
        Token::Float(number) => PyFloat::new(py, number).into_any(),
        Token::Text(text) => PyString::new(py, text).into_any(),
        Token::Bytes(bytes) => PyBytes::new(py, bytes).into_any(),
        Token::Timestamp(timestamp) => datetime(py, timestamp)?.into_any(),
        Token::List(count) => {
            let depth = depth.enter()?;
            let items =
                (0..count).map(|n| read(py, reader, depth).map_err(|misfit| misfit.at(format!("[{n}]"))));
            PyList::new(py, items.collect::<Result<Vec<_>, _>>()?)?.into_any()
        }
        Token::Map(count) => {
            let depth = depth.enter()?;
            let dict = PyDict::new(py);
            for _ in 0..count {
                let key = hashable(read(py, reader, depth)?)?;
                let value = read(py, reader, depth)?;
                dict.set_item(key, value)?;
            }
            if dict.len() < count {
                return Err(Misfit::new("two keys of a map are equal in Python"));
            }
            dict.into_any()
        }
    })
}

/// A list as a key becomes a tuple; a map cannot be a key in Python.
fn hashable(key: Bound<'_, PyAny>) -> Result<Bound<'_, PyAny>, Misfit> {
    if let Ok(list) = key.cast::<PyList>() {
        let items = list.iter().map(hashable).collect::<Result<Vec<_>, _>>()?;
        return Ok(PyTuple::new(key.py(), items)?.into_any());
    }
    if key.is_instance_of::<PyDict>() {
        return Err(Misfit::new("a map as the key of a map has no place in Python"));
    }
    Ok(key)
}

/// In UTC: a plain datetime where its microseconds are enough, else a `Timestamp`.
fn datetime(py: Python<'_>, timestamp: Timestamp) -> Result<Bound<'_, PyAny>, Misfit> {
    let beyond = || Misfit::new("the time is outside the years 1 to 9999 of a datetime");
    let days = i32::try_from(timestamp.seconds().div_euclid(DAY)).map_err(|_| beyond())?;
    // Both are below a day, or a second.
    let seconds = timestamp.seconds().rem_euclid(DAY) as i32;
    let micros = (timestamp.nanos() / 1000) as i32;
    let delta = PyDelta::new(py, days, seconds, micros, false).map_err(|_| beyond())?;
    let time = epoch(py)?
        .add(delta)
        .map_err(|error| if error.is_instance_of::<PyOverflowError>(py) { beyond() } else { error.into() })?;
    match timestamp.nanos() % 1000 {
        0 => Ok(time),
        rest => {
            let engine = config::engine().map_err(|error| Misfit::new(error.to_string()))?;
            Ok(engine.timestamp.bind(py).call_method1("of", (time, rest))?)
        }
    }
}

fn timestamp(time: &Bound<'_, PyDateTime>) -> Result<Timestamp, Misfit> {
    if time.get_tzinfo().is_none() {
        return Err(Misfit::new("a datetime without a time zone names no point in time"));
    }
    let delta = time.sub(epoch(time.py())?)?;
    let delta = delta.cast::<PyDelta>().map_err(PyErr::from)?;
    let seconds = i64::from(delta.get_days()) * DAY + i64::from(delta.get_seconds());
    // Python keeps microseconds between 0 and 999,999.
    let nanos = delta.get_microseconds() as u32 * 1000;
    // Ours, or one of another library that calls it the same.
    let rest = if time.is_exact_instance_of::<PyDateTime>() {
        None
    } else {
        time.getattr_opt("nanosecond")?.map(|rest| rest.extract::<u32>()).transpose()?
    };
    Ok(Timestamp::new(seconds, nanos + rest.filter(|rest| *rest < 1000).unwrap_or_default())?)
}

fn epoch(py: Python<'_>) -> PyResult<Bound<'_, PyAny>> {
    let utc = PyTzInfo::utc(py)?;
    Ok(PyDateTime::new(py, 1970, 1, 1, 0, 0, 0, 0, Some(&utc))?.into_any())
}

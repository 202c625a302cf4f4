//! From Python's exceptions to errors of the contract.

use pyo3::prelude::*;
use quadriga_abi::{Error, ErrorCode, ErrorParts};

use crate::config::Engine;

/// When the exception came.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Phase {
    Load,
    Call,
}

/// What `report` in `python/guest.py` says of an exception.
type Report<'py> =
    (String, String, Option<String>, Option<String>, Option<String>, Option<Bound<'py, PyAny>>);

/// Puts an exception into words, with the stack of the guest.
pub(crate) fn from_exception(
    py: Python<'_>,
    engine: &Engine,
    space: &Py<PyAny>,
    phase: Phase,
    exception: &PyErr,
) -> Error {
    // Unlike `value`, this gives the exception its traceback.
    let exception = exception.clone_ref(py).into_value(py);
    let report = engine.report.bind(py).call1((space, &exception));
    match report.and_then(|report| read(&report, Some(phase))) {
        Ok(error) => error,
        Err(error) => {
            let message = format!("an exception that could not be described: {error}");
            Error::new(code("exception", Some(phase)), message)
        }
    }
}

fn read(report: &Bound<'_, PyAny>, phase: Option<Phase>) -> PyResult<Error> {
    let (kind, message, hint, extension, stack, cause): Report<'_> = report.extract()?;
    let cause = cause.map(|cause| read(&cause, None)).transpose()?;
    let code = code(&kind, phase);
    Ok(ErrorParts { code, message, hint, extension, stack, cause }.into())
}

fn code(kind: &str, phase: Option<Phase>) -> ErrorCode {
    match (kind, phase) {
        ("syntax", Some(Phase::Load)) => ErrorCode::EntryInvalid,
        (_, Some(Phase::Load)) => ErrorCode::LoadFailed,
        ("exit", _) => ErrorCode::ExtensionPanicked,
        ("syntax" | "exception", _) => ErrorCode::ExtensionError,
        (code, _) => match (ErrorCode::from_text(code), phase) {
            (ErrorCode::Unknown, Some(_)) => ErrorCode::ExtensionError,
            (code, _) => code,
        },
    }
}

//! The load of an entry module, up to the first call.

use std::future::Future;
use std::pin::pin;
use std::task::Poll;

use deno_core::error::{CoreError, CoreErrorKind, JsError};
use deno_core::v8;
use quadriga_abi::{Error, ErrorCode, Method};
use quadriga_core::Unit;

use crate::contract;
use crate::error;
use crate::isolate::{Done, Isolate};
use crate::methods;
use crate::modules::{PACKAGE, PackageLoader};

/// Loads and runs the entry module and what it imports; returns what it exports.
pub(crate) async fn load(
    isolate: &mut Isolate,
    unit: &Unit,
    loader: &PackageLoader,
) -> Result<Vec<Method>, Error> {
    let url = loader.entry_url()?;
    let module = isolate.engine.load_main_es_module(&url).await;
    let module = match module {
        Ok(module) => module,
        Err(failure) => {
            stopped(isolate)?;
            return Err(loader.take_failure().unwrap_or_else(|| unreadable(&failure)));
        }
    };
    let evaluation = isolate.engine.mod_evaluate(module);
    let mut evaluation = pin!(evaluation);
    let outcome = std::future::poll_fn(|cx| {
        if let Some(done) = isolate.recover() {
            return Poll::Ready(Err(done));
        }
        let before = evaluation.as_mut().poll(cx);
        if let Poll::Ready(done) = isolate.turn(cx) {
            return Poll::Ready(Err(done));
        }
        if !isolate.state.unhandled.borrow().is_empty() {
            return Poll::Ready(Ok(Ok(())));
        }
        match before {
            Poll::Ready(outcome) => Poll::Ready(Ok(outcome)),
            Poll::Pending => evaluation.as_mut().poll(cx).map(Ok),
        }
    })
    .await;
    match outcome {
        Err(Done::Stopped) => return Err(late()),
        Err(Done::Died(death)) => return Err(death),
        Ok(Err(failure)) => {
            stopped(isolate)?;
            return Err(load_failed(core_error(&failure), loader));
        }
        Ok(Ok(())) => {}
    }
    if let Some(unhandled) = isolate.state.unhandled.take().into_iter().next() {
        return Err(load_failed(unhandled, loader));
    }
    loader.take_failure();
    describe(isolate, unit, loader.entry(), module)
}

fn describe(isolate: &mut Isolate, unit: &Unit, entry: &str, module: usize) -> Result<Vec<Method>, Error> {
    let source = std::fs::read_to_string(&unit.entry).unwrap_or_default();
    let namespace = isolate.engine.get_module_namespace(module).map_err(|failure| core_error(&failure))?;
    let mut exports = {
        deno_core::scope!(scope, isolate.engine);
        let namespace = v8::Local::new(scope, namespace);
        methods::exports(scope, namespace, &source)
    };
    contract::describe(&unit.root, entry, exports.iter_mut().map(|export| &mut export.method));
    let methods = exports.iter().map(|export| export.method.clone()).collect();
    isolate.exports = exports;
    Ok(methods)
}

/// Fails if the load was told to stop or ran out of memory.
fn stopped(isolate: &mut Isolate) -> Result<(), Error> {
    match isolate.recover() {
        None => Ok(()),
        Some(Done::Stopped) => Err(late()),
        Some(Done::Died(death)) => Err(death),
    }
}

/// The load was stopped: nothing but its deadline does that.
pub(crate) fn late() -> Error {
    Error::new(ErrorCode::DeadlineExceeded, "the load took longer than it was given")
}

/// What top-level code threw, as the failure of the load that it is.
fn load_failed(thrown: Error, loader: &PackageLoader) -> Error {
    let first = loader.take_failure();
    if let Some(failure) = first.filter(|failure| thrown.message.contains(&failure.message)) {
        return failure;
    }
    let mut failed = Error::new(ErrorCode::LoadFailed, format!("the load threw: {}", thrown.message));
    failed.stack = thrown.stack.clone();
    failed.hint = thrown.hint.clone();
    if thrown.code == ErrorCode::ExtensionError {
        failed.cause = thrown.into_parts().cause;
        failed
    } else {
        failed.with_cause(thrown)
    }
}

/// What the engine says of a module that it could not read.
fn unreadable(failure: &CoreError) -> Error {
    let CoreErrorKind::Js(exception) = failure.as_kind() else {
        return Error::new(ErrorCode::LoadFailed, failure.to_string().replace(PACKAGE, ""));
    };
    let place = exception.frames.first().and_then(|frame| {
        let file = frame.file_name.as_deref()?.replace(PACKAGE, "");
        Some(format!("{file}:{}:{}: ", frame.line_number?, frame.column_number?))
    });
    let name = exception.name.as_deref().unwrap_or("Error");
    let message = format!("{}{name}: {}", place.unwrap_or_default(), text(exception));
    // A module that does not parse, or asks another for what it does not export.
    let code = if name == "SyntaxError" { ErrorCode::EntryInvalid } else { ErrorCode::LoadFailed };
    let mut error = Error::new(code, message.replace(PACKAGE, ""));
    error.stack = exception.stack.as_deref().map(error::tidy);
    error
}

/// An error of the engine's own machinery.
pub(crate) fn core_error(failure: &CoreError) -> Error {
    match failure.as_kind() {
        CoreErrorKind::Js(exception) => from_js_error(exception),
        _ => Error::new(ErrorCode::ExtensionError, failure.to_string().replace(PACKAGE, "")),
    }
}

fn from_js_error(exception: &JsError) -> Error {
    let mut error = Error::new(ErrorCode::ExtensionError, text(exception));
    error.stack = exception.stack.as_deref().map(error::tidy);
    error.cause = exception.cause.as_deref().map(from_js_error);
    error
}

fn text(exception: &JsError) -> String {
    let message = exception.message.clone().unwrap_or_else(|| exception.exception_message.clone());
    message.replace(PACKAGE, "")
}

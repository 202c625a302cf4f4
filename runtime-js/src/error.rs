//! Exceptions to errors and back.

use deno_core::v8;
use quadriga_abi::{Error, ErrorCode};

use crate::config;
use crate::convert;
use crate::modules::PACKAGE;
use crate::state::State;

/// How many causes are followed.
const CAUSES: usize = 16;

/// What an exception says. Runs guest code where it has getters.
pub(crate) fn from_exception<'s>(
    scope: &mut v8::PinScope<'s, '_>,
    state: &State,
    thrown: v8::Local<'s, v8::Value>,
) -> Error {
    let unexplained = || Error::new(ErrorCode::ExtensionError, "the extension threw something unreadable");
    let Some(helpers) = state.helpers.get() else {
        return unexplained();
    };
    let explain = v8::Local::new(scope, &helpers.explain);
    let undefined = v8::undefined(scope).into();
    let parts = explain.call(scope, undefined, &[thrown]);
    let mut error = parts.and_then(|parts| from_parts(scope, parts, CAUSES)).unwrap_or_else(unexplained);
    // The engine reports a refused buffer as a RangeError.
    if error.code == ErrorCode::ExtensionError && state.budget.take_refused() {
        error.code = ErrorCode::MemoryLimit;
    }
    error
}

/// Reads `[code, message, hint, stack, extension, cause]`, as the bootstrap script writes it.
fn from_parts<'s>(
    scope: &mut v8::PinScope<'s, '_>,
    parts: v8::Local<'s, v8::Value>,
    depth: usize,
) -> Option<Error> {
    let parts = v8::Local::<v8::Array>::try_from(parts).ok()?;
    let text = |index| {
        let part = parts.get_index(scope, index)?;
        part.is_string().then(|| part.to_rust_string_lossy(scope))
    };
    let code = text(0).map_or(ErrorCode::ExtensionError, |code| ErrorCode::from_text(&code));
    let mut error = Error::new(code, text(1)?);
    error.hint = text(2);
    error.stack = text(3).map(|stack| tidy(&stack));
    error.extension = text(4);
    if depth > 0 {
        let cause = parts.get_index(scope, 5)?;
        error.cause = from_parts(scope, cause, depth - 1);
    }
    Some(error)
}

/// Writes what [`from_parts`] reads, for the bootstrap script to make an exception of.
pub(crate) fn to_parts<'s>(
    scope: &mut v8::PinScope<'s, '_>,
    error: &Error,
    depth: usize,
) -> v8::Local<'s, v8::Value> {
    let mut text = |text: Option<&str>| -> v8::Local<'s, v8::Value> {
        match text.and_then(|text| convert::string(scope, text).ok()) {
            Some(text) => text.into(),
            None => v8::undefined(scope).into(),
        }
    };
    let mut parts = vec![
        text(Some(error.code.as_str())),
        text(Some(&error.message)),
        text(error.hint.as_deref()),
        text(error.stack.as_deref()),
        text(error.extension.as_deref()),
    ];
    if let Some(cause) = error.cause.as_ref().filter(|_| depth > 0) {
        parts.push(to_parts(scope, cause, depth - 1));
    }
    v8::Array::new_with_elements(scope, &parts).into()
}

/// As [`to_parts`], with all causes that are followed.
pub(crate) fn to_exception<'s>(scope: &mut v8::PinScope<'s, '_>, error: &Error) -> v8::Local<'s, v8::Value> {
    to_parts(scope, error, CAUSES)
}

/// Leaves our own frames out of a stack and names files as the package does.
pub(crate) fn tidy(stack: &str) -> String {
    let frame = |line: &str| line.trim_start().starts_with("at ");
    let ours = |line: &&str| !(frame(line) && (line.contains("ext:") || line.contains(config::SNIPPET)));
    let lines: Vec<&str> = stack.lines().filter(ours).collect();
    lines.join("\n").replace(PACKAGE, "")
}

//! What wasmtime says when a guest ends early, as our errors.

use quadriga_abi::{Error, ErrorCode, ExtensionId};
use wasmtime::{PoolConcurrencyLimitError, Trap, WasmBacktrace};
use wasmtime_wasi::I32Exit;

use crate::limits::Stop;

/// What else is known about a guest that ended early.
pub(crate) struct Scene<'a> {
    pub(crate) extension: &'a ExtensionId,
    /// The last lines that it wrote to stderr.
    pub(crate) stderr: &'a str,
    /// The memory limit that it ran into, if it did.
    pub(crate) over_memory: Option<usize>,
}

impl From<Stop> for Error {
    fn from(stop: Stop) -> Self {
        let code = match stop {
            Stop::Deadline => ErrorCode::DeadlineExceeded,
            Stop::Cancelled => ErrorCode::Cancelled,
            Stop::Unloaded => ErrorCode::ExtensionStopped,
            Stop::Revoked => ErrorCode::PermissionDenied,
            Stop::CpuTime(_) => {
                return Self::new(ErrorCode::CpuLimit, stop.to_string()).with_hint("raise [limits] cpu-time");
            }
        };
        Self::new(code, stop.to_string())
    }
}

/// Why a guest ended without an answer.
pub(crate) fn ended(error: &wasmtime::Error, scene: &Scene<'_>) -> Error {
    let id = scene.extension;
    let ended = if let Some(stop) = error.downcast_ref::<Stop>() {
        Error::from(*stop)
    } else if let Some(limit) = scene.over_memory {
        let message = format!("{id} needs more than its {limit} bytes of memory");
        Error::new(ErrorCode::MemoryLimit, message).with_hint("raise [limits] memory")
    } else if let Some(I32Exit(status)) = error.downcast_ref::<I32Exit>() {
        Error::new(ErrorCode::ExtensionCrashed, format!("{id} exited with status {status}"))
    } else if error.is::<PoolConcurrencyLimitError>() {
        let message = format!("there is no room for another instance of {id}: {}", error.root_cause());
        Error::new(ErrorCode::Overloaded, message)
    } else if let Some(panic) = panic_message(scene.stderr) {
        Error::new(ErrorCode::ExtensionPanicked, format!("{id} panicked: {panic}"))
    } else if let Some(trap) = error.downcast_ref::<Trap>() {
        Error::new(ErrorCode::ExtensionPanicked, format!("{id} trapped: {trap}"))
    } else {
        Error::new(ErrorCode::ExtensionPanicked, format!("{id} trapped: {}", error.root_cause()))
    };
    match stack(error, scene.stderr) {
        Some(stack) => ended.with_stack(stack),
        None => ended,
    }
}

fn stack(error: &wasmtime::Error, stderr: &str) -> Option<String> {
    let backtrace = error.downcast_ref::<WasmBacktrace>().map(|backtrace| {
        let text = backtrace.to_string();
        text.strip_prefix("error while executing at ").map_or(text.clone(), str::to_owned)
    });
    match (stderr.trim_end(), backtrace) {
        ("", backtrace) => backtrace,
        (stderr, None) => Some(stderr.to_owned()),
        (stderr, Some(backtrace)) => Some(format!("{stderr}\n{backtrace}")),
    }
}

/// Finds what a Rust guest printed when it panicked: `thread 'main' panicked at FILE:1:2:`, then
/// the message, then perhaps a note.
fn panic_message(stderr: &str) -> Option<String> {
    let (_, after) = stderr.split_once(" panicked at ")?;
    let lines: Vec<&str> = after.lines().skip(1).take_while(|line| !line.starts_with("note: ")).collect();
    Some(lines.join("\n")).filter(|message| !message.is_empty())
}

#[cfg(test)]
mod tests {
    use super::panic_message;

    #[test]
    fn panics_are_told_by_what_they_print() {
        let cases = [
            ("", None),
            ("something else\n", None),
            ("thread 'main' (1) panicked at src/lib.rs:1:2:\n", None),
            ("before\nthread 'main' (1) panicked at src/lib.rs:1:2:\nboom\n", Some("boom")),
            (
                "thread '<unnamed>' panicked at a.rs:1:2:\nleft\nright\nnote: run with `X`\n",
                Some("left\nright"),
            ),
        ];
        for (stderr, message) in cases {
            assert_eq!(panic_message(stderr).as_deref(), message, "{stderr}");
        }
    }
}

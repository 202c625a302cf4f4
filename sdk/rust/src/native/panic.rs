//! Turns a panic into an error with a message and a stack.

use std::any::Any;
use std::backtrace::Backtrace;
use std::cell::RefCell;
use std::panic::{self, PanicHookInfo};
use std::sync::Once;

use quadriga_abi::{Error, ErrorCode};

use super::is_in_call;

thread_local! {
    static STACK: RefCell<Option<String>> = const { RefCell::new(None) };
}

/// Keeps the stack of a panic in a call. A library has a standard library of its own, so this is
/// not the host's hook.
pub(super) fn install_hook() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        let others = panic::take_hook();
        panic::set_hook(Box::new(move |info| if is_in_call() { keep(info) } else { others(info) }));
    });
}

/// The error for a panic that was caught.
pub(super) fn error(payload: &(dyn Any + Send)) -> Error {
    let message = match (payload.downcast_ref::<&str>(), payload.downcast_ref::<String>()) {
        (Some(text), _) => (*text).to_owned(),
        (_, Some(text)) => text.clone(),
        _ => "a panic without a message".to_owned(),
    };
    let error = Error::new(ErrorCode::ExtensionPanicked, message);
    match STACK.take() {
        Some(stack) => error.with_stack(stack),
        None => error,
    }
}

fn keep(info: &PanicHookInfo<'_>) {
    let backtrace = Backtrace::force_capture().to_string();
    let place = info.location().map(|place| format!("panicked at {place}\n")).unwrap_or_default();
    STACK.set(Some(place + own_frames(&backtrace).trim_end()));
}

/// Leaves out what stands above the panic and below the method.
fn own_frames(backtrace: &str) -> String {
    let mut frames: Vec<Vec<&str>> = Vec::new();
    for line in backtrace.lines() {
        match frames.last_mut() {
            Some(frame) if line.trim_start().starts_with("at ") => frame.push(line),
            _ => frames.push(vec![line]),
        }
    }
    let is = |frame: &[&str], names: &[&str]| names.iter().any(|name| frame[0].contains(name));
    let end = frames.iter().position(|frame| is(frame, &["::METHODS::run", "quadriga_sdk::method::"]));
    let frames = &frames[..end.unwrap_or(frames.len())];
    let above = ["core::panicking::", "std::panicking::", "rust_begin_unwind"];
    let start = frames.iter().rposition(|frame| is(frame, &above)).map_or(0, |last| last + 1);
    let lines: Vec<_> = frames[start..].iter().flatten().copied().collect();
    lines.join("\n")
}

#[cfg(test)]
mod tests {
    use super::own_frames;

    #[test]
    fn only_the_authors_frames_stay() {
        let backtrace = "   0: std::backtrace::Backtrace::force_capture
   1: core::panicking::panic_fmt
             at /rustc/panicking.rs:1:1
   2: relay::inner
             at ./src/lib.rs:7:5
   3: relay::crash
   4: <relay::_::Extension as quadriga_sdk::method::Extension>::METHODS::run
   5: quadriga_sdk::method::run
   6: std::panicking::catch_unwind
   7: start_thread
";
        assert_eq!(
            own_frames(backtrace),
            "   2: relay::inner\n             at ./src/lib.rs:7:5\n   3: relay::crash"
        );
        assert_eq!(own_frames("   0: <unknown>\n"), "   0: <unknown>");
        assert_eq!(own_frames(""), "");
    }
}

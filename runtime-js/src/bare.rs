//! An isolate through deno_core alone, for benchmarks to compare with.

use std::sync::mpsc;
use std::time::{Duration, Instant};

use deno_core::{JsRuntime, RuntimeOptions};

use crate::platform;

/// How long it takes to make an isolate as deno_core's documentation does, on a thread that is there.
/// `None` if none could be made.
pub fn isolate() -> Option<Duration> {
    let (made, answer) = mpsc::channel();
    let make = move || {
        let begun = Instant::now();
        let engine = JsRuntime::try_new(RuntimeOptions::default());
        let took = begun.elapsed();
        if engine.is_ok() {
            let _ = made.send(took);
        }
    };
    platform::spawn("bare", Box::new(make)).ok()?.join().ok()?;
    answer.recv().ok()
}

//! Every runtime through the host crate, in one binary so that the engines are linked once.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

#[cfg(all(
    feature = "process",
    any(feature = "v8", feature = "quickjs"),
    feature = "python",
    target_os = "linux"
))]
mod agents;
#[cfg(all(
    feature = "process",
    any(feature = "v8", feature = "quickjs"),
    feature = "python",
    target_os = "linux"
))]
mod apis;
#[cfg(all(any(feature = "v8", feature = "quickjs"), feature = "python"))]
mod cli;
#[cfg(all(feature = "process", any(feature = "v8", feature = "quickjs"), target_os = "linux"))]
mod clock;
#[cfg(all(
    feature = "process",
    any(feature = "v8", feature = "quickjs"),
    feature = "python",
    target_os = "linux"
))]
mod config;
mod conformance;
#[cfg(all(any(feature = "v8", feature = "quickjs"), feature = "python"))]
mod contracts;
#[cfg(all(any(feature = "v8", feature = "quickjs"), feature = "python"))]
mod demo;
#[cfg(all(any(feature = "v8", feature = "quickjs"), feature = "python"))]
mod directions;
#[cfg(all(
    feature = "process",
    any(feature = "v8", feature = "quickjs"),
    feature = "python",
    target_os = "linux"
))]
mod events;
#[cfg(all(
    feature = "process",
    any(feature = "v8", feature = "quickjs"),
    feature = "python",
    target_os = "linux"
))]
mod hooks;
#[cfg(all(feature = "process", any(feature = "v8", feature = "quickjs"), target_os = "linux"))]
mod hostile;
#[cfg(any(feature = "js-v8", feature = "js-quickjs"))]
mod js;
#[cfg(all(
    feature = "process",
    feature = "native",
    feature = "python",
    feature = "wasm",
    any(feature = "v8", feature = "quickjs"),
    target_os = "linux"
))]
mod kept;
#[cfg(all(
    feature = "process",
    feature = "native",
    feature = "python",
    feature = "wasm",
    any(feature = "v8", feature = "quickjs"),
    target_os = "linux"
))]
mod letters;
#[cfg(all(any(feature = "v8", feature = "quickjs"), feature = "python"))]
mod licences;
#[cfg(all(
    feature = "process",
    any(feature = "v8", feature = "quickjs"),
    feature = "python",
    target_os = "linux"
))]
mod lifecycle;
#[cfg(all(feature = "process", any(feature = "v8", feature = "quickjs"), target_os = "linux"))]
mod limits;
#[cfg(any(feature = "v8", feature = "quickjs"))]
mod live;
#[cfg(all(any(feature = "v8", feature = "quickjs"), feature = "python"))]
mod manage;
#[cfg(all(
    feature = "process",
    feature = "native",
    feature = "python",
    feature = "wasm",
    any(feature = "v8", feature = "quickjs"),
    target_os = "linux"
))]
mod managed;
#[cfg(all(feature = "process", any(feature = "v8", feature = "quickjs"), target_os = "linux"))]
mod many;
#[cfg(feature = "native")]
mod native;
#[cfg(all(feature = "process", any(feature = "v8", feature = "quickjs"), target_os = "linux"))]
mod network;
#[cfg(all(
    feature = "process",
    any(feature = "v8", feature = "quickjs"),
    feature = "python",
    target_os = "linux"
))]
mod otlp;
#[cfg(all(any(feature = "v8", feature = "quickjs"), feature = "python"))]
mod packages;
#[cfg(all(
    feature = "process",
    feature = "native",
    feature = "python",
    feature = "wasm",
    any(feature = "v8", feature = "quickjs"),
    target_os = "linux"
))]
mod process;
#[cfg(all(feature = "process", feature = "native", feature = "python", target_os = "linux"))]
mod programs;
#[cfg(feature = "python")]
mod python;
#[cfg(all(any(feature = "v8", feature = "quickjs"), feature = "python"))]
mod readme;
#[cfg(all(
    feature = "process",
    any(feature = "v8", feature = "quickjs"),
    feature = "python",
    target_os = "linux"
))]
mod run;
#[cfg(all(feature = "native", feature = "wasm"))]
mod rust_async;
#[cfg(all(
    feature = "process",
    any(feature = "v8", feature = "quickjs"),
    feature = "python",
    target_os = "linux"
))]
mod services;
#[cfg(all(
    feature = "process",
    any(feature = "v8", feature = "quickjs"),
    feature = "python",
    target_os = "linux"
))]
mod snippets;
#[cfg(all(any(feature = "v8", feature = "quickjs"), feature = "python"))]
mod spans;
#[cfg(all(any(feature = "v8", feature = "quickjs"), feature = "python"))]
mod streams;
#[cfg(all(feature = "process", any(feature = "v8", feature = "quickjs"), target_os = "linux"))]
mod teams;
#[cfg(all(
    feature = "process",
    feature = "native",
    feature = "python",
    feature = "wasm",
    any(feature = "v8", feature = "quickjs"),
    target_os = "linux"
))]
mod terminal;
#[cfg(all(any(feature = "v8", feature = "quickjs"), feature = "python"))]
mod versions;
#[cfg(all(feature = "process", any(feature = "v8", feature = "quickjs"), target_os = "linux"))]
mod warm;
#[cfg(feature = "wasm")]
mod wasm;
#[cfg(all(feature = "process", feature = "python", target_os = "linux"))]
mod witness;
#[cfg(all(feature = "process", any(feature = "v8", feature = "quickjs"), target_os = "linux"))]
mod workers;
#[cfg(all(feature = "process", any(feature = "v8", feature = "quickjs"), target_os = "linux"))]
mod zygotes;

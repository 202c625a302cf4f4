//! The extension platform for Rust hosts: JavaScript, Python, WebAssembly and native Rust behind
//! one dispatcher.
//!
//! This crate composes: it re-exports the dispatcher and registers the runtimes whose features are
//! on.

/// What a runtime of one's own is made of, and one for tests that needs no engine.
pub use quadriga_core::block_on;
pub use quadriga_core::{
    BoxFuture, Bridge, Call, CallContext, Instance, LogLevel, MockRuntime, Outcome, Runtime, Support, Unit,
    Usage,
};
pub use quadriga_core::{
    Builder, CallOptions, Dispatcher, Feed, Grant, Input, Items, LoadOptions, Metrics, Policy, Provided,
    State, Status, abi,
};

/// A builder with every runtime of this build.
pub fn builder() -> Builder {
    let builder = Dispatcher::builder();
    #[cfg(any(feature = "v8", feature = "quickjs"))]
    let builder = builder.runtime(quadriga_runtime_js::JsRuntime::new());
    #[cfg(feature = "python")]
    let builder = builder.runtime(quadriga_runtime_python::PythonRuntime::new());
    #[cfg(feature = "wasm")]
    let builder = builder.runtime(quadriga_runtime_wasm::WasmRuntime::new());
    #[cfg(feature = "native")]
    let builder = builder.runtime(quadriga_runtime_native::NativeRuntime::new());
    builder
}

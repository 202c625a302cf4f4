//! WebAssembly components on wasmtime.
//!
//! A component exports the world in `abi/wit`; any toolchain that makes components will do. Each
//! instance of it has a store of its own, and a stack of its own: a guest that waits holds no
//! thread, and one that runs for long makes way for others every few milliseconds.
//!
//! A component is compiled once, whatever is made of it: the code is shared by the extensions that
//! are loaded, kept on disk for the next start, and given to workers.

#[cfg(feature = "bare")]
#[doc(hidden)]
pub mod bare;
mod bindings;
mod cache;
mod clock;
mod code;
mod config;
mod convert;
mod entry;
mod error;
mod guest;
mod host_call;
mod http;
mod instance;
mod limits;
mod output;
mod pool;
mod runtime;
mod stream;
mod wasi;

pub use runtime::WasmRuntime;

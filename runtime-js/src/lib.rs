//! JavaScript and TypeScript extensions on `deno_core`: one isolate and one thread each, many calls
//! in flight.
//!
//! The feature `v8` (default) runs them on V8, `quickjs` on QuickJS behind the same interface.

mod buffers;
mod config;
mod convert;
mod error;
mod host_call;
mod instance;
mod isolate;
mod limits;
mod load;
mod methods;
mod modules;
mod platform;
mod runtime;
mod state;
mod typescript;

pub use runtime::JsRuntime;

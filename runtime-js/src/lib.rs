//! JavaScript and TypeScript extensions on `deno_core`: one isolate and one thread each, many calls
//! in flight.
//!
//! The feature `v8` (default) runs them on V8, `quickjs` on QuickJS behind the same interface.
//!
//! # What holds, and how far
//!
//! - **Context.** The engine carries the id of a call through `await`, promises and timers, so a
//!   host call knows on whose behalf it is made. What goes on after its call was answered belongs
//!   to no call.
//! - **Time.** A call whose time is up is answered, and what it still runs is stopped, at the next
//!   loop or function call of the guest; built-in operations run to their end. Stopping drops the
//!   promise jobs that are queued at that moment. There are few: replies are handed over one by
//!   one, each with what follows from it.
//! - **Memory.** A heap over its limit ends the extension: the call answers `memory_limit`, later
//!   ones `extension_crashed` until a reload. One built-in operation may go over by what it alone
//!   allocates. Array buffers have a limit of the same size; the guest sees a `RangeError`.
//! - **QuickJS** does the same, but for two things: an endless chain of promise jobs is not stopped,
//!   so that its extension answers no more calls, and what is thrown without being an `Error` has no
//!   stack.
//! - **Network.** `fetch` over connections that the host makes, each decided about; no TLS, no streams
//!   as bodies of requests, no cache and no cookies.
//! - **Modules.** Only files of the package, by relative paths, and `quadriga`.

#[cfg(feature = "bare")]
#[doc(hidden)]
pub mod bare;
mod buffers;
mod clock;
mod compiled;
mod config;
mod contract;
mod convert;
mod cpu;
mod error;
mod fetch;
mod host_call;
mod instance;
mod isolate;
mod limits;
mod load;
mod methods;
mod modules;
mod platform;
mod runtime;
mod snapshot;
mod state;
mod stream;
mod thread;
mod typescript;

pub use runtime::JsRuntime;

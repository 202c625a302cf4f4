//! Runs Python extensions on CPython, in the host's process: for code that the host trusts.
//!
//! One interpreter serves all extensions; each has a module space of its own (`python/spaces.py`).
//! A call runs on its caller's thread under the interpreter's lock: calls may overlap, and one runs
//! whenever another waits, for a call to the host above all.
//!
//! What it cannot do: end C code that does not return to the interpreter (a long `time.sleep`, for
//! one), stop `os._exit`, undo what an extension changes in the standard library (`sys.path`,
//! `atexit`), or unload compiled libraries, which stay until the process ends.

#[cfg(feature = "bare")]
#[doc(hidden)]
pub mod bare;
mod config;
mod convert;
mod cpu;
mod error;
mod host_call;
mod instance;
mod limits;
mod runtime;
mod stream;
mod thread;
mod waiting;
mod warm;

pub use runtime::PythonRuntime;

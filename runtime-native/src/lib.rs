//! Native Rust extensions in the host's own process, through `abi_stable`.
//!
//! For code that the host trusts: nothing keeps a library from the host's memory. Its layout is
//! compared with the host's when it is loaded, and its panics become errors. It cannot be stopped
//! in the middle of a call, and its code stays in the process after it has been unloaded.

#[cfg(feature = "bare")]
pub mod bare;
mod error;
mod half;
mod host_call;
mod instance;
mod library;
mod runtime;
mod stream;
mod wait;

pub use runtime::NativeRuntime;

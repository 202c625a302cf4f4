//! The vocabulary that every part of Quadriga shares: envelopes, values, manifests, error codes,
//! versions and the native vtable. No I/O, no async, no engine.
//!
//! Hosts and extensions both depend on this crate, so what it defines is frozen per released
//! version of the contract: see `wit/since-v0.1/` and [`PROTOCOL`].

pub mod codec;
pub mod contract;
mod describe;
mod envelope;
mod error;
mod event;
mod json;
mod kind;
pub mod limits;
#[cfg(feature = "manifest")]
pub mod manifest;
pub mod msgpack;
mod name;
pub mod permission;
#[cfg(feature = "schema")]
mod schema;
mod stream;
mod trace;
mod value;
mod version;
#[cfg(feature = "native")]
pub mod vtable;

pub use bytes::Bytes;
pub use describe::{Description, Method, Parameter};
pub use envelope::{Envelope, FrameError, Kind, Target};
pub use error::{Error, ErrorCode, ErrorParts};
pub use event::{Delivery, Emitted, Overflow};
pub use json::JsonError;
pub use kind::{Isolation, RuntimeKind};
pub use name::{ExtensionId, NameError};
/// What the schemas of types are made with.
#[cfg(feature = "manifest")]
pub use schemars;
pub use stream::StreamMark;
pub use trace::{TraceContext, TraceError};
pub use value::{Timestamp, Value, ValueError};
pub use version::{Feature, PROTOCOL, ProtocolVersion};

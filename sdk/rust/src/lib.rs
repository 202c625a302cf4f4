//! Write Quadriga extensions in Rust: one source becomes a WebAssembly component or a native
//! library, by the target it is compiled for.
//!
//! ```
//! #[quadriga_sdk::extension]
//! mod greeter {
//!     use quadriga_sdk::{Error, host};
//!
//!     /// Greets someone, by the name that another extension knows.
//!     pub fn greet(id: u64) -> Result<String, Error> {
//!         let name: String = host::call("people.directory", "name", (id,))?;
//!         host::log::info(format!("greeting {name}"));
//!         Ok(format!("Hello, {name}"))
//!     }
//! }
//! # fn main() {}
//! ```
//!
//! Build it as a `cdylib`, with `--target wasm32-wasip2` for WebAssembly.
//!
//! Every `pub fn` is a method. Parameters and results are whatever serde can read and write, and
//! travel as docs/values.md says: structs as maps, `Vec<u8>` and `&[u8]` as bytes, [`Timestamp`] as
//! a point in time, [`Value`] as anything. A `Result` with any error fails the call; a panic fails
//! it with `extension_panicked`. A [`Stream`] goes to its consumer item by item.
//!
//! An `async fn` is a method too. While it awaits [`host::call_async`], [`host::sleep`], or
//! `receive` of [`Input`] and [`Items`], its other futures go on, so that it may have many calls
//! under way; natively, threads of its own may wake it as well.
//!
//! A type that derives [`JsonSchema`] beside serde's traits becomes part of the extension's
//! contract: `#[schemars(crate = "quadriga_sdk::schemars")]` on it needs no other dependency.
//! Callers can be shown that shape, and held to it. A type without it still works.

mod broadcast;
mod decode;
mod error;
mod event;
pub mod host;
mod method;
#[cfg(not(target_family = "wasm"))]
mod native;
mod schema;
mod stream;
mod task;
#[cfg(target_family = "wasm")]
mod wasm;

pub use broadcast::{Answer, To};
pub use error::{Error, Result};
pub use event::{Event, Subscribe};
pub use quadriga_abi::{Delivery, Emitted, ErrorCode, Overflow, Timestamp, Value};
pub use quadriga_sdk_macros::extension;
pub use schemars::{self, JsonSchema};
pub use serde;
pub use stream::{Input, Items, Stream};

/// What the attribute macro writes, and nothing else, may use.
#[doc(hidden)]
pub mod __private {
    pub use quadriga_abi::Error as Failure;

    pub use crate::decode::Arguments;
    pub use crate::method::{Extension, Method, Parameter, ReplyWithValue, Returned};
    #[cfg(not(target_family = "wasm"))]
    pub use crate::native::{LibHeader, header};
    pub use crate::schema::{NoSchema, NotResult, Schemas, Shape, ShapeOf};
    pub use crate::task::block_on;
    #[cfg(target_family = "wasm")]
    pub use crate::wasm::{bindings, call, describe};
}

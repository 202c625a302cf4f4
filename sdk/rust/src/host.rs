//! What an extension may ask of its host, in the course of a call.

use quadriga_abi::{ErrorCode, codec};
use serde::Serialize;
use serde::de::DeserializeOwned;

#[cfg(not(target_family = "wasm"))]
use crate::native as seam;
#[cfg(target_family = "wasm")]
use crate::wasm as seam;
use crate::{Error, Result};

/// Calls a method of another extension, and waits for its result.
///
/// The arguments are a tuple, `(x,)` for one and `()` for none, or a list. The manifest must ask
/// for the call under `[permissions]`, and the host grant it.
#[track_caller]
pub fn call<R: DeserializeOwned>(extension: &str, method: &str, arguments: impl Serialize) -> Result<R> {
    let payload = match codec::arguments(&arguments) {
        Ok(payload) => payload,
        Err(error) => {
            let text = format!("the arguments for {extension}/{method} cannot be sent: {error}");
            return Err(Error::with_code(ErrorCode::InvalidValue, text));
        }
    };
    let read = |reply: std::result::Result<&[u8], quadriga_abi::Error>| reply.map(codec::from_bytes::<R>);
    match seam::call_other(extension, method, &payload, read) {
        Ok(Ok(value)) => Ok(value),
        Ok(Err(error)) => Err(Error::with_code(
            ErrorCode::InvalidValue,
            format!("the result of {extension}/{method} is no {}: {error}", std::any::type_name::<R>()),
        )),
        Err(error) => Err(Error::from_host(error)),
    }
}

/// The extension's settings: the manifest's defaults under what the host's operator chose.
#[track_caller]
pub fn config<T: DeserializeOwned>() -> Result<T> {
    let bytes = match seam::config() {
        Ok(bytes) => bytes,
        Err(error) => return Err(Error::from_host(error)),
    };
    match codec::from_bytes(&bytes) {
        Ok(settings) => Ok(settings),
        Err(error) => Err(Error::new(format!("the settings do not fit: {error}"))),
    }
}

/// Whether the caller no longer waits. Long work should ask from time to time.
pub fn cancelled() -> bool {
    seam::cancelled()
}

/// Writes to the host's log.
pub mod log {
    use super::seam;

    /// A step that matters only when following one call.
    pub fn trace(message: impl AsRef<str>) {
        seam::log(0, message.as_ref());
    }

    /// Something for whoever works on the extension.
    pub fn debug(message: impl AsRef<str>) {
        seam::log(1, message.as_ref());
    }

    /// Something for whoever runs the host.
    pub fn info(message: impl AsRef<str>) {
        seam::log(2, message.as_ref());
    }

    /// Something that should not be, but did not stop the work.
    pub fn warn(message: impl AsRef<str>) {
        seam::log(3, message.as_ref());
    }

    /// Something that went wrong.
    pub fn error(message: impl AsRef<str>) {
        seam::log(4, message.as_ref());
    }
}

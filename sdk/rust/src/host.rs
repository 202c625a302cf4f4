//! What an extension may ask of its host, in the course of a call.

use quadriga_abi::{ErrorCode, StreamMark, codec};
use serde::Serialize;
use serde::de::DeserializeOwned;

#[cfg(not(target_family = "wasm"))]
use crate::native as seam;
#[cfg(target_family = "wasm")]
use crate::wasm as seam;
use crate::{Error, Items, Result};

/// Calls a method of another extension, and waits for its result.
///
/// The arguments are a tuple, `(x,)` for one and `()` for none, or a list. The manifest must ask
/// for the call under `[permissions]`, and the host grant it.
#[track_caller]
pub fn call<R: DeserializeOwned>(extension: &str, method: &str, arguments: impl Serialize) -> Result<R> {
    let payload = arguments_of(extension, method, &arguments)?;
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

/// Stands among the arguments of [`feed`] for the items that it sends.
pub const INPUT: StreamMark = StreamMark;

/// Calls a method of another extension and reads its result as a stream, while it runs.
///
/// ```no_run
/// # fn main() -> Result<(), quadriga_sdk::Error> {
/// for line in quadriga_sdk::host::stream::<String>("acme.files", "lines", ("a.txt",))? {
///     println!("{}", line?);
/// }
/// # Ok(())
/// # }
/// ```
#[track_caller]
pub fn stream<T: DeserializeOwned>(
    extension: &str,
    method: &str,
    arguments: impl Serialize,
) -> Result<Items<T>> {
    let payload = arguments_of(extension, method, &arguments)?;
    let channel = seam::start(extension, method, &payload, false, true).map_err(Error::from_host)?;
    Ok(Items::new(channel))
}

/// Calls a method of another extension and sends it a stream, for which [`INPUT`] stands among the
/// arguments. Stops sending when the method has heard enough.
///
/// ```no_run
/// # fn main() -> Result<(), quadriga_sdk::Error> {
/// use quadriga_sdk::host;
/// let sum: i64 = host::feed("acme.math", "sum", (host::INPUT,), 1..=100)?;
/// # Ok(())
/// # }
/// ```
#[track_caller]
pub fn feed<R: DeserializeOwned, I: Serialize>(
    extension: &str,
    method: &str,
    arguments: impl Serialize,
    items: impl IntoIterator<Item = I>,
) -> Result<R> {
    let payload = arguments_of(extension, method, &arguments)?;
    let mut channel = seam::start(extension, method, &payload, true, false).map_err(Error::from_host)?;
    let mut bytes = Vec::new();
    for item in items {
        bytes.clear();
        if let Err(error) = codec::append(&mut bytes, &item) {
            let message = format!("an item for {extension}/{method} cannot be sent: {error}");
            return Err(Error::with_code(ErrorCode::InvalidValue, message));
        }
        // The call is over: its result says more than this error.
        if channel.write(&bytes).is_err() {
            break;
        }
    }
    channel.finish();
    let none = || Error::with_code(ErrorCode::ProtocolViolation, "the call gave no result");
    Items::new(channel).next().unwrap_or_else(|| Err(none()))
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

/// The list of arguments, encoded.
#[track_caller]
fn arguments_of(extension: &str, method: &str, arguments: &impl Serialize) -> Result<Vec<u8>> {
    match codec::arguments(arguments) {
        Ok(payload) => Ok(payload),
        Err(error) => {
            let text = format!("the arguments for {extension}/{method} cannot be sent: {error}");
            Err(Error::with_code(ErrorCode::InvalidValue, text))
        }
    }
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

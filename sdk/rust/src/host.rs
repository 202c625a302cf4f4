//! What an extension may ask of its host, in the course of a call.

use std::collections::BTreeMap;
use std::future::poll_fn;
use std::panic::Location;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use quadriga_abi::{Emitted, ErrorCode, Overflow, StreamMark, codec};
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::broadcast::Answered;
#[cfg(not(target_family = "wasm"))]
use crate::native as seam;
#[cfg(target_family = "wasm")]
use crate::wasm as seam;
use crate::{Answer, Error, Items, Result, Subscribe, To, task};

const CALLS: &str = "quadriga.calls";
const EVENTS: &str = "quadriga.events";

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

/// Begins a call of a method of another extension, for `async` methods: more can be begun before
/// this one's result is awaited. The call runs from now on.
///
/// ```
/// #[quadriga_sdk::extension]
/// mod weather {
///     use quadriga_sdk::{Error, host};
///
///     /// Asks two others at once.
///     pub async fn both() -> Result<f64, Error> {
///         let north = host::call_async::<f64>("acme.north", "degrees", ());
///         let south = host::call_async::<f64>("acme.south", "degrees", ());
///         Ok((north.await? + south.await?) / 2.0)
///     }
/// }
/// # fn main() {}
/// ```
#[track_caller]
pub fn call_async<R: DeserializeOwned>(extension: &str, method: &str, arguments: impl Serialize) -> Reply<R> {
    let begin = || {
        let payload = arguments_of(extension, method, &arguments)?;
        seam::start(extension, method, &payload, false, false).map_err(Error::from_host)
    };
    let call = begin().map(Items::new).map_err(Some);
    Reply { call, what: format!("the result of {extension}/{method}"), at: Location::caller() }
}

/// The result of a call that is under way, to be awaited. Dropped, it gives the call up.
#[must_use = "the call is given up when this is dropped"]
#[derive(Debug)]
pub struct Reply<R> {
    /// The error is that with which it could not begin.
    call: std::result::Result<Items<R>, Option<Error>>,
    what: String,
    at: &'static Location<'static>,
}

impl<R: DeserializeOwned> Future for Reply<R> {
    type Output = Result<R>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Result<R>> {
        let Self { call, what, at } = &mut *self;
        let none = || Error::with_code(ErrorCode::ProtocolViolation, "the call gave no result");
        match call {
            Ok(call) => call.poll(context, what, at).map(|result| result.unwrap_or_else(|| Err(none()))),
            Err(error) => Poll::Ready(Err(error.take().unwrap_or_else(none))),
        }
    }
}

/// Waits for some time, for `async` methods. Fails when the running call must end.
#[track_caller]
pub fn sleep(time: Duration) -> impl Future<Output = Result<()>> {
    let at = Location::caller();
    // Longer than that, and there is no such time.
    let until = Arc::new(Instant::now() + time.min(Duration::from_secs(u32::MAX.into())));
    poll_fn(move |context| task::poll_time(&until, context).map_err(|error| Error::from_host_at(error, at)))
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

/// Has the host's work go on, in a handler of a hook with `mode = "around"`, and gives what comes of it.
/// `patch` changes the context before, as a JSON Merge Patch (RFC 7396); `()` leaves it as it is. Only
/// once in each call. `async` methods use [`call_async`] with `quadriga.hooks` and `proceed`.
///
/// ```
/// #[quadriga_sdk::extension]
/// mod timing {
///     use quadriga_sdk::{Error, Value, host};
///
///     /// Lets the work be, and returns what comes of it.
///     pub fn around(_context: Value) -> Result<Value, Error> {
///         host::proceed(())
///     }
/// }
/// # fn main() {}
/// ```
#[track_caller]
pub fn proceed<R: DeserializeOwned>(patch: impl Serialize) -> Result<R> {
    call("quadriga.hooks", "proceed", (patch,))
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

/// Calls a method of each extension that `to` is for, all with the same arguments, but never this one.
/// Gives one answer for each that this extension may call, by id: those that it may not call are left
/// out. Needs the permission `call` for the method.
///
/// ```no_run
/// # fn main() -> Result<(), quadriga_sdk::Error> {
/// use quadriga_sdk::{To, host};
/// let caches = To { tag: Some("cache".to_owned()), ..To::default() };
/// for answer in host::broadcast::<u64>(&caches, "clear", ("images",))? {
///     match answer.result {
///         Ok(entries) => host::log::info(format!("{} had {entries}", answer.extension)),
///         Err(error) => host::log::warn(format!("{}: {}", answer.extension, error.message)),
///     }
/// }
/// # Ok(())
/// # }
/// ```
#[track_caller]
pub fn broadcast<R: DeserializeOwned>(
    to: &To,
    method: &str,
    arguments: impl Serialize,
) -> Result<Vec<Answer<R>>> {
    let answers: Vec<Answered> = call(CALLS, "broadcast", (to, method, arguments))?;
    Ok(answers.into_iter().map(Answer::from).collect())
}

/// Emits an event, for all who are subscribed to the topic. It is delivered later, to each at most
/// once, or at least once if that is what it asked for. Needs the permission `emit`.
#[track_caller]
pub fn emit(topic: &str, data: impl Serialize) -> Result<Emitted> {
    call(EVENTS, "emit", (topic, data))
}

/// Has events on a topic, or on all that begin with what stands before a final `*`, given to a method
/// of this extension, one after another: as an [`Event`](crate::Event). Needs the permission
/// `subscribe`. What the manifest says under `[events]` needs no call.
#[track_caller]
pub fn subscribe(topic: &str, method: &str, overflow: Overflow) -> Result<()> {
    call(EVENTS, "subscribe", (topic, method, BTreeMap::from([("overflow", overflow)])))
}

/// The same with all that the manifest can say of a topic: for events that are to come at least once.
///
/// ```no_run
/// # fn main() -> Result<(), quadriga_sdk::Error> {
/// use quadriga_sdk::{Delivery, Subscribe, host};
/// let kept = Subscribe { delivery: Delivery::AtLeastOnce, ..Subscribe::default() };
/// host::subscribe_with("orders.*", "ordered", &kept)?;
/// # Ok(())
/// # }
/// ```
#[track_caller]
pub fn subscribe_with(topic: &str, method: &str, options: &Subscribe) -> Result<()> {
    call(EVENTS, "subscribe", (topic, method, options))
}

/// Ends what [`subscribe`] began, and says whether there was anything to end.
#[track_caller]
pub fn unsubscribe(topic: &str, method: &str) -> Result<bool> {
    call(EVENTS, "unsubscribe", (topic, method))
}

pub mod data;
pub mod kv;

/// The host's secrets that the extension was granted, under the permission `secrets`.
pub mod secrets {
    use super::{Result, call};

    /// The text of a secret. Fails with `unknown_secret` if the host does not have it.
    #[track_caller]
    pub fn get(name: &str) -> Result<String> {
        call("quadriga.secrets", "get", (name,))
    }
}

pub mod process;

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

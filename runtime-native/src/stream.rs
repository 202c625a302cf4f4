//! The host's side of streams: what a call emits and reads, and the calls with streams that it makes.

use std::panic::{AssertUnwindSafe, catch_unwind};

use abi_stable::std_types::{RSlice, RStr};
use quadriga_abi::vtable::{Outcome, ReplySink};
use quadriga_abi::{Bytes, Error, ErrorCode};
use quadriga_core::{Feed, Items};

use crate::host_call::state;

/// A call that an extension has begun.
pub(crate) struct Channel {
    pub(crate) items: Items,
    feed: Option<Feed>,
}

/// Hands a result to the extension. A panic of ours must not unwind through its frames.
#[expect(unsafe_code, reason = "called with a sink that the extension lent")]
pub(crate) unsafe fn answer(sink: ReplySink, work: impl FnOnce() -> Result<Option<Bytes>, Error>) {
    let result = catch_unwind(AssertUnwindSafe(work))
        .unwrap_or_else(|_| Err(Error::new(ErrorCode::Internal, "the host panicked")));
    let (outcome, bytes) = match result {
        Ok(Some(item)) => (Outcome::Reply, item),
        Ok(None) => (Outcome::End, Bytes::new()),
        Err(error) => (Outcome::Error, error.to_bytes().into()),
    };
    // SAFETY: the extension lent the sink for the time of this call, and it is used once.
    unsafe { (sink.take)(sink.state, outcome, bytes[..].into()) }
}

#[expect(unsafe_code, reason = "called by the extension with the pointer that it was lent")]
pub(crate) unsafe extern "C" fn emit(call: *const (), item: RSlice<'_, u8>, sink: ReplySink) {
    // SAFETY: the extension holds its `HostCall`.
    let call = unsafe { state(call) };
    let item = Bytes::copy_from_slice(item.as_slice());
    let work = || {
        let output = call.streams.as_ref().and_then(|streams| streams.output.as_ref());
        output.ok_or_else(no_stream)?.emit(&item).map(|()| Some(Bytes::new()))
    };
    // SAFETY: the sink came with this call.
    unsafe { answer(sink, work) }
}

#[expect(unsafe_code, reason = "called by the extension with the pointer that it was lent")]
pub(crate) unsafe extern "C" fn next(call: *const (), sink: ReplySink) {
    // SAFETY: as in `emit`.
    let call = unsafe { state(call) };
    let work = || {
        let input = call.streams.as_ref().and_then(|streams| streams.input.as_ref());
        input.ok_or_else(no_stream)?.next().transpose()
    };
    // SAFETY: as in `emit`.
    unsafe { answer(sink, work) }
}

fn no_stream() -> Error {
    Error::new(ErrorCode::Unsupported, "the call has no such stream")
}

#[expect(unsafe_code, reason = "called by the extension with the pointer that it was lent")]
pub(crate) unsafe extern "C" fn start(
    call: *const (),
    extension: RStr<'_>,
    method: RStr<'_>,
    arguments: RSlice<'_, u8>,
    input: bool,
    stream: bool,
) -> *mut () {
    // SAFETY: as in `emit`.
    let call = unsafe { state(call) };
    let arguments = Bytes::copy_from_slice(arguments.as_slice());
    let (feed, input) = input.then(Feed::new).unzip();
    let (extension, method) = (extension.as_str(), method.as_str());
    let items = call.hub.bridge.start(&call.context, extension, method, arguments, input, stream);
    Box::into_raw(Box::new(Channel { items, feed })).cast()
}

/// # Safety
/// `channel` must come from `start`, and no other thread may use it.
#[expect(unsafe_code, reason = "raw pointers cross the seam")]
pub(crate) unsafe fn channel<'a>(channel: *mut ()) -> &'a mut Channel {
    // SAFETY: the caller's promise.
    unsafe { &mut *channel.cast::<Channel>() }
}

#[expect(unsafe_code, reason = "called by the extension with the pointer that it was lent")]
pub(crate) unsafe extern "C" fn read(state: *mut (), sink: ReplySink) {
    // SAFETY: the extension holds its `Channel`, which gives it to one thread at a time.
    let channel = unsafe { channel(state) };
    // SAFETY: as in `emit`.
    unsafe { answer(sink, || channel.items.next_blocking().transpose()) }
}

#[expect(unsafe_code, reason = "called by the extension with the pointer that it was lent")]
pub(crate) unsafe extern "C" fn write(state: *mut (), item: RSlice<'_, u8>, sink: ReplySink) {
    // SAFETY: as in `read`.
    let channel = unsafe { channel(state) };
    let item = Bytes::copy_from_slice(item.as_slice());
    let work = || {
        let feed = channel.feed.as_ref().ok_or_else(no_stream)?;
        channel.items.alongside_blocking(feed.send(item)).map(|()| Some(Bytes::new()))
    };
    // SAFETY: as in `emit`.
    unsafe { answer(sink, work) }
}

#[expect(unsafe_code, reason = "called by the extension with the pointer that it was lent")]
pub(crate) unsafe extern "C" fn finish_input(state: *mut ()) {
    // SAFETY: as in `read`.
    if let Some(feed) = unsafe { channel(state) }.feed.take() {
        feed.finish();
    }
}

#[expect(unsafe_code, reason = "gives back what `start` made")]
pub(crate) unsafe extern "C" fn drop_channel(channel: *mut ()) {
    // SAFETY: made by `Box::into_raw` in `start`, and given back once, when the `Channel` drops.
    let channel = unsafe { Box::from_raw(channel.cast::<Channel>()) };
    let _ = catch_unwind(AssertUnwindSafe(|| drop(channel)));
}

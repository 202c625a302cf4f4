//! Streams: what the calls of this isolate emit and read, and the calls with streams that it makes.

use std::rc::Rc;
use std::sync::Arc;

use deno_core::{op2, v8};
use deno_error::JsErrorBox;
use quadriga_abi::msgpack::{Depth, STREAM, Token, write};
use quadriga_abi::{Bytes, Error, ErrorCode};
use quadriga_core::{BoxFuture, Feed, Items};
use tokio::sync::Mutex;

use crate::host_call::{encode_guarded, wait};
use crate::state::State;

/// A call with streams that the guest has begun.
pub(crate) struct Channel {
    /// The call that made it; 0 for none.
    pub(crate) owner: u64,
    ends: Arc<Mutex<Ends>>,
}

struct Ends {
    items: Items,
    feed: Option<Feed>,
}

const TRUE: &[u8] = &[0xc3];
const FALSE: &[u8] = &[0xc2];

/// The argument that stands for a call's stream.
pub(crate) fn argument<'s>(
    scope: &mut v8::PinScope<'s, '_>,
    state: &State,
    call: u64,
) -> Option<v8::Local<'s, v8::Value>> {
    let input = v8::Local::new(scope, &state.helpers.get()?.input);
    let (undefined, id) = (v8::undefined(scope).into(), v8::Number::new(scope, call as f64).into());
    input.call(scope, undefined, &[id])
}

fn no_stream() -> Error {
    Error::new(ErrorCode::Unsupported, "the call has no such stream")
}

/// A promise of what a future gives.
pub(crate) fn promise<'s>(
    scope: &mut v8::PinScope<'s, '_>,
    state: &Rc<State>,
    item: bool,
    future: BoxFuture<'static, Result<Bytes, Error>>,
) -> Result<v8::Local<'s, v8::Value>, JsErrorBox> {
    let lost = || JsErrorBox::generic("the engine is stopping");
    let resolver = v8::PromiseResolver::new(scope).ok_or_else(lost)?;
    let promise = resolver.get_promise(scope);
    wait(scope, state, resolver, item, future);
    Ok(promise.into())
}

/// Hands on an item of a call's result. Returns nothing where there was room, else a promise.
#[op2(reentrant)]
pub(crate) fn op_qx_emit<'s>(
    scope: &mut v8::PinScope<'s, '_>,
    #[number] call: u64,
    item: v8::Local<'s, v8::Value>,
) -> Result<v8::Local<'s, v8::Value>, JsErrorBox> {
    let state = State::current();
    let mut bytes = Vec::new();
    let encoded = encode_guarded(scope, &state, item, &mut bytes, Depth::default());
    let output = state.calls.borrow().get(&call).and_then(|call| call.streams.as_ref()?.output.clone());
    let emitted = match (encoded, output) {
        (Err(refused), _) => Err(refused),
        (Ok(()), None) => Err(no_stream()),
        (Ok(()), Some(output)) => {
            let item = Bytes::from(bytes);
            match output.try_emit(&item) {
                Some(emitted) => emitted,
                None => {
                    let emitted = async move { output.emit_later(item).await.map(|()| TRUE.into()) };
                    return promise(scope, &state, false, Box::pin(emitted));
                }
            }
        }
    };
    match emitted {
        Ok(()) => Ok(v8::undefined(scope).into()),
        Err(error) => promise(scope, &state, false, Box::pin(std::future::ready(Err(error)))),
    }
}

/// A promise of the next item of a call's input.
#[op2]
pub(crate) fn op_qx_next<'s>(
    scope: &mut v8::PinScope<'s, '_>,
    #[number] call: u64,
) -> Result<v8::Local<'s, v8::Value>, JsErrorBox> {
    let state = State::current();
    let input = state.calls.borrow().get(&call).and_then(|call| call.streams.as_ref()?.input.clone());
    let next = async move {
        let input = input.ok_or_else(no_stream)?;
        // Nothing at all stands for the end: every value has at least a byte.
        input.next_later().await.unwrap_or_else(|| Ok(Bytes::new()))
    };
    promise(scope, &state, true, Box::pin(next))
}

/// Begins a call with streams, and returns its number. At `index` of the arguments, if that is not
/// negative, stands the stream that it sends.
#[op2(fast, reentrant)]
#[smi]
pub(crate) fn op_qx_channel<'s>(
    scope: &mut v8::PinScope<'s, '_>,
    #[string] extension: String,
    #[string] method: String,
    arguments: v8::Local<'s, v8::Array>,
    #[smi] index: i32,
    output: bool,
) -> Result<u32, JsErrorBox> {
    let state = State::current();
    let payload = encode(scope, &state, arguments, index)?;
    let (feed, input) = (index >= 0).then(Feed::new).unzip();
    let context = state.context(scope);
    let items = state.bridge.start(&context, &extension, &method, payload.into(), input, output);
    let owner = State::owner(scope);
    let ends = Arc::new(Mutex::new(Ends { items, feed }));
    let ticket = state.tickets.get();
    state.tickets.set(ticket.wrapping_add(1));
    state.channels.borrow_mut().insert(ticket, Channel { owner, ends });
    Ok(ticket)
}

fn encode<'s>(
    scope: &mut v8::PinScope<'s, '_>,
    state: &State,
    arguments: v8::Local<'s, v8::Array>,
    index: i32,
) -> Result<Vec<u8>, JsErrorBox> {
    let refused = |error: Error| JsErrorBox::type_error(error.to_string());
    let mut payload = Vec::new();
    write(&mut payload, Token::List(arguments.length() as usize))
        .map_err(|error| JsErrorBox::type_error(error.to_string()))?;
    for place in 0..arguments.length() {
        if i64::from(place) == i64::from(index) {
            payload.extend_from_slice(STREAM);
        } else {
            let lost = || JsErrorBox::generic("the arguments cannot be read");
            let argument = arguments.get_index(scope, place).ok_or_else(lost)?;
            encode_guarded(scope, state, argument, &mut payload, Depth::default()).map_err(refused)?;
        }
    }
    Ok(payload)
}

fn ends(state: &State, channel: u32) -> Result<Arc<Mutex<Ends>>, JsErrorBox> {
    let channels = state.channels.borrow();
    let channel = channels.get(&channel).ok_or_else(|| JsErrorBox::generic("the stream is closed"))?;
    Ok(Arc::clone(&channel.ends))
}

/// A promise of the next item of a channel.
#[op2]
pub(crate) fn op_qx_read<'s>(
    scope: &mut v8::PinScope<'s, '_>,
    #[smi] channel: u32,
) -> Result<v8::Local<'s, v8::Value>, JsErrorBox> {
    let state = State::current();
    let ends = ends(&state, channel)?;
    let next = async move { ends.lock().await.items.next().await.unwrap_or_else(|| Ok(Bytes::new())) };
    promise(scope, &state, true, Box::pin(next))
}

/// Sends an item of a channel's input. The promise is of whether the callee still listens.
#[op2(reentrant)]
pub(crate) fn op_qx_write<'s>(
    scope: &mut v8::PinScope<'s, '_>,
    #[smi] channel: u32,
    item: v8::Local<'s, v8::Value>,
) -> Result<v8::Local<'s, v8::Value>, JsErrorBox> {
    let state = State::current();
    let mut bytes = Vec::new();
    if let Err(refused) = encode_guarded(scope, &state, item, &mut bytes, Depth::default()) {
        return promise(scope, &state, false, Box::pin(std::future::ready(Err(refused))));
    }
    let ends = ends(&state, channel)?;
    let sent = async move {
        let mut ends = ends.lock().await;
        let Ends { items, feed } = &mut *ends;
        let Some(feed) = feed else { return Err(no_stream()) };
        let listens = items.alongside(feed.send(bytes)).await.is_ok();
        Ok(Bytes::from_static(if listens { TRUE } else { FALSE }))
    };
    promise(scope, &state, false, Box::pin(sent))
}

/// Says that a channel's input has no more items.
#[op2(fast)]
pub(crate) fn op_qx_finish(#[smi] channel: u32) {
    if let Ok(ends) = ends(&State::current(), channel)
        && let Ok(mut ends) = ends.try_lock()
        && let Some(feed) = ends.feed.take()
    {
        feed.finish();
    }
}

/// Lets go of a channel, whose call is given up if it still runs.
#[op2(fast)]
pub(crate) fn op_qx_close(#[smi] channel: u32) {
    State::current().channels.borrow_mut().remove(&channel);
}

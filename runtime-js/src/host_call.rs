//! What the SDK calls in the host.

use std::borrow::Cow;
use std::rc::Rc;

use deno_core::futures::stream::Abortable;
use deno_core::{Extension, ExtensionFileSource, OpDecl, ascii_str_include, op2, v8};
use deno_error::JsErrorBox;
use quadriga_abi::msgpack::{Depth, Reader};
use quadriga_abi::{Bytes, Error, ErrorCode};
use quadriga_core::{BoxFuture, LogLevel};

use crate::convert::{self, ConvertError};
use crate::state::{Helpers, Signal, State, Waiting};
use crate::{clock, error, fetch, stream};

/// The ops and the script that hides them from the extension.
pub(crate) fn extension() -> Extension {
    const OPS: &[OpDecl] = &[
        op_qx_call(),
        op_qx_cancelled(),
        stream::op_qx_channel(),
        clock::op_qx_clock_step(),
        stream::op_qx_close(),
        op_qx_config(),
        op_qx_decode(),
        stream::op_qx_emit(),
        fetch::op_qx_fetch(),
        fetch::op_qx_fetch_close(),
        fetch::op_qx_fetch_read(),
        stream::op_qx_finish(),
        op_qx_install(),
        op_qx_log(),
        clock::op_qx_monotonic(),
        stream::op_qx_next(),
        stream::op_qx_read(),
        op_qx_set_signal(),
        op_qx_settle(),
        op_qx_signal(),
        op_qx_unhandled(),
        clock::op_qx_wall(),
        stream::op_qx_write(),
    ];
    const SCRIPTS: &[ExtensionFileSource] = &[
        ExtensionFileSource::new("ext:quadriga/clock.js", ascii_str_include!("js/clock.js")),
        ExtensionFileSource::new("ext:quadriga/events.js", ascii_str_include!("js/events.js")),
        ExtensionFileSource::new("ext:quadriga/fetch.js", ascii_str_include!("js/fetch.js")),
        ExtensionFileSource::new("ext:quadriga/streams.js", ascii_str_include!("js/streams.js")),
        ExtensionFileSource::new("ext:quadriga/bootstrap.js", ascii_str_include!("js/bootstrap.js")),
    ];
    Extension {
        name: "quadriga",
        ops: Cow::Borrowed(OPS),
        js_files: Cow::Borrowed(SCRIPTS),
        ..Extension::default()
    }
}

/// Takes the functions that Rust calls.
#[op2(fast)]
fn op_qx_install(
    scope: &mut v8::PinScope<'_, '_>,
    explain: v8::Local<'_, v8::Function>,
    watch: v8::Local<'_, v8::Function>,
    well_formed: v8::Local<'_, v8::Function>,
    timestamp: v8::Local<'_, v8::Function>,
    nanosecond: v8::Local<'_, v8::Function>,
    drain: v8::Local<'_, v8::Function>,
    input: v8::Local<'_, v8::Function>,
) {
    let helpers = Helpers {
        explain: v8::Global::new(scope, explain),
        watch: v8::Global::new(scope, watch),
        well_formed: v8::Global::new(scope, well_formed),
        timestamp: v8::Global::new(scope, timestamp),
        nanosecond: v8::Global::new(scope, nanosecond),
        drain: v8::Global::new(scope, drain),
        input: v8::Global::new(scope, input),
    };
    let _ = State::current().helpers.set(helpers);
}

/// Begins a call to another extension and returns the promise of its reply, which is rejected with
/// the parts of an error. Encoding may run getters, hence `reentrant`.
#[op2(reentrant)]
fn op_qx_call<'s>(
    scope: &mut v8::PinScope<'s, '_>,
    #[string] extension: String,
    #[string] method: String,
    arguments: v8::Local<'s, v8::Value>,
) -> Result<v8::Local<'s, v8::Value>, JsErrorBox> {
    let state = State::current();
    let lost = || JsErrorBox::generic("the engine is stopping");
    let resolver = v8::PromiseResolver::new(scope).ok_or_else(lost)?;
    let promise = resolver.get_promise(scope);
    let mut payload = Vec::new();
    match encode_guarded(scope, &state, arguments, &mut payload, Depth::arguments()) {
        Ok(()) => begin(scope, &state, &extension, &method, payload.into(), resolver),
        Err(refused) => {
            let refused = error::to_exception(scope, &refused);
            resolver.reject(scope, refused).ok_or_else(lost)?;
        }
    }
    Ok(promise.into())
}

fn begin<'s>(
    scope: &mut v8::PinScope<'s, '_>,
    state: &Rc<State>,
    extension: &str,
    method: &str,
    payload: Bytes,
    resolver: v8::Local<'s, v8::PromiseResolver>,
) {
    let reply = state.bridge.call_detached(&state.context(scope), extension, method, payload);
    wait(scope, state, resolver, false, reply);
}

/// Lets a promise wait for something. `item`: nothing at all stands for the end of a stream.
pub(crate) fn wait<'s>(
    scope: &mut v8::PinScope<'s, '_>,
    state: &Rc<State>,
    resolver: v8::Local<'s, v8::PromiseResolver>,
    item: bool,
    reply: BoxFuture<'static, Result<Bytes, Error>>,
) {
    let ticket = state.tickets.get();
    state.tickets.set(ticket.wrapping_add(1));
    let (abort, registration) = deno_core::futures::stream::AbortHandle::new_pair();
    let owner = State::owner(scope);
    let resolver = v8::Global::new(scope, resolver);
    state.waiting.borrow_mut().insert(ticket, Waiting { resolver, owner, abort, item });
    state
        .host_calls
        .borrow_mut()
        .push(Abortable::new(Box::pin(async move { (ticket, reply.await) }), registration));
    state.fresh.set(true);
    if let Some(tracker) = state.pending_ops.get() {
        tracker.ref_op();
    }
}

/// Encodes a value; what a getter throws becomes an error too.
pub(crate) fn encode_guarded<'s>(
    scope: &mut v8::PinScope<'s, '_>,
    state: &State,
    value: v8::Local<'s, v8::Value>,
    out: &mut Vec<u8>,
    depth: Depth,
) -> Result<(), Error> {
    v8::tc_scope!(let scope, scope);
    match convert::encode(scope, value, out, depth) {
        Ok(()) => Ok(()),
        Err(refused @ ConvertError::NoPlace { .. }) => {
            Err(Error::new(ErrorCode::InvalidValue, refused.to_string()))
        }
        Err(ConvertError::Threw) => {
            let thrown = scope.exception();
            scope.reset();
            Err(match thrown {
                Some(thrown) => error::from_exception(scope, state, thrown),
                None => Error::new(ErrorCode::InvalidValue, "the value could not be read"),
            })
        }
    }
}

/// Answers a call whose promise has settled.
#[op2(fast, reentrant)]
fn op_qx_settle<'s>(
    scope: &mut v8::PinScope<'s, '_>,
    #[number] call: u64,
    fulfilled: bool,
    value: v8::Local<'s, v8::Value>,
) {
    let state = State::current();
    if !state.calls.borrow().contains_key(&call) {
        return;
    }
    let result = if fulfilled {
        let mut out = Vec::new();
        encode_guarded(scope, &state, value, &mut out, Depth::default()).map(|()| out.into())
    } else {
        v8::tc_scope!(let scope, scope);
        Err(error::from_exception(scope, &state, value))
    };
    // Encoding may have been cut short; whoever did that answers the call.
    if state.end.get().is_none() {
        state.answer(call, result);
    }
}

/// Takes an error that no one caught.
#[op2(fast, reentrant)]
fn op_qx_unhandled<'s>(scope: &mut v8::PinScope<'s, '_>, thrown: v8::Local<'s, v8::Value>) {
    let state = State::current();
    let error = {
        v8::tc_scope!(let scope, scope);
        error::from_exception(scope, &state, thrown)
    };
    state.unhandled.borrow_mut().push(error);
}

#[op2(fast)]
fn op_qx_log(scope: &mut v8::PinScope<'_, '_>, #[smi] level: u32, #[string] message: &str) {
    let level = match level {
        0 => LogLevel::Trace,
        1 => LogLevel::Debug,
        2 => LogLevel::Info,
        3 => LogLevel::Warn,
        _ => LogLevel::Error,
    };
    let state = State::current();
    let context = state.context(scope);
    state.bridge.log(&context, level, message);
}

#[op2]
fn op_qx_config<'s>(scope: &mut v8::PinScope<'s, '_>) -> Result<v8::Local<'s, v8::Value>, JsErrorBox> {
    let config = State::current().bridge.config();
    convert::decode(scope, &mut Reader::new(&config), Depth::default())
        .map_err(|error| JsErrorBox::generic(error.to_string()))
}

/// The abort signal of the call that runs, if it has asked for one.
#[op2]
fn op_qx_signal<'s>(scope: &mut v8::PinScope<'s, '_>) -> v8::Local<'s, v8::Value> {
    let state = State::current();
    let owner = State::owner(scope);
    let calls = state.calls.borrow();
    match calls.get(&owner).and_then(|call| call.signal.as_ref()) {
        Some(signal) => v8::Local::new(scope, &signal.object),
        None => v8::undefined(scope).into(),
    }
}

/// Keeps the abort signal of the call that runs, and what aborts it.
#[op2(fast)]
fn op_qx_set_signal<'s>(
    scope: &mut v8::PinScope<'s, '_>,
    object: v8::Local<'s, v8::Value>,
    abort: v8::Local<'s, v8::Function>,
) {
    let state = State::current();
    let owner = State::owner(scope);
    let signal = Signal { object: v8::Global::new(scope, object), abort: v8::Global::new(scope, abort) };
    if let Some(call) = state.calls.borrow_mut().get_mut(&owner) {
        call.signal = Some(signal);
    }
}

#[op2(fast)]
fn op_qx_cancelled(scope: &mut v8::PinScope<'_, '_>) -> bool {
    let state = State::current();
    let owner = State::owner(scope);
    // A call that was ended early is no longer among those in flight.
    if owner != 0 && !state.calls.borrow().contains_key(&owner) {
        return true;
    }
    let context = state.context(scope);
    state.bridge.cancelled(&context)
}

/// UTF-8 to text. Broken sequences become U+FFFD, or an error if `fatal`.
#[op2]
#[string]
fn op_qx_decode(#[buffer] bytes: &[u8], fatal: bool) -> Result<String, JsErrorBox> {
    match str::from_utf8(bytes) {
        Ok(text) => Ok(text.to_owned()),
        Err(_) if fatal => Err(JsErrorBox::type_error("the bytes are not UTF-8")),
        Err(_) => Ok(String::from_utf8_lossy(bytes).into_owned()),
    }
}

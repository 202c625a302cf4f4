//! `fetch`: what the script `fetch.js` asks of the host. The HTTP is spoken here, on the isolate's own
//! thread; the connections come from the extension's bridge, which decides about each.

mod client;
mod request;

use std::cell::RefCell;
use std::collections::HashMap;
use std::sync::Arc;

use deno_core::futures::stream::{AbortHandle, Abortable};
use deno_core::{op2, v8};
use deno_error::JsErrorBox;
use quadriga_abi::msgpack::Depth;
use quadriga_abi::{Bytes, Error, ErrorCode, codec};
use tokio::sync::Mutex;

use crate::host_call::encode_guarded;
use crate::state::State;
use crate::stream::promise;
use client::Body;
use request::Request;

thread_local! {
    /// The exchanges of the isolate on this thread, by the numbers that its script gives them.
    static EXCHANGES: RefCell<HashMap<u32, Exchange>> = RefCell::default();
}

/// A request that is under way, or whose response can still be read.
struct Exchange {
    /// The call that made it; 0 for none.
    owner: u64,
    abort: AbortHandle,
    /// There once the head of the response is.
    body: Arc<Mutex<Option<Body>>>,
}

impl Drop for Exchange {
    fn drop(&mut self) {
        self.abort.abort();
    }
}

/// Ends the exchanges of a call that is over.
pub(crate) fn forget(call: u64) {
    let over: Vec<Exchange> = EXCHANGES.with_borrow_mut(|exchanges| {
        exchanges.extract_if(|_, exchange| exchange.owner == call).map(|(_, exchange)| exchange).collect()
    });
    drop(over);
}

/// Sends a request: `[method, url, [name, value, ...], body, redirect]`. The promise is of the head of
/// the response: `[status, text, url, redirected, [name, value, ...]]`.
#[op2(reentrant)]
pub(crate) fn op_qx_fetch<'s>(
    scope: &mut v8::PinScope<'s, '_>,
    #[smi] number: u32,
    request: v8::Local<'s, v8::Value>,
) -> Result<v8::Local<'s, v8::Value>, JsErrorBox> {
    let state = State::current();
    let mut bytes = Vec::new();
    let request = encode_guarded(scope, &state, request, &mut bytes, Depth::default())
        .and_then(|()| Request::from_bytes(&bytes));
    let (owner, context, bridge) = (State::owner(scope), state.context(scope), state.bridge.clone());
    let body = Arc::<Mutex<Option<Body>>>::default();
    let (abort, registration) = AbortHandle::new_pair();
    let exchange = Exchange { owner, abort, body: Arc::clone(&body) };
    let replaced = EXCHANGES.with_borrow_mut(|exchanges| exchanges.insert(number, exchange));
    drop(replaced);
    let fetching = async move {
        let (head, response) = client::fetch(&bridge, &context, request?).await?;
        *body.lock().await = Some(response);
        codec::to_bytes(&head)
            .map(Bytes::from)
            .map_err(|error| Error::new(ErrorCode::InvalidValue, format!("the response's head: {error}")))
    };
    let aborted = |_| Err(Error::new(ErrorCode::Cancelled, "the request was given up"));
    let fetching = Abortable::new(fetching, registration);
    promise(scope, &state, false, Box::pin(async move { fetching.await.unwrap_or_else(aborted) }))
}

/// A promise of the next bytes of a response's body; nothing stands for its end.
#[op2]
pub(crate) fn op_qx_fetch_read<'s>(
    scope: &mut v8::PinScope<'s, '_>,
    #[smi] number: u32,
) -> Result<v8::Local<'s, v8::Value>, JsErrorBox> {
    let state = State::current();
    let body = EXCHANGES.with_borrow(|exchanges| exchanges.get(&number).map(|it| Arc::clone(&it.body)));
    let next = async move {
        let over = || Error::new(ErrorCode::Cancelled, "the call that made the request is over");
        let body = body.ok_or_else(over)?;
        let mut body = body.lock().await;
        match body.as_mut().ok_or_else(over)?.next().await? {
            Some(bytes) => Ok(client::as_value(&bytes)),
            None => Ok(Bytes::new()),
        }
    };
    promise(scope, &state, true, Box::pin(next))
}

/// Ends an exchange, whatever is under way of it.
#[op2(fast)]
pub(crate) fn op_qx_fetch_close(#[smi] number: u32) {
    let exchange = EXCHANGES.with_borrow_mut(|exchanges| exchanges.remove(&number));
    drop(exchange);
}

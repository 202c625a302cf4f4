//! The calls that an extension in a worker makes: they go through its bridge, as in one process.

use std::future::poll_fn;
use std::sync::Arc;

use parking_lot::Mutex;
use quadriga_abi::{Bytes, Envelope, Error, ErrorCode, Kind};
use quadriga_core::{CallContext, Feed, Items};
use tokio::task::JoinHandle;

use super::Link;
use super::read::from_guest;
use crate::frame::{Frame, INPUT, NET, OUTPUT};
use crate::streams::{Outgoing, Sink, Wire as _};

/// How many calls of one worker may be under way.
const MOST: usize = 4096;

impl Link {
    pub(super) fn host_call(self: &Arc<Self>, frame: Frame) -> Result<(), String> {
        let Frame { envelope, flags, parent } = frame;
        let id = envelope.id;
        let under_way = {
            let mut calls = self.host_calls.lock();
            if !from_guest(id) || calls.insert(id, None).is_some() {
                return Err(format!("a call with the id {id}, which is not free"));
            }
            calls.len()
        };
        if under_way > MOST {
            self.host_calls.lock().remove(&id);
            let error =
                Error::new(ErrorCode::Overloaded, format!("{MOST} calls of the extension are under way"));
            self.send(&Frame::answer(Kind::HostReply, id, Err(error)));
            return Ok(());
        }
        let context = self.context(parent);
        let task = match flags & NET {
            0 => self.call_another(id, flags, &context, envelope)?,
            _ => self.connect(id, &context, &envelope.payload)?,
        };
        match self.host_calls.lock().get_mut(&id) {
            Some(call) => *call = Some(task.abort_handle()),
            // It has been answered, or the worker is gone.
            None => task.abort(),
        }
        Ok(())
    }

    /// Calls another extension on behalf of a call.
    fn call_another(
        self: &Arc<Self>,
        id: u64,
        flags: u32,
        context: &CallContext,
        envelope: Envelope,
    ) -> Result<JoinHandle<()>, String> {
        let (extension, method, arguments) = match &envelope.target {
            Some(target) => (target.extension.to_string(), target.method.to_string(), envelope.payload),
            // A name that no extension can have.
            None => {
                let (extension, method): (String, String) = rmp_serde::from_slice(&envelope.payload)
                    .map_err(|error| format!("a call without a target: {error}"))?;
                (extension, method, Bytes::from_static(b"\x90"))
            }
        };
        let input = (flags & INPUT != 0).then(|| {
            let (feed, input) = Feed::new();
            self.streams.receive(self.wire(), id, Sink::Feed(Mutex::new(Some(feed))));
            input
        });
        let outgoing = (flags & OUTPUT != 0).then(|| self.streams.outgoing(self.wire(), id));
        let link = Arc::clone(self);
        Ok(match (outgoing, input) {
            (Some(outgoing), input) => {
                let items = self.bridge.start(context, &extension, &method, arguments, input, true);
                self.handle.spawn(async move { link.reply(id, send(items, &outgoing).await) })
            }
            (None, Some(input)) => {
                let input = Some(input);
                let mut items = self.bridge.start(context, &extension, &method, arguments, input, false);
                self.handle.spawn(async move {
                    let nothing = || Err(Error::new(ErrorCode::Internal, "the call ended without a result"));
                    link.reply(id, items.next().await.unwrap_or_else(nothing));
                })
            }
            (None, None) => {
                let call = self.bridge.call_detached(context, &extension, &method, arguments);
                self.handle.spawn(async move { link.reply(id, call.await) })
            }
        })
    }

    /// The guest no longer waits for one of its calls.
    pub(super) fn cancel(&self, id: u64) {
        let call = self.host_calls.lock().remove(&id);
        if let Some(call) = call {
            if let Some(call) = call {
                call.abort();
            }
            self.streams.remove(id);
        }
    }

    pub(super) fn reply(&self, id: u64, result: Result<Bytes, Error>) {
        // Not if it was cancelled in this moment.
        if self.host_calls.lock().remove(&id).is_some() {
            self.streams.remove(id);
            self.send(&Frame::answer(Kind::HostReply, id, result));
        }
    }
}

/// Sends the items of a call as far as the guest reads them.
async fn send(mut items: Items, outgoing: &Outgoing) -> Result<Bytes, Error> {
    while let Some(item) = items.next().await {
        let item = item?;
        items.alongside(poll_fn(|context| outgoing.poll_send(&item, context))).await?;
    }
    Ok(Bytes::new())
}

//! Streams: what a call emits and reads, and the calls with streams that it makes.
//!
//! None of this runs other guests on the small stack of this one: calls with streams run elsewhere.

use std::future::poll_fn;
use std::pin::pin;
use std::task::Poll;
use std::time::Duration;

use quadriga_abi::{Bytes, Error, ErrorCode};
use quadriga_core::{Feed, Items, Streams};
use wasmtime::component::Resource;

use crate::bindings::quadriga::extension::host::HostChannel;
use crate::bindings::quadriga::extension::types;
use crate::convert;
use crate::guest::Guest;

/// A call that a guest has begun.
#[expect(unreachable_pub, reason = "the generated bindings export it again")]
pub struct Channel {
    items: Items,
    feed: Option<Feed>,
}

pub(crate) async fn emit(streams: Option<&Streams>, item: Vec<u8>) -> Result<(), Error> {
    let output = streams.and_then(|streams| streams.output.clone()).ok_or_else(no_stream)?;
    output.emit_later(item.into()).await
}

pub(crate) async fn next(streams: Option<&Streams>) -> Result<Option<Vec<u8>>, Error> {
    let input = streams.and_then(|streams| streams.input.clone()).ok_or_else(no_stream)?;
    Ok(input.next_later().await.transpose()?.map(Vec::from))
}

fn no_stream() -> Error {
    Error::new(ErrorCode::Unsupported, "the call has no such stream")
}

fn gone(error: &wasmtime::component::ResourceTableError) -> types::Error {
    convert::error_to_guest(Error::new(ErrorCode::ProtocolViolation, error.to_string()))
}

/// Waits for the first of the channels, the input (after them) or the end of the time.
pub(crate) async fn wait(
    guest: &mut Guest,
    channels: &[Resource<Channel>],
    input: bool,
    timeout: Option<u64>,
) -> Result<Vec<u32>, Error> {
    let watch = guest.watch.clone();
    let input = guest.streams.as_ref().and_then(|streams| streams.input.clone()).filter(|_| input);
    let over = async {
        match timeout {
            Some(timeout) => tokio::time::sleep(Duration::from_nanos(timeout)).await,
            None => std::future::pending().await,
        }
    };
    let (mut stopped, mut over) = (pin!(watch.stopped()), pin!(over));
    poll_fn(|context| {
        let mut ready = Vec::new();
        for (place, channel) in (0..).zip(channels) {
            let polled = guest.table.get_mut(channel).map(|channel| channel.items.poll_ready(context));
            // What isn't there has nothing to wait for: `read` says why.
            if polled.is_ok_and(|polled| polled.is_pending()) {
                continue;
            }
            ready.push(place);
        }
        if input.as_ref().is_some_and(|input| input.poll_ready(context).is_ready()) {
            ready.push(u32::try_from(channels.len()).unwrap_or(u32::MAX));
        }
        if !ready.is_empty() {
            return Poll::Ready(Ok(ready));
        }
        if let Poll::Ready(stop) = stopped.as_mut().poll(context) {
            return Poll::Ready(Err(stop.into()));
        }
        // Who only looks needs no timer.
        if timeout == Some(0) {
            return Poll::Ready(Ok(ready));
        }
        over.as_mut().poll(context).map(|()| Ok(ready))
    })
    .await
}

impl HostChannel for Guest {
    fn new(
        &mut self,
        extension: String,
        method: String,
        arguments: Vec<u8>,
        input: bool,
        output: bool,
    ) -> wasmtime::Result<Resource<Channel>> {
        let (feed, input) = input.then(Feed::new).unzip();
        let (bridge, context) = (&self.watch.hub.bridge, &self.watch.context);
        let items = bridge.start(context, &extension, &method, arguments.into(), input, output);
        Ok(self.table.push(Channel { items, feed })?)
    }

    async fn read(&mut self, channel: Resource<Channel>) -> Result<Option<Vec<u8>>, types::Error> {
        let channel = self.table.get_mut(&channel).map_err(|error| gone(&error))?;
        let item = channel.items.next().await.transpose();
        item.map(|item| item.map(Vec::from)).map_err(convert::error_to_guest)
    }

    async fn write(&mut self, channel: Resource<Channel>, item: Vec<u8>) -> Result<(), types::Error> {
        let Channel { items, feed } = self.table.get_mut(&channel).map_err(|error| gone(&error))?;
        let sent = match feed {
            Some(feed) => items.alongside(feed.send(Bytes::from(item))).await,
            None => Err(no_stream()),
        };
        sent.map_err(convert::error_to_guest)
    }

    fn finish(&mut self, channel: Resource<Channel>) {
        if let Ok(channel) = self.table.get_mut(&channel)
            && let Some(feed) = channel.feed.take()
        {
            feed.finish();
        }
    }

    fn drop(&mut self, channel: Resource<Channel>) -> wasmtime::Result<()> {
        self.table.delete(channel)?;
        Ok(())
    }
}

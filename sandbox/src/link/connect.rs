//! Connections that an engine in a worker asks for: two streams beside a call, like any others.

use std::future::poll_fn;
use std::sync::Arc;

use bytes::BytesMut;
use parking_lot::Mutex;
use quadriga_abi::{Bytes, Error};
use quadriga_core::{BoxFuture, CallContext, Connection, Feed, Input};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::task::JoinHandle;

use super::Link;
use crate::frame::CHUNK_OF_CONNECTION;
use crate::streams::{Outgoing, Sink};

impl Link {
    /// Connects on behalf of a call, and carries bytes until both sides are done or one is gone.
    pub(super) fn connect(
        self: &Arc<Self>,
        id: u64,
        context: &CallContext,
        payload: &[u8],
    ) -> Result<JoinHandle<()>, String> {
        let (host, port): (String, u16) =
            rmp_serde::from_slice(payload).map_err(|error| format!("a connection to nowhere: {error}"))?;
        let (feed, input) = Feed::new();
        self.streams.receive(self.wire(), id, Sink::Feed(Mutex::new(Some(feed))));
        let outgoing = self.streams.outgoing(self.wire(), id);
        let connecting = self.bridge.connect(context, &host, port);
        let link = Arc::clone(self);
        Ok(self.handle.spawn(async move {
            let carried = carry(connecting, input, &outgoing).await;
            link.reply(id, carried.map(|((), ())| Bytes::new()));
        }))
    }
}

/// An empty item stands for the connection, and then for the end of what the other side sends.
async fn carry(
    connecting: BoxFuture<'static, Result<Connection, Error>>,
    input: Input,
    outgoing: &Outgoing,
) -> Result<((), ()), Error> {
    let send = async |item: Bytes| poll_fn(|context| outgoing.poll_send(&item, context)).await;
    let failed = |error: std::io::Error| Connection::error(&error);
    let (mut from, mut to) = tokio::io::split(connecting.await?);
    send(Bytes::new()).await?;
    let up = async {
        while let Some(bytes) = input.clone().next_later().await {
            to.write_all(&bytes?).await.map_err(failed)?;
        }
        to.shutdown().await.map_err(failed)
    };
    let down = async {
        let mut buffer = BytesMut::new();
        loop {
            buffer.reserve(CHUNK_OF_CONNECTION);
            from.read_buf(&mut buffer).await.map_err(failed)?;
            let bytes = buffer.split().freeze();
            let over = bytes.is_empty();
            send(bytes).await?;
            if over {
                return Ok(());
            }
        }
    };
    tokio::try_join!(up, down)
}

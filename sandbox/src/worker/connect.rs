//! Connections to the network, which the host makes for this process.

use std::io;
use std::pin::Pin;
use std::sync::{Arc, OnceLock};
use std::task::{Context, Poll, ready};

use bytes::BytesMut;
use parking_lot::Mutex;
use quadriga_abi::{Envelope, Error, ErrorCode, Kind};
use quadriga_core::{BoxFuture, CallContext, Connection, Feed, Items};
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _, DuplexStream, ReadBuf};
use tokio::task::AbortHandle;

use super::uplink::Host;
use crate::frame::{CHUNK_OF_CONNECTION, INPUT, NET, OUTPUT};
use crate::streams::Sink;

/// How many bytes lie between the guest and the streams, each way.
const ROOM: usize = 64 << 10;

impl Host {
    /// Asks the host for a connection, which decides about it.
    pub(super) fn open(
        &self,
        parent: &CallContext,
        host: &str,
        port: u16,
    ) -> BoxFuture<'static, Result<Connection, Error>> {
        let Some(executor) = self.executor.get().cloned() else {
            let early = Error::new(ErrorCode::Internal, "the worker is not ready");
            return Box::pin(std::future::ready(Err(early)));
        };
        let id = self.id();
        let (feed, received) = Feed::new();
        self.streams.receive(self.wire(), id, Sink::Feed(Mutex::new(Some(feed))));
        let (sent, input) = Feed::new();
        executor.spawn(self.streams.outgoing(self.wire(), id).pump(input));
        let to = rmp_serde::to_vec(&(host, port)).unwrap_or_default();
        let call = self.ask(id, NET | INPUT | OUTPUT, parent.id, Envelope::new(Kind::HostCall, id, to));
        let mut items = Items::new(Some(received), Box::pin(call), false);
        Box::pin(async move {
            let over = || Err(Error::new(ErrorCode::ConnectionFailed, "the connection ended at once"));
            items.next().await.unwrap_or_else(over)?;
            let (ours, theirs) = tokio::io::duplex(ROOM);
            let failure = Arc::<OnceLock<Error>>::default();
            let task = executor.spawn(carry(items, sent, theirs, Arc::clone(&failure)));
            Ok(Connection::new(Carried { ours, failure, task: task.abort_handle() }))
        })
    }
}

async fn carry(mut items: Items, sent: Feed, theirs: DuplexStream, failure: Arc<OnceLock<Error>>) {
    let (mut from, mut to) = tokio::io::split(theirs);
    let up = async {
        let mut buffer = BytesMut::new();
        loop {
            buffer.reserve(CHUNK_OF_CONNECTION);
            if from.read_buf(&mut buffer).await.unwrap_or(0) == 0 {
                return sent.finish();
            }
            if sent.send(buffer.split().freeze()).await.is_err() {
                return;
            }
        }
    };
    let down = async {
        loop {
            match items.next().await {
                Some(Ok(bytes)) if !bytes.is_empty() => {
                    if to.write_all(&bytes).await.is_err() {
                        return;
                    }
                }
                Some(Err(error)) => {
                    let _ = failure.set(error);
                    break;
                }
                Some(Ok(_)) | None => break,
            }
        }
        let _ = to.shutdown().await;
    };
    tokio::join!(up, down);
}

/// The guest's end. Dropped, it ends the connection.
struct Carried {
    ours: DuplexStream,
    /// Why the host ended it.
    failure: Arc<OnceLock<Error>>,
    task: AbortHandle,
}

impl Carried {
    fn failure(&self) -> Option<io::Error> {
        Some(io::Error::new(io::ErrorKind::ConnectionAborted, self.failure.get()?.clone()))
    }
}

impl AsyncRead for Carried {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        ready!(Pin::new(&mut self.ours).poll_read(context, buffer))?;
        let over = buffer.filled().len() == before;
        Poll::Ready(self.failure().filter(|_| over).map_or(Ok(()), Err))
    }
}

impl AsyncWrite for Carried {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let written = ready!(Pin::new(&mut self.ours).poll_write(context, bytes));
        Poll::Ready(written.map_err(|error| self.failure().unwrap_or(error)))
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.ours).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.ours).poll_shutdown(context)
    }
}

impl Drop for Carried {
    fn drop(&mut self) {
        self.task.abort();
    }
}

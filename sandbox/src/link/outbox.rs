//! What waits to be sent. Nobody who sends ever waits, because the worker may be waiting for them.

use std::collections::VecDeque;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;

use bytes::Buf as _;
use parking_lot::Mutex;
use quadriga_abi::Bytes;
use rustix::net::SendFlags;
use tokio::runtime::Handle;

use crate::frame::{Frame, Packed, write};
use crate::shared::Lender;

/// How many bytes may wait on top of one message: a worker that does not read is broken.
const BACKLOG: usize = 256 << 20;

pub(super) struct Outbox {
    socket: Arc<OwnedFd>,
    lender: Lender,
    queue: Arc<Mutex<Queue>>,
}

#[derive(Default)]
struct Queue {
    pieces: VecDeque<(Bytes, Option<Arc<OwnedFd>>)>,
    size: usize,
    /// A thread is there that sends them.
    flushing: bool,
}

pub(super) enum Failed {
    /// The connection is gone.
    Connection,
    /// The worker does not read.
    Backlog,
}

impl Outbox {
    pub(super) fn new(socket: Arc<OwnedFd>) -> Self {
        Self { socket, lender: Lender::default(), queue: Arc::default() }
    }

    /// Sends a frame, or what the socket takes of it: the rest is left to a thread. With a file goes
    /// all of its payload, because only one file goes with a frame.
    pub(super) fn send(&self, frame: &Frame, with: Option<OwnedFd>, handle: &Handle) -> Result<(), Failed> {
        let Packed { head, payload, mut file } = match with {
            Some(file) => Packed {
                head: frame.head(),
                payload: frame.envelope.payload.clone(),
                file: Some(Arc::new(file)),
            },
            None => frame.pack(&self.lender),
        };
        let mut queue = self.queue.lock();
        if queue.size > BACKLOG {
            return Err(Failed::Backlog);
        }
        let mut written = 0;
        if queue.pieces.is_empty() {
            let with = file.as_deref().map(AsFd::as_fd);
            written = match write(&self.socket, [&head, &payload], with, SendFlags::DONTWAIT) {
                Ok(written) => written,
                Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => 0,
                Err(_) => return Err(Failed::Connection),
            };
        }
        if written > 0 {
            file = None;
        }
        let mut head = Bytes::from(head);
        let rest = written.saturating_sub(head.len());
        head.advance(written.min(head.len()));
        queue.push(head, file);
        queue.push(payload.slice(rest..), None);
        if !queue.pieces.is_empty() && !queue.flushing {
            queue.flushing = true;
            let (socket, queue) = (Arc::clone(&self.socket), Arc::clone(&self.queue));
            handle.spawn_blocking(move || flush(&socket, &queue));
        }
        Ok(())
    }
}

impl Queue {
    fn push(&mut self, piece: Bytes, file: Option<Arc<OwnedFd>>) {
        if !piece.is_empty() {
            self.size += piece.len();
            self.pieces.push_back((piece, file));
        }
    }
}

/// Sends all that waits. Ends early with the connection, which ends with the worker.
fn flush(socket: &OwnedFd, queue: &Mutex<Queue>) {
    loop {
        let Some((piece, mut file)) = ({
            let mut queue = queue.lock();
            queue.flushing = !queue.pieces.is_empty();
            queue.pieces.front().cloned()
        }) else {
            return;
        };
        let mut rest = &piece[..];
        while !rest.is_empty() {
            let with = file.as_deref().map(AsFd::as_fd);
            match write(socket, [rest, &[]], with, SendFlags::empty()) {
                Ok(written) => {
                    rest = &rest[written..];
                    file = None;
                }
                Err(_) => return,
            }
        }
        // It stays in the queue until here, so that nobody overtakes it.
        let mut queue = queue.lock();
        queue.size -= piece.len();
        queue.pieces.pop_front();
    }
}

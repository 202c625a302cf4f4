//! Streams across the socket. Both sides keep the same window: the sender knows what has not been
//! read, and the receiver sees to it that it does.

use std::collections::HashMap;
use std::fmt;
use std::future::poll_fn;
use std::sync::{Arc, Weak};
use std::task::{Context, Poll, Waker};

use parking_lot::Mutex;
use quadriga_abi::{Bytes, Error, ErrorCode, Kind};
use quadriga_core::{Emit, Feed, ITEM_OVERHEAD, Input, Output, Taken, Tap, WINDOW};
use serde::{Deserialize, Serialize};

use crate::frame::Frame;

/// Where frames go.
pub(crate) trait Wire: Send + Sync + 'static {
    fn send(&self, frame: &Frame);

    /// Called by a thread that is about to wait.
    fn waits(&self) {}
}

/// What the receiver of a stream tells its sender.
#[derive(Serialize, Deserialize)]
enum Ack {
    /// It has read items that counted for so many bytes.
    Taken(usize),
    /// It reads no more.
    Over,
    /// It does not take an item.
    Refused(Error),
}

/// Whether an item may be sent, or taken, on top of what is unread. A receiver tells what it has
/// read in halves of the window, hence the second case.
fn fits(unread: usize, size: usize) -> bool {
    unread + size <= WINDOW || unread <= WINDOW / 2
}

/// The streams of one connection. A call has one in each direction at most.
#[derive(Default)]
pub(crate) struct Streams {
    intakes: Mutex<HashMap<u64, Arc<Intake>>>,
    outgoing: Mutex<HashMap<u64, Arc<Outgoing>>>,
}

/// Where what arrives goes.
pub(crate) enum Sink {
    /// The items of a call.
    Output(Output),
    /// The stream among the arguments; taken when it ends.
    Feed(Mutex<Option<Feed>>),
}

struct Intake {
    sink: Sink,
    /// Whether a tap tells what the consumer reads.
    tapped: bool,
    count: Arc<Count>,
}

/// What the sender believes to be unread.
struct Count {
    wire: Weak<dyn Wire>,
    id: u64,
    sizes: Mutex<Sizes>,
}

#[derive(Default)]
struct Sizes {
    unread: usize,
    /// Read, but not told yet.
    taken: usize,
}

impl Streams {
    /// Takes what arrives for a call from now on.
    pub(crate) fn receive(&self, wire: Weak<dyn Wire>, id: u64, sink: Sink) {
        let count = Arc::new(Count { wire, id, sizes: Mutex::default() });
        let tap: Tap = {
            let count = Arc::clone(&count);
            Arc::new(move |taken| count.tell(taken))
        };
        let tapped = match &sink {
            Sink::Output(output) => output.tap(tap),
            Sink::Feed(feed) => {
                if let Some(feed) = &*feed.lock() {
                    feed.tap(tap);
                }
                true
            }
        };
        self.intakes.lock().insert(id, Arc::new(Intake { sink, tapped, count }));
    }

    /// Sends a stream of a call from now on.
    pub(crate) fn outgoing(&self, wire: Weak<dyn Wire>, id: u64) -> Arc<Outgoing> {
        let outgoing = Arc::new(Outgoing { wire, id, state: Mutex::default() });
        self.outgoing.lock().insert(id, Arc::clone(&outgoing));
        outgoing
    }

    /// Forgets the streams of a call that is over.
    pub(crate) fn remove(&self, id: u64) {
        let intake = self.intakes.lock().remove(&id);
        let outgoing = self.outgoing.lock().remove(&id);
        if let Some(outgoing) = outgoing {
            outgoing.end(Error::new(ErrorCode::Cancelled, "the call is over"));
        }
        drop(intake);
    }

    /// Ends all of them.
    pub(crate) fn clear(&self, why: &Error) {
        let intakes = std::mem::take(&mut *self.intakes.lock());
        for intake in intakes.into_values() {
            intake.end(Err(why.clone()));
        }
        let outgoing = std::mem::take(&mut *self.outgoing.lock());
        for outgoing in outgoing.into_values() {
            outgoing.end(why.clone());
        }
    }

    /// Says that the stream of a call has ended.
    pub(crate) fn finish(&self, id: u64, end: Result<(), Error>) {
        let intake = self.intakes.lock().remove(&id);
        if let Some(intake) = intake {
            intake.end(end);
        }
    }

    /// Takes a frame about a stream. Those of calls that are over are late, and skipped. Returns
    /// why the consumer did not take an item, if so.
    ///
    /// # Errors
    /// Says how the peer broke the contract.
    pub(crate) fn take(&self, frame: &Frame) -> Result<Option<Error>, String> {
        let (id, payload) = (frame.envelope.id, &frame.envelope.payload);
        match frame.envelope.kind {
            Kind::StreamData => {
                let intake = self.intakes.lock().get(&id).cloned();
                return intake.map_or(Ok(None), |intake| intake.item(payload));
            }
            Kind::StreamEnd => {
                let end = if payload.is_empty() { Ok(()) } else { Err(Error::from_bytes(payload)) };
                self.finish(id, end);
            }
            _ => {
                let ack: Ack = rmp_serde::from_slice(payload)
                    .map_err(|error| format!("an acknowledgement that cannot be read: {error}"))?;
                let outgoing = self.outgoing.lock().get(&id).cloned();
                if let Some(outgoing) = outgoing {
                    outgoing.acknowledged(ack)?;
                }
            }
        }
        Ok(None)
    }
}

impl Intake {
    fn item(&self, item: &Bytes) -> Result<Option<Error>, String> {
        let size = item.len() + ITEM_OVERHEAD;
        {
            let mut sizes = self.count.sizes.lock();
            if !fits(sizes.unread, size) {
                return Err(format!("{size} bytes of a stream with {} unread", sizes.unread));
            }
            sizes.unread += size;
        }
        let pushed = match &self.sink {
            Sink::Output(output) => output.push(item),
            Sink::Feed(feed) => feed.lock().as_ref().map_or(Ok(()), |feed| feed.push(item)),
        };
        match pushed {
            Ok(()) if self.tapped => Ok(None),
            Ok(()) => {
                self.count.tell(Taken::Item(size));
                Ok(None)
            }
            Err(error) => {
                self.count.send(&Ack::Refused(error.clone()));
                Ok(Some(error))
            }
        }
    }

    fn end(&self, end: Result<(), Error>) {
        if let Sink::Feed(feed) = &self.sink
            && let Some(feed) = feed.lock().take()
        {
            match end {
                Ok(()) => feed.finish(),
                Err(error) => feed.fail(error),
            }
        }
    }
}

impl Count {
    fn tell(&self, taken: Taken) {
        let Taken::Item(size) = taken else { return self.send(&Ack::Over) };
        let mut sizes = self.sizes.lock();
        sizes.taken += size;
        if sizes.taken < WINDOW / 2 {
            return;
        }
        let taken = std::mem::take(&mut sizes.taken);
        sizes.unread -= taken;
        drop(sizes);
        self.send(&Ack::Taken(taken));
    }

    fn send(&self, ack: &Ack) {
        if let Some(wire) = self.wire.upgrade() {
            // Numbers and texts: encoding into memory cannot fail.
            wire.send(&Frame::new(Kind::StreamAck, self.id, rmp_serde::to_vec(ack).unwrap_or_default()));
        }
    }
}

/// The sender's end of a stream.
pub(crate) struct Outgoing {
    wire: Weak<dyn Wire>,
    id: u64,
    state: Mutex<Sending>,
}

#[derive(Default)]
struct Sending {
    unread: usize,
    end: Option<Error>,
    waker: Option<Waker>,
}

impl Outgoing {
    /// Sends one item; pending while the window is full.
    pub(crate) fn poll_send(&self, item: &Bytes, context: &mut Context<'_>) -> Poll<Result<(), Error>> {
        let gone = || Error::new(ErrorCode::Cancelled, "the connection is gone");
        let Some(wire) = self.wire.upgrade() else { return Poll::Ready(Err(gone())) };
        let mut state = self.state.lock();
        if let Some(end) = &state.end {
            return Poll::Ready(Err(end.clone()));
        }
        let size = item.len() + ITEM_OVERHEAD;
        if !fits(state.unread, size) {
            state.waker = Some(context.waker().clone());
            drop(state);
            wire.waits();
            return Poll::Pending;
        }
        state.unread += size;
        drop(state);
        wire.send(&Frame::new(Kind::StreamData, self.id, item.clone()));
        Poll::Ready(Ok(()))
    }

    fn acknowledged(&self, ack: Ack) -> Result<(), String> {
        match ack {
            Ack::Taken(taken) => {
                let mut state = self.state.lock();
                let unread = state.unread.checked_sub(taken);
                state.unread =
                    unread.ok_or_else(|| format!("{taken} bytes of a stream that were never sent"))?;
                let waker = state.waker.take();
                drop(state);
                if let Some(waker) = waker {
                    waker.wake();
                }
            }
            Ack::Over => self.end(Error::new(ErrorCode::Cancelled, "nobody reads the stream any more")),
            Ack::Refused(error) => self.end(error),
        }
        Ok(())
    }

    /// Sends a stream to its end, or until nobody reads it.
    pub(crate) async fn pump(self: Arc<Self>, input: Input) {
        loop {
            let next = poll_fn(|context| {
                let mut state = self.state.lock();
                if state.end.is_some() {
                    return Poll::Ready(None);
                }
                state.waker = Some(context.waker().clone());
                drop(state);
                input.poll_next(context).map(Some)
            });
            let end = match next.await {
                None => return,
                Some(Some(Ok(item))) => {
                    if poll_fn(|context| self.poll_send(&item, context)).await.is_err() {
                        return;
                    }
                    continue;
                }
                Some(Some(Err(error))) => error.to_bytes(),
                Some(None) => Vec::new(),
            };
            if let Some(wire) = self.wire.upgrade() {
                wire.send(&Frame::new(Kind::StreamEnd, self.id, end));
            }
            return;
        }
    }
}

impl Emit for Outgoing {
    fn poll_emit(&self, item: &Bytes, context: &mut Context<'_>) -> Poll<Result<(), Error>> {
        self.poll_send(item, context)
    }

    fn end(&self, why: Error) {
        let mut state = self.state.lock();
        state.end.get_or_insert(why);
        let waker = state.waker.take();
        drop(state);
        if let Some(waker) = waker {
            waker.wake();
        }
    }
}

impl fmt::Debug for Outgoing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Outgoing({})", self.id)
    }
}

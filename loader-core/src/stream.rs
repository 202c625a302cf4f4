//! Streams: what flows between a producer and a consumer while a call runs, with back-pressure.

use std::collections::VecDeque;
use std::fmt;
use std::future::poll_fn;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};

use parking_lot::{Mutex, MutexGuard};
use quadriga_abi::msgpack::{Token, write};
use quadriga_abi::{Bytes, Error, ErrorCode};

use crate::contract::Checks;

/// How many bytes may lie between a producer and its consumer. One item may be larger.
pub const WINDOW: usize = 64 << 10;

/// What an item counts for beside its bytes, so that the number of empty ones is bounded too.
pub const ITEM_OVERHEAD: usize = 32;

/// The streams of one call, for its guest: where its items go, and where its input comes from.
#[derive(Clone, Debug)]
pub struct Streams {
    /// Where the items go that the guest emits; `None` if its method does not stream and nobody
    /// asked for a stream.
    pub output: Option<Output>,
    /// The stream among the arguments, if there is one.
    pub input: Option<Input>,
}

/// Takes the items that a guest emits in the course of a call. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Output {
    sink: Sink,
    /// What the items must be like, and the method that says so.
    checks: Option<(Arc<Checks>, usize)>,
}

#[derive(Clone, Debug)]
enum Sink {
    /// Someone reads along.
    Pipe(Arc<Pipe>),
    /// The caller wants them all at once, as a list.
    List(Arc<Mutex<Collected>>),
    /// Who reads is in another process.
    Remote(Arc<dyn Emit>),
}

/// Takes the items of a stream whose consumer is in another process.
pub trait Emit: fmt::Debug + Send + Sync + 'static {
    /// As [`Output::poll_emit`].
    ///
    /// # Errors
    /// If nobody reads any more, or the call must end.
    fn poll_emit(&self, item: &Bytes, context: &mut Context<'_>) -> Poll<Result<(), Error>>;

    /// Takes no more, because the call must end, and wakes who waits.
    fn end(&self, why: Error);
}

/// Is told what the consumer of a stream does, so that a producer in another process may go on.
pub type Tap = Arc<dyn Fn(Taken) + Send + Sync>;

/// What the consumer of a stream did.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Taken {
    /// It read an item that counted for so many bytes: its own and [`ITEM_OVERHEAD`].
    Item(usize),
    /// It reads no more.
    Over,
}

/// The stream among the arguments of a call, or what a stream of results comes from. Cheap to
/// clone; the clones read the same stream. When the last is gone, the producer is told.
#[derive(Clone, Debug)]
pub struct Input(Arc<Reader>);

/// The producer's end of a stream that is passed as an argument. Ends the stream when dropped.
#[derive(Debug)]
pub struct Feed {
    pipe: Arc<Pipe>,
    finished: bool,
}

#[derive(Debug)]
struct Reader(Arc<Pipe>);

#[derive(Debug, Default)]
struct Pipe(Mutex<State>);

#[derive(Debug, Default)]
struct State {
    items: VecDeque<Bytes>,
    /// What they count for.
    size: usize,
    /// No more items come; those that are there are still read.
    end: Option<Result<(), Error>>,
    /// Nobody reads any more.
    abandoned: bool,
    reader: Option<Waker>,
    writer: Option<Waker>,
    tap: Watcher,
}

/// None unless the producer is in another process.
#[derive(Default)]
struct Watcher(Option<Tap>);

impl fmt::Debug for Watcher {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if self.0.is_some() { "Watcher" } else { "None" })
    }
}

impl Watcher {
    fn tell(&self, taken: Taken) {
        if let Some(tap) = &self.0 {
            tap(taken);
        }
    }
}

#[derive(Debug, Default)]
pub(crate) struct Collected {
    items: usize,
    bytes: Vec<u8>,
    most: usize,
}

impl Streams {
    /// Ends the streams of a call that is over, and returns its result, which may be what the guest
    /// has emitted.
    pub(crate) fn close(&self, result: Result<Bytes, Error>) -> Result<Bytes, Error> {
        let result = match (result, &self.output) {
            (Ok(reply), Some(output)) => output.collected().unwrap_or(Ok(reply)),
            (result, _) => result,
        };
        if let Some(output) = &self.output {
            output.end(result.as_ref().map(drop).map_err(Error::clone));
        }
        if let Some(input) = &self.input {
            input.cut(Error::new(ErrorCode::Cancelled, "the call is over"));
        }
        result
    }

    /// Wakes a guest that waits for a stream, because its call must end.
    pub fn cut(&self, why: &Error) {
        if let Some(output) = &self.output {
            output.end(Err(why.clone()));
        }
        if let Some(input) = &self.input {
            input.cut(why.clone());
        }
    }
}

/// Both ends of a new stream.
pub(crate) fn pipe() -> (Output, Input) {
    let pipe = Arc::<Pipe>::default();
    (Output { sink: Sink::Pipe(Arc::clone(&pipe)), checks: None }, Input(Arc::new(Reader(pipe))))
}

impl Pipe {
    fn poll_write(&self, item: &Bytes, context: &mut Context<'_>) -> Poll<Result<(), Error>> {
        let mut state = self.0.lock();
        state.open()?;
        if !state.items.is_empty() && state.size + item.len() + ITEM_OVERHEAD > WINDOW {
            state.writer = Some(context.waker().clone());
            return Poll::Pending;
        }
        Self::push(state, item);
        Poll::Ready(Ok(()))
    }

    /// Without regard to the window.
    fn write(&self, item: &Bytes) -> Result<(), Error> {
        let state = self.0.lock();
        state.open()?;
        Self::push(state, item);
        Ok(())
    }

    fn push(mut state: MutexGuard<'_, State>, item: &Bytes) {
        state.size += item.len() + ITEM_OVERHEAD;
        state.items.push_back(item.clone());
        let reader = state.reader.take();
        drop(state);
        wake(reader);
    }

    fn poll_read(&self, context: &mut Context<'_>) -> Poll<Option<Result<Bytes, Error>>> {
        let mut state = self.0.lock();
        if let Some(item) = state.items.pop_front() {
            state.size -= item.len() + ITEM_OVERHEAD;
            // Not for each item: who is woken should have room for more than one.
            let writer = if state.size <= WINDOW / 2 { state.writer.take() } else { None };
            let tap = Watcher(state.tap.0.clone());
            drop(state);
            wake(writer);
            tap.tell(Taken::Item(item.len() + ITEM_OVERHEAD));
            return Poll::Ready(Some(Ok(item)));
        }
        match &mut state.end {
            Some(end) => Poll::Ready(std::mem::replace(end, Ok(())).err().map(Err)),
            None => {
                state.reader = Some(context.waker().clone());
                Poll::Pending
            }
        }
    }

    /// Whether there is an item, once that or the end can be read.
    fn poll_ready(&self, context: &mut Context<'_>) -> Poll<bool> {
        let mut state = self.0.lock();
        if state.items.is_empty() && state.end.is_none() {
            state.reader = Some(context.waker().clone());
            return Poll::Pending;
        }
        Poll::Ready(!state.items.is_empty())
    }

    /// Only the first end counts.
    fn end(&self, end: Result<(), Error>) {
        let mut state = self.0.lock();
        state.end.get_or_insert(end);
        let (reader, writer) = (state.reader.take(), state.writer.take());
        drop(state);
        wake(reader);
        wake(writer);
    }

    fn abandon(&self) {
        let mut state = self.0.lock();
        state.abandoned = true;
        state.items.clear();
        state.size = 0;
        let writer = state.writer.take();
        let tap = Watcher(state.tap.0.take());
        drop(state);
        wake(writer);
        tap.tell(Taken::Over);
    }

    /// Also tells at once if nobody reads any more.
    fn tap(&self, tap: Tap) {
        let mut state = self.0.lock();
        if state.abandoned {
            drop(state);
            return tap(Taken::Over);
        }
        state.tap = Watcher(Some(tap));
    }
}

impl State {
    /// Whether an item can still be handed on.
    fn open(&self) -> Result<(), Error> {
        if self.abandoned {
            return Err(Error::new(ErrorCode::Cancelled, "nobody reads the stream any more"));
        }
        let Some(end) = &self.end else { return Ok(()) };
        let over = || Error::new(ErrorCode::ProtocolViolation, "the stream has ended");
        Err(end.clone().err().unwrap_or_else(over))
    }
}

fn wake(waker: Option<Waker>) {
    if let Some(waker) = waker {
        waker.wake();
    }
}

impl Output {
    /// Collects the items of a call whose caller wants one result.
    pub(crate) fn list(most: usize) -> Self {
        let collected = Collected { most, ..Collected::default() };
        Self { sink: Sink::List(Arc::new(Mutex::new(collected))), checks: None }
    }

    /// Hands the items to a consumer in another process.
    pub fn remote(emit: Arc<dyn Emit>) -> Self {
        Self { sink: Sink::Remote(emit), checks: None }
    }

    /// The same, with items that must be what the contract of a method says.
    pub(crate) fn checked(self, checks: Option<&Arc<Checks>>, method: usize) -> Self {
        Self { checks: checks.map(|checks| (Arc::clone(checks), method)), ..self }
    }

    /// Hands one item on; pending while the consumer has enough to read.
    ///
    /// # Errors
    /// If nobody reads any more, the call must end, the items are more than one result may hold, or
    /// this one is not what the contract says.
    pub fn poll_emit(&self, item: &Bytes, context: &mut Context<'_>) -> Poll<Result<(), Error>> {
        if let Some((checks, method)) = &self.checks {
            checks.item(*method, item)?;
        }
        match &self.sink {
            Sink::Pipe(pipe) => pipe.poll_write(item, context),
            Sink::List(collected) => Poll::Ready(collected.lock().push(item)),
            Sink::Remote(emit) => emit.poll_emit(item, context),
        }
    }

    /// Hands on an item that came from another process, without regard to the window: the producer
    /// there keeps to it.
    ///
    /// # Errors
    /// As for [`Output::poll_emit`].
    pub fn push(&self, item: &Bytes) -> Result<(), Error> {
        if let Some((checks, method)) = &self.checks {
            checks.item(*method, item)?;
        }
        match &self.sink {
            Sink::Pipe(pipe) => pipe.write(item),
            Sink::List(collected) => collected.lock().push(item),
            Sink::Remote(_) => Err(Error::new(ErrorCode::Internal, "the stream leads elsewhere")),
        }
    }

    /// Tells what the consumer does from now on. False if it takes everything at once.
    pub fn tap(&self, tap: Tap) -> bool {
        match &self.sink {
            Sink::Pipe(pipe) => {
                pipe.tap(tap);
                true
            }
            Sink::List(_) | Sink::Remote(_) => false,
        }
    }

    /// Hands one item on, and waits on the calling thread while the consumer has enough to read.
    ///
    /// # Errors
    /// As for [`Output::poll_emit`].
    pub fn emit(&self, item: &Bytes) -> Result<(), Error> {
        crate::block_on(poll_fn(|context| self.poll_emit(item, context)))
    }

    /// Hands one item on, if that needs no waiting.
    pub fn try_emit(&self, item: &Bytes) -> Option<Result<(), Error>> {
        match self.poll_emit(item, &mut Context::from_waker(Waker::noop())) {
            Poll::Ready(emitted) => Some(emitted),
            Poll::Pending => None,
        }
    }

    /// Hands one item on without waiting on the thread.
    ///
    /// # Errors
    /// As for [`Output::poll_emit`].
    pub async fn emit_later(self, item: Bytes) -> Result<(), Error> {
        poll_fn(|context| self.poll_emit(&item, context)).await
    }

    pub(crate) fn end(&self, end: Result<(), Error>) {
        match (&self.sink, end) {
            (Sink::Pipe(pipe), end) => pipe.end(end),
            (Sink::Remote(emit), Err(why)) => emit.end(why),
            (Sink::Remote(_) | Sink::List(_), _) => {}
        }
    }

    /// The items as one list, where they were collected.
    pub(crate) fn collected(&self) -> Option<Result<Bytes, Error>> {
        match &self.sink {
            Sink::Pipe(_) | Sink::Remote(_) => None,
            Sink::List(collected) => Some(collected.lock().take()),
        }
    }
}

impl Collected {
    fn push(&mut self, item: &Bytes) -> Result<(), Error> {
        if self.bytes.len() + item.len() > self.most {
            let message = format!("the items have more than {} bytes together", self.most);
            let hint = "read the stream item by item, or raise [limits] message-size";
            return Err(Error::new(ErrorCode::MessageTooLarge, message).with_hint(hint));
        }
        self.items += 1;
        self.bytes.extend_from_slice(item);
        Ok(())
    }

    fn take(&mut self) -> Result<Bytes, Error> {
        let mut list = Vec::with_capacity(self.bytes.len() + 5);
        write(&mut list, Token::List(self.items))
            .map_err(|error| Error::new(ErrorCode::MessageTooLarge, error.to_string()))?;
        list.append(&mut self.bytes);
        Ok(list.into())
    }
}

impl Input {
    /// The next item; `None` at the end.
    pub fn poll_next(&self, context: &mut Context<'_>) -> Poll<Option<Result<Bytes, Error>>> {
        self.0.0.poll_read(context)
    }

    /// Ready when [`Input::poll_next`] is: with an item, or at the end. Takes nothing.
    pub fn poll_ready(&self, context: &mut Context<'_>) -> Poll<()> {
        self.0.0.poll_ready(context).map(drop)
    }

    /// The next item, waited for on the calling thread.
    pub fn next(&self) -> Option<Result<Bytes, Error>> {
        crate::block_on(poll_fn(|context| self.poll_next(context)))
    }

    /// The next item, without waiting on the thread.
    pub async fn next_later(self) -> Option<Result<Bytes, Error>> {
        poll_fn(|context| self.poll_next(context)).await
    }

    /// As [`Input::poll_ready`]; true if there is an item.
    pub(crate) fn poll_item(&self, context: &mut Context<'_>) -> Poll<bool> {
        self.0.0.poll_ready(context)
    }

    /// Ends it for its reader, at once, because its call is over.
    pub(crate) fn cut(&self, why: Error) {
        let pipe = &self.0.0;
        pipe.abandon();
        pipe.end(Err(why));
    }
}

impl Drop for Reader {
    fn drop(&mut self) {
        self.0.abandon();
    }
}

impl Feed {
    /// The producer's end of a new stream, and the consumer's.
    pub fn new() -> (Self, Input) {
        let pipe = Arc::<Pipe>::default();
        (Self { pipe: Arc::clone(&pipe), finished: false }, Input(Arc::new(Reader(pipe))))
    }

    /// Hands one item on; pending while the consumer has enough to read.
    ///
    /// # Errors
    /// If nobody reads any more.
    pub fn poll_send(&self, item: &Bytes, context: &mut Context<'_>) -> Poll<Result<(), Error>> {
        self.pipe.poll_write(item, context)
    }

    /// Hands one item on, without waiting on the thread.
    ///
    /// # Errors
    /// If nobody reads any more.
    pub async fn send(&self, item: impl Into<Bytes>) -> Result<(), Error> {
        let item = item.into();
        poll_fn(|context| self.poll_send(&item, context)).await
    }

    /// As [`Output::push`].
    ///
    /// # Errors
    /// If nobody reads any more.
    pub fn push(&self, item: &Bytes) -> Result<(), Error> {
        self.pipe.write(item)
    }

    /// Tells what the consumer does from now on.
    pub fn tap(&self, tap: Tap) {
        self.pipe.tap(tap);
    }

    /// Says that no more items come.
    pub fn finish(mut self) {
        self.finished = true;
        self.pipe.end(Ok(()));
    }

    /// Says that the producer failed: the consumer gets the error after the items so far.
    pub fn fail(mut self, error: Error) {
        self.finished = true;
        self.pipe.end(Err(error));
    }
}

/// A producer that goes away without a word has not finished.
impl Drop for Feed {
    fn drop(&mut self) {
        if !self.finished {
            self.pipe.end(Err(Error::new(ErrorCode::Cancelled, "the producer of the stream went away")));
        }
    }
}

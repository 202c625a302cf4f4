use std::future::Future;
use std::num::NonZeroU64;
use std::pin::Pin;
use std::time::{Duration, Instant};

use quadriga_abi::limits::Limits;
use quadriga_abi::permission::Permissions;
use quadriga_abi::{Bytes, Description, Envelope, Error, ErrorCode, TraceContext};
use serde::Serialize;
use tracing::Span;
use tracing::span::Id;

use crate::Pause;
use crate::hook::InHooks;
use crate::stream::Streams;

/// A boxed future that can move between threads.
pub type BoxFuture<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;

/// A loaded extension.
///
/// The dispatcher asks for the description once, then calls from many threads at once, until it
/// shuts the instance down: by then no call is in flight, or those that are have been interrupted.
pub trait Instance: Send + Sync + 'static {
    /// What the extension says of itself. The dispatcher reads it once, after the load.
    fn describe(&self) -> &Description;

    /// Calls a method that the description names.
    ///
    /// If [`Instance::blocks`], the guest may run on the calling thread until it has finished. A
    /// call that finished returns [`Outcome::Ready`], which costs no boxed future. A future that is
    /// dropped gives up its call; the dispatcher then also calls [`Instance::interrupt`].
    fn call(&self, call: Call) -> Outcome;

    /// Whether [`Instance::call`] may run the guest, or wait, on the calling thread.
    fn blocks(&self) -> bool;

    /// Ends one call early, because its deadline passed or its caller gave up. The call then
    /// finishes with `deadline_exceeded` or `cancelled`. Other calls go on. May come at any time,
    /// also for calls that have finished. Does nothing where the engine cannot be interrupted.
    fn interrupt(&self, call: u64);

    /// What it uses at this moment.
    fn usage(&self) -> Usage;

    /// What holds it apart from its host, layer by layer; empty where that is the engine alone.
    fn layers(&self) -> Vec<Layer> {
        Vec::new()
    }

    /// Ends it and gives back what it holds. Called once, on the dispatcher's tokio runtime.
    fn shutdown(&self) -> BoxFuture<'_, ()>;

    /// Says that from now on it may do this and no more, and asks whether that holds at once: true
    /// if the runtime took back what it had handed out beyond, such as an open folder, or asks
    /// [`Bridge::check`](crate::Bridge::check) for each access; false if it holds for the next
    /// generation. Calls to other extensions need nothing. One call at a time, in the order of the
    /// changes; returns soon, and asks nothing of the dispatcher.
    fn permissions_changed(&self, _permissions: &Permissions) -> bool {
        false
    }

    /// Changes limits that the runtime itself enforces: those that are `Some`, from now on and
    /// without a reload. None of them if one cannot be kept to.
    ///
    /// # Errors
    /// `unsupported` unless a runtime says otherwise.
    fn set_limits(&self, _limits: &Limits) -> Result<(), Error> {
        Err(Error::new(ErrorCode::Unsupported, "the runtime sets limits when it loads, and not again"))
    }

    /// Has it stand still until [`Instance::resume`], and says how far it does. Calls in flight do
    /// not go on, and are not given up: one that is interrupted meanwhile may answer when it goes
    /// on. By then no call comes in. Waits no longer than a moment. May come twice.
    ///
    /// # Errors
    /// `unsupported` unless a runtime says otherwise: then it goes on with what it does.
    fn pause(&self) -> Result<Pause, Error> {
        Err(Error::new(ErrorCode::Unsupported, "the runtime keeps out new calls, and no more"))
    }

    /// Has it go on.
    ///
    /// # Errors
    /// If that fails; it then still stands still.
    fn resume(&self) -> Result<(), Error> {
        Ok(())
    }

    /// Resolves when it has shown that it is alive: at once, where nothing can be told of it beside
    /// that it is there. Whoever asks gives up after a while.
    ///
    /// # Errors
    /// Why it is not.
    fn ping(&self) -> BoxFuture<'static, Result<(), Error>> {
        Box::pin(std::future::ready(Ok(())))
    }

    /// Resolves when one of the processes that it runs in has ended by itself, with the reason, while
    /// others go on: the calls there have then been given `extension_crashed`. The dispatcher starts
    /// the next generation beside it. Asked for once, like [`ended`](Self::ended), which comes after
    /// it. `None` for one that ends as a whole.
    fn weakened(&self) -> Option<BoxFuture<'static, Error>> {
        None
    }

    /// Resolves when it has ended by itself, with the reason; calls in flight have then been given
    /// `extension_crashed`. Asked for once, when it begins to take calls. `None` for one that lives
    /// as long as its host lets it.
    fn ended(&self) -> Option<BoxFuture<'static, Error>> {
        None
    }
}

/// One means by which an extension is held apart from its host.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Layer {
    /// What it is, such as `seccomp`.
    pub name: String,
    /// How far it was reached: `reached`, `partly`, `not-reached` or `not-asked`.
    pub state: String,
    /// What is missing, or why; may be empty.
    pub note: String,
}

/// One call to an instance.
#[derive(Debug, Clone)]
pub struct Call {
    /// The method's place in the description.
    pub method: usize,
    /// The message. Its target is set, its payload a MessagePack list of arguments.
    pub envelope: Envelope,
    /// Where the guest's items go and where its input comes from, if the call streams.
    pub streams: Option<Box<Streams>>,
    /// The host's record of the call, for what is logged in its course.
    pub(crate) span: SpanRef,
    /// The hooks in the course of which it is made.
    pub(crate) hooks: InHooks,
}

impl Call {
    /// A call that came from elsewhere: for worker processes, which have no record of it to log to.
    pub fn remote(method: usize, envelope: Envelope, streams: Option<Box<Streams>>) -> Self {
        Self { method, envelope, streams, span: SpanRef::default(), hooks: InHooks::default() }
    }

    /// The method's name.
    pub fn name(&self) -> &str {
        self.envelope.target.as_ref().map_or("", |target| &target.method)
    }

    /// What the calls that the guest makes need to know of this one.
    pub fn context(&self) -> CallContext {
        let Envelope { id, depth, deadline, trace, .. } = self.envelope;
        CallContext { id, depth, deadline, trace, span: self.span, hooks: self.hooks }
    }
}

/// What a call hands down to the calls made on its behalf.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct CallContext {
    /// Names the call in this process; 0 for what runs outside any call, such as top-level code.
    pub id: u64,
    /// How many extensions stand above it.
    pub depth: u16,
    /// When its caller stops waiting.
    pub deadline: Option<Instant>,
    /// Where it belongs in a distributed trace.
    pub trace: Option<TraceContext>,
    /// The host's record of the call. What is logged and called on its behalf belongs there.
    pub span: SpanRef,
    /// The hooks in the course of which it is made.
    pub hooks: InHooks,
}

/// Refers to a span of [`tracing`], without keeping it open. None where nobody records.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct SpanRef(Option<NonZeroU64>);

impl SpanRef {
    pub(crate) fn of(span: &Span) -> Self {
        Self(span.id().map(|id| id.into_non_zero_u64()))
    }

    pub(crate) fn id(self) -> Option<Id> {
        self.0.map(Id::from_non_zero_u64)
    }
}

/// How a call goes on: finished already, or later.
pub enum Outcome {
    /// It finished.
    Ready(Result<Bytes, Error>),
    /// It will finish.
    Pending(BoxFuture<'static, Result<Bytes, Error>>),
}

impl Outcome {
    /// Waits on the calling thread. Only for threads that may block.
    pub fn wait(self) -> Result<Bytes, Error> {
        match self {
            Self::Ready(result) => result,
            Self::Pending(future) => crate::block_on(future),
        }
    }

    /// Waits without blocking a thread.
    pub async fn result(self) -> Result<Bytes, Error> {
        match self {
            Self::Ready(result) => result,
            Self::Pending(future) => future.await,
        }
    }
}

impl From<Error> for Outcome {
    fn from(error: Error) -> Self {
        Self::Ready(Err(error))
    }
}

/// What an instance uses at one moment. `None` where the engine cannot tell.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct Usage {
    /// Bytes of memory.
    pub memory: Option<u64>,
    /// Engine instances: isolates, interpreters, component instances.
    pub instances: u32,
    /// The id of the process that it runs in, if that is one of its own.
    pub process: Option<u32>,
    /// The processor time that it has used since it was loaded.
    pub cpu_time: Option<Duration>,
}

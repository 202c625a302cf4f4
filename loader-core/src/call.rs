use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use quadriga_abi::{Bytes, Error, ErrorCode, ExtensionId, TraceContext};
use tracing::Span;

use crate::deadline::Alarm;
use crate::dispatcher::Core;
use crate::hook::InHooks;
use crate::metrics::Tick;
use crate::route::{Barred, Slot};
use crate::stream::{Input, Output, Streams, pipe};
use crate::ward::Link;
use crate::{BoxFuture, Call, Items, Outcome, SpanRef};

pub(crate) const LATE: &str = "the call took longer than it was given";

/// What a caller says about one call.
///
/// ```
/// use std::time::Duration;
/// use quadriga_core::CallOptions;
/// let options = CallOptions::default().timeout(Duration::from_secs(1));
/// ```
#[derive(Debug, Clone, Default)]
pub struct CallOptions {
    pub(crate) deadline: Option<Instant>,
    /// From when it is let in.
    pub(crate) within: Option<Duration>,
    pub(crate) trace: Option<TraceContext>,
    pub(crate) source: Option<ExtensionId>,
    pub(crate) depth: u16,
    /// The span of the call that makes this one; the host's current one for a call by the host.
    pub(crate) parent: SpanRef,
    pub(crate) input: Option<Input>,
    pub(crate) output: Option<Output>,
    pub(crate) detached: bool,
    pub(crate) hooks: InHooks,
}

impl CallOptions {
    /// Waits no longer than until `deadline`. It bounds the calls made on this call's behalf too.
    pub fn deadline(mut self, deadline: Instant) -> Self {
        self.deadline = Some(deadline);
        self
    }

    /// Waits no longer than `timeout` from now.
    pub fn timeout(self, timeout: Duration) -> Self {
        self.deadline(Instant::now() + timeout)
    }

    /// Sends a stream along. In the arguments [`msgpack::STREAM`](quadriga_abi::msgpack::STREAM)
    /// stands for it.
    pub fn input(mut self, input: Input) -> Self {
        self.input = Some(input);
        self
    }

    /// Never runs the guest on the calling thread, so that the future can be dropped while it runs,
    /// which cancels the call, and an async executor is never held up.
    pub fn detached(mut self) -> Self {
        self.detached = true;
        self
    }

    /// Makes the call a part of a distributed trace.
    pub fn trace(mut self, trace: TraceContext) -> Self {
        self.trace = Some(trace);
        self
    }
}

/// A call that has been let in: routed, checked and counted, but not handed to its instance.
pub(crate) struct Admitted {
    pub(crate) call: Call,
    pub(crate) ticket: Ticket,
}

/// A call that was handed to its instance.
pub(crate) enum Started {
    Ready(Result<Bytes, Error>),
    InFlight(InFlight),
}

/// Counts a call while it lives. Dropped before the call finished, it gives the call up.
pub(crate) struct Ticket {
    pub(crate) slot: Arc<Slot>,
    pub(crate) id: u64,
    /// The method's place in the description.
    pub(crate) method: usize,
    pub(crate) started: Tick,
    /// Where a call by an extension is counted, unless who makes it does that.
    pub(crate) link: Option<Arc<Link>>,
    /// What a subscriber sees of the call, if one listens.
    pub(crate) span: Option<Box<Span>>,
    pub(crate) streams: Option<Box<Streams>>,
    /// When it must end, and how long that was from its admission.
    pub(crate) deadline: Option<(Instant, Duration)>,
    pub(crate) alarm: Option<Alarm>,
    pub(crate) finished: bool,
}

/// A call that its instance has not finished.
pub(crate) struct InFlight {
    future: BoxFuture<'static, Result<Bytes, Error>>,
    ticket: Ticket,
}

impl Admitted {
    /// Whether a stream comes with the call.
    pub(crate) fn reads(&self) -> bool {
        self.ticket.streams.as_ref().is_some_and(|streams| streams.input.is_some())
    }

    /// Has the call counted between the two extensions.
    pub(crate) fn counted(mut self, link: &Arc<Link>, sent: usize) -> Self {
        link.begin(self.ticket.started, sent);
        self.ticket.link = Some(Arc::clone(link));
        self
    }

    /// Whether the method's result is a stream.
    pub(crate) fn streams(&self) -> bool {
        self.ticket.slot.streams(self.call.method)
    }

    /// Hands the call to its instance, which may run it here and now.
    #[inline]
    pub(crate) fn run(self) -> Started {
        let Self { call, mut ticket } = self;
        let begin = || {
            // A runtime that panics is a bug, but one that must not reach the caller's stack.
            catch_unwind(AssertUnwindSafe(|| ticket.slot.instance.call(call)))
                .unwrap_or_else(|_| Error::new(ErrorCode::Internal, "the runtime panicked").into())
        };
        let outcome = match &ticket.span {
            Some(span) => span.in_scope(begin),
            None => begin(),
        };
        match outcome {
            Outcome::Ready(result) => Started::Ready(ticket.finish(result)),
            Outcome::Pending(future) => Started::InFlight(InFlight { future, ticket }),
        }
    }
}

impl From<Started> for Outcome {
    fn from(started: Started) -> Self {
        match started {
            Started::Ready(result) => Self::Ready(result),
            Started::InFlight(call) => Self::Pending(Box::pin(call)),
        }
    }
}

impl Ticket {
    fn finish(&mut self, result: Result<Bytes, Error>) -> Result<Bytes, Error> {
        self.finished = true;
        // It was admitted after it was started, so mostly the one look at the counter does.
        let late =
            |(at, within): &(Instant, Duration)| self.started.elapsed() >= *within && *at <= Instant::now();
        let result = match self.deadline.as_ref().filter(|_| result.is_ok()).filter(|at| late(at)) {
            // The same whether or not the guest could be interrupted.
            Some(_) => Err(Error::new(ErrorCode::DeadlineExceeded, LATE)),
            None => result,
        };
        let result = match (&self.slot.checks, result) {
            (Some(checks), Ok(reply)) => checks.result(self.method, &reply).map(|()| reply),
            (_, result) => result,
        };
        if let (Err(error), Some(span)) = (&result, &self.span) {
            span.record("error", error.code.as_str());
        }
        let result = match &self.streams {
            Some(streams) => streams.close(result),
            None => result,
        };
        let result = self.slot.finish(self.started, self.method, result);
        if let Some(link) = &self.link {
            link.finish(&result);
        }
        result
    }
}

impl Drop for Ticket {
    fn drop(&mut self) {
        self.alarm = None;
        if !self.finished {
            let cancelled = Error::new(ErrorCode::Cancelled, "the caller gave up");
            let _ = self.finish(Err(cancelled));
            self.slot.give_up(self.id);
        }
        self.slot.leave();
    }
}

impl Future for InFlight {
    type Output = Result<Bytes, Error>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        let Self { future, ticket } = &mut *self;
        let polled = match &ticket.span {
            Some(span) => span.in_scope(|| future.as_mut().poll(context)),
            None => future.as_mut().poll(context),
        };
        if let Poll::Ready(result) = polled {
            return Poll::Ready(self.ticket.finish(result));
        }
        match &self.ticket.alarm {
            Some(alarm) if alarm.rang(context) => {
                let late = Error::new(ErrorCode::DeadlineExceeded, LATE);
                self.ticket.slot.given_up.remember(self.ticket.id);
                Poll::Ready(self.ticket.finish(Err(late)))
            }
            _ => Poll::Pending,
        }
    }
}

impl Core {
    /// Calls for the host, on the calling thread unless the options forbid it.
    pub(crate) fn begin(
        self: &Arc<Self>,
        extension: &str,
        method: &str,
        arguments: Bytes,
        options: CallOptions,
    ) -> Outcome {
        let started = Tick::now();
        let slot = match self.route(extension) {
            Ok(slot) => slot,
            Err(error) => return error.into(),
        };
        let (slot, before) = match slot.gate.enter() {
            Some(before) => (slot, before),
            None => match self.enter_past(slot, 0) {
                Ok(entered) => entered,
                Err(Barred::Refused(error)) => return error.into(),
                Err(Barred::Switching(slot)) => return self.begin_later(slot, method, arguments, options),
                Err(Barred::Asleep(slot)) => return self.begin_awake(slot, method, arguments, options),
            },
        };
        let detached = options.detached;
        match self.admit_to(slot, before, started, method, arguments, options) {
            Ok(admitted) if admitted.may_be_repeated() => {
                Outcome::Pending(self.repeatable(admitted, detached))
            }
            // Who sends the stream may need this very thread.
            Ok(admitted) if detached || admitted.reads() => Outcome::Pending(self.detach(admitted)),
            Ok(admitted) => admitted.run().into(),
            Err(error) => error.into(),
        }
    }

    /// The same once a generation has handed over its state: to the next one then, or to it after all.
    #[cold]
    fn begin_later(
        self: &Arc<Self>,
        slot: Arc<Slot>,
        method: &str,
        arguments: Bytes,
        options: CallOptions,
    ) -> Outcome {
        let (core, method) = (Arc::clone(self), method.to_owned());
        Outcome::Pending(Box::pin(async move {
            let (id, deadline) = (slot.id.clone(), options.deadline);
            // On our own executor, which has timers.
            let waiting = core.on_executor(async move {
                let switched = slot.gate.switched();
                match deadline {
                    Some(deadline) => _ = tokio::time::timeout_at(deadline.into(), switched).await,
                    None => switched.await,
                }
                Ok(())
            });
            waiting.await?;
            if deadline.is_some_and(|deadline| deadline <= Instant::now()) {
                return Err(Error::new(ErrorCode::DeadlineExceeded, LATE).in_extension(id.as_str()));
            }
            core.begin(id.as_str(), &method, arguments, options).result().await
        }))
    }

    /// Calls for an extension, perhaps on the calling thread.
    pub(crate) fn call(
        self: &Arc<Self>,
        link: &Arc<Link>,
        to: Arc<Slot>,
        method: &str,
        arguments: Bytes,
        options: CallOptions,
    ) -> Outcome {
        let (started, sent) = (Tick::now(), arguments.len());
        let (to, before) = match to.gate.enter() {
            Some(before) => (to, before),
            None if to.is_asleep() => {
                return Outcome::Pending(self.call_awake(link, to, method, arguments, options));
            }
            None => match self.enter_barred(to) {
                Ok(entered) => entered,
                Err(error) => return error.into(),
            },
        };
        let admitted = match self.admit_to(to, before, started, method, arguments, options) {
            Ok(admitted) => admitted,
            Err(error) => return error.into(),
        };
        if admitted.may_be_repeated() {
            return Outcome::Pending(self.repeatable(admitted.counted(link, sent), false));
        }
        link.begin(admitted.ticket.started, sent);
        match admitted.run() {
            // A call that has finished needs no reference to the link.
            Started::Ready(result) => {
                link.finish(&result);
                Outcome::Ready(result)
            }
            Started::InFlight(mut call) => {
                call.ticket.link = Some(Arc::clone(link));
                Outcome::Pending(Box::pin(call))
            }
        }
    }

    /// Calls without ever running the guest on the calling thread.
    pub(crate) fn call_detached(
        self: &Arc<Self>,
        link: &Arc<Link>,
        to: Arc<Slot>,
        method: &str,
        arguments: Bytes,
        options: CallOptions,
    ) -> BoxFuture<'static, Result<Bytes, Error>> {
        if to.is_asleep() && self.is_current(&to) {
            return self.call_awake(link, to, method, arguments, options);
        }
        let sent = arguments.len();
        match self.admit_or_find(to, method, arguments, options) {
            Ok(admitted) => {
                let admitted = admitted.counted(link, sent);
                if admitted.may_be_repeated() {
                    self.repeatable(admitted, true)
                } else {
                    self.detach(admitted)
                }
            }
            Err(error) => Box::pin(std::future::ready(Err(error))),
        }
    }

    /// Starts a call whose items are read while it runs, or whose result is wanted as a whole.
    pub(crate) fn start(
        self: &Arc<Self>,
        way: Option<(&Arc<Link>, Arc<Slot>)>,
        extension: &str,
        method: &str,
        arguments: Bytes,
        mut options: CallOptions,
        stream: bool,
    ) -> Items {
        let asleep = match &way {
            Some((_, to)) => Some(Arc::clone(to)),
            None => self.routes.load().get(extension).cloned(),
        };
        if let Some(to) = asleep.filter(|to| to.is_asleep() && self.is_current(to)) {
            return self.start_awake(way.map(|(link, _)| link), to, method, arguments, options, stream);
        }
        let (output, input) = if stream { Some(pipe()) } else { None }.unzip();
        options.output = output;
        let sent = arguments.len();
        let admitted = match way {
            Some((link, to)) => {
                let admitted = self.admit_or_find(to, method, arguments, options);
                admitted.map(|admitted| admitted.counted(link, sent))
            }
            None => self.admit(extension, method, arguments, options),
        };
        match admitted {
            Ok(admitted) => {
                let single = !(stream && admitted.streams());
                Items::new(input, self.detach(admitted), single)
            }
            Err(error) => Items::new(input, Box::pin(std::future::ready(Err(error))), true),
        }
    }
}

use std::collections::{HashMap, HashSet};
use std::num::NonZeroU64;
use std::path::Path;
use std::sync::atomic::AtomicU64;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::{Duration, Instant};

use arc_swap::ArcSwap;
use quadriga_abi::{
    Bytes, Envelope, Error, ErrorCode, ExtensionId, Kind, RuntimeKind, Target, TraceContext, codec,
};
use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::runtime::Handle;
use tokio::sync::{Semaphore, broadcast};
use tracing::level_filters::LevelFilter;
use tracing::{Span, field};

use crate::api::Apis;
use crate::call::{Admitted, CallOptions, Ticket};
use crate::call_id::CallIds;
use crate::config::{Configuration, Origin, Settings};
use crate::deadline::{Alarm, Deadlines};
use crate::detached::GivenUp;
use crate::event::Bus;
use crate::hook::Hooks;
use crate::items::Items;
use crate::limits::Caps;
use crate::metrics::Tick;
use crate::route::{Barred, Routes, SWITCHING, Slot, suggest};
use crate::service::Services;
use crate::state;
use crate::stream::{Input, Output, Streams};
use crate::ward::{Alert, Rules, Trail};
use crate::{
    Builder, Call, EventStore, KvStore, LoadOptions, MemoryKv, Outcome, Policy, Provided, Runtime, SpanRef,
    Status,
};

/// Loads extensions and routes calls to them. Cheap to clone; the last clone ends what is loaded.
#[derive(Clone)]
pub struct Dispatcher {
    pub(crate) core: Arc<Core>,
}

/// By kind: each level of isolation once, the weakest first.
pub(crate) type Runtimes = HashMap<RuntimeKind, Vec<Arc<dyn Runtime>>>;

pub(crate) struct Core {
    pub(crate) runtimes: Runtimes,
    pub(crate) policy: Policy,
    pub(crate) services: Services,
    /// What the host keeps for longer than it lives, if it does.
    pub(crate) kv: OnceLock<Arc<dyn KvStore>>,
    /// What several extensions share, unless it is there.
    pub(crate) shared: MemoryKv,
    /// One of them runs programs.
    pub(crate) launches: bool,
    pub(crate) bus: Bus,
    /// Keeps events for those that want each at least once.
    pub(crate) events: OnceLock<Arc<dyn EventStore>>,
    pub(crate) hooks: Hooks,
    pub(crate) apis: Apis,
    pub(crate) deadlines: Arc<Deadlines>,
    pub(crate) routes: ArcSwap<Routes>,
    /// Ids that are being loaded, so that two loads cannot race for one.
    pub(crate) loading: Mutex<HashSet<ExtensionId>>,
    pub(crate) generations: AtomicU64,
    pub(crate) call_ids: CallIds,
    pub(crate) given_up: Arc<GivenUp>,
    pub(crate) rules: Arc<Rules>,
    pub(crate) trail: Arc<Trail>,
    pub(crate) alerts: broadcast::Sender<Alert>,
    pub(crate) detached: Arc<Semaphore>,
    /// Our own, so that no wait depends on the host's executor. `None` only while it is dropped.
    pub(crate) executor: Option<tokio::runtime::Runtime>,
    pub(crate) handle: Handle,
}

impl Dispatcher {
    /// Starts a builder without runtimes.
    pub fn builder() -> Builder {
        Builder::default()
    }

    /// Makes now what the runtimes start extensions from, where they have such a thing. The first
    /// load of a kind is then as quick as the later ones; without, that load has it made.
    pub async fn warm_up(&self) {
        let core = Arc::clone(&self.core);
        let warming = async move {
            for runtime in core.runtimes.values().flatten() {
                runtime.warm_up().await;
            }
            Ok(())
        };
        // Whoever panics there has it cold.
        let _ = self.core.on_executor(warming).await;
    }

    /// Loads the extension in a folder and returns its id. Needs no particular async executor.
    ///
    /// # Errors
    /// Says what is wrong with the manifest, the policy, a dependency or the extension itself.
    /// What else is loaded is not affected.
    pub async fn load(&self, folder: impl AsRef<Path>, options: LoadOptions) -> Result<ExtensionId, Error> {
        self.core.load(folder.as_ref().to_owned(), options).await
    }

    /// Loads a running extension anew from its folder, and switches to it when it is ready. Calls
    /// in flight finish on the old one. If the new one fails to load, the old one stays.
    ///
    /// If the running one has a method `snapshot` and the new one a method `restore`, the new one
    /// gets what `snapshot` returns before it takes its first call. Calls of the host wait meanwhile,
    /// and those under way have half a second to finish. What other calls change in the old one after
    /// its snapshot is lost: those of extensions, streams, events, and what takes longer. What was paused, throttled, disabled or in quarantine runs
    /// again, with what it is granted.
    ///
    /// # Errors
    /// As for [`Dispatcher::load`], or if no such extension is loaded.
    pub async fn reload(&self, extension: &str) -> Result<(), Error> {
        self.core.renew_now(extension, true).await
    }

    /// Has a running extension go on with other settings, in the place of those it was loaded with. The
    /// manifest's `[config] method`, if there is one, is asked first. Then the next generation starts with
    /// them beside the present one, as in a [`reload`](Self::reload), but from what was loaded: its state
    /// goes along, calls in flight finish, and if it does not start, the present one stays as it is.
    ///
    /// # Errors
    /// `invalid_config`, if they do not fit the manifest's schema, with all that does not;
    /// `config_refused`, with the extension's reason; `extension_stopped`, if it does not run; as for
    /// [`Dispatcher::load`]. Nothing has changed then.
    pub async fn configure(&self, extension: &str, config: Settings) -> Result<(), Error> {
        self.core.configure(extension, config).await
    }

    /// The settings of a loaded extension, with where each comes from.
    ///
    /// # Errors
    /// If no such extension is loaded.
    pub fn configuration(&self, extension: &str) -> Result<Configuration, Error> {
        let slot = self.core.route(extension)?;
        let Some(source) = &slot.source else { return Ok(Configuration::default()) };
        Configuration::resolve(&source.manifest, [(Origin::RunTime, source.options.config.clone())])
    }

    /// Takes no more calls for an extension, lets those in flight finish, and ends it.
    ///
    /// # Errors
    /// If no such extension is loaded.
    pub async fn unload(&self, extension: &str) -> Result<(), Error> {
        self.core.unload(extension).await
    }

    /// Unloads everything.
    pub async fn shutdown(&self) {
        let ids: Vec<ExtensionId> = self.core.routes.load().keys().cloned().collect();
        for id in ids {
            // It may have been unloaded meanwhile, which is what we want.
            let _ = self.core.unload(id.as_str()).await;
        }
    }

    /// Offers functions of the host to extensions, under an id of their own.
    ///
    /// # Errors
    /// If the id is taken, or of the publisher `quadriga`, which is kept for the host's services.
    pub fn provide(&self, functions: Provided) -> Result<(), Error> {
        self.core.provide(functions)
    }

    /// Calls a method with encoded arguments: a MessagePack list.
    ///
    /// Guests that run in this process run on the calling thread until they first have to wait,
    /// unless a stream comes with the call or [`CallOptions::detached`] says so. A stream as the result is collected into a list.
    ///
    /// # Errors
    /// The guest's own error, or why it could not be called.
    pub async fn call(
        &self,
        extension: &str,
        method: &str,
        arguments: impl Into<Bytes>,
        options: CallOptions,
    ) -> Result<Bytes, Error> {
        match self.core.begin(extension, method, arguments.into(), options) {
            Outcome::Ready(result) => result,
            Outcome::Pending(future) => future.await,
        }
    }

    /// Calls a method and reads its result as a stream, item by item, while the call runs. A method
    /// that does not stream gives its one result. Guests never run on the calling thread.
    pub fn stream(
        &self,
        extension: &str,
        method: &str,
        arguments: impl Into<Bytes>,
        options: CallOptions,
    ) -> Items {
        self.core.start(None, extension, method, arguments.into(), options, true)
    }

    /// Calls a method with Rust values: `arguments` is a tuple.
    ///
    /// # Errors
    /// As for [`Dispatcher::call`], or if a value cannot be encoded or decoded.
    pub async fn invoke<R: DeserializeOwned>(
        &self,
        extension: &str,
        method: &str,
        arguments: &impl Serialize,
    ) -> Result<R, Error> {
        let arguments = codec::arguments(arguments).map_err(|error| {
            let message = format!("the arguments for {extension}/{method} cannot be sent: {error}");
            Error::new(ErrorCode::InvalidValue, message)
        })?;
        let reply = self.call(extension, method, arguments, CallOptions::default()).await?;
        decode(&reply)
    }

    /// The runtimes that the host registered, by kind and isolation.
    pub fn runtimes(&self) -> Vec<&dyn Runtime> {
        let mut runtimes: Vec<&dyn Runtime> =
            self.core.runtimes.values().flatten().map(AsRef::as_ref).collect();
        runtimes.sort_by_key(|runtime| (runtime.kind(), runtime.support().isolation));
        runtimes
    }

    /// What is loaded, by id.
    pub fn list(&self) -> Vec<Status> {
        let mut list: Vec<_> = self.core.routes.load().values().map(|slot| slot.status()).collect();
        list.sort_by(|a, b| a.id.cmp(&b.id));
        list
    }

    /// How one extension does.
    ///
    /// # Errors
    /// If no such extension is loaded.
    pub fn status(&self, extension: &str) -> Result<Status, Error> {
        self.core.route(extension).map(|slot| slot.status())
    }
}

/// Decodes a result.
fn decode<R: DeserializeOwned>(bytes: &[u8]) -> Result<R, Error> {
    codec::from_bytes(bytes).map_err(|error| {
        let wanted = std::any::type_name::<R>();
        Error::new(ErrorCode::InvalidValue, format!("the value does not decode as {wanted}: {error}"))
    })
}

impl Core {
    pub(crate) fn executor(&self) -> &Handle {
        &self.handle
    }

    pub(crate) fn route(&self, extension: &str) -> Result<Arc<Slot>, Error> {
        let routes = self.routes.load();
        routes.get(extension).map(Arc::clone).ok_or_else(|| {
            let mut ids: Vec<&str> = routes.keys().map(ExtensionId::as_str).collect();
            ids.sort_unstable();
            let error =
                Error::new(ErrorCode::UnknownExtension, format!("no extension {extension:?} is loaded"));
            error.with_hint(suggest(extension, &ids, "loaded are"))
        })
    }

    /// Routes, checks and counts a call. Inlined, so that what is admitted is not moved about.
    #[inline]
    pub(crate) fn admit(
        self: &Arc<Self>,
        extension: &str,
        method: &str,
        arguments: Bytes,
        options: CallOptions,
    ) -> Result<Admitted, Error> {
        let started = Tick::now();
        let slot = self.route(extension)?;
        let (slot, before) = match slot.gate.enter() {
            Some(before) => (slot, before),
            None => self.enter_barred(slot)?,
        };
        self.admit_to(slot, before, started, method, arguments, options)
    }

    /// The same where a generation of the callee is known, which may be gone by now.
    pub(crate) fn admit_or_find(
        self: &Arc<Self>,
        slot: Arc<Slot>,
        method: &str,
        arguments: Bytes,
        options: CallOptions,
    ) -> Result<Admitted, Error> {
        let started = Tick::now();
        let (slot, before) = match slot.gate.enter() {
            Some(before) => (slot, before),
            None => self.enter_barred(slot)?,
        };
        self.admit_to(slot, before, started, method, arguments, options)
    }

    /// The same for a slot whose gate was passed with so many inside before.
    #[inline]
    pub(crate) fn admit_to(
        self: &Arc<Self>,
        slot: Arc<Slot>,
        before: u32,
        started: Tick,
        method: &str,
        arguments: Bytes,
        options: CallOptions,
    ) -> Result<Admitted, Error> {
        // From here on the ticket owns the place inside the gate.
        let id = self.call_ids.next();
        let mut ticket = Ticket {
            slot,
            id,
            method: 0,
            started,
            link: None,
            span: None,
            streams: None,
            deadline: None,
            alarm: None,
            finished: true,
        };
        let slot = &ticket.slot;
        let caps = &slot.caps;
        if before >= caps.queue_depth() {
            let message = format!("{} has {before} calls in flight", slot.id);
            let hint = "call less at once, or raise [limits] queue-depth";
            return Err(Error::new(ErrorCode::Overloaded, message).with_hint(hint));
        }
        if options.depth > caps.call_depth() {
            let message = format!("{} extensions stand above this call to {}", options.depth, slot.id);
            let hint = "do the extensions call each other without end? If not, raise [limits] call-depth";
            return Err(Error::new(ErrorCode::CallDepthExceeded, message).with_hint(hint));
        }
        if arguments.len() as u64 > caps.message_size() {
            return Err(slot.too_large("list of arguments", arguments.len()));
        }
        let Some((target, place)) = slot.methods.get(method).cloned() else {
            return self.admit_added(&ticket, method, arguments, options);
        };
        if options.source.is_some() && state::is_reserved(method) {
            // The state of an extension is for its host alone.
            let message = format!("{} keeps {method} for its host", slot.id);
            return Err(Error::new(ErrorCode::PermissionDenied, message));
        }
        if let Some(checks) = &slot.checks {
            checks.arguments(place, &arguments)?;
        }
        let deadline = deadline(caps, options.deadline, options.within)?;
        ticket.streams = streams(&ticket.slot, place, options.input, options.output);
        ticket.deadline = deadline;
        ticket.alarm = deadline.map(|(deadline, _)| Alarm::set(&self.deadlines, &ticket, deadline));
        ticket.method = place;
        ticket.finished = false;
        ticket.slot.counters.begin(place);
        let trace = options.trace.map(further);
        ticket.span = span(&target, id, options.parent, trace);
        let span = ticket.span.as_deref().map(SpanRef::of).unwrap_or_default();
        let envelope = Envelope {
            kind: Kind::Call,
            id,
            source: options.source,
            target: Some(target),
            depth: options.depth,
            deadline: deadline.map(|(deadline, _)| deadline),
            trace,
            payload: arguments,
        };
        let streams = ticket.streams.clone();
        Ok(Admitted { call: Call { method: place, envelope, streams, span, hooks: options.hooks }, ticket })
    }

    /// Passes the gate of an extension where something bars it, but waits for no hand-over: a call that
    /// waited might be one that the hand-over waits for.
    #[cold]
    pub(crate) fn enter_barred(&self, slot: Arc<Slot>) -> Result<(Arc<Slot>, u32), Error> {
        self.enter_past(slot, SWITCHING).map_err(|barred| match barred {
            Barred::Refused(error) => error,
            Barred::Switching(slot) | Barred::Asleep(slot) => slot.refusal(slot.state(), None),
        })
    }

    /// The same without regard to some bars; follows a reload that happens in between.
    pub(crate) fn enter_past(&self, mut slot: Arc<Slot>, past: u8) -> Result<(Arc<Slot>, u32), Barred> {
        loop {
            match slot.pass(past) {
                Ok(before) => return Ok((slot, before)),
                Err(Barred::Refused(_)) if !self.is_current(&slot) => {
                    slot = self.route(slot.id.as_str()).map_err(Barred::Refused)?;
                }
                Err(barred) => return Err(barred),
            }
        }
    }
}

/// When a call must end, and how long that is from now. The clock is read only where there is a deadline.
fn deadline(
    caps: &Caps,
    asked: Option<Instant>,
    within: Option<Duration>,
) -> Result<Option<(Instant, Duration)>, Error> {
    let within = [within, caps.call_timeout()].into_iter().flatten().min();
    if asked.is_none() && within.is_none() {
        return Ok(None);
    }
    let now = Instant::now();
    let within = within.and_then(|within| now.checked_add(within));
    let Some(deadline) = [asked, within].into_iter().flatten().min() else { return Ok(None) };
    let left = deadline.saturating_duration_since(now);
    if left.is_zero() {
        let message = "the deadline had passed before the call began";
        return Err(Error::new(ErrorCode::DeadlineExceeded, message));
    }
    Ok(Some((deadline, left)))
}

/// The streams of a call, if it has any: its input, and where its items go if it may emit some.
fn streams(slot: &Slot, method: usize, input: Option<Input>, output: Option<Output>) -> Option<Box<Streams>> {
    let emits = slot.streams(method);
    if !emits && input.is_none() {
        return None;
    }
    let most = usize::try_from(slot.caps.message_size()).unwrap_or(usize::MAX);
    let output =
        emits.then(|| output.unwrap_or_else(|| Output::list(most)).checked(slot.checks.as_ref(), method));
    Some(Box::new(Streams { output, input }))
}

/// The trace as the next call in it sees it.
fn further(trace: TraceContext) -> TraceContext {
    trace.child(NonZeroU64::new(fastrand::u64(1..)).unwrap_or(NonZeroU64::MIN))
}

/// What subscribers see of a call: nothing is done for it where none listens.
fn span(to: &Target, call: u64, parent: SpanRef, trace: Option<TraceContext>) -> Option<Box<Span>> {
    // Looked at first: where `tracing` also serves `log`, even a span that nobody sees takes its time.
    if LevelFilter::current() < LevelFilter::DEBUG {
        return None;
    }
    macro_rules! open {
        ($($parent:tt)*) => {
            tracing::debug_span!(
                target: "quadriga::call",
                $($parent)*
                "call",
                extension = to.extension.as_str(),
                method = &*to.method,
                call,
                traceparent = field::Empty,
                error = field::Empty,
            )
        };
    }
    let span = match parent.id() {
        Some(parent) => open!(parent: parent,),
        None => open!(),
    };
    if span.is_disabled() {
        return None;
    }
    if let Some(trace) = trace {
        span.record("traceparent", field::display(trace));
    }
    Some(Box::new(span))
}

impl Drop for Core {
    fn drop(&mut self) {
        // A call in flight may hold the last reference, on a thread of this very executor.
        if let Some(executor) = self.executor.take() {
            executor.shutdown_background();
        }
    }
}

/// Locks, also after a panic elsewhere: what our locks guard is whole between statements.
pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

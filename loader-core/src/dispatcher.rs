use std::collections::{HashMap, HashSet, VecDeque};
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use arc_swap::ArcSwap;
use quadriga_abi::{Bytes, Envelope, Error, ErrorCode, ExtensionId, Kind, RuntimeKind, Target, codec};
use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::runtime::Handle;
use tokio::sync::{Semaphore, oneshot};

use crate::call::{Admitted, Alarm, CallOptions, InFlight, Started, Ticket};
use crate::route::{Routes, Slot, suggest};
use crate::{BoxFuture, Call, LoadOptions, Outcome, Policy, Provided, Runtime, Status};

/// Threads for calls that an event loop makes to guests that block. A call beyond them is refused
/// rather than queued: the threads may all be waiting for it.
const DETACHED_CALLS: usize = 480;

/// How many given-up calls are remembered, so that guests can ask.
const REMEMBERED: usize = 1024;

/// Loads extensions and routes calls to them. Cheap to clone; the last clone ends what is loaded.
#[derive(Clone)]
pub struct Dispatcher {
    pub(crate) core: Arc<Core>,
}

/// Puts a [`Dispatcher`] together.
#[derive(Default)]
pub struct Builder {
    runtimes: HashMap<RuntimeKind, Arc<dyn Runtime>>,
    policy: Policy,
}

pub(crate) struct Core {
    pub(crate) runtimes: HashMap<RuntimeKind, Arc<dyn Runtime>>,
    pub(crate) policy: Policy,
    pub(crate) routes: ArcSwap<Routes>,
    /// Ids that are being loaded, so that two loads cannot race for one.
    pub(crate) loading: Mutex<HashSet<ExtensionId>>,
    pub(crate) generations: AtomicU64,
    call_ids: AtomicU64,
    pub(crate) given_up: Arc<GivenUp>,
    detached: Arc<Semaphore>,
    /// Our own, so that no wait depends on the host's executor. `None` only while it is dropped.
    executor: Option<tokio::runtime::Runtime>,
    handle: Handle,
}

impl Builder {
    /// Adds a runtime. A later one of the same kind takes its place.
    pub fn runtime(mut self, runtime: impl Runtime) -> Self {
        self.runtimes.insert(runtime.kind(), Arc::new(runtime));
        self
    }

    /// Sets what the host demands of every extension.
    pub fn policy(mut self, policy: Policy) -> Self {
        self.policy = policy;
        self
    }

    /// Starts the dispatcher's threads.
    ///
    /// # Errors
    /// If the system gives no threads.
    pub fn build(self) -> std::io::Result<Dispatcher> {
        let executor = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(2)
            .max_blocking_threads(DETACHED_CALLS + 32)
            .thread_name("quadriga")
            .enable_all()
            .build()?;
        let handle = executor.handle().clone();
        let core = Core {
            runtimes: self.runtimes,
            policy: self.policy,
            routes: ArcSwap::default(),
            loading: Mutex::default(),
            generations: AtomicU64::new(1),
            call_ids: AtomicU64::new(1),
            given_up: Arc::default(),
            detached: Arc::new(Semaphore::new(DETACHED_CALLS)),
            executor: Some(executor),
            handle,
        };
        Ok(Dispatcher { core: Arc::new(core) })
    }
}

impl Dispatcher {
    /// Starts a builder without runtimes.
    pub fn builder() -> Builder {
        Builder::default()
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
    /// # Errors
    /// As for [`Dispatcher::load`], or if no such extension is loaded.
    pub async fn reload(&self, extension: &str) -> Result<(), Error> {
        self.core.reload(extension).await
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
    /// If the id is taken.
    pub fn provide(&self, functions: Provided) -> Result<(), Error> {
        self.core.provide(functions)
    }

    /// Calls a method with encoded arguments: a MessagePack list.
    ///
    /// Guests that run in this process run on the calling thread until they first have to wait.
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
        match self.core.admit(extension, method, arguments.into(), options)?.run() {
            Started::Ready(result) => result,
            Started::InFlight(call) => call.await,
        }
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

    /// The runtimes that the host registered, by kind.
    pub fn runtimes(&self) -> Vec<&dyn Runtime> {
        let mut runtimes: Vec<&dyn Runtime> = self.core.runtimes.values().map(AsRef::as_ref).collect();
        runtimes.sort_by_key(|runtime| runtime.kind());
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

    /// Routes, checks and counts a call.
    pub(crate) fn admit(
        self: &Arc<Self>,
        extension: &str,
        method: &str,
        arguments: Bytes,
        options: CallOptions,
    ) -> Result<Admitted, Error> {
        let started = Instant::now();
        let (slot, before) = self.enter(extension)?;
        // From here on the ticket owns the place inside the gate.
        let id = self.call_ids.fetch_add(1, Ordering::Relaxed);
        let mut ticket = Ticket { slot, id, started, alarm: None, finished: true };
        let slot = &ticket.slot;
        let caps = &slot.caps;
        if before >= caps.queue_depth {
            let message = format!("{} has {before} calls in flight", slot.id);
            let hint = "call less at once, or raise [limits] queue-depth";
            return Err(Error::new(ErrorCode::Overloaded, message).with_hint(hint));
        }
        if options.depth > caps.call_depth {
            let message = format!("{} extensions stand above this call to {}", options.depth, slot.id);
            let hint = "do the extensions call each other without end? If not, raise [limits] call-depth";
            return Err(Error::new(ErrorCode::CallDepthExceeded, message).with_hint(hint));
        }
        if arguments.len() as u64 > caps.message_size {
            return Err(slot.too_large("list of arguments", arguments.len()));
        }
        let (name, place) = slot.method(method)?;
        let own = caps.call_timeout.and_then(|timeout| started.checked_add(timeout));
        let deadline = [options.deadline, own].into_iter().flatten().min();
        if let Some(deadline) = deadline {
            if deadline <= started {
                let message = "the deadline had passed before the call began";
                return Err(Error::new(ErrorCode::DeadlineExceeded, message));
            }
            ticket.alarm = Some(Alarm::set(self, &ticket.slot, id, deadline));
        }
        ticket.finished = false;
        let envelope = Envelope {
            kind: Kind::Call,
            id,
            source: options.source,
            target: Some(Target { extension: ticket.slot.id.clone(), method: name }),
            depth: options.depth,
            deadline,
            trace: options.trace,
            payload: arguments,
        };
        Ok(Admitted { call: Call { method: place, envelope }, ticket })
    }

    /// Finds the route and passes its gate; follows a reload that happens in between.
    fn enter(&self, extension: &str) -> Result<(Arc<Slot>, u32), Error> {
        loop {
            let slot = self.route(extension)?;
            if let Some(before) = slot.gate.enter() {
                return Ok((slot, before));
            }
            if self.route(extension)?.generation == slot.generation {
                let message = format!("{extension} is being unloaded");
                return Err(Error::new(ErrorCode::ExtensionStopped, message));
            }
        }
    }

    pub(crate) fn call(
        self: &Arc<Self>,
        extension: &str,
        method: &str,
        arguments: Bytes,
        options: CallOptions,
    ) -> Outcome {
        match self.admit(extension, method, arguments, options) {
            Ok(admitted) => admitted.run().into(),
            Err(error) => error.into(),
        }
    }

    /// Calls without ever running the guest on the calling thread.
    pub(crate) fn call_detached(
        self: &Arc<Self>,
        extension: &str,
        method: &str,
        arguments: Bytes,
        options: CallOptions,
    ) -> BoxFuture<'static, Result<Bytes, Error>> {
        let admitted = match self.admit(extension, method, arguments, options) {
            Ok(admitted) => admitted,
            Err(error) => return Box::pin(std::future::ready(Err(error))),
        };
        if !admitted.ticket.slot.instance.blocks() {
            return Box::pin(Outcome::from(admitted.run()).result());
        }
        let Ok(permit) = Arc::clone(&self.detached).try_acquire_owned() else {
            let message = "no thread is free for the call";
            return Box::pin(std::future::ready(Err(Error::new(ErrorCode::Overloaded, message))));
        };
        let leash = Leash {
            _core: Arc::clone(self),
            slot: Arc::clone(&admitted.ticket.slot),
            id: admitted.ticket.id,
            held: true,
        };
        let (send, receive) = oneshot::channel();
        self.handle.spawn_blocking(move || {
            let _permit = permit;
            // The receiver is gone when the caller gave up.
            let _ = send.send(match admitted.run() {
                Started::Ready(result) => result,
                Started::InFlight(call) => pollster::block_on::<InFlight>(call),
            });
        });
        Box::pin(async move {
            let mut leash = leash;
            let result = receive.await.unwrap_or_else(|_| {
                Err(Error::new(ErrorCode::Internal, "the thread of the call ended early"))
            });
            leash.held = false;
            result
        })
    }
}

impl Drop for Core {
    fn drop(&mut self) {
        // A call in flight may hold the last reference, on a thread of this very executor.
        if let Some(executor) = self.executor.take() {
            executor.shutdown_background();
        }
    }
}

/// The calls that were given up last.
#[derive(Default)]
pub(crate) struct GivenUp(Mutex<VecDeque<u64>>);

impl GivenUp {
    pub(crate) fn remember(&self, call: u64) {
        let mut calls = lock(&self.0);
        if calls.len() == REMEMBERED {
            calls.pop_front();
        }
        calls.push_back(call);
    }

    pub(crate) fn contains(&self, call: u64) -> bool {
        lock(&self.0).contains(&call)
    }
}

/// Gives up a call that runs on another thread when its caller goes away.
struct Leash {
    /// Keeps the executor on which the call runs.
    _core: Arc<Core>,
    slot: Arc<Slot>,
    id: u64,
    held: bool,
}

impl Drop for Leash {
    fn drop(&mut self) {
        if self.held {
            self.slot.give_up(self.id);
        }
    }
}

/// Locks, also after a panic elsewhere: what our locks guard is whole between statements.
pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

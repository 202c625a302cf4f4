//! What the thread of an isolate knows, shared by its loop, its ops and its callbacks.

use std::cell::{Cell, OnceCell, RefCell};
use std::collections::HashMap;
use std::rc::Rc;
use std::sync::atomic::{AtomicBool, AtomicU64};
use std::sync::{Arc, Mutex, OnceLock};
use std::time::Duration;

use deno_core::futures::stream::{AbortHandle, Abortable, FuturesUnordered};
use deno_core::{ExternalOpsTracker, v8};
use foldhash::fast::RandomState;
use quadriga_abi::{Bytes, Error};
use quadriga_core::{BoxFuture, Bridge, CallContext, Streams};
use tokio::sync::oneshot;

use crate::buffers::Budget;
use crate::clock::Clock;
use crate::cpu::{Charges, Cpu};
use crate::stream::Channel;

/// Where the answer to a call goes.
pub(crate) type Reply = oneshot::Sender<Result<Bytes, Error>>;

/// A call to another extension that is under way, by its ticket.
type HostCall = Abortable<BoxFuture<'static, (u32, Result<Bytes, Error>)>>;

thread_local! {
    /// One isolate per thread, one thread per isolate.
    static STATE: RefCell<Option<Rc<State>>> = const { RefCell::new(None) };
}

/// By numbers that we give out: nobody can choose them so that they collide.
type ByNumber<K, V> = HashMap<K, V, RandomState>;

/// The state of one isolate. Nothing in it stays borrowed while guest code runs.
pub(crate) struct State {
    pub(crate) bridge: Bridge,
    pub(crate) budget: Arc<Budget>,
    pub(crate) clock: Clock,
    pub(crate) shared: Arc<Shared>,
    /// The calls that have not been answered.
    pub(crate) calls: RefCell<ByNumber<u64, InFlight>>,
    /// What the guest waits for from others.
    pub(crate) host_calls: RefCell<FuturesUnordered<HostCall>>,
    pub(crate) waiting: RefCell<ByNumber<u32, Waiting>>,
    pub(crate) tickets: Cell<u32>,
    /// The calls with streams that the guest makes, by ticket.
    pub(crate) channels: RefCell<ByNumber<u32, Channel>>,
    /// A host call was begun that has not been polled yet.
    pub(crate) fresh: Cell<bool>,
    /// Why the engine was told to stop what it runs.
    pub(crate) end: Cell<Option<End>>,
    /// Which call the thread has entered the engine for; 0 for none in particular.
    pub(crate) entered: Cell<u64>,
    pub(crate) charges: Charges,
    /// How far the heap may grow, once that was changed; 0 before.
    pub(crate) heap_limit: Cell<usize>,
    /// How many calls the loop was told to end.
    pub(crate) interrupts: Cell<u64>,
    /// Errors that no one caught.
    pub(crate) unhandled: RefCell<Vec<Error>>,
    pub(crate) helpers: OnceCell<Helpers>,
    pub(crate) engine_context: OnceCell<v8::Global<v8::Context>>,
    /// Keeps top-level `await` of a host call from being taken for a deadlock.
    pub(crate) pending_ops: OnceCell<ExternalOpsTracker>,
}

/// What other threads may touch.
#[derive(Default)]
pub(crate) struct Shared {
    pub(crate) handle: OnceLock<v8::IsolateHandle>,
    /// Set once the isolate must end, whatever it is doing.
    pub(crate) stop: AtomicBool,
    /// Set while it stands still.
    pub(crate) parked: AtomicBool,
    /// Why the isolate is gone, if it is not because of `stop`.
    pub(crate) death: OnceLock<Error>,
    /// How many calls were to be ended.
    pub(crate) interrupts: AtomicU64,
    /// The thread will never end.
    pub(crate) stranded: AtomicBool,
    /// Told when the thread is done.
    pub(crate) done: Mutex<Option<oneshot::Sender<()>>>,
    /// Bytes in use when last looked at.
    pub(crate) memory: AtomicU64,
    pub(crate) cpu: Cpu,
}

/// A call that has not been answered.
pub(crate) struct InFlight {
    pub(crate) context: CallContext,
    pub(crate) method: usize,
    pub(crate) reply: Reply,
    pub(crate) streams: Option<Box<Streams>>,
    pub(crate) signal: Option<Signal>,
    /// The processor time that it was found to use.
    pub(crate) cpu_time: Duration,
}

/// The abort signal of a call.
pub(crate) struct Signal {
    pub(crate) object: v8::Global<v8::Value>,
    /// Aborts it, with the parts of an error as the reason.
    pub(crate) abort: v8::Global<v8::Function>,
}

impl InFlight {
    /// Whether its result is a stream.
    pub(crate) fn emits(&self) -> bool {
        self.streams.as_ref().is_some_and(|streams| streams.output.is_some())
    }
}

/// A promise that settles when a host call does.
pub(crate) struct Waiting {
    pub(crate) resolver: v8::Global<v8::PromiseResolver>,
    pub(crate) owner: u64,
    pub(crate) abort: AbortHandle,
    /// It gets an item of a stream, or the end.
    pub(crate) item: bool,
}

/// Functions of the bootstrap script.
pub(crate) struct Helpers {
    /// Takes an exception apart.
    pub(crate) explain: v8::Global<v8::Function>,
    /// Reports how a promise settles.
    pub(crate) watch: v8::Global<v8::Function>,
    /// Tells whether a string has no lone surrogates.
    pub(crate) well_formed: v8::Global<v8::Function>,
    /// Makes a `Timestamp` of milliseconds and nanoseconds.
    pub(crate) timestamp: v8::Global<v8::Function>,
    /// The nanoseconds that a `Timestamp` has beside its milliseconds, 0 for a `Date`.
    pub(crate) nanosecond: v8::Global<v8::Function>,
    /// Hands on the items of a generator.
    pub(crate) drain: v8::Global<v8::Function>,
    /// Makes the argument that stands for a call's stream.
    pub(crate) input: v8::Global<v8::Function>,
}

/// Why the engine was told to stop what it runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum End {
    /// This call is over, whatever it still does.
    Call(u64),
    /// Work that belongs to no call stood in the way of one whose time was up.
    Stray,
    /// This call used up its processor time.
    CpuTime(u64),
    /// The memory limit was reached.
    Memory,
}

impl State {
    pub(crate) fn new(bridge: Bridge, budget: Arc<Budget>, clock: Clock, shared: Arc<Shared>) -> Rc<Self> {
        let state = Rc::new(Self {
            bridge,
            budget,
            clock,
            shared,
            calls: RefCell::default(),
            host_calls: RefCell::default(),
            waiting: RefCell::default(),
            tickets: Cell::new(0),
            channels: RefCell::default(),
            fresh: Cell::new(false),
            end: Cell::new(None),
            entered: Cell::new(0),
            charges: Charges::default(),
            heap_limit: Cell::new(0),
            interrupts: Cell::new(0),
            unhandled: RefCell::default(),
            helpers: OnceCell::new(),
            engine_context: OnceCell::new(),
            pending_ops: OnceCell::new(),
        });
        STATE.set(Some(Rc::clone(&state)));
        state
    }

    /// The state of the isolate that runs on this thread.
    ///
    /// # Panics
    /// On a thread without one, which only a bug leads to.
    pub(crate) fn current() -> Rc<Self> {
        Self::try_current().expect("the thread has no isolate")
    }

    pub(crate) fn try_current() -> Option<Rc<Self>> {
        STATE.with_borrow(Clone::clone)
    }

    /// Forgets everything that lives in the engine. Must come before the engine is dropped.
    pub(crate) fn clear() {
        if let Some(state) = STATE.take() {
            state.calls.borrow_mut().clear();
            state.host_calls.borrow_mut().clear();
            state.waiting.borrow_mut().clear();
            state.channels.borrow_mut().clear();
        }
    }

    /// The call on whose behalf the engine runs at this moment.
    pub(crate) fn owner(scope: &mut v8::PinScope<'_, '_>) -> u64 {
        let data = scope.get_continuation_preserved_embedder_data();
        if data.is_number() { data.cast::<v8::Number>().value() as u64 } else { 0 }
    }

    /// What the calls made at this moment inherit.
    pub(crate) fn context(&self, scope: &mut v8::PinScope<'_, '_>) -> CallContext {
        let owner = Self::owner(scope);
        self.calls.borrow().get(&owner).map_or_else(CallContext::default, |call| call.context)
    }

    /// Answers a call, unless it was answered before.
    pub(crate) fn answer(&self, call: u64, result: Result<Bytes, Error>) {
        let Some(call) = self.calls.borrow_mut().remove(&call) else { return };
        // What it read or wrote goes with it.
        self.channels.borrow_mut().retain(|_, channel| channel.owner != call.context.id);
        crate::fetch::forget(call.context.id);
        // The caller may have gone; nothing to do about it.
        let _ = call.reply.send(result);
    }

    /// Gives up the host calls made for a call: what waits for them never runs again.
    pub(crate) fn abandon(&self, call: u64) {
        self.waiting.borrow_mut().retain(|_, waiting| {
            let keep = waiting.owner != call;
            if !keep {
                waiting.abort.abort();
                self.host_call_ended();
            }
            keep
        });
    }

    pub(crate) fn host_call_ended(&self) {
        if let Some(tracker) = self.pending_ops.get() {
            tracker.unref_op();
        }
    }
}

//! The thread of one isolate: it owns the engine and runs everything that enters it.

use std::collections::VecDeque;
use std::ops::ControlFlow;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use deno_core::futures::StreamExt;
use deno_core::{JsRuntime as Engine, PollEventLoopOptions, RuntimeOptions, v8};
use quadriga_abi::msgpack::{Depth, Reader};
use quadriga_abi::{Bytes, Error, ErrorCode};
use quadriga_core::{Bridge, Call, CallContext, LogLevel, Unit};
use tokio::sync::{mpsc, oneshot};

use crate::buffers::{self, Budget};
use crate::clock::Clock;
use crate::methods::Export;
use crate::modules::PackageLoader;
use crate::state::{End, InFlight, Reply, Shared, Signal, State};
use crate::{compiled, config, convert, cpu, error, host_call, limits, load, snapshot, stream};

/// How often at most the memory in use is looked at. On QuickJS that walks the whole heap.
const MEASURE: Duration = Duration::from_millis(if cfg!(feature = "quickjs") { 1000 } else { 50 });

/// How long the thread waits for the next call before it sleeps: about as long as waking it takes.
const LINGER: Duration = Duration::from_micros(20);

/// Looks at the queue between two chances for other threads.
const LOOKS: u32 = 16;

/// How long the event loop may have to wait while calls keep coming.
const SLICE: Duration = Duration::from_millis(1);

/// An order to the isolate's thread.
pub(crate) enum Command {
    Call(Call, Reply),
    /// The call is over for its caller.
    Interrupt(u64),
    /// Answers that it is alive.
    Ping(oneshot::Sender<()>),
    /// The memory may grow this far from now on.
    Memory(usize),
    /// Looks whether it must stop, or stand still.
    Wake,
}

/// An isolate, on its own thread.
pub(crate) struct Isolate {
    pub(crate) engine: Engine,
    pub(crate) state: Rc<State>,
    pub(crate) commands: mpsc::UnboundedReceiver<Command>,
    pub(crate) exports: Vec<Export>,
    /// What came while it stood still.
    held: VecDeque<Command>,
    measured: Instant,
}

/// Why the isolate's thread is done.
pub(crate) enum Done {
    /// It was told to.
    Stopped,
    /// It cannot go on.
    Died(Error),
}

impl Isolate {
    pub(crate) fn new(
        unit: &Unit,
        bridge: Bridge,
        shared: Arc<Shared>,
        commands: mpsc::UnboundedReceiver<Command>,
        loader: Rc<PackageLoader>,
        heap: bool,
    ) -> Result<Self, Error> {
        let budget = Budget::new(config::memory(&unit.limits));
        let params = buffers::create_params(&budget);
        let state =
            State::new(bridge, budget, Clock::new(unit.permissions.clock_step()), Arc::clone(&shared));
        let options = RuntimeOptions {
            module_loader: Some(loader),
            extensions: vec![host_call::extension()],
            create_params: Some(params),
            startup_snapshot: snapshot::heap(heap),
            extension_code_cache: compiled::cache(heap),
            ..RuntimeOptions::default()
        };
        let mut engine = Engine::try_new(options)
            .map_err(|error| Error::new(ErrorCode::Internal, format!("the engine did not start: {error}")))?;
        let _ = state.pending_ops.set(engine.op_state().borrow().external_ops_tracker.clone());
        limits::install(&mut engine, &state);
        let _ = shared.handle.set(engine.v8_isolate().thread_safe_handle());
        Ok(Self {
            engine,
            state,
            commands,
            exports: Vec::new(),
            held: VecDeque::new(),
            measured: Instant::now(),
        })
    }

    /// Serves until told to stop.
    pub(crate) async fn serve(&mut self) -> Done {
        std::future::poll_fn(|cx| {
            if self.state.shared.parked.load(Ordering::Acquire) {
                return self.stand_still(cx);
            }
            let done = match self.catch_up(cx) {
                ControlFlow::Break(done) => Poll::Ready(done),
                ControlFlow::Continue(()) => self.turn(cx),
            };
            self.report_unhandled();
            done
        })
        .await
    }

    /// Leaves everything as it is, unless it must stop: nothing of the guest runs.
    fn stand_still(&mut self, cx: &mut Context<'_>) -> Poll<Done> {
        while let Poll::Ready(command) = self.commands.poll_recv(cx) {
            match command {
                Some(Command::Wake) => {}
                Some(command) => self.held.push_back(command),
                None => return Poll::Ready(Done::Stopped),
            }
        }
        if !self.state.shared.parked.load(Ordering::Acquire) {
            cx.waker().wake_by_ref();
        }
        self.recover().map_or(Poll::Pending, Poll::Ready)
    }

    /// Does what was asked for while it stood still, and what comes.
    fn catch_up(&mut self, cx: &mut Context<'_>) -> ControlFlow<Done> {
        while let Some(command) = self.held.pop_front() {
            self.obey(command)?;
        }
        self.linger(cx)
    }

    /// Takes calls and replies as long as they keep coming: the next one is often on its way when
    /// one is answered, and to wait for it costs less than to sleep and be woken. Leaves the event
    /// loop alone, so it stops when a call needs that, or when it has gone on for long enough.
    fn linger(&mut self, cx: &mut Context<'_>) -> ControlFlow<Done> {
        let begun = Instant::now();
        let mut busy = None;
        loop {
            let mut worked = false;
            while let Ok(command) = self.commands.try_recv() {
                worked = true;
                self.obey(command)?;
            }
            worked |= self.replies(cx)?;
            let now = Instant::now();
            if worked {
                busy = Some(now);
            }
            let patient = busy.is_some_and(|busy| now - busy < LINGER);
            if !patient || now - begun > SLICE || self.needs_event_loop() {
                return ControlFlow::Continue(());
            }
            if !worked && !self.look() {
                // The caller may be waiting for this very core.
                std::thread::yield_now();
            }
        }
    }

    /// Looks for a command for a moment shorter than a system call.
    fn look(&self) -> bool {
        (0..LOOKS).any(|_| {
            std::hint::spin_loop();
            !self.commands.is_empty()
        })
    }

    /// Whether a call waits for something else than the reply of another extension.
    fn needs_event_loop(&self) -> bool {
        self.state.calls.borrow().len() > self.state.waiting.borrow().len()
    }

    /// Does everything that can be done now.
    pub(crate) fn turn(&mut self, cx: &mut Context<'_>) -> Poll<Done> {
        match self.try_turn(cx) {
            ControlFlow::Break(done) => Poll::Ready(done),
            ControlFlow::Continue(()) => Poll::Pending,
        }
    }

    fn try_turn(&mut self, cx: &mut Context<'_>) -> ControlFlow<Done> {
        loop {
            while let Poll::Ready(command) = self.commands.poll_recv(cx) {
                let Some(command) = command else { return ControlFlow::Break(Done::Stopped) };
                self.obey(command)?;
            }
            self.replies(cx)?;
            if let Poll::Ready(Err(failure)) =
                self.engine.poll_event_loop(cx, PollEventLoopOptions::default())
                && self.state.end.get().is_none()
                && !self.state.shared.stop.load(Ordering::Acquire)
            {
                self.state.unhandled.borrow_mut().push(load::core_error(&failure));
            }
            self.go_on()?;
            if !self.state.fresh.replace(false) {
                break;
            }
        }
        self.measure();
        ControlFlow::Continue(())
    }

    fn obey(&mut self, command: Command) -> ControlFlow<Done> {
        match command {
            Command::Call(call, reply) => self.start(call, reply),
            Command::Interrupt(call) => {
                self.state.interrupts.update(|n| n + 1);
                self.give_up(call);
            }
            // Who asked may have given up.
            Command::Ping(alive) => drop(alive.send(())),
            Command::Memory(limit) => limits::limit_heap(&mut self.engine, &self.state, limit),
            Command::Wake => {}
        }
        self.go_on()
    }

    /// Hands out the replies that are there; tells whether there were any.
    fn replies(&mut self, cx: &mut Context<'_>) -> ControlFlow<Done, bool> {
        let mut some = false;
        loop {
            let next = self.state.host_calls.borrow_mut().poll_next_unpin(cx);
            let Poll::Ready(Some(finished)) = next else { return ControlFlow::Continue(some) };
            some = true;
            if let Ok((ticket, result)) = finished {
                self.resume(ticket, &result);
            }
            self.go_on()?;
        }
    }

    fn go_on(&mut self) -> ControlFlow<Done> {
        self.recover().map_or(ControlFlow::Continue(()), ControlFlow::Break)
    }

    /// Logs what no one caught. Not during a load, which fails of it.
    fn report_unhandled(&self) {
        for error in self.state.unhandled.take() {
            let stack = error.stack.as_deref().unwrap_or(&error.message);
            let context = CallContext::default();
            self.state.bridge.log(&context, LogLevel::Error, &format!("no one caught: {stack}"));
        }
    }

    /// Begins a call; answers it at once if it needs to wait for nothing.
    fn start(&mut self, mut call: Call, reply: Reply) {
        let context = call.context();
        let export = &self.exports[call.method];
        let name = &export.method.name;
        if context.deadline.is_some_and(|deadline| deadline <= Instant::now()) {
            let _ = reply.send(Err(limits::ended(&context, name)));
            return;
        }
        let state = Rc::clone(&self.state);
        deno_core::scope!(scope, self.engine);
        let input = call.streams.as_ref().is_some_and(|streams| streams.input.is_some());
        let arguments = convert::arguments(scope, &call.envelope.payload, |scope| {
            if input { stream::argument(scope, &state, context.id) } else { None }
        });
        let arguments = match arguments {
            Ok(arguments) if arguments.len() >= export.required => arguments,
            Ok(arguments) => {
                let _ = reply.send(Err(export.too_few(arguments.len())));
                return;
            }
            Err(refused) => {
                let message = format!("{name} cannot take its arguments: {refused}");
                let _ = reply.send(Err(Error::new(ErrorCode::InvalidArguments, message)));
                return;
            }
        };
        let id = context.id;
        let method = call.method;
        let streams = call.streams.take();
        let cpu_time = Duration::ZERO;
        let call = InFlight { context, method, reply, streams, signal: None, cpu_time };
        state.calls.borrow_mut().insert(id, call);
        state.charge_nobody();
        state.entered.set(id);
        let owner = v8::Number::new(scope, id as f64).into();
        scope.set_continuation_preserved_embedder_data(owner);
        let function = v8::Local::new(scope, &export.function);
        run(scope, &state, id, function, &arguments);
        let undefined = v8::undefined(scope).into();
        scope.set_continuation_preserved_embedder_data(undefined);
    }

    /// Ends a call whose caller no longer waits, unless it is over.
    fn give_up(&mut self, call: u64) {
        self.end_call(call, limits::ended);
    }

    /// Ends a call, unless it is over.
    fn end_call(&mut self, call: u64, why: impl FnOnce(&CallContext, &str) -> Error) {
        let found = self
            .state
            .calls
            .borrow_mut()
            .get_mut(&call)
            .map(|call| (call.context, call.method, call.signal.take()));
        let Some((context, method, signal)) = found else { return };
        let ended = why(&context, &self.exports[method].method.name);
        self.state.abandon(call);
        self.state.answer(call, Err(ended.clone()));
        if let Some(signal) = signal {
            self.abort(call, &signal, &ended);
        }
    }

    /// Tells a guest that its call is over. What it does about it is on its own account.
    fn abort(&mut self, call: u64, signal: &Signal, why: &Error) {
        let state = Rc::clone(&self.state);
        deno_core::scope!(scope, self.engine);
        let owner = v8::Number::new(scope, call as f64).into();
        scope.set_continuation_preserved_embedder_data(owner);
        {
            v8::tc_scope!(let scope, scope);
            let (abort, undefined) = (v8::Local::new(scope, &signal.abort), v8::undefined(scope).into());
            let why = error::to_exception(scope, why);
            if abort.call(scope, undefined, &[why]).is_none() && state.end.get().is_none() {
                scope.reset();
            }
            scope.perform_microtask_checkpoint();
        }
        let undefined = v8::undefined(scope).into();
        scope.set_continuation_preserved_embedder_data(undefined);
    }

    /// Hands the reply of a host call to who waits for it, and runs what follows from that.
    fn resume(&mut self, ticket: u32, result: &Result<Bytes, Error>) {
        let state = Rc::clone(&self.state);
        let Some(waiting) = state.waiting.borrow_mut().remove(&ticket) else { return };
        state.host_call_ended();
        state.charge_nobody();
        state.entered.set(waiting.owner);
        deno_core::scope!(scope, self.engine);
        let resolver = v8::Local::new(scope, &waiting.resolver);
        let value = result.as_ref().map_err(Clone::clone).and_then(|bytes| {
            if waiting.item && bytes.is_empty() {
                return Ok(v8::undefined(scope).into());
            }
            let value = convert::decode(scope, &mut Reader::new(bytes), Depth::default())
                .map_err(|refused| Error::new(ErrorCode::InvalidValue, refused.to_string()))?;
            Ok(if waiting.item { v8::Array::new_with_elements(scope, &[value]).into() } else { value })
        });
        let _ = match value {
            Ok(value) => resolver.resolve(scope, value),
            Err(failure) => {
                let parts = error::to_exception(scope, &failure);
                resolver.reject(scope, parts)
            }
        };
        // One at a time: when a guest is stopped, the engine drops every job that waits.
        scope.perform_microtask_checkpoint();
    }

    /// Clears up after the engine was told to stop something.
    pub(crate) fn recover(&mut self) -> Option<Done> {
        if self.state.shared.stop.load(Ordering::Acquire) {
            self.engine.v8_isolate().cancel_terminate_execution();
            return Some(Done::Stopped);
        }
        let entered = self.state.entered.replace(0);
        let end = self.state.end.take()?;
        self.engine.v8_isolate().cancel_terminate_execution();
        match end {
            End::Call(call) => self.give_up(call),
            End::CpuTime(call) => {
                let limit = self.state.shared.cpu.limit();
                self.end_call(call, |_, method| cpu::used_up(limit, method));
            }
            End::Stray => {
                let context = CallContext::default();
                let message = "work that outlived its call was stopped: it kept others from running";
                self.state.bridge.log(&context, LogLevel::Warn, message);
            }
            End::Memory => {
                let error = limits::memory_limit(self.state.budget.limit());
                // In a timer it may be any of them.
                let calls: Vec<u64> = self.state.calls.borrow().keys().copied().collect();
                let guilty = calls.into_iter().filter(|call| entered == 0 || *call == entered);
                guilty.for_each(|call| self.state.answer(call, Err(error.clone())));
                return Some(Done::Died(error));
            }
        }
        None
    }

    /// Notes how much memory is in use.
    pub(crate) fn measure(&mut self) {
        if self.measured.elapsed() >= MEASURE || self.state.shared.memory.load(Ordering::Relaxed) == 0 {
            self.measured = Instant::now();
            let heap = self.engine.v8_isolate().get_heap_statistics().used_heap_size();
            let used = heap + self.state.budget.used();
            self.state.shared.memory.store(used as u64, Ordering::Relaxed);
        }
    }
}

/// Calls the function and answers the call, now or when its promise settles.
fn run<'s>(
    scope: &mut v8::PinScope<'s, '_>,
    state: &State,
    call: u64,
    function: v8::Local<'s, v8::Function>,
    arguments: &[v8::Local<'s, v8::Value>],
) {
    v8::tc_scope!(let scope, scope);
    let undefined: v8::Local<'_, v8::Value> = v8::undefined(scope).into();
    let Some(mut value) = function.call(scope, undefined, arguments) else {
        let thrown = scope.exception();
        let message = scope.message();
        scope.reset();
        if state.end.get().is_none()
            && let Some(thrown) = thrown
        {
            let mut failure = error::from_exception(scope, state, thrown);
            if cfg!(feature = "v8") && failure.stack.is_none() {
                failure.stack = message.and_then(|message| trace(scope, &failure.message, message));
            }
            state.answer(call, Err(failure));
        }
        scope.perform_microtask_checkpoint();
        return;
    };
    if let Some(helpers) = state.helpers.get()
        && state.calls.borrow().get(&call).is_some_and(InFlight::emits)
    {
        let id = v8::Number::new(scope, call as f64).into();
        let drain = v8::Local::new(scope, &helpers.drain);
        if let Some(drained) = drain.call(scope, undefined, &[value, id]) {
            value = drained;
        }
    }
    // Most async functions that wait for nothing are over after this.
    scope.perform_microtask_checkpoint();
    if let Ok(promise) = v8::Local::<v8::Promise>::try_from(value) {
        if promise.state() == v8::PromiseState::Fulfilled {
            value = promise.result(scope);
        } else if let Some(helpers) = state.helpers.get() {
            let id = v8::Number::new(scope, call as f64).into();
            let watch = v8::Local::new(scope, &helpers.watch);
            let _ = watch.call(scope, undefined, &[value, id]);
            scope.perform_microtask_checkpoint();
            return;
        }
    }
    let mut out = Vec::new();
    let result =
        host_call::encode_guarded(scope, state, value, &mut out, Depth::default()).map(|()| out.into());
    if state.end.get().is_none() {
        state.answer(call, result);
    }
}

/// The stack of something thrown that is no `Error` and so carries none. QuickJS has none to give,
/// and its backend reads out of bounds when asked.
fn trace<'s>(
    scope: &mut v8::PinScope<'s, '_>,
    what: &str,
    message: v8::Local<'s, v8::Message>,
) -> Option<String> {
    let trace = message.get_stack_trace(scope)?;
    let mut text = format!("Uncaught {what}");
    for index in 0..trace.get_frame_count() {
        let frame = trace.get_frame(scope, index)?;
        let named =
            |name: Option<v8::Local<'_, v8::String>>| name.map(|name| name.to_rust_string_lossy(scope));
        let function = named(frame.get_function_name(scope)).filter(|name| !name.is_empty());
        let script = named(frame.get_script_name(scope)).unwrap_or_default();
        let place = format!("{script}:{}:{}", frame.get_line_number(), frame.get_column());
        text += &match function {
            Some(function) => format!("\n    at {function} ({place})"),
            None => format!("\n    at {place}"),
        };
    }
    Some(error::tidy(&text))
}

impl Drop for Isolate {
    fn drop(&mut self) {
        self.engine.v8_isolate().cancel_terminate_execution();
        self.exports.clear();
        State::clear();
    }
}

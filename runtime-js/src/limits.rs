//! Memory and time, held without ever letting the engine end the process.

#![expect(unsafe_code, reason = "the engine calls back through C functions")]

use std::ffi::{c_char, c_void};
use std::ptr;
use std::rc::Rc;
use std::sync::atomic::Ordering;
use std::time::Instant;

use deno_core::{JsRuntime, v8};
use quadriga_abi::{Error, ErrorCode};
use quadriga_core::CallContext;

use crate::state::{End, State};

/// How far past its limit a heap may grow while the guest is being stopped. V8 ends the process
/// when an allocation fails, and one operation can allocate this much: it is address space, not
/// memory. To QuickJS a failed allocation is an exception like any other.
const HEADROOM: usize = if cfg!(feature = "quickjs") { 16 << 20 } else { 4 << 30 };

/// Puts the limits on a new isolate.
pub(crate) fn install(js: &mut JsRuntime, state: &Rc<State>) {
    guard_heap(js, state);
    let _ = state.engine_context.set(js.main_context());
    js.v8_isolate().set_oom_error_handler(out_of_memory);
    js.v8_isolate().set_allow_atomics_wait(false);
}

fn guard_heap(js: &mut JsRuntime, state: &Rc<State>) {
    let handle = js.v8_isolate().thread_safe_handle();
    let guarded = Rc::clone(state);
    js.add_near_heap_limit_callback(move |current, _initial| {
        // It was raised since the engine was started.
        if current < guarded.heap_limit.get() {
            return guarded.heap_limit.get();
        }
        let ending = guarded.end.replace(Some(End::Memory)) == Some(End::Memory);
        handle.terminate_execution();
        // QuickJS looks whether to end when it has done ten thousand steps, however much each of them takes.
        // So it gets its headroom once.
        if ending && cfg!(feature = "quickjs") { current } else { current.saturating_add(HEADROOM) }
    });
}

/// Lets the heap grow this far from now on. One that is larger already may not grow any more.
pub(crate) fn limit_heap(js: &mut JsRuntime, state: &Rc<State>, limit: usize) {
    state.budget.set_limit(limit);
    state.heap_limit.set(limit);
    // Lowers what the engine goes by, and never raises it: that is for the callback.
    js.remove_near_heap_limit_callback(limit);
    guard_heap(js, state);
}

/// The engine is about to abort the process. What it holds is lost, but only that: answer for it
/// and never return.
unsafe extern "C" fn out_of_memory(_location: *const c_char, _details: &v8::OomDetails) {
    if let Some(state) = State::try_current() {
        state.shared.bury(memory_limit(state.budget.limit()));
        let calls = state.calls.take();
        for (_, call) in calls {
            let _ = call.reply.send(Err(memory_limit(state.budget.limit())));
        }
        state.shared.strand();
    }
    loop {
        std::thread::park();
    }
}

/// Asks the engine, from any thread, to end one call at its next opportunity.
pub(crate) fn interrupt(handle: &v8::IsolateHandle, call: u64) {
    let Ok(call) = usize::try_from(call) else { return };
    handle.request_interrupt(on_interrupt, ptr::without_provenance_mut(call));
}

/// Runs on the isolate's thread, between two steps of the guest's code.
unsafe extern "C" fn on_interrupt(isolate: v8::UnsafeRawIsolatePtr, call: *mut c_void) {
    let Some(state) = State::try_current() else { return };
    let call = call.addr() as u64;
    // The loop has seen to every call that is over: nothing keeps the thread from it.
    let seen_to = state.interrupts.get() == state.shared.interrupts.load(Ordering::Acquire);
    if seen_to || state.end.get().is_some() {
        return;
    }
    // SAFETY: the isolate is alive, entered on this thread, and not used beyond the callback.
    let mut isolate = unsafe { v8::Isolate::from_raw_isolate_ptr(isolate) };
    let Some(owner) = owner(&state, &mut isolate) else { return };
    let end = match state.calls.borrow().contains_key(&owner) {
        true if owner == call => End::Call(call),
        // Another call has the thread, within its own time.
        true => return,
        // It is over, and this is what it does about that.
        false if owner == call => return,
        false => End::Stray,
    };
    state.end.set(Some(end));
    isolate.terminate_execution();
}

/// Runs on the isolate's thread, between two steps of the guest's code.
pub(crate) unsafe extern "C" fn on_sample(isolate: v8::UnsafeRawIsolatePtr, _: *mut c_void) {
    let Some(state) = State::try_current() else { return };
    // SAFETY: the isolate is alive, entered on this thread, and not used beyond the callback.
    let mut isolate = unsafe { v8::Isolate::from_raw_isolate_ptr(isolate) };
    let Some(owner) = owner(&state, &mut isolate) else { return };
    let end = state.sample(owner);
    if end.is_some() && state.end.get().is_none() {
        state.end.set(end);
        isolate.terminate_execution();
    }
}

/// The call on whose behalf the engine runs at this moment.
fn owner(state: &State, isolate: &mut v8::Isolate) -> Option<u64> {
    let context = state.engine_context.get()?;
    v8::scope_with_context!(scope, isolate, context);
    Some(State::owner(scope))
}

/// What a call that was ended early answers.
pub(crate) fn ended(context: &CallContext, method: &str) -> Error {
    if context.deadline.is_some_and(|deadline| deadline <= Instant::now()) {
        Error::new(ErrorCode::DeadlineExceeded, format!("{method} took longer than it was given"))
    } else {
        Error::new(ErrorCode::Cancelled, format!("the caller of {method} gave up"))
    }
}

/// What the call that went over the limit answers.
pub(crate) fn memory_limit(limit: usize) -> Error {
    let limit = quadriga_abi::limits::ByteSize(limit as u64);
    Error::new(ErrorCode::MemoryLimit, format!("the extension used more than its {limit} of memory"))
        .with_hint("raise [limits] memory in its manifest, and the host's own limit if there is one")
}

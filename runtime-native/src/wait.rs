//! How an extension waits for several of its calls at once.

use std::collections::HashMap;
use std::mem;
use std::sync::Arc;
use std::task::{Context, Wake, Waker};
use std::thread::{self, Thread};
use std::time::{Duration, Instant};

use abi_stable::std_types::RSlice;
use parking_lot::Mutex;
use quadriga_abi::vtable::ReplySink;
use quadriga_abi::{Bytes, Error};

use crate::host_call::{CallState, state};
use crate::stream::{answer, channel};

/// The calls of an extension that wait, for whoever has to interrupt one.
pub(crate) type Waiting = Mutex<HashMap<u64, Waker>>;

/// What else ends the wait of one call.
#[derive(Default)]
pub(crate) struct Wakes(Mutex<State>);

#[derive(Default)]
struct State {
    woken: bool,
    waiter: Option<Waker>,
}

impl Wakes {
    fn wake(&self) {
        let mut state = self.0.lock();
        state.woken = true;
        let waiter = state.waiter.take();
        drop(state);
        if let Some(waiter) = waiter {
            waiter.wake();
        }
    }

    /// Whether there was a wake since the last time; leaves the waker for the next one.
    fn woken(&self, waker: &Waker) -> bool {
        let mut state = self.0.lock();
        state.waiter = Some(waker.clone());
        mem::take(&mut state.woken)
    }
}

struct Unpark(Thread);

impl Wake for Unpark {
    fn wake(self: Arc<Self>) {
        self.0.unpark();
    }
}

/// A call that can be interrupted while it waits.
struct Listed<'a>(&'a CallState);

impl<'a> Listed<'a> {
    fn new(call: &'a CallState, waker: &Waker) -> Self {
        call.hub.waiting.lock().insert(call.id(), waker.clone());
        Self(call)
    }
}

impl Drop for Listed<'_> {
    fn drop(&mut self) {
        self.0.hub.waiting.lock().remove(&self.0.id());
    }
}

#[expect(unsafe_code, reason = "the channels come from the extension as raw pointers")]
fn first_of(call: &CallState, channels: &[*mut ()], input: bool, timeout: u64) -> Result<Bytes, Error> {
    let waker = Waker::from(Arc::new(Unpark(thread::current())));
    let until = (timeout != u64::MAX).then(|| Instant::now().checked_add(Duration::from_nanos(timeout)));
    let until = until.flatten();
    let end = [until, call.context.deadline].into_iter().flatten().min();
    let input = call.streams.as_ref().and_then(|streams| streams.input.as_ref()).filter(|_| input);
    let _listed = Listed::new(call, &waker);
    loop {
        let mut context = Context::from_waker(&waker);
        let mut ready: Vec<u8> = channels
            .iter()
            .map(|state| {
                // SAFETY: lent to `wait` by the extension; each is used for this moment only.
                let channel = unsafe { channel(*state) };
                u8::from(channel.items.poll_ready(&mut context).is_ready())
            })
            .collect();
        ready.push(u8::from(input.is_some_and(|input| input.poll_ready(&mut context).is_ready())));
        if ready.contains(&1) {
            return Ok(ready.into());
        }
        if call.hub.bridge.cancelled(&call.context) {
            return Err(call.given_up());
        }
        if call.wakes.woken(&waker) || until.is_some_and(|until| until <= Instant::now()) {
            return Ok(ready.into());
        }
        match end {
            Some(end) => thread::park_timeout(end.saturating_duration_since(Instant::now())),
            None => thread::park(),
        }
    }
}

#[expect(unsafe_code, reason = "called by the extension with the pointers that it was lent")]
pub(crate) unsafe extern "C" fn wait(
    call: *const (),
    channels: RSlice<'_, *mut ()>,
    input: bool,
    timeout: u64,
    sink: ReplySink,
) {
    // SAFETY: the extension holds its `HostCall`.
    let call = unsafe { state(call) };
    let work = || first_of(call, channels.as_slice(), input, timeout).map(Some);
    // SAFETY: the sink came with this call.
    unsafe { answer(sink, work) }
}

#[expect(unsafe_code, reason = "called by the extension with the pointer that it was lent")]
pub(crate) unsafe extern "C" fn wake(call: *const ()) {
    // SAFETY: as in `wait`.
    unsafe { state(call) }.wakes.wake();
}

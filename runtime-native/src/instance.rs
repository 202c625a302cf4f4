use std::collections::HashMap;
use std::future::{Future, poll_fn};
use std::sync::Arc;

use parking_lot::Mutex;
use quadriga_abi::{Bytes, Description, Error, ErrorCode};
use quadriga_core::{BoxFuture, Bridge, Call, Instance, Outcome, Usage};

use crate::half::Half;
use crate::host_call::{CallState, Hub};
use crate::library::Library;
use crate::wait::Waiting;

/// A loaded library.
pub(crate) struct NativeInstance {
    library: Library,
    description: Description,
    hub: Arc<Hub>,
    /// The calls that their extension kept, so that they can be ended without it.
    kept: Kept,
}

type Kept = Arc<Mutex<HashMap<u64, Arc<Half<CallState>>>>>;

impl NativeInstance {
    pub(crate) fn new(library: Library, description: Description, bridge: Bridge) -> Self {
        let hub = Arc::new(Hub { bridge, waiting: Waiting::default() });
        Self { library, description, hub, kept: Kept::default() }
    }

    fn later(&self, state: Half<CallState>) -> impl Future<Output = Result<Bytes, Error>> + Send + use<> {
        let state = Arc::new(state);
        let forget = Forget { kept: Arc::clone(&self.kept), id: state.id() };
        self.kept.lock().insert(state.id(), Arc::clone(&state));
        async move {
            let _forget = forget;
            poll_fn(|context| state.poll(context.waker())).await
        }
    }
}

impl Instance for NativeInstance {
    fn describe(&self) -> &Description {
        &self.description
    }

    fn call(&self, mut call: Call) -> Outcome {
        let Ok(method) = u32::try_from(call.method) else {
            return Error::new(ErrorCode::UnknownMethod, "there is no such method").into();
        };
        let (mut state, lent) = CallState::lend(Arc::clone(&self.hub), &mut call);
        self.library.module.call()(method, call.envelope.payload[..].into(), lent);
        match CallState::ended(&mut state) {
            Some(result) => Outcome::Ready(result),
            None => Outcome::Pending(Box::pin(self.later(state))),
        }
    }

    fn blocks(&self) -> bool {
        true
    }

    fn interrupt(&self, call: u64) {
        // One that waits looks whether it should go on. One that runs on its caller's thread is
        // not among the kept, and cannot be stopped.
        if let Some(waker) = self.hub.waiting.lock().get(&call) {
            waker.wake_by_ref();
        }
        let state = self.kept.lock().get(&call).cloned();
        if let Some(state) = state {
            state.interrupt();
        }
    }

    fn usage(&self) -> Usage {
        Usage { instances: 1, ..Usage::default() }
    }

    fn shutdown(&self) -> BoxFuture<'_, ()> {
        Box::pin(std::future::ready(()))
    }
}

struct Forget {
    kept: Kept,
    id: u64,
}

impl Drop for Forget {
    fn drop(&mut self) {
        self.kept.lock().remove(&self.id);
    }
}

#[cfg(test)]
mod tests;

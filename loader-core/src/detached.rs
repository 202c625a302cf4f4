//! Calls that never run on the thread of their caller, and those whose caller went away.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex};

use quadriga_abi::{Bytes, Error, ErrorCode};
use tokio::runtime::Handle;
use tokio::sync::oneshot;
use tokio::task::AbortHandle;

use crate::call::{Admitted, InFlight, Started};
use crate::dispatcher::{Core, lock};
use crate::route::Slot;
use crate::stream::Streams;
use crate::{BoxFuture, Outcome};

/// How many given-up calls are remembered, so that guests can ask.
const REMEMBERED: usize = 1024;

impl Core {
    /// Runs a call on another thread if its guest may block.
    ///
    /// Without regard to tokio's budget: a guest may wait for it on a thread of tokio's, which then
    /// never gets a new one.
    pub(crate) fn detach(self: &Arc<Self>, admitted: Admitted) -> BoxFuture<'static, Result<Bytes, Error>> {
        if !admitted.ticket.slot.instance.blocks() {
            return Box::pin(tokio::task::unconstrained(Outcome::from(admitted.run()).result()));
        }
        let Ok(permit) = Arc::clone(&self.detached).try_acquire_owned() else {
            let message = "no thread is free for the call";
            return Box::pin(std::future::ready(Err(Error::new(ErrorCode::Overloaded, message))));
        };
        let leash = Leash {
            _core: Arc::clone(self),
            slot: Arc::clone(&admitted.ticket.slot),
            id: admitted.ticket.id,
            streams: admitted.ticket.streams.clone(),
            held: true,
        };
        let (send, receive) = oneshot::channel();
        self.handle.spawn_blocking(move || {
            let _permit = permit;
            // The receiver is gone when the caller gave up.
            let _ = send.send(match admitted.run() {
                Started::Ready(result) => result,
                Started::InFlight(call) => crate::block_on::<InFlight>(call),
            });
        });
        Box::pin(async move {
            let mut leash = leash;
            let result = tokio::task::unconstrained(receive).await.unwrap_or_else(|_| {
                Err(Error::new(ErrorCode::Internal, "the thread of the call ended early"))
            });
            leash.held = false;
            result
        })
    }
}

/// Runs work on an executor of ours, and ends it if who waits for it goes away.
pub(crate) fn spawned<T: Send + 'static>(
    handle: &Handle,
    work: impl Future<Output = Result<T, Error>> + Send + 'static,
) -> BoxFuture<'static, Result<T, Error>> {
    let task = handle.spawn(work);
    let abort = Abort(task.abort_handle());
    Box::pin(async move {
        let done = tokio::task::unconstrained(task).await;
        drop(abort);
        done.unwrap_or_else(|error| {
            Err(match error.is_panic() {
                true => Error::new(ErrorCode::Internal, "the work panicked"),
                false => Error::new(ErrorCode::ExtensionStopped, "the host is shutting down"),
            })
        })
    })
}

/// Ends a task with who waits for it.
struct Abort(AbortHandle);

impl Drop for Abort {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// Gives up a call that runs on another thread when its caller goes away.
struct Leash {
    /// Keeps the executor on which the call runs.
    _core: Arc<Core>,
    slot: Arc<Slot>,
    id: u64,
    streams: Option<Box<Streams>>,
    held: bool,
}

impl Drop for Leash {
    fn drop(&mut self) {
        if self.held {
            self.slot.give_up(self.id);
            if let Some(streams) = &self.streams {
                streams.cut(&Error::new(ErrorCode::Cancelled, "the caller gave up"));
            }
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

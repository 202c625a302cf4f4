use std::collections::VecDeque;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex};

use quadriga_abi::Overflow;

use super::{EventQuota, Sent};
use crate::dispatcher::lock;

/// What waits for one subscription.
#[derive(Default)]
pub(crate) struct Queue {
    inner: Mutex<Inner>,
    /// Handed to the subscriber, and taken without an error.
    pub(crate) delivered: AtomicU64,
    /// Fell out of the queue, or did not get in.
    pub(crate) dropped: AtomicU64,
    /// Handed to the subscriber, which failed.
    pub(crate) failed: AtomicU64,
    /// Not handed to it, since it may not have them.
    pub(crate) denied: AtomicU64,
}

#[derive(Default)]
struct Inner {
    events: VecDeque<Arc<Sent>>,
    bytes: u64,
    /// Whether somebody takes events out and has not found it empty yet.
    busy: bool,
    closed: bool,
}

/// What became of an event that was to be queued.
pub(crate) enum Pushed {
    Queued {
        /// Whether nobody takes events out at this moment.
        idle: bool,
        /// Whether older ones had to go.
        full: bool,
    },
    Dropped,
}

impl Queue {
    pub(crate) fn push(&self, sent: &Arc<Sent>, overflow: Overflow, quota: &EventQuota) -> Pushed {
        let size = sent.arguments.len() as u64;
        let mut inner = lock(&self.inner);
        let is_full = |inner: &Inner| {
            // One that is alone may have its envelope over the quota.
            let over = inner.bytes + size > quota.bytes && !inner.events.is_empty();
            over || inner.events.len() >= quota.events.max(1)
        };
        if inner.closed {
            return Pushed::Dropped;
        }
        let full = is_full(&inner);
        if full && overflow == Overflow::DropNewest {
            self.dropped.fetch_add(1, Relaxed);
            return Pushed::Dropped;
        }
        while is_full(&inner) {
            inner.pop();
            self.dropped.fetch_add(1, Relaxed);
        }
        inner.bytes += size;
        inner.events.push_back(Arc::clone(sent));
        let idle = !std::mem::replace(&mut inner.busy, true);
        Pushed::Queued { idle, full }
    }

    /// The next one. After `None` the next push finds the queue idle.
    pub(crate) fn next(&self) -> Option<Arc<Sent>> {
        let mut inner = lock(&self.inner);
        let next = inner.pop();
        inner.busy = next.is_some();
        next
    }

    /// Takes no more, and forgets what is in it.
    pub(crate) fn close(&self) {
        let mut inner = lock(&self.inner);
        inner.closed = true;
        inner.bytes = 0;
        inner.events.clear();
    }

    pub(crate) fn is_closed(&self) -> bool {
        lock(&self.inner).closed
    }

    pub(crate) fn len(&self) -> usize {
        lock(&self.inner).events.len()
    }
}

impl Inner {
    fn pop(&mut self) -> Option<Arc<Sent>> {
        let sent = self.events.pop_front()?;
        self.bytes -= sent.arguments.len() as u64;
        Some(sent)
    }
}

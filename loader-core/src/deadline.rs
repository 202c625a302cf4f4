//! The deadlines of calls. One task waits for the nearest of all, so that a call which ends in time
//! costs an entry in a table, and neither a task nor a timer.

use std::collections::{BTreeMap, HashMap};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Mutex};
use std::task::{Context, Waker};
use std::time::{Duration, Instant};

use quadriga_abi::{Error, ErrorCode};
use tokio::runtime::Handle;
use tokio::sync::Notify;

use crate::call::{LATE, Ticket};
use crate::dispatcher::lock;
use crate::route::Slot;
use crate::stream::Streams;

/// How long an interrupted instance may take to say where it was, before the caller is told
/// without it.
const GRACE: Duration = Duration::from_millis(100);

/// All deadlines of a dispatcher.
#[derive(Default)]
pub(crate) struct Deadlines {
    table: Mutex<Table>,
    /// Rung for a deadline that is nearer than what the task waits for.
    nearer: Notify,
}

#[derive(Default)]
struct Table {
    /// By deadline and the id of the call.
    due: BTreeMap<(Instant, u64), Due>,
    /// By the id of the call: those that are being interrupted.
    late: HashMap<u64, Due>,
    /// Until when the task sleeps.
    until: Option<Instant>,
}

/// A call that has a deadline.
struct Due {
    slot: Arc<Slot>,
    streams: Option<Box<Streams>>,
    waker: Option<Waker>,
}

/// Interrupts a call at its deadline, and wakes its caller a little later.
pub(crate) struct Alarm {
    deadlines: Arc<Deadlines>,
    call: u64,
    deadline: Instant,
}

impl Deadlines {
    /// Starts the task; it ends with its executor.
    pub(crate) fn start(executor: &Handle) -> Arc<Self> {
        let deadlines = Arc::<Self>::default();
        let this = Arc::clone(&deadlines);
        executor.spawn(async move {
            loop {
                let nearer = this.nearer.notified();
                match this.ring() {
                    Some(next) => _ = tokio::time::timeout_at(next.into(), nearer).await,
                    None => nearer.await,
                }
            }
        });
        deadlines
    }

    /// Interrupts what is due, and says when the next is.
    fn ring(self: &Arc<Self>) -> Option<Instant> {
        let mut table = lock(&self.table);
        while let Some(first) = table.due.first_entry().filter(|first| first.key().0 <= Instant::now()) {
            let ((_, call), due) = first.remove_entry();
            // Whatever it takes, other deadlines hold.
            tokio::spawn(Arc::clone(self).interrupt(call, Arc::clone(&due.slot), due.streams.clone()));
            table.late.insert(call, due);
        }
        table.until = table.due.first_key_value().map(|((at, _), _)| *at);
        table.until
    }

    async fn interrupt(self: Arc<Self>, call: u64, slot: Arc<Slot>, streams: Option<Box<Streams>>) {
        // A runtime that panics is a bug, but one that must not keep the caller waiting.
        if catch_unwind(AssertUnwindSafe(|| slot.instance.interrupt(call))).is_err() {
            let extension = slot.id.as_str();
            tracing::error!(target: "quadriga::call", extension, call, "the runtime panicked at an interrupt");
        }
        drop(slot);
        if let Some(streams) = streams {
            streams.cut(&Error::new(ErrorCode::DeadlineExceeded, LATE));
        }
        tokio::time::sleep(GRACE).await;
        let due = lock(&self.table).late.remove(&call);
        if let Some(waker) = due.and_then(|due| due.waker) {
            waker.wake();
        }
    }
}

impl Alarm {
    pub(crate) fn set(deadlines: &Arc<Deadlines>, ticket: &Ticket, deadline: Instant) -> Self {
        let (slot, streams) = (Arc::clone(&ticket.slot), ticket.streams.clone());
        let due = Due { slot, streams, waker: None };
        let mut table = lock(&deadlines.table);
        table.due.insert((deadline, ticket.id), due);
        let nearer = table.until.is_none_or(|until| deadline < until);
        if nearer {
            table.until = Some(deadline);
        }
        drop(table);
        if nearer {
            deadlines.nearer.notify_one();
        }
        Self { deadlines: Arc::clone(deadlines), call: ticket.id, deadline }
    }

    /// Whether the caller has waited long enough; if not, it will be woken.
    pub(crate) fn rang(&self, context: &Context<'_>) -> bool {
        let mut table = lock(&self.deadlines.table);
        let Table { due, late, .. } = &mut *table;
        let Some(due) = due.get_mut(&(self.deadline, self.call)).or_else(|| late.get_mut(&self.call)) else {
            return true;
        };
        match &mut due.waker {
            Some(waker) => waker.clone_from(context.waker()),
            none => *none = Some(context.waker().clone()),
        }
        false
    }
}

impl Drop for Alarm {
    fn drop(&mut self) {
        let mut table = lock(&self.deadlines.table);
        let due = table.due.remove(&(self.deadline, self.call)).or_else(|| table.late.remove(&self.call));
        drop(table);
        // Not under the lock: it may be the last reference to an instance.
        drop(due);
    }
}

//! The deadlines of calls. One task waits for the nearest of all, so that a call which ends in time
//! costs a place in a table, and neither a task nor a timer.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Mutex};
use std::task::{Context, Waker};
use std::time::{Duration, Instant};

use quadriga_abi::{Error, ErrorCode};
use slab::Slab;
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
    /// All calls with a deadline. In no order: looked through when the task wakes, which a call that ends in
    /// time does not cause.
    due: Slab<Due>,
    /// Until when the task sleeps.
    until: Option<Instant>,
}

/// A call that has a deadline.
struct Due {
    deadline: Instant,
    call: u64,
    slot: Arc<Slot>,
    streams: Option<Box<Streams>>,
    waker: Option<Waker>,
    stage: Stage,
}

/// How far a call is with regard to its deadline.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Stage {
    InTime,
    /// Its instance was asked to say where it was.
    Interrupted,
    /// Its caller waits no longer.
    Over,
}

/// Interrupts a call at its deadline, and wakes its caller a little later.
pub(crate) struct Alarm {
    deadlines: Arc<Deadlines>,
    place: usize,
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
        let (mut table, now) = (lock(&self.table), Instant::now());
        let mut next: Option<Instant> = None;
        for (place, due) in table.due.iter_mut().filter(|(_, due)| due.stage == Stage::InTime) {
            if due.deadline <= now {
                due.stage = Stage::Interrupted;
                // Whatever it takes, other deadlines hold.
                let (slot, streams) = (Arc::clone(&due.slot), due.streams.clone());
                tokio::spawn(Arc::clone(self).interrupt(place, due.call, slot, streams));
            } else {
                next = Some(next.map_or(due.deadline, |next| next.min(due.deadline)));
            }
        }
        table.until = next;
        next
    }

    async fn interrupt(
        self: Arc<Self>,
        place: usize,
        call: u64,
        slot: Arc<Slot>,
        streams: Option<Box<Streams>>,
    ) {
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
        let mut table = lock(&self.table);
        // Another call may have its place by now.
        let due = table.due.get_mut(place).filter(|due| due.call == call);
        let waker = due.and_then(|due| {
            due.stage = Stage::Over;
            due.waker.take()
        });
        drop(table);
        if let Some(waker) = waker {
            waker.wake();
        }
    }
}

impl Alarm {
    pub(crate) fn set(deadlines: &Arc<Deadlines>, ticket: &Ticket, deadline: Instant) -> Self {
        let (slot, streams) = (Arc::clone(&ticket.slot), ticket.streams.clone());
        let due = Due { deadline, call: ticket.id, slot, streams, waker: None, stage: Stage::InTime };
        let mut table = lock(&deadlines.table);
        let place = table.due.insert(due);
        let nearer = table.until.is_none_or(|until| deadline < until);
        if nearer {
            table.until = Some(deadline);
        }
        drop(table);
        if nearer {
            deadlines.nearer.notify_one();
        }
        Self { deadlines: Arc::clone(deadlines), place }
    }

    /// Whether the caller has waited long enough; if not, it will be woken.
    pub(crate) fn rang(&self, context: &Context<'_>) -> bool {
        let mut table = lock(&self.deadlines.table);
        let Some(due) = table.due.get_mut(self.place).filter(|due| due.stage != Stage::Over) else {
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
        let due = lock(&self.deadlines.table).due.try_remove(self.place);
        // Not under the lock: it may be the last reference to an instance.
        drop(due);
    }
}

//! The processor time of calls. One that has a thread to itself is measured by the thread's clock,
//! without what it waits for. One that shares the thread of its event loop is charged what the
//! thread used in each tick at whose end it is found running.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, OnceLock};
use std::thread::{self, Thread};
use std::time::Duration;

use parking_lot::Mutex;
use pyo3::prelude::*;
use quadriga_core::ThreadClock;

use crate::config::engine;
use crate::limits::Running;

/// How often the calls that run are looked at.
const TICK: Duration = Duration::from_millis(5);

/// An event loop that used less in a tick ran nothing to speak of.
const IDLE: Duration = Duration::from_micros(500);

/// What the calls of one instance may use, in nanoseconds.
pub(crate) struct Allowance(AtomicU64);

impl Default for Allowance {
    fn default() -> Self {
        Self(AtomicU64::new(u64::MAX))
    }
}

impl Allowance {
    pub(crate) fn set(&self, limit: Duration) {
        self.0.store(u64::try_from(limit.as_nanos()).unwrap_or(u64::MAX), Relaxed);
    }

    /// What measures the next call, if there is a limit.
    pub(crate) fn meter(&self) -> Option<Meter> {
        let nanos = self.0.load(Relaxed);
        (nanos != u64::MAX).then(|| Meter { limit: Duration::from_nanos(nanos), state: Mutex::default() })
    }
}

/// Measures one call.
pub(crate) struct Meter {
    pub(crate) limit: Duration,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    /// Of the thread that it runs on, while its own code does.
    clock: Option<ThreadClock>,
    /// What the clock showed when the call was charged last.
    at: Duration,
    used: Duration,
}

impl Meter {
    /// The call's own code runs on this thread from now on.
    pub(crate) fn go(&self) {
        let mut state = self.state.lock();
        state.clock = Some(ThreadClock::current());
        state.at = ThreadClock::now();
    }

    /// It does not any more.
    pub(crate) fn stop(&self, alone: bool) {
        let mut state = self.state.lock();
        if state.clock.take().is_some() && alone {
            let used = ThreadClock::now().saturating_sub(state.at);
            state.used += used;
        }
    }

    /// Charges what its thread used since the last time, if `is_own` says that this was the call.
    /// Whether it has used up what it may.
    fn look(&self, is_own: impl FnOnce(Duration) -> bool) -> bool {
        let mut state = self.state.lock();
        let Some(now) = state.clock.and_then(ThreadClock::read) else { return false };
        let used = now.saturating_sub(state.at);
        drop(state);
        let is_own = is_own(used);
        state = self.state.lock();
        // Unless it left its code meanwhile, which charged it.
        if state.clock.is_some() && state.at <= now {
            state.at = now;
            state.used += if is_own { used } else { Duration::ZERO };
        }
        state.used >= self.limit
    }
}

/// Looks at the calls that are measured.
struct Watcher {
    calls: Mutex<Vec<Arc<Running>>>,
    /// There were none: its thread waits for the next.
    asleep: AtomicBool,
    thread: OnceLock<Thread>,
}

static WATCHER: Watcher =
    Watcher { calls: Mutex::new(Vec::new()), asleep: AtomicBool::new(false), thread: OnceLock::new() };

/// Starts the thread that looks, if it does not run yet.
///
/// # Errors
/// If the system gives no thread.
pub(crate) fn start() -> std::io::Result<()> {
    static STARTED: Mutex<bool> = Mutex::new(false);
    let mut started = STARTED.lock();
    if !*started {
        let handle = thread::Builder::new().name("quadriga-python-cpu".to_owned()).spawn(watch)?;
        let _ = WATCHER.thread.set(handle.thread().clone());
        *started = true;
    }
    Ok(())
}

/// Looks at a call until it is over, if it is measured.
pub(crate) fn measure(call: &Arc<Running>) {
    if call.meter.is_none() {
        return;
    }
    let mut calls = WATCHER.calls.lock();
    calls.push(Arc::clone(call));
    if WATCHER.asleep.swap(false, Relaxed)
        && let Some(thread) = WATCHER.thread.get()
    {
        thread.unpark();
    }
}

fn watch() {
    loop {
        let mut calls = std::mem::take(&mut *WATCHER.calls.lock());
        calls.retain(look);
        let mut list = WATCHER.calls.lock();
        list.append(&mut calls);
        if list.is_empty() {
            WATCHER.asleep.store(true, Relaxed);
            drop(list);
            while WATCHER.asleep.load(Relaxed) {
                thread::park();
            }
        } else {
            drop(list);
            thread::sleep(TICK);
        }
    }
}

/// Whether to look at the call again.
fn look(call: &Arc<Running>) -> bool {
    let Some(meter) = call.meter.as_ref().filter(|_| !call.is_done()) else { return false };
    if meter.look(|used| !call.is_task() || (used >= IDLE && is_current(call))) {
        call.use_up();
        return false;
    }
    true
}

/// Whether a task is the one that its loop runs at this moment.
fn is_current(call: &Running) -> bool {
    let Ok(engine) = engine() else { return false };
    Python::attach(|py| {
        let task = call.task(py)?;
        engine.is_current_task.bind(py).call1(task).and_then(|found| found.extract()).ok()
    })
    .unwrap_or(false)
}

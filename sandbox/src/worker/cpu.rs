//! The processor time of calls in a worker whose engine does not limit it: native code, which
//! nothing but the end of its process stops.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Once};
use std::thread;
use std::time::Duration;

use parking_lot::{Condvar, Mutex};
use quadriga_core::ThreadClock;

/// How often the calls that run are looked at.
const TICK: Duration = Duration::from_millis(10);

/// Looks at the calls that run, each on a thread of its own.
pub(super) struct Guard {
    /// Nanoseconds for each call; [`u64::MAX`] for no limit.
    limit: AtomicU64,
    calls: Mutex<HashMap<u64, Timed>>,
    some: Condvar,
    /// Told of a call that used more than its time, which it is told too.
    used_up: Box<dyn Fn(u64, Duration) + Send + Sync>,
    started: Once,
}

/// A call that runs: its thread's clock, and what that showed at its begin.
struct Timed {
    clock: ThreadClock,
    begun: Duration,
}

impl Guard {
    /// `used_up` is told of each call that used more than its time, and of that.
    pub(super) fn new(used_up: impl Fn(u64, Duration) + Send + Sync + 'static) -> Arc<Self> {
        Arc::new(Self {
            limit: AtomicU64::new(u64::MAX),
            calls: Mutex::default(),
            some: Condvar::new(),
            used_up: Box::new(used_up),
            started: Once::new(),
        })
    }

    /// Gives each call so much, from the next one on. The first time this starts the thread that looks.
    pub(super) fn set(self: &Arc<Self>, limit: Duration) {
        self.limit.store(u64::try_from(limit.as_nanos()).unwrap_or(u64::MAX), Ordering::Relaxed);
        self.started.call_once(|| {
            let guard = Arc::clone(self);
            let thread = thread::Builder::new().name("quadriga-cpu".to_owned());
            // Without it the host, which looks too, has to end what goes on.
            let _ = thread.spawn(move || guard.watch());
        });
    }

    /// A call begins on this thread. Whether it is looked at, until [`Guard::end`].
    pub(super) fn begin(&self, call: u64) -> bool {
        if self.limit.load(Ordering::Relaxed) == u64::MAX {
            return false;
        }
        let timed = Timed { clock: ThreadClock::current(), begun: ThreadClock::now() };
        let mut calls = self.calls.lock();
        calls.insert(call, timed);
        if calls.len() == 1 {
            self.some.notify_one();
        }
        true
    }

    pub(super) fn end(&self, call: u64) {
        self.calls.lock().remove(&call);
    }

    fn watch(&self) {
        loop {
            let limit = Duration::from_nanos(self.limit.load(Ordering::Relaxed));
            let over = |timed: &Timed| {
                let now = timed.clock.read();
                now.is_some_and(|now| now.saturating_sub(timed.begun) >= limit)
            };
            let mut calls = self.calls.lock();
            while calls.is_empty() {
                self.some.wait(&mut calls);
            }
            let found: Vec<u64> = calls.extract_if(|_, timed| over(timed)).map(|(call, _)| call).collect();
            drop(calls);
            found.into_iter().for_each(|call| (self.used_up)(call, limit));
            thread::sleep(TICK);
        }
    }
}

//! The processor time of calls. While calls are under way, samples are taken: what the isolate's
//! thread used since the last one is charged to the call whose code it is found in. So code that
//! waits costs nothing, and who runs for long is found more often.

use std::cell::Cell;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock, Weak};
use std::time::Duration;

use quadriga_abi::limits::Span;
use quadriga_abi::{Error, ErrorCode};
use quadriga_core::ThreadClock;
use tokio::sync::Notify;

use crate::limits;
use crate::state::{End, Shared, State};

/// How often samples are taken.
const TICK: Duration = Duration::from_millis(10);

/// A thread that used less in a tick ran no code of a guest to speak of.
const IDLE: Duration = Duration::from_millis(1);

/// What is known of the processor time of one isolate, from any thread.
pub(crate) struct Cpu {
    /// Nanoseconds for each call; [`u64::MAX`] for no limit.
    limit: AtomicU64,
    clock: OnceLock<ThreadClock>,
    /// Calls that wait for their answers.
    calls: AtomicUsize,
    /// The engine was asked for a sample and has not got to it.
    asked: AtomicBool,
    /// Wakes who takes the samples.
    wanted: Arc<Notify>,
}

/// What is charged on the isolate's own thread.
#[derive(Default)]
pub(crate) struct Charges {
    /// What the thread's clock showed when something was charged last.
    at: Cell<Duration>,
    /// Of work that belongs to no call under way: on whose behalf it was begun, and what it used.
    stray: Cell<(u64, Duration)>,
}

impl Default for Cpu {
    fn default() -> Self {
        Self {
            limit: AtomicU64::new(u64::MAX),
            clock: OnceLock::new(),
            calls: AtomicUsize::new(0),
            asked: AtomicBool::new(false),
            wanted: Arc::default(),
        }
    }
}

/// A call that waits for its answer.
pub(crate) struct Waits(Arc<Shared>);

impl Waits {
    /// What it answers if the isolate is gone.
    pub(crate) fn gone(&self) -> Error {
        self.0.gone()
    }
}

impl Drop for Waits {
    fn drop(&mut self) {
        self.0.cpu.calls.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Cpu {
    /// Gives each call so much, from the next sample on.
    pub(crate) fn set(&self, limit: Duration) {
        self.limit.store(u64::try_from(limit.as_nanos()).unwrap_or(u64::MAX), Ordering::Relaxed);
        self.wanted.notify_one();
    }

    pub(crate) fn limit(&self) -> Option<Duration> {
        let nanos = self.limit.load(Ordering::Relaxed);
        (nanos != u64::MAX).then_some(Duration::from_nanos(nanos))
    }

    /// The calling thread is the isolate's.
    pub(crate) fn on_this_thread(&self) {
        // Once: an isolate has one thread.
        let _ = self.clock.set(ThreadClock::current());
    }

    /// Notes that a call waits for its answer.
    pub(crate) fn wait(shared: &Arc<Shared>) -> Waits {
        shared.cpu.calls.fetch_add(1, Ordering::Relaxed);
        if shared.cpu.limit().is_some() {
            shared.cpu.wanted.notify_one();
        }
        Waits(Arc::clone(shared))
    }

    /// Lets who takes the samples see that there is nothing to take them of any more.
    pub(crate) fn over(&self) {
        self.wanted.notify_one();
    }

    /// Whether samples have to be taken, now and after a tick in which so much was used.
    fn is_busy(&self, used: Duration) -> bool {
        self.limit().is_some() && (self.calls.load(Ordering::Relaxed) > 0 || used >= IDLE)
    }
}

/// Has samples taken while calls are under way, until the isolate is gone.
pub(crate) async fn watch(shared: Weak<Shared>) {
    let Some(wanted) = shared.upgrade().map(|shared| Arc::clone(&shared.cpu.wanted)) else { return };
    loop {
        wanted.notified().await;
        let mut shown = Duration::ZERO;
        loop {
            let Some(shared) = shared.upgrade().filter(|shared| !shared.is_over()) else { return };
            let (Some(clock), Some(handle)) = (shared.cpu.clock.get(), shared.handle.get()) else { break };
            let Some(now) = clock.read() else { return };
            let used = now.saturating_sub(shown);
            shown = now;
            if !shared.cpu.is_busy(used) {
                break;
            }
            if used >= IDLE && !shared.cpu.asked.swap(true, Ordering::AcqRel) {
                handle.request_interrupt(limits::on_sample, std::ptr::null_mut());
            }
            drop(shared);
            tokio::time::sleep(TICK).await;
        }
    }
}

impl State {
    /// What the thread used until now is nobody's.
    pub(crate) fn charge_nobody(&self) {
        if self.shared.cpu.limit().is_some() {
            self.charges.at.set(ThreadClock::now());
        }
    }

    /// Charges what the thread used since the last time to the call `owner`, and says if it must
    /// end for that.
    pub(crate) fn sample(&self, owner: u64) -> Option<End> {
        self.shared.cpu.asked.store(false, Ordering::Release);
        let limit = self.shared.cpu.limit()?;
        let now = ThreadClock::now();
        let used = now.saturating_sub(self.charges.at.replace(now));
        if let Some(call) = self.calls.borrow_mut().get_mut(&owner) {
            call.cpu_time += used;
            return (call.cpu_time >= limit).then_some(End::CpuTime(owner));
        }
        let (whose, before) = self.charges.stray.get();
        let used = if whose == owner { before + used } else { used };
        let over = used >= limit;
        self.charges.stray.set((owner, if over { Duration::ZERO } else { used }));
        over.then_some(End::Stray)
    }
}

/// What a call answers that used too much.
pub(crate) fn used_up(limit: Option<Duration>, method: &str) -> Error {
    let limit = limit.map(|limit| format!(" its {}", Span(limit))).unwrap_or_default();
    Error::new(ErrorCode::CpuLimit, format!("{method} used more than{limit} of processor time"))
        .with_hint("raise [limits] cpu-time")
}

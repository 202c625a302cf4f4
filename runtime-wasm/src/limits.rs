//! What ends a guest early: its deadline, its caller, its host, its memory.

use std::ops::Deref;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Weak};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use parking_lot::{Mutex, RwLock, RwLockReadGuard};
use quadriga_core::{Bridge, CallContext, ThreadClock};
use tokio::runtime::Handle;
use tokio::sync::Notify;
use wasmtime::{Engine, ResourceLimiter};

use crate::config::TICK;

/// How long a guest may take to stop that holds what was revoked: it looks at each tick.
const PATIENCE: Duration = Duration::from_millis(250);

/// Why a call must end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Stop {
    Deadline,
    Cancelled,
    Unloaded,
    /// It used so much processor time.
    CpuTime(Duration),
    /// Its instance holds what the extension may not use any more.
    Revoked,
}

impl std::fmt::Display for Stop {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Deadline => "the call took longer than it was given",
            Self::Cancelled => "the caller gave up",
            Self::Unloaded => "the extension was unloaded",
            Self::Revoked => "the host took back what the call was using",
            Self::CpuTime(most) => {
                return write!(f, "the call used more than its {most:?} of processor time");
            }
        })
    }
}

impl std::error::Error for Stop {}

/// What one call can ask to learn whether it should go on. Each store has its own, so that one
/// call's end is no other call's.
#[derive(Clone)]
pub(crate) struct Watch<H = Arc<Hub>> {
    pub(crate) hub: H,
    pub(crate) context: CallContext,
    /// What the instance was given: see [`Hub::revoke`].
    pub(crate) given: u64,
}

/// For [`Watch::given`], of an instance that was given nothing which could be taken back.
pub(crate) const NOTHING: u64 = u64::MAX;

/// What the calls of one extension share.
pub(crate) struct Hub {
    pub(crate) bridge: Bridge,
    /// For the timers of WASI, whatever thread polls.
    pub(crate) executor: Handle,
    unloaded: AtomicBool,
    look: Notify,
    /// Nanoseconds of processor time for a call; [`u64::MAX`] for no limit.
    cpu_time: AtomicU64,
    /// Instances that were given something before this number may not run any more.
    oldest: AtomicU64,
    /// Held while a guest runs that was given something.
    gate: RwLock<()>,
}

impl<H: Deref<Target = Hub>> Watch<H> {
    /// Whether the call must end now.
    pub(crate) fn stop(&self) -> Option<Stop> {
        if self.is_revoked() {
            Some(Stop::Revoked)
        } else if self.context.deadline.is_some_and(|deadline| deadline <= Instant::now()) {
            Some(Stop::Deadline)
        } else if self.hub.unloaded() {
            Some(Stop::Unloaded)
        } else if self.hub.bridge.cancelled(&self.context) {
            Some(Stop::Cancelled)
        } else {
            None
        }
    }

    fn is_revoked(&self) -> bool {
        self.hub.oldest.load(Ordering::SeqCst) > self.given
    }

    /// Lets the guest run as long as the result lives, unless what it holds was taken back.
    pub(crate) fn enter(&self) -> Result<Option<RwLockReadGuard<'_, ()>>, Stop> {
        if self.given == NOTHING {
            return Ok(None);
        }
        let entered = self.hub.gate.read();
        if self.is_revoked() { Err(Stop::Revoked) } else { Ok(Some(entered)) }
    }

    /// Waits until the call must end. Only looks when [`Hub::look`] is called.
    pub(crate) async fn stopped(&self) -> Stop {
        loop {
            let look = self.hub.look.notified();
            if let Some(stop) = self.stop() {
                return stop;
            }
            look.await;
        }
    }
}

impl Hub {
    pub(crate) fn new(bridge: Bridge, executor: Handle) -> Self {
        let (unloaded, cpu_time) = (AtomicBool::new(false), AtomicU64::new(u64::MAX));
        let (look, oldest, gate) = (Notify::new(), AtomicU64::new(0), RwLock::new(()));
        Self { bridge, executor, unloaded, look, cpu_time, oldest, gate }
    }

    /// Ends the calls in all instances that were given something before this number. Whether none
    /// of them runs any more, for which it waits a little.
    pub(crate) fn revoke(&self, oldest: u64) -> bool {
        self.oldest.store(oldest, Ordering::SeqCst);
        self.look();
        self.gate.try_write_for(PATIENCE).is_some()
    }

    /// Whether an instance that was given what it was at this number may go on.
    pub(crate) fn lets(&self, given: u64) -> bool {
        self.oldest.load(Ordering::SeqCst) <= given
    }

    /// Gives each call from the next one on so much processor time.
    pub(crate) fn set_cpu_time(&self, most: Duration) {
        self.cpu_time.store(u64::try_from(most.as_nanos()).unwrap_or(u64::MAX), Ordering::Relaxed);
    }

    /// The processor time that a call may use, if that is limited.
    pub(crate) fn cpu_time(&self) -> Option<Duration> {
        let nanos = self.cpu_time.load(Ordering::Relaxed);
        (nanos != u64::MAX).then_some(Duration::from_nanos(nanos))
    }

    /// Makes the calls that wait look whether they should go on.
    pub(crate) fn look(&self) {
        self.look.notify_waiters();
    }

    /// Ends all calls.
    pub(crate) fn unload(&self) {
        self.unloaded.store(true, Ordering::Release);
        self.look();
    }

    pub(crate) fn unloaded(&self) -> bool {
        self.unloaded.load(Ordering::Acquire)
    }
}

/// The processor time of one call.
pub(crate) struct CpuTime {
    most: Option<Duration>,
    used: Duration,
}

impl CpuTime {
    pub(crate) fn new(most: Option<Duration>) -> Self {
        Self { most, used: Duration::ZERO }
    }

    /// What the thread has used, to begin from. Nothing is looked at where nothing is limited.
    pub(crate) fn begin(&self) -> Option<Duration> {
        self.most.map(|_| ThreadClock::now())
    }

    /// Counts what the thread used since [`CpuTime::begin`].
    pub(crate) fn end(&mut self, begun: Option<Duration>) -> Result<(), Stop> {
        let (Some(most), Some(begun)) = (self.most, begun) else { return Ok(()) };
        self.used += ThreadClock::now().saturating_sub(begun);
        if self.used < most { Ok(()) } else { Err(Stop::CpuTime(most)) }
    }
}

/// The memory of all instances of one extension together.
pub(crate) struct Memory {
    used: AtomicUsize,
    limit: AtomicUsize,
    pub(crate) instances: AtomicU32,
}

impl Memory {
    pub(crate) fn new() -> Arc<Self> {
        Arc::new(Self {
            used: AtomicUsize::new(0),
            limit: AtomicUsize::new(usize::MAX),
            instances: AtomicU32::new(0),
        })
    }

    /// What is held stays, but nothing grows beyond this any more.
    pub(crate) fn set_limit(&self, limit: u64) {
        self.limit.store(usize::try_from(limit).unwrap_or(usize::MAX), Ordering::Relaxed);
    }

    fn limit(&self) -> usize {
        self.limit.load(Ordering::Relaxed)
    }

    pub(crate) fn used(&self) -> usize {
        self.used.load(Ordering::Relaxed)
    }

    fn take(&self, bytes: usize) -> bool {
        self.used
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, |used| {
                used.checked_add(bytes).filter(|sum| *sum <= self.limit())
            })
            .is_ok()
    }
}

/// Counts what one instance holds of its extension's memory, and gives it back when dropped.
pub(crate) struct Share {
    memory: Arc<Memory>,
    held: usize,
    last: usize,
    /// Whether growth was refused since [`Share::begin`].
    pub(crate) refused: bool,
}

impl Share {
    pub(crate) fn new(memory: Arc<Memory>) -> Self {
        memory.instances.fetch_add(1, Ordering::Relaxed);
        Self { memory, held: 0, last: 0, refused: false }
    }

    pub(crate) fn limit(&self) -> usize {
        self.memory.limit()
    }

    fn grow(&mut self, bytes: usize) -> bool {
        let taken = self.memory.take(bytes);
        self.last = if taken { bytes } else { 0 };
        self.held += self.last;
        self.refused |= !taken;
        taken
    }

    /// Growth that was let through failed after all.
    fn undo(&mut self) {
        self.memory.used.fetch_sub(self.last, Ordering::Relaxed);
        self.held -= self.last;
        self.last = 0;
    }
}

impl ResourceLimiter for Share {
    fn memory_growing(&mut self, now: usize, then: usize, _: Option<usize>) -> wasmtime::Result<bool> {
        Ok(self.grow(then.saturating_sub(now)))
    }

    fn memory_grow_failed(&mut self, _: wasmtime::Error) -> wasmtime::Result<()> {
        self.undo();
        Ok(())
    }

    fn table_growing(&mut self, now: usize, then: usize, _: Option<usize>) -> wasmtime::Result<bool> {
        Ok(self.grow(then.saturating_sub(now) * size_of::<usize>()))
    }

    fn table_grow_failed(&mut self, _: wasmtime::Error) -> wasmtime::Result<()> {
        self.undo();
        Ok(())
    }
}

impl Drop for Share {
    fn drop(&mut self) {
        self.memory.used.fetch_sub(self.held, Ordering::Relaxed);
        self.memory.instances.fetch_sub(1, Ordering::Relaxed);
    }
}

/// Starts the clock of an engine while something is loaded.
#[derive(Default)]
pub(crate) struct Clock {
    ticking: Mutex<Weak<Ticking>>,
}

/// Advances the engine's epoch while it lives, on one thread.
pub(crate) struct Ticking {
    over: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Clock {
    pub(crate) fn start(&self, engine: &Engine) -> std::io::Result<Arc<Ticking>> {
        let mut ticking = self.ticking.lock();
        if let Some(ticking) = ticking.upgrade() {
            return Ok(ticking);
        }
        let over = Arc::new(AtomicBool::new(false));
        let (engine, stop) = (engine.clone(), Arc::clone(&over));
        let thread = thread::Builder::new().name("quadriga-wasm-clock".into()).spawn(move || {
            while !stop.load(Ordering::Acquire) {
                thread::park_timeout(TICK);
                engine.increment_epoch();
            }
        })?;
        let started = Arc::new(Ticking { over, thread: Some(thread) });
        *ticking = Arc::downgrade(&started);
        Ok(started)
    }
}

impl Drop for Ticking {
    fn drop(&mut self) {
        self.over.store(true, Ordering::Release);
        if let Some(thread) = self.thread.take() {
            thread.thread().unpark();
            // It has nothing left to do but see the flag.
            let _ = thread.join();
        }
    }
}

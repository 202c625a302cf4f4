//! What ends a guest early: its deadline, its caller, its host, its memory.

use std::sync::atomic::{AtomicBool, AtomicU32, AtomicUsize, Ordering};
use std::sync::{Arc, Weak};
use std::thread::{self, JoinHandle};
use std::time::Instant;

use parking_lot::Mutex;
use quadriga_core::{Bridge, CallContext};
use tokio::runtime::Handle;
use tokio::sync::Notify;
use wasmtime::{Engine, ResourceLimiter};

use crate::config::TICK;

/// Why a call must end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Stop {
    Deadline,
    Cancelled,
    Unloaded,
}

impl std::fmt::Display for Stop {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Deadline => "the call took longer than it was given",
            Self::Cancelled => "the caller gave up",
            Self::Unloaded => "the extension was unloaded",
        })
    }
}

impl std::error::Error for Stop {}

/// What one call can ask to learn whether it should go on. Each store has its own, so that one
/// call's end is no other call's.
#[derive(Clone)]
pub(crate) struct Watch {
    pub(crate) hub: Arc<Hub>,
    pub(crate) context: CallContext,
}

/// What the calls of one extension share.
pub(crate) struct Hub {
    pub(crate) bridge: Bridge,
    /// For the timers of WASI, whatever thread polls.
    pub(crate) executor: Handle,
    unloaded: AtomicBool,
    look: Notify,
}

impl Watch {
    /// Whether the call must end now.
    pub(crate) fn stop(&self) -> Option<Stop> {
        if self.context.deadline.is_some_and(|deadline| deadline <= Instant::now()) {
            Some(Stop::Deadline)
        } else if self.hub.unloaded() {
            Some(Stop::Unloaded)
        } else if self.hub.bridge.cancelled(&self.context) {
            Some(Stop::Cancelled)
        } else {
            None
        }
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
        Self { bridge, executor, unloaded: AtomicBool::new(false), look: Notify::new() }
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

/// The memory of all instances of one extension together.
pub(crate) struct Memory {
    used: AtomicUsize,
    limit: usize,
    pub(crate) instances: AtomicU32,
}

impl Memory {
    pub(crate) fn new(limit: Option<u64>) -> Arc<Self> {
        let limit = limit.map_or(usize::MAX, |limit| usize::try_from(limit).unwrap_or(usize::MAX));
        Arc::new(Self { used: AtomicUsize::new(0), limit, instances: AtomicU32::new(0) })
    }

    pub(crate) fn used(&self) -> usize {
        self.used.load(Ordering::Relaxed)
    }

    fn take(&self, bytes: usize) -> bool {
        self.used
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, |used| {
                used.checked_add(bytes).filter(|sum| *sum <= self.limit)
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
        self.memory.limit
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

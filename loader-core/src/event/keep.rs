//! What is kept for one subscription that wants each event at least once: a picture of what its store has.

use std::collections::{BTreeMap, HashSet};
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, Weak};
use std::time::{Instant, SystemTime, UNIX_EPOCH};

use quadriga_abi::manifest::Retry;
use quadriga_abi::{Error, ExtensionId};
use tokio::sync::Notify;

use super::{EventQuota, EventStore, KeptEvent, Written};
use crate::dispatcher::lock;
use crate::ward::Ward;

/// What an event takes beside its data, about.
const ENTRY: u64 = 256;

/// One for each pattern and method of an extension, as long as that is loaded: it outlasts generations, and a
/// subscription that is declared anew goes on with it.
pub(crate) struct Keep {
    pub(crate) ward: Weak<Ward>,
    pub(crate) pattern: Arc<str>,
    pub(crate) method: Arc<str>,
    pub(crate) store: Arc<dyn EventStore>,
    /// Something has changed.
    pub(crate) bell: Notify,
    pub(crate) delivered: AtomicU64,
    /// Attempts that failed.
    pub(crate) failed: AtomicU64,
    inner: Mutex<Inner>,
}

struct Inner {
    retry: Retry,
    /// Those that are to be delivered, in the order in which they were emitted.
    waiting: BTreeMap<String, Waiting>,
    /// Dead letters, with their sizes. They take up room, so that none is lost.
    dead: BTreeMap<String, u64>,
    /// Bytes of both.
    bytes: u64,
    /// Whether what the store had at first is in here.
    loaded: bool,
    /// Whether the extension is subscribed at present.
    active: bool,
    closed: bool,
}

struct Waiting {
    event: KeptEvent,
    /// Whether the store has it.
    written: bool,
    /// When the next attempt comes, after a failed one.
    due: Option<Instant>,
}

/// What to do next.
pub(crate) enum Pick {
    Deliver(KeptEvent),
    /// Until something changes, or a moment comes.
    Wait(Option<Instant>),
    End,
}

/// There is no room.
pub(crate) struct Full;

impl Keep {
    pub(crate) fn new(
        ward: &Arc<Ward>,
        pattern: Arc<str>,
        method: Arc<str>,
        retry: Retry,
        store: Arc<dyn EventStore>,
    ) -> Arc<Self> {
        let inner = Mutex::new(Inner {
            retry,
            waiting: BTreeMap::new(),
            dead: BTreeMap::new(),
            bytes: 0,
            loaded: false,
            active: true,
            closed: false,
        });
        let (ward, bell) = (Arc::downgrade(ward), Notify::new());
        let (delivered, failed) = Default::default();
        Arc::new(Self { ward, pattern, method, store, bell, delivered, failed, inner })
    }

    pub(crate) fn is_for(&self, pattern: &str, method: &str) -> bool {
        &*self.pattern == pattern && &*self.method == method
    }

    /// Goes on for a subscription that says this.
    pub(crate) fn resume(&self, retry: Retry) {
        let mut inner = lock(&self.inner);
        (inner.retry, inner.active) = (retry, true);
        drop(inner);
        self.bell.notify_one();
    }

    /// Delivers nothing until the extension subscribes again.
    pub(crate) fn rest(&self) {
        lock(&self.inner).active = false;
    }

    /// Ends with the extension. What is kept stays with the store.
    pub(crate) fn close(&self) {
        lock(&self.inner).closed = true;
        self.bell.notify_one();
    }

    /// Takes room for an event that is about to be written, and gives it its id.
    pub(crate) fn reserve(&self, mut event: KeptEvent, quota: &EventQuota) -> Result<KeptEvent, Full> {
        let mut inner = lock(&self.inner);
        let size = size(&event);
        let count = inner.waiting.len() + inner.dead.len();
        // One that is alone may have its envelope over the quota.
        let over = inner.bytes + size > quota.kept_bytes && count > 0;
        if over || count >= quota.kept.max(1) {
            return Err(Full);
        }
        // With the lock held, so that ids are in the order of this queue.
        event.id = next_id();
        inner.bytes += size;
        let waiting = Waiting { event: event.clone(), written: false, due: None };
        inner.waiting.insert(event.id.clone(), waiting);
        Ok(event)
    }

    /// Says whether the store has it now. What it has not is forgotten.
    pub(crate) fn written(&self, id: &str, is_kept: bool) {
        let mut inner = lock(&self.inner);
        match is_kept {
            true => inner.waiting.get_mut(id).into_iter().for_each(|it| it.written = true),
            false => inner.forget(id),
        }
        drop(inner);
        self.bell.notify_one();
    }

    /// Takes over what the store had when this began.
    pub(crate) fn load(&self, events: Vec<KeptEvent>) {
        let mut inner = lock(&self.inner);
        for event in events.into_iter().filter(|it| it.pattern == *self.pattern && it.method == *self.method)
        {
            if !inner.waiting.contains_key(&event.id) {
                inner.take_in(event);
            }
        }
        inner.loaded = true;
    }

    /// The next event. One that waits for its next attempt holds up those of the same emitter, and no other.
    pub(crate) fn pick(&self, now: Instant) -> Pick {
        let inner = lock(&self.inner);
        if inner.closed {
            return Pick::End;
        }
        if !inner.loaded || !inner.active {
            return Pick::Wait(None);
        }
        let mut held: HashSet<Option<&ExtensionId>> = HashSet::new();
        let mut next: Option<Instant> = None;
        for waiting in inner.waiting.values() {
            let source = waiting.event.source.as_ref();
            if held.contains(&source) {
                continue;
            }
            match waiting.due.filter(|due| *due > now) {
                None if waiting.written => return Pick::Deliver(waiting.event.clone()),
                None => {}
                due => next = [next, due].into_iter().flatten().min(),
            }
            held.insert(source);
        }
        Pick::Wait(next)
    }

    /// The method has taken it.
    pub(crate) fn taken(&self, id: &str) {
        self.delivered.fetch_add(1, Relaxed);
        lock(&self.inner).forget(id);
    }

    /// The method has failed at it: asks the store to keep it as it is by now, before anybody can see it here, and
    /// gives it. `finally`, there is no further attempt, however many there were.
    pub(crate) fn failed(&self, id: &str, error: Error, finally: bool) -> Option<(KeptEvent, Written)> {
        self.failed.fetch_add(1, Relaxed);
        let mut inner = lock(&self.inner);
        let retry = inner.retry;
        let waiting = inner.waiting.get_mut(id)?;
        let event = &mut waiting.event;
        event.attempts += 1;
        event.error = Some(error);
        let delay = retry.delay(event.attempts);
        waiting.due = Some(Instant::now() + delay.mul_f64(0.5 + fastrand::f64() / 2.0));
        if !finally && event.attempts < retry.attempts {
            let event = event.clone();
            return Some((event.clone(), self.store.update(event)));
        }
        let Waiting { mut event, .. } = inner.waiting.remove(id)?;
        event.dead = Some(SystemTime::now());
        inner.dead.insert(event.id.clone(), size(&event));
        Some((event.clone(), self.store.update(event)))
    }

    /// A dead letter is to be delivered after all.
    pub(crate) fn revive(&self, event: KeptEvent) {
        let mut inner = lock(&self.inner);
        if inner.dead.contains_key(&event.id) {
            inner.forget(&event.id);
            inner.take_in(event);
        }
        drop(inner);
        self.bell.notify_one();
    }

    /// It is kept no longer.
    pub(crate) fn forget(&self, id: &str) {
        lock(&self.inner).forget(id);
    }

    /// All that waits, when the extension wants no more of it.
    pub(crate) fn waiting(&self) -> Vec<String> {
        lock(&self.inner).waiting.keys().cloned().collect()
    }

    /// How many wait, and how many are dead letters.
    pub(crate) fn counts(&self) -> (usize, usize) {
        let inner = lock(&self.inner);
        (inner.waiting.len(), inner.dead.len())
    }
}

impl Inner {
    fn take_in(&mut self, event: KeptEvent) {
        let (id, size) = (event.id.clone(), size(&event));
        self.bytes += size;
        match event.dead {
            Some(_) => drop(self.dead.insert(id, size)),
            None => drop(self.waiting.insert(id, Waiting { event, written: true, due: None })),
        }
    }

    fn forget(&mut self, id: &str) {
        let waiting = self.waiting.remove(id).map(|it| size(&it.event));
        self.bytes -= waiting.or_else(|| self.dead.remove(id)).unwrap_or(0);
    }
}

fn size(event: &KeptEvent) -> u64 {
    event.data.len() as u64 + ENTRY
}

/// Microseconds since 1970, later than those of the one before, and as many random bits: ids of another
/// process of the same store are others.
fn next_id() -> String {
    static LAST: AtomicU64 = AtomicU64::new(0);
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_micros();
    let now = u64::try_from(now).unwrap_or(u64::MAX);
    let before = LAST.fetch_update(Relaxed, Relaxed, |last| Some(now.max(last.saturating_add(1))));
    let micros = before.map_or(now, |last| now.max(last.saturating_add(1)));
    format!("{micros:016x}{:016x}", fastrand::u64(..))
}

//! Events: who emits on a topic does not know who listens. Each subscription has a queue of its own,
//! so that no subscriber holds up another or the one who emits.
//!
//! An event reaches a subscription at most once, unless that wants it at least once: then it is kept in a
//! store first (`keep`, `again`). Those of one emitter reach it in the order in which they were emitted, and
//! the handler gets one at a time.

mod again;
mod deliver;
mod keep;
mod letters;
mod listen;
mod queue;
mod store;
mod topics;

use std::sync::{Arc, Weak};

use arc_swap::ArcSwap;
pub(crate) use keep::Keep;
pub use letters::{DeadLetter, Letters};
#[cfg(feature = "home")]
pub(crate) use letters::{drop_all, find, retry};
pub use listen::{Events, SubscriptionStatus};
use quadriga_abi::limits::ByteSize;
use quadriga_abi::manifest::{self, Retry};
use quadriga_abi::permission::{is_topic, is_topic_pattern};
use quadriga_abi::{Bytes, Emitted, Error, ErrorCode, ExtensionId, Overflow, TraceContext, codec, msgpack};
use queue::{Pushed, Queue};
use serde::Serialize;
pub(crate) use store::MemoryEvents;
pub use store::{EventStore, KeptEvent};
use topics::Topics;

use crate::BoxFuture;
use crate::dispatcher::{Core, lock};
use crate::route::Slot;
use crate::state::is_reserved;
use crate::ward::Ward;

/// How much may wait for each subscriber, and for how long.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct EventQuota {
    /// Events in the queue of one subscription.
    pub events: usize,
    /// Bytes in the queue of one subscription, as MessagePack; no event is larger.
    pub bytes: u64,
    /// Subscriptions that one extension may make while it runs, beside those of its manifest.
    pub subscriptions: usize,
    /// How long a handler may take for one event, unless its own limits give it less.
    pub handler_timeout: std::time::Duration,
    /// Events that are kept for one subscription that wants them at least once, dead letters among them.
    pub kept: usize,
    /// Bytes of those, with 256 for each.
    pub kept_bytes: u64,
    /// Whether they may be kept in memory where there is no store: then they are lost with the host.
    /// Otherwise an extension that wants such a subscription is not loaded there.
    pub in_memory: bool,
}

impl Default for EventQuota {
    fn default() -> Self {
        let handler_timeout = std::time::Duration::from_secs(10);
        Self {
            events: 1024,
            bytes: 1 << 20,
            subscriptions: 64,
            handler_timeout,
            kept: 10_000,
            kept_bytes: 16 << 20,
            in_memory: false,
        }
    }
}

/// An event as it was emitted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Event {
    /// What it is about.
    pub topic: Arc<str>,
    /// Who emitted it; `None` for the host. Nobody can emit in the name of another.
    pub source: Option<ExtensionId>,
    /// What it says: one MessagePack value.
    pub data: Bytes,
}

/// An event on its way.
pub(crate) struct Sent {
    event: Event,
    /// What a handler gets: a list of one map with `topic`, `source` and `data`.
    arguments: Bytes,
    /// How many extensions stand above: events that lead to events end somewhere.
    depth: u16,
    trace: Option<TraceContext>,
    /// Whether it is kept until the handler has taken it.
    is_kept: bool,
}

/// One who listens to one topic, or to all that begin alike.
pub(crate) struct Subscription {
    pattern: Arc<str>,
    overflow: Overflow,
    to: Listener,
    queue: Queue,
    /// Where its events are kept, if it wants each at least once. Its queue has none then.
    keep: Option<(Arc<Keep>, Retry)>,
}

enum Listener {
    Extension {
        ward: Weak<Ward>,
        method: Arc<str>,
        /// Whether it stands in the manifest.
        declared: bool,
    },
    Host(tokio::sync::Notify),
}

/// Says that a store has an event, or why not.
pub(crate) type Written = BoxFuture<'static, Result<(), Error>>;

/// All subscriptions. Readers never wait.
#[derive(Default)]
pub(crate) struct Bus(ArcSwap<Topics>);

impl Sent {
    /// Encodes an event once, for all who get it.
    fn new(
        topic: &str,
        source: Option<ExtensionId>,
        data: &[u8],
        depth: u16,
        trace: Option<TraceContext>,
    ) -> Result<Self, Error> {
        Self::with(topic, source, data, depth, trace, None)
    }

    /// The same for one that is kept, with its id and the number of this attempt.
    fn again(event: &KeptEvent) -> Result<Self, Error> {
        let attempt = Some((event.id.as_str(), event.attempts + 1));
        Self::with(&event.topic, event.source.clone(), &event.data, event.depth, None, attempt)
    }

    fn with(
        topic: &str,
        source: Option<ExtensionId>,
        data: &[u8],
        depth: u16,
        trace: Option<TraceContext>,
        attempt: Option<(&str, u32)>,
    ) -> Result<Self, Error> {
        let failed = |error: codec::EncodeError| Error::new(ErrorCode::Internal, error.to_string());
        let mut bytes = Vec::with_capacity(data.len() + topic.len() + 64);
        // A list of one, which is a map of three or five.
        bytes.extend([0x91, if attempt.is_some() { 0x85 } else { 0x83 }]);
        if let Some((id, number)) = attempt {
            codec::append(&mut bytes, &"id").map_err(failed)?;
            codec::append(&mut bytes, &id).map_err(failed)?;
            codec::append(&mut bytes, &"attempt").map_err(failed)?;
            codec::append(&mut bytes, &number).map_err(failed)?;
        }
        codec::append(&mut bytes, &"topic").map_err(failed)?;
        codec::append(&mut bytes, &topic).map_err(failed)?;
        codec::append(&mut bytes, &"source").map_err(failed)?;
        codec::append(&mut bytes, &source.as_ref().map(ExtensionId::as_str)).map_err(failed)?;
        codec::append(&mut bytes, &"data").map_err(failed)?;
        let begin = bytes.len();
        bytes.extend(data);
        let arguments = Bytes::from(bytes);
        let event = Event { topic: Arc::from(topic), source, data: arguments.slice(begin..) };
        Ok(Self { event, arguments, depth, trace, is_kept: attempt.is_some() })
    }
}

impl Bus {
    /// Adds subscriptions, and takes away those that are not to stay.
    fn change(&self, add: &[Arc<Subscription>], stays: impl Fn(&Subscription) -> bool) {
        let before = self.0.rcu(|topics| {
            let mut topics = Topics::clone(topics);
            topics.keep(|subscription| subscription.is_alive() && stays(subscription));
            add.iter().for_each(|subscription| topics.insert(Arc::clone(subscription)));
            topics
        });
        let gone = before.all().filter(|subscription| !stays(subscription));
        gone.for_each(|subscription| subscription.queue.close());
    }

    /// Ends the subscriptions of an extension that is unloaded. What is kept for them stays kept.
    pub(crate) fn forget(&self, ward: &Arc<Ward>) {
        lock(&ward.keeps).drain(..).for_each(|keep| keep.close());
        if self.0.load().all().any(|subscription| subscription.is_of(ward)) {
            self.change(&[], |subscription| !subscription.is_of(ward));
        }
    }

    /// Takes back what an extension subscribed to, and says whether there was anything. What is kept for it
    /// and was not delivered is gone, but for dead letters.
    pub(crate) fn unsubscribe(&self, ward: &Arc<Ward>, pattern: &str, method: &str) -> bool {
        let same = |it: &Subscription| it.is_made(ward) && it.is(pattern, method);
        let there = self.0.load().all().any(|it| same(it));
        if there {
            self.change(&[], |it| !same(it));
            let also =
                self.0.load().all().any(|it| it.is_of(ward) && it.is(pattern, method) && it.keep.is_some());
            let mut keeps = lock(&ward.keeps);
            let place = keeps.iter().position(|keep| !also && keep.is_for(pattern, method));
            if let Some(keep) = place.map(|place| keeps.swap_remove(place)) {
                keep.close();
                // Whoever asks has nothing to wait for.
                drop(keep.store.remove(keep.waiting()));
            }
        }
        there
    }
}

impl Core {
    /// Puts what the manifest of a generation says in the place of what an earlier one said. What both
    /// say stays, with what waits there.
    pub(crate) fn declare(self: &Arc<Self>, slot: &Slot) {
        let ward = &slot.reach.ward;
        let manifest = slot.source.as_ref().map(|source| &source.manifest.events);
        // The manifest was checked.
        let retry = |now: &manifest::Subscription| now.retry().ok().flatten();
        let says = |it: &Subscription| {
            let declared = manifest.and_then(|events| events.get(&*it.pattern));
            declared.is_some_and(|now| {
                it.is(&it.pattern, &now.method) && it.overflow == now.overflow && it.retry() == retry(now)
            })
        };
        let is_declared = |it: &Subscription| it.is_of(ward) && !it.is_made(ward);
        let topics = self.bus.0.load();
        let there: Vec<_> = topics.all().filter(|it| is_declared(it)).collect();
        let new = manifest
            .into_iter()
            .flatten()
            .filter(|(pattern, _)| !there.iter().any(|it| *it.pattern == ***pattern && says(it)));
        let add: Vec<_> = new
            .map(|(pattern, now)| {
                let keep = self.keep(ward, pattern, &now.method, retry(now));
                let (ward, method) = (Arc::downgrade(ward), Arc::from(now.method.as_str()));
                let to = Listener::Extension { ward, method, declared: true };
                Subscription::new(pattern, now.overflow, to, keep)
            })
            .collect();
        if !add.is_empty() || !there.iter().all(|it| says(it)) {
            self.bus.change(&add, |it| !is_declared(it) || says(it));
            self.rest_of(ward);
        }
    }

    /// Has what nobody is subscribed to any more wait until somebody is again.
    fn rest_of(&self, ward: &Arc<Ward>) {
        let topics = self.bus.0.load();
        let is_heard = |keep: &Arc<Keep>| {
            topics.all().any(|it| it.keep.as_ref().is_some_and(|(other, _)| Arc::ptr_eq(other, keep)))
        };
        lock(&ward.keeps).iter().filter(|keep| !is_heard(keep)).for_each(|keep| keep.rest());
    }

    /// Subscribes an extension, or changes what it said of that before.
    pub(crate) fn subscribe(
        self: &Arc<Self>,
        ward: &Arc<Ward>,
        pattern: &str,
        wanted: &manifest::Subscription,
    ) -> Result<(), Error> {
        let method = wanted.method.as_str();
        if is_reserved(method) {
            let message = format!("{} keeps {method} for its host", ward.id);
            return Err(Error::new(ErrorCode::InvalidArguments, message));
        }
        let wrong = |(key, why)| Error::new(ErrorCode::InvalidArguments, format!("{key}: {why}"));
        let (overflow, retry) = (wanted.overflow, wanted.retry().map_err(wrong)?);
        self.can_keep(&ward.id, retry)?;
        let same = |it: &Subscription| it.is_made(ward) && it.is(pattern, method);
        let topics = self.bus.0.load();
        if topics.all().any(|it| same(it) && it.overflow == overflow && it.retry() == retry) {
            return Ok(());
        }
        let others = |it: &&Arc<Subscription>| it.is_made(ward) && !same(it);
        let most = self.policy.events.subscriptions;
        if topics.all().filter(others).count() >= most {
            let message = format!("{} may make {most} subscriptions", ward.id);
            let hint = "unsubscribe from some, or subscribe to several topics at once with a *";
            return Err(Error::new(ErrorCode::QuotaExceeded, message).with_hint(hint));
        }
        let keep = self.keep(ward, pattern, method, retry);
        let (method, declared) = (Arc::from(method), false);
        let to = Listener::Extension { ward: Arc::downgrade(ward), method, declared };
        self.bus.change(&[Subscription::new(pattern, overflow, to, keep)], |it| !same(it));
        self.rest_of(ward);
        Ok(())
    }
}

impl Drop for Bus {
    fn drop(&mut self) {
        self.0.load().all().for_each(|subscription| subscription.close());
    }
}

impl Subscription {
    fn new(pattern: &str, overflow: Overflow, to: Listener, keep: Option<(Arc<Keep>, Retry)>) -> Arc<Self> {
        Arc::new(Self { pattern: Arc::from(pattern), overflow, to, queue: Queue::default(), keep })
    }

    /// How its events are handed over again, if they are.
    fn retry(&self) -> Option<Retry> {
        self.keep.as_ref().map(|(_, retry)| *retry)
    }

    /// Its method; none for the host's own.
    fn method(&self) -> &str {
        match &self.to {
            Listener::Extension { method, .. } => method,
            Listener::Host(_) => "",
        }
    }

    fn is(&self, pattern: &str, its_method: &str) -> bool {
        let to = matches!(&self.to, Listener::Extension { method, .. } if &**method == its_method);
        to && &*self.pattern == pattern
    }

    fn is_of(&self, whose: &Arc<Ward>) -> bool {
        matches!(&self.to, Listener::Extension { ward, .. } if std::ptr::eq(ward.as_ptr(), Arc::as_ptr(whose)))
    }

    /// Whether an extension made it while it ran.
    fn is_made(&self, whose: &Arc<Ward>) -> bool {
        matches!(self.to, Listener::Extension { declared: false, .. }) && self.is_of(whose)
    }

    fn is_alive(&self) -> bool {
        match &self.to {
            Listener::Extension { ward, .. } => ward.strong_count() > 0,
            Listener::Host(_) => true,
        }
    }

    fn close(&self) {
        self.queue.close();
        if let Listener::Host(notify) = &self.to {
            notify.notify_one();
        }
    }
}

impl Core {
    /// Puts an event into the queues of all who listen. Where some want it at least once, it is emitted once
    /// the store has it, which the future says.
    pub(crate) fn emit(
        self: &Arc<Self>,
        source: Option<ExtensionId>,
        topic: &str,
        data: &[u8],
        depth: u16,
        trace: Option<TraceContext>,
    ) -> Result<(Emitted, Option<Written>), Error> {
        let quota = &self.policy.events;
        if data.len() as u64 > quota.bytes {
            let [size, most] = [data.len() as u64, quota.bytes].map(ByteSize);
            let message = format!("the event on {topic} takes {size}, more than {most}");
            return Err(Error::new(ErrorCode::MessageTooLarge, message));
        }
        let topics = self.bus.0.load();
        let mut emitted = Emitted::default();
        if topics.listeners(topic).next().is_none() {
            return Ok((emitted, None));
        }
        let sent = Arc::new(Sent::new(topic, source, data, depth, trace)?);
        let keeping = topics.listeners(topic).filter_map(|it| it.keep.as_ref());
        let reserved = self.reserve_room(keeping.map(|(keep, _)| keep), &sent)?;
        emitted.queued = u32::try_from(reserved.len()).unwrap_or(u32::MAX);
        for subscription in topics.listeners(topic).filter(|it| it.keep.is_none()) {
            match subscription.queue.push(&sent, subscription.overflow, quota) {
                Pushed::Dropped => emitted.dropped += 1,
                Pushed::Queued { idle, full } => {
                    emitted.queued += 1;
                    emitted.dropped += u32::from(full);
                    if idle {
                        self.wake(subscription);
                    }
                }
            }
        }
        Ok((emitted, self.write(reserved)))
    }
}

/// Refuses what is no topic.
pub(crate) fn check_topic(topic: &str) -> Result<(), String> {
    let says = "a topic has 1 to 256 bytes, and no *, blanks or control characters";
    if is_topic(topic) { Ok(()) } else { Err(says.to_owned()) }
}

/// Refuses what is neither a topic nor the beginning of some with a `*`.
pub(crate) fn check_pattern(pattern: &str) -> Result<(), String> {
    let says = "it is a topic, the beginning of some and *, or * for all";
    if is_topic_pattern(pattern) { Ok(()) } else { Err(says.to_owned()) }
}

/// Whether bytes are one value and nothing else.
pub(crate) fn is_value(bytes: &[u8]) -> bool {
    let mut reader = msgpack::Reader::new(bytes);
    reader.skip().is_ok() && reader.finish().is_ok()
}

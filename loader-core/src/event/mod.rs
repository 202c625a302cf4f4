//! Events: who emits on a topic does not know who listens. Each subscription has a queue of its own,
//! so that no subscriber holds up another or the one who emits.
//!
//! An event reaches a subscription at most once. Those of one emitter reach it in the order in which
//! they were emitted, and the handler gets one at a time.

mod deliver;
mod listen;
mod queue;
mod topics;

use std::sync::{Arc, Weak};

use arc_swap::ArcSwap;
pub use listen::{Events, SubscriptionStatus};
use quadriga_abi::limits::ByteSize;
use quadriga_abi::permission::{is_topic, is_topic_pattern};
use quadriga_abi::{Bytes, Emitted, Error, ErrorCode, ExtensionId, Overflow, TraceContext, codec, msgpack};
use queue::{Pushed, Queue};
use serde::Serialize;
use topics::Topics;

use crate::dispatcher::Core;
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
}

impl Default for EventQuota {
    fn default() -> Self {
        let handler_timeout = std::time::Duration::from_secs(10);
        Self { events: 1024, bytes: 1 << 20, subscriptions: 64, handler_timeout }
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
}

/// One who listens to one topic, or to all that begin alike.
pub(crate) struct Subscription {
    pattern: Arc<str>,
    overflow: Overflow,
    to: Listener,
    queue: Queue,
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
        let failed = |error: codec::EncodeError| Error::new(ErrorCode::Internal, error.to_string());
        let mut bytes = Vec::with_capacity(data.len() + topic.len() + 64);
        // A list of one, which is a map of three.
        bytes.extend([0x91, 0x83]);
        codec::append(&mut bytes, &"topic").map_err(failed)?;
        codec::append(&mut bytes, &topic).map_err(failed)?;
        codec::append(&mut bytes, &"source").map_err(failed)?;
        codec::append(&mut bytes, &source.as_ref().map(ExtensionId::as_str)).map_err(failed)?;
        codec::append(&mut bytes, &"data").map_err(failed)?;
        let begin = bytes.len();
        bytes.extend(data);
        let arguments = Bytes::from(bytes);
        let event = Event { topic: Arc::from(topic), source, data: arguments.slice(begin..) };
        Ok(Self { event, arguments, depth, trace })
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

    /// Puts what the manifest of a generation says in the place of what an earlier one said. What both
    /// say stays, with what waits there.
    pub(crate) fn declare(&self, slot: &Slot) {
        let ward = &slot.reach.ward;
        let manifest = slot.source.as_ref().map(|source| &source.manifest.events);
        let says = |it: &Subscription| {
            let declared = manifest.and_then(|events| events.get(&*it.pattern));
            declared.is_some_and(|now| it.is(&it.pattern, &now.method) && it.overflow == now.overflow)
        };
        let is_declared = |it: &Subscription| it.is_of(ward) && !it.is_made(ward);
        let topics = self.0.load();
        let there: Vec<_> = topics.all().filter(|it| is_declared(it)).collect();
        let new = manifest
            .into_iter()
            .flatten()
            .filter(|(pattern, _)| !there.iter().any(|it| *it.pattern == ***pattern && says(it)));
        let add: Vec<_> = new
            .map(|(pattern, now)| {
                let (ward, method) = (Arc::downgrade(ward), Arc::from(now.method.as_str()));
                let to = Listener::Extension { ward, method, declared: true };
                Subscription::new(pattern, now.overflow, to)
            })
            .collect();
        if !add.is_empty() || !there.iter().all(|it| says(it)) {
            self.change(&add, |it| !is_declared(it) || says(it));
        }
    }

    /// Ends the subscriptions of an extension that is unloaded.
    pub(crate) fn forget(&self, ward: &Arc<Ward>) {
        if self.0.load().all().any(|subscription| subscription.is_of(ward)) {
            self.change(&[], |subscription| !subscription.is_of(ward));
        }
    }

    /// Subscribes an extension, or changes what it said of that before.
    pub(crate) fn subscribe(
        &self,
        ward: &Arc<Ward>,
        pattern: &str,
        method: &str,
        overflow: Overflow,
        most: usize,
    ) -> Result<(), Error> {
        if is_reserved(method) {
            let message = format!("{} keeps {method} for its host", ward.id);
            return Err(Error::new(ErrorCode::InvalidArguments, message));
        }
        let same = |it: &Subscription| it.is_made(ward) && it.is(pattern, method);
        if self.0.load().all().any(|it| same(it) && it.overflow == overflow) {
            return Ok(());
        }
        let others = |it: &&Arc<Subscription>| it.is_made(ward) && !same(it);
        if self.0.load().all().filter(others).count() >= most {
            let message = format!("{} may make {most} subscriptions", ward.id);
            let hint = "unsubscribe from some, or subscribe to several topics at once with a *";
            return Err(Error::new(ErrorCode::QuotaExceeded, message).with_hint(hint));
        }
        let (method, declared) = (Arc::from(method), false);
        let to = Listener::Extension { ward: Arc::downgrade(ward), method, declared };
        self.change(&[Subscription::new(pattern, overflow, to)], |it| !same(it));
        Ok(())
    }

    /// Takes back what an extension subscribed to, and says whether there was anything.
    pub(crate) fn unsubscribe(&self, ward: &Arc<Ward>, pattern: &str, method: &str) -> bool {
        let same = |it: &Subscription| it.is_made(ward) && it.is(pattern, method);
        let there = self.0.load().all().any(|it| same(it));
        if there {
            self.change(&[], |it| !same(it));
        }
        there
    }
}

impl Drop for Bus {
    fn drop(&mut self) {
        self.0.load().all().for_each(|subscription| subscription.close());
    }
}

impl Subscription {
    fn new(pattern: &str, overflow: Overflow, to: Listener) -> Arc<Self> {
        Arc::new(Self { pattern: Arc::from(pattern), overflow, to, queue: Queue::default() })
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
    /// Puts an event into the queues of all who listen.
    pub(crate) fn emit(
        self: &Arc<Self>,
        source: Option<ExtensionId>,
        topic: &str,
        data: &[u8],
        depth: u16,
        trace: Option<TraceContext>,
    ) -> Result<Emitted, Error> {
        let quota = &self.policy.events;
        if data.len() as u64 > quota.bytes {
            let [size, most] = [data.len() as u64, quota.bytes].map(ByteSize);
            let message = format!("the event on {topic} takes {size}, more than {most}");
            return Err(Error::new(ErrorCode::MessageTooLarge, message));
        }
        let topics = self.bus.0.load();
        let mut emitted = Emitted::default();
        let mut listeners = topics.listeners(topic).peekable();
        if listeners.peek().is_none() {
            return Ok(emitted);
        }
        let sent = Arc::new(Sent::new(topic, source, data, depth, trace)?);
        for subscription in listeners {
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
        Ok(emitted)
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

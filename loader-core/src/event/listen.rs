//! Events as the host has to do with them.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use quadriga_abi::{Delivery, Emitted, Error, ErrorCode, Overflow};
use serde::Serialize;

use super::{Event, Listener, Subscription, Written, check_pattern, check_topic, is_value};
use crate::Dispatcher;
use crate::dispatcher::Core;

/// What an extension is subscribed to, and what it got.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct SubscriptionStatus {
    /// A topic, or the beginning of some and `*`.
    pub topic: String,
    /// Its method that gets the events.
    pub method: String,
    /// Whether the manifest says so, rather than the extension while it runs.
    pub declared: bool,
    /// What becomes of events that find its queue full.
    pub overflow: Overflow,
    /// How sure it is that each event arrives.
    pub delivery: Delivery,
    /// Events that wait.
    pub queued: usize,
    /// Events that the method took without an error.
    pub delivered: u64,
    /// Events that the method did not take: it failed, took too long, or there was nothing to call. Of those that
    /// are kept, each attempt.
    pub failed: u64,
    /// Events that fell out of the full queue or did not get in.
    pub dropped: u64,
    /// Events that it was not allowed to have, or not from who emitted them.
    pub denied: u64,
    /// Events that are kept and were given up: see [`Dispatcher::dead_letters`].
    pub dead: usize,
}

/// The events on a topic from a moment on, for the host. Dropped, it ends the subscription.
pub struct Events {
    subscription: Arc<Subscription>,
    core: std::sync::Weak<Core>,
}

impl Dispatcher {
    /// Emits an event in the name of the host: `data` is one MessagePack value. It is delivered later,
    /// to each subscription at most once, unless that wants it at least once. Where one does, this waits on
    /// the calling thread until the store has it; [`Dispatcher::emit_later`] does not.
    ///
    /// # Errors
    /// If the topic is none, or the data no single value or larger than
    /// [`EventQuota::bytes`](crate::EventQuota::bytes). `overloaded`, if a subscription that wants it at least
    /// once is full: then nobody gets it. `store_failed`, if it could not be kept: then those may have it that
    /// want it at most once.
    pub fn emit(&self, topic: &str, data: &[u8]) -> Result<Emitted, Error> {
        let (emitted, written) = self.begin_to_emit(topic, data)?;
        written.map_or(Ok(()), crate::block_on)?;
        Ok(emitted)
    }

    /// The same where nothing may wait, such as on an executor. The event is emitted when this returns, so that
    /// several are in the order of the calls, whether or not their futures are polled or dropped. The future
    /// is ready once each store has the event that is to keep it: at once, where no subscription wants it at
    /// least once.
    ///
    /// # Errors
    /// Those of [`Dispatcher::emit`], from the future.
    pub fn emit_later(
        &self,
        topic: &str,
        data: &[u8],
    ) -> impl Future<Output = Result<Emitted, Error>> + Send + use<> {
        let begun = self.begin_to_emit(topic, data);
        async move {
            let (emitted, written) = begun?;
            if let Some(written) = written {
                written.await?;
            }
            Ok(emitted)
        }
    }

    fn begin_to_emit(&self, topic: &str, data: &[u8]) -> Result<(Emitted, Option<Written>), Error> {
        let wrong = |why: String| Error::new(ErrorCode::InvalidArguments, why);
        check_topic(topic).map_err(wrong)?;
        if !is_value(data) {
            return Err(wrong(format!("the data for {topic} is not one MessagePack value")));
        }
        self.core.emit(None, topic, data, 0, None)
    }

    /// Listens to a topic from now on, or to all that begin with what stands before a final `*`. What
    /// finds [`Policy::events`](crate::Policy::events) many waiting pushes out the oldest.
    ///
    /// # Errors
    /// If the topic is none.
    pub fn subscribe(&self, topic: &str) -> Result<Events, Error> {
        check_pattern(topic).map_err(|why| Error::new(ErrorCode::InvalidArguments, why))?;
        let host = Listener::Host(tokio::sync::Notify::new());
        let subscription = Subscription::new(topic, Overflow::DropOldest, host, None);
        self.core.bus.change(&[Arc::clone(&subscription)], |_| true);
        Ok(Events { subscription, core: Arc::downgrade(&self.core) })
    }

    /// What an extension is subscribed to at this moment.
    ///
    /// # Errors
    /// If no such extension is loaded.
    pub fn subscriptions(&self, extension: &str) -> Result<Vec<SubscriptionStatus>, Error> {
        let slot = self.core.route(extension)?;
        let topics = self.core.bus.0.load();
        let its = topics.all().filter(|subscription| subscription.is_of(&slot.reach.ward));
        let mut list: Vec<_> = its.filter_map(|subscription| subscription.status()).collect();
        list.sort_unstable_by(|a, b| (&a.topic, &a.method).cmp(&(&b.topic, &b.method)));
        Ok(list)
    }
}

impl Events {
    /// The next event; `None` once the dispatcher is gone.
    pub async fn next(&mut self) -> Option<Event> {
        let Listener::Host(notify) = &self.subscription.to else { return None };
        loop {
            if let Some(sent) = self.subscription.queue.next() {
                return Some(sent.event.clone());
            }
            if self.subscription.queue.is_closed() {
                return None;
            }
            notify.notified().await;
        }
    }

    /// How many were pushed out before they were read.
    pub fn dropped(&self) -> u64 {
        self.subscription.queue.dropped.load(Relaxed)
    }
}

impl Drop for Events {
    fn drop(&mut self) {
        if let Some(core) = self.core.upgrade() {
            core.bus.change(&[], |other| !std::ptr::eq(other, &*self.subscription));
        }
    }
}

impl std::fmt::Debug for Events {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Events").field("topic", &self.subscription.pattern).finish_non_exhaustive()
    }
}

impl Subscription {
    /// `None` for the host's own.
    fn status(&self) -> Option<SubscriptionStatus> {
        let Listener::Extension { method, declared, .. } = &self.to else { return None };
        let queue = &self.queue;
        let keep = self.keep.as_ref().map(|(keep, _)| keep);
        let (waiting, dead) = keep.map_or((queue.len(), 0), |keep| keep.counts());
        let count = |of: &AtomicU64, kept: Option<&AtomicU64>| kept.unwrap_or(of).load(Relaxed);
        Some(SubscriptionStatus {
            topic: self.pattern.to_string(),
            method: method.to_string(),
            declared: *declared,
            overflow: self.overflow,
            delivery: if keep.is_some() { Delivery::AtLeastOnce } else { Delivery::AtMostOnce },
            queued: waiting,
            delivered: count(&queue.delivered, keep.map(|keep| &keep.delivered)),
            failed: count(&queue.failed, keep.map(|keep| &keep.failed)),
            dropped: queue.dropped.load(Relaxed),
            denied: queue.denied.load(Relaxed),
            dead,
        })
    }
}

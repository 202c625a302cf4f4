//! Where events are kept until their subscribers have taken them.

use std::collections::BTreeMap;
use std::future::ready;
use std::sync::Mutex;
use std::time::SystemTime;

use quadriga_abi::{Bytes, Error, ExtensionId};

use crate::BoxFuture;
use crate::dispatcher::lock;

/// An event that is kept for one subscription.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KeptEvent {
    /// Names it: 32 hexadecimal digits. Of two for one subscription, the one that was emitted later has the
    /// greater one.
    pub id: String,
    /// Who is to get it.
    pub subscriber: ExtensionId,
    /// The topic that the subscription names, or the beginning of several and `*`.
    pub pattern: String,
    /// The method of the subscriber.
    pub method: String,
    /// What it is about.
    pub topic: String,
    /// Who emitted it; `None` for the host.
    pub source: Option<ExtensionId>,
    /// What it says: one MessagePack value.
    pub data: Bytes,
    /// How many extensions stood above whoever emitted it.
    pub depth: u16,
    /// When it was emitted.
    pub emitted: SystemTime,
    /// How often its method has failed at it.
    pub attempts: u32,
    /// What the last of them failed with.
    pub error: Option<Error>,
    /// When it was given up: it is a dead letter.
    pub dead: Option<SystemTime>,
}

/// Keeps the events of subscriptions that want each at least once, so that they outlast the host.
///
/// What is asked of it takes effect in the order in which it is asked, whether or not the future is polled or
/// dropped; the future says when it is kept, or why not. It is asked from many threads, and must not wait on
/// them. How much there may be for each subscription the dispatcher sees to
/// ([`EventQuota::kept`](crate::EventQuota::kept)).
pub trait EventStore: Send + Sync + 'static {
    /// Keeps events: all of them, or none.
    ///
    /// # Errors
    /// `store_failed`.
    fn add(&self, events: Vec<KeptEvent>) -> BoxFuture<'static, Result<(), Error>>;

    /// Keeps what has changed in an event, if that is still there.
    ///
    /// # Errors
    /// `store_failed`.
    fn update(&self, event: KeptEvent) -> BoxFuture<'static, Result<(), Error>>;

    /// Keeps some no longer, by id.
    ///
    /// # Errors
    /// `store_failed`.
    fn remove(&self, ids: Vec<String>) -> BoxFuture<'static, Result<(), Error>>;

    /// All events for one extension or for all of them, by id.
    ///
    /// # Errors
    /// `store_failed`.
    fn list(&self, subscriber: Option<&ExtensionId>) -> BoxFuture<'static, Result<Vec<KeptEvent>, Error>>;
}

/// Keeps events as long as the host lives, and no longer.
#[derive(Debug, Default)]
pub(crate) struct MemoryEvents(Mutex<BTreeMap<String, KeptEvent>>);

impl EventStore for MemoryEvents {
    fn add(&self, events: Vec<KeptEvent>) -> BoxFuture<'static, Result<(), Error>> {
        lock(&self.0).extend(events.into_iter().map(|event| (event.id.clone(), event)));
        Box::pin(ready(Ok(())))
    }

    fn update(&self, event: KeptEvent) -> BoxFuture<'static, Result<(), Error>> {
        if let Some(kept) = lock(&self.0).get_mut(&event.id) {
            *kept = event;
        }
        Box::pin(ready(Ok(())))
    }

    fn remove(&self, ids: Vec<String>) -> BoxFuture<'static, Result<(), Error>> {
        let mut kept = lock(&self.0);
        ids.iter().for_each(|id| drop(kept.remove(id)));
        Box::pin(ready(Ok(())))
    }

    fn list(&self, subscriber: Option<&ExtensionId>) -> BoxFuture<'static, Result<Vec<KeptEvent>, Error>> {
        let kept = lock(&self.0);
        let its = kept.values().filter(|event| subscriber.is_none_or(|id| event.subscriber == *id));
        Box::pin(ready(Ok(its.cloned().collect())))
    }
}

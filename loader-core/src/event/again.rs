//! Events that are delivered at least once: into the store, and from there to the handler until that has
//! taken them.

use std::sync::{Arc, Weak};
use std::time::{Duration, Instant, SystemTime};

use quadriga_abi::manifest::Retry;
use quadriga_abi::{Bytes, Error, ErrorCode, ExtensionId};
use tokio::time::{sleep, timeout, timeout_at};

use super::keep::{Full, Keep, Pick};
use super::{EventStore, KeptEvent, MemoryEvents, Sent, Written};
use crate::Outcome;
use crate::call::{InFlight, Started};
use crate::dispatcher::{Core, lock};
use crate::route::{Slot, State};
use crate::ward::Ward;

/// How long to wait at most before looking again whether an extension takes calls, or a store works.
const AGAIN: Duration = Duration::from_secs(1);

/// The same after it took none though it seemed to.
const SOON: Duration = Duration::from_millis(100);

/// What became of an attempt.
enum Attempt {
    Taken,
    /// It was no attempt: the extension takes no calls at present.
    NotNow,
    Failed(Error),
    /// It may not have it.
    Denied(Error),
}

impl Core {
    /// Where events are kept, if they are.
    pub(crate) fn event_store(&self) -> Option<Arc<dyn EventStore>> {
        let memory = || Arc::new(MemoryEvents::default()) as Arc<dyn EventStore>;
        match self.events.get() {
            None if self.policy.events.in_memory => Some(Arc::clone(self.events.get_or_init(memory))),
            store => store.map(Arc::clone),
        }
    }

    /// Refuses what wants its events kept where nobody keeps any.
    pub(crate) fn can_keep(&self, id: &ExtensionId, retry: Option<Retry>) -> Result<(), Error> {
        if retry.is_none() || self.event_store().is_some() {
            return Ok(());
        }
        let message = format!("{id} wants events at least once, and this host has no store that keeps them");
        let hint = "run it with a home, or give the host one with Builder::event_store";
        Err(Error::new(ErrorCode::Unsupported, message).with_hint(hint))
    }

    /// What is kept for a subscription: as it was, if there was such a one since the extension was loaded.
    pub(crate) fn keep(
        self: &Arc<Self>,
        ward: &Arc<Ward>,
        pattern: &str,
        method: &str,
        retry: Option<Retry>,
    ) -> Option<(Arc<Keep>, Retry)> {
        let (retry, store) = (retry?, self.event_store()?);
        let mut keeps = lock(&ward.keeps);
        if let Some(keep) = keeps.iter().find(|keep| keep.is_for(pattern, method)) {
            keep.resume(retry);
            return Some((Arc::clone(keep), retry));
        }
        let keep = Keep::new(ward, Arc::from(pattern), Arc::from(method), retry, store);
        keeps.push(Arc::clone(&keep));
        self.handle.spawn(deliver(Arc::downgrade(self), Arc::clone(&keep)));
        Some((keep, retry))
    }

    /// Takes room in all that keep an event, before anybody has it.
    pub(super) fn reserve_room<'a>(
        &self,
        keeping: impl Iterator<Item = &'a Arc<Keep>>,
        sent: &Sent,
    ) -> Result<Vec<(Arc<Keep>, KeptEvent)>, Error> {
        let mut reserved: Vec<(Arc<Keep>, KeptEvent)> = Vec::new();
        for keep in keeping {
            // One that is being unloaded hears nothing any more.
            let Some(ward) = keep.ward.upgrade() else { continue };
            let event = KeptEvent {
                id: String::new(),
                subscriber: ward.id.clone(),
                pattern: keep.pattern.to_string(),
                method: keep.method.to_string(),
                topic: sent.event.topic.to_string(),
                source: sent.event.source.clone(),
                // A part of the message would keep the whole of it.
                data: Bytes::copy_from_slice(&sent.event.data),
                depth: sent.depth,
                emitted: SystemTime::now(),
                attempts: 0,
                error: None,
                dead: None,
            };
            match keep.reserve(event, &self.policy.events) {
                Ok(event) => reserved.push((Arc::clone(keep), event)),
                Err(Full) => {
                    reserved.iter().for_each(|(keep, event)| keep.forget(&event.id));
                    // Who that is the emitter need not know.
                    let topic = &sent.event.topic;
                    let message = format!("a subscription to {topic} is full, and drops nothing");
                    let error = Error::new(ErrorCode::Overloaded, message);
                    return Err(error.with_hint("emit it again later; its dead letters take up room too"));
                }
            }
        }
        Ok(reserved)
    }

    /// Writes reserved events, and has them delivered then. Goes on if nobody waits for it.
    pub(super) fn write(&self, reserved: Vec<(Arc<Keep>, KeptEvent)>) -> Option<Written> {
        let store = Arc::clone(&reserved.first()?.0.store);
        let (keeps, events): (Vec<_>, Vec<_>) = reserved.into_iter().unzip();
        let ids: Vec<String> = events.iter().map(|event| event.id.clone()).collect();
        let writing = store.add(events);
        let task = self.handle.spawn(async move {
            let result = writing.await;
            keeps.iter().zip(&ids).for_each(|(keep, id)| keep.written(id, result.is_ok()));
            result
        });
        Some(Box::pin(async move {
            let ended = |_| Err(Error::new(ErrorCode::ExtensionStopped, "the host is shutting down"));
            tokio::task::unconstrained(task).await.unwrap_or_else(ended)
        }))
    }

    /// The generation of an extension that takes calls at this moment.
    fn ready(&self, ward: &Arc<Ward>) -> Option<Arc<Slot>> {
        let slot = self.routes.load().get(&ward.id).cloned()?;
        let takes = matches!(slot.state(), State::Running | State::Throttled);
        (takes && Arc::ptr_eq(&slot.reach.ward, ward)).then_some(slot)
    }

    /// Hands an event over once.
    async fn attempt(self: &Arc<Self>, keep: &Arc<Keep>, slot: Arc<Slot>, event: &KeptEvent) -> Attempt {
        let sent = match Sent::again(event) {
            Ok(sent) => sent,
            Err(error) => return Attempt::Failed(error),
        };
        if !slot.instance.blocks() {
            return match self.admit_event(slot, &keep.method, &sent) {
                Ok(admitted) => {
                    let slot = Arc::clone(&admitted.ticket.slot);
                    came(Outcome::from(admitted.run()).result().await, &slot)
                }
                Err(error) => refused(error),
            };
        }
        let Ok(permit) = Arc::clone(&self.detached).acquire_owned().await else { return Attempt::NotNow };
        let (core, keep) = (Arc::clone(self), Arc::clone(keep));
        let turn = self.handle.spawn_blocking(move || {
            let _permit = permit;
            match core.admit_event(slot, &keep.method, &sent) {
                Ok(admitted) => {
                    let slot = Arc::clone(&admitted.ticket.slot);
                    let result = match admitted.run() {
                        Started::Ready(result) => result,
                        Started::InFlight(call) => crate::block_on::<InFlight>(call),
                    };
                    came(result, &slot)
                }
                Err(error) => refused(error),
            }
        });
        let panicked = |_| Attempt::Failed(Error::new(ErrorCode::Internal, "the attempt panicked"));
        turn.await.unwrap_or_else(panicked)
    }

    /// Sees to what became of an attempt. Whether the store has that already makes no difference: if the
    /// host ends before, the event comes again.
    fn settle(&self, keep: &Keep, event: &KeptEvent, error: Option<(Error, bool)>) {
        let asked = match error {
            None => {
                let asked = keep.store.remove(vec![event.id.clone()]);
                keep.taken(&event.id);
                asked
            }
            Some((error, finally)) => {
                let Some((now, asked)) = keep.failed(&event.id, error.clone(), finally) else { return };
                let (extension, topic, attempts) = (event.subscriber.as_str(), &event.topic, now.attempts);
                match now.dead {
                    Some(_) => {
                        tracing::warn!(extension, topic, attempts, id = event.id, %error, "a dead letter");
                        self.alert_of_letter(&now);
                    }
                    None => tracing::debug!(extension, topic, attempts, %error, "an event was not taken yet"),
                }
                asked
            }
        };
        let id = event.id.clone();
        self.handle.spawn(async move {
            if let Err(error) = asked.await {
                tracing::warn!(event = id, %error, "what became of an event is not kept");
            }
        });
    }
}

/// Delivers what is kept, one after the other, as long as the extension is loaded.
async fn deliver(core: Weak<Core>, keep: Arc<Keep>) {
    load(&keep).await;
    loop {
        let Some(ward) = keep.ward.upgrade() else { return };
        match keep.pick(Instant::now()) {
            Pick::End => return,
            Pick::Wait(until) => {
                drop(ward);
                let changed = keep.bell.notified();
                match until {
                    Some(until) => drop(timeout_at(until.into(), changed).await),
                    None => changed.await,
                }
            }
            Pick::Deliver(event) => {
                let Some(core) = core.upgrade() else { return };
                let mut changes = ward.standing.changes();
                let Some(slot) = core.ready(&ward) else {
                    drop((core, ward));
                    let _ = timeout(AGAIN, changes.changed()).await;
                    continue;
                };
                match core.attempt(&keep, slot, &event).await {
                    Attempt::Taken => core.settle(&keep, &event, None),
                    Attempt::Failed(error) => core.settle(&keep, &event, Some((error, false))),
                    Attempt::Denied(error) => core.settle(&keep, &event, Some((error, true))),
                    Attempt::NotNow => {
                        drop((core, ward));
                        sleep(SOON).await;
                    }
                }
            }
        }
    }
}

/// Reads what is kept from before.
async fn load(keep: &Keep) {
    loop {
        let Some(id) = keep.ward.upgrade().map(|ward| ward.id.clone()) else { return };
        match keep.store.list(Some(&id)).await {
            Ok(events) => return keep.load(events),
            Err(error) => tracing::warn!(extension = id.as_str(), %error, "its events cannot be read"),
        }
        sleep(AGAIN).await;
    }
}

fn came(result: Result<Bytes, Error>, slot: &Slot) -> Attempt {
    let stopped = |error: &Error| matches!(error.code, ErrorCode::ExtensionStopped | ErrorCode::Cancelled);
    match result {
        Ok(_) => Attempt::Taken,
        // Its host ended it meanwhile: that is not for the handler to answer for.
        Err(error) if stopped(&error) && slot.state() == State::Draining => Attempt::NotNow,
        Err(error) => Attempt::Failed(error),
    }
}

/// Why a call was not let in.
fn refused(error: Error) -> Attempt {
    match error.code {
        ErrorCode::PermissionDenied => Attempt::Denied(error),
        ErrorCode::ExtensionPaused
        | ErrorCode::ExtensionQuarantined
        | ErrorCode::ExtensionStopped
        | ErrorCode::ExtensionCrashed
        | ErrorCode::Overloaded
        | ErrorCode::UnknownExtension => Attempt::NotNow,
        _ => Attempt::Failed(error),
    }
}

//! From a queue to the handler.

use std::sync::atomic::Ordering::Relaxed;
use std::sync::{Arc, Weak};
use std::time::Instant;

use quadriga_abi::permission::Access;
use quadriga_abi::{Error, ErrorCode, Kind};

use super::{Listener, Sent, Subscription};
use crate::call::{Admitted, InFlight, Started};
use crate::dispatcher::Core;
use crate::metrics::Tick;
use crate::route::{Barred, Slot, State};
use crate::ward::Reason;
use crate::{CallOptions, Outcome};

/// How many events one turn on a thread takes, before others get the thread.
const TURN: usize = 64;

impl Core {
    /// Has what is queued delivered, now that there is something.
    pub(crate) fn wake(self: &Arc<Self>, subscription: &Arc<Subscription>) {
        match &subscription.to {
            Listener::Host(notify) => notify.notify_one(),
            Listener::Extension { .. } => {
                let (core, subscription) = (Arc::downgrade(self), Arc::clone(subscription));
                self.handle.spawn(drain(core, subscription));
            }
        }
    }

    /// The present generation of a subscriber, while it is still the one that subscribed.
    fn subscriber(&self, subscription: &Subscription) -> Option<Arc<Slot>> {
        let Listener::Extension { ward, .. } = &subscription.to else { return None };
        let ward = ward.upgrade()?;
        let slot = self.routes.load().get(&ward.id).cloned()?;
        Arc::ptr_eq(&slot.reach.ward, &ward).then_some(slot)
    }

    /// Lets an event through to its handler, or says why not.
    pub(super) fn admit_event(
        self: &Arc<Self>,
        slot: Arc<Slot>,
        method: &str,
        sent: &Sent,
    ) -> Result<Admitted, Error> {
        let topic = &sent.event.topic;
        slot.reach.check(0, &Access::Subscribe(topic))?;
        if let Some(source) = &sent.event.source {
            // An emitter that has been unloaded meanwhile has no record.
            let emitter = self.routes.load().get(source).cloned();
            if self.rules.blocks(source.as_str(), slot.id.as_str()) {
                let access = Access::Emit(topic);
                return Err(match emitter {
                    Some(emitter) => emitter.reach.deny(0, &access, Reason::Rule),
                    None => Error::new(ErrorCode::PermissionDenied, "a rule blocks the pair"),
                });
            }
            if let Some(emitter) = emitter {
                emitter.reach.ward.told(&slot.id, sent.arguments.len());
            }
        }
        let options = CallOptions {
            deadline: Some(Instant::now() + self.policy.events.handler_timeout),
            trace: sent.trace,
            source: sent.event.source.clone(),
            depth: sent.depth,
            ..CallOptions::default()
        };
        let started = Tick::now();
        let (slot, before) = match slot.gate.enter() {
            Some(before) => (slot, before),
            // One that is kept is delivered again, so it can wait for a hand-over: whoever took it now would
            // lose what it made of it.
            None if sent.is_kept => self.enter_past(slot, 0).map_err(|barred| match barred {
                Barred::Refused(error) => error,
                // As from one that takes no more calls: it is tried again, and was no attempt.
                Barred::Switching(slot) | Barred::Asleep(slot) => slot.refusal(State::Draining, None),
            })?,
            None => self.enter_barred(slot)?,
        };
        let arguments = sent.arguments.clone();
        let mut admitted = self.admit_to(slot, before, started, method, arguments, options)?;
        admitted.call.envelope.kind = Kind::Event;
        Ok(admitted)
    }
}

/// Delivers until the queue is empty.
async fn drain(core: Weak<Core>, subscription: Arc<Subscription>) {
    loop {
        let Some(core) = core.upgrade() else { return };
        let Some(slot) = core.subscriber(&subscription) else {
            // Nobody will ever ask for these; what is still being loaded was not there in time.
            while subscription.queue.next().is_some() {
                subscription.queue.dropped.fetch_add(1, Relaxed);
            }
            return;
        };
        if slot.instance.blocks() {
            // What blocks for longer is bounded by its deadline; meanwhile others wait here.
            let Ok(permit) = Arc::clone(&core.detached).acquire_owned().await else { return };
            let (handle, subscription) = (core.handle.clone(), Arc::clone(&subscription));
            let turn = handle.spawn_blocking(move || {
                let _permit = permit;
                take_turn(&core, &subscription)
            });
            match turn.await {
                Ok(true) => {}
                Ok(false) | Err(_) => return,
            }
        } else {
            let Some(sent) = subscription.queue.next() else { return };
            match core.admit_event(slot, subscription.method(), &sent) {
                Ok(admitted) => {
                    let result = Outcome::from(admitted.run()).result().await;
                    subscription.note(result.map(drop), &sent);
                }
                Err(error) => subscription.note(Err(error), &sent),
            }
        }
    }
}

/// Delivers some on this thread, and says whether there may be more.
fn take_turn(core: &Arc<Core>, subscription: &Subscription) -> bool {
    for _ in 0..TURN {
        let Some(sent) = subscription.queue.next() else { return false };
        let Some(slot) = core.subscriber(subscription) else {
            subscription.queue.dropped.fetch_add(1, Relaxed);
            continue;
        };
        let result = core.admit_event(slot, subscription.method(), &sent).and_then(|admitted| {
            match admitted.run() {
                Started::Ready(result) => result,
                Started::InFlight(call) => crate::block_on::<InFlight>(call),
            }
            .map(drop)
        });
        subscription.note(result, &sent);
    }
    true
}

impl Subscription {
    /// Counts what came of an event.
    fn note(&self, result: Result<(), Error>, sent: &Sent) {
        let count = match &result {
            Ok(()) => &self.queue.delivered,
            Err(error) if error.code == ErrorCode::PermissionDenied && error.extension.is_none() => {
                &self.queue.denied
            }
            Err(_) => &self.queue.failed,
        };
        count.fetch_add(1, Relaxed);
        if let Err(error) = result {
            let (topic, pattern) = (&*sent.event.topic, &*self.pattern);
            tracing::debug!(topic, pattern, %error, "an event was not taken");
        }
    }
}

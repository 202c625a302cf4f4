//! Calls again what may be called again, after the instance ended in the course of the call.

use std::sync::Arc;
use std::time::Duration;

use quadriga_abi::{Bytes, Description, Envelope, Error, ErrorCode};
use tokio::time::timeout;

use crate::call::{Admitted, CallOptions};
use crate::dispatcher::Core;
use crate::route::{Slot, Source};
use crate::ward::Link;
use crate::{SpanRef, State};

/// How long after its last call an instance may take to say that it ended.
const NOTICE: Duration = Duration::from_secs(1);

/// What is needed to make a call once more.
pub(crate) struct Spare {
    core: Arc<Core>,
    slot: Arc<Slot>,
    envelope: Envelope,
    parent: SpanRef,
    link: Option<Arc<Link>>,
}

impl Source {
    /// Which methods of a description may be called again; empty if none.
    pub(crate) fn idempotent(&self, description: &Description) -> Box<[bool]> {
        let promises = &self.manifest.contract.methods;
        if !promises.values().any(|promise| promise.idempotent) {
            return Box::default();
        }
        let promised = |name: &str| promises.get(name).is_some_and(|promise| promise.idempotent);
        description.methods.iter().map(|method| promised(&method.name)).collect()
    }
}

impl Admitted {
    /// A copy of the call, if its method may be called again and no stream belongs to it.
    pub(crate) fn spare(&self, core: &Arc<Core>) -> Option<Box<Spare>> {
        let slot = &self.ticket.slot;
        if slot.idempotent.is_empty() || !slot.idempotent[self.call.method] || self.ticket.streams.is_some() {
            return None;
        }
        Some(Box::new(Spare {
            core: Arc::clone(core),
            slot: Arc::clone(slot),
            envelope: self.call.envelope.clone(),
            parent: self.call.span,
            link: self.ticket.link.clone(),
        }))
    }
}

impl Spare {
    /// Passes a result on, or makes the call once more if the instance ended in its course.
    pub(crate) async fn unless(self: Box<Self>, result: Result<Bytes, Error>) -> Result<Bytes, Error> {
        match result {
            Err(error) if error.code == ErrorCode::ExtensionCrashed => {
                // On our own executor: what is waited for has timers, and the host may have none.
                let handle = self.core.handle.clone();
                let lost = |_| Err(Error::new(ErrorCode::Internal, "the second try panicked"));
                handle.spawn(self.again(error)).await.unwrap_or_else(lost)
            }
            result => result,
        }
    }

    async fn again(self: Box<Self>, error: Error) -> Result<Bytes, Error> {
        let Some(target) = self.envelope.target.clone() else { return Err(error) };
        let waiting = self.is_back();
        let is_back = match self.envelope.deadline {
            Some(deadline) => tokio::time::timeout_at(deadline.into(), waiting).await.unwrap_or(false),
            None => waiting.await,
        };
        if !is_back {
            return Err(error);
        }
        let Self { core, envelope, parent, link, .. } = *self;
        let Envelope { source, depth, deadline, trace, payload, .. } = envelope;
        let options = CallOptions { deadline, trace, source, depth, parent, link, ..CallOptions::default() };
        let admitted = core.admit(target.extension.as_str(), &target.method, payload, options)?;
        core.detach(admitted).await
    }

    /// Waits until another generation takes calls; `false` once there will be none.
    async fn is_back(&self) -> bool {
        let standing = &self.slot.reach.ward.standing;
        let mut changes = standing.changes();
        loop {
            changes.mark_unchanged();
            let Ok(current) = self.core.route(self.slot.id.as_str()) else { return false };
            let state = standing.state();
            if current.generation != self.slot.generation {
                return matches!(state, State::Running | State::Throttled);
            }
            match state {
                State::Failed => drop(changes.changed().await),
                // It has not been noticed yet.
                State::Running | State::Throttled => match timeout(NOTICE, changes.changed()).await {
                    Ok(_) => {}
                    Err(_) => return false,
                },
                _ => return false,
            }
        }
    }
}

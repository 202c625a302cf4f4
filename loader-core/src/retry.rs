//! Calls again what may be called again, after the instance ended in the course of the call.

use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use quadriga_abi::{Bytes, Description, Envelope, Error, ErrorCode};
use tokio::time::timeout;

use crate::call::{Admitted, CallOptions};
use crate::dispatcher::Core;
use crate::route::{Slot, Source};
use crate::ward::Link;
use crate::{BoxFuture, Outcome, SpanRef, State};

/// How long after its last call an instance may take to say that it ended.
const NOTICE: Duration = Duration::from_secs(1);

/// What is needed to make a call once more.
struct Spare {
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
    /// Whether it may be made once more: its method says so, and no stream belongs to it.
    pub(crate) fn may_be_repeated(&self) -> bool {
        let repeatable = &self.ticket.slot.idempotent;
        !repeatable.is_empty() && repeatable[self.call.method] && self.ticket.streams.is_none()
    }
}

impl Core {
    /// Makes a call, and once more if the instance ends in its course.
    #[cold]
    pub(crate) fn repeatable(
        self: &Arc<Self>,
        admitted: Admitted,
        detached: bool,
    ) -> BoxFuture<'static, Result<Bytes, Error>> {
        let spare = Spare {
            core: Arc::clone(self),
            slot: Arc::clone(&admitted.ticket.slot),
            envelope: admitted.call.envelope.clone(),
            parent: admitted.call.span,
            link: admitted.ticket.link.clone(),
        };
        let call = match detached {
            true => Outcome::Pending(self.detach(admitted)),
            false => admitted.run().into(),
        };
        match call {
            Outcome::Ready(Ok(reply)) => Box::pin(std::future::ready(Ok(reply))),
            call => Box::pin(async move { spare.unless(call.result().await).await }),
        }
    }
}

impl Spare {
    /// Passes a result on, or makes the call once more if the instance ended in its course.
    async fn unless(self, result: Result<Bytes, Error>) -> Result<Bytes, Error> {
        match result {
            Err(error) if error.code == ErrorCode::ExtensionCrashed => {
                // On our own executor: what is waited for has timers, and the host may have none. It
                // ends if the caller goes away.
                let core = Arc::clone(&self.core);
                core.on_executor(self.again(error)).await
            }
            result => result,
        }
    }

    async fn again(self, error: Error) -> Result<Bytes, Error> {
        let Some(target) = self.envelope.target.clone() else { return Err(error) };
        let waiting = self.is_back();
        let is_back = match self.envelope.deadline {
            Some(deadline) => tokio::time::timeout_at(deadline.into(), waiting).await.unwrap_or(false),
            None => waiting.await,
        };
        if !is_back {
            return Err(error);
        }
        let Self { core, envelope, parent, link, .. } = self;
        let Envelope { source, depth, deadline, trace, payload, .. } = envelope;
        let options = CallOptions { deadline, trace, source, depth, parent, ..CallOptions::default() };
        let sent = payload.len();
        let admitted = core.admit(target.extension.as_str(), &target.method, payload, options)?;
        core.detach(match link {
            Some(link) => admitted.counted(&link, sent),
            None => admitted,
        })
        .await
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
                // The others take it.
                State::Running | State::Throttled if self.slot.weakened.load(Relaxed) => return true,
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

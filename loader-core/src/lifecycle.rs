//! The instance of an extension as operators handle it: it stands still, goes on, ends, and is started
//! again.

use std::sync::Arc;
use std::sync::atomic::Ordering::{Relaxed, SeqCst};
use std::time::Duration;

use quadriga_abi::{Error, ErrorCode};
use serde::Serialize;

use crate::dispatcher::{Core, lock};
use crate::route::Slot;
use crate::ward::Reason;
use crate::{Dispatcher, State, Usage};

/// How long an instance may take to shut down.
const GRACE: Duration = Duration::from_secs(2);

/// How far a paused extension stands still, the least first. In all cases it gets no new calls.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub enum Pause {
    /// Calls in flight go on, and what it does by itself.
    Gate,
    /// Its event loop stands still: timers do not fire, and nothing goes on that waited. Code that
    /// was running goes on until it waits.
    Parked,
    /// Its processes were stopped by a signal.
    Stopped,
    /// Its processes were frozen by the kernel, and get no processor time.
    Frozen,
}

impl Dispatcher {
    /// Ends the instance of an extension, once its calls have finished or had their time, and keeps
    /// the rest: its grant, its limits, its decisions and its place. To [`Dispatcher::start`]. One in
    /// quarantine stays there.
    ///
    /// # Errors
    /// If no such extension is loaded, it is part of the host, or it is being loaded or unloaded at
    /// this moment.
    pub async fn stop(&self, extension: &str) -> Result<(), Error> {
        let (core, extension) = (Arc::clone(&self.core), extension.to_owned());
        self.core.on_executor(async move { core.stop(&extension).await }).await
    }

    /// Starts an extension that was stopped or has ended, as it was loaded: with the manifest of
    /// then. Does nothing to one that runs.
    ///
    /// # Errors
    /// If no such extension is loaded, it is paused or in quarantine, or as for
    /// [`Dispatcher::load`].
    pub async fn start(&self, extension: &str) -> Result<(), Error> {
        let slot = self.core.route(extension)?;
        let (state, reason) = slot.reach.ward.standing.with(|it| (it.state, it.reason.clone()));
        match state {
            State::Running | State::Throttled => Ok(()),
            State::Quarantined | State::Paused => Err(slot.refusal(state, reason.as_deref())),
            _ => self.core.renew_now(extension, false).await,
        }
    }
}

impl Core {
    async fn stop(self: &Arc<Self>, extension: &str) -> Result<(), Error> {
        let slot = self.route(extension)?;
        let _reserved = self.reserve(&slot.id)?;
        let slot = self.route(extension)?;
        if slot.source.is_none() {
            let message = format!("{extension} is part of the host and cannot be stopped");
            return Err(Error::new(ErrorCode::Unsupported, message));
        }
        // From here on its end is nothing that supervision has to see to.
        slot.ended.store(true, SeqCst);
        let reason = "its host stopped it".to_owned();
        if slot.hold(State::Stopped, reason, Reason::Operator, |it| it != State::Quarantined).is_err() {
            slot.reach.ward.log.managed(&slot.id, "be stopped".to_owned(), Reason::Operator);
        }
        slot.go_on(&mut lock(&slot.pause));
        slot.gate.empty(self.policy.drain_timeout).await;
        slot.shut_down().await;
        Ok(())
    }
}

impl Slot {
    /// Ends the instance, once.
    pub(crate) async fn shut_down(&self) {
        if self.shut.swap(true, SeqCst) {
            return;
        }
        self.reach.runs.close(&self.id);
        if tokio::time::timeout(GRACE, self.instance.shutdown()).await.is_err() {
            tracing::warn!(extension = self.id.as_str(), "did not shut down in time");
        }
    }

    /// Has the instance stand still, as far as it can. `pause` is the lock of the slot's own, which
    /// is held over the change of state that goes with it.
    pub(crate) fn stand_still(&self, pause: &mut Option<Pause>) {
        let reached = self.instance.pause().unwrap_or_else(|error| {
            if error.code != ErrorCode::Unsupported {
                tracing::warn!(extension = self.id.as_str(), %error, "does not stand still");
            }
            Pause::Gate
        });
        *pause = Some(reached);
    }

    /// Has the instance go on, if it stood still; says whether it did.
    pub(crate) fn go_on(&self, pause: &mut Option<Pause>) -> bool {
        let paused = pause.take();
        if paused.is_some_and(|pause| pause > Pause::Gate)
            && let Err(error) = self.instance.resume()
        {
            tracing::warn!(extension = self.id.as_str(), %error, "does not go on");
        }
        paused.is_some()
    }

    /// What it uses: nothing, once it has been shut down.
    pub(crate) fn usage(&self) -> Usage {
        match self.shut.load(Relaxed) {
            true => Usage { memory: Some(0), ..Usage::default() },
            false => self.instance.usage(),
        }
    }

    /// How long the instance has been there; nothing once it has ended.
    pub(crate) fn uptime(&self) -> Duration {
        if self.ended.load(Relaxed) { Duration::ZERO } else { self.begun.elapsed() }
    }
}

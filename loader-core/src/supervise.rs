//! What becomes of an extension whose instance ends, and what an operator does about one that
//! misbehaves.

use std::sync::atomic::Ordering::{Relaxed, SeqCst};
use std::sync::{Arc, Weak};
use std::time::Duration;

use quadriga_abi::{Error, ErrorCode};

use crate::dispatcher::{Core, lock};
use crate::route::{HELD, Slot, THROTTLED};
use crate::ward::{Effect, Failure, Next, Reason, Stand};
use crate::{Dispatcher, Pause, State};

/// How long to wait before looking again at an extension that somebody else is loading.
pub(crate) const AGAIN: Duration = Duration::from_millis(20);

/// What is done about an instance that ended without having been asked to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Supervision {
    /// What to do.
    pub recovery: Recovery,
    /// How often to start it again without a stable spell in between. After that it is put in
    /// quarantine.
    pub restarts: u32,
    /// How long to wait before the first new start, at most; twice as long before each further
    /// one. Half of it and a random part of the other half is waited.
    pub first_delay: Duration,
    /// The longest wait.
    pub longest_delay: Duration,
    /// How long it must run for earlier failures to be forgotten.
    pub stable: Duration,
}

/// A way to go on after an instance ended.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum Recovery {
    /// Start it again as it was loaded, with the same manifest.
    #[default]
    Restart,
    /// Load it anew from its folder, with the manifest that is there now.
    Reload,
    /// Leave it as it is: it takes no calls until it is resumed or reloaded.
    Disable,
    /// Put it in quarantine.
    Quarantine,
}

impl Default for Supervision {
    fn default() -> Self {
        Self {
            recovery: Recovery::Restart,
            restarts: 5,
            first_delay: Duration::from_millis(100),
            longest_delay: Duration::from_secs(30),
            stable: Duration::from_secs(60),
        }
    }
}

impl Supervision {
    /// How long to wait after so many failures in a row.
    pub(crate) fn delay(&self, failures: u32) -> Duration {
        let doubled = 1_u32.checked_shl(failures.saturating_sub(1)).unwrap_or(u32::MAX);
        let longest = self.first_delay.saturating_mul(doubled).min(self.longest_delay);
        longest.mul_f64(0.5 + fastrand::f64() / 2.0)
    }
}

impl Dispatcher {
    /// Takes no more calls for an extension and has it stand still, as far as its runtime can: how
    /// far is returned, and is in its [`Status`](crate::Status). To [`Dispatcher::resume`].
    ///
    /// What stands still is not ended: calls in flight go on with it when it is resumed. One whose
    /// deadline passes meanwhile gets `deadline_exceeded`.
    ///
    /// # Errors
    /// If no such extension is loaded, it is in quarantine, or its instance has been stopped.
    pub fn pause(&self, extension: &str) -> Result<Pause, Error> {
        let slot = self.core.route(extension)?;
        let reason = "its host paused it".to_owned();
        let fits = |state| !matches!(state, State::Quarantined | State::Stopped);
        slot.hold(State::Paused, reason, Reason::Operator, fits)?;
        Ok(lock(&slot.pause).unwrap_or(Pause::Gate))
    }

    /// Lets an extension take so many calls per second, and as many at once; the others are
    /// refused with `overloaded`. To [`Dispatcher::resume`].
    ///
    /// # Errors
    /// If no such extension is loaded, or it takes no calls at all.
    pub fn throttle(&self, extension: &str, calls_per_second: u32) -> Result<(), Error> {
        let slot = self.core.route(extension)?;
        slot.throttle(calls_per_second, "its host throttled it".to_owned(), Reason::Operator)
    }

    /// Takes no more calls for an extension, and denies what it tries from now on, in calls in
    /// flight too, as far as its runtime can take back what it handed out: the record says if not.
    /// Its instance stays, to be looked at.
    ///
    /// # Errors
    /// If no such extension is loaded.
    pub fn quarantine(&self, extension: &str, reason: &str) -> Result<(), Error> {
        let slot = self.core.route(extension)?;
        slot.hold(State::Quarantined, reason.to_owned(), Reason::Operator, |_| true)
    }

    /// Lets an extension that was paused, throttled, stopped, disabled or put in quarantine take calls
    /// again, with what it is granted. If its instance has ended, starts it again as it was loaded.
    /// Earlier failures no longer count.
    ///
    /// # Errors
    /// If no such extension is loaded, or as for [`Dispatcher::load`].
    pub async fn resume(&self, extension: &str) -> Result<(), Error> {
        let slot = self.core.route(extension)?;
        if slot.ended.load(Relaxed) || slot.weakened.load(Relaxed) {
            return self.core.renew_now(extension, false).await;
        }
        slot.release();
        slot.reach.ward.log.managed(&slot.id, "resume".to_owned(), Reason::Operator);
        Ok(())
    }

    /// What went wrong with an extension since it was loaded, oldest first: the last 32 ends of
    /// its instance, starts that failed, and calls that ended with an error (cancelled ones are
    /// left out; under load some others may be).
    ///
    /// # Errors
    /// If no such extension is loaded.
    pub fn failures(&self, extension: &str) -> Result<Vec<Failure>, Error> {
        Ok(self.core.route(extension)?.reach.ward.standing.failures())
    }
}

/// Why a next generation takes the place of the present one.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Renewal {
    /// Somebody asked for it. Earlier failures no longer count.
    Asked,
    /// This one has ended, and nobody has seen to it meanwhile.
    Failed(u64),
    /// This one goes on, and finishes its calls however long they take: after a part of it crashed,
    /// or because it has served long enough.
    Beside { generation: u64, crashed: bool },
}

impl Renewal {
    /// The only generation that is to be replaced.
    pub(crate) fn generation(self) -> Option<u64> {
        match self {
            Self::Asked => None,
            Self::Failed(generation) | Self::Beside { generation, .. } => Some(generation),
        }
    }
}

impl Slot {
    /// Takes no more calls, because the instance ended or is as good as that.
    fn fall(&self, standing: &mut Stand, what: &str) {
        self.ended.store(true, Relaxed);
        self.gate.bar(HELD);
        if matches!(standing.state, State::Running | State::Throttled) {
            standing.set(State::Failed, Some(what.to_owned()));
        }
    }

    /// Takes no more calls, for a reason, if that fits the state that it is in.
    pub(crate) fn hold(
        &self,
        state: State,
        reason: String,
        by: Reason,
        fits: impl FnOnce(State) -> bool,
    ) -> Result<(), Error> {
        let ward = &self.reach.ward;
        let mut pause = lock(&self.pause);
        let refused = ward.standing.with(|standing| {
            if !fits(standing.state) {
                return Some((standing.state, standing.reason.clone()));
            }
            standing.set(state, Some(reason.clone()));
            self.gate.bar(HELD);
            None
        });
        if let Some((state, reason)) = refused {
            return Err(self.refusal(state, reason.as_deref()));
        }
        if state == State::Paused {
            self.stand_still(&mut pause);
        }
        let mut reason = reason;
        if state == State::Quarantined && self.reach.quarantine(true) != Effect::Now {
            reason.push_str(" (its runtime cannot take back what it handed out: calls in flight keep that)");
        }
        ward.standing.changed();
        let verb = match state {
            State::Quarantined => "be put in quarantine",
            State::Disabled => "be disabled",
            State::Stopped => "be stopped",
            _ => "be paused",
        };
        ward.log.managed(&self.id, format!("{verb}: {reason}"), by);
        Ok(())
    }

    /// Takes so many calls per second.
    pub(crate) fn throttle(&self, per_second: u32, reason: String, by: Reason) -> Result<(), Error> {
        let ward = &self.reach.ward;
        let refused = ward.standing.with(|standing| {
            if !matches!(standing.state, State::Running | State::Throttled) {
                return Some((standing.state, standing.reason.clone()));
            }
            standing.throttle(per_second, reason.clone());
            self.gate.bar(THROTTLED);
            None
        });
        if let Some((state, reason)) = refused {
            return Err(self.refusal(state, reason.as_deref()));
        }
        ward.standing.changed();
        ward.log.managed(&self.id, format!("be throttled to {per_second} calls per second: {reason}"), by);
        Ok(())
    }

    /// Takes calls again.
    fn release(&self) {
        let mut pause = lock(&self.pause);
        self.go_on(&mut pause);
        // What the runtime cannot give back before a reload is less than is allowed.
        let _ = self.reach.quarantine(false);
        self.reach.ward.standing.with(|standing| {
            standing.pardon();
            self.gate.unbar(HELD | THROTTLED);
        });
        self.reach.ward.standing.changed();
    }

    /// Why a call is refused in a state.
    pub(crate) fn refusal(&self, state: State, reason: Option<&str>) -> Error {
        let (id, reason) = (&self.id, reason.unwrap_or("no reason was given"));
        let (code, message, hint) = match state {
            State::Paused => (ErrorCode::ExtensionPaused, format!("{id} is paused: {reason}"), "resume it"),
            State::Quarantined => {
                let message = format!("{id} is in quarantine: {reason}");
                (
                    ErrorCode::ExtensionQuarantined,
                    message,
                    "look at its failures and decisions, then resume it",
                )
            }
            State::Throttled => {
                let rate = self.reach.ward.standing.rate();
                let message = format!("{id} may take {rate} calls per second: {reason}");
                (ErrorCode::Overloaded, message, "call less often, or resume it")
            }
            State::Failed => {
                (ErrorCode::ExtensionStopped, format!("{id} ended: {reason}"), "it is being started again")
            }
            State::Stopped => (ErrorCode::ExtensionStopped, format!("{id} is stopped: {reason}"), "start it"),
            State::Disabled => {
                (ErrorCode::ExtensionStopped, format!("{id} is disabled: {reason}"), "resume or reload it")
            }
            State::Asleep => (
                ErrorCode::ExtensionStopped,
                format!("{id} has not been loaded: that is done when it is first called"),
                "call it, or reload it",
            ),
            State::Running | State::Draining => {
                (ErrorCode::ExtensionStopped, format!("{id} is being unloaded"), "load it again")
            }
        };
        Error::new(code, message).with_hint(hint)
    }
}

impl Core {
    /// Has somebody look after an instance that may end by itself.
    pub(crate) fn watch(self: &Arc<Self>, slot: &Arc<Slot>) {
        let Some(end) = slot.instance.ended() else { return };
        let weakened = slot.instance.weakened();
        let (core, weak) = (Arc::downgrade(self), Arc::downgrade(slot));
        let task = self.executor().spawn(async move {
            let ended = |error, whole| {
                if let Some((core, slot)) = core.upgrade().zip(weak.upgrade()) {
                    core.ended(&slot, error, whole);
                }
            };
            if let Some(weakened) = weakened {
                ended(weakened.await, false);
            }
            ended(end.await, true);
        });
        slot.watcher.set(task.abort_handle());
    }

    /// What is done about an extension whose instance ends.
    pub(crate) fn supervision<'a>(&'a self, slot: &'a Slot) -> &'a Supervision {
        let own = slot.source.as_ref().and_then(|source| source.options.supervision.as_ref());
        own.unwrap_or(&self.policy.supervision)
    }

    /// Decides what to do about an instance that ended, or of which a part did.
    pub(crate) fn ended(self: &Arc<Self>, slot: &Arc<Slot>, error: Error, whole: bool) {
        if whole && slot.ended.swap(true, SeqCst) {
            // It was stopped.
            return;
        }
        if !whole {
            slot.weakened.store(true, SeqCst);
        }
        if !self.is_current(slot) {
            // It was being replaced anyway.
            return;
        }
        if slot.source.is_none() {
            return;
        }
        let supervision = self.supervision(slot);
        let error = error.in_extension(slot.id.as_str());
        let what = error.message.clone();
        tracing::warn!(extension = slot.id.as_str(), %error, "the instance ended");
        let next = slot.reach.ward.standing.with(|standing| {
            let next = standing.died(error, supervision);
            let again = matches!(supervision.recovery, Recovery::Restart | Recovery::Reload)
                && matches!(next, Next::Restart(_));
            // Who was paused or put in quarantine stays so.
            let was_up = matches!(standing.state, State::Running | State::Throttled);
            // What is left of it takes the calls meanwhile.
            if whole || !again {
                slot.fall(standing, &what);
            }
            was_up.then_some(next)
        });
        slot.reach.ward.standing.changed();
        self.alert_of_end(slot, &what);
        match (supervision.recovery, next) {
            (_, None) => {}
            (Recovery::Disable, _) => self.give_up(slot, State::Disabled, what),
            (Recovery::Quarantine, _) => self.give_up(slot, State::Quarantined, what),
            (_, Some(Next::GiveUp(times))) => self.give_up_after(slot, times, &what),
            (recovery, Some(Next::Restart(delay))) => {
                let (core, slot) = (Arc::downgrade(self), Arc::downgrade(slot));
                let supervision = supervision.clone();
                self.executor().spawn(restart(core, slot, supervision, recovery == Recovery::Reload, delay));
            }
        }
    }

    fn give_up_after(&self, slot: &Slot, times: u32, last: &str) {
        let reason =
            format!("it ended {times} times without a stable spell in between; the last time: {last}");
        self.give_up(slot, State::Quarantined, reason);
    }

    /// Holds what has failed, unless somebody has seen to it.
    fn give_up(&self, slot: &Slot, state: State, reason: String) {
        if self.is_current(slot) {
            let _ = slot.hold(state, reason, Reason::Crash, |state| state == State::Failed);
        }
    }

    /// Sends calls to a new generation from now on; not if it takes the place of one that failed
    /// and an operator has seen to that meanwhile.
    pub(crate) fn replace(self: &Arc<Self>, new: &Arc<Slot>, how: Renewal) -> bool {
        let ward = &new.reach.ward;
        let is_up = |state| matches!(state, State::Running | State::Throttled);
        let replaced = ward.standing.with(|standing| {
            match how {
                Renewal::Failed(_) if standing.state != State::Failed => return false,
                Renewal::Beside { .. } if !is_up(standing.state) => return false,
                Renewal::Asked => standing.pardon(),
                Renewal::Failed(_) | Renewal::Beside { crashed: true, .. } => _ = standing.restarted(),
                Renewal::Beside { crashed: false, .. } => {}
            }
            if standing.state == State::Throttled {
                new.gate.bar(THROTTLED);
            }
            self.insert(new);
            true
        });
        ward.standing.changed();
        if replaced {
            match how {
                Renewal::Asked => {}
                Renewal::Beside { crashed: false, .. } => {
                    tracing::debug!(extension = new.id.as_str(), "replaced by a fresh one");
                }
                _ => ward.log.managed(&new.id, "be started again".to_owned(), Reason::Crash),
            }
        }
        replaced
    }

    /// Whether calls go to this generation.
    pub(crate) fn is_current(&self, slot: &Slot) -> bool {
        self.routes.load().get(&slot.id).is_some_and(|current| current.generation == slot.generation)
    }
}

/// Starts an extension again, and again after longer waits, until it runs, has failed too often, or
/// somebody else has seen to it. Holds nothing while it waits.
async fn restart(
    core: Weak<Core>,
    slot: Weak<Slot>,
    supervision: Supervision,
    anew: bool,
    mut delay: Duration,
) {
    loop {
        tokio::time::sleep(delay).await;
        let Some((core, slot)) = core.upgrade().zip(slot.upgrade()) else { return };
        let (state, generation) = (slot.reach.ward.standing.state(), slot.generation);
        let how = match state {
            State::Failed => Renewal::Failed(generation),
            State::Running | State::Throttled => Renewal::Beside { generation, crashed: true },
            _ => return,
        };
        if !core.is_current(&slot) {
            return;
        }
        let Err(error) = core.renew(slot.id.as_str(), anew, how, None).await else { return };
        if error.code == ErrorCode::AlreadyLoaded {
            delay = AGAIN;
            continue;
        }
        tracing::warn!(extension = slot.id.as_str(), %error, "did not start again");
        let what = error.message.clone();
        let standing = &slot.reach.ward.standing;
        let next = standing.with(|standing| {
            let next = standing.died(error, &supervision);
            if matches!(next, Next::GiveUp(_)) {
                slot.fall(standing, &what);
            }
            next
        });
        match next {
            Next::GiveUp(times) => return core.give_up_after(&slot, times, &what),
            Next::Restart(next) => delay = next,
        }
    }
}

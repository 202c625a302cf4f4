//! Whether extensions are alive and ready: when somebody asks, and on the schedule of their manifest.

use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::{Duration, Instant, SystemTime};

use quadriga_abi::limits::Span;
use quadriga_abi::manifest::HealthCheck;
use quadriga_abi::{Bytes, Error, ErrorCode};
use serde::Serialize;

use crate::dispatcher::{Core, lock};
use crate::route::Slot;
use crate::ward::{Action, Alert, Failure};
use crate::{Dispatcher, Pause, State};

/// How long an instance may take to show that it is alive.
pub(crate) const PATIENCE: Duration = Duration::from_secs(2);

/// The name that alerts about failed checks carry.
const RULE: &str = "health";

/// Whether an extension is alive, as of now.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub enum Liveness {
    /// Its instance answered.
    Alive,
    /// Its instance did not answer within two seconds.
    Silent,
    /// It is paused, and was not asked.
    Paused,
    /// It has no instance at this moment.
    Ended,
    /// It has no instance yet: it is loaded when it is first called.
    Asleep,
}

/// How an extension does, for who watches over it.
#[derive(Debug, Clone, Serialize)]
pub struct Health {
    /// Whether it is alive. What is asked is its worker process and, in it or in the host's process,
    /// its event loop, if it has one.
    pub liveness: Liveness,
    /// How long the answer took.
    pub answered: Option<Duration>,
    /// Whether it is alive and takes calls.
    pub ready: bool,
    /// Why it is not ready.
    pub reason: Option<String>,
    /// What the last check came to, if its manifest has `[health]` and there was one.
    pub check: Option<Checked>,
    /// How far it is in its life.
    pub state: State,
    /// How long its instance has been there.
    pub uptime: Duration,
    /// How often it was started again after its instance had ended.
    pub restarts: u32,
    /// Calls that finished since this generation was loaded.
    pub calls: u64,
    /// How many of them with an error.
    pub errors: u64,
    /// What went wrong last.
    pub last_error: Option<Failure>,
}

/// What a check by the schedule of a manifest came to.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Checked {
    /// When it ended.
    pub at: SystemTime,
    /// How long it took.
    pub took: Duration,
    /// Why it failed, if it did.
    pub error: Option<Error>,
    /// How many checks have failed in a row.
    pub failures: u32,
}

impl Dispatcher {
    /// Asks an extension for a sign of life, and waits two seconds for it at most.
    ///
    /// # Errors
    /// If no such extension is loaded.
    pub async fn health(&self, extension: &str) -> Result<Health, Error> {
        let slot = self.core.route(extension)?;
        self.core.on_executor(async move { Ok(slot.health().await) }).await
    }
}

impl Core {
    /// Looks after a generation by the schedule of its manifest, if that has one.
    pub(crate) fn check_health(self: &Arc<Self>, slot: &Arc<Slot>) {
        let Some(health) = slot.source.as_ref().and_then(|source| source.manifest.health.clone()) else {
            return;
        };
        let (core, weak) = (Arc::downgrade(self), Arc::downgrade(slot));
        let task = self.executor().spawn(async move {
            loop {
                tokio::time::sleep(health.interval.0).await;
                let Some((core, slot)) = core.upgrade().zip(weak.upgrade()) else { return };
                if !core.is_current(&slot) || !core.check_once(&slot, &health).await {
                    return;
                }
            }
        });
        slot.checker.set(task.abort_handle());
    }

    /// Whether to go on with checks.
    async fn check_once(self: &Arc<Self>, slot: &Arc<Slot>, health: &HealthCheck) -> bool {
        if !matches!(slot.state(), State::Running | State::Throttled) {
            // Who is not to do anything is not asked.
            *lock(&slot.checked) = None;
            return true;
        }
        let (begun, Span(patience)) = (Instant::now(), health.deadline);
        let result = match &health.method {
            Some(method) => {
                self.ask(slot, method, Bytes::from_static(&[0x90]), begun + patience).await.map(drop)
            }
            None => slot.sign_of_life(patience).await.unwrap_or_else(|| {
                let message = format!("there was no sign of life within {}", health.deadline);
                Err(Error::new(ErrorCode::DeadlineExceeded, message))
            }),
        };
        let before = lock(&slot.checked).as_ref().map_or(0, |checked| checked.failures);
        let failures = if result.is_err() { before + 1 } else { 0 };
        let (at, took, error) = (SystemTime::now(), begun.elapsed(), result.err());
        *lock(&slot.checked) = Some(Checked { at, took, error: error.clone(), failures });
        match error {
            Some(error) if failures >= health.failures.get() => {
                self.fail(slot, failures, error);
                false
            }
            _ => true,
        }
    }

    /// Says that an extension is not well, and leaves it to supervision as if its instance had ended.
    fn fail(self: &Arc<Self>, slot: &Arc<Slot>, times: u32, last: Error) {
        if !self.is_current(slot) || !matches!(slot.state(), State::Running | State::Throttled) {
            return;
        }
        let evidence = format!("its check failed {times} times in a row; the last time: {}", last.message);
        let alert = Alert {
            extension: slot.id.clone(),
            rule: RULE.to_owned(),
            evidence: evidence.clone(),
            samples: vec![slot.sample()],
            at: SystemTime::now(),
            action: Action::None,
        };
        self.raise(slot, alert);
        self.ended(slot, Error::new(last.code, evidence).with_cause(last), true);
    }
}

impl Slot {
    /// What it answers when it is asked for a sign of life; `None` if it does not within some time.
    pub(crate) async fn sign_of_life(&self, patience: Duration) -> Option<Result<(), Error>> {
        tokio::time::timeout(patience, self.instance.ping()).await.ok()
    }

    async fn health(&self) -> Health {
        let asked = Instant::now();
        let liveness = match *lock(&self.pause) {
            _ if self.ended.load(Relaxed) => Some(Liveness::Ended),
            _ if self.is_asleep() => Some(Liveness::Asleep),
            Some(pause) if pause > Pause::Gate => Some(Liveness::Paused),
            _ => None,
        };
        let liveness = match liveness {
            Some(known) => known,
            None => match self.sign_of_life(PATIENCE).await {
                Some(Ok(())) => Liveness::Alive,
                Some(Err(_)) => Liveness::Ended,
                None => Liveness::Silent,
            },
        };
        let (restarts, last_error, why) =
            self.reach.ward.standing.with(|it| (it.restarts, it.last_error(), it.reason.clone()));
        let state = self.state();
        let reason = match (state, liveness) {
            (State::Running | State::Throttled, Liveness::Alive) | (State::Asleep, _) => None,
            (State::Running | State::Throttled, Liveness::Silent) => {
                Some(format!("it gave no sign of life within {} s", PATIENCE.as_secs()))
            }
            (State::Running | State::Throttled, _) => Some("its instance has ended".to_owned()),
            (State::Draining, _) => Some("it is being unloaded".to_owned()),
            (state, _) => {
                Some(why.map_or_else(|| format!("it is {state}"), |why| format!("it is {state}: {why}")))
            }
        };
        Health {
            liveness,
            answered: (liveness == Liveness::Alive).then(|| asked.elapsed()),
            ready: reason.is_none(),
            reason,
            check: lock(&self.checked).clone(),
            state,
            uptime: self.uptime(),
            restarts,
            calls: self.counters.calls(),
            errors: self.counters.errors(),
            last_error,
        }
    }
}

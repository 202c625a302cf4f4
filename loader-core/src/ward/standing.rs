//! How an extension stands: whether it takes calls, and what went wrong with it.

use std::collections::VecDeque;
use std::sync::Mutex;
use std::time::{Duration, Instant, SystemTime};

use quadriga_abi::{Error, ErrorCode};
use serde::Serialize;
use tokio::sync::watch;

use crate::dispatcher::lock;
use crate::{State, Supervision};

/// How many errors are kept.
pub(crate) const ERRORS: usize = 32;

/// Something that went wrong with an extension.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Failure {
    /// When.
    pub at: SystemTime,
    /// What.
    pub error: Error,
    /// Whether it ended the instance, or kept a new one from starting; otherwise a call failed.
    pub fatal: bool,
    /// The method of the call that failed; `None` for what happened to the instance.
    pub method: Option<String>,
}

/// How an extension stands, over all its generations.
pub(crate) struct Standing {
    inner: Mutex<Inner>,
    /// Changes with the state.
    changes: watch::Sender<()>,
}

pub(crate) struct Inner {
    pub(crate) state: State,
    pub(crate) since: SystemTime,
    /// Why, unless it is running.
    pub(crate) reason: Option<String>,
    /// How often it was started again since it was loaded.
    pub(crate) restarts: u32,
    /// How often it failed without a stable spell in between.
    in_a_row: u32,
    started: Instant,
    errors: VecDeque<Failure>,
    /// While it is throttled, also while it is being started again.
    bucket: Option<Bucket>,
}

/// Lets so many calls pass per second, and as many at once.
struct Bucket {
    per_second: u32,
    reason: String,
    left: f64,
    filled: Instant,
}

/// What to do about an instance that ended.
#[derive(Debug, PartialEq)]
pub(crate) enum Next {
    /// Start it again after a while.
    Restart(Duration),
    /// It has failed too often.
    GiveUp(u32),
}

impl Default for Standing {
    fn default() -> Self {
        let inner = Inner {
            state: State::Running,
            since: SystemTime::now(),
            reason: None,
            restarts: 0,
            in_a_row: 0,
            started: Instant::now(),
            errors: VecDeque::new(),
            bucket: None,
        };
        Self { inner: Mutex::new(inner), changes: watch::Sender::new(()) }
    }
}

impl Standing {
    /// Looks at the standing, or changes it by a rule that depends on it.
    pub(crate) fn with<T>(&self, look: impl FnOnce(&mut Inner) -> T) -> T {
        look(&mut lock(&self.inner))
    }

    /// The state, unless it is none of these.
    pub(crate) fn state(&self) -> State {
        self.with(|inner| inner.state)
    }

    /// Resolves after each change of the state.
    pub(crate) fn changes(&self) -> watch::Receiver<()> {
        self.changes.subscribe()
    }

    /// Says that the state has changed.
    pub(crate) fn changed(&self) {
        self.changes.send_replace(());
    }

    /// Keeps what went wrong with a call, unless that would have to wait.
    pub(crate) fn note(&self, error: &Error, method: Option<&str>) {
        if error.code != ErrorCode::Cancelled
            && let Ok(mut inner) = self.inner.try_lock()
        {
            inner.fail(error.clone(), false, method.map(str::to_owned));
        }
    }

    /// What went wrong, oldest first.
    pub(crate) fn failures(&self) -> Vec<Failure> {
        self.with(|inner| inner.errors.iter().cloned().collect())
    }

    /// Whether a throttled extension may take a call now.
    pub(crate) fn pass(&self) -> bool {
        self.with(|inner| inner.bucket.as_mut().is_none_or(Bucket::take))
    }

    /// How many calls per second a throttled extension may take.
    pub(crate) fn rate(&self) -> u32 {
        self.with(|inner| inner.bucket.as_ref().map_or(0, |bucket| bucket.per_second))
    }
}

impl Inner {
    pub(crate) fn set(&mut self, state: State, reason: Option<String>) {
        if state == State::Running {
            self.started = Instant::now();
        }
        (self.state, self.since, self.reason) = (state, SystemTime::now(), reason);
    }

    /// Runs, and forgets earlier failures: an operator has looked at them.
    pub(crate) fn pardon(&mut self) {
        self.in_a_row = 0;
        self.bucket = None;
        self.set(State::Running, None);
    }

    /// Runs again by itself, which lifts no throttle.
    pub(crate) fn restarted(&mut self) -> State {
        self.restarts += 1;
        self.started = Instant::now();
        match self.bucket.as_ref().map(|bucket| bucket.reason.clone()) {
            Some(reason) => self.set(State::Throttled, Some(reason)),
            None => self.set(State::Running, None),
        }
        self.state
    }

    pub(crate) fn throttle(&mut self, per_second: u32, reason: String) {
        let (left, filled) = (f64::from(per_second), Instant::now());
        self.bucket = Some(Bucket { per_second, reason: reason.clone(), left, filled });
        self.set(State::Throttled, Some(reason));
    }

    pub(crate) fn fail(&mut self, error: Error, fatal: bool, method: Option<String>) {
        if self.errors.len() == ERRORS {
            self.errors.pop_front();
        }
        self.errors.push_back(Failure { at: SystemTime::now(), error, fatal, method });
    }

    pub(crate) fn last_error(&self) -> Option<Failure> {
        self.errors.back().cloned()
    }

    /// Why the instance ended, or did not start again, the last time.
    pub(crate) fn last_end(&self) -> Option<Error> {
        self.errors.iter().rfind(|failure| failure.fatal).map(|failure| failure.error.clone())
    }

    /// Counts the end of an instance, or a start that failed, and decides how to go on.
    pub(crate) fn died(&mut self, error: Error, supervision: &Supervision) -> Next {
        let was_stable = self.state != State::Failed && self.started.elapsed() >= supervision.stable;
        self.in_a_row = if was_stable { 1 } else { self.in_a_row + 1 };
        self.fail(error, true, None);
        if self.in_a_row > supervision.restarts {
            return Next::GiveUp(self.in_a_row);
        }
        Next::Restart(supervision.delay(self.in_a_row))
    }
}

impl Bucket {
    fn take(&mut self) -> bool {
        let (now, most) = (Instant::now(), f64::from(self.per_second));
        let since = now - self.filled;
        self.filled = now;
        self.left = (self.left + since.as_secs_f64() * most).min(most);
        let passes = self.left >= 1.0;
        if passes {
            self.left -= 1.0;
        }
        passes
    }
}

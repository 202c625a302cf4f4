use std::collections::HashMap;
use std::fmt;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU32, Ordering};
use std::sync::{Arc, Mutex, OnceLock};
use std::time::{Duration, Instant, SystemTime};

use foldhash::fast::RandomState;
use quadriga_abi::limits::Limits;
use quadriga_abi::manifest::Manifest;
use quadriga_abi::{
    Bytes, Error, ErrorCode, ExtensionId, Isolation, Method, ProtocolVersion, RuntimeKind, Target,
};
use serde::Serialize;
use tokio::sync::Notify;
use tokio::task::AbortHandle;

use crate::contract::{Checks, Needs};
use crate::detached::GivenUp;
use crate::dispatcher::lock;
use crate::limits::Caps;
use crate::metrics::{Counters, Tick};
use crate::sleep::Sleep;
use crate::ward::{Counter, Failure, Reach, Sample};
use crate::{Checked, Instance, Layer, LoadOptions, Metrics, Pause, Support, Usage};

/// Where calls go, by extension. Replaced as a whole; readers never wait.
pub(crate) type Routes = HashMap<ExtensionId, Arc<Slot>, RandomState>;

/// One generation of one extension.
pub(crate) struct Slot {
    pub(crate) id: ExtensionId,
    pub(crate) kind: RuntimeKind,
    pub(crate) version: semver::Version,
    pub(crate) isolation: Isolation,
    pub(crate) generation: u64,
    pub(crate) load_time: Duration,
    pub(crate) begun: Instant,
    pub(crate) instance: Arc<dyn Instance>,
    /// By name: each with its place in the description.
    pub(crate) methods: HashMap<Arc<str>, (Arc<Target>, usize), RandomState>,
    /// None unless manifest or policy asks for it.
    pub(crate) checks: Option<Arc<Checks>>,
    pub(crate) caps: Caps,
    /// What the runtime can keep to, and the limits it was loaded with.
    pub(crate) support: Support,
    pub(crate) limits: Limits,
    /// By place in the description: the methods that may be called again. Empty if there are none.
    pub(crate) idempotent: Box<[bool]>,
    /// The API that extensions may add to here, where the host provides one.
    pub(crate) api: Option<Arc<str>>,
    /// None for what the host itself provides.
    pub(crate) source: Option<Source>,
    pub(crate) gate: Gate,
    pub(crate) counters: Counters,
    pub(crate) given_up: Arc<GivenUp>,
    pub(crate) reach: Arc<Reach>,
    /// Whether the instance ended without having been asked to.
    pub(crate) ended: AtomicBool,
    /// Whether it was shut down.
    pub(crate) shut: AtomicBool,
    /// How far it stands still, while it is paused.
    pub(crate) pause: Mutex<Option<Pause>>,
    /// Whether a part of it did.
    pub(crate) weakened: AtomicBool,
    pub(crate) watcher: Watcher,
    /// What the last of its own checks came to.
    pub(crate) checked: Mutex<Option<Checked>>,
    pub(crate) checker: Watcher,
    /// Calls it by the clock.
    pub(crate) clock: Watcher,
    /// For one that is loaded when it is first called.
    pub(crate) sleep: Option<Box<Sleep>>,
}

/// A task about a generation, which it must not outlive.
#[derive(Default)]
pub(crate) struct Watcher(OnceLock<AbortHandle>);

/// Where a generation came from, for loading the next.
pub(crate) struct Source {
    pub(crate) root: PathBuf,
    pub(crate) manifest: Arc<Manifest>,
    pub(crate) options: LoadOptions,
    pub(crate) needs: Needs,
}

/// Lets calls in until it is barred, and knows when the last has left.
#[derive(Default)]
pub(crate) struct Gate {
    inside: AtomicU32,
    bars: AtomicU8,
    /// The last call left, or a bar did.
    left: Notify,
}

/// The gate stays closed from now on.
pub(crate) const CLOSED: u8 = 1;
/// No call passes until the extension is resumed or started again.
pub(crate) const HELD: u8 = 2;
/// So many calls pass per second.
pub(crate) const THROTTLED: u8 = 4;
/// The state is being handed to the next generation: calls of the host wait for that.
pub(crate) const SWITCHING: u8 = 8;
/// There is no instance yet.
pub(crate) const ASLEEP: u8 = 16;

/// Why a call did not pass.
pub(crate) enum Barred {
    Refused(Error),
    /// It has to wait until this generation has handed over its state, or goes on after all.
    Switching(Arc<Slot>),
    /// It has to be loaded first.
    Asleep(Arc<Slot>),
}

/// How far an extension is in its life.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub enum State {
    /// It takes calls.
    Running,
    /// It takes calls, and is loaded for the first one.
    Asleep,
    /// It finishes its calls and takes no more.
    Draining,
    /// It takes some calls per second, and refuses the others.
    Throttled,
    /// It takes no calls until it is resumed.
    Paused,
    /// Its instance ended, and it is being started again.
    Failed,
    /// Its instance ended, and it is not started again.
    Disabled,
    /// Its host ended its instance; it can be started.
    Stopped,
    /// It takes no calls and may do nothing until it is resumed or reloaded.
    Quarantined,
}

impl fmt::Display for State {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Running => "running",
            Self::Asleep => "asleep",
            Self::Draining => "draining",
            Self::Throttled => "throttled",
            Self::Paused => "paused",
            Self::Failed => "failed",
            Self::Disabled => "disabled",
            Self::Stopped => "stopped",
            Self::Quarantined => "quarantined",
        })
    }
}

/// What a host can know of a loaded extension.
#[derive(Debug, Clone, Serialize)]
pub struct Status {
    /// Its id.
    pub id: ExtensionId,
    /// Its version.
    pub version: semver::Version,
    /// What runs it.
    pub runtime: RuntimeKind,
    /// The isolation that was reached.
    pub isolation: Isolation,
    /// The contract that it was built for.
    pub contract: ProtocolVersion,
    /// How far it is in its life.
    pub state: State,
    /// Since when it is in this state.
    pub since: SystemTime,
    /// Why, unless it is running.
    pub reason: Option<String>,
    /// How far it stands still, if it is paused.
    pub pause: Option<Pause>,
    /// How long its instance has been there.
    pub uptime: Duration,
    /// How often it was started again after its instance had ended.
    pub restarts: u32,
    /// What went wrong last, since it was loaded.
    pub last_error: Option<Failure>,
    /// Counts the loads of this host: a reload has a higher one.
    pub generation: u64,
    /// How long the load took.
    pub load_time: Duration,
    /// What can be called.
    pub methods: Vec<Method>,
    /// What it has done.
    pub metrics: Metrics,
    /// What it uses.
    pub usage: Usage,
    /// Events that are kept for it and wait, of subscriptions that want each at least once.
    pub kept_events: u64,
    /// Dead letters: those of them that were given up.
    pub dead_letters: u64,
    /// What holds it apart from the host; empty where that is the engine alone.
    pub layers: Vec<Layer>,
}

impl Slot {
    /// Looks a method up: it as the target of a call, and its place in the description.
    pub(crate) fn method(&self, name: &str) -> Result<(Arc<Target>, usize), Error> {
        self.methods.get(name).cloned().ok_or_else(|| self.lacks(name))
    }

    /// Says that there is no such method, and which come near.
    #[cold]
    pub(crate) fn lacks(&self, method: &str) -> Error {
        let mut names: Vec<&str> = self.methods.keys().map(AsRef::as_ref).collect();
        names.sort_unstable();
        let error = Error::new(ErrorCode::UnknownMethod, format!("{} has no method {method:?}", self.id));
        error.with_hint(suggest(method, &names, "it has"))
    }

    /// Whether the result of a method is a stream.
    pub(crate) fn streams(&self, method: usize) -> bool {
        self.instance.describe().methods.get(method).is_some_and(|method| method.streams)
    }

    /// Counts a finished call, and says in which extension an error happened, whatever the guest says.
    pub(crate) fn finish(
        &self,
        started: Tick,
        method: usize,
        result: Result<Bytes, Error>,
    ) -> Result<Bytes, Error> {
        let result = match result {
            Ok(reply) if reply.len() as u64 > self.caps.message_size() => {
                Err(self.too_large("result", reply.len()))
            }
            other => other,
        };
        self.counters.record(method, started, result.as_ref().err().map(|error| error.code));
        result.map_err(|mut error| {
            error.extension = Some(self.id.as_str().to_owned());
            let method = self.instance.describe().methods.get(method).map(|method| method.name.as_str());
            self.reach.ward.standing.note(&error, method);
            error
        })
    }

    pub(crate) fn too_large(&self, what: &str, size: usize) -> Error {
        let most = self.caps.message_size();
        let message = format!("the {what} has {size} bytes; {} may pass {most}", self.id);
        Error::new(ErrorCode::MessageTooLarge, message).with_hint("raise [limits] message-size")
    }

    /// Ends a call whose caller went away.
    pub(crate) fn give_up(&self, call: u64) {
        self.given_up.remember(call);
        self.instance.interrupt(call);
    }

    pub(crate) fn leave(&self) {
        self.gate.leave();
    }

    /// Lets a call pass that the gate did not, if nothing bars it but what it has no regard to (`past`) and
    /// the throttle has room; says how many were inside before, or why not.
    #[cold]
    pub(crate) fn pass(self: &Arc<Self>, past: u8) -> Result<u32, Barred> {
        let standing = &self.reach.ward.standing;
        loop {
            let bars = self.gate.bars() & !past;
            let more = match bars {
                0 => 0,
                _ if bars & CLOSED != 0 => return Err(Barred::Refused(self.refusal(State::Draining, None))),
                _ if bars & HELD != 0 => return Err(Barred::Refused(self.held())),
                _ if bars & SWITCHING != 0 => return Err(Barred::Switching(Arc::clone(self))),
                _ if bars & ASLEEP != 0 => return Err(Barred::Asleep(Arc::clone(self))),
                _ if standing.pass() => THROTTLED,
                _ => return Err(Barred::Refused(self.held())),
            };
            // What barred it may have changed meanwhile.
            if let Some(before) = self.gate.enter_past(past | more) {
                return Ok(before);
            }
        }
    }

    /// Why it takes no calls.
    fn held(&self) -> Error {
        let (state, reason, end) = self
            .reach
            .ward
            .standing
            .with(|standing| (standing.state, standing.reason.clone(), standing.last_end()));
        let error = self.refusal(state, reason.as_deref());
        match end.filter(|_| state != State::Stopped && self.ended.load(Ordering::Relaxed)) {
            Some(end) => error.with_cause(end),
            None => error,
        }
    }

    pub(crate) fn sample(&self) -> Sample {
        let (usage, meter) = (self.usage(), &self.reach.meter);
        Sample {
            at: SystemTime::now(),
            generation: self.generation,
            uptime: self.begun.elapsed(),
            memory: usage.memory,
            instances: usage.instances,
            in_flight: self.gate.inside(),
            calls: self.counters.calls(),
            errors: self.counters.errors(),
            denied: meter.denied.load(Ordering::Relaxed),
            egress: meter.read(Counter::Egress),
            ingress: meter.read(Counter::Ingress),
            spawns: meter.read(Counter::Spawns),
        }
    }

    /// How far it is in its life.
    pub(crate) fn state(&self) -> State {
        self.seen(self.reach.ward.standing.state())
    }

    /// The state of this generation, where its extension stands like that.
    fn seen(&self, standing: State) -> State {
        match standing {
            _ if self.gate.is_closed() => State::Draining,
            State::Running if self.is_asleep() => State::Asleep,
            standing => standing,
        }
    }

    pub(crate) fn status(&self) -> Status {
        let (state, since, reason, restarts, last_error) = self.reach.ward.standing.with(|standing| {
            let error = standing.last_error();
            (standing.state, standing.since, standing.reason.clone(), standing.restarts, error)
        });
        let (kept_events, dead_letters) = self.reach.ward.kept();
        Status {
            id: self.id.clone(),
            version: self.version.clone(),
            runtime: self.kind.clone(),
            isolation: self.isolation,
            contract: self.instance.describe().protocol,
            state: self.seen(state),
            since,
            reason,
            pause: *lock(&self.pause),
            uptime: self.uptime(),
            restarts,
            last_error,
            generation: self.generation,
            load_time: self.load_time,
            methods: self.instance.describe().methods.clone(),
            metrics: self.counters.read(self.gate.inside()),
            usage: self.usage(),
            kept_events,
            dead_letters,
            layers: self.instance.layers(),
        }
    }
}

impl fmt::Debug for Slot {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}@{} #{}", self.id, self.version, self.generation)
    }
}

impl Gate {
    /// Lets one call in and returns how many were inside before; `None` where there is a bar.
    pub(crate) fn enter(&self) -> Option<u32> {
        self.enter_past(0)
    }

    /// The same, without regard to some bars.
    pub(crate) fn enter_past(&self, bars: u8) -> Option<u32> {
        // Both sides write before they read, sequentially consistent: either this call sees the
        // gate closed, or the closer sees this call.
        let before = self.inside.fetch_add(1, Ordering::SeqCst);
        if self.bars.load(Ordering::SeqCst) & !bars != 0 {
            self.leave();
            return None;
        }
        Some(before)
    }

    pub(crate) fn leave(&self) {
        if self.inside.fetch_sub(1, Ordering::SeqCst) == 1 && self.bars.load(Ordering::SeqCst) != 0 {
            self.left.notify_waiters();
        }
    }

    pub(crate) fn bar(&self, bars: u8) {
        self.bars.fetch_or(bars, Ordering::SeqCst);
    }

    pub(crate) fn unbar(&self, bars: u8) {
        self.bars.fetch_and(!bars, Ordering::SeqCst);
        self.left.notify_waiters();
    }

    /// Lets nobody in any more, and waits until everybody has left or the time is up.
    pub(crate) async fn drain(&self, timeout: Duration) {
        self.bar(CLOSED);
        self.empty(timeout).await;
    }

    /// Waits until everybody has left or the time is up, where nobody gets in.
    pub(crate) async fn empty(&self, timeout: Duration) {
        let empty = async {
            loop {
                let left = self.left.notified();
                if self.inside() == 0 {
                    return;
                }
                left.await;
            }
        };
        let _ = tokio::time::timeout(timeout, empty).await;
    }

    pub(crate) fn inside(&self) -> u32 {
        self.inside.load(Ordering::SeqCst)
    }

    pub(crate) fn bars(&self) -> u8 {
        self.bars.load(Ordering::SeqCst)
    }

    fn is_closed(&self) -> bool {
        self.bars() & CLOSED != 0
    }

    /// Waits until the state is no longer being handed over.
    pub(crate) async fn switched(&self) {
        loop {
            let left = self.left.notified();
            if self.bars() & SWITCHING == 0 {
                return;
            }
            left.await;
        }
    }
}

impl Watcher {
    /// Ends the task together with the slot.
    pub(crate) fn set(&self, task: AbortHandle) {
        // Once: each slot is published once.
        let _ = self.0.set(task);
    }
}

impl Drop for Watcher {
    fn drop(&mut self) {
        if let Some(task) = self.0.get() {
            task.abort();
        }
    }
}

/// A hint that names the nearest of what there is, or all of it.
pub(crate) fn suggest(wanted: &str, there: &[&str], lead: &str) -> String {
    let near = there
        .iter()
        .map(|name| (strsim::damerau_levenshtein(wanted, name), name))
        .min()
        .filter(|(distance, name)| *distance <= name.len().max(3) / 3);
    match near {
        Some((_, name)) => format!("did you mean {name:?}?"),
        None if there.is_empty() => format!("{lead} none"),
        None => format!("{lead}: {}", there.join(", ")),
    }
}

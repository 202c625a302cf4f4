//! One extension under watch: what it may do at this moment, what it did, and what was done to it.
//! A [`Ward`] lasts as long as the extension is loaded, over all its generations.

mod activity;
mod alert;
mod decision;
mod grant;
mod link;
mod spout;
mod standing;
mod trail;

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::sync::{Arc, Mutex, OnceLock, Weak};
use std::time::SystemTime;

pub use activity::{Activity, Counter, Sample};
pub(crate) use activity::{History, Meter};
pub use alert::{Action, Alert, AlertRule, Monitor, Trigger};
use arc_swap::{ArcSwap, Guard};
pub(crate) use decision::DecisionLog;
pub use decision::{Decision, DecisionFilter, Reason, Subject, Tally, Verdict};
use foldhash::fast::RandomState;
use grant::granted;
pub use link::{Communication, Rule};
pub(crate) use link::{Link, Rules};
use quadriga_abi::limits::{ByteSize, Limits};
use quadriga_abi::permission::{Access, AccessKind, Permissions, normal};
use quadriga_abi::{Error, ErrorCode, ExtensionId, Isolation};
use serde::Serialize;
pub(crate) use spout::{Passage, Spout};
pub use standing::Failure;
pub(crate) use standing::{Inner as Stand, Next, Standing};
#[cfg(feature = "home")]
pub(crate) use trail::Record;
pub(crate) use trail::Trail;

use crate::dispatcher::lock;
use crate::event::Keep;
use crate::net::Connections;
use crate::program::may_start;
use crate::route::Slot;
use crate::schedule::Jobs;
use crate::service::{Runs, beside_calls};
use crate::{Grant, Instance, MemoryKv, Unit};

/// How many revocations are remembered, to explain what is denied.
const REVOCATIONS: usize = 64;

/// What is kept of one extension while it is loaded.
pub(crate) struct Ward {
    pub(crate) id: ExtensionId,
    pub(crate) log: DecisionLog,
    pub(crate) standing: Standing,
    pub(crate) history: History,
    /// Whether it is a loose piece of source, of which nothing stays.
    pub(crate) loose: bool,
    /// What it keeps in the key-value store in memory. It goes with it.
    pub(crate) kept: MemoryKv,
    /// What it does by the clock.
    pub(crate) jobs: Jobs,
    /// The events that are kept for it.
    pub(crate) keeps: Mutex<Vec<Arc<Keep>>>,
    held: Mutex<Held>,
}

/// What changes together.
struct Held {
    grant: Grant,
    revoked: VecDeque<(Permissions, SystemTime)>,
    /// What was set while it ran.
    limits: Limits,
    reaches: Vec<Weak<Reach>>,
    links: HashMap<ExtensionId, Arc<Link>, RandomState>,
}

/// What one generation of an extension may do.
pub(crate) struct Reach {
    pub(crate) ward: Arc<Ward>,
    root: Option<PathBuf>,
    /// What its manifest asks for.
    request: Permissions,
    /// What it is granted before calls go to it, if that is not what the ward is. Changed by who holds the
    /// ward's lock.
    ahead: Mutex<Option<Grant>>,
    /// The most that the host's policy lets anybody have.
    most: Option<Permissions>,
    rules: Arc<Rules>,
    pub(crate) meter: Meter,
    pub(crate) connections: Connections,
    pub(crate) runs: Runs,
    pub(crate) spout: Spout,
    /// While it is set, nothing is allowed.
    quarantined: AtomicBool,
    /// Replaced as a whole, by who holds the ward's lock.
    view: ArcSwap<View>,
    /// What is loaded and how far apart, set before it is.
    unit: OnceLock<(Unit, Isolation)>,
    /// Set once the generation has been loaded.
    instance: OnceLock<(Weak<dyn Instance>, Isolation)>,
}

/// From when on a change of permissions holds. Calls to other extensions and to services of the host,
/// and all that a runtime asks [`Bridge::check`](crate::Bridge::check) for, are always denied from
/// the next one on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "kebab-case")]
#[must_use = "a revocation may need a reload to hold"]
pub enum Effect {
    /// From the next operation on, in calls in flight too.
    Now,
    /// For accesses beside calls, from the next reload on: what the runtime handed out when it
    /// loaded the extension it cannot take back.
    AfterReload,
    /// For accesses beside calls, never: at isolation `none` the extension can do what its process
    /// can.
    Never,
}

/// What is looked at for every operation.
pub(crate) struct View {
    permissions: Arc<Permissions>,
    /// The extensions that it called.
    ways: HashMap<ExtensionId, (Arc<Link>, Weak<Slot>), RandomState>,
}

impl Ward {
    pub(crate) fn new(id: ExtensionId, grant: Grant, loose: bool, trail: &Arc<Trail>) -> Arc<Self> {
        let (revoked, limits, reaches) = (VecDeque::new(), Limits::default(), Vec::new());
        let held = Mutex::new(Held { grant, revoked, limits, reaches, links: HashMap::default() });
        let log = DecisionLog::new(id.clone(), trail);
        let (standing, history) = (Standing::default(), History::default());
        Arc::new(Self {
            id,
            log,
            standing,
            history,
            loose,
            kept: MemoryKv::default(),
            jobs: Jobs::default(),
            keeps: Mutex::default(),
            held,
        })
    }

    /// What the next generation may do.
    pub(crate) fn reach(
        self: &Arc<Self>,
        root: Option<PathBuf>,
        request: Permissions,
        most: Option<Permissions>,
        rules: Arc<Rules>,
        ahead: Option<Grant>,
    ) -> Arc<Reach> {
        let mut held = lock(&self.held);
        let grant = ahead.as_ref().unwrap_or(&held.grant);
        let permissions = Arc::new(granted(grant, &request, most.as_ref()));
        let view = ArcSwap::from_pointee(View { permissions, ways: HashMap::default() });
        let reach = Arc::new(Reach {
            ward: Arc::clone(self),
            root,
            request,
            ahead: Mutex::new(ahead),
            most,
            rules,
            meter: Meter::default(),
            connections: Connections::default(),
            runs: Runs::default(),
            spout: Spout::default(),
            quarantined: AtomicBool::new(false),
            view,
            unit: OnceLock::new(),
            instance: OnceLock::new(),
        });
        held.reaches.retain(|reach| reach.strong_count() > 0);
        held.reaches.push(Arc::downgrade(&reach));
        reach
    }

    /// The limits that were set while it ran.
    pub(crate) fn limits(&self) -> Limits {
        lock(&self.held).limits.clone()
    }

    /// Keeps limits for the next generation.
    pub(crate) fn set_limits(&self, limits: &Limits) {
        let mut held = lock(&self.held);
        held.limits = held.limits.overlaid(limits);
    }

    /// The links to all that it called.
    pub(crate) fn links(&self) -> Vec<Arc<Link>> {
        lock(&self.held).links.values().cloned().collect()
    }

    /// Counts an event that goes to another extension.
    pub(crate) fn told(&self, listener: &ExtensionId, bytes: usize) {
        let new = |id: &ExtensionId| Arc::new(Link::new(self.id.clone(), id.clone()));
        lock(&self.held).links.entry(listener.clone()).or_insert_with_key(new).told(bytes);
    }

    /// How many events wait for it, and how many are dead letters, of those that are kept.
    pub(crate) fn kept(&self) -> (u64, u64) {
        let counts = lock(&self.keeps).iter().map(|keep| keep.counts()).collect::<Vec<_>>();
        counts.iter().fold((0, 0), |(waiting, dead), it| (waiting + it.0 as u64, dead + it.1 as u64))
    }

    /// How often each kind of access was tried.
    pub(crate) fn tallies(&self) -> BTreeMap<AccessKind, Tally> {
        let called: u64 = self.links().iter().map(|link| link.calls()).sum();
        let tally = |kind| {
            let mut tally = self.log.tally(kind);
            tally.allowed += if kind == AccessKind::Call { called } else { 0 };
            (kind, tally)
        };
        AccessKind::ALL.into_iter().map(tally).collect()
    }
}

impl Reach {
    /// What holds at this moment.
    pub(crate) fn view(&self) -> Guard<Arc<View>> {
        self.view.load()
    }

    /// The way of a call to another extension: what counts it, and the callee. `None` where that
    /// takes a closer look: see [`Reach::find_way`].
    pub(crate) fn way<'v>(
        &self,
        view: &'v View,
        extension: &str,
        method: &str,
    ) -> Option<(&'v Arc<Link>, Arc<Slot>)> {
        let (link, to) = view.ways.get(extension)?;
        let is_free = link.free_under.load(Relaxed) == self.rules.version.load(Relaxed);
        let may = is_free && view.permissions.call.iter().any(|pattern| pattern.allows(extension, method));
        to.upgrade().filter(|_| may).map(|to| (link, to))
    }

    /// The same, where the pair has not been found free to talk under the present rules, or the
    /// callee has a new generation. Looks for the callee only after the permission.
    #[cold]
    pub(crate) fn find_way(
        &self,
        call: u64,
        extension: &str,
        method: &str,
        find: impl FnOnce() -> Result<Arc<Slot>, Error>,
    ) -> Result<(Arc<Link>, Arc<Slot>), Error> {
        let access = Access::Call { extension, method };
        self.verdict(&access).map_err(|reason| self.deny(call, &access, reason))?;
        let to = find()?;
        let mut held = lock(&self.ward.held);
        let new = |id: &ExtensionId| Arc::new(Link::new(self.ward.id.clone(), id.clone()));
        let link = Arc::clone(held.links.entry(to.id.clone()).or_insert_with_key(new));
        if link.is_first() {
            self.ward.log.first(&self.ward.id, call, &access);
        }
        if !self.rules.frees(&link) {
            return Err(self.deny(call, &access, Reason::Rule));
        }
        let view = self.view.load();
        let mut ways = view.ways.clone();
        ways.insert(to.id.clone(), (Arc::clone(&link), Arc::downgrade(&to)));
        self.view.store(Arc::new(View { permissions: Arc::clone(&view.permissions), ways }));
        Ok((link, to))
    }

    /// Lets any other access pass, or not; counts and records it.
    pub(crate) fn check(&self, call: u64, access: &Access<'_>) -> Result<(), Error> {
        if matches!(access, Access::Subprocess(_)) {
            self.meter.add(Counter::Spawns, 1);
        }
        match self.verdict(access) {
            Ok(()) => {
                self.ward.log.allowed(&self.ward.id, call, access, Reason::Granted, false);
                Ok(())
            }
            Err(reason) => Err(self.deny(call, access, reason)),
        }
    }

    /// Counts and records an access that was found to be allowed.
    pub(crate) fn allow(&self, access: &Access<'_>) {
        self.ward.log.allowed(&self.ward.id, 0, access, Reason::Granted, false);
    }

    /// Records what somebody else says to have let pass or not.
    pub(crate) fn claimed(&self, call: u64, access: &Access<'_>, allowed: bool) {
        if matches!(access, Access::Subprocess(_)) {
            self.meter.add(Counter::Spawns, 1);
        }
        let (id, log) = (&self.ward.id, &self.ward.log);
        match (self.verdict(access), allowed) {
            (Ok(()), true) => log.allowed(id, call, access, Reason::Granted, true),
            (Err(_), true) => log.allowed(id, call, access, Reason::Worker, true),
            (verdict, false) => {
                log.denied(id, call, access, verdict.err().unwrap_or(Reason::Worker), true);
                self.meter.denied.fetch_add(1, Relaxed);
            }
        }
    }

    /// Counts the same, without a record of each.
    pub(crate) fn claimed_more(&self, kind: AccessKind, allowed: u64, denied: u64) {
        self.ward.log.count(kind, allowed, denied);
        self.meter.denied.fetch_add(denied, Relaxed);
        if kind == AccessKind::Subprocess {
            self.meter.add(Counter::Spawns, allowed + denied);
        }
    }

    /// Counts and records a system call that the kernel refused.
    pub(crate) fn refused(&self, call: &str) {
        self.ward.log.kernel(&self.ward.id, format!("make the system call {call}"));
        self.meter.denied.fetch_add(1, Relaxed);
    }

    /// What would be said to an access, and why.
    pub(crate) fn verdict(&self, access: &Access<'_>) -> Result<(), Reason> {
        if self.covers(&self.view.load().permissions, access) {
            return match *access {
                Access::Call { extension, .. } if self.rules.blocks(self.ward.id.as_str(), extension) => {
                    Err(Reason::Rule)
                }
                _ => Ok(()),
            };
        }
        let held = lock(&self.ward.held);
        let revoked = held.revoked.iter().rfind(|(gone, _)| self.covers(gone, access));
        Err(match revoked {
            _ if self.quarantined.load(Relaxed) => Reason::Quarantined,
            _ if !self.covers(&self.request, access) => Reason::Manifest,
            _ if self.most.as_ref().is_some_and(|most| !self.covers(most, access)) => Reason::Policy,
            Some((_, at)) => Reason::Revoked { at: *at },
            None => Reason::Grant,
        })
    }

    /// Whether permissions cover an access. A path inside the package may be written in two ways, and a
    /// program in several.
    fn covers(&self, permissions: &Permissions, access: &Access<'_>) -> bool {
        if let Access::Subprocess(program) = *access {
            return may_start(permissions, program);
        }
        if permissions.allows(access) {
            return true;
        }
        let (Access::Fs { path, mode }, Some(root)) = (*access, &self.root) else {
            return false;
        };
        let (Some(path), Some(root)) = (normal(path), root.to_str()) else {
            return false;
        };
        let other = match path.strip_prefix(root).and_then(|inside| inside.strip_prefix('/')) {
            Some(inside) => inside.to_owned(),
            None if path == root => ".".to_owned(),
            None if path.starts_with('/') => return false,
            None => format!("{root}/{path}"),
        };
        permissions.allows(&Access::Fs { path: &other, mode })
    }

    pub(crate) fn deny(&self, call: u64, access: &Access<'_>, reason: Reason) -> Error {
        let id = &self.ward.id;
        self.ward.log.denied(id, call, access, reason, false);
        self.meter.denied.fetch_add(1, Relaxed);
        let hint = match reason {
            Reason::Rule => "a rule of the host blocks calls between the two".to_owned(),
            Reason::Policy => "the host's policy allows it to no extension".to_owned(),
            Reason::PrivateAddress => {
                "the name leads to an address that is not public: have the address itself granted".to_owned()
            }
            Reason::Quarantined => "the extension is in quarantine".to_owned(),
            Reason::Revoked { .. } => "the host took the permission back".to_owned(),
            _ => {
                let request = access.request();
                format!("ask for it in the manifest, [permissions] {request}, and have the host grant it")
            }
        };
        Error::new(ErrorCode::PermissionDenied, format!("{id} may not {access}")).with_hint(hint)
    }

    /// How much it may print from now on, if that is declared.
    pub(crate) fn limit_output(&self, limits: &Limits) {
        if let Some(ByteSize(rate)) = limits.output_rate {
            self.spout.set(rate);
        }
    }

    /// What it may do at this moment.
    pub(crate) fn permissions(&self) -> Arc<Permissions> {
        Arc::clone(&self.view.load().permissions)
    }

    /// Says what is about to be loaded.
    pub(crate) fn begins(&self, unit: &Unit, isolation: Isolation) {
        let _ = self.unit.set((unit.clone(), isolation));
    }

    /// What is loaded, and how far apart from the host.
    pub(crate) fn unit(&self) -> Option<(&Unit, Isolation)> {
        self.unit.get().map(|(unit, isolation)| (unit, *isolation))
    }

    /// Replaces the view, for who holds the ward's lock, and tells the instance of what changed.
    fn publish(&self, now: Permissions) -> Effect {
        let (before, now) = (self.permissions(), Arc::new(now));
        let ways = self.view.load().ways.clone();
        self.view.store(Arc::new(View { permissions: Arc::clone(&now), ways }));
        self.connections.keep(|access| now.allows(access));
        self.runs.keep(&now);
        let instance =
            self.instance.get().and_then(|(instance, isolation)| Some((instance.upgrade()?, isolation)));
        let Some((instance, isolation)) = instance.filter(|_| *now != *before) else {
            return Effect::Now;
        };
        let holds = instance.permissions_changed(&now);
        // Each call goes through here.
        match holds || beside_calls(&before) == beside_calls(&now) {
            true => Effect::Now,
            false if *isolation == Isolation::None => Effect::Never,
            false => Effect::AfterReload,
        }
    }

    /// Has changes told to an instance from now on, and tells it what changed while it was loaded
    /// with `known`.
    ///
    /// # Errors
    /// If something was taken back meanwhile, and the runtime cannot do that to what it handed out.
    pub(crate) fn attach(
        &self,
        instance: &Arc<dyn Instance>,
        isolation: Isolation,
        known: &Permissions,
    ) -> Result<(), Error> {
        let _held = lock(&self.ward.held);
        let _ = self.instance.set((Arc::downgrade(instance), isolation));
        let now = self.permissions();
        let lost = beside_calls(known).beyond(&now);
        let changed = *now != *known;
        if changed && !instance.permissions_changed(&now) && !lost.is_empty() && isolation > Isolation::None {
            let message = format!("{} was revoked while {} was being loaded", lost.join(", "), self.ward.id);
            return Err(Error::new(ErrorCode::PermissionDenied, message).with_hint("load it again"));
        }
        Ok(())
    }
}

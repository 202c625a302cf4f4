//! Which handlers each hook has, in their order.

use std::collections::{BTreeSet, HashMap};
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, AtomicUsize, Ordering::Relaxed};
use std::sync::{Arc, Mutex, Weak};
use std::time::Duration;

use arc_swap::ArcSwap;
use foldhash::fast::RandomState;
use quadriga_abi::limits::Span;
use quadriga_abi::manifest::{Hook, HookMode, OnFailure};
use quadriga_abi::permission::Access;
use quadriga_abi::{Error, ErrorCode, ExtensionId};
use serde::Serialize;

use super::HookContext;
use super::around::Turns;
use super::order::{Claim, order};
use crate::Dispatcher;
use crate::dispatcher::{Core, lock};
use crate::route::Slot;
use crate::state::is_reserved;
use crate::ward::Ward;

type Chains = HashMap<Arc<str>, Arc<Chain>, RandomState>;

/// How many places there are for the names of hooks. A few of a thousand share one.
const PLACES: usize = 1 << 14;

/// All handlers, by hook. Replaced as a whole; who runs a hook never waits.
pub(crate) struct Hooks {
    /// Whether there is a chain for a name with this place: what most hooks have to ask.
    answered: Box<[AtomicBool]>,
    chains: ArcSwap<Chains>,
    /// Held by who changes the chains: the number of the last one.
    changing: Mutex<u32>,
    /// Those around the work of the host.
    pub(super) turns: Turns,
}

/// The handlers of one hook.
pub(crate) struct Chain {
    /// Stays while there are handlers.
    pub(crate) number: u32,
    pub(crate) stages: Vec<Stage>,
    /// Those around the host's work, the outermost first.
    pub(crate) around: Vec<Arc<Handler>>,
    /// How many bytes its last context took.
    pub(crate) size: AtomicUsize,
    unmet: Vec<Unmet>,
}

/// Handlers that may run at the same time.
type Stage = Vec<Arc<Handler>>;

/// A handler whose claim about another cannot be met.
type Unmet = (Arc<Handler>, ExtensionId);

/// One handler of one hook.
pub(crate) struct Handler {
    ward: Weak<Ward>,
    pub(crate) extension: ExtensionId,
    pub(crate) method: Arc<str>,
    pub(crate) hook: Hook,
    /// Whether it stands in the manifest.
    declared: bool,
    pub(crate) calls: AtomicU64,
    pub(crate) failures: AtomicU64,
    /// Failures since it last did well.
    pub(crate) in_a_row: AtomicU32,
    /// Whether it was denied when it was last looked at.
    pub(crate) denied: AtomicBool,
}

/// A handler as it stands in the order of its hook.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct HookStatus {
    /// The hook point.
    pub point: Arc<str>,
    /// Whose handler it is.
    pub extension: ExtensionId,
    /// The method that is called.
    pub method: Arc<str>,
    /// What it may do.
    pub mode: HookMode,
    /// Whether the host waits for it.
    pub awaited: bool,
    /// Lower comes earlier.
    pub priority: i32,
    /// Handlers with the same number run at the same time, where the host wants that.
    pub stage: usize,
    /// How long it may take.
    pub deadline: Duration,
    /// What becomes of the host's work when it fails.
    pub on_failure: OnFailure,
    /// Whether it stands in the manifest, rather than having been added by the extension while it runs.
    pub declared: bool,
    /// Whether it may answer the hook at this moment. One that may not is passed over.
    pub allowed: bool,
    /// Whether it failed too often, and is not called any more.
    pub skipped: bool,
    /// How often it was called.
    pub calls: u64,
    /// How often it failed.
    pub failures: u64,
    /// Those of whom its `before` and `after` say what the order cannot meet.
    pub unmet: Vec<ExtensionId>,
}

/// The place of a hook's name: FNV-1a, <https://datatracker.ietf.org/doc/draft-eastlake-fnv/>, which can be
/// taken when the host is compiled.
pub(crate) const fn place(name: &str) -> usize {
    let (bytes, mut hash, mut next) = (name.as_bytes(), 0xcbf2_9ce4_8422_2325_u64, 0);
    while next < bytes.len() {
        hash = (hash ^ bytes[next] as u64).wrapping_mul(0x100_0000_01b3);
        next += 1;
    }
    (hash ^ (hash >> 32)) as usize % PLACES
}

impl Default for Hooks {
    fn default() -> Self {
        let answered = (0..PLACES).map(|_| AtomicBool::new(false)).collect();
        Self { answered, chains: ArcSwap::default(), changing: Mutex::default(), turns: Turns::default() }
    }
}

impl Hooks {
    /// The handlers of a context's hook, if it has any.
    #[inline]
    pub(crate) fn of<T: HookContext>(&self) -> Option<Arc<Chain>> {
        match self.answered[const { place(T::POINT.name) }].load(Relaxed) {
            true => self.chain(T::POINT.name),
            false => None,
        }
    }

    pub(crate) fn turns(&self) -> &Turns {
        &self.turns
    }

    fn chain(&self, point: &str) -> Option<Arc<Chain>> {
        self.chains.load().get(point).map(Arc::clone)
    }

    /// Adds handlers, and takes away those that are not to stay.
    fn change(&self, add: Vec<(&str, Arc<Handler>)>, stays: impl Fn(&str, &Handler) -> bool) {
        let mut last = lock(&self.changing);
        let mut chains = Chains::clone(&self.chains.load());
        let mut changed: BTreeSet<Arc<str>> = add.iter().map(|(point, _)| Arc::from(*point)).collect();
        let goes = |point: &str, it: &Handler| it.ward.strong_count() == 0 || !stays(point, it);
        changed.extend(
            chains
                .iter()
                .filter(|(point, chain)| chain.all().any(|it| goes(point, it)))
                .map(|(it, _)| Arc::clone(it)),
        );
        for point in &changed {
            let before = chains.remove(point);
            let there = before.iter().flat_map(|chain| chain.all()).filter(|it| !goes(point, it));
            let new = add.iter().filter(|(to, _)| *to == &**point).map(|(_, handler)| handler);
            let handlers: Vec<_> = there.chain(new).map(Arc::clone).collect();
            if !handlers.is_empty() {
                let number = before.as_ref().map_or_else(
                    || {
                        *last = last.wrapping_add(1).max(1);
                        *last
                    },
                    |chain| chain.number,
                );
                chains.insert(Arc::clone(point), Arc::new(Chain::new(number, &handlers)));
            }
        }
        let chains = Arc::new(chains);
        self.chains.store(Arc::clone(&chains));
        for point in changed {
            let place = place(&point);
            let answered = chains.contains_key(&point) || chains.keys().any(|it| self::place(it) == place);
            self.answered[place].store(answered, Relaxed);
        }
    }

    /// Puts what the manifest of a generation says in the place of what an earlier one said. What
    /// failed too often gets another chance.
    pub(crate) fn declare(&self, slot: &Slot) {
        let ward = &slot.reach.ward;
        let manifest = slot.source.as_ref().map(|source| &source.manifest.hooks);
        let chains = self.chains.load();
        let mut there = chains.values().flat_map(|chain| chain.all()).filter(|it| it.is_of(ward)).peekable();
        if there.peek().is_none() && manifest.is_none_or(|hooks| hooks.is_empty()) {
            return;
        }
        there.for_each(|it| it.in_a_row.store(0, Relaxed));
        let new = manifest.into_iter().flatten();
        let add = new.map(|(point, hook)| (point.as_str(), Handler::new(ward, hook.clone(), true))).collect();
        self.change(add, |_, it| !(it.declared && it.is_of(ward)));
    }

    /// Takes away the handlers of an extension that is unloaded.
    pub(crate) fn forget(&self, ward: &Arc<Ward>) {
        if self.chains.load().values().flat_map(|chain| chain.all()).any(|it| it.is_of(ward)) {
            self.change(Vec::new(), |_, it| !it.is_of(ward));
        }
    }

    /// Adds a handler of an extension that runs, or changes what it said of that before.
    pub(crate) fn handle(&self, ward: &Arc<Ward>, point: &str, hook: Hook, most: usize) -> Result<(), Error> {
        if is_reserved(&hook.method) {
            let message = format!("{} keeps {} for its host", ward.id, hook.method);
            return Err(Error::new(ErrorCode::InvalidArguments, message));
        }
        let handler = Handler::new(ward, hook, false);
        let same = |to: &str, it: &Handler| to == point && it.is_made(ward) && it.method == handler.method;
        let chains = self.chains.load();
        let all = chains.iter().flat_map(|(point, chain)| chain.all().map(move |it| (point, it)));
        if all.filter(|(point, it)| it.is_made(ward) && !same(point, it)).count() >= most {
            let message = format!("{} may add {most} handlers of hooks", ward.id);
            return Err(Error::new(ErrorCode::QuotaExceeded, message).with_hint("take some back first"));
        }
        self.change(vec![(point, Arc::clone(&handler))], |point, it| !same(point, it));
        Ok(())
    }

    /// Takes back a handler that an extension added, and says whether it was there.
    pub(crate) fn unhandle(&self, ward: &Arc<Ward>, point: &str, method: &str) -> bool {
        let same = |it: &Handler| it.is_made(ward) && &*it.method == method;
        let there = self.chain(point).is_some_and(|chain| chain.all().any(|it| same(it)));
        if there {
            self.change(Vec::new(), |to, it| !(to == point && same(it)));
        }
        there
    }
}

impl Chain {
    fn new(number: u32, handlers: &[Arc<Handler>]) -> Self {
        let (around, others): (Vec<_>, Vec<_>) =
            handlers.iter().cloned().partition(|it| it.hook.mode == HookMode::Around);
        let (around, unmet_around) = in_order(&around);
        let (stages, mut unmet) = in_order(&others);
        unmet.extend(unmet_around);
        Self { number, stages, around: around.concat(), size: AtomicUsize::new(0), unmet }
    }

    fn all(&self) -> impl Iterator<Item = &Arc<Handler>> {
        self.stages.iter().flatten().chain(&self.around)
    }
}

/// Handlers by stages, and whose claims could not be met.
fn in_order(handlers: &[Arc<Handler>]) -> (Vec<Stage>, Vec<Unmet>) {
    let claims: Vec<Claim<'_>> = handlers
        .iter()
        .map(|it| Claim {
            extension: &it.extension,
            method: &it.method,
            priority: it.hook.priority,
            before: &it.hook.before,
            after: &it.hook.after,
        })
        .collect();
    let order = order(&claims);
    let handler = |place: usize| Arc::clone(&handlers[place]);
    let stages = order.stages.into_iter().map(|stage| stage.into_iter().map(handler).collect()).collect();
    let unmet = order.unmet.into_iter().map(|(whose, other)| (handler(whose), other)).collect();
    (stages, unmet)
}

impl Handler {
    fn new(ward: &Arc<Ward>, hook: Hook, declared: bool) -> Arc<Self> {
        Arc::new(Self {
            ward: Arc::downgrade(ward),
            extension: ward.id.clone(),
            method: Arc::from(hook.method.as_str()),
            hook,
            declared,
            calls: AtomicU64::new(0),
            failures: AtomicU64::new(0),
            in_a_row: AtomicU32::new(0),
            denied: AtomicBool::new(false),
        })
    }

    fn is_of(&self, whose: &Arc<Ward>) -> bool {
        std::ptr::eq(self.ward.as_ptr(), Arc::as_ptr(whose))
    }

    /// Whether an extension added it while it ran.
    fn is_made(&self, whose: &Arc<Ward>) -> bool {
        !self.declared && self.is_of(whose)
    }

    /// The present generation of its extension, while that is still the one that it belongs to.
    pub(crate) fn slot(&self, core: &Core) -> Option<Arc<Slot>> {
        let routes = core.routes.load();
        let slot = routes.get(&self.extension)?;
        std::ptr::eq(self.ward.as_ptr(), Arc::as_ptr(&slot.reach.ward)).then(|| Arc::clone(slot))
    }

    pub(crate) fn deadline(&self, core: &Core) -> Duration {
        self.hook.deadline.map_or(core.policy.hooks.deadline, |Span(deadline)| deadline)
    }

    /// Whether it failed too often.
    pub(crate) fn is_skipped(&self, core: &Core) -> bool {
        self.in_a_row.load(Relaxed) >= core.policy.hooks.failures
    }
}

impl Dispatcher {
    /// The handlers of all hooks, by hook point, each in the order in which they answer.
    pub fn hooks(&self) -> Vec<HookStatus> {
        let core = &self.core;
        let chains = core.hooks.chains.load();
        let mut list = Vec::new();
        for (point, chain) in chains.iter() {
            let around = chain.around.iter().map(std::slice::from_ref);
            let stages = chain.stages.iter().map(Vec::as_slice).chain(around);
            for (stage, handlers) in stages.enumerate() {
                list.extend(handlers.iter().map(|it| {
                    let verdict = |slot: Arc<Slot>| slot.reach.verdict(&Access::Hook(point)).is_ok();
                    let unmet = chain.unmet.iter().filter(|(whose, _)| Arc::ptr_eq(whose, it));
                    HookStatus {
                        point: Arc::clone(point),
                        extension: it.extension.clone(),
                        method: Arc::clone(&it.method),
                        mode: it.hook.mode,
                        awaited: it.hook.is_awaited(),
                        priority: it.hook.priority,
                        stage,
                        deadline: it.deadline(core),
                        on_failure: it.hook.on_failure.unwrap_or(OnFailure::Open),
                        declared: it.declared,
                        allowed: it.slot(core).is_some_and(verdict),
                        skipped: it.is_skipped(core),
                        calls: it.calls.load(Relaxed),
                        failures: it.failures.load(Relaxed),
                        unmet: unmet.map(|(_, other)| other.clone()).collect(),
                    }
                }));
            }
        }
        // Stable: the order within each hook stays.
        list.sort_by(|a, b| a.point.cmp(&b.point));
        list
    }
}

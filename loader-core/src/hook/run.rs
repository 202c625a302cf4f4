//! From a hook to its handlers, and back.

use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::{Duration, Instant};

use futures_util::future::join_all;
use quadriga_abi::manifest::HookMode;
use quadriga_abi::permission::Access;
use quadriga_abi::{Bytes, Error, ErrorCode, Kind, TraceContext, Value, codec};

use super::merge::{Clash, Doc, settle};
use super::reply;
use super::table::{Chain, Handler};
use super::{
    Account, Conflict, Did, HookContext, HookField, HookPoint, Hooked, InHooks, Overruled, Step, Stopped,
    WITHIN,
};
use crate::call::Admitted;
use crate::dispatcher::Core;
use crate::metrics::Tick;
use crate::route::Slot;
use crate::ward::Reason;
use crate::{CallContext, CallOptions, Dispatcher, Outcome, SpanRef};

/// MessagePack, <https://github.com/msgpack/msgpack/blob/master/spec.md>.
const LIST_OF_ONE: u8 = 0x91;

/// Takes a context as it is by now, unless it no longer fits its type.
pub(super) type Accept<'a> = dyn FnMut(&[u8]) -> Result<(), String> + Send + 'a;

/// A handler that may be called, and with what.
pub(super) struct Ready {
    pub(super) slot: Arc<Slot>,
    pub(super) arguments: Bytes,
    /// The fields that are not in there.
    pub(super) withheld: Vec<&'static str>,
}

/// What came of a handler, before its change is made.
pub(super) struct Answer {
    pub(super) took: Duration,
    pub(super) said: Said,
    pub(super) withheld: Vec<&'static str>,
}

pub(super) enum Said {
    Did(Did),
    Patch(Doc),
}

/// What holds for all calls of a hook.
#[derive(Clone, Copy)]
pub(super) struct Way {
    pub(super) deadline: Option<Instant>,
    trace: Option<TraceContext>,
    depth: u16,
    parent: SpanRef,
    hooks: InHooks,
    detached: bool,
}

/// One hook on its way through its handlers.
pub(super) struct Run<'a> {
    pub(super) core: &'a Arc<Core>,
    pub(super) chain: &'a Chain,
    pub(super) point: &'static HookPoint,
    way: Way,
    /// A list of one: the context as it is by now.
    arguments: Bytes,
    /// The context, once somebody had to look into it.
    context: Option<Doc>,
    /// The arguments without some fields, for those who may not see them.
    partial: Vec<(Vec<&'static str>, Bytes)>,
    pub(super) account: Account,
}

impl Dispatcher {
    /// Runs a hook: hands the context to each extension that answers it, in their order, and gives
    /// it back with their changes. Where there is no handler, this costs a look at a flag.
    ///
    /// Guests that run in this process run on the calling thread until they first have to wait, as
    /// with [`Dispatcher::call`]; those that run at the same time as others don't.
    ///
    /// # Errors
    /// If a handler objects, if one fails that fails closed, if two are in conflict and the hook
    /// point wants neither to win, or if the hook led to itself.
    pub async fn hook<T: HookContext>(&self, context: T) -> Result<Hooked<T>, Stopped> {
        match self.core.hooks.of::<T>() {
            None => Ok(Hooked { context, account: Account::default() }),
            Some(chain) => run(&self.core, &chain, context, CallOptions::default()).await,
        }
    }

    /// The same with a deadline or trace for all of it, or without ever running a guest on the
    /// calling thread ([`CallOptions::detached`]). Streams are not for hooks, and are ignored.
    ///
    /// # Errors
    /// As for [`Dispatcher::hook`].
    pub async fn hook_with<T: HookContext>(
        &self,
        context: T,
        options: CallOptions,
    ) -> Result<Hooked<T>, Stopped> {
        match self.core.hooks.of::<T>() {
            None => Ok(Hooked { context, account: Account::default() }),
            Some(chain) => run(&self.core, &chain, context, options).await,
        }
    }
}

async fn run<T: HookContext>(
    core: &Arc<Core>,
    chain: &Chain,
    mut context: T,
    options: CallOptions,
) -> Result<Hooked<T>, Stopped> {
    let failed = |error| Stopped { error, account: Account::default() };
    let mut run = Run::new(core, chain, &context, options).map_err(failed)?;
    let mut accept = |bytes: &[u8]| {
        context = codec::from_bytes(bytes).map_err(|error| error.to_string())?;
        Ok(())
    };
    let mut result = run.all(&mut accept).await;
    if result.is_ok() {
        result = run.without_work(&mut accept);
    }
    match result {
        Ok(()) => Ok(Hooked { context, account: run.account }),
        Err(error) => Err(Stopped { error, account: run.account }),
    }
}

/// Refuses a hook in the course of itself.
fn further_in(within: InHooks, chain: &Chain, point: &HookPoint) -> Result<InHooks, Error> {
    let wrong = |message| {
        let hint = "a handler led to it: by a call of a function of the host that runs the hook";
        Err(Error::new(ErrorCode::HookRecursion, message).with_hint(hint))
    };
    if within.contains(chain.number) {
        return wrong(format!("the hook {} led to itself", point.name));
    }
    match within.and(chain.number) {
        Some(within) => Ok(within),
        None => wrong(format!("the hook {} stands within four others", point.name)),
    }
}

impl<'a> Run<'a> {
    /// A hook at its beginning.
    pub(super) fn new<T: HookContext>(
        core: &'a Arc<Core>,
        chain: &'a Chain,
        context: &T,
        options: CallOptions,
    ) -> Result<Self, Error> {
        let point = T::POINT;
        let CallOptions { deadline, trace, depth, parent, hooks, detached, .. } = options;
        let mut way = Way { deadline, trace, depth, parent, hooks, detached };
        if let Some(CallContext { deadline, depth, trace, span, hooks, .. }) = WITHIN.get() {
            way.deadline = [way.deadline, deadline].into_iter().flatten().min();
            (way.depth, way.trace, way.parent, way.hooks) = (depth + 1, way.trace.or(trace), span, hooks);
        }
        way.hooks = further_in(way.hooks, chain, point)?;
        let size = chain.size.load(Relaxed);
        let mut bytes = Vec::with_capacity(size);
        bytes.push(LIST_OF_ONE);
        codec::append(&mut bytes, context).map_err(|error| {
            let message = format!("the context of the hook {} cannot be sent: {error}", point.name);
            Error::new(ErrorCode::InvalidValue, message)
        })?;
        if bytes.len() != size {
            chain.size.store(bytes.len(), Relaxed);
        }
        let (arguments, account) = (Bytes::from(bytes), Account::default());
        Ok(Self { core, chain, point, way, arguments, context: None, partial: Vec::new(), account })
    }

    /// All handlers but those around the work.
    pub(super) async fn all(&mut self, accept: &mut Accept<'_>) -> Result<(), Error> {
        let chain = self.chain;
        for stage in &chain.stages {
            if self.point.parallel && stage.len() > 1 {
                self.together(stage, accept).await?;
                continue;
            }
            for handler in stage {
                let ready = self.prepare(handler)?;
                let answer = self.ask(handler, ready, self.way.detached).await;
                self.note(handler, answer, accept)?;
            }
        }
        Ok(())
    }

    /// Handlers that run at the same time, on the same context.
    async fn together(&mut self, stage: &[Arc<Handler>], accept: &mut Accept<'_>) -> Result<(), Error> {
        let mut asked = Vec::with_capacity(stage.len());
        for handler in stage {
            asked.push((handler, self.prepare(handler)?));
        }
        let this = &*self;
        let asked = asked.into_iter().map(|(handler, ready)| this.ask(handler, ready, true));
        let mut answers = join_all(asked).await;
        let conflict = self.settle(stage, &mut answers);
        // All of them were asked, so all of them are accounted for.
        let mut stopped = Ok(());
        for (handler, answer) in stage.iter().zip(answers) {
            let noted = self.note(handler, answer, accept);
            stopped = stopped.and(noted);
        }
        stopped.and(conflict)
    }

    /// Settles the conflicts among the patches of those that ran at the same time.
    fn settle(&mut self, stage: &[Arc<Handler>], answers: &mut [Answer]) -> Result<(), Error> {
        let mut patching = Vec::new();
        let mut patches = Vec::new();
        for (handler, answer) in stage.iter().zip(answers) {
            if let Said::Patch(patch) = &mut answer.said {
                patches.push(std::mem::replace(patch, Doc::Leaf(Value::Nil)));
                patching.push((handler.extension.clone(), &mut answer.said));
            }
        }
        let settled = settle(&mut patches, self.point.conflict);
        let id = |place: usize| patching[place].0.clone();
        let result = match settled {
            Ok(clashes) => {
                let overruled = clashes.into_iter().map(|Clash { field, first, second }| {
                    let (kept, lost) = match self.point.conflict {
                        Conflict::LastWins => (second, first),
                        _ => (first, second),
                    };
                    Overruled { field, lost: id(lost), kept: id(kept) }
                });
                self.account.overruled.extend(overruled);
                Ok(())
            }
            Err(Clash { field, first, second }) => {
                let (point, first, second) = (self.point.name, id(first), id(second));
                let message =
                    format!("{first} and {second} changed {field} of the hook {point} at the same time");
                let hint = "have one name the other in `before` or `after`, or give them priorities";
                Err(Error::new(ErrorCode::HookConflict, message).with_hint(hint))
            }
        };
        for ((_, said), patch) in patching.into_iter().zip(patches) {
            *said = match result {
                Ok(()) => Said::Patch(patch),
                // Where neither wins nothing is changed.
                Err(_) => Said::Did(Did::Nothing),
            };
        }
        result
    }

    /// Whether a handler may be called, and with what.
    pub(super) fn prepare(&mut self, handler: &Handler) -> Result<Result<Ready, Did>, Error> {
        if handler.is_skipped(self.core) {
            return Ok(Err(Did::Skipped));
        }
        let Some(slot) = handler.slot(self.core) else { return Ok(Err(Did::Loading)) };
        let access = Access::Hook(self.point.name);
        match slot.reach.verdict(&access) {
            Ok(()) => {
                slot.reach.allow(&access);
                if handler.denied.load(Relaxed) {
                    handler.denied.store(false, Relaxed);
                }
            }
            // What was a part of the hook is missing now.
            Err(reason @ Reason::Quarantined) => {
                return Ok(Err(Did::Failed(slot.reach.deny(0, &access, reason))));
            }
            Err(reason) => {
                // Once: it did not try anything.
                if !handler.denied.swap(true, Relaxed) {
                    slot.reach.deny(0, &access, reason);
                }
                return Ok(Err(Did::Denied));
            }
        }
        let mut withheld = Vec::new();
        for HookField { name, .. } in self.point.fields.iter().filter(|field| field.sensitive) {
            let field = format!("{}:{name}", self.point.name);
            let access = Access::Sensitive(&field);
            match slot.reach.verdict(&access) {
                Ok(()) => slot.reach.allow(&access),
                Err(_) => withheld.push(*name),
            }
        }
        let arguments = if withheld.is_empty() { self.arguments.clone() } else { self.without(&withheld)? };
        Ok(Ok(Ready { slot, arguments, withheld }))
    }

    /// The arguments without some fields of the context.
    fn without(&mut self, withheld: &[&'static str]) -> Result<Bytes, Error> {
        if let Some((_, bytes)) = self.partial.iter().find(|(names, _)| names == withheld) {
            return Ok(bytes.clone());
        }
        let context = self.context()?;
        let fields = context.fields().ok_or_else(|| self.wrong("it is no map"))?;
        let seen = fields.iter().filter(|(name, _)| !withheld.contains(&name.as_str()));
        let bytes = encoded(&Doc::Map(seen.map(|(name, doc)| (name.clone(), doc.clone())).collect()))?;
        self.partial.push((withheld.to_vec(), bytes.clone()));
        Ok(bytes)
    }

    fn context(&mut self) -> Result<Doc, Error> {
        if let Some(context) = &self.context {
            return Ok(context.clone());
        }
        let context = Doc::read(&self.arguments[1..]).map_err(|why| self.wrong(&why))?;
        Ok(self.context.insert(context).clone())
    }

    fn wrong(&self, why: &str) -> Error {
        Error::new(ErrorCode::InvalidValue, format!("the context of the hook {}: {why}", self.point.name))
    }

    /// Calls a handler and reads what it says.
    async fn ask(&self, handler: &Arc<Handler>, ready: Result<Ready, Did>, detached: bool) -> Answer {
        let ready = match ready {
            Ok(ready) => ready,
            Err(did) => return Answer { took: Duration::ZERO, said: Said::Did(did), withheld: Vec::new() },
        };
        let started = Tick::now();
        let Ready { slot, arguments, withheld } = ready;
        let said = match self.admit(handler, slot, arguments) {
            Err(error) => Said::Did(Did::Failed(error)),
            Ok(admitted) if !handler.hook.is_awaited() => {
                self.tell(handler, admitted);
                Said::Did(Did::Told)
            }
            Ok(admitted) => {
                let outcome = match detached {
                    true => Outcome::Pending(self.core.detach(admitted)),
                    false => admitted.run().into(),
                };
                match outcome.result().await {
                    Ok(reply) => reply::read(self.point, handler, &reply, &withheld),
                    Err(error) => Said::Did(Did::Failed(error)),
                }
            }
        };
        Answer { took: Tick::now().since(started), said, withheld }
    }

    pub(super) fn admit(
        &self,
        handler: &Handler,
        slot: Arc<Slot>,
        arguments: Bytes,
    ) -> Result<Admitted, Error> {
        let Way { deadline, trace, depth, parent, hooks, .. } = self.way;
        // The time of those around the work stands still while that is done.
        let within = (handler.hook.mode != HookMode::Around).then(|| handler.deadline(self.core));
        let options = CallOptions { deadline, within, trace, depth, parent, hooks, ..CallOptions::default() };
        handler.calls.fetch_add(1, Relaxed);
        let mut admitted = self.core.admit_or_find(slot, &handler.method, arguments, options)?;
        admitted.call.envelope.kind = Kind::Hook;
        Ok(admitted)
    }

    /// Has a handler run for which nobody waits.
    fn tell(&self, handler: &Arc<Handler>, admitted: Admitted) {
        let (core, handler, point) = (Arc::downgrade(self.core), Arc::clone(handler), self.point);
        let told = self.core.detach(admitted);
        self.core.executor().spawn(async move {
            let result = told.await;
            if let Some(core) = core.upgrade() {
                handler.count(&core, point, result.err().as_ref());
            }
        });
    }

    /// Makes the change of a handler, and takes down what it did.
    pub(super) fn note(
        &mut self,
        handler: &Handler,
        answer: Answer,
        accept: &mut Accept<'_>,
    ) -> Result<(), Error> {
        let Answer { took, said, withheld } = answer;
        let did = match said {
            Said::Did(did) => did,
            Said::Patch(patch) => match self.change(&patch, accept) {
                Ok(true) => Did::Changed(patch.changes()),
                Ok(false) => Did::Nothing,
                Err(why) => {
                    let message = format!("{}/{}: {why}", handler.extension, handler.method);
                    Did::Failed(Error::new(ErrorCode::InvalidValue, message))
                }
            },
        };
        match &did {
            Did::Failed(error) => handler.count(self.core, self.point, Some(error)),
            Did::Told | Did::Skipped | Did::Denied | Did::Loading => {}
            _ => handler.count(self.core, self.point, None),
        }
        let result = self.verdict(handler, &did);
        let (extension, method) = (handler.extension.clone(), Arc::clone(&handler.method));
        self.account.steps.push(Step { extension, method, mode: handler.hook.mode, took, did, withheld });
        result
    }

    /// Whether the hook goes on after what a handler did.
    pub(super) fn verdict(&self, handler: &Handler, did: &Did) -> Result<(), Error> {
        let (id, point) = (&handler.extension, self.point.name);
        let error = match did {
            Did::Vetoed(reason) => Error::new(ErrorCode::HookVetoed, reason.clone()),
            Did::Failed(error) if handler.hook.is_closed() => {
                let message = format!("{id} failed at the hook {point}, which does not go on without it");
                Error::new(ErrorCode::HookFailed, message).with_cause(error.clone())
            }
            Did::Skipped if handler.hook.is_closed() => {
                let message =
                    format!("{id} failed too often at the hook {point}, which does not go on without it");
                Error::new(ErrorCode::HookFailed, message).with_hint("reload it, or unload it")
            }
            _ => return Ok(()),
        };
        Err(error.in_extension(id.as_str()))
    }

    /// Changes the context, and says whether it is another now.
    pub(super) fn change(&mut self, patch: &Doc, accept: &mut Accept<'_>) -> Result<bool, String> {
        let before = self.context().map_err(|error| error.message.clone())?;
        let mut changed = before.clone();
        changed.apply(patch);
        if changed == before {
            return Ok(false);
        }
        let arguments = encoded(&changed).map_err(|error| error.message.clone())?;
        accept(&arguments[1..]).map_err(|why| format!("the context would not be one any more: {why}"))?;
        (self.arguments, self.context) = (arguments, Some(changed));
        self.partial.clear();
        Ok(true)
    }
}

impl Handler {
    /// Counts a call, and reports a handler that fails too often.
    fn count(&self, core: &Core, point: &HookPoint, error: Option<&Error>) {
        let Some(error) = error else {
            // Mostly it is zero already, and then nobody has to write.
            if self.in_a_row.load(Relaxed) != 0 {
                self.in_a_row.store(0, Relaxed);
            }
            return;
        };
        self.failures.fetch_add(1, Relaxed);
        let (point, extension) = (point.name, self.extension.as_str());
        tracing::warn!(target: "quadriga::hook", point, extension, code = %error.code, "{error}");
        if self.in_a_row.fetch_add(1, Relaxed) + 1 == core.policy.hooks.failures
            && let Some(slot) = self.slot(core)
        {
            let (times, method) = (core.policy.hooks.failures, &self.method);
            let what = format!("have {method} skipped at the hook {point}: it failed {times} times in a row");
            slot.reach.ward.log.managed(&self.extension, what, Reason::Failures);
        }
    }
}

/// Encodes a list of one.
fn encoded(doc: &Doc) -> Result<Bytes, Error> {
    let mut bytes = vec![LIST_OF_ONE];
    match codec::append(&mut bytes, &doc.to_value()) {
        Ok(()) => Ok(bytes.into()),
        Err(error) => Err(Error::new(ErrorCode::InvalidValue, error.to_string())),
    }
}

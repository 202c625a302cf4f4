//! One call to many extensions, and what came of it in each.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::{Duration, Instant};

use futures_util::stream::{self, StreamExt as _};
use quadriga_abi::limits::ByteSize;
use quadriga_abi::permission::Access;
use quadriga_abi::{Bytes, Error, ErrorCode, ExtensionId, RuntimeKind, TraceContext};
use serde::{Deserialize, Serialize};

use crate::call::LATE;
use crate::dispatcher::Core;
use crate::route::Slot;
use crate::state::is_reserved;
use crate::ward::Reason;
use crate::{BoxFuture, Bridge, CallContext, CallOptions, Dispatcher};

/// How much longer than its deadline a call may take to say so, before nobody waits for that any more.
const GRACE: Duration = Duration::from_millis(200);

/// What an entry takes beside its value, about.
const ENTRY: u64 = 64;

/// For whom a broadcast is: the extensions for which all of this holds. Empty, it is for all.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct BroadcastFilter {
    /// What runs them.
    pub runtime: Option<RuntimeKind>,
    /// One of the `tags` in their manifests.
    pub tag: Option<String>,
    /// A capability that they provide: its name, such as `"cache"`, or name and range, such as
    /// `"cache@^1.2"`.
    pub provides: Option<String>,
}

/// How a broadcast is made.
#[derive(Debug, Clone)]
pub struct BroadcastOptions {
    /// How long all of it may take. What has not answered by then has failed with `deadline_exceeded`.
    pub timeout: Duration,
    /// How long each extension may take, from when its call begins.
    pub each: Option<Duration>,
    /// How many calls are under way at the same time; the others wait for their turn.
    pub at_once: usize,
    /// The distributed trace that it is a part of.
    pub trace: Option<TraceContext>,
}

/// What one extension answered to a broadcast.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Answer {
    /// Which one.
    pub extension: ExtensionId,
    /// Its result, one MessagePack value, or why there is none.
    pub result: Result<Bytes, Error>,
}

/// A broadcast on its way.
pub(crate) struct Broadcast {
    pub(crate) method: String,
    pub(crate) arguments: Bytes,
    pub(crate) options: BroadcastOptions,
    /// Who makes it, in the course of which call; none is the host.
    pub(crate) by: Option<(Bridge, CallContext)>,
    /// The most bytes that all answers may have together.
    pub(crate) room: u64,
}

impl Default for BroadcastOptions {
    fn default() -> Self {
        Self { timeout: Duration::from_secs(30), each: None, at_once: 16, trace: None }
    }
}

impl Dispatcher {
    /// Calls a method of each loaded extension that the filter is for, with the same encoded arguments,
    /// and collects what came of it: one entry for each of them, by id. One that does not have the method
    /// has an entry too, with `unknown_method`. What the host itself provides is called by nobody so.
    ///
    /// Never runs a guest on the calling thread. Dropped, it gives all the calls up.
    ///
    /// # Errors
    /// If the filter cannot be read. What goes wrong in an extension is in its entry; so is
    /// `message_too_large`, where the answers have more than
    /// [`Policy::message_size`](crate::Policy::message_size) together.
    pub async fn broadcast(
        &self,
        filter: &BroadcastFilter,
        method: &str,
        arguments: impl Into<Bytes>,
        options: BroadcastOptions,
    ) -> Result<Vec<Answer>, Error> {
        let (core, ids) = (Arc::clone(&self.core), self.core.audience(filter)?);
        let (method, arguments, room) = (method.to_owned(), arguments.into(), core.policy.message_size);
        let broadcast = Broadcast { method, arguments, options, by: None, room };
        // On our own executor, which has timers.
        let collecting = async move { Ok(core.broadcast(ids, broadcast).await) };
        self.core.on_executor(collecting).await
    }
}

impl Core {
    /// Those that a filter is for, by id.
    pub(crate) fn audience(&self, filter: &BroadcastFilter) -> Result<Vec<ExtensionId>, Error> {
        let wrong = |why: &dyn std::fmt::Display| {
            let message = format!("provides: {why}; expected a capability such as \"cache\" or \"cache@^1\"");
            Error::new(ErrorCode::InvalidArguments, message)
        };
        let provides =
            match filter.provides.as_deref().map(|text| text.split_once('@').unwrap_or((text, "*"))) {
                Some(("", _)) => return Err(wrong(&"it is empty")),
                Some((name, range)) => {
                    Some((name, semver::VersionReq::parse(range).map_err(|error| wrong(&error))?))
                }
                None => None,
            };
        let is_meant = |slot: &Slot| {
            let Some(manifest) = slot.source.as_ref().map(|source| &source.manifest) else { return false };
            filter.runtime.as_ref().is_none_or(|kind| slot.kind == *kind)
                && filter.tag.as_ref().is_none_or(|tag| manifest.extension.tags.iter().any(|it| it == tag))
                && provides.as_ref().is_none_or(|(name, range)| {
                    manifest.provides().any(|(its, version)| its == *name && range.matches(&version))
                })
        };
        let routes = self.routes.load();
        let mut ids: Vec<ExtensionId> =
            routes.values().filter(|slot| is_meant(slot)).map(|slot| slot.id.clone()).collect();
        ids.sort_unstable();
        Ok(ids)
    }

    /// Calls each of them, some at a time. On an executor that has timers.
    pub(crate) async fn broadcast(self: Arc<Self>, ids: Vec<ExtensionId>, it: Broadcast) -> Vec<Answer> {
        let within = it.by.as_ref().and_then(|(_, parent)| parent.deadline);
        let own = Instant::now().checked_add(it.options.timeout);
        let until = [within, own].into_iter().flatten().min();
        let (room, at_once, it) =
            (Arc::new(AtomicU64::new(it.room)), it.options.at_once.max(1), Arc::new(it));
        let calls = ids.into_iter().map(move |extension| {
            let (core, it, room) = (Arc::clone(&self), Arc::clone(&it), Arc::clone(&room));
            async move {
                let each = it.options.each.and_then(|each| Instant::now().checked_add(each));
                let deadline = [until, each].into_iter().flatten().min();
                let call = it.call(&core, &extension, deadline)?;
                let result = match deadline {
                    // One that nobody can end holds up nobody here.
                    Some(at) => {
                        tokio::time::timeout_at((at + GRACE).into(), call).await.unwrap_or_else(|_| {
                            let late = Error::new(ErrorCode::DeadlineExceeded, LATE);
                            Err(late.in_extension(extension.as_str()))
                        })
                    }
                    None => call.await,
                };
                match result {
                    // It was unloaded meanwhile, or is not to be called any more.
                    Err(error) if error.extension.is_none() && is_out(error.code) => None,
                    result => Some(Answer { result: fits(&room, result), extension }),
                }
            }
        });
        let answers = stream::iter(calls).buffer_unordered(at_once);
        let mut answers: Vec<Answer> = answers.filter_map(std::future::ready).collect().await;
        answers.sort_unstable_by(|a, b| a.extension.cmp(&b.extension));
        answers
    }
}

impl Broadcast {
    /// Begins the call of one extension; `None` for one that it is not to know of.
    fn call(
        &self,
        core: &Arc<Core>,
        to: &ExtensionId,
        deadline: Option<Instant>,
    ) -> Option<BoxFuture<'static, Result<Bytes, Error>>> {
        let (method, arguments) = (&*self.method, self.arguments.clone());
        let Some((bridge, parent)) = &self.by else {
            let options = CallOptions { deadline, trace: self.options.trace, ..CallOptions::default() };
            return Some(Box::pin(core.begin(to.as_str(), method, arguments, options.detached()).result()));
        };
        let (_, reach) = bridge.here().ok()?;
        let access = Access::Call { extension: to.as_str(), method };
        match reach.verdict(&access) {
            Ok(()) => {}
            // It may call it, and somebody put a rule between the two.
            Err(Reason::Rule) => {
                reach.deny(parent.id, &access, Reason::Rule);
                return None;
            }
            // What it was not granted it does not ask for here.
            Err(_) => return None,
        }
        let parent = CallContext { deadline, ..*parent };
        Some(bridge.call_detached(&parent, to.as_str(), method, arguments))
    }

    /// Refuses an extension's broadcast that could reach nobody.
    pub(crate) fn check(caller: &Bridge, parent: &CallContext, method: &str) -> Result<(), Error> {
        if is_reserved(method) {
            let message = format!("extensions keep {method} for their host");
            return Err(Error::new(ErrorCode::PermissionDenied, message));
        }
        let (_, reach) = caller.here()?;
        if reach.permissions().call.iter().any(|pattern| pattern.allows_method(method)) {
            return Ok(());
        }
        let access = Access::Call { extension: "*", method };
        Err(match reach.verdict(&access) {
            Err(reason) => reach.deny(parent.id, &access, reason),
            Ok(()) => return Ok(()),
        })
    }
}

/// Whether an error of the dispatcher's says that an extension is not among those that are called.
fn is_out(code: ErrorCode) -> bool {
    matches!(code, ErrorCode::UnknownExtension | ErrorCode::PermissionDenied)
}

/// Takes the room that an answer needs, or puts an error in its place.
fn fits(room: &AtomicU64, result: Result<Bytes, Error>) -> Result<Bytes, Error> {
    let size = match &result {
        Ok(value) => value.len(),
        Err(error) => error.message.len() + error.hint.as_ref().map_or(0, String::len),
    } as u64;
    match room.fetch_update(Relaxed, Relaxed, |room| room.checked_sub(size.saturating_add(ENTRY))) {
        Ok(_) => result,
        Err(left) => {
            let [size, left] = [size, left].map(ByteSize);
            let message = format!("the answer takes {size}, and the answers of all have {left} left");
            Err(Error::new(ErrorCode::MessageTooLarge, message))
        }
    }
}

//! Handlers that stand around the host's work: each is called before it, has it go on with
//! `quadriga.hooks/proceed`, gets what came of it, and may put something else in its place.

use std::collections::HashMap;
use std::future::Future;
use std::pin::pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use futures_util::future::{self, Either};
use quadriga_abi::{Bytes, Error, ErrorCode, ExtensionId, codec};
use tokio::sync::oneshot;
use tokio::time::Timeout;

use super::run::{Accept, Answer, Ready, Run, Said};
use super::table::Handler;
use super::{Account, Did, Finished, HookWork, Stopped, reply};
use crate::dispatcher::{Core, lock};
use crate::metrics::Tick;
use crate::{BoxFuture, CallOptions, Dispatcher};

/// What the host does for a context; gives the outcome, encoded.
type Work<'a> = Box<dyn FnOnce() -> BoxFuture<'a, Result<Bytes, Error>> + Send + 'a>;

/// What the handlers stand around.
struct Inner<'a> {
    accept: &'a mut Accept<'a>,
    /// None once it was begun.
    work: Option<Work<'a>>,
    /// Says what keeps an outcome from being one.
    check: &'a (dyn Fn(&[u8]) -> Result<(), String> + Sync),
}

/// Handlers whose call is under way and has not gone on yet, by the id of the call.
#[derive(Default)]
pub(crate) struct Turns(Mutex<HashMap<u64, Turn>>);

struct Turn {
    /// Whose call it is: nobody else goes on for it.
    extension: ExtensionId,
    go: oneshot::Sender<Proceed>,
}

/// A handler that wants the work to go on, perhaps with a change of the context.
struct Proceed {
    patch: Option<Bytes>,
    done: oneshot::Sender<Result<Bytes, Error>>,
}

/// Takes the turn of a call back when that is over.
struct Taken<'a>(&'a Turns, u64);

impl Drop for Taken<'_> {
    fn drop(&mut self) {
        lock(&self.0.0).remove(&self.1);
    }
}

impl Turns {
    fn open(&self, call: u64, extension: &ExtensionId) -> (Taken<'_>, oneshot::Receiver<Proceed>) {
        let (go, went) = oneshot::channel();
        lock(&self.0).insert(call, Turn { extension: extension.clone(), go });
        (Taken(self, call), went)
    }

    /// Has the work go on within a handler's call, and waits for what comes of it.
    pub(crate) fn proceed(
        &self,
        call: u64,
        extension: &ExtensionId,
        patch: Option<Bytes>,
    ) -> Result<BoxFuture<'static, Result<Bytes, Error>>, Error> {
        let turn = {
            let mut turns = lock(&self.0);
            let own = turns.get(&call).is_some_and(|turn| turn.extension == *extension);
            if own { turns.remove(&call) } else { None }
        };
        let (done, receive) = oneshot::channel();
        if turn.is_none_or(|turn| turn.go.send(Proceed { patch, done }).is_err()) {
            let message = "there is no work to go on with";
            let hint = "a handler with mode = \"around\" proceeds once, in the course of its call";
            return Err(Error::new(ErrorCode::InvalidArguments, message).with_hint(hint));
        }
        Ok(Box::pin(async move {
            let ended = || Err(Error::new(ErrorCode::Cancelled, "the host no longer waits for the handler"));
            receive.await.unwrap_or_else(|_| ended())
        }))
    }
}

impl Dispatcher {
    /// Runs a hook and, if nobody objects, the work that it is about, with the handlers of
    /// `mode = "around"` around it. `work` gets the context with all changes, and is done once or
    /// not at all. Where there is no handler, this costs a look at a flag.
    ///
    /// Handlers that stand around the work run as with [`CallOptions::detached`].
    ///
    /// # Errors
    /// Those of [`Dispatcher::hook`]; what the work fails with, unless a handler put an outcome in
    /// its place; and `hook_failed` for a handler around it that fails closed, before the work or
    /// after it was done, which [`Account::worked`] tells.
    pub async fn hook_around<T, F, W>(
        &self,
        context: T,
        options: CallOptions,
        work: F,
    ) -> Result<Finished<T::Outcome>, Stopped>
    where
        T: HookWork,
        F: FnOnce(T) -> W + Send,
        W: Future<Output = Result<T::Outcome, Error>> + Send,
    {
        let core = &self.core;
        let Some(chain) = core.hooks.of::<T>() else {
            let (result, account) = (work(context).await, Account { worked: true, ..Account::default() });
            return finish(result, account);
        };
        let failed = |error| Stopped { error, account: Account::default() };
        let mut run = Run::new(core, &chain, &context, options).map_err(failed)?;
        let context = Mutex::new(Some(context));
        let mut accept = |bytes: &[u8]| {
            let changed = codec::from_bytes(bytes).map_err(|error| error.to_string())?;
            *lock(&context) = Some(changed);
            Ok(())
        };
        if let Err(error) = run.all(&mut accept).await {
            return Err(Stopped { error, account: run.account });
        }
        if chain.around.is_empty() {
            let Some(context) = context.into_inner().unwrap_or_else(PoisonError::into_inner) else {
                return finish(Err(done_before()), run.account);
            };
            run.account.worked = true;
            return finish(work(context).await, run.account);
        }
        // The outcome as the host's work gave it, with its encoded form: what is not replaced needs
        // no way back.
        let given: Mutex<Option<(Bytes, T::Outcome)>> = Mutex::new(None);
        let begin: Work<'_> = Box::new(|| {
            let context = lock(&context).take();
            Box::pin(async {
                let context = context.ok_or_else(done_before)?;
                let outcome = work(context).await?;
                let bytes = Bytes::from(codec::to_bytes(&outcome).map_err(|error| {
                    let message = format!("the outcome of {} cannot be sent: {error}", T::POINT.name);
                    Error::new(ErrorCode::InvalidValue, message)
                })?);
                *lock(&given) = Some((bytes.clone(), outcome));
                Ok(bytes)
            })
        });
        let check =
            |bytes: &[u8]| codec::from_bytes::<T::Outcome>(bytes).map(drop).map_err(|it| it.to_string());
        let mut inner = Inner { accept: &mut accept, work: Some(begin), check: &check };
        let result = run.around(&chain.around, &mut inner).await;
        drop(inner);
        let result = result.and_then(|bytes| match given.into_inner() {
            Ok(Some((same, outcome))) if same == bytes => Ok(outcome),
            _ => codec::from_bytes(&bytes).map_err(|it| Error::new(ErrorCode::InvalidValue, it.to_string())),
        });
        finish(result, run.account)
    }
}

fn done_before() -> Error {
    Error::new(ErrorCode::Internal, "the work was done before")
}

/// Gives a future so long, on whichever executor it is polled.
fn limited<F: Future>(core: &Core, limit: Duration, future: F) -> Timeout<F> {
    let _entered = core.executor().enter();
    tokio::time::timeout(limit, future)
}

fn finish<T>(result: Result<T, Error>, account: Account) -> Result<Finished<T>, Stopped> {
    match result {
        Ok(outcome) => Ok(Finished { outcome, account }),
        Err(error) => Err(Stopped { error, account }),
    }
}

impl Run<'_> {
    /// What stands around the host's work cannot be met where the host does none within the hook.
    pub(super) fn without_work(&mut self, accept: &mut Accept<'_>) -> Result<(), Error> {
        for handler in &self.chain.around {
            let message = format!("the host does no work within the hook {}", self.point.name);
            let said = Said::Did(Did::Failed(Error::new(ErrorCode::Unsupported, message)));
            self.note(handler, Answer { took: Duration::ZERO, said, withheld: Vec::new() }, accept)?;
        }
        Ok(())
    }

    /// Calls the first of these handlers, and has those within it and the work go on where it says.
    fn around<'s>(
        &'s mut self,
        handlers: &'s [Arc<Handler>],
        inner: &'s mut Inner<'_>,
    ) -> BoxFuture<'s, Result<Bytes, Error>> {
        Box::pin(async move {
            let Some((handler, within)) = handlers.split_first() else {
                let Some(work) = inner.work.take() else {
                    return Err(done_before());
                };
                self.account.worked = true;
                return work().await;
            };
            // Those within it come after it in the account, though they are done first.
            let place = self.account.steps.len();
            let mut made = Made { said: Said::Did(Did::Nothing), took: Duration::ZERO, outcome: None };
            let mut withheld = Vec::new();
            match self.prepare(handler)? {
                Err(did) => made.said = Said::Did(did),
                Ok(ready) => {
                    withheld.clone_from(&ready.withheld);
                    made = self.surround(handler, ready, within, inner).await;
                }
            }
            let Made { said, took, outcome } = made;
            let noted = self.note(handler, Answer { took, said, withheld }, inner.accept);
            if let Some(step) = self.account.steps.pop() {
                self.account.steps.insert(place, step);
            }
            noted?;
            match outcome {
                Some(outcome) => outcome,
                // It is as if it were not there.
                None => self.around(within, inner).await,
            }
        })
    }

    /// One handler, and all that is within it.
    async fn surround(
        &mut self,
        handler: &Arc<Handler>,
        ready: Ready,
        within: &[Arc<Handler>],
        inner: &mut Inner<'_>,
    ) -> Made {
        let (started, limit) = (Tick::now(), handler.deadline(self.core));
        let Ready { slot, arguments, withheld } = ready;
        let admitted = match self.admit(handler, slot, arguments) {
            Ok(admitted) => admitted,
            Err(error) => return Made::failed(error, started),
        };
        let core = Arc::clone(self.core);
        let (_turn, went) = core.hooks.turns.open(admitted.ticket.id, &handler.extension);
        let late = || {
            let message = format!("{}/{} took longer than {limit:?}", handler.extension, handler.method);
            Error::new(ErrorCode::DeadlineExceeded, message)
        };
        // Dropped, it is cancelled.
        let mut call = pin!(core.detach(admitted));
        let proceed = {
            let went = pin!(went);
            // First what it did before it ended.
            match limited(&core, limit, future::select(went, &mut call)).await {
                Err(_) => return Made::failed(late(), started),
                Ok(Either::Left((Ok(proceed), _))) => proceed,
                // It has no turn left, and its result says why.
                Ok(Either::Left((Err(_), _))) => match call.await {
                    Ok(_) => return Made::failed(reply::wrong(handler, NEITHER), started),
                    Err(error) => return Made::failed(error, started),
                },
                Ok(Either::Right((result, _))) => return Self::instead(handler, result, inner, started),
            }
        };
        let Proceed { patch, done } = proceed;
        let mut said = Did::Nothing;
        if let Some(bytes) = patch.filter(|bytes| !reply::is_nothing(bytes)) {
            let changed = reply::patch(self.point, &bytes, &withheld)
                .and_then(|patch| Ok(self.change(&patch, inner.accept)?.then(|| patch.changes())));
            match changed {
                Ok(changed) => said = changed.map_or(Did::Nothing, Did::Changed),
                Err(why) => {
                    let error = reply::wrong(handler, &why);
                    // It is cancelled next, but may see why.
                    let _ = done.send(Err(error.clone()));
                    return Made::failed(error, started);
                }
            }
        }
        let before = Tick::now().since(started);
        // Polled together: a call that ends without waiting for the work is over then.
        let (outcome, early) = {
            let work = self.around(within, inner);
            match future::select(work, &mut call).await {
                Either::Left((outcome, _)) => (outcome, None),
                Either::Right((result, work)) => (work.await, Some(result)),
            }
        };
        let resumed = Tick::now();
        let _ = done.send(outcome.clone());
        let result = match early {
            Some(result) => result,
            None => limited(&core, limit, call).await.unwrap_or_else(|_| Err(late())),
        };
        let took = before + Tick::now().since(resumed);
        let result = match result {
            // It let the failure of what is within it through, or failed at it.
            Err(_) if outcome.is_err() => Ok(None),
            result => result.and_then(|bytes| replacement(handler, bytes, inner)),
        };
        match result {
            Ok(None) => Made { said: Said::Did(said), took, outcome: Some(outcome) },
            Ok(Some(bytes)) => Made { said: Said::Did(Did::Replaced), took, outcome: Some(Ok(bytes)) },
            Err(error) => Made { said: Said::Did(Did::Failed(error)), took, outcome: Some(outcome) },
        }
    }

    /// A handler that ended without having the work go on.
    fn instead(handler: &Handler, result: Result<Bytes, Error>, inner: &Inner<'_>, started: Tick) -> Made {
        match result.and_then(|bytes| replacement(handler, bytes, inner)) {
            Ok(Some(bytes)) => {
                let (said, took) = (Said::Did(Did::Replaced), Tick::now().since(started));
                Made { said, took, outcome: Some(Ok(bytes)) }
            }
            Ok(None) => Made::failed(reply::wrong(handler, NEITHER), started),
            Err(error) => Made::failed(error, started),
        }
    }
}

/// What a handler puts in the place of the outcome, if it says anything.
///
/// # Errors
/// If it is no outcome.
fn replacement(handler: &Handler, reply: Bytes, inner: &Inner<'_>) -> Result<Option<Bytes>, Error> {
    if reply::is_nothing(&reply) {
        return Ok(None);
    }
    match (inner.check)(&reply) {
        Ok(()) => Ok(Some(reply)),
        Err(why) => Err(reply::wrong(handler, &format!("what it returns is no outcome: {why}"))),
    }
}

const NEITHER: &str = "it has to proceed, or to return the outcome itself";

/// What came of a handler around the work.
struct Made {
    said: Said,
    took: Duration,
    /// None if the work has still to be done without it.
    outcome: Option<Result<Bytes, Error>>,
}

impl Made {
    fn failed(error: Error, started: Tick) -> Self {
        Self { said: Said::Did(Did::Failed(error)), took: Tick::now().since(started), outcome: None }
    }
}

//! Hooks: points in the host's work where extensions may look at what it is about to do, change it,
//! or object.
//!
//! A handler is a method of an extension that the dispatcher calls like any other, in a fixed order.
//! Each gets the context with the changes of those before it; those that run at the same time get
//! the same one, and their changes are put together in their order, whoever is done first.

mod account;
mod around;
mod merge;
mod order;
mod reply;
mod run;
mod table;

use std::cell::Cell;
use std::time::Duration;

pub use account::{Account, Did, Finished, Hooked, Overruled, Step, Stopped};
pub use merge::Conflict;
use quadriga_abi::schemars::Schema;
use serde::Serialize;
use serde::de::DeserializeOwned;
pub use table::HookStatus;
pub(crate) use table::Hooks;

use crate::CallContext;

/// What a host hands to the handlers of one hook point. Usually derived:
/// `#[derive(HookContext)]` of the crate `quadriga`.
///
/// As a value it has to be a map, with the fields of [`HookPoint::fields`] by their names in there.
pub trait HookContext: Serialize + DeserializeOwned + Send {
    /// The hook point.
    const POINT: &'static HookPoint;

    /// The JSON Schema (2020-12) of the context.
    fn schema() -> Schema;
}

/// A context with work that handlers may stand around: what [`Dispatcher::hook_around`] takes. Derived
/// with the context, by `#[hook(name = "…", outcome = Type)]`.
///
/// [`Dispatcher::hook_around`]: crate::Dispatcher::hook_around
pub trait HookWork: HookContext {
    /// What the host's work gives.
    type Outcome: Serialize + DeserializeOwned + Send;

    /// The JSON Schema (2020-12) of the outcome.
    fn outcome_schema() -> Schema;
}

/// A hook point as its host declares it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct HookPoint {
    /// Its name, such as `plan.before_execution`.
    pub name: &'static str,
    /// The fields of its context.
    pub fields: &'static [HookField],
    /// Whether handlers of the same priority that say nothing of each other run at the same time.
    pub parallel: bool,
    /// Who wins where two of those change one field.
    pub conflict: Conflict,
}

/// A field of a hook's context.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct HookField {
    /// Its name as handlers see it.
    pub name: &'static str,
    /// Whether handlers may change it.
    pub changeable: bool,
    /// Whether it is kept from handlers without the permission `sensitive` for `POINT:FIELD`.
    pub sensitive: bool,
}

/// What holds for the handlers of all hooks of a host.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct HookPolicy {
    /// How long a handler may take where its declaration does not say it.
    pub deadline: Duration,
    /// After so many failures in a row a handler is not called any more, until its extension is
    /// loaded anew.
    pub failures: u32,
    /// Handlers that one extension may add while it runs, beside those of its manifest.
    pub handlers: usize,
}

impl Default for HookPolicy {
    fn default() -> Self {
        Self { deadline: Duration::from_millis(50), failures: 5, handlers: 64 }
    }
}

/// Hooks that stand inside of each other, by the numbers of their chains; 0 where there is none.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct InHooks([u32; 4]);

impl InHooks {
    fn contains(self, number: u32) -> bool {
        self.0.contains(&number)
    }

    /// One hook further in; `None` if they stand too deep.
    fn and(mut self, number: u32) -> Option<Self> {
        *self.0.iter_mut().find(|it| **it == 0)? = number;
        Some(self)
    }
}

thread_local! {
    /// The call in the course of which a function of the host runs on this thread.
    static WITHIN: Cell<Option<CallContext>> = const { Cell::new(None) };
}

/// Runs a function of the host that an extension called, so that hooks in there know of it.
pub(crate) fn within<R>(context: CallContext, run: impl FnOnce() -> R) -> R {
    /// Puts back what was there, also after a panic.
    struct Back(Option<CallContext>);

    impl Drop for Back {
        fn drop(&mut self) {
            WITHIN.set(self.0);
        }
    }

    let _back = Back(WITHIN.replace(Some(context)));
    run()
}

//! What became of a hook: who did what, in which order, and how long each took.

use std::sync::Arc;
use std::time::Duration;

use quadriga_abi::manifest::HookMode;
use quadriga_abi::{Error, ExtensionId};
use serde::Serialize;

/// A hook that its handlers let pass.
#[derive(Debug)]
#[must_use = "the context may have been changed"]
pub struct Hooked<T> {
    /// The context with all changes.
    pub context: T,
    /// How it came about.
    pub account: Account,
}

/// Work that was done with the handlers of its hook around it.
#[derive(Debug)]
pub struct Finished<T> {
    /// What came of it: what the work gave, or what a handler put in its place.
    pub outcome: T,
    /// How it came about.
    pub account: Account,
}

/// A hook that was stopped: by a veto, a failure, a conflict, or because it led to itself.
#[derive(Debug, thiserror::Error)]
#[error("{error}")]
pub struct Stopped {
    /// Why: `hook_vetoed`, `hook_failed`, `hook_conflict` or `hook_recursion`; what the work failed with,
    /// where handlers stand around it. The extension is that of the
    /// handler that stopped it; the message of a veto is its reason.
    pub error: Error,
    /// What had happened by then.
    pub account: Account,
}

/// What the handlers of a hook did.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub struct Account {
    /// What each handler did, in their order. Those after the one that stopped the hook are missing.
    pub steps: Vec<Step>,
    /// The changes that were dropped for those of others.
    pub overruled: Vec<Overruled>,
    /// Whether the host's work was begun, where handlers can stand around it.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub worked: bool,
}

/// What one handler did.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Step {
    /// Whose handler it is.
    pub extension: ExtensionId,
    /// The method that was called.
    pub method: Arc<str>,
    /// What it may do.
    pub mode: HookMode,
    /// How long it took.
    pub took: Duration,
    /// What came of it.
    pub did: Did,
    /// The sensitive fields that it did not see.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub withheld: Vec<&'static str>,
}

/// What came of a handler.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Did {
    /// It was told, or had nothing to change.
    Nothing,
    /// It was told, and nobody waits for it.
    Told,
    /// It changed these fields: JSON Pointers (RFC 6901).
    Changed(Vec<String>),
    /// It allows.
    Allowed,
    /// It objects, for this reason.
    Vetoed(String),
    /// It put another outcome in the place of that of the work, which may not have been done.
    Replaced,
    /// It failed, was late, or wanted what it may not.
    Failed(Error),
    /// It was not called, because it failed too often.
    Skipped,
    /// It was not called, because it may not answer this hook.
    Denied,
    /// It was not called, because its extension is still being loaded.
    Loading,
}

/// A change that was dropped for that of a handler that ran at the same time.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Overruled {
    /// The field: a JSON Pointer (RFC 6901).
    pub field: String,
    /// Whose change was dropped.
    pub lost: ExtensionId,
    /// Whose change stands.
    pub kept: ExtensionId,
}

impl From<Stopped> for Error {
    fn from(stopped: Stopped) -> Self {
        stopped.error
    }
}

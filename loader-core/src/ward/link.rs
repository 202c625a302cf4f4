//! Who talks to whom, and who must not.

use std::fmt;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::sync::{LazyLock, Mutex};
use std::time::{Duration, SystemTime};

use quadriga_abi::{Bytes, Error, ErrorCode, ExtensionId};
use serde::Serialize;

use crate::dispatcher::lock;
use crate::metrics::{BEGUN, Tick};
use crate::service::not_a_service;

/// A rule for the calls from one extension to another. Of those that fit, the one that was set
/// last holds; where none fits, permissions alone decide.
/// Services of the host are no part of it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Rule {
    /// Who calls; `None` for whoever does.
    pub caller: Option<ExtensionId>,
    /// Who is called; `None` for whoever is.
    pub callee: Option<ExtensionId>,
    /// Whether its calls are refused.
    pub blocks: bool,
}

/// What one extension has called of another since the caller was loaded.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Communication {
    /// Who calls.
    pub caller: ExtensionId,
    /// Who is called.
    pub callee: ExtensionId,
    /// Calls that have finished, well or not.
    pub calls: u64,
    /// Those that finished with an error.
    pub errors: u64,
    /// Bytes of arguments, and of events.
    pub sent: u64,
    /// Bytes of results. Streamed items are not among them.
    pub received: u64,
    /// Events of the caller that went to the callee.
    pub events: u64,
    /// When the last call began; `None` if none was let in.
    pub last: Option<SystemTime>,
    /// Whether a rule blocks the pair at this moment.
    pub blocked: bool,
}

/// Counts the calls from one extension to another.
#[derive(Debug)]
pub(crate) struct Link {
    pub(crate) caller: ExtensionId,
    pub(crate) callee: ExtensionId,
    /// The version of the rules under which the pair was last found free to talk.
    pub(crate) free_under: AtomicU64,
    calls: AtomicU64,
    errors: AtomicU64,
    sent: AtomicU64,
    received: AtomicU64,
    events: AtomicU64,
    /// Whether a call was tried.
    tried: AtomicBool,
    /// In milliseconds since [`BEGUN`], and one more: 0 is never.
    last: AtomicU64,
}

/// The rules for all pairs.
pub(crate) struct Rules {
    /// Counts the changes. Starts above what new links hold.
    pub(crate) version: AtomicU64,
    list: Mutex<Vec<Rule>>,
}

impl Link {
    pub(crate) fn new(caller: ExtensionId, callee: ExtensionId) -> Self {
        LazyLock::force(&BEGUN);
        Self {
            caller,
            callee,
            free_under: AtomicU64::new(0),
            calls: AtomicU64::new(0),
            errors: AtomicU64::new(0),
            sent: AtomicU64::new(0),
            received: AtomicU64::new(0),
            events: AtomicU64::new(0),
            tried: AtomicBool::new(false),
            last: AtomicU64::new(0),
        }
    }

    /// Counts a call that was let in.
    pub(crate) fn begin(&self, started: Tick, sent: usize) {
        self.sent.fetch_add(sent as u64, Relaxed);
        let since = started.since(BEGUN.0);
        self.last.store(since.as_secs() * 1000 + u64::from(since.subsec_millis()) + 1, Relaxed);
    }

    /// Counts a call that finished.
    pub(crate) fn finish(&self, result: &Result<Bytes, Error>) {
        self.calls.fetch_add(1, Relaxed);
        match result {
            Ok(reply) => self.received.fetch_add(reply.len() as u64, Relaxed),
            Err(_) => self.errors.fetch_add(1, Relaxed),
        };
    }

    /// Counts an event.
    pub(crate) fn told(&self, sent: usize) {
        self.events.fetch_add(1, Relaxed);
        self.sent.fetch_add(sent as u64, Relaxed);
    }

    /// Whether this is the first call.
    pub(crate) fn is_first(&self) -> bool {
        !self.tried.swap(true, Relaxed)
    }

    pub(crate) fn calls(&self) -> u64 {
        self.calls.load(Relaxed)
    }

    pub(crate) fn read(&self, rules: &Rules) -> Communication {
        let last = self.last.load(Relaxed).checked_sub(1);
        Communication {
            caller: self.caller.clone(),
            callee: self.callee.clone(),
            calls: self.calls(),
            errors: self.errors.load(Relaxed),
            sent: self.sent.load(Relaxed),
            received: self.received.load(Relaxed),
            events: self.events.load(Relaxed),
            last: last.map(|millis| BEGUN.1 + Duration::from_millis(millis)),
            blocked: rules.blocks(self.caller.as_str(), self.callee.as_str()),
        }
    }
}

impl Default for Rules {
    fn default() -> Self {
        Self { version: AtomicU64::new(1), list: Mutex::default() }
    }
}

impl Rules {
    /// Sets a rule; an older one for the same pair goes.
    pub(crate) fn set(&self, rule: Rule) {
        let mut list = lock(&self.list);
        list.retain(|old| (&old.caller, &old.callee) != (&rule.caller, &rule.callee));
        list.push(rule);
        self.version.fetch_add(1, Relaxed);
    }

    pub(crate) fn list(&self) -> Vec<Rule> {
        lock(&self.list).clone()
    }

    /// Whether calls from one to another are refused.
    pub(crate) fn blocks(&self, caller: &str, callee: &str) -> bool {
        blocks(&lock(&self.list), caller, callee)
    }

    /// Whether a pair is free to talk, which the link then remembers.
    pub(crate) fn frees(&self, link: &Link) -> bool {
        let list = lock(&self.list);
        let free = !blocks(&list, link.caller.as_str(), link.callee.as_str());
        if free {
            link.free_under.store(self.version.load(Relaxed), Relaxed);
        }
        free
    }
}

fn blocks(list: &[Rule], caller: &str, callee: &str) -> bool {
    let fits = |side: &Option<ExtensionId>, id| side.as_ref().is_none_or(|side| side.as_str() == id);
    let last = list.iter().rfind(|rule| fits(&rule.caller, caller) && fits(&rule.callee, callee));
    last.is_some_and(|rule| rule.blocks)
}

impl Rule {
    /// Reads the ends of a rule: ids, or `*`.
    pub(crate) fn new(caller: &str, callee: &str, blocks: bool) -> Result<Self, Error> {
        let end = |text: &str| match text {
            "*" => Ok::<_, Error>(None),
            id => {
                let id = ExtensionId::new(id).map_err(|error| {
                    Error::new(ErrorCode::InvalidArguments, error.to_string()).with_hint("or * for all")
                })?;
                not_a_service(&id, ErrorCode::InvalidArguments)
                    .map_err(|error| error.with_hint("grant or revoke the permission that it asks for"))?;
                Ok(Some(id))
            }
        };
        Ok(Self { caller: end(caller)?, callee: end(callee)?, blocks })
    }

    /// Whether it is about this extension: it names it, or everybody.
    pub(crate) fn names(&self, id: &ExtensionId) -> bool {
        let ends = [self.caller.as_ref(), self.callee.as_ref()];
        ends.contains(&Some(id)) || ends == [None, None]
    }
}

impl fmt::Display for Rule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let end = |side: &Option<ExtensionId>| side.as_ref().map_or("*".to_owned(), ToString::to_string);
        let verb = if self.blocks { "block" } else { "allow" };
        write!(f, "{verb} {} -> {}", end(&self.caller), end(&self.callee))
    }
}

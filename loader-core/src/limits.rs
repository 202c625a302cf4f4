//! The limits that the dispatcher enforces itself, and how limits change while an extension runs.

use std::sync::atomic::{AtomicU16, AtomicU32, AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use quadriga_abi::limits::{ByteSize, Limit, Limits, Span};
use quadriga_abi::{Error, ErrorCode};

use crate::ward::{Reason, Sample};
use crate::{Dispatcher, Policy, Support};

/// The limits that the dispatcher enforces for every runtime.
const OURS: [Limit; 4] = [Limit::LoadTimeout, Limit::MessageSize, Limit::QueueDepth, Limit::CallDepth];

/// Those that the dispatcher sees to where the runtime makes that possible: it can interrupt calls,
/// and everything that is printed goes through [`Bridge::log`](crate::Bridge::log).
const SHARED: [Limit; 2] = [Limit::CallTimeout, Limit::OutputRate];

/// What the dispatcher compares calls with. Each change holds for the next call.
pub(crate) struct Caps {
    message_size: AtomicU64,
    queue_depth: AtomicU32,
    call_depth: AtomicU16,
    /// In nanoseconds; [`u64::MAX`] for none.
    call_timeout: AtomicU64,
}

impl Caps {
    pub(crate) fn new(limits: &Limits, policy: &Policy) -> Self {
        let caps = Self {
            message_size: AtomicU64::new(policy.message_size),
            queue_depth: AtomicU32::new(policy.queue_depth),
            call_depth: AtomicU16::new(policy.call_depth),
            call_timeout: AtomicU64::new(u64::MAX),
        };
        caps.set(limits);
        caps
    }

    /// Changes what is declared.
    fn set(&self, limits: &Limits) {
        if let Some(ByteSize(size)) = limits.message_size {
            self.message_size.store(size, Relaxed);
        }
        if let Some(depth) = limits.queue_depth {
            self.queue_depth.store(depth, Relaxed);
        }
        if let Some(depth) = limits.call_depth {
            self.call_depth.store(depth, Relaxed);
        }
        if let Some(Span(timeout)) = limits.call_timeout {
            self.call_timeout.store(u64::try_from(timeout.as_nanos()).unwrap_or(u64::MAX), Relaxed);
        }
    }

    pub(crate) fn message_size(&self) -> u64 {
        self.message_size.load(Relaxed)
    }

    pub(crate) fn queue_depth(&self) -> u32 {
        self.queue_depth.load(Relaxed)
    }

    pub(crate) fn call_depth(&self) -> u16 {
        self.call_depth.load(Relaxed)
    }

    pub(crate) fn call_timeout(&self) -> Option<Duration> {
        match self.call_timeout.load(Relaxed) {
            u64::MAX => None,
            nanos => Some(Duration::from_nanos(nanos)),
        }
    }

    /// The limits with these in their place.
    fn read(&self, others: &Limits) -> Limits {
        Limits {
            message_size: Some(ByteSize(self.message_size())),
            queue_depth: Some(self.queue_depth()),
            call_depth: Some(self.call_depth()),
            call_timeout: self.call_timeout().map(Span),
            ..others.clone()
        }
    }
}

/// The name of the first limit that neither the dispatcher nor a runtime enforces.
pub(crate) fn unenforced(limits: &Limits, support: &Support) -> Option<&'static str> {
    let unmet = |(limit, _): &(Limit, _)| !OURS.contains(limit) && !support.limits.contains(limit);
    limits.declared().find(unmet).map(|(_, name)| name)
}

impl Dispatcher {
    /// Changes the limits that are `Some` while the extension runs, each lowered to the policy's
    /// ceiling. Message size, queue depth, call depth and call timeout hold for the next call, the
    /// load timeout for the next load, the output rate at once; others the runtime changes. A reload
    /// keeps them.
    ///
    /// # Errors
    /// `unsupported` if the runtime cannot enforce one of them, or cannot change it while it runs:
    /// then none is changed. Also if no such extension is loaded, or it is being loaded or
    /// unloaded at this moment.
    pub fn set_limits(&self, extension: &str, limits: &Limits) -> Result<(), Error> {
        let core = &self.core;
        let slot = core.route(extension)?;
        // No load at the same time, which might miss what is set here.
        let _reserved = core.reserve(&slot.id)?;
        let slot = core.route(extension)?;
        if limits.cpu_share.is_some_and(|share| !(share > 0.0 && share.is_finite())) {
            return Err(Error::new(ErrorCode::InvalidArguments, "cpu-share must be a number above 0"));
        }
        if let Some(name) = unenforced(limits, &slot.support) {
            let message = format!("{}: runtime {} cannot enforce the limit {name}", slot.id, slot.kind);
            return Err(Error::new(ErrorCode::Unsupported, message));
        }
        let is_set = |limit| limits.declared().any(|(set, _)| set == limit);
        let lowered = limits.at_most(&core.policy.limits).only(is_set);
        let before = slot.limits.overlaid(&slot.reach.ward.limits()).memory;
        if before.is_some_and(|before| limits.memory > Some(before)) {
            core.check_total(None, None)?;
        }
        let theirs = lowered.only(|limit| !OURS.contains(&limit) && !SHARED.contains(&limit));
        if theirs.declared().next().is_some() {
            slot.instance.set_limits(&theirs).map_err(|error| error.in_extension(extension))?;
        }
        slot.caps.set(&lowered);
        slot.reach.limit_output(&lowered);
        slot.reach.ward.set_limits(&lowered);
        let names: Vec<&str> = lowered.declared().map(|(_, name)| name).collect();
        let what = format!("be limited anew: {}", names.join(", "));
        slot.reach.ward.log.managed(&slot.id, what, Reason::Operator);
        Ok(())
    }

    /// The limits of an extension at this moment: its manifest's, cut by the policy, as they were
    /// changed since, with the host's defaults where the dispatcher has one.
    ///
    /// # Errors
    /// If no such extension is loaded.
    pub fn limits(&self, extension: &str) -> Result<Limits, Error> {
        let slot = self.core.route(extension)?;
        Ok(slot.caps.read(&slot.limits.overlaid(&slot.reach.ward.limits())))
    }

    /// What an extension has used since it was loaded, and uses now, from counters that are kept
    /// anyway.
    ///
    /// # Errors
    /// If no such extension is loaded.
    pub fn usage(&self, extension: &str) -> Result<Sample, Error> {
        Ok(self.core.route(extension)?.sample())
    }
}

//! What an extension was and was not let do, and what was done about it.

use std::collections::{HashMap, VecDeque};
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex};
use std::time::SystemTime;

use quadriga_abi::ExtensionId;
use quadriga_abi::permission::{Access, AccessKind};
use serde::Serialize;

use super::trail::{Notes, Trail};
use crate::dispatcher::lock;

/// How many records are kept of each subject and verdict: a flood of one kind pushes out no other.
pub(crate) const KEPT: usize = 64;

/// Allowed accesses of a kind that are recorded one by one; after these, one of [`STEP`].
const FIRST: u64 = 16;
const STEP: u64 = 64;

/// One decision about an extension.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Decision {
    /// Numbers the recorded decisions of one extension from 1. Gaps are records that are no longer kept.
    pub number: u64,
    /// Whom it was about.
    pub extension: ExtensionId,
    /// The call in the course of which it was made; 0 outside of any.
    pub call: u64,
    /// What sort of thing it was about.
    pub subject: Subject,
    /// What it was about, in words that follow "may" or "may not": `call a.b/m`.
    pub what: String,
    /// When.
    pub at: SystemTime,
    /// What came of it.
    pub verdict: Verdict,
    /// Why.
    pub reason: Reason,
    /// Whether that it was tried, and what came of it, is the word of its worker process, which the
    /// host cannot check.
    pub claimed: bool,
}

/// What a [`Decision`] is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Subject {
    /// Something that the extension tried.
    Access(AccessKind),
    /// A system call that the kernel refused its process, and that no permission gives.
    Kernel,
    /// Something that the host or an alert did to it: a grant, a limit, a quarantine.
    Management,
}

/// What came of an access.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "kebab-case")]
#[expect(missing_docs, reason = "the names say it")]
pub enum Verdict {
    Allowed,
    Denied,
}

/// Why an access was allowed or denied.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub enum Reason {
    /// It was asked for and granted.
    Granted,
    /// The manifest does not ask for it.
    Manifest,
    /// The host did not grant it.
    Grant,
    /// The host's policy allows it to nobody.
    Policy,
    /// A rule blocks the pair of extensions.
    Rule,
    /// It was granted, and taken back.
    Revoked {
        /// When.
        at: SystemTime,
    },
    /// What was granted is a name, and it leads to an address that is not public.
    PrivateAddress,
    /// The extension is in quarantine.
    Quarantined,
    /// The host asked for it.
    Operator,
    /// An alert led to it.
    Alert,
    /// The kernel refused it, as the host had told it to.
    Kernel,
    /// The extension's instance ended.
    Crash,
    /// It failed too often.
    Failures,
    /// Its worker or the kernel decided so, though the host would not have: by permissions of an
    /// earlier moment, or by what is around the worker.
    Worker,
}

/// Which decisions are wanted. The default is all that are kept.
#[derive(Debug, Clone, Copy, Default)]
pub struct DecisionFilter {
    /// Those about this alone.
    pub subject: Option<Subject>,
    /// Those with this verdict alone.
    pub verdict: Option<Verdict>,
    /// None from before.
    pub since: Option<SystemTime>,
    /// Only this many, the latest.
    pub latest: Option<usize>,
}

/// How often accesses of one kind were tried.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct Tally {
    /// How often allowed.
    pub allowed: u64,
    /// How often denied.
    pub denied: u64,
}

/// What was said to something.
#[derive(Clone, Copy)]
pub(super) struct Said {
    pub(super) subject: Subject,
    pub(super) verdict: Verdict,
    pub(super) reason: Reason,
    pub(super) claimed: bool,
}

impl Said {
    fn done(reason: Reason) -> Self {
        Self { subject: Subject::Management, verdict: Verdict::Allowed, reason, claimed: false }
    }
}

/// Counts all decisions about one extension, keeps the last of each sort, and has them written down where a
/// home does that.
pub(crate) struct DecisionLog {
    counts: [[AtomicU64; 2]; AccessKind::ALL.len()],
    numbers: AtomicU64,
    records: Mutex<HashMap<(Subject, Verdict), VecDeque<Decision>>>,
    notes: Arc<Notes>,
}

impl DecisionLog {
    pub(super) fn new(extension: ExtensionId, trail: &Arc<Trail>) -> Self {
        let (counts, numbers, records) = Default::default();
        Self { counts, numbers, records, notes: Notes::new(extension, trail) }
    }

    /// Counts an access that was allowed, and records it if it is one of the sample.
    pub(crate) fn allowed(
        &self,
        extension: &ExtensionId,
        call: u64,
        access: &Access<'_>,
        reason: Reason,
        claimed: bool,
    ) {
        let kind = access.kind();
        let before = self.counts[kind as usize][Verdict::Allowed as usize].fetch_add(1, Relaxed);
        let (is_sample, is_new) = (before < FIRST || before.is_multiple_of(STEP), self.notes.wants(access));
        if !is_sample && !is_new {
            return;
        }
        let said = Said { subject: Subject::Access(kind), verdict: Verdict::Allowed, reason, claimed };
        let what = access.to_string();
        if is_new {
            self.notes.note(&said, Some(&what), 1);
        }
        if is_sample {
            self.record(extension, call, what, said);
        }
    }

    /// Counts and records an access that was denied.
    pub(crate) fn denied(
        &self,
        extension: &ExtensionId,
        call: u64,
        access: &Access<'_>,
        reason: Reason,
        claimed: bool,
    ) {
        let kind = access.kind();
        self.counts[kind as usize][Verdict::Denied as usize].fetch_add(1, Relaxed);
        let said = Said { subject: Subject::Access(kind), verdict: Verdict::Denied, reason, claimed };
        self.refuse(extension, call, access.to_string(), said);
    }

    /// Records a system call that the kernel refused.
    pub(crate) fn kernel(&self, extension: &ExtensionId, what: String) {
        let (subject, verdict, reason) = (Subject::Kernel, Verdict::Denied, Reason::Kernel);
        self.refuse(extension, 0, what, Said { subject, verdict, reason, claimed: false });
    }

    fn refuse(&self, extension: &ExtensionId, call: u64, what: String, said: Said) {
        let Said { reason, claimed, .. } = said;
        tracing::info!(target: "quadriga::audit", extension = extension.as_str(), call, what, ?reason, claimed, "denied");
        self.notes.note(&said, Some(&what), 1);
        self.record(extension, call, what, said);
    }

    /// Counts accesses that are not recorded.
    pub(crate) fn count(&self, kind: AccessKind, allowed: u64, denied: u64) {
        let [passed, refused] = &self.counts[kind as usize];
        passed.fetch_add(allowed, Relaxed);
        refused.fetch_add(denied, Relaxed);
        let (subject, verdict) = (Subject::Access(kind), Verdict::Denied);
        self.notes.note(&Said { subject, verdict, reason: Reason::Worker, claimed: true }, None, denied);
    }

    /// Records what was done to an extension.
    pub(crate) fn managed(&self, extension: &ExtensionId, what: String, reason: Reason) {
        self.notes.note(&Said::done(reason), Some(&what), 1);
        self.done(extension, what, reason);
    }

    /// The same for what a home writes down by itself.
    #[cfg(feature = "home")]
    pub(crate) fn managed_by_home(&self, extension: &ExtensionId, what: String) {
        self.done(extension, what, Reason::Operator);
    }

    fn done(&self, extension: &ExtensionId, what: String, reason: Reason) {
        tracing::info!(target: "quadriga::audit", extension = extension.as_str(), what, ?reason, "managed");
        self.record(extension, 0, what, Said::done(reason));
    }

    /// Records a first call from one extension to another, which is counted with its pair.
    pub(crate) fn first(&self, extension: &ExtensionId, call: u64, access: &Access<'_>) {
        let (subject, verdict) = (Subject::Access(access.kind()), Verdict::Allowed);
        let said = Said { subject, verdict, reason: Reason::Granted, claimed: false };
        let what = access.to_string();
        self.notes.note(&said, Some(&what), 1);
        self.record(extension, call, what, said);
    }

    fn record(&self, extension: &ExtensionId, call: u64, what: String, said: Said) {
        let (extension, at) = (extension.clone(), SystemTime::now());
        let Said { subject, verdict, reason, claimed } = said;
        let mut records = lock(&self.records);
        let number = 1 + self.numbers.fetch_add(1, Relaxed);
        let ring = records.entry((subject, verdict)).or_default();
        if ring.len() == KEPT {
            ring.pop_front();
        }
        ring.push_back(Decision { number, extension, call, subject, what, at, verdict, reason, claimed });
    }

    /// The decisions that are kept and pass a filter, in their order.
    pub(crate) fn read(&self, filter: &DecisionFilter) -> Vec<Decision> {
        let passes = |decision: &&Decision| {
            filter.subject.is_none_or(|subject| decision.subject == subject)
                && filter.verdict.is_none_or(|verdict| decision.verdict == verdict)
                && filter.since.is_none_or(|since| decision.at >= since)
        };
        let records = lock(&self.records);
        let mut list: Vec<Decision> = records.values().flatten().filter(passes).cloned().collect();
        drop(records);
        list.sort_unstable_by_key(|decision| decision.number);
        list.split_off(list.len().saturating_sub(filter.latest.unwrap_or(usize::MAX)))
    }

    /// How often accesses of a kind were tried, beside the calls that are counted with their pairs.
    pub(crate) fn tally(&self, kind: AccessKind) -> Tally {
        let [allowed, denied] = &self.counts[kind as usize];
        Tally { allowed: allowed.load(Relaxed), denied: denied.load(Relaxed) }
    }
}

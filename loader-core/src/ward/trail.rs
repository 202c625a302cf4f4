//! What was decided about extensions, on its way into the audit trail of a home.
//!
//! It waits with the extension that it is about, so that those that are let do something wait for nobody
//! else. However much one of them tries, what waits of it is bounded: the same is counted, and so is what goes
//! beyond a number of different things.

use std::collections::HashMap;
use std::hash::BuildHasher as _;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering::Relaxed};
use std::sync::{Arc, Mutex, OnceLock};
use std::time::{Instant, SystemTime};

use foldhash::fast::RandomState;
use quadriga_abi::ExtensionId;
use quadriga_abi::permission::{Access, AccessKind};

use super::decision::Said;
use super::{Reason, Subject, Verdict};
use crate::dispatcher::lock;

/// The same is written down once in this time, with how often it was.
#[cfg(feature = "home")]
const APART: std::time::Duration = std::time::Duration::from_secs(60);

/// Different things of one extension that wait or were written down in that time; others are counted.
const MOST: usize = 64;

/// Characters of what is written down of one thing.
const LONGEST: usize = 1024;

/// Accesses of one extension that are known to have been allowed before.
const KNOWN: usize = 64;

/// All that waits in one dispatcher.
#[derive(Default)]
pub(crate) struct Trail {
    /// How many homes write it down. Without one nothing waits.
    keepers: AtomicUsize,
    /// Those of which something waits, or was written down a short while ago.
    waiting: Mutex<Vec<Arc<Notes>>>,
}

/// What waits of one extension.
pub(crate) struct Notes {
    trail: Arc<Trail>,
    #[cfg_attr(not(feature = "home"), expect(dead_code, reason = "nobody takes it where there is no home"))]
    extension: ExtensionId,
    /// The hashes of accesses that were allowed. One takes the place of another: what is known no more is
    /// written down once more.
    known: OnceLock<Box<[AtomicU64; KNOWN]>>,
    hasher: RandomState,
    notes: Mutex<HashMap<Noted, Count>>,
}

/// Decisions that are the same.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) struct Noted {
    pub(crate) subject: Subject,
    pub(crate) verdict: Verdict,
    pub(crate) reason: Reason,
    pub(crate) claimed: bool,
    /// What they are about; `None` for others, of which there were too many.
    pub(crate) what: Option<String>,
}

/// How often it was decided.
#[cfg_attr(not(feature = "home"), expect(dead_code, reason = "nobody takes it where there is no home"))]
struct Count {
    unwritten: u64,
    first: SystemTime,
    last: SystemTime,
    written: Option<Instant>,
}

impl Trail {
    fn is_kept(&self) -> bool {
        self.keepers.load(Relaxed) > 0
    }

    /// From now on decisions wait to be taken.
    #[cfg(feature = "home")]
    pub(crate) fn keep(&self) {
        self.keepers.fetch_add(1, Relaxed);
    }

    /// Nobody takes them any more who once said so.
    #[cfg(feature = "home")]
    pub(crate) fn leave(&self) {
        if self.keepers.fetch_sub(1, Relaxed) == 1 {
            let waiting = std::mem::take(&mut *lock(&self.waiting));
            waiting.iter().for_each(|one| lock(&one.notes).clear());
        }
    }
}

impl Notes {
    pub(crate) fn new(extension: ExtensionId, trail: &Arc<Trail>) -> Arc<Self> {
        let (trail, known) = (Arc::clone(trail), OnceLock::new());
        let (hasher, notes) = (RandomState::default(), Mutex::default());
        Arc::new(Self { trail, extension, known, hasher, notes })
    }

    /// Whether an access that was allowed is to be noted: what is secret each time, and anything else once.
    pub(super) fn wants(&self, access: &Access<'_>) -> bool {
        if !self.trail.is_kept() {
            return false;
        }
        if matches!(access.kind(), AccessKind::Sensitive | AccessKind::Secrets) {
            return true;
        }
        // No access has the hash 0, which stands for none.
        let hash = self.hasher.hash_one(access) | 1;
        let known = self.known.get_or_init(|| Box::new(std::array::from_fn(|_| AtomicU64::new(0))));
        let place = &known[(hash >> 1) as usize % KNOWN];
        place.load(Relaxed) != hash && place.swap(hash, Relaxed) != hash
    }

    /// Notes decisions that are the same.
    pub(super) fn note(self: &Arc<Self>, said: &Said, what: Option<&str>, times: u64) {
        if times == 0 || !self.trail.is_kept() {
            return;
        }
        let Said { subject, verdict, reason, claimed } = *said;
        let what = what.map(|what| what.chars().take(LONGEST).collect());
        self.add(Noted { subject, verdict, reason, claimed, what }, times, SystemTime::now());
    }

    fn add(self: &Arc<Self>, mut noted: Noted, times: u64, now: SystemTime) {
        let mut notes = lock(&self.notes);
        if notes.is_empty() {
            lock(&self.trail.waiting).push(Arc::clone(self));
        }
        if notes.len() >= MOST && !notes.contains_key(&noted) {
            noted.what = None;
        }
        let new = Count { unwritten: 0, first: now, last: now, written: None };
        let count = notes.entry(noted).or_insert(new);
        if count.unwritten == 0 {
            count.first = now;
        }
        count.unwritten += times;
        count.last = now;
    }
}

/// Decisions that were the same, to be written down as one.
#[cfg(feature = "home")]
pub(crate) struct Record {
    notes: Arc<Notes>,
    pub(crate) noted: Noted,
    pub(crate) times: u64,
    pub(crate) first: SystemTime,
    pub(crate) last: SystemTime,
}

#[cfg(feature = "home")]
impl Record {
    pub(crate) fn extension(&self) -> &ExtensionId {
        &self.notes.extension
    }
}

#[cfg(feature = "home")]
impl Trail {
    /// Takes what is to be written down now, the first first: what is new, and of the rest what was last
    /// written down a while ago, or all of it.
    pub(crate) fn take(&self, all: bool) -> Vec<Record> {
        let now = Instant::now();
        let waiting = std::mem::take(&mut *lock(&self.waiting));
        let mut records = Vec::new();
        for one in waiting {
            if one.take(now, all, &mut records) {
                lock(&self.waiting).push(one);
            }
        }
        records.sort_by_key(|record| record.first);
        records
    }

    /// Puts back what could not be written down.
    pub(crate) fn put_back(records: Vec<Record>) {
        for Record { notes, noted, times, first, last } in records {
            notes.add(noted.clone(), times, last);
            if let Some(count) = lock(&notes.notes).get_mut(&noted) {
                (count.first, count.written) = (first, None);
            }
        }
    }
}

#[cfg(feature = "home")]
impl Notes {
    /// The same for one extension. Says whether it goes on waiting.
    fn take(self: &Arc<Self>, now: Instant, all: bool, records: &mut Vec<Record>) -> bool {
        let mut notes = lock(&self.notes);
        let is_recent = |count: &Count| count.written.is_some_and(|at| now.duration_since(at) < APART);
        for (noted, count) in notes.iter_mut() {
            if count.unwritten > 0 && (all || !is_recent(count)) {
                let Count { first, last, .. } = *count;
                let (notes, noted) = (Arc::clone(self), noted.clone());
                let times = std::mem::take(&mut count.unwritten);
                count.written = Some(now);
                records.push(Record { notes, noted, times, first, last });
            }
        }
        notes.retain(|_, count| count.unwritten > 0 || is_recent(count));
        !notes.is_empty()
    }
}

#[cfg(all(test, feature = "home"))]
mod tests {
    use std::sync::atomic::AtomicBool;

    use proptest::prelude::*;

    use super::*;

    fn notes(trail: &Arc<Trail>) -> Arc<Notes> {
        Notes::new(ExtensionId::new("a.b").expect("an id"), trail)
    }

    fn kept() -> Arc<Trail> {
        let trail = Arc::<Trail>::default();
        trail.keep();
        trail
    }

    fn denied() -> Said {
        let (subject, verdict) = (Subject::Access(AccessKind::Env), Verdict::Denied);
        Said { subject, verdict, reason: Reason::Manifest, claimed: false }
    }

    /// What is taken, each with how often it was.
    fn taken(trail: &Trail, all: bool) -> Vec<(Option<String>, u64)> {
        trail.take(all).into_iter().map(|record| (record.noted.what, record.times)).collect()
    }

    #[test]
    fn the_same_is_counted_and_so_is_what_is_too_much() {
        let trail = kept();
        let notes = notes(&trail);
        let read = |name: &str, times| (Some(name.to_owned()), times);
        notes.note(&denied(), Some("read A"), 1);
        assert_eq!(taken(&trail, false), [read("read A", 1)]);
        for _ in 0..1000 {
            notes.note(&denied(), Some("read A"), 1);
        }
        notes.note(&denied(), Some("read B"), 1);
        // The first of its kind does not wait for its minute, and the rest can be had at once.
        assert_eq!(taken(&trail, false), [read("read B", 1)]);
        assert_eq!(taken(&trail, true), [read("read A", 1000)]);
        assert_eq!(taken(&trail, true), []);
        for at in 0..1000 {
            notes.note(&denied(), Some(&format!("read {at}")), 1);
        }
        notes.note(&denied(), None, 5);
        let all = taken(&trail, true);
        assert_eq!(all.len(), MOST - 2 + 1);
        assert_eq!(all.iter().map(|(_, times)| times).sum::<u64>(), 1005);
        assert!(all.contains(&(None, 1005 - (MOST as u64 - 2))), "{all:?}");
    }

    #[test]
    fn what_is_long_is_cut() {
        let trail = kept();
        notes(&trail).note(&denied(), Some(&"é".repeat(100_000)), 1);
        assert_eq!(taken(&trail, true), [(Some("é".repeat(LONGEST)), 1)]);
    }

    #[test]
    fn what_is_allowed_is_wanted_once_and_what_is_secret_each_time() {
        let trail = Arc::<Trail>::default();
        let notes = notes(&trail);
        assert!(!notes.wants(&Access::Secret("token")), "nobody keeps it");
        trail.keep();
        for (access, again) in [
            (Access::Kv, false),
            (Access::Env("LANG"), false),
            (Access::Net { host: "example.org", port: 443 }, false),
            (Access::Secret("token"), true),
            (Access::Sensitive("plan:token"), true),
        ] {
            assert!(notes.wants(&access), "{access}");
            assert_eq!(notes.wants(&access), again, "{access}");
        }
        trail.leave();
        assert!(!notes.wants(&Access::Secret("token")));
        // The next one that keeps it begins anew.
        for _ in 0..2 {
            trail.keep();
            notes.note(&denied(), Some("read A"), 1);
            assert_eq!(taken(&trail, false), [(Some("read A".to_owned()), 1)]);
            trail.leave();
        }
    }

    #[test]
    fn what_cannot_be_written_down_waits_on() {
        let trail = kept();
        let notes = notes(&trail);
        notes.note(&denied(), Some("read A"), 2);
        let records = trail.take(false);
        notes.note(&denied(), Some("read A"), 1);
        let first = records[0].first;
        Trail::put_back(records);
        let again = trail.take(false);
        assert_eq!((again.len(), again[0].times, again[0].first), (1, 3, first));
    }

    proptest! {
        #[test]
        fn each_is_counted_once(steps in prop::collection::vec((0..3_u8, 0..100_u8, 1..9_u64), 0..300)) {
            let trail = kept();
            let notes = notes(&trail);
            let (mut noted, mut read) = (0, 0);
            for (step, name, times) in steps {
                match step {
                    0 => read += trail.take(name % 2 == 0).iter().map(|it| it.times).sum::<u64>(),
                    1 => Trail::put_back(trail.take(name % 2 == 0)),
                    _ => {
                        notes.note(&denied(), Some(&name.to_string()), times);
                        noted += times;
                    }
                }
            }
            read += trail.take(true).iter().map(|it| it.times).sum::<u64>();
            prop_assert_eq!(read, noted);
        }
    }

    #[test]
    fn nothing_is_lost_between_those_who_note_and_who_takes() {
        const EACH: u64 = 2_000;
        let trail = kept();
        let over = AtomicBool::new(false);
        let read = std::thread::scope(|scope| {
            let taker = scope.spawn(|| {
                let mut read = 0;
                while !over.load(Relaxed) {
                    read += trail.take(read % 2 == 0).iter().map(|it| it.times).sum::<u64>();
                }
                read
            });
            // Two threads of one extension, and one of another.
            let (one, other) = (notes(&trail), notes(&trail));
            let noting = [Arc::clone(&one), one, other].map(|notes| {
                scope.spawn(move || {
                    (0..EACH).for_each(|at| notes.note(&denied(), Some(&(at % 100).to_string()), 1));
                })
            });
            noting.into_iter().for_each(|thread| thread.join().unwrap());
            over.store(true, Relaxed);
            taker.join().unwrap()
        });
        let left: u64 = trail.take(true).iter().map(|it| it.times).sum();
        assert_eq!(read + left, 3 * EACH);
    }
}

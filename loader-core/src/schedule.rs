//! What extensions do by the clock, as their manifests say in `[schedule]`.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, Weak};
use std::time::{Duration, Instant, SystemTime};

use futures_util::future::join_all;
use jiff::Timestamp;
use quadriga_abi::limits::Span;
use quadriga_abi::manifest::{Job, Missed, Overlap, Timing};
use quadriga_abi::{Error, ErrorCode, ExtensionId, codec};
use serde::Serialize;

use crate::dispatcher::{Core, lock};
use crate::kv::now;
use crate::route::Slot;
use crate::{CallOptions, Dispatcher, KvAction, KvChange, KvKey, KvQuota, KvStore, State};

/// How long is slept at a stretch: so much later it shows that the clock was set.
const STRETCH: Duration = Duration::from_secs(10);

/// A call that begins later than this was missed.
const LATE: Duration = Duration::from_secs(60);

/// How long to wait for an extension that takes no calls, before its missed call is tried again.
const AGAIN: Duration = Duration::from_secs(1);

/// How long a call may take that the manifest gives no deadline.
const DEADLINE: Duration = Duration::from_secs(600);

/// Whose the records are in a store: by the id of the extension and the name of the job.
pub(crate) const OWNER: &str = "quadriga.schedule";

/// The most times that are counted as missed at once.
const COUNTED: u64 = 1000;

/// How one job of an extension does.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub struct JobStatus {
    /// Whose it is.
    pub extension: ExtensionId,
    /// Its name in the manifest.
    pub name: String,
    /// The exported method.
    pub method: String,
    /// When: the text of `cron` with the time zone, or `every` with the interval.
    pub when: String,
    /// When it is due next, without jitter; `None` if never again.
    pub next: Option<SystemTime>,
    /// What has been done since the extension was loaded.
    #[serde(flatten)]
    pub done: JobRecord,
}

/// What became of the calls of a job.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub struct JobRecord {
    /// Calls that have ended.
    pub runs: u64,
    /// How many of them with an error.
    pub failures: u64,
    /// Left out, since the one before was under way.
    pub skipped: u64,
    /// Left out, since they could not be made when they were due.
    pub missed: u64,
    /// Calls under way.
    pub running: u32,
    /// When the last call began.
    pub last: Option<SystemTime>,
    /// How long the last call that ended took.
    pub took: Option<Duration>,
    /// Why the last call that ended failed, if it did.
    pub error: Option<Error>,
}

/// The jobs of an extension, over all its generations.
#[derive(Default)]
pub(crate) struct Jobs(Mutex<BTreeMap<String, Arc<Kept>>>);

/// What is known of a job.
struct Kept {
    job: Job,
    state: Mutex<Inner>,
    /// Held by a call that lets others wait.
    turn: tokio::sync::Mutex<()>,
}

#[derive(Default)]
struct Inner {
    /// The last time that was seen to.
    seen: Option<Timestamp>,
    next: Option<Timestamp>,
    waiting: bool,
    record: JobRecord,
}

/// A job of one generation.
struct Planned {
    name: Arc<str>,
    timing: Timing,
    kept: Arc<Kept>,
}

/// What to do about times that have come.
#[derive(Debug, PartialEq)]
enum Verdict {
    Call {
        due: Timestamp,
        missed: u64,
    },
    Miss {
        until: Timestamp,
        missed: u64,
    },
    /// Later, for the extension takes no calls.
    Later,
    /// Not yet.
    Wait,
}

/// Where it is kept when jobs were last seen to, so that the next process knows what was missed meanwhile.
#[derive(Clone)]
struct Memory {
    store: Arc<dyn KvStore>,
    extension: ExtensionId,
}

/// What a method gets.
#[derive(Serialize)]
struct Run<'a> {
    job: &'a str,
    due: String,
    missed: u64,
}

impl Dispatcher {
    /// What the loaded extensions do by the clock, by id and name.
    pub fn jobs(&self) -> Vec<JobStatus> {
        let routes = self.core.routes.load();
        let mut list: Vec<JobStatus> = routes.values().flat_map(|slot| slot.jobs()).collect();
        list.sort_by(|a, b| (&a.extension, &a.name).cmp(&(&b.extension, &b.name)));
        list
    }
}

impl Core {
    /// Has a generation called by the clock, if its manifest says so.
    pub(crate) fn schedule(self: &Arc<Self>, slot: &Arc<Slot>) {
        let Some(source) = slot.source.as_ref().filter(|it| !it.manifest.schedule.is_empty()) else {
            slot.reach.ward.jobs.keep(&BTreeMap::new());
            return;
        };
        let planned = slot.reach.ward.jobs.keep(&source.manifest.schedule);
        let (core, weak) = (Arc::downgrade(self), Arc::downgrade(slot));
        let memory = self.kv.get().filter(|_| !slot.reach.ward.loose);
        let memory = memory.map(|store| Memory { store: Arc::clone(store), extension: slot.id.clone() });
        let all = planned.into_iter().map(|job| follow(core.clone(), weak.clone(), job, memory.clone()));
        slot.clock.set(self.executor().spawn(join_all(all.collect::<Vec<_>>())).abort_handle());
    }

    /// Calls a job's method, or has it wait.
    fn call_job(self: &Arc<Self>, slot: &Arc<Slot>, planned: &Planned, due: Timestamp, missed: u64) {
        let kept = Arc::clone(&planned.kept);
        if !kept.begin() {
            return;
        }
        let (core, id, name) = (Arc::clone(self), slot.id.clone(), Arc::clone(&planned.name));
        self.executor().spawn(async move {
            let turn = match kept.job.overlap {
                Overlap::Wait => Some(kept.turn.lock().await),
                Overlap::Skip | Overlap::Allow => None,
            };
            let begun = Instant::now();
            kept.begun();
            let run = Run { job: &name, due: due.to_string(), missed };
            let Span(deadline) = kept.job.deadline.unwrap_or(Span(DEADLINE));
            let options = CallOptions::default().detached().timeout(deadline);
            let result = match codec::arguments(&(run,)) {
                Ok(arguments) => {
                    core.begin(id.as_str(), &kept.job.method, arguments.into(), options).result().await
                }
                Err(error) => Err(Error::new(ErrorCode::Internal, error.to_string())),
            };
            drop(turn);
            if let Err(error) = &result {
                tracing::warn!(extension = id.as_str(), job = &*name, %error, "a job failed");
            }
            kept.ended(begun.elapsed(), result.err());
        });
    }
}

/// Waits for one time after the other, as long as calls go to this generation. Holds nothing while it waits.
async fn follow(core: Weak<Core>, slot: Weak<Slot>, planned: Planned, memory: Option<Memory>) {
    if let Some(memory) = &memory {
        let known = memory.recall(&planned).await;
        planned.recall(known);
        if known.is_none() {
            // An interval goes on in the next process, however soon that begins.
            memory.remember(&planned, planned.seen()).await;
        }
    }
    let Span(jitter) = planned.kept.job.jitter.unwrap_or(Span(Duration::ZERO));
    while let Some(next) = planned.next() {
        let late = jitter.mul_f64(fastrand::f64());
        wait_until(next.checked_add(late).unwrap_or(next)).await;
        let Some((core, slot)) = core.upgrade().zip(slot.upgrade()) else { return };
        if !core.is_current(&slot) {
            return;
        }
        let ready = matches!(slot.state(), State::Running | State::Throttled | State::Asleep);
        let verdict = planned.judge(Timestamp::now(), ready, jitter);
        if let (Some(memory), Verdict::Call { due: seen, .. } | Verdict::Miss { until: seen, .. }) =
            (&memory, &verdict)
        {
            memory.remember(&planned, *seen).await;
        }
        match verdict {
            Verdict::Call { due, missed } => core.call_job(&slot, &planned, due, missed),
            Verdict::Miss { until, missed } => {
                let id = slot.id.as_str();
                tracing::warn!(extension = id, job = &*planned.name, missed, until = %until, "a job was missed");
            }
            Verdict::Later => {
                drop((core, slot));
                tokio::time::sleep(AGAIN).await;
            }
            Verdict::Wait => {}
        }
    }
}

/// Sleeps until a point in time of the clock on the wall, which may be set meanwhile.
async fn wait_until(at: Timestamp) {
    while let Ok(left) = Duration::try_from(at.duration_since(Timestamp::now())) {
        if left.is_zero() {
            return;
        }
        tokio::time::sleep(left.min(STRETCH)).await;
    }
}

impl Slot {
    fn jobs(&self) -> Vec<JobStatus> {
        let kept = lock(&self.reach.ward.jobs.0);
        let status = |(name, kept): (&String, &Arc<Kept>)| {
            let state = lock(&kept.state);
            JobStatus {
                extension: self.id.clone(),
                name: name.clone(),
                method: kept.job.method.clone(),
                when: when(&kept.job),
                next: state.next.map(SystemTime::from),
                done: state.record.clone(),
            }
        };
        kept.iter().map(status).collect()
    }
}

impl Memory {
    /// Asks on a thread where the store may wait. One that fails is as good as none.
    async fn ask<T: Send + 'static>(
        &self,
        planned: &Planned,
        ask: impl FnOnce(&dyn KvStore, KvKey) -> Result<T, Error> + Send + 'static,
    ) -> Option<T> {
        let key = KvKey { namespace: self.extension.to_string(), key: planned.name.to_string() };
        let store = Arc::clone(&self.store);
        match tokio::task::spawn_blocking(move || ask(&*store, key)).await {
            Ok(Ok(answer)) => Some(answer),
            Ok(Err(error)) => {
                let extension = self.extension.as_str();
                tracing::warn!(extension, job = &*planned.name, %error, "when it was due last is not kept");
                None
            }
            Err(_) => None,
        }
    }

    async fn recall(&self, planned: &Planned) -> Option<Timestamp> {
        let entry = self.ask(planned, |store, key| store.get(OWNER, &key, now())).await??;
        let (when, seen): (String, String) = codec::from_bytes(&entry.value).ok()?;
        seen.parse().ok().filter(|_| when == self::when(&planned.kept.job))
    }

    async fn remember(&self, planned: &Planned, seen: Timestamp) {
        if let Ok(value) = codec::to_bytes(&(when(&planned.kept.job), seen.to_string())) {
            let action = KvAction::Put { value: value.into(), expires: None };
            let put = move |store: &dyn KvStore, key| {
                let change = KvChange { key, version: None, action };
                store.write(OWNER, &[change], KvQuota::NONE, now())
            };
            self.ask(planned, put).await;
        }
    }
}

fn when(job: &Job) -> String {
    match (&job.cron, &job.every) {
        (Some(cron), _) => format!("{cron} {}", job.timezone.as_deref().unwrap_or("UTC")),
        (None, Some(every)) => format!("every {every}"),
        (None, None) => String::new(),
    }
}

impl Jobs {
    /// Goes on with these jobs: what is known of one that is as it was stays.
    fn keep(&self, jobs: &BTreeMap<String, Job>) -> Vec<Planned> {
        let mut all = lock(&self.0);
        all.retain(|name, kept| jobs.get(name) == Some(&kept.job));
        let plan = |(name, job): (&String, &Job)| {
            let new =
                || Arc::new(Kept { job: job.clone(), state: Mutex::default(), turn: Default::default() });
            let kept = Arc::clone(all.entry(name.clone()).or_insert_with(new));
            // The manifest was checked.
            Some(Planned { name: Arc::from(name.as_str()), timing: job.timing().ok()?, kept })
        };
        jobs.iter().filter_map(plan).collect()
    }
}

impl Planned {
    /// Goes on from when it was last seen to in another process.
    fn recall(&self, seen: Option<Timestamp>) {
        let mut state = lock(&self.kept.state);
        state.seen = state.seen.or(seen);
    }

    /// The last time that was seen to: now, if there was none.
    fn seen(&self) -> Timestamp {
        *lock(&self.kept.state).seen.get_or_insert_with(Timestamp::now)
    }

    /// When it is due next. It is counted from the first load on, and anew if the clock was set back.
    fn next(&self) -> Option<Timestamp> {
        let (mut state, now) = (lock(&self.kept.state), Timestamp::now());
        let seen = state.seen.map_or(now, |seen| seen.min(now));
        state.seen = Some(seen);
        state.next = self.timing.after(seen);
        state.next
    }

    /// Decides about the times that have come until now, and marks them as seen to.
    fn judge(&self, now: Timestamp, ready: bool, jitter: Duration) -> Verdict {
        let mut state = lock(&self.kept.state);
        let seen = state.seen.unwrap_or(now);
        let Some(due) = self.timing.latest(seen, now) else { return Verdict::Wait };
        let once = self.kept.job.missed == Missed::Once;
        if !ready && once {
            return Verdict::Later;
        }
        let mut before = 0;
        let mut time = self.timing.after(seen);
        while let Some(earlier) = time.filter(|time| *time < due && before < COUNTED) {
            before += 1;
            time = self.timing.after(earlier);
        }
        let late = now.duration_since(due).unsigned_abs();
        let call = ready && (once || late <= LATE + jitter);
        let missed = before + u64::from(!call);
        state.seen = Some(due);
        state.record.missed += missed;
        match call {
            true => Verdict::Call { due, missed },
            false => Verdict::Miss { until: due, missed },
        }
    }
}

impl Kept {
    /// Whether a call may begin, or wait to begin; otherwise it is left out.
    fn begin(&self) -> bool {
        let mut state = lock(&self.state);
        let may = match self.job.overlap {
            Overlap::Skip => state.record.running == 0,
            Overlap::Wait => !state.waiting,
            Overlap::Allow => true,
        };
        match (may, self.job.overlap) {
            (false, _) => state.record.skipped += 1,
            (true, Overlap::Wait) => state.waiting = true,
            (true, _) => state.record.running += 1,
        }
        may
    }

    fn begun(&self) {
        let mut state = lock(&self.state);
        if std::mem::take(&mut state.waiting) {
            state.record.running += 1;
        }
        state.record.last = Some(SystemTime::now());
    }

    fn ended(&self, took: Duration, error: Option<Error>) {
        let record = &mut lock(&self.state).record;
        record.running -= 1;
        record.runs += 1;
        record.failures += u64::from(error.is_some());
        (record.took, record.error) = (Some(took), error);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(text: &str) -> Timestamp {
        format!("2026-03-01T{text}Z").parse().unwrap()
    }

    fn planned(job: &str) -> Planned {
        let text = format!(
            "[extension]\nid = 'a.b'\nversion = '1.0.0'\n[runtime]\nkind = 'mock'\nentry = 'x'\n[schedule.j]\nmethod = 'm'\n{job}"
        );
        let manifest = quadriga_abi::manifest::Manifest::parse(&text, "x").unwrap();
        Jobs::default().keep(&manifest.schedule).remove(0)
    }

    #[test]
    fn what_becomes_of_times_that_have_come() {
        let call = |due, missed| Verdict::Call { due: at(due), missed };
        let miss = |until, missed| Verdict::Miss { until: at(until), missed };
        let (hourly, once) = ("cron = '0 * * * *'", "cron = '0 * * * *'\nmissed = 'once'");
        // Last seen to, now, and whether it takes calls.
        for (job, seen, now, ready, expected) in [
            (hourly, "00:00:00", "00:59:59", true, Verdict::Wait),
            (hourly, "00:00:00", "01:00:00", true, call("01:00:00", 0)),
            (hourly, "00:00:00", "01:00:59", true, call("01:00:00", 0)),
            (hourly, "00:00:00", "01:01:01", true, miss("01:00:00", 1)),
            (hourly, "00:00:00", "04:00:05", true, call("04:00:00", 3)),
            (hourly, "00:00:00", "04:30:00", true, miss("04:00:00", 4)),
            (hourly, "00:00:00", "04:00:05", false, miss("04:00:00", 4)),
            (once, "00:00:00", "04:30:00", true, call("04:00:00", 3)),
            (once, "00:00:00", "04:30:00", false, Verdict::Later),
            (once, "00:00:00", "00:30:00", false, Verdict::Wait),
            ("every = '10s'", "00:00:03", "00:00:12", true, Verdict::Wait),
            ("every = '10s'", "00:00:03", "00:00:13", true, call("00:00:13", 0)),
            ("every = '10s'", "00:00:03", "00:00:45", true, call("00:00:43", 3)),
            ("every = '1s'", "00:00:00", "23:00:00", true, call("23:00:00", COUNTED)),
        ] {
            let planned = planned(job);
            lock(&planned.kept.state).seen = Some(at(seen));
            assert_eq!(planned.judge(at(now), ready, Duration::ZERO), expected, "{job} {seen} {now} {ready}");
            let again = planned.judge(at(now), ready, Duration::ZERO);
            let settled = if expected == Verdict::Later { Verdict::Later } else { Verdict::Wait };
            assert_eq!(again, settled, "{job} {seen} {now}: once is enough");
        }
    }

    #[test]
    fn jitter_makes_nothing_late() {
        let planned = planned("cron = '0 * * * *'\njitter = '10min'");
        lock(&planned.kept.state).seen = Some(at("00:00:00"));
        let verdict = planned.judge(at("01:09:00"), true, Duration::from_secs(600));
        assert_eq!(verdict, Verdict::Call { due: at("01:00:00"), missed: 0 });
    }

    #[test]
    fn a_job_that_stays_as_it_was_goes_on() {
        let jobs = Jobs::default();
        let job = |every: &str| {
            let planned = planned(&format!("every = '{every}'"));
            BTreeMap::from([("j".to_owned(), planned.kept.job.clone())])
        };
        lock(&jobs.keep(&job("1h"))[0].kept.state).record.runs = 5;
        assert_eq!(lock(&jobs.keep(&job("1h"))[0].kept.state).record.runs, 5);
        assert_eq!(lock(&jobs.keep(&job("2h"))[0].kept.state).record.runs, 0);
        assert!(jobs.keep(&BTreeMap::new()).is_empty() && lock(&jobs.0).is_empty());
    }
}

//! The processor time of a worker, as its host sees it. What runs in the worker ends calls that use
//! too much, and knows exactly which; this is for where that fails or lies.

use std::fs;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};

use quadriga_abi::limits::Span;
use quadriga_abi::{Error, ErrorCode};
use tokio::sync::Notify;

use super::Link;

/// How often the worker is looked at while calls are under way.
const TICK: Duration = Duration::from_millis(50);

/// What the engine's own threads and the end of a call may take.
const SLACK: Duration = Duration::from_millis(500);

/// What the host knows of the processor time of one worker.
pub(super) struct Backstop {
    /// Nanoseconds for each call; [`u64::MAX`] for no limit.
    limit: AtomicU64,
    /// The most that the calls which are over can have used, in nanoseconds.
    finished: AtomicU64,
    watched: AtomicBool,
    wanted: Arc<Notify>,
}

/// What is known of one call.
#[derive(Default)]
pub(super) struct Timed {
    begun: Option<Instant>,
    /// What the worker had used, and the calls before could have, when the call was seen first.
    seen: Option<(Duration, Duration)>,
}

impl Default for Backstop {
    fn default() -> Self {
        Self {
            limit: AtomicU64::new(u64::MAX),
            finished: AtomicU64::new(0),
            watched: AtomicBool::new(false),
            wanted: Arc::default(),
        }
    }
}

impl Backstop {
    fn limit(&self) -> Option<Duration> {
        let nanos = self.limit.load(Ordering::Relaxed);
        (nanos != u64::MAX).then_some(Duration::from_nanos(nanos))
    }

    /// A call begins.
    pub(super) fn begin(&self) -> Timed {
        if self.limit().is_none() {
            return Timed::default();
        }
        self.wanted.notify_one();
        Timed { begun: Some(Instant::now()), seen: None }
    }

    /// A call is over.
    pub(super) fn end(&self, timed: &Timed) {
        if let (Some(limit), Some(begun)) = (self.limit(), timed.begun) {
            self.finished.fetch_add(nanos(begun.elapsed().min(limit)), Ordering::Relaxed);
        }
    }

    /// The worker is gone.
    pub(super) fn over(&self) {
        self.wanted.notify_one();
    }
}

impl Link {
    /// Gives each call so much processor time. A worker that uses more than all of its calls
    /// together may, and twice that and a little more, is ended.
    pub(crate) fn limit_cpu(self: &Arc<Self>, limit: Duration) {
        self.backstop.limit.store(nanos(limit), Ordering::Relaxed);
        if !self.backstop.watched.swap(true, Ordering::Relaxed) {
            self.handle.spawn(watch(Arc::downgrade(self), Arc::clone(&self.backstop.wanted)));
        }
    }

    /// The call that went on for longest of those in whose time the worker used more than all of
    /// its calls may.
    fn overrun(&self, limit: Duration) -> Option<u64> {
        let now = self.cpu_time()?;
        let finished = Duration::from_nanos(self.backstop.finished.load(Ordering::Relaxed));
        let mut calls = self.calls.lock();
        let elapsed = |timed: &Timed| timed.begun.map_or(limit, |begun| begun.elapsed().min(limit));
        let under_way: Duration = calls.values().map(|asked| elapsed(&asked.timed)).sum();
        let over = calls.iter_mut().filter_map(|(id, asked)| {
            let (then, before) = *asked.timed.seen.get_or_insert((now, finished));
            let may = (under_way + finished.saturating_sub(before)) * 2 + SLACK;
            (now.saturating_sub(then) > may).then_some((asked.timed.begun, *id))
        });
        over.min().map(|(_, id)| id)
    }

    /// What all processes of the worker have used so far.
    pub(crate) fn cpu_time(&self) -> Option<Duration> {
        let counted = self.cgroup.as_ref().and_then(|cgroup| cgroup.cpu_time());
        counted.or_else(|| of_tree(self.child.pid, DEPTH))
    }

    fn stop_overrun(self: &Arc<Self>, call: u64, limit: Duration) {
        let limit = Span(limit);
        if let Some(asked) = self.forget(call) {
            let message = format!("the call used more than its {limit} of processor time");
            let error = Error::new(ErrorCode::CpuLimit, message).with_hint("raise [limits] cpu-time");
            // Its caller may have gone.
            let _ = asked.reply.send(Err(error));
        }
        self.end_overrun();
    }

    /// Ends the worker of a call that used up its processor time, where nothing else ends the call.
    pub(super) fn end_overrun(&self) {
        let message = "its worker was ended: a call used up its processor time, and went on";
        self.end(Error::new(ErrorCode::ExtensionCrashed, message));
    }
}

async fn watch(link: Weak<Link>, wanted: Arc<Notify>) {
    loop {
        wanted.notified().await;
        loop {
            tokio::time::sleep(TICK).await;
            let Some(link) = link.upgrade().filter(|link| !link.is_over()) else { return };
            let Some(limit) = link.backstop.limit() else { break };
            if let Some(call) = link.overrun(limit) {
                return link.stop_overrun(call, limit);
            }
            if link.calls.lock().is_empty() {
                break;
            }
        }
    }
}

fn nanos(time: Duration) -> u64 {
    u64::try_from(time.as_nanos()).unwrap_or(u64::MAX)
}

/// How far below a worker its processes are counted: a warden, what it watches over, and programs.
const DEPTH: u32 = 4;

/// What a process and those below it have used, where no cgroup counts.
fn of_tree(pid: u32, depth: u32) -> Option<Duration> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The name, in brackets, may have anything in it. After it: user and system time, the 12th and
    // 13th, and those of the children that have ended and were waited for.
    let fields = stat.rsplit_once(") ")?.1.split(' ').skip(11).take(4);
    let ticks: u64 = fields.filter_map(|field| field.parse::<u64>().ok()).sum();
    let own = Duration::from_micros(ticks * 1_000_000 / rustix::param::clock_ticks_per_second());
    let threads = fs::read_dir(format!("/proc/{pid}/task")).into_iter().flatten().flatten();
    let children = threads.filter_map(|thread| fs::read_to_string(thread.path().join("children")).ok());
    let children: String = children.filter(|_| depth > 0).collect();
    let below = children.split_whitespace().filter_map(|child| of_tree(child.parse().ok()?, depth - 1));
    Some(own + below.sum::<Duration>())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_time_of_a_process_and_its_children_is_counted() {
        let busy = || {
            let until = Instant::now() + Duration::from_secs(10);
            let before = quadriga_core::ThreadClock::now();
            while quadriga_core::ThreadClock::now() - before < Duration::from_millis(60) {
                assert!(Instant::now() < until);
            }
        };
        let own = of_tree(std::process::id(), 0).unwrap();
        busy();
        assert!(of_tree(std::process::id(), 0).unwrap() - own >= Duration::from_millis(40));
        assert_eq!(of_tree(u32::MAX, DEPTH), None);
    }
}

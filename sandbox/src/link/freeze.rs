//! A worker that stands still, and signs of life.

use std::collections::HashSet;
use std::fs;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use quadriga_abi::{Bytes, Error, ErrorCode, Kind};
use quadriga_core::{BoxFuture, Pause};
use rustix::process::{Pid, Signal, kill_process};
use tokio::sync::oneshot;

use super::Link;
use crate::frame::Frame;
use crate::streams::Wire as _;

/// How many signs of life may be waited for: further ones are not asked for.
const PINGS: usize = 16;

/// How often the processes of a worker are listed until there are no new ones.
const ROUNDS: usize = 64;

impl Link {
    /// Has the worker and all that it started stand still.
    pub(crate) fn freeze(&self) -> Result<Pause, Error> {
        if self.is_over() {
            return Err(Error::new(ErrorCode::Unsupported, "the worker is gone"));
        }
        // First, so that a call whose time is up meanwhile does not end the worker.
        self.frozen.send_replace(true);
        if let Some(cgroup) = &self.cgroup {
            match cgroup.freeze() {
                Ok(()) => {
                    self.in_freezer.store(true, Ordering::SeqCst);
                    if self.is_over() || self.dismissed.load(Ordering::SeqCst) {
                        // It was to be ended meanwhile, and has to see that.
                        self.strike();
                    }
                    return Ok(Pause::Frozen);
                }
                Err(error) => {
                    tracing::debug!(extension = self.bridge.extension().as_str(), %error, "no freezer");
                    // It may have got half of the way.
                    let _ = cgroup.thaw();
                }
            }
        }
        self.child.signal(Signal::STOP);
        self.below(Signal::STOP);
        Ok(Pause::Stopped)
    }

    /// Has it go on.
    pub(crate) fn thaw(&self) -> Result<(), Error> {
        if !*self.frozen.borrow() || self.is_over() {
            return Ok(());
        }
        match &self.cgroup {
            Some(cgroup) if self.in_freezer.load(Ordering::Acquire) => {
                cgroup.thaw().map_err(|error| {
                    Error::new(ErrorCode::Internal, format!("the worker cannot be thawed: {error}"))
                })?;
                self.in_freezer.store(false, Ordering::Release);
            }
            _ => {
                self.below(Signal::CONT);
                self.child.signal(Signal::CONT);
            }
        }
        self.frozen.send_replace(false);
        Ok(())
    }

    /// Ends the worker at once, also while it is frozen: a process in a freezer of version 1 sees to
    /// no signal before it is thawed.
    pub(super) fn strike(&self) {
        self.child.kill();
        if self.in_freezer.swap(false, Ordering::SeqCst)
            && let Some(cgroup) = &self.cgroup
        {
            let _ = cgroup.thaw();
        }
        self.frozen.send_replace(false);
    }

    /// Sends a signal to all that the worker started and that came from that, until there are none
    /// that have not got it. Whoever is stopped reaps nobody, so that no number is given to others.
    fn below(&self, signal: Signal) {
        let mut seen = HashSet::new();
        for _ in 0..ROUNDS {
            let before = seen.len();
            let mut parents: Vec<i32> = i32::try_from(self.child.pid).into_iter().collect();
            while let Some(parent) = parents.pop() {
                for child in children(parent) {
                    if seen.insert(child)
                        && let Some(pid) = Pid::from_raw(child)
                    {
                        let _ = kill_process(pid, signal);
                    }
                    parents.push(child);
                }
            }
            if seen.len() == before {
                break;
            }
        }
    }

    /// Asks for a sign of life.
    pub(crate) fn ping(self: &Arc<Self>) -> BoxFuture<'static, Result<(), Error>> {
        static NUMBERS: AtomicU64 = AtomicU64::new(1);
        let id = NUMBERS.fetch_add(1, Ordering::Relaxed);
        let (alive, answered) = oneshot::channel();
        {
            let mut pings = self.pings.lock();
            // Those that nobody waits for any more are answered late, if at all.
            if pings.len() < PINGS {
                pings.insert(id, alive);
                drop(pings);
                self.send(&Frame::new(Kind::Ping, id, Bytes::new()));
            }
        }
        let link = Arc::clone(self);
        Box::pin(async move {
            match answered.await {
                Ok(()) => Ok(()),
                Err(_) if link.is_over() => Err(link.gone()),
                // So many went unanswered that this one was not sent.
                Err(_) => std::future::pending().await,
            }
        })
    }

    pub(super) fn answered_ping(&self, id: u64) -> Result<(), String> {
        let alive = self.pings.lock().remove(&id).ok_or("a sign of life that nobody asked for")?;
        // Who asked may have given up.
        let _ = alive.send(());
        Ok(())
    }
}

/// The children of a process, of all its threads.
pub(super) fn children(pid: i32) -> Vec<i32> {
    let Ok(threads) = fs::read_dir(format!("/proc/{pid}/task")) else { return Vec::new() };
    let lists =
        threads.flatten().filter_map(|thread| fs::read_to_string(thread.path().join("children")).ok());
    let read = |list: String| list.split_whitespace().filter_map(|pid| pid.parse().ok()).collect::<Vec<_>>();
    lists.flat_map(read).collect()
}

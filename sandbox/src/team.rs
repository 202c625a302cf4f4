//! The workers of one extension: one, or several that share its calls.

use std::cmp::Reverse;
use std::fs::File;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use futures_util::future::{join_all, select_all, try_join_all};
use parking_lot::Mutex;
use quadriga_abi::limits::{Limits, Span};
use quadriga_abi::permission::Permissions;
use quadriga_abi::{Description, Error, ErrorCode};
use quadriga_core::{
    BoxFuture, Bridge, Call, Instance, Layer, Outcome, Pause, RESTORE, Unit, Usage, beside_calls,
};

use crate::confine::{LayerStatus, Report};
use crate::jail::Jail;
use crate::job::Greeting;
use crate::link::Link;
use crate::process::Worker;
use crate::runtime::Origin;

/// How long a worker may take to go when it is asked to.
const PATIENCE: Duration = Duration::from_millis(1500);

/// An extension in its worker processes.
pub(crate) struct Team {
    /// All have loaded it. At least one.
    workers: Vec<Worker>,
    /// Held while a worker is chosen for a call.
    choosing: Mutex<()>,
    description: Description,
    report: Report,
    /// What it could do when it was started.
    held: Permissions,
    /// For the next workers of the same extension, or another's that is made of the same.
    _prepared: Option<Arc<File>>,
    /// What all of them are in. Last, so that it outlives the processes.
    jail: Jail,
}

impl Team {
    /// Starts so many workers, and has each load the extension.
    pub(crate) async fn start(
        origin: &Origin,
        jail: Jail,
        unit: &Unit,
        bridge: &Bridge,
        workers: usize,
        ends_busy_calls: bool,
    ) -> Result<Self, Error> {
        let start = |_| Worker::start(origin, &jail, unit, bridge, ends_busy_calls);
        let workers = try_join_all((0..workers.max(1)).map(start)).await?;
        if let Some(Span(limit)) = unit.limits.cpu_time {
            workers.iter().for_each(|worker| worker.link.limit_cpu(limit));
        }
        let loaded = try_join_all(workers.iter().map(|worker| worker.load(unit, bridge, &jail))).await;
        if loaded.is_err() {
            workers.iter().for_each(|worker| worker.link.kill());
            let gone = join_all(workers.iter().map(|worker| worker.link.over()));
            let _ = tokio::time::timeout(PATIENCE, gone).await;
        }
        let mut loaded = loaded?.into_iter();
        let first = loaded.next().ok_or_else(|| Error::new(ErrorCode::Internal, "no worker was started"))?;
        let Greeting { description, report, .. } = first;
        if loaded.any(|other| other.description != description) {
            let message = "its workers do not export the same methods";
            return Err(Error::new(ErrorCode::ProtocolViolation, message)
                .with_hint("let what is exported not depend on chance, or leave out concurrency"));
        }
        let held = unit.permissions.clone();
        let _prepared = unit.prepared.clone();
        Ok(Self { workers, choosing: Mutex::default(), description, report, held, _prepared, jail })
    }

    fn links(&self) -> impl Iterator<Item = &Arc<Link>> {
        self.workers.iter().map(|worker| &worker.link)
    }

    /// Those that have not ended; the first if all have.
    fn there(&self) -> Vec<&Arc<Link>> {
        let mut there: Vec<_> = self.links().filter(|link| !link.is_over()).collect();
        if there.is_empty() {
            there.extend(self.links().next());
        }
        there
    }

    /// Hands a call to the worker that has the least to do, of those that are there.
    fn share_out(&self, call: Call) -> Outcome {
        let link = {
            // One at a time, so that two do not find the same worker idle.
            let _one = self.choosing.lock();
            let least = self.links().min_by_key(|link| (link.is_over(), link.busy()));
            let link = least.unwrap_or(&self.workers[0].link);
            link.coming.fetch_add(1, Relaxed);
            link
        };
        let outcome = link.call(call);
        link.coming.fetch_sub(1, Relaxed);
        outcome
    }

    /// Has all of them do the same, and waits for all. The first error counts.
    fn ask_all(&self, call: &Call) -> Outcome {
        let asked: Vec<_> = self.links().map(|link| link.call(call.clone()).result()).collect();
        Outcome::Pending(Box::pin(async move {
            let mut answers = join_all(asked).await;
            answers.sort_by_key(|answer| Reverse(answer.is_err()));
            answers.swap_remove(0)
        }))
    }
}

impl Instance for Team {
    fn describe(&self) -> &Description {
        &self.description
    }

    fn call(&self, call: Call) -> Outcome {
        match &self.workers[..] {
            [only] => only.link.call(call),
            _ if call.name() == RESTORE => self.ask_all(&call),
            _ => self.share_out(call),
        }
    }

    fn blocks(&self) -> bool {
        false
    }

    fn interrupt(&self, call: u64) {
        // Who does not know the call does nothing.
        self.links().for_each(|link| link.interrupt(call));
    }

    fn usage(&self) -> Usage {
        let pids: Vec<u32> = self.links().filter(|link| !link.is_over()).map(|link| link.pid()).collect();
        let Some(first) = pids.first().copied() else {
            return Usage { memory: Some(0), ..Usage::default() };
        };
        let held = self.jail.cgroup.as_ref().and_then(|cgroup| cgroup.usage().ok()).unwrap_or_default();
        let memory = held.memory.or_else(|| pids.iter().map(|pid| resident(*pid)).sum());
        let cpu_time = held.cpu_time.or_else(|| self.links().map(|link| link.cpu_time()).sum());
        let instances = u32::try_from(pids.len()).unwrap_or(u32::MAX);
        Usage { memory, instances, process: Some(first), cpu_time }
    }

    fn layers(&self) -> Vec<Layer> {
        let layer = |status: &LayerStatus| Layer {
            name: status.layer.to_string(),
            state: status.state.to_string(),
            note: status.note.clone(),
        };
        self.report.layers.iter().chain(&self.jail.held).map(layer).collect()
    }

    /// What the cgroup of all and their engines hold them to can change; what a process was told at
    /// its start cannot.
    fn set_limits(&self, limits: &Limits) -> Result<(), Error> {
        self.jail.limit(limits)?;
        self.workers.iter().for_each(|worker| worker.limit(limits));
        Ok(())
    }

    /// What is around a worker can be neither widened nor narrowed while it runs. Those that hold
    /// more than they may are ended; supervision starts the next with what is left.
    fn permissions_changed(&self, permissions: &Permissions) -> bool {
        // The host checks calls and connections each time, and the programs that it runs itself.
        let around = |all: &Permissions| {
            let mut all = Permissions { net: Vec::new(), ..beside_calls(all) };
            if !self.jail.starts_programs {
                all.subprocess.clear();
            }
            all
        };
        let (held, now) = (around(&self.held), around(permissions));
        let gone = held.beyond(&now);
        if !gone.is_empty() {
            let message = format!("its worker was ended: it held {}, which was revoked", gone.join(", "));
            let why = Error::new(ErrorCode::ExtensionCrashed, message);
            self.links().for_each(|link| link.end(why.clone()));
            return true;
        }
        self.links().for_each(|link| link.permit(permissions));
        now.beyond(&held).is_empty()
    }

    /// All of them stand still, or none does.
    fn pause(&self) -> Result<Pause, Error> {
        let mut paused = Pause::Frozen;
        for link in self.there() {
            match link.freeze() {
                Ok(Pause::Frozen) => {}
                Ok(other) => paused = other,
                Err(error) => {
                    self.links().for_each(|link| _ = link.thaw());
                    return Err(error);
                }
            }
        }
        Ok(paused)
    }

    fn resume(&self) -> Result<(), Error> {
        self.links().try_for_each(|link| link.thaw())
    }

    fn ping(&self) -> BoxFuture<'static, Result<(), Error>> {
        let all = self.there().into_iter().map(|link| link.ping());
        let all = try_join_all(all.collect::<Vec<_>>());
        Box::pin(async move { all.await.map(drop) })
    }

    fn weakened(&self) -> Option<BoxFuture<'static, Error>> {
        let ends: Vec<_> = self.links().map(|link| link.over()).collect();
        (ends.len() > 1)
            .then(|| -> BoxFuture<'static, Error> { Box::pin(async move { select_all(ends).await.0 }) })
    }

    fn ended(&self) -> Option<BoxFuture<'static, Error>> {
        let last: Vec<_> = self.links().map(|link| link.over()).collect();
        Some(Box::pin(async move {
            let unknown = || Error::new(ErrorCode::ExtensionCrashed, "the worker is gone");
            join_all(last).await.into_iter().next().unwrap_or_else(unknown)
        }))
    }

    fn shutdown(&self) -> BoxFuture<'_, ()> {
        let shut = self.links().map(|link| link.shutdown(PATIENCE));
        let all = join_all(shut.collect::<Vec<_>>());
        Box::pin(async move { _ = all.await })
    }
}

/// The bytes of memory that a process holds.
fn resident(pid: u32) -> Option<u64> {
    let statm = std::fs::read_to_string(format!("/proc/{pid}/statm")).ok()?;
    let pages: u64 = statm.split_whitespace().nth(1)?.parse().ok()?;
    Some(pages * rustix::param::page_size() as u64)
}

use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use parking_lot::Mutex;
use quadriga_abi::limits::{ByteSize, Limit, Limits, Span};
use quadriga_abi::permission::Permissions;
use quadriga_abi::{Description, Error, ErrorCode, Isolation, Kind, RuntimeKind};
use quadriga_core::{
    BoxFuture, Bridge, Call, Instance, Language, Layer, MemoryPool, Outcome, Pause, Runtime, Support, Unit,
    Usage,
};
use rustix::net::{AddressFamily, SocketFlags, SocketType, socketpair};

use crate::confine::{Cgroup, ExecMemory, LayerStatus, Report};
use crate::frame::Frame;
use crate::jail::{self, Jail};
use crate::job::{Greeting, Hello as _, Job};
use crate::link::{Link, Loaded};
use crate::output::Printed;
use crate::{nursery, program};

/// How long a worker may take to say why its load failed, once it is out of time.
const GRACE: Duration = Duration::from_millis(750);

/// How long a worker may take to go when it is asked to.
const PATIENCE: Duration = Duration::from_millis(1500);

/// How long the end of a worker may take to be noticed.
const NOTICE: Duration = Duration::from_millis(100);

/// The most bytes of a message where the dispatcher does not say it.
const MESSAGE: u64 = 128 << 20;

/// Runs the extensions of another runtime in worker processes, one each, which are confined.
pub struct ProcessRuntime {
    /// Prepares loads, and says what it is; what runs is its like in the worker.
    inner: Arc<dyn Runtime>,
    support: Support,
    /// The engine itself ends calls that use up their processor time.
    ends_busy_calls: bool,
    exec_memory: ExecMemory,
    program: Option<PathBuf>,
    /// What all extensions of the host may use together, once that is known.
    memory: OnceLock<Arc<MemoryPool>>,
}

impl ProcessRuntime {
    /// Isolates what `runtime` runs. `program` is the worker program, which is run with the one
    /// argument `worker`; it is looked for at the first load if left out: the one that the
    /// environment variable `QUADRIGA_WORKER` names, or else `quadriga` in the folder of the
    /// host's own program or the one above it.
    ///
    /// `isolation` is `process` or `container`, and `exec_memory` what the engine needs to run.
    pub fn new(
        runtime: Arc<dyn Runtime>,
        isolation: Isolation,
        exec_memory: ExecMemory,
        program: Option<PathBuf>,
    ) -> Self {
        let inner = runtime.support();
        let held: &[Limit] = if *jail::CGROUPS { &jail::CGROUP } else { &[] };
        let limits = union([inner.limits, &jail::PROCESS, held]);
        let permissions = union([inner.permissions, &jail::PERMISSIONS]);
        let support = Support { isolation, limits, permissions };
        let ends_busy_calls = inner.limits.contains(&Limit::CpuTime);
        let memory = OnceLock::new();
        Self { inner: runtime, support, ends_busy_calls, exec_memory, program, memory }
    }
}

impl ProcessRuntime {
    async fn prepare_in_time(&self, unit: &Unit) -> Result<Option<Arc<File>>, Error> {
        let preparing = tokio::time::timeout_at(unit.deadline.into(), self.inner.prepare(unit));
        preparing.await.unwrap_or_else(|_| Err(late()))
    }
}

impl Runtime for ProcessRuntime {
    fn kind(&self) -> RuntimeKind {
        self.inner.kind()
    }

    fn engine(&self) -> String {
        self.inner.engine()
    }

    fn support(&self) -> Support {
        self.support
    }

    fn languages(&self) -> &'static [Language] {
        self.inner.languages()
    }

    fn share_memory(&self, pool: &Arc<MemoryPool>) {
        // Once, by the dispatcher.
        let _ = self.memory.set(Arc::clone(pool));
    }

    fn load(&self, unit: Unit, bridge: Bridge) -> BoxFuture<'_, Result<Arc<dyn Instance>, Error>> {
        Box::pin(async move {
            let unit = Unit { prepared: self.prepare_in_time(&unit).await?, ..unit };
            let jail = Jail::new(self.support.isolation, self.exec_memory, &unit, self.around().as_ref())?;
            let worker = start(self.program.as_deref(), jail, &unit, &bridge, self.ends_busy_calls).await?;
            if let Some(Span(limit)) = unit.limits.cpu_time {
                worker.link.limit_cpu(limit);
            }
            let loaded = worker.load(&unit, &bridge).await;
            if loaded.is_err() {
                worker.link.kill();
                let _ = tokio::time::timeout(PATIENCE, worker.link.over()).await;
            }
            let Greeting { description, report, .. } = loaded?;
            let held = unit.permissions;
            let prepared = unit.prepared;
            let instance = ProcessInstance { worker, description, report, held, _prepared: prepared };
            Ok(Arc::new(instance) as Arc<dyn Instance>)
        })
    }
}

impl ProcessRuntime {
    /// What holds all workers of the host to the memory that they may use together. Where there
    /// are no cgroups it is the dispatcher alone that looks.
    fn around(&self) -> Option<Arc<Cgroup>> {
        self.memory.get()?.keeper(|most| Cgroup::create_around("all", most).ok())
    }
}

/// A worker process. Ended when dropped.
pub(crate) struct Worker {
    pub(crate) link: Arc<Link>,
    /// Its hello, until it has come.
    loaded: Mutex<Option<Loaded>>,
    _printed: Printed,
    /// Last, so that it outlives the process.
    jail: Jail,
}

async fn start(
    program: Option<&Path>,
    jail: Jail,
    unit: &Unit,
    bridge: &Bridge,
    ends_busy_calls: bool,
) -> Result<Worker, Error> {
    let program = program::find(program)?;
    let failed = |error: io::Error| {
        let message = format!("the worker {} could not be started: {error}", program.display());
        Error::new(ErrorCode::LoadFailed, message)
    };
    let pair = socketpair(AddressFamily::UNIX, SocketType::STREAM, SocketFlags::CLOEXEC, None);
    let (ours, theirs) = pair.map_err(|error| failed(error.into()))?;
    let ours = Arc::new(ours);
    let (child, pipes) = nursery::start(&program, theirs, Arc::clone(&ours)).await.map_err(failed)?;
    // Before it is told what to do, so that all it ever starts is in there.
    if let Some(cgroup) = &jail.cgroup
        && let Err(error) = cgroup.add(child.pid)
        // How one ended that is gone already is told where its end is seen.
        && child.wait(NOTICE).is_none()
    {
        child.kill();
        return Err(jail::unavailable(&error));
    }
    let most = unit.limits.message_size.map_or(MESSAGE, |ByteSize(most)| most.max(MESSAGE));
    let most = usize::try_from(most).unwrap_or(usize::MAX);
    let cgroup = jail.cgroup.clone();
    let (link, loaded) =
        Link::start(bridge.clone(), Arc::clone(&child), cgroup, ours, most, ends_busy_calls)?;
    let _printed = Printed::read(bridge, pipes).map_err(|error| {
        child.kill();
        failed(error)
    })?;
    Ok(Worker { link, loaded: Mutex::new(Some(loaded)), _printed, jail })
}

impl Worker {
    /// Gives it the extension to load, and waits until it has.
    async fn load(&self, unit: &Unit, bridge: &Bridge) -> Result<Greeting, Error> {
        let mut hello =
            Frame::new(Kind::Hello, 0, Job::new(unit, &bridge.config(), self.jail.plan.clone())?.to_bytes()?);
        hello.envelope.deadline = Some(unit.deadline);
        let prepared = unit.prepared.as_ref().map(|file| file.try_clone()).transpose();
        let prepared = prepared.map_err(|error| {
            Error::new(ErrorCode::LoadFailed, format!("what was prepared cannot be handed over: {error}"))
        })?;
        self.link.send_with(&hello, prepared.map(Into::into));
        let gone = || Error::new(ErrorCode::LoadFailed, "the worker is gone");
        let loaded = self.loaded.lock().take().ok_or_else(gone)?;
        match tokio::time::timeout_at((unit.deadline + GRACE).into(), loaded).await {
            Ok(greeting) => greeting.map_err(|_| gone())?,
            Err(_) => Err(late()),
        }
    }
}

impl Worker {
    /// Has limits kept to that are about its calls and its engine.
    fn limit(&self, limits: &Limits) {
        if let Some(Span(limit)) = limits.cpu_time {
            self.link.limit_cpu(limit);
        }
        if limits.cpu_time.is_some() || limits.memory.is_some() {
            self.link.limit(limits);
        }
    }
}

fn late() -> Error {
    let message = "the worker did not load the extension in time";
    Error::new(ErrorCode::DeadlineExceeded, message).with_hint("raise [limits] load-timeout")
}

impl Drop for Worker {
    fn drop(&mut self) {
        self.link.kill();
    }
}

/// An extension in a worker process.
struct ProcessInstance {
    worker: Worker,
    description: Description,
    report: Report,
    /// What it could do when it was started.
    held: Permissions,
    /// For the next worker of the same extension, or another's that is made of the same.
    _prepared: Option<Arc<File>>,
}

impl Instance for ProcessInstance {
    fn describe(&self) -> &Description {
        &self.description
    }

    fn call(&self, call: Call) -> Outcome {
        self.worker.link.call(call)
    }

    fn blocks(&self) -> bool {
        false
    }

    fn interrupt(&self, call: u64) {
        self.worker.link.interrupt(call);
    }

    fn usage(&self) -> Usage {
        if self.worker.link.is_over() {
            return Usage { memory: Some(0), ..Usage::default() };
        }
        let held = self.worker.jail.cgroup.as_ref().and_then(|cgroup| cgroup.usage().ok()?.memory);
        let pid = self.worker.link.pid();
        Usage { memory: held.or_else(|| resident(pid)), instances: 1, process: Some(pid) }
    }

    fn layers(&self) -> Vec<Layer> {
        let layer = |status: &LayerStatus| Layer {
            name: status.layer.to_string(),
            state: status.state.to_string(),
            note: status.note.clone(),
        };
        self.report.layers.iter().map(layer).collect()
    }

    /// What its cgroup and its engine hold it to can change; what its process was told at its start
    /// cannot.
    fn set_limits(&self, limits: &Limits) -> Result<(), Error> {
        self.worker.jail.limit(limits)?;
        self.worker.limit(limits);
        Ok(())
    }

    /// What is around a worker can be neither widened nor narrowed while it runs. One that holds
    /// more than it may is ended; supervision starts the next with what is left.
    fn permissions_changed(&self, permissions: &Permissions) -> bool {
        let beside_calls = |all: &Permissions| Permissions { call: Vec::new(), ..all.clone() };
        let (held, now) = (beside_calls(&self.held), beside_calls(permissions));
        let gone = held.beyond(&now);
        if !gone.is_empty() {
            let message = format!("its worker was ended: it held {}, which was revoked", gone.join(", "));
            self.worker.link.end(Error::new(ErrorCode::ExtensionCrashed, message));
            return true;
        }
        self.worker.link.permit(permissions);
        now.beyond(&held).is_empty()
    }

    fn pause(&self) -> Result<Pause, Error> {
        self.worker.link.freeze()
    }

    fn resume(&self) -> Result<(), Error> {
        self.worker.link.thaw()
    }

    fn ping(&self) -> BoxFuture<'static, Result<(), Error>> {
        self.worker.link.ping()
    }

    fn ended(&self) -> Option<BoxFuture<'static, Error>> {
        Some(self.worker.link.over())
    }

    fn shutdown(&self) -> BoxFuture<'_, ()> {
        Box::pin(self.worker.link.shutdown(PATIENCE))
    }
}

/// What is in any of the lists, once. For the few runtimes that a host makes: it stays for good.
fn union<T: Copy + PartialEq, const N: usize>(lists: [&[T]; N]) -> &'static [T] {
    let mut all: Vec<T> = Vec::new();
    for item in lists.into_iter().flatten() {
        if !all.contains(item) {
            all.push(*item);
        }
    }
    all.leak()
}

/// The bytes of memory that a process holds.
fn resident(pid: u32) -> Option<u64> {
    let statm = std::fs::read_to_string(format!("/proc/{pid}/statm")).ok()?;
    let pages: u64 = statm.split_whitespace().nth(1)?.parse().ok()?;
    Some(pages * rustix::param::page_size() as u64)
}

#[cfg(test)]
mod tests;

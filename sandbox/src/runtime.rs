use std::fs::File;
use std::path::PathBuf;
use std::sync::{Arc, OnceLock};

use quadriga_abi::limits::Limit;
use quadriga_abi::{Error, Isolation, RuntimeKind};
use quadriga_core::{BoxFuture, Bridge, Instance, Language, MemoryPool, Runtime, Support, Unit};

use crate::confine::{self, Cgroup, ExecMemory};
use crate::jail::{self, Around, Jail};
use crate::process::late;
use crate::team::Team;

/// Runs the extensions of another runtime in worker processes, which are confined: one each, or as
/// many as the manifest says with `concurrency`, unless the runtime is concurrent by itself.
pub struct ProcessRuntime {
    /// Prepares loads, and says what it is; what runs is its like in the worker.
    inner: Arc<dyn Runtime>,
    support: Support,
    /// The engine itself ends calls that use up their processor time.
    ends_busy_calls: bool,
    exec_memory: ExecMemory,
    /// Its engine asks the host for each connection, and needs no sockets of its own.
    connects: bool,
    origin: Origin,
    /// What all extensions of the host may use together, once that is known.
    memory: OnceLock<Arc<MemoryPool>>,
}

/// Where workers come from.
#[derive(Debug)]
pub(crate) struct Origin {
    pub(crate) kind: RuntimeKind,
    pub(crate) program: Option<PathBuf>,
    /// Whether they are forked from a process that has begun.
    pub(crate) forks: bool,
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
        let open = inner.isolation == Isolation::None;
        let programs: &[&str] = if open { &jail::PROGRAMS } else { &[] };
        let permissions = union([inner.permissions, &jail::PERMISSIONS, programs]);
        let support = Support { isolation, limits, permissions };
        let origin = Origin { kind: runtime.kind(), program, forks: true };
        let ends_busy_calls = inner.limits.contains(&Limit::CpuTime);
        let connects = inner.permissions.contains(&"net");
        let memory = OnceLock::new();
        Self { inner: runtime, support, ends_busy_calls, exec_memory, connects, origin, memory }
    }

    /// Starts the program anew for each worker. Otherwise workers of a kind are forked from one
    /// process of it, which is quicker, but leaves them with the same addresses and, in Python, the
    /// same seed of hashes.
    #[must_use]
    pub fn unforked(mut self) -> Self {
        self.origin.forks = false;
        self
    }

    /// In an engine that keeps extensions inside there is no way to start a program.
    fn starts_programs(&self) -> bool {
        self.support.permissions.contains(&jail::PROGRAMS[0])
    }

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
            let mut unit = Unit { prepared: self.prepare_in_time(&unit).await?, ..unit };
            if !self.starts_programs() {
                // The host runs them, if it does, and not the worker.
                unit.permissions.subprocess.clear();
            }
            let workers = if self.inner.is_concurrent() { None } else { unit.manifest.runtime.concurrency };
            let workers = workers.map_or(1, |n| usize::from(n.get()));
            let (isolation, around) = (self.support.isolation, self.around(Cgroup::create_around));
            let mut jail = Jail::new(isolation, self.exec_memory, &unit, around, workers)?;
            jail.starts_programs = self.starts_programs();
            if !self.connects && !unit.manifest.permissions.net.is_empty() {
                jail.open_to_proxy(&bridge.trusted_certificates())?;
            }
            let team = Team::start(&self.origin, jail, &unit, &bridge, workers, self.ends_busy_calls).await?;
            Ok(Arc::new(team) as Arc<dyn Instance>)
        })
    }
}

impl ProcessRuntime {
    fn around(&self, make: impl FnOnce(&str, u64) -> Result<Cgroup, confine::Error>) -> Option<Around> {
        around(self.memory.get(), make)
    }
}

/// What holds all workers of the host to the memory that they may use together, if that is limited.
/// Where it cannot be made it is the dispatcher alone that looks, which is said once here and in the
/// layers of each worker.
pub(crate) fn around(
    pool: Option<&Arc<MemoryPool>>,
    make: impl FnOnce(&str, u64) -> Result<Cgroup, confine::Error>,
) -> Option<Around> {
    Some(pool?.keeper(|most| {
        make("all", most).map_err(|error| {
            let why = error.to_string();
            tracing::warn!(why, "no cgroup holds the workers to their memory together");
            why
        })
    }))
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

#[cfg(test)]
mod tests;

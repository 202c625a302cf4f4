//! What a worker is confined to.

use std::collections::BTreeMap;
use std::path::{Component, Path, PathBuf};

use quadriga_abi::Isolation;
use serde::{Deserialize, Serialize};

use super::Error;

/// What one worker may see and use. Everything that isn't named here is denied.
///
/// All paths are absolute and as the supervisor sees them; the worker finds them at the same place.
/// What lies inside of a path to write and is itself to read can't be written.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Plan {
    /// `process` or `container`.
    pub isolation: Isolation,
    /// The pid of the supervisor. The worker dies with the thread of the supervisor that started it,
    /// so start it from a thread that lives as long as the supervisor.
    pub parent: u32,
    /// Descriptors to keep open, such as the socket to the supervisor. Of 0, 1 and 2, those that are
    /// not here become `/dev/null`. No descriptor of a folder: it would lead out of a private root.
    pub keep_fds: Vec<i32>,
    /// The environment from then on, whatever it was before.
    pub env: BTreeMap<String, String>,
    /// The user to run as, where the supervisor is root. It must have access to the paths below.
    pub run_as: Option<RunAs>,
    /// The folder of the extension, to read.
    pub package: PathBuf,
    /// A folder to write to, and the current folder. Without one, that is the package.
    pub scratch: Option<PathBuf>,
    /// Bytes that may be in there. It becomes a file system in memory then, which nobody else sees,
    /// which ends with the worker and is charged to its cgroup. Needs a mount namespace.
    pub scratch_size: Option<u64>,
    /// What the engine reads: libraries, the dynamic loader's cache, an interpreter's modules,
    /// `/proc/self`. Paths that the machine doesn't have, or that the user can't reach, are left out.
    pub engine_paths: Vec<PathBuf>,
    /// Further paths that were granted.
    pub grants: Vec<Grant>,
    /// Which sockets may be opened.
    pub net: Net,
    /// Which memory may be made executable.
    pub exec_memory: ExecMemory,
    /// Whether files in memory may be made (`memfd_create`). Otherwise there seem to be none
    /// (`ENOSYS`), which engines that use them know how to do without. Where programs may be started,
    /// only those that can never be run (`MFD_NOEXEC_SEAL`, Linux 6.3).
    pub memfd: bool,
    /// Whether the supervisor wants to know of system calls that are refused, and answers at
    /// [`Entered::watch`](super::Entered::watch). Where that cannot be had, they are refused unseen.
    pub watched: bool,
    /// Limits of each process.
    pub limits: ProcessLimits,
}

/// A user and its group, by number.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct RunAs {
    /// User id; not 0.
    pub uid: u32,
    /// Group id, the only group it is in.
    pub gid: u32,
}

/// One path outside the package that an extension may use, with all below it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Grant {
    /// A file or folder that exists.
    pub path: PathBuf,
    /// What for.
    pub access: Access,
}

/// What a path may be used for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Access {
    /// To read.
    ReadOnly,
    /// To read and to run: a program, or a folder of what programs need. Any such grant lets the worker
    /// start processes, which are bounded as it is.
    Run,
    /// To read and to write, but never to run.
    ReadWrite,
}

/// Which sockets a worker may open. Those that it was given stay usable in every case.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Net {
    /// None; the network namespace is empty as well, where there is one.
    Denied,
    /// TCP connections, in a network namespace in which there is nothing but a listening socket for
    /// the supervisor to accept on: see [`Entered::proxy`](super::Entered::proxy).
    Proxy,
    /// TCP and UDP over IP, to and from anywhere.
    Any,
}

/// Which memory may be made executable after the worker is confined.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum ExecMemory {
    /// None, so no library can be loaded either.
    Denied,
    /// Mapped files, so that libraries load. Where the worker has mounts of its own, none that it can
    /// write.
    Libraries,
    /// Any, for engines that compile.
    Any,
}

/// Limits of each process of a worker (`setrlimit`); `None` leaves the one that is there. A core is
/// never dumped.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProcessLimits {
    /// Open files: the highest descriptor plus one.
    pub open_files: Option<u64>,
    /// Threads and processes of the worker. Needs a user namespace of its own, to count no others,
    /// and a user that isn't root; where there is a pids cgroup, leave this to it.
    pub processes: Option<u64>,
    /// Bytes of each file that is written. More fails with `EFBIG`.
    pub file_size: Option<u64>,
    /// Processor time in seconds, after which `SIGXCPU` ends the process.
    pub cpu_seconds: Option<u64>,
    /// Bytes of private memory that can be written. What is only reserved doesn't count, so this is
    /// for all engines, where there is no cgroup to bound what is used.
    pub data: Option<u64>,
    /// Bytes of address space. Never for engines that reserve more than they use, as V8 and
    /// wasmtime do.
    pub address_space: Option<u64>,
}

impl Plan {
    /// A plan that allows nothing but to read the package.
    pub fn new(isolation: Isolation, package: impl Into<PathBuf>) -> Self {
        Self {
            isolation,
            parent: std::process::id(),
            keep_fds: Vec::new(),
            env: BTreeMap::new(),
            run_as: None,
            package: package.into(),
            scratch: None,
            scratch_size: None,
            engine_paths: Vec::new(),
            grants: Vec::new(),
            net: Net::Denied,
            exec_memory: ExecMemory::Denied,
            memfd: false,
            watched: false,
            limits: ProcessLimits::default(),
        }
    }

    /// The current folder of the worker.
    pub(super) fn folder(&self) -> &Path {
        self.scratch.as_deref().unwrap_or(&self.package)
    }

    /// Each path with its access, and whether it has to exist.
    pub(super) fn paths(&self) -> impl Iterator<Item = (&Path, Access, bool)> {
        let package = (&*self.package, Access::ReadOnly, true);
        let engine = self.engine_paths.iter().map(|path| (&**path, Access::ReadOnly, false));
        let grants = self.grants.iter().map(|grant| (&*grant.path, grant.access, true));
        let scratch = self.scratch.as_deref().map(|path| (path, Access::ReadWrite, true));
        std::iter::once(package).chain(engine).chain(grants).chain(scratch)
    }

    /// The paths to read that lie inside of one to write. Landlock can't take rights away again, so
    /// these need mounts.
    pub(super) fn nested(&self) -> Vec<&Path> {
        let real = |path: &Path| path.canonicalize().unwrap_or_else(|_| path.to_owned());
        let of = |writable: bool| {
            let wanted = move |access| writable == (access == Access::ReadWrite);
            self.paths().filter(move |(_, access, _)| wanted(*access)).map(|(path, ..)| path)
        };
        let writable: Vec<_> = of(true).map(real).collect();
        let inside = |path: &&Path| {
            let path = real(path);
            writable.iter().any(|outer| path.starts_with(outer) && path != *outer)
        };
        of(false).filter(inside).collect()
    }

    /// Whether programs may be started.
    pub(super) fn starts_programs(&self) -> bool {
        self.grants.iter().any(|grant| grant.access == Access::Run)
    }

    pub(super) fn check(&self) -> Result<(), Error> {
        let wrong = |what: String| Err(Error::Plan(what));
        if !matches!(self.isolation, Isolation::Process | Isolation::Container) {
            return wrong(format!("the level {} is none of a worker process", self.isolation));
        }
        let plain = |path: &Path| {
            path.is_absolute()
                && path.parent().is_some()
                && path.components().all(|part| matches!(part, Component::RootDir | Component::Normal(_)))
        };
        if let Some((path, ..)) = self.paths().find(|(path, ..)| !plain(path)) {
            return wrong(format!("{} is not an absolute path below the root", path.display()));
        }
        if self.scratch_size.is_some() && self.scratch.is_none() {
            return wrong("there is no scratch folder to bound the size of".to_owned());
        }
        if self.run_as.is_some_and(|user| user.uid == 0) {
            return wrong("a worker can't be told to run as root".to_owned());
        }
        if let Some(name) = self.env.keys().find(|name| name.is_empty() || name.contains(['=', '\0'])) {
            return wrong(format!("{name:?} is no name of a variable"));
        }
        Ok(())
    }
}

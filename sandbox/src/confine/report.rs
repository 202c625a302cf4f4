//! How far a worker is confined.

use std::fmt;
use std::io;
use std::path::PathBuf;

use quadriga_abi::{ErrorCode, Isolation};
use serde::{Deserialize, Serialize};

use super::RunAs;

/// How far a worker is confined, layer by layer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Report {
    /// The level that was reached, which is the one that the plan asked for.
    pub isolation: Isolation,
    /// All layers, in the order in which they were entered.
    pub layers: Vec<LayerStatus>,
}

/// How far one layer was reached.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LayerStatus {
    /// Which layer.
    pub layer: Layer,
    /// How far.
    pub state: State,
    /// A detail, what is missing, or why it was not reached; may be empty.
    pub note: String,
}

/// One means to confine a process.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Layer {
    /// All descriptors are closed but those to keep.
    Descriptors,
    /// The environment is the plan's, and what it was before is wiped from memory.
    Environment,
    /// A session of its own, without a terminal.
    Session,
    /// The kernel ends the worker when its parent is gone.
    ParentDeath,
    /// No program that is started gives privileges.
    NoNewPrivileges,
    /// A user namespace of its own.
    UserNamespace,
    /// A mount namespace of its own.
    MountNamespace,
    /// System V IPC and message queues of its own.
    IpcNamespace,
    /// A network of its own, in which there is nothing.
    NetNamespace,
    /// A host name of its own.
    UtsNamespace,
    /// Process ids of its own: it sees and signals no others, and all end together.
    PidNamespace,
    /// What may not be written is mounted read-only, so that nobody changes its mode or owner.
    ReadOnlyMounts,
    /// A root folder that holds what the plan names and nothing else.
    PrivateRoot,
    /// A scratch folder of bounded size.
    Disk,
    /// No capabilities, and none to be had.
    Capabilities,
    /// Access to files, ports and scopes by rule.
    Landlock,
    /// Limits of each process.
    Limits,
    /// The kernel asks the supervisor about telling system calls before it refuses them.
    Watch,
    /// System calls by rule.
    Seccomp,
    /// Limits of all processes of a worker together, which the supervisor sets.
    Cgroup,
    /// A limit of the memory of all workers of a supervisor together.
    TotalMemory,
}

/// How far a layer was reached.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum State {
    /// In full.
    Reached,
    /// In what the levels demand, but the note says what is missing.
    Partly,
    /// Not; the note says why.
    NotReached,
    /// The plan has no use for it.
    NotAsked,
}

/// Why a worker could not be confined, or a cgroup not be used.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A layer that the level demands can't be reached here: `isolation_unavailable`.
    #[error("isolation {level} needs {layer}, which can't be reached: {why}")]
    Unavailable {
        /// The level that was asked for.
        level: Isolation,
        /// What it demands.
        layer: Layer,
        /// What happened instead, in words.
        why: String,
    },
    /// No cgroup with what was asked for can be had here; the limits of each process remain.
    #[error("no cgroup: {0}")]
    NoCgroup(String),
    /// A cgroup was there, but an operation on it failed.
    #[error("cgroup: {file}: {error}")]
    Cgroup {
        /// The file or folder of the cgroup file system.
        file: PathBuf,
        /// What the system said.
        #[source]
        error: io::Error,
    },
    /// The plan contradicts itself or the conventions of its fields.
    #[error("the plan is wrong: {0}")]
    Plan(String),
    /// A path that has to exist can't be used.
    #[error("{path}: {error}")]
    Path {
        /// Which path.
        path: PathBuf,
        /// What the system said.
        #[source]
        error: io::Error,
    },
    /// The worker could not become the user of the plan.
    #[error("could not run as user {}: {error}", user.uid)]
    User {
        /// Which user.
        user: RunAs,
        /// What the system said.
        #[source]
        error: io::Error,
    },
    /// The worker could not listen in its own network.
    #[error("the worker's network: {0}")]
    Proxy(#[source] io::Error),
    /// Only a process with one thread can be confined.
    #[error("the worker has more than one thread")]
    Threads,
    /// The worker can't read about itself in `/proc`.
    #[error("/proc/self: {0}")]
    Proc(#[source] io::Error),
}

impl Error {
    /// The code by which extensions and hosts know it.
    pub fn code(&self) -> ErrorCode {
        match self {
            Self::Unavailable { .. } => ErrorCode::IsolationUnavailable,
            Self::NoCgroup(_) => ErrorCode::Unsupported,
            Self::Cgroup { .. } | Self::Path { .. } | Self::User { .. } | Self::Proxy(_) => {
                ErrorCode::LoadFailed
            }
            Self::Plan(_) | Self::Threads | Self::Proc(_) => ErrorCode::Internal,
        }
    }
}

impl fmt::Display for Layer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Descriptors => "closed descriptors",
            Self::Environment => "a clean environment",
            Self::Session => "a session",
            Self::ParentDeath => "death with the parent",
            Self::NoNewPrivileges => "no new privileges",
            Self::UserNamespace => "a user namespace",
            Self::MountNamespace => "a mount namespace",
            Self::IpcNamespace => "an IPC namespace",
            Self::NetNamespace => "a network namespace",
            Self::UtsNamespace => "a UTS namespace",
            Self::PidNamespace => "a PID namespace",
            Self::ReadOnlyMounts => "read-only mounts",
            Self::PrivateRoot => "a private root",
            Self::Disk => "a bounded scratch folder (limit disk)",
            Self::Capabilities => "dropped capabilities",
            Self::Landlock => "Landlock",
            Self::Limits => "rlimits",
            Self::Watch => "a watch over refused system calls",
            Self::Seccomp => "seccomp",
            Self::Cgroup => "a cgroup",
            Self::TotalMemory => "a cgroup around all workers (total memory)",
        })
    }
}

impl fmt::Display for State {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Reached => "reached",
            Self::Partly => "partly",
            Self::NotReached => "not-reached",
            Self::NotAsked => "not-asked",
        })
    }
}

/// What became of a layer that didn't fail.
pub(crate) struct Outcome {
    pub(super) state: State,
    pub(super) note: String,
}

impl Outcome {
    pub(super) fn reached() -> io::Result<Self> {
        Self::noted(State::Reached, "")
    }

    pub(super) fn not_asked() -> io::Result<Self> {
        Self::noted(State::NotAsked, "")
    }

    pub(super) fn noted(state: State, note: impl Into<String>) -> io::Result<Self> {
        Ok(Self { state, note: note.into() })
    }
}

/// Puts the name of what failed before what the system said.
pub(super) fn failed<E: Into<io::Error>>(what: impl fmt::Display) -> impl FnOnce(E) -> io::Error {
    move |error| {
        let error = error.into();
        io::Error::new(error.kind(), format!("{what}: {error}"))
    }
}

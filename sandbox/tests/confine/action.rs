//! What the probe is asked to try, and what it says about it.

use std::path::PathBuf;

use quadriga_sandbox::confine::{Plan, Report};
use serde::{Deserialize, Serialize};

/// Read by the probe from its standard input.
#[derive(Serialize, Deserialize)]
pub(crate) struct Request {
    /// `None` tries everything unconfined, to see that it would work.
    pub(crate) plan: Option<Plan>,
    pub(crate) actions: Vec<Action>,
}

/// The exit code of a probe that is asked nothing.
pub(crate) const NOTHING_TO_DO: i32 = 3;

/// The first line that the probe writes; one [`Outcome`] for each action follows.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Entered(pub(crate) Result<Option<Report>, String>);

/// A text on success, or the number of the system's error.
pub(crate) type Outcome = Result<String, i32>;

#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) enum Action {
    Read(PathBuf),
    List(PathBuf),
    ReadLink(PathBuf),
    Write(PathBuf),
    /// Makes a link to the second in the first, and writes through it.
    WriteBySymlink(PathBuf, PathBuf),
    WriteByHardLink(PathBuf, PathBuf),
    Truncate(PathBuf),
    Chmod(PathBuf),
    Touch(PathBuf),
    Watch(PathBuf),
    /// Makes a folder, files and a rename in this folder, and removes them.
    Work(PathBuf),
    /// Copies a file with its mode.
    Copy(PathBuf, PathBuf),
    Env(String),
    /// Whether a text is in the memory of the first environment.
    FirstEnv(String),
    Ptrace(u32),
    Memory(u32),
    Signal(u32, i32),
    /// Has a file signal a process when it is ready.
    Own(u32),
    Tcp(String),
    ListenTcp,
    Udp,
    Resolve(String),
    Unix(PathBuf),
    Abstract(String),
    /// Sends to a socket's path from one of a pair.
    DatagramPair(PathBuf),
    StreamPair,
    /// A call by its number, to see whether it gets past the filter.
    Call(i64, Vec<u64>),
    /// Types into the terminal that is this descriptor.
    TypeInto(i32),
    Fork,
    /// Forks until it fails, and says how often it did not.
    ForkMany(usize),
    /// A child that leaves the session and goes on for ever.
    Daemon,
    Exec(PathBuf, Vec<String>),
    /// Runs a copy of a program that is in no folder.
    ExecFromMemory(PathBuf),
    Threads(usize),
    /// Starts threads until it fails, and says how many there were.
    ThreadsMany(usize),
    OpenMany(usize),
    WriteBytes(PathBuf, usize),
    /// Makes files in a folder until it fails, removes them, and says how many there were.
    FilesMany(PathBuf, usize),
    Allocate(usize),
    /// The same, and keeps it.
    Hold(usize),
    /// Reserves address space that can't be touched.
    Reserve(usize),
    MapExecutable,
    /// As the loader of libraries does.
    MapFile(PathBuf),
    ProtectExecutable,
    Clocks,
    Abort,
    Exit(i32),
    Spin,
    Sleep,
    /// As a supervisor, starts a probe with this request and waits for it.
    Supervise(Box<Work>),
    /// As a supervisor, so many times; says what was left behind.
    Cycles(usize, Box<Work>),
    /// As a supervisor that forgets it: starts a worker in a cgroup, and says where that is.
    Abandon(Box<Work>),
    Probe,
}

/// A request without the supervisor's pid, which is that of the probe.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Work {
    pub(crate) plan: Plan,
    pub(crate) actions: Vec<Action>,
}

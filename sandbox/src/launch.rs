//! Runs programs for extensions, whatever runs those: each in processes of its own, which are confined
//! as a worker of the extension would be, and have no network.

use std::io;
use std::os::fd::{AsFd as _, OwnedFd};
use std::os::unix::process::ExitStatusExt as _;
use std::path::{Path, PathBuf};
use std::process::ExitStatus;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use quadriga_abi::limits::{ByteSize, Span};
use quadriga_abi::{Bytes, Error, ErrorCode, Kind, RuntimeKind};
use quadriga_core::{BoxFuture, Bridge, Ended, Launch, Launcher, MemoryPool, find_program};
use rustix::net::SendFlags;
use rustix::pipe::{PipeFlags, pipe_with};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::unix::pipe::{Receiver, Sender};
use tokio::runtime::Handle;

use crate::confine::{Cgroup, ExecMemory};
use crate::frame::{Frame, Next, PROGRAM, Reader, TakeFile, write};
use crate::jail::{self, Around, Jail};
use crate::job::{Hello as _, Task};
use crate::nursery::{self, Begun, Child, Pipes};
use crate::program;
use crate::runtime::around;
use crate::sentry;

/// The kind of the zygote that they are forked from: no runtime has this name.
const KIND: &str = "program";

/// The most bytes that come from a process before it is the program.
const GREETING: usize = 64 << 10;

/// How much is read at once of what a program prints.
const CHUNK: usize = 64 << 10;

/// How long processes that were ended may take to be gone.
const GONE: Duration = Duration::from_secs(10);

/// Runs programs in confined processes.
pub struct ProcessLauncher {
    /// The worker program, which becomes the others.
    program: Option<PathBuf>,
    /// What all extensions of the host may use together, once that is known.
    memory: OnceLock<Arc<MemoryPool>>,
}

impl ProcessLauncher {
    /// `program` is the worker program, as for [`ProcessRuntime::new`](crate::ProcessRuntime::new).
    pub fn new(program: Option<PathBuf>) -> Self {
        Self { program, memory: OnceLock::new() }
    }
}

impl Launcher for ProcessLauncher {
    fn run(&self, launch: Launch, bridge: Bridge) -> BoxFuture<'static, Result<Ended, Error>> {
        let worker = program::find(self.program.as_deref());
        let around = around(self.memory.get(), Cgroup::create_around);
        Box::pin(async move {
            let running = Running::start(&worker?, &launch, around, bridge).await?;
            running.serve(launch.stdin, launch.most).await
        })
    }

    fn share_memory(&self, pool: &Arc<MemoryPool>) {
        // Once, by the dispatcher.
        let _ = self.memory.set(Arc::clone(pool));
    }
}

/// A program that runs. Ended when dropped, with all that it has started.
struct Running {
    name: String,
    child: Arc<Child>,
    /// What it reads from and prints to, until that is served.
    ends: Option<(OwnedFd, Pipes)>,
    /// Outlives the processes.
    jail: Option<Jail>,
    handle: Handle,
}

impl Running {
    async fn start(
        worker: &Path,
        launch: &Launch,
        around: Option<Around>,
        bridge: Bridge,
    ) -> Result<Self, Error> {
        let name = launch.program.clone();
        let path = find_program(&name).ok_or_else(|| jail::no_such_program(&name))?;
        let jail = confinement(launch, around)?;
        let failed = |error: io::Error| {
            Error::new(ErrorCode::LoadFailed, format!("{} could not be started: {error}", launch.program))
        };
        let (stdin, feed) = pipe_with(PipeFlags::CLOEXEC).map_err(|error| failed(error.into()))?;
        let Begun { child, socket, pipes } =
            nursery::start(worker, Some(&RuntimeKind::new(KIND)), jail.doors()).await?;
        let handle = Handle::current();
        let (ends, jail) = (Some((feed, pipes)), Some(jail));
        let running = Self { name, child, ends, jail, handle: handle.clone() };
        let jail = running.jail.as_ref().ok_or_else(|| Error::new(ErrorCode::Internal, "no jail"))?;
        jail.hold(&running.child)?;
        order(&socket, &Task::new(jail.plan.clone(), &path, launch), stdin).map_err(failed)?;
        let watch = Box::new(move |watch| {
            if let Err(error) = sentry::serve(watch, bridge, &handle) {
                tracing::warn!(%error, "what a program is refused is not recorded");
            }
        });
        let heard = tokio::task::spawn_blocking(move || hear(socket, watch)).await;
        match heard.map_err(|error| failed(error.into()))? {
            Ok(true) => Ok(running),
            Ok(false) => {
                let status = running.child.ended().await;
                Err(failed(io::Error::other(format!("its process {}", nursery::how(Some(status))))))
            }
            Err(error) => Err(error),
        }
    }

    /// Feeds it and reads what it prints, until it has ended.
    async fn serve(mut self, stdin: Bytes, most: u64) -> Result<Ended, Error> {
        let failed = |error| Error::new(ErrorCode::Internal, format!("its output cannot be read: {error}"));
        let Some((feed, Pipes { stdout, stderr })) = self.ends.take() else {
            return Err(Error::new(ErrorCode::Internal, "its output is read already"));
        };
        let mut feed = Sender::from_owned_fd(feed).map_err(failed)?;
        let [stdout, stderr] = [Receiver::from_owned_fd(stdout), Receiver::from_owned_fd(stderr)];
        let (stdout, stderr) = (stdout.map_err(failed)?, stderr.map_err(failed)?);
        let left = AtomicU64::new(most);
        let fed = async {
            // It need not read all.
            let _ = feed.write_all(&stdin).await;
            drop(feed);
            Ok(())
        };
        let ended = async { Ok(self.child.ended().await) };
        let all = async { tokio::try_join!(fed, drain(stdout, &left), drain(stderr, &left), ended) };
        match all.await {
            Ok(((), stdout, stderr, status)) => self.told(status).map(|()| Ended {
                status: status.code(),
                signal: status.signal(),
                stdout,
                stderr,
            }),
            Err(Stopped::TooMuch) => {
                self.child.kill();
                self.child.ended().await;
                let message = format!("{} printed more than {}, and was ended", self.name, ByteSize(most));
                Err(Error::new(ErrorCode::MessageTooLarge, message)
                    .with_hint("let it print less, or write to a file"))
            }
            Err(Stopped::Failed(error)) => Err(failed(error)),
        }
    }

    /// Whether a limit ended it.
    fn told(&self, status: ExitStatus) -> Result<(), Error> {
        let (name, jail) = (&self.name, self.jail.as_ref());
        let by = |signal| status.signal() == Some(signal);
        let cgroup = jail.and_then(|jail| jail.cgroup.as_ref());
        if by(libc::SIGKILL) && cgroup.is_some_and(|cgroup| cgroup.tell_oom_kill()) {
            let message = format!("{name} needed more memory than it may have");
            return Err(Error::new(ErrorCode::MemoryLimit, message).with_hint("raise [limits] memory"));
        }
        if by(libc::SIGXCPU) && jail.is_some_and(|jail| jail.plan.limits.cpu_seconds.is_some()) {
            let message = format!("{name} used up its processor time");
            return Err(Error::new(ErrorCode::CpuLimit, message).with_hint("raise [limits] cpu-time"));
        }
        Ok(())
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.child.kill();
        let (child, jail) = (Arc::clone(&self.child), self.jail.take());
        // Its cgroup and its folder are removed when nobody is in them.
        self.handle.spawn_blocking(move || {
            child.wait(GONE);
            drop(jail);
        });
    }
}

/// What the program is confined to: no more than a worker of its extension.
fn confinement(launch: &Launch, around: Option<Around>) -> Result<Jail, Error> {
    let mut unit = launch.unit.clone();
    // Those that the machine has not got cannot be started by it.
    unit.permissions.subprocess.retain(|name| find_program(name).is_some());
    let mut jail = Jail::new(launch.isolation, ExecMemory::Libraries, &unit, around, 1)?;
    jail.plan.env.extend(launch.env.clone());
    jail.plan.memfd = false;
    jail.plan.limits.cpu_seconds = unit.limits.cpu_time.map(|Span(time)| time.as_secs_f64().ceil() as u64);
    Ok(jail)
}

/// Tells a new process what to become. With it goes what that will read.
fn order(socket: &OwnedFd, task: &Task, stdin: OwnedFd) -> io::Result<()> {
    let payload = task.to_bytes().map_err(io::Error::other)?;
    let frame = Frame { flags: PROGRAM, ..Frame::new(Kind::Hello, 0, payload) };
    let (head, payload) = (frame.head(), &frame.envelope.payload);
    // Nothing was sent before, and it is less than what a socket takes.
    match write(socket, [&head, payload], Some(stdin.as_fd()), SendFlags::DONTWAIT)? {
        written if written == head.len() + payload.len() => Ok(()),
        _ => Err(io::ErrorKind::WriteZero.into()),
    }
}

/// Hears the process out until it is the program, which closes the connection; false if it ended
/// before.
fn hear(socket: Arc<OwnedFd>, watch: TakeFile) -> Result<bool, Error> {
    let broken = |why: String| {
        Error::new(ErrorCode::Internal, format!("the process of a program broke its contract: {why}"))
    };
    let mut reader = Reader::new(socket, GREETING);
    reader.watch = Some(watch);
    let mut is_ready = false;
    loop {
        match reader.next().map_err(|error| broken(error.to_string()))? {
            Next::End | Next::Nothing => return Ok(is_ready),
            Next::Frame(frame) if frame.envelope.kind == Kind::Hello && !is_ready => is_ready = true,
            Next::Frame(frame) if frame.envelope.kind == Kind::Error => {
                let error = rmp_serde::from_slice(&frame.envelope.payload);
                return Err(error.unwrap_or_else(|error| broken(error.to_string())));
            }
            Next::Frame(frame) => return Err(broken(format!("a {:?}", frame.envelope.kind))),
        }
    }
}

/// Why its output is not read any more.
enum Stopped {
    TooMuch,
    Failed(io::Error),
}

async fn drain(mut pipe: Receiver, left: &AtomicU64) -> Result<Vec<u8>, Stopped> {
    let mut printed = Vec::new();
    loop {
        printed.reserve(CHUNK);
        let read = pipe.read_buf(&mut printed).await.map_err(Stopped::Failed)? as u64;
        if read == 0 {
            return Ok(printed);
        }
        // One task reads both of its outputs.
        let room = left.load(Relaxed).checked_sub(read).ok_or(Stopped::TooMuch)?;
        left.store(room, Relaxed);
    }
}

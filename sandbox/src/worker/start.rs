//! From the start of the process to the first call.

use std::collections::BTreeSet;
use std::io;
use std::os::fd::{AsFd as _, AsRawFd as _, OwnedFd};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::mpsc;
use std::time::{Duration, Instant};

use quadriga_abi::limits::{ByteSize, Limit, Limits, Span};
use quadriga_abi::{Bytes, Error, ErrorCode, Kind};
use quadriga_core::{Bridge, Runtime, Unit};
use rustix::io::fcntl_dupfd_cloexec;
use rustix::net::{SendFlags, SocketType};

use super::Engine;
use super::cpu::Guard;
use super::pool::Pool;
use super::program;
use super::server::{End, Server};
use super::uplink::Host;
use super::zygote::{self, Born};
use crate::confine::{self, Plan, Report, sys};
use crate::frame::{Frame, LISTENER, Next, PROGRAM, Reader, WATCH, write};
use crate::jail;
use crate::job::{Greeting, Hello as _, Job};
use crate::streams::Wire as _;
use crate::zygote::SOCKET;

/// The most bytes of a job: a manifest and the settings.
const JOB: usize = 16 << 20;

/// How long a load may take where the host does not say it.
const LOAD: Duration = Duration::from_secs(60);

/// How long an extension may take to end.
const PATIENCE: Duration = Duration::from_secs(1);

/// Threads for what does not block: the guests that do have a pool of their own.
const THREADS: usize = 2;

pub(super) fn serve(engines: &[Engine]) -> io::Result<()> {
    let (socket, mode) = connection()?;
    if mode != SOCKET {
        return work(engines, socket, None);
    }
    match zygote::live(engines, socket)? {
        Some((socket, born)) => work(engines, socket, Some(born)),
        None => Ok(()),
    }
}

/// Is the worker of one extension.
fn work(engines: &[Engine], socket: OwnedFd, forked: Option<Born>) -> io::Result<()> {
    let socket = Arc::new(socket);
    let mut reader = Reader::trusting(Arc::clone(&socket), JOB);
    let hello = match reader.next() {
        Ok(Next::Frame(frame)) if frame.envelope.kind == Kind::Hello => frame,
        Ok(Next::End | Next::Nothing) => return Ok(()),
        Ok(Next::Frame(_)) => return Err(io::Error::other("the host does not begin with a hello")),
        Err(broken) => return Err(io::Error::other(broken.to_string())),
    };
    if hello.flags & PROGRAM != 0 {
        let parent = forked.map(|born| born.parent);
        return program::run(&hello.envelope.payload, reader.take_file(), &socket, parent);
    }
    let hello = hello.envelope;
    let (events, ended) = mpsc::channel();
    let host = Host::new(Arc::clone(&socket), events);
    let prepared = Job::from_bytes(&hello.payload).and_then(|mut job| {
        let prepared = if job.prepared { reader.take_file() } else { None };
        let libraries = forked.as_ref().map_or_else(libraries, |born| Ok(born.libraries.clone()));
        let warm = forked.and_then(|born| {
            job.plan.parent = born.parent;
            born.engine
        });
        job.plan.keep_fds = vec![1, 2, socket.as_raw_fd()];
        job.plan.keep_fds.extend(prepared.as_ref().map(|file| file.as_raw_fd()));
        job.plan.engine_paths.extend(libraries.map_err(|error| {
            Error::new(ErrorCode::LoadFailed, format!("the worker cannot read about itself: {error}"))
        })?);
        let report = confine(&job.plan, &socket)?;
        warm.map_or(Ok(()), |mut engine| engine.in_child())?;
        let kind = job.runtime.clone();
        let deadline = hello.deadline.unwrap_or_else(|| Instant::now() + LOAD);
        let (unit, id, [config, trusted]) = job.unit(deadline, prepared.map(Into::into))?;
        *host.permissions.lock() = unit.permissions.clone();
        // On the main thread, and the only one so far.
        let engine = engines.iter().find(|engine| engine.kind == kind.as_str());
        let unknown =
            || Error::new(ErrorCode::UnknownRuntime, format!("the worker program has no runtime {kind}"));
        let runtime = (engine.ok_or_else(unknown)?.start)();
        Ok((runtime, unit, Bridge::remote(id, config, trusted, Arc::clone(&host) as _), report))
    });
    let (runtime, unit, bridge, report) = match prepared {
        Ok(prepared) => prepared,
        Err(error) => {
            host.send(&Frame::answer(Kind::Error, 0, Err(error)));
            return Ok(());
        }
    };
    let most = unit.limits.message_size.map_or(u64::MAX, |ByteSize(most)| most);
    // The host checks what it sends; what it sends is for us to hold.
    reader.most = usize::MAX >> 1;
    let executor = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(THREADS)
        .thread_name("quadriga-worker")
        .enable_all()
        .build()?;
    let _ = host.executor.set(executor.handle().clone());
    let guard = guard(&*runtime, &unit.limits, &host);
    let server = Arc::new(Server::new(host, executor.handle().clone(), most, guard));
    Pool::start(reader, Arc::clone(&server))?;
    load(&executor, &*runtime, unit, bridge, report, &server);
    if let Ok(End::Dismissed) = ended.recv()
        && let Some(instance) = server.instance()
    {
        let _ = executor.block_on(async { tokio::time::timeout(PATIENCE, instance.shutdown()).await });
    }
    // Guests may be running on threads of this process, which end with it: neither are those ended
    // first, nor is what libraries have for its end, which takes long and would happen beside them.
    sys::flush_output();
    sys::exit_now(0)
}

/// What ends calls that use up their processor time, where the engine does not do it.
fn guard(runtime: &dyn Runtime, limits: &Limits, host: &Arc<Host>) -> Option<Arc<Guard>> {
    if runtime.support().limits.contains(&Limit::CpuTime) {
        return None;
    }
    let host = Arc::clone(host);
    let guard = Guard::new(move |call, limit| {
        // It may have ended in this moment. The host ends this process when it hears of it.
        if host.calls.lock().remove(&call).is_some() {
            let message = format!("the call used more than its {} of processor time", Span(limit));
            let error = Error::new(ErrorCode::CpuLimit, message).with_hint("raise [limits] cpu-time");
            host.send(&Frame::answer(Kind::Reply, call, Err(error)));
        }
    });
    if let Some(Span(limit)) = limits.cpu_time {
        guard.set(limit);
    }
    Some(guard)
}

fn load(
    executor: &tokio::runtime::Runtime,
    runtime: &dyn Runtime,
    unit: Unit,
    bridge: Bridge,
    report: Report,
    server: &Arc<Server>,
) {
    let loaded = executor.block_on(runtime.load(unit, bridge));
    let hello = loaded.and_then(|instance| {
        let hello = Greeting::new(instance.describe().clone(), report).to_bytes()?;
        server.serve(instance);
        Ok(hello.into())
    });
    server.host.send(&Frame::answer(Kind::Hello, 0, hello));
}

/// Takes the connection from the standard input, and puts nothing in its place.
fn connection() -> io::Result<(OwnedFd, SocketType)> {
    let socket = fcntl_dupfd_cloexec(rustix::stdio::stdin(), 3)?;
    let mode = rustix::net::sockopt::socket_type(&socket)
        .map_err(|_| io::Error::other("a host starts this, with a socket as its standard input"))?;
    let nothing = std::fs::File::open("/dev/null")?;
    rustix::stdio::dup2_stdin(&nothing)?;
    Ok((socket, mode))
}

/// Confines this process, which is the only thing that runs in it, for good.
pub(super) fn confine(plan: &Plan, socket: &OwnedFd) -> Result<Report, Error> {
    let entered = confine::enter_with(plan).map_err(|error| jail::unavailable(&error))?;
    let proxy = entered.proxy.map(OwnedFd::from);
    for (file, flag) in [(proxy, LISTENER), (entered.watch, WATCH)] {
        let handed = file.map_or(Ok(()), |file| hand_over(&file, flag, socket));
        handed.map_err(|error| {
            Error::new(ErrorCode::LoadFailed, format!("the worker cannot reach its host: {error}"))
        })?;
    }
    Ok(entered.report)
}

/// Gives the host what it is to serve for this worker, and keeps nothing of it.
fn hand_over(file: &OwnedFd, flag: u32, socket: &OwnedFd) -> io::Result<()> {
    let frame = Frame { flags: flag, ..Frame::new(Kind::Hello, 0, Bytes::new()) };
    let head = frame.head();
    // Next to nothing was sent before, so there is room for all of it.
    match write(socket, [&head, &[]], Some(file.as_fd()), SendFlags::empty())? {
        written if written == head.len() => Ok(()),
        _ => Err(io::ErrorKind::WriteZero.into()),
    }
}

/// The folders of the libraries that are loaded: beside that of an interpreter lies its own library.
pub(super) fn libraries() -> io::Result<BTreeSet<PathBuf>> {
    let maps = std::fs::read_to_string("/proc/self/maps")?;
    let files = maps.lines().filter_map(|line| line.split_once('/').map(|(_, path)| format!("/{path}")));
    let libraries = files.map(PathBuf::from).filter(|path| {
        path.file_name().and_then(|name| name.to_str()).is_some_and(|name| name.contains(".so"))
    });
    Ok(libraries.filter_map(|path| path.parent().map(Path::to_owned)).collect())
}

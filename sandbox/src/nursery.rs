//! Starts worker processes and reaps them, on one thread that lives as long as the host: the kernel
//! ends a worker when the thread that started it ends.

use std::io;
use std::os::fd::{AsFd as _, OwnedFd};
use std::os::unix::process::ExitStatusExt as _;
use std::path::Path;
use std::process::{Command, ExitStatus, Stdio};
use std::sync::mpsc::{self, Receiver, Sender};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use parking_lot::{Condvar, Mutex};
use rustix::event::{EventfdFlags, PollFd, PollFlags, eventfd, poll};
use rustix::net::{Shutdown, shutdown};
use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};
use tokio::sync::oneshot;

/// A worker process.
pub(crate) struct Child {
    pub(crate) pid: u32,
    pidfd: OwnedFd,
    /// Our end of its connection, shut down once it has exited: a process that it started may
    /// still hold the other.
    socket: Arc<OwnedFd>,
    status: Mutex<Option<ExitStatus>>,
    exited: Condvar,
}

/// What a new worker prints to.
pub(crate) struct Pipes {
    pub(crate) stdout: OwnedFd,
    pub(crate) stderr: OwnedFd,
}

type Started = io::Result<(Arc<Child>, Pipes)>;

struct Order {
    command: Command,
    socket: Arc<OwnedFd>,
    started: oneshot::Sender<Started>,
}

/// The way to the thread.
struct Nursery {
    orders: Sender<Order>,
    bell: OwnedFd,
}

/// Starts a worker: no file but `theirs` as its standard input and two pipes, and no environment
/// but `PATH`, by which an interpreter finds its standard library.
pub(crate) async fn start(program: &Path, theirs: OwnedFd, ours: Arc<OwnedFd>) -> Started {
    let nursery = nursery()?;
    let mut command = Command::new(program);
    command
        .arg("worker")
        .env_clear()
        .envs(std::env::var_os("PATH").map(|path| ("PATH", path)))
        .current_dir("/");
    command.stdin(theirs).stdout(Stdio::piped()).stderr(Stdio::piped());
    let (started, answer) = oneshot::channel();
    let gone = || io::Error::other("the thread that starts workers is gone");
    nursery.orders.send(Order { command, socket: ours, started }).map_err(|_| gone())?;
    rustix::io::write(&nursery.bell, &1_u64.to_ne_bytes())?;
    answer.await.map_err(|_| gone())?
}

fn nursery() -> io::Result<&'static Nursery> {
    static NURSERY: OnceLock<Nursery> = OnceLock::new();
    static STARTING: Mutex<()> = Mutex::new(());
    let _one = STARTING.lock();
    if let Some(nursery) = NURSERY.get() {
        return Ok(nursery);
    }
    let bell = eventfd(0, EventfdFlags::CLOEXEC)?;
    let theirs = bell.try_clone()?;
    let (orders, received) = mpsc::channel();
    std::thread::Builder::new()
        .name("quadriga-nursery".to_owned())
        .spawn(move || watch(&received, &theirs))?;
    Ok(NURSERY.get_or_init(|| Nursery { orders, bell }))
}

fn watch(orders: &Receiver<Order>, bell: &OwnedFd) {
    let mut children: Vec<(std::process::Child, Arc<Child>)> = Vec::new();
    loop {
        let exited: Vec<bool> = {
            let of = |fd| PollFd::from_borrowed_fd(fd, PollFlags::IN);
            let pidfds = children.iter().map(|(_, child)| of(child.pidfd.as_fd()));
            let mut fds: Vec<PollFd<'_>> = std::iter::once(of(bell.as_fd())).chain(pidfds).collect();
            if poll(&mut fds, None).is_err() {
                continue;
            }
            fds.iter().map(|fd| !fd.revents().is_empty()).collect()
        };
        // Backwards, so that the places stay right.
        for place in (0..children.len()).rev().filter(|place| exited[place + 1]) {
            let (mut process, child) = children.swap_remove(place);
            // It has exited: this does not wait.
            child.exited(process.wait().unwrap_or_else(|_| ExitStatus::from_raw(0)));
        }
        if exited[0] {
            let _ = rustix::io::read(bell, &mut [0; 8]);
            for Order { mut command, socket, started } in orders.try_iter() {
                // Who asked may have gone.
                if let Err(Ok((child, _))) = started.send(begin(&mut command, socket, &mut children)) {
                    child.kill();
                }
            }
        }
    }
}

fn begin(
    command: &mut Command,
    socket: Arc<OwnedFd>,
    children: &mut Vec<(std::process::Child, Arc<Child>)>,
) -> Started {
    let mut process = command.spawn()?;
    let pid = process.id();
    let parts = || {
        let id = i32::try_from(pid).ok().and_then(Pid::from_raw).ok_or(io::ErrorKind::InvalidData)?;
        let pidfd = pidfd_open(id, PidfdFlags::empty())?;
        let (Some(stdout), Some(stderr)) = (process.stdout.take(), process.stderr.take()) else {
            return Err(io::ErrorKind::BrokenPipe.into());
        };
        io::Result::Ok((pidfd, Pipes { stdout: stdout.into(), stderr: stderr.into() }))
    };
    match { parts }() {
        Ok((pidfd, pipes)) => {
            let (status, exited) = (Mutex::new(None), Condvar::new());
            let child = Arc::new(Child { pid, pidfd, socket, status, exited });
            children.push((process, Arc::clone(&child)));
            Ok((child, pipes))
        }
        Err(error) => {
            let _ = process.kill();
            let _ = process.wait();
            Err(error)
        }
    }
}

impl Child {
    /// Ends it at once. Does nothing if it has exited.
    pub(crate) fn kill(&self) {
        let _ = pidfd_send_signal(&self.pidfd, Signal::KILL);
    }

    /// Sends it a signal. Does nothing if it has exited.
    pub(crate) fn signal(&self, signal: Signal) {
        let _ = pidfd_send_signal(&self.pidfd, signal);
    }

    /// Waits until it has exited.
    pub(crate) fn wait(&self, patience: Duration) -> Option<ExitStatus> {
        let mut status = self.status.lock();
        if status.is_none() {
            self.exited.wait_for(&mut status, patience);
        }
        *status
    }

    fn exited(&self, status: ExitStatus) {
        *self.status.lock() = Some(status);
        self.exited.notify_all();
        let _ = shutdown(&self.socket, Shutdown::Both);
    }
}

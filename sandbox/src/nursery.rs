//! Starts worker processes and sees to their ends, on one thread that lives as long as the host:
//! the kernel ends a worker, and a zygote, when the thread that started it ends.

mod child;
mod zygote;

use std::io;
use std::os::fd::{AsFd as _, OwnedFd};
use std::os::unix::process::ExitStatusExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus};
use std::sync::mpsc::{self, Receiver, Sender};
use std::sync::{Arc, OnceLock};

use parking_lot::Mutex;
use quadriga_abi::{Error, ErrorCode, RuntimeKind};
use rustix::event::{EventfdFlags, PollFd, PollFlags, Timespec, eventfd, poll};
use rustix::net::{AddressFamily, SocketFlags, SocketType, socketpair};
use rustix::pipe::{PipeFlags, pipe_with};
use rustix::process::{Pid, PidfdFlags, Signal, WaitId, WaitIdOptions, pidfd_open, waitid};
use tokio::sync::oneshot;

pub(crate) use self::child::{Child, how};
use self::zygote::Zygote;

/// What a new worker prints to.
pub(crate) struct Pipes {
    pub(crate) stdout: OwnedFd,
    pub(crate) stderr: OwnedFd,
}

/// A worker that was started, and what its host has of it.
pub(crate) struct Begun {
    pub(crate) child: Arc<Child>,
    pub(crate) socket: Arc<OwnedFd>,
    pub(crate) pipes: Pipes,
}

/// Why there is no worker.
enum Failure {
    /// Its zygote ended just then. Another one may do better.
    Lost,
    Error(Error),
}

/// Tells who asked for a worker.
type Started = oneshot::Sender<Result<Arc<Child>, Failure>>;

struct Order {
    program: PathBuf,
    /// The kind whose zygote is to fork. Without one, the program is started.
    kind: Option<RuntimeKind>,
    /// Where one that is forked moves itself into its cgroups.
    doors: Arc<Vec<OwnedFd>>,
    /// The worker's connection, standard output and standard error.
    files: [OwnedFd; 3],
    /// The other end of the connection.
    socket: Arc<OwnedFd>,
    started: Started,
}

/// The way to the thread.
struct Nursery {
    orders: Sender<Order>,
    bell: OwnedFd,
}

/// Starts a worker, by the zygote of a kind if one is named: no file but a connection and two
/// pipes, and no environment but `PATH`, by which an interpreter finds its standard library. One that
/// is forked tries the `doors` of its cgroups first, so that it need not be moved there.
pub(crate) async fn start(
    program: &Path,
    kind: Option<&RuntimeKind>,
    doors: Vec<OwnedFd>,
) -> Result<Begun, Error> {
    let doors = Arc::new(doors);
    for _ in 0..2 {
        match attempt(program, kind, &doors).await.map_err(|error| failed(program, &error))? {
            Ok(begun) => return Ok(begun),
            Err(Failure::Error(error)) => return Err(error),
            // With files of its own, in case a worker has got those.
            Err(Failure::Lost) => {}
        }
    }
    Err(failed(program, &io::Error::other("the process that it is forked from ended twice")))
}

async fn attempt(
    program: &Path,
    kind: Option<&RuntimeKind>,
    doors: &Arc<Vec<OwnedFd>>,
) -> io::Result<Result<Begun, Failure>> {
    let pair = socketpair(AddressFamily::UNIX, SocketType::STREAM, SocketFlags::CLOEXEC, None)?;
    attempt_with(program, kind, doors, pair).await
}

/// Starts a program with its end of this connection, whose other end is ours.
#[cfg(test)]
pub(crate) async fn start_with(program: &Path, pair: (OwnedFd, OwnedFd)) -> io::Result<Begun> {
    let begun = attempt_with(program, None, &Arc::default(), pair).await?;
    begun.map_err(|_| io::Error::other("it could not be started"))
}

async fn attempt_with(
    program: &Path,
    kind: Option<&RuntimeKind>,
    doors: &Arc<Vec<OwnedFd>>,
    (ours, theirs): (OwnedFd, OwnedFd),
) -> io::Result<Result<Begun, Failure>> {
    let nursery = nursery()?;
    let (stdout, out) = pipe_with(PipeFlags::CLOEXEC)?;
    let (stderr, err) = pipe_with(PipeFlags::CLOEXEC)?;
    let (socket, files, pipes) = (Arc::new(ours), [theirs, out, err], Pipes { stdout, stderr });
    let (started, answer) = oneshot::channel();
    let gone = || io::Error::other("the thread that starts workers is gone");
    let (program, kind, doors) = (program.to_owned(), kind.cloned(), Arc::clone(doors));
    let order = Order { program, kind, doors, files, socket: Arc::clone(&socket), started };
    nursery.orders.send(order).map_err(|_| gone())?;
    rustix::io::write(&nursery.bell, &1_u64.to_ne_bytes())?;
    let answer = answer.await.map_err(|_| gone())?;
    Ok(answer.map(|child| Begun { child, socket, pipes }))
}

fn failed(program: &Path, error: &io::Error) -> Error {
    let message = format!("the worker {} could not be started: {error}", program.display());
    Error::new(ErrorCode::LoadFailed, message)
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
        .spawn(move || Room::default().watch(&received, &theirs))?;
    Ok(NURSERY.get_or_init(|| Nursery { orders, bell }))
}

/// All that the thread has started.
#[derive(Default)]
struct Room {
    /// Workers that are children of this process.
    own: Vec<(std::process::Child, Arc<Child>)>,
    /// Each with the workers that it has forked.
    zygotes: Vec<Zygote>,
    /// Workers whose zygote has ended, which end with it.
    orphans: Vec<Arc<Child>>,
}

impl Room {
    fn watch(mut self, orders: &Receiver<Order>, bell: &OwnedFd) {
        loop {
            let Some(ready) = self.wait(bell) else { continue };
            let (rung, ready) = (ready[0], &ready[1..]);
            let (own, ready) = ready.split_at(self.own.len());
            let (orphans, zygotes) = ready.split_at(self.orphans.len());
            // Backwards, so that the places stay right.
            for place in (0..own.len()).rev().filter(|place| own[*place]) {
                let (mut process, child) = self.own.swap_remove(place);
                // It has exited: this does not wait.
                child.exited(process.wait().unwrap_or_else(|_| ExitStatus::from_raw(0)));
            }
            for place in (0..orphans.len()).rev().filter(|place| orphans[*place]) {
                bury(&self.orphans.swap_remove(place));
            }
            for place in (0..zygotes.len()).rev() {
                if self.zygotes[place].goes_on(zygotes[place]) {
                    continue;
                }
                self.orphans.extend(self.zygotes.swap_remove(place).end());
            }
            if rung {
                let _ = rustix::io::read(bell, &mut [0; 8]);
                orders.try_iter().for_each(|order| self.take(order));
            }
        }
    }

    /// Waits until there is something to do: for the bell, own workers, orphans and zygotes.
    fn wait(&self, bell: &OwnedFd) -> Option<Vec<bool>> {
        let own = self.own.iter().map(|(_, child)| child.pidfd.as_fd());
        let orphans = self.orphans.iter().map(|child| child.pidfd.as_fd());
        let zygotes = self.zygotes.iter().map(|zygote| zygote.socket.as_fd());
        let all = std::iter::once(bell.as_fd()).chain(own).chain(orphans).chain(zygotes);
        let mut fds: Vec<_> = all.map(|fd| PollFd::from_borrowed_fd(fd, PollFlags::IN)).collect();
        let left = self.zygotes.iter().filter_map(Zygote::patience).min();
        let left = left.and_then(|left| Timespec::try_from(left).ok());
        poll(&mut fds, left.as_ref()).ok()?;
        Some(fds.iter().map(|fd| !fd.revents().is_empty()).collect())
    }

    fn take(&mut self, order: Order) {
        let Some(kind) = order.kind.clone() else {
            let Order { program, files, socket, started, .. } = order;
            let begun = self.begin(&program, files, socket);
            return tell(started, begun.map_err(|error| Failure::Error(failed(&program, &error))));
        };
        if let Some(zygote) = self.zygotes.iter_mut().find(|zygote| zygote.is_for(&order.program, &kind)) {
            return zygote.take(order);
        }
        match Zygote::start(&order.program, kind) {
            Ok(mut zygote) => {
                zygote.take(order);
                self.zygotes.push(zygote);
            }
            Err(error) => tell(order.started, Err(Failure::Error(failed(&order.program, &error)))),
        }
    }

    fn begin(&mut self, program: &Path, files: [OwnedFd; 3], socket: Arc<OwnedFd>) -> io::Result<Arc<Child>> {
        let [connection, stdout, stderr] = files;
        let mut process = command(program).stdin(connection).stdout(stdout).stderr(stderr).spawn()?;
        let pid = process.id();
        let id = i32::try_from(pid).ok().and_then(Pid::from_raw).ok_or(io::ErrorKind::InvalidData);
        match id.map_err(io::Error::from).and_then(|id| Ok(pidfd_open(id, PidfdFlags::empty())?)) {
            Ok(pidfd) => {
                let child = Child::new(pid, pidfd, socket);
                self.own.push((process, Arc::clone(&child)));
                Ok(child)
            }
            Err(error) => {
                let _ = process.kill();
                let _ = process.wait();
                Err(error)
            }
        }
    }
}

/// The worker program, as it is started.
fn command(program: &Path) -> Command {
    let mut command = Command::new(program);
    command
        .arg("worker")
        .env_clear()
        .envs(std::env::var_os("PATH").map(|path| ("PATH", path)))
        .current_dir("/");
    command
}

/// Tells who asked, if that one is still there: a worker that nobody waits for is ended.
fn tell(started: Started, answer: Result<Arc<Child>, Failure>) {
    if let Err(Ok(child)) = started.send(answer) {
        child.kill();
    }
}

/// Sees to an orphan that has ended. Who takes orphans over reaps them, and that may be this process.
fn bury(child: &Child) {
    let options = WaitIdOptions::EXITED | WaitIdOptions::NOHANG;
    let _ = waitid(WaitId::PidFd(child.pidfd.as_fd()), options);
    // What the kernel ends the children of a zygote with.
    child.exited(ExitStatus::from_raw(Signal::KILL.as_raw()));
}

//! A zygote, as its host holds it.

use std::collections::{HashMap, VecDeque};
use std::io;
use std::os::fd::{AsFd as _, OwnedFd};
use std::os::unix::process::ExitStatusExt as _;
use std::path::{Path, PathBuf};
use std::process::{ExitStatus, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use quadriga_abi::{Error, ErrorCode, RuntimeKind};
use rustix::net::{AddressFamily, RecvFlags, SendFlags, SocketFlags, socketpair};

use super::{Child, Failure, Order, Started, command, failed, how, tell};
use crate::zygote::{self, Report, SOCKET, receive, send};

/// How many orders it may have at a time: they and their files wait in its socket, which neither
/// side may find full.
const AT_ONCE: usize = 16;

/// How long it may owe an answer.
const PATIENCE: Duration = Duration::from_secs(30);

pub(super) struct Zygote {
    program: PathBuf,
    kind: RuntimeKind,
    process: std::process::Child,
    pub(super) socket: OwnedFd,
    is_ready: bool,
    /// Why it cannot be made ready.
    unfit: Option<Error>,
    /// What it has not been told yet.
    waiting: VecDeque<Order>,
    /// What it was told, by the numbers that it was given.
    asked: HashMap<u64, (Arc<OwnedFd>, Started)>,
    next: u64,
    /// Since when it owes an answer.
    since: Instant,
    /// It owed one for too long, and gets no more orders.
    is_retired: bool,
    children: HashMap<u64, Arc<Child>>,
}

impl Zygote {
    /// Starts one. It is asked to be ready, and not waited for.
    pub(super) fn start(program: &Path, kind: RuntimeKind) -> io::Result<Self> {
        let (socket, theirs) = socketpair(AddressFamily::UNIX, SOCKET, SocketFlags::CLOEXEC, None)?;
        // What it says of itself comes by the socket; what is left is a panic.
        let process = command(program).stdin(theirs).stdout(Stdio::null()).spawn()?;
        let mut zygote = Self {
            program: program.to_owned(),
            kind,
            process,
            socket,
            is_ready: false,
            unfit: None,
            waiting: VecDeque::new(),
            asked: HashMap::new(),
            next: 0,
            since: Instant::now(),
            is_retired: false,
            children: HashMap::new(),
        };
        // That it ended before it could read this is seen where its answers are.
        let _ = send(&zygote.socket, &zygote::Order::Warm(zygote.kind.clone()), &[], SendFlags::DONTWAIT);
        zygote.since = Instant::now();
        Ok(zygote)
    }

    pub(super) fn is_for(&self, program: &Path, kind: &RuntimeKind) -> bool {
        !self.is_retired && self.program == program && self.kind == *kind
    }

    pub(super) fn take(&mut self, order: Order) {
        if self.asked.is_empty() && self.is_ready {
            self.since = Instant::now();
        }
        self.waiting.push_back(order);
        self.tell();
    }

    /// Tells it of as many orders as it may have.
    fn tell(&mut self) {
        while self.is_ready && self.asked.len() < AT_ONCE {
            let Some(order) = self.waiting.pop_front() else { return };
            let number = self.next;
            self.next += 1;
            let doors = order.doors.iter().take(zygote::DOORS);
            let files: Vec<_> = order.files.iter().chain(doors).map(|file| file.as_fd()).collect();
            match send(&self.socket, &zygote::Order::Start(number), &files, SendFlags::DONTWAIT) {
                Ok(()) => _ = self.asked.insert(number, (order.socket, order.started)),
                Err(error) if error.kind() == io::ErrorKind::BrokenPipe => {
                    tell(order.started, Err(Failure::Lost));
                }
                Err(error) => tell(order.started, Err(Failure::Error(failed(&self.program, &error)))),
            }
        }
    }

    /// How long it may still take to answer; `None` if it owes nothing.
    pub(super) fn patience(&self) -> Option<Duration> {
        let owes = !self.is_retired && (!self.is_ready || !self.asked.is_empty());
        owes.then(|| PATIENCE.saturating_sub(self.since.elapsed()))
    }

    /// Takes what it says, and returns whether there is more to expect.
    pub(super) fn goes_on(&mut self, says: bool) -> bool {
        if says && !self.hear() {
            return false;
        }
        if self.patience() == Some(Duration::ZERO) {
            self.is_retired = true;
            let late = || io::Error::other("the process that it is forked from does not answer");
            let waiting = self.waiting.drain(..).map(|order| order.started);
            for started in waiting.chain(self.asked.drain().map(|(_, (_, started))| started)) {
                tell(started, Err(Failure::Error(failed(&self.program, &late()))));
            }
        }
        // The workers that it has live on, and it as long as they.
        !(self.is_retired && self.children.is_empty())
    }

    /// Reads all that there is. False at its end.
    fn hear(&mut self) -> bool {
        loop {
            match receive(&self.socket, RecvFlags::DONTWAIT) {
                Ok(Some((report, files))) => self.note(report, files),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return true,
                Ok(None) | Err(_) => return false,
            }
            self.since = Instant::now();
            self.tell();
        }
    }

    fn note(&mut self, report: Report, files: Vec<OwnedFd>) {
        match report {
            Report::Ready => self.is_ready = true,
            Report::Unfit(error) => self.unfit = Some(error),
            Report::Started(number, pid) => {
                let (asked, pidfd) = (self.asked.remove(&number), files.into_iter().next());
                // Without its descriptor it cannot be held; it ends with its connection.
                let error = || failed(&self.program, &io::Error::other("too many files are open"));
                let Some((socket, started)) = asked else { return };
                let Some(pidfd) = pidfd else { return tell(started, Err(Failure::Error(error()))) };
                let child = Child::new(pid, pidfd, socket);
                self.children.insert(number, Arc::clone(&child));
                tell(started, Ok(child));
            }
            Report::Refused(number, why) => {
                if let Some((_, started)) = self.asked.remove(&number) {
                    tell(started, Err(Failure::Error(failed(&self.program, &io::Error::other(why)))));
                }
            }
            Report::Exited(number, status) => {
                if let Some((_, started)) = self.asked.remove(&number) {
                    let status = Some(ExitStatus::from_raw(status));
                    let error = io::Error::other(format!("before it could say so, it {}", how(status)));
                    tell(started, Err(Failure::Error(failed(&self.program, &error))));
                }
                if let Some(child) = self.children.remove(&number) {
                    child.exited(ExitStatus::from_raw(status));
                }
            }
        }
    }

    /// Sees to its end, and returns the workers that it leaves. They end with it.
    pub(super) fn end(mut self) -> impl Iterator<Item = Arc<Child>> {
        let _ = self.process.kill();
        let status = self.process.wait().ok();
        let waiting = self.waiting.into_iter().map(|order| order.started);
        for started in waiting.chain(self.asked.into_values().map(|(_, started)| started)) {
            let failure = match (self.is_ready, &self.unfit) {
                (true, _) => Failure::Lost,
                (_, Some(error)) => Failure::Error(error.clone()),
                (false, None) => Failure::Error(Error::new(
                    ErrorCode::ExtensionCrashed,
                    format!("the worker program {} {}", self.program.display(), how(status)),
                )),
            };
            tell(started, Err(failure));
        }
        // Also one that was forked a moment ago, and has not asked the kernel to end it.
        self.children.into_values().inspect(|child| child.kill())
    }
}
